"""PEC's installer, as the municipality has it: a JAR of 700 to 900 MB, which goes into an image and nowhere else."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.errors import ConfigError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MANIFEST = "META-INF/MANIFEST.MF"
_CHUNK = 2**20
_NAME = re.compile(r"eSUS-AB-PEC-(\d+(?:\.\d+)+)", re.IGNORECASE)
_VERSION = re.compile(r"^Implementation-Version:\s*(\d+(?:\.\d+)+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Installer:
    """An installer JAR.

    :param sha256: of the file, in hexadecimal digits.
    :param size: bytes of the file.
    :param version: version of PEC, None if neither its name nor its manifest tells.
    """

    path: Path
    sha256: str
    size: int
    version: str | None


def inspect(jar: Path) -> Installer:
    """Check that a file is a JAR that can be started, and compute its SHA-256: seconds for the usual size.

    :raises ConfigError: if it is not there or is something else.
    """
    manifest = _manifest(jar)
    if "Main-Class:" not in manifest:
        raise _unfit(jar, text(pt=f"não há Main-Class em {_MANIFEST}", en=f"there is no Main-Class in {_MANIFEST}"))
    with jar.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Installer(jar.resolve(), sha256, jar.stat().st_size, _version(jar, manifest))


def version_of(jar: Path) -> str | None:
    """PEC's version, by the name of the installer or, if that was changed, by its manifest; None if unknown.

    What counts in the end is what PEC says of itself and its database when it has started.

    :raises ConfigError: if the file is no JAR.
    """
    return _version(jar, _manifest(jar))


def context(installer: Installer, folder: Path) -> Iterator[bytes]:
    """The context of a Docker build, as a tar: the files of a folder, and the JAR below ``installer/``; streamed.

    :raises ConfigError: if the JAR is no longer the one that was inspected.
    """
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        member = tarfile.TarInfo(path.name)
        member.size, member.mode = len(content), 0o755  # Windows does not know which are programs
        yield from (member.tobuf(), content, _padding(member.size))
    member = tarfile.TarInfo(f"installer/{installer.path.name}")
    member.size = installer.size
    yield member.tobuf()
    digest, left = hashlib.sha256(), installer.size
    with installer.path.open("rb") as file:
        while chunk := file.read(min(_CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
    if left or digest.hexdigest() != installer.sha256:
        raise _unfit(installer.path, text(pt="mudou enquanto era lido", en="it changed while it was read"))
    yield _padding(installer.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _version(jar: Path, manifest: str) -> str | None:
    found = _NAME.search(jar.name) or _VERSION.search(manifest)
    return found[1] if found else None


def _manifest(jar: Path) -> str:
    """The manifest of a JAR, "" if it has none; a program with a JAR inside (that for Windows) is none."""
    try:
        with jar.open("rb") as file:
            start = file.read(4)
        if start == b"PK\x03\x04":
            with zipfile.ZipFile(jar) as archive, suppress(KeyError):
                return archive.read(_MANIFEST).decode(errors="replace").replace("\r\n", "\n")
            return ""
    except OSError as ex:
        raise ConfigError(
            text(pt=f"O instalador {jar} não pôde ser lido.", en=f"The installer {jar} cannot be read."),
            details=[str(ex.strerror)],
        ) from None
    except zipfile.BadZipFile:
        raise _unfit(jar, text(pt="o ZIP está truncado ou corrompido", en="the ZIP is truncated or corrupt")) from None
    raise _unfit(jar, text(pt="não é um ZIP", en="it is no ZIP"))


def _unfit(jar: Path, why: str) -> ConfigError:
    return ConfigError(
        text(pt=f"{jar.name} não é um instalador do PEC: {why}.", en=f"{jar.name} is no installer of PEC: {why}."),
        evidence=jar,
        next_step=text(
            pt="Baixe de novo o instalador para Linux (eSUS-AB-PEC-…-Linux64.jar) da página oficial e compare o "
            "tamanho.",
            en="Download the installer for Linux (eSUS-AB-PEC-…-Linux64.jar) again from the official page and compare "
            "its size.",
        ),
    )
