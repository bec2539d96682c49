"""Seconds from the start of a command until its best candidate reaches an accuracy, beside what people would use.

    python experiments/benchmarks/time_to_quality.py --seeds 0 1 2 --out quality.jsonl
    python experiments/benchmarks/time_to_quality.py --sides ours optuna-cnn --limit 300
    python experiments/benchmarks/time_to_quality.py --images 2000 --limit 25 --thresholds 80 90     to try it

Each side is a process of its own, imports included, with the same 54,000 training and 6,000 validation images of
MNIST (in NAS_DATA_DIR). It is ended when it has reached the last threshold, or the limit is over. What is in the
file of --out is not measured again; the table is of all that is in it. Optuna comes with nas; Keras and KerasTuner
are in the dependency group `benchmarks`.

- ours: `nas search --strategy evolve --dataset mnist --mlflow off`; an accuracy counts when its trial is finished.
- optuna-example: Optuna's TPE and median pruner in the space of its own Keras example, which is one convolution.
- optuna-cnn: the same in a space of one to three convolutions. Both: PyTorch with a DataLoader, up to ten epochs.
- kerastuner: KerasTuner's Hyperband on Keras with torch, one to three convolutions, up to ten epochs.

Of these three, each epoch of each candidate counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data import open_named
from nas.data.dataset import Dataset, Split
from nas.records.journal import FILE
from nas.records.record import entry_of

if TYPE_CHECKING:
    import optuna
    from torch import nn

NAS = str(Path(sys.executable).with_name("nas"))
THRESHOLDS = (99.0, 99.3, 99.5)  # percent
LOOK_SECONDS = 0.1
ENDING_SECONDS = 60.0  # a search that was interrupted has so long to end by itself
EPOCHS, BATCH = 10, 128  # of the foreign sides: what Optuna's example has
VALIDATION_BATCH = 1_000
WHOLE = 54_000
ROUNDING = 1e-4  # points: Keras gives 99.3 % as 99.29999…; one of 6,000 images is 0.017 points

# For trying this script: the plugin of ours that holds fewer images.
PART = '''
"""MNIST with fewer training images."""
import os
from nas.data.dataset import Dataset, Split
from nas.data.mnist import Mnist

class Part(Mnist):
    """The first of the training images, and of the validation images."""

    name = "part"

    def load(self):
        whole, count = super().load(), int(os.environ["IMAGES"])
        train = Split(whole.train.images[:count], whole.train.labels[:count])
        validation = Split(whole.validation.images[:500], whole.validation.labels[:500])
        return Dataset.of(self.name, train, validation, whole.classes)
'''


def dataset(images: int) -> Dataset:
    """What `nas search --dataset mnist` trains with, or the beginning of it."""
    whole = open_named("mnist").load()
    if images >= len(whole.train):
        return whole
    parts = ((whole.train, images), (whole.validation, 500))
    train, validation = (Split(split.images[:count], split.labels[:count]) for split, count in parts)
    return Dataset.of("mnist", train, validation, whole.classes)


# The foreign sides. Each tells its accuracies as it finds them, and ends when it is ended.

Note = Callable[[float], None]


def optuna_example(seed: int, images: int, note: Note) -> None:
    """Two widths, two kernels, two strides, linear or not: the space of Optuna's keras_simple.py."""
    import torch
    from torch import nn

    def propose(trial: optuna.Trial) -> tuple[nn.Module, torch.optim.Optimizer]:
        filters = trial.suggest_categorical("filters", [32, 64])
        kernel = trial.suggest_categorical("kernel", [3, 5])
        stride = trial.suggest_categorical("stride", [1, 2])
        rectified = trial.suggest_categorical("activation", ["relu", "linear"]) == "relu"
        size = (28 - kernel) // stride + 1
        network = nn.Sequential(
            nn.Conv2d(1, filters, kernel, stride),
            nn.ReLU() if rectified else nn.Identity(),
            nn.Flatten(),
            nn.Linear(filters * size * size, 10),
        )
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        return network, torch.optim.RMSprop(network.parameters(), lr=rate)

    study(propose, seed, images, note)


def optuna_cnn(seed: int, images: int, note: Note) -> None:
    """One to three convolutions with pooling, a hidden layer, Adam."""
    import torch
    from torch import nn

    def propose(trial: optuna.Trial) -> tuple[nn.Module, torch.optim.Optimizer]:
        layers: list[nn.Module] = []
        channels, size = 1, 28
        for number in range(trial.suggest_int("convolutions", 1, 3)):
            filters = trial.suggest_categorical(f"filters{number}", [16, 32, 64])
            kernel = trial.suggest_categorical(f"kernel{number}", [3, 5])
            layers += [nn.Conv2d(channels, filters, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
            channels, size = filters, size // 2
        units = trial.suggest_categorical("units", [32, 64, 128])
        layers += [nn.Flatten(), nn.Linear(channels * size * size, units), nn.ReLU(), nn.Linear(units, 10)]
        network = nn.Sequential(*layers)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        return network, torch.optim.Adam(network.parameters(), lr=rate)

    study(propose, seed, images, note)


def study(propose: Callable[[optuna.Trial], Any], seed: int, images: int, note: Note) -> None:
    """Optuna as its examples use it: one trial after the other, a report each epoch."""
    import optuna
    import torch
    from torch.nn import functional

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    training, validating = loaders(images)

    def objective(trial: optuna.Trial) -> float:
        network, optimiser = propose(trial)
        network.to(device)
        accuracy = 0.0
        for epoch in range(EPOCHS):
            network.train()
            for batch, labels in training:
                optimiser.zero_grad()
                functional.cross_entropy(network(batch.to(device)), labels.to(device)).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            network.eval()
            with torch.no_grad():
                right = [network(x.to(device)).argmax(1) == y.to(device) for x, y in validating]
            accuracy = torch.cat(right).double().mean().item()
            note(accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    sampler, pruner = optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner()
    optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner).optimize(objective)


def loaders(images: int) -> tuple[Any, Any]:
    """Training and validation images through a DataLoader, as torchvision gives them out."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    # The images are ours, the rest is torchvision's: an image at a time from array to PIL to tensor.
    data, parts = dataset(images), []
    source = open_named("mnist").locate()
    options: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if torch.cuda.is_available() else {}
    for split in (data.train, data.validation):
        one = datasets.MNIST(source, train=True, transform=transforms.ToTensor())
        one.data, one.targets = split.images[:, 0], split.labels
        parts.append(one)
    training = DataLoader(parts[0], batch_size=BATCH, shuffle=True, **options)
    return training, DataLoader(parts[1], batch_size=VALIDATION_BATCH, **options)


def kerastuner(seed: int, images: int, note: Note) -> None:
    """Hyperband, one to three convolutions with pooling, a hidden layer, dropout, Adam."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import keras_tuner
    from keras import layers

    data = dataset(images)
    (x, y), validation = (
        (split.images.permute(0, 2, 3, 1).numpy().astype("float32") / 255, split.labels.numpy())
        for split in (data.train, data.validation)
    )

    def build(choose: Any) -> Any:
        model = keras.Sequential([keras.Input((28, 28, 1))])
        for number in range(choose.Int("convolutions", 1, 3)):
            filters = choose.Choice(f"filters{number}", [16, 32, 64])
            kernel = choose.Choice(f"kernel{number}", [3, 5])
            model.add(layers.Conv2D(filters, kernel, padding="same", activation="relu"))
            model.add(layers.MaxPooling2D(2))
        model.add(layers.Flatten())
        model.add(layers.Dense(choose.Choice("units", [32, 64, 128]), activation="relu"))
        model.add(layers.Dropout(choose.Choice("dropout", [0.0, 0.25, 0.5])))
        model.add(layers.Dense(10, activation="softmax"))
        rate = choose.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    class Told(keras.callbacks.Callback):  # type: ignore[misc]  # without Keras there is no class to be one of
        """Tells the accuracy after each epoch."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            note(logs["val_accuracy"])

    keras.utils.set_random_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            build, objective="val_accuracy", max_epochs=EPOCHS, factor=3, seed=seed, directory=folder
        )
        tuner.search(x, y, validation_data=validation, batch_size=BATCH, callbacks=[Told()], verbose=0)


FOREIGN = {"optuna-example": optuna_example, "optuna-cnn": optuna_cnn, "kerastuner": kerastuner}
SIDES = ("ours", *FOREIGN)


# The measurement: one file is looked at, ten times a second, into which a side writes what it has found.


def measure(side: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One side, from its start until it is ended: when it reached what."""
    reached: dict[str, float] = {}
    best, count = 0.0, 0
    with tempfile.TemporaryDirectory() as place:
        command, file, accuracies = prepared(side, seed, given, Path(place))
        errors = Path(place, "errors")
        with errors.open("w") as err:
            start = time.perf_counter()
            environment = {**os.environ, "IMAGES": str(given.images), "MLFLOW_DISABLE_TELEMETRY": "true"}
            process = subprocess.Popen(command, cwd=place, env=environment, stdout=err, stderr=err)
            try:
                seconds, is_over = 0.0, False
                while not is_over and seconds < given.limit and len(reached) < len(given.thresholds):
                    time.sleep(LOOK_SECONDS)
                    is_over = process.poll() is not None  # asked first: then there is nothing after what is read
                    seconds = time.perf_counter() - start
                    for accuracy in accuracies(file):
                        count += 1
                        best = max(best, accuracy)
                        for threshold in given.thresholds:
                            if 100 * accuracy >= threshold - ROUNDING:
                                reached.setdefault(f"{threshold:g}", round(seconds, 1))
            finally:
                end(process)
        # A search whose time ran out before any network was trained fails too: that is a result.
        if is_over and process.returncode and seconds < given.limit / 2:
            raise SystemExit(f"{side} failed:\n{errors.read_text()[-2000:]}")
    row = {"side": side, "seed": seed, "limit": given.limit, "images": given.images, "reached": reached}
    return {**row, "best": best, "accuracies": count, "seconds": round(seconds, 1)}


def prepared(side: str, seed: int, given: argparse.Namespace, place: Path) -> tuple[list[str], Path, Any]:
    """The command of a side, the file that it writes, and what reads new accuracies from it."""
    if side == "ours":
        name = "mnist"
        if given.images < WHOLE:
            name = "part"
            Path(place, "plugins").mkdir()
            Path(place, "plugins", "part.py").write_text(PART)
        words = ["search", "--strategy", "evolve", "--dataset", name, "--mlflow", "off", "--out", "one"]
        words += ["--time-limit", f"{given.limit:g}s", "--seed", str(seed)]
        return [NAS, *words], Path(place, "one", FILE), Lines(of_trial)
    file = Path(place, "accuracies")
    words = ["--side", side, "--seeds", str(seed), "--images", str(given.images), "--out", str(file)]
    return [sys.executable, str(Path(__file__).resolve()), *words], file, Lines(float)


class Lines:
    """The accuracies in the lines that are new in a file, as far as the lines are whole."""

    def __init__(self, accuracy: Callable[[bytes], float | None]) -> None:
        self._accuracy = accuracy
        self._read = 0

    def __call__(self, file: Path) -> Iterator[float]:
        """Those since the last time."""
        if not file.exists():
            return
        with file.open("rb") as lines:
            lines.seek(self._read)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if (accuracy := self._accuracy(line)) is not None:
                yield accuracy


def of_trial(line: bytes) -> float | None:
    """The validation accuracy in a line of a journal, if it is that of a finished training."""
    trial = (entry_of(line) or {}).get("trial")
    return None if trial is None else trial["metrics"].get("validation_accuracy")


def end(process: subprocess.Popen[Any]) -> None:
    """As Ctrl-C does, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kept(file: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What was measured before, with the same limit and images."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if (row["limit"], row["images"]) == (given.limit, given.images)]


def table(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> None:
    heads = [f"s to {threshold:g} %" for threshold in given.thresholds]
    print(f"| side | {' | '.join(heads)} | best validation %, median | lowest–highest | seeds |")
    print("|---" * (len(heads) + 4) + "|")
    for side in SIDES:
        own = [row for row in rows if row["side"] == side]
        if not own:
            continue
        cells = [to(f"{threshold:g}", own, given.limit) for threshold in given.thresholds]
        best = sorted(100 * row["best"] for row in own)
        cells += [f"{statistics.median(best):.2f}", f"{best[0]:.2f}–{best[-1]:.2f}", str(len(own))]
        print(f"| {side} | {' | '.join(cells)} |")


def to(threshold: str, rows: Sequence[dict[str, Any]], limit: float) -> str:
    """The median over the seeds; a seed that did not get there took longer than any that did."""
    seconds = sorted(row["reached"].get(threshold, math.inf) for row in rows)
    middle = statistics.median(seconds)
    got = sum(math.isfinite(one) for one in seconds)
    share = "" if got in (0, len(seconds)) else f" ({got} of {len(seconds)} seeds)"
    return f"not in {limit:g} s{share}" if math.isinf(middle) else f"{middle:.1f}{share}"


def main(given: argparse.Namespace) -> None:
    given.out = given.out or Path(tempfile.mkdtemp(prefix="nas-quality-"), "time_to_quality.jsonl")
    print(f"what is measured is kept in {given.out}", file=sys.stderr)
    known = {(row["side"], row["seed"]) for row in kept(given.out, given)}
    # Seed after seed, each side once, so that a slow hour of the machine slows all of them.
    for seed in given.seeds:
        for side in given.sides:
            if (side, seed) not in known:
                row = measure(side, seed, given)
                with given.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr, flush=True)
    table(kept(given.out, given), given)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of each side")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--thresholds", type=float, nargs="+", default=list(THRESHOLDS), help="in percent")
    parser.add_argument("--images", type=int, default=WHOLE, help="training images, to try it with fewer")
    parser.add_argument("--out", type=Path, help="a file of JSON lines, to go on with; a new one unless told")
    parser.add_argument("--side", choices=list(FOREIGN), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = options()
    if chosen.side:
        with chosen.out.open("w", buffering=1) as accuracies:
            FOREIGN[chosen.side](chosen.seeds[0], chosen.images, lambda one: print(float(one), file=accuracies))
    else:
        main(chosen)
