"""The proof of method `content` needs no crosswalk: it holds whatever keys the rows got, and finds what was spoiled."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from merge import proof_content_pairs
from merge.errors import ProofFailed
from merge.plan import Action
from merge.profile import Profile
from merge.proof_content import prove_content
from merge.proof_content_rows import color
from tests.corruptions import NASTY, Corruption
from tests.database.test_generated_schemas import GIVEN, MADE
from tests.database.test_generated_schemas import merged as made_and_merged
from tests.fix_proof import SOURCES
from tests.renumber import forget, renumber

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from merge.plan import Plan, TablePlan
    from merge.proof import Proof
    from sandbox.server import Server
    from tests.fix_merge import Bench
    from tests.fix_proof import Merged

ALIKE = {"TB_Upper": 4, "problem_step": 40, "ta_person": 2}
"""Rows of the sources that are the same in all but their keys, and what they refer to and are referred to by: each
source's ta_person of person 40 (a person who is not there, in both), the same two rows of TB_Upper in both, and two
steps of the same state for each of ten problems."""

INSTEAD = {
    "two patients swapped whole": ("changed", "visit", "person_id"),  # their rows are told by what they hold
    "sources meet": ("lost", "problem_step", None),
    "offset into the central": ("changed", "problem", "problem_unique"),
    "inserted row called reconciled": ("changed", "visit", "uuid"),
    "quoted names": ("lost", "TB_Upper", None),  # its only value is another: it is not like anything that was there
}
"""What content says instead of what the crosswalk or the ledger would tell."""


def _only_notes(corruption: Corruption) -> bool:
    """True if only what the engine notes is spoiled (crosswalk, ledger): that is no part of the merged database."""
    return corruption.kind != "large_object" and all(
        "homolog." in statement for statement in corruption.sql.strip(";").split(";")
    )


def _groups() -> list[tuple[Corruption, ...]]:
    """Some that are named otherwise fit in one database; but of too many changes a row is no more like what it was."""
    groups: list[dict[tuple[str, str, str | None], Corruption]] = []
    for corruption in NASTY:
        if _only_notes(corruption):
            continue
        if corruption.name in INSTEAD:
            kind, table, column = INSTEAD[corruption.name]
            corruption = replace(corruption, kind=kind, table=table, column=column)
        place = corruption.kind, corruption.table, corruption.column
        alone = corruption.kind in ("large_object", "sequence", "view", "doubled") or corruption.name in INSTEAD
        for group in groups:
            if not alone and place not in group and len(group) < 5 and corruption.kind == next(iter(group))[0]:
                group[place] = corruption
                break
        else:
            groups.append({place: corruption})
    return [tuple(group.values()) for group in groups]


def _prove(merged: Merged, jobs: int = 1) -> Proof:
    return prove_content(merged.connect, merged.plan, SOURCES, jobs, connect_owner=merged.connect)


def test_a_clean_merge_differs_in_nothing(merged: Merged) -> None:
    with merged.connect() as conn:
        forget(conn)
    proof = _prove(merged, jobs=3)
    assert [str(d) for d in proof.examples] == []
    assert proof.holds
    assert proof.method == "content"
    assert proof.central_unchanged
    assert proof.known == {"problem.problem_person_id_fkey": 1}
    assert proof.alike == ALIKE
    assert proof.indistinguishable == sum(ALIKE.values())
    assert proof.matched == {"unit (cnes)": 6}
    assert proof.rows["person"] == 60 + 41 + 42
    assert proof.rows["log"] == 9 + 16
    with merged.connect() as conn:
        assert conn.execute("SELECT to_regnamespace('homolog_content')").fetchone() == (None,)


def test_older_servers_hash_otherwise(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before PostgreSQL 14 there is no fast hash of rows; both give the same."""
    used: list[str] = []

    def old(*arguments: Any) -> sql.Composed:
        used.append(arguments[1].name)
        return color(*arguments[:3], 90600, arguments[4])

    monkeypatch.setattr(proof_content_pairs, "color", old)
    proof = _prove(merged)
    assert "person" in used
    assert proof.holds
    assert proof.alike == ALIKE
    merged.corrupt("UPDATE person SET balance = 1.00 WHERE id = 1006")
    assert [str(d).split(":")[0] for d in _prove(merged).examples] == ["changed person.balance [id=6]"]


@pytest.mark.parametrize("seed", [0.1, 0.7])
def test_it_holds_whatever_keys_the_rows_got(merged: Merged, seed: float) -> None:
    with merged.connect() as conn:
        forget(conn)
        assert renumber(conn, merged.plan, seed) > 200
        # Large objects too.
        conn.execute(
            "UPDATE visit SET attachment = lo_from_bytea(0, lo_get(attachment)) WHERE attachment > 400004"
            " AND attachment IN (SELECT oid FROM pg_largeobject_metadata);"
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid NOT IN (SELECT attachment FROM visit WHERE"
            " attachment IS NOT NULL)"
        )
    proof = _prove(merged)
    assert [str(d) for d in proof.examples] == []
    assert proof.alike == ALIKE


@pytest.mark.parametrize("corruptions", _groups(), ids=lambda group: f"{group[0].table}: {group[0].name}")
def test_a_corruption_is_found_and_named(merged: Merged, corruptions: tuple[Corruption, ...]) -> None:
    for corruption in corruptions:
        merged.corrupt(corruption.sql)
    found = list(_prove(merged).examples)
    for wanted in corruptions:
        named = [d for d in found if d.kind == wanted.kind and d.table == wanted.table]
        assert wanted.column is None or wanted.column in {d.column for d in named}, (wanted, [str(d) for d in found])
        assert named, (wanted, [str(d) for d in found])


@pytest.mark.parametrize(
    ("change", "kind", "table"),
    [
        ("UPDATE visit SET person_id = (SELECT id FROM person WHERE name = 'name 8s1') WHERE uuid = 's1visit7'",
         "changed", "visit"),
        ("DELETE FROM problem_step WHERE id = (SELECT max(id) FROM problem_step)", "lost", "problem_step"),
        ("INSERT INTO problem_step SELECT max(id) + 1, max(problem_unique), 'state' FROM problem_step", "invented",
         "problem_step"),
        ("UPDATE ta_person SET person_id = 7 WHERE id = (SELECT max(id) FROM ta_person)", "changed", "ta_person"),
    ],
)  # fmt: skip
def test_what_is_spoiled_is_found_whatever_keys_the_rows_got(
    merged: Merged, change: str, kind: str, table: str
) -> None:
    with merged.connect() as conn:
        forget(conn)
        renumber(conn, merged.plan, 0.3)
    merged.corrupt(change)
    found = _prove(merged).examples
    assert (kind, table) in {(d.kind, d.table) for d in found}, [str(d) for d in found]


def test_an_application_moves_no_sequence_but_that_of_a_table(merged: Merged) -> None:
    """Of which nothing tells what it numbers: our own merge puts it ahead of all, another one need not."""
    merged.corrupt(
        "ALTER SEQUENCE seq_visit RENAME TO numbers; SELECT setval('numbers', 70);"
        "UPDATE homolog.base_sequence SET name = 'numbers' WHERE name = 'seq_visit'"
    )

    def behind(declared: dict[str, Any] | None) -> list[str]:
        proof = prove_content(merged.connect, merged.plan, SOURCES, 1, declared=declared)
        return [d.table for d in proof.examples if d.kind == "sequence"]

    assert behind(None) == ["numbers"]
    assert behind({}) == []
    merged.corrupt("SELECT setval('numbers', 5), setval('person_id_seq', 70)")
    assert behind({}) == ["numbers", "person_id_seq"]  # it fell back; and what is owned is known


def test_rows_that_content_cannot_tell_apart_can_be_swapped(merged: Merged) -> None:
    """What the report says of them is true: only their number is proved."""
    # Two steps of one problem are the same but for their keys; a step of another problem is not.
    merged.corrupt("UPDATE problem_step SET id = 6000 + CASE id WHEN 1001 THEN 21 ELSE 1 END WHERE id IN (1001, 1021)")
    assert _prove(merged).holds
    merged.corrupt("UPDATE problem_step SET problem_unique = 1103 WHERE id = 6001")
    assert _prove(merged).differences == {"changed": 1}


def test_no_value_is_shown(merged: Merged) -> None:
    merged.corrupt(
        "UPDATE person SET name = 'Maria das Dores', cpf = '98765432100', notes = '{\"secret\": 1}';"
        "DELETE FROM sheet; DELETE FROM log; UPDATE unit SET cnes = cnes || 'x'"
    )
    shown = json.dumps(_prove(merged).to_dict())
    for value in ("Maria", "98765432100", "secret", "name 7", "sheet7", "cnes-", "00000000007"):
        assert value not in shown
    assert "text(15) #" in shown


def test_a_proof_needs_a_baseline_and_leaves_nothing(merged: Merged) -> None:
    merged.corrupt("DROP TABLE homolog.base_done")
    with pytest.raises(ProofFailed):
        _prove(merged)
    with merged.connect() as conn:
        assert conn.execute("SELECT to_regnamespace('homolog_content')").fetchone() == (None,)


# Made with the engine


ACTORS = """
    CREATE TABLE actor (id bigint PRIMARY KEY);
    CREATE TABLE post (actor_id bigint PRIMARY KEY REFERENCES actor, name text);
    CREATE TABLE deed (id bigint PRIMARY KEY, actor_id bigint NOT NULL REFERENCES actor,
                       after_id bigint REFERENCES deed, what text);
"""


@pytest.fixture
def actors(bench: Bench) -> tuple[Bench, Plan]:
    """A merge of actors, who are nothing but a key: their posts tell them apart, and their deeds in turn."""
    with bench.owner() as conn:
        conn.execute(ACTORS.encode())
        _act(conn, "public")
    rules = [{"tables": [t], "role": "event", "reason": "r", "evidence": "seen"} for t in ("actor", "post", "deed")]
    profile = Profile.model_validate({"application": {"name": "a", "title": "a"}, "rule": rules})
    plan, found = bench.prepare(profile)
    bench.load(1, found, _act)
    bench.merge(plan, found, 1)
    return bench, plan


def _act(conn: psycopg.Connection[Any], schema: str) -> None:
    """Of actors 1 to 6, the last two have no post; and all have deeds, one after the other, that are named alike."""
    conn.execute("SELECT set_config('search_path', %s, false)", [schema])
    conn.execute("INSERT INTO actor SELECT generate_series(1, 6)")
    conn.execute("INSERT INTO post SELECT i, %s || i FROM generate_series(1, 4) i", [schema])
    conn.execute(
        "INSERT INTO deed SELECT 10 * i + k, i, CASE WHEN k > 1 THEN 10 * i + k - 1 END, 'deed'"
        " FROM generate_series(1, 6) i, generate_series(1, 3) k"
    )


def test_rows_that_all_got_lost_are_missed_where_the_central_had_none(actors: tuple[Bench, Plan]) -> None:
    bench, plan = actors
    with bench.connect() as conn:
        conn.execute("TRUNCATE homolog_base.post, post")
        conn.execute("UPDATE homolog.base_table SET rows = 0 WHERE table_name = 'post'")
    # What was only told by them is not told apart any more either; but these are named.
    assert [d.kind for d in prove_content(bench.connect, plan, [1]).examples if d.table == "post"] == ["lost"] * 4


def test_what_is_only_a_key_is_told_by_what_refers_to_it(actors: tuple[Bench, Plan]) -> None:
    bench, plan = actors
    proof = prove_content(bench.connect, plan, [1])
    assert [str(d) for d in proof.examples] == []
    # Those of two actors who are the same.
    assert proof.alike == {"actor": 2, "deed": 6}


@pytest.mark.parametrize(
    "change",
    [
        # A deed goes from one actor to another.
        "UPDATE deed SET actor_id = {post} - 1 WHERE actor_id = {post} AND after_id IS NULL",
        # Two deeds change places, of actors that are told apart, or that are not.
        "UPDATE deed d SET after_id = o.after_id FROM deed o WHERE (d.id, o.id) IN (SELECT {deed} + 3 + 10 * i,"
        " {deed} + 3 + 10 * j FROM (VALUES (1, 2), (2, 1)) v (i, j))",
        "UPDATE deed d SET after_id = o.after_id FROM deed o WHERE (d.id, o.id) IN (SELECT {deed} + 3 + 10 * i,"
        " {deed} + 3 + 10 * j FROM (VALUES (5, 6), (6, 5)) v (i, j))",
        "UPDATE deed SET after_id = id WHERE id = {deed} + 63",
        "UPDATE deed SET after_id = {deed} + 61 WHERE id = {deed} + 63",
    ],
)
def test_children_moved_between_equal_parents_are_found(actors: tuple[Bench, Plan], change: str) -> None:
    bench, plan = actors
    with bench.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        post, deed = conn.execute("SELECT (SELECT max(actor_id) FROM post), (SELECT max(id) - 63 FROM deed)").fetchone()
        assert conn.execute(change.format(post=post, deed=deed).encode()).rowcount
        renumber(conn, plan, 0.5)
    assert not prove_content(bench.connect, plan, [1]).holds


@given(**MADE, seed=st.floats(-1, 1))
@settings(GIVEN, max_examples=25)
def test_it_agrees_with_the_exact_proof(server: Server, seed: float, **drawn: Any) -> None:
    """Clean merges differ in nothing, whatever keys their rows have got; what is found in spoiled ones is found."""
    with made_and_merged(server, **drawn) as (bench, plan):
        sources = list(bench.rows)
        proof = prove_content(bench.connect, plan, sources)
        assert [str(d) for d in proof.examples] == []
        with bench.connect() as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("SELECT setseed(%s)", [seed])
            spoiled = [spoil(conn, table, proof.alike) for table in plan if table.action is Action.MERGE]
        if any(spoiled):
            assert not all(p.holds for p in bench.prove(plan))
            assert not prove_content(bench.connect, plan, sources).holds


@given(**MADE, seed=st.floats(-1, 1))
@settings(GIVEN, max_examples=25)
def test_it_holds_in_generated_schemas_whatever_keys_the_rows_got(server: Server, seed: float, **drawn: Any) -> None:
    with made_and_merged(server, **drawn) as (bench, plan):
        before = prove_content(bench.connect, plan, list(bench.rows))
        with bench.connect() as conn:
            renumber(conn, plan, seed)
            forget(conn)
        proof = prove_content(bench.connect, plan, list(bench.rows))
        assert [str(d) for d in proof.examples] == []
        assert proof.alike == before.alike
        with bench.connect() as conn:
            conn.execute("SET session_replication_role = replica")
            spoiled = [spoil(conn, table, proof.alike) for table in plan if table.action is Action.MERGE]
        assert prove_content(bench.connect, plan, list(bench.rows)).holds is not any(spoiled)


def spoil(conn: psycopg.Connection[Any], table: TablePlan, alike: Mapping[str, int]) -> bool:
    """Change one row of a table at random, or lose it; whether there was one that can be told."""
    if table.name in alike or not table.key:
        return False
    name = sql.Identifier(table.name)
    row = sql.SQL("ctid = (SELECT ctid FROM {} ORDER BY random() LIMIT 1)").format(name)
    plain = [c for c in table.columns if c.type == "text" and c.name not in table.key]
    if plain:
        column = sql.Identifier(plain[0].name)
        change = sql.SQL("UPDATE {} SET {} = coalesce({}, '') || ' ' WHERE {}").format(name, column, column, row)
    else:
        change = sql.SQL("DELETE FROM {} WHERE {}").format(name, row)
    return bool(conn.execute(change).rowcount)
