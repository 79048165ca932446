"""What a file is by its first bytes, and how a dump is taken out of a gzip or zip file."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from merge.errors import BackupError
from merge.language import text
from sandbox import archive, openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD = 1 << 16
"""Bytes that `kind_of` wants to see."""

_CHUNK = 1 << 20
_KEPT_FREE = 256 << 20
_SAFE_NAME = re.compile(r"[\w.]+")

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "PDF"),
    (b"SQLite format 3", "SQLite"),
    (b"PAR1", "Parquet"),
    (b"\xd0\xcf\x11\xe0", "Microsoft Office"),
    (b"MZ", "Windows"),
    (b"\x7fELF", "Linux"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"Rar!", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
)
_COMPRESSED = ("bzip2", "xz", "zstd", "lz4", "RAR", "7-Zip")
_ENCRYPTED: tuple[tuple[bytes, str], ...] = (
    (b"age-encryption.org/", "age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    (b"-----BEGIN PGP MESSAGE-----", "GPG"),
    (b"Salted__", "OpenSSL"),
    (b"U2FsdGVkX1", "OpenSSL"),
    (b"LUKS\xba\xbe", "LUKS"),
)
_OTHER_DUMPS = (
    (re.compile(rb"^-- (?:MySQL|MariaDB) dump|^/\*!\d{5} SET|^/\*M?!999999", re.M), "MySQL/MariaDB"),
    (re.compile(rb"^-- phpMyAdmin", re.M), "MySQL/MariaDB"),
    (re.compile(rb"^\s*PRAGMA foreign_keys", re.M), "SQLite"),
    (re.compile(rb"SQL Server|^\s*USE \[", re.M), "SQL Server"),
)


def kind_of(head: bytes) -> str:
    """Return ``custom``, ``tar``, ``gzip``, ``zip`` or ``plain`` for the file that begins with `head`.

    :raises BackupError: for anything else, with what it looks like.
    """
    if not head.strip(b"\0"):
        raise _refuse_empty()
    if head.startswith(archive.MAGIC):
        if archive.is_custom(head):
            return "custom"
        raise _refuse_toc()
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar" or head.startswith(b"toc.dat\0"):
        return "tar"
    if b"-- PostgreSQL database dump" in head[:4096] and b"\0" not in head:
        return "plain"
    raise _not_a_dump(head)


def _not_a_dump(head: bytes) -> BackupError:
    for signature, name in _ENCRYPTED:
        if head.startswith(signature):
            return refuse_encrypted(name)
    for signature, name in _FOREIGN:
        if head.startswith(signature):
            return refuse_compressed(name) if name in _COMPRESSED else refuse_foreign(name)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _refuse_utf16()
    if b"-- PostgreSQL database cluster dump" in head[:4096]:
        return _refuse_cluster()
    if b"\0" not in head:
        for pattern, name in _OTHER_DUMPS:
            if pattern.search(head):
                return refuse_foreign(name)
    return refuse_encrypted("GPG") if openpgp.is_message(head) else refuse_foreign(None)


# Wrappers


def unwrap(path: Path, kind: str, folder: Path) -> Path:
    """Take the dump out of a gzip or zip file, or out of a tar file that holds a dump's folder.

    :param folder: made if missing (0700); files in it are 0600.
    :return: a file or a folder; `path` itself for a tar file that pg_dump made.
    :raises BackupError: truncated, corrupt, encrypted, without a dump or with several, or too large for the disk.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        if kind == "gzip":
            target = folder / "dump"
            with gzip.open(path) as file:
                kind_of(file.read(HEAD))  # what is no dump is not decompressed to its end
            with gzip.open(path) as file:
                _copy(file, target)
            return target
        return _unzip(path, folder) if kind == "zip" else _untar(path, folder)
    except (EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, NotImplementedError) as ex:
        raise refuse_broken(kind, truncated=isinstance(ex, EOFError)) from None


def _unzip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as file:
        members = [m for m in file.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
        if any(m.flag_bits & 1 for m in members):
            raise refuse_encrypted("ZIP")
        _check_room(folder, sum(m.file_size for m in members))
        found = _candidates({m.filename: _head_of(file, m) for m in members})
        name, is_folder = _only(found)
        if not is_folder:
            with file.open(name) as member:
                _copy(member, folder / "dump")
            return folder / "dump"
        inside = [(m, PurePosixPath(m.filename)) for m in members]
        return _take_folder(
            folder, ((p.name, file.open(m)) for m, p in inside if str(p.parent) == name)
        )  # fmt: skip


def _untar(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "r:") as file:
        members = [m for m in _members(file) if m.isreg()]
        by_name = {str(PurePosixPath(m.name)): m for m in members}
        if {"toc.dat", "restore.sql"} <= by_name.keys():
            return path
        toc = [n for n in by_name if PurePosixPath(n).name == "toc.dat"]
        if any(PurePosixPath(n).name == "PG_VERSION" for n in by_name):
            raise refuse_data_directory()
        name, _ = _only([(str(PurePosixPath(n).parent), True) for n in toc])
        _check_room(folder, sum(m.size for m in members))
        inside = [(m, PurePosixPath(m.name)) for m in members]
        return _take_folder(
            folder, ((p.name, file.extractfile(m)) for m, p in inside if str(p.parent) == name)
        )  # fmt: skip


def _members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in their order; a size below zero, which some versions of Python follow for ever, is corrupt."""
    before = -1
    for member in file:
        if member.size < 0 or file.offset <= before:
            raise tarfile.ReadError
        before = file.offset
        yield member


def _head_of(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with file.open(member) as content:
        return content.read(HEAD)


def _candidates(heads: dict[str, bytes]) -> list[tuple[str, bool]]:
    """Names of dumps among members, each with whether it is a folder."""
    found: list[tuple[str, bool]] = []
    names = {PurePosixPath(name).name for name in heads}
    for name, head in heads.items():
        path = PurePosixPath(name)
        if path.name == "toc.dat" and head.startswith(archive.MAGIC):
            found.append((str(path.parent), True))
            continue
        try:
            kind_of(head)
        except BackupError:
            continue
        found.append((name, False))
    folders = {name for name, is_folder in found if is_folder}
    found = [(n, f) for n, f in found if f or str(PurePosixPath(n).parent) not in folders]
    if not found and "PG_VERSION" in names:
        raise refuse_data_directory()
    if not found and len(heads) == 1:
        kind_of(next(iter(heads.values())))  # tells what it is instead
    return found


def _only(found: list[tuple[str, bool]]) -> tuple[str, bool]:
    if len(found) == 1:
        return found[0]
    if not found:
        raise refuse_foreign(None)
    raise BackupError(
        text(pt="O arquivo compactado tem mais de um backup.", en="The compressed file holds more than one backup."),
        next_step=text(pt="Extraia e indique um deles.", en="Take them out and name one of them."),
        details=[name for name, _ in found[:20]],
    )


def _take_folder(folder: Path, members: Iterable[tuple[str, IO[bytes] | None]]) -> Path:
    target = folder / "dump"
    target.mkdir(mode=0o700)
    for name, content in members:
        if content is None:
            continue
        with content:
            if not _SAFE_NAME.fullmatch(name) or name in (".", ".."):
                raise refuse_foreign(None)
            _copy(content, target / name)
    return target


def _copy(content: IO[bytes] | gzip.GzipFile, target: Path) -> None:
    """Copy a stream into a private file, as long as the disk has room."""
    written = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        while chunk := content.read(_CHUNK):
            if written % (64 * _CHUNK) < _CHUNK:
                _check_room(target.parent, len(chunk))
            out.write(chunk)
            written += len(chunk)


def _check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size + _KEPT_FREE:
        raise BackupError(
            text(
                pt="Não há espaço em disco para descompactar o backup.",
                en="There is no room on the disk to decompress the backup.",
            ),
            evidence=folder,
            next_step=text(pt="Libere espaço e tente de novo.", en="Free some space and try again."),
        )


# Refusals


def _refuse_empty() -> BackupError:
    return BackupError(
        text(pt="O arquivo está vazio.", en="The file is empty."),
        next_step=text(pt="Faça o backup outra vez.", en="Take the backup again."),
    )


def _refuse_toc() -> BackupError:
    return BackupError(
        text(
            pt="Este é só o sumário (toc.dat) de um backup em pasta: faltam os dados.",
            en="This is only the table of contents (toc.dat) of a backup in a folder: its data are missing.",
        ),
        next_step=text(pt="Indique a pasta inteira do backup.", en="Name the backup's whole folder."),
    )


def _refuse_utf16() -> BackupError:
    return BackupError(
        text(
            pt="O script SQL está em UTF-16, como o PowerShell grava ao redirecionar a saída com '>'.",
            en="The SQL script is in UTF-16, as PowerShell writes output that is redirected by '>'.",
        ),
        next_step=text(
            pt="Faça o backup de novo com pg_dump -Fc --file ARQUIVO.",
            en="Take the backup again by pg_dump -Fc --file FILE.",
        ),
    )


def _refuse_cluster() -> BackupError:
    return BackupError(
        text(
            pt="Este é um backup de todos os bancos do servidor (pg_dumpall), e não de um só.",
            en="This is a backup of all databases of a server (pg_dumpall), not of one.",
        ),
        next_step=text(pt="Faça o backup de um só banco com pg_dump -Fc.", en="Take one database by pg_dump -Fc."),
    )


def refuse_special() -> BackupError:
    """A pipe or a device, whose reading may never end."""
    return BackupError(
        text(
            pt="Não é um arquivo nem uma pasta (é um pipe, um dispositivo ou um socket).",
            en="It is neither a file nor a folder (but a pipe, a device or a socket).",
        ),
        next_step=text(
            pt="Grave o backup em um arquivo e indique esse arquivo.",
            en="Write the backup to a file and name that file.",
        ),
    )


def refuse_link() -> BackupError:
    """A folder with a link in it: what it leads to, which may be any file of this host, would come as data."""
    return BackupError(
        text(
            pt="A pasta do backup tem links ou arquivos especiais, que o pg_dump não cria.",
            en="The backup's folder holds links or special files, which pg_dump does not make.",
        ),
        next_step=text(
            pt="Copie de novo a pasta inteira da origem, sem links.",
            en="Copy the whole folder again from where it was made, without links.",
        ),
    )


def refuse_broken(kind: str, *, truncated: bool = False) -> BackupError:
    """The wrapper itself cannot be read."""
    return BackupError(
        text(pt=f"O arquivo {kind} está incompleto.", en=f"The {kind} file is incomplete.")
        if truncated
        else text(pt=f"O arquivo {kind} está incompleto ou corrompido.", en=f"The {kind} file is cut off or corrupt."),
        next_step=text(
            pt="Copie o arquivo de novo da origem e compare o sha256.",
            en="Copy the file again from where it was made and compare the sha256.",
        ),
    )


def refuse_encrypted(name: str) -> BackupError:
    """The file is encrypted."""
    return BackupError(
        text(pt=f"O backup está cifrado ({name}).", en=f"The backup is encrypted ({name})."),
        next_step=text(
            pt="Decifre-o antes, num disco protegido, e indique o arquivo decifrado.",
            en="Decrypt it first, on a protected disk, and name the decrypted file.",
        ),
    )


def refuse_compressed(name: str) -> BackupError:
    """Compressed in a way that is not read here."""
    return BackupError(
        text(pt=f"O arquivo está compactado com {name}.", en=f"The file is compressed with {name}."),
        next_step=text(pt="Descompacte-o antes e indique o backup.", en="Decompress it first and name the backup."),
    )


def refuse_foreign(name: str | None) -> BackupError:
    """Not a dump of PostgreSQL."""
    return BackupError(
        text(pt=f"O arquivo não é um backup do PostgreSQL (parece ser {name}).", en=f"Not a PostgreSQL dump ({name}?).")
        if name
        else text(pt="O arquivo não é um backup do PostgreSQL.", en="The file is not a PostgreSQL dump."),
        next_step=text(
            pt="Indique o arquivo feito pela ferramenta de backup do PEC ou pelo pg_dump.",
            en="Name the file made by PEC's backup tool or by pg_dump.",
        ),
    )


def refuse_data_directory() -> BackupError:
    """A copy of a server's files."""
    return BackupError(
        text(
            pt="Esta é uma cópia dos arquivos internos do servidor PostgreSQL, e não um backup do pg_dump.",
            en="This is a copy of a PostgreSQL server's own files, not a dump by pg_dump.",
        ),
        next_step=text(
            pt="Faça o backup pela ferramenta do PEC ou com pg_dump -Fc.", en="Take it by PEC's tool or by pg_dump -Fc."
        ),
    )
