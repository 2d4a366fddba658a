"""Presets emit the scales and codes of the published formulas, computed from the data alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.wiring import Wiring
from segquant_trt.plan import PlanRequest, make_plan
from segquant_trt.records import SitePlan, SitePolarity, Target, WeightPlan
from segquant_trt.records.options import PresetName
from segquant_trt.records.scores import Scores, SiteScore
from segquant_trt.rewrite import rewrite
from segquant_trt.score.group import Member
from segquant_trt.score.options import OptionSearch
from tests.plan.made_up import DIGESTS, PRICES, concat, table
from tests.score.groups import EDGES, activations, group, patches_of, stats
from tests.small_graphs import Array, facts_of
from tests.treatments import convolution, linear

SIZES = (9, 26)
OUTPUTS = 13
ROWS = 60
WEIGHTS = (
    WeightPlan(scale_method="absmax"),
    WeightPlan(scale_method="mse"),
    WeightPlan(rounding="gptq", scale_method="mse"),
)
EXACT = 1e-6  # scales are float32


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """What the rewritten graph holds: of activations and weights, in the order of the products."""

    plan: SitePlan
    activations: list[tuple[float, int]]
    codes: list[Array]
    scales: list[Array]
    constants: dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Data:
    """`x` [B, R, C] of the channels, `rows` the same or patches, `weight` [N, C * taps]."""

    x: Array
    rows: Array
    weight: Array


def data(kind: str) -> Data:
    random = np.random.default_rng(11)
    taps = 9 if kind == "conv" else 1
    rows = patches_of(3, ROWS, SIZES, taps) if taps > 1 else activations(3, ROWS, SIZES)
    x = rows[..., 4::9].copy() if taps > 1 else rows
    weight = 0.1 * random.standard_t(5, (OUTPUTS, sum(SIZES) * taps))
    return Data(x=x, rows=rows, weight=weight.astype(np.float32))


def emitted(
    folder: Path,
    kind: str,
    preset: PresetName,
    *,
    segments: Sequence[int] = (),
    polar: Sequence[int] = (),
    target: Target = "openvino",
    method: str = "mse",
) -> tuple[Emitted, Data]:
    """From data over options, plan and graph to what is stored."""
    given = data(kind)
    if kind == "conv":
        stored = given.weight.reshape(OUTPUTS, sum(SIZES), 3, 3)
        model = convolution(folder, stored, None, stride=1, groups=1)
    else:
        model = linear(folder, given.weight, None, gemm=False, rank=3)
    facts = facts_of(model)
    (site,) = facts.sites
    whole = not segments
    facts = replace(
        facts,
        sites=(replace(site, role="body"),),
        segments=() if whole else (concat(site.name, *segments),),
        polarity=tuple(
            SitePolarity(site=site.name, segment=None if whole else i, activation="gelu")
            for i in polar
        ),
    )
    gains = np.ones((len(EDGES), OUTPUTS))
    own = Member(
        site=site, rows=given.rows, weight=given.weight, bias=None, gains=gains, white=gains,
        output=stats(given.rows @ given.weight.T),
    )  # fmt: skip
    found = group([own], given.x, segments, polar=polar)
    search = OptionSearch(weights=WEIGHTS, method=method)  # type: ignore[arg-type]
    options = search.options(found)[site.name]
    none = (0.0,) * len(EDGES)
    score = SiteScore(
        site=site.name, group=site.activation, rows_per_sample=ROWS, amplification="backward",
        output_range=(-9.0, 9.0), output_channels="o", range_noise=none, channels_noise=none,
        options=options,
    )  # fmt: skip
    scores = Scores(
        onnx_sha256=facts.onnx_sha256, facts_sha256="f", calibration_sha256="c",
        bin_edges=EDGES, sites=(score,),
    )  # fmt: skip
    request = PlanRequest(target=target, preset=preset)
    plan = make_plan(facts, scores, table(target, **PRICES), request, DIGESTS)
    out = folder / "quantized.onnx"
    rewrite(model, folder, facts, plan, out, arrays=search.arrays, timestep="timestep")
    return read(out, plan.sites[0]), given


def read(path: Path, plan: SitePlan) -> Emitted:
    model = load_graph(path)
    wiring, stored = Wiring(model.graph), Weights(model, path.parent)
    pairs, codes, scales = [], [], []
    for node in wiring.nodes:
        if node.op_type not in ("MatMul", "Conv"):
            continue
        encode = wiring.producer[wiring.producer[node.input[0]].input[0]]
        assert encode.op_type == "QuantizeLinear"
        pairs.append((float(stored.read(encode.input[1])), int(stored.read(encode.input[2]))))
        decode = wiring.producer[node.input[1]]
        own = stored.read(decode.input[0]).astype(int)
        codes.append(own.T if node.op_type == "MatMul" else own.reshape(len(own), -1))
        scales.append(stored.read_float32(decode.input[1]))
    constants = {
        t.name: numpy_helper.to_array(t) if not t.external_data else stored.read(t.name)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT
    }
    return Emitted(plan=plan, activations=pairs, codes=codes, scales=scales, constants=constants)


def columns(kind: str) -> list[slice]:
    taps = 9 if kind == "conv" else 1
    return [slice(0, SIZES[0] * taps), slice(SIZES[0] * taps, None)]


def assert_nearest(found: Emitted, index: int, weight: Array) -> None:
    """Weights to nearest with `s_w = max |W| / 127` per output channel."""
    scale = np.abs(weight).max(axis=1) / 127.0
    np.testing.assert_allclose(found.scales[index], scale, rtol=EXACT)
    wanted = np.rint(weight / found.scales[index][:, None])
    np.testing.assert_array_equal(found.codes[index], wanted)


def assert_searched(found: Emitted, index: int, weight: Array, rows: Array) -> None:
    """Scales `t max |W| / 127` of little squared error, columns weighed by their inputs' energy."""
    energy = np.square(rows.reshape(-1, weight.shape[1])).mean(axis=0)
    amax = np.abs(weight).max(axis=1, keepdims=True)

    def errors(scale: Array) -> Array:
        codes = np.clip(np.rint(weight / scale), -127, 127)
        return np.square(codes * scale - weight) @ energy

    scale = found.scales[index][:, None]
    np.testing.assert_array_equal(
        found.codes[index], np.clip(np.rint(weight / scale), -127, 127).astype(int)
    )
    own, nearest = errors(scale), errors(amax / 127.0)
    assert (own <= 1.001 * nearest).all()
    best = np.min([errors(t * amax / 127.0) for t in np.linspace(0.3, 1.0, 141)], axis=0)
    assert own.sum() <= 1.3 * best.sum()  # of so few columns a finer grid finds a little less


def symmetric(x: Array) -> tuple[float, float]:
    return pytest.approx(float(np.abs(x).max()) / 127.0, rel=EXACT), 128


def shifted(x: Array) -> tuple[float, float]:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255.0
    return pytest.approx(scale, rel=1e-5), pytest.approx(-low / scale, abs=0.51)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_seglinear_has_a_scale_per_segment(tmp_path: Path, kind: str) -> None:
    found, given = emitted(tmp_path, kind, "seglinear", segments=SIZES)
    parts = np.split(given.x, [SIZES[0]], axis=-1)
    assert found.activations == [symmetric(part) for part in parts]
    for index, own in enumerate(columns(kind)):
        assert_nearest(found, index, given.weight[:, own])


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_seglinear_is_symmetric_where_there_is_one_segment(tmp_path: Path, kind: str) -> None:
    found, given = emitted(tmp_path, kind, "seglinear")
    assert found.activations == [symmetric(given.x)]
    assert_nearest(found, 0, given.weight)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_segquant_has_dual_scales_behind_smoothquant(tmp_path: Path, kind: str) -> None:
    found, given = emitted(tmp_path, kind, "segquant", polar=(0,))
    (alpha,) = {found.plan.treatment.smoothing.alpha}
    taps = 9 if kind == "conv" else 1
    amax_w = np.abs(given.weight).reshape(OUTPUTS, -1, taps).max(axis=(0, 2))
    divisor = np.abs(given.x).max(axis=(0, 1)) ** alpha / amax_w ** (1.0 - alpha)
    divisor /= np.exp(np.log(divisor).mean())  # only ratios matter
    (inverse,) = (v.ravel() for n, v in found.constants.items() if "smoothing" in n)
    np.testing.assert_allclose(1.0 / inverse, divisor, rtol=1e-5)
    smooth = given.x / divisor
    assert found.activations == [
        (pytest.approx(smooth.max() / 127.0, rel=1e-5), 128),
        (pytest.approx(-smooth.min() / 127.0, rel=1e-5), 128),
    ]
    for index in (0, 1):
        weight = given.weight / np.repeat(inverse, taps)
        scale = np.abs(weight).max(axis=1) / 127.0
        np.testing.assert_allclose(found.scales[index], scale, rtol=1e-5)
        assert np.abs(found.codes[index] - weight / scale[:, None]).max() < 0.501


def test_segquant_splits_and_codes_the_activated_segment_twice(tmp_path: Path) -> None:
    """FLUX's single blocks: attention beside GELU."""
    found, given = emitted(tmp_path, "linear", "segquant", segments=SIZES, polar=(1,))
    first, second = np.split(given.x, [SIZES[0]], axis=-1)
    assert found.activations == [
        symmetric(first),
        (pytest.approx(second.max() / 127.0, rel=EXACT), 128),
        (pytest.approx(-second.min() / 127.0, rel=EXACT), 128),
    ]
    parts = [given.weight[:, own] for own in columns("linear")]
    for index, part in enumerate((parts[0], parts[1], parts[1])):
        assert_nearest(found, index, part)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_q_diffusion_splits_shortcuts_into_asymmetric_ranges(tmp_path: Path, kind: str) -> None:
    found, given = emitted(tmp_path, kind, "q-diffusion", segments=SIZES, method="amax")
    for part, pair in zip(np.split(given.x, [SIZES[0]], axis=-1), found.activations, strict=True):
        assert pair in (shifted(part), symmetric(part))
    for index, own in enumerate(columns(kind)):
        assert_searched(found, index, given.weight[:, own], given.rows[..., own])


def test_q_diffusion_has_one_range_over_all_timesteps(tmp_path: Path) -> None:
    found, given = emitted(tmp_path, "conv", "q-diffusion", method="amax")
    assert found.activations == [shifted(given.x)]
    assert_searched(found, 0, given.weight, given.rows)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_tfmq_has_a_range_per_step(tmp_path: Path, kind: str) -> None:
    found, given = emitted(tmp_path, kind, "tfmq")
    by_step = np.abs(given.x).max(axis=(1, 2))
    (factors,) = (v for n, v in found.constants.items() if "step_factors" in n)
    np.testing.assert_allclose(factors, by_step, rtol=EXACT)
    normed = given.x / by_step[:, None, None]
    assert found.activations[0] in (shifted(normed), symmetric(normed))
    assert_searched(found, 0, given.weight, given.rows)


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_plain_has_one_range_and_nearest_weights(tmp_path: Path, kind: str, target: Target) -> None:
    found, given = emitted(tmp_path, kind, "plain", segments=SIZES, target=target, method="amax")
    assert found.activations[0] in (shifted(given.x), symmetric(given.x))
    assert_nearest(found, 0, given.weight)
