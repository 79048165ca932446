-- Care in the PEC: agenda, encounters with SOAP, problems, allergies, measurements, prenatal, exams, prescriptions.

-- One professional's part of an encounter; `role` decides what is in it.
CREATE UNLOGGED TABLE sample.part AS
SELECT f.n AS id, (f.n * 7 + 9) / 10 AS encounter, f.n = 1 OR ((f.n - 1) * 7 + 9) / 10 < (f.n * 7 + 9) / 10 AS first,
       f.fid, f.i, c.record, f.dt, f.uuid, f.cnes,
       l.id AS post, u.id AS unit, t.id AS team, p.id AS prof, p.user_id, c.sex, c.birth, f.cpf, f.cns,
       sample.h(f.fid, 40) % 100 AS role
  FROM sample.ficha f
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = f.i
  JOIN sample.post l ON l.gid = f.post
  JOIN sample.professional p ON p.gid = l.prof
  JOIN sample.unit u ON u.gid = l.unit
  JOIN sample.team t ON t.gid = l.team
 WHERE f.mine AND f.kind = 104;

CREATE INDEX ON sample.part (encounter);

CREATE INDEX ON sample.part (record);

ANALYZE sample.part;

-- fill tb_agendado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.encounter) AS co_seq_agendado, a.dt AS dt_agendado,
       a.dt AS hr_inicial_agendado, 3 AS st_agendado, a.post AS co_lotacao_agendada, a.post AS co_lotacao_criadora,
       a.record AS co_prontuario, sample.uuid(a.fid, 41) AS uuid_agendamento, text 'SINCRONIZADO' AS st_sincronizacao,
       0 AS st_fora_ubs, 1 AS tp_agendamento
  FROM sample.part a WHERE a.first AND a.encounter % 6 = 0

-- fill tb_justificativa_agenda
SELECT g.co_seq_agendado AS "#", row_number() OVER (ORDER BY g.co_seq_agendado) AS co_seq_justificativa_agendamnt,
       g.co_seq_agendado AS co_agendamento, g.co_lotacao_agendada AS co_lotacao_justificativa,
       g.co_lotacao_agendada AS co_responsavel_cancelamento
  FROM tb_agendado g WHERE g.co_seq_agendado % 20 = 0

-- fill tb_agend_compartilhado
SELECT g.co_seq_agendado AS "#", row_number() OVER (ORDER BY g.co_seq_agendado) AS co_seq_agend_compartilhado,
       g.co_seq_agendado AS co_agend_principal
  FROM tb_agendado g
 WHERE g.co_seq_agendado % 40 = 1

-- fill tb_atend
SELECT a.fid AS "#", a.encounter AS co_seq_atend, a.dt AS dt_inicio, a.dt + interval '40 minutes' AS dt_fim,
       4 AS st_atend, CASE WHEN a.encounter % 12 = 0 THEN a.encounter / 6 END AS co_agendado,
       a.record AS co_prontuario, a.unit AS co_unidade_saude, a.id AS co_atend_prof,
       sample.me() * 100000000::bigint + a.encounter AS qt_referencia,
       a.cnes || '-' || sample.uuid(a.fid, 42) AS co_unico_atend, 0 AS st_registro_tardio,
       a.dt AS dt_ultima_alteracao_status, a.team AS co_equipe, a.post AS co_responsavel,
       CASE WHEN a.encounter % 12 = 5 THEN a.post END AS nu_responsavel_anterior
  FROM sample.part a WHERE a.first

-- fill tb_atend_prof
SELECT a.fid AS "#", a.id AS co_seq_atend_prof, a.dt AS dt_inicio, a.dt + interval '20 minutes' AS dt_fim,
       a.encounter AS co_atend,
       CASE WHEN a.first AND a.encounter % 3 = 0 THEN a.encounter / 3 END AS co_atend_prof_tipo_encam_intrn,
       a.post AS co_lotacao, 1 + a.role % 12 AS tp_atend_prof, 2 AS st_atend_prof, 1 AS st_atend_enviado,
       a.uuid AS co_unico_atend_prof, 1 + a.role % 9 AS tp_atend,
       CASE WHEN a.id % 50 = 3 THEN a.post END AS co_lotacao_atend_compartilhado, text '5.5.28' AS ds_versao_ficha,
       0 AS st_cancelado,
       CASE WHEN a.record % 200 = 3 THEN 7000 + a.record END AS co_unico_ad_cidadao
  FROM sample.part a

-- fill tb_atend_prof_tipo_encam_intrn
SELECT a.fid AS "#", a.encounter / 3 AS co_seq_atend_prof_tipo_enc_int, a.encounter AS co_atend, a.post AS co_lotacao,
       1 + a.role % 3 AS tp_encam_interno
  FROM sample.part a
 WHERE a.first AND a.encounter % 3 = 0

-- fill rl_atend_tipo_servico
SELECT a.fid AS "#", a.encounter AS co_atend, sample.local_id(1 + a.role % 19, 20) AS tp_servico
  FROM sample.part a
 WHERE a.first

-- fill tb_evolucao_subjetivo
SELECT a.fid AS "#", a.id AS co_atend_prof, '<p>Relato sintético ' || a.fid || ': sem queixas.</p>' AS ds_subjetivo
  FROM sample.part a
 WHERE a.id % 4 > 0

-- fill tb_evolucao_objetivo
SELECT a.fid AS "#", a.id AS co_atend_prof, '<p>Exame sintético ' || a.fid || '.</p>' AS ds_objetivo
  FROM sample.part a
 WHERE a.id % 4 > 0

-- fill tb_evolucao_avaliacao
SELECT a.fid AS "#", a.id AS co_atend_prof, 'Avaliação sintética ' || a.fid AS ds_avaliacao
  FROM sample.part a
 WHERE a.id % 2 = 0

-- fill tb_evolucao_plano
SELECT a.fid AS "#", a.id AS co_atend_prof, 'Plano sintético ' || a.fid AS ds_plano
  FROM sample.part a
 WHERE a.id % 3 > 0

-- fill rl_evolucao_subjetivo_ciap
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_evolucao_subjetivo_ciap, a.id AS co_atend_prof
  FROM sample.part a
 WHERE a.id % 2 = 0

-- fill rl_evolucao_plano_ciap
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_evolucao_plano_ciap, a.id AS co_atend_prof
  FROM sample.part a
 WHERE a.id % 3 = 0

-- fill rl_atend_proced
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_atend_proced, a.id AS co_atend_prof FROM sample.part a

-- fill rl_atend_prof_conduta
SELECT a.fid AS "#", a.id AS co_atend_prof, 1 + a.role % 14 AS tp_cds_conduta FROM sample.part a WHERE a.id % 3 > 0

-- fill rl_atend_prof_pic
SELECT a.fid AS "#", a.id AS co_atend_prof, 1 + a.role % 8 AS co_cds_pic FROM sample.part a WHERE a.id % 60 = 1

-- fill tb_medicao
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_medicao, a.dt AS dt_medicao, a.id AS co_atend_prof,
       (40 + a.role % 60) || '.' || a.role % 10 AS nu_medicao_peso,
       (130 + a.role % 60)::text AS nu_medicao_altura,
       (100 + a.role % 60) || '/' || (60 + a.role % 40) AS nu_medicao_pressao_arterial
  FROM sample.part a WHERE a.id % 5 < 2

-- Problems: co_unico_problema is a number of its own, neither the key nor a UUID; evolutions name it, not the problem.
-- fill tb_problema
SELECT c.gid AS "#", c.record AS co_seq_problema, f.dt AS dt_registro, c.record AS co_prontuario,
       5000 + 3 * c.record AS co_unico_problema, c.record * 2 AS co_ultimo_problema_evolucao,
       i.co_seq_ciap AS co_ciap, NULL::bigint AS co_cid10
  FROM sample.citizen c
  JOIN (SELECT record, min(dt) AS dt FROM sample.part GROUP BY record) f ON f.record = c.record
  JOIN tb_ciap i ON i.ds_ciap = 'PROBLEMA SINTÉTICO ' || 1 + c.record % 12
 WHERE c.inst = sample.me()

-- fill tb_problema_evolucao
SELECT p.co_seq_problema * 2 + k + sample.me() * 10000000::bigint AS "#",
       p.co_seq_problema * 2 - 1 + k AS co_seq_problema_evolucao, p.co_unico_problema, a.id AS co_atend_prof,
       k * 2 AS co_situacao_problema,
       1 + k AS co_sequencial_evolucao
  FROM tb_problema p
  JOIN (SELECT record, min(id) AS id FROM sample.part GROUP BY record) a ON a.record = p.co_prontuario
 CROSS JOIN generate_series(0, 1) k

-- fill rl_evolucao_avaliacao_ciap_cid
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_evolucao_aval_ciap_cid, a.id AS co_atend_prof,
       CASE WHEN a.id % 3 = 0 THEN 5000 + 3 * a.record END AS co_unico_problema
  FROM sample.part a WHERE a.id % 3 < 2

-- fill tb_alergia
SELECT c.gid AS "#", c.record / 20 AS co_seq_alergia, text 'SUBSTÂNCIA SINTÉTICA' AS no_substancia_especifica,
       text 'substancia sintetica' AS no_substancia_especifica_filtr, c.record AS co_prontuario,
       c.record / 20 AS co_ultima_alergia_evolucao, 900 + c.record / 20 AS co_unico_alergia
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.record % 20 = 0 AND EXISTS (SELECT 1 FROM sample.part a WHERE a.record = c.record)

-- fill tb_alergia_evolucao
SELECT g.co_seq_alergia AS "#", g.co_seq_alergia AS co_seq_alergia_evolucao, g.co_unico_alergia,
       (SELECT min(id) FROM sample.part a WHERE a.record = g.co_prontuario) AS co_atend_prof
  FROM tb_alergia g

-- fill rl_manifest_alergiaevolucao
SELECT g.co_seq_alergia_evolucao AS "#", g.co_seq_alergia_evolucao AS co_alergia_evolucao,
       1 + g.co_seq_alergia_evolucao % 16 AS co_manifestacao_alergia
  FROM tb_alergia_evolucao g

-- fill tb_antecedente
SELECT c.gid AS "#", c.record AS co_prontuario FROM sample.citizen c WHERE c.inst = sample.me() AND c.record % 4 > 0

-- fill rl_antecedente_ciap
SELECT n.co_prontuario AS "#", n.co_prontuario, c.co_seq_ciap AS co_ciap
  FROM tb_antecedente n
  JOIN tb_ciap c ON c.co_ciap = 'T90'
 WHERE n.co_prontuario % 40 = 1

-- fill tb_antecedente_historico
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_antecedente_historico, a.id AS co_atend_prof
  FROM sample.part a
 WHERE a.id % 45 = 0

-- fill tb_antecedente_item
SELECT h.co_seq_antecedente_historico * 4 + k AS "#", h.co_seq_antecedente_historico * 4 - k AS co_seq_antecedente_item,
       h.co_seq_antecedente_historico AS co_antecedente_historico, 1 + k * 5 AS tp_antecedente_item
  FROM tb_antecedente_historico h, generate_series(0, 3) k

-- fill tb_pre_natal
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.record) AS co_seq_pre_natal, c.record AS co_problema,
       c.record AS co_prontuario, 300 + c.record AS co_unico_pre_natal,
       CASE WHEN c.record % 3 = 0 THEN timestamp '2025-05-01' END AS dt_desfecho
  FROM sample.citizen c JOIN tb_problema p ON p.co_seq_problema = c.record
 WHERE c.inst = sample.me() AND c.sex = 0 AND c.record % 8 = 1

-- fill tb_atend_prof_pre_natal
SELECT a.fid AS "#", a.id AS co_atend_prof_pre_natal, n.co_unico_pre_natal
  FROM sample.part a
  JOIN tb_pre_natal n ON n.co_prontuario = a.record
 WHERE a.role % 2 = 0

-- fill tb_exame_prenatal
SELECT n.co_seq_pre_natal AS "#", n.co_seq_pre_natal AS co_seq_exame_prenatal,
       n.co_seq_pre_natal AS co_exame_requisitado
  FROM tb_pre_natal n

-- fill tb_atend_prof_puericultura
SELECT a.fid AS "#", a.id AS co_atend_prof_puericultura, 1 + a.role % 4 AS tp_aleitamento_materno
  FROM sample.part a
 WHERE a.birth > date '2020-01-01'

-- fill tb_neuro_marco_evolucao
SELECT c.gid * 10 + k AS "#", c.record * 3 - k AS co_seq_neuro_marco_evolucao, a.id AS co_atend_prof,
       1 + k * 7 AS co_marco_detalhe, text 'SIM' AS st_avaliado, 60000 + c.record * 3 + k AS co_unico_neuro_marco
  FROM sample.citizen c
  JOIN (SELECT record, min(id) AS id FROM sample.part GROUP BY record) a ON a.record = c.record
 CROSS JOIN generate_series(0, 2) k
 WHERE c.inst = sample.me() AND c.record % 6 = 2

-- fill tb_neuro_marco
SELECT e.co_seq_neuro_marco_evolucao AS "#", e.co_seq_neuro_marco_evolucao AS co_seq_neuro_marco, e.co_marco_detalhe,
       a.record AS co_prontuario, e.co_seq_neuro_marco_evolucao AS co_ultimo_marco_evolucao,
       e.co_unico_neuro_marco AS co_unico_marco
  FROM tb_neuro_marco_evolucao e JOIN sample.part a ON a.id = e.co_atend_prof

-- fill tb_neuro_fator_risco_evolucao
SELECT e.co_seq_neuro_marco_evolucao AS "#",
       row_number() OVER (ORDER BY e.co_atend_prof) AS co_seq_neuro_fator_risco_evol, e.co_atend_prof,
       2 AS co_fator_risco_detalhe, text 'SIM' AS st_avaliado,
       40000 + e.co_atend_prof AS co_unico_neuro_fator_risco
  FROM tb_neuro_marco_evolucao e WHERE e.co_marco_detalhe = 1

-- fill tb_neuro_fator_risco
SELECT e.co_seq_neuro_fator_risco_evol AS "#", e.co_seq_neuro_fator_risco_evol AS co_seq_neuro_fator_risco,
       e.co_fator_risco_detalhe, a.record AS co_prontuario,
       e.co_seq_neuro_fator_risco_evol AS co_ultimo_fator_risco_evolucao,
       e.co_unico_neuro_fator_risco AS co_unico_fator_risco
  FROM tb_neuro_fator_risco_evolucao e JOIN sample.part a ON a.id = e.co_atend_prof

-- fill tb_neuro_alter_fenot_evolucao
SELECT e.co_seq_neuro_marco_evolucao AS "#",
       row_number() OVER (ORDER BY e.co_atend_prof) AS co_seq_neuro_alter_fenot_evol, e.co_atend_prof,
       3 AS co_alter_fenot_detalhe, text 'NAO' AS st_avaliado,
       20000 + e.co_atend_prof AS co_unico_neuro_alter_fenot
  FROM tb_neuro_marco_evolucao e WHERE e.co_marco_detalhe = 8

-- fill tb_neuro_alter_fenot
SELECT e.co_seq_neuro_alter_fenot_evol AS "#", e.co_seq_neuro_alter_fenot_evol AS co_seq_neuro_alter_fenot,
       e.co_alter_fenot_detalhe, a.record AS co_prontuario,
       e.co_seq_neuro_alter_fenot_evol AS co_ultimo_alter_fenot_evolucao,
       e.co_unico_neuro_alter_fenot AS co_unico_alter_fenot
  FROM tb_neuro_alter_fenot_evolucao e JOIN sample.part a ON a.id = e.co_atend_prof

-- fill tb_ad_cidadao
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.record) AS co_seq_ad_cidadao, t.id AS co_equipe,
       c.record AS co_prontuario, 7000 + c.record AS co_unico_ad_cidadao,
       CASE WHEN c.record % 400 = 3 THEN 7000 + c.record END AS co_unico_ad_cidadao_obito
  FROM sample.citizen c JOIN sample.team t ON t.inst = c.inst AND t.unit = c.inst * 100 + 1 AND t.n = 1
 WHERE c.inst = sample.me() AND c.record % 200 = 3

-- fill tb_ad_questao
SELECT a.co_seq_ad_cidadao * 3 + k AS "#", a.co_seq_ad_cidadao * 3 - k AS co_seq_ad_questao,
       a.co_seq_ad_cidadao AS co_ad_cidadao, 800 + a.co_seq_ad_cidadao * 3 - k AS co_unico_ad_questao
  FROM tb_ad_cidadao a, generate_series(0, 2) k

-- fill tb_atend_prof_ad
SELECT a.fid AS "#", a.id AS co_atend_prof_ad FROM sample.part a WHERE a.record % 200 = 3

-- fill tb_ad_resposta
SELECT a.co_atend_prof_ad AS "#", row_number() OVER (ORDER BY a.co_atend_prof_ad) AS co_seq_ad_resposta,
       801 AS co_unico_ad_questao, a.co_atend_prof_ad
  FROM tb_atend_prof_ad a

-- A prescription in fifty is of the medicine that only this installation has.
-- fill tb_receita_medicamento
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_receita_medicamento, 0 AS st_uso_continuo,
       a.id AS co_atend_prof, 1 AS tp_un_medida_tempo_frequencia,
       CASE WHEN a.id % 50 = 0 THEN l.local ELSE sample.local_id(1 + a.role * 2, l.n) END AS co_medicamento
  FROM sample.part a
 CROSS JOIN (SELECT max(co_seq_medicamento) AS local, (SELECT n FROM sample.catalog WHERE name = 'tb_medicamento') AS n
               FROM tb_medicamento) l
 WHERE a.id % 5 < 2

-- fill tb_medicamento_uso_continuo
SELECT min(r.co_seq_receita_medicamento) AS "#",
       row_number() OVER (ORDER BY a.record, r.co_medicamento) AS co_seq_medicament_uso_continuo,
       r.co_medicamento, a.record AS co_prontuario,
       max(r.co_seq_receita_medicamento) AS co_ultima_receita_medicamento
  FROM tb_receita_medicamento r
  JOIN sample.part a ON a.id = r.co_atend_prof
 WHERE r.co_seq_receita_medicamento % 5 = 0
 GROUP BY r.co_medicamento, a.record

-- fill tb_requisicao_exame
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_requisicao_exame, a.dt AS dt_requisicao,
       a.id AS co_atend_prof, 1 + a.role % 3 AS tp_exame
  FROM sample.part a
 WHERE a.id % 16 = 0

-- fill tb_exame_requisitado
SELECT a.fid * 10 + k AS "#", (r.co_seq_requisicao_exame - 1) * 6 + k AS co_seq_exame_requisitado,
       a.id AS co_atend_prof, r.co_seq_requisicao_exame AS co_requisicao_exame, a.record AS co_prontuario,
       CASE WHEN k < 4 THEN a.id END AS co_atend_prof_resultado, a.dt AS dt_solicitacao,
       NULL::bigint AS co_arquivo_atendprof
  FROM tb_requisicao_exame r JOIN sample.part a ON a.id = r.co_atend_prof CROSS JOIN generate_series(1, 6) k

-- fill tb_exame_colesterol_total
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_colesterol_total,
       e.co_seq_exame_requisitado AS co_exame_requisitado,
       (1200 + e.co_seq_exame_requisitado * 7 % 1600) / 8.0 AS vl_colesterol_total
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 6 = 1

-- fill tb_exame_colesterol_hdl
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_colesterol_hdl,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 12 = 2

-- fill tb_exame_colesterol_ldl
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_colesterol_ldl,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 12 = 3

-- fill tb_exame_triglicerideos
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_triglicerideos,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 6 = 4

-- fill tb_exame_creatina_serica
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_creatina_sericia,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 12 = 5

-- fill tb_exame_hemoglobina_glicada
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_hemoglobina_glicd,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 12 = 6

-- fill tb_exame_clearance_creatina
SELECT e.co_seq_exame_requisitado AS "#",
       row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame_clearance_creatn,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 60 = 7

-- fill tb_exame_puericultura
SELECT e.co_seq_exame_requisitado AS "#", row_number() OVER (ORDER BY e.co_seq_exame_requisitado) AS co_seq_exame,
       e.co_seq_exame_requisitado AS co_exame_requisitado
  FROM tb_exame_requisitado e WHERE e.co_seq_exame_requisitado % 60 = 8

-- fill tb_encaminhamento
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_encaminhamento, a.id AS co_atend_prof,
       a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 48 = 1

-- fill tb_guia_encaminhamento
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_encaminhamento, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 480 = 1

-- fill tb_atestado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_atestado, a.id AS co_atend_prof,
       a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 84 = 2

-- fill tb_orientacao
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_orientacao, a.id AS co_atend_prof,
       a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 200 = 3

-- fill tb_proced_solicitado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_proced_solicitado, a.record AS co_prontuario,
       a.post AS co_lotacao_solicitante, a.dt AS dt_solicitacao
  FROM sample.part a
 WHERE a.id % 300 = 3

-- The other cycle: a reminder names its last evolution, the evolution its reminder.
-- fill tb_lembrete
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_lembrete, a.id AS co_atend_prof,
       a.record AS co_prontuario, 1000 + row_number() OVER (ORDER BY a.id) AS co_ultimo_lembrete_evolucao
  FROM sample.part a
 WHERE a.id % 100 = 4

-- fill tb_lembrete_evolucao
SELECT l.co_seq_lembrete AS "#", l.co_ultimo_lembrete_evolucao AS co_seq_lembrete_evolucao,
       l.co_seq_lembrete AS co_lembrete, a.post AS co_lotacao
  FROM tb_lembrete l
  JOIN sample.part a ON a.id = l.co_atend_prof

-- fill tb_cirurgias_internacoes
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_cirurgias_internacoes, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 300 = 5

-- fill tb_cuidado_compartilhado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_cuidado_compartilhado, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 200 = 5

-- fill tb_cuidado_compartilhado_evol
SELECT a.fid * 2 + k AS "#", row_number() OVER (ORDER BY a.id, k) AS co_seq_cuidado_compartlhd_evol,
       (a.id + 195) / 200 AS co_cuidado_compartilhado, a.post AS co_lotacao_executante,
       a.unit AS co_unidade_saude_executante
  FROM sample.part a, generate_series(0, 1) k WHERE a.id % 200 = 5

-- fill tb_ivcf
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_ivcf, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 150 = 6

-- fill tb_ivcf_aplicacao
SELECT v.co_seq_ivcf * 20 + k AS "#", (v.co_seq_ivcf - 1) * 20 + k AS co_seq_ivcfaplicacao, v.co_seq_ivcf AS co_ivcf
  FROM tb_ivcf v, generate_series(1, 20) k

-- fill tb_mchat
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_mchat, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 300 = 7

-- fill tb_mchat_aplicacao
SELECT m.co_seq_mchat * 20 + k AS "#", (m.co_seq_mchat - 1) * 20 + k AS co_seq_mchataplicacao,
       m.co_seq_mchat AS co_mchat
  FROM tb_mchat m, generate_series(1, 20) k

-- fill tb_marcador_consumo_alimentar
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_marcador_consumo_alim, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 100 = 8

-- fill tb_resposta_mca
SELECT m.co_seq_marcador_consumo_alim * 12 + k AS "#", (m.co_seq_marcador_consumo_alim - 1) * 12
           + k AS co_seq_resposta_mca, m.co_seq_marcador_consumo_alim AS co_marcador_consumo_alimentar,
       k AS co_pergunta_mca
  FROM tb_marcador_consumo_alimentar m, generate_series(1, 12) k

-- fill rl_respostamca_opcaomca
SELECT r.co_seq_resposta_mca AS "#", r.co_seq_resposta_mca AS co_seq_respostamca_opcaomca,
       r.co_seq_resposta_mca AS co_resposta_mca, 1 + r.co_seq_resposta_mca % 5 AS co_opcao_mca
  FROM tb_resposta_mca r

-- fill tb_atend_obs
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_atend_obs, a.encounter AS co_atend
  FROM sample.part a
 WHERE a.first AND a.id % 80 = 1

-- fill tb_atend_prof_obs
SELECT a.fid AS "#", a.id AS co_atend_prof_obs, o.co_seq_atend_obs AS co_atend_obs
  FROM sample.part a
  JOIN tb_atend_obs o ON o.co_atend = a.encounter

-- fill rl_atend_obs_responsavel
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_atend_obs_responsavel,
       o.co_seq_atend_obs AS co_atend_obs, a.post AS co_responsavel
  FROM sample.part a
  JOIN tb_atend_obs o ON o.co_atend = a.encounter

-- fill tb_atend_obs_plano_cuidado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_atend_obs_plano_cuidado, a.id AS co_atend_prof_obs
  FROM sample.part a
  JOIN tb_atend_obs o ON o.co_atend = a.encounter

-- fill tb_sinan_notificacao_evolucao
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_sinan_notificacao_evol, a.id AS co_atend_prof,
       a.record AS co_prontuario, 1 + a.role AS co_sinan_notificacao
  FROM sample.part a
 WHERE a.id % 400 = 9

-- fill tb_qst_questionario_respondido
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_qst_qst_respondido, a.id AS co_atend_prof
  FROM sample.part a
 WHERE a.id % 300 = 10

-- fill tb_qst_resposta
SELECT q.co_seq_qst_qst_respondido * 10 + k AS "#", (q.co_seq_qst_qst_respondido - 1) * 10 + k AS co_seq_qst_resposta,
       q.co_seq_qst_qst_respondido AS co_qst_questionario_respondido
  FROM tb_qst_questionario_respondido q, generate_series(1, 10) k

-- fill rl_qst_resposta_opcao_pergunta
SELECT r.co_seq_qst_resposta AS "#", r.co_seq_qst_resposta AS co_qst_resposta,
       1 + r.co_seq_qst_resposta % 122 AS co_qst_opcao_pergunta
  FROM tb_qst_resposta r
 WHERE r.co_seq_qst_resposta % 3 = 0

-- fill tb_tecido_mole
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_tecido_mole, a.record AS co_prontuario
  FROM sample.part a
 WHERE a.id % 300 = 11

-- fill rl_tecido_mole_lesao
SELECT t.co_seq_tecido_mole AS "#", t.co_seq_tecido_mole AS co_seq_rl_tecido_mole_lesao,
       t.co_seq_tecido_mole AS co_tecido_mole
  FROM tb_tecido_mole t

-- fill tb_retificacao_atend
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_retificacao_atend,
       convert_to('{"ficha": "' || a.uuid || '"}', 'UTF8') AS bl_conteudo_atendimento, a.uuid AS co_unico_atend_prof,
       a.post AS co_lotacao, a.record AS co_prontuario
  FROM sample.part a WHERE a.id % 200 = 12

-- fill tb_justificativa_prontuario
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_justificativa_prontuar, a.dt AS dt_acesso_prontuario,
       text 'Atendimento' AS ds_justificativa, a.post AS co_lotacao, a.record AS co_prontuario, a.user_id AS co_usuario
  FROM sample.part a WHERE a.id % 3 = 0

-- fill tb_historico_acesso
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_hist_acesso, a.user_id AS co_usuario,
       text '127.0.0.1' AS co_ip
  FROM sample.part a
 WHERE a.id % 7 = 0

-- Switched on and off by turns, and off at last.
-- fill tb_ativacao_agendamento_online
SELECT e.*, timestamp '2025-01-31 08:00' + e.co_seq_ativacao_agendamento_on * interval '1 hour' AS dt_evento,
       (count(*) OVER () - e.co_seq_ativacao_agendamento_on) % 2 AS st_ativado
  FROM (SELECT p.gid AS "#", row_number() OVER (ORDER BY p.gid) AS co_seq_ativacao_agendamento_on, p.id AS co_prof
          FROM sample.professional p
         WHERE p.gid % 5 = 1) e

-- Attachments: the content is a large object. Its OIDs are small and equal in all installations, as after a restore;
-- the last one names nothing (an object that was lost).
DO $$
BEGIN
    FOR n IN 1 .. greatest(4, (SELECT count(*) / 100 FROM tb_atend_prof)::int) LOOP
        PERFORM lo_from_bytea(20000 + n,
            convert_to('anexo sintético ' || sample.me() || '/' || n, 'UTF8')
                || decode(repeat(md5(n || '/' || sample.me()), n % 7 * 120), 'hex'));
    END LOOP;
END $$;

-- fill tb_arquivo
SELECT n AS "#", n AS co_seq_arquivo, 'anexo-' || n || '.pdf' AS no_arquivo, (20000 + n)::oid AS oi_conteudo,
       text 'application/pdf' AS ds_tipo_mime
  FROM generate_series(1, greatest(4, (SELECT count(*) / 100 FROM tb_atend_prof)) + 1) n

-- fill rl_arquivo_atendprof
SELECT f.co_seq_arquivo AS "#", f.co_seq_arquivo AS co_seq_arquivo_atendprof, f.co_seq_arquivo AS co_arquivo
  FROM tb_arquivo f
 WHERE f.co_seq_arquivo > 1

UPDATE tb_exame_requisitado e SET co_arquivo_atendprof = r.co_seq_arquivo_atendprof
  FROM rl_arquivo_atendprof r
 WHERE e.co_seq_exame_requisitado = r.co_seq_arquivo_atendprof * 3;
