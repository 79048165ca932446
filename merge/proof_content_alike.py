"""Tells apart things that their own rows do not tell apart, by what refers to them and by what they refer to.

Only rows that name such a thing are looked at. They are refined in both directions (Weisfeiler and Leman): a row is
told by its values and the things that it names, a thing by all rows that name it, round by round until no round tells
more. What is then alone on both sides is a pair. The rest is counted on either side, and reported: content cannot tell
such rows apart, nor that they were swapped.

That there are as many of them does not yet say that they belong together as they must. So those that hang together are
paired with some that hang together and are the same, one of each is then taken as told apart, and all is refined again,
until every row has its counterpart, with which it is compared like all others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from merge.masking import shown_key
from merge.proof import SHOWN, Difference, Kind
from merge.proof_content_rows import EXPECTED, FOUND, SCRATCH, SOURCE, value_of
from merge.proof_rows import TRUE
from merge.proof_session import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.plan import ColumnPlan, TablePlan
    from merge.proof import Findings
    from merge.proof_content_rows import Expected
    from merge.proof_session import Connection

_TABLES = """
    CREATE UNLOGGED TABLE {schema}.open_row (
        id bigserial, side "char", tbl int, source int, shown text, base text,
        names int[], domains int[], vals bigint[]);
    CREATE UNLOGGED TABLE {schema}.open_end (row bigint, side "char", name int, domain int, value bigint);
    CREATE UNLOGGED TABLE {schema}.row_class (row bigint, class text);
    CREATE UNLOGGED TABLE {schema}.thing (side "char", domain int, value bigint, class text);
"""

_ENDS = """
    INSERT INTO {schema}.open_end SELECT r.id, r.side, e.name, e.domain, e.value
      FROM {schema}.open_row r, unnest(r.names, r.domains, r.vals) AS e (name, domain, value) WHERE e.value IS NOT NULL;
    INSERT INTO {schema}.thing SELECT DISTINCT side, domain, value, '' FROM {schema}.open_end;
    ANALYZE {schema}.open_row; ANALYZE {schema}.open_end; ANALYZE {schema}.thing
"""

_ROUND = """
    TRUNCATE {schema}.row_class;
    INSERT INTO {schema}.row_class
    SELECT r.id, md5(r.tbl || ' ' || r.base || ' ' || e.named) FROM {schema}.open_row r
      JOIN (SELECT e.row, string_agg(e.name || ':' || t.class, ' ' ORDER BY e.name) AS named FROM {schema}.open_end e
              JOIN {schema}.thing t ON t.side = e.side AND t.domain = e.domain AND t.value = e.value GROUP BY 1) e
        ON e.row = r.id;
    CREATE UNLOGGED TABLE {schema}.thing_new AS
    SELECT t.side, t.domain, t.value, md5(t.class || ' ' || e.naming) AS class FROM {schema}.thing t
      JOIN (SELECT e.side, e.domain, e.value, string_agg(e.name || ':' || c.class, ' ' ORDER BY e.name, c.class)
                AS naming FROM {schema}.open_end e JOIN {schema}.row_class c ON c.row = e.row GROUP BY 1, 2, 3) e
        ON e.side = t.side AND e.domain = t.domain AND e.value = t.value;
    DROP TABLE {schema}.thing; ALTER TABLE {schema}.thing_new RENAME TO thing; ANALYZE {schema}.thing
"""

# What hangs together: things that rows name together, but for those that are told apart.
_OPEN = """
    CREATE UNLOGGED TABLE {schema}.part AS
    SELECT t.side, t.domain, t.value, t.class, row_number() OVER () AS label FROM {schema}.thing t
      JOIN (SELECT domain, class FROM {schema}.thing GROUP BY 1, 2
            HAVING NOT (count(*) FILTER (WHERE side = 'e') = 1 AND count(*) FILTER (WHERE side = 'n') = 1)) c
        ON c.domain = t.domain AND c.class = t.class;
    CREATE UNLOGGED TABLE {schema}.part_end AS
    SELECT e.row, p.side, p.domain, p.value FROM {schema}.open_end e
      JOIN {schema}.part p ON p.side = e.side AND p.domain = e.domain AND p.value = e.value;
    ANALYZE {schema}.part; ANALYZE {schema}.part_end
"""

_SPREAD = """
    UPDATE {schema}.part p SET label = l.label FROM
      (SELECT e.side, e.domain, e.value, min(r.label) AS label FROM {schema}.part_end e
         JOIN (SELECT e.row, min(p.label) AS label FROM {schema}.part_end e
                 JOIN {schema}.part p ON p.side = e.side AND p.domain = e.domain AND p.value = e.value GROUP BY 1) r
           ON r.row = e.row GROUP BY 1, 2, 3) l
     WHERE l.side = p.side AND l.domain = p.domain AND l.value = p.value AND l.label < p.label
"""

_PAIR = """
    CREATE UNLOGGED TABLE {schema}.whole AS
    SELECT side, label, kind, row_number() OVER (PARTITION BY side, kind ORDER BY label) AS number FROM
      (SELECT r.side, r.label, md5(string_agg(c.class, ' ' ORDER BY c.class)) AS kind FROM
         (SELECT DISTINCT e.row, p.side, p.label FROM {schema}.part_end e
            JOIN {schema}.part p ON p.side = e.side AND p.domain = e.domain AND p.value = e.value) r
         JOIN {schema}.row_class c ON c.row = r.row GROUP BY 1, 2) k;
    UPDATE {schema}.thing t SET class = md5(f.kind || ' ' || f.number) FROM
      (SELECT DISTINCT ON (p.side, p.label) p.side, p.domain, p.value, w.kind, w.number FROM
         (SELECT *, count(*) OVER (PARTITION BY side, label, domain, class) AS alike FROM {schema}.part) p
         JOIN {schema}.whole w ON w.side = p.side AND w.label = p.label
        ORDER BY p.side, p.label, p.alike, p.domain, p.class, p.value) f
     WHERE f.side = t.side AND f.domain = t.domain AND f.value = t.value
"""

_UNPAIRED = """
    SELECT count(DISTINCT (w.side, w.label)), min(r.tbl) FROM {schema}.whole w
      LEFT JOIN {schema}.whole o ON o.side <> w.side AND o.kind = w.kind AND o.number = w.number
      LEFT JOIN {schema}.part p ON p.side = w.side AND p.label = w.label
      LEFT JOIN {schema}.part_end e ON e.side = p.side AND e.domain = p.domain AND e.value = p.value
      LEFT JOIN {schema}.open_row r ON r.id = e.row
     WHERE o.kind IS NULL
"""

_CLASSES = "SELECT count(*) FROM (SELECT DISTINCT domain, class FROM {schema}.thing) c"

# A class with one thing on both sides is a pair; what it is called is the number expected, else a number of its class.
_NAMES = """
    CREATE UNLOGGED TABLE {schema}.class AS
    SELECT domain, class, CASE WHEN pair THEN one END AS id, pair,
           row_number() OVER (PARTITION BY domain, pair ORDER BY class) AS number
      FROM (SELECT domain, class, min(value) FILTER (WHERE side = 'e') AS one,
                   count(*) FILTER (WHERE side = 'e') = 1 AND count(*) FILTER (WHERE side = 'n') = 1 AS pair
              FROM {schema}.thing GROUP BY 1, 2) q
"""


class Alike:
    """Refines what the pairing left open; `rows` are then, by table, those that content cannot tell apart.

    :ivar found: by table, merged rows that have no counterpart, or could not be given one.
    """

    def __init__(self, expected: Expected, tables: Sequence[TablePlan]) -> None:
        self._expected = expected
        self._tables = tables
        self.rows: dict[str, int] = {}
        self.found: dict[str, int] = {}

    def refine(
        self, connect: Callable[[], Connection], conn: Connection, jobs: int, secret: str, findings: Findings
    ) -> None:
        """Refine until every row has its counterpart, and note the pairs found."""
        self._do(conn, _TABLES)
        tasks = [partial(self._collect, number=n, secret=secret) for n, t in enumerate(self._tables) if self._unsure(t)]
        run_all(connect, tasks, jobs, read_only=False)
        self._do(conn, _ENDS)
        self._settle(conn)
        if self._compare(conn, findings):
            while self._pair_wholes(conn, findings):
                self._settle(conn)
        self._do(conn, _NAMES)
        self._learn(conn)
        left = sql.SQL("SELECT tbl, count(*) FROM {}.open_row WHERE side = 'n' AND id IN ({}) GROUP BY 1").format(
            sql.Identifier(SCRATCH), self._in_key()
        )
        self.found = {self._tables[number].name: rows for number, rows in conn.execute(left)}

    def _settle(self, conn: Connection) -> None:
        """Refine until no round tells more."""
        classes = -1
        while (now := self._count(conn, _CLASSES)) > classes:
            classes = now
            self._do(conn, _ROUND)

    def _pair_wholes(self, conn: Connection, findings: Findings) -> bool:
        """Take one thing of everything that hangs together as told apart; whether there was anything."""
        self._do(conn, _OPEN)
        schema = sql.Identifier(SCRATCH)
        open_ = self._count(conn, "SELECT count(*) FROM {schema}.part")
        if open_:
            while conn.execute(sql.SQL(_SPREAD).format(schema=schema)).rowcount:
                pass
            self._do(conn, _PAIR)
            unpaired = conn.execute(sql.SQL(_UNPAIRED).format(schema=schema)).fetchone()
            if unpaired is not None and unpaired[0]:
                reason = "rows that are the same in themselves do not belong together as they must"
                table = self._tables[unpaired[1]].name
                findings.extend([Difference(Kind.CHANGED.value, table, reason=reason)], unpaired[0])
                open_ = 0
            self._do(conn, "DROP TABLE {schema}.whole")
        self._do(conn, "DROP TABLE {schema}.part;\n DROP TABLE {schema}.part_end")
        return bool(open_)

    def _do(self, conn: Connection, statements: str) -> None:
        with conn.transaction():
            for statement in filter(str.strip, statements.split(";\n")):
                conn.execute(sql.SQL(statement).format(schema=sql.Identifier(SCRATCH)))

    def _count(self, conn: Connection, query: str) -> int:
        row = conn.execute(sql.SQL(query).format(schema=sql.Identifier(SCRATCH))).fetchone()
        return int(row[0]) if row is not None else 0

    # Which rows

    def _unsure(self, table: TablePlan) -> list[ColumnPlan]:
        """The columns that may name a thing that is not told apart."""
        unsure = []
        for column in self._expected.columns(table):
            domain = self._expected.domain_of(column)
            if domain is not None:
                known = self._expected.domains[domain.name]
                told = known.segments and not known.listed
                if not told or not self._is_held(table.name, column.name, set()):
                    unsure.append(column)
        return unsure

    def _is_held(self, table: str, column: str, seen: set[tuple[str, str]]) -> bool:
        """True if the column is a key that defines its domain, or foreign keys make sure that it names one."""
        plan = self._expected.plan
        own = plan.own_domain(plan.table(table))
        if own is not None and own.members[0] == (table, column):
            return True
        seen.add((table, column))
        return any(
            key.validated and (key.ref_table, ref) not in seen and self._is_held(key.ref_table, ref, seen)
            for key in self._expected.catalog.tables[table].foreign_keys
            for name, ref in zip(key.columns, key.ref_columns, strict=True)
            if name == column
        )

    def _collect(self, conn: Connection, *, number: int, secret: str) -> None:
        """Keep the rows of one table that name a thing that is not told apart, with those things."""
        table, expected = self._tables[number], self._expected
        columns = expected.columns(table)
        open_ = {c.name: o for c in columns if (o := expected.is_open(c, "r")) is not None}
        unsure = [open_[c.name] for c in self._unsure(table)]
        base: list[sql.Composable] = []
        ends: list[tuple[int, int, sql.Composable]] = []
        for position, column in enumerate(columns):
            domain, name = expected.domain_of(column), sql.Identifier("r", column.name)
            if domain is None:
                base.append(name)
                continue
            known = expected.domains[domain.name]
            base.append(sql.SQL("greatest({}, {})").format(name, sql.Literal(known.floor)))
            value = sql.SQL("CASE WHEN {} THEN r.{} END").format(open_[column.name], value_of(column.name))
            ends.append((position, known.number, value))
        rows: list[tuple[str, sql.Composable]] = []
        if sources := expected.all_rows(table):
            rows.append((EXPECTED, expected.identified(table, EXPECTED, sql.SQL(" UNION ALL ").join(sources))))
        merged = expected.merged_rows(table, expected.plan.schema, TRUE)
        rows.append((FOUND, expected.identified(table, FOUND, merged)))
        key = expected.key_values(table, "r")
        for side, query in rows:
            conn.execute(
                sql.SQL(
                    "INSERT INTO {into} (side, tbl, source, shown, base, names, domains, vals)"
                    " SELECT {side}, {number}, r.{source}, {shown}, md5(ROW({base})::text), {names}::int[],"
                    " {domains}::int[], ARRAY[{values}]::bigint[] FROM ({rows}) r WHERE {open}"
                ).format(
                    into=sql.Identifier(SCRATCH, "open_row"),
                    side=sql.Literal(side),
                    number=sql.Literal(number),
                    source=SOURCE,
                    shown=shown_key(key, secret),
                    base=sql.SQL(", ").join(base),
                    names=sql.Literal([p for p, _, _ in ends]),
                    domains=sql.Literal([d for _, d, _ in ends]),
                    values=sql.SQL(", ").join([v for _, _, v in ends]),
                    rows=query,
                    open=sql.SQL(" OR ").join(unsure),
                )
            )

    # What was found

    def _learn(self, conn: Connection) -> None:
        schema = sql.Identifier(SCRATCH)
        numbers = {number for (number,) in conn.execute(sql.SQL("SELECT DISTINCT domain FROM {}.class").format(schema))}
        for name in self._expected.domains.names():
            known = self._expected.domains[name]
            if known.number not in numbers:
                continue
            self._expected.domains.make_lists(conn, name)
            for side in (EXPECTED, FOUND):
                conn.execute(
                    sql.SQL(
                        "INSERT INTO {table} SELECT t.value, CASE WHEN c.pair THEN c.id ELSE {floor} - c.number END"
                        " FROM {schema}.thing t JOIN {schema}.class c ON c.domain = t.domain AND c.class = t.class"
                        " WHERE t.side = {side} AND t.domain = {number}"
                        " ON CONFLICT (value) DO UPDATE SET id = excluded.id"
                    ).format(
                        table=known.table(side),
                        floor=sql.Literal(known.floor),
                        schema=schema,
                        side=sql.Literal(side),
                        number=sql.Literal(known.number),
                    )
                )
                conn.execute(sql.SQL("ANALYZE {}").format(known.table(side)))

    def _compare(self, conn: Connection, findings: Findings) -> bool:
        """Of rows whose key names a thing that is not told apart, there are as many of each kind on both sides."""
        self._do(conn, _NAMES)
        conn.execute(
            sql.SQL(
                "CREATE UNLOGGED TABLE {schema}.alike AS SELECT r.*, c.class FROM {schema}.open_row r"
                " JOIN {schema}.row_class c ON c.row = r.id WHERE r.id IN ({in_key})"
            ).format(schema=sql.Identifier(SCRATCH), in_key=self._in_key())
        )
        self._do(conn, "DROP TABLE {schema}.class")
        counts = conn.execute(
            sql.SQL(
                "SELECT tbl, sum(least(e, n)) FILTER (WHERE least(e, n) > 1)::bigint,"
                " sum(greatest(e - n, 0))::bigint, sum(greatest(n - e, 0))::bigint FROM"
                " (SELECT tbl, class, count(*) FILTER (WHERE side = 'e') AS e, count(*) FILTER (WHERE side = 'n') AS n"
                " FROM {}.alike GROUP BY 1, 2) q GROUP BY 1 ORDER BY 1"
            ).format(sql.Identifier(SCRATCH))
        ).fetchall()
        equal = True
        for number, alike, lost, invented in counts:
            if alike:
                self.rows[self._tables[number].name] = alike
            for kind, side, count in ((Kind.LOST, EXPECTED, lost), (Kind.INVENTED, FOUND, invented)):
                if count:
                    equal = False
                    findings.extend(self._examples(conn, number, kind, side), count)
        return equal

    def _in_key(self) -> sql.Composed:
        """The query of the rows whose key names a thing that is not told apart."""
        keys = [
            sql.SQL("({}, {})").format(sql.Literal(number), sql.Literal(position))
            for number, table in enumerate(self._tables)
            for position, column in enumerate(self._expected.columns(table))
            if column.name in table.key
        ]
        return sql.SQL(
            "SELECT e.row FROM {schema}.open_end e JOIN {schema}.open_row r ON r.id = e.row"
            " JOIN {schema}.thing t ON t.side = e.side AND t.domain = e.domain AND t.value = e.value"
            " JOIN {schema}.class c ON c.domain = t.domain AND c.class = t.class"
            " WHERE NOT c.pair AND (r.tbl, e.name) IN ({keys})"
        ).format(schema=sql.Identifier(SCRATCH), keys=sql.SQL(", ").join([sql.SQL("(-1, -1)"), *keys]))

    def _examples(self, conn: Connection, number: int, kind: Kind, side: str) -> list[Difference]:
        other = FOUND if side == EXPECTED else EXPECTED
        rows = conn.execute(
            sql.SQL(
                "SELECT shown, source FROM"
                " (SELECT shown, source, row_number() OVER (PARTITION BY class ORDER BY id) AS i,"
                "  (SELECT count(*) FROM {schema}.alike o WHERE o.side = {other} AND o.tbl = a.tbl"
                "    AND o.class = a.class) AS others FROM {schema}.alike a WHERE side = {side} AND tbl = {number}) q"
                " WHERE i > others LIMIT {limit}"
            ).format(
                schema=sql.Identifier(SCRATCH),
                other=sql.Literal(other),
                side=sql.Literal(side),
                number=sql.Literal(number),
                limit=sql.Literal(SHOWN),
            )
        ).fetchall()
        table = self._tables[number].name
        return [Difference(kind.value, table, key, None, source) for key, source in rows]
