"""The keys of people who sign, who they are, and the identity that opens the archive.

A folder holds them: ``HOMOLOG_KEYS``, or ``pec-homolog/keys`` where the system keeps settings. Of each known signer it
has the public key (``<name>.pub.pem``) and a line in ``signers.json``; of who made a key here, also the private one
(``<name>.key.pem``: Ed25519, PKCS8, encrypted with a passphrase). Who can write to this folder decides who is known.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import sys
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeGuard, get_args

import pyrage
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from merge.errors import ConfigError
from merge.language import text
from sandbox.lock import exclusive

Role = Literal["operator", "approver"]
ROLES: tuple[Role, ...] = get_args(Role)

PASSPHRASE = "HOMOLOG_KEY_PASSPHRASE"  # noqa: S105 (its name)
"""The environment's variable with a passphrase, where nobody is at the terminal."""
LEAST_PASSPHRASE = 12
"""Characters that a passphrase must have."""

_SIGNERS = "signers.json"
_IDENTITIES = ("archive-identity.txt", "archive-identity.age")
"""Files with the identity of the archive: as it is, or encrypted with a passphrase."""
_RECIPIENT = "archive-recipient.txt"
_SECRET = re.compile(r"AGE-SECRET-KEY-1[A-Z0-9]+")


@dataclass(frozen=True)
class Signer:
    """A person whose signature is known here; `fingerprint` is the SHA-256 of the public key in DER."""

    name: str
    role: Role
    fingerprint: str

    @property
    def slug(self) -> str:
        """The name as files are called."""
        return person(self.name).replace(" ", "-")

    @property
    def shown(self) -> str:
        """Who it is, for people."""
        return f"{self.name} ({role_name(self.role)}, {self.fingerprint[:16]}…)"


def role_name(role: str) -> str:
    """A role in the user's language."""
    return {
        "operator": text(pt="quem opera", en="operator"),
        "approver": text(pt="quem aprova", en="approver"),
    }.get(role, role)


def folder() -> Path:
    """Where keys are kept, made 0700 if it is missing."""
    if said := os.environ.get("HOMOLOG_KEYS"):
        path = Path(said).resolve()
    else:
        default = Path.home() / ("AppData/Roaming" if os.name == "nt" else ".config")
        base = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME") or default
        path = Path(base) / "pec-homolog" / "keys"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def person(name: str) -> str:
    """The name without what may differ when the same person writes it again: case, accents, spaces, punctuation.

    :raises ConfigError: it has no letter, or letters that only look like ours.
    """
    plain = [c for c in unicodedata.normalize("NFKD", name).casefold() if not unicodedata.combining(c)]
    letters = [c for c in plain if c.isalpha()]
    if not letters or not all(unicodedata.name(c, "").startswith("LATIN ") for c in letters):
        raise ConfigError(
            text(
                pt="O nome de quem assina precisa de letras, e do alfabeto latino.",
                en="The name of who signs needs letters, of the Latin alphabet.",
            ),
            next_step='--name "Maria da Silva"',
        )
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


# Passphrases


def ask_passphrase(*, new: bool = False) -> str:
    """The passphrase of a key, from the environment or the terminal; a new one is asked for twice.

    :raises ConfigError: there is nobody to ask, or a new one is too short or typed differently.
    """
    given = os.environ.get(PASSPHRASE)
    if given is None:
        if not (sys.stdin and sys.stdin.isatty()):
            raise ConfigError(
                text(
                    pt="A senha da chave só pode ser pedida num terminal.",
                    en="The key's passphrase can be asked for at a terminal only.",
                ),
                next_step=text(pt=f"Use um terminal, ou a variável {PASSPHRASE}.",
                               en=f"Use a terminal, or the variable {PASSPHRASE}."),
            )  # fmt: skip
        given = getpass.getpass(text(pt="Senha da chave: ", en="Passphrase of the key: "))
        if new and getpass.getpass(text(pt="A mesma senha: ", en="The same passphrase: ")) != given:
            raise ConfigError(text(pt="As duas senhas não são iguais.", en="The two passphrases differ."))
    if new:
        _check_length(given)
    return given


def _check_length(passphrase: str) -> None:
    if len(passphrase) < LEAST_PASSPHRASE:
        raise ConfigError(
            text(
                pt=f"A senha precisa de pelo menos {LEAST_PASSPHRASE} caracteres.",
                en=f"The passphrase needs at least {LEAST_PASSPHRASE} characters.",
            )
        )


# Signers


def signers(keys: Path) -> tuple[Signer, ...]:
    """Who is known in a folder of keys.

    :raises ConfigError: its list cannot be read.
    """
    path = keys / _SIGNERS
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        found = tuple(Signer(str(one["name"]), one["role"], str(one["fingerprint"])) for one in kept)
    except (ValueError, KeyError, TypeError):
        found = None
    if found is None or not all(signer.role in ROLES for signer in found):
        raise ConfigError(
            text(pt="A lista de quem pode assinar está danificada.", en="The list of who may sign is damaged."),
            evidence=path,
        )
    return found


def make(name: str, role: str, passphrase: str, keys: Path) -> Signer:
    """Make the key of a person, who is known here from then on; nothing is ever overwritten.

    :raises ConfigError: the person or the role will not do, or the passphrase is too short.
    """
    _check_length(passphrase)
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    signer = Signer(_spaced(name), _role(role), fingerprint(public))
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    with exclusive(keys / "lock"):
        _refuse_twice(signer, keys)
        _create(keys / f"{signer.slug}.key.pem", pem)
        _register(signer, public, keys)
    return signer


def trust(file: Path, name: str, role: str, keys: Path) -> Signer:
    """Make the public key of a person known here that was made on another machine.

    :param file: PEM, as `make` or ``openssl pkey -pubout`` writes it.
    :raises ConfigError: it is no public Ed25519 key, or the key or the person is known already.
    """
    public = load_public(file)
    signer = Signer(_spaced(name), _role(role), fingerprint(public))
    with exclusive(keys / "lock"):
        _refuse_twice(signer, keys)
        _register(signer, public, keys)
    return signer


def fingerprint(public: Ed25519PublicKey) -> str:
    """The SHA-256 of a public key in DER, in hexadecimal."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def public_key(signer: Signer, keys: Path) -> Ed25519PublicKey:
    """The public key of a known person.

    :raises ConfigError: its file is gone, or holds another key.
    """
    path = keys / f"{signer.slug}.pub.pem"
    public = load_public(path)
    if fingerprint(public) != signer.fingerprint:
        raise ConfigError(
            text(pt=f"A chave pública de {signer.name} é outra.", en=f"The public key of {signer.name} is another."),
            evidence=path,
        )
    return public


def load_public(file: Path) -> Ed25519PublicKey:
    """Read a public key in PEM.

    :raises ConfigError: it is none, or not Ed25519.
    """
    try:
        public = serialization.load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(
            text(pt="O arquivo não traz uma chave pública Ed25519.", en="The file holds no public Ed25519 key."),
            evidence=file,
            next_step=text(pt="É o arquivo .pub.pem que invoke keys criou.", en="It is the .pub.pem of invoke keys."),
        )
    return public


def load_private(file: Path, passphrase: str) -> Ed25519PrivateKey:
    """Read a private key.

    :raises ConfigError: the passphrase is wrong, or there is no such key.
    """
    try:
        private = serialization.load_pem_private_key(file.read_bytes(), passphrase.encode())
    except OSError as ex:
        raise ConfigError(
            text(pt=f"A chave não pode ser lida: {ex.strerror}.", en=f"The key cannot be read: {ex.strerror}."),
            evidence=file,
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(
            text(
                pt="A senha está errada, ou o arquivo não é uma chave privada Ed25519 com senha.",
                en="The passphrase is wrong, or the file is no private Ed25519 key with a passphrase.",
            ),
            evidence=file,
        )
    return private


def _spaced(name: str) -> str:
    return " ".join(name.split())


def _is_role(role: str) -> TypeGuard[Role]:
    return role in ROLES


def _role(role: str) -> Role:
    if not _is_role(role):
        raise ConfigError(
            text(pt=f"Não há o papel {role!r}.", en=f"There is no role {role!r}."),
            details=[f"--role {known}: {role_name(known)}" for known in ROLES],
        )
    return role


def _refuse_twice(signer: Signer, keys: Path) -> None:
    for known in signers(keys):
        if known.fingerprint == signer.fingerprint:
            raise ConfigError(
                text(
                    pt=f"Esta chave já é conhecida como a de {known.shown}.",
                    en=f"This key is known already, as that of {known.shown}.",
                )
            )
        if person(known.name) == person(signer.name):
            raise ConfigError(
                text(
                    pt=f"{known.shown} já é conhecida: cada pessoa tem uma chave e um papel.",
                    en=f"{known.shown} is known already: a person has one key and one role.",
                ),
                evidence=keys / _SIGNERS,
            )


def _register(signer: Signer, public: Ed25519PublicKey, keys: Path) -> None:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = keys / f"{signer.slug}.pub.pem"
    if not (path.exists() and path.read_bytes() == pem):  # of `trust` that was interrupted, or of this very file
        _create(path, pem)
    listed = [asdict(known) for known in (*signers(keys), signer)]
    making = keys / f"{_SIGNERS}.new"
    making.unlink(missing_ok=True)
    _create(making, json.dumps(listed, ensure_ascii=False, indent=1).encode())
    making.replace(keys / _SIGNERS)


def _create(path: Path, content: bytes) -> None:
    """Write a file for its owner only, where none is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise ConfigError(
            text(pt="O arquivo já existe e não será sobrescrito.", en="The file exists and will not be overwritten."),
            evidence=path,
            next_step=text(
                pt="Se for a chave desta pessoa, use --trust com o .pub.pem; se não, guarde-o em outro lugar.",
                en="If it is this person's key, use --trust with the .pub.pem; if not, keep it elsewhere.",
            ),
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


# The archive


def make_identity(keys: Path, passphrase: str | None = None) -> tuple[Path, str]:
    """Make the identity that opens the archive, as ``age-keygen`` would; return its file and the public recipient.

    :param passphrase: encrypts it, as ``age -p`` would; without it, the file is all that is needed.
    :raises ConfigError: there is or was one in the folder, or the passphrase is too short.
    """
    if passphrase is not None:
        _check_length(passphrase)
    with exclusive(keys / "lock"):
        for known in (*_IDENTITIES, _RECIPIENT):
            if (keys / known).exists():
                raise ConfigError(
                    text(
                        pt="Já há uma identidade do arquivo: o que foi guardado com ela só abre com ela.",
                        en="There is an identity of the archive: what was put away with it opens with it only.",
                    ),
                    evidence=keys / known,
                    next_step=text(
                        pt="Se ela é guardada à parte, indique-a: invoke seal --identity ARQUIVO",
                        en="If it is kept apart, name it: invoke seal --identity FILE",
                    ),
                )
        secret = pyrage.x25519.Identity.generate()
        recipient = str(secret.to_public())
        content = f"# public key: {recipient}\n{secret}\n".encode()
        path = keys / _IDENTITIES[0]
        if passphrase is not None:
            content = pyrage.passphrase.encrypt(content, passphrase, armored=True)
            path = keys / _IDENTITIES[1]
        _create(path, content)
        _create(keys / _RECIPIENT, f"{recipient}\n".encode())
    return path, recipient


def identity_file(keys: Path) -> Path:
    """The file with the identity of the archive.

    :raises ConfigError: there is none in the folder.
    """
    for name in _IDENTITIES:
        if (keys / name).exists():
            return keys / name
    raise ConfigError(
        text(pt="Não há identidade do arquivo.", en="There is no identity of the archive."),
        evidence=keys,
        next_step=text(
            pt="Crie-a com invoke keys --archive, ou indique a que é guardada à parte: --identity ARQUIVO",
            en="Make it with invoke keys --archive, or name the one that is kept apart: --identity FILE",
        ),
    )


def needs_passphrase(identity: Path) -> bool:
    """Whether a file with an identity is encrypted itself."""
    with identity.open("rb") as file:
        return file.read(64).startswith((b"age-encryption.org/", b"-----BEGIN AGE"))


def open_identity(file: Path, passphrase: str = "") -> pyrage.x25519.Identity:
    """Read the identity of the archive.

    :param passphrase: if it `needs_passphrase`.
    :raises ConfigError: the passphrase is wrong, or there is none in the file.
    """
    try:
        content = file.read_bytes()
        if needs_passphrase(file):
            content = pyrage.passphrase.decrypt(content, passphrase)
        return pyrage.x25519.Identity.from_str(_SECRET.findall(content.decode())[0])
    except (OSError, ValueError, IndexError, pyrage.DecryptError, pyrage.IdentityError):
        raise ConfigError(
            text(
                pt="A identidade do arquivo não abre: a senha está errada, ou o arquivo não traz uma.",
                en="The archive's identity does not open: the passphrase is wrong, or the file holds none.",
            ),
            evidence=file,
        ) from None
