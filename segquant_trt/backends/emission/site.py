"""Emit one site at a time: nodes now, data to be written later.

| float graph                  | emitted                                                        |
|------------------------------|----------------------------------------------------------------|
| `MatMul(x, W)`, `Gemm(x, W, b)` | products and their sum (see `products`), then `Add(b)`       |
| `MatMul -> Add(b)`           | the Add stays; b is lifted to [1, 1, N] where the target wants it |
| `Conv(x, W, b)`              | products with b in the first                                   |
| the same, signed codes with an offset | `Pad(x) ->` products without padding, and b   |
| the same, requantised        | `Conv(.., b) -> Q -> DQ`; by channel `-> Q -> DQ -> Mul -> Add` |
| the same, with a row factor r | `Conv (-> Q -> DQ) -> Mul(r) -> Add(b)`                       |

A bias of rank 1 behind a MatMul of rank 2 makes a float Gemm of both on ONNX Runtime, hence the
lifting; a Squeeze undoes it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto, helper

from segquant_trt.backends.emission.activations import Activations, Segment
from segquant_trt.backends.emission.arrays import Arrays, ChannelSteps, channel_steps
from segquant_trt.backends.emission.builder import Builder
from segquant_trt.backends.emission.factors import Factors
from segquant_trt.backends.emission.products import Operand, Products, copied
from segquant_trt.backends.emission.seg_linear import SegLinear
from segquant_trt.backends.emission.stored import (
    Correction,
    Float,
    FloatTensor,
    IntegerBias,
    WeightCodes,
)
from segquant_trt.backends.emission.structure import Structure
from segquant_trt.backends.placement import Placement
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.attributes import ints_attribute
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import LinearSite, PerToken, SitePlan
from segquant_trt.schemes import output_encoding, planes


class SiteEmitter:
    """Emits sites with `builder`; collects the weights and float tensors to be written.

    Args:
        builder: where the nodes go.
        structure: of the float graph.
        placement: of the target.
        arrays: what the plan names by key.
        timestep: the graph input for factors per step.
    """

    def __init__(
        self,
        builder: Builder,
        structure: Structure,
        placement: Placement,
        arrays: Arrays,
        timestep: str | None,
    ) -> None:
        self.activations = Activations(
            builder, structure, Factors(builder, timestep), arrays, signed=placement.signed_codes
        )
        self.seg_linear = SegLinear(builder, self.activations)
        self._builder = builder
        self._placement = placement
        self._arrays = arrays
        self._products = Products(
            builder,
            self.activations,
            placement.dual_lowering,
            scalar_scales=placement.scalar_weight_scales,
        )
        self._floats: dict[tuple[str, tuple[int, ...]], FloatTensor] = {}
        self._own_floats: list[FloatTensor] = []
        self._lifted: set[str] = set()
        self._subsampled: dict[tuple[str, tuple[int, ...]], str] = {}

    @property
    def weights(self) -> tuple[WeightCodes, ...]:
        """Codes that products read, in the order of the products."""
        return tuple(self._products.weights)

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """What the products get back where codes are signed."""
        return tuple(self._products.corrections)

    @property
    def floats(self) -> tuple[FloatTensor, ...]:
        """Float tensors that the emitted nodes read."""
        return (*self._floats.values(), *self._own_floats)

    def linear(self, node: NodeProto, site: LinearSite, plan: SitePlan) -> None:
        """A MatMul, or a Gemm as products and Add."""
        if self._placement.seg_linear_function and self.seg_linear.takes(plan):
            result, bias = self.seg_linear.call(node, site, plan)
            self._own_floats.append(bias)
            if bias.source is not None:
                self._builder.rename(result, site.output)
                return
        else:
            segments = self.activations.segments(site, plan)
            result = self._products.total(node, site, plan, segments)
        if self._builder.nodes[-1].op_type == "MatMul" and self._placement.lift_linear_bias:
            self._lifted.add(site.name)
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            add = helper.make_node("Add", [result, node.input[2]], [node.output[0]])
            add.name = self._builder.names.fresh(f"{node_name(node)}/bias")
            add.metadata_props.extend(node.metadata_props)
            self.bias(add, site, product=result)
        else:
            self._builder.rename(result, node.output[0])

    def bias(self, add: NodeProto, site: LinearSite, *, product: str) -> None:
        """The addition of a linear's constant bias to `product`; a computed bias stays."""
        if site.name in self.seg_linear.sites and site.bias is not None:
            return
        changed = copied(add)
        changed.name = node_name(add)
        self._builder.nodes.append(changed)
        if site.bias is None:
            return
        lift = site.name in self._lifted and site.activation_rank is not None
        shape = (1, 1, site.out_features) if lift else (site.out_features,)
        del changed.input[:]
        changed.input.extend([product, self._float_bias(site.bias, shape)])
        if lift and site.activation_rank == 2:
            changed.output[0] = self._builder.names.fresh(f"{add.output[0]}_lifted")
            axes = self._builder.constant(np.zeros(1, dtype=np.int64), "first_axis")
            squeeze = helper.make_node("Squeeze", [changed.output[0], axes], [add.output[0]])
            squeeze.name = self._builder.names.fresh(f"{changed.name}/squeeze")
            self._builder.nodes.append(squeeze)

    def convolution(self, node: NodeProto, site: LinearSite, plan: SitePlan) -> None:
        """A Conv, its output requantised where the target wants it."""
        segments = [self._strided(s, node) for s in self.activations.segments(site, plan)]
        if self._placement.signed_codes:
            node, segments = self._padded(node, site, segments)
        first = self._products.operands(site, segments)[0]
        late = segments[0].factor is not None or first.back is not None
        if self._placement.requantize_conv_output:
            result = self._requantised(node, site, plan, first, late=late)
            result = self._products.scaled(result, segments[0].factor)
        else:
            late = late or self._placement.scalar_weight_scales
            own = [] if late else self._bias_inputs(node, site)
            result = self._products.total(node, site, plan, segments, own)
        for bias in self._bias_inputs(node, site) if late else ():
            column = self._column(bias, site)
            result = self._builder.node("Add", [result, column], f"{node.output[0]}_sum")
        self._builder.rename(result, node.output[0])

    def _padded(
        self, node: NodeProto, site: LinearSite, segments: list[Segment]
    ) -> tuple[NodeProto, list[Segment]]:
        """With explicit zeros where codes have an offset: a convolution pads with the code 0."""
        pads = ints_attribute(node, "pads") or ()
        coded = [planes(s.plan.activation, site=site.name) for s in segments]
        if not any(pads) or not any(
            self.activations.offset(plane) for own in coded for plane in own
        ):
            return node, segments
        half = len(pads) // 2
        bare = copied(node)
        for attribute in bare.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [0] * len(pads)
        return bare, [
            replace(s, tensor=self.activations.padded(s.tensor, pads[:half], pads[half:]))
            for s in segments
        ]

    def _requantised(
        self, node: NodeProto, site: LinearSite, plan: SitePlan, operand: Operand, *, late: bool
    ) -> str:
        """One product whose output is coded; `late`: the bias comes after that.

        The plan's output ranges are those of what is coded: of y, or of `(y - b) / r`.
        """
        own = [] if late else self._bias_inputs(node, site)
        source = None if late else site.bias
        steps = None
        computed = bool(own) and source is None
        if plan.output_channels is not None and self._placement.output_channels and not computed:
            steps = channel_steps(site, plan.output_channels, self._arrays)
        gain = None if steps is None else _reciprocal(steps.step)
        shift = None if steps is None else steps.step * steps.zero_point
        integer = IntegerBias(source=source, shift=shift, step=operand.step)
        decoded = self._products.weight(site, plan, operand.segment, integer, gain)
        if steps is not None:
            own = [self._in_steps(source, site, steps)]
        product = self._products.product(node, site, [operand.tensor, decoded, *own])
        return self._requantise(product, site, plan, steps)

    def _requantise(
        self, product: str, site: LinearSite, plan: SitePlan, steps: ChannelSteps | None
    ) -> str:
        builder = self._builder
        if steps is None:
            if plan.output_range is None:
                raise SegQuantError(
                    f"convolution '{site.name}' has no output_range, which this target needs",
                    hint="calibrate and plan again, or give the site keep_float",
                )
            result = builder.names.fresh(f"{product}_requantised")
            self.activations.pair(product, output_encoding(*plan.output_range), result)
            return result
        # Weight and bias are in units of the steps already, and zero points are in the bias. One
        # scale and a product are faster than a scale per channel, which ONNX Runtime applies
        # number by number where it has moved channels to the end.
        unit = builder.constant(np.array(1.0, dtype=np.float32), "unit_step")
        none = builder.constant(np.array(0, dtype=np.uint8), "no_offset")
        codes = builder.node("QuantizeLinear", [product, unit, none], f"{product}_codes")
        counts = builder.node("DequantizeLinear", [codes, unit, none], f"{product}_counts")
        step = steps.step.reshape(-1, *[1] * len(site.kernel))
        lowest = -step * steps.zero_point.reshape(step.shape)
        factor = builder.constant(step, f"{product}_steps")
        spans = builder.node("Mul", [counts, factor], f"{product}_spans")
        start = builder.constant(lowest.astype(np.float32), f"{product}_lowest")
        return builder.node("Add", [spans, start], f"{product}_requantised")

    def _strided(self, segment: Segment, node: NodeProto) -> Segment:
        """With the factors of the pixels that a 1x1 convolution of these strides keeps."""
        strides = ints_attribute(node, "strides") or (1,)
        if not isinstance(segment.plan.factor, PerToken) or max(strides) == 1:
            return segment
        assert segment.factor is not None
        key = (segment.factor, strides)
        if key not in self._subsampled:
            count = len(strides)
            most = np.iinfo(np.int64).max
            starts, ends, axes, steps = (
                self._builder.constant(np.array(values, dtype=np.int64), wanted)
                for values, wanted in (
                    ([0] * count, "first_pixels"),
                    ([most] * count, "last_pixels"),
                    (range(2, 2 + count), "pixel_axes"),
                    (strides, "strides"),
                )
            )
            self._subsampled[key] = self._builder.node(
                "Slice", [segment.factor, starts, ends, axes, steps], f"{segment.factor}_strided"
            )
        return replace(segment, factor=self._subsampled[key])

    def _bias_inputs(self, node: NodeProto, site: LinearSite) -> list[str]:
        """A convolution's bias: the float32 form of a constant one, or the computed one."""
        if site.bias is not None:
            return [self._float_bias(site.bias, (site.out_features,))]
        return [name for name in node.input[2:] if name]

    def _column(self, bias: str, site: LinearSite) -> str:
        ones = [1] * len(site.kernel)
        if site.bias is not None:
            return self._float_bias(site.bias, (site.out_features, *ones))
        shape = self._builder.constant(np.array([-1, *ones], dtype=np.int64), "one_per_channel")
        return self._builder.node("Reshape", [bias, shape], f"{bias}_column")

    def _in_steps(self, bias: str | None, site: LinearSite, steps: ChannelSteps) -> str:
        """`b / step + zero_point`."""
        name = self._builder.names.fresh(f"{site.weight}_bias_in_steps")
        made = FloatTensor(
            name=name,
            source=bias,
            shape=(site.out_features,),
            gain=_reciprocal(steps.step),
            shift=steps.zero_point.astype(np.float32),
        )
        self._own_floats.append(made)
        return name

    def _float_bias(self, source: str, shape: tuple[int, ...]) -> str:
        key = (source, shape)
        if key not in self._floats:
            name = self._builder.names.fresh(f"{source}_float32")
            self._floats[key] = FloatTensor(name=name, source=source, shape=shape)
        return self._floats[key].name


def _reciprocal(step: Float) -> Float:
    return (1.0 / step.astype(np.float64)).astype(np.float32)
