"""The largest magnitude of every float tensor of a graph, on recorded inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.graph.names import FreshNames
from segquant_trt.rewrite.half.retype import element_types

_AT_ONCE = 64  # tensors whose maxima one session computes: each keeps its tensor alive a while


def largest_values(
    model: onnx.ModelProto,
    folder: Path,
    calls: Iterable[Mapping[str, npt.NDArray[np.generic]]],
    *,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """`max |x|` over all calls, by tensor; infinite where NaN was seen.

    Args:
        model: a float32 graph.
        folder: where its external data is.
        calls: its inputs.
        threads: of ONNX Runtime.
        on_progress: told how many sessions are done, and how many there are.

    Raises:
        SegQuantError: ONNX Runtime refuses the graph.
    """
    types = element_types(model)
    made = [name for node in model.graph.node for name in node.output if name]
    floats = [name for name in made if types[name] == TensorProto.FLOAT]
    inputs = list(calls)
    found: dict[str, float] = {}
    starts = range(0, len(floats), _AT_ONCE)
    for done, start in enumerate(starts, start=1):
        names = floats[start : start + _AT_ONCE]
        runner = float_session(_with_maxima(model, names), folder, threads=threads, lean=True)
        for call in inputs:
            answers = runner.run(call, [f"{name}/largest" for name in names])
            for name in names:
                value = float(answers[f"{name}/largest"])
                found[name] = max(found.get(name, 0.0), value if value == value else np.inf)
        if on_progress is not None:
            on_progress(done, len(starts))
    return found


def _with_maxima(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy whose only outputs are the magnitudes of `names`, which are never NaN unless seen."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fresh = FreshNames(copy.graph)
    del copy.graph.output[:]
    for name in names:
        magnitude = fresh.fresh(f"{name}/magnitude")
        copy.graph.node.append(helper.make_node("Abs", [name], [magnitude], name=magnitude))
        copy.graph.node.append(
            helper.make_node("ReduceMax", [magnitude], [f"{name}/largest"], keepdims=0)
        )
        copy.graph.output.append(
            helper.make_tensor_value_info(f"{name}/largest", TensorProto.FLOAT, [])
        )
    return copy
