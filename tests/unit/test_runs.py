"""Run folders: names, locks, results, steps."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from merge.errors import ConfigError
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run.create(central="a.backup")
    yield made
    made.unlock()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_run_has_a_name_and_a_private_folder(run: Run, folder: Path) -> None:
    assert re.fullmatch(r"\d{8}-\d{4}-[a-z0-9]{4}", run.id)
    assert run.folder == folder / run.id
    assert mode(run.folder) == 0o700
    assert run.load("run")["asked"] == {"central": "a.backup"}


def test_runs_are_listed_in_order_and_opened_by_a_part_of_the_name(run: Run) -> None:
    second = Run.create()
    try:
        assert [r.id for r in Run.all()] == [run.id, second.id]
        assert Run.open().id == second.id
        assert Run.open(run.id[-4:]).id == run.id
    finally:
        second.unlock()


@pytest.mark.parametrize("name", ["", "nothing"])
def test_a_run_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError):
        Run.open(name)


def test_an_ambiguous_name_lists_the_runs(run: Run) -> None:
    second = Run.create()
    second.unlock()
    with pytest.raises(ConfigError) as error:
        Run.open("-")
    assert error.value.details == (run.id, second.id)


def test_a_folder_without_run_json_is_no_run(run: Run, folder: Path) -> None:
    (folder / "other").mkdir()
    assert [r.id for r in Run.all()] == [run.id]


# Lock


def hold(name: str) -> subprocess.Popen[str]:
    """A process that holds the run until it is killed."""
    code = textwrap.dedent(
        f"""
        import sys
        from sandbox.runs import Run
        run = Run.open({name!r})
        run.lock()
        print("locked", flush=True)
        sys.stdin.read()
        """
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_two_processes_on_one_run_are_refused_until_the_first_is_killed(run: Run) -> None:
    run.unlock()
    with hold(run.id) as holder:
        try:
            with pytest.raises(ConfigError, match=rf"pid {holder.pid}, \d{{4}}-"):
                Run.open(run.id).lock()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    again = Run.open(run.id)
    again.lock()
    again.unlock()


def test_two_objects_of_one_process_are_refused_too(run: Run) -> None:
    with pytest.raises(ConfigError, match=str(os.getpid())):
        Run.open(run.id).lock()


def test_two_runs_work_side_by_side(run: Run) -> None:
    run.unlock()
    other = Run.create()
    with hold(run.id) as holder:
        try:
            other.save("plan", {})
            assert other.has("plan")
        finally:
            holder.kill()
            holder.wait()
            other.unlock()


def test_locking_again_does_nothing(run: Run) -> None:
    run.lock()
    run.unlock()
    Run.open(run.id).unlock()


# Results


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    colour: Colour
    counts: Mapping[Colour, int] = field(default_factory=lambda: MappingProxyType({Colour.RED: 2}))


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    path: Path
    at: datetime
    total: Decimal
    names: frozenset[str]
    nothing: None = None


def test_dataclasses_become_plain_json(run: Run) -> None:
    at = datetime(2026, 11, 23, 19, 12, tzinfo=UTC)
    run.save("plan", Outer((Inner(Colour.RED),), Path("/a"), at, Decimal(12), frozenset({"b", "a"})))
    assert run.load("plan") == {
        "inner": [{"colour": "red", "counts": {"red": 2}}],
        "path": "/a",
        "at": "2026-11-23T19:12:00+00:00",
        "total": 12,
        "names": ["a", "b"],
        "nothing": None,
    }
    assert mode(run.folder / "plan.json") == 0o600


@pytest.mark.parametrize("value", [b"\x00", object(), Inner])
def test_what_is_not_foreseen_is_refused_and_the_old_file_stays(run: Run, value: object) -> None:
    run.save("plan", {"rows": Counter(a=1)})
    with pytest.raises(TypeError):
        run.save("plan", {"rows": value})
    assert run.load("plan") == {"rows": {"a": 1}}
    assert not list(run.folder.glob("*.new"))


def save_for_ever(folder: Path) -> None:
    run = Run(folder)
    while True:
        for letter in "ab":
            run.save("big", {"letters": letter * 200_000})


def test_a_kill_while_saving_leaves_a_whole_file(run: Run) -> None:
    run.save("big", {"letters": "a" * 200_000})
    writer = multiprocessing.get_context("spawn").Process(target=save_for_ever, args=(run.folder,))
    writer.start()
    try:
        for _ in range(200):
            assert set(run.load("big")["letters"]) in ({"a"}, {"b"})
    finally:
        writer.kill()
        writer.join()
        writer.close()
    assert len(run.load("big")["letters"]) == 200_000


# Steps


def test_a_step_is_done_when_it_ends_well(run: Run) -> None:
    with run.step("restore"):
        assert not run.is_done("restore")
    assert Run(run.folder).is_done("restore")
    assert run.done()["restore"] >= 0
    assert [(e["step"], e["event"]) for e in run.events.read()] == [("restore", "begin"), ("restore", "end")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_step_that_fails_is_not_done(run: Run, error: type[BaseException]) -> None:
    with pytest.raises(error), run.step("merge"):
        raise error("João da Silva, CPF 123.456.789-09")
    assert not run.is_done("merge")
    failed = run.events.read()[-1]
    assert (failed["event"], failed["error"]) == ("failed", error.__name__)
    assert "João" not in (run.folder / "events.jsonl").read_text()


def test_done_steps_can_be_forgotten_and_notes_stay(run: Run) -> None:
    with run.step("restore"):
        run.note(server={"provider": "embedded"})
    run.forget()
    kept: dict[str, Any] = json.loads((run.folder / "run.json").read_text())
    assert kept["done"] == {}
    assert kept["server"] == {"provider": "embedded"}
