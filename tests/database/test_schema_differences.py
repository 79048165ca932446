"""Backups whose schema is not the central's: refused with what differs, or merged whole where it does not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from merge import profile
from merge.errors import BlockedError, PreflightBlocked, SchemaDifference
from sandbox import homolog, intake
from sandbox.console import Reporter
from sandbox.options import Options
from sandbox.preflight import Decisions, Preflight, all_checks
from sandbox.rehearsal import DATABASE, Rehearsal, Source
from sandbox.runs import Run
from sandbox.sample.make import DUMP_OPTIONS
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.intake import Backup
    from sandbox.server import Server

SCHEMA = """
CREATE TABLE tb_config (key text PRIMARY KEY, value text);
CREATE TABLE tb_unit (id bigint PRIMARY KEY, code varchar(20) NOT NULL UNIQUE);
CREATE TABLE tb_person (
    id bigint PRIMARY KEY, name varchar(50) NOT NULL, card varchar(20) UNIQUE, unit_id bigint REFERENCES tb_unit,
    height integer CHECK (height > 0));
CREATE TABLE tb_visit (id bigint PRIMARY KEY, person_id bigint NOT NULL REFERENCES tb_person, at date, note text);
CREATE TABLE tb_spare (id bigint PRIMARY KEY, note varchar(30), code varchar(10) UNIQUE);
"""

ROWS = """
INSERT INTO tb_config VALUES ('VERSION', '5.5.28'), ('NAME', '{name}');
INSERT INTO tb_unit SELECT i, 'unit ' || i FROM generate_series(1, 3) i;
INSERT INTO tb_person SELECT i, 'Fulano ' || i, '{name}' || i, 1 + i % 3, 150 + i FROM generate_series(1, 40) i;
INSERT INTO tb_visit SELECT i, 1 + i % 40, date '2025-01-01' + i, 'visit {name} ' || i FROM generate_series(1, 90) i;
"""

PROFILE = """
[application]
name = "small"
title = "small"
version = "SELECT value FROM tb_config WHERE key = 'VERSION'"

[[rule]]
tables = ["tb_config"]
role = "config"
key = "fixed"
reason = "settings"
evidence = "seen"

[[rule]]
tables = ["tb_unit"]
role = "entity"
match = [["code"]]
reason = "units by code"
evidence = "seen"

[[rule]]
tables = ["tb_*"]
role = "event"
reason = "comes"
evidence = "seen"
"""

CHECKS = """
[[check]]
id = "B-01"
gate = "block"
title = { pt = "mesma versão", en = "same version" }
meaning = { pt = "outra versão", en = "another version" }
action = { pt = "atualize", en = "update" }
origin = { pt = "teste", en = "test" }
evidence = "seen"
same = "SELECT value FROM tb_config WHERE key = 'VERSION'"
"""

OTHER_ORDER = """
CREATE TABLE turned (note text, at date, person_id bigint NOT NULL, id bigint);
INSERT INTO turned SELECT note, at, person_id, id FROM tb_visit;
DROP TABLE tb_visit;
ALTER TABLE turned RENAME TO tb_visit;
ALTER TABLE tb_visit ADD CONSTRAINT tb_visit_pkey PRIMARY KEY (id),
    ADD CONSTRAINT tb_visit_person_id_fkey FOREIGN KEY (person_id) REFERENCES tb_person;
"""


@dataclass(frozen=True)
class Difference:
    """A change of the source, and what must be said of it."""

    change: str
    said: tuple[str, ...]
    error: type[BlockedError] = SchemaDifference
    dump: tuple[str, ...] = DUMP_OPTIONS


REFUSED = {
    "another version": Difference(
        "UPDATE tb_config SET value = '5.5.29' WHERE key = 'VERSION'", ("5.5.28", "5.5.29"), PreflightBlocked
    ),
    "extra column": Difference("ALTER TABLE tb_person ADD extra text DEFAULT 'x'", ("column: tb_person.extra",)),
    "extra column without values": Difference("ALTER TABLE tb_person ADD extra text", ("column: tb_person.extra",)),
    "missing column": Difference("ALTER TABLE tb_visit DROP note", ("column: tb_visit.note",)),
    "renamed column": Difference(
        "ALTER TABLE tb_visit RENAME note TO notes", ("column: tb_visit.note:", "column: tb_visit.notes:")
    ),
    "extra table with rows": Difference(
        "CREATE TABLE tb_more (id bigint PRIMARY KEY); INSERT INTO tb_more VALUES (1)", ("table: tb_more",)
    ),
    "extra table without a key, with rows": Difference(
        "CREATE TABLE loose AS SELECT 1 AS one", ("table: loose: central —; source present",)
    ),
    "missing table that rows refer to": Difference("DROP TABLE tb_unit CASCADE", ("foreign key: tb_person: ",)),
    "other type": Difference(
        "ALTER TABLE tb_visit ALTER at TYPE timestamp",
        ("type: tb_visit.at: central date; source timestamp without time zone",),
    ),
    "wider integer": Difference(
        "ALTER TABLE tb_person ALTER height TYPE bigint", ("type: tb_person.height: central integer; source bigint",)
    ),
    "longer varchar": Difference("ALTER TABLE tb_person ALTER name TYPE varchar(60)", ("type: tb_person.name",)),
    "no unique key": Difference("ALTER TABLE tb_person DROP CONSTRAINT tb_person_card_key", ("unique key: tb_person",)),
    "no primary key": Difference("ALTER TABLE tb_visit DROP CONSTRAINT tb_visit_pkey", ("primary key: tb_visit",)),
    "no foreign key": Difference(
        "ALTER TABLE tb_visit DROP CONSTRAINT tb_visit_person_id_fkey", ("foreign key: tb_visit",)
    ),
    "no check": Difference("ALTER TABLE tb_person DROP CONSTRAINT tb_person_height_check", ("check: tb_person",)),
    "more of everything": Difference(
        "ALTER TABLE tb_person ADD extra text; ALTER TABLE tb_visit DROP note; CREATE TABLE tb_more AS SELECT 1 AS id;"
        " ALTER TABLE tb_visit ALTER at TYPE timestamp",
        ("column: tb_person.extra", "column: tb_visit.note", "table: tb_more", "type: tb_visit.at"),
    ),
    "NULL where the central has none": Difference(
        "ALTER TABLE tb_person ALTER name DROP NOT NULL; UPDATE tb_person SET name = NULL WHERE id = 7",
        ("tb_person name",),
        PreflightBlocked,
    ),
    "extra empty table in a dump of INSERTs": Difference(
        "CREATE TABLE tb_more (id bigint PRIMARY KEY)", ("table: tb_more",), dump=("-Fc", "--inserts")
    ),
}  # fmt: skip

HARMLESS = {
    "column order": Difference(OTHER_ORDER, ("column order", "columns are matched by name")),
    "extra empty table": Difference("CREATE TABLE tb_more (id bigint PRIMARY KEY)", ("tb_more", "empty in the source")),
    "missing table": Difference("DROP TABLE tb_spare", ("tb_spare", "the source has no such rows")),
    "shorter varchar": Difference("ALTER TABLE tb_person ALTER name TYPE varchar(40)", ("type", "every value fits")),
    "extra column of an empty table": Difference("ALTER TABLE tb_spare ADD extra int", ("empty in the source",)),
    "missing column of an empty table": Difference("ALTER TABLE tb_spare DROP note", ("empty in the source",)),
    "other type in an empty table": Difference(
        "ALTER TABLE tb_spare ALTER note TYPE integer USING 1", ("empty in the source",)
    ),
    "no unique key of an empty table": Difference(
        "ALTER TABLE tb_spare DROP CONSTRAINT tb_spare_code_key", ("empty in the source",)
    ),
    "no NOT NULL, but no NULL": Difference(
        "ALTER TABLE tb_person ALTER name DROP NOT NULL", ("checked when the rows are loaded",)
    ),
    "other objects": Difference(
        "CREATE INDEX ON tb_person (name); CREATE VIEW v AS SELECT 1 AS one; CREATE SEQUENCE s;"
        " ALTER TABLE tb_person ALTER card SET DEFAULT 'x';"
        " CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ("index", "view", "sequence", "default", "function"),
    ),
    "plain dump with an extra empty table": Difference(
        "CREATE TABLE tb_more (id bigint PRIMARY KEY)", ("tb_more", "empty in the source"), dump=("-Fp",)
    ),
}


def _dump(server: Server, path: Path, name: str, change: str, options: tuple[str, ...]) -> Path:
    server.drop_database("differs")
    server.create_database("differs", ADMIN)
    try:
        with server.connect("differs") as conn:
            conn.execute(SCHEMA.encode())
            conn.execute(ROWS.format(name=name).encode())
            conn.execute(change.encode())
        server.tool("pg_dump", *options, "--file", server.path(path), database="differs").run()
    finally:
        server.drop_database("differs")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("differences")
    (made / "small.toml").write_text(PROFILE)
    (made / "small.checks.toml").write_text(CHECKS)
    return made


@pytest.fixture(scope="module")
def central(server: Server, folder: Path) -> Backup:
    path = _dump(server, folder / "central.backup", "central", "", DUMP_OPTIONS)
    return intake.inspect(path, work=folder / "work-central")


@pytest.fixture
def rehearsal(server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    run = Run.create()
    name = str(folder / "small.toml")
    asked = Preflight(run, all_checks(name), Decisions())
    yield Rehearsal(run, Reporter(), server, profile.load(name), 2, asked)
    run.unlock()
    server.drop_database(DATABASE)
    server.drop_database("source_1")


def _source(server: Server, folder: Path, difference: Difference) -> Source:
    path = _dump(server, folder / "source.backup", "source", difference.change, difference.dump)
    return Source(1, "source", intake.inspect(path, work=folder / "work"))


def _content(rehearsal: Rehearsal) -> list[tuple[Any, ...]]:
    """All rows of the central."""
    with rehearsal.connect() as conn:
        return [
            row
            for table in ("tb_config", "tb_unit", "tb_person", "tb_visit", "tb_spare")
            for row in conn.execute(f"SELECT '{table}', t::text FROM public.{table} t ORDER BY 2").fetchall()
        ]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(
    server: Server, rehearsal: Rehearsal, central: Backup, tmp_path: Path, name: str
) -> None:
    """All that differs is told, with exit code 4, and the central is as it was."""
    difference = REFUSED[name]
    plan, found = rehearsal.prepare_central(central)
    before = _content(rehearsal)
    with pytest.raises(difference.error) as caught:
        rehearsal.merge(plan, found, _source(server, tmp_path, difference))
    assert type(caught.value) is difference.error
    assert caught.value.exit_code == 4
    told = "\n".join(caught.value.details)
    for part in difference.said:
        assert part in told
    assert "Fulano" not in told
    assert _content(rehearsal) == before
    assert not rehearsal.run.is_done("source.1.merge")


@pytest.mark.parametrize("name", HARMLESS)
def test_merged_whole_where_it_does_not_matter(
    server: Server, rehearsal: Rehearsal, central: Backup, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row comes, the proofs hold, and the difference is kept with its reason."""
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    difference = HARMLESS[name]
    plan, found = rehearsal.prepare_central(central)
    rehearsal.merge(plan, found, _source(server, tmp_path, difference))
    rehearsal.prove_central(plan, [1])
    kept = rehearsal.run.load("source-1-schema")["differences"]
    assert kept
    assert all(d["harmless"] and d["reason"] for d in kept)
    told = "\n".join(f"{d['kind']} {d['object']} {d['reason']}" for d in kept)
    for part in difference.said:
        assert part in told
    with rehearsal.connect() as conn:
        counts = (
            "SELECT (SELECT count(*) FROM tb_unit), (SELECT count(*) FROM tb_person), (SELECT count(*) FROM tb_visit)"
        )
        assert conn.execute(counts.encode()).fetchone() == (3, 80, 180)
        right = (
            "SELECT count(*) FROM tb_visit v JOIN tb_person p ON p.id = v.person_id JOIN tb_unit u ON u.id = p.unit_id"
            " WHERE v.note LIKE 'visit source %' AND p.card LIKE 'source%' AND v.at > '2025-01-01'"
        )
        assert conn.execute(right.encode()).fetchone() == (90,)


def test_identical_schemas_differ_in_nothing(
    server: Server, rehearsal: Rehearsal, central: Backup, tmp_path: Path
) -> None:
    plan, found = rehearsal.prepare_central(central)
    rehearsal.merge(plan, found, _source(server, tmp_path, Difference("", ())))
    assert rehearsal.run.load("source-1-schema")["differences"] == []


def test_a_whole_run_ends_with_exit_code_4(
    server: Server, folder: Path, central: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`homolog` says it in its result, with the table of differences."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    path = _dump(server, tmp_path / "source.backup", "source", REFUSED["more of everything"].change, DUMP_OPTIONS)
    options = Options(
        central=central.path, sources=(("source", path),), server="embedded", profile=str(folder / "small.toml")
    )
    run, result = homolog.start(options, Reporter())
    homolog.destroy(run)
    assert (result.status, result.exit_code) == ("blocked", 4)
    assert result.problem is not None
    assert len(result.problem.details) == 4
    assert result.sources[0].dispositions is None
