"""That nothing gets out of PEC's closed room, and that the tests would see it if it did."""

from __future__ import annotations

import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from merge.errors import ServerError
from sandbox import guard, images
from sandbox.labelled import LABEL, leftovers, remove
from sandbox.pec.compose import NET, SERVICES
from sandbox.pec.isolation import prove_isolation
from tests.fix_stack import network_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker
    from docker.models.containers import Container

    from sandbox.pec.stack_server import StackServer
    from tests.fix_stack import MakeStack, Outside

pytestmark = pytest.mark.docker

ALL = {"tcp 80", "tcp 53", "udp 9999", "udp 53", "icmp 4"}


@pytest.fixture
def client(stack_server: StackServer) -> Iterator[docker.DockerClient]:
    with images.daemon() as found:
        yield found


def _probe(client: docker.DockerClient, targets: list[str], **options: Any) -> dict[str, str]:
    """What a container says that is not isolated, or is where it is told: OUT or closed, by target."""
    container = client.containers.run(
        images.GUARD,
        entrypoint=["perl", f"{guard.INSIDE}/probe", *targets],
        mounts=[guard.mount()],
        cap_drop=["ALL"],
        labels={LABEL: "test-probe"},
        detach=True,
        **options,
    )
    try:
        container.wait()
        lines = container.logs().decode().splitlines()[1:]
    finally:
        container.remove(force=True)
    return {target: word for word, target, _ in (line.split(" ", 2) for line in lines)}


class _Host:
    """Listens on all addresses of this host, and counts who connects or sends."""

    def __enter__(self) -> _Host:
        self._tcp = socket.create_server(("0.0.0.0", 0), backlog=200)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("0.0.0.0", 0))
        found = (one.address for all_ in psutil.net_if_addrs().values() for one in all_ if one.family == socket.AF_INET)
        self.addresses = [one for one in found if not one.startswith("127.")]
        tcp, udp = self._tcp.getsockname()[1], self._udp.getsockname()[1]
        self.targets = [t for one in self.addresses for t in (f"tcp/{one}/{tcp}", f"udp/{one}/{udp}", f"icmp/{one}")]
        return self

    def heard(self) -> int:
        count = 0
        for one in (self._tcp, self._udp):
            one.settimeout(0.3)
            try:
                while True:
                    if one is self._tcp:
                        one.accept()[0].close()
                    else:
                        one.recv(100)
                    count += 1
            except TimeoutError:
                pass
        return count

    def __exit__(self, *_: object) -> None:
        self._tcp.close()
        self._udp.close()


def test_nothing_leaves(stack_server: StackServer, client: docker.DockerClient, outside: Outside) -> None:
    """By TCP, UDP, DNS, ICMP, to a neighbour in the very network, to another one, to the host: from every container."""
    stack = stack_server.stack
    with network_of(client, outside, stack.project), _Host() as host:
        near, far = outside.targets(stack.project), outside.targets(outside.network)
        assert host.addresses
        # The test can tell: who is not isolated gets through to all of these, and is counted.
        # Docker's name server asks the outside there: no real one is asked, whatever goes wrong.
        address = near[0].split("/")[1]
        free = _probe(client, [*near, *host.targets], network=stack.project, dns=[address])
        assert {free[target] for target in (*near, *host.targets)} == {"OUT"}
        assert free["dns/127.0.0.11"] == "OUT"
        assert set(outside.heard()) == ALL
        assert outside.heard().count("udp 53") > 1  # it was asked by way of that one too
        assert host.heard() == 2 * len(host.addresses)
        from_far = _probe(client, far, network=outside.network, dns=[far[0].split("/")[1]])
        assert {from_far[target] for target in far} == {"OUT"}
        assert set(outside.heard()) == {*ALL, "icmp 6"}
        before = outside.heard()

        proof = prove_isolation(stack, [*near, *far, *host.targets])

        names = {stack.name(name) for name in (NET, *SERVICES, "tools")}
        assert set(proof.containers) == names
        tried = {name: {a.target for a in proof.attempts if a.container == name} for name in names}
        assert all({*near, *far, *host.targets} <= targets for targets in tried.values())
        assert not [a for a in proof.attempts if a.got_out]
        assert proof.left == 0
        assert proof.dropped > 0
        # The same by the programs of the containers themselves.
        name_server = ("udp/127.0.0.11/53", "tcp/127.0.0.11/53")
        ways = [t for t in (*near, *host.targets[:6], *name_server) if t.startswith(("tcp", "udp"))]
        one = "timeout 1 bash -c 'echo > /dev/{}' && echo {} || true"
        script = f'printf "%s\\n" "$@" | xargs -P 3 -I{{}} sh -c "{one}"'
        for service in (NET, *SERVICES):
            code, said = stack.exec(service, ["sh", "-c", script, "sh", *ways])
            assert code == 0
            assert "Operation not permitted" in said
            assert not set(said.split()) & set(ways)
        assert outside.heard() == before
        assert host.heard() == 0
        again = prove_isolation(stack)
        assert (again.left, again.dropped > proof.dropped) == (0, True)


def test_nothing_leaves_by_ipv6(client: docker.DockerClient, outside: Outside) -> None:
    """A network that has IPv6 is closed for it too."""
    run = f"test-{secrets.token_hex(4)}"
    targets = outside.targets(outside.network)
    assert any(":" in target for target in targets)
    holder = client.containers.run(
        images.GUARD,
        entrypoint=["bash", f"{guard.INSIDE}/isolate", "hold", "443=gateway"],
        mounts=[guard.mount()],
        network=outside.network,
        dns=[targets[0].split("/")[1]],
        cap_drop=["ALL"],
        cap_add=list(guard.RIGHTS),
        labels={LABEL: run},
        detach=True,
    )
    try:
        while not holder.logs(stderr=False):
            holder.reload()
            assert holder.status == "running", holder.logs()
        before = outside.heard()
        found = _probe(client, targets, network_mode=f"container:{holder.id}")
        assert set(found.values()) == {"closed"}
        assert [target for target in found if "ff02::1" in target]
        assert outside.heard() == before
    finally:
        remove(leftovers(run))


def test_the_canary_sings(stack_server: StackServer) -> None:
    deadline = time.monotonic() + 30
    while not (said := stack_server.stack.logs("canary").splitlines()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert said
    assert all(line.endswith(" 0 got out") for line in said)
    state = stack_server.stack.state("canary")
    assert state is not None
    assert state.is_running


# That the proof would see it


def _change(client: docker.DockerClient, container: Container, how: str) -> None:
    """Let datagrams out of the network of a container (-I), or not (-D), as nobody but an administrator can."""
    rule = f"{how} OUTPUT ! -d 127.0.0.11 -p udp -j ACCEPT"
    client.containers.run(
        images.GUARD,
        entrypoint=["bash", "-c", f"iptables-nft {rule} || iptables-legacy {rule}"],
        network_mode=f"container:{container.id}",
        cap_add=["NET_ADMIN", "NET_RAW"],
        labels={LABEL: "test-probe"},
        remove=True,
    )


def test_an_opened_network_is_seen(make_stack: MakeStack, client: docker.DockerClient, outside: Outside) -> None:
    """The probe, the canary and the counter each see it, also when it is closed again."""
    server = make_stack()
    server.start()
    stack = server.stack
    prove_isolation(stack)
    net = client.containers.get(stack.name(NET))
    with network_of(client, outside, stack.project):
        _change(client, net, "-I")
        before = len(outside.heard())
        with pytest.raises(ServerError) as error:
            prove_isolation(stack, outside.targets(stack.project))
        assert any("udp/" in line for line in error.value.details)
        assert len(outside.heard()) > before
        # A program that starts now looks first.
        assert "a datagram to" in _restarted(client, stack.name("db"))
        _change(client, net, "-D")
        with pytest.raises(ServerError) as error:
            prove_isolation(stack)
    assert [line for line in error.value.details if "udp/" in line] == []
    assert error.value.details  # what has left cannot be called back
    server.destroy()


def _restarted(client: docker.DockerClient, name: str) -> str:
    """Restart a container that is to end at once, and return its last words."""
    container = client.containers.get(name)
    container.restart()
    assert container.wait()["StatusCode"] == 1
    return container.logs(tail=1).decode()


@pytest.mark.parametrize("what", ["network", "capabilities", "mounts", "second network"])
def test_a_container_that_is_not_locked_up_is_seen(
    make_stack: MakeStack, client: docker.DockerClient, outside: Outside, what: str
) -> None:
    server = make_stack()
    stack = server.stack
    stack.up(NET)
    inside: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "network_mode": f"container:{client.containers.get(stack.name(NET)).id}",
    }
    changed: dict[str, dict[str, Any]] = {
        "network": {"network_mode": "bridge", "dns": guard.DNS},
        "capabilities": {"cap_add": ["NET_RAW"]},
        "mounts": {"volumes": ["/proc:/host:ro"]},
        "second network": {},
    }
    labels = dict(client.containers.get(stack.name(NET)).labels)
    client.containers.run(
        images.GUARD,
        entrypoint=["sleep", "infinity"],
        name=stack.name("stranger"),
        labels={name: value for name, value in labels.items() if name.startswith("homolog.")},
        detach=True,
        stop_signal="SIGKILL",
        **{**inside, **changed[what]},
    )
    second = client.networks.get(outside.network)
    if what == "second network":
        prove_isolation(stack)
        second.connect(stack.name(NET))
    with pytest.raises(ServerError) as error:
        prove_isolation(stack)
    if what == "second network":
        second.disconnect(stack.name(NET))
    name, wanted = ("net", "network") if what == "second network" else ("stranger", what)
    assert f"{stack.name(name)}: {wanted}" in error.value.details
    server.destroy()
