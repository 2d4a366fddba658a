"""Multiply-accumulates of one call by what does them, counted in the graph at given sizes.

| node | counted as |
|-|-|
| MatMul, Gemm, Conv with a weight, input and weight decoded from codes | coded |
| the same in float, or with coded weights alone | other |
| product of two computed tensors that makes Softmax's input or reads its output | attention |
| ONNX's `Attention` | attention, both products |
| any other product of two computed tensors | other |

A site with a product per polarity of its input does more than the model asks for: what comes on
top is `repeated`. It is told by `repeats_of`, from a plan, else by codes that products share.
Everything that is no product is left out: it takes time, but no multiply-accumulates to speak of.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.constant_weight import constant_expressions
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.qdq import site_of
from segquant_trt.graph.shapes import Shapes, infer_shapes
from segquant_trt.graph.wiring import Wiring

IsCoded = Callable[[str], bool]
_WEIGHTED = frozenset(("MatMul", "Gemm", "Conv"))
_MOVES = frozenset(("Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity"))
_SCORES_PATH = _MOVES | {"Mul", "Div", "Add", "Where", "QuantizeLinear", "DequantizeLinear"}
_DECODERS = frozenset(("DequantizeLinear",))
_FARTHEST = 12
_POLARITIES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Multiply-accumulates of one call of the model; `repeated` ones come on top, in codes."""

    coded: int
    attention: int
    other: int
    repeated: int = 0

    @property
    def total(self) -> int:
        """All that the model asks for."""
        return self.coded + self.attention + self.other


def work_of(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    folder: Path | None = None,
    coded: IsCoded | None = None,
    repeats: Mapping[str, float] | None = None,
) -> Work:
    """Count a graph's products.

    Args:
        model: a float or a rewritten graph; its data may be elsewhere.
        shapes: of the graph's inputs in the call.
        folder: where its external data is, for the small constants that shapes depend on.
        coded: which sites of a float graph are to be coded, by name; None reads Q/DQ pairs.
        repeats: how many times each site's work is done; None counts shared codes.

    Raises:
        SegQuantError: the shape of a product cannot be told.
    """
    return _counter(model, shapes, folder, coded).count(repeats)


def repeats_of(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    planned: Mapping[str, int],
    *,
    folder: Path | None = None,
) -> dict[str, float]:
    """How many times the work that a plan counts is done in the graph made from it, by site.

    Between once and twice (a product per polarity, of some segments or all); a plan whose numbers
    say anything else was made for another size, and its site counts once.

    Args:
        shapes: of the graph's inputs, for one sample of the size that was planned for.
        planned: multiply-accumulates of each site for that sample.

    Raises:
        SegQuantError: the shape of a product cannot be told.
    """
    executed = _counter(model, shapes, folder, None).executed()
    found = {site: executed[site] / macs for site, macs in planned.items() if executed.get(site)}
    return {site: times if 1.0 <= times <= _POLARITIES else 1.0 for site, times in found.items()}


def _counter(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path | None,
    coded: IsCoded | None,
) -> _Counter:
    sized = at_sizes(model, shapes)
    wiring = Wiring(sized.graph)
    return _Counter(wiring, infer_shapes(sized, wiring, Constants(wiring, folder)), coded)


def has_codes(model: onnx.ModelProto) -> bool:
    """Whether a graph decodes anything."""
    return any(node.op_type in _DECODERS for node in model.graph.node)


def at_sizes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy whose inputs have these shapes, and other inputs the lengths of the same axes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    named: dict[str, int] = {}
    for value in copy.graph.input:
        given = shapes.get(value.name, ())
        for dim, length in zip(value.type.tensor_type.shape.dim, given, strict=False):
            if dim.dim_param:
                named[dim.dim_param] = length
            dim.dim_value = length
    for value in copy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    return copy


class _Counter:
    def __init__(self, wiring: Wiring, shapes: Shapes, coded: IsCoded | None) -> None:
        self._wiring = wiring
        self._shapes = shapes
        self._coded = coded
        self._constant = constant_expressions(wiring)

    def count(self, repeats: Mapping[str, float] | None) -> Work:
        found = {"coded": 0.0, "attention": 0.0, "other": 0.0, "repeated": 0.0}
        seen: set[tuple[str, str]] = set()
        for node in self._wiring.nodes:
            if node.op_type == "Attention":
                found["attention"] += self._attention_macs(node)
            elif node.op_type in _WEIGHTED:
                kind, codes = self._kind(node)
                macs = self._macs(node)
                if codes is None:
                    found[kind] += macs
                    continue
                site = site_of(node)
                again = (site, codes) in seen
                seen.add((site, codes))
                own = macs / repeats.get(site, 1.0) if repeats is not None else macs * (not again)
                found[kind] += own
                found["repeated"] += (macs - own) if kind == "coded" else 0.0
        return Work(**{kind: round(macs) for kind, macs in found.items()})

    def executed(self) -> dict[str, int]:
        """By site, every product with a weight."""
        found: dict[str, int] = defaultdict(int)
        for node in self._wiring.nodes:
            if node.op_type in _WEIGHTED and node.input[1] in self._constant:
                found[site_of(node)] += self._macs(node)
        return found

    def _kind(self, node: NodeProto) -> tuple[str, str | None]:
        if node.input[1] in self._constant:
            codes = self._codes(node.input[1])
            if self._coded is not None:
                return ("coded" if self._coded(site_of(node)) else "other"), codes
            coded = codes is not None and self._is_decoded(node.input[0])
            return ("coded" if coded else "other"), codes
        if node.input[0] in self._constant:
            return "other", None
        return ("attention" if self._is_attention(node) else "other"), None

    def _codes(self, tensor: str) -> str | None:
        """The constant codes that a weight operand is decoded from."""
        maker = self._maker(tensor)
        return maker.input[0] if maker is not None and maker.op_type in _DECODERS else None

    def _is_decoded(self, tensor: str) -> bool:
        maker = self._maker(tensor)
        return maker is not None and maker.op_type in _DECODERS

    def _maker(self, tensor: str) -> NodeProto | None:
        """What computes `tensor`, seen through what only moves it."""
        maker = self._wiring.producer.get(tensor)
        while maker is not None and maker.op_type in _MOVES:
            maker = self._wiring.producer.get(maker.input[0])
        return maker

    def _is_attention(self, node: NodeProto) -> bool:
        return any(self._from_softmax(tensor) for tensor in node.input[:2]) or self._to_softmax(
            node
        )

    def _from_softmax(self, tensor: str) -> bool:
        tensors = [tensor]
        for _ in range(_FARTHEST):
            makers = [
                self._wiring.producer[name] for name in tensors if name in self._wiring.producer
            ]
            if any(maker.op_type == "Softmax" for maker in makers):
                return True
            # A Where that guards against rows without any key has its value further back.
            tensors = [
                name
                for maker in makers
                if maker.op_type in _SCORES_PATH
                for name in (maker.input[1:] if maker.op_type == "Where" else maker.input[:1])
            ]
            if not tensors:
                return False
        return False

    def _to_softmax(self, node: NodeProto) -> bool:
        readers = [node]
        for _ in range(_FARTHEST):
            readers = [
                reader
                for before in readers
                for name in before.output
                for reader in self._wiring.consumers.get(name, ())
            ]
            if any(reader.op_type == "Softmax" for reader in readers):
                return True
            readers = [reader for reader in readers if reader.op_type in _SCORES_PATH]
            if not readers:
                return False
        return False

    def _macs(self, node: NodeProto) -> int:
        outputs = math.prod(self._lengths(node, node.output[0]))
        if node.op_type == "Conv":
            return outputs * math.prod(self._lengths(node, node.input[1])[1:])
        inner = self._lengths(node, node.input[0])
        transposed = node.op_type == "Gemm" and any(
            found.name == "transA" and found.i for found in node.attribute
        )
        return outputs * inner[0 if transposed else -1]

    def _attention_macs(self, node: NodeProto) -> int:
        """Rank 4: [B, heads, tokens, width]; rank 3: heads and width together."""
        query, key, value = (list(self._lengths(node, node.input[i])) for i in range(3))
        keys = key[-2]
        if len(query) == 4:
            scored = math.prod(query)
            summed = math.prod(query[:3]) * value[3]
        else:
            heads = {found.name: found.i for found in node.attribute}
            groups = heads.get("q_num_heads", 1) // (heads.get("kv_num_heads", 1) or 1) or 1
            scored = math.prod(query)
            summed = query[0] * query[1] * value[2] * groups
        return keys * (scored + summed)

    def _lengths(self, node: NodeProto, tensor: str) -> tuple[int, ...]:
        shape = self._shapes.of(tensor)
        known = () if shape is None else tuple(self._whole(shape))
        if shape is None or len(known) != len(shape):
            raise SegQuantError(
                f"the shape of '{tensor}' at {node.op_type} '{node.name}' cannot be told",
                hint="export the model again; constants that shapes depend on may be missing",
            )
        return known

    @staticmethod
    def _whole(shape: tuple[object, ...]) -> Iterator[int]:
        yield from (dim for dim in shape if isinstance(dim, int))
