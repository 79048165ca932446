"""The values of an undo list inside of the database, and what can be done with them there.

They go by COPY into files and come back by COPY into temporary tables, in their text form under settings that make it
exact; all that is compared, changed or put back is one statement over such a table.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sandbox.pec.undo_list import Entry, UndoList, Writer

Connection = psycopg.Connection[tuple[Any, ...]]
Connect = Callable[[], Connection]

SHOWN = 100
"""Conflicts that are listed at most; all are counted."""

_LOCK_SECONDS = 20
_EXACT = {
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "extra_float_digits": "3",
    "intervalstyle": "postgres",
    "timezone": "UTC",
}
_ENABLE = {"O": sql.SQL("ENABLE"), "R": sql.SQL("ENABLE REPLICA"), "A": sql.SQL("ENABLE ALWAYS")}


@dataclass(frozen=True)
class Conflict:
    """A value that neutralising wrote and somebody changed since; `column` is None where the row itself is gone."""

    rule: str
    table: str
    key: str
    column: str | None


class Values:
    """A temporary table with the values of one entry: key ``k*``, old ``o*``, new ``n*``, by position."""

    def __init__(self, conn: Connection, entry: Entry, schema: str, name: str) -> None:
        self.conn = conn
        self.entry = entry
        self.table = sql.Identifier(schema, entry.table)
        self._name = sql.Identifier(name)
        self.values = sql.Identifier("pg_temp", name)

    def _select(self, new: Sequence[sql.Composable]) -> sql.Composable:
        parts = [
            *(("k", n, sql.Identifier(column)) for n, column in enumerate(self.entry.key)),
            *(("o", n, sql.Identifier(column)) for n, column in enumerate(self.entry.columns)),
            *(("n", n, value) for n, value in enumerate(new)),
        ]
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, sql.Identifier(f"{kind}{n}")) for kind, n, value in parts
        )

    def keep(self, new: Sequence[sql.Composable], where: sql.Composable) -> None:
        """Take the rows of the table that meet a condition, and what their values are to become."""
        self.conn.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WHERE {}").format(
                self._name, self._select(new), self.table, where
            )
        )

    def write(self, writer: Writer) -> None:
        """Copy them into a file."""
        with self.conn.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(self.values)) as copy:
            for block in copy:
                writer.write(block)

    def read(self, blocks: Iterable[bytes]) -> None:
        """Copy them from a file."""
        new = [] if self.entry.delete else [sql.Identifier(column) for column in self.entry.columns]
        self.keep(new, sql.SQL("false"))
        with self.conn.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(self.values)) as copy:
            for block in blocks:
                copy.write(block)
        self.conn.execute(sql.SQL("ANALYZE {}").format(self.values))

    def drop(self) -> None:
        """Forget them, in the database."""
        self.conn.execute(sql.SQL("DROP TABLE {}").format(self.values))

    def apply(self) -> int:
        """Make the changes; return how many rows."""
        if self.entry.delete:
            query = sql.SQL("DELETE FROM {} t USING {} v WHERE {}").format(self.table, self.values, self._same_key())
        else:
            query = sql.SQL("UPDATE {} t SET {} FROM {} v WHERE {}").format(
                self.table, self._assign("n"), self.values, self._same_key()
            )
        return self.conn.execute(query).rowcount

    def restore(self, *, overwrite: bool) -> int:
        """Put the old values back where the present ones are the new ones (or anyway); return how many rows."""
        restored = 0
        if self.entry.delete:
            columns = sql.SQL(", ").join(map(sql.Identifier, self.entry.columns))
            old = sql.SQL(", ").join(sql.Identifier("v", f"o{n}") for n in range(len(self.entry.columns)))
            restored = self.conn.execute(
                sql.SQL(
                    "INSERT INTO {} ({}) SELECT {} FROM {} v WHERE NOT EXISTS (SELECT 1 FROM {} t WHERE {})"
                ).format(self.table, columns, old, self.values, self.table, self._same_key())
            ).rowcount
            if not overwrite:
                return restored
        changed = sql.SQL(" OR ").join(
            sql.SQL("({} AND {})").format(self._is_not(n, "o"), self._may_write(n, overwrite))
            for n in range(len(self.entry.columns))
        )
        assign = sql.SQL(", ").join(
            sql.SQL("{} = CASE WHEN {} THEN {} ELSE {} END").format(
                sql.Identifier(column), self._may_write(n, overwrite), sql.Identifier("v", f"o{n}"),
                sql.Identifier("t", column),
            )
            for n, column in enumerate(self.entry.columns)
        )  # fmt: skip
        update = sql.SQL("UPDATE {} t SET {} FROM {} v WHERE {} AND ({})").format(
            self.table, assign, self.values, self._same_key(), changed
        )
        return restored + self.conn.execute(update).rowcount

    def conflicts(self) -> tuple[list[Conflict], int]:
        """Values that are neither the old ones nor, where there are any, the new ones; and how many."""
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} AS key, {}::text AS col FROM {} v JOIN {} t ON {} WHERE {} AND {}").format(
                self._shown_key(), sql.Literal(column), self.values, self.table, self._same_key(),
                self._is_not(n, "o"), sql.SQL("true") if self.entry.delete else self._is_not(n, "n"),
            )
            for n, column in enumerate(self.entry.columns)
        )  # fmt: skip
        if not self.entry.delete:
            query = sql.SQL("{} UNION ALL {}").format(query, self._gone())
        return self.listed(query, SHOWN), self._count(query)

    def differing(self, earlier: Sequence[Values]) -> sql.Composable:
        """A query for the values that are not the old ones, but for those that an earlier change had changed."""
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} AS key, {}::text AS col FROM {} v JOIN {} t ON {} WHERE {}{}").format(
                self._shown_key(), sql.Literal(column), self.values, self.table, self._same_key(),
                self._is_not(n, "o"), self._unless(earlier, column),
            )
            for n, column in enumerate(self.entry.columns)
        )  # fmt: skip
        return sql.SQL("{} UNION ALL {}").format(query, self._gone())

    def listed(self, query: sql.Composable, limit: int) -> list[Conflict]:
        """The first rows of a query for keys and columns."""
        rows = self.conn.execute(
            sql.SQL("SELECT key, col FROM ({}) q ORDER BY 1, 2 LIMIT {}").format(query, sql.Literal(max(limit, 0)))
        )
        return [Conflict(self.entry.rule, self.entry.table, key, column) for key, column in rows.fetchall()]

    def is_at(self, kind: str) -> bool:
        """True if all rows hold the old (``o``) or the new (``n``) values."""
        if self.entry.delete and kind == "n":
            query = sql.SQL("SELECT 1 FROM {} v JOIN {} t ON {}").format(self.values, self.table, self._same_key())
        else:
            query = sql.SQL("SELECT 1 FROM {} v LEFT JOIN {} t ON {} WHERE {} IS NULL OR {}").format(
                self.values,
                self.table,
                self._same_key(),
                sql.Identifier("t", self.entry.key[0]),
                sql.SQL(" OR ").join(self._is_not(n, kind) for n in range(len(self.entry.columns))),
            )
        return self._count(query) == 0

    def _count(self, query: sql.Composable) -> int:
        row = self.conn.execute(sql.SQL("SELECT count(*) FROM ({}) q").format(query)).fetchone()
        return int(row[0]) if row is not None else 0

    def _gone(self) -> sql.Composable:
        return sql.SQL("SELECT {}, NULL::text FROM {} v WHERE NOT EXISTS (SELECT 1 FROM {} t WHERE {})").format(
            self._shown_key(), self.values, self.table, self._same_key()
        )

    def _unless(self, earlier: Sequence[Values], column: str) -> sql.Composable:
        same = [e for e in earlier if e.entry.table == self.entry.table and column in e.entry.columns]
        keys = sql.SQL(" AND ").join(
            sql.SQL("v.{} = e.{}").format(sql.Identifier(f"k{n}"), sql.Identifier(f"k{n}"))
            for n in range(len(self.entry.key))
        )
        return sql.SQL("").join(
            sql.SQL(" AND NOT EXISTS (SELECT 1 FROM {} e WHERE {})").format(change.values, keys) for change in same
        )

    def _same_key(self) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", column), sql.Identifier("v", f"k{n}"))
            for n, column in enumerate(self.entry.key)
        )

    def _shown_key(self) -> sql.Composable:
        return sql.SQL(" || ' ' || ").join(
            sql.SQL("{}::text").format(sql.Identifier("v", f"k{n}")) for n in range(len(self.entry.key))
        )

    def _assign(self, kind: str) -> sql.Composable:
        return sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), sql.Identifier("v", f"{kind}{n}"))
            for n, column in enumerate(self.entry.columns)
        )

    def _is_not(self, n: int, kind: str) -> sql.Composable:
        return sql.SQL("{}::text IS DISTINCT FROM {}::text").format(
            sql.Identifier("t", self.entry.columns[n]), sql.Identifier("v", f"{kind}{n}")
        )

    def _may_write(self, n: int, overwrite: bool) -> sql.Composable:
        return sql.SQL("true") if overwrite else sql.SQL("NOT ({})").format(self._is_not(n, "n"))


def load(conn: Connection, undo_list: UndoList, entry: Entry, schema: str, name: str) -> Values | None:
    """Bring the values of an entry into a temporary table; None if its table or a column of it is not there."""
    columns = columns_of(conn, schema, entry.table)
    if not {*entry.key, *entry.columns} <= columns.keys():
        return None
    values = Values(conn, entry, schema, name)
    values.read(undo_list.reading(entry))
    return values


# Sessions


@contextmanager
def changing(conn: Connection, tables: Sequence[str], schema: str, searched: str | None = None) -> Iterator[None]:
    """A transaction in which nobody else writes to the tables and their triggers do not fire.

    :param searched: the schema that names without one are looked for in, if it is another.
    """
    with conn.transaction():
        set_exact(conn, searched or schema)
        conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{_LOCK_SECONDS}s")))
        silenced = []
        for table in sorted({t for t in tables if columns_of(conn, schema, t)}):
            name = sql.Identifier(schema, table)
            conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name))
            for trigger, enabled in conn.execute(
                "SELECT tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
                "   AND tgrelid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s))",
                [schema, table],
            ).fetchall():
                conn.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(name, sql.Identifier(trigger)))
                silenced.append((name, sql.Identifier(trigger), _ENABLE[enabled]))
        yield
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks to come cannot be altered
        for name, trigger_name, enable in silenced:
            conn.execute(sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(name, enable, trigger_name))


def set_exact(conn: Connection, searched: str) -> None:
    """Within a transaction: values as text are exact, and names without a schema are looked for in `searched`."""
    for setting, value in _EXACT.items():
        conn.execute("SELECT set_config(%s, %s, true)", [setting, value])
    conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", [searched])


def columns_of(conn: Connection, schema: str, table: str) -> dict[str, str]:
    """Types of the columns of a table that can be written to; none if it is not there."""
    generated = "a.attgenerated = ''" if conn.info.server_version >= 120000 else "true"
    found = conn.execute(
        sql.SQL(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
            " WHERE a.attrelid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s)) AND a.attnum > 0"
            "   AND NOT a.attisdropped AND {} ORDER BY a.attnum"
        ).format(sql.SQL(generated)),
        [schema, table],
    )
    return dict(found.fetchall())


def key_of(conn: Connection, schema: str, table: str) -> tuple[str, ...]:
    """The columns of a table's primary key in their order; none if it has no such key."""
    found = conn.execute(
        "SELECT a.attname FROM pg_constraint k, unnest(k.conkey) WITH ORDINALITY AS u(number, position)"
        "  JOIN pg_attribute a ON a.attnum = u.number"
        " WHERE k.contype = 'p' AND a.attrelid = k.conrelid"
        "   AND k.conrelid = to_regclass(quote_ident(%s) || '.' || quote_ident(%s)) ORDER BY u.position",
        [schema, table],
    )
    return tuple(name for (name,) in found.fetchall())
