"""Known networks: the first of the three ways to choose a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.architecture.architecture import Architecture
from nas.architecture.backbones import BACKBONES, FAMILIES
from nas.architecture.known import NETWORKS, fitting
from nas.architecture.layers import Pretrained
from nas.errors import ArchitectureError, UsageError, plain, unknown
from nas.objectives import Objective
from nas.spaces.space import Candidate, SearchSpace
from nas.strategies.strategy import Strategy


class Reference(Strategy):
    """Proposes known networks, each once: built-in ones, torchvision's, and the user's.

    Of the space, only the limits are used.

    Args:
        networks: names of built-in networks, separated by commas; "all" (those for the images) or "none".
        torchvision: names of torchvision's classification models, separated by commas; "all" (the smallest of
            each family) or "none".
        pretrained: whether torchvision's models start from their ImageNet weights.
        frozen: whether only the new classifier of torchvision's models is trained.
        folder: a folder of architectures (``*.json``), which are proposed, too.
        winners: a folder of searches (such as ``runs``), whose winners are proposed, too.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective] = (),
        seed: int = 0,
        networks: str = "all",
        torchvision: str = "none",
        pretrained: bool = True,
        frozen: bool = False,
        folder: Path | None = None,
        winners: Path | None = None,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed)
        known = _named("network", networks, fitting(space.limits), NETWORKS)
        candidates = [Candidate(NETWORKS[name], origin=name) for name in known]
        for name in _named("torchvision model", torchvision, FAMILIES.values(), BACKBONES):
            backbone = Pretrained(name, weights=pretrained, frozen=frozen)
            candidates.append(Candidate(Architecture((backbone,)), origin=name))
        if folder is not None:
            candidates += [_read(path, path.stem) for path in _files(folder, "*.json", "folder")]
        if winners is not None:
            paths = _files(winners, "*/best/architecture.json", "winners")
            candidates += [_read(path, path.parent.parent.name) for path in paths]
        if not candidates:
            raise UsageError("there is no network to propose: set networks, torchvision, folder or winners")
        self.candidates = list({network.id: network for network in reversed(candidates)}.values())[::-1]

    def ask(self, count: int) -> list[Candidate]:
        """The next ``count`` networks."""
        taken = self.taken
        return [known for known in self.candidates if known.id not in taken][:count]


def _named(kind: str, text: str, every: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names in a list that is separated by commas; "all" stands for every name, "none" for no name."""
    if text.strip() in ("all", "none"):
        return list(every) if text.strip() == "all" else []
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    return names


def _files(folder: Path, pattern: str, option: str) -> list[Path]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise UsageError(f"{option}={folder}: there is no {pattern} in this folder; name another one")
    return paths


def _read(path: Path, origin: str) -> Candidate:
    try:
        return Candidate(Architecture.read(path), origin=plain(origin))
    except ArchitectureError as error:
        raise UsageError(str(error)) from None
