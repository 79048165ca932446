"""The attachments' part of a rehearsal: what rows point to was delivered, is decided, carried along and proved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge.attachments import claims, pointers
from merge.language import text
from merge.proof import check_proof
from sandbox import attachments_proof, file_checks
from sandbox.attachments import CENTRAL, Attachments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from merge.crosswalk import Crosswalk
    from merge.plan import Plan
    from sandbox.host_checks import HostCheck
    from sandbox.rehearsal import Connection, Rehearsal, Source

FOLDER = "attachments"
"""Where they are, below the run's folder."""


class Carriage:
    """Carries the attachments of one rehearsal; without any delivered, it only says what is missing."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        self.run = rehearsal.run
        self.store = Attachments(self.run.folder / FOLDER)
        self.declared = rehearsal.profile.attachment

    def survey(self, plan: Plan, number: int, schema: str, name: str) -> list[HostCheck]:
        """Whether the files that the rows of a base point to were delivered; nothing where no row ever does."""
        if not self.declared:
            return []
        with self.rehearsal.connect_merge() as conn:
            found = self.store.survey(number, pointers(conn, plan, self.declared, schema))
        return [file_checks.attachments(found, name)] if found.rows or found.files else []

    def decide(self, plan: Plan, source: Source, conn: Connection, crosswalk: Crosswalk) -> None:
        """Decide what becomes of a source's files, where its merge can still be stopped."""
        if self.declared:
            self.store.decide(source.number, claims(conn, plan, self.declared, crosswalk))

    def carry(self, number: int, name: str) -> None:
        """Bring the files of the central, or of a merged source, to their places."""
        step = f"source.{number}.attachments" if number else "central.attachments"
        if not self.declared or self.store.inventory(number) is None or self.run.is_done(step):
            return
        title = text(pt=f"Trazer os anexos de {name}", en=f"Bring the attachments of {name}")
        with self.rehearsal.step(step, title):
            ledger = self.store.carry(number, self.rehearsal.jobs, self.rehearsal.reporter.progress)
            self.run.save(f"attachments-{number}", ledger)

    def prove(self, plan: Plan, sources: Sequence[int]) -> None:
        """Prove that every file is where the merged rows point, and no other.

        :raises ProofFailed: if that is not so.
        """
        delivered = [n for n in (CENTRAL, *sources) if self.store.inventory(n) is not None]
        if not self.declared or not delivered:
            return
        with self.rehearsal.step("attachments.proof", text(pt="Provar os anexos", en="Prove the attachments")):
            ledgers = {n: self.run.load(f"attachments-{n}")["files_by_fate"] if n in delivered else {} for n in sources}
            proof = attachments_proof.prove(
                self.rehearsal.connect, plan, self.declared, self.store.folder, ledgers, self.rehearsal.jobs,
                self.rehearsal.reporter.progress,
            )  # fmt: skip
            self.run.save("attachments-proof", proof.to_dict())
            check_proof(proof, self.run.folder)
