"""Mutations of the scales and zero points of activations."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.backends.tensorrt.lint.editor import (
    Editor,
    Mutation,
    NotApplicable,
    codes_of,
    contraction,
)
from tests.backends.tensorrt.lint.sketch import FP8, INT4, INT8, UINT8


def _zero(kind: int, value: float) -> Mutation:
    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        zero = e.constant(np.full(e.value(pair[0].input[2]).shape, value), kind)
        e.rescale(pair, pair[0].input[1], zero)

    return mutate


def _weight_zero(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    shape = e.value(decode.input[2]).shape
    decode.input[2] = e.constant(np.full(shape, 1.0), codes_of(e, decode.input[2]))


def _no_zero(where: tuple[int, ...]) -> Mutation:
    def mutate(e: Editor) -> None:
        pair = e.choose(e.pairs())
        if codes_of(e, pair[0].input[2]) != INT8:
            raise NotApplicable
        for place in where:
            del pair[place].input[2]

    return mutate


def _zero_input(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair, pair[0].input[1], e.input(codes_of(e, pair[0].input[2])))


def _zero_size(e: Editor) -> None:
    _, decode = e.choose(e.weights())
    decode.input[2] = e.constant(np.zeros(()), codes_of(e, decode.input[2]))


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
    zero = e.constant([0], codes_of(e, pair[0].input[2]))
    e.rescale(pair, e.floats([0.05]), zero)


def _channel_scales(e: Editor) -> None:
    pair = e.choose(e.pairs())
    count, axis = contraction(e, pair)
    zero = e.constant(np.zeros(count), codes_of(e, pair[0].input[2]))
    e.rescale(pair, e.floats(np.linspace(0.01, 0.05, count)), zero)
    for node in pair:
        e.set(node, "axis", axis)


def _channel_scales_in_q(e: Editor) -> None:
    """Smoothing within QuantizeLinear: decoded with one scale."""
    pair = e.choose(e.pairs())
    count, axis = contraction(e, pair)
    zero = e.constant(np.zeros(count), codes_of(e, pair[0].input[2]))
    e.rescale(pair[:1], e.floats(np.linspace(0.01, 0.05, count)), zero)
    e.set(pair[0], "axis", axis)


def _two_scales(e: Editor) -> None:
    pair = e.choose(e.pairs())
    e.rescale(pair[1:], e.floats(0.03))


def _swapped_codes(e: Editor) -> None:
    """One activation in FP8 among INT8, or the reverse."""
    pair = e.choose(e.pairs())
    kind = INT8 if codes_of(e, pair[0].input[2]) == FP8 else FP8
    e.rescale(pair, pair[0].input[1], e.constant(np.zeros(e.value(pair[0].input[2]).shape), kind))


SCALES: dict[str, Mutation] = {
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
    "codes swapped": _swapped_codes,
}
