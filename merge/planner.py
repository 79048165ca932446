"""Makes the plan of a merge from a catalog and a profile."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from merge.domains import Domains, find_column
from merge.errors import ConfigError
from merge.inventory import is_exact
from merge.language import counted, text
from merge.plan import ALL, Action, ColumnKind, ColumnPlan, Plan, Role, TablePlan
from merge.scopes import Narrowing, find_scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from merge.catalog import Catalog, Column, Table
    from merge.profile import Profile, Rule

_EXCLUDED = {Role.CONFIG, Role.DERIVED}


def make_plan(catalog: Catalog, profile: Profile, scope: str = ALL, keep: Collection[str] = ()) -> Plan:
    """Plan merges into a central with this catalog.

    :param scope: what comes of a source: `ALL`, or a scope that the profile declares.
    :param keep: policies of the profile that are not wanted: the columns that they set keep the source's values.
    :raises ConfigError: listing everything in the profile that contradicts the catalog or itself.
    """
    return _Planner(catalog, profile, scope, keep).plan()


@dataclass
class _Planner:
    catalog: Catalog
    profile: Profile
    scope: str
    keep: Collection[str]
    problems: list[str] = field(default_factory=list)

    def plan(self) -> Plan:
        rules = {name: self._rule(table) for name, table in self.catalog.tables.items()}
        domains = Domains(self.catalog, self.profile, rules)
        self.problems += domains.problems
        tables = [self._table(table, rules[name], domains) for name, table in self.catalog.tables.items()]
        missing = dict.fromkeys(f"{file}: {problem}" if file else problem for file, problem in self._missing())
        self.problems += missing
        self._check_attachments()
        scope = find_scope(self.profile, self.scope, self.keep)
        narrowing = Narrowing(self.catalog, self.profile, scope, self.keep, rules)
        tables = narrowing.tables(tables, domains.domains)
        additions = narrowing.additions(tables)
        self.problems += narrowing.problems
        if self.problems:
            raise ConfigError(
                text(
                    pt=f"O perfil contradiz o esquema encontrado em {counted(len(self.problems), 'ponto', 'pontos')}.",
                    en="The profile contradicts the schema that was found in "
                    f"{counted(len(self.problems), 'point', 'points')}.",
                ),
                details=self.problems,
                next_step=text(pt="Corrija o perfil.", en="Correct the profile."),
            )
        ordered = tuple(self._ordered(tables, domains))
        return Plan(self.catalog.schema, ordered, domains.domains, self.scope, additions)

    def _rule(self, table: Table) -> Rule | None:
        return self.profile.rule_of(table.name, table.primary_key)

    def _table(self, table: Table, rule: Rule | None, domains: Domains) -> TablePlan:
        columns = tuple(self._column(table.name, c, domains) for c in table.columns)
        if rule is None:  # whether it may be so is for the coverage gate to say
            return TablePlan(table.name, None, Action.EXCLUDE, "", "", _key(table), columns)
        for column in (c for keys in rule.match for c in keys):
            owner, _, name = column.rpartition(".")
            if find_column(self.catalog, (owner or table.name, name)) is None:
                self.problems.append(f"{table.name}: match: {column}")
        for parent in (rule.within, rule.central_owns):
            if parent and table.column(parent) is None:
                self.problems.append(f"{table.name}: {parent}")
        return TablePlan(
            table.name,
            rule.role,
            Action.EXCLUDE if rule.role in _EXCLUDED or not rule.come else Action.MERGE,
            next(p for p in rule.tables if fnmatchcase(table.name, p)),
            str(rule.reason),
            _key(table),
            columns,
            rule.match,
            rule.within,
            rule.central_owns,
        )

    def _column(self, table: str, column: Column, domains: Domains) -> ColumnPlan:
        domain = domains.of.get((table, column.name))
        if column.generated:
            return ColumnPlan(column.name, ColumnKind.GENERATED, type=column.type)
        if column.base_type == "oid":
            return ColumnPlan(column.name, ColumnKind.LARGE_OBJECT, type=column.type)
        if domain is None:
            return ColumnPlan(column.name, type=column.type)
        if self.profile.is_value(table, column.name) or self.profile.is_opaque(table, column.name):
            self.problems.append(f"{table}.{column.name}: value ≠ {domain}")
        return ColumnPlan(column.name, ColumnKind.KEY, domain, column.type)

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Names that the profile gives without a wildcard and this database does not have: override file, and name.

        A column of the inventory that is not here is another version's; where values refer to it, the coverage gate
        stops. What an override file names is of this database, or a mistake.
        """
        tables, known = self.catalog.tables, self.profile.known
        for columns in self.profile.declarations:
            for table, column in (pattern.split(".") for pattern in columns.columns if is_exact(pattern)):
                expected = (table in tables or columns.file) and column not in known.get(table, ())
                if expected and find_column(self.catalog, (table, column)) is None:
                    yield columns.file, f"{columns.meaning}: {table}.{column}"
        for reference in self.profile.reference:
            table, column = reference.to.split(".")
            if table in tables and tables[table].column(column) is None:
                yield reference.file, f"→ {reference.to}"
        for rule in (r for r in self.profile.rule if r.file):
            for name in rule.tables:
                if is_exact(name) and name not in tables and name not in known:
                    yield rule.file, name
        person = self.profile.person
        if person is not None and person.table in tables:
            yield from (("", f"person: {k}") for k in person.keys if tables[person.table].column(k) is None)

    def _check_attachments(self) -> None:
        """Note attachments by columns that do not exist though their table does."""
        for attachment in self.profile.attachment:
            table = attachment.table
            named = {column for file in attachment.files for column in attachment.parts(file)[1::2]}
            if table in self.catalog.tables:
                columns = {c.name for c in self.catalog.tables[table].columns if not c.generated}
                self.problems += [f"attachment: {table}.{column}" for column in sorted(named - columns)]
                if not _key(self.catalog.tables[table]):  # then nobody could say whose file it is
                    self.problems.append(f"attachment: {table}: ∄ key")

    @staticmethod
    def _ordered(tables: list[TablePlan], domains: Domains) -> Iterator[TablePlan]:
        """A table comes after those whose matches its own matches need."""
        by_name = {t.name: t for t in tables}
        graph: dict[str, list[str]] = {}
        for table in tables:
            needed = {c for keys in table.match for c in keys if "." not in c} | set(table.key)
            if table.within:
                needed |= {c.name for c in table.columns}
            if table.central_owns:
                needed.add(table.central_owns)
            roots = {domains.domains[c.domain].members[0][0] for c in table.columns if c.domain and c.name in needed}
            graph[table.name] = sorted(r for r in roots - {table.name} if by_name[r].match or by_name[r].within)
        try:
            for name in TopologicalSorter(graph).static_order():
                yield by_name[name]
        except CycleError as ex:
            raise ConfigError(
                text(pt="As chaves de correspondência formam um ciclo.", en="The match keys form a cycle."),
                details=[" → ".join(ex.args[1])],
            ) from ex


def _key(table: Table) -> tuple[str, ...]:
    if table.primary_key:
        return table.primary_key
    required = {c.name for c in table.columns if c.not_null}
    return next((i.columns for i in table.uniques if i.plain and set(i.columns) <= required), ())
