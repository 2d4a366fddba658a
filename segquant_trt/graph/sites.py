"""Find every MatMul, Gemm and Conv whose weight is a constant.

| pattern                                                          | site |
|------------------------------------------------------------------|------|
| `MatMul(x, [..]* W)` then optionally `Add(b)`                      | MatMul, bias in `bias_node` |
| `Gemm(x, [..]* W, [..]* b)`, alpha = beta = 1, transA = 0            | Gemm |
| `Conv(x, [..]* W, [..]* b)`                                        | Conv |

`[..]*`: whatever `constant_weight` sees through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import NodeProto

from segquant_trt.graph.attributes import float_attribute, has_default_domain, int_attribute
from segquant_trt.graph.constant_weight import (
    ConstantWeight,
    constant_expressions,
    constant_origin,
    constant_weight,
)
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.module_scope import module_scope
from segquant_trt.graph.taint import input_dependence
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.records import LinearSite
from segquant_trt.records import Rejection as NearMiss
from segquant_trt.records.facts import SiteOp

_SITES = frozenset(("MatMul", "Gemm", "Conv"))
# Operators with a weight that are no sites, and where the weight is.
_RELATED = {
    "ConvTranspose": 1, "DeformConv": 1, "ConvInteger": 1, "MatMulInteger": 1, "QLinearConv": 3,
    "QLinearMatMul": 3, "Einsum": 1, "MatMulNBits": 1, "FusedMatMul": 1, "FusedConv": 1,
    "NhwcConv": 1, "LSTM": 1, "GRU": 1, "RNN": 1,
}  # fmt: skip

Layout = Literal["KN", "NK", "NCHW"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bias:
    initializer: str | None
    node: str | None
    output: str


def find_sites(
    wiring: Wiring, ranks: Mapping[str, int], constants: Constants | None = None
) -> tuple[list[LinearSite], list[NearMiss]]:
    """The sites in graph order (role `body`), and every near miss.

    Args:
        wiring: the graph.
        ranks: rank of every tensor that is known.
        constants: values of small constants; only those inside the graph when None.
    """
    constants = Constants(wiring, None) if constants is None else constants
    computed = constant_expressions(wiring)
    varying = frozenset(name for name, taint in input_dependence(wiring).items() if taint)
    sites: list[LinearSite] = []
    misses: list[NearMiss] = []
    for node in wiring.nodes:
        found = _related(node, computed, varying) or _site(node, wiring, ranks, constants, computed)
        if isinstance(found, Match):
            sites.append(found.value)
        elif found is not None:
            name = node_name(node)
            misses.append(
                NearMiss(
                    site=name, pattern="site", reason=found.reason, nodes=found.nodes or (name,)
                )
            )
    return sites, misses


def _related(
    node: NodeProto, computed: frozenset[str], varying: frozenset[str]
) -> Rejection | None:
    place = _RELATED.get(node.op_type)
    if place is None or len(node.input) <= place or varying.isdisjoint(node.input):
        return None
    weights = node.input if node.op_type == "Einsum" else (node.input[place],)
    if computed.isdisjoint(weights):
        return None
    return rejected(f"{node.op_type} with a constant weight is no site")


def _site(
    node: NodeProto,
    wiring: Wiring,
    ranks: Mapping[str, int],
    constants: Constants,
    computed: frozenset[str],
) -> Match[LinearSite] | Rejection | None:
    if node.op_type not in _SITES or not has_default_domain(node) or len(node.input) < 2:
        return None
    left, right = (node.input[i] in computed for i in (0, 1))
    if left or not right:
        product = left and node.op_type == "MatMul" and not right
        return rejected("the constant is the left operand; it stays in float") if product else None
    if node.op_type == "Gemm" and not _plain_gemm(node):
        return rejected("a Gemm with alpha, beta or transA stays in float")
    weight = constant_weight(node.input[1], wiring, constants)
    if weight is None:
        maker = wiring.producer[node.input[1]]
        return rejected(
            f"its weight is computed from constants by {maker.op_type}: fold constants first", maker
        )
    if isinstance(weight, Rejection):
        return weight
    layout = _layout(node, weight.value)
    if layout is None:
        shape = weight.value.stored
        return rejected(f"weight '{weight.value.initializer}' of shape {shape} is no plain matrix")
    return Match(_record(node, wiring, ranks, weight.value, layout))


def _record(
    node: NodeProto,
    wiring: Wiring,
    ranks: Mapping[str, int],
    weight: ConstantWeight,
    layout: Layout,
) -> LinearSite:
    groups = int_attribute(node, "group", 1) if node.op_type == "Conv" else 1
    dims = weight.dims
    if node.op_type == "Conv":
        out_features, in_features = dims[0], dims[1] * groups
    elif _transposed(node):
        out_features, in_features = dims
    else:
        in_features, out_features = dims
    bias = _bias(node, wiring, out_features)
    return LinearSite(
        name=node_name(node),
        op=_op(node),
        module=module_scope(node),
        role="body",
        activation=node.input[0],
        weight=weight.initializer,
        weight_layout=layout,
        weight_path=weight.path,
        bias=bias.initializer,
        bias_node=bias.node,
        output=bias.output,
        in_features=in_features,
        out_features=out_features,
        kernel=dims[2:] if node.op_type == "Conv" else (),
        groups=groups,
        activation_rank=ranks.get(node.input[0]),
        computed_bias=bias.initializer is None and any(node.input[2:]),
    )


def _op(node: NodeProto) -> SiteOp:
    match node.op_type:
        case "MatMul" | "Gemm" | "Conv" as op:
            return op
        case other:
            raise AssertionError(f"{other} is no site")


def _layout(node: NodeProto, weight: ConstantWeight) -> Layout | None:
    if node.op_type == "Conv":
        in_order = [axis for _, axis in weight.axes if axis is not None]
        plain = len(weight.axes) >= 3 and in_order == sorted(in_order)
        return None if not plain else "NCHW" if len(weight.stored) >= 3 else "NK"
    if len(weight.axes) != 2:
        return None
    (rows, first), (columns, second) = weight.axes
    if first is None or second is None:
        flipped = weight.stored[:2] != (rows, columns)
    else:
        flipped = first > second
    return "NK" if flipped != _transposed(node) else "KN"


def _transposed(node: NodeProto) -> bool:
    return node.op_type == "Gemm" and int_attribute(node, "transB", 0) == 1


def _bias(node: NodeProto, wiring: Wiring, columns: int) -> _Bias:
    output = node.output[0]
    if node.op_type != "MatMul":
        third = node.input[2] if len(node.input) > 2 else ""
        origin = constant_origin(third, wiring) if third else None
        return _Bias(initializer=origin[0] if origin else None, node=None, output=output)
    add = wiring.sole_consumer(output)
    if add is None or add.op_type != "Add":
        return _Bias(initializer=None, node=None, output=output)
    other = add.input[1] if add.input[0] == output else add.input[0]
    origin = constant_origin(other, wiring)
    if origin is None or tuple(wiring.constants[origin[0]].dims) != (columns,):
        return _Bias(initializer=None, node=None, output=output)
    return _Bias(initializer=origin[0], node=node_name(add), output=add.output[0])


def _plain_gemm(node: NodeProto) -> bool:
    unit = all(float_attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return unit and int_attribute(node, "transA", 0) == 0


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor that the graph declares or shape inference finds."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types.update({name: kind.elem_type for name, kind in _tensor_kinds(model).items()})
    return types


def tensor_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Rank of every tensor whose shape the graph declares or shape inference finds."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for name, kind in _tensor_kinds(model).items():
        if kind.HasField("shape"):
            ranks[name] = len(kind.shape.dim)
    return ranks


def _tensor_kinds(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}
