"""Whether two databases have the same schema, and which differences are harmless."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from merge.errors import SchemaDifference
from merge.language import counted, text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from merge.catalog import Catalog, Index, Table


@dataclass(frozen=True)
class Difference:
    """One difference; a harmless one says why in `reason`; `table` is the table that it is of, if it is of one."""

    kind: str
    object: str
    central: str
    source: str
    harmless: bool = False
    reason: str = ""
    table: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.object}: central {self.central or '—'}; source {self.source or '—'}"


def compare(central: Catalog, source: Catalog, *, empty: Collection[str] = ()) -> tuple[Difference, ...]:
    """Compare the schemas of a central and a source.

    Whatever decides about rows must be equal: tables, columns, types, keys, checks. What does not (order of
    columns, plain indexes, triggers, views, functions, defaults) is reported as harmless: the source gives rows, and
    the central's own objects stay. So is whatever a table has that holds no row in the source, and a shorter
    ``character varying``: all that is in it fits.

    A longer one is not: a value might not fit, and none is cut. Nor is a key, foreign key or check that one side lacks,
    though the rows could be asked: where the same version says different things, somebody changed one by hand, and
    nobody knows what else.

    :param empty: tables known to hold no row in the source.
    """
    return tuple(_if_empty(d, empty) for d in _differences(central, source))


def _if_empty(difference: Difference, empty: Collection[str]) -> Difference:
    if difference.harmless or difference.table not in empty:
        return difference
    return replace(difference, harmless=True, reason=text(pt="vazia na origem", en="empty in the source"))


def to_count(differences: Iterable[Difference]) -> frozenset[str]:
    """Tables of the source that make a difference only if they hold rows."""
    return frozenset(d.table for d in differences if not d.harmless and d.table)


def check(differences: Sequence[Difference]) -> None:
    """Raise `SchemaDifference` if any difference is not harmless; all of them are in its details."""
    harmful = [str(d) for d in differences if not d.harmless]
    if harmful:
        raise SchemaDifference(
            text(
                pt="O esquema da origem não é o do central: "
                f"{counted(len(harmful), 'diferença impede', 'diferenças impedem')} a unificação.",
                en="The source's schema is not the central's: "
                f"{counted(len(harmful), 'difference forbids', 'differences forbid')} the merge.",
            ),
            next_step=text(
                pt="Leve as duas instalações à mesma versão do PEC e faça novos backups.",
                en="Bring both installations to the same PEC version and take new backups.",
            ),
            details=harmful,
        )


def _differences(central: Catalog, source: Catalog) -> Iterator[Difference]:
    for name in sorted(central.tables.keys() - source.tables.keys()):
        yield Difference(
            "table",
            name,
            "present",
            "",
            True,
            text(pt="a origem não tem essas linhas", en="the source has no such rows"),
        )
    for name in sorted(source.tables.keys() - central.tables.keys()):
        yield Difference("table", name, "", "present", table=name)
    for name in sorted(central.tables.keys() & source.tables.keys()):
        yield from (replace(d, table=name) for d in _table(central.tables[name], source.tables[name]))
    for kind, ours, theirs in (
        ("sequence", central.sequences.keys(), source.sequences.keys()),
        ("view", central.views.items(), source.views.items()),
        ("materialized view", central.matviews.items(), source.matviews.items()),
        ("function", central.functions.items(), source.functions.items()),
        ("foreign table", central.foreign_tables, source.foreign_tables),
    ):
        one, other = {str(o) for o in ours}, {str(o) for o in theirs}
        for name in sorted(one ^ other):
            mine, yours = ("present", "") if name in one else ("", "present")
            yield Difference(
                kind,
                name.split("\n")[0][:120],
                mine,
                yours,
                True,
                text(pt="ficam os objetos do central", en="the central's objects stay"),
            )


def _table(central: Table, source: Table) -> Iterator[Difference]:
    yield from _columns(central, source)
    if central.primary_key != source.primary_key:
        yield Difference("primary key", central.name, ", ".join(central.primary_key), ", ".join(source.primary_key))
    for kind, ours, theirs in (
        ("unique key", _keys(central.uniques), _keys(source.uniques)),
        ("foreign key", {str(k) for k in central.foreign_keys}, {str(k) for k in source.foreign_keys}),
        ("check", set(central.checks), set(source.checks)),
    ):
        yield from (Difference(kind, central.name, item, "") for item in sorted(ours - theirs))
        yield from (Difference(kind, central.name, "", item) for item in sorted(theirs - ours))
    for kind, ours, theirs in (
        ("index", _keys(central.indexes), _keys(source.indexes)),
        ("trigger", set(central.triggers), set(source.triggers)),
    ):
        if ours != theirs:
            yield Difference(
                kind,
                central.name,
                str(len(ours)),
                str(len(theirs)),
                True,
                text(pt="ficam os do central", en="the central's stay"),
            )


def _columns(central: Table, source: Table) -> Iterator[Difference]:
    ours = {c.name: c for c in central.columns}
    theirs = {c.name: c for c in source.columns}
    for name in sorted(ours.keys() ^ theirs.keys()):
        mine, yours = ("present", "") if name in ours else ("", "present")
        yield Difference("column", f"{central.name}.{name}", mine, yours)
    common = [name for name in ours if name in theirs]
    for name in common:
        one, other, where = ours[name], theirs[name], f"{central.name}.{name}"
        if one.type != other.type:
            fits = _is_shorter(other.type, one.type)
            yield Difference(
                "type",
                where,
                one.type,
                other.type,
                fits,
                text(pt="todo valor cabe", en="every value fits") if fits else "",
            )
        if one.generated != other.generated:
            yield Difference("generated", where, str(one.generated), str(other.generated))
        if one.not_null != other.not_null:
            # Rows that break the central's NOT NULL fail to load as a whole, they never come in half.
            reason = text(pt="verificado ao carregar as linhas", en="checked when the rows are loaded")
            yield Difference("not null", where, str(one.not_null), str(other.not_null), True, reason)
        if one.default != other.default:
            yield Difference(
                "default",
                where,
                one.default or "",
                other.default or "",
                True,
                text(pt="todo valor é dado", en="every value is given"),
            )
    if common != [name for name in theirs if name in ours]:
        yield Difference(
            "column order",
            central.name,
            "",
            "",
            True,
            text(pt="colunas são casadas pelo nome", en="columns are matched by name"),
        )


_VARYING = re.compile(r"character varying\((\d+)\)")


def _is_shorter(one: str, other: str) -> bool:
    found, longest = _VARYING.fullmatch(one), _VARYING.fullmatch(other)
    return found is not None and longest is not None and int(found[1]) < int(longest[1])


def _keys(indexes: Iterable[Index]) -> set[str]:
    # Names of indexes may differ between installations; what they say may not.
    return {", ".join(i.columns) if i.plain else i.definition.split(" USING ", 1)[-1] for i in indexes}
