"""What is left of runs whose folders were deleted by hand; nothing of any other run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import binaries, images, leftovers
from sandbox.embedded import EmbeddedServer, end_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root keeps data outside of the run's folder"
)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for servers' data; and Docker is not asked."""
    folder = Path(tempfile.mkdtemp(prefix="homolog-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    monkeypatch.setenv("HOMOLOG_DATA", str(folder))
    monkeypatch.setattr(images, "answers", lambda: False)
    yield folder
    for place in folder.iterdir():
        end_processes(place / "data", binaries.unprivileged())
    shutil.rmtree(folder)


def _start(run: Path) -> EmbeddedServer:
    run.mkdir(parents=True, mode=0o700)
    server = EmbeddedServer(run / "server", memory=2**28)
    server.start()
    assert not server._home.is_relative_to(run)
    return server


def test_only_what_is_of_a_run_that_is_gone(data: Path, tmp_path: Path) -> None:
    """The server of one whose folder was deleted still runs: it is ended. That of another place goes on."""
    tmp_path.chmod(0o700)
    gone, elsewhere = _start(tmp_path / "runs" / "gone"), _start(tmp_path / "other-runs" / "elsewhere")
    home, pids = gone._home, gone._processes()
    try:
        (data / "pginstall-0123456789ab").mkdir()
        (data / "something").mkdir()
        (data / "file").touch()
        (data / "link").symlink_to(tmp_path)
        assert leftovers.find([]) == ()
        shutil.rmtree(tmp_path / "runs")
        assert leftovers.find(["gone"]) == ()
        (found,) = leftovers.find(["elsewhere"])
        assert (found.kind, found.name, found.run_id) == ("folders", str(home), "gone")
        assert found.folder == str(tmp_path / "runs" / "gone")
        assert pids
        leftovers.remove([found])
        leftovers.remove([found])
        assert not home.exists()
        assert not [pid for pid in pids if Path(f"/proc/{pid}/cwd").exists()]
        assert leftovers.find([]) == ()
        kept = {"pginstall-0123456789ab", "something", "file", "link", elsewhere._home.name}
        assert kept <= {path.name for path in data.iterdir()}
        with elsewhere.connect("postgres") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    finally:
        elsewhere.destroy()
    assert not elsewhere._home.exists()


@pytest.mark.parametrize("content", ["", "relative/path", "\0", "x" * 5000])
def test_a_place_that_does_not_say_whose_it_is(data: Path, content: str) -> None:
    (data / "run-12345678").mkdir()
    (data / "run-12345678" / "run-folder").write_text(content)
    assert leftovers.find([]) == ()


def test_a_place_whose_file_is_none(data: Path, tmp_path: Path) -> None:
    """The server's user may put anything there."""
    (tmp_path / "target").write_text("/nowhere/run")
    for name, make in {"a": os.mkfifo, "b": lambda path: path.symlink_to(tmp_path / "target")}.items():
        (data / name).mkdir()
        make(data / name / "run-folder")
    assert leftovers.find([]) == ()


def test_no_folder_for_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMOLOG_DATA", str(data / "nothing"))
    assert leftovers.find([]) == ()
    assert not binaries.data_folder().exists()
