"""Mutations of what lies between codes and products, and of attention."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.backends.tensorrt.lint.editor import Editor, Mutation, NotApplicable, contraction
from tests.backends.tensorrt.lint.sketch import INT8


def _on_activation(
    op: str, *constants: float, width: bool = False, **attributes: object
) -> Mutation:
    """An operator between DequantizeLinear and the product."""

    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        shape: list[int] = []
        if width:
            count, axis = contraction(e, pair)
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
        count, axis = contraction(e, pair)
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


def _output_pair(e: Editor) -> None:
    node = e.choose(e.products())
    scale, zero = e.floats(0.1), e.constant(0, INT8)
    e.behind(e.behind(node, "QuantizeLinear", scale, zero), "DequantizeLinear", scale, zero)


def _residual_pair(e: Editor) -> None:
    node = e.choose([n for n in e.nodes("Add") if n.input[0] == "x"])
    scale, zero = e.floats(0.1), e.constant(0, INT8)
    coded = e.add(node, "QuantizeLinear", "x", scale, zero)
    node.input[0] = e.add(node, "DequantizeLinear", coded, scale, zero)


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


ACTIVATIONS: dict[str, Mutation] = {
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
    "output coded": _output_pair,
    "residual coded": _residual_pair,
    "Q of attention not coded": _attention_operand(0, "site_scores"),
    "K of attention not coded": _attention_operand(1, "site_scores"),
    "softmax not coded": _attention_operand(0, "site_values"),
    "V of attention not coded": _attention_operand(1, "site_values"),
    "Attention": _attention_operator(),
    "Attention with softcap": _attention_operator(softcap=2.0),
    "Attention with a softmax type": _attention_operator(softmax_precision=1),
    "Attention in fp32": _attention_float32,
}
