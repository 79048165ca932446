"""A run's data are removed with a record, but not before its promotion is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge.errors import ConfigError, PromotionRefused
from sandbox import destruction, homolog
from sandbox.promotion import after
from sandbox.runs import Run

if TYPE_CHECKING:
    from tests.fix_promotion import Shop

ROOT = Path(__file__).parents[2]
PROMOTED = {
    "state": "promoted", "promoted_at": "2026-11-28T23:10:00.000+00:00", "kept": "esus_before_x", "address": "10.0.0.5",
}  # fmt: skip
FOLDERS = ("work", "attachments/files", "attachments/rolled-back", "candidate", "safety", "rollback", "promotion")


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    monkeypatch.delenv("HOMOLOG_OPERATOR", raising=False)


def _fill(run: Run) -> None:
    for folder in FOLDERS:
        (run.folder / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        (run.folder / folder / "data").write_bytes(b"x" * 1000)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run without a server, with data and evidence."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    run = Run.create(engine="sql", profile="no list")
    run.unlock()
    run.save("result", {"status": "validated"})
    _fill(run)
    return run


def _record(run: Run) -> dict[str, Any]:
    kept: dict[str, Any] = run.load(destruction.FILE)
    return kept


def _tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def _removed(run: Run) -> dict[str, int | None]:
    return {f"{thing['kind']} {thing['name']}": thing["size"] for thing in _record(run)["removed"]}


@pytest.mark.slow
def test_from_a_promotion_to_the_record(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real server: nothing before the acceptance, everything after it."""
    run = shop.run
    _fill(run)
    run.save("promotion", PROMOTED)
    before = _tree(run.folder)
    server = homolog.server_of(run)
    place = server.place
    for act in (lambda: homolog.destroy(run), lambda: destruction.demand_allowed(run)):
        with pytest.raises(PromotionRefused) as refused:
            act()
        assert refused.value.exit_code == 7
        assert "invoke accept" in str(refused.value.next_step)
    command = [sys.executable, "-m", "invoke", "destroy", run.id, "--yes"]
    env = {**os.environ, "HOMOLOG_RUNS": str(run.folder.parent)}
    assert subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=False).returncode == 7
    assert _tree(run.folder) == before
    assert place.exists()

    after.accept(run, "Bia")
    server.start()  # one that runs tells its databases
    monkeypatch.setenv("HOMOLOG_OPERATOR", "Ana of the town hall")
    path = homolog.destroy(run)
    assert path == run.folder / "destruction.json"
    assert path.stat().st_mode & 0o777 == 0o600
    record, removed = _record(run), _removed(run)
    assert (record["by"], record["attempts"], record["left"]) == ("Ana of the town hall", 1, [])
    assert "@" in record["user"]
    assert record["elsewhere"] == ["esus_before_x (10.0.0.5)"]
    assert (removed["database candidate"] or 0) > 5_000_000
    assert {f"folder {name.split('/')[0]}" for name in (*FOLDERS, "server")} <= removed.keys()
    assert removed["folder attachments"] == 2000
    if not place.is_relative_to(run.folder):
        assert (removed[f"folder {place}"] or 0) > 5_000_000
    assert not place.exists()
    assert not any((run.folder / name).exists() for name in destruction.DATA)
    assert run.load("run")["destroyed"] is True
    # What stays is named, with its hash.
    evidence = {kept["name"]: kept for kept in record["evidence"]}
    assert {"result.json", "plan.json", "ledger.json", "report.html", "events.jsonl", "promotion.json"} <= set(evidence)
    assert set(evidence) == {p for p in _tree(run.folder) if (run.folder / p).is_file()} - {"lock", "destruction.json"}
    for name, kept in evidence.items():
        start = (run.folder / name).read_bytes()[: kept["size"]]
        assert hashlib.sha256(start).hexdigest() == kept["sha256"], name
    last = run.events.read()[-1]
    assert (last["event"], last["record"]) == ("destroyed", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ConfigError, match="were destroyed"):
        homolog.resume(run.id, shop.reporter)


@pytest.mark.parametrize("state", [None, "preparing", "rolled_back"])
def test_what_is_not_in_production_may_go(bare: Run, state: str | None) -> None:
    if state is not None:
        bare.save("promotion", {**PROMOTED, "state": state, "candidate": "esus_new", "rollback": {"kept": "esus_x"}})
    homolog.destroy(bare)
    record = _record(bare)
    name = {"preparing": ["esus_new (10.0.0.5)"], "rolled_back": ["esus_x (10.0.0.5)"]}.get(state or "", [])
    assert record["elsewhere"] == name
    assert record["by"] == record["user"]
    assert (bare.folder / "result.json").exists()
    assert not (bare.folder / "candidate").exists()


def test_an_acceptance_of_another_promotion_does_not_count(bare: Run) -> None:
    bare.save("promotion", PROMOTED)
    after.accept(bare, "Bia")
    bare.save("promotion", {**PROMOTED, "promoted_at": "2027-01-01T00:00:00.000+00:00"})
    with pytest.raises(PromotionRefused):
        homolog.destroy(bare)
    assert (bare.folder / "safety" / "data").exists()


def test_the_list_is_told(bare: Run) -> None:
    """A run of PEC has a list; its item on the sandbox is marked by the destruction itself."""
    bare.note(asked={"engine": "sql", "profile": "pec"})
    bare.save("promotion", PROMOTED)
    with pytest.raises(PromotionRefused) as refused:
        homolog.destroy(bare)
    assert any(line.startswith("H-08") for line in refused.value.details)
    for one in after.open_items(bare):
        after.mark(bare, one.item.id, by="Ana", note="done")
    after.accept(bare, "Bia")
    homolog.destroy(bare)
    assert next(one.state for one in after.standing(bare) if one.item.id == "I-10") == "done"


def test_again(bare: Run) -> None:
    homolog.destroy(bare)
    first = _record(bare)
    _fill(bare)
    (bare.folder / "server").mkdir()
    homolog.destroy(bare)
    second = _record(bare)
    assert second["attempts"] == 2
    assert second["began"] == first["began"]
    names = [thing["name"] for thing in second["removed"]]
    assert sorted(names) == sorted({"server", *(thing["name"] for thing in first["removed"])})
    assert not (bare.folder / "attachments").exists()


_WORK = """
import sys
from pathlib import Path
from sandbox import homolog
from sandbox.runs import Run
run = Run(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
homolog.destroy(run)
"""


@pytest.mark.slow
def test_killed_it_goes_on_with_the_same_list(bare: Run) -> None:
    chance = random.Random(6)
    for n in range(3000):
        (bare.folder / "attachments" / "files" / str(n)).write_bytes(b"x")
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _WORK, str(bare.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.write(b"go\n")
            process.stdin.flush()
            time.sleep(chance.random() * 0.06)
            process.send_signal(signal.SIGKILL)
        if bare.has(destruction.FILE):
            kept = json.loads((bare.folder / "destruction.json").read_text())  # whole, whatever happened
            assert (kept["ended"] is None) or not (bare.folder / "attachments").exists()
    homolog.destroy(bare)
    record = _record(bare)
    assert {f"folder {name.split('/')[0]}" for name in FOLDERS} == set(_removed(bare))
    assert record["ended"] is not None
    assert record["attempts"] > 1
    assert not any((bare.folder / name).exists() for name in destruction.DATA)


def test_what_cannot_be_removed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    monkeypatch.setenv("HOMOLOG_RUNS", str(base))
    nobody = 65534
    try:
        run = Run.create(engine="sql", profile="no list")
        run.unlock()
        _fill(run)
        if os.geteuid() == 0:  # who may remove everything
            for path in (base, *base.rglob("*")):
                os.chown(path, nobody, nobody)
            os.seteuid(nobody)
        try:
            (run.folder / "safety").chmod(0o500)
            with pytest.raises(ConfigError) as told:
                homolog.destroy(run)
            assert told.value.details == ("folder safety",)
            assert (_record(run)["ended"], [thing["name"] for thing in _record(run)["left"]]) == (None, ["safety"])
            assert not run.load("run").get("destroyed")
            (run.folder / "safety").chmod(0o700)
            homolog.destroy(run)
            assert (_record(run)["left"], _record(run)["attempts"]) == ([], 2)
        finally:
            if os.geteuid() == nobody:
                os.seteuid(0)
    finally:
        shutil.rmtree(base)
