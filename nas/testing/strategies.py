"""The contract of strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import SkipTest

from nas import plugins
from nas.architecture.architecture import Architecture, Limits
from nas.architecture.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool
from nas.errors import UsageError
from nas.objectives import METRICS, Objective, scored
from nas.search import MAX_STALE
from nas.spaces.space import Candidate, Choose, SearchSpace
from nas.strategies.strategy import Strategy
from nas.testing.contract import Contract, ContractError, doing, global_random, require
from nas.testing.spaces import check_candidate
from nas.trial import Job, Trial, job_seed

LOSS = (Objective("validation_loss", -1),)
LOSS_AND_SIZE = (*LOSS, Objective("parameters", -1))


class Sketch(SearchSpace):
    """Small networks, some too large for the limits, from questions of every kind, some of them conditional."""

    def build(self, choose: Choose) -> Architecture:
        """One to three convolutions, then perhaps pooling, dropout, and a dense layer."""
        layers: list[Layer] = []
        for i in range(choose.suggest_int("convolutions", 1, 3)):
            filters = choose.suggest_categorical(f"conv{i}/filters", [4, 8, 16, 32])
            layers.append(Conv2d(filters, choose.suggest_categorical(f"conv{i}/kernel", [3, 5, 11])))
        if choose.suggest_categorical("pool", [True, False]):
            layers.append(MaxPool(4))
        layers += [Flatten(), Dropout(choose.suggest_float("dropout", 0.25, 0.75, step=0.25))]
        return Architecture((*layers, Dense(choose.suggest_int("units", 1, 100))))


class Few(SearchSpace):
    """A space with so few networks that a strategy runs out of new ones; fails if it does not stop drawing."""

    patience = 20_000

    def __init__(self, networks: int) -> None:
        self._units = list(range(1, networks + 1))

    def build(self, choose: Choose) -> Architecture:
        """A dense layer."""
        self.patience -= 1
        if self.patience < 0:
            raise ContractError(f"it never stops drawing from a space of size {len(self._units)}")
        return Architecture((Flatten(), Dense(choose.suggest_categorical("units", self._units))))


class StrategyContract(Contract):
    """What a search relies on in a strategy."""

    plugin: type[Strategy]
    space: SearchSpace = Sketch().within(Limits(max_parameters=40_000))

    def make(
        self, space: SearchSpace | None = None, *, objectives: Sequence[Objective] = LOSS, seed: int = 0
    ) -> Strategy:
        """A strategy without a history."""
        with doing("making it"):
            given = {"space": space or self.space, "objectives": objectives, "seed": seed}
            made: Strategy = plugins.create(self.plugin, self.options, **given)
        return made

    def test_proposals(self) -> None:
        """Returns a list of candidates, as many as were asked for or fewer."""
        self._play(self.make(), [1, 3, 8, 2])

    def test_candidates(self) -> None:
        """Proposes valid candidates."""
        for trial in self._play(self.make(), [8] * 4, fails=lambda number: number % 3 == 0):
            candidate = trial.job.candidate
            if candidate.choices:
                check_candidate(self.space, candidate)
            elif not candidate.origin:
                raise ContractError(
                    f"the candidate {trial.id} has neither choices (as a candidate of the space has) nor an "
                    "origin (as a network from elsewhere has)"
                )

    def test_seed(self) -> None:
        """Proposes the same again with the same seed."""
        runs = []
        for global_seed in (1, 2):
            with global_random(global_seed):
                runs.append([trial.job.candidate for trial in self._play(self.make(seed=7), [8] * 3)])
        check_same(runs[0], runs[1], "with the same seed it proposes other candidates the second time")

    def test_history(self) -> None:
        """Depends on nothing but the trials that it was told, all at once or in parts."""
        self._check_history(LOSS)

    def _check_history(self, objectives: Sequence[Objective]) -> None:
        asked = self.make(objectives=objectives)
        trials = self._play(asked, [8] * 5, objectives, fails=lambda number: number % 5 == 4)
        expected = self._ask(asked, 8, len(trials))
        for portion, manner in ((len(trials), "all at once"), (3, "three at a time")):
            fresh = self.make(objectives=objectives)
            for start in range(0, len(trials), portion):
                self._tell(fresh, trials[start : start + portion])
            message = f"a new one that is told the same trials {manner} proposes other candidates next"
            check_same(expected, self._ask(fresh, 8, len(trials)), message)

    def test_global_random(self) -> None:
        """Leaves the global random numbers as they were."""
        with global_random(3) as changed:
            self._play(self.make(), [4, 4])
            sources = " and ".join(changed())
            require(not sources, f"it draws from, or seeds, {sources}: draw from self.rng instead")

    def test_nothing_told(self) -> None:
        """Begins without trials, and ignores an empty list of trials."""
        strategy = self.make()
        self._tell(strategy, [])
        message = "after it was told an empty list, it proposes other candidates"
        check_same(self._ask(self.make(), 8, 0), self._ask(strategy, 8, 0), message)

    def test_failures(self) -> None:
        """Goes on when every trial fails."""
        self._play(self.make(), [8] * 4, fails=lambda number: True)

    def test_one_by_one(self) -> None:
        """Proposes new networks in batches of one, too."""
        trials = self._play(self.make(), [1] * 8)
        new = len({trial.id for trial in trials})
        require(new > 1 or len(trials) == 1, f"in {len(trials)} batches of one it proposes the same network")

    def test_ahead(self) -> None:
        """Asked again before it is told the last candidates (`--ahead`), depends on nothing but these."""
        asked = self.make()
        trials = self._play(asked, [8])
        waiting: list[Candidate] = []
        for _ in range(3):
            asked.in_training = tuple(waiting)
            waiting += (expected := self._ask(asked, 8, len(trials)))
        fresh = self.make()
        self._tell(fresh, trials)
        fresh.in_training = asked.in_training
        message = (
            "a new one that is told the same trials, with the same candidates in training, proposes others next"
        )
        check_same(expected, self._ask(fresh, 8, len(trials)), message)

    def test_end(self) -> None:
        """Ends if nothing new is left, as in a space with a single network."""
        for networks in (1, 3):
            self._play(self.make(Few(networks)), [8] * (MAX_STALE + 3))

    def test_objectives(self) -> None:
        """Works with two objectives, or refuses them when it is made."""
        try:
            self.make(objectives=LOSS_AND_SIZE)
        except UsageError as error:
            raise SkipTest(f"it refuses two objectives: {error}") from None
        self._check_history(LOSS_AND_SIZE)

    def _play(
        self,
        strategy: Strategy,
        counts: Sequence[int],
        objectives: Sequence[Objective] = LOSS,
        fails: Callable[[int], bool] = lambda number: False,
    ) -> list[Trial]:
        """The trials of a search, of which there is at least one: ask and tell until the strategy ends."""
        history: list[Trial] = []
        stale = 0
        for count in counts:
            candidates = self._ask(strategy, count, len(history))
            known = {trial.id for trial in history}
            stale = 0 if any(new.id not in known for new in candidates) else stale + 1
            if not candidates or stale == MAX_STALE:
                break
            trials = [_trial(new, objectives, fails(len(history) + i)) for i, new in enumerate(candidates)]
            self._tell(strategy, trials)
            history += trials
        return history

    def _ask(self, strategy: Strategy, count: int, tried: int) -> list[Candidate]:
        with doing(f"ask({count}) after {tried} trials"):
            candidates = strategy.ask(count)
        right = isinstance(candidates, list) and all(isinstance(item, Candidate) for item in candidates)
        require(right, f"ask must return a list of Candidates, and returned {candidates!r:.100}")
        require(len(candidates) <= count, f"asked for {count} candidates, it returned {len(candidates)}")
        require(bool(candidates or tried), "it proposes nothing at all")
        return candidates

    def _tell(self, strategy: Strategy, trials: Sequence[Trial]) -> None:
        failed = sum(trial.failure is not None for trial in trials)
        with doing(f"tell with {len(trials)} trials, of which {failed} failed"):
            strategy.tell(trials)


def _trial(candidate: Candidate, objectives: Sequence[Objective], fails: bool) -> Trial:
    """A trial with metrics computed from the network's id; the better ones are longer, as with halving."""
    number = int(candidate.architecture.id[:6], 16) / 0xFFFFFF
    job = Job(candidate, 1.0 if number < 0.25 else 0.25, job_seed(0, candidate.id))
    if fails:
        return Trial.failed(job, "crash", "made up")
    metrics = {**dict.fromkeys(METRICS, 1.0), "validation_loss": number, "validation_accuracy": 1 - number / 2}
    metrics["parameters"] = float(int(candidate.architecture.id[6:9], 16))
    return scored(Trial(job, metrics), objectives)


def check_same(first: Sequence[Candidate], second: Sequence[Candidate], message: str) -> None:
    """Require the same networks with the same choices in the same order; their origins may differ."""
    pairs = [[(found.id, dict(found.choices)) for found in run] for run in (first, second)]
    if pairs[0] != pairs[1]:
        place = next((i for i, (a, b) in enumerate(zip(*pairs, strict=False)) if a != b), min(map(len, pairs)))
        expected, found = (run[place][0] if place < len(run) else "nothing" for run in pairs)
        raise ContractError(f"{message} (as number {place + 1}, {found} instead of {expected})")
