"""What a scope makes of the plan: tables and rows that do not come, what refers to them, values and rows that are set.

A row that refers to a row left out does not come either, by whatever foreign key or declared reference, and so on. This
holds for the history (mirrors) too: what it tells of a row is as little wanted in the central as the row itself.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from merge.domains import find_column, mirrored
from merge.errors import ConfigError
from merge.language import text
from merge.plan import ALL, Action, Addition, ColumnKind, Constant, Follow, LeaveOut

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from merge.catalog import Catalog
    from merge.plan import Domain, TablePlan
    from merge.profile import Profile, Rule, Scope


def find_scope(profile: Profile, name: str, keep: Collection[str] = ()) -> Scope | None:
    """The declared scope of that name; None for `ALL`, which needs no declaration.

    :param keep: policies that the user does not want to be carried out.
    :raises ConfigError: if the profile declares no such scope or policy.
    """
    scopes = {scope.name: scope for scope in profile.scope}
    policies = {c.policy for rule in profile.rule for c in rule.constants if c.policy}
    unknown = [name] if name != ALL and name not in scopes else []
    unknown += sorted(set(keep) - policies)
    if unknown:
        raise ConfigError(
            text(
                pt=f"O perfil {profile.application.name} não conhece: {', '.join(unknown)}.",
                en=f"The profile {profile.application.name} does not know: {', '.join(unknown)}.",
            ),
            details=[*(f"--scope {known}" for known in (ALL, *scopes)), *(f"keep {p}" for p in sorted(policies))],
        )
    return scopes.get(name)


class Narrowing:
    """Applies a scope to the plans of tables; `problems` are what contradicts the catalog."""

    def __init__(
        self,
        catalog: Catalog,
        profile: Profile,
        scope: Scope | None,
        keep: Collection[str],
        rules: Mapping[str, Rule | None],
    ) -> None:
        self.problems: list[str] = []
        self._catalog = catalog
        self._profile = profile
        self._scope = scope
        self._keep = keep
        self._rules = rules

    def tables(self, tables: Sequence[TablePlan], domains: Mapping[str, Domain]) -> list[TablePlan]:
        """The plans with what the scope says of them."""
        planned = [self._constants(self._leave_out(table), domains) for table in tables]
        followed = self._follows(planned)
        return [replace(t, follows=tuple(followed[t.name])) if t.name in followed else t for t in planned]

    def additions(self, tables: Sequence[TablePlan]) -> tuple[Addition, ...]:
        """The rows that the scope adds to tables that are there."""
        planned = {t.name: t for t in tables}
        found = []
        for number, add in enumerate(self._scope.add if self._scope else (), 1):
            table = planned.get(add.table)
            if table is None:
                continue
            name = f"{self._scope.name if self._scope else ''}/+{number}"
            of = next((c for c in table.columns if c.name == add.of), None)
            if of is None or of.domain is None or add.of not in table.key:
                # Then each such row is new, because its key has a part that moves.
                self.problems.append(f"{name}: {add.table}.{add.of} is no reference in the key")
            if table.action is Action.MERGE:
                self.problems.append(f"{name}: {add.table} comes itself")
            found.append(Addition(name, add.table, add.of, add.query, str(add.reason)))
        return tuple(found)

    def _leave_out(self, table: TablePlan) -> TablePlan:
        """Conditions on its rows; a table of which no row comes is excluded as a whole."""
        if self._scope is None or table.action is Action.EXCLUDE:
            return table
        conditions = []
        for number, declared in enumerate(self._scope.leave_out, 1):
            if any(fnmatchcase(table.name, pattern) for pattern in declared.tables):
                name, reason = f"{self._scope.name}/{number}", str(declared.reason)
                if declared.where is None:
                    return replace(table, action=Action.EXCLUDE, rule=name, reason=reason)
                conditions.append(LeaveOut(name, declared.where, reason))
        return replace(table, leave_out=tuple(conditions))

    def _constants(self, table: TablePlan, domains: Mapping[str, Domain]) -> TablePlan:
        rule = self._rules[table.name]
        scope = self._scope.name if self._scope else ALL
        wanted = [
            c for c in (rule.constants if rule else ()) if c.scope in (None, scope) and c.policy not in self._keep
        ]
        if not wanted or table.action is Action.EXCLUDE:
            return table
        key = next((c.domain for c in table.columns if table.key == (c.name,)), None)
        if key is None or domains[key].fixed or domains[key].members[0] != (table.name, table.key[0]):
            # Otherwise whether a row is inserted is not told by its key alone.
            self.problems.append(f"{table.name}: set: the table has no key of its own")
        used = {column for keys in table.match for column in keys}
        kinds = {c.name: c.kind for c in table.columns}
        for number, constant in enumerate(wanted):
            name = constant.column
            if (
                kinds.get(name) is not ColumnKind.VERBATIM
                or name in used
                or name in [c.column for c in wanted[:number]]
            ):
                self.problems.append(f"{table.name}: set: {name}")
        return replace(table, constants=tuple(Constant(c.column, c.value, str(c.reason)) for c in wanted))

    # References

    def _follows(self, tables: Sequence[TablePlan]) -> dict[str, list[Follow]]:
        """For each table that comes, its references to tables of which rows are left out, directly or in turn."""
        followed: dict[str, list[Follow]] = defaultdict(list)
        narrowed = {t.name for t in tables if t.leave_out}
        if not narrowed:
            return followed
        parents: dict[str, list[tuple[str, Follow]]] = defaultdict(list)
        coming = {t.name for t in tables if t.action is Action.MERGE}
        for child, link in self._links():
            if child in coming:
                parents[link.table].append((child, link))
        todo = sorted(narrowed)
        while todo:
            for child, link in parents[todo.pop()]:
                if link not in followed[child]:
                    followed[child].append(link)
                if child not in narrowed:
                    narrowed.add(child)
                    todo.append(child)
        return followed

    def _links(self) -> Iterator[tuple[str, Follow]]:
        """All references by (referring table, reference), those of mirrors included."""
        links: dict[str, list[Follow]] = defaultdict(list)
        for table in self._catalog.tables.values():
            links[table.name] += [Follow(k.columns, k.ref_table, k.ref_columns) for k in table.foreign_keys]
        columns = {name: [c.name for c in table.columns] for name, table in self._catalog.tables.items()}
        for reference in self._profile.reference:
            table_name, column = reference.to.split(".")
            for child, name in reference.among(columns):
                if (child, name) != (table_name, column):
                    links[child].append(Follow((name,), table_name, (column,)))
        for name, rule in self._rules.items():
            original = mirrored(self._catalog, name, rule)
            if original is not None:
                # What it is the history of, and what that refers to.
                key = Follow(original.primary_key, original.name, original.primary_key)
                links[name] += [key] if key.columns else []
                links[name] += [link for link in links[original.name] if link not in links[name]]
        for child, found in links.items():
            for link in found:
                if all(map(self._comparable, [(child, c) for c in link.columns], self._targets(link))):
                    yield child, link

    @staticmethod
    def _targets(link: Follow) -> list[tuple[str, str]]:
        return [(link.table, column) for column in link.ref_columns]

    def _comparable(self, member: tuple[str, str], target: tuple[str, str]) -> bool:
        """True if both columns are there and of types that can be equal: a mirror may lack some, or be older."""
        one, other = find_column(self._catalog, member), find_column(self._catalog, target)
        if one is None or other is None:
            return False
        return (one.integer and other.integer) or one.base_type.split("(")[0] == other.base_type.split("(")[0]
