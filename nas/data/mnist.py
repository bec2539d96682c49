"""The full MNIST: 60,000 + 10,000 images of handwritten digits, as the IDX files that torchvision uses."""

from __future__ import annotations

from pathlib import Path

from nas.data.idx import File, Idx


class Mnist(Idx):
    """MNIST, all of it: 54,000 training, 6,000 validation and 10,000 test images of digits, 28×28, grey."""

    name = "mnist"
    framing = "centred"
    max_flops = 5_000_000  # about as many as the lecture's network has
    # The mirrors and files of torchvision, copied because its import takes 4.7 s, while `auto` decides within 5 s.
    # A test compares them.
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    files = (
        File("train-images-idx3-ubyte", 47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
        File("train-labels-idx1-ubyte", 60_008, "a25bea736e30d166cdddb491f175f624"),
        File("t10k-images-idx3-ubyte", 7_840_016, "2646ac647ad5339dbf082846283269ea"),
        File("t10k-labels-idx1-ubyte", 10_008, "27ae3e4e09519cfbb04c329615203637"),
    )
    places = (Path("MNIST/raw"),)  # in the folder that torchvision calls the root
    classes = tuple("0123456789")
    without_network = "Use `--dataset mnist-5k`"
