"""Proof that every delivered attachment is where the merged row points to, and that nothing else is.

It shares no code with `merge.attachments`, and does not read what was decided there: from the inventories of what was
delivered, the rows of the sources, the crosswalk and the merged rows as they are, it concludes what must be in the
run's folder of attachments, and compares that with what is found there.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg import sql

from merge import catalog as catalogs
from merge.masking import mask, new_secret, shown_key
from merge.plan import Action
from merge.proof import Findings, Kind
from merge.proof_rows import found_rows, image, read_moves
from merge.proof_session import session, table_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from merge.catalog import Catalog
    from merge.plan import Plan, TablePlan
    from merge.profile import Attachment
    from merge.proof import Proof
    from merge.proof_session import Connection

Hashes = dict[str, str]
"""SHA-256 by path."""


@dataclass(frozen=True)
class Delivered:
    """What one source delivered, and what the ledger of its attachments says became of it, by fate."""

    files: Mapping[str, str]
    ledger: Mapping[str, int]


@dataclass(frozen=True)
class _Row:
    """A row of a source: `was` and `is_now` are its paths, pair by pair; `new` if nobody had its key before."""

    table: str
    key: str
    left_out: bool
    new: bool
    was: tuple[str | None, ...]
    is_now: tuple[str | None, ...]


@dataclass
class _Place:
    """What must be at one place, and whose it is."""

    sha256: str
    table: str = "attachments"
    key: str = ""
    source: int | None = None


def prove_attachments(
    connect: Callable[[], Connection],
    plan: Plan,
    attachments: Sequence[Attachment],
    central: Mapping[str, str],
    sources: Mapping[int, Delivered],
    found: Mapping[str, str],
) -> Proof:
    """Prove the run's folder of attachments.

    :param central: the central's delivered files, SHA-256 by path.
    :param sources: by number, for every merged source; one that delivered none has no files.
    :param found: what is in the folder now: SHA-256 by path, for anything that is not a plain file some other text.
    """
    start = time.monotonic()
    prover = _Prover(plan, attachments, central)
    with session(connect) as conn:
        catalog = catalogs.read(conn, plan.schema)
        for number, delivered in sorted(sources.items()):
            prover.expect(number, delivered, _rows(conn, plan, catalog, attachments, number, prover.secret))
    prover.compare(found)
    return prover.findings.proof(len(attachments), time.monotonic() - start)


@dataclass
class _Prover:
    plan: Plan
    attachments: Sequence[Attachment]
    central: Mapping[str, str]
    secret: str = field(default_factory=new_secret)
    findings: Findings = field(default_factory=lambda: Findings(None))
    places: dict[str, _Place] = field(default_factory=dict)
    vacant: dict[str, _Row] = field(default_factory=dict)
    """Where new rows without a file point to."""

    def __post_init__(self) -> None:
        for path, sha256 in self.central.items():
            self.places[f"files/{path}"] = _Place(sha256, key=mask(path, "file", self.secret))

    def expect(self, source: int, delivered: Delivered, rows: Iterable[_Row]) -> None:
        """Conclude where the files of one source must be, after those of the central and of the sources before."""
        before = {path for path in self.places if path.startswith("files/")}
        named: dict[str, set[str]] = {}
        for row in rows:
            files = [(was, now) for was, now in zip(row.was, row.is_now, strict=True) if was in delivered.files]
            for was, now in files:
                assert was is not None
                named.setdefault(was, set()).add(self._expect(source, row, was, now, delivered.files[was], before))
            if row.new and not row.left_out:
                vacant = [now for was, now in zip(row.was, row.is_now, strict=True) if was not in delivered.files]
                self.vacant.update({f"files/{now}": row for now in vacant if now is not None})
        for path, sha256 in delivered.files.items():
            if path not in named:
                key = mask(path, "file", self.secret)
                self._put(f"unclaimed/src_{source}/{path}", _Place(sha256, key=key, source=source))
        self._check_ledger(source, delivered, named)

    def _expect(self, source: int, row: _Row, was: str, now: str | None, sha256: str, before: set[str]) -> str:
        """Where one file of one row must be; returns its fate."""
        place = _Place(sha256, row.table, row.key, source)
        if row.left_out:
            self._put(f"excluded/src_{source}/{was}", place)
            return "excluded"
        if not row.new:
            theirs = [f"files/{path}" for path in row.is_now if f"files/{path}" in before]
            if any(self.places[path].sha256 == sha256 for path in theirs):
                return "matched"
            if theirs or now is None:
                self._put(f"conflicts/src_{source}/{was}", place)
                return "reconciled"
        if now is None:
            self.findings.add(
                Kind.LOST, row.table, key=row.key, source=source, reason="the merged row points to no file"
            )
            return "lost"
        self._put(f"files/{now}", place)
        return "matched" if f"files/{now}" in before else "inserted"

    def _put(self, path: str, place: _Place) -> None:
        known = self.places.setdefault(path, place)
        if known.sha256 != place.sha256:
            self._add(Kind.CHANGED, place, "two rows point to one file, which were two before the merge")

    def _check_ledger(self, source: int, delivered: Delivered, named: Mapping[str, set[str]]) -> None:
        order = ("inserted", "matched", "reconciled", "excluded", "lost")
        counts = Counter(min(fates, key=order.index) for fates in named.values())
        counts["unclaimed"] = len(delivered.files) - len(named)
        for fate in sorted({*counts, *delivered.ledger}):
            said = delivered.ledger.get(fate, 0)
            if said != counts[fate]:
                self.findings.add(
                    Kind.LEDGER, "attachments", source=source, key=fate, expected=str(counts[fate]), found=str(said)
                )

    def compare(self, found: Mapping[str, str]) -> None:
        """Compare what must be there with what is."""
        for path, place in self.places.items():
            self.findings.compared(place.table, 1)
            if path not in found:
                self._add(Kind.LOST, place, "the file is not there")
            elif found[path] != place.sha256:
                self._add(Kind.CHANGED, place, "the file has other bytes")
        for path in found.keys() - self.places.keys():
            self.findings.add(
                Kind.INVENTED, "attachments", key=mask(path, "file", self.secret), reason="nobody delivered this file"
            )
        for path, row in self.vacant.items():
            if path in found:
                self.findings.add(
                    Kind.INVENTED, row.table, key=row.key, reason="the row had no file, and points to one of another"
                )

    def _add(self, kind: Kind, place: _Place, reason: str) -> None:
        if place.source is None:
            self.findings.touched()
        self.findings.add(kind, place.table, key=place.key, source=place.source, reason=reason)


def _rows(
    conn: Connection, plan: Plan, catalog: Catalog, attachments: Sequence[Attachment], source: int, secret: str
) -> Iterator[_Row]:
    """The rows of a source that pointed to files, and where their merged rows point to now."""
    sizes = table_sizes(conn, f"src_{source}")
    for attachment in attachments:
        table = next((t for t in plan if t.name == attachment.table), None)
        if table is None or table.name not in catalog.tables or not sizes.get(table.name):
            continue
        number = len(attachment.files)
        query = _query(conn, plan, catalog, attachment, table, source, secret)
        for key, left_out, new, *paths in conn.cursor().stream(query):
            was, is_now = tuple(map(_clean, paths[:number])), tuple(map(_clean, paths[number:]))
            if any(path is not None for path in paths[:number]):
                yield _Row(table.name, key, left_out, new, was, is_now)


def _query(
    conn: Connection,
    plan: Plan,
    catalog: Catalog,
    attachment: Attachment,
    table: TablePlan,
    source: int,
    secret: str,
) -> sql.Composed:
    described = catalog.tables[table.name]
    rows = image(plan, table, described, source, read_moves(conn, source), excepted=True)
    comes = table.action is not Action.EXCLUDE
    merged = sql.Identifier(plan.schema, table.name)
    join = found_rows(merged, rows.key(), lookup=False)
    return sql.SQL(
        "SELECT {shown}, {comes} IS FALSE OR coalesce(e.disposition IN ('excluded', 'rejected'), false), NOT ({known}),"
        " {was}, {now} FROM {rows}{join}"
    ).format(
        shown=shown_key({name: (sql.Identifier("s", name), table.column(name).type) for name in table.key}, secret),
        comes=sql.Literal(comes),
        known=rows.known,
        was=sql.SQL(", ").join([_text(file, "s") for file in attachment.files]),
        now=sql.SQL(", ").join([_text(file, "g") for file in attachment.files]),
        rows=rows.rows,
        join=join,
    )


def _text(file: str, alias: str) -> sql.Composed:
    """The path as the row `alias` says it; NULL if a value is, or if there is no row."""
    names = iter(re.findall(r"{(\w+)}", file))
    pattern = re.sub(r"{\w+}", "%s", file.replace("%", "%%"))
    values = [sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in names]
    return sql.SQL("CASE WHEN ({}) IS NOT NULL THEN format({}, {}) END").format(
        sql.SQL(" || ").join(values), sql.Literal(pattern), sql.SQL(", ").join(values)
    )


def _clean(path: str | None) -> str | None:
    """Without what means nothing in a path; None if it leads out of its directory."""
    if path is None or path.startswith("/") or "\0" in path:
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts else "/".join(parts)
