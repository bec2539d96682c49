"""Continue a text with a trained network, which knows the next character after a window of characters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.dataset import Array
from nas.data.sequences.reading import TextReading
from nas.errors import NasError
from nas.winner.best import read_best
from nas.winner.predict import probabilities_of

if TYPE_CHECKING:
    from nas.training.network import Network

LENGTH, MOST = 200, 100_000  # characters of a continuation: usual, and at most
TEMPERATURE, HOTTEST = 0.8, 10.0


class Writer:
    """The trained network in a best/ folder that continues texts.

    Args:
        best: the folder, which may come from a stranger.

    Raises:
        NasError: the folder is damaged, or the network does not know the characters of its classes.
    """

    def __init__(self, best: Path) -> None:
        description, self.network = read_best(best)
        if not isinstance(description.reading, TextReading):
            raise NasError(f"{best} has a network that continues no text")
        self.reading, self.classes = description.reading, description.classes
        [self.window] = description.input_shape

    def continued(
        self, text: str, length: int = LENGTH, *, temperature: float = TEMPERATURE, seed: int = 0
    ) -> str:
        """The characters that follow a text: see `continuation`."""
        return continuation(
            self.network, self.reading, self.window, text, length, temperature=temperature, seed=seed
        )


def continuation(
    network: Network,
    reading: TextReading,
    window: int,
    text: str,
    length: int = LENGTH,
    *,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> str:
    """The characters that follow a text.

    Before a text that is shorter than a window stands the beginning of the text that the network has learned from.
    A character that is none of the text's is never drawn.

    Args:
        network: the network, in evaluation mode.
        reading: its characters.
        window: how many of them it sees.
        text: to continue; it may be empty.
        length: the number of new characters.
        temperature: of the softmax; 0 for the most probable character.
        seed: of the choices.

    Raises:
        NasError: the network computes no finite probabilities.
    """
    alphabet = reading.alphabet
    before = alphabet.encode((reading.before + text)[-window:])
    # What is there is repeated, if even that is too short; without any text, it is the most frequent character's.
    if not len(before):
        before = alphabet.encode(" ")
    tokens = np.resize(before[::-1], window)[::-1].copy()
    chances = np.random.default_rng(seed)
    found: list[int] = []
    for _ in range(length):
        [probabilities] = probabilities_of(network, tokens[None])
        found.append(_drawn(probabilities[: len(alphabet.characters)], temperature, chances.random()))
        tokens = np.append(tokens[1:], np.array(found[-1], tokens.dtype))
    return alphabet.decode(found)


def _drawn(probabilities: Array, temperature: float, chance: float) -> int:
    """A position, drawn by its probability, (classes,), at a temperature; ``chance`` is from 0 to below 1."""
    if temperature == 0 or not probabilities.any():
        return int(probabilities.argmax())
    with np.errstate(divide="ignore"):
        logarithms = np.log(probabilities) / temperature
    sums = np.exp(logarithms - logarithms.max()).cumsum()
    return int(np.searchsorted(sums, chance * sums[-1], side="right").clip(0, len(sums) - 1))
