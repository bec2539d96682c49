"""``nas export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nas.cli.options import FOLDER, json_option, network_option, plugins_option, print_json, print_out
from nas.errors import UsageError, plain
from nas.files import shown
from nas.winner.export import PLACES


@click.command()
@click.argument("search", required=False)
@click.option(
    "--format",
    "formats",
    metavar="FORMAT",
    type=click.Choice([*PLACES, "all"]),
    multiple=True,
    default=("onnx",),
    help="Format to write: onnx (one file for onnxruntime), torch (an archive of torch.export), safetensors (the "
    "weights and architecture.json), python (readable PyTorch code and the weights) or all. May be repeated. "
    "Default: onnx.",
)
@click.option(
    "--opset",
    metavar="N",
    type=click.IntRange(18, 25),
    help="Version of ONNX's operators for --format onnx, 18 to 25. Default: 18, which most runtimes have.",
)
@click.option(
    "--ir-version",
    metavar="N",
    type=click.IntRange(8, 13),
    help="Version of the ONNX file for --format onnx. Default: 8, or the lowest that the opset allows. "
    "onnxruntime 1.17 reads up to 9.",
)
@click.option(
    "--fixed",
    is_flag=True,
    help="For --format onnx: one image at a time, float32 from 0 to 255, of the size of the training images and "
    "not resized; or one series or text. For TensorRT and phones.",
)
@click.option("--out", metavar="FOLDER", type=FOLDER, help="Folder to write to. Default: that of the network.")
@click.option(
    "--data-dir",
    metavar="FOLDER",
    type=FOLDER,
    help="Folder to look for data sets in first. Default: the same as in the search.",
)
@network_option
@json_option
@plugins_option(expose=True)
def export(
    search: str | None,
    network: str | None,
    formats: tuple[str, ...],
    out: Path | None,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
    **variant: Any,
) -> None:
    """Write the winner of a search as a file for other tools.

    SEARCH is the folder of a search or a training, or its name under runs/. Default: the latest one with a winner.

    The exported model takes raw images of any size, resizes (unless --fixed) and normalises them. One of series
    or texts takes raw series or the numbers of characters, of any length if its layers allow that. To check it, a
    new process loads it, and its answers on the test data are compared with those of the original.
    """
    chosen = {name: value for name, value in variant.items() if value}
    if chosen and not {"onnx", "all"} & set(formats):
        raise UsageError(f"--{next(iter(chosen)).replace('_', '-')} is for --format onnx: leave it out")
    from nas.data.kinds import NOUNS
    from nas.records import searches
    from nas.winner.export import export as work
    from nas.winner.export.formats import Onnx

    folder = searches.with_winner(search) if search is None else searches.named(search)
    model = work.load_model(folder, network)
    images, note = work.images_for(folder, model, data_dir, plugins)
    if note:
        click.echo(plain(f"note: {note}"), err=True)
    wanted = tuple(PLACES) if "all" in formats else tuple(dict.fromkeys(formats))
    done: dict[str, Any] = {}
    for exported in work.export(model, wanted, (out or model.best).absolute(), images, Onnx(**chosen)):
        kind = "random" if note else "test"
        if not as_json:
            print_out(
                f"{shown(exported.path)}: {exported.bytes:,} bytes; the same class for all {exported.images:,} "
                f"{kind} {NOUNS[model.kind].many}, the largest difference of a logit is "
                f"{exported.largest_difference:.1e} ({exported.seconds:.0f} s)"
                + f"; it takes {exported.takes}"
                * bool(exported.takes)
            )
        done[exported.format] = {
            **{name: value for name, value in asdict(exported).items() if name != "takes" or value},
            "path": str(exported.path),
            "same_classes": True,  # otherwise export() would have raised an error
            "images_are": kind,
            "seconds": round(exported.seconds, 2),
        }
    if as_json:
        name = model.best.name if network else model.description.architecture.id
        print_json({"search": str(folder), "network": name, "formats": done})
