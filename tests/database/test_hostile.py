"""A hostile backup is restored, or refused with a clear error, and nothing outside of its database is another."""

from __future__ import annotations

import hashlib
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from merge import catalog, profile
from merge.errors import BackupError, HomologationError
from sandbox import restore, room
from sandbox.console import Reporter
from sandbox.intake import inspect
from sandbox.preflight import Decisions, Preflight, all_checks
from sandbox.rehearsal import DATABASE, Rehearsal, Source
from sandbox.restore import restore_central
from sandbox.runs import Run
from sandbox.source import load_source, owner_of, restore_schema
from tests.hostile import BASE, FILES, HONEY, HOOKS, STUBS, Maker, Traps
from tests.witness import Listener, Witness, make_witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

SECONDS = 60
"""No hostile file may take longer than this to be refused."""


@pytest.fixture(scope="module")
def witness(server: Server) -> Iterator[Witness]:
    folder = Path(tempfile.mkdtemp(prefix="homolog-traps-"))
    folder.chmod(0o777)  # noqa: S103 - whoever the server runs as may write there
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


def outcome(work: Any, *args: Any) -> str:
    """What becomes of a file: an error must be one that a user can read, with its evidence."""
    started = time.monotonic()
    try:
        work(*args)
    except HomologationError as ex:
        assert ex.exit_code in (3, 4), ex
        assert isinstance(ex, BackupError) or ex.details, ex
        assert ex.evidence
        assert HONEY not in " ".join([ex.what, *ex.details])
        return "refused"
    finally:
        assert time.monotonic() - started < SECONDS
    return "restored"


@pytest.mark.parametrize("name", FILES)
def test_central(server: Server, witness: Witness, maker: Maker, name: str) -> None:
    path = FILES[name].make(maker)
    try:
        with witness.watched():
            became = outcome(as_central, server, path, maker.folder / "work")
            if became == "restored":
                assert not witness.tells_honey("restored")
            else:
                assert not server.has_database("restored")
        assert became == FILES[name].central or FILES[name].central == "either"
    finally:
        clean(server)


@pytest.mark.parametrize("name", FILES)
def test_source(server: Server, witness: Witness, target: str, maker: Maker, name: str) -> None:
    path = FILES[name].make(maker)
    try:
        with witness.watched(target):
            became = outcome(as_source, server, path, maker.folder / "work")
            assert not witness.tells_honey(target)
            empty(server, target)
        assert became == FILES[name].source or FILES[name].source == "either"
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


WITHOUT = ("check", "table check")
"""Hooks that a rehearsal refuses: what a CHECK says cannot be asked of rows that are not in the table."""


@pytest.mark.parametrize("name", [*HOOKS, "everything"])
def test_rehearsal(witness: Witness, maker: Maker, rehearsal: Rehearsal, name: str) -> None:
    """No query of the baseline, of the checks, of the merge and of the proofs runs the central's code as superuser."""
    change = HOOKS.get(name) or ";".join(HOOKS.values())
    with witness.watched():
        became = outcome(rehearse, rehearsal, maker.dump(change))
        assert not witness.tells_honey(DATABASE)
    print(name, became)
