"""The tasks with which people sign: at a terminal or without one, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from sandbox.promotion import freeze, keys, signing_tasks

if TYPE_CHECKING:
    from tests.fix_promotion import Shop

WORDS = "correct horse battery"
PEOPLE = {"operator": "Ana Operadora", "approver": "Beto Aprovador"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMOLOG_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("HOMOLOG_LANG", "en")
    monkeypatch.setenv(keys.PASSPHRASE, WORDS)
    return keys.folder()


def test_a_result_is_signed_verified_and_put_away(
    shop: Shop, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c, run = Context(), shop.run.id
    for role, name in PEOPLE.items():
        signing_tasks.keys(c, name=name, role=role)
    assert "Ana Operadora" in capsys.readouterr().out
    signing_tasks.keys(c, json=True)
    assert [one["role"] for one in json.loads(capsys.readouterr().out)] == list(PEOPLE)

    with pytest.raises(Exit) as refused:  # who signs first says when
        signing_tasks.sign(c, role="operator", run=run)
    assert refused.value.code == 7
    with pytest.raises(Exit) as refused:
        signing_tasks.verify(c, run=run)
    assert refused.value.code == 7
    begin, end = (datetime.now(UTC) + timedelta(hours=n) for n in (1, 5))
    signing_tasks.sign(c, role="operator", run=run, begin=begin.isoformat(), end=end.isoformat())
    capsys.readouterr()
    signing_tasks.sign(c, role="approver", run=run)
    said = capsys.readouterr().out
    assert "north: north.backup, sha256" in said  # what is signed is shown
    assert "0 differences" in said
    assert "Both people have signed" in said
    signing_tasks.verify(c, run=run)
    said = capsys.readouterr().out
    assert "All of it matches" in said
    assert "the window begins at" in said
    signing_tasks.verify(c, run=run, quick=True, json=True)
    assert json.loads(capsys.readouterr().out) == {"run": run, "holds": True, "problems": []}

    signing_tasks.keys(c, archive=True, encrypted=True)
    said = capsys.readouterr().out
    assert "Print it" in said
    assert "AGE-SECRET-KEY" not in said
    signing_tasks.seal(c, archive=str(tmp_path / "archive"), run=run, central=True)
    capsys.readouterr()
    signing_tasks.seal(c, archive=str(tmp_path / "archive"), check=True, json=True)
    assert [one["of"] for one in json.loads(capsys.readouterr().out)] == ["central", "north"]

    (shop.run.folder / freeze.DUMP).write_bytes(b"")
    with pytest.raises(Exit) as refused:
        signing_tasks.verify(c, run=run, json=True)
    assert refused.value.code == 7
    assert json.loads(capsys.readouterr().out)["problems"] == ["the candidate's dump is another"]
    with pytest.raises(Exit) as refused:
        signing_tasks.verify(c, run=run)
    assert refused.value.code == 7
    assert "the candidate's dump is another" in capsys.readouterr().err


def test_a_key_of_elsewhere_is_to_be_confirmed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    made = keys.make("Beto", "approver", WORDS, tmp_path / "elsewhere")
    signing_tasks.keys(Context(), trust=str(tmp_path / "elsewhere" / "beto.pub.pem"), name="Beto", role="approver")
    assert f"by voice: {made.fingerprint}" in capsys.readouterr().out
    with pytest.raises(Exit) as refused:  # the private key is elsewhere
        signing_tasks.sign(Context(), role="approver")
    assert refused.value.code == 2


_ASK = """
from sandbox.promotion import keys
print(len(keys.ask_passphrase(new=True)))
"""


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
@pytest.mark.parametrize(("second", "said"), [(WORDS, "21"), ("something else", "The two passphrases differ")])
def test_a_new_passphrase_is_typed_twice(folder: Path, second: str, said: str) -> None:
    """At a terminal, where it is not shown."""
    import pty

    environment = {name: value for name, value in os.environ.items() if name != keys.PASSPHRASE}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _ASK], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2], env=environment, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        for prompt, typed in ((b"Passphrase of the key: ", WORDS), (b"The same passphrase: ", second)):
            while prompt not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, typed.encode() + b"\n")
        assert process.stdout is not None
        told = process.stdout.read().decode()
    os.close(ours)
    assert said in told
    assert WORDS.encode() not in shown


def test_without_a_terminal_nobody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.PASSPHRASE)
    done = subprocess.run(
        [sys.executable, "-c", _ASK], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "at a terminal only" in done.stderr
