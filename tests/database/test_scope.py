"""What a scope leaves out, sets and adds: what comes is exactly what is declared, and the proof finds all else."""

# ruff: noqa: E501 (rows of SQL)

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import catalog, planner, selection
from merge.errors import ConfigError
from merge.plan import Disposition
from merge.profile import Profile
from tests.corruptions import Corruption, run
from tests.fix_merge import MERGE, OWNER, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merge.catalog import Catalog
    from merge.plan import Plan
    from sandbox.server import Server

SCHEMA = """
    CREATE TABLE profile (id bigint PRIMARY KEY, standard text, name text);
    CREATE TABLE profile_right (id bigint PRIMARY KEY, profile_id bigint NOT NULL REFERENCES profile, name text);
    CREATE TABLE role (id bigint PRIMARY KEY, code text UNIQUE, kind int);
    CREATE TABLE role_profile (role_id bigint REFERENCES role, profile_id bigint REFERENCES profile,
        PRIMARY KEY (role_id, profile_id));
    CREATE TABLE default_profile (kind int PRIMARY KEY, standard text);
    CREATE TABLE agenda (id bigint PRIMARY KEY, role_id bigint REFERENCES role);
    CREATE TABLE member (id bigint PRIMARY KEY, login varchar(40) UNIQUE, secret varchar(40), must_change int NOT NULL);
    CREATE TABLE person (id bigint PRIMARY KEY, name text, mother_id bigint REFERENCES person, last_visit_id int);
    CREATE TABLE record (id bigint PRIMARY KEY, person_id bigint REFERENCES person);
    CREATE TABLE visit (id int PRIMARY KEY, person_id bigint NOT NULL REFERENCES person, previous_id int REFERENCES visit,
        uuid text UNIQUE);
    ALTER TABLE person ADD FOREIGN KEY (last_visit_id) REFERENCES visit;
    CREATE TABLE visit_line (visit_id int REFERENCES visit, line int, text text, PRIMARY KEY (visit_id, line));
    CREATE TABLE word (id bigint PRIMARY KEY, visit_id int, line int, text text,
        FOREIGN KEY (visit_id, line) REFERENCES visit_line);
    CREATE TABLE diary (at date, person_id bigint REFERENCES person, line text);
    CREATE TABLE step (id bigint PRIMARY KEY, visit bigint, state text);
    CREATE TABLE ta_person (ta_id bigint PRIMARY KEY, id bigint, mother_id bigint, name text);
    CREATE TABLE ta_profile (ta_id bigint PRIMARY KEY, id bigint, name text);
"""

REFERENCES = {  # besides the foreign keys
    ("step", ("visit",)): ("visit", ("id",)),
    ("ta_person", ("id",)): ("person", ("id",)),
    ("ta_person", ("mother_id",)): ("person", ("id",)),
    ("ta_profile", ("id",)): ("profile", ("id",)),
}


def _rule(table: str, role: str, **more: Any) -> dict[str, Any]:
    return {"tables": [table], "role": role, "reason": "test", "evidence": "seen", **more}


def _declare(**more: Any) -> dict[str, Any]:
    return {"reason": {"pt": "motivo", "en": "reason"}, "evidence": "seen", **more}


SET = [
    _declare(column="must_change", value="1", policy="passwords"),
    _declare(column="secret", scope="part", policy="passwords"),
]
RULES = [
    _rule("profile", "entity", match=[["standard"]]),
    _rule("profile_right", "link", match=[["profile_id", "name"]], central_owns="profile_id"),
    _rule("role", "entity", match=[["code"]]),
    _rule("role_profile", "link", central_owns="role_id"),
    _rule("default_profile", "config", key="fixed"),
    _rule("agenda", "entity"),
    _rule("member", "entity", match=[["login"]], set=SET),
    _rule("visit", "event", match=[["uuid"]]),
    _rule("ta_*", "audit", mirror="ta_", of=[""]),
    _rule("*", "entity"),
]
NO_RECORD = "NOT EXISTS (SELECT 1 FROM record r WHERE r.person_id = s.id) AND s.name NOT LIKE 'keep%'"
DEFAULTS = (
    "SELECT r.id AS role_id, p.id AS profile_id FROM role r JOIN default_profile d USING (kind)"
    " JOIN profile p USING (standard)"
)
PART = _declare(
    name="part",
    leave_out=[
        _declare(tables=["person"], where=NO_RECORD),
        _declare(tables=["profile"], where="s.standard IS NULL"),
        _declare(tables=["agenda", "role_profile"]),
    ],
    add=[_declare(table="role_profile", of="role_id", query=DEFAULTS)],
)


def _profile(rules: list[dict[str, Any]] = RULES, scope: dict[str, Any] = PART) -> Profile:
    return Profile.model_validate(
        {
            "application": {"name": "test", "title": "test"},
            "rule": rules,
            "reference": [_declare(columns=["step.visit"], to="visit.id")],
            "scope": [scope],
        }
    )


CENTRAL = """
    INSERT INTO profile VALUES (1, 'nurse', 'Nurse'), (2, 'doctor', 'Doctor'), (3, NULL, 'Own');
    INSERT INTO profile_right VALUES (1, 1, 'read'), (2, 2, 'read'), (3, 3, 'read');
    INSERT INTO role VALUES (1, 'both', 1), (2, 'central', 2);
    INSERT INTO role_profile VALUES (1, 2), (2, 3);
    INSERT INTO default_profile VALUES (1, 'nurse'), (2, 'doctor'), (3, 'clerk');
    INSERT INTO agenda VALUES (1, 1);
    INSERT INTO member VALUES (1, 'both', 'c', 0), (2, 'central', 'c', 0);
    INSERT INTO person VALUES (1, 'central');
    INSERT INTO visit VALUES (1, 1, NULL, 'sent');
    INSERT INTO visit_line VALUES (1, 1, 'line');
"""
SOURCE = """
    INSERT INTO profile VALUES (1, 'doctor', 'Doctor'), (2, NULL, 'Local'), (3, 'nurse', 'Nurse'), (4, 'clerk', 'Clerk');
    INSERT INTO profile_right VALUES (1, 1, 'read'), (2, 1, 'delete'), (3, 2, 'all'), (4, 3, 'read'), (5, 4, 'print'),
        (6, 4, 'read');
    INSERT INTO role VALUES (1, 'both', 1), (2, 'a' || {n}, 1), (3, 'b' || {n}, 2), (4, 'shared', 3), (5, 'none' || {n}, 9);
    INSERT INTO role_profile SELECT i, 2 FROM generate_series(1, 5) i;
    INSERT INTO default_profile VALUES (1, 'nurse'), (2, 'doctor'), (3, 'clerk');
    INSERT INTO agenda SELECT i, i FROM generate_series(1, 5) i;
    INSERT INTO member VALUES (1, 'both', 's', 0), (2, 'only' || {n}, 's', 0), (3, 'new' || {n}, NULL, 1);
    INSERT INTO person SELECT i, CASE WHEN i = 12 THEN 'keep ' ELSE 'name ' END || i, CASE WHEN i IN (5, 6) THEN 4 END
      FROM generate_series(1, 20) i;
    INSERT INTO record SELECT i, i FROM generate_series(1, 20) i WHERE i NOT IN (3, 4, 10, 12);
    INSERT INTO visit SELECT i, i, CASE i WHEN 7 THEN 8 WHEN 8 THEN 7 WHEN 9 THEN 3 END, 's' || {n} || i
      FROM generate_series(1, 19) i;
    UPDATE visit SET uuid = 'sent' WHERE id = 10;
    UPDATE person SET last_visit_id = 9 WHERE id = 11;
    INSERT INTO visit_line SELECT i, line, 'line' FROM generate_series(1, 19) i, generate_series(1, 2) line;
    INSERT INTO word SELECT i, i, 1 + i % 2, 'word' FROM generate_series(1, 19) i;
    INSERT INTO word VALUES (50, NULL, 1, 'word'), (51, 3, NULL, 'half a reference is none');
    INSERT INTO diary SELECT date '2020-01-01', 1 + i % 5, 'line' FROM generate_series(1, 10) i;
    INSERT INTO step SELECT i, i, 'state' FROM generate_series(1, 25) i;
    INSERT INTO ta_person SELECT i, i, NULL, 'old' FROM generate_series(1, 30) i;
    INSERT INTO ta_person VALUES (31, 99, 4, 'gone child of one who does not come'), (32, 99, 1, 'gone child');
    INSERT INTO ta_profile VALUES (1, 2, 'Local'), (2, 4, 'Clerk');
"""


def _fill(conn: Any, schema: str, statements: str) -> None:
    conn.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
    conn.execute(statements.encode())


def _merge(bench: Bench, scope: str = "part", keep: tuple[str, ...] = ()) -> tuple[Plan, Catalog]:
    with bench.owner() as conn:
        conn.execute(SCHEMA.encode())
        conn.execute(CENTRAL.encode())
    plan, found = bench.prepare(_profile(), scope, keep)
    for number in (1, 2):
        bench.load(number, found, lambda conn, schema, n=number: _fill(conn, schema, SOURCE.format(n=n)))  # type: ignore[misc]
        merged = bench.merge(plan, found, number)
        for table, rows in bench.rows[number].items():
            assert sum(line.rows for line in merged.ledger.of(table)) == rows, table
    return plan, found


def _clean(bench: Bench, plan: Plan) -> None:
    for proof in bench.prove(plan):
        assert [str(d) for d in proof.examples] == []


def _closure(bench: Bench, source: int) -> dict[tuple[str, str], str]:
    """What must not come of a source, by (table, ctid) with its reason, worked out row by row in Python."""
    with bench.connect() as conn:
        found = catalog.read(conn, "public")
        conn.execute(f"SET search_path = src_{source}".encode())
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for name, table in found.tables.items():
            columns = [c.name for c in table.columns]
            query = f"SELECT ctid::text, {', '.join(columns)} FROM {name}"
            rows[name] = {
                ctid: dict(zip(columns, values, strict=True)) for ctid, *values in conn.execute(query.encode())
            }
    links = [((t.name, k.columns), (k.ref_table, k.ref_columns)) for t in found.tables.values() for k in t.foreign_keys]
    links = [link for link in (*links, *REFERENCES.items()) if link[0][0] not in ("agenda", "role_profile")]
    recorded = {row["person_id"] for row in rows["record"].values()}
    out: dict[tuple[str, str], str] = {
        ("person", ctid): "part/1"
        for ctid, row in rows["person"].items()
        if row["id"] not in recorded and not row["name"].startswith("keep")
    } | {("profile", ctid): "part/2" for ctid, row in rows["profile"].items() if row["standard"] is None}
    grown = True
    while grown:
        grown = False
        for (child, columns), (parent, refs) in links:
            gone = {tuple(rows[t][c][r] for r in refs) for t, c in out if t == parent}
            for ctid, row in rows[child].items():
                values = tuple(row[c] for c in columns)
                if None not in values and values in gone and (child, ctid) not in out:
                    out[child, ctid] = "belongs"
                    grown = True
    return out


def _excluded(bench: Bench, source: int) -> dict[tuple[str, str], str]:
    with bench.connect() as conn:
        return {
            (table, ctid): reason
            for table, ctid, reason in conn.execute(
                "SELECT table_name, src_row::text, reason FROM homolog.exception"
                " WHERE source = %s AND disposition = 'excluded' AND reason <> 'central_owns'",
                [source],
            ).fetchall()
        }


# What comes


def test_what_is_left_out_is_what_is_declared_and_all_that_refers_to_it(bench: Bench) -> None:
    plan, _ = _merge(bench)
    for source in (1, 2):
        expected = _closure(bench, source)
        assert _excluded(bench, source) == expected
        tables = {table for table, _ in expected}
        assert {"person", "profile", "profile_right", "visit", "visit_line", "word", "diary", "step", "record"} < tables
        assert {"ta_person", "ta_profile"} < tables
    _clean(bench, plan)
    with bench.connect() as conn:
        # Ids of the source are offset, so that names tell: 3, 4 and 10 have no record, 5 and 6 are children of 4, 9's
        # visit follows one of 3, and 11 has that visit as their last.
        names = {name for (name,) in conn.execute("SELECT name FROM person")}
        assert names == {"central", "keep 12", *(f"name {i}" for i in (1, 2, 7, 8, 9, *range(13, 21)))}
        assert conn.execute("SELECT count(*) FROM agenda").fetchone() == (1,)
        assert conn.execute("SELECT name FROM profile WHERE standard IS NULL").fetchall() == [("Own",)]


@pytest.mark.parametrize("seed", range(3))
def test_any_web_of_references(bench: Bench, seed: int) -> None:
    """Random references, cycles among them: the same rows are left out as a naive program says."""
    chance = random.Random(seed)

    def some(n: int) -> str:
        return str(chance.randint(1, n)) if chance.random() < 0.3 else "NULL"

    people = ", ".join(f"({i}, 'name', {some(40)}, {some(60)})" for i in range(1, 41))
    visits = ", ".join(f"({i}, {chance.randint(1, 40)}, {some(60)}, 'u{i}')" for i in range(1, 61))
    records = ", ".join(f"({i}, {i})" for i in range(1, 41) if chance.random() < 0.9)
    steps = ", ".join(f"({i}, {chance.randint(1, 70)}, 'x')" for i in range(1, 61))
    with bench.owner() as conn:
        conn.execute((SCHEMA + CENTRAL).encode())
    plan, found = bench.prepare(_profile(), "part")
    rows = f"""
        INSERT INTO person VALUES {people}; INSERT INTO visit VALUES {visits}; INSERT INTO record VALUES {records};
        INSERT INTO step VALUES {steps};
    """
    bench.load(1, found, lambda conn, schema: _fill(conn, schema, rows))
    bench.merge(plan, found, 1)
    expected = _closure(bench, 1)
    assert _excluded(bench, 1) == expected
    assert sum(reason == "belongs" for reason in expected.values()) > 3
    _clean(bench, plan)


def test_values_are_set_in_inserted_rows_only(bench: Bench) -> None:
    plan, _ = _merge(bench)
    with bench.connect() as conn:
        members = conn.execute("SELECT login, secret, must_change FROM member ORDER BY 1").fetchall()
        reasons = conn.execute(
            "SELECT disposition, reason, rows FROM homolog.ledger WHERE (source, table_name) = (1, 'member') ORDER BY 1"
        ).fetchall()
    assert members == [
        ("both", "c", 0), ("central", "c", 0), ("new1", None, 1), ("new2", None, 1), ("only1", None, 1), ("only2", None, 1)
    ]  # fmt: skip
    assert reasons == [("inserted", "set", 2), ("reconciled", "central_kept", 1)]
    assert [c.reason for c in plan.table("member").constants] == ["motivo", "motivo"]


def test_scope_all_leaves_nothing_out(bench: Bench) -> None:
    """But the policy holds: what the users must change, they must; what only the other scope takes away, stays."""
    plan, _ = _merge(bench, "all")
    assert not any(t.leave_out or t.follows for t in plan)
    assert not plan.additions
    with bench.connect() as conn:
        assert conn.execute("SELECT count(*) FROM person").fetchone() == (41,)
        assert conn.execute("SELECT secret, must_change FROM member WHERE login = 'only1'").fetchone() == ("s", 1)
        assert conn.execute("SELECT count(*) FROM homolog.added").fetchone() == (0,)
        # Roles of the source come with their profiles; one that the central has gains none.
        assert conn.execute("SELECT count(*) FROM role_profile WHERE role_id = 1").fetchone() == (1,)
        assert conn.execute("SELECT count(*) FROM role_profile").fetchone() == (2 + 4 + 3,)
    _clean(bench, plan)


@pytest.mark.parametrize("scope", ["all", "part"])
def test_a_policy_can_be_left(bench: Bench, scope: str) -> None:
    plan, _ = _merge(bench, scope, ("passwords",))
    with bench.connect() as conn:
        assert conn.execute("SELECT secret, must_change FROM member WHERE login = 'only1'").fetchone() == ("s", 0)
    _clean(bench, plan)


def test_rows_are_added_to_what_was_inserted(bench: Bench) -> None:
    """Roles that were there already, also those that an earlier source brought, gain nothing."""
    _merge(bench)
    with bench.connect() as conn:
        added = conn.execute(
            "SELECT r.code, p.standard FROM role_profile JOIN role r ON r.id = role_id"
            " JOIN profile p ON p.id = profile_id WHERE r.id > 2 ORDER BY 1"
        ).fetchall()
        counts = conn.execute("SELECT source, table_name, reason, rows FROM homolog.added ORDER BY 1").fetchall()
        ledger = conn.execute(
            "SELECT DISTINCT disposition, rows FROM homolog.ledger WHERE table_name = 'role_profile'"
        ).fetchall()
    assert added == [("a1", "nurse"), ("a2", "nurse"), ("b1", "doctor"), ("b2", "doctor"), ("shared", "clerk")]
    assert counts == [(1, "role_profile", "part/+1", 3), (2, "role_profile", "part/+1", 2)]
    assert ledger == [(Disposition.EXCLUDED.value, 5)]


# What the proof finds

_OFFSET = "(SELECT key_offset FROM homolog.key_domain WHERE source = 1 AND domain = '{}')"
_PERSON, _VISIT = _OFFSET.format("person.id"), _OFFSET.format("visit.id")


def _exclude(table: str, where: str, reason: str, disposition: str = "inserted") -> str:
    """As an engine would that excludes a row: exception and ledger agree."""
    return f"""
        INSERT INTO homolog.exception SELECT 1, '{table}', ctid, 'excluded', '{{}}', '{reason}' FROM src_1.{table} WHERE {where};
        UPDATE homolog.ledger SET rows = rows - 1 WHERE (source, table_name, disposition) = (1, '{table}', '{disposition}');
        INSERT INTO homolog.ledger VALUES (1, '{table}', 'excluded', '{reason}', 1)
            ON CONFLICT (source, table_name, disposition, reason) DO UPDATE SET rows = homolog.ledger.rows + 1;
    """


def _include(table: str, where: str, reason: str) -> str:
    """As an engine would that forgets to exclude a row."""
    return f"""
        DELETE FROM homolog.exception WHERE (source, table_name) = (1, '{table}')
            AND src_row IN (SELECT ctid FROM src_1.{table} WHERE {where});
        UPDATE homolog.ledger SET rows = rows + 1 WHERE (source, table_name, disposition) = (1, '{table}', 'inserted');
        UPDATE homolog.ledger SET rows = rows - 1
            WHERE (source, table_name, disposition, reason) = (1, '{table}', 'excluded', '{reason}');
    """


def _new(code: str) -> str:
    return f"(SELECT id FROM role WHERE code = '{code}')"


def _standard(name: str) -> str:
    return f"(SELECT id FROM profile WHERE standard = '{name}')"


CORRUPTIONS = (
    run("value not set", "UPDATE member SET must_change = 0 WHERE login = 'only1'", "changed", "member", "must_change"),
    run("value kept", "UPDATE member SET secret = 's' WHERE login = 'only2'", "changed", "member", "secret"),
    run("other value", "UPDATE member SET must_change = 2 WHERE login = 'new1'", "changed", "member", "must_change"),
    run("set in the central", "UPDATE member SET must_change = 1 WHERE login = 'central'", "changed", "member", "must_change"),
    run("set in a matched row", "UPDATE member SET secret = NULL WHERE login = 'both'", "changed", "member", "secret"),
    run("set in another column", "UPDATE member SET login = 'x' WHERE login = 'only1'", "changed", "member", "login"),
    run(
        "one too many: by a condition",
        f"DELETE FROM record WHERE person_id = 20 + {_PERSON}; DELETE FROM person WHERE id = 20 + {_PERSON};"
        + _exclude("person", "id = 20", "part/1") + _exclude("record", "person_id = 20", "belongs"),
        "ledger", "person",
    ),
    run(
        "one too many: belongs to nothing that stays",
        "DELETE FROM step WHERE id = 14 + " + _OFFSET.format("step.id") + ";" + _exclude("step", "id = 14", "belongs"),
        "ledger", "step",
    ),
    run(
        "two that only refer to each other",
        f"DELETE FROM visit WHERE id IN (7 + {_VISIT}, 8 + {_VISIT});"
        + _exclude("visit", "id = 7", "belongs") + _exclude("visit", "id = 8", "belongs"),
        "ledger", "visit",
    ),
    run(
        "one too few: named by a condition",
        f"INSERT INTO person VALUES (10 + {_PERSON}, 'name 10');" + _include("person", "id = 10", "part/1"),
        "ledger", "person",
    ),
    run(
        "one too few: refers to one that stays",
        f"INSERT INTO visit VALUES (9 + {_VISIT}, 9 + {_PERSON}, NULL, 's19');" + _include("visit", "id = 9", "belongs"),
        "ledger", "visit",
    ),
    run(
        "one too few: the history",
        f"INSERT INTO ta_person SELECT 31 + {_OFFSET.format('ta_person.ta_id')}, 99 + {_PERSON}, 4 + {_PERSON}, name FROM src_1.ta_person WHERE ta_id = 31;"
        + _include("ta_person", "ta_id = 31", "belongs"),
        "ledger", "ta_person",
    ),
    run(
        "wrong reason",
        "UPDATE homolog.exception SET reason = 'part/1' WHERE (source, table_name) = (1, 'visit') AND reason = 'belongs';"
        "UPDATE homolog.ledger SET reason = 'part/1' WHERE (source, table_name) = (1, 'visit') AND reason = 'belongs'",
        "ledger", "visit",
    ),
    run(
        "reason of the ledger only",
        "UPDATE homolog.ledger SET reason = 'part/1' WHERE (source, table_name) = (1, 'visit') AND reason = 'belongs'",
        "ledger", "visit",
    ),
    run("left out, and came", f"INSERT INTO person VALUES (10 + {_PERSON}, 'name 10')", "invented", "person"),
    run(
        "one too many: the central does not own it",
        f"DELETE FROM profile_right WHERE profile_id = {_standard('clerk')} AND name = 'print';"
        + _exclude("profile_right", "id = 5", "central_owns"),
        "ledger", "profile_right",
    ),
    run(
        "one too many: it was there already",
        _exclude("profile_right", "id = 1", "central_owns", "matched"),
        "ledger", "profile_right",
    ),
    run(
        "one too few: the central owns it",
        f"INSERT INTO profile_right VALUES (2 + {_OFFSET.format('profile_right.id')}, 2, 'delete');"
        + _include("profile_right", "id = 2", "central_owns"),
        "ledger", "profile_right",
    ),
    run(
        "owned by a table that owns nothing",
        "DELETE FROM step WHERE id = 14 + " + _OFFSET.format("step.id") + ";" + _exclude("step", "id = 14", "central_owns"),
        "ledger", "step",
    ),
    run("addition lost", f"DELETE FROM role_profile WHERE role_id = {_new('a1')}", "lost", "role_profile"),
    run(
        "addition lost, and the ledger agrees",
        f"DELETE FROM role_profile WHERE role_id = {_new('a1')};"
        "UPDATE homolog.added SET rows = rows - 1 WHERE source = 1",
        "lost", "role_profile",
    ),
    run(
        "another addition",
        f"UPDATE role_profile SET profile_id = {_standard('doctor')} WHERE role_id = {_new('a1')}",
        "lost", "role_profile",
    ),
    run(
        "undeclared addition",
        f"INSERT INTO role_profile VALUES ({_new('a2')}, {_standard('doctor')})", "invented", "role_profile",
    ),
    run(
        "undeclared addition, and the ledger agrees",
        f"INSERT INTO role_profile VALUES ({_new('a1')}, {_standard('doctor')});"
        "UPDATE homolog.added SET rows = rows + 1 WHERE source = 1",
        "ledger", "role_profile",
    ),
    run(
        "addition to a role of the central",
        f"INSERT INTO role_profile VALUES (1, {_standard('nurse')});"
        "UPDATE homolog.added SET rows = rows + 1 WHERE source = 1",
        "ledger", "role_profile",
    ),
    run("addition not in the ledger", "DELETE FROM homolog.added WHERE source = 2", "ledger", "role_profile"),
)  # fmt: skip


@pytest.fixture(scope="module")
def clean(server: Server) -> Iterator[tuple[Bench, Plan]]:
    """A merge in scope part; only for reading."""
    server.create_role(MERGE, member_of=OWNER, settings={"session_replication_role": "replica"})
    server.create_database("scope_clean", OWNER)
    bench = Bench(server, "scope_clean")
    plan, _ = _merge(bench)
    yield bench, plan
    server.drop_database("scope_clean")


@pytest.fixture
def spoilt(clean: tuple[Bench, Plan]) -> Iterator[Bench]:
    """A copy of it, to be corrupted."""
    bench, _ = clean
    with bench.server.connect("postgres") as conn:
        conn.execute("CREATE DATABASE scope_copy TEMPLATE scope_clean STRATEGY file_copy")
    yield Bench(bench.server, "scope_copy", bench.rows)
    bench.server.drop_database("scope_copy")


def test_the_clean_merge_holds(clean: tuple[Bench, Plan]) -> None:
    _clean(*clean)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_a_corruption_is_found_and_named(spoilt: Bench, clean: tuple[Bench, Plan], corruption: Corruption) -> None:
    with spoilt.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(corruption.sql.encode())
    found = [d for proof in spoilt.prove(clean[1]) for d in proof.examples]
    named = [d for d in found if d.kind == corruption.kind and d.table == corruption.table]
    assert named, [str(d) for d in found]
    assert corruption.column is None or corruption.column in {d.column for d in named}, [str(d) for d in found]


@pytest.mark.parametrize(
    "spoil",
    [
        f"DELETE FROM role_profile WHERE role_id = {_new('a1')};"
        + _exclude("role_profile", "role_id = 2", "central_owns"),
        "INSERT INTO role_profile SELECT 1, id FROM profile WHERE name = 'Local' LIMIT 1;"
        + _include("role_profile", "role_id = 1", "central_owns"),
    ],
    ids=["one too many", "one too few"],
)
def test_links_that_the_central_owns(bench: Bench, spoil: str) -> None:
    """Tables without a key of their own, in scope all: what the central owns is looked at there too."""
    plan, _ = _merge(bench, "all")
    with bench.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(spoil.encode())
    found = [d for proof in bench.prove(plan) for d in proof.examples]
    assert ("ledger", "role_profile", "role_id") in {(d.kind, d.table, d.column) for d in found}, list(map(str, found))


def test_a_plan_that_follows_less_is_found(clean: tuple[Bench, Plan]) -> None:
    """A reference to rows that do not come must be followed, whatever the engine did."""
    from dataclasses import replace

    bench, plan = clean
    tables = tuple(replace(t, follows=()) if t.name == "visit_line" else t for t in plan)
    found = [d for proof in bench.prove(replace(plan, tables=tables)) for d in proof.examples]
    assert ("plan", "visit_line") in {(d.kind, d.table) for d in found}


# What is refused


def _catalog(bench: Bench) -> Catalog:
    with bench.owner() as conn:
        conn.execute(SCHEMA.encode())
        return catalog.read(conn, "public")


def test_unknown_scopes_and_policies(bench: Bench) -> None:
    with pytest.raises(ConfigError) as caught:
        planner.make_plan(_catalog(bench), _profile(), "vendor", ["nothing"])
    assert "vendor, nothing" in caught.value.what
    assert "--scope part" in caught.value.details


def test_declarations_that_contradict_the_catalog(bench: Bench) -> None:
    rules = [
        _rule("visit_line", "entity", set=[_declare(column="text", value="x")]),
        _rule(
            "member", "entity", match=[["login"]], set=[_declare(column=c, value="1") for c in ("id", "login", "no")]
        ),
        *RULES,
    ]
    add = [
        _declare(table="visit_line", of="visit_id", query="SELECT 1"),
        _declare(table="role_profile", of="profile", query="SELECT 1"),
    ]
    with pytest.raises(ConfigError) as caught:
        planner.make_plan(_catalog(bench), _profile(rules, {**PART, "add": add}), "part")
    problems = "\n".join(caught.value.details)
    for part in ("visit_line: set", "member: set: id", "member: set: login", "member: set: no",
                 "part/+1: visit_line comes itself", "part/+2: role_profile.profile"):  # fmt: skip
        assert part in problems, problems


def test_conditions_that_cannot_be_executed(bench: Bench) -> None:
    found = _catalog(bench)
    leave_out = [_declare(tables=["person"], where="s.no_such > 1"), PART["leave_out"][2]]
    add = [_declare(table="role_profile", of="role_id", query="SELECT id AS role_id FROM role")]
    plan = planner.make_plan(found, _profile(scope={**PART, "leave_out": leave_out, "add": add}), "part")
    with bench.connect() as conn, pytest.raises(ConfigError) as caught:
        selection.check_declared(conn, plan, "public")
    assert len(caught.value.details) == 2
    assert "no_such" in caught.value.details[0]
