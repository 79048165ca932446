"""The errors a user may see: one tree, each with its exit code.

Every error says what happened, where the evidence is and what to do next. None may carry a name, a CPF, a CNS or
an address: only counts, table and column names, and internal ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg


class HomologationError(Exception):
    """Base of all errors meant for the user.

    :param what: one sentence that says what happened.
    :param evidence: path or place where the evidence is kept.
    :param next_step: what the user should do now.
    :param details: problems of the same kind, collected and shown together.
    """

    exit_code: ClassVar[int] = 5

    def __init__(
        self,
        what: str,
        *,
        evidence: object | None = None,
        next_step: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.evidence = None if evidence is None else str(evidence)
        self.next_step = next_step
        self.details = tuple(details)


def cause(error: psycopg.Error) -> str:
    """What a server's error may be called before users: its class and SQLSTATE. Its own message might quote a row."""
    return " ".join(part for part in (type(error).__name__, error.sqlstate) if part)


class Interrupted(HomologationError):
    """The user, or the machine, ended a run before it was done."""

    exit_code = 130


class Unexpected(HomologationError):
    """Something that nobody foresaw; its own message is not shown, as it may quote a row."""


class ConfigError(HomologationError):
    """The configuration, the command line or the profile is wrong."""

    exit_code = 2


class ServerError(ConfigError):
    """No server could be had, or the one that was asked for does not start."""


class BackupError(HomologationError):
    """A backup file cannot be used: truncated, empty, foreign, corrupt, encrypted or too new."""

    exit_code = 3


class BlockedError(HomologationError):
    """Something forbids the merge before anything was written."""

    exit_code = 4


class PreflightBlocked(BlockedError):
    """A preflight check blocks."""


class CoverageError(BlockedError):
    """A table has no role, or a column that looks like a reference is not declared."""


class SchemaDifference(BlockedError):
    """Source and central do not have the same schema."""


class CollisionError(BlockedError):
    """Rows of the source would collide with unique keys of the central."""


class MergeError(HomologationError):
    """The merge failed and was rolled back."""

    exit_code = 5


class ProofFailed(HomologationError):
    """The merged database differs from what the sources and the baseline demand."""

    exit_code = 6


class PromotionRefused(HomologationError):
    """The candidate may not be promoted."""

    exit_code = 7


class PromotionRolledBack(HomologationError):
    """A promotion failed and production is what it was."""

    exit_code = 8
