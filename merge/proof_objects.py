"""The definitions of all objects of a database, as digests that can be compared.

Our own schemas (``homolog``, ``homolog_base``, ``src_<n>``) and the server's are left out. Names are qualified, so the
connection's search_path must be ``pg_catalog``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from merge.proof_session import Connection

_OURS = "(nspname ~ '^pg_' OR nspname = 'information_schema' OR nspname ~ '^homolog' OR nspname ~ '^src_[0-9]+$')"

_DEFINITIONS = """
    WITH space AS (SELECT oid, nspname FROM pg_namespace WHERE NOT {ours}),
    relation AS (SELECT c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS full_name
                   FROM pg_class c JOIN space n ON n.oid = c.relnamespace WHERE c.relkind <> 't'),
    object (kind, name, table_name, definition) AS (
    SELECT 'schema', nspname::text, nspname::text, '' FROM space
     UNION ALL
    SELECT 'relation', full_name, relname::text,
           concat_ws('|', relkind, relpersistence, pg_get_userbyid(relowner), relrowsecurity, relforcerowsecurity,
                     relreplident, relispartition_, reloptions::text, am.amname)
      FROM (SELECT *, {partition} AS relispartition_ FROM relation) r LEFT JOIN pg_am am ON am.oid = r.relam
     UNION ALL
    SELECT 'column', full_name || '.' || quote_ident(attname), relname::text,
           concat_ws('|', attnum, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation_, attstorage,
                     pg_get_expr(adbin, adrelid))
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
           concat_ws('|', polcmd, polroles::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM relation JOIN pg_policy ON polrelid = relation.oid
     UNION ALL
    SELECT 'function', p.oid::regprocedure::text, proname::text,
           concat_ws('|', pg_get_userbyid(proowner), l.lanname, prosrc, probin, provolatile, prosecdef, proisstrict,
                     proleakproof, proparallel, prorettype::regtype, proretset, procost, prorows, proconfig::text,
                     pg_get_function_arguments(p.oid))
      FROM pg_proc p JOIN space n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
     UNION ALL
    SELECT 'type', y.oid::regtype::text, typname::text,
           concat_ws('|', typtype, typbasetype::regtype, typtypmod, typnotnull, typdefault,
                     (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = y.oid),
                     (SELECT string_agg(conname || pg_get_constraintdef(oid), ',' ORDER BY conname)
                        FROM pg_constraint WHERE contypid = y.oid))
      FROM pg_type y JOIN space n ON n.oid = typnamespace WHERE typtype <> 'b'
     UNION ALL
    SELECT 'operator', o.oid::regoperator::text, oprname::text,
           concat_ws('|', oprcode::regproc, oprcanmerge, oprcanhash)
      FROM pg_operator o JOIN space n ON n.oid = oprnamespace
     UNION ALL
    SELECT 'extension', extname::text, extname::text, extversion FROM pg_extension
     UNION ALL
    SELECT 'event trigger', evtname::text, evtname::text, concat_ws('|', evtevent, evtfoid::regproc, evtenabled)
      FROM pg_event_trigger
     UNION ALL
    SELECT 'comment', pg_describe_object(classoid, objoid, objsubid), full_name, description
      FROM pg_description JOIN relation ON classoid = 'pg_class'::regclass AND objoid = relation.oid
     UNION ALL
    SELECT 'comment', pg_describe_object(classoid, objoid, objsubid), '', description
      FROM pg_description WHERE classoid <> 'pg_class'::regclass AND (classoid, objoid) IN (
           SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p JOIN space n ON n.oid = pronamespace
            UNION ALL SELECT 'pg_type'::regclass, y.oid FROM pg_type y JOIN space n ON n.oid = typnamespace
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN space n ON n.oid = connamespace
            UNION ALL SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relation r ON r.oid = tgrelid
            UNION ALL SELECT 'pg_namespace'::regclass, oid FROM space)
    )
    SELECT kind, name, max(table_name), md5(string_agg(definition, '|' ORDER BY definition))
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


def definitions(server_version: int) -> sql.Composed:
    """The query that gives kind, name, table and digest of every object."""
    query = _DEFINITIONS.replace("{ours}", _OURS)
    query = query.replace("{partition}", "relispartition" if server_version >= 100000 else "false")
    query = query.replace("attcollation::regcollation_", "(SELECT collname FROM pg_collation WHERE oid = attcollation)")
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
