"""Settings of a throwaway server: fast, and nothing of a row in its log.

It survives a killed process, not a power cut, so that nothing but what can be made again may be on it.
"""

from __future__ import annotations

import os

_MEGABYTE = 1 << 20
_MOST_WAL = 64 << 10
"""Megabytes of WAL between checkpoints, where the disk has room for it."""


def settings(
    major: int, *, memory: int | None = None, cores: int | None = None, disk: int | None = None
) -> dict[str, str]:
    """Server settings for this host, or one with these resources.

    :param memory: bytes to plan with; all of the host's by default.
    :param cores: CPU cores to plan with; all by default.
    :param disk: bytes that are free where the data are; a quarter of them may be WAL.
    """
    megabytes = (memory or _host_memory()) // _MEGABYTE
    cores = cores or os.cpu_count() or 1
    wal = _MOST_WAL if disk is None else max(min(disk // _MEGABYTE // 4, _MOST_WAL), 1024)
    chosen = {
        "fsync": "off",
        "full_page_writes": "off",
        # Not off: what a step has committed, a killed server must still have. Without fsync it costs next to nothing.
        "synchronous_commit": "on",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "archive_mode": "off",
        "max_wal_size": f"{wal}MB",
        "checkpoint_timeout": "1d",
        "autovacuum": "off",
        "shared_buffers": f"{min(max(megabytes // 4, 32), 8192)}MB",
        "maintenance_work_mem": f"{min(max(megabytes // 16, 64), 1024)}MB",
        "work_mem": f"{min(max(megabytes // 128, 16), 256)}MB",
        "max_connections": "40",
        # Steps of this project touch every table of an application in one transaction.
        "max_locks_per_transaction": "2048",
        "max_worker_processes": str(max(cores, 8)),
        "max_parallel_workers_per_gather": str(max(cores - 1, 1)),
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # An error's detail quotes the row that caused it, and so may its message: see `sandbox.server_log`.
        "log_error_verbosity": "terse",
        "log_min_messages": "fatal",
        "log_min_error_statement": "panic",
        "log_statement": "none",
        "logging_collector": "off",
    }
    if major >= 10:
        chosen["max_parallel_workers"] = str(cores)
        chosen["password_encryption"] = "scram-sha-256"  # noqa: S105
    if major >= 11:
        chosen["jit"] = "off"
        chosen["max_parallel_maintenance_workers"] = str(max(cores - 1, 1))
    return chosen


def flags(chosen: dict[str, str]) -> list[str]:
    """The settings as arguments of the program ``postgres``."""
    return [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]


def initdb_options(major: int, superuser: str) -> list[str]:
    """Arguments of ``initdb`` for a server of this project, whatever the locale of the host."""
    return [
        f"--username={superuser}",
        f"--auth={'scram-sha-256' if major >= 10 else 'md5'}",
        "--encoding=UTF8",
        "--locale=C",
        "-N",  # --no-sync, called --nosync before 10
        *(["--no-data-checksums"] if major >= 18 else []),
    ]


def _host_memory() -> int:
    if hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    return 4 * 2**30
