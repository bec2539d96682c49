"""The contract of data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas import plugins
from nas.testing.contract import Contract, doing, global_random, require

if TYPE_CHECKING:
    from nas.data.dataset import Dataset, Split
    from nas.data.plugin import DatasetPlugin


class DatasetContract(Contract):
    """What a search relies on in a data set."""

    def make(self) -> DatasetPlugin:
        """The source, which looks where `nas` does."""
        from nas.data import search_folders

        with doing("making it"):
            source: DatasetPlugin = plugins.create(self.plugin, self.options, folders=search_folders())
        source.name = getattr(source, "name", "") or plugins.canonical(self.plugin.__name__)
        return source

    def test_images(self) -> None:
        """Has training and validation images as trainers want them: types, shapes, labels."""
        from nas.data.dataset import Dataset

        data = self._load()
        require(isinstance(data, Dataset), f"load must return a Dataset, and returned {data!r:.100}")
        with doing("the images"):
            Dataset.of(data.name, data.train, data.validation, data.classes)

    def test_classes(self) -> None:
        """Has at least two classes, with different names."""
        classes = self._load().classes
        require(
            len(set(classes)) == len(classes) >= 2, f"its classes are {', '.join(map(str, classes)) or 'none'}"
        )

    def test_same_again(self) -> None:
        """Is the same whenever it is loaded."""
        found = []
        for seed in (1, 2):
            with global_random(seed):
                data = self._load()
            found.append(type(data).of(data.name, data.train, data.validation, data.classes).fingerprint)
            require(data.fingerprint == found[-1], "its fingerprint is not that of its images: use Dataset.of")
        require(found[0] == found[1], f"loaded twice, it has the fingerprints {found[0]} and {found[1]}")

    def test_test_images(self) -> None:
        """Has test images of the same shape and classes."""
        from nas.data.dataset import verify_split

        data, test = self._load(), self._load_test()
        with doing("the test images"):
            verify_split(test, "test images", data.classes)
        one, other = tuple(data.train.images.shape[1:]), tuple(test.images.shape[1:])
        require(one == other, f"the test images have the shape {other}, the training images {one}")

    def test_disjoint(self) -> None:
        """Has no image in two of its splits."""
        data = self._load()
        splits = {"training": data.train, "validation": data.validation, "test": self._load_test()}
        bytes_of = {name: {image.tobytes() for image in split.images.numpy()} for name, split in splits.items()}
        for one, other in (("training", "validation"), ("training", "test"), ("validation", "test")):
            shared = len(bytes_of[one] & bytes_of[other])
            require(not shared, f"{shared:,} images are among both the {one} and the {other} images")

    def test_global_random(self) -> None:
        """Leaves the global random numbers as they were."""
        with global_random(3) as moved:
            self._load()
            require(not moved(), f"load draws from, or seeds, {' and '.join(moved())}: use a generator of its own")

    def _load(self) -> Dataset:
        source = self.make()
        with doing("load"):
            return source.load()

    def _load_test(self) -> Split:
        source = self.make()
        with doing("load_test"):
            return source.load_test()
