"""What all tasks have in common: how they end, and how they name a run."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit

from merge.errors import HomologationError
from sandbox import console

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_HELP = {"run": "run id, or part of it; the last run by default"}


def exit_codes(body: Callable[..., None]) -> Callable[..., None]:
    """Show errors that are meant for the user, and leave with their exit code; 130 when interrupted."""

    @functools.wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> None:
        for name in ("SIGTERM", "SIGHUP"):  # a closed window, a stopped job: leave nothing running
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.default_int_handler)
        try:
            body(*args, **kwargs)
        except HomologationError as ex:
            console.show_error(ex)
            raise Exit(code=ex.exit_code) from None
        except KeyboardInterrupt:
            console.show_interrupted()
            raise Exit(code=130) from None

    return guarded
