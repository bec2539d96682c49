"""The classification networks of torchvision, which were trained on ImageNet, as a layer."""

from __future__ import annotations

from dataclasses import dataclass

from nas.architecture.backbones import BACKBONES, Facts
from nas.architecture.layer import Layer, Shape, channels_of, image_of, setting, switch
from nas.architecture.lazy import modules, nn
from nas.errors import ArchitectureError, unknown


@dataclass(frozen=True)
class Pretrained(Layer):
    """A classification network of torchvision without its classifier: an image becomes a vector of features.

    Its first convolution is adapted to the channels; images that are too small for it are enlarged
    (`Facts.takes`). With ``weights`` it begins with torchvision's best ones for ImageNet, otherwise with random
    ones. If it is ``frozen``, it keeps them, and only the layers after it learn.
    """

    role = "convolution"

    model: str = setting(lambda v: type(v) is str, "the name of a torchvision model")
    weights: bool = switch(default=True)
    frozen: bool = switch()

    def __post_init__(self) -> None:
        """Refuse a name that is not a model of torchvision."""
        super().__post_init__()
        if self.model not in BACKBONES:
            raise ArchitectureError(unknown("torchvision model", self.model, BACKBONES))

    @property
    def facts(self) -> Facts:
        """The sizes and counts of the model."""
        return BACKBONES[self.model]

    def output_shape(self, shape: Shape) -> Shape:
        image_of(shape)
        return (self.facts.features,)

    def parameters(self, shape: Shape) -> int:
        """The number of its weights, frozen or not: it is the size of the network that people compare."""
        return self.facts.parameters + (channels_of(shape) - 3) * self.facts.channel_parameters

    def flops(self, shape: Shape) -> int:
        """Exact for an image of the model's smallest size; for a larger one, estimated from the area."""
        height, width = self.facts.takes(shape[1], shape[2])
        at_size = self.facts.flops + (channels_of(shape) - 3) * self.facts.channel_flops
        return at_size * height * width // self.facts.size**2

    def module(self, shape: Shape) -> nn.Module:
        """The model with random weights; training loads the others (see `nas.training.backbone`)."""
        size = self.facts.takes(*shape[1:])
        resize = None if size == shape[1:] else size
        return modules.named(backbone=modules.Backbone(self.model, shape[0], resize=resize, frozen=self.frozen))

    def words(self) -> str:
        return " ".join(["Pretrained", self.model, *["random"] * (not self.weights), *["frozen"] * self.frozen])
