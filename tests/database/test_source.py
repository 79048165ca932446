"""Rows and large objects of a source, brought beside the central."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge.errors import BackupError, SchemaDifference
from sandbox import large_objects
from sandbox.intake import Backup, inspect
from sandbox.restore import restore_central
from sandbox.source import load_source, restore_schema
from tests.fix_backup import ALL_FORMS, DATABASE, OWNER, SECRET, Backups, dump, fingerprint, flipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server import Server


def make_target(server: Server, backups: Backups, work: Path) -> str:
    """A restored central, with the role that merges."""
    restore_central(server, inspect(backups["custom"], work=work), "target", jobs=2)
    server.create_role("homolog_merge", member_of="homolog_central", settings={"session_replication_role": "replica"})
    return "target"


@pytest.fixture
def target(server: Server, backups: Backups, tmp_path: Path) -> Iterator[str]:
    try:
        yield make_target(server, backups, tmp_path / "central")
    finally:
        clean(server)


def clean(server: Server) -> None:
    with server.connect("postgres") as conn:
        found = conn.execute("SELECT datname FROM pg_database WHERE datname ~ '^(target|source_)'").fetchall()
    for (name,) in found:
        server.drop_database(name)


def check_loaded(server: Server, target: str, backup: Backup, *, route: Any = None) -> None:
    """Load and compare with the database that the backup was taken from."""
    seen: list[tuple[int, int]] = []
    with server.connect(target) as conn:
        objects_before = conn.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
    loaded = load_source(
        server, backup, number=3, target=target, jobs=2, route=route, on_progress=lambda *p: seen.append(p)
    )
    assert seen
    assert all(0 <= done <= total for done, total in seen)
    with server.connect(DATABASE) as was, server.connect(target) as now:
        expected = fingerprint(was, "public")
        assert fingerprint(now, "src_3") == expected
        assert dict(loaded.rows) == {table: rows for table, (rows, _) in expected.items()}
        kinds = now.execute("SELECT DISTINCT relkind::text FROM pg_class WHERE relnamespace = 'src_3'::regnamespace")
        assert kinds.fetchall() == [("r",)]
        assert now.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'src_3.no_key'::regclass").fetchone() == (
            0,
        )
        assert now.execute("SELECT count(*) FROM pg_class WHERE oid IN (SELECT indrelid FROM pg_index)"
                           " AND relnamespace = 'src_3'::regnamespace").fetchone() == (0,)  # fmt: skip
        # every object of the source, byte by byte
        theirs = was.execute("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY 1").fetchall()
        ours = now.execute(
            "SELECT src, lo_get(dst) FROM homolog.large_object_3 WHERE NOT dangling ORDER BY 1"
        ).fetchall()
        assert ours == theirs
        owners = now.execute("SELECT DISTINCT pg_get_userbyid(lomowner) FROM pg_largeobject_metadata")
        assert owners.fetchall() == [("homolog_central",)]
        dangling = now.execute("SELECT src, dst FROM homolog.large_object_3 WHERE dangling ORDER BY 1").fetchall()
        assert [src for src, _ in dangling] == [0, 80000, 80001]
        assert (loaded.large_objects, loaded.dangling) == (4, 3)
        mentioned = {oid for row in now.execute("SELECT lob, typed FROM public.holder").fetchall() for oid in row}
        fresh = {dst for (dst,) in now.execute("SELECT dst FROM homolog.large_object_3").fetchall()}
        assert not fresh & mentioned
        named = now.execute("SELECT oid FROM pg_largeobject_metadata").fetchall()
        assert not {dst for _, dst in dangling} & {oid for (oid,) in named}
        objects = now.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
        assert objects is not None
        assert objects_before is not None
        assert objects[0] == objects_before[0] + 4
        left = now.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'homolog'::regnamespace"
        )
        assert {name for (name,) in left.fetchall()} == {"loaded", "large_object_3"}
    assert not server.has_database("source_3_data")
    assert not list(backup.work.glob("*.list"))


@pytest.mark.parametrize("form", ALL_FORMS)
def test_rows_are_identical(server: Server, backups: Backups, target: str, tmp_path: Path, form: str) -> None:
    check_loaded(server, target, inspect(backups[form], work=tmp_path / "work"))


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_route_by_restore(server: Server, backups: Backups, target: str, tmp_path: Path, form: str) -> None:
    check_loaded(server, target, inspect(backups[form], work=tmp_path / "work"), route="restore")


@pytest.mark.parametrize("form", ["custom", "tar", "create", "inserts"])
def test_version_18(server18: Server, backups18: Backups, tmp_path: Path, form: str) -> None:
    try:
        target = make_target(server18, backups18, tmp_path / "central")
        check_loaded(server18, target, inspect(backups18[form], work=tmp_path / "work"))
    finally:
        clean(server18)


@pytest.mark.parametrize("form", ["custom", "plain", "inserts"])
def test_version_15(server15: Server, backups15: Backups, tmp_path: Path, form: str) -> None:
    try:
        target = make_target(server15, backups15, tmp_path / "central")
        check_loaded(server15, target, inspect(backups15[form], work=tmp_path / "work"))
    finally:
        clean(server15)


@pytest.mark.parametrize("form", ["custom", "directory", "tar", "create", "plain-inserts"])
def test_schema_alone(server: Server, backups: Backups, tmp_path: Path, form: str) -> None:
    backup = inspect(backups[form], work=tmp_path / "work")
    try:
        for _ in range(2):  # an interrupted one is made anew
            database = restore_schema(server, backup, number=3, jobs=2)
        assert database == "source_3"
        with server.connect(database) as conn, server.connect(DATABASE) as was:
            assert {rows for rows, _ in fingerprint(conn, "public").values()} == {0}
            query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
            assert conn.execute(query).fetchall() == was.execute(query).fetchall()
            assert conn.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)
            owner = conn.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
            assert owner == [("homolog_source_3",)]
    finally:
        clean(server)


def test_loaded_once_and_interrupted_anew(
    server: Server, backups: Backups, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = inspect(backups["custom"], work=tmp_path / "work")
    transfer = large_objects.transfer

    def interrupted(*args: Any, **options: Any) -> tuple[int, int]:
        transfer(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(large_objects, "transfer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_source(server, backup, number=3, target=target)
    check_loaded(server, target, backup)
    with server.connect(target) as conn:
        conn.execute("DELETE FROM src_3.empty; DELETE FROM src_3.no_key")
        again = load_source(server, backup, number=3, target=target)
        assert again.rows["no_key"] == 31
        assert conn.execute("SELECT count(*) FROM src_3.no_key").fetchone() == (0,)


def test_two_sources_get_different_objects(server: Server, backups: Backups, target: str, tmp_path: Path) -> None:
    backup = inspect(backups["custom"], work=tmp_path / "work")
    for number in (1, 2):
        load_source(server, backup, number=number, target=target)
    with server.connect(target) as conn:
        query = (
            "SELECT count(*), count(DISTINCT dst) FROM"
            " (SELECT dst FROM homolog.large_object_1 UNION ALL SELECT dst FROM homolog.large_object_2) s"
        )
        assert conn.execute(query).fetchone() == (14, 14)


def test_columns_in_another_order(server: Server, backups: Backups, tmp_path: Path, target: str) -> None:
    with server.connect(target, "homolog_central") as conn:
        conn.execute("DROP TABLE no_key; CREATE TABLE no_key (b text, gone integer, a integer)")
        conn.execute("ALTER TABLE no_key DROP COLUMN gone")
    load_source(server, inspect(backups["custom"], work=tmp_path / "work"), number=3, target=target)
    with server.connect(target) as conn, server.connect(DATABASE) as was:
        assert fingerprint(conn, "src_3")["no_key"] == fingerprint(was, "public")["no_key"]


def test_table_that_the_central_lacks(server: Server, backups: Backups, tmp_path: Path, target: str) -> None:
    with server.connect(target, "homolog_central") as conn:
        conn.execute("DROP TABLE no_key")
    with pytest.raises(SchemaDifference) as caught:
        load_source(server, inspect(backups["custom"], work=tmp_path / "work"), number=3, target=target)
    assert caught.value.details == ("no_key",)
    assert caught.value.evidence == str(backups["custom"])


@pytest.mark.parametrize("route", ["copy", "restore"])
def test_errors_tell_no_rows(server: Server, backups: Backups, tmp_path: Path, target: str, route: Any) -> None:
    with server.connect(target, "homolog_central") as conn:
        conn.execute("ALTER TABLE no_key ALTER b TYPE integer USING 1")
    with pytest.raises(BackupError) as caught:
        load_source(
            server, inspect(backups["custom"], work=tmp_path / "work"), number=3, target=target, jobs=2, route=route
        )
    assert caught.value.evidence == str(backups["custom"])
    told = " ".join([caught.value.what, *caught.value.details])
    assert "no_key" in told
    assert "22P0" in told
    assert "break" not in told
    assert SECRET not in told
    with server.connect(target) as conn:
        assert conn.execute("SELECT to_regclass('homolog.large_object_3')").fetchone() == (None,)
        assert conn.execute("SELECT count(*) FROM homolog.loaded").fetchone() == (0,)


@pytest.mark.parametrize("route", ["copy", "restore"])
def test_data_that_change_after_the_intake(
    server: Server, backups: Backups, tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture, route: Any
) -> None:
    path = tmp_path / "backup"
    refused = 0
    for corrupt in flipped(backups["custom"], tmp_path / "corrupt"):
        shutil.copy(backups["custom"], path)
        backup = inspect(path, work=tmp_path / "work")
        shutil.copy(corrupt, path)
        with pytest.raises(BackupError) as caught:
            load_source(server, backup, number=3, target=target, jobs=2, route=route)
        assert caught.value.evidence == str(path)
        refused += 1
        assert not server.has_database("source_3_data")
    assert refused >= 6
    assert not caplog.text  # psycopg would quote a row


@pytest.mark.parametrize(("form", "route"), [("raw", "copy"), ("raw", "restore"), ("plain", "copy"), ("tar", "copy")])
def test_a_row_that_lacks_a_column(
    server: Server, backups: Backups, tmp_path: Path, target: str, form: str, route: Any
) -> None:
    """Nothing shows it but the load: the error names the file and the table."""
    path = tmp_path / "backup"
    whole = backups[form].read_bytes()
    assert whole.count(b"7\tn7\n") == 1
    path.write_bytes(whole.replace(b"7\tn7\n", b"7,n7\n"))
    backup = inspect(path, work=tmp_path / "work")
    with pytest.raises(BackupError) as caught:
        load_source(server, backup, number=3, target=target, jobs=2, route=route)
    assert caught.value.evidence == str(path)
    assert "parent" in " ".join([caught.value.what, *caught.value.details])


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_backup_that_is_cut_off_after_the_intake(
    server: Server, backups: Backups, tmp_path: Path, target: str, form: str
) -> None:
    path = tmp_path / "backup"
    whole = backups[form].read_bytes()
    path.write_bytes(whole)
    backup = inspect(path, work=tmp_path / "work")
    path.write_bytes(whole[: whole.index(b"\n7\tn7\n")] if form == "plain" else whole[:-3000])
    with pytest.raises(BackupError) as caught:
        load_source(server, backup, number=3, target=target)
    assert caught.value.evidence == str(path)
    if form == "plain":
        assert caught.value.details == ("parent",)


HOSTILE = rb"""-- PostgreSQL database dump
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE FUNCTION public.intrude() RETURNS void LANGUAGE sql AS $$ INSERT INTO public.no_key VALUES (-1, 'intruder') $$;
SELECT public.intrude();
INTRUDE;
COPY public.no_key (a, b) FROM stdin;
1	\\.
2	\\.\\nDROP TABLE public.no_key;
3	'; DROP TABLE public.no_key; --
\.
DROP TABLE public.no_key;
COPY other.elsewhere (id, v) FROM stdin;
9	intruder
\.
COPY pg_catalog.pg_class (relname) FROM stdin;
intruder
\.
UPDATE public.parent SET name = 'intruder';
-- PostgreSQL database dump complete
"""


def test_nothing_of_a_source_is_executed(server: Server, tmp_path: Path, target: str) -> None:
    path = tmp_path / "script"
    path.write_bytes(HOSTILE)
    with server.connect(target) as conn:
        before = fingerprint(conn, "public"), fingerprint(conn, "other")
        backup = inspect(path, work=tmp_path / "work")
        tables = tuple(t for t in backup.tables if "." not in t)
        assert tables == ("no_key",)
        load_source(server, backup, number=3, target=target)
        assert (fingerprint(conn, "public"), fingerprint(conn, "other")) == before
        rows = conn.execute("SELECT b FROM src_3.no_key ORDER BY a").fetchall()
        assert rows == [("\\.",), ("\\.\\nDROP TABLE public.no_key;",), ("'; DROP TABLE public.no_key; --",)]
        functions = conn.execute("SELECT count(*) FROM pg_proc WHERE proname = 'intrude'").fetchone()
        assert functions == (0,)


def test_a_table_that_comes_twice_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    path = tmp_path / "script"
    block = b"COPY public.no_key (a, b) FROM stdin;\n1\tx\n\\.\n"
    path.write_bytes(HOSTILE.replace(b"DROP TABLE public.no_key;\nCOPY other", block + b"COPY other"))
    with pytest.raises(BackupError) as caught:
        load_source(server, inspect(path, work=tmp_path / "work"), number=3, target=target)
    assert caught.value.details == ("no_key",)


def test_many_dangling_and_large_objects(server: Server, tmp_path: Path) -> None:
    """Thousands of objects in one transaction, and an OID at the very end of the range."""
    server.create_role(OWNER)
    server.create_database("source_many", OWNER)
    try:
        with server.connect("source_many", OWNER) as conn:
            conn.execute("CREATE TABLE t (o oid); INSERT INTO t VALUES (4294967295)")
            conn.execute("INSERT INTO t SELECT lo_from_bytea(0, g::text::bytea) FROM generate_series(1, 3000) g")
            conn.execute("INSERT INTO t SELECT 3000000000 + g FROM generate_series(1, 100000) g")
        backup = inspect(dump(server, tmp_path / "many", "custom", "source_many"), work=tmp_path / "work")
        restore_central(server, backup, "target")
        server.create_role("homolog_merge", member_of="homolog_central")
        loaded = load_source(server, backup, number=1, target="target", jobs=2)
        assert (loaded.large_objects, loaded.dangling) == (3000, 100001)
        with server.connect("target") as conn:
            overlap = sql.SQL("SELECT count(*) FROM homolog.large_object_1 JOIN public.t ON dst = o")
            assert conn.execute(overlap).fetchone() == (0,)
    finally:
        clean(server)
