"""What comes of a synthetic PEC installation, in scope vendor and in scope all, and what its people are handed over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from merge import catalog, planner, profile, scopes
from sandbox import homolog
from sandbox.options import Options
from sandbox.rehearsal import DATABASE
from sandbox.runs import Run
from sandbox.sample.fill import create_schema, fill
from sandbox.sample.make import DUMP_OPTIONS
from sandbox.sample.overlap import world
from tests.renumber import forget, renumber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server import Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = Path(f"/var/tmp/homolog-scope-{os.getpid()}")

PLANTS = {
    # Every other professional of the central is another one than that of the source.
    "central": """
        UPDATE tb_usuario u SET ds_login = '7' || lpad(co_seq_usuario::text, 10, '0')
          FROM tb_prof p WHERE p.co_usuario = u.co_seq_usuario AND co_seq_prof % 2 = 0;
        UPDATE tb_lotacao SET co_unico_lotacao = md5('other' || co_unico_lotacao) WHERE co_prof % 2 = 0;
        UPDATE tb_prof SET nu_cpf = '7' || lpad(co_seq_prof::text, 10, '0'),
               nu_cns = '7' || lpad(co_seq_prof::text, 14, '0')
         WHERE co_seq_prof % 2 = 0;
        UPDATE tb_prof_historico_cns h SET nu_cns = p.nu_cns FROM tb_prof p WHERE p.co_seq_prof = h.co_prof;
    """,
    "ubs": """
        UPDATE tb_cidadao_vinculacao_equipe SET co_lotacao_cadastrante_pec = NULL WHERE co_cidadao % 4 = 0;
        UPDATE tb_agendado SET dt_agendado = current_date + 30 WHERE co_seq_agendado % 5 = 0;
        UPDATE tb_config_agenda_fechamento SET dt_fim = current_date + 20;
        INSERT INTO tb_periodo_ausencia VALUES (1);
        UPDATE tb_prof SET ds_email = NULL WHERE co_seq_prof % 3 = 0;
    """,
}

# Written once more, and otherwise than in the profile.
EXPECTED_CITIZENS = """
    SELECT co_unico_cidadao FROM tb_cidadao WHERE co_seq_cidadao IN (SELECT co_cidadao FROM tb_prontuario UNION
    SELECT co_cidadao FROM tb_cidadao_vinculacao_equipe WHERE co_lotacao_cadastrante_pec > 0)
"""
DEFAULT_PROFILES = """
    SELECT l.co_unico_lotacao, p.no_perfil_padrao FROM tb_lotacao l, rl_ator_papel_perfil r, tb_perfil p
     WHERE r.co_ator_papel = l.co_ator_papel AND p.co_seq_perfil = r.co_perfil ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Planted:
    """Databases of the central and the source, as they were dumped, and their backups."""

    server: Server
    folder: Path

    def query(self, name: str, query: str) -> set[Any]:
        """What a query gives in one of them."""
        with self.server.connect(f"scope_{name}") as conn:
            return set(conn.execute(query.encode()).fetchall())


@pytest.fixture(scope="module")
def planted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """Small synthetic installations with what the scope must tell apart."""
    folder = tmp_path_factory.mktemp("planted")
    installations = world(0.34, 1, 1)
    for name, installation in zip(PLANTS, installations, strict=True):
        server.create_database(f"scope_{name}", "homolog_admin")
        with server.connect(f"scope_{name}") as conn:
            create_schema(conn)
            fill(conn, installation, installations)
            conn.execute("SET session_replication_role = replica")
            conn.execute(PLANTS[name].encode())
        dump = server.path(folder / f"{name}.backup")
        server.tool("pg_dump", *DUMP_OPTIONS, "--file", dump, database=f"scope_{name}").run()
    yield Planted(server, folder)
    for name in PLANTS:
        server.drop_database(f"scope_{name}")
    shutil.rmtree(DATA, ignore_errors=True)


def _invoke(runs: Path, task: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", task, *arguments],
        cwd=ROOT,
        env={**os.environ, "HOMOLOG_RUNS": str(runs), "HOMOLOG_DATA": str(DATA), "HOMOLOG_LANG": "en"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@dataclass(frozen=True)
class Rehearsed:
    """A run that ended, and what its merged database holds."""

    folder: Path
    result: dict[str, Any]
    dsn: str

    def query(self, query: str) -> set[Any]:
        """What a query gives in the merged database."""
        with psycopg.connect(self.dsn) as conn:
            return set(conn.execute(query.encode()).fetchall())

    def table(self, name: str) -> dict[str, Any]:
        """What became of the source's rows of a table."""
        found: dict[str, Any] = next(t for t in self.result["sources"][0]["tables"] if t["name"] == name)
        return found


def _rehearse(planted: Planted, runs: Path, *arguments: str) -> Iterator[Rehearsed]:
    backups = ("--central", str(planted.folder / "central.backup"), "--source", f"ubs={planted.folder / 'ubs.backup'}")
    try:
        done = _invoke(runs, "homolog", *backups, "--server", "embedded", "--json", *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        handed = _invoke(runs, "handover")
        assert handed.returncode == 0, handed.stderr[-3000:]
        dsn = _invoke(runs, "dsn").stdout.strip().splitlines()[-1]
        (folder,) = runs.glob("2*")
        assert handed.stdout.strip() == str(folder / "handover.html")
        yield Rehearsed(folder, json.loads(done.stdout), dsn)
    finally:
        for folder in runs.glob("2*"):
            _invoke(runs, "destroy", folder.name, "--yes")


@pytest.fixture(scope="module")
def vendor(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """A rehearsal in scope vendor."""
    yield from _rehearse(planted, tmp_path_factory.mktemp("vendor") / "runs", "--scope", "vendor")


@pytest.fixture(scope="module")
def everything(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """A rehearsal in scope all."""
    yield from _rehearse(planted, tmp_path_factory.mktemp("all") / "runs", "--scope", "all")


def _came(run: Rehearsed, planted: Planted, query: str) -> set[Any]:
    return run.query(query) - planted.query("central", query)


def test_the_citizens_that_come_are_those_of_the_vendors_rule(vendor: Rehearsed, planted: Planted) -> None:
    everybody = "SELECT co_unico_cidadao FROM tb_cidadao"
    expected = planted.query("ubs", EXPECTED_CITIZENS)
    assert len(planted.query("ubs", everybody)) - len(expected) > 5
    assert _came(vendor, planted, everybody) == expected
    assert vendor.result["scope"] == "vendor"
    assert vendor.table("tb_cidadao")["dispositions"]["excluded"] == len(planted.query("ubs", everybody)) - len(
        expected
    )


def test_what_belongs_to_citizens_comes_with_them(vendor: Rehearsed, planted: Planted) -> None:
    """Appointments all come; team links come of those who come; nothing names a citizen who is not there."""
    appointments = "SELECT uuid_agendamento FROM tb_agendado"
    assert _came(vendor, planted, appointments) == planted.query("ubs", appointments)
    links = (
        "SELECT v.co_unico_ficha FROM tb_cidadao_vinculacao_equipe v"
        " JOIN tb_cidadao c ON c.co_seq_cidadao = v.co_cidadao"
    )
    coming = planted.query("ubs", f"{links} WHERE c.co_unico_cidadao IN ({EXPECTED_CITIZENS})")
    assert _came(vendor, planted, links) == coming
    assert vendor.table("tb_cidadao_vinculacao_equipe")["dispositions"]["excluded"] > 0
    for name in ("tb_cidadao_nucleo_familiar", "tb_visita_domiciliar_acs", "tb_cidadao_grupo"):
        assert vendor.table(name)["left_out"].keys() == {"belongs"}, name
    gone = planted.query(
        "ubs",
        "SELECT count(*) FROM ta_cidadao WHERE co_seq_cidadao IN (SELECT co_seq_cidadao FROM tb_cidadao"
        f" WHERE co_unico_cidadao NOT IN ({EXPECTED_CITIZENS}))",
    )
    assert {(vendor.table("ta_cidadao")["dispositions"]["excluded"],)} == gone


def test_assignments_get_the_default_profile_of_their_occupation(vendor: Rehearsed, planted: Planted) -> None:
    new = _came(vendor, planted, "SELECT co_unico_lotacao FROM tb_lotacao")
    assert len(new) >= 2
    wanted = planted.query(
        "ubs",
        "SELECT co_unico_lotacao, no_perfil_padrao FROM tb_lotacao JOIN rl_perfil_cbo_padrao USING (co_cbo)",
    )
    came = _came(vendor, planted, DEFAULT_PROFILES)
    assert came == {pair for pair in wanted if pair[:1] in new}
    assert vendor.result["sources"][0]["added"] == {"rl_ator_papel_perfil": len(came)}
    assert not _came(vendor, planted, "SELECT no_perfil FROM tb_perfil")


USERS = "SELECT ds_login, ds_senha, st_forcar_troca_senha FROM tb_usuario"


def test_passwords_of_those_who_come_are_reset(vendor: Rehearsed, everything: Rehearsed, planted: Planted) -> None:
    theirs = {login: secret for login, secret, _ in planted.query("ubs", USERS)}
    for run in (vendor, everything):
        came = _came(run, planted, USERS)
        assert 2 <= len(came) < len(theirs)
        for login, secret, forced in came:
            assert forced == 1
            assert secret == (None if run is vendor else theirs[login])
        assert planted.query("central", USERS) <= run.query(USERS)
        assert len(run.table("tb_usuario")["reasons"]) == 2


AGENDAS = {
    "tb_cfg_agenda_online_detalhe": "uuid_horario_agenda_online",
    "tb_config_agenda_fechamento": "uuid_fechamento",
    "tb_agenda_fixada_ator_papel": "co_seq_ag_fixada_ator_papel",
    "tb_periodo_ausencia": "co_seq_periodo_ausencia",
}


@pytest.mark.parametrize("table", AGENDAS)
def test_agendas_come_in_scope_all_only(vendor: Rehearsed, everything: Rehearsed, planted: Planted, table: str) -> None:
    query = f"SELECT {AGENDAS[table]} FROM {table}"
    assert not _came(vendor, planted, query)
    came, theirs = _came(everything, planted, query), planted.query("ubs", query)
    assert came == theirs if "uuid" in query else len(came) == len(theirs) > 0


def test_everything_of_meaning_comes_in_scope_all(everything: Rehearsed, planted: Planted) -> None:
    everybody = "SELECT co_unico_cidadao FROM tb_cidadao"
    assert _came(everything, planted, everybody) == planted.query("ubs", everybody)
    custom = "SELECT no_perfil FROM tb_perfil WHERE no_perfil_padrao IS NULL"
    assert _came(everything, planted, custom) == planted.query("ubs", custom)
    source = everything.result["sources"][0]
    assert everything.result["scope"] == "all"
    assert source["added"] == {}
    assert everything.table("tb_cfg_agenda")["dispositions"]["excluded"] > 0
    assert not any("belongs" in t["left_out"] for t in source["tables"])


# Handover


def _pack(run: Rehearsed) -> tuple[dict[str, Any], dict[str, Any]]:
    pack = json.loads((run.folder / "handover" / "ubs.json").read_text(encoding="utf-8"))
    return pack, {each["name"]: each["rows"] for each in pack["lists"]}


def test_the_handover_lists_what_must_be_made_again(vendor: Rehearsed, everything: Rehearsed, planted: Planted) -> None:
    pack, lists = _pack(vendor)
    custom = planted.query("ubs", "SELECT co_seq_perfil::text, no_perfil FROM tb_perfil WHERE no_perfil_padrao IS NULL")
    assert {tuple(row[:2]) for row in lists["profiles"]} == custom
    assert all("recurso.12" in row[3] for row in lists["profiles"])
    (hours,) = planted.query("ubs", "SELECT count(*) FROM tb_cfg_agenda_detalhe")
    assert len(lists["agendas"]) == hours[0]
    (future,) = planted.query("ubs", "SELECT count(*) FROM tb_agendado WHERE dt_agendado >= current_date")
    assert sum(int(row[2]) for row in lists["appointments"]) == future[0] > 0
    assert {row[0] for row in lists["without_email"]} <= {
        i for (i,) in planted.query("ubs", "SELECT co_seq_prof::text FROM tb_prof")
    }
    assert lists["without_email"]
    assert lists["closures"]
    (forms,) = planted.query("ubs", "SELECT count(*) FROM tb_dado_transp")
    assert sum(int(row[1]) for row in lists["reports"]) == forms[0] > 0
    assert lists["online_agendas"]
    left_out = {line["table"]: line for line in pack["left_out"]}
    assert left_out["tb_cidadao"]["rows"] == vendor.table("tb_cidadao")["dispositions"]["excluded"]
    assert "does not send them" in left_out["tb_cidadao"]["reason"]
    assert pack["added"] == vendor.result["sources"][0]["added"]
    # In scope all there is less to do.
    pack, lists = _pack(everything)
    assert lists.keys() == {"agendas", "without_email", "appointments", "reports"}
    assert "tb_cidadao" not in {line["table"] for line in pack["left_out"]}


def test_the_handover_names_nobody(vendor: Rehearsed, planted: Planted) -> None:
    html = (vendor.folder / "handover.html").read_text(encoding="utf-8")
    told = html + (vendor.folder / "handover" / "ubs.json").read_text(encoding="utf-8")
    people = planted.query(
        "ubs",
        "SELECT unnest(ARRAY[no_cidadao, no_mae, nu_cpf, nu_cns]) FROM tb_cidadao"
        " UNION SELECT unnest(ARRAY[no_civil_profissional, nu_cpf, nu_cns]) FROM tb_prof",
    )
    assert not [value for (value,) in people if value and value in told]
    HTMLParser().feed(html)
    assert "http" not in html.replace("http-equiv", "")
    assert "PERFIL DA CASA" in html
    assert (vendor.folder / "handover.html").stat().st_mode & 0o077 == 0


# The proof by content


@pytest.mark.parametrize("scope", ["vendor", "everything"])
def test_the_merge_is_proved_by_content_too(scope: str, request: pytest.FixtureRequest) -> None:
    """Of the same rows, without what the engine noted; and said in the report."""
    run: Rehearsed = request.getfixturevalue(scope)
    done = _invoke(run.folder.parent, "prove", "--run", run.folder.name, "--method", "content", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    proof = json.loads(done.stdout)["content_proof"]
    assert proof["differences"] == 0
    assert proof["central_unchanged"]
    assert proof["rows_compared"] > 10_000
    # Audit rows of what changed nothing, and answers to nothing: the sample makes them alike.
    assert 0 < sum(proof["alike"].values()) < proof["rows_compared"] / 50
    assert proof["matched"]["tb_prof (nu_cpf)"] > 0
    assert "rows not told apart" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert "cannot be told apart by content" in done.stderr
    # It needs no keys that the engine chose, and nothing that it noted. (No test after this one asks the database.)
    with homolog.open_server(Run(run.folder)).connect(DATABASE) as conn:
        plan = planner.make_plan(catalog.read(conn, "public"), profile.load(), run.result["scope"])
        assert renumber(conn, plan, 0.3, first=20_000_000) > 1000
        forget(conn)
    again = _invoke(run.folder.parent, "prove", "--run", run.folder.name, "--method", "content", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(again.stdout)["content_proof"]["differences"] == 0


# Options


def test_unknown_scopes_are_refused_before_anything_is_made(planted: Planted, tmp_path: Path) -> None:
    refused = _invoke(tmp_path / "runs", "homolog", "--server", "embedded", "--scope", "some")
    assert refused.returncode == 2
    assert "--scope vendor" in refused.stderr
    assert not (tmp_path / "runs").exists()
    early = _invoke(tmp_path / "runs", "handover")
    assert early.returncode == 2
    guessed = _invoke(tmp_path / "runs", "prove", "--method", "guess")
    assert guessed.returncode == 2
    assert "--method content" in guessed.stderr


def test_passwords_can_be_kept() -> None:
    asked = Options.parse(central="", sources=[], keep_passwords=True, scope="vendor")
    found = scopes.find_scope(profile.load(asked.profile), asked.scope, asked.keep)
    assert found is not None
    assert asked.keep == {"passwords"}
