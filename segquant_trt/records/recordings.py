"""Denoiser inputs on disk: safetensors shards, one tensor per argument, leading axis = samples.

Users' `--inputs` have the same form, so that what follows does not care where inputs came from.
An argument without a batch axis (FLUX's img_ids) is stored once per shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import ModelSpec, TensorSpec
from segquant_trt.records.axes import Wording, check_sizes
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.records.shards import Array, Shard, open_shard

Inputs = Mapping[str, Array]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """A set of shards that fit one model.

    `batched` says which arguments have a batch axis; `dtypes` what the model takes (recordings of
    a float16 pipeline are widened when read).
    """

    shards: tuple[Path, ...]
    batched: Mapping[str, bool]
    dtypes: Mapping[str, str]
    timestep: str | None

    def timesteps(self) -> list[float]:
        """The timestep of every sample, shard after shard; empty without a timestep input."""
        if self.timestep is None:
            return []
        values: list[float] = []
        for path in self.shards:
            with open_shard(path) as shard:
                values.extend(self._steps(shard).tolist())
        return values

    def batch_count(self, batch_size: int) -> int:
        """How many batches `batches(batch_size)` gives; reads timesteps alone."""
        count = 0
        for path in self.shards:
            with open_shard(path) as shard:
                count += sum(-(-len(call) // batch_size) for call in self._calls(shard))
        return count

    def batches(self, batch_size: int) -> Iterator[dict[str, Array]]:
        """The samples in order, in batches of one timestep each; one batch is in memory."""
        return self._read(
            lambda call: (call[at : at + batch_size] for at in range(0, len(call), batch_size))
        )

    def ends(self) -> Iterator[dict[str, Array]]:
        """The first and the last sample of every timestep of every shard."""
        return self._read(lambda call: [call[[0, -1]]])

    def _read(self, choose: Callable[[Indices], Iterable[Indices]]) -> Iterator[dict[str, Array]]:
        for path in self.shards:
            with open_shard(path) as shard:
                shared = {
                    name: self._taken(name, shard.whole(name))
                    for name, batched in self.batched.items()
                    if not batched
                }
                for call in self._calls(shard):
                    for rows in choose(call):
                        yield {
                            name: self._taken(name, shard.rows(name, rows))
                            if batched
                            else shared[name]
                            for name, batched in self.batched.items()
                        }

    def _calls(self, shard: Shard) -> list[Indices]:
        """Which samples of a shard have the same timestep, in the order of their first ones."""
        steps = self._steps(shard)
        _, first, group = np.unique(steps, return_index=True, return_inverse=True)
        samples = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        return [samples[index] for index in np.argsort(first)]

    def _steps(self, shard: Shard) -> Array:
        count = next(shard.shapes[name][0] for name, batched in self.batched.items() if batched)
        if self.timestep is None:
            return np.zeros(count)
        # As batches give them: a timestep has one value, whatever it is stored in.
        steps = self._taken(self.timestep, shard.whole(self.timestep)).ravel()
        return steps if self.batched[self.timestep] else np.broadcast_to(steps, count)

    def _taken(self, name: str, stored: Array) -> Array:
        return stored.astype(self.dtypes[name], copy=False)


def batch_of(recordings: Recordings, inputs: Inputs) -> int:
    """Number of samples in one shard's or batch's tensors."""
    return next(len(inputs[name]) for name, batched in recordings.batched.items() if batched)


def write_shard(path: Path, inputs: Inputs) -> None:
    """Write one shard atomically."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in sorted(inputs.items())}
    atomic_write_bytes(path, save(contiguous))


def open_recordings(path: Path, spec: ModelSpec) -> Recordings:
    """Open a file or a folder of shards and check every shard against the model.

    Raises:
        SegQuantError: no shard; a shard is truncated or empty, lacks or adds an argument, has
            another dtype or rank than the model, sizes that the model does not take or that
            disagree between arguments, or a NaN.
    """
    shards = tuple(sorted(path.glob("*.safetensors"))) if path.is_dir() else (path,)
    if not shards or not shards[0].is_file():
        raise SegQuantError(
            f"{path} holds no recorded inputs (*.safetensors)",
            hint="give a safetensors file, or a folder of them, with one tensor per argument: "
            + ", ".join(tensor.name for tensor in spec.inputs),
        )
    batched = {tensor.name: is_batched(tensor) for tensor in spec.inputs}
    for shard in shards:
        _check_shard(shard, spec)
    return Recordings(
        shards=shards,
        batched=batched,
        dtypes={tensor.name: tensor.dtype for tensor in spec.inputs},
        timestep=spec.timestep,
    )


def is_batched(tensor: TensorSpec) -> bool:
    """Whether the argument's leading axis is the batch."""
    return bool(tensor.shape) and tensor.shape[0] == "batch"


def _check_shard(path: Path, spec: ModelSpec) -> None:
    with open_shard(path) as shard:
        _check_shapes(path, spec, shard.shapes)
        for tensor in spec.inputs:
            _check_type(path, tensor, shard.dtype(tensor.name))
        for tensor in spec.inputs:
            for chunk in shard.chunks(tensor.name):
                _check_values(path, tensor, chunk)


def _check_shapes(path: Path, spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    names = [tensor.name for tensor in spec.inputs]
    if set(shapes) != set(names):
        raise SegQuantError(
            f"{path} holds {', '.join(sorted(shapes)) or 'nothing'}; "
            f"the model takes {', '.join(names)}",
            hint="store one tensor per argument of the denoiser's forward, by these names",
        )
    batched = [shapes[tensor.name] for tensor in spec.inputs if is_batched(tensor)]
    lengths = {shape[0] for shape in batched if shape}
    if len(lengths) != 1:
        raise SegQuantError(
            f"{path} has arguments of {sorted(lengths)} samples; all need the same number",
            hint="the leading axis of every batched argument is the sample",
        )
    if lengths == {0}:
        raise SegQuantError(f"{path} holds no samples", hint="record at least one sample")
    # A recording may hold more samples than one call takes.
    axes = [axis for axis in spec.axes if axis.name != "batch"]
    wording = Wording(
        after=f" in {path}",
        hint="record the arguments of one call together, at a size that the model takes",
    )
    check_sizes(spec.inputs, axes, shapes, wording)


def _check_type(path: Path, tensor: TensorSpec, stored: str) -> None:
    try:
        fits = np.can_cast(np.dtype(stored), np.dtype(tensor.dtype), casting="same_kind")
    except TypeError:  # not one of NumPy's: an 8-bit float
        fits = False
    if not fits:
        raise SegQuantError(
            f"'{tensor.name}' in {path} is {stored}; the model takes {tensor.dtype}",
            hint="convert the recorded inputs",
        )


def _check_values(path: Path, tensor: TensorSpec, chunk: Array) -> None:
    with np.errstate(over="ignore"):
        taken = chunk.astype(tensor.dtype, copy=False)
    if taken.dtype.kind == "f" and not np.isfinite(taken).all():
        raise SegQuantError(
            f"'{tensor.name}' in {path} holds NaN or infinity as {tensor.dtype}",
            hint="record the inputs again; the float model must not produce NaN",
        )
