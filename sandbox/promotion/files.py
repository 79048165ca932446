"""Attachments outside the database: added to production's directory before the databases are swapped, and taken back.

Adding is harmless while the old database is in use, as nothing there refers to the new files, and makes the directory
complete for the new one. Nothing that is there is changed or overwritten. What was added stands in a journal in the
run's folder of attachments, where names of files belong: they may hold names of people. Messages count.

A file is written aside, brought to the disk, noted, and then gets its place in one instant, if that is free. Killed at
any point, `add` and `remove` go on when they are called again. The way back moves what was added, and is still as it
was added, into the run's folder; it deletes nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from merge.errors import PromotionRefused
from merge.language import text
from sandbox import carry
from sandbox.attachments import CENTRAL, Attachments
from sandbox.promotion import files_look
from sandbox.promotion.files_journal import Journal
from sandbox.promotion.files_look import KEPT_FREE, Progress, digest, new_files, no_room, production, state_of
from sandbox.promotion.folders import Astray, Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from merge.attachments import File
    from sandbox.promotion.files_look import OnProgress
    from sandbox.runs import Run

ROLLED_BACK = "rolled-back"
"""Folder of the run's attachments with what was taken back."""

_BATCH = 256
"""Files between two notes in the journal."""
_WRITERS = 8
"""Files that are brought to the disk at a time: it takes several in one go."""
_SAMPLE = 1000
_MAKING = f"{files_look.ASIDE}making"


@dataclass(frozen=True)
class Added:
    """Files that are in production's directory because of this run, and their bytes.

    :param present: others, which were there already with the same bytes; they stay when the run is rolled back.
    :param unowned: files that could not be given the owner that the directory's files have.
    """

    files: int
    size: int
    present: int
    unowned: int


@dataclass(frozen=True)
class Removed:
    """Files that were taken back, and their bytes.

    :param changed: files that were changed since they were added; they stay.
    :param gone: files that are there no more.
    """

    files: int
    size: int
    changed: int
    gone: int


def check(
    run: Run, folder: Path | str | None, on_progress: OnProgress = lambda done, total: None, jobs: int = 2
) -> tuple[str, ...]:
    """What forbids to promote the attachments; nothing if there are none.

    :param folder: production's directory, on this machine or mounted; None if the operator named none.
    """
    store = Attachments(run.folder / carry.FOLDER)
    if not store.merged():
        return ()
    if folder is None:
        many = len(new_files(store))
        return (files_look.unnamed(many),) if many else ()
    try:
        with production(run, folder) as place:
            found = files_look.compare(run, store, place, jobs, on_progress)
            may_write = os.access(place.path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    except OSError as ex:
        return (files_look.unusable(ex),)
    return tuple(files_look.reasons(found, may_write=may_write))


def add(
    run: Run, folder: Path | str, on_progress: OnProgress = lambda done, total: None, jobs: int = 2
) -> Added:  # fmt: skip
    """Add the files that the merge brings to production's directory. It can be called again at any time.

    :param on_progress: called with bytes done and bytes in all.
    :raises PromotionRefused: a place is taken, a file is not what was merged, or the disk refuses. What was added until
        then stays noted: call it again, or `remove`.
    """
    store = Attachments(run.folder / carry.FOLDER)
    new = new_files(store)
    if not new:
        return Added(0, 0, 0, 0)
    with _refusing(run), production(run, folder) as place, Folder(store.folder / "files") as merged:
        _demand_room(place, new)
        return _Addition(run, store, place, merged, new, jobs, Progress(sum(f.size for f in new), on_progress)).make()


def remove(run: Run, folder: Path | str | None = None) -> Removed:
    """Take back what `add` has added and nobody changed, into the run's folder. It can be called again at any time.

    :param folder: production's directory; by default the one to which the files were added.
    :raises PromotionRefused: the disk refuses. What is left there is harmless.
    """
    store = Attachments(run.folder / carry.FOLDER)
    journal = Journal(store)
    if not (journal.files or journal.folders):
        return Removed(0, 0, 0, 0)
    if folder is not None and Path(folder).resolve() != Path(journal.directory).resolve():
        raise _other_folder(run, text(pt="os anexos foram acrescentados a outra pasta", en="they were added elsewhere"))
    central = store.inventory(CENTRAL)
    if central is not None and central.files and not any(_exists(journal.directory, f.path) for f in central.files):
        raise _other_folder(run, text(pt="nada do central está lá", en="nothing of the central is there"))
    kept = store.folder / ROLLED_BACK
    kept.mkdir(mode=0o700, exist_ok=True)
    outcomes: Counter[str] = Counter()
    done: list[dict[str, str]] = []
    size = 0
    with _refusing(run), production(run, folder or journal.directory) as place, Folder(kept) as back:
        for folder_of_ours, aside in ((place, _aside(run)), (back, _MAKING)):
            _clear(folder_of_ours, aside)
        back.make_folder(_MAKING)
        waiting = iter(tuple(journal.files.values()))
        with ThreadPoolExecutor(_WRITERS) as pool:
            while batch := list(islice(waiting, _BATCH)):
                for file, outcome in zip(batch, _take_back(place, back, batch, pool), strict=True):
                    outcomes[outcome] += 1
                    size += file.size if outcome == "back" else 0
                    if outcome != "changed":
                        done.append({"back": file.path})
                journal.note(*done)
                done.clear()
        _clear(back, _MAKING)
        journal.note(*({"unmade": made} for made in reversed(journal.folders) if place.remove_folder(made)))
    return Removed(outcomes["back"], size, outcomes["changed"], outcomes["gone"])


def _exists(folder: str, path: str) -> bool:
    return os.path.lexists(os.path.join(folder, path))  # noqa: PTH118 (a name may be in no encoding)


def _other_folder(run: Run, why: str) -> PromotionRefused:
    return PromotionRefused(
        text(
            pt=f"Esta não parece a pasta de anexos da produção: {why}. Nenhum arquivo foi tocado.",
            en=f"This does not look like production's folder of attachments: {why}. No file was touched.",
        ),
        evidence=run.folder / carry.FOLDER / "state",
        next_step=text(
            pt="Monte a pasta e repita o comando: o banco já voltou, e os arquivos a mais não atrapalham.",
            en="Mount the folder and repeat: the database is back already, and the files do no harm.",
        ),
    )


# Adding


def _demand_room(place: Folder, new: Sequence[File]) -> None:
    needed = sum(file.size for file in new if place.status(file.path) is None)
    free = shutil.disk_usage(place.path).free
    if needed and needed + KEPT_FREE > free:
        raise PromotionRefused(no_room(needed, free), next_step=text(pt="Libere espaço.", en="Make room."))


# Adding


@dataclass
class _Style:
    """Owner and mode of the files that are there."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, place: Folder, files: Iterable[File]) -> _Style:
        seen: Counter[tuple[int, int, int]] = Counter()
        for file in islice(files, _SAMPLE):
            with suppress(OSError):
                if (info := place.status(file.path)) is not None:
                    seen[info.st_uid, info.st_gid, info.st_mode & 0o666] += 1
        if seen:
            return cls(*seen.most_common(1)[0][0])
        info = place.path.stat()
        return cls(info.st_uid, info.st_gid, info.st_mode & 0o666)


@dataclass
class _Addition:
    """One call of `add`."""

    run: Run
    store: Attachments
    place: Folder
    merged: Folder
    new: Sequence[File]
    jobs: int
    progress: Progress
    unowned: int = 0

    def make(self) -> Added:
        journal = Journal(self.store)
        journal.note(folder=str(self.place.path))
        central = self.store.inventory(CENTRAL)
        style = _Style.of(self.place, central.files if central is not None else ())
        aside = _aside(self.run)
        _clear(self.place, aside)
        self.place.make_folder(aside)
        waiting = iter(self.new)
        try:
            with ThreadPoolExecutor(max(self.jobs, _WRITERS)) as pool:
                while batch := list(islice(waiting, _BATCH)):
                    self._add(batch, aside, style, journal, pool)
        finally:
            _clear(self.place, aside)
        ours = [file for file in self.new if file.path in journal.files]
        return Added(len(ours), sum(file.size for file in ours), len(self.new) - len(ours), self.unowned)

    def _add(
        self, batch: Sequence[File], aside: str, style: _Style, journal: Journal, pool: ThreadPoolExecutor
    ) -> None:
        free = [file for file in batch if not self._is_there(file)]
        made = [f"{aside}/{number}" for number in range(len(free))]
        self.unowned += sum(pool.map(lambda file, name: self._write(file, name, style), free, made))
        folders = self._missing_folders(free)
        journal.note(
            *({"made": folder} for folder in folders),
            *({"file": f.path, "sha256": f.sha256, "size": str(f.size)} for f in free),
        )
        for folder in folders:
            self._make_folder(folder)
        for file, name in zip(free, made, strict=True):
            self.place.put(name, file.path)
        list(pool.map(self.place.sync, _parents([*folders, *(file.path for file in free)])))

    def _is_there(self, file: File) -> bool:
        state = state_of(self.place, file, self.progress)
        if state in ("other", "astray"):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return state == "same"

    def _write(self, file: File, name: str, style: _Style) -> bool:
        """Write a file aside; return whether its owner is another than the others have."""
        unowned = False
        with self.merged.read(file.path) as original, self.place.create(name) as copy:
            if digest(original, self.progress.add, copy) != file.sha256:
                raise PromotionRefused(
                    text(
                        pt="Um anexo da execução não é mais o que foi provado.",
                        en="An attachment of the run is no longer what was proved.",
                    ),
                    evidence=self.store.folder,
                    next_step=f"invoke prove --run {self.run.id}",
                )
            copy.flush()
            if hasattr(os, "fchown"):
                try:
                    os.fchown(copy.fileno(), style.uid, style.gid)
                except OSError:
                    unowned = True
                os.fchmod(copy.fileno(), style.mode)
            info = os.fstat(original.fileno())
            if os.utime in os.supports_fd:
                os.utime(copy.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(copy.fileno())
        return unowned

    def _missing_folders(self, files: Iterable[File]) -> list[str]:
        """Folders that are to be made, those above others first: they are removed again if they are empty then."""
        wanted = sorted({p.parts for file in files for p in PurePosixPath(file.path).parents if p.parts})
        paths = (str(PurePosixPath(*parts)) for parts in wanted)
        missing: list[str] = []
        for path in paths:
            above = str(PurePosixPath(path).parent)
            if above in missing or self.place.status(path) is None:
                missing.append(path)
        return missing

    def _make_folder(self, path: str) -> None:
        """Make a folder like the one in which it is."""
        self.place.make_folder(path)
        above = PurePosixPath(path).parent
        like = (self.place.status(str(above)) if above.parts else None) or self.place.path.stat()
        with suppress(OSError):
            self.place.own(path, like.st_uid, like.st_gid, stat.S_IMODE(like.st_mode))


def _parents(paths: Iterable[str]) -> set[str]:
    return {str(PurePosixPath(path).parent) for path in paths}


# Taking back


def _take_back(place: Folder, back: Folder, files: Sequence[File], pool: ThreadPoolExecutor) -> list[str]:
    """Move files: each is ``back``, or ``changed``, or ``gone``. They are safe in the run's folder before one goes."""
    states = list(pool.map(lambda numbered: _copy_back(place, back, *numbered), enumerate(files)))
    ready = [
        (number, file) for number, (file, state) in enumerate(zip(files, states, strict=True)) if state == "copied"
    ]
    for path in sorted({p.parts for _, file in ready for p in PurePosixPath(file.path).parents if p.parts}):
        if back.status(str(PurePosixPath(*path))) is None:
            back.make_folder(str(PurePosixPath(*path)))
    for number, file in ready:
        back.put(f"{_MAKING}/{number}", file.path)
    list(pool.map(back.sync, _parents(file.path for _, file in ready)))
    for file, state in zip(files, states, strict=True):
        if state in ("copied", "kept"):
            place.unlink(file.path)  # a power cut may undo this: what then is there again is harmless
    return ["back" if state in ("copied", "kept", "back") else state for state in states]


def _copy_back(place: Folder, back: Folder, number: int, file: File) -> str:
    """Copy one file into the run's folder: ``copied``; or it is ``kept`` there and still in production's, ``back``
    already, ``changed``, or ``gone``.
    """
    try:
        before = place.status(file.path)
    except Astray:
        return "changed"
    is_kept = state_of(back, file, Progress(0)) == "same"
    if before is None:
        return "back" if is_kept else "gone"
    if not stat.S_ISREG(before.st_mode) or before.st_size != file.size:
        return "changed"
    with place.read(file.path) as original, back.create(f"{_MAKING}/{number}") as copy:
        same = digest(original, lambda _: None, copy) == file.sha256
        copy.flush()
        os.fsync(copy.fileno())
    after = place.status(file.path)
    if not same or after is None or _identity(after) != _identity(before):
        return "changed"
    return "kept" if is_kept else "copied"


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


# Small things


def _aside(run: Run) -> str:
    """The folder in production's directory in which files are written before they get their places."""
    return f"{files_look.ASIDE}{run.id}"


def _clear(place: Folder, aside: str) -> None:
    """Remove what an interrupted call has left aside."""
    if place.status(aside) is not None:
        for name in place.names(aside):
            place.unlink(f"{aside}/{name}")
        place.remove_folder(aside)


@contextmanager
def _refusing(run: Run) -> Iterator[None]:
    """Names of files are not shown: what the system says names them."""
    try:
        yield
    except OSError as ex:
        if isinstance(ex, FileExistsError):
            what = text(
                pt="O lugar de um anexo está ocupado por outra coisa; nada foi sobrescrito.",
                en="The place of an attachment is taken by something else; nothing was overwritten.",
            )
        else:
            what = text(
                pt=f"A pasta de anexos da produção não pôde ser usada: {ex.strerror}.",
                en=f"Production's directory of attachments could not be used: {ex.strerror}.",
            )
        raise PromotionRefused(
            what,
            evidence=run.folder / carry.FOLDER / "state",
            next_step=text(
                pt="O que já foi acrescentado está anotado e não atrapalha. Resolva a causa e repita.",
                en="What was added until then is noted, and harmless. Solve the cause and repeat.",
            ),
        ) from None
