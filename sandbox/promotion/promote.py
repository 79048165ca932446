"""The promotion of a signed candidate: it is made and proved beside production, then names are swapped.

Nothing of production is written but by the swap itself, which is one transaction of two renames. Until it is committed
every failure and every kill leave production as it was; what was made beside it is removed then, or by the next call.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from merge import fingerprint
from merge.errors import BlockedError, HomologationError, MergeError, PromotionRefused, PromotionRolledBack, cause
from merge.language import text
from sandbox import homolog, words
from sandbox.events import now, operator
from sandbox.promotion import (
    belongings,
    beside,
    candidate,
    capsule,
    files,
    freeze,
    leftovers,
    manifest,
    marks,
    names,
    refusals,
    repeat,
    safety,
    smoke,
)
from sandbox.promotion.attempt import Attempt
from sandbox.promotion.dump import dump
from sandbox.promotion.entry import FOLDER, alone, confirm, demand_same, private, told
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.journal import Journal, put_aside
from sandbox.promotion.probing import probe
from sandbox.promotion.production import Production
from sandbox.promotion.put_back import put_back
from sandbox.promotion.rollback import note_promoted, rolled_back, swap_back
from sandbox.promotion.swap import Standing, StandingUnknown, standing, swap

if TYPE_CHECKING:
    from pathlib import Path

    from merge.fingerprint import Fingerprint
    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.promotion.attempt import Asked
    from sandbox.promotion.swap import Swapped
    from sandbox.runs import Run

SAFETY = "safety/production.backup"
"""The safety backup, below the run's folder."""

_POLL_SECONDS = 2.0


def promote(run: Run, asked: Asked, reporter: Reporter) -> Journal:
    """Promote the run's candidate; after an interruption, finish or begin anew.

    :raises PromotionRefused: with all reasons at once; nothing was done.
    :raises PromotionRolledBack: something failed; production is what it was.
    """
    with (
        told(run, "promote"),
        Production(asked.dsn, private(run), tools=asked.tools) as production,
        alone(production) as outside,
    ):
        return Promotion(run, asked, reporter, production, outside).carry_out()


class Promotion(Attempt):
    """Carries an attempt out."""

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
        try:
            if reasons := self.reasons():
                raise refusals.refused([*reasons, *self._unguarded()])
            with WriteGuard(self.production) as guard:
                return self._guarded(guard)
        except (PromotionRefused, BlockedError) as ex:
            self.run.events.add("promotion", "refused", reasons=[ex.what, *ex.details])
            if isinstance(ex, PromotionRefused):
                raise
            raise refusals.refused([f"{ex.what} {'; '.join(ex.details)}"], ex.next_step) from None

    # How

    def _unguarded(self) -> list[str]:
        """Whether production was written, told to whom it is refused already: nobody waits for that."""
        try:
            verdict = self.verdict()
            if verdict is not None and verdict.state == "unwritten":
                return []
            return self.written(self._compare(None), verdict)
        except BlockedError as ex:
            return [f"{ex.what} {'; '.join(ex.details)}"]
        except psycopg.Error as ex:
            said = cause(ex)
            return [text(pt=f"a produção não pôde ser lida ({said})", en=f"production could not be read ({said})")]

    def _compare(self, snapshot: str | None) -> Fingerprint:
        with self.step("compare", text(pt="Comparar a produção com o backup", en="Compare production")):
            return fingerprint.take(self.production.connect, self.asked.jobs, self.reporter.progress, snapshot=snapshot)

    def _guarded(self, guard: WriteGuard) -> Journal:
        """From here on nobody can write to production, and whoever tries waits."""
        verdict = self.verdict()
        with guard.snapshot() as snapshot:
            found = self._compare(snapshot)
            if reasons := self.written(found, verdict):
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
        except StandingUnknown:
            raise
        except (KeyboardInterrupt, HomologationError, psycopg.Error, OSError):
            # What cannot be removed now, the next call removes.
            with suppress(psycopg.Error, HomologationError, OSError):
                journal = Journal.of(self.run) or journal
                if journal.state == "preparing" and self._standing(journal) is Standing.OLD:
                    self._remove(journal)
            raise

    def _begin(self) -> Journal:
        attempt = put_aside(self.run)
        with self.production.connect() as conn:
            system, _ = marks.control(conn)
            live = candidate.oid_of(conn, self.production.database)
        database, outside = self.production.database, self.outside
        return Journal(
            state="preparing",
            mode=self.asked.mode,
            run_id=self.run.id,
            by=operator(),
            system=system,
            address=f"{self.production.host}:{self.production.port}",
            database=database,
            live_oid=live,
            kept=names.free_name(outside, names.kept_name(database, self.run.id)),
            candidate=names.candidate_name(database, self.run.id),  # an empty one that was not marked yet is taken up
            began=now(),
            frozen_at=self.run.load("snapshot")["marks"]["taken"] if self.run.has("snapshot") else now(),
            attachments=str(self.asked.attachments) if self.asked.attachments else None,
            facts={"attempt": attempt + 1, **self.facts},
        ).save(self.run)

    def _verify_safety(self, path: Path, found: Fingerprint) -> Backup:
        title = text(
            pt="Restaurar o backup de segurança na sandbox e comparar", en="Restore the safety backup, compare"
        )
        server = homolog.usable_server(self.run)
        try:
            with self.step("safety.verify", title):
                return safety.verify(
                    server, path, found, self.run.folder / FOLDER, jobs=self.asked.jobs,
                    on_progress=self.reporter.progress,
                )  # fmt: skip
        except psycopg.Error as ex:
            raise PromotionRolledBack(
                text(
                    pt=f"O servidor da sandbox parou ou recusou um comando ({cause(ex)}).",
                    en=f"The sandbox's server stopped or refused a command ({cause(ex)}).",
                ),
                evidence=self.run.folder,
                next_step=text(pt="A produção não foi tocada: repita.", en="Production was not touched: repeat."),
            ) from None
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
        signed = freeze.load_fingerprint(self.run)
        if signed.digest != self.manifest.candidate["fingerprint"]:  # changed since everything was verified
            raise refusals.refused(manifest.verify(self.run))
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
        if reasons := [*self.inside(owner), *self.window()]:
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

    def _promoted(self, journal: Journal, swapped: Swapped) -> Journal:
        """After the commit: look at the new production, and go back at once if it is not well."""
        journal = replace(journal, login_wait=swapped.login_wait, ended=swapped.ended, seconds=dict(self.seconds))
        journal = note_promoted(self.run, journal)
        journal, failed = self._look(journal)
        if failed:
            self._go_back(journal, failed)
            raise PromotionRolledBack(
                text(
                    pt="A produção nova não passou nas conferências e a anterior voltou ao seu lugar.",
                    en="The new production did not pass its checks, and the one before is in its place again.",
                ),
                evidence=self.run.folder / "promotion.json",
                details=failed,
            )
        return self._wait_for_pec(journal)

    def _go_back(self, journal: Journal, failed: tuple[str, ...]) -> None:
        try:
            swap_back(self.run, self.production, journal, self.reporter)
        except (HomologationError, psycopg.Error) as ex:
            why = ex.what if isinstance(ex, HomologationError) else cause(ex)
            raise MergeError(
                text(
                    pt="A produção nova não passou nas conferências, e não se pôde voltar: ela é a que está no ar.",
                    en="The new production did not pass its checks, and could not be taken back: it is the live one.",
                ),
                evidence=self.run.folder / "promotion.json",
                details=(*failed, why),
                next_step=f"invoke rollback --run {self.run.id} --production …",
            ) from None

    def _look(self, journal: Journal, *, at_once: bool = True) -> tuple[Journal, tuple[str, ...]]:
        """Look at the new production; return what is not well."""
        with self.step("smoke", text(pt="Conferir a produção nova", en="Check the new production")):
            found = smoke.look(self.production, self.profile, self.run, journal, at_once=at_once)
        return replace(journal.noted(smoke=found.checks), seconds=dict(self.seconds)).save(self.run), found.failed

    def _wait_for_pec(self, journal: Journal) -> Journal:
        """Measure the outage of PEC as a whole: it ends when PEC answers again."""
        if not (self.asked.pec and self.asked.wait):
            return journal
        self.reporter.warn(text(pt="Inicie o PEC agora.", en="Start PEC now."))
        deadline = time.monotonic() + self.asked.wait * 60
        with self.step("pec", text(pt="Esperar o PEC responder", en="Wait for PEC to answer")):
            try:
                while not all(probe(*address).answer == "open" for address in self.asked.pec):
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    time.sleep(_POLL_SECONDS)
            except (KeyboardInterrupt, TimeoutError):  # the promotion is made all the same
                self.reporter.warn(text(pt="O PEC não respondeu a tempo.", en="PEC did not answer in time."))
                return journal
        assert journal.frozen_at is not None
        outage = round(words.seconds_since(journal.frozen_at), 1)
        return replace(journal, outage=outage, seconds=dict(self.seconds)).save(self.run)

    # After an interruption, or a failure

    def _finish_interrupted(self) -> Journal | None:
        """Look at what an earlier attempt left: the journal of a swap that was made, or what has to be removed."""
        journal = Journal.of(self.run)
        if journal is None or journal.state == "rolled_back":
            return None
        if journal.candidate_oid is not None:
            demand_same(self.production, journal)
        now_live = self._standing(journal)
        if now_live is Standing.NEW:
            return self._take_up(journal)
        if now_live is Standing.OLD and journal.state == "promoted" and journal.rollback is not None:
            rolled_back(self.run, journal, self.asked.attachments, self.reporter)  # cut before that was noted
            return None
        if now_live is Standing.NEITHER or journal.state == "promoted":
            raise PromotionRefused(
                text(
                    pt=f"A execução {self.run.id} foi promovida, mas a produção agora é outro banco.",
                    en=f"Run {self.run.id} was promoted, but production is another database now.",
                ),
                next_step="invoke promotions",
            )
        with self.step("clean", text(pt="Retirar o que ficou de uma promoção interrompida", en="Remove leftovers")):
            self._remove(journal)
        return None

    def _take_up(self, journal: Journal) -> Journal:
        """Finish one that was interrupted after its commit. People may be at work already: nothing goes back."""
        if journal.state != "promoted":
            journal = note_promoted(self.run, replace(journal, seconds=dict(self.seconds)))
        if (found := journal.facts.get("smoke")) and all(said == smoke.OK for said in found.values()):
            self.reporter.note(text(pt="Esta execução já foi promovida.", en="This run is promoted already."))
            return journal
        journal, failed = self._look(journal, at_once=False)
        if failed:
            raise PromotionRefused(
                text(
                    pt="A produção já é a nova, mas não passou nas conferências.",
                    en="Production is the new one already, but it did not pass its checks.",
                ),
                evidence=self.run.folder / "promotion.json",
                details=failed,
                next_step=f"invoke rollback --run {self.run.id} --production …",
            )
        return self._wait_for_pec(journal)

    def _standing(self, journal: Journal) -> Standing:
        """Which database has production's name now."""
        if journal.candidate_oid is None:
            return Standing.OLD
        with self.production.connect_outside() as conn:
            return standing(conn, journal.database, journal.live_oid, journal.candidate_oid)

    def _remove(self, journal: Journal) -> Journal:
        return leftovers.remove_made(self.run, self.production, self.outside, journal, self.asked.attachments)

    def _keep_rehearsal(self, journal: Journal) -> Journal:
        """A dry run leaves its findings, and no journal of a promotion."""
        journal = replace(journal, seconds=dict(self.seconds))
        self.run.save("promotion-rehearsal", journal)
        (self.run.folder / "promotion.json").unlink()
        return journal
