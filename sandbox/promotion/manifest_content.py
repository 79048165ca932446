"""What a manifest says of a run: everything in it is read from the run's folder, or computed from what is there.

Names of files outside of databases may hold names of people, so that they are in it as one hash; all else are names of
inputs, of tables, counts, hashes, and what the staff accepted and confirmed.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import carry
from sandbox.attachments import CENTRAL, Attachments
from sandbox.options import options_of
from sandbox.promotion import freeze

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.options import Options
    from sandbox.runs import Run

LIST = "manifest.sha256"
"""The files that a manifest is about, as ``sha256sum`` writes and checks them."""

_EVIDENCE = re.compile(
    r"(?:plan|ledger|proof|central-proof|content-proof|attachments-proof|attachments-\d+|result|inputs|confirmations"
    r"|checks-[\w.-]+|source-\d+-[\w-]+|frozen|snapshot|central-fingerprint|candidate-fingerprint)\.json|report\.html"
)
_OF_CANDIDATE = (
    "dump", "sha256", "bytes", "database_bytes", "major", "version", "rows", "large_objects", "fingerprint",
)  # fmt: skip


def content(run: Run) -> dict[str, Any]:
    """All that a manifest says of a run, but for when, by whom and for which window it was made.

    :raises FileNotFoundError: the run has no result, or its candidate is not frozen.
    """
    result, frozen = run.load("result"), run.load(freeze.FROZEN)
    options = options_of(run)
    answers = result["preflight"]
    return {
        "run": run.id,
        "begun": run.created,
        "engine": result["engine"],
        "scope": result["scope"],
        "final": result["final"],
        "status": result["status"],
        "server": result["server"],
        "profile": _profile(options),
        "inputs": [
            {
                "role": one["role"],
                "name": one["name"],
                "file": Path(one["path"]).name,
                "sha256": one["sha256"],
                "dumped_from": one["dumped_from"],
                "pec_version": one["pec_version"],
            }
            for one in result["inputs"]
        ],
        "attachments": _attachments(run, [one["name"] for one in result["inputs"]]),
        "proofs": _proofs(result),
        "accepted": _said(answers, "accepted"),
        "confirmed": _said(answers, "confirmed"),
        "candidate": {name: frozen[name] for name in _OF_CANDIDATE},
        "snapshot": freeze.sha256(run.folder / "snapshot.json") if run.has("snapshot") else None,
        "evidence": evidence(run),
    }


def evidence(run: Run) -> dict[str, str]:
    """SHA-256 of the files that hold what was found out, by name."""
    names = (path for path in sorted(run.folder.iterdir()) if _EVIDENCE.fullmatch(path.name))
    return {path.name: freeze.sha256(path) for path in names}


def file_list(said: Mapping[str, Any]) -> bytes:
    """The lines of `LIST` for what a manifest says."""
    files = {**said["evidence"], said["candidate"]["dump"]: said["candidate"]["sha256"]}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())).encode()


def added_files(run: Run) -> dict[str, str]:
    """SHA-256 of every file that the sources bring to the central's directory of attachments, by its path there."""
    store = Attachments(run.folder / carry.FOLDER)
    central = store.inventory(CENTRAL)
    there = central.hashes if central is not None else {}
    return {path: digest for path, digest in _merged(store).items() if path not in there}


def _merged(store: Attachments) -> dict[str, str]:
    return {file.path: file.sha256 for file in store.merged()}


def _attachments(run: Run, names: list[str]) -> dict[str, Any]:
    """What was delivered beside the databases, and what becomes of it: counts, and one hash for each list of files."""
    store = Attachments(run.folder / carry.FOLDER)
    delivered = []
    for number, name in enumerate(names):
        if (known := store.inventory(number)) is not None:
            delivered.append({"of": name, "bytes": known.size, **listed(known.hashes)})
    return {
        "delivered": delivered,
        "merged": listed(_merged(store)),
        "added": listed(added_files(run)),
    }


def listed(files: Mapping[str, str]) -> dict[str, Any]:
    """How many files there are, and the SHA-256 of their list as ``sha256sum`` writes it, sorted by path."""
    # A name may be in no encoding; it is hashed as it is.
    lines = [f"{digest}  {path}\n".encode(errors="surrogateescape") for path, digest in sorted(files.items())]
    return {"files": len(files), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}


def _profile(options: Options) -> dict[str, Any]:
    """The files with what is known about the application, and what local files say of it."""
    shipped = Path(str(resources.files("merge.profiles")))
    given = Path(options.profile)
    folder, stem = (given.parent, given.stem) if given.suffix == ".toml" else (shipped, options.profile)
    files = {path for path in folder.glob(f"{stem}.*") if path.suffix in (".toml", ".inventory")}
    checks = Path(str(resources.files("sandbox"))) / "files.checks.toml"
    return {
        "name": stem,
        "files": {path.name: freeze.sha256(path) for path in sorted({*files, checks})},
        "overrides": {path.name: freeze.sha256(path) if path.exists() else "" for path in options.overrides},
    }


def _proofs(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = [(source["name"], source["proof"]) for source in result["sources"]]
    parts += [("central", result["central_proof"]), ("attachments", result["attachments_proof"])]
    found = [
        {"of": name, "method": proof["method"], "rows": proof["rows_compared"], "differences": proof["differences"]}
        for name, proof in parts
        if proof is not None and proof["differences"] is not None
    ]
    if (proof := result["content_proof"]) is not None:
        shared = {"method": "content", "rows": proof["rows_compared"], "differences": proof["differences"]}
        found.append({"of": "merged", **shared})
    return found


def _said(answers: list[dict[str, Any]], state: str) -> list[dict[str, str]]:
    """What people said to checks, with why, or who."""
    return [
        {"id": answer["id"], "where": answer["where"], "reason": answer["reason"]}
        for answer in answers
        if answer["state"] == state
    ]
