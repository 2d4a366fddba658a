"""Bytes and multiply-accumulates of an engine's layers, and the least time that they can take.

Everything here follows from the dimensions and types of the builder's report: it is an estimate
from below, of the ahead-of-time engine and with published peaks. No GPU has been timed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from segquant_trt.backends.tensorrt.rtx.gpus import Gpu
from segquant_trt.backends.tensorrt.rtx.prove import (
    EngineProof,
    is_attention,
    kernels,
    operands,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

_BITS = {
    "bool": 8,
    "int4": 4,
    "float4_e2m1fn": 4,
    "int8": 8,
    "uint8": 8,
    "float8_e4m3fn": 8,
    "float16": 16,
    "bfloat16": 16,
    "int32": 32,
    "float32": 32,
    "int64": 64,
}
_MATRIX_PRODUCT = "Fc"  # in the names of products that the builder fuses with what is around them


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTraffic:
    """What one kernel moves and multiplies.

    `read_bytes`: every tensor once, however often it is read. `macs`: with the padding that the
    builder chose. `dtype`: of the narrower operand; None where nothing is multiplied.
    """

    layer: str
    read_bytes: int
    written_bytes: int
    macs: int
    dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTraffic:
    """`around_bytes`: of the kernels before and after the products, also where sites share them."""

    kernels: int
    product_bytes: int
    around_bytes: int
    macs: int


def traffic(report: LayerReport) -> tuple[LayerTraffic, ...]:
    """Bytes and multiply-accumulates of every kernel, in order.

    Raises:
        SegQuantError: a dimension is only known at run time, or a type is unknown.
    """
    return tuple(_layer_traffic(layer) for layer in kernels(report))


def site_traffic(report: LayerReport, proofs: Mapping[str, EngineProof]) -> dict[str, SiteTraffic]:
    """What each proven site costs, from which a planner's prices can be fitted.

    Raises:
        SegQuantError: as `traffic`.
    """
    by_layer = {each.layer: each for each in traffic(report)}
    return {site: _site_traffic(proof, by_layer) for site, proof in proofs.items()}


def _site_traffic(proof: EngineProof, by_layer: Mapping[str, LayerTraffic]) -> SiteTraffic:
    products = [by_layer[name] for name in proof.products]
    around = [by_layer[name] for name in (*proof.before, *proof.after)]
    return SiteTraffic(
        kernels=len(products) + len(around),
        product_bytes=sum(each.read_bytes + each.written_bytes for each in products),
        around_bytes=sum(each.read_bytes + each.written_bytes for each in around),
        macs=sum(each.macs for each in products),
    )


def roofline_seconds(each: LayerTraffic, on: Gpu) -> float:
    """Least seconds of a kernel: its bytes or its multiplications, whichever take longer.

    An estimate from published peaks; launches, caches and real efficiency are not in it.

    Raises:
        SegQuantError: the GPU has no published rate for the kernel's operand type.
    """
    moving = (each.read_bytes + each.written_bytes) / (on.gigabytes_per_second * 1e9)
    if each.dtype is None:
        return moving
    rate = on.tera_ops.get(each.dtype)
    if rate is None:
        raise SegQuantError(
            f"{on.name} has no published rate for products of {each.dtype}",
            hint=f"it multiplies {', '.join(sorted(on.tera_ops))}",
        )
    return max(moving, 2.0 * each.macs / (rate * 1e12))


def _layer_traffic(layer: Layer) -> LayerTraffic:
    read = {use.name: _bytes(use, layer) for use in (*layer.inputs, *layer.constants)}
    macs = _macs(layer)
    return LayerTraffic(
        layer=layer.name,
        read_bytes=sum(read.values()),
        written_bytes=sum(_bytes(use, layer) for use in layer.outputs),
        macs=macs,
        dtype=_multiplied(layer) if macs else None,
    )


def _elements(use: TensorUse, layer: Layer) -> int:
    if any(length < 0 for length in use.dims):
        raise SegQuantError(
            f"tensor '{use.name}' of layer '{layer.name}' has dimensions {list(use.dims)}, of "
            "which some are only known at run time",
            hint="build with one fixed shape for every input to count bytes",
        )
    return math.prod(use.dims)


def _bytes(use: TensorUse, layer: Layer) -> int:
    if use.dtype not in _BITS:
        raise SegQuantError(
            f"tensor '{use.name}' of layer '{layer.name}' has the unknown type {use.dtype}",
            hint="report this with the version of TensorRT-RTX",
        )
    return -(-_elements(use, layer) * _BITS[use.dtype] // 8)


def _macs(layer: Layer) -> int:
    if is_attention(layer):
        query, key, value = layer.inputs[0], layer.inputs[1], layer.inputs[-1]
        keys = key.dims[-1]
        return _elements(query, layer) * keys + math.prod(query.dims[:-1]) * keys * value.dims[-1]
    if layer.kind in ("correlation", "deconv"):
        weight = operands(layer)[1]
        whole = layer.outputs[0] if layer.kind == "correlation" else layer.inputs[0]
        return _elements(whole, layer) * math.prod(weight.dims[1:])
    fused = layer.kind == "runtime_fusion" and _MATRIX_PRODUCT in layer.name
    if layer.kind == "gemm" or fused:
        return _elements(layer.outputs[0], layer) * layer.inputs[0].dims[-1]
    return 0


def _multiplied(layer: Layer) -> str:
    """Type that the products are computed in: 8 bits only if both operands have them."""
    types = {use.dtype for use in operands(layer)}
    if is_attention(layer):
        types = {layer.inputs[0].dtype, layer.inputs[1].dtype}
    if len(types) == 1:
        return types.pop()
    return "float16"
