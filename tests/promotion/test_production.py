"""Production is reached as its operator reaches it, and no password is seen on the way."""

from __future__ import annotations

import os
import pty
import sys
import time
from typing import TYPE_CHECKING

import pytest
from psycopg import conninfo, sql

from merge.errors import ConfigError
from sandbox.pec.tls import Certificate, make_certificate
from sandbox.promotion.production import Production
from tests.fix_backup import DEBIAN
from tests.fix_production import DATABASE, OWNER, ProductionServer, production_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ODD = r"pa:ss\wo'rd \\ é : $HOME"
"""A password with everything that passfiles, connection strings and shells take for something else."""


def test_it_is_reached(production: ProductionServer, tmp_path: Path) -> None:
    """As superuser and as the owner; the passfile that tools need is private, and goes at the end."""
    for role in ("postgres", OWNER):
        with Production(production.dsn(role=role), tmp_path) as found:
            assert (found.database, found.role, found.major) == (DATABASE, role, 16)
            assert found.is_superuser == (role != OWNER)
            assert production.password not in found.conninfo()
            (passfile,) = tmp_path.iterdir()
            assert passfile.stat().st_mode & 0o777 == 0o600
            dump = found.tool("pg_dump", "-Fc", "--schema-only").run().stdout
            assert dump.startswith(b"PGDMP")
            with found.connect_outside() as conn:
                assert conn.info.dbname == "postgres"
        assert not passfile.exists()


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:secret@127.0.0.1/esus",
        "postgresql://u@127.0.0.1/esus?password=secret",
        "postgresql://u:%73ecret@127.0.0.1/esus",
        "host=127.0.0.1 password=secret dbname=esus",
        "host=127.0.0.1 sslpassword=secret dbname=esus",
        "host=127.0.0.1 dbname=esus password='secret",
    ],
)
def test_a_password_in_the_address_is_refused(dsn: str, tmp_path: Path) -> None:
    """And it is not repeated in the error."""
    with pytest.raises(ConfigError) as refused:
        Production(dsn, tmp_path)
    assert "secret" not in f"{refused.value.what}{refused.value.details}{refused.value.next_step}"
    assert refused.value.exit_code == 2


def test_the_database_is_named(production: ProductionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = conninfo.make_conninfo(production.dsn(), dbname="")
    monkeypatch.delenv("PGDATABASE", raising=False)
    with pytest.raises(ConfigError):
        Production(dsn, tmp_path)


def _bare(production: ProductionServer, **changes: str) -> str:
    """Its address without a passfile."""
    parameters = {k: v for k, v in conninfo.conninfo_to_dict(production.dsn()).items() if k != "passfile"}
    return conninfo.make_conninfo("", **{**parameters, **changes})


@pytest.fixture
def no_passfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    return monkeypatch


def _used(found: Production, secret: str) -> None:
    """Sessions and tools work by what is kept of the first connection, and the secret is nowhere to be seen."""
    with found.connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    command = found.tool("pg_dump", "-Fc", "--schema-only")
    assert secret not in str(vars(command) if hasattr(command, "__dict__") else command)
    assert secret not in found.conninfo() + found.shown
    assert command.run().stdout.startswith(b"PGDMP")


def test_a_password_of_the_environment(
    production: ProductionServer, tmp_path: Path, no_passfile: pytest.MonkeyPatch
) -> None:
    with production.connect("postgres") as conn:
        conn.execute("CREATE ROLE oddly LOGIN")
        conn.execute(sql.SQL("ALTER ROLE oddly PASSWORD {}").format(sql.Literal(ODD)))
    no_passfile.setenv("PGPASSWORD", ODD)
    with Production(_bare(production, user="oddly"), tmp_path / "x") as found:
        no_passfile.delenv("PGPASSWORD")
        _used(found, ODD)
    assert list((tmp_path / "x").iterdir()) == []


def test_a_service_file(production: ProductionServer, tmp_path: Path, no_passfile: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services.conf"
    services.write_text(
        f"[muni]\nhost=127.0.0.1\nport={production.port}\ndbname={DATABASE}\nuser=postgres\n"
        f"password={production.password}\n"
    )
    no_passfile.setenv("PGSERVICEFILE", str(services))
    no_passfile.setenv("PGPASSWORD", "that of some other server")
    with Production("service=muni", tmp_path / "x") as found:
        no_passfile.delenv("PGSERVICEFILE")
        services.unlink()
        assert (found.database, found.port) == (DATABASE, production.port)
        _used(found, production.password)


def test_two_at_once_from_one_folder(production: ProductionServer, tmp_path: Path) -> None:
    with Production(production.dsn(), tmp_path) as found:
        Production(production.dsn(role=OWNER), tmp_path).close()
        _used(found, production.password)
    assert list(tmp_path.iterdir()) == []


def test_several_hosts(production: ProductionServer, tmp_path: Path) -> None:
    dsn = conninfo.make_conninfo(production.dsn(), host="127.0.0.1,localhost", port=f"1,{production.port}")
    with Production(dsn, tmp_path) as found:
        assert (found.host, found.port) == ("localhost", production.port)
        _used(found, production.password)


def test_a_wrong_password(production: ProductionServer, tmp_path: Path, no_passfile: pytest.MonkeyPatch) -> None:
    no_passfile.setenv("PGPASSWORD", "another-secret")
    with pytest.raises(ConfigError) as refused:
        Production(_bare(production), tmp_path / "x")
    assert "another-secret" not in f"{refused.value.what}{refused.value.details}{refused.value.next_step}"


_ASKING = """
import sys
from pathlib import Path
from sandbox.promotion.production import Production
with Production(sys.argv[1], Path(sys.argv[2])) as found:
    assert found.tool("pg_dump", "-Fc", "--schema-only").run().stdout.startswith(b"PGDMP")
    found.connect().close()
    print("reached", found.role)
"""


def test_a_password_that_is_typed(
    production: ProductionServer, tmp_path: Path, no_passfile: pytest.MonkeyPatch
) -> None:
    """On a terminal it is asked for, and not shown."""
    no_passfile.delenv("PGPASSWORD", raising=False)
    no_passfile.setenv("HOMOLOG_LANG", "en")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", _ASKING, _bare(production), str(tmp_path / "x")])
    said, typed, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            said += os.read(terminal, 1024)
        except OSError:  # its other end is closed
            break
        if b"Password of postgres:" in said and not typed:
            time.sleep(0.2)
            os.write(terminal, production.password.encode() + b"\n")
            typed = True
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    os.close(terminal)
    assert b"reached postgres" in said
    assert production.password.encode() not in said
    assert list((tmp_path / "x").iterdir()) == []


def test_without_a_terminal_nobody_is_asked(
    production: ProductionServer, tmp_path: Path, no_passfile: pytest.MonkeyPatch
) -> None:
    no_passfile.delenv("PGPASSWORD", raising=False)
    with pytest.raises(ConfigError) as refused:
        Production(_bare(production), tmp_path / "x")
    assert "password" in str(refused.value.details)


def test_settings_of_others_do_not_reach_sessions_of_ours(
    production: ProductionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those of the database and the role, nor the caller's variables."""
    production.make_database("hostile")
    with production.connect("hostile") as conn:
        conn.execute("CREATE SCHEMA evil")
        trap = "LANGUAGE plpgsql AS $f$ BEGIN RAISE 'called'; END $f$"
        for function in ("unnest(text[], text[])", "pg_is_in_recovery()", "set_config(text, text, bool)"):
            conn.execute(f"CREATE FUNCTION evil.{function} RETURNS text {trap}".encode())
        conn.execute(f"CREATE FUNCTION evil.same(name, name) RETURNS bool {trap}".encode())
        conn.execute("CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, PROCEDURE = evil.same)")
        for setting in (
            "default_transaction_read_only = on", "statement_timeout = '1ms'", "search_path = evil, pg_catalog",
            "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'", "idle_session_timeout = '500ms'",
        ):  # fmt: skip
            conn.execute(f"ALTER DATABASE hostile SET {setting}".encode())
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=1 -c work_mem=1MB")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGAPPNAME", "someone")
    with Production(production.dsn("hostile"), tmp_path) as found, found.connect() as conn:
        time.sleep(0.6)
        conn.execute("CREATE TABLE public.t (v text)")
        conn.execute("INSERT INTO public.t SELECT 'é' FROM pg_sleep(0.1)")
        for name, value in (
            ("search_path", "pg_catalog, pg_temp"), ("statement_timeout", "0"), ("transaction_read_only", "off"),
            ("application_name", "homolog"),
        ):  # fmt: skip
            assert conn.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
        dump = found.tool("pg_dump", "-Fp", "--data-only").run().stdout
        assert "\né\n".encode() in dump, "in the database's own encoding"


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[ProductionServer, Certificate]]:
    """A server that lets nobody in without TLS, with a certificate of an authority of its own."""
    if not DEBIAN.is_dir():
        pytest.skip(f"PostgreSQL as it comes along has no TLS, and there is none in {DEBIAN}")
    made = make_certificate(["pec.municipio"])
    server = ProductionServer()
    server.bin = DEBIAN
    try:
        server.make()
        data = server.folder / "data"
        with server.connect("postgres") as conn:
            for name, content in (("server.crt", made.cert), ("server.key", made.key)):
                (data / name).write_bytes(content)
                if server.user:
                    os.chown(data / name, *server.user)
                (data / name).chmod(0o600)
            conn.execute("ALTER SYSTEM SET ssl = on")
            (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
            conn.execute("SELECT pg_reload_conf()")
        yield server, made
    finally:
        server.destroy()


def test_tls(secured: tuple[ProductionServer, Certificate], tmp_path: Path) -> None:
    """The server's certificate is checked, by sessions and by tools."""
    server, made = secured
    (tmp_path / "ca.pem").write_bytes(made.ca)
    (tmp_path / "other.pem").write_bytes(make_certificate(["pec.municipio"]).ca)
    named = {"host": "pec.municipio", "hostaddr": "127.0.0.1", "sslmode": "verify-full"}
    good = conninfo.make_conninfo(server.dsn(), **named, sslrootcert=str(tmp_path / "ca.pem"))
    with Production(good, tmp_path / "x") as found:
        _used(found, server.password)
        with found.connect() as conn:
            row = conn.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
            assert row == (True,)
        command = found.tool("pg_dump", "-Fc", "--schema-only")
        env = getattr(command, "env")  # noqa: B009
        assert (env["PGSSLMODE"], env["PGHOST"], env["PGHOSTADDR"]) == ("verify-full", "pec.municipio", "127.0.0.1")
        assert env["PGSSLROOTCERT"] == str(tmp_path / "ca.pem")
    for changes in (
        {"sslrootcert": str(tmp_path / "other.pem")},
        {"host": "elsewhere.municipio"},
        {"sslmode": "disable"},
        {"sslrootcert": str(tmp_path / "none.pem")},
    ):
        with pytest.raises(ConfigError) as refused:
            Production(conninfo.make_conninfo(good, **changes), tmp_path / "x")
        assert refused.value.details


def test_a_standby_is_refused(tmp_path: Path) -> None:
    for server in production_server():
        server.stop()
        signal_file = server.folder / "data" / "standby.signal"
        signal_file.touch()
        if server.user:
            os.chown(signal_file, *server.user)
        server.start()
        with pytest.raises(ConfigError) as refused:
            Production(server.dsn(), tmp_path / "x")
        assert (
            "primário" in str(refused.value.next_step)
            or "primary" in str(refused.value.next_step)
            or ("principal" in str(refused.value.next_step))
        )
        assert list((tmp_path / "x").iterdir()) == []
