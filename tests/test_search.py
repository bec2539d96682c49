"""The loop, evolution, the rungs and the journal, with evaluators that answer at once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import LOSS, Instant, Tiny, finished, halved, job

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import LECTURE
from nas.architecture.layers import Dense, Flatten
from nas.errors import JournalError, PluginError, StorageError, UsageError
from nas.evaluation.cached import CachedEvaluator
from nas.objectives import Objective, scored, since_better
from nas.records.journal import Journal
from nas.records.observer import Observer
from nas.records.record import line_of, read
from nas.search import MAX_STALE, Budget, Search
from nas.spaces.cnn import Cnn
from nas.spaces.space import Candidate
from nas.strategies.evolve import Evolve
from nas.strategies.strategy import Strategy
from nas.trial import Job, Trial, job_seed

SMALL = Cnn().within(Limits(max_parameters=34_826))


def search(strategy: Strategy, evaluator: object = None, trials: int | None = 60) -> list[Trial]:
    return Search(strategy, evaluator or Instant(), Budget(trials), epochs=1.0).run()  # type: ignore[arg-type]


class Fixed(Strategy):
    """Proposes what it is given, batch by batch."""

    def __init__(self, *batches: list[Architecture]) -> None:
        super().__init__(Tiny())
        self.batches = list(batches)
        self.told: list[Trial] = []

    def ask(self, count: int) -> list[Candidate]:
        return [Candidate(one) for one in self.batches.pop(0)] if self.batches else []

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.told.extend(trials)


def ids(trials: Sequence[Trial]) -> list[str]:
    return [trial.id for trial in trials]


# --- evolution


def test_evolution_is_a_function_of_its_history() -> None:
    """A second strategy that is told the same trials asks the same questions, in the middle too."""
    first = search(Evolve(SMALL, objectives=LOSS, seed=3))
    assert ids(first) == ids(search(Evolve(SMALL, objectives=LOSS, seed=3)))
    assert ids(first) != ids(search(Evolve(SMALL, objectives=LOSS, seed=4)))
    resumed = Evolve(SMALL, objectives=LOSS, seed=3)
    resumed.tell(first[:24])
    assert [c.architecture.id for c in resumed.ask(8)] == ids(first)[24:32]


def test_evolution_leaves_global_random_numbers_alone() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = (random.random(), np.random.random())
    random.seed(5)
    np.random.seed(5)
    first = ids(search(Evolve(SMALL, objectives=LOSS)))
    assert (random.random(), np.random.random()) == expected
    assert ids(search(Evolve(SMALL, objectives=LOSS))) == first


def test_evolution_never_repeats_itself_and_ends_when_the_space_does() -> None:
    """Tiny holds 3 + 9 + 27 networks: all are found, once, and then the search is over."""
    trials = search(Evolve(Tiny(), objectives=LOSS), trials=1_000)
    assert len(trials) == len(set(ids(trials))) == 39


def test_evolution_finds_better_networks_than_chance() -> None:
    """On a loss that rewards single answers, 60 evolved candidates beat 60 random ones (medians of 9 seeds)."""

    class Valley(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in jobs:
                wished = {
                    "activation": "elu",
                    "batch_norm": True,
                    "stem/filters": 16,
                    "stage2/pool": "max",
                    "stage2/blocks": 2,
                    "stage3/kind": "separable",
                    "head/pool": "global",
                    "head/dropout": 0.25,
                }
                choices = one.candidate.choices
                yield scored(finished(one, 1 - sum(choices.get(k) == v for k, v in wished.items()) / 10), LOSS)

    class Draw(Strategy):
        def ask(self, count: int) -> list[Candidate]:
            return [self.space.sample(self.rng) for _ in range(count)]

    def best(kind: type[Strategy], seed: int) -> float:
        return max(t.scores[0] for t in search(kind(SMALL, objectives=LOSS, seed=seed), Valley()))

    evolved, drawn = ([best(kind, seed) for seed in range(9)] for kind in (Evolve, Draw))
    assert np.median(evolved) > np.median(drawn)


def test_a_population_of_failures_does_not_stop_evolution() -> None:
    class Broken(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one in jobs:
                yield Trial.failed(one, "crash", "no luck")

    assert len(set(ids(search(Evolve(SMALL, objectives=LOSS), Broken(), trials=60)))) == 60


@pytest.mark.parametrize(
    "options", [{"population": 1}, {"tournament": 51}, {"crossover": 1.5}, {"initial": 51}, {"mutation": 1.0}]
)
def test_evolution_refuses_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Evolve(SMALL, **options)  # type: ignore[arg-type]


# --- the loop


def test_the_strategy_is_told_one_trial_for_each_candidate_in_order() -> None:
    batch = [Architecture((Flatten(), Dense(n))) for n in (5, 3, 9, 3)]
    strategy = Fixed(batch)
    search(strategy)
    assert ids(strategy.told) == [one.id for one in batch]


def test_a_candidate_outside_the_limits_is_not_trained() -> None:
    evaluator, strategy = Instant(), Fixed([Architecture((Dense(3),)), LECTURE])
    trials = search(strategy, evaluator)
    assert [trial.failure.kind if trial.failure else "" for trial in trials] == ["invalid", ""]
    assert [one.candidate.architecture for one in evaluator.jobs] == [LECTURE]


def test_a_strategy_that_raises_or_returns_nonsense_is_named() -> None:
    class Raising(Fixed):
        def ask(self, count: int) -> list[Candidate]:
            raise KeyError("oops")

    class Nonsense(Fixed):
        def ask(self, count: int) -> list[Candidate]:
            return ["network"]  # type: ignore[list-item]

    class Forgot(Fixed):
        def ask(self, count: int) -> list[Candidate]:
            return None  # type: ignore[return-value]

    class Deaf(Fixed):
        def tell(self, trials: Sequence[Trial]) -> None:
            raise ValueError("what?")

    with pytest.raises(PluginError, match="strategy Forgot must return a list of Candidates from ask, not None"):
        search(Forgot())
    with pytest.raises(PluginError, match=r"strategy Deaf failed in tell: ValueError: what\?"):
        search(Deaf([LECTURE]))
    with pytest.raises(PluginError, match="strategy Raising failed in ask: KeyError: 'oops'"):
        search(Raising())
    with pytest.raises(PluginError, match="strategy Nonsense must return a list of Candidates"):
        search(Nonsense())


def test_not_a_number_never_reaches_a_strategy(tmp_path: Path) -> None:
    class Poisoned(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for one, loss in zip(jobs, (float("nan"), float("inf"), 0.5), strict=True):
                yield finished(one, loss)

    with Journal(tmp_path / "journal.jsonl") as journal:
        strategy = Fixed([Architecture((Flatten(), Dense(n))) for n in (1, 2, 3)])
        search(strategy, CachedEvaluator(Poisoned(), journal, LOSS))
    assert [trial.scores for trial in strategy.told] == [(), (), (-0.5,)]
    assert [trial.failure.kind for trial in strategy.told if trial.failure] == ["not_finite"] * 2


def test_the_budget_counts_candidates() -> None:
    assert len(search(Evolve(SMALL, objectives=LOSS), trials=21)) == 21
    assert Budget(trials=None, until=0.0).next(0) == 0


def test_a_search_that_is_cut_keeps_what_was_trained() -> None:
    """Time runs out in the second rung: its short trials are kept, and the search is over."""

    class Cut(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            second = bool(self.jobs)
            trials = list(super().evaluate(jobs))
            yield from trials[:1] if second else trials

    class Late(Budget):
        def next(self, done: int) -> int:
            return 8 if done == 0 else 0

    evaluator = Cut()
    search_ = Search(Evolve(SMALL, objectives=LOSS), evaluator, Late(), epochs=1.0, rungs=2)
    trials = search_.run()
    assert len(trials) == len(set(ids(trials))) == 8
    assert sorted(trial.job.epochs for trial in trials) == [0.25] * 7 + [1.0]


def test_no_batch_is_begun_that_would_not_end_in_time() -> None:
    budget = Budget(until=time.monotonic() + 1.0)
    assert budget.next(0) == 8
    time.sleep(0.6)  # so long did the first batch take
    assert budget.next(8) == 0


def test_a_strategy_that_only_repeats_itself_comes_to_an_end() -> None:
    class Parrot(Fixed):
        def ask(self, count: int) -> list[Candidate]:
            return [Candidate(LECTURE)] * count

    assert len(search(Parrot(), trials=None)) == 8 * (1 + MAX_STALE)


class Known(Instant):
    """The accuracy of a candidate follows from its number of dense units, and from its seed."""

    def __init__(self, *accuracies: float, again: float = 1.0) -> None:
        super().__init__()
        self.accuracies, self.again = accuracies, again

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        for one in jobs:
            self.jobs.append(one)
            units = one.candidate.architecture.layers[1].units  # type: ignore[attr-defined]
            first = one.seed == job_seed(0, one.candidate.architecture.id)
            accuracy = self.accuracies[units - 1] if first else self.again
            made = finished(one, 1 - accuracy)
            yield scored(replace(made, metrics={**made.metrics, "validation_accuracy": accuracy}), LOSS)


def each_alone(evaluator: Known, **enough: float) -> tuple[int, list[str]]:
    """A search with batches of one candidate: how many there were, and what the user was told at the end."""
    told: list[str] = []

    class Listening(Observer):
        def ended(self, reason: str) -> None:
            told.append(reason)

    nets = [[Architecture((Flatten(), Dense(n)))] for n in range(1, len(evaluator.accuracies) + 1)]
    budget = Budget(**enough)  # type: ignore[arg-type]
    history = Search(Fixed(*nets), evaluator, budget, epochs=1.0, observer=Listening()).run()
    return len(history), told


def test_a_search_ends_when_nothing_gets_better() -> None:
    accuracies = (0.5, 0.4, 0.6, 0.6, 0.1, 0.6, 0.9)
    assert each_alone(Known(*accuracies), patience=4) == (7, [])
    reason = "3 candidates in a row have brought nothing better: the search ends after 6 candidates"
    assert each_alone(Known(*accuracies), patience=3) == (6, [reason])  # an equal one is not better


def test_a_search_with_two_objectives_goes_on_while_its_front_grows() -> None:
    def trial(n: int, loss: float, parameters: float, epochs: float = 1.0) -> Trial:
        made = finished(job(Architecture((Flatten(), Dense(n))), epochs), loss)
        objectives = (*LOSS, Objective("parameters", -1))
        return scored(replace(made, metrics={**made.metrics, "parameters": parameters}), objectives)

    trials = [trial(1, 0.3, 100), trial(2, 0.5, 50), trial(3, 0.4, 200), trial(4, 0.1, 10, epochs=0.25)]
    assert [since_better(trials[:count]) for count in range(5)] == [0, 0, 0, 1, 2]
    assert since_better([*trials, Trial.failed(job(LECTURE), "crash", ""), trial(5, 0.9, 20)]) == 0


def test_a_target_counts_only_if_another_seed_has_it_too() -> None:
    evaluator = Known(0.5, 0.97, 0.981, 0.99, 0.5)
    count, [reason] = each_alone(evaluator, target=0.98)
    assert count == 3
    assert "has the target of 0.98, also with another seed: the search ends after 3 candidates" in reason
    assert len(evaluator.jobs) == 4
    assert evaluator.jobs[2].candidate == evaluator.jobs[3].candidate
    lucky = Known(0.5, 0.97, 0.981, 0.99, 0.5, again=0.979)
    assert each_alone(lucky, target=0.98) == (5, [])
    assert len(lucky.jobs) == 7


# --- seeds and objectives


def test_a_job_s_seed_follows_from_what_it_is() -> None:
    seeds = {job_seed(s, a, r) for s in (0, 1) for a in ("a", "b") for r in (0, 1)}
    assert len(seeds) == 8
    assert job_seed(0, "34a6b42df2ea") == 1_549_950_336


def test_scores_are_higher_is_better() -> None:
    objectives = (Objective.parse("validation_accuracy"), Objective.parse("-parameters"))
    assert scored(finished(job(LECTURE), 0.3), objectives).scores == pytest.approx((0.9, -100.0))
    with pytest.raises(UsageError, match="there is no metric 'acuracy'; did you mean"):
        Objective.parse("acuracy")
    with pytest.raises(UsageError, match="would search for the worst; write -validation_loss"):
        Objective.parse("validation_loss")


# --- successive halving


def test_halving_trains_all_for_a_quarter_and_the_best_quarter_for_all() -> None:
    evaluator = Instant()
    jobs = [job(Architecture((Flatten(), Dense(n)))) for n in range(1, 9)]
    trials = halved(evaluator, jobs)
    assert sorted(ids(trials)) == sorted(one.candidate.architecture.id for one in jobs)
    full = [trial for trial in trials if trial.job.epochs == 1.0]
    short = [trial for trial in trials if trial.job.epochs == 0.25]
    assert len(full) == 2
    assert len(short) == 6
    loss = {j.candidate.architecture.id: finished(j, None).metrics["validation_loss"] for j in jobs}
    assert max(loss[t.id] for t in full) < min(loss[t.id] for t in short)
    assert [one.epochs for one in evaluator.jobs].count(0.25) == 8


def test_halving_does_not_promote_failures() -> None:
    class OneGood(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            for i, one in enumerate(jobs):
                yield scored(finished(one), LOSS) if i == 0 else Trial.failed(one, "crash", "")

    trials = halved(OneGood(), [job(Architecture((Flatten(), Dense(n)))) for n in range(1, 9)])
    assert [trial.job.epochs for trial in trials if trial.failure is None] == [1.0]
    assert len(trials) == 8


def test_copies_of_the_best_are_one_competitor() -> None:
    nets = [Architecture((Flatten(), Dense(n))) for n in range(1, 7)]
    best = min(nets, key=lambda net: finished(job(net)).metrics["validation_loss"])
    trials = halved(Instant(), [job(net) for net in (best, best, *nets)])
    full = [trial for trial in trials if trial.job.epochs == 1.0]
    assert len(trials) == 8
    assert ids(full).count(best.id) == 3
    assert len(set(ids(full))) == 2


def test_one_rung_trains_everybody_in_full() -> None:
    trials = halved(Instant(), [job(LECTURE, 2.0, seed) for seed in (1, 2)], rungs=1)
    assert [trial.job.epochs for trial in trials] == [2.0, 2.0]


# --- the journal


def test_a_search_run_again_over_its_journal_trains_nothing(tmp_path: Path) -> None:
    """Resuming is running again: the same trials, answered from the disk."""
    runs = []
    for attempt in range(2):
        evaluator = Instant()
        with Journal(tmp_path / "journal.jsonl") as journal:
            strategy, cached = Evolve(SMALL, objectives=LOSS), CachedEvaluator(evaluator, journal, LOSS)
            runs.append(Search(strategy, cached, Budget(24), epochs=1.0, rungs=2).run())
        assert len(evaluator.jobs) == (30 if attempt == 0 else 0)
    assert runs[0] == runs[1]


def test_a_repeated_candidate_costs_nothing(tmp_path: Path) -> None:
    evaluator = Instant()
    with Journal(tmp_path / "journal.jsonl") as journal:
        trials = search(Fixed([LECTURE, LECTURE], [LECTURE]), CachedEvaluator(evaluator, journal, LOSS))
    assert len(evaluator.jobs) == 1
    assert len(trials) == 3


def test_a_trial_is_on_the_disk_before_the_strategy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    class Reads(Fixed):
        def tell(self, trials: Sequence[Trial]) -> None:
            assert len(read(path)[0].trials) == 1
            super().tell(trials)

    with Journal(path) as journal:
        assert search(Reads([LECTURE]), CachedEvaluator(Instant(), journal, LOSS))


def test_the_journal_brings_back_what_was_written(tmp_path: Path) -> None:
    good = scored(finished(job(LECTURE, 0.25, 7)), LOSS)
    bad = Trial.failed(job(LECTURE, 1.0, 8), "oom", "out  of\nmemory")
    with Journal(tmp_path / "j") as journal:
        journal.begin({"config": {"seed": 1}})
        journal.append(good)
        journal.append(bad)
    with Journal(tmp_path / "j") as journal:
        assert journal.record.about["config"] == {"seed": 1}
        assert [scored(trial, LOSS) for trial in journal.record.trials.values()] == [good, bad]
        assert journal.find(job(LECTURE, 0.5, 7)) is None
        assert journal.find(job(LECTURE, 0.25, 7)) is not None


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append(finished(job(LECTURE, 1, 1)))
        journal.append(finished(job(LECTURE, 1, 2)))
    whole = path.read_bytes()
    for cut in (1, 40, 200):
        path.write_bytes(whole[:-cut])
        with Journal(path) as journal:
            assert len(journal.record.trials) == 1
            journal.append(finished(job(LECTURE, 1, 3)))
        with Journal(path) as journal:
            assert [trial.job.seed for trial in journal.record.trials.values()] == [1, 3]


def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        for seed in range(3):
            journal.append(finished(job(LECTURE, 1, seed)))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"seed":1', b'"seed":9')
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="line 3: damaged"):
        Journal(path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(line_of({"header": {"version": 99}}))
    with pytest.raises(JournalError, match="has version 99, and this nas reads 2: use a newer nas"):
        Journal(tmp_path / "j")


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "a file" / "j")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """A real limit on the size of files, in a process of its own."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import *
from nas.architecture.known import LECTURE
from nas.errors import StorageError
from nas.records.journal import Journal
from nas.records.observer import Observer
from nas.records.record import line_of, read
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    with Journal(Path("j")) as journal:
        for seed in range(100):
            journal.append(finished(job(LECTURE, 1, seed)))
except StorageError as error:
    print(seed, error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    kept, _, message = done.stdout.partition(" ")
    assert message.startswith("j cannot be written (No space left on device): free some space")
    with Journal(tmp_path / "j") as journal:
        assert [trial.job.seed for trial in journal.record.trials.values()] == list(range(int(kept)))
