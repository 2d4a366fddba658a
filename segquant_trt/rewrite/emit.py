"""Emit the quantised form of one site at a time: nodes now, data to be written later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.backends.placement import Placement
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.qdq import dequantize_weight, quantize_pair, scalar_tensors
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import LinearSite, SitePlan, WeightPlan
from segquant_trt.schemes import Encoding, output_encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCodes:
    """int8 codes of one site, to be computed from the float initializer `source`.

    `transpose`: the codes are stored [K, N] although `source` is [N, K]. `channel_axis` is the
    output channels' axis of the *codes*. `bias` and `step`: the runtime turns that bias into int32
    in units of `step` times the weight's scale, which must therefore not be too small for it.

    Sites never share the names: ONNX Runtime's move of weights to uint8 (see its backend) fails
    on an initializer with two readers.
    """

    site: str
    codes: str
    scale: str
    zero_point: str
    source: str
    transpose: bool
    channel_axis: int
    plan: WeightPlan
    bias: str | None
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatBias:
    """The float32 form of the initializer `source`, reshaped."""

    name: str
    source: str
    shape: tuple[int, ...]


class Emitter:
    """Collects nodes in order, inline constants, and the weights and biases to be written."""

    def __init__(self, names: FreshNames, placement: Placement) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.weights: list[WeightCodes] = []
        self.biases: dict[tuple[str, tuple[int, ...]], FloatBias] = {}
        self._names = names
        self._placement = placement
        self._activations: dict[tuple[str, Encoding], str] = {}

    def linear(self, node: NodeProto, site: LinearSite, plan: WeightPlan, codes: Encoding) -> None:
        """A MatMul, or a Gemm as MatMul and Add."""
        operands = [self._activation(node.input[0], codes), self._weight(site, plan, codes)]
        changed = copied(node)
        changed.op_type = "MatMul"
        changed.name = node_name(node)
        del changed.attribute[:], changed.input[:]
        changed.input.extend(operands)
        self.nodes.append(changed)
        if len(node.input) > 2 and node.input[2]:
            changed.output[0] = self._names.fresh(f"{node.output[0]}_product")
            add = helper.make_node("Add", [changed.output[0], node.input[2]], [node.output[0]])
            add.name = self._names.fresh(f"{changed.name}/bias")
            add.metadata_props.extend(node.metadata_props)
            self.bias(add, site, product=changed.output[0])

    def bias(self, add: NodeProto, site: LinearSite, *, product: str) -> None:
        """The addition of a linear's constant bias to `product`; a computed bias stays."""
        changed = copied(add)
        changed.name = node_name(add)
        self.nodes.append(changed)
        if site.bias is None:
            return
        lift = self._placement.lift_linear_bias and site.activation_rank is not None
        shape = (1, 1, site.out_features) if lift else (site.out_features,)
        del changed.input[:]
        changed.input.extend([product, self._float_bias(site.bias, shape)])
        if lift and site.activation_rank == 2:
            changed.output[0] = self._names.fresh(f"{add.output[0]}_lifted")
            axes = self._constant(np.zeros(1, dtype=np.int64), f"{add.output[0]}_axes")
            squeeze = helper.make_node("Squeeze", [changed.output[0], axes], [add.output[0]])
            squeeze.name = self._names.fresh(f"{changed.name}/squeeze")
            self.nodes.append(squeeze)

    def convolution(
        self, node: NodeProto, site: LinearSite, plan: SitePlan, codes: Encoding
    ) -> None:
        """A Conv, its output requantised where the target wants it."""
        weight = plan.treatment.weight
        assert weight is not None
        operands = [self._activation(node.input[0], codes), self._weight(site, weight, codes)]
        if site.bias is not None:
            operands.append(self._float_bias(site.bias, (site.out_features,)))
        else:
            operands.extend(node.input[2:])
        changed = copied(node)
        changed.name = node_name(node)
        del changed.input[:]
        changed.input.extend(operands)
        self.nodes.append(changed)
        if self._placement.requantize_conv_output:
            assert plan.output_range is not None
            result = changed.output[0]
            changed.output[0] = self._names.fresh(f"{result}_float")
            self._pair(changed.output[0], output_encoding(*plan.output_range), result)

    def _activation(self, tensor: str, codes: Encoding) -> str:
        key = (tensor, codes)
        if key not in self._activations:
            self._activations[key] = self._names.fresh(f"{tensor}_decoded")
            self._pair(tensor, codes, self._activations[key])
        return self._activations[key]

    def _pair(self, source: str, codes: Encoding, result: str) -> None:
        stored = self._names.fresh(f"{source}_codes")
        names = (self._names.fresh(f"{stored}_scale"), self._names.fresh(f"{stored}_zero"))
        self.constants.extend(scalar_tensors(codes.scale, codes.zero_point, names=names))
        self.nodes.extend(
            quantize_pair(source, stored, result, scale=names[0], zero_point=names[1])
        )

    def _weight(self, site: LinearSite, plan: WeightPlan, activation: Encoding) -> str:
        integer_bias = site.op == "Conv" and self._placement.requantize_conv_output
        codes = self._names.fresh(f"{site.weight}_int8")
        made = WeightCodes(
            site=site.name,
            codes=codes,
            scale=self._names.fresh(f"{codes}_scale"),
            zero_point=self._names.fresh(f"{codes}_zero"),
            source=site.weight,
            transpose=site.weight_layout == "NK",
            channel_axis=0 if site.weight_layout == "NCHW" else 1,
            plan=plan,
            bias=site.bias if integer_bias else None,
            step=activation.scale,
        )
        self.weights.append(made)
        result = self._names.fresh(f"{codes}_decoded")
        stored = (made.codes, made.scale, made.zero_point)
        self.nodes.append(dequantize_weight(stored, result, axis=made.channel_axis))
        return result

    def _float_bias(self, source: str, shape: tuple[int, ...]) -> str:
        key = (source, shape)
        if key not in self.biases:
            name = self._names.fresh(f"{source}_float32")
            self.biases[key] = FloatBias(name=name, source=source, shape=shape)
        return self.biases[key].name

    def _constant(self, array: npt.NDArray[np.generic], wanted: str) -> str:
        name = self._names.fresh(wanted)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def copied(node: NodeProto) -> NodeProto:
    """A copy that may be edited."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
