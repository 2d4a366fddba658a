"""Pad before quantising instead of inside the convolution: zeros become the zero code exactly.

A convolution of uint8 codes with a zero point must treat its padding as that zero point. Where a
kernel gets this wrong, the padding is made a node of its own, in float, in front of Q/DQ.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.qdq import codes_behind, weight_codes_behind
from segquant_trt.graph.wiring import Wiring, node_name


def pad_explicitly(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no quantised convolution pads; unquantised ones stay as they are."""
    wiring = Wiring(model.graph)
    names = FreshNames(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    for node in model.graph.node:
        pads = _pads(node)
        if not any(pads) or not _quantised(node, wiring):
            copy.graph.node.append(node)
            continue
        amounts = names.fresh(f"{node_name(node)}/pads")
        half = len(pads) // 2
        full = [0, 0, *pads[:half], 0, 0, *pads[half:]]
        copy.graph.initializer.append(
            numpy_helper.from_array(np.array(full, dtype=np.int64), amounts)
        )
        copy.graph.node.extend(_padded(node, amounts, wiring, names))
    return copy


def _pads(node: NodeProto) -> list[int]:
    found = (a.ints for a in node.attribute if a.name == "pads")
    return list(next(found, [])) if node.op_type == "Conv" else []


def _quantised(node: NodeProto, wiring: Wiring) -> bool:
    return bool(weight_codes_behind(node.input[1], wiring) and codes_behind(node.input[0], wiring))


def _padded(node: NodeProto, amounts: str, wiring: Wiring, names: FreshNames) -> list[NodeProto]:
    decode = wiring.producer[node.input[0]]
    encode = wiring.producer[decode.input[0]]
    wide = names.fresh(f"{node_name(node)}/padded")
    codes, decoded = names.fresh(f"{wide}_codes"), names.fresh(f"{wide}_decoded")
    pad = helper.make_node("Pad", [encode.input[0], amounts], [wide], name=wide)
    steps = list(encode.input[1:])
    first = helper.make_node("QuantizeLinear", [wide, *steps], [codes], name=f"{codes}/Q")
    second = helper.make_node("DequantizeLinear", [codes, *steps], [decoded], name=f"{codes}/DQ")
    convolution = NodeProto()
    convolution.CopyFrom(node)
    convolution.input[0] = decoded
    for attribute in convolution.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0] * len(attribute.ints)
    return [pad, first, second, convolution]
