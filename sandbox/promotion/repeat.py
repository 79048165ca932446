"""The merge repeated beside production: the guide's other model, with the same checks and the same proof.

On the production server, but in a database of its own, the safety backup is restored, the run's sources are merged by
the run's plan, and the result is proved; then everything of ours is taken out of it. What remains must be what was
signed, which the caller sees by its fingerprint. Production itself is neither read nor written here.

The same inputs give the same result, on whatever server, as nothing in it depends on anything else: keys move by
offsets that follow from the greatest keys and the sequences of both sides; rows are paired in the order of their keys;
OIDs of large objects are the next above all that the central's rows and objects name; sequences follow the keys.
Sessions have the sandbox's settings, not the server's.

What is made is told apart by the server's own catalog (`sandbox.promotion.external`). An attempt that was interrupted
is removed by the next one, which begins anew: half a merge beside production is worth nothing.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg

from merge import fingerprint, profile
from merge.attachments import claims
from merge.checks import CENTRAL
from merge.errors import (
    BackupError,
    BlockedError,
    ConfigError,
    MergeError,
    PromotionRefused,
    PromotionRolledBack,
    ProofFailed,
    cause,
)
from merge.fingerprint import Fingerprint
from merge.language import text
from sandbox import carry, inputs, intake, preflight
from sandbox.attachments import Attachments
from sandbox.carry import Carriage
from sandbox.options import PEC, options_of
from sandbox.preflight import Decisions, Preflight
from sandbox.promotion import candidate
from sandbox.promotion.external import OUTSIDE, ExternalServer
from sandbox.rehearsal import CENTRAL_FINGERPRINT, Rehearsal, Source
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from merge.catalog import Catalog
    from merge.crosswalk import Crosswalk
    from merge.plan import Plan
    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.promotion.production import Production

    Connection = psycopg.Connection[tuple[Any, ...]]

FOLDER = "repeat"
"""Where the evidence of the second merge is, below the run's folder, whose own is signed and stays as it is."""

_LOCK = 0x7065_6368_6F6D  # "pechom"
"""The advisory lock of who merges on a server; roles have the same names there for all."""

_LOCKS_KEPT = 0.25
"""The part of the server's room for locks that is left to others."""


def merge_beside(
    run: Run,
    production: Production,
    database: str,
    safety: Path,
    reporter: Reporter,
    *,
    owner: str | None = None,
    jobs: int = 2,
) -> None:
    """Merge the run's sources into a copy of production beside it, prove it, and leave only what belongs there.

    :param database: what the new database is called; if a candidate of this run has that name, it is made anew.
    :param safety: a backup of production as it is now, known to be good.
    :param owner: who is to own everything; by default the owner of most of production's tables.
    :param jobs: sessions that work at once.
    :raises PromotionRefused: this run, role or server cannot do it; nothing was made.
    :raises PromotionRolledBack: something went wrong, or came out otherwise than what was signed; nothing of it is
        left on the server.
    """
    options = options_of(run)
    if options.engine == PEC:
        raise PromotionRefused(
            text(
                pt="A unificação foi feita pelo PEC, por mãos de uma pessoa: não se repete sozinha na produção.",
                en="PEC made the merge, by a person's hands: it cannot be repeated in production by itself.",
            ),
            next_step=text(pt="Promova sem --mode repeat.", en="Promote without --mode repeat."),
        )
    server = ExternalServer(production, run.folder / FOLDER / "server", run.id, database)
    with _alone(server), _removed_on_failure(run, server):
        server.destroy()
        again = _new_run(run)
        server.folder.mkdir(mode=0o700, exist_ok=True)
        if owner is None:
            with production.connect() as conn:
                owner = candidate.main_owner(conn)
        run.events.add(FOLDER, "begin", database=database)
        with reporter.step(text(pt="Conferir os backups", en="Check the backups")):
            backups = _inspect(run, again, safety, reporter)
        rehearsal = _Repeat(
            again,
            reporter,
            server,
            profile.load(options.profile, options.overrides),
            jobs,
            Preflight(again, preflight.all_checks(options.profile), Decisions(options.final, options.accepted)),
            options.scope,
            options.keep,
            database=database,
            signed=run,
        )
        _merge(rehearsal, backups, inputs.sources(run))
        with rehearsal.step("hand.over", text(pt="Entregar o banco unificado", en="Hand over the merged database")):
            server.hand_over(database, owner)
        run.events.add(FOLDER, "end", seconds=round(sum(again.done().values()), 3))


def clear(run: Run, production: Production, database: str) -> tuple[str, ...]:
    """Remove what an interrupted merge left on the server; return the names of the databases that were dropped.

    :param database: as it was given to `merge_beside`; it is left if it was handed over, or never taken.
    :raises PromotionRefused: another one is at work.
    """
    server = ExternalServer(production, run.folder / FOLDER / "server", run.id, database)
    with _alone(server):
        databases, _ = server.left()
        server.destroy()
    return tuple(name for name, _ in databases)


def _merge(rehearsal: _Repeat, backups: Mapping[str, Backup], sources: Sequence[Source]) -> None:
    plan, found = rehearsal.prepare_central(backups[CENTRAL])
    for source in sources:
        rehearsal.merge(plan, found, replace(source, backup=backups[source.name]))
    numbers = [source.number for source in sources]
    rehearsal.prove_central(plan, numbers)
    rehearsal.check_merged(plan, numbers)


def _new_run(run: Run) -> Run:
    """An empty folder for the second merge, with what the run was asked."""
    folder = run.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    again = Run(folder)
    kept = run.load("run")
    again.save("run", {"run_id": run.id, "created": kept["created"], "asked": kept["asked"], "done": {}})
    return again


def _work(run: Run) -> Path:
    """Where unwrapped backups are; in the folder that is removed when the run is destroyed."""
    return run.folder / "work" / FOLDER


def _inspect(run: Run, again: Run, safety: Path, reporter: Reporter) -> dict[str, Backup]:
    """Read all backups again: the sources' must be those that the run merged.

    :raises PromotionRolledBack: naming those that are not.
    """
    known = {name: backup for name, backup in inputs.backups(run).items() if name != CENTRAL}
    paths = {CENTRAL: safety, **{name: backup.path for name, backup in known.items()}}
    found = intake.inspect_all(paths, work=_work(run), on_progress=reporter.progress)
    if changed := [str(backup.path) for name, backup in known.items() if found[name].sha256 != backup.sha256]:
        raise PromotionRolledBack(
            text(
                pt="Backups de origem não são os que a execução unificou.",
                en="Backups of sources are not those that the run merged.",
            ),
            evidence=run.folder / "inputs.json",
            details=changed,
            next_step=text(
                pt="Ponha de volta os arquivos originais, ou promova sem --mode repeat.",
                en="Put the original files back, or promote without --mode repeat.",
            ),
        )
    again.save("inputs", found)
    return found


@contextmanager
def _alone(server: ExternalServer) -> Iterator[None]:
    """Keep other merges off the server; the lock goes with the session, however this process ends.

    :raises PromotionRefused: another one is at work.
    """
    with server.connect(OUTSIDE) as conn:
        if conn.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
            raise PromotionRefused(
                text(
                    pt="Outra unificação está em andamento neste servidor de produção.",
                    en="Another merge is under way on this production server.",
                ),
                next_step=text(pt="Espere que ela termine.", en="Wait for it to end."),
            )
        yield


@contextmanager
def _removed_on_failure(run: Run, server: ExternalServer) -> Iterator[None]:
    """Leave nothing on the server when something goes wrong, and say that production is as it was."""
    try:
        yield
        shutil.rmtree(_work(run), ignore_errors=True)
    except BaseException as ex:
        shutil.rmtree(_work(run), ignore_errors=True)
        run.events.add(FOLDER, "failed", error=type(ex).__name__)
        with suppress(psycopg.Error, ConfigError):  # the server is gone: then the next attempt removes it
            server.destroy()
        if isinstance(ex, BackupError | BlockedError | MergeError | ProofFailed):
            raise _failed(ex.what, ex.details, ex.evidence or run.folder / FOLDER) from None
        if isinstance(ex, psycopg.Error):  # whose message may quote a row
            said = cause(ex)
            what = text(
                pt=f"o servidor parou ou recusou um comando ({said})",
                en=f"the server stopped or refused a command ({said})",
            )
            raise _failed(what, (), run.folder / FOLDER) from None
        raise


def _failed(what: str, details: Sequence[str], evidence: object) -> PromotionRolledBack:
    return PromotionRolledBack(
        text(
            pt="A unificação repetida ao lado da produção não deu certo; a produção não foi tocada.",
            en="The merge repeated beside production did not succeed; production was not touched.",
        ),
        evidence=evidence,
        details=(what, *details),
        next_step=text(
            pt="Promova sem --mode repeat, que leva à produção o próprio resultado assinado.",
            en="Promote without --mode repeat, which brings the signed result itself to production.",
        ),
    )


@dataclass
class _Repeat(Rehearsal):
    """A rehearsal that must come out as the one of `signed` did."""

    signed: Run = field(kw_only=True)

    @cached_property
    def carriage(self) -> Carriage:
        """What sees that attachments would get the places that they have."""
        return _Settled(self, self.signed)

    def _keep_fingerprint(self) -> None:
        """Keep what the central holds; it must be what the signed run began with, sequences included.

        :raises PromotionRolledBack: it is not, so that the merge would come out otherwise.
        """
        super()._keep_fingerprint()
        before, now = (Fingerprint.from_dict(run.load(CENTRAL_FINGERPRINT)) for run in (self.signed, self.run))
        if unlike := fingerprint.differences(before, now, restored=True):
            raise _failed(
                text(
                    pt="a produção não é o que a execução unificou",
                    en="production is not what the run merged",
                ),
                [str(one) for one in unlike[:20]],
                self.run.folder,
            )

    def plan(self) -> tuple[Plan, Catalog]:
        """The catalog and the plan.

        :raises PromotionRolledBack: the plan is another than what was signed.
        """
        plan, found = super().plan()
        self.run.save("plan", plan)
        if _worded_alike(self.run.load("plan")) != _worded_alike(self.signed.load("plan")):
            raise _failed(
                text(
                    pt="o plano não é o assinado: mudou o perfil, o esquema da produção ou esta ferramenta",
                    en="the plan is not the signed one: the profile, production's schema or this tool changed",
                ),
                (),
                self.run.folder,
            )
        return plan, found

    def _compare(self, found: Catalog, source: Source) -> frozenset[str]:
        """What the signed run found of the same backup: so the source's schema, which is code, is not restored here."""
        kept = self.signed.load(f"source-{source.number}-schema")
        return frozenset(kept["empty"]) if "empty" in kept else super()._compare(found, source)

    def check(self, plan: Plan, found: Catalog, source: Source) -> Mapping[str, int]:
        """Load and check one source; the server must have room for the merge's locks."""
        rows = super().check(plan, found, source)
        self._check_locks([table.name for table in plan.merged() if rows.get(table.name)], plan.schema)
        return rows

    def merge(self, plan: Plan, found: Catalog, source: Source) -> None:
        """Load, check, merge and prove one source.

        :raises PromotionRolledBack: its rows met other fates than before.
        """
        super().merge(plan, found, source)
        name = f"source-{source.number}-ledger"
        now, before = (_fates(run.load(name)) for run in (self.run, self.signed))
        if unlike := sorted({table for table, _ in now.items() ^ before.items()}):
            raise _failed(
                text(
                    pt=f"{source.name}: linhas tiveram outro destino que na execução assinada",
                    en=f"{source.name}: rows met another fate than in the signed run",
                ),
                unlike[:20],
                self.run.folder,
            )

    def _check_locks(self, tables: list[str], schema: str) -> None:
        """See that the merge, which is one transaction, does not take the locks that others on the server need."""
        with self.connect_merge() as conn:
            row = conn.execute(
                "SELECT current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int"
                "       + current_setting('max_prepared_transactions')::int),"
                "       (SELECT count(*) FROM pg_locks WHERE NOT fastpath),"
                "       (SELECT 2 * count(*) + sum((SELECT count(*) FROM pg_index WHERE indrelid = c.oid))"
                "          FROM pg_class c"
                "         WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relname = ANY(%s))",
                [schema, tables],
            ).fetchone()
        assert row is not None
        room, taken, needed = (int(number or 0) for number in row)
        if taken + needed > room * (1 - _LOCKS_KEPT):
            raise _failed(
                text(
                    pt=f"o servidor tem lugar para {room} bloqueios, e a unificação precisa de {needed} além de "
                    f"{taken}: aumente max_locks_per_transaction (exige reiniciar o PostgreSQL)",
                    en=f"the server has room for {room} locks, and the merge needs {needed} besides {taken}: raise "
                    "max_locks_per_transaction (PostgreSQL must be restarted)",
                ),
                (),
                self.run.folder,
            )


class _Settled(Carriage):
    """Attachments that have their places already, by the decisions of the signed run."""

    def __init__(self, rehearsal: Rehearsal, signed: Run) -> None:
        super().__init__(rehearsal)
        self.store = Attachments(signed.folder / carry.FOLDER)

    def decide(self, plan: Plan, source: Source, conn: Connection, crosswalk: Crosswalk) -> None:
        """Stop the merge if files would get other places than they have."""
        if not self.declared:
            return
        if not self.store.decides_alike(source.number, claims(conn, plan, self.declared, crosswalk)):
            raise MergeError(
                text(
                    pt=f"{source.name}: os anexos iriam para outros lugares que na execução assinada",
                    en=f"{source.name}: attachments would go to other places than in the signed run",
                )
            )

    def carry(self, number: int, name: str) -> None:
        """Nothing: they are there."""


def _worded_alike(plan: Any) -> Any:
    """A plan without what it says to people, which depends on their language."""
    if isinstance(plan, dict):
        return {key: _worded_alike(value) for key, value in plan.items() if key != "reason"}
    return [_worded_alike(value) for value in plan] if isinstance(plan, list) else plan


def _fates(ledger: Any) -> dict[str, tuple[tuple[str, int], ...]]:
    """Rows by disposition of every table, whatever the words of their reasons."""
    found: dict[str, dict[str, int]] = {}
    for line in ledger["lines"]:
        fates = found.setdefault(line["table"], {})
        fates[line["disposition"]] = fates.get(line["disposition"], 0) + line["rows"]
    for line in ledger["added"]:
        found.setdefault(line["table"], {})["added"] = line["rows"]
    return {table: tuple(sorted(fates.items())) for table, fates in found.items()}
