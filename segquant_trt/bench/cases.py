"""At which sizes subjects are compared, and the inputs of each size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segquant_trt.bench.timed import is_float
from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, TensorSpec
from segquant_trt.records.axes import Wording, check_sizes

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array

BATCH = "batch"
_EDGES = frozenset(("height", "width"))
_CELLS_PER_TOKEN = 4  # of packed latents: two rows by two columns
_HINT = "'segquant-trt inspect' lists the inputs and their axes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What a subject takes, and which model of which configuration it is where that is known."""

    inputs: tuple[TensorSpec, ...]
    axes: tuple[AxisRange, ...] = ()
    class_name: str | None = None
    config: Mapping[str, Any] | None = None

    def axis_names(self) -> tuple[str, ...]:
        """Axes without a fixed length, in the order of the inputs."""
        names = (axis for spec in self.inputs for axis in spec.shape if isinstance(axis, str))
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The lengths that an axis is to have, one case for each combination.

    `height` and `width` are rows and columns of latents; one of them alone means squares. Where an
    interface has packed `tokens` instead, their product over four is its length.
    """

    axes: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        for name, lengths in self.axes.items():
            if not lengths or any(length < 1 for length in lengths):
                raise SegQuantError(
                    f"{name} is {','.join(map(str, lengths)) or 'empty'}; "
                    "allowed: whole numbers from 1, with commas between them",
                    hint=f"for example --{name} 1,2,4",
                )


def cases_of(interface: Interface, sweep: Sweep) -> list[dict[str, int]]:
    """The length of every axis in each case; typical lengths for axes that are not swept.

    Raises:
        SegQuantError: an axis that no input has, or one of unknown length.
    """
    names = interface.axis_names()
    asked = _packed(names, sweep.axes)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise SegQuantError(
            f"no input has an axis '{unknown[0]}'; axes: {', '.join(names) or 'none'}",
            hint="sweep one of these axes with --axis NAME=N,N",
        )
    typical = {axis.name: axis.typical for axis in interface.axes}
    lacking = [name for name in names if name not in asked and name not in typical]
    if lacking:
        owner = next(spec.name for spec in interface.inputs if lacking[0] in spec.shape)
        raise SegQuantError(
            f"axis '{lacking[0]}' of input '{owner}' has no length, in the graph or in a record "
            "beside it",
            hint=f"give one with --axis {lacking[0]}=N, or all shapes with --shapes",
        )
    choices = [dict.fromkeys(asked.get(name) or (typical[name],)) for name in names]
    found = [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*choices)]
    return [_squared(lengths, asked) for lengths in found]


def _squared(lengths: dict[str, int], asked: Mapping[str, Sequence[int]]) -> dict[str, int]:
    given = _EDGES & asked.keys()
    if len(given) != 1 or not lengths.keys() >= _EDGES:
        return lengths
    (edge,) = given
    return lengths | dict.fromkeys(_EDGES, lengths[edge])


def _packed(names: Sequence[str], axes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    asked = dict(axes)
    if "tokens" not in names or "height" in names or not _EDGES & asked.keys():
        return asked
    heights = asked.pop("height", None)
    widths = asked.pop("width", None)
    # One of the two alone means squares.
    pairs = (
        list(itertools.product(heights, widths))
        if heights and widths
        else [(edge, edge) for edge in heights or widths or ()]
    )
    odd = [pair for pair in pairs if pair[0] % 2 or pair[1] % 2]
    if odd or "tokens" in asked:
        raise SegQuantError(
            f"latents of {odd[0][0]}x{odd[0][1]} cannot be packed into tokens of 2x2"
            if odd
            else "--height and --width give the number of tokens, and so does --axis tokens",
            hint="give even heights and widths, or --axis tokens=N alone",
        )
    asked["tokens"] = [height * width // _CELLS_PER_TOKEN for height, width in pairs]
    return asked


def lengths_of_shapes(
    interface: Interface, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[int]]:
    """The sweep of one case that given shapes of inputs stand for.

    Raises:
        SegQuantError: an unknown input, another rank, or lengths that do not fit together.
    """
    specs = {spec.name: spec for spec in interface.inputs}
    found: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        if name not in specs:
            raise SegQuantError(
                f"--shapes names an input '{name}'; there are {', '.join(specs)}", hint=_HINT
            )
        check_sizes(
            (specs[name],), (), {name: shape}, Wording(before="--shapes: input ", hint=_HINT)
        )
        for axis, length in zip(specs[name].shape, shape, strict=True):
            if isinstance(axis, str) and found.setdefault(axis, [length]) != [length]:
                raise SegQuantError(
                    f"--shapes gives axis '{axis}' the lengths {found[axis][0]} and {length}",
                    hint="inputs share axes of one name; " + _HINT,
                )
    return found


def made_inputs(interface: Interface, lengths: Mapping[str, int], *, seed: int) -> dict[str, Array]:
    """Seeded inputs of one size: as the family makes them where it is known, else noise and zeros.

    Raises:
        SegQuantError: the interface does not take these lengths.
    """
    shapes = {spec.name: _shape(spec, lengths) for spec in interface.inputs}
    check_sizes(interface.inputs, interface.axes, shapes, Wording(before="input ", hint=_HINT))
    made = _as_the_family_makes_them(interface, lengths, seed)
    if made is not None:
        return made
    rng = np.random.default_rng(seed)
    return {spec.name: _noise(spec, shapes[spec.name], rng) for spec in interface.inputs}


def _as_the_family_makes_them(
    interface: Interface, lengths: Mapping[str, int], seed: int
) -> dict[str, Array] | None:
    """None where no family is known, or its inputs are not those of the interface."""
    from segquant_trt.models import FAMILIES

    family = next((one for one in FAMILIES if one.class_name == interface.class_name), None)
    if family is None or interface.config is None:
        return None
    try:
        known = family.inputs(interface.config)
    except (KeyError, TypeError, SegQuantError):
        return None
    same = {spec.name for spec in known} == {spec.name for spec in interface.inputs}
    return family.example_inputs(interface.config, lengths, seed=seed) if same else None


def _shape(spec: TensorSpec, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape)


def _noise(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind != "f":
        return np.zeros(shape, dtype=dtype)
    return rng.standard_normal(shape).astype(dtype)


def read_inputs(path: Path, interface: Interface) -> dict[str, Array]:
    """The inputs of one call from a safetensors file.

    Raises:
        SegQuantError: no such file, another format, missing or unknown inputs, unequal lengths, or
            values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        given: dict[str, Array] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SegQuantError(
            f"{path} is no readable safetensors file: {error}",
            hint="store the inputs of one call, one tensor per argument of the denoiser",
        ) from error
    names = {spec.name for spec in interface.inputs}
    if set(given) != names:
        raise SegQuantError(
            f"{path} holds {', '.join(sorted(given)) or 'nothing'}; "
            f"the subjects take {', '.join(sorted(names))}",
            hint="store one tensor per input, by these names",
        )
    check_sizes(
        interface.inputs,
        interface.axes,
        {name: array.shape for name, array in given.items()},
        Wording(after=f" in {path}", hint=_HINT),
    )
    for name, array in given.items():
        if array.dtype.kind in "fV" and not np.isfinite(array.astype(np.float32)).all():
            raise SegQuantError(
                f"'{name}' in {path} holds NaN or infinity",
                hint="record the inputs again; kernels may take another time on such values",
            )
    return given


def batch_of(interface: Interface, inputs: Mapping[str, Array]) -> int:
    """Samples in one call: the axis `batch`, else the first axis of the first input."""
    for spec in interface.inputs:
        if BATCH in spec.shape:
            return int(inputs[spec.name].shape[spec.shape.index(BATCH)])
    shape = next(iter(inputs.values())).shape if inputs else ()
    return int(shape[0]) if shape else 1


def check_alike(first: tuple[str, Interface], other: tuple[str, Interface]) -> None:
    """Refuse to set subjects side by side that do not take the same inputs.

    Raises:
        SegQuantError: naming both and the input in which they differ.
    """
    mine = {spec.name: spec for spec in first[1].inputs}
    theirs = {spec.name: spec for spec in other[1].inputs}
    only = sorted(mine.keys() ^ theirs.keys())
    if only:
        owner, lacking = (first[0], other[0]) if only[0] in mine else (other[0], first[0])
        raise _unlike(f"{owner} takes an input '{only[0]}', {lacking} does not")
    for name, spec in mine.items():
        if not _alike(spec, theirs[name]):
            raise _unlike(
                f"input '{name}' of {first[0]} is {_words(spec)}, "
                f"of {other[0]} {_words(theirs[name])}"
            )


def _unlike(what: str) -> SegQuantError:
    return SegQuantError(
        f"these subjects cannot be set side by side: {what}",
        hint="compare bundles, files and modules of one model",
    )


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    return (
        is_float(one.dtype) == is_float(other.dtype)
        and len(one.shape) == len(other.shape)
        and all(
            a == b or isinstance(a, str) or isinstance(b, str)
            for a, b in zip(one.shape, other.shape, strict=True)
        )
    )


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"


def merged(interfaces: Iterable[Interface]) -> Interface:
    """One interface for all: that of the subject of which most is known."""
    return max(interfaces, key=lambda found: (found.class_name is not None, len(found.axes)))
