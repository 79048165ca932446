"""Databases in which a merge can be made and proved, without backups: the central in public, sources beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import baseline, catalog, engine, planner, proof_central, proof_source
from merge.plan import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import psycopg

    from merge.catalog import Catalog
    from merge.engine import Merged
    from merge.plan import Plan
    from merge.profile import Profile
    from merge.proof import Proof
    from sandbox.server import Server

OWNER = "homolog_test"
MERGE = "homolog_test_merge"


@dataclass
class Bench:
    """One database: `make` the central, `prepare` once, then `load`, `merge` and `prove` sources."""

    server: Server
    database: str
    rows: dict[int, Mapping[str, int]] = field(default_factory=dict)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As superuser."""
        return self.server.connect(self.database)

    def owner(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the owner of the central's objects."""
        return self.server.connect(self.database, OWNER)

    def merger(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the role that merges: not superuser, and no trigger fires for it."""
        return self.server.connect(self.database, MERGE)

    def prepare(self, profile: Profile, scope: str = ALL, keep: Collection[str] = ()) -> tuple[Plan, Catalog]:
        """Plan, and keep the baseline."""
        with self.connect() as conn:
            found = catalog.read(conn, "public")
        plan = planner.make_plan(found, profile, scope, keep)
        with self.merger() as conn:
            engine.create_schema(conn)
        baseline.make_baseline(self.connect, plan, 1)
        with self.connect() as conn:
            ranges = baseline.ranges(conn)
        with self.merger() as conn:
            engine.prepare(conn, plan, found, ranges)
        return plan, found

    def load(
        self, number: int, found: Catalog, fill: Callable[[psycopg.Connection[tuple[Any, ...]], str], Any]
    ) -> None:
        """Make ``src_<number>`` with the central's tables, and fill it as `fill` does in a copy of the schema."""
        with self.merger() as conn, conn.transaction():
            schema = f"src_{number}"
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            for name, table in found.tables.items():
                # With its unique keys, for the filler; a loaded source has none.
                conn.execute(
                    sql.SQL("CREATE TABLE {} (LIKE public.{} INCLUDING INDEXES)").format(
                        sql.Identifier(schema, name), sql.Identifier(name)
                    )
                )
                assert table.name == name
            fill(conn, schema)
            conn.execute(
                sql.SQL(
                    "CREATE TABLE homolog.{} (src oid PRIMARY KEY, dst oid NOT NULL UNIQUE, dangling boolean NOT NULL,"
                    " md5 text, size bigint)"
                ).format(sql.Identifier(f"large_object_{number}"))
            )
            self.rows[number] = {
                name: self._count(conn, schema, name)
                for name in found.tables
            }  # fmt: skip

    @staticmethod
    def _count(conn: psycopg.Connection[tuple[Any, ...]], schema: str, name: str) -> int:
        row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))).fetchone()
        assert row is not None
        return int(row[0])

    def merge(self, plan: Plan, found: Catalog, number: int) -> Merged:
        """Merge one source."""
        with self.merger() as conn:
            return engine.merge_source(conn, plan, found, number, f"source {number}", self.rows[number])

    def prove(self, plan: Plan) -> list[Proof]:
        """All proofs."""
        proofs = [proof_source.prove_source(self.connect, plan, number, 1) for number in self.rows]
        return [*proofs, proof_central.prove_central(self.connect, plan, list(self.rows), 1)]


@pytest.fixture
def bench(server: Server, database: str) -> Bench:
    """An empty database with the roles of a merge."""
    server.create_role(MERGE, member_of=OWNER, settings={"session_replication_role": "replica"})
    return Bench(server, database)
