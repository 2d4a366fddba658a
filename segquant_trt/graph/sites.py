"""Find every MatMul, Gemm and Conv whose weight is a constant.

| pattern                                                          | site |
|------------------------------------------------------------------|------|
| `MatMul(x, [Transpose Cast]* W)` then optionally `Add(b)`          | MatMul, bias in `bias_node` |
| `Gemm(x, [..]* W, [..]* b)`, alpha = beta = 1, transA = 0            | Gemm |
| `Conv(x, [Cast]* W, [Cast]* b)`                                    | Conv |
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import NodeProto

from segquant_trt.graph.wiring import Wiring, node_name, permutation
from segquant_trt.records import LinearSite
from segquant_trt.records.facts import SiteOp


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bias:
    initializer: str | None
    node: str | None
    output: str


def find_sites(wiring: Wiring, ranks: Mapping[str, int]) -> tuple[list[LinearSite], list[str]]:
    """The sites in graph order (role `body`), and a note for every near miss.

    Args:
        wiring: the graph.
        ranks: rank of every tensor that is known.
    """
    sites: list[LinearSite] = []
    notes: list[str] = []
    for node in wiring.nodes:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        found = _site(node, wiring, ranks)
        if isinstance(found, str):
            notes.append(f"{node_name(node)}: {found}")
        elif found is not None:
            sites.append(found)
    return sites, notes


def _site(node: NodeProto, wiring: Wiring, ranks: Mapping[str, int]) -> LinearSite | str | None:
    origin = wiring.constant_origin(node.input[1])
    if origin is None:
        if node.op_type == "MatMul" and wiring.constant_origin(node.input[0]) is not None:
            return "the constant is the left operand; left in float"
        return None
    if wiring.constant_origin(node.input[0]) is not None:
        return None
    weight, path = origin
    dims = tuple(wiring.initializers[weight].dims)
    layout = _layout(node, dims, path)
    if layout is None:
        return f"weight '{weight}' of shape {dims} is not stored as a plain matrix"
    if node.op_type == "Gemm" and not _plain_gemm(node):
        return "Gemm with alpha, beta or transA is left in float"
    bias = _bias(node, wiring, dims, layout)
    out_features = dims[1] if layout == "KN" else dims[0]
    groups = _int_attribute(node, "group", 1) if node.op_type == "Conv" else 1
    in_features = {"KN": dims[0], "NK": dims[1], "NCHW": dims[1] * groups}[layout]
    return LinearSite(
        name=node_name(node),
        op=_op(node),
        module=module_scope(node),
        role="body",
        activation=node.input[0],
        weight=weight,
        weight_layout=layout,
        bias=bias.initializer,
        bias_node=bias.node,
        output=bias.output,
        in_features=in_features,
        out_features=out_features,
        kernel=dims[2:] if layout == "NCHW" else (),
        groups=groups,
        activation_rank=ranks.get(node.input[0]),
    )


def _op(node: NodeProto) -> SiteOp:
    match node.op_type:
        case "MatMul" | "Gemm" | "Conv" as op:
            return op
        case other:
            raise AssertionError(f"{other} is no site")


def _layout(
    node: NodeProto, dims: tuple[int, ...], path: tuple[NodeProto, ...]
) -> Literal["KN", "NK", "NCHW"] | None:
    transposes = [step for step in path if step.op_type == "Transpose"]
    if node.op_type == "Conv":
        return "NCHW" if len(dims) >= 3 and not transposes else None
    if len(dims) != 2 or any(permutation(step) not in (None, (1, 0)) for step in transposes):
        return None
    flips = len(transposes) + (_int_attribute(node, "transB", 0) if node.op_type == "Gemm" else 0)
    return "NK" if flips % 2 else "KN"


def _bias(
    node: NodeProto, wiring: Wiring, dims: tuple[int, ...], layout: Literal["KN", "NK", "NCHW"]
) -> _Bias:
    output = node.output[0]
    if node.op_type != "MatMul":
        third = node.input[2] if len(node.input) > 2 else ""
        origin = wiring.constant_origin(third) if third else None
        return _Bias(initializer=origin[0] if origin else None, node=None, output=output)
    add = wiring.sole_consumer(output)
    if add is None or add.op_type != "Add":
        return _Bias(initializer=None, node=None, output=output)
    other = add.input[1] if add.input[0] == output else add.input[0]
    origin = wiring.constant_origin(other)
    columns = dims[1] if layout == "KN" else dims[0]
    if origin is None or tuple(wiring.initializers[origin[0]].dims) != (columns,):
        return _Bias(initializer=None, node=None, output=output)
    return _Bias(initializer=origin[0], node=node_name(add), output=add.output[0])


def _plain_gemm(node: NodeProto) -> bool:
    factors = {a.name: a.f for a in node.attribute if a.name in ("alpha", "beta")}
    unit = all(value == 1.0 for value in factors.values())
    return unit and _int_attribute(node, "transA", 0) == 0


def _int_attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def module_scope(node: NodeProto) -> str | None:
    """The torch module path that the exporter recorded for `node`, or None."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(entry.value)
            except (SyntaxError, ValueError):
                return None
            names = [str(scope) for scope in scopes if scope]
            return names[-2] if len(names) > 1 else None
    return None


def tensor_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Rank of every tensor whose shape the graph declares or shape inference finds."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for name, kind in _tensor_kinds(model).items():
        if kind.HasField("shape"):
            ranks[name] = len(kind.shape.dim)
    return ranks


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor that the graph declares or shape inference finds."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types.update({name: kind.elem_type for name, kind in _tensor_kinds(model).items()})
    return types


def _tensor_kinds(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}
