"""PEC's installer: what is taken for one, and how it gets to Docker."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from merge.errors import ConfigError
from sandbox import installer

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "eSUS-AB-PEC-5.4.37-Linux64.jar"
_MAIN = "Manifest-Version: 1.0\r\nMain-Class: br.gov.Instalador\r\n"


def _jar(folder: Path, name: str = _NAME, manifest: str | None = _MAIN) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        if manifest is not None:
            archive.writestr("META-INF/MANIFEST.MF", manifest)
        archive.writestr("content", os.urandom(3_000_000))
    return path


def test_an_installer(tmp_path: Path) -> None:
    jar = _jar(tmp_path)
    found = installer.inspect(jar)
    assert found == installer.Installer(jar, hashlib.sha256(jar.read_bytes()).hexdigest(), jar.stat().st_size, "5.4.37")


@pytest.mark.parametrize(
    ("name", "manifest", "version"),
    [
        (_NAME, _MAIN, "5.4.37"),
        ("esus-ab-pec-5.5.28-linux64.JAR", _MAIN, "5.5.28"),
        (_NAME, _MAIN + "Implementation-Version: 9.9.9\r\n", "5.4.37"),
        ("pec.jar", _MAIN + "Implementation-Version: 5.5.28\r\n", "5.5.28"),
        ("pec.jar", _MAIN + "Implementation-Version: latest\r\n", None),
        ("pec.jar", _MAIN, None),
    ],
)
def test_the_version(tmp_path: Path, name: str, manifest: str, version: str | None) -> None:
    assert installer.version_of(_jar(tmp_path, name, manifest)) == version


def _exe(folder: Path) -> Path:
    """An installer for Windows: a program, with a JAR at its end."""
    path = folder / "eSUS-AB-PEC-5.4.37-Windows64.exe"
    path.write_bytes(b"MZ" + bytes(1000) + _jar(folder).read_bytes())
    return path


def _truncated(folder: Path) -> Path:
    path = _jar(folder)
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _page(folder: Path) -> Path:
    path = folder / _NAME
    path.write_text("<html>Página não encontrada</html>")
    return path


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_exe, "no ZIP"),
        (_page, "no ZIP"),
        (_truncated, "truncated"),
        (lambda folder: _jar(folder, manifest=None), "Main-Class"),
        (lambda folder: _jar(folder, manifest="Manifest-Version: 1.0\r\n"), "Main-Class"),
        (lambda folder: folder / "none.jar", "cannot be read"),
        (lambda folder: folder, "cannot be read"),
    ],
)
def test_what_is_no_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, why: str) -> None:
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    with pytest.raises(ConfigError, match=why):
        installer.inspect(make(tmp_path))  # type: ignore[operator]


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "pec").write_text("#!/bin/sh\n")
    return folder


def test_the_context_is_a_tar(tmp_path: Path) -> None:
    found = installer.inspect(_jar(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(b"".join(installer.context(found, _folder(tmp_path))))) as archive:
        members = {member.name: member for member in archive}
        assert list(members) == ["Dockerfile", "pec", f"installer/{_NAME}"]
        assert members["pec"].mode == 0o755
        content = archive.extractfile(members[f"installer/{_NAME}"])
        assert content
        assert content.read() == found.path.read_bytes()


def test_the_jar_is_not_read_into_memory(tmp_path: Path) -> None:
    jar = _jar(tmp_path)
    with jar.open("r+b") as file, zipfile.ZipFile(file, "a") as archive:
        archive.writestr("more", bytes(150_000_000))
    found = installer.inspect(jar)
    folder = _folder(tmp_path)
    tracemalloc.start()
    try:
        assert sum(map(len, installer.context(found, folder))) > found.size > 150_000_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_jar_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    found = installer.inspect(_jar(tmp_path))
    folder = _folder(tmp_path)
    for change in (lambda content: content[:-1], lambda content: content[:5000] + b"x" + content[5001:]):
        whole = found.path.read_bytes()
        found.path.write_bytes(change(whole))
        with pytest.raises(ConfigError):
            list(installer.context(found, folder))
        found.path.write_bytes(whole)
