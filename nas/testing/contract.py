"""What all contracts share: a contract is a class of requirements, each of which has one finding."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nas.errors import UsageError


class ContractError(AssertionError):
    """A plugin does not do what a search relies on; the message says what is wrong."""


@dataclass(frozen=True)
class Finding:
    """The result of checking one requirement."""

    requirement: str  # a sentence
    broken: str = ""  # what is wrong; empty if the requirement holds
    skipped: str = ""  # why the requirement does not apply to this plugin; empty if it does


class Contract:
    """The requirements of a kind of plugin: one in each ``test_…`` method, stated in its docstring's first line.

    A requirement that does not apply to a plugin raises ``unittest.SkipTest``, which pytest shows as skipped.
    """

    plugin: type[Any]
    options: Mapping[str, Any] = {}

    def make(self) -> Any:
        """A new instance, made as a search makes it."""
        raise NotImplementedError

    def test_is_made(self) -> None:
        """Can be made, with its options."""
        self.make()


def require(holds: bool, message: str) -> None:
    """Raise a `ContractError` with this message unless the condition holds."""
    if not holds:
        raise ContractError(message)


@contextmanager
def doing(action: str) -> Iterator[None]:
    """Turn the plugin's exceptions during this action into a `ContractError`, except for a `UsageError`."""
    try:
        yield
    except (ContractError, UsageError):
        raise
    except (Exception, SystemExit) as error:
        raise ContractError(f"{action} raised {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The type and the message of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextmanager
def global_random(seed: int) -> Iterator[Callable[[], list[str]]]:
    """Seed the global random numbers, restored at the end; yields a function that names those used since."""
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
