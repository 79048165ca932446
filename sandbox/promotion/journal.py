"""What a promotion has done, written before and after each step that changes production; ``promotion.json``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.runs import Run

FILE = "promotion"

State = Literal["preparing", "promoted", "rolled_back"]
Mode = Literal["restore", "repeat"]
MODES: tuple[Mode, ...] = ("restore", "repeat")


@dataclass(frozen=True)
class Rollback:
    """The way back, once it was gone.

    :param kept: name under which the promoted database is kept.
    :param written: by table, rows that were written between promotion and rollback; `dump` is the file with them.
    :param login_wait: seconds during which a login had to wait.
    """

    at: str
    by: str
    kept: str
    oid: int
    written: Mapping[str, int]
    dump: str | None
    login_wait: float | None


@dataclass(frozen=True)
class Journal:
    """One promotion of one run. Which database is which is told by OID, as names move.

    :param state: ``preparing`` until the swap is committed.
    :param system: identifier of the server's data; `address` is for people.
    :param database: production's name; `live_oid` the database that had it before.
    :param kept: the name under which that one is kept after the swap.
    :param candidate: name of the new database until the swap.
    :param began: and other times: ISO 8601, UTC. `frozen_at` is when production was last known to be in use.
    :param login_wait: seconds during which a login had to wait; `ended` sessions were ended.
    :param outage: seconds from `frozen_at` until PEC answered again; None if nobody waited for that.
    :param seconds: by step.
    :param facts: what each step found out, for the record: counts and names of tables only.
    :param accepted: who accepted the promotion, and when.
    """

    state: State
    mode: Mode
    run_id: str
    by: str
    system: str
    address: str
    database: str
    live_oid: int
    kept: str
    candidate: str
    began: str
    candidate_oid: int | None = None
    safety: str | None = None
    safety_sha256: str | None = None
    promoted_at: str | None = None
    login_wait: float | None = None
    ended: int = 0
    frozen_at: str | None = None
    outage: float | None = None
    attachments: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    rollback: Rollback | None = None

    def save(self, run: Run) -> Journal:
        """Write it, and return it."""
        run.save(FILE, self)
        return self

    def noted(self, **facts: Any) -> Journal:
        """The same with more facts."""
        return replace(self, facts={**self.facts, **facts})

    @classmethod
    def of(cls, run: Run) -> Journal | None:
        """The journal of a run; None if it was never to be promoted."""
        return cls.load(run, FILE) if run.has(FILE) else None

    @classmethod
    def load(cls, run: Run, name: str) -> Journal:
        """Read a journal, also one that was put aside."""
        kept: dict[str, Any] = run.load(name)
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in kept.items() if name in known}
        if values.get("rollback"):
            values["rollback"] = Rollback(**values["rollback"])
        return cls(**values)


def put_aside(run: Run) -> int:
    """Keep the journal of a promotion that was rolled back under a number of its own; return how many there are."""
    done = len(list(run.folder.glob(f"{FILE}-[0-9]*.json")))
    if run.has(FILE):
        done += 1
        (run.folder / f"{FILE}.json").rename(run.folder / f"{FILE}-{done}.json")
    return done
