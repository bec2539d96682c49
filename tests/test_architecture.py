"""Shapes, parameters and operations against torch itself; JSON both ways; errors that say where."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture.architecture import Architecture, Limits, distance
from nas.architecture.known import LECTURE, LENET5
from nas.architecture.layers import (
    ACTIVATIONS,
    OPERATIONS,
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Cell,
    Concatenate,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    ResidualBlock,
    SeparableConv2d,
)
from nas.errors import ArchitectureError
from nas.training.network import Network

sizes = st.integers(1, 6)
activations = st.sampled_from(ACTIVATIONS)
plain_activations = st.sampled_from([name for name in ACTIVATIONS if name != "maxout"])


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    kind = draw(st.sampled_from([Conv2d, SeparableConv2d]))
    padding = draw(st.sampled_from(["same", "valid"]))
    kernel = draw(st.sampled_from([1, 3, 5])) if padding == "same" else draw(st.integers(1, 5))
    stride = draw(st.integers(1, 3))
    return kind(draw(sizes), kernel, stride, padding, draw(activations), draw(st.booleans()))


map_layers = st.one_of(
    convolutions(),
    st.builds(ResidualBlock, sizes, st.sampled_from([1, 3]), st.integers(1, 2), plain_activations),
    st.builds(Cell, st.tuples(*[st.sampled_from(list(OPERATIONS))] * 6)),
    st.builds(MaxPool, st.integers(1, 3)),
    st.builds(AveragePool, st.integers(1, 3)),
    st.builds(BatchNorm),
    st.builds(Activation, plain_activations),
    st.builds(Dropout, st.sampled_from([0.0, 0.5])),
)
vector_layers = st.one_of(
    st.builds(Dense, sizes, activations), st.builds(Dropout, st.just(0.25)), st.builds(BatchNorm)
)
architectures = st.builds(
    lambda maps, flat, vectors: Architecture((*maps, flat, *vectors)),
    st.lists(map_layers, max_size=4),
    st.sampled_from([Flatten(), GlobalAveragePool()]),
    st.lists(vector_layers, max_size=2),
)


@given(architectures, st.integers(1, 3), st.integers(4, 12), st.integers(2, 4))
@settings(max_examples=60)
def test_shapes_parameters_and_operations_are_those_of_torch(
    architecture: Architecture, channels: int, size: int, classes: int
) -> None:
    shape = (channels, size, size + 1)
    try:
        rows = architecture.table(shape, classes)
    except ArchitectureError:
        return  # the error is tested below; torch would not take it either
    network = Network(architecture, shape, classes).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        logits = network(torch.zeros(2, *shape))
    assert logits.shape == (2, classes) == (2, *rows[-1].shape)
    assert sum(p.numel() for p in network.parameters()) == sum(row.parameters for row in rows)
    assert counter.get_total_flops() == 2 * sum(row.flops for row in rows)


@given(architectures)
def test_json_brings_back_an_equal_network_with_an_equal_id(architecture: Architecture) -> None:
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.id == architecture.id
    spaced = json.dumps(json.loads(architecture.to_json()), indent=4)
    assert Architecture.from_json(spaced).id == architecture.id


def test_ids_never_change() -> None:
    """An id is written into journals: it must be the same tomorrow, and on another machine."""
    assert LECTURE.id == "34a6b42df2ea"


def test_the_lecture_network_is_the_lecture_s() -> None:
    rows = LECTURE.table((1, 28, 28), 10)
    assert [row.shape for row in rows] == [
        (32, 26, 26), (32, 13, 13), (64, 11, 11), (64, 5, 5), (1600,), (1600,), (10,),
    ]  # fmt: skip
    assert [row.parameters for row in rows if row.parameters] == [320, 18_496, 16_010]
    assert LECTURE.parameters((1, 28, 28), 10) == 34_826
    assert LENET5.parameters((1, 28, 28), 10) == 61_706


def test_maxout_is_the_maximum_of_two_linear_maps() -> None:
    architecture = Architecture((Flatten(), Dense(3, "maxout")))
    network = Network(architecture, (1, 2, 2), 2)
    linear = next(module for module in network.modules() if isinstance(module, torch.nn.Linear))
    x = torch.rand(5, 4)
    both = linear(x)
    maxout = network.layers["2_maxout"]
    assert torch.equal(maxout(both), torch.maximum(both[:, :3], both[:, 3:]))
    assert architecture.parameters((1, 2, 2), 2) == 5 * 6 + 4 * 2


def test_a_cell_sums_at_each_node_what_its_edges_bring() -> None:
    """In the order of the benchmark: into node 1; into node 2 from 0, 1; into node 3 from 0, 1, 2."""
    cell = Cell(("avg_pool_3x3", "none", "skip_connect", "skip_connect", "none", "avg_pool_3x3"))
    network = Network(Architecture((cell, Flatten())), (2, 5, 5), 2)
    x = torch.rand(3, 2, 5, 5)
    pool = torch.nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    assert torch.allclose(network.layers["1_cell"](x), x + pool(pool(x)))
    assert str(cell) == "Cell pool | none skip | skip none pool"


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_pooling_before_the_activation_is_the_same_function(activation: str, batch_norm: bool) -> None:
    """The reordered network against the layers applied one after the other as they were written."""
    architecture = Architecture(
        (Conv2d(4, 3, activation=activation, batch_norm=batch_norm), MaxPool(2), Flatten())
    )
    network = Network(architecture, (2, 9, 9), 3).double().eval()
    modules: dict[str, Any] = dict(network.layers.named_children())
    with torch.no_grad():
        for norm in (m for m in modules.values() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.1] * (norm.num_features // 4)))
        images = torch.rand(3, 2, 9, 9, dtype=torch.float64) * 255
        conv = modules["1_conv"]
        x = torch.nn.functional.conv2d((images - network.mean) / network.std, conv.weight, conv.bias)
        x = modules["1_bn"](x) if batch_norm else x
        x = modules[f"1_{activation}"](x) if activation != "linear" else x
        x = modules["4_dense"](modules["3_flatten"](torch.nn.functional.max_pool2d(x, 2)))
        assert torch.allclose(network(images), x, atol=1e-9)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((Conv2d(4, 5), Conv2d(4, 5), MaxPool(2)), "layer 3 (MaxPool 2) on 1×1×4: its window of 2×2 is larger"),
        ((Conv2d(4, 9), Conv2d(4, 3)), "layer 2 (Conv2d 4 3×3) on 1×1×4: its window of 3×3 is larger"),
        ((Conv2d(4, 3), Dense(7)), "layer 2 (Dense 7) on 7×7×4: a dense layer needs a vector"),
        ((Conv2d(4, 3),), "layer 2 (Dense 10) on 7×7×4: a dense layer needs a vector"),
        ((Flatten(), MaxPool(2)), "layer 2 (MaxPool 2) on 81: it needs a map"),
        (
            (Conv2d(4, 2, padding="same"),),
            "layer 1 (Conv2d 4 2×2 same) on 9×9×1: padding 'same' needs an odd kernel",
        ),
    ],
)
def test_a_layer_that_does_not_fit_says_where_and_why(layers: tuple[Layer, ...], words: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture(layers).table((1, 9, 9), 10)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"layers":[{"type":"Conv2d","filters":-3}]}', "layer 1: Conv2d: filters must be a whole number from 1"),
        ('{"layers":[{"type":"Conv2d","filters":true}]}', "filters must be a whole number"),
        ('{"layers":[{"type":"Flatten"},{"type":"Conv2D","filters":3}]}', "layer 2: there is no layer 'Conv2D'"),
        ('{"layers":[{"type":"Dense","unit":3}]}', "there is no Dense setting 'unit'; did you mean 'units'?"),
        ('{"layers":[{"type":"Dense"}]}', "Dense: units is missing"),
        ('{"layers":[{"type":"Dense","units":3,"activation":"rellu"}]}', "activation must be one of"),
        ('{"layers":[{"type":"Activation","name":"maxout"}]}', "name must be one of"),
        ('{"layers":[{"type":"Dropout","rate":1.5}]}', "rate must be a fraction"),
        ('{"layers":[{"type":"Cell","operations":["none"]}]}', "operations must be six of none, skip_connect"),
        ('{"layers":[{"type":"Cell","operations":[1,2,3,4,5,6]}]}', "operations must be six of none"),
        ('{"layers":[{"type":"Pretrained","model":"resnet81"}]}', "no torchvision model 'resnet81'; did you mean"),
        ('{"layers":[{"type":"Pretrained","model":[]}]}', "model must be the name of a torchvision model"),
        ('{"layers":["Dense"]}', 'a layer is an object with a "type"'),
        ('{"layers":' + "[" * 100_000, "this is not JSON"),
        ("[1, 2]", 'an architecture is a JSON object with a list of "layers"'),
        ('{"format":9,"layers":[]}', "format 9 is not known"),
        ('{"layers":[' + ",".join(['{"type":"Flatten"}'] * 1001) + "]}", "1001 layers are more than 1000"),
    ],
)  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_json(text)
    assert words in str(caught.value)


def test_limits_name_what_is_exceeded() -> None:
    Limits(max_parameters=34_826, max_flops=4_881_920).check(LECTURE)
    with pytest.raises(ArchitectureError, match="34,826 parameters, more than the 34,825 allowed"):
        Limits(max_parameters=34_825).check(LECTURE)
    with pytest.raises(ArchitectureError, match="flops, more than"):
        Limits(max_flops=4_881_919).check(LECTURE)


GRAPH = Architecture(
    (
        Conv2d(4, padding="same", activation="relu"),
        Conv2d(4, padding="same", activation="elu"),
        Add(inputs=(1, 2)),
        MaxPool(2),
        Conv2d(6, 1, inputs=(4,)),
        Concatenate(inputs=(5, 4)),
        GlobalAveragePool(),
    )
)


def test_a_graph_computes_what_its_layers_name() -> None:
    network = Network(GRAPH, (1, 8, 8), 3).eval()
    x = torch.rand(2, 1, 8, 8) * 255
    part = network.layers
    first = torch.relu(part["1_conv"](x / 255))
    pooled = torch.nn.functional.max_pool2d(first + part["2_elu"](part["2_conv"](first)), 2)
    both = torch.cat([part["5_conv"](pooled), pooled], 1)
    torch.testing.assert_close(network(x), part["8_dense"](both.mean((2, 3))))
    assert sum(p.numel() for p in network.parameters()) == GRAPH.parameters((1, 8, 8), 3)


def test_an_activation_that_a_graph_needs_elsewhere_stays_before_the_pooling() -> None:
    both = (
        Conv2d(3, 3, padding="same", activation="relu"),
        MaxPool(2),
        MaxPool(2, inputs=(1,)),
        Add(inputs=(2, 3)),
    )
    network = Network(Architecture((*both, Flatten())), (1, 4, 4), 2).eval()
    x = torch.rand(2, 1, 4, 4) * 255
    convolution = network.layers["1_conv"]
    assert isinstance(convolution, torch.nn.Conv2d)
    maps = torch.relu(torch.nn.functional.conv2d(x / 255, convolution.weight, convolution.bias, padding=1))
    expected = 2 * torch.nn.functional.max_pool2d(maps, 2)
    torch.testing.assert_close(network(x), network.layers["6_dense"](expected.flatten(1)))


def test_a_graph_is_written_and_read_and_a_chain_is_written_as_ever() -> None:
    assert Architecture.from_json(GRAPH.to_json()) == GRAPH
    assert json.loads(GRAPH.to_json())["layers"][2] == {"inputs": [1, 2], "type": "Add"}
    assert "inputs" not in LECTURE.to_json()
    named = Architecture((Conv2d(4, inputs=(0,)), Flatten(inputs=(1,))))
    assert named.id == Architecture((Conv2d(4), Flatten())).id


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([{"type": "Flatten", "inputs": [1]}], "layer 1 .* names layer 1 as an input, .* name 0"),
        ([{"type": "Flatten", "inputs": [2]}, {"type": "Flatten"}], "layer 1 .* layer 2 .* does not come before"),
        ([{"type": "Flatten"}, {"type": "Flatten", "inputs": [0]}], "layer 1 .* leads nowhere"),
        ([{"type": "Flatten"}, {"type": "Add"}], "layer 2 .* merges two inputs or more"),
        ([{"type": "Flatten"}, {"type": "Flatten", "inputs": [0, 1]}], "layer 2 .* takes one input, and names 2"),
        ([{"type": "Flatten", "inputs": [-1]}], "layer 1: Flatten: inputs must be a list of at most 64 positions"),
        ([{"type": "Flatten", "inputs": "0"}], "layer 1: Flatten: inputs must be"),
        ([{"type": "Flatten", "inputs": [0] * 65}], "at most 64"),
    ],
)
def test_a_graph_that_cannot_be_is_one_line(layers: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words) as caught:
        Architecture.from_dict({"layers": layers})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (Add(inputs=(1, 2)), r"layer 3 \(Add ← 1, 2\) on 7×7×4 and 6×6×4: it adds inputs of one shape"),
        (Concatenate(inputs=(1, 2)), "it concatenates maps of the same sizes, and gets 7×7×4 and 6×6×4"),
    ],
)
def test_shapes_that_do_not_meet_are_named(merge: Layer, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        Architecture((Conv2d(4, 2), Conv2d(4, 2), merge)).table((1, 8, 8), 2)


def test_what_a_layer_follows_counts_in_the_distance() -> None:
    layers = (Conv2d(4, padding="same"), Conv2d(4, padding="same"), Conv2d(4, padding="same"))
    one, other = (Architecture((*layers, Add(inputs=inputs))) for inputs in ((1, 2, 3), (0, 2, 3)))
    assert distance(one, one) == 0 < distance(one, other) == distance(other, one) < 1.5
    chain = Architecture(layers)
    assert distance(chain, Architecture(layers[:2])) == 1


def test_a_sequence_has_one_size_and_passes_through_what_knows_no_direction() -> None:
    layers = (BatchNorm(), MaxPool(2), AveragePool(3), Dropout(0.5), GlobalAveragePool(), Dense(5, "relu"))
    network = Network(Architecture(layers), (3, 20), 4, mean=[0.0] * 3, std=[1.0] * 3)
    assert [row.shape for row in Architecture(layers).table((3, 20), 4)][:3] == [(3, 20), (3, 10), (3, 3)]
    assert network(torch.randn(2, 3, 20)).shape == (2, 4)
    assert Network(Architecture((Dense(5),)), (7,), 4, mean=[0.0] * 7, std=[1.0] * 7)(torch.randn(2, 7)).shape == (
        2,
        4,
    )
    with pytest.raises(ArchitectureError, match=r"it needs an image \(height×width×channels\), and gets 20×3"):
        Architecture((Conv2d(4),)).table((3, 20), 4)
