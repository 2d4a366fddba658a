"""Mutations of weights and biases."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.backends.tensorrt.lint.editor import Editor, Mutation, NotApplicable, codes_of
from tests.backends.tensorrt.lint.sketch import FP8, INT4, INT8, UINT8


def _weight_scales(axis: int | None) -> Mutation:
    """Scales along the axis of outputs (0), of the contraction (1), or one."""

    def mutate(e: Editor) -> None:
        node, decode = e.choose(e.weights())
        dims = e.initializer(decode.input[0]).dims
        out = 1 if node.op_type == "MatMul" else 0
        kind = codes_of(e, decode.input[0])
        place = None if axis is None else (out if axis == 0 else 1 - out)
        count = () if place is None else (dims[place],)
        decode.input[1] = e.floats(e.rng.uniform(0.001, 0.01, count))
        decode.input[2] = e.constant(np.zeros(count), kind)
        e.set(decode, "axis", 0 if place is None else place)

    return mutate


def _scale_count(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    scales = np.array(e.value(decode.input[1]), dtype=np.float32)[:-1]
    kind = codes_of(e, decode.input[0])
    e.rescale((decode,), e.floats(scales), e.constant(np.zeros(len(scales)), kind))


def _axis_out_of_range(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    e.set(decode, "axis", len(e.initializer(decode.input[0]).dims))


def _blocked(kind: int) -> Mutation:
    def mutate(e: Editor) -> None:
        _node, decode = e.choose(e.weights("MatMul"))
        rows, columns = e.initializer(decode.input[0]).dims
        codes = e.constant(e.rng.integers(-7, 8, (rows, columns)), kind)
        scales = e.floats(np.full((rows // 16, columns), 0.01))
        zero = e.constant(np.zeros((rows // 16, columns)), kind)
        decode.input[:] = [codes, scales, zero]
        e.set(decode, "axis", 0)
        e.set(decode, "block_size", 16)

    return mutate


def _weight_only(kind: int, *, blocked: bool) -> Mutation:
    """Coded weight under a 16-bit activation."""

    def mutate(e: Editor) -> None:
        node, decode = e.choose(e.weights("MatMul"))
        _unquantize(e, node)
        if blocked:
            rows, columns = e.initializer(decode.input[0]).dims
            shape = (rows // 16, columns)
            decode.input[:] = [
                e.constant(e.rng.integers(-7, 8, (rows, columns)), kind),
                e.floats(np.full(shape, 0.01)),
                e.constant(np.zeros(shape), kind),
            ]
            e.set(decode, "axis", 0)
            e.set(decode, "block_size", 16)

    return mutate


def _unquantize(e: Editor, node: onnx.NodeProto) -> None:
    decode = e.decode(node, 0)
    encode = None if decode is None else e.maker(decode.input[0])
    if encode is None:
        raise NotApplicable
    node.input[0] = encode.input[0]


def _activation_plain(e: Editor) -> None:
    _unquantize(e, e.choose(e.products()))


def _weight_plain(e: Editor) -> None:
    node, decode = e.choose(e.weights())
    dims = e.initializer(decode.input[0]).dims
    node.input[1] = e.floats(e.rng.normal(size=dims) * 0.05)


def _weight_by_pair(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    floats = e.floats(e.rng.normal(size=e.initializer(decode.input[0]).dims) * 0.05)
    axis = next(a.i for a in decode.attribute if a.name == "axis")
    decode.input[0] = e.add(decode, "QuantizeLinear", floats, *decode.input[1:], axis=axis)


def _weight_codes(kind: int) -> Mutation:
    def mutate(e: Editor) -> None:
        _, decode = e.choose(e.weights())
        dims = tuple(e.initializer(decode.input[0]).dims)
        shape = e.value(decode.input[2]).shape
        low = 0 if kind == UINT8 else -7
        decode.input[0] = e.constant(e.rng.integers(low, 8, dims), kind)
        decode.input[2] = e.constant(np.zeros(shape), kind)

    return mutate


def _turned_weight(e: Editor) -> None:
    """Stored [N, K], as torch has it, and turned behind DequantizeLinear."""
    node, decode = e.choose(e.weights("MatMul"))
    codes = e.initializer(decode.input[0])
    rows, columns = codes.dims
    codes.dims[:] = [columns, rows]
    e.set(decode, "axis", 0)
    node.input[1] = e.add(node, "Transpose", decode.output[0], perm=[1, 0])


def _turned_codes(e: Editor) -> None:
    _, decode = e.choose(e.weights("MatMul"))
    codes = e.initializer(decode.input[0])
    codes.dims[:] = [codes.dims[1], codes.dims[0]]
    decode.input[0] = e.add(decode, "Transpose", codes.name, perm=[1, 0])


def _reshaped_weight(e: Editor) -> None:
    node, decode = e.choose(e.weights("MatMul", "Conv"))
    codes = e.initializer(decode.input[0])
    dims = list(codes.dims)
    codes.dims[:] = [1, *dims]
    axis = next(a.i for a in decode.attribute if a.name == "axis")
    e.set(decode, "axis", axis + 1)
    node.input[1] = e.add(node, "Reshape", decode.output[0], e.ints(*dims))


def _on_weight(op: str, value: float | None, *, vector: bool = False) -> Mutation:
    def mutate(e: Editor) -> None:
        node, decode = e.choose(e.weights())
        dims = e.initializer(decode.input[0]).dims
        shape = [dims[0], *[1] * (len(dims) - 1)] if vector else []
        more = (
            [] if value is None else [e.floats(np.full(shape, value) * (1 + e.rng.random(shape)))]
        )
        node.input[1] = e.add(node, op, decode.output[0], *more)

    return mutate


def _cast_weight(e: Editor) -> None:
    if e.kind == TensorProto.FLOAT:
        raise NotApplicable
    node, decode = e.choose(e.weights())
    decode.input[1] = e.floats(np.array(e.value(decode.input[1]), dtype=np.float32), 1)
    node.input[1] = e.add(node, "Cast", decode.output[0], to=e.kind)


def _bias(e: Editor) -> tuple[onnx.NodeProto, int, int]:
    """A node that adds a vector of constants, where it does, and how many."""
    found = []
    for node in e.nodes("Add", "Gemm", "Conv"):
        for place, name in enumerate(node.input):
            dims = [list(t.dims) for t in e.graph.initializer if t.name == name]
            if dims and len(dims[0]) == 1 and place == (1 if node.op_type == "Add" else 2):
                found.append((node, place, dims[0][0]))
    node, place, count = e.choose(found)
    return node, place, count


def _int32_bias(e: Editor) -> None:
    node, place, count = _bias(e)
    codes = e.constant(np.ones(count, dtype=np.int32))
    zero = e.constant(np.zeros(count, dtype=np.int32))
    scale = e.floats(np.full(count, 0.001))
    node.input[place] = e.add(node, "DequantizeLinear", codes, scale, zero, axis=0)


def _int8_bias(e: Editor) -> None:
    node, place, count = _bias(e)
    codes, zero = (e.constant(np.full(count, v), INT8) for v in (5, 0))
    scale = e.floats(np.full(count, 0.001))
    node.input[place] = e.add(node, "DequantizeLinear", codes, scale, zero, axis=0)


def _cast_bias(e: Editor) -> None:
    node, place, count = _bias(e)
    node.input[place] = e.add(node, "Cast", e.constant(np.ones(count, dtype=np.int32)), to=e.kind)


def _float_bias(e: Editor) -> None:
    node, place, count = _bias(e)
    node.input[place] = e.floats(np.ones(count), 1 if e.kind != 1 else 10)


def _table_of_codes(e: Editor) -> None:
    """Constant codes that Gather reads."""
    node, place, count = _bias(e)
    table = e.constant(np.ones((3, count)), INT8)
    row = e.add(node, "Gather", table, e.constant(np.int64(1)), axis=0)
    node.input[place] = e.add(node, "Cast", row, to=e.kind)


WEIGHTS: dict[str, Mutation] = {
    "weight scales of outputs": _weight_scales(0),
    "weight scales of inputs": _weight_scales(1),
    "weight scale per tensor": _weight_scales(None),
    "weight scales too few": _scale_count,
    "weight axis out of range": _axis_out_of_range,
    "int8 weight in blocks": _blocked(INT8),
    "int4 weight in blocks": _blocked(INT4),
    "int8 weight only": _weight_only(INT8, blocked=False),
    "int4 weight only, in blocks": _weight_only(INT4, blocked=True),
    "activation not coded": _activation_plain,
    "weight not coded": _weight_plain,
    "weight by Q/DQ": _weight_by_pair,
    "uint8 weight": _weight_codes(UINT8),
    "int4 weight": _weight_codes(INT4),
    "weight of other codes": _weight_codes(FP8),
    "weight turned": _turned_weight,
    "weight's codes turned": _turned_codes,
    "weight reshaped": _reshaped_weight,
    "weight cast": _cast_weight,
    "weight behind Identity": _on_weight("Identity", None),
    "weight times 2": _on_weight("Mul", 2.0),
    "weight times vector": _on_weight("Mul", 2.0, vector=True),
    "weight plus vector": _on_weight("Add", 0.5, vector=True),
    "int32 bias": _int32_bias,
    "int8 bias": _int8_bias,
    "int32 bias by Cast": _cast_bias,
    "bias of another type": _float_bias,
    "codes gathered": _table_of_codes,
}
