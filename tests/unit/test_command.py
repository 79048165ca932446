"""Running programs: what they say, how they end, and that they are ended."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from merge.errors import ServerError
from sandbox.command import CommandFailed, LocalCommand

_PATH = {"PATH": os.environ["PATH"]}


def _python(program: str) -> LocalCommand:
    return LocalCommand((sys.executable, "-c", program), _PATH)


def _bash(script: str) -> LocalCommand:
    return LocalCommand(("/bin/bash", "-c", script), _PATH)


def _ends(pid: int) -> bool:
    for _ in range(100):
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" in status.read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_output_and_code() -> None:
    result = _bash("echo out; echo err >&2; exit 3").run(check=False)
    assert (result.code, result.stdout, result.stderr) == (3, b"out\n", "err\n")


def test_failure_names_the_program_only() -> None:
    with pytest.raises(CommandFailed) as failure:
        _bash("echo why >&2; exit 3 # argument").run()
    assert failure.value.code == 3
    assert failure.value.stderr == "why\n"
    assert "bash" in failure.value.what
    assert "argument" not in failure.value.what
    with pytest.raises(CommandFailed), _bash("echo out; exit 3").stream() as chunks:
        assert b"".join(chunks) == b"out\n"


def test_missing_program() -> None:
    with pytest.raises(ServerError, match="no-such-program"):
        LocalCommand(("/no-such-program",)).run()


def test_environment_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert b"secret" not in LocalCommand(("/usr/bin/env",), {"A": "1"}).run().stdout


def test_both_pipes_are_drained() -> None:
    """More than a pipe holds, on both: neither blocks the other; of stderr the end is kept."""
    program = """
import sys
for _ in range(2048):
    sys.stderr.write("x" * 1023 + "\\n")
    sys.stdout.write("x" * 1023 + "\\n")
print("end", file=sys.stderr)
"""
    result = _python(program).run()
    assert len(result.stdout) == 2 << 20
    assert len(result.stderr) == 1 << 16
    assert result.stderr.endswith("end\n")


def test_lines_come_while_it_runs() -> None:
    """The program goes on only when its first line was seen."""
    seen: list[str] = []
    arrived = threading.Event()

    def look(line: str) -> None:
        seen.append(line)
        arrived.set()

    read, write = os.pipe()
    os.set_inheritable(read, True)

    def answer() -> None:
        arrived.wait(20)
        os.write(write, b"\n")

    thread = threading.Thread(target=answer)
    thread.start()
    fifo = f"/proc/{os.getpid()}/fd/{read}"
    _bash(f"echo first >&2; read < {fifo}; echo second >&2").run(on_line=look)
    thread.join()
    os.close(read)
    os.close(write)
    assert seen == ["first", "second"]


def test_all_lines_are_seen_by_a_slow_reader() -> None:
    seen: list[str] = []

    def slowly(line: str) -> None:
        time.sleep(0.001)
        seen.append(line)

    result = _bash("seq 1 500 >&2").run(on_line=slowly)
    assert seen == [str(i) for i in range(1, 501)] == result.stderr.splitlines()


def test_an_error_of_the_reader_is_raised() -> None:
    def refuse(line: str) -> None:
        raise KeyError(line)

    with pytest.raises(KeyError, match="first"):
        _bash("echo first >&2; seq 1 100000 >&2").run(on_line=refuse)


def test_stream_gives_everything() -> None:
    with _bash("seq 1 300000").stream() as chunks:
        assert b"".join(chunks).split() == [str(i).encode() for i in range(1, 300001)]


def test_what_is_not_wanted_of_a_stream_does_not_block() -> None:
    with _bash("seq 1 3000000").stream() as chunks:
        assert next(chunks).startswith(b"1\n")


def test_leaving_a_stream_by_an_error_ends_the_program_and_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; echo $$; while :; do sleep 1; done"
    pids: list[int] = []

    def lose_interest() -> None:
        with _bash(script).stream() as chunks:
            pids.append(int(next(chunks)))
            raise KeyError

    with pytest.raises(KeyError):
        lose_interest()
    pids.append(int((tmp_path / "child").read_text()))
    assert all(_ends(pid) for pid in pids)


def test_an_interrupt_ends_the_program(tmp_path: Path) -> None:
    """Ctrl-C reaches only us: a restore that nobody waits for any more must not go on."""
    program = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from sandbox.command import LocalCommand
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
def interrupt(line):
    os.kill(os.getpid(), signal.SIGINT)
try:
    LocalCommand(("/bin/bash", "-c", "echo $$ > {tmp_path}/pid; echo now >&2; sleep 600")).run(on_line=interrupt)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert _python(program).run().stdout == b"interrupted\n"
    assert _ends(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_keeps_no_group_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)  # closed to that user
    result = LocalCommand(("/bin/sh", "-c", "id -u; id -g; id -G; pwd"), _PATH, (65534, 65534)).run()
    assert result.stdout.split() == [b"65534", b"65534", b"65534", b"/"]
