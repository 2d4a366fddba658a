"""Give every reader of a stored quantised tensor a copy of its own.

ONNX Runtime's exact uint8 weights (`session.x64quantprecision`) fail on a stored tensor with two
readers, and it gives every reader a DequantizeLinear of its own first. The numbers stay the same.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto


def unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every stored code tensor has one DequantizeLinear, read once."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    decoders = {
        node.output[0]: node
        for node in copy.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    nodes: list[NodeProto] = []
    own: list[TensorProto] = []
    for node in copy.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in decoders:
            continue
        for index, name in enumerate(node.input):
            if name in decoders:
                decoder = _renamed(decoders[name], f"{name}/reader{len(own)}")
                own += _own_tensors(decoder, stored)
                nodes.append(decoder)
                node.input[index] = decoder.output[0]
        nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in read]
    rebuilt = onnx.GraphProto(initializer=[*kept, *own])
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(rebuilt.initializer)
    return copy


def _renamed(decoder: NodeProto, output: str) -> NodeProto:
    renamed = NodeProto()
    renamed.CopyFrom(decoder)
    renamed.name = renamed.output[0] = output
    return renamed


def _own_tensors(decoder: NodeProto, stored: dict[str, TensorProto]) -> list[TensorProto]:
    copies = []
    for index, name in enumerate(decoder.input):
        tensor = TensorProto()
        tensor.CopyFrom(stored[name])
        tensor.name = decoder.input[index] = f"{decoder.output[0]}/{index}"
        copies.append(tensor)
    return copies
