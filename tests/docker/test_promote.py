"""The whole way to a production server in a container: TLS, port 5433, md5, an owner who is no superuser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from merge import fingerprint
from sandbox.sample.overlap import world
from tests.fix_town import READER

if TYPE_CHECKING:
    from tests.fix_town import Operator, Town

pytestmark = pytest.mark.docker


@pytest.mark.slow
def test_a_town_goes_to_production_and_back(town: Town, operator: Operator) -> None:
    """By the commands of the guide, as the owner, with tools of the server's own version from a container."""
    invoke = operator.invoke
    installations = world(0.34, seed=5, sources=1)
    for database, installation in zip(("esus", "norte"), installations, strict=True):
        town.make(database, installation, installations)

    def content() -> fingerprint.Fingerprint:
        return fingerprint.take(town.connect)

    before = content()
    central, north = (operator.snapshot(database) for database in ("esus", "norte"))
    result = json.loads(
        invoke("homolog", "--central", str(central), "--source", f"norte={north}", "--server", "docker", "--final",
               "--confirmations", str(operator.confirmed()), "--json")
    )  # fmt: skip
    run = result["run_id"]
    try:
        assert result["candidate"]["promotable"]
        operator.sign(run)
        to = ("--run", run, "--production", town.dsn(), "--confirm", "esus", "--disk-free", "50", "--json")
        journal = json.loads(invoke("promote", *to))
        assert journal["login_wait"] < 2
        assert content().rows > before.rows
        with town.connect("esus", READER) as conn:
            assert conn.execute("SELECT count(*) FROM tb_cidadao").fetchone() is not None
        back = json.loads(invoke("rollback", *to[:6], "--json"))
        assert back["rollback"]["written"] == {}
        assert fingerprint.differences(before, content()) == ()
    finally:
        invoke("destroy", run, "--yes")
