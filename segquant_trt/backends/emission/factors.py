"""Row factors in a graph.

| factor   | nodes                                                                            |
|----------|----------------------------------------------------------------------------------|
| per_token | `Abs -> ReduceMax(channels) -> Max(tiny)`                                       |
| per_step | `GreaterOrEqual(t, edges) -> Cast -> ReduceSum -> Gather(factors) -> Reshape`    |
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from typing_extensions import assert_never

from segquant_trt.backends.emission.builder import Builder
from segquant_trt.errors import SegQuantError
from segquant_trt.records import PerStep, PerToken, RowFactor, Static
from segquant_trt.schemes import row_factor


class Factors:
    """Makes every factor once.

    Args:
        builder: where the nodes go.
        timestep: the graph input that holds the timestep of every sample, or one for all.
    """

    def __init__(self, builder: Builder, timestep: str | None) -> None:
        self.timestep = timestep
        self._builder = builder
        self._rows: dict[tuple[str, int], str] = {}
        self._steps: dict[PerStep, str] = {}
        self._shaped: dict[tuple[PerStep, int], str] = {}

    def of(
        self, factor: RowFactor, tensor: str, *, axis: int, rank: int | None, site: str
    ) -> str | None:
        """The name of the factor of `tensor`, which broadcasts to it; None where it is one.

        Args:
            factor: how the factor is found.
            tensor: the segment's input after smoothing.
            axis: its channels.
            rank: its rank; needed for factors per step.
            site: named in errors.

        Raises:
            SegQuantError: a factor per step with impossible edges or factors, without a timestep
                input, or for a tensor of unknown rank.
        """
        match factor:
            case Static():
                return None
            case PerToken():
                return self._per_token(tensor, axis)
            case PerStep():
                return self._per_step(factor, rank, site)
            case _:
                assert_never(factor)

    def _per_token(self, tensor: str, axis: int) -> str:
        key = (tensor, axis)
        if key not in self._rows:
            builder = self._builder
            magnitude = builder.node("Abs", [tensor], f"{tensor}_magnitude")
            axes = builder.constant(np.array([axis], dtype=np.int64), "channel_axis")
            amax = builder.node("ReduceMax", [magnitude, axes], f"{tensor}_amax", keepdims=1)
            tiny = builder.constant(np.array(builder.tiny, dtype=np.float32), "tiny")
            self._rows[key] = builder.node("Max", [amax, tiny], f"{tensor}_factor")
        return self._rows[key]

    def _per_step(self, factor: PerStep, rank: int | None, site: str) -> str:
        if self.timestep is None or rank is None:
            lacking = "no timestep input" if self.timestep is None else "an input of unknown rank"
            raise SegQuantError(
                f"site '{site}' has factors per step, but {lacking}",
                hint="choose static or per_token in the plan; --timestep names the input",
            )
        if factor not in self._steps:
            self._steps[factor] = self._by_sample(factor, self.timestep)
        key = (factor, rank)
        if key not in self._shaped:
            shape = np.array([-1] + [1] * (rank - 1), dtype=np.int64)
            name = self._builder.constant(shape, f"samples_of_rank_{rank}")
            self._shaped[key] = self._builder.node(
                "Reshape", [self._steps[factor], name], f"{self._steps[factor]}_rank_{rank}"
            )
        return self._shaped[key]

    def _by_sample(self, factor: PerStep, timestep: str) -> str:
        """float32[B], or [1] when one timestep is for all."""
        row_factor(np.zeros((1, 1), dtype=np.float32), factor, timestep=0.0)  # checks it
        builder = self._builder
        table = np.maximum(np.array(factor.factors, dtype=np.float32), np.float32(builder.tiny))
        factors = builder.constant(table, "step_factors")
        edges = np.array([factor.edges[1:]], dtype=np.float32)
        column = builder.constant(np.array([-1, 1], dtype=np.int64), "one_column")
        wide = builder.node("Cast", [timestep], f"{timestep}_float32", to=TensorProto.FLOAT)
        steps = builder.node("Reshape", [wide, column], f"{timestep}_by_sample")
        reached = builder.node(
            "GreaterOrEqual", [steps, builder.constant(edges, "step_edges")], f"{timestep}_reached"
        )
        ones = builder.node("Cast", [reached], f"{timestep}_ones", to=TensorProto.INT64)
        axes = builder.constant(np.array([1], dtype=np.int64), "edge_axis")
        index = builder.node("ReduceSum", [ones, axes], f"{timestep}_index", keepdims=0)
        return builder.node("Gather", [factors, index], f"{timestep}_factor")
