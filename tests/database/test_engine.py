"""What a merge refuses, and that an error leaves the database as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import catalog, compare, coverage, engine
from merge.errors import CollisionError, ConfigError, CoverageError, MergeError, SchemaDifference
from merge.planner import make_plan
from merge.profile import Profile

if TYPE_CHECKING:
    import psycopg

    from tests.fix_merge import Bench

SCHEMA = """
    CREATE TABLE unit (id bigint PRIMARY KEY, code text, name text);
    CREATE TABLE person (id bigint PRIMARY KEY, unit_id bigint REFERENCES unit, name text, card text UNIQUE);
    CREATE TABLE visit (id int PRIMARY KEY, person_id bigint NOT NULL REFERENCES person, at date,
        CHECK (at > date '2000-01-01'));
    CREATE TABLE visit_answer (id bigint PRIMARY KEY, visit_id int REFERENCES visit, answer text);
    CREATE TABLE ta_person (ta_id bigint PRIMARY KEY, id bigint, unit_id bigint, name text, card text);
    CREATE TABLE profile (id bigint PRIMARY KEY, name text);
    CREATE TABLE profile_right (profile_id bigint REFERENCES profile, name text, PRIMARY KEY (profile_id, name));
    CREATE SEQUENCE person_id_seq OWNED BY person.id;
    CREATE SEQUENCE anything;
    CREATE UNIQUE INDEX visit_once ON visit (person_id, (date_trunc('month', at::timestamp))) WHERE at IS NOT NULL;
"""


def _rule(table: str, role: str, **more: Any) -> dict[str, Any]:
    return {"tables": [table], "role": role, "reason": "test", "evidence": "seen", **more}


RULES = [
    _rule("unit", "entity", match=[["code"]]),
    _rule("person", "entity"),
    _rule("visit", "event"),
    _rule("visit_answer", "event", within="visit_id"),
    _rule("ta_person", "audit", mirror="ta_", of=[""]),
    _rule("profile", "entity", match=[["name"]]),
    _rule("profile_right", "link", central_owns="profile_id"),
]


def _profile(rules: list[dict[str, Any]] = RULES) -> Profile:
    application = {"name": "test", "title": "test", "reference_names": ["*_id", "id"]}
    return Profile.model_validate({"application": application, "rule": rules})


def _fill(conn: psycopg.Connection[tuple[Any, ...]], schema: str, statements: str) -> None:
    conn.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
    conn.execute(statements.encode())


CENTRAL = """
    INSERT INTO unit VALUES (1, 'A', 'central A'), (2, 'B', 'central B');
    INSERT INTO person VALUES (1, 1, 'one', 'c1'), (2, 2, 'two', 'c2'), (3, NULL, 'three', 'c3');
    INSERT INTO visit VALUES (1, 1, '2020-01-01'), (2, 2, NULL);
    INSERT INTO visit_answer VALUES (1, 1, 'yes');
    INSERT INTO ta_person VALUES (1, 1, 1, 'old', 'c1'), (2, 977, 1, 'gone', NULL);
    INSERT INTO profile VALUES (1, 'nurse');
    INSERT INTO profile_right VALUES (1, 'read');
    SELECT setval('person_id_seq', 3);
"""
SOURCE = """
    INSERT INTO unit VALUES (1, 'B', 'source B'), (2, 'C', 'source C');
    INSERT INTO person VALUES (1, 1, 'uno', 's1'), (2, 2, 'dos', 's2');
    INSERT INTO visit VALUES (1, 1, '2021-01-01'), (2, 2, '2021-01-01');
    INSERT INTO visit_answer VALUES (1, 2, 'no');
    INSERT INTO ta_person VALUES (1, 1, 1, 'before', 's1'), (2, 500, 2, 'gone', NULL);
    INSERT INTO profile VALUES (7, 'nurse'), (8, 'local');
    INSERT INTO profile_right VALUES (7, 'read'), (7, 'delete'), (8, 'read');
"""


@pytest.fixture
def central(bench: Bench) -> Bench:
    """The central of these tests."""
    with bench.owner() as conn:
        conn.execute(SCHEMA.encode())
        conn.execute(CENTRAL.encode())
    return bench


def _state(bench: Bench) -> list[Any]:
    """All rows of all tables of the central and of our own, and the sequences."""
    with bench.connect() as conn:
        tables = conn.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'homolog') ORDER BY 1, 2"
        ).fetchall()
        state = [
            (
                *table,
                conn.execute(sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(*table))).fetchall(),
            )
            for table in tables
        ]
        return [*state, conn.execute("SELECT last_value FROM person_id_seq").fetchone()]


def test_keys_move_and_references_follow(central: Bench) -> None:
    """Matched rows keep the central's key; all others move, dangling ones too; rights of the central stay."""
    plan, found = central.prepare(_profile())
    central.load(1, found, lambda conn, schema: _fill(conn, schema, SOURCE))
    totals = central.merge(plan, found, 1).ledger.totals()
    assert totals == {
        "inserted": 10, "matched": 2, "reconciled": 1, "excluded": 1, "grouped": 0, "rejected": 0
    }  # fmt: skip
    with central.connect() as conn:
        person = conn.execute("SELECT id, unit_id FROM person WHERE card = 's1'").fetchone()
        assert person is not None
        assert person[0] > 977  # beyond every key that the domain ever named
        assert person[1] == 2
        assert conn.execute("SELECT id FROM ta_person WHERE name = 'gone' ORDER BY 1").fetchall() == [
            (977,), (person[0] + 499,)
        ]  # fmt: skip
        rights = conn.execute("SELECT name FROM profile_right WHERE profile_id = 1").fetchall()
        assert rights == [("read",)]
        exceptions = conn.execute(
            "SELECT table_name, disposition, columns FROM homolog.exception ORDER BY 1"
        ).fetchall()
        assert exceptions == [("profile_right", "excluded", []), ("unit", "reconciled", ["name"])]
        assert engine.read_differences(conn, 1) == {"unit": {"name": 1}}
        following = conn.execute("SELECT nextval('person_id_seq'), nextval('anything')").fetchone()
        assert following is not None
        assert min(following) > person[0] + 499
    for proof in central.prove(plan):
        assert [str(d) for d in proof.examples] == []


def test_columns_that_differ_are_counted_by_source(central: Bench) -> None:
    """A row that differs in two columns counts in both; NULL differs; another source's rows do not count."""
    with central.owner() as conn:
        conn.execute("ALTER TABLE unit ADD note text")
        conn.execute("INSERT INTO unit VALUES (3, 'D', 'same', NULL), (4, 'E', 'named', 'x')")
    plan, found = central.prepare(_profile())
    units = "INSERT INTO unit VALUES (5, 'B', 'other', 'x'), (6, 'D', 'same', NULL), (7, 'E', 'named', NULL)"
    central.load(1, found, lambda conn, schema: _fill(conn, schema, units))
    central.load(2, found, lambda conn, schema: _fill(conn, schema, "INSERT INTO unit VALUES (8, 'B', 'central B')"))
    central.merge(plan, found, 1)
    central.merge(plan, found, 2)
    with central.connect() as conn:
        assert engine.read_differences(conn, 1) == {"unit": {"note": 2, "name": 1}}
        assert list(engine.read_differences(conn, 1)["unit"]) == ["note", "name"]
        assert engine.read_differences(conn, 2) == {}


def test_an_error_leaves_everything_as_it_was(central: Bench) -> None:
    """The database refuses a row in the middle: all is rolled back, and no value of a row is told."""
    plan, found = central.prepare(_profile())
    broken = SOURCE + "INSERT INTO visit VALUES (3, 1, '1999-09-09');"
    central.load(1, found, lambda conn, schema: _fill(conn, schema, broken))
    before = _state(central)
    with pytest.raises(MergeError) as caught:
        central.merge(plan, found, 1)
    assert "visit" in caught.value.what
    assert "1999" not in caught.value.what
    assert caught.value.__cause__ is None
    assert _state(central) == before


@pytest.mark.parametrize(
    ("change", "index"),
    [
        ("UPDATE person SET card = 'c3' WHERE id = 2", "person_card_key"),
        ("UPDATE unit SET code = 'C' WHERE id = 1", "unit_name"),
    ],
)
def test_collisions_are_foreseen(central: Bench, change: str, index: str) -> None:
    """Rows that would break a unique key, also a partial one or one of expressions, stop it before writing."""
    with central.owner() as conn:
        conn.execute("CREATE UNIQUE INDEX unit_name ON unit (lower(name)) WHERE code <> 'A'")
        conn.execute("UPDATE unit SET name = 'SOURCE c' WHERE id = 2")
    plan, found = central.prepare(_profile())
    central.load(1, found, lambda conn, schema: _fill(conn, schema, SOURCE + change))
    before = _state(central)
    with pytest.raises(CollisionError) as caught:
        central.merge(plan, found, 1)
    assert any(index in detail for detail in caught.value.details)
    assert _state(central) == before


def test_keys_too_large_for_their_column(central: Bench) -> None:
    """An integer key that the offset would carry beyond its type stops the merge."""
    with central.owner() as conn:
        conn.execute("INSERT INTO visit VALUES (2147483000, 1, NULL)")
    plan, found = central.prepare(_profile())
    central.load(1, found, lambda conn, schema: _fill(conn, schema, SOURCE))
    with pytest.raises(CollisionError) as caught:
        central.merge(plan, found, 1)
    assert any("visit.id" in detail for detail in caught.value.details)


def test_triggers_would_fire(central: Bench) -> None:
    """A role for which triggers fire is refused."""
    plan, found = central.prepare(_profile())
    with central.connect() as conn, pytest.raises(MergeError):
        engine.merge_source(conn, plan, found, 1, "source", {})


def test_nothing_unknown_passes(central: Bench) -> None:
    """A filled table without a rule, an undeclared reference and a reference to rows that stay are named at once."""
    with central.owner() as conn:
        conn.execute("ALTER TABLE visit ADD other_id bigint")
    rules = [_rule("unit", "config"), *(r for r in RULES if r["tables"] not in (["unit"], ["profile"]))]
    known = _profile(rules)
    plan, found = central.prepare(known)
    central.load(1, found, lambda conn, schema: _fill(conn, schema, SOURCE + "UPDATE visit SET other_id = 5"))
    with central.connect() as conn, pytest.raises(CoverageError) as caught:
        coverage.check_coverage(conn, plan, found, known, "src_1", [t for t, n in central.rows[1].items() if n])
    named = "\n".join(caught.value.details)
    assert all(part in named for part in ("profile", "visit.other_id", "person.unit_id")), named


def test_a_profile_is_checked_against_the_catalog(central: Bench) -> None:
    """Keys, parents and references that do not exist are shown together."""
    with central.connect() as conn:
        found = catalog.read(conn, "public")
    wrong = [_rule("unit", "entity", match=[["no_such"]], within="nor_this"), *RULES[1:]]
    with pytest.raises(ConfigError) as caught:
        make_plan(found, _profile(wrong))
    assert len(caught.value.details) == 2


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("ALTER TABLE person ADD extra text", "column"),
        ("ALTER TABLE person DROP name", "column"),
        ("ALTER TABLE person ALTER name TYPE varchar(10)", "type"),
        ("CREATE TABLE more (id int)", "table"),
        ("ALTER TABLE person DROP CONSTRAINT person_card_key", "unique key"),
        ("ALTER TABLE visit DROP CONSTRAINT visit_person_id_fkey", "foreign key"),
        ("ALTER TABLE visit DROP CONSTRAINT visit_at_check", "check"),
        ("ALTER TABLE visit_answer DROP CONSTRAINT visit_answer_pkey", "primary key"),
    ],
)
def test_other_schemas_are_refused(central: Bench, change: str, kind: str) -> None:
    """Whatever decides about rows must be the same on both sides."""
    with central.owner() as conn:
        ours = catalog.read(conn, "public")
        conn.execute(change.encode())
        theirs = catalog.read(conn, "public")
    with pytest.raises(SchemaDifference) as caught:
        compare.check(compare.compare(ours, theirs))
    assert any(detail.startswith(f"{kind}:") for detail in caught.value.details)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE INDEX ON person (name)",
        "CREATE VIEW people AS SELECT 1 AS one",
        "CREATE SEQUENCE more",
        "ALTER TABLE person ALTER name SET DEFAULT 'x'",
        "CREATE TABLE more (id int)",
    ],
)
def test_harmless_differences(central: Bench, change: str) -> None:
    """What does not decide about rows is reported with its reason, and lets the merge go on."""
    with central.owner() as conn:
        ours = catalog.read(conn, "public")
        conn.execute(change.encode())
        theirs = catalog.read(conn, "public")
    differences = compare.compare(ours, theirs, empty={"more"})
    compare.check(differences)
    assert differences
    assert all(d.harmless and d.reason for d in differences)
