"""What runs have left outside of their folders, whose folders are gone: restored data of patients that nobody sees.

A run's folder that is deleted by hand leaves what it had in Docker, and, as root, its server's place below
``HOMOLOG_DATA``. Each of these names the folder it belongs to. It is a leftover only if that folder is gone: other runs
may be kept elsewhere (another ``HOMOLOG_RUNS``, another user's), and be under way. What names no folder is nobody's to
remove: other programs' files, and the copies of PostgreSQL's programs.
"""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from merge.errors import ServerError
from merge.language import text
from sandbox import binaries, embedded, images, labelled
from sandbox.labelled import Leftover

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FOLDERS = "folders"
_LONGEST_PATH = 1 << 12


def find(known_runs: Iterable[str]) -> tuple[Leftover, ...]:
    """Leftovers of runs that are not known and whose folders are gone, in the order in which they can be removed.

    A disk that is not mounted looks like a folder that is gone: show `Leftover.folder`, and ask, before `remove`.

    :param known_runs: ids of the runs that there are; nothing of theirs is a leftover.
    """
    known = frozenset(known_runs)
    found = [*(labelled.leftovers() if images.answers() else ()), *_folders()]
    return tuple(
        left for left in found if left.folder and left.run_id not in known and not Path(left.folder).exists()
    )  # fmt: skip


def remove(leftovers: Iterable[Leftover]) -> None:
    """Remove what `find` has found, and end the servers that still run there.

    :raises ServerError: with all that could not be removed.
    """
    found = tuple(leftovers)
    folders = [left for left in found if left.kind == _FOLDERS]
    in_docker = [left for left in found if left.kind != _FOLDERS]
    if in_docker:
        labelled.remove(in_docker)
    user = binaries.unprivileged() if folders else None
    for left in folders:
        embedded.end_processes(Path(left.name) / "data", user)
        shutil.rmtree(left.name, ignore_errors=True)
    problems = [left.name for left in folders if Path(left.name).exists()]
    if problems:
        raise ServerError(
            text(pt="Nem tudo o que sobrou pôde ser apagado.", en="Not all leftovers could be removed."),
            details=problems,
            next_step=text(
                pt="Apague essas pastas à mão: elas têm dados de pacientes.",
                en="Remove these folders by hand: they hold data of patients.",
            ),
        )


def _folders() -> Iterator[Leftover]:
    """Places of servers outside of their runs' folders, which only root has and can read."""
    for place in sorted(_entries(binaries.data_folder())):
        owner = _owner(place)
        if owner is not None:
            yield Leftover(_FOLDERS, str(place), owner.name, str(owner))


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _owner(place: Path) -> Path | None:
    """The folder of a run that a server's place belongs to, if it says so. The server's user may write there: it is
    asked nothing but this.
    """
    file = place / embedded.OWNER_FILE
    try:
        info = file.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LONGEST_PATH:
            return None
        owner = Path(file.read_text())
    except (OSError, ValueError):
        return None
    return owner if owner.is_absolute() else None
