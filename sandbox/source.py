"""The rows of a source, brought into the run's database; none of its code.

The source's schema alone is restored into an empty database of its own, where it can be read and compared. Its rows
are streamed from the archive into tables ``src_<n>.*`` made with the central's types: no index of the source is built.
Rows of a partitioned table are in the tables of its partitions, as they are in the archive; the table of the whole is
empty.

Two routes, measured on the same dump of 2.8 million rows in four tables with four indexes each (custom format, two
cores, two jobs, PostgreSQL 16): ``copy``, which streams the archive, takes 5.0 s; ``restore``, a full restore and a
COPY pipe, 19.4 s, of which 7.4 s for the restore. So ``copy`` is the default; ``restore`` is for dumps of INSERTs.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql

from merge.errors import BackupError, SchemaDifference
from merge.language import text
from sandbox import archive as archives
from sandbox import large_objects, restore_errors
from sandbox.command import CommandFailed
from sandbox.intake import check_server, read_chunks, table_name
from sandbox.load_progress import LoadProgress
from sandbox.replay import Content, column_list
from sandbox.restore import listing, restore_into
from sandbox.script import CopyBlock, Truncated, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sandbox.archive import Entry
    from sandbox.intake import Backup
    from sandbox.restore import OnProgress
    from sandbox.server import Server

    Connection = psycopg.Connection[tuple[Any, ...]]
    _Task = Callable[["_Load", Connection], None]

MERGE = "homolog_merge"

_MANY_BYTES = 64 << 20
"""From this size on, more lists than workers are worth the time that pg_restore takes to read the table of contents."""

_LOADED = """
    CREATE TABLE IF NOT EXISTS homolog.loaded (
        source integer PRIMARY KEY, rows jsonb NOT NULL, large_objects bigint NOT NULL, dangling bigint NOT NULL,
        seconds double precision NOT NULL)
"""


@dataclass(frozen=True)
class Loaded:
    """What came of a source.

    :param rows: rows of every table of the central's schema, also of the empty ones.
    :param large_objects: objects that came along; `dangling` are OIDs in columns of type oid that name none.
    """

    rows: Mapping[str, int]
    large_objects: int
    dangling: int
    seconds: float


def owner_of(number: int) -> str:
    """The role that owns a source's own databases: they may be full of code, so that this role looks at them."""
    return f"homolog_source_{number}"


def restore_schema(server: Server, backup: Backup, *, number: int, jobs: int = 1) -> str:
    """Restore the schema of a source, without rows, into the database ``source_<n>`` and return that name.

    The database is made anew, and owned by a role of its own.

    :raises BackupError: the server cannot take the backup, or an error stopped the restore; nothing of it is left.
    """
    return _restore(server, backup, number, f"source_{number}", Content.SCHEMA, jobs, None)


def load_source(
    server: Server,
    backup: Backup,
    *,
    number: int,
    target: str,
    schema: str = "public",
    jobs: int = 1,
    on_progress: OnProgress | None = None,
    route: Literal["copy", "restore"] | None = None,
    empty: Collection[str] = (),
) -> Loaded:
    """Load the rows and large objects of a source into schema ``src_<n>`` of database `target`.

    May be called again: what is loaded is not loaded twice, and a load that was interrupted is made anew.

    :param number: n, from 1.
    :param schema: the schema of the application, in the backup and in `target`.
    :param route: ``copy`` streams the archive's COPY data; ``restore`` restores all into a database of its own and
        copies from there, which INSERT dumps need. By default whichever fits.
    :param empty: tables that hold no row in the backup: it does not matter whether they are like the central's.
    :raises SchemaDifference: the backup has rows of tables that the central does not have.
    :raises BackupError: the data are not what they should be; no row of them is shown.
    """
    started = time.monotonic()
    check_server(backup, server.major)
    route = route or ("restore" if backup.inserts else "copy")
    with restore_errors.evidence_is(backup), _session(server, target) as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS homolog")
        conn.execute(_LOADED.encode())
        if (done := _read_loaded(conn, number)) is not None:
            return done
        _clear(conn, number)
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(f"src_{number}")))
        tables = _tables(conn, schema)
        _check_tables(backup, schema, {*tables, *empty})
        load = _Load(
            server,
            target,
            number,
            schema,
            frozenset(tables) - frozenset(empty),
            _generated(conn, schema),
            LoadProgress(on_progress),
        )
        with _staging(server, backup, number, route, jobs, on_progress) as staging:
            if route == "copy":
                _run(load, _streams(server, backup, schema, jobs, load.progress, empty), jobs)
            else:
                assert staging is not None
                _run(load, _copies(server, staging, number, schema, [t for t in tables if t not in empty]), jobs)
            for table in tables:
                if table not in load.rows:
                    load.create(conn, table)
                    load.rows[table] = 0
            if staging is not None:
                large_objects.fetch(server, staging, conn, number)
            with conn.transaction():
                objects, dangling = large_objects.transfer(conn, number, schema, fetched=staging is not None)
                loaded = Loaded(dict(sorted(load.rows.items())), objects, dangling, time.monotonic() - started)
                conn.execute(
                    "INSERT INTO homolog.loaded VALUES (%s, %s, %s, %s, %s)",
                    [number, json.dumps(loaded.rows), objects, dangling, loaded.seconds],
                )
    return loaded


# The run's database


def _session(server: Server, target: str) -> Connection:
    """A session in which no function of the backup can pass for a built-in one."""
    conn = server.connect(target, MERGE)
    conn.execute("SET search_path = pg_catalog, pg_temp")
    return conn


def _read_loaded(conn: Connection, number: int) -> Loaded | None:
    row = conn.execute(
        "SELECT rows, large_objects, dangling, seconds FROM homolog.loaded WHERE source = %s", [number]
    ).fetchone()
    return None if row is None else Loaded(*row)


def _clear(conn: Connection, number: int) -> None:
    """Drop what an interrupted load has left."""
    conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(f"src_{number}")))
    large_objects.clear(conn, number)


def _tables(conn: Connection, schema: str) -> list[str]:
    return [
        name
        for (name,) in conn.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace ="
            " (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1",
            [schema],
        )
    ]


def _generated(conn: Connection, schema: str) -> dict[str, list[str]]:
    """Generated columns that are NOT NULL, by table: they have no values in a backup."""
    if conn.info.server_version < 120000:
        return {}
    found = conn.execute(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE a.attgenerated <> '' AND a.attnotnull AND c.relnamespace ="
        "       (SELECT oid FROM pg_namespace WHERE nspname = %s) GROUP BY 1",
        [schema],
    )
    return dict(found.fetchall())


def _check_tables(backup: Backup, schema: str, tables: Iterable[str]) -> None:
    prefix = "" if schema == "public" else f"{schema}."
    ours = {name for name in backup.tables if name.startswith(prefix) and (prefix or "." not in name)}
    unknown = sorted(ours - {table_name(schema, table) for table in tables})
    if unknown:
        raise SchemaDifference(
            text(pt="O backup tem tabelas que o central não tem.", en="The backup has tables that the central lacks."),
            details=unknown,
            next_step=text(
                pt="Atualize as instalações para a mesma versão e faça um novo backup.",
                en="Update the installations to the same version and take a new backup.",
            ),
        )


class _Stopped(Exception):
    """Another worker failed."""


@dataclass
class _Load:
    """What the workers share."""

    server: Server
    target: str
    number: int
    schema: str
    tables: frozenset[str]
    generated: Mapping[str, Sequence[str]]
    progress: LoadProgress
    rows: dict[str, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def identifier(self, table: str) -> sql.Identifier:
        return sql.Identifier(f"src_{self.number}", table)

    def create(self, conn: Connection, table: str) -> None:
        """Make ``src_<n>.table`` like the central's; a generated column has no values there."""
        conn.execute(
            sql.SQL("CREATE TABLE {} (LIKE {})").format(self.identifier(table), sql.Identifier(self.schema, table))
        )
        for column in self.generated.get(table, ()):
            conn.execute(
                sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL").format(self.identifier(table), sql.Identifier(column))
            )

    def claim(self, table: str) -> None:
        """Note that a table is being loaded; its data come once."""
        with self.lock:
            if table in self.rows:
                raise BackupError(
                    text(pt="O backup traz uma tabela duas vezes.", en="The backup has a table twice."), details=[table]
                )
            self.rows[table] = 0

    def load(self, conn: Connection, block: CopyBlock) -> None:
        """Load one COPY block in one transaction with the table's creation, so that no WAL is written."""
        self.claim(block.table)
        lines = 0
        statement = sql.SQL("COPY {} {} FROM STDIN (FORMAT text, ENCODING 'UTF8', FREEZE)").format(
            self.identifier(block.table), column_list(block.columns)
        )
        try:
            with conn.transaction(), conn.cursor() as cursor:
                self.create(conn, block.table)
                with cursor.copy(statement) as copy:
                    for chunk in block.data:
                        if self.stop.is_set():
                            raise _Stopped
                        copy.write(chunk)
                        lines += chunk.count(b"\n")
                        self.progress.add(len(chunk))
                if cursor.rowcount != lines:
                    raise BackupError(
                        text(
                            pt="O número de linhas lidas e gravadas não é o mesmo.",
                            en="The numbers of rows read and written differ.",
                        ),
                        details=[f"{block.table}: {lines} / {cursor.rowcount}"],
                    )
        except psycopg.Error as ex:
            raise restore_errors.of_statement(ex, block.table) from None
        self.rows[block.table] = lines
        self.progress.finish(block.table)


# Workers


def _run(load: _Load, tasks: Iterable[_Task], jobs: int) -> None:
    """Run the tasks on `jobs` threads; the first error stops all."""

    def work(task: _Task) -> None:
        if not load.stop.is_set():
            with _session(load.server, load.target) as conn:
                task(load, conn)

    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            for done in as_completed([pool.submit(work, task) for task in tasks]):
                done.result()
        except BaseException:
            load.stop.set()
            raise


def _streams(
    server: Server, backup: Backup, schema: str, jobs: int, progress: LoadProgress, empty: Collection[str]
) -> list[_Task]:
    """Tasks that stream COPY data from the backup."""
    if backup.format == "plain":
        progress.expect({}, backup.readable.stat().st_size)
        return [lambda load, conn: _load_blocks(load, conn, read_chunks(backup.readable))]
    archive = archives.read(backup.readable)
    entries = [e for e in archive if e.is_table_data and e.namespace == schema and e.tag not in empty]
    progress.expect({e.tag: e.size for e in entries})
    if archive.format == "tar":  # can only be read in its own order
        lists = [entries]
    else:
        lists = _balanced(entries, jobs if sum(e.size for e in entries) < _MANY_BYTES else 4 * jobs)
    return [_stream(server, backup, part, place) for place, part in enumerate(lists)]


def _stream(server: Server, backup: Backup, entries: list[Entry], place: int) -> _Task:
    # Before version 12 there is no name for stdout, and no need of one.
    out = ["--file=-"] if server.major >= 12 else []

    def task(load: _Load, conn: Connection) -> None:
        with listing(backup.work, entries, f"source_{load.number}-{place}") as listed:
            command = server.tool(
                "pg_restore", "--data-only", *out, f"--use-list={server.path(listed)}", server.path(backup.readable)
            )
            try:
                with command.stream() as chunks:
                    _load_blocks(load, conn, chunks)
            except Truncated as ex:  # pg_restore has stopped: it could not read on
                raise archives.truncated(list(ex.details)) from None
            except CommandFailed as ex:
                raise restore_errors.of_tool(ex, backup.name) from None
        missing = [e.tag for e in entries if e.tag not in load.rows]
        if missing:
            raise archives.truncated(missing)

    return task


def _load_blocks(load: _Load, conn: Connection, chunks: Iterator[bytes]) -> None:
    """Load the COPY blocks of the wanted schema; nothing else of the script is used, let alone executed."""
    for part in scan(chunks):
        if isinstance(part, CopyBlock) and (part.schema or load.schema) == load.schema and part.table in load.tables:
            load.load(conn, part)


def _balanced(entries: Sequence[Entry], count: int) -> list[list[Entry]]:
    """Lists of about the same size, the largest first; in each, the entries stay in the archive's order.

    Before version 13, pg_restore finds what the archive tells no place of in that order only.
    """
    lists: list[tuple[int, list[int]]] = [(0, []) for _ in range(count)]
    for index in sorted(range(len(entries)), key=lambda i: -entries[i].size):
        place = min(range(count), key=lambda i: (lists[i][0], len(lists[i][1])))
        size, members = lists[place]
        lists[place] = (size + entries[index].size, [*members, index])
    lists.sort(key=lambda part: -part[0])
    return [[entries[index] for index in sorted(members)] for _, members in lists if members]


# The source's own databases


@contextmanager
def _staging(
    server: Server, backup: Backup, number: int, route: str, jobs: int, on_progress: OnProgress | None
) -> Iterator[str | None]:
    """A database of the source with what the route and the large objects need; None if they need none."""
    if route == "copy" and not backup.large_objects:
        yield None
        return
    content = Content.ALL if route == "restore" else Content.LARGE_OBJECTS
    database = _restore(
        server, backup, number, f"source_{number}_data", content, jobs, on_progress if route == "restore" else None
    )
    try:
        yield database
    finally:
        server.drop_database(database)


def _restore(
    server: Server,
    backup: Backup,
    number: int,
    database: str,
    content: Content,
    jobs: int,
    on_progress: OnProgress | None,
) -> str:
    check_server(backup, server.major)
    owner = owner_of(number)
    server.create_role(owner)
    server.drop_database(database)
    server.create_database(database, owner)
    try:
        restore_into(server, backup, database, owner, content, jobs=jobs, on_progress=on_progress)
    except BaseException:
        server.drop_database(database)
        raise
    return database


_COLUMNS = """
    SELECT a.attname, a.atttypid < 16384 AND y.typname NOT LIKE 'reg%%'
      FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
     WHERE a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped{}
     ORDER BY a.attnum
"""


def _copies(server: Server, staging: str, number: int, schema: str, tables: Iterable[str]) -> list[_Task]:
    """Tasks that copy one table each from the restored source."""

    def task(table: str) -> _Task:
        def copy(load: _Load, conn: Connection) -> None:
            with server.connect(staging, owner_of(number)) as origin:
                _copy_table(load, origin, conn, table)

        return copy

    with server.connect(staging, owner_of(number)) as origin:
        theirs = set(_tables(origin, schema))
    return [task(table) for table in tables if table in theirs]


def _copy_table(load: _Load, origin: Connection, conn: Connection, table: str) -> None:
    origin.execute("SET search_path = pg_catalog, pg_temp")
    origin.execute("SET row_security = off")
    origin.execute("SET extra_float_digits = 3")
    kind = origin.execute(
        "SELECT relkind::text FROM pg_class WHERE oid = format('%%I.%%I', %s::text, %s::text)::regclass",
        [load.schema, table],
    ).fetchone()
    if kind != ("r",):
        return
    stored = " AND a.attgenerated = ''" if origin.info.server_version >= 120000 else ""
    columns = origin.execute(_COLUMNS.format(stored).encode(), [load.schema, table]).fetchall()
    # Binary values of a type of the database's own name types by OIDs, which are others here.
    options = "FORMAT binary" if all(builtin for _, builtin in columns) else "FORMAT text"
    names = column_list(tuple(name for name, _ in columns) or None)
    load.claim(table)
    try:
        with conn.transaction():
            load.create(conn, table)
            load.rows[table] = large_objects.pipe(
                origin,
                conn,
                sql.SQL("{} {}").format(sql.Identifier(load.schema, table), names),
                sql.SQL("{} {}").format(load.identifier(table), names),
                options,
            )
    except psycopg.Error as ex:
        raise restore_errors.of_statement(ex, table) from None
