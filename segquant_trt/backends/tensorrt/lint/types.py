"""Element types: which TensorRT has, and that operands of one operator share one.

A strongly typed network converts nothing by itself: `Add(FP16, FP32)` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import (
    FLOAT8,
    INT8,
    UINT8,
    type_name,
)
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.wiring import node_name

_KNOWN = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, FLOAT8,
     TensorProto.FLOAT4E2M1, INT8, UINT8, TensorProto.INT4, TensorProto.INT32, TensorProto.INT64,
     TensorProto.BOOL}
)  # fmt: skip
_COMPUTED = _KNOWN - {UINT8, TensorProto.INT4, TensorProto.FLOAT4E2M1}
_CODES = frozenset({INT8, FLOAT8, TensorProto.INT4})
_TAKE_FP8 = frozenset(
    {*PAIR, "Concat", "Reshape", "Flatten", "Transpose", "Identity", "Dropout", "Shape"}
)
_LOGIC = frozenset({"Not", "And", "Or", "Xor"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow"})
_EVERY_OPERAND = frozenset(
    {"Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Mod", "PRelu", "Equal", "Greater",
     "GreaterOrEqual", "Less", "LessOrEqual", "Concat", "MatMul", "Gemm", "Conv", "ConvTranspose",
     "Einsum"}
)  # fmt: skip
_FIRST_THREE = frozenset(
    {"LayerNormalization", "GroupNormalization", "InstanceNormalization", "Attention"}
)  # fmt: skip


def unknown_types(subject: Subject) -> Iterator[Problem]:
    """Constants and inputs of types that TensorRT does not have, used or not."""
    for tensor in subject.wiring.constants.values():
        if tensor.data_type not in _KNOWN:
            reason = f"the constant '{tensor.name}' is {type_name(tensor.data_type)}"
            yield Problem(_maker(tensor.name, subject), reason, (tensor.name,))
    outputs = ((value.name, value, "output") for value in subject.model.graph.output)
    inputs = ((name, value, "input") for name, value in subject.wiring.graph_inputs.items())
    for name, value, side in (*inputs, *outputs):
        kind = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type") or kind not in _KNOWN:
            word = type_name(kind) if value.type.HasField("tensor_type") else "no tensor"
            yield Problem("", f"the {side} '{name}' is {word}", (name,))


def _maker(name: str, subject: Subject) -> str:
    node = subject.wiring.producer.get(name)
    return "" if node is None else node_name(node)


def casts(subject: Subject) -> Iterator[Problem]:
    """Casts to types that nothing is computed in."""
    for node in subject.nodes("Cast"):
        kind = int_attribute(node, "to", 0)
        if kind not in _COMPUTED and kind != UINT8:
            yield Problem(node_name(node), f"it casts to {type_name(kind)}", tuple(node.output))
        elif kind == UINT8 and node.output[0] not in subject.wiring.graph_outputs:
            yield Problem(node_name(node), "it casts to UINT8 within the graph", tuple(node.output))


def cast_to_codes(subject: Subject) -> Iterator[Problem]:
    """FP8 values that no QuantizeLinear made."""
    for node in subject.nodes("Cast"):
        if int_attribute(node, "to", 0) == FLOAT8:
            yield Problem(node_name(node), "it casts to FP8", tuple(node.output))


def double(subject: Subject) -> Iterator[Problem]:
    """FP64, which TensorRT computes in FP32."""
    for node in subject.nodes("Cast"):
        if int_attribute(node, "to", 0) == TensorProto.DOUBLE:
            yield Problem(node_name(node), "it casts to FP64", tuple(node.output))
    for name, value in subject.wiring.graph_inputs.items():
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            yield Problem("", f"the input '{name}' is FP64", (name,))


def mixed(subject: Subject) -> Iterator[Problem]:
    """Operators whose operands have several types."""
    for node in subject.wiring.nodes:
        names = _same_type(node)
        kinds = dict.fromkeys(subject.types.get(name, 0) for name in names)
        kinds.pop(0, None)
        if len(kinds) > 1:
            words = " and ".join(type_name(kind) for kind in kinds)
            yield Problem(node_name(node), f"{node.op_type} of {words}", names)


def _same_type(node: NodeProto) -> tuple[str, ...]:
    if node.op_type in _EVERY_OPERAND:
        names = list(node.input)
    elif node.op_type in _FIRST_THREE:
        names = list(node.input[:3])
    elif node.op_type == "Where":
        names = list(node.input[1:3])
    elif node.op_type in ("ScatterND", "ScatterElements"):
        names = [node.input[0], *node.input[2:3]]
    else:
        return ()
    return tuple(dict.fromkeys(name for name in names if name))


def operands(subject: Subject) -> Iterator[Problem]:
    """Logic of numbers, arithmetic of truth values or bytes."""
    for node in subject.wiring.nodes:
        kinds = {subject.types[name] for name in node.input if name in subject.types}
        logic = node.op_type in _LOGIC and kinds - {TensorProto.BOOL}
        arithmetic = node.op_type in _ARITHMETIC and kinds & {TensorProto.BOOL, UINT8}
        for kind in logic or arithmetic or ():
            yield Problem(node_name(node), f"{node.op_type} of {type_name(kind)}")


def integer_bias(subject: Subject) -> Iterator[Problem]:
    """DequantizeLinear of int32, as ONNX Runtime's quantiser writes for biases."""
    for node in subject.nodes("DequantizeLinear"):
        if subject.types.get(node.input[0]) == TensorProto.INT32:
            yield Problem(node_name(node), "it decodes INT32", (node.input[0],))


def stray_codes(subject: Subject) -> Iterator[Problem]:
    """Constant codes that another operator than DequantizeLinear reads."""
    # The parser turns the bounds of Clip into attributes.
    allowed = {*PAIR, "Clip"}
    for name, tensor in subject.wiring.constants.items():
        if tensor.data_type not in _CODES:
            continue
        if name in subject.wiring.graph_outputs:
            yield Problem("", f"the output '{name}' is constant codes", (name,))
        for node in subject.wiring.consumers.get(name, ()):
            plugin = node.op_type in subject.plugins or not _is_onnx(node)
            if node.op_type not in allowed and not plugin and not _makes_zero(node, subject):
                kind = type_name(tensor.data_type)
                yield Problem(
                    node_name(node), f"{node.op_type} reads constant codes of {kind}", (name,)
                )


def moved_fp8(subject: Subject) -> Iterator[Problem]:
    """FP8 codes that anything but the few layers which take them reads."""
    for node in subject.wiring.nodes:
        if node.op_type in _TAKE_FP8 or node.op_type in subject.plugins:
            continue
        codes = [name for name in node.input if subject.types.get(name) == FLOAT8]
        made = tuple(name for name in codes if name not in subject.wiring.constants)
        if made:
            yield Problem(node_name(node), f"{node.op_type} reads FP8 codes", made)


def _makes_zero(node: NodeProto, subject: Subject) -> bool:
    """Whether what the node makes is read as zero points only."""
    readers = [(r, name) for name in node.output for r in subject.wiring.consumers.get(name, ())]
    return bool(readers) and all(
        reader.op_type in PAIR and list(reader.input[2:3]) == [name] for reader, name in readers
    )


def _is_onnx(node: NodeProto) -> bool:
    return onnx.defs.has(node.op_type)


RULES: tuple[Rule, ...] = (
    Rule(
        name="unknown-type",
        severity="parse-error",
        check=unknown_types,
        fix="use FP32, FP16, BF16, FP8 E4M3, INT8, INT4, INT32, INT64 or bool; unused constants "
        "count too",
    ),
    Rule(
        name="cast-type",
        severity="parse-error",
        check=casts,
        fix="cast to a type that TensorRT computes in",
    ),
    Rule(
        name="cast-to-fp8",
        severity="build-error",
        check=cast_to_codes,
        fix="make FP8 with QuantizeLinear",
    ),
    Rule(
        name="fp64",
        severity="advice",
        check=double,
        fix="nothing, if FP32 is precise enough: TensorRT computes FP64 in FP32",
    ),
    Rule(
        name="mixed-types",
        severity="parse-error",
        check=mixed,
        fix="cast one operand: a strongly typed network converts nothing by itself",
    ),
    Rule(
        name="operand-type",
        severity="parse-error",
        check=operands,
        fix="cast the operand first",
    ),
    Rule(
        name="int32-dequantize",
        severity="parse-error",
        check=integer_bias,
        fix="store the bias in the product's float type, without Q/DQ; ONNX Runtime's quantiser "
        "has the option QuantizeBias: false",
    ),
    Rule(
        name="stray-codes",
        severity="build-error",
        check=stray_codes,
        fix="let DequantizeLinear read the constant itself, and do the rest before or after it",
    ),
    Rule(
        name="fp8-moved",
        severity="build-error",
        check=moved_fp8,
        fix="do it before QuantizeLinear or behind DequantizeLinear",
    ),
)
