"""Every reason to refuse a promotion, each by making exactly that situation; and nothing is done then."""

from __future__ import annotations

import dataclasses
import json
import socket
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge import fingerprint
from merge.errors import ConfigError, PromotionRefused
from sandbox import binaries, homolog
from sandbox.command import LocalCommand
from sandbox.promotion import marks, promote
from sandbox.promotion.attempt import Asked
from sandbox.promotion.journal import Journal
from tests.fix_production import DATABASE, OWNER, READER, production_server
from tests.fix_promotion import final_run, sign
from tests.promotion.test_promote import asked, databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_promotion import Shop


@contextmanager
def refused(shop: Shop, *reasons: str, **options: Any) -> Iterator[None]:
    """Whoever asks now is refused, for these reasons and no others; production is as it was."""
    yield
    names = databases(shop)
    with pytest.raises(PromotionRefused) as caught:
        promote.promote(shop.run, asked(shop, **options), shop.reporter)
    told = list(caught.value.details) or [caught.value.what]
    missing = [reason for reason in reasons if not any(reason in one for one in told)]
    assert not missing, (missing, told)
    assert len([one for one in told if any(r in one for r in reasons)]) >= len(reasons)
    others = [one for one in told if not any(reason in one for reason in reasons)]
    assert not others, others
    assert databases(shop) == names
    assert Journal.of(shop.run) is None


@contextmanager
def changed_json(shop: Shop, name: str, **values: Any) -> Iterator[None]:
    """A file of the run, forged for as long as the context lasts."""
    path = shop.run.folder / f"{name}.json"
    kept = path.read_bytes()
    path.write_text(json.dumps({**json.loads(kept), **values}, indent=1))
    try:
        yield
    finally:
        path.write_bytes(kept)


@contextmanager
def moved_away(shop: Shop, *names: str) -> Iterator[None]:
    """Files of the run that are not there for as long as the context lasts."""
    for name in names:
        (shop.run.folder / name).rename(shop.run.folder / f"{name}.away")
    try:
        yield
    finally:
        for name in names:
            (shop.run.folder / f"{name}.away").rename(shop.run.folder / name)


def test_the_name_is_not_confirmed(signed: Shop) -> None:
    """Another name was typed, or nothing."""
    for typed in ("", "esu", "ESUS", "postgres"):
        with refused(signed, "was not confirmed", confirm=typed):
            pass


def test_a_write_of_somebody(signed: Shop) -> None:
    """One row changed since the backup, and it is said how that is known."""
    with signed.production.connect() as conn:
        conn.execute("BEGIN")
        (old,) = conn.execute("SELECT first_name FROM auth_user ORDER BY id LIMIT 1").fetchone() or ("",)
        conn.execute("UPDATE auth_user SET first_name = 'x' WHERE id = (SELECT min(id) FROM auth_user)")
        conn.execute("COMMIT")
        try:
            with refused(signed, "production was written since", "auth_user"):
                pass
        finally:
            conn.execute("UPDATE auth_user SET first_name = %s WHERE id = (SELECT min(id) FROM auth_user)", [old])


def test_another_server(signed: Shop) -> None:
    """A copy of the same content elsewhere, where nobody works."""
    with signed.production.connect() as conn:
        taken = marks.take(conn)
    signed.run.save("snapshot", {"marks": dataclasses.replace(taken, system="1")})
    try:
        not_signed = ("snapshot.json is new", "the manifest says in “snapshot” has changed")
        with refused(signed, "is not the database that the central's backup was taken of", *not_signed):
            pass
    finally:
        (signed.run.folder / "snapshot.json").unlink()


def test_a_writer_who_has_not_finished(signed: Shop) -> None:
    """An open transaction that has written: its locks are waited for, not long."""
    with signed.production.connect(autocommit=False, application_name="report") as conn:
        conn.execute("UPDATE auth_user SET first_name = first_name")
        with refused(signed, "report"):
            pass


def test_pec_is_connected(signed: Shop) -> None:
    """A session of its driver, and one of its role."""
    driver = "PostgreSQL JDBC Driver"
    with signed.production.connect(role=READER, application_name=driver), refused(signed, "PEC is connected"):
        pass
    with signed.production.connect(role=OWNER, application_name="x"), refused(signed, "PEC is connected"):
        pass


def test_pec_answers(signed: Shop) -> None:
    """Something takes connections at its address."""
    with socket.create_server(("127.0.0.1", 0)) as pec:
        port = pec.getsockname()[1]
        with refused(signed, f"PEC is still up: 127.0.0.1:{port}", pec=(("127.0.0.1", port),)):
            pass


def test_no_room(signed: Shop) -> None:
    """The operator looked: there is one megabyte."""
    with refused(signed, "there is no room", disk_free=10**6):
        pass


def test_another_promotion_is_under_way(signed: Shop) -> None:
    """On the same server, from wherever."""
    with signed.production.connect("postgres") as conn:
        conn.execute("SELECT pg_advisory_lock(hashtext('pec-homolog promotion'))")
        with refused(signed, "Another promotion"):
            pass


def test_the_role_may_not_rename(signed: Shop) -> None:
    """The owner without the right to make databases is told the very statement that gives it."""
    with signed.production.connect("postgres") as conn:
        conn.execute(f"ALTER ROLE {OWNER} NOCREATEDB")
        try:
            as_owner = Asked(signed.dsn(role=OWNER), DATABASE)
            with pytest.raises(PromotionRefused) as caught:
                promote.promote(signed.run, as_owner, signed.reporter)
            assert any(f"ALTER ROLE {OWNER} CREATEDB" in one for one in caught.value.details), caught.value.details
        finally:
            conn.execute(f"ALTER ROLE {OWNER} CREATEDB")


def test_not_the_window(signed: Shop) -> None:
    """It is signed anew, for tomorrow."""
    keys = signed.run.folder.parent.parent / "keys"
    day = timedelta(days=1)
    sign(signed.run, keys, day, 2 * day)
    try:
        with refused(signed, "the window begins at"):
            pass
    finally:
        sign(signed.run, keys, -day, day)


def test_another_version(signed: Shop) -> None:
    """Production was updated meanwhile; which is a write, too."""
    with signed.production.connect() as conn:
        (old,) = conn.execute("SELECT app FROM django_migrations ORDER BY id LIMIT 1").fetchone() or ("",)
        first = "WHERE id = (SELECT min(id) FROM django_migrations)"
        conn.execute(f"UPDATE django_migrations SET app = 'newer' {first}")
        try:
            with refused(signed, "production is of version newer", "was written since", "django_migrations"):
                pass
        finally:
            conn.execute(f"UPDATE django_migrations SET app = %s {first}", [old])


def test_another_major(signed: Shop) -> None:
    """The same content on PostgreSQL 18."""
    backup = signed.run.load("inputs")["central"]["path"]
    for newer in production_server(18):
        with newer.connect(DATABASE, OWNER) as conn:
            conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        env = {**binaries.environment(), "PGPASSFILE": str(newer.passfile)}
        command = [str(newer.bin / "pg_restore"), "--no-owner", "--no-privileges", f"--role={OWNER}", "-h", "127.0.0.1"]
        LocalCommand([*command, "-p", str(newer.port), "-U", "postgres", "-d", DATABASE, backup], env).run(check=False)
        with pytest.raises(PromotionRefused) as caught:
            promote.promote(signed.run, Asked(newer.dsn(), DATABASE), signed.reporter)
        assert any("production is PostgreSQL 18" in one for one in caught.value.details), caught.value.details


def test_it_is_not_final(signed: Shop) -> None:
    """A rehearsal of the same backups, which nobody could sign."""
    central, north = (Path(given["path"]) for given in signed.run.load("inputs").values())
    run = final_run(central, north, final=False)
    try:
        with refused(dataclasses.replace(signed, run=run), "it is a rehearsal", "was not signed"):
            pass
    finally:
        homolog.destroy(run)


def test_no_proof(signed: Shop) -> None:
    """The central was not proved, as a forged result says; and a proof that found something."""
    with changed_json(signed, "result", central_proof=None), refused(signed, "no proof: central", *_FORGED):
        pass
    found = {**signed.run.load("result")["central_proof"], "differences": 3}
    with (
        changed_json(signed, "result", central_proof=found, status="different"),
        refused(signed, "not validated: different", "found differences: central", "proofs do not hold", *_FORGED),
    ):
        pass


_FORGED = ("result.json has changed", "the manifest says in")


def test_no_signature(signed: Shop) -> None:
    """Neither the one nor the other."""
    with moved_away(signed, "manifest.operator.sig"), refused(signed, "operator"):
        pass
    with moved_away(signed, "manifest.approver.sig"), refused(signed, "approver"):
        pass


def test_all_reasons_at_once(signed: Shop) -> None:
    """Whoever has to solve them on a Saturday night learns of all of them the first time."""
    with (
        moved_away(signed, "manifest.approver.sig"),
        signed.production.connect(role=READER, application_name="PostgreSQL JDBC Driver"),
        refused(signed, "approver", "PEC is connected", "there is no room", disk_free=10**6),
    ):
        pass


def test_nothing_was_changed(signed: Shop) -> None:
    """After all of this the promotion can be made."""
    rehearsed = promote.promote(signed.run, asked(signed, dry_run=True), signed.reporter)
    assert rehearsed.facts["unwritten"]["tables_unlike"] == 0
    assert fingerprint.take(signed.production.connect, objects=False).rows == rehearsed.facts["unwritten"]["rows"]


def test_the_machine_was_restarted_since_it_was_signed(signed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sandbox held is void then, but what was signed is not: the safety backup needs a server, no data."""
    homolog.open_server(signed.run)
    monkeypatch.setattr("sandbox.embedded._boot_id", lambda: "another")
    with pytest.raises(ConfigError):
        homolog.open_server(signed.run)
    assert promote.promote(signed.run, asked(signed, dry_run=True), signed.reporter).seconds
