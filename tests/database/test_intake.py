"""Every form of backup is recognised; everything else is refused with one sentence, and nothing is left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import stat
import tarfile
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from merge.errors import BackupError
from sandbox import archive as archives
from sandbox import order
from sandbox.intake import check_server, inspect, inspect_all
from tests.fix_backup import ALL_FORMS, FORMS, Backups, flipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMATS = {"raw": "custom", "create": "plain", "inserts": "custom", "plain-inserts": "plain"}
TABLES = {"parent", "Odd TYPES", "no_key", "holder", "part_1", "part_2", "other.elsewhere"}


def refuse(path: Path, *, says: str = "") -> BackupError:
    """The file is refused in one sentence of each language's, and leaves nothing."""
    work = path.parent / "work-of-refused"
    with pytest.raises(BackupError) as caught:
        inspect(path, work=work)
    error = caught.value
    assert not work.exists()
    assert error.exit_code == 3
    assert says.lower() in error.what.lower()
    assert "\n" not in error.what
    assert error.evidence is not None
    return error


@pytest.mark.parametrize("form", ALL_FORMS)
def test_every_form(backups: Backups, tmp_path: Path, form: str) -> None:
    path = tmp_path / "a name.that.tells.nothing"
    made = backups[form]
    shutil.copytree(made, path) if made.is_dir() else shutil.copy(made, path)
    found = inspect(path, work=tmp_path / "work")
    base, _, wrapper = form.partition(".")
    assert found.format == FORMATS.get(base, base)
    assert found.wrapper == {"": "none", "gz": "gzip", "tgz": "gzip", "zip": "zip"}[wrapper]
    assert (found.dumped_major, found.encoding, found.large_objects) == (16, "UTF8", True)
    assert found.dumped_from is not None
    assert found.dumped_from.startswith("16.")
    assert found.inserts == ("inserts" in base)
    assert set(found.tables) >= TABLES
    assert (found.archive_version == "1.15") == (found.format != "plain")
    assert found.extensions == ()
    if path.is_file():
        assert (found.sha256, found.size) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    for file in (tmp_path / "work").rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)
    assert inspect(path, work=tmp_path / "work") == found


@pytest.mark.parametrize("form", [form for form in ALL_FORMS if form != "directory"])
def test_truncated_anywhere(backups: Backups, tmp_path: Path, form: str) -> None:
    data = backups[form].read_bytes()
    chance = random.Random(form)
    cut = tmp_path / "cut"
    # The last lines of a script are comments and blanks.
    ends = {len(data) - (60 if form in ("plain", "create", "plain-inserts") else 1), 1, 100}
    for length in sorted(ends | {chance.randrange(len(data) - 60) for _ in range(20)}):
        cut.write_bytes(data[:length])
        refuse(cut)


def test_truncated_files_of_a_directory(backups: Backups, tmp_path: Path) -> None:
    chance = random.Random(1)
    folder = tmp_path / "folder"
    for file in sorted(backups["directory"].iterdir()):
        shutil.copytree(backups["directory"], folder)
        (folder / file.name).unlink()
        refuse(folder)
        length = file.stat().st_size
        for cut in {0, length - 1, chance.randrange(length)}:
            (folder / file.name).write_bytes(file.read_bytes()[:cut])
            refuse(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "vazio"),
        (b"\0" * 5000, "vazio"),
        (b"%PDF-1.7\n...", "PDF"),
        (b"-- MySQL dump 10.13  Distrib 8.0\n\nCREATE TABLE t (a int);\n", "MySQL"),
        (b"/*!40101 SET NAMES utf8 */;\n", "MySQL"),
        (b"SQLite format 3\0" + b"\1" * 100, "SQLite"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7-Zip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x28\xb5\x2f\xfd\0\0", "zstd"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
        (b"age-encryption.org/v1\n-> X25519 abc\n", "cifrado (age)"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "cifrado (age)"),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQEM", "cifrado (GPG)"),
        (bytes.fromhex("8c0d04090302b297c23e9cba3e33ffd2ed01") + random.Random(1).randbytes(9000), "cifrado (GPG)"),
        (bytes.fromhex("d2e901") + random.Random(1).randbytes(9000), "cifrado (GPG)"),
        (b"Salted__12345678\0\1\2", "cifrado (OpenSSL)"),
        ("-- PostgreSQL database dump\n".encode("utf-16"), "UTF-16"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", "pg_dumpall"),
        (b"hello\n", "PostgreSQL"),
        (b"SELECT 1;", "PostgreSQL"),
        (bytes(range(1, 255)) * 9, "PostgreSQL"),
        (b"PGDMP", "incompleto"),
        (b"PGDMP\x01\x63\x00\x04\x08\x01" + b"\0" * 50, "1.99"),
        (b"PGDMP\x01\x0e\x00\x04\x08\x03" + b"\0" * 50, "toc.dat"),
        (b"\x1f\x8b\x08\0junk", "gzip"),
        (gzip.compress(b"hello", mtime=0), "PostgreSQL"),
        (gzip.compress(b"", mtime=0), "vazio"),
        (gzip.compress(gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0), mtime=0), "gzip"),
        (b"PK\x03\x04junk", "zip"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file.backup"
    path.write_bytes(content)
    refuse(path, says=says)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """They may never end: an intake that opened them would not either."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        refuse(tmp_path / name, says="dispositivo")
    assert order.find([tmp_path / "pipe"]) == [tmp_path / "pipe"]


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_flipped_byte(backups: Backups, tmp_path: Path, form: str) -> None:
    """Changed within compressed data, which are as long as they should be: refused before anything is restored."""
    refused = 0
    for path in flipped(backups[form], tmp_path / "corrupt"):
        refuse(path, says="corrompido")
        refused += 1
    assert refused >= 6


def test_a_flipped_byte_names_its_table(backups: Backups, tmp_path: Path) -> None:
    (entry,) = (e for e in archives.read(backups["custom"]) if e.is_table_data and e.tag == "Odd TYPES")
    raw = bytearray(backups["custom"].read_bytes())
    assert entry.offset is not None
    raw[entry.offset + entry.size // 2] ^= 0x55
    (tmp_path / "corrupt").write_bytes(raw)
    refuse(tmp_path / "corrupt", says="Odd TYPES")


@pytest.mark.parametrize("form", ["raw", "tar", "directory"])
def test_rows_that_were_cut_off(backups: Backups, tmp_path: Path, form: str) -> None:
    """The file is as long as it should be, but the end of a table's rows is not where it should be."""
    path = tmp_path / "cut"
    if form == "directory":
        shutil.copytree(backups[form], path)
        for file in path.glob("*.dat.gz"):
            rows = gzip.decompress(file.read_bytes())
            file.write_bytes(gzip.compress(rows.replace(b"\\.\n\n\n", b"     ")))
    else:
        path.write_bytes(backups[form].read_bytes().replace(b"\\.\n\n\n", b"     "))
    refuse(path, says="incompleto")


def test_every_bad_backup_is_told_at_once(backups: Backups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(backups["custom"].read_bytes()[:-9])
    shutil.copy(backups["custom"], tmp_path / "copy")
    good = {"central": backups["custom"], "b": backups["directory"]}
    told: list[tuple[int, int]] = []
    found = inspect_all(good, work=tmp_path / "work", on_progress=lambda *progress: told.append(progress))
    assert {name: backup.path for name, backup in found.items()} == good
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum(backup.size for backup in found.values())

    def refused(**paths: Path) -> tuple[BackupError, list[str]]:
        names: list[str] = []
        with pytest.raises(BackupError) as caught:
            inspect_all(good | paths, work=tmp_path / "work", on_found=lambda name, backup: names.append(name))
        return caught.value, names

    one, names = refused(a=tmp_path / "empty")
    assert (one.what, one.evidence, names) == ("The file is empty.", str(tmp_path / "empty"), ["central", "b"])
    several, names = refused(a=tmp_path / "empty", c=tmp_path / "cut", d=tmp_path / "copy", e=tmp_path / "none")
    assert names == ["central", "b", "d"]
    assert [line.split(":")[0] for line in several.details] == [
        f"a ({tmp_path / 'empty'})", f"c ({tmp_path / 'cut'})", f"e ({tmp_path / 'none'})", "central, d",
    ]  # fmt: skip
    assert "same backup" in several.details[-1]


@pytest.mark.parametrize("other", ["again", "copy"])
def test_the_same_backup_twice(backups: Backups, tmp_path: Path, other: str) -> None:
    """The central as a source: the same file, or a copy of it."""
    shutil.copy(backups["custom"], tmp_path / "copy")
    path = backups["custom"] if other == "again" else tmp_path / "copy"
    with pytest.raises(BackupError, match="mesmo backup foi indicado 2 vezes: central, ubs") as caught:
        inspect_all({"central": backups["custom"], "ubs": path}, work=tmp_path / "work")
    assert str(path) in str(caught.value.evidence)


def test_messages_in_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    path = tmp_path / "file"
    path.write_bytes(b"")
    refuse(path, says="empty")


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    refuse(tmp_path / "nothing", says="não existe")
    folder = tmp_path / "folder"
    folder.mkdir()
    refuse(folder, says="PostgreSQL")
    (folder / "PG_VERSION").write_text("16\n")
    refuse(folder, says="arquivos internos")
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        tar.add(folder, "data")
    refuse(tmp_path / "base.tar", says="arquivos internos")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zip_files(backups: Backups, tmp_path: Path) -> None:
    custom, script = backups["custom"].read_bytes(), backups["plain"].read_bytes()
    path = tmp_path / "a.zip"
    refuse(zipped(path, {}), says="PostgreSQL")
    refuse(zipped(path, {"notes.txt": b"x", "more.txt": b"y"}), says="PostgreSQL")
    refuse(zipped(path, {"toc.pdf": b"%PDF-1"}), says="PDF")
    several = refuse(zipped(path, {"a.backup": custom, "b.sql": script}), says="mais de um")
    assert several.details == ("a.backup", "b.sql")
    for name in ("../../evil", "/tmp/evil", "C:\\evil", "a/../../evil"):
        found = inspect(zipped(path, {name: custom, "leia-me.txt": b"x"}), work=tmp_path / "work")
        assert found.readable.parent.is_relative_to(tmp_path / "work")
        assert found.format == "custom"
    inner = zipped(tmp_path / "inner.zip", {"x.backup": custom}).read_bytes()
    assert inspect(zipped(path, {"inner.zip": inner}), work=tmp_path / "work").wrapper == "zip"
    assert inspect(zipped(path, {"x.gz": gzip.compress(script)}), work=tmp_path / "work").format == "plain"


def test_zip_with_a_password(tmp_path: Path) -> None:
    raw = bytearray(zipped(tmp_path / "a.zip", {"x.backup": b"PGDMP..."}).read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    refuse(tmp_path / "a.zip", says="cifrado (ZIP)")


def test_links_in_a_tar_file_lead_nowhere(backups: Backups, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for file in backups["directory"].iterdir():
            tar.add(file, f"b/{file.name}")
        link = tarfile.TarInfo("b/extra.dat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        outside = tarfile.TarInfo("../../evil")
        outside.size = 3
        tar.addfile(outside, io.BytesIO(b"bad"))
    found = inspect(path, work=tmp_path / "work")
    assert found.format == "directory"
    assert {p.name for p in found.readable.iterdir()} == {p.name for p in backups["directory"].iterdir()}


@pytest.mark.parametrize("make", [lambda raw: gzip.compress(raw), lambda raw: None])
def test_no_room_to_decompress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[bytes], bytes]) -> None:
    usage = shutil.disk_usage(tmp_path)

    def small_disk(folder: Path) -> object:
        used = sum(p.stat().st_size for p in (tmp_path / "work-of-refused").rglob("*") if p.is_file())
        return usage._replace(free=(300 << 20) - used)

    monkeypatch.setattr(shutil, "disk_usage", small_disk)
    raw = b"-- PostgreSQL database dump\n" + b" " * (100 << 20)
    path = tmp_path / "bomb"
    content = make(raw)
    if content is None:
        zipped(path, {"bomb.sql": raw})
    else:
        path.write_bytes(content)
    refuse(path, says="espaço")


def test_other_encodings(backups: Backups, tmp_path: Path) -> None:
    for form in ("custom", "plain"):
        path = tmp_path / form
        raw = backups[form].read_bytes()
        path.write_bytes(raw.replace(b"SET client_encoding = 'UTF8';", b"SET client_encoding = 'LTN1';", 1))
        refuse(path, says="UTF8")


def test_a_script_that_psql_would_run_elsewhere(backups: Backups, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_bytes(backups["plain"].read_bytes().replace(b"SET client_min", b"\\! touch x\nSET client_min", 1))
    refuse(path, says="\\!")


def test_servers(backups: Backups, tmp_path: Path) -> None:
    backup = inspect(backups["custom"], work=tmp_path / "work")
    check_server(backup, 16)
    check_server(backup, 18)
    for version, refused_by, taken_by in [
        ("1.12", None, 9), ("1.13", None, 9), ("1.14", 11, 12), ("1.15", 15, 16), ("1.16", 16, 17)
    ]:  # fmt: skip
        old = replace(backup, archive_version=version, dumped_major=9, dumped_from="9.6.13")
        check_server(old, taken_by)
        if refused_by is not None:
            with pytest.raises(BackupError):
                check_server(old, refused_by)
    with pytest.raises(BackupError, match="mais novo"):
        check_server(replace(backup, archive_version=None, dumped_major=16), 15)


def test_all_forms_are_tried() -> None:
    assert set(FORMS) <= set(ALL_FORMS)
