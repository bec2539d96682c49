"""The baselines of series and of texts, on small ones that are made up."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import nas

from nas.baselines import baselines as module
from nas.baselines import features, ngram, series
from nas.baselines.baseline import Baseline, accuracy_of, bits_of
from nas.baselines.baselines import fitted, missing, names, tuned
from nas.baselines.ngram import Ngrams, discounts, events, shift
from nas.comparison.others import fit
from nas.comparison.result import Compared, Result, State
from nas.comparison.settings import Comparison
from nas.comparison.tables import baselines as baselines_table
from nas.comparison.watcher import Watcher
from nas.data.dataset import Array, Dataset, Split
from nas.errors import UsageError

ABLE = names("series")[1:]
CLASSES = ["slow", "fast", "fading"]


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted yet, as in a new process."""
    monkeypatch.setattr(module, "_models", {})


def needs_aeon(name: str) -> None:
    if name in series.OF_AEON:
        pytest.importorskip("aeon")


def waves(each: int, seed: int, *, channels: int = 2, steps: int = 30, shortest: int = 30) -> Split:
    """So many series of each class: slow and fast waves, and waves that fade, with noise and any phase."""
    rng, rows, labels = np.random.default_rng(seed), [], []
    for label, _ in product(range(len(CLASSES)), range(each)):
        time = np.arange(steps)
        wave = np.sin(2 * np.pi * (time / (15 if label == 0 else 6) + rng.random()))
        wave = wave * (np.exp(-time / 6) if label == 2 else 1) + rng.normal(0, 0.1, (channels, steps))
        wave[:, rng.integers(shortest, steps + 1) :] = np.nan
        rows.append(wave)
        labels.append(label)
    return Split.of(np.array(rows, np.float32), np.array(labels))


def data(shortest: int = 30, *, folds: bool = False, channels: int = 2) -> Dataset:
    train, validation = (waves(n, seed, shortest=shortest, channels=channels) for n, seed in ((12, 0), (6, 1)))
    number = [1 + i % 2 for i in range(len(train))] + [0] * len(validation) if folds else []
    return Dataset.of("waves", train, validation, CLASSES, folds=number)


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("make", [data, lambda: data(12), lambda: data(folds=True, channels=1)])
def test_a_model_tells_classes_apart_and_answers_the_same_with_any_number_of_threads(
    name: str, make: Callable[[], Dataset], forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_aeon(name)
    own = make()
    np.random.seed(5)
    baseline = tuned(name, own, seed=3, workers=1)
    assert baseline.validation_accuracy > 0.85
    assert np.random.random_sample() == np.random.RandomState(5).random_sample()
    test = waves(10, 7, channels=own.input_shape[0], shortest=12 if own.is_padded else 30)
    answers = fitted(baseline, own, seed=3, workers=1)(test.inputs.numpy())
    assert answers.shape == (30,)
    assert accuracy_of(answers, test.labels.numpy()) > 0.8
    if not own.folds:
        shown = fitted(baseline, own, seed=3, workers=1)(own.validation.inputs.numpy())
        assert accuracy_of(shown, own.validation.labels.numpy()) == baseline.validation_accuracy
    monkeypatch.setattr(module, "_models", {})
    assert (fitted(baseline, own, seed=3, workers=2)(test.inputs.numpy()) == answers).all()
    again = tuned(name, own, seed=3, workers=2)
    assert (again.setting, again.validation_accuracy, again.size) == (
        baseline.setting, baseline.validation_accuracy, baseline.size,
    )  # fmt: skip


def test_with_folds_the_model_learns_from_all_series() -> None:
    baseline = tuned("most frequent class", data(folds=True), 0, 1)
    assert baseline.validation_accuracy == pytest.approx(1 / 3)
    pytest.importorskip("aeon")
    assert tuned("nearest neighbour by DTW", data(folds=True), 0, 1).size == "54 series"


@pytest.mark.parametrize("name", ABLE)
def test_two_short_series_of_two_classes_are_enough(name: str) -> None:
    needs_aeon(name)
    inputs = np.array([[[0, 1, 0]], [[5, np.nan, np.nan]]], np.float32)
    own = Dataset.of("two", Split.of(inputs, np.arange(2)), Split.of(inputs, np.arange(2)), ["a", "b"])
    assert tuned(name, own, 0, 1).validation_accuracy >= 0.5


def test_warping_finds_what_is_shifted_and_a_window_limits_it() -> None:
    pytest.importorskip("aeon")
    peak = np.zeros((2, 1, 20), np.float32)
    peak[0, 0, 5], peak[1, 0, 5] = 1, -1
    later = np.roll(peak, 2, axis=2)
    wide, narrow = (series.Neighbour(window, 100, 0).fit(peak, np.arange(2)) for window in (20, 0))
    assert wide.predict(later).tolist() == [0, 1]
    assert wide.distances(later)[0, 0] == pytest.approx(0)
    assert narrow.distances(later)[0, 0] > 1


def test_too_many_series_for_warping_become_a_part_with_every_class() -> None:
    pytest.importorskip("aeon")
    train = waves(12, 0)
    model = series.Neighbour(5, 6, 0).fit(train.inputs.numpy(), train.labels.numpy())
    assert series._size(model, CLASSES) == f"{len(model.labels)} of 36 series"
    assert set(model.labels.tolist()) == {0, 1, 2}


def test_unequal_lengths_are_padded_or_stretched() -> None:
    short = np.array([[[0, 1, 2, np.nan, np.nan]]], np.float32)
    assert series.equal_lengths(short, 5, stretched=False).tolist() == [[[0, 1, 2, 0, 0]]]
    assert series.equal_lengths(short, 5, stretched=True).tolist() == [[[0, 0.5, 1, 1.5, 2]]]


def test_without_aeon_two_baselines_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    left_out = [name for name in names("series") if missing(name)]
    assert left_out == list(series.OF_AEON)
    assert missing(left_out[0]).endswith('pip install "nas[timeseries]"')
    assert not any(missing(name) for name in (*names("images"), *names("tokens")))
    with pytest.raises(UsageError, match="MiniRocket and ridge: it needs aeon"):
        tuned("MiniRocket and ridge", data(), 0, 1)


def test_a_model_of_another_kind_of_input_is_refused() -> None:
    with pytest.raises(UsageError, match="no baseline of series 'decision tree'"):
        tuned("decision tree", data(), 0, 1)


def test_features_are_what_their_names_say() -> None:
    time = np.arange(40)
    inputs = np.stack([np.cos(2 * np.pi * time / 8), 3 + 0.5 * time, np.full(40, 7.0)])[:, None].astype(np.float32)
    wave, line, flat = (dict(zip(features.NAMES, row, strict=False)) for row in features.features(inputs))
    assert wave["frequency of peak 1"] == pytest.approx(1 / 8)
    assert wave["share of peak 1"] == pytest.approx(1)
    assert wave["crossings of the mean"] == pytest.approx(10 / 40)
    assert wave["autocorrelation after 2"] == pytest.approx(0, abs=0.03)
    assert line["slope"] == pytest.approx(0.5 * 39 / 2)
    assert line["mean change"] == pytest.approx(0.5)
    assert line["50% quantile"] == pytest.approx(3 + 0.5 * 39 / 2)
    assert {name for name, value in flat.items() if value} == {
        "mean", "smallest", "largest", *(f"{share:.0%} quantile" for share in features.QUANTILES),
    }  # fmt: skip


def test_features_do_not_depend_on_other_series() -> None:
    inputs = waves(6, 0, shortest=1).inputs.numpy()
    found = features.features(inputs)
    assert np.isfinite(found).all()
    assert found.shape == (18, 2 * len(features.NAMES) + 1)
    alone = np.concatenate([features.features(inputs[i : i + 1]) for i in range(len(inputs))])
    assert np.allclose(alone, found, rtol=1e-5, atol=1e-6)


def cut(text: Array, window: int, stride: int = 1) -> Split:
    """The windows of a text, and the tokens that follow."""
    all_of_them = np.lib.stride_tricks.sliding_window_view(text, window + 1)[::stride]
    return Split.of(all_of_them[:, :-1].astype(np.uint8), all_of_them[:, -1].astype(np.int64))


def spoken(length: int, seed: int) -> Array:
    """A text of four letters, in which two letters say which two are likely to follow."""
    rng, text = np.random.default_rng(seed), [0, 1]
    while len(text) < length:
        likely = (text[-2] * 2 + text[-1]) % 4
        text.append(likely if rng.random() < 0.8 else int(rng.integers(4)))
    return np.array(text)


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_each_position_of_a_text_counts_once(stride: int) -> None:
    text = spoken(8 + 1 + 8 * 3 * 5, 0)
    windows = cut(text, 8, stride)
    assert shift(windows.inputs.numpy(), windows.labels.numpy()) == stride
    found = events(windows.inputs.numpy(), windows.labels.numpy(), 3)
    assert (found == np.lib.stride_tricks.sliding_window_view(text, 3)).all()


def test_of_windows_in_any_order_only_the_ends_count() -> None:
    windows = cut(spoken(300, 0), 8)
    order = np.random.default_rng(1).permutation(len(windows))
    inputs, labels = windows.inputs.numpy()[order], windows.labels.numpy()[order]
    assert shift(inputs, labels) is None
    assert (events(inputs, labels, 3) == np.column_stack([inputs[:, -2:], labels])).all()


def test_two_texts_are_not_joined() -> None:
    one, other = cut(spoken(100, 0), 8), cut(spoken(100, 1), 8)
    inputs = np.concatenate([one.inputs.numpy(), other.inputs.numpy()])
    found = events(inputs, np.concatenate([one.labels.numpy(), other.labels.numpy()]), 4)
    assert len(found) == 2 * (100 - 3)


def test_the_probabilities_are_those_of_kneser_and_ney() -> None:
    """Compared with a slow implementation that is written as in the paper, with dictionaries."""
    text = spoken(200, 0)
    windows = cut(text, 6)
    model = Ngrams(3, 4).fit(windows.inputs.numpy(), windows.labels.numpy())
    grams = Counter(tuple(text[i : i + 3].tolist()) for i in range(len(text) - 2))
    levels = [grams]
    for _ in range(2):
        levels.append(Counter(gram[1:] for gram in levels[-1]))  # in how many contexts, not how often

    def chance(context: tuple[int, ...], token: int, level: int) -> float:
        counts = levels[level]
        followers = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
        shorter = chance(context[1:], token, level + 1) if context else 1 / 4
        if not followers:
            return shorter
        off = discounts(np.array(list(counts.values())))
        total = sum(followers.values())
        rest = sum(off[min(count, 3)] for count in followers.values()) / total
        count = followers.get(token, 0)
        return float((count - off[min(count, 3)]) / total + rest * shorter)

    wanted = [[chance((a, b), token, 0) for token in range(4)] for a, b in product(range(4), repeat=2)]
    asked = np.array([[0] * 4 + [a, b] for a, b in product(range(4), repeat=2)], np.uint8)
    assert np.allclose(model.predict_proba(asked), wanted, rtol=1e-5)


def test_discounts_are_the_estimates_of_chen_and_goodman() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 3])
    usual = 40 / (40 + 2 * 20)
    expected = [0, 1 - 2 * usual * 20 / 40, 2 - 3 * usual * 10 / 20, 3 - 4 * usual * 5 / 10]
    assert discounts(counts) == pytest.approx(expected)
    assert discounts(np.array([3, 3])).tolist() == [0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("stride", [1, 4])
def test_n_grams_learn_a_text(stride: int, forgotten: None) -> None:
    train, validation = cut(spoken(6_000, 0), 8, stride), cut(spoken(1_000, 1), 8)
    own = Dataset.of("spoken", train, validation, list("abcd"))
    baseline = tuned("n-grams", own, 0, 1)
    assert baseline.validation_accuracy == pytest.approx(0.85, abs=0.03)
    best = -(0.85 * math.log2(0.85) + 0.15 * math.log2(0.05))
    assert baseline.bits == pytest.approx(best, abs=0.12)
    test = cut(spoken(1_000, 2), 8)
    chances = fitted(baseline, own, 0, 1)(test.inputs.numpy())
    assert chances.shape == (len(test), 4)
    assert np.allclose(chances.sum(1), 1, atol=1e-5)
    assert bits_of(chances, test.labels.numpy()) == pytest.approx(baseline.bits, abs=0.15)
    guess = tuned("most frequent class", own, 0, 1)
    assert guess.bits == pytest.approx(2, abs=0.1)
    assert Baseline.from_dict(guess.to_dict()) == guess


def test_tokens_that_were_never_seen_have_a_probability() -> None:
    windows = np.array([[0, 1], [1, 0], [0, 1]], np.int32)
    model = ngram.Ngrams(5, 3).fit(windows, np.array([0, 1, 0]))
    found = model.predict_proba(np.array([[2, 2], [90_000, 0], [0, 90_000]], np.int32))
    assert (found > 0).all()
    assert np.allclose(found.sum(1), 1)


def test_labels_have_no_bits() -> None:
    assert bits_of(np.array([1, 0]), np.array([1, 1])) is None
    assert accuracy_of(np.array([1, 0]), np.array([1, 1])) == 0.5


PLUGIN = """
import numpy as np
from nas.comparison.others import fit
from nas.comparison.result import Compared, Result, State
from nas.comparison.settings import Comparison
from nas.comparison.tables import baselines as baselines_table
from nas.comparison.watcher import Watcher
from nas.data.dataset import Dataset, Split
from nas.data.plugin import DatasetPlugin

class Made(DatasetPlugin):
    \"\"\"Made up.\"\"\"

    def split(self, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(40) % 2
        inputs = {inputs}
        return Split.of(inputs, labels)

    def load(self):
        return Dataset.of("made", self.split(0), self.split(1), ["no", "yes"])

    def load_test(self):
        return self.split(2)
"""
SERIES = "rng.normal(labels[:, None, None], 0.2, (40, 1, 12)).astype(np.float32)"
TEXTS = "np.column_stack([rng.integers(0, 2, (40, 5)), 1 - labels]).astype(np.uint8)"


def command(tmp_path: Path, inputs: str, *words: str) -> Any:
    (tmp_path / "made_up.py").write_text(PLUGIN.replace("{inputs}", inputs))
    return nas("baselines", "--dataset", "made-up", "--plugins", str(tmp_path), *words, cwd=tmp_path, COLUMNS="80")


def test_the_command_shows_baselines_of_series(tmp_path: Path) -> None:
    has_aeon = not missing(series.OF_AEON[0])
    done = command(tmp_path, SERIES, "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["baselines"]}
    assert set(rows) == set(names("series"))
    assert rows["random forest on summaries"]["test_accuracy"] > 0.9
    assert "40 series to train" in done.stderr
    assert "image" not in done.stderr
    for name in series.OF_AEON:
        if has_aeon:
            assert rows[name]["test_accuracy"] > 0.9
        else:
            assert rows[name] == {"name": name, "left_out": missing(name)}


def test_the_command_shows_bits_of_texts(tmp_path: Path) -> None:
    done = command(tmp_path, TEXTS)
    assert "40 texts to train" in done.stderr
    assert "n-grams" in done.stdout
    assert "100.00 %" in done.stdout
    assert done.stdout.count(" bits") >= 4
    assert "image" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_comparison_leaves_out_what_needs_aeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    state, own = State("0" * 16, "waves", "0" * 16, kind="series"), data()
    resolved: Any = SimpleNamespace(data=own, workers=1, experiment=SimpleNamespace(seed=0, evaluator="local"))
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "warned", told.append)
    fit(tmp_path, state, resolved, watcher)
    assert list(state.baselines) == ["most frequent class", "random forest on summaries"]
    assert list(state.left_out) == list(series.OF_AEON)
    assert told == [f"{name} is left out: {reason}" for name, reason in state.left_out.items()]
    again = State.read(tmp_path)
    assert (again.kind, again.left_out) == ("series", state.left_out)
    result = Result((), (), (), (), (), 30, 0.0, "")
    shown = baselines_table(Compared(tmp_path, Comparison.of(strategies="evolve"), state, result))
    assert shown[2][-1] == [series.OF_AEON[1], "", "", "", missing(series.OF_AEON[1])]
