"""The result and its checks, as JSON, JUnit XML and HTML."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from pydantic import ValidationError

from sandbox import report, schema, words
from sandbox.result import (
    Candidate,
    Check,
    ContentProofResult,
    Problem,
    ProofResult,
    RunResult,
    ServerResult,
    checks,
    junit,
)
from sandbox.verdict import verdict
from tests.builders import (
    PREFLIGHT,
    build_answer,
    build_blocked,
    build_different,
    build_result,
    build_source,
    build_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.result import SourceResult

ROOT = Path(__file__).parents[2]
BUILDERS = [build_result, build_different, build_blocked]


def build_failed_at_intake() -> RunResult:
    """A run whose first backup could not be read."""
    return build_result(
        status="failed",
        exit_code=3,
        server=ServerResult(None, None),
        inputs=(),
        sources=(),
        timings={},
        central_proof=None,
        duplicates={},
        opaque={},
        attachments=(),
        attachments_proof=None,
        preflight=(),
        suspicions=(),
        candidate=Candidate(None, promotable=False, reason="a execução não terminou validada"),
        problem=Problem("O backup está truncado.", kind="BackupError"),
    )


# result.json


@pytest.fixture(scope="module")
def validator() -> Any:
    kept = json.loads((ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(kept)
    return jsonschema.Draft202012Validator(kept)


def test_the_schema_in_docs_is_that_of_the_code() -> None:
    assert json.loads((ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8")) == schema.result_schema()


@pytest.mark.parametrize("build", [*BUILDERS, build_failed_at_intake])
def test_results_follow_the_schema_and_can_be_read_back(build: Callable[[], RunResult], validator: Any) -> None:
    result = build()
    written = json.loads(json.dumps(result.to_dict()))
    validator.validate(written)
    assert RunResult.from_dict(written) == result


def test_the_stable_fields_are_there() -> None:
    written = build_result().to_dict()
    assert written["schema_version"] == 1
    assert {"run_id", "status", "engine", "server", "inputs", "sources", "timings", "candidate"} < written.keys()
    assert written["server"] == {"provider": "embedded", "version": "16.14"}
    assert {"role", "path", "sha256", "format", "dumped_from", "pec_version"} <= written["inputs"][0].keys()
    source = written["sources"][0]
    assert {"name", "rows", "dispositions", "tables", "seconds", "proof", "added"} == source.keys()
    assert list(source["dispositions"]) == ["inserted", "matched", "reconciled", "grouped", "excluded", "rejected"]
    assert list(source["seconds"]) == ["restore", "preflight", "plan", "merge", "proof"]
    assert list(source["proof"]) == ["method", "rows_compared", "differences", "central_unchanged"]
    assert list(written["candidate"]) == ["database", "promotable", "reason", "dump", "sha256"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.update(status="perfect"),
        lambda r: r.update(schema_version=2),
        lambda r: r.pop("run_id"),
        lambda r: r["sources"][0].update(rows="many"),
        lambda r: r["sources"][0]["dispositions"].update(lost=1),
        lambda r: r["inputs"][0].update(role="other"),
        lambda r: r["inputs"][0].update(sha256="abc"),
    ],
)
def test_the_schema_refuses_what_is_wrong(spoil: Callable[[dict[str, Any]], None], validator: Any) -> None:
    written = json.loads(json.dumps(build_result().to_dict()))
    spoil(written)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(written)


def test_wrong_values_are_refused_where_they_are_made() -> None:
    with pytest.raises(ValidationError):
        build_result(status="perfect")


def test_fields_of_a_later_version_are_left_out() -> None:
    assert RunResult.from_dict({**build_result().to_dict(), "later": 1}).run_id == "20261123-1912-k7m2"


# Checks


def states(result: RunResult) -> dict[str, str]:
    return {f"{check.group}.{check.name}": check.state for check in checks(result)}


def test_all_checks_of_a_validated_run_passed() -> None:
    found = states(build_result())
    assert set(found.values()) == {"passed"}
    assert list(found)[:4] == ["run.intake", "run.conditions", "central.restore", "central.preflight"]
    assert [name for name in found if name.startswith("ubs-sul")] == [
        f"ubs-sul.{name}" for name in ("restore", "schema", "coverage", "preflight", "merge", "ledger", "proof")
    ]
    assert list(found)[-3:] == ["central.proof", "attachments.proof", "merged.preflight"]


def test_differences_fail_the_proof_of_their_source_only() -> None:
    found = states(build_different())
    assert [name for name, state in found.items() if state == "failed"] == ["ubs-sul.proof"]
    assert found["ubs-norte.proof"] == "passed"
    assert found["central.proof"] == "skipped"


def test_differences_of_the_central() -> None:
    result = build_result(status="different", central_proof=ProofResult("exact", 10, 1, False))
    assert [name for name, state in states(result).items() if state == "failed"] == ["central.proof"]


def test_a_proof_by_content_is_a_check_of_its_own_and_says_what_it_cannot_tell(validator: Any) -> None:
    assert not [c for c in checks(build_result()) if c.name == "content"]
    proof = ContentProofResult(1_400_000, 0, central_unchanged=True, alike={"ta_x": 12, "tb_y": 2})
    result = build_result(content_proof=proof)
    validator.validate(json.loads(json.dumps(result.to_dict())))
    assert [c.state for c in checks(result) if c.name == "content"] == ["passed"]
    html = report.render(result)
    assert "14 linhas de 2 tabelas não se distinguem pelo conteúdo" in html
    assert "<code>ta_x</code>" in html
    told = replace(result, content_proof=replace(proof, alike={}))
    assert "O conteúdo distingue todas as linhas." in report.render(told)
    spoiled = replace(result, content_proof=replace(proof, differences=3))
    assert [c.state for c in checks(spoiled) if c.name == "content"] == ["failed"]
    assert [c.state for c in checks(spoiled) if c.name == "proof"] == ["passed"] * 4


def test_what_comes_after_a_block_was_skipped() -> None:
    found = states(build_blocked())
    assert [name for name, state in found.items() if state == "failed"] == ["ubs-sul.coverage"]
    assert found["ubs-sul.schema"] == "passed"
    assert [name for name, state in found.items() if state == "skipped"] == [
        *(f"ubs-sul.{name}" for name in ("preflight", "merge", "ledger", "proof")),
        "central.proof",
        "attachments.proof",
        "merged.preflight",
    ]


@pytest.mark.parametrize(
    ("kind", "done", "failed"),
    [
        ("BackupError", (), "run.intake"),
        ("BackupError", ("intake",), "central.restore"),
        ("ServerError", ("intake",), "central.restore"),
        ("SchemaDifference", ("intake", "central.restore", "central.preflight"), "ubs.schema"),
        ("BackupError", ("intake", "central.restore", "central.preflight"), "ubs.restore"),
        ("SchemaDifference", ("intake", "central.restore", "central.preflight", "source.1.restore"), "ubs.schema"),
        ("CoverageError", ("intake", "central.restore", "central.preflight", "source.1.restore"), "ubs.coverage"),
        ("BlockedError", ("intake", "central.restore", "central.preflight", "source.1.restore"), "ubs.preflight"),
        ("PreflightBlocked", ("intake", "central.restore", "central.preflight", "source.1.restore"), "ubs.preflight"),
        (
            "CollisionError",
            ("intake", "central.restore", "central.preflight", "source.1.restore", "source.1.preflight"),
            "ubs.merge",
        ),
        (
            "MergeError",
            ("intake", "central.restore", "central.preflight", "source.1.restore", "source.1.preflight"),
            "ubs.merge",
        ),
    ],
)
def test_the_check_that_a_problem_failed(kind: str, done: tuple[str, ...], failed: str) -> None:
    base = build_failed_at_intake()
    result = replace(
        base,
        inputs=build_result().inputs if "intake" in done else (),
        sources=(build_source("ubs", proof=ProofResult("exact", 0, None, None)),),
        timings=dict.fromkeys(done[1:], 1.0),
        problem=Problem("what", kind=kind),
    )
    assert [name for name, state in states(result).items() if state == "failed"] == [failed]


def test_a_ledger_that_does_not_add_up() -> None:
    wrong = replace(build_table("tb_x", "event", "", "", {"inserted": 2}), rows=3)
    (failed,) = [c for c in checks(build_result(sources=(build_source(tables=(wrong,)),))) if c.state == "failed"]
    assert (failed.name, failed.details) == ("ledger", ("tb_x",))


def test_a_problem_is_never_lost() -> None:
    result = build_result(status="failed", problem=Problem("late", kind="MergeError"))
    assert any(check == Check("merged", "preflight", "failed", 0.5, "late") for check in checks(result))


def test_what_blocks_fails_the_check_of_its_place() -> None:
    """Each kind of answer that blocks, at the place where it was asked; what comes later was not done."""
    people = build_answer("A-01", "run", "blocked", gate="block", kind="human")
    file = build_answer("C-03", "ubs", "blocked", gate="block", kind="file")
    problem = Problem("what", kind="PreflightBlocked")
    base = replace(build_failed_at_intake(), problem=problem, status="blocked")
    for answer in (people, file):
        found = states(replace(base, preflight=(answer,)))
        assert [name for name, state in found.items() if state == "failed"] == ["run.conditions"]
    central = replace(base, inputs=build_result().inputs, timings={"central.restore": 1.0})
    assert states(central)["central.preflight"] == "failed"
    merged = build_answer("E-07", "merged", "blocked", found=2)
    found = states(build_result(status="different", preflight=(*PREFLIGHT[:-1], merged)))
    assert [name for name, state in found.items() if state == "failed"] == ["merged.preflight"]


# JUnit


def test_junit_of_a_validated_run() -> None:
    suite = ET.fromstring(junit(build_result())).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases)) == "21"
    assert suite.get("failures") == suite.get("skipped") == "0"
    assert {case.get("classname") for case in cases} == {
        f"homolog.{g}" for g in ("run", "central", "ubs-norte", "ubs-sul", "attachments", "merged")
    }
    assert [c.get("time") for c in cases if c.get("name") == "merge"] == ["5.700", "5.700"]


def test_junit_of_failures() -> None:
    suite = ET.fromstring(junit(build_different())).find("testsuite")
    assert suite is not None
    (failure,) = suite.iter("failure")
    assert "changed tb_cidadao.dt_nascimento [co_seq_cidadao=91]" in (failure.text or "")
    assert len(list(suite.iter("skipped"))) == int(suite.get("skipped", "")) == 3


def test_junit_survives_control_characters() -> None:
    result = replace(build_blocked(), problem=Problem("a\x00b\x1b", details=("<\x07>",), kind="CoverageError"))
    (failure,) = ET.fromstring(junit(result)).iter("failure")
    assert (failure.get("message"), failure.text) == ("ab", "<>")


# HTML


class Page(HTMLParser):
    """Checks that elements nest, and collects what a test asks for."""

    VOID = ("meta", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [str(found[name]) for name in ("src", "href", "action") if name in found]
        self.ids += [str(found["id"])] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.mark.parametrize("language", ["pt", "en"])
@pytest.mark.parametrize("build", [*BUILDERS, build_failed_at_intake])
def test_the_report_is_whole_and_needs_nothing_else(
    build: Callable[[], RunResult], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", language)
    result = build()
    page = Page(report.render(result))
    assert page.addresses == []
    assert len(page.ids) == len(set(page.ids))
    assert verdict(result).headline in page.text
    assert result.run_id in page.text
    assert all(one.sha256 in page.text for one in result.inputs)
    if result.problem:
        assert result.problem.what in page.text


def test_the_report_tells_what_differs() -> None:
    text = Page(report.render(build_different())).text
    assert "tb_cidadao.dt_nascimento" in text
    assert "date(10) #3f2a9c0d11" in text
    assert "Há diferenças: não leve à produção" in text


def test_the_report_tells_what_did_not_come_and_why() -> None:
    text = " ".join(Page(report.render(build_result())).text.split())
    assert "295.252" in text
    assert "81.250 o PEC recalcula" in text
    assert "43 grupos de cidadãos" in text


def page_text(result: RunResult) -> str:
    return " ".join(Page(report.render(result)).text.split())


def test_the_report_tells_which_catalogs_differ_and_in_what() -> None:
    text = page_text(build_result())
    assert "Linhas de catálogos que só esta origem tinha foram acrescentadas: 4." in text
    assert "conteúdo diferente: 3 em catálogos, 1 em outras tabelas." in text
    assert "tb_medicamento 4 3 st_ativo 3 ds_forma 1" in text
    assert "tb_profcadastro 1 ds_email 1" in text
    assert "tb_ciap 4" not in text
    assert "nenhuma linha em comum" not in text
    same = replace(build_source(), tables=(build_table("tb_ciap", "catalog", "", "", {"matched": 2}),))
    assert "Catálogos que diferem" not in page_text(build_result(sources=(same,)))
    unmatched = replace(same, tables=(build_table("tb_ciap", "catalog", "", "", {"inserted": 2}),))
    assert "nenhuma linha em comum" in page_text(build_result(sources=(unmatched,)))


def test_the_report_tells_what_the_preflight_found() -> None:
    """What a person should look at, with all there is about it; the rest in the table of all answers."""
    text = page_text(build_result())
    warned = text[text.index("aviso título de C-08f") : text.index("O que só pessoas")]
    for said in ("significado de C-08f", "central", "última escrita: 21/11/2026 10:00", "diferença: 2 dias",
                 "ação de C-08f", "Fonte: inspeção de bases (deduzido)"):  # fmt: skip
        assert said in warned
    assert "ubs-norte · 1 achado" in warned
    assert "Aceito: conferido com a unidade" in warned
    assert "título de E-16" not in warned
    people = text[text.index("O que só pessoas") : text.index("Todas as respostas (7)")]
    assert "A-01 título de A-01 pendente" in people
    assert "M. Souza · " in people
    assert "2026-11-23T22" not in people
    assert "traz o nome de quem confirmou" in text
    assert text.count("título de E-16") == 1
    for chip in ("1 aviso ", "1 aviso aceito", "1 pendente", "1 confirmada", "1 registrada", "2 em ordem"):
        assert chip in text


def test_what_nobody_confirmed_does_not_read_as_if_it_were_so() -> None:
    answer = build_answer("A-01", "run", "blocked", gate="block", kind="human")
    text = page_text(replace(build_failed_at_intake(), preflight=(answer,), final=True))
    assert "impede título de A-01 A-01 Falta confirmar: significado de A-01" in text
    assert "linhas nas origens" not in text  # no figures of nothing


def test_what_blocks_comes_before_the_steps() -> None:
    answer = build_answer("B-01a", "ubs-sul", "blocked", gate="block", details={"central": "5.5.28", "source": "5.4.9"})
    problem = Problem(
        "1 verificação impede a unificação.", details=("B-01a · ubs-sul: it differs", "tb_x"), kind="PreflightBlocked"
    )
    text = page_text(replace(build_blocked(), preflight=(answer,), problem=problem))
    assert text.index("impede título de B-01a") < text.index("Etapas")
    assert "no central: 5.5.28 na origem: 5.4.9" in text
    assert "De 2 origens, 1 já estava unificada na sandbox" in text
    assert "B-01a · ubs-sul" not in text  # said once, with all there is about it
    assert "tb_x" in text


def test_the_report_tells_of_attachments_suspicions_and_duplicates() -> None:
    text = page_text(build_result())
    assert "35 arquivos comparados byte a byte com o que foi entregue: 0 diferenças." in text
    assert "10 arquivos · 50 kB 9 no seu lugar 1 de linha nenhuma; à parte 1 de 10 linhas sem o arquivo" in text
    assert "não declaradas (1)" in text
    assert "tb_atend.co_nova → tb_prof.co_seq_prof ubs-sul, 66 linhas a chave muda" in text
    assert text.count("source-2-duplicates.json") == 2  # in the next steps, and at its source
    without = page_text(build_result(attachments=(), attachments_proof=None, suspicions=(), duplicates={}))
    for said in ("Anexos guardados", "não declaradas", "duplicates.json"):
        assert said not in without


def test_a_final_run_is_told_from_a_rehearsal() -> None:
    rehearsal, final = build_result(), build_result(final=True)
    assert verdict(rehearsal).headline.startswith("Ensaio validado")
    assert verdict(final).headline.startswith("Execução final validada")
    assert "Ensaio" not in page_text(final)


def said_of(source: SourceResult, **changes: Any) -> str:
    return " ".join(verdict(build_result(sources=(source,), **changes)).sentences)


def test_rows_that_did_not_come_are_explained_by_kind() -> None:
    said = said_of(build_source())
    assert "81.291 linhas (55,1 %) não vieram, e isso não é perda: 81.250 de dados que o central refaz" in said
    assert "; 41 de configuração" in said
    assert "de fora" not in said


def test_rows_that_a_scope_leaves_out_are_not_called_no_loss() -> None:
    table = replace(build_table("tb_perfil", "entity", "", "", {"excluded": 2, "inserted": 1}), left_out={"belongs": 2})
    source = build_source(tables=(table,), rows=3, dispositions={"excluded": 2, "inserted": 1})
    said = said_of(source, scope="vendor")
    assert "2 linhas ficaram de fora por escolha do escopo vendor" in said
    assert "não é perda" not in said
    rejected = replace(build_table("tb_x", "event", "", "", {"rejected": 2}), left_out={"sem unidade": 2})
    said = said_of(build_source(tables=(rejected,), rows=2, dispositions={"rejected": 2}))
    assert "de fora" not in said
    assert "não é perda" not in said


def test_one_is_one() -> None:
    """Singular and plural, in the verdict and in the report."""
    table = build_table("tb_x", "derived", "", "o central refaz", {"excluded": 1})
    source = build_source(tables=(table,), rows=1, dispositions={"excluded": 1})
    result = build_result(sources=(source,), duplicates={"ubs-norte": 1})
    said = " ".join((*verdict(result).sentences, *verdict(result).next_steps))
    for one in ("1 linha de 1 instalação", "1 linha (100,0 %) não veio", "1 grupo de", "aceite 1 aviso das"):
        assert one in said
    assert "1 linha em 1 tabela preenchida" in page_text(result)
    assert verdict(build_result(duplicates={"ubs-norte": 2})).next_steps != verdict(result).next_steps


@pytest.mark.parametrize(
    ("timings", "said"),
    [
        ({}, "antes de restaurar"),
        ({"central.restore": 1.0}, "antes de unificar qualquer"),
        ({"central.restore": 1.0, "source.1.merge": 1.0}, "De 2 origens, 1 já estava unificada na sandbox"),
    ],
)
def test_a_blocked_run_says_how_far_it_came(timings: dict[str, float], said: str) -> None:
    (sentence,) = verdict(replace(build_blocked(), timings=timings)).sentences[1:]
    assert said in sentence
    assert sentence.endswith("A produção não foi tocada.")


def test_names_are_escaped() -> None:
    page = report.render(build_result(sources=(build_source("<script>alert(1)</script>"),), duplicates={}))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_rejected_rows_are_said_in_the_headline() -> None:
    table = build_table("tb_x", "event", "", "sem unidade", {"rejected": 3})
    source = build_source(tables=(table,), rows=3, dispositions={"rejected": 3})
    said = verdict(build_result(sources=(source,)))
    assert "rejeitadas" in said.headline
    assert any(sentence.startswith("Atenção: 3 linhas foram") for sentence in said.sentences)


def test_nothing_is_said_of_a_central_that_was_not_proved() -> None:
    assert not any("idênticos" in s for s in verdict(build_result(central_proof=None)).sentences)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0,0 s"),
        (9.94, "9,9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (172800, "2 dias"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_sizes() -> None:
    assert [words.size(n) for n in (0, 999, 1200, 50_347, 7_300_000_000)] == [
        "0 B",
        "999 B",
        "1,2 kB",
        "50 kB",
        "7,3 GB",
    ]
