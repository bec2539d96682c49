"""The result says why this network, whether a smaller one would do, and what both cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_mlflow import Shown, make_outcome, make_trial

from nas.architecture.architecture import Architecture
from nas.architecture.known import LECTURE, LENET5
from nas.architecture.layers import Conv2d, Dense, Flatten
from nas.cli.console import show_result
from nas.objectives import Objective
from nas.records.cost import Cost, smaller
from nas.records.outcome import Importance, Outcome
from nas.records.record import read
from nas.report.summary import Summary, command_for
from nas.trial import Kind, Trial

SMALL, TINY = (Architecture((Conv2d(n, 5, 2), Flatten(), Dense(8))) for n in (8, 2))
IMAGES = 1_500  # with an accuracy of 98 %, the standard error is 0.36 points


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    shown = Shown(tmp_path)
    made = make_outcome(shown.header, make_trial(LENET5, 0.99))
    shown.close()
    return made


def reasons(outcome: Outcome) -> str:
    return " ".join(Summary.of(outcome).reasons)


def beside(outcome: Outcome, *accuracies: float) -> Outcome:
    other = tuple(make_trial(LECTURE, accuracy, seed=8 + n) for n, accuracy in enumerate(accuracies))
    return replace(outcome, finalists=(outcome.retrained, other))


def test_a_winner_is_compared_with_the_next_finalist_and_with_what_seeds_do(outcome: Outcome) -> None:
    close = reasons(beside(outcome, 0.975, 0.97))
    assert "Of 2 networks that were trained again" in close
    assert "the best mean validation accuracy: 97.50 ± 0.71 %, 0.25 points better than" in close
    assert "over the seeds, the standard error of this difference is 0.56 points" in close
    assert "with a single seed, part of that may be luck" in reasons(beside(outcome, 0.9))
    assert "the only one of 5 candidates that was trained again" in reasons(outcome)


def test_an_objective_without_noise_has_no_standard_error(outcome: Outcome) -> None:
    few = replace(outcome.header, objectives=(Objective("parameters", -1),))
    text = reasons(beside(replace(outcome, header=few), 0.97, 0.96))
    assert "the best mean parameters: 61,706, " in text
    assert "standard error" not in text


def test_a_smaller_network_is_named_if_it_is_nearly_as_good() -> None:
    winner = make_trial(LENET5, 0.98)
    again = ((make_trial(LENET5, 0.985, seed=8),),)

    def found(*others: Trial) -> Trial | None:
        return smaller(winner, [winner, *others], again, IMAGES, "validation_loss")

    good, tiny = make_trial(SMALL, 0.978), make_trial(TINY, 0.978)
    assert found() is None
    assert found(good) is good
    assert found(good, tiny) is tiny  # the smallest of them
    assert found(make_trial(SMALL, 0.97)) is None  # worse by two standard errors
    assert found(make_trial(SMALL, 0.99, epochs=1.0)) is None  # of a shorter training nobody knows
    dense = Architecture((Flatten(), Dense(60)))  # 47,710 parameters, and the winner has 61,706
    assert found(make_trial(dense, 0.99)) is None
    assert found(Trial.failed(good.job, "crash", "died")) is None
    retrained = (*again, (make_trial(SMALL, 0.9, seed=8),))  # the final selection has found out
    assert smaller(winner, [winner, good], retrained, IMAGES, "validation_loss") is None
    assert smaller(winner, [winner, good], again, IMAGES, "macro_f1") is None  # whose error nobody knows


def test_the_smaller_network_can_be_taken(outcome: Outcome) -> None:
    small = replace(outcome, smaller=make_trial(SMALL, 0.985))
    words = reasons(small)
    assert "Nearly as good with " in words
    assert "(98.50 %, the winner 99.00 %)" in words
    name = make_trial(SMALL, 0.985).id
    assert command_for(small) == f"nas train {name} --epochs 3"
    given = replace(small.header, config={**small.header.config, "dataset": "object:Mine"})
    assert command_for(replace(small, header=given)) == ""  # nothing that would train on other images


def test_a_result_says_what_mattered_what_failed_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(tmp_path)
    winner = make_trial(LENET5, 0.99)
    mattered = (Importance("head/pool", 0.31, 0.02), Importance("stage2/blocks", 0.12, 0.01))
    noise = Importance("activation", 0.05, 0.04)
    shown.keep(winner)
    kinds: tuple[Kind, ...] = ("crash", "crash", "not_finite")
    for seed, kind in enumerate(kinds):
        shown.keep(Trial.failed(make_trial(SMALL, 0.5, seed=seed).job, kind, "died"))
    again = make_trial(LENET5, 0.97, epochs=12.0, seed=8)
    shown.journal.append(again)
    made = make_outcome(shown.header, winner)
    shown.journal.finished(
        replace(made, failed=3, retrained=(again,), finalists=((again,),), mattered=(*mattered, noise))
    )
    shown.close()
    found = read(shown.path)[0].result()
    assert found is not None
    assert (
        "What mattered most in the space: head/pool (31 % of the variance of the error is not explained "
        "without it), stage2/blocks (12 %)."
    ) in reasons(found)
    show_result(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("evolve on ")  # the verdict comes first
    assert any("3 failed (2 crash, 1 not finite)" in line for line in lines)
    assert [line for line in lines if line.startswith("nas predict ")]


def test_the_cost_of_a_search_is_that_of_all_its_trainings(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    winner = make_trial(LENET5, 0.99)
    again = tuple(make_trial(LENET5, 0.97, epochs=12.0, seed=seed) for seed in (8, 9))
    outcome = replace(make_outcome(shown.header, winner), retrained=again, finalists=(again,))
    shown.journal.append(make_trial(LENET5, 0.9, epochs=0.75))  # of the first rung
    shown.keep(winner)
    for trial in again:
        shown.journal.append(trial)
    shown.journal.finished(outcome)
    shown.close()
    found = read(shown.path)[0].result()
    assert found is not None
    assert found.cost == Cost(trainings=4, epochs=27.75, seconds=8.0, last=2, last_seconds=4.0)
    text = " ".join(Summary.of(found).cost)
    assert (
        "4 trainings, 27.75 epochs, 8 core-seconds; of that 2 trainings and 4 core-seconds in the final selection"
        in text
    )
    one = replace(found, cost=Cost(1, 1.0, 8.0, 0, 0.0))
    assert "Cost: 1 training, 1 epoch, 8 core-seconds." in " ".join(Summary.of(one).cost)


def test_on_a_gpu_a_second_in_which_several_networks_train_is_one_second() -> None:
    trials = [make_trial(LENET5, 0.9, seed=seed) for seed in (1, 2, 3)]  # of two seconds each
    ends = dict(zip((trial.job.key for trial in trials), (10.0, 11.0, 20.0), strict=True))
    found = Cost.of(trials, trials[2:], ends, "cuda:0")
    assert (found.seconds, found.last_seconds) == (3.0 + 2.0, 2.0)
    assert Cost.of(trials, trials[2:], ends, "cpu").seconds == 6.0


def test_the_finalists_fit_into_80_columns(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_result(beside(outcome, 0.9, 0.91), 83.4)
    text = capsys.readouterr().out
    paths = ("The network: ", "nas predict ", "nas export ")
    assert max(len(line) for line in text.splitlines() if not any(path in line for path in paths)) <= 80
    assert "The finalists, trained again from scratch for 3 epochs" in text
    assert "97.50 ± 0.71 %" in text
    assert "90.50 ± 0.71 %" in text
    assert "83 seconds" in text  # of the whole command, and not of the search alone
