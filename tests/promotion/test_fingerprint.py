"""Every change of a database shows in its fingerprint, and no restore of it does."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from merge import fingerprint
from merge.errors import BlockedError
from merge.fingerprint import Fingerprint, differences
from sandbox.promotion.production import Production
from sandbox.sample.make import DUMP_OPTIONS
from tests.fix_backup import ROWS, SCHEMA
from tests.fix_production import DATABASE, OWNER, READER, production_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_production import ProductionServer

MORE = r"""
    CREATE EXTENSION IF NOT EXISTS plpgsql;
    CREATE TABLE nulls (a integer, b text, r integer);
    INSERT INTO nulls SELECT NULL, NULL FROM generate_series(1, 3);
    CREATE UNLOGGED TABLE fleeting (id integer);
    INSERT INTO fleeting VALUES (1);
    CREATE TABLE kinds (
        id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, kind varchar(9) CHECK (kind IN ('one', 'two')),
        cash money, "time" timetz, bp char(5), big bytea, net macaddr, ref regproc);
    INSERT INTO kinds (kind, cash, "time", bp, big, net, ref)
        VALUES ('one', 1234.5, '01:02:03+03', 'ab', decode(repeat('00ff', 5000), 'hex'), '08:00:2b:01:02:03', 'touch');
    ALTER TABLE kinds ADD COLUMN late text DEFAULT 'was not there';
    CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
    CREATE TABLE guarded (id integer);
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON guarded TO esus_owner USING (id > (0)::bigint);
"""


class Odd:
    """A database with everything odd in it, and its fingerprint."""

    def __init__(self, server: ProductionServer, folder: Path) -> None:
        self.server = server
        with server.connect(DATABASE, OWNER) as conn:
            conn.execute((SCHEMA + ROWS + MORE).encode())
        self.folder = folder
        self.production = Production(server.dsn(), folder)
        self.fingerprint = self.take(DATABASE)

    def take(self, database: str, **options: Any) -> Fingerprint:
        return fingerprint.take(lambda: self.production.connect(database), **options)

    def copy(self, *statements: str) -> Fingerprint:
        """The fingerprint of a copy in which something was done."""
        with self.server.connect("postgres") as outside:
            outside.execute("DROP DATABASE IF EXISTS odd_copy")
            outside.execute(f"CREATE DATABASE odd_copy TEMPLATE {DATABASE}")
        with self.server.connect("odd_copy", row_factory=psycopg.rows.tuple_row) as conn:
            for statement in statements:
                conn.execute(statement.encode())
        return self.take("odd_copy")


def _odd(major: int, folder: Path) -> Iterator[Odd]:
    for server in production_server(major):
        made = Odd(server, folder)
        yield made
        made.production.close()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    yield from _odd(16, tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def odd18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    yield from _odd(18, tmp_path_factory.mktemp("odd"))


@pytest.fixture(params=["odd", "odd18"])
def of_any(request: pytest.FixtureRequest) -> Odd:
    made: Odd = request.getfixturevalue(request.param)
    return made


FIRST = "WHERE id = 7"
COLUMNS = {
    "Upper": "'x7'", "f4": "f4 + 2.4e-7::real", "f8": "f8 * (1 + 2.3e-16::float8)", "n": "n + 1e-20",
    "scaled": "scaled + 0.000001", "b": "set_bit(b, 77, 1 - get_bit(b, 77))", "ts": "ts + interval '1 microsecond'",
    "t": "t - interval '1 microsecond'", "d": "d + 1", "iv": "interval '27 days 04:05:06.7'",
    "j": "'{\"a\": 1,  \"a\":2}'",
    "jb": "'{\"b\": [1, 0]}'",
    "p": "point(p[0], 0.10000000000000002)", "m": "'ok'", "ms": "'{ok,sad}'", "c": "ROW(7, E'q\"\\n,,')::pair",
    "cs": "ARRAY[ROW(1, NULL)::pair, NULL]", "dom": "33.31", "a": "'{{1,2},{NULL,3}}'",
    "ta": "ARRAY['a', 'b', '\"', NULL, 'NULL', E'\\\\']", "u": "md5('8')::uuid", "bits": "B'10110'",
    "ip": "'10.0.0.0/9'",
    "r": "'[1,6)'", "tv": "'fat:2 cat:3A'", "cl": "'holder'", "parent_id": "8",
}  # fmt: skip
"""A small change of every column of the table with odd types."""

CORRUPTIONS: dict[str, tuple[str, str]] = {
    **{f"column {name}": (f'UPDATE "Odd TYPES" SET "{name}" = {value} {FIRST}', 'table public."Odd TYPES"')
       for name, value in COLUMNS.items()},
    "minus zero": ('UPDATE "Odd TYPES" SET f8 = 0 WHERE id = 1001', 'table public."Odd TYPES"'),
    "scale of a numeric": ('UPDATE "Odd TYPES" SET n = 1.1 WHERE id = 1003', 'table public."Odd TYPES"'),
    "a row doubled": ("INSERT INTO no_key SELECT * FROM no_key WHERE ctid = '(0,1)'", "table public.no_key"),
    "a row doubled twice": ("INSERT INTO no_key SELECT n.* FROM no_key n, generate_series(1, 2)"
                            " WHERE n.ctid = '(0,1)'", "table public.no_key"),
    "a row lost": ("DELETE FROM parent WHERE id = 103", "table public.parent"),
    "one of many alike lost": ("DELETE FROM no_key WHERE ctid = '(0,4)'", "table public.no_key"),
    "all rows null, one lost": ("DELETE FROM nulls WHERE ctid = '(0,1)'", "table public.nulls"),
    "no columns": ("INSERT INTO no_columns DEFAULT VALUES", "table public.no_columns"),
    "null and empty": ("UPDATE nulls SET b = '' WHERE ctid = '(0,1)'", "table public.nulls"),
    "values swapped between rows": (
        "UPDATE part SET v = CASE id WHEN 1 THEN 'p2' ELSE 'p1' END WHERE id IN (1, 2)", "table public.part_1"),
    "values swapped between columns": ("UPDATE nulls SET a = 5 WHERE ctid = '(0,1)'", "table public.nulls"),
    "a row of a partition": ("UPDATE part SET v = v || '.' WHERE id = 99", "table public.part_2"),
    "other schema": ("UPDATE other.elsewhere SET v = 'X'", "table other.elsewhere"),
    "a byte far out": ("UPDATE kinds SET big = set_byte(big, 9999, 254)", "table public.kinds"),
    "money": ("UPDATE kinds SET cash = 1234.51", "table public.kinds"),
    "padded": ("UPDATE kinds SET bp = 'ab c'", "table public.kinds"),
    "a late column": ("UPDATE kinds SET late = 'was not here'", "table public.kinds"),
    "emptied": ("TRUNCATE part_2", "table public.part_2"),
    "a table gone": ("DROP TABLE empty", "table public.empty"),
    "a table more": ("CREATE TABLE more (id integer)", "table public.more"),
    "a column more": ("ALTER TABLE empty ADD COLUMN v text", "table public.empty"),
    "a column renamed": ("ALTER TABLE no_key RENAME a TO z", "table public.no_key"),
    "a type widened": ("ALTER TABLE no_key ALTER a TYPE bigint", "table public.no_key"),
    "logged": ("ALTER TABLE fleeting SET LOGGED", "table public.fleeting"),
    "unlogged rows": ("INSERT INTO fleeting VALUES (2)", "table public.fleeting"),
    "a view filled": ("REFRESH MATERIALIZED VIEW unfilled", "materialised view public.unfilled"),
    "a view stale": ('INSERT INTO "Odd TYPES" (id) VALUES (7777);; REFRESH MATERIALIZED VIEW counted;; '
                     'DELETE FROM "Odd TYPES" WHERE id = 7777', "materialised view public.counted"),
    "a sequence": ("SELECT setval('seq_of_nobody', 4712)", "sequence public.seq_of_nobody"),
    "a sequence not called": ("SELECT setval('seq_of_nobody', 4711, false)", "sequence public.seq_of_nobody"),
    "a sequence's step": ("ALTER SEQUENCE seq_of_nobody INCREMENT 2", "sequence public.seq_of_nobody"),
    "a large object's byte": ("SELECT lo_put(70002, 11999, 'f')", "large objects"),
    "a large object longer": ("SELECT lo_put(70003, 2, '\\x00')", "large objects"),
    "an empty large object more": ("SELECT lo_create(70009)", "large objects"),
    "a large object gone": ("SELECT lo_unlink(70001)", "large objects"),
    "contents swapped": ("SELECT lo_unlink(70001), lo_unlink(70003), lo_create(70003),"
                         " lo_from_bytea(70001, '\\x00ff')", "large objects"),
    "an index dropped": ('DROP INDEX "Odd TYPES_lower_idx"', 'object index public."Odd TYPES_lower_idx"'),
    "an index of other columns": ('DROP INDEX "Odd TYPES_lower_idx";; CREATE INDEX "Odd TYPES_lower_idx" ON "Odd TYPES"'
                                  ' (lower("Upper")) WHERE id > 4', 'object index public."Odd TYPES_lower_idx"'),
    "a function changed": ("CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
                           " $f$ BEGIN RETURN NEW; END $f$", "object function public.touch()"),
    "a function of SQL changed": ("CREATE OR REPLACE FUNCTION two() RETURNS bigint LANGUAGE sql"
                                  " BEGIN ATOMIC SELECT CASE WHEN true THEN 3 END; END",
                                  "object function public.two()"),
    "a trigger off": ("ALTER TABLE no_key DISABLE TRIGGER touched", "object trigger public.no_key.touched"),
    "a default": ("ALTER TABLE empty ALTER id SET DEFAULT 5", "object column public.empty.id"),
    "a check": ("ALTER TABLE kinds DROP CONSTRAINT kinds_kind_check",
                "object constraint public.kinds.kinds_kind_check"),
    "a comment": ("COMMENT ON COLUMN parent.name IS 'other'", "object comment table column public.parent.name"),
    "a label": ("ALTER TYPE mood ADD VALUE 'new'", "object type public.mood"),
    "a policy": ("ALTER POLICY mine ON guarded TO PUBLIC", "object policy public.guarded.mine"),
    "a rule": ("DROP RULE quiet ON no_columns", "object rule public.no_columns.quiet"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_change_is_found(odd: Odd, name: str) -> None:
    statements, expected = CORRUPTIONS[name]
    found = odd.copy(*statements.split(";; "))
    shown = [str(unlike) for unlike in differences(odd.fingerprint, found)]
    assert any(line.startswith(f"{expected}:") for line in shown), shown
    assert found.digest != odd.fingerprint.digest


def test_a_copy_is_equal(of_any: Odd) -> None:
    found = of_any.copy('VACUUM FULL "Odd TYPES"', "ANALYZE", "REINDEX TABLE parent")
    assert differences(of_any.fingerprint, found) == ()
    assert found.digest == of_any.fingerprint.digest


def test_a_restored_backup_is_equal(of_any: Odd) -> None:
    path = of_any.folder / "of_any.backup"
    of_any.production.tool("pg_dump", "-Fc", "--file", str(path)).run()
    of_any.server.make_database("restored")
    of_any.production.tool("pg_restore", "--no-owner", "--dbname=restored", str(path)).run()
    found = of_any.take("restored")
    assert [u for u in differences(of_any.fingerprint, found) if u.kind != "object"] == []
    assert differences(of_any.fingerprint, found, restored=True) == ()
    path.unlink()
    of_any.production.tool("pg_dump", "-Fc", "--file", str(path), database="restored").run()
    of_any.server.make_database("restored_again")
    of_any.production.tool("pg_restore", "--no-owner", "--dbname=restored_again", str(path)).run()
    assert differences(found, of_any.take("restored_again")) == (), "what was restored once is restored alike"


def test_what_pecs_backups_leave_out_is_no_difference(of_any: Odd) -> None:
    path = of_any.folder / "pec.backup"
    of_any.production.tool("pg_dump", *DUMP_OPTIONS, "--file", str(path)).run()
    of_any.server.make_database("of_pec")
    of_any.production.tool("pg_restore", "--no-owner", "--dbname=of_pec", str(path)).run()
    found = of_any.take("of_pec")
    assert {u.name for u in differences(of_any.fingerprint, found, objects=False)} == {"public.fleeting"}
    assert differences(of_any.fingerprint, found, restored=True) == ()


@pytest.mark.parametrize("setting", [
    "datestyle = 'SQL, DMY'", "timezone = 'America/Sao_Paulo'", "intervalstyle = 'iso_8601'", "extra_float_digits = -3",
    "bytea_output = 'escape'", "search_path = 'other, public'", "quote_all_identifiers = on", "row_security = off",
    "standard_conforming_strings = off", "default_transaction_isolation = 'read committed'", "xmlbinary = 'hex'",
    "enable_seqscan = off", "statement_timeout = '20ms'", "lc_monetary = 'C.UTF-8'",
    "default_transaction_deferrable = on",
])  # fmt: skip
def test_settings_of_the_database_change_nothing(odd: Odd, setting: str) -> None:
    found = odd.copy(f"ALTER DATABASE odd_copy SET {setting}")
    assert differences(odd.fingerprint, found) == ()


def test_parts_of_a_large_table_add_up(of_any: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(fingerprint, "_PART_BLOCKS", 1)
    assert differences(of_any.fingerprint, of_any.take(DATABASE, jobs=3, on_progress=lambda *p: seen.append(p))) == ()
    assert len(seen) > len(of_any.fingerprint.tables)
    assert sorted(seen)[-1][0] <= sorted(seen)[-1][1]


def test_all_sessions_see_the_snapshot(odd: Odd) -> None:
    odd.copy()
    with odd.server.connect("odd_copy") as holder, odd.server.connect("odd_copy") as writer:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        (snapshot,) = holder.execute("SELECT pg_export_snapshot()").fetchone() or ()
        writer.execute("DELETE FROM parent WHERE id = 103")
        writer.execute("SELECT lo_unlink(70001)")
        then = odd.take("odd_copy", snapshot=snapshot)
        now = odd.take("odd_copy")
    assert differences(odd.fingerprint, then) == ()
    assert {u.kind for u in differences(odd.fingerprint, now)} == {"table", "large objects"}


def test_one_instant_also_without_a_snapshot(odd: Odd) -> None:
    """Rows that move between tables while they are read are in exactly one of them."""
    odd.copy("CREATE TABLE one (id integer)", "CREATE TABLE two (id integer)", "INSERT INTO one VALUES (1)")
    done = False

    def move(*_: int) -> None:
        nonlocal done
        if not done:
            done = True
            with odd.server.connect("odd_copy") as writer:
                writer.execute("WITH gone AS (DELETE FROM one RETURNING id) INSERT INTO two SELECT id FROM gone")

    found = odd.take("odd_copy", jobs=1, on_progress=move)
    assert done
    assert found.tables["public.one"].rows + found.tables["public.two"].rows == 1


def test_it_is_kept_as_json(odd: Odd) -> None:
    kept = json.loads(json.dumps(dataclasses.asdict(odd.fingerprint)))
    again = Fingerprint.from_dict(kept)
    assert again == odd.fingerprint
    assert again.digest == odd.fingerprint.digest
    assert "MARIA" not in json.dumps(kept)


def test_the_owner_may_take_it_and_a_reader_is_told_what_is_closed(of_any: Odd) -> None:
    assert differences(of_any.fingerprint, fingerprint.take(lambda: of_any.server.connect(DATABASE, OWNER))) == ()
    with pytest.raises(BlockedError) as caught:
        fingerprint.take(lambda: of_any.server.connect(DATABASE, READER))
    assert 'public."Odd TYPES"' in caught.value.details


def test_code_of_the_database_is_not_called(odd: Odd) -> None:
    """A cast of a row to text, and functions that pass for the server's, are the central's own and do not run."""
    found = odd.copy(
        "CREATE FUNCTION trap(parent) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RAISE 'called'; END $f$",
        "CREATE CAST (parent AS text) WITH FUNCTION trap(parent) AS IMPLICIT",
        "CREATE FUNCTION md5(parent) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RAISE 'called'; END $f$",
        "CREATE FUNCTION format(text, parent) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RAISE 'called'; END $f$",
    )
    assert found.tables == odd.fingerprint.tables


def test_a_row_that_is_hidden_is_not_passed_over(odd: Odd) -> None:
    odd.copy("ALTER TABLE guarded FORCE ROW LEVEL SECURITY")
    with pytest.raises(BlockedError):
        fingerprint.take(lambda: odd.server.connect("odd_copy", OWNER))


def test_a_table_that_stays_locked_is_told(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fingerprint._SETTINGS, "lock_timeout", "200ms")
    with odd.server.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE parent")
        with pytest.raises(BlockedError, match=r"locked|bloqueada"):
            odd.take(DATABASE)


def test_expressions_that_a_restore_writes_otherwise(odd: Odd) -> None:
    """PostgreSQL moves the casts of some when it reads again what it wrote; that is no difference, others are."""
    statements = (
        "CREATE TABLE told (id integer, v varchar(3) CHECK (v IN ('a', 'b') OR id > 5), n numeric DEFAULT 1.5)",
        "CREATE VIEW seen_otherwise AS SELECT * FROM told WHERE v IN ('a', 'b') AND (id > 3 OR id < 1)",
        "CREATE INDEX told_some ON told (id) WHERE v IN ('a', 'b')",
    )
    before = odd.copy(*statements)
    path = odd.folder / "otherwise.backup"
    odd.production.tool("pg_dump", "-Fc", "--file", str(path), database="odd_copy").run()
    odd.server.make_database("otherwise")
    odd.production.tool("pg_restore", "--no-owner", "--dbname=otherwise", str(path)).run()
    found = odd.take("otherwise")
    assert {u.kind for u in differences(before, found)} == {"object"}
    assert differences(before, found, restored=True) == ()
    for change, name in {
        "ALTER TABLE told DROP CONSTRAINT told_check, ADD CONSTRAINT told_check CHECK (v IN ('a', 'c') OR id > 5)":
            "constraint public.told.told_check",
        "DROP INDEX told_some; CREATE INDEX told_some ON told (id) WHERE v IN ('a')": "index public.told_some",
        "CREATE OR REPLACE VIEW seen_otherwise AS SELECT * FROM told WHERE v IN ('a', 'b') AND (id > 3 OR id < 2)":
            'rule public.seen_otherwise."_RETURN"',
        "ALTER TABLE told ALTER n SET DEFAULT 1.6": "column public.told.n",
    }.items():  # fmt: skip
        changed = odd.copy(*statements, change)
        assert [u.name for u in differences(found, changed, restored=True)] == [name]
