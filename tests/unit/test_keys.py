"""Keys: who may sign, each person once, and nothing secret where others see it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merge.errors import ConfigError
from sandbox.promotion import keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDS = "correct horse battery"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMOLOG_KEYS", str(tmp_path / "keys"))
    return keys.folder()


def test_a_key_is_made_for_a_person(folder: Path) -> None:
    signer = keys.make("  João  da Silva ", "operator", WORDS, folder)
    assert (signer.name, signer.slug) == ("João da Silva", "joao-da-silva")
    assert keys.signers(folder) == (signer,)
    private, public = folder / "joao-da-silva.key.pem", folder / "joao-da-silva.pub.pem"
    assert private.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    found = keys.load_private(private, WORDS)
    assert keys.fingerprint(found.public_key()) == keys.fingerprint(keys.load_public(public)) == signer.fingerprint
    assert keys.public_key(signer, folder) == found.public_key()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_openssl_reads_the_keys_and_gives_the_fingerprint(folder: Path) -> None:
    signer = keys.make("Ana", "approver", WORDS, folder)
    read = ["openssl", "pkey", "-in", str(folder / "ana.key.pem"), "-passin", "env:WORDS", "-pubout", "-outform", "DER"]
    der = subprocess.run(read, capture_output=True, check=True, env={**os.environ, "WORDS": WORDS}).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True).stdout
    assert digest.decode().split()[0] == signer.fingerprint


def test_the_folder_is_where_settings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOMOLOG_KEYS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys.folder() == tmp_path / "pec-homolog" / "keys"


@pytest.mark.parametrize("name", ["joao DA silva", "JOÃO  DA\tSILVA", "João da-Silva.", "Joa\u0303o da\u200b Silva"])
def test_the_same_person_twice_is_refused(folder: Path, name: str, tmp_path: Path) -> None:
    keys.make("João da Silva", "operator", WORDS, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="já é conhecida"):
        keys.make(name, "approver", WORDS, folder)
    other = keys.make("Someone else", "approver", WORDS, _another(tmp_path))
    with pytest.raises(ConfigError, match="já é conhecida"):
        keys.trust(tmp_path / "other" / f"{other.slug}.pub.pem", name, "approver", folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["Jоão", "Αna", "", " - 123", "\u200b"])
def test_names_that_only_look_like_others_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        keys.make(name, "operator", WORDS, folder)


def test_a_key_of_another_machine_is_trusted_once(folder: Path, tmp_path: Path) -> None:
    other = _another(tmp_path)
    made = keys.make("Beatriz", "approver", WORDS, other)
    file = other / "beatriz.pub.pem"
    trusted = keys.trust(file, "Beatriz", "approver", folder)
    assert trusted == made
    assert keys.public_key(trusted, folder) == keys.load_public(file)
    for name in ("Beatriz", "Carla"):
        with pytest.raises(ConfigError, match="chave"):
            keys.trust(file, name, "operator", folder)
    assert keys.signers(folder) == (trusted,)


def _another(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir(exist_ok=True)
    return tmp_path / "other"


def _no_key(path: Path) -> None:
    path.write_text("nothing")


def _elliptic(path: Path) -> None:
    public = generate_private_key(SECP256R1()).public_key()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(public.public_bytes(*form))


@pytest.mark.parametrize("write", [_no_key, _elliptic, lambda path: None])
def test_what_is_no_key_is_not_trusted(folder: Path, tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="Ed25519"):
        keys.trust(tmp_path / "key.pem", "Ana", "operator", folder)
    assert keys.signers(folder) == ()


def test_an_unencrypted_private_key_is_refused(tmp_path: Path) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
    with pytest.raises(ConfigError):
        keys.load_private(tmp_path / "key.pem", WORDS)


def test_a_wrong_passphrase_is_refused_and_not_repeated(folder: Path) -> None:
    keys.make("Ana", "operator", WORDS, folder)
    for wrong in ("", "another one that is long"):
        with pytest.raises(ConfigError) as refused:
            keys.load_private(folder / "ana.key.pem", wrong)
        assert not wrong or wrong not in f"{refused.value.what}{refused.value.details}{refused.value.next_step}"
    with pytest.raises(ConfigError, match="12"):
        keys.make("Bia", "operator", "short", folder)


def test_a_swapped_public_key_is_found_out(folder: Path) -> None:
    ana, bia = (keys.make(name, "operator", WORDS, folder) for name in ("Ana", "Bia"))
    shutil.copy(folder / "bia.pub.pem", folder / "ana.pub.pem")
    with pytest.raises(ConfigError, match="outra"):
        keys.public_key(ana, folder)
    keys.public_key(bia, folder)


def test_a_private_key_is_never_overwritten(folder: Path) -> None:
    keys.make("Ana", "operator", WORDS, folder)
    private = (folder / "ana.key.pem").read_bytes()
    (folder / "signers.json").unlink()
    with pytest.raises(ConfigError, match="sobrescrito"):
        keys.make("Ana", "operator", WORDS, folder)
    assert (folder / "ana.key.pem").read_bytes() == private
    keys.trust(folder / "ana.pub.pem", "Ana", "operator", folder)  # how it is made known again


@pytest.mark.parametrize("content", ["{", "[1]", '[{"name": "x", "role": "boss", "fingerprint": "y"}]', "{}x"])
def test_a_damaged_list_is_refused(folder: Path, content: str) -> None:
    (folder / "signers.json").write_text(content)
    with pytest.raises(ConfigError, match="danificada"):
        keys.signers(folder)


def test_the_passphrase_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, WORDS)
    assert keys.ask_passphrase(new=True) == WORDS
    monkeypatch.setenv(keys.PASSPHRASE, "short")
    assert keys.ask_passphrase() == "short"
    with pytest.raises(ConfigError, match="12"):
        keys.ask_passphrase(new=True)


def test_an_identity_of_the_archive_is_made_once(folder: Path) -> None:
    file, recipient = keys.make_identity(folder)
    assert recipient.startswith("age1")
    assert str(keys.open_identity(file).to_public()) == recipient
    assert keys.identity_file(folder) == file
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()  # kept apart
    with pytest.raises(ConfigError):
        keys.make_identity(folder)
    with pytest.raises(ConfigError, match="identidade"):
        keys.identity_file(folder)


def test_an_identity_may_need_a_passphrase(folder: Path) -> None:
    file, recipient = keys.make_identity(folder, WORDS)
    assert keys.needs_passphrase(file)
    assert "AGE-SECRET-KEY" not in file.read_text()
    assert str(keys.open_identity(file, WORDS).to_public()) == recipient
    with pytest.raises(ConfigError, match="senha"):
        keys.open_identity(file, "another one that is long")


def test_no_identity_is_refused(tmp_path: Path) -> None:
    for content in (
        b"",
        b"AGE-SECRET-KEY-1XYZ",
        b"\xff\xfe",
        str(pyrage.x25519.Identity.generate().to_public()).encode(),
    ):
        (tmp_path / "identity").write_bytes(content)
        with pytest.raises(ConfigError):
            keys.open_identity(tmp_path / "identity")
