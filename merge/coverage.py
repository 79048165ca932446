"""The coverage gate: nothing that holds data may be unknown to the profile.

Hand-kept lists of tables that miss one lose its rows in silence; so a filled table without a role, or a filled column
that looks like a reference but is neither a foreign key nor declared, stops the merge.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import CoverageError
from merge.language import counted, text
from merge.plan import Action

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import psycopg

    from merge.catalog import Catalog
    from merge.domains import Member
    from merge.plan import Plan
    from merge.profile import Profile


def check_coverage(
    conn: psycopg.Connection[tuple[Any, ...]],
    plan: Plan,
    catalog: Catalog,
    profile: Profile,
    schema: str,
    filled: Collection[str],
) -> None:
    """Check the rows of a source, which are in `schema`.

    :param filled: tables that hold rows.
    :raises CoverageError: listing every table and column that the profile does not explain.
    """
    missing = [
        text(pt=f"tabela sem papel: {t.name}", en=f"table without a role: {t.name}")
        for t in plan
        if t.role is None and t.name in filled
    ]
    for table, column in _undeclared(plan, catalog, profile):
        if table in filled and _holds_values(conn, schema, table, column):
            missing.append(
                text(pt=f"referência não declarada: {table}.{column}", en=f"undeclared reference: {table}.{column}")
            )
    for (table, column), target in _dropped_targets(plan, catalog):
        if {table, target} <= set(filled) and _holds_values(conn, schema, table, column):
            missing.append(
                text(
                    pt=f"referência a linhas que não vêm: {table}.{column} → {target}",
                    en=f"reference to rows that do not come: {table}.{column} → {target}",
                )
            )
    if missing:
        raise CoverageError(
            text(
                pt="O perfil não diz o que fazer com "
                f"{counted(len(missing), 'tabela ou coluna que tem', 'tabelas ou colunas que têm')} dados.",
                en="The profile does not say what to do with "
                f"{counted(len(missing), 'table or column that holds', 'tables or columns that hold')} data.",
            ),
            details=missing,
            next_step=text(
                pt="Declare cada uma no perfil: papel da tabela, referência ou valor.",
                en="Declare each in the profile: role of the table, reference or value.",
            ),
        )


def count_opaque(
    conn: psycopg.Connection[tuple[Any, ...]], plan: Plan, profile: Profile, schema: str, filled: Collection[str]
) -> dict[str, int]:
    """How many values of each ``table.column`` hold keys that cannot be mapped; columns without any are left out."""
    counts = {}
    for table in plan.merged():
        columns = [c.name for c in table.columns if profile.is_opaque(table.name, c.name)]
        if columns and table.name in filled:
            query = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(sql.SQL("count({})").format(sql.Identifier(c)) for c in columns),
                sql.Identifier(schema, table.name),
            )
            row = conn.execute(query).fetchone() or ()
            counts.update({f"{table.name}.{c}": n for c, n in zip(columns, row, strict=True) if n})
    return counts


def _undeclared(plan: Plan, catalog: Catalog, profile: Profile) -> Iterator[Member]:
    """Integer columns of tables that come whose names look like references, but which nothing explains.

    So are columns that are declared to refer to a column which this database does not have.
    """
    for table in plan.merged():
        for column in table.columns:
            found = catalog.tables[table.name].column(column.name)
            if (
                column.domain is None
                and found is not None
                and found.integer
                and (
                    any(fnmatchcase(column.name, pattern) for pattern in profile.application.reference_names)
                    or profile.is_reference(table.name, column.name)
                )
                and not profile.is_value(table.name, column.name)
                and not profile.is_opaque(table.name, column.name)
            ):
                yield table.name, column.name


def _dropped_targets(plan: Plan, catalog: Catalog) -> Iterator[tuple[Member, str]]:
    """Foreign keys of tables that come to tables that do not, unless the key is a code that both sides share."""
    excluded = {t.name for t in plan if t.action is Action.EXCLUDE}
    for table in plan.merged():
        for key in catalog.tables[table.name].foreign_keys:
            for name in key.columns:
                domain = table.column(name).domain
                if key.ref_table in excluded and domain is not None and not plan.domains[domain].fixed:
                    yield (table.name, name), key.ref_table


def _holds_values(conn: psycopg.Connection[tuple[Any, ...]], schema: str, table: str, column: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NOT NULL)").format(
        sql.Identifier(schema, table), sql.Identifier(column)
    )
    return conn.execute(query).fetchone() == (True,)
