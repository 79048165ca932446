"""Attachments that a synthetic installation keeps outside of its database."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from sandbox.sample.overlap import Installation

MISSING = 3
"""The key of the row whose file is missing, in every installation."""

UNCLAIMED = "sem-registro/anexo-sintetico.pdf"
"""The file that no row points to, in every installation."""

_NESTED = 4
"""One file in so many is called by its row's key alone; the others are in a folder of that name."""


def attachments_of(backup: Path) -> Path:
    """The directory of attachments that goes with a backup of a sample."""
    return backup.with_name(f"{backup.name.split('.')[0]}-anexos")


def write_attachments(conn: psycopg.Connection[tuple[Any, ...]], installation: Installation, folder: Path) -> None:
    """Write the files of a filled installation's rows to `folder`, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = conn.execute("SELECT co_seq_arquivo, no_arquivo FROM tb_arquivo ORDER BY 1").fetchall()
    names = {key: str(key) if key % _NESTED == 0 else f"{key}/{name}" for key, name in rows if key != MISSING}
    for key, name in (*names.items(), (0, UNCLAIMED)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(installation, key))


def _content(installation: Installation, key: int) -> bytes:
    """Obviously synthetic, of a size that differs from file to file; file 1 is empty."""
    if key == 1:
        return b""
    line = f"anexo sintético {key} de {installation.name}, semente {installation.seed}: nenhum paciente\n"
    return line.encode() * (1 + key * 37 % 200)
