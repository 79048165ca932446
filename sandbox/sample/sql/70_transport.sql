-- Transport: serialised fichas, lots, what was received from tablets and other installations, processing state, RNDS
-- queue, sessions. tb_dado_transp.co_unico_dado_serializado is the ficha's co_unico_ficha (or co_unico_atend_prof).

-- fill tb_dado_recebido_competencia
SELECT n AS "#", n AS co_seq_dado_recebido_competenc, 1 + n % 12 AS nu_mes, 2022 + n / 12 AS nu_ano
  FROM generate_series(1, 48) n

-- Who sent: the other installations first, then tablets.
-- fill tb_dado_recebido_info_instalac
SELECT n AS "#", n AS co_seq_dado_recebido_info_inst,
       sample.uuid(CASE WHEN n <= 8 THEN n ELSE sample.me() * 1000 + n END, 900) AS co_unico_instalacao,
       md5('contra' || CASE WHEN n <= 8 THEN n ELSE sample.me() * 1000 + n END) AS nu_contra_chave
  FROM generate_series(1, 20) n

-- fill tb_dado_transp bare
SELECT f.transport AS co_seq_dado_transp,
       sample.local_id(CASE WHEN f.mine THEN 2 ELSE 3 END, 8) AS tp_origem_dado_transp,
       CASE f.kind WHEN 104 THEN 4 ELSE f.kind END AS tp_dado_transp,
       f.uuid AS co_unico_dado_serializado,
       f.uuid AS co_unico_ficha, text '9900001' AS co_ibge_dado_serializado, text '5.5.28' AS nu_versao_dado_serializado,
       f.cnes AS nu_cnes_dado_serializado, f.ine AS nu_ine_dado_serializado,
       convert_to(chr(1 + f.kind::int % 20) || f.uuid || coalesce(f.cns, f.cpf, ''), 'UTF8')
           || decode(md5(f.fid || 'a') || md5(f.fid || 'b') || md5(f.fid || 'c') || md5(f.fid || 'd')
                     || md5(f.fid || 'e') || md5(f.fid || 'f'), 'hex') AS im_dado_serializado,
       1 AS st_validado, 0 AS nu_revisao, 0 AS st_cancelado, CASE WHEN NOT f.mine THEN 1
           + f.n % 48 END AS co_dado_recebido_competencia
  FROM sample.ficha f

-- fill tb_lote_transp
SELECT n AS "#", n AS co_seq_lote_transp, timestamp '2022-10-01' + n * interval '1 day' AS dt_criacao,
       text '9900001' AS co_ibge
  FROM generate_series(1, (SELECT 1 + max(transport - 1) / 400 FROM sample.ficha)) n

-- fill tb_lote_transp_item bare
SELECT f.transport AS co_seq_lote_transp_item, 1 + (f.transport - 1) / 400 AS co_lote_transp,
       f.transport AS co_dado_transp
  FROM sample.ficha f

-- fill tb_lote_transp_nodo
SELECT l.co_seq_lote_transp * 3 + k AS "#", (l.co_seq_lote_transp - 1) * 3 + k AS co_seq_lote_transp_nodo,
       l.co_seq_lote_transp AS co_lote_transp, k AS co_nodo, l.dt_criacao + interval '1 hour' AS dt_ultima_tentativa
  FROM tb_lote_transp l, generate_series(1, 3) k

-- fill tb_lote_transp_item_nodo bare
SELECT (f.transport - 1) * 3 + k AS co_seq_lote_transp_item_nodo, f.transport AS co_lote_transp_item, k AS co_nodo,
       timestamp '2025-10-31' AS dt_ultima_tentativa, 1 AS st_enviado
  FROM sample.ficha f, generate_series(1, 3) k WHERE k < 3 OR f.n % 5 > 1

-- fill tb_lote_transp_historico_exprt
SELECT l.co_seq_lote_transp AS "#", row_number() OVER (ORDER BY l.co_seq_lote_transp) AS co_seq_lote_transp_historc_exp,
       l.co_seq_lote_transp AS co_lote_transp
  FROM tb_lote_transp l
 WHERE l.co_seq_lote_transp % 8 = 1

CREATE UNLOGGED TABLE sample.received AS
SELECT f.*, row_number() OVER (ORDER BY f.transport) AS r FROM sample.ficha f WHERE NOT f.mine OR f.kind IN (2, 3, 8);

-- fill tb_recebimento_lote
SELECT n AS "#", n AS co_seq_receb_lote, n * 3 AS nu_lote_originadora, 1 + n % 7 AS tp_origem_dado_recebido
  FROM generate_series(1, (SELECT 1 + max(r - 1) / 65 FROM sample.received)) n

-- fill tb_recebimento_item bare
SELECT f.r AS co_seq_receb_item, 1 + (f.r - 1) / 65 AS co_receb_lote, 3 AS st_dado_recebido,
       CASE f.kind WHEN 104 THEN 4 ELSE f.kind END AS tp_dado_transp, f.uuid AS co_unico_dado_serializado,
       f.cnes AS nu_cnes_dado_serializado, text '5.5.28' AS nu_versao_dado_serializado,
       'lote-' || f.r / 65 || '.zip' AS no_arquivo
  FROM sample.received f

-- fill tb_recebimento_validacao_erros
SELECT f.fid AS "#", row_number() OVER (ORDER BY f.r) AS co_seq_receb_valid_erro, f.r AS co_receb_item,
       1 AS nu_registro_da_ficha
  FROM sample.received f
 WHERE f.r % 390 = 7

-- fill tb_dado_transp_recebido bare
SELECT f.r AS co_seq_dado_transp_recebido, f.transport AS co_dado_transp,
       CASE WHEN f.mine THEN 9 + f.r % 12 ELSE f.inst END AS co_info_instal_remetente,
       CASE WHEN f.mine THEN 9 + f.r % 12 ELSE f.inst END AS co_info_instal_originadora,
       f.r / 65 * 3 AS nu_lote_originadora, f.dt + interval '1 day' AS dt_recebimento,
       f.dt + interval '2 days' AS dt_processamento, 1 + f.r % 7 AS st_dado_recebido
  FROM sample.received f

-- fill tb_relatorio_processamento bare
SELECT f.transport AS co_seq_relatorio_processamento, f.transport AS co_dado_transp,
       f.dt + interval '3 days' AS dt_processamento, 1 AS st_processamento,
       CASE f.kind WHEN 104 THEN 4 ELSE f.kind END AS tp_dado_transp, 0 AS st_reprocessar
  FROM sample.ficha f

-- fill tb_processamento_hist_cds bare
SELECT row_number() OVER (ORDER BY f.transport) AS co_seq_processamento_hist_cds, f.transport AS co_dado_transp,
       f.dt::date AS dt_processamento
  FROM sample.ficha f
 WHERE f.kind <> 104

-- fill tb_processamento_dom_cid bare
SELECT row_number() OVER (ORDER BY f.transport) AS co_seq_processamento_dom_cid, f.transport AS co_dado_transp,
       f.dt::date AS dt_processamento
  FROM sample.ficha f
 WHERE f.kind IN (2, 3, 8)

-- fill tb_dado_transp_recebido_online
SELECT f.fid AS "#", row_number() OVER (ORDER BY f.r) AS co_seq_dado_transp_receb_onlin,
       f.uuid AS co_unico_dado_serializado, f.cnes AS nu_cnes_dado_serializado, f.ine AS nu_ine_dado_serializado
  FROM sample.received f
 WHERE f.r % 400 = 9

-- fill tb_envio_rnds
SELECT a.fid AS "#", row_number() OVER (ORDER BY a.id) AS co_seq_envio_rnds, a.uuid AS co_unico_registro,
       l.cns AS nu_cns_prof, CASE WHEN a.role BETWEEN 70 AND 81 THEN 'VACINACAO'
           ELSE 'ATENDIMENTO' END AS no_tipo_registro,
       CASE WHEN a.id % 90 = 1 THEN 'HTTP 503' END AS ds_erro, CASE WHEN a.id % 90 = 1 THEN 0 ELSE 1 END AS st_envio
  FROM sample.part a JOIN sample.professional l ON l.id = a.prof WHERE a.id % 5 < 2

-- fill tb_sessao_sincronizacao
SELECT n AS "#", sample.uuid(sample.me() * 100000 + n, 80) AS co_unico_sessao, p.user_id AS co_usuario,
       sample.uuid(sample.me(), 900) AS co_unico_servidor, sample.uuid(p.gid, 81) AS co_unico_aplicativo,
       4 AS co_origem,
       1 + n % (SELECT count(*) FROM tb_recebimento_lote) AS co_recebimento_lote
  FROM generate_series(1, (SELECT count(*) / 5 FROM tb_cidadao)) n JOIN sample.professional p ON p.id = 1 + n % 8

-- fill tb_refresh_token
SELECT p.gid AS "#", sample.uuid(p.gid + sample.me(), 82) AS co_token, 'usuario-' || p.user_id AS no_principal,
       timestamp '2025-10-29 08:00' AS dt_criacao, timestamp '2025-10-30 08:00' AS dt_expiracao
  FROM sample.professional p

-- fill tb_token_redefinicao_senha
SELECT p.gid AS "#", p.user_id AS co_seq_token_redefinicao_senha, p.user_id AS co_usuario
  FROM sample.professional p
 WHERE p.user_id < 4

-- fill tb_arquivo_temporario
SELECT n AS "#", n AS co_seq_arquivo_temporario, n AS co_usuario FROM generate_series(1, 6) n

-- fill tb_notificacao_status
SELECT n AS "#", n AS co_seq_notificacao_status FROM generate_series(1, 25) n

-- fill tb_envio_log
SELECT n AS "#", n AS co_seq_envio_log FROM generate_series(1, 10) n

INSERT INTO spring_session (primary_id, session_id, creation_time, last_access_time, max_inactive_interval, expiry_time,
       principal_name)
SELECT sample.uuid(n + sample.me() * 10, 83), sample.uuid(n + sample.me() * 10, 84), 1761868800000, 1761868860000, 1800,
       1761870660000, 'usuario-' || n
  FROM generate_series(1, 3) n;
INSERT INTO spring_session_attributes (session_primary_id, attribute_name, attribute_bytes)
SELECT primary_id, 'SPRING_SECURITY_CONTEXT', decode(md5(primary_id), 'hex') FROM spring_session;
