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
from sandbox.result import Candidate, Check, Problem, ProofResult, RunResult, ServerResult, checks, junit
from tests.builders import build_blocked, build_different, build_result, build_source, build_table

if TYPE_CHECKING:
    from collections.abc import Callable

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
    assert list(found)[:2] == ["run.intake", "central.restore"]
    assert [name for name in found if name.startswith("ubs-sul")] == [
        f"ubs-sul.{name}" for name in ("restore", "schema", "coverage", "preflight", "merge", "ledger", "proof")
    ]
    assert list(found)[-1] == "central.proof"


def test_differences_fail_the_proof_of_their_source_only() -> None:
    found = states(build_different())
    assert [name for name, state in found.items() if state == "failed"] == ["ubs-sul.proof"]
    assert found["ubs-norte.proof"] == "passed"
    assert found["central.proof"] == "skipped"


def test_differences_of_the_central() -> None:
    result = build_result(status="different", central_proof=ProofResult("exact", 10, 1, False))
    assert [name for name, state in states(result).items() if state == "failed"] == ["central.proof"]


def test_what_comes_after_a_block_was_skipped() -> None:
    found = states(build_blocked())
    assert [name for name, state in found.items() if state == "failed"] == ["ubs-sul.coverage"]
    assert found["ubs-sul.schema"] == "passed"
    assert [name for name, state in found.items() if state == "skipped"] == [
        *(f"ubs-sul.{name}" for name in ("preflight", "merge", "ledger", "proof")),
        "central.proof",
    ]


@pytest.mark.parametrize(
    ("kind", "done", "failed"),
    [
        ("BackupError", (), "run.intake"),
        ("BackupError", ("intake",), "central.restore"),
        ("ServerError", ("intake",), "central.restore"),
        ("SchemaDifference", ("intake", "central.restore"), "ubs.schema"),
        ("BackupError", ("intake", "central.restore"), "ubs.restore"),
        ("SchemaDifference", ("intake", "central.restore", "source.1.restore"), "ubs.schema"),
        ("CoverageError", ("intake", "central.restore", "source.1.restore"), "ubs.coverage"),
        ("BlockedError", ("intake", "central.restore", "source.1.restore"), "ubs.preflight"),
        ("PreflightBlocked", ("intake", "central.restore", "source.1.restore"), "ubs.preflight"),
        ("CollisionError", ("intake", "central.restore", "source.1.restore", "source.1.preflight"), "ubs.merge"),
        ("MergeError", ("intake", "central.restore", "source.1.restore", "source.1.preflight"), "ubs.merge"),
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
    assert any(check == Check("central", "proof", "failed", 6.6, "late") for check in checks(result))


# JUnit


def test_junit_of_a_validated_run() -> None:
    suite = ET.fromstring(junit(build_result())).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases)) == "17"
    assert suite.get("failures") == suite.get("skipped") == "0"
    assert {case.get("classname") for case in cases} == {
        f"homolog.{g}" for g in ("run", "central", "ubs-norte", "ubs-sul")
    }
    assert [c.get("time") for c in cases if c.get("name") == "merge"] == ["5.700", "5.700"]


def test_junit_of_failures() -> None:
    suite = ET.fromstring(junit(build_different())).find("testsuite")
    assert suite is not None
    (failure,) = suite.iter("failure")
    assert "changed tb_cidadao.dt_nascimento [co_seq_cidadao=91]" in (failure.text or "")
    assert len(list(suite.iter("skipped"))) == int(suite.get("skipped", "")) == 1


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
    assert words.verdict(result).headline in page.text
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


def test_names_are_escaped() -> None:
    page = report.render(build_result(sources=(build_source("<script>alert(1)</script>"),), duplicates={}))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_rejected_rows_are_said_in_the_headline() -> None:
    table = build_table("tb_x", "event", "", "sem unidade", {"rejected": 3})
    source = build_source(tables=(table,), rows=3, dispositions={"rejected": 3})
    verdict = words.verdict(build_result(sources=(source,)))
    assert "rejeitadas" in verdict.headline
    assert any(sentence.startswith("Atenção: 3 linhas") for sentence in verdict.sentences)


def test_nothing_is_said_of_a_central_that_was_not_proved() -> None:
    assert not any("idênticos" in s for s in words.verdict(build_result(central_proof=None)).sentences)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0,0 s"), (9.94, "9,9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said
