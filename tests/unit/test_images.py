"""Names of images, and the digests that are recorded for them; what a daemon does is in tests/docker."""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from merge.errors import ConfigError
from sandbox import image_file, images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a daemon was asked to pull, which succeeds; the tags that images were given follow."""
    asked: list[dict[str, Any]] = []

    class Api:
        def pull(self, **options: Any) -> list[Any]:
            asked.append(options)
            return []

    class Images:
        def get(self, name: str) -> Images:
            asked.append({"get": name})
            return self

        def tag(self, repository: str, tag: str) -> None:
            asked.append({"tag": f"{repository}:{tag}"})

    class Daemon:
        images = Images()

        def __enter__(self) -> Daemon:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(images, "_follow", lambda what, patience, tried, start: not start(Api()))
    monkeypatch.setattr(images, "daemon", Daemon)
    return asked


def _record(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (folder / "images.toml").write_text(content)
    monkeypatch.setattr(images, "COMPOSE", folder)


def test_without_a_digest_a_tag_is_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulled: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(images, "COMPOSE", tmp_path)  # nor is there a table
    assert images._pull("postgres:15", [])
    assert pulled == [{"repository": "postgres", "tag": "15", "stream": True, "decode": True}]


def test_a_recorded_digest_is_pulled_and_tagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulled: list[dict[str, Any]]
) -> None:
    _record(tmp_path, monkeypatch, f'[digests]\n"postgres:15" = "{_DIGEST}"\n')
    assert images._pull("postgres:15", [])
    assert pulled == [
        {"repository": "postgres", "tag": _DIGEST, "stream": True, "decode": True},
        {"get": f"postgres@{_DIGEST}"},
        {"tag": "postgres:15"},
    ]


def test_another_digest_than_the_recorded_one_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But an image without any, as it comes on a stick, is."""

    class Found:
        attrs: ClassVar[dict[str, list[str]]] = {}

    @contextmanager
    def daemon() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(images=SimpleNamespace(get=lambda name: Found))

    monkeypatch.setattr(images, "daemon", daemon)
    _record(tmp_path, monkeypatch, f'[digests]\n"postgres:15" = "{_DIGEST}"\n')
    for digests, here in (([], True), ([f"postgres@{_DIGEST}"], True), ([f"postgres@{_DIGEST[:-1]}c"], False)):
        Found.attrs = {"RepoDigests": digests}
        assert images._is_here("postgres:15") is here
        assert images._is_here("postgres:16")


def test_our_own_table_holds_digests_only() -> None:
    table = tomllib.loads((images.COMPOSE / "images.toml").read_text())
    assert list(table) == ["digests"]
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in table["digests"].values())


def test_majors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "postgres_here", lambda: [15])
    assert image_file.majors([]) == [15]
    assert image_file.majors(["16", "9.6", "16"]) == [9, 16]
    assert image_file.majors(["9"]) == [9]
    for wrong in ("9.5", "15.3", "x", "", "1"):
        with pytest.raises(ConfigError) as error:
            image_file.majors(["16", wrong])
        assert error.value.details == (wrong,)
    assert images.postgres_names(9) == ("postgres:9.6", "homolog-postgres:9.6")


def test_a_change_of_the_recipe_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "COMPOSE", tmp_path)
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "a").write_text("1")
    (tmp_path / "proxy" / "b").write_text("2")
    before = images._recipe("proxy")
    assert images._recipe("proxy") == before
    (tmp_path / "proxy" / "b").write_text("3")
    assert images._recipe("proxy") != before
    (tmp_path / "proxy" / "b").write_text("2")
    (tmp_path / "proxy" / "b").rename(tmp_path / "proxy" / "c")
    assert images._recipe("proxy") != before
