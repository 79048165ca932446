"""What runs have in Docker: everything is labelled, and found and removed by its labels."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from sandbox import images

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import docker

LABEL = "homolog.run"
"""Label of everything that a run makes in Docker; its value is the run's id."""
FOLDER = "homolog.folder"
"""The same, with the path of the run's folder."""
PART = "homolog.part"
"""The same, with what it belongs to: ``server``, that of `sandbox.containers`, ``pec``, that of `sandbox.pec`, or
``tools``, those of `sandbox.promotion`."""


@dataclass(frozen=True)
class Leftover:
    """Something of a run that is outside of its folder.

    :param kind: ``containers``, ``networks`` or ``volumes`` of Docker, or ``folders``.
    :param name: Docker's name for it, or its path.
    :param folder: the run's folder, "" if that is not known.
    """

    kind: str
    name: str
    run_id: str
    folder: str


def leftovers(run_id: str | None = None, part: str | None = None) -> list[Leftover]:
    """Everything of a run, or of all runs, that is in Docker, in the order in which it can be removed.

    :param part: only what belongs to this part.
    """
    with images.daemon() as client:
        return find(client, run_id, part)


def remove(found: Iterable[Leftover]) -> None:
    """Remove things from Docker, in this order. Does nothing about what is gone."""
    with images.daemon() as client:
        for left in found:
            remove_one(client, left)


def find(client: docker.DockerClient, run_id: str | None, part: str | None) -> list[Leftover]:
    """The same as `leftovers`, on a connection."""
    wanted: dict[str, Any] = {"filters": {"label": LABEL if run_id is None else f"{LABEL}={run_id}"}}
    containers = client.api.containers(all=True, **wanted)
    found = {
        "containers": [(c["Names"][0].lstrip("/"), c["Labels"]) for c in containers],
        "networks": [(n["Name"], n["Labels"]) for n in client.api.networks(**wanted)],
        "volumes": [(v["Name"], v["Labels"]) for v in client.api.volumes(**wanted)["Volumes"] or ()],
    }
    return [
        Leftover(kind, name, labels[LABEL], labels.get(FOLDER, ""))
        for kind, things in found.items()
        for name, labels in things
        if part in (None, labels.get(PART, "server"))
    ]


def remove_one(client: docker.DockerClient, left: Leftover) -> None:
    """Remove one thing from Docker. Does nothing if it is gone."""
    with suppress(NotFound):
        if left.kind == "containers":
            with suppress(APIError):  # it may be going already
                client.containers.get(left.name).remove(v=True, force=True)
        elif left.kind == "networks":
            client.networks.get(left.name).remove()
        else:
            client.volumes.get(left.name).remove(force=True)


def labels(run_id: str, folder: Path, part: str) -> dict[str, str]:
    """Labels for what is made.

    :param folder: the run's folder.
    """
    return {LABEL: run_id, FOLDER: str(folder), PART: part}


def tar(name: str, content: bytes, user: str, mode: int = 0o600) -> bytes:
    """An archive with one file, which belongs to ``uid:gid``."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    info.uid, info.gid = map(int, user.split(":"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
