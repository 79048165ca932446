"""What people do after a promotion: a list beside the profile, ``<profile>.after.toml``."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from merge.errors import ConfigError
from merge.language import text
from merge.profile import Evidence, Text  # noqa: TC001 (pydantic reads them at run time)

ENDING = ".after.toml"


class Item(BaseModel):
    """One thing to do.

    :param gate: ``block``: the promotion is not accepted without it; ``warn``: it is shown until it is done.
    :param todo: what to do; `check` how to see that it is done.
    :param per_source: once for each installation that was merged.
    :param probe: an address must not answer any more.
    :param always: nobody may say that it does not apply.
    :param due_days: days after the promotion at which it is due.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$")]
    gate: Literal["block", "warn"]
    title: Text
    todo: Text
    check: Text
    evidence: Evidence
    per_source: bool = False
    probe: bool = False
    always: bool = False
    due_days: Annotated[int, Field(gt=0)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    item: tuple[Item, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> _File:
        ids = [item.id for item in self.item]
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"id {', '.join(repeated)} more than once")
        return self


def load(name: str | Path = "pec") -> tuple[Item, ...]:
    """Load the list beside a profile, which is named as for `merge.profile.load`; empty if there is no such file.

    :raises ConfigError: with all problems of the file at once.
    """
    path = Path(name)
    folder = path.parent if path.suffix == ".toml" else Path(str(resources.files("merge.profiles")))
    source = folder / f"{path.stem if path.suffix == '.toml' else name}{ENDING}"
    if not source.exists():
        return ()
    try:
        return _File.model_validate(tomllib.loads(source.read_text(encoding="utf-8"))).item
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as ex:
        problems = [str(ex)]
    except ValidationError as ex:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in ex.errors()]
    raise ConfigError(
        text(pt=f"A lista {source.name} não pode ser usada.", en=f"The list {source.name} cannot be used."),
        evidence=source,
        details=problems,
        next_step=text(pt="Corrija o arquivo.", en="Correct the file."),
    )
