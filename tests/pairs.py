"""Two databases of a production server that may be swapped: ``old`` is live, ``new`` is the candidate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.promotion import beside, names
from sandbox.promotion.guard import WriteGuard
from sandbox.promotion.production import Production
from sandbox.promotion.swap import Limits, Swapped, swap
from tests.fix_production import OWNER, SUPERUSER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_production import ProductionServer

RUN = "20261126-0243-d5xq"
ROWS = 500
_number = itertools.count(1)


@dataclass
class Pair:
    """A live database and its candidate, each with `ROWS` rows that all say which it is."""

    server: ProductionServer
    name: str
    old: int
    new: int
    folder: Path

    def production(self, role: str = SUPERUSER, port: int | None = None) -> Production:
        """The live database as an operator reaches it, through another port if asked."""
        dsn = self.server.dsn(self.name, role)
        return Production(dsn.replace(f"port={self.server.port}", f"port={port}") if port else dsn, self.folder)

    def content(self, role: str = SUPERUSER) -> str:
        """What the live database holds: ``old`` or ``new``; all of it."""
        with self.server.connect(self.name, role) as conn:
            found = conn.execute("SELECT min(x), max(x), count(*) FROM which").fetchone()
        assert found is not None
        assert found[0] == found[1]
        assert found[2] == ROWS
        return str(found[0])

    def live(self) -> int:
        """The OID of what has the live name."""
        with self.server.connect("postgres") as conn:
            row = conn.execute("SELECT oid::bigint FROM pg_database WHERE datname = %s", [self.name]).fetchone()
        assert row is not None
        return int(row[0])

    def sessions(self) -> int:
        """How many sessions are in the live database."""
        with self.server.connect("postgres") as conn:
            row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [self.name]).fetchone()
        assert row is not None
        return int(row[0])

    def swap(self, production: Production, guard: WriteGuard, *, both: bool = False, **options: Limits) -> Swapped:
        """Swap in whichever direction there is."""
        live = guard.oid
        other = self.old + self.new - live
        with self.server.connect("postgres") as conn:
            kept = names.free_name(conn, names.kept_name(self.name, RUN))
            row = conn.execute("SELECT datname::text FROM pg_database WHERE oid = %s", [other]).fetchone()
        assert row is not None
        if not both:
            return swap(production, guard, live, other, kept, run_id=RUN, **options)
        with WriteGuard(production, row[0]) as candidate_guard:
            return swap(production, guard, live, other, kept, run_id=RUN, candidate_guard=candidate_guard, **options)


def make_pair(server: ProductionServer, folder: Path, name: str | None = None) -> Pair:
    """Make both databases."""
    name = name or f"Prova_é{next(_number)}"
    server.make_database(name)
    with Production(server.dsn("postgres"), folder) as production:
        new = beside.create_beside(production, names.candidate_name(name, RUN), run_id=RUN, like=name)
    for database, text in ((name, "old"), (names.candidate_name(name, RUN), "new")):
        with server.connect(database, OWNER) as conn:
            conn.execute("CREATE TABLE which (id serial PRIMARY KEY, x text)")
            conn.execute("CREATE TABLE ledger (id bigint PRIMARY KEY)")
            conn.execute("CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM which")
            conn.execute("INSERT INTO which (x) SELECT %s FROM generate_series(1, %s)", [text, ROWS])
    pair = Pair(server, name, 0, new, folder)
    pair.old = pair.live()
    return pair
