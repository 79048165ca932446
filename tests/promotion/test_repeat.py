"""The merge repeated beside production comes out as what was signed, and leaves nothing else on the server."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from merge import fingerprint
from merge.errors import PromotionRefused, PromotionRolledBack
from sandbox import homolog, inputs
from sandbox.console import Reporter
from sandbox.options import Options
from sandbox.promotion import names, repeat
from sandbox.promotion.beside import create_beside
from sandbox.promotion.external import ExternalServer
from sandbox.promotion.production import Production
from sandbox.promotion.repeat import merge_beside
from sandbox.rehearsal import DATABASE as CANDIDATE
from sandbox.sample import make_samples
from sandbox.sample.attachments import attachments_of
from tests.fix_production import DATABASE, OWNER, ProductionServer, production_server
from tests.fix_promotion import SHOP, Shop, dump, fill_shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merge.fingerprint import Fingerprint
    from sandbox.runs import Run
    from sandbox.server import Server

BESIDE = "Esus-ao-lado"
_SCRIPT = """
import sys
from pathlib import Path
from sandbox.console import Reporter
from sandbox.promotion.production import Production
from sandbox.promotion.repeat import merge_beside
from sandbox.runs import Run
run, dsn, database, safety, scratch = sys.argv[1:]
with Production(dsn, Path(scratch)) as production:
    merge_beside(Run(Path(run)), production, database, Path(safety), Reporter(as_json=True))
"""


class Interrupting(Reporter):
    """A user who presses Ctrl-C when a step of this title begins."""

    def __init__(self, title: str) -> None:
        super().__init__(as_json=True)
        self.title = title

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step, unless it is the one."""
        with super().step(title):
            if title == self.title:
                raise KeyboardInterrupt
            yield


def _signed(run: Run) -> Fingerprint:
    """The fingerprint of a run's candidate, in its sandbox."""
    server = homolog.open_server(run)
    try:
        return fingerprint.take(lambda: server.connect(CANDIDATE), 2)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def signed(shop: Shop) -> Fingerprint:
    """What the shop's candidate holds."""
    return _signed(shop.run)


@pytest.fixture(scope="module")
def safety(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the shop's production."""
    return dump(shop.production, DATABASE, tmp_path_factory.mktemp("safety") / "safety.backup")


def _taken(production: ProductionServer, database: str) -> Fingerprint:
    return fingerprint.take(lambda: production.connect(database), 2)


def _of_others(production: ProductionServer) -> dict[str, list[Any]]:
    """Everything on a server that a merge beside must leave as it was."""
    queries = (
        "SELECT oid, datname, datdba, datacl::text, datconnlimit FROM pg_database WHERE datname <> %s ORDER BY 1",
        "SELECT r.oid, r.rolname, shobj_description(r.oid, 'pg_authid') FROM pg_roles r WHERE %s <> '' ORDER BY 1",
        "SELECT setdatabase, setrole, setconfig::text FROM pg_db_role_setting WHERE %s <> '' ORDER BY 1, 2",
        "SELECT roleid, member, grantor FROM pg_auth_members WHERE %s <> '' ORDER BY 1, 2, 3",
        "SELECT name, setting FROM pg_settings WHERE source <> 'session' AND name NOT LIKE 'session%%' AND %s <> ''"
        " ORDER BY 1",
    )
    with production.connect("postgres") as conn:
        return {query: conn.execute(query.encode(), [BESIDE]).fetchall() for query in queries}


def _has(production: ProductionServer, database: str) -> bool:
    with production.connect("postgres") as conn:
        return conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone() is not None


@pytest.fixture
def live(shop: Shop, signed: Fingerprint) -> Iterator[ProductionServer]:
    """The shop's production server, on which nothing else may change."""
    before, held = _of_others(shop.production), _taken(shop.production, DATABASE)
    yield shop.production
    assert _of_others(shop.production) == before
    assert not fingerprint.differences(held, _taken(shop.production, DATABASE))
    with shop.production.connect("postgres") as conn:
        conn.execute(f'DROP DATABASE IF EXISTS "{BESIDE}"')


def _repeat(shop: Shop, safety: Path, scratch: Path, reporter: Reporter | None = None, **options: Any) -> None:
    with Production(shop.dsn(**options), scratch) as production:
        merge_beside(shop.run, production, BESIDE, safety, reporter or shop.reporter)


def _is_candidate(production: ProductionServer, signed: Fingerprint, like: str = DATABASE) -> None:
    """The database beside holds what was signed, belongs to production's owner, and knows nothing of us."""
    unlike = fingerprint.differences(signed, _taken(production, BESIDE))
    assert not unlike, "\n".join(map(str, unlike[:20]))
    owners = (
        "SELECT pg_get_userbyid(relowner), count(*) FROM pg_class WHERE oid >= 16384 GROUP BY 1",
        "SELECT pg_get_userbyid(proowner), count(*) FROM pg_proc WHERE oid >= 16384 GROUP BY 1",
        "SELECT pg_get_userbyid(lomowner), count(*) FROM pg_largeobject_metadata GROUP BY 1",
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()",
    )
    made = "SELECT encoding, datcollate, datctype, dattablespace FROM pg_database WHERE datname = current_database()"
    with production.connect(BESIDE) as ours, production.connect(like) as theirs:
        for query in owners:
            assert {row[0] for row in ours.execute(query.encode())} <= {OWNER}, query
        assert ours.execute(made).fetchall() == theirs.execute(made).fetchall()
        spaces = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"
        assert ours.execute(spaces).fetchall() == theirs.execute(spaces).fetchall()
        acls = "SELECT relname FROM pg_class WHERE relacl IS NOT NULL AND oid >= 16384"
        assert ours.execute(acls).fetchall() == []


def _evidence(run: Run) -> dict[str, str]:
    """Hashes of all that the run's folder holds, but for the log of events and the second merge."""
    return {
        str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.folder.rglob("*")
        if path.is_file()
        and path.relative_to(run.folder).parts[0] not in (repeat.FOLDER, "server", "lock")
        and path.name != "events.jsonl"
    }


def test_it_comes_out_as_signed(
    shop: Shop, live: ProductionServer, signed: Fingerprint, safety: Path, tmp_path: Path
) -> None:
    """On a server that logs every statement: it logs none of ours that could hold a row, and no password."""
    before = _evidence(shop.run)
    with live.connect("postgres") as conn:
        conn.execute("ALTER SYSTEM SET log_statement = 'all'")
        conn.execute("ALTER SYSTEM SET log_line_prefix = 'by %u: '")
        conn.execute("SELECT pg_reload_conf()")
    try:
        _repeat(shop, safety, tmp_path)
    finally:
        with live.connect("postgres") as conn:
            conn.execute("ALTER SYSTEM RESET ALL")
            conn.execute("SELECT pg_reload_conf()")
    _is_candidate(live, signed)
    assert _evidence(shop.run) == before
    log = (live.folder / "log").read_text(errors="replace")
    assert "by postgres: LOG:  statement: CREATE ROLE" in log
    assert "by homolog_" not in log
    assert not [line for line in log.splitlines() if "PASSWORD" in line and "SCRAM-SHA-256$" not in line]
    assert not (shop.run.folder / repeat.FOLDER / "server").exists()


def test_a_candidate_of_the_run_is_made_anew(
    shop: Shop, live: ProductionServer, signed: Fingerprint, safety: Path, tmp_path: Path
) -> None:
    """Whatever an interrupted promotion put in it; it is marked again as one that may be dropped."""
    with Production(shop.dsn(), tmp_path / "making") as production:
        create_beside(production, BESIDE, run_id=shop.run.id)
    with live.connect(BESIDE) as inside:
        inside.execute("CREATE TABLE half AS SELECT 1 AS one")
    _repeat(shop, safety, tmp_path)
    _is_candidate(live, signed)
    with live.connect("postgres") as conn:
        assert [(one.name, one.run_id, one.kind) for one in names.ours(conn)] == [
            (BESIDE, shop.run.id, names.Kind.CANDIDATE)
        ]


def test_what_others_made_is_left(shop: Shop, live: ProductionServer, safety: Path, tmp_path: Path) -> None:
    """A database that is not empty, a role with a name that is ours: each is refused, and is there afterwards."""
    with live.connect("postgres") as conn:
        conn.execute(f'CREATE DATABASE "{BESIDE}" OWNER {OWNER} TEMPLATE template0')
        with live.connect(BESIDE) as inside:
            inside.execute("CREATE TABLE theirs AS SELECT 1 AS one")
        with pytest.raises(PromotionRefused, match="did not make"):
            _repeat(shop, safety, tmp_path)
        with live.connect(BESIDE) as inside:
            assert inside.execute("SELECT one FROM theirs").fetchall() == [(1,)]
        conn.execute(f'DROP DATABASE "{BESIDE}"')
        conn.execute("CREATE ROLE homolog_merge")
        conn.execute("COMMENT ON ROLE homolog_merge IS 'of the DBA'")
        try:
            with pytest.raises(PromotionRefused, match="homolog_merge"):
                _repeat(shop, safety, tmp_path)
            assert not _has(live, BESIDE)
            assert conn.execute("SELECT 1 FROM pg_roles WHERE rolname = 'homolog_merge'").fetchone() == (1,)
        finally:
            conn.execute("DROP ROLE homolog_merge")


def test_only_ours_is_dropped(shop: Shop, live: ProductionServer, tmp_path: Path) -> None:
    """A database is dropped, copied, settled and handed over only if a role that we made owns it."""
    with Production(shop.dsn(), tmp_path) as production, live.connect("postgres") as conn:
        server = ExternalServer(production, tmp_path / "ours", "a run", BESIDE)
        with pytest.raises(PromotionRefused, match=OWNER):
            server.create_role(OWNER)
        server.create_role("homolog_source_1")
        conn.execute("CREATE DATABASE source_1")
        try:
            server.drop_database("source_1")
            for attempt in (
                lambda: server.create_database("source_1", "homolog_source_1"),
                lambda: server.copy_database(DATABASE, "copy"),
                lambda: server.settle(DATABASE, "homolog_source_1"),
                lambda: server.hand_over(DATABASE, OWNER),
                lambda: server.create_database(DATABASE, "homolog_source_1"),
                lambda: server.copy_database("source_1", BESIDE),
            ):
                with pytest.raises(PromotionRefused, match="not ours"):
                    attempt()
            server.create_database("source_1_data", "homolog_source_1")
            server.copy_database("source_1_data", BESIDE)
            with pytest.raises(PromotionRefused, match="not ours"):
                server.copy_database("source_1_data", DATABASE)
            with (
                server.connect("source_1_data", "homolog_source_1") as inside,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                inside.execute("COPY (SELECT 1) TO PROGRAM 'true'")
            assert [name for name, _ in server.left()[0]] == [BESIDE, "source_1_data"]
            other = ExternalServer(production, tmp_path / "other", "another run", BESIDE)
            other.destroy()  # what was left by whichever run
            assert server.left() == ([], [])
            assert _has(live, "source_1")
        finally:
            conn.execute("DROP DATABASE source_1")


def test_roles_that_cannot_log_in_are_told(shop: Shop, live: ProductionServer, safety: Path, tmp_path: Path) -> None:
    """As where pg_hba.conf names the roles that may come; which line it lacks is said, and nothing is left."""
    rules = live.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    try:
        rules.write_text(f"host all /^homolog_ 127.0.0.1/32 reject\n{before}")
        with live.connect("postgres") as conn:
            conn.execute("SELECT pg_reload_conf()")
        with pytest.raises(PromotionRefused, match="homolog_central") as refused:
            _repeat(shop, safety, tmp_path)
        assert "host all /^homolog_" in str(refused.value.next_step)
        assert not _has(live, BESIDE)
    finally:
        rules.write_text(before)
        with live.connect("postgres") as conn:
            conn.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("live")
def test_who_cannot_do_it_is_told(shop: Shop, safety: Path, tmp_path: Path) -> None:
    """The owner, who is no superuser; production itself; a second one at the same time; a run that PEC merged."""
    with pytest.raises(PromotionRefused, match="superuser") as refused:
        _repeat(shop, safety, tmp_path, role=OWNER)
    assert "--mode repeat" in str(refused.value.next_step)
    with Production(shop.dsn(), tmp_path) as production:
        with pytest.raises(PromotionRefused, match="itself"):
            merge_beside(shop.run, production, DATABASE, safety, shop.reporter)
        with (
            repeat._alone(ExternalServer(production, tmp_path / "first", "first", BESIDE)),
            pytest.raises(PromotionRefused, match="under way"),
        ):
            merge_beside(shop.run, production, BESIDE, safety, shop.reporter)
        kept = shop.run.load("run")
        try:
            shop.run.save("run", {**kept, "asked": {**kept["asked"], "engine": "pec"}})
            with pytest.raises(PromotionRefused, match="person"):
                merge_beside(shop.run, production, BESIDE, safety, shop.reporter)
        finally:
            shop.run.save("run", kept)


@pytest.mark.usefixtures("live")
def test_other_backups_are_refused(shop: Shop, live: ProductionServer, safety: Path, tmp_path: Path) -> None:
    """A source's file that is not what it was; a production that is not what the plan was made for."""
    path = next(source.backup.path for source in inputs.sources(shop.run))
    original = path.read_bytes()
    fresh = dump(live, "north", tmp_path / "again.backup").read_bytes()
    assert fresh != original
    try:
        path.write_bytes(fresh)
        with pytest.raises(PromotionRolledBack) as refused:
            _repeat(shop, safety, tmp_path)
        assert refused.value.details == (str(path),)
    finally:
        path.write_bytes(original)
    with live.connect("postgres") as conn:
        conn.execute(f"CREATE DATABASE moved TEMPLATE {DATABASE}")
        with live.connect("moved") as inside:
            inside.execute("SELECT nextval(pg_get_serial_sequence('basket_basket', 'id'))")
        moved = dump(live, "moved", tmp_path / "moved.backup")
        conn.execute("DROP DATABASE moved")
    with pytest.raises(PromotionRolledBack) as refused:
        _repeat(shop, moved, tmp_path)
    assert "basket_basket_id_seq" in str(refused.value.details)
    assert not _has(live, BESIDE)
    plan = shop.run.load("plan")
    try:
        shop.run.save("plan", {**plan, "scope": "less"})
        with pytest.raises(PromotionRolledBack) as refused:
            _repeat(shop, safety, tmp_path)
        assert "plan" in str(refused.value.details)
    finally:
        shop.run.save("plan", plan)


def test_too_few_locks(shop: Shop, signed: Fingerprint, safety: Path, tmp_path: Path) -> None:
    """The merge would take what others on the server need: it is not begun."""
    production = shop.production
    try:
        with production.connect("postgres") as conn:
            conn.execute("ALTER SYSTEM SET max_locks_per_transaction = 10")
            conn.execute("ALTER SYSTEM SET max_connections = 20")
        production.stop()
        production.start()
        with pytest.raises(PromotionRolledBack) as refused:
            _repeat(shop, safety, tmp_path)
        assert "max_locks_per_transaction" in str(refused.value.details)
        assert not _has(production, BESIDE)
    finally:
        with production.connect("postgres") as conn:
            conn.execute("ALTER SYSTEM RESET ALL")
        production.stop()
        production.start()


@pytest.mark.parametrize("title", ["Restore north", "Prove north", "Hand over the merged database"])
def test_interrupted_it_leaves_nothing(
    shop: Shop, live: ProductionServer, safety: Path, tmp_path: Path, title: str
) -> None:
    """By Ctrl-C in a step; the rest is for the fixture to see."""
    with pytest.raises(KeyboardInterrupt):
        _repeat(shop, safety, tmp_path, Interrupting(title))
    assert not _has(live, BESIDE)


def test_killed_it_begins_anew(
    shop: Shop, live: ProductionServer, signed: Fingerprint, safety: Path, tmp_path: Path
) -> None:
    """By SIGKILL, soon after a step began; then cleared, or done again in full."""
    events = shop.run.folder / repeat.FOLDER / "events.jsonl"
    for step in ("central.restore", "source.1.restore", "source.1.merge", "hand.over"):
        events.unlink(missing_ok=True)
        arguments = (shop.run.folder, shop.dsn(), BESIDE, safety, tmp_path / "killed")
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while not (events.exists() and f'"{step}"' in events.read_text()):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if step == "source.1.restore":
            with Production(shop.dsn(), tmp_path) as production:
                assert BESIDE in repeat.clear(shop.run, production, BESIDE)
                assert not _has(live, BESIDE)
                assert repeat.clear(shop.run, production, BESIDE) == ()
    if _has(live, BESIDE):  # it may have been handed over just before it was killed
        with live.connect("postgres") as conn:
            row = conn.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [BESIDE]
            ).fetchone()
            if row == (OWNER,):
                _is_candidate(live, signed)
                conn.execute(f'DROP DATABASE "{BESIDE}"')
    _repeat(shop, safety, tmp_path)
    _is_candidate(live, signed)


def test_the_server_is_killed(
    shop: Shop, live: ProductionServer, signed: Fingerprint, safety: Path, tmp_path: Path
) -> None:
    """As by a power cut, while a source is merged; later the next attempt removes what was left."""

    class Cutting(Reporter):
        @contextmanager
        def step(self, title: str) -> Iterator[None]:
            with super().step(title):
                if title == "Merge north":
                    live.kill()
                yield

    with pytest.raises(PromotionRolledBack):
        _repeat(shop, safety, tmp_path, Cutting(as_json=True))
    live.start()
    assert _has(live, BESIDE)
    _repeat(shop, safety, tmp_path)
    _is_candidate(live, signed)


def test_version_18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of another major version, with settings and a locale of its own, and two sources."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOMOLOG_LANG", "pt")
    settings = {
        "datestyle": "sql, dmy", "timezone": "America/Sao_Paulo", "extra_float_digits": "-3", "bytea_output": "escape",
        "intervalstyle": "sql_standard", "statement_timeout": "50", "idle_session_timeout": "2000",
        "transaction_timeout": "2000", "default_transaction_read_only": "on",
    }  # fmt: skip
    for production in production_server(18, {"fsync": "off"}):
        with production.connect("postgres") as conn:
            conn.execute(f"DROP DATABASE {DATABASE}")
            conn.execute(
                f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0 LOCALE_PROVIDER builtin"
                " BUILTIN_LOCALE 'C.UTF-8'"
            )
        fill_shop(production, DATABASE, "central", 12)
        for name in ("north", "south"):
            production.make_database(name)
            fill_shop(production, name, name, 9)
        paths = {name: dump(production, name, tmp_path / f"{name}.backup") for name in (DATABASE, "north", "south")}
        asked = Options.parse(
            central=str(paths[DATABASE]), sources=[f"{name}={paths[name]}" for name in ("north", "south")],
            server="embedded", major=18, profile=str(SHOP / "shop.toml"), final=True, jobs=2,
        )  # fmt: skip
        run, result = homolog.start(asked, Reporter(as_json=True))
        try:
            assert result.status == "validated", result.problem
            signed = _signed(run)
            with production.connect("postgres") as conn:
                for name, value in settings.items():
                    conn.execute(f"ALTER DATABASE {DATABASE} SET {name} = '{value}'".encode())
                    conn.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
                conn.execute("SELECT pg_reload_conf()")
            monkeypatch.setenv("HOMOLOG_LANG", "en")  # another than when the run was made
            with Production(production.dsn(), tmp_path / "ours") as found:
                merge_beside(run, found, BESIDE, paths[DATABASE], Reporter(as_json=True))
                unlike = fingerprint.differences(signed, fingerprint.take(lambda: found.connect(BESIDE), 2))
                assert not unlike, unlike
                assert ExternalServer(found, tmp_path / "after", "x", BESIDE).left() == ([], [])
                like = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname IN (%s, %s)"
                with found.connect_outside() as conn:
                    assert conn.execute(like, [DATABASE, BESIDE]).fetchall() == [("b", "C.UTF-8")] * 2
        finally:
            homolog.destroy(run)


def test_synthetic_bases(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PEC-like central and a source, with large objects of the same OIDs, and attachments."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    central, *sources = make_samples(server, tmp_path / "samples", scale=0.34, sources=1, attachments=True)
    named = {"central": central, **{path.stem: path for path in sources}}
    asked = Options.parse(
        central=str(central), sources=[f"{path.stem}={path}" for path in sources], server="embedded", major=16, jobs=2,
        attachments=[f"{name}={attachments_of(path)}" for name, path in named.items()],
    )  # fmt: skip
    run, result = homolog.start(asked, Reporter(as_json=True))
    try:
        assert result.status == "validated", result.problem
        signed, evidence = _signed(run), _evidence(run)
        assert signed.large_objects > 0
        for production in production_server(settings={"fsync": "off"}):
            with Production(production.dsn(), tmp_path / "ours") as found:
                before = _of_others(production)
                merge_beside(run, found, BESIDE, central, Reporter(as_json=True))
                assert _of_others(production) == before
            _is_candidate(production, signed)
            with production.connect(BESIDE) as conn:
                assert conn.execute("SELECT 1 FROM pg_largeobject_metadata LIMIT 1").fetchone() == (1,)
        assert _evidence(run) == evidence
    finally:
        homolog.destroy(run)
