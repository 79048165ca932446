"""Nothing of the sandbox's neutralisation reaches production, whatever its configuration holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from merge import profile
from merge.errors import PromotionRefused
from sandbox.pec import neutralise
from sandbox.pec.undo_list import UndoList
from sandbox.promotion import capsule, freeze
from sandbox.promotion.production import Production
from sandbox.runs import Run
from sandbox.sample import create_schema, fill, world
from tests.fix_production import DATABASE, OWNER, SUPERUSER, ProductionServer, contents, production_server
from tests.fix_sample import declared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from merge.profile import Profile

CANDIDATE = "esus_candidate"
LITTLE = "little"
LINK = "https://central.homolog"
PROFILE = profile.load("pec")
CAPSULE = tuple(declared.table for declared in PROFILE.capsule)
CHANGED = tuple(dict.fromkeys(rule.table for rule in PROFILE.neutralise))

ODD: dict[str, list[tuple[Any, ...]]] = {
    "tb_config_sistema": [
        ("odd\nkey\t\\N", "", 1, "", None, b""),
        ("NULOS", "d", 0, None, None, None),
        ("Aspas", "'\"\\.\r\n", -1, "ação ✓ \\x41", 2**31 - 1, bytes(range(256))),
        ("SMTPSENHA", "d", 1, "  espaços  ", 0, b"\x00\xff\\"),
    ],
    "tb_cfg_certificado": [(9001, "senha\t\\N\n'quoted'"), (9002, ""), (9003, None)],
    "tb_servidor_smtp": [(9001, "h", "587", "u", "", None, 1, 1, "infinity"), (9002, *[None] * 8)],
    "tb_nodo": [(9001, None, "", None, 1, "0044-03-15 12:00:00.000001 BC"), (9002, "x", "'", 1, 0, None)],
}


@pytest.fixture(scope="module")
def municipal() -> Iterator[ProductionServer]:
    """A production with a small PEC, and with one that has only the tables that neutralising changes (`LITTLE`); both
    with odd configuration, and a table of an older version.
    """
    for server in production_server(settings={"fsync": "off"}):
        installations = world(scale=0.34, seed=11)
        server.make_database(LITTLE)
        with server.connect(DATABASE, OWNER) as conn:
            create_schema(conn)
        with server.connect() as conn:
            fill(conn, installations[0], installations)
        with server.connect(LITTLE, OWNER) as conn:
            conn.execute(declared(*CHANGED).encode())
        for database in (DATABASE, LITTLE):
            with server.connect(database, OWNER) as conn:
                conn.execute("CREATE TABLE tb_cfg_rnds (co_seq_cfg_rnds bigint PRIMARY KEY, ds_certificado bytea)")
                conn.execute("INSERT INTO tb_cfg_rnds VALUES (1, '\\x00ff'), (2, NULL)")
            with server.connect(database) as conn:
                conn.execute("SET session_replication_role = replica")
                for table, rows in ODD.items():
                    for row in rows:
                        marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
                        conn.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), marks), row)
        yield server


@pytest.fixture
def candidate(municipal: ProductionServer) -> Iterator[str]:
    """A database beside production, with the same content."""
    with municipal.connect("postgres") as conn:
        conn.execute(f"CREATE DATABASE {CANDIDATE} OWNER {OWNER} TEMPLATE {DATABASE}")
    yield CANDIDATE
    with municipal.connect("postgres") as conn:
        conn.execute(f"DROP DATABASE {CANDIDATE}")


@pytest.fixture
def little(municipal: ProductionServer) -> Iterator[str]:
    """A database beside the little one, with the same content."""
    with municipal.connect("postgres") as conn:
        conn.execute(f"CREATE DATABASE {CANDIDATE} OWNER {OWNER} TEMPLATE {LITTLE}")
    yield CANDIDATE
    with municipal.connect("postgres") as conn:
        conn.execute(f"DROP DATABASE {CANDIDATE}")


@pytest.fixture(params=[SUPERUSER, OWNER])
def production(municipal: ProductionServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Production]:
    """The production, reached as a superuser and as the owner, who is none."""
    with Production(municipal.dsn(role=request.param), tmp_path / "dsn") as reached:
        yield reached


@pytest.fixture(params=[SUPERUSER, OWNER])
def little_production(
    municipal: ProductionServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Production]:
    """The same for the little one."""
    with Production(municipal.dsn(LITTLE, request.param), tmp_path / "dsn") as reached:
        yield reached


def _run(folder: Path, engine: str = "sql") -> Run:
    run = Run(folder)
    run.folder.mkdir()
    run.save("run", {"asked": {"engine": engine, "profile": "pec"}})
    return run


def _neutralise(server: ProductionServer, folder: Path, database: str = CANDIDATE) -> UndoList:
    """As the sandbox does it, forgotten to be undone."""
    undo_list = UndoList(folder / "alternate" / "undo-central")
    neutralise.neutralise(lambda: server.connect(database, OWNER), PROFILE.neutralise, undo_list, link=LINK)
    return undo_list


def _everything(server: ProductionServer) -> tuple[str, ...]:
    history = tuple(t.replace("tb_", "ta_", 1) for t in CAPSULE)
    with server.connect() as conn:
        found = conn.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname = ANY (%s)", [list(history)])
        return (*CAPSULE, *(name for (name,) in found.fetchall()))


def test_what_was_forgotten_is_put_back(
    municipal: ProductionServer, candidate: str, production: Production, tmp_path: Path
) -> None:
    tables = _everything(municipal)
    before = contents(municipal, DATABASE, tables)
    assert all(before[table] for table in CAPSULE)
    _neutralise(municipal, tmp_path)
    neutral = contents(municipal, candidate, tables)
    assert {table for table in tables if neutral[table] != before[table]} == set(CAPSULE)  # each has something to do

    done = capsule.put_back(production, candidate, PROFILE)
    assert contents(municipal, candidate, tables) == before  # and no trigger wrote history
    assert contents(municipal, DATABASE, tables) == before
    assert [t.table for t in done.tables] == list(CAPSULE)
    assert done.absent == ()
    counted = {t.table: t for t in done.tables}
    assert counted["tb_cfg_certificado"].added == counted["tb_cfg_certificado"].rows >= 3
    assert counted["tb_nodo"].put_back > 0
    for t in done.tables:
        assert t.rows == t.same + t.put_back + t.added
        assert t.put_back + t.added > 0
        assert t.only_in_candidate == 0
    assert "senha" not in repr(asdict(done)).lower().replace("tb_", "")
    again = capsule.put_back(production, candidate, PROFILE)
    assert all(t.same == t.rows for t in again.tables)
    with municipal.connect(candidate) as conn:  # the triggers are as they were
        ask = "SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'"
        assert conn.execute(ask).fetchone() == (0,)


def test_a_queue_that_was_neutralised_is_found(
    municipal: ProductionServer, candidate: str, production: Production, tmp_path: Path
) -> None:
    """The queue of the RNDS is in no capsule: the undo list has its rows, and if they are gone that is told."""
    run = _run(tmp_path / "run")
    good = capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert (good.tables, good.listed) == (len(CHANGED), 0)
    assert all(rule.production == rule.candidate for rule in good.rules)
    assert {rule.rule for rule in good.rules if not rule.production} == set()  # every rule has something to tell
    run.save("kept", good)

    _neutralise(municipal, tmp_path)
    capsule.put_back(production, candidate, PROFILE)
    with pytest.raises(PromotionRefused) as refused:
        capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert refused.value.details
    assert all("tb_envio_rnds" in line for line in refused.value.details)


def test_every_rule_alone_is_found_and_undone(municipal: ProductionServer, candidate: str, tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    with Production(municipal.dsn(), tmp_path / "dsn") as production:
        for rule in PROFILE.neutralise:
            undo_list = UndoList(tmp_path / rule.id)
            neutralise.neutralise(lambda: municipal.connect(candidate, OWNER), [rule], undo_list, link=LINK)
            with pytest.raises(PromotionRefused) as refused:
                capsule.undo_is_complete(production, candidate, run, PROFILE)
            assert any(rule.table in line for line in refused.value.details), rule.id
            if rule.table in CAPSULE:
                capsule.put_back(production, candidate, PROFILE)
            else:
                neutralise.undo(lambda: municipal.connect(candidate, OWNER), undo_list)
            capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert contents(municipal, candidate, CHANGED) == contents(municipal, DATABASE, CHANGED)


def test_the_undo_list_of_the_vendors_engine(
    municipal: ProductionServer, candidate: str, production: Production, tmp_path: Path
) -> None:
    run = _run(tmp_path / "run", engine="pec")
    undo_list = _neutralise(municipal, run.folder)
    rows = sum(entry.rows for batch in undo_list.batches() for entry in batch.entries)
    run.events.add("pec", "neutralised", base="central", rows=rows)
    run.events.add("pec", "neutralised", base="central", rows=0)  # once more, for the second source
    capsule.put_back(production, candidate, PROFILE)
    with pytest.raises(PromotionRefused) as refused:  # the capsule knows nothing of queues
        capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert any(line.startswith("D-08-queue tb_envio_rnds [") for line in refused.value.details)

    neutralise.undo(lambda: municipal.connect(candidate, OWNER), undo_list)
    done = capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert done.listed > 100

    values = next(undo_list.folder.glob("*-tb_envio_rnds.copy"))
    kept = values.read_bytes()
    values.write_bytes(kept[:-1])
    with pytest.raises(PromotionRefused) as refused:  # a list that was changed tells nothing
        capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert values.name in refused.value.details[0]
    values.write_bytes(kept)

    validated = {"final": True, "status": "validated", "candidate": {"promotable": True}}
    run.save("result", {**validated, "engine": "pec", "content_proof": {"differences": 0}})
    assert freeze.not_promotable(run) == ()
    (undo_list.folder / "undo.jsonl").unlink()
    with pytest.raises(PromotionRefused) as refused:  # nobody can tell any more
        capsule.undo_is_complete(production, candidate, run, PROFILE)
    assert len(refused.value.details) == 1
    assert freeze.not_promotable(run) == refused.value.details  # which is told before anything is done


def test_rows_that_the_merge_added_stay(
    municipal: ProductionServer, little: str, little_production: Production
) -> None:
    with municipal.connect(little) as conn:
        conn.execute("INSERT INTO tb_nodo VALUES (70001, 'n', 'new', 1, 1, NULL)")
        conn.execute("INSERT INTO tb_config_sistema VALUES ('NOVA', 'd', 1, NULL, NULL, NULL)")
        conn.execute("UPDATE tb_nodo SET ds_nome = ds_nome || ' ' WHERE co_nodo = 9002")
    done = {t.table: t for t in capsule.put_back(little_production, little, PROFILE).tables}
    assert (done["tb_nodo"].put_back, done["tb_nodo"].only_in_candidate) == (1, 1)
    assert done["tb_config_sistema"].only_in_candidate == 1
    with municipal.connect(little) as conn:
        assert conn.execute("SELECT ds_nome FROM tb_nodo WHERE co_nodo IN (70001, 9002) ORDER BY 1").fetchall() == [
            ("'",), ("new",),
        ]  # fmt: skip

    exact = _changed("tb_nodo", exact=True)
    with municipal.connect(little) as conn:
        conn.execute("UPDATE tb_servidor_smtp SET st_ativo = 0")
    before = contents(municipal, little, CAPSULE)
    with pytest.raises(PromotionRefused) as refused:
        capsule.put_back(little_production, little, exact)
    assert [line.split(":")[0] for line in refused.value.details] == ["tb_nodo"]
    assert contents(municipal, little, CAPSULE) == before  # nothing was half done


def test_only_rows_that_are_meant(municipal: ProductionServer, little: str, little_production: Production) -> None:
    meant = _changed("tb_config_sistema", where="co_config_sistema = 'SMTPSENHA'")
    with municipal.connect(little) as conn:
        conn.execute("UPDATE tb_config_sistema SET ds_texto = 'x'")
    done = next(t for t in capsule.put_back(little_production, little, meant).tables if t.table == "tb_config_sistema")
    assert (done.rows, done.put_back, done.only_in_candidate) == (1, 1, 0)
    with municipal.connect(little) as conn:
        ask = "SELECT count(*) FROM tb_config_sistema WHERE ds_texto IS DISTINCT FROM 'x'"
        assert conn.execute(ask).fetchone() == (1,)


def _changed(table: str, **values: Any) -> Profile:
    changed = tuple(d.model_copy(update=values) if d.table == table else d for d in PROFILE.capsule)
    return PROFILE.model_copy(update={"capsule": changed})


UNLIKE = {
    "a column more": "ALTER TABLE tb_nodo ADD ds_x text",
    "another type": "ALTER TABLE tb_nodo ALTER ds_nome TYPE text",
    "no key": "ALTER TABLE tb_nodo DROP CONSTRAINT pk_nodo CASCADE",
    "not there": "ALTER TABLE tb_nodo RENAME TO tb_gone",
    "a rule": "CREATE RULE lost AS ON UPDATE TO tb_nodo DO INSTEAD NOTHING",
    "a view": "ALTER TABLE tb_nodo RENAME TO tb_gone; CREATE VIEW tb_nodo AS SELECT * FROM tb_gone",
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_cannot_be_put_back_is_refused(
    municipal: ProductionServer, little: str, tmp_path: Path, name: str
) -> None:
    with municipal.connect(little, OWNER) as conn:
        conn.execute(UNLIKE[name].encode())
        conn.execute("UPDATE tb_servidor_smtp SET st_ativo = 0")
        before = conn.execute("SELECT array_agg(t ORDER BY 1) FROM tb_servidor_smtp t").fetchone()
        with Production(municipal.dsn(LITTLE), tmp_path / "dsn") as little_production:
            with pytest.raises(PromotionRefused) as refused:
                capsule.put_back(little_production, little, PROFILE)
            assert any("tb_nodo" in line for line in refused.value.details)
        assert conn.execute("SELECT array_agg(t ORDER BY 1) FROM tb_servidor_smtp t").fetchone() == before


def test_code_of_the_owner_gets_no_more_than_the_owner_has(
    municipal: ProductionServer, little: str, tmp_path: Path
) -> None:
    """Triggers do not fire; a check, which no one can switch off, runs as the owner; functions and operators of
    theirs that better fit than PostgreSQL's are not found.
    """
    with municipal.connect(little, OWNER) as conn:
        conn.execute(
            """
            CREATE TABLE seen (who text, what text);
            CREATE FUNCTION spy(what text) RETURNS boolean LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.seen VALUES (current_user, what); RETURN true; END $$;
            CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM public.spy('trigger'); RETURN NULL; END $$;
            CREATE TRIGGER fired AFTER UPDATE OR INSERT ON tb_nodo FOR EACH ROW EXECUTE PROCEDURE fired();
            ALTER TABLE tb_nodo ENABLE ALWAYS TRIGGER fired;
            ALTER TABLE tb_nodo ADD CONSTRAINT spied CHECK (public.spy('check')) NOT VALID;
            CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT public.spy('lower')::text $$;
            CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE sql AS $$ SELECT public.spy('=') $$;
            CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, PROCEDURE = same);
            """
        )
        conn.execute("UPDATE tb_nodo SET st_ativo = 0 WHERE st_ativo OPERATOR(pg_catalog.=) 1")
        conn.execute("TRUNCATE seen")
    run = _run(tmp_path / "run", engine="pec")
    with Production(municipal.dsn(LITTLE), tmp_path / "dsn") as little_production:
        done = {t.table: t for t in capsule.put_back(little_production, little, PROFILE).tables}
        capsule.undo_is_complete(little_production, little, run, PROFILE)
    assert done["tb_nodo"].put_back > 0
    with municipal.connect(little) as conn:
        assert conn.execute("SELECT DISTINCT who, what FROM seen").fetchall() == [(OWNER, "check")]
        ask = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'fired'"
        assert conn.execute(ask).fetchone() == ("A",)


def test_who_may_not_is_told_so(municipal: ProductionServer, little: str, tmp_path: Path) -> None:
    with municipal.connect("postgres") as conn:
        conn.execute("DROP ROLE IF EXISTS nobody_much")
        conn.execute(f"CREATE ROLE nobody_much LOGIN PASSWORD '{municipal.password}'")
    with (
        Production(municipal.dsn(LITTLE, role="nobody_much"), tmp_path / "dsn") as little_production,
        pytest.raises(PromotionRefused) as refused,
    ):
        capsule.put_back(little_production, little, PROFILE)
    assert refused.value.details[0].startswith("SQLSTATE 42501")


def test_a_cut_line_is_not_taken_for_a_refusal(municipal: ProductionServer, little: str, tmp_path: Path) -> None:
    with municipal.connect(little, OWNER) as conn:
        conn.execute(
            "CREATE FUNCTION end_me() RETURNS boolean LANGUAGE sql AS"
            " $$ SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) $$;"
            " ALTER TABLE tb_nodo ADD CONSTRAINT ended CHECK (public.end_me()) NOT VALID"
        )
        conn.execute("TRUNCATE tb_nodo CASCADE")
    dsn = municipal.dsn(LITTLE, role=OWNER)  # who may end its own sessions
    with Production(dsn, tmp_path / "dsn") as little_production, pytest.raises(psycopg.OperationalError):
        capsule.put_back(little_production, little, PROFILE)


def test_on_another_version(tmp_path: Path) -> None:
    """Identity columns and columns that the server computes are no obstacle, on 18."""
    declared = PROFILE.capsule[0].model_copy(update={"table": "Cfg %x", "exact": True})
    known = PROFILE.model_copy(update={"capsule": (declared,), "neutralise": ()})
    for server in production_server(18):
        server.make_database(CANDIDATE)
        for database in (DATABASE, CANDIDATE):
            with server.connect(database, OWNER) as conn:
                conn.execute(
                    'CREATE TABLE "Cfg %x" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, j json, n numeric,'
                    " f float8, a text[], twice numeric GENERATED ALWAYS AS (n * 2) STORED,"
                    " half numeric GENERATED ALWAYS AS (n / 2) VIRTUAL)"
                )
        with server.connect(DATABASE) as conn:
            conn.execute(
                """INSERT INTO "Cfg %x" (j, n, f, a) VALUES ('{"b": 1,  "a":2}', 1.00, 0.1, '{a,NULL,"",x y}'),
                   ('{}', 'NaN', '-0', NULL), (NULL, -0.1, 1e-320, '{{1,2},{3,4}}')"""
            )
        with server.connect(CANDIDATE) as conn:
            conn.execute(
                """INSERT INTO "Cfg %x" (j, n, f, a) VALUES ('{"b": 1, "a":2}', 1.0, 0.1, '{a,NULL,"",x y}'),
                   ('{}', 'NaN', '0', NULL)"""
            )
        with Production(server.dsn(), tmp_path / "dsn") as little_production:
            done = capsule.put_back(little_production, CANDIDATE, known)
        assert [(t.same, t.put_back, t.added) for t in done.tables] == [(0, 2, 1)]
        table = ("Cfg %x",)
        assert contents(server, CANDIDATE, table) == contents(server, DATABASE, table)
