"""How a network is trained: everything that is not the network, the data or the seed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from nas.errors import OptionError, UsageError, quoted, unknown

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, regularisation and batches of a training."""

    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-2  # the peak, of a one-cycle schedule
    fine_tuning: float = 0.1  # the fraction of that with which pretrained weights learn
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    warm_up: float = 0.25  # the fraction of all steps until the peak
    weight_decay: float = 1e-2  # of weights, not of biases and normalisation
    label_smoothing: float = 0.05
    shift: int = 2  # pixels: each image of a batch is moved by up to so many, both ways
    batch_size: int = 64
    precision: Precision = "float32"  # of convolutions and linear maps

    def rate(self, progress: float) -> float:
        """The learning rate after a fraction ``progress`` of all steps (Smith, Super-convergence, 2018)."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * float(np.interp(progress, (0, self.warm_up, 1), (0.1, 1.0, 0.0)))


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    # Keras's Adam, batches of 128, plain cross-entropy, images as they are.
    "lecture": Recipe(
        optimiser="adam",
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        label_smoothing=0.0,
        shift=0,
        batch_size=128,
    ),
}


# The values that a number of a recipe may have, both ends included.
TINY = 1e-12
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (TINY, 100.0),
    "fine_tuning": (0.0, 1.0),
    "warm_up": (0.0, 1.0),
    "weight_decay": (0.0, 100.0),
    "label_smoothing": (0.0, 1.0 - TINY),
    "shift": (0, 1_000),
    "batch_size": (1, 1_000_000),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(unknown("recipe", name, RECIPES))
    return RECIPES[name]


def recipe_of(given: str | Mapping[str, Any]) -> Recipe:
    """The recipe of a name, or of a table: ``base`` names the recipe that the other fields are changes of.

    Numbers may be given as text, as a command line has them.

    Raises:
        OptionError: an unknown field, or a value of a wrong type or out of range.
        UsageError: there is no recipe of that name.
    """
    if isinstance(given, str):
        return recipe_named(given)
    changes = {str(name): value for name, value in given.items() if name != "base"}
    base = given.get("base", "default")
    if not isinstance(base, str) or base not in RECIPES:
        raise OptionError(unknown("recipe", str(base), RECIPES), "base")
    return replace(RECIPES[base], **{name: _checked(name, value) for name, value in changes.items()})


def table_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table for `recipe_of`: what differs from the default recipe.

    Raises:
        OptionError: its precision is not the default one, which a table cannot say.
    """
    default = asdict(RECIPES["default"])
    changes = {name: value for name, value in asdict(recipe).items() if value != default[name]}
    return {"base": "default", **{name: _checked(name, value) for name, value in changes.items()}}


def _checked(name: str, value: object) -> Any:
    """The value of a field, in the field's own type.

    Raises:
        OptionError: the field is unknown, or the value is of a wrong type or out of range.
    """
    fields = asdict(RECIPES["default"])
    if name == "precision":
        raise OptionError(f"a recipe has no precision: write precision = {quoted(value)} outside of it", name)
    if name not in fields:
        known = [*(field for field in fields if field != "precision"), "base"]
        raise OptionError(unknown("field of a recipe", name, known), name)
    wrong = f"recipe.{name} = {quoted(value)}: should be"
    if name not in RANGES:
        words = get_args(get_type_hints(Recipe)[name])
        if value not in words:
            raise OptionError(f"{wrong} one of {', '.join(words)}", name)
        return value
    kind: type[int | float] = type(fields[name])
    low, high = RANGES[name]
    number: Any = value if type(value) in (int, kind) else None
    if isinstance(value, str):
        with suppress(ValueError):
            number = kind(value)
    if number is None:
        raise OptionError(f"{wrong} a {'whole ' if kind is int else ''}number", name)
    if not low <= number <= high:
        limits = {TINY: "above 0", 1.0 - TINY: "below 1"}
        words = (limits.get(low, f"{low:,g} or more"), limits.get(high, f"{high:,g} or less"))
        raise OptionError(f"{wrong} {words[0]} and {words[1]}", name)
    return kind(number)
