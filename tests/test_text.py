"""A text: windows and the next characters, the alphabet, and what is no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.data import is_path, open_named
from nas.data.dataset import Split
from nas.data.sequences import text as module
from nas.data.sequences.text import Alphabet, Text, name_of
from nas.errors import DataError, NasError, OptionError

WORDS = "the cat sat on the mat, and the dog sat on the log.\n"


def written(tmp_path: Path, content: str | bytes = WORDS * 60) -> Path:
    path = tmp_path / "a text.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def opened(path: Path, **options: Any) -> Text:
    source = open_named(f"text:{path}", options=options)
    assert isinstance(source, Text)
    return source


def read_back(alphabet: Alphabet, split: Split) -> list[tuple[str, str]]:
    return [
        (alphabet.decode(window), alphabet.decode([label]))
        for window, label in zip(split.inputs.numpy(), split.labels.tolist(), strict=True)
    ]


def test_windows_are_followed_by_their_classes_and_cross_no_border(tmp_path: Path) -> None:
    text = WORDS * 60
    source = opened(written(tmp_path), window=10, stride=1)
    data, test = source.load(), source.load_test()
    source.check_test(data)
    assert (data.name, data.kind, data.input_shape) == ("a text", "tokens", (10,))
    assert data.train.inputs.dtype == torch.uint8
    first, second = len(text) * 80 // 100, len(text) * 90 // 100
    for split, part in ((data.train, text[:first]), (data.validation, text[first:second]), (test, text[second:])):
        expected = [(part[start : start + 10], part[start + 10]) for start in range(len(part) - 10)]
        assert read_back(source.alphabet, split) == expected
    assert data.classes[:4] == ("newline", "space", ",", ".")
    assert data.classes == source.alphabet.classes
    assert source.note == (
        f"{len(text):,} characters, of {len(data.classes)} classes; a window has 10, "
        "and training windows begin at every character"
    )
    assert (source.recipe, source.augmentations, source.chosen) == (
        {"base": "default", "shift": 0}, (), {"stride": "1"},
    )  # fmt: skip


def test_the_fingerprint_follows_from_the_text_and_the_options(tmp_path: Path) -> None:
    path = written(tmp_path)
    prints = [opened(path, **options).load().fingerprint for options in ({}, {}, {"window": 32}, {"stride": 3})]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert prints[0] == "0397912a0a86a2b6"  # on any machine


def test_lines_and_the_mark_of_byte_order_are_alike_on_all_systems(tmp_path: Path) -> None:
    here = opened(written(tmp_path)).load().fingerprint
    windows = "\ufeff" + (WORDS * 60).replace("\n", "\r\n")
    assert opened(written(tmp_path, windows)).load().fingerprint == here


def test_rare_characters_are_one_class(tmp_path: Path) -> None:
    text = (WORDS * 4 + "q" + WORDS * 4 + "zz") * 4 + WORDS * 8 + "§"
    source = opened(written(tmp_path, text), stride=1)
    data = source.load()
    assert data.classes[-1] == "other"
    assert "q" not in data.classes
    assert "z" in data.classes
    assert '"other" are those that are in the training part fewer than 5 times' in source.note
    assert set(data.train.labels.tolist()) == set(range(len(data.classes)))
    assert source.alphabet.decode(source.load_test().inputs[-1].numpy())[-1] == "\n"
    assert source.load_test().labels[-1] == len(data.classes) - 1  # §


def test_without_such_a_class_an_unknown_character_is_the_most_frequent_one(tmp_path: Path) -> None:
    source = opened(written(tmp_path, WORDS * 60 + "§"), stride=1)
    data = source.load()
    assert "other" not in data.classes
    assert source.alphabet.characters[source.load_test().labels[-1]] == " "
    assert set(data.train.labels.tolist()) == set(range(len(data.classes)))


def test_a_long_text_has_a_larger_stride(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WINDOWS", 100)
    monkeypatch.setattr(module, "HELD_OUT", 100)
    text = WORDS * 60
    source = opened(written(tmp_path))
    data = source.load()
    stride = int(source.chosen["stride"])
    assert stride == 25
    assert len(data.train) <= 100
    assert f"begin every {stride} characters" in source.note
    starts = range(0, len(text) * 80 // 100 - 64, stride)
    assert read_back(source.alphabet, data.train) == [(text[s : s + 64], text[s + 64]) for s in starts]
    assert (len(data.validation), len(source.load_test())) == (100, 100)
    assert len(opened(tmp_path / "a text.txt", stride=30).load().train) == len(
        range(0, len(text) * 80 // 100 - 64, 30)
    )
    with pytest.raises(
        OptionError, match=r"stride = 2 makes 1,216 training windows, more than 100: .* 25 or more"
    ):
        opened(tmp_path / "a text.txt", stride=2).load()


def test_many_characters_need_more_bytes(tmp_path: Path) -> None:
    points = np.random.default_rng(0).integers(0x4E00, 0x4E00 + 400, 20_000)
    source = opened(written(tmp_path, "".join(map(chr, points))), window=8)
    data = source.load()
    assert data.train.inputs.dtype == torch.int32
    assert len(data.classes) == 400
    source.check_test(data)
    assert read_back(source.alphabet, data.train)[0] == ("".join(map(chr, points[:8])), chr(points[8]))


def test_names_of_characters() -> None:
    names = {
        " ": "space",
        "\n": "newline",
        "\t": "tab",
        "\x07": "U+0007",
        "\u200b": "U+200B",
        "ä": "ä",
        "😀": "😀",
    }
    assert {character: name_of(character) for character in names} == names


def test_an_alphabet_is_plain_values() -> None:
    alphabet = Alphabet("\n abä😀", 6)
    assert Alphabet.from_json(alphabet.to_json()) == alphabet
    assert alphabet.encode("a ä?\r\n").tolist() == [2, 1, 4, 6, 0]
    assert alphabet.encode("\udcff").tolist() == [6]
    assert alphabet.encode("").tolist() == []
    assert alphabet.decode(alphabet.encode("ba 😀é")) == "ba 😀\ufffd"
    assert Alphabet("ab", 1).encode("abz").tolist() == [0, 1, 1]
    for tokens in ([7], [-1], [0.5]):
        with pytest.raises(DataError, match="is no number of a character: they are from 0 to 6"):
            alphabet.decode(tokens)  # type: ignore[arg-type]
    good = json.loads(alphabet.to_json())
    for change in (
        {"characters": ""}, {"characters": "ba"}, {"characters": "aa"}, {"characters": "\ud800"},
        {"characters": 3}, {"unknown": 7}, {"unknown": -1}, {"unknown": 1.0}, {"unknown": None},
    ):  # fmt: skip
        with pytest.raises(DataError):
            Alphabet.from_json(json.dumps({**good, **change}))
    for text in ("", "[]", "{}"):
        with pytest.raises(DataError, match="this is no alphabet"):
            Alphabet.from_json(text)


NO_TEXTS: dict[str, str | bytes] = {
    "has 0 characters, and needs 1,000: take a longer text": "",
    "has 999 characters": "ab" * 499 + "c",
    "is a text in UTF-16": ("ab" * 1_000).encode("utf-16"),
    "is no text: byte 3 is 0": b"abc\0" * 500,
    r"line 3 has the byte 0xe4 .* convert it": b"\n\n" + "ä".encode("latin-1") * 2_000,
    "has only the character a: take another": "a" * 3_000,
    "has only the character newline": "\n" * 3_000 + "abc" * 20,
}


@pytest.mark.parametrize("reason", NO_TEXTS)
def test_what_is_no_text(tmp_path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        opened(written(tmp_path, NO_TEXTS[reason])).load()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_paths_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    assert is_path(f"text:{path}")
    assert is_path("text:story.txt")
    source = opened(path)
    assert source.address == f"text:{path}"
    assert source.locate() == path
    assert source.verify() == ["train: ok (152 tokens)", "validation: ok (248 tokens)", "test: ok"]
    for wrong, reason in ((tmp_path / "none.txt", "is not there"), (tmp_path, "is a folder or a device")):
        with pytest.raises(DataError, match=f"{reason}: name a text file, with --dataset text:FILE"):
            opened(wrong).load()
    for options in ({"window": 1}, {"window": 5_000}, {"stride": -1}):
        with pytest.raises(OptionError, match="it should be"):
            opened(path, **options)
    with pytest.raises(
        OptionError, match=r"window = 400 is too long .* has 312 characters: it should be at most 311"
    ):
        opened(path, window=400).load()
    with pytest.raises(DataError, match="0 are in its training part 5 times or more"):
        opened(written(tmp_path, "".join(map(chr, range(0x4E00, 0x4E00 + 1_200))))).load()
    monkeypatch.setattr(module, "MOST_BYTES", 1_000)
    with pytest.raises(DataError, match="more than 0: take a part of it"):
        opened(path).load()


def test_no_bytes_cause_another_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(200):
        content = bytearray(WORDS.encode() * int(random.integers(15, 40)))
        for _ in range(int(random.integers(0, 4))):
            content[int(random.integers(0, len(content)))] = int(random.integers(0, 256))
        if number % 4 == 0:
            content = bytearray(random.bytes(2_000))
        source = opened(written(tmp_path, bytes(content)))
        try:
            source.check_test(source.load())
        except NasError:
            continue
