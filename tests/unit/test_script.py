"""The scanner of plain scripts: nothing ends early, nothing is split, no command of psql passes."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge.errors import BackupError
from sandbox.script import CopyBlock, Statement, parse_copy, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

Part = bytes | tuple[str | None, str, tuple[str, ...] | None, bytes]


def parts(script: bytes, cuts: list[int] | int = 1 << 20) -> list[Part]:
    """Scan a script that comes in chunks of one length, or cut at the given places."""
    if isinstance(cuts, int):
        places = list(range(0, max(len(script), 1), cuts))
    else:
        places = sorted({0, *(cut % (len(script) + 1) for cut in cuts)})
    chunks = [script[a:b] for a, b in zip(places, [*places[1:], len(script)], strict=True)]
    found: list[Part] = []
    for part in scan(chunks):
        if isinstance(part, Statement):
            found.append(part.sql)
        else:
            found.append((part.schema, part.table, part.columns, b"".join(part.data)))
    return found


STATEMENTS = [
    b"SELECT 'a;''b', ';';",
    b"SELECT E'it\\'s; \\\\', e'\\\\';",
    b'ALTER TABLE "a;""b" ADD c int;',
    b"SELECT $$ ; ' \" $ $$ || $a$ ; $$ ; $b$ $a$;",
    b"SELECT $1, a$b$c, 1 $x$;$x$;",
    b"SELECT 1 -- no end; '\n + 2;",
    b"SELECT 1 /* no; /* nested ' ; */ end; */ - 3 / 4;",
    b"CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT ');');",
    b"CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 1 END; SELECT 2; END;",
    b"create or replace procedure p() language sql begin atomic insert into begin_end values ('end;'); end;",
    b"INSERT INTO t VALUES ('\\', 1, E'\\';');",
    b"INSERT INTO t VALUES (-1, '--', 'x''y');",
    b"BEGIN;",
    "SELECT 'çã😀;', naïve$x$;".encode(),
    b"SELECT U&'\\0061;' ;",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_stays_whole(statement: bytes) -> None:
    script = b"-- a comment; '\n" + statement + b"\n/* and ; another */ " + statement + b" COMMIT;\n--end"
    for size in range(1, 20):
        assert parts(script, size) == [statement, statement, b"COMMIT;"]


LINES = st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"\\n").replace(b"\r", b"\\r")).filter(
    lambda line: not line.startswith(b"\\.")
)  # fmt: skip
NAMES = st.text(
    st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=8
)  # fmt: skip
ROWS = st.lists(
    LINES | st.sampled_from([b"\\.x", b"\\\\.", b"\\. ", b"", b"\\", b"COPY t FROM stdin;", b"--"]), max_size=8
)


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def scripts(draw: st.DrawFn) -> tuple[bytes, list[Part]]:
    script = b""
    expected: list[Part] = []
    for _ in range(draw(st.integers(0, 5))):
        script += draw(st.sampled_from([b"", b"\n\n", b"-- it's\n", b"/* ' */", b" \t"]))
        if draw(st.booleans()):
            statement = draw(st.sampled_from(STATEMENTS))
            script += statement + b"\n"
            expected.append(statement)
        else:
            table, columns = draw(NAMES), draw(st.lists(NAMES, min_size=1, max_size=3))
            data = b"".join(row + b"\n" for row in draw(ROWS))
            names = ", ".join(map(quote, columns))
            script += f"COPY public.{quote(table)} ({names}) FROM stdin;\n".encode() + data + b"\\.\n"
            expected.append(("public", table, tuple(columns), data))
    return script, expected


@settings(max_examples=300, deadline=None)
@given(scripts(), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_script_in_any_chunks(script: tuple[bytes, list[Part]], cuts: list[int]) -> None:
    assert parts(script[0], cuts) == script[1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_chunks_never_matter(script: bytes, cuts: list[int]) -> None:
    def outcome(where: list[int] | int) -> list[Part] | str:
        try:
            return parts(script, where)
        except BackupError as ex:
            return str(ex)

    assert outcome(cuts) == outcome(1 << 20)


def test_unqualified_names_follow_the_search_path() -> None:
    script = b'SET search_path = "My S", pg_catalog;\nCOPY Tb (A, "B") FROM stdin;\n\\.\n'
    assert parts(script)[1] == ("My S", "tb", ("a", "B"), b"")


def test_old_strings_with_backslashes() -> None:
    script = b"SET standard_conforming_strings = off;\nSELECT 'it\\'s;';\nSELECT 2;"
    assert parts(script)[1:] == [b"SELECT 'it\\'s;';", b"SELECT 2;"]


def test_windows_line_ends() -> None:
    script = b"COPY t (a) FROM stdin;\r\n1\r\n\\.\r\nSELECT 1;\r\n"
    for size in range(1, 10):
        assert parts(script, size) == [(None, "t", ("a",), b"1\r\n"), b"SELECT 1;"]


def test_an_unread_block_is_passed_over() -> None:
    script = b"COPY t (a) FROM stdin;\n" + b"1\n" * 1000 + b"\\.\nSELECT 1;"
    found = list(scan([script[:500], script[500:]]))
    assert isinstance(found[0], CopyBlock)
    assert found[1:] == [Statement(b"SELECT 1;")]


@pytest.mark.parametrize(
    "command", ["\\! touch x", "\\copy t to 'x'", "\\i x", "\\o | sh", "\\gexec", "\\set a b", "\\."]
)
def test_commands_of_psql_are_refused(command: str) -> None:
    with pytest.raises(BackupError) as caught:
        parts(f"SELECT 1;\n{command}\n".encode())
    assert command.split()[0] in caught.value.what


@pytest.mark.parametrize("script", [b"SELECT 1 \\gexec\n;", b"SELECT 1 \\; SELECT 2;", b"SELECT 'a' \\! x\n;"])
def test_commands_within_a_statement_are_refused(script: bytes) -> None:
    with pytest.raises(BackupError):
        parts(script)


def test_pairs_that_pg_dump_writes() -> None:
    script = (
        b"\\restrict abc\nSELECT 1;\n\\unrestrict abc\n\\connect a\n\\restrict abc\n\\unrestrict abc\n\\connect a\n"
    )
    assert parts(script) == [b"SELECT 1;"]
    for broken in (
        b"\\restrict abc\n\\unrestrict x\n",
        b"\\connect a\n\\connect b\n",
        b"\\restrict abc\n",
        b"\\unrestrict a\n",
    ):
        with pytest.raises(BackupError):
            parts(broken)


@pytest.mark.parametrize(
    "script",
    [b"SELECT 1", b"SELECT 'a;", b"SELECT $a$ ;", b"/* ", b"SELECT /* ;", b"COPY t (a) FROM stdin;\n1\n", b'SELECT ";',
     b"COPY t (a) FROM stdin;\n1\n\\", b"SELECT E'\\';", b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;"],
)  # fmt: skip
def test_scripts_that_end_too_early(script: bytes) -> None:
    for size in (1, 3, 1000):
        with pytest.raises(BackupError):
            parts(script, size)


@pytest.mark.parametrize(
    "statement",
    [
        b"COPY t TO stdout;",
        b"COPY t FROM '/etc/passwd';",
        b"COPY t FROM PROGRAM 'sh';",
        b"COPY (SELECT 1) TO PROGRAM 'sh';",
        b"COPY t (a) FROM stdin WITH (FORMAT csv);",
        b"COPY t (a) WITH OIDS FROM stdin;",
        b"COPY a.b.c (a) FROM stdin;",
        b"COPY t (a, 1) FROM stdin;",
        b"COPY t (a); DROP TABLE x; --) FROM stdin;",
        b"COPY t (a) FROM stdin; SELECT 1;",
    ],
)
def test_other_kinds_of_copy_are_refused(statement: bytes) -> None:
    with pytest.raises(BackupError):
        parse_copy(statement)
    with pytest.raises(BackupError):
        parts(statement + b"\n1\n\\.\n")


def test_memory_is_flat() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"COPY t (a) FROM stdin;\n"
        for _ in range(200):
            yield b"some value\tanother\n" * 15_000
        yield b"\\.\n"

    tracemalloc.start()
    try:
        read = sum(len(chunk) for part in scan(chunks()) if isinstance(part, CopyBlock) for chunk in part.data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == 200 * 15_000 * 19
    assert peak < 4 << 20
