"""Activations before a site, in every way of writing them; torch's functions are the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from tests.analyze.graphs import Drawing, reasons

B, S, K = "batch", "tokens", 8


def scalar(d: Drawing, value: float, dtype: type = np.float32) -> str:
    return d.constant(value, dtype)


def erf_gelu(d: Drawing, x: str) -> str:
    """TorchScript's: div, erf, add, mul, mul."""
    inner = d.op("Add", d.op("Erf", d.op("Div", x, scalar(d, 2**0.5))), scalar(d, 1))
    return d.op("Mul", d.op("Mul", x, inner), scalar(d, 0.5))


def erf_gelu_reordered(d: Drawing, x: str) -> str:
    inner = d.op("Mul", d.op("Add", d.op("Erf", d.op("Mul", x, scalar(d, 0.70710678))),
                             scalar(d, 1)), scalar(d, 0.5))  # fmt: skip
    return d.op("Mul", inner, x)


def tanh_gelu(d: Drawing, x: str, *, root: float = 0.7978845608) -> str:
    cube = d.op("Pow", x, scalar(d, 3))
    inner = d.op("Mul", d.op("Add", x, d.op("Mul", cube, scalar(d, 0.044715))), scalar(d, root))
    return d.op("Mul", d.op("Mul", x, scalar(d, 0.5)),
                d.op("Add", d.op("Tanh", inner), scalar(d, 1)))  # fmt: skip


def tanh_gelu_by_products(d: Drawing, x: str) -> str:
    """x 0.5 (1 + tanh(0.79788 x (1 + 0.044715 x x)))."""
    square = d.op("Mul", d.op("Mul", x, x), scalar(d, 0.044715))
    inner = d.op("Mul", d.op("Mul", x, scalar(d, 0.7978845608)),
                 d.op("Add", square, scalar(d, 1)))  # fmt: skip
    half = d.op("Mul", d.op("Add", d.op("Tanh", inner), scalar(d, 1)), scalar(d, 0.5))
    return d.op("Mul", x, half)


def logistic_silu(d: Drawing, x: str) -> str:
    """x / (1 + exp(-x))."""
    return d.op("Div", x, d.op("Add", d.op("Exp", d.op("Neg", x)), scalar(d, 1)))


def softplus_mish(d: Drawing, x: str) -> str:
    return d.op("Mul", x, d.op("Tanh", d.op("Softplus", x)))


def log_mish(d: Drawing, x: str) -> str:
    soft = d.op("Log", d.op("Add", d.op("Exp", x), scalar(d, 1)))
    return d.op("Mul", d.op("Tanh", soft), x)


Build = Callable[[Drawing, str], str]
FORMS: dict[str, tuple[Build, str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "sigmoid, mul": (lambda d, x: d.silu(x), "silu", F.silu),
    "logistic": (logistic_silu, "silu", F.silu),
    "Swish": (lambda d, x: d.op("Swish", x), "silu", F.silu),
    "Gelu": (lambda d, x: d.op("Gelu", x), "gelu", F.gelu),
    "erf": (erf_gelu, "gelu", F.gelu),
    "erf, other order": (erf_gelu_reordered, "gelu", F.gelu),
    "quick gelu": (lambda d, x: d.op("Mul", x, d.op("Sigmoid", d.op("Mul", x, scalar(d, 1.702)))),
                   "gelu", lambda x: x * torch.sigmoid(1.702 * x)),
    "Swish with alpha": (lambda d, x: d.op("Swish", x, alpha=1.702), "gelu",
                         lambda x: x * torch.sigmoid(1.702 * x)),
    "Gelu tanh": (lambda d, x: d.op("Gelu", x, approximate="tanh"), "gelu_tanh",
                  lambda x: F.gelu(x, approximate="tanh")),
    "tanh, pow": (tanh_gelu, "gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    "tanh, products": (tanh_gelu_by_products, "gelu_tanh",
                       lambda x: F.gelu(x, approximate="tanh")),
    "tanh, float16 constants": (
        lambda d, x: tanh_gelu(d, x, root=float(np.float16(0.79788456))), "gelu_tanh",
        lambda x: F.gelu(x, approximate="tanh")),
    "Mish": (lambda d, x: d.op("Mish", x), "mish", F.mish),
    "softplus": (softplus_mish, "mish", F.mish),
    "log and exp": (log_mish, "mish", F.mish),
}  # fmt: skip


def source(d: Drawing) -> str:
    return d.input("x", B, S, K)


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_is_named_after_its_function(form: str, tmp_path: Path) -> None:
    build, name, function = FORMS[form]
    drawing = Drawing(opset=24)
    activation = build(drawing, source(drawing))
    drawing.linear("site", activation, K, 3)
    x = np.random.default_rng(0).normal(scale=3, size=(2, 5, K)).astype(np.float32)
    expected = function(torch.tensor(x)).numpy()
    np.testing.assert_allclose(drawing.run({"x": x}, activation)[0], expected, atol=2e-3)
    facts = drawing.facts(tmp_path)
    assert [(p.site, p.segment, p.activation) for p in facts.polarity] == [("site", None, name)]
    assert facts.rejections == ()


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_is_a_gate(form: str, tmp_path: Path) -> None:
    build, name, _ = FORMS[form]
    gated = {"silu": "swiglu", "gelu": "geglu", "gelu_tanh": "geglu", "mish": "gated_other"}[name]
    for value_first in (True, False):
        d = Drawing(opset=24)
        value, gate = d.split(d.input("x", B, S, 2 * K), K, K)
        pair = (value, build(d, gate)) if value_first else (build(d, gate), value)
        d.linear("site", d.op("Mul", *pair), K, 3)
        assert [p.activation for p in d.facts(tmp_path).polarity] == [gated]


def to_heads(d: Drawing, x: str) -> str:
    back = d.op("Transpose", d.reshape(x, 0, -1, 2, 4), perm=[0, 2, 1, 3])
    return d.reshape(d.op("Transpose", back, perm=[0, 2, 1, 3]), 0, -1, K)


THROUGH: dict[str, Build] = {
    "reshape": lambda d, x: d.reshape(x, -1, K),
    "transposes and reshapes": to_heads,
    "dropout": lambda d, x: d.op("Dropout", x),
    "cast": lambda d, x: d.op("Cast", d.op("Cast", x, to=10), to=1),
    "identity": lambda d, x: d.op("Identity", x),
    "tokens sliced": lambda d, x: d.slice(x, 2, 2**31, 1),
    "quantised": lambda d, x: d.op(
        "DequantizeLinear", d.op("QuantizeLinear", x, scalar(d, 0.1), d.constant(0, np.int8)),
        scalar(d, 0.1), d.constant(0, np.int8)),
    "squeezed": lambda d, x: d.op("Squeeze", d.unsqueeze(x, 1), d.constant([1], np.int64)),
    "scaled down": lambda d, x: d.op("Div", x, scalar(d, 1.4142)),
    "expanded": lambda d, x: d.op("Expand", x, d.constant([3, 1, 1], np.int64)),
    "tokens joined": lambda d, x: d.op("Concat", x, d.op("Swish", d.input("y", B, 7, K)), axis=1),
}  # fmt: skip


@pytest.mark.parametrize("way", list(THROUGH))
def test_polarity_is_found_behind_movements(way: str, tmp_path: Path) -> None:
    drawing = Drawing(opset=24)
    drawing.linear("site", THROUGH[way](drawing, drawing.silu(source(drawing))), K, 3)
    assert [p.activation for p in drawing.facts(tmp_path).polarity] == ["silu"]


NOTHING: dict[str, Build] = {
    "relu": lambda d, x: d.op("Relu", x),
    "sigmoid": lambda d, x: d.op("Sigmoid", x),
    "residual": lambda d, x: d.op("Add", d.silu(x), d.input("y", B, S, K)),
    "norm": lambda d, x: d.op("LayerNormalization", d.silu(x), d.constant(np.ones(K))),
    "turned over": lambda d, x: d.op("Mul", d.silu(x), scalar(d, -1)),
    "modulation": lambda d, x: d.op("Mul", x, d.input("scale", B, 1, K)),
    "square": lambda d, x: d.op("Mul", x, x),
    "shifted": lambda d, x: d.op("Add", d.silu(x), scalar(d, 0.3)),
    "tokens joined with others": lambda d, x: d.op(
        "Concat", d.silu(x), d.input("y", B, 7, K), axis=1),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(NOTHING))
def test_what_is_no_polar_activation(kind: str, tmp_path: Path) -> None:
    drawing = Drawing(opset=24)
    drawing.linear("site", NOTHING[kind](drawing, source(drawing)), K, 3)
    assert drawing.facts(tmp_path).polarity == ()


def test_other_gates_are_named_so(tmp_path: Path) -> None:
    for gate in ("Sigmoid", "Tanh", "Relu", "Identity"):
        d = Drawing()
        product = d.op("Mul", source(d), d.op(gate, d.input("y", B, S, K)))
        d.linear("site", product, K, 3)
        assert [p.activation for p in d.facts(tmp_path).polarity] == ["gated_other"]


def test_an_unknown_self_gate_is_told(tmp_path: Path) -> None:
    d = Drawing()
    x = source(d)
    d.linear("site", d.op("Mul", x, d.op("Sigmoid", d.op("Mul", x, scalar(d, 3)))), K, 3)
    facts = d.facts(tmp_path)
    assert facts.polarity == ()
    assert "unknown function of itself" in reasons(facts, "site")[0]


def test_segments_have_their_own_polarity(tmp_path: Path) -> None:
    d = Drawing(opset=24)
    attention, mlp = d.input("attention", B, S, 4), d.op("Gelu", d.input("mlp", B, S, 12))
    skip = d.silu(d.input("skip", B, S, 5))
    inner = d.op("Concat", mlp, skip, axis=2)
    d.linear("site", d.op("Concat", attention, d.op("Cast", inner, to=1), axis=2), 21, 3)
    facts = d.facts(tmp_path)
    assert [(p.segment, p.activation) for p in facts.polarity] == [(1, "gelu"), (2, "silu")]
    assert facts.segments[0].sizes == (4, 12, 5)


def test_tokens_joined_inside_a_segment_must_agree(tmp_path: Path) -> None:
    for other, expected in (("Gelu", [(1, "gelu")]), ("Relu", [])):
        d = Drawing()
        image, text = d.op("Gelu", d.input("a", B, S, 6)), d.op(other, d.input("b", B, 7, 6))
        tokens = d.op("Concat", text, image, axis=1)
        d.linear("site", d.op("Concat", d.input("c", B, "n", 4), tokens, axis=2), 10, 3)
        assert [(p.segment, p.activation) for p in d.facts(tmp_path).polarity] == expected


def test_a_norm_after_the_concat_hides_the_segments_polarity(tmp_path: Path) -> None:
    d = Drawing(opset=24)
    joined = d.op("Concat", d.silu(d.input("a", B, S, 4)), d.input("b", B, S, 4), axis=2)
    d.linear("site", d.op("LayerNormalization", joined, d.constant(np.ones(8))), 8, 3)
    assert d.facts(tmp_path).polarity == ()


@pytest.mark.parametrize(("mode", "found"), [("nearest", ["silu"]), ("linear", [])])
def test_convolutions_behind_upsampling(mode: str, found: list[str], tmp_path: Path) -> None:
    d = Drawing()
    x = d.silu(d.input("x", B, 4, "h", "w"))
    scales = d.constant([1, 1, 2, 2])
    d.conv("site", d.op("Resize", x, "", scales, mode=mode), 4, 6)
    assert [p.activation for p in d.facts(tmp_path).polarity] == found


def test_constants_out_of_reach_leave_the_operators_names(tmp_path: Path) -> None:
    for build, name in ((erf_gelu, "gelu"), (tanh_gelu, "gelu_tanh"), (softplus_mish, "mish")):
        d = Drawing()
        d.linear("site", build(d, source(d)), K, 3)
        path = tmp_path / "external.onnx"
        onnx.save(d.model(), str(path), save_as_external_data=True, location="w", size_threshold=0)
        (tmp_path / "w").unlink()
        from segquant_trt.analyze import analyze

        assert [p.activation for p in analyze(path).polarity] == [name]


def test_polarity_needs_no_shapes(tmp_path: Path) -> None:
    d = Drawing()
    x = d.op("Mystery", d.input("x", B, S, K), domain="my.ops")
    shape = d.op("Cast", d.input("shape", 3), to=7)
    d.linear("site", d.op("Reshape", d.silu(x), shape), K, 3)
    assert [p.activation for p in d.facts(tmp_path).polarity] == ["silu"]
