"""The modules of the built-in layers for sequences (N, channels, time).

The series of a batch may have unequal lengths: zeros follow the shorter ones. A module with ``is_masked = True``
takes a second argument, ``mask`` (N, 1, time), bool, true at the steps that a series has; or None if no series is
shorter than the others. With a mask, the result at these steps does not depend on the others; there it has no
meaning.

They import nothing else of this package, because `nas export --format python` writes these classes into its file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """The values, with zeros where a series has no steps."""
    return x if mask is None else x.masked_fill(~mask, 0)


class CausalConv1d(nn.Conv1d):
    """A convolution that sees no later steps: all its zeros stand before the first one (van den Oord, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """As many steps as the input, divided by the stride."""
        return super().forward(functional.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation, whose statistics are those of the steps that the series have."""

    is_masked = True
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalised values (N, C, T)."""
        if mask is None or not self.training:
            plain: Tensor = super().forward(x)
            return plain
        values = zeroed(x.to(self.running_mean.dtype), mask)  # bfloat16 is too coarse for a sum
        count = mask.sum()
        mean = values.sum((0, 2)) / count
        centred = zeroed(values - mean[:, None], mask)
        variance = centred.square().sum((0, 2)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale[:, None] + self.bias[:, None]
        return normalised.to(x.dtype)


class MaskedMaxPool1d(nn.MaxPool1d):
    """Max pooling; a window at the end of a series takes the maximum of the steps that are there."""

    is_masked = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The maxima (N, C, windows)."""
        maxima: Tensor = super().forward(x if mask is None else x.masked_fill(~mask, -math.inf))
        return maxima if mask is None else maxima.masked_fill(maxima == -math.inf, 0)


class MaskedAvgPool1d(nn.AvgPool1d):
    """Average pooling; a window at the end of a series takes the mean of the steps that are there."""

    is_masked = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The means (N, C, windows)."""
        if mask is None:
            return super().forward(x)
        share = super().forward(mask.to(x.dtype))  # of each window, the part that a series fills
        return super().forward(zeroed(x, mask)) / share.masked_fill(share == 0, 1)


class MaskedAdaptiveAvgPool1d(nn.AdaptiveAvgPool1d):
    """The mean of each channel over the steps of its series."""

    is_masked = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Means (N, C, 1)."""
        if mask is None:
            return super().forward(x)
        return zeroed(x, mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)


class GlobalMax(nn.Module):
    """The largest value of each channel: of an image, or of the steps of a series."""

    is_masked = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maxima (N, C)."""
        return (x if mask is None else x.masked_fill(~mask, -math.inf)).flatten(2).amax(2)


class TakeLast(nn.Module):
    """The last step of each series."""

    is_masked = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values (N, C)."""
        if mask is None:
            return x[:, :, -1]
        last = mask.sum(2, keepdim=True) - 1
        return x.gather(2, last.expand(-1, x.shape[1], 1))[:, :, 0]


class Residual1d(nn.Module):
    """Normalised convolutions, one for each kernel, whose result is added to the input."""

    is_masked = True

    def __init__(
        self,
        channels: int,
        filters: int,
        kernels: tuple[int, ...],
        activation: nn.Module,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.stride, self.activation = stride, activation
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        inputs, step = channels, stride
        for kernel in kernels:
            pad = dilation * (kernel // 2)
            self.convolutions.append(nn.Conv1d(inputs, filters, kernel, step, pad, dilation, bias=False))
            self.norms.append(MaskedBatchNorm1d(filters))
            inputs, step = filters, 1
        self.projects = stride > 1 or channels != filters
        if self.projects:
            self.projection = nn.Conv1d(channels, filters, 1, stride, bias=False)
            self.projection_norm = MaskedBatchNorm1d(filters)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``activation(convolutions(x) + shortcut(x))``."""
        strided = None if mask is None else mask[:, :, :: self.stride]
        y = x
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = convolution(zeroed(self.activation(y), strided) if number else x)
            y = norm(y, strided)
        shortcut = self.projection_norm(self.projection(x), strided) if self.projects else x
        result: Tensor = self.activation(y + shortcut)
        return result


class Inception(nn.Module):
    """Parallel convolutions with kernels of several sizes, and max pooling, joined and normalised.

    Without ``bottleneck`` (0), the convolutions see all channels.
    """

    is_masked = True

    def __init__(self, channels: int, filters: int, kernels: tuple[int, ...], bottleneck: int) -> None:
        super().__init__()
        inputs = bottleneck or channels
        self.bottleneck = nn.Conv1d(channels, inputs, 1, bias=False) if bottleneck else nn.Identity()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, filters, kernel, padding=kernel // 2, bias=False) for kernel in kernels
        )
        self.pool = MaskedMaxPool1d(3, stride=1, padding=1)
        self.after_pool = nn.Conv1d(channels, filters, 1, bias=False)
        self.norm = MaskedBatchNorm1d((len(kernels) + 1) * filters)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (N, (kernels + 1)·filters, T)."""
        narrow = self.bottleneck(x)  # no bias: zeros stay zeros
        maps = [convolution(narrow) for convolution in self.convolutions]
        maps.append(self.after_pool(self.pool(x, mask)))
        return functional.relu(self.norm(torch.cat(maps, 1), mask))


class Recurrent(nn.Module):
    """A recurrent layer, ``nn.GRU`` or ``nn.LSTM``; with two directions, a second one reads from the end.

    Two layers of one direction, and not packed sequences, whose lengths must be known to the CPU: a training step
    with them cannot be recorded as a CUDA graph. In the forward direction, no step sees what follows it.
    """

    is_masked = True

    def __init__(self, kind: type[nn.GRU | nn.LSTM], channels: int, units: int, directions: int = 1) -> None:
        super().__init__()
        self.forwards = kind(channels, units, batch_first=True)
        self.backwards = kind(channels, units, batch_first=True) if directions == 2 else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Outputs (N, directions·units, T), the forward direction first."""
        steps = x.transpose(1, 2)
        outputs = self.forwards(steps)[0]
        if self.backwards is not None:
            backwards = reversed_steps(self.backwards(reversed_steps(steps, mask))[0], mask)
            outputs = torch.cat([outputs, backwards], 2)
        turned: Tensor = outputs.transpose(1, 2)
        return turned


def reversed_steps(x: Tensor, mask: Tensor | None) -> Tensor:
    """Series (N, T, C) in the opposite order; the steps after a shorter series stay where they are."""
    if mask is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    index = torch.where(mask[:, 0], mask.sum(2) - 1 - steps, steps)
    return x.gather(1, index[:, :, None].expand_as(x))


class TokenEmbedding(nn.Embedding):
    """A vector for each token."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Sequences (N, size, T) of tokens (N, T); for a token beyond the table, the last vector."""
        return super().forward(tokens.long().clamp(0, self.num_embeddings - 1)).transpose(1, 2)


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position, with wavelengths from 2π to 20,000π steps (Vaswani et al., 2017)."""

    table: Tensor

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        even = torch.arange(0, channels, 2, dtype=torch.float64)
        angles = torch.arange(steps, dtype=torch.float64) * torch.exp(-math.log(10_000) * even / channels)[:, None]
        table = torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1)[:channels]
        self.register_buffer("table", table.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """A sequence of the same shape."""
        return x + self.table[:, : x.shape[2]].to(x.dtype)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(channels, steps))
        nn.init.normal_(self.table, std=0.02)  # as in BERT

    def forward(self, x: Tensor) -> Tensor:
        """A sequence of the same shape."""
        return x + self.table[:, : x.shape[2]].to(x.dtype)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each step, over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        """A sequence of the same shape."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention of steps (N, T, C); if ``causal``, no step sees a later one."""

    is_masked = True

    def __init__(self, channels: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.projections = nn.Linear(channels, 3 * channels)  # queries, keys, values
        self.output = nn.Linear(channels, channels)

    def forward(self, steps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Steps of the same shape."""
        queries, keys, values = self.projections(steps).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # The steps after a series follow all of its own: in causal attention they are not seen anyway.
        seen = None if mask is None or self.causal else mask[:, None]
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, is_causal=self.causal
        )
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result


class SelfAttention(Attention):
    """The same for sequences (N, C, T)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A sequence of the same shape."""
        return super().forward(x.transpose(1, 2), mask).transpose(1, 2)


class Transformer(nn.Module):
    """A block of a transformer: attention, then two linear maps of each step; each part is added to its input.

    The normalisation stands before each part (Xiong et al., 2020).
    """

    is_masked = True

    def __init__(self, channels: int, heads: int, hidden: int, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, causal)
        self.attention_dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, hidden)
        self.wide_dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, channels)
        self.narrow_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A sequence of the same shape."""
        steps = x.transpose(1, 2)
        steps = steps + self.attention_dropout(self.attention(self.attention_norm(steps), mask))
        wide = self.wide_dropout(functional.gelu(self.wide(self.norm(steps))))
        turned: Tensor = (steps + self.narrow_dropout(self.narrow(wide))).transpose(1, 2)
        return turned
