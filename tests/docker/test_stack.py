"""PEC's closed room as Compose makes it: what it serves and to whom, that it fails closed, that nothing of it stays."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from docker.errors import APIError
from ruamel.yaml import YAML

import sandbox.leftovers
from merge.errors import ConfigError, ServerError
from sandbox import guard, images
from sandbox.containers import DockerServer
from sandbox.intake import inspect
from sandbox.labelled import LABEL, leftovers
from sandbox.pec import compose
from sandbox.pec.compose import FILE, NET, SERVICES, Stack
from sandbox.pec.isolation import prove_isolation
from sandbox.pec.listen import Listen
from sandbox.pec.stack_server import StackServer
from sandbox.restore import restore_central
from tests.fix_backup import DATABASE, OWNER, dump, fill, fingerprint
from tests.fix_stack import STARTED, up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import docker

    from tests.fix_stack import MakeStack

pytestmark = pytest.mark.docker


@pytest.fixture
def client(stand_ins: dict[str, str]) -> Iterator[docker.DockerClient]:
    with images.daemon() as found:
        yield found


def _ask(port: int, address: str = "127.0.0.1") -> str:
    """What HTTP says there, "" if nobody answers."""
    try:
        with closing(socket.create_connection((address, port), timeout=3)) as connection:
            connection.settimeout(3)
            return connection.makefile().read()
    except OSError:
        return ""


def _listing(client: docker.DockerClient, stack: Stack) -> dict[str, set[str]]:
    """All that Docker and the folder of runs have of this run; others come and go meanwhile."""
    run, folder = stack.settings.run_id, stack.settings.folder
    label: dict[str, Any] = {"filters": {"label": f"{LABEL}={run}"}}
    return {
        "containers": {str(c.name) for c in client.containers.list(all=True) if run in str(c.name)}
        | {str(c.name) for c in client.containers.list(all=True, **label)},
        "networks": {str(n.name) for n in client.networks.list() if run in str(n.name)},
        "volumes": {str(v.name) for v in client.volumes.list() if run in str(v.name)},
        "images": {str(i.id) for i in client.images.list(all=True, **label)},
        "files": {str(path) for path in folder.parent.rglob("*") if run in str(path)},
    }


# The file


@pytest.mark.parametrize("profile", [*SERVICES, ""])
def test_compose_accepts_the_file(stand_ins: dict[str, str], tmp_path: Path, profile: str) -> None:
    stack = Stack(compose.Settings("run", tmp_path / "a b#c", listen=Listen(port=None)))
    stack._write_environment("gateway")
    call = [*compose.program(), "--env-file", str(stack.environment_file), "-f", str(FILE), "-p", stack.project]
    call += ["--profile", profile, "config"] if profile else ["config"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=compose._environment())
    assert done.returncode == 0, done.stderr
    said = YAML(typ="safe").load(done.stdout)
    service = said["services"][profile or NET]
    assert service["labels"]["homolog.folder"] == f"{tmp_path}/a b#c"
    assert service["container_name"] == stack.name(profile or NET)
    without = subprocess.run(
        [*compose.program(), "-f", str(FILE), "config"], capture_output=True, check=False, env=compose._environment()
    )
    assert without.returncode != 0  # it is nobody's without a run


# The server


def test_a_backup_is_restored(make_stack: MakeStack) -> None:
    """As into any server, while the server of the same run is up; then one goes and the other stays."""
    settings = make_stack().stack.settings
    other = DockerServer(settings.folder / "server", major=15, run_id=settings.run_id, memory=2**30)
    try:
        other.start()
        fill(other)
        backup = dump(other, other.scratch / "odd.backup", "custom")
        server = StackServer(settings, major=15, inputs=[backup])
        server.start()
        restore_central(server, inspect(backup, work=other.folder / "work"), "restored", owner=OWNER, jobs=2)
        with other.connect(DATABASE) as was, server.connect("restored") as now:
            assert fingerprint(now, "public") == fingerprint(was, "public")
        prove_isolation(server.stack)
        other.stop()
        assert server.has_database("restored")
        assert {left.name for left in leftovers(server.run_id, "server")} == {f"homolog-{server.run_id}-data"}
        server.stop()
        other.start()
        assert other.has_database(DATABASE)
        server.start()
        with server.connect("restored", OWNER) as conn:
            assert conn.execute("SELECT count(*) FROM part").fetchone() == (100,)
        other.destroy()
        assert server.has_database("restored")
        server.destroy()
        assert leftovers(server.run_id) == []
    finally:
        other.destroy()


def test_a_driver_without_scram_is_served(stack_server: StackServer) -> None:
    stack_server.create_role("jdbc")
    with stack_server.connect("postgres") as conn:
        row = conn.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'jdbc'").fetchone()
        assert row is not None
        assert row[0].startswith("md5")
        assert conn.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall() == [("md5",)]
        assert conn.execute("SELECT lower('ÁÇ')").fetchone() == ("áç",)
        durable = ("fsync", "full_page_writes", "autovacuum", "synchronous_commit")
        assert [conn.execute(f"SHOW {name}").fetchone() for name in durable] == [("on",)] * 4
    with stack_server.connect("postgres", "jdbc") as conn:
        assert conn.execute("SELECT inet_server_port()").fetchone() == (5432,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"{stack_server.conninfo('postgres', 'jdbc')} passfile=/dev/null password=wrong")


def test_a_server_that_does_not_authenticate_by_md5_is_refused(stack_server: StackServer) -> None:
    def write(line: str) -> None:
        with stack_server.connect("postgres") as conn:
            file = conn.execute("SELECT current_setting('hba_file')").fetchone()
            conn.execute(f"COPY (SELECT 'host all all all {line}') TO '{file[0]}'")  # type: ignore[index]

    write("scram-sha-256")
    try:
        with pytest.raises(ServerError) as error:
            stack_server._check()
        assert "scram-sha-256" in error.value.details
    finally:
        write("md5")
    stack_server._check()


# Who reaches what


def test_services_reach_each_other_and_this_machine_reaches_them(stack_server: StackServer) -> None:
    stack = stack_server.stack
    names = "getent ahostsv4 central.homolog source.homolog | sort -u -k1,1"
    for service in (NET, "db", "pec-source"):
        assert stack.exec(service, ["bash", "-c", names])[1].startswith("127.0.0.1 ")
    for port in (8080, 8081, 443):
        script = f"exec 3<> /dev/tcp/central.homolog/{port}; cat <&3"
        code, said = stack.exec("pec-source", ["timeout", "5", "bash", "-c", script])
        assert (code, said.split()[-1]) == (0, str(port))
    assert _ask(stack.port(443)).split()[-1] == "443"
    with images.daemon() as client:
        ports = client.containers.get(stack.name(NET)).attrs["NetworkSettings"]["Ports"]
        assert {one["HostIp"] for published in ports.values() for one in published} == {"127.0.0.1"}
    address = _address(stack)
    # The host's side is all that comes in, and only at those ports.
    for port in (8080, 8081):
        assert _ask(port, address) == ""
    assert _ask(443, address) != ""


def _address(stack: Stack) -> str:
    """Of the room, in its network."""
    with images.daemon() as client:
        networks = client.containers.get(stack.name(NET)).attrs["NetworkSettings"]["Networks"]
    return str(networks[stack.project]["IPAddress"])


@pytest.fixture
def lan() -> Iterator[tuple[str, str]]:
    """A network of this machine's own, of which it has the first address; its name, for `ip netns exec`."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network needs root and iproute2")
    name, end = f"hl{secrets.token_hex(4)}", f"hx{secrets.token_hex(4)}"
    base = f"198.18.{secrets.randbelow(256)}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{base}.1/24", "dev", end)
        ip("link", "set", end, "up")
        for host in (2, 3):
            ip("-n", name, "addr", "add", f"{base}.{host}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", f"{base}.1")
        yield name, base
    finally:
        ip("netns", "del", name)  # with it goes the pair of interfaces


def test_on_a_network_only_who_is_named_comes_in(
    make_stack: MakeStack, client: docker.DockerClient, lan: tuple[str, str]
) -> None:
    name, base = lan
    with closing(socket.create_server((f"{base}.1", 0))) as free:
        port = free.getsockname()[1]
    server = make_stack(Listen.parse(f"{base}.1", port, [f"{base}.2"]))
    stack = server.stack
    up(stack, "proxy")

    def reaches(source: int, to: str, at: int) -> bool:
        script = (
            "import socket, sys; s = socket.socket(); s.settimeout(3); s.bind((sys.argv[1], 0)); "
            "s.connect((sys.argv[2], int(sys.argv[3]))); sys.exit(b'443' not in s.recv(999) + s.recv(999))"
        )
        call = ["ip", "netns", "exec", name, "python3", "-c", script, f"{base}.{source}", to, str(at)]
        return subprocess.run(call, check=False, capture_output=True).returncode == 0

    published = client.containers.get(stack.name(NET)).attrs["NetworkSettings"]["Ports"]
    assert [(one["HostIp"], one["HostPort"]) for one in published["443/tcp"]] == [(f"{base}.1", str(port))]
    assert reaches(2, f"{base}.1", port)
    assert not reaches(3, f"{base}.1", port)
    assert not reaches(2, f"{base}.1", stack.port(5432))  # SQL is for this machine only
    assert _ask(port, f"{base}.1") != ""  # this machine itself
    assert _ask(443, _address(stack)) == ""  # not the host's side: whose address is not told might come from there
    prove_isolation(stack)
    server.destroy()


def test_docker_desktop_does_not_tell_who_comes(make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "is_desktop", lambda _: True)
    with pytest.raises(ConfigError, match="Desktop"):
        make_stack(Listen("10.9.8.7", 443, ("10.9.8.8/32",))).stack.up(NET)


def test_a_port_that_is_taken_is_told(make_stack: MakeStack) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        stack = make_stack(Listen.parse(port=port)).stack
        with pytest.raises(ServerError) as error:
            stack.up(NET)
    assert any(str(port) in line for line in error.value.details)
    elsewhere = Stack(replace(stack.settings, listen=Listen(port=None)))
    up(elsewhere, "proxy")
    assert _ask(elsewhere.port(443)) != ""
    net = _address(elsewhere)
    elsewhere.up("canary")  # nothing changes: it is the same network
    assert _address(elsewhere) == net
    with pytest.raises(ConfigError):
        stack.up("canary")
    elsewhere.stop()
    stack.up("canary")
    assert stack.port(443) == port
    assert stack.state("proxy") is None
    elsewhere.down()


# It fails closed


def test_nothing_starts_where_the_network_cannot_be_closed(
    make_stack: MakeStack, client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(FILE.parent, tmp_path / "compose")
    isolate = copy / "guard" / "isolate"
    closed = "-A OUTPUT -o lo -j ACCEPT"
    isolate.write_text(isolate.read_text().replace(closed, f"{closed}\n-A OUTPUT -p udp -j ACCEPT"))
    monkeypatch.setattr(compose, "FILE", copy / "compose.yaml")
    stack = make_stack().stack
    with pytest.raises(ServerError) as error:
        stack.up("pec-central", "pec-source")
    assert any("left" in line for line in error.value.details)
    state = stack.state(NET)
    assert state is not None
    assert (state.status, state.exit_code) == ("exited", 1)
    for service in ("pec-central", "pec-source"):
        assert (found := stack.state(service)) is None or not found.is_running
        assert STARTED not in stack.logs(service)
        with pytest.raises(ServerError):  # nor by hand
            _start(client, stack, service)
    stack.down()


def _start(client: docker.DockerClient, stack: Stack, service: str) -> None:
    with images.daemon() as again:
        again.containers.get(stack.name(service)).start()


def test_a_program_ends_where_the_network_is_open(client: docker.DockerClient, stand_ins: dict[str, str]) -> None:
    """The second line: an image's program is not begun, whoever has put its container there."""
    container = client.containers.run(
        stand_ins["pec"],
        entrypoint=["bash", f"{guard.INSIDE}/closed"],
        command=["/usr/local/bin/pec"],
        mounts=[guard.mount()],
        network="bridge",
        cap_drop=["ALL"],
        detach=True,
    )
    try:
        assert container.wait(timeout=20)["StatusCode"] == 1
        assert "left" in container.logs().decode()
        assert STARTED not in container.logs().decode()
    finally:
        container.remove(v=True, force=True)


def test_restarts_in_any_order_leave_nothing_in_the_open(make_stack: MakeStack, client: docker.DockerClient) -> None:
    server = make_stack()
    stack = server.stack
    stack.up("pec-central", "canary")
    net, pec, canary = (client.containers.get(stack.name(name)) for name in (NET, "pec-central", "canary"))
    stack.deliver("pec-central", "/run/pec/password", b"secret")
    prove_isolation(stack)
    net.restart()  # the others are where it was: without any way at all
    for one in (pec, canary):
        script = "cat /proc/net/route | wc -l"
        assert stack.exec(_service(stack, one.name), ["bash", "-c", script]) == (0, "1\n")
    with pytest.raises(ServerError) as error:  # and that is told
        prove_isolation(stack)
    assert f"{pec.name}: network" in error.value.details
    pec.restart()
    canary.restart()
    prove_isolation(stack)
    net.kill()
    for one in (pec, canary):
        with pytest.raises(APIError):
            one.restart()
    net.start()
    canary.start()
    pec.start()  # at once: while the network is not closed yet, it ends
    stack.up("pec-central", "canary")
    prove_isolation(stack)
    # What Compose starts again is the same container, with what was put into it.
    assert stack.exec("pec-central", ["cat", "/run/pec/password"]) == (0, "secret")
    server.destroy()


def _service(stack: Stack, name: str | None) -> str:
    return next(service for service in (NET, *SERVICES) if stack.name(service) == name)


# What is seen of it, and what stays


def test_secrets_are_delivered_and_seen_by_nobody(make_stack: MakeStack, client: docker.DockerClient) -> None:
    server = make_stack()
    stack = server.stack
    secret = secrets.token_hex(16)
    stack.up("pec-central", "proxy", start=False)
    assert {stack.state(name).status for name in ("pec-central", "proxy")} == {"created"}  # type: ignore[union-attr]
    stack.deliver("pec-central", "/run/pec/password", secret.encode())
    stack.deliver("proxy", "/run/proxy/key.pem", secret.encode())
    up(stack, "pec-central", "proxy")
    for service, path in (("pec-central", "/run/pec/password"), ("proxy", "/run/proxy/key.pem")):
        assert stack.exec(service, ["cat", path]) == (0, secret)
        assert stack.exec(service, ["stat", "-c", "%a %u", path]) == (0, "400 0\n")
    seen = stack.environment_file.read_text() + FILE.read_text()
    for container in stack.containers(client):
        seen += json.dumps(container.attrs) + container.logs().decode() + json.dumps(container.top())
    assert secret not in seen
    assert STARTED in stack.logs("pec-central")
    assert stack.logs("db") == ""
    server.destroy()


def test_how_a_container_ended_is_told(make_stack: MakeStack, client: docker.DockerClient) -> None:
    server = make_stack()
    stack = server.stack
    stack.up("pec-source")
    assert stack.state(NET).health == "healthy"  # type: ignore[union-attr]
    eat = "perl -e '$x .= q(x) x 1e8 while 1'"
    stack.exec("pec-source", ["bash", "-c", eat])
    client.containers.get(stack.name("pec-source")).kill("SIGKILL")
    state = stack.state("pec-source")
    assert state is not None
    assert (state.status, state.exit_code, state.is_running) == ("exited", 137, False)
    assert stack.state("pec-central") is None
    server.destroy()


def test_nothing_stays(make_stack: MakeStack, client: docker.DockerClient) -> None:
    """Containers, networks, volumes, images and files are after `destroy`, and after `down`, what they were before."""
    server = make_stack()
    stack = server.stack
    shutil.rmtree(stack.folder)
    before = _listing(client, stack)
    server = StackServer(stack.settings, major=15)
    server.start()
    stack.up("pec-central", "pec-source", "proxy", "canary")
    stack.deliver("pec-central", "/run/pec/password", b"secret")
    while_it_runs = _listing(client, stack)
    assert {kind: len(found) for kind, found in while_it_runs.items() if kind != "files"} == {
        "containers": len(SERVICES) + 2, "networks": 1, "volumes": 2, "images": 0,
    }  # fmt: skip
    mounts = [mount for one in stack.containers(client) for mount in one.attrs["Mounts"]]
    volumes = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
    assert len(volumes) == 2 + 3  # also those of the images, which have no name
    assert not [left for left in sandbox.leftovers.find([]) if left.run_id == server.run_id]  # its folder is there
    server.destroy()
    assert _listing(client, stack) == before
    assert not volumes & {str(volume.name) for volume in client.volumes.list()}
    server.destroy()
    stack.down()
    stack.up("canary")
    stack.down()
    shutil.rmtree(stack.folder)
    assert _listing(client, stack) == before


def test_what_is_left_of_a_run_whose_folder_was_deleted(make_stack: MakeStack) -> None:
    server = make_stack()
    server.stack.up("canary")
    shutil.rmtree(server.stack.settings.folder)
    found = [left for left in sandbox.leftovers.find([]) if left.run_id == server.run_id]
    assert {left.kind for left in found} == {"containers", "networks", "volumes"}
    sandbox.leftovers.remove(found)
    assert leftovers(server.run_id) == []
