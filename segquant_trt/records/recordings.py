"""Denoiser inputs on disk: safetensors shards, one tensor per argument, leading axis = samples.

Users' `--inputs` have the same form, so that what follows does not care where inputs came from.
An argument without a batch axis (FLUX's img_ids) is stored once per shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, ModelSpec, TensorSpec
from segquant_trt.records.files import atomic_write_bytes

Array = npt.NDArray[np.generic]
Inputs = Mapping[str, Array]


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
        from safetensors import safe_open

        values: list[float] = []
        if self.timestep is not None:
            for shard in self.shards:
                with safe_open(str(shard), framework="numpy") as file:
                    steps = file.get_tensor(self.timestep).ravel()
                # As `batches` gives them: a timestep has one value, whatever it is stored in.
                values.extend(steps.astype(self.dtypes[self.timestep]).tolist())
        return values

    def batches(self, batch_size: int) -> Iterator[dict[str, Array]]:
        """The samples in order, in batches of one timestep each."""
        from safetensors.numpy import load_file

        for shard in self.shards:
            inputs = {
                name: array.astype(self.dtypes[name], copy=False)
                for name, array in load_file(str(shard)).items()
            }
            steps = (
                inputs[self.timestep].ravel() if self.timestep else np.zeros(batch_of(self, inputs))
            )
            for value in dict.fromkeys(steps.tolist()):
                indices = np.flatnonzero(steps == value)
                for start in range(0, len(indices), batch_size):
                    chosen = indices[start : start + batch_size]
                    yield {
                        name: array[chosen] if self.batched[name] else array
                        for name, array in inputs.items()
                    }


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


def _check_shard(shard: Path, spec: ModelSpec) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        inputs = load_file(str(shard))
    except (SafetensorError, OSError) as error:
        raise SegQuantError(
            f"{shard} is not a readable safetensors file: {error}",
            hint="record the inputs again",
        ) from error
    names = [tensor.name for tensor in spec.inputs]
    if set(inputs) != set(names):
        raise SegQuantError(
            f"{shard} holds {', '.join(sorted(inputs)) or 'nothing'}; "
            f"the model takes {', '.join(names)}",
            hint="store one tensor per argument of the denoiser's forward, by these names",
        )
    batched = [inputs[tensor.name] for tensor in spec.inputs if is_batched(tensor)]
    lengths = {len(array) for array in batched if array.ndim}
    if len(lengths) != 1:
        raise SegQuantError(
            f"{shard} has arguments of {sorted(lengths)} samples; all need the same number",
            hint="the leading axis of every batched argument is the sample",
        )
    if lengths == {0}:
        raise SegQuantError(f"{shard} holds no samples", hint="record at least one sample")
    for tensor in spec.inputs:
        _check_tensor(shard, tensor, inputs[tensor.name])
    _check_axes(shard, spec, inputs)


def _check_tensor(shard: Path, tensor: TensorSpec, array: Array) -> None:
    if array.ndim != len(tensor.shape) or any(
        isinstance(want, int) and want != have
        for want, have in zip(tensor.shape, array.shape, strict=True)
    ):
        raise SegQuantError(
            f"'{tensor.name}' in {shard} has shape {list(array.shape)}; "
            f"the model takes {list(tensor.shape)}",
            hint="record the inputs of this model",
        )
    if not np.can_cast(array.dtype, np.dtype(tensor.dtype), casting="same_kind"):
        raise SegQuantError(
            f"'{tensor.name}' in {shard} is {array.dtype}; the model takes {tensor.dtype}",
            hint="convert the recorded inputs",
        )
    with np.errstate(over="ignore"):
        taken = array.astype(tensor.dtype, copy=False)
    if taken.dtype.kind == "f" and not np.isfinite(taken).all():
        raise SegQuantError(
            f"'{tensor.name}' in {shard} holds NaN or infinity as {tensor.dtype}",
            hint="record the inputs again; the float model must not produce NaN",
        )


def _check_axes(shard: Path, spec: ModelSpec, inputs: Inputs) -> None:
    """Named axes but the batch, which later stages cut: one length each, within its range."""
    ranges = {axis.name: axis for axis in spec.axes}
    owners: dict[str, tuple[str, int]] = {}
    for tensor in spec.inputs:
        for axis, given in zip(tensor.shape, inputs[tensor.name].shape, strict=True):
            if isinstance(axis, int) or axis == "batch":
                continue
            owner, first = owners.setdefault(axis, (tensor.name, given))
            if given != first:
                raise SegQuantError(
                    f"'{tensor.name}' in {shard} has {axis} {given}, but '{owner}' has {axis} "
                    f"{first}; they must agree",
                    hint="record the arguments of one call together",
                )
            if axis in ranges:
                _check_length(shard, tensor.name, given, ranges[axis])


def _check_length(shard: Path, name: str, given: int, axis: AxisRange) -> None:
    if axis.minimum <= given <= axis.maximum and given % axis.multiple == 0:
        return
    multiple = f" in multiples of {axis.multiple}" if axis.multiple > 1 else ""
    raise SegQuantError(
        f"'{name}' in {shard} has {axis.name} {given}; "
        f"allowed: {axis.minimum} to {axis.maximum}{multiple}",
        hint="record the inputs at a size that the model takes",
    )
