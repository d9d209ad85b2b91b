"""oVirt's own SDK, unmodified, against a running engine of several nodes."""

from __future__ import annotations

import contextlib
import itertools
from uuid import uuid4

import pytest

from engine_pg.clock import boottime

sdk = pytest.importorskip("ovirtsdk4", reason="needs ovirt-engine-sdk-python (see CONTRIBUTING)")
types = pytest.importorskip("ovirtsdk4.types")
pytestmark = pytest.mark.usefixtures("furnished")

BOUND_S = 60.0


@pytest.fixture
def connect(stack, stack_urls):
    """Open connections, each through the node of that number."""
    with contextlib.ExitStack() as opened:

        def connected(node: int = 0, **changes):
            values = {"url": stack_urls[node], "username": stack.user, "password": stack.password}
            connection = sdk.Connection(**values | changes)
            opened.callback(connection.close)
            return connection

        yield connected


@pytest.fixture
def system(connect):
    return connect().system_service()


def until(condition, *, bound_s: float = BOUND_S):
    """Return what a condition gives as soon as it gives something."""
    deadline = boottime() + bound_s
    while boottime() < deadline:
        if result := condition():
            return result
    raise AssertionError(f"not within {bound_s} s")


@pytest.fixture(scope="module")
def furnished(stack, stack_urls):
    """A data center, a cluster and two hosts that are up."""
    connection = sdk.Connection(url=stack_urls[0], username=stack.user, password=stack.password)
    system = connection.system_service()
    data_center = system.data_centers_service().add(types.DataCenter(name="mydc", local=False))
    cluster = system.clusters_service().add(
        types.Cluster(
            name="mycluster",
            cpu=types.Cpu(architecture=types.Architecture.X86_64, type="Intel Nehalem Family"),
            data_center=types.DataCenter(name="mydc"),
        )
    )
    hosts = system.hosts_service()
    for number, port in enumerate(stack.host_ports):
        hosts.add(
            types.Host(
                name=f"myhost{number}",
                address="127.0.0.1",
                port=port,
                root_password="secret",
                cluster=types.Cluster(name="mycluster"),
            )
        )
    until(lambda: len(hosts.list(search="status=up")) == len(stack.host_ports))
    yield data_center, cluster
    connection.close()


@pytest.fixture
def vm(system):
    """A VM that is down."""
    service = system.vms_service()
    added = service.add(
        types.Vm(
            name=f"vm-{uuid4()}",
            cluster=types.Cluster(name="mycluster"),
            template=types.Template(name="Blank"),
            memory=1 << 30,
        )
    )
    yield added
    with contextlib.suppress(sdk.NotFoundError):
        one = service.vm_service(added.id)
        settled = (types.VmStatus.DOWN, types.VmStatus.UP)
        if until(lambda: (v := one.get()).status in settled and v).status == types.VmStatus.UP:
            one.stop()
        one.remove()


def test_a_connection_is_tested_and_told_the_product(connect):
    connection = connect()
    assert connection.test(raise_exception=True)
    api = connection.system_service().get()
    version = api.product_info.version
    assert (version.major, version.minor, version.build, version.revision) == (4, 5, 6, 0)
    assert api.special_objects.blank_template.id == "00000000-0000-0000-0000-000000000000"


def test_a_wrong_password_is_an_auth_error(connect):
    connection = connect(password="wrong")
    with pytest.raises(sdk.AuthError, match="Verify your login"):
        connection.system_service().get()


def test_a_token_of_one_node_works_on_another(connect, stack_urls):
    token = connect(0).authenticate()
    other = sdk.Connection(url=stack_urls[1], token=token)
    assert other.system_service().get().product_info.name == "engine_pg"
    other.close(logout=False)


def test_a_trailing_slash_and_the_version_are_understood(connect, stack_urls):
    for url in (f"{stack_urls[0]}/", f"{stack_urls[0]}/v4"):
        connection = connect(url=url)
        data_center = connection.system_service().data_centers_service().list()[0]
        clusters = connection.follow_link(data_center.clusters)
        assert [cluster.name for cluster in clusters] == ["mycluster"]


def test_what_was_added_is_as_it_was_given(system, furnished):
    data_center, cluster = furnished
    assert (data_center.name, data_center.status) == ("mydc", types.DataCenterStatus.UP)
    assert cluster.cpu.type == "Intel Nehalem Family"
    assert cluster.data_center.id == data_center.id
    hosts = system.hosts_service().list(search="cluster=mycluster")
    assert [host.name for host in hosts] == ["myhost0", "myhost1"]
    assert all(host.memory > 0 and host.cpu.topology.cores > 0 for host in hosts)


def test_what_a_cluster_does_not_use_is_echoed_after_an_update(system, furnished):
    service = system.clusters_service().cluster_service(furnished[1].id)
    changed = service.update(
        types.Cluster(comment="new", ksm=types.Ksm(enabled=False), ballooning_enabled=False)
    )
    again = service.update(types.Cluster(ksm=types.Ksm(merge_across_nodes=False)))
    assert (changed.comment, changed.ksm.enabled, changed.name) == ("new", False, "mycluster")
    assert (again.ksm.enabled, again.ksm.merge_across_nodes) == (False, False)
    assert again.ballooning_enabled is False


def test_a_vm_lives_through_any_node(connect, vm):
    through = [connect(node).system_service().vms_service().vm_service(vm.id) for node in (0, 1)]
    through[0].start()
    running = until(lambda: (v := through[1].get()).status == types.VmStatus.UP and v)
    assert running.host.id
    assert running.start_time is not None
    with pytest.raises(sdk.Error) as refused:
        through[1].start()
    assert refused.value.code == 409
    assert vm.name in refused.value.fault.detail
    with pytest.raises(sdk.Error):
        through[0].remove()
    through[1].stop()
    assert through[0].get().status == types.VmStatus.DOWN
    through[0].remove()
    with pytest.raises(sdk.NotFoundError):
        through[1].get()


def test_a_guest_is_asked_to_shut_down(connect, vm):
    service = connect(1).system_service().vms_service().vm_service(vm.id)
    service.start()
    until(lambda: service.get().status == types.VmStatus.UP)
    service.shutdown()
    assert until(lambda: service.get().status == types.VmStatus.DOWN)


def test_a_vm_starts_on_the_host_that_is_asked_for(system, vm):
    wanted = system.hosts_service().list(search="name=myhost1")[0]
    service = system.vms_service().vm_service(vm.id)
    placement = types.VmPlacementPolicy(hosts=[types.Host(name="myhost1")])
    service.start(vm=types.Vm(placement_policy=placement))
    assert until(lambda: service.get().host).id == wanted.id


def test_an_update_is_seen_at_once_through_another_node(connect, vm):
    nodes = itertools.cycle([connect(0), connect(1)])
    for number in range(6):
        service = next(nodes).system_service().vms_service().vm_service(vm.id)
        service.update(types.Vm(comment=f"change {number}", memory=(number + 1) << 30))
        seen = next(nodes).system_service().vms_service().vm_service(vm.id).get()
        assert (seen.comment, seen.memory) == (f"change {number}", (number + 1) << 30)
        next(nodes)


def test_errors_come_with_their_fault(system, vm):
    vms = system.vms_service()
    for wrong, code, text in (
        (types.Vm(name="x"), 400, "required for add"),
        (types.Vm(name=vm.name, cluster=types.Cluster(name="mycluster"),
                  template=types.Template(name="Blank")), 409, "name"),
        (types.Vm(name="y", cluster=types.Cluster(name="nowhere"),
                  template=types.Template(name="Blank")), 400, "nowhere"),
    ):  # fmt: skip
        with pytest.raises(sdk.Error) as refused:
            vms.add(wrong)
        assert refused.value.code == code
        assert text in refused.value.fault.detail
    with pytest.raises(sdk.NotFoundError):
        vms.vm_service(str(uuid4())).get()
    with pytest.raises(sdk.NotFoundError):
        vms.vm_service(str(uuid4())).start()


def test_searches_and_pages_work(system, vm):
    vms = system.vms_service()
    assert [v.id for v in vms.list(search=f'name="{vm.name}" and cluster=mycluster')] == [vm.id]
    assert vms.list(search=f"name={vm.name.upper()}", case_sensitive=True) == []
    assert len(vms.list(max=1)) == 1
    assert vms.list(search="page 1000", max=10) == []
    followed = vms.list(search=f"name={vm.name}", follow="cluster,nics")[0]
    assert followed.cluster.name == "mycluster"
    assert followed.nics == []


def test_links_lead_on(connect, vm):
    connection = connect()
    fetched = connection.system_service().vms_service().vm_service(vm.id).get()
    assert connection.follow_link(fetched.cluster).name == "mycluster"
    assert connection.follow_link(fetched.template).name == "Blank"
    for links in (fetched.nics, fetched.disk_attachments, fetched.snapshots, fetched.tags):
        assert connection.follow_link(links) == []
    host = connection.system_service().hosts_service().list()[0]
    statistics = until(lambda: connection.follow_link(host.statistics))
    assert "memory.total" in [statistic.name for statistic in statistics]


def test_a_start_tells_its_job_and_its_event(system, vm):
    before = int(system.events_service().list(max=1)[0].id)
    correlation_id = f"sdk-{uuid4()}"[:36]
    service = system.vms_service().vm_service(vm.id)
    service.start(query={"correlation_id": correlation_id})
    jobs = system.jobs_service()
    found = until(
        lambda: [
            job
            for job in jobs.list(search=f"correlation_id={correlation_id}")
            if job.status == types.JobStatus.FINISHED
        ]
    )
    steps = jobs.job_service(found[0].id).steps_service().list()
    assert [step.number for step in steps] == sorted(step.number for step in steps)
    assert steps[0].status == types.StepStatus.FINISHED
    events = until(
        lambda: [
            event
            for event in system.events_service().list(from_=before)
            if event.correlation_id == correlation_id
        ]
    )
    assert (events[0].vm.id, events[0].code) == (vm.id, 32)
    assert system.events_service().event_service(events[0].id).get().description


def test_a_host_goes_to_maintenance_and_comes_back(system):
    hosts = system.hosts_service()
    service = hosts.host_service(hosts.list(search="name=myhost0")[0].id)
    service.deactivate(reason="new disk")
    assert service.get().status == types.HostStatus.MAINTENANCE
    service.activate()
    assert until(lambda: service.get().status == types.HostStatus.UP)


def test_requests_side_by_side_are_answered(system, vm):
    vms = system.vms_service()
    waiting = [vms.list(wait=False) for _ in range(10)]
    assert all(vm.id in [each.id for each in future.wait()] for future in waiting)


def test_after_a_logout_the_token_is_worth_nothing(connect, stack_urls):
    connection = connect()
    token = connection.authenticate()
    connection.close()
    other = sdk.Connection(url=stack_urls[1], token=token)
    with pytest.raises((sdk.AuthError, sdk.Error)):
        other.system_service().get()
    other.close(logout=False)
