"""The tasks a user invokes: `invoke --list`. They parse, call, print and set the exit code; nothing else."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Context, Exit, task

from merge.errors import ConfigError, HomologationError
from merge.language import text
from merge.profile import load as load_profile
from sandbox import console, destruction, homolog, image_file, intake_show, order, profiling, runs
from sandbox import leftovers as leftover
from sandbox.embedded import EmbeddedServer
from sandbox.options import PEC_MEMORY, Options, accepted_of, options_of
from sandbox.pec import tasks as pec_tasks
from sandbox.pec.listen import PORT
from sandbox.promotion import after_tasks, signing_tasks
from sandbox.promotion import tasks as promotion_tasks
from sandbox.rehearsal import DATABASE, PROOF
from sandbox.result import RunResult
from sandbox.result import junit as junit_xml
from sandbox.runs import Run
from sandbox.sample import make_samples
from sandbox.tasking import RUN_HELP, exit_codes

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKUPS_HELP = {
    "central": "backup of the central installation; without it, synthetic backups are made and rehearsed on",
    "source": "[NAME=]FILE, the backup of a decentralised installation; once for each, in merge order",
    "attachments": "NAME=FOLDER, what the base of that name (or central) keeps outside of its database; once for each",
    "server": "auto, embedded or docker",
    "major": "PostgreSQL major version of the sandbox; that of the central's backup by default",
    "binaries": "directory with PostgreSQL's own programs, instead of those that come along",
    "profile": "what is known about the application's schema: pec, or a TOML file of your own",
    "override": "TOML file that settles what the profile does not know; may be given more than once",
    "jobs": "parallel connections; the number of cores by default",
    "scale": "size of the synthetic backups; 1 is a demo of seconds",
    "scope": "all: everything of meaning comes; vendor: only what PEC's own unification sends",
    "keep-passwords": "users of the sources need not change their passwords at first login",
    "final": "the result is to go to production: units have stopped, people confirm, and what warned may block",
    "accept": "id of a warning that is accepted; once for each, followed by its --reason",
    "reason": "why it is accepted, in words; in the order of --accept",
    "confirmations": "TOML file with what people confirm, instead of being asked",
    "engine": "sql: this project merges; pec: the vendor's own unification, which a person does, guided and watched",
    "pec-jar": "installer of PEC (eSUS-AB-PEC-…-Linux64.jar), for the engine pec",
    "pec-memory": "megabytes for each PEC",
    "pec-port": "HTTPS port of this machine at which both PECs are reached; 0 for any",
}


@task(
    name="homolog",
    iterable=["source", "attachments", "override", "accept", "reason"],
    help={
        **_BACKUPS_HELP,
        "resume": "go on with this interrupted run",
        "json": "print the result as JSON, and nothing else, on standard output",
        "junit": "write the checks as JUnit XML to this file",
        "keep-running": "leave the sandbox's server running at the end",
    },
)
@exit_codes
def rehearse(
    c: Context,
    central: str = "",
    source: list[str] | None = None,
    attachments: list[str] | None = None,
    server: str = "auto",
    major: int = 0,
    binaries: str = "",
    profile: str = "pec",
    override: list[str] | None = None,
    resume: str = "",
    jobs: int = 0,
    scale: float = 1.0,
    scope: str = "all",
    keep_passwords: bool = False,
    final: bool = False,
    accept: list[str] | None = None,
    reason: list[str] | None = None,
    confirmations: str = "",
    engine: str = "sql",
    pec_jar: str = "",
    pec_memory: int = PEC_MEMORY,
    pec_port: int = PORT,
    json: bool = False,
    junit: str = "",
    keep_running: bool = False,
) -> None:
    """Rehearse the unification: restore, check, merge, prove, report. Without arguments, on synthetic backups."""
    flags = _shared(locals())
    reporter = console.Reporter(as_json=json)

    def carry_out() -> tuple[Run, RunResult]:
        if resume:
            accepted = accepted_of(accept or [], reason or [])
            return homolog.resume(resume, reporter, accepted=accepted, confirmations=_file(confirmations))
        return homolog.start(_options(**flags, keep_running=keep_running), reporter)

    _tell(carry_out, reporter, junit)


def _tell(work: Callable[[], tuple[Run, RunResult]], reporter: console.Reporter, junit: str) -> None:
    """Show what came of a run, for people and for programs, and leave with its exit code."""
    if junit and not Path(junit).resolve().parent.is_dir():
        raise ConfigError(text(pt=f"Não há a pasta de {junit}.", en=f"There is no folder for {junit}."))
    try:
        run, result = work()
    except HomologationError as ex:  # before there was a run
        result = RunResult.refused(ex)
        if reporter.as_json:
            reporter.print_json(result.to_dict())
        if junit:
            Path(junit).write_bytes(junit_xml(result))
        raise
    reporter.summary(result, str(run.folder / "report.html"), str(run.folder))
    if junit:
        Path(junit).write_bytes(junit_xml(result))
    if result.exit_code:
        raise Exit(code=result.exit_code)


@task(
    iterable=["source", "attachments", "override", "accept", "reason"],
    help={**_BACKUPS_HELP, "json": "print all answers as JSON"},
)
@exit_codes
def preflight(
    c: Context,
    central: str = "",
    source: list[str] | None = None,
    attachments: list[str] | None = None,
    server: str = "auto",
    major: int = 0,
    binaries: str = "",
    profile: str = "pec",
    override: list[str] | None = None,
    jobs: int = 0,
    scale: float = 1.0,
    scope: str = "all",
    keep_passwords: bool = False,
    final: bool = False,
    accept: list[str] | None = None,
    reason: list[str] | None = None,
    confirmations: str = "",
    engine: str = "sql",
    pec_jar: str = "",
    pec_memory: int = PEC_MEMORY,
    pec_port: int = PORT,
    json: bool = False,
) -> None:
    """Restore the backups and check them, and merge nothing; `invoke homolog --resume RUN` goes on from there."""
    homolog.preflight(_options(**_shared(locals())), console.Reporter(as_json=json))


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    """The flags of a task that `homolog` and `preflight` have in common."""
    return {name: values[name] for name in (flag.replace("-", "_") for flag in _BACKUPS_HELP)}


def _options(
    *, source: list[str] | None, major: int, binaries: str, profile: str, override: list[str] | None,
    confirmations: str, pec_jar: str, **others: Any,
) -> Options:  # fmt: skip
    lists = {name: others.pop(name) or [] for name in ("attachments", "accept", "reason")}
    return Options.parse(
        sources=source or [],
        major=major or None,
        binaries=_file(binaries),
        profile=_profile_name(profile),
        overrides=_paths(override),
        confirmations=_file(confirmations),
        pec_jar=_file(pec_jar),
        **lists,
        **others,
    )


def _file(name: str) -> Path | None:
    return Path(name).resolve() if name else None


@task(
    iterable=["also"],
    help={
        "backups": "a backup, or a folder of backups",
        "also": "another one; once for each",
        "json": "print as JSON",
    },
)
@exit_codes
def intake(c: Context, backups: str, also: list[str] | None = None, json: bool = False) -> None:
    """Inspect backups, and propose which base receives the others, and in which order they come."""
    reporter = console.Reporter(as_json=json)
    with runs.private_folder() as work:
        with reporter.step(text(pt="Examinar os backups", en="Inspect the backups")):
            found = order.examine(order.find([Path(p) for p in (backups, *(also or []))]), work, reporter.progress)
        intake_show.show(reporter, order.propose(found))


@task(help={"folder": "where to write the backups", "scale": "size; 1 is a demo of seconds", "sources": "how many",
            "seed": "the same seed gives the same rows", "major": "PostgreSQL major version, 16 or 18"})  # fmt: skip
@exit_codes
def sample(
    c: Context, folder: str = "samples", scale: float = 1.0, sources: int = 2, seed: int = 1, major: int = 16
) -> None:
    """Make synthetic backups of a central and its sources: no real person is in them."""
    reporter = console.Reporter()
    with tempfile.TemporaryDirectory() as scratch:
        server = EmbeddedServer(Path(scratch) / "server", major=major, exact=True)
        try:
            server.start()
            with reporter.step(text(pt="Criar backups sintéticos", en="Make synthetic backups")):
                made = make_samples(server, Path(folder).resolve(), scale=scale, seed=seed, sources=sources)
        finally:
            server.destroy()
    for path in made:
        reporter.note(str(path))


def _profile_name(name: str) -> str:
    return str(Path(name).resolve()) if name.endswith(".toml") else name


def _paths(names: list[str] | None) -> tuple[Path, ...]:
    return tuple(Path(name).resolve() for name in names or ())


@task(
    name="profile",
    iterable=["override"],
    help={
        **RUN_HELP,
        "backup": "look at this backup instead of a run",
        "profile": "pec, or a TOML file of your own; that of the run by default",
        "override": "TOML file that settles what the profile does not know; may be given more than once",
        "json": "print as JSON, and nothing else, on standard output",
        "unclassified": "show only what the profile says nothing of",
    },
)
@exit_codes
def show_profile(
    c: Context,
    run: str = "",
    backup: str = "",
    profile: str = "",
    override: list[str] | None = None,
    json: bool = False,
    unclassified: bool = False,
) -> None:
    """Show each table of a run or a backup with its role, rule and rows, and what is unclassified."""
    reporter = console.Reporter(as_json=json)
    if backup:
        known = load_profile(_profile_name(profile or "pec"), _paths(override))
        found = profiling.of_backup(Path(backup).resolve(), known, reporter, os.cpu_count() or 1)
    else:
        opened = Run.open(run)
        asked = options_of(opened)
        known = load_profile(_profile_name(profile or asked.profile), (*asked.overrides, *_paths(override)))
        found = profiling.of_run(opened, known, again=bool(profile or override))
    reporter.profiled(profiling.unclassified(found) if unclassified else found)


@task(help={**RUN_HELP, "json": "print as JSON"})
@exit_codes
def status(c: Context, run: str = "", json: bool = False) -> None:
    """Show all runs, or what one has done."""
    reporter = console.Reporter(as_json=json)
    reporter.status([Run.open(run)] if run else Run.all())
    if not run and (left := leftover.find(known.id for known in Run.all())):
        many = len(left)
        reporter.warn(
            text(
                pt=f"Há {many} restos de execuções cujas pastas sumiram: invoke leftovers",
                en=f"There are {many} leftovers of runs whose folders are gone: invoke leftovers",
            )
        )


@task(
    help={
        **RUN_HELP,
        "json": "print the result as JSON, and nothing else, on standard output",
        "junit": "write the checks as JUnit XML to this file",
        "keep-running": "leave the sandbox's server running at the end",
        "method": "exact: by the keys that the merge mapped; content: by what rows hold, without that map; or all",
    }
)
@exit_codes
def prove(
    c: Context, run: str = "", json: bool = False, junit: str = "", keep_running: bool = False, method: str = "exact"
) -> None:
    """Repeat the proof on the sandbox as it is now."""
    reporter = console.Reporter(as_json=json)

    def again() -> tuple[Run, RunResult]:
        homolog.check_method(method)
        found = Run.open(run)
        found.lock()
        return found, homolog.prove(found, reporter, keep_running=keep_running, method=method)

    _tell(again, reporter, junit)


@task(help=RUN_HELP)
@exit_codes
def handover(c: Context, run: str = "") -> None:
    """Write what each source's people must make again in the central, or know; print where it is."""
    found = Run.open(run)
    found.lock()
    print(homolog.hand_over(found, console.Reporter(as_json=True)))  # noqa: T201 (the path, and nothing else)


@task(help=RUN_HELP)
@exit_codes
def dsn(c: Context, run: str = "") -> None:
    """Print how to reach the merged database; starts its server, which runs until `invoke stop` or `destroy`."""
    print(homolog.open_server(Run.open(run)).conninfo(DATABASE, PROOF))  # noqa: T201


@task(help=RUN_HELP)
@exit_codes
def stop(c: Context, run: str = "") -> None:
    """Stop the sandbox's server of a run; its data stay."""
    homolog.stop(Run.open(run))


@task(help={"run": "run id, or part of it", "yes": "do not ask"})
@exit_codes
def destroy(c: Context, run: str, yes: bool = False) -> None:
    """Remove the server and all data of a run; what it found out stays."""
    reporter = console.Reporter()
    found = Run.open(run)
    found.lock()
    destruction.demand_allowed(found)
    if _agreed(reporter, text(pt=f"Apagar os dados de {found.id}?", en=f"Remove the data of {found.id}?"), yes):
        record = homolog.destroy(found)
        reporter.note(
            text(
                pt=f"Os dados de {found.id} foram apagados; as evidências ficam, com o registro {record}.",
                en=f"The data of {found.id} were removed; the evidence stays, with the record {record}.",
            )
        )


@task(help={"yes": "do not ask"})
@exit_codes
def leftovers(c: Context, yes: bool = False) -> None:
    """Remove servers and data of runs whose folders are gone."""
    reporter = console.Reporter()
    left = leftover.find(known.id for known in Run.all())
    for one in left:
        reporter.note(f"{one.kind} {one.name} ({one.folder})")
    if left and _agreed(reporter, text(pt=f"Apagar {len(left)} restos?", en=f"Remove {len(left)} leftovers?"), yes):
        leftover.remove(left)


def _agreed(reporter: console.Reporter, question: str, yes: bool) -> bool:
    """True if the user agrees; where there is nobody to ask, only ``--yes`` does."""
    if yes or reporter.agrees(question):
        return True
    raise Exit(text(pt="Nada foi apagado (--yes não pergunta).", en="Nothing was removed (--yes does not ask)."), 1)


@task(
    iterable=["major"],
    help={
        "save": "write them into this file, compressed if it ends in .gz; those that are missing are made first",
        "load": "load them from this file",
        "major": "a PostgreSQL major version; once for each, by default those that are here",
        "pec-jar": "installer of PEC, whose image is wanted too",
        "json": "print as JSON",
    },
)
@exit_codes
def images(
    c: Context, save: str = "", load: str = "", major: list[str] | None = None, pec_jar: str = "", json: bool = False
) -> None:
    """Show the images that runs need; carry them, in a file, to a server without internet."""
    reporter = console.Reporter(as_json=json)
    image_file.carry(reporter, save=_file(save), load=_file(load), asked=major or [], jar=_file(pec_jar))


@task(help={"arguments": "more arguments for pytest"})
def test(c: Context, arguments: str = "") -> None:
    """Run the tests; those of Docker where a daemon answers."""
    c.run(f"{sys.executable} -m pytest -n 2 {arguments}", pty=sys.stdout.isatty())


@task(help={"scale": "size of the synthetic backups; 22 has 5 million source rows", "jobs": "parallel connections"})
def bench(c: Context, scale: float = 22.0, jobs: int = 2) -> None:
    """Measure the speed budget: ratios in one run. Needs what `pip install -e '.[bench]'` installs."""
    if importlib.util.find_spec("reladiff") is None:
        raise Exit("pip install -e '.[bench]'", code=2)
    c.run(f"{sys.executable} -m tests.bench.bench {scale} {jobs}", pty=sys.stdout.isatty())


@task
def lint(c: Context) -> None:
    """Check style and types."""
    c.run(f"{sys.executable} -m ruff check .")
    c.run(f"{sys.executable} -m mypy")


ns = Collection(
    rehearse,
    preflight,
    intake,
    show_profile,
    sample,
    status,
    prove,
    handover,
    dsn,
    stop,
    destroy,
    leftovers,
    Collection.from_module(pec_tasks, name="pec"),
    promotion_tasks.snapshot,
    signing_tasks.keys,
    signing_tasks.sign,
    signing_tasks.verify,
    promotion_tasks.promote,
    promotion_tasks.rollback,
    promotion_tasks.promotions,
    promotion_tasks.discard,
    after_tasks.after,
    after_tasks.accept,
    signing_tasks.seal,
    images,
    test,
    bench,
    lint,
)
