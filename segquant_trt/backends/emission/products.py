"""The products that a site is computed by, and their sum.

| treatment     | nodes                                                                    |
|---------------|--------------------------------------------------------------------------|
| one plane     | `MatMul(DQ(Q(x)), DQ(codes[K, N], scale[N]))`, or Conv                   |
| two planes    | one product each, with the same codes under two names, and a Sum;        |
|               | or one product of twice the rows, halved: `upper + c lower`              |
| split         | one product per segment, each with its own scales, and a Sum             |
| scalar scales | `Mul(product, s_n / s)`                                                  |
| signed codes  | `Add(product, offset * colsum(W))`                                       |
| row factor    | `Mul(product, r)`, after the Sum where all segments share it             |

Sums are `Sum` nodes: ONNX Runtime makes a float Gemm of an Add behind a MatMul of rank 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from segquant_trt.backends.emission.activations import Activations, Segment
from segquant_trt.backends.emission.builder import Builder
from segquant_trt.backends.emission.stored import Correction, Float, IntegerBias, WeightCodes
from segquant_trt.backends.placement import DualLowering
from segquant_trt.graph.qdq import dequantize_weight, mark_product
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import LinearSite, SitePlan
from segquant_trt.schemes import planes


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """The activation of one product.

    `step`: scale of its codes, 0 for float values. `offset`: what signed codes are short of.
    `back`: what the lower half of the product's rows is multiplied by before it is added to the
    upper one; None where there are no halves.
    """

    segment: int
    tensor: str
    step: float = 0.0
    offset: float = 0.0
    back: float | None = None


class Products:
    """Emits products; `weights` are the codes that they read, `corrections` what they get back.

    Args:
        builder: where the nodes go.
        activations: emits what the products read.
        dual_lowering: of schemes with two planes.
        scalar_scales: whether channels' own scales come after the product.
    """

    def __init__(
        self,
        builder: Builder,
        activations: Activations,
        dual_lowering: DualLowering,
        *,
        scalar_scales: bool = False,
    ) -> None:
        self._scalar_scales = scalar_scales
        self.weights: list[WeightCodes] = []
        self.corrections: list[Correction] = []
        self._builder = builder
        self._activations = activations
        self._dual_lowering = dual_lowering
        self._named: set[str] = set()

    def operands(self, site: LinearSite, segments: Sequence[Segment]) -> list[Operand]:
        """Every product's activation, in the order of the segments."""
        found: list[Operand] = []
        for index, segment in enumerate(segments):
            tensor = segment.tensor
            codes = planes(segment.plan.activation, site=site.name)
            if not codes:
                found.append(Operand(segment=index, tensor=tensor))
            elif len(codes) == 2 and self._dual_lowering == "rows":
                rows, back = self._activations.stacked(tensor, (codes[0], codes[1]))
                found.append(Operand(segment=index, tensor=rows, step=codes[0].scale, back=back))
            else:
                for plane in codes:
                    decoded = self._activations.decoded(tensor, plane)
                    offset = self._activations.offset(plane)
                    found.append(
                        Operand(segment=index, tensor=decoded, step=plane.scale, offset=offset)
                    )
        return found

    def total(
        self,
        node: NodeProto,
        site: LinearSite,
        plan: SitePlan,
        segments: Sequence[Segment],
        bias: Sequence[str] = (),
    ) -> str:
        """The sum of all products, each times its factor; `bias` goes into the first product."""
        shared = len({segment.factor for segment in segments}) == 1
        terms: list[str] = []
        for operand in self.operands(site, segments):
            decoded = self.weight(site, plan, operand.segment)
            extra = () if terms else bias
            term = self.product(node, site, [operand.tensor, decoded, *extra])
            term = term if operand.back is None else self._merged(term, operand.back)
            term = self._corrected(self._rescaled(term), site, operand)
            factor = None if shared else segments[operand.segment].factor
            terms.append(self.scaled(term, factor))
        name = site.output
        total = terms[0] if len(terms) == 1 else self._builder.node("Sum", terms, f"{name}_sum")
        return self.scaled(total, segments[0].factor if shared else None)

    def product(self, node: NodeProto, site: LinearSite, inputs: Sequence[str]) -> str:
        """`node` with other inputs; the first product of a site keeps the node's name."""
        made = copied(node)
        name = node_name(node)
        made.name = self._builder.names.fresh(name) if name in self._named else name
        self._named.add(name)
        if node.op_type != "Conv":
            made.op_type = "MatMul"
            del made.attribute[:]
        del made.input[:]
        made.input.extend(inputs)
        made.output[0] = self._builder.names.fresh(f"{node.output[0]}_product")
        mark_product(made, site.name)
        self._builder.nodes.append(made)
        return made.output[0]

    def scaled(self, tensor: str, factor: str | None) -> str:
        """`tensor` times its row factor."""
        if factor is None:
            return tensor
        return self._builder.node("Mul", [tensor, factor], f"{tensor}_scaled")

    def weight(
        self,
        site: LinearSite,
        plan: SitePlan,
        segment: int,
        integer_bias: IntegerBias | None = None,
        gain: Float | None = None,
    ) -> str:
        """The decoded weight of one segment; see `WeightCodes` for the rest."""
        made = weight_codes(
            self._builder, site, plan, segment, integer_bias=integer_bias, gain=gain
        )
        if self._scalar_scales and made.block is None:
            relative = self._builder.names.fresh(f"{made.scale}_relative")
            made = replace(made, relative=relative)
        self.weights.append(made)
        stored = [name for name in (made.codes, made.scale, made.zero_point) if name is not None]
        axis = made.channel_axis if made.block is None else 0
        self._builder.nodes.append(
            dequantize_weight(tuple(stored), made.decoded, axis=axis, block=made.block)
        )
        return made.decoded

    def _rescaled(self, term: str) -> str:
        """With the last weight's channels on their own scales."""
        relative = self.weights[-1].relative
        return (
            term if relative is None else self._builder.node("Mul", [term, relative], f"{term}_own")
        )

    def _corrected(self, term: str, site: LinearSite, operand: Operand) -> str:
        """With what the last weight's columns add up to, times the offset of the codes."""
        if not operand.offset:
            return term
        made = Correction(
            name=self._builder.names.fresh(f"{self.weights[-1].codes}_correction"),
            weight=self.weights[-1],
            offset=operand.offset,
            shape=self.weights[-1].column,
        )
        self.corrections.append(made)
        return self._builder.node("Add", [term, made.name], f"{term}_corrected")

    def _merged(self, product: str, back: float) -> str:
        upper, lower = self._builder.halves(product)
        factor = self._builder.constant(np.array(back, dtype=np.float32), f"{product}_ratio")
        scaled = self._builder.node("Mul", [lower, factor], f"{lower}_scaled")
        return self._builder.node("Add", [upper, scaled], f"{product}_merged")


def weight_codes(
    builder: Builder,
    site: LinearSite,
    plan: SitePlan,
    segment: int,
    *,
    integer_bias: IntegerBias | None = None,
    gain: Float | None = None,
) -> WeightCodes:
    """Codes under fresh names."""
    weight = plan.treatment.weight
    assert weight is not None
    part = f"_segment{segment}" if len(plan.treatment.segments) > 1 else ""
    codes = builder.names.fresh(f"{site.weight}{part}_int{weight.bits}")
    zero = None if weight.block is not None else builder.names.fresh(f"{codes}_zero")
    return WeightCodes(
        site=site,
        treatment=plan.treatment,
        segment=segment,
        codes=codes,
        scale=builder.names.fresh(f"{codes}_scale"),
        zero_point=zero,
        decoded=builder.names.fresh(f"{codes}_decoded"),
        integer_bias=integer_bias,
        gain=gain,
    )


def copied(node: NodeProto) -> NodeProto:
    """A copy that may be edited."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
