"""Attachments outside the database: which rows point to which files, and what becomes of every file of a source.

A profile declares by which paths the rows of a table point to files. A source's row gets its file where the merged row
points, which follows from the columns of the merged row: where a path holds a key, the file moves as the key does.
Nothing here reads or writes a file; files are known by `Inventory`.

No column is ever changed to make room for a file. Where the merged row of one person would point to the file of
another, the merge stops before anything is written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from psycopg import sql

from merge.errors import CollisionError
from merge.language import counted, text
from merge.masking import new_secret, shown_key
from merge.matching import is_new, there
from merge.plan import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import psycopg

    from merge.crosswalk import Crosswalk
    from merge.plan import Plan, TablePlan
    from merge.profile import Attachment

    Connection = psycopg.Connection[tuple[Any, ...]]

SHOWN = 100
"""How many keys of rows are listed of each kind; all are counted."""


class Fate(StrEnum):
    """What became of a file of a source; every file has exactly one."""

    INSERTED = "inserted"
    """It is where a merged row points to."""
    MATCHED = "matched"
    """The same bytes were there already, where the merged row points to."""
    RECONCILED = "reconciled"
    """Its row was there already with another file, which stays; this one is kept beside."""
    EXCLUDED = "excluded"
    """Its row does not come; kept beside."""
    UNCLAIMED = "unclaimed"
    """No row points to it; kept beside."""


BESIDE = {Fate.RECONCILED: "conflicts", Fate.EXCLUDED: "excluded", Fate.UNCLAIMED: "unclaimed"}
"""Folders of files that have no place in the merged directory, which is ``files``."""


@dataclass(frozen=True)
class File:
    """One file: its path below the directory, with ``/``, its bytes and their hash."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Inventory:
    """Everything in one delivered directory. Paths may hold names of people: they are for the run's own folder only.

    :param refused: by reason (``link``, ``special``, ``unreadable``), the paths of what is not a file to be read.
    """

    files: tuple[File, ...]
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 by path."""
        return {file.path: file.sha256 for file in self.files}


@dataclass(frozen=True)
class Pointer:
    """A row that points to files: its key as a person may see it, and the paths below its own directory."""

    table: str
    key: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """A row of a source whose merged row points to files.

    :param key: as a person may see it, of the source's row.
    :param fate: INSERTED for a row that is new, MATCHED if it is there already, EXCLUDED if it does not come.
    :param paths: pairs of a path below the source's directory and the merged row's below the merged one; None where
        the row has no such path.
    """

    table: str
    key: str
    fate: Fate
    paths: tuple[tuple[str | None, str | None], ...]


@dataclass(frozen=True)
class Survey:
    """What of the files that the rows of one base point to was delivered.

    :param rows: rows that point to files; `files` is None if no directory was delivered.
    :param missing: rows none of whose files was delivered; `missing_keys` are the first hundred.
    :param unclaimed: delivered files that no row points to.
    """

    rows: int
    files: int | None
    size: int
    missing: int
    missing_keys: tuple[str, ...]
    unclaimed: int
    unclaimed_size: int


@dataclass(frozen=True)
class Carried:
    """What becomes of one file of a source: `targets` are its new places below the run's folder of attachments."""

    path: str
    fate: Fate
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What becomes of every file of a source.

    :param rows: rows that point to files, `missing` of them to none that was delivered.
    :param conflicts: keys of rows whose file is kept beside another one.
    :param clashes: keys of rows that would point to the file of another row; then nothing may be carried.
    """

    source: int
    carried: tuple[Carried, ...]
    rows: int = 0
    missing: int = 0
    missing_keys: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Files by fate, all of them, zero included; the sum is the number of files in the inventory."""
        count = Counter(file.fate for file in self.carried)
        return {fate.value: count[fate] for fate in Fate}


# Which rows point to which files


def pointers(
    conn: Connection, plan: Plan, attachments: Iterable[Attachment], schema: str, secret: str | None = None
) -> Iterator[Pointer]:
    """The rows of `schema` (the central's, or a loaded source's) that point to files."""
    secret = secret or new_secret()
    for attachment, table in _declared(plan, attachments):
        paths = [_path(attachment, file, lambda column: sql.Identifier("s", column)) for file in attachment.files]
        query = sql.SQL("SELECT {}, {} FROM {} s").format(
            _shown(table, secret), sql.SQL(", ").join(paths), sql.Identifier(schema, table.name)
        )
        for key, *found in conn.cursor().stream(query):
            inside = tuple(path for path in map(relative, found) if path is not None)
            if inside or any(path is not None for path in found):
                yield Pointer(table.name, key, inside)


def claims(
    conn: Connection,
    plan: Plan,
    attachments: Iterable[Attachment],
    crosswalk: Crosswalk,
    secret: str | None = None,
) -> Iterator[Claim]:
    """Where the rows of a source will point to; to be asked when keys are mapped and no row was written yet."""
    secret = secret or new_secret()
    for attachment, table in _declared(plan, attachments):
        old = [_path(attachment, file, lambda column: sql.Identifier("s", column)) for file in attachment.files]
        query = _claims(plan, attachment, table, crosswalk, _shown(table, secret), old)
        for key, fate, *found in conn.cursor().stream(query):
            pairs = tuple(
                (relative(was), relative(becomes))
                for was, becomes in zip(found[: len(old)], found[len(old) :], strict=True)
            )
            if any(path is not None for path in found[: len(old)]):
                yield Claim(table.name, key, Fate(fate), pairs)


def _claims(
    plan: Plan,
    attachment: Attachment,
    table: TablePlan,
    crosswalk: Crosswalk,
    key: sql.Composable,
    old: list[sql.Composed],
) -> sql.Composed:
    rows = sql.Identifier(crosswalk.schema, table.name)
    nowhere = sql.SQL(", ").join([sql.SQL("NULL::text")] * len(old))
    was = sql.SQL(", ").join(old)
    if table.action is Action.EXCLUDE:
        return sql.SQL("SELECT {}, 'excluded', {}, {} FROM {} s").format(key, was, nowhere, rows)
    left_out = sql.SQL(
        "FROM homolog.exception e WHERE e.source = {} AND e.table_name = {} AND e.src_row = s.ctid"
        " AND e.disposition IN ('excluded', 'rejected')"
    ).format(sql.Literal(crosswalk.source), sql.Literal(table.name))
    mapped = crosswalk.mapped(table)
    new = is_new(plan, table, crosswalk, mapped)
    becomes = [
        sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
            new,
            _path(attachment, file, mapped.value),
            _path(attachment, file, lambda column: sql.Identifier("c", column)),
        )
        for file in attachment.files
    ]
    return sql.SQL(
        "SELECT {key}, 'excluded', {was}, {nowhere} FROM {rows} s WHERE EXISTS (SELECT 1 {left_out}) UNION ALL"
        " SELECT {key}, CASE WHEN {new} THEN 'inserted' ELSE 'matched' END, {was}, {becomes}"
        " FROM {comes} LEFT JOIN {merged} c ON {there} WHERE NOT EXISTS (SELECT 1 {left_out})"
    ).format(
        key=key,
        was=was,
        nowhere=nowhere,
        rows=rows,
        left_out=left_out,
        new=new,
        becomes=sql.SQL(", ").join(becomes),
        comes=mapped.source(),
        merged=sql.Identifier(plan.schema, table.name),
        there=there(plan, table, mapped, "c"),
    )


def _declared(plan: Plan, attachments: Iterable[Attachment]) -> Iterator[tuple[Attachment, TablePlan]]:
    """Declarations of tables that this version of the application has."""
    tables = {table.name: table for table in plan}
    return ((attachment, tables[attachment.table]) for attachment in attachments if attachment.table in tables)


def _path(attachment: Attachment, file: str, value: Callable[[str], sql.Composable]) -> sql.Composed:
    """A path as SQL; NULL if a value of it is."""
    parts = [
        sql.SQL("({})::text").format(value(part)) if position % 2 else sql.Literal(part)
        for position, part in enumerate(attachment.parts(file))
    ]
    return sql.SQL("({})").format(sql.SQL(" || ").join(parts))


def _shown(table: TablePlan, secret: str) -> sql.Composed:
    return shown_key({name: (sql.Identifier("s", name), table.column(name).type) for name in table.key}, secret)


def relative(path: str | None) -> str | None:
    """A path of a row as inventories write it; None if it leads out of the directory, or nowhere."""
    if path is None or "\0" in path:
        return None
    found = PurePosixPath(path)
    return None if found.is_absolute() or not found.parts or ".." in found.parts else str(found)


# What becomes of the files


def survey(rows: Iterable[Pointer], inventory: Inventory | None) -> Survey:
    """Compare what rows point to with what was delivered; no inventory if no directory was."""
    delivered = inventory.hashes if inventory is not None else {}
    claimed: set[str] = set()
    count = 0
    missing: list[str] = []
    for row in rows:
        count += 1
        found = [path for path in row.paths if path in delivered]
        claimed.update(found)
        if not found:
            missing.append(f"{row.table} [{row.key}]")
    unclaimed = [file for file in inventory.files if file.path not in claimed] if inventory is not None else []
    return Survey(
        count,
        None if inventory is None else len(inventory.files),
        0 if inventory is None else inventory.size,
        len(missing),
        tuple(missing[:SHOWN]),
        len(unclaimed),
        sum(file.size for file in unclaimed),
    )


def decide(source: int, rows: Iterable[Claim], inventory: Inventory, taken: Mapping[str, str]) -> Decision:
    """Decide what becomes of every file of a source.

    :param taken: what is in the merged directory already: SHA-256 by path.
    """
    decider = _Decider(source, inventory.hashes, dict(taken))
    for row in rows:
        decider.take(row)
    return decider.decision()


def check(decision: Decision) -> None:
    """Refuse a merge after which a row would point to the file of another.

    :raises CollisionError: listing the rows.
    """
    if decision.clashes:
        raise CollisionError(
            text(
                pt=f"{counted(len(decision.clashes), 'linha apontaria', 'linhas apontariam')}, depois da unificação, "
                "para o anexo de outra linha.",
                en=f"{counted(len(decision.clashes), 'row', 'rows')} would, after the merge, point to the attachment "
                "of another row.",
            ),
            details=decision.clashes,
            next_step=text(
                pt="Nada foi gravado. O caminho do arquivo não traz a chave da linha, e coluna nenhuma é mudada em "
                "silêncio: renomeie o arquivo e corrija a linha na instalação de origem, e faça outro backup.",
                en="Nothing was written. The file's path does not hold the row's key, and no column is changed in "
                "silence: rename the file and correct the row at the source, and take another backup.",
            ),
        )


class _Decider:
    def __init__(self, source: int, delivered: Mapping[str, str], taken: dict[str, str]) -> None:
        self.source = source
        self.delivered = delivered
        self.taken = taken
        self.fates: dict[str, set[Fate]] = {}
        self.targets: dict[str, list[str]] = {}
        self.rows = 0
        self.missing: list[str] = []
        self.conflicts: list[str] = []
        self.clashes: list[str] = []
        self.vacant: list[tuple[str, str]] = []
        """Where new rows without a file point to, and their keys."""

    def take(self, row: Claim) -> None:
        self.rows += 1
        key = f"{row.table} [{row.key}]"
        files = [(old, new) for old, new in row.paths if old in self.delivered]
        if not files:
            self.missing.append(key)
        if row.fate is Fate.INSERTED:
            self.vacant += [(new, key) for old, new in row.paths if new is not None and old not in self.delivered]
        # What the merged row has already: found before any file of this row is placed.
        held = {self.taken[new] for _, new in row.paths if new in self.taken}
        for old, new in files:
            assert old is not None
            if row.fate is Fate.EXCLUDED:
                self._beside(old, Fate.EXCLUDED)
            elif row.fate is Fate.MATCHED and (held or new is None):
                self._meet(old, held, key)
            else:
                self._place(old, new, key)

    def _meet(self, old: str, held: set[str], key: str) -> None:
        """A row that is there already, and has a file of its own: the central's stays."""
        if self.delivered[old] in held:
            self.fates.setdefault(old, set()).add(Fate.MATCHED)
        else:
            self._beside(old, Fate.RECONCILED)
            self.conflicts.append(key)

    def _place(self, old: str, new: str | None, key: str) -> None:
        sha256 = self.delivered[old]
        if new is None or self.taken.get(new, sha256) != sha256:
            self.clashes.append(key)
        elif new in self.taken:
            self.fates.setdefault(old, set()).add(Fate.MATCHED)
        else:
            self.taken[new] = sha256
            self.fates.setdefault(old, set()).add(Fate.INSERTED)
            self.targets.setdefault(old, []).append(f"files/{new}")

    def _beside(self, old: str, fate: Fate) -> None:
        self.fates.setdefault(old, set()).add(fate)
        target = f"{BESIDE[fate]}/src_{self.source}/{old}"
        if target not in self.targets.setdefault(old, []):
            self.targets[old].append(target)

    def decision(self) -> Decision:
        self.clashes += [key for target, key in self.vacant if target in self.taken]
        self._check_folders()
        for path in self.delivered:
            if path not in self.fates:
                self._beside(path, Fate.UNCLAIMED)
        order = list(Fate)
        return Decision(
            self.source,
            tuple(
                # The first that is true of any of the rows that point to it.
                Carried(path, min(self.fates[path], key=order.index), tuple(self.targets.get(path, ())))
                for path in self.delivered
            ),
            self.rows,
            len(self.missing),
            tuple(self.missing[:SHOWN]),
            tuple(self.conflicts),
            tuple(dict.fromkeys(self.clashes)),
        )

    def _check_folders(self) -> None:
        """No file may be where another needs a folder."""
        paths = sorted(PurePosixPath(path).parts for path in self.taken)
        for one, other in pairwise(paths):
            if other[: len(one)] == one:
                self.clashes.append(
                    text(pt="arquivo onde outro precisa de pasta", en="file where another needs a folder")
                )
