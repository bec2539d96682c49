"""A search space is one function that asks questions; everything else follows from recording the answers.

`SearchSpace.build` asks Optuna's own questions (``choose.suggest_categorical``, ``suggest_int``,
``suggest_float``). Given an Optuna trial it is a define-by-run space. Given an `AnswerRecorder` its answers are a
genotype: change one, run `build` again, sample what is newly asked, forget what no longer is. (Hypothesis
shrinks its examples and PyGlove evolves its programs in this way.)
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol, Self

from nas import checks
from nas.architecture.architecture import Architecture, Limits, distance
from nas.errors import ArchitectureError, SpaceError

Scalar = None | bool | int | float | str

# One draw in four fits the limits of the `cnn` space at 34,826 parameters; a space of which fewer than one
# network in a thousand fits is better described anew than searched by rejection.
MAX_DRAWS = 1_000


@dataclass(frozen=True)
class Candidate:
    """A network that somebody proposes, and how it came about."""

    architecture: Architecture
    choices: Mapping[str, Scalar] = field(default_factory=dict)  # what `build` was told, in order: the genotype
    parents: tuple[str, ...] = ()  # architecture ids
    origin: str = ""  # "sample", "mutation", "crossover", "lenet5" …

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "architecture": self.architecture.to_dict(),
            "choices": dict(self.choices),
            "parents": list(self.parents),
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, data: object) -> Candidate:
        """The candidate that `to_dict` wrote down.

        Raises:
            ValueError: something is missing, or of a wrong kind.
            ArchitectureError: its network cannot be.
        """
        names = ("architecture", "choices", "parents", "origin")
        architecture, choices, parents, origin = checks.record(data, "candidate", *names)
        return cls(
            Architecture.from_dict(architecture),
            {name: checks.scalar(value, name) for name, value in checks.named(choices, "choices").items()},
            tuple(checks.text(one, "a parent") for one in checks.several(parents, "parents")),
            checks.text(origin, "origin"),
        )


class Choose(Protocol):
    """Who answers the questions of a space: an Optuna trial, or an `AnswerRecorder`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of ``choices``."""

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, both included."""

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``."""


@dataclass(frozen=True)
class Question:
    """A question that was asked: how to draw an answer, which answers are right, and (if few) all of them."""

    draw: Callable[[Random], Scalar]
    allows: Callable[[Scalar], bool]
    options: tuple[Scalar, ...] = ()


class AnswerRecorder:
    """Answers from ``answers`` where it can, from ``rng`` where it must, and remembers both."""

    def __init__(self, rng: Random, answers: Mapping[str, Scalar] | None = None) -> None:
        self._rng = rng
        self._answers = answers or {}
        self.choices: dict[str, Scalar] = {}
        self.questions: dict[str, Question] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of ``choices``."""
        options = tuple(choices)
        if not options:
            raise SpaceError(f"the space asks {name!r} without any choices")
        return self._answer(name, Question(lambda rng: rng.choice(options), _member(options), options))

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, in steps of ``step`` from ``low``."""
        if low > high or step < 1:
            raise SpaceError(f"the space asks {name!r} from {low} to {high} in steps of {step}: there are none")
        numbers = range(low, high + 1, step)
        draw: Callable[[Random], Scalar] = lambda rng: rng.choice(numbers)  # noqa: E731
        if log:
            draw = lambda rng: min(high, max(low, round(_between(rng, low, high, log=True))))  # noqa: E731
        options = tuple(numbers) if len(numbers) <= 64 else ()
        return int(self._answer(name, Question(draw, lambda v: type(v) is int and v in numbers, options)))

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``, in steps of ``step`` from ``low`` if given."""
        if not low <= high:
            raise SpaceError(f"the space asks {name!r} from {low} to {high}: there are none")
        if step is None:
            question = Question(
                lambda rng: _between(rng, low, high, log=log), lambda v: type(v) is float and low <= v <= high
            )
        else:
            count = math.floor((high - low) / step + 1e-9) + 1
            # Rounded, because 3 · 0.1 is not 0.3: Optuna answers with the one, a person with the other.
            options = tuple(min(float(high), round(low + i * step, 12)) for i in range(count))
            question = Question(lambda rng: rng.choice(options), _member(options), options)
            if (known := self._answers.get(name)) is not None and type(known) is float:
                near = min(options, key=lambda option: abs(option - known))
                if abs(near - known) <= 1e-8 * step:
                    self._answers = {**self._answers, name: near}
        return float(self._answer(name, question))

    def _answer(self, name: str, question: Question) -> Any:
        if name in self.choices:  # asked twice: answered alike, as Optuna does
            return self.choices[name]
        known = name in self._answers and question.allows(self._answers[name])
        self.choices[name] = self._answers[name] if known else question.draw(self._rng)
        self.questions[name] = question
        return self.choices[name]


class _Walk(AnswerRecorder):
    """Answers what it has to answer itself with the first of the options."""

    def _answer(self, name: str, question: Question) -> Any:
        if question.options and name not in self._answers and name not in self.choices:
            self.choices[name], self.questions[name] = question.options[0], question
        return super()._answer(name, question)

    def successor(self) -> dict[str, Scalar] | None:
        """The answers of the next network: the last one that can be changed is; None at the end."""
        names = list(self.choices)
        for position in reversed(range(len(names))):
            options = self.questions[names[position]].options
            same = _member([self.choices[names[position]]])
            index = next((i for i, option in enumerate(options) if same(option)), len(options))
            if index + 1 < len(options):
                kept = {name: self.choices[name] for name in names[:position]}
                return {**kept, names[position]: options[index + 1]}
        return None


def _member(options: Sequence[Scalar]) -> Callable[[Scalar], bool]:
    """Membership that tells True from 1 and 1 from 1.0."""
    return lambda value: any(type(value) is type(option) and value == option for option in options)


def _between(rng: Random, low: float, high: float, *, log: bool) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)


class SearchSpace(ABC):
    """The networks that may be tried. Write `build`; the rest is there once for all spaces."""

    limits = Limits()
    max_flops: int | None = None  # what a network of this space may cost where the search sets no limit of its own

    @abstractmethod
    def build(self, choose: Choose) -> Architecture:
        """The network that the answers of ``choose`` describe; a pure function of them.

        A network that does not fit (a kernel larger than its map) need not be avoided: it is drawn again.
        """

    def within(self, limits: Limits) -> Self:
        """The same space, of which only the networks within ``limits`` are proposed."""
        limited = copy.copy(self)
        limited.limits = limits if limits.max_flops else replace(limits, max_flops=self.max_flops)
        return limited

    def replay(
        self, answers: Mapping[str, Scalar], rng: Random, *, parents: tuple[str, ...] = (), origin: str = "replay"
    ) -> Candidate:
        """The candidate that ``answers`` describe; what they leave open is drawn from ``rng``.

        Raises:
            ArchitectureError: the network does not fit the limits.
        """
        return self._record(answers, rng, parents, origin)[0]

    def sample(self, rng: Random) -> Candidate:
        """A candidate whose every answer is drawn uniformly, until it fits.

        Raises:
            SpaceError: none of 1,000 draws fits.
        """
        reason = ""
        for _ in range(MAX_DRAWS):
            try:
                return self.replay({}, rng, origin="sample")
            except ArchitectureError as error:
                reason = str(error)
        raise SpaceError(
            f"none of {MAX_DRAWS:,} networks drawn from the space {type(self).__name__} fits (the last: "
            f"{reason}); allow more parameters or choose another space"
        )

    def mutate(self, candidate: Candidate, rng: Random) -> Candidate:
        """A different candidate that fits, with one answer changed (and what follows from it).

        Raises:
            SpaceError: no change of one answer leads to another network that fits.
        """
        questions = self._questions(candidate, rng)
        names = list(questions)
        for _ in range(MAX_DRAWS):
            name = rng.choice(names) if names else ""
            child = self._changed(candidate, name, questions[name].draw(rng), rng) if names else None
            if child is not None:
                return child
        for child in self.neighbours(candidate, rng):
            return child
        raise SpaceError(f"the space {type(self).__name__} holds no other network one answer away that fits")

    def crossover(self, first: Candidate, second: Candidate, rng: Random) -> Candidate:
        """A candidate that has each answer from one of two, drawn evenly (uniform crossover, Syswerda 1989).

        Where no mixture of 20 fits, the first one comes back.
        """
        names = list(dict.fromkeys((*first.choices, *second.choices)))
        parents = (first.architecture.id, second.architecture.id)
        for _ in range(20):
            answers = {}
            for name in names:
                givers = [one for one in (first, second) if name in one.choices]
                answers[name] = rng.choice(givers).choices[name]
            try:
                return self.replay(answers, rng, parents=parents, origin="crossover")
            except ArchitectureError:
                continue
        return first

    def every(self) -> Iterator[Candidate]:
        """Every candidate that fits, in the order of the answers; questions with more than 64 have one each.

        Different answers may lead to the same network.
        """
        answers: dict[str, Scalar] | None = {}
        while answers is not None:
            walk = _Walk(Random(0), answers)
            with suppress(ArchitectureError):
                architecture = self.build(walk)
                self.limits.check(architecture)
                yield Candidate(architecture, walk.choices, origin="every")
            answers = walk.successor()

    def nearest(self, architecture: Architecture, rng: Random, *, origin: str = "") -> Candidate:
        """The candidate whose network is most like ``architecture``, as far as a descent over `neighbours` finds.

        Args:
            architecture: a network that need not be in this space.
            rng: draws where the descents start.
            origin: of the candidate; "near" is put before it where the networks are not the same.

        Raises:
            SpaceError: no network of this space fits.
        """
        best, least = self.sample(rng), math.inf
        for start in [best, self.sample(rng), self.sample(rng)]:
            here, away, moved = start, distance(start.architecture, architecture), True
            while moved and away:
                moved = False
                for other in self.neighbours(here, rng):
                    if (nearer := distance(other.architecture, architecture)) < away:
                        here, away, moved = other, nearer, True
                        break
            if away < least:
                best, least = here, away
        return replace(best, parents=(), origin=f"near {origin}" if least else origin)

    def neighbours(self, candidate: Candidate, rng: Random) -> Iterator[Candidate]:
        """Every different candidate that fits and is one changed answer away, in the order of the questions.

        Of a question with more than 64 answers, ten are drawn from ``rng``.
        """
        for name, question in self._questions(candidate, rng).items():
            options = question.options or tuple(question.draw(rng) for _ in range(10))
            for option in options:
                child = self._changed(candidate, name, option, rng)
                if child is not None:
                    yield child

    def _changed(self, candidate: Candidate, name: str, answer: Scalar, rng: Random) -> Candidate | None:
        if answer == candidate.choices.get(name):
            return None
        parents = (candidate.architecture.id,)
        try:
            child = self.replay({**candidate.choices, name: answer}, rng, parents=parents, origin="mutation")
        except ArchitectureError:
            return None
        return None if child.architecture.id == candidate.architecture.id else child

    def _questions(self, candidate: Candidate, rng: Random) -> dict[str, Question]:
        return self._record(candidate.choices, rng, (), "replay")[1]

    def _record(
        self, answers: Mapping[str, Scalar], rng: Random, parents: tuple[str, ...], origin: str
    ) -> tuple[Candidate, dict[str, Question]]:
        recorder = AnswerRecorder(rng, answers)
        architecture = self.build(recorder)
        self.limits.check(architecture)
        return Candidate(architecture, recorder.choices, parents, origin), recorder.questions
