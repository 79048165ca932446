"""The whole way to a production server in a container: TLS, port 5433, md5, an owner who is no superuser."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from merge import fingerprint
from merge.errors import ServerError
from sandbox import images, preflight
from sandbox.pec.tls import make_certificate
from sandbox.sample.fill import create_schema, fill
from sandbox.sample.overlap import world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.sample.overlap import Installation

ROOT = Path(__file__).parents[2]
BIN = "/usr/lib/postgresql/15/bin"
OWNER = "esus_owner"
READER = "esus_leitura"
WORDS = "only for tests of this project"

pytestmark = pytest.mark.docker

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


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A running server, reachable on 127.0.0.1 only, removed at the end."""
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    try:
        image = images.postgres(15)
    except ServerError as ex:
        pytest.skip(f"{ex.what} {ex.details}")
    folder = tmp_path_factory.mktemp("town")
    made = make_certificate(["localhost"], ["127.0.0.1"])
    (folder / "ca.pem").write_bytes(made.ca)
    testcontainers_config.ryuk_disabled = True  # its image cannot be had everywhere; the fixture removes the container
    password = secrets.token_hex(8)
    container = DockerContainer(image).with_command(["bash", "-c", _START]).with_env("PASSWORD", password)
    container.with_env("CERT", made.cert.decode()).with_env("KEY", made.key.decode())
    container.ports["5433/tcp"] = ("127.0.0.1", None)  # with_bind_ports() publishes on all addresses
    with container:
        town = Town(container, password, folder)
        deadline = time.monotonic() + 60
        while True:
            try:
                town.connect("postgres").close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        with town.connect("postgres") as conn:
            conn.execute(f"CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{password}'")
            conn.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{password}'")
            conn.execute(f"GRANT pg_signal_backend TO {OWNER}")
        yield town


@pytest.mark.slow
def test_a_town_goes_to_production_and_back(town: Town, tmp_path: Path) -> None:
    """By the commands of the guide, as the owner, with tools of the server's own version from a container."""
    installations = world(0.34, seed=5, sources=1)
    for database, installation in zip(("esus", "norte"), installations, strict=True):
        town.make(database, installation, installations)
    env = {
        **os.environ, "HOMOLOG_LANG": "en", "HOMOLOG_RUNS": str(tmp_path / "runs"),
        "HOMOLOG_KEYS": str(tmp_path / "keys"), "HOMOLOG_KEY_PASSPHRASE": WORDS, "PATH": "/usr/bin:/bin",
    }  # fmt: skip

    def invoke(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-3000:])
        assert town.password not in done.stdout + done.stderr
        return done.stdout

    def content() -> fingerprint.Fingerprint:
        return fingerprint.take(town.connect)

    before = content()
    backups = [json.loads(invoke("snapshot", "--production", town.dsn(database), "--folder", str(tmp_path), "--json"))
               for database in ("esus", "norte")]  # fmt: skip
    central, north = (backup["path"] for backup in backups)
    confirmed = tmp_path / "confirmed.toml"
    confirmed.write_text(confirmations())
    result = json.loads(
        invoke("homolog", "--central", central, "--source", f"norte={north}", "--server", "docker", "--final",
               "--confirmations", str(confirmed), "--json")
    )  # fmt: skip
    run = result["run_id"]
    try:
        assert result["candidate"]["promotable"]
        invoke("keys", "--name", "Ana Operadora", "--role", "operator")
        invoke("keys", "--name", "Rui Aprovador", "--role", "approver")
        invoke("sign", "--run", run, "--role", "operator", "--begin", "2020-01-01T00:00Z", "--end", "2100-01-01T00:00Z")
        invoke("sign", "--run", run, "--role", "approver")
        invoke("verify", "--run", run)
        to = ("--run", run, "--production", town.dsn(), "--confirm", "esus", "--disk-free", "50", "--json")
        journal = json.loads(invoke("promote", *to))
        assert journal["login_wait"] < 2
        assert content().rows > before.rows
        with town.connect("esus", READER) as conn:
            assert conn.execute("SELECT count(*) FROM tb_cidadao").fetchone() is not None
        back = json.loads(invoke("rollback", *to[:6], "--json"))
        assert back["rollback"]["written"] == {}
        assert fingerprint.differences(before, content()) == ()
    finally:
        invoke("destroy", run, "--yes")


def confirmations() -> str:
    """What people confirm in a final run, all of it."""
    asked = [check for check in preflight.all_checks("pec") if check.kind == "human"]
    return "".join(f'[{check.id}]\nby = "Test"\nnote = "a test"\n' for check in asked)
