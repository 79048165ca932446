"""A synthetic PEC database, filled once for all tests that ask something of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import create_schema, fill, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from sandbox.server import Server

OWNER = "homolog_test"


@dataclass(frozen=True)
class Base:
    """One database and its owner, who is not superuser."""

    server: Server
    database: str

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the owner of the tables."""
        return self.server.connect(self.database, OWNER)

    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As superuser."""
        return self.server.connect(self.database)


@pytest.fixture(scope="session")
def filled_central(server: Server) -> Iterator[Base]:
    """A small central, whole; tests must leave it as it was."""
    base = Base(server, "test_filled_central")
    installations = world(scale=0.34, seed=7)
    server.create_database(base.database, OWNER)
    with base.connect() as conn:
        create_schema(conn)
    with base.admin() as conn:
        fill(conn, installations[0], installations)
    yield base
    server.drop_database(base.database)


def declared(*tables: str) -> str:
    """The statements that make some tables of the sample's schema, without what refers to others, and the history of
    each with its trigger.
    """
    schema = files("sandbox.sample").joinpath("schema.sql").read_text(encoding="utf-8")
    statements = []
    for table in tables:
        for name in (table, table.replace("tb_", "ta_", 1)):
            if found := re.search(rf"^CREATE TABLE {name} \(.*?^\);", schema, re.MULTILINE | re.DOTALL):
                statements.append(found[0])
        trigger = rf"^CREATE FUNCTION audit_{table}\(\).*?^CREATE TRIGGER audit_{table} [^\n]*;"
        if found := re.search(trigger, schema, re.MULTILINE | re.DOTALL):
            name = f"ta_{table.removeprefix('tb_')}"
            statements += re.findall(rf"^CREATE SEQUENCE \w+; -- {name}\.\w+$", schema, re.MULTILINE)
            statements.append(found[0])
    return "\n".join(statements)
