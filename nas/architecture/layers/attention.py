"""Embeddings, positions, attention and transformer blocks, for tokens (time,) and sequences (channels, time)."""

from __future__ import annotations

from dataclasses import dataclass

from nas.architecture.layer import Layer, Shape, count, fraction, one_of, sequence_of, show, switch
from nas.architecture.layers.convolution import ResidualBlock
from nas.architecture.lazy import modules, nn, sequence_modules
from nas.errors import ArchitectureError


@dataclass(frozen=True)
class Embedding(Layer):
    """A learned vector for each token: tokens (time,) become a sequence (size, time) (Bengio et al., 2003).

    Tokens are whole numbers from 0 to ``tokens`` - 1. A larger one is taken as the last.
    """

    size: int = count()
    tokens: int = count(256)

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ArchitectureError(f"it needs tokens, which have one size, and gets a map of {show(shape)}")
        return (self.size, shape[0])

    def parameters(self, shape: Shape) -> int:
        return self.tokens * self.size

    def flops(self, shape: Shape) -> int:
        return 0

    def module(self, shape: Shape) -> nn.Module:
        return modules.named(embedding=sequence_modules.TokenEmbedding(self.tokens, self.size))

    def words(self) -> str:
        return f"Embedding {self.size} of {self.tokens} tokens"


@dataclass(frozen=True)
class Positions(Layer):
    """Adds to each step a vector for its position, which attention does not know otherwise (Vaswani et al., 2017).

    The vectors are sines and cosines of the position (``sinusoidal``), or parameters (``learned``).
    """

    kind: str = one_of("sinusoidal", "learned", default="sinusoidal")

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        return sequence_of(shape)

    def parameters(self, shape: Shape) -> int:
        channels, steps = sequence_of(shape)
        return channels * steps if self.kind == "learned" else 0

    def flops(self, shape: Shape) -> int:
        return 0

    def module(self, shape: Shape) -> nn.Module:
        learned = self.kind == "learned"
        kind = sequence_modules.LearnedPositions if learned else sequence_modules.SinusoidalPositions
        return modules.named(positions=kind(*shape))

    def words(self) -> str:
        return f"Positions {self.kind}"


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalises each step of a sequence over its channels, or a vector over its features (Ba et al., 2016)."""

    @property
    def is_causal(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) > 2:
            needs = f"it needs a sequence (time×channels) or a vector, and gets an image of {show(shape)}"
            raise ArchitectureError(f"{needs}; use BatchNorm")
        return shape

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[0]  # a scale and a shift for each channel or feature

    def flops(self, shape: Shape) -> int:
        return 0

    def module(self, shape: Shape) -> nn.Module:
        kind = nn.LayerNorm if len(shape) == 1 else sequence_modules.ChannelNorm
        return modules.named(layer_norm=kind(shape[0]))


def _divided(shape: Shape, heads: int) -> Shape:
    """The shape of a sequence whose channels the heads share."""
    if sequence_of(shape)[0] % heads:
        shared = f"its {heads} heads share the channels equally, and it gets {shape[0]}"
        raise ArchitectureError(f"{shared}: choose heads that divide {shape[0]}")
    return shape


@dataclass(frozen=True)
class SelfAttention(Layer):
    """Multi-head self-attention (Vaswani et al., 2017): every step takes a weighted mean of all steps.

    If it is ``causal``, a step sees no later ones. There is no shortcut: use `Add`, or `TransformerBlock`.
    """

    heads: int = count(4)
    causal: bool = switch()

    @property
    def is_causal(self) -> bool:
        return self.causal

    def output_shape(self, shape: Shape) -> Shape:
        return _divided(shape, self.heads)

    def parameters(self, shape: Shape) -> int:
        return 4 * shape[0] * (shape[0] + 1)  # queries, keys, values and the output, each with a bias

    def flops(self, shape: Shape) -> int:
        # Four linear maps, and two products of matrices for each head. Causal attention counts in full, as in
        # torch.utils.flop_counter.
        channels, steps = sequence_of(shape)
        return 2 * steps * 4 * channels**2 + 2 * 2 * steps**2 * channels

    def module(self, shape: Shape) -> nn.Module:
        self.output_shape(shape)
        attention = sequence_modules.SelfAttention(shape[0], self.heads, causal=self.causal)
        return modules.named(attention=attention)

    def words(self) -> str:
        return f"SelfAttention heads {self.heads}" + " causal" * self.causal


@dataclass(frozen=True)
class TransformerBlock(Layer):
    """A block of a transformer (Vaswani et al., 2017), normalised before each part (Xiong et al., 2020).

    Self-attention, then two linear maps of each step with a GELU between them; each part is added to its input.
    The first map makes ``width`` times as many channels. Dropout stands after both parts and between the maps.
    """

    mark = ResidualBlock.mark  # the shortcut

    heads: int = count(4)
    width: int = count(4)
    causal: bool = switch()
    dropout: float = fraction(0.0)

    @property
    def is_causal(self) -> bool:
        return self.causal

    def output_shape(self, shape: Shape) -> Shape:
        return _divided(shape, self.heads)

    def parameters(self, shape: Shape) -> int:
        channels, hidden = shape[0], self.width * shape[0]
        attention = SelfAttention(self.heads).parameters(shape)
        return attention + 2 * channels * hidden + hidden + channels + 2 * 2 * channels

    def flops(self, shape: Shape) -> int:
        return SelfAttention(self.heads).flops(shape) + 2 * shape[1] * 2 * self.width * shape[0] ** 2

    def module(self, shape: Shape) -> nn.Module:
        channels, *_ = self.output_shape(shape)
        hidden = self.width * channels
        block = sequence_modules.Transformer(
            channels, self.heads, hidden, causal=self.causal, dropout=self.dropout
        )
        return modules.named(transformer=block)

    def words(self) -> str:
        words = [f"TransformerBlock heads {self.heads}", f"width {self.width}", *["causal"] * self.causal]
        return " ".join(words + [f"dropout {self.dropout:g}"] * (self.dropout > 0))
