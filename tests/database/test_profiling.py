"""`invoke profile` on backups and runs, and how an override file settles what the profile does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import profile
from merge.errors import ConfigError
from sandbox import homolog, intake, profiling
from sandbox.console import Reporter
from sandbox.options import Options, options_of
from sandbox.runs import Run
from sandbox.sample import PLANTED, make_samples
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server
    from tests.fix_backup import Backups

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DECLARED = ROOT / "tests" / "planted.toml"
NEW = {"tb_teleconsulta", "tb_teleconsulta_anexo"}


@pytest.fixture(scope="module")
def samples(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A central and a source of a newer PEC: with tables and columns that the profile does not know."""
    return make_samples(server, tmp_path_factory.mktemp("planted"), scale=0.34, sources=1, planted=True)


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the runs of this module."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMOLOG_RUNS", str(folder))
        yield folder
        for run in Run.all():
            homolog.destroy(run)


@pytest.fixture(scope="module")
def blocked(runs: Path, samples: list[Path]) -> Run:
    """A run without the override file."""
    options = Options(central=samples[0], sources=(("ubs", samples[1]),), server="embedded", jobs=2)
    run, result = homolog.start(options, Reporter())
    assert result.exit_code == 4
    assert result.problem is not None
    assert {d.rpartition(": ")[2] for d in result.problem.details} == NEW
    return run


def _rows(server: Server, path: Path) -> dict[str, int]:
    """The rows of every table of a backup, of which there are any, counted after a restore."""
    server.drop_database("profiled")
    server.create_database("profiled", ADMIN)
    try:
        tool = server.tool("pg_restore", "--no-owner", "--dbname=profiled", server.path(path), database="profiled")
        tool.run()
        with server.connect("profiled") as conn:
            names = conn.execute("SELECT relname FROM pg_class WHERE relnamespace = 2200 AND relkind = 'r'").fetchall()
            query = sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {}, count(*) FROM public.{}").format(sql.Literal(n), sql.Identifier(n))
                for (n,) in names
            )
            return {name: count for name, count in conn.execute(query).fetchall() if count}
    finally:
        server.drop_database("profiled")


def test_of_a_backup(server: Server, samples: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Each table has its role, rule and rows; what no rule matches is named; nothing is left of the restored schema."""
    left = set(Path(tempfile.gettempdir()).glob("homolog-profile-*"))
    found = profiling.of_backup(samples[1], profile.load(), Reporter(as_json=True), 1)
    assert set(Path(tempfile.gettempdir()).glob("homolog-profile-*")) == left
    tables = {t.name: t for t in found.tables}
    assert {name: t.rows["ubs-a"] for name, t in tables.items() if t.rows["ubs-a"]} == _rows(server, samples[1])
    assert {t.name for t in found.without_role} == NEW
    assert (tables["tb_uf"].role, tables["tb_uf"].rule, tables["tb_uf"].comes) == ("catalog", "tb_*", True)
    assert (tables["tb_dim_tempo"].role, tables["tb_dim_tempo"].comes) == ("derived", False)
    settled = profiling.of_backup(samples[1], profile.load("pec", [DECLARED]), Reporter(as_json=True), 1)
    assert not settled.without_role
    assert not settled.undeclared
    capsys.readouterr()
    Reporter().profiled(profiling.unclassified(found))
    told = capsys.readouterr().out
    assert all(name in told for name in NEW)
    assert "tb_cidadao" not in told
    assert "override.example.toml" in told


def test_columns_that_look_like_references_are_named(server: Server, tmp_path: Path) -> None:
    server.drop_database("looks")
    server.create_database("looks", ADMIN)
    with server.connect("looks") as conn:
        conn.execute("CREATE TABLE tb_uf (co_uf bigint PRIMARY KEY, co_strange bigint, co_text text, qt_strange int)")
    path = tmp_path / "looks.backup"
    server.tool("pg_dump", "-Fc", "--file", server.path(path), database="looks").run()
    server.drop_database("looks")
    found = profiling.of_backup(path, profile.load(), Reporter(as_json=True), 1)
    assert found.undeclared == ("tb_uf.co_strange",)


def test_rows_are_counted_in_every_form(server: Server, backups: Backups, tmp_path: Path) -> None:
    """As many as a restored database has; odd names, odd values, empty tables, other schemas."""
    with server.connect("odd") as conn:
        names = ("parent", "Odd TYPES", "no_key", "no_columns", "holder", "part_1", "part_2", "empty", "markup")
        rows = {n: (conn.execute(f'SELECT count(*) FROM "{n}"').fetchone() or (0,))[0] for n in names}
    for form in ("custom", "directory", "tar", "plain", "plain.gz", "create"):
        backup = intake.inspect(backups[form], work=tmp_path / form)
        counted = dict(backup.rows)
        assert {n: counted.get(n, 0) for n in rows} == rows, form
        assert counted["other.elsewhere"] == 1
        assert "elsewhere" not in counted
    assert intake.inspect(backups["inserts"], work=tmp_path / "i").rows == ()


def test_of_a_run_that_was_blocked(blocked: Run) -> None:
    """What was planned, the rows of each source; an override file tells what would be settled."""
    found = profiling.of_run(blocked, profile.load(), again=False)
    assert {t.name for t in found.without_role} == NEW
    planned = {t["name"]: t for t in blocked.load("plan")["tables"]}
    for table in found.tables:
        assert (table.role, table.rule) == (planned[table.name]["role"], planned[table.name]["rule"])
        assert set(table.rows) == {"ubs"}
    assert sum(t.rows["ubs"] for t in found.tables) == sum(blocked.load("source-1-rows")["rows"].values())
    again = profiling.of_run(blocked, profile.load(), again=True)
    assert [replace(t, reason="") for t in again.tables] == [replace(t, reason="") for t in found.tables]
    settled = profiling.of_run(blocked, profile.load("pec", [DECLARED]), again=True)
    assert not settled.without_role


def test_an_override_file_settles_it(runs: Path, samples: list[Path], blocked: Run) -> None:
    """With the new tables and columns declared, the run is validated and the planted references follow their keys."""
    options = Options(
        central=samples[0], sources=(("ubs", samples[1]),), server="embedded", jobs=2, overrides=(DECLARED,),
        keep_running=True,
    )  # fmt: skip
    run, result = homolog.start(options, Reporter())
    assert result.status == "validated"
    assert options_of(run).overrides == (DECLARED,)
    found = profiling.of_run(run, profile.load("pec", [DECLARED]), again=False)
    assert not found.without_role
    assert not {s.split(" ")[0] for s in found.suspicions["ubs"]} & PLANTED.keys()
    server = homolog.open_server(run)
    with server.connect("candidate") as conn:
        for column, target in PLANTED.items():
            if column == "tb_medicao.ds_atend_prof_revisor":  # text: declared opaque
                continue
            (table, name), (other, key) = column.split("."), target.split(".")
            query = sql.SQL(
                "SELECT count(*), count(t.{key}) FROM {table} s LEFT JOIN {other} t ON t.{key} = s.{name}"
                " WHERE s.{name} IS NOT NULL"
            ).format(
                key=sql.Identifier(key),
                table=sql.Identifier(table),
                other=sql.Identifier(other),
                name=sql.Identifier(name),
            )
            count, kept = conn.execute(query).fetchone() or (0, 0)
            assert count == kept > 0, column
    server.stop()


def test_without_the_columns_declared_they_are_suspected(runs: Path, samples: list[Path], tmp_path: Path) -> None:
    """With the rules alone the run goes through, warns of every planted column, and `invoke profile` names them."""
    rules = tmp_path / "rules.toml"
    rules.write_text(DECLARED.read_text().split("[[reference]]")[0])
    done = _invoke(runs, "homolog", "--central", samples[0], "--source", f"ubs={samples[1]}", "--server", "embedded",
                   "--override", rules)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "undeclared reference" in done.stdout + done.stderr
    told = _invoke(runs, "profile", "--json", "--unclassified")
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    assert {f"{c} → {t}" for c, t in PLANTED.items()} <= set(found["suspicions"]["ubs"])
    settled = json.loads(_invoke(runs, "profile", "--json", "--override", _columns_only(tmp_path)).stdout)
    assert not {s.split(" ")[0] for s in settled["suspicions"]["ubs"]} & PLANTED.keys()
    assert len(settled["tables"]) > 1100


def _columns_only(folder: Path) -> Path:
    path = folder / "columns.toml"
    path.write_text("[[reference]]" + DECLARED.read_text().split("[[reference]]", 1)[1])
    return path


def _invoke(runs: Path, task: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", task, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "HOMOLOG_RUNS": str(runs), "HOMOLOG_LANG": "en"}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def test_mistakes_are_told_before_anything_is_made(
    samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong override file makes no run; a run without a plan says why there is nothing to show."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[rule]]\ntables = ["tb_x"]\n')
    with pytest.raises(ConfigError) as caught:
        Options.parse(central=str(samples[0]), sources=[f"ubs={samples[1]}"], server="embedded", overrides=(wrong,))
    assert all(d.startswith("wrong.toml: ") for d in caught.value.details)
    assert not (tmp_path / "runs").exists()
    run = Run.create()
    with pytest.raises(ConfigError, match="before it had a plan"):
        profiling.of_run(run, profile.load(), again=False)
    run.unlock()
