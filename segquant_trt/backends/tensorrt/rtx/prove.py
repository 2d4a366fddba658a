"""Proves from the builder's report which sites are computed in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from segquant_trt.backends.base import SiteProof, proof_of
from segquant_trt.graph.qdq import coded_products, site_of
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

Precision = Literal["int8", "fp8"]

PRODUCT_KINDS = frozenset({"gemm", "correlation"})
_EIGHT_BITS: dict[str, Precision] = {"int8": "int8", "float8_e4m3fn": "fp8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProof(SiteProof):
    """How an engine computes a site; `integer` is true of INT8 and of FP8 products.

    `products`: names of the layers that multiply. `around`: names of the other layers that
    compute something of the site, as row factors, scales, biases.
    """

    precision: Precision | None
    products: tuple[str, ...]
    around: tuple[str, ...]


def products_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """By site, the names of the nodes with coded weights that it is computed by."""
    found: dict[str, tuple[str, ...]] = {}
    for node, _ in coded_products(Wiring(model.graph)):
        found[site_of(node)] = (*found.get(site_of(node), ()), node_name(node))
    return found


def prove(report: LayerReport, sites: Mapping[str, Sequence[str]]) -> dict[str, EngineProof]:
    """What executes each site.

    Args:
        report: of the builder.
        sites: by site, the ONNX names of its products, see `products_of`.
    """
    by_node: dict[str, list[Layer]] = {}
    for layer in report.layers:
        for node in layer.onnx_nodes:
            by_node.setdefault(node, []).append(layer)
    return {site: _prove(nodes, by_node) for site, nodes in sites.items()}


def _prove(nodes: Sequence[str], by_node: Mapping[str, list[Layer]]) -> EngineProof:
    executed = [_executing(node, by_node.get(node, [])) for node in nodes]
    proof = proof_of(
        [None if each is None else _word(each) for each in executed], _EIGHT.__contains__
    )
    products = tuple(dict.fromkeys(each.name for each in executed if each is not None))
    around = (layer.name for node in nodes for layer in by_node.get(node, []))
    precisions = {precision_of(each) for each in executed if each is not None}
    return EngineProof(
        integer=proof.integer,
        kernel=proof.kernel,
        precision=next(iter(precisions)) if proof.integer and len(precisions) == 1 else None,
        products=products,
        around=tuple(dict.fromkeys(name for name in around if name not in products)),
    )


def _executing(node: str, layers: Sequence[Layer]) -> Layer | None:
    """The layer that multiplies for `node`; where none does, the first that computes any of it."""
    own = [layer for layer in layers if layer.kind in PRODUCT_KINDS]
    named = [layer for layer in own if layer.name.startswith(node)]
    return next(iter([*named, *own, *layers]), None)


def _word(layer: Layer) -> str:
    types = " x ".join(use.dtype for use in operands(layer)) or "no operand"
    return f"{layer.kind} {types}"


_EIGHT = frozenset(f"{kind} {dtype} x {dtype}" for kind in PRODUCT_KINDS for dtype in _EIGHT_BITS)


def operands(layer: Layer) -> tuple[TensorUse, ...]:
    """What a product multiplies: its data, and its weight or second input."""
    weights = [use for use in layer.constants if len(use.dims) > 1]
    return (*layer.inputs, *weights)[:2]


def precision_of(layer: Layer) -> Precision | None:
    """The 8-bit type that a product multiplies in; None where it is none or no product."""
    types = {use.dtype for use in operands(layer)}
    if layer.kind not in PRODUCT_KINDS or len(types) != 1:
        return None
    return _EIGHT_BITS.get(next(iter(types)))
