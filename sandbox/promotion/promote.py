"""The promotion of a signed candidate: it is made and proved beside production, then names are swapped.

Nothing of production is written but by the swap itself, which is one transaction of two renames. Until it is committed
every failure and every kill leave production as it was; what was made beside it is removed then, or by the next call.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg

from merge import fingerprint, profile
from merge.errors import ConfigError, HomologationError, PromotionRefused, PromotionRolledBack
from merge.fingerprint import Fingerprint
from merge.language import counted, text
from sandbox import homolog, words
from sandbox.events import operator
from sandbox.options import PEC, options_of
from sandbox.promotion import (
    belongings,
    beside,
    candidate,
    capsule,
    files,
    freeze,
    manifest,
    marks,
    names,
    refusals,
    repeat,
    rights,
    safety,
    smoke,
)
from sandbox.promotion.dump import dump
from sandbox.promotion.entry import FOLDER, alone, confirm
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.journal import Journal, Mode, now, put_aside
from sandbox.promotion.probing import probe
from sandbox.promotion.production import Production
from sandbox.promotion.put_back import put_back
from sandbox.promotion.rollback import swap_back
from sandbox.promotion.swap import Standing, standing, swap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from merge.profile import Profile
    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.promotion.freeze import Frozen
    from sandbox.promotion.manifest import Manifest
    from sandbox.promotion.production import Connection
    from sandbox.promotion.swap import Swapped
    from sandbox.runs import Run

SAFETY = "safety/production.backup"
"""The safety backup, below the run's folder."""

_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Asked:
    """What the operator asks for.

    :param confirm: the name of the production database, typed; "" to be asked.
    :param attachments: production's directory of files outside the database.
    :param pec: addresses at which PEC must not answer while this goes on, and at which it is waited for afterwards.
    :param tools: folder with PostgreSQL's programs of production's version.
    :param disk_free: bytes that are free on the production server, where that cannot be seen from here.
    :param wait: minutes to wait for PEC afterwards, to measure the outage; 0 not to.
    """

    dsn: str
    confirm: str = ""
    dry_run: bool = False
    mode: Mode = "restore"
    attachments: Path | None = None
    pec: tuple[tuple[str, int], ...] = ()
    tools: Path | None = None
    disk_free: int | None = None
    jobs: int = 2
    wait: float = 0.0


def promote(run: Run, asked: Asked, reporter: Reporter) -> Journal:
    """Promote the run's candidate; after an interruption, finish or begin anew.

    :raises PromotionRefused: with all reasons at once; nothing was done.
    :raises PromotionRolledBack: something failed; production is what it was.
    """
    with (
        Production(asked.dsn, run.folder / FOLDER, tools=asked.tools) as production,
        alone(production) as outside,
    ):
        return Promotion(run, asked, reporter, production, outside).carry_out()


@dataclass
class Promotion:
    """One attempt. `seconds` and `facts` are for the journal."""

    run: Run
    asked: Asked
    reporter: Reporter
    production: Production
    outside: Connection
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def profile(self) -> Profile:
        """What is known of the application, as the run knew it."""
        options = options_of(self.run)
        return profile.load(options.profile, options.overrides)

    @cached_property
    def manifest(self) -> Manifest:
        """What was signed."""
        return manifest.load(self.run)

    @cached_property
    def frozen(self) -> Frozen:
        """The candidate that was signed."""
        return freeze.load(self.run)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step: shown, timed, and noted in the run's log."""
        self.run.events.add(f"promotion.{name}", "begin")
        start = time.monotonic()
        with self.reporter.step(title):
            yield
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.run.events.add(f"promotion.{name}", "end", seconds=self.seconds[name])

    def carry_out(self) -> Journal:
        """Check, prepare, swap."""
        if (done := self._finish_interrupted()) is not None:
            return done
        where = self.production.shown
        confirm(
            self.reporter,
            self.production,
            self.asked.confirm,
            text(pt=f"Promover a execução {self.run.id} para {where}?", en=f"Promote run {self.run.id} to {where}?"),
        )
        reasons = self._reasons()
        try:
            with WriteGuard(self.production) as guard:
                return self._guarded(guard, reasons)
        except PromotionRefused as ex:
            self.run.events.add("promotion", "refused", reasons=[*reasons, *ex.details] or [ex.what])
            if reasons and not set(reasons) & set(ex.details):
                raise refusals.refused([*reasons, *(ex.details or [ex.what])], ex.next_step) from None
            raise

    # Whether

    def _reasons(self) -> list[str]:
        """What forbids it and is quickly known."""
        asked, production = self.asked, self.production
        title = text(pt="Conferir se a promoção pode ser feita", en="Check whether the promotion may be made")
        with self.step("check", title):
            reasons = [*freeze.not_promotable(self.run), *manifest.verify(self.run), *self._window()]
            if asked.mode == "repeat" and options_of(self.run).engine == PEC:
                reasons.append(
                    text(
                        pt="--mode repeat não serve para o engine pec: uma pessoa teria de unificar de novo",
                        en="--mode repeat does not work with engine pec: a person would have to unify again",
                    )
                )
            with production.connect() as conn:
                if self.run.has("frozen"):
                    reasons += refusals.of_server(production, self.frozen.major)
                    found = refusals.rooms(
                        conn, production, self.run, self.frozen.database_bytes, asked.disk_free,
                        2 if asked.mode == "repeat" else 1,
                    )  # fmt: skip
                    self._tell_room(found)
                    reasons += refusals.of_disk(found)
                owner = candidate.main_owner(conn)
                expected = self.run.load("run").get("versions", {}).get("central")
                reasons += refusals.of_version(conn, self.profile, owner, expected)
            reasons += [*rights.missing_rights(production), *rights.obstacles(production), *self._inside(owner)]
            reasons += files.check(self.run, asked.attachments, self.reporter.progress, asked.jobs)
        return list(dict.fromkeys(reasons))

    def _window(self) -> list[str]:
        if not self.run.has("manifest"):
            return []
        try:
            problem = self.manifest.window.problem()
        except (PromotionRefused, ConfigError):  # which is told by those who verify it
            return []
        return [problem] if problem else []

    def _inside(self, owner: str) -> list[str]:
        """Who is in production that must not be; others are told of, since the swap ends their sessions."""
        found = rights.sessions(self.production)
        reasons = list(refusals.of_sessions(found, owner, [probe(*address) for address in self.asked.pec]))
        for session in found if not reasons else ():
            self.reporter.note(text(pt=f"será encerrada na troca: {session}", en=f"the swap will end {session}"))
        return reasons

    def _tell_room(self, found: Sequence[refusals.Room]) -> None:
        for room in found:
            free = "?" if room.free is None else words.size(room.free)
            self.reporter.note(
                text(
                    pt=f"{room.place}: são precisos {words.size(room.needed)}; livres {free}",
                    en=f"{room.place}: {words.size(room.needed)} needed; {free} free",
                )
            )
        took = self.run.done().get("central.restore", 0.0)
        if took:  # the backup once more, the candidate once, and reading both a few times
            self.reporter.note(
                text(
                    pt=f"Estimativa: {words.duration(4 * took)} de preparo; a troca em si leva menos de 2 segundos.",
                    en=f"Estimate: {words.duration(4 * took)} to prepare; the swap itself takes less than 2 seconds.",
                )
            )

    def _written(self, found: Fingerprint, verdict: marks.Verdict | None) -> list[str]:
        """That production is not what the central's backup was, and how that is known."""
        if not self.run.has("central-fingerprint"):
            if not self.run.load("run")["asked"].get("final"):
                return []  # which is told already
            return [text(pt="o conteúdo do central não foi guardado", en="the central's content was not kept")]
        expected = Fingerprint.from_dict(self.run.load("central-fingerprint"))
        unlike = fingerprint.differences(expected, found, sequences=False, objects=False)
        self.facts["unwritten"] = {"rows": found.rows, "tables_unlike": len(unlike), "marks": verdict and verdict.how}
        if not unlike:
            return []
        head = text(
            pt=f"a produção foi alterada desde o backup do central: {counted(len(unlike), 'tabela', 'tabelas')} "
            "com outro conteúdo",
            en=f"production was written since the central's backup: {counted(len(unlike), 'table', 'tables')} "
            "with other content",
        )
        return [f"{head} ({'; '.join(verdict.how)})" if verdict else head, *(str(one) for one in unlike[:10])]

    def _verdict(self) -> marks.Verdict | None:
        """What the marks of the snapshot tell; None if PEC took the backup."""
        if not self.run.has("snapshot"):
            return None
        before = marks.Marks.from_dict(self.run.load("snapshot")["marks"])
        with self.production.connect() as conn:
            return marks.compare(before, marks.take(conn))

    # How

    def _guarded(self, guard: WriteGuard, reasons: list[str]) -> Journal:
        """From here on nobody can write to production, and whoever tries waits."""
        verdict = self._verdict()
        with guard.snapshot() as snapshot:
            if not reasons or verdict is None or verdict.state != "unwritten":
                with self.step("compare", text(pt="Comparar a produção com o backup", en="Compare production")):
                    found = fingerprint.take(
                        self.production.connect, self.asked.jobs, self.reporter.progress, snapshot=snapshot
                    )
                reasons = [*reasons, *self._written(found, verdict)]
            if reasons:
                raise refusals.refused(reasons)
            journal = self._begin()
            path = self.run.folder / SAFETY
            with self.step("safety", text(pt="Fazer o backup de segurança", en="Take the safety backup")):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                made = dump(self.production, path, snapshot=snapshot, on_progress=self.reporter.progress)
        journal = replace(journal, safety=SAFETY, safety_sha256=made.sha256).save(self.run)
        backup = self._verify_safety(path, found)
        try:
            journal = self._prepare(journal, backup)
            if self.asked.dry_run:
                self._remove(journal)
                return self._keep_rehearsal(journal)
            self._look_again()
            return self._swap(journal, guard)
        except BaseException as ex:
            if not isinstance(ex, KeyboardInterrupt | HomologationError | psycopg.Error):
                raise
            if self._standing(journal) is Standing.NEW:
                return self._promoted(journal, None)
            with suppress(psycopg.Error, HomologationError):
                self._remove(journal)
            if isinstance(ex, psycopg.Error):
                raise refusals.lost(ex) from None
            raise

    def _begin(self) -> Journal:
        attempt = put_aside(self.run)
        with self.production.connect() as conn:
            row = conn.execute(
                "SELECT oid::bigint, (SELECT system_identifier::text FROM pg_control_system())"
                " FROM pg_database WHERE datname = current_database()"
            ).fetchone()
        assert row is not None
        database, outside = self.production.database, self.outside
        return Journal(
            state="preparing",
            mode=self.asked.mode,
            run_id=self.run.id,
            by=operator(),
            system=row[1],
            address=f"{self.production.host}:{self.production.port}",
            database=database,
            live_oid=row[0],
            kept=names.free_name(outside, names.kept_name(database, self.run.id)),
            candidate=names.free_name(outside, names.candidate_name(database, self.run.id)),
            began=now(),
            frozen_at=self.run.load("snapshot")["marks"]["taken"] if self.run.has("snapshot") else now(),
            attachments=str(self.asked.attachments) if self.asked.attachments else None,
            facts={"attempt": attempt + 1, **self.facts},
        ).save(self.run)

    def _verify_safety(self, path: Path, found: Fingerprint) -> Backup:
        title = text(
            pt="Restaurar o backup de segurança na sandbox e comparar", en="Restore the safety backup, compare"
        )
        server = homolog.open_server(self.run)
        try:
            with self.step("safety.verify", title):
                return safety.verify(
                    server, path, found, self.run.folder / FOLDER, jobs=self.asked.jobs,
                    on_progress=self.reporter.progress,
                )  # fmt: skip
        finally:
            server.stop()

    def _prepare(self, journal: Journal, backup: Backup) -> Journal:
        """Make the candidate beside production, and prove that it is what was signed."""
        production, asked, run = self.production, self.asked, self.run
        with production.connect() as conn:
            owner = candidate.main_owner(conn)
            before = belongings.capture(conn)
        if asked.mode == "repeat":
            repeat.merge_beside(
                run, production, journal.candidate, run.folder / SAFETY, self.reporter, owner=owner, jobs=asked.jobs
            )
            journal = replace(journal, candidate_oid=candidate.oid_of(self.outside, journal.candidate)).save(run)
        else:
            oid = beside.create_beside(production, journal.candidate, run_id=run.id)
            journal = replace(journal, candidate_oid=oid).save(run)
            with self.step("restore", text(pt="Restaurar o resultado ao lado da produção", en="Restore the candidate")):
                candidate.restore_beside(
                    production,
                    run.folder / self.frozen.dump,
                    journal.candidate,
                    owner,
                    backup.extensions,
                    jobs=asked.jobs,
                    size=self.frozen.database_bytes,
                    on_progress=self.reporter.progress,
                )
        with self.step("prove", text(pt="Provar que é o resultado assinado", en="Prove it is what was signed")):
            self._prove(journal)
        with self.step("capsule", text(pt="Devolver a configuração da produção", en="Put the configuration back")):
            configured = capsule.put_back(production, journal.candidate, self.profile)
            undone = capsule.undo_is_complete(production, journal.candidate, run, self.profile)
        title = text(pt="Devolver donos, direitos e ajustes", en="Put owners, rights and settings back")
        with self.step("belongings", title), production.connect(journal.candidate) as conn:
            statements = put_back(conn, before)
        journal = journal.noted(capsule=configured, undo=undone, belongings=statements, **self.facts)
        if asked.attachments is not None:
            with self.step("attachments", text(pt="Acrescentar os anexos", en="Add the attachments")):
                added = files.add(run, asked.attachments, self.reporter.progress, asked.jobs)
            journal = journal.noted(attachments=added)
        return replace(journal, seconds=dict(self.seconds)).save(run)

    def _prove(self, journal: Journal) -> None:
        signed = Fingerprint.from_dict(self.run.load("candidate-fingerprint"))
        found = fingerprint.take(
            lambda: self.production.connect(journal.candidate), self.asked.jobs, self.reporter.progress
        )
        self.facts["proved"] = {"rows": found.rows, "digest": found.digest}
        if unlike := fingerprint.differences(signed, found, restored=True):
            raise PromotionRolledBack(
                text(
                    pt="O banco feito ao lado da produção não é igual ao que foi assinado; a produção não foi tocada.",
                    en="The database beside production is not what was signed; production was not touched.",
                ),
                evidence=self.run.folder,
                details=[str(one) for one in unlike],
            )

    def _look_again(self) -> None:
        """Preparing takes its time: what may have changed is looked at once more."""
        with self.production.connect() as conn:
            owner = candidate.main_owner(conn)
        if reasons := [*self._inside(owner), *self._window()]:
            raise refusals.refused(reasons)

    def _swap(self, journal: Journal, guard: WriteGuard) -> Journal:
        assert journal.candidate_oid is not None
        self.reporter.note(
            text(
                pt="Troca: os logins esperam a partir de agora, 2 segundos no máximo.",
                en="Swap: logins wait from now on, for 2 seconds at most.",
            )
        )
        title = text(pt="Trocar os bancos", en="Swap the databases")
        with self.step("swap", title), WriteGuard(self.production, journal.candidate) as new:
            swapped = swap(
                self.production, guard, journal.live_oid, journal.candidate_oid, journal.kept,
                run_id=self.run.id, candidate_guard=new,
            )  # fmt: skip
        return self._promoted(journal, swapped)

    def _promoted(self, journal: Journal, swapped: Swapped | None) -> Journal:
        """After the commit: check that production is the new one, and go back if it is not well.

        :param swapped: None if the line was cut when the commit was confirmed.
        """
        journal = replace(
            journal,
            state="promoted",
            promoted_at=now(),
            login_wait=swapped.login_wait if swapped else None,
            ended=swapped.ended if swapped else 0,
            seconds=dict(self.seconds),
        ).save(self.run)
        self.run.attest("promoted", database=journal.database, server=journal.address, kept=journal.kept)
        with self.step("smoke", text(pt="Conferir a produção nova", en="Check the new production")):
            found = smoke.look(self.production, self.profile, self.run, journal)
        journal = replace(journal.noted(smoke=found.checks), seconds=dict(self.seconds)).save(self.run)
        if found.failed:
            swap_back(self.run, self.production, journal, self.reporter)
            raise PromotionRolledBack(
                text(
                    pt="A produção nova não passou nas conferências e a anterior voltou ao seu lugar.",
                    en="The new production did not pass its checks, and the one before is in its place again.",
                ),
                evidence=self.run.folder / "promotion.json",
                details=found.failed,
            )
        return self._wait_for_pec(journal)

    def _wait_for_pec(self, journal: Journal) -> Journal:
        """Measure the outage of PEC as a whole: it ends when PEC answers again."""
        if not (self.asked.pec and self.asked.wait):
            return journal
        self.reporter.warn(text(pt="Inicie o PEC agora.", en="Start PEC now."))
        deadline = time.monotonic() + self.asked.wait * 60
        with self.step("pec", text(pt="Esperar o PEC responder", en="Wait for PEC to answer")):
            while not all(probe(*address).answer == "open" for address in self.asked.pec):
                if time.monotonic() > deadline:
                    self.reporter.warn(text(pt="O PEC não respondeu a tempo.", en="PEC did not answer in time."))
                    return journal
                time.sleep(_POLL_SECONDS)
        assert journal.frozen_at is not None
        outage = round(words.seconds_since(journal.frozen_at), 1)
        return replace(journal, outage=outage, seconds=dict(self.seconds)).save(self.run)

    # After an interruption, or a failure

    def _finish_interrupted(self) -> Journal | None:
        """Look at what an earlier attempt left: the journal of a swap that was made, or what has to be removed."""
        journal = Journal.of(self.run)
        if journal is None or journal.state == "rolled_back":
            return None
        now_live = self._standing(journal)
        if journal.state == "promoted" or now_live is Standing.NEW:
            if now_live is not Standing.NEW:
                raise PromotionRefused(
                    text(
                        pt=f"A execução {self.run.id} foi promovida, mas a produção agora é outro banco.",
                        en=f"Run {self.run.id} was promoted, but production is another database now.",
                    ),
                    next_step="invoke promotions",
                )
            if journal.state == "promoted" and "smoke" in journal.facts:
                self.reporter.note(text(pt="Esta execução já foi promovida.", en="This run is promoted already."))
                return journal
            return self._promoted(journal, None)
        with self.step("clean", text(pt="Retirar o que ficou de uma promoção interrompida", en="Remove leftovers")):
            self._remove(journal)
        return None

    def _standing(self, journal: Journal) -> Standing:
        """Which database has production's name now."""
        if journal.candidate_oid is None:
            return Standing.OLD
        with self.production.connect_outside() as conn:
            return standing(conn, journal.database, journal.live_oid, journal.candidate_oid)

    def _remove(self, journal: Journal) -> None:
        """Remove what was made beside production, and nothing else."""
        if journal.mode == "repeat":
            repeat.clear(self.run, self.production, journal.candidate)
        for one in names.ours(self.outside):
            if (one.run_id, one.kind) == (self.run.id, names.Kind.CANDIDATE):
                beside.drop_unfinished(self.production, one.oid, run_id=self.run.id)
        if journal.attachments is not None:
            files.remove(self.run, self.asked.attachments)

    def _keep_rehearsal(self, journal: Journal) -> Journal:
        """A dry run leaves its findings, and no journal of a promotion."""
        journal = replace(journal, seconds=dict(self.seconds))
        self.run.save("promotion-rehearsal", journal)
        (self.run.folder / "promotion.json").unlink()
        return journal
