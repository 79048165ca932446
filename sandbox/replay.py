"""A plain script executed statement by statement, the way pg_restore restores an archive with --no-owner."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from sandbox import restore_errors
from sandbox.intake import read_chunks
from sandbox.script import CopyBlock, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.intake import Backup
    from sandbox.server import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

_FLAGS = re.IGNORECASE | re.DOTALL
_NEVER = re.compile(
    rb"(?:grant|revoke|security\s+label|alter\s+default\s+privileges|alter\s+role|alter\s+user)\b"
    rb"|(?:set|reset)\s+(?:session\s+authorization|role|default_tablespace)\b"
    rb"|(?:create|alter|drop|comment\s+on)\s+(?:extension|subscription)\b"
    rb"|(?:create|drop)\s+database\b"
    rb"|(?:create|alter|drop|comment\s+on)\s+schema\s+(?:if\s+not\s+exists\s+)?public\b"
    rb"|(?:create|comment\s+on)\s+(?:or\s+replace\s+)?(?:trusted\s+)?(?:procedural\s+)?language\s+plpgsql\b"
    rb'|alter\s.*\sowner\s+to\s+(?:"(?:[^"]|"")+"|[\w$]+)\s*;\Z',
    _FLAGS,
)
_PROPERTY = re.compile(rb"(?:alter|comment\s+on)\s+database\b", _FLAGS)
_SETTING = re.compile(rb"set\s+(?:session\s+|local\s+)?(\w+)\s*(?:=|to\b)", _FLAGS)
_INSERT = re.compile(rb"insert\b", _FLAGS)
_SCHEMA = re.compile(rb"(?:create|alter|comment|set)\b|select\s+pg_catalog\.set_config\b", _FLAGS)
_LARGE_OBJECT = re.compile(
    rb"(?:begin|commit|set)\b|select\s+(?:pg_catalog\.)?(?:lo_create|lo_open|lo_close|lowrite|lo_put)\b", _FLAGS
)
_CREATED_SCHEMA = re.compile(rb'create\s+schema\s+("(?:[^"]|"")+"|\w+)', _FLAGS)
_BATCH = 5000


class Content(Enum):
    """What is wanted of a backup."""

    ALL = "all"
    SCHEMA = "schema"
    LARGE_OBJECTS = "large objects"


def replay(
    server: Server,
    backup: Backup,
    database: str,
    owner: str,
    content: Content,
    on_progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Execute a plain script as `owner`; return the statements about the database itself, which were not executed.

    :raises BackupError: at the first error.
    """
    wanted = {Content.SCHEMA: _SCHEMA, Content.LARGE_OBJECTS: _LARGE_OBJECT}.get(content)
    properties = []
    with server.connect(database, owner, prepare_threshold=None) as conn:
        player = _Player(conn)
        for part in scan(_watched(backup, on_progress)):
            if isinstance(part, CopyBlock):
                if content is Content.ALL:
                    player.copy(part)
            elif _PROPERTY.match(part.sql):
                properties.append(part.sql.decode(errors="replace"))
            elif wanted is None or wanted.match(part.sql):
                player.execute(part.sql)
        player.end_batch()
    return properties


class _Player:
    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.batch = 0
        self.settings = {name.encode() for (name,) in conn.execute("SELECT lower(name) FROM pg_settings")}

    def execute(self, statement: bytes) -> None:
        if _NEVER.match(statement):
            return
        if (found := _SETTING.match(statement)) and found[1].lower() not in self.settings:
            return  # of a newer pg_dump than this server
        if (schema := _CREATED_SCHEMA.match(statement)) and self._has_schema(schema[1]):
            return  # made for an extension
        try:
            if not _INSERT.match(statement):
                self.end_batch()
            elif self.batch or self.conn.info.transaction_status == TransactionStatus.IDLE:
                if not self.batch:
                    self.conn.execute("BEGIN")
                self.batch += 1
            self.conn.execute(statement)
            if self.batch >= _BATCH:
                self.end_batch()
        except psycopg.Error as ex:
            words = statement[:60].decode(errors="replace").split()
            raise restore_errors.of_statement(ex, " ".join(words[:3])) from None

    def end_batch(self) -> None:
        """Commit the INSERTs that were gathered in one transaction."""
        if self.batch:
            self.batch = 0
            self.conn.execute("COMMIT")

    def copy(self, block: CopyBlock) -> None:
        self.end_batch()
        names = (block.schema, block.table) if block.schema else (block.table,)
        statement = sql.SQL("COPY {} {} FROM STDIN").format(sql.Identifier(*names), column_list(block.columns))
        try:
            with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
                for chunk in block.data:
                    copy.write(chunk)
        except psycopg.Error as ex:
            raise restore_errors.of_statement(ex, block.table) from None

    def _has_schema(self, identifier: bytes) -> bool:
        name = identifier.decode(errors="replace")
        found = self.conn.execute("SELECT to_regnamespace(%s) IS NOT NULL", [name]).fetchone()
        return found is not None and bool(found[0])


def column_list(columns: tuple[str, ...] | None) -> sql.Composable:
    """``(a, b)``, or nothing."""
    if columns is None:
        return sql.SQL("")
    return sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, columns)))


def _watched(backup: Backup, on_progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    total, done = backup.readable.stat().st_size, 0
    for chunk in read_chunks(backup.readable):
        yield chunk
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, total)
