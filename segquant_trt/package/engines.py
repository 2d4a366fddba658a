"""What a repository of TensorRT engines is made from, and whether it fits together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.package.options import check_name
from segquant_trt.package.tensors import SAMPLES, Batching, batching_of, data_type
from segquant_trt.records import TensorSpec
from segquant_trt.records.files import sha256_file

Shapes = Mapping[str, tuple[int, ...]]

_CAPABILITY = re.compile(r"[1-9]\d?\.\d")
_AGAIN = "build the engines again, or copy their files again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """An optimisation profile: smallest, favoured and largest shape of every input, batch and all.

    Where every axis of an input is fixed, the three are its shape.
    """

    minimum: Shapes
    optimum: Shapes
    maximum: Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """A serialised engine, and the compute capabilities (`8.9`) of the GPUs that may load it.

    `gpu` is the one model that it was built for, where it is not for others of that capability.
    """

    path: Path
    sha256: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePackage:
    """One denoiser as engines, all with these tensors and profiles (in the order of their indices).

    `cuda_graphs`: the server captures one per profile, at the favoured shapes. An engine that is
    `version_compatible` carries code that a server runs.
    """

    name: str
    source: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    timestep: str | None
    profiles: tuple[EngineProfile, ...]
    engines: tuple[EngineFile, ...]
    tensorrt_version: str
    plugin_libraries: tuple[Path, ...] = ()
    version_compatible: bool = False
    cuda_graphs: bool = True


def check_package(package: EnginePackage) -> None:
    """Files, capabilities and profiles.

    Raises:
        SegQuantError: naming what does not fit.
    """
    check_name(package.name)
    for spec in (*package.inputs, package.output):
        data_type(spec)
    _check_capabilities(package)
    for engine in package.engines:
        if sha256_file(engine.path) != engine.sha256:
            raise SegQuantError(f"{engine.path} was altered: its sha256 differs", hint=_AGAIN)
        if not engine.path.stat().st_size:
            raise SegQuantError(f"{engine.path} is empty", hint=_AGAIN)
    _check_plugins(package.plugin_libraries)
    if not package.profiles:
        raise SegQuantError(
            f"'{package.name}' has no optimisation profile", hint="build the engine with one"
        )
    for index, profile in enumerate(package.profiles):
        for spec in package.inputs:
            _check_profile(index, profile, spec)
        _check_samples(index, profile, package.inputs)


def batching(package: EnginePackage) -> Batching:
    """How a server may batch: engines that share an input between samples cannot be.

    An engine reads its inputs as they come, so that there is nobody to take one row of many.
    """
    found = batching_of(package.inputs, package.output)
    return Batching(axis=None) if found.shared else found


def largest_batch(package: EnginePackage, axis: str | None) -> int:
    """Samples that the widest profile takes; 0 without an axis of samples."""
    if axis is None:
        return 0
    first = package.inputs[0].name
    return max(profile.maximum[first][0] for profile in package.profiles)


def _check_plugins(libraries: tuple[Path, ...]) -> None:
    for path in libraries:
        if not path.is_file():
            raise SegQuantError(
                f"the plugin library {path} does not exist",
                hint="build the plugins, or leave it out",
            )
    names = [path.name for path in libraries]
    for name in names:
        if names.count(name) > 1 or ";" in name:
            raise SegQuantError(
                f"plugin libraries cannot be told apart by their names: {', '.join(names)}",
                hint="give each library once, under a name without ';'",
            )


def _check_capabilities(package: EnginePackage) -> None:
    known: dict[str, Path] = {}
    for engine in package.engines:
        for capability in engine.compute_capabilities:
            if not _CAPABILITY.fullmatch(capability):
                raise SegQuantError(
                    f"{engine.path} is for compute capability {capability!r}; such are '8.0', "
                    "'8.9', '12.0'",
                    hint="'nvidia-smi --query-gpu=compute_cap --format=csv' prints a GPU's",
                )
            if capability in known:
                raise SegQuantError(
                    f"{known[capability]} and {engine.path} are both for compute capability "
                    f"{capability}",
                    hint="give one engine for each",
                )
            known[capability] = engine.path
    if not known:
        raise SegQuantError(f"'{package.name}' has no engine for any GPU", hint="build one")


def _check_profile(index: int, profile: EngineProfile, spec: TensorSpec) -> None:
    bounds = (profile.minimum, profile.optimum, profile.maximum)
    if any(spec.name not in shapes for shapes in bounds):
        raise SegQuantError(
            f"profile {index} has no shapes for input '{spec.name}'",
            hint="give --minShapes, --optShapes and --maxShapes for every input",
        )
    low, best, high = (shapes[spec.name] for shapes in bounds)
    fits = len(low) == len(best) == len(high) == len(spec.shape) and all(
        1 <= least <= favoured <= most and (not isinstance(size, int) or least == most == size)
        for least, favoured, most, size in zip(low, best, high, spec.shape, strict=True)
    )
    if not fits:
        raise SegQuantError(
            f"profile {index} has shapes {low}, {best} and {high} for input '{spec.name}', which "
            f"is {spec.shape}",
            hint="every axis needs minimum <= optimum <= maximum, and its own length where fixed",
        )


def _check_samples(index: int, profile: EngineProfile, inputs: tuple[TensorSpec, ...]) -> None:
    """Every input must take as many samples as the first one that has any."""
    for shapes in (profile.minimum, profile.optimum, profile.maximum):
        found = [(spec.name, shapes[spec.name][0]) for spec in inputs if SAMPLES in spec.shape[:1]]
        for name, samples in found:
            if samples != found[0][1]:
                raise SegQuantError(
                    f"profile {index} takes {found[0][1]} samples of '{found[0][0]}' and {samples} "
                    f"of '{name}'",
                    hint="give every input the same batch in each of the three shapes",
                )
