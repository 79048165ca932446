"""User-facing text in Portuguese (Brazil) or English, both written where the message is used."""

from __future__ import annotations

import os


def counted(count: int, one: str, many: str) -> str:
    """A count with its noun, e.g. ``1 linha``, ``1.204 linhas``; what else depends on the count goes into both."""
    return f"{number(count)} {one if count == 1 else many}"


def number(value: float) -> str:
    """A whole number with the language's separators."""
    return f"{int(value):,}".replace(",", text(pt=".", en=","))


def text(*, pt: str, en: str) -> str:
    """Return `pt`, or `en` when the environment has ``HOMOLOG_LANG=en``."""
    return en if os.environ.get("HOMOLOG_LANG", "pt").lower().startswith("en") else pt
