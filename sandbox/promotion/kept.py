"""The databases that promotions and rollbacks keep on the production server: listed, and removed when people say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge.errors import PromotionRefused
from merge.language import text
from sandbox.promotion import after, beside, marks
from sandbox.promotion.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.console import Reporter
    from sandbox.promotion.production import Production
    from sandbox.runs import Run


_SIZES = """
    SELECT oid::bigint, CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END FROM pg_database
"""


@dataclass(frozen=True)
class Kept:
    """A database that a promotion or a rollback keeps; `size` in bytes, None if that is not known; `is_here` if it was
    seen on the server that was asked.
    """

    run_id: str
    state: str
    address: str
    database: str
    kept: str
    oid: int
    promoted_at: str | None
    accepted: bool
    size: int | None = None
    is_here: bool = False


def kept(runs: list[Run], production: Production | None) -> list[Kept]:
    """What was promoted and what is kept of it; of databases on `production` with their sizes."""
    sizes: dict[int, int | None] = {}
    system = None
    if production is not None:
        with production.connect_outside() as conn:
            system, _ = marks.control(conn)
            sizes = dict(conn.execute(_SIZES).fetchall())
    found = []
    for run in runs:
        paths = [*sorted(run.folder.glob("promotion-[0-9]*.json")), *run.folder.glob("promotion.json")]
        for path in paths:
            journal = Journal.load(run, path.stem)
            if journal.state == "preparing":
                continue
            back = journal.rollback if journal.state == "rolled_back" else None
            oid = back.oid if back else journal.live_oid
            is_here = system == journal.system
            if is_here and oid not in sizes:
                continue  # it was removed
            found.append(
                Kept(
                    run.id, journal.state, journal.address, journal.database, back.kept if back else journal.kept, oid,
                    journal.promoted_at, after.accepted(run) is not None, sizes.get(oid) if is_here else None, is_here,
                )
            )  # fmt: skip
    return found


def discard(run: Run, production: Production, typed: str, reporter: Reporter) -> str:
    """Remove for good the database that a promotion, or its rollback, keeps; return its name.

    :param typed: its name, typed by the operator; "" to be asked.
    :raises PromotionRefused: it may not be removed, or the name was not confirmed.
    """
    known = {one.kept: one for one in kept([run], production) if one.is_here}
    if not known:
        raise PromotionRefused(
            text(
                pt=f"De {run.id} não há banco guardado neste servidor.",
                en=f"Nothing of {run.id} is kept on this server.",
            ),
            next_step="invoke promotions",
        )
    question = text(
        pt=f"Apagar para sempre, de {production.host}:{production.port}: {' / '.join(known)}?",
        en=f"Remove for good, of {production.host}:{production.port}: {' / '.join(known)}?",
    )
    typed = typed or reporter.ask(question, text(pt="digite o nome do banco", en="type the name of the database"))
    if typed not in known:
        raise _not_confirmed(known)
    one = known[typed]
    if one.state == "promoted" and not one.accepted:
        raise PromotionRefused(
            text(
                pt="A promoção ainda não foi aceita: o banco de antes é o caminho de volta.",
                en="The promotion is not accepted yet: the database from before is the way back.",
            ),
            next_step=f"invoke accept --run {run.id}",
        )
    with production.connect_outside() as conn:
        row = conn.execute("SELECT datname FROM pg_database WHERE oid = %s", [one.oid]).fetchone()
        if row is None or typed != row[0] or row[0] in (production.database, one.database):
            raise _not_confirmed(known)
    beside.drop_kept(production, one.oid, run_id=run.id)
    run.attest("discarded", database=one.kept, server=one.address)
    return one.kept


def _not_confirmed(known: Iterable[str]) -> PromotionRefused:
    return PromotionRefused(
        text(pt="O nome não foi confirmado; nada foi apagado.", en="The name was not confirmed; nothing was removed."),
        details=[f"--confirm {name}" for name in known],
    )
