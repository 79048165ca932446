"""Checks of files and of the machine that need no server."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from merge.attachments import Survey
from sandbox import file_checks, host_checks
from sandbox.contents import Contents
from tests.unit.test_archive import make
from tests.unit.test_order import backup

if TYPE_CHECKING:
    from pathlib import Path

SHA = "ab" * 32
OTHER = "cd" * 32


@pytest.mark.parametrize(
    ("written", "state"),
    [
        (None, "recorded"),
        (f"{SHA}  a b.backup\n".encode(), "passed"),
        (f"{SHA.upper()} *a b.backup\r\n".encode(), "passed"),
        (f"{SHA}\n".encode(), "passed"),
        (f"{OTHER}  other.backup\n{SHA}  ./in/a folder/a b.backup\n".encode(), "passed"),
        (f"{SHA} *C:\\backups\\a b.backup\r\n".encode("utf-16"), "passed"),  # of a Windows shell
        (f"{OTHER}  a b.backup\n".encode(), "blocked"),
        (f"{SHA}  other.backup\n".encode(), "blocked"),
        (f"{SHA}  a b.backup\n{OTHER}  a b.backup\n".encode(), "blocked"),
        (b"", "blocked"),
        (b"nothing of the kind", "blocked"),
    ],
)
def test_checksum_of_the_origin(tmp_path: Path, written: bytes | None, state: str) -> None:
    path = tmp_path / "a b.backup"
    if written is not None:
        path.with_name("a b.backup.sha256").write_bytes(written)
    found = file_checks.checksum(backup(str(path), sha256=SHA), "central")
    assert (found.id, found.state, found.values["sha256"]) == ("C-01", state, SHA)
    assert bool(found.message) == (state != "passed")


def test_versions() -> None:
    central, source = backup("/c"), backup("/s")
    assert file_checks.versions(central, central, "central", 9).state == "passed"
    assert file_checks.versions(central, central, "central", 16).state == "warned"
    assert file_checks.versions(central, source, "ubs", 16).state == "passed"
    newer = file_checks.versions(central, backup("/n", dumped_major=17), "ubs", 16)
    assert (newer.state, newer.numbers) == ("blocked", {"sandbox": 16, "dumped": 17})
    assert file_checks.versions(central, backup("/n", dumped_major=None), "ubs", 16).state == "not_available"


def test_age(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(make((1, 14)))  # of 2026-02-03 12:34:56
    made = backup(str(path))
    assert file_checks.created(made) == datetime(2026, 2, 3, 12, 34, 56)
    for last, state in (
        (datetime(2026, 2, 3, 12, 30), "passed"),
        (datetime(2026, 2, 3, 12, 37), "passed"),
        (datetime(2026, 2, 3, 13, 0), "warned"),
        (datetime(2026, 1, 31, 0, 0), "warned"),
        (None, "not_available"),
    ):
        assert file_checks.age(made, "ubs", last).state == state
    late = file_checks.age(made, "ubs", datetime(2026, 2, 3, 13, 34, 56))
    assert late.numbers == {"seconds": -3600}
    local = datetime(2026, 2, 3, 12, 30).astimezone().astimezone(UTC)
    assert file_checks.age(made, "ubs", local).numbers == {"seconds": 296}
    assert file_checks.age(made, "ubs", datetime(2026, 2, 1), old=timedelta(days=1)).state == "warned"
    assert file_checks.age(backup("/x", archive_version=None), "ubs", datetime(2026, 2, 1)).state == "not_available"


def _survey(rows: int, files: int | None, missing: int, unclaimed: int) -> Survey:
    return Survey(rows, files, 100, missing, ("doc [id=1]",), unclaimed, 10)


@pytest.mark.parametrize(
    ("survey", "state", "says"),
    [
        (_survey(0, None, 0, 0), "passed", ""),
        (_survey(5, None, 5, 0), "warned", "--attachments"),
        (_survey(5, 9, 5, 9), "warned", "[[attachment]]"),
        (_survey(5, 5, 1, 1), "warned", "1 row points"),
        (_survey(5, 5, 0, 0), "passed", ""),
        (_survey(0, 3, 0, 3), "warned", ""),
    ],
)
def test_attachments(survey: Survey, state: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    found = file_checks.attachments(survey, "ubs")
    assert (found.id, found.state) == ("C-09f", state)
    assert says in found.message
    assert found.numbers["missing"] == survey.missing


def test_disk(tmp_path: Path) -> None:
    two = [(backup("/c"), Contents("text", {"a": 10**9}, {})), (backup("/s", size=10**8), None)]
    needed = host_checks.disk_needed(two, attachments=7)
    assert needed == 500_000_000 + 4.375 * (10**9 + 6 * 10**8) + 7
    assert host_checks.disk(needed, tmp_path, free=needed).state == "passed"
    found = host_checks.disk(needed, tmp_path, free=10**9)
    assert (found.id, found.state, found.numbers) == ("C-11", "blocked", {"needed": needed, "free": 10**9})
    assert "7,5 GB" in found.message
    assert "1,0 GB" in found.message
    assert host_checks.disk(1, tmp_path / "not" / "yet").numbers["free"] > 1


def test_disk_of_an_unwrapped_file(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(b"x" * 1000)
    assert host_checks.rows_as_text(backup("/c", format="plain", readable=inside, size=10), None) == 1000
    assert host_checks.rows_as_text(backup("/c", format="custom", readable=inside, size=10), None) == 6000


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = host_checks.memory()
    assert found.numbers["memory"] > 0
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 250_000)
    assert host_checks.memory().state == "warned"
    assert host_checks.memory(pec=True).numbers["suggested"] == 16 * 10**9


@pytest.mark.parametrize(
    ("locale", "windows"),
    [
        ("Portuguese_Brazil.1252", True),
        ("Portuguese (Brazil)_Brazil.1252", True),
        ("Portuguese, Brazil", True),
        ("English_United States.1252", True),
        ("pt_BR.UTF-8", False),
        ("pt_BR", False),
        ("en_US.utf8", False),
    ],
)
def test_names_of_collations(locale: str, windows: bool) -> None:
    assert file_checks._is_windows(locale) == windows
