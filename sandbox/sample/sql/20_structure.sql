-- The municipality and its installation: configuration, units, teams, professionals, posts, users, profiles, logs.

-- fill tb_config_sistema bare
SELECT n AS "#", coalesce(k.key, 'CHAVE' || lpad(n::text, 2, '0')) AS co_config_sistema,
       'Configuração ' || n AS ds_config_sistema,
       1 AS st_disponivel_sistema, k.value AS ds_texto, CASE WHEN k.key IS NULL THEN n ELSE k.number END AS ds_inteiro,
       CASE WHEN n IN (12, 20) THEN decode(md5('imagem' || n || sample.me()), 'hex') END AS ds_binario
  FROM generate_series(1, 62) g(n)
  LEFT JOIN (VALUES (1, 'VERSAOBANCODADOS', '5.5.28', NULL::int), (2, 'TIPOINSTALACAO', 'PRONTUARIO', NULL),
                    (3, 'TREINAMENTO', '0', NULL),
                    (4, 'LINKINSTALACAO', 'https://pec-' || sample.me() || '.exemplo.invalid', NULL),
                    (5, 'NOMEINSTALACAO', 'INSTALAÇÃO SINTÉTICA ' || sample.me(), NULL),
                    (6, 'HORUSHABILITADO', '1', NULL), (7, 'CADSUSHABILITADO', NULL, 1),
                    (8, 'CONFIGURACAOPROCESSAMENTORELATORIOS', 'DIARIO', NULL),
                    (9, 'UUIDINSTALACAO', sample.uuid(sample.me(), 900), NULL),
                    (10, 'CONTRACHAVE', md5('contra' || sample.me()), NULL),
                    -- Nobody saw how these are called: one of each kind of value.
                    (18, 'CONEXAOINTERNET', NULL, 1), (19, 'VIDEOCHAMADAHABILITADA', 'true', NULL),
                    (20, 'CERTIFICADORNDS', 'certificado-sintetico.pfx', NULL)) k(n, key, value, number) USING (n)

-- The migration logs are the same wherever the version is the same.
INSERT INTO tb_migracao (id, author, filename, dateexecuted, orderexecuted, exectype, md5sum, description, liquibase,
       deployment_id)
SELECT 'v' || (2 + n / 100) || '.' || n % 100 || '-' || n, 'sintetico',
       'db/v' || (2 + n / 100) || '/mudanca-' || n || '.xml',
       timestamp '2024-01-01' + n * interval '1 minute', n, 'EXECUTED', '8:' || md5(n::text), 'mudança ' || n, '4.9.1',
       '0000000001'
  FROM generate_series(1, 400) n;
INSERT INTO tb_migracao_estrutura (co_migracao_estrutura, no_autor_migracao, no_arquivo_migracao, dt_execucao,
       nu_ordem_execucao, no_tipo_execucao)
SELECT 'estrutura-' || n, 'sintetico', 'db/estrutura-' || n || '.xml', timestamp '2023-01-01' + n * interval '1 minute',
       n, 'EXECUTED'
  FROM generate_series(1, 200) n;
INSERT INTO tb_migracao_trava VALUES (1, false, NULL, NULL);
INSERT INTO "TB_MIGRACAO_DADOS" (installed_rank, version, description, type, script, checksum, installed_by,
       installed_on, execution_time, success)
SELECT n, '4.' || n, 'dados ' || n, 'SQL', 'V4_' || n || '__dados.sql', n * 7919, 'postgres',
       timestamp '2024-01-01' + n * interval '1 minute', n % 50, true
  FROM generate_series(1, 60) n;

-- fill tb_tipo_servico
SELECT n AS "#", sample.local_id(n, 20) AS co_seq_tipo_servico,
       ('{CONSULTA,CURATIVO,VACINA,ODONTOLOGIA,NEBULIZAÇÃO,ESCUTA INICIAL,EXAMES,FARMÁCIA}'::text[])[1 + (n - 1) % 8]
       || CASE WHEN n > 8 THEN ' ' || n ELSE '' END AS no_tipo_servico, 0 AS st_interno, 1 AS co_localidade
  FROM generate_series(1, CASE WHEN sample.me() = 1 THEN 20 ELSE 19 END) n

-- fill tb_unidade_saude
SELECT u.gid AS "#", u.id AS co_seq_unidade_saude, u.cnes AS nu_cnes, u.name AS no_unidade_saude, 1 AS st_ativo,
       1 AS co_localidade_endereco, 1 AS co_uf,
       text '00000000000000' AS nu_cnpj
  FROM sample.unit u WHERE u.known

-- fill tb_equipe
SELECT t.gid AS "#", t.id AS co_seq_equipe, t.ine AS nu_ine, 1 AS st_ativo, u.id AS co_unidade_saude,
       'EQUIPE SINTÉTICA ' || t.gid AS no_equipe,
       md5(t.ine || t.cnes) AS co_unico_equipe
  FROM sample.team t JOIN sample.unit u ON u.gid = t.unit WHERE t.known

-- fill tb_vinculacao_equipes
SELECT t.gid AS "#", row_number() OVER (ORDER BY t.gid) AS co_seq_vinculacao_equipes, t.id AS co_equipe_principal
  FROM sample.team t
 WHERE t.known AND t.n = 1

-- fill rl_unidade_saude_complexidade
SELECT u.gid AS "#", u.id AS co_ator_papel, 1 + u.gid % 7 AS co_complexidade FROM sample.unit u WHERE u.known

-- fill rl_unidade_saude_tipo_servico
SELECT u.gid AS "#", u.id AS co_ator_papel, s.co_seq_tipo_servico AS tp_servico
  FROM sample.unit u, tb_tipo_servico s
 WHERE u.known AND (s.co_seq_tipo_servico + u.gid) % 2 = 0

-- fill tb_ator
SELECT p.gid AS "#", p.user_id AS co_seq_ator FROM sample.professional p

-- fill tb_usuario
SELECT p.gid AS "#", p.user_id AS co_seq_usuario, 0 AS st_bloqueado, 0 AS st_forcar_troca_senha,
       0 AS nr_tentativas_acesso, p.cpf AS ds_login,
       (SELECT hash FROM sample.password w WHERE w.n = p.gid % 6) AS ds_senha, p.user_id AS co_ator, 0 AS st_termo_uso
  FROM sample.professional p

-- fill tb_prof
SELECT p.gid AS "#", p.id AS co_seq_prof, p.cpf AS nu_cpf, p.cns AS nu_cns, p.name AS no_civil_profissional,
       p.name_filter AS no_profissional_filtro,
       CASE p.sex WHEN 0 THEN 'FEMININO' ELSE 'MASCULINO' END AS no_sexo, p.user_id AS co_usuario,
       'profissional' || p.gid || '@exemplo.invalid' AS ds_email,
       date '1985-01-01' - (p.gid % 5000)::int AS dt_nascimento
  FROM sample.professional p

-- fill tb_prof_historico_cns
SELECT p.gid AS "#", p.id AS co_seq_prof_historico_cns, p.id AS co_prof, p.cns AS nu_cns FROM sample.professional p

-- fill rl_prof_municipio
SELECT p.gid AS "#", p.id AS co_ator_papel, 1 AS co_localidade FROM sample.professional p

-- fill tb_ator_papel
SELECT l.gid AS "#", l.id AS co_seq_ator_papel, text 'LOTACAO' AS no_tipo_ator_papel, p.id AS co_prof, 1 AS st_ativo
  FROM sample.post l JOIN sample.professional p ON p.gid = l.prof WHERE l.known

-- Roles without a post; their keys are those of tb_ator_papel.
INSERT INTO tb_ator_papel (co_seq_ator_papel, no_tipo_ator_papel, co_prof, st_ativo)
SELECT n, ('{ADMINISTRADOR_GERAL,ADMINISTRADOR_MUNICIPAL,GESTOR_MUNICIPAL,GESTOR_MUNICIPAL,ESTAGIO}'::text[])[n], n, 1
  FROM generate_series(1, 5) n;
INSERT INTO tb_adm_geral VALUES (1, 1);
INSERT INTO tb_adm_municipal (co_ator_papel, co_localidade, ds_autorizacao, st_instalacao_terminada, dt_adicao)
SELECT 2, 1, md5('autorização' || sample.me()), 1, '2022-03-01';
INSERT INTO tb_gestor_municipal VALUES (3, 1), (4, 1);
INSERT INTO tb_estagio VALUES (5);

-- fill tb_lotacao
SELECT l.gid AS "#", l.id AS co_ator_papel, c.co_cbo, p.id AS co_prof, u.id AS co_unidade_saude, t.id AS co_equipe,
       l.code AS co_unico_lotacao,
       CASE WHEN l.gid % 11 = 0 THEN timestamp '2025-06-30' END AS dt_desativacao_lotacao,
       text 'SINCRONIZADO' AS st_sincronizacao
  FROM sample.post l
  JOIN sample.professional p ON p.gid = l.prof
  JOIN sample.unit u ON u.gid = l.unit
  JOIN sample.team t ON t.gid = l.team
  JOIN tb_cbo c ON c.co_cbo_2002 = l.cbo
 WHERE l.known

-- fill tb_cds_prof
SELECT l.gid AS "#", l.cds_id AS co_seq_cds_prof, l.cns AS nu_cns, l.cnes AS nu_cnes, l.ine AS nu_ine,
       l.cbo AS nu_cbo_2002, l.cds_code AS co_unico_cds_prof
  FROM sample.post l WHERE l.known

-- fill tb_perfil
SELECT n AS "#", sample.local_id(n, 24) AS co_seq_perfil, CASE WHEN n <= 20 THEN 'PERFIL ' || n
           ELSE 'PERFIL DA CASA ' || sample.me() || ' ' || n END AS no_perfil,
       CASE WHEN n <= 20 THEN 'PERFIL_PADRAO_' || n END AS no_perfil_padrao, 1 AS co_localidade, 1 AS st_ativo,
       text 'LOTACAO' AS no_tipo_perfil
  FROM generate_series(1, 24) n

-- fill tb_perfil_recurso
SELECT p.co_seq_perfil * 100 + n AS "#", row_number() OVER (ORDER BY p.co_seq_perfil, n) AS co_seq_perfil_recurso,
       p.co_seq_perfil AS co_perfil,
       'recurso.' || n AS no_recurso
  FROM tb_perfil p, generate_series(1, 12) n

-- fill rl_perfil_cbo_padrao
SELECT n AS "#", n AS co_cbo, 'PERFIL_PADRAO_' || n AS no_perfil_padrao FROM generate_series(1, 20) n

-- fill rl_ator_papel_perfil
SELECT a.co_seq_ator_papel AS "#", a.co_seq_ator_papel AS co_ator_papel,
       sample.local_id(1 + (a.co_seq_ator_papel + n) % 24, 24) AS co_perfil
  FROM tb_ator_papel a, generate_series(0, 1) n

-- fill tb_imunobiologico_lote
SELECT u.gid * 100 + lot AS "#", row_number() OVER (ORDER BY u.gid, lot) AS co_seq_imunobiologico_lote,
       u.id AS co_unidade_saude, 'LT' || u.gid || '-' || lot AS ds_lote,
       1 AS st_ativo, f.co_seq_imunobiologico_fabrcnt AS co_imunobiologico_fabricante,
       1 + lot % 102 AS co_imunobiologico
  FROM sample.unit u
 CROSS JOIN generate_series(1, 12) lot
  JOIN (SELECT co_seq_imunobiologico_fabrcnt, row_number() OVER (ORDER BY no_fabricante COLLATE "C") AS k
          FROM tb_imunobiologico_fabricante) f ON f.k = 1
           + (lot - 1) * 5 % 61
 WHERE u.inst = sample.me()

-- fill tb_nodo bare
SELECT n AS "#", n AS co_nodo, 'nodo-' || sample.me() || '-' || n || '.exemplo.invalid' AS no_servidor,
       'NODO ' || n AS ds_nome, 1 AS st_ativo, 1 AS st_conexao
  FROM generate_series(1, 3) n

-- fill tb_cfg_certificado
SELECT 1 AS "#", 1 AS co_seq_cfg_certificado, md5('certificado' || sample.me()) AS ds_senha_certificado

-- fill tb_servidor_smtp
SELECT 1 AS "#", 1 AS co_seq_servidor_smtp, text 'smtp.exemplo.invalid' AS no_host, text '587' AS nu_porta,
       text 'usuario' AS ds_usuario, md5('smtp' || sample.me()) AS ds_senha, text 'pec@exemplo.invalid' AS ds_email, 1 AS st_ativo

-- fill tb_integracao_horus
SELECT u.gid AS "#", u.id AS co_unidade_saude, timestamp '2024-03-04 08:00' AS dt_habilitar_integracao, 1 AS st_ativo
  FROM sample.unit u WHERE u.inst = sample.me() AND u.gid % 2 = 0

-- fill tb_credencial_integracao
SELECT 1 AS "#", 1 AS co_seq_credencial_integracao

-- fill tb_sistema_externo
SELECT 1 AS "#", 1 AS co_seq_sistema_externo

-- fill tb_cbo_atend
SELECT n AS "#", n AS co_seq_cbo_atend, n AS co_cbo, 1 AS co_localidade, 20 AS qt_tempo_consulta
  FROM generate_series(1, 3) n

-- fill tb_cfg_agenda
SELECT l.gid AS "#", row_number() OVER (ORDER BY l.gid) AS co_seq_config_agenda, l.id AS co_entidade_configurada,
       1 AS co_tipo_cfg_agenda
  FROM sample.post l WHERE l.inst = sample.me()

-- fill tb_cfg_agenda_detalhe
SELECT a.co_seq_config_agenda * 10 + n AS "#",
       row_number() OVER (ORDER BY a.co_seq_config_agenda, n) AS co_seq_config_agenda_detalhe,
       n AS co_dia_semana, 1 + n % 4 AS co_periodo,
       text '08:00' AS horario_inicial, text '12:00' AS horario_final, a.co_seq_config_agenda AS co_cfg_agenda
  FROM tb_cfg_agenda a, generate_series(1, 5) n

-- fill tb_cfg_agenda_municipal
SELECT 1 AS "#", 1 AS co_seq_cfg_agenda_municipal, 1 AS co_localidade, 20 AS nu_duracao_atendimento_padrao

-- fill tb_config_atencao_domiciliar
SELECT 1 AS "#", 1 AS co_seq_config_atencao_domicilr, 1 AS co_localidade

-- fill tb_cfg_agenda_online_detalhe
SELECT l.gid * 10 + n AS "#", row_number() OVER (ORDER BY l.gid, n) AS co_seq_cfg_agenda_online_dtlh,
       l.id AS co_lotacao, n AS co_dia_semana, text '09:00' AS ds_horario,
       sample.uuid(l.gid * 10 + n, 30) AS uuid_horario_agenda_online
  FROM sample.post l, generate_series(1, 2) n WHERE l.inst = sample.me()

-- fill tb_config_agenda_fechamento
SELECT l.gid AS "#", row_number() OVER (ORDER BY l.gid) AS co_seq_config_agenda_fechament, l.id AS co_lotacao,
       timestamp '2025-12-20 08:00' AS dt_inicio,
       timestamp '2025-12-31 18:00' AS dt_fim, sample.uuid(l.gid, 31) AS uuid_fechamento
  FROM sample.post l WHERE l.inst = sample.me() AND l.seq <= 2

-- fill tb_agenda_fixada_ator_papel
SELECT l.gid AS "#", row_number() OVER (ORDER BY l.gid) AS co_seq_ag_fixada_ator_papel, l.id AS co_ator_papel
  FROM sample.post l
 WHERE l.inst = sample.me() AND l.seq <= 4

-- fill tb_atestado_modelo
SELECT n AS "#", n AS co_seq_atestado_modelo FROM generate_series(1, 3) n

-- fill tb_modelo_personalizado
SELECT n AS "#", n AS co_seq_modelo_personalizado FROM generate_series(1, 7) n

-- fill tb_grupo_ativ_col
SELECT g AS "#", g AS co_seq_grupo_ativ_col, sample.uuid(sample.me() * 100 + g, 32) AS co_unico_grupo, u.cnes AS nu_cnes
  FROM generate_series(1, 2) g, sample.unit u WHERE u.inst = sample.me() AND u.n = 1

-- fill tb_topico_notificacao
SELECT n AS "#", n AS co_seq_topico_notificacao FROM generate_series(1, 16) n

-- fill tb_processo
SELECT n AS "#", n AS co_seq_processo, text 'CONCLUIDO' AS st_processo FROM generate_series(1, 6) n

-- fill tb_importacao_cnes
SELECT n AS "#", n AS co_seq_importacao_cnes, timestamp '2025-07-20 09:00' + n * interval '1 month' AS dt_relatorio,
       1 AS co_prof, n AS co_processo, 1 AS co_localidade, 1 AS co_ator_papel_bkp
  FROM generate_series(1, 3) n

-- fill tb_report_etl_configs
SELECT n AS "#", 'etl.chave.' || n AS co_chave FROM generate_series(1, 110) n

-- fill tb_rel_fichas_config
SELECT n AS "#", n AS co_relatorio_ficha FROM generate_series(1, 14) n

-- fill rl_recurso_acao
SELECT n AS "#", 1 + n / 2 AS co_recurso, n % 2 AS nu_acao, 0 AS nu_obrigacao FROM generate_series(1, 300) n
