"""How checks are declared, and what their answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from merge import checks
from merge.checks import Check, State
from merge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

CHECK = """
[[check]]
id = "{id}"
gate = "{gate}"
title = {{ pt = "Título", en = "Title" }}
meaning = {{ pt = "O que é", en = "What it is" }}
action = {{ pt = "O que fazer", en = "What to do" }}
origin = {{ pt = "manual", en = "manual" }}
evidence = "seen"
{form}
"""


def _declare(folder: Path, *declared: tuple[str, str, str]) -> tuple[Check, ...]:
    (folder / "shop.checks.toml").write_text(
        "".join(CHECK.format(id=name, gate=gate, form=form) for name, gate, form in declared)
    )
    return checks.load(folder / "shop.toml")


@pytest.mark.parametrize(
    ("gate", "kind", "found", "rehearsal", "final"),
    [
        ("block", "data", 0, "passed", "passed"),
        ("block", "data", 1, "blocked", "blocked"),
        ("warn", "data", 1, "warned", "warned"),
        ("block", "data", None, "not_available", "not_available"),
        ("block", "unit", 0, "passed", "passed"),
        ("block", "unit", 1, "warned", "blocked"),
        ("warn", "unit", 1, "warned", "warned"),
        ("block", "human", None, "pending", "blocked"),
        ("warn", "human", None, "pending", "warned"),
        ("record", "human", None, "pending", "recorded"),
    ],
)
def test_what_an_answer_means(
    tmp_path: Path, gate: str, kind: str, found: int | None, rehearsal: str, final: str
) -> None:
    form = f'kind = "{kind}"' + ("" if kind == "human" else '\nquery = "SELECT 1"')
    (check,) = _declare(tmp_path, ("X-1", gate, form))
    assert (check.state(found, final=False), check.state(found, final=True)) == (State(rehearsal), State(final))


def test_a_record_is_only_recorded(tmp_path: Path) -> None:
    (check,) = _declare(tmp_path, ("X-1", "record", 'record = "SELECT 1 AS n"'))
    assert check.state(None, final=True) is State.RECORDED


def test_an_application_without_checks_has_none(tmp_path: Path) -> None:
    assert checks.load(tmp_path / "shop.toml") == ()


@pytest.mark.parametrize(
    ("gate", "form", "said"),
    [
        ("block", "", "one of query"),
        ("block", 'query = "SELECT 1"\nsame = "SELECT 2"', "one of query"),
        ("block", 'kind = "human"\nquery = "SELECT 1"', "one of query"),
        ("block", 'query = "SELECT 1"\nkey = "a.b"', "key goes with offenders"),
        ("warn", 'offenders = "SELECT 1"\nkey = "a"', "key: String should match"),
        ("warn", 'record = "SELECT 1"', "goes with record"),
        ("record", 'query = "SELECT 1"', "goes with record"),
        ("warn", 'across = "SELECT count(*) FROM {{central}}.a"', "needs {central} and {source}"),
        ("warn", 'across = "SELECT 1 FROM {{central}}.a, {{source}}.a, {{other}}.a"', "needs {central} and {source}"),
        ("warn", 'builtin = "unheard_of"', "builtin: Input should be"),
        ("warn", 'quary = "SELECT 1"', "quary: Extra inputs"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, gate: str, form: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _declare(tmp_path, ("X-1", gate, form.replace("{{", "{").replace("}}", "}")))
    assert any(problem.startswith("X-1") and said in problem for problem in caught.value.details)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _declare(
            tmp_path,
            ("X-1", "block", ""),
            ("X-2", "often", 'query = "SELECT 1"'),
            ("X-1", "warn", 'query = "SELECT 1"'),
        )
    assert [problem.split(":")[0] for problem in caught.value.details] == ["X-1", "X-1", "X-2.gate"]


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "shop.checks.toml").write_text("[[check")
    with pytest.raises(ConfigError):
        checks.load(tmp_path / "shop.toml")


def test_the_checks_of_pec_say_everything_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    known = checks.load("pec")
    assert len({check.id for check in known}) == len(known) > 50
    for check in known:
        for words in (check.title, check.meaning, check.action, check.origin):
            monkeypatch.setenv("HOMOLOG_LANG", "pt")
            portuguese = str(words)
            monkeypatch.setenv("HOMOLOG_LANG", "en")
            assert portuguese
            assert str(words)
    assert {check.kind for check in known} == {"data", "unit", "human"}
