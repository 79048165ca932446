"""Real servers for tests, stopped and removed at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

_MEMORY = 2**30
_OWNER = "homolog_test"


def _embedded(major: int) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    server = EmbeddedServer(folder / "server", major=major, memory=_MEMORY)
    try:
        server.start()
        server.create_role(_OWNER)
        yield server
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A started server of PostgreSQL 16."""
    yield from _embedded(16)


@pytest.fixture(scope="session")
def server18() -> Iterator[Server]:
    """A started server of PostgreSQL 18."""
    yield from _embedded(18)


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh empty database, owned by a role that is not superuser."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    server.create_database(name, _OWNER)
    yield name
    server.drop_database(name)
