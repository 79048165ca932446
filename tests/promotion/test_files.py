"""Attachments are added to production's directory, and taken back, without harm to anything that is there."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merge.attachments import Claim, Fate
from merge.errors import PromotionRefused
from sandbox.attachments import Attachments
from sandbox.promotion import files, files_look, folders
from sandbox.promotion.files import Added, Removed
from sandbox.promotion.files_journal import Journal
from sandbox.promotion.folders import Astray, Folder
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

CENTRAL = {"1/a.pdf": b"central 1", "2/b.pdf": b"central 2", "loose.txt": b""}
SOURCE = {f"{n}/laudo da Maria {n}.pdf": os.urandom(n * 50) for n in range(1, 40)}
MOVED = {old: f"{int(old.split('/')[0]) + 1000}/{old.split('/')[1]}" for old in SOURCE}
NEW = {MOVED[old]: content for old, content in SOURCE.items()}
SECRET = "Maria"


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")


@pytest.fixture(params=["descriptors", "names"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How folders are reached: as on Linux, and as on Windows, which cannot open them."""
    if request.param == "names":
        monkeypatch.setattr(Folder.__init__, "__kwdefaults__", {"by_descriptor": False})
    return str(request.param)


def _fill(folder: Path, content: dict[str, bytes]) -> Path:
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _merged(base: Path, source: dict[str, bytes] = SOURCE, central: dict[str, bytes] = CENTRAL) -> Run:
    """A run with merged attachments, as a rehearsal leaves them."""
    run = Run(base / "run-1")
    run.folder.mkdir(mode=0o700)
    store = Attachments(run.folder / "attachments")
    store.take(0, "central", _fill(base / "central", central))
    store.take(1, "north", _fill(base / "north", source))
    moved = {old: f"{int(old.split('/')[0]) + 1000}/{old.split('/')[1]}" for old in source}
    store.decide(1, [Claim("tb_arquivo", old, Fate.INSERTED, ((old, moved[old]),)) for old in source])
    store.carry(0)
    store.carry(1)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with merged attachments."""
    return _merged(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Production's directory, as it was when the central's was delivered."""
    return _fill(tmp_path / "production", CENTRAL)


@pytest.mark.usefixtures("way")
def test_there_and_back(run: Run, folder: Path) -> None:
    assert files.check(run, folder) == ()
    looked = files_look.look(run, folder)
    assert (looked.same, looked.to_add, looked.size) == (3, len(NEW), sum(map(len, NEW.values())))
    size = sum(map(len, NEW.values()))
    told: list[tuple[int, int]] = []
    assert files.add(run, folder, lambda done, total: told.append((done, total))) == Added(len(NEW), size, 0, 0)
    assert told[-1] == (size, size)
    assert _content(folder) == {**CENTRAL, **NEW}
    assert _content(folder) == _content(run.folder / "attachments" / "files")
    assert files.check(run, folder) == ()
    assert files.add(run, folder) == Added(len(NEW), size, 0, 0)  # again
    assert files.remove(run) == Removed(len(NEW), size, 0, 0)
    assert _content(folder) == CENTRAL
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2", "loose.txt"]  # no folder of ours is left
    assert _content(run.folder / "attachments" / files.ROLLED_BACK) == NEW
    assert files.remove(run, folder) == Removed(0, 0, 0, 0)
    assert files.add(run, folder) == Added(len(NEW), size, 0, 0)  # promoted again
    assert files.remove(run, folder).files == len(NEW)
    assert _content(folder) == CENTRAL


def test_owner_and_mode_are_those_of_the_others(run: Run, folder: Path) -> None:
    for path in CENTRAL:
        (folder / path).chmod(0o640)
    folder.chmod(0o2750)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 4321, 5432)
    assert files.add(run, folder).unowned == 0
    wanted = folder / "1" / "a.pdf"
    for path in NEW:
        info, like = (folder / path).stat(), wanted.stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (like.st_uid, like.st_gid, 0o640)
        assert (folder / path).parent.stat().st_uid == folder.stat().st_uid
        assert (folder / path).parent.stat().st_mode & 0o777 == 0o750
    first = sorted(MOVED)[0]
    then = (run.folder.parent / "north" / first).stat().st_mtime_ns
    assert (folder / MOVED[first]).stat().st_mtime_ns == then


def test_nothing_where_nothing_was_delivered(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    assert files.check(run, None) == files.check(run, tmp_path) == ()
    assert files.add(run, tmp_path) == Added(0, 0, 0, 0)
    assert files.remove(run) == Removed(0, 0, 0, 0)
    assert list(run.folder.iterdir()) == []


# What forbids it


def test_every_reason_at_once(run: Run, folder: Path) -> None:
    assert files.check(run, None) == (
        "attachments: the merge brings 39 files for production's directory of attachments; name it by --attachments",
    )
    (folder / "1" / "a.pdf").write_bytes(b"CENTRAL 1")
    (folder / "2" / "b.pdf").unlink()
    (folder / sorted(NEW)[0]).mkdir(parents=True)
    _fill(folder, {sorted(NEW)[1]: b"another", "new since/Maria.pdf": b"nobody knows it"})
    reasons = files.check(run, folder)
    assert [reason.split(": ")[1].split(" ")[0] for reason in reasons] == ["1", "1", "2"]
    assert not any(SECRET in reason for reason in reasons)
    assert files_look.look(run, folder).unknown == 1
    kept = run.folder / "attachments" / "state" / "promotion-look.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {k: len(v) for k, v in json.loads(kept.read_text()).items()} == {
        "changed": 1, "missing": 1, "in_the_way": 2, "unknown": 1,
    }  # fmt: skip


def test_what_was_read_before_the_window_is_not_read_again(run: Run, folder: Path) -> None:
    """But what was changed in between is, though its size and its time of modification are the same."""
    state = run.folder / "attachments" / "state" / "production-seen.json"
    assert files.check(run, folder) == ()
    assert json.loads(state.read_text())["files"] == {}  # just made: their times are not trusted yet
    time.sleep(5.2)
    assert files.check(run, folder) == ()
    kept = json.loads(state.read_text())
    assert kept["files"].keys() == CENTRAL.keys()
    changed = folder / "2" / "b.pdf"
    before = changed.stat()
    with changed.open("r+b") as file:
        file.write(b"C")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    assert changed.stat().st_mtime_ns == before.st_mtime_ns
    assert len(files.check(run, folder)) == 1
    assert files_look.look(run, folder).changed == 1
    # What is kept is of this directory, and of what was delivered: another one is read.
    other = _fill(run.folder.parent / "other", {**CENTRAL, "loose.txt": b"x"})
    assert len(files.check(run, other)) == 1


def test_seen_files_are_known_by_all_that_a_change_touches(run: Run, folder: Path) -> None:
    store = Attachments(run.folder / "attachments")
    (file,) = (f for f in store.merged() if f.path == "1/a.pdf")
    time.sleep(5.2)
    with Folder(folder) as place:
        seen = files_look.Seen(store, place)
        info = place.status(file.path)
        assert info is not None
        assert not seen.knows(file, info)
        seen.note(file, info)
        seen.save()
        again = files_look.Seen(store, place)
        assert again.knows(file, info)
        again.save()
        for touch in (
            lambda path: path.chmod(0o600),
            lambda path: path.touch(),
            lambda path: (path.rename(path.with_name("x")), shutil.copy2(path.with_name("x"), path)),
        ):
            touch(folder / file.path)
            info = place.status(file.path)
            assert info is not None
            assert not files_look.Seen(store, place).knows(file, info)


def test_what_is_there_already_is_not_ours(run: Run, folder: Path) -> None:
    there = sorted(NEW)[:3]
    _fill(folder, {path: NEW[path] for path in there})
    assert files.check(run, folder) == ()
    added = files.add(run, folder)
    assert (added.files, added.present) == (len(NEW) - 3, 3)
    assert files.remove(run, folder).files == len(NEW) - 3
    assert _content(folder) == {**CENTRAL, **{path: NEW[path] for path in there}}


@pytest.mark.usefixtures("way")
def test_a_taken_place_is_not_overwritten(run: Run, folder: Path) -> None:
    taken = sorted(NEW)[-1]
    _fill(folder, {taken: b"somebody's"})
    with pytest.raises(PromotionRefused) as refused:
        files.add(run, folder)
    assert SECRET not in str(refused.value) + str(refused.value.details) + str(refused.value.evidence)
    assert (folder / taken).read_bytes() == b"somebody's"
    files.remove(run, folder)
    assert _content(folder) == {**CENTRAL, taken: b"somebody's"}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("trick", ["folder", "file", "dangling", "root of a new folder"])
def test_no_link_is_followed_out(run: Run, folder: Path, tmp_path: Path, trick: str) -> None:
    outside = _fill(tmp_path / "outside", {"precious": b"1"})
    path = sorted(NEW)[5]
    if trick == "folder":
        (folder / path).parent.symlink_to(outside)
    elif trick == "root of a new folder":
        (folder / ".homolog-run-1").symlink_to(outside)
    else:
        (folder / path).parent.mkdir()
        (folder / path).symlink_to(outside / ("precious" if trick == "file" else "nowhere"))
    if trick != "root of a new folder":
        assert len(files.check(run, folder)) == 1
    with pytest.raises(PromotionRefused):
        files.add(run, folder)
    assert _content(outside) == {"precious": b"1"}


@pytest.mark.usefixtures("way")
def test_no_link_is_followed_on_the_way_back(run: Run, folder: Path, tmp_path: Path) -> None:
    files.add(run, folder)
    path = sorted(NEW)[7]
    outside = tmp_path / "outside"
    shutil.move((folder / path).parent, outside)  # the same bytes, but elsewhere
    (folder / path).parent.symlink_to(outside)
    removed = files.remove(run, folder)
    assert (removed.files, removed.changed) == (len(NEW) - 1, 1)
    assert _content(outside) == {Path(path).name: NEW[path]}


def test_a_central_behind_a_link_counts_as_changed(run: Run, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "1", tmp_path / "outside")
    (folder / "1").symlink_to(tmp_path / "outside")
    assert len(files.check(run, folder)) == 1


def test_no_room(tmp_path: Path, folder: Path) -> None:
    """The merged file is as large as it says, but takes no room itself."""
    run = _merged(tmp_path, {"1/a": b"x"})
    free = shutil.disk_usage(folder).free
    state = run.folder / "attachments" / "state" / "inventory-1.json"
    kept = json.loads(state.read_text())
    kept["files"][0]["size"] = free + 2**20
    state.write_text(json.dumps(kept))
    os.truncate(run.folder / "attachments" / "files" / "1001" / "a", free + 2**20)
    assert "are needed in production's directory" in files.check(run, folder)[0]
    with pytest.raises(PromotionRefused, match="are needed"):
        files.add(run, folder)
    assert _content(folder) == CENTRAL


def test_a_folder_that_is_none_or_the_runs_own(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path / "central" / "loose.txt", run.folder, run.folder / "attachments",
                 run.folder.parent):  # fmt: skip
        reasons = files.check(run, path)
        assert len(reasons) == 1, path
        assert "cannot be used" in reasons[0]


def test_a_read_only_folder() -> None:
    base = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    try:
        run, folder = _merged(base), _fill(base / "production", CENTRAL)
        nobody = 65534
        if os.geteuid() == 0:  # who may write everywhere
            for path in (base, *base.rglob("*")):
                os.chown(path, nobody, nobody)
            os.seteuid(nobody)
        try:
            folder.chmod(0o555)
            assert files.check(run, folder) == ("attachments: production's directory is read-only",)
            with pytest.raises(PromotionRefused):
                files.add(run, folder)
            folder.chmod(0o755)
            assert files.add(run, folder).files == len(NEW)
            folder.chmod(0o555)
            (folder / sorted(NEW)[0]).parent.chmod(0o555)
            with pytest.raises(PromotionRefused):
                files.remove(run, folder)
            (folder / sorted(NEW)[0]).parent.chmod(0o755)
            folder.chmod(0o755)
            assert files.remove(run, folder).files + files.remove(run, folder).files > 0
            assert _content(folder) == CENTRAL
        finally:
            if os.geteuid() == nobody:
                os.seteuid(0)
    finally:
        shutil.rmtree(base)


def test_a_merged_file_that_was_changed_is_not_promoted(run: Run, folder: Path) -> None:
    path = sorted(NEW)[3]
    merged = run.folder / "attachments" / "files" / path
    merged.write_bytes(b"x" * merged.stat().st_size)
    with pytest.raises(PromotionRefused, match="no longer what was proved"):
        files.add(run, folder)
    assert _content(folder) == CENTRAL


# The way back


@pytest.mark.usefixtures("way")
def test_what_was_changed_since_stays(run: Run, folder: Path) -> None:
    files.add(run, folder)
    changed, same_size, gone, beside = sorted(NEW)[:4]
    (folder / changed).write_bytes(b"PEC wrote here")
    (folder / same_size).write_bytes(b"x" * len(NEW[same_size]))
    (folder / gone).unlink()
    _fill(folder, {f"{Path(beside).parent}/another": b"of PEC"})
    removed = files.remove(run, folder)
    assert (removed.files, removed.changed, removed.gone) == (len(NEW) - 3, 2, 1)
    assert _content(folder) == {
        **CENTRAL,
        changed: b"PEC wrote here",
        same_size: b"x" * len(NEW[same_size]),
        f"{Path(beside).parent}/another": b"of PEC",
    }


# Killed


_WORK = """
import sys, time
from pathlib import Path
from sandbox.promotion import files
from sandbox.runs import Run
run, folder, what = Run(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
files._BATCH = 5
files.add(run, folder) if what == "add" else files.remove(run, folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_goes_on(run: Run, folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    took = {"add": 0.2, "remove": 0.1}
    for what in ("add", "remove"):
        for _ in range(4):
            process = subprocess.Popen(
                [sys.executable, "-c", _WORK, str(run.folder), str(folder), what],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            with process:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdout.readline()
                process.stdin.write(b"go\n")
                process.stdin.flush()
                time.sleep(chance.random() * took[what])
                process.send_signal(signal.SIGKILL)
            for path, data in _content(folder).items():  # whole, or not there
                if not path.startswith(".homolog"):
                    assert {**CENTRAL, **NEW}[path] == data
        if what == "add":
            files.add(run, folder)
            assert _content(folder) == {**CENTRAL, **NEW}
            assert len(Journal(Attachments(run.folder / "attachments")).files) == len(NEW)
        else:
            files.remove(run, folder)
            assert _content(folder) == CENTRAL
            assert not (folder / ".homolog-run-1").exists()
            assert _content(run.folder / "attachments" / files.ROLLED_BACK) == NEW
            assert sorted(p.name for p in folder.iterdir()) == ["1", "2", "loose.txt"]


def test_a_half_line_of_the_journal_is_cut_off(run: Run, folder: Path) -> None:
    files.add(run, folder)
    path = run.folder / "attachments" / "state" / "promoted.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"file": "hal')
    assert files.add(run, folder).files == len(NEW)
    assert path.read_bytes().startswith(whole + b'{"folder"')


# Folders


@pytest.fixture
def place(tmp_path: Path, way: str) -> Iterator[Folder]:
    """A folder, reached in both ways."""
    (tmp_path / "place").mkdir()
    with Folder(tmp_path / "place") as opened:
        assert (opened._root is not None) == (way == "descriptors")
        yield opened


def test_paths_that_lead_out(place: Folder, tmp_path: Path) -> None:
    _fill(tmp_path, {"outside": b"1"})
    for path in ("../outside", "/etc/hostname", "a/../../outside"):
        with pytest.raises(OSError, match=r"."):
            place.status(path)
        with pytest.raises(OSError, match=r"."):
            place.read(path)


def test_a_pipe_is_not_waited_for(place: Folder) -> None:
    os.mkfifo(place.path / "pipe")
    with pytest.raises(Astray):
        place.read("pipe")


def test_a_place_that_is_taken_stays(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a file system without hard links."""
    for number in range(2):
        with place.create(f"made{number}") as file:
            file.write(b"mine")
        (place.path / f"taken{number}").write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            place.put(f"made{number}", f"taken{number}")
        place.put(f"made{number}", f"free{number}")
        assert (place.path / f"taken{number}").read_bytes() == b"theirs"
        assert (place.path / f"free{number}").read_bytes() == b"mine"
        assert not (place.path / f"made{number}").exists()
        monkeypatch.setattr(folders.os, "link", _no_links)


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")
