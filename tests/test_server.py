"""A real server with a login and a certificate of its own, in front of PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import NAS, QUICK, error_line, inline, nas
from mlflow import MlflowClient
from test_kills import compare_with_mlflow
from test_mlflow import wait_for

from nas.dashboard import SETTINGS
from nas.records.journal import FILE
from nas.records.record import read

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
TRAINING = ["--dataset", "mnist-5k", "--epochs", "0.1", "--precision", "float32"]
SECRETS = ("s3cret-of-the-server", "s3cret-of-the-database")
USER = "postgres" if os.name == "posix" and os.getuid() == 0 else None  # the database refuses to run as root

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not here: apt-get install postgresql"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with an empty database; its address."""
    folder, port = Path(tempfile.mkdtemp()), free_port()
    (folder / "password").write_text(SECRETS[1])
    if USER:
        for path in (folder, folder / "password"):
            shutil.chown(path, USER)
    made = ["--username=nas", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
    binaries, data = POSTGRES[-1].parent, str(folder / "data")
    subprocess.run(
        [binaries / "initdb", "-D", data, *made], check=True, user=USER, stdout=subprocess.DEVNULL, cwd="/"
    )
    command = [str(binaries / "postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
    with subprocess.Popen(command, user=USER, stderr=subprocess.DEVNULL, cwd="/") as process:
        try:
            ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield f"postgresql://nas:{SECRETS[1]}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """The server's address without a login, the file of its certificate, and the address of its database."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-days", "2", *made, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    login = f"admin_username = admin\nadmin_password = {SECRETS[0]}\ndefault_permission = NO_PERMISSIONS\n"
    (folder / "auth.ini").write_text(
        f"[mlflow]\n{login}database_uri = sqlite:///{folder}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with postgres() as store:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--app-name",
            "basic-auth",
            "--backend-store-uri",
            store,
        ]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
        command += ["--uvicorn-opts", f"--ssl-keyfile {key} --ssl-certfile {certificate} --log-level warning"]
        environment = {
            **os.environ, **SETTINGS, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "x", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        trusting = ssl.create_default_context(cafile=str(certificate))

        def answers() -> bool:
            assert process.poll() is None, (folder / "log.txt").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"https://localhost:{port}/health", timeout=5, context=trusting).close()
            except OSError:
                return False
            return True

        with (
            (folder / "log.txt").open("w") as log,
            subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log) as process,
        ):
            try:
                wait_for(answers, 120)
                yield f"localhost:{port}", certificate, store
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_search_over_a_server_with_a_login_and_a_certificate(
    tmp_path: Path, server: tuple[str, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, certificate, store = server
    address, output = f"https://admin:{SECRETS[0]}@{host}", ""
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": SECRETS[0]}
    monkeypatch.chdir(tmp_path)
    for name, value in SETTINGS.items():  # as the command does
        monkeypatch.setenv(name, value)

    def sync(search: str, *words: str, code: int = 0) -> str:
        nonlocal output
        done = inline("sync", search, *words, code=code)
        output += done.output
        return error_line(done) if code else done.output

    # What is wrong is said in one line.
    nas("train", "lecture", *TRAINING, "--mlflow", "off", "--out", "later", cwd=tmp_path)
    assert "its certificate is not trusted" in sync("./later", "--store", address, code=1)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    stranger = address.replace(SECRETS[0], "s3cret-of-nobody")
    assert "it asks for a user and a password" in sync("./later", "--store", stranger, code=1)
    said = sync("./later", "--store", address)
    assert f"https://***@{host} has all of later now: 1 of 1 seeds were new" in said

    # A search that is killed, and goes on with the login from the environment.
    command = [*NAS, "search", *QUICK, "--trials", "10", "--workers", "2", "--mlflow", address, "--out", "killed"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stderr=subprocess.PIPE) as process:
        journal = tmp_path / "killed" / FILE
        wait_for(lambda: journal.exists() and len(read(journal)[0].told) >= 8, 240)
        time.sleep(2)  # so that MLflow has some of them
        process.kill()
        assert process.stderr is not None
        output += process.stderr.read()
    assert "it asks for a user and a password" in sync("./killed", code=1)
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    done = nas("resume", "./killed", cwd=tmp_path)
    output += done.stdout + done.stderr

    # The database itself, without the server.
    place, _, _ = store.rpartition("/")
    made = ["--maintenance-db", store, "direct"]
    subprocess.run([POSTGRES[-1].with_name("createdb"), *made], check=True, cwd="/")
    said = sync("./later", "--store", f"{place}/direct")
    assert f"{place.replace(SECRETS[1], '***')}/direct has all of later now: 1 of 1" in said
    wrong = f"{place.replace(SECRETS[1], 's3cret-of-nobody')}/direct"
    assert "it asks for a user and a password" in sync("./later", "--store", wrong, code=1)

    # Everything is there, and no password is.
    compare_with_mlflow(f"https://{host}", tmp_path / "killed")
    client = MlflowClient(f"https://{host}", f"https://{host}")
    champion = client.get_model_version_by_alias("nas-mnist-5k", "champion")
    assert champion.tags["search"] == "killed"
    run = client.get_run(str(champion.run_id))
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"best", "figures", "report.html", "search.toml"} <= files
    (tmp_path / "output.txt").write_text(output + str(run.to_dictionary()))
    artifacts = certificate.parent / "artifacts"
    assert list(artifacts.rglob("MLmodel"))
    found = subprocess.run(["grep", "-rl", "s3cret", tmp_path, artifacts], capture_output=True, check=False)
    assert found.stdout == b""
