"""A small and nasty merged database, made without the engine, for the proof to be right about.

Every odd type, a self reference, a cycle, shared, composite, textual and missing keys, a key domain without foreign key,
audit rows that name deleted ids, large objects with holes, and two sources that overlap with the central. The merge
is written here by hand, straight from the contract.
"""

# ruff: noqa: E501 (rows of SQL)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from merge import catalog as catalogs
from merge.baseline import make_baseline
from merge.plan import Action, ColumnKind, ColumnPlan, Domain, LeaveOut, Plan, Role, TablePlan
from merge.proof_central import prove_central
from merge.proof_source import prove_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from merge.proof import Proof
    from sandbox.server import Server

Connection = psycopg.Connection[tuple[Any, ...]]

SOURCES = (1, 2)

TABLES = """
    CREATE TYPE mood AS ENUM ('calm', 'tired');
    CREATE TYPE address AS (street text, number int);
    CREATE DOMAIN cep AS varchar(8) CHECK (VALUE ~ '^[0-9]*$');
    CREATE DOMAIN ref AS bigint;
    CREATE TABLE code (id int PRIMARY KEY, name text NOT NULL, weight numeric);
    CREATE TABLE unit (id bigint PRIMARY KEY, cnes text NOT NULL UNIQUE, name text);
    CREATE TABLE unit_code (unit_id bigint REFERENCES unit, code_id int REFERENCES code, note text,
                            PRIMARY KEY (unit_id, code_id));
    CREATE TABLE person (
        id bigint PRIMARY KEY, unit_id ref REFERENCES unit, mother_id bigint REFERENCES person, last_visit_id int,
        name text, social_name varchar(40), cpf char(11), birth date, weight float8, height float4, balance numeric,
        seen timestamptz, at time, stay interval, home point, notes json, extra jsonb, photo bytea, tags text[], mood mood,
        zip cep, addr address, flag boolean, doc uuid, words tsvector, doubled numeric GENERATED ALWAYS AS (balance * 2) STORED);
    CREATE TABLE person_ext (person_id bigint PRIMARY KEY REFERENCES person, text text);
    CREATE TABLE visit (id int PRIMARY KEY, person_id bigint NOT NULL REFERENCES person, unit_id bigint, code_id int,
                        uuid text UNIQUE, attachment oid,
                        FOREIGN KEY (unit_id, code_id) REFERENCES unit_code (unit_id, code_id));
    ALTER TABLE person ADD FOREIGN KEY (last_visit_id) REFERENCES visit;
    CREATE TABLE visit_code (visit_id int REFERENCES visit, code_id int REFERENCES code, note text,
                             PRIMARY KEY (visit_id, code_id));
    CREATE TABLE sheet (uuid text PRIMARY KEY, person_id bigint REFERENCES person, body text);
    CREATE TABLE problem (id bigint PRIMARY KEY, person_id bigint, problem_unique bigint);
    ALTER TABLE problem ADD CONSTRAINT problem_person_id_fkey FOREIGN KEY (person_id) REFERENCES person NOT VALID;
    CREATE TABLE problem_step (id int PRIMARY KEY, problem_unique bigint, state text);
    CREATE TABLE ta_person (id bigint PRIMARY KEY, person_id bigint, name text, action char(1));
    CREATE TABLE log (at timestamptz, person_id bigint, line text, detail json);
    CREATE TABLE config (key text PRIMARY KEY, value text);
    CREATE TABLE "TB_Upper" ("Id" bigint PRIMARY KEY, "Some Column" text);
    CREATE TABLE empty (id bigint PRIMARY KEY, person_id bigint REFERENCES person);
"""

REST = """
    CREATE INDEX person_name ON person (name);
    CREATE SEQUENCE person_id_seq OWNED BY person.id;
    CREATE SEQUENCE seq_visit;
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER audit AFTER UPDATE ON person FOR EACH ROW EXECUTE PROCEDURE audit();
    CREATE VIEW people AS SELECT id, name FROM person;
    CREATE MATERIALIZED VIEW people_by_unit AS SELECT unit_id, count(*) AS people FROM person GROUP BY 1;
    COMMENT ON TABLE person IS 'people';
"""

ROWS = """
    INSERT INTO {s}.unit SELECT i, 'cnes-' || {first} + i, 'unit ' || i || {tag} FROM generate_series(1, 6) i;
    INSERT INTO {s}.unit_code SELECT u, c, 'note' FROM generate_series(1, 6) u, generate_series(1, 3) c;
    INSERT INTO {s}.person
    SELECT i, 1 + i % 6, CASE WHEN i > 3 THEN i / 3 END, CASE WHEN i % 4 = 0 THEN i END, 'name ' || i || {tag},
           CASE i % 3 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE ' x ' END, lpad(i::text, 11, '0'), date '1950-01-31' + i * 97,
           CASE i % 5 WHEN 0 THEN '-0' WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' ELSE (i / 3.0)::text END::float8,
           (i / 7.0)::float4, CASE i % 3 WHEN 0 THEN 1.0 WHEN 1 THEN 1.00 ELSE i * 1.10 END,
           timestamptz '2001-02-03 04:05:06.789012+00' + i * interval '1 day 1 microsecond', time '10:00' + i * interval '1 s',
           i * interval '1 month 2 days', point(i / 3.0, i + 1e-9), ('{{"a":  ' || i || ', "a": 1}}')::json,
           ('{{"a":  ' || i || '}}')::jsonb, decode(repeat(md5(i::text), CASE WHEN i % 10 = 0 THEN 400 ELSE 1 END), 'hex'),
           ARRAY['x', NULL, 'y' || i], CASE WHEN i % 2 = 0 THEN 'calm' ELSE 'tired' END::mood, lpad(i::text, 8, '0'),
           ROW('street', i)::address, i % 2 = 0, md5(i::text)::uuid, to_tsvector('simple', 'a b ' || i)
      FROM generate_series(1, {people}) i;
    INSERT INTO {s}.person_ext SELECT i, repeat('long ' || i, 1000) FROM generate_series(2, {people}, 2) i;
    INSERT INTO {s}.visit SELECT i, i, 1 + i % 6, 1 + i % 3, {tag} || 'visit' || i, CASE WHEN i <= 4 THEN 400000 + i END
      FROM generate_series(1, {people}) i WHERE i <> 30;
    INSERT INTO {s}.visit_code SELECT i, 1 + i % 4, 'same' FROM generate_series(1, {people}) i WHERE i <> 30;
    INSERT INTO {s}.sheet SELECT CASE WHEN i < 4 THEN '' ELSE {tag} END || 'sheet' || i, i, 'body ' || i
      FROM generate_series(1, 20) i;
    INSERT INTO {s}.problem SELECT i, i, 100 + i FROM generate_series(1, 20) i;
    INSERT INTO {s}.problem_step SELECT i, 100 + 1 + i % 20, 'state' FROM generate_series(1, 30) i;
    INSERT INTO {s}.ta_person SELECT i, CASE WHEN i = 40 THEN 777 ELSE i END, 'old name', 'U' FROM generate_series(1, 40) i;
    INSERT INTO {s}.log SELECT timestamptz '2020-01-01+00', 1 + i % 3, 'line', '{{"k": 1}}' FROM generate_series(1, 9) i;
    INSERT INTO {s}.config VALUES ('install', {tag}), ('version', '5.4');
    INSERT INTO {s}."TB_Upper" VALUES (1, 'Aé'), (2, 'B');
"""

_D = {  # column -> domain, by table
    "code": {"id": "code.id"},
    "unit": {"id": "unit.id"},
    "unit_code": {"unit_id": "unit.id", "code_id": "code.id"},
    "person": {"id": "person.id", "unit_id": "unit.id", "mother_id": "person.id", "last_visit_id": "visit.id"},
    "person_ext": {"person_id": "person.id"},
    "visit": {"id": "visit.id", "person_id": "person.id", "unit_id": "unit.id", "code_id": "code.id"},
    "visit_code": {"visit_id": "visit.id", "code_id": "code.id"},
    "sheet": {"person_id": "person.id"},
    "problem": {"id": "problem.id", "person_id": "person.id", "problem_unique": "problem"},
    "problem_step": {"id": "problem_step.id", "problem_unique": "problem"},
    "ta_person": {"id": "ta_person.id", "person_id": "person.id"},
    "log": {"person_id": "person.id"},
    "config": {},
    "TB_Upper": {"Id": "TB_Upper.Id"},
    "empty": {"id": "empty.id", "person_id": "person.id"},
}


_LEAVE_OUT = {
    "sheet": (LeaveOut("sent before", "s.uuid LIKE 'sheet%'", ""),),
    "log": (LeaveOut("test", "s.ctid = '(0,1)'", ""),),
}


def plan_of(conn: Connection) -> Plan:
    """The plan of the nasty schema, written by hand."""
    catalog = catalogs.read(conn, "public")
    tables = []
    for name, domains in _D.items():
        columns = []
        for column in catalog.tables[name].columns:
            kind = ColumnKind.KEY if column.name in domains else ColumnKind.VERBATIM
            kind = ColumnKind.LARGE_OBJECT if column.base_type == "oid" else kind
            kind = ColumnKind.GENERATED if column.generated else kind
            columns.append(ColumnPlan(column.name, kind, domains.get(column.name), column.type))
        action = Action.EXCLUDE if name == "config" else Action.MERGE
        key = catalog.tables[name].primary_key
        match = (("cnes",),) if name == "unit" else ()
        leave_out = _LEAVE_OUT.get(name, ())
        tables.append(TablePlan(name, Role.ENTITY, action, "test", "", key, tuple(columns), match, leave_out=leave_out))
    members: dict[str, list[tuple[str, str]]] = {}
    for table, columns_of in _D.items():
        for column_name, domain in columns_of.items():
            members.setdefault(domain, []).append((table, column_name))
    domains_of = {}
    for name, pairs in members.items():
        first = tuple(name.split(".", 1))
        pairs.sort(key=lambda pair, first=first: pair != first)
        domains_of[name] = Domain(name, name == "code.id", tuple(pairs))
    return Plan("public", tuple(tables), domains_of)


CONTRACT = """
    CREATE TABLE homolog.source (source int PRIMARY KEY, name text NOT NULL, merged_at timestamptz DEFAULT now());
    CREATE TABLE homolog.key_domain (source int, domain text, key_offset bigint NOT NULL, map text,
                                     PRIMARY KEY (source, domain));
    CREATE TABLE homolog.exception (source int, table_name text, src_row tid, disposition text, columns text[], reason text);
    CREATE TABLE homolog.ledger (source int, table_name text, disposition text, reason text, rows bigint,
                                 PRIMARY KEY (source, table_name, disposition, reason));
    CREATE TABLE homolog.added (source int, table_name text, reason text, rows bigint);
"""

# Central and sources have the units 101…106, 104…109 and 107…112, so that the second source also meets the first.
MERGE = """
    INSERT INTO homolog.source VALUES ({n}, 'source {n}');
    CREATE TABLE homolog.unit_map_{n} (src bigint PRIMARY KEY, dst bigint NOT NULL);
    INSERT INTO homolog.unit_map_{n} SELECT s.id, u.id FROM src_{n}.unit s JOIN public.unit u USING (cnes);
    INSERT INTO homolog.exception SELECT {n}, 'unit', s.ctid, 'reconciled', '{{name}}', 'central wins'
      FROM src_{n}.unit s JOIN public.unit u USING (cnes) WHERE s.name <> u.name;
    INSERT INTO homolog.exception SELECT {n}, 'code', s.ctid, 'reconciled',
           array_remove(ARRAY[CASE WHEN s.name <> c.name THEN 'name' END,
                              CASE WHEN s.weight::text IS DISTINCT FROM c.weight::text THEN 'weight' END], NULL), 'central wins'
      FROM src_{n}.code s JOIN public.code c USING (id)
     WHERE s.name <> c.name OR s.weight::text IS DISTINCT FROM c.weight::text;
    INSERT INTO homolog.exception SELECT {n}, 'sheet', s.ctid, 'excluded', NULL, 'sent before'
      FROM src_{n}.sheet s JOIN public.sheet c USING (uuid);
    INSERT INTO homolog.exception SELECT {n}, 'log', ctid, 'excluded', NULL, 'test' FROM src_{n}.log LIMIT 1;
"""


def _merge_tables(conn: Connection, n: int) -> None:
    """Insert what is not there yet and write the ledger: the reference merge."""
    for table in ["code", "unit", "unit_code", *(t for t in _D if t not in ("code", "unit", "unit_code", "config"))]:
        values = []
        names = [
            row[0]
            for row in conn.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attgenerated = ''"
                " ORDER BY attnum",
                [f'public."{table}"'],
            )
        ]
        for name in names:
            domain = _D[table].get(name)
            value = f's."{name}"'
            if domain == "unit.id":
                value = f"coalesce((SELECT dst FROM homolog.unit_map_{n} WHERE src = {value}), {value} + {1000 * n})"
            elif domain not in (None, "code.id"):
                value = f"{value} + {1000 * n}"
            elif name == "attachment":
                value = f"(SELECT dst FROM homolog.large_object_{n} WHERE src = {value})"
            values.append(value)
        columns = ", ".join(f'"{name}"' for name in names)
        conflict = "" if table == "log" else "ON CONFLICT DO NOTHING"
        inserted = conn.execute(
            f'INSERT INTO public."{table}" ({columns}) SELECT {", ".join(values)} FROM src_{n}."{table}" s'
            f" WHERE NOT EXISTS (SELECT 1 FROM homolog.exception e WHERE e.source = {n} AND e.table_name = '{table}'"
            f" AND e.src_row = s.ctid AND e.disposition = 'excluded') {conflict}"
        ).rowcount
        conn.execute(
            f"INSERT INTO homolog.ledger SELECT {n}, '{table}', d, '', r FROM (VALUES ('inserted', {inserted}::bigint),"
            f" ('matched', (SELECT count(*) FROM src_{n}.\"{table}\") - {inserted} -"
            f" (SELECT count(*) FROM homolog.exception WHERE source = {n} AND table_name = '{table}'))) v (d, r)"
            f" UNION ALL SELECT {n}, '{table}', disposition, reason, count(*) FROM homolog.exception"
            f" WHERE source = {n} AND table_name = '{table}' GROUP BY disposition, reason"
        )
    conn.execute(
        "INSERT INTO homolog.ledger SELECT %s, 'config', 'excluded', 'config', count(*) FROM src_1.config", [n]
    )


def _large_objects(conn: Connection, n: int) -> None:
    conn.execute(
        f"CREATE TABLE homolog.large_object_{n} (src oid PRIMARY KEY, dst oid NOT NULL UNIQUE, dangling boolean NOT NULL,"
        " md5 text, size bigint)"
    )
    for old in (400001, 400002, 400003):  # 400004 names nothing
        content = bytes([n, old % 256]) * 3000
        (new,) = conn.execute("SELECT lo_from_bytea(0, %s)", [content]).fetchone() or (0,)
        if old == 400002:
            conn.execute("SELECT lo_put(%s, 20000, 'after a hole'::bytea)", [new])
        conn.execute(
            f"INSERT INTO homolog.large_object_{n} SELECT %s, %s, false, md5(lo_get(%s)), length(lo_get(%s))",
            [old, new, new, new],
        )
    conn.execute(f"INSERT INTO homolog.large_object_{n} VALUES (400004, {999000 + n}, true)")


def build(connect: Callable[[], Connection]) -> Plan:
    """Make the merged database: central, baseline, two sources, and the reference merge."""
    with connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(TABLES.encode())
        conn.execute("INSERT INTO code SELECT i, 'code ' || i, i * 1.0 FROM generate_series(1, 5) i")
        conn.execute(ROWS.format(s="public", first=100, tag="''", people=60).encode())
        conn.execute(REST.encode())
        conn.execute("SELECT lo_create(400000 + i), lo_put(400000 + i, 5000, 'bytes') FROM generate_series(1, 4) i")
        conn.execute("SELECT setval('person_id_seq', 60), setval('seq_visit', 60)")
        conn.execute("UPDATE problem SET person_id = 5555 WHERE id = 20")  # violates a foreign key before any merge
        plan = plan_of(conn)
    make_baseline(connect, plan, 2)
    with connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(CONTRACT.encode())
        for n in SOURCES:
            conn.execute(f"CREATE SCHEMA src_{n}")
            for table in _D:
                conn.execute(f'CREATE TABLE src_{n}."{table}" (LIKE public."{table}" INCLUDING GENERATED)')
            conn.execute(
                f"INSERT INTO src_{n}.code SELECT i, 'code ' || i || CASE i WHEN 2 THEN ' other' ELSE '' END,"
                f" CASE i WHEN 3 THEN 3.00 ELSE i * 1.0 END FROM generate_series(2, {5 + n}) i"
            )
            conn.execute(ROWS.format(s=f"src_{n}", first=100 + 3 * n, tag=f"'s{n}'", people=40 + n).encode())
            _large_objects(conn, n)
            conn.execute(MERGE.format(n=n).encode())
            conn.execute(
                "INSERT INTO homolog.key_domain SELECT %s, d, CASE WHEN d = 'code.id' THEN 0 ELSE %s END,"
                " CASE WHEN d = 'unit.id' THEN %s::text END FROM unnest(%s::text[]) d",
                [n, 1000 * n, f"unit_map_{n}", list(plan.domains)],
            )
            _merge_tables(conn, n)
        conn.execute("REFRESH MATERIALIZED VIEW people_by_unit")
        conn.execute("SELECT setval('person_id_seq', 2042), setval('seq_visit', 2043, false)")
    return plan


@dataclass(frozen=True)
class Merged:
    """A merged database to be proved."""

    server: Server
    database: str
    plan: Plan

    def connect(self) -> Connection:
        """Connect as superuser."""
        return self.server.connect(self.database)

    def corrupt(self, statements: str) -> None:
        """Change it behind everyone's back."""
        with self.connect() as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute(statements.encode())

    def prove(self, jobs: int = 1) -> list[Proof]:
        """All proofs: of every source and of the central."""
        return [
            *(prove_source(self.connect, self.plan, n, jobs) for n in SOURCES),
            prove_central(self.connect, self.plan, SOURCES, jobs, connect_owner=self.connect),
        ]


@pytest.fixture(scope="session")
def clean_merge(server: Server) -> Iterator[Merged]:
    """The clean merge; only for reading."""
    server.create_database("proof_clean", "homolog_admin")
    plan = build(lambda: server.connect("proof_clean"))
    yield Merged(server, "proof_clean", plan)
    server.drop_database("proof_clean")


@pytest.fixture
def merged(clean_merge: Merged) -> Iterator[Merged]:
    """A copy of the clean merge, to be corrupted."""
    server = clean_merge.server
    with server.connect("postgres") as conn:
        copy, clean = sql.Identifier("proof_copy"), sql.Identifier(clean_merge.database)
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(copy, clean))
    yield Merged(server, "proof_copy", clean_merge.plan)
    server.drop_database("proof_copy")
