"""Networks that somebody else designed, and trained on ImageNet, as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.architecture.backbones import BACKBONES, Facts
from nas.architecture.layer import Layer, Shape, channels_of, image_of, setting, switch
from nas.errors import ArchitectureError, unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Pretrained(Layer):
    """A classification network of torchvision without its classifier: a map becomes a vector of features.

    Its first convolution is adapted to the channels; images too small for it are enlarged (`Facts.takes`). With
    ``weights`` it begins with torchvision's best ones for ImageNet, otherwise with random ones; ``frozen``, it
    keeps them, and only what follows it learns.
    """

    role = "convolution"

    model: str = setting(lambda v: type(v) is str, "the name of a torchvision model")
    weights: bool = switch(default=True)
    frozen: bool = switch()

    def __post_init__(self) -> None:
        """Refuse a model that nobody knows."""
        super().__post_init__()
        if self.model not in BACKBONES:
            raise ArchitectureError(unknown("torchvision model", self.model, BACKBONES))

    @property
    def facts(self) -> Facts:
        """What has to be known about the model."""
        return BACKBONES[self.model]

    def output_shape(self, shape: Shape) -> Shape:
        """The features that its classifier would get."""
        image_of(shape)
        return (self.facts.features,)

    def parameters(self, shape: Shape) -> int:
        """All its weights, frozen or not: the size of the network is what people compare."""
        return self.facts.parameters + (channels_of(shape) - 3) * self.facts.channel_parameters

    def flops(self, shape: Shape) -> int:
        """Exact for an image of the model's smallest size; for a larger one, scaled with the area: about right."""
        height, width = self.facts.takes(shape[1], shape[2])
        at_size = self.facts.flops + (channels_of(shape) - 3) * self.facts.channel_flops
        return at_size * height * width // self.facts.size**2

    def module(self, shape: Shape) -> nn.Module:
        """The model with random weights; training gives it others (see `nas.training.backbone`)."""
        from nas.architecture.modules import Backbone, named

        size = self.facts.takes(*shape[1:])
        resize = None if size == shape[1:] else size
        return named(backbone=Backbone(self.model, shape[0], resize=resize, frozen=self.frozen))

    def words(self) -> str:
        """The model's name, and how it begins and learns."""
        return " ".join(["Pretrained", self.model, *["random"] * (not self.weights), *["frozen"] * self.frozen])
