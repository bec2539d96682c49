"""Neuroevolution: networks that do well have children, and the oldest die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from deap import base, tools

from nas.errors import SpaceError, UsageError
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.lending import lent
from nas.strategies.strategy import Strategy
from nas.trial import Objective, Trial

TRIES = 50  # how often one child is drawn anew because it was seen before


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """Scores, of which higher is better: DEAP reads the weights off the class."""

    weights = (1.0,)


class Individual(list):  # type: ignore[type-arg]
    """A genotype as DEAP wants it: a list with a ``fitness``. (``creator.create`` makes global classes.)"""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.job.candidate.choices.items())
        self.candidate = trial.job.candidate
        self.fitness = Fitness(trial.scores[:1])


class Evolve(Strategy):
    """Regularised evolution (Real et al., 2019): a tournament picks the parents, the oldest die.

    The population is the youngest ``population`` trials that did not fail. It starts with ``start`` random
    candidates and grows: of a population of 12, one and a half batches, the best died before they had children.
    after that every child comes of a mutation of a winner, or of a crossover of two.
    Candidates that were proposed before are not proposed again while new ones can be found.

    Args:
        space: where candidates come from.
        objectives: the first one is the fitness.
        seed: decides every random choice.
        population: how many trials may be parents, at the most.
        start: how many candidates are drawn at random before there are children.
        tournament: how many of them are drawn, of which the best becomes a parent.
        crossover: the fraction of children that have two parents.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective] = (),
        seed: int = 0,
        population: int = 30,
        start: int = 16,
        tournament: int = 6,
        crossover: float = 0.3,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if population < 2:
            raise UsageError(f"population must be 2 or more, not {population}")
        if not 1 <= start <= population:
            raise UsageError(f"start must be from 1 to the population ({population}), not {start}")
        if not 1 <= tournament <= population:
            raise UsageError(f"tournament must be from 1 to the population ({population}), not {tournament}")
        if not 0 <= crossover <= 1:
            raise UsageError(f"crossover must be a fraction from 0 to 1, not {crossover}")
        self.population = population
        self.start = start
        self.crossover = crossover
        self.toolbox = base.Toolbox()
        self.toolbox.register("select", tools.selTournament, tournsize=tournament)
        self.toolbox.register("mutate", space.mutate)
        self.toolbox.register("mate", space.crossover)

    def ask(self, count: int) -> list[Candidate]:
        """New candidates: random ones at the start, then children."""
        rng = self.rng
        alive = [Individual(trial) for trial in self.history if trial.failure is None][-self.population :]
        seen = {trial.id for trial in self.history}
        candidates: list[Candidate] = []
        while len(candidates) < count:
            young = len(alive) + len(candidates) < self.start and len(self.history) < 4 * self.start
            make = self._sample if young or not alive else self._child
            candidate = self._unseen(make, alive, seen, rng)
            if candidate is None:
                if not seen:
                    self.space.sample(rng)  # raises, and says why not even the first one fits
                break
            seen.add(candidate.architecture.id)
            candidates.append(candidate)
        return candidates

    def _sample(self, alive: list[Individual], rng: Random) -> Candidate:
        return self.space.sample(rng)

    def _child(self, alive: list[Individual], rng: Random) -> Candidate:
        with lent(rng):
            first, second = (one.candidate for one in self.toolbox.select(alive, 2))
        if rng.random() >= self.crossover or first.architecture.id == second.architecture.id:
            return self.toolbox.mutate(first, rng)  # type: ignore[no-any-return]
        return self.toolbox.mate(first, second, rng)  # type: ignore[no-any-return]

    def _unseen(
        self,
        make: Callable[[list[Individual], Random], Candidate],
        alive: list[Individual],
        seen: set[str],
        rng: Random,
    ) -> Candidate | None:
        """A candidate that was not seen before: made, else drawn, else next to somebody; None if there is none."""
        for source in (make, self._sample):
            for _ in range(TRIES):
                try:
                    candidate = source(alive, rng)
                except SpaceError:
                    break
                if candidate.architecture.id not in seen:
                    return candidate
        for one in reversed(alive):
            for candidate in self.space.neighbours(one.candidate, rng):
                if candidate.architecture.id not in seen:
                    return candidate
        return None
