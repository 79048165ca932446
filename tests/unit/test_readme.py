"""The lines of the README that begin everything, as a user pastes them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = "import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(sys.argv[1])"


def _lines(name: str) -> list[str]:
    """The commands that make a virtual environment."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if "venv" in block]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", ["README.md", "README.pt-BR.md"])
@pytest.mark.parametrize("old", [True, False])
def test_an_old_python_is_told_first(tmp_path: Path, shell: str, name: str, old: bool) -> None:
    """And nothing is made with it; one that is new enough goes on."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    check = f'-c "{OLD}" "$2"' if old else '"$@"'
    python.write_text(f'#!/bin/sh\ncase "$1" in -c) exec "{sys.executable}" {check};; esac\necho "made $*"\nexit 9\n')
    python.chmod(0o755)
    lines = _lines(name)
    assert len(lines) == 2
    for line in lines:
        done = subprocess.run(
            [shell, "-c", line],
            cwd=tmp_path,
            env={"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (1 if old else 9)
        assert ("Python 3.11" in done.stderr) == old
        assert done.stdout == ("" if old else "made -m venv .venv\n")
