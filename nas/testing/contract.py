"""The base of all contracts: a contract is a class of requirements, and each requirement has one finding."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import SkipTest

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
    """The requirements of a kind of plugin: one for each ``test_…`` method, in the first line of its docstring.

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


def finding_of(contract: type[Contract], name: str) -> Finding:
    """Check the requirement of one method.

    Raises:
        UsageError: the plugin refuses its options when it is made, which is not a mistake of the plugin.
    """
    requirement = getattr(contract, name)
    sentence = requirement.__doc__.partition("\n")[0].rstrip(".")
    try:
        requirement(contract())
    except SkipTest as reason:
        return Finding(sentence, skipped=str(reason))
    except ContractError as error:
        return Finding(sentence, str(error))
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError) and name == "test_is_made":
            raise
        return Finding(sentence, _one_line(error))
    return Finding(sentence)


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
        raise ContractError(f"{action} raised {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextmanager
def global_random(seed: int) -> Iterator[Callable[[], list[str]]]:
    """Seed the global random numbers, restored at the end; yields a function that names those used since."""
    import numpy as np

    sources: dict[str, tuple[Any, Any, Any]] = {
        "random": (random.getstate, random.setstate, random.seed),
        "numpy.random": (np.random.get_state, np.random.set_state, np.random.seed),
    }
    if torch := sys.modules.get("torch"):
        sources["torch"] = (torch.get_rng_state, torch.set_rng_state, torch.manual_seed)

    def read() -> dict[str, str]:
        states = {name: get() for name, (get, _, _) in sources.items()}
        return {name: repr(state.tolist() if name == "torch" else state) for name, state in states.items()}

    before = {name: get() for name, (get, _, _) in sources.items()}
    try:
        for _, _, start in sources.values():
            start(seed)
        started = read()
        yield lambda: [name for name, state in read().items() if state != started[name]]
    finally:
        for name, (_, put, _) in sources.items():
            put(before[name])
