"""Defects, as SQL that makes them in a clean sample: ``src_1`` is the source, ``public`` the central."""

from __future__ import annotations

DUPLICATE = "UPDATE src_1.{table} SET {set} FROM src_1.{table} o WHERE o.{key} = 12 AND {table}.{key} = 11"

# Check, how many offenders it finds (None if it only records), statements, and what is recorded otherwise.
PLANTED: list[tuple[str, int | None, str, tuple[str, ...]]] = [
    ("A-12", 2, "UPDATE src_1.tb_adm_municipal SET co_localidade = 2", ()),
    (
        "B-01a",
        2,
        "UPDATE src_1.tb_config_sistema SET ds_texto = '5.5.27' WHERE co_config_sistema = 'VERSAOBANCODADOS'",
        (),
    ),
    ("B-01b", 1, "DELETE FROM src_1.tb_migracao WHERE orderexecuted = 400", ()),
    ("B-01c", 1, 'UPDATE src_1."TB_MIGRACAO_DADOS" SET success = false WHERE installed_rank = 5', ()),
    ("B-03a", 2, "UPDATE src_1.tb_importacao_cnes SET dt_relatorio = dt_relatorio - interval '2 days'", ()),
    ("B-03b", 1, "UPDATE src_1.tb_processo SET st_processo = 'ERRO' WHERE co_seq_processo = 3", ()),
    ("B-04", None, "UPDATE src_1.tb_sessao_sincronizacao SET dt_fim = '2025-11-20'", ("B-04",)),
    ("B-05a", 2, "DELETE FROM src_1.tb_lote_transp_item WHERE co_seq_lote_transp_item IN (5, 6)", ()),
    (
        "B-05b",
        1,
        "UPDATE src_1.tb_lote_transp_nodo SET dt_ultima_tentativa = NULL WHERE co_seq_lote_transp_nodo = 1",
        (),
    ),
    (
        "B-05b",
        2,
        "UPDATE src_1.tb_situacao_lote_transp_nodo SET no_situacao_lote_transp_nodo = 'Não enviado'"
        " WHERE co_situacao_lote_transp_nodo = 1",
        (),
    ),
    (
        "B-05c",
        1,
        "UPDATE src_1.tb_lote_transp_item_nodo SET st_enviado = 0 WHERE co_seq_lote_transp_item_nodo = 1",
        (),
    ),
    (
        "B-06a",
        1,
        "UPDATE src_1.tb_relatorio_processamento SET dt_processamento = NULL WHERE co_seq_relatorio_processamento = 4",
        (),
    ),
    ("B-06b", 1, "UPDATE src_1.tb_relatorio_processamento SET st_reprocessar = 1 WHERE co_dado_transp = 4", ()),
    ("B-06b", 1, "UPDATE src_1.tb_relatorio_processamento SET ds_mensagem_erro = 'x' WHERE co_dado_transp = 4", ()),
    ("B-07", 1, "UPDATE src_1.tb_dado_transp_recebido SET dt_processamento = NULL WHERE co_dado_transp = 4", ()),
    ("B-08", 1, "UPDATE src_1.tb_cidadao_vinculacao_equipe SET st_envio = 1 WHERE co_cidadao = 10", ()),
    ("B-09", 1, "INSERT INTO src_1.tb_ativacao_agendamento_online VALUES (99, 1, '2025-10-30', 1)", ()),
    ("B-10", None, "DELETE FROM src_1.tb_registro_vacinacao WHERE co_seq_registro_vacinacao = 1", ("B-10",)),
    ("B-11a", 1, "UPDATE src_1.tb_atend SET st_atend = 3 WHERE co_seq_atend = 1", ()),
    ("B-11a", 1, "UPDATE src_1.tb_atend SET st_atend = 1 WHERE co_seq_atend = 1", ()),
    ("B-11b", 1, "INSERT INTO src_1.tb_rascunho_atend_prof VALUES (1)", ()),
    (
        "B-12",
        1,
        "UPDATE src_1.tb_refresh_token SET dt_expiracao = now() + interval '1 day' WHERE co_token IN"
        " (SELECT min(co_token) FROM src_1.tb_refresh_token)",
        (),
    ),
    (
        "B-13",
        1,
        DUPLICATE.format(
            table="tb_cidadao",
            key="co_seq_cidadao",
            set="no_cidadao_filtro = o.no_cidadao_filtro, no_mae_filtro = o.no_mae_filtro,"
            " dt_nascimento = o.dt_nascimento",
        ),
        (),
    ),
    ("B-14", 1, "UPDATE src_1.tb_prof SET ds_email = ' ' WHERE co_seq_prof = 11", ()),
    ("C-08", None, "UPDATE src_1.tb_revisao SET dt_revisao = '2025-11-20' WHERE co_seq_revisao = 1", ("C-08",)),
    ("C-09", None, "DELETE FROM src_1.rl_arquivo_atendprof WHERE co_seq_arquivo_atendprof = 2", ("C-09",)),
    ("E-03a", 1, "UPDATE src_1.tb_migracao_trava SET locked = true", ()),
    (
        "E-03b",
        1,
        'INSERT INTO src_1."TB_MIGRACAO_DADOS" SELECT 61, version, description, type, script, checksum, installed_by,'
        ' installed_on, execution_time, false FROM src_1."TB_MIGRACAO_DADOS" WHERE installed_rank = 60',
        (),
    ),
    (
        "E-04",
        1,
        "DELETE FROM src_1.tb_atend; DELETE FROM src_1.tb_cds_cad_individual;"
        " DELETE FROM src_1.tb_cds_ficha_visita_domiciliar",
        ("C-08", "E-16"),
    ),
    ("E-08a", 1, "UPDATE src_1.tb_atend SET co_prontuario = 999999 WHERE co_seq_atend = 1", ()),
    ("E-08b", 1, "UPDATE src_1.tb_prontuario SET co_cidadao = 999999 WHERE co_seq_prontuario = 2", ()),
    (
        "E-08c",
        1,
        "UPDATE src_1.tb_lotacao SET co_ator_papel = 999999 WHERE co_ator_papel IN"
        " (SELECT min(co_ator_papel) FROM src_1.tb_lotacao WHERE dt_desativacao_lotacao IS NOT NULL)",
        (),
    ),
    (
        "E-09",
        1,
        "INSERT INTO src_1.tb_prof_historico_cns (co_seq_prof_historico_cns, co_prof, nu_cns)"
        " SELECT 9999, 11, nu_cns FROM src_1.tb_prof_historico_cns WHERE co_prof = 12",
        (),
    ),
    ("E-10a", 1, DUPLICATE.format(table="tb_usuario", key="co_seq_usuario", set="ds_login = o.ds_login"), ()),
    ("E-10b", 1, DUPLICATE.format(table="tb_prof", key="co_seq_prof", set="nu_cpf = o.nu_cpf"), ()),
    (
        "E-11a",
        1,
        "UPDATE src_1.tb_cidadao SET nu_cpf = '00000000191' WHERE co_seq_cidadao IN (11, 12)",
        (),
    ),
    ("E-11b", 1, "UPDATE src_1.tb_cidadao SET nu_cns = '898000000000000' WHERE co_seq_cidadao IN (11, 12)", ()),
    (
        "E-12a",
        1,
        "UPDATE src_1.tb_unidade_saude SET tp_unidade_saude = (SELECT min(co_seq_tipo_unidade_saude) FROM"
        " src_1.tb_tipo_unidade_saude WHERE co_seq_tipo_unidade_saude IS DISTINCT FROM tp_unidade_saude)"
        " WHERE co_seq_unidade_saude = 1",
        (),
    ),
    ("E-12a", 1, "UPDATE src_1.tb_unidade_saude SET st_ativo = 0 WHERE nu_cnes = '9900001'", ()),
    ("E-12b", 1, "UPDATE src_1.tb_equipe SET st_ativo = 0 WHERE co_seq_equipe = 1", ()),
    ("E-13", 34, "UPDATE src_1.tb_lotacao SET dt_desativacao_lotacao = '2025-10-01'", ()),
    ("E-13", 34, "UPDATE src_1.tb_cds_domicilio SET nu_cbo_2002 = '999999'", ()),
    (
        "E-14",
        102,
        "UPDATE src_1.tb_cidadao SET co_unico_cidadao = c.co_unico_cidadao FROM public.tb_cidadao c"
        " WHERE c.co_seq_cidadao = src_1.tb_cidadao.co_seq_cidadao",
        (),
    ),
    ("E-16", None, "UPDATE src_1.tb_prontuario SET co_cidadao = NULL WHERE co_cidadao = 18", ("E-16",)),
    ("E-17", None, "DELETE FROM src_1.tb_cfg_agenda WHERE co_seq_config_agenda = 1", ("E-17",)),
    ("E-18", 1, "INSERT INTO src_1.tb_pedido_envio_base VALUES (1)", ()),
    ("E-18", 1, "INSERT INTO src_1.tb_unificacao_base VALUES (1)", ()),
    ("G-13", 1, "UPDATE src_1.tb_prontuario SET co_prontuario_grupo = 2 WHERE co_seq_prontuario = 3", ()),
]

# Wrong on either side before the merge, and so not its doing.
OLD = (
    # In the central: a shared CNS, and a record of two people.
    *(
        statement.format(schema)
        for schema in ("public", "homolog_base")
        for statement in (
            "INSERT INTO {0}.tb_prof_historico_cns (co_seq_prof_historico_cns, co_prof, nu_cns)"
            " SELECT 9001, 11, nu_cns FROM {0}.tb_prof WHERE co_seq_prof = 12",
            "UPDATE {0}.tb_prontuario SET co_prontuario_grupo = 21 WHERE co_seq_prontuario = 22",
        )
    ),
    # In the source: likewise, and a household of nobody's.
    "INSERT INTO src_1.tb_prof_historico_cns (co_seq_prof_historico_cns, co_prof, nu_cns)"
    " SELECT 9002, p.co_seq_prof, '898000000000001' FROM src_1.tb_prof p WHERE p.co_seq_prof IN (11)",
    "INSERT INTO src_1.tb_prof_historico_cns (co_seq_prof_historico_cns, co_prof, nu_cns)"
    " SELECT 9003, p.co_seq_prof, '898000000000001' FROM src_1.tb_prof p WHERE p.co_seq_prof IN (12)",
    "UPDATE src_1.tb_prontuario SET co_prontuario_grupo = 31 WHERE co_seq_prontuario = 32",
    "UPDATE src_1.tb_cds_domicilio SET nu_cns = '898000000000002' WHERE co_seq_cds_domicilio = 7",
)

# Right on either side, and wrong once they are together.
NEW = (
    # A professional of the source has had a CNS that in the central is another one's.
    "INSERT INTO src_1.tb_prof_historico_cns (co_seq_prof_historico_cns, co_prof, nu_cns)"
    " SELECT 9004, 11, c.nu_cns FROM public.tb_prof c WHERE c.nu_cpf NOT IN (SELECT nu_cpf FROM src_1.tb_prof)"
    " AND c.co_seq_prof NOT IN (11, 12) ORDER BY c.co_seq_prof LIMIT 1",
    # The post of those responsible for the source's households is no longer active in the central, which wins.
    *(
        f"UPDATE {schema}.tb_lotacao SET dt_desativacao_lotacao = '2025-10-01' WHERE co_unico_lotacao IN"
        " (SELECT l.co_unico_lotacao FROM src_1.tb_lotacao l JOIN src_1.tb_prof p ON p.co_seq_prof = l.co_prof"
        "   JOIN src_1.tb_cds_domicilio d ON d.nu_cns = p.nu_cns)"
        for schema in ("public", "homolog_base")
    ),
)
