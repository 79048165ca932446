"""Restoring a backup into a new database, whole, as a role that is not superuser.

A dump is a program from someone else, so it runs as the owner of its own new database and nothing more. What such a
role can never restore (extensions, what is said about them and about schema ``public``) is left out by list;
extensions on the list of trusted ones are made by the superuser before. Any other error stops.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from merge.errors import BackupError, ConfigError
from merge.language import text
from sandbox import archive as archives
from sandbox import properties, restore_errors, room
from sandbox.command import CommandFailed
from sandbox.intake import check_server
from sandbox.replay import Content, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from sandbox.archive import Archive, Entry
    from sandbox.intake import Backup
    from sandbox.server import Server

    OnProgress = Callable[[int, int], None]

CENTRAL = "homolog_central"

# fmt: off
_TRUSTED = frozenset((
    "btree_gin", "btree_gist", "citext", "cube", "dict_int", "fuzzystrmatch", "hstore", "intarray", "isn", "lo",
    "ltree", "pg_trgm", "pgcrypto", "seg", "tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent",
    "uuid-ossp", "vector",
))
# fmt: on
"""Extensions that a role which is not superuser may have (PostgreSQL's own list of trusted ones, and vector)."""

_DATABASE = ("DATABASE", "DATABASE PROPERTIES")
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Restored:
    """A database restored whole.

    :param tables: tables, `matviews` materialised views, both of all schemas of the dump.
    :param left_out: what the dump says and was not applied here, for the report.
    """

    database: str
    seconds: float
    extensions: tuple[str, ...]
    tables: int
    matviews: int
    left_out: tuple[str, ...]


def restore_central(
    server: Server,
    backup: Backup,
    database: str,
    *,
    owner: str = CENTRAL,
    jobs: int = 1,
    on_progress: OnProgress | None = None,
) -> Restored:
    """Restore a whole backup into the new database `database`, owned by `owner`, who is made if missing.

    :param jobs: connections that restore at once (one for tar and plain).
    :param on_progress: called with what is done and the whole, in a unit of its own.
    :raises ConfigError: the database exists.
    :raises BackupError: the server cannot take the backup, or an error stopped the restore; nothing of it is left.
    """
    started = time.monotonic()
    check_server(backup, server.major)
    if server.has_database(database):
        raise ConfigError(text(pt=f"O banco {database} já existe.", en=f"Database {database} exists already."))
    server.create_role(owner)
    server.create_database(database, owner)
    try:
        stated = restore_into(server, backup, database, owner, Content.ALL, jobs=jobs, on_progress=on_progress)
        tables, matviews = _look(server, backup, database)
        left_out = properties.apply(server, database, owner, stated)
    except BaseException:
        server.drop_database(database)
        raise
    return Restored(
        database,
        time.monotonic() - started,
        tuple(name for name, _ in backup.extensions),
        tables,
        matviews,
        left_out,
    )


def restore_into(
    server: Server,
    backup: Backup,
    database: str,
    owner: str,
    content: Content,
    *,
    jobs: int = 1,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Restore what is wanted of a backup into a database that is empty; return what it states about the database."""
    with restore_errors.evidence_is(backup):
        try:
            with room.watched(server, database):
                return _restore_into(server, backup, database, owner, content, jobs, on_progress)
        finally:
            server.settle(database, owner)


def _restore_into(
    server: Server,
    backup: Backup,
    database: str,
    owner: str,
    content: Content,
    jobs: int,
    on_progress: OnProgress | None,
) -> list[str]:
    schemas: set[str] = set()
    if content is not Content.LARGE_OBJECTS:
        schemas = _create_extensions(server, backup, database, owner)
    if backup.format == "plain":
        return replay(server, backup, database, owner, content, on_progress)
    archive = archives.read(backup.readable)
    entries = [e for e in archive if is_wanted(e, content, schemas)]
    options = ["--no-owner", "--no-privileges", "--no-tablespaces", "--exit-on-error"]
    if content is Content.SCHEMA:
        options.append("--schema-only")
    if (jobs := usable_jobs(archive, server.major, jobs)) > 1:
        options.append(f"--jobs={jobs}")
    with listing(backup.work, entries, f"{database}-{content.name.lower()}") as listed:
        command = server.tool(
            "pg_restore",
            *options,
            f"--dbname={database}",
            f"--use-list={server.path(listed)}",
            server.path(backup.readable),
            database=database,
            role=owner,
        )
        try:
            with _polled(server, database, archive, on_progress), command.stream() as output:
                for _ in output:  # there is none: wait, and stop it if we are stopped
                    pass
        except CommandFailed as ex:
            raise restore_errors.of_tool(ex, backup.name) from None
    return [e.definition for e in archive if e.desc in _DATABASE or _is_about(e, "DATABASE ")]


def usable_jobs(archive: Archive, major: int, jobs: int) -> int:
    """How many jobs of `pg_restore` can restore an archive.

    Before version 13, it finds what the archive tells no place of only in the order in which it was written.
    """
    return 1 if archive.format == "tar" or (major < 13 and not archive.tells_offsets) else jobs


@contextmanager
def listing(folder: Path, entries: Iterable[Entry], name: str) -> Iterator[Path]:
    """A list for `pg_restore --use-list`, in a private folder, that is there as long as it is needed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.list"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{entry.dump_id};\n" for entry in entries)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def superuser(server: Server, database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A superuser's session in a database that a backup has filled: nothing there may pass for a built-in function."""
    with server.connect(database) as conn:
        conn.execute("SET search_path = pg_catalog, pg_temp")
        yield conn


def _is_about(entry: Entry, what: str) -> bool:
    return entry.desc in ("COMMENT", "ACL", "SECURITY LABEL") and entry.tag.startswith(what)


def is_wanted(entry: Entry, content: Content, made: Collection[str] = ()) -> bool:
    """Whether a role that is not superuser restores an entry; `made` are schemas that are there already."""
    if content is Content.LARGE_OBJECTS:
        return entry.is_large_object and entry.desc != "ACL"
    of_rows = entry.section == "data" or entry.desc == "MATERIALIZED VIEW DATA" or entry.is_large_object
    if content is Content.SCHEMA and of_rows:
        return False
    if entry.desc in ("EXTENSION", "SUBSCRIPTION", *_DATABASE) or entry.desc.startswith("ACL"):
        return False
    if entry.desc == "SCHEMA" and entry.tag in {*made, "public"}:
        return False
    if entry.desc.endswith("LANGUAGE") and entry.tag == "plpgsql":
        return False
    return not any(
        _is_about(entry, what)
        for what in ("EXTENSION ", "SCHEMA public", "DATABASE ", "SUBSCRIPTION ", "LANGUAGE plpgsql",
                     "PROCEDURAL LANGUAGE plpgsql")
    )  # fmt: skip


def _create_extensions(server: Server, backup: Backup, database: str, owner: str) -> set[str]:
    """Make the extensions that the backup wants; return the schemas that had to be made for them."""
    wanted = [(name, schema) for name, schema in backup.extensions if name != "plpgsql"]
    if not wanted:
        return set()
    with server.connect(database) as conn:
        available = {name for (name,) in conn.execute("SELECT name FROM pg_available_extensions")}
        missing = sorted({name for name, _ in wanted} - (available & _TRUSTED))
        if missing:
            raise BackupError(
                text(
                    pt="O banco usa extensões que este servidor não tem ou que não são confiáveis.",
                    en="The database uses extensions that this server lacks or that are not trusted.",
                ),
                details=missing,
                next_step=text(
                    pt="Use --server docker, ou --binaries com a pasta de um PostgreSQL completo.",
                    en="Use --server docker, or --binaries with the folder of a full PostgreSQL.",
                ),
            )
        return make_extensions(conn, wanted, owner)


def make_extensions(
    conn: psycopg.Connection[tuple[Any, ...]], wanted: Iterable[tuple[str, str]], owner: str
) -> set[str]:
    """Make extensions, and the schemas that they are in; return those schemas.

    :param wanted: name and schema of each; ``plpgsql`` is there.
    :param owner: of the schemas that have to be made.
    """
    made = set()
    for name, schema in wanted:
        if name == "plpgsql":
            continue
        if schema not in ("public", "pg_catalog"):
            made.add(schema)
            conn.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(
                    sql.Identifier(schema), sql.Identifier(owner)
                )
            )
        conn.execute(
            sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE").format(
                sql.Identifier(name), sql.Identifier(schema)
            )
        )
    return made


_HUGE = """
    SELECT m.oid FROM pg_largeobject_metadata m
     WHERE EXISTS (SELECT 1 FROM pg_largeobject l WHERE l.loid = m.oid AND l.pageno >= (1 << 30) / 2048 - 1)
     ORDER BY 1 LIMIT 20
"""
"""A value of the server holds less than 1 GB, and an object can be of 4 TB without taking any room."""


def _look(server: Server, backup: Backup, database: str) -> tuple[int, int]:
    """Count tables and materialised views, and refuse what would stand where this project's own tables will be."""
    with superuser(server, database) as conn:
        kinds = dict(
            conn.execute(
                "SELECT relkind::text, count(*) FROM pg_class"
                " WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace"
                "       WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema') GROUP BY 1"
            ).fetchall()
        )
        ours = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^homolog|^src_[0-9]+$' ORDER BY 1")
        if huge := [f"large object {oid}" for (oid,) in conn.execute(_HUGE).fetchall()]:
            raise BackupError(
                text(
                    pt="O banco tem objetos grandes de mais de 1 GB, que não podem ser comparados.",
                    en="The database has large objects of more than 1 GB, which cannot be compared.",
                ),
                evidence=backup.path,
                details=huge,
                next_step=text(
                    pt="Confira o que são; o PEC não os tem.", en="Look at what they are; PEC has none of this size."
                ),
            )
        if taken := [name for (name,) in ours]:
            raise BackupError(
                text(
                    pt="O banco tem esquemas com nomes que a sandbox usa para as suas próprias tabelas.",
                    en="The database has schemas whose names the sandbox uses for tables of its own.",
                ),
                evidence=backup.path,
                details=taken,
                next_step=text(
                    pt="Faça o backup do banco do PEC, e não de um que já foi unificado aqui.",
                    en="Take a backup of PEC's database, not of one that was merged here before.",
                ),
            )
    return kinds.get("r", 0) + kinds.get("p", 0), kinds.get("m", 0)


# Progress

_FILLED = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND (pg_stat_file(pg_relation_filepath(c.oid), true)).size > 0
"""
"""Tables with rows that are committed, found without a lock: pg_relation_size() would wait for the restore's own."""

_BUILT = """
    SELECT (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.oid >= 16384)
         + (SELECT count(*) FROM pg_constraint WHERE contype = 'f')
         + (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
"""
_BUILDS = frozenset({"INDEX", "CONSTRAINT", "FK CONSTRAINT", "TRIGGER"})


@contextmanager
def _polled(server: Server, database: str, archive: Archive, on_progress: OnProgress | None) -> Iterator[None]:
    """Tell the progress of a restore, seen from outside: bytes of loaded tables, and as much again for the indexes."""
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_poll, args=(server, database, archive, on_progress, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _poll(
    server: Server, database: str, archive: Archive, on_progress: OnProgress, stop: threading.Event
) -> None:  # fmt: skip
    sizes = {(e.namespace, e.tag): e.size for e in archive if e.is_table_data}
    data = sum(sizes.values()) or 1
    builds = sum(1 for e in archive if e.desc in _BUILDS)
    total = 2 * data if builds else data
    try:
        with superuser(server, database) as conn:
            while not stop.wait(_POLL_SECONDS):
                loaded = sum(sizes.get(table, 0) for table in _rows(conn, _FILLED))
                built = int(_rows(conn, _BUILT)[0][0])
                on_progress(loaded + (data * min(built, builds) // builds if builds else 0), total)
    except psycopg.Error:
        return  # progress only; the restore itself tells what is wrong
    on_progress(total, total)


def _rows(conn: psycopg.Connection[tuple[Any, ...]], query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()
