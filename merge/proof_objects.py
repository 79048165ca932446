"""The definitions of all objects of a database, as digests that can be compared.

Our own schemas (``homolog``, ``homolog_base``, ``src_<n>``) and the server's are left out. Names are qualified, so the
connection's search_path must be ``pg_catalog``.

`definitions` compares a database with itself, at two times; `portable_definitions` one with its restored copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    from merge.proof_session import Connection

OURS = "(nspname ~ '^pg_' OR nspname = 'information_schema' OR nspname ~ '^homolog' OR nspname ~ '^src_[0-9]+$')"

"""True of a schema that is the server's or ours; of the columns of ``pg_namespace``."""

_DEFINITIONS = """
    WITH space AS (SELECT oid, nspname FROM pg_namespace WHERE NOT {ours}),
    relation AS (SELECT c.oid, relname, relkind, relpersistence, relowner, relrowsecurity, relforcerowsecurity,
                        relreplident, {partition} AS partition, reloptions, relam,
                        quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS full_name
                   FROM pg_class c JOIN space n ON n.oid = c.relnamespace WHERE c.relkind <> 't'),
    object (kind, name, table_name, definition) AS (
    SELECT 'schema', nspname::text, nspname::text, '' FROM space
     UNION ALL
    SELECT 'relation', full_name, relname::text,
           concat_ws('|', relkind, relpersistence, {relation_owner} relrowsecurity, relforcerowsecurity,
                     relreplident, partition, reloptions::text, am.amname)
      FROM relation r LEFT JOIN pg_am am ON am.oid = r.relam
     UNION ALL
    SELECT 'column', full_name || '.' || quote_ident(attname), relname::text,
           concat_ws('|', {position}, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation_,
                     attstorage, pg_get_expr(adbin, adrelid))
      FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relkind NOT IN ('i', 'I', 'S')
     UNION ALL
    SELECT 'constraint', full_name || '.' || quote_ident(conname), relname::text,
           pg_get_constraintdef(k.oid) || CASE WHEN convalidated THEN '' ELSE ' NOT VALID' END
      FROM relation JOIN pg_constraint k ON conrelid = relation.oid
     UNION ALL
    SELECT 'index', i.full_name, t.relname::text,
           concat_ws('|', pg_get_indexdef(indexrelid), indisvalid, indisready, indisprimary, indisclustered)
      FROM pg_index JOIN relation i ON i.oid = indexrelid JOIN pg_class t ON t.oid = indrelid
     UNION ALL
    SELECT 'trigger', full_name || '.' || quote_ident(tgname), relname::text,
           pg_get_triggerdef(g.oid) || '|' || tgenabled::text
      FROM relation JOIN pg_trigger g ON tgrelid = relation.oid AND NOT tgisinternal
     UNION ALL
    SELECT 'constraint trigger',
           concat_ws(' ', quote_ident(conname), full_name, tgfoid::regproc, tgtype), relname::text, tgenabled::text
      FROM relation JOIN pg_trigger g ON tgrelid = relation.oid AND tgisinternal
      JOIN pg_constraint k ON k.oid = tgconstraint
     UNION ALL
    SELECT 'rule', full_name || '.' || quote_ident(rulename), relname::text,
           pg_get_ruledef(r.oid) || '|' || ev_enabled::text
      FROM relation JOIN pg_rewrite r ON ev_class = relation.oid
     UNION ALL
    SELECT 'policy', full_name || '.' || quote_ident(polname), relname::text,
           concat_ws('|', polcmd, {roles}, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM relation JOIN pg_policy ON polrelid = relation.oid
     UNION ALL
    SELECT 'function', p.oid::regprocedure::text, proname::text,
           concat_ws('|', {function_owner} l.lanname, prosrc, probin, provolatile, prosecdef, proisstrict,
                     proleakproof, proparallel, prorettype::regtype, proretset, procost, prorows, proconfig::text,
                     pg_get_function_arguments(p.oid){body})
      FROM pg_proc p JOIN space n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang{functions}
     UNION ALL
    SELECT 'type', y.oid::regtype::text, typname::text,
           concat_ws('|', typtype, typbasetype::regtype, typtypmod, typnotnull, typdefault,
                     (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = y.oid),
                     (SELECT string_agg(conname || pg_get_constraintdef(oid), ',' ORDER BY conname)
                        FROM pg_constraint WHERE contypid = y.oid))
      FROM pg_type y JOIN space n ON n.oid = typnamespace WHERE typtype <> 'b'{types}
     UNION ALL
    SELECT 'operator', o.oid::regoperator::text, oprname::text,
           concat_ws('|', oprcode::regproc, oprcanmerge, oprcanhash)
      FROM pg_operator o JOIN space n ON n.oid = oprnamespace{operators}
     UNION ALL
    SELECT 'extension', extname::text, extname::text, extversion FROM pg_extension
     UNION ALL
    SELECT 'event trigger', evtname::text, evtname::text, concat_ws('|', evtevent, evtfoid::regproc, evtenabled)
      FROM pg_event_trigger
     UNION ALL
    SELECT 'comment', {described}, full_name, description
      FROM pg_description JOIN relation ON classoid = 'pg_class'::regclass AND objoid = relation.oid
     UNION ALL
    SELECT 'comment', {described}, '', description
      FROM pg_description WHERE classoid <> 'pg_class'::regclass AND (classoid, objoid) IN (
           SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p JOIN space n ON n.oid = pronamespace
            UNION ALL SELECT 'pg_type'::regclass, y.oid FROM pg_type y JOIN space n ON n.oid = typnamespace
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN space n ON n.oid = connamespace
            UNION ALL SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relation r ON r.oid = tgrelid
            UNION ALL SELECT 'pg_namespace'::regclass, oid FROM space){comments}
    )
    {wanted}
      FROM object GROUP BY kind, name
"""

_SEQUENCE_10 = """
    SELECT concat_ws('|', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
      FROM pg_sequence WHERE seqrelid = {oid}
"""
_SEQUENCE_96 = """
    SELECT concat_ws('|', sequence_name, start_value, increment_by, max_value, min_value, cache_value, is_cycled)
      FROM {name}
"""


_HERE = {
    "relation_owner": "pg_get_userbyid(relowner),",
    "function_owner": "pg_get_userbyid(proowner),",
    "roles": "polroles::text",
    "position": "attnum",
    "body": "",
    "described": "pg_describe_object(classoid, objoid, objsubid)",
    "functions": "",
    "types": "",
    "operators": "",
    "comments": "",
    "wanted": "SELECT kind, name, max(table_name), md5(string_agg(definition, '|' ORDER BY definition))",
}

_NOT_MEMBER = (
    " {word} NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = '{catalog}'::regclass"
    " AND e.objid = {oid} AND e.deptype = 'e')"
)
_EVERYWHERE = {
    "relation_owner": "",
    "function_owner": "",
    "roles": "(SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ',' ORDER BY"
    " 1) FROM unnest(polroles) r)",
    # A restore leaves no gap where a column was dropped.
    "position": "row_number() OVER (PARTITION BY attrelid ORDER BY attnum)",
    # pg_describe_object() speaks the server's language.
    "described": "(SELECT type || ' ' || identity FROM pg_identify_object(classoid, objoid, objsubid))",
    # Which objects an extension has is a matter of its version on each server.
    "functions": _NOT_MEMBER.format(word="WHERE", catalog="pg_proc", oid="p.oid"),
    "types": _NOT_MEMBER.format(word="AND", catalog="pg_type", oid="y.oid"),
    "operators": _NOT_MEMBER.format(word="WHERE", catalog="pg_operator", oid="o.oid"),
    "comments": " AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = classoid AND e.objid = objoid"
    " AND e.deptype = 'e') AND (classoid, objoid) NOT IN"
    " (SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspname = 'public')",
    # Parsing again what was deparsed moves casts and parentheses in expressions; and no dump holds a version.
    "wanted": "SELECT kind, name, md5(string_agg(definition, '|' ORDER BY definition)),"
    " md5(string_agg(CASE WHEN kind IN ('extension', 'schema') THEN ''"
    " ELSE regexp_replace(definition, '::(\"[^\"]+\"|[a-z0-9_. ])+(\\([0-9,]+\\))?(\\[\\])*|[() \\n]', '', 'g') END,"
    " '|' ORDER BY definition))",
}


def definitions(server_version: int) -> sql.Composed:
    """The query that gives kind, name, table and digest of every object, as it is in this database."""
    return _query(server_version, _HERE)


def portable_definitions(server_version: int) -> sql.Composed:
    """The query that gives kind, name, digest and likeness of every object.

    Neither depends on owners, on columns that were dropped, or on extensions' own objects. The likeness, another
    digest, is moreover the same for expressions that differ in casts, parentheses and blanks only.
    """
    body = ", pg_get_function_sqlbody(p.oid)" if server_version >= 140000 else ""
    return _query(server_version, {**_EVERYWHERE, "body": body})


def _query(server_version: int, parts: Mapping[str, str]) -> sql.Composed:
    query = _DEFINITIONS.replace("{ours}", OURS)
    query = query.replace("{partition}", "relispartition" if server_version >= 100000 else "false")
    query = query.replace("attcollation::regcollation_", "(SELECT collname FROM pg_collation WHERE oid = attcollation)")
    for name, part in parts.items():
        query = query.replace(f"{{{name}}}", part)
    return sql.Composed([sql.SQL(query)])


def sequences(conn: Connection, schema: str) -> list[tuple[str, int, bool, str]]:
    """Name, last value, whether it was used, and definition of every sequence."""
    found: list[tuple[str, int, bool, str]] = []
    names = conn.execute(
        "SELECT c.oid::bigint, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'S' AND n.nspname = %s ORDER BY 2",
        [schema],
    ).fetchall()
    modern = conn.info.server_version >= 100000
    for start in range(0, len(names), 200):  # one query for each sequence would cost more than reading it
        parts = []
        for oid, name in names[start : start + 200]:
            relation = sql.Identifier(schema, name)
            definition = sql.SQL(_SEQUENCE_10 if modern else _SEQUENCE_96).format(oid=sql.Literal(oid), name=relation)
            parts.append(
                sql.SQL("SELECT {}, last_value, is_called, ({}) FROM {}").format(
                    sql.Literal(name), definition, relation
                )
            )
        rows: list[tuple[Any, ...]] = conn.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
        found += [(name, int(last), bool(called), str(text)) for name, last, called, text in rows]
    return found
