"""The rehearsal with the vendor's own unification: a person does it in two PECs, this project watches and proves it.

All around it is as in `sandbox.rehearsal`: the same restore, the same checks before, the same baseline. The merge is
replaced by two PECs on neutral bases, a guide click by click, and a watch that stops at the first error and repeats
nothing; the proof is that of method `content`, which needs nothing from whoever merged.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from merge import check_run, checks
from merge.errors import ConfigError, HomologationError
from merge.language import counted, text
from merge.plan import Action, Role
from merge.proof import Kind
from sandbox import rehearsal, restore
from sandbox.pec import guide, watching
from sandbox.pec.alternate import CENTRAL, HOSTS, SOURCE, Alternate, Base
from sandbox.pec.guide import Marks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from merge.catalog import Catalog
    from merge.plan import Plan
    from sandbox.pec.stack_server import StackServer
    from sandbox.pec.watching import Look
    from sandbox.rehearsal import Source
    from sandbox.runs import Run

FAILED = "pec_failed"
"""What the run keeps of a unification that went wrong: its number and why."""

_SECONDS_BETWEEN_LOOKS = 10.0
_QUIET_SECONDS = 30.0
"""After the end, nothing may change for so long before the PECs are stopped."""


def central_base() -> Base:
    """The base of the central: the one that becomes the candidate."""
    return Base(CENTRAL, "central", rehearsal.DATABASE, rehearsal.CENTRAL, f"https://{HOSTS[CENTRAL]}")


def source_base(number: int) -> Base:
    """The base of a source, restored whole."""
    name = f"source_{number}"
    return Base(SOURCE, f"source-{number}", name, f"homolog_{name}", f"https://{HOSTS[SOURCE]}")


def checkpoint(base: Base, source: int) -> str:
    """The database that holds a base as it was before the unification of one source."""
    return f"{base.database}_before_{source}"


def put_back(server: StackServer, number: int) -> None:
    """Put both bases of a unification back to what they were before it began; no PEC may run."""
    for base in (central_base(), source_base(number)):
        if server.has_database(checkpoint(base, number)):
            server.drop_database(base.database)
            server.copy_database(checkpoint(base, number), base.database)


def refuse_to_repeat(run: Run) -> None:
    """Forbid to go on with a run whose unification went wrong: the vendor says so.

    :raises ConfigError: it did.
    """
    if failed := run.load("run").get(FAILED):
        raise ConfigError(
            text(
                pt=f"A unificação da origem {failed['source']} deu erro nesta execução: não se repete.",
                en=f"The unification of source {failed['source']} went wrong in this run: it is not repeated.",
            ),
            evidence=run.folder,
            next_step=text(
                pt="Espere a resposta do suporte e comece outra execução.",
                en="Wait for the answer of support, and begin another run.",
            ),
        )


@dataclass
class VendorRehearsal(rehearsal.Rehearsal):
    """A rehearsal in which the vendor's unification merges; `server` is the one of the PECs' room.

    :param jar: installer of PEC.
    :param patience: minutes that a PEC may take to answer.
    """

    jar: Path | None = None
    patience: float = 25.0

    @cached_property
    def alternate(self) -> Alternate:
        """The PECs of this run."""
        return Alternate(self.run, self.reporter, cast("StackServer", self.server), self.profile)

    def merge(self, plan: Plan, found: Catalog, source: Source) -> None:
        """Load and check one source, and have it unified by the vendor's program.

        :raises MergeError: it went wrong; nothing is repeated.
        """
        if self._is_merged(source):
            self._drop_copies(source)
            return
        self.check(plan, found, source)
        with self.run.step(f"source.{source.number}.merge"):
            self._unify(source)
        # Not before the step is marked as done: without them an interrupted one could not be taken back.
        self._drop_copies(source)
        self._list_duplicates(plan, source)  # PEC has a list of its own; whom only ours holds, nobody would look at

    def prove_source(self, plan: Plan, source: Source) -> None:
        """Nothing: the proof by content is of all sources at once, with the central's."""

    def prove_central(self, plan: Plan, sources: Sequence[int]) -> None:
        """Take back what kept the central silent, and prove the merged base by its content.

        :raises ProofFailed: if it is not what it must be.
        """
        title = text(pt="Desfazer a neutralização", en="Undo the neutralisation")
        with self.reporter.step(title), self.run.step("central.undo"):
            undone = self.alternate.undo(central_base())
        if many := undone.conflict_count:
            self.reporter.warn(
                text(
                    pt=f"{counted(many, 'valor', 'valores')} da configuração não voltaram: alguém os mudou no PEC. "
                    f"Veja {self.run.folder / 'pec.json'}. Uma promoção leva os da produção, ou é recusada.",
                    en=f"{counted(many, 'value', 'values')} of the settings did not come back: somebody changed "
                    f"them in PEC. See {self.run.folder / 'pec.json'}. A promotion takes production's, or is refused.",
                )
            )
        self.prove_content(plan, sources)

    def prove_content(self, plan: Plan, sources: Sequence[int]) -> None:
        """Prove the merged base; what PEC itself has written meanwhile, where it may, is counted apart.

        :raises ProofFailed: if it is not what it must be.
        """
        # PEC refreshes its materialised views when it thinks it right, so that they are not asked.
        self._prove_content(plan, sources, declared=_own_writes(plan))

    def check_merged(self, plan: Plan, sources: Sequence[int]) -> None:
        """Ask the checks of the merged base, for people to read: what PEC's merge made, PEC's vendor answers for."""
        with self.step("merged.checks", text(pt="Verificar a base unificada", en="Check the merged base")):
            answers = check_run.run_checks(
                self.connect_merge,
                [check for check in self.preflight.checks.values() if check.asks_rows],
                central=plan.schema,
                name=checks.MERGED,
                jobs=self.jobs,
            )
            self.preflight.report("merged", answers, self.reporter)

    def _is_merged(self, source: Source) -> bool:
        return self.run.is_done(f"source.{source.number}.merge")

    # The unification of one source

    def _unify(self, source: Source) -> None:
        central, origin = central_base(), source_base(source.number)
        if self.jar is not None and not self.alternate.stack.settings.pec:
            found = self.alternate.use(self.jar)
            self.alternate.demand_version(found.version, ["central", source.name])
        self._make_ready(source, central, origin)
        marks = Marks(self.alternate.folder / f"source-{source.number}-steps.jsonl")
        if marks.told:
            marks.path.rename(marks.path.with_suffix(f".{int(time.time())}"))  # of the attempt that was interrupted
        marks.path.touch(0o600)  # `invoke pec.mark` looks for it
        watched = self.alternate.boot(central, origin, patience=self.patience)
        try:
            watch = watching.Watch(self.alternate, watched)
            problem = self._guide(source, watch, marks)
        finally:
            self.alternate.halt()
        self.alternate.check_isolation("after")
        if problem:
            raise self._failed(source, problem)
        self.alternate.clear()

    def _drop_copies(self, source: Source) -> None:
        """Drop what only the unification of one source needed."""
        origin = source_base(source.number)
        copies = [checkpoint(base, source.number) for base in (origin, central_base())]
        for database in (*copies, origin.database):
            self.server.drop_database(database)

    def _make_ready(self, source: Source, central: Base, origin: Base) -> None:
        """Restore the source whole, neutralise both, and keep both as they are then."""
        server = cast("StackServer", self.server)
        if all(server.has_database(checkpoint(base, source.number)) for base in (central, origin)):
            title = text(pt="Voltar as duas bases ao que eram", en="Put both bases back")
            with self.reporter.step(title):  # interrupted: what was begun is void, as the vendor says
                put_back(server, source.number)
            return
        title = text(pt=f"Restaurar {source.name} inteira", en=f"Restore {source.name} whole")
        with self.reporter.step(title):
            self.server.drop_database(origin.database)
            restore.restore_central(
                self.server, source.backup, origin.database, owner=origin.owner, jobs=self.jobs,
                on_progress=self.reporter.progress,
            )  # fmt: skip
        with self.reporter.step(text(pt="Neutralizar as duas bases", en="Neutralise both bases")):
            for base in (central, origin):
                self.alternate.neutralise(base)
        with self.reporter.step(text(pt="Guardar as duas bases", en="Keep both bases")):
            for base in (central, origin):
                self.server.drop_database(checkpoint(base, source.number))
                server.copy_database(base.database, checkpoint(base, source.number))

    def _guide(self, source: Source, watch: watching.Watch, marks: Marks) -> str:
        """Tell what to do until it is done; return what went wrong, "" if nothing did."""
        self._introduce(source)
        typed = _Typed()
        shown = ""
        while True:
            look = watch.look()
            if problem := look.problem:
                return problem
            if guide.ERROR in marks.told:
                return text(pt="uma pessoa viu um erro na tela", en="a person saw an error on the screen")
            step = next((s for s in self._steps(source) if not marks.reached(s.mark)), None)
            if step is not None and step.mark != shown:
                shown = step.mark
                self._show(step, source)
            if step is not None and _is_unified(watch, look):
                marks.add(guide.UNIFIED, by="database")
            if step is None and (not watch.growth.samples or watch.growth.stalled(_QUIET_SECONDS / 60)):
                return ""
            for line in watch.lines(look):
                self.reporter.note(line)
            if (said := typed.wait(_SECONDS_BETWEEN_LOOKS)) is not None and step is not None:
                marks.add(guide.ERROR if said.lower().startswith("err") else step.mark, by="person")

    def _steps(self, source: Source) -> tuple[guide.Step, ...]:
        return guide.steps(link=central_base().link, source=source.name)

    def _introduce(self, source: Source) -> None:
        listen, port = self.alternate.stack.settings.listen, self.alternate.stack.port(443)
        names = " ".join(HOSTS.values())
        self.reporter.warn(
            text(
                pt="Os dois PECs estão no ar, sem saída para fora. No computador do navegador: acrescente ao arquivo "
                f"hosts a linha “{listen.address} {names}”, e confie na autoridade {self.alternate.authority}.",
                en="Both PECs are up, with no way out. On the computer with the browser: add to the hosts file the "
                f"line “{listen.address} {names}”, and trust the authority {self.alternate.authority}.",
            )
        )
        for where, host in ((text(pt="central", en="central"), HOSTS[CENTRAL]), (source.name, HOSTS[SOURCE])):
            self.reporter.note(f"{where}: https://{host}:{port}")

    def _show(self, step: guide.Step, source: Source) -> None:
        where = text(pt="no central", en="in the central") if step.where == "central" else f"{source.name}"
        self.reporter.warn(f"{step.title} ({where})")
        for position, click in enumerate(step.clicks, 1):
            self.reporter.note(f"{position}. {click}")
        self.reporter.note(
            text(
                pt=f"Depois o estado é “{step.then}”. Então tecle Enter aqui (“erro” e Enter se houver erro na tela), "
                f"ou: invoke pec.mark {step.mark} --run {self.run.id}",
                en=f"Then the state is “{step.then}”. Press Enter here (“error” and Enter if the screen shows one), "
                f"or: invoke pec.mark {step.mark} --run {self.run.id}",
            )
        )

    def _failed(self, source: Source, problem: str) -> HomologationError:
        """Keep the evidence, forbid a second attempt, and offer to put both bases back."""
        package = watching.freeze(self.alternate, problem)
        self.run.note(**{FAILED: {"source": source.number, "problem": problem}})
        question = text(
            pt="Voltar agora as duas bases da sandbox ao que eram antes?",
            en="Put both bases of the sandbox back to what they were now?",
        )
        if self.reporter.agrees(question):
            put_back(cast("StackServer", self.server), source.number)
        return watching.stopped(self.alternate, problem, package)


def _own_writes(plan: Plan) -> dict[str, frozenset[Kind]]:
    """What PEC writes by itself, by table: settings, queues and what it derives change as it runs, and its history and
    its queues gain rows. Nothing that comes of a source may be missing there all the same."""
    anything = frozenset((Kind.INVENTED, Kind.CHANGED, Kind.LOST, Kind.DOUBLED))
    gains = frozenset((Kind.INVENTED, Kind.DOUBLED))
    return {
        table.name: anything if table.action is Action.EXCLUDE else gains
        for table in plan
        if table.role in (Role.CONFIG, Role.QUEUE, Role.DERIVED, Role.AUDIT)
    }


def _is_unified(watch: watching.Watch, look: Look) -> bool:
    """Whether the tables say that it is done. Their codes were never seen: only a state in words is understood."""
    return any(
        "unificacao" in line.table and str(state).upper().startswith(("BASE_UNIFICAD", "UNIFICAD", "CONCLUID"))
        for line in watch.statuses(look)
        for state in line.state.values()
    )


class _Typed:
    """Lines that a person types, where there is a terminal; waiting for them ends after a while."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        if sys.stdin is not None and sys.stdin.isatty():
            threading.Thread(target=self._read, daemon=True).start()

    def wait(self, seconds: float) -> str | None:
        """The next line, or None if there is none in time."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line.strip())
