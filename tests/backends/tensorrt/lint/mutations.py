"""Ways in which quantised graphs go wrong, and ways in which they only look as if they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.backends.tensorrt.lint.editor import Editor, NotApplicable

Mutation = Callable[[Editor], None]
INT8, UINT8 = TensorProto.INT8, TensorProto.UINT8
FP8, INT4 = TensorProto.FLOAT8E4M3FN, TensorProto.INT4


def _codes(e: Editor, name: str) -> int:
    return e.initializer(name).data_type


def _zero(kind: int, value: float) -> Mutation:
    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        zero = e.constant(np.full(e.value(pair[0].input[2]).shape, value), kind)
        e.rescale(pair, pair[0].input[1], zero)

    return mutate


def _weight_zero(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    shape = e.value(decode.input[2]).shape
    decode.input[2] = e.constant(np.full(shape, 1.0), _codes(e, decode.input[2]))


def _no_zero(where: tuple[int, ...]) -> Mutation:
    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        if _codes(e, pair[0].input[2]) != INT8:
            raise NotApplicable
        for place in where:
            del pair[place].input[2]

    return mutate


def _zero_input(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, pair[0].input[1], e.input(_codes(e, pair[0].input[2])))


def _zero_size(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    decode.input[2] = e.constant(np.zeros(()), _codes(e, decode.input[2]))


def _scale(value: float) -> Mutation:
    def mutate(e: Editor) -> None:
        e.rescale(e.choose(e.pairs()), e.floats(value))

    return mutate


def _one_weight_scale(value: float) -> Mutation:
    def mutate(e: Editor) -> None:
        _, decode = e.choose(e.weights())
        scales = np.array(e.value(decode.input[1]), dtype=np.float32)
        scales[int(e.rng.integers(len(scales)))] = value
        decode.input[1] = e.floats(scales)

    return mutate


def _other_scale_type(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, e.floats(0.05, TensorProto.FLOAT16 if e.kind == 1 else TensorProto.FLOAT))


def _other_scale_type_cast(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, e.floats(0.05, TensorProto.FLOAT16 if e.kind == 1 else TensorProto.FLOAT))
    e.behind(pair[1], "Cast", to=e.kind)


def _scale_input(e: Editor) -> None:
    e.rescale(e.choose(e.pairs()), e.input(e.kind))


def _dynamic_scale(e: Editor) -> None:
    pair = e.choose(e.pairs())
    top = e.add(pair[0], "Abs", pair[0].input[0])
    top = e.add(pair[0], "ReduceMax", top, keepdims=0)
    e.rescale(pair, e.add(pair[0], "Div", top, e.floats(127.0)))


def _scale_by_cast(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, e.add(pair[0], "Cast", e.floats(0.04, 1), to=e.kind))


def _scale_by_node(e: Editor) -> None:
    pair = e.choose(e.pairs())
    tensor = e.initializer(e.floats(0.04))
    made = e.add(pair[0], "Constant", value=tensor)
    e.graph.initializer.remove(tensor)
    e.rescale(pair, made)


def _computed_scale(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, e.add(pair[0], "Mul", e.floats(0.5), e.floats(0.1)))


def _scale_of_rank_1(e: Editor) -> None:
    pair = e.choose(e.pairs())
    zero = e.constant([0], _codes(e, pair[0].input[2]))
    e.rescale(pair, e.floats([0.05]), zero)


def _width(e: Editor, pair: tuple[onnx.NodeProto, ...]) -> tuple[int, int]:
    """Length and axis of the contraction that reads the pair."""
    for node, decode in e.weights():
        if node.input[0] == pair[1].output[0]:
            dims = e.initializer(decode.input[0]).dims
            if node.op_type == "Conv":
                return dims[1], 1
            return (dims[1] if node.op_type == "Gemm" else dims[0]), -1
    raise NotApplicable


def _channel_scales(e: Editor) -> None:
    pair = e.choose(e.pairs())
    count, axis = _width(e, pair)
    zero = e.constant(np.zeros(count), _codes(e, pair[0].input[2]))
    e.rescale(pair, e.floats(np.linspace(0.01, 0.05, count)), zero)
    for node in pair:
        e.set(node, "axis", axis)


def _channel_scales_in_q(e: Editor) -> None:
    """Smoothing within QuantizeLinear: decoded with one scale."""
    pair = e.choose(e.pairs())
    count, axis = _width(e, pair)
    zero = e.constant(np.zeros(count), _codes(e, pair[0].input[2]))
    e.rescale(pair[:1], e.floats(np.linspace(0.01, 0.05, count)), zero)
    e.set(pair[0], "axis", axis)


def _two_scales(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair[1:], e.floats(0.03))


def _weight_scales(axis: int | None) -> Mutation:
    """Scales along the axis of outputs (0), of the contraction (1), or one."""

    def mutate(e: Editor) -> None:
        node, decode = e.choose(e.weights())
        dims = e.initializer(decode.input[0]).dims
        out = 1 if node.op_type == "MatMul" else 0
        kind = _codes(e, decode.input[0])
        place = None if axis is None else (out if axis == 0 else 1 - out)
        count = () if place is None else (dims[place],)
        decode.input[1] = e.floats(e.rng.uniform(0.001, 0.01, count))
        decode.input[2] = e.constant(np.zeros(count), kind)
        e.set(decode, "axis", 0 if place is None else place)

    return mutate


def _scale_count(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    scales = np.array(e.value(decode.input[1]), dtype=np.float32)[:-1]
    kind = _codes(e, decode.input[0])
    e.rescale((decode,), e.floats(scales), e.constant(np.zeros(len(scales)), kind))


def _axis_out_of_range(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    e.set(decode, "axis", len(e.initializer(decode.input[0]).dims))


def _blocked(kind: int) -> Mutation:
    def mutate(e: Editor) -> None:
        node, decode = e.choose(e.weights("MatMul"))
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
        more = [] if value is None else [e.floats(np.full(shape, value) * (1 + e.rng.random(shape)))]
        node.input[1] = e.add(node, op, decode.output[0], *more)

    return mutate


def _cast_weight(e: Editor) -> None:
    if e.kind == TensorProto.FLOAT:
        raise NotApplicable
    node, decode = e.choose(e.weights())
    decode.input[1] = e.floats(np.array(e.value(decode.input[1]), dtype=np.float32), 1)
    node.input[1] = e.add(node, "Cast", decode.output[0], to=e.kind)


def _on_activation(op: str, *constants: float, width: bool = False, **attributes: object) -> Mutation:
    """An operator between DequantizeLinear and the product."""

    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        shape: list[int] = []
        if width:
            count, axis = _width(e, pair)
            shape = [count] if axis == -1 else [count, 1, 1]
        more = [e.floats(np.full(shape, value) * (1 + e.rng.random(shape))) for value in constants]
        e.behind(pair[1], op, *more, **attributes)

    return mutate


def _dynamic_factor(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.behind(pair[1], "Mul", e.input(e.kind))


def _there_and_back(e: Editor) -> None:
    pair = e.choose(e.pairs())
    flat = e.behind(pair[1], "Unsqueeze", e.ints(0))
    e.behind(flat, "Squeeze", e.ints(0))


def _sliced(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.behind(pair[1], "Slice", e.ints(0), e.ints(2**31 - 1), e.ints(0))


def _turned_twice(e: Editor) -> None:
    pair = e.choose(e.pairs())
    rank = 2 if e.nodes("Gemm") else 4 if e.nodes("Conv") or not e.weights() else 3
    order = list(range(rank))
    order[0], order[1] = 1, 0
    e.behind(e.behind(pair[1], "Transpose", perm=order), "Transpose", perm=order)


def _second_pair(e: Editor) -> None:
    encode, decode = e.choose(e.pairs())
    again = e.behind(decode, "QuantizeLinear", *encode.input[1:])
    e.behind(again, "DequantizeLinear", *encode.input[1:])


def _moved_codes(e: Editor) -> None:
    encode, _ = e.choose(e.pairs())
    e.behind(e.behind(encode, "Unsqueeze", e.ints(0)), "Squeeze", e.ints(0))


def _joined(scale: float | None, *, partial: bool = False) -> Mutation:
    """Two halves of the contraction, coded apart and joined."""

    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        count, axis = _width(e, pair)
        node = e.graph.node[list(e.graph.node).index(pair[0])]
        source = node.input[0]
        first, second = (
            e.add(node, "Slice", source, e.ints(low), e.ints(high), e.ints(axis))
            for low, high in ((0, count // 2), (count // 2, count))
        )
        zero = pair[0].input[2]
        other = pair[0].input[1] if scale is None else e.floats(scale)
        parts = []
        for part, step in ((first, pair[0].input[1]), (second, other)):
            if partial and part == second:
                parts.append(part)
                continue
            coded = e.add(node, "QuantizeLinear", part, step, zero)
            parts.append(e.add(node, "DequantizeLinear", coded, step, zero))
        whole = e.add(node, "Concat", *parts, axis=axis)
        for reader in e.graph.node:
            for place, name in enumerate(reader.input):
                if name == pair[1].output[0]:
                    reader.input[place] = whole
        e.graph.node.remove(pair[1])
        e.graph.node.remove(pair[0])

    return mutate


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


def _output_pair(e: Editor) -> None:
    node = e.choose(e.products())
    scale, zero = e.floats(0.1), e.constant(0, INT8)
    e.behind(e.behind(node, "QuantizeLinear", scale, zero), "DequantizeLinear", scale, zero)


def _residual_pair(e: Editor) -> None:
    node = e.choose([n for n in e.nodes("Add") if n.input[0] == "x"])
    scale, zero = e.floats(0.1), e.constant(0, INT8)
    coded = e.add(node, "QuantizeLinear", "x", scale, zero)
    node.input[0] = e.add(node, "DequantizeLinear", coded, scale, zero)


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


def _table_of_codes(e: Editor) -> None:
    """Constant codes that Gather reads."""
    node, place, count = _bias(e)
    table = e.constant(np.ones((3, count)), INT8)
    row = e.add(node, "Gather", table, e.constant(np.int64(1)), axis=0)
    node.input[place] = e.add(node, "Cast", row, to=e.kind)


def _swapped_codes(e: Editor) -> None:
    """One activation in FP8 among INT8, or the reverse."""
    pair = e.choose(e.pairs())
    kind = INT8 if _codes(e, pair[0].input[2]) == FP8 else FP8
    e.rescale(pair, pair[0].input[1], e.constant(np.zeros(e.value(pair[0].input[2]).shape), kind))


def _attention_operand(place: int, name: str) -> Mutation:
    """One of the four operands of coded attention left in 16 bits."""

    def mutate(e: Editor) -> None:
        node = e.choose([n for n in e.nodes("MatMul") if n.name == name])
        decode = e.decode(node, place)
        if decode is None:
            raise NotApplicable
        encode = e.maker(decode.input[0])
        assert encode is not None
        node.input[place] = encode.input[0]

    return mutate


def _attention_operator(**attributes: object) -> Mutation:
    def mutate(e: Editor) -> None:
        last = e.choose([n for n in e.nodes("MatMul") if n.name == "site_values"])
        if e.decode(last, 0) is not None:
            raise NotApplicable
        e.model.opset_import[0].version = 23
        node = helper.make_node("Attention", ["q", "k", "v"], list(last.output), name="attention")
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        del e.graph.node[:]
        e.graph.node.append(node)

    return mutate


def _attention_float32(e: Editor) -> None:
    last = e.choose([n for n in e.nodes("MatMul") if n.name == "site_values"])
    if e.decode(last, 0) is not None:
        raise NotApplicable
    _attention_operator()(e)
    for value in e.graph.input:
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def _dead(e: Editor) -> None:
    """The output no longer depends on the products."""
    last = e.graph.node[-1]
    shape = e.behind(last, "Shape")
    e.behind(shape, "ConstantOfShape")


def _nothing(e: Editor) -> None:
    del e


MUTATIONS: dict[str, Mutation] = {
    "as it was": _nothing,
    "zero point 3": _zero(INT8, 3),
    "uint8 codes around 128": _zero(UINT8, 128),
    "uint8 codes from 0": _zero(UINT8, 0),
    "int4 activation": _zero(INT4, 0),
    "int16 activation": _zero(TensorProto.INT16, 0),
    "fp8 e5m2 activation": _zero(TensorProto.FLOAT8E5M2, 0),
    "weight's zero point": _weight_zero,
    "no zero points": _no_zero((0, 1)),
    "no zero point in Q": _no_zero((0,)),
    "no zero point in DQ": _no_zero((1,)),
    "zero point an input": _zero_input,
    "one zero point for many scales": _zero_size,
    "scale 0": _scale(0.0),
    "scale negative": _scale(-0.05),
    "scale NaN": _scale(float("nan")),
    "scale infinite": _scale(float("inf")),
    "scale 1e-8": _scale(1e-8),
    "scale 1e-6": _scale(1e-6),
    "scale large": _scale(3e4),
    "one weight scale 0": _one_weight_scale(0.0),
    "one weight scale negative": _one_weight_scale(-0.01),
    "one weight scale tiny": _one_weight_scale(1e-9),
    "scale of another type": _other_scale_type,
    "scale of another type, cast": _other_scale_type_cast,
    "scale an input": _scale_input,
    "scale dynamic": _dynamic_scale,
    "scale by Cast": _scale_by_cast,
    "scale by Constant": _scale_by_node,
    "scale by Mul": _computed_scale,
    "scale of rank 1": _scale_of_rank_1,
    "scale per channel": _channel_scales,
    "scale per channel in Q": _channel_scales_in_q,
    "other scale in DQ": _two_scales,
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
    "Relu after DQ": _on_activation("Relu"),
    "Gelu after DQ": _on_activation("Gelu"),
    "Clip after DQ": _on_activation("Clip", -1.0, 1.0),
    "Neg after DQ": _on_activation("Neg"),
    "Identity after DQ": _on_activation("Identity"),
    "Cast after DQ": _on_activation("Cast", to=TensorProto.FLOAT),
    "Mul by 2 after DQ": _on_activation("Mul", 2.0),
    "Div by 2 after DQ": _on_activation("Div", 2.0),
    "Add of 2 after DQ": _on_activation("Add", 2.0),
    "Mul by vector after DQ": _on_activation("Mul", 2.0, width=True),
    "Sub of vector after DQ": _on_activation("Sub", 2.0, width=True),
    "Mul by an input after DQ": _dynamic_factor,
    "reshapes after DQ": _there_and_back,
    "Slice after DQ": _sliced,
    "Transposes after DQ": _turned_twice,
    "Q/DQ twice": _second_pair,
    "codes reshaped": _moved_codes,
    "joined with one scale": _joined(None),
    "joined with two scales": _joined(0.011),
    "joined with float": _joined(None, partial=True),
    "int32 bias": _int32_bias,
    "int8 bias": _int8_bias,
    "int32 bias by Cast": _cast_bias,
    "bias of another type": _float_bias,
    "output coded": _output_pair,
    "residual coded": _residual_pair,
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
    "codes gathered": _table_of_codes,
    "codes swapped": _swapped_codes,
    "Q of attention not coded": _attention_operand(0, "site_scores"),
    "K of attention not coded": _attention_operand(1, "site_scores"),
    "softmax not coded": _attention_operand(0, "site_values"),
    "V of attention not coded": _attention_operand(1, "site_values"),
    "Attention": _attention_operator(),
    "Attention with softcap": _attention_operator(softcap=2.0),
    "Attention with a softmax type": _attention_operator(softmax_precision=1),
    "Attention in fp32": _attention_float32,
    "nothing needs it": _dead,
}
