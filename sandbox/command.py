"""One way to run a program: no shell, no secret in argv, the end of stderr kept, the exit code checked."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from merge.errors import HomologationError, ServerError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from io import BufferedReader

_CHUNK = 1 << 18
STDERR_KEPT = 1 << 16
"""Bytes of the end of stderr that a result keeps."""
_GRACE_SECONDS = 10


class CommandFailed(HomologationError):
    """A program ended with a non-zero exit code; `stderr` keeps its last lines."""

    def __init__(self, what: str, *, code: int, stderr: str) -> None:
        super().__init__(what)
        self.code = code
        self.stderr = stderr


@dataclass(frozen=True)
class Result:
    """What a finished program said: exit code, whole stdout, the last 64 KiB of stderr."""

    code: int
    stdout: bytes
    stderr: str


class Command(ABC):
    """A program ready to run, on the host or inside a container."""

    @abstractmethod
    def run(self, *, check: bool = True, on_line: Callable[[str], None] | None = None) -> Result:
        """Run to the end and return the result. Raise `CommandFailed` on a non-zero exit if `check`.

        :param on_line: called with every line of stderr as it comes.
        """

    @abstractmethod
    def stream(self) -> AbstractContextManager[Iterator[bytes]]:
        """Run and give stdout as it comes, in chunks.

        Leaving the context waits for the end and raises `CommandFailed` on a non-zero exit; leaving it by an
        exception stops the program first.
        """


@dataclass(frozen=True)
class LocalCommand(Command):
    """A program of this host; `env` is all of its environment, `user` the (uid, gid) to run as when we are root."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = None

    def run(self, *, check: bool = True, on_line: Callable[[str], None] | None = None) -> Result:
        """Run to the end and return the result."""
        with self._running(on_line) as (process, tail):
            stdout = _stdout(process).read()
            process.wait()
        result = Result(process.returncode, stdout, tail.text())
        if check and result.code != 0:
            raise failed(self._name, result)
        return result

    @contextmanager
    def stream(self) -> Iterator[Iterator[bytes]]:
        """Run and give stdout as it comes."""
        with self._running() as (process, tail):
            chunks = iter(lambda: _stdout(process).read1(_CHUNK), b"")
            yield chunks
            for _ in chunks:  # what was not wanted
                pass
            process.wait()
        result = Result(process.returncode, b"", tail.text())
        if result.code != 0:
            raise failed(self._name, result)

    @property
    def _name(self) -> str:
        return Path(self.argv[0]).name

    @contextmanager
    def _running(self, on_line: Callable[[str], None] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], Tail]]:
        tail = Tail(on_line)
        process = self._start()
        try:
            assert process.stderr is not None
            drain = threading.Thread(target=tail.drain, args=(process.stderr,), daemon=True)
            drain.start()
            yield process, tail
            drain.join()
        except BaseException:
            _stop(process)
            raise
        finally:
            _stdout(process).close()

    def _start(self) -> subprocess.Popen[bytes]:
        uid, gid = self.user or (None, None)
        try:
            return subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(self.env),
                user=uid,
                group=gid,
                extra_groups=[] if uid is not None else None,
                start_new_session=True,  # so that Ctrl-C reaches only us, and we stop it in order
                cwd="/" if uid is not None else None,  # ours may be closed to that user
            )
        except OSError as ex:
            program = self.argv[0]
            if isinstance(ex, FileNotFoundError):
                what = text(pt=f"Falta o programa {program}.", en=f"The program {program} is missing.")
            else:
                reason = ex.strerror or type(ex).__name__
                what = text(
                    pt=f"O programa {program} não pode ser executado: {reason}.",
                    en=f"The program {program} cannot be run: {reason}.",
                )
            raise ServerError(what) from None


def failed(program: str, result: Result) -> CommandFailed:
    """The error for a program that ended with a non-zero exit code."""
    return CommandFailed(
        text(pt=f"{program} terminou com o código {result.code}.", en=f"{program} ended with code {result.code}."),
        code=result.code,
        stderr=result.stderr,
    )


class Tail:
    """The end of what a program says on stderr."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._kept = b""
        self._line = b""
        self._on_line = on_line
        self._error: Exception | None = None

    def drain(self, stream: IO[bytes]) -> None:
        """Take a stream to its end and close it, so that the program never waits for us."""
        with stream:
            for chunk in iter(lambda: cast("BufferedReader", stream).read1(_CHUNK), b""):
                self.feed(chunk)

    def feed(self, chunk: bytes) -> None:
        """Take what comes next."""
        self._kept = (self._kept + chunk)[-STDERR_KEPT:]
        if self._on_line is not None:
            *lines, rest = (self._line + chunk).split(b"\n")
            self._line = rest[-STDERR_KEPT:]
            try:
                for line in lines:
                    self._on_line(line.decode(errors="replace").rstrip())
            except Exception as ex:  # the program must not wait for a reader that is gone
                self._on_line, self._error = None, ex

    def text(self) -> str:
        """The last 64 KiB; raises what `on_line` raised."""
        if self._error is not None:
            raise self._error
        return self._kept.decode(errors="replace")


def _stdout(process: subprocess.Popen[bytes]) -> BufferedReader:
    return cast("BufferedReader", process.stdout)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the program and its children to end, and end those that do not."""
    _send(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_SECONDS)
    _send(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    elif process.poll() is None:  # Windows knows no groups
        process.kill()
