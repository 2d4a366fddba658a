"""Where Q/DQ pairs are worth having: before products, once per scale, not around skips."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.decoded import MOVES
from segquant_trt.backends.tensorrt.lint.finding import DATA_CENTRE
from segquant_trt.backends.tensorrt.lint.products import PRODUCTS
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.module_scope import module_scope
from segquant_trt.graph.wiring import node_name

# By name, what NVIDIA's recipes for diffusion models leave in 16 bits.
_EXCLUDED = re.compile(
    r"(?:^|[./])(time_emb_proj|time_embedding|conv_in|conv_out|conv_shortcut|add_embedding|"
    r"pos_embed|time_text_embed|context_embedder|norm_out|x_embedder|proj_out$)"
)
_BLOCK = re.compile(r"blocks?[._]\d+")
_TRANSPARENT = MOVES | {"Concat", "Pad"}


def repeated(subject: Subject) -> Iterator[Problem]:
    """Several QuantizeLinear of one tensor with one scale."""
    for name, readers in subject.wiring.consumers.items():
        first: dict[bytes, NodeProto] = {}
        for node in readers:
            if node.op_type != "QuantizeLinear" or node.input[0] != name:
                continue
            values = subject.values(subject.operand(node, 1))
            if values is None:
                continue
            key = np.asarray(values, dtype=np.float32).tobytes()
            kept = first.setdefault(key, node)
            if kept is not node:
                yield Problem(
                    node_name(node),
                    f"'{node_name(kept)}' quantises '{name}' with the same scale",
                    (name,),
                )


def _feeds(decode: NodeProto, subject: Subject) -> list[NodeProto]:
    """The operators that compute with what `decode` decodes."""
    found, waiting, seen = [], [decode.output[0]], set()
    while waiting:
        name = waiting.pop()
        for node in subject.wiring.consumers.get(name, []):
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.op_type in _TRANSPARENT:
                waiting.extend(node.output)
            else:
                found.append(node)
    return found


def _activations(subject: Subject) -> Iterator[tuple[NodeProto, list[NodeProto]]]:
    for node in subject.nodes("DequantizeLinear"):
        if node.input[0] not in subject.foldable:
            yield node, _feeds(node, subject)


def residuals(subject: Subject) -> Iterator[Problem]:
    """Skip branches that are quantised for an Add whose other side is no 8-bit product."""
    eight = {product.node.output[0] for product in subject.products if product.eight_bit}
    for decode, readers in _activations(subject):
        adds = [node for node in readers if node.op_type == "Add"]
        if len(adds) != len(readers) or not adds:
            continue
        add = adds[0]
        others = [name for name in add.input if name not in decode.output]
        if not any(_comes_from(name, eight, subject) for name in others):
            yield Problem(
                node_name(decode),
                f"it feeds only '{node_name(add)}', whose other side is no 8-bit product",
                tuple(decode.output),
            )


def _comes_from(name: str, products: set[str], subject: Subject) -> bool:
    """Whether `name` is a product, or one with its bias added and its scale applied."""
    for _ in range(4):
        if name in products:
            return True
        node = subject.wiring.producer.get(name)
        if node is None or node.op_type not in ("Add", "Mul", "Reshape"):
            return False
        varying = [operand for operand in node.input if operand in subject.varying]
        if len(varying) != 1:
            return False
        name = varying[0]
    return False


def idle(subject: Subject) -> Iterator[Problem]:
    """Pairs whose codes no product takes."""
    for decode, readers in _activations(subject):
        takes = ("Add", "Attention", "QuantizeLinear", *PRODUCTS)
        if readers and not any(node.op_type in takes for node in readers):
            words = ", ".join(dict.fromkeys(node.op_type for node in readers))
            yield Problem(
                node_name(decode), f"it feeds {words} and no product", tuple(decode.output)
            )


def excluded(subject: Subject) -> Iterator[Problem]:
    """Layers that NVIDIA's recipes leave in 16 bits, quantised."""
    for product in subject.products:
        if not product.eight_bit:
            continue
        scope = module_scope(product.node) or product.name.replace("/", ".").strip(".")
        found = _EXCLUDED.search(scope.removesuffix(".MatMul").removesuffix(".Gemm"))
        inner = found is not None and found[1] == "proj_out" and _BLOCK.search(scope)
        if found is not None and not inner:
            yield Problem(product.name, f"'{scope}' is quantised; {found[1]} is on the list")


def odd_contraction(subject: Subject) -> Iterator[Problem]:
    """Products over an odd number of channels."""
    for product in subject.products:
        if not product.eight_bit or product.node.op_type not in ("MatMul", "Gemm"):
            continue
        dims = subject.shapes.of(product.node.input[0])
        last = dims[-1] if dims else None
        if isinstance(last, int) and last % 2:
            yield Problem(
                product.name, f"its contraction is {last} long: one more kernel pads the codes"
            )


def float32_products(subject: Subject) -> Iterator[Problem]:
    """Large products that are computed in FP32."""
    eight = {id(product.node) for product in subject.products if product.eight_bit}
    for node in subject.nodes(*PRODUCTS):
        kind = subject.types.get(node.output[0])
        if id(node) not in eight and kind == TensorProto.FLOAT:
            yield Problem(node_name(node), f"{node.op_type} in FP32")


def float32_file(subject: Subject) -> Iterator[Problem]:
    """A file whose products are all FP32."""
    kinds = {subject.types.get(node.output[0]) for node in subject.nodes(*PRODUCTS)}
    if kinds == {TensorProto.FLOAT} and not subject.products:
        yield Problem("", "every product of the file is FP32, and so will be the engine's")


def unnamed(subject: Subject) -> Iterator[Problem]:
    """Products that the engine's report of its layers cannot name."""
    for product in subject.products:
        if not product.node.name:
            yield Problem(product.name, "the node has no name", tuple(product.node.output))


RULES: tuple[Rule, ...] = (
    Rule(
        name="repeated-quantize",
        severity="advice",
        check=repeated,
        fix="let both consumers read one QuantizeLinear",
    ),
    Rule(
        name="quantized-residual",
        severity="advice",
        check=residuals,
        fix="quantise a skip branch only where the other side of the Add is an 8-bit product",
    ),
    Rule(
        name="idle-pair",
        severity="advice",
        check=idle,
        fix="quantise inputs of products, not their outputs",
    ),
    Rule(
        name="excluded-layer",
        severity="advice",
        check=excluded,
        fix="leave it in 16 bits if quality suffers: NVIDIA's recipes do, it costs little time",
    ),
    Rule(
        name="odd-contraction",
        severity="slow",
        check=odd_contraction,
        fix="pad the weight and its input to an even number of channels",
    ),
    Rule(
        name="fp32-product",
        severity="slow",
        check=float32_products,
        fix="export in FP16 or BF16: the file's types are the engine's",
    ),
    Rule(
        name="fp32-file",
        severity="slow",
        check=float32_file,
        fix="export in FP16 or BF16 and quantise with Q/DQ: the builder's flags for FP16, INT8 and "
        "FP8 are gone in TensorRT 11",
        targets=DATA_CENTRE,
        since=11,
    ),
    Rule(
        name="unnamed-product",
        severity="advice",
        check=unnamed,
        fix="name the node: else nothing can be proved of it from the engine's layers",
    ),
)
