"""Running a program inside a container, with its output streamed and its process ended when nobody wants it."""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from docker.errors import APIError

from sandbox import images
from sandbox.command import Command, Result, Tail, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import docker

# It waits for its first line, the passfile's, so that our end of the connection is listening before there is output.
# The process id, which Docker tells in the host's numbers only, is for ending the program: it leads a process group.
_WRAPPER = r"""
read -r line || exit 125
echo $$ >&2
if [ -n "$line" ]; then
    export PGPASSFILE="/tmp/$PGUSER.pass"
    (umask 077 && printf '%s\n' "$line" > "$PGPASSFILE.$$" && mv -f "$PGPASSFILE.$$" "$PGPASSFILE")
fi
exec "$@" < /dev/null
"""
_GONE = 137
_CHUNK = 1 << 18
# Docker's frames: one byte of stream, three of nothing, four of size, then the data.
_HEADER = struct.Struct(">BxxxL")
_STDOUT = 1


@dataclass(frozen=True)
class ContainerCommand(Command):
    """A program of a container.

    :param container: gives the id of a running container for as long as the program runs.
    :param user: ``uid:gid`` to run as.
    :param passfile: the line of a passfile for the role that it connects as; seen by no one else in the container.
    """

    container: Callable[[], AbstractContextManager[str]]
    argv: Sequence[str]
    user: str
    env: Mapping[str, str] = field(default_factory=dict)
    passfile: str = field(default="", repr=False)

    def run(self, *, check: bool = True, on_line: Callable[[str], None] | None = None) -> Result:
        """Run to the end and return the result."""
        with self._process(on_line) as process:
            stdout = b"".join(process.output())
        result = Result(process.code, stdout, process.tail.text())
        if check and result.code != 0:
            raise failed(self._name, result)
        return result

    @contextmanager
    def stream(self) -> Iterator[Iterator[bytes]]:
        """Run and give stdout as it comes."""
        with self._process() as process:
            output = process.output()
            yield output
            for _ in output:  # what was not wanted
                pass
        result = Result(process.code, b"", process.tail.text())
        if result.code != 0:
            raise failed(self._name, result)

    @property
    def _name(self) -> str:
        return PurePosixPath(self.argv[0]).name

    @contextmanager
    def _process(self, on_line: Callable[[str], None] | None = None) -> Iterator[_Process]:
        with self.container() as container, images.daemon() as client:
            process = _Process(client.api, container, self, on_line)
            try:
                yield process
            except BaseException:
                process.stop()
                raise
            finally:
                process.close()
            process.wait()


class _Process:
    """One program under way."""

    def __init__(
        self,
        api: docker.APIClient,
        container: str,
        command: ContainerCommand,
        on_line: Callable[[str], None] | None,
    ) -> None:
        self.code = -1
        self.tail = Tail(on_line)
        self._api, self._container, self._user = api, container, command.user
        self._pid = b""
        self._exec: str = api.exec_create(
            container,
            ["/bin/sh", "-c", _WRAPPER, "sh", *command.argv],
            stdin=True,
            user=command.user,
            environment=dict(command.env),
        )["Id"]
        self._socket: Any = api.exec_start(self._exec, socket=True)
        self._connection: Any = getattr(self._socket, "_sock", self._socket)
        self._connection.settimeout(None)
        self._connection.sendall(command.passfile.encode().strip() + b"\n")

    def output(self) -> Iterator[bytes]:
        """Stdout as it comes, in chunks of at least 64 KiB but the last; stderr is kept aside."""
        data, pieces, held = b"", [], 0
        while received := self._connection.recv(_CHUNK):
            data += received
            start = 0
            while len(data) - start >= _HEADER.size:
                stream, size = _HEADER.unpack_from(data, start)
                end = start + _HEADER.size + size
                if end > len(data):
                    break
                piece = data[start + _HEADER.size : end]
                start = end
                if stream == _STDOUT:
                    pieces.append(piece)
                    held += size
                else:
                    self._said(piece)
            data = data[start:]
            if held >= _CHUNK // 4:
                yield b"".join(pieces)
                pieces, held = [], 0
        if pieces:
            yield b"".join(pieces)

    def wait(self) -> None:
        """Wait for the exit code once the output has ended."""
        for pause in (0, 0.01, 0.1, *[1] * 60):  # the code comes a moment after the end of the output
            time.sleep(pause)
            try:
                state = self._api.exec_inspect(self._exec)
            except APIError:  # the container is gone
                break
            if not state["Running"] and state["ExitCode"] is not None:
                self.code = state["ExitCode"]
                return
        self.code = _GONE

    def stop(self) -> None:
        """End the program and those that it started."""
        for sign in ("TERM", "KILL"):
            if self._pid:
                with suppress(APIError):
                    kill = self._api.exec_create(
                        self._container, ["/bin/sh", "-c", f"kill -{sign} -{int(self._pid)}"], user=self._user
                    )
                    self._api.exec_start(kill["Id"], detach=True)  # its own output may never end
            self.close()  # it does not end while its output waits for a reader
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    if not self._api.exec_inspect(self._exec)["Running"]:
                        return
                except APIError:
                    return
                time.sleep(0.05)

    def close(self) -> None:
        """Close the connection."""
        for end in (getattr(self._socket, "_response", None), self._socket, self._connection):
            if end is not None:
                end.close()

    def _said(self, data: bytes) -> None:
        if not self._pid:  # the first frame is of the wrapper
            self._pid, _, data = data.partition(b"\n")
        self.tail.feed(data)


def own_user() -> str:
    """Our own user and group, so that tools read and write the files of the host as we do."""
    return f"{os.getuid()}:{os.getgid()}" if hasattr(os, "getuid") else "0:0"
