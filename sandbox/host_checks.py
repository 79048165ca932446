"""Checks of the machine on which a rehearsal runs (phase C of the checklist); those of files: `sandbox.file_checks`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from merge import checks
from merge.checks import RUN, Answer
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.contents import Contents
    from sandbox.intake import Backup

State = Literal["passed", "warned", "blocked", "recorded", "not_available"]

_GIGABYTE = 10**9


@dataclass(frozen=True)
class HostCheck:
    """The answer of one check.

    :param where: name of the base, or ``host``.
    :param numbers: what was counted or measured, bytes where it is a size.
    :param values: texts that belong to the record, such as hashes and versions.
    :param message: what it means, for a person; empty if there is nothing to say.
    """

    id: str
    where: str
    state: State
    numbers: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    details: tuple[str, ...] = ()


def answer_of(found: HostCheck) -> Answer:
    """The check's answer, as those of rows are."""
    details: dict[str, int | str | None] = {**found.numbers, **found.values}
    if found.message:
        details["message"] = found.message
    if found.details:
        details["details"] = ", ".join(found.details[:5])
    return Answer(found.id, RUN if found.where == "host" else found.where, checks.State(found.state), None, details)


# Measured with the synthetic backups at scales 1 and 8, PostgreSQL 16, a central and two sources, at the end of a
# rehearsal: megabytes of disk, and bytes for each further byte of rows as text (`sandbox.contents`).
#
#     central: rows as text      47     423
#         restored              160     891   1.9
#         its baseline          101     685   1.6
#     sources: rows as text      35     361
#         their rows             91     589   1.5
#         merged, with indexes   77     448   1.1
#     WAL and the rest          374     600   0.7
#     in all                    803    3213   3.5 for central and sources alike, and 0.5 GB
#
# A quarter is added for sorting, and for data that are not like the synthetic ones.
_DISK_FIXED = _GIGABYTE // 2
_DISK_PER_BYTE = 3.5 * 1.25

# The same central's backup by format, megabytes: custom 14.7 and 114.9, directory 14.7 and 114.8 (both compressed by
# gzip), tar 53.3 and 430.6, plain 49.4 and 427.6, plain in gzip 12.3 and 112.6.
# Where rows were not measured: how many bytes of rows as text are in a byte of the backup. The synthetic ones have 3.7
# (their texts are mostly random, which compresses badly); a real base that is known restored 18 GB from a compressed
# dump of 1.5 GB, which at 1.9 is 6.
_EXPANSION = {"custom": 6.0, "directory": 6.0, "tar": 1.0, "plain": 1.0}


def rows_as_text(backup: Backup, contents: Contents | None) -> int:
    """Bytes of the rows of a backup as text: measured, or estimated from its size."""
    if contents is not None and contents.unit == "text":
        return contents.size
    if contents is not None and contents.unit == "inserts":
        return contents.size  # more than their text
    size = backup.size
    if backup.readable.is_file():
        size = backup.readable.stat().st_size  # unwrapped
    return int(size * _EXPANSION[backup.format])


def disk_needed(backups: Sequence[tuple[Backup, Contents | None]], attachments: int = 0) -> int:
    """Bytes that a rehearsal of these backups takes on the disk of the sandbox, estimated.

    :param attachments: bytes of attachments that are carried along.
    """
    return int(_DISK_FIXED + _DISK_PER_BYTE * sum(rows_as_text(*pair) for pair in backups) + attachments)


def disk(needed: int, place: Path, free: int | None = None) -> HostCheck:
    """C-11: there is room where the server's data will be.

    :param place: a folder on that disk; the nearest one above it that exists is asked.
    :param free: bytes, if known otherwise (such as inside of a container).
    """
    if free is None:
        free = _free(place)
    numbers = {"needed": needed, "free": free}
    if free >= needed:
        return HostCheck("C-11", "host", "passed", numbers)
    return HostCheck(
        "C-11",
        "host",
        "blocked",
        numbers,
        message=text(
            pt=f"O ensaio precisa de {_gigabytes(needed)} livres em {place}, e há {_gigabytes(free)}.",
            en=f"The rehearsal needs {_gigabytes(needed)} free in {place}, and there are {_gigabytes(free)}.",
        ),
    )


def _free(place: Path) -> int:
    return shutil.disk_usage(next(p for p in (place.resolve(), *place.resolve().parents) if p.exists())).free


def memory(*, pec: bool = False) -> HostCheck:
    """C-12: memory of this machine.

    :param pec: two PECs run as well (engine ``pec``): 16 GB are suggested then, else 2 GB do.
    """
    found = _memory()
    if found is None:
        return HostCheck("C-12", "host", "not_available")
    wanted = (16 if pec else 2) * _GIGABYTE
    numbers = {"memory": found, "suggested": wanted}
    if found >= wanted * 0.9:  # what is called 16 GB often has less
        return HostCheck("C-12", "host", "passed", numbers)
    return HostCheck(
        "C-12",
        "host",
        "warned",
        numbers,
        message=text(
            pt=f"A máquina tem {_gigabytes(found)} de memória; são sugeridos {_gigabytes(wanted)}. Será mais lento.",
            en=f"The machine has {_gigabytes(found)} of memory; {_gigabytes(wanted)} are suggested. It will be slower.",
        ),
    )


def _memory() -> int | None:
    """Bytes of memory that this process may have; a container's limit counts. None where it is not known."""
    try:
        found = int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if (path := Path(limit)).is_file() and (said := path.read_text().strip()).isdecimal():
            found = min(found, int(said))
    return found


def _gigabytes(size: int) -> str:
    return f"{size / _GIGABYTE:.1f} GB".replace(".", text(pt=",", en="."))
