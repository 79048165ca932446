"""The safety backup: production as it is just before, restored once so that it is known to be good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge import fingerprint
from merge.errors import PromotionRolledBack
from merge.language import text
from sandbox import intake, restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from merge.fingerprint import Fingerprint
    from sandbox.intake import Backup
    from sandbox.server import Server

    OnProgress = Callable[[int, int], None]

DATABASE = "safety"
OWNER = "homolog_safety"


def verify(
    server: Server, path: Path, expected: Fingerprint, work: Path, *, jobs: int, on_progress: OnProgress
) -> Backup:
    """Restore the backup in the sandbox, and compare what is there with what production held; return what it is.

    :param expected: of production, by the same snapshot as the dump.
    :raises PromotionRolledBack: it is not the same; production was not touched.
    """
    server.drop_database(DATABASE)  # of an interrupted promotion
    backup = intake.inspect(path, work=work)
    try:
        restore.restore_central(server, backup, DATABASE, owner=OWNER, jobs=jobs, on_progress=on_progress)
        found = fingerprint.take(lambda: server.connect(DATABASE, OWNER), jobs, on_progress)
    finally:
        server.drop_database(DATABASE)
    if unlike := fingerprint.differences(expected, found, restored=True):
        raise PromotionRolledBack(
            text(
                pt="O backup de segurança, restaurado, não é igual à produção; nada foi mudado.",
                en="The safety backup, once restored, is not the same as production; nothing was changed.",
            ),
            evidence=path,
            details=[str(one) for one in unlike],
            next_step=text(
                pt="Não promova. Confira os discos e os programas pg_dump e pg_restore, e tente de novo.",
                en="Do not promote. Check the disks and the programs pg_dump and pg_restore, and try again.",
            ),
        )
    return backup
