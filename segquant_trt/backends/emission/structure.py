"""Which tensors make up a site's input: the operands of a Concat, where its producer is one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import onnx

from segquant_trt.graph.wiring import Wiring


class Structure:
    """What emission needs to know of the float graph; looked at when it is first asked.

    Args:
        model: the float graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model

    @functools.cached_property
    def _wiring(self) -> Wiring:
        return Wiring(self._model.graph)

    @functools.cached_property
    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return _shapes(self._model)

    def segments(
        self, tensor: str, sizes: Sequence[int], *, axis: int, rank: int
    ) -> tuple[str, ...] | None:
        """The tensors whose Concat along `axis` is `tensor`, of these sizes; None: there is none.

        Nested Concats are looked into as far as the sizes ask for.
        """
        leaves = self._leaves(tensor, list(sizes), axis % rank, rank)
        return None if leaves is None or len(leaves) != len(sizes) else tuple(leaves)

    def _leaves(self, tensor: str, sizes: list[int], axis: int, rank: int) -> list[str] | None:
        if len(sizes) == 1:
            return [tensor]
        node = self._wiring.producer.get(tensor)
        if node is None or node.op_type != "Concat":
            return None
        if next(a.i for a in node.attribute if a.name == "axis") % rank != axis:
            return None
        found: list[str] = []
        for source in node.input:
            own = self._taken(source, sizes[len(found) :], axis, rank)
            inner = None if own is None else self._leaves(source, own, axis, rank)
            if inner is None:
                return None
            found += inner
        return found

    def _taken(self, tensor: str, sizes: list[int], axis: int, rank: int) -> list[int] | None:
        """The leading sizes that add up to the channels of `tensor`."""
        length = self._length(tensor, axis, rank)
        total = 0
        for count, size in enumerate(sizes, start=1):
            total += size
            if total == length:
                return sizes[:count]
        return None

    def _length(self, tensor: str, axis: int, rank: int) -> int | None:
        dims = self._shapes.get(tensor)
        if dims is None or len(dims) != rank:
            return None
        return dims[axis]


def _shapes(model: onnx.ModelProto) -> Mapping[str, tuple[int | None, ...]]:
    """Known lengths of every tensor; 0 counts as unknown, as some exporters mean it."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    return {
        value.name: tuple(
            dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
