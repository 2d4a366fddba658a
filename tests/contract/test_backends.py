"""Every backend computes what the plan says: integers, exactly, on whatever CPU this is.

The reference is NumPy: codes of the scheme, codes of the weights, float64 sums. Weights use all of
-127..127 and activations all of their codes, so that a kernel that saturates or forgets an offset
is off by percents; inputs keep away from ties, so that the order of roundings cannot matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from segquant_trt.backends import CPU_BACKENDS, Backend
from segquant_trt.records import GraphFacts
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import fake_quantize, output_encoding
from tests.small_graphs import (
    SCALE,
    Array,
    Kind,
    away_from_ties,
    code_limits,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    scheme_of,
)

FLOAT32_ROUNDING = 1e-6
backends = pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
kinds = pytest.mark.parametrize("kind", ["symmetric", "shifted"])


def quantize(
    folder: Path, backend: Backend, kind: Kind, model: Path, **options: Any
) -> tuple[Path, GraphFacts]:
    facts = facts_of(model)
    plan = plan_of(facts, backend.target, lambda _: scheme_of(kind), **options)
    rewrite(model, model.parent, facts, plan, folder / "quantized.onnx")
    return folder / "quantized.onnx", facts


def execute(
    backend: Backend, quantized: Path, facts: GraphFacts, feeds: dict[str, Array]
) -> dict[str, Array]:
    names = [site.name for site in facts.sites]
    proofs = backend.integer_sites(quantized, names, example=feeds)
    assert {name: proof.kernel for name, proof in proofs.items() if not proof.integer} == {}
    return backend.open(quantized, threads=1).run(feeds)


def reference_rows(x: Array, kind: Kind, weight: Array, bias: Array | None) -> Array:
    codes = fake_quantize(x, scheme_of(kind)).astype(np.float64)
    result = codes @ weight.T.astype(np.float64)
    return result if bias is None else result + bias


def assert_float_rounding(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= FLOAT32_ROUNDING * np.abs(wanted).max()


@backends
@kinds
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("stored", [False, True], ids=["KN", "NK-float16"])
@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
@pytest.mark.parametrize("lead", [(33,), (2, 17), (2, 3, 5)], ids=["rank2", "rank3", "rank4"])
def test_linear(
    tmp_path: Path, backend: Backend, kind: Kind, bias: bool, stored: bool, dynamic, lead
) -> None:
    weight = full_range_weight((24, 56), 1)
    shift = np.random.default_rng(2).integers(-8, 9, 24).astype(np.float32)
    model = linear_model(tmp_path, weight, shift if bias else None, stored, dynamic, lead)
    x = away_from_ties((*lead, 56), 3, low=code_limits(kind)[0], high=code_limits(kind)[1])
    found = execute(backend, *quantize(tmp_path / "q", backend, kind, model), {"x": x})
    assert_float_rounding(found["y"], reference_rows(x, kind, weight, shift if bias else None))


def linear_model(
    folder: Path, weight: Array, bias: Array | None, stored: bool, dynamic: bool, lead: Any
) -> Path:
    dims = [f"axis{i}" if dynamic else n for i, n in enumerate(lead)]
    matrix = weight.astype(np.float16) if stored else np.ascontiguousarray(weight.T)
    weights = {"fc.weight": matrix}
    if bias is not None:
        weights["fc.bias"] = bias.astype(np.float16) if stored else bias
    nodes = linear_nodes("fc", "x", "y", bias=bias is not None, stored=stored)
    inputs = {"x": [*dims, weight.shape[1]]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y"], weights)


@backends
@kinds
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("stored", [False, True], ids=["KN", "NK-float16"])
def test_gemm(tmp_path: Path, backend: Backend, kind: Kind, bias: bool, stored: bool) -> None:
    weight = full_range_weight((24, 56), 1)
    shift = np.random.default_rng(2).integers(-8, 9, 24).astype(np.float32)
    matrix = weight.astype(np.float16) if stored else np.ascontiguousarray(weight.T)
    weights = {"fc.weight": matrix}
    if bias:
        weights["fc.bias"] = shift.astype(np.float16) if stored else shift
    nodes = linear_nodes("fc", "x", "y", bias=bias, stored=stored, gemm=True)
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": ["batch", 56]}, ["y"], weights)
    x = away_from_ties((5, 56), 3, low=code_limits(kind)[0], high=code_limits(kind)[1])
    found = execute(backend, *quantize(tmp_path / "q", backend, kind, model), {"x": x})
    assert_float_rounding(found["y"], reference_rows(x, kind, weight, shift if bias else None))


CONVOLUTIONS = {
    "3x3": {"kernel": 3, "channels": 20},
    "1x1": {"kernel": 1, "channels": 20},
    "stride": {"kernel": 3, "channels": 20, "stride": 2},
    "grouped": {"kernel": 3, "channels": 24, "groups": 4},
    "depthwise": {"kernel": 3, "channels": 24, "groups": 24},
    "odd": {"kernel": 3, "channels": 33, "outputs": 17},
    "few": {"kernel": 3, "channels": 3, "outputs": 40},
    "wide": {"kernel": 5, "channels": 64, "outputs": 64},
}


@backends
@kinds
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("shape", list(CONVOLUTIONS))
def test_convolution(tmp_path: Path, backend: Backend, kind: Kind, bias: bool, shape: str) -> None:
    """Padding included: its zeros are the scheme's zero code, not the uint8 code 0."""
    given = {"stride": 1, "groups": 1, "outputs": 24, **CONVOLUTIONS[shape]}
    kernel, channels, groups = given["kernel"], given["channels"], given["groups"]
    weight = full_range_weight((given["outputs"], channels // groups, kernel, kernel), 4)
    shift = np.random.default_rng(5).integers(-8, 9, given["outputs"]).astype(np.float32)
    weights = {"conv.weight": weight} | ({"conv.bias": shift} if bias else {})
    node = helper.make_node(
        "Conv", ["x", *weights], ["y"], name="conv", pads=[kernel // 2] * 4,
        strides=[given["stride"]] * 2, group=groups,
    )  # fmt: skip
    dims = ["n", channels, "h", "w"]
    model = save_graph(tmp_path / "model.onnx", [node], {"x": dims}, ["y"], weights)
    low, high = code_limits(kind)
    x = away_from_ties((2, channels, 9, 8), 6, low=low, high=high)
    wanted = convolved(fake_quantize(x, scheme_of(kind)), weight, given["stride"], groups)
    wanted += shift[:, None, None] if bias else 0.0
    span = (float(wanted.min()), float(wanted.max()))
    quantized, facts = quantize(tmp_path / "q", backend, kind, model, output_ranges={"conv": span})
    found = execute(backend, quantized, facts, {"x": x})["y"]
    if backend.placement.requantize_conv_output:
        step = output_encoding(*span).scale
        assert np.abs(found - wanted).max() <= step * (0.5 + 1e-3)
    else:
        assert_float_rounding(found, wanted)


@backends
def test_tiny_channels_keep_their_bias(tmp_path: Path, backend: Backend) -> None:
    """The int32 bias of a requantised convolution is in units that a dead channel makes tiny."""
    weight = full_range_weight((16, 12, 3, 3), 2)
    weight[3] *= np.float32(1e-14)
    weight[4] = 0.0
    shift = np.full(16, -2.5, dtype=np.float32)
    weights = {"conv.weight": weight, "conv.bias": shift}
    node = helper.make_node("Conv", ["x", *weights], ["y"], name="conv", pads=[1] * 4)
    model = save_graph(tmp_path / "m.onnx", [node], {"x": ["n", 12, "h", "w"]}, ["y"], weights)
    x = away_from_ties((2, 12, 6, 6), 4, low=-128, high=127)
    span = (-4.0, 4.0)
    quantized, facts = quantize(
        tmp_path / "q", backend, "symmetric", model, output_ranges={"conv": span}
    )
    found = execute(backend, quantized, facts, {"x": x})["y"][:, 3:5]
    assert np.abs(found + 2.5).max() <= 0.5 * output_encoding(*span).scale + 1e-6


@backends
@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_of_other_ranks(tmp_path: Path, backend: Backend, dimensions: int) -> None:
    weight = full_range_weight((16, 12, *[3] * dimensions), 2)
    node = helper.make_node(
        "Conv", ["x", "conv.weight"], ["y"], name="conv", pads=[1] * 2 * dimensions
    )
    dims = ["n", 12, *[f"d{i}" for i in range(dimensions)]]
    model = save_graph(tmp_path / "m.onnx", [node], {"x": dims}, ["y"], {"conv.weight": weight})
    x = away_from_ties((2, 12, *[5] * dimensions), 4, low=-128, high=127)
    values = np.pad(
        fake_quantize(x, scheme_of("symmetric")).astype(np.float64),
        [(0, 0), (0, 0), *[(1, 1)] * dimensions],
    )
    axes = tuple(range(2, 2 + dimensions))
    windows = np.lib.stride_tricks.sliding_window_view(values, (3,) * dimensions, axis=axes)
    space = "xyz"[:dimensions]
    taps = "ijk"[:dimensions]
    wanted = np.einsum(f"nc{space}{taps},oc{taps}->no{space}", windows, weight)
    span = (float(wanted.min()), float(wanted.max()))
    quantized, facts = quantize(
        tmp_path / "q", backend, "symmetric", model, output_ranges={"conv": span}
    )
    found = execute(backend, quantized, facts, {"x": x})["y"]
    step = output_encoding(*span).scale if backend.placement.requantize_conv_output else 0.0
    assert np.abs(found - wanted).max() <= step * (0.5 + 1e-3) + 1e-6 * np.abs(wanted).max()


def convolved(x: Array, weight: Array, stride: int, groups: int) -> Array:
    """Zero-padded convolution in float64."""
    outputs, per_group, kernel, _ = weight.shape
    half = kernel // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (half, half), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, group * per_group : (group + 1) * per_group],
            weight[group * outputs // groups : (group + 1) * outputs // groups],
        )
        for group in range(groups)
    ]
    return np.concatenate(parts, axis=1)


@backends
def test_sites_that_share_weights_and_activations(tmp_path: Path, backend: Backend) -> None:
    """One weight for two sites, one activation for three, one with codes of its own."""
    weight, own = full_range_weight((32, 32), 7), full_range_weight((32, 32), 12)
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"], name="first"),
        helper.make_node("MatMul", ["x", "shared"], ["b"], name="second"),
        helper.make_node("MatMul", ["z", "shared"], ["c"], name="third"),
        helper.make_node("MatMul", ["x", "own"], ["d"], name="fourth"),
    ]
    weights = {"shared": np.ascontiguousarray(weight.T), "own": np.ascontiguousarray(own.T)}
    dims = ["n", "t", 32]
    model = save_graph(
        tmp_path / "model.onnx", nodes, {"x": dims, "z": dims}, ["a", "b", "c", "d"], weights
    )
    kinds: dict[str, Kind] = {"first": "symmetric", "second": "shifted", "third": "symmetric"}
    facts = facts_of(model)
    plan = plan_of(facts, backend.target, lambda s: scheme_of(kinds.get(s, "symmetric")))
    rewrite(model, model.parent, facts, plan, tmp_path / "quantized.onnx")
    x = away_from_ties((2, 5, 32), 8, low=-28, high=127)
    z = away_from_ties((2, 5, 32), 9, low=-128, high=127)
    found = execute(backend, tmp_path / "quantized.onnx", facts, {"x": x, "z": z})
    assert_float_rounding(found["a"], reference_rows(x, "symmetric", weight, None))
    assert_float_rounding(found["b"], reference_rows(x, "shifted", weight, None))
    assert_float_rounding(found["c"], reference_rows(z, "symmetric", weight, None))
    assert_float_rounding(found["d"], reference_rows(x, "symmetric", own, None))


@backends
def test_values_beyond_the_range_saturate(tmp_path: Path, backend: Backend) -> None:
    weight = full_range_weight((16, 48), 10)
    model = linear_model(tmp_path, weight, None, False, True, (3, 5))
    x = away_from_ties((3, 5, 48), 11, low=-128, high=127) * np.float32(40)
    x += np.float32(1e-3)
    found = execute(backend, *quantize(tmp_path / "q", backend, "shifted", model), {"x": x})
    wanted = reference_rows(x, "shifted", weight, None)
    assert np.abs(found["y"] - wanted).max() <= 1e-2 * np.abs(wanted).max()
    ends = np.isin(fake_quantize(x, scheme_of("shifted")) / np.float32(SCALE), (-28, 227))
    assert ends.mean() > 0.8


@backends
def test_threads_of_a_caller_do_not_disturb_each_other(tmp_path: Path, backend: Backend) -> None:
    from concurrent.futures import ThreadPoolExecutor

    weight = full_range_weight((24, 56), 1)
    model = linear_model(tmp_path, weight, None, False, True, (2, 17))
    quantized, _ = quantize(tmp_path / "q", backend, "symmetric", model)
    runner = backend.open(quantized, threads=1)
    inputs = [away_from_ties((2, 9 + i, 56), i, low=-128, high=127) for i in range(12)]
    alone = [runner.run({"x": x})["y"] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: runner.run({"x": x})["y"], inputs * 4))
    for index, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[index % 12])
