"""``nas export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nas.cli.options import FOLDER, plugins_option, print_json, print_out
from nas.errors import plain
from nas.winner.export import PLACES


@click.command()
@click.argument("search", required=False)
@click.option(
    "--format",
    "formats",
    type=click.Choice([*PLACES, "all"]),
    multiple=True,
    required=True,
    help="The format: onnx is one file for onnxruntime, torch an archive of torch.export, safetensors the weights "
    "with architecture.json, python a readable file of PyTorch code with the weights. The option may be repeated.",
)
@click.option("--out", type=FOLDER, help="The folder for the exports.  [default: best/ in the search's folder]")
@click.option("--data-dir", type=FOLDER, help="The folder of the data sets.  [default: as in the search]")
@plugins_option(expose=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(
    search: str | None,
    formats: tuple[str, ...],
    out: Path | None,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the winner of a search in formats that other tools read.

    The exported model takes raw images of any size; it resizes and normalises them itself. Each model is loaded in
    a new process, without nas unless the format needs it, and compared with the original on the test images.

    SEARCH is the folder of a search or a training, or its name under runs/. The default is the latest search or
    training with a winner.
    """
    from nas.records import searches
    from nas.winner.export import export as work

    folder = searches.with_winner(search) if search is None else searches.named(search)
    model = work.load_model(folder)
    images, note = work.images_for(folder, model, data_dir, plugins)
    if note:
        click.echo(plain(f"note: {note}"), err=True)
    wanted = tuple(PLACES) if "all" in formats else tuple(dict.fromkeys(formats))
    where = out or model.best
    done: dict[str, Any] = {}
    for exported in work.export(model, wanted, where.absolute(), images):
        kind = "random" if note else "test"
        if not as_json:
            print_out(
                f"{exported.path}: {exported.bytes:,} bytes; the same class for all {exported.images:,} {kind} "
                f"images, the largest difference of a logit is {exported.largest_difference:.1e} "
                f"({exported.seconds:.0f} s)"
            )
        # The classes are the same: otherwise it would not have been written.
        more = {"path": str(exported.path), "same_classes": True, "images_are": kind}
        done[exported.format] = {**asdict(exported), **more, "seconds": round(exported.seconds, 2)}
    if as_json:
        print_json({"search": str(folder), "network": model.description.architecture.id, "formats": done})
