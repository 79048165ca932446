"""Starting and resuming runs: from the options of `invoke homolog` to the result."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from merge import checks, profile, scopes
from merge.errors import (
    BackupError,
    BlockedError,
    ConfigError,
    HomologationError,
    MergeError,
    PreflightBlocked,
    ProofFailed,
)
from merge.language import text
from merge.plan import ALL
from sandbox import choose, events, handover, intake, report, sample
from sandbox import preflight as answers
from sandbox.collect import collect
from sandbox.preflight import Decisions, Preflight
from sandbox.rehearsal import Rehearsal, Source, check_proof
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.result import RunResult
    from sandbox.server import Server


_PASSWORDS = "passwords"
"""The policy of a profile that makes the sources' users change their passwords."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; kept with the run, so that it can be resumed.

    :param central: the central's backup; None to make synthetic backups.
    :param sources: name and backup of every source, in merge order.
    :param major: PostgreSQL major version; None for that of the central's backup.
    :param scope: what comes of a source: all, or a scope of the profile.
    :param keep_passwords: users of the sources keep their passwords.
    :param final: whether the result is to go to production: then what only warns in a rehearsal may block.
    :param accepted: reason by id of the warnings that were accepted.
    :param confirmations: file of what people confirmed.
    """

    central: Path | None = None
    sources: tuple[tuple[str, Path], ...] = ()
    server: str = "auto"
    major: int | None = None
    binaries: Path | None = None
    jobs: int = 0
    scale: float = 1.0
    profile: str = "pec"
    overrides: tuple[Path, ...] = ()
    keep_running: bool = False
    scope: str = ALL
    keep_passwords: bool = False
    final: bool = False
    accepted: Mapping[str, str] = field(default_factory=dict)
    confirmations: Path | None = None

    @classmethod
    def parse(
        cls, *, central: str, sources: Sequence[str], accept: Sequence[str], reason: Sequence[str], **others: Any
    ) -> Options:
        """Make options from the words of the command line.

        :raises ConfigError: if files are missing, names of sources are not unique, or an accepted warning lacks its
            reason.
        """
        named = tuple(_named(source) for source in sources)
        problems = [str(p) for p in (*([Path(central)] if central else []), *(p for _, p in named)) if not p.exists()]
        names = [name for name, _ in named]
        problems += sorted({name for name in names if names.count(name) > 1})
        if bool(central) != bool(named):
            problems.append("--central, --source")
        if problems:
            raise ConfigError(
                text(
                    pt="Indique um backup do central e pelo menos um de origem, que existam e tenham nomes diferentes.",
                    en="Name one backup of the central and at least one source, which exist and have different names.",
                ),
                details=problems,
            )
        accepted = accepted_of(accept, reason)
        return cls(Path(central).resolve() if central else None, named, accepted=accepted, **others)

    @property
    def parallel(self) -> int:
        """Connections to use at once."""
        return self.jobs or os.cpu_count() or 1

    @property
    def keep(self) -> frozenset[str]:
        """Policies of the profile that are not wanted."""
        return frozenset({_PASSWORDS} if self.keep_passwords else ())


def _named(source: str) -> tuple[str, Path]:
    name, equals, path = source.partition("=")
    file = Path(path if equals else source).resolve()
    return (name if equals else file.name.split(".")[0], file)


def accepted_of(accept: Sequence[str], reason: Sequence[str]) -> dict[str, str]:
    """The accepted warnings with their reasons, which are given in the same order.

    :raises ConfigError: one lacks its reason.
    """
    if len(accept) != len(reason) or not all(why.strip() for why in reason):
        raise ConfigError(
            text(
                pt="Cada aviso aceito (--accept) precisa do seu motivo (--reason), na mesma ordem.",
                en="Each accepted warning (--accept) needs its reason (--reason), in the same order.",
            ),
            details=list(accept),
        )
    return {name: why.strip() for name, why in zip(accept, reason, strict=True)}


def start(options: Options, reporter: Reporter) -> tuple[Run, RunResult]:
    """Make a run and carry it out.

    :raises ConfigError: if the profile or an override file cannot be used, or does not know what was asked of it; then
        no run is made.
    """
    scopes.find_scope(profile.load(options.profile, options.overrides), options.scope, options.keep)
    run = _create(options, reporter)
    return run, _carry_out(run, options, reporter)


def resume(
    name: str, reporter: Reporter, *, accepted: Mapping[str, str] | None = None, confirmations: Path | None = None
) -> tuple[Run, RunResult]:
    """Go on with a run from the step that was interrupted, or blocked.

    :param accepted: warnings that were accepted since, with their reasons.
    :param confirmations: file of what people confirmed since.
    """
    run = Run.open(name)
    run.lock()
    run.events.add("run", "resumed")
    options = options_of(run)
    options = replace(
        options,
        accepted={**options.accepted, **(accepted or {})},
        confirmations=confirmations or options.confirmations,
    )
    run.note(asked=asdict(options))
    return run, _carry_out(run, options, reporter)


def preflight(options: Options, reporter: Reporter) -> Run:
    """Restore and check all backups, show what was found, and merge nothing. `resume` goes on from there.

    :raises BlockedError: with everything that forbids the merge, of all sources.
    """
    run = _create(options, reporter)
    server: Server | None = None
    problems: list[BlockedError] = []
    try:
        asked = _preflight(run, options, reporter)
        server = _prepare_server(run, options, reporter)
        rehearsal = _rehearsal(run, reporter, server, asked)
        plan, found = rehearsal.prepare_central(_backup(run, "central"))
        for source in _sources(run):
            try:
                rehearsal.check(plan, found, source)
            except BlockedError as ex:
                problems.append(ex)
        reporter.preflight(answers.load(run), str(run.folder))
    except psycopg.Error as ex:
        raise _lost(run, ex) from None
    except BackupError:
        destroy(run)  # nothing worth keeping was restored
        raise
    finally:
        if server is not None and not options.keep_running:
            server.stop()
        run.unlock()
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise PreflightBlocked(
            text(pt="Várias origens não podem ser unificadas.", en="Several sources cannot be merged."),
            evidence=run.folder,
            details=[line for ex in problems for line in (ex.what, *ex.details)],
            next_step=problems[0].next_step,
        )
    return run


def _create(options: Options, reporter: Reporter) -> Run:
    run = Run.create(**asdict(options))
    reporter.note(text(pt=f"Execução {run.id} em {run.folder}", en=f"Run {run.id} in {run.folder}"))
    return run


def options_of(run: Run) -> Options:
    """What a run was asked."""
    asked = run.load("run")["asked"]
    names = ("central", "binaries", "confirmations")
    paths = {name: Path(asked[name]) if asked.get(name) else None for name in names}
    sources = tuple((name, Path(path)) for name, path in asked["sources"])
    known = {f.name for f in fields(Options)}
    overrides = tuple(Path(path) for path in asked.get("overrides", ()))
    kept = {k: v for k, v in asked.items() if k in known}
    return Options(**{**kept, **paths, "sources": sources, "overrides": overrides})


def open_server(run: Run) -> Server:
    """Take up the server of a run and start it.

    :raises ConfigError: if the run has none, or its data are void.
    """
    state = run.load("run").get("server")
    if state is None or not (run.folder / "server").exists():
        raise ConfigError(
            text(pt=f"A execução {run.id} não tem servidor.", en=f"The run {run.id} has no server."),
            next_step=text(pt="Comece outra com invoke homolog.", en="Start another with invoke homolog."),
        )
    server = _choose(run, options_of(run), state["provider"], state["major"], state["inputs"])[0]
    if not server.data_is_sound():
        raise ConfigError(
            text(
                pt="A máquina foi reiniciada durante a execução; os dados da sandbox não valem mais.",
                en="The machine was restarted during the run; the sandbox's data are void.",
            ),
            next_step=f"invoke homolog --resume {run.id}",
        )
    server.start()
    return server


def prove(run: Run, reporter: Reporter, *, keep_running: bool = False) -> None:
    """Repeat all proofs on the sandbox as it is now.

    :raises ProofFailed: if one of them finds differences.
    """
    server = open_server(run)
    try:
        rehearsal = _rehearsal(run, reporter, server, _asked(run))
        plan, _ = rehearsal.plan()
        sources = [s for s in _sources(run) if run.is_done(f"source.{s.number}.merge")]
        proofs = [rehearsal.prove_source(plan, source) for source in sources]
        proofs.append(rehearsal.prove_central(plan, [s.number for s in sources]))
        rehearsal.check_merged(plan, [s.number for s in sources])
    finally:
        if not keep_running:
            server.stop()
    for proof in proofs:
        check_proof(proof, run)


def hand_over(run: Run, reporter: Reporter) -> Path:
    """Write the handover pack of the run's merged sources; return the path of the readable file.

    :raises ConfigError: if no source was merged, or the run's server is gone.
    """
    sources = {s.number: s.name for s in _sources(run) if run.is_done(f"source.{s.number}.merge")}
    if not sources or not run.has("result"):
        raise ConfigError(
            text(
                pt=f"A execução {run.id} ainda não unificou nenhuma origem.",
                en=f"The run {run.id} has not merged any source yet.",
            ),
            next_step=f"invoke homolog --resume {run.id}",
        )
    server = open_server(run)
    try:
        rehearsal = _rehearsal(run, reporter, server, _asked(run))
        return handover.make_handover(run, rehearsal.connect, rehearsal.profile, sources, rehearsal.scope)
    finally:
        server.stop()


def destroy(run: Run) -> None:
    """Remove the server and all data of a run; what it found out stays, with a record of the destruction."""
    state = run.load("run").get("server")
    if state is not None:
        _choose(run, options_of(run), state["provider"], state["major"], state["inputs"])[0].destroy()
    shutil.rmtree(run.folder / "work", ignore_errors=True)
    run.events.add("run", "destroyed", server=state["provider"] if state else None)
    run.note(destroyed=True)


def _carry_out(run: Run, options: Options, reporter: Reporter) -> RunResult:
    server: Server | None = None
    problem: HomologationError | None = None
    try:
        asked = _preflight(run, options, reporter)
        server = _prepare_server(run, options, reporter)
        rehearsal = _rehearsal(run, reporter, server, asked)
        plan, found = rehearsal.prepare_central(_backup(run, "central"))
        run.note(versions={"central": rehearsal.version(plan.schema)})
        for source in _sources(run):
            rehearsal.merge(plan, found, source)
        numbers = [source.number for source in _sources(run)]
        if not run.is_done("central.proof"):
            check_proof(rehearsal.prove_central(plan, numbers), run)
        rehearsal.check_merged(plan, numbers)
    except HomologationError as ex:
        problem = ex
    except psycopg.Error as ex:
        problem = _lost(run, ex)
    finally:
        if server is not None and not options.keep_running:
            server.stop()
    run.note(finished=datetime.now(UTC).isoformat(timespec="seconds"))
    if problem is not None:
        run.events.add("run", "stopped", error=type(problem).__name__, what=problem.what)
    result = collect(run, [source.name for source in _sources(run)], problem)
    run.save("result", result.to_dict())
    run.write("report.html", report.render(result))
    if isinstance(problem, MergeError | ProofFailed):
        problem.evidence = str(events.support_bundle(run.folder))
    if isinstance(problem, BackupError | ConfigError) and not run.is_done("central.restore"):
        destroy(run)  # nothing worth keeping was restored
    run.unlock()
    if problem is not None:
        reporter.error(problem)
    return result


def _lost(run: Run, ex: psycopg.Error) -> MergeError:
    """The error for what PostgreSQL says where nobody expects it to; its own message might quote a row."""
    cause = " ".join(part for part in (type(ex).__name__, ex.sqlstate) if part)
    return MergeError(
        text(
            pt=f"O servidor da sandbox parou ou recusou um comando ({cause}).",
            en=f"The sandbox's server stopped or refused a command ({cause}).",
        ),
        next_step=text(
            pt=f"Nada se perdeu: continue com invoke homolog --resume {run.id}",
            en=f"Nothing is lost: go on with invoke homolog --resume {run.id}",
        ),
    )


def _prepare_server(run: Run, options: Options, reporter: Reporter) -> Server:
    """Inspect the backups, or make synthetic ones; then start the server that they need."""
    state = run.load("run").get("server")
    if state is not None:
        server = _choose(run, options, state["provider"], state["major"], state["inputs"])[0]
        if not server.data_is_sound():
            reporter.warn(
                text(
                    pt="A máquina foi reiniciada: os dados da sandbox não valem mais, tudo recomeça da restauração.",
                    en="The machine was restarted: the sandbox's data are void, all begins again from the restore.",
                )
            )
            server.destroy()
            run.forget(*([] if options.central else ["inputs"]))  # synthetic backups went with the server
    backups = {name: _backup(run, name) for name in run.load("inputs")} if run.has("inputs") else {}
    if options.central is not None and not backups:
        backups = _inspect(run, reporter, {"central": options.central, **dict(options.sources)})
    major = options.major or (backups["central"].dumped_major if backups else None)
    inputs = [str(b.readable) for b in backups.values()]
    server, reason = _choose(run, options, state["provider"] if state else options.server, major, inputs)
    for backup in backups.values():
        intake.check_server(backup, server.major)
    run.note(
        server={
            "provider": server.provider,
            "major": server.major,
            "version": server.version,
            "inputs": inputs,
        }
    )
    reporter.note(f"PostgreSQL {server.version} ({server.provider}): {reason}")
    with reporter.step(text(pt="Iniciar o PostgreSQL da sandbox", en="Start the sandbox's PostgreSQL")):
        server.start()
    if not backups:
        with reporter.step(text(pt="Criar backups sintéticos", en="Make synthetic backups")):
            paths = sample.make_samples(server, server.scratch / "samples", scale=options.scale)
        _inspect(run, reporter, {"central": paths[0], **{path.name.split(".")[0]: path for path in paths[1:]}})
    return server


def _inspect(run: Run, reporter: Reporter, paths: Mapping[str, Path]) -> dict[str, Backup]:
    with reporter.step(text(pt="Examinar os backups", en="Inspect the backups")):
        backups = {name: intake.inspect(path, work=run.folder / "work") for name, path in paths.items()}
    run.save("inputs", backups)
    return backups


def _backup(run: Run, name: str) -> Backup:
    kept = run.load("inputs")[name]
    for part in fields(intake.Backup):
        if "Path" in str(part.type):
            kept[part.name] = Path(kept[part.name])
        elif "tuple" in str(part.type):
            kept[part.name] = tuple(tuple(v) if isinstance(v, list) else v for v in kept[part.name])
    return intake.Backup(**kept)


def _sources(run: Run) -> list[Source]:
    names = [name for name in run.load("inputs") if name != "central"] if run.has("inputs") else []
    return [Source(number, name, _backup(run, name)) for number, name in enumerate(names, 1)]


def _choose(run: Run, options: Options, provider: str, major: int | None, inputs: Sequence[str]) -> tuple[Server, str]:
    return choose.choose(
        provider,
        major=major,
        folder=run.folder / "server",
        run_id=run.id,
        inputs=[Path(path) for path in inputs],
        binaries=options.binaries,
    )


def _rehearsal(run: Run, reporter: Reporter, server: Server, asked: Preflight) -> Rehearsal:
    options = options_of(run)
    known = profile.load(options.profile, options.overrides)
    return Rehearsal(run, reporter, server, known, options.parallel, asked, options.scope, options.keep)


def _preflight(run: Run, options: Options, reporter: Reporter) -> Preflight:
    """The preflight of a run, with all that only people can confirm: asked first, before hours are spent."""
    asked = _asked(run)
    asked.confirm(reporter, options.confirmations)
    return asked


def _asked(run: Run) -> Preflight:
    options = options_of(run)
    return Preflight(run, checks.load(options.profile), Decisions(options.final, options.accepted))
