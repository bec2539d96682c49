"""What follows from `build` for every space: drawing, changing, mixing, replaying."""

from __future__ import annotations

from random import Random

import optuna
import pytest
from conftest import Tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.architecture.architecture import Architecture, Limits
from nas.architecture.known import LECTURE
from nas.architecture.layers import Dense, Dropout, Flatten
from nas.errors import ArchitectureError, SpaceError
from nas.spaces.cnn import Cnn
from nas.spaces.lecture import Lecture
from nas.spaces.space import Candidate, Choose, Scalar, SearchSpace

LIMITS = Limits(max_parameters=34_826)
SPACES = [Cnn().within(LIMITS), Lecture().within(LIMITS), Tiny()]
spaces = st.sampled_from(SPACES)
seeds = st.integers(0, 2**32)


class Single(SearchSpace):
    """One network."""

    def build(self, choose: Choose) -> Architecture:
        choose.suggest_categorical("units", [3])
        return Architecture((Flatten(), Dense(3)))


class Numbers(SearchSpace):
    """Every kind of question that Optuna knows."""

    def build(self, choose: Choose) -> Architecture:
        units = choose.suggest_int("units", 2, 64, log=True) + choose.suggest_int("more", 0, 100_000, step=50)
        rate = choose.suggest_float("rate", 0.1, 0.5) * choose.suggest_float("part", 0.25, 1.0, step=0.25)
        rate *= choose.suggest_float("scale", 0.01, 1.0, log=True)
        return Architecture((Flatten(), Dense(units), Dropout(rate)))


@given(spaces, seeds)
def test_what_is_drawn_fits_and_is_replayed_exactly(space: SearchSpace, seed: int) -> None:
    candidate = space.sample(Random(seed))
    space.limits.check(candidate.architecture)
    assert space.sample(Random(seed)) == candidate
    again = space.replay(candidate.choices, Random(seed + 1))
    assert again.architecture == candidate.architecture
    assert list(again.choices.items()) == list(candidate.choices.items())


@given(spaces, seeds)
def test_a_mutation_fits_and_is_different(space: SearchSpace, seed: int) -> None:
    rng = Random(seed)
    parent = space.sample(rng)
    child = space.mutate(parent, rng)
    space.limits.check(child.architecture)
    assert child.architecture.id != parent.architecture.id
    assert child.parents == (parent.architecture.id,)
    assert space.replay(child.choices, rng).architecture == child.architecture
    shared = child.choices.keys() & parent.choices.keys()
    assert sum(child.choices[name] != parent.choices[name] for name in shared) == 1


@given(spaces, seeds)
def test_a_crossover_has_every_answer_from_a_parent(space: SearchSpace, seed: int) -> None:
    rng = Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    space.limits.check(child.architecture)
    for name, answer in child.choices.items():
        givers = [one.choices[name] for one in (first, second) if name in one.choices]
        assert not givers or answer in givers


def test_a_crossover_mixes() -> None:
    space, rng = SPACES[0], Random(0)
    first, second = space.sample(rng), space.sample(rng)
    children = {space.crossover(first, second, rng).architecture.id for _ in range(30)}
    assert len(children - {first.architecture.id, second.architecture.id}) > 5


def test_neighbours_are_all_and_only_one_answer_away() -> None:
    space, rng = Tiny(), Random(0)
    answers: dict[str, Scalar] = {"depth": 2, "conv0/filters": 1, "conv1/filters": 2}
    start = space.replay(answers, rng)
    found = [dict(one.choices) for one in space.neighbours(start, rng)]
    assert [choices["depth"] for choices in found] == [1, 3, 2, 2, 2, 2]
    assert {(c["conv0/filters"], c["conv1/filters"]) for c in found[2:]} == {(2, 2), (3, 2), (1, 1), (1, 3)}


def test_a_space_of_one_network_cannot_be_mutated() -> None:
    space = Single()
    with pytest.raises(SpaceError, match="no other network"):
        space.mutate(space.sample(Random(0)), Random(0))


def test_a_space_in_which_nothing_fits_says_so() -> None:
    with pytest.raises(
        SpaceError,
        match=r"none of 1,000 networks drawn from the space Cnn fits.*more than the 5 parameters allowed",
    ):
        Cnn().within(Limits(max_parameters=5)).sample(Random(0))


def test_replay_refuses_what_does_not_fit() -> None:
    with pytest.raises(ArchitectureError, match="allowed"):
        Tiny().within(Limits(max_parameters=5)).replay({"depth": 3}, Random(0))


@given(seeds)
@settings(max_examples=30)
def test_numbers_stay_in_their_ranges(seed: int) -> None:
    space, rng = Numbers(), Random(seed)
    candidate = space.sample(rng)
    for one in (candidate, space.mutate(candidate, rng), *list(space.neighbours(candidate, rng))[:20]):
        choices = one.choices
        assert type(choices["units"]) is int
        assert 2 <= choices["units"] <= 64
        assert choices["more"] in range(0, 100_001, 50)
        assert 0.1 <= float(str(choices["rate"])) <= 0.5
        assert choices["part"] in (0.25, 0.5, 0.75, 1.0)


@given(spaces, seeds)
@settings(max_examples=50)
def test_optuna_asks_the_same_questions(space: SearchSpace, seed: int) -> None:
    """The same `build` is a define-by-run space: Optuna's own trial, given our answers, builds our network."""
    candidate: Candidate = space.sample(Random(seed))
    trial = optuna.trial.FixedTrial(dict(candidate.choices))
    assert space.build(trial) == candidate.architecture
    assert trial.params == dict(candidate.choices)


def test_the_lecture_s_network_is_a_point_of_its_space() -> None:
    answers: dict[str, Scalar] = {
        "activation": "relu", "convolutions": 2, "conv0/filters": 32, "conv0/kernel": 3, "conv0/pool": "max",
        "conv1/filters": 64, "conv1/kernel": 3, "conv1/pool": "max", "dropout": 0.5, "dense": 0,
    }  # fmt: skip
    assert Lecture().replay(answers, Random(0)).architecture.id == LECTURE.id


def test_good_small_networks_are_common_in_the_default_space() -> None:
    """At least one draw in four stays within the lecture's parameters and twice its operations."""
    rng = Random(0)
    small = Limits(max_parameters=34_826, max_flops=10_000_000)
    drawn = [Cnn().sample(rng).architecture for _ in range(400)]
    assert sum(small.allow(one) for one in drawn) >= 100
