"""What a kill may leave in the journal, and another server than the one it speaks of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from merge import fingerprint
from merge.errors import ConfigError, PromotionRefused
from sandbox import homolog
from sandbox.promotion import promote, rollback
from sandbox.promotion.attempt import Asked
from sandbox.promotion.journal import Journal
from tests.promotion.test_promote import asked, content, databases

if TYPE_CHECKING:
    from tests.fix_promotion import Shop


def test_the_journal_of_another_server_is_not_acted_upon(signed: Shop) -> None:
    """Servers that were made alike have databases with the same OIDs."""
    journal = promote.promote(signed.run, asked(signed), signed.reporter)
    replace(journal, system="1").save(signed.run)
    for act in (
        lambda: promote.promote(signed.run, asked(signed), signed.reporter),
        lambda: rollback.rollback(signed.run, rollback.Asked(signed.dsn(), signed.database), signed.reporter),
    ):
        with pytest.raises(PromotionRefused) as caught:
            act()
        assert journal.address in caught.value.what
    journal.save(signed.run)
    with pytest.raises(PromotionRefused):  # not accepted
        homolog.destroy(signed.run)


def test_killed_between_the_commit_and_its_note(signed: Shop) -> None:
    """The run is not destroyed then; promote finishes, and so does rollback."""
    journal = Journal.of(signed.run)
    assert journal is not None
    assert journal.state == "promoted"
    before = content(signed, journal.kept)
    unnoted = replace(journal, state="preparing", promoted_at=None, login_wait=None, facts={})
    unnoted.save(signed.run)
    with pytest.raises(PromotionRefused) as caught:
        homolog.destroy(signed.run)
    assert "interrupted" in caught.value.what
    again = promote.promote(signed.run, asked(signed), signed.reporter)
    assert (again.state, set(again.facts["smoke"].values())) == ("promoted", {"ok"})
    again.noted(smoke={"version": "another"}).save(signed.run)  # what failed is looked at again
    assert promote.promote(signed.run, asked(signed), signed.reporter).facts["smoke"] == again.facts["smoke"]
    unnoted.save(signed.run)
    back = rollback.rollback(signed.run, rollback.Asked(signed.dsn(), signed.database), signed.reporter)
    assert back.state == "rolled_back"
    replace(back, state="promoted", rollback=None).save(signed.run)  # somebody else went back, by hand
    with pytest.raises(PromotionRefused):
        rollback.rollback(signed.run, rollback.Asked(signed.dsn(), signed.database), signed.reporter)
    replace(back, state="promoted").save(signed.run)  # the rollback was cut before it was noted
    rehearsed = promote.promote(signed.run, asked(signed, dry_run=True), signed.reporter)
    assert rehearsed.state == "preparing"
    assert fingerprint.differences(before, content(signed)) == ()


def test_rollback_cleans_up_after_one_that_was_never_carried_out(signed: Shop) -> None:
    """It says that nothing was promoted, and nothing is left beside production."""
    names = databases(signed)

    class Killed(BaseException):
        """No error of ours: nobody cleans up."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandbox.promotion.promote.put_back", _raise(Killed))
        with pytest.raises(Killed):
            promote.promote(signed.run, asked(signed), signed.reporter)
    assert len(databases(signed) - names) == 1
    with pytest.raises(ConfigError):
        rollback.rollback(signed.run, rollback.Asked(signed.dsn(), signed.database), signed.reporter)
    assert databases(signed) == names


def test_who_is_refused_keeps_nobody_waiting(signed: Shop) -> None:
    """A writer at work is no reason beside others, as no lock is asked for."""
    with signed.production.connect(autocommit=False) as conn:
        conn.execute("UPDATE auth_user SET first_name = first_name")
        with pytest.raises(PromotionRefused) as caught:
            promote.promote(signed.run, Asked(signed.dsn(), signed.database, disk_free=1), signed.reporter)
        assert [reason for reason in caught.value.details if "no room" not in reason] == []
        conn.rollback()


def _raise(kind: type[BaseException]) -> object:
    def act(*_: object) -> None:
        raise kind

    return act
