"""Neuroevolution: networks that do well have children, and the oldest, or the dominated, die."""

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
from nas.strategies.lending import lent
from nas.strategies.strategy import Strategy
from nas.trial import Trial

# The middle of a wide range of settings that do equally well: docs/benchmarks.md, "Sample efficiency".
INITIAL, TOURNAMENT = 16, 20


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """Scores, of which higher is better."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.weights = (1.0,) * len(scores)
        super().__init__(scores)


class Individual(list[Any]):
    """A genotype as DEAP wants it: a list with a ``fitness``. (``creator.create`` makes global classes.)"""

    def __init__(self, candidate: Candidate, scores: Sequence[float]) -> None:
        super().__init__(candidate.choices.items())
        self.candidate = candidate
        self.fitness = Fitness(scores)


class Evolve(Strategy):
    """Evolution: a tournament picks parents, their children differ in an answer or two.

    The first candidates are drawn at random, the others are children of the population: the trials that did not
    fail, of which there are at most ``population``. With one objective the oldest leave it (regularised evolution,
    Real et al., 2019), with several those that others dominate, or that stand in a crowd (NSGA-II, Deb et al.,
    2002). Candidates that were proposed before are not proposed again while new ones can be found.

    Args:
        space: where candidates come from.
        objectives: what the scores are.
        seed: decides every random choice.
        population: how many trials may be parents, at the most.
        initial: how many candidates there are before there are children: 16, or the population if that is smaller.
        tournament: how many trials are drawn, of which the best becomes a parent: 20, or the population if that is
            smaller. (NSGA-II: always two.)
        crossover: where the tournaments find two different parents, the chance that the child is of both.
        mutation: one parent's child differs in one answer, and with this probability in one more, and one more …;
            a child of two parents does so only with this probability.
        selection: "aging" by the first objective, "nsga2", or "auto": aging where there is one objective.
        start: what the first candidates are: "random", or the networks of the space that are most like the known
            ones ("reference"), and then random ones.
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
        """Let each trial that did not fail into the population, and somebody else out."""
        super().tell(trials)
        for trial in trials:
            if trial.failure is None:
                scores = trial.scores if self.dominance else trial.scores[:1]
                self.alive = self.toolbox.survive([*self.alive, Individual(trial.job.candidate, scores)])

    def ask(self, count: int) -> list[Candidate]:
        """New candidates: known or random ones at the start, then children."""
        rng = self.rng
        seen = {trial.id for trial in self.history}
        candidates = [one for one in self._known() if one.architecture.id not in seen][:count]
        seen |= {one.architecture.id for one in candidates}
        near = [one.candidate for one in reversed(self.alive)]
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
        """The networks of the space that are most like the known ones, different from one another."""
        if self.start == "random" or len(self.history) >= self.initial:
            return []
        rng = Random(f"{self.seed}/reference")
        nearest = [self.space.nearest(network, rng, origin=name) for name, network in KNOWN.items()]
        return list({one.architecture.id: one for one in nearest}.values())[: self.initial]

    def _sample(self, rng: Random) -> Candidate:
        return self.space.sample(rng)

    def _child(self, rng: Random) -> Candidate:
        with lent(rng):
            first, second = (one.candidate for one in self.toolbox.select(self.alive))
        if rng.random() >= self.crossover or first.architecture.id == second.architecture.id:
            child: Candidate = self.toolbox.mutate(first, rng)
        else:
            child = self.toolbox.mate(first, second, rng)
        changed = child
        while self.mutation and rng.random() < self.mutation:
            changed = self.toolbox.mutate(changed, rng)
        if child is first and changed is not first:  # no mixture of the two fits
            return replace(changed, parents=(first.architecture.id,), origin="mutation")
        return replace(changed, parents=child.parents, origin=child.origin)


def _youngest(individuals: list[Individual], k: int) -> list[Individual]:
    return individuals[-k:]


def _dominance_tournament(individuals: list[Individual]) -> list[Individual]:
    """Two parents; each wins by dominance, or by having more room around it, against one other."""
    if len(individuals) < 4:
        parents: list[Individual] = tools.selRandom(individuals, 2)
    else:
        parents = tools.selTournamentDCD(individuals, 4)[:2]
    return parents
