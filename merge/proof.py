"""What a proof is: the differences that were looked for, and those that were found.

The proof of method `exact` has three parts: the baseline kept before the first source (`merge.baseline`), one proof
for every source, at the cost of its own size (`merge.proof_source`), and one for the central, at the end
(`merge.proof_central`). They share no code with the engine and follow from each other:

- every row of a source is found, mapped, bit by bit equal in the merged database, or the ledger says why not;
- new keys of a source are disjoint from every key and reference of the central and of the other sources;
- every row of the baseline is found bit by bit equal;
- the merged rows are as many as the baseline's plus those inserted, so there is no other row.

The proof of method `content` (`merge.proof_content`) is one for the merged database as a whole. It needs neither
crosswalk nor ledger, so it also proves what another program merged.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from merge.errors import ProofFailed
from merge.language import counted, text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SHOWN = 100
"""How many differences of each kind are listed; all are counted."""


class Kind(StrEnum):
    """What can differ."""

    LOST = "lost"
    """A row that must be in the merged database is not."""
    CHANGED = "changed"
    """A column of a merged row has not the value that it must have."""
    DOUBLED = "doubled"
    """More merged rows than one for a row."""
    INVENTED = "invented"
    """A merged row that is neither the central's nor a source's."""
    LEDGER = "ledger"
    """The ledger says other than the rows."""
    CROSSWALK = "crosswalk"
    """Keys are not mapped one to one."""
    REFERENCE = "reference"
    """A foreign key does not hold."""
    LARGE_OBJECT = "large_object"
    """A large object is missing, too many, or has other bytes."""
    SEQUENCE = "sequence"
    """A sequence is behind its data or has other properties."""
    VIEW = "view"
    """A materialised view is not what its query gives."""
    OBJECT = "object"
    """An object of the central (table, index, trigger, function …) is missing, new or other than it was."""
    PLAN = "plan"
    """The plan contradicts the catalog."""


@dataclass(frozen=True)
class Difference:
    """One difference; values are masked, keys are shown if they are internal integers.

    :param table: the table, or the object that differs.
    :param source: number of the source whose row it is; None for the central's.
    :param reason: the rule of the proof that was broken, if the kind does not tell.
    """

    kind: str
    table: str
    key: str = ""
    column: str | None = None
    source: int | None = None
    expected: str = ""
    found: str = ""
    reason: str | None = None

    def __str__(self) -> str:
        where = ".".join(part for part in (self.table, self.column) if part)
        values = f": {self.expected or '—'} → {self.found or '—'}" if self.expected or self.found else ""
        return (
            " ".join(part for part in (self.kind, where, f"[{self.key}]" if self.key else "", self.reason) if part)
            + values
        )


@dataclass(frozen=True)
class Proof:
    """The result of one proof.

    :param source: number of the source; None for the central.
    :param tables: tables that hold rows to be compared.
    :param differences: number of differences by kind; kinds without any are left out.
    :param examples: the first hundred of each kind.
    :param indistinguishable: rows of the sources that the method cannot tell from another; none with method exact.
    :param alike: those rows by table.
    :param matched: rows of the sources that were there before by a declared rule, by table and rule; method content
        only.
    :param declared: differences that were expected, by table and kind: an application that ran meanwhile wrote them.
    :param known: violated foreign keys that the baseline already violated, with the number of rows.
    :param rows: rows compared by table.
    :param central_unchanged: whether every row and object of the central is what it was; None if not looked at.
    """

    method: str
    source: int | None
    tables: int
    rows_compared: int
    differences: Mapping[str, int]
    examples: tuple[Difference, ...]
    seconds: float
    rows: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    indistinguishable: int = 0
    central_unchanged: bool | None = None
    alike: Mapping[str, int] = field(default_factory=dict)
    matched: Mapping[str, int] = field(default_factory=dict)
    declared: Mapping[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """True if nothing differs."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "holds": self.holds}


def check_proof(proof: Proof, evidence: object) -> None:
    """Raise `ProofFailed` if a proof found differences.

    :param evidence: where they are kept.
    """
    if not proof.holds:
        count = sum(proof.differences.values())
        raise ProofFailed(
            text(
                pt=f"A prova encontrou {counted(count, 'diferença', 'diferenças')}: "
                "o resultado não pode ir para produção.",
                en=f"The proof found {counted(count, 'difference', 'differences')}: "
                "the result must not go to production.",
            ),
            evidence=evidence,
            details=[str(d) for d in proof.examples],
            next_step=text(
                pt="Não tente de novo: guarde a pasta da execução e envie o pacote de suporte.",
                en="Do not retry: keep the run's folder and send the support bundle.",
            ),
        )


class Findings:
    """Collects what the parallel parts of one proof find; safe for threads.

    :param declared: by table, the kinds of differences that are expected there: they are counted apart.
    """

    def __init__(
        self, source: int | None, method: str = "exact", declared: Mapping[str, Collection[Kind]] | None = None
    ) -> None:
        self.source = source
        self.method = method
        self.declared: Counter[str] = Counter()
        self._expected = {(kind.value, table) for table, kinds in (declared or {}).items() for kind in kinds}
        self.rows: Counter[str] = Counter()
        self.known: Counter[str] = Counter()
        self.alike: Counter[str] = Counter()
        self.matched: Counter[str] = Counter()
        self.central_touched = False
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[Difference]] = {}
        self._lock = threading.Lock()

    def compared(self, table: str, rows: int) -> None:
        """Note that so many rows of a table were compared."""
        with self._lock:
            self.rows[table] += rows

    def know(self, name: str, rows: int) -> None:
        """Note a violation that the baseline had already."""
        with self._lock:
            self.known[name] += rows

    def add(self, kind: Kind, table: str, **details: Any) -> None:
        """Note one difference."""
        self.extend([Difference(kind.value, table, **{"source": self.source, **details})], 1)

    def extend(self, examples: Iterable[Difference], count: int) -> None:
        """Note `count` differences of one kind, of which some are given as examples (at least one)."""
        examples = list(examples)
        kind, table = examples[0].kind, examples[0].table
        with self._lock:
            if (kind, table) in self._expected:
                self.declared[f"{table} {kind}"] += count
                return
            self._counts[kind] += count
            kept = self._examples.setdefault(kind, [])
            kept += examples[: SHOWN - len(kept)]

    def touched(self) -> None:
        """Note that something of the central is not what it was."""
        self.central_touched = True

    def proof(self, tables: int, seconds: float) -> Proof:
        """The result."""
        return Proof(
            self.method,
            self.source,
            tables,
            sum(self.rows.values()),
            dict(sorted(self._counts.items())),
            tuple(d for kind in sorted(self._examples) for d in self._examples[kind]),
            round(seconds, 3),
            dict(sorted(self.rows.items())),
            dict(sorted(self.known.items())),
            indistinguishable=self.alike.total(),
            central_unchanged=None if self.source is not None else not self.central_touched,
            alike=dict(sorted(self.alike.items())),
            matched=dict(sorted(self.matched.items())),
            declared=dict(sorted(self.declared.items())),
        )
