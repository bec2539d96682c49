"""The questions of the built-in spaces about the recipe, with ``--set space.recipe=true``."""

from __future__ import annotations

from collections.abc import Sequence

from nas.spaces.space import Choose

# Ways to change training inputs: see `nas.training.recipe.AUGMENTATIONS`.
IMAGES = ("none", "shift", "shift and turn", "shift and flip", "strong")
SERIES = ("none", "jitter", "window", "window and warp", "strong for series")


def ask_recipe(choose: Choose, augmentations: Sequence[str] = IMAGES) -> None:
    """Ask for the fields of a recipe that matter most; each range has the recipe for the data in its middle."""
    rates = (2e-3, 5e-2) if augmentations is IMAGES else (5e-4, 2e-2)
    choose.suggest_float("recipe/learning_rate", *rates, log=True)
    choose.suggest_float("recipe/weight_decay", 1e-3, 1e-1, log=True)
    choose.suggest_float("recipe/label_smoothing", 0.0, 0.1, step=0.05)
    choose.suggest_categorical("recipe/augmentation", list(augmentations))
