"""The images that runs need: which are here, and how they are carried on a stick to a server without internet.

The file is a tar as ``docker save`` writes it, and ``docker load`` reads it too; before all else it holds
``homolog.json``, the list of what is in it. Beside it is its SHA-256, as ``sha256sum`` writes it. Only the images that
`make` knows get in: programs, no data and no secret.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from rich.table import Table

from merge.errors import ConfigError, ServerError
from merge.language import text
from sandbox import images, installer, words
from sandbox.images import Image
from sandbox.throwaway import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.console import Reporter

LIST = "homolog.json"
"""Name of the list in the file: ``{"schema_version": 1, "images": [{name, id, digest, size, origin, content}]}``."""

_DOCKERS_LIST = "manifest.json"
_LIST_BYTES = 2**20
_CHUNK = 2**20
_NAME = re.compile(r"(homolog-[a-z]+(-[a-z]+)*|postgres):[\w.-]+")
_UNREADABLE = (tarfile.TarError, EOFError, zlib.error, OSError, LookupError, TypeError, ValueError)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Loaded:
    """An image that came from a file.

    :param before: id of the image that had its name until now, "" if there was none.
    """

    image: Image
    before: str


def carry(reporter: Reporter, *, save: Path | None, load: Path | None, asked: Sequence[str], jar: Path | None) -> None:
    """Do what `invoke images` is asked for: save to a file, load from one, or only show.

    :param asked: major versions of PostgreSQL, as in `majors`.
    :raises ConfigError: if both are asked for, or as the functions that do it.
    """
    if save and load:
        raise ConfigError(text(pt="Ou --save ou --load.", en="Either --save or --load."))
    if load:
        with reporter.step(text(pt=f"Carregar {load.name}", en=f"Load {load.name}")):
            came = read(load, reporter, reporter.progress)
        show(reporter, {one.image.name: one.image for one in came})
        for one in came:
            if one.before not in ("", one.image.id):
                name = one.image.name
                reporter.note(text(pt=f"{name} substituiu uma anterior.", en=f"{name} replaced an earlier one."))
        return
    postgres = majors(asked)
    if not save:
        show(reporter, wanted(postgres, jar))
        if not postgres:
            reporter.note(
                text(
                    pt="Nenhuma imagem do PostgreSQL está aqui; a de uma versão: --major 15",
                    en="No image of PostgreSQL is here; that of a version: --major 15",
                )
            )
        return
    if not postgres:
        raise ConfigError(
            text(pt="Que versão do PostgreSQL?", en="Which version of PostgreSQL?"),
            next_step=text(pt="A da produção: --major 9.6", en="That of production: --major 9.6"),
        )
    with reporter.step(text(pt="Buscar ou construir as imagens", en="Find or build the images")):
        found = make(postgres, jar)
    with reporter.step(text(pt=f"Gravar {save.name}", en=f"Write {save.name}")):
        digest = write(save, found, reporter.progress)
    show(reporter, {image.name: image for image in found})
    reporter.note(f"sha256 {digest}  {save}")


def majors(asked: Sequence[str]) -> list[int]:
    """Major versions of PostgreSQL by what was asked (``15``, ``9.6``); without it, those of which an image is here.

    :raises ConfigError: if one is no version.
    """
    found = [re.fullmatch(r"(9)(?:\.6)?|([1-9]\d)", one) for one in asked]
    if wrong := [one for one, match in zip(asked, found, strict=True) if not match]:
        raise ConfigError(
            text(pt="Não é uma versão do PostgreSQL.", en="No version of PostgreSQL."),
            details=wrong,
            next_step=text(pt="Por exemplo: --major 9.6 --major 15", en="For example: --major 9.6 --major 15"),
        )
    return sorted({int(match[1] or match[2]) for match in found if match}) or images.postgres_here()


def wanted(postgres: Sequence[int], jar: Path | None) -> dict[str, Image | None]:
    """The images that runs need, by name, and what is known of those that are here. Makes none.

    :param postgres: major versions of PostgreSQL.
    :param jar: the installer of PEC, if its image is wanted too.
    :raises ConfigError: if that is no installer.
    """
    found = {images.GUARD: images.find(images.GUARD)}
    for major in postgres:
        official, own = images.postgres_names(major)
        here = images.find(official) or images.find(own)
        found[here.name if here else official] = here
    for name in (images.PROXY, images.PEC_BASE):
        found[name] = images.find(name)
    if jar:
        name = images.pec_name(installer.inspect(jar))
        found[name] = images.find(name)
    return found


def make(postgres: Sequence[int], jar: Path | None) -> list[Image]:
    """The images that runs need; those that are not here are pulled or built.

    :raises ServerError: telling what was tried for the first that cannot be had.
    """
    names = [
        images.guard(),
        *(images.postgres(major) for major in postgres),
        images.proxy(),
        images.pec_base(),
        *([images.pec(jar)] if jar else []),
    ]
    return [image for name in names if (image := images.find(name))]


def write(file: Path, found: Sequence[Image], on_progress: Progress) -> str:
    """Write images into one file, compressed if its name ends in ``.gz``; return its SHA-256.

    :param on_progress: called with bytes done and bytes of all.
    :raises ConfigError: if the file is there already or cannot be written; then nothing of it is left.
    """
    beside = _beside(file)
    if taken := [path for path in (file, beside) if path.exists()]:
        raise ConfigError(
            text(pt=f"{taken[0]} já existe.", en=f"{taken[0]} is there already."),
            next_step=text(pt="Apague-o ou escolha outro nome.", en="Remove it or choose another name."),
        )
    making = file.with_name(f"{file.name}.part")
    try:
        with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            digest = _write(raw, found, file.suffix == ".gz", on_progress)
            raw.flush()
            os.fsync(raw.fileno())  # sticks are pulled out early
        write_private(beside, f"{digest}  {file.name}\n")
        making.replace(file)
    except OSError as ex:
        beside.unlink(missing_ok=True)
        raise _not_written(file, ex, sum(image.size for image in found)) from None
    finally:
        making.unlink(missing_ok=True)
    return digest


def read(file: Path, reporter: Reporter, on_progress: Progress) -> list[Loaded]:
    """Load a file's images into Docker, once it is seen that the file is whole and brings nothing else.

    :raises ConfigError: if it is damaged or no such file, or an image is not what the list says.
    :raises ServerError: if Docker refuses it.
    """
    listed = _check(file, reporter)
    before = {image.name: images.find(image.name) for image in listed}
    size = file.stat().st_size
    with images.daemon() as client, file.open("rb") as raw:
        api: Any = client.api
        for said in api.load_image(_chunks(raw, size, on_progress)):
            if "error" in said:
                raise ServerError(
                    text(pt="O Docker recusou o arquivo.", en="Docker refused the file."),
                    evidence=file,
                    details=[str(said["error"])],
                )
    came, wrong = [], []
    for image in listed:
        found, earlier = images.find(image.name), before[image.name]
        if found and found.content == image.content:
            came.append(Loaded(found, earlier.id if earlier else ""))
        else:
            wrong.append(image.name)
    if wrong:
        raise ConfigError(
            text(pt="Imagens não são o que a lista do arquivo diz.", en="Images are not what the file's list says."),
            evidence=file,
            details=wrong,
            next_step=text(
                pt="Não as use: apague-as com docker rmi e traga o arquivo de novo.",
                en="Do not use them: remove them with docker rmi, and bring the file again.",
            ),
        )
    return came


def show(reporter: Reporter, found: dict[str, Image | None]) -> None:
    """Show which images are here, for people or as JSON: ``{"images": [{name, here, id, digest, size, origin}]}``."""
    if reporter.as_json:
        reporter.print_json(
            {
                "images": [
                    {"name": name, "here": image is not None, **(asdict(image) if image else {})}
                    for name, image in found.items()
                ]
            }
        )
        return
    table = Table(box=None)
    table.add_column(text(pt="imagem", en="image"), overflow="fold")
    table.add_column(text(pt="tamanho", en="size"), justify="right")
    table.add_column(text(pt="origem", en="origin"))
    table.add_column(text(pt="id ou digest", en="id or digest"), overflow="fold")
    origins = {
        "built": text(pt="construída", en="built"),
        "pulled": text(pt="baixada", en="pulled"),
        "loaded": text(pt="carregada", en="loaded"),
    }
    for name, image in found.items():
        if image:
            table.add_row(name, words.size(image.size), origins[image.origin], image.digest or image.id)
        else:
            table.add_row(name, "", text(pt="falta", en="missing"), "")
    reporter.console.print(table)


# How the file is made and read


def _write(raw: IO[bytes], found: Sequence[Image], compressed: bool, on_progress: Progress) -> str:
    names, total = [image.name for image in found], sum(image.size for image in found)
    content = json.dumps({"schema_version": 1, "images": [asdict(image) for image in found]}, indent=1).encode()
    counted = _Counted(raw)
    with images.daemon() as client, ExitStack() as stack:
        api = client.api
        # All in one, so that what they have in common comes once; the SDK's get_image() takes one name.
        answer = api.get(
            f"{api.base_url}/v{api.api_version}/images/get", params={"names": names}, stream=True, timeout=600
        )
        stack.callback(answer.close)
        answer.raise_for_status()
        sink: Any = counted
        if compressed:
            sink = stack.enter_context(gzip.GzipFile("", "wb", 3, cast("IO[bytes]", counted), 0))
        source = stack.enter_context(tarfile.open(fileobj=answer.raw, mode="r|"))
        target = stack.enter_context(tarfile.open(fileobj=sink, mode="w|", bufsize=_CHUNK))
        first = tarfile.TarInfo(LIST)
        first.size = len(content)
        target.addfile(first, io.BytesIO(content))
        done = 0
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
            done += member.size
            on_progress(min(done, total), total)
    return counted.digest.hexdigest()


def _check(file: Path, reporter: Reporter) -> list[Image]:
    """Read a file from its start to its end, and return the list in it."""
    beside = _beside(file)
    try:
        with file.open("rb") as raw:
            counted = _Counted(raw)
            with tarfile.open(fileobj=cast("IO[bytes]", counted), mode="r|*", bufsize=_CHUNK) as archive:
                listed, tags = _lists(archive)
            while counted.read(_CHUNK):
                pass
        said = beside.read_text().split()[0] if beside.exists() else ""
    except FileNotFoundError:
        raise ConfigError(text(pt=f"Não há o arquivo {file}.", en=f"There is no file {file}.")) from None
    except _UNREADABLE as ex:
        raise _damaged(file, [type(ex).__name__]) from None
    digest = counted.digest.hexdigest()
    if said and said != digest:
        raise _damaged(file, [f"sha256 {digest}", f"{beside.name}: {said}"])
    if not said:
        reporter.warn(
            text(
                pt=f"Falta {beside.name}: não se sabe se {file.name} chegou como saiu.",
                en=f"There is no {beside.name}: whether {file.name} came as it left is not known.",
            )
        )
    names = {image.name for image in listed}
    if strange := sorted({name for name in {*tags, *names} if name not in names or not _NAME.fullmatch(name)}):
        raise ConfigError(
            text(pt=f"{file.name} traz imagens que não são da sandbox.", en=f"{file.name} brings images of others."),
            evidence=file,
            details=strange,
        )
    return listed


def _lists(archive: tarfile.TarFile) -> tuple[list[Image], list[str]]:
    """Our list, which comes first, and the names in Docker's own, which comes last."""
    listed: list[Image] | None = None
    tags: list[str] | None = None
    for member in archive:
        if listed is None:
            listed = [Image(**image) for image in json.loads(_content(archive, member, LIST))["images"]]
        elif member.name == _DOCKERS_LIST:
            content = json.loads(_content(archive, member, _DOCKERS_LIST))
            tags = [tag for image in content for tag in image["RepoTags"] or ()]
    if listed is None or tags is None:
        raise KeyError(LIST)
    return listed, tags


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    part = archive.extractfile(member)
    if part is None or member.name != name or member.size > _LIST_BYTES:
        raise ValueError(name)
    return part.read()


def _chunks(raw: IO[bytes], size: int, on_progress: Progress) -> Iterator[bytes]:
    done = 0
    while chunk := raw.read(_CHUNK):
        yield chunk
        done += len(chunk)
        on_progress(done, size)


class _Counted:
    """A binary file of which the SHA-256 is computed as it is read or written."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._raw.read(size)
        self.digest.update(chunk)
        return chunk

    def write(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        return self._raw.write(chunk)

    def flush(self) -> None:
        """Nothing: who opened the file flushes it."""


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _damaged(file: Path, details: list[str]) -> ConfigError:
    return ConfigError(
        text(
            pt=f"{file.name} está danificado ou não foi feito por invoke images --save.",
            en=f"{file.name} is damaged, or was not made by invoke images --save.",
        ),
        evidence=file,
        details=details,
        next_step=text(
            pt="Copie-o de novo da máquina onde foi feito, com o .sha256.",
            en="Copy it again from the machine where it was made, with the .sha256.",
        ),
    )


def _not_written(file: Path, problem: OSError, total: int) -> ConfigError:
    return ConfigError(
        text(pt=f"{file} não pôde ser escrito.", en=f"{file} cannot be written."),
        details=[str(problem.strerror)],
        next_step=text(
            pt="Arquivos de mais de 4 GB não cabem num pendrive FAT32: formate-o como exFAT ou NTFS.",
            en="A file of more than 4 GB does not fit on a stick with FAT32: format it as exFAT or NTFS.",
        )
        if problem.errno == errno.EFBIG
        else text(
            pt=f"São até {words.size(total)}, e menos com um nome que termina em .gz.",
            en=f"It takes up to {words.size(total)}, and less with a name that ends in .gz.",
        ),
    )
