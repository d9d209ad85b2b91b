"""The resolver's silence holds up nobody but those who ask for a name that it never answered."""

import asyncio
import socket
import threading

import pytest

from engine_pg.hosts.names import Names


class Resolver:
    """Answers what a test says; a name that it does not know is asked for in vain."""

    def __init__(self, **known):
        self.known = known
        self.silent = threading.Event()
        self.asked = []

    def __call__(self, name):
        self.asked.append(name)
        answer = self.known.get(name)
        if answer is None:
            self.silent.wait(30)
            raise socket.gaierror("nobody answered")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def resolver():
    resolver = Resolver(a=["192.0.2.1"], bad=socket.gaierror("unknown"))
    yield resolver
    resolver.silent.set()


def test_an_address_is_not_looked_up(resolver):
    async def main():
        names = Names(resolver)
        assert await names.addresses("192.0.2.9") == ["192.0.2.9"]
        assert await names.addresses("2001:db8::9") == ["2001:db8::9"]

    asyncio.run(main())
    assert resolver.asked == []


def test_a_name_that_is_unknown_says_so_each_time(resolver):
    async def main():
        names = Names(resolver)
        for _ in range(2):
            with pytest.raises(socket.gaierror):
                await names.addresses("bad")

    asyncio.run(main())


def test_who_asks_for_the_same_name_meanwhile_shares_the_answer(resolver):
    async def main():
        names = Names(resolver)
        asked = [asyncio.ensure_future(names.addresses("mute")) for _ in range(5)]
        await asyncio.sleep(0)
        resolver.silent.set()
        for each in asked:
            with pytest.raises(socket.gaierror):
                await each

    asyncio.run(main())
    assert resolver.asked == ["mute"]


def test_a_silent_resolver_costs_a_known_host_nothing_but_a_moment(resolver, monkeypatch):
    monkeypatch.setattr("engine_pg.hosts.names.PATIENCE_S", 0.01)

    async def main():
        names = Names(resolver)
        assert await names.addresses("a") == ["192.0.2.1"]
        del resolver.known["a"]
        assert await names.addresses("a") == ["192.0.2.1"]

    asyncio.run(main())


def test_names_that_failed_do_not_hold_up_others(resolver):
    resolver.known |= {f"dead-{n}": socket.gaierror("unknown") for n in range(8)}

    async def main():
        names = Names(resolver, threads=4)
        for n in range(8):
            with pytest.raises(socket.gaierror):
                await names.addresses(f"dead-{n}")
        for name in [name for name in resolver.known if name.startswith("dead")]:
            del resolver.known[name]  # from now on nobody answers for them
        pending = [asyncio.ensure_future(names.addresses(f"dead-{n}")) for n in range(8)]
        async with asyncio.timeout(10):
            assert await names.addresses("a") == ["192.0.2.1"]
        for each in pending:
            each.cancel()

    asyncio.run(main())


def test_a_loop_ends_while_lookups_hang(resolver):
    async def main():
        names = Names(resolver)
        others = [asyncio.ensure_future(names.addresses(f"mute-{n}")) for n in range(20)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await names.addresses("mute-0")
        assert not any(other.done() for other in others)

    ended = threading.Event()
    loop = threading.Thread(target=lambda: (asyncio.run(main()), ended.set()), daemon=True)
    loop.start()
    assert ended.wait(10)
    assert not resolver.silent.is_set()
