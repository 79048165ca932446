"""A promotion, or the way back, is cut at a hundred random moments: its process, its server, or the line between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from merge import fingerprint
from merge.fingerprint import Fingerprint
from sandbox import homolog
from sandbox.promotion import kept as keeping
from sandbox.promotion import promote, rollback
from sandbox.promotion.journal import Journal
from tests.fix_production import DATABASE
from tests.promotion.test_promote import asked, content, databases
from tests.proxy import Proxy

if TYPE_CHECKING:
    from tests.fix_promotion import Shop

ROOT = Path(__file__).parents[2]
MOMENTS = 25
"""In each of the four parts."""
_SETTLED_EVERY = 6

_SCRIPT = """
import sys
from sandbox.console import Reporter
from sandbox.promotion import kept as keeping
from sandbox.promotion import promote, rollback
from sandbox.promotion.attempt import Asked
from sandbox.runs import Run

what, name, dsn = sys.argv[1:]
run = Run.open(name)
run.lock()
if what == "promote":
    promote.promote(run, Asked(dsn, "esus"), Reporter(as_json=True))
else:
    rollback.rollback(run, rollback.Asked(dsn, "esus"), Reporter(as_json=True))
"""


def begin(shop: Shop, what: str, port: int) -> subprocess.Popen[bytes]:
    """Promote or roll back, in a process of its own."""
    dsn = shop.dsn().replace(f"port={shop.production.port}", f"port={port}")
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, what, shop.run.id, dsn],
        cwd=ROOT, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def standing(shop: Shop, old: Fingerprint, new: Fingerprint) -> str:
    """Whether production holds the complete old or the complete new content; anything else is the end."""
    deadline = time.monotonic() + 60
    while True:
        try:
            found = fingerprint.take(lambda: shop.production.connect(DATABASE), objects=False)
            break
        except psycopg.OperationalError:  # a server that begins again, or a session that is being ended
            assert time.monotonic() < deadline, "production does not answer under its name"
            time.sleep(0.05)
    if not fingerprint.differences(old, found, objects=False):
        return "old"
    assert fingerprint.differences(new, found, objects=False) == ()
    return "new"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_cut_at_random_moments(signed: Shop, part: int) -> None:
    """Production is always whole, and what comes next ends in a clean state."""
    shop, run, chance = signed, signed.run, random.Random(f"promotion {part}")
    run.unlock()
    old, names = content(shop), databases(shop)
    new = Fingerprint.from_dict(run.load("candidate-fingerprint"))
    starting = time.monotonic()
    process = begin(shop, "promote", shop.production.port)
    assert process.wait() == 0
    span = time.monotonic() - starting
    assert standing(shop, old, new) == "new"
    states: list[tuple[str, str, str]] = []
    for moment in range(MOMENTS):
        now = standing(shop, old, new)
        what = "promote" if now == "old" else "rollback"
        how = ("process", "server", "line")[(moment + part) % 3]
        with Proxy(shop.production.port) as proxy:
            process = begin(shop, what, proxy.port)
            time.sleep(chance.uniform(0.3, span if what == "promote" else span / 2))
            if how == "process":
                os.killpg(process.pid, signal.SIGKILL)
            elif how == "server":
                shop.production.kill()
                shop.production.start()
            else:
                proxy.cut()
            process.wait(timeout=120)
        states.append((what, how, standing(shop, old, new)))
        if moment % _SETTLED_EVERY == 0:
            settle(shop, old, new)
            assert databases(shop) >= names
    settle(shop, old, new)
    journal = Journal.of(run)
    assert journal is not None
    assert journal.state == "promoted"
    assert fingerprint.differences(old, content(shop, journal.kept)) == ()
    rollback.rollback(run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)
    assert standing(shop, old, new) == "old"
    unknown = databases(shop) - names - kept(shop)
    assert not unknown, (unknown, states)
    assert {state for _, _, state in states} <= {"old", "new"}


def settle(shop: Shop, old: Fingerprint, new: Fingerprint) -> None:
    """What a technician does next, whatever was cut: promote again, to the end."""
    shop.run.lock()
    journal = Journal.of(shop.run)
    if journal is not None and journal.state == "promoted" and standing(shop, old, new) == "old":
        # The way back was made, and cut before it was noted.
        rollback.rollback(shop.run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)
    promote.promote(shop.run, asked(shop), shop.reporter)
    shop.run.unlock()
    assert standing(shop, old, new) == "new"


def kept(shop: Shop) -> set[str]:
    """The databases that journals say are kept."""
    shop.run.unlock()
    return {one.kept for one in keeping.kept([homolog.Run(shop.run.folder)], None)}
