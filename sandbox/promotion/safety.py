"""The safety backup: production as it is just before, restored once so that it is known to be good."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from merge import fingerprint
from merge.errors import PromotionRolledBack
from merge.language import text
from sandbox import intake, restore
from sandbox.sample.make import DUMP_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from merge.fingerprint import Fingerprint
    from sandbox.intake import Backup
    from sandbox.promotion.production import Production
    from sandbox.server import Server

    OnProgress = Callable[[int, int], None]

DATABASE = "safety"
OWNER = "homolog_safety"


def dump(production: Production, path: Path, snapshot: str, size: int, on_progress: OnProgress) -> str:
    """Dump production as the snapshot sees it; return the SHA-256 of the file, which is whole or not there.

    :param size: bytes of the database, for the progress: a dump is rarely larger.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = path.with_name(f"{path.name}.new")
    digest, done = hashlib.sha256(), 0
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with production.tool("pg_dump", *DUMP_OPTIONS, f"--snapshot={snapshot}").stream() as chunks:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                on_progress(min(done, size), size)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
    return digest.hexdigest()


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
    if unlike := fingerprint.differences(expected, found):
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
