"""The contract of data sets."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from nas import plugins
from nas.testing.contract import Contract, doing, global_random, require

if TYPE_CHECKING:
    from nas.data.dataset import Dataset, Split
    from nas.data.plugin import DatasetPlugin


class DatasetContract(Contract):
    """What a search relies on in a data set."""

    def make(self) -> DatasetPlugin:
        """The plugin, with the folders in which `nas` looks for data."""
        from nas.data import search_folders

        with doing("making it"):
            made: DatasetPlugin = plugins.create(self.plugin, self.options, folders=search_folders())
        made.name = getattr(made, "name", "") or plugins.canonical(self.plugin.__name__)
        return made

    def test_images(self) -> None:
        """Has training and validation images of the right types and shapes, with the right labels."""
        from nas.data.dataset import Dataset

        data = self._load()
        require(isinstance(data, Dataset), f"load must return a Dataset, and returned {data!r:.100}")
        with doing("the images"):
            _again(data)

    def test_classes(self) -> None:
        """Has at least two classes, with different names."""
        names = self._load().classes
        require(len(set(names)) == len(names) >= 2, f"its classes are {', '.join(map(str, names)) or 'none'}")

    def test_same_again(self) -> None:
        """Is the same each time it is loaded."""
        fingerprints = []
        for seed in (1, 2):
            with global_random(seed):
                data = self._load()
            again = _again(data)
            fingerprints.append(again.fingerprint)
            wrong = "its fingerprint does not follow from its inputs: use Dataset.of"
            require(data.fingerprint == fingerprints[-1], wrong)
        both = " and ".join(fingerprints)
        require(fingerprints[0] == fingerprints[1], f"loaded twice, it has the fingerprints {both}")

    def test_test_images(self) -> None:
        """Has test images of the same shape and classes."""
        from nas.data.dataset import verify_test

        data, test = self._load(), self._load_test()
        with doing("the test images"):
            verify_test(test, data)

    def test_disjoint(self) -> None:
        """Has no image in two of its splits."""
        data = self._load()
        splits = {"training": data.train, "validation": data.validation, "test": self._load_test()}
        bytes_of = {name: {image.tobytes() for image in split.inputs.numpy()} for name, split in splits.items()}
        for first, second in combinations(splits, 2):
            shared = len(bytes_of[first] & bytes_of[second])
            require(not shared, f"{shared:,} images are both in the {first} and in the {second} split")

    def test_framing(self) -> None:
        """Says in a way that is known how an image file is made similar to its images."""
        from nas.data.plugin import FRAMINGS

        framing = self.make().framing
        require(framing in FRAMINGS, f"its framing is {framing!r:.50}, and should be one of {', '.join(FRAMINGS)}")

    def test_global_random(self) -> None:
        """Leaves the global random numbers as they were."""
        with global_random(3) as changed:
            self._load()
            sources = " and ".join(changed())
            require(not sources, f"load draws from, or seeds, {sources}: use a generator of your own")

    def _load(self) -> Dataset:
        made = self.make()
        with doing("load"):
            return made.load()

    def _load_test(self) -> Split:
        made = self.make()
        with doing("load_test"):
            return made.load_test()


def _again(data: Dataset) -> Dataset:
    """The data set, verified, with a fingerprint of its own."""
    return type(data).of(
        data.name, data.train, data.validation, data.classes, is_padded=data.is_padded, folds=data.folds
    )
