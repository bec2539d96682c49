"""A search goes on wherever it was ended, and a journal is the truth about it whatever happened to it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import pytest
from conftest import LOSS, Instant, Tiny, finished, job

from nas.architecture.architecture import Limits
from nas.architecture.known import LECTURE, LENET5
from nas.errors import JournalError
from nas.evaluation.cached import CachedEvaluator
from nas.records.journal import FILE, Journal, is_running, repair
from nas.records.record import VERSION, entry_of, line_of, lines, read
from nas.records.searches import State, differences
from nas.run.replayed import ReplayedStrategy
from nas.search import Budget, Search
from nas.spaces.cnn import Cnn
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.evolve import Evolve
from nas.strategies.strategy import Strategy
from nas.strategies.trial_and_error import TrialAndError
from nas.trial import Job, Trial

FIXTURES = Path(__file__).parent / "fixtures"
SPACE = Cnn().within(Limits(max_parameters=34_826))


class Killed(BaseException):
    """What a kill looks like from inside: nobody catches it."""


class Mortal(Journal):
    """A journal whose process dies when it has written so many lines."""

    lives = 10**9

    def _write(self, entry: dict[str, Any], *, made: Any = None, sync: bool = True) -> None:
        super()._write(entry, made=made, sync=sync)
        self.lives -= 1
        if self.lives == 0:
            raise Killed


def run(
    path: Path,
    make: Callable[[], Strategy],
    trials: int,
    lives: int = 10**9,
    enough: Mapping[str, Any] = MappingProxyType({}),
    ahead: int = 1,
    **how: bool,
) -> tuple[list[Trial], int]:
    """A search over a journal, with other settings of its budget; its trials, and how many trainings were done."""
    evaluator = Instant()
    with Mortal(path, begun=0.0) as journal:
        journal.begin({"config": {"trials": trials, "ahead": ahead}}, **how)
        journal.lives = lives
        cached = CachedEvaluator(evaluator, journal, LOSS)
        known = dict(journal.record.asked)
        sizes = {number: one.wanted for number, one in known.items()}
        budget = Budget(trials, ahead=ahead, known=sizes, **enough)
        strategy = ReplayedStrategy(make, known, ahead=ahead, trusting=how.get("forced", False))
        history = Search(strategy, cached, budget, epochs=1.0, observer=journal, rungs=2).run()
        assert [one.trial.id for one in journal.record.told] == [one.id for one in told_order(history, journal)]
        return history, len(evaluator.jobs)


def told_order(history: Sequence[Trial], journal: Journal) -> list[Trial]:
    """The history in the order in which it was told: each is in it once."""
    by_key = {trial.job.key: trial for trial in history}
    assert len(by_key) == len(history) == len(journal.record.told)
    return [by_key[one.trial.job.key] for one in journal.record.told]


@pytest.mark.parametrize(
    ("make", "ahead"),
    [
        (lambda: Evolve(SPACE, objectives=LOSS, seed=1), 1),
        (lambda: TrialAndError(SPACE, objectives=LOSS, seed=1, startup=8), 1),
        (lambda: Evolve(Tiny(), objectives=LOSS, seed=1), 1),  # ends before the budget
        (lambda: Evolve(SPACE, objectives=LOSS, seed=1), 3),
        (lambda: TrialAndError(SPACE, objectives=LOSS, seed=1, startup=8), 3),
        (lambda: Evolve(Tiny(), objectives=LOSS, seed=1), 3),
    ],
    ids=["evolve", "trial-and-error", "small space"] * 2,
)
def test_a_search_killed_after_any_line_ends_as_if_it_had_not_been(
    tmp_path: Path, make: Callable[[], Strategy], ahead: int
) -> None:
    whole, trainings = run(mkdir(tmp_path / "whole") / FILE, make, 44, ahead=ahead)
    total = len(list(lines(tmp_path / "whole" / FILE)))
    for lives in range(1, total - 1, 12):
        mkdir(tmp_path / str(lives))
        path = tmp_path / str(lives) / FILE
        with pytest.raises(Killed):
            run(path, make, 44, lives, ahead=ahead)
        before = len(read(path)[0].trials)
        again, rest = run(path, make, 44, ahead=ahead)
        assert again == whole
        assert before + rest == trainings


@pytest.mark.parametrize("enough", [{"patience": 10}, {"target": 0.955}], ids=["patience", "target"])
def test_a_search_that_has_enough_ends_at_the_same_moment(tmp_path: Path, enough: dict[str, Any]) -> None:
    def make() -> Strategy:
        return Evolve(SPACE, objectives=LOSS, seed=1)

    whole, trainings = run(mkdir(tmp_path / "whole") / FILE, make, 400, enough=enough)
    assert 8 < len(whole) < 400
    total = len(list(lines(tmp_path / "whole" / FILE)))
    for lives in (total // 3, total - 3, total - 2):
        path = mkdir(tmp_path / str(lives)) / FILE
        with pytest.raises(Killed):
            run(path, make, 400, lives, enough)
        before = len(read(path)[0].trials)
        again, rest = run(path, make, 400, enough=enough)
        assert again == whole
        assert before + rest == trainings
    assert run(tmp_path / "whole" / FILE, make, len(whole) + 8)[0][: len(whole)] == whole  # without it, it goes on
    assert len(run(tmp_path / "whole" / FILE, make, 400, enough=enough)[0]) >= len(whole) + 8  # never back


def mkdir(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_search_killed_after_every_few_lines_comes_to_the_same_end(tmp_path: Path) -> None:
    make = partial(Evolve, SPACE, objectives=LOSS, seed=2)
    whole, _ = run(mkdir(tmp_path / "whole") / FILE, make, 40)
    path, kills = mkdir(tmp_path / "killed") / FILE, 0
    while True:
        try:
            again, _ = run(path, make, 40, lives=3)
            break
        except Killed:
            kills += 1
    assert kills > 30
    assert again == whole


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_finished_search_that_is_given_more_is_what_it_would_have_been(tmp_path: Path, ahead: int) -> None:
    make = partial(Evolve, SPACE, objectives=LOSS, seed=3)
    whole, trainings = run(mkdir(tmp_path / "whole") / FILE, make, 48, ahead=ahead)
    path = mkdir(tmp_path / "more") / FILE
    _, first = run(path, make, 24, ahead=ahead)
    again, rest = run(path, make, 48, ahead=ahead, more=True)
    assert again == whole
    assert first + rest == trainings


def test_a_strategy_that_is_not_what_it_was_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / FILE
    before, _ = run(path, lambda: Evolve(SPACE, objectives=LOSS, seed=1), 24)
    with pytest.raises(
        JournalError, match=r"cannot go on: for batch 1, the strategy Evolve proposes other.*--force"
    ):
        run(path, lambda: Evolve(SPACE, objectives=LOSS, seed=2), 24)
    history, _ = run(path, lambda: Evolve(SPACE, objectives=LOSS, seed=2), 40, forced=True)
    assert [trial.id for trial in history[:24]] == [trial.id for trial in before]
    assert len({trial.id for trial in history}) == 40


class Queue(Strategy):
    """Keeps what it will propose, which a strategy should not."""

    def __init__(self) -> None:
        super().__init__(SPACE)
        rng = Random(7)
        self.queue = [self.space.sample(rng) for _ in range(100)]

    def ask(self, count: int) -> list[Candidate]:
        return [self.queue.pop() for _ in range(count)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_strategy_that_keeps_more_than_its_history_goes_on_all_the_same(tmp_path: Path, ahead: int) -> None:
    whole, _ = run(mkdir(tmp_path / "whole") / FILE, Queue, 40, ahead=ahead)
    path = mkdir(tmp_path / "killed") / FILE
    with pytest.raises(Killed):
        run(path, Queue, 40, lives=50, ahead=ahead)
    assert run(path, Queue, 40, ahead=ahead)[0] == whole


class Slow(Instant):
    """Trains three of the jobs that it gets; then time is up."""

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        """Some of them."""
        yield from list(super().evaluate(jobs))[:3]


def test_a_batch_that_a_clock_cut_is_cut_again(tmp_path: Path) -> None:
    """What a clock decided is read from the journal: whoever goes on does not train the rest of the batch."""
    path = tmp_path / FILE
    with Journal(path) as journal:
        evaluator = CachedEvaluator(Slow(), journal, LOSS, until=math.inf)
        strategy = Evolve(SPACE, objectives=LOSS)
        first = Search(strategy, evaluator, Budget(), epochs=1.0, observer=journal, rungs=2).run()
        journal.searched({"finalists": 1, "seeds": 1, "epochs": 1.0, "lecture": False})
    assert len(first) == 3
    with Journal(path) as journal:
        unused = Instant()
        evaluator = CachedEvaluator(unused, journal, LOSS, until=0.0)
        budget = Budget(until=0.0, known={0: journal.record.asked[0].wanted})
        strategy = Evolve(SPACE, objectives=LOSS)
        again = Search(strategy, evaluator, budget, epochs=1.0, observer=journal, rungs=2).run()
        assert again == first
        assert unused.jobs == []


def test_a_training_whose_weights_have_gone_is_done_again(tmp_path: Path) -> None:
    evaluator = Instant()
    with Journal(tmp_path / FILE) as journal:
        for expected in (1, 2):
            list(CachedEvaluator(evaluator, journal, LOSS, weights=tmp_path).evaluate([job(LECTURE)]))
            assert len(evaluator.jobs) == expected
        (tmp_path / f"{job(LECTURE).key}.safetensors").touch()
        list(CachedEvaluator(evaluator, journal, LOSS, weights=tmp_path).evaluate([job(LECTURE)]))
        assert len(evaluator.jobs) == 2
        assert len(journal.record.trials) == 1


# --- an evaluator that does not keep its word


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_evaluator_that_returns_too_few_or_too_many_is_named(tmp_path: Path, count: int) -> None:
    class Counts(Instant):
        def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
            trials = [finished(one) for one in jobs]
            yield from (trials * 2)[:count]

    with Journal(tmp_path / FILE) as journal, pytest.raises(Exception, match="the evaluator Counts "):
        list(CachedEvaluator(Counts(), journal, LOSS).evaluate([job(LECTURE), job(LENET5)]))


# --- one writer


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with Journal(tmp_path / FILE) as journal:
        journal.begin({"config": {}})
        assert is_running(tmp_path)
        with pytest.raises(JournalError, match=rf"is being searched by process {os.getpid()} on \w+"):
            Journal(tmp_path / FILE)
        with pytest.raises(JournalError, match=rf"is being searched by process {os.getpid()} on \w+"):
            repair(tmp_path)
        assert State.of(tmp_path).status == "running"
    assert not is_running(tmp_path)
    assert State.of(tmp_path).status == "interrupted"


# --- journals that are not as they should be


def journal_of(path: Path, count: int = 3) -> Path:
    with Journal(path) as journal:
        journal.begin({"config": {"objectives": ["-validation_loss"]}, "dataset": {"name": "made up"}})
        journal.asked(count, [Candidate(LECTURE)])
        for seed in range(count):
            journal.append(finished(job(LECTURE, 1, seed)))
            journal.told(finished(job(LECTURE, 1, seed)))
    return path


def test_an_empty_journal_is_a_search_that_has_not_begun(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.touch()
    with Journal(path) as journal:
        assert len(journal.record.trials) == 0
    history, _ = run(path, lambda: Evolve(SPACE, objectives=LOSS), 8)
    assert len(history) == 8


@pytest.mark.parametrize("where", range(8))
def test_a_damaged_line_is_named_and_repair_keeps_all_the_others(tmp_path: Path, where: int) -> None:
    path = journal_of(tmp_path / FILE)
    every = path.read_bytes().splitlines(keepends=True)
    assert len(every) == 9
    every[where] = every[where][:30] + b"#" + every[where][31:]
    path.write_bytes(b"".join(every))
    for broken in (lambda: read(path), lambda: Journal(path)):
        with pytest.raises(JournalError, match=f"line {where + 1}: damaged.*nas repair"):
            broken()
    assert State.of(tmp_path).status == "damaged"
    before = path.read_bytes()
    kept, lost = repair(tmp_path)
    assert kept + lost == 9 + (where == 0)  # which gets a new header
    assert path.with_name(f"{FILE}.damaged-1").read_bytes() == before
    trainings = [number for number in (3, 5, 7) if number != where]
    assert [one.job.seed for one in read(path)[0].trials.values()] == [(number - 3) // 2 for number in trainings]
    assert repair(tmp_path)[1] == 0


def test_a_repaired_search_comes_to_the_same_end(tmp_path: Path) -> None:
    make = partial(Evolve, SPACE, objectives=LOSS, seed=4)
    path = tmp_path / FILE
    whole, _ = run(path, make, 40)
    every = path.read_bytes().splitlines(keepends=True)
    for line in (20, 33, 50):
        every[line] = b"{}\n"
    path.write_bytes(b"".join(every))
    repair(tmp_path)
    again, trainings = run(path, make, 40)
    assert again == whole
    assert trainings <= 3


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"header": {"version": VERSION + 1}},
            f"has version {VERSION + 1}, and this nas reads {VERSION}: use a newer nas",
        ),
        ({"header": {"version": 1}}, r"an unreleased version of nas \(journal version 1; this version reads 2\)"),
        ({"header": {}}, "line 1: this is no entry of a journal"),
        ({"header": 3}, "line 1: this is no entry of a journal"),
        ({"trial": {}}, "line 1: the header is missing"),
    ],
)
def test_what_is_no_journal_of_ours_is_refused(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    path = tmp_path / FILE
    path.write_bytes(line_of(entry))
    with pytest.raises(JournalError, match=words):
        read(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"trial": 3}, {"trial": {"job": 1}}, {"told": "nobody knows it"}, {"told": 5}, {"session": []},
        {"asked": 8}, {"retold": None}, {"searched": 3}, {"ended": "so"}, {"outcome": 7}, {"new": 1},
        {"at": "never", "asked": 1}, {"seconds": [], "asked": 1}, {"header": {"version": 2}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_line_that_is_whole_and_wrong_is_named(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = journal_of(tmp_path / FILE)
    with path.open("ab") as file:
        file.write(line_of(entry))
    with pytest.raises(JournalError, match="line 10"):
        read(path)


def test_a_journal_that_is_kept_can_be_read_and_goes_on(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / f"journal-{VERSION}.jsonl", tmp_path / FILE)
    record = read(tmp_path / FILE)[0]
    assert record.header.dataset["name"] == "mnist-5k"
    trials = list(record.trials.values())
    assert len(trials) == 21
    assert {trial.job.epochs for trial in trials} == {0.0625, 0.25, 1.0}
    with Journal(tmp_path / FILE) as journal:
        assert list(journal.record.trials.values()) == trials
        journal.append(finished(job(LECTURE)))
    assert len(read(tmp_path / FILE)[0].trials) == 22


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / FILE
    bad = replace(finished(job(LECTURE), float("nan")), scores=())
    with Journal(path) as journal:
        [kept] = CachedEvaluator(_Only(bad), journal, LOSS).evaluate([bad.job])
    assert kept.failure is not None
    for line in lines(path):
        assert entry_of(line) is not None
        json.loads(line, parse_constant=pytest.fail)


class _Only(Instant):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial

    def evaluate(self, jobs: Sequence[Job], /) -> Iterator[Trial]:
        yield self.trial


def test_a_newer_journal_is_not_repaired(tmp_path: Path) -> None:
    path = journal_of(tmp_path / FILE)
    every = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([line_of({"header": {"version": VERSION + 1}}), *every[1:]]))
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"cannot be repaired: the journal has version 3.*use a newer nas"):
        repair(tmp_path)
    assert path.read_bytes() == before


def test_a_second_header_is_damage_that_repair_takes_away(tmp_path: Path) -> None:
    path = journal_of(tmp_path / FILE)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(JournalError, match="a second header"):
        read(path)
    assert repair(tmp_path) == (9, 1)
    assert len(read(path)[0].trials) == 3


def test_a_strategy_that_forgets_its_base_class_is_a_strategy_all_the_same() -> None:
    class Own(Strategy):
        def __init__(self, space: SearchSpace) -> None:
            self.history = []

        def ask(self, count: int) -> list[Candidate]:
            return [Candidate(LECTURE)]

    assert ReplayedStrategy(lambda: Own(SPACE), {}).ask(1) == [Candidate(LECTURE)]


# --- what has changed


ABOUT: dict[str, Any] = {
    "config": {"strategy": "evolve", "epochs": 4.0, "trials": 40, "workers": 2, "device": "cpu"},
    "dataset": {"name": "mnist-5k", "fingerprint": "aaaa"},
    "limits": {"input_shape": [1, 28, 28]},
    "plugins": {"strategy": "1111", "space": "2222"},
}


def changed(section: str, name: str, value: object) -> dict[str, Any]:
    return {**ABOUT, section: {**ABOUT[section], name: value}}


def test_what_changes_no_result_may_change() -> None:
    for name in ("trials", "workers", "mlflow", "data_dir", "time_limit"):
        assert differences(ABOUT, changed("config", name, 99)) == []
    assert differences(changed("config", "device", "auto"), ABOUT) == []
    assert differences({}, ABOUT) != []


def test_what_changes_the_result_is_said() -> None:
    assert differences(ABOUT, changed("config", "epochs", 8.0)) == ["epochs was 4.0, and is 8.0"]
    [words] = differences(ABOUT, changed("dataset", "fingerprint", "bbbb"))
    assert "the images of mnist-5k have changed" in words
    assert differences(ABOUT, changed("plugins", "space", "3333")) == ["the source of the space has changed"]


# --- strategies that come to no end by themselves


class Fruitless(Strategy):
    """Proposes networks that are new and do not fit."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)

    def ask(self, count: int) -> list[Candidate]:
        return [self.space.sample(self.rng) for _ in range(count)]


def test_a_strategy_that_proposes_only_what_does_not_fit_comes_to_an_end(tmp_path: Path) -> None:
    with Journal(tmp_path / FILE) as journal:
        said: list[str] = []
        journal.warned = said.append  # type: ignore[method-assign, assignment]
        search = Search(
            Fruitless(Cnn()), Instant(), Budget(), 1.0, limits=Limits(max_parameters=1), observer=journal
        )
        trials = search.run()
    assert len(trials) == 40
    assert {trial.failure.kind for trial in trials if trial.failure} == {"invalid"}
    words = "the strategy Fruitless has proposed nothing new that fits in 5 batches: "
    assert said == [f"{words}the search ends after 40 candidates"]
    assert len(read(tmp_path / FILE)[0].told) == 40
