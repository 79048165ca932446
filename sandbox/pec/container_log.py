"""The output of a container as it grows."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from docker.errors import APIError, NotFound

from sandbox import images

if TYPE_CHECKING:
    from pathlib import Path


class ContainerLog:
    """What a container has said since it was last asked.

    :param name: name of the container; another one of that name may take its place.
    :param copy: a file to which it is appended as it is; for its owner only, as PEC's log may quote patients.
    """

    def __init__(self, name: str, copy: Path) -> None:
        self.name, self.copy = name, copy
        self._last = b""

    def read(self) -> bytes:
        """What was added; nothing where there is no container."""
        with images.daemon() as client, suppress(NotFound, APIError):
            return self._keep(client.containers.get(self.name).logs(timestamps=True, since=_moment(self._last)))
        return b""

    def _keep(self, said: bytes) -> bytes:
        """Without the times, and what was there already: Docker knows whole seconds only."""
        added = []
        for line in said.splitlines(keepends=True):
            time, _, rest = line.partition(b" ")
            if time > self._last:
                added.append(rest)
                last = time
        if not added:
            return b""
        self._last = last
        block = b"".join(added)
        descriptor = os.open(self.copy, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(block)
        return block


def _moment(stamp: bytes) -> int | None:
    """Docker's time with nanoseconds, in whole seconds of Unix."""
    return int(datetime.fromisoformat(stamp[:19].decode() + "+00:00").timestamp()) if stamp else None
