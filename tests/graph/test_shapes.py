"""Inferred shapes against those of ONNX's reference, symbols replaced by numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from segquant_trt.graph.dims import Dim, Expr
from segquant_trt.graph.view import GraphView
from tests.analyze.graphs import Drawing
from tests.graph.test_dims import value

LENGTHS = {"batch": 2, "height": 6, "width": 9, "tokens": 7}


def image(d: Drawing) -> str:
    return d.input("x", "batch", 4, "height", "width")


def rows(d: Drawing) -> str:
    return d.input("x", "batch", "tokens", 24)


def shape_sum(d: Drawing) -> str:
    """tokens of one input beside those of another, then split again where they met."""
    left, right = rows(d), d.input("y", "batch", 3, 24)
    joined = d.op("Concat", left, right, axis=1)
    length = d.op("Gather", d.op("Shape", left), d.constant([1], np.int64), axis=0)
    end = d.constant([2**62], np.int64)
    return d.op("Slice", joined, length, end, d.constant([1], np.int64))


def computed_halves(d: Drawing) -> str:
    """chunk() as the TorchScript exporter writes it."""
    x = rows(d)
    length = d.op("Gather", d.op("Shape", x), d.constant(2, np.int64), axis=0)
    half = d.op("Div", d.op("Add", length, d.constant(1, np.int64)), d.constant(2, np.int64))
    axes = d.constant([0], np.int64)
    start, end = (
        d.op("Mul", half, d.constant(1, np.int64)),
        d.op("Mul", half, d.constant(2, np.int64)),
    )
    bounds = [d.op("Unsqueeze", bound, axes) for bound in (start, end)]
    return d.op("Slice", x, *bounds, d.constant([2], np.int64))


def decomposed_group_norm(d: Drawing) -> str:
    """[B, C, H, W] -> [B, G, -1] -> norm -> the first shape again."""
    x = image(d)
    grouped = d.op("Reshape", x, d.constant([0, 2, -1], np.int64))
    scale, shift = d.constant(np.ones(2)), d.constant(np.zeros(2))
    normal = d.op("InstanceNormalization", grouped, scale, shift)
    return d.op("Reshape", normal, d.op("Shape", x))


def flattened_image(d: Drawing) -> str:
    x = image(d)
    sizes = d.op("Shape", x, start=2)
    count = d.op("ReduceProd", sizes, keepdims=1)
    batch = d.op("Shape", x, end=1)
    target = d.op("Concat", batch, count, d.constant([4], np.int64), axis=0)
    return d.op("Reshape", d.op("Transpose", x, perm=[0, 2, 3, 1]), target)


def expanded_by_where(d: Drawing) -> str:
    """expand() as the TorchScript exporter writes it: -1 means 'as it is'."""
    x = d.input("x", "batch", 1, 24)
    wanted = d.constant([-1, 5, -1], np.int64)
    ones = d.op("ConstantOfShape", d.op("Shape", wanted), value=onnx.helper.make_tensor(
        "one", onnx.TensorProto.INT64, [1], [1]))  # fmt: skip
    unset = d.op("Equal", wanted, d.op("Mul", ones, d.constant(-1, np.int64)))
    return d.op("Expand", x, d.op("Where", unset, ones, wanted))


def upsampled(d: Drawing) -> str:
    x = d.conv("down", image(d), 4, 8)
    empty = d.constant([], np.float32)
    return d.op("Resize", x, empty, d.constant([1, 1, 2, 2]), mode="nearest")


def resized_to_another(d: Drawing) -> str:
    x = image(d)
    pooled = d.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    spatial = d.op("Shape", x, start=2)
    sizes = d.op("Concat", d.op("Shape", pooled, end=2), spatial, axis=0)
    empty = d.constant([], np.float32)
    return d.op("Resize", pooled, empty, empty, sizes, mode="nearest")


def strided(d: Drawing) -> str:
    weight = d.constant(np.ones((8, 4, 3, 3)))
    return d.op("Conv", image(d), weight, strides=[2, 2], pads=[1, 1, 1, 1])


def sequence(d: Drawing) -> str:
    parts = d.op("SplitToSequence", rows(d), d.constant([8, 16], np.int64), axis=2)
    return d.op("SequenceAt", parts, d.constant(1, np.int64))


def split_in_five(d: Drawing) -> str:
    return d.ops("Split", rows(d), outputs=5, axis=2, num_outputs=5)[4]


CASES: tuple[tuple[str, Callable[[Drawing], str], bool], ...] = (
    ("reshape copies and infers", lambda d: d.reshape(rows(d), 0, -1, 4, 6), True),
    ("flatten", lambda d: d.op("Flatten", rows(d), axis=2), True),
    ("transpose", lambda d: d.op("Transpose", rows(d), perm=[2, 0, 1]), True),
    ("default transpose", lambda d: d.op("Transpose", rows(d)), True),
    ("unsqueeze", lambda d: d.unsqueeze(rows(d), -1), True),
    ("squeeze", lambda d: d.op("Squeeze", d.unsqueeze(rows(d), 1)), True),
    ("concat", lambda d: d.op("Concat", rows(d), d.input("y", "batch", 3, 24), axis=1), True),
    ("slice from behind", lambda d: d.slice(rows(d), -5, -1, 2), True),
    ("slice of a symbolic axis", lambda d: d.slice(rows(d), 2, 2**31 - 1, 1), True),
    ("split", lambda d: d.split(rows(d), 4, 20)[1], True),
    ("split in parts", split_in_five, True),
    ("gather", lambda d: d.op("Gather", rows(d), d.constant([1, 3], np.int64), axis=2), True),
    ("gather scalar", lambda d: d.op("Gather", rows(d), d.constant(1, np.int64), axis=1), True),
    ("tile", lambda d: d.op("Tile", rows(d), d.constant([1, 2, 3], np.int64)), True),
    ("pad", lambda d: d.op("Pad", rows(d), d.constant([0, 1, 2, 0, 3, 4], np.int64)), True),
    ("matmul", lambda d: d.linear("site", rows(d), 24, 5), True),
    ("mean", lambda d: d.op("ReduceMean", rows(d), d.constant([1], np.int64), keepdims=0), True),
    ("einsum", lambda d: d.op("Einsum", rows(d), rows(d), equation="bsc,btc->bst"), True),
    ("space to depth", lambda d: d.op("SpaceToDepth", d.input("x", 2, 4, 6, 8), blocksize=2), True),
    ("argmax", lambda d: d.op("ArgMax", rows(d), axis=1, keepdims=0), True),
    ("computed sum of lengths", shape_sum, True),
    ("computed halves", computed_halves, True),
    ("decomposed group norm", decomposed_group_norm, True),
    ("flattened image", flattened_image, True),
    ("expand with a mask", expanded_by_where, True),
    ("resize by scales", upsampled, True),
    ("resize to another's size", resized_to_another, True),
    ("strided convolution", strided, True),
    ("sequence", sequence, True),
    ("non-zero count", lambda d: d.op("NonZero", rows(d)), False),
)  # fmt: skip


@pytest.mark.parametrize(("build", "complete"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_shapes_are_those_of_the_reference(build: Callable[[Drawing], str], complete: bool) -> None:
    drawing = Drawing()
    result = build(drawing)
    view = GraphView.of(drawing.model())
    floats = [n for node in drawing.nodes for n in node.output if node.op_type != "SplitToSequence"]
    feeds = {
        name: np.ones([LENGTHS.get(str(dim), dim) for dim in dims], np.float32)
        for name, dims in drawing.inputs.items()
    }
    actual = dict(zip(floats, drawing.run(feeds, *floats), strict=True))
    for name, array in actual.items():
        shape = view.shapes.of(name)
        assert shape is not None
        assert len(shape) == array.ndim
        for dim, length in zip(shape, array.shape, strict=True):
            assert not is_known(dim) or value(dim, LENGTHS) == length, name
    assert all(map(is_known, view.shapes.of(result) or ())) == complete


def is_known(dim: Dim) -> bool:
    """Whether the length follows from the inputs'."""
    return not isinstance(dim, Expr) or not any(
        "?" in atom for term, _ in dim.terms for atom in term
    )


@pytest.mark.parametrize(("build", "complete"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_values_of_shapes_are_those_of_the_reference(
    build: Callable[[Drawing], str], complete: bool
) -> None:
    del complete
    drawing = Drawing()
    build(drawing)
    view = GraphView.of(drawing.model())
    known: dict[str, Any] = {}
    for node in drawing.nodes:
        for name in node.output:
            found = view.shapes.value(name)
            if found is not None:
                known[name] = found
    feeds = {
        name: np.ones([LENGTHS.get(str(dim), dim) for dim in dims], np.float32)
        for name, dims in drawing.inputs.items()
    }
    for name, array in zip(known, drawing.run(feeds, *known) if known else [], strict=True):
        numbers = [value(item, LENGTHS) if isinstance(item, Expr) else item
                   for item in known[name].reshape(-1)]  # fmt: skip
        np.testing.assert_array_equal(np.array(numbers, float).reshape(array.shape), array)


def test_declared_zeros_and_wrong_lengths_are_not_trusted() -> None:
    drawing = Drawing()
    x = drawing.input("x", "batch", 0, 24)
    result = drawing.reshape(x, 0, -1, 4, 6)
    model = drawing.model()
    kind = onnx.TensorProto.FLOAT
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(result, kind, [0, 77, 4, 5]))
    shape = GraphView.of(model).shapes.of(result)
    assert shape is not None
    assert shape[2:] == (4, 6)
    assert isinstance(shape[1], Expr)


def test_what_is_declared_behind_an_unknown_operator_is_used() -> None:
    drawing = Drawing()
    result = drawing.op("Flash", drawing.input("x", "batch", "tokens", 24), domain="my.ops")
    model = drawing.model()
    kind = onnx.TensorProto.FLOAT
    declared = onnx.helper.make_tensor_value_info(result, kind, ["batch", "n", 48])
    model.graph.value_info.append(declared)
    shape = GraphView.of(model).shapes.of(result)
    assert shape is not None
    assert shape[2] == 48
    assert len(set(map(str, shape))) == 3
