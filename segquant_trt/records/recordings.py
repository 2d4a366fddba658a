"""Denoiser inputs on disk: safetensors shards, one tensor per argument, leading axis = samples.

Users' `--inputs` have the same form, so that what follows does not care where inputs came from.
An argument without a batch axis (FLUX's img_ids) is stored once per shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import ModelSpec, TensorSpec
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
                    values.extend(float(t) for t in file.get_tensor(self.timestep).ravel())
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
        SegQuantError: no shard; a shard is truncated, lacks or adds an argument, or has another
            dtype or rank than the model, or a NaN.
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
        _check_shard(shard, spec.inputs)
    return Recordings(
        shards=shards,
        batched=batched,
        dtypes={tensor.name: tensor.dtype for tensor in spec.inputs},
        timestep=spec.timestep,
    )


def is_batched(tensor: TensorSpec) -> bool:
    """Whether the argument's leading axis is the batch."""
    return bool(tensor.shape) and tensor.shape[0] == "batch"


def _check_shard(shard: Path, expected: Sequence[TensorSpec]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        inputs = load_file(str(shard))
    except (SafetensorError, OSError) as error:
        raise SegQuantError(
            f"{shard} is not a readable safetensors file: {error}",
            hint="record the inputs again",
        ) from error
    names = [tensor.name for tensor in expected]
    if set(inputs) != set(names):
        raise SegQuantError(
            f"{shard} holds {', '.join(sorted(inputs)) or 'nothing'}; "
            f"the model takes {', '.join(names)}",
            hint="store one tensor per argument of the denoiser's forward, by these names",
        )
    lengths = {len(inputs[t.name]) for t in expected if is_batched(t) and inputs[t.name].ndim}
    if len(lengths) != 1:
        raise SegQuantError(
            f"{shard} has arguments of {sorted(lengths)} samples; all need the same number",
            hint="the leading axis of every batched argument is the sample",
        )
    for tensor in expected:
        _check_tensor(shard, tensor, inputs[tensor.name])


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
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SegQuantError(
            f"'{tensor.name}' in {shard} holds NaN or infinity",
            hint="record the inputs again; the float model must not produce NaN",
        )
