"""What a user does with runs: start, resume, check, prove, hand over, stop, destroy."""

from __future__ import annotations

import os
import traceback
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from merge import errors, profile
from merge.checks import CENTRAL
from merge.errors import (
    BackupError,
    BlockedError,
    ConfigError,
    HomologationError,
    Interrupted,
    MergeError,
    PreflightBlocked,
    ProofFailed,
    Unexpected,
    cause,
)
from merge.language import text
from sandbox import carry, choose, destruction, events, handover, inputs, intake, report, sample
from sandbox import preflight as answers
from sandbox.attachments import Attachments
from sandbox.collect import collect
from sandbox.options import PEC, Options, options_of
from sandbox.pec.compose import MEGABYTE, PART, Settings
from sandbox.pec.listen import Listen
from sandbox.pec.stack_server import StackServer
from sandbox.pec.vendor import VendorRehearsal, refuse_to_repeat
from sandbox.preflight import Decisions, Preflight
from sandbox.rehearsal import Rehearsal
from sandbox.result import RunResult
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sandbox.console import Reporter
    from sandbox.server import Server


def start(options: Options, reporter: Reporter) -> tuple[Run, RunResult]:
    """Make a run and carry it out."""
    run = _create(options, reporter)
    return run, _carry_out(run, options, reporter)


def resume(
    name: str, reporter: Reporter, *, accepted: Mapping[str, str] | None = None, confirmations: Path | None = None
) -> tuple[Run, RunResult]:
    """Go on with a run from the step that was interrupted, or blocked; of one that is validated, give the result.

    :param accepted: warnings that were accepted since, with their reasons.
    :param confirmations: file of what people confirmed since.
    :raises ConfigError: the run's data are gone, or another process has it.
    """
    run = Run.open(name)
    run.lock()
    if run.load("run").get("destroyed"):
        run.unlock()
        raise ConfigError(
            text(
                pt=f"Os dados da execução {run.id} foram apagados; só as evidências ficaram.",
                en=f"The data of the run {run.id} were destroyed; only the evidence is left.",
            ),
            evidence=run.folder,
            next_step=text(pt="Comece outra com invoke homolog.", en="Start another with invoke homolog."),
        )
    try:
        refuse_to_repeat(run)
    except ConfigError:
        run.unlock()
        raise
    if run.has("result") and (before := run.load("result"))["status"] == "validated":
        run.unlock()
        return run, RunResult.from_dict(before)
    run.events.add("run", "resumed")
    options = options_of(run)
    options = replace(
        options,
        accepted={**options.accepted, **(accepted or {})},
        confirmations=confirmations or options.confirmations,
    )
    answers.check_ids(answers.all_checks(options.profile), options.accepted)
    run.note(asked=asdict(options))
    return run, _carry_out(run, options, reporter)


def preflight(options: Options, reporter: Reporter) -> Run:
    """Restore and check all backups, show what was found, and merge nothing. `resume` goes on from there.

    :raises BlockedError: with everything that forbids the merge, of all sources.
    """
    run = _create(options, reporter)
    problems: list[BlockedError] = []

    def check() -> None:
        with _prepared(run, options, reporter) as rehearsal:
            plan, found = rehearsal.prepare_central(inputs.backups(run)[CENTRAL])
            for source in inputs.sources(run):
                try:
                    rehearsal.check(plan, found, source)
                except BlockedError as ex:
                    problems.append(ex)

    problem = _guarded(run, check)
    reporter.preflight(answers.load(run), str(run.folder))
    run.unlock()
    if problem is not None:
        raise problem
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


METHODS = ("exact", "content", "all")


def check_method(method: str) -> None:
    """Check the name of a method of proof.

    :raises ConfigError: there is no such method.
    """
    if method not in METHODS:
        raise ConfigError(
            text(pt=f"Não há o método de prova {method}.", en=f"There is no method of proof {method}."),
            details=[f"--method {known}" for known in METHODS],
        )


def prove(run: Run, reporter: Reporter, *, keep_running: bool = False, method: str = "exact") -> RunResult:
    """Repeat all proofs of a method on the sandbox as it is now, and write the result anew.

    :param method: one of `METHODS`.
    """
    found: list[ProofFailed] = []

    def check() -> None:
        with started(run, reporter, keep_running=keep_running) as rehearsal:
            found.extend(failed_proofs(rehearsal, method))

    problem = _guarded(run, check)
    if problem is not None and not isinstance(problem, MergeError | Unexpected):
        run.unlock()
        raise problem
    return _conclude(run, reporter, problem or _together(found, run) or _stopped_by(run))


def failed_proofs(rehearsal: Rehearsal, method: str) -> list[ProofFailed]:
    """Repeat all proofs of a method (one of `METHODS`), and return what those say that do not hold."""
    run = rehearsal.run
    found: list[ProofFailed] = []

    def attempt(proof: Callable[[], None]) -> None:
        try:
            proof()
        except ProofFailed as ex:
            found.append(ex)

    plan, _ = rehearsal.plan()
    sources = [s for s in inputs.sources(run) if run.is_done(f"source.{s.number}.merge")]
    numbers = [s.number for s in sources]
    if method != "content":
        for source in sources:
            attempt(lambda source=source: rehearsal.prove_source(plan, source))  # type: ignore[misc]
        attempt(lambda: rehearsal.prove_central(plan, numbers))
        attempt(lambda: rehearsal.carriage.prove(plan, numbers))
        attempt(lambda: rehearsal.check_merged(plan, numbers))
    if method != "exact":
        attempt(lambda: rehearsal.prove_content(plan, numbers))
    return found


@contextmanager
def started(run: Run, reporter: Reporter, *, keep_running: bool = False) -> Iterator[Rehearsal]:
    """The rehearsal of a run that was carried out, on its server, which runs for as long as the context lasts.

    :raises ConfigError: see `open_server`.
    """
    server = open_server(run)
    with _stopped(run, server, reporter, keep_running=keep_running):
        yield _rehearsal(run, reporter, server)


def write_result(run: Run, problem: HomologationError | None) -> RunResult:
    """Collect what came of a run, and write it for programs and for people."""
    result = collect(run, [source.name for source in inputs.sources(run)], problem)
    run.save("result", result.to_dict())
    run.write("report.html", report.render(result))
    return result


def _together(found: Sequence[ProofFailed], run: Run) -> ProofFailed | None:
    if len(found) < 2:
        return found[0] if found else None
    return ProofFailed(
        text(pt=f"{len(found)} provas falharam.", en=f"{len(found)} proofs failed."),
        evidence=run.folder,
        details=[line for ex in found for line in (ex.what, *ex.details)],
        next_step=found[0].next_step,
    )


def _stopped_by(run: Run) -> HomologationError | None:
    """What stopped the run before, if it was not a proof: a proof that holds now does not carry it further."""
    before = run.load("result").get("problem") if run.has("result") else None
    if before is None or before["kind"] == ProofFailed.__name__:
        return None
    kind: type[HomologationError] = getattr(errors, before["kind"], HomologationError)
    return kind(
        before["what"], evidence=before["evidence"], next_step=before["next_step"], details=tuple(before["details"])
    )


def hand_over(run: Run, reporter: Reporter) -> Path:
    """Write the handover pack of the run's merged sources; return the path of the readable file.

    :raises ConfigError: if no source was merged, or the run's server is gone.
    """
    sources = {s.number: s.name for s in inputs.sources(run) if run.is_done(f"source.{s.number}.merge")}
    if not sources or not run.has("result"):
        raise ConfigError(
            text(
                pt=f"A execução {run.id} ainda não unificou nenhuma origem.",
                en=f"The run {run.id} has not merged any source yet.",
            ),
            next_step=f"invoke homolog --resume {run.id}",
        )
    with started(run, reporter) as rehearsal:
        return handover.make_handover(run, rehearsal.connect, rehearsal.profile, sources, rehearsal.scope)


def open_server(run: Run) -> Server:
    """Take up the server of a run and start it.

    :raises ConfigError: if the run has none, or its data are void.
    """
    server = server_of(run)
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


def usable_server(run: Run) -> Server:
    """The server of a run, started, for who does not need what is in it: made anew if that is void.

    :raises ConfigError: if the run has none.
    """
    server = server_of(run)
    if not server.data_is_sound():
        server.destroy()
        _folder(run, options_of(run)).mkdir(mode=0o700, exist_ok=True)
        server = server_of(run)
    server.start()
    return server


def stop(run: Run) -> None:
    """Stop the server of a run, if it runs; nothing of its data changes.

    :raises ConfigError: if the run has none, or a process is at work with it.
    """
    run.lock()
    server_of(run).stop()
    run.unlock()


def destroy(run: Run) -> Path:
    """Remove the server and all data of a run; what it found out stays, with the record of what was removed.

    :return: the path of the record.
    :raises PromotionRefused: the run is in production, and nobody has accepted that.
    """
    destruction.demand_allowed(run)
    state = run.load("run").get("server")
    server = None
    if state is not None:
        server = _choose(run, options_of(run), state["provider"], state["major"], state["inputs"])[0]
    return destruction.destroy(run, server)


# How a run is carried out


def _create(options: Options, reporter: Reporter) -> Run:
    run = Run.create(**asdict(options))
    run.attest("created")
    reporter.note(text(pt=f"Execução {run.id} em {run.folder}", en=f"Run {run.id} in {run.folder}"))
    return run


def _carry_out(run: Run, options: Options, reporter: Reporter) -> RunResult:
    def work() -> None:
        with _prepared(run, options, reporter) as rehearsal:
            plan, found = rehearsal.prepare_central(inputs.backups(run)[CENTRAL])
            sources = inputs.sources(run)
            for source in sources:
                rehearsal.merge(plan, found, source)
            numbers = [source.number for source in sources]
            if not run.is_done("central.proof"):
                rehearsal.prove_central(plan, numbers)
            if not run.is_done("attachments.proof"):
                rehearsal.carriage.prove(plan, numbers)
            rehearsal.check_merged(plan, numbers)

    return _conclude(run, reporter, _guarded(run, work))


def _guarded(run: Run, work: Callable[[], None]) -> HomologationError | None:
    """Do the work of a run, and return what ended it, if something did.

    :raises Interrupted: with how to go on.
    """
    try:
        work()
    except HomologationError as ex:
        return ex
    except psycopg.Error as ex:
        return _lost(run, ex)
    except KeyboardInterrupt:
        run.events.add("run", "interrupted")
        run.unlock()
        raise Interrupted(
            text(pt="Interrompido.", en="Interrupted."), next_step=f"invoke homolog --resume {run.id}"
        ) from None
    except Exception as ex:
        if os.environ.get("HOMOLOG_DEBUG"):
            raise
        return _unexpected(run, ex)
    return None


def _conclude(run: Run, reporter: Reporter, problem: HomologationError | None) -> RunResult:
    """Write what came of a run, and tell what ended it."""
    run.note(finished=datetime.now(UTC).isoformat(timespec="seconds"))
    if problem is not None:
        run.events.add("run", "stopped", error=type(problem).__name__, what=problem.what)
    if isinstance(problem, MergeError | ProofFailed | Unexpected):
        problem.evidence = str(run.folder / events.BUNDLE)
    result = write_result(run, problem)
    if problem is not None and problem.evidence == str(run.folder / events.BUNDLE):
        events.support_bundle(run.folder, logs=_logs(run))
    merged = any(step.endswith(".merge") for step in run.done())
    if (isinstance(problem, BackupError) and not merged) or (
        isinstance(problem, ConfigError) and not run.is_done("central.restore")
    ):
        destroy(run)  # what is there can be had again, from backups that can be used
    run.attest("ended", status=result.status)
    run.unlock()
    if problem is not None:
        reporter.error(problem)
    return result


def _logs(run: Run) -> list[Path]:
    """What the run's server logged, if there is one that can be asked."""
    try:
        return server_of(run).logs()
    except ConfigError:
        return []


def _lost(run: Run, ex: psycopg.Error) -> MergeError:
    """The error for what PostgreSQL says where nobody expects it to; its own message might quote a row."""
    said = cause(ex)
    return MergeError(
        text(
            pt=f"O servidor da sandbox parou ou recusou um comando ({said}).",
            en=f"The sandbox's server stopped or refused a command ({said}).",
        ),
        next_step=text(
            pt=f"Nada se perdeu: continue com invoke homolog --resume {run.id}",
            en=f"Nothing is lost: go on with invoke homolog --resume {run.id}",
        ),
    )


def _unexpected(run: Run, ex: Exception) -> Unexpected:
    """The error for what nobody foresaw: where it was, without its message, which might quote a row."""
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(ex.__traceback__)]
    run.events.add("run", "unexpected", error=type(ex).__name__, frames=frames)
    return Unexpected(
        text(
            pt=f"Erro inesperado: {type(ex).__name__} em {frames[-1]}.",
            en=f"Unexpected error: {type(ex).__name__} in {frames[-1]}.",
        ),
        next_step=text(
            pt="Envie o pacote de suporte. HOMOLOG_DEBUG=1 mostra tudo, também dados: só para quem os pode ver.",
            en="Send the support bundle. HOMOLOG_DEBUG=1 shows all, data too: only for who may see them.",
        ),
    )


# Its server


@contextmanager
def _prepared(run: Run, options: Options, reporter: Reporter) -> Iterator[Rehearsal]:
    """The rehearsal of a run, on a server that runs for as long as the context lasts; its inputs are checked."""
    asked = _preflight(run, options)
    asked.confirm(reporter, options.confirmations)
    state = run.load("run").get("server")
    store = Attachments(run.folder / carry.FOLDER)
    if state is not None:
        _forget_if_void(run, options, reporter, store)
    found = inputs.backups(run) if run.is_done("intake") else {}
    if options.central is not None and not found:
        found = inputs.inspect(run, {CENTRAL: options.central, **dict(options.sources)}, reporter)
    major = options.major or (found[CENTRAL].dumped_major if found else None)
    paths = [str(backup.readable) for backup in found.values()]
    asked_for = state["provider"] if state else options.server
    server, reason = _choose(run, options, asked_for, major, paths, exact=options.major is not None)
    for backup in found.values():
        intake.check_server(backup, server.major)
    kept = {"provider": server.provider, "major": server.major, "version": server.version, "inputs": paths}
    run.note(server=kept)
    reporter.note(f"PostgreSQL {server.version} ({server.provider}): {reason}")
    with _stopped(run, server, reporter, keep_running=options.keep_running):
        run.events.add("server", "starting", **kept)
        with reporter.step(text(pt="Iniciar o PostgreSQL da sandbox", en="Start the sandbox's PostgreSQL")):
            server.start()
        directories = options.attachments
        if not found:
            folder = server.scratch / "samples"
            with reporter.step(text(pt="Criar backups sintéticos", en="Make synthetic backups")), run.step("sample"):
                made = sample.make_samples(server, folder, scale=options.scale, attachments=options.engine != PEC)
            names = [CENTRAL, *(path.stem for path in made[1:])]
            inputs.inspect(run, dict(zip(names, made, strict=True)), reporter)
            if options.engine != PEC:
                run.note(samples=[[n, str(sample.attachments_of(p))] for n, p in zip(names, made, strict=True)])
        if samples := run.load("run").get("samples"):
            directories = tuple((name, Path(path)) for name, path in samples)
        inputs.take_attachments(run, directories, store, options.parallel, reporter)
        rehearsal = _rehearsal(run, reporter, server, asked)
        if not run.is_done("central.restore"):  # from then on it takes the room that was there
            every = range(len(inputs.backups(run)))
            delivered = sum(known.size for n in every if (known := store.inventory(n)) is not None)
            copies = 2 if options.engine == PEC else 1  # both bases are kept as they were while PEC unifies
            inputs.check(run, server, rehearsal.profile.application.essential, asked, reporter, delivered, copies)
        yield rehearsal


def _forget_if_void(run: Run, options: Options, reporter: Reporter, store: Attachments) -> None:
    """Begin anew where the machine was restarted under the server."""
    state = run.load("run")["server"]
    server = _choose(run, options, state["provider"], state["major"], state["inputs"])[0]
    if server.data_is_sound():
        return
    reporter.warn(
        text(
            pt="A máquina foi reiniciada: os dados da sandbox não valem mais, tudo recomeça da restauração.",
            en="The machine was restarted: the sandbox's data are void, all begins again from the restore.",
        )
    )
    server.destroy()
    store.clear()
    run.forget(*([] if options.central else ["inputs"]))  # synthetic backups went with the server


@contextmanager
def _stopped(run: Run, server: Server, reporter: Reporter, *, keep_running: bool = False) -> Iterator[None]:
    """Stop the server at the end, however it comes, unless it is to go on."""
    try:
        yield
    finally:
        if not keep_running:
            run.events.add("server", "stopping")
            with reporter.step(text(pt="Parar o PostgreSQL da sandbox", en="Stop the sandbox's PostgreSQL")):
                server.stop()
            run.events.add("server", "stopped")


def server_of(run: Run) -> Server:
    """The server of a run, as it is.

    :raises ConfigError: if the run has none.
    """
    options, state = options_of(run), run.load("run").get("server")
    if state is None or not _folder(run, options).exists():
        raise ConfigError(
            text(pt=f"A execução {run.id} não tem servidor.", en=f"The run {run.id} has no server."),
            next_step=text(pt="Comece outra com invoke homolog.", en="Start another with invoke homolog."),
        )
    return _choose(run, options, state["provider"], state["major"], state["inputs"])[0]


def _folder(run: Run, options: Options) -> Path:
    """The folder of its server."""
    return run.folder / (PART if options.engine == PEC else "server")


def _choose(
    run: Run, options: Options, provider: str, major: int | None, paths: Sequence[str], *, exact: bool = False
) -> tuple[Server, str]:
    if options.engine == PEC:
        listen = Listen(port=options.pec_port or None)
        settings = Settings(run.id, run.folder, pec_memory=options.pec_memory * MEGABYTE, listen=listen)
        server = StackServer(settings, major=major or choose.MAJOR, inputs=[Path(path) for path in paths])
        return server, text(pt="o da rede fechada dos PECs", en="that of the PECs' closed network")
    return choose.choose(
        provider,
        major=major,
        exact=exact,
        folder=_folder(run, options),
        run_id=run.id,
        inputs=[Path(path) for path in paths],
        binaries=options.binaries,
    )


def _rehearsal(run: Run, reporter: Reporter, server: Server, asked: Preflight | None = None) -> Rehearsal:
    options = options_of(run)
    known = profile.load(options.profile, options.overrides)
    asked = asked or _preflight(run, options)
    given = (run, reporter, server, known, options.parallel, asked, options.scope, options.keep)
    return VendorRehearsal(*given, options.pec_jar) if options.engine == PEC else Rehearsal(*given)


def _preflight(run: Run, options: Options) -> Preflight:
    return Preflight(run, answers.all_checks(options.profile), Decisions(options.final, options.accepted))
