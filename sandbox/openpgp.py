"""Telling whether a file is a binary OpenPGP message (RFC 4880), as gpg and others write encrypted files.

One byte says little: any binary file may begin with it. So the packets that a message begins with are read, in both
formats of their headers, down to fields that have few values, and what is encrypted must look so.
"""

from __future__ import annotations

from collections import Counter

_PUBLIC_KEY, _SYMMETRIC_KEY, _ENCRYPTED, _MARKER, _PROTECTED = 1, 3, 9, 10, 18
_PUBLIC_KEY_ALGORITHMS = frozenset((1, 2, 16, 18, 25, 26))
_CIPHERS = range(1, 14)
_FEWEST = 256


def is_message(head: bytes) -> bool:
    """True if a file that begins with `head` is an encrypted message."""
    start, has_key = 0, False
    while (packet := _packet(head, start)) is not None:
        tag, body, start = packet
        content = head[body:start]
        if (tag == _PUBLIC_KEY and _is_public_key(content)) or (tag == _SYMMETRIC_KEY and _is_symmetric_key(content)):
            has_key = True
        elif tag == _PROTECTED:
            return content[:1] in (b"\1", b"\2") and (has_key or _looks_encrypted(content[1:]))
        elif tag == _ENCRYPTED:
            # Without a key before it nothing but its header tells what it is: only one that comes in parts is believed.
            in_parts = head[0] & 0x40 and 224 <= head[1] < 255
            return has_key or (bool(in_parts) and _looks_encrypted(content))
        elif (tag, content) != (_MARKER, b"PGP"):
            return False
    return False


def _packet(head: bytes, start: int) -> tuple[int, int, int] | None:
    """Tag of a packet, and where its body (or the first part of it) begins and ends; None if there is none."""
    first, *rest = head[start : start + 6].ljust(6, b"\0")
    if not first & 0x80 or start + 2 > len(head):
        return None
    if first & 0x40:
        length, used = rest[0], 2
        if 192 <= length < 224:
            length, used = ((length - 192) << 8) + rest[1] + 192, 3
        elif 224 <= length < 255:  # only a part of it; the first is at least of 512 bytes
            length = 1 << (length & 0x1F)
            if length < 512:
                return None
        elif length == 255:
            length, used = int.from_bytes(rest[1:5], "big"), 6
        tag = first & 0x3F
    else:
        size = (1, 2, 4, 0)[first & 3]
        length, used = (int.from_bytes(rest[:size], "big") if size else len(head)), 1 + size
        tag = first >> 2 & 0x0F
    return tag, start + used, start + used + length


def _is_public_key(body: bytes) -> bool:
    """A session key for someone's key: version 3, the key's id, and an algorithm; or version 6."""
    return body[:1] == b"\6" or (len(body) > 10 and body[0] == 3 and body[9] in _PUBLIC_KEY_ALGORITHMS)


def _is_symmetric_key(body: bytes) -> bool:
    """A session key from a password: version 4 to 6, a cipher, and how the password is hashed."""
    if len(body) < 4 or body[0] not in (4, 5, 6):
        return False
    if body[0] == 4:
        return body[1] in _CIPHERS and body[2] in (0, 1, 3, 4)
    return any(cipher in _CIPHERS for cipher in body[1:3])


def _looks_encrypted(data: bytes) -> bool:
    """True for bytes of which none is much more frequent than the others; of few bytes that cannot be told."""
    expected = len(data) / 256
    return len(data) >= _FEWEST and max(Counter(data).values()) <= max(2 * expected, expected + 12)
