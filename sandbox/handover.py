"""The handover pack: for each source, what its people must make again in the central, or know.

The lists are queries that the profile declares, over the rows of the source that are still in the sandbox; beside them
stands what the ledger says did not come. Nothing in them names a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from psycopg import errors as psycopg_errors
from psycopg import sql

from merge.language import text
from sandbox import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import psycopg

    from merge.profile import Handover, Profile
    from sandbox.runs import Run

    Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class List:
    """One list: headings and rows, as text; `note` says why it is not there, if it is not."""

    name: str
    title: str
    todo: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Rows of one table that did not come, for one reason."""

    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class SourcePack:
    """The handover of one source.

    :param added: by table, rows that the scope added.
    """

    source: str
    scope: str
    lists: tuple[List, ...]
    left_out: tuple[LeftOut, ...]
    added: Mapping[str, int]


def make_handover(
    run: Run, connect: Callable[[], Connection], profile: Profile, sources: Mapping[int, str], scope: str
) -> Path:
    """Write ``handover/<source>.json`` for each source and one ``handover.html``; return the path of this.

    :param connect: opens a connection to the merged database, which holds the sources' rows.
    :param sources: names of the merged sources by number.
    """
    ledger = run.load("ledger")
    kept = {s["name"]: s for s in run.load("result")["sources"]}
    packs = []
    (run.folder / "handover").mkdir(mode=0o700, exist_ok=True)
    for number, name in sources.items():
        with connect() as conn:
            lists = tuple(
                _list(conn, f"src_{number}", declared)
                for declared in profile.handover
                if declared.scope in (None, scope)
            )
        left_out = sorted(
            (
                LeftOut(table["name"], words.reason(reason), rows)
                for table in ledger.get(name, ())
                for reason, rows in table["left_out"].items()
            ),
            key=lambda line: (-line.rows, line.table),
        )
        packs.append(SourcePack(name, scope, lists, tuple(left_out), kept.get(name, {}).get("added", {})))
        run.save(f"handover/{_file_name(number, name)}", packs[-1])
    run.write("handover.html", render(run.id, packs))
    return run.folder / "handover.html"


def render(run_id: str, packs: Sequence[SourcePack]) -> str:
    """The packs as one HTML file, in the user's language."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sandbox"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=words.number)
    environment.globals.update(t=lambda pt, en: text(pt=pt, en=en))
    return environment.get_template("handover.html").render(run_id=run_id, packs=packs)


def _list(conn: Connection, schema: str, declared: Handover) -> List:
    """Carry out one declared query; tables or columns that are not there make an empty list that says so."""
    rows: Sequence[tuple[Any, ...]] = ()
    note = ""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", [schema])
            rows = conn.execute(sql.SQL(declared.query)).fetchall()
    except (psycopg_errors.UndefinedTable, psycopg_errors.UndefinedColumn):
        note = text(pt="não disponível nesta versão", en="not available in this version")
    return List(
        declared.name,
        str(declared.title),
        str(declared.todo),
        tuple(map(str, declared.columns)),
        tuple(tuple("" if value is None else str(value) for value in row) for row in rows),
        note,
    )


def _file_name(number: int, name: str) -> str:
    return name if re.fullmatch(r"[\w-][\w.-]*", name) else f"source-{number}"
