"""What is scored together: grouping, segments that all sites agree on, products, calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.records import GraphFacts, LinearSite, SitePolarity, SiteSegments, WeightPlan
from segquant_trt.records.calibration import Calibration
from segquant_trt.score.group import (
    grouped,
    input_segments,
    make_group,
    rounding_of,
    uniform_gains,
)
from tests.score.denoisers import site
from tests.score.groups import EDGES, activations, convolution, linears, stats, weight
from tests.small_graphs import save_graph


def segments(name: str, sizes: tuple[int, ...], **given) -> SiteSegments:
    fields = {"site": name, "module": None, "side": "input", "pattern": "concat", "sizes": sizes}
    return SiteSegments(**(fields | given), tensors=tuple("abcdefgh"[: len(sizes)]))


def facts(sites: list[LinearSite], *entries: SiteSegments, polarity=()) -> GraphFacts:
    return GraphFacts(
        onnx_sha256="m", sites=tuple(sites), segments=entries, polarity=tuple(polarity)
    )


def test_sites_are_grouped_by_what_they_read_in_graph_order() -> None:
    names = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")]
    sites = [site(name, activation=tensor) for name, tensor in names]
    found = grouped(facts(sites))
    assert {tensor: [s.name for s in own] for tensor, own in found.items()} == {
        "x": ["a", "c"], "y": ["b"], "z": ["d"],
    }  # fmt: skip
    assert list(found) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ([], (20,)),
        ([segments("a", (5, 15))], (5, 15)),
        ([segments("a", (5, 15)), segments("b", (5, 15))], (5, 15)),
        ([segments("a", (5, 15)), segments("b", (10, 10))], (20,)),
        ([segments("a", (5, 15)), segments("other", (10, 10))], (5, 15)),
        ([segments("a", (4,) * 5)], (20,)),
        ([segments("a", (4, 4, 4, 8))], (4, 4, 4, 8)),
        ([segments("a", (5, 15), trivial=True)], (20,)),
        ([segments("a", (5, 15), side="output")], (20,)),
        ([segments("a", (10, 10), pattern="head_merge")], (20,)),
        ([segments("a", (10, 10), pattern="stack")], (10, 10)),
        ([segments("a", (5, 16))], (20,)),
    ],
)
def test_segments_are_those_that_all_sites_show(entries, wanted) -> None:
    sites = [site("a", inputs=20), site("b", inputs=20)]
    assert input_segments(facts(sites, *entries), sites) == wanted


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_products_are_those_of_torch(groups: int) -> None:
    found = convolution(1, 1, (8, 4), 6, groups=groups)
    own = found.members[0]
    image = torch.randn(1, 12, 5, 4, generator=torch.Generator().manual_seed(1))
    kernel = torch.from_numpy(own.weight).reshape(6, 12 // groups, 3, 3)
    wanted = torch.nn.functional.conv2d(image, kernel, groups=groups)[0].flatten(1).T
    patches = torch.nn.functional.unfold(image, 3)[0].T[None]
    product = own.product(patches.contiguous().numpy(), own.weight)
    np.testing.assert_allclose(product[0], wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_noise_weighs_channels_and_bins() -> None:
    own = linears(2, 6, (5,), [4]).members[0]
    error = np.zeros((3, 6, 4), np.float32)
    error[1, :, 2] = [3, 0, 0, 0, 4, 0]
    assert own.noise(error).tolist() == pytest.approx([0, 25 / 6 * own.gains[1, 2], 0])
    assert own.white_noise(error).tolist() == pytest.approx([0, 25 / 6 * own.white[1, 2], 0])


def test_coarse_weights_count_by_white_gains_and_by_what_they_do_together() -> None:
    own = linears(2, 6, (5,), [4]).members[0]
    error = np.random.default_rng(0).standard_normal((3, 6, 4), np.float32)
    fine, coarse = WeightPlan(), WeightPlan(bits=4, rounding="gptq", scale_method="mse")
    factor = np.array([0.5, 1.0, 3.0])
    together = replace(own, joint={rounding_of(coarse): factor, rounding_of(fine): factor})
    white = own.white_noise(error)
    for divided in (False, True):
        found = together.weight_noise(error, fine, divided=divided)
        assert found.tolist() == own.noise(error).tolist()
        assert own.weight_noise(error, coarse, divided=divided).tolist() == white.tolist()
    found = together.weight_noise(error, coarse, divided=False)
    assert found.tolist() == pytest.approx((factor * white).tolist())
    assert together.weight_noise(error, coarse, divided=True).tolist() == white.tolist()
    other = replace(coarse, rounding="nearest")
    assert together.weight_noise(error, other, divided=False).tolist() == white.tolist()


def test_what_a_group_admits() -> None:
    assert linears(3, 2, (5, 4), [4]).admits_split
    assert linears(3, 2, (5, 4), [4]).admits_row_factors
    assert not linears(3, 2, (9,), [4]).admits_split
    assert not convolution(3, 2, (8, 4), 6).admits_row_factors
    assert convolution(3, 2, (8, 4), 6).admits_split
    assert not convolution(3, 2, (8, 4), 6, groups=2).admits_split


def test_uniform_gains_make_noise_a_noise_to_signal_ratio() -> None:
    own = linears(4, 50, (5,), [4]).members[0]
    y = own.output.rows
    gains = uniform_gains(own.output)
    noise = replace(own, gains=gains).noise((0.1 * y).astype(np.float32))
    np.testing.assert_allclose(noise, 0.01, rtol=1e-5)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Weights, GraphFacts, Calibration]:
    """A linear and a 3x3 convolution of one tensor, a 1x1 convolution of another."""
    kernels = {"fc": (6, 9), "conv": (4, 9, 3, 3), "point": (5, 4, 1, 1)}
    tensors = {
        f"{name}.weight": weight(i, shape[0], int(np.prod(shape[1:]))).reshape(shape)
        for i, (name, shape) in enumerate(kernels.items())
    }
    tensors["conv.bias"] = np.arange(4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["fc/y"], name="fc"),
        helper.make_node("Conv", ["i", "conv.weight", "conv.bias"], ["conv/y"], name="conv"),
    ]
    path = save_graph(
        tmp_path / "model.onnx", nodes, {"x": [None], "i": [None]}, {"fc/y": [None]}, tensors
    )
    sites = [
        site("fc", inputs=9, outputs=6),
        site("conv", op="Conv", inputs=9, outputs=4, kernel=(3, 3), bias=True),
        site("point", op="Conv", inputs=4, outputs=5, kernel=(1, 1), activation="conv/y"),
    ]
    x = activations(5, 20, (9,))
    shapes = {"x": x, "fc/y": x[..., :6], "conv/y": x[..., :4], "point/y": x[..., :5]}
    calibration = Calibration(
        onnx_sha256="m",
        checkpoint_sha256="w",
        origin="inputs",
        samples=3,
        bin_edges=EDGES,
        tensors={name: stats(rows) for name, rows in shapes.items()},
        patches={"conv": activations(6, 15, (81,))},
    )
    return Weights(load_graph(path), tmp_path), facts(sites), calibration


def test_a_group_is_read_from_calibration_and_checkpoint(model) -> None:
    weights, known, calibration = model
    gains = {"fc": np.full((3, 6), 2.0), "conv": np.ones((3, 7))}
    white = {"fc": np.full((3, 6), 3.0), "conv": np.ones((3, 7))}
    sites = list(known.sites[:2])
    found = make_group("x", sites, known, calibration, weights, gains, white)
    fc, conv = found.members
    assert found.edges == EDGES
    assert found.rows is calibration.tensors["x"].rows
    assert fc.rows is found.rows
    assert conv.rows is calibration.patches["conv"]
    assert fc.weight.shape == (6, 9)
    assert conv.weight.shape == (4, 81)
    assert conv.taps == 9
    assert fc.bias is None
    assert conv.bias.tolist() == [0, 1, 2, 3]
    assert fc.gains is gains["fc"]
    assert fc.white is white["fc"]
    uniform = uniform_gains(calibration.tensors["conv/y"])
    np.testing.assert_array_equal(conv.gains, uniform)  # others have no use
    np.testing.assert_array_equal(conv.white, uniform)
    assert found.channels == 9
    (point,) = make_group("conv/y", [known.sites[2]], known, calibration, weights, {}, {}).members
    assert point.rows is calibration.tensors["conv/y"].rows
    assert point.taps == 1


@pytest.mark.parametrize(
    ("segment", "sizes", "polar"),
    [(None, (9,), {0}), (1, (5, 4), {1}), (0, (5, 4), {0}), (None, (5, 4), {0, 1})],
)
def test_polarity_of_a_whole_input_is_that_of_all_its_segments(
    model, segment, sizes, polar
) -> None:
    """An activation behind a Concat: `silu(concat(a, b))`."""
    weights, known, calibration = model
    told = replace(
        known,
        segments=(segments("fc", sizes),) if len(sizes) > 1 else (),
        polarity=(SitePolarity(site="fc", segment=segment, activation="silu"),),
    )
    found = make_group("x", [known.sites[0]], told, calibration, weights, {}, {})
    assert found.segments == sizes
    assert found.polar == polar


@pytest.mark.parametrize(("lost", "named"), [("x", "x"), ("fc/y", "fc/y")])
def test_a_site_that_was_not_calibrated_is_named(model, lost: str, named: str) -> None:
    weights, known, calibration = model
    tensors = {name: own for name, own in calibration.tensors.items() if name != lost}
    with pytest.raises(SegQuantError, match=f"site 'fc' reads or writes '{named}'"):
        make_group(
            "x", [known.sites[0]], known, replace(calibration, tensors=tensors), weights, {}, {}
        )
