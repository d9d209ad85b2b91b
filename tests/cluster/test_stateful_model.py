"""The protocol's SQL against a model of it: after each statement, all rows and all answers.

Members are sessions of a real PostgreSQL, moved statement by statement: transactions stay open,
statements stop in their middle, backends are killed, the server crashes. What each is answered, all
tables and all advisory locks must be what the reference in `reference.py` says. It is made to catch
a fault in the SQL by itself: `scripts/mutants.py --of alembic --by cluster/test_stateful_model.py`.

Out of its reach: a standby (there is none), the bells rung by a commit, weights and offers, what
the clients do with the answers (tests/unit), and the in-process order of requests.
"""

from __future__ import annotations

import inspect
import os
import random
from typing import Any, ClassVar
from uuid import UUID

import pytest
from cluster.reference import Command, Led, Member, Reference, Rows
from cluster.seats import EMPTY, TRY, UNLOCK, Call, Seat, Server, error_of, key, until
from cluster.walks import SECONDS, walk
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from psycopg.types.json import Jsonb

from engine_pg.cluster.breaking import BREAK, CUT, FINISH
from engine_pg.cluster.fence import ENTER, leader_gate_of
from engine_pg.cluster.keys import Grant, LockKey, Mode, Reason, Wanted
from engine_pg.cluster.members import END, gate_of
from engine_pg.cluster.ops import Asking, Op, Part, Releasing
from engine_pg.cluster.orders import ASK, DRAIN, PIN

EXAMPLES = int(os.environ.get("ENGINE_TEST_STATEFUL_EXAMPLES", "16"))
NAMES = ["x", "y", "z"]
LEADERSHIPS = ["p", "q"]
NODES = ["node0", "node1", "node2"]
TTLS_S = (0.001, 3600.0, 3600.0)  # by the database's clock, on which nothing may depend
places = st.integers(0, 2)
picks = st.integers(0, 7)
names = st.sampled_from(LEADERSHIPS)
MODES = [mode.value for mode in Mode]
wishes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(MODES), min_size=1)
some = st.sets(picks, min_size=1)
requests = st.lists(
    st.tuples(wishes, st.booleans(), st.none() | picks), min_size=1, max_size=3
)  # what, whether it waits, for which command

# How often each happens in a walk of the dice: what others build on often, what is slow seldom.
WEIGHTS = {
    "ask": 24,
    "ask_again": 16,
    "release": 14,
    "release_and_ask": 8,
    "withdraw": 10,
    "commit": 8,
    "stop_before_the_tries": 2,
    "stop_before_the_unlock": 2,
    "go": 2,
    "be_granted_and_cut_while_another_tries": 2,
    "ask_while_another_unlocks": 3,
    "adopt": 3,
    "resume_while_another_tries": 2,
    "submit": 4,
    "claim": 6,
    "unclaim": 2,
    "finish": 1,
    "sweep": 1,
    "win": 3,
    "resign": 1,
    "win_while_a_write_of_the_leader_before_is_under_way": 1,
    "drain": 2,
    "pin": 1,
    "ask_to_resign": 1,
    "write": 7,
    "end_of_write": 4,
    "write_behind_a_snapshot": 0.5,
    "cut": 1,
    "resume": 3,
    "a_statement_thaws": 2,
    "end": 3,
    "join": 2,
    "end_who_resumes_at_this_instant": 0.7,
    "write_while_being_ended": 0.7,
    "crash": 0.3,
    "break_": 2,
    "make_who_is_broken_let_go": 2,
}
ASKED = {  # of a seat that must be able to
    *("ask", "ask_again", "release", "release_and_ask", "withdraw", "claim", "unclaim", "win"),
    *("stop_before_the_tries", "stop_before_the_unlock", "ask_while_another_unlocks"),
    *("be_granted_and_cut_while_another_tries", "end_who_resumes_at_this_instant"),
    *("adopt", "resume_while_another_tries"),
}
DRAWN = {
    "place": lambda dice: dice.randrange(3),
    "other": lambda dice: dice.randrange(3),
    "pick": lambda dice: dice.randrange(8),
    "chosen": lambda dice: {dice.randrange(8) for _ in range(dice.randint(1, 3))},
    "again": lambda dice: {dice.randrange(8) for _ in range(dice.randint(1, 2))},
    "fenced": lambda dice: {dice.randrange(8) for _ in range(dice.choice((0, 1, 1, 2)))},
    "wished": lambda dice: {
        name: dice.choice(MODES) for name in dice.sample(NAMES, dice.choice((1, 1, 1, 2, 3)))
    },
    "asked": lambda dice: [
        (DRAWN["wished"](dice), dice.random() < 0.4, dice.choice((None, None, 0, 1, 2)))
        for _ in range(dice.choice((1, 1, 1, 2, 3)))
    ],
    "name": lambda dice: dice.choice(LEADERSHIPS),
    "late": lambda dice: dice.choice((0, 0, 0, -1)),
    "forgets": lambda dice: dice.choice((0, 255, dice.randrange(256))),
    "skips": lambda dice: dice.randrange(2),
    "node": lambda dice: dice.choice((None, *NODES)),
    "how": lambda dice: dice.choice(ENDINGS),
    "what": lambda dice: dice.choice(THAWED),
}
ENDINGS = ["well", "well", "outdated", "by the ended"]
THAWED = ["renew", "release", "resume"]
CRASHES = 2
CROWD = 4  # of tickets: where nobody gets anything, little is seen

SUBMIT = """
insert into command (command_id, name, description, subject_kind, subject_id)
values (%s, 'test', 'a test', 'vm', gen_random_uuid())
"""
FINISHED = "update command set state = 'succeeded', ended_at = now() where command_id = %s"
NO_XID = "select pg_current_xact_id()"
FORGOTTEN = "select setval('fencing_token_seq', 1, false)"


class ModelMachine(RuleBasedStateMachine):
    server: Server
    carried: dict[str, Any]  # what a database remembers from one example to the next

    @initialize(seed=st.integers(0, 1 << 16), length=st.integers(100, 250))
    def begin(self, seed, length) -> None:
        self.server.run(EMPTY)
        self.model = Reference(**self.carried)
        self.ids = iter(range(1, 1 << 30))
        self.ended: list[tuple[UUID, int]] = []
        self.attempts: list[tuple[UUID, int]] = []
        self.written: list[int] = []
        self.crashes = 0
        self.holder = self.server.connect()
        self.seats = [Seat(self.server, self.model, node) for node in NODES]
        for place in range(3):
            self.join(place)
        for name in LEADERSHIPS:
            self.server.run("insert into leader (name) values (%s)", name)
            self.rows.leaders[name] = Led()
        self.much(seed, length)

    @rule(seed=st.integers(0, 1 << 16), length=st.integers(1, 60))
    def much(self, seed, length):
        """Many steps, as the dice say: those more often on which others build."""
        dice = random.Random(seed)
        for _ in range(length):
            [name] = dice.choices(list(WEIGHTS), WEIGHTS.values())
            step = getattr(self, name)
            drawn = {
                each: DRAWN.get(each, lambda dice: dice.random() < 0.5)(dice)
                for each in inspect.signature(step).parameters
            }
            ready = [place for place, seat in enumerate(self.seats) if self.ready(seat)]
            if name in ASKED and drawn["place"] not in ready:
                if ready and dice.random() < 0.7:
                    drawn["place"] = dice.choice(ready)
                else:
                    step = self.recover
                    drawn = {"place": drawn["place"], "forgets": DRAWN["forgets"](dice)}
            note(f"  {step.__name__}({', '.join(f'{k}={what}' for k, what in drawn.items())})")
            step(**drawn)
            self.the_database_holds_what_the_model_says()

    @rule(place=places, forgets=st.integers(0, 255))
    def recover(self, place, forgets):
        """Let a seat be asked again: whatever it waits for, or lacks."""
        seat = self.seats[place]
        if seat.open:
            self.committed(seat)
        elif seat.call:
            self.go()
        elif not self.rows.members[seat.member_id].live:
            self.join(place)
        elif not seat.alive:
            self.resume(place, forgets, 0)

    # Batches

    @rule(place=places, asked=requests, opened=st.booleans(), observe=st.booleans())
    def ask(self, place, asked, opened, observe):
        asking = [self.asking(*each) for each in asked]
        self.batch(place, self.separated(asking), opened=opened, observe=observe)

    @rule(place=places, chosen=some, opened=st.booleans())
    def ask_again(self, place, chosen, opened):
        self.batch(place, self.separated(self.waiting(place, chosen)), opened=opened)

    @rule(place=places, chosen=some, opened=st.booleans(), sync=st.booleans())
    def release(self, place, chosen, opened, sync):
        self.batch(place, self.releasing(place, chosen), opened=opened, sync=sync)

    @rule(place=places, chosen=some, again=some, asked=requests)
    def release_and_ask(self, place, chosen, again, asked):
        asking = [*self.waiting(place, again), *(self.asking(*each) for each in asked)]
        self.batch(place, [*self.releasing(place, chosen), *self.separated(asking)])

    @rule(place=places, pick=picks, opened=st.booleans())
    def withdraw(self, place, pick, opened):
        for each in self.waiting(place, {pick}):
            ops = [self.op("withdraw", ticket=each.ticket), self.heads(each.wanted)]
            self.batch(place, ops, opened=opened, sync=True)

    @rule(place=places)
    def commit(self, place):
        if self.seats[place].open:
            self.committed(self.seats[place])

    def committed(self, seat: Seat) -> None:
        seat.connection.commit()
        assert seat.open is not None
        self.rows.take(*seat.open)
        seat.open = None

    @rule(place=places, asked=requests)
    def stop_before_the_tries(self, place, asked):
        asking = [self.asking(*each) for each in asked]
        self.stopped(place, self.separated(asking), TRY)

    @rule(place=places, chosen=some)
    def stop_before_the_unlock(self, place, chosen):
        self.stopped(place, self.releasing(place, chosen), UNLOCK)

    def stopped(self, place: int, parts: list[Part], where: int) -> None:
        seat = self.seats[place]
        if not self.ready(seat) or not parts or any(each.call for each in self.seats):
            return
        if where == TRY and not any(each.tries for each in parts):
            return
        released = [g for part in parts if isinstance(part, Releasing) for g in part.grants]
        if released and not any(self.rows.grants[grant.token].held for grant in released):
            return
        self.holder.execute("select pg_advisory_lock(%s, %s)", [where, seat.pid])
        seat.call = Call(lambda: seat.ask(parts, session=seat.session, sync=True, observe=False))
        self.stop = (where, seat.pid, parts)
        until(lambda: self.server.waits(seat.connection), "a statement does not stop")

    @rule()
    def go(self):
        """Let the stopped statement go on: it does everything now, but for its first look."""
        for seat in self.seats:
            if seat.call is not None:
                where, pid, parts = self.stop
                self.holder.execute("select pg_advisory_unlock(%s, %s)", [where, pid])
                call, seat.call = seat.call, None
                reply = call.result()
                assert call.error is None, call.error
                self.carried_out(self.rows, seat, parts, reply, sync=True, observe=False)

    @rule(place=places, other=places, pick=picks, shared=st.booleans())
    def be_granted_and_cut_while_another_tries(self, place, other, pick, shared):
        """What was granted after the try's snapshot stands, though its advisory lock is free."""
        rows = self.rows
        free = [
            name
            for name in NAMES
            if not rows.granted(Wanted(key(name))) and not rows.awaited(Wanted(key(name)), None)
        ]
        if place == other or not free or not self.ready(self.seats[other]):
            return
        name = free[pick % len(free)]
        wished = {name: "shared" if shared else "exclusive"}
        self.stopped(place, [self.asking(wished, True, None)], TRY)
        if self.seats[place].call is not None:
            self.ask(other, [({name: "exclusive"}, False, None)], opened=False, observe=False)
            self.cut(other)
            self.go()

    @rule(place=places, other=places, chosen=some)
    def ask_while_another_unlocks(self, place, other, chosen):
        parts = self.releasing(place, chosen)
        if place != other and parts:
            self.stopped(place, parts, UNLOCK)
            if self.seats[place].call is not None:
                wished = {grant.key.id: "exclusive" for grant in parts[0].grants}
                self.ask(other, [(wished, True, None)], opened=False, observe=False)
                self.go()

    def batch(self, place, parts, *, opened=False, sync=False, observe=False) -> None:
        seat = self.seats[place]
        if not self.ready(seat) or not parts:
            return
        sync = sync or any(part.sync for part in parts)
        before, after = self.rows.copy(), self.rows.copy()
        if opened:
            seat.connection.execute("begin")
        reply = seat.ask(parts, session=seat.session, sync=sync, observe=observe)
        seat.open = (before, after)
        self.carried_out(after, seat, parts, reply, sync=sync, observe=observe)
        if not opened:
            self.committed(seat)

    def carried_out(self, rows: Rows, seat: Seat, parts, reply, *, sync, observe) -> None:
        me, model = seat.member_id, self.model
        ring: set[UUID] = set()
        if sync:
            rows.change(rows.members, [me], renewal=rows.members[me].renewal + 1)
        released = [
            (g.token, g.key) for part in parts if isinstance(part, Releasing) for g in part.grants
        ]
        if released:
            ring = model.release(rows, seat.pid, me, released)
            ring = ring if sync else ring & {me}  # the others are rung by the commit
        asking = [part for part in parts if isinstance(part, Asking)]
        if asking:
            ring |= model.acquire(rows, seat.pid, me, asking, reply["acquired"])
        ops = [part.body for part in parts if isinstance(part, Op)]
        for body, result in zip(ops, reply["results"], strict=True):
            ring |= self.operated(rows, seat, body, result)
        if sync and observe:
            model.follow(rows, seat.pid, me)
        assert set(reply["ring"]) == {str(member) for member in ring}, "others are to be rung"
        if observe:
            self.observed(rows, reply["view"])
        seat.tokens |= {token: rows.grants[token].key for token in rows.mine(me)}

    def operated(self, rows: Rows, seat: Seat, body, result) -> set[UUID]:
        me, model = seat.member_id, self.model
        match body["op"]:
            case "heads":
                return rows.heads(key(each["id"]) for each in body["keys"])
            case "withdraw":
                model.withdraw(rows, me, body["ticket"], result)
            case "claim":
                command = UUID(body["command_id"])
                model.claim(rows, seat.pid, me, command, result)
                if result["ok"]:
                    self.attempts.append((command, rows.commands[command].attempt))
            case "unclaim":
                return model.unclaim(rows, seat.pid, me, UUID(body["command_id"]))
            case "win":
                won = model.win(rows, me, body["name"], body["term"])
                assert result == won, f"{result}, not {won}"
                seat.terms += [(body["name"], won["term"])] if won["ok"] else []
            case "resign":
                assert result == model.resign(rows, me, body["name"], body["term"])
        return set()

    def observed(self, rows: Rows, view) -> None:
        live = {str(member): row for member, row in rows.members.items() if row.live}
        assert view["counters"] == {member: row.renewal for member, row in live.items()}
        assert {each["member_id"]: each["draining"] for each in view["members"]} == {
            member: row.draining for member, row in live.items()
        }
        led = {each["name"]: (each["member_id"], each["term"]) for each in view["leaders"]}
        assert led == {
            name: (row.member and str(row.member), row.term) for name, row in rows.leaders.items()
        }

    # Commands and leaders

    @rule(place=places, other=places, pick=picks, wished=wishes, dies=st.booleans())
    def adopt(self, place, other, pick, wished, dies):
        """A command changes hands, and its keys are never free in between."""
        self.submit()
        self.claim(place, pick)
        self.ask(place, [(wished, False, pick)], opened=False, observe=False)
        if dies:
            self.end(place, other, "well")
            self.join(place)
        else:
            self.unclaim(place, pick)
        self.ask(other, [(wished, False, None)], opened=False, observe=False)
        self.claim(other, pick)

    @rule(place=places, other=places, pick=picks, shared=st.booleans())
    def resume_while_another_tries(self, place, other, pick, shared):
        """Who tries has the advisory lock for a moment: the grant is resumed, it follows later."""
        seat, tries = self.seats[place], self.seats[other]
        mine = sorted(self.rows.mine(seat.member_id))
        if place == other or not mine or not self.ready(seat) or not self.ready(tries):
            return
        row = self.rows.grants[mine[pick % len(mine)]]
        mode = Mode.SHARED if shared and row.mode is Mode.EXCLUSIVE else Mode.EXCLUSIVE
        probe = Wanted(row.key, mode)
        self.cut(place)
        if not self.model.try_(tries.pid, probe):
            return
        self.model.unlock(tries.pid, probe.key, mode)
        self.stopped(other, [self.asking({row.key.id: mode}, False, None)], UNLOCK)
        if tries.call is not None:
            self.model.try_(tries.pid, probe)
            self.resume(place, 0, 0)
            self.the_database_holds_what_the_model_says()
            self.model.unlock(tries.pid, probe.key, mode)
            self.go()
            self.batch(place, [self.heads([probe])], sync=True, observe=True)

    @rule()
    def submit(self):
        if len(self.rows.commands) < 4:
            command = UUID(int=next(self.ids))
            self.server.run(SUBMIT, command)
            self.rows.commands[command] = Command()

    @rule(place=places, pick=picks)
    def claim(self, place, pick):
        self.batch(place, [self.op("claim", command_id=str(self.command(pick)))])

    @rule(place=places, pick=picks)
    def unclaim(self, place, pick):
        self.batch(place, [self.op("unclaim", command_id=str(self.command(pick)))])

    @rule(pick=picks)
    def finish(self, pick):
        command = self.command(pick)
        if command in self.rows.commands and not self.rows.commands[command].over:
            self.server.run(FINISHED, command)
            self.rows.change(self.rows.commands, [command], state="succeeded")

    @rule()
    def sweep(self):
        assert self.server.run("select lock_grants_sweep()") == [(self.model.sweep(),)]

    @rule(place=places, name=names, late=st.integers(-1, 0))
    def win(self, place, name, late):
        term = self.rows.leaders[name].term + late
        body = self.op("win", name=name, term=term, gate=leader_gate_of(name))
        self.batch(place, [body], sync=True)

    @rule(place=places, name=names, late=st.integers(-1, 0))
    def resign(self, place, name, late):
        term = self.rows.leaders[name].term + late
        self.batch(place, [self.op("resign", name=name, term=term)])

    @rule(place=places, other=places, name=names)
    def win_while_a_write_of_the_leader_before_is_under_way(self, place, other, name):
        self.resign(place, name, 0)
        self.win(place, name, 0)
        self.write(place, set(), leads=True, runs=False, hold=True)
        self.resign(place, name, 0)
        self.win(other, name, 0)

    @rule(place=places, on=st.booleans())
    def drain(self, place, on):
        if not self.seats[place].busy:
            found = self.server.run(
                DRAIN.replace("%(node)s", "%s").replace("%(on)s", "%s"), NODES[place], on
            )
            assert found == [(self.model.drain(NODES[place], on=on),)]

    @rule(name=names, node=st.sampled_from([None, *NODES]))
    def pin(self, name, node):
        self.server.admin.execute(PIN, {"name": name, "node": node})
        led = self.rows.leaders[name]
        avoid = led.avoid if node is None else None
        self.rows.change(self.rows.leaders, [name], pinned=node, avoid=avoid)

    @rule(name=names)
    def ask_to_resign(self, name):
        asked = self.server.admin.execute(ASK, {"name": name}).fetchone()
        led = self.rows.leaders[name]
        assert asked == (led.member,)
        if led.member is not None:
            self.rows.change(self.rows.leaders, [name], avoid=led.member)

    # Fenced writes

    @rule(
        place=places,
        fenced=st.sets(picks, max_size=2),
        leads=st.booleans(),
        runs=st.booleans(),
        hold=st.booleans(),
    )
    def write(self, place, fenced, leads, runs, hold):
        """Write under what the member has, or had."""
        seat = self.seats[place]
        if seat.number:
            return
        known = self.fenceable(seat)
        grants = [known[each % len(known)] for each in sorted(fenced)] if known else []
        first = min(fenced, default=0)
        leadership = seat.terms[-1 - first % len(seat.terms)] if leads and seat.terms else None
        attempts = self.attempts if runs else []
        attempt = attempts[-1 - first % len(attempts)] if attempts else None
        expected = self.model.fenced(seat.member_id, [t for t, _ in grants], leadership, attempt)
        work = seat.work = seat.work or self.server.connect()
        work.execute("begin")
        params = fence(seat.member_id, grants, leadership, attempt)
        assert error_of(lambda: work.execute(ENTER, params)) == expected
        if expected is not None:
            work.rollback()
            return
        seat.number = next(self.ids)
        work.execute("insert into witness values (%s)", [seat.number])
        self.model.fences[seat.member_id] = leadership and leadership[0]
        if not hold:
            self.end_of_write(place)

    def fenceable(self, seat: Seat) -> list[tuple[int, LockKey]]:
        """Return grants, those first that are in doubt: broken, or had again under a new token."""
        rows = self.rows
        mine = {token: rows.grants[token] for token in rows.mine(seat.member_id)}
        held = {row.key for row in mine.values()}
        doubt = {token: row.key for token, row in mine.items() if row.broken_by}
        doubt |= {t: name for t, name in seat.tokens.items() if t not in mine and name in held}
        sure = {token: row.key for token, row in mine.items()}
        return [*list(doubt.items())[-3:], *(sure | seat.tokens).items()][:8]

    @rule(place=places)
    def end_of_write(self, place):
        seat = self.seats[place]
        if seat.number:
            seat.work.commit()
            self.written.append(seat.number)
            self.model.fences.pop(seat.member_id, None)
            seat.number = 0

    def over(self, seat: Seat) -> None:
        """Its work connection is dead, or to be closed."""
        self.model.fences.pop(seat.member_id, None)
        seat.number = 0
        if seat.work is not None:
            seat.work.close()
            seat.work = None

    @rule(place=places, late=st.booleans())
    def write_behind_a_snapshot(self, place, late):
        work = self.holder
        work.execute("begin" if late else "begin isolation level repeatable read")
        if late:
            work.execute(NO_XID)
        params = fence(self.seats[place].member_id, [], None, None)
        error = error_of(lambda: work.execute(ENTER, params))
        work.rollback()
        assert error == "EP006"

    # Members

    @rule(place=places)
    def cut(self, place):
        seat = self.seats[place]
        if seat.alive:
            self.server.cut(seat.pid)
            self.died(seat)

    def died(self, seat: Seat) -> None:
        if seat.call is not None:
            where, pid, _ = self.stop
            self.holder.execute("select pg_advisory_unlock(%s, %s)", [where, pid])
        seat.died()

    @rule(place=places, forgets=st.integers(0, 255), skips=st.integers(0, 1))
    def resume(self, place, forgets, skips):
        seat = self.seats[place]
        if not self.rows.members[seat.member_id].live:
            return
        if seat.busy:
            self.cut(place)
        number, lists = seat.session + 1 + skips, self.lists(seat, forgets)
        predecessor, old = seat.pid, seat.connection
        seat.connect()
        reply = seat.resume(number, lists)
        self.resumed(seat, number, (predecessor, seat.pid), lists, reply)
        old.close()

    def resumed(self, seat: Seat, number: int, pids, lists, reply) -> None:
        self.model.resume(seat.member_id, number, pids, lists)
        seat.session = number
        told = {(each["token"], each["broken_by"]) for each in reply["grants"]}
        mine = self.rows.mine(seat.member_id)
        assert told == {(t, self.rows.grants[t].broken_by) for t in mine}
        assert reply["epoch_id"] == self.model.epoch
        self.server.gone(pids[0])

    def lists(self, seat: Seat, forgets: int) -> dict[str, Any]:
        """Return what a member knows that it has: not all, when answers and releases were lost."""
        me, rows = seat.member_id, self.rows

        def known(found):
            return [each for n, each in enumerate(found) if not forgets >> n & 1]

        tokens = known(rows.mine(me))
        led = [(n, row.term) for n, row in rows.leaders.items() if row.member == me]
        return {
            "held": [Grant(rows.grants[t].key, rows.grants[t].mode, t).record for t in tokens],
            "tickets": known([t for t, row in rows.tickets.items() if row.member == me]),
            "commands": known([c for c, row in rows.commands.items() if row.member == me]),
            "leaderships": [{"name": name, "term": term} for name, term in known(led)],
        }

    @rule(place=places, what=st.sampled_from(THAWED), gone=st.booleans())
    def a_statement_thaws(self, place, what, gone):
        """What an old session, or an ended member, has sent, arrives now."""
        seat = self.seats[place]
        thawed = Seat(self.server, Reference(), "thawed")
        thawed.member_id = seat.member_id
        number = seat.session
        if gone and self.ended:
            thawed.member_id, number = self.ended[place % len(self.ended)]
        elif seat.busy:
            return
        elif what != "resume":
            number -= 1
        thawed.connect()
        expected = self.model.refusal(thawed.member_id, number)
        keys = [(token, self.rows.grants[token].key) for token in self.rows.mine(seat.member_id)]
        grants = [Grant(name, Mode.SHARED, token) for token, name in keys]
        match what:
            case "renew":
                got = error_of(lambda: thawed.ask([], session=number, sync=True, observe=True))
            case "release":
                parts = [Releasing(grants)]
                got = error_of(lambda: thawed.ask(parts, session=number, sync=False, observe=False))
            case _:
                lists = self.lists(seat, 255)
                got = error_of(lambda: thawed.resume(number, lists))
                expected = expected or "EP003"
        thawed.close()
        self.server.gone(thawed.pid)
        assert got == expected, f"{got}, not {expected}"

    @rule(place=places, other=places, how=st.sampled_from(ENDINGS))
    def end(self, place, other, how):
        seat, by = self.seats[place], self.seats[other].member_id
        if how == "by the ended":
            by = self.ended[-1][0] if self.ended else UUID(int=0)
        elif other != place and self.seats[other].busy:
            return
        renewal = self.rows.members[seat.member_id].renewal - (how == "outdated")
        fenced = seat.member_id in self.model.fences
        answer: list[Any] = []
        params = ending(seat.member_id, renewal, by)
        error = error_of(lambda: answer.extend(self.server.admin.execute(END, params).fetchone()))
        expected = self.model.end(seat.member_id, seat.pid, renewal, by)
        assert (error or answer[0]) == expected, f"{error} {answer}, not {expected}"
        self.cut_off(seat, fenced=fenced)
        if expected is True:
            self.ended.append((seat.member_id, seat.session))

    def cut_off(self, seat: Seat, *, fenced: bool) -> None:
        """See that what the model says is dead, is dead; its connections are of no use."""
        if not seat.alive:
            self.server.gone(seat.pid)
            self.died(seat)
        if fenced and seat.member_id not in self.model.fences:
            self.server.gone(seat.work.info.backend_pid)
            self.over(seat)

    @rule(place=places)
    def join(self, place):
        seat = self.seats[place]
        if hasattr(seat, "member_id"):
            if self.rows.members[seat.member_id].live:
                return
            if seat.number:
                self.over(seat)
        seat.terms.clear()
        seat.tokens.clear()
        member = UUID(int=next(self.ids))
        seat.joins(member, TTLS_S[place])
        self.rows.members[member] = Member(seat.node, self.model.begun())

    @rule(place=places, other=places, forgets=st.integers(0, 255))
    def end_who_resumes_at_this_instant(self, place, other, forgets):
        seat = self.seats[place]
        if place == other or self.seats[other].busy or not self.ready(seat):
            return
        fenced = seat.member_id in self.model.fences
        number, lists = seat.session + 1, self.lists(seat, forgets)
        renewal = self.rows.members[seat.member_id].renewal
        predecessor = seat.pid
        seat.connection.close()
        self.server.gone(predecessor)
        seat.connect()
        seat.connection.execute("begin")
        reply = seat.resume(number, lists)
        params = ending(seat.member_id, renewal, self.seats[other].member_id)
        call = Call(lambda: self.holder.execute(END, params).fetchone()[0])
        until(lambda: call.done or self.server.waits(self.holder), "an ending does not wait")
        seat.connection.commit()
        ended = call.result()
        assert not ended, "it was ended, though it had renewed"
        assert call.error in (None, "55P03"), call.error
        self.model.fences.pop(seat.member_id, None)
        self.resumed(seat, number, (predecessor, seat.pid), lists, reply)
        self.cut_off(seat, fenced=fenced)

    @rule(place=places, other=places)
    def write_while_being_ended(self, place, other):
        """The fence waits for the ending's gate, and looks after it."""
        seat, by = self.seats[place], self.seats[other]
        members = self.rows.members
        if by.busy or not (members[seat.member_id].live and members[by.member_id].live):
            return
        fenced = seat.member_id in self.model.fences
        renewal = self.rows.members[seat.member_id].renewal
        with self.server.connect() as ender, self.server.connect() as work:
            ender.execute("begin")
            ender.execute(END, ending(seat.member_id, renewal, by.member_id))
            work.execute("begin")
            params = fence(seat.member_id, [], None, None)
            call = Call(lambda: work.execute(ENTER, params))
            until(lambda: call.done or self.server.waits(work), "a fence does not wait")
            ender.commit()
            call.result()
            assert call.error in ("EP002",), f"{call.error}: it was let through"
        assert self.model.end(seat.member_id, seat.pid, renewal, by.member_id) is True
        self.cut_off(seat, fenced=fenced)
        self.ended.append((seat.member_id, seat.session))

    @rule()
    def crash(self):
        """Kill a backend: the server starts anew. The sequence has lost what was not flushed."""
        if self.crashes == CRASHES:
            return
        self.crashes += 1
        self.server.crash()
        self.server.run(FORGOTTEN)
        self.holder.close()
        self.holder = self.server.connect()
        self.model.crashed = True
        self.model.advisory.clear()
        for seat in self.seats:
            seat.call = None
            seat.died()
            self.over(seat)

    # Breaking

    @rule(pick=picks)
    def break_(self, pick):
        if not self.rows.grants:
            return
        token = sorted(self.rows.grants)[pick % len(self.rows.grants)]
        row = self.rows.grants[token]
        seat = self.seat_of(row.member)
        if seat is not None and seat.busy:
            return
        fenced = row.member in self.model.fences
        why = {"by": "somebody", "reason": "a test"}
        [broken] = self.server.admin.execute(BREAK, breaking(row, token) | why).fetchone()
        assert broken == self.model.break_(token, "somebody")
        if seat is not None:
            self.cut_off(seat, fenced=fenced)

    @rule(pick=picks, forced=st.booleans())
    def make_who_is_broken_let_go(self, pick, forced):
        if not self.broken():
            return
        token = self.broken()[pick % len(self.broken())]
        row = self.rows.grants[token]
        seat = self.seat_of(row.member)
        if seat is None or seat.busy:
            return
        fenced = row.member in self.model.fences
        self.model.advisory.pop(seat.pid, None)
        if not forced:
            self.server.admin.execute(CUT, {"member": row.member})
        else:
            finished = self.server.admin.execute(FINISH, breaking(row, token)).fetchone()
            assert finished == (True,)
            self.model.fences.pop(row.member, None)
            del self.rows.grants[token]
        self.cut_off(seat, fenced=fenced)

    # What must hold

    @invariant()
    def the_database_holds_what_the_model_says(self):
        if not hasattr(self, "seats"):
            return
        rows, advisory, written = self.server.look()
        for name, table in vars(self.rows).items():
            found = getattr(rows, name)
            wrong = {key for key in {*found, *table} if found.get(key) != table.get(key)}
            assert not wrong, f"{name}: " + "; ".join(
                f"{found.get(key)}, not {table.get(key)}" for key in wrong
            )
        known = {(pid, *lock) for pid, held in self.model.advisory.items() for lock in +held}
        assert advisory == known, (
            f"advisory locks: {advisory ^ known}"
        )  # their counts are not shown
        assert written == sorted(self.written), "fenced writes"

    def teardown(self) -> None:
        if hasattr(self, "seats"):
            self.holder.close()
            for seat in self.seats:
                seat.close()
            self.server.alone()
            model = self.model
            for name in ("epoch", "crashed", "drawn", "numbered"):
                self.carried[name] = getattr(model, name)

    # Words

    @property
    def rows(self) -> Rows:
        return self.model.rows

    def ready(self, seat: Seat) -> bool:
        return seat.alive and not seat.busy

    def command(self, pick: int) -> UUID:
        commands = sorted(self.rows.commands) or [UUID(int=0)]
        return commands[pick % len(commands)]

    def asking(self, wishes: dict[str, str], waits: bool, pick: int | None) -> Asking:
        wanted = tuple(Wanted(key(name), Mode(wishes[name])) for name in sorted(wishes))
        command = None if pick is None or not self.rows.commands else self.command(pick)
        entry = Asking(wanted, Reason(command_id=command))
        entry.tries, entry.waits = True, waits and len(self.rows.tickets) < CROWD
        return entry

    def waiting(self, place: int, chosen: set[int]) -> list[Asking]:
        me = self.seats[place].member_id
        mine = [(ticket, row) for ticket, row in self.rows.tickets.items() if row.member == me]
        found = []
        for n in sorted({pick % len(mine) for pick in chosen} if mine else ()):
            ticket, row = mine[n]
            entry = Asking(row.wanted, Reason(), ticket=ticket)
            entry.tries = entry.waits = True
            found.append(entry)
        return found

    def separated(self, asking: list[Asking]) -> list[Part]:
        """As a process does: of those that exclude each other, one alone is tried in a batch."""
        tried: list[Wanted] = []
        for each in asking:
            each.tries = not any(
                w.key == o.key and w.conflicts(o) for w in each.wanted for o in tried
            )
            tried += each.wanted if each.tries else ()
        return [*asking]

    def releasing(self, place: int, chosen: set[int]) -> list[Part]:
        mine = self.rows.mine(self.seats[place].member_id)
        tokens = sorted({mine[pick % len(mine)] for pick in chosen} if mine else ())
        rows = [(token, self.rows.grants[token]) for token in tokens]
        grants = [Grant(row.key, row.mode, token) for token, row in rows]
        return [Releasing(grants)] if grants else []

    def op(self, op: str, **body: Any) -> Op:
        return Op({"op": op, **body}, lambda _: None, lambda _: None, sync=False)

    def heads(self, wanted) -> Op:
        keys = [{"kind": each.key.kind, "id": each.key.id} for each in wanted]
        return self.op("heads", keys=keys)

    def seat_of(self, member: UUID | None) -> Seat | None:
        return next((seat for seat in self.seats if seat.member_id == member), None)

    def broken(self) -> list[int]:
        rows = self.rows.grants
        return sorted(t for t, row in rows.items() if row.broken_by and row.member)


def fence(member: UUID, grants: list[tuple[int, LockKey]], leadership, attempt) -> dict[str, Any]:
    name, term = leadership or (None, None)
    command, number = attempt or (None, None)
    return {
        "member": member,
        "gate": gate_of(member),
        "grants": Jsonb([Grant(name, Mode.SHARED, token).record for token, name in grants]),
        "leader": name,
        "term": term,
        "leader_gate": None if name is None else leader_gate_of(name),
        "command": command,
        "attempt": number,
    }


def ending(member: UUID, renewal: int, by: UUID) -> dict[str, Any]:
    how = {"gate": gate_of(member), "renewal": renewal, "by": by, "reason": "a test"}
    return {"member": member, **how}


def breaking(row, token: int) -> dict[str, Any]:
    gate = None if row.member is None else gate_of(row.member)
    return {
        "kind": row.key.kind,
        "id": row.key.id,
        "token": token,
        "member": row.member,
        "gate": gate,
    }


@pytest.mark.timeout(max(180, SECONDS + 120))
def test_the_database_does_what_the_model_says_whatever_befalls_it(postgres, fresh_database_url):
    class Machine(ModelMachine):
        server = Server(fresh_database_url, NAMES)
        carried: ClassVar[dict[str, Any]] = {}

    if postgres.embedded is None:
        Machine.crash = None  # not ours to kill
    try:
        walk(Machine, examples=EXAMPLES, steps=6)
    finally:
        Machine.server.admin.close()
