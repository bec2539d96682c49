"""Layers for sequences: against torch's own modules, and with series of unequal lengths."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture import sequence_modules
from nas.architecture.layer import Layer, Shape
from nas.architecture.layers import (
    GRU,
    LSTM,
    AveragePool,
    BatchNorm,
    Conv1d,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    InceptionBlock,
    LayerNorm,
    MaxPool,
    Positions,
    ResidualBlock1d,
    SelfAttention,
    SeparableConv1d,
    TakeLast,
    TransformerBlock,
)
from nas.errors import ArchitectureError

C, T = 6, 17
LENGTHS = (17, 9, 4, 2, 1)
SEQUENCE: list[Layer] = [  # for sequences, which they leave sequences
    Conv1d(4),
    Conv1d(4, 5, 2, "same", "relu", batch_norm=True, dilation=2),
    Conv1d(4, 3, 2, "causal", "maxout", dilation=3),
    Conv1d(4, 2, 3),
    SeparableConv1d(5, 3, 1, "same", "gelu", batch_norm=True),
    SeparableConv1d(5, 3, 2, "causal", dilation=2),
    ResidualBlock1d(C),
    ResidualBlock1d(4, (3, 3), 2, 2, "sigmoid"),
    InceptionBlock(3, 9, 4),
    InceptionBlock(2, 63),  # longer than the series
    MaxPool(2),
    MaxPool(5),
    AveragePool(2),
    AveragePool(5),
    BatchNorm(),
    LayerNorm(),
    GRU(5),
    GRU(5, 2),
    LSTM(5),
    LSTM(5, 2),
    Positions(),
    Positions("learned"),
    SelfAttention(3),
    SelfAttention(2, causal=True),
    TransformerBlock(3, 2),
    TransformerBlock(2, causal=True),
]
VECTOR: list[Layer] = [GlobalAveragePool(), GlobalMaxPool(), TakeLast()]
OTHER: list[tuple[Layer, Shape]] = [
    (Embedding(5), (T,)),
    (Embedding(4, 9), (3,)),
    (LayerNorm(), (7,)),
    (BatchNorm(), (7,)),
    (InceptionBlock(), (1, 20)),
    (GlobalMaxPool(), (3, 5, 4)),
    (Positions(), (5, 8)),
    (Flatten(), (C, T)),
]
EVERY = [*((layer, (C, T)) for layer in (*SEQUENCE, *VECTOR)), *OTHER]
STACK = [
    Conv1d(8, 3, 1, "same", "relu", batch_norm=True),
    MaxPool(2),
    ResidualBlock1d(8, (3, 3), activation="elu"),
    InceptionBlock(2, 5, 4),
    Positions(),
    TransformerBlock(2),
    GRU(4, 2),
]


NAMES = [f"{layer} on {shape}" for layer, shape in EVERY]


def modules_of(layers: Sequence[Layer], shape: Shape) -> list[nn.Module]:
    """Their modules, in evaluation mode, with statistics and scales that are not 0 and 1."""
    torch.manual_seed(0)
    made = []
    for layer in layers:
        module = layer.module(shape).eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d):
                nn.init.normal_(part.running_mean)  # type: ignore[arg-type]
                nn.init.uniform_(part.running_var, 0.5, 2)  # type: ignore[arg-type]
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.normal_(part.bias)
        made.append(module)
        shape = layer.output_shape(shape)
    return made


def run(
    layers: Sequence[Layer], modules: Sequence[nn.Module], x: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The output of layers, as a network calls them, and the lengths of the outputs."""
    mask = None if lengths is None else torch.arange(x.shape[-1]) < lengths[:, None, None]
    x = sequence_modules.zeroed(x, mask)
    for layer, module in zip(layers, modules, strict=True):
        shape = tuple(x.shape[1:])
        after = mask
        if lengths is not None:
            lengths = layer.filled(lengths, shape).clamp(1)
            size = layer.output_shape(shape)
            after = torch.arange(size[1]) < lengths[:, None, None] if len(size) == 2 else None
        for number, part in enumerate(module.children()):
            x = part(x, after if number else mask) if getattr(part, "is_masked", False) else part(x)
        mask = after if x.ndim == 3 else None
        x = sequence_modules.zeroed(x, mask)
    return x, lengths


@pytest.mark.parametrize(("layer", "shape"), EVERY, ids=NAMES)
def test_shape_parameters_and_operations_are_those_of_the_module(layer: Layer, shape: Shape) -> None:
    module = layer.module(shape).eval()
    inputs = torch.randint(0, 300, (2, *shape)) if isinstance(layer, Embedding) else torch.randn(2, *shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert module(inputs).shape == (2, *layer.output_shape(shape))
    assert layer.parameters(shape) == sum(parameter.numel() for parameter in module.parameters())
    if not isinstance(layer, LSTM):  # on a CPU it is a single operator, which torch does not count
        assert counter.get_total_flops() == 2 * layer.flops(shape)
    assert layer.flops(shape) == Layer.flops(layer, shape)  # on the device "meta"


@pytest.mark.parametrize("layer", [*SEQUENCE, *VECTOR], ids=str)
def test_a_series_gives_the_same_alone_and_among_longer_ones(layer: Layer) -> None:
    modules = modules_of([layer], (C, T))
    x = torch.randn(len(LENGTHS), C, T)
    lengths = torch.tensor(LENGTHS)
    with torch.no_grad():
        outputs, filled = run([layer], modules, x, lengths)
        assert filled is not None
        compared = 0
        for series, length, output, steps in zip(x, LENGTHS, outputs, filled.tolist(), strict=True):
            try:
                shape = layer.output_shape((C, length))
            except ArchitectureError:
                continue  # too short alone
            compared += 1
            alone, _ = run([layer], modules, series[None, :, :length])
            if len(shape) == 2:
                assert shape[1] == steps == max(1, layer.filled(length, (C, T)))
                output = output[:, :steps]
            torch.testing.assert_close(output, alone[0], rtol=0, atol=1e-5)
    assert compared >= 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", [*SEQUENCE, *VECTOR, pytest.param(STACK, id="stack")], ids=str)
def test_neither_outputs_nor_gradients_depend_on_the_steps_after_a_series(
    layer: Layer | list[Layer], training: bool
) -> None:
    """Nor on how many there are, nor on the statistics of batch normalisation while it learns."""
    layers = layer if isinstance(layer, list) else [layer]
    lengths = torch.tensor(LENGTHS)
    torch.manual_seed(1)
    short = torch.randn(len(LENGTHS), C, T)
    results = []
    for more in (0, 7):
        # Positions are the same with fewer steps than the module was made for.
        modules = modules_of(layers, (C, T + 7))
        for module in modules:
            module.train(training)
        x = torch.cat([short, torch.randn(len(LENGTHS), C, more)], 2)
        x = torch.where(torch.arange(T + more) < lengths[:, None, None], x, torch.randn_like(x) * 100)
        x.requires_grad_()
        outputs, filled = run(layers, modules, x, lengths)
        outputs.square().sum().backward()  # type: ignore[no-untyped-call]
        parameters = [p for module in modules for p in module.parameters()]
        gradients = [p.grad[:, :T] if p.shape == (C, T + 7) else p.grad for p in parameters if p.grad is not None]
        assert x.grad is not None
        assert all(torch.equal(x.grad[i, :, n:], torch.zeros(C, T + more - n)) for i, n in enumerate(LENGTHS))
        state = [value for module in modules for value in module.buffers() if value.shape != (C, T + 7)]
        outputs = outputs.detach()
        short_outputs = outputs if outputs.ndim == 2 else outputs[:, :, : int(filled.max())]  # type: ignore[union-attr]
        results.append([short_outputs, x.grad[:, :, :T], *gradients, *state])
    for first, second in zip(*results, strict=True):
        scale = max(1.0, float(first.abs().max()))
        torch.testing.assert_close(first / scale, second / scale, rtol=0, atol=1e-5)


def test_batch_normalisation_learns_from_the_steps_that_series_have() -> None:
    torch.manual_seed(0)
    masked, plain = sequence_modules.MaskedBatchNorm1d(C), nn.BatchNorm1d(C)
    for norm in (masked, plain):
        nn.init.constant_(norm.weight, 1.5)
    assert masked.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(3, C, T) * 3 + 40
    lengths = torch.tensor([17, 5, 2])
    mask = torch.arange(T) < lengths[:, None, None]
    steps = x.transpose(1, 2)[mask[:, 0]]  # (24, C)
    for _ in range(3):
        ours, theirs = masked(x.masked_fill(~mask, 0), mask), plain(steps)
        torch.testing.assert_close(ours.transpose(1, 2)[mask[:, 0]], theirs, rtol=0, atol=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    everything = torch.ones(3, 1, T, dtype=torch.bool)
    torch.testing.assert_close(masked(x, everything), masked(x), rtol=0, atol=1e-5)
    assert masked(x.bfloat16(), mask).dtype == torch.bfloat16


def test_a_series_shorter_than_a_window_is_pooled_over_its_steps() -> None:
    x = torch.tensor([[-3.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])[None]
    lengths = torch.tensor([2])
    for layer, expected in ((MaxPool(4), -1.0), (AveragePool(4), -2.0)):
        outputs, filled = run([layer], [layer.module((1, 8))], x, lengths)
        assert filled is not None
        assert (outputs.tolist(), filled.tolist()) == ([[[expected, 0.0]]], [1])
    assert MaxPool(4).filled(11, (1, 16)) == 2  # a remainder is left out


@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_the_transformer_are_torch_s(causal: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, T)
    lengths = torch.tensor([T, 6, 1])
    padding = torch.arange(T) >= lengths[:, None]  # theirs is true where a step is to be ignored
    later = nn.Transformer.generate_square_subsequent_mask(T).isinf() if causal else None
    theirs = nn.TransformerEncoderLayer(
        8, 2, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    [block] = TransformerBlock(2, 3, causal=causal).module((8, T)).children()
    [attention] = SelfAttention(2, causal=causal).module((8, T)).children()
    copied = {
        "attention.projections.weight": "self_attn.in_proj_weight",
        "attention.projections.bias": "self_attn.in_proj_bias",
        "attention.output": "self_attn.out_proj",
        "attention_norm": "norm1",
        "norm": "norm2",
        "wide": "linear1",
        "narrow": "linear2",
    }
    state = theirs.state_dict()
    ours = {
        name: state[next(re.sub(f"^{a}", b, name) for a, b in copied.items() if re.match(rf"{a}(\.|$)", name))]
        for name in block.state_dict()
    }
    block.load_state_dict(ours)
    inner = "attention."
    attention.load_state_dict({n.removeprefix(inner): v for n, v in ours.items() if n.startswith(inner)})
    for mask, ignored in ((None, None), (~padding[:, None], padding)):
        kept = torch.ones(3, T, dtype=torch.bool) if ignored is None else ~ignored
        steps = x.transpose(1, 2)
        expected = theirs(steps, src_mask=later, src_key_padding_mask=ignored)
        torch.testing.assert_close(block(x, mask).transpose(1, 2)[kept], expected[kept], rtol=0, atol=1e-5)
        expected = theirs.self_attn(steps, steps, steps, key_padding_mask=ignored, attn_mask=later)[0]
        torch.testing.assert_close(attention(x, mask).transpose(1, 2)[kept], expected[kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layer", "kind"), [(GRU(5, 2), nn.GRU), (LSTM(5, 2), nn.LSTM), (GRU(5), nn.GRU)])
def test_recurrent_layers_are_torch_s(layer: GRU | LSTM, kind: Any) -> None:
    torch.manual_seed(0)
    [module] = layer.module((C, T)).children()
    theirs = kind(C, 5, batch_first=True, bidirectional=layer.directions == 2)
    state = {}
    for name, value in module.state_dict().items():
        direction, _, weight = name.partition(".")
        state[weight + ("_reverse" if direction == "backwards" else "")] = value
    theirs.load_state_dict(state)
    x = torch.randn(len(LENGTHS), C, T)
    lengths = torch.tensor(LENGTHS)
    mask = torch.arange(T) < lengths[:, None, None]
    torch.testing.assert_close(module(x), theirs(x.transpose(1, 2))[0].transpose(1, 2), rtol=0, atol=1e-5)
    packed = nn.utils.rnn.pack_padded_sequence(x.transpose(1, 2), lengths, batch_first=True)
    expected = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0].transpose(1, 2)
    torch.testing.assert_close(sequence_modules.zeroed(module(x, mask), mask), expected, rtol=0, atol=1e-5)


def test_convolutions_norms_and_positions_are_torch_s() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, C, T)
    for layer, pads in ((Conv1d(4, 3, 2, "causal", dilation=2), (4, 0)), (Conv1d(4, 3, 2, "same"), (1, 1))):
        [conv] = layer.module((C, T)).children()
        assert isinstance(conv, nn.Conv1d)
        padded = nn.functional.pad(x, pads)
        expected = nn.functional.conv1d(padded, conv.weight, conv.bias, 2, dilation=layer.dilation)
        torch.testing.assert_close(conv(x), expected)
    assert torch.equal(LayerNorm().module((C, T))(x).transpose(1, 2), nn.LayerNorm(C)(x.transpose(1, 2)))
    added = Positions().module((5, T))(torch.zeros(1, 5, T))[0]
    for channel in range(5):
        angle = torch.arange(T) / 10_000 ** (channel // 2 * 2 / 5)
        torch.testing.assert_close(added[channel], angle.cos() if channel % 2 else angle.sin())
    assert torch.equal(TakeLast().module((C, T))(x), x[:, :, -1])
    assert torch.equal(GlobalMaxPool().module((C, T, 1))(x[..., None]), x.amax(2))


def test_residual_and_inception_blocks_are_those_of_the_papers() -> None:
    [residual] = ResidualBlock1d(4).module((C, T)).eval().children()
    assert isinstance(residual, sequence_modules.Residual1d)
    x, y = torch.randn(2, C, T), None
    for conv, norm in zip(residual.convolutions, residual.norms, strict=True):
        y = norm(conv(x if y is None else y.relu()))
    torch.testing.assert_close(residual(x), (y + residual.projection_norm(residual.projection(x))).relu())
    assert InceptionBlock().kernels == (39, 19, 9)
    # The first module sees a series of one channel, without a bottleneck; the later ones 128 channels.
    assert InceptionBlock().parameters((1, 50)) == 32 * (39 + 19 + 9) + 32 + 2 * 4 * 32
    assert InceptionBlock().parameters((128, 50)) == 128 * 32 + 32 * 32 * (39 + 19 + 9) + 128 * 32 + 2 * 4 * 32


CAUSAL = [
    Conv1d(4, 3, 1, "causal", dilation=2),
    Conv1d(4, 4, 2, "causal"),
    SeparableConv1d(4, 3, 3, "causal", batch_norm=True),
    SelfAttention(2, causal=True),
    TransformerBlock(2, causal=True),
    GRU(4),
    LSTM(4),
]


@pytest.mark.parametrize("layer", CAUSAL, ids=str)
def test_causal_layers_do_not_see_later_steps(layer: Layer) -> None:
    [module] = modules_of([layer], (C, T))
    stride = getattr(layer, "stride", 1)
    x = torch.randn(2, C, T)
    with torch.no_grad():
        before = module(x)
        for first in (1, 8, 16):
            changed = x.clone()
            changed[:, :, first:] += 10
            same = (first - 1) // stride + 1  # outputs before the change
            torch.testing.assert_close(module(changed)[..., :same], before[..., :same], rtol=0, atol=1e-5)
            if same < before.shape[2]:
                assert (module(changed)[..., same:] - before[..., same:]).abs().max() > 1e-3


def test_attention_sees_all_steps_unless_it_is_causal() -> None:
    [module] = modules_of([SelfAttention(2)], (C, T))
    x = torch.randn(1, C, T)
    changed = x.clone()
    changed[:, :, -1] += 10
    assert (module(x) - module(changed))[:, :, 0].abs().max() > 1e-3


def test_a_token_beyond_the_table_is_the_last_one() -> None:
    module = Embedding(3, 10).module((4,))
    x = module(torch.tensor([[0, 9, 10, 65_535]]))
    assert x.shape == (1, 3, 4)
    assert torch.equal(x[:, :, 1], x[:, :, 2])
    assert torch.equal(x[:, :, 1], x[:, :, 3])
    assert torch.equal(module(torch.tensor([[3.0, 9.0]])), module(torch.tensor([[3, 9]])))


@pytest.mark.parametrize(("layer", "shape"), EVERY, ids=NAMES)
def test_json_brings_back_an_equal_layer(layer: Layer, shape: Shape) -> None:
    values = json.loads(json.dumps(layer.to_dict()))
    assert values.pop("type") == type(layer).__name__
    assert type(layer).from_settings(values) == layer
    assert "\n" not in str(layer)


@pytest.mark.parametrize("layer", [*SEQUENCE, *VECTOR, Flatten()], ids=str)
def test_lengths_may_be_numbers_or_a_tensor(layer: Layer) -> None:
    lengths = torch.arange(1, T + 1)
    filled = layer.filled(lengths, (C, T))
    assert filled.dtype == torch.int64
    assert filled.tolist() == [layer.filled(length, (C, T)) for length in range(1, T + 1)]
    if layer in SEQUENCE:
        assert layer.filled(T, (C, T)) == layer.output_shape((C, T))[1]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Conv1d, {"filters": 0}, "filters must be a whole number from 1 to 65536, not 0"),
        (Conv1d, {"filters": 4, "padding": "full"}, "padding must be one of valid, same, causal, not 'full'"),
        (ResidualBlock1d, {"filters": 4, "kernels": (8, 5, 3)}, "kernels must be a list of one to eight odd"),
        (ResidualBlock1d, {"filters": 4, "kernels": ()}, "kernels must be a list of one to eight odd numbers"),
        (InceptionBlock, {"kernel": 40}, "kernel must be an odd number from 1 to 65535, not 40"),
        (GRU, {"units": 4, "directions": 3}, "directions must be 1 or 2, not 3"),
        (Positions, {"kind": "rotary"}, "kind must be one of sinusoidal, learned, not 'rotary'"),
        (TransformerBlock, {"dropout": 1.0}, "dropout must be a fraction from 0 to below 1, not 1.0"),
    ],
)
def test_bad_settings_are_one_line(kind: type[Layer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(message)) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Conv1d(4, 5),
            (3, 4),
            "its window of 5 steps is larger than the sequence of 4×3: choose a smaller kernel",
        ),
        (Conv1d(4, 3, dilation=4), (3, 8), "its window of 9 steps is larger"),
        (Conv1d(4, 4, padding="same"), (3, 8), "padding 'same' needs an odd kernel, and it has 4"),
        (Conv1d(4), (3, 8, 8), "it needs a sequence (time×channels), and gets 8×8×3"),
        (GRU(4), (12,), "gets 12 features; if they are tokens, put Embedding before it"),
        (TakeLast(), (12,), "gets 12 features; if they are tokens, put Embedding before it"),
        (ResidualBlock1d(4), (3, 8, 8), "it needs a sequence (time×channels), and gets 8×8×3"),
        (InceptionBlock(4), (12,), "it needs a sequence (time×channels)"),
        (Positions(), (12,), "it needs a sequence (time×channels)"),
        (Embedding(4), (3, 8), "it needs tokens, which have one size, and gets a map of 8×3"),
        (LayerNorm(), (3, 8, 8), "and gets an image of 8×8×3; use BatchNorm"),
        (SelfAttention(4), (6, 8), "its 4 heads share the channels equally, and it gets 6: choose heads that"),
        (TransformerBlock(5), (6, 8), "its 5 heads share the channels equally, and it gets 6"),
    ],
)
def test_bad_shapes_are_one_line(layer: Layer, shape: Shape, message: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(message)) as caught:
        layer.output_shape(shape)
    assert "\n" not in str(caught.value)
