"""Options that several commands share, and how their values are read and results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from nas.errors import unprintable

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


# The sections of the help of a command that searches or trains; what is in none of them comes last.
SECTIONS = {
    "Search": (
        "strategy", "space", "trials", "time_limit", "objectives", "target", "patience", "max_parameters",
        "max_flops", "batch", "ahead", "rungs",
    ),
    "Training": ("seeds", "dataset", "data_dir", "size", "epochs", "recipe", "class_weights", "precision", "seed"),
    "Machine": ("evaluator", "workers", "device", "group"),
    "Output": ("out", "mlflow", "mlflow_experiment", "as_json"),
}  # fmt: skip


class InSections(click.Command):
    """A command whose many options are listed in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        places = {name: section for section, names in SECTIONS.items() for name in names}
        found: dict[str, list[tuple[str, str]]] = {section: [] for section in (*SECTIONS, "Other options")}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                found[places.get(parameter.name or "", "Other options")].append(record)
        for section, records in found.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


def plugins_option(*, expose: bool = False) -> Callable[[Command], Command]:
    """``--plugins``: this process may use the plugins in its folders, layers among them.

    Args:
        expose: whether the command gets the folders, too, as ``plugins``.
    """

    def offer(_: click.Context, parameter: click.Parameter, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        from nas.plugins import offer

        offer(folders)
        return folders

    return click.option(
        "--plugins",
        metavar="FOLDER",
        multiple=True,
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        callback=offer,
        expose_value=expose,
        help="Folder of plugin files, whose code may run. May be repeated. The folders in NAS_PLUGINS and "
        "./plugins are always used.",
    )


def number(_: click.Context, parameter: click.Parameter, value: str | None) -> int | float | str | None:
    """A number, if the text is one. The configuration checks it, and knows where ``auto`` is allowed."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value)  # type: ignore[arg-type]
    return value


def _pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` options as a dictionary."""
    split = [text.partition("=") for text in values]
    for text, (key, equals, _rest) in zip(values, split, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not of the form KEY=VALUE", param=parameter)
    return {key.strip(): value.strip() for key, _equals, value in split}


def set_option(what: str) -> Callable[[Command], Command]:
    """The option --set KEY=VALUE, the value of ``options``; ``what`` can be set is said in the help."""
    return click.option(
        "--set", "options", metavar="KEY=VALUE", multiple=True, callback=_pairs, help=f"{what} May be repeated."
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, in one line.")
network_option = click.option(
    "--network",
    metavar="ID",
    help="A network of the Pareto front instead of the winner: its id, or the first digits.",
)
data_dir_option = click.option(
    "--data-dir",
    metavar="FOLDER",
    type=FOLDER,
    help="Folder to look for data sets in first. Default: NAS_DATA_DIR, then the user's cache folder.",
)


def search_options(command: Command) -> Command:
    """Add the options of every command that searches, except the strategy. They set fields of `Experiment`."""
    # fmt: off
    options = [
        click.option("--space", metavar="NAME", help=
            "Set of networks that candidates come from: cnn or lecture for images, sequence for series, "
            "transformer for texts and long series, or a plugin. Default: cnn, sequence or transformer."),
        click.option("--trials", metavar="N", callback=number, help=
            "Number of candidates to try. Default: 40, or as many as fit into the time limit."),
        click.option("--time-limit", metavar="TIME", help=
            "Time from the start of the command to its end, such as 90s, 10m or 1h30m: 45 % of it for the "
            "search, the rest for the final selection and the test. Default: no limit."),
        click.option("--objective", "objectives", metavar="METRIC", multiple=True, help=
            "Metric that should be large, or with a minus sign before it, small: validation_accuracy, "
            "balanced_accuracy, macro_f1, -validation_loss, -parameters, -flops, -latency_ms, -train_seconds or "
            "images_per_second. If the option is repeated, the search keeps a Pareto front, and the first metric "
            "chooses the winner. Default: -validation_loss."),
        click.option("--target", metavar="X", callback=number, help=
            "Validation accuracy, such as 0.98, at which the search ends: a candidate that has it is trained "
            "again with another seed, and must have it again. Default: none."),
        click.option("--patience", metavar="N", callback=number, help=
            "Number of candidates in a row that bring nothing better, after which the search ends. Default: no "
            "limit."),
        click.option("--max-parameters", metavar="N", callback=number, help=
            "Largest number of parameters that a candidate may have. Default: no limit."),
        click.option("--max-flops", metavar="N", callback=number, help=
            "Largest number of operations that a candidate may need for one image. Default: the limit of the "
            "space, which is 5,000,000 for cnn and lecture."),
        click.option("--batch", metavar="N", callback=number, help=
            "Number of candidates that are proposed together and compete with one another. Default: 8."),
        click.option("--ahead", metavar="N", callback=number, help=
            "Number of batches in training at a time, so that many cores are busy: the next one is proposed "
            "before the trials of the last N - 1 are known. The result depends on it, and never on the number of "
            "workers. Default: 1."),
        click.option("--rungs", metavar="N", callback=number, help=
            "Number of rungs of successive halving, 1 to 4. Each rung trains the best quarter of the candidates"
            " of the rung before, for four times as long; with 1, all candidates are trained in full. Default: "
            "2."),
        click.option("--evaluator", metavar="NAME", help=
            "Where networks are trained: local, which is processes on this machine, or the name of a plugin. "
            "Default: local."),
        click.option("--workers", metavar="N", callback=number, help=
            "Number of processes that train side by side. Default: auto, which is one for each CPU core, or one"
            " for a GPU."),
    ]
    # fmt: on
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def training_options(command: Command) -> Command:
    """Add the options of every command that trains. They set fields of `Experiment`, which checks them."""
    # fmt: off
    options = [
        click.option("--dataset", metavar="NAME|PATH", help=
            "Data set to learn from: a name, such as mnist, mnist-5k (5,000 images of it) or that of a plugin; or "
            "the path of your own series (.ts, .tsv, .csv, .npz), recordings (folders of WAV files) or text "
            "(text:FILE); or of your own images: a folder with a folder for each class, a table (CSV, TSV, "
            "Parquet) of paths and labels, or an .npz file. Default: auto, which is mnist if it is here or can be "
            "downloaded, otherwise mnist-5k."),
        click.option("--data-dir", metavar="FOLDER", type=FOLDER, help=
            "Folder to look for data sets in first. Default: NAS_DATA_DIR, then the user's cache folder."),
        click.option("--size", metavar="PIXELS", help=
            "Side that your own images get for the network, such as 64, or HEIGHTxWIDTH. Default: chosen from the "
            "images and the device. The same as --set dataset.size=PIXELS."),
        click.option("--epochs", metavar="N", callback=number, help=
            "Length of a full training in epochs, which are passes over the training images; may be a fraction. "
            "Default: enough epochs for 14,000 images, at least 1."),
        click.option("--recipe", metavar="NAME", help=
            "How networks are trained: default (AdamW, one-cycle learning rate, batches of 64 images), "
            "photographs (the same, but images are also mirrored at random) or lecture (Adam, constant learning "
            "rate, batches of 128 images). Default: auto, the one for the data, by Muon for all but MNIST."),
        click.option("--class-weights", metavar="NAME", help=
            "Whether all classes count the same in the training loss, whatever their sizes: balanced or none. "
            "Default: auto, which is balanced if the first objective is balanced_accuracy or macro_f1."),
        click.option("--precision", metavar="NAME", help=
            "Number format of the training: float32, tf32 or bfloat16. Default: auto, which is bfloat16 if the "
            "device has units for it, otherwise float32."),
        click.option("--device", metavar="NAME", help=
            "Device that trains: cpu, cuda, cuda:1 or mps. Default: auto, which is a CUDA device or mps if there "
            "is one, otherwise the CPU."),
        click.option("--group", metavar="N", callback=number, help=
            "Largest number of networks that a GPU trains at the same time. Default: auto, which measures what "
            "is fastest."),
        click.option("--seed", metavar="N", callback=number, help=
            "Seed of every random choice: on a CPU, the same seed gives the same result. Default: 0."),
        click.option("--out", metavar="FOLDER", type=FOLDER, help=
            "New or empty folder for the result. Default: a new folder in runs/, named by date and time."),
        click.option("--mlflow", metavar="URI", help=
            "Address of the MLflow store that gets the results, or off for none. Default: MLFLOW_TRACKING_URI, "
            "otherwise the file mlflow.db in this folder."),
        click.option("--mlflow-experiment", metavar="NAME", help=
            "Experiment of MLflow that the run belongs to; it is made if it does not exist. Default: nas."),
    ]
    # fmt: on
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def given(*, size: int | None = None, class_weights: str | None = None, **values: Any) -> dict[str, Any]:
    """The options that were set, as settings of `Experiment`."""
    parts = {"dataset.size": size, "recipe.class_weights": class_weights}
    if set_here := {name: value for name, value in parts.items() if value is not None}:
        values["options"] = {**values.get("options", {}), **set_here}
    return {name: value for name, value in values.items() if value not in (None, (), {})}


def print_out(text: str) -> None:
    """Print a result; a reader that has gone (``nas list | head``) is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise unprintable(error) from None


def print_json(data: dict[str, Any]) -> None:
    """Print one object in one line."""
    print_out(json.dumps(data))
