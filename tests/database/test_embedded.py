"""The server made of binaries: what it can do, who it is, and that it survives and disappears."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from merge.errors import ServerError
from sandbox import binaries, choose
from sandbox.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = 2**29
_OWNER = "homolog_test"
_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of its own, not started."""
    server = EmbeddedServer(tmp_path / "run" / "server", memory=_MEMORY)
    yield server
    server.destroy()


def _postmaster(server: EmbeddedServer) -> int:
    return int((server._data / "postmaster.pid").read_text().split("\n")[0])


def _fill(server: EmbeddedServer) -> None:
    server.create_role(_OWNER)
    server.create_database("kept", _OWNER)
    with server.connect("kept", _OWNER) as conn:
        conn.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")


def _count(server: EmbeddedServer) -> object:
    with server.connect("kept", _OWNER) as conn:
        found = conn.execute("SELECT count(*) FROM t").fetchone()
    return found and found[0]


def _uids(pid: int) -> set[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    return set(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:])


def _listening(pid: int) -> set[str]:
    """Local addresses, as the kernel writes them, of a process's listening sockets."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(words[1].split(":")[0])
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[6] in inodes and words[3] == "00010000":
            found.add(words[-1])
    return found


def test_dump_and_restore(fresh: EmbeddedServer) -> None:
    fresh.start()
    _fill(fresh)
    dump = fresh.scratch / "test.backup"
    fresh.tool("pg_dump", "-Fc", "-f", fresh.path(dump), database="kept", role=_OWNER).run()
    with fresh.connect("kept", _OWNER) as conn:
        conn.execute("DROP TABLE t")
    fresh.tool("pg_restore", "-d", "kept", fresh.path(dump), database="kept", role=_OWNER).run()
    assert _count(fresh) == 1000


def test_who_it_is(fresh: EmbeddedServer) -> None:
    """Not root, whoever started it; on 127.0.0.1 and nowhere else; and nobody gets in without a password."""
    fresh.start()
    pid = _postmaster(fresh)
    assert "0" not in _uids(pid)
    assert _listening(pid) == {"0100007F"}
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"{fresh.conninfo('postgres')} passfile=/dev/null password='{wrong}'")
    for private in (fresh.folder, fresh.folder / "passfile", fresh._data):
        assert private.stat().st_mode & 0o077 == 0


def test_no_password_in_any_argument(fresh: EmbeddedServer) -> None:
    """All processes of the machine are looked at while the server is made and a tool runs."""
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        fresh.start()
        _fill(fresh)
        fresh.tool("psql", "-Xc", "SELECT pg_sleep(0.5)", database="kept", role=_OWNER).run()
    finally:
        done.set()
        thread.join()
    passwords = [line.rsplit(":", 1)[1].encode() for line in (fresh.folder / "passfile").read_text().splitlines()]
    assert len(passwords) == 2
    assert any(b"initdb" in argv for argv in seen)
    assert any(b"pg_sleep" in argv for argv in seen)
    assert not [argv for argv in seen for password in passwords if password in argv]
    log = fresh._log.read_text(errors="replace")
    assert not [password for password in passwords if password.decode() in log]
    assert not list(fresh._home.parent.glob("*.password"))


def test_a_killed_server_keeps_what_was_committed(fresh: EmbeddedServer) -> None:
    """To the last instant: a step is marked as done right after its commit."""
    fresh.start()
    _fill(fresh)
    with fresh.connect("kept", _OWNER) as conn:
        conn.execute("INSERT INTO t VALUES (1001)")
        for process in fresh._processes():
            os.kill(process, signal.SIGKILL)
    assert fresh.data_is_sound()
    fresh.start()
    assert _count(fresh) == 1001


def test_only_the_postmaster_killed_amid_a_statement(fresh: EmbeddedServer) -> None:
    fresh.start()
    _fill(fresh)
    with fresh.connect("kept", _OWNER) as conn:
        thread = threading.Thread(target=_run_until_cut, args=(conn,))
        thread.start()
        time.sleep(0.5)
        os.kill(_postmaster(fresh), signal.SIGKILL)
        fresh.start()
        thread.join(30)
        assert not thread.is_alive()
    assert _count(fresh) == 1000


def _run_until_cut(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.OperationalError):
        conn.execute("INSERT INTO t SELECT g FROM generate_series(1, 1000000000) g")


def test_a_second_object_takes_it_up(fresh: EmbeddedServer) -> None:
    fresh.start()
    _fill(fresh)
    pid = _postmaster(fresh)
    second = EmbeddedServer(fresh.folder, memory=_MEMORY)
    second.start()  # does nothing: it runs
    assert _postmaster(second) == pid
    assert _count(second) == 1000
    second.stop()
    second.stop()
    assert fresh.tool("pg_dump", "--version").run().stdout.startswith(b"pg_dump (PostgreSQL) ")
    fresh.start()
    assert _count(second) == 1000


def test_an_initdb_that_was_interrupted_is_made_again(fresh: EmbeddedServer) -> None:
    fresh.start()
    fresh.stop()
    for left in ("making", "data"):  # killed at once after PG_VERSION was written
        shutil.rmtree(fresh._home / left, ignore_errors=True)
    (fresh._home / "making").mkdir()
    (fresh._home / "making" / "PG_VERSION").write_text("16\n")
    fresh.start()
    _fill(fresh)
    assert _count(fresh) == 1000


def test_data_are_void_after_a_restart_of_the_machine(fresh: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fresh.data_is_sound()
    fresh.start()
    assert fresh.data_is_sound()
    monkeypatch.setattr("sandbox.embedded._boot_id", lambda: "another")
    assert not fresh.data_is_sound()
    fresh.stop()  # cleanly
    assert fresh.data_is_sound()


def test_a_killed_server_is_not_taken_for_stopped(fresh: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.start()
    for process in fresh._processes():
        os.kill(process, signal.SIGKILL)
    fresh.stop()
    assert fresh.data_is_sound()
    monkeypatch.setattr("sandbox.embedded._boot_id", lambda: "another")
    assert not fresh.data_is_sound()


def test_destroy_leaves_nothing(fresh: EmbeddedServer) -> None:
    fresh.start()
    pid, home = _postmaster(fresh), fresh._home
    before = set(home.parent.iterdir()) - {home}
    fresh.destroy()
    assert not Path(f"/proc/{pid}/cwd").exists()
    assert not home.exists()
    assert not fresh.folder.exists()
    if home.parent.exists():
        assert set(home.parent.iterdir()) <= before
    fresh.destroy()


@pytest.mark.skipif(not _ROOT, reason="only root has folders closed to the server's user")
def test_below_a_closed_home_of_root() -> None:
    """Neither the folder nor its permissions are touched; the data are where the server's user gets."""
    home = Path(tempfile.mkdtemp(dir=Path.home()))
    outer = Path.home().stat().st_mode
    server = EmbeddedServer(home / "run" / "server", memory=_MEMORY)
    try:
        server.start()
        _fill(server)
        assert _count(server) == 1000
        assert home.stat().st_mode & 0o777 == 0o700
        assert Path.home().stat().st_mode == outer
        assert not server._home.is_relative_to(home)
    finally:
        server.destroy()
        shutil.rmtree(home)
    assert not server._home.exists()


@pytest.mark.skipif(not _ROOT, reason="only root has folders closed to the server's user")
def test_programs_below_a_closed_folder_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    open_folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(open_folder))
    open_folder.chmod(0o711)
    monkeypatch.setenv("HOMOLOG_DATA", str(open_folder))
    user = binaries.unprivileged()
    assert user is not None
    monkeypatch.setattr(binaries, "can_enter", lambda folder, user: folder.is_relative_to(open_folder))
    programs = binaries.of_wheel(16, user)
    assert programs.is_relative_to(open_folder)
    assert binaries.of_wheel(16, user) == programs
    server = EmbeddedServer(tmp_path / "run" / "server", memory=_MEMORY)
    try:
        server.start()
        assert server._home.is_relative_to(open_folder)
    finally:
        server.destroy()


_ACCOUNT = """
import sys
from sandbox import binaries

binaries.USER = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()  # all at once
print(binaries.unprivileged())
"""


@pytest.mark.skipif(not _ROOT or shutil.which("useradd") is None, reason="only root, with useradd, makes accounts")
def test_many_at_once_make_one_account() -> None:
    """As the workers of a test run do on a new machine, or two commands."""
    import pwd

    name = f"homolog-test-{secrets.token_hex(4)}"
    command = (sys.executable, "-c", _ACCOUNT, name)
    try:
        with ExitStack() as stack:
            started = [
                stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                for _ in range(4)
            ]
            for process in started:
                assert process.stdin is not None
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in started:
                process.stdin.write("\n")
                process.stdin.flush()
            told = {process.communicate(timeout=60)[0].strip() for process in started}
        entry = pwd.getpwnam(name)
        assert told == {str((entry.pw_uid, entry.pw_gid))}
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.mark.parametrize(("wanted", "given"), [(None, 16), (9, 16), (15, 16), (16, 16), (17, 18), (18, 18), (19, 18)])
def test_major_of_the_wheel(tmp_path: Path, wanted: int | None, given: int) -> None:
    """The wanted one, or the next: an older one may not read the backup."""
    assert EmbeddedServer(tmp_path / "server", major=wanted).major == given


@pytest.mark.parametrize("major", [9, 12, 15, 17, 19])
def test_a_major_that_was_asked_for_and_is_not_there(tmp_path: Path, major: int) -> None:
    with pytest.raises(ServerError, match=r"9\.6" if major == 9 else str(major)) as caught:
        choose.choose("embedded", major=major, exact=True, folder=tmp_path / "server", run_id="x")
    assert "16 18" in caught.value.what
    assert "--binaries" in (caught.value.next_step or "")
    assert not (tmp_path / "server").exists()
    raised, _ = choose.choose("embedded", major=major, folder=tmp_path / "server", run_id="x")
    assert raised.major in (16, 18)


def test_a_major_that_was_asked_for(tmp_path: Path) -> None:
    for major in (16, 18):
        assert EmbeddedServer(tmp_path / "server", major=major, exact=True).major == major
    assert EmbeddedServer(tmp_path / "server", exact=True).major == 16
    folder = binaries.of_wheel(18, binaries.unprivileged())
    assert EmbeddedServer(tmp_path / "server", binaries=folder, major=18, exact=True).major == 18
    with pytest.raises(ServerError, match=r"16.*18\."):
        EmbeddedServer(tmp_path / "server", binaries=folder, major=16, exact=True)
    assert EmbeddedServer(tmp_path / "server", binaries=folder, major=16).major == 18


def test_folder_without_programs(tmp_path: Path) -> None:
    with pytest.raises(ServerError):
        EmbeddedServer(tmp_path / "server", binaries=tmp_path)


def test_settings_of_a_throwaway_server(fresh: EmbeddedServer) -> None:
    fresh.start()
    with fresh.connect("postgres") as conn:
        found = dict(
            conn.execute(
                "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'wal_level', "
                "'autovacuum', 'password_encryption', 'log_error_verbosity', 'log_min_messages')"
            ).fetchall()
        )
    assert found == {
        "fsync": "off",
        "synchronous_commit": "on",  # a killed server has what was committed
        "wal_level": "minimal",
        "autovacuum": "off",
        "password_encryption": "scram-sha-256",
        "log_error_verbosity": "terse",
        "log_min_messages": "error" if sys.platform == "linux" else "fatal",
    }
