"""What every request passes through: faults, limits, paths, correlation, measurement."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from engine_pg import errors
from engine_pg.api.app import on
from engine_pg.api.auth import is_protected
from engine_pg.api.edge.correlation import Correlation
from engine_pg.api.edge.hardening import Hardening
from engine_pg.api.edge.limits import Limits
from engine_pg.api.edge.measurement import Measurement
from engine_pg.api.edge.paths import Paths, normalised
from engine_pg.api.faults import Faults, http_error, status_of
from engine_pg.api.metrics import Metrics
from engine_pg.api.wire.shape import Incomplete

METRICS = Metrics()


def app(raising: BaseException | None = None) -> Starlette:
    async def endpoint(request: Request) -> PlainTextResponse:
        if raising:
            raise raising
        body = await request.body()
        return PlainTextResponse(f"{request.scope['path']} {len(body)}")

    starlette = Starlette(
        routes=[
            on("/thing/{id}", GET=endpoint, POST=endpoint),
            on("/ovirt-engine/api/vms", GET=endpoint),
        ],
        exception_handlers={HTTPException: http_error},
        middleware=[
            Middleware(Measurement, metrics=METRICS),
            Middleware(Correlation),
            Middleware(Hardening),
            Middleware(Faults),
            Middleware(Limits, body_limit_bytes=lambda: 1000),
            Middleware(Paths),
        ],
    )
    starlette.router.redirect_slashes = False
    return starlette


def ask(method="GET", path="/thing/1", raising=None, **request) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app(raising))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Invalid("x"), 400),
        (errors.Forbidden("x"), 403),
        (errors.Conflict("x"), 409),
        (errors.Locked("x"), 409),
        (errors.TooLarge("x"), 413),
        (errors.DatabaseAway("x"), 503),
        (errors.Outdated("x"), 412),
        (errors.HostBusy("x"), 503),
        (errors.StaleTerm("x"), 503),
        (errors.OutcomeUnknown("x"), 503),
        (errors.EngineError("x"), 500),
    ],
)
def test_a_branch_of_the_error_tree_is_a_status_and_a_fault(error, status):
    answer = ask(raising=error)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/xml"
    assert re.search(r"<fault><reason>Operation Failed</reason><detail>\[.*x.*\]", answer.text)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("error", [errors.Unauthorized("x"), errors.NotFound("x")])
def test_unknown_things_and_people_get_no_body(error):
    answer = ask(raising=error)
    assert (answer.status_code, answer.content) == (status_of(error), b"")


def test_every_error_has_a_status():
    leaves = {error for error in vars(errors).values() if isinstance(error, type)}
    assert {status_of(leaf("x")) for leaf in leaves} <= {
        *(400, 401, 403, 404, 409, 412, 413, 422),
        *(500, 503),
    }


def test_a_bug_tells_nothing_of_itself():
    answer = ask(raising=RuntimeError("secret detail"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Internal error" in answer.text


def test_a_lock_that_is_held_asks_to_try_again_and_names_its_holder():
    text = "Cannot start VM: node-1 starts VM a1 for admin@internal since 2 s."
    answer = ask(raising=errors.Locked(text))
    assert f"[{text} Related operation is currently in progress. Please try" in answer.text


def test_missing_elements_are_told_without_brackets():
    answer = ask(raising=Incomplete("Vm [name] required for add"))
    assert "<reason>Incomplete parameters</reason><detail>Vm [name] required" in answer.text


def test_a_fault_is_json_for_those_who_ask_for_json():
    answer = ask(raising=errors.Conflict("x"), headers={"Accept": "application/json"})
    assert answer.json() == {"reason": "Operation Failed", "detail": "[x]"}


def test_what_does_not_exist_and_what_is_not_allowed_have_no_body():
    assert (ask(path="/nothing").status_code, ask(path="/nothing").content) == (404, b"")
    answer = ask("DELETE")
    assert (answer.status_code, answer.content) == (405, b"")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_options_and_head_are_answered():
    assert ask("OPTIONS").status_code == 200
    assert "GET" in ask("OPTIONS").headers["allow"]
    assert ask("HEAD").status_code == 200


def test_a_body_over_the_limit_is_refused_whatever_it_announces():
    assert ask("POST", content=b"x" * 1000).text == "/thing/1 1000"
    assert ask("POST", content=b"x" * 1001).status_code == 413
    announced = ask("POST", content=b"x", headers={"Content-Length": "9" * 30})
    assert announced.status_code == 413
    lied = ask("POST", content=b"x" * 1001, headers={"Content-Length": "1"})
    assert lied.status_code == 413


def test_a_body_is_counted_as_it_streams_in():
    async def pieces():
        for _ in range(100):
            yield b"x" * 100

    assert ask("POST", content=pieces()).status_code == 413


@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/thing/" + "x" * 3000},
        {"params": {"search": "x" * 20_000}},
        {"headers": {"X-Long": "x" * 40_000}},
    ],
)
def test_a_head_over_its_limits_is_refused(request_):
    assert ask(**request_).status_code == 413


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ovirt-engine/api", ("/ovirt-engine/api", "/ovirt-engine/api")),
        ("/ovirt-engine/api/", ("/ovirt-engine/api", "/ovirt-engine/api")),
        ("/ovirt-engine/api//vms", ("/ovirt-engine/api/vms", "/ovirt-engine/api")),
        ("//ovirt-engine///api/vms/", ("/ovirt-engine/api/vms", "/ovirt-engine/api")),
        ("/ovirt-engine/api/v4", ("/ovirt-engine/api", "/ovirt-engine/api/v4")),
        ("/ovirt-engine/api/v4/vms", ("/ovirt-engine/api/vms", "/ovirt-engine/api/v4")),
        ("/ovirt-engine/api/v4x", ("/ovirt-engine/api/v4x", "/ovirt-engine/api")),
        ("/", ("/", "/ovirt-engine/api")),
    ],
)
def test_a_path_is_set_right_without_a_redirect(path, expected):
    assert normalised(path) == expected


def test_only_version_4_is_spoken():
    assert ask(path="/ovirt-engine/api//vms/").text == "/ovirt-engine/api/vms 0"
    assert ask(path="/ovirt-engine/api/vms", headers={"Version": "4"}).status_code == 200
    assert ask(path="/ovirt-engine/api/vms", headers={"Version": "3"}).status_code == 400


@pytest.mark.parametrize(
    "path", ["/ovirt-engine/api", "/ovirt-engine/api/vms", "/api/v1/status", "/api/v1"]
)
def test_everything_of_the_engine_is_protected(path):
    assert is_protected(path)


def test_a_correlation_id_is_echoed():
    chosen = ask(headers={"Correlation-Id": "my_id-1"})
    assert chosen.headers["correlation-id"] == "my_id-1"
    assert ask(path="/thing/1?correlation_id=by-query").headers["correlation-id"] == "by-query"


@pytest.mark.parametrize("text", ["", "a b", "x" * 37, "ä", "<script>", "a\tb"])
def test_a_correlation_id_that_is_unfit_is_replaced(text):
    answer = ask(headers={"Correlation-Id": text.encode()})
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["correlation-id"])


def test_a_fault_carries_the_correlation_id_too():
    answer = ask(raising=RuntimeError(), headers={"Correlation-Id": "c-1"})
    assert answer.headers["correlation-id"] == "c-1"


def test_no_browser_and_no_cache_makes_anything_of_an_answer():
    for answer in (ask(), ask(raising=RuntimeError()), ask(path="/nothing")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_requests_are_counted_by_route():
    before = METRICS.requests.values.get(("GET", "/thing/{id}", "200"), 0)
    ask(path="/thing/1")
    ask(path="/thing/2")
    assert METRICS.requests.values["GET", "/thing/{id}", "200"] == before + 2
    ask("BREW", path="/elsewhere")
    assert METRICS.requests.values["other", "none", "404"] >= 1


def test_metrics_are_written_as_prometheus_reads_them():
    metrics = Metrics()
    metrics.requests.add("GET", 'a"b\n', "200")
    metrics.latency.observe("/x", 0.3)
    lines = list(metrics.lines())
    assert 'engine_api_requests_total{method="GET",route="a\\"b\\n",status="200"} 1' in lines
    assert 'engine_api_request_seconds_bucket{route="/x",le="0.25"} 0' in lines
    assert 'engine_api_request_seconds_bucket{route="/x",le="0.5"} 1' in lines
    assert 'engine_api_request_seconds_bucket{route="/x",le="+Inf"} 1' in lines
    assert 'engine_api_request_seconds_count{route="/x"} 1' in lines
