"""PEC's image, its proxy, and the stand-in for PEC that other tests use: what they do, and what they give away."""

from __future__ import annotations

import http.client
import io
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge.errors import ConfigError, ServerError
from sandbox import images
from sandbox.labelled import LABEL
from sandbox.pec.tls import make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import docker
    from docker.models.containers import Container

    Running = tuple["Sandbox", Container, list[str]]

pytestmark = pytest.mark.docker

_BIN = "/usr/lib/postgresql/15/bin"
_USER = "esus"
_DATABASES = ("central", "source", "locked", "older", "unowned")

_SCHEMA = """
CREATE TABLE tb_config_sistema (
    co_config_sistema varchar PRIMARY KEY, ds_config_sistema varchar NOT NULL, st_disponivel_sistema integer NOT NULL,
    ds_texto varchar, ds_inteiro integer, ds_binario bytea);
INSERT INTO tb_config_sistema VALUES
    ('VERSAOBANCODADOS', '', 1, '5.5.28'), ('UUIDINSTALACAO', '', 1, current_database());
CREATE TABLE tb_auditoria_evento (co_seq_auditoria_evento bigint PRIMARY KEY, dt_evento timestamp, ds_detalhes text);
CREATE TABLE tb_migracao_trava (id integer PRIMARY KEY, locked boolean NOT NULL);
INSERT INTO tb_migracao_trava VALUES (1, false);
CREATE TABLE tb_pedido_envio_base (co_seq_pedido_envio bigint PRIMARY KEY, st_pedido varchar, dt_situacao timestamp);
CREATE TABLE tb_unificacao_base (co_seq_unificacao_base bigint PRIMARY KEY);
CREATE TABLE tb_cidadao (co_seq_cidadao bigint PRIMARY KEY);
GRANT ALL ON ALL TABLES IN SCHEMA public TO esus;
"""

_OLDER = "UPDATE tb_config_sistema SET ds_texto = '5.5.27' WHERE co_config_sistema = 'VERSAOBANCODADOS'"

_POSTGRES = f"""
set -eu
{_BIN}/initdb -D /tmp/data -U postgres -A trust -E UTF8 --locale=C > /dev/null
printf '%s\\n' 'local all all trust' 'host all scram 127.0.0.1/32 scram-sha-256' 'host all all 127.0.0.1/32 md5' \
    > /tmp/data/pg_hba.conf
exec {_BIN}/postgres -D /tmp/data -k /tmp -c listen_addresses=127.0.0.1 -c fsync=off -c password_encryption=md5
"""


class Sandbox:
    """A network namespace, with PostgreSQL, a proxy and as many PECs as are started."""

    def __init__(self, client: docker.DockerClient, pec: str) -> None:
        self.client = client
        self.image = pec
        self.run_id = f"test-{secrets.token_hex(4)}"
        self.password = secrets.token_urlsafe(12) + '\\"$'
        self.certificate = make_certificate(["central.homolog", "source.homolog"])
        self.containers: list[Container] = []
        hosts = dict.fromkeys(("central.homolog", "source.homolog"), "127.0.0.1")
        self.holder = self.create(
            images.guard(), None, entrypoint=["sleep", "infinity"], init=True,
            ports={"443/tcp": ("127.0.0.1", None)}, extra_hosts=hosts,
        )  # fmt: skip
        self.holder.start()
        self.holder.reload()
        self.port = int(self.holder.attrs["NetworkSettings"]["Ports"]["443/tcp"][0]["HostPort"])

    def create(self, image: str, files: dict[str, bytes] | None, **options: Any) -> Container:
        """A container without any capability, and files put into it for root only."""
        closed = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "labels": {LABEL: self.run_id}}
        options = {**closed, **options}
        container: Container = self.client.containers.create(image, **options)
        self.containers.append(container)
        for path, content in (files or {}).items():
            put(container, path, content)
        return container

    def beside(self, image: str, files: dict[str, bytes] | None = None, **options: Any) -> Container:
        """The same, in the namespace."""
        return self.create(image, files, network_mode=f"container:{self.holder.id}", **options)

    def start_postgres(self) -> None:
        start = ["bash", "-c", _POSTGRES]
        self.postgres = self.beside(images.postgres(15), entrypoint=start, user="postgres", init=True)
        self.postgres.start()
        until(lambda: self.postgres.exec_run([f"{_BIN}/pg_isready", "-h", "127.0.0.1"]).exit_code == 0)
        password = self.password.replace("'", "''")
        for role, kind in ((_USER, "md5"), ("scram", "scram-sha-256")):
            self.sql("postgres", f"SET password_encryption = '{kind}'; CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        for database in _DATABASES:
            self.sql("postgres", f"CREATE DATABASE {database}")
            self.sql(database, _SCHEMA)

    def sql(self, database: str, commands: str) -> str:
        """Carry out as superuser; what came of it, without headings."""
        psql = [f"{_BIN}/psql", "-XAtq", "-h", "/tmp", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database]
        code, said = self.postgres.exec_run([*psql, "-c", commands])
        assert code == 0, said
        return str(said.decode().strip())

    def pec(self, database: str = "central", *, user: str = _USER, port: int = 8080, **more: str) -> Container:
        """A PEC that was not started yet."""
        environment = {
            "PEC_DATABASE": database, "PEC_USER": user, "PEC_PORT": str(port), "PEC_MEMORY": "64M",
            "STANDIN_PAUSE": "100", "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC", **more,
        }  # fmt: skip
        files = {"/run/pec/password": self.password.encode(), "/run/pec/ca.crt": self.certificate.ca}
        return self.beside(self.image, files, environment=environment, user="0")

    def proxy(self, **options: Any) -> Container:
        files = {"/run/proxy/cert.pem": self.certificate.cert, "/run/proxy/key.pem": self.certificate.key}
        return self.beside(images.proxy(), files, cap_add=["NET_BIND_SERVICE"], **options)

    def ask(
        self, path: str, host: str = "central.homolog", method: str = "GET", ca: bytes | None = None
    ) -> tuple[int, str]:
        """Status and body of an answer through the proxy; its certificate is verified."""
        context = ssl.create_default_context(cadata=(ca or self.certificate.ca).decode())
        connection = http.client.HTTPConnection(host, timeout=10)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection.sock,
        ):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def answers(self, code: int = 200, host: str = "central.homolog") -> bool:
        try:
            return self.ask("/", host)[0] == code
        except (OSError, http.client.HTTPException):
            return False

    def remove(self) -> None:
        for container in reversed(self.containers):
            container.remove(force=True, v=True)


def put(container: Container, path: str, content: bytes) -> None:
    packed = io.BytesIO()
    folder, name = path.rsplit("/", 1)
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o600
        archive.addfile(member, io.BytesIO(content))
    assert container.put_archive(folder, packed.getvalue())


def until(attempt: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not attempt():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def said(container: Container, **options: bool) -> str:
    return str(container.logs(**options).decode())


def ended(container: Container) -> tuple[int, str]:
    """Exit code and last line of a container that ends by itself."""
    code = container.wait(timeout=180)["StatusCode"]
    return code, said(container, stderr=False).splitlines()[-1]


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    if not images.answers():
        pytest.skip("no Docker daemon answers")
    with images.daemon() as found:
        yield found


@pytest.fixture(scope="module")
def jar(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, as nobody else has it: what becomes of it in Docker can be removed."""
    own = tmp_path_factory.mktemp("own") / standin.name
    shutil.copy(standin, own)
    with zipfile.ZipFile(own, "a") as archive:
        archive.writestr("own", secrets.token_hex(8))
    return own


@pytest.fixture(scope="module")
def pec_image(client: docker.DockerClient, jar: Path) -> Iterator[str]:
    """The image that is built from the stand-in."""
    try:
        image = images.pec(jar)
    except ServerError as ex:
        pytest.skip(f"{ex.what} {ex.details}")
    yield image
    client.images.remove(image)


@pytest.fixture(scope="module")
def empty(client: docker.DockerClient, pec_image: str) -> Iterator[Sandbox]:
    """A namespace with PostgreSQL and databases that PEC takes for its own."""
    sandbox = Sandbox(client, pec_image)
    try:
        sandbox.start_postgres()
        yield sandbox
    finally:
        sandbox.remove()


@pytest.fixture(scope="module")
def running(empty: Sandbox) -> Running:
    """The same with a running PEC behind a proxy, and all processes that were seen until it ran.

    Of each its arguments and, after them, its environment.
    """
    pec, seen, enough = empty.pec(STANDIN_TRANSMIT="127.0.0.1:9"), list[str](), threading.Event()

    def watch() -> None:
        while not enough.is_set():
            seen.extend(" ".join(process) for process in pec.top(ps_args="auxeww")["Processes"])

    empty.proxy().start()
    pec.start()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        until(empty.answers)
    finally:
        enough.set()
        watcher.join()
    return empty, pec, seen


def test_the_image_has_what_pec_needs(client: docker.DockerClient, pec_image: str, jar: Path) -> None:
    ask = "locale -a; locale charmap; date +%Z%z; date -d 2026-07-01T12:00Z +%H; java -version 2>&1; fc-list; ls /opt/*"
    found = client.containers.run(pec_image, entrypoint=["bash", "-c", ask], remove=True, network_mode="none").decode()
    for wanted in ("pt_BR.utf8", "UTF-8", "-03-0300", "\n09\n", '"17.', "Liberation", "DejaVu", jar.name):
        assert wanted in found
    image = client.images.get(pec_image)
    assert image.labels[images.JAR_NAME] == jar.name
    assert pec_image == f"homolog-pec:{image.labels[images.JAR_SHA256][:12]}"


def test_the_image_is_built_once(client: docker.DockerClient, pec_image: str, jar: Path) -> None:
    before = client.images.get(pec_image).id
    began = time.monotonic()
    assert images.pec(jar) == pec_image
    assert time.monotonic() - began < 3
    assert client.images.get(pec_image).id == before
    found = images.find(pec_image)
    assert found
    assert (found.id, found.origin, found.digest) == (before, "built", "")
    assert images._is_here(pec_image, images._recipe("pec", "installer"))
    assert not images._is_here(pec_image, images._recipe("pec"))  # and again when the recipe is another


def test_an_installer_needs_no_internet(
    client: docker.DockerClient, pec_image: str, jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server to which the rest came on a stick: neither is anything pulled, nor Debian's image there."""
    monkeypatch.setattr(images, "BASE", "homolog-test-none:none")
    other = tmp_path / jar.name
    shutil.copy(jar, other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("other", secrets.token_hex(8))
    image = images.pec(other)
    try:
        assert image != pec_image
        layers = client.images.get(image).attrs["RootFS"]["Layers"]
        assert layers[:-1] == client.images.get(images.PEC_BASE).attrs["RootFS"]["Layers"]
    finally:
        client.images.remove(image)


def test_room_is_asked_for_before_a_disk_is_full(
    client: docker.DockerClient, jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if images.folder(client) is None:
        pytest.skip("Docker's folder is on another machine")
    other = tmp_path / jar.name
    shutil.copy(jar, other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("other", b"")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ConfigError, match=r"\d MB"):
        images.pec(other)


def test_the_task_lists_what_is_needed(pec_image: str, jar: Path) -> None:
    asked = ["--json", "--major", "15", "--major", "99", "--pec-jar", str(jar)]
    command = [sys.executable, "-m", "invoke", "images", *asked]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True)
    listed = {image["name"]: image for image in json.loads(done.stdout)["images"]}
    assert [name.split(":")[0].removeprefix("homolog-") for name in listed] == [
        "guard", "postgres", "postgres", "proxy", "pec-base", "pec",
    ]  # fmt: skip
    assert listed[pec_image]["here"]
    assert listed[pec_image]["origin"] == "built"
    assert listed["postgres:99"] == {"name": "postgres:99", "here": False}


def test_pec_answers_through_the_proxy(running: Running) -> None:
    sandbox, pec, _ = running
    status, body = sandbox.ask("/api/public/info")
    assert status == 200
    assert json.loads(body)["version"] == "5.5.28"
    assert json.loads(body)["uuid"] == "central"
    assert sandbox.ask("/", host="source.homolog")[0] == 502  # there is none yet
    until(lambda: "PEC iniciado" in said(pec, stderr=False))  # the program's log
    assert sandbox.sql("central", "SELECT count(*) FROM tb_auditoria_evento") == "1"
    until(lambda: "Falha na transmissão" in said(pec, stderr=False))


def test_another_authority_is_not_trusted(running: Running) -> None:
    sandbox, _, _ = running
    with pytest.raises(ssl.SSLCertVerificationError):
        sandbox.ask("/", ca=make_certificate(["central.homolog"]).ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        sandbox.ask("/", host="localhost")


def test_the_password_is_nowhere(running: Running) -> None:
    """Neither in arguments while PEC is installed, nor in what Docker knows, nor in the environment or on a disk."""
    sandbox, pec, seen = running
    assert any("java @/dev/shm/" in line and "PEC_DATABASE=central" in line for line in seen)  # the installer was seen
    assert any("-jar pec.jar" in line for line in seen)
    pec.reload()
    image = sandbox.client.images.get(sandbox.image)
    everything = [*seen, json.dumps(pec.attrs), said(pec), json.dumps(image.attrs), json.dumps(image.history())]
    assert not [text for text in everything if sandbox.password in text or json.dumps(sandbox.password)[1:-1] in text]
    ask = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; ls -A /run/pec /dev/shm /dev/shm/* /tmp"
    found = pec.exec_run(["bash", "-c", ask]).output.decode()
    assert "PEC_DATABASE=central" in found
    assert "ca.crt" in found
    assert not [wrong for wrong in (sandbox.password, "password\n", "arguments") if wrong in found]
    settings = "/opt/e-SUS/webserver/config/application.properties"  # there the installer has put it
    places = ["/opt", "/etc", "/run", "/tmp", "/var", "/root", "/dev/shm"]
    holding = pec.exec_run(["grep", "-rlsF", "-e", sandbox.password.split("\\")[0], *places]).output.decode().split()
    assert holding == [settings]
    assert pec.exec_run(["stat", "-c", "%a", settings]).output == b"600\n"


def test_the_proxy_logs_no_person(running: Running) -> None:
    sandbox, _, _ = running
    proxy = next(c for c in sandbox.containers if "homolog-proxy" in str(c.attrs["Config"]["Image"]))
    sandbox.ask("/cidadao/12345678909?nome=maria")
    sandbox.ask("/cidadao/12345678909?nome=maria", host="source.homolog")  # nobody answers there: an error
    until(lambda: said(proxy).count("/cidadao") >= 2)
    assert "12345678909" not in said(proxy)
    assert "maria" not in said(proxy)


def test_a_restarted_pec_is_not_installed_again(running: Running) -> None:
    sandbox, pec, _ = running
    pec.stop(timeout=20)
    code, last = ended(pec)
    assert code == 143
    assert last == "pec: server ended as told (exit code 143)"
    pec.start()
    until(sandbox.answers)
    assert said(pec).count("pec: installing") == 1
    until(lambda: said(pec, stderr=False).count("PEC iniciado") == 2)


def test_a_unification(running: Running) -> None:
    """The source asks over TLS, and verifies the certificate; the central accepts, and gets what the test has put."""
    sandbox, central, _ = running
    source = sandbox.pec("source", port=8081)
    source.start()
    until(lambda: sandbox.answers(host="source.homolog"))
    rows = "INSERT INTO tb_cidadao VALUES (1);\nCOMMIT;\nINSERT INTO tb_cidadao VALUES (2)"
    put(central, "/run/pec/unify.sql", rows.encode())

    def status(host: str) -> str:
        return sandbox.ask("/standin/status", host)[1]

    asked = ("/standin/unify?https://central.homolog", "source.homolog", "POST")
    assert sandbox.ask(*asked) == (200, "Aguardando aprovação")
    until(lambda: status("central.homolog") == "Aguardando aprovação")
    assert sandbox.ask(*asked)[0] == 409
    assert sandbox.sql("central", "SELECT count(*) FROM tb_unificacao_base") == "1"
    assert sandbox.ask("/standin/accept", method="POST") == (200, "Aguardando unificação")
    until(lambda: status("source.homolog") == "Unificando base")
    assert sandbox.answers(403, "source.homolog")
    until(lambda: status("source.homolog") == "Base unificada")
    assert status("central.homolog") == "Base unificada"
    assert sandbox.sql("central", "SELECT count(*) FROM tb_cidadao") == "2"
    row = sandbox.sql("source", "SELECT st_pedido, dt_situacao > now() - interval '1 day' FROM tb_pedido_envio_base")
    assert row == "Base unificada|t"
    assert "Unificação de base: etapa 2 de 2 gravada" in said(central, stderr=False)
    source.restart(timeout=20)
    until(lambda: sandbox.answers(403, "source.homolog"))
    source.stop(timeout=20)


def test_an_error_and_the_end_of_memory(running: Running) -> None:
    sandbox, pec, _ = running
    sandbox.ask("/standin/error", method="POST")
    until(lambda: "NullPointerException" in said(pec, stderr=False))
    sandbox.ask("/standin/memory", method="POST")
    assert ended(pec) == (3, "pec: server ended (exit code 3)")
    assert "OutOfMemoryError" in said(pec)


@pytest.mark.parametrize(
    ("database", "user", "more", "code", "line", "evidence"),
    [
        ("central", "scram", {}, 1, "installer failed", "The authentication type 10 is not supported."),
        ("central", "nobody", {}, 1, "installer failed", "password authentication failed"),
        ("locked", _USER, {}, 1, "installer failed", "Could not acquire change log lock"),
        ("older", _USER, {}, 1, "server ended", "banco de dados: 5.5.28 Versao encontrada: 5.5.27"),
        ("unowned", _USER, {"PEC_MIGRATE": "1"}, 1, "migrador failed", "permission denied"),
        ("", _USER, {}, 64, "PEC_DATABASE is not set", ""),
    ],
)
def test_it_says_which_part_failed(
    empty: Sandbox, database: str, user: str, more: dict[str, str], code: int, line: str, evidence: str
) -> None:
    empty.sql("locked", "UPDATE tb_migracao_trava SET locked = true")
    empty.sql("older", _OLDER)
    empty.sql("unowned", f"REVOKE UPDATE ON tb_config_sistema FROM {_USER}")
    pec = empty.pec(database, user=user, port=8082, **more)
    pec.start()
    assert ended(pec) == (code, f"pec: {line} (exit code {code})")
    assert evidence in said(pec)
    pec.remove(v=True)
    empty.containers.remove(pec)


def test_the_migrator_brings_the_database_to_the_version(empty: Sandbox) -> None:
    empty.sql("older", _OLDER)
    pec = empty.pec("older", port=8083, PEC_MIGRATE="1", STANDIN_DELAY="0")
    pec.start()
    until(lambda: "PEC iniciado" in said(pec))
    assert empty.sql("older", "SELECT min(ds_texto) FROM tb_config_sistema") == "5.5.28"
    pec.restart(timeout=20)  # without a password, by now
    until(lambda: said(pec).count("PEC iniciado") == 2)
    assert said(pec).count("pec: migrating") == 1
    pec.stop(timeout=20)


def test_the_proxy_runs_read_only_and_lets_in_whom_it_is_told(client: docker.DockerClient, pec_image: str) -> None:
    sandbox = Sandbox(client, pec_image)
    volume = client.volumes.create(f"homolog-test-{secrets.token_hex(4)}")
    try:
        options = {"read_only": True, "volumes": {volume.name: {"bind": "/run/proxy"}}}
        proxy = sandbox.proxy(**options, environment={"PROXY_ALLOW": "192.0.2.0/24"})
        proxy.start()
        until(lambda: sandbox.answers(403))
        proxy.stop(timeout=10)
        gateway = sandbox.holder.attrs["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        proxy = sandbox.proxy(**options, environment={"PROXY_ALLOW": f"192.0.2.0/24 {gateway}"})
        proxy.start()
        until(lambda: sandbox.answers(502))
        proxy = sandbox.proxy(**options, environment={"PROXY_ALLOW": "all; return 200"})
        proxy.start()
        assert proxy.wait(timeout=30)["StatusCode"] == 64
    finally:
        sandbox.remove()
        volume.remove()
