"""Proves from the builder's report which sites are computed in 8 bits, and by how many kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from segquant_trt.backends.base import SiteProof, proof_of
from segquant_trt.graph.qdq import PRODUCTS, site_of
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

Precision = Literal["int8", "fp8"]

PRODUCT_KINDS = frozenset({"gemm", "correlation"})
_PARTS = frozenset({"Transpose", "Slice", "Split", "Identity"})
_NO_KERNEL = frozenset({"signal", "wait", "shape_call", "entry", "exit"})
_EIGHT_BITS: dict[str, Precision] = {"int8": "int8", "float8_e4m3fn": "fp8"}
_PROVEN = frozenset(f"{kind} {dtype} x {dtype}" for kind in PRODUCT_KINDS for dtype in _EIGHT_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProof(SiteProof):
    """How an engine computes a site; `integer` is true of INT8 and of FP8 products.

    `products`: names of the layers that multiply; sites that read the same codes may share one.
    `before`: layers that make the products' data. `after`: those that read what they write, and
    others that carry a name of the site's products: scales, row factors, biases, sums.
    """

    precision: Precision | None
    products: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def products_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """By site, the names by which the builder knows the products that it is computed by.

    They are the nodes' own names, and where a node has none, the builder's word for it. In the
    body of a function the call follows: "product | call (Function)".
    """
    found: dict[str, tuple[str, ...]] = {}
    for node in _coded_products(Wiring(model.graph)):
        found[site_of(node)] = (*found.get(site_of(node), ()), _known_as(node))
    bodies = {(body.domain, body.name, body.overload): body for body in model.functions}
    for call in model.graph.node:
        body = bodies.get((call.domain, call.op_type, call.overload))
        if body is not None:
            inner = Wiring(onnx.GraphProto(node=body.node))
            where = f"{_known_as(call)} ({call.op_type})"
            names = tuple(f"{_known_as(node)} | {where}" for node in _coded_products(inner))
            found[site_of(call)] = (*found.get(site_of(call), ()), *names)
    return {site: names for site, names in found.items() if names}


def _coded_products(wiring: Wiring) -> Iterator[onnx.NodeProto]:
    """Products whose weight is decoded from what no node codes, whole or in parts."""
    for node in wiring.nodes:
        if node.op_type not in PRODUCTS:
            continue
        decode = wiring.producer.get(node.input[1])
        while decode is not None and decode.op_type in _PARTS:
            decode = wiring.producer.get(decode.input[0])
        if decode is None or decode.op_type != "DequantizeLinear":
            continue
        codes = wiring.producer.get(decode.input[0])
        if codes is None or codes.op_type != "QuantizeLinear":
            yield node


def _known_as(node: onnx.NodeProto) -> str:
    return node.name or f"node_of_{node.output[0]}"


def prove(report: LayerReport, sites: Mapping[str, Sequence[str]]) -> dict[str, EngineProof]:
    """What executes each site.

    Args:
        report: of the builder.
        sites: by site, the ONNX names of its products, see `products_of`.
    """
    flow = Flow(report)
    return {site: _prove(nodes, flow) for site, nodes in sites.items()}


class Flow:
    """Who makes, who reads and who computes what, in a report."""

    def __init__(self, report: LayerReport) -> None:
        self.of_node: dict[str, list[Layer]] = {}
        self.maker: dict[str, Layer] = {}
        self.readers: dict[str, list[Layer]] = {}
        for layer in report.layers:
            for node in layer.onnx_nodes:
                self.of_node.setdefault(node, []).append(layer)
            for use in layer.outputs:
                self.maker[use.name] = layer
            for name in dict.fromkeys(use.name for use in layer.inputs):
                self.readers.setdefault(name, []).append(layer)

    def products(self, node: str) -> list[Layer]:
        """The layers that multiply for `node`, one per profile; else the first of its name."""
        layers = self.of_node.get(node, [])
        own = [layer for layer in layers if layer.kind in PRODUCT_KINDS]
        # The names of a product's own node come first, those of others folded into it after.
        ranks = [layer.onnx_nodes.index(node) for layer in own]
        nearest = [layer for layer, rank in zip(own, ranks, strict=True) if rank == min(ranks)]
        return nearest or layers[:1]

    def before(self, layer: Layer) -> Iterator[Layer]:
        """The layers that make what `layer` reads."""
        yield from (self.maker[use.name] for use in layer.inputs if use.name in self.maker)

    def after(self, layer: Layer) -> Iterator[Layer]:
        """The layers that read what `layer` makes."""
        for use in layer.outputs:
            yield from self.readers.get(use.name, [])


def _prove(nodes: Sequence[str], flow: Flow) -> EngineProof:
    executed = [flow.products(node) for node in nodes]
    layers = [layer for own in executed for layer in own]
    words: list[str | None] = []
    for own in executed:
        words += [_word(layer) for layer in own] or [None]
    proof = proof_of(words, _PROVEN.__contains__)
    precisions = {precision_of(layer) for layer in layers}
    products = tuple(dict.fromkeys(layer.name for layer in layers))
    before = dict.fromkeys(each.name for layer in layers for each in flow.before(layer))
    after = dict.fromkeys(each.name for layer in layers for each in flow.after(layer))
    after |= dict.fromkeys(each.name for node in nodes for each in flow.of_node.get(node, []))
    return EngineProof(
        integer=proof.integer,
        kernel=proof.kernel,
        precision=precisions.pop() if proof.integer and len(precisions) == 1 else None,
        products=products,
        before=tuple(name for name in before if name not in products),
        after=tuple(name for name in after if name not in products and name not in before),
    )


def _word(layer: Layer) -> str:
    types = " x ".join(use.dtype for use in operands(layer))
    return f"{layer.kind} {types}".rstrip()


def operands(layer: Layer) -> tuple[TensorUse, ...]:
    """What a product multiplies: its data, and its weight or second input."""
    weights = [use for use in layer.constants if len(use.dims) > 1]
    return (*layer.inputs, *weights)[:2]


def precision_of(layer: Layer) -> Precision | None:
    """The 8-bit type that a product multiplies in; None where it is none, or no product."""
    types = {use.dtype for use in operands(layer)}
    if layer.kind not in PRODUCT_KINDS or len(types) != 1:
        return None
    return _EIGHT_BITS.get(next(iter(types)))


def kernels(report: LayerReport) -> tuple[Layer, ...]:
    """The layers that run on the GPU: neither shape computations nor signals between streams.

    The report lists all of them once per profile.
    """
    return tuple(layer for layer in report.layers if layer.kind not in _NO_KERNEL)


def kernels_per_block(
    report: LayerReport, block_of: Callable[[str], str | None]
) -> dict[str | None, int]:
    """How many kernels each block of the model takes.

    A kernel belongs to the block of its first named node that has one; one without names, which
    only moves data, goes with the layer that it reads from.

    Args:
        report: of the builder.
        block_of: the block of an ONNX node, or None.
    """
    flow = Flow(report)
    counts: dict[str | None, int] = {}
    known: dict[str, str | None] = {}
    for layer in kernels(report):
        blocks = (block_of(node) for node in layer.onnx_nodes)
        found = next((block for block in blocks if block is not None), None)
        if not layer.onnx_nodes:
            found = next((known.get(each.name) for each in flow.before(layer)), None)
        known[layer.name] = found
        counts[found] = counts.get(found, 0) + 1
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedAttention:
    """One kernel for scores, softmax and values; `dtype` of the query that it reads."""

    layer: str
    dtype: str
    nodes: tuple[str, ...]


def fused_attention(report: LayerReport) -> tuple[FusedAttention, ...]:
    """The attentions whose scores never reach memory."""
    return tuple(
        FusedAttention(layer=layer.name, dtype=layer.inputs[0].dtype, nodes=layer.onnx_nodes)
        for layer in report.layers
        if is_attention(layer)
    )


def is_attention(layer: Layer) -> bool:
    """Whether a layer is a fused attention."""
    return layer.kind == "kgen" and layer.name.startswith("_gemm_mha")
