"""Production servers as they are: another version, an owner who is no superuser, odd names, databases of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from merge import fingerprint
from merge.errors import PromotionRefused
from sandbox.promotion import promote, rollback
from sandbox.promotion.attempt import Asked
from sandbox.promotion.journal import Journal
from sandbox.promotion.names import LONGEST, Kind, mark
from tests.fix_production import DATABASE, OWNER, production_server
from tests.fix_promotion import shop_on, sign_now
from tests.promotion.test_promote import content, databases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG = 'Base "e-SUS" do Município de São João do Paraíso do Nortão'


def test_the_newest_server_and_the_longest_name(tmp_path: Path) -> None:
    """PostgreSQL 18; the owner connects; a name of 63 bytes with quotes; others' databases stay."""
    name = LONG
    while len((name + "ã").encode()) <= LONGEST:
        name += "ã"
    assert LONGEST - 1 <= len(name.encode()) <= LONGEST
    for production in production_server(18):
        with production.connect("postgres") as conn:
            conn.execute(f"DROP DATABASE {DATABASE}")
        production.make_database(name.replace('"', '""'))
        with shop_on(production, tmp_path, name, 18) as shop:
            sign_now(shop)
            before = content(shop)
            with production.connect("postgres") as conn:  # of a promotion of somebody else that was interrupted
                conn.execute("CREATE DATABASE half")
                conn.execute(f"COMMENT ON DATABASE half IS '{mark('20200101-0000-aaaa', Kind.CANDIDATE)}'")
            names = databases(shop)
            north = content(shop, "north")
            asked = Asked(shop.dsn(role=OWNER), name, disk_free=10**9)
            with pytest.raises(PromotionRefused) as caught:
                promote.promote(shop.run, asked, shop.reporter)
            assert f"GRANT pg_signal_backend TO {OWNER};" in "".join(caught.value.details)
            assert len(caught.value.details) == 1
            with production.connect("postgres") as conn:
                conn.execute(f"GRANT pg_signal_backend TO {OWNER}")
            journal = promote.promote(shop.run, asked, shop.reporter)
            assert databases(shop) == names | {journal.kept}
            assert all(len(one.encode()) <= LONGEST for one in databases(shop))
            assert fingerprint.differences(before, content(shop, journal.kept)) == ()
            assert fingerprint.differences(north, content(shop, "north")) == ()
            rollback.rollback(shop.run, rollback.Asked(shop.dsn(role=OWNER), name), shop.reporter)
            assert fingerprint.differences(before, content(shop)) == ()
            last = Journal.of(shop.run)
            assert last is not None
            assert last.rollback is not None
            assert databases(shop) == names | {last.rollback.kept}


@pytest.mark.slow
@pytest.mark.parametrize("major", [11, 13, 14, 15, 17])
def test_every_version_that_can_be_had(tmp_path: Path, programs: Callable[[int], Path], major: int) -> None:
    """The same night on other versions, the sandbox's server of the same: catalogs and statements differ."""
    folder = programs(major)
    for production in production_server(major, programs=folder):
        with production.connect("postgres") as conn:
            conn.execute(f"GRANT pg_signal_backend TO {OWNER}")
        with shop_on(production, tmp_path, major=major, binaries=folder) as shop:
            sign_now(shop)
            before, names = content(shop), databases(shop)
            asked = Asked(shop.dsn(role=OWNER), DATABASE, disk_free=10**9, tools=folder)
            journal = promote.promote(shop.run, asked, shop.reporter)
            assert fingerprint.differences(before, content(shop)) != ()
            assert fingerprint.differences(before, content(shop, journal.kept)) == ()
            with production.connect(DATABASE, OWNER) as conn:
                conn.execute("INSERT INTO auth_group (name) VALUES ('written since')")
            rollback.rollback(shop.run, rollback.Asked(shop.dsn(role=OWNER), DATABASE, tools=folder), shop.reporter)
            assert fingerprint.differences(before, content(shop)) == ()
            last = Journal.of(shop.run)
            assert last is not None
            assert last.rollback is not None
            assert last.rollback.written == {"public.auth_group": 1}
            assert databases(shop) == names | {last.rollback.kept}
