"""Properties of a database that a dump made with --create holds: its comment and its settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from sandbox.script import Statement, scan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.server import Server

_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_LITERAL = r"'(?:[^'\\]|'')*'"
_VALUE = rf"(?:{_LITERAL}|[\w.+-]+)"
_COMMENT = re.compile(rf"COMMENT ON DATABASE {_NAME} IS ({_LITERAL});", re.IGNORECASE)
_SET = re.compile(
    rf"ALTER DATABASE {_NAME} SET ({_NAME}(?:\.{_NAME})?) (?:TO|=) ({_VALUE}(?:\s*,\s*{_VALUE})*);", re.IGNORECASE
)
_NEVER = re.compile(r"role|session_authorization|\w*preload_libraries|\w+_timeout", re.IGNORECASE)
"""Settings that would make another of every session of ours, or end it."""
_QUIET = re.compile(r"(?:CREATE|DROP) DATABASE\b|ALTER DATABASE .* OWNER TO |GRANT |REVOKE ", re.IGNORECASE | re.DOTALL)


def apply(server: Server, database: str, owner: str, definitions: Iterable[str]) -> tuple[str, ...]:
    """Give our database the properties that a dump states; return the statements that could not be applied.

    Only comments and settings are understood, taken apart strictly and written anew; what the owner may not set (such
    as settings of the server's log, which would write rows to it) is left out.
    """
    left_out = []
    statements = [part.sql.decode() for part in scan(d.encode() for d in definitions) if isinstance(part, Statement)]
    with server.connect(database, owner) as conn:
        for statement in statements:
            if _QUIET.match(statement):
                continue
            query = _compose(database, statement)
            try:
                if query is None:
                    raise psycopg.errors.FeatureNotSupported
                conn.execute(query)
            except psycopg.Error:
                left_out.append(" ".join(statement.split(" TO ")[0].split()))
    return tuple(left_out)


def _compose(database: str, statement: str) -> sql.Composed | None:
    name = sql.Identifier(database)
    if found := _COMMENT.fullmatch(statement):
        return sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(_unquote(found[1])))
    if found := _SET.fullmatch(statement):
        parts = [_unquote(part) for part in re.findall(_NAME, found[1])]
        if len(parts) == 1 and _NEVER.fullmatch(parts[0]):
            return None
        setting = sql.Identifier(*parts)
        values = sql.SQL(", ").join(sql.Literal(_unquote(value)) for value in re.findall(_VALUE, found[2]))
        return sql.SQL("ALTER DATABASE {} SET {} TO {}").format(name, setting, values)
    return None


def _unquote(token: str) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote) if quote in "'\"" else token
