"""The proof of method `content` needs no crosswalk: it holds whatever keys the rows got, and finds what was spoiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from merge.proof_content import prove_content
from tests.corruptions import NASTY, Corruption, together
from tests.fix_proof import SOURCES

if TYPE_CHECKING:
    from merge.proof import Proof
    from tests.fix_proof import Merged


def _prove(merged: Merged, jobs: int = 1) -> Proof:
    return prove_content(merged.connect, merged.plan, SOURCES, jobs, connect_owner=merged.connect)


def test_a_clean_merge_differs_in_nothing(merged: Merged) -> None:
    proof = _prove(merged, jobs=3)
    print("\n".join(map(str, proof.examples)))
    assert proof.holds
    print(proof)


@pytest.mark.parametrize("corruptions", together(NASTY), ids=lambda group: f"{group[0].table}: {group[0].name}")
def test_a_corruption_is_found_and_named(merged: Merged, corruptions: tuple[Corruption, ...]) -> None:
    for corruption in corruptions:
        merged.corrupt(corruption.sql)
    found = list(_prove(merged).examples)
    for wanted in corruptions:
        named = [d for d in found if d.kind == wanted.kind and d.table == wanted.table]
        assert wanted.column is None or wanted.column in {d.column for d in named}, (wanted, [str(d) for d in found])
        assert named, (wanted, [str(d) for d in found])
