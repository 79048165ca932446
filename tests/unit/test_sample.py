"""The parts of the sample that need no server."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from importlib.resources import files

import pytest

from sandbox.sample import Installation, overlap, world
from sandbox.sample.fill import _blocks, _passwords
from sandbox.sample.overlap import MAX_SOURCES, PERCENT, shares

SCHEMA = files("sandbox.sample").joinpath("schema.sql").read_text(encoding="utf-8")
SQL_FILES = [p for p in files("sandbox.sample").joinpath("sql").iterdir() if p.name.endswith(".sql")]


def test_schema_statements_are_separated_by_one_blank_line() -> None:
    for statement in SCHEMA.split("\n\n"):
        code = re.sub(r"--[^\n]*", "", statement).strip()
        assert not code or code.endswith(";"), statement[:80]


def test_schema_names_have_at_most_30_characters() -> None:
    names = re.findall(r"(?:TABLE|SEQUENCE|CONSTRAINT|INDEX) (\w+)", re.sub(r"--[^\n]*", "", SCHEMA))
    assert len(names) > 3000
    assert [n for n in names if len(n) > 30] == []


def test_every_sequence_but_two_names_a_column_of_the_schema() -> None:
    sequences = re.findall(r"^CREATE SEQUENCE (\w+); -- (.+)$", SCHEMA, re.MULTILINE)
    assert len({name for name, _ in sequences}) == len(sequences) > 500
    assert len([f for _, f in sequences if f == "no table"]) == 2
    tables = {
        name.strip('"'): body
        for name, body in re.findall(r'^CREATE TABLE ("?\w+"?) \(\n(.*?)\n\);', SCHEMA, re.M | re.S)
    }
    for name, feeds in sequences:
        if feeds != "no table":
            table, column = feeds.split(".")
            assert re.search(rf"^    {column} ", tables[table], re.MULTILINE), name


def test_some_sequences_cannot_be_derived_from_table_and_key() -> None:
    odd = 0
    for name, feeds in re.findall(r"^CREATE SEQUENCE (\w+); -- (\w+\.\w+)$", SCHEMA, re.MULTILINE):
        table, column = feeds.split(".")
        odd += name != f"sq_{re.sub('^(tb|rl)_', '', table)}_{column}".replace("_", "")[2:]
    assert odd > 100


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda p: p.name)
def test_sql_files_have_a_header_and_plain_blocks(path: object) -> None:
    text = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert text.startswith("-- ")
    for block in _blocks(text):
        assert block.text
        if block.directive[:1] == ("fill",):
            assert block.text.startswith("SELECT "), block.directive


def test_shares_do_not_overlap_each_other() -> None:
    installations = world(scale=1.0, sources=3)
    taken: set[int] = set()
    for share in shares(installations):
        band = set(range(share.central_first, share.central_first + share.count))
        assert not taken & band
        taken |= band
    assert max(taken) <= installations[0].citizens


def test_overlap_grows_with_the_scale() -> None:
    small, large = overlap(world(1.0))[0], overlap(world(10.0))[0]
    assert set(small.citizens) == set(PERCENT)
    assert all(9 * small.citizens[k] <= 10 * large.citizens[k] for k in PERCENT)
    assert large.fichas[8] == 10 * small.fichas[8] == 2160
    assert all(n >= 1 for n in small.fichas.values())


@pytest.mark.parametrize(("scale", "sources"), [(0.1, 2), (200, 2), (1.0, 0), (1.0, MAX_SOURCES + 1)])
def test_worlds_beyond_the_synthetic_ranges_are_refused(scale: float, sources: int) -> None:
    with pytest.raises(ValueError, match=r"scale|sources"):
        world(scale, sources=sources)


def test_passwords_are_hashed_as_pec_does() -> None:
    first, *others = _passwords(Installation("central", 0, 1, 800))
    kind, rounds, length, salt, digest = first.split(":")
    assert (kind, rounds, length, len(b64decode(salt))) == ("sha256", "64000", "32", 24)
    assert b64decode(digest) == hashlib.pbkdf2_hmac("sha256", b"senha-sintetica", b64decode(salt), 64_000, 32)
    assert first not in others
