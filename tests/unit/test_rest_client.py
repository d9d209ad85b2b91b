import asyncio

import httpx
import pytest

from engine_pg.demo.rest import Client, element, named
from engine_pg.errors import Conflict, OutcomeUnknown, Rejected

URLS = ["http://node-1", "http://node-2"]


class Nodes:
    """Answers as two nodes would; `answer` is called for everything but the login."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.logins = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            self.logins += 1
            return httpx.Response(200, json={"access_token": f"token-{self.logins}"})
        self.asked.append(request.url.host)
        return self.answer(request)


def talk(answer, ask) -> Nodes:
    nodes = Nodes(answer)

    async def run() -> None:
        async with Client(URLS, "admin@internal", "word") as client:
            client._http = httpx.AsyncClient(transport=httpx.MockTransport(nodes))
            await ask(client)

    asyncio.run(run())
    return nodes


def vms(_request=None) -> httpx.Response:
    return httpx.Response(200, text="<vms><vm id='1'><name>a</name></vm></vms>")


def test_the_node_named_first_is_asked_first():
    assert talk(vms, lambda client: client.get("/vms", first=1)).asked == ["node-2"]


def test_a_node_that_refuses_connections_is_passed_over():
    def answer(request):
        if request.url.host == "node-1":
            raise httpx.ConnectError("refused")
        return vms()

    assert talk(answer, lambda client: client.get("/vms")).asked == ["node-1", "node-2"]


def test_a_node_that_is_not_ready_is_passed_over():
    def answer(request):
        return httpx.Response(503) if request.url.host == "node-1" else vms()

    body = element("vm", element("name", "a"))
    assert talk(answer, lambda client: client.post("/vms", body)).asked == ["node-1", "node-2"]


def test_what_may_have_happened_is_not_repeated():
    def answer(_request):
        raise httpx.ReadError("connection lost")

    with pytest.raises(OutcomeUnknown, match="node-1 fell silent"):
        talk(answer, lambda client: client.post("/vms", element("vm")))


def test_an_expired_token_is_replaced_once():
    valid = {"Bearer token-1"}

    def answer(request):
        return vms() if request.headers["Authorization"] in valid else httpx.Response(401)

    async def ask(client):
        await client.get("/vms")
        valid.clear()
        valid.add("Bearer token-2")
        await client.get("/vms")

    nodes = talk(answer, ask)
    assert (nodes.logins, len(nodes.asked)) == (2, 3)


@pytest.mark.parametrize(("status", "error"), [(409, Conflict), (400, Rejected)])
def test_a_refusal_carries_the_detail_of_the_fault(status, error):
    fault = "<fault><reason>Operation Failed</reason><detail>[a &amp; b]</detail></fault>"
    with pytest.raises(error, match=rf"{status} \[a & b\]"):
        talk(lambda _: httpx.Response(status, text=fault), lambda client: client.get("/vms"))


def test_references_are_by_name():
    assert named("cluster", "Default").findtext("name") == "Default"
