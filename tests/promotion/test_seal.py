"""What the senders delivered is put away, opens with public programs, and nothing there is ever overwritten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from datetime import UTC, date, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage
import pytest

from merge.errors import BackupError, ConfigError
from sandbox import carry, intake
from sandbox.attachments import Attachments
from sandbox.console import Reporter
from sandbox.options import Options
from sandbox.promotion import keys, seal
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_promotion import Shop

REPORTER = Reporter(as_json=True)


@pytest.fixture(scope="module")
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def run(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that took in the central, a source as a file with attachments, and one as a folder."""
    monkeypatch.setenv("HOMOLOG_RUNS", str(tmp_path / "runs"))
    central, north = (Path(shop.run.load("inputs")[name]["path"]) for name in ("central", "north"))
    shutil.copy(north, tmp_path / "north side (1).backup")
    _directory_backup(shop, tmp_path / "south")
    files = tmp_path / "files"
    (files / "deep" / "er").mkdir(parents=True)
    (files / "deep" / "er" / ("ção" * 50)).write_bytes(b"x" * 1000)
    (files / "empty").write_bytes(b"")
    Path(os.fsdecode(bytes(files) + b"/\xff\xfe.pdf")).write_bytes(b"name in no encoding")
    paths = {"central": central, "north": tmp_path / "north side (1).backup", "south": tmp_path / "south"}
    options = Options(
        central=central,
        sources=tuple((name, path) for name, path in paths.items() if name != "central"),
        attachments=(("north", files),),
    )
    made = Run.create(**asdict(options))
    made.attest("created")
    made.save("inputs", intake.inspect_all(paths, work=made.folder / "work"))
    Attachments(made.folder / carry.FOLDER).take(1, "north", files)
    yield made
    made.unlock()


def _directory_backup(shop: Shop, folder: Path) -> None:
    from sandbox.promotion.production import Production

    with Production(shop.dsn(database="north"), folder.parent / "dsn") as server:
        server.tool("pg_dump", "--format=directory", "--table=public.catalogue_*", f"--file={folder}").run()


def _open(path: Path, identity: pyrage.x25519.Identity) -> bytes:
    return pyrage.decrypt(path.read_bytes(), [identity])


def _files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _content(archive: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in archive.rglob("*") if path.is_file() and path.name != ".lock"}


def test_backups_and_attachments_are_put_away(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    archive = tmp_path / "archive"
    found = seal.seal(run, archive, identity, REPORTER)
    assert [(one.of, one.what, one.file) for one in found] == [
        ("north", "backup", f"{run.id}/north-north_side_1_.backup.age"),
        ("south", "backup", f"{run.id}/south-south.tar.age"),
        ("north", "attachments", f"{run.id}/north-attachments.tar.age"),
    ]
    assert found == seal.catalogue(archive)
    backup, folder, files = found
    inputs = run.load("inputs")
    plain = _open(archive / backup.file, identity)
    assert plain == (tmp_path / "north side (1).backup").read_bytes()
    assert backup.sha256 == backup.plain_sha256 == inputs["north"]["sha256"] == sha256(plain).hexdigest()
    assert folder.sha256 == inputs["south"]["sha256"] != folder.plain_sha256
    for one in found:
        path = archive / one.file
        assert one.sealed_sha256 == sha256(path.read_bytes()).hexdigest()
        assert one.sealed_bytes == path.stat().st_size > one.plain_bytes
        assert path.stat().st_mode & 0o777 == 0o600
        assert one.recipient == str(identity.to_public())
        assert date.fromisoformat(one.keep_until).year == datetime.now(UTC).year + 20
        assert "@" in one.by
    for one, original in ((folder, tmp_path / "south"), (files, tmp_path / "files")):
        with tarfile.open(fileobj=BytesIO(_open(archive / one.file, identity))) as tar:
            tar.extractall(tmp_path / "out", filter="data")
        there = {path.relative_to(original): path.read_bytes() for path in original.rglob("*") if path.is_file()}
        out = {
            path.relative_to(tmp_path / "out"): path.read_bytes()
            for path in (tmp_path / "out").rglob("*")
            if path.is_file()
        }
        assert out == there
        shutil.rmtree(tmp_path / "out")
    said = (archive / "CATALOGO.md").read_text()
    assert all(one.file in said and one.plain_sha256 in said for one in found)
    assert str(identity.to_public()) in said
    assert "AGE-SECRET-KEY" not in said
    assert "ção" not in said + json.dumps([asdict(one) for one in found], ensure_ascii=False)
    assert run.events.read()[-1]["event"] == "sealed"
    assert run.check_log() == ()
    assert seal.check(archive, identity, REPORTER) == ()


def test_the_program_age_opens_it(run: Run, tmp_path: Path) -> None:
    """With an identity as `invoke keys` makes it."""
    if shutil.which("age") is None:
        pytest.skip("the program age is not installed (apt-get install age)")
    (tmp_path / "keys").mkdir()
    file, _ = keys.make_identity(tmp_path / "keys")
    archive = tmp_path / "archive"
    backup, folder, _ = seal.seal(run, archive, keys.open_identity(file), REPORTER)
    for one in (backup, folder):
        command = ["age", "-d", "-i", str(file), "-o", str(tmp_path / "opened"), str(archive / one.file)]
        subprocess.run(command, check=True, capture_output=True)
        assert sha256((tmp_path / "opened").read_bytes()).hexdigest() == one.plain_sha256
    listed = subprocess.run(["tar", "-tf", str(tmp_path / "opened")], check=True, capture_output=True).stdout.decode()
    assert "toc.dat" in listed.split()


def test_the_central_comes_if_asked_and_nothing_is_sealed_twice(
    run: Run, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    archive = tmp_path / "archive"
    first = seal.seal(run, archive, identity, REPORTER)
    before = _content(archive / run.id)
    assert seal.seal(run, archive, identity, REPORTER) == first
    assert _content(archive / run.id) == before
    again = seal.seal(run, archive, identity, REPORTER, central=True)
    assert again[:3] == first
    assert (again[3].of, again[3].original) == ("central", "central.backup")
    assert {**_content(archive / run.id), **before} == _content(archive / run.id)


def test_nothing_is_overwritten(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    """What somebody put there stays."""
    archive = tmp_path / "archive"
    taken = archive / run.id / "south-south.tar.age"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    _, folder, _ = seal.seal(run, archive, identity, REPORTER)
    assert taken.read_text() == "mine"
    assert folder.file == f"{run.id}/2-south-south.tar.age"
    assert seal.check(archive, identity, REPORTER) == ()


def test_what_is_not_what_the_run_took_in_is_not_listed(
    run: Run, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    archive = tmp_path / "archive"
    for path, listed in (
        (tmp_path / "north side (1).backup", 0),
        (tmp_path / "south" / "toc.dat", 1),
        (tmp_path / "files" / "empty", 2),
    ):
        before = path.read_bytes()
        path.write_bytes(before + b"x")
        with pytest.raises(BackupError, match="any more") as refused:
            seal.seal(run, archive, identity, REPORTER)
        assert "empty" not in f"{refused.value.what}{refused.value.details}{refused.value.evidence}"
        assert len(seal.catalogue(archive)) == listed
        assert len([path for path in archive.rglob("*.age*") if path.is_file()]) == listed
        path.write_bytes(before)
    assert len(seal.seal(run, archive, identity, REPORTER)) == 3


def test_what_is_gone_is_told_before_anything_is_sealed(
    run: Run, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "north side (1).backup").unlink()
    with pytest.raises(BackupError) as refused:
        seal.seal(run, tmp_path / "archive", identity, REPORTER)
    assert len(refused.value.details) == 2
    assert seal.catalogue(tmp_path / "archive") == ()


def test_links_are_not_followed(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    (tmp_path / "files" / "link").symlink_to("/etc/hostname")
    with pytest.raises(BackupError, match="not a plain file"):
        seal.seal(run, tmp_path / "archive", identity, REPORTER)
    assert len(seal.catalogue(tmp_path / "archive")) == 2


def test_what_does_not_fit_is_refused(
    run: Run, tmp_path: Path, identity: pyrage.x25519.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="must be free"):
        seal.seal(run, tmp_path / "archive", identity, REPORTER)


def test_an_archive_that_was_damaged_is_told(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    archive = tmp_path / "archive"
    backup, folder, files = seal.seal(run, archive, identity, REPORTER)
    other = pyrage.x25519.Identity.generate()
    assert len(seal.check(archive, other, REPORTER)) == 3
    (archive / backup.file).unlink()
    content = bytearray((archive / folder.file).read_bytes())
    content[-20] ^= 1
    (archive / folder.file).write_bytes(content)
    (archive / files.file).write_bytes(pyrage.encrypt(b"something else", [identity.to_public()]))
    assert [problem.split(": ")[1] for problem in seal.check(archive, identity, REPORTER)] == [
        "it is not there",
        "it does not open with this identity",
        "it is not what was put away",
    ]
    (archive / "catalogue.json").write_text("[{}]")
    with pytest.raises(ConfigError, match="damaged"):
        seal.seal(run, archive, identity, REPORTER)


def test_an_interruption_is_one(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    """Also in the middle of a file; nothing of it is left."""

    class Interrupted(Reporter):
        def progress(self, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal.seal(run, tmp_path / "archive", identity, Interrupted(as_json=True))
    assert not [path for path in (tmp_path / "archive").rglob("*.age*") if path.is_file()]


_SEAL = """
import sys
from pathlib import Path
import pyrage
from sandbox.console import Reporter
from sandbox.promotion import seal
from sandbox.runs import Run
identity = pyrage.x25519.Identity.from_str(sys.stdin.readline().strip())
print("begun", flush=True)
seal.seal(Run(Path(sys.argv[1])), Path(sys.argv[2]), identity, Reporter(as_json=True))
"""


def test_sealing_can_be_killed_at_any_moment(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    archive = tmp_path / "archive"
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _SEAL, str(run.folder), str(archive)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{identity}\n".encode())
        process.stdin.close()
        assert process.stdout.readline() == b"begun\n"
        time.sleep(attempt * 0.004)
        process.kill()
        process.stdout.close()
        process.wait()
    assert len(seal.seal(run, archive, identity, REPORTER)) == 3
    assert seal.check(archive, identity, REPORTER) == ()
    assert len([path for path in archive.rglob("*.age*") if path.is_file()]) == 3


def test_one_that_was_killed_after_listing_gets_its_name(
    run: Run, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    archive = tmp_path / "archive"
    backup = seal.seal(run, archive, identity, REPORTER)[0]
    path = archive / backup.file
    path.rename(path.with_name(path.name + ".making"))
    assert seal.seal(run, archive, identity, REPORTER)[0] == backup
    assert seal.check(archive, identity, REPORTER) == ()


def test_one_that_was_removed_is_put_away_again(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    archive = tmp_path / "archive"
    first = seal.seal(run, archive, identity, REPORTER)
    (archive / first[0].file).unlink()
    again = seal.seal(run, archive, identity, REPORTER)
    assert sorted(one.file for one in again) == sorted(one.file for one in first)
    assert seal.check(archive, identity, REPORTER) == ()


def test_a_place_that_is_no_folder_is_refused(run: Run, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="will not do"):
        seal.seal(run, tmp_path / "file" / "archive", identity, REPORTER)


def test_twenty_years_from_a_leap_day() -> None:
    assert seal._later(date(2028, 2, 29)) == date(2048, 2, 29)
    assert seal._later(date(2080, 2, 29)) == date(2100, 2, 28)
