"""The resolver's silence holds up nobody but those who ask for a name that it never answered."""

import asyncio
import socket
import threading

import pytest
from resolvers import Resolver

from engine_pg.names import Names


@pytest.fixture
def resolver():
    resolver = Resolver(a=["192.0.2.1"], bad=socket.gaierror("unknown"))
    yield resolver
    resolver.ended.set()


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
        resolver.ended.set()
        for each in asked:
            with pytest.raises(socket.gaierror):
                await each

    asyncio.run(main())
    assert resolver.asked == ["mute"]


def test_a_silent_resolver_costs_a_known_name_one_moment_however_often_it_is_asked_for(resolver):
    async def main():
        names = Names(resolver, patience_s=0.3)
        assert await names.addresses("a") == ["192.0.2.1"]
        del resolver.known["a"]
        async with asyncio.timeout(6):
            for _ in range(50):
                assert await names.addresses("a") == ["192.0.2.1"]
        assert resolver.asked == ["a", "a"]

    asyncio.run(main())


def test_a_name_that_is_known_keeps_its_addresses_when_it_is_not_found_any_more(resolver):
    async def main():
        names = Names(resolver)
        assert await names.addresses("a") == ["192.0.2.1"]
        resolver.known["a"] = socket.gaierror("unknown")
        for _ in range(2):
            assert await names.addresses("a") == ["192.0.2.1"]

    asyncio.run(main())
    assert resolver.asked == ["a"] * 3


def test_a_new_address_is_taken_at_once_when_it_comes_in_time(resolver):
    async def main():
        names = Names(resolver)
        assert await names.addresses("a") == ["192.0.2.1"]
        resolver.known["a"] = ["192.0.2.2"]
        assert await names.addresses("a") == ["192.0.2.2"]

    asyncio.run(main())


def test_a_new_address_that_comes_late_serves_whoever_asks_next(resolver):
    late = threading.Event()

    def slow(name):
        if len(resolver.asked) == 1:
            late.wait(10)
            resolver.known["a"] = ["192.0.2.2"]
        return resolver(name)

    async def main():
        names = Names(slow, patience_s=0.01)
        assert await names.addresses("a") == ["192.0.2.1"]
        assert await names.addresses("a") == ["192.0.2.1"]
        late.set()
        async with asyncio.timeout(10):
            while await names.addresses("a") != ["192.0.2.2"]:
                pass  # it is on its way
        resolver.known.clear()
        assert await names.addresses("a") == ["192.0.2.2"]

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
    assert ended.wait(5)
    assert not resolver.ended.is_set()
