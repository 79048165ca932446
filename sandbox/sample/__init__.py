"""Synthetic PEC installations and their backups: the whole schema, made-up people, planted overlaps.

`make_samples` makes backup files; `create_schema` and `fill` make one installation in a database; `overlap` says what
the sources share with the central, `PLANTED` what `plant` hides in one.
"""

from sandbox.sample.attachments import attachments_of
from sandbox.sample.fill import create_schema, fill
from sandbox.sample.make import make_samples
from sandbox.sample.overlap import Installation, Overlap, overlap, world
from sandbox.sample.planted import PLANTED, plant

__all__ = [
    "PLANTED",
    "Installation",
    "Overlap",
    "attachments_of",
    "create_schema",
    "fill",
    "make_samples",
    "overlap",
    "plant",
    "world",
]
