"""What no restore brings: who owns what, who may do what, and the settings of a database.

A candidate is restored without owners and privileges, as one role's. Before, all of this is captured from production;
after, it is put back (`put_back`), and compared. Rows of catalogs pass through here, never rows of patients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merge.language import text
from sandbox.promotion import grants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.promotion.grants import Grants
    from sandbox.promotion.production import Connection


@dataclass(frozen=True)
class Properties:
    """A database as a whole; `locale` of ICU or the server's own provider, `comment` None if it has none."""

    owner: str
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    rules: str | None
    tablespace: str
    connection_limit: int
    comment: str | None
    grants: Grants


@dataclass(frozen=True)
class Setting:
    """A setting of all sessions in the database, or (`role`) of one role's."""

    role: str
    name: str
    value: str


@dataclass(frozen=True)
class Thing:
    """An object: `kind` and `identity` as ``pg_identify_object`` has them; a column's `owner` is its table's.

    :ivar system: the server brought it; its owner is not ours to set.
    """

    kind: str
    identity: str
    column: str | None
    owner: str
    grants: Grants
    system: bool


@dataclass(frozen=True)
class Defaults:
    """What a role grants with every new object of a kind, in a schema or (empty) everywhere."""

    role: str
    schema: str
    kind: str
    grants: tuple[grants.Grant, ...]


@dataclass(frozen=True)
class Belongings:
    """All that belongs to a database and is not in what is restored."""

    database: Properties
    settings: tuple[Setting, ...]
    things: tuple[Thing, ...]
    defaults: tuple[Defaults, ...]

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Belongings:
        """Read what a run saved."""
        return cls(
            Properties(**{**saved["database"], "grants": _grants(saved["database"]["grants"])}),
            tuple(Setting(**setting) for setting in saved["settings"]),
            tuple(Thing(**{**thing, "grants": _grants(thing["grants"])}) for thing in saved["things"]),
            tuple(Defaults(**{**line, "grants": _grants(line["grants"]) or ()}) for line in saved["defaults"]),
        )


def _grants(saved: list[dict[str, Any]] | None) -> Grants:
    if saved is None:
        return None
    return tuple(grants.Grant(**{**grant, "privileges": tuple(grant["privileges"])}) for grant in saved)


def capture(conn: Connection) -> Belongings:
    """Read all of it.

    :param conn: a session in the database that searches only ``pg_catalog``.
    """
    version = conn.info.server_version
    settings = conn.execute(_SETTINGS).fetchall()
    return Belongings(
        properties(conn, _name(conn)),
        tuple(Setting(role, *setting.split("=", 1)) for role, setting in settings),
        tuple(
            Thing(kind, identity, column, owner, grants.read(found), system)
            for kind, identity, column, owner, found, system in conn.execute(_things(version)).fetchall()
        ),
        tuple(
            Defaults(role, schema, _DEFAULT_KINDS[kind], grants.read(found) or ())
            for role, schema, kind, found in conn.execute(_DEFAULTS).fetchall()
        ),
    )


def properties(conn: Connection, database: str) -> Properties:
    """A database of the server as a whole, seen from any other.

    :raises LookupError: there is none of this name.
    """
    row = conn.execute(_properties(conn.info.server_version), [database]).fetchone()
    if row is None:
        raise LookupError(database)
    return Properties(*(*row[:-1], grants.read(row[-1])))


def differences(expected: Belongings, found: Belongings) -> tuple[str, ...]:
    """What is not alike, in words; empty if nothing. The comment is not looked at: it is exchanged with the name."""
    lines = []

    def compare(what: str, wanted: object, got: object) -> None:
        if wanted != got:
            lines.append(f"{what}: {_shown(wanted)} ≠ {_shown(got)}")

    for name in Properties.__dataclass_fields__:
        if name != "comment":
            compare(f"database, {name}", getattr(expected.database, name), getattr(found.database, name))
    for what, wanted, got in (
        ("setting", _by_key(expected.settings, 2), _by_key(found.settings, 2)),
        ("default privileges", _by_key(expected.defaults, 3), _by_key(found.defaults, 3)),
        ("", _by_key(expected.things, 3), _by_key(found.things, 3)),
    ):
        for key in sorted({*wanted, *got}, key=str):
            shown = " ".join(filter(None, (what, *map(str, filter(None, key)))))
            if key not in got:
                lines.append(f"{shown}: " + text(pt="só na produção", en="only in production"))
            elif key not in wanted:
                lines.append(f"{shown}: " + text(pt="só no candidato", en="only in the candidate"))
            else:
                for name in wanted[key].__dataclass_fields__:
                    compare(f"{shown}, {name}", getattr(wanted[key], name), getattr(got[key], name))
    return tuple(lines)


def _by_key(lines: tuple[Any, ...], parts: int) -> dict[tuple[Any, ...], Any]:
    return {tuple(getattr(line, name) for name in list(line.__dataclass_fields__)[:parts]): line for line in lines}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + "; ".join(map(str, value)) + "]"
    return "–" if value is None else str(value)


def setting_values(setting: Setting) -> tuple[str, ...]:
    """The values that ``SET`` takes for a setting: those that are lists of names are stored as one, with quotes."""
    if setting.name.lower() not in _LISTS:
        return (setting.value,)
    found = re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', setting.value)
    return tuple(quoted.replace('""', '"') if quoted else plain for quoted, plain in found) or ("",)


_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
"""Settings that PostgreSQL marks as lists with quotes (``GUC_LIST_QUOTE``), as its own pg_dump lists them."""

_DEFAULT_KINDS = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "FUNCTIONS",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}


def _name(conn: Connection) -> str:
    row = conn.execute("SELECT pg_catalog.current_database()::text").fetchone()
    assert row is not None
    return str(row[0])


def _properties(version: int) -> str:
    provider = "d.datlocprovider::text" if version >= 150000 else "'c'::text"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "NULL::text"
    rules = "d.daticurules" if version >= 160000 else "NULL::text"
    return f"""
        SELECT pg_catalog.pg_get_userbyid(d.datdba)::text, pg_catalog.pg_encoding_to_char(d.encoding)::text,
            d.datcollate::text, d.datctype::text, {provider}, {locale}, {rules}, t.spcname::text, d.datconnlimit,
            pg_catalog.shobj_description(d.oid, 'pg_database'), {grants.selected("d.datacl", "'d'", "d.datdba")}
        FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
        WHERE d.datname = %s
    """  # noqa: S608


_SETTINGS = """
SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole)::text END, v.setting
FROM pg_catalog.pg_db_role_setting s
JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = pg_catalog.current_database(),
    pg_catalog.unnest(s.setconfig) v (setting)
ORDER BY 1, 2
"""

_DEFAULTS = f"""
SELECT pg_catalog.pg_get_userbyid(defaclrole)::text, coalesce(n.nspname::text, ''), defaclobjtype::text,
    {grants.selected("defaclacl", "'c'", "defaclrole")}
FROM pg_catalog.pg_default_acl LEFT JOIN pg_catalog.pg_namespace n ON n.oid = defaclnamespace
ORDER BY 1, 2, 3
"""  # noqa: S608

# (catalog, SQL for the letter of acldefault, owner, access list, which rows): those that have privileges
_WITH_GRANTS = (
    (
        "pg_class",
        "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END",
        "relowner",
        "relacl",
        "relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'",
    ),
    ("pg_proc", "'f'", "proowner", "proacl", "true"),
    ("pg_namespace", "'n'", "nspowner", "nspacl", "nspname !~ '^pg_(toast|temp)'"),
    (
        "pg_type",
        "'T'",
        "typowner",
        "typacl",
        "typtype <> 'm' AND typcategory <> 'A' AND (typrelid = 0"
        " OR typrelid IN (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'c'))"
        " AND typnamespace NOT IN (SELECT n.oid FROM pg_catalog.pg_namespace n"
        " WHERE n.nspname ~ '^pg_(toast|temp)')",
    ),
    ("pg_language", "'l'", "lanowner", "lanacl", "true"),
    ("pg_foreign_data_wrapper", "'F'", "fdwowner", "fdwacl", "true"),
    ("pg_foreign_server", "'S'", "srvowner", "srvacl", "true"),
    (  # there may be millions: those of the database's owner that nobody else was given are all alike
        "pg_largeobject_metadata",
        "'L'",
        "lomowner",
        "lomacl",
        "lomacl IS NOT NULL OR lomowner <> (SELECT d.datdba FROM pg_catalog.pg_database d"
        " WHERE d.datname = pg_catalog.current_database())",
    ),
)
_SYSTEM = {"pg_namespace": "oid < 16384 AND nspname <> 'public'", "pg_largeobject_metadata": "false"}
"""Which objects are the server's own: the schema ``public`` comes with it, but is the database owner's to do with."""

_CLASS = {"pg_largeobject_metadata": "pg_largeobject"}
"""By which catalog objects are addressed, where it is another."""

_WITHOUT_GRANTS = (
    ("pg_collation", "collowner"),
    ("pg_conversion", "conowner"),
    ("pg_event_trigger", "evtowner"),
    ("pg_extension", "extowner"),
    ("pg_operator", "oprowner"),
    ("pg_opclass", "opcowner"),
    ("pg_opfamily", "opfowner"),
    ("pg_ts_config", "cfgowner"),
    ("pg_ts_dict", "dictowner"),
)
_WITHOUT_GRANTS_10 = (("pg_publication", "pubowner"), ("pg_statistic_ext", "stxowner"))


def _things(version: int) -> str:
    """All objects that somebody made, and those of the server whose privileges somebody changed."""
    without = (*_WITHOUT_GRANTS, *(_WITHOUT_GRANTS_10 if version >= 100000 else ()))
    parts = [
        f"SELECT 'pg_catalog.{_CLASS.get(catalog, catalog)}'::pg_catalog.regclass::oid AS class, oid AS object,"  # noqa: S608
        f' {letter}::"char" AS letter, {owner} AS owner, {acl} AS acl, {_SYSTEM.get(catalog, "oid < 16384")} AS system'
        f" FROM pg_catalog.{catalog} WHERE {condition}"
        for catalog, letter, owner, acl, condition in _WITH_GRANTS
    ] + [
        f"SELECT 'pg_catalog.{catalog}'::pg_catalog.regclass::oid, oid, NULL::\"char\", {owner}, NULL::aclitem[], false"  # noqa: S608
        f" FROM pg_catalog.{catalog} WHERE oid >= 16384"
        for catalog, owner in without
    ]
    return f"""
        WITH objects AS ({" UNION ALL ".join(parts)})
        SELECT i.type, i.identity, NULL::text, pg_catalog.pg_get_userbyid(o.owner)::text,
            {grants.selected("o.acl", "o.letter", "o.owner")}, o.system
        FROM objects o, pg_catalog.pg_identify_object(o.class, o.object, 0) i
        WHERE NOT o.system OR o.acl IS DISTINCT FROM (SELECT p.initprivs FROM pg_catalog.pg_init_privs p
                WHERE p.classoid = o.class AND p.objoid = o.object AND p.objsubid = 0)
        UNION ALL
        SELECT * FROM (
            SELECT i.type, i.identity, a.attname::text, pg_catalog.pg_get_userbyid(c.relowner)::text,
                {grants.selected("a.attacl", "'c'", "c.relowner")} AS found, c.oid < 16384
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid,
                pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) i
            WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.relpersistence <> 't'
                AND a.attacl IS DISTINCT FROM (SELECT p.initprivs FROM pg_catalog.pg_init_privs p
                    WHERE p.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objoid = c.oid
                    AND p.objsubid = a.attnum)) columns
        WHERE found IS NOT NULL
        ORDER BY 1, 2, 3
    """  # noqa: S608
