"""What a promotion has added to production's directory of attachments, noted before it is done, and taken back.

The journal is in the run's folder of attachments, where names of files belong: they may hold names of people.
"""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING

from merge.attachments import File

if TYPE_CHECKING:
    from sandbox.attachments import Attachments

JOURNAL = "promoted.jsonl"

_BLOCK = 1 << 20


class Journal:
    """What was added, one JSON object in each line, brought to the disk before it is done.

    :ivar files: by path, files that were added and not taken back.
    :ivar directory: production's directory, as it was called last.
    """

    def __init__(self, store: Attachments) -> None:
        self._path = store.folder / "state" / JOURNAL
        self.files: dict[str, File] = {}
        self._folders: dict[str, None] = {}
        self.directory = ""
        whole = self._path.read_bytes().rpartition(b"\n")[0] if self._path.exists() else b""
        for line in whole.splitlines():
            self._take(json.loads(line))

    @property
    def folders(self) -> list[str]:
        """Folders that were made, those above others first."""
        return list(self._folders)

    def note(self, *lines: dict[str, str], **line: str) -> None:
        """Append lines; a line that a kill cut off is removed first."""
        wanted = [*lines, *([line] if line else [])]
        if not wanted:
            return
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            _cut_half_line(file)
            file.write(b"".join(json.dumps(one).encode() + b"\n" for one in wanted))
            file.flush()
            os.fsync(file.fileno())
        for one in wanted:
            self._take(one)

    def _take(self, line: dict[str, str]) -> None:
        match line:
            case {"folder": directory}:
                self.directory = directory
            case {"file": path, "sha256": sha256, "size": size}:
                self.files[path] = File(path, int(size), sha256)
            case {"back": path}:
                self.files.pop(path, None)
            case {"made": path}:
                self._folders[path] = None
            case {"unmade": path}:
                self._folders.pop(path, None)


def _cut_half_line(file: IO[bytes]) -> None:
    """Leave an open file at its end, without the line that a kill has cut off."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _BLOCK)
    file.seek(start)
    rest = file.read()
    file.truncate(start + rest.rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
