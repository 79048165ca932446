"""How production is entered: by one operator at a time, who has typed its name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from merge.errors import Interrupted, PromotionRefused, PromotionRolledBack
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.console import Reporter
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
    except psycopg.Error as ex:
        cause = " ".join(part for part in (type(ex).__name__, ex.sqlstate) if part)
        run.events.add(task, "lost", error=cause)
        raise PromotionRolledBack(
            text(
                pt=f"O servidor de produção parou ou recusou um comando ({cause}); a produção está inteira.",
                en=f"The production server stopped or refused a command ({cause}); production is whole.",
            ),
            next_step=text(pt="Repita: ", en="Repeat: ") + f"invoke {task} --run {run.id} --production …",
        ) from None


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
