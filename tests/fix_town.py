"""A production server of a town, in a container: TLS, port 5433, md5, an owner who is no superuser."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from merge.errors import ServerError
from sandbox import images, preflight
from sandbox.pec.tls import make_certificate
from sandbox.sample.fill import create_schema, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.sample.overlap import Installation

ROOT = Path(__file__).parents[1]
BIN = "/usr/lib/postgresql/15/bin"
OWNER = "esus_owner"
READER = "esus_leitura"
WORDS = "only for tests of this project"

_START = f"""
set -eu
umask 077
printf %s "$PASSWORD" > /tmp/pw
{BIN}/initdb -D /tmp/data -U postgres -A md5 --pwfile=/tmp/pw -E UTF8 --locale=C > /dev/null
printf %s "$CERT" > /tmp/data/server.crt
printf %s "$KEY" > /tmp/data/server.key
echo 'hostssl all all all md5' > /tmp/data/pg_hba.conf
exec {BIN}/postgres -D /tmp/data -p 5433 -c listen_addresses='*' -c password_encryption=md5 -c ssl=on
"""


class Town:
    """A production server of a town, in a container."""

    def __init__(self, container: DockerContainer, password: str, folder: Path) -> None:
        self.container, self.password, self.folder = container, password, folder
        self.passfile = folder / "pgpass"
        self.passfile.write_text(f"*:*:*:*:{password}\n")
        self.passfile.chmod(0o600)

    def dsn(self, database: str = "esus", role: str = OWNER) -> str:
        """Its address: the certificate is checked."""
        port = self.container.get_exposed_port(5433)
        return (
            f"host=127.0.0.1 port={port} dbname={database} user={role} passfile={self.passfile}"
            f" sslmode=verify-full sslrootcert={self.folder / 'ca.pem'}"
        )

    def connect(self, database: str = "esus", role: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit session."""
        return psycopg.connect(self.dsn(database, role), autocommit=True)

    def make(self, database: str, installation: Installation, installations: tuple[Installation, ...]) -> None:
        """Make and fill a database."""
        with self.connect("postgres") as conn:
            conn.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'")
        with self.connect(database) as conn:
            conn.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
        with self.connect(database, OWNER) as conn:
            create_schema(conn)
        with self.connect(database) as conn:  # with triggers off
            fill(conn, installation, installations)
            for (oid,) in conn.execute("SELECT oid FROM pg_largeobject_metadata").fetchall():
                conn.execute(f"ALTER LARGE OBJECT {oid} OWNER TO {OWNER}")
            conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")


class Operator:
    """Who types the commands of the guide at a machine of the town, with tools of the server's version in a container.

    :ivar runs: where the runs are; `keys` those of the people who sign.
    """

    def __init__(self, town: Town, folder: Path) -> None:
        self.town, self.folder = town, folder
        self.runs, self.keys = folder / "runs", folder / "keys"
        self.env = {
            **os.environ, "HOMOLOG_LANG": "en", "HOMOLOG_RUNS": str(self.runs), "HOMOLOG_KEYS": str(self.keys),
            "HOMOLOG_KEY_PASSPHRASE": WORDS, "PATH": "/usr/bin:/bin",
        }  # fmt: skip

    def invoke(self, *words: str, code: int = 0) -> str:
        """Carry out a command, and return what it prints; it ends with this code and tells no password."""
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-3000:])
        assert self.town.password not in done.stdout + done.stderr
        return done.stdout

    def snapshot(self, database: str) -> Path:
        """Take the backup of a database."""
        asked = ("snapshot", "--production", self.town.dsn(database), "--folder", str(self.folder), "--json")
        return Path(json.loads(self.invoke(*asked))["path"])

    def confirmed(self) -> Path:
        """A file in which people confirm all that a final run asks."""
        asked = [check for check in preflight.all_checks("pec") if check.kind == "human"]
        path = self.folder / "confirmed.toml"
        path.write_text("".join(f'[{check.id}]\nby = "Test"\nnote = "a test"\n' for check in asked))
        return path

    def sign(self, run: str) -> None:
        """Have two people sign a run, for a window that is open."""
        self.invoke("keys", "--name", "Ana Operadora", "--role", "operator")
        self.invoke("keys", "--name", "Rui Aprovador", "--role", "approver")
        window = ("--begin", "2020-01-01T00:00Z", "--end", "2100-01-01T00:00Z")
        self.invoke("sign", "--run", run, "--role", "operator", *window)
        self.invoke("sign", "--run", run, "--role", "approver")
        self.invoke("verify", "--run", run)


@contextmanager
def container15(script: str, **environment: str) -> Iterator[DockerContainer]:
    """A container in which a script starts PostgreSQL 15, its port 5433 published on 127.0.0.1; removed at the end.

    Skips where there is no Docker, or no image to be had.
    """
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    try:
        image = images.postgres(15)
    except ServerError as ex:
        pytest.skip(f"{ex.what} {ex.details}")
    testcontainers_config.ryuk_disabled = True  # its image cannot be had everywhere; the container is removed here
    container = DockerContainer(image).with_command(["bash", "-c", script]).with_envs(**environment)
    container.ports["5433/tcp"] = ("127.0.0.1", None)  # with_bind_ports() publishes on all addresses
    with container:
        yield container


def until(attempt: Callable[[], None], seconds: float = 60) -> None:
    """Try again until a server that starts answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (psycopg.OperationalError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A running server, reachable on 127.0.0.1 only, removed at the end."""
    folder = tmp_path_factory.mktemp("town")
    made = make_certificate(["localhost"], ["127.0.0.1"])
    (folder / "ca.pem").write_bytes(made.ca)
    password = secrets.token_hex(8)
    with container15(_START, PASSWORD=password, CERT=made.cert.decode(), KEY=made.key.decode()) as container:
        town = Town(container, password, folder)
        until(lambda: town.connect("postgres").close())
        with town.connect("postgres") as conn:
            conn.execute(f"CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{password}'")
            conn.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{password}'")
            conn.execute(f"GRANT pg_signal_backend TO {OWNER}")
        yield town


@pytest.fixture
def operator(town: Town, tmp_path: Path) -> Operator:
    """Somebody at a machine of the town."""
    return Operator(town, tmp_path)
