"""The log of a run and the support bundle: nothing of a patient gets in."""

from __future__ import annotations

import json
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from sandbox.events import Events, redact, redacted, support_bundle, versions

if TYPE_CHECKING:
    from pathlib import Path

CPF = ("52998224725", "529.982.247-25", "529982247-25", "529 982 247 25")
CNS = ("700000000000005", "700 0000 0000 0005", "700.0000.0000.0005")


@pytest.mark.parametrize("number", CPF + CNS)
@pytest.mark.parametrize("around", ["{}", "CPF {}.", "nu_cpf={},x", "({})", "CPF{}x", "a_{}_b"])
def test_documents_are_left_out(number: str, around: str) -> None:
    said = redact(around.format(number))
    assert "«…»" in said
    assert not any(part in said for part in (number, number[-5:]))


@pytest.mark.parametrize(
    "harmless",
    [
        "2026-11-23T19:12:00.000+00:00",
        "20261123-1912-k7m2",
        "127.0.0.1:54321",
        "12.345.678.901",
        "CNES 2077485",
        "co_seq_cidadao=123456789",
        "a12345678901b" + "c" * 51,
        "12345678901" * 5 + "abcdef123",
    ],
)
def test_other_numbers_stay(harmless: str) -> None:
    assert redact(harmless) == harmless


def test_texts_are_redacted_wherever_they_are_and_counts_stay() -> None:
    assert redacted({"a": [{"b": (CPF[0],)}], CNS[0]: 1, "offset": 52998224725}) == {
        "a": [{"b": ["«…»"]}],
        "«…»": 1,
        "offset": 52998224725,
    }


def test_events_are_lines_of_json(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    events.add("source.1.merge", "end", rows=52998224725, what=f"key {CPF[1]}", many=[CNS[0]])
    (event,) = events.read()
    assert event["time"].endswith("+00:00")
    assert event["monotonic"] > 0
    assert event["rows"] == 52998224725
    assert event["what"] == "key «…»"
    assert event["many"] == ["«…»"]
    assert stat.S_IMODE(events.path.stat().st_mode) == 0o600


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    assert events.read() == []
    events.add("a", "begin")
    with events.path.open("a") as file:
        file.write('{"step": "b", "ev')
    assert [event["step"] for event in events.read()] == ["a"]


def test_versions() -> None:
    assert {"python", "platform", "psycopg"} <= versions().keys()


def test_the_support_bundle_holds_results_only(tmp_path: Path) -> None:
    Events(tmp_path / "events.jsonl").add("run", "stopped")
    digest = "0" * 20 + "12345678901" + "a" * 33
    documents = {
        "run": {"run_id": "x"},
        "inputs": {"central": {"sha256": digest, "size": 52998224725}},
        "source-1-ledger": {"lines": [{"reason": f"CPF {CPF[0]}"}]},
        "source-1-duplicates": {"groups": [[1, 2]]},
        "other": {},
    }
    for name, content in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in ("passfile", "lock", "central.backup", "report.html"):
        (tmp_path / name).write_text("secret")
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "run.json").write_text("secret")
    log = tmp_path / "server" / "log"
    log.write_text(
        "2026-11-23 19:12:00 UTC [1] LOG:  database system is ready\n"
        '2026-11-23 19:12:01 UTC [2] FATAL:  invalid value "Maria"\n'
        "2026-11-23 19:12:01 UTC [2] DETAIL:  Key (no_cidadao)=(Maria) already exists.\n"
        "\tCOPY tb_cidadao, line 3: Maria\n"
    )
    bundle = support_bundle(tmp_path, logs=[log, tmp_path / "missing"])
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    with zipfile.ZipFile(bundle) as found:
        names = set(found.namelist())
        texts = {name: found.read(name).decode() for name in names}
    assert names == {
        "versions.json",
        "events.jsonl",
        "run.json",
        "inputs.json",
        "source-1-ledger.json",
        "server-0.log",
        "server-1.log",
        "LEIA-ME.txt",
    }
    everything = "".join(texts.values())
    assert "secret" not in everything
    assert "Maria" not in everything
    assert CPF[0] not in texts["source-1-ledger.json"]
    assert json.loads(texts["inputs.json"]) == documents["inputs"]
    assert "database system is ready" in texts["server-0.log"]
    assert all(name in texts["LEIA-ME.txt"] for name in names - {"LEIA-ME.txt"})
