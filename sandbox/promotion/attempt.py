"""An attempt at a promotion, before anything is done: what was asked, and every reason to refuse it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from merge import fingerprint, profile
from merge.errors import ConfigError, PromotionRefused
from merge.fingerprint import Fingerprint
from merge.language import counted, text
from sandbox import words
from sandbox.options import PEC, options_of
from sandbox.promotion import candidate, files, freeze, manifest, marks, refusals, rights
from sandbox.promotion.probing import probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from merge.profile import Profile
    from sandbox.console import Reporter
    from sandbox.promotion.freeze import Frozen
    from sandbox.promotion.journal import Mode
    from sandbox.promotion.manifest import Manifest
    from sandbox.promotion.production import Connection, Production
    from sandbox.runs import Run


@dataclass(frozen=True)
class Asked:
    """What the operator asks for.

    :param confirm: the name of the production database, typed; "" to be asked.
    :param attachments: production's directory of files outside the database.
    :param pec: addresses at which PEC must not answer while this goes on, and at which it is waited for afterwards.
    :param tools: folder with PostgreSQL's programs of production's version.
    :param disk_free: bytes that are free on the production server, where that cannot be seen from here.
    :param wait: minutes to wait for PEC afterwards, to measure the outage; 0 not to.
    """

    dsn: str
    confirm: str = ""
    dry_run: bool = False
    mode: Mode = "restore"
    attachments: Path | None = None
    pec: tuple[tuple[str, int], ...] = ()
    tools: Path | None = None
    disk_free: int | None = None
    jobs: int = 2
    wait: float = 0.0


@dataclass
class Attempt:
    """One attempt at a promotion: what it is about, and what forbids it. `seconds` and `facts` are for the journal."""

    run: Run
    asked: Asked
    reporter: Reporter
    production: Production
    outside: Connection
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def profile(self) -> Profile:
        """What is known of the application, as the run knew it."""
        options = options_of(self.run)
        return profile.load(options.profile, options.overrides)

    @cached_property
    def manifest(self) -> Manifest:
        """What was signed."""
        return manifest.load(self.run)

    @cached_property
    def frozen(self) -> Frozen:
        """The candidate that was signed."""
        return freeze.load(self.run)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step: shown, timed, and noted in the run's log."""
        self.run.events.add(f"promotion.{name}", "begin")
        start = time.monotonic()
        with self.reporter.step(title):
            yield
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.run.events.add(f"promotion.{name}", "end", seconds=self.seconds[name])

    # Whether

    def reasons(self) -> list[str]:
        """What forbids it and is quickly known."""
        asked, production = self.asked, self.production
        title = text(pt="Conferir se a promoção pode ser feita", en="Check whether the promotion may be made")
        with self.step("check", title):
            reasons = [*freeze.not_promotable(self.run), *manifest.verify(self.run), *self.window()]
            if asked.mode == "repeat" and options_of(self.run).engine == PEC:
                reasons.append(
                    text(
                        pt="--mode repeat não serve para o engine pec: uma pessoa teria de unificar de novo",
                        en="--mode repeat does not work with engine pec: a person would have to unify again",
                    )
                )
            if asked.mode == "repeat" and not production.is_superuser:
                reasons.append(
                    text(
                        pt="--mode repeat precisa de um superusuário na produção",
                        en="--mode repeat needs a superuser in production",
                    )
                )
            with production.connect() as conn:
                if self.run.has("frozen"):
                    reasons += refusals.of_server(production, self.frozen.major)
                    found = refusals.rooms(
                        conn, production, self.run, self.frozen.database_bytes, asked.disk_free,
                        2 if asked.mode == "repeat" else 1,
                    )  # fmt: skip
                    self._tell_room(found)
                    reasons += refusals.of_disk(found)
                owner = candidate.main_owner(conn)
                expected = self.run.load("run").get("versions", {}).get("central")
                reasons += refusals.of_version(conn, self.profile, owner, expected)
            reasons += [*rights.missing_rights(production), *rights.obstacles(production), *self.inside(owner)]
            reasons += files.check(self.run, asked.attachments, self.reporter.progress, asked.jobs)
        return list(dict.fromkeys(reasons))

    def window(self) -> list[str]:
        """That this is not the maintenance window that was signed."""
        if not self.run.has("manifest"):
            return []
        try:
            problem = self.manifest.window.problem()
        except (PromotionRefused, ConfigError):  # which is told by those who verify it
            return []
        return [problem] if problem else []

    def inside(self, owner: str) -> list[str]:
        """Who is in production that must not be; others are told of, since the swap ends their sessions."""
        found = rights.sessions(self.production)
        reasons = list(refusals.of_sessions(found, owner, [probe(*address) for address in self.asked.pec]))
        for session in found if not reasons else ():
            self.reporter.note(text(pt=f"será encerrada na troca: {session}", en=f"the swap will end {session}"))
        return reasons

    def _tell_room(self, found: Sequence[refusals.Room]) -> None:
        for room in found:
            free = "?" if room.free is None else words.size(room.free)
            self.reporter.note(
                text(
                    pt=f"{room.place}: são precisos {words.size(room.needed)}; livres {free}",
                    en=f"{room.place}: {words.size(room.needed)} needed; {free} free",
                )
            )
        took = self.run.done().get("central.restore", 0.0)
        if took:  # the backup once more, the candidate once, and reading both a few times
            self.reporter.note(
                text(
                    pt=f"Estimativa: {words.duration(4 * took)} de preparo; a troca em si leva menos de 2 segundos.",
                    en=f"Estimate: {words.duration(4 * took)} to prepare; the swap itself takes less than 2 seconds.",
                )
            )

    def written(self, found: Fingerprint, verdict: marks.Verdict | None) -> list[str]:
        """That production is not what the central's backup was, and how that is known."""
        if not self.run.has("central-fingerprint"):
            if not self.run.load("run")["asked"].get("final"):
                return []  # which is told already
            return [text(pt="o conteúdo do central não foi guardado", en="the central's content was not kept")]
        expected = Fingerprint.from_dict(self.run.load("central-fingerprint"))
        unlike = fingerprint.differences(expected, found, sequences=False, objects=False, restored=True)
        self.facts["unwritten"] = {"rows": found.rows, "tables_unlike": len(unlike), "marks": verdict and verdict.how}
        if verdict is not None and verdict.other:
            other = text(
                pt="este não é o banco do qual se tirou o backup do central",
                en="this is not the database that the central's backup was taken of",
            )
            return [f"{other} ({'; '.join(verdict.how)})"]
        if not unlike:
            return []
        head = text(
            pt=f"a produção foi alterada desde o backup do central: {counted(len(unlike), 'tabela', 'tabelas')} "
            "com outro conteúdo",
            en=f"production was written since the central's backup: {counted(len(unlike), 'table', 'tables')} "
            "with other content",
        )
        by_content = text(
            pt="comparada linha por linha, pois o backup não traz marcas",
            en="compared row by row, as the backup holds no marks",
        )
        how = "; ".join(verdict.how) if verdict is not None else by_content
        return [f"{head} ({how})", *(str(one) for one in unlike[:10])]

    def verdict(self) -> marks.Verdict | None:
        """What the marks of the snapshot tell; None if PEC took the backup."""
        if not self.run.has("snapshot"):
            return None
        before = marks.Marks.from_dict(self.run.load("snapshot")["marks"])
        with self.production.connect() as conn:
            return marks.compare(before, marks.take(conn))
