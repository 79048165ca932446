"""Encrypted files are told from all other binary files."""

from __future__ import annotations

import random

import pytest

from sandbox.openpgp import is_message

NOISE = random.Random(1).randbytes(100_000)
KEY = b"\3" + b"\xff" * 8 + b"\1" + NOISE[:258]
PASSWORD = bytes.fromhex("04090302b297c23e9cba3e33ff")
"""What `gpg --symmetric` writes: version 4, AES256, iterated and salted SHA1."""


def old(tag: int, body: bytes) -> bytes:
    """A packet with a header of the old format."""
    if len(body) < 256:
        return bytes([0x80 | tag << 2, len(body)]) + body
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def new(tag: int, body: bytes) -> bytes:
    """A packet with a header of the new format."""
    length = bytes([len(body)]) if len(body) < 192 else b"\xff" + len(body).to_bytes(4, "big")
    if 192 <= len(body) < 8384:
        length = bytes([((len(body) - 192) >> 8) + 192, (len(body) - 192) & 0xFF])
    return bytes([0xC0 | tag]) + length + body


def partial(tag: int, size: int, body: bytes) -> bytes:
    """The begin of a packet whose length comes in parts."""
    return bytes([0xC0 | tag, 224 + size]) + body


MESSAGES = {
    "gpg --symmetric": old(3, PASSWORD) + partial(18, 13, b"\1" + NOISE),
    "gpg --encrypt": old(1, KEY) + partial(18, 13, b"\1" + NOISE),
    "two keys": old(1, KEY) + old(1, KEY) + old(3, PASSWORD) + new(18, b"\1" + NOISE),
    "new keys": new(1, KEY) + new(3, PASSWORD) + new(18, b"\1" + NOISE),
    "small": old(3, PASSWORD) + new(18, b"\1" + NOISE[:40]),
    "d2 e9": partial(18, 9, b"\1" + NOISE),
    "d2 alone": new(18, b"\1" + NOISE[:5000]),
    "c9": partial(9, 9, NOISE),
    "old, without protection": old(3, PASSWORD) + partial(9, 13, NOISE),
    "marker": new(10, b"PGP") + old(3, PASSWORD) + new(18, b"\1" + NOISE),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_messages(kind: str) -> None:
    assert is_message(MESSAGES[kind])
    assert is_message(MESSAGES[kind][:65536])


@pytest.mark.parametrize(
    "rest",
    [
        b"\0" * 70000,
        "Não é um backup: são só palavras, muitas vezes.\n".encode() * 1500,
        bytes(range(256)) + b"\0" * 65000,
        bytes.fromhex("03000000000000000001") + b"abc" * 20000,
        b"\4\t\3\2" + b"\0" * 60000,
    ],
)
def test_no_false_alarm(rest: bytes) -> None:
    """Whatever the first two bytes of a file are, the rest says that nothing is encrypted."""
    assert not [(a, b) for a in range(128, 256) for b in range(0, 256, 3) if is_message(bytes([a, b]) + rest)]


def test_texts_and_short_files_are_none() -> None:
    for content in (b"", b"\xd2", b"\xd2\xe9", b"\xd2\xe9\x01", "é".encode() * 1000, "ção".encode(), b"\xc3\x0d\x04"):
        assert not is_message(content)


def test_other_compressed_files_are_none() -> None:
    """Of bytes at random one file in thousands is taken for a message: that one is refused with another sentence."""
    chance = random.Random(2)
    assert sum(is_message(chance.randbytes(700)) for _ in range(50_000)) <= 30
