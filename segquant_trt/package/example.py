"""Inputs of a call at typical sizes: what the client sends first, and what warms the model up."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.package.tensors import Batching
from segquant_trt.records import AxisRange, FrozenSteps, TensorSpec

Array = npt.NDArray[np.generic]

_SEED = 0


def typical_shapes(
    inputs: Sequence[TensorSpec], axes: Sequence[AxisRange]
) -> dict[str, tuple[int, ...]]:
    """Shapes by name; an axis without a range has one element."""
    lengths = {axis.name: axis.typical for axis in axes}
    return {
        spec.name: tuple(
            size if isinstance(size, int) else lengths.get(size, 1) for size in spec.shape
        )
        for spec in inputs
    }


def example_inputs(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    timestep: str | None,
    frozen: FrozenSteps | None = None,
) -> dict[str, Array]:
    """Normal noise in every float input, zeros in the others, and one timestep for all samples.

    bfloat16 comes as float32, which clients convert.
    """
    rng = np.random.default_rng(_SEED)
    found: dict[str, Array] = {}
    for spec in inputs:
        shape = shapes[spec.name]
        dtype = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
        if spec.name == timestep:
            step = 1.0 if frozen is None else frozen.timesteps[-1]
            found[spec.name] = np.full(shape, step, dtype=dtype)
        elif np.issubdtype(dtype, np.floating):
            found[spec.name] = rng.standard_normal(shape).astype(dtype)
        else:
            found[spec.name] = np.zeros(shape, dtype=dtype)
    return found


def one_sample(inputs: Mapping[str, Array], batching: Batching) -> dict[str, Array]:
    """The first sample alone, without the batch axis; shared inputs are whole."""
    if batching.axis is None:
        return dict(inputs)
    return {name: array if name in batching.shared else array[0] for name, array in inputs.items()}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """An `.npz` file; equal arrays give equal bytes, because zip members carry no date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as stream:
                np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)
