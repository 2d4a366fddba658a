"""The element type of every tensor as TensorRT's strongly typed network has it.

ONNX's own inference gives up where types are mixed, which is what has to be found here.

| operator                          | type of its outputs                             |
|-----------------------------------|-------------------------------------------------|
| QuantizeLinear                    | of the zero point, else `output_dtype`, else INT8 |
| DequantizeLinear                  | of the scale                                    |
| Cast, CastLike                    | what they are told                              |
| comparisons, tests, logic         | bool                                            |
| Shape, Size, ArgMax, NonZero...   | int64                                           |
| Where                             | of its second operand                           |
| anything else                     | of its first operand; float64 counts as float32 |
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto

from segquant_trt.graph.attributes import attribute, int_attribute
from segquant_trt.graph.wiring import Wiring

_BOOL = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not",
     "IsNaN", "IsInf"}
)  # fmt: skip
_INT64 = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})
_OF_SECOND = frozenset({"Where", "CastLike"})

INT8, UINT8, INT4 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4
FLOAT8 = TensorProto.FLOAT8E4M3FN
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def type_name(kind: int) -> str:
    """As users write it: FLOAT16, INT8..."""
    return TensorProto.DataType.Name(kind)


def element_types(wiring: Wiring) -> dict[str, int]:
    """ONNX element type of every tensor that can be told; what nobody knows is absent."""
    types = {name: tensor.data_type for name, tensor in wiring.constants.items()}
    for name, value in wiring.graph_inputs.items():
        if value.type.HasField("tensor_type"):
            types[name] = value.type.tensor_type.elem_type
    types = {name: _without_double(kind) for name, kind in types.items()}
    for node in wiring.nodes:
        kinds = _outputs(node, types)
        types.update(
            (name, _without_double(kind))
            for name, kind in zip(node.output, kinds, strict=False)
            if name and kind
        )
    return types


def _outputs(node: NodeProto, types: Mapping[str, int]) -> list[int]:
    kind = _first_output(node, types)
    rest = TensorProto.INT64 if node.op_type == "TopK" else kind
    return [kind, *[rest] * (len(node.output) - 1)]


def _first_output(node: NodeProto, types: Mapping[str, int]) -> int:
    op = node.op_type
    if op == "Constant":
        return types.get(node.output[0], 0)
    if op in _BOOL:
        return TensorProto.BOOL
    if op in _INT64:
        return TensorProto.INT64
    if op == "Cast":
        return int_attribute(node, "to", 0)
    if op == "QuantizeLinear":
        return codes_type(node, types)
    if op == "ConstantOfShape":
        value = attribute(node, "value")
        return TensorProto.FLOAT if value is None else value.t.data_type
    return types.get(_typing_operand(node), 0)


def _typing_operand(node: NodeProto) -> str:
    second = node.op_type in _OF_SECOND or node.op_type == "DequantizeLinear"
    place = 1 if second and len(node.input) > 1 else 0
    return node.input[place] if len(node.input) > place else ""


def codes_type(node: NodeProto, types: Mapping[str, int]) -> int:
    """What a QuantizeLinear writes for TensorRT, whose default is int8 where ONNX's is uint8."""
    if len(node.input) > 2 and node.input[2]:
        return types.get(node.input[2], INT8)
    return int_attribute(node, "output_dtype", 0) or INT8


def _without_double(kind: int) -> int:
    return TensorProto.FLOAT if kind == TensorProto.DOUBLE else kind
