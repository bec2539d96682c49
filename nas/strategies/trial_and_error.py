"""Trial and error: Optuna's samplers propose candidates and learn from their trials."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from nas.errors import ArchitectureError, UsageError
from nas.objectives import Objective, best_first
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy
from nas.trial import Trial

Sampler = Literal["tpe", "random", "grid", "cmaes", "gp", "nsga2"]

STATEFUL = ("cmaes", "nsga2")  # these samplers keep their state in attributes of their proposed trials
AGAIN = 8  # draws of "random" and "grid" for a candidate that is new and fits
GOOD = 8  # a proposal of another sampler that does not fit is crossed with one of these best candidates
BEST, LATEST = 24, 40  # trials from which the sampler learns: with 1,000 trials, TPE takes 0.1 s a candidate


class TrialAndError(Strategy):
    """Samples with Optuna, by default with the tree-structured Parzen estimator (Bergstra et al., 2011).

    The Optuna study is in memory. For "tpe", the other candidates of a batch, and those in training, count as bad
    ones, so that it spreads out. A trial that successive halving stopped early counts as pruned if there is one
    objective, and otherwise with its scores at that time. No candidate is proposed twice while new ones can be
    found: a similar candidate replaces a proposal that is not new or does not fit.

    Args:
        sampler: "tpe"; "random"; "grid" (every network of the space once, in random order); "cmaes" (learns from
            numbers only and draws categories at random); "gp" (takes 0.3 s a candidate); or "nsga2".
        startup: the number of candidates drawn at random before "tpe", "cmaes" and "gp" begin to learn; the size
            of a generation of "nsga2".
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective] = (),
        seed: int = 0,
        sampler: Sampler = "tpe",
        startup: int = 16,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        if startup < 2:
            raise UsageError(f"startup must be 2 or more, not {startup}")
        if sampler == "cmaes" and len(self.objectives) > 1:
            raise UsageError(
                f"sampler cmaes takes one objective, not {len(self.objectives)}: use tpe, nsga2 or gp"
            )
        self.sampler, self.startup = sampler, startup
        self.learns_after = 0 if sampler in ("random", "grid") else startup
        self._distributions: list[dict[str, BaseDistribution] | None] = []  # of each trial of the history
        self._replayed = self._study([])  # the study of the stateful samplers
        self._best: list[Trial] = []  # the best trials of the history

    def ask(self, count: int) -> list[Candidate]:
        """The sampler's proposals; a similar candidate replaces one that is not new or does not fit."""
        self._best = best_first(self.history, BEST)
        # A study for this call only, because the trials asked here get their results later, by `tell`.
        study = copy.deepcopy(self._replayed) if self.sampler in STATEFUL else self._study(self._shown())
        study.sampler = self._new_sampler(self.rng.getrandbits(32))
        seen = self.taken
        candidates: list[Candidate] = []
        while len(candidates) < count:
            candidate = self._propose(study, seen) or self._other(seen)
            if candidate is None:
                break
            seen.add(candidate.id)
            candidates.append(candidate)
        return candidates

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep the possible answers (Optuna's distributions) of each trial."""
        for trial in trials:
            self._distributions.append(self._distributions_of(trial.job.candidate))
            if self.sampler in STATEFUL and self._distributions[-1] is not None:
                self._replay(trial)

    def _distributions_of(self, candidate: Candidate) -> dict[str, BaseDistribution] | None:
        """The possible answers; None if it is not from this space, so that the sampler cannot learn from it."""
        fixed = FixedTrial(dict(candidate.choices))
        try:
            self._build(fixed)
        except (ArchitectureError, ValueError):
            return None
        return fixed.distributions

    def _propose(self, study: Study, seen: set[str]) -> Candidate | None:
        """The sampler's proposal, or a similar candidate."""
        learns = self.sampler not in ("random", "grid")
        for _ in range(1 if learns else AGAIN):
            trial = study.ask()
            candidate = None
            with suppress(ArchitectureError):
                self._build(trial)
                # Built again from its answers, because Optuna's stepped numbers differ from ours by rounding.
                candidate = self.space.replay(trial.params, self.rng, origin=self.sampler)
            if candidate and candidate.id not in seen:
                return candidate
            study.tell(trial, state=TrialState.FAIL)
            if learns:  # asking again takes 5 ms and often gives the same answer
                return self._like(candidate, trial.params, seen)
        return None

    def _like(self, candidate: Candidate | None, answers: Mapping[str, Any], seen: set[str]) -> Candidate | None:
        """A mutation of the candidate; without a candidate, the answers crossed with those of a good trial."""
        good = [trial.job.candidate for trial in self._best[:GOOD] if trial.job.candidate.choices]
        if candidate:
            make = partial(self.space.mutate, candidate, self.rng)
        elif good:
            other = self.rng.choice(good)
            make = partial(self.space.crossover, other, replace(other, choices=answers), self.rng)
        else:
            return None
        similar = self.unseen(make, seen)
        return similar and replace(similar, parents=(), origin=self.sampler)

    def _build(self, trial: optuna.Trial | FixedTrial) -> None:
        """Ask the trial every question of the space."""
        with warnings.catch_warnings():  # Optuna warns if the last step is shorter than the others
            warnings.simplefilter("ignore", UserWarning)
            self.space.build(trial)

    def _other(self, seen: set[str]) -> Candidate | None:
        near = () if self.sampler == "grid" else [trial.job.candidate for trial in reversed(self.history)]
        candidate = self.unseen(lambda: self.space.sample(self.rng), seen, near)
        if candidate is None and self.sampler == "grid":
            return next((other for other in self.space.every() if other.id not in seen), None)
        return candidate

    def _shown(self) -> list[FrozenTrial]:
        """The trials that the sampler learns from, the oldest first."""
        if self.sampler in ("random", "grid"):
            return []
        chosen: Sequence[Trial] = self.history
        if len(chosen) > BEST + LATEST:
            kept = {id(trial) for trial in self._best}
            kept.update([id(trial) for trial in self.history if id(trial) not in kept][-LATEST:])
            chosen = [trial for trial in self.history if id(trial) in kept]
        longest = max((trial.job.epochs for trial in self.history), default=0.0)
        known = {id(trial): answers for trial, answers in zip(self.history, self._distributions, strict=True)}
        shown = [
            _frozen(trial, distributions, early=trial.job.epochs < longest)
            for trial in chosen
            if (distributions := known[id(trial)]) is not None
        ]
        # Optuna counts them as known ones: not before it learns.
        waiting = self.in_training[-LATEST:] if len(self.history) >= self.startup else ()
        running = ((candidate, self._distributions_of(candidate)) for candidate in waiting)
        return shown + [_running(candidate, found) for candidate, found in running if found is not None]

    def _replay(self, trial: Trial) -> None:
        """Ask the study for this very trial, so that the sampler sets its attributes, and tell its scores."""
        study = self._replayed
        trials = study.get_trials(deepcopy=False)
        if len(trials) >= 2 * (BEST + LATEST):
            good = [t for t in trials if t.values]
            single = len(study.directions) == 1
            best = sorted(good, key=lambda t: t.values[0], reverse=True) if single else study.best_trials
            kept = {t.number for t in (*best[:BEST], *trials[-LATEST:])}
            self._replayed = study = self._study([t for t in trials if t.number in kept])
        study.sampler = self._new_sampler(len(self._distributions))
        study.enqueue_trial(dict(trial.job.candidate.choices))
        asked = study.ask()
        self._build(asked)
        study.tell(asked, trial.scores) if _is_finite(trial) else study.tell(asked, state=TrialState.FAIL)

    def _study(self, trials: Sequence[FrozenTrial]) -> Study:
        logging.getLogger("optuna").setLevel(logging.ERROR)  # otherwise it logs a line for every trial
        study = optuna.create_study(directions=["maximize"] * max(1, len(self.objectives)))
        study.add_trials(trials)
        return study

    def _new_sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            match self.sampler:
                case "random" | "grid":
                    return RandomSampler(seed)
                case "cmaes":
                    return CmaEsSampler(seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False)
                case "gp":
                    return GPSampler(seed=seed, n_startup_trials=self.startup)
                case "nsga2":
                    return NSGAIISampler(population_size=self.startup, seed=seed)
                case "tpe":
                    return TPESampler(
                        n_startup_trials=self.startup, multivariate=True, constant_liar=True, seed=seed
                    )


def _is_finite(trial: Trial) -> bool:
    return trial.failure is None and all(math.isfinite(score) for score in trial.scores)


def _running(candidate: Candidate, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A candidate in training as Optuna's own type."""
    choices = dict(candidate.choices)
    return create_trial(state=TrialState.RUNNING, params=choices, distributions=distributions)


def _frozen(trial: Trial, distributions: dict[str, BaseDistribution], *, early: bool) -> FrozenTrial:
    """The trial as Optuna's own type: complete, pruned (if it was stopped early), or failed."""
    content: dict[str, Any] = {"params": dict(trial.job.candidate.choices), "distributions": distributions}
    if not _is_finite(trial):
        return create_trial(state=TrialState.FAIL, **content)
    if early and len(trial.scores) == 1:  # Optuna prunes for one objective only
        step = round(1000 * trial.job.epochs)
        return create_trial(state=TrialState.PRUNED, intermediate_values={step: trial.scores[0]}, **content)
    return create_trial(values=trial.scores, **content)
