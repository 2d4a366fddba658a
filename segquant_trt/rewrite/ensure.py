"""Proofs about a rewritten graph: nothing undeclared changed, and the pairs are the plan's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from segquant_trt.backends.placement import Placement
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.qdq import (
    PRODUCTS,
    coded_products,
    codes_behind,
    site_of,
    weight_codes_behind,
)
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.records import LinearSite, SitePlan
from segquant_trt.rewrite.data import GraphData
from segquant_trt.schemes import Encoding, output_encoding, planes

_HINT = "this is a defect of the rewrite stage; please report it with the plan and the graph"

Pair = tuple[float, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What one product reads and writes: pairs of scale and zero point, and its weight's codes.

    `activation` and `output` are None where the values stay float.
    """

    activation: Pair | None
    weight: str
    output: Pair | None = None


def check_untouched(before: onnx.ModelProto, after: onnx.ModelProto, declared: Set[str]) -> None:
    """Every node outside `declared` is in `after`, byte for byte.

    Raises:
        SegQuantError: naming the first node that changed or vanished.
    """
    kept = {node.SerializeToString(deterministic=True) for node in after.graph.node}
    for node in before.graph.node:
        if node_name(node) in declared:
            continue
        if node.SerializeToString(deterministic=True) not in kept:
            raise SegQuantError(
                f"node '{node_name(node)}' changed although the plan does not name it", hint=_HINT
            )


def expected_codes(
    chosen: Iterable[tuple[LinearSite, SitePlan]], placement: Placement, data: GraphData
) -> dict[str, list[Codes]]:
    """The products of every site, as the plan has them."""
    names: dict[str, list[str]] = {}
    for weight in data.weights:
        names.setdefault(weight.site.name, []).append(weight.codes)
    for call in data.seg_linear:
        names[call.parts[0].site.name] = [call.codes] * len(call.steps)
    calls = {call.parts[0].site.name for call in data.seg_linear}
    expected = {}
    for site, plan in chosen:
        pairs: list[Pair | None] = []
        for part in plan.treatment.segments:
            own = planes(part.activation, site=site.name)
            if len(own) == 2 and placement.dual_lowering == "rows" and site.name not in calls:
                own = own[:1]
            pairs += [_pair(plane, placement) for plane in own] or [None]
        output = _output_pair(site, plan, placement)
        expected[site.name] = [
            Codes(activation=pair, weight=name, output=output)
            for pair, name in zip(pairs, names.get(site.name, []), strict=True)
        ]
    return expected


def check_codes(
    before: onnx.ModelProto, after: onnx.ModelProto, expected: Mapping[str, list[Codes]]
) -> None:
    """The planned sites, and only they, are made to read codes: scales and zero points of the plan.

    Args:
        before: the graph as it was, in which other sites may have read codes already.
        after: the rewritten graph.
        expected: the products of every planned site, in the order of its segments.

    Raises:
        SegQuantError: naming the first site that differs.
    """
    wiring = Wiring(after.graph)
    given = {node_name(node) for node, _ in coded_products(Wiring(before.graph))}
    found: dict[str, list[Codes]] = {}
    for node in wiring.nodes:
        if node_name(node) in given:
            continue
        if node.op_type in PRODUCTS:
            weight = weight_codes_behind(node.input[1], wiring)
            if weight is not None:
                found.setdefault(site_of(node), []).append(_found(node, weight, wiring))
        elif node.op_type == "SegLinear":
            found[node_name(node)] = _call(node, wiring)
    for site in {**expected, **found}:
        if found.get(site) != expected.get(site):
            raise SegQuantError(
                f"site '{site}' is emitted with {found.get(site)}; "
                f"the plan wants {expected.get(site)}",
                hint=_HINT,
            )


def _pair(plane: Encoding, placement: Placement) -> Pair:
    scale = np.dtype(placement.float_type).type(plane.scale)
    tiny = np.finfo(placement.float_type).tiny
    return float(max(scale, tiny)), 0 if placement.signed_codes else plane.zero_point


def _output_pair(site: LinearSite, plan: SitePlan, placement: Placement) -> Pair | None:
    if site.op != "Conv" or not placement.requantize_conv_output:
        return None
    if plan.output_channels is not None and placement.output_channels:
        return 1.0, 0
    assert plan.output_range is not None
    encoding = output_encoding(*plan.output_range)
    return encoding.scale, encoding.zero_point


def _found(node: NodeProto, weight: str, wiring: Wiring) -> Codes:
    output = None
    reader = wiring.sole_consumer(node.output[0])
    if node.op_type == "Conv" and reader is not None and reader.op_type == "QuantizeLinear":
        scale, zero = (numpy_helper.to_array(wiring.initializers[n]) for n in reader.input[1:3])
        output = float(scale), int(zero)
    return Codes(activation=codes_behind(node.input[0], wiring), weight=weight, output=output)


def _call(node: NodeProto, wiring: Wiring) -> list[Codes]:
    """The planes of a call of SegLinear, its int8 zero shifts as zero points of uint8 codes."""
    scales = numpy_helper.to_array(wiring.initializers[node.input[3]])
    shifts = next(a.ints for a in node.attribute if a.name == "zero_shifts")
    return [
        Codes(activation=(float(scale), 128 - shift), weight=node.input[1])
        for scale, shift in zip(np.atleast_1d(scales), shifts, strict=True)
    ]
