"""The float16 noise floor: the same graph with every activation rounded to float16.

GPUs run these models in 16 bit with float32 accumulation. That is what is simulated: each float
tensor behind the first GEMM passes through float16 and back; sums inside an operator stay float32.
An error below this floor cannot be seen in production. An activation above 65504 overflows, here
as there: its sample's figure is then the least possible one.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from segquant_trt.graph.sites import tensor_types
from segquant_trt.graph.taint import reached_from
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import GraphFacts


def with_float16_activations(model: onnx.ModelProto, facts: GraphFacts) -> onnx.ModelProto:
    """A copy of `model` that rounds every float32 tensor behind a site to float16."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wiring = Wiring(copy.graph)
    behind = reached_from(wiring, frozenset(site.output for site in facts.sites))
    types = tensor_types(copy)
    outputs = {value.name for value in copy.graph.output}
    nodes = []
    for node in wiring.nodes:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in behind and types.get(name) == TensorProto.FLOAT:
                exact = f"{name}/float32"
                node.output[index] = exact
                half = f"{name}/float16"
                nodes.append(helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    assert outputs <= {name for node in nodes for name in node.output}
    return copy
