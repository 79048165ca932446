"""The log of a run is chained, and the log of all runs shows what is removed from it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from sandbox import audit
from sandbox.events import Events
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Lines = list[bytes]

_WRITER = """
import sys, threading
from pathlib import Path
from sandbox.events import Events
def write(thread):
    for number in range(int(sys.argv[2])):
        Events(Path(sys.argv[1])).add(f"{sys.argv[3]}.{thread}", str(number), text="x" * (number % 700))
threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def _log(folder: Path, events: int = 5) -> Events:
    log = Events(folder / "events.jsonl")
    for number in range(events):
        log.add("step", f"event {number}", what="ação\u2028\x85 número")
    return log


def _writer(path: Path, events: int, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(events), name])


def test_each_line_holds_the_hash_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As anybody can compute it; and says who did it."""
    monkeypatch.setenv("HOMOLOG_OPERATOR", "Ana de Assis 529.982.247-25")
    log = _log(tmp_path)
    previous = sha256(tmp_path.name.encode()).hexdigest()
    for line in log.path.read_bytes().removesuffix(b"\n").split(b"\n"):
        event = json.loads(line)
        assert event["previous"] == previous
        assert event["who"] == "Ana de Assis «…»"
        previous = sha256(line).hexdigest()
    assert log.head == previous
    assert log.check() == ()
    assert len(log.read()) == 5
    monkeypatch.delenv("HOMOLOG_OPERATOR")
    log.add("step", "by the user of this machine")
    assert "@" in log.read()[-1]["who"]


def test_an_empty_log_has_a_head(tmp_path: Path) -> None:
    log = Events(tmp_path / "events.jsonl", "name")
    assert (log.head, log.check(), log.read()) == (sha256(b"name").hexdigest(), (), [])


def _edit(lines: Lines) -> Lines:
    return [*lines[:1], lines[1].replace(b"event 1", b"event 7"), *lines[2:]]


def _insert(lines: Lines) -> Lines:
    event = {**json.loads(lines[2]), "event": "forged"}
    return [*lines[:2], json.dumps(event).encode() + b"\n", *lines[2:]]


def _strip(lines: Lines) -> Lines:
    """As a log of an old version has them."""
    return [
        json.dumps({k: v for k, v in json.loads(line).items() if k != "previous"}).encode() + b"\n" for line in lines
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_edit, [3]),
        (lambda lines: lines[:1] + lines[2:], [2]),
        (lambda lines: lines[1:], [1]),
        (_insert, [4]),
        (lambda lines: [lines[1], lines[0], *lines[2:]], [1, 2, 3]),
        (lambda lines: [*lines[:2], lines[2][:40] + b"\n", *lines[3:]], [3, 4]),
        (lambda lines: [*lines[:4], b"garbage\n"], [5]),
        (_strip, [1, 2, 3, 4, 5]),
    ],
)
def test_what_was_changed_is_told_with_its_line(
    tmp_path: Path, change: Callable[[Lines], Lines], where: list[int]
) -> None:
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(change(lines)))
    found = log.check()
    assert len(found) == len(where), found
    for line, problem in zip(where, found, strict=True):
        assert f"linha {line}:" in problem


@pytest.mark.parametrize("kept", [1, 40, 100])
def test_the_chain_goes_on_after_a_line_that_was_cut_off(tmp_path: Path, kept: int) -> None:
    """And says so; all that was there before is still bound."""
    log = _log(tmp_path, 2)
    content = log.path.read_bytes()
    cut = content + content.splitlines()[1][:kept]
    log.path.write_bytes(cut)
    assert log.check() == ()
    log.add("step", "after")
    assert log.check() == ()
    assert [event["event"] for event in log.read()] == ["event 0", "event 1", "after"]
    assert log.read()[-1]["after_a_cut_line"] is True
    log.add("step", "later")
    assert "after_a_cut_line" not in log.read()[-1]
    log.path.write_bytes(log.path.read_bytes().replace(cut[-kept:] + b"\n", b"", 1))
    assert len(log.check()) == 1


def test_a_line_without_its_end_is_whole(tmp_path: Path) -> None:
    log = _log(tmp_path, 2)
    log.path.write_bytes(log.path.read_bytes().removesuffix(b"\n"))
    log.add("step", "after")
    assert (log.check(), len(log.read())) == ((), 3)
    assert "after_a_cut_line" not in log.read()[-1]


def test_lines_longer_than_a_block_are_chained(tmp_path: Path) -> None:
    log = _log(tmp_path, 1)
    for size in (1 << 16, (1 << 16) - 1, 200_000, 1):
        log.add("step", "long", text="é" * size)
    assert (log.check(), len(log.read())) == ((), 5)


def test_threads_and_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [_writer(path, 40, str(n)) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    log = Events(path)
    assert log.check() == ()
    events = log.read()
    assert len(events) == 3 * 4 * 40
    for writer in range(3):
        for thread in range(4):
            of_one = [event["event"] for event in events if event["step"] == f"{writer}.{thread}"]
            assert of_one == [str(number) for number in range(40)]


def test_the_chain_survives_killed_writers(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for attempt in range(5):
        writer = _writer(path, 10_000, str(attempt))
        seen = len(path.read_bytes()) if path.exists() else 0
        while not path.exists() or len(path.read_bytes()) < seen + 20_000:
            time.sleep(0.005)
            assert writer.poll() is None
        writer.kill()
        writer.wait()
        Events(path).add("test", "after a kill")
    assert Events(path).check() == ()


def test_logs_of_old_versions_are_read_and_go_on(tmp_path: Path) -> None:
    log = _log(tmp_path, 2)
    log.path.write_bytes(b"".join(_strip(log.path.read_bytes().splitlines())))
    log.add("step", "new")
    assert len(log.read()) == 3
    assert len(log.check()) == 2  # what follows is bound to the old lines


# The log of all runs


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    made = Run.create(central=None)
    made.attest("created")
    made.events.add("central.restore", "begin")
    made.attest("ended", status="validated")
    made.events.add("server", "stopped")
    yield made
    made.unlock()


def test_acts_are_in_both_logs(run: Run) -> None:
    log = audit.log(run.folder.parent)
    assert [(e["run"], e["event"], e.get("status")) for e in log.read()] == [
        (run.id, "created", None),
        (run.id, "ended", "validated"),
    ]
    assert {event["head"] for event in log.read()} < set(run.events.heads())
    assert run.check_log() == ()
    other = Run.create()
    other.attest("created")
    assert (other.check_log(), run.check_log()) == ((), ())
    other.unlock()


def _truncate(path: Path, lines: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


def test_a_log_that_was_truncated_or_removed_shows(run: Run) -> None:
    path = run.events.path
    _truncate(path, 3)
    assert run.check_log() == ()  # nothing but an event that no audit asks for
    _truncate(path, 2)
    assert run.events.check() == ()
    (problem,) = run.check_log()
    assert "ended" in problem
    path.unlink()
    assert len(run.check_log()) == 2
    assert audit.missing(run.folder.parent) == (run.id,)


def test_a_log_that_was_made_anew_shows(run: Run) -> None:
    """With a chain of its own that holds."""
    events = run.events.read()
    run.events.path.unlink()
    for event in events:
        run.events.add(event["step"], event["event"], audited=event.get("audited"))
    assert run.events.check() == ()
    assert len(run.check_log()) == 4


@pytest.mark.parametrize("lines", [0, 1])
def test_a_truncated_log_of_all_runs_shows(run: Run, lines: int) -> None:
    _truncate(run.folder.parent / audit.FILE, lines)
    assert len(run.check_log()) == 2 - lines


def test_an_edited_log_of_all_runs_shows(run: Run) -> None:
    path = run.folder.parent / audit.FILE
    path.write_bytes(path.read_bytes().replace(b'"created"', b'"erected"'))
    assert any("audit.jsonl, linha 2" in problem for problem in run.check_log())


def test_what_a_killed_process_noted_in_one_place_only_is_made_good(run: Run) -> None:
    run.events.add("run", "frozen", audited=True, rows=7)
    assert len(run.check_log()) == 1
    run.attest("signed")
    assert run.check_log() == ()
    assert [(e["event"], e.get("rows")) for e in audit.log(run.folder.parent).read()[-2:]] == [
        ("frozen", 7),
        ("signed", None),
    ]


def test_runs_that_act_at_once_write_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    runs = [Run.create() for _ in range(4)]

    def act(run: Run) -> None:
        for number in range(10):
            run.attest("act", number=number)

    threads = [threading.Thread(target=act, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(audit.log(tmp_path / "runs").read()) == 40
    for run in runs:
        assert run.check_log() == ()
        run.unlock()
