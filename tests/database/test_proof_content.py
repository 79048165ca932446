"""The proof of method `content` needs no crosswalk: it holds whatever keys the rows got, and finds what was spoiled."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from merge.errors import ProofFailed
from merge.proof_content import prove_content
from tests.corruptions import NASTY, Corruption
from tests.fix_proof import SOURCES
from tests.renumber import forget, renumber

if TYPE_CHECKING:
    from merge.proof import Proof
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
    """Some changes of different columns fit in one database; but too many, and a row is no more like what it was."""
    groups: list[tuple[Corruption, ...]] = []
    waiting: list[Corruption] = []
    for corruption in NASTY:
        if _only_notes(corruption):
            continue
        if corruption.name in INSTEAD:
            kind, table, column = INSTEAD[corruption.name]
            groups.append((replace(corruption, kind=kind, table=table, column=column),))
        elif corruption.sql.startswith("UPDATE") and corruption.kind == "changed":
            places = {(c.table, c.column) for c in waiting}
            if (corruption.table, corruption.column) in places or len(waiting) == 5:
                groups.append(tuple(waiting))
                waiting = []
            waiting.append(corruption)
        else:
            groups.append((corruption,))
    return [*groups, tuple(waiting)]


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


@pytest.mark.parametrize("seed", [0.1, 0.7])
def test_it_holds_whatever_keys_the_rows_got(merged: Merged, seed: float) -> None:
    with merged.connect() as conn:
        forget(conn)
        assert renumber(conn, merged.plan, seed) > 200
        # Large objects too.
        conn.execute(
            "UPDATE visit SET attachment = lo_from_bytea(0, lo_get(attachment)) WHERE attachment > 400004 AND attachment"
            " IN (SELECT oid FROM pg_largeobject_metadata);"
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
        ("UPDATE visit SET person_id = (SELECT id FROM person WHERE name = 'name 8s1') WHERE uuid = 's1visit7'", "changed",
         "visit"),
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


def test_rows_that_content_cannot_tell_apart_can_be_swapped(merged: Merged) -> None:
    """What the report says of them is true: only their number is proved."""
    # Two steps of one problem are the same but for their keys; a problem of another person is not.
    merged.corrupt("UPDATE problem_step SET id = CASE id WHEN 1001 THEN 1021 ELSE 1001 END + 5000 WHERE id IN (1001, 1021)")
    assert _prove(merged).holds
    merged.corrupt("UPDATE problem_step SET problem_unique = 1103 WHERE id = 6001")
    found = _prove(merged).differences
    assert found == {"lost": 1, "invented": 1}


def test_a_child_moved_between_equal_parents_is_found(merged: Merged) -> None:
    """Parents that are the same in themselves are told by what refers to them, in either direction."""
    merged.corrupt("UPDATE person SET name = 'x', social_name = 'y', cpf = '0', birth = NULL")
    assert not _prove(merged).holds


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
