"""`nas predict` for networks of series, recordings and texts: real trainings, real files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from command import error_line, inline
from scipy.io import wavfile

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv1d, Conv2d, Embedding, GlobalAveragePool, GlobalMaxPool, Layer, TakeLast
from nas.data import open_source
from nas.data.dataset import Array
from nas.data.sequences.reading import TextReading
from nas.errors import NasError
from nas.records.journal import FILE
from nas.records.record import read
from nas.winner.best import read_best
from nas.winner.text import continuation

CLASSES = ("slow", "fast", "faster")
RATE = 8_000
TEXT = "".join(
    f"the {animal} sat on the {place};\n" for animal in ("cat", "dog", "cow") for place in ("mat", "hat")
)


def waves(seed: int, count: int = 36) -> list[tuple[Array, str]]:
    """Series (2, 20 to 40) with their classes, which differ in frequency; some values are missing."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = number % len(CLASSES)
        steps = np.arange(int(random.integers(20, 41)))
        wave = np.sin((0.2 + 0.5 * label) * steps + random.uniform(0, 6))
        values = np.stack([wave, 3 * wave + 5]) + random.normal(0, 0.1, (2, len(steps)))
        values[:, int(random.integers(3, 15))] = np.nan
        found.append((values.astype(np.float32), CLASSES[label]))
    return found


def as_ts(path: Path, series: list[tuple[Array, str]], *, labelled: bool = True) -> Path:
    """A .ts file."""
    lines = ["@problemName waves", "@univariate false", "@equalLength false"]
    lines += [f"@classLabel true {' '.join(CLASSES)}" if labelled else "@classLabel false", "@data"]
    for values, label in series:
        channels = [",".join("?" if np.isnan(v) else f"{v:.9g}" for v in channel) for channel in values]
        lines.append(":".join([*channels, *[label] * labelled]))
    path.write_text("\n".join(lines) + "\n")
    return path


def as_csv(path: Path, series: list[tuple[Array, str]]) -> Path:
    """A table in the long form, without labels."""
    lines = ["id,time,first,second"]
    for number, (values, _) in enumerate(series):
        for step, (first, second) in enumerate(values.T):
            cells = ["" if np.isnan(v) else f"{v:.9g}" for v in (first, second)]
            lines.append(",".join([f"{number}", f"{step}", *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def train(folder: Path, dataset: Path | str, *layers: Layer, **options: Any) -> Path:
    """Train a network in ``folder``."""
    network = folder.with_suffix(".json")
    network.write_text(json.dumps(Architecture(layers).to_dict()))
    chosen = [word for name, value in options.items() for word in ("--set", f"dataset.{name}={value}")]
    words = ["train", str(network), "--dataset", str(dataset), "--epochs", "6", "--mlflow", "off", *chosen]
    inline(*words, "--out", str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_cache_path", lambda name: folder / name)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    (folder / "waves").mkdir()
    as_ts(folder / "waves/waves_TRAIN.ts", waves(0, 90))
    as_ts(folder / "waves/waves_TEST.ts", waves(1))
    layers = Conv1d(16, 5, padding="same", activation="relu", batch_norm=True), GlobalMaxPool()
    train(folder / "plain", folder / "waves", *layers)
    train(folder / "short", folder / "waves", *layers, length=16, scaling="series")
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for label, frequency in (("high", 2_000), ("low", 300)):
        (folder / "tones" / label).mkdir(parents=True)
        for number in range(14):
            times = np.arange(int(random.integers(1_600, 4_000))) / RATE
            tone = np.sin(2 * np.pi * frequency * times) * random.uniform(3_000, 20_000)
            noise = random.normal(0, 100, len(times))
            wavfile.write(folder / "tones" / label / f"{number}.wav", RATE, (tone + noise).astype(np.int16))
    pooled = GlobalAveragePool()
    train(folder / "spectrogram", folder / "tones", Conv2d(8, 5, activation="relu"), pooled)
    train(folder / "wave", folder / "tones", Conv1d(8, 9, 4, activation="relu"), pooled, view="wave")
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "cats.txt").write_text(TEXT * 40)
    layers = Embedding(16, 20), Conv1d(32, 8, padding="causal", activation="relu"), TakeLast()
    return train(folder / "cats", f"text:{folder / 'cats.txt'}", *layers, window=16, stride=1)


def predict(*words: Path | str, code: int = 0, given: bytes | None = None) -> Result:
    return inline("predict", *map(str, words), code=code, given=given)


def answers(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def chances(found: dict[str, Any], noun: str = "series") -> Array:
    """The probabilities (N, classes) of predictions."""
    return np.array([list(one["probabilities"].values()) for one in found[noun]])


# Series


@pytest.mark.parametrize("name", ["plain", "short"])
def test_the_test_series_have_the_accuracy_of_the_record(place: Path, name: str) -> None:
    result = predict(place / name, place / "waves/waves_TEST.ts", "--json")
    found, outcome = answers(result), read(place / name / FILE)[0].result()
    assert outcome is not None
    assert (found["labelled"], found["right"]) == (36, round(36 * outcome.test_accuracy))
    assert found["refused"] == []
    assert found["series"][0]["place"] == "waves_TEST.ts, line 6"
    assert [one["label"] for one in found["series"][:3]] == ["slow", "fast", "faster"]
    lines = predict(place / name, place / "waves/waves_TEST.ts").stdout.splitlines()
    assert lines[-1].startswith(f"{found['right']} of 36 series (")
    assert lines[-1].endswith("have the class that their file names")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ["plain", "short"])
def test_a_series_has_the_same_probabilities_alone_and_in_any_file(place: Path, tmp_path: Path, name: str) -> None:
    series = waves(1)
    together = chances(answers(predict(place / name, place / "waves/waves_TEST.ts", "--json")))
    longest = max(values.shape[1] for values, _ in series)
    values = np.stack([np.pad(v, ((0, 0), (0, longest - v.shape[1])), constant_values=np.nan) for v, _ in series])
    np.savez(tmp_path / "waves.npz", series=values)
    files = [
        as_ts(tmp_path / "waves.ts", series, labelled=False),
        as_csv(tmp_path / "waves.csv", series),
        tmp_path / "waves.npz",
    ]
    for file in files:
        found = answers(predict(place / name, file, "--json"))
        assert found["labelled"] == 0
        assert np.abs(chances(found) - together).max() < 1e-5
    for number in range(5):
        file = as_ts(tmp_path / "one.ts", series[number : number + 1])
        found = answers(predict(place / name, file, "--json"))
        assert np.abs(chances(found) - together[number]).max() < 1e-5
        steps = found["series"][0]["steps"]
        assert steps == -(-series[number][0].shape[1] // (3 if name == "short" else 1))


def test_a_folder_stands_for_the_files_in_it(place: Path) -> None:
    found = answers(predict(place / "plain", place / "waves", "--json"))
    assert found["labelled"] == 36 + 90


def test_a_wrong_file_of_series_gets_one_line(place: Path, tmp_path: Path) -> None:
    one, ts = waves(2, 1)[0][0], tmp_path / "x.ts"
    long = np.ones((2, 41), np.float32)
    wrong: list[tuple[Path, str]] = [
        (as_ts(tmp_path / "a.ts", [(one[:1], "slow")]), "has 1 channel, and the network takes 2"),
        (as_ts(tmp_path / "b.ts", [(long, "slow")]), "has 41 steps, and the network takes at most 40"),
        (as_ts(tmp_path / "c.ts", [(long * np.nan, "slow")]), "has no value"),
        (as_ts(tmp_path / "d.ts", [(long, "slow")] * 3), "each of its 3 series has 41 steps"),
        (tmp_path / "absent.ts", "there is no file of this name"),
        (tmp_path, "is a folder without series (.ts, .tsv"),
    ]
    contents = {
        ts: (b"\0\1\2", "stands before the line @data"),
        tmp_path / "x.npz": (b"PK nonsense", "npz"),
        tmp_path / "x.csv": (b"a,b\n1,2\n", "has no column that is called series"),
        tmp_path / "x.png": (b"", "ends in none of .ts"),
        tmp_path / "x.tsv": (b"", "has no column that is called series"),
    }
    for file, (content, message) in contents.items():
        file.write_bytes(content)
        wrong.append((file, message))
    (tmp_path / "empty").mkdir()
    for file, message in wrong:
        result = predict(place / "plain", tmp_path / "empty" if file == tmp_path else file, code=1)
        assert message in error_line(result)
        assert result.stdout == ""
    assert "--set" not in error_line(predict(place / "plain", tmp_path / "x.csv", code=1))


def test_a_network_of_equal_lengths_refuses_others(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    series = labels[:, None, None] + np.random.default_rng(0).normal(0, 0.1, (40, 1, 12))
    np.savez(tmp_path / "steps.npz", series=series, labels=labels)
    train(tmp_path / "steps", tmp_path / "steps.npz", Conv1d(2, 3), GlobalAveragePool())
    np.savez(tmp_path / "other.npz", series=np.ones((2, 1, 13)))
    line = error_line(predict(tmp_path / "steps", tmp_path / "other.npz", code=1))
    assert line.endswith("cannot be used: each of its 2 series has 13 steps, and the network takes 12")
    found = answers(predict(tmp_path / "steps", tmp_path / "steps.npz", "--json"))
    assert (len(found["series"]), found["labelled"]) == (40, 40)


# Recordings


@pytest.mark.parametrize("view", ["spectrogram", "wave"])
def test_recordings_are_prepared_as_those_of_the_training(sounds: Path, view: str) -> None:
    source = open_source(str(sounds / "tones"), None, {"view": view})
    data = source.load()
    inputs = torch.cat([split.inputs for split in (data.train, data.validation, source.load_test())])
    network = read_best(sounds / view / "best")[1]
    with torch.inference_mode():
        expected = network(inputs).double().softmax(1).numpy()
    result = predict(sounds / view, sounds / "tones", "--json")
    found = answers(result)
    assert (len(found["recordings"]), found["labelled"], found["refused"]) == (28, 28, [])
    assert np.abs(np.sort(chances(found, "recordings"), axis=0) - np.sort(expected, axis=0)).max() < 1e-5
    assert found["right"] > 14
    assert "recordings (" in predict(sounds / view, sounds / "tones").stdout.splitlines()[-1]


def test_a_wrong_recording_gets_one_line(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFF and so on")
    (tmp_path / "y.ts").write_text("@data\n")
    for view in ("spectrogram", "wave"):
        assert "is no WAV file" in error_line(predict(sounds / view, tmp_path / "x.wav", code=1))
        assert "is no WAV file" in error_line(predict(sounds / view, tmp_path / "y.ts", code=1))
        assert "cannot be read" in error_line(predict(sounds / view, tmp_path / "z.wav", code=1))


# Texts


def test_a_text_is_continued(text: Path) -> None:
    found = answers(predict(text, "--text", "the cow", "--json"))
    assert found["text"] == "the cow"
    assert len(found["continuation"]) == 200
    assert set(found["continuation"]) <= set(TEXT)
    again = answers(predict(text, "--text", "the cow", "--seed", "0", "--temperature", "0.8", "--json"))
    assert again == found
    other = answers(predict(text, "--text", "the cow", "--seed", "1", "--json"))
    assert other["continuation"] != found["continuation"]
    (text.parent / "cow.txt").write_text("the cow\n")
    words = ("--length", "30", "--temperature", "0")
    best = predict(text, "--text", "the cow", *words).stdout
    assert best.startswith("the cow sat on the ")
    assert predict(text, text.parent / "cow.txt", *words).stdout == best
    assert predict(text, "-", *words, given=b"the cow").stdout == best
    assert answers(predict(text, "--text", "", "--length", "1", "--json"))["text"] == ""


def test_what_is_no_text_gets_one_line(text: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\0")
    assert "is no text in UTF-8" in error_line(predict(text, tmp_path / "x.txt", code=2))
    assert "there is no file" in error_line(predict(text, tmp_path / "absent.txt", code=2))
    assert "no file was given" in error_line(predict(text, code=2))
    assert "one text to continue" in error_line(predict(text, tmp_path / "x.txt", "--text", "a", code=2))
    assert "--length is for a network" in error_line(predict(place / "plain", "--length", "3", "x.ts", code=2))
    assert "more than 1 MiB" in error_line(predict(text, "-", code=2, given=b"a" * (2**20 + 1)))


def test_unknown_characters_and_windows_that_are_not_full(text: Path) -> None:
    description, network = read_best(text / "best")
    reading = description.reading
    assert isinstance(reading, TextReading)
    assert reading.before
    for before in (reading, TextReading(reading.alphabet)):
        for given in ("", "ÄÖÜ", "t", "the cat " * 10):
            made = continuation(network, before, 16, given, 20, temperature=2.0)
            assert len(made) == 20
            assert "\ufffd" not in made


# What a stranger's folder may say


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ([], "reading is"),
        ({"music": {}}, "reading is"),
        ({"series": {}, "sound": {}}, "reading is"),
        ({"series": {"factor": 1}}, "needs 'scaling'"),
        ({"series": 3}, "reading of series"),
        ({"text": {"characters": "ab", "unknown": 0, "before": ""}}, "does not fit"),
        ({"sound": {"view": "wave"}}, "format of sound"),
        ({"sound": {"view": "wave", "rate": 10, "seconds": 4, "channels": 1, "mels": 40, "low": -1, "high": 0}},
         "does not fit"),
    ],
)  # fmt: skip
def test_a_strange_reading_is_refused(place: Path, tmp_path: Path, reading: object, message: str) -> None:
    best = place / "plain/best"
    content = json.loads((best / "architecture.json").read_text())
    changed = {"scaling": "none"}, {"factor": 0}, {"factor": 1.5}, {"values": 3}, {"values": "a" * 2_000}
    usual = content["reading"]["series"]
    tried = [(reading, message), *(({"series": {**usual, **change}}, "") for change in changed)]
    (tmp_path / "weights.safetensors").write_bytes((best / "weights.safetensors").read_bytes())
    for wrong, reason in tried:
        (tmp_path / "architecture.json").write_text(json.dumps({**content, "reading": wrong}))
        with pytest.raises(NasError, match="does not hold a trained network") as caught:
            read_best(tmp_path)
        assert reason in str(caught.value)
