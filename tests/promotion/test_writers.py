"""Whoever writes to production while it is being promoted loses no row that the server has acknowledged."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from merge import fingerprint
from merge.errors import PromotionRefused
from sandbox.promotion import promote, rollback
from sandbox.promotion.journal import Journal
from tests.fix_production import READER
from tests.promotion.test_promote import asked, content

if TYPE_CHECKING:
    from tests.fix_promotion import Shop


class Writer(threading.Thread):
    """Inserts one row after another, as a role that is not PEC's, and notes which the server has acknowledged."""

    def __init__(self, shop: Shop, prefix: str) -> None:
        super().__init__(daemon=True)
        self._shop, self._prefix = shop, prefix
        self._over = threading.Event()
        self.tried = 0
        self.acknowledged: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            with suppress(psycopg.Error), self._shop.production.connect(self._shop.database, READER) as conn:
                while not self._over.is_set():
                    self.tried += 1
                    name = f"{self._prefix} {self.tried}"
                    conn.execute("INSERT INTO auth_group (name) VALUES (%s)", [name])
                    self.acknowledged.append(name)
                    time.sleep(0.01)
            time.sleep(0.05)

    def end(self) -> None:
        self._over.set()
        self.join(30)
        assert not self.is_alive()


@pytest.fixture
def may_write(signed: Shop) -> None:
    """Another role than PEC's may write one table."""
    with signed.production.connect() as conn:
        conn.execute(f"GRANT INSERT ON auth_group TO {READER}; GRANT USAGE ON SEQUENCE auth_group_id_seq TO {READER}")
        conn.execute("SELECT setval('auth_group_id_seq', max(id)) FROM auth_group")


def rows(shop: Shop, prefix: str) -> set[str]:
    """What is in production now."""
    with shop.production.connect(shop.database) as conn:
        return {name for (name,) in conn.execute("SELECT name FROM auth_group WHERE name LIKE %s", [f"{prefix} %"])}


@pytest.mark.usefixtures("may_write")
def test_who_writes_while_it_is_prepared_waits_until_the_swap(signed: Shop) -> None:
    """Up to its last second: what was not acknowledged is refused, and afterwards all goes to the new database."""
    before = content(signed)
    writer = Writer(signed, "during")
    begun = threading.Thread(target=_start_when_guarded, args=(signed, writer), daemon=True)
    begun.start()
    journal = promote.promote(signed.run, asked(signed), signed.reporter)
    promoted = time.monotonic()
    while not writer.acknowledged and time.monotonic() < promoted + 20:
        time.sleep(0.05)
    writer.end()
    assert writer.acknowledged
    assert set(writer.acknowledged) <= rows(signed, "during")
    kept = content(signed, journal.kept)
    assert fingerprint.differences(before, kept, sequences=False) == ()
    back = rollback.rollback(signed.run, rollback.Asked(signed.dsn(), signed.database), signed.reporter)
    assert back.rollback is not None
    assert back.rollback.written["public.auth_group"] >= len(writer.acknowledged)


def _start_when_guarded(shop: Shop, writer: Writer) -> None:
    while not any(e["step"] == "promotion.safety" for e in shop.run.events.read()):
        time.sleep(0.02)
    writer.start()


@pytest.mark.usefixtures("may_write")
def test_who_writes_before_is_found(signed: Shop) -> None:
    """A row written a second before: the promotion is refused, and the row stays."""
    writer = Writer(signed, "before")
    writer.start()
    while not writer.acknowledged:
        time.sleep(0.01)
    try:
        with pytest.raises(PromotionRefused):
            promote.promote(signed.run, asked(signed), signed.reporter)
    finally:
        writer.end()
    assert writer.acknowledged
    assert rows(signed, "before") == set(writer.acknowledged)
    journal = Journal.of(signed.run)
    assert journal is None or journal.state == "rolled_back"
