-- The installation goes on living for a moment: sequences ahead of the data, edits that fire the audit triggers,
-- deleted rows that audit still names, materialised views filled.

SELECT setval(sequence::regclass, top + 1 + length(sequence) % 20) FROM sample.sequence WHERE top IS NOT NULL;

-- One row at a time, so that the audit rows come in one order on every version.
SET session_replication_role = origin;
UPDATE tb_cidadao SET nu_telefone_contato = '00000000' WHERE co_seq_cidadao = 3;
UPDATE tb_cidadao SET nu_telefone_contato = '00000000' WHERE co_seq_cidadao = 8;
UPDATE tb_prontuario SET qt_referencia = 1 WHERE co_seq_prontuario = 2;
UPDATE tb_tipo_servico SET st_interno = 1 WHERE co_seq_tipo_servico = 2;
UPDATE tb_lotacao SET st_importada = 1 WHERE co_ator_papel = 7;
DELETE FROM tb_agendado WHERE co_seq_agendado IN (SELECT max(co_seq_agendado) FROM tb_agendado g
   WHERE NOT EXISTS (SELECT 1 FROM tb_atend a WHERE a.co_agendado = g.co_seq_agendado)
     AND NOT EXISTS (SELECT 1 FROM tb_justificativa_agenda j WHERE j.co_agendamento = g.co_seq_agendado)
     AND NOT EXISTS (SELECT 1 FROM tb_agend_compartilhado c WHERE c.co_agend_principal = g.co_seq_agendado));
DELETE FROM tb_animais_domicilio WHERE co_seq_animais_domicilio = 4;
SET session_replication_role = replica;

-- The triggers wrote the time of day.
UPDATE ta_cidadao SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';
UPDATE ta_prontuario SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';
UPDATE ta_tipo_servico SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';
UPDATE ta_lotacao SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';
UPDATE ta_agendado SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';
UPDATE ta_animais_domicilio SET dt_auditoria = '2025-10-31 10:00' WHERE dt_auditoria > '2025-12-31';

REFRESH MATERIALIZED VIEW mv_busca_ativa_gestante;
REFRESH MATERIALIZED VIEW mv_busca_ativa_hipertensao;
REFRESH MATERIALIZED VIEW mv_busca_ativa_diabetes;
REFRESH MATERIALIZED VIEW mv_busca_ativa_crianca;
REFRESH MATERIALIZED VIEW mv_busca_ativa_vacinacao;
REFRESH MATERIALIZED VIEW mv_busca_ativa_saude_bucal;
