"""The inventory of PEC is the sample's schema, and every table of it has a role by a rule that a person can read."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from merge import catalog, coverage, inventory, planner, profile
from merge.errors import ConfigError, CoverageError
from sandbox.inventory import sample_inventory
from sandbox.sample import create_schema
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from merge.catalog import Catalog
    from merge.profile import Profile
    from sandbox.server import Server

DATABASE = "whole_schema"


@pytest.fixture(scope="module")
def whole(server: Server) -> Iterator[Catalog]:
    """The catalog of the whole schema, without rows."""
    server.drop_database(DATABASE)
    server.create_database(DATABASE, ADMIN)
    with server.connect(DATABASE) as conn:
        create_schema(conn)
        found = catalog.read(conn, "public")
    yield found
    server.drop_database(DATABASE)


def test_inventory_is_the_samples_schema(server: Server) -> None:
    shipped = files("merge.profiles").joinpath("pec.inventory").read_text(encoding="utf-8")
    assert shipped == sample_inventory(server), "python -m sandbox.inventory > merge/profiles/pec.inventory"


def test_every_table_has_a_role_by_a_rule(whole: Catalog) -> None:
    """So it has in the inventory, and so it has in the catalog; every rule has its reason in both languages."""
    known = profile.load()
    plan = planner.make_plan(whole, known)
    assert len(plan.tables) == len(known.known) > 1100
    for table in plan:
        rule = known.rule_of(table.name, whole.tables[table.name].primary_key)
        assert rule is not None, table.name
        assert table.role is rule.role
        assert isinstance(rule.reason, profile.Text), table.rule
        assert rule.reason.pt, table.rule
        assert rule.reason.en not in ("", rule.reason.pt), table.rule
    keys = {name: table.primary_key for name, table in whole.tables.items()}
    assert inventory.of_catalog(whole).keys() == known.known.keys() == keys.keys()


@pytest.mark.parametrize(
    "table", ["tb_cidadao", "tb_atend", "rl_atend_proced", "tb_lote_transp_item", "tb_familia", "tb_revisao"]
)
def test_a_table_taken_out_of_the_profile_stops_the_run(server: Server, whole: Catalog, table: str) -> None:
    known = profile.load()
    smaller = known.model_copy(update={"rule": tuple(_without(known, table))})
    plan = planner.make_plan(whole, smaller)
    with server.connect(DATABASE) as conn:
        coverage.check_coverage(conn, plan, whole, smaller, "public", [])  # nothing in it, nothing lost
        with pytest.raises(CoverageError) as caught:
            coverage.check_coverage(conn, plan, whole, smaller, "public", [table, "tb_uf"])
    assert [d for d in caught.value.details if d.endswith(f": {table}")] == list(caught.value.details)
    assert caught.value.exit_code == 4


def _without(known: Profile, table: str) -> Iterator[profile.Rule]:
    for rule in known.rule:
        tables = tuple(t for t in rule.tables if t != table)
        if tables:
            yield rule.model_copy(update={"tables": tables})


def test_a_reference_whose_target_is_not_there_stops_only_where_it_holds_values(server: Server, whole: Catalog) -> None:
    """An older base may lack a table; what refers to it is then undeclared, not silently taken as it is."""
    known = profile.load()
    tables = {n: t for n, t in whole.tables.items() if n != "tb_ad_questao"}
    smaller = catalog.Catalog(whole.schema, whole.server_version, tables)
    plan = planner.make_plan(smaller, known)
    with server.connect(DATABASE) as conn, conn.transaction(force_rollback=True):
        coverage.check_coverage(conn, plan, smaller, known, "public", ["tb_ad_resposta"])
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute("INSERT INTO tb_ad_resposta (co_seq_ad_resposta, co_unico_ad_questao) VALUES (1, 7)")
        with pytest.raises(CoverageError) as caught:
            coverage.check_coverage(conn, plan, smaller, known, "public", ["tb_ad_resposta"])
    assert "tb_ad_resposta.co_unico_ad_questao" in caught.value.details[0]


def test_what_an_override_names_must_be_in_the_database(whole: Catalog, tmp_path: Path) -> None:
    """A name that neither the inventory nor the database has is a slip; it is found with the others, by file."""
    local = tmp_path / "local.toml"
    said = 'reason = "r"\nevidence = "seen"\n'
    local.write_text(
        f'[[rule]]\ntables = ["tb_newer"]\nrole = "event"\n{said}'
        f'[[value]]\ncolumns = ["tb_cidadao.nu_newer", "tb_atend.co_seq_atend", "tb_slip.x"]\n{said}'
        f'[[reference]]\ncolumns = ["tb_cidadao.no_cidadao"]\nto = "tb_prof.co_seq_prof"\n{said}'
    )
    with pytest.raises(ConfigError) as caught:
        planner.make_plan(whole, profile.load("pec", [local]))
    problems = set(caught.value.details)
    assert {
        "local.toml: tb_newer",
        "local.toml: value: tb_cidadao.nu_newer",
        "local.toml: value: tb_slip.x",
    } <= problems
    assert any(p.startswith("tb_atend.co_seq_atend: value") for p in problems)
    assert any(p.startswith("tb_cidadao.no_cidadao → tb_prof.co_seq_prof: character varying") for p in problems)
