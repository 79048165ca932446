"""The whole stack with a stand-in for PEC's installer: two PECs in the closed room, a unification by hand, the proof.

What a person does on the screens of PEC is done through the stand-in's own pages; all else is as a user does it.
"""

from __future__ import annotations

import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge import catalog
from sandbox import homolog, images
from sandbox.console import Reporter
from sandbox.labelled import leftovers
from sandbox.options import Options
from sandbox.rehearsal import DATABASE
from sandbox.runs import Run
from sandbox.sample import make_samples
from tests.docker.unify import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server import Server

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0


@dataclass(frozen=True)
class Prepared:
    """Two backups, and what a unification of them adds to the central."""

    backups: list[Path]
    script: str
    runs: Path
    run: Run


@pytest.fixture(scope="module")
def prepared(docker_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Backups of a central and a source, merged once by our own engine in the vendor's scope to see what comes."""
    folder = tmp_path_factory.mktemp("vendor")
    backups = make_samples(docker_server, docker_server.scratch / "vendor", scale=0.34, sources=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMOLOG_RUNS", str(folder))
        options = Options.parse(
            central=str(backups[0]), sources=[f"ubs={backups[1]}"], server="docker", scope="vendor", keep_running=True
        )
        run, result = homolog.start(options, Reporter(as_json=True))
        try:
            assert result.status == "validated", result.problem
            with homolog.open_server(run).connect(DATABASE) as conn:
                added = script(conn, catalog.read(conn, "public"))
            yield Prepared(backups, added, folder, run)
        finally:
            homolog.destroy(run)


@dataclass
class Session:
    """A rehearsal with the engine `pec` that is under way in a process of its own, and a person who works in it."""

    runs: Path
    process: subprocess.Popen[str]
    said: Path
    run: Run = field(init=False)

    def wait_for(self, what: str, happened: Callable[[], bool]) -> None:
        """Wait until something happened, for as long as the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, self.tell()
            assert time.monotonic() < deadline, f"{what}: {self.tell()}"
            time.sleep(0.5)

    def tell(self) -> str:
        """The end of all that was said."""
        said = [self.said.read_text()[-3000:]]
        said += [f"{log.name}: {log.read_text()[-2000:]}" for log in self.runs.glob("*/alternate/*.log")]
        return "\n".join(said)

    def wait_for_guide(self, mark: str) -> None:
        """Wait until a step is asked for."""
        self.wait_for(mark, lambda: f"pec.mark {mark} " in self.said.read_text())

    def press(self, host: str, action: str) -> str:
        """Press a button of a PEC."""
        return _press(self.run, host, f"standin/{action}", "GET" if action == "status" else "POST")

    def mark(self, step: str) -> None:
        """Tell the guide that a step was done."""
        done = _invoke(self.runs, "pec.mark", step, "--run", self.run.id)
        assert done.returncode == 0, done.stderr

    def deliver(self, content: str) -> None:
        """Put the script of the unification into the central's PEC."""
        data = content.encode()
        info = tarfile.TarInfo("unify.sql")
        info.size, info.mode = len(data), 0o600
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(info, io.BytesIO(data))
        with images.daemon() as client:
            client.containers.get(f"homolog-{self.run.id}-pec-central").put_archive("/run/pec", buffer.getvalue())

    def unify(self, content: str) -> None:
        """Do what the guide says, up to the end."""
        self.wait_for_guide("requested")
        self.deliver(content)
        self.press("source.homolog", "unify?https://central.homolog")
        self.mark("requested")
        self.wait_for_guide("accepted")
        self.press("central.homolog", "accept")
        self.mark("accepted")
        self.wait_for_guide("unifying")
        self.mark("unifying")
        self.wait_for_guide("unified")
        self.wait_for("unified", lambda: self.press("central.homolog", "status") == "Base unificada")
        self.mark("unified")

    def end(self) -> dict[str, Any]:
        """Wait for the end; return the result."""
        self.process.wait(PATIENCE)
        result: dict[str, Any] = self.run.load("result")
        return result


def _press(run: Run, host: str, page: str, method: str = "GET") -> str:
    """Ask a PEC for a page, through the proxy, trusting only the run's authority."""
    context = ssl.create_default_context(cafile=str(run.folder / "alternate" / "ca.crt"))
    with images.daemon() as client:
        net = client.containers.get(f"homolog-{run.id}-pec-net")
    port = net.attrs["NetworkSettings"]["Ports"]["443/tcp"][0]["HostPort"]
    # The certificate is of 127.0.0.1 too; which PEC answers is told by the name.
    request = urllib.request.Request(f"https://127.0.0.1:{port}/{page}", method=method, headers={"Host": host})
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        said: str = answer.read().decode()
    return said


def _invoke(runs: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        env={**os.environ, "HOMOLOG_RUNS": str(runs), "HOMOLOG_LANG": "en"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        **options,
    )


@pytest.fixture
def session(prepared: Prepared, standin: Path, tmp_path: Path) -> Iterator[Session]:
    """Begin a rehearsal with the engine `pec`; nothing of it is left."""
    central, source = prepared.backups
    runs, said = tmp_path / "runs", tmp_path / "said"
    with _process(runs, said, central, source, standin) as process:
        begun = Session(runs, process, said)
        begun.wait_for("run", lambda: runs.is_dir() and bool(list(runs.glob("*/run.json"))))
        (folder,) = runs.glob("2*")
        begun.run = Run(folder)
        yield begun
    while_there = _things(begun.run)
    assert _invoke(runs, "destroy", begun.run.id, "--yes").returncode == 0
    assert leftovers(begun.run.id) == []
    assert while_there
    assert _things(begun.run) == set()
    assert not while_there & _volumes()
    assert not [path for path in (folder / "alternate", folder / "pec", folder / "work") if path.exists()]


@contextmanager
def _process(runs: Path, said: Path, central: Path, source: Path, jar: Path) -> Iterator[subprocess.Popen[str]]:
    command = [
        *(sys.executable, "-m", "invoke", "homolog", "--engine", "pec", "--pec-jar", str(jar), "--pec-memory", "512"),
        *("--pec-port", "0"),
        *("--central", str(central), "--source", f"ubs={source}"),
    ]
    env = {**os.environ, "HOMOLOG_RUNS": str(runs), "HOMOLOG_LANG": "en", "COLUMNS": "300"}
    with said.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


def _things(run: Run) -> set[str]:
    """All that Docker has of a run: containers, networks, volumes, images, and volumes without a name."""
    with images.daemon() as client:
        kinds = (client.containers.list(all=True, ignore_removed=True), client.networks.list(), client.volumes.list())
        named = {str(one.name): one for kind in kinds for one in kind if run.id in str(one.name)}
        mounts = [mount for one in named.values() for mount in one.attrs.get("Mounts") or () if isinstance(mount, dict)]
        tags = {tag for one in client.images.list() for tag in one.tags if run.id in tag}
    return {*named, *tags, *(str(mount["Name"]) for mount in mounts if mount.get("Type") == "volume")}


def _volumes() -> set[str]:
    with images.daemon() as client:
        return {str(volume.name) for volume in client.volumes.list()}


def test_a_unification_by_hand_is_watched_and_proved(session: Session, prepared: Prepared) -> None:
    session.unify(prepared.script)
    result = session.end()
    found = [f"{d['kind']} {d['table']}.{d['column']} [{d['key']}] {d['reason']}" for d in result["differences"]]
    assert not found, " · ".join(found)
    assert result["status"] == "validated", result["problem"]
    assert result["engine"] == "pec"
    proof = result["content_proof"]
    assert proof["differences"] == 0
    assert proof["central_unchanged"] is None
    assert proof["rows_compared"] > 100_000
    assert proof["declared"]["tb_unificacao_base invented"] == 1  # PEC's own writing is told, and no difference
    assert all(source["dispositions"] is None for source in result["sources"])
    kept = session.run.load("pec")
    assert {line["left"] for line in kept["isolation"]} == {0}
    assert [line["moment"] for line in kept["isolation"]] == ["before", "before PEC", "PEC runs", "after"]
    assert {change["rule"] for change in kept["neutralised"]["central"] if change["rows"]} >= {"D-05", "D-06", "D-10"}
    assert kept["undone"]["central"]["conflict_count"] == 0
    assert kept["undone"]["central"]["is_undone"]
    assert kept["undone"]["central"]["restored"] > 0

    # A row that does not come is found, by content alone.
    with homolog.open_server(session.run).connect(DATABASE) as conn:
        last = "(SELECT max(ctid) FROM public.tb_registro_vacinacao)"
        conn.execute(f"DELETE FROM public.tb_registro_vacinacao WHERE ctid = {last}")
    again = _invoke(session.runs, "prove", "--run", session.run.id, "--json")
    assert again.returncode == 6, again.stderr[-2000:]
    assert {d["table"] for d in json.loads(again.stdout)["differences"]} >= {"tb_registro_vacinacao"}


def test_the_first_error_stops_it_and_nothing_is_repeated(session: Session) -> None:
    session.wait_for_guide("requested")
    session.deliver("INSERT INTO public.tb_cidadao (co_seq_cidadao) VALUES (-1);\nCOMMIT;\n")
    session.press("source.homolog", "unify?https://central.homolog")
    session.mark("requested")
    session.wait_for_guide("accepted")
    session.press("central.homolog", "accept")
    session.mark("accepted")
    result = session.end()
    assert result["status"] == "failed"
    assert session.process.returncode == 5
    (ticket,) = (session.run.folder / "alternate").glob("ticket-*.zip")
    assert result["problem"]["evidence"]
    assert ticket.stat().st_mode & 0o077 == 0
    assert "pec-central logged an error" in result["problem"]["what"]
    again = _invoke(session.runs, "homolog", "--resume", session.run.id)
    assert again.returncode == 2, again.stderr
    assert "not repeated" in again.stdout + again.stderr
    back = _invoke(session.runs, "pec.put-back", "--run", session.run.id)
    assert back.returncode == 0, back.stderr


def test_people_look_at_the_result(prepared: Prepared, standin: Path, make_standin: Callable[[str], Path]) -> None:
    def invoke(*words: str) -> subprocess.CompletedProcess[str]:
        return _invoke(prepared.runs, *words, "--run", prepared.run.id)

    homolog.stop(prepared.run)
    before, files = _things(prepared.run), set(prepared.run.folder.iterdir())
    other = invoke("pec.up", "--pec-jar", str(make_standin("5.4.1")), "--port", "0")
    assert other.returncode == 2, other.stderr
    assert "of version 5.4.1" in other.stdout + other.stderr
    killed = invoke("pec.up", "--pec-jar", str(standin), "--port", "0", "--memory", "32")
    assert killed.returncode == 2, killed.stdout + killed.stderr
    assert "there was not enough memory" in killed.stdout + killed.stderr
    up = invoke("pec.up", "--pec-jar", str(standin), "--port", "0", "--memory", "512")
    assert up.returncode == 0, up.stdout + up.stderr
    assert json.loads(_press(prepared.run, "central.homolog", "api/public/info"))["training"] is True
    assert invoke("pec.watch", "--minutes", "0.01").returncode == 0
    assert invoke("pec.smoke", "--stratum", "pregnant", "--by", "Enf. Teste").returncode == 0
    kept = prepared.run.load("smoke")
    assert {drawn["stratum"] for drawn in kept["drawn"]} == {"pregnant", "chronic", "vaccinated_child", "both_bases"}
    assert [signature["stratum"] for signature in kept["signatures"]] == ["pregnant"]

    _press(prepared.run, "central.homolog", "standin/error", "POST")
    watched = invoke("pec.watch", "--minutes", "1")
    assert watched.returncode == 2, watched.stdout + watched.stderr
    assert "pec-central logged an error" in watched.stdout + watched.stderr
    assert list((prepared.run.folder / "alternate").glob("ticket-*.zip"))

    while_it_runs = _things(prepared.run)
    assert len(while_it_runs) > len(before) + 6
    down = invoke("pec.down")
    assert down.returncode == 0, down.stderr
    assert _things(prepared.run) == before
    assert not (while_it_runs - before) & _volumes()
    assert {line["left"] for line in prepared.run.load("pec")["isolation"]} == {0}
    # Of what PEC had, only the evidence stays: no copy, no log, no old value.
    left = {path.name for path in set(prepared.run.folder.iterdir()) - files}
    assert left <= {"alternate", "pec.json", "smoke.json", "support-bundle.zip", "lock"}
    assert all(path.suffix == ".zip" for path in (prepared.run.folder / "alternate").iterdir())
    assert invoke("prove").returncode == 0  # the candidate was not touched
