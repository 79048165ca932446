-- Audit. "mirror" copies a table into its tl_ log under revisions of tb_revisao (with a number n: every n-th row).
-- "audit" writes a table's ta_ log: an insertion, further updates up to the given number of versions, and
-- deletions of rows that are no longer there.

-- Revisions and events are spread over the 37 months that the installation has lived, whatever its size.
-- fill tb_revisao bare
SELECT n AS co_seq_revisao, timestamp '2022-10-01' + n * 97000000::bigint / total * interval '1 second' AS dt_revisao,
       1 + n % 12 AS co_usuario,
       'COMPONENTE_' || n % 9 AS ds_componente_gerador, 1 + n % 4 AS tp_registro_afetado,
       (1 + n % 97)::text AS co_registro_afetado, p.cns AS nu_cns, 1 AS st_processo_auditoria_eventos
  FROM (SELECT count(*) * 9 AS total FROM tb_cidadao) x
 CROSS JOIN LATERAL generate_series(1, total) n
  JOIN sample.professional p ON p.id = 1 + n % 12

-- The id of the row that an event is about is text; one in twenty names a row that was deleted since.
-- fill tb_auditoria_evento bare
SELECT n AS co_seq_auditoria_evento,
       timestamp '2022-10-01' + n * 97000000::bigint / (citizens * 24) * interval '1 second' AS dt_evento,
       1 + n % 6 AS tp_evento, 'TELA_' || n % 15 AS ds_componente_gerador, 1 + n % 12 AS co_usuario,
       '{"versao": "5.5.28", "sequencia": ' || n || '}' AS ds_detalhes, 1 + n % 4 AS tp_registro_afetado,
       (1 + sample.h(n, 90) % (citizens + citizens / 20))::text AS co_registro_afetado
  FROM (SELECT count(*) AS citizens FROM tb_cidadao) x, generate_series(1, citizens * 24) n

-- fill tb_auditoria_processo
SELECT n AS "#", n AS co_seq_auditoria_processo, text 'CONCLUIDO' AS st_processo, n AS co_usuario
  FROM generate_series(1, 3) n

-- mirror
-- tl_cds_cidadao_resposta
-- tl_rl_cds_visita_dom_motivo
-- tl_cds_domicilio_resposta
-- tl_cds_visita_domiciliar
-- tl_cds_ficha_visita_domiciliar
-- tl_cds_cad_individual
-- tl_cds_cad_domiciliar
-- tl_cds_domicilio_familia
-- tl_cds_domicilio
-- tl_cds_atend_domiciliar
-- tl_cds_atend_dom_situacao_pres
-- tl_cds_atend_dom_proced
-- tl_cds_atend_individual
-- tl_cds_atend_individual_ciap
-- tl_cds_atend_individual_condut
-- tl_cds_atend_odonto
-- tl_cds_proced
-- tl_proced_cds_proced
-- tl_cds_ativ_col_participante
-- tl_cds_ficha_atend_individual
-- tl_cds_ficha_proced
-- tl_cds_ficha_ativ_col
-- tl_cds_vacina
-- tl_atend
-- tl_atend_prof 2
-- tl_atend_tipo_servico 2
-- tl_atend_proced 4
-- tl_atend_prof_tipo_encam_intrn
-- tl_evolucao_subjetivo 3
-- tl_evolucao_objetivo 3
-- tl_evolucao_avaliacao 3
-- tl_evolucao_plano 3
-- tl_evolucao_avaliacao_ciap_cid 3
-- tl_evolucao_subjetivo_ciap 3
-- tl_medicao
-- tl_exame_requisitado 3
-- tl_problema 3
-- tl_problema_evolucao 3
-- tl_pre_natal
-- tl_alergia
-- tl_vacinacao 2
-- tl_registro_vacinacao 2
-- tl_evolucao_dente 3
-- tl_cidadao
-- tl_cidadao_grupo
-- tl_cidadao_nucleo_familiar
-- tl_prontuario
-- tl_prontuario_grupo_historico
-- tl_familia
-- tl_agendado 3
-- tl_ator
-- tl_ator_papel 2
-- tl_lotacao
-- tl_usuario
-- tl_equipe
-- tl_medicamento
-- tl_cfg_agenda_online_detalhe
-- tl_exame_colesterol_total
-- tl_exame_colesterol_hdl

-- audit
-- ta_atend 4
-- ta_atend_prof 3
-- ta_atend_tipo_servico 2
-- ta_atend_proced
-- ta_atend_prof_conduta
-- ta_evolucao_subjetivo
-- ta_evolucao_objetivo
-- ta_evolucao_plano
-- ta_evolucao_avaliacao
-- ta_evolucao_avaliacao_ciap_cid
-- ta_evolucao_subjetivo_ciap
-- ta_evolucao_plano_ciap
-- ta_receita_medicamento
-- ta_exame_requisitado
-- ta_requisicao_exame
-- ta_medicao
-- ta_problema 3
-- ta_problema_evolucao
-- ta_alergia
-- ta_alergia_evolucao
-- ta_pre_natal 2
-- ta_atend_prof_pre_natal
-- ta_neuro_marco 2
-- ta_neuro_marco_evolucao 2
-- ta_antecedente
-- ta_antecedente_item
-- ta_vacinacao
-- ta_registro_vacinacao
-- ta_atend_prof_odonto
-- ta_evolucao_dente
-- ta_evolucao_odonto
-- ta_odontograma
-- ta_agendado 3
-- ta_cidadao 8
-- ta_cidadao_grupo 5
-- ta_cidadao_vinculacao_equipe 4
-- ta_prontuario
-- ta_prontuario_grupo_historico
-- ta_cds_domicilio 9
-- ta_animais_domicilio
-- ta_medicamento_uso_continuo 2
-- ta_medicamento
-- ta_medicamento_catmat 3
-- ta_usuario 9
-- ta_ator_papel 5
-- ta_lotacao 5
-- ta_prof 3
-- ta_tipo_servico
-- ta_adm_municipal
-- ta_ator_papel_perfil
-- ta_encaminhamento
-- ta_atestado
-- ta_lembrete
-- ta_cuidado_compartilhado
-- ta_ad_cidadao
