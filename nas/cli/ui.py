"""``nas ui``."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from nas.cli.searches import write_down
from nas.dashboard import SETTINGS
from nas.errors import NasError, UsageError, masked


@click.command()
@click.option("--host", metavar="NAME", default="127.0.0.1", help="Address to listen on. Default: 127.0.0.1.")
@click.option(
    "--port", metavar="N", default=5000, type=click.IntRange(1, 65_535), help="Port to listen on. Default: 5000."
)
@click.option("--store", metavar="URI", help="Address of the MLflow store. Default: mlflow.db in this folder.")
@click.option("--open", "browser", is_flag=True, help="Open a browser when the server answers.")
@click.option("--allow-remote", is_flag=True, help="Allow other machines to connect, without any password.")
def ui(host: str, port: int, store: str | None, browser: bool, allow_remote: bool) -> None:
    """Show the searches of this folder in a browser, with MLflow."""
    from nas.records import searches

    with suppress(ValueError):  # any other name than localhost
        allow_remote |= host == "localhost" or ipaddress.ip_address(host).is_loopback
    if not allow_remote:
        raise UsageError(
            f"--host {host} can be reached by other machines without a password; allow it with --allow-remote"
        )
    command, environment = _server(store)
    write_down(map(searches.State.of, searches.every()))
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # the rest repeats the address
        raise NasError(f"port {port} of {host} cannot be used ({reason}); choose another with --port") from None
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    click.echo("nas ui: starting MLflow's server, which takes some seconds", err=True)
    # The server has its own session, which the terminal's signals do not reach: `finally` ends it.
    server = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
    try:
        if _answers(address, server):
            page = f"{address}/nas"
            click.echo(f"nas ui: {page} (Ctrl-C to stop)", err=True)
            if browser:
                click.launch(page)
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        _end(server)
    raise NasError(f"MLflow's server ended by itself with exit code {code}; its messages are above")


def _server(store: str | None) -> tuple[list[str], dict[str, str]]:
    """The command that serves the store, and its environment."""
    from nas.dashboard.store import SERVERS, sqlite_file, store_of

    uri = store_of(Path(), store or "auto")
    if "://" not in uri:
        raise UsageError(
            f"--store {masked(f'://{uri}')[3:]} is not the address of a store; write for example sqlite:////folder/mlflow.db"
        )
    if uri.startswith(SERVERS):
        raise UsageError(f"{masked(uri)} is a server already: open it in a browser, or give another --store")
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "nas"]
    command += ["--uvicorn-opts", "--log-level warning"]
    if file := sqlite_file(uri):
        if not file.is_file():
            raise NasError(f"there are no searches here: {file} does not exist; run `nas search`, or give --store")
        command += ["--default-artifact-root", (file.absolute().parent / "mlartifacts").as_uri()]
    # Without its job runners the server needs seven processes and 0.6 GB less.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    # Everybody on this machine can read a command line, and the address may have a password.
    stores = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}
    return command, {**SETTINGS, **os.environ, **quiet, **stores}


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait for the server; returns whether it answers."""
    from urllib.request import urlopen  # here, because `nas --help` would wait for it

    while server.poll() is None:
        try:
            with urlopen(f"{address}/health", timeout=2):  # noqa: S310
                return True
        except OSError:
            time.sleep(0.3)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its children."""
    import psutil

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a second Ctrl-C must not leave them running
        with suppress(AttributeError):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # its session, also if the server itself was killed
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(psutil.Error):  # it has ended by itself
        every = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in every:
                with suppress(psutil.Error):
                    end(process)
            every = psutil.wait_procs(every, timeout=5)[1]
