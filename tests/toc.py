"""The table of contents of a directory archive, to be changed: what is read is written again, byte for byte."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any

Entry = dict[str, Any]

_HEAD = 11
_STRINGS = ("defn", "drop", "copy", "namespace", "tablespace")


@dataclass
class Toc:
    """Header and entries, of archive versions 1.14 to 1.16."""

    head: bytes
    texts: list[bytes | None]
    entries: list[Entry]

    @classmethod
    def read(cls, raw: bytes) -> Toc:
        """Take it apart."""
        file = io.BytesIO(raw)
        start = file.read(_HEAD)
        head = start + (file.read(1) if start[6] >= 15 else file.read(5)) + file.read(7 * 5)
        texts = [_text(file) for _ in range(3)]
        return cls(head, texts, [_entry(file, head[6]) for _ in range(_number(file))])

    def entry(self, desc: str, tag: str | None = None) -> Entry:
        """The first entry of a kind."""
        return next(e for e in self.entries if e["desc"] == desc and tag in (None, e["tag"]))

    def write(self) -> bytes:
        """Put it together."""
        minor = self.head[6]
        parts = [self.head, *map(_as_text, self.texts), _as_number(len(self.entries))]
        for e in self.entries:
            parts += [_as_number(e["id"]), _as_number(e["dumper"])]
            parts += [_as_text(e[name]) for name in ("table_oid", "oid", "tag", "desc")]
            parts += [_as_number(e["section"]), *(_as_text(e[name]) for name in _STRINGS), _as_text(e["am"])]
            parts += [_as_number(e["kind"])] if minor >= 16 else []
            parts += [_as_text(e["owner"]), _as_text(e["oids"]), *map(_as_text, e["deps"]), _as_text(None)]
            parts += [_as_text(e["file"])]
        return b"".join(parts)


def _entry(file: IO[bytes], minor: int) -> Entry:
    e: Entry = {"id": _number(file), "dumper": _number(file)}
    e |= {name: _string(file) for name in ("table_oid", "oid", "tag", "desc")}
    e["section"] = _number(file)
    e |= {name: _string(file) for name in (*_STRINGS, "am")}
    e["kind"] = _number(file) if minor >= 16 else 0
    e |= {name: _string(file) for name in ("owner", "oids")}
    e["deps"] = list(iter(lambda: _string(file), None))
    e["file"] = _string(file)
    return e


def _number(file: IO[bytes]) -> int:
    raw = file.read(5)
    value = int.from_bytes(raw[1:], "little")
    return -value if raw[0] else value


def _text(file: IO[bytes]) -> bytes | None:
    length = _number(file)
    return None if length < 0 else file.read(length)


def _string(file: IO[bytes]) -> str | None:
    raw = _text(file)
    return None if raw is None else raw.decode()


def _as_number(value: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(4, "little")


def _as_text(value: str | bytes | None) -> bytes:
    if value is None:
        return _as_number(-1)
    raw = value.encode() if isinstance(value, str) else value
    return _as_number(len(raw)) + raw
