"""A stand-in for PEC's installer, compiled in Docker from `tests/docker/standin`."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import images

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCES = Path(__file__).parent / "docker" / "standin"
SAMPLE_VERSION = "5.5.28"
"""The version of PEC that the synthetic backups have."""


@pytest.fixture(scope="session")
def make_standin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make an installer JAR of a version of PEC, named as the official ones."""
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    compiled = _compile()

    def make(version: str) -> Path:
        jar = tmp_path_factory.mktemp("standin") / f"eSUS-AB-PEC-{version}-Linux64.jar"
        with zipfile.ZipFile(io.BytesIO(compiled)) as old, zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename == "META-INF/MANIFEST.MF":
                    content = content.replace(b"-Version: 0", f"-Version: {version}".encode())
                new.writestr(zipfile.ZipInfo(entry.filename), content)  # without its time: the same JAR each time
        return jar

    return make


@pytest.fixture(scope="session")
def standin(make_standin: Callable[[str], Path]) -> Path:
    """The installer JAR of the version that the synthetic backups have."""
    return make_standin(SAMPLE_VERSION)


def _compile() -> bytes:
    """The JAR; compiled once for as long as the sources are what they are."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    image = f"homolog-test-standin:{digest.hexdigest()[:12]}"
    tried: list[str] = []
    if not images._is_here(image) and not images._build(image, str(_SOURCES), tried):
        pytest.skip(f"the stand-in for PEC's installer was not built: {tried}")
    with images.daemon() as client:
        container = client.containers.create(image, ["true"])
        try:
            chunks, _ = container.get_archive("/standin.jar")
            packed = b"".join(chunks)
        finally:
            container.remove(v=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        part = archive.extractfile("standin.jar")
        assert part is not None
        return part.read()
