"""Ways to spoil a merged database. Each must be found by the proof, and named.

The functions make corruptions for any schema; `NASTY` are those of the schema in `fix_proof`, where source n moved its
keys by n * 1000.
"""

# ruff: noqa: E501 (rows of SQL)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corruption:
    """One way to spoil it: SQL, and what the proof must say.

    :param kind: kind of the difference; with `table` and `column`, one such difference must be listed.
    """

    name: str
    sql: str
    kind: str
    table: str
    column: str | None = None


def change(name: str, table: str, key: str, column: str, value: str) -> Corruption:
    """Give one column of one row another value (SQL expression)."""
    return Corruption(
        name, f"UPDATE {table} SET {column} = {value} WHERE {key}", "changed", _bare(table), _bare(column)
    )


def lose(name: str, table: str, key: str) -> Corruption:
    """Lose a row."""
    return Corruption(name, f"DELETE FROM {table} WHERE {key}", "lost", _bare(table))


def swap(name: str, table: str, key: str, column: str, one: int, other: int) -> Corruption:
    """Swap what one column says in two rows."""
    return Corruption(
        name,
        f"UPDATE {table} t SET {column} = o.{column} FROM {table} o WHERE (t.{key}, o.{key}) IN (({one}, {other}), ({other}, {one}))",
        "changed",
        _bare(table),
        _bare(column),
    )


def run(name: str, sql: str, kind: str, table: str, column: str | None = None) -> Corruption:
    """Anything else."""
    return Corruption(name, sql, kind, table, column)


def _bare(name: str) -> str:
    return name.strip('"')


_P = "id = 1007"
_SAME_ROWS = """
    UPDATE person t SET {columns} FROM person o WHERE (t.id, o.id) IN ((1007, 1011), (1011, 1007))
"""

NASTY = (
    # values, in every type
    change("text", "person", _P, "name", "name || ' '"),
    change("NULL for an empty string", "person", "id = 1003", "social_name", "NULL"),
    change("an empty string for NULL", "person", "id = 1004", "social_name", "''"),
    change("padding of char", "person", _P, "cpf", "'7'"),
    change("date", "person", _P, "birth", "birth + 1"),
    change("0 for -0", "person", "id = 1005", "weight", "'0'::float8"),
    change("NaN lost", "person", "id = 1006", "weight", "0"),
    change("last bit of a float8", "person", "id = 1008", "weight", "weight * (1 + 2.3e-16)"),
    change("last bit of a float4", "person", _P, "height", "height * (1 + 1.2e-7)"),
    change("scale of numeric", "person", "id = 1006", "balance", "1.00"),
    change("a microsecond", "person", _P, "seen", "seen + interval '1 microsecond'"),
    change("time", "person", _P, "at", "at + interval '1 s'"),
    change("interval of equal length", "person", "id = 1015", "stay", "interval '16 months'"),
    change("point by less than its tolerance", "person", _P, "home", "home + point(1e-12, 0)"),
    change("space in json", "person", _P, "notes", "replace(notes::text, '  ', ' ')::json"),
    change("duplicate key of json", "person", _P, "notes", "notes::jsonb::json"),
    change("jsonb", "person", _P, "extra", "extra || '{\"b\": null}'"),
    change("a bit of bytea", "person", _P, "photo", "set_bit(photo, 9, 1 - get_bit(photo, 9))"),
    change("a bit of long bytea", "person", "id = 1010", "photo", "set_bit(photo, 50000, 1 - get_bit(photo, 50000))"),
    change("element of an array", "person", _P, "tags", "array_replace(tags, NULL, '')"),
    change("bounds of an array", "person", _P, "tags", "('[0:2]={x,NULL,y7}')::text[]"),
    change("enum", "person", _P, "mood", "'calm'"),
    change("domain", "person", _P, "zip", "'1'"),
    change("composite", "person", _P, "addr", "ROW('street', NULL)::address"),
    change("boolean", "person", _P, "flag", "NOT flag"),
    change("uuid", "person", _P, "doc", "md5('other')::uuid"),
    change("tsvector", "person", _P, "words", "to_tsvector('simple', 'a')"),
    change("long text", "person_ext", "person_id = 1008", "text", "text || 'x'"),
    change("quoted names", '"TB_Upper"', '"Id" = 1001', '"Some Column"', "'Ae'"),
    # references
    change("reference to another row", "visit", _P, "person_id", "1008"),
    change("reference to a row of the central", "visit", _P, "person_id", "7"),
    change("self reference", "person", "id = 1009", "mother_id", "1002"),
    change("cycle", "person", "id = 1008", "last_visit_id", "1007"),
    change("reference to a fixed code", "visit_code", "visit_id = 1007", "note", "'x'"),
    change("soft reference stale", "problem_step", "id = 1007", "problem_unique", "problem_unique - 1000"),
    change("soft reference of the audit", "ta_person", "id = 1007", "person_id", "7"),
    change("dangling reference that was removed", "ta_person", "id = 1040", "person_id", "NULL"),
    change(
        "reference of a large object",
        "visit",
        "id = 1001",
        "attachment",
        "(SELECT attachment FROM visit WHERE id = 1002)",
    ),
    change("old number of a large object", "visit", "id = 1001", "attachment", "400001"),
    change("reference of textual key", "sheet", "uuid = 's1sheet7'", "person_id", "1008"),
    swap("records of two patients swapped", "visit", "id", "person_id", 1007, 1011),
    run(
        "two patients swapped whole",
        "CREATE TEMP TABLE t AS SELECT * FROM person WHERE id IN (1007, 1011);"
        "DELETE FROM person WHERE id IN (1007, 1011); ALTER TABLE t DROP COLUMN doubled; UPDATE t SET id = 2018 - id;"
        "INSERT INTO person SELECT * FROM t",
        "changed",
        "person",
        "name",
    ),
    # rows
    lose("row", "visit", "id = 1007"),
    lose("row of the second source", "visit", "id = 2007"),
    lose("last row", "visit", "id = 2042"),
    lose("row of the audit", "ta_person", "id = 1013"),
    lose("link", "visit_code", "visit_id = 1007"),
    lose("shared key", "person_ext", "person_id = 1008"),
    lose("row with a textual key", "sheet", "uuid = 's1sheet7'"),
    lose("catalog row that only a source has", "code", "id = 6"),
    lose("all rows of a source", "ta_person", "id > 2000"),
    run("row invented among a source's", "INSERT INTO visit VALUES (1030, 1001)", "invented", "visit"),
    run("row invented beyond all", "INSERT INTO visit VALUES (99999, 1001)", "invented", "visit"),
    run("link invented", "INSERT INTO visit_code VALUES (1007, 5)", "invented", "visit_code"),
    run("row invented with a textual key", "INSERT INTO sheet VALUES ('extra', 1001)", "invented", "sheet"),
    run("row invented in an empty table", "INSERT INTO empty VALUES (1, 1)", "invented", "empty"),
    run("excluded row came", "INSERT INTO sheet SELECT 'sheet1x', 1001", "invented", "sheet"),
    run("excluded table came", "INSERT INTO config VALUES ('from a source', 'x')", "invented", "config"),
    run(
        "row doubled",
        "ALTER TABLE person_ext DROP CONSTRAINT person_ext_pkey; INSERT INTO person_ext SELECT * FROM person_ext WHERE person_id = 1008",
        "doubled",
        "person_ext",
    ),
    run("keyless row doubled", "INSERT INTO log SELECT * FROM log LIMIT 1", "invented", "log"),
    run(
        "keyless row lost",
        "DELETE FROM log WHERE ctid = (SELECT max(ctid) FROM log WHERE person_id > 2000)",
        "lost",
        "log",
    ),
    run("keyless row of a source", "UPDATE log SET detail = '{\"k\":1}' WHERE person_id = 1001", "lost", "log"),
    run("keyless row of the central", "UPDATE log SET line = 'Line' WHERE person_id = 1", "lost", "log"),
    # the central
    change("row of the central", "person", "id = 7", "name", "name || ' '"),
    change("-0 of the central", "person", "id = 5", "weight", "0"),
    change("generated column's origin", "person", "id = 9", "balance", "1.00"),
    change("catalog row", "code", "id = 1", "name", "'Code 1'"),
    change("source's value over the central's", "code", "id = 2", "name", "'code 2 other'"),
    change("matched row", "unit_code", "(unit_id, code_id) = (4, 2)", "note", "'changed'"),
    change("configuration", "config", "key = 'install'", "value", "'s1'"),
    lose("row of the central", "person_ext", "person_id = 8"),
    lose("violation that was known", "problem", "id = 20"),
    run("foreign key", "UPDATE problem SET person_id = 4444 WHERE id = 19", "reference", "problem", "person_id"),
    run(
        "foreign key of two columns",
        "DELETE FROM unit_code WHERE (unit_id, code_id) = (2, 2)",
        "reference",
        "visit",
        "unit_id, code_id",
    ),
    # crosswalk and ledger
    run("map entry altered", "UPDATE homolog.unit_map_1 SET dst = 1 WHERE src = 1", "changed", "unit", "cnes"),
    run("map entry lost", "DELETE FROM homolog.unit_map_1 WHERE src = 1", "changed", "person", "unit_id"),
    run("two mapped to one", "UPDATE homolog.unit_map_1 SET dst = 5 WHERE src = 1", "crosswalk", "unit", "id"),
    run("map of a row that is not there", "INSERT INTO homolog.unit_map_1 VALUES (99, 1)", "crosswalk", "unit", "id"),
    run("mapped into its own source", "INSERT INTO homolog.unit_map_1 VALUES (5, 1006)", "crosswalk", "unit", "id"),
    run(
        "offset altered",
        "UPDATE homolog.key_domain SET key_offset = 999 WHERE source = 1 AND domain = 'problem'",
        "changed",
        "problem",
        "problem_unique",
    ),
    run(
        "fixed domain moved",
        "UPDATE homolog.key_domain SET key_offset = 1 WHERE source = 1 AND domain = 'code.id'",
        "crosswalk",
        "code",
        "id",
    ),
    run(
        "crosswalk lost",
        "DELETE FROM homolog.key_domain WHERE source = 2 AND domain = 'visit.id'",
        "crosswalk",
        "visit",
        "id",
    ),
    run(
        "sources meet",
        "UPDATE homolog.key_domain SET key_offset = 1000 WHERE source = 2 AND domain = 'problem_step.id';"
        "DELETE FROM problem_step WHERE id > 2000",
        "crosswalk",
        "problem_step",
        "id",
    ),
    run(
        "offset into the central",
        "UPDATE homolog.key_domain SET key_offset = 10 WHERE source = 1 AND domain = 'problem';"
        "UPDATE problem SET problem_unique = problem_unique - 990 WHERE id BETWEEN 1001 AND 1999;"
        "UPDATE problem_step SET problem_unique = problem_unique - 990 WHERE id BETWEEN 1001 AND 1999",
        "crosswalk",
        "problem",
        "problem_unique",
    ),
    run(
        "ledger number altered",
        "UPDATE homolog.ledger SET rows = rows + 1 WHERE (source, table_name, disposition) = (1, 'visit', 'inserted')",
        "ledger",
        "visit",
    ),
    run(
        "inserted called matched",
        "UPDATE homolog.ledger SET rows = rows + CASE disposition WHEN 'inserted' THEN -1 WHEN 'matched' THEN 1 ELSE 0 END WHERE (source, table_name) = (1, 'sheet')",
        "ledger",
        "sheet",
    ),
    run("ledger line lost", "DELETE FROM homolog.ledger WHERE (source, table_name) = (2, 'log')", "ledger", "log"),
    run(
        "ledger of a table unknown",
        "INSERT INTO homolog.ledger VALUES (1, 'nothing', 'inserted', '', 1)",
        "ledger",
        "nothing",
    ),
    run("exception lost", "DELETE FROM homolog.exception WHERE (source, table_name) = (1, 'sheet')", "ledger", "sheet"),
    run(
        "row excluded after it came",
        "INSERT INTO homolog.exception SELECT 1, 'visit', ctid, 'excluded', NULL, 'x' FROM src_1.visit WHERE id = 7",
        "invented",
        "visit",
    ),
    run(
        "inserted row called reconciled",
        "INSERT INTO homolog.exception SELECT 1, 'visit', ctid, 'reconciled', '{uuid}', 'x' FROM src_1.visit WHERE id = 7;"
        "UPDATE visit SET uuid = 'x' WHERE id = 1007",
        "ledger",
        "visit",
    ),
    run(
        "exception that claims too much",
        "UPDATE homolog.exception SET columns = '{name,weight}' WHERE (source, table_name) = (1, 'code')",
        "ledger",
        "code",
        "weight",
    ),
    run(
        "exception that claims too little",
        "UPDATE homolog.exception SET columns = '{weight}' WHERE (source, table_name) = (1, 'code') AND 'name' = ANY (columns)",
        "changed",
        "code",
        "name",
    ),
    run(
        "exception of no row",
        "INSERT INTO homolog.exception VALUES (1, 'visit', '(9999,1)', 'excluded', NULL, 'x')",
        "ledger",
        "visit",
    ),
    # large objects
    run(
        "byte of a source's",
        "SELECT lo_put((SELECT dst FROM homolog.large_object_1 WHERE src = 400001), 2500, 'x')",
        "large_object",
        "pg_largeobject",
    ),
    run(
        "hole",
        "DELETE FROM pg_largeobject WHERE pageno = 1 AND loid = (SELECT dst FROM homolog.large_object_2 WHERE src = 400003)",
        "large_object",
        "pg_largeobject",
    ),
    run(
        "end cut off",
        "SELECT lo_truncate(lo_open((SELECT dst FROM homolog.large_object_1 WHERE src = 400001), 131072), 2000)",
        "large_object",
        "pg_largeobject",
    ),
    run(
        "gone",
        "SELECT lo_unlink((SELECT dst FROM homolog.large_object_1 WHERE src = 400002))",
        "large_object",
        "pg_largeobject",
    ),
    run("byte of the central's", "SELECT lo_put(400001, 0, 'x')", "large_object", "pg_largeobject"),
    run("of the central gone", "SELECT lo_unlink(400003)", "large_object", "pg_largeobject"),
    run("of nobody", "SELECT lo_create(777)", "large_object", "pg_largeobject"),
    run("where a dangling number points", "SELECT lo_create(999001)", "large_object", "pg_largeobject"),
    # objects
    run("sequence behind", "SELECT setval('person_id_seq', 2041)", "sequence", "person_id_seq"),
    run("sequence of no column behind", "SELECT setval('seq_visit', 2042, false)", "sequence", "seq_visit"),
    run("sequence behind the baseline", "SELECT setval('person_id_seq', 5)", "sequence", "person_id_seq"),
    run("increment of a sequence", "ALTER SEQUENCE seq_visit INCREMENT 50", "sequence", "seq_visit"),
    run("materialised view stale", "UPDATE person SET unit_id = 3 WHERE id = 1007", "view", "people_by_unit"),
    run("trigger disabled", "ALTER TABLE person DISABLE TRIGGER audit", "object", "person"),
    run("trigger dropped", "DROP TRIGGER audit ON person", "object", "person"),
    run("checks of foreign keys disabled", "ALTER TABLE visit DISABLE TRIGGER ALL", "object", "visit"),
    run("index dropped", "DROP INDEX person_name", "object", "person"),
    run("foreign key dropped", "ALTER TABLE visit DROP CONSTRAINT visit_person_id_fkey", "object", "visit"),
    run("primary key dropped", "ALTER TABLE ta_person DROP CONSTRAINT ta_person_pkey", "object", "ta_person"),
    run("NOT NULL dropped", "ALTER TABLE visit ALTER person_id DROP NOT NULL", "object", "visit"),
    run("default added", "ALTER TABLE visit ALTER uuid SET DEFAULT 'x'", "object", "visit"),
    run("column widened", "ALTER TABLE config ALTER key TYPE varchar(50)", "object", "config"),
    run("table added", "CREATE TABLE extra (id int)", "object", "extra"),
    run("table gone", "DROP TABLE empty", "lost", "empty"),
    run(
        "function altered",
        "CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
        "object",
        "audit",
    ),
    run(
        "view altered",
        "CREATE OR REPLACE VIEW people AS SELECT id, upper(name) AS name FROM person",
        "object",
        "people",
    ),
    run("comment altered", "COMMENT ON TABLE person IS 'others'", "object", "public.person"),
    run("value added to an enum", "ALTER TYPE mood ADD VALUE 'glad'", "object", "mood"),
    run("table unlogged", "ALTER TABLE log SET UNLOGGED", "object", "log"),
    run("owner changed", "ALTER TABLE log OWNER TO pg_monitor", "object", "log"),
)


def together(corruptions: tuple[Corruption, ...]) -> list[tuple[Corruption, ...]]:
    """Put changes of different columns together: each is named by its column, and many fit in one database."""
    groups: list[dict[tuple[str, str | None], Corruption]] = []
    others: list[tuple[Corruption, ...]] = []
    for corruption in corruptions:
        if not corruption.sql.startswith("UPDATE") or corruption.kind != "changed" or "homolog" in corruption.sql:
            others.append((corruption,))
            continue
        place = (corruption.table, corruption.column)
        group = next((g for g in groups if place not in g), None)
        if group is None:
            groups.append({place: corruption})
        else:
            group[place] = corruption
    return [*(tuple(g.values()) for g in groups), *others]
