"""The smoke list: drawn by chance from each stratum, by internal ids only, and signed by who looked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from merge import profile
from merge.errors import BlockedError, ConfigError
from merge.profile import Smoke
from sandbox.pec import smoke
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_sample import Base

STRATA = profile.load("pec").smoke
pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A new run."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path))
    run = Run.create()
    yield run
    run.unlock()


def _stratum(query: str, **more: Any) -> Smoke:
    title = {"pt": "x", "en": "x"}
    return Smoke.model_validate({"name": "x", "title": title, "evidence": "seen", "query": query, **more})


def _all(base: Base, query: str) -> set[Any]:
    with base.connect() as conn:
        return {row[0] for row in conn.execute(query.encode()).fetchall()}


def test_every_stratum_of_the_sample_has_people(filled_central: Base) -> None:
    drawn = {stratum.stratum: stratum for stratum in smoke.draw(filled_central.connect, STRATA, 3, "a")}
    assert list(drawn) == ["pregnant", "chronic", "vaccinated_child", "both_bases"]
    citizens = _all(filled_central, "SELECT co_seq_cidadao FROM tb_cidadao")
    assert drawn["both_bases"].people == ()  # before a merge
    for stratum in list(drawn.values())[:-1]:
        assert len(stratum.people) == len(set(stratum.people)) == 3, stratum
        assert stratum.note == ""
        assert {number for ids in stratum.people for number in ids} <= citizens
    children = _all(
        filled_central, "SELECT co_seq_cidadao FROM tb_cidadao WHERE dt_nascimento > current_date - interval '12 years'"
    )
    assert {ids[0] for ids in drawn["vaccinated_child"].people} <= children


def test_people_of_both_bases(filled_central: Base) -> None:
    """Who shares a document with somebody, by either document, and was not unified."""
    with filled_central.admin() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("CREATE TABLE kept AS SELECT co_seq_cidadao, nu_cpf, nu_cns, st_unificado FROM tb_cidadao")
        both = "SELECT co_seq_cidadao FROM tb_cidadao WHERE nu_cpf <> '' AND nu_cns <> '' ORDER BY 1 LIMIT 6"
        first = [n for (n,) in conn.execute(both).fetchall()]
        try:
            for column, one, other in (("nu_cpf", 0, 1), ("nu_cns", 2, 3), ("nu_cpf", 4, 5), ("nu_cns", 4, 5)):
                conn.execute(
                    f"UPDATE tb_cidadao c SET {column} = o.{column} FROM tb_cidadao o"
                    f" WHERE c.co_seq_cidadao = {first[one]} AND o.co_seq_cidadao = {first[other]}".encode()
                )
            conn.execute("UPDATE tb_cidadao SET st_unificado = 1 WHERE co_seq_cidadao = %s", [first[2]])
            drawn = smoke.draw(filled_central.connect, STRATA, 5, "a")[-1]
        finally:
            conn.execute(
                "UPDATE tb_cidadao c SET nu_cpf = k.nu_cpf, nu_cns = k.nu_cns, st_unificado = k.st_unificado"
                "  FROM kept k WHERE k.co_seq_cidadao = c.co_seq_cidadao"
            )
            conn.execute("DROP TABLE kept")
    assert drawn.people == ((first[0], first[1]), (first[4], first[5]))


def test_by_chance_and_again(filled_central: Base) -> None:
    stratum = _stratum("SELECT co_seq_cidadao FROM tb_cidadao")
    once, again, other = (
        smoke.draw(filled_central.connect, [stratum], 40, seed)[0].people for seed in ("one", "one", "two")
    )
    assert once == again != other
    citizens = sorted(_all(filled_central, "SELECT co_seq_cidadao FROM tb_cidadao"))
    ranks = sorted(citizens.index(ids[0]) for ids in once)
    # Spread over all of them: a draw of the first, or of a stretch, is not by chance.
    assert ranks[0] < len(citizens) / 4 < len(citizens) * 3 / 4 < ranks[-1]


def test_nobody_and_few_and_not_there(filled_central: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    queries = {
        "SELECT co_seq_cidadao FROM tb_cidadao WHERE false": ((), "there is nobody"),
        "SELECT 7 FROM tb_cidadao UNION ALL SELECT NULL": (((7,),), "there are no more"),
        "SELECT ARRAY[7, 8]": (((7, 8),), "there are no more"),
        "SELECT co_x FROM tb_nowhere": ((), "not available in this version"),
        "SELECT co_x FROM tb_cidadao": ((), "not available in this version"),
        "SELECT 1 / 0": ((), "the query failed (22012)"),
        "DELETE FROM tb_cidadao RETURNING 1": ((), "the query failed (42601)"),
        "SELECT nextval('sq_atend_coseqatend')": ((), None),
    }
    for query, (people, note) in queries.items():
        drawn = smoke.draw(filled_central.connect, [_stratum(query)])[0]
        assert drawn.people == people
        assert note in (None, drawn.note)


def test_only_ids(filled_central: Base) -> None:
    with pytest.raises(ConfigError) as caught:
        smoke.draw(filled_central.connect, [_stratum("SELECT no_cidadao FROM tb_cidadao")])
    name = next(iter(_all(filled_central, "SELECT no_cidadao FROM tb_cidadao")))
    assert name not in str(caught.value) + str(caught.value.details)
    assert caught.value.__cause__ is None


def test_known_duplicates_are_drawn_from(filled_central: Base) -> None:
    known = [(10 * n, 10 * n + 1) for n in range(1, 9)]
    drawn = {d.stratum: d for d in smoke.draw(filled_central.connect, STRATA, 3, "s", in_both=known)}
    assert set(drawn["both_bases"].people) <= set(known)
    assert len(drawn["both_bases"].people) == 3
    assert len(drawn["pregnant"].people) == 3
    nobody = smoke.draw(filled_central.connect, STRATA, 3, "s", in_both=[])
    assert nobody[-1].people == ()
    assert nobody[-1].note


def test_signatures(run: Run) -> None:
    people = [smoke.Drawn("a", "A", ((1,), (2,))), smoke.Drawn("b", "B", ((3, 4),)), smoke.Drawn("c", "C", (), "none")]
    with pytest.raises(ConfigError):
        smoke.pending(run)
    smoke.keep(run, people)
    assert smoke.pending(run) == ("a", "b")
    smoke.sign_off(run, "a", "Ana", "problem", "CPF 123.456.789-09 sem vacina")
    assert smoke.standing(run) == {"a": "refused", "b": "pending", "c": "empty"}
    smoke.sign_off(run, "a", "Ana", "ok")
    smoke.sign_off(run, "b", "Beto", "ok")
    assert smoke.standing(run) == {"a": "accepted", "b": "accepted", "c": "empty"}
    assert smoke.pending(run) == ()
    kept = json.loads((run.folder / "smoke.json").read_text())
    assert [s["verdict"] for s in kept["signatures"]] == ["problem", "ok", "ok"]
    assert all(s["at"] and s["by"] for s in kept["signatures"])
    assert "789-09" not in (run.folder / "smoke.json").read_text()
    for stratum, by, verdict in (("nowhere", "Ana", "ok"), ("c", "Ana", "ok"), ("a", " ", "ok"), ("a", "Ana", "good")):
        with pytest.raises(ConfigError):
            smoke.sign_off(run, stratum, by, verdict)  # type: ignore[arg-type]
    with pytest.raises(BlockedError):
        smoke.keep(run, people)
