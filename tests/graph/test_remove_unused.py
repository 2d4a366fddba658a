"""Sweeping dead nodes, fresh names, and the order of a pass."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.remove_unused import RemoveUnused, part_for


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    names = [f"w{i}" for i in range(4)]
    weights = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [1.0]) for name in names]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    described = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("a", "d")]
    return helper.make_model(
        helper.make_graph(list(nodes), "g", [x], [y], weights, value_info=described)
    )


def test_dead_chains_go_and_subgraphs_count_as_readers() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["a", "w1"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [1])],
    )
    model = graph(
        helper.make_node("Add", ["x", "w0"], ["a"]),
        helper.make_node("Neg", ["w2"], ["d"]),
        helper.make_node("Abs", ["d"], ["e"]),
        helper.make_node("If", ["w3"], ["y"], then_branch=inner, else_branch=inner),
    )
    RemoveUnused().run(model)
    assert [node.op_type for node in model.graph.node] == ["Add", "If"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w0", "w1", "w3"]
    assert [value.name for value in model.graph.value_info] == ["a"]


def test_a_part_computes_what_is_asked_for_from_the_inputs_that_it_needs() -> None:
    model = graph(
        helper.make_node("Add", ["x", "w0"], ["a"]),
        helper.make_node("Neg", ["other"], ["d"]),
        helper.make_node("Add", ["a", "d"], ["y"]),
    )
    model.graph.input.extend([helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1])])
    before = model.SerializeToString()
    for wanted, inputs, nodes in (("a", ["x"], ["Add"]), ("d", ["other"], ["Neg"])):
        part = part_for(model, [wanted]).graph
        assert [value.name for value in part.output] == [wanted]
        assert [value.name for value in part.input] == inputs
        assert [node.op_type for node in part.node] == nodes
    assert model.SerializeToString() == before


def test_a_lost_input_is_noticed() -> None:
    before = graph(helper.make_node("Add", ["x", "w0"], ["y"]))
    after = onnx.ModelProto()
    after.CopyFrom(before)
    del after.graph.initializer[:]
    with pytest.raises(SegQuantError, match="lost its input 'w0'"):
        RemoveUnused().ensures(before, after)


def test_a_pass_checks_before_and_after() -> None:
    seen: list[str] = []

    class Recorder(Pass):
        """Notes the order."""

        def requires(self, model: onnx.ModelProto) -> None:
            seen.append("requires")

        def apply(self, model: onnx.ModelProto) -> None:
            model.graph.name = "edited"

        def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
            seen.append(f"{before.graph.name} -> {after.graph.name}")

    Recorder().run(graph())
    assert seen == ["requires", "g -> edited"]
    with pytest.raises(TypeError, match="abstract"):
        type("Bare", (Pass,), {})()


def test_fresh_names_avoid_every_kind_of_name() -> None:
    names = FreshNames(graph(helper.make_node("Add", ["x", "w0"], ["y"], name="n")).graph)
    wanted = ("x", "y", "n", "w0", "w3", "free", "free")
    assert [names.fresh(name) for name in wanted] == [
        "x_2", "y_2", "n_2", "w0_2", "w3_2", "free", "free_2",
    ]  # fmt: skip
