"""PEC's log in every format, in pieces of any size: what matters is found, and no word of a message gets out."""

from __future__ import annotations

import re
import stat
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.pec import pec_log
from sandbox.pec.pec_log import Event, Follower, Tail

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = pec_log.load_known()
NAME = "MARIA DA SILVA SANTOS"

SPRING = """\
2024-06-18 21:33:00.123  INFO 1 --- [           main] b.g.s.e.EsusApplication            : Starting
2024-06-18 21:33:09.001  WARN 1 --- [           main] o.h.e.jdbc.spi.SqlExceptionHelper        : SQL Error: 0
2024-06-18 21:33:10.555 ERROR 1 --- [http-nio-8080] b.g.s.e.cidadao.CidadaoService : Falha com MARIA DA SILVA SANTOS

java.lang.IllegalStateException: cidadão MARIA DA SILVA SANTOS, CPF 123.456.789-09
\tat br.gov.saude.esusab.cidadao.CidadaoService.salvar(CidadaoService.java:77)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: org.postgresql.util.PSQLException: ERROR: duplicate key: (nu_cpf)=(12345678909)
\tat org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2725)
\t... 12 more
2024-06-18 21:33:20.000  INFO 1 --- [           main] b.g.s.e.EsusApplication : Started EsusApplication in 612.3 seconds
"""


def _read(text: str | bytes, size: int = 0) -> tuple[Follower, list[Event]]:
    data = text.encode() if isinstance(text, str) else text
    follower = Follower(KNOWN)
    events: list[Event] = []
    for start in range(0, len(data), size or len(data) or 1):
        events += follower.feed(data[start : start + (size or len(data))])
    return follower, [*events, *follower.flush(final=True)]


def test_spring_boot() -> None:
    follower, events = _read(SPRING)
    assert [event.kind for event in events] == ["error", "ready"]
    error = events[0]
    assert error == follower.first_error
    assert (error.line, error.at, error.level) == (3, "2024-06-18 21:33:10.555", "ERROR")
    assert error.logger == "b.g.s.e.cidadao.CidadaoService"
    assert error.exceptions == ("java.lang.IllegalStateException", "org.postgresql.util.PSQLException")
    assert error.frames == (
        "br.gov.saude.esusab.cidadao.CidadaoService", "java.lang.Thread", "org.postgresql.core.v3.QueryExecutorImpl",
    )  # fmt: skip
    assert follower.is_ready
    assert follower.lines == len(SPRING.splitlines())
    assert follower.levels == {"INFO": 2, "WARN": 1, "ERROR": 1}


LOGGER = "br.gov.saude.esusab.Servico"
STARTS = {
    "spring 2": f"2024-06-18 21:33:00.123 ERROR 1 --- [main] {LOGGER} : {NAME}",
    "spring 3": f"2024-06-18T21:33:00.123-03:00 ERROR 12345 --- [pec] [main] {LOGGER} : {NAME}",
    "spring, cut name": f"2024-06-18 21:33:00.123 ERROR 1 --- [main] .{LOGGER} : {NAME}",
    "log4j": f"2024-06-18 21:33:00,123 ERROR [main] ({LOGGER}) {NAME}",
    "log4j 2": f"2024-06-18 21:33:00,123 [http-1] ERROR {LOGGER} - {NAME}",
    "jboss": f"21:33:00,123 ERROR [{LOGGER}] (MSC service thread 1-2) {NAME}",
    "brazilian": f"18/06/2024 21:33:00 ERROR {LOGGER} - {NAME}",
    "level first": f"ERROR 2024-06-18 21:33:00 [main] {LOGGER} - {NAME}",
    "level alone": f"ERROR [main] {LOGGER} - {NAME}",
    "coloured": f"\x1b[2m2024-06-18 21:33:00.123\x1b[0;39m \x1b[31mERROR\x1b[0;39m 1 --- [main] {LOGGER} : {NAME}",
    "portuguese": f"[2024-06-18 21:33:00] GRAVE: {LOGGER} - {NAME}",
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_formats(name: str) -> None:
    before = "2024-06-18 21:32:00.000  INFO 1 --- [main] a.b.C : before\n"
    follower, events = _read(f"{before}{STARTS[name]}\r\njava.lang.NullPointerException\r\n\tat a.b.Dd.e(Dd.java)\r\n")
    assert [(e.kind, e.level, e.logger, e.line) for e in events] == [("error", events[0].level, LOGGER, 2)]
    assert events[0].level == "ERROR"
    assert events[0].exceptions == ("java.lang.NullPointerException",)
    assert events[0].frames == ("a.b.Dd",)
    assert name == "level alone" or "21:33:00" in events[0].at
    assert follower.levels == {"INFO": 1, "ERROR": 1}


def test_plain_text() -> None:
    """What the JVM or a shell writes has neither time nor level."""
    _, events = _read('Exception in thread "MARIA" java.lang.RuntimeException: x\n\tat a.b.Cc.d(Cc.java:1)\n')
    assert [(e.kind, e.level, e.exceptions) for e in events] == [("error", "-", ("java.lang.RuntimeException",))]
    assert _read("nothing of note\n\n\n")[1] == []
    assert _read("")[1] == []


SAYS = {
    "version_mismatch": [
        "O PEC e o seu banco de dados não estão na mesma versão.",
        "Versao do PEC esperada no banco de dados: 5.4.37 Versao encontrada: 5.4.36",
    ],
    "migration_lock": [
        "liquibase.exception.LockException: Could not acquire change log lock.  Currently locked by host",
        'org.postgresql.util.PSQLException: lock on "tb_migracao_trava"',
    ],
    "out_of_memory": ["java.lang.OutOfMemoryError: Java heap", "There is insufficient memory for the Java Runtime"],
    "authentication_type_10": ["org.postgresql.util.PSQLException: The authentication type 10 is not supported."],
    "wrong_password": ['FATAL: password authentication failed for user "pec"'],
    "not_allowed": [
        "ERROR: must be owner of table tb_cidadao",
        "ERROR: permission denied for schema public",
        "ERRO: permissão negada para tabela tb_cidadao",
    ],
    "no_space": ["java.io.IOException: No space left on device", "could not extend file base/1/2: no space"],
    "port_in_use": ["java.net.BindException: Address already in use", "Web server: Port 8080 was already in use."],
    "certificate_not_trusted": ["sun.security.validator.ValidatorException: PKIX path building failed"],
    "certificate_name": ["No subject alternative DNS name matching central found."],
    "migration_failed": ["Falha ao migrar o Banco de Dados", "liquibase.exception.MigrationFailedException: x"],
    "did_not_start": ["APPLICATION FAILED TO START"],
}  # fmt: skip


@pytest.mark.parametrize("known", SAYS)
def test_known_failures(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in SAYS[known]:
        for encoding in ("utf-8", "latin-1"):
            line = f"2024-06-18 21:33:00.123 ERROR 1 --- [main] o.s.boot.SpringApplication : {said}\n"
            follower, events = _read(line.encode(encoding))
            assert [(event.kind, event.known) for event in events] == [("failure", known)], said
            assert follower.first_error == events[0]
    for language in ("pt", "en"):
        monkeypatch.setenv("HOMOLOG_LANG", language)
        assert all(len(words) > 10 for words in pec_log.explain(known, KNOWN))


def test_version_mismatch_comes_in_two_parts() -> None:
    start = "2024-06-18 21:33:00.123  INFO 1 --- [main] a.b.Cc : "
    _, events = _read("".join(start + said + "\n" for said in SAYS["version_mismatch"]))
    assert [event.known for event in events] == ["version_mismatch"] * 2
    assert events[1].details == {"database": "5.4.37", "program": "5.4.36"}
    # What is no version is not shown.
    _, events = _read(start + "Versao do PEC esperada no banco de dados: 123.456.789-09 Versao encontrada: MARIA\n")
    assert events == []


def test_killed() -> None:
    follower, events = _read("/opt/standalone.sh: line 7\nKilled\n")
    assert [event.known for event in events] == ["out_of_memory"]
    assert follower.first_error is not None
    assert _read("standalone.sh: line 7: 123 Killed   java -jar pec.jar\n")[1][0].known == "out_of_memory"
    # What a person is refused inside of PEC is no failure.
    assert _read("2024-06-18 21:33:00.123  WARN 1 --- [x] a.b.c.Dd : Permissão negada para o perfil\n")[1] == []
    found = pec_log.explain_exit(137, KNOWN)
    assert found is not None
    assert found.id == "out_of_memory"
    assert pec_log.explain_exit(0, KNOWN) is None


def test_what_is_as_it_should_be_is_no_error() -> None:
    line = "2024-06-18 21:33:00.123 ERROR 1 --- [task-1] a.b.Cadsus : x\njava.net.UnknownHostException: x.gov.br\n"
    follower, events = _read(line * 3)
    assert [(event.kind, event.known) for event in events] == [("expected", "cut_off")]
    assert follower.known["cut_off"] == 3
    assert follower.first_error is None
    # Words of a failure in a record that says that all is well.
    start = "2024-06-18 21:33:00.123  INFO 1 --- [main] liquibase.lockservice.Standard : "
    follower, events = _read(start + "SELECT COUNT(*) FROM tb_migracao_trava\n" + start + "permission denied for x\n")
    assert events == []
    follower, events = _read(start + "Waiting for changelog lock....\n")
    assert [event.kind for event in events] == ["warning"]


def test_errors_are_not_explained_away() -> None:
    start = "2024-06-18 21:33:00.123 ERROR 1 --- [main] a.b.Unificacao : "
    says = {"erro na unificação": "unification", "Unauthorized": "unauthorized", "Started X in 3": "started"}
    for said, known in says.items():
        follower, events = _read(f"{start}{said}\n")
        assert [(event.kind, event.known) for event in events] == [("error", known)]
        assert follower.first_error is not None
        assert not follower.is_ready


def test_unification_is_counted() -> None:
    line = "2024-06-18 21:33:00.123  INFO 1 --- [task] b.g.s.UnificacaoBase : cidadão 7 de 900\n"
    follower, events = _read(line * 50)
    assert events == []
    assert follower.unification_lines == 50


def test_unknown_warnings_need_an_exception() -> None:
    warn = "2024-06-18 21:33:00.123  WARN 1 --- [task] a.b.Cc : x\n"
    assert _read(warn)[1] == []
    _, events = _read(warn + "java.lang.IllegalArgumentException: y\n")
    assert [event.kind for event in events] == ["warning"]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 4096])
def test_pieces_of_any_size(size: int) -> None:
    text = SPRING + "".join(f"{line}\n" for line in STARTS.values()) + "Killed\n"
    whole, expected = _read(text)
    pieces, events = _read(text, size)
    assert events == expected
    assert (pieces.lines, pieces.levels, pieces.known) == (whole.lines, whole.levels, whole.known)


def test_a_record_is_told_when_nothing_follows() -> None:
    follower = Follower(KNOWN)
    assert follower.feed(STARTS["spring 2"].encode() + b"\n") == ()
    assert [event.kind for event in follower.flush()] == ["error"]
    assert follower.flush() == ()


_WORD = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=60)
_SECRET = st.sampled_from(
    [NAME, "123.456.789-09", "12345678909", "maria.silva", "maria.Silva", "Maria.Silva: x", "700 0000 0000 0005"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(STARTS)), _WORD, _SECRET, _WORD), max_size=5), st.binary(max_size=99))
def test_no_word_of_a_message_gets_out(rows: list[tuple[str, str, str, str]], garbage: bytes) -> None:
    lines = []
    for name, one, secret, other in rows:
        lines += [
            STARTS[name].removesuffix(NAME) + f"{one} {secret} {other}",
            f"java.lang.RuntimeException: {one} {secret}",
            f"\tat a.b.Cc.d({secret})",
            f"{secret}",
        ]
    follower, events = _read("\n".join(lines).encode() + b"\n" + garbage)
    said = str([asdict(event) for event in events]) + str(follower.first_error) + str(follower.levels)
    for _, _, secret, _ in rows:
        assert secret not in said
    for event in events:
        for name in (event.logger, *event.exceptions, *event.frames):
            assert name == "" or re.fullmatch(r"[\w.$]+", name)


def test_huge_lines_and_records_stay_small() -> None:
    follower = Follower(KNOWN)
    data = b"x" * 5_000_000 + b"\n" + b"\tat a.b.Cc.d(C.java)\n" * 20_000
    events = [event for start in range(0, len(data), 65_536) for event in follower.feed(data[start : start + 65_536])]
    assert sum(map(len, follower._record)) < 300_000
    assert events == []
    assert follower.lines > 20_000


def test_every_pattern_is_known_by_something() -> None:
    ids = [entry.id for entry in KNOWN]
    assert len(set(ids)) == len(ids)
    failures = {entry.id for entry in KNOWN if entry.kind == "failure"}
    assert failures == set(SAYS)


def test_tail(tmp_path: Path) -> None:
    path, copy = tmp_path / "pec.log", tmp_path / "evidence.log"
    tail = Tail(path, copy)
    assert b"".join(tail.read()) == b""
    path.write_bytes(b"one\n")
    assert b"".join(tail.read()) == b"one\n"
    with path.open("ab") as file:
        file.write(b"two\n")
    assert b"".join(tail.read()) == b"two\n"
    assert b"".join(tail.read()) == b""
    path.rename(tmp_path / "pec.log.1")
    path.write_bytes(b"three, longer than before\n")
    assert b"".join(tail.read()) == b"three, longer than before\n"
    path.write_bytes(b"4\n")  # shortened in place
    assert b"".join(tail.read()) == b"4\n"
    assert copy.read_bytes() == b"one\ntwo\nthree, longer than before\n4\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
