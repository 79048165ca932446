"""A small final run whose result may go to production: the shop, on a production server of its own."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import conninfo

from merge import catalog
from merge.errors import ConfigError
from sandbox import homolog
from sandbox.console import Reporter
from sandbox.options import Options
from sandbox.promotion import keys, signing
from sandbox.promotion.manifest import Window
from sandbox.sample.make import DUMP_OPTIONS
from tests.filler import fill
from tests.fix_production import DATABASE, OWNER, READER, ProductionServer, production_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.runs import Run

SHOP = Path(__file__).parent / "database" / "shop"


@dataclass
class Shop:
    """A production server with the shop's database, its backup, and a final run that is validated."""

    production: ProductionServer
    run: Run
    reporter: Reporter
    database: str = DATABASE

    def dsn(self, **options: Any) -> str:
        """The address of the production database."""
        return conninfo.make_conninfo(self.production.dsn(**options), dbname=self.database)


def fill_shop(production: ProductionServer, database: str, name: str, rows: int) -> None:
    """Make the shop's tables as `OWNER`, and fill them."""
    with production.connect(database, OWNER) as conn:
        conn.execute((SHOP / "schema.sql").read_bytes())
        found = catalog.read(conn, "public")
    with production.connect(database) as conn:  # the filler asks for triggers to be off
        conn.execute("SET session_replication_role = replica")
        fill(conn, found, "public", rows=rows, name=name, shared=20)
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")


def dump(production: ProductionServer, database: str, path: Path) -> Path:
    """A backup as PEC's tool makes it."""
    from sandbox.promotion.production import Production

    with Production(production.dsn(database), path.parent / "dsn", tools=production.bin) as server:
        path.write_bytes(server.tool("pg_dump", *DUMP_OPTIONS).run().stdout)
    return path


def final_run(central: Path, source: Path, major: int = 16, *, final: bool = True, **options: Any) -> Run:
    """A run of these backups, validated, final unless asked otherwise; its server is stopped."""
    asked = Options.parse(
        central=str(central), sources=[f"north={source}"], server="embedded", major=major,
        profile=str(SHOP / "shop.toml"), final=final, jobs=2, **options,
    )  # fmt: skip
    run, result = homolog.start(asked, Reporter(as_json=True))
    assert (result.status, result.candidate.promotable) == ("validated", final), (result.problem, result.candidate)
    return run


PASSPHRASE = "only for tests of this project"


def sign(run: Run, keys_folder: Path, begin: timedelta, end: timedelta) -> None:
    """Have two people sign, for a window that is told from now on."""
    now = datetime.now(UTC)
    window: Window | None = Window(now + begin, now + end)
    for name, role in (("Ana Operadora", "operator"), ("Rui Aprovador", "approver")):
        signer = next((s for s in keys.signers(keys_folder) if s.name == name), None)
        signer = signer or keys.make(name, role, PASSPHRASE, keys_folder)
        key = keys_folder / f"{signer.slug}.key.pem"
        signing.sign(run, key, role, PASSPHRASE, window, Reporter(as_json=True), keys_folder)
        window = None


@contextmanager
def shop_on(
    production: ProductionServer, folder: Path, database: str = DATABASE, major: int = 16, **options: Any
) -> Iterator[Shop]:
    """The shop in a database of a production server, ready to be signed and promoted; its run is removed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMOLOG_RUNS", str(folder / "runs"))
        patch.setenv("HOMOLOG_KEYS", str(folder / "keys"))
        patch.setenv("HOMOLOG_LANG", "en")
        (folder / "keys").mkdir(mode=0o700)
        production.make_database("north")
        fill_shop(production, database, "central", 60)
        fill_shop(production, "north", "north", 40)
        backups = [dump(production, name, folder / f"{stem}.backup")
                   for name, stem in ((database, "central"), ("north", "north"))]  # fmt: skip
        run = final_run(*backups, major, **options)
        try:
            yield Shop(production, run, Reporter(as_json=True), database)
        finally:
            remove(run)


def sign_now(shop: Shop) -> Shop:
    """Have it signed for the next two hours."""
    sign(shop.run, shop.run.folder.parent.parent / "keys", timedelta(hours=-1), timedelta(hours=2))
    return shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, ready to be signed and promoted; everything of it is removed at the end."""
    for production in production_server():
        with shop_on(production, tmp_path_factory.mktemp("shop")) as shop:
            yield shop


@pytest.fixture(scope="module")
def signed(shop: Shop) -> Shop:
    """The same, signed by two people for the next two hours."""
    return sign_now(shop)


def remove(run: Run) -> None:
    """Remove a run's server, whatever became of the run: `homolog.destroy` refuses one that is in production."""
    with suppress(ConfigError):
        homolog.server_of(run).destroy()
