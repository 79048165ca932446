"""The engine knows nothing of PEC: two sources of another application are merged and proved with its own profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from merge import catalog, coverage, profile
from tests.filler import fill

if TYPE_CHECKING:
    from tests.fix_merge import Bench

SHOP = Path(__file__).parent / "shop"


def test_two_shops_into_a_third(bench: Bench) -> None:
    """Every row is accounted for, what is the same is matched, references follow, and the proofs hold."""
    with bench.owner() as conn:
        conn.execute((SHOP / "schema.sql").read_bytes())
        found = catalog.read(conn, "public")
    assert len(found.tables) > 90
    with bench.merger() as conn:
        central = fill(conn, found, "public", rows=60, name="central", shared=20)
    known = profile.load(SHOP / "shop.toml")
    plan, found = bench.prepare(known)
    assert not [t.name for t in plan if t.role is None]
    for number, name in ((1, "north"), (2, "south")):
        bench.load(number, found, lambda conn, schema, n=name: fill(conn, found, schema, rows=40, name=n, shared=20))  # type: ignore[misc]
        filled = [t for t, rows in bench.rows[number].items() if rows]
        assert len(filled) > 85
        with bench.connect() as conn:
            coverage.check_coverage(conn, plan, found, known, f"src_{number}", filled)
        merged = bench.merge(plan, found, number)
        for table, rows in bench.rows[number].items():
            assert sum(line.rows for line in merged.ledger.of(table)) == rows, table
        totals = merged.ledger.totals()
        assert totals["inserted"] > totals["matched"] + totals["reconciled"] > 200
    for proof in bench.prove(plan):
        assert [str(d) for d in proof.examples] == []
    with bench.connect() as conn:
        # The same people are there once, by their login: 60 of the central, and 20 more of each source.
        assert conn.execute("SELECT count(*), count(DISTINCT username) FROM auth_user").fetchone() == (100, 100)
        assert central["auth_user"] == 60
        # Numbering goes on after the merged keys.
        conn.execute("INSERT INTO auth_group (name) VALUES ('new')")
