"""How treatments are emitted: what sites share, where segments come from, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from segquant_trt.backends import CPU_BACKENDS, Backend, backend_for
from segquant_trt.backends.onnxruntime import OnnxRuntime, literal_session
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.records import (
    WeightPlan,
)
from segquant_trt.schemes import coded_weight, output_encoding, quantize_weight, site_output
from tests.small_graphs import Array, full_range_weight, linear_nodes, save_graph
from tests.treatments import (
    CHANNELS,
    FURTHER,
    WHOLE,
    Case,
    case,
    convolution,
    convolved,
    inputs_of,
    linear,
    written,
)

backends = pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
WEIGHT = full_range_weight((24, CHANNELS), 1)
BIAS = np.random.default_rng(2).standard_normal(24).astype(np.float32)
TIMES = np.array([100.0, 600.0], dtype=np.float32)


def assert_close(found: Array, wanted: Array, tolerance: float = 2e-6) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def reference(x: Array, given: Case, bias: Array | None = BIAS) -> Array:
    rows = x.reshape(-1, CHANNELS)
    steps = np.repeat(TIMES, len(rows) // 2)
    found = site_output(rows, WEIGHT, given.treatment, given.arrays, bias, steps)
    return found.reshape(*x.shape[:-1], 24)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in load_graph(path).graph.node)


# Two polarities as rows of one product.


@backends
@pytest.mark.parametrize(
    "name", ["dual_scale static", "dual_full static", "dual_full per_token", "dual_scale per_step"]
)
def test_two_polarities_as_rows_of_one_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend, name: str
) -> None:
    rows = replace(backend.placement, dual_lowering="rows")
    monkeypatch.setattr(type(backend), "placement", rows)
    given = WHOLE[name]
    model = linear(tmp_path, WEIGHT, BIAS, gemm=False, rank=3)
    x = inputs_of(given, (2, 5), TIMES, 3)
    feeds = {"x": x, "timestep": TIMES}
    out = written(tmp_path, model, backend.target, given)
    assert operators(out)["MatMul"] == 1
    assert backend.integer_sites(out, ["fc"], example=feeds)["fc"].integer
    assert_close(backend.open(out, threads=1).run(feeds)["y"], reference(x, given))


def test_rows_of_a_convolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_for("openvino")
    rows = replace(backend.placement, dual_lowering="rows")
    monkeypatch.setattr(type(backend), "placement", rows)
    given = WHOLE["dual_full static"]
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    model = convolution(tmp_path, weight, BIAS, stride=2, groups=1)
    x = np.moveaxis(inputs_of(given, (2, 7, 6), TIMES, 6), 3, 1).copy()
    out = written(tmp_path, model, "openvino", given)
    feeds = {"x": x, "timestep": TIMES}
    assert operators(out)["Conv"] == 1
    assert backend.integer_sites(out, ["conv"], example=feeds)["conv"].integer
    wanted = convolved(x, weight, given, TIMES, 2, 1) + BIAS[:, None, None]
    assert_close(backend.open(out, threads=1).run(feeds)["y"], wanted)


# Segments.


def concat(folder: Path, sizes: Sequence[Sequence[int]]) -> Path:
    """`fc(concat(..))` of inputs x0, x1, ..; a group of several is a Concat of its own."""
    nodes: list[NodeProto] = []
    inputs: dict[str, Sequence[int | str]] = {"timestep": ["n"]}
    names = []
    for group in sizes:
        own = [f"x{len(inputs) - 1 + i}" for i in range(len(group))]
        inputs |= {name: ["n", "t", size] for name, size in zip(own, group, strict=True)}
        if len(own) > 1:
            nodes.append(helper.make_node("Concat", own, [f"inner{own[0]}"], axis=-1))
        names.append(own[0] if len(own) == 1 else f"inner{own[0]}")
    nodes.append(helper.make_node("Concat", names, ["x"], name="outer", axis=2))
    nodes += linear_nodes("fc", "x", "y", bias=True, stored=True)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    weights = {"fc.weight": WEIGHT, "fc.bias": BIAS}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "unused"], weights)


@backends
@pytest.mark.parametrize(
    ("sizes", "kept", "direct"),
    [
        ([[8], [32]], 0, True),
        ([[8], [16, 16]], 1, True),
        ([[4, 4], [16], [16]], 2, False),
        ([[16], [24]], 1, False),
    ],
    ids=["two", "one of them joined", "a boundary between operands", "another boundary"],
)
def test_segments_are_the_operands_of_a_concat(
    tmp_path: Path, backend: Backend, sizes: list[list[int]], kept: int, direct: bool
) -> None:
    """Nothing is joined and cut again where a Concat's operands are the segments."""
    given = FURTHER["split"]
    model = concat(tmp_path, sizes)
    out = written(tmp_path, model, backend.target, given)
    found = operators(out)
    assert (found["Concat"], found["Split"]) == (kept, 0 if direct else 1)
    x = inputs_of(given, (2, 5), TIMES, 3)
    bounds = np.cumsum([size for group in sizes for size in group])[:-1]
    feeds = {f"x{i}": part.copy() for i, part in enumerate(np.split(x, bounds, axis=-1))}
    feeds["timestep"] = TIMES
    assert_close(backend.open(out, threads=1).run(feeds)["y"], reference(x, given))


def test_a_concat_of_tokens_is_no_segmentation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["p", "q"], ["x"], name="tokens", axis=1),
        *linear_nodes("fc", "x", "y", bias=False, stored=True),
        helper.make_node("Identity", ["timestep"], ["unused"], name="unused"),
    ]
    inputs = {"p": [2, 8, CHANNELS], "q": [2, 32, CHANNELS], "timestep": [2]}
    model = save_graph(
        tmp_path / "model.onnx", nodes, inputs, ["y", "unused"], {"fc.weight": WEIGHT}
    )
    found = operators(written(tmp_path, model, "onnxruntime", FURTHER["split"]))
    assert (found["Concat"], found["Split"]) == (1, 1)


# What the sites of a group share.


def test_sites_that_read_one_tensor_share_all_but_products(tmp_path: Path) -> None:
    names = ("q", "k", "v")
    nodes = [n for name in names for n in linear_nodes(name, "x", name, bias=True, stored=True)]
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    weights = {f"{name}.{part}": array for name in names
               for part, array in (("weight", WEIGHT), ("bias", BIAS))}  # fmt: skip
    inputs = {"x": ["n", "t", CHANNELS], "timestep": ["n"]}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, [*names, "unused"], weights)
    token = case(("dual_full", "per_token"), smooth=True)
    found = operators(written(tmp_path, model, "onnxruntime", token))
    assert (found["QuantizeLinear"], found["MatMul"], found["Abs"], found["Div"]) == (2, 6, 1, 1)
    assert found["Mul"] == 1 + 3  # the divisor, and the factor of every product
    step = written(tmp_path, model, "onnxruntime", case(("symmetric", "per_step")))
    found = operators(step)
    assert (found["Gather"], found["Div"], found["QuantizeLinear"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "timestep",
    [np.array(600.0, np.float32), np.array([600.0], np.float32), np.array([600, 600])],
    ids=["scalar", "one for all", "integers"],
)
@backends
def test_timesteps_of_any_form(tmp_path: Path, backend: Backend, timestep: Array) -> None:
    nodes = linear_nodes("fc", "x", "y", bias=True, stored=True)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    dims = [["n"], []][timestep.ndim == 0]
    inputs = {"x": ["batch", "t", CHANNELS], "timestep": dims}
    weights = {"fc.weight": WEIGHT, "fc.bias": BIAS}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y", "unused"], weights)
    if timestep.dtype != np.float32:
        graph = load_graph(model)
        for value in (graph.graph.input[1], graph.graph.output[1]):
            value.type.tensor_type.elem_type = TensorProto.INT64
        model.write_bytes(graph.SerializeToString())
    given = case(("symmetric", "per_step"))
    x = inputs_of(given, (2, 5), np.full(2, 600.0), 3)
    out = written(tmp_path, model, backend.target, given)
    wanted = site_output(x.reshape(-1, CHANNELS), WEIGHT, given.treatment, {}, BIAS, 600.0).reshape(
        2, 5, 24
    )
    found = backend.open(out, threads=1).run({"x": x, "timestep": timestep})["y"]
    assert_close(found, wanted)


# Weights.


def test_four_bits_are_stored_packed(tmp_path: Path) -> None:
    weight = full_range_weight((96, 64), 1)
    model = linear(tmp_path, weight, None, gemm=False, rank=3)
    sizes = {}
    for bits in (8, 4):
        given = case(("symmetric", "static"), channels=64, bits=bits)
        out = written(tmp_path, model, "onnxruntime", given)
        sizes[bits] = out.with_suffix(".weights").stat().st_size
    assert sizes == {8: 96 * 64, 4: 96 * 64 // 2}
    codes = Weights(load_graph(out), tmp_path).read("fc.weight_int4").astype(np.int8)
    np.testing.assert_array_equal(codes.T, quantize_weight(weight, WeightPlan(bits=4)).codes)


@backends
@pytest.mark.parametrize("block", [None, 8, 16, 32])
def test_weights_alone(tmp_path: Path, backend: Backend, block: int | None) -> None:
    """Activations stay float to the last bit: no runtime quantises them on its own."""
    weight = full_range_weight((48, 96), 1)
    given = case(("float", "static"), channels=96, bits=4, block=block, smooth=True)
    model = linear(tmp_path, weight, None, gemm=False, rank=3)
    out = written(tmp_path, model, backend.target, given)
    x = np.random.default_rng(3).standard_normal((2, 5, 96)).astype(np.float32)
    found = backend.open(out, threads=1).run({"x": x, "timestep": TIMES})["y"]
    wanted = site_output(x.reshape(-1, 96), weight, given.treatment, given.arrays)
    assert_close(found, wanted.reshape(2, 5, 48), 4e-6)
    proof = backend.integer_sites(out, ["fc"], example={"x": x, "timestep": TIMES})["fc"]
    assert not proof.integer


@backends
@pytest.mark.parametrize("activation", ["float", "symmetric"])
def test_large_weights_of_four_bits_are_read_where_they_are(
    tmp_path: Path, backend: Backend, activation: str
) -> None:
    """More than 64 KiB: bound by reference, packed or widened."""
    weight = full_range_weight((384, 512), 1)
    given = case((activation, "static"), channels=512, bits=4)
    model = linear(tmp_path, weight, None, gemm=False, rank=3)
    out = written(tmp_path, model, backend.target, given)
    x = inputs_of(given, (2, 5), TIMES, 3)
    feeds = {"x": x, "timestep": TIMES}
    found = backend.open(out, threads=1).run(feeds)["y"]
    wanted = site_output(x.reshape(-1, 512), weight, given.treatment, given.arrays)
    assert_close(found, wanted.reshape(2, 5, 384), 4e-6)
    proof = backend.integer_sites(out, ["fc"], example=feeds)["fc"]
    assert proof.integer == (activation != "float")


@pytest.mark.parametrize("name", ["symmetric static", "split"])
def test_optimised_codes_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    given = {**WHOLE, **FURTHER}[name]
    found = coded_weight(WEIGHT * np.float32(0.9), given.treatment, {})
    codes = np.concatenate([part.codes for part in found], axis=1)
    codes = np.where(codes > 3, codes - 1, codes).astype(np.int8)
    scale = np.stack([part.scale for part in found], axis=1)
    arrays = {"w-1.codes": codes, "w-1.scale": scale if len(found) > 1 else scale[:, 0]}
    weight = replace(given.treatment.weight, rounding="gptq", codes="w-1")
    optimised = Case(treatment=replace(given.treatment, weight=weight), arrays=arrays)
    model = linear(tmp_path, WEIGHT, BIAS, gemm=False, rank=3)
    x = inputs_of(given, (2, 5), TIMES, 3)
    out = written(tmp_path, model, "onnxruntime", optimised)
    y = OnnxRuntime().open(out, threads=1).run({"x": x, "timestep": TIMES})["y"]
    assert_close(y, reference(x, optimised))
    plain = reference(x, given)
    assert np.abs(plain - y).max() > 1e-3 * np.abs(plain).max()


# Requantised outputs, one step per channel.


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dead", [False, True], ids=["alive", "a dead channel"])
def test_steps_per_output_channel(tmp_path: Path, bias: bool, dead: bool) -> None:
    """The same kernel, and every channel is off by at most half of its own step."""
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    weight *= np.exp2(np.arange(24) % 7 - 3).astype(np.float32)[:, None, None, None]
    if dead:
        weight[5] = 0.0
    given = WHOLE["shifted static"]
    model = convolution(tmp_path, weight, BIAS if bias else None, stride=1, groups=1)
    x = np.moveaxis(inputs_of(given, (2, 7, 6), TIMES, 6), 3, 1).copy()
    wanted = convolved(x, weight, given, TIMES, 1, 1)
    wanted += BIAS[:, None, None] if bias else np.float32(0.0)
    ranges = np.stack([wanted.min(axis=(0, 2, 3)), wanted.max(axis=(0, 2, 3))])
    key = {"o-1": ranges.astype(np.float32)}
    with_ranges = Case(treatment=given.treatment, arrays=key)
    out = written(
        tmp_path, model, "onnxruntime", with_ranges, output_channels="o-1", output_range=None
    )
    feeds = {"x": x, "timestep": TIMES}
    proof = OnnxRuntime().integer_sites(out, ["conv"], example=feeds)["conv"]
    assert proof.kernel == "QLinearConv"
    found = OnnxRuntime().open(out, threads=1).run(feeds)["y"]
    low, high = np.minimum(ranges[0], 0), np.maximum(ranges[1], 0)
    step = np.maximum(high - low, (high - low).max() / 4096) / 255
    error = np.abs(found - wanted).max(axis=(0, 2, 3))
    assert (error <= 0.51 * step + 1e-6).all()
    whole = output_encoding(float(wanted.min()), float(wanted.max())).scale
    assert error.mean() < 0.3 * whole
    literal = literal_session(out, threads=1).run(feeds)["y"]
    assert (np.abs(literal - wanted).max(axis=(0, 2, 3)) <= 0.51 * step + 1e-6).all()


@backends
def test_strided_pointwise_convolutions_with_factors_per_token(
    tmp_path: Path, backend: Backend
) -> None:
    weight = full_range_weight((24, CHANNELS, 1, 1), 4)
    model = convolution(tmp_path, weight, BIAS, stride=2, groups=1)
    given = WHOLE["symmetric per_token"]
    x = np.moveaxis(inputs_of(given, (2, 7, 6), TIMES, 6), 3, 1).copy()
    factor = np.abs(x).max(axis=1, keepdims=True)[:, :, ::2, ::2]
    wanted = convolved(x, weight, given, TIMES, 2, 1)
    span = (float((wanted / factor).min()), float((wanted / factor).max()))
    out = written(tmp_path, model, backend.target, given, output_range=span)
    feeds = {"x": x, "timestep": TIMES}
    assert backend.integer_sites(out, ["conv"], example=feeds)["conv"].integer
    found = backend.open(out, threads=1).run(feeds)["y"] - BIAS[:, None, None]
    step = output_encoding(*span).scale if backend.placement.requantize_conv_output else 0.0
    assert (np.abs(found - wanted) <= 0.501 * step * factor + 1e-6 * np.abs(wanted).max()).all()


def test_codes_of_a_product_never_share_names(tmp_path: Path) -> None:
    """Two planes read equal bytes, stored once, under two names."""
    weight = full_range_weight((96, 64), 1)
    given = case(("dual_full", "static"), channels=64)
    out = written(
        tmp_path, linear(tmp_path, weight, None, gemm=False, rank=3), "onnxruntime", given
    )
    graph = load_graph(out).graph
    codes = [t for t in graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2]
    assert len({tensor.name for tensor in codes}) == 2
    assert len({str(tensor.external_data) for tensor in codes}) == 1
    assert out.with_suffix(".weights").stat().st_size == 96 * 64
