-- Catalogs. Under "rows", a table with as many rows as given (in the demo, and at full scale if that is another
-- number); "local" catalogs have other keys in each installation for the rows that later migrations added.
-- "fill" completes the columns of a SELECT with plausible values; "#" is the number that decides them.

-- fill tb_pais 20 346
SELECT n AS "#", n AS co_pais,
       CASE n WHEN 1 THEN 'BR' ELSE chr((65 + n / 26 % 26)::int) || chr((65 + n % 26)::int) END AS sg_pais_2,
       CASE n WHEN 1 THEN 'BRASIL' ELSE 'PAÍS SINTÉTICO ' || n END AS no_pais_portugues, 1 AS st_ativo
  FROM generate_series(1, @rows@) n

-- rows
-- tb_tipo_localidade 4
-- tb_situacao_localidade 4
-- tb_tipo_paridade 5

-- fill tb_uf 27
SELECT n AS "#", n AS co_uf, 1 AS co_pais, chr((65 + n / 9)::int) || chr((65 + n % 9)::int) AS sg_uf,
       lpad(n::text, 2, '0') AS nu_dne,
       'ESTADO SINTÉTICO ' || n AS no_uf, lpad(n::text, 2, '0') AS no_identificador
  FROM generate_series(1, @rows@) n

-- fill tb_localidade 120 11412
SELECT n AS "#", n AS co_localidade, 1 + n % 27 AS co_uf, lpad(n::text, 8, '0') AS nu_dne,
       'MUNICÍPIO SINTÉTICO ' || n AS no_localidade,
       '99' || lpad(n::text, 5, '0') AS co_ibge, 1 AS st_ativo
  FROM generate_series(1, @rows@) n

-- fill tb_bairro 200 74400
SELECT n AS "#", n AS co_bairro, 1 + n % 120 AS co_localidade, lpad(n::text, 8, '0') AS nu_dne,
       'BAIRRO ' || sample.word(n) || ' ' || n AS no_bairro
  FROM generate_series(1, @rows@) n

-- rows
-- tb_tipo_logradouro 60 393
-- tb_titulo_patente 60 858

-- fill tb_logradouro 1000 1337776
SELECT n AS "#", n AS co_logradouro, lpad(n::text, 8, '0') AS nu_dne, sample.word(n) || ' ' || n AS no_logradouro,
       '99' || lpad((n % 1000000)::text, 6, '0') AS nu_cep, 1 + n % 60 AS tp_logradouro, text 'S' AS sg_tipo_registro,
       lower('rua ' || sample.plain(sample.word(n)) || ' ' || n) AS no_logradouro_filtro,
       'RUA ' || sample.word(n) || ' ' || n AS no_logradouro_exibicao,
       lpad((1 + n % 200)::text, 8, '0') AS co_bairro_dne
  FROM generate_series(1, @rows@) n

-- fill tb_inep 200 284442
SELECT n AS "#", n AS co_inep, lpad(n::text, 8, '0') AS ds_inep, 1 + n % 120 AS co_localidade,
       'ESCOLA SINTÉTICA ' || n AS no_estabelecimento
  FROM generate_series(1, @rows@) n

-- rows
-- tb_etnia 60 406
-- tb_raca_cor 6
-- tb_sexo 6
-- tb_nacionalidade 3
-- tb_escolaridade 15
-- tb_estado_civil 5
-- tb_povo_comunidade_tradicional 39
-- tb_grau_parentesco 10
-- tb_renda_familiar 8
-- tb_beneficio 7
-- tb_funcao_social 6
-- tb_dsei 35
-- tb_polo_base 40 395
-- tb_terra_indigena 40 810
-- tb_aldeia 60 7877
-- tb_cnes 1

-- fill tb_cbo 120 2720
SELECT n AS "#", n AS co_cbo, CASE WHEN n <= 7
           THEN ('{515105,223565,225142,322245,223293,322405,223505}'::text[])[n]
            ELSE lpad((100000 + n)::text, 6, '0') END AS co_cbo_2002,
       'OCUPAÇÃO SINTÉTICA ' || n AS no_cbo, 1 AS st_disponivel_lotacao
  FROM generate_series(1, @rows@) n

-- rows
-- tb_tipo_agravo 3
-- tb_conselho_classe 12

-- fill tb_cid10 400 14240
SELECT n AS "#", n AS co_cid10, chr((65 + n / 700 % 26)::int) || lpad((n % 700)::text, 3, '0') AS nu_cid10,
       1 + n % 3 AS tp_agravo,
       'DOENÇA SINTÉTICA ' || n AS no_cid10, 1 AS st_ativo, (NULL::text) AS no_sexo
  FROM generate_series(1, @rows@) n

-- fill tb_ciap 120 750
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_ciap,
       CASE n WHEN 1 THEN 'K86' WHEN 2 THEN 'K87' WHEN 3 THEN 'T89' WHEN 4 THEN 'T90' WHEN 5 THEN 'W78'
           ELSE chr((65 + n / 90)::int) || lpad((n % 90)::text, 2, '0') END AS co_ciap,
       'PROBLEMA SINTÉTICO ' || n AS ds_ciap, 1 + n % 400 AS co_cid10_encaminhamento, (NULL::text) AS no_sexo
  FROM generate_series(1, @rows@) n

-- fill tb_ciap_dab 12
SELECT n AS "#", c.co_seq_ciap AS co_ciap, 'A' || lpad(n::text, 2, '0') AS nu_ciap_ms
  FROM generate_series(1, @rows@) n JOIN tb_ciap c ON c.ds_ciap = 'PROBLEMA SINTÉTICO ' || n

-- rows
-- tb_ciap_componente 7
-- tb_tipo_ciap 7

-- fill tb_ciap_capitulo 18
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_ciap_capitulo, chr(64 + n) AS co_capitulo,
       'CAPÍTULO SINTÉTICO ' || n AS ds_capitulo
  FROM generate_series(1, @rows@) n

-- fill tb_ciap_ms 100
SELECT n AS "#", c.co_seq_ciap AS co_ciap
  FROM generate_series(13, 12 + @rows@) n
  JOIN tb_ciap c ON c.ds_ciap = 'PROBLEMA SINTÉTICO ' || n

-- fill rl_ciap_cid10 120
SELECT n AS "#", c.co_seq_ciap AS co_ciap, n AS co_cid10
  FROM generate_series(1, @rows@) n
  JOIN tb_ciap c ON c.ds_ciap = 'PROBLEMA SINTÉTICO ' || n

-- rows
-- tb_proced_grupo 9
-- tb_proced_subgrupo 67
-- tb_proced_forma_organizacional 80 409
-- tb_complexidade 7
-- tb_tipo_registro 10
-- tb_atributo_complem 43
-- tb_proced_exame_especifico 16

-- fill tb_proced 300 5121
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_proced, '99' || lpad((n * 7)::text, 8, '0') AS co_proced,
       'PROCEDIMENTO SINTÉTICO ' || n AS no_proced,
       0 AS nu_idade_minima, 9999 AS nu_idade_maxima, text '202510' AS dt_competencia, 1 AS st_ativo,
       1 AS st_idade_aplicavel,
       1 + n % 7 AS co_complexidade, 1 + n % 9 AS co_proced_grupo, 1 + n % 67 AS co_proced_subgrupo,
       1 + n % 80 AS co_proced_forma_organizacional,
       '99' || lpad((n * 7)::text, 8, '0') AS co_proced_filtro,
       CASE WHEN n % 10 = 0 THEN sample.local_id(n - 1, @rows@) END AS co_proced_ref_sigtap,
       (CASE WHEN n % 3 = 0 THEN 1 ELSE 0 END) AS st_exame
  FROM generate_series(1, @rows@) n

-- fill tb_proced_filtro 90
SELECT n AS "#", p.co_seq_proced AS co_proced
  FROM generate_series(1, @rows@) n
  JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || n

-- fill rl_proced_cbo 1500 196246
SELECT p.co_seq_proced * 1000 + c AS "#", p.co_seq_proced AS co_proced, c AS co_cbo, text '202510' AS dt_competencia,
       1 AS st_ativo
  FROM tb_proced p,
       generate_series(1, least(@rows@ / (SELECT count(*) FROM tb_proced), (SELECT count(*) FROM tb_cbo))) c

-- fill rl_proced_cid10 600 81765
SELECT p.co_seq_proced * 1000 + c AS "#", p.co_seq_proced AS co_proced, c AS co_cid10, text '202510' AS dt_competencia,
       1 AS st_ativo, c % 2 AS st_cid_principal
  FROM tb_proced p, generate_series(1, @rows@ / (SELECT count(*) FROM tb_proced)) c

-- fill rl_proced_tipo_registro 600 7185
SELECT p.co_seq_proced AS "#", p.co_seq_proced AS co_proced, t AS tp_registro, text '202510' AS dt_competencia, 1 AS st_ativo
  FROM tb_proced p, generate_series(1, 2) t

-- fill rl_proced_atributo_complem 300 8819
SELECT p.co_seq_proced AS "#", p.co_seq_proced AS co_proced, a AS co_atributo_complem, text '202510' AS dt_competencia,
       1 AS st_ativo
  FROM tb_proced p, generate_series(1, 1) a

-- fill tb_proced_automatico 60
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_proced_automatico, p.co_seq_proced AS co_proced,
       1 + n % 4 AS co_cbo
  FROM generate_series(1, @rows@) n JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || n

-- rows
-- tb_grupo_exame 5 local
-- tb_tipo_opcao 5
-- tb_exame_detalhe 1 local
-- tb_forma_farmaceutica 40 116
-- tb_aplicacao_medicamento 28
-- tb_unidade_medida 51
-- tb_unidade_medida_tempo 5
-- tb_receita_tipo_frequencia 4
-- tb_tipo_receita 5
-- tb_lista_medicamento 14
-- tb_principio_ativo 100 1488

-- fill rl_proced_grupo_exame 20
SELECT n AS "#", n AS co_seq_proced_grupo_exame, p.co_seq_proced AS co_proced, 1 + n % 3 AS co_grupo_exame
  FROM generate_series(1, @rows@) n JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || n

-- fill rl_proced_exame_detalhe 1
SELECT n AS "#", n AS co_seq_proced_exame_detalhe, p.co_seq_proced AS co_proced,
       sample.local_id(1, 1) AS co_exame_detalhe
  FROM generate_series(1, @rows@) n JOIN tb_proced p ON p.no_proced = 'PROCEDIMENTO SINTÉTICO ' || n

-- fill tb_medicamento 250 11190
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_medicamento, 'PRINCÍPIO SINTÉTICO ' || n AS no_principio_ativo,
       n || ' mg' AS ds_concentracao,
       text 'COMPRIMIDO' AS ds_unidade_fornecimento
  FROM generate_series(1, @rows@) n

-- fill tb_medicamento_catmat 120 3348
SELECT n AS "#", n AS co_medicamento_catmat, 1 + n % 100 AS co_principio_ativo, 1 + n % 51 AS co_unidade_fornecimento,
       'BR' || lpad(n::text, 7, '0') AS co_catmat,
       m.co_seq_medicamento AS co_medicamento
  FROM generate_series(1, @rows@) n JOIN tb_medicamento m ON m.no_principio_ativo = 'PRINCÍPIO SINTÉTICO ' || n

-- rows
-- tb_classe_imunobiologico 3
-- tb_imunobiologico 102
-- tb_dose_imunobiologico 82
-- tb_estrategia_vacinacao 15
-- tb_grupo_atendimento 108
-- tb_via_adm_vacina 6
-- tb_local_apl_vacina 21
-- tb_faixa_etaria_vacinacao 60 225
-- tb_grupo_alvo_vacinacao 10
-- tb_calendario_vacinal 66
-- tb_tipo_registro_vacinacao 2
-- tb_imunobiologico_fabricante 60 128 local
-- tb_regra_vacinal_dose 120 487
-- tb_regra_vacinal_estrategia 200 1605
-- tb_categ_substancia_alergia 4 local
-- tb_substancia_cbara 60 152 local
-- tb_substancia_espec_alergia 25 local
-- tb_manifestacao_alergia 28 local
-- tb_grau_certeza_alergia 5 local
-- tb_tipo_reacao_alergia 2 local
-- tb_criticidade_alergia 3
-- tb_categoria_agente_causador 7
-- tb_ad_destino 9 local
-- tb_ad_modalidade 5 local
-- tb_ad_origem 8
-- tb_ad_tipo_elegivel 4
-- tb_ad_tipo_inelegivel 5
-- tb_grupo_condicao_saude 21 local
-- tb_ivcf_perguntas 24 local
-- tb_opcoes_result_exm_qlitativo 3 local
-- tb_recurso 203 local
-- tb_tipo_origem_dado_transp 8 local
-- tb_proced_nome_popular 10 local
-- tb_contexto_pergunta 2
-- tb_tipo_pergunta 4

-- fill tb_pergunta 82
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_pergunta, 'Pergunta sintética ' || n AS ds_pergunta,
       1 + n % 2 AS co_contexto_pergunta, 1 + n % 4 AS tp_pergunta,
       CASE WHEN n % 8 = 0 THEN sample.local_id(n - 1, @rows@) END AS co_pergunta_pai
  FROM generate_series(1, @rows@) n

-- fill tb_pergunta_detalhe 193
SELECT n AS "#", n AS co_pergunta_detalhe, sample.local_id(1 + n % 82, 82) AS co_pergunta
  FROM generate_series(1, @rows@) n

-- rows
-- tb_cds_tipo_cuidador 8
-- tb_cds_tipo_imovel 14
-- tb_cds_tipo_situacao_presente 24
-- tb_cds_tipo_vig_saude_bucal 7
-- tb_cds_tipo_conduta 14
-- tb_cds_tipo_atend_nasf 3
-- tb_cds_tipo_ativ_col 7
-- tb_cds_turno 3
-- tb_cds_visita_dom_desfecho 3
-- tb_cds_visita_dom_motivo 38
-- tb_cds_aleitamento_materno 4
-- tb_cds_pic 8
-- tb_cds_ativ_col_pratica 32
-- tb_cds_ativ_col_publico_alvo 18
-- tb_cds_ativ_col_tema 7
-- tb_cds_adm_medicamento 6
-- tb_alim_bebida 10
-- tb_tipo_endereco 3
-- tb_tipo_abastecimento_agua 9
-- tb_tipo_acesso_domicilio 4
-- tb_tipo_situacao_moradia 9
-- tb_tipo_destino_lixo 6
-- tb_tipo_domicilio 6
-- tb_tipo_escoamento_sanitar 6
-- tb_tipo_material_parede 12
-- tb_tipo_origem_energia_eletric 5
-- tb_tipo_posse_terra 10
-- tb_tipo_terra 2
-- tb_tipo_tratamento_agua 8
-- tb_tipo_area 2
-- tb_tipo_localizacao 3
-- tb_local_atend 19
-- tb_local_ocorrencia 4
-- tb_tipo_atend 9
-- tb_tipo_atend_prof 12
-- tb_tipo_participacao_atend 7
-- tb_tipo_encam_interno 3
-- tb_tipo_consulta_odonto 5
-- tb_tipo_encam_odonto 19
-- tb_tipo_fornec_odonto 3
-- tb_tipo_parte_bucal 6
-- tb_parte_bucal 82
-- tb_tipo_glicemia 4
-- tb_tipo_gravidez 4
-- tb_tipo_parto 3
-- tb_tipo_edema 4
-- tb_tipo_exame 3
-- tb_tipo_agendamento 2
-- tb_tipo_cfg_agenda 3
-- tb_tipo_atividade 7
-- tb_tipo_config_atend_domicilir 2
-- tb_tipo_topico_notificacao 2
-- tb_status_atend 8
-- tb_status_atend_prof 2
-- tb_status_assinatura 4
-- tb_status_cuidado_compartilhad 3
-- tb_status_revisao_atend 4
-- tb_situacao_agendado 7
-- tb_situacao_dado_recebido 7
-- tb_situacao_lote_transp_nodo 4
-- tb_situacao_coroa 3
-- tb_situacao_face 23
-- tb_situacao_raiz 16
-- tb_classificacao_risco 10
-- tb_classificacao_risco_encam 4
-- tb_classificacao_prioridade_cc 4
-- tb_conduta_cuidado_compartilhd 13
-- tb_racionalidade_saude 6
-- tb_motivo_reserva 4
-- tb_origem 4
-- tb_visibilidade_lembrete 2
-- tb_grupo_especialidade 3
-- tb_especialidade_sisreg 76
-- tb_antecedente_tipo_item 28
-- tb_cronicidade 3
-- tb_gravidade 3
-- tb_dia_semana 7
-- tb_periodo 4
-- tb_pratica_saude 14
-- tb_publico_alvo 17
-- tb_tema_reuniao 7
-- tb_tema_saude 18
-- tb_tecido_mole_lesao 34
-- tb_mchat_pergunta 20
-- tb_ficha_zika_tipo_exame 18
-- tb_neuro_alter_fenot_detalhe 8
-- tb_neuro_fator_risco_detalhe 10
-- tb_neuro_faixa_etaria 18
-- tb_neuro_marco_detalhe 75
-- tb_lista_espera_motivo_saida 6
-- tb_lista_espera_tipo_atend 4
-- tb_categoria_arquivo_atendprof 6
-- tb_qst_tipo_questionario 1
-- tb_qst_tipo_resposta 4
-- tb_qst_opcao_tipo_pergunta 17
-- tb_qst_orientacao_prof 27
-- tb_qst_pergunta 41
-- tb_qst_questionario 3
-- tb_qst_questionario_pergunta 41
-- tb_qst_opcao_pergunta 122
-- tb_qst_associacao_pergunta 3
-- tb_sinan_notificacao 102
-- tb_parte_bucal_cid10 80 712
-- tb_parte_bucal_proced 100 2456
-- rl_aldeia_localidade 60 7877
-- rl_grupo_condicao_ciap_cid 60 1343
-- rl_calendario_vacnl_grupo_alvo 60 273

-- fill tb_arcada 2
SELECT n AS "#", n AS co_parte_bucal FROM generate_series(1, @rows@) n

-- fill tb_sextante 6
SELECT n AS "#", 2 + n AS co_parte_bucal, 1 + n % 2 AS co_arcada FROM generate_series(1, @rows@) n

-- fill tb_dente 52
SELECT n AS "#", 8 + n AS co_parte_bucal, 3 + n % 6 AS co_sextante, n AS nu_dente FROM generate_series(1, @rows@) n

-- fill tb_cds_tipo_origem 7
SELECT n AS "#", n AS co_cds_tipo_origem,
       ('{CDS_OFFLINE,CDS_ONLINE,PEC,SISTEMA_EXTERNO,ESUS_TERRITORIO,ESUS_ATIVIDADE_COLETIVA,ESUS_VACINACAO}'::text[])
           [n + 1] AS no_identificador
  FROM generate_series(0, @rows@ - 1) n

-- fill tb_situacao_problema 3
SELECT n AS "#", n AS co_situacao_problema, ('{ATIVO,LATENTE,RESOLVIDO}'::text[])[n + 1] AS no_situacao_problema
  FROM generate_series(0, @rows@ - 1) n

-- fill tb_tipo_dado_transp 16
SELECT n AS "#", n AS co_tipo_dado_transp, 'FICHA DO TIPO ' || n AS no_tipo_dado_transp
  FROM generate_series(1, @rows@) n

-- fill tb_tipo_unidade_saude 37
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_tipo_unidade_saude,
       'TIPO DE UNIDADE ' || n AS no_tipo_unidade_saude, n AS co_tipo_unidade_cnes
  FROM generate_series(1, @rows@) n

-- fill tb_subtipo_unidade_saude 49
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_subtp_unidade_saude,
       t.co_seq_tipo_unidade_saude AS co_tp_unidade_saude, lpad(n::text, 3, '0') AS co_subtp_unidade_saude,
       'SUBTIPO ' || n AS ds_subtp_unidade_saude
  FROM generate_series(1, @rows@) n JOIN tb_tipo_unidade_saude t ON t.co_tipo_unidade_cnes = 1 + n % 37

-- fill tb_tipo_equipe 67
SELECT n AS "#", sample.local_id(n, @rows@) AS co_seq_tipo_equipe,
       CASE WHEN n IN (6, 7) THEN 'EAP' ELSE 'E' || n END AS sg_tipo_equipe, 'TIPO DE EQUIPE ' || n AS no_tipo_equipe,
       lpad(n::text, 2, '0') AS nu_ms
  FROM generate_series(1, @rows@) n

-- fill rl_tipo_atend_proced_automatic 30
SELECT n AS "#", sample.local_id(n, 60) AS co_proced_automatico, 1 + n % 9 AS tp_atend FROM generate_series(1, @rows@) n

-- fill rl_via_adm_local_apl_vacina 42
SELECT n AS "#", 1 + n % 6 AS co_via_adm_vacina, 1 + n / 2 % 21 AS co_local_apl_vacina FROM generate_series(1, @rows@) n

-- Rows that only one side has: the source's own, and one of the central's own.
INSERT INTO tb_medicamento (co_seq_medicamento, no_principio_ativo, ds_concentracao, ds_unidade_fornecimento,
       no_principio_ativo_filtro)
SELECT max(co_seq_medicamento) + 1, 'PRINCÍPIO LOCAL ' || sample.me(), '1 mg', 'FRASCO',
       'principio local ' || sample.me()
  FROM tb_medicamento;
INSERT INTO tb_imunobiologico_fabricante (co_seq_imunobiologico_fabrcnt, no_fabricante, no_fabricante_filtro)
SELECT max(co_seq_imunobiologico_fabrcnt) + 1, 'FABRICANTE LOCAL ' || sample.me(), 'fabricante local ' || sample.me()
  FROM tb_imunobiologico_fabricante;
INSERT INTO tb_proced (co_seq_proced, no_proced, no_proced_filtro, nu_idade_minima, nu_idade_maxima, co_proced,
       dt_competencia, st_ativo, st_idade_aplicavel)
SELECT max(co_seq_proced) + 1, 'PROCEDIMENTO LOCAL ' || sample.me(), 'procedimento local ' || sample.me(), 0, 9999,
       '999999999' || sample.me(), '202510', 1, 1
  FROM tb_proced;

-- A code of the vendor whose description differs: an edition of the catalog between two versions.
UPDATE tb_cds_tipo_conduta SET no_cds_tipo_conduta = no_cds_tipo_conduta || ' (revisto)'
 WHERE co_cds_tipo_conduta = 3 AND sample.me() = 1;
UPDATE tb_local_atend SET no_local_atend = no_local_atend || ' (revisto)' WHERE co_local_atend = 5 AND sample.me() = 2;
