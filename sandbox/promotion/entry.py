"""How production is entered: by one operator at a time, who has typed its name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from merge.errors import Interrupted, PromotionRefused, PromotionRolledBack, ServerError, cause
from merge.language import text
from sandbox.promotion import marks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.console import Reporter
    from sandbox.promotion.journal import Journal
    from sandbox.promotion.production import Connection, Production
    from sandbox.runs import Run

FOLDER = "promotion"
"""Folder of a run for what only a promotion needs; private."""


@contextmanager
def told(run: Run, task: str) -> Iterator[None]:
    """Say how to go on after an interruption, or after the production server was lost; and no word of the server's.

    :raises Interrupted: somebody ended us.
    :raises PromotionRolledBack: the server stopped, or refused a command.
    """
    try:
        yield
    except KeyboardInterrupt:
        run.events.add(task, "interrupted")
        raise Interrupted(
            text(
                pt="Interrompido; a produção está inteira, a de antes ou a nova.",
                en="Interrupted; production is whole, the one from before or the new one.",
            ),
            next_step=f"invoke {task} --run {run.id} --production …",
        ) from None
    except OSError as ex:
        raise PromotionRolledBack(
            text(
                pt=f"Este computador não deixou continuar ({ex.strerror}); a produção está inteira.",
                en=f"This computer did not let us go on ({ex.strerror}); production is whole.",
            ),
            evidence=run.folder,
            next_step=text(pt="Resolva e repita: ", en="Solve it and repeat: ")
            + f"invoke {task} --run {run.id} --production …",
        ) from None
    except psycopg.Error as ex:
        said = cause(ex)
        run.events.add(task, "lost", error=said)
        raise PromotionRolledBack(
            text(
                pt=f"O servidor de produção parou ou recusou um comando ({said}); a produção está inteira.",
                en=f"The production server stopped or refused a command ({said}); production is whole.",
            ),
            next_step=text(pt="Repita: ", en="Repeat: ") + f"invoke {task} --run {run.id} --production …",
        ) from None


@contextmanager
def answering() -> Iterator[None]:
    """Say that the production server refused something, in no word of its own.

    :raises ServerError: it did.
    """
    try:
        yield
    except psycopg.Error as ex:
        said = cause(ex)
        raise ServerError(
            text(
                pt=f"O servidor de produção parou ou recusou um comando ({said}).",
                en=f"The production server stopped or refused a command ({said}).",
            )
        ) from None


def private(run: Run) -> Path:
    """The folder for what only a promotion of the run needs, without the passfiles of processes that were killed."""
    folder = run.folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.glob("production-*.pgpass"):
        left.unlink(missing_ok=True)
    return folder


def demand_same(production: Production, journal: Journal) -> None:
    """Make sure that this is the database that a journal speaks of: OIDs are alike on servers that were made alike.

    :raises PromotionRefused: it is another.
    """
    with production.connect() as conn:
        system, _ = marks.control(conn)
    if production.database != journal.database or (system and journal.system and system != journal.system):
        raise PromotionRefused(
            text(
                pt=f"Este não é o banco desta promoção, que é {journal.database} em {journal.address}.",
                en=f"This is not the database of this promotion, which is {journal.database} on {journal.address}.",
            ),
            next_step=text(pt="Confira --production e --run.", en="Check --production and --run."),
        )


@contextmanager
def alone(production: Production) -> Iterator[Connection]:
    """A session outside of the production database, which keeps other promotions off for as long as it lasts.

    :raises PromotionRefused: another one is under way.
    """
    with production.connect_outside() as outside:
        row = outside.execute("SELECT pg_try_advisory_lock(hashtext('pec-homolog promotion'))").fetchone()
        if row != (True,):
            raise PromotionRefused(
                text(
                    pt="Outra promoção ou volta está em curso neste servidor.",
                    en="Another promotion or rollback is under way on this server.",
                ),
                next_step=text(pt="Espere que ela termine.", en="Wait for it to end."),
            )
        yield outside


def confirm(reporter: Reporter, production: Production, typed: str, question: str) -> None:
    """Have the name of the production database typed.

    :raises PromotionRefused: it was not.
    """
    typed = typed or reporter.ask(question, text(pt="digite o nome do banco", en="type the name of the database"))
    if typed != production.database:
        raise PromotionRefused(
            text(
                pt="O nome do banco de produção não foi confirmado; nada foi feito.",
                en="The name of the production database was not confirmed; nothing was done.",
            ),
            next_step=f"--confirm {production.database}",
        )
