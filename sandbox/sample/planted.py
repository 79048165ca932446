"""References that nothing declares, planted in samples that are to be examined, and what they point to."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

PLANTED = {
    "tb_agendado.nu_prontuario_origem": "tb_prontuario.co_seq_prontuario",
    "tb_atend.id_lotacao_triagem": "tb_ator_papel.co_seq_ator_papel",
    "tb_encaminhamento.nu_atnd_prof_orgm": "tb_atend_prof.co_seq_atend_prof",
    "tb_vacinacao.nu_prntro_acompanhado": "tb_prontuario.co_seq_prontuario",
    "tb_medicao.ds_atend_prof_revisor": "tb_atend_prof.co_seq_atend_prof",
    "tb_cidadao.nu_cidadao_responsavel": "tb_cidadao.co_seq_cidadao",
    "tb_receita_medicamento.nu_problema_tratado": "tb_problema.co_unico_problema",
    "tb_teleconsulta.nu_ciddo": "tb_cidadao.co_seq_cidadao",
    "tb_teleconsulta_anexo.vl_protocolo": "tb_teleconsulta.co_seq_teleconsulta",
    "ta_consulta_remota.nu_teleconsulta": "tb_teleconsulta.co_seq_teleconsulta",
}
"""The column of each planted reference, and the key that it points to."""


def plant(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Add them to a filled installation; autocommit, superuser (no trigger sees it)."""
    conn.execute("SET session_replication_role = replica")
    conn.execute(files(__package__).joinpath("planted.sql").read_bytes())
    conn.execute("RESET session_replication_role")
