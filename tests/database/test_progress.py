"""What a database tells of a unification that goes on: growth, states, and a stall; never a word about a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge import profile
from merge.profile import Watch
from sandbox.pec.progress import Growth, StatusLine
from tests.fix_sample import Base

if TYPE_CHECKING:
    from sandbox.server import Server

WATCH = profile.load("pec").watch
CPF = "12345678909"


class Clock:
    """A clock that tests move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def base(server: Server, database: str) -> Base:
    """A citizen table, and status tables with columns that a real PEC might have."""
    base = Base(server, database)
    with base.connect() as conn:
        conn.execute(
            "CREATE TABLE tb_cidadao (co_seq_cidadao bigint PRIMARY KEY, nu_cpf text);"
            "CREATE TABLE tb_unificacao_base (co_seq_unificacao_base bigint PRIMARY KEY, no_instalacao text,"
            "  nu_cpf_responsavel text, st_unificacao varchar(48), tp_erro integer, st_cpf_valido integer,"
            "  dt_solicitacao timestamp, dt_termino timestamptz, dt_nascimento date, ds_link text, st_livre text);"
            "CREATE TABLE tb_pedido_envio_base (co_seq_pedido_envio bigint PRIMARY KEY);"
            "CREATE TABLE tb_cidadao_unificacao_base (co_seq bigint PRIMARY KEY, nu_cpf text, st_documentos int)"
        )
    return base


def _growth(base: Base, clock: Clock, **more: Any) -> Growth:
    return Growth(base.connect, WATCH, clock=clock, **more)


def _add(base: Base, count: int) -> None:
    with base.connect() as conn:
        conn.execute(
            "INSERT INTO tb_cidadao SELECT (SELECT count(*) FROM tb_cidadao) + g, %s FROM generate_series(1, %s) g",
            [CPF, count],
        )


def test_growth_and_stall(base: Base) -> None:
    clock = Clock()
    growth = _growth(base, clock, place=Path("/"))
    first = growth.sample()
    assert first.rows["tb_cidadao"] == 0
    assert first.free is not None
    assert first.free > 0
    assert growth.rates()["tb_cidadao"] == 0
    assert not growth.stalled(0.1)

    _add(base, 3000)
    clock.now += 120
    second = growth.sample()
    assert second.rows["tb_cidadao"] == 3000
    assert second.bytes["tb_cidadao"] > first.bytes["tb_cidadao"]
    assert second.database_bytes > first.database_bytes
    assert growth.rates()["tb_cidadao"] == pytest.approx(1500)

    for _ in range(5):
        clock.now += 120
        growth.sample()
    assert growth.stalled(9)
    assert not growth.stalled(11)
    assert growth.rates(seconds=300)["tb_cidadao"] == 0
    _add(base, 1)
    clock.now += 120
    growth.sample()
    assert not growth.stalled(1)


def test_rows_that_are_not_committed_are_seen_to_come(base: Base) -> None:
    clock = Clock()
    growth = _growth(base, clock)
    growth.sample()
    with base.connect() as conn, conn.transaction(force_rollback=True):
        conn.execute("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        clock.now += 600
        growth.sample()
        assert not growth.stalled(5)


def test_status_tables_are_read_by_their_columns(base: Base) -> None:
    with base.connect() as conn:
        conn.execute(
            "INSERT INTO tb_unificacao_base VALUES"
            " (1, 'UBS MARIA', %(cpf)s, 'UNIFICANDO', 0, 1, '2026-01-01 10:00', NULL, '1980-05-05', 'https://x', 'OK'),"
            " (2, 'UBS MARIA', %(cpf)s, 'UNIFICANDO', 0, 1, '2026-01-03 10:00', NULL, '1980-05-05', 'https://x', 'OK'),"
            " (3, 'UBS MARIA', %(cpf)s, 'falha de Maria', 7, 1, NULL, NULL, NULL, NULL, 'x y')",
            {"cpf": CPF},
        )
        conn.execute("INSERT INTO tb_pedido_envio_base VALUES (1)")
        conn.execute("INSERT INTO tb_cidadao_unificacao_base SELECT g, %s, g %% 2 FROM generate_series(1, 9) g", [CPF])
    status = _growth(base, Clock()).sample().status
    lines: dict[str, list[StatusLine]] = {line.table: [] for line in status}
    for line in status:
        lines[line.table].append(line)
    assert lines["tb_pedido_envio_base"] == [StatusLine("tb_pedido_envio_base", {}, 1)]
    assert [(line.rows, dict(line.state)) for line in lines["tb_cidadao_unificacao_base"]] == [(9, {})]
    going = lines["tb_unificacao_base"][0]
    assert (going.rows, going.first, going.last) == (2, "2026-01-01 10:00:00", "2026-01-03 10:00:00")
    assert dict(going.state) == {"st_unificacao": "UNIFICANDO", "tp_erro": "0", "st_livre": "OK"}
    assert dict(lines["tb_unificacao_base"][1].state) == {"st_unificacao": "?", "tp_erro": "7", "st_livre": "?"}
    for secret in (CPF, "MARIA", "UBS", "https", "1980", "falha"):
        assert secret not in str(status)


def test_status_changes_are_progress(base: Base) -> None:
    clock = Clock()
    with base.connect() as conn:
        conn.execute("INSERT INTO tb_unificacao_base (co_seq_unificacao_base, tp_erro) VALUES (1, 0)")
    growth = _growth(base, clock)
    growth.sample()
    with base.connect() as conn:
        conn.execute("UPDATE tb_unificacao_base SET tp_erro = 1")
    clock.now += 600
    growth.sample()
    assert not growth.stalled(1)


def test_locked_and_absent(base: Base) -> None:
    growth = Growth(base.connect, Watch(growing=("tb_nowhere", "tb_cidadao"), status=("tb_unif*", "tb_x*")))
    with base.connect() as conn, conn.transaction():
        conn.execute("LOCK TABLE tb_unificacao_base IN ACCESS EXCLUSIVE MODE")
        sample = growth.sample()
    assert sample.status == ()
    assert set(sample.rows) == {"tb_cidadao"}
    assert growth.rates() == {"tb_nowhere": 0.0, "tb_cidadao": 0.0}


@pytest.mark.slow
def test_the_sample(filled_central: Base) -> None:
    sample = Growth(filled_central.connect, WATCH).sample()
    assert set(sample.rows) == set(WATCH.growing)
    assert sample.database_bytes > sum(sample.bytes.values()) > 0
