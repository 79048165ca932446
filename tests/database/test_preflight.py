"""The preflight as a user meets it: what it tells, what blocks, what people accept and confirm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge.checks import load as load_checks
from sandbox import preflight
from sandbox.sample import attachments_of, create_schema, fill, make_samples, world
from sandbox.sample.make import DUMP_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

ROOT = Path(__file__).parents[2]
HUMAN = [check for check in load_checks() if check.kind == "human"]

PENDING_REPORT = (
    "UPDATE tb_relatorio_processamento SET dt_processamento = NULL WHERE co_seq_relatorio_processamento = 1"
)
"""The unit still has something to process: warns in a rehearsal, blocks in a final run."""

LOCKED = "UPDATE tb_migracao_trava SET locked = true"
"""A migration that did not end: blocks always."""


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("preflight")
    make_samples(server, made, scale=0.34, sources=1, attachments=True)
    return made


def _spoiled(server: Server, folder: Path, name: str, change: str) -> Path:
    """The source's backup with one change."""
    path = folder / f"{name}.backup"
    if path.exists():
        return path
    installations = world(0.34, 1, 1)
    server.create_database("spoiled", "homolog_admin")
    try:
        with server.connect("spoiled") as conn:
            create_schema(conn)
            fill(conn, installations[1], installations)
            conn.execute("SET session_replication_role = replica")
            conn.execute(change.encode())
        server.tool("pg_dump", *DUMP_OPTIONS, "--file", server.path(path), database="spoiled").run()
    finally:
        server.drop_database("spoiled")
    return path


class Session:
    """Calls invoke with runs of its own; nothing of them is left."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.folder = folder
        self.runs = runs

    def invoke(self, task: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "invoke", task, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "HOMOLOG_RUNS": str(self.runs), "HOMOLOG_LANG": "en"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def on(self, task: str, source: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        central = self.folder / "central.backup"
        return self.invoke(task, "--central", central, "--source", f"ubs={source}", "--server", "embedded", *arguments)

    def answers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the last run's checks answered, by place and id."""
        run = max(self.runs.glob("2*"))
        parts = [json.loads(p.read_text())["answers"] for p in run.glob("checks-*.json")]
        return {(a["where"], a["id"]): a for part in parts for a in part}


@pytest.fixture
def session(folder: Path, tmp_path: Path) -> Iterator[Session]:
    made = Session(folder, tmp_path / "runs")
    yield made
    for run in made.runs.glob("2*"):
        assert made.invoke("destroy", "--run", run.name, "--yes").returncode == 0


def _confirmations(path: Path, *, without: str = "") -> Path:
    path.write_text("".join(f'[{c.id}]\nby = "Fulana de Teste"\n' for c in HUMAN if c.id != without))
    return path


def test_a_clean_sample_is_blocked_by_nothing(session: Session) -> None:
    """All is shown; only what the synthetic data cannot have warns; human confirmations are pending; nothing merged."""
    source = session.folder / "ubs-a.backup"
    attached = [f"--attachments={name}={attachments_of(path)}" for name, path in
                (("central", session.folder / "central.backup"), ("ubs", source))]  # fmt: skip
    done = session.on("preflight", source, *attached, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout)
    states = {(a["where"], a["id"]): a["state"] for a in shown}
    assert "blocked" not in states.values()
    warned = {key for key, state in states.items() if state == "warned"}
    assert warned == {(where, name) for where in ("central", "ubs") for name in ("C-08f", "C-09f")}
    assert {key for key, state in states.items() if state == "pending"} == {("run", c.id) for c in HUMAN}
    (run,) = session.runs.glob("2*")
    assert not (run / "source-1-ledger.json").exists()
    # And the run goes on from there.
    done = session.invoke(
        "homolog", "--resume", run.name, "--json", "--accept", "C-08f", "--reason", "synthetic data are of 2025"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["status"] == "validated"
    assert len(result["preflight"]) > len(shown)  # those of the merged base
    assert {a["state"] for a in result["preflight"] if a["id"] == "C-08f"} == {"accepted"}
    central, ubs = result["attachments"]
    assert (central["name"], ubs["name"]) == ("central", "ubs")
    assert ubs["files"] == sum(ubs["fates"].values()) > ubs["missing"] == 1
    assert result["attachments_proof"]["differences"] == 0


def test_what_blocks_cannot_be_accepted(server: Server, session: Session) -> None:
    source = _spoiled(server, session.folder, "locked", LOCKED)
    done = session.on("homolog", source, "--accept", "E-03a", "--reason", "we know")
    assert done.returncode == 4
    assert "· E-03a · ubs: " in done.stderr
    assert "cannot be accepted" in done.stderr
    assert session.answers()["ubs", "E-03a"]["state"] == "blocked"
    (run,) = session.runs.glob("2*")
    assert json.loads((run / "result.json").read_text())["sources"][0]["dispositions"] is None


def test_what_a_unit_must_stop_warns_in_a_rehearsal_and_can_be_accepted(server: Server, session: Session) -> None:
    source = _spoiled(server, session.folder, "pending", PENDING_REPORT)
    done = session.on("preflight", source)
    assert done.returncode == 0
    assert "\n! B-06a · ubs: There are forms that PEC has not yet processed for its reports. (1)\n" in done.stdout
    assert session.answers()["ubs", "B-06a"]["state"] == "warned"
    done = session.on("homolog", source, "--accept", "B-06a", "--reason", "will be done on Friday", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {(a["where"], a["id"]): a for a in json.loads(done.stdout)["preflight"]}
    assert found["ubs", "B-06a"]["state"] == "accepted"
    assert found["ubs", "B-06a"]["reason"] == "will be done on Friday"


def test_a_final_run_demands_confirmations_before_anything_else(session: Session, tmp_path: Path) -> None:
    """Without a terminal to ask at, the list of what is missing is told in seconds; a wrong file is told too."""
    source = session.folder / "ubs-a.backup"
    done = session.on("homolog", source, "--final")
    assert done.returncode == 4
    for check in HUMAN:
        assert (f"{check.id}:" in done.stderr) == (check.gate == "block")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[Z-1]\nby = "x"\n[C-02]\nby = ""\n')
    done = session.on("homolog", source, "--final", "--confirmations", wrong)
    assert done.returncode == 2
    assert "Z-1" in done.stderr
    assert "C-02" in done.stderr


def test_a_final_run_can_be_promoted_and_blocks_on_what_units_left_open(
    server: Server, session: Session, tmp_path: Path
) -> None:
    given = _confirmations(tmp_path / "confirmed.toml")
    source = _spoiled(server, session.folder, "pending", PENDING_REPORT)
    done = session.on("homolog", source, "--final", "--confirmations", given)
    assert done.returncode == 4
    assert session.answers()["ubs", "B-06a"]["state"] == "blocked"
    done = session.on("homolog", session.folder / "ubs-a.backup", "--final", "--confirmations", given, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["final"]
    assert result["candidate"]["promotable"]
    confirmed = [a for a in result["preflight"] if a["state"] == "confirmed"]
    assert {a["id"] for a in confirmed} == {c.id for c in HUMAN}
    assert all(a["reason"].startswith("Fulana de Teste") for a in confirmed)


def test_the_checks_of_files_have_their_words() -> None:
    """Every check that `file_checks` and `host_checks` answer is declared, in both languages."""
    declared = {check.id for check in preflight.all_checks("pec")}
    source = "".join((ROOT / "sandbox" / f"{name}_checks.py").read_text() for name in ("file", "host"))
    for name in ("A-05", "C-01", "C-05", "C-06", "C-07", "C-08f", "C-09f", "C-11", "C-12"):
        assert name in declared
        assert name == "A-05" or f'"{name}"' in source
    raw = tomllib.loads((ROOT / "sandbox" / "files.checks.toml").read_text())
    assert all(set(entry["title"]) == {"pt", "en"} for entry in raw["check"])
