"""Attachments of a real merge: carried under the merged keys, proved, and every corruption found."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from merge import attachments as deciding
from merge import catalog, engine, planner
from merge import profile as profiles
from merge.errors import CollisionError, ConfigError
from merge.profile import Profile
from sandbox import attachments_proof
from sandbox.attachments import CENTRAL, Attachments
from sandbox.sample import attachments_of, make_samples
from sandbox.sample.attachments import MISSING, UNCLAIMED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from merge.catalog import Catalog
    from merge.plan import Plan
    from merge.proof import Proof
    from sandbox.attachments import Ledger
    from sandbox.server import Server
    from tests.fix_merge import Bench

SCHEMA = """
    CREATE TABLE doc (id bigint PRIMARY KEY, name text);
    CREATE TABLE person (id bigint PRIMARY KEY, card text UNIQUE, photo text);
    CREATE TABLE scan (code text PRIMARY KEY, path text);
    CREATE TABLE draft (id bigint PRIMARY KEY);
    CREATE TABLE badge (id bigint PRIMARY KEY, person_id bigint REFERENCES person);
"""

PROFILE = Profile.model_validate(
    {
        "application": {"name": "test", "title": "test", "reference_names": ["id"]},
        "rule": [
            {"tables": ["doc"], "role": "event", "reason": "test", "evidence": "seen"},
            {"tables": ["person"], "role": "entity", "match": [["card"]], "reason": "test", "evidence": "seen"},
            {"tables": ["scan"], "role": "catalog", "reason": "test", "evidence": "seen"},
            {"tables": ["badge"], "role": "link", "central_owns": "person_id", "reason": "test", "evidence": "seen"},
            {"tables": ["draft"], "role": "queue", "come": False, "reason": "test", "evidence": "seen"},
        ],
        "attachment": [
            {"table": "doc", "files": ["doc/{id}/{name}", "doc/{id}.pdf"], "reason": "test", "evidence": "seen"},
            {"table": "person", "files": ["photo/{id}-{photo}"], "reason": "test", "evidence": "seen"},
            {"table": "scan", "files": ["{path}"], "reason": "test", "evidence": "seen"},
            {"table": "badge", "files": ["badge-{id}"], "reason": "test", "evidence": "seen"},
            {"table": "draft", "files": ["draft/{id}"], "reason": "test", "evidence": "seen"},
            {"table": "not_in_this_version", "files": ["{id}"], "reason": "test", "evidence": "seen"},
        ],
    }
)

CENTRAL_ROWS = """
    INSERT INTO doc VALUES (1, 'a.pdf'), (2, NULL), (3, '../../etc/passwd');
    INSERT INTO person VALUES (1, 'A', 'x.jpg'), (2, 'B', 'x.jpg'), (3, 'C', 'x.jpg'), (4, 'D', 'x.jpg');
    INSERT INTO scan VALUES ('s1', 'scan/one.png'), ('s2', 'scan/two.png');
"""
CENTRAL_FILES = {
    "doc/1/a.pdf": "central doc 1",
    "doc/2.pdf": "central doc 2",
    "photo/1-x.jpg": "photo of A",
    "photo/2-x.jpg": "photo of B",
    "scan/one.png": "scan one",
    "scan/two.png": "scan two of the central",
    "doc/77/nobody": "nobody's",
}
SOURCE_ROWS = """
    INSERT INTO doc VALUES (1, 'a.pdf'), (2, NULL), (3, 'gone.pdf');
    INSERT INTO person VALUES
        (1, 'B', 'x.jpg'), (2, 'A', 'y.jpg'), (3, 'E', 'x.jpg'), (4, 'C', 'x.jpg'), (5, 'F', NULL);
    INSERT INTO scan VALUES ('s1', 'scan/one.png'), ('s2', 'scan/two.png'), ('s3', 'scan/three.png');
    INSERT INTO draft VALUES (1);
    INSERT INTO badge VALUES (1, 1), (2, 3);
"""
SOURCE_FILES = {
    "doc/1/a.pdf": "source doc 1",
    "doc/2.pdf": "source doc 2",
    "photo/1-x.jpg": "photo of B",
    "photo/2-y.jpg": "another photo of A",
    "photo/3-x.jpg": "photo of E",
    "photo/4-x.jpg": "photo of C",
    "scan/one.png": "scan one",
    "scan/two.png": "scan two of the source",
    "scan/three.png": "scan three",
    "draft/1": "a draft",
    "badge-1": "badge of B, who has none in the central",
    "badge-2": "badge of E",
    "doc/9/nobody": "nobody's in the source",
}
MERGED = {
    **{f"files/{path}": content for path, content in CENTRAL_FILES.items()},
    "files/doc/{doc+1}/a.pdf": "source doc 1",
    "files/doc/{doc+2}.pdf": "source doc 2",
    "files/photo/{person+3}-x.jpg": "photo of E",
    "files/photo/3-x.jpg": "photo of C",  # the central has the row, but had no file for it
    "files/scan/three.png": "scan three",
    "conflicts/src_1/photo/2-y.jpg": "another photo of A",
    "conflicts/src_1/scan/two.png": "scan two of the source",
    "excluded/src_1/draft/1": "a draft",
    "excluded/src_1/badge-1": "badge of B, who has none in the central",
    "files/badge-{badge+2}": "badge of E",
    "unclaimed/src_1/doc/9/nobody": "nobody's in the source",
}


def _write(folder: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def _fill(statements: str) -> Callable[[psycopg.Connection[tuple[Any, ...]], str], None]:
    def fill(conn: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        conn.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
        conn.execute(statements.encode())

    return fill


@dataclass
class Case:
    """A merge under way: its bench, plan, and folder of attachments."""

    bench: Bench
    folder: Path
    plan: Plan
    found: Catalog
    store: Attachments
    ledgers: dict[int, Ledger] = field(default_factory=dict)

    def load(self, number: int, rows: str, files: dict[str, str] | None) -> None:
        self.bench.load(number, self.found, _fill(rows))
        if files is not None:
            self.store.take(number, f"source {number}", _write(self.folder / f"source-{number}", files))

    def merge(self, number: int) -> None:
        def decide(conn: psycopg.Connection[tuple[Any, ...]], crosswalk: Any) -> None:
            rows = deciding.claims(conn, self.plan, PROFILE.attachment, crosswalk)
            self.store.decide(number, rows)

        with self.bench.merger() as conn:
            engine.merge_source(
                conn, self.plan, self.found, number, "source", self.bench.rows[number], before_load=decide
            )
        self.ledgers[number] = self.store.carry(number)

    def prove(self) -> Proof:
        ledgers = {number: ledger.files_by_fate for number, ledger in self.ledgers.items()}
        return attachments_proof.prove(self.bench.connect, self.plan, PROFILE.attachment, self.store.folder, ledgers)

    def offset(self, domain: str) -> int:
        with self.bench.connect() as conn:
            row = conn.execute("SELECT key_offset FROM homolog.key_domain WHERE domain = %s", [domain]).fetchone()
        assert row is not None
        return int(row[0])

    def expected(self) -> dict[str, str]:
        paths = {}
        for path, content in MERGED.items():
            for table in ("doc", "person", "badge"):
                start, plus, rest = path.partition(f"{{{table}+")
                if plus:
                    key, _, rest = rest.partition("}")
                    path = f"{start}{self.offset(f'{table}.id') + int(key)}{rest}"
            paths[path] = content
        return paths

    def merged(self) -> dict[str, str]:
        return {
            path.relative_to(self.store.folder).as_posix(): path.read_text()
            for path in self.store.folder.rglob("*")
            if path.is_file() and path.relative_to(self.store.folder).parts[0] != "state"
        }


@pytest.fixture
def case(bench: Bench, tmp_path: Path) -> Case:
    """A central with attachments, in which nothing was merged yet."""
    with bench.owner() as conn:
        conn.execute(SCHEMA.encode())
        conn.execute(CENTRAL_ROWS.encode())
    plan, found = bench.prepare(PROFILE)
    store = Attachments(tmp_path / "attachments")
    store.take(CENTRAL, "central", _write(tmp_path / "central", CENTRAL_FILES))
    store.carry(CENTRAL)
    return Case(bench, tmp_path, plan, found, store)


@pytest.fixture
def merged(case: Case) -> Case:
    """One source merged, with its attachments."""
    case.load(1, SOURCE_ROWS, SOURCE_FILES)
    case.merge(1)
    return case


def test_survey_before_the_merge(case: Case) -> None:
    case.load(1, SOURCE_ROWS, SOURCE_FILES)
    with case.bench.connect() as conn:
        central = case.store.survey(CENTRAL, deciding.pointers(conn, case.plan, PROFILE.attachment, "public"))
        source = case.store.survey(1, deciding.pointers(conn, case.plan, PROFILE.attachment, "src_1"))
        nothing = case.store.survey(2, deciding.pointers(conn, case.plan, PROFILE.attachment, "src_1"))
    assert (central.rows, central.files, central.unclaimed) == (9, 7, 1)
    assert central.missing_keys == ("doc [id=3]", "person [id=3]", "person [id=4]")
    assert (source.rows, source.files, source.unclaimed) == (13, 13, 1)
    assert source.missing_keys == ("doc [id=3]",)
    assert (nothing.rows, nothing.files, nothing.missing) == (13, None, 13)


def test_every_file_is_where_the_merged_row_points(merged: Case) -> None:
    assert merged.merged() == merged.expected()
    ledger = merged.ledgers[1]
    assert dict(ledger.files_by_fate) == {
        "inserted": 6, "matched": 2, "reconciled": 2, "excluded": 2, "unclaimed": 1,
    }  # fmt: skip
    assert sum(ledger.files_by_fate.values()) == ledger.files == len(SOURCE_FILES)
    assert (ledger.rows, ledger.missing_keys) == (13, ("doc [id=3]",))
    assert ledger.conflicts == 2
    assert ledger.conflict_keys[0] == "person [id=2]"
    assert "s2" not in ledger.conflict_keys[1]  # a key of text may be anything
    assert {path.read_text() for path in (merged.folder / "source-1").rglob("*.*")} <= set(SOURCE_FILES.values())


def test_proof_of_a_clean_merge(merged: Case) -> None:
    proof = merged.prove()
    assert [str(d) for d in proof.examples] == []
    assert proof.holds
    assert proof.rows_compared == len(MERGED)
    assert proof.central_unchanged


def test_two_sources_and_one_without_files(merged: Case) -> None:
    merged.load(2, SOURCE_ROWS.replace("(5, 'F', NULL)", "(6, 'G', 'z.jpg')"), None)
    merged.merge(2)
    merged.load(3, "INSERT INTO doc VALUES (1, 'a.pdf'); INSERT INTO person VALUES (1, 'E', 'x.jpg');", {
        "doc/1/a.pdf": "of the third", "photo/1-x.jpg": "photo of E",
    })  # fmt: skip
    merged.merge(3)
    assert merged.ledgers[2].files == 0
    assert merged.ledgers[2].missing == 14
    assert merged.ledgers[3].files_by_fate["matched"] == 1  # the photo that the first source brought
    assert [str(d) for d in merged.prove().examples] == []


def test_a_path_without_a_key_that_clashes_blocks_before_anything_is_written(case: Case) -> None:
    rows = "INSERT INTO scan VALUES ('other', 'scan/one.png'), ('more', 'scan/one.png'), ('fine', 'scan/fine.png');"
    case.load(1, rows, {"scan/one.png": "of somebody else", "scan/fine.png": "x"})
    with pytest.raises(CollisionError) as caught:
        case.merge(1)
    assert len(caught.value.details) == 2
    assert "one.png" not in str(caught.value.details)
    with case.bench.connect() as conn:
        assert conn.execute("SELECT count(*) FROM scan").fetchone() == (2,)
        assert conn.execute("SELECT count(*) FROM homolog.source").fetchone() == (0,)
    assert not (case.store.folder / "state/decision-1.json").exists()


def test_a_row_without_its_file_never_gets_the_file_of_another(case: Case) -> None:
    case.load(1, "INSERT INTO scan VALUES ('other', 'scan/one.png');", None)
    with pytest.raises(CollisionError):
        case.merge(1)


def test_declarations_that_contradict_the_schema(bench: Bench) -> None:
    with bench.owner() as conn:
        conn.execute("CREATE TABLE doc (id bigint PRIMARY KEY); CREATE TABLE loose (id bigint)")
    with bench.connect() as conn:
        found = catalog.read(conn, "public")
    declared = [{"table": t, "files": ["{id}/{nome}"], "reason": "x", "evidence": "seen"} for t in ("doc", "loose")]
    content = {"application": {"name": "test", "title": "test"}, "rule": [], "attachment": declared}
    with pytest.raises(ConfigError) as caught:
        planner.make_plan(found, Profile.model_validate(content))
    assert caught.value.details == ("attachment: doc.nome", "attachment: loose.nome", "attachment: loose: ∄ key")


# Corruptions


def _swap(folder: Path, one: str, other: str) -> None:
    first, second = folder / one, folder / other
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def _link(folder: Path, path: str) -> None:
    target = folder / path
    moved = folder.parent / "moved"
    shutil.move(target, moved)
    target.symlink_to(moved)  # the same bytes


CORRUPTIONS: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "changed byte": (lambda f: (f / "files/doc/{doc+1}/a.pdf").write_text("source doc 2"), {"changed"}),
    "lost": (lambda f: (f / "files/doc/{doc+2}.pdf").unlink(), {"lost"}),
    "swapped": (partial(_swap, one="files/doc/{doc+1}/a.pdf", other="files/doc/{doc+2}.pdf"), {"changed"}),
    "swapped with the central's": (
        partial(_swap, one="files/doc/{doc+1}/a.pdf", other="files/doc/1/a.pdf"),
        {"changed"},
    ),
    "extra": (lambda f: (f / "files/doc/extra").write_text("x"), {"invented"}),
    "extra beside": (lambda f: (f / "unclaimed/extra").write_text("x"), {"invented"}),
    "extra link": (lambda f: (f / "files/extra").symlink_to("doc"), {"invented"}),
    "truncated": (lambda f: (f / "files/photo/{person+3}-x.jpg").write_text(""), {"changed"}),
    "link": (partial(_link, path="files/scan/three.png"), {"changed"}),
    "folder in its place": (
        lambda f: ((f / "files/doc/2.pdf").unlink(), (f / "files/doc/2.pdf").mkdir()),
        {"lost"},
    ),
    "folder is a link": (
        lambda f: (shutil.move(f / "files/scan", f.parent / "s"), (f / "files/scan").symlink_to(f.parent / "s")),
        {"lost", "invented"},
    ),
    "the central's changed": (lambda f: (f / "files/photo/1-x.jpg").write_text("another photo of A"), {"changed"}),
    "the central's lost": (lambda f: (f / "files/doc/77/nobody").unlink(), {"lost"}),
    "conflict lost": (lambda f: (f / "conflicts/src_1/photo/2-y.jpg").unlink(), {"lost"}),
    "unclaimed changed": (lambda f: (f / "unclaimed/src_1/doc/9/nobody").write_text("x"), {"changed"}),
    "excluded lost": (lambda f: (f / "excluded/src_1/draft/1").unlink(), {"lost"}),
    "in the wrong place": (
        lambda f: (f / "unclaimed/src_1/doc/9/nobody").rename(f / "conflicts/src_1/nobody"),
        {"lost", "invented"},
    ),
    "under the old key": (lambda f: shutil.copy(f / "files/doc/{doc+1}/a.pdf", f / "files/doc/1/b.pdf"), {"invented"}),
    "for a row that had none": (
        lambda f: ((f / "files/doc/{doc+3}").mkdir(), (f / "files/doc/{doc+3}/gone.pdf").write_text("x")),
        {"invented"},
    ),
}


class _Resolved:
    """The folder of attachments, where ``{doc+1}`` in a path is the merged key."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __truediv__(self, path: str) -> Path:
        for table in ("doc", "person", "badge"):
            for key in (1, 2, 3):
                path = path.replace(f"{{{table}+{key}}}", str(self.case.offset(f"{table}.id") + key))
        return self.case.store.folder / path

    @property
    def parent(self) -> Path:
        return self.case.folder


@pytest.mark.slow
def test_every_corruption_is_found(merged: Case) -> None:
    """One after the other on the same merge, which is put right again each time."""
    good = merged.folder / "good"
    shutil.copytree(merged.store.folder, good)
    for name, (corrupt, kinds) in CORRUPTIONS.items():
        corrupt(_Resolved(merged))  # type: ignore[arg-type]
        proof = merged.prove()
        assert set(proof.differences) == kinds, name
        shown = " ".join(map(str, proof.examples))
        for secret in ("a.pdf", "9/nobody", "7/nobody", "x.jpg", "one.png", "/extra"):
            assert secret not in shown, name
        assert proof.central_unchanged == ("central's" not in name and "folder" not in name), name
        for place in (merged.store.folder, merged.folder / "moved", merged.folder / "s"):
            shutil.rmtree(place, ignore_errors=True)
            place.unlink(missing_ok=True)
        shutil.copytree(good, merged.store.folder)
    assert merged.prove().holds


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE doc SET name = 'b.pdf' WHERE name = 'a.pdf' AND id > 3",
        "UPDATE doc SET id = id + 1000 WHERE id > 3",
        "ALTER TABLE badge DROP CONSTRAINT badge_person_id_fkey; DELETE FROM person WHERE card = 'E'",
        "UPDATE scan SET path = 'scan/one.png' WHERE code = 's3'",
        "UPDATE scan SET path = NULL WHERE code = 's3'",
        "UPDATE person SET photo = 'y.jpg' WHERE card = 'B'",
        "UPDATE homolog.key_domain SET key_offset = key_offset + 1 WHERE domain = 'doc.id'",
    ],
)
def test_rows_that_point_elsewhere_are_found(merged: Case, statement: str) -> None:
    with merged.bench.connect() as conn:
        conn.execute(statement.encode())
    assert not merged.prove().holds


def test_a_ledger_that_says_other_than_the_files(merged: Case) -> None:
    ledger = merged.ledgers[1]
    said = {**ledger.files_by_fate, "inserted": 5, "unclaimed": 2}
    proof = attachments_proof.prove(
        merged.bench.connect, merged.plan, PROFILE.attachment, merged.store.folder, {1: said}
    )
    assert proof.differences == {"ledger": 2}


# The sample


@pytest.mark.slow
def test_attachments_of_the_sample(server: Server, tmp_path: Path) -> None:
    """Names clash between installations; in each, one row misses its file, and one file is nobody's."""
    made = make_samples(server, tmp_path / "one", scale=0.34, sources=1, attachments=True)
    central, source = (attachments_of(path) for path in made)
    ours, theirs = (
        {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (central, source)
    )
    shared = ours.keys() & theirs.keys()
    assert UNCLAIMED in shared
    assert len(shared) == len(theirs) > 3
    assert sum(ours[path] != theirs[path] for path in shared) == len(shared) - 1  # but for the empty one
    server.create_database("sample_attachments", "homolog_admin")
    try:
        server.tool(
            "pg_restore", "--no-owner", "-d", "sample_attachments", server.path(made[1]), database="sample_attachments"
        ).run()
        profile = profiles.load()
        store = Attachments(tmp_path / "attachments")
        store.take(1, "ubs", source)
        with server.connect("sample_attachments") as conn:
            plan = planner.make_plan(catalog.read(conn, "public"), profile)
            found = store.survey(1, deciding.pointers(conn, plan, profile.attachment, "public"))
    finally:
        server.drop_database("sample_attachments")
    assert found.rows == len(theirs)
    assert found.missing_keys == (f"tb_arquivo [co_seq_arquivo={MISSING}]",)
    assert found.unclaimed == 1
