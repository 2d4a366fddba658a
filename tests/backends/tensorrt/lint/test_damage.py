"""Files damaged at random are judged, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from segquant_trt.backends.tensorrt.lint import TARGETS, lint
from tests.backends.tensorrt.lint.bases import BASES

Random = np.random.Generator
OPERATORS = (
    "Concat", "MatMul", "Conv", "Softmax", "Attention", "DequantizeLinear", "QuantizeLinear",
    "Transpose", "Gather", "Constant", "If", "GroupNormalization", "Cast", "Anything",
)  # fmt: skip


def pick(found: Any, random: Random) -> Any:
    return found[int(random.integers(len(found)))]


def lose_input(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    del node.input[int(random.integers(len(node.input)))]


def empty_input(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    node.input[int(random.integers(len(node.input)))] = ""


def lose_outputs(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    del node.output[:]


def lose_attribute(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    del node.attribute[int(random.integers(len(node.attribute)))]


def lose_constant(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    graph.initializer.remove(pick(graph.initializer, random))


def lose_node(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    graph.node.remove(node)


def retype(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    pick(graph.initializer, random).data_type = int(random.integers(1, 24))


def flatten(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    del pick(graph.initializer, random).dims[:]


def deepen(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    pick(graph.initializer, random).dims.append(7)


def retype_input(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    pick(graph.input, random).type.tensor_type.elem_type = int(random.integers(24))


def rename_operator(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    node.op_type = pick(OPERATORS, random)


def more_inputs(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    node.input.extend(pick(graph.node, random).output)


def other_number(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    found = pick(node.attribute, random)
    found.i, found.type = int(random.integers(-9, 9)), onnx.AttributeProto.INT


def rewire(graph: onnx.GraphProto, node: onnx.NodeProto, random: Random) -> None:
    node.input[0] = pick(pick(graph.node, random).output, random)


DAMAGES: tuple[Callable[[onnx.GraphProto, onnx.NodeProto, Random], None], ...] = (
    lose_input, empty_input, lose_outputs, lose_attribute, lose_constant, lose_node, retype,
    flatten, deepen, retype_input, rename_operator, more_inputs, other_number, rewire,
)  # fmt: skip


def damaged(seed: int) -> onnx.ModelProto:
    random, bases = np.random.default_rng(seed), list(BASES)
    model = BASES[bases[seed % len(bases)]](seed % 13)
    for _ in range(int(random.integers(1, 5))):
        try:
            pick(DAMAGES, random)(model.graph, pick(model.graph.node, random), random)
        except ValueError:
            continue  # there is nothing to lose
    return model


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(s, marks=pytest.mark.full)
                                               for s in range(16, 200))])  # fmt: skip
def test_every_damage_is_judged(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for number in range(seed * 10, seed * 10 + 10):
        path.write_bytes(damaged(number).SerializeToString())
        for target in TARGETS:
            assert lint(path, target=target).as_dict()["outcome"]
