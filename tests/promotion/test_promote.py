"""The whole way on a production server: signed, rehearsed, promoted, worked with, rolled back, promoted again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from merge import fingerprint
from merge.errors import PromotionRefused
from merge.fingerprint import Fingerprint
from sandbox.promotion import kept as keeping
from sandbox.promotion import promote, rollback
from sandbox.promotion.attempt import Asked
from sandbox.promotion.journal import Journal
from sandbox.promotion.production import Production
from tests.fix_production import DATABASE, OWNER, READER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_promotion import Shop


def content(shop: Shop, database: str | None = None) -> Fingerprint:
    """What a database of the production server holds, by default the one of production."""
    return fingerprint.take(lambda: shop.production.connect(database or shop.database))


def databases(shop: Shop) -> set[str]:
    """The databases of the production server."""
    with shop.production.connect("postgres") as conn:
        return {name for (name,) in conn.execute("SELECT datname FROM pg_database")}


def asked(shop: Shop, **options: Any) -> promote.Asked:
    """What an operator asks for who confirms."""
    return Asked(shop.dsn(), **{"confirm": shop.database, **options})


def test_there_and_back_and_there_again(signed: Shop, tmp_path: Path) -> None:
    """Each step leaves exactly what it says, and nothing of production is ever lost."""
    shop, run = signed, signed.run
    before, names = content(shop), databases(shop)
    candidate = Fingerprint.from_dict(run.load("candidate-fingerprint"))

    rehearsed = promote.promote(run, asked(shop, dry_run=True), shop.reporter)
    assert rehearsed.seconds
    assert (databases(shop), Journal.of(run)) == (names, None)
    assert fingerprint.differences(before, content(shop)) == ()

    journal = promote.promote(run, asked(shop), shop.reporter)
    assert journal.state == "promoted"
    assert journal.login_wait is not None
    assert journal.login_wait < 2
    assert databases(shop) == names | {journal.kept}
    assert fingerprint.differences(candidate, content(shop)) == ()
    assert fingerprint.differences(before, content(shop, journal.kept)) == ()
    with shop.production.connect(DATABASE, READER) as conn:  # what no restore brings
        assert conn.execute("SELECT count(*) FROM auth_user").fetchone() == (80,)
    with shop.production.connect() as conn:
        row = conn.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
        assert row.fetchone() == (OWNER,)
    again = promote.promote(run, asked(shop), shop.reporter)
    assert again.promoted_at == journal.promoted_at
    listed = keeping.kept([run], None)
    assert [(one.kept, one.state) for one in listed] == [(journal.kept, "promoted")]

    with shop.production.connect(DATABASE, OWNER) as conn:
        conn.execute("INSERT INTO auth_group (name) VALUES ('written since'), (E'odd\\t\\\\ \\n one')")
        conn.execute("UPDATE auth_user SET first_name = 'changed' WHERE id = (SELECT min(id) FROM auth_user)")
    worked = content(shop)
    back = rollback.rollback(run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)
    assert back.state == "rolled_back"
    assert back.rollback is not None
    assert back.rollback.written == {"public.auth_group": 2, "public.auth_user": 1}
    assert fingerprint.differences(before, content(shop)) == ()
    assert fingerprint.differences(worked, content(shop, back.rollback.kept)) == ()
    assert back.rollback.dump is not None
    script = run.folder / back.rollback.dump
    assert script.stat().st_mode & 0o777 == 0o600
    assert b'COPY "public"."auth_group"' in script.read_bytes()
    assert script.read_bytes().count(b"written since") == 1

    third = promote.promote(run, asked(shop), shop.reporter)
    assert third.facts["attempt"] == 2
    assert fingerprint.differences(candidate, content(shop)) == ()
    assert {third.kept, back.rollback.kept} <= databases(shop)
    last = rollback.rollback(run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)
    assert last.rollback is not None
    assert (last.rollback.written, last.rollback.dump) == ({}, None)
    assert fingerprint.differences(before, content(shop)) == ()
    rollback.rollback(run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)  # again
    assert [event["event"] for event in run.events.read()].count("rolled back") == 2

    with Production(shop.dsn(), tmp_path) as production:
        with pytest.raises(PromotionRefused):
            keeping.discard(run, production, DATABASE, shop.reporter)
        gone = keeping.discard(run, production, last.rollback.kept, shop.reporter)
        assert gone == last.rollback.kept
        assert databases(shop) == names | {back.rollback.kept}
        keeping.discard(run, production, back.rollback.kept, shop.reporter)
    assert databases(shop) == names
    assert keeping.kept([run], None) != []


def test_the_merge_is_repeated_in_production(signed: Shop) -> None:
    """The guide's other model: on a copy beside production, with the same result, and the same swap."""
    before, names = content(signed), databases(signed)
    candidate = Fingerprint.from_dict(signed.run.load("candidate-fingerprint"))
    journal = promote.promote(signed.run, asked(signed, mode="repeat"), signed.reporter)
    assert fingerprint.differences(candidate, content(signed)) == ()
    assert fingerprint.differences(before, content(signed, journal.kept)) == ()
    assert databases(signed) == names | {journal.kept}
    with signed.production.connect() as conn:
        assert conn.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ '^homolog'").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^(homolog|src_)'").fetchone() == (0,)
    back = rollback.rollback(signed.run, rollback.Asked(signed.dsn(), DATABASE), signed.reporter)
    assert back.rollback is not None
    assert back.rollback.written == {}
    assert fingerprint.differences(before, content(signed)) == ()
