"""What all tests share."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = [
    "tests.fix_docker",
    "tests.fix_standin",
    "tests.fix_stack",
    "tests.fix_server",
    "tests.fix_merge",
    "tests.fix_proof",
    "tests.fix_backup",
    "tests.fix_sample",
    "tests.fix_production",
    "tests.fix_promotion",
    "tests.fix_vendor",
    "tests.fix_town",
    "tests.fix_versions",
]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Whatever a test starts has ended when it ends: a thread that stays holds a session, a file or a process."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left, f"still running: {sorted(thread.name for thread in left)}"
