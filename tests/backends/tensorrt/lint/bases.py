"""Valid graphs of the kinds that plans lead to, at sizes that depend on a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.backends.tensorrt.lint.sketch import BFLOAT16, FLOAT, FLOAT16, FP8, INT8, Sketch

B = "batch"


def _sizes(s: Sketch) -> tuple[int, int, int]:
    """Tokens, inner and outer features."""
    tokens, inner, outer = (int(s.rng.choice(c)) for c in ((16, 77), (64, 96), (128, 192)))
    return tokens, inner, outer


def _norm(s: Sketch, x: str, width: int) -> str:
    return s.op(
        "LayerNormalization", x, s.floats(np.ones(width)), s.floats(np.zeros(width)), axis=-1
    )


def _modulated(s: Sketch, x: str, width: int) -> str:
    scale, shift = (s.input(name, B, 1, width) for name in ("scale", "shift"))
    return s.op("Add", s.op("Mul", _norm(s, x, width), scale), shift)


def per_token(seed: int, kind: int = FLOAT16, codes: int = INT8) -> onnx.ModelProto:
    """Modulated LayerNorm, rows divided by their range, a product, rows multiplied back, GELU."""
    s = Sketch(kind, codes=codes, seed=seed)
    tokens, inner, outer = _sizes(s)
    x = _modulated(s, s.input("x", B, tokens, inner), inner)
    top = s.op("ReduceMax", s.op("Abs", x), s.ints(-1), keepdims=1)
    rows = s.op("Div", s.op("Max", top, s.floats(1e-3)), s.floats(127.0 if codes == INT8 else 448))
    x = s.pair(s.op("Div", x, rows), 1.0)
    y = s.op("MatMul", x, s.weight(inner, outer, axis=1), name="site_up")
    y = s.op("Add", s.op("Mul", y, rows), s.floats(s.rng.normal(size=outer)))
    s.output(s.op("Gelu", y))
    return s.model()


def plain(seed: int, kind: int = FLOAT16, codes: int = INT8) -> onnx.ModelProto:
    """Two products in a row with GELU between them, and a residual."""
    s = Sketch(kind, codes=codes, seed=seed)
    tokens, inner, outer = _sizes(s)
    x = s.input("x", B, tokens, inner)
    y = s.op("Gelu", s.linear(x, inner, outer, "site_up"))
    y = s.linear(y, outer, inner, "site_down", scale=0.02)
    s.output(s.op("Add", x, y))
    return s.model()


def segments(seed: int) -> onnx.ModelProto:
    """A joined input taken apart: one scale and one product for each half."""
    s = Sketch(seed=seed)
    tokens, inner, outer = _sizes(s)
    x = s.input("x", B, tokens, 2 * inner)
    halves = s.ops("Split", x, outputs=2, axis=2, num_outputs=2)
    parts = [
        s.op("MatMul", s.pair(half, scale), s.weight(inner, outer, axis=1), name=f"site_{place}")
        for place, (half, scale) in enumerate(zip(halves, (0.05, 0.007), strict=True))
    ]
    s.output(s.op("Add", s.op("Add", *parts), s.floats(np.ones(outer))))
    return s.model()


def dual(seed: int) -> onnx.ModelProto:
    """SiLU's two branches: positive and negative part with a scale each."""
    s = Sketch(seed=seed)
    tokens, inner, outer = _sizes(s)
    x = s.input("x", B, tokens, inner)
    x = s.op("Mul", x, s.op("Sigmoid", x))
    high = s.op("Relu", x)
    low = s.op("Sub", x, high)
    parts = [
        s.op("MatMul", s.pair(part, scale), s.weight(inner, outer, axis=1), name=name)
        for part, scale, name in ((high, 0.06, "site_high"), (low, 0.002, "site_low"))
    ]
    s.output(s.op("Add", s.op("Add", *parts), s.floats(np.ones(outer))))
    return s.model()


def convolution(seed: int, codes: int = INT8) -> onnx.ModelProto:
    """GroupNorm, SiLU, 3x3 convolution, a 1x1 shortcut, their sum."""
    s = Sketch(codes=codes, seed=seed)
    inner, outer = (int(s.rng.choice(c)) for c in ((32, 48), (64, 96)))
    x = s.input("x", B, inner, 16, 16)
    gain, shift = s.floats(np.ones(inner)), s.floats(np.zeros(inner))
    y = s.op("GroupNormalization", x, gain, shift, num_groups=8)
    y = s.op("Mul", y, s.op("Sigmoid", y))
    weight = s.weight(outer, inner, 3, 3, axis=0)
    bias = s.floats(s.rng.normal(size=outer))
    y = s.op("Conv", s.pair(y), weight, bias, name="site_conv", pads=[1, 1, 1, 1])
    short = s.op("Conv", s.pair(x, 0.03), s.weight(outer, inner, 1, 1, axis=0), name="site_short")
    s.output(s.op("Add", y, short))
    return s.model()


def embedding(seed: int) -> onnx.ModelProto:
    """A timestep's two linears as Gemm with a turned weight."""
    s = Sketch(seed=seed)
    inner, outer = (int(s.rng.choice(c)) for c in ((64, 96), (128, 256)))
    x = s.input("x", B, inner)
    for name, a, b in (("site_1", inner, outer), ("site_2", outer, outer)):
        bias = s.floats(s.rng.normal(size=b))
        x = s.op("Gemm", s.pair(x), s.weight(b, a, axis=0), bias, transB=1, name=name)
        x = s.op("Mul", x, s.op("Sigmoid", x))
    s.output(x)
    return s.model()


def _heads(s: Sketch, x: str, tokens: int, heads: int, width: int) -> str:
    x = s.op("Reshape", x, s.ints(0, tokens, heads, width // heads))
    return s.op("Transpose", x, perm=[0, 2, 1, 3])


def attention(seed: int, codes: int | None = None) -> onnx.ModelProto:
    """Scores, softmax, values; all four operands coded when `codes` is given."""
    s = Sketch(codes=codes or INT8, seed=seed)
    tokens, width = int(s.rng.choice((96, 160))), int(s.rng.choice((40, 64, 128)))
    q, k, v = (s.input(name, B, 4, tokens, width) for name in "qkv")
    largest = 1 / 448 if codes == FP8 else 1 / 127

    def coded(x: str, scale: float) -> str:
        return s.pair(x, scale) if codes else x

    turned = coded(s.op("Transpose", k, perm=[0, 1, 3, 2]), 0.02)
    scores = s.op("MatMul", coded(q, 0.02), turned, name="site_scores")
    chance = s.op("Softmax", s.op("Mul", scores, s.floats(width**-0.5)), axis=-1)
    s.output(s.op("MatMul", coded(chance, largest), coded(v, 0.02), name="site_values"))
    return s.model()


def block(seed: int, kind: int = FLOAT16) -> onnx.ModelProto:
    """A transformer block: 16-bit attention between 8-bit linears, MLP, two residuals."""
    s = Sketch(kind, seed=seed)
    tokens, width, heads = int(s.rng.choice((64, 80))), 128, 4
    x = s.input("x", B, tokens, width)
    normed = s.pair(_norm(s, x, width))
    made = [
        s.op("MatMul", normed, s.weight(width, width, axis=1), name=f"site_to_{name}")
        for name in "qkv"
    ]
    q, k, v = (_heads(s, part, tokens, heads, width) for part in made)
    scores = s.op("MatMul", q, s.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores")
    scores = s.op("Mul", scores, s.floats((width // heads) ** -0.5))
    y = s.op("MatMul", s.op("Softmax", scores, axis=-1), v, name="values")
    y = s.op("Reshape", s.op("Transpose", y, perm=[0, 2, 1, 3]), s.ints(0, tokens, width))
    x = s.op("Add", x, s.linear(y, width, width, "site_out", scale=0.01))
    y = s.op("Gelu", s.linear(_norm(s, x, width), width, 4 * width, "site_up"))
    s.output(s.op("Add", x, s.linear(y, 4 * width, width, "site_down", scale=0.03)))
    return s.model()


BASES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "int8 per token": per_token,
    "int8 chain": plain,
    "int8 chain in bf16": lambda seed: plain(seed, BFLOAT16),
    "int8 chain in fp32": lambda seed: plain(seed, FLOAT),
    "fp8 per token": lambda seed: per_token(seed, codes=FP8),
    "fp8 chain": lambda seed: plain(seed, codes=FP8),
    "segments": segments,
    "dual": dual,
    "int8 convolution": convolution,
    "fp8 convolution": lambda seed: convolution(seed, FP8),
    "gemm": embedding,
    "fp16 attention": attention,
    "fp8 attention": lambda seed: attention(seed, FP8),
    "int8 attention": lambda seed: attention(seed, INT8),
    "block": block,
    "block in bf16": lambda seed: block(seed, BFLOAT16),
}
