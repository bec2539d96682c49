"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 + 10,000 images of clothes, in the files of MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nas.data.idx import File, Idx
from nas.data.plugin import GREY, Fields

# Left and right shoes look alike. Batches as large as those of `PHOTOGRAPHS`.
CLOTHES: Fields = {**GREY, "flip": 0.5, "batch_size": 128}


class FashionMnist(Idx):
    """Fashion-MNIST: 54,000 training, 6,000 validation and 10,000 test images of clothes, 28×28, grey."""

    name = "fashion-mnist"
    recipe = CLOTHES
    framing = "pad"  # the originals were trimmed, and their longer side fills the image
    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)  # torchvision's
    files = (
        File("train-images-idx3-ubyte", 47_040_016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        File("train-labels-idx1-ubyte", 60_008, "9018921c3c673c538a1fc5bad174d6f9"),
        File("t10k-images-idx3-ubyte", 7_840_016, "8181f5470baa50b63fa0f6fddb340f0a"),
        File("t10k-labels-idx1-ubyte", 10_008, "15d484375f8d13e6eb1aabb0c3f46965"),
    )
    places = (Path("FashionMNIST/raw"), Path("fashion-mnist"))
    roots = (Path("/usr/share/datasets"),)  # of Debian's package; its gzip headers are not those of the publisher
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    without_network = "Install Debian's package dataset-fashion-mnist"

    def _candidates(self, root: Path) -> Iterator[Path]:
        """A folder may be the place itself, if its name says so: the files have the names of those of MNIST."""
        return chain(super()._candidates(root), [root] * ("fashion" in root.name.lower()))
