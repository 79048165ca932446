"""A line between a client and a server that can be cut, as a whole or in part, or be held up for a while."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random

_CHUNK = 1 << 16


class Proxy:
    """Passes bytes between a port of 127.0.0.1 and another, in both directions, until it is told not to."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.resume()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits on it; closing does not
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections, both ends at once."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._end(pair)

    def cut_one(self, choice: random.Random) -> None:
        """Cut one of the connections that are open."""
        with self._lock:
            if not self._pairs:
                return
            pair = self._pairs.pop(choice.randrange(len(self._pairs)))
        self._end(pair)

    def stall(self) -> None:
        """Keep back what is sent, in both directions, and who wants to connect, until `resume`."""
        self._flows.clear()

    def resume(self) -> None:
        """Let everything pass that was kept back."""
        self._flows.set()

    @staticmethod
    def _end(pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with suppress(OSError):  # by a reset: what is on the way is lost
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._flows.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (near, far)
            with self._lock:
                self._pairs.append(pair)
            for one, other in (pair, pair[::-1]):
                threading.Thread(target=self._pass, args=(one, other, pair), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with suppress(OSError):
            while chunk := one.recv(_CHUNK):
                self._flows.wait()
                other.sendall(chunk)
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
