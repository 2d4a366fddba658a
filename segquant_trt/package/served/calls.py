"""Answer the calls that a server hands over together: checked one by one, computed in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.package.served.description import Description
from segquant_trt.package.served.graphs import ServedGraphs
from segquant_trt.package.served.sessions import Array
from segquant_trt.records.axes import Wording, check_sizes

_HINT = "the repository's README lists inputs, types and sizes"

Answer = Array | SegQuantError
_Key = tuple[object, ...]


class CallError(SegQuantError):
    """The call itself is wrong; the same one will be refused again."""


def answers(graphs: ServedGraphs, calls: Sequence[Mapping[str, Array]]) -> list[Answer]:
    """One answer per call, in order; a call that fails fails alone.

    Calls are put into one batch where they have the same sizes and shared inputs and run the same
    graph, and nothing is kept per prompt (it belongs to whole calls).
    """
    found: list[Answer | None] = [None] * len(calls)
    batches: dict[_Key, list[int]] = {}
    checked: dict[int, dict[str, Array]] = {}
    for index, call in enumerate(calls):
        try:
            inputs = checked[index] = checked_inputs(graphs.description, call)
            key = _batch_key(graphs, inputs, index)
        except SegQuantError as error:
            found[index] = CallError(error.what, hint=error.hint)
        else:
            batches.setdefault(key, []).append(index)
    for members in batches.values():
        results = _together(graphs, [checked[index] for index in members])
        for index, result in zip(members, results, strict=True):
            found[index] = result
    return [answer for answer in found if answer is not None]


def checked_inputs(description: Description, call: Mapping[str, Array]) -> dict[str, Array]:
    """The denoiser's own inputs: shared ones without the axis that the server wants.

    Raises:
        SegQuantError: naming the input, what was given and what is allowed.
    """
    inputs = {}
    for spec in description.inputs:
        if spec.name not in call:
            raise SegQuantError(f"input '{spec.name}' is missing", hint=_HINT)
        array = call[spec.name]
        if array.dtype.name != spec.dtype:
            raise SegQuantError(
                f"input '{spec.name}' has dtype {array.dtype.name}; allowed: {spec.dtype}",
                hint=_HINT,
            )
        shared = description.batch_axis is not None and spec.name in description.shared
        inputs[spec.name] = _only_row(spec.name, array) if shared else array
    shapes = {name: array.shape for name, array in inputs.items()}
    check_sizes(description.inputs, description.axes, shapes, Wording(before="input ", hint=_HINT))
    return inputs


def _only_row(name: str, array: Array) -> Array:
    if array.ndim < 1 or not len(array) or (array != array[:1]).any():
        raise SegQuantError(
            f"input '{name}' differs between the samples of a call; it is shared by all of them",
            hint="repeat the same values for every sample, or make one call for each",
        )
    row: Array = array[0]
    return row


def _batch_key(graphs: ServedGraphs, inputs: Mapping[str, Array], index: int) -> _Key:
    description = graphs.description
    tabled = graphs.on_steps(inputs)
    if description.batch_axis is None or graphs.keeps_prompts:
        return (index,)
    return (
        tabled,
        *(
            (array.shape, array.tobytes()) if name in description.shared else array.shape[1:]
            for name, array in inputs.items()
        ),
    )


def _together(graphs: ServedGraphs, calls: Sequence[dict[str, Array]]) -> Sequence[Answer]:
    try:
        if len(calls) == 1:
            return [graphs.run(calls[0])]
        shared = graphs.description.shared
        merged = {
            name: array if name in shared else np.concatenate([call[name] for call in calls])
            for name, array in calls[0].items()
        }
        batched = next(name for name in merged if name not in shared)
        ends = np.cumsum([len(call[batched]) for call in calls])
        return np.split(graphs.run(merged), ends[:-1])
    except SegQuantError as error:
        return [error] * len(calls)
