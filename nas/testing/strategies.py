"""The contract of strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

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
    """Small networks, not all of which fit: every kind of question, some of which are asked only sometimes."""

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
    """So few networks that a strategy runs out of new ones, and a watch on those that will not see it."""

    patience = 20_000

    def __init__(self, networks: int) -> None:
        self._units = list(range(1, networks + 1))

    def build(self, choose: Choose) -> Architecture:
        """A dense layer."""
        self.patience -= 1
        if self.patience < 0:
            raise ContractError(f"it never stops drawing from a space of {len(self._units)} networks or fewer")
        return Architecture((Flatten(), Dense(choose.suggest_categorical("units", self._units))))


class StrategyContract(Contract):
    """What a search relies on in a strategy."""

    plugin: type[Strategy]
    space: SearchSpace = Sketch().within(Limits(max_parameters=40_000))

    def make(
        self, space: SearchSpace | None = None, *, objectives: Sequence[Objective] = LOSS, seed: int = 0
    ) -> Strategy:
        """A strategy to which nothing was told."""
        with doing("making it"):
            made: Strategy = plugins.create(
                self.plugin, self.options, space=space or self.space, objectives=objectives, seed=seed
            )
        return made

    def test_proposals(self) -> None:
        """Returns a list of candidates, as many as were asked for or fewer."""
        first, *_ = self._play(self.make(), [1, 3, 8, 2])
        require(first is not None, "it proposes nothing at all")

    def test_candidates(self) -> None:
        """Proposes valid candidates of its space."""
        for trial in self._play(self.make(), [8] * 4, fails=lambda number: number % 3 == 0):
            candidate = trial.job.candidate
            if candidate.choices:
                check_candidate(self.space, candidate)
            else:
                require(
                    bool(candidate.origin),
                    f"the candidate {trial.id} has neither choices, as one of the space, "
                    "nor an origin, as a network from elsewhere",
                )

    def test_seed(self) -> None:
        """Proposes the same again with the same seed."""
        runs = []
        for global_seed in (1, 2):
            with global_random(global_seed):
                runs.append([trial.job.candidate for trial in self._play(self.make(seed=7), [8] * 3)])
        check_same(runs[0], runs[1], "with the same seed it proposes something else the second time")

    def test_history(self) -> None:
        """Depends on nothing but the trials that it was told."""
        self._check_history(LOSS)
        with suppress(UsageError):  # one that takes one objective only
            self._check_history(LOSS_AND_SIZE)

    def _check_history(self, objectives: Sequence[Objective]) -> None:
        asked = self.make(objectives=objectives)
        trials = self._play(asked, [8] * 5, objectives, fails=lambda number: number % 5 == 4)
        expected = self._ask(asked, 8, len(trials))
        for portion, words in ((len(trials) or 1, "in one go"), (3, "three at a time")):
            fresh = self.make(objectives=objectives)
            for start in range(0, len(trials), portion):
                self._tell(fresh, trials[start : start + portion])
            message = f"a new one that is told the same trials {words} proposes something else next"
            check_same(expected, self._ask(fresh, 8, len(trials)), message)

    def test_global_random(self) -> None:
        """Leaves the global random numbers as they were."""
        with global_random(3) as moved:
            self._play(self.make(), [4, 4])
            require(not moved(), f"it draws from, or seeds, {' and '.join(moved())}: draw from self.rng instead")

    def test_nothing_told(self) -> None:
        """Begins with nothing told, and can be told nothing."""
        strategy = self.make()
        self._tell(strategy, [])
        self._ask(strategy, 8, 0)

    def test_failures(self) -> None:
        """Goes on when every trial fails."""
        told = self._play(self.make(), [8] * 4, fails=lambda number: True)
        require(len(told) > 0, "it proposes nothing at all")

    def test_one_by_one(self) -> None:
        """Works with batches of one."""
        self._play(self.make(), [1] * 8)

    def test_end(self) -> None:
        """Ends where nothing new is left, as in a space with a single network."""
        for networks in (1, 3):
            batches = 40
            told = self._play(self.make(Few(networks)), [8] * batches)
            words = f"in a space of {networks} networks it proposes new ones for {batches} batches"
            require(len(told) < 8 * batches, words)

    def test_objectives(self) -> None:
        """Works with two objectives, or says that it does not."""
        with suppress(UsageError):
            self._play(self.make(objectives=LOSS_AND_SIZE), [8] * 4, LOSS_AND_SIZE)

    def _play(
        self,
        strategy: Strategy,
        counts: Sequence[int],
        objectives: Sequence[Objective] = LOSS,
        fails: Callable[[int], bool] = lambda number: False,
    ) -> list[Trial]:
        """Ask and tell until it ends, as a search does; the trials."""
        told: list[Trial] = []
        stale = 0
        for count in counts:
            candidates = self._ask(strategy, count, len(told))
            known = {trial.id for trial in told}
            stale = 0 if any(one.architecture.id not in known for one in candidates) else stale + 1
            if not candidates or stale == MAX_STALE:
                break
            trials = [_trial(one, objectives, fails(len(told) + i)) for i, one in enumerate(candidates)]
            self._tell(strategy, trials)
            told += trials
        return told

    def _ask(self, strategy: Strategy, count: int, told: int) -> list[Candidate]:
        with doing(f"ask({count}) after {told} trials"):
            candidates = strategy.ask(count)
        right = isinstance(candidates, list) and all(isinstance(one, Candidate) for one in candidates)
        require(right, f"ask must return a list of Candidates, and returned {candidates!r:.100}")
        require(len(candidates) <= count, f"asked for {count} candidates, it returned {len(candidates)}")
        return candidates

    def _tell(self, strategy: Strategy, trials: Sequence[Trial]) -> None:
        failed = sum(trial.failure is not None for trial in trials)
        with doing(f"tell with {len(trials)} trials, of which {failed} failed"):
            strategy.tell(trials)


def _trial(candidate: Candidate, objectives: Sequence[Objective], fails: bool) -> Trial:
    """A trial whose metrics follow from the network's id; the better ones were trained longer, as by halving."""
    number = int(candidate.architecture.id[:6], 16) / 0xFFFFFF
    job = Job(candidate, 1.0 if number < 0.25 else 0.25, job_seed(0, candidate.architecture.id))
    if fails:
        return Trial.failed(job, "crash", "made up")
    metrics = {**dict.fromkeys(METRICS, 1.0), "validation_loss": number, "validation_accuracy": 1 - number / 2}
    metrics["parameters"] = float(int(candidate.architecture.id[6:9], 16))
    return scored(Trial(job, metrics), objectives)


def check_same(first: Sequence[Candidate], second: Sequence[Candidate], message: str) -> None:
    """The same networks from the same choices, in the same order; where they came from does not count."""
    pairs = [[(one.architecture.id, dict(one.choices)) for one in run] for run in (first, second)]
    if pairs[0] != pairs[1]:
        place = next((i for i, (a, b) in enumerate(zip(*pairs, strict=False)) if a != b), min(map(len, pairs)))
        one, other = (run[place][0] if place < len(run) else "nothing" for run in pairs)
        raise ContractError(f"{message} (as number {place + 1}, {other} instead of {one})")
