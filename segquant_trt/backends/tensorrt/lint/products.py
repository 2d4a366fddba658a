"""For every product with decoded operands: is it computed in 8 bits, and if not, why.

Each operand must be codes of one kind, decoded with one scale (a constant weight: one per output
channel), with nothing in between that codes cannot pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.decoded import Decoded, Hidden, Operand, look_back
from segquant_trt.backends.tensorrt.lint.element_types import type_name
from segquant_trt.backends.tensorrt.lint.finding import Precision
from segquant_trt.backends.tensorrt.lint.output_axis import output_axis
from segquant_trt.backends.tensorrt.lint.scale_axis import scale_axis
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.wiring import node_name

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_LINEARS = ("MatMul", "Gemm")
_PRECISIONS: dict[int, Precision] = {TensorProto.INT8: "int8", TensorProto.FLOAT8E4M3FN: "fp8"}
# Nothing but the axes' order and lengths of 1 can change under these.
_HARMLESS = frozenset({"Identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a product is not computed in 8 bits; `cause` is the name of the rule that says so."""

    cause: str
    reason: str
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A MatMul, Gemm, Conv or ConvTranspose that codes lead to."""

    node: NodeProto
    operands: tuple[Operand, Operand]
    precision: Precision | None
    obstacles: tuple[Obstacle, ...]

    @property
    def name(self) -> str:
        """Of the node."""
        return node_name(self.node)

    @property
    def eight_bit(self) -> bool:
        """Whether it is computed on the codes."""
        return self.precision is not None and not self.obstacles


def find_products(subject: Subject) -> tuple[Product, ...]:
    """Every product of the main graph that has decoded operands, in graph order."""
    return tuple(
        product
        for node in subject.nodes(*PRODUCTS)
        if len(node.input) > 1 and node.output[0] in subject.needed
        for product in (_product(node, subject),)
        if product is not None
    )


def _product(node: NodeProto, subject: Subject) -> Product | None:
    left, right = (look_back(name, subject, product=node) for name in node.input[:2])
    if not any(isinstance(operand, Decoded) for operand in (left, right)):
        return None
    kinds = _codes(node, (left, right), subject)
    obstacles = [
        *_operand_obstacles(node, 0, left, subject),
        *_operand_obstacles(node, 1, right, subject),
        *_pair_obstacles(node, kinds, left, right, subject),
        *_kernel_obstacles(node, subject),
    ]
    told = {_PRECISIONS[kind] for kind in kinds if kind in _PRECISIONS}
    return Product(
        node=node,
        operands=(left, right),
        precision=next(iter(told)) if len(told) == 1 else None,
        obstacles=tuple(obstacles),
    )


def _codes(node: NodeProto, operands: Sequence[Operand], subject: Subject) -> list[int | None]:
    """The type of each operand's codes as TensorRT computes them.

    An activation's unsigned codes are taken for int8, and those of four bits beside a weight
    with a scale per channel.
    """
    kinds = [
        subject.types.get(operand.decode.input[0]) if isinstance(operand, Decoded) else None
        for operand in operands
    ]
    constant = [isinstance(o, Decoded) and is_constant(o, subject) for o in operands]
    several = any(
        isinstance(o, Decoded) and fixed and not one_scale(o.decode.input[1], subject)
        for o, fixed in zip(operands, constant, strict=True)
    )
    linear = node.op_type in _LINEARS and several and kinds.count(TensorProto.INT4) < 2
    taken = {TensorProto.UINT8, TensorProto.INT4} if linear else {TensorProto.UINT8}
    return [
        TensorProto.INT8 if kind in taken and not fixed else kind
        for kind, fixed in zip(kinds, constant, strict=True)
    ]


def _kernel_obstacles(node: NodeProto, subject: Subject) -> Iterator[Obstacle]:
    if subject.target != "tensorrt-rtx":
        return
    if node.op_type == "ConvTranspose":
        yield Obstacle(
            cause="transposed-convolution",
            reason="TensorRT-RTX has no 8-bit transposed convolution",
        )
    if node.op_type == "Conv" and subject.capability < 80:
        yield Obstacle(
            cause="turing-convolution",
            reason=f"TensorRT-RTX has no 8-bit convolution for sm_{subject.capability}",
        )


def is_constant(operand: Decoded, subject: Subject) -> bool:
    """Whether the codes are constant: a weight."""
    return operand.decode.input[0] in subject.foldable


def is_weight_only(product: Product, subject: Subject) -> bool:
    """Whether a coded weight meets an operand that no codes lead to."""
    coded = [o for o in product.operands if isinstance(o, Decoded)]
    return None in product.operands and len(coded) == 1 and is_constant(coded[0], subject)


def _operand_obstacles(
    node: NodeProto, place: int, operand: Operand, subject: Subject
) -> Iterator[Obstacle]:
    name = node.input[place]
    if operand is None:
        constant = name in subject.foldable
        cause = "weight-not-quantized" if constant else "activation-not-quantized"
        what = "weight" if constant else "operand"
        yield Obstacle(cause=cause, reason=f"its {what} '{name}' is not quantised", tensors=(name,))
        return
    if isinstance(operand, Hidden):
        nodes = ", ".join(operand.nodes)
        yield Obstacle(cause=operand.cause, reason=f"{operand.reason} ({nodes})", tensors=(name,))
        return
    if int_attribute(operand.decode, "block_size", 0):
        yield Obstacle(
            cause="blocked-scale",
            reason=f"'{name}' is decoded with a scale per block",
            tensors=(operand.decode.input[1],),
        )
        return
    scale = operand.decode.input[1]
    if scale not in subject.foldable:
        # TensorRT-RTX 1.7.1 dies of it where it would otherwise take the codes.
        convolution = node.op_type == "Conv" and not any(_kernel_obstacles(node, subject))
        convolution = convolution and subject.target == "tensorrt-rtx"
        yield Obstacle(
            cause="dynamic-scale-convolution" if convolution else "dynamic-scale",
            reason=f"the scale '{scale}' of '{name}' is computed while the engine runs",
            tensors=(scale,),
        )
    elif is_constant(operand, subject):
        yield from _weight_obstacles(node, place, operand, subject)
    else:
        yield from _activation_obstacles(node, operand, subject)


def _activation_obstacles(
    node: NodeProto, operand: Decoded, subject: Subject
) -> Iterator[Obstacle]:
    scale = operand.decode.input[1]
    if node.op_type == "Conv" and subject.rank(scale) and one_scale(scale, subject):
        yield Obstacle(
            cause="vector-scale",
            reason=f"the activation's scale '{scale}' is a vector of one number",
            tensors=(scale,),
        )
        return
    if not one_scale(scale, subject):
        yield Obstacle(
            cause="activation-scale",
            reason=f"the activation's scale '{scale}' has several values; a product on codes "
            "takes one per tensor",
            tensors=(scale,),
        )
        return
    encode = subject.wiring.producer.get(operand.decode.input[0])
    if subject.target == "tensorrt" and encode is not None:
        made = subject.operand(encode, 1)
        if encode.op_type == "QuantizeLinear" and made not in subject.foldable:
            yield Obstacle(
                cause="dynamic-scale",
                reason=f"the scale '{made}' is computed while the engine runs",
                tensors=(made,),
            )
        elif encode.op_type == "QuantizeLinear" and not one_scale(made, subject):
            yield Obstacle(
                cause="activation-scale",
                reason=f"the activation is quantised with a scale per channel, '{made}'",
                tensors=(made,),
            )


def _weight_obstacles(
    node: NodeProto, place: int, operand: Decoded, subject: Subject
) -> Iterator[Obstacle]:
    decode = operand.decode
    between = [step for step in operand.path if step.op_type not in _HARMLESS]
    if between and subject.target == "tensorrt":
        names = ", ".join(f"{step.op_type} '{node_name(step)}'" for step in between)
        yield Obstacle(
            cause="weight-path",
            reason=f"{names} between the weight's DequantizeLinear and the product",
            tensors=(decode.input[0],),
        )
    if one_scale(decode.input[1], subject):
        yield from _vector_of_one(node, decode, subject)
        return
    found = scale_axis(operand, subject)
    wanted = output_axis(node, place, subject)
    if found is None or found != wanted:
        where = "an axis that a reshape regroups" if found is None else f"axis {found}"
        yield Obstacle(
            cause="weight-axis",
            reason=f"the weight's scales lie along {where} of the operand, not along its output "
            f"channels (axis {wanted})",
            tensors=(decode.input[1],),
        )


def _vector_of_one(node: NodeProto, decode: NodeProto, subject: Subject) -> Iterator[Obstacle]:
    """A convolution's scale of shape [1], which is neither a number nor one per channel."""
    scale, dims = decode.input[1], subject.shapes.of(decode.input[0])
    several = bool(dims) and dims is not None and dims[0] != 1
    rtx = subject.target == "tensorrt-rtx"
    if rtx and several and node.op_type == "Conv" and subject.rank(scale) == 1:
        yield Obstacle(
            cause="weight-vector-scale",
            reason=f"the weight's scale '{scale}' is a vector of one number",
            tensors=(scale,),
        )


def one_scale(scale: str, subject: Subject) -> bool:
    """Whether the tensor holds a single number."""
    dims = subject.shapes.of(scale)
    return dims is not None and all(length == 1 for length in dims)


def _pair_obstacles(
    node: NodeProto, kinds: list[int | None], left: Operand, right: Operand, subject: Subject
) -> Iterator[Obstacle]:
    if not (isinstance(left, Decoded) and isinstance(right, Decoded)):
        return
    if kinds == [TensorProto.INT4, TensorProto.INT4]:
        yield Obstacle(cause="codes-differ", reason="its operands both have codes of four bits")
    widened = node.op_type in _LINEARS and _widened(kinds, left, right, subject)
    if kinds[0] != kinds[1] and not widened:
        words = " and ".join(type_name(kind) if kind else "unknown" for kind in kinds)
        yield Obstacle(cause="codes-differ", reason=f"its operands have codes of {words}")
    if node.op_type not in _LINEARS or not (
        is_constant(left, subject) or is_constant(right, subject)
    ):
        return
    scales = [subject.types.get(operand.decode.input[1]) for operand in (left, right)]
    if scales[0] != scales[1] and None not in scales:
        words = " and ".join(type_name(kind) for kind in scales if kind)
        yield Obstacle(
            cause="scale-types",
            reason=f"its operands are decoded with scales of {words}",
            tensors=(left.decode.input[1], right.decode.input[1]),
        )


def _widened(kinds: list[int | None], left: Operand, right: Operand, subject: Subject) -> bool:
    """A constant weight of four bits with a scale per channel is widened to int8 in the engine."""
    assert isinstance(left, Decoded)
    assert isinstance(right, Decoded)
    if set(kinds) != {TensorProto.INT8, TensorProto.INT4} or subject.target != "tensorrt-rtx":
        return False
    four = left if kinds[0] == TensorProto.INT4 else right
    blocked = bool(int_attribute(four.decode, "block_size", 0))
    return not blocked and not one_scale(four.decode.input[1], subject)
