"""The connection of this process to a Ray cluster. Ray can be connected to one at a time."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas.errors import NasError, UsageError
from nas.evaluation.cluster import data
from nas.evaluation.cluster.cluster import Cluster
from nas.evaluation.local import machine

PROBE_SECONDS = 5.0  # in which a cluster must answer
INSTALL = "`pip install 'ray>=2.60'`"
# Of Ray, which reads them when it is imported: it tells nobody about its use; it does not warn about a default of
# its own; and it does not print what becomes of its processes, since a search says what it has lost.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}

_lock = threading.Lock()
_cluster: Cluster | None = None


def connected(address: str | None = None, *, may_start: bool = True) -> Cluster:
    """Connect this process to a Ray cluster, once; without one, a cluster is started on this machine.

    Args:
        address: ``host:port``; None for that of RAY_ADDRESS, or else the cluster that runs on this machine.
        may_start: whether one may be started.

    Raises:
        NasError: Ray is not installed, or there is no such cluster.
    """
    global _cluster
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    wanted = address or os.environ.get("RAY_ADDRESS", "")
    if wanted.startswith("ray://"):
        raise UsageError(
            f"{wanted} is an address of Ray Client, which cannot run a search: start it on a node of the cluster, "
            "as with `ray job submit -- nas search --evaluator ray`"
        )
    try:
        import ray
    except ImportError:
        raise NasError(f"the evaluator ray needs Ray, which is not installed: {INSTALL} has it") from None
    with _lock:
        if _cluster is not None and ray.is_initialized():
            if address and address not in _cluster.names and _found(address) != _cluster.address:
                raise UsageError(
                    f"this process is connected to the Ray cluster {_cluster.address} already, not to {address}: "
                    "use another process, or call ray.shutdown() first"
                )
            return _cluster
        data.forget()
        if not ray.is_initialized():
            _connect(wanted, may_start=may_start)
        _cluster = Cluster(ray.get_runtime_context().gcs_address)
        _cluster.names |= {wanted, address or wanted}
        atexit.register(leave)
        return _cluster


def leave() -> None:
    """End all agents and the connection, and the cluster if this process has started it."""
    global _cluster
    left, _cluster = _cluster, None
    if left is not None:
        left.leave()


def has_authentication() -> bool:
    """Whether the cluster lets in only those who know its token."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def _connect(wanted: str, *, may_start: bool) -> None:
    """Connect to a cluster, or start one for this process."""
    import ray
    from ray.exceptions import RayError

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
    with _same_signals():
        if address := _found(wanted):
            try:
                ray.init(address=address, **quiet)
            except (RayError, ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise NasError(f"the Ray cluster {address} cannot be joined: {reason[:400]}") from None
            return
        if not may_start:
            raise NasError(
                "no Ray cluster runs on this machine: start one with `ray start --head`, or name another one "
                "with --address or RAY_ADDRESS"
            )
        ray.init(address="local", include_dashboard=False, num_cpus=machine.cores(), **quiet)


def _found(wanted: str) -> str:
    """The address of a cluster that answers; empty if none was named and none runs on this machine.

    Ray itself tries for ten minutes to reach an address where nothing is, also that of a cluster that was killed.

    Raises:
        NasError: none answers at the address that was named.
    """
    from ray._private.utils import read_ray_address

    if wanted == "local":
        return ""
    is_named = wanted not in ("", "auto")
    address = wanted if is_named else read_ray_address() or ""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS):
            return address
    except (OSError, ValueError) as error:
        if not is_named:
            return ""
        reason = getattr(error, "strerror", None) or (
            "it is not of the form host:port" if not host else str(error)
        )
        raise NasError(
            f"there is no Ray cluster at {wanted} ({reason}): on a node of one, `ray status` shows its address, "
            "HOST:6379 if nobody has chosen another port"
        ) from None


@contextmanager
def _same_signals() -> Iterator[None]:
    """Ray replaces the answer to SIGTERM; only the main thread may change it, in Ray as here."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
