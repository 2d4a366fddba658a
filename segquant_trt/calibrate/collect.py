"""Run the float graph over recorded inputs and gather statistics at every site."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.calibrate.patches import PatchSampler, patch_samplers
from segquant_trt.calibrate.statistics import Accumulator
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.sites import find_sites
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import LinearSite
from segquant_trt.records.calibration import Calibration
from segquant_trt.records.files import sha256_file
from segquant_trt.records.recordings import Inputs, Recordings, batch_of

_STEP_BINS = 10
_ROWS_PER_BIN = 128
_OUTPUT_BUDGET_BYTES = 1 << 30


def collect(
    model_onnx: Path,
    weights_folder: Path,
    recordings: Recordings,
    *,
    origin: str,
    checkpoint_sha256: str,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Statistics of every site's input and output over all recorded samples.

    The graph is run with the wanted tensors as extra outputs, in as many passes as keep the
    outputs of one batch within a gibibyte.

    Raises:
        SegQuantError: a recorded input makes the float model produce NaN or infinity.
    """
    model = load_graph(model_onnx)
    sites = find_sites(Wiring(model.graph), {})[0]
    channel_axes = observed_tensors(sites)
    edges = bin_edges(recordings.timesteps())
    accumulators = {
        name: Accumulator(
            bins=max(len(edges), 1), rows_per_bin=_ROWS_PER_BIN, seed=zlib.crc32(name.encode())
        )
        for name in channel_axes
    }
    samplers = patch_samplers(model, sites, bins=max(len(edges), 1), rows_per_bin=_ROWS_PER_BIN)
    readers: dict[str, list[PatchSampler]] = defaultdict(list)
    for site in sites:
        if site.name in samplers:
            readers[site.activation].append(samplers[site.name])
    groups = _groups(model, weights_folder, list(channel_axes), recordings, batch_size, threads)
    total = len(groups) * recordings.batch_count(batch_size)
    done = samples = 0
    for index, group in enumerate(groups):
        session = float_session(
            with_outputs(model, group), weights_folder, threads=threads, lean=True
        )
        for inputs in recordings.batches(batch_size):
            size = batch_of(recordings, inputs)
            step_bin = _bin(recordings, inputs, edges)
            for name, array in session.run(inputs, outputs=group).items():
                if not np.isfinite(array).all():
                    raise _not_finite(name, Weights(model, weights_folder))
                rows = channel_rows(array, channel_axes[name])
                accumulators[name].update(rows, step_bin=step_bin, samples=size)
                for sampler in readers.get(name, ()):
                    sampler.update(np.asarray(array, dtype=np.float32), step_bin=step_bin)
            samples += size if index == 0 else 0
            done += 1
            if on_batch is not None:
                on_batch(done, total)
    return Calibration(
        onnx_sha256=sha256_file(model_onnx),
        checkpoint_sha256=checkpoint_sha256,
        origin=origin,
        samples=samples,
        bin_edges=edges,
        tensors={name: accumulator.finish() for name, accumulator in accumulators.items()},
        patches={name: sampler.finish() for name, sampler in samplers.items()},
    )


def observed_tensors(sites: Sequence[LinearSite]) -> dict[str, int]:
    """Channel axis of every site input and output: 1 for convolutions, else the last."""
    axes: dict[str, int] = {}
    for site in sites:
        axis = 1 if site.op == "Conv" else -1
        axes.setdefault(site.activation, axis)
        axes.setdefault(site.output, axis)
    return axes


def channel_rows(array: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.float32]:
    """The array as float32[M, C] with `axis` as C."""
    moved = np.moveaxis(array, axis, -1) if axis != -1 else array
    return np.ascontiguousarray(moved, dtype=np.float32).reshape(-1, moved.shape[-1])


def bin_edges(timesteps: Sequence[float]) -> tuple[float, ...]:
    """Lower edges of at most ten bins with equally many distinct timesteps, ascending."""
    distinct = sorted(set(timesteps))
    bins = min(_STEP_BINS, len(distinct))
    return tuple(distinct[index * len(distinct) // bins] for index in range(bins))


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of the model whose graph outputs are `names`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in names:
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def _bin(recordings: Recordings, inputs: Inputs, edges: tuple[float, ...]) -> int:
    if recordings.timestep is None or not edges:
        return 0
    value = float(np.asarray(inputs[recordings.timestep]).flat[0])
    return max(bisect_right(edges, value) - 1, 0)


def _groups(
    model: onnx.ModelProto,
    folder: Path,
    names: list[str],
    recordings: Recordings,
    batch_size: int,
    threads: int | None,
) -> list[list[str]]:
    """Split the outputs so that one batch of a group stays within the budget."""
    first = next(recordings.batches(1))
    sizes: dict[str, int] = {}
    # Opening a deep graph takes seconds, so that more is asked for at once where it is small.
    start, count = 0, 64
    while start < len(names):
        part = names[start : start + count]
        session = float_session(with_outputs(model, part), folder, threads=threads)
        answers = session.run(first, outputs=part)
        sizes |= {name: array.nbytes * batch_size for name, array in answers.items()}
        start += len(part)
        if 16 * sum(array.nbytes for array in answers.values()) < _OUTPUT_BUDGET_BYTES:
            count *= 4
    groups: list[list[str]] = [[]]
    room = _OUTPUT_BUDGET_BYTES
    for name in names:
        if sizes[name] > room and groups[-1]:
            groups.append([])
            room = _OUTPUT_BUDGET_BYTES
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def _not_finite(tensor: str, weights: Weights) -> SegQuantError:
    culprit = weights.first_not_finite()
    if culprit is not None:
        return SegQuantError(
            f"weight '{culprit}' of the checkpoint holds NaN or infinity",
            hint="fetch the checkpoint again, or repair the training run that wrote it",
        )
    return SegQuantError(
        f"the float model produces NaN or infinity at '{tensor}' on the calibration inputs",
        hint="check the recorded inputs: their scale, and that they belong to this model",
    )
