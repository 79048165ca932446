"""The backup that this project takes: marks, fingerprint and file are of one instant, or nothing is there."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from psycopg import conninfo

from merge import fingerprint
from merge.errors import BackupError, BlockedError, ConfigError, ServerError
from merge.fingerprint import Fingerprint, differences
from sandbox import homolog, inputs, intake
from sandbox.console import Reporter
from sandbox.promotion import dump as dumping
from sandbox.promotion import marks, snapshot
from sandbox.promotion.marks import compare
from sandbox.promotion.production import Production
from sandbox.promotion.snapshot import Snapshot, restored_differences, sidecar_of, take_snapshot
from sandbox.rehearsal import CENTRAL_FINGERPRINT
from sandbox.runs import Run
from tests.fix_backup import DEBIAN, ROWS, SCHEMA
from tests.fix_production import DATABASE, OWNER, READER, ProductionServer
from tests.fix_promotion import final_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_promotion import Shop

SECRET = "MARIA"


@pytest.fixture(scope="module")
def odd(production: ProductionServer) -> ProductionServer:
    with production.connect(role=OWNER) as conn:
        conn.execute(SCHEMA.encode())
        conn.execute(ROWS.encode())
    return production


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    return tmp_path / "snapshots"


class Listening(Reporter):
    """Does something whenever there is progress, and keeps what is said."""

    def __init__(self, act: Callable[[str], None] = lambda title: None) -> None:
        super().__init__(as_json=True)
        self.warnings: list[str] = []
        self._act = act

    def progress(self, done: int, total: int) -> None:
        self._act(self._title)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_it_is_taken_and_verified(odd: ProductionServer, folder: Path) -> None:
    said = Listening()
    taken = take_snapshot(odd.dsn(), folder, said, verify=True)
    assert {path.name for path in folder.iterdir()} == {taken.path.name, taken.sidecar.name}
    assert taken.path.name.startswith(f"{DATABASE}_20")
    for path in (taken.path, taken.sidecar):
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = taken.sidecar.read_text()
    assert SECRET not in kept
    assert odd.password not in kept
    again = Snapshot.from_dict(json.loads(kept))
    assert again == taken.snapshot
    assert again.verified
    assert (again.size, again.sha256) == (taken.path.stat().st_size, _sha256(taken.path))
    assert again.fingerprint.rows == 241
    assert taken.to_dict()["fingerprint"] == again.fingerprint.digest
    assert said.warnings == []
    with Production(odd.dsn(), folder.parent / "x") as production, production.connect() as conn:
        assert compare(again.marks, marks.take(conn)).state == "unwritten"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_of_it_is_of_one_instant(odd: ProductionServer, folder: Path) -> None:
    """While it is taken PEC goes on to write, in rows, large objects and sequences."""
    with odd.connect(role=OWNER, application_name="PostgreSQL JDBC Driver") as pec:
        written: list[str] = []

        def write(title: str) -> None:
            pec.execute("INSERT INTO no_key VALUES (77, 'later')")
            pec.execute("SELECT lo_create(0)")
            pec.execute("SELECT nextval('seq_of_nobody')")
            written.append(title)

        said = Listening(write)
        taken = take_snapshot(odd.dsn(), folder, said)
    assert len(set(written)) == 2, "it was written during both parts"
    assert "PEC is connected" in said.warnings[0]
    assert (taken.snapshot.pec_sessions, taken.snapshot.other_sessions) == (1, 0)
    assert taken.snapshot.moving == ("public.seq_of_nobody",)
    assert taken.snapshot.fingerprint.rows == 241, "nothing of it is in the snapshot"
    assert restored_differences(taken.path, taken.snapshot) == ()
    with Production(odd.dsn(), folder.parent / "x") as production, production.connect() as conn:
        assert compare(taken.snapshot.marks, marks.take(conn)).state == "written"
    with odd.connect() as conn:
        conn.execute("DELETE FROM no_key WHERE a = 77")
        conn.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid NOT BETWEEN 70001 AND 70004")


def test_a_backup_that_is_not_what_production_was_is_found_out(odd: ProductionServer, folder: Path) -> None:
    taken = take_snapshot(odd.dsn(), folder, Listening())
    tables = dict(taken.snapshot.fingerprint.tables)
    tables["public.parent"] = dataclasses.replace(tables["public.parent"], digest="0" * 32)
    forged = dataclasses.replace(
        taken.snapshot, fingerprint=dataclasses.replace(taken.snapshot.fingerprint, tables=tables)
    )
    assert [line.name for line in restored_differences(taken.path, forged)] == ["public.parent"]
    taken.path.write_bytes(taken.path.read_bytes()[:-2000])
    with pytest.raises(BackupError):
        restored_differences(taken.path, taken.snapshot)


@pytest.mark.parametrize("when", ["Fingerprint", "Back up"])
def test_interrupted_it_leaves_nothing(odd: ProductionServer, folder: Path, when: str) -> None:
    def interrupt(title: str) -> None:
        if title.startswith(when):
            signal.raise_signal(signal.SIGINT)  # as a terminal does

    with pytest.raises(KeyboardInterrupt):
        take_snapshot(odd.dsn(), folder, Listening(interrupt))
    assert list(folder.iterdir()) == []
    _nobody_left(odd)


@pytest.mark.parametrize("when", ["Fingerprint", "Back up"])
def test_a_lost_connection_leaves_nothing(odd: ProductionServer, folder: Path, when: str) -> None:
    def end(title: str) -> None:
        if title.startswith(when):
            with odd.connect("postgres") as conn:
                conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [DATABASE])

    with pytest.raises(ServerError) as caught:
        take_snapshot(odd.dsn(), folder, Listening(end))
    assert odd.password not in f"{caught.value.what}{caught.value.details}"
    assert list(folder.iterdir()) == []
    _nobody_left(odd)


def _nobody_left(server: ProductionServer) -> None:
    deadline = time.monotonic() + 30
    with server.connect("postgres") as conn:
        ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        while (row := conn.execute(ask, [DATABASE]).fetchone()) != (0,):
            assert time.monotonic() < deadline, row
            time.sleep(0.05)


_KILLED = """
import sys, os, signal
from pathlib import Path
from sandbox.console import Reporter
from sandbox.promotion.snapshot import take_snapshot
class Killed(Reporter):
    def progress(self, done, total):
        if self._title.startswith("Back up"):
            os.kill(os.getpid(), int(sys.argv[3]))
            import time; time.sleep(30)
take_snapshot(sys.argv[1], Path(sys.argv[2]), Killed(as_json=True))
"""


def test_killed_its_leftover_goes_next_time(odd: ProductionServer, folder: Path) -> None:
    argv = [sys.executable, "-c", _KILLED, odd.dsn(), str(folder), str(int(signal.SIGKILL))]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".")
    assert left.stat().st_mode & 0o777 == 0o600
    _nobody_left(odd)  # pg_dump goes on for a moment
    time.sleep(0.5)
    os.utime(left, (0, 0))
    taken = take_snapshot(odd.dsn(), folder, Listening())
    assert set(folder.iterdir()) == {taken.path, taken.sidecar}


def test_what_may_not_be_read_is_told_before(odd: ProductionServer, folder: Path) -> None:
    with pytest.raises(BlockedError) as caught:
        take_snapshot(odd.dsn(role=READER), folder, Listening())
    assert "public.parent" in caught.value.details
    assert list(folder.iterdir()) == []


def test_there_is_no_room(odd: ProductionServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumping, "_KEPT_FREE", 1 << 60)
    with pytest.raises(ConfigError, match="no room"):
        take_snapshot(odd.dsn(), folder, Listening())


def test_a_locked_table_is_told(odd: ProductionServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumping, "_LOCK_MILLISECONDS", 300)
    folder.mkdir()
    with (
        odd.connect(role=OWNER) as holder,
        Production(odd.dsn(), folder.parent / "x") as production,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE parent")
        with pytest.raises(ServerError) as caught:
            dumping.dump(production, folder / "x.backup")
    assert caught.value.details == ("A table stayed locked by another session.",)
    assert list(folder.iterdir()) == []


def test_a_name_that_no_file_can_have(odd: ProductionServer, folder: Path) -> None:
    name = 'e-SUS "é/ç" ' + "x" * 40
    with odd.connect("postgres") as conn:
        conn.execute(f"""CREATE DATABASE "{name.replace('"', '""')}" """.encode())
    dsn = conninfo.make_conninfo(odd.dsn(), dbname=name)
    taken = take_snapshot(dsn, folder, Listening())
    assert taken.path.exists()
    assert taken.snapshot.database == name
    assert "/" not in taken.path.name
    assert '"' not in taken.path.name


@pytest.mark.skipif(not DEBIAN.is_dir(), reason=f"no PostgreSQL 15 in {DEBIAN}")
def test_a_version_that_does_not_come_along(folder: Path) -> None:
    """Its tools and its throwaway server are those of the system."""
    server = ProductionServer()
    server.bin = DEBIAN
    try:
        server.make()
        with server.connect(role=OWNER) as conn:
            conn.execute(SCHEMA.encode())
            conn.execute(ROWS.encode())
        taken = take_snapshot(server.dsn(), folder, Listening(), verify=True)
    finally:
        server.destroy()
    assert (taken.snapshot.verified, taken.snapshot.server[:2]) == (True, "15")


# What runs keep


@pytest.fixture(scope="module")
def shop_snapshot(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> snapshot.Taken:
    return take_snapshot(shop.dsn(), tmp_path_factory.mktemp("taken"), Listening())


def test_a_final_run_keeps_what_the_central_holds(shop: Shop, tmp_path: Path) -> None:
    kept = Fingerprint.from_dict(shop.run.load(CENTRAL_FINGERPRINT))
    with Production(shop.dsn(), tmp_path / "x") as production:
        now = fingerprint.take(production.connect)
        assert differences(now, kept, restored=True) == ()
        assert not any(name.startswith("homolog") for name in kept.tables)
        with shop.production.connect() as conn:
            conn.execute("CREATE TABLE since (id integer)")
            try:
                changed = fingerprint.take(production.connect)
            finally:
                conn.execute("DROP TABLE since")
        assert {line.name for line in differences(changed, kept, restored=True) if line.kind == "table"} == {
            "public.since"
        }
    assert not shop.run.has(snapshot.KEPT), "PEC's own backup has no sidecar"


def test_a_final_run_keeps_the_sidecar(shop: Shop, shop_snapshot: snapshot.Taken, tmp_path: Path) -> None:
    run = final_run(shop_snapshot.path, inputs.backups(shop.run)["north"].path)
    try:
        kept = Snapshot.from_dict(run.load(snapshot.KEPT))
        assert kept == shop_snapshot.snapshot
        restored = Fingerprint.from_dict(run.load(CENTRAL_FINGERPRINT))
        assert list(snapshot.expected_differences(kept, restored)) == []
    finally:
        homolog.destroy(run)
    assert run.has(snapshot.KEPT), "what it found out stays"


@pytest.fixture(params=["plain", "gz", "zip", "both.zip"])
def wrapped(request: pytest.FixtureRequest, shop_snapshot: snapshot.Taken, tmp_path: Path) -> Path:
    """The backup as it may be delivered, with its sidecar beside it."""
    name, content = shop_snapshot.path.name, shop_snapshot.path.read_bytes()
    path = tmp_path / (name if request.param == "plain" else f"{name}.{request.param}")
    if request.param == "gz":
        path.write_bytes(gzip.compress(content))
    elif request.param.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(shop_snapshot.path, name)
            if request.param == "both.zip":
                archive.write(shop_snapshot.sidecar, f"folder/{shop_snapshot.sidecar.name}")
                return path
    else:
        path.write_bytes(content)
    (tmp_path / shop_snapshot.sidecar.name).write_bytes(shop_snapshot.sidecar.read_bytes())
    return path


def test_the_sidecar_is_found(wrapped: Path, shop_snapshot: snapshot.Taken, tmp_path: Path) -> None:
    backup = intake.inspect(wrapped, work=tmp_path / "work")
    run, said = Run(tmp_path / "run"), Listening()
    run.folder.mkdir()
    assert snapshot.keep_sidecar(run, backup, said) == shop_snapshot.snapshot
    assert Snapshot.from_dict(run.load(snapshot.KEPT)) == shop_snapshot.snapshot
    (run.folder / "snapshot.json").unlink()
    assert said.warnings == []
    if "both" in wrapped.name:
        return
    sidecar = sidecar_of(tmp_path / shop_snapshot.path.name)
    for broken in (
        sidecar.read_text()[:-5],
        sidecar.read_text().replace(shop_snapshot.snapshot.sha256, "0" * 64),
        "[]",
    ):
        sidecar.write_text(broken)
        said = Listening()
        assert snapshot.keep_sidecar(run, backup, said) is None
        assert (run.has(snapshot.KEPT), len(said.warnings)) == (False, 1)
    sidecar.unlink()
    assert snapshot.keep_sidecar(run, backup, Listening()) is None
