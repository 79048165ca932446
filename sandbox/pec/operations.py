"""What a user does with the alternate PEC of a run: up, watch, smoke list, down."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, cast

from merge import profile as profiles
from merge.errors import ConfigError
from merge.language import text
from sandbox import homolog, intake, restore, words
from sandbox.options import PEC, PEC_MEMORY, options_of
from sandbox.pec import smoke, vendor, watching
from sandbox.pec.alternate import CENTRAL, FOLDER, PATIENCE, Alternate, Base
from sandbox.pec.compose import MEGABYTE, Settings
from sandbox.pec.guide import Marks
from sandbox.pec.listen import Listen
from sandbox.pec.stack_server import StackServer
from sandbox.rehearsal import DATABASE

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.console import Reporter
    from sandbox.pec.watching import Look
    from sandbox.runs import Run
    from sandbox.server import Server

LOOK = "look"
"""The database that people look at: a disposable copy of the candidate."""

_OWNER = "homolog_look"


@dataclass(frozen=True)
class Asked:
    """What the alternate PEC was asked; kept with the run.

    :param jar: PEC's installer.
    :param listen: where people reach it.
    :param memory: megabytes for PEC.
    :param patience: minutes that it may take to answer.
    :param migrate: PEC may bring the copy to its own version.
    """

    jar: Path
    listen: Listen
    memory: int = PEC_MEMORY
    patience: float = PATIENCE
    migrate: bool = False


def up(run: Run, asked: Asked, reporter: Reporter) -> Base:
    """Start the alternate PEC on a new disposable copy of the run's candidate, which stays as it was proved.

    :raises ConfigError: the run is not validated, or a PEC of it runs.
    """
    _demand_validated(run)
    alternate = _alternate(run, reporter, asked)
    if alternate.is_up():
        raise ConfigError(
            text(pt="O PEC desta execução já está no ar.", en="The PEC of this run is up already."),
            next_step=f"invoke pec.watch --run {run.id} | invoke pec.down --run {run.id}",
        )
    found = alternate.use(asked.jar)
    alternate.demand_version(found.version, ["central"], migrate=asked.migrate)
    try:
        with reporter.step(text(pt="Fechar a rede e iniciar o PostgreSQL", en="Close the network, start PostgreSQL")):
            alternate.server.start()
        alternate.check_isolation("empty")
        base = _copy(run, alternate, reporter)
        with reporter.step(text(pt="Neutralizar a cópia", en="Neutralise the copy")):
            alternate.neutralise(base)
        alternate.boot(base, patience=asked.patience)
        if not run.has(smoke.FILE):
            draw(run, alternate, base)
    except BaseException:
        alternate.server.stop()  # what is there can be looked at, until `pec.down` or the next `pec.up`
        raise
    return base


def down(run: Run, reporter: Reporter) -> None:
    """Stop and remove the alternate PEC with its copy; what was found out stays in the run's folder."""
    alternate = _alternate(run, reporter)
    if alternate.is_up():
        alternate.check_isolation("end")
    for pec in alternate.watched():
        pec.read(final=True)
    with reporter.step(text(pt="Encerrar o PEC", en="Take PEC down")):
        if _is_vendor(run):
            alternate.halt()
            if alternate.server.data_is_sound():
                alternate.server.start()
                alternate.server.drop_database(LOOK)
            alternate.server.stop()
        else:
            alternate.server.destroy()
        for path in alternate.folder.glob(f"*{LOOK}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        alternate.authority.unlink(missing_ok=True)
    alternate.note(bases=[])


def watch(run: Run, reporter: Reporter, *, minutes: float = 0.0, every: float = 15.0) -> None:
    """Watch the PECs of a run until they are taken down, the time is over, or one has an error.

    :param minutes: 0 for as long as they run.
    :param every: seconds between two looks.
    :raises MergeError: a PEC ended or logged an error; the evidence is kept.
    """
    alternate = _alternate(run, reporter)
    watched = alternate.watched()
    if not watched:
        raise ConfigError(
            text(pt="Nenhum PEC desta execução está no ar.", en="No PEC of this run is up."),
            next_step=f"invoke pec.up --run {run.id}",
        )
    looking = watching.Watch(alternate, watched)
    began = time.monotonic()
    while True:
        look = looking.look()
        for line in looking.lines(look):
            reporter.note(_time(look) + line)
        if look.problem and not alternate.is_up() and (run.is_busy or not alternate.kept("bases", [])):
            return  # taken down while we looked
        if look.problem and _is_vendor(run):  # whoever guides the unification sees it too, and acts
            raise watching.stopped(alternate, look.problem, alternate.folder)
        if look.problem:
            raise watching.troubled(alternate, look.problem, watching.freeze(alternate, look.problem))
        alternate.check_isolation("watch", keep=False)
        if minutes and time.monotonic() - began >= minutes * 60:
            return
        time.sleep(every)


def mark(run: Run, step: str) -> None:
    """Tell the process that guides a unification what was done, or seen.

    :raises ConfigError: no unification is under way, or it is no step.
    """
    logs = sorted((run.folder / FOLDER).glob("source-*-steps.jsonl"), key=lambda path: path.stat().st_mtime)
    if not logs or not run.is_busy:
        raise ConfigError(
            text(
                pt="Nenhuma unificação do PEC está em curso nesta execução.",
                en="No unification of PEC is under way in this run.",
            )
        )
    Marks(logs[-1]).add(step, by="person")


def put_back(run: Run, reporter: Reporter) -> None:
    """Put both bases of a unification that went wrong back to what they were before it.

    :raises ConfigError: none of this run went wrong.
    """
    failed = run.load("run").get(vendor.FAILED)
    if not failed:
        raise ConfigError(text(pt="Nada a voltar nesta execução.", en="There is nothing to put back in this run."))
    alternate = _alternate(run, reporter)
    server = alternate.server
    server.start()
    try:
        alternate.halt()
        with reporter.step(text(pt="Voltar as duas bases", en="Put both bases back")):
            vendor.put_back(server, failed["source"])
    finally:
        server.stop()


def draw(run: Run, alternate: Alternate, base: Base) -> None:
    """Draw whom professionals are to look at."""
    listed = [
        tuple(group["ids"])
        for path in sorted(run.folder.glob("source-*-duplicates.json"))
        for group in run.load(path.stem)["groups"]
    ]
    drawn = smoke.draw(alternate.connect_to(base), alternate.profile.smoke, seed=run.id, in_both=listed or None)
    smoke.keep(run, drawn)


def _demand_validated(run: Run) -> None:
    status = run.load("result")["status"] if run.has("result") else None
    if status != "validated" or run.load("run").get("destroyed"):
        raise ConfigError(
            text(
                pt=f"A execução {run.id} não tem um candidato provado.",
                en=f"The run {run.id} has no candidate that was proved.",
            ),
            next_step="invoke status",
        )


def _copy(run: Run, alternate: Alternate, reporter: Reporter) -> Base:
    """Make the disposable copy of the candidate."""
    server = alternate.server
    listen = server.stack.settings.listen
    link = f"https://{listen.address}:{server.stack.port(443)}"
    shutil.rmtree(alternate.folder / f"undo-{LOOK}", ignore_errors=True)
    with reporter.step(text(pt="Copiar o candidato", en="Copy the candidate")):
        server.drop_database(LOOK)
        if _is_vendor(run):
            _demand_room(server, server)
            server.copy_database(DATABASE, LOOK)
            return Base(CENTRAL, LOOK, LOOK, restore.CENTRAL, link)
        jobs = options_of(run).parallel
        origin = homolog.open_server(run)
        dump = origin.scratch / "look"
        try:
            _demand_room(origin, server)
            shutil.rmtree(dump, ignore_errors=True)
            origin.tool(
                "pg_dump", "-Fd", "-Z", "1", "-j", str(jobs), "-f", origin.path(dump), "--no-owner", "--no-privileges",
                "-N", "src_*", "-N", "homolog*", database=DATABASE,
            ).run()  # fmt: skip
            origin.stop()
            backup = intake.inspect(dump, work=alternate.folder / f"work-{LOOK}")
            restore.restore_central(server, backup, LOOK, owner=_OWNER, jobs=jobs, on_progress=reporter.progress)
        finally:
            origin.stop()
            shutil.rmtree(dump, ignore_errors=True)
    return Base(CENTRAL, LOOK, LOOK, _OWNER, link)


def _demand_room(origin: Server, server: Server) -> None:
    """Look whether a copy of the candidate has room.

    :raises ConfigError: it has not.
    """
    with origin.connect("postgres") as conn:
        ((size,),) = conn.execute("SELECT pg_database_size(%s)", [DATABASE]).fetchall()
    needed, free = size * 13 // 10, shutil.disk_usage(server.place).free  # with its dump, which is compressed
    if free < needed:
        raise ConfigError(
            text(
                pt=f"A cópia do candidato precisa de {words.size(needed)} livres em {server.place}, e há "
                f"{words.size(free)}.",
                en=f"The copy of the candidate needs {words.size(needed)} free at {server.place}; there are "
                f"{words.size(free)}.",
            ),
            next_step=text(pt="Libere espaço.", en="Make room."),
        )


def _alternate(run: Run, reporter: Reporter, asked: Asked | None = None) -> Alternate:
    """The PECs of a run; what they were asked is kept when they are made, and read again afterwards."""
    options = options_of(run)
    known = profiles.load(options.profile, options.overrides)
    kept = run.load("pec") if run.has("pec") else {}
    if asked is None and "asked" not in kept and not _is_vendor(run):
        raise ConfigError(
            text(pt="Esta execução não tem um PEC alternativo.", en="This run has no alternate PEC."),
            next_step=f"invoke pec.up --run {run.id}",
        )
    if _is_vendor(run):
        server = cast("StackServer", homolog.server_of(run))
    else:
        server = StackServer(Settings(run.id, run.folder), major=run.load("run")["server"]["major"])
    if asked is not None:
        kept["asked"] = asdict(asked)
    if said := kept.get("asked"):
        listen = said["listen"]
        server.stack.settings = replace(
            server.stack.settings,
            listen=Listen(listen["address"], listen["port"], tuple(listen["allow"])),
            pec_memory=said["memory"] * MEGABYTE,
            migrate=said["migrate"],
            pec=kept.get("installer", {}).get("image", ""),
        )
    alternate = Alternate(run, reporter, server, known)
    if asked is not None:
        alternate.note(asked=kept["asked"])
    return alternate


def _is_vendor(run: Run) -> bool:
    """Whether the run's own server is that of the PECs' room already."""
    return options_of(run).engine == PEC


def _time(look: Look) -> str:
    """The local time of day of a look."""
    return datetime.fromisoformat(look.at).astimezone().strftime("%H:%M:%S ")
