"""Logging in: tokens good everywhere and stored nowhere, guesses slowed down, no user betrayed."""

from __future__ import annotations

import asyncio
import time

import pytest
from apinode import API, FAST, LOGOUT, PASSWORD, USER, Api, api, run

from engine_pg.api.accounts import users
from engine_pg.api.accounts.passwords import Passwords
from engine_pg.api.accounts.tokens import hashed
from engine_pg.errors import Conflict, Invalid, NotFound, Unavailable


def test_a_login_gives_a_token_as_clients_expect_it(database_url):
    async def scenario(node: Api):
        answer = await node.login()
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert body.keys() == {"access_token", "scope", "exp", "token_type"}
        assert (body["scope"], body["token_type"]) == ("ovirt-app-api", "bearer")
        lifetime_s = int(body["exp"]) / 1000 - time.clock_gettime(time.CLOCK_REALTIME)
        assert 3500 < lifetime_s < 3700
        assert len(body["access_token"]) >= 43

    run(database_url, scenario, token_lifetime_s=3600)


def test_only_the_hash_of_a_token_is_stored(database_url):
    async def scenario(node: Api):
        token = (await node.login()).json()["access_token"]
        async with node.db.read() as tx:
            rows = await tx.all("select t.*, t::text as everything from api_token t")
        assert hashed(token) in {bytes(row["token_hash"]) for row in rows}
        assert not any(token in row["everything"] for row in rows)

    run(database_url, scenario)


def test_a_token_of_one_node_is_good_on_another(database_url):
    async def scenario():
        async with api(database_url) as one, api(database_url) as other:
            token = (await one.login()).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            assert (await other.client.get(API, headers=headers)).status_code == 200
            assert (await other.client.post(LOGOUT, data={"token": token})).json() == {}
            answer = await one.client.get(API, headers=headers)
            assert (answer.status_code, answer.content) == (401, b"")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer x", "Bearer  ", "Basic", "Basic ???", "Basic YWJj", "Digest x", "x"],
)
def test_who_has_no_valid_credentials_gets_nothing(database_url, authorization):
    async def scenario(node: Api):
        for path in (API, f"{API}/vms", f"{API}/nothing"):
            answer = await node.client.get(path, headers={"Authorization": authorization})
            assert (answer.status_code, answer.content) == (401, b"")
        answer = await node.client.get("/api/v1/status", headers={"Authorization": authorization})
        assert (answer.status_code, answer.json().keys()) == (401, {"status", "error"})
        answer = await node.client.post(f"{API}/vms", headers={"Authorization": authorization})
        assert answer.status_code == 401
        assert node.commands.submissions == []

    run(database_url, scenario)


def test_basic_authentication_works_for_curl(database_url):
    async def scenario(node: Api):
        del node.client.headers["Authorization"]
        assert (await node.client.get(API, auth=(USER, PASSWORD))).status_code == 200
        assert (await node.client.get(API, auth=(USER.upper(), PASSWORD))).status_code == 200
        assert (await node.client.get(API, auth=(USER, "wrong"))).status_code == 401

    run(database_url, scenario)


def test_an_expired_token_is_unknown_and_swept_out(database_url):
    async def scenario(node: Api):
        assert (await node.client.get(API)).status_code == 200
        await node.run("update api_token set expires_at = now() - interval '1 s'")
        answer = await node.client.get(API)
        assert (answer.status_code, answer.content) == (401, b"")
        await node.login()
        async with node.db.read() as tx:
            assert len(await tx.all("select from api_token")) == 1

    run(database_url, scenario)


def test_a_token_lives_on_while_it_is_used(database_url):
    async def scenario(node: Api):
        token = (await node.login()).json()["access_token"]
        await node.run(
            "update api_token set last_used_at = now() - interval '2 min',"
            " expires_at = now() + interval '5 s'"
        )
        await node.client.get(API, headers={"Authorization": f"Bearer {token}"})
        async with node.db.read() as tx:
            later = "select token_hash from api_token where expires_at > now() + interval '1 min'"
            assert [bytes(row["token_hash"]) for row in await tx.all(later)] == [hashed(token)]

    run(database_url, scenario)


def test_a_disabled_user_is_out_at_once(fresh_database_url):
    async def scenario(node: Api):
        await node.run("update app_user set enabled = false")
        assert (await node.client.get(API)).status_code == 401
        assert (await node.login()).status_code == 400

    run(fresh_database_url, scenario)


def test_a_refusal_is_the_same_whether_the_user_exists_or_not(database_url):
    async def scenario(node: Api):
        answers = [
            await node.login(USER, "wrong"),
            await node.login("nobody@internal", "wrong"),
            await node.login("a\x00b", "wrong"),
            await node.login("x" * 1000, "wrong"),
            await node.login("", ""),
        ]
        assert {answer.status_code for answer in answers} == {400}
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].json()["error_code"] == "access_denied"
        assert answers[0].headers["content-type"] == "application/json"

    run(database_url, scenario)


def test_an_unknown_user_costs_as_much_work_as_a_wrong_password():
    class Counting(Passwords):
        verified: list[str]

        def _verify(self, password_hash, password):
            self.verified.append(password_hash)
            return super()._verify(password_hash, password)

    async def scenario():
        passwords = Counting(FAST)
        passwords.verified = []
        assert not await passwords.matches(None, "x")
        assert not await passwords.matches(await passwords.hash("y"), "x")
        assert not await passwords.matches(None, "")
        assert len(passwords.verified) == 3

    asyncio.run(scenario())


def test_guesses_are_few_a_minute_on_all_nodes_together(fresh_database_url):
    async def scenario():
        async with (
            api(fresh_database_url, auth_failures_per_minute=4) as one,
            api(fresh_database_url, auth_failures_per_minute=4) as other,
        ):
            for turn in range(4):
                answer = await (one, other)[turn % 2].login("ADMIN@internal", "wrong")
                assert "Verify your login" in answer.json()["error"]
            for node in (one, other):
                answer = await node.login()
                assert answer.status_code == 400
                assert "Too many failed logins" in answer.json()["error"]
            unknown = [await one.login("nobody", "x") for _ in range(5)]
            assert "Too many failed logins" in unknown[-1].json()["error"]
            assert (await one.client.get(API)).status_code == 200  # tokens go on working
            await one.run("update auth_failure set since = since - interval '61 s'")
            assert (await other.login()).status_code == 200

    asyncio.run(scenario())


def test_many_guesses_at_once_do_not_outrun_the_count(fresh_database_url):
    async def scenario(node: Api):
        answers = []

        async def guess(number: int) -> None:
            answers.append(await node.login(USER, f"wrong {number}"))

        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(guess(number))
        tried = [answer for answer in answers if "Verify" in answer.json()["error"]]
        assert 5 <= len(tried) <= 5 + 2  # as many may be under way as are hashed at once

    run(fresh_database_url, scenario, auth_failures_per_minute=5)


def test_too_many_logins_at_once_are_turned_away():
    async def scenario():
        passwords = Passwords(FAST, slots=1, waiting=1)
        hashed_one, waits = asyncio.Event(), asyncio.Event()

        async def login(then: asyncio.Event) -> None:
            waits.set()
            async with passwords.slot():
                await then.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(2):  # one has its turn, one waits for it
                waits.clear()
                group.create_task(login(hashed_one))
                await waits.wait()
            with pytest.raises(Unavailable):
                await login(hashed_one)
            hashed_one.set()
        await login(hashed_one)

    asyncio.run(scenario())


def test_users_are_added_once_and_the_last_one_stays(fresh_database_url):
    async def scenario(node: Api):
        async with node.db.write() as tx:
            assert not await users.add(tx, USER.upper(), "hash")
            assert await users.add(tx, "second@internal", "hash")
            assert [user.name for user in await users.listed(tx)] == [USER, "second@internal"]
        async with node.db.write() as tx:
            await users.remove(tx, "Second@internal")
            with pytest.raises(Conflict, match="last user"):
                await users.remove(tx, USER)
            with pytest.raises(NotFound):
                await users.remove(tx, "nobody")
        assert (await node.client.get(API)).status_code == 200

    run(fresh_database_url, scenario)


def test_another_password_ends_the_old_tokens(fresh_database_url):
    async def scenario(node: Api):
        async with node.db.write() as tx:
            await users.set_password(tx, USER, await Passwords(FAST).hash("new"))
        assert (await node.client.get(API)).status_code == 401
        assert (await node.login()).status_code == 400
        assert (await node.login(password="new")).status_code == 200

    run(fresh_database_url, scenario)


@pytest.mark.parametrize("name", ["", " ", "a:b", "a\nb", "x" * 256])
def test_a_name_that_could_not_log_in_is_refused(name):
    with pytest.raises(Invalid):
        users.checked_name(name)


@pytest.mark.parametrize("form", [{}, {"grant_type": "client_credentials"}])
def test_another_grant_is_refused(database_url, form):
    async def scenario(node: Api):
        answer = await node.client.post("/ovirt-engine/sso/oauth/token", data=form)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "unsupported_grant_type")

    run(database_url, scenario)


def test_an_unknown_or_missing_token_is_logged_out_without_complaint(database_url):
    async def scenario(node: Api):
        for form in ({}, {"scope": "", "token": ""}, {"scope": "x", "token": "unknown"}):
            answer = await node.client.post(LOGOUT, data=form)
            assert (answer.status_code, answer.json()) == (200, {})

    run(database_url, scenario)
