"""Backups in every form, of a database with odd types and every kind of object."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sandbox import archive as archives
from sandbox.embedded import EmbeddedServer
from sandbox.sample.make import DUMP_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

OWNER = "odd_owner"
DATABASE = "odd"
DEBIAN = Path("/usr/lib/postgresql/15/bin")

SECRET = "MARIA DA SILVA 12345678909"
"""Stands for a patient: may be in no error."""

SCHEMA = r"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'hap''py');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN percent AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN object AS oid;
CREATE SCHEMA other;
CREATE TABLE parent (id bigint PRIMARY KEY, name text NOT NULL UNIQUE, junk integer);
ALTER TABLE parent DROP COLUMN junk;
CREATE TABLE "Odd TYPES" (
    id bigint PRIMARY KEY, parent_id bigint REFERENCES parent, "Upper" text, f4 real, f8 double precision,
    n numeric, scaled numeric(20, 6), b bytea, ts timestamptz, t timestamp, d date, iv interval, j json, jb jsonb,
    p point, m mood, ms mood[], c pair, cs pair[], dom percent, a integer[], ta text[], u uuid, bits bit varying,
    ip inet, r int4range, tv tsvector, doubled bigint GENERATED ALWAYS AS (id * 2) STORED NOT NULL, cl regclass);
CREATE TABLE no_key (a integer, b text);
CREATE TABLE empty (id integer PRIMARY KEY);
CREATE TABLE no_columns ();
CREATE TABLE holder (id integer PRIMARY KEY, lob oid, typed object);
CREATE TABLE part (id integer, v text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (50);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (50) TO (100);
CREATE TABLE other.elsewhere (id integer PRIMARY KEY, v text);
CREATE INDEX ON "Odd TYPES" (lower("Upper")) WHERE id > 3;
CREATE SEQUENCE seq_of_nobody START 77;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
    AS $f$ BEGIN NEW.b := coalesce(NEW.b, ';'); RETURN NEW; END $f$;
CREATE FUNCTION two() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 2 END; END;
CREATE TRIGGER touched BEFORE INSERT ON no_key FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW seen AS SELECT id, name FROM parent WHERE name <> ';';
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM "Odd TYPES";
CREATE RULE quiet AS ON DELETE TO no_columns DO ALSO (SELECT 1; SELECT 2);
COMMENT ON TABLE parent IS 'it''s a "parent"; \ and $$';
COMMENT ON COLUMN parent.name IS E'tab\there';
"""

ROWS = r"""
INSERT INTO parent SELECT g, 'n' || g FROM generate_series(1, 50) g;
INSERT INTO parent VALUES (-9223372036854775808, E'\\.'), (100, ''), (101, E'a\n\\.\nb'),
    (102, E'\r\n\t\\N\b'), (103, 'çãé 😀 日本');
INSERT INTO "Odd TYPES" (id, parent_id, "Upper", f4, f8, n, scaled, b, ts, t, d, iv, j, jb, p, m, ms, c, cs, dom,
                         a, ta, u, bits, ip, r, tv, cl)
SELECT g, g, 'X' || g, g / 3.0::real, g / 7.0::double precision, g / 3.0, g / 3.0, decode(md5(g::text), 'hex'),
       timestamptz '2000-01-01 12:34:56.789012+03' + g * interval '1 day 1 microsecond', '1999-12-31 23:59:59.999999',
       date '0044-03-15 BC', interval '1 mon -3 days 04:05:06.7', '{"a" : 1,  "a":2}', '{"b": [1, null]}',
       point(g, 0.1),
       'hap''py', '{sad,ok}', ROW(g, E'q"\n,')::pair, ARRAY[ROW(1, NULL)::pair, ROW(NULL, '')::pair], 33.30,
       '{{1,2},{3,NULL}}',
       ARRAY['a,b', '"', NULL, 'NULL', E'\\'], md5(g::text)::uuid, B'1011', '10.0.0.0/8', '[1,5)',
       'fat:2 cat:3', 'parent'
  FROM generate_series(1, 40) g;
INSERT INTO "Odd TYPES" (id) VALUES (1000);
INSERT INTO "Odd TYPES" (id, f4, f8, n, ts, d) VALUES
    (1001, '-0', '-0', 'NaN', 'infinity', '-infinity'), (1002, 'NaN', 'NaN', 0.000, '-infinity', 'infinity'),
    (1003, 'Infinity', '-Infinity', 1.10, '4713-01-01 BC', '5874897-12-31'),
    (1004, 1.17549435e-38, 2.2250738585072014e-308, 1e100, NULL, NULL), (1005, 0.1, 0.1 + 0.2::float8, 1.1, NULL, NULL);
INSERT INTO no_key SELECT g % 3, E'line\nbreak' || g % 3 FROM generate_series(1, 30) g;
INSERT INTO no_key VALUES (1, 'MARIA DA SILVA 12345678909');
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO part SELECT g, 'p' || g FROM generate_series(0, 99) g;
INSERT INTO other.elsewhere VALUES (1, 'x');
SELECT setval('seq_of_nobody', 4711);
SELECT lo_create(70001), lo_from_bytea(70002, repeat('page', 3000)::bytea), lo_from_bytea(70003, '\x00ff'::bytea);
SELECT lo_create(70004); SELECT lo_put(70004, 10000, 'after a hole');
INSERT INTO holder VALUES (1, 70001, 70002), (2, 70003, 70004), (3, NULL, NULL), (4, 80000, 80001),
    (5, 80000, 70003), (6, 0, 0);
REFRESH MATERIALIZED VIEW counted;
"""

FORMS: dict[str, tuple[str, ...]] = {
    "custom": DUMP_OPTIONS,
    "raw": ("-Fc", "-Z0"),
    "directory": ("-Fd",),
    "tar": ("-Ft",),
    "plain": ("-Fp",),
    "create": ("-Fp", "-C"),
    "inserts": ("-Fc", "--inserts"),
    "plain-inserts": ("-Fp", "--inserts", "--column-inserts"),
}
WRAPPED = ("custom.gz", "plain.gz", "tar.gz", "directory.tgz", "custom.zip", "plain.zip", "directory.zip")
ALL_FORMS = (*FORMS, *WRAPPED)


def dump(server: Server, path: Path, form: str, database: str = DATABASE) -> Path:
    """Make one backup of a database of a test server."""
    base, _, wrapper = form.partition(".")
    if not wrapper:
        server.tool("pg_dump", *FORMS[base], "--file", server.path(path), database=database).run()
        return path
    inner = dump(server, path.with_name(f"{path.name}-inner"), base, database)
    files = [f for f in inner.rglob("*") if f.is_file()] if inner.is_dir() else [inner]
    if wrapper == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(inner.parent))
    elif wrapper == "tgz":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(inner, "backup")
    else:
        path.write_bytes(gzip.compress(inner.read_bytes()))
    return path


def flipped(path: Path, target: Path) -> Iterator[Path]:
    """Copies of a backup, each with another byte of its compressed data changed."""
    if path.is_dir():
        for file in sorted(path.glob("*.gz")):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target)
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 0x55
            (target / file.name).write_bytes(raw)
            yield target
        return
    whole = path.read_bytes()
    for entry in archives.read(path):
        if entry.size > 200 and entry.offset is not None:
            for place in (entry.offset + 40, entry.offset + entry.size // 2, entry.offset + entry.size - 8):
                target.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
                yield target


def fingerprint(conn: psycopg.Connection[tuple[Any, ...]], schema: str) -> dict[str, tuple[int, str]]:
    """Rows and a hash of all of them as text, by table; columns that are generated or a reg* name are left out."""
    conn.execute("SET extra_float_digits = 3")
    conn.execute("SET search_path = pg_catalog")
    tables = conn.execute(
        "SELECT c.relname, (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname) FROM pg_attribute a"
        "   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'doubled')"
        "  FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = %s::regnamespace",
        [schema],
    ).fetchall()
    result = {}
    for table, columns in tables:
        row = conn.execute(
            f"SELECT count(*), coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '')"
            f' FROM (SELECT {columns or ""} FROM ONLY "{schema}"."{table}") t'
        ).fetchone()
        assert row is not None
        result[table] = row
    return result


def fill(server: Server) -> None:
    """Make the odd database."""
    server.create_role(OWNER)
    server.create_database(DATABASE, OWNER)
    with server.connect(DATABASE, OWNER) as conn:
        conn.execute(SCHEMA.encode())
        conn.execute(ROWS.encode())
        conn.execute("CREATE TABLE markup (id integer, x xml)")
        with suppress(psycopg.errors.FeatureNotSupported):  # a server may be made without libxml
            conn.execute("INSERT INTO markup VALUES (1, '<a b=\"1\">é&lt;</a>'), (2, NULL)")
    with server.connect(DATABASE) as conn:
        conn.execute("COMMENT ON DATABASE odd IS 'it''s odd'; ALTER DATABASE odd SET datestyle TO 'ISO', 'DMY'")


class Backups:
    """Backups of the odd database of one server, made when they are asked for."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def __getitem__(self, form: str) -> Path:
        path = self.folder / form
        return path if path.exists() else dump(self.server, path, form)


@pytest.fixture(scope="session")
def backups(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """Backups of the odd database, made by PostgreSQL 16."""
    fill(server)
    yield Backups(server, tmp_path_factory.mktemp("backups16"))
    server.drop_database(DATABASE)


@pytest.fixture(scope="session")
def backups18(server18: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """Backups of the odd database, made by PostgreSQL 18."""
    fill(server18)
    yield Backups(server18, tmp_path_factory.mktemp("backups18"))
    server18.drop_database(DATABASE)


@pytest.fixture(scope="session")
def server15() -> Iterator[Server]:
    """A started server of PostgreSQL 15 with contrib, where the host has one."""
    if not DEBIAN.is_dir():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN}")
    folder = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    server = EmbeddedServer(folder / "server", binaries=DEBIAN, memory=2**30)
    try:
        server.start()
        yield server
    finally:
        server.destroy()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def backups15(server15: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """Backups of the odd database, made by PostgreSQL 15."""
    fill(server15)
    yield Backups(server15, tmp_path_factory.mktemp("backups15"))
    server15.drop_database(DATABASE)
