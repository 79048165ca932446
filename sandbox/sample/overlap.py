"""The installations of a sample and what they share, as counts that a test can check after a merge."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CENTRAL_CITIZENS = 800
SOURCE_CITIZENS = 300
MAX_CITIZENS = 100_000
"""Citizens of one installation that the synthetic ranges of CPF and CNS allow."""
MAX_SOURCES = 8


@dataclass(frozen=True)
class Installation:
    """One synthetic installation: `number` 0 is the central, sources follow; `seed` is the same in one world."""

    name: str
    number: int
    seed: int
    citizens: int

    @property
    def units(self) -> int:
        """Health units that it owns."""
        return max(3, self.citizens // 4000) if self.number == 0 else max(1, self.citizens // 6000)

    @property
    def teams(self) -> int:
        """Teams in each of its units."""
        return max(2, min(9, ceil(self.citizens / self.units / 2500)))

    @property
    def professionals(self) -> int:
        """Professionals with a post in its units."""
        return max(12, min(9999, self.citizens // 55))


@dataclass(frozen=True)
class Share:
    """`count` citizens of a source, from number `first`, that are citizens of the central from `central_first`."""

    source: int
    kind: str
    first: int
    count: int
    central_first: int


PERCENT = {
    "same_cpf": 6.0,
    "cns_only": 3.0,
    "typo_name": 2.0,
    "typo_digit": 1.0,
    "twin": 1.0,
    "no_document": 2.0,
}
"""Shares of a source's citizens, in the order in which they are numbered.

same_cpf: same CPF and CNS; cns_only: the source has no CPF; typo_name: no document in the source, one letter too many;
typo_digit: another CPF and no CNS in the source, all else equal; twin: another person with the same mother and birth
date; no_document: neither side has a document.
"""

SENT = 10
"""One in so many fichas of a source (rounded up, kind by kind) has already been sent to the central."""

FICHAS = {
    2: 2000,
    3: 850,
    4: 50,
    5: 13,
    6: 24,
    7: 40,
    8: 7200,
    10: 36,
    11: 2,
    12: 4,
    13: 2,
    14: 20,
    104: 3000,
}
"""Fichas for each thousand citizens (at least 4 of a kind) by type of transported data.

2 individual and 3 household registration, 4 individual, 5 dental and 10 home care, 6 collective activity, 7 procedures,
8 home visit, 11 eligibility, 12 food markers, 13 zika, 14 vaccination; 104 is type 4 written in the PEC (an encounter).
"""


def world(scale: float = 1.0, seed: int = 1, sources: int = 2) -> tuple[Installation, ...]:
    """Return the installations of a sample, the central first: 800 citizens and 300 in each source, times `scale`."""
    if not 0 < sources <= MAX_SOURCES:
        raise ValueError(f"1 to {MAX_SOURCES} sources")
    central, source = round(CENTRAL_CITIZENS * scale), round(SOURCE_CITIZENS * scale)
    if source < 100 or central > MAX_CITIZENS:
        raise ValueError("scale from 0.34 to 125")
    return (
        Installation("central", 0, seed, central),
        *(Installation(f"ubs-{chr(96 + n)}", n, seed, source) for n in range(1, sources + 1)),
    )


def shares(installations: Sequence[Installation]) -> tuple[Share, ...]:
    """Return what each source shares with the central."""
    result = []
    central_first = 11
    for source in installations[1:]:
        first = 1
        for kind, percent in PERCENT.items():
            count = ceil(source.citizens * percent / 100)
            result.append(Share(source.number, kind, first, count, central_first))
            first += count
            central_first += count
    if central_first > installations[0].citizens:
        raise ValueError("too many sources for this scale")
    return tuple(result)


@dataclass(frozen=True)
class Overlap:
    """What is planted between one source and the central.

    :param citizens: by kind, see `PERCENT`.
    :param fichas: fichas that the central has received already, by type, see `FICHAS`. Of type 104 the central has
        only the transported data, of the others also the ficha's own rows.
    :param units: units of the source, all known to the central by their CNES (likewise `teams` by INE and unique code,
        `professionals` by CPF), under other keys.
    :param catalog_rows: tables with one row that only the source has.
    """

    source: int
    citizens: Mapping[str, int]
    fichas: Mapping[int, int]
    units: int
    teams: int
    professionals: int
    catalog_rows: tuple[str, ...]


def overlap(installations: Sequence[Installation]) -> tuple[Overlap, ...]:
    """Return the planted overlap of each source with the central."""
    return tuple(
        Overlap(
            i.number,
            {s.kind: s.count for s in shares(installations) if s.source == i.number},
            {kind: ceil(max(4, ceil(rate * i.citizens / 1000)) / SENT) for kind, rate in FICHAS.items()},
            i.units,
            i.units * i.teams,
            i.professionals,
            ("tb_imunobiologico_fabricante", "tb_medicamento", "tb_proced"),
        )
        for i in installations[1:]
    )
