"""What a database holds, read from pg_catalog: tables, columns, keys, indexes, triggers, sequences, views.

Works on PostgreSQL 9.6 and later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg


@dataclass(frozen=True)
class Column:
    """One column; `type` as format_type() spells it, e.g. ``character varying(96)``; `base_type` below a domain."""

    name: str
    type: str
    base_type: str
    not_null: bool
    default: str | None
    generated: bool = False

    @property
    def integer(self) -> bool:
        """True if it can hold a surrogate key."""
        return self.base_type in ("bigint", "integer", "smallint") or self.base_type.startswith("numeric")


@dataclass(frozen=True)
class Index:
    """One index.

    :param columns: the indexed columns, "" at the place of an expression; `keys` are the same as SQL expressions.
    :param predicate: the condition of a partial index.
    :param constraint: True if a constraint owns it.
    :param definition: as pg_get_indexdef() gives it.
    """

    name: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    unique: bool
    primary: bool
    predicate: str | None
    constraint: bool
    definition: str

    @property
    def plain(self) -> bool:
        """True if it indexes all rows by plain columns."""
        return self.predicate is None and "" not in self.columns


@dataclass(frozen=True)
class ForeignKey:
    """One foreign key, columns in matching order."""

    name: str
    columns: tuple[str, ...]
    ref_table: str
    ref_columns: tuple[str, ...]
    validated: bool

    def __str__(self) -> str:
        return f"({', '.join(self.columns)}) → {self.ref_table} ({', '.join(self.ref_columns)})"


@dataclass(frozen=True)
class Table:
    """One ordinary table of the schema."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    def column(self, name: str) -> Column | None:
        """Return one column, or None."""
        return next((c for c in self.columns if c.name == name), None)

    @property
    def uniques(self) -> tuple[Index, ...]:
        """Unique indexes, the primary key's included."""
        return tuple(i for i in self.indexes if i.unique)


@dataclass(frozen=True)
class Sequence:
    """One sequence; `owner` is (table, column) if a column owns it or takes its default from it."""

    name: str
    last_value: int
    is_called: bool
    increment: int
    owner: tuple[str, str] | None


@dataclass(frozen=True)
class Catalog:
    """The objects of one schema of one database."""

    schema: str
    server_version: int
    tables: Mapping[str, Table]
    sequences: Mapping[str, Sequence] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    matviews: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    foreign_tables: tuple[str, ...] = ()


_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
           CASE WHEN y.typtype = 'd' THEN format_type(y.typbasetype, y.typtypmod)
                ELSE format_type(a.atttypid, a.atttypmod) END,
           a.attnotnull, pg_get_expr(d.adbin, d.adrelid), {generated}
      FROM pg_class c
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type y ON y.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = %s AND c.relkind IN ('r', 'p')
     ORDER BY c.relname, a.attnum
"""

_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = %s AND relkind IN ('r', 'p') ORDER BY relname"

_INDEXES = """
    SELECT t.relname, i.relname, x.indisunique, x.indisprimary, pg_get_expr(x.indpred, x.indrelid),
           EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.conrelid = x.indrelid
                      AND k.contype IN ('p', 'u', 'x')),
           pg_get_indexdef(x.indexrelid),
           ARRAY(SELECT coalesce(a.attname::text, '')
                   FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                   LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum AND k.attnum > 0
                  WHERE {key_part}
                  ORDER BY k.position),
           ARRAY(SELECT pg_get_indexdef(x.indexrelid, k.position::int, true)
                   FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                  WHERE {key_part}
                  ORDER BY k.position)
      FROM pg_index x
      JOIN pg_class t ON t.oid = x.indrelid AND t.relkind IN ('r', 'p')
      JOIN pg_class i ON i.oid = x.indexrelid
     WHERE t.relnamespace = %s
     ORDER BY t.relname, x.indisprimary DESC, i.relname
"""

_FOREIGN_KEYS = """
    SELECT t.relname, k.conname, r.relname, k.convalidated,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(attnum, position)
                   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.position),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(attnum, position)
                   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.position)
      FROM pg_constraint k
      JOIN pg_class t ON t.oid = k.conrelid
      JOIN pg_class r ON r.oid = k.confrelid
     WHERE k.contype = 'f' AND t.relnamespace = %s
     ORDER BY t.relname, k.conname
"""

_CHECKS = """
    SELECT t.relname, pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
     WHERE k.contype = 'c' AND t.relnamespace = %s
     ORDER BY t.relname, 2
"""

_TRIGGERS = """
    SELECT t.relname, pg_get_triggerdef(g.oid)
      FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
     WHERE NOT g.tgisinternal AND t.relnamespace = %s
     ORDER BY t.relname, g.tgname
"""

_SEQUENCES = """
    SELECT s.relname, t.relname, a.attname
      FROM pg_class s
      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.objsubid = 0
                           AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      LEFT JOIN pg_class t ON t.oid = d.refobjid
      LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
     WHERE s.relkind = 'S' AND s.relnamespace = %s
     ORDER BY s.relname
"""

_DEFAULT_SEQUENCES = """
    SELECT s.relname, t.relname, a.attname
      FROM pg_depend d
      JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
      JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
      JOIN pg_class t ON t.oid = f.adrelid
      JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = f.adnum
     WHERE s.relnamespace = %s
"""

_VIEWS = "SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = '{kind}' AND relnamespace = %s ORDER BY oid"

_FUNCTIONS = """
    SELECT p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', md5(coalesce(p.prosrc, ''))
      FROM pg_proc p WHERE p.pronamespace = %s ORDER BY 1
"""


def read(conn: psycopg.Connection[tuple[Any, ...]], schema: str) -> Catalog:
    """Read the catalog of `schema`; an absent schema gives an empty catalog."""
    version = conn.info.server_version
    found = conn.execute("SELECT oid FROM pg_namespace WHERE nspname = %s", [schema]).fetchone()
    if found is None:
        return Catalog(schema, version, {})

    def rows(query: str) -> list[tuple[Any, ...]]:
        return conn.execute(query.encode(), [found[0]]).fetchall()

    def grouped(query: str) -> dict[str, list[tuple[Any, ...]]]:
        groups: dict[str, list[tuple[Any, ...]]] = {}
        for table, *rest in rows(query):
            groups.setdefault(table, []).append(tuple(rest))
        return groups

    columns = grouped(_COLUMNS.format(generated="a.attgenerated <> ''" if version >= 120000 else "false"))
    indexes = grouped(_INDEXES.format(key_part="k.position <= x.indnkeyatts" if version >= 110000 else "true"))
    foreign_keys = grouped(_FOREIGN_KEYS)
    checks = grouped(_CHECKS)
    triggers = grouped(_TRIGGERS)
    tables = {}
    for (name,) in rows(_TABLES):
        table_indexes = tuple(
            Index(i, tuple(cols), tuple(keys), unique, primary, predicate, constraint, definition)
            for i, unique, primary, predicate, constraint, definition, cols, keys in indexes.get(name, ())
        )
        tables[name] = Table(
            name,
            tuple(Column(*column) for column in columns.get(name, ())),
            next((i.columns for i in table_indexes if i.primary), ()),
            table_indexes,
            tuple(
                ForeignKey(key, tuple(cols), ref, tuple(ref_cols), validated)
                for key, ref, validated, cols, ref_cols in foreign_keys.get(name, ())
            ),
            tuple(definition for (definition,) in triggers.get(name, ())),
            tuple(definition for (definition,) in checks.get(name, ())),
        )
    return Catalog(
        schema,
        version,
        tables,
        _read_sequences(conn, schema, rows(_SEQUENCES), rows(_DEFAULT_SEQUENCES)),
        dict(rows(_VIEWS.format(kind="v"))),
        dict(rows(_VIEWS.format(kind="m"))),
        dict(rows(_FUNCTIONS)),
        tuple(
            name
            for (name,) in rows("SELECT relname FROM pg_class WHERE relkind = 'f' AND relnamespace = %s ORDER BY 1")
        ),
    )


def _read_sequences(
    conn: psycopg.Connection[tuple[Any, ...]],
    schema: str,
    owned: list[tuple[Any, ...]],
    defaults: list[tuple[Any, ...]],
) -> dict[str, Sequence]:
    if not owned:
        return {}
    owners = {name: (table, column) for name, table, column in owned if table is not None}
    owners.update({name: (table, column) for name, table, column in defaults})
    # Each sequence is a relation of its own; before version 10 it also holds its increment.
    increment = "increment_by" if conn.info.server_version < 100000 else "NULL"
    state = conn.execute(
        sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, last_value, is_called, {} FROM {}").format(
                sql.Literal(name), sql.SQL(increment), sql.Identifier(schema, name)
            )
            for name in sorted({row[0] for row in owned})
        )
    ).fetchall()
    steps = {}
    if conn.info.server_version >= 100000:
        steps = dict(
            conn.execute(
                "SELECT c.relname, s.seqincrement FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid"
                " WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)",
                [schema],
            ).fetchall()
        )
    return {
        name: Sequence(name, last, called, steps.get(name, step), owners.get(name))
        for name, last, called, step in state
    }
