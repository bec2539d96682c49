"""Recordings: WAV files of every form, and of none; spectrograms and series; groups, splits and broken files."""

from __future__ import annotations

import json
import struct
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from nas.data import open_named
from nas.data.dataset import Array
from nas.data.photographs import Photographs
from nas.data.sequences import sound, wav
from nas.data.sequences.recordings import Recordings, range_of
from nas.data.sequences.sound import SoundFormat, log_mel, loudest, mel_filters
from nas.data.sequences.wav import WavError, header_of, read_wav, resampled
from nas.errors import DataError, NasError, OptionError

RANDOM = np.random.default_rng(0)
RATE = 8_000


@pytest.fixture(autouse=True)
def cache_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's cache."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> Array:
    values: Array = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return values


def as_int16(values: Array) -> Array:
    rounded: Array = np.rint(values * 32767).astype(np.int16)
    return rounded


def spoken(folder: Path, *, count: int = 12, classes: int = 2, rate: int = RATE, **options: Any) -> Path:
    """A folder of tones with noise, of a frequency for each class, and of four speakers."""
    for label in range(classes):
        place = folder / f"tone{label}"
        place.mkdir(parents=True)
        for number in range(count):
            values = tone(300 + 500 * label, rate=rate, **options)
            noisy = values + RANDOM.normal(0, 0.01, len(values))
            wavfile.write(place / f"{number:02}-speaker{number % 4}.wav", rate, as_int16(noisy))
    return folder


def opened(path: Path, **options: Any) -> Recordings:
    source = open_named(str(path), options=options)
    assert isinstance(source, Recordings)
    return source


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def form(kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, block: int | None = None) -> bytes:
    block = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits)


# WAV files


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["u1", "<i2", "<i4", "<f4", "<f8"])
def test_values_are_those_of_scipy(tmp_path: Path, kind: str, channels: int) -> None:
    values = RANDOM.uniform(-1, 1, (999, channels))
    if kind == "u1":
        values = np.rint(values * 127 + 128)
    elif "i" in kind:
        values = np.rint(values * (2.0 ** (8 * int(kind[-1]) - 1) - 1))
    path = tmp_path / "a.wav"
    wavfile.write(path, 11_025, values.astype(kind))
    rate, theirs = wavfile.read(path)
    theirs = theirs.reshape(-1, channels).astype(np.float64)
    scale = {"u1": 2.0**7, "<i2": 2.0**15, "<i4": 2.0**31}.get(kind, 1.0)
    ours, own_rate = read_wav(path)
    assert ours.dtype == np.float32
    assert own_rate == rate == 11_025
    np.testing.assert_allclose(ours.T, (theirs - 128 * (kind == "u1")) / scale, rtol=1e-6, atol=1e-7)


def test_24_bits_and_the_extensible_form(tmp_path: Path) -> None:
    values = RANDOM.integers(-(2**23), 2**23, (500, 2))
    content = (values.astype("<i4") << 8).view(np.uint8).reshape(500, 2, 4)[:, :, 1:].tobytes()
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(3)
        file.setframerate(44_100)
        file.writeframes(content)
    wide = form(0xFFFE, 2, 44_100, 24) + struct.pack("<HHIH", 22, 24, 3, 1) + wav.GUID
    (tmp_path / "b.wav").write_bytes(riff((b"LIST", b"odd"), (b"fmt ", wide), (b"data", content)))
    theirs = wavfile.read(tmp_path / "a.wav")[1]
    for name in ("a.wav", "b.wav"):
        ours, rate = read_wav(tmp_path / name)
        assert rate == 44_100
        np.testing.assert_allclose(ours, theirs.T / 2**31, atol=1e-7)
    assert header_of(tmp_path / "b.wav").words == "WAV 24 bit stereo 44100 Hz"


def test_sizes_of_a_program_that_writes_to_a_pipe(tmp_path: Path) -> None:
    samples = as_int16(tone(440))
    content = bytearray(riff((b"fmt ", form()), (b"data", samples.tobytes())))
    for size in (0, 0xFFFFFFFF):
        content[40:44] = struct.pack("<I", size)
        (tmp_path / "a.wav").write_bytes(content)
        assert read_wav(tmp_path / "a.wav")[0].shape == (1, len(samples))


SAMPLES = (b"data", bytes(100))
HUGE = form(block=0, rate=4_000_000_000)
CUT = riff((b"fmt ", form()), (b"data", bytes(200)))[:-100]
BROKEN = {
    "is empty": b"",
    "is no WAV file": b"<html>Not Found</html>",
    "of the rare form RF64": b"RF64" + bytes(40),
    "has no description": riff((b"junk", bytes(10))),
    "has no samples: it is cut off": riff((b"fmt ", form())),
    "has no samples: record": riff((b"fmt ", form()), (b"data", b"")),
    "samples before the description": riff(SAMPLES, (b"fmt ", form())),
    "damaged description": riff((b"fmt ", b"short"), SAMPLES),
    r"is compressed \(µ-law\): convert": riff((b"fmt ", form(7, bits=8)), SAMPLES),
    r"is compressed \(MP3\): convert": riff((b"fmt ", form(0x55)), SAMPLES),
    "the unknown format 999": riff((b"fmt ", form(999)), SAMPLES),
    "a format that is not known": riff((b"fmt ", form(0xFFFE) + bytes(24)), SAMPLES),
    "has 6 channels": riff((b"fmt ", form(channels=6)), SAMPLES),
    "has 0 channels": riff((b"fmt ", form(channels=0)), SAMPLES),
    "has 0 samples a second": riff((b"fmt ", form(rate=0)), SAMPLES),
    "has 4,000,000,000 samples a second": riff((b"fmt ", HUGE), SAMPLES),
    "samples of 12 bits": riff((b"fmt ", form(bits=12)), SAMPLES),
    "has 9 bytes for 1 samples of 16 bits": riff((b"fmt ", form(block=9)), SAMPLES),
    "is cut off: it states 200 bytes of samples, and has 100": CUT,
    "has the value nan": riff((b"fmt ", form(3, bits=32)), (b"data", np.array([0, np.nan], "<f4").tobytes())),
    r"has the value 1e\+300": riff((b"fmt ", form(3, bits=64)), (b"data", np.array([0, 1e300], "<f8").tobytes())),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_the_reason_why_a_file_cannot_be_read(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(BROKEN[reason])
    with pytest.raises(WavError, match=f"^{path} .*{reason}") as caught:
        read_wav(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path} {caught.value.reason}: ")


def test_files_that_are_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WavError, match="cannot be read") as caught:
        read_wav(tmp_path / "none.wav")
    assert caught.value.may_pass
    wavfile.write(tmp_path / "a.wav", RATE, np.zeros(2**20, np.int16))
    monkeypatch.setattr(wav, "MOST_BYTES", 2**20)
    with pytest.raises(WavError, match="has 2 MiB, more than 1: cut it"):
        read_wav(tmp_path / "a.wav")


def fuzzed(path: Path, count: int, seed: int) -> int:
    """How many of ``count`` damaged files can be read; any error but a `NasError` is raised."""
    random, readable = np.random.default_rng(seed), 0
    forms = [SoundFormat("wave", RATE, 0.1, 2), SoundFormat("spectrogram", RATE, 0.1, 1)]
    whole = [
        riff((b"fmt ", form(kind, channels, rate, bits)), (b"data", random.bytes(600)))
        for kind, bits in ((1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64))
        for channels in (1, 2)
        for rate in (RATE, 44_100)
    ]
    for number in range(count):
        content = bytearray(whole[number % len(whole)])
        for _ in range(int(random.integers(1, 6))):
            at = int(random.integers(0, min(len(content), 60 if random.random() < 0.8 else 700)))
            content[at] = int(random.integers(0, 256)) if random.random() < 0.7 else (0, 1, 127, 255)[at % 4]
        if random.random() < 0.2:
            del content[int(random.integers(0, len(content))) :]
        path.write_bytes(content)
        try:
            made = forms[number % 2].input_of(path)
        except NasError:
            continue
        readable += 1
        assert made.shape == forms[number % 2].shape
    return readable


def test_no_damage_causes_another_error(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < fuzzed(tmp_path / "a.wav", 400, 0) < 400


# Rates


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8_000, 16_000), (44_101, 16_003)])
def test_resampling_keeps_the_frequency_and_the_duration(rate: int, wanted: int) -> None:
    made = resampled(tone(1_000, 1.0, rate)[None].astype(np.float32), rate, wanted)
    assert made.dtype == np.float32
    assert made.shape == (1, wanted)
    power = np.abs(np.fft.rfft(made[0]))
    assert power.argmax() == 1_000
    assert np.abs(made).max() == pytest.approx(0.5, abs=0.02)


def test_what_is_above_half_the_rate_is_removed() -> None:
    made = resampled(tone(6_000, 1.0, 16_000)[None].astype(np.float32), 16_000, RATE)
    assert np.abs(made[:, 100:-100]).max() < 0.01


# What a recording becomes


@pytest.mark.parametrize("rate", [2_000, 8_000, 16_000, 44_100])
@pytest.mark.parametrize("mels", [8, 40, 128])
def test_a_tone_is_brightest_in_the_band_that_has_its_frequency(rate: int, mels: int) -> None:
    filters = mel_filters(rate, mels)
    assert filters.shape[0] == mels
    assert (filters.max(1) > 0.2).all()  # no band is empty
    corners = np.linspace(0, 2595 * np.log10(1 + rate / 1400), mels + 2)
    for band in (mels // 3, mels // 2, mels - 2):
        frequency = 700 * (10 ** (corners[band + 1] / 2595) - 1)
        found = log_mel(tone(frequency, 0.5, rate), rate, mels)
        assert found.dtype == np.float32
        assert abs(int(found.mean(1).argmax()) - band) <= (0 if mels <= 40 and rate > 2_000 else 1)


def test_an_image_has_its_lowest_band_at_the_bottom_and_silence_is_black(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", RATE, as_int16(tone(200, 0.5)))
    made = SoundFormat("spectrogram", RATE, 1.0, 1, 40, -4.0, 3.0).input_of(tmp_path / "a.wav")
    assert made.shape == (1, 40, 98)
    assert made.dtype == np.uint8
    assert made[0, :, :40].mean(1).argmax() > 33
    assert made[0, :, 55:].max() == 0


def test_a_series_ends_with_nan_and_channels_are_mixed_or_doubled(tmp_path: Path) -> None:
    both = np.stack([tone(300), tone(500)], 1).astype(np.float32)
    wavfile.write(tmp_path / "two.wav", RATE, both)
    wavfile.write(tmp_path / "one.wav", RATE, both[:, 0])
    two = SoundFormat("wave", RATE, 1.0, 2).input_of(tmp_path / "two.wav")
    assert two.shape == (2, RATE)
    assert np.isnan(two[:, 4_000:]).all()
    np.testing.assert_array_equal(two[:, :4_000], both.T)
    one = SoundFormat("wave", RATE, 0.5, 1).input_of(tmp_path / "two.wav")
    np.testing.assert_allclose(one[0], both.mean(1), atol=1e-7)
    part = SoundFormat("wave", RATE, 0.1, 2).excerpt(both.T, RATE)
    assert part.shape == (2, 800)
    assert part.flags.c_contiguous
    doubled = SoundFormat("wave", RATE, 0.5, 2).input_of(tmp_path / "one.wav")
    np.testing.assert_array_equal(doubled, np.stack([both[:, 0]] * 2))


def test_of_a_long_recording_the_loudest_part_is_used(tmp_path: Path) -> None:
    values = np.full(10_000, 0.3)  # an offset is no sound
    values[6_000:7_000] += tone(440, 1_000 / RATE)
    assert 5_990 <= loudest(values[None], 1_000) <= 6_010
    wavfile.write(tmp_path / "a.wav", RATE, values.astype(np.float32))
    made = SoundFormat("wave", RATE, 0.125, 1).input_of(tmp_path / "a.wav")
    assert made.shape == (1, 1_000)
    assert made.std() > 0.3


def test_a_format_is_plain_values() -> None:
    made = SoundFormat("spectrogram", 16_000, 1.5, 1, 64, -3.25, 2.5)
    assert SoundFormat.from_json(made.to_json()) == made
    good = json.loads(made.to_json())
    for change in (
        {"view": "smell"}, {"view": 3}, {"rate": 0}, {"rate": 10**9}, {"rate": 1.5}, {"seconds": 1e9},
        {"mels": 10**6}, {"channels": 2}, {"low": 5}, {"high": None}, {"seconds": -1}, {"low": 2.5},
        {"view": "wave", "seconds": 30.0},
    ):  # fmt: skip
        with pytest.raises(DataError):
            SoundFormat.from_json(json.dumps({**good, **change}))
    for text in ("", "[]", "{}", '{"rate": NaN}'):
        with pytest.raises(DataError, match="this is no format of sound"):
            SoundFormat.from_json(text)


def test_the_range_has_nearly_all_values_and_at_most_80_decibels() -> None:
    values = np.full((4, 2, 50), -10.0, np.float32)
    assert range_of(values, np.arange(4)) == (-10.0, 0.0)
    values[0] = np.linspace(-2, 1, 100).reshape(2, 50)
    values[3] = 9  # is not in the training part
    low, high = range_of(values, np.arange(3))
    assert low == pytest.approx(-2, abs=0.05)
    assert high == pytest.approx(1, abs=0.02)
    values[1] = -9
    low, same = range_of(values, np.arange(3))
    assert same == high
    assert low == pytest.approx(high - 8)


# Data sets


def test_a_folder_of_recordings_becomes_spectrograms(tmp_path: Path) -> None:
    source = opened(spoken(tmp_path / "tones"))
    data = source.load()
    test = source.load_test()
    source.check_test(data)
    assert (data.name, data.kind, data.input_shape) == ("tones", "images", (1, 40, 48))
    assert data.classes == ("tone0", "tone1")
    assert len(data.train) + len(data.validation) + len(test) == 24
    assert data.train.inputs.max() == 255
    assert "log-mel spectrograms of 40 bands and 48 frames (0.5 s at 8,000 Hz)" in source.note
    assert source.chosen == {"view": "spectrogram", "rate": "8000", "seconds": "0.5", "channels": "mono"}
    assert (source.framing, source.recipe, source.augmentations) == (
        "stretch", {"base": "default", "shift": 2, "erasing": 0.2}, (),
    )  # fmt: skip
    again = opened(tmp_path / "tones", **source.chosen)
    assert again.load().fingerprint == data.fingerprint
    # One file is prepared as all of them were.
    known = {image.tobytes() for split in (data.train, data.validation, test) for image in split.inputs.numpy()}
    for path in (tmp_path / "tones").glob("*/*.wav"):
        assert SoundFormat.from_json(source.format().to_json()).input_of(path).tobytes() in known


def test_they_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = opened(spoken(tmp_path / "tones")), list[tuple[int, int]]()
    source.progress = lambda done, total: said.append((done, total))
    first = source.load()
    assert said[-1] == (24, 24)
    monkeypatch.setattr("nas.data.sequences.recordings.read_wav", None)
    assert opened(tmp_path / "tones").load().fingerprint == first.fingerprint
    assert first.folder is not None
    assert not (first.folder / "all.npy").exists()


def test_as_series_they_may_be_of_different_lengths(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "tones")
    wavfile.write(folder / "tone0/short.wav", RATE, as_int16(tone(300, 0.2)))
    source = opened(folder, view="wave")
    data = source.load()
    assert (data.kind, data.input_shape, data.is_padded) == ("series", (1, 4_000), True)
    assert source.chosen["channels"] == "mono"
    assert source.recipe == {"base": "default", "shift": 0}
    source.check_test(data)


def test_a_series_has_at_most_16_384_samples(tmp_path: Path) -> None:
    source = opened(spoken(tmp_path / "tones", rate=44_100, count=6, seconds=3.0), view="wave")
    assert source.load().input_shape[1] <= 16_384
    assert "lowered from 16,000 for at most 16,384 samples" in source.note
    assert source.format().rate == 16_384 // 3


def test_stereo(tmp_path: Path) -> None:
    for label in ("left", "right"):
        (tmp_path / "sides" / label).mkdir(parents=True)
        for number in range(8):
            values = np.stack([tone(300 + number), RANDOM.normal(0, 0.1, 4_000)], 1)
            values = values[:, ::-1] if label == "right" else values
            wavfile.write(tmp_path / "sides" / label / f"{number}.wav", RATE, as_int16(values))
    assert opened(tmp_path / "sides", view="wave").load().input_shape[0] == 2
    assert opened(tmp_path / "sides", view="wave", channels="mono").load().input_shape[0] == 1
    assert opened(tmp_path / "sides").load().input_shape[0] == 1
    with pytest.raises(OptionError, match="a spectrogram has one channel"):
        opened(tmp_path / "sides", channels="stereo").load()


def test_slow_signals_become_series(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "tones", rate=1_000)
    assert opened(folder).load().kind == "series"
    with pytest.raises(OptionError, match="needs a rate of 2,000 Hz or more, and it is 1,000"):
        opened(folder, view="spectrogram").load()


def test_speakers_stay_in_one_split(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "tones", count=16)
    source = opened(folder, group=r"speaker\d")
    data, parts = source.load(), dict[bytes, str]()
    for part, split in (("train", data.train), ("validation", data.validation), ("test", source.load_test())):
        parts |= {image.tobytes(): part for image in split.inputs.numpy()}
    for speaker in range(4):
        paths = folder.glob(f"*/*speaker{speaker}.wav")
        assert len({parts[source.format().input_of(path).tobytes()] for path in paths}) == 1
    assert "it has 4 groups, each in one split" in source.note


def test_splits_of_the_folder_and_equal_recordings(tmp_path: Path) -> None:
    for part in ("train", "test"):
        spoken(tmp_path / "tones" / part, count=12)
    same = (tmp_path / "tones/test/tone0/00-speaker0.wav").read_bytes()
    (tmp_path / "tones/train/tone0/same.wav").write_bytes(same)
    source = opened(tmp_path / "tones")
    assert len(source.load_test()) == 24
    source.load()
    assert source.left_out == [
        ("train/tone0/same.wav", "has the same sound as test/tone0/00-speaker0.wav, which is in another split")
    ]
    assert "it has no validation recordings" in source.note


def test_broken_recordings_are_left_out_or_refused(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "tones", count=30)
    (folder / "tone0/broken.wav").write_bytes(b"RIFF")
    (folder / "tone0/notes.txt").write_text("recorded in May")
    source = opened(folder)
    source.load()
    assert dict(source.left_out) == {
        "tone0/broken.wav": "is no WAV file", "tone0/notes.txt": "is no WAV file",
    }  # fmt: skip
    for number in range(5):
        (folder / f"tone1/broken{number}.wav").write_bytes(BROKEN[r"is compressed \(MP3\): convert"])
    with pytest.raises(DataError, match=r"6 of 66 recording files cannot be used .*allow_broken=true"):
        opened(folder).load()
    opened(folder, allow_broken=True).load()
    (folder / "tone2").mkdir()
    (folder / "tone2/a.wav").write_bytes(b"")
    for number in range(5):
        (folder / f"tone1/broken{number}.wav").unlink()
    with pytest.raises(DataError, match=r"the class tone2 has lost all its recordings \(tone2/a.wav is empty\)"):
        opened(folder).load()


def test_a_table_of_recordings(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "tones")
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name},{p.stem[-1]}" for p in sorted(folder.glob("*/*.wav"))]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,group", *rows]))
    source = opened(tmp_path / "all.csv")
    assert source.load().classes == ("tone0", "tone1")
    assert "it has 4 groups, each in one split" in source.note
    with pytest.raises(OptionError, match="has no option depth"):
        opened(tmp_path / "all.csv", depth=1).load()


def test_what_is_no_folder_of_recordings(tmp_path: Path) -> None:
    from PIL import Image

    folder = spoken(tmp_path / "mixed")
    Image.new("L", (8, 8)).save(folder / "tone0/a.png")
    assert isinstance(open_named(str(folder)), Photographs)
    (tmp_path / "empty").mkdir()
    assert isinstance(open_named(str(tmp_path / "empty")), Photographs)
    assert isinstance(open_named(str(tmp_path / "nothing")), Photographs)
    for path, reason in (
        (tmp_path / "nothing", "there is no file or folder"), (folder / "tone0/a.png", "is no folder"),
        (tmp_path / "empty", "has no folders of classes with recordings"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=reason):
            Recordings([tmp_path], path).load()
    (tmp_path / "bad/a").mkdir(parents=True)
    (tmp_path / "bad/b").mkdir()
    for label in "ab":
        (tmp_path / "bad" / label / "1.wav").write_bytes(b"no")
    with pytest.raises(DataError, match="has no recordings that can be read: the first one is no WAV file"):
        opened(tmp_path / "bad").load()


def test_options_out_of_range(tmp_path: Path) -> None:
    for name, value in (("rate", 5), ("rate", 10**6), ("seconds", 0.001), ("seconds", -1.0), ("mels", 1)):
        with pytest.raises(OptionError, match="it should be from"):
            Recordings([tmp_path], tmp_path, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="has no option labels"):
        Recordings([tmp_path], spoken(tmp_path / "tones"), labels="x").load()


def test_the_limits_agree() -> None:
    assert SoundFormat("spectrogram", sound.SPECTRAL, sound.SECONDS[0], 1).shape == (1, 40, 3)
