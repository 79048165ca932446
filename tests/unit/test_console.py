"""What the user sees: plain lines without a terminal, bars with one, one JSON document and nothing else on request."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from merge.errors import BackupError, CoverageError
from sandbox import console
from sandbox.console import Reporter
from sandbox.runs import Run
from tests.builders import build_blocked, build_different, build_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.result import RunResult

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("build", [build_result, build_different, build_blocked])
@pytest.mark.parametrize("language", ["pt", "en"])
def test_json_is_all_that_is_on_standard_output(
    build: Callable[[], RunResult],
    language: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", language)
    reporter = Reporter(as_json=True)
    with reporter.step("restoring"):
        reporter.progress(1, 2)
    reporter.note("note")
    reporter.warn("careful")
    reporter.summary(build(), "/r/report.html", "/r")
    out, err = capsys.readouterr()
    assert out.isascii()
    assert json.loads(out) == json.loads(json.dumps(build().to_dict()))
    for said in ("restoring", "note", "careful", "/r/report.html", "/r/result.json"):
        assert said in err


def test_the_summary_tells_rows_verdict_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().summary(build_result(), "/r/report.html", "/r")
    out = capsys.readouterr().out
    for said in (
        "ubs-sul",
        "147.626",
        "65.400",
        "81.291",
        "validated",
        "295.252",
        "→ Leia",
        "ensaio",
        "/r/result.json",
    ):
        assert said in out
    assert "agrupadas" not in out  # no row is


def test_the_summary_of_a_problem_does_not_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = build_different()
    Reporter().summary(result, "/r/report.html", "/r")
    out = capsys.readouterr().out
    assert "different" in out
    assert result.problem is not None
    assert result.problem.what not in out


def test_markup_in_names_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    with reporter.step("Restoring [red]ubs[/]"):
        pass
    reporter.note("[bold]x")
    console.show_error(BackupError("[x] is no backup"))
    out, err = capsys.readouterr()
    assert "✓ Restoring [red]ubs[/] (0" in out
    assert "[bold]x" in out
    assert "[x] is no backup" in err


def test_a_step_that_fails_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackupError), Reporter().step("Restoring"):
        raise BackupError("no")
    assert capsys.readouterr().out.startswith("✗ Restoring")


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reporter = Reporter()
    with reporter.step("Merging"):
        for done in range(1, 41):
            now += 0.5
            reporter.progress(done, 40)
        reporter.progress(0, 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == "  Merging: 27 %; faltam 14 s"
    assert lines[-1] == "✓ Merging (20 s)"


def test_on_a_terminal_there_is_a_bar() -> None:
    reporter = Reporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with reporter.step("Merging [x]"):
        reporter.progress(1, 4)
        time.sleep(0.2)
    shown = reporter.console.file.getvalue()  # type: ignore[attr-defined]
    assert "25 %" in shown
    assert "Merging [x]" in shown


def test_details_are_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(
        CoverageError("25 tables", evidence="/r/x.json", next_step="Declare.", details=[f"t{n}" for n in range(25)])
    )
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "✗ 25 tables"
    assert lines[20:] == ["  · t19", "  … e mais 5", "  Evidência: /r/x.json", "→ Declare."]


def test_status_lists_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path))
    run = Run.create()
    with run.step("central.restore"):
        pass
    Reporter().status(Run.all())
    assert capsys.readouterr().out.splitlines()[1].split() == [run.id, "1", "em", "curso", "—"]
    run.unlock()
    Reporter().status(Run.all())
    assert capsys.readouterr().out.splitlines()[1].split() == [run.id, "1", "interrompida", "—"]
    run.save("result", build_result().to_dict())
    Reporter(as_json=True).status(Run.all())
    assert json.loads(capsys.readouterr().out)[0]["run_id"] == run.id


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_stream_that_cannot_show_a_sign_does_not_end_a_run(encoding: str) -> None:
    code = textwrap.dedent(
        """
        from sandbox.console import Reporter, show_error
        from merge.errors import ConfigError
        from tests.builders import build_result
        with Reporter().step("Restaurando a origem São João"):
            pass
        Reporter().summary(build_result(), "r", "f")
        show_error(ConfigError("não"))
        """
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Restaurando" in done.stdout
