"""The simulated host as a process, spoken to in raw bytes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from uuid import uuid4

import pytest

from engine_pg.cli import main
from engine_pg.demo.state import free_ports

COMMAND = [sys.executable, "-c", "from engine_pg.cli.host_sim import app; app()"]  # starts faster
BRIEF = ["--launch-delay", "0.02", "--boot-delay", "0.03", "--shutdown-delay", "0.03"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, without a process of its own."""
    command = ["engine-pg", "host-sim", *arguments]
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as exited:
            main.run()
    status = exited.value.code or 0
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


class Simulator:
    """A running process; `start` keeps the journal, and the ports from `base_port` on if given."""

    def __init__(self, folder: Path, *options: str, base_port: int = 0) -> None:
        self.journal = folder / "journal.jsonl"
        self.ready = folder / "ready.json"
        self.options = [*BRIEF, *options]
        self.base_port = base_port
        self.wires: list[Wire] = []
        self.start()

    def start(self) -> None:
        self.ready.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                *COMMAND, *self.options,
                "--journal", self.journal, "--ready-file", self.ready,
                "--base-port", str(self.base_port),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: self.ready.exists() or self.process.poll() is not None)
        self.description = json.loads(self.ready.read_text())

    def port(self, host: int = 1) -> int:
        return self.description["hosts"][host - 1]["port"]

    def wire(self, host: int = 1, **options) -> Wire:
        self.wires.append(Wire(self.port(host), **options))
        return self.wires[-1]

    def control(self, **request) -> dict:
        address = ("127.0.0.1", self.description["control"])
        with socket.create_connection(address, 5) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def end(self, signal_number: int = signal.SIGKILL) -> int:
        self.process.send_signal(signal_number)
        for wire in self.wires:
            wire.socket.close()
        self.wires.clear()
        return self.process.wait(10)

    def verify(self) -> dict:
        """Judge the journal; a clean one says so by its exit status."""
        judged = run("verify", str(self.journal), "--json")
        verdict = json.loads(judged.stdout)
        assert judged.returncode == bool(verdict["violations"]), judged.stderr
        return verdict

    def records(self, kind: str) -> list[dict]:
        lines = self.journal.read_text().splitlines()
        return [record for line in lines if (record := json.loads(line))["kind"] == kind]


def until(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
    return result


class Wire:
    """A client of a few lines that knows the bytes alone."""

    def __init__(self, port: int, *, connect: bool = True, beat: str = "0,0") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.buffer = b""
        self.held: bytes | None = None
        self.queue = f"replies.{uuid4()}"
        if connect:
            self.frame("CONNECT", {"accept-version": "1.2", "host": "x", "heart-beat": beat})
            command, self.connected, _ = self.next()
            assert command == "CONNECTED"
            self.subscribe(self.queue)

    def raw(self, data: bytes) -> None:
        if self.held is None:
            self.socket.sendall(data)
        else:
            self.held += data

    @contextmanager
    def together(self):
        """Send all that is sent meanwhile in one piece."""
        self.held = b""
        yield
        data, self.held = self.held, None
        self.raw(data)

    def frame(self, command: str, headers: dict, body: bytes = b"") -> None:
        head = "".join(f"{name}:{value}\n" for name, value in headers.items())
        self.raw(f"{command}\n{head}\n".encode() + body + b"\0")

    def subscribe(self, destination: str) -> None:
        self.frame("SUBSCRIBE", {"id": str(uuid4()), "destination": destination, "ack": "auto"})

    def next(self, seconds: float = 5.0) -> tuple[str, dict, bytes]:
        self.socket.settimeout(seconds)
        while True:
            self.buffer = self.buffer.lstrip(b"\n")
            head, found, rest = self.buffer.partition(b"\n\n")
            if found:
                command, *lines = head.decode().split("\n")
                headers = dict(line.split(":", 1) for line in lines)
                length = int(headers.get("content-length", 0))
                if len(rest) > length:
                    assert rest[length] == 0
                    self.buffer = rest[length + 1 :]
                    return command, headers, rest[:length]
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data

    def send(self, method: str, params=None, *, request_id=None, **headers) -> str:
        request_id = request_id or str(uuid4())
        request = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": request_id}
        self.send_body(json.dumps(request).encode(), **headers)
        return request_id

    def send_body(self, body: bytes, **headers) -> None:
        headers = {
            "destination": "jms.topic.vdsm_requests",
            "reply-to": self.queue,
            "content-length": len(body),
        } | headers
        self.frame("SEND", {k: v for k, v in headers.items() if v is not None}, body)

    def message(self, seconds: float = 5.0) -> dict:
        command, _, body = self.next(seconds)
        assert command == "MESSAGE", (command, body)
        return json.loads(body)

    def call(self, method: str, params=None, **headers) -> dict:
        request_id = self.send(method, params, **headers)
        while (reply := self.message()).get("id") != request_id:
            pass
        return reply

    def result(self, method: str, params=None, **headers):
        reply = self.call(method, params, **headers)
        assert "result" in reply, reply
        return reply["result"]

    def closed(self) -> bool:
        try:
            while True:
                self.next(5)
        except (EOFError, ConnectionError):
            return True
        except TimeoutError:
            return False


def domain(vm_id: str) -> str:
    return f"<domain><name>vm</name><uuid>{vm_id}</uuid><memory>1024</memory></domain>"


def fence(vm_id: str, token: int = 1, mode: str = "exclusive") -> list[dict]:
    return [{"key": f"vm/{vm_id}", "mode": mode, "token": token}]


def creation(vm_id: str, token: int = 1) -> dict:
    params = {"vmId": vm_id, "xml": domain(vm_id)}
    return {"vmID": vm_id, "vmParams": params, "engineFence": fence(vm_id, token)}


def on(vm_id: str, token: int = 1, **more) -> dict:
    return {"vmID": vm_id, "engineFence": fence(vm_id, token), **more}


def state(wire: Wire, vm_id: str) -> str | None:
    listed = {vm["vmId"]: vm["status"] for vm in wire.result("Host.getVMList")}
    return listed.get(vm_id)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    simulator = Simulator(tmp_path_factory.mktemp("shared"), "--hosts", "3")
    yield simulator
    verdict = simulator.verify()
    assert simulator.end(signal.SIGTERM) == 0
    assert verdict["violations"] == []


@pytest.fixture
def simulator(tmp_path):
    simulator = Simulator(tmp_path, "--hosts", "2", base_port=free_ports(2))
    yield simulator
    simulator.end()


def test_a_vm_lives_from_creation_to_tombstone(shared):
    wire, vm_id = shared.wire(), str(uuid4())
    wire.subscribe("jms.queue.events")
    request_id = wire.send("VM.create", creation(vm_id))
    seen = [wire.message() for _ in range(4)]
    created = next(message for message in seen if message.get("id") == request_id)["result"]
    events = [message for message in seen if message.get("id") != request_id]
    assert created["status"] == "WaitForLaunch"
    assert created["xml"] == domain(vm_id)
    assert {event["method"] for event in events} == {f"|virt|VM_status|{vm_id}"}
    assert [e["params"][vm_id]["status"] for e in events] == ["WaitForLaunch", "PoweringUp", "Up"]
    times = [event["params"]["notify_time"] for event in events]
    assert times == sorted(times)
    assert times[0] > 2**31 - 2

    assert wire.result("VM.shutdown", on(vm_id)) is True
    until(lambda: state(wire, vm_id) == "Down")
    (down,) = wire.result("VM.getStats", {"vmID": vm_id})
    assert (down["exitCode"], down["exitReason"]) == (0, 6)
    assert wire.call("VM.create", creation(vm_id))["error"]["code"] == 4
    assert wire.result("VM.destroy", on(vm_id)) is True
    assert wire.call("VM.getStats", {"vmID": vm_id})["error"]["code"] == 1


def test_every_host_is_somebody_else(shared):
    wires = [shared.wire(host) for host in (1, 2, 3)]
    facts = [wire.result("Host.getCapabilities") for wire in wires]
    assert [fact["uuid"] for fact in facts] == [h["uuid"] for h in shared.description["hosts"]]
    assert len({fact["boot_uuid"] for fact in facts}) == 3
    assert {fact["engineFencing"] for fact in facts} == {"all"}
    assert facts[0]["memSize"] == "65536"
    assert wires[0].result("Host.ping2") is True
    assert wires[0].result("Host.echo", ["hello"]) == "hello"


def test_the_interval_of_heart_beats_is_agreed(shared):
    assert shared.wire(beat="1,0").connected == {"version": "1.2", "heart-beat": "0,1000"}
    assert shared.wire(beat="0,2000").connected["heart-beat"] == "2000,0"
    assert shared.wire(beat="nonsense").connected["heart-beat"] == "0,0"


def test_heart_beats_come_and_a_silent_client_is_dropped(shared):
    listening, silent = shared.wire(beat="0,1000"), shared.wire(beat="1000,0")
    started = time.monotonic()
    listening.socket.settimeout(3)
    assert listening.socket.recv(1) == b"\n"
    assert silent.closed()
    assert 0.9 < time.monotonic() - started < 2.5


def test_only_version_1_2_is_spoken_and_an_error_leaves_the_connection_open(shared):
    wire = shared.wire(connect=False)
    for version in ("1.1,1.2", "1.0"):
        wire.frame("CONNECT", {"accept-version": version})
        assert wire.next() == ("ERROR", {"content-length": "19"}, b"Version unsupported")
    wire.frame("SUBSCRIBE", {"id": "1"})
    assert wire.next()[2] == b"Missing destination or subscription id header"
    wire.frame("SUBSCRIBE", {"id": "1", "destination": "a"})
    wire.frame("SUBSCRIBE", {"id": "1", "destination": "b"})
    assert wire.next()[2] == b"Subscription id already exists"
    wire.frame("UNSUBSCRIBE", {})
    assert wire.next()[2] == b"Missing id header"
    wire.frame("UNSUBSCRIBE", {"id": "1"})
    wire.frame("SEND", {"destination": "a"}, b"x")
    assert wire.next()[2] == b"Subscription not available"
    wire.subscribe(wire.queue)  # CONNECT is not enforced
    assert wire.result("Host.ping2") is True


def test_disconnecting_closes_only_without_a_receipt(shared):
    wire = shared.wire()
    wire.frame("DISCONNECT", {"receipt": "77"})
    assert wire.next()[:2] == ("RECEIPT", {"receipt-id": "77"})
    assert wire.result("Host.ping2") is True
    wire.frame("DISCONNECT", {})
    assert wire.closed()


@pytest.mark.parametrize("data", [b"STOMP\naccept-version:1.2\n\n\0", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_does_not_open_like_vdsm_is_closed(shared, data):
    wire = shared.wire(connect=False)
    wire.raw(data)
    assert wire.closed()


def test_an_unknown_command_closes_and_ends_the_subscriptions(shared):
    wire, other = shared.wire(), shared.wire()
    wire.frame("ACK", {"id": "1"})
    assert wire.closed()
    other.frame("SEND", {"destination": wire.queue}, b"x")
    assert other.next()[2] == b"Subscription not available"


def test_replies_go_to_every_subscriber_of_the_destination(shared):
    one, other = shared.wire(), shared.wire()
    other.subscribe(one.queue)
    other.result("Host.ping2")  # the subscription has been taken
    request_id = one.send("Host.ping2")
    assert one.message()["id"] == other.message()["id"] == request_id


def test_without_a_reply_destination_nobody_is_told(shared):
    wire = shared.wire()
    wire.subscribe("jms.topic.vdsm_responses")
    wire.send("Host.echo", ["nobody"], **{"reply-to": None})
    assert wire.result("Host.echo", ["somebody"]) == "somebody"


def test_of_two_calls_with_one_id_the_second_is_answered_to_the_default(shared):
    wire, default = shared.wire(), shared.wire()
    default.subscribe("jms.topic.vdsm_responses")
    default.result("Host.ping2")  # the subscription has been taken
    shared.control(host=1, fault="delay", verbs=["Host.echo"], seconds=0.2)
    for word in ("first", "second"):
        wire.send("Host.echo", [word], request_id="same")
    assert wire.message()["result"] == "first"
    assert default.message()["result"] == "second"
    shared.control(host=1, fault="heal")


def test_a_batch_of_two_acts_and_is_never_answered(shared):
    wire, other, ids = shared.wire(), shared.wire(), [str(uuid4()), str(uuid4())]
    batch = [
        {"jsonrpc": "2.0", "id": vm_id, "method": "VM.create", "params": creation(vm_id)}
        for vm_id in ids
    ]
    wire.send_body(json.dumps(batch).encode())
    until(lambda: all(state(other, vm_id) == "Up" for vm_id in ids))
    wire.send_body(json.dumps(batch[:1]).encode())
    assert wire.message()["error"]["code"] == 4  # the first message there is


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no json", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (
            b'{"jsonrpc":"2.0","id":"1","method":"Host.echo","params":[%s1%s]}'
            % (b"[" * 200, b"]" * 200),
            -32700,
        ),
        (b'{"jsonrpc":"2.0","id":["1"],"method":"Host.ping2"}', -32600),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"jsonrpc":"1.0","id":"1","method":"Host.ping2"}', -32600),
        (b'{"jsonrpc":"2.0","id":"1"}', -32600),
        (b'{"jsonrpc":"2.0","id":"1","method":"Host.ping2","params":7}', -32600),
    ],
)
def test_nonsense_is_answered_without_id_to_the_default(shared, body, code):
    wire = shared.wire()
    wire.subscribe("jms.topic.vdsm_responses")
    wire.send_body(body)
    reply = wire.message()
    assert (reply["id"], reply["error"]["code"]) == (None, code)


def test_unknown_methods_and_missing_parameters_are_told(shared):
    wire = shared.wire()
    assert wire.call("Host.dance")["error"]["code"] == -32601
    assert wire.call("Host.echo")["error"]["code"] == -32603
    assert wire.result("Host.ping2", {"unknown": 1}) is True


def test_messages_are_passed_on_between_clients(shared):
    spy, wire = shared.wire(2), shared.wire(2)
    spy.subscribe("jms.topic")
    spy.send("Host.ping2")
    assert spy.message()["method"] == "Host.ping2"  # its own
    assert spy.message()["result"] is True
    request_id = wire.send("Host.echo", ["secret"], ovirtCorrelationId="flow")
    command, headers, body = spy.next()
    assert command == "MESSAGE"
    assert headers["ovirtCorrelationId"] == "flow"
    assert json.loads(body)["id"] == request_id


def test_a_stale_token_is_refused_and_a_question_is_enough_to_make_it_so(shared):
    wire, vm_id = shared.wire(), str(uuid4())
    wire.result("VM.create", creation(vm_id, 5), ovirtCorrelationId="flow-7")
    wire.result("Host.getVMList", {"engineFence": fence(vm_id, 6)})
    for method in ("VM.destroy", "VM.getStats"):
        error = wire.call(method, on(vm_id, 5))["error"]
        assert error["code"] == 4901
        assert f"vm/{vm_id}" in error["message"]
        assert "5" in error["message"]
        assert "6" in error["message"]
    assert wire.call("VM.destroy", on(vm_id, 6))["result"] is True
    calls = [call for call in shared.records("call_begun") if call["vm"] == vm_id]
    assert [(c["refused"], c["would_be_stale"]) for c in calls] == [
        (False, False),
        (True, True),
        (True, True),
        (False, False),
    ]
    assert calls[0]["correlation_id"] == "flow-7"
    assert calls[0]["fence"] == fence(vm_id, 5)
    assert "xml" not in json.dumps(calls)


def test_what_changes_something_needs_tokens(shared):
    wire, vm_id = shared.wire(), str(uuid4())
    unfenced = creation(vm_id) | {"engineFence": []}
    assert wire.call("VM.create", unfenced)["error"]["code"] == 11
    assert wire.call("VM.create", creation(vm_id) | {"engineFence": 7})["error"]["code"] == -32602
    assert state(wire, vm_id) is None


def test_a_call_outlives_its_connection(shared):
    wire, vm_id = shared.wire(3), str(uuid4())
    shared.control(host=3, fault="delay", verbs=["VM.create"], seconds=0.2)
    wire.send("VM.create", creation(vm_id))
    until(lambda: any(call["vm"] == vm_id for call in shared.records("call_held")))
    wire.socket.close()
    successor = shared.wire(3)
    successor.subscribe(wire.queue)
    late = successor.message()
    assert late["result"]["vmId"] == vm_id
    shared.control(host=3, fault="heal")


def test_what_is_over_88_calls_is_turned_away(tmp_path):
    simulator = Simulator(tmp_path, "--work-delay", "0.05")
    try:
        wire = simulator.wire()
        with wire.together():
            for vm_id in [str(uuid4()) for _ in range(100)]:
                wire.send("VM.destroy", on(vm_id))
        codes = [wire.message()["error"]["code"] for _ in range(100)]
        assert sorted(codes) == [1] * 88 + [1100] * 12
        counts = simulator.verify()["counts"]
        assert (counts["call_begun"], counts["call_rejected"]) == (88, 12)
    finally:
        simulator.end()


def test_a_notification_makes_the_host_deaf_until_healed(simulator):
    wire = simulator.wire()
    wire.send_body(b'{"jsonrpc":"2.0","method":"Host.ping2"}')
    wire.send("Host.ping2")
    with pytest.raises(TimeoutError):
        wire.message(0.3)
    simulator.control(host=1, fault="heal")
    assert wire.result("Host.ping2") is True


def test_a_hanging_call_never_acts_and_others_are_served(simulator):
    wire, vm_id = simulator.wire(), str(uuid4())
    assert simulator.control(host=1, fault="hang", verbs=["VM.create"]) == {"ok": True}
    wire.send("VM.create", creation(vm_id))
    assert state(wire, vm_id) is None
    simulator.control(host=1, fault="heal")
    assert wire.result("VM.create", creation(vm_id))["vmId"] == vm_id
    assert [call["vm"] for call in simulator.records("call_begun") if call["mutating"]] == [vm_id]


def test_a_call_whose_answer_hangs_has_acted(simulator):
    wire, vm_id = simulator.wire(), str(uuid4())
    simulator.control(host=1, fault="hang", verbs=["VM.create"], when="after", seconds=60)
    wire.send("VM.create", creation(vm_id))
    until(lambda: state(wire, vm_id))
    with pytest.raises(TimeoutError):
        wire.message(0.2)


def test_a_fault_with_an_end_ends(simulator):
    wire = simulator.wire()
    simulator.control(host=1, fault="hang", verbs=["Host.echo"], seconds=0.05)

    def served() -> bool:
        request_id = wire.send("Host.echo", ["x"])
        wire.send("Host.ping2")
        return wire.message()["id"] == request_id

    until(served)


def test_a_delayed_call_meets_the_gate_when_it_acts(simulator):
    wire, vm_id = simulator.wire(), str(uuid4())
    simulator.control(host=1, fault="delay", verbs=["VM.create"], seconds=0.3)
    request_id = wire.send("VM.create", creation(vm_id, 5))
    wire.result("Host.getVMList", {"engineFence": fence(vm_id, 6)})
    late = wire.message()
    assert (late["id"], late["error"]["code"]) == (request_id, 4901)
    assert simulator.verify()["violations"] == []


def test_a_crashed_host_comes_back_empty_with_another_boot_and_its_gate(simulator):
    wire, vm_id, other = simulator.wire(), str(uuid4()), str(uuid4())
    boot = wire.result("Host.getCapabilities")["boot_uuid"]
    wire.result("VM.create", creation(vm_id, 5))
    neighbour = simulator.wire(2)
    neighbour.result("VM.create", creation(other))
    simulator.control(host=1, fault="crash", seconds=0.2)
    assert wire.closed()
    with pytest.raises(ConnectionRefusedError):
        simulator.wire()
    until(lambda: simulator.control(status=True)["hosts"][0]["listening"])
    wire = simulator.wire()
    assert wire.result("Host.getCapabilities")["boot_uuid"] != boot
    assert wire.result("Host.getVMList") == []
    assert wire.call("VM.create", creation(vm_id, 4))["error"]["code"] == 4901
    assert wire.result("VM.create", creation(vm_id, 6))["vmId"] == vm_id
    assert state(neighbour, other)
    assert simulator.verify()["violations"] == []


def test_a_crashed_host_forgets_tombstones_and_calls_on_their_way(simulator):
    wire, dead, late = simulator.wire(), str(uuid4()), str(uuid4())
    wire.result("VM.create", creation(dead))
    simulator.control(host=1, fault="vm-crash", vm=dead)
    simulator.control(host=1, fault="delay", verbs=["VM.create"], seconds=0.1)
    wire.send("VM.create", creation(late))
    until(lambda: simulator.records("call_held"))
    simulator.control(host=1, fault="crash")
    (lost,) = until(lambda: simulator.records("call_unanswered"))
    assert (lost["vm"], lost["why"]) == (late, "the host rebooted")
    assert simulator.control(status=True)["hosts"][0]["vms"] == {}
    simulator.end()
    simulator.start()
    assert simulator.control(status=True)["hosts"][0]["vms"] == {}


def test_refused_connections_leave_standing_ones_alone(simulator):
    wire = simulator.wire()
    simulator.control(host=1, fault="refuse-connections")
    with pytest.raises(ConnectionRefusedError):
        simulator.wire()
    assert wire.result("Host.ping2") is True
    simulator.control(host=1, fault="heal")
    until(lambda: simulator.control(status=True)["hosts"][0]["listening"])
    assert simulator.wire().result("Host.ping2") is True


@pytest.mark.parametrize(("fault", "end"), [("vm-crash", (1, 2)), ("vm-shutdown", (0, 7))])
def test_a_vm_can_end_by_itself(shared, fault, end):
    wire, vm_id = shared.wire(), str(uuid4())
    wire.result("VM.create", creation(vm_id))
    assert shared.control(host=1, fault=fault, vm=vm_id) == {"ok": True}
    (down,) = wire.result("VM.getStats", {"vmID": vm_id})
    assert (down["exitCode"], down["exitReason"]) == end
    assert shared.control(host=1, fault=fault, vm=vm_id)["ok"] is False


def test_vms_tombstones_gate_and_identity_survive_a_kill(simulator):
    wire, up, down = simulator.wire(), str(uuid4()), str(uuid4())
    for vm_id in (up, down):
        wire.result("VM.create", creation(vm_id, 5))
    simulator.control(host=1, fault="vm-crash", vm=down)
    until(lambda: state(wire, up) == "Up")
    wire.result("Host.getVMList", {"engineFence": fence(up, 9)})
    facts = wire.result("Host.getCapabilities")
    before = wire.result("Host.getAllVmStats")
    simulator.end(signal.SIGKILL)
    with simulator.journal.open("ab") as journal:
        journal.write(b'{"seq":')
    torn = run("verify", str(simulator.journal))
    assert torn.returncode == 0
    assert "unfinished" in torn.stdout

    simulator.start()
    assert simulator.port() == simulator.base_port
    wire = simulator.wire()
    assert wire.result("Host.getAllVmStats") == before
    assert wire.result("Host.getCapabilities") == facts
    assert wire.result("Host.dumpxmls", {"vmList": [up]}) == {up: domain(up)}
    assert wire.call("VM.destroy", on(up, 8))["error"]["code"] == 4901
    assert wire.result("VM.destroy", on(up, 9)) is True
    assert simulator.verify()["violations"] == []


def test_a_host_without_fencing_runs_stale_calls_and_the_judge_tells(tmp_path):
    simulator = Simulator(tmp_path, "--hosts", "2", "--fencing", "none", "--work-delay", "0.2")
    try:
        one, other, vm_id = simulator.wire(), simulator.wire(2), str(uuid4())
        assert "engineFencing" not in one.result("Host.getCapabilities")
        assert one.result("VM.create", {"vmID": vm_id, "vmParams": {"xml": domain(vm_id)}})
        one.result("VM.pause", on(vm_id, 6))
        assert simulator.verify()["violations"] == []
        assert one.result("VM.cont", on(vm_id, 5)) == {"vmList": {}}
        one.send("VM.cont", on(vm_id, 7))
        other.result("VM.create", creation(vm_id, 8))
        verdict = simulator.verify()
        kinds = [violation["kind"] for violation in verdict["violations"]]
        assert sorted(kinds) == ["double creation", "double run", "overlap", "stale call"]
        assert verdict["counts"]["unfenced"] == 1
        assert "DOUBLE RUN" in run("verify", str(simulator.journal)).stdout
    finally:
        simulator.end()


def test_the_command_line_says_what_is_wrong(shared, tmp_path):
    control = f"127.0.0.1:{shared.description['control']}"
    broken = tmp_path / "broken"
    broken.write_text("no json\n")
    for arguments, message in [
        (["--hosts", "0"], "--hosts"),
        (["--fencing", "some"], "--fencing"),
        (["--hosts", "3", "--base-port", "65534"], "65534"),
        (["--journal", str(tmp_path / "no" / "journal")], "No such file"),
        (["verify", str(tmp_path / "none")], "No such file"),
        (["verify", str(broken)], "Line 1"),
        (["inject", "--control", control, "--host", "9", "--fault", "heal"], "no host 9"),
        (["inject", "--control", control, "--host", "1", "--fault", "delay"], "needs seconds"),
        (["inject", "--control", "nowhere", "--host", "1", "--fault", "heal"], "HOST:PORT"),
    ]:
        failed = run(*arguments)
        assert failed.returncode == 2, (arguments, failed.stderr)
        assert message in failed.stderr
    assert run("inject", "--control", control, "--host", "1", "--fault", "heal").returncode == 0
    assert f'"port": {shared.port()}' in run("status", "--control", control).stdout


@pytest.mark.parametrize(
    "request_line",
    [b"no json", b"7", b"{}", b'{"host":1,"fault":"dance"}', b'{"host":1,"fault":"heal","x":1}'],
)
def test_the_control_port_refuses_nonsense_and_goes_on(shared, request_line):
    address = ("127.0.0.1", shared.description["control"])
    with socket.create_connection(address, 5) as connection:
        lines = connection.makefile("rb")
        connection.sendall(request_line + b"\n")
        assert json.loads(lines.readline())["ok"] is False
        connection.sendall(b'{"status":true}\n')
        assert json.loads(lines.readline())["ok"] is True
        lines.close()


def test_a_second_process_cannot_take_journal_or_port(shared, tmp_path):
    taken = run("--journal", str(shared.journal))
    assert taken.returncode == 1
    assert "Another process" in taken.stderr
    taken = run("--base-port", str(shared.port()), "--journal", str(tmp_path / "journal"))
    assert taken.returncode == 1
    assert str(shared.port()) in taken.stderr
