"""Neuroevolution: good networks have children; the oldest or the dominated networks are removed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from threading import Lock
from typing import Literal

from deap import base, tools

from nas.architecture.known import NETWORKS, fitting
from nas.errors import UsageError
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Trial

# The middle of a wide range of values that are equally good: docs/benchmarks.md, "Sample efficiency".
INITIAL, TOURNAMENT = 16, 20
DRAWING = Lock()  # one thread at a time has the global random numbers


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """The scores of a trial; higher is better."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.weights = (1.0,) * len(scores)
        super().__init__(scores)


class Individual:
    """A candidate with a ``fitness``, as DEAP needs it. (DEAP's own ``creator`` makes global classes.)"""

    def __init__(self, candidate: Candidate, scores: Sequence[float]) -> None:
        self.candidate, self.fitness = candidate, Fitness(scores)


class Evolve(Strategy):
    """Evolution: a tournament selects parents; a child differs from them in one or a few answers.

    The first candidates are drawn at random; the others are children of the population. With one objective the
    oldest trials leave the population (regularised evolution, Real et al., 2019), with several the dominated and
    then the crowded ones (NSGA-II, Deb et al., 2002). No candidate is proposed twice while new ones can be found.

    Args:
        population: the largest number of successful trials that can be parents at a time.
        initial: the number of candidates before the first child; the default is 16, or the population if smaller.
        tournament: the number of trials that are drawn for each parent, which is the best of them; the default is
            20, or the population if smaller. (NSGA-II always draws two.)
        crossover: the probability that a child has two parents, if the two selected parents differ.
        mutation: the probability of one more changed answer, applied again after each change. The child of one
            parent always has one changed answer; the child of two parents may have none.
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
        self.population, self.initial, self.tournament = population, initial, tournament
        self.learns_after = initial
        self.crossover, self.mutation, self.start = crossover, mutation, start
        self.dominance = selection == "nsga2" or (selection == "auto" and len(self.objectives) > 1)
        self.alive: list[Individual] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add each successful trial to the population; if that becomes too large, another trial leaves it."""
        for trial in trials:
            if trial.failure is None:
                scores = trial.scores if self.dominance else trial.scores[:1]
                alive = [*self.alive, Individual(trial.job.candidate, scores)]
                keep = self.population
                self.alive = tools.selNSGA2(alive, keep) if self.dominance else alive[-keep:]

    def ask(self, count: int) -> list[Candidate]:
        """New candidates: known or random ones at the start, then children."""
        rng = self.rng
        seen, waiting = self.taken, len(self.in_training)
        candidates = [known for known in self._known() if known.id not in seen][:count]
        seen |= {candidate.id for candidate in candidates}
        near = [individual.candidate for individual in reversed(self.alive)]
        while len(candidates) < count:
            first = len(self.alive) + waiting + len(candidates) < self.initial
            young = first and len(self.history) + waiting < 4 * self.initial
            make = self._child if self.alive and not young else lambda: self.space.sample(rng)
            candidate = self.unseen(make, seen, near)
            if candidate is None:
                break
            seen.add(candidate.id)
            candidates.append(candidate)
        return candidates

    def _known(self) -> list[Candidate]:
        """The networks of the space that are most similar to the known ones, each once."""
        if self.start == "random" or len(self.history) >= self.initial:
            return []
        rng = Random(f"{self.seed}/reference")
        names = fitting(self.space.limits)
        nearest = [self.space.nearest(NETWORKS[name], rng, origin=name) for name in names]
        return list({candidate.architecture.id: candidate for candidate in nearest}.values())[: self.initial]

    def _child(self) -> Candidate:
        rng = self.rng
        with _seeded_globals(rng):
            first, second = (parent.candidate for parent in self._parents())
        if rng.random() >= self.crossover or first.id == second.id:
            child = self.space.mutate(first, rng)
        else:
            child = self.space.crossover(first, second, rng)
        changed = child
        while self.mutation and rng.random() < self.mutation:
            changed = self.space.mutate(changed, rng)
        if child is first and changed is not first:  # no crossover of the two fits
            return replace(changed, parents=(first.id,), origin="mutation")
        return replace(changed, parents=child.parents, origin=child.origin)

    def _parents(self) -> list[Individual]:
        """Two winners of tournaments. In those of NSGA-II dominance counts, then a larger crowding distance."""
        if not self.dominance:
            parents: list[Individual] = tools.selTournament(self.alive, 2, self.tournament)
        elif len(self.alive) < 4:
            parents = tools.selRandom(self.alive, 2)
        else:
            parents = tools.selTournamentDCD(self.alive, 4)[:2]
        return parents


@contextmanager
def _seeded_globals(rng: Random) -> Iterator[None]:
    """Seed Python's global random numbers, from which DEAP draws, from ``rng``; restore them afterwards."""
    with DRAWING:
        before = random.getstate()
        # 32 bits more than needed: NumPy's numbers were once seeded with them, and searches must go on as begun.
        random.seed(rng.getrandbits(96) % 2**64)
        try:
            yield
        finally:
            random.setstate(before)
