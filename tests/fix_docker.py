"""A real server in Docker, removed at the end; skipped with the reason where Docker or its images are not to be had."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merge.errors import ServerError
from sandbox import images
from sandbox.containers import DockerServer
from sandbox.labelled import leftovers, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeServer = Callable[..., DockerServer]

_MEMORY = 2**30


@pytest.fixture(scope="session")
def make_docker_server() -> Iterator[MakeServer]:
    """Make servers of runs of their own, of which nothing is left at the end."""
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    root = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    runs: list[str] = []

    def make(*inputs: Path) -> DockerServer:
        runs.append(f"test-{secrets.token_hex(4)}")
        server = DockerServer(root / runs[-1], major=15, run_id=runs[-1], inputs=inputs, memory=_MEMORY)
        try:
            server.prepare()
        except ServerError as ex:
            pytest.skip(f"{ex.what} {ex.details}")
        return server

    try:
        yield make
    finally:
        for run in runs:
            remove(leftovers(run))
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def docker_server(make_docker_server: MakeServer) -> DockerServer:
    """A started server of PostgreSQL 15 in Docker."""
    server = make_docker_server()
    server.start()
    return server
