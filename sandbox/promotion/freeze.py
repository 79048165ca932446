"""The candidate is frozen: dumped as it is, and proved again, so that what was dumped is what was proved.

In this order: at one snapshot the fingerprint of the merged database and its dump; then all proofs again, on the
database as it is then; then the fingerprint again. If both are equal, what the proofs looked at is what is in the dump.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from merge import fingerprint
from merge.errors import PromotionRefused, ProofFailed, cause
from merge.language import counted, text
from merge.proof_objects import OURS
from sandbox import archive, homolog, words
from sandbox.command import CommandFailed
from sandbox.options import CENTRAL, PEC, options_of
from sandbox.pec import alternate
from sandbox.rehearsal import DATABASE, PROOF
from sandbox.runs import CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from merge.fingerprint import Fingerprint
    from sandbox.archive import Archive
    from sandbox.console import Reporter
    from sandbox.rehearsal import Connection, Rehearsal
    from sandbox.runs import Run

FROZEN, FINGERPRINT = "frozen", "candidate-fingerprint"
"""Names of what is kept in the folder of the run."""

DUMP = f"{CANDIDATE}/candidate.backup"
"""Where the dump is below the folder of the run."""

_PROOFS = re.compile(r"(?:source-\d+|central|content|attachments)-proof\.json")
_DUMPING = re.compile(r"dumping contents of table ")


@dataclass(frozen=True)
class Frozen:
    """The dump of the merged database, and what was proved of it.

    :param dump: where it is below the folder of the run; `sha256` and `bytes` are of the file.
    :param database_bytes: what the database took in the sandbox, without what is ours there.
    :param major: PostgreSQL's major version (9 is 9.6); `version` the full one.
    :param rows: of all tables.
    :param fingerprint: digest of the fingerprint, which is kept beside.
    :param proofs: SHA-256 of the files of the proofs that hold for it.
    :param at: when, ISO 8601 in UTC.
    """

    dump: str
    sha256: str
    bytes: int
    database_bytes: int
    major: int
    version: str
    rows: int
    large_objects: int
    fingerprint: str
    proofs: Mapping[str, str]
    at: str


def freeze(run: Run, reporter: Reporter) -> Frozen:
    """Dump the merged database of a final run, prove it again, and keep what it is; can be called again at any time.

    The run is locked by the caller. What was frozen before is void from the beginning on.

    :raises PromotionRefused: the run may not go to production, a proof does not hold, or the database changed.
    """
    check_promotable(run)
    for name in (FROZEN, FINGERPRINT):
        (run.folder / f"{name}.json").unlink(missing_ok=True)
    run.events.add("candidate", "freezing")
    with _no_rows_told(run), homolog.started(run, reporter) as rehearsal:
        making = rehearsal.server.scratch / "candidate.backup"
        making.unlink(missing_ok=True)
        try:
            found, expected, size = _dump(rehearsal, making)
            _prove(rehearsal)
            _compare(expected, _take(rehearsal, text(pt="Conferir que nada mudou", en="See that nothing changed")))
            with reporter.step(text(pt="Guardar o candidato", en="Keep the candidate")):
                frozen = _keep(rehearsal, making, found, expected, size)
        finally:
            making.unlink(missing_ok=True)
    run.save(FINGERPRINT, expected)
    run.save(FROZEN, frozen)
    homolog.write_result(run, None)
    run.attest("frozen", sha256=frozen.sha256, fingerprint=frozen.fingerprint, rows=frozen.rows)
    return frozen


@contextmanager
def _no_rows_told(run: Run) -> Iterator[None]:
    """What PostgreSQL says of an error may quote a row."""
    try:
        yield
    except psycopg.Error as ex:
        said = cause(ex)
        raise PromotionRefused(
            text(
                pt=f"O servidor da sandbox parou ou recusou um comando ({said}).",
                en=f"The sandbox's server stopped or refused a command ({said}).",
            ),
            evidence=run.folder,
            next_step=text(pt="Nada se perdeu: repita.", en="Nothing is lost: do it again."),
        ) from None


def load(run: Run) -> Frozen:
    """What was frozen.

    :raises FileNotFoundError: nothing was.
    """
    return Frozen(**run.load(FROZEN))


def load_fingerprint(run: Run) -> Fingerprint:
    """What the frozen database holds."""
    return fingerprint.Fingerprint.from_dict(run.load(FINGERPRINT))


def is_frozen(run: Run) -> bool:
    """True if the candidate was frozen, nothing was proved since, and the dump is there, to the byte."""
    if not (run.has(FROZEN) and run.has(FINGERPRINT)):
        return False
    frozen, path = load(run), run.folder / DUMP
    return (
        frozen.proofs == proofs(run)
        and is_noted(run, frozen.sha256, frozen.fingerprint)
        and path.is_file()
        and path.stat().st_size == frozen.bytes
        and sha256(path) == frozen.sha256
    )


def is_noted(run: Run, digest: str, of_content: str) -> bool:
    """True if the log of the run says that this dump, with this fingerprint, was what it froze last."""
    acts = [event for event in run.events.read() if event.get("audited") and event["event"] == "frozen"]
    return bool(acts) and (acts[-1].get("sha256"), acts[-1].get("fingerprint")) == (digest, of_content)


def proofs(run: Run) -> dict[str, str]:
    """SHA-256 of the files of all proofs of a run, by their names."""
    return {path.name: sha256(path) for path in sorted(run.folder.iterdir()) if _PROOFS.fullmatch(path.name)}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_promotable(run: Run) -> None:
    """Refuse a run whose result may not go to production.

    :raises PromotionRefused: with all reasons.
    """
    if reasons := not_promotable(run):
        raise PromotionRefused(
            text(
                pt=f"O resultado da execução {run.id} não pode ir para produção.",
                en=f"The result of the run {run.id} may not go to production.",
            ),
            evidence=run.folder,
            details=reasons,
            next_step=text(
                pt="Só a execução final (invoke homolog --final …), validada, pode ser assinada e promovida.",
                en="Only a final run (invoke homolog --final …) that is validated can be signed and promoted.",
            ),
        )


def not_promotable(run: Run) -> tuple[str, ...]:
    """Why the result of a run may not go to production; nothing if it may."""
    if run.load("run").get("destroyed"):
        return (text(pt="os dados foram apagados", en="its data were destroyed"),)
    if not run.has("result"):
        return (text(pt="a execução não terminou", en="the run has not ended"),)
    result = run.load("result")
    reasons = []
    if not result["final"]:
        reasons.append(text(pt="é um ensaio, não a execução final", en="it is a rehearsal, not the final run"))
    if result["status"] != "validated":
        reasons.append(text(pt=f"não está validada: {result['status']}", en=f"it is not validated: {result['status']}"))
    proofs_made = _proofs_made(result)
    if missing := [name for name, proof in proofs_made.items() if proof is None or proof["differences"] is None]:
        reasons.append(text(pt="não há prova: ", en="there is no proof: ") + ", ".join(missing))
    if different := [name for name, proof in proofs_made.items() if proof is not None and proof["differences"]]:
        reasons.append(text(pt="a prova achou diferenças: ", en="the proof found differences: ") + ", ".join(different))
    # It holds what must be in the candidate again; without it, nothing can show that in production.
    if result["engine"] == PEC and (problem := alternate.undo_list_problem(run, CENTRAL)):
        reasons.append(problem)
    if not result["candidate"]["promotable"] and not reasons:
        reasons.append(str(result["candidate"]["reason"]))
    return tuple(reasons)


def _proofs_made(result: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The proofs that a run of its engine must have, by what they are of."""
    if result["engine"] == PEC:
        return {"content": result["content_proof"]}
    return {**{source["name"]: source["proof"] for source in result["sources"]}, "central": result["central_proof"]}


# The dump


def _dump(rehearsal: Rehearsal, making: Path) -> tuple[_Contents, Fingerprint, int]:
    """Dump the database into a file; return what is in it, its fingerprint at the same instant, and its bytes."""
    with _snapshot(rehearsal) as (conn, snapshot):
        found = _contents(conn, len(rehearsal.run.load("inputs")) - 1)
        size = _size(conn)
        if (free := shutil.disk_usage(making.parent).free) < size:
            rehearsal.reporter.warn(
                text(
                    pt=f"O banco ocupa {words.size(size)} e há {words.size(free)} livres: o dump pode não caber.",
                    en=f"The database takes {words.size(size)} and {words.size(free)} are free: its dump may not fit.",
                )
            )
        title = text(pt="Impressão digital do candidato", en="Fingerprint of the candidate")
        taken = _take(rehearsal, title, snapshot)
        with rehearsal.reporter.step(text(pt="Dump do candidato", en="Dump the candidate")):
            _pg_dump(rehearsal, making, snapshot, found)
    _check_archive(archive.read(making), found)
    return found, taken, size


@contextmanager
def _snapshot(rehearsal: Rehearsal) -> Iterator[tuple[Connection, str]]:
    """A transaction whose snapshot others share, for as long as the context lasts."""
    with rehearsal.connect() as conn:
        conn.execute("SELECT set_config('search_path', 'pg_catalog, pg_temp', false)")
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = conn.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield conn, row[0]


def _take(rehearsal: Rehearsal, title: str, snapshot: str | None = None) -> Fingerprint:
    reporter = rehearsal.reporter
    with reporter.step(title):
        return fingerprint.take(rehearsal.connect, rehearsal.jobs, reporter.progress, snapshot=snapshot)


def _pg_dump(rehearsal: Rehearsal, making: Path, snapshot: str, found: _Contents) -> None:
    """As the role that proves: it may read all, and no code of the database is run as superuser."""
    done = 0

    def tell(line: str) -> None:
        nonlocal done
        if _DUMPING.search(line):
            done += 1
            rehearsal.reporter.progress(done, len(found.tables))

    server = rehearsal.server
    without = [f'--exclude-schema="{name}"' for name in found.ours]
    command = server.tool(
        "pg_dump", "--format=custom", "--blobs", "--no-owner", "--no-privileges", "--no-tablespaces", "--verbose",
        "--encoding=UTF8", f"--snapshot={snapshot}", *without, f"--file={server.path(making)}",
        database=DATABASE, role=PROOF,
    )  # fmt: skip
    try:
        command.run(on_line=tell)
    except CommandFailed as ex:
        raise PromotionRefused(
            text(pt="O dump do candidato falhou.", en="The dump of the candidate failed."),
            evidence=rehearsal.run.folder,
            details=[ex.what],  # what pg_dump says of an error may quote a row
            next_step=text(
                pt="Veja o espaço em disco e repita.", en="See whether there is room on the disk, and do it again."
            ),
        ) from None


# What must be in it


@dataclass(frozen=True)
class _Contents:
    """What the database holds, by schema and name; `ours` are the schemas that stay behind."""

    ours: tuple[str, ...]
    tables: frozenset[tuple[str, str]]
    filled: frozenset[tuple[str, str]]
    views: frozenset[tuple[str, str]]
    sequences: frozenset[tuple[str, str]]
    large_objects: bool


_RELATIONS = """
    SELECT c.relkind::text, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't' AND NOT {ours}
       AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
"""
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE {ours} AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
_SIZE = """
    SELECT pg_database_size(current_database()) - coalesce(sum(pg_table_size(c.oid) + pg_indexes_size(c.oid)), 0)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND {ours}
"""


def _contents(conn: Connection, sources: int) -> _Contents:
    """Say what must be in the dump.

    :raises PromotionRefused: a schema of the database is called like ours, so that nobody would see what is in it.
    """
    known = {"homolog", "homolog_base", "homolog_content", *(f"src_{n}" for n in range(1, sources + 1))}
    ours = tuple(name for (name,) in conn.execute(_of_ours(_SCHEMAS)))
    if strange := sorted({*ours} - known):
        raise PromotionRefused(
            text(
                pt="O banco tem esquemas que se chamam como os da ferramenta: eles não foram unificados nem provados.",
                en="The database has schemas that are called like the tool's: they were neither merged nor proved.",
            ),
            details=strange,
            next_step=text(
                pt="Renomeie-os no central e comece de novo.", en="Rename them in the central; begin again."
            ),
        )
    found: dict[str, set[tuple[str, str]]] = {kind: set() for kind in "rpmS"}
    for kind, schema, name in conn.execute(_of_ours(_RELATIONS)):
        found[kind].add((schema, name))
    large = conn.execute("SELECT 1 FROM pg_largeobject_metadata LIMIT 1").fetchone() is not None
    filled, views, sequences = (frozenset(found[kind]) for kind in "rmS")
    return _Contents(tuple(sorted(ours)), filled | found["p"], filled, views, sequences, large)


def _size(conn: Connection) -> int:
    row = conn.execute(_of_ours(_SIZE)).fetchone()
    assert row is not None
    return int(row[0])


def _of_ours(query: str) -> sql.Composed:
    return sql.SQL(query).format(ours=sql.SQL(OURS))


def _check_archive(found: Archive, expected: _Contents) -> None:
    """Refuse a dump that lacks something, or holds something of ours.

    :raises PromotionRefused: with what it is.
    """

    def entries(*kinds: str) -> set[tuple[str, str]]:
        return {(entry.namespace, entry.tag) for entry in found if entry.desc in kinds}

    wanted: Sequence[tuple[str, Any, set[tuple[str, str]]]] = (
        ("TABLE", expected.tables, entries("TABLE")),
        ("TABLE DATA", expected.filled, entries("TABLE DATA")),
        ("MATERIALIZED VIEW", expected.views, entries("MATERIALIZED VIEW")),
        ("SEQUENCE", expected.sequences, entries("SEQUENCE")),
    )
    missing = [f"{kind} {schema}.{name}" for kind, must, there in wanted for schema, name in sorted(must - there)]
    ours = [
        f"{entry.desc} {entry.namespace}.{entry.tag}"
        for entry in found
        if entry.namespace in expected.ours or (entry.desc == "SCHEMA" and entry.tag in expected.ours)
    ]
    if expected.large_objects and not any(entry.is_large_object and entry.has_data for entry in found):
        missing.append("BLOBS")
    if missing or ours:
        raise PromotionRefused(
            text(
                pt="O dump do candidato não é o banco unificado inteiro, e só ele.",
                en="The dump of the candidate is not the whole merged database, and nothing else.",
            ),
            details=[f"- {name}" for name in missing] + [f"+ {name}" for name in ours],
        )


# The proof


def _prove(rehearsal: Rehearsal) -> None:
    """Repeat the proofs that the run made; what was written since is found now.

    :raises PromotionRefused: one does not hold. The result of the run says so, too.
    """
    run = rehearsal.run
    method = "exact"
    if options_of(run).engine == PEC:
        method = "content"  # all else that its proof does was done, and writes
    elif run.has("content-proof"):
        method = "all"
    failed = homolog.failed_proofs(rehearsal, method)
    if not failed:
        return
    what = counted(
        len(failed),
        text(pt="prova não vale mais", en="proof does not hold any more"),
        text(pt="provas não valem mais", en="proofs do not hold any more"),
    )
    details = [line for ex in failed for line in (ex.what, *ex.details)]
    homolog.write_result(run, ProofFailed(what, evidence=run.folder, details=details))
    run.attest("ended", status="different")
    raise PromotionRefused(
        text(
            pt=f"O banco unificado não é mais o que foi provado: {what}.",
            en=f"The merged database is not what was proved any more: {what}.",
        ),
        evidence=run.folder,
        details=details,
        next_step=text(
            pt="Algo o escreveu depois da prova. Comece outra execução final.",
            en="Something wrote to it after the proof. Begin another final run.",
        ),
    )


def _compare(expected: Fingerprint, found: Fingerprint) -> None:
    if unlike := fingerprint.differences(expected, found):
        raise PromotionRefused(
            text(
                pt="O banco unificado mudou enquanto era provado: o dump não é o que foi provado.",
                en="The merged database changed while it was proved: the dump is not what was proved.",
            ),
            details=[str(one) for one in unlike],
            next_step=text(
                pt="Feche o que está ligado à sandbox e repita.",
                en="Close what is connected to the sandbox; do it again.",
            ),
        )


def _keep(rehearsal: Rehearsal, making: Path, found: _Contents, taken: Fingerprint, size: int) -> Frozen:
    """Give the dump its place, and say what it is."""
    run, server = rehearsal.run, rehearsal.server
    path = run.folder / DUMP
    path.parent.mkdir(mode=0o700, exist_ok=True)
    making.chmod(0o600)
    with making.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    making.replace(path)
    return Frozen(
        dump=DUMP,
        sha256=digest,
        bytes=path.stat().st_size,
        database_bytes=size,
        major=server.major,
        version=server.version,
        rows=taken.rows,
        large_objects=taken.large_objects,
        fingerprint=taken.digest,
        proofs=proofs(run),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
