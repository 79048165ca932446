"""Key domains: which columns name the same things, by foreign keys, declared references and mirrors."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from merge.plan import Domain, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from merge.catalog import Catalog, Column, Table
    from merge.profile import Profile, Rule

Member = tuple[str, str]
"""A (table, column) pair."""


class Domains:
    """The key domains of a catalog under a profile.

    :ivar domains: by name (``table.column`` of the defining column).
    :ivar of: the domain's name of every column that is in one.
    :ivar problems: columns that refer to two different things, or hold text and refer to a key that moves.
    """

    def __init__(self, catalog: Catalog, profile: Profile, rules: Mapping[str, Rule | None]) -> None:
        self.problems: list[str] = []
        self._targets: dict[Member, set[Member]] = defaultdict(set)
        self._catalog = catalog
        keys = {(t.name, t.primary_key[0]) for t in catalog.tables.values() if len(t.primary_key) == 1}
        members = {key for key in keys if _integer(catalog, key)}
        references = list(_references(catalog, profile))
        for child, target in (*_foreign_keys(catalog), *references):
            if child != target and _integer(catalog, child) and _integer(catalog, target):
                self._targets[child].add(target)
                members |= {child, target}
        # A mirror's column means what the mirrored one means; a plain value stays one.
        for child, target in _mirrors(catalog, rules):
            if target in members and _integer(catalog, child):
                self._targets[child].add(target)
                members.add(child)
        groups: dict[Member, list[Member]] = defaultdict(list)
        for member in sorted(members):
            groups[self._root(member)].append(member)
        self.domains: dict[str, Domain] = {}
        self.of: dict[Member, str] = {}
        for root, found in groups.items():
            name = ".".join(root)
            rest = tuple(m for m in found if m != root)
            self.domains[name] = Domain(name, _fixed(rules[root[0]]), (root, *rest))
            self.of.update(dict.fromkeys(found, name))
        for child, target in references:
            domain = self.domains.get(self.of.get(target, ""))
            if domain is not None and not domain.fixed and not _integer(catalog, child):
                self.problems.append(f"{'.'.join(child)} → {'.'.join(target)}: {_type(catalog, child)}")

    def _root(self, member: Member) -> Member:
        """Follow references to their end; columns that refer to each other are defined by the first by name."""
        ends: set[Member] = set()
        seen: set[Member] = set()
        todo = [member]
        while todo:
            current = todo.pop()
            if current not in seen:
                seen.add(current)
                targets = self._targets.get(current, ())
                todo += targets
                if not targets:
                    ends.add(current)
        if len(ends) > 1:
            self.problems.append(f"{'.'.join(member)} → {' / '.join(sorted('.'.join(e) for e in ends))}")
        return min(ends or seen)


def find_column(catalog: Catalog, member: Member) -> Column | None:
    """The column, or None if it or its table is not there."""
    table = catalog.tables.get(member[0])
    return None if table is None else table.column(member[1])


def mirrored(catalog: Catalog, name: str, rule: Rule | None) -> Table | None:
    """The table whose changes the table `name` records, if the rule says that it records changes."""
    if rule is None or rule.mirror is None:
        return None
    stem = name.removeprefix(rule.mirror)
    return next((catalog.tables[p + stem] for p in rule.of if p + stem in catalog.tables), None)


def _foreign_keys(catalog: Catalog) -> Iterator[tuple[Member, Member]]:
    for table in catalog.tables.values():
        for key in table.foreign_keys:
            for column, ref in zip(key.columns, key.ref_columns, strict=True):
                yield (table.name, column), (key.ref_table, ref)


def _references(catalog: Catalog, profile: Profile) -> Iterator[tuple[Member, Member]]:
    tables = {name: [c.name for c in table.columns] for name, table in catalog.tables.items()}
    for reference in profile.reference:
        table, column = reference.to.split(".")
        for member in reference.among(tables):
            yield member, (table, column)


def _mirrors(catalog: Catalog, rules: Mapping[str, Rule | None]) -> Iterator[tuple[Member, Member]]:
    for name, rule in rules.items():
        original = mirrored(catalog, name, rule)
        if original is not None:
            for column in catalog.tables[name].columns:
                if original.column(column.name) is not None:
                    yield (name, column.name), (original.name, column.name)


def _integer(catalog: Catalog, member: Member) -> bool:
    column = find_column(catalog, member)
    return column is not None and column.integer


def _type(catalog: Catalog, member: Member) -> str:
    column = find_column(catalog, member)
    return "" if column is None else column.type


def _fixed(rule: Rule | None) -> bool:
    if rule is None:
        return False
    return (rule.key or ("fixed" if rule.role is Role.CATALOG else "local")) == "fixed"
