"""A profile is checked when it is loaded: every planted mistake is named, all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from merge import inventory, profile
from merge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
[application]
name = "x"
title = "x"
inventory = "x.inventory"
"""

GOOD = """
[[rule]]
tables = ["tb_person"]
role = "entity"
match = [["nu_cpf"], ["tb_extra.no_key"]]
reason = "r"
evidence = "seen"

[[rule]]
tables = ["ta_*"]
role = "audit"
mirror = "ta_"
of = ["tb_"]
reason = "r"
evidence = "seen"

[[rule]]
tables = ["tb_*"]
role = "event"
reason = "r"
evidence = "inferred"

[[reference]]
columns = ["tb_*.nu_person"]
besides = ["tb_extra.nu_person"]
to = "tb_person.id"
reason = "r"
evidence = "seen"

[[value]]
columns = ["tb_visit.nu_order"]
reason = "r"
evidence = "seen"
"""

INVENTORY = """
# a comment
tb_person: *id nu_cpf
tb_extra: *id no_key nu_person
tb_visit: *id nu_person nu_order
ta_visit: *id nu_person
ta_gone: *id
"""


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")


def _write(folder: Path, rest: str, *, head: str = HEAD) -> Path:
    (folder / "x.inventory").write_text(INVENTORY)
    path = folder / "x.toml"
    path.write_text(head + rest)
    return path


def _rule(tables: str, role: str = "event", **more: str) -> str:
    lines = "".join(f"{name} = {value}\n" for name, value in more.items())
    return f'[[rule]]\ntables = {tables}\nrole = "{role}"\nreason = "r"\nevidence = "seen"\n{lines}'


def _said(kind: str, columns: str, **more: str) -> str:
    lines = "".join(f"{name} = {value}\n" for name, value in more.items())
    return f'[[{kind}]]\ncolumns = {columns}\nreason = "r"\nevidence = "seen"\n{lines}'


def _problems(*files: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        profile.load(files[0], files[1:])
    assert caught.value.exit_code == 2
    assert files[0].name in caught.value.what + caught.value.evidence  # type: ignore[operator]
    return caught.value.details


def test_good(tmp_path: Path) -> None:
    loaded = profile.load(_write(tmp_path, GOOD))
    assert loaded.known["tb_visit"] == ("id", "nu_person", "nu_order")
    assert loaded.is_reference("tb_visit", "nu_person")
    assert not loaded.is_reference("tb_extra", "nu_person")


def _neutralise(table: str, rest: str, name: str = "D-1") -> str:
    title = '{ pt = "t", en = "t" }'
    return f'[[neutralise]]\nid = "{name}"\ntitle = {title}\ntable = "{table}"\nevidence = "seen"\n{rest}\n'


def _capsule(table: str, rest: str = "") -> str:
    return f'[[capsule]]\ntable = "{table}"\nreason = "r"\nevidence = "seen"\n{rest}\n'


def _smoke(name: str, query: str = "SELECT 1") -> str:
    return f'[[smoke]]\nname = "{name}"\ntitle = {{ pt = "t", en = "t" }}\nevidence = "seen"\nquery = "{query}"\n'


MISTAKES = {
    "neutralise unknown table": (_neutralise("tb_gone", "delete = true"), "neutralise D-1: tb_gone: does not exist"),
    "neutralise unknown column": (
        _neutralise("tb_visit", 'set = { st_x = "0" }'), "neutralise D-1: tb_visit.st_x: does not exist",
    ),
    "two rules of one id": (2 * _neutralise("tb_visit", "delete = true", "D-2"), "neutralise D-2 ×2"),
    "neutralised beyond recall": (
        _neutralise("tb_visit", "delete = true", "D-9"), "neutralise D-9: tb_visit is neither in the capsule",
    ),
    "capsule of an unknown table": (_capsule("tb_gone"), "capsule: tb_gone: does not exist"),
    "two capsules of one table": (2 * _capsule("tb_person"), "capsule tb_person ×2"),
    "two strata of one name": (2 * _smoke("a"), "smoke a ×2"),
    "watched table": ('[watch]\ngrowing = ["tb_visit", "tb_nowhere"]\n', "watch: tb_nowhere: does not exist"),
    "unknown table": (_rule('["tb_nowhere"]'), "tb_nowhere: does not exist"),
    "pattern without tables": (_rule('["zz_*"]'), "zz_*: does not exist"),
    "two rules": (_rule('["tb_person"]'), "tb_person: in two rules"),
    "taken before": (_rule('["tb_visit"]'), "tb_visit: holds for no table"),
    "other key": (_rule('["ta_visit"]', key_column='"no_such_*"'), "ta_visit: holds for no table"),
    "mirror without of": (_rule('["ta_a*"]', "audit", mirror='"ta_"'), "mirror and of go together"),
    "of without mirror": (_rule('["ta_a*"]', "audit", of='["tb_"]'), "mirror and of go together"),
    "come of an event": (_rule('["ta_a*"]', come="true"), "come is for queues only"),
    "match and within": (_rule('["ta_a*"]', match='[["id"]]', within='"id"'), "match and within"),
    "within and central_owns": (_rule('["ta_a*"]', within='"id"', central_owns='"id"'), "within and central_owns"),
    "match of rows that stay": (_rule('["ta_a*"]', "config", match='[["id"]]'), "the rows do not come"),
    "match of a queue that stays": (_rule('["ta_a*"]', "queue", come="false", match='[["id"]]'), "rows do not come"),
    "match of a fixed key": (_rule('["ta_a*"]', "catalog", match='[["id"]]'), 'match and within need key = "local"'),
    "value in unknown table": (_said("value", '["tb_nowhere.x"]'), "value: tb_nowhere.x: does not exist"),
    "opaque unknown column": (_said("opaque", '["tb_visit.nu_x"]'), "opaque: tb_visit.nu_x: does not exist"),
    "unknown exception": (
        _said("value", '["tb_*.no_key"]', besides='["tb_visit.no_key"]'), "value: tb_visit.no_key: does not exist",
    ),
    "unknown source": (_said("reference", '["tb_visit.z"]', to='"tb_person.id"'), "tb_visit.z: does not exist"),
    "unknown target": (_said("reference", '["tb_visit.id"]', to='"tb_person.key"'), "→ tb_person.key: does not exist"),
    "target of many": (_said("reference", '["tb_visit.id"]', to='"tb_person.*"'), "a target is one column"),
    "two targets": (
        _said("reference", '["tb_visit.nu_person"]', to='"tb_extra.id"'),
        "tb_visit.nu_person: → tb_extra.id ≠ → tb_person.id",
    ),
    "reference and value": (_said("value", '["tb_v*.nu_person"]'), "tb_visit.nu_person: value ≠ → tb_person.id"),
    "value and opaque": (_said("opaque", '["tb_visit.nu_order"]'), "tb_visit.nu_order: opaque ≠ value"),
    "replaces in a profile": (_said("value", '["tb_visit.id"]', replaces="true"), "replaces is for override files"),
    "unknown person": ('[person]\ntable = "tb_x"\nkeys = ["nu_cpf"]\n', "person: tb_x: does not exist"),
    "unknown key of person": ('[person]\ntable = "tb_person"\nkeys = ["nu_z"]\n', "person: tb_person.nu_z"),
    "match unknown": (_rule('["ta_a*"]', match='[["no_such"]]').replace("ta_a*", "ta_gone"), "ta_gone: no_such"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_named(name: str, tmp_path: Path) -> None:
    mistake, named = MISTAKES[name]
    before = name == "match unknown"  # must hold to be looked at
    problems = _problems(_write(tmp_path, mistake + GOOD if before else GOOD + mistake))
    assert any(named in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        (_neutralise("tb_visit", ""), "either set or delete"),
        (_neutralise("tb_visit", 'delete = true\nset = { id = "0" }'), "either set or delete"),
        (_neutralise("tb_visit", 'set = { nu_order = "{password}" }'), "{link} is the only name"),
        (_neutralise("tb_visit", 'delete = true\nwhere = "id = {0}"'), "{link} is the only name"),
        (_neutralise("tb_visit", "delete = true", "D 1"), "neutralise.0.id"),
        (_smoke("a b"), "smoke.0.name"),
    ],
)
def test_what_a_copy_needs_is_well_formed(mistake: str, named: str, tmp_path: Path) -> None:
    problems = _problems(_write(tmp_path, GOOD + mistake))
    assert any(named in problem for problem in problems), problems


def test_overridden_neutralisation(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        GOOD
        + _neutralise("tb_visit", 'set = { nu_order = "0" }')
        + _neutralise("tb_x", "delete = true\noptional = true", "D-2")
        + _capsule("tb_visit")
        + _capsule("tb_x", "optional = true")
        + _smoke("a"),
    )  # fmt: skip
    mine = tmp_path / "mine.toml"
    mine.write_text(
        _neutralise("tb_visit", 'set = { nu_order = "7" }')
        + _neutralise("tb_new", "delete = true", "D-3")
        + _capsule("tb_visit", "exact = true")
        + _capsule("tb_new")
        + _smoke("a", "SELECT 2")
        + _smoke("b")
    )
    loaded = profile.load(path, [mine])
    assert [(rule.id, rule.table, rule.values) for rule in loaded.neutralise] == [
        ("D-1", "tb_visit", {"nu_order": "7"}), ("D-2", "tb_x", {}), ("D-3", "tb_new", {}),
    ]  # fmt: skip
    assert [(stratum.name, stratum.query) for stratum in loaded.smoke] == [("a", "SELECT 2"), ("b", "SELECT 1")]
    assert [(kept.table, kept.exact, kept.file) for kept in loaded.capsule] == [
        ("tb_visit", True, "mine.toml"), ("tb_x", False, ""), ("tb_new", False, "mine.toml"),
    ]  # fmt: skip
    mine.write_text(2 * _smoke("b") + _neutralise("tb_new", "delete = true", "D-3"))
    assert _problems(path, mine) == (
        "mine.toml: smoke b ×2",
        "mine.toml: neutralise D-3: tb_new is neither in the capsule ([[capsule]]) nor a queue",
    )
    mine.write_text(_neutralise("tb_new", "delete = true", "D-3") + _rule('["tb_new"]', "queue"))
    profile.load(path, [mine])


def test_all_at_once(tmp_path: Path) -> None:
    """What contradicts twice is one line, so one of each kind is planted."""
    alone = {"unknown person", "unknown key of person", "match unknown", "two targets"}
    several = [mistake for name, (mistake, _) in MISTAKES.items() if name not in alone]
    problems = _problems(_write(tmp_path, GOOD + "\n".join(several)))
    for name, (mistake, named) in MISTAKES.items():
        if mistake in several:
            assert any(named in p for p in problems), name


def test_without_inventory_contradictions_are_found(tmp_path: Path) -> None:
    head = HEAD.replace('inventory = "x.inventory"', "")
    assert profile.load(_write(tmp_path, GOOD, head=head)).known == {}
    both = _said("value", '["a.b"]') + _said("reference", '["a.b"]', to='"c.d"')
    assert _problems(_write(tmp_path, GOOD + both, head=head)) == ("a.b: value ≠ → c.d",)


def test_missing_inventory(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD)
    (tmp_path / "x.inventory").unlink()
    assert "inventory" in _problems(path)[0]
    (tmp_path / "x.inventory").write_text("tb_a: x\ntb_a: y\nno colon\n")
    assert "x.inventory: 2, 3" in _problems(path)[0]


def test_inventory_is_read_as_written(tmp_path: Path) -> None:
    made = {
        "b": inventory.KnownTable(("y", "x", "z"), ("y", "x")),
        "A b": inventory.KnownTable((), ()),
    }
    path = tmp_path / "made"
    path.write_text(inventory.render(made))
    assert inventory.read(path) == made


# Overrides


def _override(folder: Path, content: str, name: str = "local.toml") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_override_adds(tmp_path: Path) -> None:
    """Unknown tables and columns get a rule and a meaning; the file is remembered."""
    local = _override(
        tmp_path,
        _rule('["tb_new"]', "entity") + _said("value", '["tb_visit.nu_new", "tb_new.nu_y"]')
        + _said("reference", '["tb_new.nu_x"]', to='"tb_person.id"'),
    )  # fmt: skip
    loaded = profile.load(_write(tmp_path, GOOD), [local])
    rule = loaded.rule_of("tb_new", ("id",))
    assert rule is not None
    assert (rule.role, rule.file) == ("entity", "local.toml")
    assert loaded.is_value("tb_visit", "nu_new")
    assert loaded.is_reference("tb_new", "nu_x")


def test_override_rules_come_first_and_the_last_file_before_others(tmp_path: Path) -> None:
    one = _override(tmp_path, _rule('["tb_person", "tb_visit"]', "config"), "one.toml")
    two = _override(tmp_path, _rule('["tb_person"]', "queue"), "two.toml")
    loaded = profile.load(_write(tmp_path, GOOD), [one, two])
    roles = {name: (loaded.rule_of(name, ("id",)) or loaded.rule[-1]).role for name in ("tb_person", "tb_visit")}
    assert roles == {"tb_person": "queue", "tb_visit": "config"}


def test_override_contradicts_nothing_in_silence(tmp_path: Path) -> None:
    shipped = _write(tmp_path, GOOD)
    silent = _override(tmp_path, _said("value", '["tb_visit.nu_person"]'))
    assert _problems(shipped, silent) == ("local.toml: tb_visit.nu_person: value ≠ → tb_person.id",)
    told = _override(tmp_path, _said("value", '["tb_visit.nu_person"]', replaces="true"))
    loaded = profile.load(shipped, [told])
    assert loaded.is_value("tb_visit", "nu_person")
    assert not loaded.is_reference("tb_visit", "nu_person")
    assert loaded.is_reference("tb_other", "nu_person")
    empty = _override(tmp_path, _said("value", '["tb_visit.nu_new"]', replaces="true"))
    assert _problems(shipped, empty) == ("local.toml: value: tb_visit.nu_new: replaces nothing",)


def test_errors_name_their_file(tmp_path: Path) -> None:
    """What is wrong in several files is shown at once."""
    one = _override(tmp_path, "[[rule]]\ntables = [", "one.toml")
    two = _override(tmp_path, _rule('["tb_new"]') + _rule('["tb_new"]'), "two.toml")
    three = _override(tmp_path, '[application]\nname = "x"\n', "three.toml")
    problems = _problems(_write(tmp_path, GOOD), one, two, three, tmp_path / "none.toml")
    assert [p.split(":")[0] for p in problems] == ["one.toml", "two.toml", "three.toml", "none.toml"]
    assert "tb_new: in two rules" in problems[1]
