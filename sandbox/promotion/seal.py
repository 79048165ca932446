"""The senders' backups are put away for twenty years: encrypted, listed with their hashes, and opened once to prove it.

The format is that of age (age-encryption.org), which public programs open without this tool. A folder is put away as a
tar file. Whatever is sealed is compared with what the run took in, opened again and compared once more, and only then
listed in ``catalogue.json`` and ``CATALOGO.md``. Nothing in the archive is ever overwritten; originals are only read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyrage

from merge.errors import BackupError, ConfigError
from merge.language import text
from sandbox import carry, events, words
from sandbox.attachments import Attachments
from sandbox.lock import exclusive
from sandbox.options import options_of
from sandbox.promotion.manifest_content import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from sandbox.console import Reporter
    from sandbox.runs import Run

    Progress = Callable[[int, int], None]

YEARS = 20
"""For how long the law (13.787/2018) wants medical records to be kept, from the last entry on."""

CATALOGUE, READABLE = "catalogue.json", "CATALOGO.md"
_MAKING = ".making"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Sealed:
    """One backup, or the attachments of one base, in the archive.

    :param run: id of the run that took it in; `of` the name of its base there.
    :param what: ``backup`` or ``attachments``; `original` what it was called.
    :param file: below the archive's folder; ``….tar.age`` if it was a folder.
    :param sha256: as the run has it: of the file, or of the list of a folder's files' hashes.
    :param plain_sha256: and `plain_bytes`: of what comes out when it is opened.
    :param sealed_sha256: and `sealed_bytes`: of the file in the archive.
    :param recipient: public part of the identity that opens it.
    :param at: when it was sealed (ISO 8601, UTC), and `by` whom; `keep_until` a date.
    """

    run: str
    of: str
    what: str
    original: str
    file: str
    sha256: str
    plain_sha256: str
    plain_bytes: int
    sealed_sha256: str
    sealed_bytes: int
    recipient: str
    at: str
    by: str
    keep_until: str


@dataclass(frozen=True)
class _Item:
    """Something to be sealed: `expected` is what its `Sealed.sha256` must be."""

    of: str
    what: str
    path: Path
    expected: str

    @property
    def name(self) -> str:
        """How it is called in the archive, without what cannot be in a file's name everywhere."""
        name = re.sub(
            r"[^\w.-]+", "_", f"{self.of}-{self.path.name}" if self.what == "backup" else f"{self.of}-{self.what}"
        )
        return f"{name}.tar.age" if self.path.is_dir() else f"{name}.age"


def seal(
    run: Run, archive: Path, identity: pyrage.x25519.Identity, reporter: Reporter, *, central: bool = False
) -> tuple[Sealed, ...]:
    """Put away what the senders of a run delivered; what is there already is not sealed again. Locked by the caller.

    :param archive: folder of the archive, made if it is missing.
    :param identity: opens what is sealed; it must not be kept beside it.
    :param central: also the central's.
    :return: all entries of this run.
    :raises BackupError: something is gone, or not what the run took in; nothing of it is listed.
    :raises ConfigError: there is no room, or the archive cannot be used.
    """
    items = _items(run, central=central)
    try:
        archive.mkdir(mode=0o700, parents=True, exist_ok=True)
        (archive / run.id).mkdir(mode=0o700, exist_ok=True)
    except OSError as ex:
        raise ConfigError(
            text(
                pt=f"A pasta do arquivo não serve: {ex.strerror}.",
                en=f"The archive's folder will not do: {ex.strerror}.",
            ),
            evidence=archive,
        ) from None
    with exclusive(archive / ".lock"):
        waiting = [item for item in items if not _is_there(run, archive, item)]
        _check_there(waiting)
        _check_room(waiting, archive)
        for item in waiting:
            title = text(pt=f"Guardar {item.of} ({_what(item.what)})", en=f"Put {item.of} away ({_what(item.what)})")
            with reporter.step(title):
                _seal(run, archive, item, identity, reporter.progress)
        found = tuple(one for one in catalogue(archive) if one.run == run.id)
    if waiting:
        run.attest("sealed", files=len(waiting), sha256=[one.sealed_sha256 for one in found])
    return found


def catalogue(archive: Path) -> tuple[Sealed, ...]:
    """All that is in an archive.

    :raises ConfigError: the catalogue is damaged.
    """
    path = archive / CATALOGUE
    try:
        return tuple(Sealed(**one) for one in json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()
    except (ValueError, TypeError):
        raise ConfigError(
            text(pt="O catálogo do arquivo está danificado.", en="The archive's catalogue is damaged."), evidence=path
        ) from None


def check(archive: Path, identity: pyrage.x25519.Identity, reporter: Reporter) -> tuple[str, ...]:
    """Open everything in an archive again; return what is gone, does not open, or is not what was sealed."""
    problems = []
    for one in catalogue(archive):
        with reporter.step(f"{one.run}: {one.file}"):
            if problem := _problem(archive / one.file, one, identity, reporter.progress):
                problems.append(f"{one.file}: {problem}")
    return tuple(problems)


def _problem(path: Path, one: Sealed, identity: pyrage.x25519.Identity, on_progress: Progress) -> str | None:
    if not path.is_file():
        return text(pt="não está lá", en="it is not there")
    try:
        plain, sealed = _opened(path, identity, on_progress)
    except (OSError, pyrage.DecryptError):
        return text(pt="não abre com esta identidade", en="it does not open with this identity")
    if (plain.digest, sealed.digest) != (one.plain_sha256, one.sealed_sha256):
        return text(pt="não é o que foi guardado", en="it is not what was put away")
    return None


# What is to be sealed


def _items(run: Run, *, central: bool) -> list[_Item]:
    inputs = run.load("inputs") if run.has("inputs") else {}
    names = list(inputs)
    items = [_Item(name, "backup", Path(inputs[name]["path"]), inputs[name]["sha256"]) for name in names]
    store = Attachments(run.folder / carry.FOLDER)
    for name, directory in options_of(run).attachments:
        if name in names and (known := store.inventory(names.index(name))) is not None:
            items.append(_Item(name, "attachments", directory, listed(known.hashes)["sha256"]))
    wanted = [item for item in items if central or item.of != "central"]
    if not wanted:
        raise BackupError(
            text(pt=f"A execução {run.id} não recebeu backups.", en=f"The run {run.id} took no backups in."),
            evidence=run.folder,
        )
    return wanted


def _is_there(run: Run, archive: Path, item: _Item) -> bool:
    """True if it is listed; if the one that listed it was killed right then, it gets its place now."""
    for one in catalogue(archive):
        if (one.run, one.of, one.what, one.sha256) == (run.id, item.of, item.what, item.expected):
            path = archive / one.file
            making = path.with_name(path.name + _MAKING)
            if not path.exists() and making.exists() and making.stat().st_size == one.sealed_bytes:
                making.rename(path)
            return path.exists()
    return False


def _check_there(items: Sequence[_Item]) -> None:
    if missing := [f"{item.of}: {item.path}" for item in items if not item.path.exists()]:
        raise BackupError(
            text(pt="O que se quer guardar não está mais lá.", en="What is to be put away is gone."),
            details=missing,
            next_step=text(
                pt="Ponha os backups onde estavam quando a execução os recebeu.",
                en="Put the backups where they were when the run took them in.",
            ),
        )


def _check_room(items: Sequence[_Item], archive: Path) -> None:
    needed = sum(_size(item.path) for item in items)
    free = shutil.disk_usage(archive).free
    if free < needed * 1.01:
        raise ConfigError(
            text(
                pt=f"Faltam {words.size(int(needed * 1.01) - free)} livres para o arquivo.",
                en=f"{words.size(int(needed * 1.01) - free)} more must be free for the archive.",
            ),
            evidence=archive,
        )


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


# Sealing


class _Measured(io.BufferedIOBase):
    """A stream that is read or written through: counts and hashes its bytes.

    :ivar error: what ended it, an interruption too; pyrage only tells its message.
    """

    def __init__(self, stream: IO[bytes] | None, tell: Callable[[int], None] = lambda _: None) -> None:
        self.size = 0
        self.error: BaseException | None = None
        self._stream, self._tell = stream, tell
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of what went through, in hexadecimal."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        assert self._stream is not None
        try:
            return self._through(self._stream.read(-1 if size is None else size))
        except BaseException as ex:
            self.error = ex
            raise

    def write(self, content: Any, /) -> int:
        return len(self._through(bytes(content)))

    def _through(self, content: bytes) -> bytes:
        self.size += len(content)
        self._hash.update(content)
        self._tell(self.size)
        return content


def _seal(run: Run, archive: Path, item: _Item, identity: pyrage.x25519.Identity, on_progress: Progress) -> None:
    """Seal one item under another name, open it, list it, and give it its name."""
    recipient = identity.to_public()
    path = _free(archive / run.id / item.name)
    making = path.with_name(path.name + _MAKING)
    making.unlink(missing_ok=True)  # of one that was killed, and is not listed
    total = 2 * _size(item.path)
    try:
        with _delivered(item) as (stream, taken):
            plain = _Measured(stream, lambda done: on_progress(done, total))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(making, flags, 0o600), "wb") as file:
                try:
                    pyrage.encrypt_io(plain, file, [recipient])
                except pyrage.EncryptError as ex:
                    raise plain.error or ex from None
                file.flush()
                os.fsync(file.fileno())
                _forget(file)
        if taken(plain) != item.expected:
            raise _changed(item)
        opened, sealed = _opened(making, identity, lambda done, _: on_progress(total // 2 + done, total))
        if (opened.digest, opened.size) != (plain.digest, plain.size):
            raise BackupError(
                text(pt="O que foi guardado não abre como era.", en="What was put away does not open as it was."),
                evidence=archive,
                next_step=text(pt="Confira o disco do arquivo.", en="Check the disk of the archive."),
            )
    except BaseException as ex:
        making.unlink(missing_ok=True)
        if isinstance(ex, OSError | pyrage.EncryptError | pyrage.DecryptError):
            raise _unusable(item, archive, ex) from None
        raise
    now = datetime.now(UTC)
    one = Sealed(
        run=run.id,
        of=item.of,
        what=item.what,
        original=item.path.name,
        file=path.relative_to(archive).as_posix(),
        sha256=item.expected,
        plain_sha256=plain.digest,
        plain_bytes=plain.size,
        sealed_sha256=sealed.digest,
        sealed_bytes=sealed.size,
        recipient=str(recipient),
        at=now.isoformat(timespec="seconds"),
        by=events.operator(),
        keep_until=_later(now.date()).isoformat(),
    )
    _list(archive, (*(known for known in catalogue(archive) if known.file != one.file), one))  # which was gone
    making.rename(path)


def _later(day: date) -> date:
    try:
        return day.replace(year=day.year + YEARS)
    except ValueError:  # 29 February
        return day.replace(year=day.year + YEARS, day=28)


def _free(path: Path) -> Path:
    """The path, or one with a number if it is taken."""
    number, wanted = 1, path
    while path.exists():
        number += 1
        path = wanted.with_name(f"{number}-{wanted.name}")
    return path


def _opened(path: Path, identity: pyrage.x25519.Identity, on_progress: Progress) -> tuple[_Measured, _Measured]:
    """Open a sealed file to its end; return what came out, and what was read."""
    total = path.stat().st_size
    with path.open("rb") as file:
        sealed = _Measured(file, lambda done: on_progress(done, total))
        plain = _Measured(None)
        try:
            pyrage.decrypt_io(sealed, plain, [identity])
        except (OSError, pyrage.DecryptError) as ex:
            raise sealed.error or ex from None
    return plain, sealed


def _forget(file: IO[bytes]) -> None:
    """Have the system read the file from its disk when it is opened."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _changed(item: _Item) -> BackupError:
    return BackupError(
        text(
            pt=f"O que {item.of} entregou ({_what(item.what)}) não é mais o que a execução recebeu.",
            en=f"What {item.of} delivered ({_what(item.what)}) is not what the run took in any more.",
        ),
        evidence=item.path,
        next_step=text(
            pt="Guarde o original: procure a cópia com o sha256 que a execução anotou.",
            en="Put the original away: look for the copy with the sha256 that the run noted.",
        ),
        details=[item.expected],
    )


def _unusable(item: _Item, archive: Path, ex: Exception) -> BackupError:
    """Its own message may name a file, which may hold the name of a person."""
    reason = (ex.strerror if isinstance(ex, OSError) else None) or type(ex).__name__
    return BackupError(
        text(
            pt=f"{item.of} ({_what(item.what)}) não pôde ser guardado: {reason}.",
            en=f"{item.of} ({_what(item.what)}) could not be put away: {reason}.",
        ),
        evidence=archive,
        next_step=text(pt="Resolva a causa e repita; o que está no catálogo, está guardado.",
                       en="Solve the cause and do it again; what is in the catalogue is put away."),
    )  # fmt: skip


# What was delivered, as a stream


@contextmanager
def _delivered(item: _Item) -> Iterator[tuple[IO[bytes], Callable[[_Measured], str]]]:
    """A stream of a file, or of a folder as tar; and what gives its hash as the run has it, at the end."""
    if item.path.is_dir():
        hashes: dict[str, str] = {}
        yield io.BufferedReader(_Pieces(_tar(item.path, hashes)), _CHUNK), lambda _: str(listed(hashes)["sha256"])
        return
    with item.path.open("rb", buffering=_CHUNK) as file:
        yield file, lambda plain: plain.digest


class _Pieces(io.RawIOBase):
    """A stream of what an iterator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            if (piece := next(self._pieces, None)) is None:
                return 0
            self._left = piece
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def _tar(folder: Path, hashes: dict[str, str]) -> Iterator[bytes]:
    """A tar file of all files below a folder, and the hash of each by its path; no link is followed."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            continue
        if not stat.S_ISREG(info.st_mode):
            raise OSError(None, text(pt="há um item que não é um arquivo comum", en="something is not a plain file"))
        member = tarfile.TarInfo(path.relative_to(folder).as_posix())
        member.size, member.mtime, member.mode = info.st_size, int(info.st_mtime), 0o600
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        digest, left = hashlib.sha256(), info.st_size
        with path.open("rb") as file:
            while left and (piece := file.read(min(_CHUNK, left))):
                digest.update(piece)
                left -= len(piece)
                yield piece
        if left:
            raise OSError(None, text(pt="um arquivo encurtou", en="a file became shorter"))
        yield bytes(-info.st_size % tarfile.BLOCKSIZE)
        hashes[member.name] = digest.hexdigest()
    yield bytes(2 * tarfile.BLOCKSIZE)


# The catalogue


def _what(what: str) -> str:
    return {"backup": "backup", "attachments": text(pt="anexos", en="attachments")}[what]


def _list(archive: Path, entries: Sequence[Sealed]) -> None:
    _write(archive / READABLE, _readable(entries))
    _write(archive / CATALOGUE, json.dumps([asdict(one) for one in entries], ensure_ascii=False, indent=1))


def _write(path: Path, content: str) -> None:
    making = path.with_name(path.name + ".new")
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)


def _readable(entries: Sequence[Sealed]) -> str:
    head = text(
        pt="# Catálogo do arquivo\n\n"
        "Backups das instalações que foram unificadas, cifrados no formato age (age-encryption.org). Guarde esta pasta "
        f"por {YEARS} anos, em dois lugares, e a identidade que a abre à parte dela.\n\n"
        "Para abrir, com o programa `age`, sem esta ferramenta:\n\n"
        "```\nage -d -i archive-identity.txt -o backup ARQUIVO.age\nsha256sum backup\n```\n\n"
        "De um `.tar.age` sai um arquivo tar: `tar -xf backup`.\n",
        en="# Catalogue of the archive\n\n"
        "Backups of the installations that were merged, encrypted in the format of age (age-encryption.org). Keep this "
        f"folder for {YEARS} years, in two places, and the identity that opens it apart from it.\n\n"
        "To open, with the program `age`, without this tool:\n\n"
        "```\nage -d -i archive-identity.txt -o backup FILE.age\nsha256sum backup\n```\n\n"
        "Out of a `.tar.age` comes a tar file: `tar -xf backup`.\n",
    )
    return head + "".join(_paragraph(one) for one in entries)


def _paragraph(one: Sealed) -> str:
    lines = [
        (text(pt="execução", en="run"), one.run),
        (text(pt="original", en="original"), one.original),
        (text(pt="sha256 ao abrir", en="sha256 when opened"), f"{one.plain_sha256} ({words.size(one.plain_bytes)})"),
        (text(pt="sha256 guardado", en="sha256 as kept"), f"{one.sealed_sha256} ({words.size(one.sealed_bytes)})"),
        (text(pt="destinatário", en="recipient"), one.recipient),
        (text(pt="guardado em", en="put away"), f"{one.at}, {one.by}"),
        (text(pt="guardar até", en="keep until"), one.keep_until),
    ]
    return f"\n## {one.of} ({_what(one.what)}): {one.file}\n\n" + "".join(
        f"- {what}: {value}\n" for what, value in lines
    )
