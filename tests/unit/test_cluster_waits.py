"""The wait graph: who waits for whom, and what is a deadlock."""

from __future__ import annotations

from uuid import UUID

from engine_pg.cluster.waits import Agent, Held, KeyMode, Party, Request, cycles, edges

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def by(member: UUID | None, command: int | None = None) -> Party:
    return Party(member, "a node", None if command is None else UUID(int=100 + command))


def x(id_: str) -> KeyMode:
    return KeyMode("vm", id_, "exclusive")


def s(id_: str) -> KeyMode:
    return KeyMode("vm", id_, "shared")


def held(key: KeyMode, party: Party, token: int = 7) -> Held:
    return Held(key, token, party)


def told(grants, requests) -> list[tuple[int | None, str, int | None]]:
    """Return each edge as (ticket of who waits, key, ticket or token of who is waited for)."""
    return [
        (
            edge.waiter.ticket,
            edge.key.id,
            edge.held.token if edge.held else edge.ahead and edge.ahead.ticket,
        )
        for edge in edges(grants, requests)
    ]


def rings(grants, requests) -> list[tuple[list[Agent], bool]]:
    return [(list(each.agents), each.certain) for each in cycles(edges(grants, requests))]


def command(number: int) -> Agent:
    return Agent("command", str(UUID(int=100 + number)))


def member(id_: UUID) -> Agent:
    return Agent("member", str(id_))


def test_a_request_waits_for_every_grant_in_its_way_and_for_no_other():
    grants = [held(s("1"), by(A), 10), held(s("1"), by(B), 11), held(x("2"), by(B), 12)]
    assert told(grants, [Request((x("1"),), by(C), 1)]) == [(1, "1", 10), (1, "1", 11)]
    assert told(grants, [Request((s("1"),), by(C), 1)]) == []
    assert told(grants, [Request((x("1"), x("2")), by(C), 1)])[-1] == (1, "2", 12)


def test_of_a_queue_the_nearest_are_waited_for_in_the_order_of_the_tickets():
    queue = [
        Request((x("1"),), by(A), 5),
        Request((s("1"),), by(B), 2),
        Request((s("1"),), by(C), 3),
        Request((x("1"),), by(C), 1),
    ]
    assert told([], queue) == [(2, "1", 1), (3, "1", 1), (5, "1", 3), (5, "1", 2)]


def test_a_request_without_a_ticket_stands_behind_all_tickets():
    queue = [Request((x("1"),), by(A)), Request((x("1"),), by(B), 9)]
    assert told([], queue) == [(None, "1", 9)]


def test_commands_that_wait_for_each_other_are_a_deadlock_in_the_order_of_waiting():
    grants = [held(x(str(n)), by(A, n)) for n in (1, 2, 3)]
    queue = [Request((x(str(n % 3 + 1)),), by(B, n), n) for n in (1, 2, 3)]
    [(ring, certain)] = rings(grants, queue)
    assert certain
    turn = ring.index(command(1))
    assert ring[turn:] + ring[:turn] == [command(1), command(2), command(3)]


def test_a_command_that_waits_for_what_it_holds_is_a_deadlock():
    found = rings([held(s("1"), by(A, 1))], [Request((x("1"),), by(A, 1), 1)])
    assert found == [([command(1)], True)]


def test_a_ring_through_a_bare_member_is_only_possible_and_comes_last():
    grants = [
        held(x("1"), by(A)),
        held(x("2"), by(B)),
        held(x("3"), by(C, 3)),
        held(x("4"), by(C, 4)),
    ]
    queue = [
        Request((x("2"),), by(A), 1),
        Request((x("1"),), by(B), 2),
        Request((x("4"),), by(C, 3), 3),
        Request((x("3"),), by(C, 4), 4),
    ]
    found = rings(grants, queue)
    assert [(set(ring), certain) for ring, certain in found] == [
        ({command(3), command(4)}, True),
        ({member(A), member(B)}, False),
    ]


def test_two_coroutines_of_one_member_are_no_ring():
    assert rings([held(x("1"), by(A))], [Request((x("1"),), by(A), 1)]) == []


def test_a_line_of_waiters_is_no_ring():
    grants = [held(x("1"), by(A, 1)), held(x("2"), by(B, 2))]
    assert rings(grants, [Request((x("1"), x("2")), by(C, n), n) for n in (3, 4, 5)]) == []


def test_a_ring_may_lead_through_the_queue():
    """The first waits for what the second holds, the second stands behind the first's ticket."""
    grants = [held(s("1"), by(A, 1)), held(x("2"), by(B, 2))]
    queue = [Request((x("1"), x("2")), by(C, 3), 1), Request((s("1"),), by(B, 2), 2)]
    assert [set(ring) for ring, _ in rings(grants, queue)] == [{command(2), command(3)}]


def test_whose_command_awaits_adoption_is_waited_for_by_command():
    [edge] = edges([held(x("1"), by(None, 1))], [Request((x("1"),), by(B), 1)])
    assert edge.target.agent == command(1)
    assert by(None).agent is None


def test_a_mesh_of_members_is_told_within_bounds():
    parties = [by(UUID(int=number)) for number in range(1, 41)]
    grants = [held(s("1"), party, token) for token, party in enumerate(parties)]
    queue = [Request((x("1"),), party, ticket) for ticket, party in enumerate(parties)]
    assert 0 < len(rings(grants, queue)) <= 20
