"""Production is reached as its operator reaches it, and no password is seen on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from merge.errors import ConfigError
from sandbox.promotion.production import Production
from tests.fix_production import DATABASE, OWNER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_production import ProductionServer


def test_it_is_reached(production: ProductionServer, tmp_path: Path) -> None:
    """As superuser and as the owner; the passfile that tools need is private, and goes at the end."""
    for role in ("postgres", OWNER):
        with Production(production.dsn(role=role), tmp_path) as found:
            assert (found.database, found.role, found.major) == (DATABASE, role, 16)
            assert found.is_superuser == (role != OWNER)
            assert production.password not in found.conninfo()
            passfile = tmp_path / "production.pgpass"
            assert passfile.stat().st_mode & 0o777 == 0o600
            dump = found.tool("pg_dump", "-Fc", "--schema-only").run().stdout
            assert dump.startswith(b"PGDMP")
            with found.connect_outside() as conn:
                assert conn.info.dbname == "postgres"
        assert not passfile.exists()


@pytest.mark.parametrize("dsn", ["postgresql://u:secret@127.0.0.1/esus", "host=127.0.0.1 password=secret dbname=esus"])
def test_a_password_in_the_address_is_refused(dsn: str, tmp_path: Path) -> None:
    """And it is not repeated in the error."""
    with pytest.raises(ConfigError) as refused:
        Production(dsn, tmp_path)
    assert "secret" not in f"{refused.value.what}{refused.value.details}{refused.value.next_step}"
