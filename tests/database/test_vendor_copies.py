"""The copies to which both bases are put back when the vendor's unification was interrupted, or went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sandbox.pec.vendor import central_base, checkpoint, put_back, source_base

if TYPE_CHECKING:
    from sandbox.pec.stack_server import StackServer
    from sandbox.server import Server


def _write(server: Server, database: str, value: int) -> None:
    with server.connect(database) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS t (x int)")
        conn.execute("INSERT INTO t VALUES (%s)", [value])


def _read(server: Server, database: str) -> list[int]:
    with server.connect(database) as conn:
        return [x for (x,) in conn.execute("SELECT x FROM t ORDER BY 1").fetchall()]


def test_both_bases_are_what_they_were_before_this_source_and_no_other(server: Server) -> None:
    central = central_base()
    made = [central.database, *(source_base(number).database for number in (1, 2))]
    try:
        for database in made:
            server.create_database(database, "homolog_test")
        with server.connect("postgres") as conn:
            conn.execute(f"ALTER DATABASE {central.database} SET work_mem = '7MB'")
        for number in (1, 2):  # as if the first one's copies were still there when the second one is interrupted
            for base in (central, source_base(number)):
                _write(server, base.database, number)
                made.append(checkpoint(base, number))
                server.copy_database(base.database, made[-1])
                _write(server, base.database, 10 * number)
        put_back(cast("StackServer", server), 2)
        assert _read(server, central.database) == [1, 2, 10]
        assert _read(server, source_base(2).database) == [2]
        assert _read(server, source_base(1).database) == [1, 10]
        with server.connect(central.database) as conn:
            asked = "SELECT pg_get_userbyid(datdba), current_setting('work_mem') FROM pg_database WHERE datname = %s"
            assert conn.execute(asked, [central.database]).fetchall() == [("homolog_test", "7MB")]
    finally:
        for database in made:
            server.drop_database(database)
