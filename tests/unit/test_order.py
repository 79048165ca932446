"""Who should be the central, and who comes when."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merge.errors import BackupError
from sandbox import intake_show, order
from sandbox.contents import Contents
from sandbox.intake import Backup, inspect
from sandbox.order import Candidate
from tests.unit.test_archive import chunked, make

if TYPE_CHECKING:
    from typing import Any


def backup(path: str, **changes: Any) -> Backup:
    base = Backup(
        path=Path(path), name=Path(path).name.split(".")[0], sha256=path.encode().hex().rjust(64, "0")[:64], size=1000,
        format="custom", wrapper="none", dumped_from="9.6.13", dumped_major=9, dumped_by="9.6.13",
        archive_version="1.13", encoding="UTF8", entries=13_000, tables=("a", "b"),
        extensions=(), large_objects=False, inserts=False, readable=Path(path), work=Path("/work"),
    )  # fmt: skip
    return replace(base, **changes)


def candidate(name: str, held: int, unit: str = "text", **changes: Any) -> Candidate:
    return Candidate(name, backup(f"/b/{name}.backup", **changes), Contents(unit, {"a": held}, {"a": 1}))  # type: ignore[arg-type]


def test_the_largest_receives_and_the_others_come_from_the_smallest() -> None:
    # The file of the largest base is the smallest: it is well compressed.
    found = order.propose([candidate("b", 20), candidate("c", 900, size=1), candidate("a", 30), candidate("d", 10)])
    assert found.central.name == "c"
    assert [s.name for s in found.sources] == ["d", "b", "a"]
    assert found.compared == "text"
    assert len(found.reasons) == 3
    assert shlex.split(found.command) == [
        "invoke", "homolog", "--central", "/b/c.backup",
        "--source", "d=/b/d.backup", "--source", "b=/b/b.backup", "--source", "a=/b/a.backup",
    ]  # fmt: skip


def test_measures_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    found = order.propose([candidate("a", 900, "inserts", size=5), candidate("b", 20, size=50)])
    assert (found.compared, found.central.name) == ("file", "b")
    assert any("only file sizes" in reason for reason in found.reasons)
    found = order.propose([candidate("a", 900, "stored"), candidate("b", 20, "stored")])
    assert (found.compared, found.central.name) == ("stored", "a")


def test_a_close_second_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    for size, close in ((950, True), (500, False)):
        found = order.propose([candidate("a", 1000), candidate("b", size)])
        assert any("10 %" in reason for reason in found.reasons) == close


def test_the_order_does_not_depend_on_how_files_are_given() -> None:
    several = [candidate("a", 10), candidate("b", 10), candidate("c", 10)]
    one, other = order.propose(several), order.propose(several[::-1])
    assert (one.central, one.sources) == (other.central, other.sources)


def test_one_backup_alone() -> None:
    found = order.propose([candidate("a", 10)])
    assert (found.sources, found.command, len(found.reasons)) == ((), "", 1)


def test_another_central_than_the_largest_is_warned_of() -> None:
    found = order.propose([candidate("large", 10**9), candidate("small", 10**6)])
    assert order.central_warning(found, Path("/b/large.backup")) is None
    warning = order.central_warning(found, Path("/b/small.backup"))
    assert warning is not None
    assert "1,0 MB" in warning
    assert "1.000,0 MB" in warning


def test_files_that_are_called_alike_get_names_of_their_own() -> None:
    paths = ("/x/norte/esus.backup", "/x/sul/esus.backup", "/y/sul/esus.backup", "/x/leste.backup")
    named = order._named([Candidate(Path(p).stem, backup(p), Contents("text", {}, {})) for p in paths])
    assert [c.name for c in named] == ["norte-esus", "sul-esus-2", "sul-esus-3", "leste"]


def test_a_folder_means_the_backups_in_it(tmp_path: Path) -> None:
    for name in ("b.backup", "a.sql.gz", "a.sql.gz.sha256", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "dir-format").mkdir()
    (tmp_path / "dir-format" / "toc.dat").write_text("x")
    (tmp_path / "b-anexos").mkdir()
    names = [p.name for p in order.find([tmp_path, tmp_path / "b.backup"])]
    assert names == ["a.sql.gz", "b.backup", "dir-format"]
    with pytest.raises(BackupError):
        order.find([tmp_path / "b-anexos"])
    with pytest.raises(BackupError) as caught:
        order.find([tmp_path / "no", tmp_path, tmp_path / "nor this"])
    assert len(caught.value.details) == 2


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    for name, content in (("a", b""), ("b", b"MARIA DA SILVA"), ("c", b"PGDMP")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BackupError) as caught:
        order.examine(order.find([tmp_path]), tmp_path / "work")
    assert caught.value.exit_code == 3
    assert len({detail.split(":")[0] for detail in caught.value.details}) == 3
    assert "MARIA" not in str(caught.value.details)


def test_what_python_does_not_decompress_is_measured_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    packed = chunked(b"\x28\xb5\x2f\xfd" + b"rows")
    content = bytearray(make((1, 15), packed, packed))
    content[11] = 3  # zstd
    path.write_bytes(content)
    found = Contents.of(inspect(path, work=tmp_path / "work"))
    assert (found.unit, found.rows, found.sizes) == ("stored", None, {"público.tb ção": 6 + len(packed)})
    path.write_bytes(content.replace(b"\x28", b"\x29"))
    with pytest.raises(BackupError, match="tb ção"):  # they do not begin as they should
        inspect(path, work=tmp_path / "work")


def test_what_is_printed_as_json() -> None:
    found = intake_show.to_dict(order.propose([candidate("a", 10), candidate("b", 30)]))
    assert (found["central"], found["sources"], found["sizes"]) == ("b", ["a"], {"a": 10, "b": 30})
    assert [b["row_bytes"] for b in found["backups"]] == [30, 10]
