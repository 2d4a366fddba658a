"""Bytes, multiply-accumulates and rooflines against sums done by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from segquant_trt.backends.tensorrt.rtx.gpus import GPUS, gpu
from segquant_trt.backends.tensorrt.rtx.prove import kernels, prove
from segquant_trt.backends.tensorrt.rtx.traffic import (
    LayerTraffic,
    roofline_seconds,
    site_traffic,
    traffic,
)
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.rtx.test_layers import excerpt
from tests.backends.tensorrt.rtx.test_prove import layer, report, use

ROWS, NARROW, WIDE, OUT = 128, 96, 160, 512  # of the two segments


def test_two_segments_by_hand() -> None:
    found = {each.layer: each for each in traffic(excerpt("segments"))}
    assert len(found) == 4
    product = found["block.0/site/b_myl0_2"]
    assert product.read_bytes == ROWS * WIDE + WIDE * OUT + 4 + 4  # alpha, beta
    assert product.written_bytes == ROWS * OUT * 2
    assert product.macs == ROWS * WIDE * OUT
    assert product.dtype == "int8"
    before = next(iter(found.values()))
    assert before.written_bytes == ROWS * (NARROW + WIDE)
    assert before.macs == 0
    assert before.dtype is None


def test_a_convolution_by_hand() -> None:
    product = traffic(excerpt("convolution"))[1]
    pixels, out, inner = 2 * 16 * 16, 96, 64 * 9
    assert product.macs == pixels * out * inner
    assert product.written_bytes == 4 * pixels * out, "float32"
    assert product.dtype == "int8"


def test_fused_attention_by_hand() -> None:
    found = next(each for each in traffic(excerpt("attention")) if "mha" in each.layer)
    heads, rows, size = 8, 64, 64
    assert found.macs == 2 * heads * rows * rows * size
    assert found.read_bytes == 3 * heads * rows * size
    assert found.dtype == "float8_e4m3fn"


def test_a_fused_16_bit_product_counts() -> None:
    (found,) = traffic(excerpt("weight_only"))
    assert found.macs == 128 * 256 * 512
    assert found.dtype == "float16"


def test_a_site_is_its_kernels() -> None:
    found = excerpt("segments")
    proofs = prove(found, {"s": ["block.0/site/a", "block.0/site/b"]})
    cost = site_traffic(found, proofs)["s"]
    total = sum(each.read_bytes + each.written_bytes for each in traffic(found))
    assert cost.kernels == len(kernels(found))
    assert cost.macs == ROWS * (NARROW + WIDE) * OUT
    assert cost.product_bytes + cost.around_bytes == total


def test_a_tensor_that_is_read_twice_counts_once() -> None:
    twice = layer("k", "kgen", reads=[use("x", "float16", 7), use("x", "float16", 7)])
    assert traffic(report(twice))[0].read_bytes == 14


@pytest.mark.parametrize(("dtype", "size"), [("int4", 3), ("bool", 5), ("int64", 40)])
def test_sizes_of_types(dtype: str, size: int) -> None:
    assert traffic(report(layer("k", "kgen", writes=[use("x", dtype, 5)])))[0].written_bytes == size


def test_unknown_dimensions_and_types_are_refused() -> None:
    with pytest.raises(SegQuantError, match=r"'x' of layer 'k'.*\[-1, 3\](.|\n)*fixed shape"):
        traffic(report(layer("k", "kgen", writes=[use("x", "int8", -1, 3)])))
    with pytest.raises(SegQuantError, match="unknown type Complex9"):
        traffic(report(layer("k", "kgen", writes=[use("x", "Complex9", 3)])))


PRODUCT = LayerTraffic(layer="p", read_bytes=10**6, written_bytes=10**6, macs=10**12, dtype="int8")


@pytest.mark.parametrize("on", GPUS, ids=lambda each: each.name)
def test_the_roofline_is_the_slower_of_two(on) -> None:
    moving = 2e6 / (on.gigabytes_per_second * 1e9)
    computing = 2e12 / (on.tera_ops["int8"] * 1e12)
    assert math.isclose(roofline_seconds(PRODUCT, on), computing)
    assert math.isclose(roofline_seconds(dataclasses.replace(PRODUCT, macs=1), on), moving)
    light = dataclasses.replace(PRODUCT, macs=0, dtype=None)
    assert math.isclose(roofline_seconds(light, on), moving)


def test_published_figures_are_ordered_as_the_hardware_is() -> None:
    for each in GPUS:
        assert each.source
        rates = each.tera_ops
        assert rates["float32"] < rates["float16"] < rates["int8"]
        assert ("float8_e4m3fn" in rates) == (
            each.capability >= "sm_89" or len(each.capability) > 5
        )


def test_fp8_on_ampere_has_no_rate() -> None:
    fp8 = dataclasses.replace(PRODUCT, dtype="float8_e4m3fn")
    with pytest.raises(SegQuantError, match=r"RTX 3090 has no published rate.*float8"):
        roofline_seconds(fp8, gpu("rtx 3090"))


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(SegQuantError, match="RTX 4090"):
        gpu("RTX 6090")
