"""Minimal graphs around one product or one attention, with parts to put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.backends.tensorrt.lint.sketch import FLOAT16, INT8, Sketch

K, N, TOKENS = 48, 80, 17
Model = onnx.ModelProto
Part = Callable[[Sketch, str], str]
Weight = Callable[[Sketch], str]


def _pair(s: Sketch, x: str) -> str:
    return s.pair(x)


def _same(s: Sketch, x: str) -> str:
    del s
    return x


def _stored(s: Sketch) -> str:
    return s.weight(K, N, axis=1)


def linear(
    before: Part = _pair,
    weight: Weight = _stored,
    after: Part = _same,
    *,
    kind: int = FLOAT16,
    codes: int = INT8,
    opset: int = 21,
    name: str = "site",
    source: int | None = None,
) -> Model:
    """x -> before -> MatMul with a weight -> after."""
    s = Sketch(kind, codes=codes)
    x = s.input("x", "batch", TOKENS, K, kind=source)
    s.output(after(s, s.op("MatMul", before(s, x), weight(s), name=name)))
    return s.model(opset=opset)


def coded(
    scale: Any = 0.05, zero: Any = 0, *, kind: int = INT8, decode: Any = None, **attributes: Any
) -> Part:
    """QuantizeLinear and DequantizeLinear with these scales and zero points."""

    def part(s: Sketch, x: str) -> str:
        step = scale(s, x) if callable(scale) else s.floats(scale)
        second = step if decode is None else s.floats(decode)
        point = zero(s) if callable(zero) else s.stored(np.full(np.shape(scale), zero), kind)
        made = s.op("QuantizeLinear", x, step, *filter(None, (point,)), **attributes)
        return s.op("DequantizeLinear", made, second, *filter(None, (point,)), **attributes)

    return part


def then(*parts: Part) -> Part:
    """One part after the other."""

    def part(s: Sketch, x: str) -> str:
        for each in parts:
            x = each(s, x)
        return x

    return part


def op(kind: str, *constants: Any, domain: str = "", name: str = "", **attributes: Any) -> Part:
    """One operator; constants are of the graph's float type unless they are arrays."""

    def part(s: Sketch, x: str) -> str:
        more = [s.array(c) if isinstance(c, np.ndarray) else s.floats(c) for c in constants]
        made = s.op(kind, x, *more, name=name, **attributes)
        s.nodes[-1].domain = domain
        return made

    return part


def decoded(codes: Any, kind: int, scale: Any, zero: Any = 0, **attributes: Any) -> Weight:
    """A weight of given codes."""

    def weight(s: Sketch) -> str:
        inputs = (
            s.stored(codes, kind),
            s.floats(scale),
            s.stored(np.full(np.shape(scale), zero), kind),
        )
        return s.op("DequantizeLinear", *inputs, **attributes)

    return weight


def changed(model: Model, change: Callable[[Model], object]) -> Model:
    """The model after `change`."""
    change(model)
    return model


def convolution(
    before: Part = _pair, *, weight: Weight | None = None, kind: str = "Conv", codes: int = INT8
) -> Model:
    """x -> before -> 3x3 convolution."""
    s = Sketch(codes=codes)
    x = s.input("x", "batch", 16, 9, 9)
    made = weight(s) if weight is not None else s.weight(16, 16, 3, 3, axis=0)
    s.output(s.op(kind, before(s, x), made, name="site"))
    return s.model()


def attention(
    codes: int | None = None,
    *,
    kind: int = FLOAT16,
    plain: tuple[str, ...] = (),
    width: int = 64,
    tokens: int = 96,
    output: bool = False,
    softmax: float = 1 / 448,
) -> Model:
    """Scores, softmax, values; the operands not in `plain` are coded, and `output` perhaps."""
    s = Sketch(kind, codes=codes or INT8)
    q, k, v = (s.input(name, "batch", 2, tokens, width) for name in "qkv")

    def operand(name: str, x: str) -> str:
        scale = 0.02 if name in "qkv" else softmax
        return s.pair(x, scale) if codes and name not in plain else x

    turned = operand("k", s.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = s.op("MatMul", operand("q", q), turned, name="scores")
    chance = operand("softmax", s.op("Softmax", scores, axis=-1))
    made = s.op("MatMul", chance, operand("v", v), name="values")
    s.output(s.pair(made) if output else made)
    return s.model()


def operator_attention(kind: int = FLOAT16, codes: int | None = None, **attributes: Any) -> Model:
    """The operator `Attention` of opset 23."""
    s = Sketch(kind, codes=codes or INT8)
    qkv = [s.input(name, "batch", 2, 96, 64) for name in "qkv"]
    operands = [s.pair(x, 0.02) for x in qkv] if codes else qkv
    s.output(s.op("Attention", *operands, name="attention", **attributes))
    return s.model(opset=23)


def with_function(name: str, **attributes: Any) -> Model:
    """A local function after the product."""
    model = linear(after=op(name, domain="own", name="call", **attributes))
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [helper.make_node("Relu", ["X"], ["Y"])]
    imports = [helper.make_opsetid("", 21)]
    function = helper.make_function("own", name, ["X"], ["Y"], body, imports, list(attributes))
    model.functions.append(function)
    return model


def residual(*, product: bool) -> Model:
    """A coded skip branch, added to a product or to something else."""
    s = Sketch()
    x = s.input("x", "batch", TOKENS, K)
    other = s.linear(x, K, K, "site") if product else s.op("Gelu", x)
    s.output(s.op("Add", s.pair(x, 0.03), other, name="sum"))
    return s.model()


def joined(second: float, *, partial: bool = False) -> Part:
    """Concat of two coded halves."""

    def part(s: Sketch, x: str) -> str:
        halves = s.ops("Split", x, outputs=2, axis=2, num_outputs=2)
        parts = [s.pair(halves[0], 0.05), halves[1] if partial else s.pair(halves[1], second)]
        return s.op("Concat", *parts, axis=2, name="joined")

    return part


def two_weights(*, in_file: bool) -> Weight:
    """A weight of two halves, joined in the file or by Concat."""

    def weight(s: Sketch) -> str:
        halves = [s.weight(K, N // 2, axis=1) for _ in range(2)]
        return s.weight(K, N, axis=1) if in_file else s.op("Concat", *halves, axis=1)

    return weight


def running_scale(s: Sketch, x: str) -> str:
    """A scale computed from the data."""
    return s.op("Div", s.op("ReduceMax", s.op("Abs", x), keepdims=0), s.floats(127.0))
