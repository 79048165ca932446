-- What a newer PEC might bring: references that nothing declares, under names of every difficulty, and columns that only
-- look like references. Only samples made with planted=True have them. Statements are separated by one blank line.

-- The words of the key, after a prefix that says nothing, with more words behind.
ALTER TABLE tb_agendado ADD nu_prontuario_origem bigint;
UPDATE tb_agendado SET nu_prontuario_origem = co_prontuario WHERE co_seq_agendado % 3 > 0;

ALTER TABLE tb_atend ADD id_lotacao_triagem bigint;
UPDATE tb_atend a SET id_lotacao_triagem = l.keys[1 + a.co_seq_atend % array_length(l.keys, 1)]
  FROM (SELECT array_agg(co_ator_papel ORDER BY co_ator_papel) AS keys FROM tb_lotacao) l;

-- Vowels dropped, as in names of more than 30 characters.
ALTER TABLE tb_encaminhamento ADD nu_atnd_prof_orgm bigint;
UPDATE tb_encaminhamento SET nu_atnd_prof_orgm = co_atend_prof;

ALTER TABLE tb_vacinacao ADD nu_prntro_acompanhado numeric(12);
UPDATE tb_vacinacao SET nu_prntro_acompanhado = co_prontuario;

-- Numbers as text.
ALTER TABLE tb_medicao ADD ds_atend_prof_revisor varchar(20);
UPDATE tb_medicao SET ds_atend_prof_revisor = co_atend_prof::text WHERE co_seq_medicao % 4 > 0;

-- To its own table.
ALTER TABLE tb_cidadao ADD nu_cidadao_responsavel bigint;
UPDATE tb_cidadao SET nu_cidadao_responsavel = co_seq_cidadao - 1 WHERE co_seq_cidadao % 5 = 0;

-- To a key that is not the primary key; the name would fit that as well.
ALTER TABLE tb_receita_medicamento ADD nu_problema_tratado bigint;
UPDATE tb_receita_medicamento r SET nu_problema_tratado = p.keys[1 + r.co_seq_receita_medicamento % array_length(p.keys, 1)]
  FROM (SELECT array_agg(co_unico_problema ORDER BY co_unico_problema) AS keys FROM tb_problema) p;

-- A table of its own, whose keys are sparse: the application takes them from one sequence for many tables.
CREATE TABLE tb_teleconsulta (
    co_seq_teleconsulta bigint PRIMARY KEY,
    nu_ciddo bigint,
    nu_sequencia integer,
    nu_ordem_lotacao integer,
    qt_atend_prof integer,
    ds_contato varchar(20)
);
INSERT INTO tb_teleconsulta
SELECT 900000 + c.co_seq_cidadao * 97 + c.co_seq_cidadao * c.co_seq_cidadao % 89, c.co_seq_cidadao,
       row_number() OVER (ORDER BY c.co_seq_cidadao), c.co_seq_cidadao % 9, c.co_seq_cidadao % 40,
       (99990000 + c.co_seq_cidadao)::text
  FROM tb_cidadao c WHERE c.co_seq_cidadao % 3 = 0;

-- A name that says nothing of it.
CREATE TABLE tb_teleconsulta_anexo (
    co_seq_teleconsulta_anexo bigint PRIMARY KEY,
    vl_protocolo bigint,
    nu_pagina integer
);
INSERT INTO tb_teleconsulta_anexo
SELECT row_number() OVER (ORDER BY co_seq_teleconsulta), co_seq_teleconsulta, co_seq_teleconsulta % 50
  FROM tb_teleconsulta WHERE nu_sequencia % 2 = 0;

-- The history of a table that is gone.
CREATE TABLE ta_consulta_remota (
    co_seq_taconsultaremota bigint PRIMARY KEY,
    co_tipo_auditoria varchar(1) NOT NULL,
    dt_auditoria timestamp NOT NULL,
    nu_teleconsulta bigint
);
INSERT INTO ta_consulta_remota
SELECT row_number() OVER (ORDER BY co_seq_teleconsulta), 'I', '2025-10-31', co_seq_teleconsulta
  FROM tb_teleconsulta WHERE nu_sequencia % 4 > 0;
