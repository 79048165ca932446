"""Large objects of a source, brought into the run's database under new OIDs.

They are restored into a database of their own, and from there their pages go through an opaque COPY pipe, so that
objects with the same OID on both sides never meet. New OIDs lie above every OID that the run's database holds or
mentions: an OID that names nothing in the central must not suddenly name a source's object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sandbox.restore import superuser

if TYPE_CHECKING:
    from sandbox.server import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

_PIPE = 1 << 18
_LAST_OID = 2**32 - 1
_FIRST_OID = 16384

_OBJECTS = "CREATE TABLE {} (src oid PRIMARY KEY, md5 text, size bigint)"

_OID_COLUMNS = """
    SELECT c.relname, a.attname
      FROM pg_class c
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type y ON y.oid = a.atttypid
     WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND c.relkind = 'r'
       AND 'oid'::regtype IN (y.oid, y.typbasetype)
     ORDER BY 1, 2
"""


def fetch(server: Server, staging: str, conn: Connection, number: int) -> None:
    """Copy objects and pages of database `staging` into ``homolog.object_<n>`` and ``homolog.page_<n>``.

    With each object comes what its bytes are there, for the proof.
    """
    objects, pages = _side_tables(number)
    with superuser(server, staging) as origin, conn.transaction():
        conn.execute(sql.SQL(_OBJECTS).format(objects))
        conn.execute(sql.SQL("CREATE TABLE {} (src oid, page integer, data bytea)").format(pages))
        pipe(
            origin,
            conn,
            sql.SQL("(SELECT oid, md5(lo_get(oid)), length(lo_get(oid))::bigint FROM pg_largeobject_metadata)"),
            objects,
        )
        pipe(origin, conn, sql.SQL("(SELECT loid, pageno, data FROM pg_largeobject)"), pages)


def transfer(conn: Connection, number: int, schema: str, *, fetched: bool) -> tuple[int, int]:
    """Make the objects and their map ``homolog.large_object_<n>``, inside the caller's transaction.

    :param schema: the central's tables; the source's are in ``src_<n>``.
    :param fetched: whether `fetch` was called before; if not, the source has no large objects.
    :return: the number of objects, and of OIDs that name nothing.
    """
    objects, pages = _side_tables(number)
    new = sql.Identifier("homolog", f"large_object_{number}")
    conn.execute(
        sql.SQL(
            "CREATE TABLE {} (src oid PRIMARY KEY, dst oid NOT NULL UNIQUE, dangling boolean NOT NULL,"
            " md5 text, size bigint)"
        ).format(new)
    )
    if not fetched:
        conn.execute(sql.SQL(_OBJECTS).format(objects))
    conn.execute(sql.SQL("ANALYZE {}").format(objects))
    wanted = sql.SQL(
        "SELECT src, false AS dangling FROM {} UNION ALL (SELECT v, true FROM ({}) m EXCEPT SELECT src, true FROM {})"
    )
    _assign(conn, new, wanted.format(objects, _mentioned(conn, f"src_{number}"), objects), _used(conn, schema))
    conn.execute(
        sql.SQL("UPDATE {} m SET md5 = o.md5, size = o.size FROM {} o WHERE o.src = m.src").format(new, objects)
    )
    (count, dangling) = _one(
        conn, sql.SQL("SELECT count(*), coalesce(sum(dangling::int), 0) FROM {}").format(new)
    )  # fmt: skip
    if fetched:
        _create(conn, new)
        conn.execute(
            sql.SQL(
                "SELECT count(done) FROM (SELECT lo_put(m.dst, p.page::bigint * 2048, p.data) AS done"
                " FROM {} p JOIN {} m USING (src) ORDER BY m.dst, p.page) s"
            ).format(pages, new)
        )
    clear(conn, number)
    return count - dangling, dangling


def clear(conn: Connection, number: int) -> None:
    """Drop the side tables."""
    for table in _side_tables(number):
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))


def pipe(
    origin: Connection, target: Connection, what: sql.Composable, into: sql.Composable, options: str = "FORMAT binary"
) -> int:
    """Copy opaque chunks from one session to another; return the rows.

    :param what: table, perhaps with columns, or a query in parentheses.
    :param options: options of both COPY statements.
    """
    binary = sql.SQL(options)
    freeze = sql.SQL(", FREEZE")
    with (
        origin.cursor().copy(sql.SQL("COPY {} TO STDOUT ({})").format(what, binary)) as rows,
        target.cursor() as cursor,
    ):
        with cursor.copy(sql.SQL("COPY {} FROM STDIN ({}{})").format(into, binary, freeze)) as sink:
            gathered = bytearray()
            for row in rows:
                gathered += row
                if len(gathered) >= _PIPE:
                    sink.write(bytes(gathered))
                    gathered.clear()
            sink.write(bytes(gathered))
        return cursor.rowcount


def _side_tables(number: int) -> tuple[sql.Identifier, sql.Identifier]:
    return sql.Identifier("homolog", f"object_{number}"), sql.Identifier("homolog", f"page_{number}")


def _mentioned(conn: Connection, schema: str) -> sql.Composable:
    """A query for the OIDs in all columns of type oid of a schema's tables, as column `v`."""
    columns = conn.execute(_OID_COLUMNS.encode(), [schema]).fetchall()
    queries = [
        sql.SQL("SELECT {column}::oid AS v FROM {table} WHERE {column} IS NOT NULL").format(
            column=sql.Identifier(column), table=sql.Identifier(schema, table)
        )
        for table, column in columns
    ]
    return sql.SQL(" UNION ").join(queries) if queries else sql.SQL("SELECT NULL::oid AS v WHERE false")


def _used(conn: Connection, schema: str) -> sql.Composable:
    """A query for all OIDs that the run's database holds, mentions or has given away."""
    maps = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'homolog')"
        " AND relkind = 'r' AND relname ~ '^large_object_[0-9]+$'"
    ).fetchall()
    parts: list[sql.Composable] = [
        sql.SQL("SELECT oid AS v FROM pg_largeobject_metadata"),
        _mentioned(conn, schema),
        *(sql.SQL("SELECT dst FROM {}").format(sql.Identifier("homolog", name)) for (name,) in maps),
    ]
    return sql.SQL(" UNION ").join(parts)


def _assign(conn: Connection, new: sql.Identifier, wanted: sql.Composable, used: sql.Composable) -> None:
    """Fill the map: a free OID for each wanted one, above all that are used if there is room."""
    conn.execute(sql.SQL("CREATE TEMP TABLE homolog_wanted ON COMMIT DROP AS {}").format(wanted))
    conn.execute(sql.SQL("CREATE TEMP TABLE homolog_used ON COMMIT DROP AS {}").format(used))
    conn.execute("ANALYZE homolog_used")
    needed, taken, top = _one(
        conn,
        sql.SQL(
            "SELECT (SELECT count(*) FROM homolog_wanted), count(*), coalesce(max(v::bigint), 0) FROM homolog_used"
        ),
    )
    first = max(top + 1, _FIRST_OID)
    if first + needed + taken > _LAST_OID:
        first = _FIRST_OID
    conn.execute(
        sql.SQL(
            "INSERT INTO {} SELECT w.src, f.dst, w.dangling"
            "  FROM (SELECT src, dangling, row_number() OVER (ORDER BY dangling, src) AS place FROM homolog_wanted) w"
            "  JOIN (SELECT g::oid AS dst, row_number() OVER (ORDER BY g) AS place"
            "          FROM generate_series({}::bigint, {}::bigint) g"
            "         WHERE NOT EXISTS (SELECT 1 FROM homolog_used u WHERE u.v = g::oid)) f USING (place)"
        ).format(new, sql.Literal(first), sql.Literal(first + needed + taken))
    )


def _create(conn: Connection, new: sql.Identifier) -> None:
    """Create the objects as the owner of the database, so that a dump of it has them as its own."""
    (owner,) = _one(conn, sql.SQL("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"))
    conn.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(new, sql.Identifier(owner)))
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA homolog TO {}").format(sql.Identifier(owner)))
    conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))
    conn.execute(
        sql.SQL("SELECT count(made) FROM (SELECT lo_create(dst) AS made FROM {} WHERE NOT dangling) s").format(new)
    )
    conn.execute("SET LOCAL ROLE NONE")


def _one(conn: Connection, query: sql.SQL | sql.Composed) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query).fetchone()
    assert row is not None
    return row
