"""Images on a stick: what goes out comes in, and nothing else does."""

from __future__ import annotations

import gzip
import io
import json
import os
import secrets
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from merge.errors import ConfigError
from sandbox import image_file, images
from sandbox.console import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import docker

    Edit = Callable[[str, bytes], bytes]

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    with images.daemon() as found:
        yield found


@pytest.fixture
def carried(client: docker.DockerClient) -> Iterator[list[images.Image]]:
    """Two small images with content of their own."""
    names = [f"homolog-test-carried:{secrets.token_hex(4)}" for _ in range(2)]
    for name in names:
        _import(client, name)
    yield [image for name in names if (image := images.find(name))]
    for name in names:
        _forget(client, name)


def _import(client: docker.DockerClient, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("content")
        member.size = 100_000
        archive.addfile(member, io.BytesIO(os.urandom(member.size)))
    repository, tag = name.split(":")
    client.api.import_image_from_data(packed.getvalue(), repository, tag)


def _forget(client: docker.DockerClient, name: str) -> None:
    if images.find(name):
        client.images.remove(name)


def _silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def _write(file: Path, carried: list[images.Image]) -> str:
    return image_file.write(file, carried, _silent)


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz"])
def test_out_and_in_again(
    client: docker.DockerClient,
    carried: list[images.Image],
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    digest = _write(file, carried)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.sha256"]
    assert (tmp_path / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert (file.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    for image in carried:
        _forget(client, image.name)
        assert images.find(image.name) is None
    came = image_file.read(file, Reporter(as_json=True), _silent)
    assert [(one.image.name, one.image.id, one.image.content) for one in came] == [
        (image.name, image.id, image.content) for image in carried
    ]
    assert [one.before for one in came] == ["", ""]
    assert [one.before for one in image_file.read(file, Reporter(as_json=True), _silent)] == [i.id for i in carried]
    assert "sha256" not in capsys.readouterr().err


def test_dockers_own_program_reads_it_too(
    client: docker.DockerClient, carried: list[images.Image], tmp_path: Path
) -> None:
    file = tmp_path / "images.tar"
    _write(file, carried)
    for image in carried:
        _forget(client, image.name)
    client.images.load(file.read_bytes())
    assert [images.find(image.name) for image in carried] == carried


def test_what_was_damaged_on_the_way_is_not_loaded(
    client: docker.DockerClient, carried: list[images.Image], tmp_path: Path
) -> None:
    for name in ("images.tar", "images.tar.gz"):
        file = tmp_path / name
        _write(file, carried)
        whole = file.read_bytes()
        for image in carried:
            _forget(client, image.name)
        middle = len(whole) // 2
        for damaged in (whole[:middle], whole[:middle] + b"x" + whole[middle + 1 :], b"", b"x" * 2000, whole + b"x"):
            file.write_bytes(damaged)
            with pytest.raises(ConfigError):
                image_file.read(file, Reporter(as_json=True), _silent)
        (tmp_path / f"{name}.sha256").unlink()
        file.write_bytes(whole[:middle])  # seen without its sum, too
        with pytest.raises(ConfigError):
            image_file.read(file, Reporter(as_json=True), _silent)
        assert [images.find(image.name) for image in carried] == [None, None]
        for image in carried:
            _import(client, image.name)
    with pytest.raises(ConfigError):
        image_file.read(tmp_path / "none.tar", Reporter(as_json=True), _silent)


def _edited(file: Path, edit: Edit) -> None:
    """Change files inside, without a sum beside."""
    packed = io.BytesIO()
    with tarfile.open(file) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in old:
            part = old.extractfile(member)
            content = edit(member.name, part.read()) if part else b""
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    file.write_bytes(packed.getvalue())
    file.with_name(f"{file.name}.sha256").unlink(missing_ok=True)


def test_no_image_of_others_gets_in(
    client: docker.DockerClient, carried: list[images.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither one that is not in the list, nor one whose name is not of this project."""
    base = images.find(images.BASE)
    strange = "debian:bookworm-slim"

    def unlisted(name: str, content: bytes) -> bytes:
        return content.replace(carried[0].name.encode(), strange.encode()) if name == "manifest.json" else content

    def listed(name: str, content: bytes) -> bytes:
        ours = name in ("manifest.json", image_file.LIST)
        return content.replace(carried[0].name.encode(), strange.encode()) if ours else content

    for number, edit in enumerate((unlisted, listed)):
        file = tmp_path / f"{number}.tar"
        _write(file, carried)
        _edited(file, edit)
        with pytest.raises(ConfigError) as error:
            image_file.read(file, Reporter(as_json=True), _silent)
        assert error.value.details == (strange,)
    assert images.find(images.BASE) == base
    assert "0.tar.sha256" in capsys.readouterr().err  # without it, a warning


def test_an_image_that_is_not_what_the_list_says(
    client: docker.DockerClient, carried: list[images.Image], tmp_path: Path
) -> None:
    def other(name: str, content: bytes) -> bytes:
        if name != image_file.LIST:
            return content
        listed: dict[str, Any] = json.loads(content)
        listed["images"][1]["content"] = "0" * 64
        return json.dumps(listed).encode()

    file = tmp_path / "images.tar"
    _write(file, carried)
    _edited(file, other)
    with pytest.raises(ConfigError) as error:
        image_file.read(file, Reporter(as_json=True), _silent)
    assert error.value.details == (carried[1].name,)


def test_a_file_is_written_whole_or_not_at_all(
    carried: list[images.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "images.tar.gz"
    with pytest.raises(ConfigError):
        _write(tmp_path / "none" / "images.tar", carried)

    def full(self: object, chunk: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_file._Counted, "write", full)
        with pytest.raises(ConfigError):
            _write(file, carried)
    assert list(tmp_path.iterdir()) == []
    _write(file, carried)
    before = file.read_bytes()
    with pytest.raises(ConfigError):
        _write(file, carried)
    assert file.read_bytes() == before
    assert gzip.decompress(before)[:100].startswith(image_file.LIST.encode())


def test_what_the_task_does(
    client: docker.DockerClient,
    carried: list[images.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(image_file, "make", lambda postgres, jar: carried if postgres == [15] else [])
    reporter, file = Reporter(as_json=True), tmp_path / "images.tar.gz"
    image_file.carry(reporter, save=file, load=None, asked=["15"], jar=None)
    for image in carried:
        _forget(client, image.name)
    capsys.readouterr()
    image_file.carry(reporter, save=None, load=file, asked=[], jar=None)
    said = capsys.readouterr()
    assert [image["id"] for image in json.loads(said.out)["images"]] == [image.id for image in carried]
    assert carried[0].name not in said.err
    _import(client, carried[0].name)  # another one of that name
    other = images.find(carried[0].name)
    assert other
    image_file.carry(reporter, save=None, load=file, asked=[], jar=None)
    client.images.remove(other.id)
    assert f"{carried[0].name} " in capsys.readouterr().err  # it was replaced
    monkeypatch.setattr(images, "postgres_here", list)
    for wrong in ({"save": tmp_path / "a.tar", "load": file}, {"save": tmp_path / "a.tar", "load": None}):
        with pytest.raises(ConfigError):
            image_file.carry(reporter, **wrong, asked=[], jar=None)
