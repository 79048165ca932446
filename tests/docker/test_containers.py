"""The server in Docker: what it can do, and what can come out of it."""

from __future__ import annotations

import gc
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from docker.errors import APIError

import sandbox.leftovers
from merge.errors import ServerError
from sandbox import choose, images
from sandbox.command import CommandFailed
from sandbox.container_command import ContainerCommand
from sandbox.containers import DockerServer
from sandbox.labelled import LABEL, leftovers, remove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import docker

    from tests.fix_docker import MakeServer

pytestmark = pytest.mark.docker

_OWNER = "homolog_test"


@pytest.fixture
def client(docker_server: DockerServer) -> Iterator[docker.DockerClient]:
    with images.daemon() as found:
        yield found


@pytest.fixture
def database(docker_server: DockerServer) -> Iterator[str]:
    name = f"test_{secrets.token_hex(4)}"
    docker_server.create_role(_OWNER)
    docker_server.create_database(name, _OWNER)
    yield name
    docker_server.drop_database(name)


def _inside(server: DockerServer, script: str, *args: str, seconds: int = 3) -> int:
    """Run a script beside PostgreSQL, in the same network; return its exit code."""
    argv = ("/usr/bin/timeout", str(seconds), "/bin/bash", "-c", script, "bash", *args)
    return ContainerCommand(server._tools, argv, "0:0").run(check=False).code


def _fill(server: DockerServer, database: str, rows: int) -> None:
    with server.connect(database, _OWNER) as conn:
        conn.execute(
            "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 8) AS v FROM generate_series(1, %s) g", [rows]
        )


# What it can do


def test_dump_and_restore(docker_server: DockerServer, database: str) -> None:
    _fill(docker_server, database, 1000)
    dump = docker_server.scratch / "test.backup"
    docker_server.tool("pg_dump", "-Fc", "-f", docker_server.path(dump), database=database, role=_OWNER).run()
    assert dump.read_bytes()[:5] == b"PGDMP"
    assert dump.stat().st_uid == os.getuid()
    with docker_server.connect(database, _OWNER) as conn:
        conn.execute("ALTER TABLE t RENAME TO before")
        said: list[str] = []
        command = docker_server.tool(
            "pg_restore", "-v", "-j", "2", "-d", database, docker_server.path(dump), database=database, role=_OWNER
        )
        result = command.run(on_line=said.append)
        assert conn.execute("SELECT count(*) FROM (TABLE t INTERSECT TABLE before) s").fetchone() == (1000,)
    assert any("finished item" in line for line in said)
    assert result.stderr.splitlines() == said


def test_stream_is_complete(docker_server: DockerServer, database: str) -> None:
    _fill(docker_server, database, 50_000)
    with docker_server.tool("pg_dump", "-a", database=database, role=_OWNER).stream() as chunks:
        streamed = b"".join(chunks)
    written = docker_server.tool("pg_dump", "-a", database=database, role=_OWNER).run().stdout
    restrict = re.compile(rb"\\(un)?restrict \w+")
    assert restrict.sub(b"", streamed) == restrict.sub(b"", written)
    assert streamed.count(b"\n") > 50_000


def test_streams_side_by_side(docker_server: DockerServer, database: str) -> None:
    _fill(docker_server, database, 20_000)
    lines: list[int] = []

    def count() -> None:
        with docker_server.tool("psql", "-XAtc", "TABLE t", database=database, role=_OWNER).stream() as chunks:
            lines.append(sum(chunk.count(b"\n") for chunk in chunks))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines == [20_000] * 4


def test_failure_tells_code_and_stderr(docker_server: DockerServer, database: str) -> None:
    psql = docker_server.tool("psql", "-Xc", "SELECT no_such_column", database=database, role=_OWNER)
    with pytest.raises(CommandFailed, match="psql") as failure:
        psql.run()
    assert failure.value.code == 1
    assert "no_such_column" in failure.value.stderr
    assert psql.run(check=False).code == 1
    with pytest.raises(CommandFailed), psql.stream() as chunks:
        assert list(chunks) == []


def test_leaving_a_stream_ends_the_program(docker_server: DockerServer, database: str) -> None:
    endless = "SELECT repeat('x', 10000) FROM generate_series(1, 100000000)"
    command = docker_server.tool("psql", "-XAt", "-v", "FETCH_COUNT=10", "-c", endless, database=database, role=_OWNER)

    def lose_interest() -> None:
        with command.stream() as chunks:
            assert next(chunks)
            raise KeyError

    with pytest.raises(KeyError):
        lose_interest()
    assert _inside(docker_server, 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" != psql ] || exit 1; done') == 0
    with docker_server.connect("postgres") as conn:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql'"
        assert conn.execute(query).fetchone() == (0,)


def test_inputs_can_be_read_and_not_written(make_docker_server: MakeServer, tmp_path: Path) -> None:
    secret = tmp_path / "closed" / "central.backup"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("synthetic")
    secret.chmod(0o600)
    if os.getuid() == 0:
        os.chown(secret, 12345, 12345)
    server = make_docker_server(secret, secret.parent)
    assert server.path(secret) == "/in/0/central.backup"
    assert server.path(secret.parent / "toc.dat") == "/in/1/closed/toc.dat"
    with pytest.raises(ValueError, match="elsewhere"):
        server.path(tmp_path / "elsewhere")
    for started in (False, True):  # alone, without network; and beside the server
        if started:
            server.start()
        assert _inside(server, 'grep -q synthetic "$1"', server.path(secret)) == 0
        assert _inside(server, 'echo >> "$1"', server.path(secret)) != 0
    assert secret.read_text() == "synthetic"
    server.destroy()


# What can come out of it, and go in


def test_only_loopback_of_the_host_reaches_it(docker_server: DockerServer, client: docker.DockerClient) -> None:
    holder = client.containers.get(f"homolog-{docker_server.run_id}-holder")
    (published,) = holder.attrs["NetworkSettings"]["Ports"]["5432/tcp"]
    assert published["HostIp"] == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", int(published["HostPort"])), timeout=3):
        pass
    elsewhere = _gateway(docker_server)  # an address of this host that is not loopback
    with _Listener() as listener, socket.create_connection((elsewhere, listener.tcp), timeout=3):
        pass
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection((elsewhere, int(published["HostPort"])), timeout=3)


def test_a_password_is_needed(docker_server: DockerServer) -> None:
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"{docker_server.conninfo('postgres')} passfile=/dev/null password='{wrong}'")


def test_nothing_gets_out(docker_server: DockerServer, client: docker.DockerClient, neighbour: str) -> None:
    """From beside PostgreSQL neither the host nor another container is reached, by TCP or UDP; from elsewhere, both."""
    network, gateway = f"homolog-{docker_server.run_id}-net", _gateway(docker_server)
    postgres = client.containers.get(f"homolog-{docker_server.run_id}-postgres")
    with _Listener() as listener:
        tcp = f'echo tcp-"$1" > /dev/tcp/{gateway}/{listener.tcp}'
        udp = f'echo udp-"$1" > /dev/udp/{gateway}/{listener.udp}'
        # The test can tell: a container that nobody isolated does get through, in the same network.
        free = {"image": images.GUARD, "remove": True, "labels": postgres.labels, "network": network}
        for script in (tcp, udp):
            client.containers.run(entrypoint=["timeout", "5", "bash", "-c", script, "bash", "free"], **free)
        assert _inside(docker_server, tcp, "isolated") != 0
        assert _inside(docker_server, udp, "isolated") != 0
        assert listener.heard() == {"tcp-free", "udp-free"}
    # The neighbour is in this server's own network too.
    reach = f"echo > /dev/tcp/{neighbour}/5432"
    client.containers.run(entrypoint=["timeout", "5", "bash", "-c", reach], **{**free, "network": "bridge"})
    assert _inside(docker_server, reach) != 0
    assert _inside(docker_server, reach.replace("tcp", "udp")) != 0
    # Loopback is not closed: PostgreSQL's own tools go there.
    assert _inside(docker_server, "echo > /dev/tcp/127.0.0.1/5432") == 0


def test_no_name_server_is_asked(docker_server: DockerServer, client: docker.DockerClient) -> None:
    """Docker's name server, on a loopback address, asks those of the host: names could carry data out."""
    network, holder = (f"homolog-{docker_server.run_id}-{part}" for part in ("net", "holder"))
    client.containers.run(
        images.GUARD, entrypoint=["getent", "hosts", holder], network=network, remove=True, labels={LABEL: "none"}
    )
    assert _inside(docker_server, 'getent hosts "$1"', holder, seconds=12) != 0
    assert _inside(docker_server, "echo > /dev/udp/127.0.0.11/53") != 0


def test_no_capability_is_left(docker_server: DockerServer) -> None:
    """The server's processes have none; tools of root may read, and neither change rules nor send raw packets."""
    with docker_server.connect("postgres") as conn:
        conn.execute("CREATE TEMP TABLE status (line text)")
        conn.execute("COPY status FROM '/proc/self/status' DELIMITER E'\\x01'")
        said = dict(line.split(":\t", 1) for (line,) in conn.execute("SELECT line FROM status") if ":\t" in line)
    assert {said[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert said["NoNewPrivs"] == "1"
    assert "0" not in said["Uid"].split()
    script = "grep -q 'CapEff:.0*\\(0\\|2\\)$' /proc/self/status"
    assert _inside(docker_server, script) == 0


def test_tools_do_not_see_the_passwords_of_others(docker_server: DockerServer) -> None:
    (docker_server.folder.parent / "beside").write_text("x")
    assert _inside(docker_server, 'test -r "$1"', docker_server.path(docker_server.folder.parent / "beside")) == 0
    for name in ("passfile", "server.json"):
        inside = docker_server.path(docker_server.folder / name)
        assert _inside(docker_server, 'test -e "$1"', inside) != 0
    assert _inside(docker_server, 'test -w "$1"', docker_server.path(docker_server.scratch)) == 0


def test_no_password_is_seen(docker_server: DockerServer, client: docker.DockerClient, database: str) -> None:
    passwords = [line.rsplit(":", 1)[1] for line in (docker_server.folder / "passfile").read_text().splitlines()]
    assert len(passwords) >= 2
    assert (docker_server.folder / "passfile").stat().st_mode & 0o777 == 0o600
    with docker_server.tool("psql", "-XAtc", "SELECT pg_sleep(0)", database=database).stream() as chunks:
        seen = "".join(chunk.decode() for chunk in chunks)
    for part in ("holder", "postgres", "tools"):
        container = client.containers.get(f"homolog-{docker_server.run_id}-{part}")
        seen += json.dumps(container.attrs) + container.logs().decode() + json.dumps(container.top())
    image = docker_server._state()["image"]
    seen += json.dumps(client.images.get(image).attrs) + json.dumps(client.images.get(image).history())
    assert not [p for p in passwords if p in seen]
    with docker_server.connect("postgres") as conn:
        files = conn.execute("SELECT name FROM pg_ls_dir(current_setting('data_directory') || '/..') name").fetchall()
    assert files == [("homolog",)]


# Life


def test_a_killed_server_keeps_its_data(make_docker_server: MakeServer) -> None:
    server = make_docker_server()
    server.start()
    server.create_role(_OWNER)
    server.create_database("kept", _OWNER)
    _fill(server, "kept", 1000)
    with images.daemon() as client:
        client.containers.get(f"homolog-{server.run_id}-postgres").kill("SIGKILL")
    assert server.data_is_sound()
    again = DockerServer(server.folder, major=15, run_id=server.run_id, memory=2**30)
    again.start()
    with again.connect("kept", _OWNER) as conn:
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        backend = conn.info.backend_pid
        DockerServer(server.folder, major=15, run_id=server.run_id, memory=2**30).start()  # does nothing: it runs
        assert conn.execute("SELECT pg_backend_pid()").fetchone() == (backend,)
    with _Listener() as listener:  # closed again
        assert _inside(again, f"echo again > /dev/udp/{_gateway(server)}/{listener.udp}") != 0
        assert listener.heard() == set()
    again.stop()
    again.stop()
    assert {left.kind for left in leftovers(server.run_id)} == {"volumes"}
    assert again.tool("pg_restore", "--version").run().stdout.startswith(b"pg_restore (PostgreSQL) 15")
    again.start()
    with again.connect("kept", _OWNER) as conn:
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    again.destroy()
    assert leftovers(server.run_id) == []


def test_a_restart_by_hand_leaves_nothing_in_the_open(make_docker_server: MakeServer) -> None:
    server = make_docker_server()
    server.start()
    with images.daemon() as client:
        holder, postgres = (client.containers.get(f"homolog-{server.run_id}-{part}") for part in ("holder", "postgres"))
        holder.restart()
        with suppress(APIError):  # at once: while the network is not closed yet, it ends
            postgres.restart()
        tools = client.containers.get(f"homolog-{server.run_id}-tools")
        tools.restart(timeout=1)
        with _Listener() as listener:
            assert _inside(server, f"echo out > /dev/udp/{_gateway(server)}/{listener.udp}") != 0
            assert listener.heard() == set()
    server.start()
    with server.connect("postgres") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    server.destroy()


def test_data_are_void_after_a_restart_of_the_machine(make_docker_server: MakeServer) -> None:
    server = make_docker_server()
    assert server.data_is_sound()
    server.start()
    assert server.data_is_sound()
    server._remember(boot="another")
    assert not server.data_is_sound()
    server.stop()
    assert server.data_is_sound()
    remove(leftovers(server.run_id))
    assert not server.data_is_sound()
    server.destroy()


def test_destroy_leaves_nothing(make_docker_server: MakeServer, client: docker.DockerClient) -> None:
    def everything() -> list[int]:
        labelled: dict[str, Any] = {"filters": {"label": f"{LABEL}={server.run_id}"}}
        return [len(kind.list(**labelled)) for kind in (client.networks, client.volumes)]

    def volumes() -> set[str]:
        """Volumes that the containers use, with or without a name; others come and go with other tests."""
        mounts = (c.attrs["Mounts"] for c in client.containers.list(filters={"label": f"{LABEL}={server.run_id}"}))
        return {mount["Name"] for mounted in mounts for mount in mounted if mount["Type"] == "volume"}

    server = make_docker_server()
    server.start()
    assert everything() == [1, 1]
    used = volumes()
    assert f"homolog-{server.run_id}-data" in used
    server.destroy()
    assert everything() == [0, 0]
    assert leftovers(server.run_id) == []
    assert not used & {volume.name for volume in client.volumes.list()}
    assert not server.folder.exists()
    server.destroy()


def test_the_log_tells_of_errors_and_of_no_row(make_docker_server: MakeServer) -> None:
    """While it runs, after it was killed and after it was stopped, when its containers are gone."""
    server = make_docker_server()
    assert server.logs() == []

    def said(wanted: str) -> str:
        deadline = time.monotonic() + 20
        while True:
            text = "".join(path.read_text() for path in server.logs())
            if wanted in text or time.monotonic() > deadline:
                assert "MARIA" not in text
                return text
            time.sleep(0.1)

    line = ",22P02,homolog_admin,postgres,ERROR:  ***"
    for attempt in (1, 2):
        server.start()
        with server.connect("postgres") as conn, pytest.raises(psycopg.Error):
            conn.execute("SELECT 'MARIA DA SILVA'::integer")
        assert line in said(line)
        if attempt == 1:
            with images.daemon() as client:
                client.containers.get(f"homolog-{server.run_id}-postgres").kill("SIGKILL")
    server.stop()
    text = said("was not properly shut down")
    assert text.count(line) == 2
    assert "was not properly shut down" in text
    assert "database system is shut down" in text  # to its last word
    assert [path.stat().st_mode & 0o777 for path in server.logs()] == [0o600, 0o600]
    server.destroy()
    assert server.logs() == []


def test_leftovers_are_found_and_removed(make_docker_server: MakeServer) -> None:
    server = make_docker_server()
    server.start()
    found = leftovers(server.run_id)
    assert sorted(left.kind for left in found) == ["containers", "containers", "containers", "networks", "volumes"]
    assert set(found) <= set(leftovers())
    assert leftovers("no-such-run") == []
    assert {left.folder for left in found} == {str(server.folder.resolve().parent)}
    remove(found)
    remove(found)
    assert leftovers(server.run_id) == []


def test_what_is_left_of_a_run_whose_folder_was_deleted(make_docker_server: MakeServer) -> None:
    server = make_docker_server()
    folder = server.folder.parent / server.run_id
    server = DockerServer(folder / "server", major=15, run_id=server.run_id, memory=2**30)
    server.start()
    ours = leftovers(server.run_id)
    assert not set(ours) & set(sandbox.leftovers.find([]))  # its folder is there
    shutil.rmtree(folder)
    assert not set(ours) & set(sandbox.leftovers.find([server.run_id]))  # it is known
    found = [left for left in sandbox.leftovers.find(["other"]) if left.run_id == server.run_id]
    assert found == ours
    sandbox.leftovers.remove(found)
    assert leftovers(server.run_id) == []


def test_nothing_starts_where_the_network_cannot_be_closed(
    make_docker_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard proves what it did: rules that let something out are not enough."""
    guard = shutil.copytree(images.COMPOSE / "guard", tmp_path / "guard") / "isolate"
    closed = "-A OUTPUT -o lo -j ACCEPT"
    guard.write_text(guard.read_text().replace(closed, f"{closed}\n-A OUTPUT -p udp -j ACCEPT"))
    server = make_docker_server()
    monkeypatch.setattr(images, "COMPOSE", tmp_path)
    with pytest.raises(ServerError) as error:
        server.start()
    assert any("left" in line for line in error.value.details)
    assert {left.kind for left in leftovers(server.run_id)} == {"volumes"}
    server.destroy()


# Choice


def test_auto_takes_docker_where_it_can(make_docker_server: MakeServer, tmp_path: Path) -> None:
    make_docker_server()
    server, reason = choose.choose("auto", major=15, folder=tmp_path / "server", run_id="test-choose")
    assert server.provider == "docker"
    assert server.version.startswith("15.")
    assert "Docker" in reason


# docker leaves the socket open that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_auto_takes_embedded_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    server, reason = choose.choose("auto", major=16, folder=tmp_path / "server", run_id="test-choose")
    assert server.provider == "embedded"
    assert "Docker" in reason
    with pytest.raises(ServerError):
        choose.choose("docker", major=16, folder=tmp_path / "other", run_id="test-choose")
    gc.collect()


def test_auto_takes_embedded_without_an_image(
    docker_server: DockerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that nobody has: what was tried is told."""
    monkeypatch.setattr(images, "COMPOSE", tmp_path)
    server, reason = choose.choose("auto", major=99, folder=tmp_path / "server", run_id="test-choose")
    assert server.provider == "embedded"
    assert "postgres:99" in reason


# Helpers


class _Listener:
    """Listens on all addresses of this host, by TCP and UDP, and remembers what it heard."""

    def __enter__(self) -> _Listener:
        self._tcp = socket.create_server(("0.0.0.0", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("0.0.0.0", 0))
        self.tcp, self.udp = self._tcp.getsockname()[1], self._udp.getsockname()[1]
        return self

    def heard(self) -> set[str]:
        found = set()
        self._tcp.settimeout(0.5)
        self._udp.settimeout(0.5)
        try:
            while True:
                with self._tcp.accept()[0] as conn:
                    found.add(conn.recv(100).decode().strip())
        except TimeoutError:
            pass
        try:
            while True:
                found.add(self._udp.recv(100).decode().strip())
        except TimeoutError:
            return found

    def __exit__(self, *_: object) -> None:
        self._tcp.close()
        self._udp.close()


@pytest.fixture
def neighbour(docker_server: DockerServer, client: docker.DockerClient) -> Iterator[str]:
    """The address of a container that is in Docker's default network and listens on 5432."""
    container = client.containers.run(
        docker_server._state()["image"],
        entrypoint=["bash", "-c"],
        command=[
            f"{docker_server._bin}/initdb -D /tmp/d -A trust >/dev/null"
            " && echo host all all all trust >> /tmp/d/pg_hba.conf"
            f" && exec {docker_server._bin}/postgres -D /tmp/d -h '*' -k /tmp"
        ],
        user=docker_server._state()["user"],
        labels={LABEL: docker_server.run_id},
        detach=True,
    )
    try:
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        for _ in range(100):
            try:
                socket.create_connection((address, 5432), timeout=1).close()
                break
            except OSError:
                threading.Event().wait(0.1)
        yield address
    finally:
        container.remove(force=True, v=True)


def _gateway(server: DockerServer) -> str:
    """The host's address in a server's network."""
    with images.daemon() as client:
        network = client.networks.get(f"homolog-{server.run_id}-net")
        return str(network.attrs["IPAM"]["Config"][0]["Gateway"])
