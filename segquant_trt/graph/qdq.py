"""QuantizeLinear and DequantizeLinear nodes: making them, and reading them back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.graph.wiring import Wiring, node_name

PRODUCTS = ("MatMul", "Gemm", "Conv")
_SITE = "segquant_trt.site"


def quantize_pair(
    source: str, codes: str, result: str, *, scale: str, zero_point: str
) -> tuple[NodeProto, NodeProto]:
    """`source -> Q -> codes -> DQ -> result` with scalar scale and zero point tensors."""
    first = helper.make_node(
        "QuantizeLinear", [source, scale, zero_point], [codes], name=f"{codes}/Q"
    )
    second = helper.make_node(
        "DequantizeLinear", [codes, scale, zero_point], [result], name=f"{codes}/DQ"
    )
    return first, second


def dequantize_weight(
    stored: tuple[str, ...], result: str, *, axis: int, block: int | None = None
) -> NodeProto:
    """Weight codes and their scales, one per index of `axis` or per `block` indices of it.

    With one scale per index the zero points are explicit although all are zero: ONNX Runtime 1.31
    fills in a scalar where they are missing, and then refuses it for a convolution that it does
    not fuse.
    """
    node = helper.make_node(
        "DequantizeLinear", list(stored), [result], name=f"{result}/DQ", axis=axis
    )
    if block is not None:
        node.attribute.append(helper.make_attribute("block_size", block))
    return node


def scalar_tensors(
    scale: float, zero_point: int, *, names: tuple[str, str], signed: bool = False
) -> tuple[TensorProto, TensorProto]:
    """The inline float32 scale and uint8 (or `signed`: int8) zero point of a pair, `names`."""
    return (
        numpy_helper.from_array(np.array(scale, dtype=np.float32), names[0]),
        numpy_helper.from_array(np.array(zero_point, np.int8 if signed else np.uint8), names[1]),
    )


def is_coded(tensor: str, wiring: Wiring) -> bool:
    """Whether `tensor` is decoded from codes, made with the same scales or with others.

    A divisor per channel in the codes makes them with a scale per channel, decoded with one.
    """
    decode = wiring.producer.get(tensor)
    if decode is None or decode.op_type != "DequantizeLinear":
        return False
    encode = wiring.producer.get(decode.input[0])
    return encode is not None and encode.op_type == "QuantizeLinear"


def codes_behind(tensor: str, wiring: Wiring) -> tuple[float, int] | None:
    """Scale and zero point of the matching Q/DQ pair that `tensor` comes from, or None."""
    if not is_coded(tensor, wiring):
        return None
    decode = wiring.producer[tensor]
    encode = wiring.producer[decode.input[0]]
    if list(encode.input[1:]) != list(decode.input[1:]) or len(decode.input) != 3:
        return None
    scale = numpy_helper.to_array(wiring.initializers[decode.input[1]])
    zero = numpy_helper.to_array(wiring.initializers[decode.input[2]])
    return float(scale), int(zero)


def weight_codes_behind(tensor: str, wiring: Wiring) -> str | None:
    """Name of the constant codes that `tensor` is dequantised from, or None."""
    decode = wiring.producer.get(tensor)
    if decode is None or decode.op_type != "DequantizeLinear":
        return None
    return None if decode.input[0] in wiring.producer else decode.input[0]


def mark_product(node: NodeProto, site: str) -> None:
    """Note that `node` is one of the products that `site` is computed by."""
    entry = node.metadata_props.add()
    entry.key, entry.value = _SITE, site


def site_of(node: NodeProto) -> str:
    """The site that a product belongs to: the one noted, else its own name."""
    noted = (entry.value for entry in node.metadata_props if entry.key == _SITE)
    return next(noted, node_name(node))


def coded_products(wiring: Wiring) -> Iterator[tuple[NodeProto, str]]:
    """Every product with a coded weight, and the name of its codes."""
    for node in wiring.nodes:
        if node.op_type in PRODUCTS:
            codes = weight_codes_behind(node.input[1], wiring)
            if codes is not None:
                yield node, codes
