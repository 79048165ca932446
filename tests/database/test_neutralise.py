"""A copy is made neutral and put back exactly, whatever its tables hold and whenever somebody is killed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from merge import profile
from merge.errors import BlockedError
from merge.profile import Neutralise
from sandbox.pec import neutralise as neutral
from sandbox.pec.neutralise import Found
from sandbox.pec.undo_list import UndoList
from tests.fix_sample import OWNER, Base, declared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server import Server

LINK = "https://central.sandbox.invalid"
RULES = profile.load("pec").neutralise
TABLES = (
    "tb_ativacao_agendamento_online", "tb_cfg_certificado", "tb_config_sistema", "tb_envio_rnds", "tb_integracao_horus",
    "tb_nodo", "tb_servidor_smtp",
)  # fmt: skip
HISTORY = ("ta_cfg_certificado", "ta_config_sistema", "ta_nodo", "ta_servidor_smtp")


@pytest.fixture(scope="module")
def base(server: Server) -> Iterator[Base]:
    """The tables that the rules are about, empty, owned by a role that is not superuser, with their triggers."""
    base = Base(server, "test_neutralise")
    server.create_database(base.database, OWNER)
    with base.connect() as conn:
        conn.execute(declared(*TABLES).encode())
    yield base
    server.drop_database(base.database)


@pytest.fixture
def undo_list(tmp_path: Path) -> UndoList:
    """A list that is not there yet."""
    return UndoList(tmp_path / "undo")


def _contents(base: Base, tables: tuple[str, ...] = (*TABLES, *HISTORY)) -> dict[str, list[str]]:
    """Every row of the tables as COPY gives it, in order."""
    contents = {}
    with base.connect() as conn:
        conn.execute("SET extra_float_digits = 3")
        for table in tables:
            with conn.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as copy:
                contents[table] = sorted(b"".join(bytes(block) for block in copy).decode().splitlines())
    return contents


def _fill(base: Base, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    with base.admin() as conn, conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        for table in (*TABLES, *HISTORY):
            conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(table)))
        for table, values in rows.items():
            for row in values:
                marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
                conn.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), marks), row)


SOME: dict[str, list[tuple[Any, ...]]] = {
    "tb_config_sistema": [
        ("TREINAMENTO", "d", 1, "0", None, None),
        ("LINKINSTALACAO", "d", 1, "https://producao.exemplo.invalid", None, None),
        ("CADSUSHABILITADO", "d", 1, None, 1, None),
        ("HORUSHABILITADO", "d", 1, "true", None, None),
        ("CONEXAOINTERNET", "d", 1, "S", 1, b"\x00\xff\\"),
        ("NOMEINSTALACAO", "d", 1, "INSTALAÇÃO", None, b"\x01"),
    ],
    "tb_nodo": [(1, "a.invalid", "A", 1, 1, None), (2, "b.invalid", "B", None, 1, None), (3, None, None, 0, 0, None)],
    "tb_cfg_certificado": [(1, "senha\t\\N\n'quoted'")],
    "tb_envio_rnds": [(n, "7" * 15, None, "X", f"u-{n}", 0, None) for n in range(50)],
    "tb_servidor_smtp": [(1, "h", "587", "u", "senha-secreta", None, 1, 1, None), (2, *[None] * 8)],
    "tb_ativacao_agendamento_online": [(1, None, "2025-01-01", 0), (2, None, "2025-02-01", 1)],
    "tb_integracao_horus": [(1, None, 1, None, None), (2, None, 0, None, None)],
}


# The sample


@pytest.mark.slow
def test_a_central_is_neutral_and_back(filled_central: Base, undo_list: UndoList) -> None:
    tables = (*TABLES, *HISTORY, "tb_cidadao", "tb_credencial_integracao", "tb_atend")
    before = _contents(filled_central, tables)
    open_before = neutral.verify(filled_central.connect, RULES, link=LINK)
    # Every rule has something to do in the sample, but for that of a table of older versions.
    assert {rule.rule for rule in open_before.open} == {rule.id for rule in RULES} - {"D-08-older"}
    with pytest.raises(BlockedError, match=r"."):
        open_before.demand()

    changes = neutral.neutralise(filled_central.connect, RULES, undo_list, link=LINK)
    found = {change.rule: change for change in changes}
    assert found["D-06"].rows == 3
    assert found["D-08-queue"].rows == len(before["tb_envio_rnds"]) > 100
    assert found["D-08-older"].found is Found.ABSENT
    state = neutral.verify(filled_central.connect, RULES, link=LINK)
    state.demand()
    assert [rule.rule for rule in state.absent] == ["D-08-older"]
    with filled_central.connect() as conn:
        config = conn.execute("SELECT co_config_sistema, ds_inteiro, ds_texto FROM tb_config_sistema").fetchall()
        values = {key: (number, value) for key, number, value in config}
        assert values["TREINAMENTO"] == (1, None)
        assert values["LINKINSTALACAO"] == (None, LINK)
        assert values["CADSUSHABILITADO"] == (0, None)
        assert values["HORUSHABILITADO"] == (None, "0")
        assert values["VIDEOCHAMADAHABILITADA"] == (None, "false")
        assert values["UUIDINSTALACAO"][1] in "".join(before["tb_config_sistema"])
        assert conn.execute("SELECT count(*) FROM tb_nodo WHERE st_ativo <> 0 OR st_conexao <> 0").fetchone() == (0,)
    after = _contents(filled_central, tables)
    assert after["tb_cfg_certificado"] == after["tb_envio_rnds"] == []
    assert {t for t in tables if after[t] != before[t]} == set(TABLES)  # and no history was written

    assert not neutral.is_undone(filled_central.connect, undo_list)
    assert neutral.undo(filled_central.connect, undo_list).conflicts == ()
    assert neutral.is_undone(filled_central.connect, undo_list)
    assert _contents(filled_central, tables) == before


# Any content

_TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=12)
_NULL = st.none()
_INT = st.integers(-(2**31), 2**31 - 1)
_FLAG = _NULL | st.sampled_from([0, 1, 2])
_VALUE = _NULL | _TEXT | st.sampled_from(["0", "1", "true", "FALSE", "S", "n", "Não", "https://x.invalid", LINK])
_KEYS = st.sampled_from(
    ["CADSUSHABILITADO", "HORUSHABILITADO", "RNDSATIVA", "CONEXAOINTERNET", "EMAIL", "AGENDAONLINE", "LOGO", "x"]
)
_KEY = st.integers(0, 9)
_MOMENT = st.datetimes().map(str)


def _rows(*columns: st.SearchStrategy[Any], key: st.SearchStrategy[Any] = _KEY) -> Any:
    return st.lists(st.tuples(key, *columns), max_size=5, unique_by=lambda row: row[0])


_BASES = st.fixed_dictionaries(
    {
        "tb_config_sistema": st.tuples(
            _rows(_TEXT, _INT, _VALUE, _NULL | _INT, _NULL | st.binary(max_size=8), key=_KEYS),
            st.tuples(_VALUE, _NULL | _INT, _NULL | st.binary(max_size=8)),
            st.tuples(_VALUE, _NULL | _INT, _NULL | st.binary(max_size=8)),
        ).map(
            lambda t: [*t[0], ("TREINAMENTO", "d", 1, *t[1]), ("LINKINSTALACAO", "d", 1, *t[2])]
        ),
        "tb_nodo": _rows(_NULL | _TEXT, _NULL | _TEXT, _FLAG, _FLAG, _NULL | _MOMENT),
        "tb_servidor_smtp": _rows(*[_NULL | _TEXT.map(lambda t: t[:5])] * 5, _FLAG, _FLAG, _NULL | _MOMENT),
        "tb_cfg_certificado": _rows(_NULL | _TEXT),
        "tb_envio_rnds": _rows(*[_NULL | _TEXT] * 4, _FLAG, _NULL | _MOMENT),
        "tb_ativacao_agendamento_online": _rows(_NULL, _MOMENT, _INT),
        "tb_integracao_horus": _rows(_NULL | _MOMENT, _INT, _NULL | _TEXT, _NULL),
    }
)  # fmt: skip

_KILLS = st.sampled_from(["", "before", "prepared", "committed"])


class _Killed(Exception):
    """Stands for the end of the process."""


@contextlib.contextmanager
def _killed(base: Base, when: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At a stage the process ends: nothing of it happens any more, and its session is gone."""
    if not when:
        yield
        return

    def end(*_: object) -> None:
        raise _Killed

    if when == "before":
        name, wrapped = "prepare", end
    elif when == "committed":
        name, wrapped = "mark", end
    else:
        name = "prepare"
        prepare = UndoList.prepare

        def wrapped(self: UndoList, *args: Any) -> None:
            prepare(self, *args)
            with base.admin() as conn:  # the server's side of it, too
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            raise _Killed

    with monkeypatch.context() as patched:
        patched.setattr(UndoList, name, wrapped)
        with contextlib.suppress(_Killed, psycopg.OperationalError, BlockedError):
            yield


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_BASES, killed=_KILLS, again=st.booleans())
def test_anything_comes_back(
    base: Base,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rows: dict[str, list[tuple[Any, ...]]],
    killed: str,
    again: bool,
) -> None:
    undo_list = UndoList(tmp_path_factory.mktemp("undo"))
    _fill(base, rows)
    before = _contents(base)
    with _killed(base, killed, monkeypatch):
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    if killed in ("before", "prepared"):
        assert _contents(base) == before
    if again or not killed:
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
        assert neutral.verify(base.connect, RULES, link=LINK).open == ()
        assert all(batch.state in ("done", "void") for batch in undo_list.batches())
        neutralised = _contents(base)
        assert all(change.rows == 0 for change in neutral.neutralise(base.connect, RULES, undo_list, link=LINK))
        assert _contents(base) == neutralised
    undone = neutral.undo(base.connect, undo_list)
    assert undone.conflict_count == 0
    assert _contents(base) == before
    assert neutral.is_undone(base.connect, undo_list)
    assert neutral.undo(base.connect, undo_list).restored == 0


_SCRIPT = """
import os, signal, sys, psycopg
from pathlib import Path
from merge import profile
from sandbox.pec import neutralise, undo_list
from sandbox.pec.undo_values import Values

def killing(name, after):
    owner = Values if name == "write" else undo_list.UndoList
    real = getattr(owner, name)
    def wrapped(*args):
        if after:
            real(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, wrapped)

conninfo, folder, link, name, after, action = sys.argv[1:]
killing(name, after == "after")
connect = lambda: psycopg.connect(conninfo, autocommit=True)
undo = undo_list.UndoList(Path(folder))
if action == "undo":
    neutralise.undo(connect, undo)
else:
    neutralise.neutralise(connect, profile.load("pec").neutralise, undo, link=link)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(
    ("stage", "action"),
    [
        (("write", "after"), "neutralise"),
        (("prepare", "before"), "neutralise"),
        (("prepare", "after"), "neutralise"),
        (("mark", "before"), "neutralise"),
        (("mark", "after"), "neutralise"),
        (("mark", "before"), "undo"),
    ],
)
def test_killed_process(base: Base, undo_list: UndoList, stage: tuple[str, str], action: str) -> None:
    _fill(base, SOME)
    before = _contents(base)
    if action == "undo":
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    conninfo = base.server.conninfo(base.database, OWNER)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, conninfo, str(undo_list.folder), LINK, *stage, action], check=False, timeout=60
    )
    assert done.returncode == -9
    if action == "neutralise":
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
        assert neutral.verify(base.connect, RULES, link=LINK).open == ()
        states = [batch.state for batch in undo_list.batches()]
        assert states == (["void", "done"] if stage == ("prepare", "after") else ["done"])
        kept = {entry.file for batch in undo_list.batches()[-1:] for entry in batch.entries}
        assert {path.name for path in undo_list.folder.iterdir()} == kept | {"undo.jsonl"}
    assert neutral.undo(base.connect, undo_list).conflict_count == 0
    assert _contents(base) == before
    assert neutral.is_undone(base.connect, undo_list)


# The list


def test_list_is_private_and_says_no_value(base: Base, undo_list: UndoList) -> None:
    _fill(base, SOME)
    changes = neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    lines = (undo_list.folder / "undo.jsonl").read_text()
    for secret in ("senha-secreta", "quoted", "producao", "777777"):
        assert secret not in lines
        assert secret not in repr(changes)
    for path in undo_list.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(undo_list.folder.stat().st_mode) == 0o700


def test_cut_off_line_and_left_files(base: Base, undo_list: UndoList) -> None:
    _fill(base, SOME)
    undo_list.folder.mkdir(mode=0o700)
    (undo_list.folder / "undo.jsonl").write_bytes(b'{"batch": 1, "state": "prep')
    (undo_list.folder / "1-0-tb_config_sistema.copy").write_bytes(b"x" * 5000)
    before = _contents(base)
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    assert neutral.undo(base.connect, undo_list).conflict_count == 0
    assert _contents(base) == before


def test_altered_list(base: Base, undo_list: UndoList) -> None:
    _fill(base, SOME)
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    after = _contents(base)
    path = next(undo_list.folder.glob("*tb_nodo.copy"))
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(BlockedError):
        neutral.undo(base.connect, undo_list)
    assert _contents(base) == after


# Later changes


def test_somebody_changed_something_since(base: Base, undo_list: UndoList) -> None:
    _fill(base, SOME)
    before = _contents(base)
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    with base.connect() as conn:
        conn.execute("ALTER TABLE tb_config_sistema DISABLE TRIGGER USER; ALTER TABLE tb_nodo DISABLE TRIGGER USER")
        conn.execute("UPDATE tb_config_sistema SET ds_texto = 'outro' WHERE co_config_sistema = 'LINKINSTALACAO'")
        conn.execute("UPDATE tb_nodo SET st_conexao = 7 WHERE co_nodo = 1")
        conn.execute("DELETE FROM tb_nodo WHERE co_nodo = 2")
        conn.execute("INSERT INTO tb_envio_rnds (co_seq_envio_rnds) VALUES (7)")
        conn.execute("ALTER TABLE tb_config_sistema ENABLE TRIGGER USER; ALTER TABLE tb_nodo ENABLE TRIGGER USER")
    undone = neutral.undo(base.connect, undo_list)
    said = {(c.table, c.key, c.column) for c in undone.conflicts}
    assert {
        ("tb_config_sistema", "LINKINSTALACAO", "ds_texto"),
        ("tb_nodo", "1", "st_conexao"),
        ("tb_nodo", "2", None),
        ("tb_envio_rnds", "7", "co_unico_registro"),
    } <= said
    assert undone.conflict_count == len(undone.conflicts) == len(said)
    with base.connect() as conn:
        node = conn.execute("SELECT st_ativo, st_conexao FROM tb_nodo WHERE co_nodo = 1").fetchone()
        assert node == (1, 7)  # what nobody touched is back, what somebody wrote stays
    found = {(c.table, c.key, c.column) for c in neutral.differences(base.connect, undo_list)}
    assert found == said
    assert not neutral.is_undone(base.connect, undo_list)

    told = neutral.undo(base.connect, undo_list, overwrite=True)
    assert [(c.table, c.key, c.column) for c in told.conflicts] == [("tb_nodo", "2", None)]
    with base.connect() as conn:
        conn.execute("ALTER TABLE tb_nodo DISABLE TRIGGER USER")
        conn.execute("INSERT INTO tb_nodo VALUES (2, 'b.invalid', 'B', NULL, 1, NULL)")
        conn.execute("ALTER TABLE tb_nodo ENABLE TRIGGER USER")
    assert neutral.undo(base.connect, undo_list).conflict_count == 0
    assert neutral.is_undone(base.connect, undo_list)
    assert _contents(base) == before


def test_is_undone_sees_every_value(base: Base, undo_list: UndoList) -> None:
    """One changed bit of any row that was taken out or changed is seen."""
    _fill(base, SOME)
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    neutral.undo(base.connect, undo_list)
    assert neutral.is_undone(base.connect, undo_list)
    for table, change in (
        ("tb_cfg_certificado", "ds_senha_certificado = ds_senha_certificado || ' '"),
        ("tb_envio_rnds", "st_envio = NULL"),
        ("tb_config_sistema", "ds_binario = '\\x00fe5c' WHERE co_config_sistema = 'CONEXAOINTERNET'"),
        ("tb_servidor_smtp", "ds_senha = upper(ds_senha)"),
    ):
        with base.admin() as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute(f"UPDATE {table} SET {change}".encode())
        assert not neutral.is_undone(base.connect, undo_list), table
        with base.admin() as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
            for row in SOME[table]:
                marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
                conn.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), marks), row)
        assert neutral.is_undone(base.connect, undo_list), table


def test_switched_on_again_and_another_link(base: Base, undo_list: UndoList) -> None:
    """What people switch on between two starts is switched off again, and the oldest values come back."""
    _fill(base, SOME)
    before = _contents(base)
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    with base.admin() as conn, conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute("UPDATE tb_nodo SET st_ativo = 1 WHERE co_nodo = 1")
        conn.execute("UPDATE tb_servidor_smtp SET ds_senha = 'nova' WHERE co_seq_servidor_smtp = 1")
    state = neutral.verify(base.connect, RULES, link="https://other.invalid")
    assert {rule.rule for rule in state.open} == {"D-06", "D-09-password", "D-10"}
    changes = neutral.neutralise(base.connect, RULES, undo_list, link="https://other.invalid")
    assert {change.rule for change in changes if change.rows} == {"D-06", "D-09-password", "D-10"}
    assert len(undo_list.current()) == 2
    neutral.undo(base.connect, undo_list)
    # 'nova' was written by a person: the second undo list entry puts it back, the first one finds neither value.
    assert [c.column for c in neutral.differences(base.connect, undo_list)] == ["ds_senha"]
    neutral.undo(base.connect, undo_list, overwrite=True)
    assert neutral.is_undone(base.connect, undo_list)
    assert _contents(base) == before
    assert neutral.neutralise(base.connect, RULES, undo_list, link=LINK)[0].rows == 1
    assert [batch.state for batch in undo_list.batches()] == ["undone", "undone", "done"]
    neutral.undo(base.connect, undo_list)
    assert _contents(base) == before


def test_interrupted_and_changed_since(base: Base, undo_list: UndoList, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(base, SOME)
    with _killed(base, "committed", monkeypatch):
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    with base.admin() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("UPDATE tb_nodo SET st_ativo = 1 WHERE co_nodo = 1")
    with pytest.raises(BlockedError):
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)


# Other databases than expected


def _rule(table: str, **more: Any) -> Neutralise:
    declared = {"id": "X", "title": {"pt": "x", "en": "x"}, "table": table, "evidence": "seen", **more}
    return Neutralise.model_validate(declared)


def test_absent_and_missing(base: Base, undo_list: UndoList) -> None:
    _fill(base, {**SOME, "tb_config_sistema": SOME["tb_config_sistema"][2:]})
    rules = (
        *RULES,
        _rule("tb_nowhere", delete=True),
        _rule("tb_nodo", set={"st_other": "0"}),
        _rule("tb_nodo", set={"st_ativo": "0"}, where="st_nowhere = 1"),
    )
    changes = neutral.neutralise(base.connect, rules, undo_list, link=LINK)
    assert [change.found for change in changes[-3:]] == [Found.ABSENT] * 3
    state = neutral.verify(base.connect, rules, link=LINK)
    assert {(rule.rule, rule.found) for rule in state.open} == {("D-05", Found.MISSING), ("D-10", Found.MISSING)}
    with pytest.raises(BlockedError) as caught:
        state.demand()
    assert len(caught.value.details) == 2


@pytest.mark.parametrize(
    ("statement", "rules"),
    [
        ("", [_rule("tb_nodo", set={"st_ativo": "0"}), _rule("tb_nodo", set={"st_ativo": "1"})]),
        ("", [_rule("tb_nodo", set={"st_ativo": "st_ativo + 1"}, where="st_ativo IS NOT NULL")]),
        ("", [_rule("tb_nodo", set={"co_nodo": "9"}, where="co_nodo = 1")]),
        ("", [_rule("tb_nodo", set={"st_ativo": "1 / 0"})]),
        ("ALTER TABLE tb_nodo DROP CONSTRAINT pk_nodo", [_rule("tb_nodo", set={"st_ativo": "0"})]),
        (
            "CREATE TABLE child (id integer, nodo bigint REFERENCES tb_nodo); INSERT INTO child VALUES (1, 1)",
            [_rule("tb_nodo", delete=True)],
        ),
        (
            "CREATE TABLE child (nodo bigint REFERENCES tb_nodo ON DELETE CASCADE); INSERT INTO child VALUES (1)",
            [_rule("tb_nodo", delete=True)],
        ),
        (
            "CREATE RULE stays AS ON UPDATE TO tb_nodo DO INSTEAD NOTHING",
            [_rule("tb_nodo", set={"st_ativo": "0"})],
        ),
    ],
)  # fmt: skip
def test_refused_and_nothing_changed(base: Base, undo_list: UndoList, statement: str, rules: list[Neutralise]) -> None:
    _fill(base, SOME)
    with base.connect() as conn:
        conn.execute("DROP TABLE IF EXISTS child; DROP RULE IF EXISTS stays ON tb_nodo")
        conn.execute(statement.encode() or b"SELECT 1")
    before = _contents(base)
    try:
        with pytest.raises(BlockedError) as caught:
            neutral.neutralise(base.connect, (*RULES, *rules), undo_list, link=LINK)
        assert "invalid" not in str(caught.value.details)
        assert _contents(base) == before
        assert undo_list.batches() == ()
    finally:
        with base.connect() as conn:
            conn.execute("DROP TABLE IF EXISTS child; DROP RULE IF EXISTS stays ON tb_nodo")
            conn.execute("ALTER TABLE tb_nodo DROP CONSTRAINT IF EXISTS pk_nodo")
            conn.execute("ALTER TABLE tb_nodo ADD CONSTRAINT pk_nodo PRIMARY KEY (co_nodo)")


def test_triggers_are_as_they_were(base: Base, undo_list: UndoList) -> None:
    _fill(base, SOME)
    states = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'extra%' ORDER BY 1"
    with base.connect() as conn:
        conn.execute("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE division_by_zero; END'")
        for state in ("DISABLE", "ENABLE", "ENABLE REPLICA", "ENABLE ALWAYS"):
            name = f"extra_{state.replace(' ', '_').lower()}"
            conn.execute(
                f"CREATE TRIGGER {name} BEFORE UPDATE ON tb_nodo FOR EACH ROW EXECUTE PROCEDURE fail();"
                f" ALTER TABLE tb_nodo {state} TRIGGER {name}".encode()
            )
        before = conn.execute(states).fetchall()
    try:
        assert {enabled for _, enabled in before} == {"D", "O", "R", "A"}
        neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
        neutral.undo(base.connect, undo_list)
        with base.connect() as conn:
            assert conn.execute(states).fetchall() == before
    finally:
        with base.connect() as conn:
            conn.execute("DROP FUNCTION fail() CASCADE")


def test_checks_that_wait_for_the_commit(base: Base, undo_list: UndoList) -> None:
    """A table with deferred foreign keys cannot be altered while they are still to be checked."""
    _fill(base, SOME)
    before = _contents(base)
    with base.connect() as conn:
        conn.execute("CREATE TABLE child (nodo bigint REFERENCES tb_nodo DEFERRABLE INITIALLY DEFERRED)")
    try:
        neutral.neutralise(base.connect, (*RULES[:1], _rule("tb_nodo", delete=True)), undo_list, link=LINK)
        assert _contents(base)["tb_nodo"] == []
        assert neutral.undo(base.connect, undo_list).restored == 4
        assert _contents(base) == before
    finally:
        with base.connect() as conn:
            conn.execute("DROP TABLE child")


def test_busy_database(base: Base, undo_list: UndoList, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(base, SOME)
    monkeypatch.setattr("sandbox.pec.undo_values._LOCK_SECONDS", 1)
    with base.connect() as conn, conn.transaction():
        conn.execute("LOCK TABLE tb_nodo IN ROW EXCLUSIVE MODE")
        with pytest.raises(BlockedError):
            neutral.neutralise(base.connect, RULES, undo_list, link=LINK)


@pytest.mark.slow
def test_big_queue_goes_by_copy(base: Base, undo_list: UndoList) -> None:
    """The queue of a municipality: no row of it is a Python object."""
    _fill(base, SOME)
    with base.connect() as conn:
        conn.execute(
            "INSERT INTO tb_envio_rnds SELECT g, '7', repeat('e', 60), 'X', 'u' || g, g % 2, now()"
            "  FROM generate_series(100, 150000) g"
        )
    before = _contents(base, ("tb_envio_rnds",))
    tracemalloc.start()
    neutral.neutralise(base.connect, RULES, undo_list, link=LINK)
    neutral.undo(base.connect, undo_list)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert _contents(base, ("tb_envio_rnds",)) == before
