"""The whole rehearsal as a user starts it: results, interruptions, refusals, what is left over."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from sandbox.sample import make_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server import Server

ROOT = Path(__file__).parents[2]
DATA = Path(f"/var/tmp/homolog-test-{os.getpid()}")


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    """Whatever a failed test leaves is stopped and removed."""
    yield
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and any(str(DATA) in a for a in process.info["cmdline"] or ()):
            process.kill()
    shutil.rmtree(DATA, ignore_errors=True)


@pytest.fixture(scope="module")
def samples(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small synthetic backups: a central and one source."""
    return make_samples(server, tmp_path_factory.mktemp("samples"), scale=0.34, sources=1)


def _environment(runs: Path) -> dict[str, str]:
    """Runs, and what root keeps outside of them, at places of this test alone."""
    return {**os.environ, "HOMOLOG_RUNS": str(runs), "HOMOLOG_DATA": str(DATA), "HOMOLOG_LANG": "en"}


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "invoke", "homolog", *map(str, arguments)]


def _invoke(runs: Path, task: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", task, *map(str, arguments)],
        cwd=ROOT,
        env=_environment(runs),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _homolog(runs: Path, samples: list[Path], *arguments: object) -> subprocess.CompletedProcess[str]:
    central, source = samples
    return _invoke(
        runs, "homolog", "--central", central, "--source", f"ubs={source}", "--server", "embedded", *arguments
    )


def _servers(runs: Path) -> set[int]:
    """PostgreSQL servers of these runs."""
    places = [str(runs), *_homes(runs)]
    return {
        p.pid
        for p in psutil.process_iter(["name", "cmdline"])
        if p.info["name"] == "postgres" and any(place in a for a in p.info["cmdline"] or () for place in places)
    }


def _homes(runs: Path) -> list[str]:
    """Where the data of these runs are."""
    return [json.loads(p.read_text())["home"] for p in runs.glob("*/server/server.json")]


def _data() -> set[Path]:
    """What root keeps outside of the runs, but for the programs."""
    return {p for p in DATA.glob("*") if not p.name.startswith((".", "pginstall"))}


def _result(runs: Path) -> dict[str, Any]:
    (path,) = runs.glob("*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _ledger(runs: Path) -> Any:
    (path,) = runs.glob("*/ledger.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def undisturbed(samples: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a rehearsal that nobody disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    done = _homolog(runs, samples, "--json", "--junit", runs.parent / "junit.xml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["status"] == "validated"
    return runs


def test_every_source_row_has_one_disposition(undisturbed: Path) -> None:
    """Table by table the dispositions add up to the rows of the source."""
    (tables,) = _ledger(undisturbed).values()
    assert len(tables) > 1000
    for table in tables:
        assert sum(table["dispositions"].values()) == table["rows"], table["name"]
    source = _result(undisturbed)["sources"][0]
    assert source["rows"] == sum(source["dispositions"].values()) == sum(t["rows"] for t in tables)
    assert source["proof"]["differences"] == 0
    assert source["proof"]["central_unchanged"] is True


def test_what_differs_is_told_by_column(undisturbed: Path) -> None:
    """Exactly the tables with reconciled rows say in which columns they differ, each row in one of them at least."""
    (source,) = _result(undisturbed)["sources"]
    reconciled = {t["name"]: (t["dispositions"]["reconciled"], t["differing"]) for t in source["tables"]}
    assert any(rows for rows, _ in reconciled.values())
    for name, (rows, differing) in reconciled.items():
        assert bool(rows) == bool(differing), name
        assert max(differing.values(), default=0) <= rows <= sum(differing.values()), name


def test_evidence_is_private_and_complete(undisturbed: Path) -> None:
    """The run folder holds the named files, readable by its owner only, and no server runs any more."""
    (run,) = undisturbed.glob("2*")
    for name in ("result.json", "plan.json", "ledger.json", "proof.json", "events.jsonl", "report.html"):
        assert (run / name).stat().st_mode & 0o077 == 0, name
    assert run.stat().st_mode & 0o077 == 0
    assert (undisturbed.parent / "junit.xml").read_bytes().count(b"<testcase") > 5
    assert not _servers(undisturbed)


def test_prove_again_and_destroy(samples: list[Path], tmp_path: Path) -> None:
    """`prove` repeats the proof, finds what was changed since, and `destroy` leaves only the evidence."""
    runs, kept = tmp_path / "runs", _data()
    assert _homolog(runs, samples).returncode == 0
    assert _invoke(runs, "prove").returncode == 0
    dsn = _invoke(runs, "dsn")
    assert dsn.returncode == 0
    with psycopg.connect(dsn.stdout.strip().splitlines()[-1]) as conn:
        conn.execute("UPDATE tb_cidadao SET nu_area = '9' WHERE co_seq_cidadao = 1")
    proof = _invoke(runs, "prove")
    assert proof.returncode == 6
    assert "tb_cidadao" in proof.stderr + proof.stdout
    (run,) = runs.glob("2*")
    assert _invoke(runs, "destroy", "--run", run.name, "--yes").returncode == 0
    assert not _servers(runs)
    assert _data() <= kept
    assert not (run / "server").exists()
    assert (run / "result.json").exists()


def test_killed_process_is_resumed(samples: list[Path], undisturbed: Path, tmp_path: Path) -> None:
    """`kill -9` of the process or of the server at random moments: --resume ends with the same ledger."""
    seed = 20261123
    chance = random.Random(seed)
    runs = tmp_path / "runs"
    central, source = samples
    env = _environment(runs)
    first = _command("--central", central, "--source", f"ubs={source}", "--server", "embedded")
    kills = 0
    for attempt in range(40):
        arguments = first if not list(runs.glob("*/run.json")) else _command("--resume", "")
        if arguments is not first:
            (run,) = runs.glob("2*")
            arguments = _command("--resume", run.name)
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            if kills < 6:
                process.wait(timeout=chance.uniform(2, 9))
            else:
                process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            if attempt % 2:
                for pid in _servers(runs):
                    if psutil.pid_exists(pid):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(chance.uniform(0, 1))
            process.kill()
            kills += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0, errors[-3000:]
    assert kills >= 3, "the rehearsal was too fast to be killed"
    assert _result(runs)["status"] == "validated"
    assert _ledger(runs) == _ledger(undisturbed)
    assert not _servers(runs)


def test_two_processes_on_one_run_are_refused(samples: list[Path], tmp_path: Path) -> None:
    """The second process is told who has the run; another run goes on beside."""
    from sandbox.runs import Run

    os.environ["HOMOLOG_RUNS"] = str(tmp_path / "runs")
    try:
        run = Run.create(central=None)
    finally:
        del os.environ["HOMOLOG_RUNS"]
    try:
        refused = _invoke(tmp_path / "runs", "homolog", "--resume", run.id)
        assert refused.returncode == 2
        assert f"pid {os.getpid()}" in refused.stderr
    finally:
        run.unlock()


def test_a_failed_proof_stays_failed(samples: list[Path], tmp_path: Path) -> None:
    """However often it is resumed or proved, a run whose proof found something is never called validated."""
    runs = tmp_path / "runs"
    assert _homolog(runs, samples, "--keep-running").returncode == 0
    (run,) = runs.glob("2*")
    with _connected(runs) as conn:
        conn.execute("UPDATE tb_cidadao SET nu_area = '9' WHERE co_seq_cidadao = 1")
        conn.execute("DELETE FROM rl_atend_proced WHERE co_seq_atend_proced = (SELECT max(co_seq_atend_proced) FROM"
                     " rl_atend_proced)")  # fmt: skip
    for attempt in (("prove", "--json"), ("homolog", "--resume", run.name, "--json"), ("prove", "--json")):
        done = _invoke(runs, *attempt)
        assert done.returncode == 6, attempt
        said = json.loads(done.stdout)
        assert said == _result(runs)
        assert said["status"] == "different"
        assert said["central_proof"]["differences"] >= 1
        assert said["sources"][0]["proof"]["differences"] >= 1
        assert said["problem"]["evidence"].endswith("support-bundle.zip")
        assert (run / "support-bundle.zip").exists()
    assert _invoke(runs, "destroy", "--run", run.name, "--yes").returncode == 0
    again = _invoke(runs, "homolog", "--resume", run.name)
    assert again.returncode == 2
    assert _result(runs)["status"] == "different"
    assert not _servers(runs)


@contextmanager
def _connected(runs: Path) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to the merged database of the only run."""
    dsn = _invoke(runs, "dsn").stdout.strip().splitlines()[-1]
    with psycopg.connect(dsn) as conn:
        yield conn


def test_a_validated_run_is_not_done_again(undisturbed: Path) -> None:
    """`--resume` of a run that is validated gives its result, and starts nothing."""
    (run,) = undisturbed.glob("2*")
    before = (run / "result.json").read_bytes()
    done = _invoke(undisturbed, "homolog", "--resume", run.name, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(before)
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_ends_a_run_stops_its_server(samples: list[Path], tmp_path: Path, sign: int) -> None:
    """A closed window or a stopped job leaves no server; the user is told how to go on, and can."""
    runs = tmp_path / "runs"
    central, source = samples
    process = subprocess.Popen(
        _command("--central", central, "--source", f"ubs={source}", "--server", "embedded"),
        cwd=ROOT, env=_environment(runs), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _until(lambda: any("central.restore" in p.read_text() for p in runs.glob("*/events.jsonl")))
    time.sleep(0.5)
    refused = _invoke(runs, "stop")
    assert refused.returncode == 2
    assert f"pid {process.pid}" in refused.stderr
    process.send_signal(sign)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    (run,) = runs.glob("2*")
    assert f"invoke homolog --resume {run.name}" in errors
    assert not _servers(runs)
    assert _invoke(runs, "destroy", "--run", run.name, "--yes").returncode == 0


def _until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scale", "0"), "--scale"),
        (("--jobs", "-1"), "--jobs"),
        (("--server", "somewhere"), "--server"),
        (("--profile", "unknown"), "unknown"),
        (("--accept", "Z-99", "--reason", "because"), "Z-99"),
        (("--accept", "B-14"), "B-14"),
        (("--final",), "--central"),
        (("--central", "CENTRAL"), "--source"),
        (("--central", "CENTRAL", "--source", "central=SOURCE"), "central"),
        (("--central", "CENTRAL", "--source", "../x=SOURCE"), "../x"),
        (("--central", "CENTRAL", "--source", "a=SOURCE", "--attachments", "b=."), "b"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    samples: list[Path], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """Exit code 2, JSON and JUnit for those who read them, and no run."""
    runs = tmp_path / "runs"
    words = [w.replace("CENTRAL", str(samples[0])).replace("SOURCE", str(samples[1])) for w in arguments]
    done = _invoke(runs, "homolog", *words, "--json", "--junit", tmp_path / "junit.xml")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["exit_code"]) == ("blocked", 2)
    assert b"<failure" in (tmp_path / "junit.xml").read_bytes()
    assert not runs.exists()


def test_bad_backups_leave_nothing(samples: list[Path], tmp_path: Path) -> None:
    """A truncated backup is refused with exit code 3, and no server or data are left."""
    cut = tmp_path / "cut.backup"
    cut.write_bytes(samples[0].read_bytes()[:-5000])
    runs, kept = tmp_path / "runs", _data()
    done = _homolog(runs, [cut, samples[1]])
    assert done.returncode == 3
    assert not _servers(runs)
    assert _data() <= kept
    (run,) = runs.glob("2*")
    assert not (run / "server").exists()
    assert _result(runs)["status"] == "blocked"


def test_missing_files_and_names(samples: list[Path], tmp_path: Path) -> None:
    """What the command line lacks is said at once, before anything is made."""
    assert _homolog(tmp_path / "runs", [tmp_path / "no", samples[1]]).returncode == 2
    twice = _homolog(tmp_path / "runs", samples, "--source", f"ubs={samples[1]}")
    assert twice.returncode == 2
    assert not (tmp_path / "runs").exists()
