"""Linears as calls of the ONNX function `segquant::SegLinear`, whose body is the native lowering.

`plugins/ops.yaml` is its contract: a runtime with a kernel of that name takes the call, every
other one inlines the body. All codes of the body are int8 with zero point 0, whatever the scheme:
a plane with zero shift z codes `x - s z`, and `s z colsum(W)` comes back with `correction`.

The body depends on the segments' schemes, which name the function's overload.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.backends.emission.activations import Activations
from segquant_trt.backends.emission.builder import Builder
from segquant_trt.backends.emission.products import weight_codes
from segquant_trt.backends.emission.stored import FloatTensor, SegLinearData
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import KeepFloat, LinearSite, SitePlan, Static
from segquant_trt.schemes import Encoding, planes

DOMAIN = "segquant"
NAME = "SegLinear"
VERSION = 1
INPUTS = ("x", "codes", "scale", "plane_scales", "correction", "bias")
ATTRIBUTES = (
    "segment_sizes", "plane_segments", "polarities", "zero_shifts", "plugin_namespace",
    "plugin_version",
)  # fmt: skip
_POLARITY = {"both": 0, "positive": 1, "negative": -1}
_MIDDLE = 128  # uint8 code of the int8 code 0


class SegLinear:
    """Emits calls, and the functions that they call.

    Args:
        builder: where the calls go.
        activations: emits smoothed inputs.
    """

    def __init__(self, builder: Builder, activations: Activations) -> None:
        self.data: list[SegLinearData] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.sites: set[str] = set()
        self._builder = builder
        self._activations = activations

    def takes(self, plan: SitePlan) -> bool:
        """Whether a linear is split or coded in two planes, in integers and without factors."""
        segments = plan.treatment.segments
        weight = plan.treatment.weight
        if weight is None or weight.block is not None or weight.bits != 8:
            return False
        plain = all(isinstance(part.factor, Static) for part in segments)
        coded = not any(isinstance(part.activation, KeepFloat) for part in segments)
        two = any(part.activation.kind in ("dual_scale", "dual_full") for part in segments)
        return plain and coded and (two or len(segments) > 1)

    def call(self, node: NodeProto, site: LinearSite, plan: SitePlan) -> tuple[str, FloatTensor]:
        """Append the call; its result, and its bias float32[N] (zeros without a constant one)."""
        segments = plan.treatment.segments
        by_segment = [planes(part.activation, site=site.name) for part in segments]
        kinds = [part.activation.kind for part in segments]
        overload = "_and_".join(kinds)
        if overload not in self.functions:
            self.functions[overload] = _function(overload, by_segment)
        data = self._data(site, plan, by_segment)
        self.data.append(data)
        self.sites.add(site.name)
        scales = np.array([p.scale for own in by_segment for p in own], dtype=np.float32)
        names = self._builder.names
        bias = FloatTensor(
            name=names.fresh(f"{site.weight}_bias"), source=site.bias, shape=(site.out_features,)
        )
        inputs = [
            self._activations.whole(site, plan),
            data.codes,
            data.scale,
            self._builder.constant(scales, f"{site.weight}_plane_scales"),
            data.correction,
            bias.name,
        ]
        made = helper.make_node(
            NAME,
            inputs,
            [names.fresh(f"{node.output[0]}_product")],
            name=node_name(node),
            domain=DOMAIN,
            overload=overload,
            segment_sizes=[part.channels for part in segments],
            plane_segments=[index for index, own in enumerate(by_segment) for _ in own],
            polarities=[_POLARITY[p.polarity] for own in by_segment for p in own],
            zero_shifts=[_MIDDLE - p.zero_point for own in by_segment for p in own],
            plugin_namespace=DOMAIN,
            plugin_version=str(VERSION),
        )
        made.metadata_props.extend(node.metadata_props)
        self._builder.nodes.append(made)
        return made.output[0], bias

    def _data(
        self, site: LinearSite, plan: SitePlan, by_segment: Sequence[Sequence[Encoding]]
    ) -> SegLinearData:
        names = self._builder.names
        codes = names.fresh(f"{site.weight}_int8")
        steps = [
            (index, float(np.float32(plane.scale) * np.float32(_MIDDLE - plane.zero_point)))
            for index, own in enumerate(by_segment)
            for plane in own
        ]
        return SegLinearData(
            parts=tuple(
                weight_codes(self._builder, site, plan, index) for index in range(len(by_segment))
            ),
            steps=tuple(steps),
            codes=codes,
            scale=names.fresh(f"{codes}_scale"),
            correction=names.fresh(f"{codes}_correction"),
        )


def _function(overload: str, by_segment: Sequence[Sequence[Encoding]]) -> onnx.FunctionProto:
    """The body for segments that are coded in these planes."""
    body = _Body()
    body.node("Constant", [], "sizes", value_ints="segment_sizes")
    body.node("Constant", [], "shifts", value_ints="zero_shifts")
    body.node("Cast", ["shifts"], "float_shifts", to=TensorProto.FLOAT)
    body.node("Mul", ["float_shifts", "plane_scales"], "offsets")
    body.value("no_offset", np.array(0, dtype=np.int8))
    body.value("zero", np.array(0.0, dtype=np.float32))
    body.value("first", np.array(0, dtype=np.int64))
    body.value("rows", np.zeros(1, dtype=np.int64))
    body.node("CumSum", ["sizes", "first"], "ends")
    body.node("Sub", ["ends", "sizes"], "starts")
    count = len(by_segment)
    inputs, weights = ([f"{name}_{i}" for i in range(count)] for name in ("x", "codes"))
    body.split("x", "sizes", inputs, axis=-1)
    body.split("codes", "sizes", weights, axis=0)
    bounds = pairwise(accumulate((len(own) for own in by_segment), initial=0))
    products: list[str] = []
    for index, (first, last) in enumerate(bounds):
        row = body.element("scale", index)
        for number, plane in zip(range(first, last), by_segment[index], strict=True):
            # Once folded, equal codes must be two constants: ONNX Runtime moves each to uint8.
            own = weights[index] if number == first else body.slice("codes", index)
            weight = body.node("DequantizeLinear", [own, row], f"weight_{number}", axis=1)
            coded = body.plane(inputs[index], plane, number)
            products.append(body.node("MatMul", [coded, weight], f"product_{number}"))
    body.node("Sum", [*products, "correction", "bias"], "y")
    return helper.make_function(
        DOMAIN, NAME, INPUTS, ["y"], body.nodes, [helper.make_opsetid("", 21)],
        attributes=ATTRIBUTES, overload=overload,
    )  # fmt: skip


class _Body:
    """Nodes of a function; attributes given as text refer to the function's."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def node(
        self, operator: str, inputs: Sequence[str], output: str, **attributes: int | str
    ) -> str:
        made = helper.make_node(operator, list(inputs), [output])
        for name, value in attributes.items():
            if isinstance(value, int):
                made.attribute.append(helper.make_attribute(name, value))
            else:
                kind = onnx.AttributeProto.INTS
                made.attribute.add(name=name, ref_attr_name=value, type=kind)
        self.nodes.append(made)
        return output

    def value(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
        constant = numpy_helper.from_array(array, name)
        self.nodes.append(helper.make_node("Constant", [], [name], value=constant))

    def split(self, source: str, sizes: str, outputs: Sequence[str], *, axis: int) -> None:
        self.nodes.append(helper.make_node("Split", [source, sizes], list(outputs), axis=axis))

    def slice(self, source: str, index: int) -> str:
        """The rows of one segment."""
        position = f"segment_{index}"
        self.value(position, np.array([index], dtype=np.int64))
        ends = [
            self.node("Gather", [bound, position], f"{bound}_{index}", axis=0)
            for bound in ("starts", "ends")
        ]
        return self.node("Slice", [source, *ends, "rows"], f"{source}_again_{index}")

    def element(self, source: str, index: int) -> str:
        """One row of a matrix, or one number of a vector."""
        position = f"{source}_index_{index}"
        self.value(position, np.array(index, dtype=np.int64))
        return self.node("Gather", [source, position], f"{source}_{index}", axis=0)

    def plane(self, source: str, plane: Encoding, number: int) -> str:
        """`source` after the int8 codes of one plane, without its zero shift."""
        own = source
        if plane.polarity == "positive" and not plane.clips_polarity:
            own = self.node("Relu", [source], f"positive_{number}")
        elif plane.polarity == "negative" and not plane.clips_polarity:
            own = self.node("Min", [source, "zero"], f"negative_{number}")
        if plane.zero_point != _MIDDLE:
            offset = self.element("offsets", number)
            own = self.node("Sub", [own, offset], f"shifted_{number}")
        step = self.element("plane_scales", number)
        codes = self.node("QuantizeLinear", [own, step, "no_offset"], f"plane_codes_{number}")
        return self.node("DequantizeLinear", [codes, step, "no_offset"], f"plane_{number}")
