"""A search space is one function that asks questions; every operation on it works with the recorded answers.

`SearchSpace.build` asks Optuna's questions (``choose.suggest_categorical``, ``suggest_int``, ``suggest_float``).
With an Optuna trial it is a define-by-run space. With an `AnswerRecorder` the answers are a genotype: a mutation
changes one answer and runs `build` again, which draws answers to new questions and drops those that are no longer
needed. (Hypothesis shrinks examples, and PyGlove evolves programs, in the same way.)

A question ``recipe/FIELD`` asks how the network is trained: its answer changes the recipe of the search.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, Protocol, Self

from nas import checks
from nas.architecture.architecture import Architecture, Limits, distance
from nas.architecture.layer import Shape, show
from nas.errors import ArchitectureError, SpaceError, TooLargeError, quoted
from nas.spaces.questions import AnswerRecorder as AnswerRecorder  # plugins import both from here, too
from nas.spaces.questions import Listener, Question, Walk
from nas.spaces.questions import Scalar as Scalar

# One draw in four from the `cnn` space has at most 34,826 parameters. If less than one network in a thousand fits,
# drawing until one fits is too slow, and the space should be described differently.
MAX_DRAWS = 1_000
CHECKED_DRAWS = 100  # in which a question with two sets of choices shows up
RECIPE = "recipe/"  # the beginning of the questions about the recipe; see `nas.training.recipe.Recipe.changed`


@dataclass(frozen=True)
class Candidate:
    """A proposed network, with a recipe of its own if the space asks for it, and how it was made."""

    architecture: Architecture
    choices: Mapping[str, Scalar] = field(default_factory=dict)  # the answers to `build`, in order: the genotype
    parents: tuple[str, ...] = ()  # ids of candidates
    origin: str = ""  # "sample", "mutation", "crossover", "lenet5" …

    @property
    def recipe(self) -> dict[str, Scalar]:
        """The answers to the questions about the recipe, by field; empty if it is trained as the search says."""
        return {name.removeprefix(RECIPE): v for name, v in self.choices.items() if name.startswith(RECIPE)}

    @cached_property  # asked for a thousand times a batch where a thousand candidates are known
    def id(self) -> str:
        """The id of the architecture; after it, for a recipe of its own, a dash and eight digits of that."""
        if not (recipe := self.recipe):
            return self.architecture.id
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        return f"{self.architecture.id}-{digest[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data = {"architecture": self.architecture.to_dict(), "choices": dict(self.choices)}
        return {**data, "parents": list(self.parents), "origin": self.origin}

    @classmethod
    def from_dict(cls, data: object) -> Candidate:
        """The candidate that `to_dict` wrote.

        Raises:
            ValueError: a field is missing or has a wrong type.
            ArchitectureError: the architecture is not valid.
        """
        names = ("architecture", "choices", "parents", "origin")
        architecture, choices, parents, origin = checks.record(data, "candidate", *names)
        return cls(
            Architecture.from_dict(architecture),
            {name: checks.scalar(value, name) for name, value in checks.named(choices, "choices").items()},
            tuple(checks.text(parent, "a parent") for parent in checks.several(parents, "parents")),
            checks.text(origin, "origin"),
        )


class Choose(Protocol):
    """Answers the questions of a space: an Optuna trial or an `AnswerRecorder`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of ``choices``."""

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, both included."""

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``."""


def _rounded_up(size: int) -> int:
    """Two digits, so that a limit is easy to read."""
    step: int = 10 ** max(0, len(str(size)) - 2)
    return -(-size // step) * step


class SearchSpace(ABC):
    """The networks that may be tried, and perhaps the recipes that train them.

    A space implements `build`; all other methods work for every space.
    """

    limits = Limits()
    example_shape: Shape = (
        Limits.input_shape
    )  # of an input for which it has networks: `nas plugins check` tries it
    max_flops: int | None = None  # per image; applies if the search sets no limit
    # Whether `build` fits its networks to the images and to any limit of operations. Such a space has an option
    # ``max_flops``, which a search decides from the images and its budget (see `nas.run.planning`).
    adapts: bool = False

    @abstractmethod
    def build(self, choose: Choose) -> Architecture:
        """The network that the answers of ``choose`` describe; it must depend on nothing else.

        The network may be invalid (such as a kernel larger than its map): then another one is drawn. The answers
        to questions ``recipe/FIELD`` change the training of the network; `build` need not look at them.
        """

    def check_questions(self, draws: int = CHECKED_DRAWS) -> dict[str, Question]:
        """Draw networks and require that a name always stands for the same question; returns the questions.

        Raises:
            SpaceError: one name stands for two questions. One set of answers would then have two meanings.
        """
        asked: dict[str, Question] = {}
        for seed in range(draws):
            with suppress(ArchitectureError):
                self.build(Listener(Random(seed), {}, asked))
        return asked

    def check_candidate(self, candidate: Candidate, asked: dict[str, Question]) -> None:
        """Require that the answers of a candidate, if it has any, are a network and a recipe of this space.

        Args:
            candidate: it need not fit the limits; without answers, it is a network from elsewhere.
            asked: the questions so far (see `check_questions`), to which its questions are added.

        Raises:
            SpaceError: they build another network, or none; they are a recipe that this space does not have; or
                one name stands for two questions.
        """
        built = None
        if candidate.choices:
            listener = Listener(Random(0), candidate.choices, asked)
            with suppress(ArchitectureError):
                built = self.build(listener)
            name, recipe = type(self).__name__, Candidate(candidate.architecture, listener.choices).recipe
            if built != candidate.architecture:
                raise SpaceError(
                    f"the answers {quoted(dict(candidate.choices))} do not build its network in the space {name}: "
                    "propose candidates of this space, or networks without answers"
                )
            if recipe != candidate.recipe:
                raise SpaceError(
                    f"the space {name} has not the recipe {quoted(candidate.recipe)} for this network: propose "
                    "candidates of this space, or networks without answers"
                )

    def within(self, limits: Limits) -> Self:
        """The same space, from which only networks within ``limits`` are proposed."""
        limited = copy.copy(self)
        limited.limits = limits if limits.max_flops else replace(limits, max_flops=self.max_flops)
        return limited

    def replay(
        self, answers: Mapping[str, Scalar], rng: Random, *, parents: tuple[str, ...] = (), origin: str = "replay"
    ) -> Candidate:
        """The candidate that ``answers`` describe; missing answers are drawn from ``rng``.

        Raises:
            ArchitectureError: the network is not valid or does not fit the limits.
        """
        recorder = AnswerRecorder(rng, answers)
        return Candidate(self._built(recorder), recorder.choices, parents, origin)

    def sample(self, rng: Random) -> Candidate:
        """A candidate with answers that are drawn uniformly, again and again until it fits.

        Raises:
            SpaceError: none of 1,000 drawn candidates fits.
        """
        reason, above = "", list[dict[str, int]]()
        for _ in range(MAX_DRAWS):
            try:
                return self.replay({}, rng, origin="sample")
            except TooLargeError as error:
                above.append(error.above)
            except ArchitectureError as error:
                reason = str(error)
        none = f"none of {MAX_DRAWS:,} networks drawn from the space {type(self).__name__} fits"
        if not above:
            raise SpaceError(
                f"{none} {show(self.limits.input_shape)} (the last: {reason}); choose another --space"
            )
        raise SpaceError(f"{none}: {self._excess(above)}")

    def _excess(self, above: Sequence[Mapping[str, int]]) -> str:
        """Which limits networks exceed, and the limits that would do: with them, one in twenty or more fits."""
        most = {"parameters": self.limits.max_parameters, "flops": self.limits.max_flops}
        counts = [
            f"{count:,} have more than the {limit:,} {name} allowed"
            for name, limit in most.items()
            if (count := sum(name in sizes for sizes in above))
        ]
        ordered = sorted(above, key=lambda sizes: max(size / (most[name] or 1) for name, size in sizes.items()))
        smallest = ordered[: max(1, len(ordered) // 20)]
        needed = {name: max(sizes.get(name, 0) for sizes in smallest) for name in most}
        enough = {name: _rounded_up(size) for name, size in needed.items() if size}
        return f"{' and '.join(counts)}; {TooLargeError.advice(enough)} would do"

    def mutate(self, candidate: Candidate, rng: Random) -> Candidate:
        """A different candidate that fits, with one changed answer (and new ones where it raises new questions).

        Raises:
            SpaceError: no change of one answer gives another candidate that fits.
        """
        questions = self._questions(candidate, rng)
        names = list(questions)
        for _ in range(MAX_DRAWS if names else 0):
            name = rng.choice(names)
            child = self._changed(candidate, name, questions[name].draw(rng), rng)
            if child is not None:
                return child
        for child in self.neighbours(candidate, rng):
            return child
        name = type(self).__name__
        raise SpaceError(f"the space {name} has no other network that fits and differs in one answer")

    def crossover(self, first: Candidate, second: Candidate, rng: Random) -> Candidate:
        """A candidate with each answer from one of two parents at random (uniform crossover, Syswerda 1989).

        If none of 20 such candidates fits, it is the first parent.
        """
        names = list(dict.fromkeys((*first.choices, *second.choices)))
        parents = (first.id, second.id)
        for _ in range(20):
            answers = {}
            for name in names:
                having = [parent for parent in (first, second) if name in parent.choices]
                answers[name] = rng.choice(having).choices[name]
            try:
                return self.replay(answers, rng, parents=parents, origin="crossover")
            except ArchitectureError:
                continue
        return first

    def every(self) -> Iterator[Candidate]:
        """Every candidate that fits, in the order of the answers; only one answer to questions with more than 64.

        Two candidates may have the same network.
        """
        answers: dict[str, Scalar] | None = {}
        while answers is not None:
            walk = Walk(Random(0), answers)
            with suppress(ArchitectureError):
                yield Candidate(self._built(walk), walk.choices, origin="every")
            answers = walk.successor()

    def nearest(self, architecture: Architecture, rng: Random, *, origin: str = "") -> Candidate:
        """The candidate with the network most similar to ``architecture``, of those that three descents find.

        Args:
            architecture: a network, which need not be in this space.
            rng: draws the candidates where the descents start.
            origin: the origin of the candidate, after "near" if the networks are not the same.

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
        """Every candidate that fits and differs in one answer, in the order of the questions.

        For a question with more than 64 answers, ten answers are drawn from ``rng``.
        """
        for name, question in self._questions(candidate, rng).items():
            for option in question.options or tuple(question.draw(rng) for _ in range(10)):
                if (child := self._changed(candidate, name, option, rng)) is not None:
                    yield child

    def _changed(self, candidate: Candidate, name: str, answer: Scalar, rng: Random) -> Candidate | None:
        if answer == candidate.choices.get(name):
            return None
        parents = (candidate.id,)
        try:
            child = self.replay({**candidate.choices, name: answer}, rng, parents=parents, origin="mutation")
        except ArchitectureError:
            return None
        return None if child.id == candidate.id else child

    def _questions(self, candidate: Candidate, rng: Random) -> dict[str, Question]:
        recorder = AnswerRecorder(rng, candidate.choices)
        self._built(recorder)
        return recorder.questions

    def _built(self, recorder: AnswerRecorder) -> Architecture:
        architecture = self.build(recorder)
        self.limits.check(architecture)
        return architecture
