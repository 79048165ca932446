"""Privileges as they were granted, by whom and to whom, and the statements that bring them about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_BY_DEFAULT = {
    "database": ("CONNECT", "TEMPORARY"),
    "function": ("EXECUTE",),
    "language": ("USAGE",),
    "type": ("USAGE",),
}
"""What everybody may do with a new object of a kind."""


@dataclass(frozen=True)
class Grant:
    """What one role gave another; `grantee` is empty for PUBLIC."""

    grantor: str
    grantee: str
    privileges: tuple[str, ...]
    grantable: bool

    def __str__(self) -> str:
        option = "*" if self.grantable else ""
        return f"{', '.join(self.privileges)}{option} → {self.grantee or 'PUBLIC'} ({self.grantor})"


Grants = tuple[Grant, ...] | None
"""None: as they are for any new object of this owner."""


def selected(acl: str, kind: str, owner: str) -> str:
    """SQL for the grants of an access list, as JSON for `read`; NULL if it is as that of any new object.

    :param kind: SQL for the letter by which ``acldefault`` knows the kind of object.
    """
    listed = "SELECT pg_catalog.array_agg(i::text ORDER BY i::text) FROM pg_catalog.unnest({}) i"
    return f"""
        CASE WHEN {acl} IS NOT NULL AND ({listed.format(acl)})
            IS DISTINCT FROM ({listed.format(f"pg_catalog.acldefault({kind}, {owner})")})
        THEN coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(grantor, grantee, privileges, grantable)
            ORDER BY grantor, grantee, grantable)
            FROM (SELECT pg_catalog.pg_get_userbyid(e.grantor)::text AS grantor, e.is_grantable AS grantable,
                CASE e.grantee WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(e.grantee)::text END AS grantee,
                pg_catalog.array_agg(e.privilege_type ORDER BY e.privilege_type) AS privileges
                FROM pg_catalog.aclexplode({acl}) e GROUP BY 1, 2, 3) g), '[]') END
    """  # noqa: S608


def read(found: Sequence[Sequence[Any]] | None) -> Grants:
    """The grants that `selected` selected, or a file holds."""
    if found is None:
        return None
    return tuple(Grant(grantor, grantee, tuple(privileges), grantable)
                 for grantor, grantee, privileges, grantable in found)  # fmt: skip


def role(name: str) -> sql.Composable:
    """A role, or PUBLIC, in a statement."""
    return sql.Identifier(name) if name else sql.SQL("PUBLIC")


def statements(
    target: sql.Composable, kind: str, owner: str, wanted: Grants, found: Grants, column: str | None = None
) -> Iterator[sql.Composed]:
    """What makes `wanted` out of `found` for one object.

    :param target: e.g. ``TABLE public.patients``.
    :param kind: e.g. ``table``, ``function``, ``database``.
    :param column: only this column of the table.
    """
    part = sql.SQL("") if column is None else sql.SQL(" ({})").format(sql.Identifier(column))
    grantees = dict.fromkeys(["", owner, *(grant.grantee for grant in found or ())])
    for grantee in grantees if column is None else dict.fromkeys(g.grantee for g in found or ()):
        yield sql.SQL("REVOKE ALL{} ON {} FROM {} CASCADE").format(part, target, role(grantee))
    if wanted is None:
        if column is None:
            yield sql.SQL("GRANT ALL ON {} TO {}").format(target, role(owner))
            for privilege in _BY_DEFAULT.get(kind, ()):
                yield sql.SQL("GRANT {} ON {} TO PUBLIC").format(sql.SQL(privilege), target)
        return
    for grant in _in_order(wanted, owner):
        privileges = sql.SQL(", ").join(sql.SQL("{}{}").format(sql.SQL(p), part) for p in grant.privileges)
        option = sql.SQL(" WITH GRANT OPTION" if grant.grantable else "")
        query = sql.SQL("GRANT {} ON {} TO {}{}").format(privileges, target, role(grant.grantee), option)
        if grant.grantor == owner:
            yield query
        else:  # only the one who gave it can be noted as the one who gave it
            yield sql.SQL("SET LOCAL ROLE {}").format(role(grant.grantor))
            yield query
            yield sql.SQL("RESET ROLE").format()


def default_statements(
    of: str, schema: str, kind: str, wanted: Iterable[Grant], found: Iterable[Grant], *, back: bool
) -> Iterator[sql.Composed]:
    """The same for what a role gives with every new object, in a schema or (empty) everywhere.

    :param kind: e.g. ``TABLES``.
    :param back: what holds everywhere goes back to what it is without anything said.
    """
    head = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}").format(role(of))
    if schema:
        head = sql.SQL("{} IN SCHEMA {}").format(head, sql.Identifier(schema))
    on = sql.SQL(kind)
    everybody = ["", of] if not schema else []
    for grantee in dict.fromkeys([*everybody, *(grant.grantee for grant in found)]):
        yield sql.SQL("{} REVOKE ALL ON {} FROM {}").format(head, on, role(grantee))
    if back and not schema:
        yield sql.SQL("{} GRANT ALL ON {} TO {}").format(head, on, role(of))
        for privilege in _BY_DEFAULT.get(kind.lower().removesuffix("s"), ()):
            yield sql.SQL("{} GRANT {} ON {} TO PUBLIC").format(head, sql.SQL(privilege), on)
    for grant in wanted:
        option = sql.SQL(" WITH GRANT OPTION" if grant.grantable else "")
        privileges = sql.SQL(", ").join(map(sql.SQL, grant.privileges))
        yield sql.SQL("{} GRANT {} ON {} TO {}{}").format(head, privileges, on, role(grant.grantee), option)


def _in_order(wanted: Iterable[Grant], owner: str) -> Iterator[Grant]:
    """Each after the one that lets its grantor give."""
    able, rest = {owner}, list(wanted)
    while rest:
        ready = [grant for grant in rest if grant.grantor in able] or rest
        yield from ready
        able.update(grant.grantee for grant in ready if grant.grantable)
        rest = [grant for grant in rest if grant not in ready]
