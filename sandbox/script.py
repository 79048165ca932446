"""A scanner of plain pg_dump scripts, and of what `pg_restore -f -` writes.

Gives statements and COPY blocks as they come, in flat memory. It follows psql's lexer closely enough that quotes,
dollar quotes, comments and SQL function bodies never end a statement early, and no command of psql's own (a line that
begins with a backslash) is ever executed: the pair ``\\restrict``/``\\unrestrict`` and ``\\connect`` to one database,
as `pg_dump -C` writes them, are passed over, anything else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.errors import BackupError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST_STATEMENT = 1 << 30
_PLAIN = re.compile(rb"""['"$;()\-/\\]""")
_ROUTINE = re.compile(rb"""['"$;()\-/\\]|(?<![\w$\x80-\xff])(?:begin|case|end)(?![\w$\x80-\xff])""", re.IGNORECASE)
_VALUES = rb"""[^'"$;()\\/\-]++|(?<![eE])'[^']*+'|-(?!-)"""
_ROWS = re.compile(rb"(?:insert|select)\s(?:%(v)s|\((?:%(v)s)*+\))*+;" % {b"v": _VALUES}, re.IGNORECASE)
"""A statement of values in simple strings, as most of a script of INSERTs are: faster than token by token."""
_CREATES_ROUTINE = re.compile(rb"create\s+(?:or\s+replace\s+)?(?:function|procedure)\s", re.IGNORECASE)
_DOLLAR = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$")
_DOLLAR_SO_FAR = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\Z")
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$") | frozenset(range(128, 256))
_AHEAD = 8
_LONGEST_TOKEN = len(b"begin")
_ESCAPED = re.compile(rb"['\\]")
_COMMENT = re.compile(rb"/\*|\*/")
_IDENTIFIER = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][\w$\x80-\xff]*)'
_COPY = re.compile(
    rb"copy\s+(?:(?P<schema>%(i)s)\s*\.\s*)?(?P<table>%(i)s)\s*(?:\((?P<columns>\s*%(i)s(?:\s*,\s*%(i)s)*\s*)\))?"
    rb"\s*from\s+stdin\s*;" % {b"i": _IDENTIFIER},
    re.IGNORECASE,
)
_ONE_IDENTIFIER = re.compile(_IDENTIFIER)
_SEARCH_PATH = re.compile(rb"set\s+search_path\s*(?:=|to)\s*(%(i)s)" % {b"i": _IDENTIFIER}, re.IGNORECASE)
_BACKSLASHES = re.compile(rb"set\s+standard_conforming_strings\s*(?:=|to)\s*'?(on|off)", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One SQL statement with its semicolon, without the comments before it."""

    sql: bytes


@dataclass(frozen=True)
class CopyBlock:
    """One ``COPY ... FROM stdin`` and its data.

    :param schema: as written, or the first schema of the search path that the script had set.
    :param columns: in the order of the data; None if the statement lists none.
    :param data: the data without the closing ``\\.``, in chunks that break anywhere; must be read before the scan goes
        on, or it is passed over.
    """

    schema: str | None
    table: str
    columns: tuple[str, ...] | None
    data: Iterator[bytes]


def scan(chunks: Iterable[bytes]) -> Iterator[Statement | CopyBlock]:
    """Give the statements and COPY blocks of a script.

    :raises BackupError: the script ends too early, or holds something that pg_dump does not write.
    """
    return iter(_Scanner(iter(chunks)))


def parse_copy(statement: bytes) -> tuple[str | None, str, tuple[str, ...] | None]:
    """Take ``COPY [schema.]table [(columns)] FROM stdin;`` apart; nothing else is accepted."""
    found = _COPY.fullmatch(statement.strip())
    if found is None:
        raise _foreign("COPY")
    schema, columns = found["schema"], found["columns"]
    return (
        None if schema is None else _name(schema),
        _name(found["table"]),
        None if columns is None else tuple(_name(c) for c in _ONE_IDENTIFIER.findall(columns)),
    )


def _name(identifier: bytes) -> str:
    try:
        written = identifier.decode("utf-8")
    except UnicodeDecodeError:
        raise _foreign("COPY") from None
    return written[1:-1].replace('""', '"') if written.startswith('"') else written.lower()


class _Scanner:
    """`buffer` holds what was read and not yet given away; `position` is how far it was looked at."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.buffer = bytearray()
        self.position = 0
        self.connected: list[str] | None = None
        self.restricted: list[str] | None = None
        self.search_path: str | None = None
        self.backslash_escapes = False

    def __iter__(self) -> Iterator[Statement | CopyBlock]:
        while self._skip_blanks():
            if self.buffer.startswith(b"\\"):
                self._command()
                continue
            statement = self._statement()
            if statement[:4].lower() == b"copy":
                schema, table, columns = parse_copy(statement)
                self._end_line()
                data = self._copy_data(table)
                yield CopyBlock(schema or self.search_path, table, columns, data)
                for _ in data:
                    pass
            elif statement != b";":
                self._note(statement)
                yield Statement(statement)
        if self.restricted is not None:
            raise _truncated()

    def _more(self) -> bool:
        """Read on; False at the end."""
        if len(self.buffer) > _LONGEST_STATEMENT:
            raise _foreign("…")
        chunk = next(self.chunks, None)
        if chunk is not None:
            self.buffer += chunk
        return chunk is not None

    def _note(self, statement: bytes) -> None:
        if statement[:3].lower() == b"set":
            if found := _SEARCH_PATH.match(statement):
                self.search_path = _name(found[1])
            elif found := _BACKSLASHES.match(statement):
                self.backslash_escapes = found[1].lower() == b"off"

    # Between statements

    def _skip_blanks(self) -> bool:
        """Drop blanks and comments; False at the end of the script."""
        while True:
            start = len(self.buffer) - len(self.buffer.lstrip())
            del self.buffer[:start]
            if len(self.buffer) < 2 and self._more():
                continue
            if not self.buffer:
                return False
            if self.buffer.startswith(b"--"):
                self._line()
            elif self.buffer.startswith(b"/*"):
                self.position = 0
                self._skip_comment()
                del self.buffer[: self.position]
            else:
                return True

    def _line(self) -> bytes:
        """Take the rest of the line."""
        looked = 0
        while (end := self.buffer.find(b"\n", looked)) < 0:
            looked = len(self.buffer)
            if not self._more():
                end = len(self.buffer)
                break
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def _end_line(self) -> None:
        if self._line().strip():
            raise _foreign("COPY")

    def _command(self) -> None:
        """A command of psql: two kinds are passed over, none is executed."""
        word, *rest = self._line().decode("ascii", errors="replace").split()
        if word == "\\restrict" and self.restricted is None:
            self.restricted = rest
            return
        if word == "\\unrestrict" and self.restricted == rest:
            self.restricted = None
            return
        if word != "\\connect" or self.connected not in (None, rest):
            raise _foreign(word[:40])
        self.connected = rest
        self.search_path = None

    # Within a statement

    def _statement(self) -> bytes:
        """Take one statement. `depth` counts parentheses, `blocks` BEGIN/CASE ... END in an SQL function's body."""
        if not self.backslash_escapes and (rows := _ROWS.match(self.buffer)):
            self.position = rows.end()
            return self._take()
        self.position = depth = blocks = 0
        tokens = _PLAIN
        while True:
            start, token = self._token(tokens)
            if token == b";" and depth == 0 and blocks == 0:
                return self._take()
            if token == b"(":
                depth += 1
                if _CREATES_ROUTINE.match(self.buffer):
                    tokens = _ROUTINE
            elif token == b")":
                depth = max(depth - 1, 0)
            elif len(token) == 1:
                self._pass(token, start)
            elif depth == 0:
                blocks = _count_blocks(blocks, token.lower())

    def _token(self, tokens: re.Pattern[bytes]) -> tuple[int, bytes]:
        """Find the next token, and move behind it."""
        while True:
            searched = len(self.buffer)
            found = tokens.search(self.buffer, self.position)
            # What a token means may depend on bytes that are still to come.
            if (found is None or found.end() > searched - _AHEAD) and self._more():
                if found is None:
                    self.position = max(self.position, searched - _LONGEST_TOKEN)
                continue
            if found is None:
                raise _truncated()
            self.position = found.end()
            return found.start(), found[0]

    def _take(self) -> bytes:
        statement = bytes(self.buffer[: self.position])
        del self.buffer[: self.position]
        return statement

    def _pass(self, token: bytes, start: int) -> None:
        """Move behind the string, name or comment that the token begins, if it begins one."""
        following = self.buffer[start + 1 : start + 2]
        if token == b"\\":
            raise _foreign("\\")
        if token == b"'":
            if self.backslash_escapes or self._is_word(start, b"e"):
                self._skip_escaped()
            else:  # a doubled quote ends one string and begins the next
                self._skip_to(b"'")
        elif token == b'"':
            self._skip_to(b'"')
        elif token == b"-" and following == b"-":
            self._skip_to(b"\n")
        elif token == b"/" and following == b"*":
            self.position = start
            self._skip_comment()
        elif token == b"$" and not (start and self.buffer[start - 1] in _WORD):
            while (tag := _DOLLAR.match(self.buffer, start)) is None:
                if _DOLLAR_SO_FAR.match(self.buffer, start) is None or not self._more():
                    return
            self.position = tag.end()
            self._skip_to(tag[0])

    def _is_word(self, end: int, word: bytes) -> bool:
        start = end - len(word)
        return (
            start >= 0
            and self.buffer[start:end].lower() == word
            and not (start and self.buffer[start - 1] in _WORD)
        )  # fmt: skip

    def _skip_to(self, mark: bytes) -> None:
        while (found := self.buffer.find(mark, self.position)) < 0:
            self.position = max(self.position, len(self.buffer) - len(mark) + 1)
            if not self._more():
                raise _truncated()
        self.position = found + len(mark)

    def _skip_escaped(self) -> None:
        while True:
            found = _ESCAPED.search(self.buffer, self.position)
            if found is None or found.end() == len(self.buffer):
                if found is None:
                    self.position = len(self.buffer)
                if self._more():
                    continue
                if found is None or found[0] != b"'":
                    raise _truncated()
            self.position = found.end()
            if found[0] == b"\\" or self.buffer[self.position : self.position + 1] == b"'":
                self.position += 1
            else:
                return

    def _skip_comment(self) -> None:
        """Pass the comment that begins at `position`; comments nest."""
        self.position += 2
        depth = 1
        while depth:
            found = _COMMENT.search(self.buffer, self.position)
            if found is None:
                self.position = max(self.position, len(self.buffer) - 1)
                if not self._more():
                    raise _truncated()
                continue
            self.position = found.end()
            depth += 1 if found[0] == b"/*" else -1

    # Data

    def _copy_data(self, table: str) -> Iterator[bytes]:
        buffer = self.buffer
        buffer[:0] = b"\n"  # so that the end of the data is looked for in one way, also where there are none
        first, looked = 1, 0
        while True:
            end = buffer.find(b"\n\\.", looked)
            if end < 0:
                ready = len(buffer) - 2
                if ready > first:
                    yield bytes(buffer[first:ready])
                    del buffer[:ready]
                    first = looked = 0
                if not self._more():
                    raise _truncated(table)
                continue
            rest = bytes(buffer[end + 3 : end + 5])
            if rest in (b"", b"\r") and self._more():
                looked = end
            elif rest in (b"", b"\r", b"\r\n") or rest.startswith(b"\n"):
                if end + 1 > first:
                    yield bytes(buffer[first : end + 1])
                del buffer[: end + 3 + (rest.find(b"\n") + 1 or len(rest))]
                return
            else:
                looked = end + 1


def _count_blocks(blocks: int, word: bytes) -> int:
    if word == b"begin":
        return blocks + 1
    if word == b"case":
        return blocks + 1 if blocks else 0
    return max(blocks - 1, 0)


class Truncated(BackupError):
    """The script ends within a statement or a table's data; then `details` name the table."""


def _truncated(*tables: str) -> Truncated:
    return Truncated(
        text(
            pt="O script SQL está incompleto: termina no meio de um comando ou dos dados de uma tabela.",
            en="The SQL script is incomplete: it ends within a statement or a table's data.",
        ),
        next_step=text(
            pt="Copie o arquivo de novo da origem, ou faça o backup outra vez.",
            en="Copy the file again from where it was made, or take the backup again.",
        ),
        details=tables,
    )


def _foreign(what: str) -> BackupError:
    return BackupError(
        text(
            pt=f"O script SQL tem algo que o pg_dump não escreve e que não será executado: {what}",
            en=f"The SQL script holds something that pg_dump does not write and that will not be executed: {what}",
        ),
        next_step=text(
            pt="Faça o backup de um só banco com pg_dump, de preferência no formato custom (-Fc).",
            en="Take a backup of one database with pg_dump, preferably in custom format (-Fc).",
        ),
    )
