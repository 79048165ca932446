"""The destruction of a run's data, and its record: what was removed, when and by whom, and what evidence stays.

The record, ``destruction.json``, is written before anything is removed and again at the end, so that one that was
interrupted says so, and goes on with the same list. A run whose result is in production is not destroyed before people
have accepted it: until then its copies are the way to look again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from merge.errors import ConfigError, HomologationError, PromotionRefused
from merge.language import text
from sandbox import carry, embedded, images, labelled
from sandbox.attachments import Attachments
from sandbox.events import account, now, operator
from sandbox.pec import alternate
from sandbox.pec.compose import PART
from sandbox.promotion import after
from sandbox.rehearsal import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.runs import Run
    from sandbox.server import Server

FILE = "destruction"
"""The file of the run's folder, without its ending."""

DATA = ("server", PART, alternate.FOLDER, "work", carry.FOLDER, "candidate", "safety", "promotion", "rollback")
"""Folders of a run's folder that may hold data of patients; everything else there is evidence."""

_NO_EVIDENCE = {"lock", f"{FILE}.json"}
_CONNECT_SECONDS = 3


@dataclass(frozen=True)
class Thing:
    """Something that holds data of the run.

    :param kind: ``container``, ``network``, ``volume``, ``folder`` or ``database``.
    :param name: as Docker or the server calls it; of a folder below the run's, its path there.
    :param size: bytes; None if that is not known.
    """

    kind: str
    name: str
    size: int | None = None


@dataclass(frozen=True)
class Evidence:
    """A file that stays. What is only ever added to (``events.jsonl``) begins with these bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Destruction:
    """The record.

    :param by: the operator as ``HOMOLOG_OPERATOR`` says, else the same as `user`: who was logged in, and where.
    :param attempts: how many times it was begun; `ended` is None as long as it was not finished.
    :param left: what could not be removed.
    :param elsewhere: databases of this run on the production server, which this does not reach.
    """

    run_id: str
    by: str
    user: str
    began: str
    attempts: int
    removed: tuple[Thing, ...]
    elsewhere: tuple[str, ...] = ()
    ended: str | None = None
    left: tuple[Thing, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def demand_allowed(run: Run) -> None:
    """Forbid to destroy a run whose promotion nobody has accepted.

    :raises PromotionRefused: it is in production, and not accepted.
    """
    promotion = _promotion(run)
    unfinished = promotion.get("state") == "preparing" and promotion.get("candidate_oid") is not None
    if unfinished:
        raise PromotionRefused(
            text(
                pt=f"Uma promoção da execução {run.id} foi interrompida; nada foi apagado.",
                en=f"A promotion of the run {run.id} was interrupted; nothing was removed.",
            ),
            evidence=run.folder / f"{after.PROMOTION}.json",
            next_step=f"invoke promote --run {run.id} --production … | invoke rollback --run {run.id} --production …",
        )
    if promotion.get("state") != "promoted" or after.accepted(run) is not None:
        return
    raise PromotionRefused(
        text(
            pt=f"A execução {run.id} está em produção e a promoção ainda não foi aceita; nada foi apagado.",
            en=f"The run {run.id} is in production and its promotion is not accepted yet; nothing was removed.",
        ),
        evidence=run.folder / f"{after.PROMOTION}.json",
        details=[f"{one.name}: {one.item.title}" for one in after.open_items(run)],
        next_step=f"invoke after --run {run.id} | invoke accept --run {run.id} --by … | invoke rollback --run {run.id}",
    )


def destroy(run: Run, server: Server | None) -> Path:
    """Remove the server and all data of a run, and return the path of the record.

    :param server: the run's, None if it has none.
    :raises PromotionRefused: its promotion is not accepted; nothing was removed.
    :raises ConfigError: not everything could be removed; it can be called again.
    """
    demand_allowed(run)
    record = _begin(run, server)
    if server is not None:
        server.destroy()
    alternate.remove(run)
    Attachments(run.folder / carry.FOLDER).clear()
    for name in DATA:
        shutil.rmtree(run.folder / name, ignore_errors=True)
    left = tuple(_what_is_left(run, record))
    if left:
        run.save(FILE, replace(record, left=left))
        raise ConfigError(
            text(pt="Nem tudo pôde ser apagado.", en="Not everything could be removed."),
            evidence=run.folder / f"{FILE}.json",
            details=[f"{thing.kind} {thing.name}" for thing in left],
            next_step=f"invoke destroy --run {run.id}",
        )
    return _conclude(run, record, server)


def _begin(run: Run, server: Server | None) -> Destruction:
    """Write down what is about to be removed, with what earlier attempts were about to."""
    user = account()
    things = tuple(_stock(run, server))
    record = Destruction(run.id, operator(), user, now(), 1, things, tuple(_elsewhere(run)))
    if run.has(FILE):
        before = run.load(FILE)
        known = {(kept["kind"], kept["name"]): Thing(**kept) for kept in before["removed"]}
        known |= {(thing.kind, thing.name): thing for thing in things if (thing.kind, thing.name) not in known}
        record = replace(record, began=before["began"], attempts=before["attempts"] + 1, removed=tuple(known.values()))
    run.save(FILE, record)
    return record


def _conclude(run: Run, record: Destruction, server: Server | None) -> Path:
    if after.accepted(run) is not None and any(
        one.item.id == "I-10" and one.state != "done" for one in after.standing(run)
    ):
        after.mark(run, "I-10", by=record.by, evidence=f"{FILE}.json")
    run.note(destroyed=True)
    run.save(FILE, replace(record, ended=now(), evidence=tuple(_evidence(run))))
    path = run.folder / f"{FILE}.json"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    run.attest(
        "destroyed", server=server.provider if server is not None else None, things=len(record.removed), record=sha256
    )
    return path


# What there is


def _stock(run: Run, server: Server | None) -> Iterator[Thing]:
    if _in_docker(run, server):
        for left in labelled.leftovers(run.id):
            yield Thing(left.kind.removesuffix("s"), left.name)
    if server is not None:
        yield from _databases(run, server)
        if (place := _outside(run, server)) is not None:
            yield Thing("folder", str(place), _size(place))
    for name in DATA:
        if (run.folder / name).exists():
            yield Thing("folder", name, _size(run.folder / name))


def _in_docker(run: Run, server: Server | None) -> bool:
    wanted = (run.folder / PART).exists() or (
        server is not None and server.provider != embedded.EmbeddedServer.provider
    )
    return wanted and images.answers()


def _databases(run: Run, server: Server) -> Iterator[Thing]:
    """The server's databases, if it runs; else those that are known of the run."""
    with suppress(psycopg.Error, HomologationError, OSError, KeyError):
        with server.connect("postgres", connect_timeout=_CONNECT_SECONDS) as conn:
            found = conn.execute(
                "SELECT datname, pg_database_size(oid) FROM pg_database WHERE NOT datistemplate ORDER BY 1"
            ).fetchall()
        yield from (Thing("database", name, size) for name, size in found)
        return
    if run.is_done("central.restore"):
        size = run.load("frozen").get("database_bytes") if run.has("frozen") else None
        yield Thing("database", DATABASE, size)


def _outside(run: Run, server: Server) -> Path | None:
    """The folder of a server's data, where it is not below the run's."""
    place = server.place
    outside = not place.is_relative_to(run.folder.resolve()) and (place / embedded.OWNER_FILE).exists()
    return place if outside else None


def _what_is_left(run: Run, record: Destruction) -> Iterator[Thing]:
    in_docker = {thing.kind for thing in record.removed} & {"container", "network", "volume"}
    there = {(left.kind.removesuffix("s"), left.name) for left in labelled.leftovers(run.id)} if in_docker else set()
    for thing in record.removed:
        if thing.kind == "folder":  # a path that is absolute stands for itself
            if (run.folder / thing.name).exists():
                yield thing
        elif (thing.kind, thing.name) in there:
            yield thing


def _elsewhere(run: Run) -> Iterator[str]:
    """What a promotion has left on the production server."""
    promotion = _promotion(run)
    rolled_back = promotion.get("rollback") or {}
    name = {
        "preparing": promotion.get("candidate"),
        "promoted": promotion.get("kept"),
        "rolled_back": rolled_back.get("kept"),
    }.get(promotion.get("state", ""))
    if name:
        yield f"{name} ({promotion.get('address', '?')})"


def _evidence(run: Run) -> Iterator[Evidence]:
    for path in sorted(run.folder.rglob("*")):
        name = path.relative_to(run.folder).as_posix()
        if path.is_file() and not path.is_symlink() and name not in _NO_EVIDENCE:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield Evidence(name, path.stat().st_size, digest)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder, as far as they can be seen."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (many files)
    return total


def _promotion(run: Run) -> dict[str, Any]:
    kept: dict[str, Any] = run.load(after.PROMOTION) if run.has(after.PROMOTION) else {}
    return kept
