-- Dentistry, vaccination and collective activities written in the PEC.

-- fill tb_atend_prof_odonto
SELECT a.fid AS "#", a.id AS co_atend_prof_odonto FROM sample.part a WHERE a.role BETWEEN 60 AND 64

-- fill rl_atend_prof_odonto_tipo_encm
SELECT o.co_atend_prof_odonto AS "#", o.co_atend_prof_odonto, 1 + o.co_atend_prof_odonto % 19 AS tp_encam_odonto
  FROM tb_atend_prof_odonto o

-- fill rl_atend_prof_odonto_tipo_frnc
SELECT o.co_atend_prof_odonto AS "#", o.co_atend_prof_odonto, 1 + o.co_atend_prof_odonto % 3 AS tp_fornecimento_odonto
  FROM tb_atend_prof_odonto o
 WHERE o.co_atend_prof_odonto % 5 = 0

-- fill tb_odontograma
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_odontograma, a.id AS co_atend_prof_odonto,
       a.record AS co_prontuario
  FROM sample.part a
  JOIN tb_atend_prof_odonto o ON o.co_atend_prof_odonto = a.id

-- fill tb_evolucao_dente
SELECT o.co_seq_odontograma * 4 + k AS "#", (o.co_seq_odontograma - 1) * 4 + k AS co_seq_evolucao_dente,
       o.co_seq_odontograma AS co_odontograma, 9 + (o.co_seq_odontograma + k * 11) % 52 AS co_dente
  FROM tb_odontograma o, generate_series(1, 4) k

-- fill rl_situacaoface_evolucaodente
SELECT d.co_seq_evolucao_dente AS "#", row_number() OVER (ORDER BY d.co_seq_evolucao_dente) AS co_seq_stface_evodente,
       d.co_seq_evolucao_dente AS co_evolucao_dente
  FROM tb_evolucao_dente d
 WHERE d.co_seq_evolucao_dente % 4 > 0

-- fill rl_situacaoraiz_evolucaodente
SELECT d.co_seq_evolucao_dente AS "#", row_number() OVER (ORDER BY d.co_seq_evolucao_dente) AS co_seq_straiz_evodente,
       d.co_seq_evolucao_dente AS co_evolucao_dente
  FROM tb_evolucao_dente d
 WHERE d.co_seq_evolucao_dente % 3 = 0

-- fill tb_evolucao_odonto
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_evolucao_odonto, a.id AS co_atend_prof_odonto,
       a.record AS co_prontuario
  FROM sample.part a
  JOIN tb_atend_prof_odonto o ON o.co_atend_prof_odonto = a.id
 WHERE a.id % 8 > 0

-- fill rl_evolucao_odonto_parte_bucal
SELECT e.co_seq_evolucao_odonto AS "#", e.co_seq_evolucao_odonto AS co_evolucao_odonto,
       1 + e.co_seq_evolucao_odonto % 82 AS co_parte_bucal
  FROM tb_evolucao_odonto e

-- fill rl_evolucao_odonto_proced
SELECT e.co_seq_evolucao_odonto AS "#", e.co_seq_evolucao_odonto AS co_evolucao_odonto,
       1 + e.co_seq_evolucao_odonto % 150 AS co_proced
  FROM tb_evolucao_odonto e

-- fill rl_evol_aval_tp_vig_saude_bucl
SELECT e.co_atend_prof AS "#", e.co_atend_prof AS co_evolucao_avaliacao,
       1 + e.co_atend_prof % 7 AS co_tipo_vig_saude_bucal
  FROM tb_evolucao_avaliacao e
  JOIN tb_atend_prof_odonto o ON o.co_atend_prof_odonto = e.co_atend_prof

-- fill tb_periograma_simplificado
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_periograma_simplificado, a.record AS co_prontuario
  FROM sample.part a
  JOIN tb_atend_prof_odonto o ON o.co_atend_prof_odonto = a.id
 WHERE a.id % 30 = 0

-- fill tb_vacinacao
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_vacinacao, a.id AS co_atend_prof,
       a.record AS co_prontuario
  FROM sample.part a
 WHERE a.role BETWEEN 70 AND 81

-- fill tb_registro_vacinacao
SELECT v.co_seq_vacinacao * 2 + k + sample.me() * 10000000::bigint AS "#",
       row_number() OVER (ORDER BY v.co_seq_vacinacao, k) AS co_seq_registro_vacinacao,
       v.co_seq_vacinacao AS co_vacinacao, a.dt AS dt_aplicacao,
       l.co_seq_imunobiologico_lote AS co_imunobiologico_lote, l.co_imunobiologico,
       1 + (v.co_seq_vacinacao + k) % 108 AS co_grupo_atendimento, 0 AS st_pesquisa_clinica
  FROM tb_vacinacao v
  JOIN sample.part a ON a.id = v.co_atend_prof
 CROSS JOIN generate_series(0, 1) k
  JOIN tb_imunobiologico_lote l ON l.co_seq_imunobiologico_lote =
       1 + (v.co_seq_vacinacao + k) % (SELECT count(*) FROM tb_imunobiologico_lote)
 WHERE k = 0 OR v.co_seq_vacinacao % 4 < 3

-- fill tb_atividade_coletiva
SELECT l.gid AS "#", row_number() OVER (ORDER BY l.gid) AS co_seq_atividade_coletiva, l.id AS co_lotacao_responsavel
  FROM sample.post l
 WHERE l.inst = sample.me()

-- fill rl_ativ_col_lot_env
SELECT a.co_seq_atividade_coletiva AS "#", a.co_seq_atividade_coletiva AS co_seq_ativ_col_lot_env,
       a.co_seq_atividade_coletiva AS co_atividade_coletiva, a.co_lotacao_responsavel AS co_lotacao_envolvida
  FROM tb_atividade_coletiva a

-- fill rl_ativ_col_publico_alvo
SELECT a.co_seq_atividade_coletiva AS "#", a.co_seq_atividade_coletiva AS co_seq_ativ_col_publico_alvo,
       a.co_seq_atividade_coletiva AS co_atividade_coletiva
  FROM tb_atividade_coletiva a

-- fill rl_ativ_col_tema_saude
SELECT a.co_seq_atividade_coletiva AS "#", a.co_seq_atividade_coletiva AS co_seq_ativ_col_tema_saude,
       a.co_seq_atividade_coletiva AS co_atividade_coletiva
  FROM tb_atividade_coletiva a

-- fill rl_ativ_col_tema_reuniao
SELECT a.co_seq_atividade_coletiva AS "#", a.co_seq_atividade_coletiva AS co_seq_ativ_col_tema_reuniao,
       a.co_seq_atividade_coletiva AS co_atividade_coletiva
  FROM tb_atividade_coletiva a
 WHERE a.co_seq_atividade_coletiva % 2 = 0

-- fill rl_ativ_col_pratica_saude
SELECT a.co_seq_atividade_coletiva AS "#", a.co_seq_atividade_coletiva AS co_seq_ativ_col_pratica_saude,
       a.co_seq_atividade_coletiva AS co_atividade_coletiva
  FROM tb_atividade_coletiva a
 WHERE a.co_seq_atividade_coletiva % 3 = 0

-- fill tb_ativ_col_registro_particip
SELECT a.co_seq_atividade_coletiva * 8 + k AS "#", (a.co_seq_atividade_coletiva - 1) * 8
           + k AS co_seq_registro_participante, 1 + (a.co_seq_atividade_coletiva * 8 + k) % 90 AS co_cidadao
  FROM tb_atividade_coletiva a, generate_series(1, 8) k
