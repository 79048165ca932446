"""The disk of a server, watched while code of somebody else may fill it."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from merge.errors import BackupError
from merge.language import text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server import Server

KEPT_FREE = 1 << 30
"""Bytes that a restore leaves free on the server's disk."""

_LOOK_SECONDS = 0.5
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


@contextmanager
def watched(server: Server, database: str) -> Iterator[None]:
    """End the sessions in a database when the disk is nearly full.

    :raises BackupError: in the place of what they then say.
    """
    place, stop = server.place, threading.Event()
    full = threading.Event()
    thread = threading.Thread(target=_watch, args=(server, database, place, stop, full))
    thread.start()
    try:
        yield
    except Exception:
        if full.is_set():
            raise _no_room(place) from None
        raise
    finally:
        stop.set()
        thread.join()


def _watch(server: Server, database: str, place: Path, stop: threading.Event, full: threading.Event) -> None:
    while not stop.wait(_LOOK_SECONDS):
        if shutil.disk_usage(place).free < KEPT_FREE:
            full.set()
            try:
                with server.connect("postgres") as conn:
                    conn.execute(_END, [database])
            except psycopg.Error:
                continue  # it is tried again


def _no_room(place: Path) -> BackupError:
    return BackupError(
        text(
            pt="A restauração foi interrompida: o disco estava quase cheio.",
            en="The restore was ended: the disk was nearly full.",
        ),
        details=[str(place)],
        next_step=text(
            pt="Libere espaço e tente de novo; se o backup for pequeno, desconfie dele.",
            en="Free some space and try again; if the backup is small, do not trust it.",
        ),
    )
