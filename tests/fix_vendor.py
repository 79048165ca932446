"""A rehearsal with the engine `pec` and a stand-in for PEC's installer, and a person who works in both PECs.

What a person does on the screens of PEC is done through the stand-in's own pages; all else is as a user does it.
"""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge import catalog
from sandbox import homolog, images
from sandbox.console import Reporter
from sandbox.labelled import leftovers, remove
from sandbox.options import Options
from sandbox.rehearsal import DATABASE
from sandbox.runs import Run
from sandbox.sample import make_samples
from tests.docker.unify import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sandbox.server import Server

    Begin = Callable[..., AbstractContextManager["Session"]]

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0
SCALE = 0.34
"""Of the synthetic backups, whose rows are those of `sandbox.sample.world` of this scale with one source."""


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
    backups = make_samples(docker_server, docker_server.scratch / "vendor", scale=SCALE, sources=1)
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
        return press(self.run, host, f"standin/{action}", "GET" if action == "status" else "POST")

    def mark(self, step: str) -> None:
        """Tell the guide that a step was done."""
        done = invoke(self.runs, "pec.mark", step, "--run", self.run.id)
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


def press(run: Run, host: str, page: str, method: str = "GET") -> str:
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


def invoke(runs: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Carry out a command, whose runs are in a folder."""
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
def begin(standin: Path, tmp_path: Path) -> Begin:
    """Begin a rehearsal with the engine `pec`, given the backups and more words for the command line."""
    return partial(_session, standin, tmp_path)


@pytest.fixture
def session(prepared: Prepared, begin: Begin) -> Iterator[Session]:
    """A rehearsal that has begun; nothing of it is left."""
    with begin(*prepared.backups) as begun:
        yield begun


@contextmanager
def _session(jar: Path, folder: Path, central: Path, source: Path, *more: str) -> Iterator[Session]:
    runs, said = folder / "runs", folder / "said"
    command = [
        *(sys.executable, "-m", "invoke", "homolog", "--engine", "pec", "--pec-jar", str(jar), "--pec-memory", "512"),
        *("--pec-port", "0", "--central", str(central), "--source", f"ubs={source}", *more),
    ]
    with _process(command, runs, said) as process:
        begun = Session(runs, process, said)
        begun.wait_for("run", lambda: runs.is_dir() and bool(list(runs.glob("*/run.json"))))
        (made,) = runs.glob("2*")
        begun.run = Run(made)
        try:
            yield begun
        except BaseException:
            process.terminate()
            process.wait(120)
            remove(leftovers(begun.run.id))  # a run that is in production is not destroyed
            raise
    while_there = things(begun.run)
    destroyed = invoke(runs, "destroy", begun.run.id, "--yes")
    assert destroyed.returncode == 0, destroyed.stderr
    assert leftovers(begun.run.id) == []
    assert while_there
    assert things(begun.run) == set()
    assert not while_there & volumes()
    assert not [path for path in (made / "alternate", made / "pec", made / "work") if path.exists()]


@contextmanager
def _process(command: list[str], runs: Path, said: Path) -> Iterator[subprocess.Popen[str]]:
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


def things(run: Run) -> set[str]:
    """All that Docker has of a run: containers, networks, volumes, images, and volumes without a name."""
    with images.daemon() as client:
        kinds = (client.containers.list(all=True, ignore_removed=True), client.networks.list(), client.volumes.list())
        named = {str(one.name): one for kind in kinds for one in kind if run.id in str(one.name)}
        mounts = [mount for one in named.values() for mount in one.attrs.get("Mounts") or () if isinstance(mount, dict)]
        tags = {tag for one in client.images.list() for tag in one.tags if run.id in tag}
    return {*named, *tags, *(str(mount["Name"]) for mount in mounts if mount.get("Type") == "volume")}


def volumes() -> set[str]:
    """All volumes that Docker has."""
    with images.daemon() as client:
        return {str(volume.name) for volume in client.volumes.list()}
