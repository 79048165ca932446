"""The smoke list: a few people of each kind whose records professionals open in the merged base, and what they said.

Of patients there are internal ids, nothing else: whoever looks finds the record by its id, inside PEC. Who signed is
named, in the run's folder only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

import psycopg
from psycopg import sql

from merge.errors import BlockedError, ConfigError
from merge.language import text
from sandbox.events import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from merge.profile import Smoke
    from sandbox.runs import Run

    Connection = psycopg.Connection[tuple[Any, ...]]

FILE = "smoke"
"""The file of the run's folder, without its ending."""

Verdict = Literal["ok", "problem"]
Standing = Literal["pending", "accepted", "refused", "empty"]

_TIMEOUT = "10min"


@dataclass(frozen=True)
class Drawn:
    """Who was drawn of one stratum.

    :param people: for each person the internal ids of their rows, usually one.
    :param note: why there is nobody, or fewer than asked for.
    """

    stratum: str
    title: str
    people: tuple[tuple[int, ...], ...]
    note: str = ""


def draw(
    connect: Callable[[], Connection],
    strata: Sequence[Smoke],
    per_stratum: int = 3,
    seed: str = "",
    *,
    in_both: Sequence[Sequence[int]] | None = None,
    schema: str = "public",
) -> tuple[Drawn, ...]:
    """Draw people by chance; the same seed draws the same ones of the same base.

    Each stratum is read once, and only the first few of a random order are kept: nothing is sorted whole.

    :param connect: opens a connection, of a role that is not superuser, to the merged base.
    :param in_both: who was in more than one base, where a merge listed them: each person's ids in the merged base.
    :raises ConfigError: a query gives something else than ids.
    """
    drawn = []
    with connect() as conn:
        for stratum in strata:
            note = ""
            if stratum.needs_both and in_both is not None:
                known = sorted({tuple(ids) for ids in in_both})
                people = sorted(random.Random(f"{seed}{stratum.name}").sample(known, min(per_stratum, len(known))))  # noqa: S311
            else:
                people, note = _draw(conn, stratum, per_stratum, seed, schema)
            drawn.append(Drawn(stratum.name, str(stratum.title), tuple(people), note or _short(people, per_stratum)))
    return tuple(drawn)


def keep(run: Run, drawn: Sequence[Drawn]) -> None:
    """Write who was drawn into the run's ``smoke.json``.

    :raises BlockedError: if somebody has already signed for others.
    """
    if run.has(FILE) and run.load(FILE)["signatures"]:
        raise BlockedError(
            text(
                pt="A lista de conferência já tem assinaturas; sortear de novo as perderia.",
                en="The smoke list is signed already; to draw again would lose that.",
            ),
            evidence=run.folder / f"{FILE}.json",
        )
    run.save(FILE, {"drawn": drawn, "signatures": []})


def sign_off(run: Run, stratum: str, by: str, verdict: Verdict, note: str = "") -> None:
    """Keep what a professional says after looking at the people of a stratum; the last word holds.

    :raises ConfigError: nobody was drawn of a stratum of that name, or the verdict is none, or it has no name below it.
    """
    kept = _load(run)
    known = {drawn["stratum"]: drawn for drawn in kept["drawn"]}
    if stratum not in known or not known[stratum]["people"]:
        raise ConfigError(
            text(pt=f"Ninguém foi sorteado no grupo {stratum}.", en=f"Nobody was drawn of the stratum {stratum}."),
            details=[name for name, drawn in known.items() if drawn["people"]],
            next_step=text(pt="Use um dos grupos da lista.", en="Use one of the list."),
        )
    if verdict not in get_args(Verdict) or not by.strip():
        raise ConfigError(
            text(
                pt="Uma conferência leva o nome de quem conferiu e um resultado: ok ou problem.",
                en="A sign-off carries the name of who looked, and a verdict: ok or problem.",
            )
        )
    signature = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "stratum": stratum,
        "by": by.strip(),
        "verdict": verdict,
        "note": redact(note),
    }
    run.save(FILE, {**kept, "signatures": [*kept["signatures"], signature]})


def standing(run: Run) -> Mapping[str, Standing]:
    """How each stratum stands: the last signature holds; one of whom nobody could be drawn needs none."""
    kept = _load(run)
    states: dict[str, Standing] = {
        drawn["stratum"]: "pending" if drawn["people"] else "empty" for drawn in kept["drawn"]
    }
    for signature in kept["signatures"]:
        states[signature["stratum"]] = "accepted" if signature["verdict"] == "ok" else "refused"
    return states


def pending(run: Run) -> tuple[str, ...]:
    """The strata that nobody has signed for."""
    return tuple(name for name, state in standing(run).items() if state == "pending")


def _draw(
    conn: Connection, stratum: Smoke, per_stratum: int, seed: str, schema: str
) -> tuple[list[tuple[int, ...]], str]:
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", [schema])
            conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(_TIMEOUT)))
            rows = conn.execute(
                sql.SQL(
                    "SELECT ids FROM (SELECT DISTINCT ids::text AS ids FROM ({}) q (ids) WHERE ids IS NOT NULL) d"
                    " ORDER BY md5(ids || {}), ids LIMIT {}"
                ).format(sql.SQL(stratum.query), sql.Literal(seed), sql.Literal(per_stratum))
            ).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return [], text(pt="não disponível nesta versão", en="not available in this version")
    except psycopg.Error as ex:
        if conn.broken:
            raise
        return [], text(pt=f"a consulta falhou ({ex.sqlstate})", en=f"the query failed ({ex.sqlstate})")
    try:
        people = [tuple(int(number) for number in ids.strip("{}").split(",")) for (ids,) in rows]
    except ValueError:
        raise ConfigError(
            text(
                pt=f"A consulta do grupo {stratum.name} não dá códigos internos.",
                en=f"The query of stratum {stratum.name} gives something else than internal ids.",
            ),
            next_step=text(pt="Corrija [[smoke]] no perfil.", en="Correct [[smoke]] in the profile."),
        ) from None
    return sorted(people), ""


def _short(people: Sequence[object], asked: int) -> str:
    if not people:
        return text(pt="não há ninguém", en="there is nobody")
    if len(people) < asked:
        return text(pt="não há mais", en="there are no more")
    return ""


def _load(run: Run) -> dict[str, Any]:
    if not run.has(FILE):
        raise ConfigError(
            text(pt="Nesta execução ninguém foi sorteado.", en="Nobody was drawn in this run."), evidence=run.folder
        )
    kept: dict[str, Any] = run.load(FILE)
    return kept
