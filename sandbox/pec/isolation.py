"""The proof that nothing gets out of PEC's sandbox: how its containers are, what they can reach, and what has left.

All that could get out is tried from beside each container, in its network and with no more rights than it has; and the
kernel's counters tell what was begun from inside and left, by anybody, since the network was made: nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from merge.errors import ServerError
from merge.language import text
from sandbox import guard, images, labelled
from sandbox.pec.compose import NET, PART, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import docker
    from docker.models.containers import Container

_COUNTERS = "for kind in nft legacy; do iptables-$kind-save -c; ip6tables-$kind-save -c; done 2> /dev/null"
_LEFT = re.compile(r"(?m)^\[(\d+):\d+\] -A POSTROUTING ! -o lo -m conntrack ! --ctstate RELATED,ESTABLISHED *$")
_DROPPED = re.compile(r"(?m)^(?::OUTPUT DROP \[(\d+):\d+\]|\[(\d+):\d+\] -A OUTPUT -d 127\.0\.0\.11/32 -j DROP) *$")
_STOPPED = 128 + 15
"""Exit code of a canary that somebody has stopped."""
_CAPABILITIES = {NET: set(guard.RIGHTS), "proxy": {"NET_BIND_SERVICE"}, "tools": {"DAC_OVERRIDE"}}
"""What containers of these names may have besides nothing."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to get out.

    :param container: name of the container in whose network it was made.
    :param target: what was tried, e.g. ``udp/172.18.0.1/9``, ``dns/127.0.0.11`` or ``packet``.
    :param outcome: how it ended, in the system's words.
    :param got_out: True if it did.
    """

    container: str
    target: str
    outcome: str
    got_out: bool


@dataclass(frozen=True)
class Isolation:
    """The proof, at one moment.

    :param when: ISO 8601 in UTC.
    :param containers: all that there were, running or not.
    :param attempts: all that was tried.
    :param left: packets begun from inside that left, since the network was made.
    :param dropped: packets begun from inside that were dropped, since then; those of `attempts` are among them.
    """

    when: str
    containers: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    left: int
    dropped: int


def prove_isolation(stack: Stack, targets: Sequence[str] = ()) -> Isolation:
    """Try to get out of every container of the stack, and look how each is made.

    :param targets: more to try than the gateways of all of Docker's networks, name servers and raw sockets, as
        ``compose/guard/probe`` is told: ``tcp/ADDRESS/PORT``, ``udp/ADDRESS/PORT``, ``dns/ADDRESS``, ``icmp/ADDRESS``.
    :raises ServerError: if anything got out, could, or could not be looked at.
    """
    with images.daemon() as client:
        try:
            containers = stack.containers(client)
            problems = [problem for one in containers for problem in _not_locked(client, stack, one, containers)]
            running = [one for one in containers if one.status == "running"]
            if not any(one.name == stack.name(NET) for one in running):
                problems.append(text(pt="a rede não está no ar", en="the network is not up"))
                raise _problem(problems)
            attempts, more = _attempts(client, stack, running, [*_gateways(client), *targets])
            left, dropped = _counters(client, stack)
        except (NotFound, APIError) as ex:  # a container that comes or goes meanwhile
            raise _problem([str(ex.explanation or ex)[:300]]) from None
    problems += more
    problems += [f"{a.container}: {a.target}: {a.outcome}" for a in attempts if a.got_out]
    if left:
        problems.append(text(pt=f"pacotes que saíram: {left}", en=f"packets that left: {left}"))
    canary = stack.state("canary")
    if canary is not None and canary.exit_code not in (0, _STOPPED):
        problems += [f"canary: {line}" for line in stack.logs("canary", 5).splitlines()]
    if problems:
        raise _problem(problems)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Isolation(now, tuple(sorted(str(one.name) for one in containers)), attempts, left, dropped)


def _problem(problems: Sequence[str]) -> ServerError:
    return ServerError(
        text(
            pt="A sandbox do PEC não está isolada: nela um PEC poderia transmitir.",
            en="PEC's sandbox is not isolated: a PEC in it could transmit.",
        ),
        details=problems,
        next_step=text(
            pt="Rode `invoke pec.down`. Algo mudou a rede ou os contêineres; veja acima o quê, e comece de novo.",
            en="Run `invoke pec.down`. Something changed the network or the containers; see above, and begin again.",
        ),
    )


def _not_locked(
    client: docker.DockerClient, stack: Stack, container: Container, all_: Sequence[Container]
) -> Iterator[str]:
    """What a container has that could let something out."""
    host: dict[str, Any] = container.attrs["HostConfig"]
    service = str(container.name).removeprefix(f"{stack.project}-")
    capabilities = {name.removeprefix("CAP_") for name in host["CapAdd"] or ()}
    net = [one.id for one in all_ if one.name == stack.name(NET)]
    networks = {n["NetworkID"] for n in container.attrs["NetworkSettings"]["Networks"].values()} - {""}
    if service == NET:
        room = client.networks.get(stack.project).id
        own_network = host["NetworkMode"] == stack.project and networks <= {room} and host["Dns"] == guard.DNS
    else:
        own_network = not networks and host["NetworkMode"] in [f"container:{id_}" for id_ in net]
    sound = {
        "network": own_network,
        "privileged": not host["Privileged"],
        "capabilities": capabilities <= _CAPABILITIES.get(service, set()) and "ALL" in (host["CapDrop"] or ()),
        "no-new-privileges": any(o.startswith("no-new-privileges") for o in host["SecurityOpt"] or ()),
        "seccomp": not any("unconfined" in option for option in host["SecurityOpt"] or ()),
        "namespaces": not any(
            (host.get(kind) or "").startswith(("host", "container:")) for kind in ("PidMode", "IpcMode", "UTSMode")
        ),
        "devices": not host["Devices"] and not host.get("DeviceRequests"),
        "mounts": all(_is_known(stack, service, mount) for mount in container.attrs["Mounts"]),
    }
    for what, is_sound in sound.items():
        if not is_sound:
            yield f"{container.name}: {what}"


def _is_known(stack: Stack, service: str, mount: dict[str, Any]) -> bool:
    if mount["Type"] == "tmpfs":
        return True
    if mount["Type"] == "volume":
        name = str(mount["Name"])
        return name.startswith(f"{stack.project}-") or re.fullmatch("[0-9a-f]{64}", name) is not None  # an image's own
    if service == "tools":  # reads backups; writes in the stack's own folder only
        return not mount["RW"] or stack.folder.resolve() in Path(mount["Source"]).parents
    return not mount["RW"] and mount["Destination"] == guard.INSIDE


def _gateways(client: docker.DockerClient) -> list[str]:
    """The host's own addresses, as Docker's networks know them."""
    known = {
        str(part["Gateway"]).partition("/")[0]
        for network in client.networks.list()
        for part in (network.attrs["IPAM"] or {}).get("Config") or ()
        if part.get("Gateway")
    }
    return [target for one in sorted(known) for target in (f"tcp/{one}/9", f"udp/{one}/9", f"dns/{one}", f"icmp/{one}")]


def _attempts(
    client: docker.DockerClient, stack: Stack, running: Sequence[Container], targets: Sequence[str]
) -> tuple[tuple[Attempt, ...], list[str]]:
    """What was tried from beside each container, all at a time, and in whom that could not be done."""
    attempts: list[Attempt] = []
    problems: list[str] = []
    namespaces: dict[str, str] = {}
    probes: list[tuple[str, Container]] = []
    try:
        for one in running:
            command = ["perl", f"{guard.INSIDE}/probe", *targets]
            probes.append((str(one.name), _beside(client, stack, str(one.id), command, user="65534:65534")))
        for name, probe in probes:
            code, said = _end(probe)
            first, *lines = said.splitlines() or [""]
            namespaces[name] = first
            found = [line.split(" ", 2) for line in lines]
            attempts += [Attempt(name, target, outcome, word == "OUT") for word, target, outcome in found]
            if code not in (0, 1) or not found:
                problems.append(f"{name}: probe: {said[-200:]}")
    finally:
        for _, probe in probes:
            probe.remove(v=True, force=True)
    shared = namespaces.get(stack.name(NET))
    problems += [f"{name}: network" for name, where in namespaces.items() if where != shared]
    return tuple(attempts), problems


def _counters(client: docker.DockerClient, stack: Stack) -> tuple[int, int]:
    """Packets that were begun from inside and left, and those that were dropped.

    :raises ServerError: if nothing counts them, for IPv4 and IPv6, or nothing drops them.
    """
    net = str(client.containers.get(stack.name(NET)).id)
    counter = _beside(client, stack, net, ["bash", "-c", _COUNTERS], cap_add=["NET_ADMIN", "NET_RAW"])
    try:
        said = _end(counter)[1]
    finally:
        counter.remove(v=True, force=True)
    left, dropped = _LEFT.findall(said), _DROPPED.findall(said)
    families = 1 if "ip6tables" not in said else 2
    if len(left) < families or len(dropped) < families + 1:
        raise _problem([text(pt="as regras da rede não estão lá", en="the network's rules are not there")])
    return sum(map(int, left)), sum(int(a or b) for a, b in dropped)


def _beside(client: docker.DockerClient, stack: Stack, container: str, command: list[str], **options: Any) -> Container:
    """Start a program of the guard in a container's network, with no rights but those that are given."""
    settings = stack.settings
    return client.containers.run(
        settings.guard,
        entrypoint=command,
        command=[],
        network_mode=f"container:{container}",
        mounts=[guard.mount()],
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        read_only=True,
        tmpfs={"/run": "size=1m", "/tmp": "size=1m"},  # noqa: S108
        pids_limit=32,
        labels=labelled.labels(settings.run_id, settings.folder.resolve(), PART),
        detach=True,
        **options,
    )


def _end(container: Container) -> tuple[int, str]:
    code = container.wait()["StatusCode"]
    return int(code), container.logs().decode(errors="replace")
