"""What is dropped from a bundle's graph, and what is not."""

from __future__ import annotations

import onnx
from onnx import helper

from segquant_trt.graph.annotations import drop_annotations
from segquant_trt.graph.qdq import mark_product, site_of


def test_marks_and_shapes_stay_and_scopes_go() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="block/first", doc_string="why")
    mark_product(node, "block")
    scope = node.metadata_props.add()
    scope.key, scope.value = "pkg.torch.onnx.name_scopes", "['', 'block']"
    plain = helper.make_node("Relu", ["y"], ["z"], name="relu")
    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 1], [2.0])
    weight.doc_string = "of the checkpoint"
    kind = onnx.TensorProto.FLOAT
    shape = helper.make_tensor_value_info("y", kind, [1, 1])
    ends = [helper.make_tensor_value_info(name, kind, [1, 1]) for name in ("x", "z")]
    graph = helper.make_graph([node, plain], "g", ends[:1], ends[1:], [weight], value_info=[shape])
    model = helper.make_model(graph)
    stamp = model.metadata_props.add()
    stamp.key, stamp.value = "segquant_trt.plan_sha256", "abc"
    wanted = onnx.ModelProto()
    wanted.CopyFrom(model)
    for kept in wanted.graph.node:
        kept.ClearField("doc_string")
    del wanted.graph.node[0].metadata_props[1:]
    wanted.graph.initializer[0].ClearField("doc_string")
    drop_annotations(model)
    assert model == wanted
    assert site_of(model.graph.node[0]) == "block"
