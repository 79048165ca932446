"""What the vendor's own unification has merged goes to production, and back: the candidate itself was neutralised."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from merge import fingerprint, profile
from merge.errors import PromotionRefused
from sandbox.console import Reporter
from sandbox.pec.undo_list import UndoList
from sandbox.promotion import capsule, freeze, promote
from sandbox.promotion.attempt import Asked
from sandbox.sample.overlap import world
from tests.fix_production import contents
from tests.fix_vendor import SCALE

if TYPE_CHECKING:
    from sandbox.runs import Run
    from tests.fix_town import Operator, Town
    from tests.fix_vendor import Begin, Prepared

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

PROFILE = profile.load("pec")
CAPSULE = tuple(declared.table for declared in PROFILE.capsule if not declared.optional)
QUEUE = "tb_envio_rnds"
"""What rules take out, and the capsule does not put back: only undoing does. Rows of the source come beside them."""

IN_PEC = "UPDATE public.tb_config_sistema SET ds_texto = 'by PEC' WHERE co_config_sistema = 'TREINAMENTO';\nCOMMIT;\n"
"""What is changed in the central's PEC while it runs, of what the sandbox has neutralised: undoing leaves it as it is,
so that the candidate still has it, and only the capsule brings production's own value back."""
LEFT = "D-05 tb_config_sistema [TREINAMENTO] ds_texto"


def test_what_pec_merged_goes_to_production_and_back(
    town: Town, operator: Operator, prepared: Prepared, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    installations = world(SCALE, sources=1)
    town.make("esus", installations[0], installations)
    before, kept, queue = fingerprint.take(town.connect), contents(town, "esus", CAPSULE), _queue(town)
    central = operator.snapshot("esus")
    with begin(central, prepared.backups[1], "--final", "--confirmations", str(operator.confirmed())) as session:
        session.unify(prepared.script + IN_PEC)
        result = session.end()
        assert result["status"] == "validated", result["problem"]
        assert result["candidate"]["promotable"], result["candidate"]
        run = session.run
        operator.sign(run.id)

        _left_out(town, operator, run, monkeypatch)
        assert fingerprint.differences(before, fingerprint.take(town.connect)) == ()

        to = ("--run", run.id, "--production", town.dsn(), "--confirm", "esus", "--json")
        journal = json.loads(operator.invoke("promote", *to, "--disk-free", "50"))
        assert journal["state"] == "promoted"
        assert contents(town, "esus", CAPSULE) == kept
        assert _queue(town) >= queue
        _shown(run, journal)
        unlike = fingerprint.differences(freeze.load_fingerprint(run), fingerprint.take(town.connect), restored=True)
        assert [one.name for one in unlike] == ["public.tb_config_sistema"]  # the capsule alone has changed anything

        back = json.loads(operator.invoke("rollback", *to))
        assert back["rollback"]["written"] == {}
        assert fingerprint.differences(before, fingerprint.take(town.connect)) == ()


def _queue(town: Town) -> set[str]:
    with town.connect() as conn:
        found = {row for (row,) in conn.execute(f"SELECT t::text FROM {QUEUE} t")}
    assert found
    return found


def _left_out(town: Town, operator: Operator, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsed without the capsule, the value that undoing left in the candidate is found beside production."""
    asked = Asked(town.dsn(), confirm="esus", dry_run=True, disk_free=50 << 30)
    with monkeypatch.context() as patch:
        for name in ("HOMOLOG_LANG", "HOMOLOG_RUNS", "HOMOLOG_KEYS", "PATH"):
            patch.setenv(name, operator.env[name])
        patch.setattr(capsule, "put_back", lambda *_: capsule.Capsule((), ()))
        with pytest.raises(PromotionRefused) as refused:
            promote.promote(run, asked, Reporter(as_json=True))
    assert LEFT in refused.value.details
    with town.connect("postgres") as conn:  # nothing of it is left
        assert conn.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'esus_%'").fetchone() == (0,)


def _shown(run: Run, journal: dict[str, Any]) -> None:
    """The record says of all that was neutralised that it is production's again."""
    facts = journal["facts"]
    assert facts["capsule"]["tables"]
    put_back = {table["table"]: table["put_back"] + table["added"] for table in facts["capsule"]["tables"]}
    assert {table for table, rows in put_back.items() if rows} == {"tb_config_sistema"}
    undone = facts["undo"]
    assert all(r["production"] == r["candidate"] for r in undone["rules"] if r["table"] != QUEUE)
    listed = [
        entry for batch in UndoList(run.folder / "alternate" / "undo-central").current() for entry in batch.entries
    ]
    assert {entry.rule for entry in listed} == {rule["rule"] for rule in undone["rules"] if rule["production"]}
    assert undone["listed"] == sum(entry.rows for entry in listed) > 100
