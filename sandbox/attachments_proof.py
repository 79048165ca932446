"""Reads a run's folder of attachments as it is now, and proves it; shares no code with what carried the files there."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from merge.proof_attachments import Delivered, prove_attachments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from merge.plan import Plan
    from merge.profile import Attachment
    from merge.proof import Proof
    from merge.proof_session import Connection

_STATE = "state"


def prove(
    connect: Callable[[], Connection],
    plan: Plan,
    attachments: Sequence[Attachment],
    folder: Path,
    ledgers: Mapping[int, Mapping[str, int]],
    jobs: int = 2,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Prove that all files are where they must be, and no others.

    :param folder: the run's folder of attachments.
    :param ledgers: by merged source, its files by fate, as the ledger says.
    :param on_progress: called with bytes read and bytes in all.
    """
    sources = {number: Delivered(_delivered(folder, number), ledger) for number, ledger in ledgers.items()}
    return prove_attachments(
        connect, plan, attachments, _delivered(folder, 0), sources, look(folder, jobs, on_progress)
    )


def _delivered(folder: Path, number: int) -> dict[str, str]:
    """The hashes of what a base delivered, as they were when stock was taken; none if it delivered nothing."""
    path = folder / _STATE / f"inventory-{number}.json"
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_bytes())
    return {file["path"]: file["sha256"] for file in kept["files"]}


def look(
    folder: Path, jobs: int = 2, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """What is in the folder, but for its ``state``: SHA-256 by path; of what is no plain file, what it is instead."""
    found: dict[str, str] = {}
    plain: list[tuple[str, Path]] = []
    for place, folders, names in os.walk(folder):
        if place == str(folder) and _STATE in folders:
            folders.remove(_STATE)
        for name in [*folders, *names]:
            path = folder / place / name
            below = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[below] = "link"
            elif name in names:
                plain.append((below, path))
    total = sum(path.lstat().st_size for _, path in plain)
    done = 0
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        for (below, path), digest in zip(plain, pool.map(_hash, [path for _, path in plain]), strict=True):
            found[below] = digest
            done += path.lstat().st_size
            on_progress(done, total)
    return found


def _hash(path: Path) -> str:
    if not path.is_file():
        return "special"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
