"""The questions of a space, and what answers them: at random, from given answers, or one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from nas.errors import SpaceError

Scalar = None | bool | int | float | str


@dataclass(frozen=True)
class Question:
    """A question: how to draw an answer, which answers are allowed, and a list of them if there are at most 64."""

    kind: str  # "one of", "a whole number" or "a number"
    draw: Callable[[Random], Scalar]
    allows: Callable[[Scalar], bool]
    options: tuple[Scalar, ...] = ()
    ends: tuple[Scalar, ...] = ()  # the smallest and the largest number

    def __str__(self) -> str:
        # The choices of a categorical question must not vary (Optuna refuses that); a range may.
        return f"{self.kind} {list(self.options)}" if self.kind == "one of" else self.kind


class AnswerRecorder:
    """Answers with the allowed ones of ``answers``, otherwise at random; records the answers and the questions."""

    def __init__(self, rng: Random, answers: Mapping[str, Scalar] | None = None) -> None:
        self._rng = rng
        self._answers = answers or {}
        self.choices: dict[str, Scalar] = {}
        self.questions: dict[str, Question] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of ``choices``."""
        options = tuple(choices)
        if not options:
            raise SpaceError(f"the question {name!r} of the space has no choices: give it one or more")
        return self._answer(name, Question("one of", lambda rng: rng.choice(options), member(options), options))

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, in steps of ``step`` from ``low``."""
        if low > high or step < 1:
            allowed = f"allows no number from {low} to {high}, step {step}"
            raise SpaceError(f"the question {name!r} of the space {allowed}")
        numbers = range(low, high + 1, step)

        def draw(rng: Random) -> int:
            return min(high, max(low, round(_between(rng, low, high, log=True)))) if log else rng.choice(numbers)

        options = tuple(numbers) if len(numbers) <= 64 else ()
        ends = (low, numbers[-1])
        question = Question("a whole number", draw, lambda v: type(v) is int and v in numbers, options, ends)
        return int(self._answer(name, question))

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``, in steps of ``step`` from ``low`` if given."""
        if not low <= high:
            raise SpaceError(f"the question {name!r} of the space allows no number from {low} to {high}")
        if step is None:
            draw = partial(_between, low=low, high=high, log=log)
            ends = (float(low), float(high))
            question = Question("a number", draw, lambda v: type(v) is float and low <= v <= high, (), ends)
        else:
            count = math.floor((high - low) / step + 1e-9) + 1
            # Rounded, because 3 · 0.1 is not 0.3: Optuna answers with the product, people with the decimal number.
            options = tuple(min(float(high), round(low + i * step, 12)) for i in range(count))
            question = Question("a number", lambda rng: rng.choice(options), member(options), options)
            if (known := self._answers.get(name)) is not None and type(known) is float:
                near = min(options, key=lambda option: abs(option - known))
                if abs(near - known) <= 1e-8 * step:
                    self._answers = {**self._answers, name: near}
        return float(self._answer(name, question))

    def _answer(self, name: str, question: Question) -> Any:
        if name in self.choices:  # asked again: the same answer, as with Optuna
            return self.choices[name]
        known = name in self._answers and question.allows(self._answers[name])
        self.choices[name] = self._answers[name] if known else question.draw(self._rng)
        self.questions[name] = question
        return self.choices[name]


class Listener(AnswerRecorder):
    """Compares the questions that have the same name, over many builds: ``asked`` has those of earlier ones."""

    def __init__(self, rng: Random, answers: Mapping[str, Scalar], asked: dict[str, Question]) -> None:
        super().__init__(rng, answers)
        self._asked = asked

    def _answer(self, name: str, question: Question) -> Any:
        before = self._asked.setdefault(name, question)
        if str(before) != str(question):
            raise SpaceError(
                f"the question {name!r} of the space asks once for {before} and once for {question}: use two names"
            )
        return super()._answer(name, question)


class Walk(AnswerRecorder):
    """Answers with the first option instead of a random one."""

    def _answer(self, name: str, question: Question) -> Any:
        if question.options and name not in self._answers and name not in self.choices:
            self.choices[name], self.questions[name] = question.options[0], question
        return super()._answer(name, question)

    def successor(self) -> dict[str, Scalar] | None:
        """The answers of the next network: the last answer with a further option changes; None at the end."""
        names = list(self.choices)
        for position in reversed(range(len(names))):
            options = self.questions[names[position]].options
            same = member([self.choices[names[position]]])
            index = next((i for i, option in enumerate(options) if same(option)), len(options))
            if index + 1 < len(options):
                kept = {name: self.choices[name] for name in names[:position]}
                return {**kept, names[position]: options[index + 1]}
        return None


def member(options: Sequence[Scalar]) -> Callable[[Scalar], bool]:
    """A test of membership that distinguishes True, 1 and 1.0."""
    return lambda value: any(type(value) is type(option) and value == option for option in options)


def _between(rng: Random, low: float, high: float, *, log: bool) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
