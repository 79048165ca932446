"""The speed budget, measured as ratios in one run: `invoke bench`.

Makes synthetic backups, then measures on the same server, one after the other: pg_restore of the central and one
source alone; a whole rehearsal of the two; the merge against a bare INSERT … SELECT of the same rows into the same
tables with the same indexes; the exact proof against reladiff on the same table; and the peak memory of Python.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from psycopg import sql

from merge import engine, matching, profile
from sandbox import intake, restore
from sandbox.console import Reporter
from sandbox.embedded import EmbeddedServer
from sandbox.rehearsal import CENTRAL, DATABASE, MERGE, Rehearsal, Source
from sandbox.runs import Run
from sandbox.sample import make_samples


def main(scale: float, jobs: int, keep: Path | None = None) -> dict[str, Any]:
    """Measure everything at one scale; print the ratios as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="homolog-bench-"))
    server = EmbeddedServer(folder / "server")
    try:
        server.start()
        samples = keep or folder / "samples"
        if not (samples / "central.backup").exists():
            make_samples(server, samples, scale=scale, sources=1)
        paths = [samples / "central.backup", samples / "ubs-a.backup"]
        found: dict[str, Any] = {"scale": scale, "jobs": jobs, "server": server.version}
        found["pg_restore_seconds"] = _restores(server, paths, folder / "work", jobs)
        found |= _rehearsal(server, paths, folder, jobs)
        found["python_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)
    found["rehearsal_to_pg_restore"] = round(found["rehearsal_seconds"] / found["pg_restore_seconds"], 2)
    found["merge_to_bare_insert"] = round(found["merge_seconds"] / found["bare_insert_seconds"], 2)
    print(json.dumps(found, indent=1))  # noqa: T201
    return found


def _restores(server: EmbeddedServer, paths: list[Path], work: Path, jobs: int) -> float:
    """Seconds of pg_restore of both backups, each into a database of its own, one after the other."""
    start = time.monotonic()
    for path in paths:
        restore.restore_central(server, intake.inspect(path, work=work), "alone", owner="alone", jobs=jobs)
        start += _untimed(server, "alone")
    return round(time.monotonic() - start, 2)


def _untimed(server: EmbeddedServer, database: str) -> float:
    start = time.monotonic()
    server.drop_database(database)
    return time.monotonic() - start


class _Bench(Rehearsal):
    """A rehearsal that keeps a copy of the database as it was right before the merge."""

    copying = 0.0

    def _merge(self, *args: Any) -> None:
        start = time.monotonic()
        with self.server.connect("postgres") as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE bare TEMPLATE {} OWNER {}").format(
                    sql.Identifier(DATABASE), sql.Identifier(CENTRAL)
                )
            )
        self.copying += time.monotonic() - start
        super()._merge(*args)


def _rehearsal(server: EmbeddedServer, paths: list[Path], folder: Path, jobs: int) -> dict[str, Any]:
    run = Run(folder / "run")
    run.folder.mkdir()
    run.save("run", {"done": {}, "created": ""})
    start = time.monotonic()
    bench = _Bench(run, Reporter(as_json=True), server, profile.load(), jobs)
    central, source = (intake.inspect(path, work=folder / "work") for path in paths)
    plan, catalog = bench.prepare_central(central)
    bench.merge(plan, catalog, Source(1, "ubs-a", source))
    bench.prove_central(plan, [1])
    seconds = time.monotonic() - start - bench.copying
    rows: dict[str, int] = run.load("source-1-rows")["rows"]
    proof = run.load("source-1-proof")
    done = run.done()
    return {
        "rehearsal_seconds": round(seconds, 2),
        "steps": done,
        "phases": run.load("source-1-phases"),
        "source_rows": sum(rows.values()),
        "central_rows": run.load("central-proof")["rows_compared"],
        "merge_seconds": done["source.1.merge"],
        "bare_insert_seconds": _bare_insert(server, plan, catalog, rows),
        "proof_rows_per_second": int(proof["rows_compared"] / proof["seconds"]),
    }


def _bare_insert(server: EmbeddedServer, plan: Any, catalog: Any, rows: dict[str, int]) -> float:
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


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
