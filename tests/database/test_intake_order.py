"""What backups hold, measured in every form; and what the checks of files say of real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merge import profile
from sandbox import file_checks, host_checks, order
from sandbox.contents import Contents
from sandbox.intake import inspect
from sandbox.sample import make_samples
from tests.fix_backup import ALL_FORMS, DATABASE

if TYPE_CHECKING:
    from sandbox.server import Server
    from tests.fix_backup import Backups

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("form", ALL_FORMS)
def test_rows_of_every_form(backups: Backups, server: Server, tmp_path: Path, form: str) -> None:
    seen: list[tuple[int, int]] = []
    backup = inspect(backups[form], work=tmp_path / "work", on_progress=lambda *told: seen.append(told))
    found = Contents.of(backup)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] >= backup.size
    if "inserts" in form:
        assert (found.unit, found.rows) == ("inserts", None)
        assert found.size > 1000
        return
    names = {name: name if "." in name else f"public.{name}" for name in backup.tables}
    with server.connect(DATABASE) as conn:
        rows, sizes = {}, {}
        for name, table in names.items():
            schema, _, bare = table.partition(".")
            columns = conn.execute(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND attnum > 0 AND NOT attisdropped"
                " AND attgenerated = ''",
                [schema, bare],
            ).fetchone()
            listed = f"({columns[0]})" if columns and columns[0] else ""
            with conn.cursor().copy(f'COPY "{schema}"."{bare}" {listed} TO STDOUT'.encode()) as copy:
                data = b"".join(copy)
            if data:
                rows[name], sizes[name] = data.count(b"\n"), len(data)
    assert found.unit == "text"
    assert found.rows == rows
    assert found.rows["no_columns"] == 2
    assert "empty" not in found.rows
    # A server and pg_dump write floating point numbers with other digits.
    assert {t: n for t, n in found.sizes.items() if t != "Odd TYPES"} == {
        t: n for t, n in sizes.items() if t != "Odd TYPES"
    }


@pytest.fixture(scope="module")
def samples(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_samples(server, tmp_path_factory.mktemp("samples"), scale=0.34, sources=1)


@pytest.mark.slow
def test_no_check_stops_the_sample(samples: list[Path], server: Server, tmp_path: Path) -> None:
    essential = profile.load().application.essential
    found = order.examine(samples, tmp_path)
    central = found[0].backup
    answers = [host_checks.memory()]
    for candidate in found:
        backup = candidate.backup
        answers += [
            file_checks.checksum(backup, candidate.name),
            file_checks.versions(central, backup, candidate.name, server.major),
            file_checks.complete(backup, candidate.name, essential),
            file_checks.encoding(backup, candidate.name),
            file_checks.age(backup, candidate.name, file_checks.created(backup)),
        ]
    needed = host_checks.disk_needed([(c.backup, c.contents) for c in found])
    answers.append(host_checks.disk(needed, tmp_path))
    assert {a.state for a in answers} <= {"passed", "recorded"}
    assert host_checks.disk_needed([(c.backup, None) for c in found]) > 0


def test_what_is_left_out_of_a_backup(server: Server, samples: list[Path], backups: Backups, tmp_path: Path) -> None:
    odd = inspect(backups["custom"], work=tmp_path / "1")
    missing = file_checks.complete(odd, "ubs", ["parent", "tb_cidadao"])
    assert (missing.state, missing.details) == ("blocked", ("tb_cidadao",))
    assert file_checks.complete(odd, "ubs", ["parent"]).state == "passed"  # a partitioned table has no rows of its own
    part = tmp_path / "part"
    server.tool("pg_dump", "-Fc", "--exclude-table-data=no_key", "--file", server.path(part), database=DATABASE).run()
    without = file_checks.complete(inspect(part, work=tmp_path / "2"), "ubs", ["parent"])
    assert (without.state, without.details, without.numbers["without_data"]) == ("warned", ("no_key",), 1)
    server.tool("pg_dump", "-Fc", "-T", "parent", "--file", server.path(part), database=DATABASE).run()
    assert file_checks.complete(inspect(part, work=tmp_path / "3"), "ubs", ["parent"]).state == "blocked"


def test_collation_of_a_dump(server: Server, tmp_path: Path) -> None:
    with server.connect("postgres") as conn:
        conn.execute(
            "CREATE DATABASE collated TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' ENCODING 'UTF8'"
        )
    try:
        path = tmp_path / "a"
        server.tool("pg_dump", "-Fc", "--file", server.path(path), database="collated").run()
    finally:
        server.drop_database("collated")
    backup = inspect(path, work=tmp_path / "work")
    found = file_checks.encoding(backup, "ubs")
    assert (found.state, found.values) == ("recorded", {"encoding": "UTF8", "collation": "C.UTF-8"})
    # The same dump, of a Windows server: the name is as long.
    content = path.read_bytes()
    other = tmp_path / "b"
    name = b"Portuguese_Brazil.1252"
    old = b"LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8'"
    assert content.count(old) == 1
    other.write_bytes(content.replace(old, b"LC_COLLATE = '" + name + b"'" + b" " * (len(old) - len(name) - 15)))
    found = file_checks.encoding(inspect(other, work=tmp_path / "other"), "ubs")
    assert found.values["collation"] == name.decode()
    assert "Windows" in found.message


def _intake(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", "intake", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "HOMOLOG_RUNS": str(tmp_path / "runs"), "HOMOLOG_LANG": "en"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_task(samples: list[Path], tmp_path: Path) -> None:
    central, source = samples
    done = _intake(tmp_path, source, "--also", central, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["central"], found["sources"]) == ("central", ["ubs-a"])
    assert found["backups"][0]["rows"]["tb_cidadao"] == 272
    shown = _intake(tmp_path, central.parent)
    assert shown.returncode == 0
    assert found["command"] in shown.stdout
    (tmp_path / "bad.backup").write_bytes(central.read_bytes()[:5000])
    bad = _intake(tmp_path, central, "--also", tmp_path / "bad.backup", "--also", "/etc/hostname")
    assert bad.returncode == 3
    assert "bad.backup" in bad.stderr
    assert "hostname" in bad.stderr
    assert list((tmp_path / "runs").iterdir()) == []
