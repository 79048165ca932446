"""The acceptance protocol says the same in both languages, and names what exists."""

from __future__ import annotations

import re
from pathlib import Path

from merge import profile

DOCS = Path(__file__).parents[2] / "docs"
LANGUAGES = {
    "protocolo-de-aceitacao.md": ("Para quê:", "Passos:", "Anotar:", "Passa se:", "Devolver:", "Entra em:"),
    "acceptance-protocol.md": ("For:", "Steps:", "Record:", "Passes if:", "Send back:", "Goes into:"),
}


def _experiments(file: str) -> dict[str, str]:
    parts = re.split(r"^### (E-\d\d) .*$", (DOCS / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _tasks() -> set[str]:
    """Commands that there are."""
    source = (DOCS.parent / "tasks.py").read_text(encoding="utf-8")
    named = re.findall(r'^    name="([\w.-]+)",$', source, re.MULTILINE)
    functions = re.findall(r"^def (\w+)\(\s*c: Context", source, re.MULTILINE)
    for path in (DOCS.parent / "sandbox" / "promotion").glob("*tasks.py"):
        functions += re.findall(r"^def (\w+)\(\s*c: Context", path.read_text(encoding="utf-8"), re.MULTILINE)
    pec = (DOCS.parent / "sandbox" / "pec" / "tasks.py").read_text(encoding="utf-8")
    below = re.findall(r"^def (\w+)\(\s*c: Context", pec, re.MULTILINE)
    return {*named, *functions, *(f"pec.{name}" for name in below)}


def test_every_experiment_is_complete_in_both_languages() -> None:
    told = {file: _experiments(file) for file in LANGUAGES}
    assert [list(experiments) for experiments in told.values()] == [[f"E-{n:02}" for n in range(1, 21)]] * 2
    for file, headings in LANGUAGES.items():
        for name, text in told[file].items():
            assert [text.count(f"**{heading}**") for heading in headings] == [1] * 6, (file, name)
    portuguese, english = told.values()
    for name, text in portuguese.items():
        assert re.findall(r"`(?:invoke|SELECT)[^`]*`", text) == re.findall(r"`(?:invoke|SELECT)[^`]*`", english[name])


def test_what_it_names_is_there() -> None:
    known = {rule.id for rule in profile.load("pec").neutralise}
    for file in LANGUAGES:
        text = (DOCS / file).read_text(encoding="utf-8")
        assert {"D-05", "D-07", "D-10", "D-08-older"} <= set(re.findall(r"\bD-\d\d(?:-\w+)?", text)) <= known
        commands = set(re.findall(r"`invoke (?:--help )?([\w.]+)", text))
        assert commands <= _tasks()
        for path in re.findall(r"`((?:merge|sandbox)/[\w./-]+\.\w+)`", text):
            assert (DOCS.parent / path).exists(), path
