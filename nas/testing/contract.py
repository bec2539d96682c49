"""What all contracts share: requirements, what came of them, and what tells it in words."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nas.errors import UsageError


class ContractError(AssertionError):
    """A plugin does not do what a search relies on; the message says in words what is broken."""


@dataclass(frozen=True)
class Finding:
    """What came of checking one requirement."""

    requirement: str
    broken: str = ""  # in words; empty if it holds


class Contract:
    """The requirements of a kind: each ``test_…`` is one, the first line of its docstring says it in words."""

    plugin: type[Any]
    options: Mapping[str, Any] = {}

    def make(self) -> Any:
        """An instance, as a search makes it; each kind has its own way."""
        raise NotImplementedError

    def test_is_made(self) -> None:
        """Can be made, with its options."""
        self.make()


def require(holds: bool, message: str) -> None:
    """Raise a `ContractError` unless it holds."""
    if not holds:
        raise ContractError(message)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Whatever the plugin raises while it does that is a broken requirement, but for a wrong option."""
    try:
        yield
    except (ContractError, UsageError):
        raise
    except (Exception, SystemExit) as error:
        raise ContractError(f"{what} raised {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The kind of an error, and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextmanager
def global_random(seed: int) -> Iterator[Callable[[], list[str]]]:
    """Inside, the global random numbers follow from ``seed``; yields what names those that were touched since."""
    import numpy as np

    sources: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[int], Any]]] = {
        "random": (random.getstate, random.setstate, random.seed),
        "numpy.random": (np.random.get_state, np.random.set_state, np.random.seed),
    }
    if torch := sys.modules.get("torch"):
        sources["torch"] = (torch.get_rng_state, torch.set_rng_state, torch.manual_seed)

    def read() -> dict[str, object]:
        states = {name: get() for name, (get, _, _) in sources.items()}
        return {name: state.tolist() if name == "torch" else repr(state) for name, state in states.items()}

    before = {name: get() for name, (get, _, _) in sources.items()}
    try:
        for _, _, start in sources.values():
            start(seed)
        started = read()
        yield lambda: [name for name, state in read().items() if state != started[name]]
    finally:
        for name, (_, put, _) in sources.items():
            put(before[name])
