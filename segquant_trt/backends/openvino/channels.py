"""Tell OpenVINO the channels of what it fuses into a convolution's QuantizeLinear.

A Mul, Div or Add of one number per channel right before QuantizeLinear (a divisor, an affine norm)
becomes part of it. Where the number of channels is not known when the graph is compiled, as behind
a Reshape to computed lengths, the fused step is wrong for convolutions in OpenVINO 2025.3 to
2026.4: 2 to 13 dB instead of 136, and nothing is said. Linears are exact.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.qdq import codes_behind, weight_codes_behind
from segquant_trt.graph.wiring import Wiring, node_name

_FUSED = frozenset({"Mul", "Div", "Add", "Sub", "Relu", "Min", "Max", "Clip"})


def name_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what is fused into the codes of a convolution has known channels."""
    wiring = Wiring(model.graph)
    names = FreshNames(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    first: dict[str, tuple[int, ...]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and weight_codes_behind(node.input[1], wiring):
            found = _first_fused(node, wiring)
            if found is not None:
                first[node_name(found)] = _lengths(node, wiring)
    del copy.graph.node[:]
    for node in model.graph.node:
        lengths = first.get(node_name(node))
        copy.graph.node.append(node)
        if lengths is None:
            continue
        source = _varying(node, wiring)
        shape, result = names.fresh(f"{source}_channels"), names.fresh(f"{source}_of_channels")
        copy.graph.initializer.append(numpy_helper.from_array(np.array(lengths, np.int64), shape))
        reader = copy.graph.node.pop()
        reader.input[:] = [result if name == source else name for name in reader.input]
        made = helper.make_node("Reshape", [source, shape], [result], name=result)
        copy.graph.node.extend([made, reader])
    return copy


def _first_fused(node: NodeProto, wiring: Wiring) -> NodeProto | None:
    """The first of the nodes between a convolution's codes and what varies in more than one way."""
    if codes_behind(node.input[0], wiring) is None:
        return None
    encode = wiring.producer[wiring.producer[node.input[0]].input[0]]
    first, tensor = None, encode.input[0]
    while (maker := wiring.producer.get(tensor)) is not None and maker.op_type in _FUSED:
        if sum(name not in wiring.constants for name in maker.input if name) != 1:
            break
        first, tensor = maker, _varying(maker, wiring)
    return first


def _varying(node: NodeProto, wiring: Wiring) -> str:
    return next(name for name in node.input if name and name not in wiring.constants)


def _lengths(node: NodeProto, wiring: Wiring) -> tuple[int, ...]:
    """Of a Reshape that says how many channels the convolution reads, and nothing else."""
    codes = weight_codes_behind(node.input[1], wiring)
    assert codes is not None
    dims = wiring.initializers[codes].dims
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return 0, dims[1] * groups, *[0] * (len(dims) - 2)
