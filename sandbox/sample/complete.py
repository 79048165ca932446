"""Turn a SELECT of a few meaningful columns into an INSERT of all columns of a table.

What a SELECT does not say gets a plausible, deterministic value from the column's name, type and foreign key. The
number that decides it is the SELECT's column ``"#"``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

KEYS = 200
"""How many keys of a catalog are referred to by completed columns."""

NATURAL = {
    "tb_ciap": "ds_ciap",
    "tb_ciap_capitulo": "co_capitulo",
    "tb_exame_detalhe": "ds_exame_detalhe",
    "tb_grupo_condicao_saude": "no_grupo",
    "tb_imunobiologico_fabricante": "no_fabricante",
    "tb_ivcf_perguntas": "ds_pergunta",
    "tb_medicamento": "no_principio_ativo",
    "tb_opcoes_result_exm_qlitativo": "no_resultado_qualitativo",
    "tb_pergunta": "ds_pergunta",
    "tb_proced": "co_proced",
    "tb_proced_automatico": "co_proced",
    "tb_proced_nome_popular": "no_popular",
    "tb_recurso": "ds_caminho",
    "tb_subtipo_unidade_saude": "co_subtp_unidade_saude",
    "tb_substancia_cbara": "no_substancia_alergia",
    "tb_substancia_espec_alergia": "co_medicamento_catmat",
    "tb_tipo_equipe": "nu_ms",
    "tb_tipo_unidade_saude": "co_tipo_unidade_cnes",
}
"""Natural keys of catalogs with local ids, where the name does not tell (else ``no_<table>``)."""

_REFERENCES = re.compile(
    r"(^|_)(cns|cpf|cnpj|cartao|login)|^(co|tp|uuid|session|nu_(cnes|ine|nis|pis|documento|cbo|uuid))_"
)
"""Columns that refer to something: never made up."""


@dataclass(frozen=True)
class Column:
    """One column of a table; `length` in characters or None; `refers` is the table of its one-column foreign key."""

    name: str
    type: str
    length: int | None
    not_null: bool
    default: bool
    refers: str | None
    key: bool


_COLUMNS = """
    SELECT c.relname, a.attname, y.typname,
           CASE WHEN y.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END, a.attnotnull,
           a.atthasdef, r.relname, coalesce(a.attnum = ANY (p.conkey), false)
      FROM pg_class c
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type y ON y.oid = a.atttypid
      LEFT JOIN pg_constraint p ON p.conrelid = c.oid AND p.contype = 'p'
      LEFT JOIN LATERAL (SELECT t.relname FROM pg_constraint k JOIN pg_class t ON t.oid = k.confrelid
                          WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum] LIMIT 1) r ON true
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
     ORDER BY c.relname, a.attnum
"""


_MIRROR = """
    INSERT INTO {table} (co_revisao, co_tipo_revisao, {names})
    SELECT 1 + b.{key} / 7 % (SELECT count(*) FROM tb_revisao), 0, {values}
      FROM {base} b WHERE b.{key} % {number} = 0
"""

# A deletion names a row that is not there: its key is beyond all keys.
_AUDIT = """
    INSERT INTO {table} ({pk}, co_tipo_auditoria, dt_auditoria, {names})
    SELECT (b.rn - 1) * {number} + v, CASE v WHEN 1 THEN 'I' ELSE 'U' END,
           timestamp '2023-01-01' + (b.rn % 1000000 * {number} + v) * interval '1 minute', {values}
      FROM (SELECT *, row_number() OVER (ORDER BY {keys}) AS rn FROM {base}) b, generate_series(1, {number}) v
    UNION ALL
    SELECT (SELECT count(*) FROM {base}) * {number} + b.rn, 'D',
           timestamp '2025-10-31' + b.rn % 1000 * interval '1 minute', {gone}
      FROM (SELECT *, row_number() OVER (ORDER BY {keys}) AS rn FROM {base}) b
     WHERE b.rn <= (SELECT count(*) / 50 FROM {base})
"""


def _trusted(text: str) -> sql.SQL:
    """SQL text of this package's own files."""
    return sql.SQL(text)


class Completion:
    """Knows the tables of one installation and writes INSERTs for them."""

    def __init__(self, conn: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._conn = conn
        self._keys: dict[str, list[str]] = {}
        self.tables: dict[str, list[Column]] = {}
        for table, *rest in conn.execute(_COLUMNS.encode()).fetchall():
            self.tables.setdefault(table, []).append(Column(*rest))

    def insert(self, table: str, select: str, *, bare: bool = False, catalog: bool = False) -> sql.Composed:
        """Return the INSERT of `select` into `table`.

        :param bare: leave out what the SELECT does not say.
        :param catalog: no completed column is NULL (else one in four that may).
        """
        given = self._outputs(select)
        unknown = given - {c.name for c in self.tables[table]} - {"#"}
        if unknown:
            raise ValueError(f"{table}: no such column {sorted(unknown)}")
        values = {c.name: f's."{c.name}"' for c in self.tables[table] if c.name in given}
        if not bare:
            for number, column in enumerate(self.tables[table], start=100):
                if column.name not in given and not column.default:
                    value = self._value(table, column, number, given)
                    if value is None and column.not_null:
                        raise ValueError(f"{table}.{column.name} may not be NULL and cannot be made up")
                    if value is not None and not column.not_null and not catalog:
                        value = f'CASE WHEN sample.h(s."#", {number + 500}) % 4 > 0 THEN {value} END'
                    if value is not None:
                        values[column.name] = value
        return sql.SQL("INSERT INTO {} ({})\nSELECT {}\n  FROM (\n{}\n) s").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(",\n       ").join(map(_trusted, values.values())),
            _trusted(select),
        )

    def rows(self, table: str, count: int, *, local: bool) -> str:
        """Return a SELECT of `count` bare keys for a catalog."""
        key = next(c.name for c in self.tables[table] if c.key)
        value = f"sample.local_id(n, {count})" if local else "n"
        return f'SELECT n AS "#", {value} AS {key} FROM generate_series(1, {count}) n'  # noqa: S608 - our own catalogs

    def mirror(self, table: str, kind: str, number: int) -> sql.Composed:
        """Return the INSERT that logs a table in its tl_ (every `number`-th row) or ta_ table (`number` versions)."""
        base = next(name for name in (f"tb_{table[3:]}", f"rl_{table[3:]}", table[3:]) if name in self.tables)
        own = {c.name: c.type for c in self.tables[base]}
        common = [c.name for c in self.tables[table] if own.get(c.name) == c.type]
        keys = [c.name for c in self.tables[base] if c.key]
        columns = {name: sql.SQL("b.{}").format(sql.Identifier(name)) for name in common}
        parts = {
            "table": sql.Identifier(table),
            "base": sql.Identifier(base),
            "pk": sql.Identifier(next((c.name for c in self.tables[table] if c.key), "")),
            "key": sql.Identifier(keys[0]),
            "keys": sql.SQL(", ").join(map(sql.Identifier, keys)),
            "number": sql.Literal(number),
            "names": sql.SQL(", ").join(map(sql.Identifier, common)),
            "values": sql.SQL(", ").join(columns.values()),
        }
        if len(keys) == 1 and keys[0] in columns:
            columns[keys[0]] = sql.SQL("b.{key} + (SELECT max({key}) FROM {base})").format(**parts)
        return sql.SQL(_MIRROR if kind == "mirror" else _AUDIT).format(
            **parts, gone=sql.SQL(", ").join(columns.values())
        )

    def _outputs(self, select: str) -> set[str]:
        cursor = self._conn.execute(sql.SQL("SELECT * FROM ({}) s LIMIT 0").format(_trusted(select)))
        return {c.name for c in cursor.description or ()}

    def _value(self, table: str, column: Column, number: int, given: set[str]) -> str | None:
        return self._reference(column, number) if column.refers else self._invention(table, column, number, given)

    def _reference(self, column: Column, number: int) -> str | None:
        keys = self._catalog_keys(column.refers or "")
        return f"('{{{','.join(keys)}}}'::bigint[])[1 + sample.h(s.\"#\", {number}) % {len(keys)}]" if keys else None

    def _catalog_keys(self, table: str) -> list[str]:
        """A filled catalog's keys, in the order of what they mean, so that they tell the same in all installations."""
        if table not in self._keys:
            names = [c.name for c in self.tables[table]]
            key = next(c.name for c in self.tables[table] if c.key)
            order = key
            if key.startswith("co_seq_"):
                order = NATURAL.get(table, next((n for n in names if n.startswith("no_")), key))
            found = self._conn.execute(
                sql.SQL(
                    "SELECT array_agg(k ORDER BY o)"
                    '  FROM (SELECT {key} AS k, {order}::text COLLATE "C" AS o FROM {table}'
                    " WHERE EXISTS (SELECT 1 FROM sample.catalog WHERE name = {name})"
                    # Rows that only this installation has.
                    " AND {order}::text NOT LIKE '% LOCAL %' AND {order}::text NOT LIKE '999999999%'"
                    " ORDER BY o LIMIT {limit}) q"
                ).format(
                    key=sql.Identifier(key),
                    order=sql.Identifier(order),
                    table=sql.Identifier(table),
                    name=sql.Literal(table),
                    limit=sql.Literal(KEYS),
                )
            ).fetchone()
            if not found or not found[0]:
                return []
            self._keys[table] = [str(key) for key in found[0]]
        return self._keys[table]

    def _invention(self, table: str, column: Column, number: int, given: set[str]) -> str | None:
        name, kind = column.name, column.type
        roll = f'sample.h(s."#", {number})'
        if name.startswith("tp_") and kind in ("varchar", "text") and column.not_null:
            return f"'TIPO_' || 1 + {roll} % 4"
        if _REFERENCES.search(name):
            return None
        if kind in ("varchar", "bpchar", "text"):
            value = self._text(table, name, roll, given)
            return f"left({value}, {column.length})" if column.length else value
        if kind in ("timestamp", "timestamptz"):
            return f"timestamp '2025-10-30 12:00' - {roll} % 1000 * interval '1 day 1 minute'"
        return {
            "date": f"date '2025-10-30' - {roll} % 1000",
            "int2": f"({roll} % {2 if name.startswith('st_') else 30})::smallint",
            "int4": f"{roll} % {2 if name.startswith('st_') else 30}",
            "int8": f"{roll} % {2 if name.startswith('st_') else 30}",
            "float8": f"({roll} % 10000) / 16.0",
            "numeric": f"{roll} % 90 + 0.5",
            "bytea": f"decode(md5({roll}::text), 'hex')",
            "bool": f"{roll} % 2 = 1",
        }.get(kind)

    def _text(self, table: str, name: str, roll: str, given: set[str]) -> str:
        base = re.sub(r"_filtr[o]?$", "", name)
        if base != name:
            source = next((g for g in given if g == base or g == base.replace("med", "medicamento")), None)
            if source:
                return f'sample.plain(s."{source}")'
            return f"'{self._label(table, base).lower()} ' || s.\"#\""
        if "cep" in name:
            return f"'99999' || lpad(({roll} % 1000)::text, 3, '0')"
        if "email" in name:
            return "'pessoa' || s.\"#\" || '@exemplo.invalid'"
        if name.startswith(("nu_fone", "nu_telefone")):
            return f"'0000' || lpad(({roll} % 10000)::text, 4, '0')"
        if name in ("nu_dne", "nu_ms", "nu_identificador"):
            return 's."#"::text'
        if name.startswith(("nu_", "qt_", "horario", "st_")):
            return f"({roll} % 90 + 10)::text"
        return f"'{self._label(table, name)} ' || s.\"#\""

    @staticmethod
    def _label(table: str, name: str) -> str:
        words = name.split("_")[1:] or [name]
        return " ".join(words).capitalize() if len("".join(words)) > 3 else table[3:].replace("_", " ").capitalize()
