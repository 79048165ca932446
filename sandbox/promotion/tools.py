"""Where pg_dump and pg_restore of exactly a server's major version are: given, come along, installed, or in Docker."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import DockerException
from docker.types import Mount

from merge.errors import ConfigError, HomologationError, ServerError
from merge.language import text
from sandbox import binaries, images, labelled
from sandbox.command import LocalCommand
from sandbox.container_command import ContainerCommand, own_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandbox.command import Command

PROGRAMS = ("pg_dump", "pg_restore")
"""What is needed of a folder."""

PART = "tools"
"""Label of our containers of this kind, see `sandbox.labelled`."""

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")

_FILES = ("PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL", "PGSSLCRLDIR")


class Tools(ABC):
    """Programs of one major version."""

    @abstractmethod
    def command(self, name: str, args: Sequence[str], env: Mapping[str, str], passfile: Path | None) -> Command:
        """A program, ready to run.

        :param env: libpq's variables.
        :param passfile: with one line, for whoever asks.
        """

    @abstractmethod
    def path(self, path: Path) -> str:
        """How a file of this host is called for `command`, which may then write beside it."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """Where they are, for people."""


class LocalTools(Tools):
    """Programs of a folder of this host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str, args: Sequence[str], env: Mapping[str, str], passfile: Path | None) -> Command:
        """A program of the folder."""
        own = {"PGPASSFILE": str(passfile)} if passfile is not None else {}
        program = shutil.which(name, path=str(self.folder)) or str(self.folder / name)
        return LocalCommand((program, *args), {**binaries.environment(), **env, **own})

    def path(self, path: Path) -> str:
        """The path as it is, also after the program's working folder is another."""
        return str(path.absolute())

    @property
    def shown(self) -> str:
        """The folder."""
        return str(self.folder)


class ContainerTools(Tools):
    """Programs of an image, each run in a container of its own, in the network of this host."""

    def __init__(self, major: int, run_id: str, folder: Path) -> None:
        self.major = major
        self._image = images.postgres(major)
        self._labels = labelled.labels(run_id, folder.resolve(), PART)
        self._folders: dict[Path, bool] = {}
        """What is mounted, each at its own path, and whether it is only read."""

    def command(self, name: str, args: Sequence[str], env: Mapping[str, str], passfile: Path | None) -> Command:
        """A program of the image; the password is given to it alone, and is in no argument or variable."""
        for variable in _FILES:
            if (given := Path(env.get(variable, ""))).is_absolute() and given.exists():
                self._folders.setdefault(given.parent, True)
        with suppress(RuntimeError):
            if (home := Path.home() / ".postgresql").is_dir():  # where libpq looks for certificates
                self._folders.setdefault(home, True)
                env = {**env, "HOME": str(home.parent)}
        line = passfile.read_text(encoding="utf-8") if passfile is not None else ""
        argv = (f"/usr/lib/postgresql/{_version(self.major)}/bin/{name}", *args)
        return ContainerCommand(self._container, argv, own_user(), {**env, "LC_ALL": "C"}, line)

    def path(self, path: Path) -> str:
        """The path as it is: its folder is mounted there."""
        self._folders[path.absolute().parent] = False
        return str(path.absolute())

    @property
    def shown(self) -> str:
        """The image."""
        return self._image

    @contextmanager
    def _container(self) -> Iterator[str]:
        mounts = [Mount(str(f), str(f), type="bind", read_only=ro) for f, ro in sorted(self._folders.items())]
        with images.daemon() as client:
            container = client.containers.run(
                self._image,
                entrypoint=["sleep", "infinity"],
                command=[],
                name=f"homolog-tools-{secrets.token_hex(4)}",
                user=own_user(),
                network_mode="host",  # production is reached as from here
                init=True,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},  # noqa: S108
                mounts=mounts,
                cap_drop=["ALL"],
                cap_add=["DAC_OVERRIDE"] if own_user() == "0:0" else [],  # root reads certificates of whoever owns them
                security_opt=["no-new-privileges:true"],
                pids_limit=256,
                labels=self._labels,
                detach=True,
            )
            try:
                yield str(container.id)
            finally:
                with suppress(DockerException):
                    container.remove(v=True, force=True)


def find(major: int, wanted: Path | None, *, tls: bool, run_id: str, scratch: Path) -> Tools:
    """The programs of a major version (9 is 9.6).

    In this order: those of `wanted`, and no others; those that come with this project; those installed here; those in
    ``PATH``; an image of Docker, on Linux.

    :param tls: our own session is encrypted, so theirs must be: some programs are built without, and would fail, or
        send patients' data in clear.
    :param run_id: and `scratch`: for the labels of containers.
    :raises ConfigError: those of `wanted` will not do, or there are none.
    """
    if wanted is not None:
        return LocalTools(_checked(wanted, major, tls=tls))
    tried: list[str] = []
    for folder in _places(major):
        if version_in(folder) == major:
            if not tls or speaks_tls(folder):
                return LocalTools(folder)
            tried.append(text(pt=f"{folder}: sem TLS, que a produção usa",
                              en=f"{folder}: without TLS, which production uses"))  # fmt: skip
    if sys.platform == "linux" and images.answers():
        try:
            return ContainerTools(major, run_id, scratch)
        except ServerError as ex:
            tried += [ex.what, *ex.details]
    raise _nowhere(major, tried)


def server_programs(major: int) -> Path | None:
    """A folder of this host with a whole PostgreSQL of a major version, for a throwaway server; None if there is none.

    That which comes along is left out, as a throwaway server finds it without being told.
    """
    ours = binaries.WHEEL.get(major)
    for folder in _places(major):
        if shutil.which("initdb", path=str(folder)) and version_in(folder) == major and folder.parent.name != ours:
            return folder
    return None


def version_in(folder: Path) -> int | None:
    """Major version (9 is 9.6, 0 any other 9) of the programs in a folder; None if one is missing or does not run.

    That both are of one version is checked.
    """
    versions = set()
    for name in PROGRAMS:
        program = shutil.which(name, path=str(folder))
        if program is None:
            return None
        try:
            said = LocalCommand((program, "--version"), binaries.environment()).run().stdout.decode(errors="replace")
        except HomologationError:
            return None
        found = _VERSION.search(said)
        if found is None:
            return None
        first, second = int(found[1]), int(found[2] or 0)
        versions.add(first if first >= 10 else 9 * ((first, second) == (9, 6)))
    return versions.pop() if len(versions) == 1 else 0


def speaks_tls(folder: Path) -> bool:
    """Whether the programs were built with TLS: those without refuse before they connect."""
    nowhere = {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGSSLMODE": "require", "PGUSER": "nobody", "PGDATABASE": "none"}
    program = shutil.which(PROGRAMS[0], path=str(folder)) or PROGRAMS[0]
    said = LocalCommand((program, "--no-password"), {**binaries.environment(), **nowhere}).run(check=False).stderr
    return "SSL support is not compiled in" not in said


def _checked(wanted: Path, major: int, *, tls: bool) -> Path:
    name = _version(major)
    found = {folder: version_in(folder) for folder in (wanted, wanted / "bin")}
    for folder, version in found.items():
        if version == major and tls and not speaks_tls(folder):
            raise ConfigError(
                text(
                    pt=f"Os programas em {folder} não falam TLS, que a produção usa.",
                    en=f"The programs in {folder} do not speak TLS, which production uses.",
                ),
                next_step=_where(major),
            )
        if version == major:
            return folder.absolute()
    there = {version for version in found.values() if version is not None}
    if there:
        raise ConfigError(
            text(
                pt=f"Os programas em {wanted} não são do PostgreSQL {name}, que é o da produção.",
                en=f"The programs in {wanted} are not of PostgreSQL {name}, which production runs.",
            ),
            details=[_version(version) for version in there if version],
            next_step=_where(major),
        )
    raise ConfigError(
        text(
            pt=f"Não há pg_dump e pg_restore que funcionem em {wanted}.",
            en=f"There are no pg_dump and pg_restore that work in {wanted}.",
        ),
        next_step=_where(major),
    )


def _places(major: int) -> Iterator[Path]:
    """Our own, those where PostgreSQL's installers put a major version, PEC's, and those in ``PATH``."""
    name = _version(major)
    if major in binaries.WHEEL:
        with suppress(ServerError):
            yield binaries.of_wheel(major, None, exact=True)
    roots: list[tuple[Path, str]]
    if os.name == "nt":
        programs = [Path(os.environ[v]) for v in ("ProgramFiles", "ProgramW6432") if os.environ.get(v)]
        roots = [(place, pattern) for place in programs
                 for pattern in (f"PostgreSQL/{name}/bin", "e-SUS/database/postgresql-*/bin")]  # fmt: skip
    else:
        patterns = (
            f"usr/lib/postgresql/{name}/bin",  # Debian
            f"usr/pgsql-{name}/bin",  # Red Hat
            f"opt/PostgreSQL/{name}/bin",  # EDB
            f"Library/PostgreSQL/{name}/bin",
            f"opt/homebrew/opt/postgresql@{name}/bin",
            f"usr/local/opt/postgresql@{name}/bin",
            "opt/e-SUS/database/postgresql-*/bin",  # seen in installations; the vendor does not document it
        )
        roots = [(Path("/"), pattern) for pattern in patterns]
    for root, pattern in roots:
        yield from sorted(root.glob(pattern))
    for place in os.environ.get("PATH", "").split(os.pathsep):
        if place and Path(place).is_absolute():
            yield Path(place)


def _nowhere(major: int, tried: Sequence[str]) -> ConfigError:
    name = _version(major)
    return ConfigError(
        text(
            pt=f"Faltam nesta máquina o pg_dump e o pg_restore do PostgreSQL {name}, que é o da produção.",
            en=f"The pg_dump and pg_restore of PostgreSQL {name}, which production runs, are not on this machine.",
        ),
        details=tried,
        next_step=_where(major),
    )


def _where(major: int) -> str:
    name = _version(major)
    return text(
        pt=f"Indique --tools PASTA: no servidor da produção é a pasta bin do PostgreSQL dele (no PEC: "
        f"e-SUS/database/postgresql-…/bin). "
        f"No Debian: apt-get install postgresql-client-{name}, de apt.postgresql.org. "
        f"No Windows: o zip de https://www.enterprisedb.com/download-postgresql-binaries.",
        en=f"Give --tools FOLDER: on production's server it is the folder bin of its PostgreSQL (with PEC: "
        f"e-SUS/database/postgresql-…/bin). "
        f"On Debian: apt-get install postgresql-client-{name}, of apt.postgresql.org. "
        f"On Windows: the zip of https://www.enterprisedb.com/download-postgresql-binaries.",
    )


def _version(major: int) -> str:
    return "9.6" if major == 9 else str(major)
