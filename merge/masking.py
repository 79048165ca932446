"""Values shown without showing them: type, length and a keyed hash, so that two can be told apart and no more."""

from __future__ import annotations

import hashlib
import secrets

from psycopg import sql

_VISIBLE = ("smallint", "integer", "bigint")
"""Types of internal keys: their values name nobody outside the database, and a person needs them to look."""


def new_secret() -> str:
    """A secret for one run: hashes of two runs cannot be compared, nor looked up in a table of all CPFs."""
    return secrets.token_hex(16)


def mask(value: str | None, type_name: str, secret: str) -> str:
    """Mask the text of a value, e.g. ``text(11) #3f2a9c0d11``; NULL stays ``NULL``."""
    if value is None:
        return "NULL"
    digest = hashlib.md5((secret + value).encode(), usedforsecurity=False).hexdigest()
    return f"{type_name}({len(value)}) #{digest[:10]}"


def masked(value: sql.Composable, type_name: str, secret: str) -> sql.Composed:
    """The SQL expression that gives what `mask` gives, so that the value itself never leaves the server."""
    return sql.SQL(
        "CASE WHEN ({value})::text IS NULL THEN 'NULL' ELSE {type} || '(' || length(({value})::text) || ') #'"
        " || left(md5({secret} || ({value})::text), 10) END"
    ).format(value=value, type=sql.Literal(type_name), secret=sql.Literal(secret))


def shown_key(values: dict[str, tuple[sql.Composable, str]], secret: str) -> sql.Composed:
    """The SQL expression of a row's key for a person: integers as they are, all else masked.

    :param values: by column, its expression and its type.
    """
    parts = [
        sql.SQL("{} || coalesce({}, 'NULL')").format(
            sql.Literal(f"{name}="),
            sql.SQL("({})::text").format(value) if type_name in _VISIBLE else masked(value, type_name, secret),
        )
        for name, (value, type_name) in values.items()
    ]
    return sql.SQL("concat_ws(', ', {})").format(sql.SQL(", ").join(parts)) if parts else sql.Composed([sql.SQL("''")])
