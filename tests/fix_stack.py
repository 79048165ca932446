"""PEC's closed room with stand-ins for PEC and the proxy, and an outside that counts what reaches it."""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merge.errors import ServerError
from sandbox import images
from sandbox.labelled import LABEL, leftovers, remove
from sandbox.pec import compose
from sandbox.pec.compose import Settings, Stack
from sandbox.pec.listen import Listen
from sandbox.pec.stack_server import StackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import docker
    from docker.models.containers import Container

    MakeStack = Callable[..., StackServer]

STARTED = "the image's program runs"

_SERVE = r"""
$| = 1;
my $port = $ENV{PEC_PORT} // 443;
my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 9, ReuseAddr => 1) or die $!;
print "$ENV{STARTED}\n";
while (my $client = $server->accept) { print $client "HTTP/1.0 200 OK\r\n\r\n$port\n"; close $client }
"""

_OUTSIDE = r"""
use strict; use warnings; use Socket qw(:DEFAULT IPPROTO_ICMP IPPROTO_ICMPV6 IPPROTO_IPV6 IPV6_V6ONLY);
$| = 1;
my %heard;
sub listener { my ($type, $port) = @_;
    socket(my $s, AF_INET6, $type, 0) or die $!;
    setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, pack 'i', 0) or die $!;
    bind($s, pack_sockaddr_in6($port, Socket::IN6ADDR_ANY)) or die $!;
    listen($s, 9) if $type == SOCK_STREAM;
    $heard{fileno $s} = [$s, $type == SOCK_STREAM ? 'tcp' : 'udp', $port];
}
listener(SOCK_STREAM, $_) for 53, 80;
listener(SOCK_DGRAM, $_) for 53, 9999;
socket(my $four, AF_INET, 3, IPPROTO_ICMP) or die $!;
socket(my $six, AF_INET6, 3, IPPROTO_ICMPV6) or die $!;
$heard{fileno $four} = [$four, 'icmp', 4];
$heard{fileno $six} = [$six, 'icmp', 6];
print "ready\n";
while (1) {
    my $mask = ''; vec($mask, $_, 1) = 1 for keys %heard;
    select(my $ready = $mask, undef, undef, undef);
    for my $n (grep { vec($ready, $_, 1) } keys %heard) {
        my ($s, $kind, $what) = @{$heard{$n}};
        if ($kind eq 'tcp') { accept(my $c, $s) or next; syswrite $c, "HTTP/1.0 200 OK\r\n\r\noutside\n"; close $c; }
        else {
            my $from = recv($s, my $data, 2000, 0);
            if ($kind eq 'icmp') {  # echo requests only: neighbours are looked for too
                my $type = unpack 'C', $what == 4 ? substr($data, 20) : $data;
                next unless $type == ($what == 4 ? 8 : 128);
            }
            elsif ($what == 53) { send $s, substr($data, 0, 2) . "\x81\x83" . substr($data, 4), 0, $from; }
        }
        print "heard $kind $what\n";
    }
}
"""


def stand_in(client: docker.DockerClient, program: str) -> str:
    """An image of the guard's with one more program, which serves HTTP at its port. It is removed by `stand_ins`."""
    tag = f"homolog-test-{program}:{secrets.token_hex(4)}"
    recipe = (
        f"FROM {images.GUARD}\n"
        f"ENV STARTED=\"{STARTED}\"\n"
        "COPY serve /serve\n"
        "VOLUME /kept\n"
        f"RUN mkdir -p /run/pec /run/proxy && printf '#!/bin/sh\\nexec perl -MIO::Socket::INET /serve\\n'"
        f" > /usr/local/bin/{program} && chmod 755 /usr/local/bin/{program}\n"
    )  # fmt: skip
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in (("Dockerfile", recipe), ("serve", _SERVE)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    return tag


@pytest.fixture(scope="session")
def stand_ins() -> Iterator[dict[str, str]]:
    """Images for Settings: `pec` and `proxy`."""
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    try:
        images.guard()
        compose.program()
    except ServerError as ex:
        pytest.skip(f"{ex.what} {ex.details}")
    with images.daemon() as client:
        made = {program: stand_in(client, program) for program in ("pec", "proxy")}
        yield made
        for tag in made.values():
            client.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def make_stack(stand_ins: dict[str, str]) -> Iterator[MakeStack]:
    """Make stacks of runs of their own, not started, of which nothing is left at the end."""
    root = Path(tempfile.mkdtemp(prefix="homolog-test-"))
    runs: list[str] = []

    def make(listen: Listen | None = None) -> StackServer:
        runs.append(f"test-{secrets.token_hex(4)}")
        listen = listen or Listen(port=None)
        settings = Settings(runs[-1], root / runs[-1], memory=2**30, pec_memory=2**28, listen=listen, **stand_ins)
        server = StackServer(settings, major=15)
        try:
            server.prepare()
        except ServerError as ex:
            pytest.skip(f"{ex.what} {ex.details}")
        return server

    try:
        yield make
    finally:
        for run in runs:
            remove(leftovers(run))
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def stack_server(make_stack: MakeStack) -> StackServer:
    """A stack with all services running."""
    server = make_stack()
    server.start()
    up(server.stack, "pec-central", "pec-source", "proxy")
    server.stack.up("canary")
    return server


def up(stack: Stack, *services: str) -> None:
    """Start stand-ins and wait until they serve."""
    stack.up(*services)
    deadline = time.monotonic() + 60
    while not all(STARTED in stack.logs(service) for service in services):
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Outside:
    """A container that listens by all means, in networks of its own and in those that it is brought into."""

    def __init__(self, client: docker.DockerClient, container: Container, network: str) -> None:
        self.client, self.container, self.network = client, container, network

    def addresses(self, network: str) -> list[str]:
        """Its addresses in a network, IPv4 first."""
        self.container.reload()
        found = self.container.attrs["NetworkSettings"]["Networks"][network]
        return [one for one in (found["IPAddress"], found["GlobalIPv6Address"]) if one]

    def targets(self, network: str) -> list[str]:
        """All that can be tried there."""
        return [
            target
            for one in self.addresses(network)
            for target in (f"tcp/{one}/80", f"tcp/{one}/53", f"udp/{one}/9999", f"dns/{one}", f"icmp/{one}")
        ]

    def heard(self) -> list[str]:
        """What has reached it, in order, e.g. ``tcp 80`` or ``icmp 6``."""
        lines = self.container.logs().decode().splitlines()
        return [line.removeprefix("heard ") for line in lines if line.startswith("heard ")]


@contextmanager
def network_of(client: docker.DockerClient, outside: Outside, network: str) -> Iterator[None]:
    """Bring the outside into another network for a while."""
    client.networks.get(network).connect(outside.container)
    try:
        yield
    finally:
        client.networks.get(network).disconnect(outside.container, force=True)


@pytest.fixture(scope="session")
def outside(stand_ins: dict[str, str]) -> Iterator[Outside]:
    """The outside, in a network of its own with IPv4 and IPv6."""
    name = f"homolog-test-outside-{secrets.token_hex(4)}"
    labels = {LABEL: name}
    part = secrets.token_hex(4)
    with images.daemon() as client:
        try:
            client.api.create_network(
                name,
                driver="bridge",
                enable_ipv6=True,
                ipam={"Config": [{"Subnet": f"fd00:{part[:4]}:{part[4:]}::/64"}]},
                labels=labels,
            )
            container = client.containers.run(
                images.GUARD, entrypoint=["perl", "-e", _OUTSIDE], network=name, labels=labels, detach=True
            )
            while b"ready" not in container.logs():
                container.reload()
                assert container.status == "running", container.logs()
            yield Outside(client, container, name)
        finally:
            remove(leftovers(name))
