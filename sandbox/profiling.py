"""What a profile says of a run's tables, or of those of a backup: role, rule, rows, and what it says nothing of."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge import catalog, planner
from merge.errors import ConfigError
from merge.language import text
from merge.plan import Action, Role
from sandbox import intake
from sandbox import source as loading
from sandbox.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from merge.plan import Plan
    from merge.profile import Profile
    from sandbox.console import Reporter
    from sandbox.runs import Run

_INTEGERS = ("bigint", "integer", "smallint", "numeric")


@dataclass(frozen=True)
class ProfiledTable:
    """One table.

    :param role: None if no rule says it; then `rule` and `reason` are empty.
    :param comes: whether its rows come along in a merge.
    :param rows: rows by source; empty if they were not counted.
    """

    name: str
    role: str | None
    rule: str
    reason: str
    comes: bool
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Profiled:
    """What a profile makes of a schema.

    :param of: the run or backup.
    :param tables: every table, in the order of names.
    :param undeclared: ``table.column`` of integer columns of tables that come which look like references, but which
        nothing explains.
    :param suspicions: what `merge.references` found in a run's rows and the profile does not explain, by source.
    """

    of: str
    tables: tuple[ProfiledTable, ...]
    undeclared: tuple[str, ...]
    suspicions: Mapping[str, tuple[str, ...]]

    @property
    def without_role(self) -> tuple[ProfiledTable, ...]:
        """The tables that no rule matches."""
        return tuple(t for t in self.tables if t.role is None)


def of_run(run: Run, known: Profile, *, again: bool) -> Profiled:
    """What was planned in a run, and what came of it.

    :param again: True if `known` is not the profile that the run was made with: then roles are found anew.
    :raises ConfigError: if the run did not come to its plan.
    """
    if not run.has("plan"):
        raise ConfigError(
            text(
                pt=f"A execução {run.id} parou antes de ter um plano.",
                en=f"The run {run.id} stopped before it had a plan.",
            ),
            evidence=run.folder,
            next_step=text(
                pt="Veja por que parou com invoke status, ou examine um backup: invoke profile --backup ARQUIVO",
                en="See why with invoke status, or look at a backup: invoke profile --backup FILE",
            ),
        )
    tables = run.load("plan")["tables"]
    names = [name for name in run.load("inputs") if name != "central"]
    numbered = {name: f"source-{number}" for number, name in enumerate(names, 1)}
    rows = {n: run.load(f"{file}-rows")["rows"] for n, file in numbered.items() if run.has(f"{file}-rows")}
    suspicions = {
        n: tuple(
            f"{s['table']}.{s['column']} → {s['target']}"
            for s in run.load(f"{file}-suspicions")["suspicions"]
            if not _is_declared(known, s["table"], s["column"])
        )
        for n, file in numbered.items()
        if run.has(f"{file}-suspicions")
    }
    profiled = tuple(_table(t, known if again else None, rows) for t in tables)
    return Profiled(run.id, _sorted(profiled), tuple(_undeclared(tables, profiled, known)), suspicions)


def of_backup(path: Path, known: Profile, reporter: Reporter, jobs: int) -> Profiled:
    """What a profile makes of a backup: its schema is restored into a server for this alone, its rows are only counted.

    Nothing is left of it.

    :raises BackupError: if the backup cannot be used.
    :raises ConfigError: if the profile contradicts the backup's schema.
    """
    schema = known.application.schema_
    with tempfile.TemporaryDirectory(prefix="homolog-profile-") as folder:
        with reporter.step(text(pt="Examinar o backup", en="Inspect the backup")):
            backup = intake.inspect(path, work=Path(folder) / "work")
        server = EmbeddedServer(Path(folder) / "server", major=backup.dumped_major)
        try:
            with reporter.step(text(pt="Restaurar só o esquema", en="Restore the schema alone")):
                server.start()
                database = loading.restore_schema(server, backup, number=1, jobs=jobs)
                with server.connect(database, loading.owner_of(1)) as conn:
                    found = catalog.read(conn, schema)
            plan = planner.make_plan(found, known)
        finally:
            server.destroy()
    if backup.unit != "text":
        reporter.warn(
            text(
                pt="As linhas do backup não puderam ser contadas: são INSERTs, ou estão comprimidas de outro modo.",
                en="The backup's rows could not be counted: they are INSERTs, or compressed in another way.",
            )
        )
    counted = dict(backup.rows)
    rows = {backup.name: {t.name: counted.get(intake.table_name(schema, t.name), 0) for t in plan}}
    rows = rows if backup.unit == "text" else {}
    tables = list(_plain(plan))
    profiled = tuple(_table(t, None, rows) for t in tables)
    return Profiled(backup.name, _sorted(profiled), tuple(_undeclared(tables, profiled, known)), {})


def unclassified(profiled: Profiled) -> Profiled:
    """The same with only those tables that no rule matches."""
    return replace(profiled, tables=profiled.without_role)


def _plain(plan: Plan) -> Iterator[dict[str, Any]]:
    """The tables of a plan as ``plan.json`` has them, as far as they are needed here."""
    for table in plan:
        columns = [{"name": c.name, "type": c.type, "domain": c.domain} for c in table.columns]
        yield {
            "name": table.name,
            "role": table.role and table.role.value,
            "action": table.action.value,
            "rule": table.rule,
            "reason": table.reason,
            "key": table.key,
            "columns": columns,
        }


def _table(planned: Mapping[str, Any], known: Profile | None, rows: Mapping[str, Mapping[str, int]]) -> ProfiledTable:
    name = planned["name"]
    counts = {source: counted.get(name, 0) for source, counted in rows.items()}
    if known is None:
        comes = planned["action"] == Action.MERGE
        return ProfiledTable(name, planned["role"], planned["rule"], planned["reason"], comes, counts)
    rule = known.rule_of(name, planned["key"])
    if rule is None:
        return ProfiledTable(name, None, "", "", False, counts)
    pattern = next(p for p in rule.tables if fnmatchcase(name, p))
    comes = rule.come and rule.role not in (Role.CONFIG, Role.DERIVED)
    return ProfiledTable(name, rule.role.value, pattern, str(rule.reason), comes, counts)


def _undeclared(
    tables: Iterable[Mapping[str, Any]], profiled: Iterable[ProfiledTable], known: Profile
) -> Iterator[str]:
    for planned, table in zip(tables, profiled, strict=True):
        for column in planned["columns"] if table.comes else ():
            name = column["name"]
            if (
                column["domain"] is None
                and column["type"].startswith(_INTEGERS)
                and any(fnmatchcase(name, pattern) for pattern in known.application.reference_names)
                and not _is_declared(known, table.name, name)
            ):
                yield f"{table.name}.{name}"


def _is_declared(known: Profile, table: str, column: str) -> bool:
    return any(columns.names(table, column) for columns in known.declarations)


def _sorted(tables: Iterable[ProfiledTable]) -> tuple[ProfiledTable, ...]:
    return tuple(sorted(tables, key=lambda table: table.name))
