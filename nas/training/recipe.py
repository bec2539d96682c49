"""Recipes: how a network is trained, apart from its architecture, the data and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from nas.errors import OptionError, SpaceError, UsageError, quoted, unknown
from nas.spaces.questions import Question
from nas.spaces.space import RECIPE

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, regularisation and batches of a training."""

    optimiser: Literal["adamw", "adam", "muon"] = "adamw"  # see `nas.training.muon`
    learning_rate: float = 1e-2  # the peak, if the schedule is one-cycle
    fine_tuning: float = 0.1  # the learning rate of pretrained weights, as a fraction of that of new weights
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    warm_up: float = 0.25  # the fraction of all steps until the peak
    weight_decay: float = 1e-2  # of weights, not of biases and normalisation
    label_smoothing: float = 0.05
    shift: int = 2  # pixels: each image is moved at random by up to this distance, both ways; of series: steps
    flip: float = 0.0  # the probability that an image is mirrored, left to right
    rotation: float = 0.0  # degrees: each image is turned at random by up to this angle, either way
    scale: float = 0.0  # each image is zoomed at random by a factor between 1 / (1 + scale) and 1 + scale
    brightness: float = 0.0  # the values are multiplied by a random number within 1 ± brightness
    colour: float = 0.0  # the differences from grey are multiplied by a random number within 1 ± colour
    # The side of a square that is painted over, as a fraction of the image's shorter side; of a series, the share.
    erasing: float = 0.0
    jitter: float = 0.0  # of series: the deviation of noise, in deviations of the channel
    magnitude: float = 0.0  # of series: the values are scaled by a factor between 1 / (1 + this) and 1 + this
    warp: float = 0.0  # of series: time runs faster and slower, by up to about this share
    window: float = 0.0  # of series: what is left out at the ends, as a share of the steps, at most
    mixup: float = 0.0  # the parameter of the beta distribution of the shares of two images in their mixture
    # "balanced": in the loss all classes count the same, whatever their sizes; "auto": a search decides by its
    # first objective, otherwise as "none".
    class_weights: Literal["auto", "balanced", "none"] = "auto"
    batch_size: int = 64
    # A CPU computes a batch in so many parts, at the same time where cores are idle. Each is normalised by its own
    # mean (ghost batch normalisation: Hoffer et al., Train longer, generalize better, 2017).
    parts: int = 1
    precision: Precision = "float32"  # of convolutions and linear maps

    @property
    def takes_chances(self) -> bool:
        """Whether images are changed in another way than by a shift: see `nas.training.augmentation`."""
        of_images = (self.flip, self.rotation, self.scale, self.brightness, self.colour)
        of_series = (self.jitter, self.magnitude, self.warp, self.window)
        return any((*of_images, *of_series, self.erasing, self.mixup))

    def rate(self, progress: float) -> float:
        """The learning rate after a fraction ``progress`` of all steps (Smith, Super-convergence, 2018)."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * float(np.interp(progress, (0, self.warm_up, 1), (0.1, 1.0, 0.0)))

    def changed(self, answers: Mapping[str, Any]) -> Recipe:
        """The recipe that trains a candidate with these answers (`Candidate.recipe`); itself if there are none.

        Args:
            answers: values of fields; ``augmentation`` stands for the fields of one of `AUGMENTATIONS`, which
                other answers may change. "auto" leaves the class weights as the search has decided them.

        Raises:
            SpaceError: there is no such field, or its value is of a wrong type or out of range.
        """
        fields = {name: _answer(name, value) for name, value in answers.items()}
        fields = AUGMENTATIONS.get(fields.pop("augmentation", ""), {}) | fields
        return replace(self, **{name: value for name, value in fields.items() if value != "auto"})


# "lecture": Keras's Adam, batches of 128, plain cross-entropy, unchanged images.
# "photographs": what they show stays the same when left and right are exchanged, which a digit does not.
RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "lecture": Recipe(
        "adam", 1e-3, schedule="constant", weight_decay=0.0, label_smoothing=0.0, shift=0, batch_size=128
    ),
    "photographs": Recipe(shift=4, flip=0.5),
}

AUTO = "auto"  # the recipe that a data set names
PLAIN: dict[str, Any] = {
    "shift": 0, "flip": 0.0, "rotation": 0.0, "scale": 0.0, "brightness": 0.0, "colour": 0.0, "erasing": 0.0,
    "mixup": 0.0, "jitter": 0.0, "magnitude": 0.0, "warp": 0.0, "window": 0.0,
}  # fmt: skip
# The answers to a question ``recipe/augmentation``, each with all fields of a recipe that change images.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": PLAIN,
    "shift": PLAIN | {"shift": 2},
    "shift and turn": PLAIN | {"shift": 2, "rotation": 10.0, "scale": 0.1},
    "shift and flip": PLAIN | {"shift": 4, "flip": 0.5},
    "jitter": PLAIN | {"jitter": 0.1, "magnitude": 0.1},
    "window": PLAIN | {"window": 0.1},
    "window and warp": PLAIN | {"window": 0.1, "warp": 0.1, "magnitude": 0.1},
    "strong for series": PLAIN | {"window": 0.3, "warp": 0.3, "magnitude": 0.2, "jitter": 0.1, "mixup": 0.2},
    "strong": PLAIN | {"shift": 4, "flip": 0.5, "brightness": 0.3, "colour": 0.3, "erasing": 0.3},
}

# The smallest and the largest value of a number, both included.
TINY = 1e-12
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (TINY, 100.0),
    "fine_tuning": (0.0, 1.0),
    "warm_up": (0.0, 1.0),
    "weight_decay": (0.0, 100.0),
    "label_smoothing": (0.0, 1.0 - TINY),
    "shift": (0, 1_000),
    "flip": (0.0, 1.0),
    "rotation": (0.0, 180.0),
    "scale": (0.0, 10.0),
    "brightness": (0.0, 1.0),
    "colour": (0.0, 1.0),
    "erasing": (0.0, 1.0),
    "mixup": (0.0, 100.0),
    "jitter": (0.0, 10.0),
    "magnitude": (0.0, 10.0),
    "warp": (0.0, 0.5),  # two waves together bend time by up to twice as much; beyond, it would run backwards
    "window": (0.0, 0.9),
    "batch_size": (1, 1_000_000),
    "parts": (1, 64),
}
LIMITS = {TINY: "above 0", 1.0 - TINY: "below 1"}  # how a message names these two values


def recipe_of(source: str | Mapping[str, Any], auto: str | Mapping[str, Any] = "default") -> Recipe:
    """The recipe of a name, or of a table with changes to a recipe.

    Args:
        source: a name, or fields of `Recipe` with their values; in a table, ``base`` names the recipe that is
            changed ("auto" if it is missing). Numbers may be text, as on a command line.
        auto: what the name "auto" stands for: the recipe for the data, which a data set says.

    Raises:
        OptionError: an unknown field, or a value of a wrong type or out of range.
        UsageError: there is no recipe of that name.
    """
    table = {"base": source} if isinstance(source, str) else source
    base = table.get("base", AUTO)
    if not isinstance(base, str) or base not in {*RECIPES, AUTO}:
        message = unknown("recipe", str(base), [AUTO, *RECIPES])
        raise UsageError(message) if table is not source else OptionError(message, "base")
    changes = {str(name): value for name, value in table.items() if name != "base"}
    recipe = recipe_of(auto) if base == AUTO and auto != "default" else RECIPES.get(base, RECIPES["default"])
    return replace(recipe, **{name: _checked(name, value) for name, value in changes.items()})


def table_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table for `recipe_of`: the fields that differ from the default recipe.

    Raises:
        OptionError: a value is out of range, or the precision, which a table cannot name, is not the default.
    """
    default = asdict(RECIPES["default"])
    changes = {name: value for name, value in asdict(recipe).items() if value != default[name]}
    return {"base": "default", **{name: _checked(name, value) for name, value in changes.items()}}


def check_questions(questions: Mapping[str, Question]) -> None:
    """Require that a recipe can have every answer to the questions of a space about it.

    Raises:
        SpaceError: it cannot have one; the message names the question.
    """
    for name, question in questions.items():
        if name.startswith(RECIPE):
            for value in (*question.options, *question.ends):
                _answer(name.removeprefix(RECIPE), value)


def _answer(name: str, value: object) -> Any:
    """The answer to a question ``recipe/NAME``, converted to the type of the field."""
    problem = f"the question {quoted(RECIPE + name)} of the space"
    known = asdict(RECIPES["default"]).keys() - {"precision"}
    if name == "augmentation":
        if value not in AUGMENTATIONS:
            raise SpaceError(f"{problem}: {unknown(name, str(value), AUGMENTATIONS)}")
        return value
    if name not in known:
        raise SpaceError(f"{problem}: {unknown('field of a recipe', name, [*known, 'augmentation'])}")
    try:
        return _checked(name, value)
    except OptionError as error:
        raise SpaceError(f"{problem} has a wrong answer, {error}") from None


def _checked(name: str, value: object) -> Any:
    """The value of a field, converted to the type of the field.

    Raises:
        OptionError: the field is unknown, or the value is of a wrong type or out of range.
    """
    fields = asdict(RECIPES["default"])
    if name == "precision":
        raise OptionError(f"a recipe has no precision: write precision = {quoted(value)} outside of it", name)
    if name not in fields:
        raise OptionError(unknown("field of a recipe", name, [*fields.keys() - {"precision"}, "base"]), name)
    problem = f"recipe.{name} = {quoted(value)}: should be"
    if name not in RANGES:
        choices = get_args(get_type_hints(Recipe)[name])
        if value not in choices:
            raise OptionError(f"{problem} one of {', '.join(choices)}", name)
        return value
    kind: type[int | float] = type(fields[name])
    number: Any = value if type(value) in (int, kind) else None
    if isinstance(value, str):
        with suppress(ValueError):
            number = kind(value)
    if number is None:
        raise OptionError(f"{problem} a {'whole ' if kind is int else ''}number", name)
    low, high = RANGES[name]
    if not low <= number <= high:
        limits = LIMITS.get(low, f"{low:,g} or more"), LIMITS.get(high, f"{high:,g} or less")
        raise OptionError(f"{problem} {' and '.join(limits)}", name)
    return kind(number)
