"""A backup of a server that is not ours: as PEC runs it, in a container of its own, with its own roles and settings."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from sandbox.sample.fill import create_schema, fill
from sandbox.sample.make import DUMP_OPTIONS
from sandbox.sample.overlap import world
from tests.fix_town import BIN, container15, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testcontainers.core.container import DockerContainer

    from sandbox.sample.overlap import Installation

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.docker

_START = f"""
set -eu
umask 077
printf %s "$PASSWORD" > /tmp/pw
{BIN}/initdb -D /tmp/data -U postgres -A md5 --pwfile=/tmp/pw -E UTF8 --locale=C > /dev/null
echo 'host all all all md5' >> /tmp/data/pg_hba.conf
exec {BIN}/postgres -D /tmp/data -p 5433 -c listen_addresses='*' -c password_encryption=md5 -c fsync=off
"""


class Installation15:
    """A PostgreSQL 15 as a municipality has it: port 5433, md5, database `esus`, whose owner is not superuser."""

    def __init__(self, container: DockerContainer, password: str) -> None:
        self.container = container
        self.password = password

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """As its superuser, who is `postgres`."""
        port = self.container.get_exposed_port(5433)
        return psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", password=self.password, dbname=database, autocommit=True
        )

    def make(self, installation: Installation, installations: tuple[Installation, ...]) -> None:
        """Make and fill the database `esus` anew."""
        with self.connect("postgres") as conn:
            conn.execute("DROP DATABASE IF EXISTS esus")
            conn.execute("CREATE DATABASE esus OWNER esus_owner TEMPLATE template0 ENCODING 'UTF8'")
        with self.connect("esus") as conn:
            create_schema(conn)
            fill(conn, installation, installations)
            conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO esus_leitura")

    def dump(self, path: Path) -> Path:
        """A backup, made inside the container by its own pg_dump, as PEC's tool makes it."""
        command = [f"{BIN}/pg_dump", "-p", "5433", "-h", "127.0.0.1", "-U", "postgres", *DUMP_OPTIONS, "esus"]
        wrapped = self.container.get_wrapped_container()
        code, (said, errors) = wrapped.exec_run(command, environment={"PGPASSWORD": self.password}, demux=True)
        assert code == 0, errors
        path.write_bytes(said)
        return path


@pytest.fixture(scope="module")
def foreign() -> Iterator[Installation15]:
    """A running server, reachable on 127.0.0.1 only, removed at the end."""
    password = secrets.token_hex(8)
    with container15(_START, PASSWORD=password) as container:
        server = Installation15(container, password)
        until(lambda: server.connect("postgres").close())
        with server.connect("postgres") as conn:
            conn.execute("CREATE ROLE esus_owner LOGIN; CREATE ROLE esus_leitura LOGIN")
        yield server


def test_backups_of_a_foreign_server_are_rehearsed(foreign: Installation15, tmp_path: Path) -> None:
    """Central and source come from a server with other roles, grants and settings; no role of it is needed here."""
    installations = world(0.34, seed=5, sources=1)
    backups = []
    for installation in installations:
        foreign.make(installation, installations)
        backups.append(foreign.dump(tmp_path / f"{installation.name}.backup"))
    env = {**os.environ, "HOMOLOG_LANG": "en", "HOMOLOG_RUNS": str(tmp_path / "runs")}
    invoke = [sys.executable, "-m", "invoke"]
    central, source = map(str, backups)
    done = subprocess.run(
        [*invoke, "homolog", "--central", central, "--source", source, "--server", "embedded", "--json"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout)
        assert result["status"] == "validated"
        assert {i["dumped_from"].split()[0].split(".")[0] for i in result["inputs"]} == {"15"}
        assert not result["candidate"]["promotable"]
    finally:
        for run in (tmp_path / "runs").glob("2*"):
            subprocess.run([*invoke, "destroy", run.name, "--yes"], cwd=ROOT, env=env, check=True, capture_output=True)
