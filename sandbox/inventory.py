"""Print the inventory of the sample's schema: ``python -m sandbox.inventory > merge/profiles/pec.inventory``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from merge import catalog, inventory
from sandbox.embedded import EmbeddedServer
from sandbox.sample import create_schema
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from sandbox.server import Server

_HEAD = (
    "# The tables of e-SUS APS PEC and their columns, * before those of the primary key, as in the sample's schema.\n"
    "# Rebuilt from public material, never checked against a real PEC. Made by: python -m sandbox.inventory\n"
)
_DATABASE = "inventory"


def sample_inventory(server: Server) -> str:
    """The inventory of the schema that the samples have, as text; its database is made and dropped again."""
    server.drop_database(_DATABASE)
    server.create_database(_DATABASE, ADMIN)
    try:
        with server.connect(_DATABASE) as conn:
            create_schema(conn)
            return _HEAD + inventory.render(inventory.of_catalog(catalog.read(conn, "public")))
    finally:
        server.drop_database(_DATABASE)


def main() -> None:
    """Write it to standard output."""
    with tempfile.TemporaryDirectory() as scratch:
        server = EmbeddedServer(Path(scratch) / "server")
        try:
            server.start()
            sys.stdout.write(sample_inventory(server))
        finally:
            server.destroy()


if __name__ == "__main__":
    main()
