"""Sampled patches: the product with the weight's rows is the convolution, at odd sizes too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from segquant_trt.calibrate.patches import PatchSampler, Windows
from segquant_trt.records import LinearSite


def conv_site(channels: int, kernel: tuple[int, ...]) -> LinearSite:
    return LinearSite(
        name="conv", op="Conv", module=None, role="body", activation="x", weight="w",
        weight_layout="NCHW", bias=None, bias_node=None, output="y", in_features=channels,
        out_features=1, kernel=kernel, groups=1, activation_rank=2 + len(kernel),
    )  # fmt: skip


@settings(deadline=None)  # torch is imported on the way
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    begin=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    end=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 99),
)
def test_patches_times_weight_is_the_convolution(
    kernel: Any, stride: int, dilation: int, begin: Any, end: Any, seed: int
) -> None:
    import torch

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 9, 11)).astype(np.float32)
    weight = rng.standard_normal((4, 3, *kernel)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], pads=[*begin, *end], strides=[stride] * 2,
        dilations=[dilation] * 2,
    )  # fmt: skip
    windows = Windows.of(node, kernel)
    assert windows is not None
    pad = (begin[1], end[1], begin[0], end[0])
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(x), pad),
        torch.from_numpy(weight),
        stride=stride,
        dilation=dilation,
    ).numpy()
    assert windows.positions(x.shape[2:]) == expected.shape[2:]
    count = 2 * expected.shape[2] * expected.shape[3]
    indices = rng.permutation(count)[: max(1, count // 2)]
    found = windows.at(x, indices) @ weight.reshape(4, -1).T
    wanted = np.moveaxis(expected, 1, -1).reshape(-1, 4)[indices]
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_automatic_padding_has_no_fixed_geometry() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")
    assert Windows.of(node, (3, 3)) is None


@pytest.mark.parametrize("sizes", [(1, 1, 6), (4, 4), (8,)])
def test_the_sample_is_of_rows_per_bin_and_comes_from_every_batch(sizes: tuple[int, ...]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    windows = Windows.of(node, (2,))
    assert windows is not None
    sampler = PatchSampler(conv_site(1, (2,)), windows, bins=1, rows_per_bin=6)
    first = 0
    for size in sizes:
        values = np.arange(first, first + 3 * size, dtype=np.float32).reshape(size, 1, 3)
        sampler.update(values, step_bin=0)
        first += 3 * size
    patches = sampler.finish()[0]
    assert patches.shape == (6, 2)
    assert len(set(patches[:, 0].tolist())) == 6
    assert np.array_equal(patches[:, 1], patches[:, 0] + 1)  # neighbours of one sample
    assert patches[:, 0].max() >= 3  # not of the first sample alone
