-- The warehouse: dimensions and facts that PEC computes from the fichas, and the timeline cache. All keys are local.

-- rows
-- tb_dim_pais 20 347
-- tb_dim_uf 28
-- tb_dim_municipio 40 565
-- tb_dim_aldeia 1
-- tb_dim_aleitamento 5
-- tb_dim_forma_farmaceutica 40 73
-- tb_dim_catmat 100 1167
-- tb_dim_cbo 60 590
-- tb_dim_ciap 80 681
-- tb_dim_cid 200 3829
-- tb_dim_classificacao_risc_enc 5
-- tb_dim_condicao_maternal 4
-- tb_dim_conduta_ad 7
-- tb_dim_conduta_cuidado 14
-- tb_dim_cuidador 9
-- tb_dim_desfecho_visita 4
-- tb_dim_dose_frequencia 5
-- tb_dim_dose_frequencia_medida 4
-- tb_dim_dose_imunobiologico 82
-- tb_dim_dsei 1
-- tb_dim_duracao_tratamento_med 5
-- tb_dim_especialidade 60
-- tb_dim_estrategia_vacinacao 15
-- tb_dim_etnia 40 406
-- tb_dim_faixa_etaria 22
-- tb_dim_frequencia_alimentacao 4
-- tb_dim_grau_vulnerabilidade 4
-- tb_dim_grupo_atendimento 34
-- tb_dim_grupo_cbo 60 191
-- tb_dim_identidade_genero 9
-- tb_dim_imunobiologico 40
-- tb_dim_inep 35
-- tb_dim_local_atendimento 20
-- tb_dim_modalidade_ad 5
-- tb_dim_nacionalidade 4
-- tb_dim_pic 9
-- tb_dim_polo_base 1
-- tb_dim_povo_comunidad_trad 4
-- tb_dim_prioridade_cuidado 5
-- tb_dim_procedencia_origem 6
-- tb_dim_procedimento 120 1045
-- tb_dim_raca_cor 6
-- tb_dim_racionalidade_saude 7
-- tb_dim_sexo 4
-- tb_dim_situacao_problema 3
-- tb_dim_situacao_trabalho 11
-- tb_dim_tempo_morador_rua 5
-- tb_dim_tipo_abastecimento_agua 10
-- tb_dim_tipo_acesso_domicilio 5
-- tb_dim_tipo_atendimento 11
-- tb_dim_tipo_atividade 8
-- tb_dim_tipo_condicao_peso 4
-- tb_dim_tipo_consulta_odonto 6
-- tb_dim_tipo_destino_lixo 7
-- tb_dim_tipo_domicilio 7
-- tb_dim_tipo_elegibilidade 4
-- tb_dim_tipo_endereco 4
-- tb_dim_tipo_escoamento_sanitar 7
-- tb_dim_tipo_escolaridade 16
-- tb_dim_tipo_ficha 16
-- tb_dim_tipo_glicemia 5
-- tb_dim_tipo_imovel 14
-- tb_dim_tipo_localizacao 4
-- tb_dim_tipo_logradouro 60 282
-- tb_dim_tipo_material_parede 13
-- tb_dim_tipo_orientacao_sexual 9
-- tb_dim_tipo_origem 8
-- tb_dim_tipo_origem_dado_transp 9
-- tb_dim_tipo_origem_energ_elet 6
-- tb_dim_tipo_parentesco 11
-- tb_dim_tipo_participacao_atend 8
-- tb_dim_tipo_posse_terra 11
-- tb_dim_tipo_renda_familiar 9
-- tb_dim_tipo_saida_cadastro 3
-- tb_dim_tipo_situacao_moradia 10
-- tb_dim_tipo_tratamento_agua 9
-- tb_dim_turno 4
-- tb_dim_via_administracao 29
-- tb_dim_zika_tipo_exame 18
-- tb_etl_auxiliar_number 100 3655

-- Days, and the day that means "never".
-- fill tb_dim_tempo bare
SELECT to_char(d, 'YYYYMMDD')::bigint AS co_seq_dim_tempo, d::date AS dt_registro,
       extract(day FROM d)::smallint AS nu_dia, extract(month FROM d)::smallint AS nu_mes,
       extract(year FROM d)::integer AS nu_ano,
       ('{DOMINGO,SEGUNDA,TERÇA,QUARTA,QUINTA,SEXTA,SÁBADO}'::text[])[1 + extract(dow FROM d)::int] AS ds_dia_semana
  FROM (SELECT generate_series(timestamp '2019-01-01', timestamp '2025-12-31', interval '1 day') AS d
        UNION ALL SELECT timestamp '3000-12-31') t

-- Row 1 of these means "not informed".
-- fill tb_dim_unidade_saude
SELECT u.gid AS "#", u.id + 1 AS co_seq_dim_unidade_saude, u.cnes AS nu_cnes, u.name AS no_unidade_saude
  FROM sample.unit u
 WHERE u.known
UNION ALL SELECT 0, 1, '-', 'NÃO INFORMADO'

-- fill tb_dim_equipe
SELECT t.gid AS "#", t.id + 1 AS co_seq_dim_equipe, t.ine AS nu_ine
  FROM sample.team t
 WHERE t.known
UNION ALL SELECT 0, 1, '-'

-- fill tb_dim_profissional
SELECT p.gid AS "#", p.id + 1 AS co_seq_dim_profissional, p.cns AS nu_cns, p.name AS no_profissional
  FROM sample.professional p
UNION ALL SELECT 0, 1, '-', 'NÃO INFORMADO'

-- fill tb_dim_agrupador_filtro
SELECT p.co_seq_dim_profissional AS "#", p.co_seq_dim_profissional AS co_seq_dim_agrupador_filtro,
       1 AS co_dim_municipio, 2 AS co_dim_unidade_saude, 2 AS co_dim_equipe,
       p.co_seq_dim_profissional AS co_dim_profissional, 2 AS co_dim_cbo
  FROM tb_dim_profissional p

-- fill tb_dim_vinculacao_equipes
SELECT t.gid AS "#", row_number() OVER (ORDER BY t.gid) AS co_seq_dim_vinculacao_equipes,
       t.id + 1 AS co_dim_equipe_principal
  FROM sample.team t
 WHERE t.known AND t.n = 1

CREATE UNLOGGED TABLE sample.fact AS
SELECT f.*, d.id + 1 AS dim_unit, t.id + 1 AS dim_team, p.id + 1 AS dim_prof, to_char(f.dt, 'YYYYMMDD')::bigint AS day,
       CASE f.kind WHEN 104 THEN 4 ELSE f.kind END AS type, CASE WHEN f.mine THEN f.i END AS citizen
  FROM sample.ficha f
  JOIN sample.post l ON l.gid = f.post
  JOIN sample.unit d ON d.gid = l.unit
  JOIN sample.team t ON t.gid = l.team
  JOIN sample.professional p ON p.gid = l.prof;

-- fill tb_fat_cidadao_pec
SELECT c.gid AS "#", c.i AS co_seq_fat_cidadao_pec, c.i AS co_cidadao, c.cns AS nu_cns, c.cpf AS nu_cpf_cidadao,
       c.name AS no_cidadao, to_char(c.birth, 'YYYYMMDD')::bigint AS co_dim_tempo_nascimento, 1 + c.sex AS co_dim_sexo
  FROM sample.citizen c WHERE c.inst = sample.me()

-- fill tb_dim_cidadao_pec_grupo
SELECT c.gid * 3 + k AS "#", (c.i - 1) * 3 + 1 + k AS co_seq_dim_cidadao_pec_grupo, k AS tp_identificacao,
       CASE k WHEN 0 THEN sample.uuid(c.gid, 2) WHEN 1 THEN c.cns ELSE c.cpf END AS co_identificacao,
       c.i AS co_fat_cidadao_pec,
       c.i AS co_cidadao, CASE WHEN c.kind = 'absorbed' THEN c.i - 1 ELSE c.i END AS co_cidadao_master
  FROM sample.citizen c, generate_series(0, 2) k
 WHERE c.inst = sample.me() AND (k = 0 OR (k = 1 AND c.cns IS NOT NULL) OR (k = 2 AND c.cpf IS NOT NULL))

-- fill tb_fat_fichas bare
SELECT f.transport AS co_seq_fat_fichas, f.type AS co_dim_tipo_ficha, 2 AS co_dim_municipio,
       f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe, f.day AS co_dim_tempo, f.uuid AS nu_uuid_ficha,
       f.uuid AS nu_uuid_dado_transp,
       3 AS co_dim_tipo_origem_dado_transp, 4 AS co_dim_cds_tipo_origem
  FROM sample.fact f

-- fill tb_fat_visita_domiciliar bare
SELECT f.id AS co_seq_fat_visita_domiciliar, f.uuid AS nu_uuid_ficha, 8 AS co_dim_tipo_ficha, 2 AS co_dim_municipio,
       f.dim_prof AS co_dim_profissional, 2 AS co_dim_cbo, f.dim_unit AS co_dim_unidade_saude,
       f.dim_team AS co_dim_equipe, f.day AS co_dim_tempo,
       f.cns AS nu_cns, f.birth AS dt_nascimento, 1 + f.sex AS co_dim_sexo, 1 AS st_mot_vis_cad_att
  FROM sample.fact f WHERE f.kind = 8

-- fill tb_fat_cad_individual
SELECT f.fid AS "#", f.id AS co_seq_fat_cad_individual, f.uuid AS nu_uuid_ficha, f.cns AS nu_cns,
       f.dim_prof AS co_dim_profissional, f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe,
       f.day AS co_dim_tempo, 30001231 AS co_dim_tempo_validade,
       30001231 AS co_dim_tempo_validade_recusa, 2 AS co_dim_tipo_ficha, f.birth AS dt_nascimento,
       f.citizen AS co_fat_cidadao_pec
  FROM sample.fact f WHERE f.kind = 2

-- fill tb_fat_cidadao bare
SELECT f.id AS co_seq_fat_cidadao, f.uuid AS nu_uuid_ficha, f.cns AS nu_cns, f.id AS co_fat_cad_individual,
       f.day AS co_dim_tempo, 30001231 AS co_dim_tempo_validade, f.id AS co_fat_cidadao_raiz
  FROM sample.fact f
 WHERE f.kind = 2

-- fill tb_fat_cad_domiciliar
SELECT f.fid AS "#", f.id AS co_seq_fat_cad_domiciliar, f.uuid AS nu_uuid_ficha, f.dim_prof AS co_dim_profissional,
       f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe, f.day AS co_dim_tempo,
       30001231 AS co_dim_tempo_validade, 3 AS co_dim_tipo_ficha
  FROM sample.fact f WHERE f.kind = 3

-- fill tb_fat_cad_dom_familia
SELECT f.fid AS "#", f.id AS co_seq_fat_cad_dom_familia, f.id AS co_fat_cad_domiciliar, f.uuid AS nu_uuid_ficha
  FROM sample.fact f
 WHERE f.kind = 3

-- fill tb_fat_familia bare
SELECT (f.id - 1) * 3 + k AS co_seq_fat_familia, f.id AS co_fat_cad_domiciliar, f.id AS co_fat_cad_dom_familia,
       f.uuid AS nu_uuid_ficha_cd, f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe,
       f.day AS co_dim_tempo, 30001231 AS co_dim_tempo_validade,
       k AS st_registro_valido
  FROM sample.fact f, generate_series(1, 3) k WHERE f.kind = 3

-- fill tb_fat_atendimento_individual
SELECT f.fid AS "#", f.id AS co_seq_fat_atd_ind, f.uuid AS nu_uuid_ficha, f.cns AS nu_cns,
       f.dim_prof AS co_dim_profissional_1, f.dim_unit AS co_dim_unidade_saude_1, f.dim_team AS co_dim_equipe_1,
       f.day AS co_dim_tempo, 4 AS co_dim_tipo_ficha, f.birth AS dt_nascimento,
       f.citizen AS co_fat_cidadao_pec
  FROM sample.fact f WHERE f.kind = 104 AND f.n % 7 < 5

-- fill tb_fat_atd_ind_problemas bare
SELECT f.id AS co_seq_fat_atend_ind_problemas, f.id AS co_fat_atd_ind, 4 AS co_dim_tipo_ficha,
       f.dim_prof AS co_dim_profissional_1, f.dim_unit AS co_dim_unidade_saude_1, f.day AS co_dim_tempo,
       f.uuid AS nu_uuid_ficha, 1 + f.fid % 80 AS co_dim_ciap, 1 + f.fid % 200 AS co_dim_cid,
       f.citizen AS co_fat_cidadao_pec
  FROM sample.fact f WHERE f.kind = 104 AND f.n % 7 < 5

-- fill tb_fat_atd_ind_procedimentos bare
SELECT f.id AS co_seq_fat_atend_ind_proced, f.id AS co_fat_atd_ind, f.day AS co_dim_tempo, f.uuid AS nu_uuid_ficha
  FROM sample.fact f
 WHERE f.kind = 104 AND f.n % 2 = 0

-- fill tb_fat_atd_ind_medicamentos bare
SELECT f.id AS co_seq_fat_atd_ind_medicam, f.id AS co_fat_atd_ind, f.day AS co_dim_tempo, f.uuid AS nu_uuid_ficha,
       f.citizen AS co_fat_cidadao_pec
  FROM sample.fact f
 WHERE f.kind = 104 AND f.n % 5 < 2

-- fill tb_fat_procedimento bare
SELECT f.id AS co_seq_fat_procedimento, f.uuid AS nu_uuid_ficha, f.type AS co_dim_tipo_ficha,
       f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe, f.dim_prof AS co_dim_profissional,
       f.day AS co_dim_tempo
  FROM sample.fact f
 WHERE f.kind = 104

-- fill tb_fat_proced_atend bare
SELECT f.id AS co_seq_fat_proced_atend, f.id AS co_fat_procedimento, f.uuid AS nu_uuid_ficha,
       f.dim_unit AS co_dim_unidade_saude, f.day AS co_dim_tempo, f.cns AS nu_cns, f.birth AS dt_nascimento
  FROM sample.fact f
 WHERE f.kind = 104

-- fill tb_fat_proced_atend_proced bare
SELECT (f.id - 1) * 2 + k AS co_seq_fat_proced_atend_proced, f.id AS co_fat_procedimento, f.uuid AS nu_uuid_ficha,
       f.day AS co_dim_tempo, 1 + (f.fid + k) % 120 AS co_dim_procedimento
  FROM sample.fact f, generate_series(1, 2) k
 WHERE f.kind = 104 AND (k = 1 OR f.n % 3 = 0)

-- fill tb_fat_vacinacao
SELECT f.fid AS "#", f.id AS co_seq_fat_vacinacao, f.uuid AS nu_uuid_ficha, f.cns AS nu_cns,
       f.dim_prof AS co_dim_profissional, f.dim_unit AS co_dim_unidade_saude, f.dim_team AS co_dim_equipe,
       f.day AS co_dim_tempo, 14 AS co_dim_tipo_ficha, f.birth AS dt_nascimento
  FROM sample.fact f WHERE f.kind = 14

-- fill tb_fat_vacinacao_vacina
SELECT f.fid * 2 + k AS "#", (f.id - 1) * 2 + k AS co_seq_fat_vacinacao_vacina, f.id AS co_fat_vacinacao,
       f.uuid AS nu_uuid_ficha, f.day AS co_dim_tempo
  FROM sample.fact f, generate_series(1, 2) k
 WHERE f.kind = 14

-- fill tb_fat_atendimento_odonto
SELECT f.fid AS "#", f.id AS co_seq_fat_atd_odnt, f.uuid AS nu_uuid_ficha, f.day AS co_dim_tempo,
       5 AS co_dim_tipo_ficha, f.dim_unit AS co_dim_unidade_saude_1
  FROM sample.fact f
 WHERE f.kind = 5

-- fill tb_fat_atendimento_domiciliar
SELECT f.fid AS "#", f.id AS co_seq_fat_atend_domiciliar, f.uuid AS nu_uuid_ficha, f.day AS co_dim_tempo,
       10 AS co_dim_tipo_ficha
  FROM sample.fact f
 WHERE f.kind = 10

-- fill tb_fat_atividade_coletiva
SELECT f.fid AS "#", f.id AS co_seq_fat_atividade_coletiva, f.uuid AS nu_uuid_ficha, f.day AS co_dim_tempo,
       6 AS co_dim_tipo_ficha, f.dim_unit AS co_dim_unidade_saude
  FROM sample.fact f
 WHERE f.kind = 6

-- fill tb_fat_atvdd_coletiva_part
SELECT f.fid * 11 + k AS "#", (f.id - 1) * 11 + k AS co_seq_fat_atvdd_cltv_part, f.id AS co_fat_atividade_coletiva,
       f.uuid AS nu_uuid_ficha, f.day AS co_dim_tempo
  FROM sample.fact f, generate_series(1, 11) k
 WHERE f.kind = 6

-- fill tb_fat_cidadao_territorio
SELECT c.gid AS "#", c.i AS co_seq_fat_cidadao_territorio, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me()

-- fill tb_fat_familia_territorio
SELECT c.gid AS "#", c.home AS co_seq_fat_familia_territorio, c.i AS co_fat_cidadao_pec, 20250101 AS co_dim_tempo_fcd,
       c.i AS co_fat_cidadao_territorio
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 = 1

-- fill tb_fat_consolidado_cidadao_fai
SELECT c.gid AS "#", c.i AS co_seq_fat_conslddo_ciddo_fai, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 > 0

-- fill tb_fat_consolidado_cidadao_fci
SELECT c.gid AS "#", c.i AS co_seq_fat_conslddo_ciddo_fci, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 > 0

-- fill tb_fat_consolidado_cidadao_fvd
SELECT c.gid AS "#", c.i AS co_seq_fat_conslddo_ciddo_fvd, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 > 0

-- fill tb_fat_consolidado_cidadao_fp
SELECT c.gid AS "#", c.i AS co_seq_fat_conslddo_ciddo_fp, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 > 0

-- fill tb_fat_rel_op_crianca
SELECT c.gid AS "#", c.i AS co_seq_fat_rel_op_crianca, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me()

-- fill tb_fat_rel_op_risco_cardio
SELECT c.gid AS "#", c.i AS co_seq_fat_rel_op_risco_cardio, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me()

-- fill tb_fat_rel_op_gestante
SELECT c.gid AS "#", c.i AS co_seq_fat_rel_op_gestante, c.i AS co_fat_cidadao_pec
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 10 = 1

-- fill tb_acomp_cidadaos_vinculados
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_acomp_cidadaos_vinc, c.i AS co_cidadao,
       c.cns AS nu_cns_cidadao, c.cpf AS nu_cpf_cidadao, c.name AS no_cidadao, NULL::text AS no_social_cidadao
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.i % 2 = 0

-- fill tb_dado_rel_processamento
SELECT n AS "#", n AS co_seq_dado_rel_processamento, 1 AS co_ator_papel, 20250101 AS co_dim_tempo_inicio,
       20251031 AS co_dim_tempo_final
  FROM generate_series(1, 60) n

-- fill tb_historico_cabecalho bare
SELECT f.transport AS co_seq_historico_cabecalho, f.uuid AS co_unico_registro,
       coalesce(f.cpf, f.cns) AS nu_cpf_cns_cidadao, f.prof_cns AS nu_cns_prof, f.cnes AS nu_cnes_unid, f.ine AS nu_ine,
       f.dt AS dt_atendimento, 1 + f.kind % 9 AS co_tipo_atendimento,
       CASE WHEN f.kind = 104 AND f.mine THEN c.record END AS co_prontuario
  FROM sample.ficha f LEFT JOIN sample.citizen c ON f.kind = 104 AND c.inst = f.inst AND c.i = f.i
 WHERE f.kind NOT IN (2, 3)

-- fill tb_historico_dados_tags
SELECT f.fid AS "#", 1 + f.n % 12 AS tp_atend_prof FROM sample.ficha f WHERE f.kind = 104

-- fill tb_historico_dados_proced
SELECT f.fid AS "#", coalesce(f.cpf, f.cns) AS nu_cpf_cns_cidadao FROM sample.ficha f WHERE f.kind = 104

-- fill tb_historico_dados_fai
SELECT f.fid AS "#", coalesce(f.cpf, f.cns) AS nu_cpf_cns_cidadao FROM sample.ficha f WHERE f.kind = 104 AND f.n % 3 < 2

-- fill tb_historico_dados_vacina
SELECT f.fid AS "#", coalesce(f.cpf, f.cns) AS nu_cpf_cns_cidadao FROM sample.ficha f WHERE f.kind = 14

-- fill tb_historico_dados_exames
SELECT f.fid AS "#", coalesce(f.cpf, f.cns) AS nu_cpf_cns_cidadao
  FROM sample.ficha f
 WHERE f.kind = 104 AND f.n % 10 = 0

-- fill tb_processamento_historico
SELECT n AS "#", n * 100 AS co_ultimo_registro_processado FROM generate_series(1, 9) n
