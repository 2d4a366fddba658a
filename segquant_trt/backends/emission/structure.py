"""What emission needs to know of the float graph: lengths, and which tensors a Concat joins."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import onnx

from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.dims import Dim, Expr
from segquant_trt.graph.shapes import Shapes, infer_shapes
from segquant_trt.graph.wiring import Wiring


class Structure:
    """Looks at the graph when it is first asked.

    Args:
        model: the float graph.
        folder: where its external data is; sizes and axes may be there.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._model = model
        self._folder = folder

    @functools.cached_property
    def _wiring(self) -> Wiring:
        return Wiring(self._model.graph)

    @functools.cached_property
    def _shapes(self) -> Shapes:
        return infer_shapes(self._model, self._wiring, Constants(self._wiring, self._folder))

    def segments(
        self, tensor: str, sizes: Sequence[int], *, axis: int, rank: int
    ) -> tuple[str, ...] | None:
        """The tensors whose Concat along `axis` is `tensor`, of these sizes; None: there is none.

        Nested Concats are looked into as far as the sizes ask for.
        """
        leaves = self._leaves(tensor, list(sizes), axis % rank, rank)
        return None if leaves is None or len(leaves) != len(sizes) else tuple(leaves)

    def samples_elsewhere(self, tensor: str, timestep: str) -> bool:
        """Whether the samples of `timestep` are known not to be the first axis of `tensor`."""
        own, steps = self._shapes.of(tensor), self._shapes.of(timestep)
        if not own or not steps or own[0] == steps[0]:
            return False
        samples = _symbols(steps[0])
        return any(samples & _symbols(length) for length in own)

    def _leaves(self, tensor: str, sizes: list[int], axis: int, rank: int) -> list[str] | None:
        if len(sizes) == 1:
            return [tensor]
        node = self._wiring.producer.get(tensor)
        if node is None or node.op_type != "Concat":
            return None
        if int_attribute(node, "axis", 0) % rank != axis:
            return None
        found: list[str] = []
        for source in node.input:
            own = self._taken(source, sizes[len(found) :], axis)
            inner = None if own is None else self._leaves(source, own, axis, rank)
            if inner is None:
                return None
            found += inner
        return found

    def _taken(self, tensor: str, sizes: list[int], axis: int) -> list[int] | None:
        """The leading sizes that add up to the channels of `tensor`."""
        shape = self._shapes.of(tensor)
        length = None if shape is None or axis >= len(shape) else shape[axis]
        total = 0
        for count, size in enumerate(sizes, start=1):
            total += size
            if not isinstance(length, Expr) and total == length:
                return sizes[:count]
        return None


def _symbols(length: Dim) -> set[str]:
    """The unknown lengths that a length is made of."""
    terms = length.terms if isinstance(length, Expr) else ()
    return {atom for atoms, _ in terms for atom in atoms}
