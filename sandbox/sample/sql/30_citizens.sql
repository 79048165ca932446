-- Citizens, records, families and homes.

-- fill tb_cidadao
SELECT c.gid AS "#", c.i AS co_seq_cidadao, CASE WHEN c.mother IS NULL THEN 1 ELSE 0 END AS st_desconhece_nome_mae,
       u.cnes || '-' || sample.uuid(c.gid, 2) AS co_unico_cidadao, f.uuid AS co_unico_ultima_ficha,
       f.dt::date AS dt_ultima_ficha, 1 AS co_nacionalidade, 1 AS co_localidade,
       c.cpf AS nu_cpf, c.cns AS nu_cns, c.name AS no_cidadao, c.name_filter AS no_cidadao_filtro, c.mother AS no_mae,
       c.mother_filter AS no_mae_filtro,
       c.birth AS dt_nascimento, CASE c.sex WHEN 0 THEN 'FEMININO' ELSE 'MASCULINO' END AS no_sexo, 0 AS st_faleceu,
       NULL::date AS dt_obito,
       CASE c.kind WHEN 'absorbed' THEN 0 ELSE 1 END AS st_ativo,
       CASE c.kind WHEN 'absorbed' THEN 0 ELSE 1 END AS st_ativo_para_exibicao,
       CASE c.kind WHEN 'absorbed' THEN 1 ELSE 0 END AS st_unificado, NULL::text AS no_social,
       'RUA ' || sample.word(c.home) || ' SINTÉTICA' AS ds_logradouro, c.home::text AS nu_numero,
       1 + c.home % 60 AS tp_logradouro, 1 AS co_localidade_endereco, 1 AS co_uf,
       text 'BAIRRO SINTÉTICO' AS no_bairro, text 'bairro sintetico' AS no_bairro_filtro
  FROM sample.citizen c
  JOIN sample.unit u ON u.inst = c.inst AND u.n = 1
  LEFT JOIN sample.ficha f ON f.kind = 2 AND f.mine AND f.i = c.i AND f.version = 1
 WHERE c.inst = sample.me()

-- fill tb_prontuario
SELECT c.gid AS "#", c.record AS co_seq_prontuario, c.i AS co_cidadao, 0 AS qt_referencia,
       CASE WHEN c.kind = 'absorbed' THEN c.record - 1 ELSE c.record END AS co_prontuario_grupo
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.record IS NOT NULL

-- One row for each citizen; that of an absorbed one names its master.
-- fill tb_cidadao_grupo
SELECT c.gid AS "#", c.i AS co_seq_cidadao_grupo, c.i AS co_cidadao,
       CASE WHEN c.kind = 'absorbed' THEN c.i - 1 ELSE c.i END AS co_cidadao_master,
       CASE WHEN c.kind = 'absorbed' THEN c.i - 1 ELSE c.i END AS co_cidadao_unificado, c.cns AS nu_cns,
       c.cpf AS nu_cpf, f.uuid AS nu_uuid_ultima_ficha
  FROM sample.citizen c LEFT JOIN sample.ficha f ON f.kind = 2 AND f.mine AND f.i = c.i AND f.version = 1
 WHERE c.inst = sample.me()

-- fill tb_historico_unificacao
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_historico_unificacao, c.i AS co_cidadao_grupo,
       1 AS co_prof
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.kind = 'absorbed'

-- fill tb_prontuario_grupo_historico
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_prontuario_grpo_hstrco,
       c.record - 1 AS co_prontuario_grupo, c.record AS co_prontuario
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.kind = 'absorbed' AND c.record > 1

-- Links have no transport data of their own, so none is marked as sent.
-- fill tb_cidadao_vinculacao_equipe
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_cidadao_vinculacao_eqp, c.i AS co_cidadao,
       f.cnes || '-' || sample.uuid(c.gid, 3) AS co_unico_ficha,
       f.uuid AS co_unico_cadastro_individual, 0 AS st_envio, text '5.5.28' AS ds_versao_ficha,
       f.cds_id AS co_prof_cadastrante_cds, l.id AS co_lotacao_cadastrante_pec, 2 AS tp_cds_origem,
       f.cnes AS nu_cnes, f.ine AS nu_ine
  FROM sample.citizen c
  JOIN sample.ficha f ON f.kind = 2 AND f.mine AND f.i = c.i AND f.version = 1
  JOIN sample.post l ON l.gid = f.post
 WHERE c.inst = sample.me() AND c.i % 9 > 0

-- fill tb_cidadao_nucleo_familiar
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_cidadao_nucleo_familiar, c.i AS co_cidadao,
       f.cnes AS nu_cnes, f.ine AS nu_ine, f.prof_cns AS nu_cns_profissional,
       coalesce(r.cpf, r.cns) AS nu_cpf_cns_responsavel, CASE WHEN c.i % 3 = 1 THEN 1 ELSE 0 END AS st_responsavel,
       0 AS st_mudou_se, f.dt::date AS dt_ultima_atualizacao
  FROM sample.citizen c
  JOIN sample.ficha f ON f.kind = 2 AND f.mine AND f.i = c.i AND f.version = 1
  JOIN sample.citizen r ON r.inst = c.inst AND r.i = c.i - (c.i - 1) % 3
 WHERE c.inst = sample.me()

-- The responsible professional has a post that is not deactivated.
-- fill tb_cds_domicilio
SELECT c.inst * 100000 + c.home AS "#", c.home AS co_seq_cds_domicilio,
       u.cnes || '-' || sample.uuid(c.inst * 100000 + c.home, 4) AS co_unico_domicilio, u.cnes AS nu_cnes,
       t.ine AS nu_ine,
       l.cns AS nu_cns, l.cbo AS nu_cbo_2002, f.uuid AS co_unico_ultima_ficha, 'SINTÉTICA ' || c.home AS no_logradouro,
       c.home::text AS nu_domicilio,
       1 AS co_municipio, 1 AS co_uf
  FROM sample.citizen c
  JOIN sample.post l ON l.inst = c.inst
      AND l.seq = (SELECT min(o.seq) FROM sample.post o WHERE o.inst = sample.me() AND o.gid % 11 > 0)
  JOIN sample.unit u ON u.gid = l.unit
  JOIN sample.team t ON t.gid = l.team
  LEFT JOIN sample.ficha f ON f.kind = 3 AND f.mine AND f.n = c.home
 WHERE c.inst = sample.me() AND c.i % 3 = 1

-- fill tb_animais_domicilio
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_animais_domicilio, c.home AS co_cds_domicilio
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 3 = 1 AND c.home % 4 > 0

-- fill tb_familia
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_familia, f.cnes AS nu_cnes, f.ine AS nu_ine,
       coalesce(c.cpf, c.cns) AS nu_cpf_cns_responsavel, c.birth AS dt_nascimento_responsavel,
       1 + c.home % 8 AS co_renda_familiar, 3 AS qt_membro, c.home AS co_cds_domicilio, 1 AS st_responsavel_cadastrado,
       1 AS st_responsavel_declarado, 1 AS st_responsavel_vivo,
       1 AS st_responsavel_unico, 1 AS st_responsavel_ainda_reside, 1 AS st_familia_ainda_reside,
       1 AS st_informacao_suficiente
  FROM sample.citizen c
  JOIN sample.ficha f ON f.kind = 2 AND f.mine AND f.i = c.i AND f.version = 1
 WHERE c.inst = sample.me() AND c.i % 3 = 1 AND coalesce(c.cpf, c.cns) IS NOT NULL

-- fill tb_cidadao_bolsa_familia
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_cidadao_bolsa_familia, c.name AS no_cidadao,
       c.cpf AS nu_documento, text 'CPF' AS tp_documento
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.i % 2 = 0 AND c.cpf IS NOT NULL

-- fill tb_importacao_bolsa_familia
SELECT 1 AS "#", 1 AS co_seq_importaca_bolsa_familia

-- fill tb_cidadao_aldeado
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_cidadao_aldeado, 1 + c.i % 60 AS co_aldeia_nascimento,
       1 AS co_uf_nascimento
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.i % 200 = 7

-- fill tb_prontuario_unidade_saude
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_prontuario_unidade_saud, u.id AS co_unidade_saude,
       c.i AS co_cidadao, 'P' || c.i AS nu_prontuario
  FROM sample.citizen c JOIN sample.unit u ON u.inst = c.inst AND u.n = 1 WHERE c.inst = sample.me() AND c.i % 50 = 8

-- fill rl_cds_prontuario_unidade_saud
SELECT c.gid AS "#", c.record AS co_prontuario, u.id AS co_ator_papel, 'P' || c.i AS nu_prontuario_interno
  FROM sample.citizen c JOIN sample.unit u ON u.inst = c.inst AND u.n = 1 WHERE c.inst = sample.me() AND c.i % 50 = 8

-- fill tb_justificativa_status_ciddao
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_justifica_inativ_cidada, c.i AS co_cidadao,
       l.id AS co_lotacao, p.user_id AS co_usuario, text 'Cadastro repetido' AS ds_justificativa
  FROM sample.citizen c
  JOIN sample.post l ON l.inst = c.inst AND l.seq = 1
  JOIN sample.professional p ON p.gid = l.prof
 WHERE c.inst = sample.me() AND c.kind = 'absorbed'

-- fill tb_pessoa_fisica_imagem
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_pessoa_fisica_imagem, c.i AS co_cidadao,
       decode(repeat(md5(c.gid::text), 40), 'hex') AS im_conteudo
  FROM sample.citizen c WHERE c.inst = sample.me() AND c.i % 100 = 5

-- fill tb_lista_espera
SELECT c.gid AS "#", row_number() OVER (ORDER BY c.i) AS co_seq_lista_espera, c.i AS co_cidadao
  FROM sample.citizen c
 WHERE c.inst = sample.me() AND c.i % 100 = 6
