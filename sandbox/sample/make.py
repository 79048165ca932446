"""Make the backups of a synthetic central and its sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from sandbox.sample.attachments import attachments_of, write_attachments
from sandbox.sample.fill import create_schema, fill
from sandbox.sample.overlap import world
from sandbox.sample.planted import plant
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.sample.fill import Progress
    from sandbox.sample.overlap import Installation
    from sandbox.server import Server

_TEMPLATE = "sample_template"

DUMP_OPTIONS = (
    "--format=custom",
    "--blobs",
    "--encoding=UTF8",
    "--no-privileges",
    "--no-tablespaces",
    "--no-unlogged-table-data",
)
"""How PEC's own backup tool calls pg_dump."""


def make_samples(
    server: Server,
    folder: Path,
    *,
    scale: float = 1.0,
    seed: int = 1,
    sources: int = 2,
    attachments: bool = False,
    planted: bool = False,
    on_progress: Progress = lambda _: None,
) -> list[Path]:
    """Make ``central.backup``, ``ubs-a.backup``, ... in `folder` and return their paths, the central's first.

    Scale 1 is a demo (800 citizens and half a million rows in the central); 37.5 is a central of 30,000 citizens and
    20 million rows. The same scale, seed and sources give the same rows.

    :param attachments: also make ``central-anexos/``, ``ubs-a-anexos/``, ... with the files that rows point to, called
        alike in all installations; in each, one file is missing, and one is there that no row points to.
    :param planted: with references that nothing declares, see `sandbox.sample.planted`.
    :param server: a started sandbox server; its databases of these names are made and dropped again.
    :raises ValueError: a scale or number of sources beyond the synthetic ranges.
    """
    installations = world(scale, seed, sources)
    folder.mkdir(parents=True, exist_ok=True)
    server.drop_database(_TEMPLATE)
    try:
        on_progress("schema")
        server.create_database(_TEMPLATE, ADMIN)
        with server.connect(_TEMPLATE) as conn:
            create_schema(conn)
        return [_backup(server, folder, i, installations, attachments, planted, on_progress) for i in installations]
    finally:
        server.drop_database(_TEMPLATE)


def _backup(
    server: Server,
    folder: Path,
    installation: Installation,
    installations: tuple[Installation, ...],
    attachments: bool,
    planted: bool,
    on_progress: Progress,
) -> Path:
    database = f"sample_{installation.number}"
    path = folder / f"{installation.name}.backup"
    server.drop_database(database)
    try:
        with server.connect("postgres") as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(database), sql.Identifier(_TEMPLATE))
            )
        with server.connect(database) as conn:
            fill(conn, installation, installations, on_progress)
            if attachments:
                write_attachments(conn, installation, attachments_of(path))
            if planted:
                plant(conn)
        on_progress(f"{installation.name}: pg_dump")
        server.tool("pg_dump", *DUMP_OPTIONS, "--file", server.path(path), database=database).run()
    finally:
        server.drop_database(database)
    return path
