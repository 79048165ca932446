"""Taking stock of directories, deciding on files, and carrying them: with real files, without a database."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from merge.attachments import Claim, Fate, File, Inventory, Pointer, check, decide, relative, survey
from merge.errors import BackupError, CollisionError, HomologationError, MergeError
from merge.profile import Attachment
from sandbox import attachments as carrying
from sandbox.attachments import CENTRAL, Attachments, inventory
from sandbox.attachments_proof import look

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "MARIA DA SILVA 12345678909.pdf"
"""Stands for a patient: may be in no error and in no ledger."""


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def stock(files: Mapping[str, str]) -> Inventory:
    return Inventory(tuple(File(path, len(content), digest(content)) for path, content in files.items()))


def taken(files: Mapping[str, str]) -> dict[str, str]:
    return {path: digest(content) for path, content in files.items()}


def claim(key: int, fate: Fate, *paths: tuple[str | None, str | None]) -> Claim:
    return Claim("doc", f"id={key}", fate, paths)


def quiet(error: HomologationError) -> None:
    """No name of a file is in an error."""
    said = " ".join(map(str, (error.what, error.evidence, error.next_step, *error.details, error.__cause__)))
    assert "MARIA" not in said
    assert error.__suppress_context__ or error.__context__ is None


# Taking stock


def test_every_file_is_hashed_wherever_it_is(tmp_path: Path) -> None:
    files = {"1/a.pdf": "one", "2": "", "deep/er/í ç": "three" * 100_000, ".hidden": "four"}
    seen: list[tuple[int, int]] = []
    found = inventory(write(tmp_path, files), 3, lambda done, total: seen.append((done, total)))
    assert found.hashes == taken(files)
    assert {f.path: f.size for f in found.files} == {path: len(text.encode()) for path, text in files.items()}
    assert found.refused == {}
    assert seen[-1] == (found.size, found.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_links_and_special_files_are_told_at_once_and_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret": "of another"})
    folder = write(tmp_path / "in", {"1/a": "one", NAME: "x"})
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder").symlink_to(outside)
    (folder / "1/gone").symlink_to(folder / NAME / "nothing")
    os.mkfifo(folder / "pipe")
    found = inventory(folder)
    assert set(found.hashes) == {"1/a", NAME}
    assert found.refused == {"link": ("1/gone", "folder", "link"), "special": ("pipe",)}
    store = Attachments(tmp_path / "run")
    with pytest.raises(BackupError) as caught:
        store.take(1, "ubs", folder)
    assert len(caught.value.details) == 2
    assert any(": 3" in detail for detail in caught.value.details)
    assert Path(caught.value.evidence or "").read_text().count("link") == 2
    quiet(caught.value)
    for path in ("link", "folder", "1/gone", "pipe"):
        (folder / path).unlink()
    assert len(store.take(1, "ubs", folder).files) == 2


def test_unreadable_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "in", {"a": "one", "locked/b": "two", "c": "three"})
    (folder / "c").chmod(0)
    (folder / "locked").chmod(0)
    if os.access(folder / "c", os.R_OK):  # root reads everything: what the system says to others is said to it

        def refuse(path: Path) -> object:
            if path.name == "c":
                raise PermissionError(13, "no", str(path))
            return original(path)

        original = carrying._open
        monkeypatch.setattr(carrying, "_open", refuse)
        expected = {"unreadable": ("c",)}
    else:
        expected = {"unreadable": ("c", "locked")}
    assert inventory(folder).refused == expected
    (folder / "locked").chmod(0o700)


def test_a_name_in_no_encoding_is_carried(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"anexo \xe7\xe3o.pdf")).write_text("latin 1")
    store = Attachments(tmp_path / "run")
    store.take(CENTRAL, "central", folder)
    assert store.carry(CENTRAL).files == 1
    assert list(look(store.folder).values()) == [digest("latin 1")]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        inventory(tmp_path / "nothing")


# Before the merge


def test_survey_counts_what_is_missing_and_what_nobody_claims() -> None:
    rows = [Pointer("doc", f"id={n}", (f"{n}/x", f"{n}")) for n in range(1, 251)]
    found = survey(rows, stock({"1/x": "a", "2": "bb", "2/x": "c", "loose": "dddd"}))
    assert (found.rows, found.files, found.size) == (250, 4, 8)
    assert (found.missing, len(found.missing_keys), found.missing_keys[0]) == (248, 100, "doc [id=3]")
    assert (found.unclaimed, found.unclaimed_size) == (1, 4)


def test_survey_without_a_directory() -> None:
    found = survey([Pointer("doc", "id=1", ("1",))], None)
    assert (found.rows, found.files, found.missing, found.unclaimed) == (1, None, 1, 0)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b", None])
def test_paths_that_lead_out_name_nothing(path: str | None) -> None:
    assert relative(path) is None


def test_paths_are_written_as_inventories_do() -> None:
    assert relative("./a//b/./c") == "a/b/c"


@pytest.mark.parametrize("file", ["plain", "/{id}", "../{id}", "a//{id}", "{id}/", "{id", "{a b}", "a\\{id}", ""])
def test_declarations_that_are_no_path_are_refused(file: str) -> None:
    with pytest.raises(ValidationError):
        Attachment(table="doc", files=(file,), reason="test", evidence="seen")


# Decisions


def test_every_file_has_one_fate() -> None:
    decision = decide(
        2,
        [
            claim(1, Fate.INSERTED, ("1", "101")),
            claim(2, Fate.MATCHED, ("2", "7")),
            claim(3, Fate.MATCHED, ("3", "8")),
            claim(4, Fate.MATCHED, ("4", "9")),
            claim(5, Fate.EXCLUDED, ("5", None)),
            claim(6, Fate.INSERTED, ("6", "106")),
            claim(7, Fate.MATCHED, ("7", None)),
        ],
        stock({"1": "one", "2": "same", "3": "other", "4": "fills", "5": "left out", "7": "nowhere", "loose": "x"}),
        taken({"7": "same", "8": "central's", "1": "central's one"}),
    )
    check(decision)
    assert {c.path: (c.fate.value, c.targets) for c in decision.carried} == {
        "1": ("inserted", ("files/101",)),
        "2": ("matched", ()),
        "3": ("reconciled", ("conflicts/src_2/3",)),
        "4": ("inserted", ("files/9",)),
        "5": ("excluded", ("excluded/src_2/5",)),
        "7": ("reconciled", ("conflicts/src_2/7",)),
        "loose": ("unclaimed", ("unclaimed/src_2/loose",)),
    }
    assert sum(decision.counts().values()) == 7
    assert (decision.rows, decision.missing, decision.missing_keys) == (7, 1, ("doc [id=6]",))
    assert decision.conflicts == ("doc [id=3]", "doc [id=7]")


def test_a_row_may_have_several_files() -> None:
    decision = decide(
        1,
        [
            claim(1, Fate.INSERTED, ("1/a", "9/a"), ("1.png", "9.png")),
            claim(2, Fate.MATCHED, ("2/a", "8/a"), ("2.png", "8.png")),
        ],
        stock({"1/a": "a", "1.png": "b", "2/a": "c", "2.png": "d"}),
        {},
    )
    assert [c.targets for c in decision.carried] == [("files/9/a",), ("files/9.png",), ("files/8/a",), ("files/8.png",)]


def test_rows_that_share_a_file_go_on_sharing_it() -> None:
    rows = [claim(n, Fate.INSERTED, ("a.pdf", "a.pdf")) for n in (1, 2)]
    decision = decide(1, rows, stock({"a.pdf": "x"}), {})
    assert (decision.clashes, decision.counts()["inserted"]) == ((), 1)


@pytest.mark.parametrize(
    ("rows", "files", "there"),
    [
        # A path without a key, the same on both sides, with other bytes.
        ([claim(1, Fate.INSERTED, ("a.pdf", "a.pdf"))], {"a.pdf": "mine"}, {"a.pdf": "another's"}),
        # A row whose file is missing would get that of another.
        ([claim(1, Fate.INSERTED, ("a.pdf", "a.pdf"))], {}, {"a.pdf": "another's"}),
        # Two rows of the source that were two files.
        (
            [claim(1, Fate.INSERTED, ("1-23", "x")), claim(2, Fate.INSERTED, ("12-3", "x"))],
            {"1-23": "a", "12-3": "b"},
            {},
        ),
        # A row without a file, whose place another row of the source takes.
        ([claim(1, Fate.INSERTED, ("1", "x")), claim(2, Fate.INSERTED, ("2", "x"))], {"2": "b"}, {}),
        # A file where another needs a folder.
        ([claim(1, Fate.INSERTED, ("1", "5/x"))], {"1": "a"}, {"5": "b"}),
        ([claim(1, Fate.INSERTED, ("1", "5"))], {"1": "a"}, {"5/x/y": "b", "5.x": "c"}),
        # The merged row points out of the directory.
        ([claim(1, Fate.INSERTED, ("1", None))], {"1": "a"}, {}),
    ],
)
def test_whoever_would_get_the_file_of_another_stops_the_merge(
    rows: list[Claim], files: dict[str, str], there: dict[str, str]
) -> None:
    decision = decide(1, rows, stock(files), taken(there))
    with pytest.raises(CollisionError) as caught:
        check(decision)
    assert len(caught.value.details) == 1


# Carrying


def _decided(tmp_path: Path) -> Attachments:
    """A run whose central and first source have been decided on."""
    central = write(tmp_path / "central", {"1/a": "central one", "7": "central seven"})
    source = write(tmp_path / "source", {"1/a": "source one", "2": "source two", f"loose/{NAME}": "nobody's"})
    store = Attachments(tmp_path / "run")
    store.take(CENTRAL, "central", central)
    store.take(1, "ubs", source)
    store.decide(1, [claim(1, Fate.INSERTED, ("1/a", "101/a")), claim(2, Fate.MATCHED, ("2", "7"))])
    return store


EXPECTED = {
    "files/1/a": "central one",
    "files/7": "central seven",
    "files/101/a": "source one",
    "conflicts/src_1/2": "source two",
    f"unclaimed/src_1/loose/{NAME}": "nobody's",
}


def test_carried_files_are_copies_of_their_own(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    delivered = tmp_path / "source/1/a"
    os.utime(delivered, (1_000_000_000, 1_000_000_000))
    seen: list[tuple[int, int]] = []
    store.carry(CENTRAL)
    ledger = store.carry(1, 2, lambda done, total: seen.append((done, total)))
    assert look(store.folder) == taken(EXPECTED)
    assert seen[-1] == (ledger.size, ledger.size)
    assert Counter(ledger.files_by_fate) == Counter({"inserted": 1, "reconciled": 1, "unclaimed": 1})
    assert sum(ledger.files_by_fate.values()) == ledger.files == 3
    assert (ledger.rows, ledger.missing, ledger.conflicts, ledger.conflict_keys) == (2, 0, 1, ("doc [id=2]",))
    assert NAME not in str(ledger)
    copy = store.folder / "files/101/a"
    assert (copy.stat().st_mode & 0o777, copy.stat().st_nlink, copy.stat().st_mtime) == (0o600, 1, 1_000_000_000)
    copy.write_text("changed")
    assert delivered.read_text() == "source one"


def test_carrying_may_be_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done is done, nothing is half, and the next call does the rest."""
    store = _decided(tmp_path)
    for stop_at in range(4):
        calls = 0

        def stop(source: object, target: object, *, at: int = stop_at, link: object = os.link) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                raise KeyboardInterrupt
            link(source, target)  # type: ignore[operator]

        with monkeypatch.context() as patched:
            patched.setattr(os, "link", stop)
            for number in (CENTRAL, 1):
                try:
                    store.carry(number, jobs=1)
                except KeyboardInterrupt:
                    break
        found = look(store.folder)
        assert found.items() <= taken(EXPECTED).items()
    write(store.folder, {"state/partial/0": "half of a fi"})  # what a killed process leaves
    for number in (CENTRAL, 1):
        Attachments(store.folder).carry(number)
    assert look(store.folder) == taken(EXPECTED)
    assert not (store.folder / "state/partial").exists()


def test_a_place_that_is_taken_is_never_overwritten(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    write(store.folder, {"files/101/a": "somebody's"})
    with pytest.raises(MergeError) as caught:
        store.carry(1)
    quiet(caught.value)
    assert (store.folder / "files/101/a").read_text() == "somebody's"
    (store.folder / "files/101/a").unlink()
    (store.folder / "files/101/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MergeError) as caught:
        store.carry(1)
    quiet(caught.value)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_changed_after_the_inventory_is_refused(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    (tmp_path / "source/loose" / NAME).write_text("nobody'Z")
    with pytest.raises(BackupError) as caught:
        store.carry(1)
    quiet(caught.value)
    assert not list((store.folder / "unclaimed").rglob("*.pdf"))


def test_a_file_that_is_gone_is_an_error_without_its_name(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    (tmp_path / "source/loose" / NAME).unlink()
    with pytest.raises(MergeError) as caught:
        store.carry(1)
    quiet(caught.value)


def test_a_later_source_sees_what_the_earlier_ones_brought(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    store.take(2, "other", write(tmp_path / "other", {"1/a": "yet another"}))
    with pytest.raises(CollisionError):
        store.decide(2, [claim(1, Fate.INSERTED, ("1/a", "101/a"))])
    with pytest.raises(MergeError):  # what was not decided is not carried
        store.carry(2)
    store.decide(2, [claim(1, Fate.INSERTED, ("1/a", "201/a"))])
    assert store.carry(2).files_by_fate["inserted"] == 1


def test_a_source_without_a_directory_is_decided_on_too(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    store.decide(2, [claim(5, Fate.INSERTED, ("5", "205"))])
    ledger = store.carry(2)
    assert (ledger.files, ledger.rows, ledger.missing, ledger.missing_keys) == (0, 1, 1, ("doc [id=5]",))


def test_what_is_remembered_is_for_its_owner_only(tmp_path: Path) -> None:
    store = _decided(tmp_path)
    for path in (store.folder / "state").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    store.clear()
    assert not store.folder.exists()
