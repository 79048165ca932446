"""Two people sign the result of a run: the operator and the approver.

The first to sign, of either role, has the candidate frozen and the manifest made; the second has everything checked
before signing the same bytes. What is replaced by a new manifest stays, in ``manifests``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from merge.errors import ConfigError, PromotionRefused
from merge.language import text
from sandbox import events
from sandbox.promotion import freeze, keys
from sandbox.promotion.manifest import (
    FILE,
    SCHEMA_VERSION,
    Manifest,
    Signature,
    Window,
    canonical,
    changes,
    load,
    read_signature,
    sign_anew,
    signature_problem,
    signature_problems,
)
from sandbox.promotion.manifest_content import LIST, content, file_list

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from sandbox.console import Reporter
    from sandbox.promotion.keys import Signer
    from sandbox.runs import Run

REPLACED = "manifests"
"""Folder of manifests that were replaced, each with its signatures."""


@dataclass(frozen=True)
class Signed:
    """What came of signing: `is_new` if the manifest was made, `is_complete` if nobody else has to sign."""

    manifest: Manifest
    signer: Signer
    is_new: bool
    is_complete: bool


def sign(
    run: Run,
    key: Path,
    role: str,
    passphrase: str,
    window: Window | None,
    reporter: Reporter,
    known: Path | None = None,
) -> Signed:
    """Sign the result of a run, which the caller has locked.

    With a window, and no manifest that is about it and about the run as it is, the candidate is frozen and a new
    manifest made. Else the one that is there is signed, if nothing has changed.

    :param key: file with the private key; `role` must be that of its person.
    :param known: folder of keys; `sandbox.promotion.keys.folder` by default.
    :raises ConfigError: the key does not open, or is not known in this role.
    :raises PromotionRefused: something has changed, the window is over, or the person has signed already.
    """
    known = known or keys.folder()
    private = keys.load_private(key, passphrase)
    signer = _signer(keys.fingerprint(private.public_key()), role, known)
    if window is not None:
        _check_not_over(window)
    found = None
    if (run.folder / FILE).exists() or window is None:
        with reporter.step(text(pt="Conferir o manifesto", en="Check the manifest")):
            found = _to_sign(run, window)
    is_new = found is None
    if found is None:
        assert window is not None
        found = _make(run, window, reporter)
    else:
        _check_not_over(found.window)
        _refuse_twice(run, found, signer, known)
    _write_signature(run, found, signer, private)
    run.attest("signed", role=signer.role, fingerprint=signer.fingerprint, manifest=found.digest)
    return Signed(found, signer, is_new, not signature_problems(run, found, known))


def _signer(fingerprint: str, role: str, known: Path) -> Signer:
    for signer in keys.signers(known):
        if signer.fingerprint == fingerprint:
            if signer.role == role:
                return signer
            raise ConfigError(
                text(pt=f"Esta chave é a de {signer.shown}.", en=f"This key is that of {signer.shown}."),
                next_step=f"--role {signer.role}",
            )
    raise ConfigError(
        text(pt="Esta chave não é de ninguém que se conheça aqui.", en="This key is of nobody who is known here."),
        evidence=known,
        next_step=text(
            pt="invoke keys --trust ARQUIVO.pub.pem --name … --role …",
            en="invoke keys --trust FILE.pub.pem --name … --role …",
        ),
    )


def _check_not_over(window: Window) -> None:
    if datetime.now(UTC) >= window.end:
        raise PromotionRefused(
            text(
                pt=f"A janela de manutenção terminou em {window.end.isoformat()}.",
                en=f"The maintenance window ended at {window.end.isoformat()}.",
            ),
            next_step=text(pt="Assinem de novo, com outra janela.", en="Sign anew, with another window."),
        )


def _to_sign(run: Run, window: Window | None) -> Manifest | None:
    """The manifest that is there; None if it does not hold any more and `window` asks for a new one.

    :raises PromotionRefused: it does not hold, and nobody asks for a new one.
    """
    try:
        found = load(run)
        problems = changes(run, found)
        if window is not None and not problems and found.window != window:
            return None
    except PromotionRefused:
        if window is None:
            raise
        return None
    if problems and window is None:
        raise PromotionRefused(
            text(
                pt="O que se vai assinar não é mais o que o manifesto diz.",
                en="What is to be signed is not what the manifest says any more.",
            ),
            evidence=run.folder / FILE,
            details=problems,
            next_step=text(
                pt="Descubra quem mudou o quê. Um manifesto novo se faz com: ",
                en="Find out who changed what. A new manifest is made by: ",
            )
            + sign_anew(run),
        )
    return None if problems else found


def _refuse_twice(run: Run, found: Manifest, signer: Signer, known: Path) -> None:
    for role in keys.ROLES:
        signature = read_signature(run, role)
        if signature is None or signature_problem(run, found, signature, known):
            continue  # what is no signature of these bytes may be replaced
        same = signature.fingerprint == signer.fingerprint or keys.person(signature.name) == keys.person(signer.name)
        if same or role == signer.role:
            who = f"{signature.name} ({keys.role_name(role)})"
            raise PromotionRefused(
                text(
                    pt=f"Já foi assinado por {who}; falta outra pessoa, com o outro papel.",
                    en=f"It was signed already by {who}; another person must sign, in the other role.",
                ),
                evidence=run.folder / FILE,
            )


def _make(run: Run, window: Window, reporter: Reporter) -> Manifest:
    """Freeze the candidate, unless that was done and nothing has changed, and write a new manifest."""
    freeze.check_promotable(run)
    _refuse_broken_log(run)
    with reporter.step(text(pt="Conferir o que está congelado", en="Check what is frozen")):
        is_frozen = freeze.is_frozen(run)
    if not is_frozen:
        freeze.freeze(run, reporter)
    said = content(run)
    listed = file_list(said)
    said |= {
        "schema_version": SCHEMA_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": events.versions(),
        "window": window.to_dict(),
        "files": {"list": LIST, "sha256": hashlib.sha256(listed).hexdigest()},
        "audit": run.events.head,
    }
    _set_aside(run)
    run.write(LIST, listed)
    made = Manifest(said, canonical(said))
    run.write(FILE, made.raw)
    return made


def _refuse_broken_log(run: Run) -> None:
    if problems := run.check_log():
        raise PromotionRefused(
            text(pt="O registro da execução não está íntegro.", en="The log of the run is not whole."),
            evidence=run.events.path,
            details=problems,
            next_step=text(pt="Comece outra execução final.", en="Begin another final run."),
        )


def _set_aside(run: Run) -> None:
    """Move a manifest and its signatures to a folder of their own."""
    there = [path for path in run.folder.glob("manifest.*") if path.suffix != ".new"]
    if not there:
        return
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    folder = run.folder / REPLACED / stamp
    folder.mkdir(mode=0o700, parents=True)
    for path in sorted(there):
        path.rename(folder / path.name)
    run.events.add("manifest", "replaced", kept=f"{REPLACED}/{stamp}")


def _write_signature(run: Run, found: Manifest, signer: Signer, private: Ed25519PrivateKey) -> None:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    run.save(f"manifest.{signer.role}", Signature(signer.role, signer.name, signer.fingerprint, time))
    run.write(f"manifest.{signer.role}.sig", private.sign(found.raw))
