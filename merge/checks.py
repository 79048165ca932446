"""The preflight checks of an application, declared in a TOML file beside its profile, and what they answer.

A check is a query that counts what is wrong in one base, or in which a base differs from the central, or a question
that only a person can answer. Nothing of a row leaves the server: answers hold counts, dates, internal keys and the
versions and codes that both sides must share. `merge.check_run` asks, before the merge and after it.
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from merge.errors import ConfigError
from merge.language import text
from merge.profile import ColumnPattern, Evidence, Text  # noqa: TC001 (pydantic reads them at run time)

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN = "run"
CENTRAL = "central"
MERGED = "merged"


class State(StrEnum):
    """What an answer means for the run."""

    PASSED = "passed"
    WARNED = "warned"
    BLOCKED = "blocked"
    RECORDED = "recorded"
    PENDING = "pending"
    """A person has to confirm it."""
    NOT_AVAILABLE = "not_available"
    """It could not be asked here, which is not the same as passed."""


@dataclass(frozen=True)
class Answer:
    """What one check found in one place.

    :param where: ``run`` (asked once, of a person), ``central``, ``merged``, or the name of a source.
    :param found: what is wrong, counted; 0 is fine, None if nothing was counted.
    :param details: the numbers and dates that were recorded, the ``keys`` of some offenders, the values in which two
        sides differ, what is ``missing``, or the ``sqlstate`` of an error.
    """

    id: str
    where: str
    state: State
    found: int | None = None
    details: Mapping[str, int | str | None] = field(default_factory=dict)


class Check(BaseModel):
    """One check. Unless a person is asked, exactly one of `query`, `offenders`, `same`, `across`, `record` and
    `builtin` says how it is answered. The tables that a query names are those of the base that it is asked of.

    :param gate: what an offender does: ``block`` the merge, ``warn``, or only be ``record``-ed.
    :param kind: ``unit`` checks are about what the unit has to finish, stop or bring up to date before its last
        backup, so in a rehearsal, made while it works, they warn at most; ``human`` ones a person confirms; ``file``
        ones are asked of files or of the machine, by who knows them.
    :param origin: where the check comes from.
    :param query: gives one row with one number, of what is wrong.
    :param offenders: gives one column that identifies what is wrong, so that after the merge what is wrong only then
        can be told from what always was.
    :param key: ``table.column`` of the key that the offenders are; without it they are natural values, which are
        never shown and are compared as they are.
    :param same: gives one column of texts, of which both sides must have the same, and some.
    :param across: gives one row with one number; ``{central}`` and ``{source}`` are the schemas of both sides.
    :param record: gives one row of numbers and dates.
    :param builtin: a check that no query can make: ``sequences_behind``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$")]
    gate: Literal["block", "warn", "record"]
    kind: Literal["data", "unit", "human", "file"] = "data"
    title: Text
    meaning: Text
    action: Text
    origin: Text
    evidence: Evidence
    query: str | None = None
    offenders: str | None = None
    key: ColumnPattern | None = None
    same: str | None = None
    across: str | None = None
    record: str | None = None
    builtin: Literal["sequences_behind"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        forms = (self.query, self.offenders, self.same, self.across, self.record, self.builtin)
        if sum(form is not None for form in forms) != self.asks_rows:
            raise ValueError("one of query, offenders, same, across, record, builtin; none if no rows are asked")
        if self.key is not None and self.offenders is None:
            raise ValueError("key goes with offenders")
        if self.asks_rows and (self.gate == "record") != (self.record is not None):
            raise ValueError('gate "record" goes with record')
        if self.across is not None:
            names = {name for _, name, _, _ in string.Formatter().parse(self.across) if name is not None}
            if names != {"central", "source"}:
                raise ValueError("across needs {central} and {source}, and no others")
        return self

    @property
    def asks_rows(self) -> bool:
        """True if it is asked of the rows of a base."""
        return self.kind in ("data", "unit")

    def state(self, found: int | None, *, final: bool) -> State:
        """What it means that so many offenders were found; None if the check was not, or cannot be, counted."""
        if self.kind == "human" and not final:
            return State.PENDING
        if self.gate == "record":
            return State.RECORDED
        if self.kind != "human":
            if found is None:
                return State.NOT_AVAILABLE
            if not found:
                return State.PASSED
        if self.gate == "warn" or (self.kind == "unit" and not final):
            return State.WARNED
        return State.BLOCKED


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    check: tuple[Check, ...] = ()


def load(name: str | Path = "pec") -> tuple[Check, ...]:
    """Load the checks beside a profile, which is named as for `merge.profile.load`; none if there is no such file.

    :raises ConfigError: with all problems of the file at once.
    """
    path = Path(name)
    folder, stem = (path.parent, path.stem) if path.suffix == ".toml" else (_shipped(), str(name))
    source = folder / f"{stem}.checks.toml"
    return read(source) if source.exists() else ()


def read(source: Path) -> tuple[Check, ...]:
    """Read the checks of one file.

    :raises ConfigError: with all problems of the file at once.
    """
    problems = []
    try:
        declared = tomllib.loads(source.read_text(encoding="utf-8"))
        problems = _repeated(declared)
        checks = _File.model_validate(declared).check
    except tomllib.TOMLDecodeError as ex:
        problems = [str(ex)]
    except ValidationError as ex:
        problems += [f"{_place(e['loc'], declared)}: {e['msg']}" for e in ex.errors()]
    if not problems:
        return checks
    raise ConfigError(
        text(
            pt=f"As verificações de {source.name} não podem ser usadas.",
            en=f"The checks of {source.name} cannot be used.",
        ),
        evidence=source,
        next_step=text(pt="Corrija o arquivo.", en="Correct the file."),
        details=problems,
    )


def _shipped() -> Path:
    return Path(str(resources.files("merge.profiles")))


def _entries(declared: Mapping[str, Any]) -> list[Any]:
    entries = declared.get("check")
    return entries if isinstance(entries, list) else []


def _repeated(declared: Mapping[str, Any]) -> list[str]:
    ids = [str(entry["id"]) for entry in _entries(declared) if isinstance(entry, dict) and "id" in entry]
    return [f"{name}: id ×{ids.count(name)}" for name in dict.fromkeys(ids) if ids.count(name) > 1]


def _place(location: tuple[int | str, ...], declared: Mapping[str, Any]) -> str:
    """Where a problem is: the check's own id says more than its position."""
    parts = [str(part) for part in location]
    if len(location) > 1 and isinstance(location[1], int):
        entry = _entries(declared)[location[1]]
        if isinstance(entry, dict) and "id" in entry:
            parts[:2] = [str(entry["id"])]
    return ".".join(parts)
