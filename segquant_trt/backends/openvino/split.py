"""Keep OpenVINO's int8 sums exact on CPUs whose int8 instruction saturates (see `probe`).

OpenVINO has no setting against it. Every weight is split, `w = a + b` with both halves within
-64..64: 2 * 255 * 64 fits 16 bits, the 32-bit sums are exact, and the site stays in integers at
the price of a second product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper

from segquant_trt.backends.base import Array
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.qdq import codes_behind, weight_codes_behind
from segquant_trt.graph.wiring import Wiring, node_name

HALF = "/half"
_EXACT = 64


def split_weights(
    model: onnx.ModelProto, folder: Path, given: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A copy of the graph in which every quantised site is the sum of two, and the halves' data.

    Weights that are within -64..64 anyway stay whole. `given`: values that the graph lacks.
    """
    wiring = Wiring(model.graph)
    weights = Weights(model, folder)
    names = FreshNames(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    arrays: dict[str, Array] = {}
    for node in model.graph.node:
        codes = _codes(node, wiring)
        stored = None if codes is None else given.get(codes)
        if codes is not None and stored is None:
            stored = weights.read(codes)
        whole = np.zeros(0, np.int16) if stored is None else stored.astype(np.int16)
        if codes is None or np.abs(whole).max(initial=0) <= _EXACT:
            copy.graph.node.append(node)
            continue
        half = names.fresh(f"{codes}{HALF}")
        arrays[codes] = (whole >> 1).astype(np.int8)
        arrays[half] = (whole - (whole >> 1)).astype(np.int8)
        tensor = onnx.TensorProto()
        tensor.CopyFrom(wiring.initializers[codes])
        tensor.name = half
        copy.graph.initializer.append(tensor)
        copy.graph.node.extend(_two(node, wiring.producer[node.input[1]], half, names))
    return copy, arrays


def _codes(node: NodeProto, wiring: Wiring) -> str | None:
    """The weight's codes where the activation has codes too."""
    if node.op_type not in ("MatMul", "Conv") or codes_behind(node.input[0], wiring) is None:
        return None
    return weight_codes_behind(node.input[1], wiring)


def _two(node: NodeProto, decode: NodeProto, half: str, names: FreshNames) -> list[NodeProto]:
    """`node` on either half of its weight, and their sum; the bias stays with the first."""
    first, second, decode_half = NodeProto(), NodeProto(), NodeProto()
    for copy, original in ((first, node), (second, node), (decode_half, decode)):
        copy.CopyFrom(original)
    decode_half.input[0] = half
    decode_half.output[0] = names.fresh(f"{half}_decoded")
    decode_half.name = names.fresh(f"{decode.name}{HALF}")
    second.name = names.fresh(f"{node_name(node)}{HALF}")
    del second.input[2:]
    second.input[1] = decode_half.output[0]
    first.output[0] = names.fresh(f"{node.output[0]}_first")
    second.output[0] = names.fresh(f"{node.output[0]}_second")
    total = helper.make_node("Add", [first.output[0], second.output[0]], [node.output[0]])
    total.name = names.fresh(f"{node_name(node)}/sum")
    return [first, decode_half, second, total]
