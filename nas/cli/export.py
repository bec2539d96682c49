"""``nas export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nas.cli.options import FOLDER, print_json, print_out
from nas.errors import plain

NAMES = ("onnx", "torch", "safetensors", "python")


@click.command()
@click.argument("search", required=False)
@click.option(
    "--format",
    "formats",
    type=click.Choice([*NAMES, "all"]),
    multiple=True,
    required=True,
    help="onnx: one file for onnxruntime; torch: a torch.export archive; safetensors: weights and "
    "architecture.json; python: a readable file of PyTorch and the weights. May be given several times.",
)
@click.option("--out", type=FOLDER, help="The folder to write.  [default: best/ in the search's folder]")
@click.option("--data-dir", type=FOLDER, help="Where data sets lie.  [default: as in the search]")
@click.option("--plugins", type=FOLDER, multiple=True, help="A folder with the data set's plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(
    search: str | None,
    formats: tuple[str, ...],
    out: Path | None,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the winner of a search in formats that others read.

    The exported model takes raw images of any size; resizing and normalisation are in it. Each is loaded in a new
    process, without nas where it can do without, and compared with the original on the test images.

    SEARCH is the folder of a search or a training, or its name under runs/, or nothing for the latest one
    that has a winner.
    """
    from nas.records import searches
    from nas.winner.export import export as work

    folder = searches.with_winner(search) if search is None else searches.named(search)
    model = work.load_model(folder)
    images, note = work.images_for(folder, model, data_dir, plugins)
    if note:
        click.echo(plain(f"note: {note}"), err=True)
    wanted = NAMES if "all" in formats else tuple(dict.fromkeys(formats))
    where = out or model.best
    done: dict[str, Any] = {}
    for one in work.export(model, wanted, where.absolute(), images):
        kind = "random" if note else "test"
        if not as_json:
            print_out(
                f"{one.path}: {one.bytes:,} bytes; the same class for all {one.images:,} {kind} images, the "
                f"largest difference of a logit is {one.largest_difference:.1e} ({one.seconds:.0f} s)"
            )
        done[one.format] = {
            "path": str(one.path),
            "bytes": one.bytes,
            "largest_difference": one.largest_difference,
            "same_classes": True,  # otherwise it would not be there
            "images": one.images,
            "images_are": kind,
            "seconds": round(one.seconds, 2),
        }
    if as_json:
        print_json({"search": str(folder), "network": model.about.architecture.id, "formats": done})
