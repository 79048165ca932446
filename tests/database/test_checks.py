"""The checks of PEC on real servers: each defect is planted in a synthetic base, and exactly its check answers."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import baseline, catalog, check_run, checks, engine, planner, profile
from merge.checks import State
from merge.errors import ConfigError
from sandbox import intake, restore
from sandbox import source as loading
from sandbox.sample import make_samples
from tests.planted import DUPLICATE, NEW, OLD, PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import psycopg

    from merge.catalog import Catalog
    from merge.checks import Answer, Check
    from merge.plan import Plan
    from sandbox.server import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.slow

CENTRAL, MERGE = "homolog_central", "homolog_merge"
PEC = checks.load("pec")
RECORDS = {check.id for check in PEC if check.record is not None}
TABLE = re.compile(r'\b(public|homolog_base|homolog|src_1)\.("?\w+"?)')


@dataclass
class Bases:
    """One database as a rehearsal has it before the first merge: central, baseline and the rows of one source."""

    server: Server
    database: str
    plan: Plan
    catalog: Catalog
    rows: Mapping[str, int]

    def connect(self) -> Connection:
        """As superuser; triggers and foreign keys do not fire."""
        conn = self.server.connect(self.database)
        conn.execute("SET session_replication_role = replica")
        return conn

    def reader(self) -> Connection:
        """As a role that is not superuser."""
        return self.server.connect(self.database, MERGE)

    def ask(self, where: str = "ubs-a", asked: Sequence[Check] = PEC, *, final: bool = True) -> dict[str, Answer]:
        """All answers of the central or of the source, by id."""
        source = None if where == "central" else "src_1"
        answers = check_run.run_checks(self.reader, asked, source=source, name=where, final=final)
        return {a.id: a for a in answers if a.where != "run"}

    def new(self, asked: Sequence[Check] = PEC) -> dict[str, Answer]:
        """All answers of the merged base, by id."""
        return {a.id: a for a in check_run.new_defects(self.reader, asked, self.plan, [1])}

    @contextmanager
    def planted(self, *statements: str) -> Iterator[None]:
        """A defect, for a while: the rows of the tables that the statements name are put back at the end."""
        tables = sorted({match for statement in statements for match in TABLE.findall(statement)})
        with self.connect() as conn:
            conn.execute("DROP SCHEMA IF EXISTS kept CASCADE; CREATE SCHEMA kept")
            pairs = [
                (sql.Identifier(schema, table.strip('"')), sql.Identifier("kept", f"{number}"))
                for number, (schema, table) in enumerate(tables)
            ]
            for table, kept in pairs:
                conn.execute(sql.SQL("CREATE TABLE {} AS SELECT * FROM {}").format(kept, table))
            try:
                for statement in statements:
                    assert conn.execute(statement.encode()).rowcount != 0, statement
                yield
            finally:
                for table, kept in pairs:
                    conn.execute(sql.SQL("DELETE FROM {}").format(table))
                    conn.execute(sql.SQL("INSERT INTO {} SELECT * FROM {}").format(table, kept))

    @contextmanager
    def altered(self, statement: str, undo: str) -> Iterator[None]:
        """A change of the schema, for a while."""
        with self.connect() as conn:
            conn.execute(statement.encode())
            try:
                yield
            finally:
                conn.execute(undo.encode())


@pytest.fixture(scope="module")
def bases(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bases]:
    """A small clean central with one source."""
    folder: Path = tmp_path_factory.mktemp("checks")
    paths = make_samples(server, folder, scale=0.34, seed=7, sources=1)
    central, source = (intake.inspect(path, work=folder) for path in paths)
    name = "test_checks"
    restore.restore_central(server, central, name, owner=CENTRAL, jobs=2)
    server.create_role(MERGE, member_of=CENTRAL, settings={"session_replication_role": "replica"})
    try:
        with server.connect(name) as conn:
            found = catalog.read(conn, "public")
        plan = planner.make_plan(found, profile.load("pec"))
        with server.connect(name, MERGE) as conn:
            engine.create_schema(conn)
        baseline.make_baseline(lambda: server.connect(name), plan, 2)
        with server.connect(name) as conn:
            baseline.allow_reading(conn, MERGE)
            ranges = baseline.ranges(conn)
        with server.connect(name, MERGE) as conn:
            engine.prepare(conn, plan, found, ranges)
        loaded = loading.load_source(server, source, number=1, target=name, jobs=2)
        yield Bases(server, name, plan, found, loaded.rows)
    finally:
        server.drop_database(name)


@pytest.fixture(scope="module")
def clean(bases: Bases) -> Mapping[str, Mapping[str, Answer]]:
    """What the clean bases answer."""
    return {where: bases.ask(where) for where in ("central", "ubs-a")}


@pytest.fixture(scope="module")
def naturals(bases: Bases) -> frozenset[str]:
    """Every CPF, CNS, login, and name of the bases."""
    values: set[str] = set()
    with bases.connect() as conn:
        for schema in ("public", "src_1"):
            for table, columns in (
                ("tb_cidadao", ("nu_cpf", "nu_cns", "no_cidadao", "no_cidadao_filtro", "no_mae")),
                ("tb_prof", ("nu_cpf", "nu_cns", "no_civil_profissional", "ds_email")),
                ("tb_prof_historico_cns", ("nu_cns",)),
                ("tb_usuario", ("ds_login",)),
            ):
                for column in columns:
                    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(schema, table))
                    values |= {value for (value,) in conn.execute(query) if value}
    assert len(values) > 1000
    return frozenset(values)


def _differing(answers: Mapping[str, Answer], others: Mapping[str, Answer]) -> set[str]:
    return {name for name in answers if answers[name] != others[name]}


@pytest.mark.parametrize("where", ["central", "ubs-a"])
def test_nothing_blocks_or_warns_in_a_clean_sample(clean: Mapping[str, Mapping[str, Answer]], where: str) -> None:
    """Not even if the run is final; and nothing is passed that was not asked."""
    answers = clean[where]
    states = {name: answer.state for name, answer in answers.items()}
    unasked = {"E-07"} if where == "ubs-a" else set()
    for check in PEC:
        if check.kind != "human" and (where != "central" or not (check.same or check.across)):
            expected = State.RECORDED if check.id in RECORDS else State.PASSED
            assert states.pop(check.id) is (State.NOT_AVAILABLE if check.id in unasked else expected), check.id
    assert states == {}
    assert answers["E-16"].details["cidadaos"] == (272 if where == "central" else 102)
    assert answers["C-08"].details["last_write"] == max(
        str(v) for name, v in answers["C-08"].details.items() if name != "last_write"
    )


def test_people_are_asked_once(bases: Bases) -> None:
    asked = [check.id for check in PEC if check.kind == "human"]
    assert len(asked) > 10
    for final, states in ((False, {State.PENDING}), (True, {State.BLOCKED, State.WARNED})):
        answers = check_run.run_checks(bases.reader, PEC, final=final)
        people = [a for a in answers if a.where == "run"]
        assert [a.id for a in people] == asked
        assert {a.state for a in people} == states
    assert not [a for a in check_run.run_checks(bases.reader, PEC, source="src_1", name="a") if a.where == "run"]


@pytest.mark.parametrize(
    ("check", "found", "defect", "records"), PLANTED, ids=[f"{p[0]}-{n}" for n, p in enumerate(PLANTED)]
)
def test_each_defect_is_told_by_its_check(
    bases: Bases,
    clean: Mapping[str, Mapping[str, Answer]],
    naturals: frozenset[str],
    check: str,
    found: int | None,
    defect: str,
    records: tuple[str, ...],
) -> None:
    """By no other, but for what is recorded of the same rows; and no answer holds a natural value."""
    with bases.planted(*defect.split("; ")):
        answers = bases.ask()
        rehearsal = bases.ask(final=False)
    assert _differing(answers, clean["ubs-a"]) == {check, *records}
    declared = next(c for c in PEC if c.id == check)
    assert answers[check].found == found
    assert answers[check].state is declared.state(found, final=True)
    assert answers[check].state in (State.RECORDED, State.WARNED, State.BLOCKED)
    assert rehearsal[check].state is (State.WARNED if declared.kind == "unit" else answers[check].state)
    assert ("keys" in answers[check].details) == (declared.key is not None)
    shown = repr(answers)
    assert [value for value in naturals if value in shown] == []


def test_every_query_of_pec_has_a_planted_defect() -> None:
    others = {"E-05", "E-07"}  # below
    assert {p[0] for p in PLANTED} | others == {check.id for check in PEC if check.kind != "human"}


def test_the_central_is_asked_too(bases: Bases, clean: Mapping[str, Mapping[str, Answer]]) -> None:
    defect = "UPDATE public.tb_atend SET st_atend = 1 WHERE co_seq_atend IN (3, 4)"
    with bases.planted(defect):
        central, source = bases.ask("central"), bases.ask()
    assert _differing(central, clean["central"]) == {"B-11a"}
    assert central["B-11a"].found == 2
    assert source == clean["ubs-a"]


def test_the_baseline_stands_for_the_central(bases: Bases, clean: Mapping[str, Mapping[str, Answer]]) -> None:
    """As it must, for the second source, when the first one's rows are in the central."""
    with bases.planted("UPDATE public.tb_importacao_cnes SET dt_relatorio = '2025-11-01'"):
        answers = check_run.run_checks(
            bases.reader, PEC, central=check_run.BASELINE, source="src_1", name="ubs-a", final=True
        )
    assert {a.id: a for a in answers} == clean["ubs-a"]


def test_lots_of_a_node_that_is_switched_off_do_not_matter(
    bases: Bases, clean: Mapping[str, Mapping[str, Answer]]
) -> None:
    with bases.planted(
        "UPDATE src_1.tb_nodo SET st_ativo = 0 WHERE co_nodo = 3",
        "UPDATE src_1.tb_lote_transp_nodo SET dt_ultima_tentativa = NULL WHERE co_nodo = 3",
        "UPDATE src_1.tb_lote_transp_item_nodo SET st_enviado = 0 WHERE co_nodo = 3",
    ):
        assert bases.ask() == clean["ubs-a"]


def test_missing_on_both_sides_is_not_the_same(bases: Bases, clean: Mapping[str, Mapping[str, Answer]]) -> None:
    """Nothing on either side must not pass for the same date."""
    with bases.planted("DELETE FROM src_1.tb_importacao_cnes", "DELETE FROM public.tb_importacao_cnes"):
        answers = bases.ask()
    assert _differing(answers, clean["ubs-a"]) == {"B-03a"}
    assert answers["B-03a"].state is State.BLOCKED


def test_far_too_few_tables(bases: Bases, clean: Mapping[str, Mapping[str, Answer]]) -> None:
    move = (
        "DO $$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = '{}'"
        " AND tablename ~ '^t[al]_' LOOP EXECUTE format('ALTER TABLE {}.%I SET SCHEMA {}', t); END LOOP; END $$"
    )
    there = "CREATE SCHEMA lost; " + move.format("src_1", "src_1", "lost")
    back = move.format("lost", "lost", "src_1") + "; DROP SCHEMA lost"
    with bases.altered(there, back):
        answers = bases.ask()
    assert _differing(answers, clean["ubs-a"]) == {"E-05"}
    assert answers["E-05"].state is State.WARNED


SEQUENCE = "public.sq_cidadao_coseqcidadao"


@contextmanager
def _sequence_at(bases: Bases, value: int) -> Iterator[None]:
    with bases.connect() as conn:
        (stood,) = conn.execute(f"SELECT last_value FROM {SEQUENCE}").fetchone() or (0,)
    with bases.altered(f"SELECT setval('{SEQUENCE}', {value})", f"SELECT setval('{SEQUENCE}', {stood})"):
        yield


@pytest.mark.parametrize(("value", "behind"), [(1, True), (271, True), (272, False)])
def test_sequences_behind(bases: Bases, clean: Mapping[str, Mapping[str, Answer]], value: int, behind: bool) -> None:
    """The last citizen is number 272."""
    with _sequence_at(bases, value):
        answers = bases.ask("central")
    assert _differing(answers, clean["central"]) == ({"E-07"} if behind else set())
    if behind:
        assert answers["E-07"].details == {"sequences": "sq_cidadao_coseqcidadao", "untold": 48}
        assert answers["E-07"].state is State.WARNED


@pytest.mark.parametrize(
    ("check", "statement", "undo", "details"),
    [
        (
            "B-11b",
            "ALTER TABLE src_1.tb_rascunho_atend_prof RENAME TO gone",
            "ALTER TABLE src_1.gone RENAME TO tb_rascunho_atend_prof",
            {"missing": "tb_rascunho_atend_prof"},
        ),
        (
            "B-14",
            "ALTER TABLE src_1.tb_prof RENAME ds_email TO gone",
            "ALTER TABLE src_1.tb_prof RENAME gone TO ds_email",
            {"missing": "p.ds_email"},
        ),
        (
            "E-12b",
            "ALTER TABLE src_1.tb_tipo_equipe RENAME TO gone",
            "ALTER TABLE src_1.gone RENAME TO tb_tipo_equipe",
            {"missing": "src_1.tb_tipo_equipe"},
        ),
        (
            "B-12",
            "ALTER TABLE src_1.tb_refresh_token ALTER dt_expiracao TYPE text",
            "ALTER TABLE src_1.tb_refresh_token ALTER dt_expiracao TYPE timestamp USING dt_expiracao::timestamp",
            {"sqlstate": "42883"},
        ),
    ],
)
def test_what_is_missing_is_not_available(
    bases: Bases, clean: Mapping[str, Mapping[str, Answer]], check: str, statement: str, undo: str, details: Any
) -> None:
    with bases.altered(statement, undo):
        answers = bases.ask()
    assert _differing(answers, clean["ubs-a"]) == {check}
    assert answers[check].state is State.NOT_AVAILABLE
    assert answers[check].found is None
    assert answers[check].details == details


def _like(check: str, **changes: Any) -> Check:
    return next(c for c in PEC if c.id == check).model_copy(update=changes)


def test_an_error_that_quotes_a_row_is_not_shown(bases: Bases, naturals: frozenset[str]) -> None:
    bad = _like("B-14", query="SELECT count(no_civil_profissional::int) FROM tb_prof")
    answer = bases.ask(asked=[bad])["B-14"]
    assert (answer.state, answer.details) == (State.NOT_AVAILABLE, {"sqlstate": "22P02"})
    assert not any(value in repr(answer) for value in naturals)


def test_a_declaration_cannot_show_natural_values(bases: Bases, naturals: frozenset[str]) -> None:
    """Neither by calling them keys, nor by recording them."""
    keys = _like("E-08a", offenders="SELECT nu_cns FROM tb_prof")
    answer = bases.ask(asked=[keys])["E-08a"]
    assert (answer.found, answer.details) == (16, {})
    with pytest.raises(ConfigError) as caught:
        bases.ask(asked=[_like("B-10", record="SELECT nu_cpf FROM tb_prof LIMIT 1")])
    assert not any(value in str(caught.value) for value in naturals)


def test_checks_cannot_write(bases: Bases) -> None:
    hostile = _like("B-07", query="WITH d AS (DELETE FROM tb_rascunho_atend_prof RETURNING 1) SELECT count(*) FROM d")
    with bases.planted("INSERT INTO src_1.tb_rascunho_atend_prof VALUES (1)"):
        answers = bases.ask(asked=[hostile, _like("B-11b")])
    assert answers["B-07"].details == {"sqlstate": "25006"}
    assert answers["B-11b"].found == 1


# After the merge


@pytest.fixture(scope="module")
def merged(bases: Bases) -> Iterator[Bases]:
    """A copy in which old and new defects were merged."""
    name = "test_checks_merged"
    with bases.server.connect("postgres") as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {bases.database}")
    try:
        copy = replace(bases, database=name)
        with copy.connect() as conn:
            for statement in (*OLD, *NEW):
                assert conn.execute(statement.encode()).rowcount > 0, statement
        with copy.reader() as conn:
            engine.merge_source(conn, copy.plan, copy.catalog, 1, "ubs-a", _recount(copy))
        yield copy
    finally:
        bases.server.drop_database(name)


def _recount(bases: Bases) -> Mapping[str, int]:
    with bases.connect() as conn:
        (count,) = conn.execute("SELECT count(*) FROM src_1.tb_prof_historico_cns").fetchone() or (0,)
    return {**bases.rows, "tb_prof_historico_cns": count}


def test_what_the_merge_made_wrong_is_told_from_what_was(merged: Bases, naturals: frozenset[str]) -> None:
    answers = merged.new()
    assert list(answers) == [c.id for c in PEC if c.offenders or c.builtin]
    found = {name: (a.state, a.found) for name, a in answers.items() if a.found}
    assert found == {"E-09": (State.BLOCKED, 1), "E-13": (State.BLOCKED, 33)}
    assert {a.state for a in answers.values()} == {State.PASSED, State.BLOCKED}
    assert answers["E-09"].details == {}
    with merged.connect() as conn:
        (shift,) = conn.execute(
            "SELECT key_offset FROM homolog.key_domain WHERE domain = 'tb_cds_domicilio.co_seq_cds_domicilio'"
        ).fetchone() or (0,)
    assert shift > 0
    assert answers["E-13"].details == {"keys": ", ".join(str(shift + n) for n in range(1, 6))}
    assert not any(value in repr(answers) for value in naturals)
    # Asked as before the merge, without regard to what was, the old ones show too.
    now = {a.id: a.found for a in check_run.run_checks(merged.reader, PEC) if a.found}
    assert now["E-09"] == 3
    assert now["G-13"] == 2
    assert now["E-13"] == 34


@pytest.mark.parametrize(
    ("check", "defect"),
    [
        ("E-08a", "UPDATE public.tb_atend SET co_prontuario = 999999 WHERE co_seq_atend = 1"),
        ("E-08b", "UPDATE public.tb_prontuario SET co_cidadao = 999999 WHERE co_seq_prontuario = 2"),
        (
            "E-08c",
            "UPDATE public.tb_lotacao SET co_ator_papel = 999999 WHERE co_ator_papel IN"
            " (SELECT max(co_ator_papel) FROM public.tb_lotacao WHERE dt_desativacao_lotacao IS NOT NULL)",
        ),
        ("E-10b", "UPDATE public.tb_prof SET nu_cpf = o.nu_cpf FROM public.tb_prof o"
         " WHERE o.co_seq_prof = 14 AND public.tb_prof.co_seq_prof = 13"),
        # New, while that of the central goes away.
        ("G-13", "UPDATE public.tb_prontuario SET co_prontuario_grupo = co_seq_prontuario WHERE co_seq_prontuario = 22;"
         " UPDATE public.tb_prontuario SET co_prontuario_grupo = 41 WHERE co_seq_prontuario = 42"),
        ("G-13", "UPDATE public.tb_prontuario SET co_prontuario_grupo = 41 WHERE co_seq_prontuario ="
         " (SELECT max(co_seq_prontuario) FROM public.tb_prontuario)"),
    ],
)  # fmt: skip
def test_a_new_defect_is_found(merged: Bases, check: str, defect: str) -> None:
    before = merged.new()
    with merged.planted(*defect.split("; ")):
        answers = merged.new()
    assert _differing(answers, before) == {check}
    assert (answers[check].state, answers[check].found) == (State.BLOCKED, 1)
    assert ("keys" in answers[check].details) == (check != "E-10b")


def test_old_defects_of_matched_rows_are_known_by_their_new_key(merged: Bases) -> None:
    """Where a key is mapped by a table, not by an offset."""
    check = _like("E-08a", key="tb_prof.co_seq_prof", offenders="SELECT co_seq_prof FROM tb_prof WHERE ds_email = 'x'")
    with merged.connect() as conn:
        (key,) = conn.execute("SELECT dst FROM homolog.map_1_tb_prof WHERE src = 11").fetchone() or (0,)
    assert key != 11
    now, before = (
        f"UPDATE public.tb_prof SET ds_email = 'x' WHERE co_seq_prof = {key}",
        "UPDATE src_1.tb_prof SET ds_email = 'x' WHERE co_seq_prof = 11",
    )
    with merged.planted(now):
        new = merged.new([check])["E-08a"]
    with merged.planted(now, before):
        old = merged.new([check])["E-08a"]
    assert (new.state, new.details) == (State.BLOCKED, {"keys": str(key)})
    assert (old.state, old.found) == (State.PASSED, 0)


def test_a_doubled_login_is_found(merged: Bases) -> None:
    before = merged.new()
    with (
        merged.altered(
            "ALTER TABLE public.tb_usuario DROP CONSTRAINT uk_usuario_dslogin",
            "ALTER TABLE public.tb_usuario ADD CONSTRAINT uk_usuario_dslogin UNIQUE (ds_login)",
        ),
        merged.planted(DUPLICATE.format(table="tb_usuario", key="co_seq_usuario", set="ds_login = o.ds_login")
                       .replace("src_1", "public")),
    ):  # fmt: skip
        answers = merged.new()
    assert _differing(answers, before) == {"E-10a"}
    assert (answers["E-10a"].state, answers["E-10a"].found) == (State.BLOCKED, 1)


def test_a_sequence_that_the_merge_left_behind(merged: Bases) -> None:
    """The baseline's stood ahead of its citizens."""
    with _sequence_at(merged, 300):
        answer = merged.new()["E-07"]
        with merged.planted("UPDATE homolog.base_sequence SET last_value = 5 WHERE name = 'sq_cidadao_coseqcidadao'"):
            old = merged.new()["E-07"]
    assert (answer.state, answer.details) == (State.BLOCKED, {"sequences": "sq_cidadao_coseqcidadao"})
    assert (old.state, old.found) == (State.PASSED, 0)
