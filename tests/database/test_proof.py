"""The proof of method `exact` finds nothing in a clean merge, and everything that was spoiled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from merge.baseline import make_baseline
from merge.errors import MergeError, ProofFailed
from merge.masking import mask, masked
from merge.proof import Difference, Findings, Kind
from merge.proof_central import prove_central
from merge.proof_source import prove_source
from tests.corruptions import NASTY, Corruption, together

if TYPE_CHECKING:
    from tests.fix_proof import Merged


def test_a_clean_merge_differs_in_nothing(clean_merge: Merged) -> None:
    proofs = clean_merge.prove(jobs=3)
    for proof in proofs:
        assert [str(d) for d in proof.examples] == []
        assert proof.holds
    first, _, central = proofs
    assert first.rows["person"] == 41
    assert first.central_unchanged is None
    assert central.central_unchanged
    assert central.rows["person"] == 60
    assert central.known == {"problem.problem_person_id_fkey": 1}


@pytest.mark.parametrize("corruptions", together(NASTY), ids=lambda group: f"{group[0].table}: {group[0].name}")
def test_a_corruption_is_found_and_named(merged: Merged, corruptions: tuple[Corruption, ...]) -> None:
    for corruption in corruptions:
        merged.corrupt(corruption.sql)
    found = [d for proof in merged.prove() for d in proof.examples]
    for wanted in corruptions:
        named = [d for d in found if d.kind == wanted.kind and d.table == wanted.table]
        assert wanted.column is None or wanted.column in {d.column for d in named}, (wanted, [str(d) for d in found])
        assert named, (wanted, [str(d) for d in found])


def test_no_value_is_shown(merged: Merged) -> None:
    merged.corrupt(
        "UPDATE person SET name = 'Maria das Dores', cpf = '98765432100', notes = '{\"secret\": 1}';"
        "DELETE FROM sheet; DELETE FROM log; UPDATE unit SET cnes = cnes || 'x'"
    )
    shown = json.dumps([proof.to_dict() for proof in merged.prove()])
    for value in ("Maria", "98765432100", "secret", "name 7", "sheet7", "cnes-", "00000000007"):
        assert value not in shown
    assert "text(15) #" in shown
    assert "id=1007" in shown


def test_all_are_counted_and_a_hundred_shown(merged: Merged) -> None:
    merged.corrupt("INSERT INTO ta_person SELECT i, i FROM generate_series(5001, 5250) i")
    central = merged.prove()[2]
    assert central.differences == {"invented": 250}
    assert len(central.examples) == 100
    assert central.central_unchanged


def test_a_proof_of_an_earlier_source_can_be_repeated(clean_merge: Merged) -> None:
    progress: list[tuple[int, int]] = []
    proof = prove_source(clean_merge.connect, clean_merge.plan, 1, 1, lambda *done: progress.append(done))
    assert proof.holds
    assert progress[-1][0] == progress[-1][1] == len(progress)


def test_a_proof_needs_a_baseline(merged: Merged) -> None:
    merged.corrupt("DROP TABLE homolog.base_done")
    with pytest.raises(ProofFailed):
        prove_central(merged.connect, merged.plan, (1, 2))


def test_a_baseline_is_made_once(merged: Merged) -> None:
    merged.corrupt("DELETE FROM person WHERE id = 7; DROP TABLE homolog_base.log")
    assert make_baseline(merged.connect, merged.plan).tables == len(merged.plan.tables)
    with merged.connect() as conn:
        assert conn.execute("SELECT count(*) FROM homolog_base.person").fetchone() == (60,)
        assert conn.execute("SELECT to_regclass('homolog_base.log')").fetchone() == (None,)


def test_an_interrupted_baseline_goes_on(merged: Merged) -> None:
    merged.corrupt(
        "DELETE FROM homolog.source; DELETE FROM homolog.base_done; DROP TABLE homolog_base.log;"
        "DELETE FROM homolog.base_table WHERE table_name = 'log';"
        "DELETE FROM homolog.base_range WHERE table_name = 'log'; DELETE FROM homolog.base_object WHERE kind = 'index'"
    )
    made = make_baseline(merged.connect, merged.plan, jobs=3)
    assert made.tables == len(merged.plan.tables)
    with merged.connect() as conn:
        assert conn.execute("SELECT count(*) FROM homolog_base.log").fetchone() == (25,)
        assert conn.execute("SELECT count(*) > 0 FROM homolog.base_object WHERE kind = 'index'").fetchone() == (True,)


def test_no_baseline_is_made_of_a_merged_database(merged: Merged) -> None:
    merged.corrupt("DELETE FROM homolog.base_done")
    with pytest.raises(MergeError):
        make_baseline(merged.connect, merged.plan)


@pytest.mark.parametrize("value", ["", "a", "José ' %s", None])
def test_server_and_program_mask_alike(clean_merge: Merged, value: str | None) -> None:
    with clean_merge.connect() as conn:
        row = conn.execute(sql.SQL("SELECT {}").format(masked(sql.Literal(value), "text", "s"))).fetchone()
    assert row == (mask(value, "text", "s"),)


def test_examples_are_bounded_but_counts_are_not() -> None:
    findings = Findings(1)
    for number in range(7):
        findings.extend([Difference(Kind.LOST.value, "t", f"id={number}-{i}") for i in range(30)], 1000)
    proof = findings.proof(1, 0.5)
    assert proof.differences == {"lost": 7000}
    assert len(proof.examples) == 100
    assert not proof.holds
