-- The made-up world: functions of (number, seed) that give the same value in every installation and on every
-- PostgreSQL version, and the people, units, professionals and fichas that the other files turn into rows.
-- Everything here lives in the schema "sample", which is dropped when the installation is filled.
-- A person, unit, professional or ficha has a world number; its key in an installation is another one.
-- The functions me, salt, sent_one_in and the tables installation, share, kind, password come from fill.py.

-- hashint8 is used by hash indexes on disk, so its values stay the same in every version.
CREATE FUNCTION sample.h(n bigint, k integer) RETURNS integer LANGUAGE sql IMMUTABLE AS
    'SELECT hashint8($1 * 1024 + $2 + sample.salt()) & 2147483647';

CREATE FUNCTION sample.uuid(n bigint, k integer) RETURNS text LANGUAGE sql IMMUTABLE AS
    'SELECT md5(sample.salt()::text || ''/'' || $1::text || ''/'' || $2::text)::uuid::text';

CREATE FUNCTION sample.plain(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT lower(translate($1, 'ÁÂÃÇÉÊÍÓÔÕÚáâãçéêíóôõú', 'AAACEEIOOOUaaaceeiooou')) $$;

-- CPF with valid check digits from the range 000.000.001 to 000.999.999.
CREATE FUNCTION sample.cpf(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    WITH b AS (SELECT lpad($1::text, 9, '0') AS d),
         w AS (SELECT d, sum(substr(d, i, 1)::int * (11 - i)) % 11 AS a, sum(substr(d, i, 1)::int * (12 - i)) AS s
                 FROM b, generate_series(1, 9) i GROUP BY d),
         x AS (SELECT d, s, CASE WHEN a < 2 THEN 0 ELSE 11 - a END AS one FROM w)
    SELECT d || one || CASE WHEN (s + 2 * one) % 11 < 2 THEN 0 ELSE 11 - (s + 2 * one) % 11 END FROM x $$;

-- CNS (provisional kind) with a valid check sum: 8980000, six digits, two digits that make the sum right.
CREATE FUNCTION sample.cns(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    WITH b AS (SELECT '8980000' || lpad($1::text, 6, '0') AS d),
         w AS (SELECT d, (11 - sum(substr(d, i, 1)::int * (16 - i)) % 11) % 11 AS r
                 FROM b, generate_series(1, 13) i GROUP BY d)
    SELECT d || CASE WHEN r = 10 THEN '18' ELSE '0' || r END FROM w $$;

CREATE FUNCTION sample.first_name(n integer, sex integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (CASE sex WHEN 0 THEN '{ANA,BEATRIZ,CLARA,DENISE,ELIANE,FÁTIMA,GLÓRIA,HELENA,INÊS,JOANA,LÍGIA,MARIA,NEUSA,
                                   OLGA,PAULA,RITA,SÔNIA,TEREZA,VERA,ZÉLIA}'::text[]
                     ELSE '{ANTÔNIO,BRUNO,CARLOS,DAVI,EDSON,FÁBIO,GERALDO,HUGO,IVAN,JOSÉ,LUIZ,MÁRIO,NELSON,OTÁVIO,
                            PEDRO,RAUL,SÉRGIO,TIAGO,VÍTOR,WILSON}'::text[] END)[1 + n % 20] $$;

CREATE FUNCTION sample.word(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ('{ACÁCIA,ANGICO,AROEIRA,BAMBU,BURITI,CAJÁ,CANELA,CEDRO,CIPÓ,COQUEIRO,DÁLIA,ESTRELA,FIGUEIRA,FLORESTA,GARÇA,
              GOIABA,IPÊ,JACARANDÁ,JASMIM,JATOBÁ,JUÁ,LAGOA,LIMA,LÍRIO,LUAR,MANACÁ,MANGUEIRA,MONTE,NEBLINA,ORVALHO,
              PAINEIRA,PALMEIRA,PEDRA,PEROBA,PITANGA,RIACHO,ROMÃ,SERENO,UMBU,VIOLETA}'::text[])[1 + n % 40] $$;

-- How many of n fichas a source has already sent to the central.
CREATE FUNCTION sample.sent(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS
    'SELECT ($1 + sample.sent_one_in() - 1) / sample.sent_one_in()';

-- Key of catalog row n of total: the rows that later migrations added have other keys in each installation.
CREATE FUNCTION sample.local_id(n bigint, total bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    'SELECT CASE WHEN sample.me() = 0 OR $1 <= $2 * 6 / 10 THEN $1
                 ELSE $2 + $2 * 6 / 10 + 1 - $1 + 3 * (sample.me() - 1) END';

-- Overlap: which citizens of a source are citizens of the central, and how.
CREATE UNLOGGED TABLE sample.person AS
SELECT w.number AS inst, i, w.number * 100000 + i AS gid,
       -- One in a hundred repeats the one before and was united with it.
       coalesce(s.kind, CASE WHEN i % 100 = 99 AND i > w.shared THEN 'absorbed' ELSE 'own' END) AS kind,
       -- Whose documents, and whose family and birth.
       CASE WHEN s.kind <> 'twin' THEN s.central_first + i - s.first
            WHEN s.kind IS NULL AND i % 100 = 99 AND i > w.shared THEN w.number * 100000 + i - 1
            ELSE w.number * 100000 + i END AS who,
       CASE WHEN s.kind IS NOT NULL THEN s.central_first + i - s.first
            WHEN i % 100 = 99 AND i > w.shared THEN w.number * 100000 + i - 1
            ELSE w.number * 100000 + i END AS kin,
       (i + 2) / 3 AS home, NULL::text AS seen_as
  FROM sample.installation w
 CROSS JOIN LATERAL generate_series(1, w.citizens) i
  LEFT JOIN sample.share s ON s.source = w.number AND i >= s.first AND i < s.first + s.n;

-- How a source sees a citizen of the central decides which documents the central has.
UPDATE sample.person p SET seen_as = s.kind
  FROM sample.share s
 WHERE p.inst = 0 AND p.i >= s.central_first AND p.i < s.central_first + s.n;

UPDATE sample.person SET kind = 'own', who = gid, kin = gid WHERE inst = 0 AND seen_as IS NOT NULL;

CREATE UNLOGGED TABLE sample.citizen AS
SELECT p.*, x.sex, x.birth, n.name, sample.plain(n.name) AS name_filter, x.mother,
       sample.plain(x.mother) AS mother_filter,
       CASE WHEN p.kind IN ('cns_only', 'typo_name', 'no_document') OR p.seen_as = 'no_document' THEN NULL
            WHEN p.kind = 'typo_digit' THEN sample.cpf(p.gid)
            WHEN p.kind = 'own' AND p.seen_as IS NULL AND sample.h(p.who, 7) % 100 < 6 THEN NULL
            ELSE sample.cpf(p.who) END AS cpf,
       CASE WHEN p.kind IN ('typo_digit', 'typo_name', 'no_document') OR p.seen_as = 'no_document' THEN NULL
            WHEN p.kind = 'own' AND p.seen_as IS NULL AND sample.h(p.who, 8) % 100 < 12 THEN NULL
            ELSE sample.cns(p.who) END AS cns,
       -- One in ten has no record (prontuário) yet.
       CASE WHEN p.i % 10 > 0 THEN p.i - p.i / 10 END AS record
  FROM sample.person p
 CROSS JOIN LATERAL (
       SELECT sample.h(p.kin, 2) % 2 AS sex, date '2025-10-01' - sample.h(p.kin, 3) % 32000 AS birth,
              'MARIA ' || sample.word(sample.h(p.kin, 4)) || ' ' || sample.word(sample.h(p.kin, 6)) || ' TESTE'
              AS mother) x
 CROSS JOIN LATERAL (
       SELECT sample.first_name(sample.h(p.kin, 1) + CASE p.kind WHEN 'twin' THEN 1 ELSE 0 END, x.sex) || ' '
              || sample.word(sample.h(p.kin, 5)) || CASE p.kind WHEN 'typo_name' THEN 'N' ELSE '' END || ' '
              || sample.word(sample.h(p.kin, 6)) || ' TESTE' AS name) n;

CREATE UNIQUE INDEX ON sample.citizen (inst, i);

ANALYZE sample.citizen;

CREATE UNLOGGED TABLE sample.unit AS
SELECT u.*, row_number() OVER (PARTITION BY u.known ORDER BY sample.h(u.gid, 20 + sample.me()), u.gid) AS id
  FROM (SELECT w.number AS inst, n, w.number * 100 + n AS gid, '99' || lpad((w.number * 100 + n)::text, 5, '0') AS cnes,
               'UBS SINTÉTICA ' || sample.word(w.number * 7 + n) || ' ' || (w.number * 100 + n) AS name,
               sample.me() = 0 OR w.number = sample.me() OR (w.number = 0 AND n = 1) AS known
          FROM sample.installation w, generate_series(1, w.units) n) u;

CREATE UNLOGGED TABLE sample.team AS
SELECT t.*, row_number() OVER (PARTITION BY t.known ORDER BY sample.h(t.gid, 30 + sample.me()), t.gid) AS id
  FROM (SELECT u.inst, u.gid AS unit, k AS n, u.gid * 10 + k AS gid,
       '0009' || lpad((u.gid * 10 + k)::text, 6, '0') AS ine, u.known, u.cnes
          FROM sample.unit u JOIN sample.installation w ON w.number = u.inst, generate_series(1, w.teams) k) t;

-- Posts (lotações): every professional has one at home; one in six has another in a unit of the central.
CREATE UNLOGGED TABLE sample.post AS
SELECT l.*, row_number() OVER (PARTITION BY l.inst ORDER BY l.gid) AS seq,
       5 + row_number() OVER (PARTITION BY l.known ORDER BY sample.h(l.gid, 40 + sample.me()), l.gid) AS id,
       row_number() OVER (PARTITION BY l.known ORDER BY sample.h(l.gid, 50 + sample.me()), l.gid) AS cds_id,
       md5(l.cpf || l.cnes || l.ine || l.cbo) AS code, md5(l.cns || l.cbo || l.cnes || l.ine)
           || left(md5(l.ine), 8) AS cds_code
  FROM (SELECT p.gid * 10 + s.k AS gid, p.gid AS prof, p.cpf, p.cns, t.inst, t.unit, t.gid AS team, t.cnes, t.ine,
       t.known,
               ('{515105,223565,225142,322245,223293,515105,322405,223505}'::text[])[1 + p.j % 8] AS cbo
          FROM (SELECT w.number AS inst, j, w.number * 10000 + j AS gid,
          sample.cpf(900000 + w.number * 10000 + j) AS cpf,
                       sample.cns(900000 + w.number * 10000 + j) AS cns, w.units, w.teams
                  FROM sample.installation w, generate_series(1, w.professionals) j) p
          CROSS JOIN LATERAL (SELECT 1 AS k, p.inst AS inst, p.units AS units UNION ALL
                              SELECT 2, 0, c.units FROM sample.installation c WHERE c.number = 0 AND p.j % 6 = 0) s
          JOIN sample.team t ON t.inst = s.inst AND t.unit = s.inst * 100 + 1 + (p.j / 2 + s.k - 1) % s.units
              AND t.n = 1 + (p.j / 5) % p.teams
       ) l;

CREATE UNIQUE INDEX ON sample.post (inst, seq);

ANALYZE sample.post;

CREATE UNLOGGED TABLE sample.professional AS
SELECT p.*, sample.plain(p.name) AS name_filter, row_number() OVER (ORDER BY sample.h(p.gid, 60 + sample.me()),
       p.gid) AS id,
       row_number() OVER (ORDER BY sample.h(p.gid, 70 + sample.me()), p.gid) AS user_id
  FROM (SELECT DISTINCT prof AS gid, cpf, cns, sample.h(prof, 11) % 2 AS sex,
               sample.first_name(sample.h(prof, 12), sample.h(prof, 11) % 2) || ' '
                   || sample.word(sample.h(prof, 13)) || ' SINTÉTICO' AS name
          FROM sample.post WHERE known) p;

-- Fichas: kind is the transport type (104: written in the PEC, type 4). A source has sent the first tenth of each
-- kind to the central, which therefore knows them under other keys.
CREATE UNLOGGED TABLE sample.ficha AS
WITH kind AS (
    SELECT w.number AS inst, w.citizens, v.kind, greatest((v.per_thousand * w.citizens + 999) / 1000, 4) AS total,
       p.posts
      FROM sample.kind v, sample.installation w
  JOIN (SELECT inst, count(*) AS posts FROM sample.post GROUP BY inst) p ON p.inst = w.number
), numbered AS (
    SELECT k.*, n, k.inst * 100000000000 + k.kind * 100000000 + n AS fid,
           -- Two professionals of one encounter share what is decided by `base`.
           k.inst * 100000000000 + k.kind * 100000000 + CASE k.kind WHEN 104 THEN (n * 7 + 9) / 10 ELSE n END AS base
      FROM kind k
     CROSS JOIN LATERAL generate_series(1, CASE WHEN k.inst = sample.me() THEN k.total WHEN sample.me() = 0
           THEN sample.sent(k.total) ELSE 0 END) n
), described AS (
    SELECT inst, kind, n, fid, (n - 1) / citizens AS version, 1 + sample.h(fid, 24) % posts AS seq,
           CASE kind WHEN 2 THEN 1 + (n - 1) % citizens ELSE 1 + sample.h(base, 21) % citizens END AS i,
           timestamp '2025-10-30 17:00' - (sample.h(base, 22) % 1100 + CASE WHEN kind = 2 AND n <= citizens
               THEN 1200 ELSE 0 END) * interval '1 day'
               - sample.h(base, 23) % 32400 * interval '1 second' + (fid - base) % 7 * interval '10 minutes' AS dt
      FROM numbered
)
SELECT d.fid, d.inst, d.kind, d.n, c.i, d.version, d.dt, l.gid AS post, l.cds_id, l.cnes, l.ine, l.cns AS prof_cns,
       d.inst = sample.me() AS mine, l.cnes || '-' || sample.uuid(d.fid, 1) AS uuid, c.cpf, c.cns, c.birth, c.sex,
       row_number() OVER (PARTITION BY d.kind ORDER BY d.dt, d.fid) AS id,
       row_number() OVER (ORDER BY d.dt, d.fid) AS transport
  FROM described d
  JOIN sample.post l ON l.inst = d.inst AND l.seq = d.seq
  JOIN sample.citizen c ON c.inst = d.inst AND c.i = d.i - CASE WHEN d.kind = 104 AND d.i % 10 = 0 THEN 1 ELSE 0 END;

CREATE INDEX ON sample.ficha (kind, id);

ANALYZE sample.ficha;
