"""The size and the colour of the images of a data set, chosen from the images and the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.data.decoder import Frame
from nas.data.resize import Fit

# The longest side that is chosen. A network for 96×96 needs 2.25 times the operations of one for 64×64, and cnn
# keeps to 5 million. Of these, its narrowest first layer needs 1.8 for 64×64 in colour, and 4.0 for 96×96.
LONGEST = {"cpu": 64, "mps": 64, "cuda": 96}
SIDES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)  # multiples of 4, because networks halve them twice
SAMPLE = 200  # images that are looked at; all images of most data sets have one size
GREY = (
    0.99  # the share of grey images from which on all of them become grey: scans with a coloured mark among them
)


def frame_of(
    sides: Sequence[tuple[int, int]], grey: float, device: str, size: tuple[int, int] | None, colour: str, fit: Fit
) -> tuple[Frame, str]:
    """The frame of all images, and the reason in a line.

    Args:
        sides: the heights and widths of some images, in pixels.
        grey: the share of them that are grey.
        device: the device that trains.
        size: the height and width that the user wants; None to choose them.
        colour: grey, colour, or auto.
        fit: see `Frame`.
    """
    kind = device.partition(":")[0]
    longest = LONGEST.get(kind, LONGEST["cpu"])
    # What a crop keeps of an image, or all of it.
    median = int(np.median([max(pair) if fit == "pad" else min(pair) for pair in sides]))
    height, width = max(set(sides), key=sides.count)
    if size is not None:
        (height, width), reason = size, "as asked for"
    elif len(set(sides)) == 1 and max(height, width) <= longest:
        reason = "their own size"
    else:
        height = width = max([side for side in SIDES if side <= min(median, longest)], default=SIDES[0])
        rule = (
            f"more would be slow on {'a CPU' if kind == 'cpu' else kind}" if median > longest else "not enlarged"
        )
        reason = f"their sides have {median:,} in the median; {rule}"
    chosen = "grey" if grey >= GREY else "colour"
    share = "all" if grey in (0, 1) else "nearly all" if chosen == "grey" else f"{100 * (1 - grey):.0f} %"
    why = f"as {share} of them are"
    if colour != "auto":
        chosen, why = colour, "as asked for"
    words = f"{height}×{width} pixels ({reason}), {'grey' if chosen == 'grey' else 'in colour'} ({why})"
    return Frame(1 if chosen == "grey" else 3, height, width, fit), words
