"""The speed budget, measured as ratios in one run: `invoke bench`.

Makes synthetic backups of a central and two sources, then measures on the same server, one after the other:
pg_restore of the central and one source alone; a whole rehearsal of the two; the merge against a bare INSERT … SELECT
of the same rows into the same tables with the same indexes; the exact proof against reladiff on the same tables; the
proof by content against the exact one; what the second source costs in this central and in a much smaller one; and the
peak memory of Python at two scales.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from merge import engine, matching, profile, proof_content, proof_source
from merge import proof_central as central_proof
from merge.proof_session import run_all, session
from sandbox import intake
from sandbox.console import Reporter
from sandbox.embedded import EmbeddedServer
from sandbox.preflight import Decisions, Preflight, all_checks
from sandbox.rehearsal import CENTRAL, DATABASE, MERGE, Rehearsal, Source
from sandbox.runs import Run
from sandbox.sample import make_samples
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from merge.catalog import Catalog
    from merge.plan import Plan, TablePlan

_SMALL = 1.0
"""Scale of the sample whose rehearsal tells how Python's memory grows."""

_COMPARED = 12
"""Tables on which the exact proof and reladiff are compared: the largest that reladiff can compare at all."""

_PLAIN = ("bigint", "integer", "smallint", "character", "text", "timestamp", "date", "boolean", "numeric", "double")


def main(scale: float, jobs: int, keep: Path | None = None) -> dict[str, Any]:
    """Measure everything at one scale; print the ratios as JSON.

    :param keep: folder whose backups are used, and where they stay if there are none.
    """
    folder = Path(tempfile.mkdtemp(prefix="homolog-bench-"))
    server = EmbeddedServer(folder / "server")
    try:
        server.start()
        large = _samples(server, keep or folder / "large", scale, sources=2)
        small = _samples(server, folder / "small", _SMALL, sources=1)
        found: dict[str, Any] = {"scale": scale, "jobs": jobs, "server": server.version}
        found["pg_restore_seconds"] = _restores(server, large[:2], folder / "work", jobs)
        found["python_peak_mib"] = {str(_SMALL): _apart(_small, server.folder, small, folder, jobs)["python_peak_mib"]}
        measured = _apart(_large, server.folder, large, folder, jobs)
        found["python_peak_mib"][str(scale)] = measured.pop("python_peak_mib")
        found |= measured
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)
    found["ratios"] = {
        "rehearsal / pg_restore (at most 1.5)": _ratio(found["rehearsal_seconds"], found["pg_restore_seconds"]),
        "merge / bare INSERT (at most 1.3)": _ratio(found["merge_seconds"], found["bare_insert_seconds"]),
        "second source in this central / in a small one (about 1)": _ratio(
            found["second_source"]["seconds"], found["second_source"]["seconds_in_small_central"]
        ),
        "exact proof / reladiff, rows a second (at least 3)": _ratio(
            found["proof"]["exact_rows_per_second"], found["proof"]["reladiff_rows_per_second"]
        ),
        "content proof / exact proof (at most 3)": _ratio(
            found["content"]["content_seconds"], found["content"]["exact_seconds"]
        ),
    }
    print(json.dumps(found, indent=1))  # noqa: T201
    return found


def _ratio(one: float, other: float) -> float:
    return round(one / other, 2)


def _samples(server: EmbeddedServer, folder: Path, scale: float, sources: int) -> list[Path]:
    paths = [folder / f"{name}.backup" for name in ("central", "ubs-a", "ubs-b")[: sources + 1]]
    return paths if all(p.exists() for p in paths) else make_samples(server, folder, scale=scale, sources=sources)


def _apart(
    measure: Callable[[EmbeddedServer, Sequence[Path], Path, int], dict[str, Any]],
    server: Path,
    paths: Sequence[Path],
    folder: Path,
    jobs: int,
) -> dict[str, Any]:
    """Measure in a process of its own, whose peak memory is that of nothing else."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measured, (measure, server, paths, folder, jobs))


def _measured(
    measure: Callable[[EmbeddedServer, Sequence[Path], Path, int], dict[str, Any]],
    server: Path,
    paths: Sequence[Path],
    folder: Path,
    jobs: int,
) -> dict[str, Any]:
    return measure(EmbeddedServer(server), paths, folder, jobs)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _restores(server: EmbeddedServer, paths: Sequence[Path], work: Path, jobs: int) -> float:
    """Seconds of pg_restore of the backups, each into a database of its own, one after the other; nothing else."""
    seconds = 0.0
    for path in paths:
        server.create_database("alone", ADMIN)
        start = time.monotonic()
        server.tool(
            "pg_restore",
            "--no-owner",
            "--no-privileges",
            f"--jobs={jobs}",
            "--dbname=alone",
            str(path),
            database="alone",
        ).run()
        seconds += time.monotonic() - start
        server.drop_database("alone")
    return round(seconds, 2)


class _Bench(Rehearsal):
    """A rehearsal that keeps a copy of the database as it was right before the first merge."""

    copying = 0.0
    copied = False

    def _merge(self, *args: Any) -> None:
        if not self.copied:
            start = time.monotonic()
            with self.server.connect("postgres") as conn:
                conn.execute(
                    sql.SQL("CREATE DATABASE bare TEMPLATE {} OWNER {}").format(
                        sql.Identifier(DATABASE), sql.Identifier(CENTRAL)
                    )
                )
            self.copied = True
            self.copying += time.monotonic() - start
        super()._merge(*args)


def _rehearse(
    kind: type[Rehearsal], server: EmbeddedServer, paths: Sequence[Path], folder: Path, jobs: int
) -> tuple[Any, Plan, Catalog, list[Source]]:
    """A rehearsal up to its first source; the others are returned."""
    run = Run(Path(tempfile.mkdtemp(prefix="run-", dir=folder)))
    run.save("run", {"done": {}, "created": ""})
    preflight = Preflight(run, all_checks("pec"), Decisions())
    rehearsal = kind(run, Reporter(as_json=True), server, profile.load(), jobs, preflight)
    central, *backups = (intake.inspect(path, work=run.folder / "work") for path in paths)
    plan, catalog = rehearsal.prepare_central(central)
    sources = [Source(number, backup.name, backup) for number, backup in enumerate(backups, 1)]
    rehearsal.merge(plan, catalog, sources[0])
    return rehearsal, plan, catalog, sources


def _small(server: EmbeddedServer, paths: Sequence[Path], folder: Path, jobs: int) -> dict[str, Any]:
    """The peak memory of a small rehearsal."""
    rehearsal, plan, _, _ = _rehearse(Rehearsal, server, paths, folder, jobs)
    rehearsal.prove_central(plan, [1])
    peak = _peak()
    server.drop_database(DATABASE)
    return {"python_peak_mib": peak}


def _large(server: EmbeddedServer, paths: Sequence[Path], folder: Path, jobs: int) -> dict[str, Any]:
    """Everything else."""
    start = time.monotonic()
    bench, plan, catalog, sources = _rehearse(_Bench, server, paths, folder, jobs)
    bench.prove_central(plan, [1])
    seconds = time.monotonic() - start - bench.copying
    run, done = bench.run, bench.run.done()
    rows: dict[str, int] = run.load("source-1-rows")["rows"]
    found = {
        "rehearsal_seconds": round(seconds, 2),
        "steps": done,
        "phases": run.load("source-1-phases"),
        "source_rows": sum(rows.values()),
        "central_rows": run.load("central-proof")["rows_compared"],
        "merge_seconds": done["source.1.merge"],
        "bare_insert_seconds": _bare_insert(server, plan, catalog, rows),
        "proof": _against_reladiff(server, plan, jobs),
        "content": _against_exact(server, plan, jobs),
        "python_peak_mib": _peak(),
    }
    bench.merge(plan, catalog, sources[1])
    done = run.done()
    second = {"rows": sum(run.load("source-2-rows")["rows"].values()), "seconds": _cost(done, 2)}
    second["first_seconds"] = _cost(done, 1)
    server.drop_database("bare")
    server.drop_database(DATABASE)
    # The same source into the first source as the central, which is less than half of the other's size.
    other, *_ = _rehearse(Rehearsal, server, [paths[1], paths[2]], folder, jobs)
    second["seconds_in_small_central"] = _cost(other.run.done(), 1)
    return found | {"second_source": second}


def _cost(done: dict[str, float], number: int) -> float:
    """Seconds of the merge and the proof of one source."""
    return round(done[f"source.{number}.merge"] + done[f"source.{number}.proof"], 2)


def _bare_insert(server: EmbeddedServer, plan: Plan, catalog: Catalog, rows: dict[str, int]) -> float:
    """Seconds of INSERT … SELECT of the rows that the merge inserted, made ready beforehand, in one transaction."""
    with server.connect("bare", MERGE) as conn, conn.transaction(force_rollback=True):
        merge = engine.Merge(conn, plan, catalog, 1, "bare", rows, lambda done, total: None)
        merge.find_matches()
        conn.execute("CREATE SCHEMA bare")
        for table in merge.tables:
            mapped = merge.crosswalk.mapped(table)
            conn.execute(
                sql.SQL("CREATE TABLE {} AS SELECT {} FROM {} WHERE {}").format(
                    sql.Identifier("bare", table.name),
                    mapped.values(),
                    mapped.source(),
                    matching.is_new(plan, table, merge.crosswalk, mapped),
                )
            )
        start = time.monotonic()
        for table in merge.tables:
            names = merge.crosswalk.mapped(table).names
            conn.execute(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                    sql.Identifier(plan.schema, table.name), names, names, sql.Identifier("bare", table.name)
                )
            )
        return round(time.monotonic() - start, 2)


# The exact proof and reladiff, on the same tables: those of the central, before the merge and after it


def _against_reladiff(server: EmbeddedServer, plan: Plan, jobs: int) -> dict[str, Any]:
    connect = partial(server.connect, DATABASE)
    with session(connect) as conn:
        prover = central_proof._Prover(conn, plan, [1])
        tables = sorted((t for t in plan if _comparable(t, prover)), key=lambda t: -prover.base_rows[t.name])
    tables = tables[:_COMPARED]
    rows = sum(prover.base_rows[t.name] for t in tables)
    start = time.monotonic()
    run_all(connect, [partial(prover._prove, table=table) for table in tables], jobs)
    exact = time.monotonic() - start
    assert prover.findings.proof(len(tables), exact).holds
    by_method = {name: _reladiff(server, tables, prover, jobs, name) for name in ("JOINDIFF", "HASHDIFF")}
    return {
        "tables": [t.name for t in tables],
        "rows": rows,
        "exact_rows_per_second": int(rows / exact),
        "reladiff_rows_per_second": int(rows / min(by_method.values())),
        "exact_seconds": round(exact, 2),
        "reladiff_seconds": {name: round(seconds, 2) for name, seconds in by_method.items()},
    }


def _against_exact(server: EmbeddedServer, plan: Plan, jobs: int) -> dict[str, Any]:
    """Seconds of both proofs of one merged source and the central, one after the other."""
    connect, owner = partial(server.connect, DATABASE), partial(server.connect, DATABASE, CENTRAL)
    start = time.monotonic()
    source = proof_source.prove_source(connect, plan, 1, jobs)
    central = central_proof.prove_central(connect, plan, [1], jobs, connect_owner=owner)
    exact = time.monotonic() - start
    content = proof_content.prove_content(connect, plan, [1], jobs, connect_owner=owner)
    assert source.holds
    assert central.holds
    assert content.holds
    return {
        "exact_seconds": round(exact, 2),
        "content_seconds": content.seconds,
        "rows_compared": content.rows_compared,
        "not_told_apart": content.alike,
    }


def _comparable(table: TablePlan, prover: Any) -> bool:
    """True if the rows of the central are told by one integer key, and reladiff knows the types of all columns."""
    return table.name in prover.base_high and all(c.type.startswith(_PLAIN) for c in table.columns)


def _reladiff(server: EmbeddedServer, tables: Sequence[TablePlan], prover: Any, jobs: int, algorithm: str) -> float:
    """Seconds that reladiff takes to find no difference."""
    import reladiff
    from reladiff.utils import Vector

    known = conninfo_to_dict(server.conninfo(DATABASE))
    database = {"driver": "postgresql", "database": known.pop("dbname"), **known}
    start = time.monotonic()
    for table in tables:
        (key,) = table.key
        others = tuple(c.name for c in table.columns if c.name != key)
        sides = [
            reladiff.connect_to_table(database, (schema, table.name), key, thread_count=jobs)
            for schema in ("homolog_base", prover.plan.schema)
        ]
        found = reladiff.diff_tables(
            *sides,
            extra_columns=others,
            max_key=Vector((prover.base_high[table.name] + 1,)),
            algorithm=reladiff.Algorithm[algorithm],
            max_threadpool_size=2 * jobs,
        )
        assert not list(found), table.name
    return time.monotonic() - start


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
