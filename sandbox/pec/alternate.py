"""The alternate PECs of a run: in a closed room, on neutral databases, watched until they answer.

The order is the safety, and no step of it can be left out: `Alternate.boot` itself looks whether the room is closed and
each database is neutral, and starts no PEC otherwise. The room is looked at again while they run, and at the end.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from merge.errors import BlockedError, ConfigError, ServerError
from merge.language import text
from sandbox import images, installer, labelled
from sandbox.pec import isolation, neutralise, pec_log, tls
from sandbox.pec.compose import PART
from sandbox.pec.container_log import ContainerLog
from sandbox.pec.undo_list import UndoList
from sandbox.throwaway import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from merge.profile import Profile
    from sandbox.console import Reporter
    from sandbox.pec.neutralise import Undone
    from sandbox.pec.pec_log import Event
    from sandbox.pec.stack_server import StackServer
    from sandbox.pec.undo_values import Connection
    from sandbox.runs import Run

CENTRAL, SOURCE, PROXY, CANARY = "pec-central", "pec-source", "proxy", "canary"
HOSTS = {CENTRAL: "central.homolog", SOURCE: "source.homolog"}
"""Names of the PECs inside the room; outside, a line of the hosts file gives them to a browser."""

PATIENCE = 25.0
"""Minutes that a PEC may take to answer: the longest first start that others have told of."""

FOLDER = "alternate"
"""The folder of a run's folder with the evidence of its PECs."""
AUTHORITY = "ca.crt"
_SECONDS_BETWEEN_LOOKS = 3.0
_HTTP_SECONDS = 10.0


@dataclass(frozen=True)
class Base:
    """A database that a PEC is to work on.

    :param service: `CENTRAL` or `SOURCE`: which PEC.
    :param name: what it is called in the run's evidence.
    :param link: the address under which people and the other PEC reach it.
    """

    service: str
    name: str
    database: str
    owner: str
    link: str

    @property
    def host(self) -> str:
        """Its name in the room."""
        return HOSTS[self.service]


@dataclass
class Watched:
    """A PEC that was started, and what its log has said."""

    base: Base
    log: ContainerLog
    follower: pec_log.Follower = field(default_factory=lambda: pec_log.Follower(pec_log.load_known()))

    def read(self, *, final: bool = False) -> tuple[Event, ...]:
        """What came since the last time."""
        events = self.follower.feed(self.log.read())
        return (*events, *self.follower.flush(final=final))


class Alternate:
    """The PECs of one run; `server` is the one of their room."""

    def __init__(self, run: Run, reporter: Reporter, server: StackServer, profile: Profile) -> None:
        self.run, self.reporter, self.server, self.profile = run, reporter, server, profile
        self.stack = server.stack
        self.folder = run.folder / FOLDER
        self.folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def authority(self) -> Path:
        """The certificate that browsers are to trust while they look at these PECs."""
        return self.folder / AUTHORITY

    def connect_to(self, base: Base) -> Callable[[], Connection]:
        """What opens a connection of its owner to a base."""
        return partial(self.server.connect, base.database, base.owner)

    def note(self, **values: Any) -> None:
        """Keep values in the run's ``pec.json``."""
        self.run.save("pec", {**(self.run.load("pec") if self.run.has("pec") else {}), **values})

    def kept(self, name: str, default: Any) -> Any:
        """What ``pec.json`` holds under a name."""
        return self.run.load("pec").get(name, default) if self.run.has("pec") else default

    def use(self, jar: Path) -> installer.Installer:
        """Have the image of PEC made from its installer, and that of the proxy."""
        with self.reporter.step(text(pt="Preparar as imagens do PEC", en="Prepare the images of PEC")):
            found = installer.inspect(jar)
            pec, proxy = images.pec(jar), images.proxy()
        self.stack.settings = replace(self.stack.settings, pec=pec, proxy=proxy)
        self.note(installer={"name": jar.name, "sha256": found.sha256, "version": found.version, "image": pec})
        return found

    def demand_version(self, version: str | None, names: Sequence[str], *, migrate: bool = False) -> None:
        """Look whether an installer is of the version of bases of the run, as far as both are known.

        :param names: the bases' names in the run.
        :param migrate: PEC may bring them to its version.
        :raises ConfigError: it is of another.
        """
        known = self.run.load("run").get("versions", {})
        other = {name: known[name] for name in names if known.get(name) not in (None, version)}
        if version is None or not other or migrate:
            return
        found = ", ".join(f"{name}: {base}" for name, base in other.items())
        raise ConfigError(
            text(
                pt=f"O instalador é da versão {version}, e as bases não ({found}): o PEC não iniciaria.",
                en=f"The installer is of version {version}, the bases are not ({found}): PEC would not start.",
            ),
            next_step=text(
                pt="Use o instalador da versão das bases. Só para olhar, pec.up --migrate leva a cópia à versão dele.",
                en="Use the installer of the bases' version. Only to look, pec.up --migrate brings the copy to it.",
            ),
        )

    # Before a PEC starts

    def check_isolation(self, moment: str, *, keep: bool = True) -> isolation.Isolation:
        """Prove that nothing gets out of the room, and keep the proof.

        :param moment: when in the life of the room this is, e.g. ``before`` or ``during``.
        :param keep: also in ``pec.json``; if not, as an event only.
        :raises ServerError: something did, or could.
        """
        proved = isolation.prove_isolation(self.stack)
        line = {
            "moment": moment,
            "when": proved.when,
            "containers": len(proved.containers),
            "attempts": len(proved.attempts),
            "left": proved.left,
            "dropped": proved.dropped,
        }
        if keep:
            self.note(isolation=[*self.kept("isolation", []), line])
        self.run.events.add("pec", "isolated", **line)
        return proved

    def undo_list(self, base: Base) -> UndoList:
        """Where the old values of what was neutralised in a base are."""
        return undo_list_of(self.run, base.name)

    def neutralise(self, base: Base) -> None:
        """Keep a restored base from talking to the outside.

        :raises BlockedError: it cannot be made neutral.
        """
        changes = neutralise.neutralise(
            self.connect_to(base), self.profile.neutralise, self.undo_list(base), link=base.link
        )
        kept = {**self.kept("neutralised", {}), base.name: changes}
        self.note(neutralised=kept)
        self.run.events.add("pec", "neutralised", base=base.name, rows=sum(change.rows for change in changes))
        absent = [change.rule for change in changes if change.found is neutralise.Found.ABSENT]
        if absent:
            self.reporter.note(
                text(
                    pt=f"{base.name}: sem a tabela ou coluna de {', '.join(absent)} nesta versão",
                    en=f"{base.name}: this version has no table or column for {', '.join(absent)}",
                )
            )

    def undo(self, base: Base) -> Undone:
        """Put back what was neutralised in a base, on which no PEC runs."""
        connect = self.connect_to(base)
        undone = neutralise.undo(connect, self.undo_list(base))
        same = neutralise.is_undone(connect, self.undo_list(base))  # bit by bit
        self.note(undone={**self.kept("undone", {}), base.name: {**asdict(undone), "is_undone": same}})
        return undone

    # PECs

    def boot(self, *bases: Base, patience: float = PATIENCE) -> list[Watched]:
        """Start a PEC on each base, with the proxy and the canary, and wait until all answer.

        :param patience: minutes.
        :raises BlockedError: a base is not neutral; no PEC was started.
        :raises ServerError: the room is not closed, or a PEC does not answer; then all PECs are stopped.
        """
        self.check_isolation("before")
        for base in bases:
            neutralise.verify(self.connect_to(base), self.profile.neutralise, link=base.link).demand()
        self._configure(bases)
        names = [base.service for base in bases]
        self.stack.remove(*names, PROXY, CANARY)  # of an earlier base, with its installation
        try:
            self.stack.up(*names, PROXY, CANARY, start=False)
            self._deliver(bases)
            self.stack.up(PROXY, CANARY)
            self.check_isolation("before PEC")
            watched = [Watched(base, self._log(base)) for base in bases]
            self.stack.up(*names)
            with self.reporter.step(text(pt="Esperar o PEC responder", en="Wait for PEC to answer")):
                self._wait(watched, patience)
            self.check_isolation("PEC runs")
        except BaseException:
            self.halt()
            raise
        return watched

    def watched(self) -> list[Watched]:
        """The PECs that run."""
        bases = [Base(**kept) for kept in self.kept("bases", [])]
        return [Watched(base, self._log(base)) for base in bases if self.runs(base.service)]

    def runs(self, service: str) -> bool:
        """Whether the container of a service runs."""
        state = self.stack.state(service)
        return state is not None and state.is_running

    def is_up(self) -> bool:
        """Whether any PEC runs."""
        return self.runs(CENTRAL) or self.runs(SOURCE)

    def halt(self) -> None:
        """Stop the PECs, and what only they need; the server runs on."""
        self.stack.stop(CENTRAL, SOURCE, PROXY, CANARY)

    def clear(self) -> None:
        """Remove the containers of PECs that have done their work."""
        self.stack.remove(CENTRAL, SOURCE, PROXY, CANARY)

    def _configure(self, bases: Sequence[Base]) -> None:
        used = {base.service: (base.database, base.owner) for base in bases}
        settings = self.stack.settings
        self.stack.settings = replace(
            settings, central=used.get(CENTRAL, settings.central), source=used.get(SOURCE, settings.source)
        )
        self.note(bases=[asdict(base) for base in bases])

    def _deliver(self, bases: Sequence[Base]) -> None:
        """Put into the containers what only they may know."""
        certificate = tls.make_certificate([base.host for base in bases], [self.stack.settings.listen.address])
        write_private(self.authority, certificate.ca.decode())
        self.stack.deliver(PROXY, "/run/proxy/cert.pem", certificate.cert)
        self.stack.deliver(PROXY, "/run/proxy/key.pem", certificate.key)
        for base in bases:
            self.stack.deliver(base.service, "/run/pec/ca.crt", certificate.ca)
            password = self.server.renew_password(base.owner).encode()
            self.stack.deliver(base.service, "/run/pec/password", password, mode=0o600)

    def _log(self, base: Base) -> ContainerLog:
        return ContainerLog(self.stack.name(base.service), self.folder / f"{base.name}-{base.service}.log")

    def _wait(self, watched: Sequence[Watched], patience: float) -> None:
        began = time.monotonic()
        waiting = list(watched)
        while waiting:
            for pec in list(waiting):
                self._look(pec)
                if self.answers(pec.base):
                    seconds = round(time.monotonic() - began, 1)
                    self.run.events.add("pec", "answers", service=pec.base.service, seconds=seconds)
                    waiting.remove(pec)
            took = time.monotonic() - began
            self.reporter.progress(int(took), 0)
            if waiting and took > patience * 60:
                raise ServerError(
                    text(
                        pt=f"O PEC não respondeu em {patience:g} minutos ({', '.join(p.base.name for p in waiting)}).",
                        en=f"PEC did not answer in {patience:g} minutes ({', '.join(p.base.name for p in waiting)}).",
                    ),
                    evidence=waiting[0].log.copy,
                    next_step=text(
                        pt="Leia o fim do log. Uma máquina lenta pode precisar de mais: --patience 60",
                        en="Read the log's end. A slow machine may need more: --patience 60",
                    ),
                )
            if waiting:
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _look(self, pec: Watched) -> None:
        """See whether a PEC that is starting can still come to answer.

        :raises ServerError: it ended, or said what it does not recover from.
        """
        state = self.stack.state(pec.base.service)
        ended = state is None or not state.is_running
        for event in pec.read(final=ended):
            if event.kind == "failure" and event.known is not None:
                raise self.failed(pec, event.known)
        if ended:
            code = state.code if state is not None else 0
            known = pec_log.explain_exit(code, pec_log.load_known())
            raise self.failed(pec, known.id if known is not None else None, code)

    def failed(self, pec: Watched, known: str | None, code: int | None = None) -> ServerError:
        """The error for a PEC that does not run, explained as far as that is known."""
        title, action = pec_log.explain(known, pec_log.load_known()) if known is not None else ("", "")
        ended = "" if code is None else text(pt=f" (código {code})", en=f" (exit code {code})")
        return ServerError(
            text(pt=f"O PEC não iniciou em {pec.base.name}{ended}", en=f"PEC did not start on {pec.base.name}{ended}")
            + (f": {title}." if title else "."),
            evidence=pec.log.copy,
            next_step=action or text(pt="Leia o fim do log do PEC.", en="Read the end of PEC's log."),
        )

    def answers(self, base: Base) -> bool:
        """Whether a PEC serves its pages, through the proxy, under its name and a certificate that holds."""
        try:
            with self._connection(base) as connection:
                connection.request("GET", "/")
                return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False

    @contextmanager
    def _connection(self, base: Base) -> Iterator[http.client.HTTPSConnection]:
        context = ssl.create_default_context(cadata=self.authority.read_text())
        address = (self.stack.settings.listen.address, self.stack.port(443))
        connection = _Connection(base.host, address, context)
        try:
            yield connection
        finally:
            connection.close()


def undo_list_of(run: Run, name: str) -> UndoList:
    """Where the old values of what was neutralised in a base are; `name` is what the evidence calls it."""
    return UndoList(run.folder / FOLDER / f"undo-{name}")


def undo_list_problem(run: Run, name: str) -> str | None:
    """Why it is not known any more what was neutralised in a base; None if it is.

    The list holds passwords, so that nobody signs it as evidence; but the log of the run, which is chained, says how
    many rows must be in it.
    """
    undo_list = undo_list_of(run, name)
    noted = [
        event["rows"]
        for event in run.events.read()
        if (event["step"], event["event"], event.get("base")) == ("pec", "neutralised", name)
    ]
    # There may be more in the list: a kill may have come between a commit and its event.
    if sum(entry.rows for b in undo_list.batches() if b.state != "void" for entry in b.entries) < sum(noted):
        return text(
            pt=f"a lista de desfazer não está mais inteira na pasta da execução ({name})",
            en=f"the undo list is not whole in the run's folder any more ({name})",
        )
    try:
        for entry in (entry for batch in undo_list.current() for entry in batch.entries):
            next(undo_list.reading(entry), None)  # which looks at the whole file first
    except BlockedError as ex:
        return ex.what
    return None


def remove(run: Run) -> None:
    """Remove all of the PECs of a run, with what may hold data: logs, undo lists. Nothing if there is none."""
    if (run.folder / PART).exists():
        labelled.remove(labelled.leftovers(run.id, PART))
    for name in (PART, FOLDER):
        shutil.rmtree(run.folder / name, ignore_errors=True)


class _Connection(http.client.HTTPSConnection):
    """A connection to a name of the room, where the room is published."""

    def __init__(self, host: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=_HTTP_SECONDS, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        """Connect to the address, and ask for the name."""
        plain = socket.create_connection(self._address, timeout=_HTTP_SECONDS)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
