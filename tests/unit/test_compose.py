"""PEC's closed room, as far as it needs no Docker: the Compose file, its variables, who may connect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from merge.errors import ConfigError, ServerError
from sandbox.pec import compose
from sandbox.pec.compose import FILE, NET, SERVICES, Settings, Stack, program
from sandbox.pec.listen import Listen


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(FILE.read_text())
    return found


def _validate(path: Path) -> int:
    """Whether a file follows the Compose Specification's own schema, which comes with check-jsonschema."""
    call = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(call, check=False, capture_output=True).returncode


# The file


def test_it_follows_the_specification(tmp_path: Path) -> None:
    assert _validate(FILE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("pids_limit", "pids"))
    assert _validate(wrong) == 1


def test_all_services_are_known(file: dict[str, Any]) -> None:
    assert set(file["services"]) == {NET, *SERVICES}
    assert {name: service.get("profiles") for name, service in file["services"].items()} == {
        NET: None,
        **{name: [name] for name in SERVICES},
    }


@pytest.mark.parametrize("name", [NET, *SERVICES])
def test_a_service_is_locked_up(file: dict[str, Any], name: str) -> None:
    service = file["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "no"
    assert service["logging"]["options"]["max-size"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    assert set(service["labels"]) - {"homolog.listen"} == {"homolog.run", "homolog.folder", "homolog.part"}
    assert not {"privileged", "devices", "pid", "ipc", "userns_mode", "env_file", "secrets", "build"} & set(service)
    assert service.get("read_only") is (True if not name.startswith("pec-") else None)  # it is installed there
    assert all(volume.startswith(("./guard:/homolog:ro", "data:", "keys:")) for volume in service["volumes"])
    if name == NET:
        assert service["networks"] == ["room"]
        assert service["dns"] == ["127.0.0.1"]
        assert service["entrypoint"] == ["bash", "/homolog/isolate", "hold"]
        return
    assert service["network_mode"] == "service:net"
    assert service["depends_on"] == {NET: {"condition": "service_healthy"}}
    assert service["entrypoint"] == ["bash", "/homolog/closed"]
    assert not {"ports", "networks", "dns", "extra_hosts", "sysctls"} & set(service)
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])


def test_its_variables_are_those_of_the_settings() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert wanted == set(Settings("run", Path("/runs/run")).variables())
    assert not [name for name in wanted if "PASSWORD" in name or "KEY" in name]


# Settings


def test_the_file_of_variables_is_private(tmp_path: Path) -> None:
    stack = Stack(Settings("run", tmp_path / "a b$c#d", listen=Listen(port=None)))
    stack._write_environment("gateway")
    assert stack.environment_file.stat().st_mode & 0o777 == 0o600
    lines = stack.environment_file.read_text().splitlines()
    assert f"HOMOLOG_FOLDER='{tmp_path}/a b$c#d'" in lines
    assert "HOMOLOG_PORT=''" in lines
    assert "HOMOLOG_ALLOW=''" in lines


def test_a_value_that_compose_misreads_is_refused(tmp_path: Path) -> None:
    stack = Stack(Settings("run", tmp_path / "it's"))
    with pytest.raises(ConfigError) as error:
        stack._write_environment("gateway")
    assert "HOMOLOG_FOLDER" in error.value.details[0]
    assert not stack.environment_file.exists()


def test_names_begin_with_the_project() -> None:
    stack = Stack(Settings("run", Path("/runs/run")))
    assert (stack.name(NET), stack.name("pec-central")) == ("homolog-run-pec-net", "homolog-run-pec-central")
    assert {stack.name(name) for name in (NET, *SERVICES)} == {
        name.replace("${HOMOLOG_RUN:?}", "run") for name in re.findall(r'container_name: "(.*)"', FILE.read_text())
    }


# Which Compose


def _programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """Programs of these names that answer to `version --short`; docker without Compose fails as it does."""
    for name, answer in said.items():
        program_ = folder / name.replace("_", "-")
        program_.write_text(f"#!/bin/sh\n{answer}\n")
        program_.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


_NONE = "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1"


@pytest.mark.parametrize(
    ("docker", "docker_compose", "wanted"),
    [
        ("echo 2.29.1", "echo 1.29.2", ("docker", "compose")),
        ("echo v2.3.0", None, ("docker", "compose")),
        (_NONE, "echo 1.29.2", ("docker-compose",)),
        (None, "echo 2.10.0", ("docker-compose",)),
        ("echo 5.0.0-rc.1", None, ("docker", "compose")),
    ],
)
def test_compose_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: str | None, docker_compose: str | None,
    wanted: tuple[str, ...],
) -> None:  # fmt: skip
    programs = {"docker": docker, "docker_compose": docker_compose}
    _programs(tmp_path, monkeypatch, **{name: said for name, said in programs.items() if said is not None})
    assert program() == wanted


@pytest.mark.parametrize(
    ("programs", "told"),
    [({}, ""), ({"docker": _NONE}, ""), ({"docker": _NONE, "docker_compose": "echo 1.25.0"}, "docker-compose 1.25")],
)
def test_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str], told: str
) -> None:
    _programs(tmp_path, monkeypatch, **programs)
    with pytest.raises(ServerError) as error:
        program()
    assert told in error.value.what
    assert error.value.next_step
    assert "1.28" in error.value.next_step


def test_variables_of_the_caller_do_not_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOMOLOG_LISTEN", "COMPOSE_FILE", "COMPOSE_PROFILES"):
        monkeypatch.setenv(name, "0.0.0.0")
    assert set(os.environ) - set(compose._environment()) >= {"HOMOLOG_LISTEN", "COMPOSE_FILE", "COMPOSE_PROFILES"}
    assert compose._environment()["PATH"] == os.environ["PATH"]


# Who may connect


@pytest.fixture
def own_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of this machine's network; that it is this machine's own is only said."""
    address = "10.9.8.7"

    def bind(_: object, where: tuple[str, int]) -> None:
        if where[0] not in (address, "127.0.0.1"):
            raise OSError

    monkeypatch.setattr("socket.socket.bind", bind)
    return address


def test_this_machine_is_the_default() -> None:
    assert Listen.parse() == Listen() == Listen("127.0.0.1", 8443, ())
    assert Listen().sources == ()
    assert Listen().is_local
    assert Listen.parse(port=None).port is None


def test_a_network_needs_names(own_address: str) -> None:
    found = Listen.parse(own_address, 443, ["10.9.8.20", "10.9.9.77/24"])
    assert found.allow == ("10.9.8.20/32", "10.9.9.0/24")
    assert found.sources == ("10.9.8.20/32", "10.9.9.0/24", own_address)
    assert not found.is_local
    with pytest.raises(ConfigError):
        Listen.parse(own_address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::1", "224.0.0.1", "10.9.8.6", "lan", "", "127.1"])
def test_only_an_interface_of_this_machine(own_address: str, address: str) -> None:
    with pytest.raises(ConfigError):
        Listen.parse(address, allow=["10.0.0.0/8"])


@pytest.mark.parametrize("allow", ["0.0.0.0/0", "128.0.0.0/1", "::/0", "fd00::1", "everybody", "10.0.0.0/33", ""])
def test_not_everybody(own_address: str, allow: str) -> None:
    with pytest.raises(ConfigError):
        Listen.parse(own_address, allow=["10.9.8.20", allow])


def test_what_has_no_effect_is_told() -> None:
    with pytest.raises(ConfigError, match="--allow"):
        Listen.parse("127.0.0.1", allow=["10.0.0.0/8"])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port(port: int) -> None:
    with pytest.raises(ConfigError):
        Listen.parse(port=port)
