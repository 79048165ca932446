-- CDS fichas of every kind. A citizen is text here (CNS, CPF), a professional is a row of tb_cds_prof. Fichas that came
-- from a source are the same in the central, row by row, under other keys.

-- fill tb_cds_cad_individual
SELECT f.fid AS "#", f.id AS co_seq_cds_cad_individual, f.dt AS dt_cad_individual, f.uuid AS co_unico_ficha,
       f.cds_id AS co_cds_prof_cadastrante, c.name AS no_cidadao, c.name_filter AS no_cidadao_filtro,
       c.mother AS no_mae_cidadao, c.birth::timestamp AS dt_nascimento, f.cns AS nu_cns_cidadao,
       f.cpf AS nu_cpf_cidadao, NULL::text AS no_social_cidadao, NULL::text AS no_pai_cidadao,
       CASE WHEN f.version = 0 THEN 0 ELSE 1 END AS st_versao_atual, f.version AS st_atualizacao,
       u.id AS co_unidade_saude,
       coalesce(o.uuid, f.uuid) AS co_unico_ficha_origem, md5(f.inst || '/' || c.home) AS co_unico_grupo,
       4 AS tp_cds_origem, 1 AS co_municipio, 1 AS co_localidade_origem, text '5.5.28' AS ds_versao_ficha
  FROM sample.ficha f
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = f.i
  JOIN sample.unit u ON u.cnes = f.cnes
  LEFT JOIN sample.ficha o ON f.version > 0 AND o.kind = 2 AND o.inst = f.inst AND o.i = f.i AND o.version = 0
 WHERE f.kind = 2

-- fill tb_cds_cidadao_resposta bare
SELECT (f.id - 1) * 30 + k AS co_seq_cds_cidadao_resposta, f.id AS co_cds_cad_individual,
       q.co_seq_pergunta AS co_pergunta,
       CASE WHEN k % 5 = 0 THEN q.detail END AS co_pergunta_detalhe,
       CASE WHEN k % 7 = 0 THEN 'resposta ' || sample.h(f.fid, k) % 40 END AS ds_resposta,
       CASE WHEN k % 7 > 0 THEN sample.h(f.fid, k) % 2 END AS st_resposta
  FROM sample.ficha f
 CROSS JOIN (SELECT p.co_seq_pergunta, row_number() OVER (ORDER BY p.ds_pergunta COLLATE "C")::int AS k,
       (SELECT min(d.co_pergunta_detalhe) FROM tb_pergunta_detalhe d WHERE d.co_pergunta = p.co_seq_pergunta) AS detail
               FROM tb_pergunta p) q
 WHERE f.kind = 2 AND k <= 30

-- fill tb_cds_cad_domiciliar
SELECT f.fid AS "#", f.id AS co_seq_cds_cad_domiciliar, f.dt AS dt_cad_domiciliar, f.uuid AS co_unico_ficha,
       f.cds_id AS co_cds_prof_cadastrante, 'SINTÉTICA ' || c.home AS no_logradouro, c.home::text AS nu_domicilio,
       u.cnes || '-' || sample.uuid(f.inst * 100000 + c.home, 4) AS co_unico_domicilio, 1 AS st_versao_atual,
       4 AS tp_cds_origem, 1 AS co_municipio, 1 AS co_uf, 1 AS co_localidade_origem, text '5.5.28' AS ds_versao_ficha
  FROM sample.ficha f
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = f.i
  JOIN sample.unit u ON u.inst = f.inst AND u.n = 1
 WHERE f.kind = 3

-- fill tb_cds_domicilio_resposta bare
SELECT (f.id - 1) * 14 + k AS co_seq_cds_domicilio_resposta, f.id AS co_cds_cad_domiciliar,
       q.co_seq_pergunta AS co_pergunta,
       CASE WHEN k % 5 = 0 THEN 'resposta ' || sample.h(f.fid, k) % 40 END AS ds_resposta,
       CASE WHEN k % 5 > 0 THEN sample.h(f.fid, k) % 2 END AS st_resposta
  FROM sample.ficha f
 CROSS JOIN (SELECT p.co_seq_pergunta, row_number() OVER (ORDER BY p.ds_pergunta COLLATE "C" DESC)::int AS k
               FROM tb_pergunta p) q
 WHERE f.kind = 3 AND k <= 14

-- fill tb_cds_domicilio_familia
SELECT f.fid AS "#", f.id AS co_seq_cds_domicilio_familia, f.id AS co_cds_cad_domiciliar, f.cns AS nu_cartao_sus,
       f.cpf AS nu_cpf_cidadao, f.birth::timestamp AS dt_nascimento, 3 AS qt_membros_familia
  FROM sample.ficha f WHERE f.kind = 3

-- fill tb_cds_ficha_visita_domiciliar bare
SELECT f.id AS co_seq_cds_ficha_visita_dom, f.dt AS dt_ficha, 1 AS st_ficha, 4 AS tp_cds_origem,
       f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof, 1 AS co_localidade_origem, text '5.5.28' AS ds_versao_ficha
  FROM sample.ficha f WHERE f.kind = 8

-- fill tb_cds_visita_domiciliar bare
SELECT f.id AS co_seq_cds_visita_domiciliar, f.id AS co_cds_ficha_visita_domiciliar, f.cns AS nu_cartao_sus,
       f.cpf AS nu_cpf_cidadao, f.birth::timestamp AS dt_nascimento, 1 + f.sex AS co_sexo, 1 + f.i % 3 AS co_cds_turno,
       1 + sample.h(f.fid, 50) % 3 AS co_cds_visita_dom_desfecho, 1 AS tp_cds_imovel,
       lpad((f.i % 20)::text, 2, '0') AS nu_micro_area, 0 AS st_fora_area,
       CASE WHEN f.n % 3 = 0 THEN (4000 + sample.h(f.fid, 51) % 6000) / 100.0 END AS nu_peso,
       CASE WHEN f.n % 9 = 0 THEN sample.h(f.fid, 52) % 1000 / 7.0 END AS nu_latitude
  FROM sample.ficha f WHERE f.kind = 8

-- fill rl_cds_visita_dom_motivo bare
SELECT f.id AS co_cds_visita_domiciliar, 1 + (sample.h(f.fid, 53) + k * 5) % 38 AS co_cds_visita_dom_motivo
  FROM sample.ficha f, generate_series(0, 1) k
 WHERE f.kind = 8

-- fill tb_cds_ficha_atend_individual
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_atend_indivdl, f.dt AS dt_ficha, 1 AS st_ficha, 0 AS tp_cds_origem,
       f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof
  FROM sample.ficha f
 WHERE f.kind = 4

-- Only a ficha written here knows a record.
-- fill tb_cds_atend_individual
SELECT f.fid * 6 + k AS "#", (f.id - 1) * 6 + k AS co_seq_cds_atend_individual, f.id AS co_cds_ficha_atend_individual,
       NULL::bigint AS co_prontuario, c.cns AS nu_cartao_sus, c.cpf AS nu_cpf_cidadao,
       c.birth::timestamp AS dt_nascimento, 1 + c.sex AS co_sexo
  FROM sample.ficha f
 CROSS JOIN generate_series(1, 6) k
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = 1 + (f.i + k) % 90
 WHERE f.kind = 4

UPDATE tb_cds_atend_individual a SET co_prontuario = c.record
  FROM sample.ficha f, sample.citizen c
 WHERE f.kind = 4 AND f.mine AND f.id = a.co_cds_ficha_atend_individual
   AND c.inst = f.inst AND c.i = 1 + (f.i + a.co_seq_cds_atend_individual - (f.id - 1) * 6) % 90;

-- fill rl_cds_atend_individual_ciap
SELECT a.co_seq_cds_atend_individual AS "#", a.co_seq_cds_atend_individual AS co_cds_atend_individual,
       c.co_seq_ciap AS co_ciap
  FROM tb_cds_atend_individual a
  JOIN sample.ficha f ON f.kind = 4 AND f.id = a.co_cds_ficha_atend_individual
  JOIN tb_ciap c ON c.ds_ciap = 'PROBLEMA SINTÉTICO ' || 1 + sample.h(f.fid, 54) % 100

-- fill rl_cds_atend_individual_condut
SELECT a.co_seq_cds_atend_individual AS "#", a.co_seq_cds_atend_individual AS co_cds_atend_individual,
       1 + sample.h(f.fid, 55) % 14 AS tp_cds_conduta
  FROM tb_cds_atend_individual a JOIN sample.ficha f ON f.kind = 4 AND f.id = a.co_cds_ficha_atend_individual

-- fill rl_cds_atend_individual_nasf
SELECT a.co_seq_cds_atend_individual AS "#", a.co_seq_cds_atend_individual AS co_cds_atend_individual,
       1 + sample.h(f.fid, 56) % 3 AS tp_cds_atend_nasf
  FROM tb_cds_atend_individual a
  JOIN sample.ficha f ON f.kind = 4 AND f.id = a.co_cds_ficha_atend_individual
 WHERE f.n % 5 = 0

-- fill rl_cds_atend_individual_exame
SELECT a.co_seq_cds_atend_individual AS "#", a.co_seq_cds_atend_individual AS co_cds_atend_individual,
       p.co_seq_proced AS co_exame, text 'S' AS st_solicitado_avaliado
  FROM tb_cds_atend_individual a
  JOIN sample.ficha f ON f.kind = 4 AND f.id = a.co_cds_ficha_atend_individual
  JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || 1 + sample.h(f.fid, 57) % 200
 WHERE f.n % 4 = 0

-- fill rl_cds_ficha_atend_indivdl_prf
SELECT f.fid AS "#", f.id AS co_cds_ficha_atend_individual, f.cds_id AS co_cds_prof
  FROM sample.ficha f
 WHERE f.kind = 4 AND f.n % 8 = 1

-- fill tb_cds_ficha_atend_odonto
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_atend_odonto, f.dt AS dt_ficha, 1 AS st_ficha, 0 AS tp_cds_origem,
       f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof
  FROM sample.ficha f
 WHERE f.kind = 5

-- fill tb_cds_atend_odonto
SELECT f.fid * 8 + k AS "#", (f.id - 1) * 8 + k AS co_seq_cds_atend_odonto, f.id AS co_cds_ficha_atend_odonto,
       c.cns AS nu_cartao_sus, c.cpf AS nu_cpf_cidadao, c.birth::timestamp AS dt_nascimento, 1 + c.sex AS co_sexo
  FROM sample.ficha f
 CROSS JOIN generate_series(1, 8) k
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = 1 + (f.i + k) % 90
 WHERE f.kind = 5

-- fill rl_cds_atend_odont_tip_vig_buc
SELECT a.co_seq_cds_atend_odonto AS "#", a.co_seq_cds_atend_odonto AS co_cds_atend_odonto,
       1 + sample.h(f.fid, 58) % 7 AS tp_cds_vig_saude_bucal
  FROM tb_cds_atend_odonto a
  JOIN sample.ficha f ON f.kind = 5 AND f.id = a.co_cds_ficha_atend_odonto

-- fill rl_cds_atend_odonto_proced
SELECT a.co_seq_cds_atend_odonto AS "#", a.co_seq_cds_atend_odonto AS co_cds_atend_odonto, p.co_seq_proced AS co_proced,
       1 + sample.h(f.fid, 59) % 3 AS qt_atend_odonto_proced
  FROM tb_cds_atend_odonto a
  JOIN sample.ficha f ON f.kind = 5 AND f.id = a.co_cds_ficha_atend_odonto
  JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || 1 + sample.h(f.fid, 60) % 200

-- fill rl_cds_atend_odonto_tipo_cnslt
SELECT a.co_seq_cds_atend_odonto AS "#", a.co_seq_cds_atend_odonto AS co_cds_atend_odonto,
       1 + sample.h(f.fid, 61) % 5 AS tp_consulta_odonto
  FROM tb_cds_atend_odonto a
  JOIN sample.ficha f ON f.kind = 5 AND f.id = a.co_cds_ficha_atend_odonto

-- fill rl_cds_atend_odonto_tipo_encam
SELECT a.co_seq_cds_atend_odonto AS "#", a.co_seq_cds_atend_odonto AS co_cds_atend_odonto,
       1 + sample.h(f.fid, 62) % 19 AS tp_encam_odonto
  FROM tb_cds_atend_odonto a
  JOIN sample.ficha f ON f.kind = 5 AND f.id = a.co_cds_ficha_atend_odonto

-- fill rl_cds_atend_odonto_tipo_fornc
SELECT a.co_seq_cds_atend_odonto AS "#", a.co_seq_cds_atend_odonto AS co_cds_atend_odonto,
       1 + sample.h(f.fid, 63) % 3 AS tp_fornecimento_odonto
  FROM tb_cds_atend_odonto a
  JOIN sample.ficha f ON f.kind = 5 AND f.id = a.co_cds_ficha_atend_odonto

-- fill rl_cds_ficha_atend_odonto_prof
SELECT f.fid AS "#", f.id AS co_cds_ficha_atend_odonto, f.cds_id AS co_cds_prof FROM sample.ficha f WHERE f.kind = 5

-- fill tb_cds_ficha_ativ_col
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_ativ_col, f.dt AS dt_ativ_col, f.uuid AS co_unico_ficha,
       f.cds_id AS co_cds_prof_responsavel, f.cnes AS nu_cnes, 5 AS tp_cds_origem,
       1 + sample.h(f.fid, 64) % 200 AS co_inep_escola
  FROM sample.ficha f WHERE f.kind = 6

-- fill tb_cds_ativ_col_participante
SELECT f.fid * 11 + k AS "#", (f.id - 1) * 11 + k AS co_seq_cds_ativ_col_participnt, f.id AS co_cds_ficha_ativ_col,
       c.cns AS nu_cartao_sus, c.cpf AS nu_cpf_cidadao, c.birth::timestamp AS dt_nascimento, 1 + c.sex AS co_sexo
  FROM sample.ficha f
 CROSS JOIN generate_series(1, 11) k
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = 1 + (f.i + k) % 90
 WHERE f.kind = 6

-- fill rl_cds_ficha_ativ_col_pratica
SELECT f.fid AS "#", f.id AS co_cds_ficha_ativ_col, 1 + sample.h(f.fid, 65) % 32 AS co_cds_ativ_col_pratica
  FROM sample.ficha f
 WHERE f.kind = 6

-- fill rl_cds_ficha_ativ_col_pub_alvo
SELECT f.fid AS "#", f.id AS co_cds_ficha_ativ_col, 1 + (sample.h(f.fid, 66) + k) % 18 AS co_cds_ativ_col_publico_alvo
  FROM sample.ficha f, generate_series(0, 1) k
 WHERE f.kind = 6

-- fill rl_cds_ficha_ativ_col_tema
SELECT f.fid AS "#", f.id AS co_cds_ficha_ativ_col, 1 + sample.h(f.fid, 67) % 7 AS co_cds_ativ_col_tema
  FROM sample.ficha f
 WHERE f.kind = 6 AND f.n % 3 = 0

-- fill rl_cds_ficha_ativ_col_prof
SELECT f.fid AS "#", f.id AS co_cds_ficha_ativ_col, f.cds_id AS co_cds_prof FROM sample.ficha f WHERE f.kind = 6

-- fill tb_cds_ficha_proced
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_proced, f.dt AS dt_ficha, 1 AS st_ficha, 0 AS tp_cds_origem,
       f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof
  FROM sample.ficha f
 WHERE f.kind = 7

-- fill tb_cds_proced
SELECT f.fid * 5 + k AS "#", (f.id - 1) * 5 + k AS co_seq_cds_proced, f.id AS co_cds_ficha_proced,
       c.cns AS nu_cartao_sus, c.cpf AS nu_cpf_cidadao, c.birth::timestamp AS dt_nascimento, 1 + c.sex AS co_sexo
  FROM sample.ficha f
 CROSS JOIN generate_series(1, 5) k
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = 1 + (f.i + k) % 90
 WHERE f.kind = 7

-- fill rl_proced_cds_proced
SELECT d.co_seq_cds_proced AS "#", d.co_seq_cds_proced AS co_cds_proced, p.co_seq_proced AS co_proced
  FROM tb_cds_proced d
  JOIN sample.ficha f ON f.kind = 7 AND f.id = d.co_cds_ficha_proced
  JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || 1 + sample.h(f.fid, 68) % 200

-- fill rl_cds_proced_adm_medicamento
SELECT r.co_cds_proced AS "#", r.co_cds_proced, r.co_proced, 1 + r.co_cds_proced % 6 AS co_cds_adm_medicamento
  FROM rl_proced_cds_proced r
  JOIN tb_cds_proced d ON d.co_seq_cds_proced = r.co_cds_proced
  JOIN sample.ficha f ON f.kind = 7 AND f.id = d.co_cds_ficha_proced
 WHERE f.mine AND f.n > sample.sent((SELECT max(n) FROM sample.ficha x WHERE x.kind = 7 AND x.mine)::int)

-- fill tb_cds_ficha_atend_domiciliar
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_atend_dom, f.dt AS dt_ficha, 1 AS st_ficha, 0 AS tp_cds_origem,
       f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof_principal
  FROM sample.ficha f
 WHERE f.kind = 10

-- fill tb_cds_atend_domiciliar
SELECT f.fid * 5 + k AS "#", (f.id - 1) * 5 + k AS co_seq_cds_atend_domiciliar, f.id AS co_cds_ficha_atend_domiciliar,
       c.cns AS nu_cartao_sus, c.cpf AS nu_cpf_cidadao, c.birth::timestamp AS dt_nascimento, 1 + c.sex AS co_sexo
  FROM sample.ficha f
 CROSS JOIN generate_series(1, 5) k
  JOIN sample.citizen c ON c.inst = f.inst AND c.i = 1 + (f.i + k) % 90
 WHERE f.kind = 10

-- fill rl_cds_atend_dom_situacao_pres
SELECT a.co_seq_cds_atend_domiciliar AS "#", a.co_seq_cds_atend_domiciliar AS co_cds_atend_domiciliar,
       1 + (sample.h(f.fid, 69) + k * 5) % 24 AS co_cds_situacao_presente
  FROM tb_cds_atend_domiciliar a
  JOIN sample.ficha f ON f.kind = 10 AND f.id = a.co_cds_ficha_atend_domiciliar
 CROSS JOIN generate_series(0, 4) k

-- fill rl_cds_atend_dom_proced
SELECT a.co_seq_cds_atend_domiciliar AS "#", a.co_seq_cds_atend_domiciliar AS co_cds_atend_domiciliar,
       p.co_seq_proced AS co_proced
  FROM tb_cds_atend_domiciliar a
  JOIN sample.ficha f ON f.kind = 10 AND f.id = a.co_cds_ficha_atend_domiciliar
 CROSS JOIN generate_series(0, 1) k
  JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || 1 + (sample.h(f.fid, 70) + k) % 200

-- fill tb_cds_aval_elegibilidade
SELECT f.fid AS "#", f.id AS co_seq_cds_aval_elegibilidade, f.uuid AS co_unico_ficha,
       f.cds_id AS co_cds_prof_cadastrante, f.dt AS dt_aval_elegibilidade, f.birth::timestamp AS dt_nascimento,
       f.cns AS nu_cns_cidadao, f.cpf AS nu_cpf_cidadao,
       c.name AS no_cidadao, c.mother AS no_mae_cidadao, NULL::text AS no_social_cidadao, NULL::text AS no_pai_cidadao,
       1 AS tp_cds_origem
  FROM sample.ficha f JOIN sample.citizen c ON c.inst = f.inst AND c.i = f.i WHERE f.kind = 11

-- fill rl_cds_aval_eleg_cds_situc_prs
SELECT f.fid AS "#", f.id AS co_cds_aval_elegibilidade, 1 + k * 7 AS tp_cds_situacao_presente
  FROM sample.ficha f, generate_series(0, 2) k
 WHERE f.kind = 11

-- fill rl_cds_aval_eleg_ad_tipo_inelg
SELECT f.fid AS "#", f.id AS co_cds_aval_elegibilidade, 1 + f.n % 5 AS tp_ad_inelegivel
  FROM sample.ficha f
 WHERE f.kind = 11 AND f.n % 2 = 0

-- fill tb_cds_ficha_consumo_alimentar
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_consumo_alim, f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof,
       f.dt AS dt_ficha, f.cns AS nu_cns_cidadao, f.cpf AS nu_cpf_cidadao, c.name AS no_identificacao_cidadao,
       f.birth::timestamp AS dt_nascimento_cidadao, 1 AS tp_cds_origem,
       CASE WHEN f.mine AND f.n = 2 THEN 1 END AS co_qst_questionario_respondido
  FROM sample.ficha f JOIN sample.citizen c ON c.inst = f.inst AND c.i = f.i WHERE f.kind = 12

-- fill tb_cds_ficha_zika_microcefalia
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_zica_micrcfl, f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof,
       f.dt AS dt_ficha_complementar, f.cns AS nu_cns_cidadao, 1 AS tp_cds_origem
  FROM sample.ficha f
 WHERE f.kind = 13

-- fill tb_cds_ficha_vacinacao
SELECT f.fid AS "#", f.id AS co_seq_cds_ficha_vacinacao, f.uuid AS co_unico_ficha, f.cds_id AS co_cds_prof,
       f.dt AS dt_ficha, 6 AS tp_cds_origem, 0 AS st_cancelado,
       CASE WHEN f.n = 3 THEN (SELECT g.uuid FROM sample.ficha g WHERE g.kind = 14 AND g.inst = f.inst AND g.n = 2)
            END AS co_unico_ficha_cancelada
  FROM sample.ficha f WHERE f.kind = 14

-- fill tb_cds_vacinacao
SELECT f.fid AS "#", f.id AS co_seq_cds_vacinacao, f.id AS co_cds_ficha_vacinacao, f.cns AS nu_cartao_sus,
       f.cpf AS nu_cpf_cidadao, f.birth::timestamp AS dt_nascimento, 1 + f.sex AS co_sexo
  FROM sample.ficha f
 WHERE f.kind = 14

-- fill tb_cds_vacina
SELECT f.fid * 2 + k AS "#", (f.id - 1) * 2 + k AS co_seq_cds_vacina, f.id AS co_cds_vacinacao, 'LT' || f.n AS ds_lote,
       'lt' || f.n AS ds_lote_filtro, 1 + sample.h(f.fid, 71) % 108 AS co_grupo_atendimento
  FROM sample.ficha f, generate_series(1, 2) k
 WHERE f.kind = 14

-- fill tb_visita_domiciliar_acs
SELECT f.fid AS "#", row_number() OVER (ORDER BY f.id) AS co_seq_visita_domiciliar_acs,
       f.uuid AS co_unico_visita_domiciliar, f.i AS co_cidadao, f.dt AS dt_visita, 1 + f.n % 3 AS co_tipo_visita
  FROM sample.ficha f
 WHERE f.kind = 8 AND f.mine AND f.n % 4 = 0
