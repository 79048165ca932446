"""The tasks with which people sign a result, check it, and put the senders' backups away."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.exceptions import Exit
from invoke.tasks import task

from merge.checks import CENTRAL
from merge.errors import ConfigError, PromotionRefused
from merge.language import counted, number, text
from sandbox import audit, words
from sandbox.console import Reporter
from sandbox.promotion import after, manifest, signing
from sandbox.promotion import keys as known_keys
from sandbox.promotion import seal as sealing
from sandbox.promotion.journal import Journal
from sandbox.promotion.manifest import Window
from sandbox.runs import Run
from sandbox.tasking import RUN_HELP, exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from invoke.context import Context

    from sandbox.promotion.keys import Signer
    from sandbox.promotion.manifest import Manifest
    from sandbox.promotion.seal import Sealed

SEALED = "I-09"
"""The item of the after-list that a sealed backup of a source does."""


@task(
    help={
        "name": "whose key it is",
        "role": "operator or approver",
        "trust": "file .pub.pem with the public key of a person that was made on another machine",
        "archive": "make the identity that opens the archive of `invoke seal`",
        "encrypted": "with --archive: the identity itself needs a passphrase",
        "json": "print who is known as JSON",
    }
)
@exit_codes
def keys(
    c: Context,
    name: str = "",
    role: str = "",
    trust: str = "",
    archive: bool = False,
    encrypted: bool = False,
    json: bool = False,
) -> None:
    """Make a person's key, or make that of another machine known here; without arguments, show who is known."""
    reporter = Reporter(as_json=json)
    folder = known_keys.folder()
    if archive:
        _make_identity(folder, reporter, encrypted=encrypted)
        return
    if trust:
        made = known_keys.trust(Path(trust), name, role, folder)
        reporter.note(text(pt=f"Conhecida: {made.shown}", en=f"Known: {made.shown}"))
        reporter.warn(
            text(
                pt=f"Confirme com a pessoa, de viva voz, a impressão da chave: {made.fingerprint}",
                en=f"Confirm the key's fingerprint with the person, by voice: {made.fingerprint}",
            )
        )
    elif name or role:
        made = known_keys.make(name, role, known_keys.ask_passphrase(new=True), folder)
        reporter.note(text(pt=f"Chave de {made.shown}", en=f"Key of {made.shown}"))
        reporter.note(
            text(pt="Privada, só de quem assina: ", en="Private, the signer's own: ") + _path(folder, made, "key")
        )
        reporter.note(text(pt="Pública, para os outros: ", en="Public, for the others: ") + _path(folder, made, "pub"))
    found = known_keys.signers(folder)
    if json:
        reporter.print_json([asdict(signer) for signer in found])
        return
    for signer in found:
        reporter.note(f"{known_keys.role_name(signer.role)}: {signer.name}, {signer.fingerprint}")
    if not found:
        reporter.note(
            text(pt=f"Ninguém é conhecido em {folder}: ", en=f"Nobody is known in {folder}: ")
            + "invoke keys --name … --role operator"
        )


def _path(folder: Path, signer: Signer, kind: str) -> str:
    return str(folder / f"{signer.slug}.{kind}.pem")


def _make_identity(folder: Path, reporter: Reporter, *, encrypted: bool) -> None:
    file, recipient = known_keys.make_identity(folder, known_keys.ask_passphrase(new=True) if encrypted else None)
    reporter.note(text(pt=f"Identidade do arquivo: {file}", en=f"Identity of the archive: {file}"))
    reporter.note(text(pt=f"Destinatário público: {recipient}", en=f"Public recipient: {recipient}"))
    reporter.warn(
        text(
            pt="Sem ela nada do arquivo abre, por 20 anos. Imprima-a, guarde duas cópias em lugares diferentes, "
            "longe do arquivo cifrado, e diga a quem responde pelos prontuários onde estão.",
            en="Without it nothing in the archive opens, for 20 years. Print it, keep two copies in different "
            "places, away from what is encrypted, and tell who answers for the records where they are.",
        )
    )


@task(
    help={
        **RUN_HELP,
        "role": "operator or approver",
        "key": "file with your private key; by default the only one of this role in the folder of keys",
        "begin": "begin of the maintenance window, for the first who signs: 2026-11-28T20:00-03:00",
        "end": "its end",
    }
)
@exit_codes
def sign(c: Context, role: str, run: str = "", key: str = "", begin: str = "", end: str = "") -> None:
    """Sign a run's result: the first freezes it and says for when, the second checks it and signs the same."""
    reporter = Reporter()
    window = Window.parse(begin, end) if begin or end else None
    file = Path(key) if key else _only_key(role)
    with _locked(run) as found:
        if window is None:
            _show(reporter, manifest.load(found))
        done = signing.sign(found, file, role, known_keys.ask_passphrase(), window, reporter)
    if done.is_new:
        _show(reporter, done.manifest)
    reporter.note(text(pt=f"Assinado: {done.signer.shown}", en=f"Signed: {done.signer.shown}"))
    if done.is_complete:
        what = text(pt="As duas pessoas assinaram: ", en="Both people have signed: ")
        reporter.note(f"{what}invoke promote --run {found.id} --dry-run --production …")
    else:
        other = next(name for name in known_keys.ROLES if name != done.signer.role)
        who = known_keys.role_name(other)
        reporter.warn(
            text(
                pt=f"Falta {who}: invoke sign --run {found.id} --role {other}",
                en=f"Still to sign: {who}: invoke sign --run {found.id} --role {other}",
            )
        )


@contextmanager
def _locked(name: str) -> Iterator[Run]:
    """A run that no other process has for as long as the context lasts."""
    run = Run.open(name)
    run.lock()
    try:
        yield run
    finally:
        run.unlock()


def _only_key(role: str) -> Path:
    folder = known_keys.folder()
    there = [folder / f"{s.slug}.key.pem" for s in known_keys.signers(folder) if s.role == role]
    files = [file for file in there if file.exists()]
    if len(files) != 1:
        raise ConfigError(
            text(
                pt=f"Há {len(files)} chaves privadas deste papel: indique a sua.",
                en=f"There are {len(files)} private keys of this role: name yours.",
            ),
            details=[str(file) for file in files],
            next_step=text(pt="--key ARQUIVO.key.pem", en="--key FILE.key.pem"),
        )
    return files[0]


def _show(reporter: Reporter, found: Manifest) -> None:
    """What a person who signs must have read."""
    said, window = found.content, found.window
    reporter.note(text(pt=f"Execução {said['run']}, motor {said['engine']}, escopo {said['scope']}",
                       en=f"Run {said['run']}, engine {said['engine']}, scope {said['scope']}"))  # fmt: skip
    for one in said["inputs"]:
        reporter.note(f"{one['name']}: {one['file']}, sha256 {one['sha256']}, PEC {one['pec_version'] or '?'}")
    for proof in said["proofs"]:
        rows = counted(proof["rows"], text(pt="linha comparada", en="row compared"),
                       text(pt="linhas comparadas", en="rows compared"))  # fmt: skip
        differences = text(pt="diferenças", en="differences")
        reporter.note(f"{proof['of']}: {rows}, {proof['differences']} {differences} ({proof['method']})")
    for name, label in (
        ("accepted", text(pt="aceito", en="accepted")),
        ("confirmed", text(pt="confirmado", en="confirmed")),
    ):
        for answer in said[name]:
            reporter.note(f"{label}: {answer['id']} · {answer['where']}: {answer['reason']}")
    candidate = said["candidate"]
    reporter.note(
        text(pt="Candidato: ", en="Candidate: ")
        + f"{number(candidate['rows'])} {text(pt='linhas', en='rows')}, {words.size(candidate['bytes'])}, "
        f"PostgreSQL {candidate['version']}, sha256 {candidate['sha256']}"
    )
    if added := said["attachments"]["added"]["files"]:
        reporter.note(
            text(pt=f"Anexos que se somam: {number(added)}", en=f"Attachments that are added: {number(added)}")
        )
    reporter.note(text(pt="Janela: ", en="Window: ") + f"{window.begin.isoformat()} – {window.end.isoformat()}")
    reporter.note(f"manifest.json: sha256 {found.digest}")


@task(
    help={
        **RUN_HELP,
        "quick": "do not read the whole dump and the attachments",
        "json": "print as JSON",
    }
)
@exit_codes
def verify(c: Context, run: str = "", quick: bool = False, json: bool = False) -> None:
    """Check that a run's result is what two people signed, and say what does not match."""
    reporter = Reporter(as_json=json)
    found = Run.open(run)
    with reporter.step(text(pt="Conferir tudo o que foi assinado", en="Check all that was signed")):
        problems = manifest.verify(found, deep=not quick)
    signed = manifest.load(found) if (found.folder / manifest.FILE).exists() and not problems else None
    if json:
        reporter.print_json({"run": found.id, "holds": not problems, "problems": problems})
    if lost := audit.missing(found.folder.parent):
        reporter.warn(
            text(
                pt=f"Execuções de que só o registro geral sabe: {', '.join(lost)}",
                en=f"Runs that only the log of all runs knows: {', '.join(lost)}",
            )
        )
    if signed is not None:
        if not json:
            _show(reporter, signed)
            reporter.note(text(pt="Tudo confere.", en="All of it matches."))
        if early_or_late := signed.window.problem():
            reporter.warn(early_or_late)
        return
    if json:
        raise Exit(code=PromotionRefused.exit_code)
    raise PromotionRefused(
        text(
            pt=f"{counted(len(problems), 'coisa não confere', 'coisas não conferem')} com o que foi assinado.",
            en=f"{counted(len(problems), 'thing does', 'things do')} not match what was signed.",
        ),
        evidence=found.folder / manifest.FILE,
        details=problems,
        next_step=text(pt="Não promova. Descubra quem mudou o quê.", en="Do not promote. Find out who changed what."),
    )


@task(
    help={
        **RUN_HELP,
        "archive": "folder of the archive",
        "identity": "file with the identity that opens it; that of the folder of keys by default",
        "central": "put the central's backup away too",
        "check": "only open everything in the archive again",
        "json": "print what is there as JSON",
    }
)
@exit_codes
def seal(
    c: Context,
    archive: str,
    run: str = "",
    identity: str = "",
    central: bool = False,
    check: bool = False,
    json: bool = False,
) -> None:
    """Put the senders' backups away for the 20 years that the law asks: encrypted, listed, opened once."""
    reporter = Reporter(as_json=json)
    folder = Path(archive).resolve()
    file = Path(identity) if identity else known_keys.identity_file(known_keys.folder())
    if not file.is_file():
        raise ConfigError(text(pt="Não há este arquivo.", en="There is no such file."), evidence=file)
    passphrase = known_keys.ask_passphrase() if known_keys.needs_passphrase(file) else ""
    secret = known_keys.open_identity(file, passphrase)
    if file.resolve().is_relative_to(folder):
        reporter.warn(text(pt="A identidade está junto do que ela abre: guarde-a em outro lugar.",
                           en="The identity is beside what it opens: keep it elsewhere."))  # fmt: skip
    if check:
        if problems := sealing.check(folder, secret, reporter):
            raise ConfigError(
                text(pt="O arquivo não está inteiro.", en="The archive is not whole."),
                evidence=folder,
                details=problems,
                next_step=text(pt="Traga o que falta da segunda cópia.", en="Bring what lacks from the second copy."),
            )
        entries = sealing.catalogue(folder)
    else:
        with _locked(run) as found:
            entries = sealing.seal(found, folder, secret, reporter, central=central)
            _note_sealed(found, entries)
    if json:
        reporter.print_json([asdict(one) for one in entries])
        return
    for one in entries:
        reporter.note(f"{one.of}: {one.file}, {words.size(one.sealed_bytes)}, sha256 {one.sealed_sha256}")
    reporter.note(text(pt="Catálogo: ", en="Catalogue: ") + str(folder / sealing.READABLE))


def _note_sealed(run: Run, entries: Sequence[Sealed]) -> None:
    """Note in the after-list of a run that is in production whose backups were put away."""
    journal = Journal.of(run)
    if journal is None or journal.state != "promoted" or not after.knows(run, SEALED):
        return
    for one in entries:
        if one.what == "backup" and one.of != CENTRAL:
            after.mark(run, SEALED, source=one.of, by=one.by, evidence=f"{one.file} {one.sealed_sha256}")
