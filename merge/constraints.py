"""What the constraints of the source would have said: its rows are loaded without any, so queries say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import PreflightBlocked
from merge.language import counted, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from merge.catalog import Catalog, Table


@dataclass(frozen=True)
class Violation:
    """Rows of one table that break one of its constraints."""

    table: str
    constraint: str
    rows: int

    def __str__(self) -> str:
        return f"{self.table} {self.constraint}: {self.rows}"


def violations(
    conn: psycopg.Connection[tuple[Any, ...]], catalog: Catalog, table: Table, schema: str, rows: Mapping[str, int]
) -> Iterator[Violation]:
    """Foreign keys, unique and primary keys, NOT NULLs and checks of one table that its rows in `schema` break.

    :param catalog: the central's, whose constraints the source shares.
    :param rows: rows of every table of the source.
    """
    if not rows.get(table.name):
        return
    keys = [k for k in table.foreign_keys if k.validated and k.ref_table in catalog.tables]
    labels = [str(k) for k in keys] + [f"CHECK {c}" for c in table.checks]
    if labels:
        counts = conn.execute(_one_scan(table, schema, keys)).fetchone() or ()
        for label, count in zip(labels, counts, strict=True):
            if count:
                yield Violation(table.name, label, count)
    for index in table.uniques:
        if index.plain:
            (count,) = conn.execute(_duplicates(table, schema, index.columns)).fetchone() or (0,)
            if count:
                yield Violation(table.name, f"UNIQUE ({', '.join(index.columns)})", count)


def check(found: Sequence[Violation]) -> None:
    """Raise `PreflightBlocked` with all violations in its details, if there are any."""
    if found:
        raise PreflightBlocked(
            text(
                pt=f"As linhas da origem violam {counted(len(found), 'restrição', 'restrições')} do seu próprio "
                "esquema; nada foi gravado.",
                en=f"The source's rows break {counted(len(found), 'constraint', 'constraints')} of their own schema; "
                "nothing was written.",
            ),
            details=[str(v) for v in found],
            next_step=text(
                pt="Corrija os dados na origem e faça um novo backup.",
                en="Correct the data at the source and take a new backup.",
            ),
        )


def _one_scan(table: Table, schema: str, keys: Sequence[Any]) -> sql.Composed:
    """Count what breaks each foreign key and each check, all in one scan of the table."""
    counts: list[sql.Composable] = []
    joins: list[sql.Composable] = []
    for position, key in enumerate(keys):
        # Under names of their own, as a check names the columns of its table alone.
        names = [f"p{position} {number}" for number in range(len(key.columns))]
        parent = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(sql.Identifier(ref), sql.Identifier(name))
                for ref, name in zip(key.ref_columns, names, strict=True)
            ),
            sql.Identifier(schema, key.ref_table),
        )
        on = sql.SQL(" AND ").join(
            sql.SQL("{} = s.{}").format(sql.Identifier(name), sql.Identifier(column))
            for column, name in zip(key.columns, names, strict=True)
        )
        joins.append(sql.SQL(" LEFT JOIN ({}) {} ON {}").format(parent, sql.Identifier(f"p{position}"), on))
        present = sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(c)) for c in key.columns)
        counts.append(sql.SQL("count(*) FILTER (WHERE {} AND {} IS NULL)").format(present, sql.Identifier(names[0])))
    for definition in table.checks:
        condition = definition.removeprefix("CHECK ").removesuffix(" NOT VALID").removesuffix(" NO INHERIT")
        counts.append(sql.SQL("count(*) FILTER (WHERE NOT {})").format(sql.SQL(condition)))
    return sql.SQL("SELECT {} FROM {} s{}").format(
        sql.SQL(", ").join(counts), sql.Identifier(schema, table.name), sql.SQL("").join(joins)
    )


def _duplicates(table: Table, schema: str, columns: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(sql.Identifier(c) for c in columns)
    present = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in columns)
    return sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} GROUP BY {} HAVING count(*) > 1) d").format(
        sql.Identifier(schema, table.name), present, names
    )
