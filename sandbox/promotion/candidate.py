"""The candidate, restored beside production: as the role that owns production's tables, into a database of its own."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from merge.errors import PromotionRolledBack
from merge.language import text
from sandbox import archive as archives
from sandbox import restore, restore_errors
from sandbox.command import CommandFailed
from sandbox.replay import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.promotion.production import Connection, Production

    OnProgress = Callable[[int, int], None]

_POLL_SECONDS = 1.0


def restore_beside(
    production: Production,
    dump: Path,
    database: str,
    owner: str,
    extensions: tuple[tuple[str, str], ...],
    *,
    jobs: int,
    size: int,
    on_progress: OnProgress,
) -> None:
    """Restore a dump of this project's own making into an empty database of the production server.

    :param owner: the role that gets everything; ours must be a member of it.
    :param extensions: name and schema of those that the dump wants; production has them all.
    :param size: bytes that the database will have, for the progress.
    :raises PromotionRolledBack: an error stopped it; production was not touched.
    """
    with production.connect(database) as conn:
        schemas = restore.make_extensions(conn, extensions, owner)
    archive = archives.read(dump)
    entries = [e for e in archive if restore.is_wanted(e, Content.ALL, schemas)]
    jobs = restore.usable_jobs(archive, production.major, jobs)
    options = ["--no-owner", "--no-privileges", "--no-tablespaces", "--exit-on-error", f"--jobs={jobs}"]
    with (
        restore.listing(dump.parent, entries, "beside") as listed,
        _watched(production, database, size, on_progress),
    ):
        command = production.tool(
            "pg_restore", *options, f"--role={owner}", f"--dbname={database}", f"--use-list={production.path(listed)}",
            production.path(dump), database=database,
        )  # fmt: skip
        try:
            with command.stream() as output:
                for _ in output:
                    pass
        except CommandFailed as ex:
            problem = restore_errors.of_tool(ex, dump.name)
            raise PromotionRolledBack(
                text(
                    pt="O resultado não pôde ser restaurado ao lado da produção, que não foi tocada.",
                    en="The result could not be restored beside production, which was not touched.",
                ),
                details=(problem.what, *problem.details),
            ) from None
    with production.connect(database) as conn:
        conn.execute("ANALYZE")


def main_owner(conn: Connection) -> str:
    """The role that owns most of the database's tables; that of the database where there is none.

    :param conn: a session in the database.
    """
    row = conn.execute(
        "SELECT coalesce((SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        " GROUP BY c.relowner ORDER BY count(*) DESC, 1 LIMIT 1), pg_get_userbyid(d.datdba)::text)"
        " FROM pg_database d WHERE d.datname = current_database()"
    ).fetchone()
    assert row is not None
    return str(row[0])


def oid_of(conn: Connection, database: str) -> int:
    """The OID of a database of the server that is there."""
    row = conn.execute("SELECT oid::bigint FROM pg_database WHERE datname = %s", [database]).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def _watched(production: Production, database: str, size: int, on_progress: OnProgress) -> Iterator[None]:
    """Tell how far a restore is, by the size of the database."""
    stop = threading.Event()

    def poll() -> None:
        try:
            with production.connect_outside() as conn:
                while not stop.wait(_POLL_SECONDS):
                    row = conn.execute("SELECT pg_database_size(%s)", [database]).fetchone()
                    on_progress(min(row[0] if row else 0, size), size)
        except psycopg.Error:
            return  # progress only

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
