"""Both providers give the same result on the same backups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import make_samples

if TYPE_CHECKING:
    from sandbox.server import Server

ROOT = Path(__file__).parents[2]
LANGUAGE = {"HOMOLOG_LANG": "en"}

pytestmark = pytest.mark.docker


def _rehearse(runs: Path, backups: list[Path], provider: str) -> tuple[dict[str, Any], Any]:
    """The result and the ledger of a rehearsal with one provider; nothing of it is left."""
    central, source = backups
    env = {**os.environ, **LANGUAGE, "HOMOLOG_RUNS": str(runs)}
    command = [sys.executable, "-m", "invoke"]
    done = subprocess.run(
        [*command, "homolog", "--central", str(central), "--source", f"ubs={source}", "--server", provider],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    try:
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        (run,) = runs.glob("2*")
        return json.loads((run / "result.json").read_text()), json.loads((run / "ledger.json").read_text())
    finally:
        for run in runs.glob("2*"):
            subprocess.run([*command, "destroy", run.name, "--yes"], cwd=ROOT, env=env, check=True, capture_output=True)


def test_both_providers_agree(docker_server: Server, tmp_path: Path) -> None:
    """Same ledger, same numbers compared, no difference, on backups of a version that both can restore."""
    backups = make_samples(docker_server, docker_server.scratch, scale=0.34, sources=1)
    docker, docker_ledger = _rehearse(tmp_path / "docker", backups, "docker")
    embedded, embedded_ledger = _rehearse(tmp_path / "embedded", backups, "embedded")
    assert docker["server"]["provider"] == "docker"
    assert embedded["server"]["provider"] == "embedded"
    assert docker_ledger == embedded_ledger
    assert [s["dispositions"] for s in docker["sources"]] == [s["dispositions"] for s in embedded["sources"]]
    assert [s["proof"] for s in docker["sources"]] == [s["proof"] for s in embedded["sources"]]
    assert docker["central_proof"] == embedded["central_proof"]
