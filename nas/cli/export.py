"""``nas export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nas.cli.options import FOLDER, json_option, plugins_option, print_json, print_out
from nas.errors import plain
from nas.winner.export import PLACES


@click.command()
@click.argument("search", required=False)
@click.option(
    "--format",
    "formats",
    metavar="FORMAT",
    type=click.Choice([*PLACES, "all"]),
    multiple=True,
    required=True,
    help="Format to write: onnx (one file for onnxruntime), torch (an archive of torch.export), safetensors (the "
    "weights and architecture.json), python (readable PyTorch code and the weights) or all. May be repeated.",
)
@click.option(
    "--out", metavar="FOLDER", type=FOLDER, help="Folder to write to. Default: best/ in the folder of the search."
)
@click.option(
    "--data-dir",
    metavar="FOLDER",
    type=FOLDER,
    help="Folder to look for data sets in first. Default: the same as in the search.",
)
@json_option
@plugins_option(expose=True)
def export(
    search: str | None,
    formats: tuple[str, ...],
    out: Path | None,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the winner of a search as a file for other tools.

    SEARCH is the folder of a search or a training, or its name under runs/. Default: the latest one with a winner.

    The exported model takes raw images of any size, resizes and normalises them. To check it, a new process loads
    it, and its answers on the test images are compared with those of the original.
    """
    from nas.records import searches
    from nas.winner.export import export as work

    folder = searches.with_winner(search) if search is None else searches.named(search)
    model = work.load_model(folder)
    images, note = work.images_for(folder, model, data_dir, plugins)
    if note:
        click.echo(plain(f"note: {note}"), err=True)
    wanted = tuple(PLACES) if "all" in formats else tuple(dict.fromkeys(formats))
    done: dict[str, Any] = {}
    for exported in work.export(model, wanted, (out or model.best).absolute(), images):
        kind = "random" if note else "test"
        if not as_json:
            print_out(
                f"{exported.path}: {exported.bytes:,} bytes; the same class for all {exported.images:,} {kind} "
                f"images, the largest difference of a logit is {exported.largest_difference:.1e} "
                f"({exported.seconds:.0f} s)"
            )
        done[exported.format] = {
            **asdict(exported),
            "path": str(exported.path),
            "same_classes": True,  # otherwise export() would have raised an error
            "images_are": kind,
            "seconds": round(exported.seconds, 2),
        }
    if as_json:
        print_json({"search": str(folder), "network": model.description.architecture.id, "formats": done})
