"""The whole rehearsal: intake, restore, and for each source load, checks, merge and proof; then the central's proof.

Every step leaves its result in the run folder and is marked as done, so that an interrupted run goes on with the step
that was under way. The merge of a source is one transaction: whatever interrupts it, the database is as it was after
the source before.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import psycopg

from merge import (
    baseline,
    catalog,
    check_run,
    checks,
    compare,
    constraints,
    coverage,
    duplicates,
    engine,
    fingerprint,
    planner,
    proof_central,
    proof_content,
    proof_source,
    references,
    selection,
)
from merge.errors import ConfigError, ProofFailed
from merge.language import counted, text
from merge.plan import ALL
from merge.proof import check_proof
from merge.proof_session import run_all
from sandbox import attachments, file_checks, restore
from sandbox import source as loading
from sandbox.carry import Carriage
from sandbox.host_checks import answer_of
from sandbox.intake import table_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from merge.catalog import Catalog
    from merge.plan import Plan
    from merge.profile import Profile
    from merge.proof import Proof
    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.preflight import Preflight
    from sandbox.result import PreflightResult
    from sandbox.runs import Run
    from sandbox.server import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

DATABASE = "candidate"
CENTRAL = "homolog_central"
MERGE = "homolog_merge"
PROOF = "homolog_proof"
CENTRAL_FINGERPRINT = "central-fingerprint"
"""What a final run keeps of the restored central, see `merge.fingerprint`."""


@dataclass(frozen=True)
class Source:
    """One source of a run, in merge order from 1."""

    number: int
    name: str
    backup: Backup

    @property
    def schema(self) -> str:
        """The schema of the run's database that holds its rows."""
        return f"src_{self.number}"


@dataclass
class Rehearsal:
    """A rehearsal on a server that runs; `run` remembers what is done, `reporter` tells the user.

    :param scope: and `keep`: see `merge.planner.make_plan`.
    """

    run: Run
    reporter: Reporter
    server: Server
    profile: Profile
    jobs: int
    preflight: Preflight
    scope: str = ALL
    keep: frozenset[str] = frozenset()

    @cached_property
    def carriage(self) -> Carriage:
        """What carries the attachments of this run."""
        return Carriage(self)

    def connect(self) -> Connection:
        """Connect to the run's database as the role that keeps the baseline and proves.

        It may read all there, and is not superuser: the central's own functions, casts and operators are called
        wherever its tables are read, be it by a check, an expression of an index, or a type's conversion to text.
        """
        return self.server.connect(DATABASE, PROOF)

    def connect_merge(self) -> Connection:
        """Connect to the run's database as the role that merges: not superuser, and no trigger fires for it."""
        return self.server.connect(DATABASE, MERGE)

    def _connect_owner(self) -> Connection:
        """Connect to the run's database as the role that owns what was restored."""
        return self.server.connect(DATABASE, CENTRAL)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step of the run: shown, timed, and marked as done at its end."""
        with self.reporter.step(title), self.run.step(name):
            yield

    def prepare_central(self, backup: Backup) -> tuple[Plan, Catalog]:
        """Restore the central, plan, and keep its baseline; what was done before is not done again."""
        if not self.run.is_done("central.restore"):
            with self.step("central.restore", text(pt="Restaurar o central", en="Restore the central")):
                self.server.drop_database(DATABASE)  # half restored by an interrupted run
                restore.restore_central(
                    self.server, backup, DATABASE, owner=CENTRAL, jobs=self.jobs, on_progress=self.reporter.progress
                )
                self.server.create_role(MERGE, member_of=CENTRAL, settings={"session_replication_role": "replica"})
                self.server.create_role(PROOF, member_of=MERGE)
        # Before anything is written there: production must hold just this when the result is promoted.
        kept = self.run.is_done("central.fingerprint") or self.run.is_done("central.baseline")
        if self.preflight.decisions.final and not kept:
            self._keep_fingerprint()
        plan, found = self.plan()
        if self.run.is_done("central.baseline") and not self.run.same("plan", plan):
            raise ConfigError(
                text(
                    pt="O perfil, o escopo ou as regras locais mudaram desde que a execução começou.",
                    en="The profile, the scope or the local rules changed since the run began.",
                ),
                next_step=text(pt="Comece outra execução.", en="Start another run."),
            )
        if not self.run.is_done("central.baseline"):
            with self.step("central.baseline", text(pt="Guardar a referência", en="Keep the baseline")):
                with self.connect_merge() as conn:
                    engine.create_schema(conn)
                baseline.make_baseline(self.connect, plan, self.jobs, self.reporter.progress)
                with self.connect() as conn:
                    ranges = baseline.ranges(conn)
                    baseline.allow_reading(conn, MERGE)
                with self.connect_merge() as conn:
                    engine.prepare(conn, plan, found, ranges)
                self.run.save("plan", plan)
        if not self.run.is_done("central.preflight"):
            with self.step("central.preflight", text(pt="Verificar o central", en="Check the central")):
                self._note_version("central", plan.schema)
                self.preflight.check(self._ask(plan, backup, plan.schema))
        self.carriage.carry(attachments.CENTRAL, checks.CENTRAL)
        return plan, found

    def _keep_fingerprint(self) -> None:
        """Keep what the central holds, as ``central-fingerprint.json``."""
        title = text(pt="Tirar a impressão digital do central", en="Fingerprint the central")
        with self.step("central.fingerprint", title):
            self.run.save(CENTRAL_FINGERPRINT, fingerprint.take(self.connect, self.jobs, self.reporter.progress))

    def plan(self) -> tuple[Plan, Catalog]:
        """The central's catalog, and the plan of merges into it."""
        with self.connect() as conn:
            found = catalog.read(conn, self.profile.application.schema_)
        return planner.make_plan(found, self.profile, self.scope, self.keep), found

    def _note_version(self, name: str, schema: str) -> None:
        """Keep the application's version as the rows in `schema` say it."""
        query = self.profile.application.version
        version = None if query is None else next(iter(self._texts(schema, query)), None)
        self.run.note(versions={**self.run.load("run").get("versions", {}), name: version})

    def check(self, plan: Plan, found: Catalog, source: Source) -> Mapping[str, int]:
        """Load and check one source; return the rows of every table.

        :raises BlockedError: something forbids to merge it.
        """
        rows = self._load(found, source)
        if not self._is_merged(source):
            self._check_source(plan, found, source, rows)
        return rows

    def merge(self, plan: Plan, found: Catalog, source: Source) -> None:
        """Load, check, merge and prove one source; each result is kept in the run folder.

        :raises ProofFailed: if the proof finds differences.
        """
        self._merge(plan, found, source, self.check(plan, found, source))
        self.carriage.carry(source.number, source.name)
        if not self.run.is_done(f"source.{source.number}.proof"):
            self._list_duplicates(plan, source)
            self.prove_source(plan, source)

    def _load(self, found: Catalog, source: Source) -> Mapping[str, int]:
        """Bring the source's rows into the run's database; return the rows of every table."""
        name = f"source.{source.number}.restore"
        if not self.run.is_done(name):
            with self.step(name, text(pt=f"Restaurar {source.name}", en=f"Restore {source.name}")):
                database = loading.restore_schema(self.server, source.backup, number=source.number, jobs=self.jobs)
                with self.server.connect(database, loading.owner_of(source.number)) as conn:
                    theirs = catalog.read(conn, found.schema)
                empty = self._empty(found, theirs, source)
                differences = compare.compare(found, theirs, empty=empty)
                self.run.save(f"source-{source.number}-schema", {"differences": differences})
                compare.check(differences)
                loaded = loading.load_source(
                    self.server,
                    source.backup,
                    number=source.number,
                    target=DATABASE,
                    schema=found.schema,
                    jobs=self.jobs,
                    on_progress=self.reporter.progress,
                    empty=empty,
                )
                self.server.drop_database(database)
                self._check_constraints(found, source, loaded.rows)
                self.run.save(f"source-{source.number}-rows", loaded)
        rows: Mapping[str, int] = self.run.load(f"source-{source.number}-rows")["rows"]
        return rows

    def _check_constraints(self, found: Catalog, source: Source, rows: Mapping[str, int]) -> None:
        """What restoring the source's indexes and constraints would have said, were they restored."""
        violations: list[constraints.Violation] = []

        def look(table: str, conn: Connection) -> None:
            # A CHECK names types and functions of the application as its catalog was read: without their schema.
            conn.execute("SELECT set_config('search_path', quote_ident(%s), false)", [found.schema])
            violations.extend(constraints.violations(conn, found, found.tables[table], source.schema, rows))

        largest = sorted((table for table, count in rows.items() if count), key=lambda table: -rows[table])
        run_all(self.connect, [partial(look, table) for table in largest], self.jobs, self.reporter.progress)
        constraints.check(violations)

    def _empty(self, found: Catalog, theirs: Catalog, source: Source) -> frozenset[str]:
        """The tables that are not like the central's, which does not matter because the backup has no row of them."""
        unlike = compare.to_count(compare.compare(found, theirs))
        backup = source.backup
        # Rows of INSERTs, or compressed as Python cannot read it, were not counted: then any may have some.
        filled = {name for name, rows in backup.rows if rows} if backup.unit == "text" else set(backup.tables)
        return frozenset(table for table in unlike if table_name(found.schema, table) not in filled)

    def _check_source(self, plan: Plan, found: Catalog, source: Source, rows: Mapping[str, int]) -> None:
        name = f"source.{source.number}.preflight"
        with self.step(name, text(pt=f"Verificar {source.name}", en=f"Check {source.name}")):
            self._note_version(source.name, source.schema)
            answers = self._ask(plan, source.backup, check_run.BASELINE, source)
            filled = [table for table, count in rows.items() if count]
            with self.connect() as conn:
                coverage.check_coverage(conn, plan, found, self.profile, source.schema, filled)
                selection.check_declared(conn, plan, source.schema)
                opaque = coverage.count_opaque(conn, plan, self.profile, source.schema, filled)
            self.run.save(f"source-{source.number}-opaque", opaque)
            self._look_for_references(plan, found, source, rows)
            self.preflight.check(answers)

    def _look_for_references(self, plan: Plan, found: Catalog, source: Source, rows: Mapping[str, int]) -> None:
        """Warn of columns that seem to refer to keys that move; only people can say whether they do."""
        suspicions = references.find_undeclared(self.connect, plan, found, self.profile, source.schema, rows, self.jobs)
        self.run.save(f"source-{source.number}-suspicions", {"suspicions": suspicions})
        moving = sum(suspicion.moves for suspicion in suspicions)
        if moving:
            self.reporter.warn(
                text(
                    pt=f"{source.name}: {counted(moving, 'coluna parece', 'colunas parecem')} referência não "
                    "declarada; veja invoke profile.",
                    en=f"{source.name}: {counted(moving, 'column looks', 'columns look')} like an undeclared "
                    "reference; see invoke profile.",
                )
            )

    def _ask(self, plan: Plan, backup: Backup, central: str, source: Source | None = None) -> Sequence[PreflightResult]:
        """Ask the checks of the central, or of one source, and what files say of it."""
        name, schema = (source.name, source.schema) if source is not None else (checks.CENTRAL, plan.schema)
        number = source.number if source is not None else attachments.CENTRAL
        answers = check_run.run_checks(
            self.connect_merge,
            [check for check in self.preflight.checks.values() if check.asks_rows],
            central=central,
            source=source.schema if source is not None else None,
            name=name,
            final=self.preflight.decisions.final,
            jobs=self.jobs,
        )
        written = [str(a.details["last_write"]) for a in answers if a.details.get("last_write")]
        last = datetime.fromisoformat(max(written)) if written else None
        files = [file_checks.age(backup, name, last), *self.carriage.survey(plan, number, schema, name)]
        part = f"source-{number}" if number else "central"
        return self.preflight.report(part, [*answers, *map(answer_of, files)], self.reporter)

    def check_merged(self, plan: Plan, sources: Sequence[int]) -> None:
        """Ask the checks of the merged base.

        :raises ProofFailed: something is wrong there that was wrong on neither side before.
        """
        with self.step("merged.checks", text(pt="Verificar a base unificada", en="Check the merged base")):
            answers = check_run.new_defects(
                self.connect_merge,
                list(self.preflight.checks.values()),
                plan,
                sources,
                jobs=self.jobs,
                on_progress=self.reporter.progress,
            )
            reported = self.preflight.report("merged", answers, self.reporter)
            new = [answer for answer in reported if answer.state == checks.State.BLOCKED]
            if not new:
                return
            raise ProofFailed(
                text(
                    pt=f"A unificação criou {counted(len(new), 'defeito', 'defeitos')} que nenhum dos lados tinha.",
                    en=f"The merge made {counted(len(new), 'defect', 'defects')} that neither side had.",
                ),
                evidence=self.run.folder,
                details=[f"{answer} — {answer.action}" for answer in new],
                next_step=text(
                    pt="Corrija os dados na origem ou no central, faça novos backups e comece de novo.",
                    en="Correct the data at the source or in the central, take new backups and begin again.",
                ),
            )

    def _texts(self, schema: str, query: str) -> set[str]:
        """The texts that a query of the profile gives on the tables of `schema`; none if these are not there."""
        with self.connect_merge() as conn:
            conn.execute("SELECT set_config('search_path', quote_ident(%s), false)", [schema])
            try:
                return {str(value) for (value,) in conn.execute(query.encode()).fetchall()}
            except psycopg.errors.UndefinedTable:
                return set()

    def _is_merged(self, source: Source) -> bool:
        with self.connect() as conn:
            return engine.is_merged(conn, source.number)

    def _merge(self, plan: Plan, found: Catalog, source: Source, rows: Mapping[str, int]) -> None:
        name = f"source.{source.number}.merge"
        if self.run.is_done(name):
            return
        with (
            self.step(name, text(pt=f"Unificar {source.name}", en=f"Merge {source.name}")),
            self.connect_merge() as conn,
        ):
            if engine.is_merged(conn, source.number):  # killed between the commit and here
                engine.set_sequences(conn, plan, found)
            else:
                merged = engine.merge_source(
                    conn,
                    plan,
                    found,
                    source.number,
                    source.name,
                    rows,
                    self.reporter.progress,
                    before_load=partial(self.carriage.decide, plan, source),
                )
                self.run.save(f"source-{source.number}-phases", merged.seconds)
            self.run.save(f"source-{source.number}-differing", engine.read_differences(conn, source.number))
            self.run.save(f"source-{source.number}-ledger", engine.read_ledger(conn, source.number))

    def prove_source(self, plan: Plan, source: Source) -> None:
        """Prove one merged source; the step is done only if the proof holds.

        :raises ProofFailed: if it does not.
        """
        with self.step(f"source.{source.number}.proof", text(pt=f"Provar {source.name}", en=f"Prove {source.name}")):
            proof = proof_source.prove_source(self.connect, plan, source.number, self.jobs, self.reporter.progress)
            self._keep_proof(f"source-{source.number}-proof", proof)

    def prove_central(self, plan: Plan, sources: Sequence[int]) -> None:
        """Prove that the central is what it was, but for what came from the sources.

        :raises ProofFailed: if it is not.
        """
        with self.step("central.proof", text(pt="Provar o central", en="Prove the central")):
            proof = proof_central.prove_central(
                self.connect,
                plan,
                sources,
                self.jobs,
                self.reporter.progress,
                connect_owner=self._connect_owner,
            )
            self._keep_proof("central-proof", proof)

    def prove_content(self, plan: Plan, sources: Sequence[int]) -> None:
        """Prove the merged database by what its rows hold, without what the merge noted of itself.

        :raises ProofFailed: if it is not what it must be.
        """
        self._prove_content(plan, sources, connect_owner=self._connect_owner)

    def _prove_content(self, plan: Plan, sources: Sequence[int], **options: Any) -> None:
        with self.step("content.proof", text(pt="Provar pelo conteúdo", en="Prove by content")):
            found = proof_content.prove_content(
                self.connect, plan, sources, self.jobs, self.reporter.progress, **options
            )
            self._keep_proof("content-proof", found)

    def _keep_proof(self, name: str, proof: Proof) -> None:
        self.run.save(name, proof.to_dict())
        check_proof(proof, self.run.folder)

    def _list_duplicates(self, plan: Plan, source: Source) -> None:
        if self.profile.person is not None:
            with self.connect() as conn:
                groups = duplicates.find_duplicates(conn, plan, self.profile.person, source.number)
            self.run.save(f"source-{source.number}-duplicates", {"groups": groups})
