"""A town's PEC-shaped bases go to production with their attachments, and what is production's own stays as it was."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import timedelta
from socket import create_server
from typing import TYPE_CHECKING

import pytest

from merge import fingerprint, profile
from sandbox import homolog, preflight
from sandbox.command import LocalCommand
from sandbox.console import Reporter
from sandbox.events import Events
from sandbox.options import Options
from sandbox.promotion import promote, rollback
from sandbox.promotion.attempt import Asked
from sandbox.sample import attachments_of, make_samples
from tests.fix_production import DATABASE, OWNER, ProductionServer, production_server
from tests.fix_promotion import Shop, remove, sign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server import Server


def restore(production: ProductionServer, backup: Path) -> None:
    """Bring a backup to production, as its owner's."""
    with production.connect() as conn:
        conn.execute(f"DROP SCHEMA public; CREATE SCHEMA public AUTHORIZATION {OWNER}")
    words = (
        str(production.bin / "pg_restore"), "--no-owner", f"--role={OWNER}", "-h", "127.0.0.1", "-U", "postgres",
        "-p", str(production.port), "-d", DATABASE, str(backup),
    )  # fmt: skip
    LocalCommand(words, {"PGPASSFILE": str(production.passfile)}).run(check=False)  # it complains of schema public


@pytest.fixture(scope="module")
def town(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Path]]:
    """A production server with the central of a town, its folder of attachments, and a signed final run."""
    folder = tmp_path_factory.mktemp("town")
    central, source = make_samples(server, folder / "samples", scale=0.34, sources=1, attachments=True)
    confirmed = folder / "confirmed.toml"
    human = [check for check in preflight.all_checks("pec") if check.kind == "human"]
    confirmed.write_text("".join(f'[{check.id}]\nby = "Test"\nnote = "a test"\n' for check in human))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMOLOG_RUNS", str(folder / "runs"))
        patch.setenv("HOMOLOG_KEYS", str(folder / "keys"))
        patch.setenv("HOMOLOG_LANG", "en")
        (folder / "keys").mkdir(mode=0o700)
        for production in production_server():
            restore(production, central)
            asked = Options.parse(
                central=str(central), sources=[f"ubs={source}"], server="embedded", major=16, jobs=2, final=True,
                attachments=[f"central={attachments_of(central)}", f"ubs={attachments_of(source)}"],
                confirmations=confirmed,
            )  # fmt: skip
            run, result = homolog.start(asked, Reporter(as_json=True))
            try:
                assert result.candidate.promotable, result.problem
                sign(run, folder / "keys", timedelta(hours=-1), timedelta(hours=2))
                files = folder / "production-files"
                shutil.copytree(attachments_of(central), files)
                yield Shop(production, run, Reporter(as_json=True)), files
            finally:
                remove(run)


def held(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_town_goes_to_production(town: tuple[Shop, Path]) -> None:
    """With its files; what is production's own is as it was; the outage is measured until PEC answers."""
    shop, files = town
    before = fingerprint.take(shop.production.connect)
    had = held(files)
    with create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    starter = threading.Thread(target=_start_pec, args=(shop, port), daemon=True)
    starter.start()
    asked = Asked(
        shop.dsn(), DATABASE, attachments=files, pec=(("127.0.0.1", port),), wait=1.0,
    )  # fmt: skip
    journal = promote.promote(shop.run, asked, shop.reporter)
    starter.join(60)
    assert journal.outage is not None
    assert journal.outage > sum(journal.seconds.values()) / 2
    after = fingerprint.take(shop.production.connect)
    assert after.rows > before.rows
    known = profile.load("pec")
    tables = {f"public.{declared.table}" for declared in known.capsule}
    compared = [name for name in tables if name in before.tables]
    assert len(compared) > 3
    assert {name: before.tables[name] for name in compared} == {name: after.tables[name] for name in compared}
    now = held(files)
    assert set(now) > set(had)
    assert {name: now[name] for name in had} == had
    assert now == held(shop.run.folder / "attachments" / "files")
    back = rollback.rollback(shop.run, rollback.Asked(shop.dsn(), DATABASE), shop.reporter)
    assert back.state == "rolled_back"
    assert held(files) == had
    assert fingerprint.differences(before, fingerprint.take(shop.production.connect)) == ()


def _start_pec(shop: Shop, port: int) -> None:
    """What a person does who is told that PEC may be started."""
    log = Events(shop.run.folder / "events.jsonl")
    while not any(event["step"] == "promotion.smoke" and event["event"] == "end" for event in log.read()):
        time.sleep(0.1)
    time.sleep(1)
    with create_server(("127.0.0.1", port)) as pec:
        pec.settimeout(30)
        pec.accept()[0].close()
