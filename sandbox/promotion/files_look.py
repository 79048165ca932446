"""How production's directory of attachments stands: what of the central is as it was, and what the merge would add.

Every file is known by its hash. Names are kept with the run, where names of files belong; what is told is counted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

from merge.language import counted, text
from sandbox import carry, words
from sandbox.attachments import CENTRAL, Attachments
from sandbox.promotion.folders import Astray, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from merge.attachments import File
    from sandbox.runs import Run

    OnProgress = Callable[[int, int], None]

ASIDE = ".homolog-"
"""How folders of ours in production's directory begin."""
KEPT_FREE = 1 << 24
"""Bytes that are to stay free on production's disk."""

_CHUNK = 1 << 20
_SEEN = "production-seen"
_SETTLED = 5 * 10**9
"""Nanoseconds for which a file must have been left alone before its times are trusted."""


@dataclass(frozen=True)
class Looked:
    """How production's directory stands, in files.

    :param same: files of the central that are as they were delivered; `changed` and `missing` are not.
    :param to_add: files that the merge brings and that are not there; `size` are their bytes, `free` those of the disk.
    :param present: files that the merge brings and that are there already, with the same bytes.
    :param in_the_way: places of files to add that are taken by something else, or behind a link.
    :param unknown: files that nobody knows; they stay as they are.
    """

    same: int
    changed: int
    missing: int
    to_add: int
    size: int
    free: int
    present: int
    in_the_way: int
    unknown: int


def look(run: Run, folder: Path | str, on_progress: OnProgress = lambda done, total: None, jobs: int = 2) -> Looked:
    """Compare production's directory with what was delivered and what is to be added; names are kept with the run.

    :param on_progress: called with bytes read and bytes in all.
    """
    with production(run, folder) as place:
        return compare(run, Attachments(run.folder / carry.FOLDER), place, jobs, on_progress)


def compare(run: Run, store: Attachments, place: Folder, jobs: int, on_progress: OnProgress) -> Looked:
    """The same, of a directory that is open."""
    central = store.inventory(CENTRAL)
    old = central.files if central is not None else ()
    new = new_files(store)
    progress = Progress(sum(f.size for f in (*old, *new)), on_progress)
    seen = Seen(store, place)
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        states = list(pool.map(lambda file: state_of(place, file, progress, seen), (*old, *new)))
    seen.save()
    before, after = states[: len(old)], states[len(old) :]
    known = {file.path for file in (*old, *new)}
    unknown = [path for path in _walk(place) if path not in known]
    names = {
        "changed": [f.path for f, s in zip(old, before, strict=True) if s in ("other", "astray")],
        "missing": [f.path for f, s in zip(old, before, strict=True) if s == "free"],
        "in_the_way": [f.path for f, s in zip(new, after, strict=True) if s in ("other", "astray")],
        "unknown": unknown,
    }
    _write(store, "promotion-look", names)
    missing = [f for f, s in zip(new, after, strict=True) if s == "free"]
    return Looked(
        before.count("same"), len(names["changed"]), len(names["missing"]), len(missing),
        sum(f.size for f in missing), shutil.disk_usage(place.path).free, after.count("same"),
        len(names["in_the_way"]), len(unknown),
    )  # fmt: skip


def state_of(place: Folder, file: File, progress: Progress, seen: Seen | None = None) -> str:
    """What is where a file belongs: ``same``, ``other``, ``free``, or ``astray`` if that is behind a link.

    :param seen: what need not be read again.
    """
    try:
        info = place.status(file.path)
        if info is None:
            return "free"
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.size:
            return "other"
        if seen is not None and seen.knows(file, info):
            progress.add(file.size)
            return "same"
        with place.read(file.path) as found:
            same = digest(found, progress.add) == file.sha256
        if same and seen is not None:
            seen.note(file, info)
        return "same" if same else "other"
    except Astray:
        return "astray"
    except PermissionError:
        return "other"


class Seen:
    """Files that an earlier look has found to be the same: whatever changes one since changes its inode, size or times.

    So a rehearsal before the maintenance window (``--dry-run``) reads a large directory, and the promotion need not. A
    file that was changed just before it was read is read again, as its times might not tell two changes apart; so is
    every file where the system does not tell when a file was changed last (Windows).
    """

    def __init__(self, store: Attachments, place: Folder) -> None:
        self._store = store
        self._directory = str(place.path)
        self._until = time.time_ns() - _SETTLED
        path = store.folder / "state" / f"{_SEEN}.json"
        try:
            kept = json.loads(path.read_bytes()) if path.exists() else {}
        except ValueError:  # cut off: everything is read again
            kept = {}
        self._before: dict[str, list[int | str]] = kept["files"] if kept.get("directory") == self._directory else {}
        self._now: dict[str, list[int | str]] = {}

    def knows(self, file: File, info: os.stat_result) -> bool:
        """Whether a file is still the one that was found to be the same."""
        known = self._before.get(file.path) == self._identity(file, info)
        if known:
            self._now[file.path] = self._before[file.path]
        return known

    def note(self, file: File, info: os.stat_result) -> None:
        """Remember one, as it was before it was read."""
        if os.name == "posix" and max(info.st_mtime_ns, info.st_ctime_ns) < self._until:
            self._now[file.path] = self._identity(file, info)

    def save(self) -> None:
        """Keep what was found."""
        _write(self._store, _SEEN, {"directory": self._directory, "files": self._now})

    @staticmethod
    def _identity(file: File, info: os.stat_result) -> list[int | str]:
        return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, file.sha256]


def _walk(place: Folder) -> Iterator[str]:
    """Paths of all that is no folder; no link is followed."""
    for where, folders, names in os.walk(place.path):
        below = Path(where).relative_to(place.path)
        folders[:] = [name for name in folders if not name.startswith(ASIDE)]
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        for name in (*names, *links):
            yield (below / name).as_posix()


def reasons(found: Looked, *, may_write: bool) -> Iterator[str]:
    """What of it forbids a promotion."""
    if found.changed:
        files = counted(found.changed, "arquivo do central mudou", "arquivos do central mudaram")
        yield text(
            pt=f"anexos: {files} na pasta da produção desde que foi entregue",
            en=f"attachments: {counted(found.changed, 'file', 'files')} of the central changed in production's "
            "directory since it was delivered",
        )
    if found.missing:
        files = counted(found.missing, "arquivo do central falta", "arquivos do central faltam")
        yield text(
            pt=f"anexos: {files} na pasta da produção",
            en=f"attachments: {counted(found.missing, 'file', 'files')} of the central missing in production's "
            "directory",
        )
    if found.in_the_way:
        yield text(
            pt=f"anexos: {counted(found.in_the_way, 'lugar está ocupado', 'lugares estão ocupados')} por outra coisa, "
            "ou atrás de um link",
            en=f"attachments: {counted(found.in_the_way, 'place is', 'places are')} taken by something else, or "
            "behind a link",
        )
    if found.size + KEPT_FREE > found.free and found.to_add:
        yield no_room(found.size, found.free)
    if found.to_add and not may_write:
        yield text(
            pt="anexos: não se pode gravar na pasta da produção", en="attachments: production's directory is read-only"
        )


def unnamed(many: int) -> str:
    return text(
        pt=f"anexos: a unificação traz {counted(many, 'arquivo', 'arquivos')} para a pasta de anexos da produção; "
        "indique-a com --attachments",
        en=f"attachments: the merge brings {counted(many, 'file', 'files')} for production's directory of "
        "attachments; name it by --attachments",
    )


def unusable(ex: OSError) -> str:
    return text(
        pt=f"anexos: a pasta da produção não pode ser usada ({ex.strerror})",
        en=f"attachments: production's directory cannot be used ({ex.strerror})",
    )


def no_room(needed: int, free: int) -> str:
    return text(
        pt=f"anexos: são precisos {words.size(needed + KEPT_FREE)} na pasta da produção; há {words.size(free)}",
        en=f"attachments: {words.size(needed + KEPT_FREE)} are needed in production's directory; there are "
        f"{words.size(free)}",
    )


# Small things


def new_files(store: Attachments) -> tuple[File, ...]:
    """The merged files that the central does not have."""
    central = store.inventory(CENTRAL)
    known = central.hashes if central is not None else {}
    return tuple(file for file in store.merged() if file.path not in known)


@contextmanager
def production(run: Run, folder: Path | str) -> Iterator[Folder]:
    """Production's directory.

    :raises OSError: it is none, or it is the run's own.
    """
    with Folder(Path(folder)) as place:
        own = run.folder.resolve()
        if place.path.is_relative_to(own) or own.is_relative_to(place.path):
            raise OSError(errno.EINVAL, text(pt="é a pasta da execução", en="it is the run's own folder"))
        yield place


def _write(store: Attachments, name: str, content: Any) -> None:
    """Keep names of files where they belong."""
    path = store.folder / "state" / f"{name}.json"
    making = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    making.replace(path)


def digest(file: IO[bytes], on_bytes: Callable[[int], None], copy: IO[bytes] | None = None) -> str:
    """SHA-256 of an open file, which may be copied by the way."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
        on_bytes(len(chunk))
    return digest.hexdigest()


@dataclass
class Progress:
    """Bytes done of bytes in all; safe for threads."""

    total: int
    on_progress: OnProgress = lambda done, total: None
    done: int = 0
    lock: Lock = field(default_factory=Lock)

    def add(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.on_progress(min(self.done, self.total), self.total)
