"""Neuroevolution: good networks have children; the oldest networks, or the dominated ones, are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Literal

from deap import base, tools

from nas.architecture.known import KNOWN
from nas.errors import UsageError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.seeded_globals import seeded_globals
from nas.strategies.strategy import Strategy
from nas.trial import Trial

# The middle of a wide range of settings that do equally well: docs/benchmarks.md, "Sample efficiency".
INITIAL, TOURNAMENT = 16, 20


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """The scores of a trial; higher is better."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.weights = (1.0,) * len(scores)
        super().__init__(scores)


class Individual(list[Any]):
    """A genotype as DEAP needs it: a list with a ``fitness``. (DEAP's own ``creator`` makes global classes.)"""

    def __init__(self, candidate: Candidate, scores: Sequence[float]) -> None:
        super().__init__(candidate.choices.items())
        self.candidate = candidate
        self.fitness = Fitness(scores)


class Evolve(Strategy):
    """Evolution: a tournament picks parents; a child differs from them in one or a few answers.

    The first candidates are drawn at random, the others are children of the population, which holds at most
    ``population`` successful trials. With one objective the oldest trials leave it (regularised evolution, Real et
    al., 2019), with several the dominated and then the crowded ones (NSGA-II, Deb et al., 2002). No candidate is
    proposed twice while new ones can be found.

    Args:
        space: where candidates come from.
        objectives: what the scores mean.
        seed: decides every random choice.
        population: the most trials that can be parents at a time.
        initial: the number of candidates before the first child; the default is 16, or the population if smaller.
        tournament: the number of trials that are drawn for each parent, which is the best of them; the default is
            20, or the population if smaller. (NSGA-II always draws two.)
        crossover: the probability that a child has two parents, if two different ones are selected.
        mutation: the probability of one more changed answer, applied again after each change. The child of one
            parent always has one changed answer, the child of two parents need not have any.
        selection: "aging" (by the first objective), "nsga2", or "auto": aging for one objective, NSGA-II for more.
        start: the first candidates: "random", or "reference" for the networks of the space that are most similar
            to the known networks, followed by random ones.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective] = (),
        seed: int = 0,
        population: int = 50,
        initial: int | None = None,
        tournament: int | None = None,
        crossover: float = 0.5,
        mutation: float = 0.2,
        selection: Literal["auto", "aging", "nsga2"] = "auto",
        start: Literal["random", "reference"] = "random",
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if population < 2:
            raise UsageError(f"population must be 2 or more, not {population}")
        initial = min(INITIAL, population) if initial is None else initial
        tournament = min(TOURNAMENT, population) if tournament is None else tournament
        for name, number in (("initial", initial), ("tournament", tournament)):
            if not 1 <= number <= population:
                raise UsageError(f"{name} must be from 1 to the population ({population}), not {number}")
        if not 0 <= crossover <= 1:
            raise UsageError(f"crossover must be a fraction from 0 to 1, not {crossover}")
        if not 0 <= mutation <= 0.9:
            raise UsageError(f"mutation must be a fraction from 0 to 0.9, not {mutation}")
        self.population = population
        self.initial = initial
        self.crossover = crossover
        self.mutation = mutation
        self.start = start
        self.dominance = selection == "nsga2" or (selection == "auto" and len(self.objectives) > 1)
        self.alive: list[Individual] = []
        self.toolbox = base.Toolbox()
        self.toolbox.register("mutate", space.mutate)
        self.toolbox.register("mate", space.crossover)
        if self.dominance:
            self.toolbox.register("survive", tools.selNSGA2, k=population)
            self.toolbox.register("select", _dominance_tournament)
        else:
            self.toolbox.register("survive", _youngest, k=population)
            self.toolbox.register("select", tools.selTournament, k=2, tournsize=tournament)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add each successful trial to the population, which another one then leaves."""
        for trial in trials:
            if trial.failure is None:
                scores = trial.scores if self.dominance else trial.scores[:1]
                self.alive = self.toolbox.survive([*self.alive, Individual(trial.job.candidate, scores)])

    def ask(self, count: int) -> list[Candidate]:
        """New candidates: known or random ones at the start, then children."""
        rng = self.rng
        seen = {trial.id for trial in self.history}
        candidates = [known for known in self._known() if known.architecture.id not in seen][:count]
        seen |= {candidate.architecture.id for candidate in candidates}
        near = [individual.candidate for individual in reversed(self.alive)]
        while len(candidates) < count:
            young = len(self.alive) + len(candidates) < self.initial and len(self.history) < 4 * self.initial
            make = self._sample if young or not self.alive else self._child
            candidate = self.unseen(partial(make, rng), seen, near)
            if candidate is None:
                break
            seen.add(candidate.architecture.id)
            candidates.append(candidate)
        return candidates

    def _known(self) -> list[Candidate]:
        """The networks of the space that are most similar to the known ones, each once."""
        if self.start == "random" or len(self.history) >= self.initial:
            return []
        rng = Random(f"{self.seed}/reference")
        nearest = [self.space.nearest(network, rng, origin=name) for name, network in KNOWN.items()]
        return list({candidate.architecture.id: candidate for candidate in nearest}.values())[: self.initial]

    def _sample(self, rng: Random) -> Candidate:
        return self.space.sample(rng)

    def _child(self, rng: Random) -> Candidate:
        with seeded_globals(rng):
            first, second = (parent.candidate for parent in self.toolbox.select(self.alive))
        if rng.random() >= self.crossover or first.architecture.id == second.architecture.id:
            child: Candidate = self.toolbox.mutate(first, rng)
        else:
            child = self.toolbox.mate(first, second, rng)
        changed = child
        while self.mutation and rng.random() < self.mutation:
            changed = self.toolbox.mutate(changed, rng)
        if child is first and changed is not first:  # no crossover of the two fits
            return replace(changed, parents=(first.architecture.id,), origin="mutation")
        return replace(changed, parents=child.parents, origin=child.origin)


def _youngest(individuals: list[Individual], k: int) -> list[Individual]:
    return individuals[-k:]


def _dominance_tournament(individuals: list[Individual]) -> list[Individual]:
    """Two parents: each beats another individual by dominance, or by a larger crowding distance."""
    if len(individuals) < 4:
        parents: list[Individual] = tools.selRandom(individuals, 2)
    else:
        parents = tools.selTournamentDCD(individuals, 4)[:2]
    return parents
