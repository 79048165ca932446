"""Files that an application keeps outside of its database: taken stock of, and carried into the run's folder.

The folder of a run's attachments holds ``files``, which is what the central's directory becomes; beside it what has no
place there, by source (`merge.attachments.BESIDE`); and ``state``: inventories and decisions. Names of files may hold
names of people: they are in this folder only, which is removed with the run's data. Errors and results count.

Delivered files are only read. They are cloned where the file system can, else copied; a hard link would let whatever
writes to the sandbox's files change the delivered ones. A file gets its place in one instant and only if the place is
free, so that an interrupted run can go on; whatever is there already must have the bytes that it must have.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from merge import attachments as deciding
from merge.attachments import Carried, Decision, Fate, File, Inventory
from merge.errors import BackupError, MergeError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from merge.attachments import Claim, Pointer, Survey

    OnProgress = Callable[[int, int], None]

CENTRAL = 0
"""The number of the central; sources are numbered from 1."""

_CHUNK = 1 << 20
_BATCH = 1000
"""Files that are waited for at a time: each that waits takes memory."""

_CLONE = 0x40049409
"""The request FICLONE of Linux: a file that shares the other's blocks until one of them is written."""


@dataclass(frozen=True)
class Ledger:
    """What became of the files of one base: the sum of `files_by_fate` is `files`. Keys are of rows, as in proofs.

    :param size: bytes of all files.
    :param rows: rows that point to files; `missing` of them to none that was delivered.
    :param conflicts: rows whose file is kept beside the central's (`merge.attachments.Fate.RECONCILED`).
    """

    source: int
    files: int
    size: int
    files_by_fate: Mapping[str, int]
    rows: int = 0
    missing: int = 0
    missing_keys: tuple[str, ...] = ()
    conflicts: int = 0
    conflict_keys: tuple[str, ...] = ()


def inventory(directory: Path, jobs: int = 2, on_progress: OnProgress = lambda done, total: None) -> Inventory:
    """Read every file of a directory once. No link is followed, nothing outside is read.

    :param on_progress: called with bytes read and bytes in all.
    :raises BackupError: it is no directory, or cannot be read.
    """
    root = directory.resolve()
    if not root.is_dir():
        raise BackupError(
            text(pt=f"{directory} não é uma pasta.", en=f"{directory} is no directory."), evidence=directory
        )
    refused: dict[str, list[str]] = {}
    found = sorted(_walk(root, refused))
    progress = _Progress(sum(size for _, size in found), on_progress)

    def read(entry: tuple[str, int]) -> File | None:
        path, _ = entry
        try:
            with _open(root / path) as file:
                size, digest = _digest(file, progress)
        except OSError:
            refused.setdefault("unreadable", []).append(path)
            return None
        return File(path, size, digest)

    files = tuple(file for file in _in_parallel(read, found, jobs) if file is not None)
    return Inventory(files, {reason: tuple(sorted(paths)) for reason, paths in sorted(refused.items())})


def _walk(root: Path, refused: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """Path below `root` and bytes of every file; what is none is added to `refused`."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            refused.setdefault("unreadable", []).append(folder.relative_to(root).as_posix())
            continue
        for entry in entries:
            path = Path(entry.path)
            info = entry.stat(follow_symlinks=False)
            if entry.is_symlink() or getattr(info, "st_reparse_tag", False):  # on Windows, a junction is no symlink
                refused.setdefault("link", []).append(path.relative_to(root).as_posix())
            elif stat.S_ISDIR(info.st_mode):
                waiting.append(path)
            elif stat.S_ISREG(info.st_mode):
                yield path.relative_to(root).as_posix(), info.st_size
            else:
                refused.setdefault("special", []).append(path.relative_to(root).as_posix())


def check(found: Inventory, name: str, evidence: Path) -> None:
    """Refuse a directory of which something cannot be carried along.

    :param name: of the base that it belongs to.
    :param evidence: where the list of what was refused is.
    :raises BackupError: with counts; names of files stay in `evidence`.
    """
    if not found.refused:
        return
    words = {
        "link": text(pt="links simbólicos", en="symbolic links"),
        "special": text(pt="arquivos especiais", en="special files"),
        "unreadable": text(pt="arquivos ou pastas sem leitura", en="files or folders that cannot be read"),
    }
    raise BackupError(
        text(
            pt=f"A pasta de anexos de {name} tem itens que não podem ser trazidos.",
            en=f"The directory of attachments of {name} holds what cannot be brought along.",
        ),
        evidence=evidence,
        details=[f"{words[reason]}: {len(paths)}" for reason, paths in found.refused.items()],
        next_step=text(
            pt="Copie a pasta de novo, com os arquivos no lugar dos links e com permissão de leitura. "
            "A lista está na evidência; ela pode conter nomes de pessoas.",
            en="Copy the directory again, with files in place of links, and readable. "
            "The list is in the evidence; it may hold names of people.",
        ),
    )


class Attachments:
    """The folder of attachments of one run, e.g. ``<run>/attachments``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / "state"

    def clear(self) -> None:
        """Remove everything: when a run begins anew, or its data are destroyed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # Before the merge

    def take(
        self,
        number: int,
        name: str,
        directory: Path,
        jobs: int = 2,
        on_progress: OnProgress = lambda done, total: None,
    ) -> Inventory:
        """Take stock of a delivered directory, and remember it; what was taken stock of is not read again.

        :param number: of the source, or `CENTRAL`.
        :raises BackupError: not everything in it can be brought along.
        """
        known = self.inventory(number)
        if known is None:
            known = inventory(directory, jobs, on_progress)
            if known.refused:
                self._write(f"refused-{number}", known.refused)
                check(known, name, self._state / f"refused-{number}.json")
            self._write(f"inventory-{number}", {"directory": str(directory.resolve()), "files": asdict(known)["files"]})
        return known

    def inventory(self, number: int) -> Inventory | None:
        """What was delivered with a base; None if nothing was."""
        kept = self._read(f"inventory-{number}")
        if kept is None:
            return None
        return Inventory(tuple(File(**file) for file in kept["files"]))

    def survey(self, number: int, rows: Iterable[Pointer]) -> Survey:
        """Compare what the rows of a base point to with what was delivered."""
        return deciding.survey(rows, self.inventory(number))

    def decide(self, source: int, rows: Iterable[Claim]) -> Decision:
        """Decide what becomes of a source's files, and remember it for `carry`.

        To be called where the merge can still be stopped (`merge.engine.merge_source`, ``before_load``).

        :raises CollisionError: rows would point to the files of others.
        """
        decision = self._decide(source, rows)
        deciding.check(decision)
        self._write(f"decision-{source}", asdict(decision))
        return decision

    def merged(self, before: int | None = None) -> tuple[File, ...]:
        """All that ``files`` holds when everything that was decided is carried, by path.

        :param before: only what was decided before this source.
        """
        central = self.inventory(CENTRAL)
        found = {file.path: file for file in central.files} if central is not None else {}
        numbers = sorted(int(path.stem.partition("-")[2]) for path in self._state.glob("decision-*.json"))
        for number in (n for n in numbers if before is None or n < before):
            decision, delivered = self._decision(number), self.inventory(number)
            if decision is None or delivered is None:
                continue
            files = {file.path: file for file in delivered.files}
            for carried in decision.carried:
                for target in carried.targets:
                    folder, _, path = target.partition("/")
                    if folder == "files":
                        found.setdefault(path, replace(files[carried.path], path=path))
        return tuple(found[path] for path in sorted(found))

    def decides_alike(self, source: int, rows: Iterable[Claim]) -> bool:
        """True if every file of a source would get the places that were decided before; nothing is written."""
        known = self._decision(source)
        return known is not None and self._places(source, self._decide(source, rows)) == self._places(source, known)

    def _decide(self, source: int, rows: Iterable[Claim]) -> Decision:
        taken = {file.path: file.sha256 for file in self.merged(source)}
        return deciding.decide(source, rows, self.inventory(source) or Inventory(()), taken)

    def _places(self, source: int, decision: Decision) -> dict[str, str]:
        """SHA-256 of what a decision brings to each place."""
        delivered = self.inventory(source) or Inventory(())
        return {target: delivered.hashes[file.path] for file in decision.carried for target in file.targets}

    def _decision(self, number: int) -> Decision | None:
        if number == CENTRAL:
            known = self.inventory(CENTRAL)
            files = known.files if known is not None else ()
            return Decision(CENTRAL, tuple(Carried(f.path, Fate.INSERTED, (f"files/{f.path}",)) for f in files))
        kept = self._read(f"decision-{number}")
        if kept is None:
            return None
        carried = tuple(Carried(c["path"], Fate(c["fate"]), tuple(c["targets"])) for c in kept["carried"])
        keys = (tuple(kept[name]) for name in ("missing_keys", "conflicts", "clashes"))
        return Decision(number, carried, kept["rows"], kept["missing"], *keys)

    # After the merge

    def carry(self, number: int, jobs: int = 2, on_progress: OnProgress = lambda done, total: None) -> Ledger:
        """Bring the files of the central, or of a merged source, to their places. May be called again at any time.

        :param on_progress: called with bytes done and bytes in all.
        :raises BackupError: a delivered file is not what it was when stock was taken.
        :raises MergeError: a place is taken by something else, or there is no room.
        """
        decision, delivered = self._decision(number), self.inventory(number)
        if decision is None:
            raise MergeError(
                text(
                    pt=f"Nada foi decidido sobre os anexos da origem {number}.",
                    en=f"Nothing was decided on the attachments of source {number}.",
                )
            )
        if delivered is not None:
            self._carry(number, decision, delivered, jobs, on_progress)
        return Ledger(
            number,
            len(decision.carried),
            delivered.size if delivered is not None else 0,
            decision.counts(),
            decision.rows,
            decision.missing,
            decision.missing_keys,
            len(decision.conflicts),
            decision.conflicts[: deciding.SHOWN],
        )

    def _carry(self, number: int, decision: Decision, delivered: Inventory, jobs: int, on_progress: OnProgress) -> None:
        directory = Path(self._read(f"inventory-{number}")["directory"])
        files = {file.path: file for file in delivered.files}
        work = [(files[c.path], target) for c in decision.carried for target in c.targets]
        progress = _Progress(sum(file.size for file, _ in work), on_progress)
        partial = self._state / "partial"
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
        partial.mkdir(mode=0o700, parents=True)

        def place(job: tuple[int, tuple[File, str]]) -> None:
            position, (file, target) = job
            try:
                _place(directory / file.path, self.folder / target, partial / str(position), file.sha256, progress)
            except OSError as ex:
                raise MergeError(
                    text(
                        pt=f"Um anexo não pôde ser trazido: {ex.strerror}.",
                        en=f"An attachment could not be brought along: {ex.strerror}.",
                    ),
                    evidence=self._state / f"decision-{number}.json",
                    next_step=text(
                        pt="Resolva a causa e continue com invoke homolog --resume.",
                        en="Solve the cause and go on with invoke homolog --resume.",
                    ),
                ) from None  # its message names the file

        _in_parallel(place, enumerate(work), jobs)
        partial.rmdir()

    # What is remembered

    def _write(self, name: str, content: Any) -> None:
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = self._state / f"{name}.new"
        with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)  # in ASCII: a name may be in no encoding
        making.replace(self._state / f"{name}.json")

    def _read(self, name: str) -> Any:
        path = self._state / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# Files


def _place(source: Path, target: Path, partial: Path, sha256: str, progress: _Progress) -> None:
    """Put the bytes of `source` at `target`, unless they are there already."""
    if target.exists() or target.is_symlink():
        with _open(target) as file:
            _, found = _digest(file, progress)
        if found != sha256:
            raise MergeError(
                text(
                    pt="O lugar de um anexo já está ocupado por outro arquivo; nada foi sobrescrito.",
                    en="The place of an attachment is taken by another file; nothing was overwritten.",
                )
            )
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open(source) as original, partial.open("x+b") as copy:
        partial.chmod(0o600)
        if _copy(original, copy, progress) != sha256:
            raise BackupError(
                text(
                    pt="Um anexo entregue mudou desde que a pasta foi examinada.",
                    en="A delivered attachment changed since the directory was inspected.",
                ),
                evidence=partial.parents[1],
                next_step=text(
                    pt="Entregue uma cópia que ninguém altere, e comece outra execução.",
                    en="Deliver a copy that nobody changes, and start another run.",
                ),
            )
        info = os.fstat(original.fileno())
    os.utime(partial, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.link(partial, target)  # fails if the place is taken, unlike a rename
    partial.unlink()


def _copy(original: IO[bytes], copy: IO[bytes], progress: _Progress) -> str:
    """Copy a file, or clone it; return the SHA-256 of what is in the copy."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.ioctl(copy.fileno(), _CLONE, original.fileno())
        return _digest(copy, progress)[1]
    digest = hashlib.sha256()
    while chunk := original.read(_CHUNK):
        copy.write(chunk)
        digest.update(chunk)
        progress.add(len(chunk))
    return digest.hexdigest()


def _open(path: Path) -> IO[bytes]:
    """Open a plain file for reading; a link is refused."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(None, text(pt="não é um arquivo comum", en="not a plain file"))
    return file


def _digest(file: IO[bytes], progress: _Progress) -> tuple[int, str]:
    """Bytes and SHA-256 of an open file."""
    digest = hashlib.sha256()
    size = 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        progress.add(len(chunk))
    return size, digest.hexdigest()


@dataclass
class _Progress:
    """Bytes done of bytes in all; safe for threads."""

    total: int
    on_progress: OnProgress
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.on_progress(self.done, self.total)


def _in_parallel(work: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> list[Any]:
    """Do it for every item, results in the items' order; the first error stops what has not begun."""
    waiting = iter(items)
    results: list[Any] = []
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        while batch := list(islice(waiting, _BATCH)):
            results += pool.map(work, batch)
    return results
