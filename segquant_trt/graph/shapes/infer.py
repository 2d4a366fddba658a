"""Infer shapes node by node; ONNX's own inference answers where there is no rule here.

What a file declares for inner tensors is not trusted (exporters write 0 for unknown lengths, or
lengths of another trace): it serves only behind operators that nobody else knows, and where the
constants that would tell are in an external file that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto, TensorProto

from segquant_trt.graph.attributes import has_default_domain
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.dims import Dim, Expr, symbol
from segquant_trt.graph.shapes.knowledge import Shape, Shapes, unknown
from segquant_trt.graph.shapes.rules import RULES, contributed
from segquant_trt.graph.shapes.values import evaluate
from segquant_trt.graph.wiring import Wiring

_LARGE = 1024


def infer_shapes(model: onnx.ModelProto, wiring: Wiring, constants: Constants) -> Shapes:
    """Shapes and shape values of all tensors of the main graph."""
    shapes = Shapes(constants)
    for name, tensor in wiring.constants.items():
        shapes.set_shape(name, tuple(tensor.dims))
    for name, value in wiring.graph_inputs.items():
        shapes.set_shape(name, _declared_shape(value))
    fallback = _Fallback(model)
    for node in wiring.nodes:
        if node.op_type == "Constant":
            continue
        found = _apply(node, shapes)
        for index, name in enumerate(node.output):
            shape = found[index] if index < len(found) else None
            if name and (shape is None or _has_own_unknown(shape, name)):
                shape = _refined(shape, fallback.shape(node, index))
            shapes.set_shape(name, shape)
        evaluate(node, shapes)
    return shapes


def _apply(node: NodeProto, shapes: Shapes) -> Sequence[Shape | None]:
    known = has_default_domain(node) or contributed(node)
    rule = RULES.get(node.op_type) if known else None
    if rule is None:
        return ()
    try:
        return rule(node, shapes)
    except (IndexError, ValueError, TypeError, ZeroDivisionError):
        return ()  # an ill-formed node has no shape; the checker's business, not ours


def _has_own_unknown(shape: Shape, name: str) -> bool:
    """Whether a length could not be told from the operands, because a constant is out of reach."""
    return any(
        isinstance(dim, Expr) and atom.startswith(f"?{name}.")
        for dim in shape
        for atoms, _ in getattr(dim, "terms", ())
        for atom in atoms
    )


def _refined(shape: Shape | None, fallback: Shape | None) -> Shape | None:
    """The shape, its unknown lengths replaced where the fallback has numbers."""
    if shape is None or fallback is None or len(shape) != len(fallback):
        return fallback if shape is None else shape
    return tuple(
        theirs if isinstance(theirs, int) and isinstance(ours, Expr) else ours
        for ours, theirs in zip(shape, fallback, strict=True)
    )


def _declared_shape(value: onnx.ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(kind.shape.dim):
        if dim.dim_value > 0:
            dims.append(int(dim.dim_value))
        else:
            dims.append(symbol(dim.dim_param or f"?{value.name}.{axis}"))
    return tuple(dims)


class _Fallback:
    """ONNX's inference, run when it is first needed, then the file's declarations."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._inferred: Mapping[str, onnx.ValueInfoProto] | None = None
        graph = model.graph
        self._declared = _with_shapes((*graph.value_info, *graph.output))

    def shape(self, node: NodeProto, index: int) -> Shape | None:
        """The shape of an output, its symbols made unique: ours and theirs are not the same."""
        if self._inferred is None:
            self._inferred = _onnx_inference(self._model)
        name = node.output[index]
        for source in (self._inferred, self._declared):
            shape = _declared_shape(source[name]) if name in source else None
            if shape is not None:
                return tuple(
                    unknown(node, axis, index) if isinstance(dim, Expr) else dim
                    for axis, dim in enumerate(shape)
                )
        return None


def _onnx_inference(model: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph, source = skeleton.graph, model.graph
    graph.name = source.name
    for field in ("node", "input"):
        getattr(graph, field).extend(getattr(source, field))
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in source.output)
    graph.initializer.extend(_without_data(tensor) for tensor in source.initializer)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    return _with_shapes((*inferred.value_info, *inferred.output))


def _with_shapes(values: Sequence[onnx.ValueInfoProto]) -> Mapping[str, onnx.ValueInfoProto]:
    return {value.name: value for value in values if value.type.tensor_type.HasField("shape")}


def _without_data(tensor: TensorProto) -> TensorProto:
    if math.prod(tensor.dims) <= _LARGE:
        return tensor
    hollow = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    hollow.data_location = TensorProto.EXTERNAL
    hollow.external_data.add(key="location", value="absent")
    return hollow
