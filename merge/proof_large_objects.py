"""Proof that every large object is there once, with the bytes that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from merge.proof import SHOWN, Difference, Findings, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from merge.proof_session import Connection

# lo_get() reads a hole as zeros, as an application does; OFFSET 0 keeps it from being called twice.
_CHECK_SOURCE = """
    SELECT l.src, l.dst, l.size, length(d.content), l.dangling, m.oid IS NULL, count(*) OVER ()
      FROM homolog.{map} l
      LEFT JOIN pg_largeobject_metadata m ON m.oid = l.dst
      LEFT JOIN LATERAL (SELECT lo_get(m.oid) AS content WHERE m.oid IS NOT NULL OFFSET 0) d ON true
     WHERE CASE WHEN l.dangling THEN m.oid IS NOT NULL
                ELSE m.oid IS NULL OR l.md5 IS DISTINCT FROM md5(d.content) OR l.size IS DISTINCT FROM length(d.content)
           END
     LIMIT {limit}
"""

_CHECK_BASE = """
    SELECT l.loid, l.size, length(d.content), m.oid IS NULL, count(*) OVER ()
      FROM homolog.base_large_object l
      LEFT JOIN pg_largeobject_metadata m ON m.oid = l.loid
      LEFT JOIN LATERAL (SELECT lo_get(m.oid) AS content WHERE m.oid IS NOT NULL OFFSET 0) d ON true
     WHERE m.oid IS NULL OR l.md5 <> md5(d.content)
     LIMIT {limit}
"""

_INVENTED = """
    SELECT m.oid, count(*) OVER ()
      FROM pg_largeobject_metadata m
      LEFT JOIN ({known}) k ON k.oid = m.oid
     GROUP BY m.oid HAVING count(k.oid) <> 1
     LIMIT {limit}
"""

_TABLE = "pg_largeobject"


def check_source(conn: Connection, *, source: int, findings: Findings) -> None:
    """Every large object of the source is there under its new number, with the bytes noted when it was read."""
    name = f"large_object_{source}"
    if not _exists(conn, name):
        return
    columns = {
        column
        for (column,) in conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0", [f"homolog.{name}"]
        )
    }
    if not {"md5", "size"} <= columns:
        if conn.execute(sql.SQL("SELECT 1 FROM homolog.{} WHERE NOT dangling").format(sql.Identifier(name))).fetchone():
            findings.add(Kind.LARGE_OBJECT, name, reason="nobody noted the bytes that the source's large objects have")
        return
    found = conn.execute(sql.SQL(_CHECK_SOURCE).format(map=sql.Identifier(name), limit=sql.Literal(SHOWN))).fetchall()
    examples = [
        Difference(
            Kind.LARGE_OBJECT.value,
            _TABLE,
            f"loid={dst}",
            None,
            source,
            "none" if dangling else f"{size} bytes",
            "none" if absent else f"{length} bytes",
            f"number {src} in the source",
        )
        for src, dst, size, length, dangling, absent, _ in found
    ]
    if found:
        findings.extend(examples, found[0][-1])
    row = conn.execute(sql.SQL("SELECT count(*) FROM homolog.{}").format(sql.Identifier(name))).fetchone()
    if row is not None and row[0]:
        findings.compared(_TABLE, row[0])


def check_central(conn: Connection, *, sources: Sequence[int], findings: Findings) -> None:
    """The central's large objects are what they were, and there are no others than those that the sources brought."""
    _check_base(conn, findings)
    known = [sql.SQL("SELECT loid AS oid FROM homolog.base_large_object")]
    for source in sources:
        if _exists(conn, f"large_object_{source}"):
            name = sql.Identifier(f"large_object_{source}")
            known.append(sql.SQL(sql.SQL("SELECT dst FROM homolog.{} WHERE NOT dangling").format(name).as_string(conn)))
    extra = conn.execute(
        sql.SQL(_INVENTED).format(known=sql.SQL(" UNION ALL ").join(known), limit=sql.Literal(SHOWN))
    ).fetchall()
    if extra:
        examples = [
            Difference(Kind.LARGE_OBJECT.value, _TABLE, f"loid={oid}", reason="of nobody, or of two")
            for oid, _ in extra
        ]
        findings.extend(examples, extra[0][1])


def _check_base(conn: Connection, findings: Findings) -> None:
    """The central's large objects are what they were."""
    found = conn.execute(sql.SQL(_CHECK_BASE).format(limit=sql.Literal(SHOWN))).fetchall()
    if found:
        findings.touched()
        examples = [
            Difference(
                Kind.LARGE_OBJECT.value,
                _TABLE,
                f"loid={loid}",
                expected=f"{size} bytes",
                found="none" if absent else f"{length} bytes",
            )
            for loid, size, length, absent, _ in found
        ]
        findings.extend(examples, found[0][-1])


def keep_contents(conn: Connection) -> None:
    """Keep a digest of every large object of the merged database in the schema of the proof by content."""
    conn.execute(
        "CREATE UNLOGGED TABLE homolog_content.large_object AS"
        " SELECT m.oid AS loid, md5(d.content) || length(d.content) AS content"
        " FROM pg_largeobject_metadata m, LATERAL (SELECT lo_get(m.oid) AS content OFFSET 0) d"
    )


def check_content(conn: Connection, *, sources: Sequence[int], findings: Findings) -> None:
    """Besides the central's large objects, which are what they were, there are as many of each content as the sources
    had.

    Whether each row has the right one is for the comparison of the rows to say.
    """
    _check_base(conn, findings)
    had: list[sql.Composable] = [sql.SQL("SELECT NULL::text AS content WHERE false")]
    for source in sources:
        if _exists(conn, f"large_object_{source}"):
            name = sql.Identifier(f"large_object_{source}")
            had.append(sql.SQL("SELECT md5 || size FROM homolog.{} WHERE NOT dangling").format(name))
    rows = conn.execute(
        sql.SQL(
            "SELECT content, coalesce(e.n, 0), coalesce(g.n, 0), g.loid FROM"
            " (SELECT content, count(*) AS n FROM ({had}) h GROUP BY 1) e FULL JOIN"
            " (SELECT content, count(*) AS n, max(loid) AS loid FROM homolog_content.large_object"
            "   WHERE loid NOT IN (SELECT loid FROM homolog.base_large_object) GROUP BY 1) g USING (content)"
            " WHERE e.n IS DISTINCT FROM g.n ORDER BY 1"
        ).format(had=sql.SQL(" UNION ALL ").join(had))
    ).fetchall()
    if rows:
        examples = [
            Difference(
                Kind.LARGE_OBJECT.value,
                _TABLE,
                f"loid={loid}" if loid is not None else "",
                expected=f"× {must}",
                found=f"× {has}",
                reason="objects with the same bytes",
            )
            for _, must, has, loid in rows[:SHOWN]
        ]
        findings.extend(examples, sum(abs(must - has) for _, must, has, _ in rows))


def _exists(conn: Connection, name: str) -> bool:
    return conn.execute("SELECT to_regclass(%s) IS NOT NULL", [f"homolog.{name}"]).fetchone() == (True,)
