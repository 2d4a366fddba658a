"""Mutations of types, operators and of the file itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.backends.tensorrt.lint.editor import Editor, Mutation, NotApplicable
from tests.backends.tensorrt.lint.sketch import FP8, UINT8


def _somewhere(e: Editor) -> onnx.NodeProto:
    """A node whose output is of the graph's float type."""
    kinds = ("Add", "Mul", "Gelu", "Softmax", "LayerNormalization", "MatMul", "Gemm", "Conv", "Sub")
    return e.choose([n for n in e.nodes(*kinds)])


def _behind_some(op: str, **attributes: object) -> Mutation:
    def mutate(e: Editor) -> None:
        e.behind(_somewhere(e), op, **attributes)

    return mutate


def _mixed(op: str) -> Mutation:
    def mutate(e: Editor) -> None:
        other = e.floats(2.0, 1 if e.kind != 1 else 10)
        e.behind(_somewhere(e), op, other, left=bool(e.rng.integers(2)))

    return mutate


def _island(*kinds: int) -> Mutation:
    """Cast to other types and back."""

    def mutate(e: Editor) -> None:
        node = _somewhere(e)
        for kind in (*kinds, e.kind):
            node = e.behind(node, "Cast", to=kind)

    return mutate


def _lost_cast(e: Editor) -> None:
    e.behind(_somewhere(e), "Cast", to=1 if e.kind != 1 else 10)


def _foreign(op: str, domain: str) -> Mutation:
    def mutate(e: Editor) -> None:
        e.behind(_somewhere(e), op).domain = domain
        if domain:
            e.model.opset_import.append(helper.make_opsetid(domain, 1))

    return mutate


def _function(inner: str, **attributes: object) -> Mutation:
    def mutate(e: Editor) -> None:
        if e.model.functions:
            raise NotApplicable
        node = e.behind(_somewhere(e), "Op", **attributes)
        node.domain = "own"
        e.model.opset_import.append(helper.make_opsetid("own", 1))
        body = [helper.make_node(inner, ["X"], ["Y"])]
        imports = [helper.make_opsetid("", 21)]
        made = helper.make_function("own", "Op", ["X"], ["Y"], body, imports, list(attributes))
        e.model.functions.append(made)

    return mutate


def _sequence(e: Editor) -> None:
    made = e.behind(_somewhere(e), "SequenceConstruct")
    e.behind(made, "SequenceAt", e.constant(np.int64(0)))


def _nonzero(e: Editor) -> None:
    node = _somewhere(e)
    last = e.graph.node[-1]
    made = e.add(last, "NonZero", node.output[0] if node is not last else node.input[0])
    e.graph.output.append(helper.make_tensor_value_info(made, TensorProto.INT64, None))


def _opset(version: int) -> Mutation:
    def mutate(e: Editor) -> None:
        e.model.opset_import[0].version = version

    return mutate


def _same_names(e: Editor) -> None:
    pair = e.choose(e.pairs())
    pair[1].name = pair[0].name


def _same_product_names(e: Editor) -> None:
    e.choose(e.nodes("Gelu", "Add", "Mul")).name = e.nodes("Add", "Mul", "Gelu")[0].name


def _dangling(e: Editor) -> None:
    e.choose(e.products()).input[0] = "nowhere"


def _lost_output(e: Editor) -> None:
    e.graph.output.append(helper.make_tensor_value_info("nowhere", e.kind, None))


def _unused(array: np.ndarray) -> Mutation:  # type: ignore[type-arg]
    def mutate(e: Editor) -> None:
        e.constant(array)

    return mutate


def _unused_input(kind: int) -> Mutation:
    def mutate(e: Editor) -> None:
        e.input(kind, 3)

    return mutate


def _dead(e: Editor) -> None:
    """The output no longer depends on the products."""
    last = e.graph.node[-1]
    shape = e.behind(last, "Shape")
    e.behind(shape, "ConstantOfShape")


def _nothing(e: Editor) -> None:
    del e


def _cycle(e: Editor) -> None:
    e.choose(e.pairs())[0].input[0] = e.graph.node[-1].output[0]


def _not_sorted(e: Editor) -> None:
    nodes = list(e.graph.node)[::-1]
    del e.graph.node[:]
    e.graph.node.extend(nodes)


def _two_tensors(e: Editor) -> None:
    e.graph.initializer.append(e.choose(list(e.graph.initializer)))


def _lost_operand(e: Editor) -> None:
    del e.choose(e.products()).input[1:]


def _cut(e: Editor) -> None:
    tensor = e.choose([t for t in e.graph.initializer if t.raw_data])
    tensor.raw_data = tensor.raw_data[:-1]


def _full_domain(e: Editor) -> None:
    e.model.opset_import[0].domain = "ai.onnx"


def _no_shape(e: Editor) -> None:
    e.graph.input[0].type.tensor_type.ClearField("shape")


def _wrong_weight(e: Editor) -> None:
    """A weight with one row too few."""
    _, decode = e.choose(e.weights("MatMul"))
    codes = e.initializer(decode.input[0])
    rows, columns = codes.dims
    decode.input[0] = e.constant(np.ones((rows - 1, columns)), codes.data_type)


FILES: dict[str, Mutation] = {
    "as it was": _nothing,
    "Mul of two types": _mixed("Mul"),
    "Max of two types": _mixed("Max"),
    "Pow of two types": _mixed("Pow"),
    "fp32 between": _island(TensorProto.FLOAT),
    "fp64 between": _island(TensorProto.DOUBLE),
    "fp32 and int32 between": _island(TensorProto.FLOAT, TensorProto.INT32),
    "int16 between": _island(TensorProto.INT16),
    "uint8 between": _island(UINT8),
    "fp8 between": _island(FP8),
    "bf16 between": _island(TensorProto.BFLOAT16),
    "Cast and not back": _lost_cast,
    "unknown operator": _foreign("Anything", "own"),
    "unknown operator of ONNX": _foreign("Anything", ""),
    "own operator called Relu": _foreign("Relu", "own"),
    "function": _function("Relu"),
    "function for a plugin": _function("Relu", plugin_namespace="own", plugin_version="1"),
    "function of unknown operator": _function("Anything"),
    "function of Det": _function("Det"),
    "Det": _behind_some("Det"),
    "Bernoulli": _behind_some("Bernoulli"),
    "Erf": _behind_some("Erf"),
    "Dropout": _behind_some("Dropout"),
    "sequence": _sequence,
    "NonZero": _nonzero,
    "opset 6": _opset(6),
    "opset 19": _opset(19),
    "opset 24": _opset(24),
    "opset 99": _opset(99),
    "Q and DQ of one name": _same_names,
    "operators of one name": _same_product_names,
    "tensor from nowhere": _dangling,
    "output from nowhere": _lost_output,
    "unused uint16": _unused(np.ones(3, dtype=np.uint16)),
    "unused fp64": _unused(np.ones(3)),
    "unused string": _unused(np.array(["a"], dtype=object)),
    "unused complex": _unused(np.ones(3, dtype=np.complex64)),
    "unused uint8": _unused(np.ones(3, dtype=np.uint8)),
    "unused int16 input": _unused_input(TensorProto.INT16),
    "unused int32 input": _unused_input(TensorProto.INT32),
    "nothing needs it": _dead,
    "cycle": _cycle,
    "constant cut": _cut,
    "ONNX by its full name": _full_domain,
    "not sorted": _not_sorted,
    "two tensors of one name": _two_tensors,
    "operand lost": _lost_operand,
    "input without shape": _no_shape,
    "weight of another shape": _wrong_weight,
}
