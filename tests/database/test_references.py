"""References that nothing declares are found from names and values: planted ones, and all that the profile declares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import catalog, planner, profile
from merge.affinity import Affinity, Names
from merge.references import examine, find_undeclared
from sandbox.sample import PLANTED, create_schema, fill, plant, world
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

    from merge.catalog import Catalog
    from merge.profile import Profile
    from merge.references import Examined
    from sandbox.server import Server

DECLARED = Path(__file__).parents[1] / "planted.toml"
WORLD = world(scale=1.0, seed=3)

NOT_TOLD = {
    "tb_ad_cidadao.co_unico_ad_cidadao_obito": "one value, and the name says more than the key's",
    "tb_ad_resposta.co_unico_ad_questao": "one value; nothing but this reference says that it is a key",
    "tb_receita_medicamento.tp_un_medida_tempo_frequencia": "one value, and the name says more than the key's",
    "tb_dado_transp_recebido_online.tp_dado_transp": "the sample makes up values that the key does not have",
}
"""Declared references of the sample that cannot be told without knowing them."""

SAME_KEY = {"tb_ator_papel.co_seq_ator_papel": "tb_lotacao.co_ator_papel"}
"""An assignment has its role's key: without the declarations, whoever refers to it by that name refers to it."""


@dataclass
class Data:
    """One installation in a database."""

    server: Server
    database: str
    catalog: Catalog
    rows: Mapping[str, int]

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return self.server.connect(self.database)

    def examine(self, known: Profile) -> Examined:
        plan = planner.make_plan(self.catalog, known)
        return examine(self.connect, plan, self.catalog, known, "public", self.rows, 2)


def _made(server: Server, number: int) -> Data:
    database = f"references_{number}"
    server.drop_database(database)
    server.create_database(database, ADMIN)
    with server.connect(database) as conn:
        create_schema(conn)
        fill(conn, WORLD[number], WORLD)
        plant(conn)
        found = catalog.read(conn, "public")
        counts = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, count(*) FROM {}").format(sql.Literal(t), sql.Identifier(t)) for t in found.tables
        )
        return Data(server, database, found, dict(conn.execute(counts).fetchall()))


@pytest.fixture(scope="module", params=[0, 1], ids=["central", "source"])
def data(server: Server, request: pytest.FixtureRequest) -> Iterator[Data]:
    made = _made(server, request.param)
    yield made
    server.drop_database(made.database)


@pytest.fixture(scope="module")
def rules_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The override file of the planted tables without what it says of columns."""
    path = tmp_path_factory.mktemp("override") / "rules.toml"
    path.write_text(DECLARED.read_text().split("[[reference]]")[0])
    return path


def test_all_planted_are_found_and_hardly_anything_else(data: Data, rules_only: Path) -> None:
    examined = data.examine(profile.load("pec", [rules_only]))
    found = {f"{s.table}.{s.column}": s.target for s in examined.suspicions}
    assert {column: target for column, target in found.items() if column in PLANTED} == PLANTED
    assert all(s.moves for s in examined.suspicions if f"{s.table}.{s.column}" in PLANTED)
    assert examined.columns > 1400
    assert len(found.keys() - PLANTED.keys()) < 0.01 * examined.columns, found


def test_declared_are_not_suspected(data: Data) -> None:
    known = profile.load("pec", [DECLARED])
    plan = planner.make_plan(data.catalog, known)
    found = find_undeclared(data.connect, plan, data.catalog, known, "public", data.rows, 1)
    assert not {f"{s.table}.{s.column}" for s in found} & PLANTED.keys()


def test_every_reference_of_the_profile_is_found_without_it(data: Data, rules_only: Path) -> None:
    """With no reference declared, all that are filled are found, and point to the same key."""
    known = profile.load("pec", [rules_only])
    examined = data.examine(known.model_copy(update={"reference": ()}))
    found = {f"{s.table}.{s.column}": s.target for s in examined.suspicions}
    truth = _filled_references(data, known)
    assert len(truth) > 100
    missed = truth.keys() - found.keys()
    assert missed <= NOT_TOLD.keys(), missed
    wrong = {c: found[c] for c in truth.keys() & found.keys() if found[c] not in (truth[c], SAME_KEY.get(truth[c]))}
    assert not wrong
    false = found.keys() - truth.keys() - PLANTED.keys()
    assert len(false) < 0.01 * examined.columns, false


def _filled_references(data: Data, known: Profile) -> dict[str, str]:
    """The declared references without a foreign key of tables that come, in columns with values."""
    plan = planner.make_plan(data.catalog, known)
    tables = {name: [c.name for c in table.columns] for name, table in data.catalog.tables.items()}
    merged = {t.name for t in plan.merged()}
    truth = {}
    with data.connect() as conn:
        for reference in known.reference:
            for table, column in reference.among(tables):
                linked = any(column in key.columns for key in data.catalog.tables[table].foreign_keys)
                query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NOT NULL)").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                if table in merged and not linked and conn.execute(query).fetchone() == (True,):
                    truth[f"{table}.{column}"] = reference.to
    return truth


def test_one_value_outside_the_key_clears_a_column(data: Data, rules_only: Path) -> None:
    """What is found depends on the values, not on the name alone."""
    known = profile.load("pec", [rules_only])
    column = ("tb_encaminhamento", "nu_atnd_prof_orgm")
    change = "UPDATE tb_encaminhamento SET nu_atnd_prof_orgm = {} WHERE co_seq_encaminhamento = 1"
    with data.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(change.format(987654321).encode())
        assert column not in {(s.table, s.column) for s in data.examine(known).suspicions}
        conn.execute(change.format("co_atend_prof").encode())
        assert column in {(s.table, s.column) for s in data.examine(known).suspicions}


@pytest.mark.parametrize(
    ("column", "key", "affinity"),
    [
        ("nu_prontuario", ("prontuario",), Affinity.SAME),
        ("nu_prontuario_origem", ("prontuario",), Affinity.WHOLE),
        ("nu_prntro", ("prontuario",), Affinity.SAME),
        ("nu_atnd_prof", ("atend", "prof"), Affinity.SAME),
        ("co_arquivo_atendprof", ("arquivo", "atend", "prof"), Affinity.PART),
        ("nu_atendprof", ("atend", "prof"), Affinity.SAME),
        ("tp_exame", ("tipo", "exame"), Affinity.SAME),
        ("co_receb_item", ("recebimento", "item"), Affinity.SAME),
        ("nu_dias_fim", ("dsei",), Affinity.NONE),
        ("nu_cidadao", ("cidadao", "vinculacao", "equipe"), Affinity.NONE),
        ("co_responsavel", ("lotacao", "responsavel"), Affinity.PART),
    ],
)
def test_names(column: str, key: tuple[str, ...], affinity: Affinity) -> None:
    known = {(f"tb_{name}", f"co_seq_{name}"): [f"co_{name}"] for name in ("a", "b", "c", "d")}
    assert Names([f"tb_{name}" for name in "abcd"], known).compare(column, key)[0] is affinity
