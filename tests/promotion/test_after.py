"""After a promotion, the list leads people through what is left, and nothing is accepted before that is done."""

from __future__ import annotations

import json
import socket
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from invoke import Context
from invoke.exceptions import Exit

from merge.errors import BlockedError, ConfigError
from sandbox.intake import Backup
from sandbox.promotion import after, after_list, after_show, after_tasks, probing
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMOTED = "2026-11-28T23:10:00.000+00:00"


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))


def _backup(name: str) -> dict[str, Any]:
    return {part.name: name for part in fields(Backup)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A promoted run of two sources."""
    made = Run.create(engine="sql", profile="pec")
    made.save("inputs", {name: _backup(name) for name in ("central", "north", "south")})
    made.save("promotion", {"state": "promoted", "promoted_at": PROMOTED, "by": "dba"})
    made.unlock()
    return made


@pytest.fixture
def listening() -> Iterator[int]:
    """A port at which something listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def _closed() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _mark_all(run: Run, *, but: str = "") -> None:
    for one in after.open_items(run):
        if one.name != but:
            probed = probing.probe("127.0.0.1", _closed()) if one.item.probe else None
            after.mark(run, one.item.id, by="Ana", source=one.source, probed=probed)


def test_the_list_is_whole() -> None:
    items = {item.id: item for item in after_list.load("pec")}
    wanted = {f"H-{n:02}" for n in range(8, 12)} | {f"I-{n:02}" for n in range(1, 12)} | {"I-12-7", "I-12-30"}
    assert items.keys() == wanted
    blocking = {"H-08", "H-09", "I-01", "I-02", "I-07", "I-09", "I-11"}
    assert {name for name, item in items.items() if item.gate == "block"} == blocking
    assert {name for name, item in items.items() if item.probe} == {"I-01"}
    for item in items.values():
        for said in (item.title, item.todo, item.check):
            assert said.pt.strip()
            assert said.en.strip()
            assert said.pt != said.en
            assert said.pt.count("{") == said.en.count("{")
    assert after_list.load("no such profile") == ()


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("[[item]]\nid = 'A'\n", "item.0.gate"),
        ("[[item]", "Expected"),
        ("[[thing]]\nid = 'A'\n", "thing"),
        (
            2 * "[[item]]\nid = 'A'\ngate = 'warn'\nevidence = 'seen'\n"
            "title = { pt = 'a', en = 'b' }\ntodo = { pt = 'a', en = 'b' }\ncheck = { pt = 'a', en = 'b' }\n",
            "id A more than once",
        ),
    ],
)
def test_a_list_that_is_wrong_is_told(tmp_path: Path, written: str, named: str) -> None:
    (tmp_path / "x.after.toml").write_text(written)
    with pytest.raises(ConfigError) as told:
        after_list.load(tmp_path / "x.toml")
    assert any(named in problem for problem in told.value.details), told.value.details


def test_from_the_promotion_to_its_acceptance(run: Run) -> None:
    found = after.standing(run)
    assert [one.source for one in found if one.item.id == "I-01"] == ["north", "south"]
    assert {one.item.id: one.due for one in found if one.due} == {"I-12-7": "2026-12-05", "I-12-30": "2026-12-28"}
    with pytest.raises(BlockedError) as refused:
        after.accept(run, "Bia")
    assert refused.value.exit_code == 4
    assert len(refused.value.details) == 4 + 2 * 3  # four for the central, three for each source
    assert after.accepted(run) is None

    _mark_all(run, but="I-02 south")
    with pytest.raises(BlockedError) as refused:
        after.accept(run, "Bia")
    assert [line.split(":")[0] for line in refused.value.details] == ["I-02 south"]
    after.mark(run, "I-02", by="Ana", source="south", state="problem", note="three devices are missing")
    with pytest.raises(BlockedError):
        after.accept(run, "Bia")
    after.mark(run, "I-02", by="Ana", source="south", state="not-applicable", note="the unit was closed")
    accepted = after.accept(run, " Bia ")
    assert (accepted.by, accepted.promotion) == ("Bia", PROMOTED)
    assert "I-10" in accepted.left
    assert "H-08" not in accepted.left
    assert after.accepted(Run(run.folder)) == accepted
    events = [(e["event"], e.get("item"), e.get("state")) for e in run.events.read() if e["step"] == "after"]
    assert events[-2:] == [("marked", "I-02", "not-applicable"), ("accepted", None, None)]
    # Nothing that was told is lost.
    assert [m.state for m in after.marks_of(run) if (m.id, m.source) == ("I-02", "south")] == [
        "problem", "not-applicable",
    ]  # fmt: skip


def test_marks_and_acceptance_are_of_one_promotion(run: Run) -> None:
    _mark_all(run)
    after.accept(run, "Bia")
    run.save("promotion", {"state": "rolled_back", "promoted_at": PROMOTED})
    assert after.accepted(run) is None
    for act in (lambda: after.mark(run, "H-08", by="Ana"), lambda: after.accept(run, "Bia")):
        with pytest.raises(ConfigError, match="not in production"):
            act()
    run.save("promotion", {"state": "promoted", "promoted_at": "2026-12-05T23:00:00.000+00:00"})
    assert after.accepted(run) is None
    with pytest.raises(BlockedError):
        after.accept(run, "Bia")
    assert {one.state for one in after.standing(run)} == {"open"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such item": ({"item": "Z-99", "by": "Ana"}, "no item Z-99"),
    "which source": ({"item": "I-02", "by": "Ana"}, "--source north, south"),
    "no such source": ({"item": "I-02", "by": "Ana", "source": "west"}, "--source north, south"),
    "a source too many": ({"item": "H-08", "by": "Ana", "source": "north"}, "Of which one?"),
    "nobody": ({"item": "H-08", "by": " "}, "--by NAME"),
    "no such state": ({"item": "H-08", "by": "Ana", "state": "perhaps"}, "done | problem | not-applicable"),
    "a problem without words": ({"item": "H-08", "by": "Ana", "state": "problem"}, "Say why"),
    "no reason": ({"item": "I-11", "by": "Ana", "state": "not-applicable"}, "Say why"),
    "always": ({"item": "I-07", "by": "Ana", "state": "not-applicable", "note": "no time"}, "always applies"),
    "not probed": ({"item": "I-01", "by": "Ana", "source": "north"}, "Probe the machine"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mark_that_says_nothing_is_not_made(run: Run, name: str) -> None:
    said, named = WRONG[name]
    with pytest.raises(ConfigError) as told:
        after.mark(run, said.pop("item"), **said)
    assert any(named in line for line in told.value.details), told.value.details
    assert after.marks_of(run) == ()


def test_documents_are_left_out(run: Run) -> None:
    made = after.mark(run, "I-11", by="Ana", note="reported: 123.456.789-09", evidence="CNS 700 1234 5678 9012")
    assert "123" not in made.note
    assert "700" not in made.evidence
    probed = probing.Probed("192.168.100.12", 8080, "refused", "2026-11-29T00:00:00+00:00")  # looks like a CPF
    made = after.mark(run, "I-01", by="Ana", source="north", probed=probed)
    assert made.evidence.startswith("192.168.100.12:8080 refused")


# Probing


def test_what_listens_is_not_off(run: Run, listening: int) -> None:
    probed = probing.probe("127.0.0.1", listening)
    assert (probed.answer, probed.is_off) == ("open", False)
    with pytest.raises(ConfigError) as told:
        after.mark(run, "I-01", by="Ana", source="north", note="I am sure", probed=probed)
    assert "answers" in told.value.details[0]
    assert (probing.probe("127.0.0.1", _closed()).answer) == "refused"


def test_of_several_addresses_one_that_listens_counts(listening: int) -> None:
    """``localhost`` may be ::1 first, where nothing listens."""
    assert probing.probe("localhost", listening).is_off is False


def test_a_port_that_gives_no_answer() -> None:
    """A full queue of connections: the system drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        try:
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
                waiting.append(one)
            probed = probing.probe("127.0.0.1", port, timeout=0.5)
        finally:
            for one in waiting:
                one.close()
    assert (probed.answer, probed.is_off) == ("filtered", True)


def test_what_cannot_be_told_is_no_proof(run: Run) -> None:
    probed = probing.probe("no-such-name.invalid", 80)
    assert (probed.answer, probed.is_off) == ("unknown name", None)
    with pytest.raises(ConfigError):
        after.mark(run, "I-01", by="Ana", source="north", probed=probed)
    made = after.mark(run, "I-01", by="Ana", source="north", probed=probed, note="scrapped; its disk is in the safe")
    assert "unknown name" in made.evidence


@pytest.mark.parametrize("address", ["", "10.0.0.7", "10.0.0.7:", ":80", "h:0", "h:65536", "h:80/x", "::1:80", "a b:1"])
def test_no_address(address: str) -> None:
    with pytest.raises(ConfigError):
        probing.parse(address)


def test_addresses() -> None:
    assert probing.parse("10.0.0.7:8080") == ("10.0.0.7", 8080)
    assert probing.parse("[fe80::1%eth0]:443") == ("fe80::1%eth0", 443)


# The tasks


def test_the_tasks(run: Run, capsys: pytest.CaptureFixture[str], listening: int) -> None:
    after_tasks.after(Context(), run=run.id)
    said = capsys.readouterr().out
    assert "First start of PEC" in said
    assert f"--run {run.id} --mark H-08" in said
    after_tasks.after(Context(), run=run.id, mark="H-08", by="Ana", note="5.4.37, no error")
    after_tasks.after(Context(), run=run.id, probe=f"127.0.0.1:{listening}")
    assert "answers" in capsys.readouterr().out
    with pytest.raises(Exit) as ended:
        after_tasks.after(Context(), run=run.id, mark="I-01", source="north", by="Ana", probe=f"127.0.0.1:{listening}")
    assert ended.value.code == 2
    capsys.readouterr()
    after_tasks.after(
        Context(), run=run.id, mark="I-01", source="north", by="Ana", probe=f"127.0.0.1:{_closed()}", json=True
    )
    told = json.loads(capsys.readouterr().out)
    assert "I-01 south" in told["open"]
    assert "I-01 north" not in told["open"]
    with pytest.raises(Exit) as ended:
        after_tasks.accept(Context(), run=run.id, by="Bia")
    assert ended.value.code == 4
    _mark_all(run)
    after_tasks.accept(Context(), run=run.id, by="Bia")
    assert "Accepted by Bia" in capsys.readouterr().out


def test_the_paper(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    after.mark(run, "H-08", by="Ana", note="no error")
    after.mark(run, "I-11", by="Caio", state="problem", note="a laptop was stolen")
    run.write("handover.html", "x")
    path = after_show.write(run)
    assert path.stat().st_mode & 0o777 == 0o600
    paper = path.read_text()
    assert "## [x] H-08 · First start of PEC" in paper
    assert "**done**: Ana, " in paper
    assert "## [!] I-11" in paper
    assert paper.count("## [ ] I-01") == 2
    assert str(run.folder / "handover.html") in paper
    assert "{" not in paper
    assert "Accepted by: ____" in paper
    monkeypatch.setenv("HOMOLOG_LANG", "pt")
    assert "## [x] H-08 · Primeiro início" in after_show.write(run).read_text()
