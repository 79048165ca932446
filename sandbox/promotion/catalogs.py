"""A sum over the catalogs of a database that any change of its definitions changes.

It is made of the row versions (``xmin``): statistics, vacuum and freezing change catalogs in place, and leave them
alone. What a session makes for itself (temporary tables) and the refreshing of materialized views are left out.
"""

from __future__ import annotations

_THIS = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"

# (catalog, what its rows are told apart by, a further number where that is not enough, which rows)
_PARTS = (
    ("pg_namespace", "oid", "1", "oid NOT IN (SELECT oid FROM temporary)"),
    ("pg_class", "oid", "1", "oid IN (SELECT oid FROM persistent) AND relkind <> 'm'"),
    ("pg_attribute", "attrelid", "attnum + 100", "attrelid IN (SELECT oid FROM persistent)"),
    ("pg_index", "indexrelid", "1", "indrelid IN (SELECT oid FROM persistent WHERE relkind <> 'm')"),
    ("pg_trigger", "oid", "1", "tgrelid IN (SELECT oid FROM persistent)"),
    ("pg_rewrite", "oid", "1", "ev_class IN (SELECT oid FROM persistent)"),
    ("pg_attrdef", "oid", "1", "adrelid IN (SELECT oid FROM persistent)"),
    ("pg_policy", "oid", "1", "polrelid IN (SELECT oid FROM persistent)"),
    ("pg_type", "oid", "1", "typnamespace NOT IN (SELECT oid FROM temporary)"),
    ("pg_proc", "oid", "1", "pronamespace NOT IN (SELECT oid FROM temporary)"),
    ("pg_constraint", "oid", "1", "connamespace NOT IN (SELECT oid FROM temporary)"),
    ("pg_operator", "oid", "1", "oprnamespace NOT IN (SELECT oid FROM temporary)"),
    ("pg_description", "objoid", "objsubid + 100 + classoid::bigint", "true"),
    ("pg_database", "oid", "1", f"oid = {_THIS}"),
    ("pg_db_role_setting", "setrole", "1", f"setdatabase = {_THIS}"),
    *(
        (name, "oid", "1", "true")
        for name in (
            "pg_cast", "pg_collation", "pg_conversion", "pg_default_acl", "pg_enum", "pg_event_trigger", "pg_extension",
            "pg_foreign_data_wrapper", "pg_foreign_server", "pg_language", "pg_largeobject_metadata", "pg_opclass",
            "pg_opfamily", "pg_ts_config", "pg_ts_dict",
        )
    ),
)  # fmt: skip
_FROM_10 = (
    ("pg_publication", "oid", "1", "true"),
    ("pg_statistic_ext", "oid", "1", "true"),
    ("pg_sequence", "seqrelid", "1", "seqrelid IN (SELECT oid FROM persistent)"),
)


def sums(version: int) -> str:
    """The query: one row per catalog, with its name, its rows, and the sum (as text).

    :param version: of the server, as ``server_version_num`` has it.
    """
    parts = (
        f"SELECT '{catalog}'::text, count(*), coalesce(sum(({also})::bigint"  # noqa: S608
        f" * pg_catalog.hashint8(({key}::bigint << 32) | xmin::text::bigint)), 0)::text"
        f" FROM pg_catalog.{catalog} WHERE {condition}"
        for catalog, key, also, condition in (*_PARTS, *(_FROM_10 if version >= 100000 else ()))
    )
    return f"""
        WITH temporary AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'),
            persistent AS (SELECT oid, relkind FROM pg_catalog.pg_class
                WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
                AND relnamespace NOT IN (SELECT oid FROM temporary))
        {" UNION ALL ".join(parts)}
    """  # noqa: S608
