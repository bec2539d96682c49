"""The contract of search spaces."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from random import Random
from unittest import SkipTest

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.errors import ArchitectureError
from nas.spaces.space import AnswerRecorder, Candidate, SearchSpace
from nas.testing.contract import Contract, ContractError, doing, global_random, require
from nas.training.recipe import check_questions


class SpaceContract(Contract):
    """What a search relies on in a space."""

    plugin: type[SearchSpace]
    limits = Limits()
    draws = 30

    def make(self) -> SearchSpace:
        """The space, within the limits."""
        with doing("making it"):
            space: SearchSpace = plugins.create(self.plugin, self.options)
            return space.within(replace(self.limits, input_shape=space.example_shape))

    def test_networks(self) -> None:
        """Builds networks, of which enough fit the limits."""
        with doing("build"), suppress(ArchitectureError):
            built = self.make().build(AnswerRecorder(Random(0)))
            right = isinstance(built, Architecture)
            require(right, f"build must return an Architecture, and returned {built!r:.100}")
        for _, candidate in self._samples():
            again = Architecture.from_json(candidate.architecture.to_json())
            require(again == candidate.architecture, f"read from its JSON, {candidate.architecture} is {again}")

    def test_build(self) -> None:
        """Builds the same network from the same answers."""
        with global_random(1):
            samples = self._samples()
        with global_random(2):
            for space, candidate in samples:
                check_candidate(space, candidate)

    def test_global_random(self) -> None:
        """Leaves the global random numbers as they were."""
        with global_random(3) as changed:
            self._samples()
            require(not changed(), f"build draws from, or seeds, {' and '.join(changed())}: ask `choose` instead")

    def test_answers(self) -> None:
        """Asks for plain values: None, True, False, finite numbers or strings."""
        for _, candidate in self._samples():
            for name, value in candidate.choices.items():
                plain = value is None or type(value) in (bool, int, float, str)
                finite = not isinstance(value, float) or math.isfinite(value)
                require(plain and finite, f"the answer to {name!r} is {value!r}")

    def test_questions(self) -> None:
        """Asks the same question whenever it uses the same name, about the recipe only what a recipe can have."""
        with doing("build"):
            check_questions(self.make().check_questions())

    def test_mutation(self) -> None:
        """Has mutations, which are other networks of the space."""
        for seed, (space, candidate) in enumerate(self._different_samples()):
            with doing("mutate"):
                child = space.mutate(candidate, Random(seed))
            same = child.id == candidate.id
            require(not same, f"a mutation of {dict(candidate.choices)} is the same network")
            check_candidate(space, child)

    def test_crossover(self) -> None:
        """Has crossovers, which are networks of the space."""
        samples = self._samples()
        for seed, ((space, first), (_, second)) in enumerate(zip(samples, reversed(samples), strict=True)):
            with doing("crossover"):
                child = space.crossover(first, second, Random(seed))
            check_candidate(space, child)

    def test_neighbours(self) -> None:
        """Has neighbours of each network, which are other networks of the space."""
        for space, candidate in self._different_samples()[:5]:
            with doing("neighbours"):
                found = list(islice(space.neighbours(candidate, Random(1)), 40))
            require(bool(found), f"the network of {dict(candidate.choices)} has no neighbours")
            for other in found:
                same = other.id == candidate.id
                require(not same, f"a neighbour of {dict(candidate.choices)} is the same network")
                check_candidate(space, other)

    def _samples(self) -> list[tuple[SearchSpace, Candidate]]:
        space = self.make()
        with doing("sample"):
            return [(space, space.sample(Random(seed))) for seed in range(self.draws)]

    def _different_samples(self) -> list[tuple[SearchSpace, Candidate]]:
        samples = self._samples()
        if len({candidate.id for _, candidate in samples}) == 1:
            raise SkipTest(f"{self.draws} draws from the space are the same network")
        return samples


def check_candidate(space: SearchSpace, candidate: Candidate) -> None:
    """Require that a candidate fits the limits, and that its choices build its network again."""
    name = f"the candidate {candidate.architecture.id} ({candidate.origin or 'no origin'})"
    try:
        space.limits.check(candidate.architecture)
    except ArchitectureError as error:
        raise ContractError(f"{name} does not fit: {error}") from None
    with doing(f"building {name} from its choices"):
        again = space.replay(candidate.choices, Random(0))
    choices, asked = dict(candidate.choices), dict(again.choices)
    other = f"{name} has the choices {choices}, which build another network, {again.architecture.id}"
    require(again.architecture == candidate.architecture, other)
    require(asked == choices, f"{name} has the choices {choices}, and build asks for {asked}")
