"""The manifest: what goes to production, in one file that two people sign, and that can be checked without this tool.

``manifest.json`` is canonical JSON (`canonical`); ``manifest.<role>.sig`` the 64 bytes of an Ed25519 signature of its
bytes, ``manifest.<role>.json`` whose it says it is; ``manifest.sha256`` the list of files for ``sha256sum -c``, whose
own hash is in the manifest. `sandbox.promotion.signing` makes them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature

from merge.errors import ConfigError, PromotionRefused
from merge.language import text
from sandbox import carry
from sandbox.promotion import freeze, keys
from sandbox.promotion.manifest_content import LIST, added_files, content, file_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sandbox.runs import Run

SCHEMA_VERSION = 1
FILE = "manifest.json"


@dataclass(frozen=True)
class Window:
    """The maintenance window in which the result may go to production; both ends have an offset."""

    begin: datetime
    end: datetime

    @classmethod
    def parse(cls, begin: str, end: str) -> Window:
        """Read two times in ISO 8601 with offset, e.g. ``2026-11-28T20:00-03:00``.

        :raises ConfigError: one is none, lacks its offset, or the end is not after the begin.
        """
        try:
            window = cls(datetime.fromisoformat(begin), datetime.fromisoformat(end))
        except ValueError:
            window = None
        if window is None or window.begin.tzinfo is None or window.end.tzinfo is None or window.end <= window.begin:
            raise ConfigError(
                text(
                    pt="A janela de manutenção precisa de começo e fim, com data, hora e fuso.",
                    en="The maintenance window needs a begin and an end, with date, time and offset.",
                ),
                details=[begin or "—", end or "—"],
                next_step="--begin 2026-11-28T20:00-03:00 --end 2026-11-29T06:00-03:00",
            )
        return window

    def problem(self, now: datetime | None = None) -> str | None:
        """Why it is not the time; None if it is."""
        now = now or datetime.now(UTC)
        if now < self.begin:
            return text(
                pt=f"a janela só começa em {self.begin.isoformat()}",
                en=f"the window begins at {self.begin.isoformat()}",
            )
        if now >= self.end:
            return text(
                pt=f"a janela terminou em {self.end.isoformat()}", en=f"the window ended at {self.end.isoformat()}"
            )
        return None

    def to_dict(self) -> dict[str, str]:
        """As the manifest has it."""
        return {"from": self.begin.isoformat(), "until": self.end.isoformat()}


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read; `digest` is the SHA-256 of its bytes."""

    content: Mapping[str, Any]
    raw: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def window(self) -> Window:
        """When it may go to production.

        :raises ConfigError: the manifest has no window.
        """
        kept = self.content.get("window") or {}
        return Window.parse(str(kept.get("from", "")), str(kept.get("until", "")))

    @property
    def candidate(self) -> Mapping[str, Any]:
        """What goes there, as `sandbox.promotion.freeze.Frozen` names it."""
        found: Mapping[str, Any] = self.content["candidate"]
        return found


@dataclass(frozen=True)
class Signature:
    """Whose signature a file says it is; `time` is what that person's clock said, and is not signed."""

    role: keys.Role
    name: str
    fingerprint: str
    time: str


def canonical(said: Mapping[str, Any]) -> bytes:
    """The one way in which a manifest is written."""
    return (json.dumps(said, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def load(run: Run) -> Manifest:
    """Read the manifest of a run, without checking anything of it but its form.

    :raises PromotionRefused: there is none, or it is not one of this version and this run.
    """
    path = run.folder / FILE
    if not path.exists():
        raise PromotionRefused(
            text(pt=f"A execução {run.id} não foi assinada.", en=f"The run {run.id} was not signed."),
            evidence=run.folder,
            next_step=sign_anew(run),
        )
    raw = path.read_bytes()
    try:
        said = json.loads(raw)
        is_ours = said["schema_version"] == SCHEMA_VERSION and said["run"] == run.id and canonical(said) == raw
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise PromotionRefused(
            text(
                pt="O manifesto foi alterado, ou não é desta execução nem desta versão.",
                en="The manifest was changed, or is not of this run and this version.",
            ),
            evidence=path,
            next_step=sign_anew(run),
        )
    return Manifest(said, raw)


def sign_anew(run: Run) -> str:
    """How a new manifest is made."""
    return f"invoke sign --run {run.id} --begin … --end …"


# Checking


def verify(run: Run, known: Path | None = None, *, deep: bool = True) -> tuple[str, ...]:
    """What does not match, in words; nothing if the run may go to production as it was signed.

    Everything that the manifest says is computed anew from the run's folder. The window is not looked at
    (`Window.problem`).

    :param known: folder of keys; `sandbox.promotion.keys.folder` by default.
    :param deep: also read the whole dump, and all attachments that are added.
    """
    try:
        found = load(run)
    except PromotionRefused as ex:
        return (ex.what,)
    return (*changes(run, found, deep=deep), *signature_problems(run, found, known or keys.folder()))


def changes(run: Run, found: Manifest, *, deep: bool = True) -> tuple[str, ...]:
    """What is not any more as the manifest says, whoever signed it."""
    try:
        return tuple(dict.fromkeys(_changes(run, found, deep)))
    except (OSError, KeyError, TypeError, ValueError) as ex:
        broken = text(
            pt="a pasta da execução está incompleta ou danificada", en="the run's folder lacks something, or is damaged"
        )
        return (f"{broken} ({type(ex).__name__})",)


def _changes(run: Run, found: Manifest, deep: bool) -> Iterator[str]:
    said = found.content
    yield from freeze.not_promotable(run)
    try:
        now = content(run)
    except FileNotFoundError as ex:
        yield text(pt=f"falta um arquivo: {_name(ex)}", en=f"a file is missing: {_name(ex)}")
        return
    yield from _unlike(said, now)
    if missing := sorted(_NOT_COMPUTED - set(said)):
        names = ", ".join(missing)
        yield text(pt=f"o manifesto não diz: {names}", en=f"the manifest does not say: {names}")
        return
    yield from _window_problem(found)
    yield from _unlike_dump(run, said["candidate"], deep)
    if freeze.load_fingerprint(run).digest != said["candidate"]["fingerprint"]:
        yield text(pt="a impressão digital do candidato é outra", en="the candidate's fingerprint is another")
    listed = file_list(said)
    if (run.folder / LIST).read_bytes() != listed or hashlib.sha256(listed).hexdigest() != said["files"]["sha256"]:
        yield text(pt=f"{LIST} não é a lista do manifesto", en=f"{LIST} is not the manifest's list")
    if said["audit"] not in run.events.heads():
        yield text(
            pt="o registro da execução não é mais o que era quando o manifesto foi feito",
            en="the log of the run is not what it was when the manifest was made",
        )
    yield from run.check_log()
    if deep:
        yield from _unlike_attachments(run)


def _unlike(said: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*now, *said} - _NOT_COMPUTED):
        if name == "evidence":
            yield from _unlike_files(said[name], now[name])
        elif name not in said or name not in now or said[name] != now[name]:
            yield text(
                pt=f"mudou o que o manifesto diz em “{name}”", en=f"what the manifest says in “{name}” has changed"
            )
    if any(proof["differences"] for proof in now["proofs"]) or not now["proofs"]:
        yield text(pt="as provas não valem", en="the proofs do not hold")


_NOT_COMPUTED = {"schema_version", "made", "tool", "window", "files", "audit"}
"""What a manifest says of itself, not of the run."""


def _name(ex: OSError) -> str:
    return str(ex.filename).replace("\\", "/").rpartition("/")[2]


def _window_problem(found: Manifest) -> Iterator[str]:
    try:
        _ = found.window
    except ConfigError:
        yield text(pt="o manifesto não diz a janela de manutenção", en="the manifest has no maintenance window")


def _unlike_files(said: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*said, *now}):
        if name not in now:
            yield text(pt=f"falta {name}", en=f"{name} is missing")
        elif name not in said:
            yield text(
                pt=f"{name} é novo, e o manifesto não o conhece", en=f"{name} is new, and the manifest does not know it"
            )
        elif said[name] != now[name]:
            yield text(pt=f"{name} mudou desde o manifesto", en=f"{name} has changed since the manifest")


def _unlike_dump(run: Run, said: Mapping[str, Any], deep: bool) -> Iterator[str]:
    path = run.folder / freeze.DUMP
    if said["dump"] != freeze.DUMP or not path.is_file():
        yield text(pt="falta o dump do candidato", en="the candidate's dump is missing")
    elif not freeze.is_noted(run, said["sha256"], said["fingerprint"]):
        yield text(
            pt="o dump do candidato não é o que o registro da execução diz que foi congelado",
            en="the candidate's dump is not what the log of the run says was frozen",
        )
    elif path.stat().st_size != said["bytes"] or (deep and freeze.sha256(path) != said["sha256"]):
        yield text(pt="o dump do candidato é outro", en="the candidate's dump is another")


def _unlike_attachments(run: Run) -> Iterator[str]:
    folder = run.folder / carry.FOLDER / "files"
    wrong = 0
    for name, digest in added_files(run).items():
        path = folder / name
        wrong += path.is_symlink() or not path.is_file() or freeze.sha256(path) != digest
    if wrong:
        yield text(pt=f"anexos que faltam ou mudaram: {wrong}", en=f"attachments missing or changed: {wrong}")


# Signatures


def read_signature(run: Run, role: keys.Role) -> Signature | None:
    """Whose signature there is in a role; None if there is none that can be read."""
    if not ((run.folder / f"manifest.{role}.sig").exists() and run.has(f"manifest.{role}")):
        return None
    try:
        found = Signature(**run.load(f"manifest.{role}"))
    except (ValueError, TypeError):
        return None
    return found if all(isinstance(value, str) for value in asdict(found).values()) else None


def signature_problems(run: Run, found: Manifest, known: Path) -> tuple[str, ...]:
    """What lacks until two different people have signed these bytes."""
    problems = []
    signatures = {role: read_signature(run, role) for role in keys.ROLES}
    for role, signature in signatures.items():
        if signature is None:
            who = keys.role_name(role)
            problems.append(text(pt=f"falta a assinatura: {who}", en=f"a signature is missing: {who}"))
        elif signature.role != role:
            problems.append(
                text(pt=f"a assinatura é de outro papel: {role}", en=f"the signature is of another role: {role}")
            )
        elif problem := signature_problem(run, found, signature, known):
            problems.append(problem)
    given = [signature for signature in signatures.values() if signature is not None]
    if len({signature.fingerprint for signature in given}) < len(given):
        problems.append(text(pt="as duas assinaturas são da mesma chave", en="both signatures are of the same key"))
    if len({_person(signature.name) for signature in given}) < len(given):
        problems.append(text(pt="as duas assinaturas são da mesma pessoa", en="both signatures are of the same person"))
    return tuple(problems)


def _person(name: str) -> str:
    try:
        return keys.person(name)
    except ConfigError:
        return name


def signature_problem(run: Run, found: Manifest, signature: Signature, known: Path) -> str | None:
    """Why a signature is not one of these bytes by who it says; None if it is."""
    who = f"{signature.name} ({keys.role_name(signature.role)})"
    signer = next((s for s in keys.signers(known) if s.fingerprint == signature.fingerprint), None)
    if signer is None:
        return text(pt=f"a chave de {who} não é conhecida aqui", en=f"the key of {who} is not known here")
    if (signer.name, signer.role) != (signature.name, signature.role):
        return text(
            pt=f"a assinatura de {who} é da chave de {signer.shown}",
            en=f"the signature of {who} is by the key of {signer.shown}",
        )
    try:
        public = keys.public_key(signer, known)
        public.verify((run.folder / f"manifest.{signature.role}.sig").read_bytes(), found.raw)
    except ConfigError as ex:
        return ex.what
    except InvalidSignature:
        return text(
            pt=f"a assinatura de {who} não é deste manifesto", en=f"the signature of {who} is not of this manifest"
        )
    return None
