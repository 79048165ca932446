"""User-facing text in Portuguese (Brazil) or English, both written where the message is used."""

from __future__ import annotations

import os


def text(*, pt: str, en: str) -> str:
    """Return `pt`, or `en` when the environment has ``HOMOLOG_LANG=en``."""
    return en if os.environ.get("HOMOLOG_LANG", "pt").lower().startswith("en") else pt
