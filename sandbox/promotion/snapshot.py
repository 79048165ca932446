"""The central's backup, taken by this project itself: with the marks and the fingerprint of the very instant it shows.

All three are of one exported snapshot. They lie beside the backup in a *sidecar*, ``<backup>.snapshot.json``, which
holds names of tables and columns, counts and digests, and nothing of a patient.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from merge import fingerprint
from merge.errors import BackupError, ConfigError, ServerError, cause
from merge.fingerprint import Fingerprint
from merge.language import counted, text
from sandbox import binaries, choose, intake, labelled, restore, runs
from sandbox.promotion import marks
from sandbox.promotion import tools as tools_of
from sandbox.promotion.dump import check_room, dump
from sandbox.promotion.marks import Marks
from sandbox.promotion.production import Production
from sandbox.sample.make import DUMP_OPTIONS
from sandbox.throwaway import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from merge.fingerprint import Unlike
    from sandbox.console import Reporter
    from sandbox.intake import Backup
    from sandbox.runs import Run

    Connection = psycopg.Connection[tuple[Any, ...]]
    Progress = Callable[[int, int], None]

SUFFIX = ".snapshot.json"
"""What a sidecar's name adds to that of its backup."""

KEPT = "snapshot"
"""The name by which a run keeps the sidecar of its central."""

_LONGEST = 64 << 20
"""Bytes of a sidecar; one of a thousand tables has 3 MB."""


@dataclass(frozen=True)
class Snapshot:
    """What a sidecar holds.

    :param file: name of the backup, of `size` bytes.
    :param server: version of the server.
    :param pec_sessions: sessions of PEC that were connected, and `other_sessions` of others.
    :param moving: sequences that moved while the backup was made, so that it may hold a later state of them.
    :param verified: True if it was restored once, and its content was the same.
    """

    schema_version: int
    file: str
    sha256: str
    size: int
    database: str
    server: str
    options: tuple[str, ...]
    seconds: float
    pec_sessions: int
    other_sessions: int
    moving: tuple[str, ...]
    verified: bool
    marks: Marks
    fingerprint: Fingerprint

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Snapshot:
        """The same again, from what JSON kept of it."""
        return cls(**{
            **kept,
            "options": tuple(kept["options"]),
            "moving": tuple(kept["moving"]),
            "marks": Marks.from_dict(kept["marks"]),
            "fingerprint": Fingerprint.from_dict(kept["fingerprint"]),
        })  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """A backup with its sidecar."""

    path: Path
    sidecar: Path
    snapshot: Snapshot

    def to_dict(self) -> dict[str, Any]:
        """What there is to tell of it, without every table's digest."""
        found = self.snapshot
        return {
            "path": str(self.path),
            "sidecar": str(self.sidecar),
            "sha256": found.sha256,
            "bytes": found.size,
            "database": found.database,
            "server": found.server,
            "taken": found.marks.taken,
            "seconds": found.seconds,
            "tables": len(found.fingerprint.tables),
            "rows": found.fingerprint.rows,
            "large_objects": found.fingerprint.large_objects,
            "fingerprint": found.fingerprint.digest,
            "pec_sessions": found.pec_sessions,
            "other_sessions": found.other_sessions,
            "verified": found.verified,
        }


def take_snapshot(
    dsn: str, folder: Path, reporter: Reporter, *, tools: Path | None = None, jobs: int = 2, verify: bool = False
) -> Taken:
    """Take the backup of a production database with its marks and its fingerprint; production is only read.

    :param dsn: see `Production`.
    :param folder: where it is put; made if it is missing. What is interrupted leaves nothing there.
    :param tools: folder with the ``pg_dump`` of the server's major version.
    :param jobs: sessions that read for the fingerprint.
    :param verify: also restore it in a throwaway server, and compare.
    :raises ConfigError: production is not reached, something may not be read, or there is no room.
    :raises BackupError: it was restored, and is not what production was.
    """
    with runs.private_folder() as scratch, Production(dsn, scratch, tools=tools) as production:
        _make_folder(folder)
        taken = _take(production, folder, reporter, jobs)
        if verify:
            with reporter.step(text(pt="Restaurar o backup e comparar", en="Restore the backup and compare")):
                unlike = restored_differences(taken.path, taken.snapshot, jobs=jobs, on_progress=reporter.progress)
            if unlike:
                raise BackupError(
                    text(
                        pt="O backup restaurado não é igual à produção.",
                        en="The restored backup is not what production was.",
                    ),
                    evidence=taken.path,
                    details=[str(line) for line in unlike[:20]],
                    next_step=text(pt="Não o use; tire outro.", en="Do not use it; take another."),
                )
            taken = replace(taken, snapshot=replace(taken.snapshot, verified=True))
            _write_sidecar(taken)
    return taken


def _take(production: Production, folder: Path, reporter: Reporter, jobs: int) -> Taken:
    path = folder / f"{_file_name(production.database)}.backup"
    if path.exists():
        raise ConfigError(text(pt=f"O arquivo {path} já existe.", en=f"The file {path} exists already."))
    try:
        with production.connect() as conn:
            fingerprint.check_rights(conn)
            pec, others = connected(conn)
            _warn(reporter, pec, others)
            check_room(conn, folder)
            with marks.held(conn) as (found, shared):
                with reporter.step(text(pt="Ler a impressão digital da produção", en="Fingerprint production")):
                    content = fingerprint.take(production.connect, jobs, reporter.progress, snapshot=shared)
                with reporter.step(text(pt=f"Tirar o backup de {production.shown}", en=f"Back up {production.shown}")):
                    dumped = dump(production, path, snapshot=shared, on_progress=reporter.progress)
                now = fingerprint.sequence_states(conn)  # asked in the transaction: a lost session is told
    except psycopg.Error as ex:
        path.unlink(missing_ok=True)
        raise _lost(ex) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    moving = tuple(sorted(name for name, state in content.sequences.items() if now.get(name) != state))
    snapshot = Snapshot(
        schema_version=1,
        file=path.name,
        sha256=dumped.sha256,
        size=dumped.size,
        database=production.database,
        server=production.version,
        options=DUMP_OPTIONS,
        seconds=round(dumped.seconds, 1),
        pec_sessions=pec,
        other_sessions=others,
        moving=moving,
        verified=False,
        marks=found,
        fingerprint=content,
    )
    taken = Taken(path, sidecar_of(path), snapshot)
    _write_sidecar(taken)
    return taken


def _lost(ex: psycopg.Error) -> ServerError:
    return ServerError(
        text(
            pt="A produção parou de responder, ou recusou um comando.",
            en="Production stopped answering, or refused a command.",
        ),
        details=[
            text(pt="Uma tabela ficou bloqueada por outra sessão.", en="A table stayed locked by another session.")
            if isinstance(ex, psycopg.errors.LockNotAvailable)
            else cause(ex)
        ],
        next_step=text(pt="Nada foi gravado nela. Tente de novo.", en="Nothing was written there. Try again."),
    )


def _write_sidecar(taken: Taken) -> None:
    write_private(taken.sidecar, json.dumps(asdict(taken.snapshot), ensure_ascii=False, indent=1))


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of a backup is."""
    return path.with_name(f"{path.name}{SUFFIX}")


def _warn(reporter: Reporter, pec: int, others: int) -> None:
    if pec:
        sessions = text(pt=counted(pec, "sessão", "sessões"), en=counted(pec, "session", "sessions"))
        reporter.warn(
            text(
                pt=f"O PEC está conectado ({sessions}): o que for gravado depois deste instante não estará no backup.",
                en=f"PEC is connected ({sessions}): what is written after this instant will not be in the backup.",
            )
        )
    if others:
        sessions = text(pt=counted(others, "outra sessão", "outras sessões"), en=counted(others, "other", "others"))
        reporter.note(text(pt=f"Conectadas: {sessions}", en=f"Connected: {sessions}"))


_CONNECTED = """
    SELECT count(*) FILTER (WHERE application_name ILIKE '%jdbc%'),
           count(*) FILTER (WHERE application_name NOT ILIKE '%jdbc%' AND application_name NOT LIKE 'homolog%')
      FROM pg_catalog.pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def connected(conn: Connection) -> tuple[int, int]:
    """Sessions in the database: those of PEC (which its JDBC driver names), and those of others than us."""
    client = " AND backend_type = 'client backend'" if conn.info.server_version >= 100000 else ""
    row = conn.execute((_CONNECTED + client).encode()).fetchone()
    assert row is not None
    return row[0], row[1]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as ex:
        raise ConfigError(
            text(
                pt=f"A pasta {folder} não pode ser usada: {ex.strerror}.", en=f"{folder} cannot be used: {ex.strerror}."
            )
        ) from None


def _file_name(database: str) -> str:
    """The database's name, as files can be called everywhere, and the time."""
    safe = re.sub(r"[^\w.-]", "_", database)[:80]
    return f"{safe}_{datetime.now().astimezone():%Y%m%d-%H%M%S}"


# Restoring it once


def restored_differences(
    path: Path, snapshot: Snapshot, *, jobs: int = 2, on_progress: Progress | None = None
) -> tuple[Unlike, ...]:
    """Restore a backup in a throwaway server of its own major version, and say what is not as it was in production.

    :raises BackupError: it cannot be restored.
    :raises ServerError: no such server is to be had.
    """
    name = f"snapshot-{secrets.token_hex(4)}"
    with runs.private_folder() as work:
        backup = intake.inspect(path.absolute(), work=work / "intake")
        major = snapshot.marks.version // 10000
        programs = None if major in binaries.WHEEL else tools_of.server_programs(major)
        provider = "embedded" if programs or major in binaries.WHEEL else "docker"
        server, _ = choose.choose(
            provider, major=major, exact=True, folder=work / "server", run_id=name, inputs=[backup.readable],
            binaries=programs,
        )  # fmt: skip
        try:
            server.start()
            restore.restore_central(server, backup, "restored", jobs=jobs, on_progress=on_progress)
            found = fingerprint.take(lambda: server.connect("restored", restore.CENTRAL), jobs)
        finally:
            server.destroy()
            if provider == "docker":
                labelled.remove(labelled.leftovers(name))
    return tuple(expected_differences(snapshot, found))


def expected_differences(snapshot: Snapshot, restored: Fingerprint) -> Iterable[Unlike]:
    """What a restored copy of a snapshot has otherwise, but for sequences that moved while it was taken."""
    unlike = fingerprint.differences(snapshot.fingerprint, restored, restored=True)
    return (line for line in unlike if line.kind != "sequence" or line.name not in snapshot.moving)


# What a run keeps of it


def keep_sidecar(run: Run, backup: Backup, reporter: Reporter) -> Snapshot | None:
    """Keep the sidecar of the central's backup with a run; None if there is none that belongs to it.

    It is looked for beside the file as it was delivered, be it a zip or gzip file, and in the zip.
    """
    for name, content in _sidecars(backup.path):
        try:
            snapshot = Snapshot.from_dict(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError):
            snapshot = None
        if snapshot is not None and _is_of(snapshot, backup):
            run.save(KEPT, snapshot)
            return snapshot
        reporter.warn(
            text(
                pt=f"{name} não é deste backup, ou foi alterado: não será usado.",
                en=f"{name} is not of this backup, or was altered: it will not be used.",
            )
        )
    return None


def _sidecars(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what may be the sidecar of a delivered backup."""
    names = [path.name, *([path.stem] if path.suffix.lower() in (".zip", ".gz") else [])]
    for sidecar in (path.with_name(f"{name}{SUFFIX}") for name in names):
        if sidecar.is_file() and sidecar.stat().st_size < _LONGEST:
            yield sidecar.name, sidecar.read_bytes()
    if path.is_file() and zipfile.is_zipfile(path):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(SUFFIX) and member.file_size < _LONGEST:
                    yield Path(member.filename).name, archive.read(member)


def _is_of(snapshot: Snapshot, backup: Backup) -> bool:
    if snapshot.sha256 == backup.sha256:
        return True
    if backup.wrapper == "none" or not backup.readable.is_file() or backup.readable.stat().st_size != snapshot.size:
        return False
    with suppress(OSError), backup.readable.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == snapshot.sha256
    return False
