"""Which nodes stay in float32 where everything else becomes float16, and why.

| node                                             | because                                      |
|--------------------------------------------------|----------------------------------------------|
| before Sin and Cos                               | arguments of hundreds lose their fraction    |
| `Pow(x, 2)` or `Mul(x, x)` up to the root        | squares leave float16 at 256                 |
| a value that was seen beyond `LIMIT`             | it would become infinite                     |
| makes floats from no floats: Range, Random...    | cheap, and its type is the operator's own    |

A scale that is no float16 number is treated where data is written, see `convert`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.wiring import Wiring, node_name, read_tensors

LARGEST = 65504.0
LIMIT = LARGEST / 2.0
"""Half of what float16 holds: other inputs than those that were seen go further."""

_TRIGONOMETRIC = ("Sin", "Cos")
_SUMS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2")
_ROOTS = ("Add", "Max", "Clip", "Sqrt", "Reciprocal", "Pow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """A node that stays in float32. `largest`: the value that float16 does not hold, if any."""

    node: str
    reason: str
    largest: float | None = None


def islands(
    wiring: Wiring,
    is_float: Callable[[str], bool],
    largest: Mapping[str, float],
) -> tuple[Island, ...]:
    """In the order of the graph; of a node the first reason.

    Args:
        wiring: the float32 graph.
        is_float: whether a tensor is float32.
        largest: magnitudes that were seen, by tensor; of others nothing is known.
    """
    found: dict[str, Island] = {}
    for node in _arguments(wiring):
        _note(found, node, "computes the argument of a sine or cosine")
    for node in _squares(wiring):
        _note(found, node, "sums squares")
    for node in wiring.nodes:
        floats = [name for name in (*node.input, *node.output) if name and is_float(name)]
        worst = max((largest.get(name, 0.0) for name in floats), default=0.0)
        if not worst <= LIMIT:  # NaN is beyond it, too
            name = node_name(node)
            found.setdefault(
                name, Island(node=name, reason="exceeds float16", largest=float(worst))
            )
        elif _makes_floats(node, is_float):
            _note(found, node, "makes floats of its own type")
    order = [node_name(node) for node in wiring.nodes]
    return tuple(found[name] for name in order if name in found)


def _note(found: dict[str, Island], node: NodeProto, reason: str) -> None:
    name = node_name(node)
    found.setdefault(name, Island(node=name, reason=reason))


def _arguments(wiring: Wiring) -> Iterable[NodeProto]:
    """Sines, cosines and all that leads to them."""
    waiting = [node for node in wiring.nodes if node.op_type in _TRIGONOMETRIC]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node_name(node) in seen:
            continue
        seen.add(node_name(node))
        yield node
        waiting += [wiring.producer[name] for name in read_tensors(node) if name in wiring.producer]


def _squares(wiring: Wiring) -> Iterable[NodeProto]:
    """Squares whose sum is taken, the sum, and what follows up to the reciprocal root."""
    for node in wiring.nodes:
        if node.op_type not in _SUMS:
            continue
        square = wiring.producer.get(node.input[0])
        own = node.op_type in ("ReduceSumSquare", "ReduceL2")
        if not own and (square is None or not _is_square(square)):
            continue
        if square is not None and not own:
            yield square
        yield node
        reader = wiring.sole_consumer(node.output[0])
        while reader is not None and reader.op_type in _ROOTS and _scalar_else(reader, wiring):
            yield reader
            reader = wiring.sole_consumer(reader.output[0])


def _is_square(node: NodeProto) -> bool:
    if node.op_type == "Mul":
        return node.input[0] == node.input[1]
    return node.op_type == "Pow"


def _scalar_else(node: NodeProto, wiring: Wiring) -> bool:
    """Whether all inputs but one are constants: `eps`, an exponent."""
    return sum(name not in wiring.constants for name in node.input if name) == 1


def _makes_floats(node: NodeProto, is_float: Callable[[str], bool]) -> bool:
    if node.op_type in ("Constant", "Cast", "DequantizeLinear"):
        return False
    reads = any(is_float(name) for name in read_tensors(node))
    return not reads and any(is_float(name) for name in node.output if name)
