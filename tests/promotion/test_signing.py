"""What was proved is what is frozen, what is frozen is what is signed, and what is signed is what is there."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge import fingerprint
from merge.attachments import Claim, Fate
from merge.errors import ConfigError, PromotionRefused
from sandbox import archive, carry, homolog
from sandbox.attachments import Attachments
from sandbox.console import Reporter
from sandbox.promotion import freeze, keys, manifest, manifest_content, signing
from sandbox.promotion.manifest import Window
from sandbox.rehearsal import CENTRAL, DATABASE
from sandbox.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.fix_promotion import Shop

WORDS = "correct horse battery"
NOW = datetime.now(UTC)
WINDOW = Window(NOW.replace(microsecond=0) - timedelta(hours=1), NOW.replace(microsecond=0) + timedelta(hours=5))


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the tests that need no shop: another worker may have it."""
    monkeypatch.setenv("HOMOLOG_LANG", "en")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of two people."""
    folder = tmp_path_factory.mktemp("keys")
    keys.make("Ana Operadora", "operator", WORDS, folder)
    keys.make("Beto Aprovador", "approver", WORDS, folder)
    return folder


def sign(run: Run, role: str, known: Path, window: Window | None = None) -> signing.Signed:
    name = {"operator": "ana-operadora", "approver": "beto-aprovador"}[role]
    return signing.sign(run, known / f"{name}.key.pem", role, WORDS, window, Reporter(as_json=True), known)


@pytest.fixture(scope="module")
def signed(shop: Shop, known: Path) -> Run:
    """A run that both have signed."""
    first = sign(shop.run, "operator", known, WINDOW)
    assert (first.is_new, first.is_complete) == (True, False)
    second = sign(shop.run, "approver", known)
    assert (second.is_new, second.is_complete) == (False, True)
    assert second.manifest == first.manifest
    return shop.run


@pytest.fixture(scope="module")
def kept(signed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it was signed: all but its server, and the log of all runs beside it."""
    folder = tmp_path_factory.mktemp("kept")
    _keep(signed.folder, folder / signed.id)
    server = homolog.open_server(signed)
    server.copy_database(DATABASE, KEPT)
    server.stop()
    return folder / signed.id


KEPT = "candidate_as_signed"


def _keep(run: Path, copy: Path) -> None:
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("server", "lock"), dirs_exist_ok=True)
    shutil.copy(run.parent / "audit.jsonl", copy.parent)


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Run:
    """The evidence and the dump of a signed run, to be tampered with."""
    _keep(kept, tmp_path / "runs" / kept.name)
    return Run(tmp_path / "runs" / kept.name)


@contextmanager
def candidate(run: Run) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The merged database of a run, for whoever gets at it."""
    server = homolog.open_server(run)
    try:
        with server.connect(DATABASE, CENTRAL) as conn:
            yield conn
    finally:
        server.stop()


# What is signed


def test_the_manifest_says_what_was_found(signed: Run, known: Path) -> None:
    """And can be read by people."""
    assert manifest.verify(signed, known) == ()
    found = manifest.load(signed)
    said = found.content
    result = signed.load("result")
    assert said["run"] == signed.id
    assert said["profile"]["files"].keys() == {"shop.toml", "files.checks.toml"}
    assert [one["sha256"] for one in said["inputs"]] == [one["sha256"] for one in result["inputs"]]
    assert [one["file"] for one in said["inputs"]] == ["central.backup", "north.backup"]
    assert {proof["of"]: proof["differences"] for proof in said["proofs"]} == {"north": 0, "central": 0}
    assert said["candidate"]["rows"] == freeze.load_fingerprint(signed).rows > 1000
    assert said["attachments"]["added"]["files"] == 0
    assert found.window == WINDOW
    assert said["audit"] in signed.events.heads()
    assert said["tool"]["pec-homolog"]
    assert result["candidate"]["sha256"] == said["candidate"]["sha256"]
    assert (signed.folder / result["candidate"]["dump"]).stat().st_size == said["candidate"]["bytes"]
    assert manifest.canonical(said) == (signed.folder / "manifest.json").read_bytes()
    for path in (*signed.folder.glob("manifest.*"), signed.folder / freeze.DUMP):
        assert path.stat().st_mode & 0o777 == 0o600
    acts = [event["event"] for event in signed.events.read() if event.get("audited")]
    assert acts == ["created", "ended", "frozen", "signed", "signed"]
    assert signed.check_log() == ()


def test_the_dump_holds_the_merged_database_and_nothing_of_ours(signed: Run) -> None:
    """Restored elsewhere it has the same fingerprint."""
    path = signed.folder / freeze.DUMP
    assert {entry.namespace for entry in archive.read(path)} <= {"", "public"}
    server = homolog.open_server(signed)
    try:
        server.drop_database("again")
        server.create_database("again", CENTRAL)
        server.tool(
            "pg_restore", "--exit-on-error", "--no-owner", "--jobs=2", "--dbname=again", server.path(path),
            database="again", role=CENTRAL,
        ).run()  # fmt: skip
        found = fingerprint.take(lambda: server.connect("again", CENTRAL))
        server.drop_database("again")
    finally:
        server.stop()
    assert fingerprint.differences(freeze.load_fingerprint(signed), found, restored=True) == ()


# Without this tool

DOCS = Path(__file__).parents[2] / "docs"


def _commands(name: str) -> list[str]:
    """The blocks of commands of a document."""
    return re.findall(r"```bash\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def _by_hand(run: Run, known: Path) -> list[str]:
    """Run what the document says in the folder of a run; return the blocks that do not succeed."""
    for role, name in (("operator", "ana-operadora"), ("approver", "beto-aprovador")):
        shutil.copy(known / f"{name}.pub.pem", run.folder / f"{role}.pub.pem")
    blocks = _commands("verify-a-manifest.md")
    assert len(blocks) == 4
    bash = ["bash", "-euo", "pipefail", "-c"]
    done = {block: subprocess.run([*bash, block], cwd=run.folder, capture_output=True, text=True, check=False)
            for block in blocks}  # fmt: skip
    said = "".join(one.stdout for one in done.values())
    for signer in keys.signers(known):
        assert signer.fingerprint in said
    failed = [block for block, one in done.items() if one.returncode]
    if not failed:
        assert said.count("Signature Verified Successfully") == 2
        assert f'"audit": "{manifest.load(run).content["audit"]}"' in said
    return failed


def test_the_documented_commands_verify_a_manifest(copy: Run, known: Path) -> None:
    assert _by_hand(copy, known) == []
    assert _commands("verificar-um-manifesto.md") == _commands("verify-a-manifest.md")


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("forged manifest", 1), ("no signature", 1), ("swapped dump", 2), ("forged with what it is about", 1),
        ("report", 2), ("list", 2), ("removed log", 3),
    ],
)  # fmt: skip
def test_the_documented_commands_find_what_was_changed(copy: Run, known: Path, name: str, block: int) -> None:
    TAMPERED[name][0](copy)
    assert _commands("verify-a-manifest.md")[block] in _by_hand(copy, known)


# What is not the same any more


def _rewrite(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))


def _swap_dump(run: Run) -> None:
    """One byte other, as long as before."""
    path = run.folder / freeze.DUMP
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _forge(run: Run) -> None:
    """A manifest in the right form that says something else."""
    path = run.folder / "manifest.json"
    said = json.loads(path.read_text())
    said["accepted"] = [{"id": "X-01", "where": "run", "reason": "nobody said so"}]
    path.write_bytes(manifest.canonical(said))


def _forge_window(run: Run) -> None:
    path = run.folder / "manifest.json"
    said = json.loads(path.read_text())
    said["window"]["until"] = (WINDOW.end + timedelta(days=9)).isoformat()
    path.write_bytes(manifest.canonical(said))


def _forge_all(run: Run) -> None:
    """The dump, and all that says of it what it is, but for the signatures."""
    _swap_dump(run)
    digest = freeze.sha256(run.folder / freeze.DUMP)
    _rewrite(run.folder / "frozen.json", lambda frozen: frozen.update(sha256=digest))
    _rewrite(run.folder / "result.json", lambda result: result["candidate"].update(sha256=digest))
    said = {**json.loads((run.folder / "manifest.json").read_text()), **manifest.content(run)}
    listed = manifest.file_list(said)
    said["files"]["sha256"] = sha256(listed).hexdigest()
    (run.folder / "manifest.sha256").write_bytes(listed)
    (run.folder / "manifest.json").write_bytes(manifest.canonical(said))


def _blank(run: Run) -> None:
    path = run.folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")


def _no_window(run: Run) -> None:
    path = run.folder / "manifest.json"
    said = json.loads(path.read_text())
    del said["window"]
    path.write_bytes(manifest.canonical(said))


def _truncate_log(run: Run) -> None:
    lines = run.events.path.read_bytes().splitlines(keepends=True)
    run.events.path.write_bytes(b"".join(lines[:-1]))


def _edit_log(run: Run) -> None:
    run.events.path.write_bytes(run.events.path.read_bytes().replace(b'"central.restore"', b'"central.rest0re"', 1))


def _other_name(run: Run) -> None:
    _rewrite(run.folder / "manifest.operator.json", lambda info: info.update(name="Carlos"))


TAMPERED: dict[str, tuple[Callable[[Run], None], str]] = {
    "swapped dump": (_swap_dump, "the candidate's dump is another"),
    "no dump": (lambda run: (run.folder / freeze.DUMP).unlink(), "the candidate's dump is missing"),
    "forged manifest": (_forge, "not of this manifest"),
    "forged with what it is about": (_forge_all, "not of this manifest"),
    "forged window": (_forge_window, "not of this manifest"),
    "another form": (_blank, "was changed"),
    "no window": (_no_window, "does not say: window"),
    "no manifest": (lambda run: (run.folder / "manifest.json").unlink(), "was not signed"),
    "plan": (lambda run: _rewrite(run.folder / "plan.json", lambda plan: plan.clear()), "plan.json has changed"),
    "proof": (
        lambda run: _rewrite(run.folder / "source-1-proof.json", lambda proof: proof.update(seconds=1)),
        "source-1-proof.json has changed",
    ),
    "another proof": (
        lambda run: (run.folder / "content-proof.json").write_text("{}"),
        "content-proof.json is new",
    ),
    "report": (lambda run: (run.folder / "report.html").write_text("all is well"), "report.html has changed"),
    "missing evidence": (lambda run: (run.folder / "ledger.json").unlink(), "ledger.json is missing"),
    "missing result": (lambda run: (run.folder / "result.json").unlink(), "the run has not ended"),
    "differences": (
        lambda run: _rewrite(run.folder / "result.json", lambda r: r["central_proof"].update(differences=3)),
        "the proofs do not hold",
    ),
    "rehearsal": (
        lambda run: _rewrite(run.folder / "result.json", lambda result: result.update(final=False)),
        "it is a rehearsal",
    ),
    "fingerprint": (
        lambda run: _rewrite(run.folder / "candidate-fingerprint.json", lambda f: f.update(large_objects=9)),
        "the candidate's fingerprint is another",
    ),
    "central's fingerprint": (
        lambda run: _rewrite(run.folder / "central-fingerprint.json", lambda f: f.update(large_objects=9)),
        "central-fingerprint.json has changed",
    ),
    "another snapshot": (
        lambda run: (run.folder / "snapshot.json").write_text("{}"),
        "what the manifest says in “snapshot” has changed",
    ),
    "list": (lambda run: (run.folder / "manifest.sha256").write_text(""), "not the manifest's list"),
    "truncated log": (_truncate_log, "the act “signed” is missing"),
    "edited log": (_edit_log, "what comes before it was changed"),
    "removed log": (lambda run: run.events.path.unlink(), "the log of the run is not what it was"),
    "removed log of all runs": (
        lambda run: (run.folder.parent / "audit.jsonl").unlink(),
        "audit.jsonl: the act “frozen” of this run is missing",
    ),
    "missing signature": (
        lambda run: (run.folder / "manifest.approver.sig").unlink(),
        "a signature is missing: approver",
    ),
    "no signature": (
        lambda run: (run.folder / "manifest.approver.sig").write_bytes(bytes(64)),
        "the signature of Beto Aprovador (approver) is not of this manifest",
    ),
    "short signature": (lambda run: (run.folder / "manifest.approver.sig").write_bytes(b""), "is not of this manifest"),
    "another's name": (_other_name, "is by the key of Ana Operadora"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_changed_is_told(copy: Run, known: Path, name: str) -> None:
    assert manifest.verify(copy, known) == ()
    tamper, said = TAMPERED[name]
    tamper(copy)
    found = manifest.verify(copy, known)
    assert any(said in problem for problem in found), found


def test_a_quick_check_leaves_the_dump_alone(copy: Run, known: Path) -> None:
    _swap_dump(copy)
    assert manifest.verify(copy, known, deep=False) == ()
    with (copy.folder / freeze.DUMP).open("ab") as file:
        file.write(b"x")
    assert manifest.verify(copy, known, deep=False) == ("the candidate's dump is another",)


def test_a_dump_that_was_swapped_before_it_was_signed_is_found_out(copy: Run, known: Path) -> None:
    """With all that says of it what it is: the log of the run knows what was frozen."""
    assert freeze.is_frozen(copy)
    _forge_all(copy)
    assert not freeze.is_frozen(copy)
    assert any("says was frozen" in problem for problem in manifest.verify(copy, known))


@pytest.mark.parametrize("name", ["swapped dump", "plan", "forged manifest", "edited log"])
def test_the_second_signs_only_what_holds(copy: Run, known: Path, name: str) -> None:
    for path in copy.folder.glob("manifest.approver.*"):
        path.unlink()
    TAMPERED[name][0](copy)
    if name == "forged manifest":  # in itself it holds: it is the first signature that does not
        (copy.folder / "manifest.operator.sig").write_bytes(bytes(64))
    with pytest.raises(PromotionRefused) as refused:
        sign(copy, "approver", known)
    assert refused.value.details
    assert not (copy.folder / "manifest.approver.sig").exists()


NAME = "MARIA DA SILVA.pdf"


def test_attachments_are_signed_and_not_named(copy: Run, known: Path, tmp_path: Path) -> None:
    """Those that the source brings, as they are where the merged rows point to."""
    delivered = {
        "central": {"1/a": b"one", "2/b": b"two"},
        "north": {f"1/{NAME}": b"three", "2/b": b"two", "9/c": b"4"},
    }
    store = Attachments(copy.folder / carry.FOLDER)
    for number, (base, files) in enumerate(delivered.items()):
        for name, content in files.items():
            path = tmp_path / base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        store.take(number, base, tmp_path / base)
    rows = [((f"1/{NAME}", f"7/{NAME}"), Fate.INSERTED), (("2/b", "2/b"), Fate.MATCHED)]
    store.decide(1, [Claim("doc", str(n), fate, (paths,)) for n, (paths, fate) in enumerate(rows)])
    for number in range(2):
        store.carry(number)
    assert any("attachments" in problem for problem in manifest.verify(copy, known))

    later = Window(WINDOW.begin, WINDOW.end + timedelta(hours=1))
    sign(copy, "operator", known, later)
    assert sign(copy, "approver", known).is_complete
    assert manifest.verify(copy, known) == ()
    said = manifest.load(copy).content["attachments"]
    assert manifest_content.added_files(copy) == {f"7/{NAME}": sha256(b"three").hexdigest()}
    line = f"{sha256(b'three').hexdigest()}  7/{NAME}\n"
    assert said["added"] == {"files": 1, "sha256": sha256(line.encode()).hexdigest()}
    assert said["merged"]["files"] == 3
    assert [(one["of"], one["files"], one["bytes"]) for one in said["delivered"]] == [
        ("central", 2, 6),
        ("north", 3, 9),
    ]
    assert "MARIA" not in (copy.folder / "manifest.json").read_text() + copy.events.path.read_text()

    path = copy.folder / "attachments" / "files" / "7" / NAME
    wrong = ("attachments missing or changed: 1",)
    path.write_bytes(b"four!")
    assert manifest.verify(copy, known) == wrong
    assert manifest.verify(copy, known, deep=False) == ()
    path.unlink()
    assert manifest.verify(copy, known) == wrong
    path.symlink_to(tmp_path / "north" / "1" / NAME)
    assert manifest.verify(copy, known) == wrong


# Who signs


def test_signers_must_be_known_here(copy: Run, known: Path, tmp_path: Path) -> None:
    """On another machine only one of them is."""
    keys.trust(known / "ana-operadora.pub.pem", "Ana Operadora", "operator", tmp_path)
    assert manifest.verify(copy, tmp_path) == ("the key of Beto Aprovador (approver) is not known here",)
    stranger = keys.make("Carla", "operator", WORDS, tmp_path)
    with pytest.raises(ConfigError, match="nobody who is known"):
        signing.sign(
            copy, tmp_path / f"{stranger.slug}.key.pem", "operator", WORDS, None, Reporter(as_json=True), known
        )


def test_a_key_signs_in_its_own_role(copy: Run, known: Path) -> None:
    with pytest.raises(ConfigError, match="that of Ana Operadora"):
        signing.sign(copy, known / "ana-operadora.key.pem", "approver", WORDS, None, Reporter(as_json=True), known)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_nobody_signs_twice(copy: Run, known: Path, window: Window | None) -> None:
    with pytest.raises(PromotionRefused, match="signed already by Ana Operadora"):
        sign(copy, "operator", known, window)


def test_one_person_with_two_keys_or_roles_is_found_out(copy: Run, known: Path, tmp_path: Path) -> None:
    """Also where the list of who may sign was edited by hand."""
    folder = tmp_path / "keys"
    shutil.copytree(known, folder)
    _rewrite(folder / "signers.json", lambda signers: signers[1].update(name="ANA operadóra"))
    shutil.copy(folder / "beto-aprovador.pub.pem", folder / "ana-operadora.pub.pem")
    _rewrite(copy.folder / "manifest.approver.json", lambda info: info.update(name="ANA operadóra"))
    assert "both signatures are of the same person" in manifest.verify(copy, folder)
    shutil.copytree(known, folder, dirs_exist_ok=True)
    first = keys.signers(folder)[0]
    _rewrite(
        folder / "signers.json",
        lambda signers: signers.append({"name": "Carla", "role": "approver", "fingerprint": first.fingerprint}),
    )
    shutil.copy(folder / "ana-operadora.pub.pem", folder / "carla.pub.pem")
    shutil.copy(copy.folder / "manifest.operator.sig", copy.folder / "manifest.approver.sig")
    _rewrite(
        copy.folder / "manifest.approver.json", lambda info: info.update(name="Carla", fingerprint=first.fingerprint)
    )
    assert "both signatures are of the same key" in manifest.verify(copy, folder)


def test_no_secret_and_no_name_is_in_the_log(signed: Run, known: Path) -> None:
    said = signed.events.path.read_text() + (signed.folder.parent / "audit.jsonl").read_text()
    assert WORDS not in said
    assert "PRIVATE KEY" not in said
    assert "Ana Operadora" not in said
    assert keys.signers(known)[0].fingerprint in said


# When


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-11-28T20:00", "2026-11-29T06:00"),
        ("2026-11-28T20:00-03:00", "2026-11-28T20:00-03:00"),
        ("2026-11-28T20:00-03:00", "2026-11-28T22:30Z"),
        ("", "2026-11-29T06:00-03:00"),
        ("saturday", "sunday"),
    ],
)
def test_a_window_is_two_times_with_offsets(begin: str, end: str) -> None:
    with pytest.raises(ConfigError):
        Window.parse(begin, end)


def test_a_window_says_whether_it_is_time() -> None:
    window = Window.parse("2026-11-28T20:00-03:00", "2026-11-29T06:00-03:00")
    assert (
        window.problem(datetime(2026, 11, 28, 22, 59, tzinfo=UTC)) == "the window begins at 2026-11-28T20:00:00-03:00"
    )
    assert window.problem(datetime(2026, 11, 28, 23, 0, tzinfo=UTC)) is None
    assert window.problem(datetime(2026, 11, 29, 8, 59, tzinfo=UTC)) is None
    assert window.problem(datetime(2026, 11, 29, 9, 0, tzinfo=UTC)) == "the window ended at 2026-11-29T06:00:00-03:00"


def test_a_window_that_is_over_is_not_signed(copy: Run, known: Path) -> None:
    for path in copy.folder.glob("manifest.*"):
        path.unlink()
    with pytest.raises(PromotionRefused, match="ended"):
        sign(copy, "operator", known, Window(NOW - timedelta(hours=5), NOW - timedelta(hours=1)))
    with pytest.raises(PromotionRefused, match="was not signed") as refused:
        sign(copy, "operator", known)  # the first has to say when
    assert "--begin" in str(refused.value.next_step)


def test_another_window_is_another_manifest(copy: Run, known: Path) -> None:
    """What is frozen is good still; the old manifest is kept, and its signatures are not of the new one."""
    before = (copy.folder / "manifest.json").read_bytes()
    later = Window(WINDOW.begin, WINDOW.end + timedelta(hours=1))
    changed = sign(copy, "approver", known, later)
    assert (changed.is_new, changed.is_complete) == (True, False)
    assert manifest.load(copy).window == later
    (kept,) = (copy.folder / "manifests").iterdir()
    assert (kept / "manifest.json").read_bytes() == before
    assert {path.name for path in kept.iterdir()} == {
        "manifest.json", "manifest.sha256", "manifest.operator.json", "manifest.operator.sig",
        "manifest.approver.json", "manifest.approver.sig",
    }  # fmt: skip
    assert manifest.verify(copy, known) == ("a signature is missing: operator",)
    shutil.copy(kept / "manifest.operator.sig", copy.folder)
    shutil.copy(kept / "manifest.operator.json", copy.folder)
    assert manifest.verify(copy, known) == ("the signature of Ana Operadora (operator) is not of this manifest",)
    assert sign(copy, "operator", known).is_complete
    assert manifest.verify(copy, known) == ()


# What may be signed


def test_only_a_final_run_that_is_validated_is_frozen(copy: Run) -> None:
    for change, reason in (
        ({"final": False}, "it is a rehearsal, not the final run"),
        ({"status": "blocked"}, "it is not validated: blocked"),
    ):
        kept = (copy.folder / "result.json").read_text()
        _rewrite(copy.folder / "result.json", lambda result, change=change: result.update(change))  # type: ignore[misc]
        with pytest.raises(PromotionRefused) as refused:
            freeze.freeze(copy, Reporter(as_json=True))
        assert reason in refused.value.details
        (copy.folder / "result.json").write_text(kept)
    copy.note(destroyed=True)
    with pytest.raises(PromotionRefused):
        freeze.freeze(copy, Reporter(as_json=True))
    assert copy.has("frozen")


ANY = "catalogue_product"


def _write(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    done = conn.execute(f"UPDATE {ANY} SET is_public = NOT is_public WHERE id = (SELECT min(id) FROM {ANY})")
    assert done.rowcount == 1


@pytest.fixture
def writable(signed: Run, kept: Path) -> Iterator[Run]:
    """The run itself; at the end it is again as it was signed."""
    yield signed
    server = homolog.open_server(signed)
    server.drop_database(DATABASE)
    server.copy_database(KEPT, DATABASE)
    server.stop()
    for path in signed.folder.glob("*.*"):
        path.unlink()
    _keep(kept, signed.folder)


def test_a_stale_proof_is_not_signed(writable: Run, known: Path) -> None:
    """Something wrote to the merged database after it was proved."""
    with candidate(writable) as conn:
        _write(conn)
    later = Window(WINDOW.begin, WINDOW.end + timedelta(hours=2))
    (writable.folder / freeze.DUMP).unlink()  # so that it is frozen anew
    with pytest.raises(PromotionRefused, match="not what was proved") as refused:
        sign(writable, "operator", known, later)
    assert refused.value.details
    assert writable.load("result")["status"] == "different"
    assert not freeze.is_frozen(writable)
    assert manifest.load(writable).window == WINDOW  # which does not hold any more
    assert any("not validated" in problem for problem in manifest.verify(writable, known))


def test_a_proof_made_again_after_signing_is_told(writable: Run, known: Path) -> None:
    homolog.prove(writable, Reporter(as_json=True))
    found = manifest.verify(writable, known)
    assert "source-1-proof.json has changed since the manifest" in found
    with pytest.raises(PromotionRefused):
        sign(writable, "operator", known)
    assert sign(writable, "operator", known, WINDOW).is_new
    assert sign(writable, "approver", known).is_complete
    assert manifest.verify(writable, known) == ()


def test_what_changes_while_it_is_proved_is_not_frozen(writable: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another session, after the proof has looked."""
    prove = homolog.failed_proofs

    def and_then(rehearsal: Any, method: str) -> Any:
        failed = prove(rehearsal, method)
        with rehearsal.server.connect(DATABASE, CENTRAL) as conn:
            _write(conn)
        return failed

    monkeypatch.setattr(homolog, "failed_proofs", and_then)
    with pytest.raises(PromotionRefused, match="changed while it was proved") as refused:
        freeze.freeze(writable, Reporter(as_json=True))
    assert any(ANY in detail for detail in refused.value.details)
    assert not writable.has("frozen")


def test_schemas_that_nobody_sees_are_refused(writable: Run) -> None:
    with candidate(writable) as conn:
        conn.execute("CREATE SCHEMA homologacao")
        conn.execute("CREATE SCHEMA src_7")
    with pytest.raises(PromotionRefused, match="called like") as refused:
        freeze.freeze(writable, Reporter(as_json=True))
    assert refused.value.details == ("homologacao", "src_7")


_FREEZE = """
import sys
from pathlib import Path
from sandbox.console import Reporter
from sandbox.promotion import freeze
from sandbox.runs import Run
run = Run(Path(sys.argv[1]))
run.lock()
print("begun", flush=True)
freeze.freeze(run, Reporter(as_json=True))
print("frozen", flush=True)
"""


@pytest.mark.slow
def test_freezing_can_be_killed_at_any_moment(writable: Run, known: Path) -> None:
    """And is done again; nothing half made passes for whole."""
    chosen = random.Random(7)
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _FREEZE, str(writable.folder)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(chosen.uniform(0.0, 3.5) if attempt else 0.02)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read()
        process.stdout.close()
        process.wait()
        assert freeze.is_frozen(writable) or not said
        if freeze.is_frozen(writable):
            archive.read(writable.folder / freeze.DUMP)
    frozen = freeze.freeze(writable, Reporter(as_json=True))
    assert freeze.is_frozen(writable)
    assert freeze.load(writable) == frozen
    assert writable.check_log() == ()
    assert list(homolog.server_of(writable).scratch.glob("*.backup")) == []
