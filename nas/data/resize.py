"""The one resize of nas, in whole numbers: NumPy, torch and ONNX compute the same pixels, bit for bit.

A side is resized by a matrix product with antialiased triangle weights, as Pillow's bilinear filter has them; the
frame's part of an image (the crop, or the borders) is only a shift of these weights. All weights are whole numbers
whose sum times 255 is below 2²⁴. So every sum of weighted pixels is exact in float32, in any order; it is divided
by the sum of its weights and rounded half to even, first for the rows, then for the columns.

These functions work with the numbers and arrays of NumPy and of torch; exported models contain them, too.
"""

from __future__ import annotations

from typing import Any, Literal

Fit = Literal["crop", "pad", "stretch"]
WEIGHT_SUM = 2**16  # of a pixel, at most: 255 · 2¹⁶ < 2²⁴


def pixel_scales(height: Any, width: Any, frame_height: int, frame_width: int, fit: str) -> tuple[Any, Any, int]:
    """The size of a pixel of the frame in pixels of the image, along rows and columns, as fractions.

    Args:
        height: of the image.
        width: of the image.
        frame_height: of the frame.
        frame_width: of the frame.
        fit: crop, pad or stretch.

    Returns:
        The numerators for rows and for columns, and their common denominator.
    """
    rows, columns = 2 * height * frame_width, 2 * width * frame_height
    if fit == "crop":  # the smaller one for both
        rows = columns = (rows + columns - abs(rows - columns)) // 2
    elif fit == "pad":
        rows = columns = (rows + columns + abs(rows - columns)) // 2
    return rows, columns, 2 * frame_height * frame_width


def pixel_weights(frame_pixels: Any, pixels: Any, numerator: Any, denominator: int) -> Any:
    """The weight of every pixel of a side in every pixel of the frame's side.

    Args:
        frame_pixels: (frame_side, 1) int64, 0 to frame_side - 1.
        pixels: (1, side) int64, 0 to side - 1.
        numerator: of the scale, see `pixel_scales`.
        denominator: of the scale.

    Returns:
        (frame_side, side) int64: sums of at most 2¹⁶; a row outside of the image, in the border, has no weights.
    """
    frame_side, side = frame_pixels.shape[0], pixels.shape[1]
    # Distances from the centre of the image, in units of 1 / (2 · denominator) pixels of the image.
    centres = (2 * frame_pixels + 1 - frame_side) * numerator
    distances = abs(centres - (2 * pixels + 1 - side) * denominator)
    reach = numerator + denominator + abs(numerator - denominator)  # of a triangle: a pixel, of the larger kind
    is_inside = (abs(centres) <= side * denominator) | (abs(centres) <= numerator)  # the middle always is
    triangles = (reach - distances).clip(0) * is_inside
    return triangles * WEIGHT_SUM // triangles.sum(1)[:, None].clip(1)
