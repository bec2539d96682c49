"""The three answers behind one interface: what each proposes, and how it learns from what it is told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from conftest import LOSS, Instant, Tiny, finished
from optuna.trial import FrozenTrial

from nas.architecture.architecture import Architecture, Limits, distance
from nas.architecture.known import KNOWN, LECTURE, SMALL_VGG
from nas.architecture.layers import Conv2d, Dense, Dropout, Flatten, MaxPool
from nas.errors import UsageError
from nas.objectives import Objective, scored
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.spaces.lecture import Lecture
from nas.spaces.space import Candidate, Choose, SearchSpace
from nas.strategies import trial_and_error
from nas.strategies.evolve import Evolve
from nas.strategies.reference import Reference
from nas.strategies.strategy import Strategy
from nas.strategies.trial_and_error import Sampler, TrialAndError
from nas.trial import Job, Trial

TWO = (Objective("validation_loss", -1), Objective("parameters", -1))


def told(candidate: Candidate, loss: float, parameters: float = 100.0, epochs: float = 1.0) -> Trial:
    trial = finished(Job(candidate, epochs, 1), loss)
    return scored(replace(trial, metrics={**trial.metrics, "parameters": parameters}), LOSS)


def shown(strategy: TrialAndError) -> list[FrozenTrial]:
    """What its sampler learns from."""
    strategy.ask(1)
    return strategy._shown()


def run(strategy: Strategy, trials: int, batch: int = 8) -> list[Trial]:
    return Search(strategy, Instant(), Budget(trials, batch=batch), epochs=1.0).run()


def ids(candidates: list[Candidate]) -> list[str]:
    return [one.architecture.id for one in candidates]


# --- reference


def test_reference_proposes_every_known_network_once_and_then_ends() -> None:
    strategy = Reference(Cnn())
    trials = run(strategy, 100, batch=4)
    assert [trial.job.candidate.origin for trial in trials] == list(KNOWN)
    assert strategy.ask(4) == []


def test_reference_has_more_networks_for_photographs() -> None:
    def proposed(*shape: int) -> dict[str, Architecture]:
        strategy = Reference(Cnn().within(Limits(shape)))
        return {one.origin: one.architecture for one in strategy.ask(100)}

    names = [*KNOWN, "resnet20", "small-mobilenet", "small-convnext"]
    for side in (32, 96):
        assert list(proposed(3, side, side)) == names
    for shape in ((1, 32, 32), (3, 28, 28)):
        assert list(proposed(*shape)) == list(KNOWN)
    # Published: 269,722 parameters with the shortcuts of option A, and 41 · 10⁶ multiplications.
    resnet20 = proposed(3, 32, 32)["resnet20"]
    assert resnet20.parameters((3, 32, 32), 10) == 269_722 + 2_752
    assert resnet20.flops((3, 32, 32), 10) == pytest.approx(2 * 41e6, rel=0.01)


def test_reference_takes_names_files_and_the_winners_of_earlier_searches(tmp_path: Path) -> None:
    mine = Architecture((Conv2d(4, 3), Flatten()))
    (tmp_path / "mine.json").write_text(mine.to_json())
    best = tmp_path / "runs" / "20260101-evolve" / "best"
    best.mkdir(parents=True)
    about = {**SMALL_VGG.to_dict(), "input_shape": [1, 28, 28], "classes": ["0"]}
    (best / "architecture.json").write_text(json.dumps(about))
    strategy = Reference(Cnn(), networks="lecture", folder=tmp_path, winners=tmp_path / "runs")
    found = {one.origin: one.architecture for one in strategy.ask(9)}
    assert found == {"lecture": LECTURE, "mine": mine, "20260101-evolve": SMALL_VGG}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"networks": "lenet"}, "no network 'lenet'; did you mean 'lenet5'"),
        ({"torchvision": "resnet19"}, "no torchvision model 'resnet19'; did you mean 'resnet1"),
        ({"networks": "none"}, "no network to propose"),
        ({"winners": Path("nowhere")}, "winners=nowhere: there is no"),
    ],
)
def test_reference_names_what_it_does_not_know(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Reference(Cnn(), **options)  # type: ignore[arg-type]


def test_torchvision_has_a_candidate_of_every_family() -> None:
    strategy = Reference(Cnn(), networks="none", torchvision="all")
    names = ids(strategy.candidates)
    assert len(set(names)) >= 14
    for candidate in strategy.candidates:
        assert Limits().allow(candidate.architecture)


# --- trial and error


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "cmaes", "gp", "nsga2"])
def test_every_sampler_is_a_pure_function_of_its_history(sampler: Sampler) -> None:
    def new() -> TrialAndError:
        return TrialAndError(Lecture(), objectives=LOSS, sampler=sampler, startup=4, seed=3)

    live = new()
    for _ in range(2 if sampler == "gp" else 3):  # asked in between, told in portions
        candidates = live.ask(4)
        live.tell([told(one, int(one.architecture.id[:4], 16) / 65535) for one in candidates])
    fresh = new()
    fresh.tell(live.history)
    count = 1 if sampler == "gp" else 4  # it takes a second for each
    assert ids(live.ask(count)) == ids(fresh.ask(count))


def test_trial_and_error_learns_where_the_good_networks_are() -> None:
    def loss(candidate: Candidate) -> float:
        return 0.1 + 0.5 * (candidate.choices["activation"] != "elu") + 0.3 * (candidate.choices["dense"] != 64)

    strategy = TrialAndError(Lecture(), objectives=LOSS, seed=0)
    for _ in range(8):
        strategy.tell([told(one, loss(one)) for one in strategy.ask(8)])
    late = [trial.job.candidate for trial in strategy.history[-32:]]
    # By chance, one in six has the activation (5 of 32) and one in four the units (8 of 32).
    assert sum(one.choices["activation"] == "elu" for one in late) >= 16
    assert sum(one.choices["dense"] == 64 for one in late) >= 16


def test_what_was_stopped_early_counts_for_less_than_what_was_trained_in_full() -> None:
    strategy = TrialAndError(Lecture(), objectives=LOSS, seed=0)
    rng = Random(0)
    some = [Lecture().sample(rng) for _ in range(6)]
    strategy.tell([told(one, 0.1, epochs=0.25) for one in some[:3]])
    strategy.tell([told(one, 0.5, epochs=1.0) for one in some[3:]])
    states = [trial.state.name for trial in shown(strategy)]
    assert states == ["PRUNED"] * 3 + ["COMPLETE"] * 3


def test_nothing_that_is_not_finite_reaches_optuna() -> None:
    strategy = TrialAndError(Lecture(), objectives=LOSS)
    some = strategy.ask(3)
    good, *bad = (told(one, loss) for one, loss in zip(some, (0.5, math.nan, math.inf), strict=True))
    strategy.tell([good, *(replace(trial, scores=(-math.inf,), failure=None) for trial in bad)])
    states = [trial.state.name for trial in shown(strategy)]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    assert len(strategy.ask(2)) == 2


def test_the_grid_is_every_network_once() -> None:
    trials = run(TrialAndError(Tiny(), objectives=LOSS, sampler="grid"), 1_000)
    assert len(trials) == len({trial.id for trial in trials}) == 3 + 9 + 27


def test_stepped_numbers_are_the_same_for_optuna_and_for_us() -> None:
    class Stepped(SearchSpace):
        def build(self, choose: Choose) -> Architecture:
            rate = choose.suggest_float("rate", 0.0, 0.5, step=0.1)
            return Architecture((Flatten(), Dropout(rate), Dense(choose.suggest_int("units", 1, 64, step=4))))

    space = Stepped()
    strategy = TrialAndError(space, objectives=LOSS, startup=2)
    rng = Random(0)
    strategy.tell([told(space.sample(rng), 0.5) for _ in range(12)])
    for _ in range(3):
        asked = strategy.ask(8)
        for one in asked:
            assert space.replay(one.choices, rng).architecture == one.architecture
            assert round(one.choices["rate"], 1) == one.choices["rate"]  # type: ignore[arg-type]
        strategy.tell([told(one, 0.5) for one in asked])


def test_what_a_stateful_sampler_remembers_stays_small() -> None:
    strategy = TrialAndError(Lecture(), objectives=TWO, sampler="nsga2", startup=4)
    rng = Random(0)
    limit = 2 * (trial_and_error.BEST + trial_and_error.LATEST)
    for _ in range(limit // 8 + 2):
        strategy.tell(
            [replace(told(Lecture().sample(rng), 0.5), scores=(rng.random(), rng.random())) for _ in range(8)]
        )
    assert len(strategy._replayed.trials) < limit
    assert len(strategy.ask(4)) == 4


# --- evolve


@pytest.mark.parametrize("kind", [Evolve, TrialAndError])
def test_several_objectives_find_a_front_and_not_one_end_of_it(kind: type[Strategy]) -> None:
    def trial(candidate: Candidate) -> Trial:
        size = candidate.architecture.parameters((1, 28, 28), 10)
        made = finished(Job(candidate, 1.0, 1), 1 / math.log(size))
        return scored(replace(made, metrics={**made.metrics, "parameters": float(size)}), TWO)

    strategy = kind(Cnn().within(Limits()), objectives=TWO, seed=1)
    sizes = []
    for _ in range(10):
        trials = [trial(one) for one in strategy.ask(8)]
        strategy.tell(trials)
        sizes.append([one.metrics["parameters"] for one in trials])
    late = [size for batch in sizes[5:] for size in batch]
    # The loss falls with the size, so every network is on the front: the candidates have to stay spread.
    assert max(late) > 10 * min(late)


def test_nsga2_keeps_those_that_nobody_dominates() -> None:
    strategy = Evolve(Tiny(), objectives=TWO, population=4, initial=4, tournament=2)
    rng = Random(0)
    distinct = list({one.architecture.id: one for one in (Tiny().sample(rng) for _ in range(60))}.values())[:8]
    for index, one in enumerate(distinct):
        dominated = 10.0 * (index % 2)
        trial = finished(Job(one, 1.0, 1), 1 + 0.1 * index + dominated)
        size = 99.0 - index + dominated
        strategy.tell([scored(replace(trial, metrics={**trial.metrics, "parameters": size}), TWO)])
    kept = {one.candidate.architecture.id for one in strategy.alive}
    assert kept == {one.architecture.id for one in distinct[::2]}


def test_evolution_can_begin_with_the_known_networks() -> None:
    first = Evolve(Lecture(), start="reference", initial=8).ask(8)
    assert len(set(ids(first))) == 8
    origins = {one.origin: one for one in first}
    assert origins["lecture"].architecture == LECTURE  # a point of this space
    assert "near lenet5" in origins
    assert origins["near mlp"].choices  # it can have children
    cnn = Evolve(Cnn().within(Limits()), start="reference").ask(8)
    assert {one.origin for one in cnn} >= {"small-vgg", "near small-resnet", "sample"}


def test_more_mutations_change_more() -> None:
    rng = Random(0)
    space = Cnn().within(Limits())
    parents = [space.sample(rng) for _ in range(2)]

    def changes(mutation: float) -> int:
        strategy = Evolve(space, objectives=LOSS, initial=2, tournament=1, crossover=0.0, mutation=mutation)
        strategy.tell([told(one, 0.5) for one in parents])
        by_id = {one.architecture.id: one for one in parents}
        children = strategy.ask(20)
        return sum(
            value != by_id[child.parents[0]].choices.get(name)
            for child in children
            for name, value in child.choices.items()
        )

    assert changes(0.7) > 1.5 * changes(0.0)


# --- what the base class keeps


class Learns(Strategy):
    """Keeps losses in `tell`, and does not call super."""

    def __init__(self, space: SearchSpace, *, objectives: Sequence[Objective] = (), seed: int = 0) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        self.losses: list[float] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        self.losses += [trial.metrics["validation_loss"] for trial in trials]

    def ask(self, count: int) -> list[Candidate]:
        return [self.space.sample(self.rng) for _ in range(count)]


class CallsSuper(Learns):
    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        Strategy.tell(self, trials)  # as in docs of earlier versions


class CallsSuperInPortions(Learns):
    def tell(self, trials: Sequence[Trial]) -> None:
        for number, trial in enumerate(trials, len(self.history) + 1):
            Strategy.tell(self, [trial])
            assert len(self.history) == number
        super().tell(trials)


class Mixin:
    def tell(self, trials: Sequence[Trial]) -> None:
        pass


class Mixed(Mixin, Learns):
    pass


class ForgetsInit(Learns):
    def __init__(self, space: SearchSpace) -> None:
        self.space, self.seed, self.losses = space, 0, []
        self.history = []


@pytest.mark.parametrize("kind", [Learns, CallsSuper, CallsSuperInPortions, Mixed, ForgetsInit])
def test_the_history_is_kept_whatever_tell_does(kind: type[Learns]) -> None:
    strategy = kind(Cnn())
    trials = run(strategy, 40)
    assert list(strategy.history) == trials
    assert ids([trial.job.candidate for trial in trials]) == ids(
        [trial.job.candidate for trial in run(Learns(Cnn()), 40)]
    )
    assert len({trial.id for trial in trials}) > 35
    assert len(strategy.losses) == (0 if kind is Mixed else 40)


def test_the_history_cannot_be_changed_by_mistake() -> None:
    strategy = Learns(Cnn())
    run(strategy, 8)
    with pytest.raises(AttributeError, match="Strategy keeps the history"):
        strategy.history = []
    before = strategy.history
    strategy.history.append(before[0])
    strategy.history.reverse()  # as an author may do to look at the latest first
    assert [trial.id for trial in strategy.history] == [trial.id for trial in before]


# --- what the strategies stand on


def test_the_distance_of_networks_counts_layers_and_settings() -> None:
    one = Architecture((Conv2d(8, 3), MaxPool(2), Flatten()))
    assert distance(one, one) == 0
    assert distance(one, Architecture((Conv2d(8, 3), Flatten()))) == 1
    wider = Architecture((Conv2d(16, 3), MaxPool(2), Flatten()))
    assert 0 < distance(one, wider) < distance(one, Architecture((Conv2d(16, 5), MaxPool(2), Flatten()))) < 1
