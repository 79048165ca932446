"""The whole stack with a stand-in for PEC's installer: two PECs in the closed room, a unification by hand, the proof.

What a person does on the screens of PEC is done through the stand-in's own pages; all else is as a user does it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox import homolog
from sandbox.rehearsal import DATABASE
from tests.fix_vendor import Prepared, Session, invoke, press, things, volumes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


def test_a_unification_by_hand_is_watched_and_proved(session: Session, prepared: Prepared) -> None:
    session.unify(prepared.script)
    result = session.end()
    found = [f"{d['kind']} {d['table']}.{d['column']} [{d['key']}] {d['reason']}" for d in result["differences"]]
    assert not found, " · ".join(found)
    assert result["status"] == "validated", result["problem"]
    assert result["engine"] == "pec"
    proof = result["content_proof"]
    assert proof["differences"] == 0
    assert proof["central_unchanged"] is None
    assert proof["rows_compared"] > 100_000
    assert proof["declared"]["tb_unificacao_base invented"] == 1  # PEC's own writing is told, and no difference
    assert all(source["dispositions"] is None for source in result["sources"])
    kept = session.run.load("pec")
    assert {line["left"] for line in kept["isolation"]} == {0}
    assert [line["moment"] for line in kept["isolation"]] == ["before", "before PEC", "PEC runs", "after"]
    assert {change["rule"] for change in kept["neutralised"]["central"] if change["rows"]} >= {"D-05", "D-06", "D-10"}
    assert kept["undone"]["central"]["conflict_count"] == 0
    assert kept["undone"]["central"]["is_undone"]
    assert kept["undone"]["central"]["restored"] > 0

    # A row that does not come is found, by content alone.
    with homolog.open_server(session.run).connect(DATABASE) as conn:
        last = "(SELECT max(ctid) FROM public.tb_registro_vacinacao)"
        conn.execute(f"DELETE FROM public.tb_registro_vacinacao WHERE ctid = {last}")
    again = invoke(session.runs, "prove", "--run", session.run.id, "--json")
    assert again.returncode == 6, again.stderr[-2000:]
    assert {d["table"] for d in json.loads(again.stdout)["differences"]} >= {"tb_registro_vacinacao"}


def test_the_first_error_stops_it_and_nothing_is_repeated(session: Session) -> None:
    session.wait_for_guide("requested")
    session.deliver("INSERT INTO public.tb_cidadao (co_seq_cidadao) VALUES (-1);\nCOMMIT;\n")
    session.press("source.homolog", "unify?https://central.homolog")
    session.mark("requested")
    session.wait_for_guide("accepted")
    session.press("central.homolog", "accept")
    session.mark("accepted")
    result = session.end()
    assert result["status"] == "failed"
    assert session.process.returncode == 5
    (ticket,) = (session.run.folder / "alternate").glob("ticket-*.zip")
    assert result["problem"]["evidence"]
    assert ticket.stat().st_mode & 0o077 == 0
    assert "pec-central logged an error" in result["problem"]["what"]
    again = invoke(session.runs, "homolog", "--resume", session.run.id)
    assert again.returncode == 2, again.stderr
    assert "not repeated" in again.stdout + again.stderr
    back = invoke(session.runs, "pec.put-back", "--run", session.run.id)
    assert back.returncode == 0, back.stderr


def test_people_look_at_the_result(prepared: Prepared, standin: Path, make_standin: Callable[[str], Path]) -> None:
    def of_run(*words: str) -> subprocess.CompletedProcess[str]:
        return invoke(prepared.runs, *words, "--run", prepared.run.id)

    homolog.stop(prepared.run)
    before, files = things(prepared.run), set(prepared.run.folder.iterdir())
    other = of_run("pec.up", "--pec-jar", str(make_standin("5.4.1")), "--port", "0")
    assert other.returncode == 2, other.stderr
    assert "of version 5.4.1" in other.stdout + other.stderr
    killed = of_run("pec.up", "--pec-jar", str(standin), "--port", "0", "--memory", "32")
    assert killed.returncode == 2, killed.stdout + killed.stderr
    assert "there was not enough memory" in killed.stdout + killed.stderr
    up = of_run("pec.up", "--pec-jar", str(standin), "--port", "0", "--memory", "512")
    assert up.returncode == 0, up.stdout + up.stderr
    assert json.loads(press(prepared.run, "central.homolog", "api/public/info"))["training"] is True
    assert of_run("pec.watch", "--minutes", "0.01").returncode == 0
    assert of_run("pec.smoke", "--stratum", "pregnant", "--by", "Enf. Teste").returncode == 0
    kept = prepared.run.load("smoke")
    assert {drawn["stratum"] for drawn in kept["drawn"]} == {"pregnant", "chronic", "vaccinated_child", "both_bases"}
    assert [signature["stratum"] for signature in kept["signatures"]] == ["pregnant"]

    press(prepared.run, "central.homolog", "standin/error", "POST")
    watched = of_run("pec.watch", "--minutes", "1")
    assert watched.returncode == 2, watched.stdout + watched.stderr
    assert "pec-central logged an error" in watched.stdout + watched.stderr
    assert list((prepared.run.folder / "alternate").glob("ticket-*.zip"))

    while_it_runs = things(prepared.run)
    assert len(while_it_runs) > len(before) + 6
    down = of_run("pec.down")
    assert down.returncode == 0, down.stderr
    assert things(prepared.run) == before
    assert not (while_it_runs - before) & volumes()
    assert {line["left"] for line in prepared.run.load("pec")["isolation"]} == {0}
    # Of what PEC had, only the evidence stays: no copy, no log, no old value.
    left = {path.name for path in set(prepared.run.folder.iterdir()) - files}
    assert left <= {"alternate", "pec.json", "smoke.json", "support-bundle.zip", "lock"}
    assert all(path.suffix == ".zip" for path in (prepared.run.folder / "alternate").iterdir())
    assert of_run("prove").returncode == 0  # the candidate was not touched
