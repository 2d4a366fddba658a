"""Engines that this program built, and the records beside them, as one package for a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segquant_trt.backends.tensorrt.runtime.engine_file import (
    check_file,
    check_plugins,
    read_info,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.package.engines import EngineFile, EnginePackage, EngineProfile
from segquant_trt.package.options import name_of
from segquant_trt.package.tensors import SAMPLES
from segquant_trt.records import TensorSpec
from segquant_trt.records.engine import EngineInfo, EngineTensor

# From Ampere on; what an engine of that compatibility runs on.
_AMPERE_PLUS = ("8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")
_ANY = "any"


def told_apart(paths: Sequence[Path]) -> Path | None:
    """The bundle among the paths that a user gives; None where all are engines.

    Raises:
        SegQuantError: a folder is not alone.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise SegQuantError(
            f"{folders[0]} is a bundle, and is not the only path; allowed: one bundle, or engines",
            hint="package each bundle on its own, and move the models' folders together",
        )
    return folders[0] if folders else None


def package_of(
    engines: Sequence[Path],
    *,
    name: str | None,
    plugins: Sequence[Path] = (),
    trust: bool = False,
    cuda_graphs: bool = True,
) -> EnginePackage:
    """One denoiser's engines, one for each kind of GPU.

    Args:
        engines: their files; the record that the build wrote lies beside each.
        name: of the model; that of the first file when None.
        plugins: the libraries that they need.
        trust: they may carry code that a server executes.
        cuda_graphs: the server captures one per profile.

    Raises:
        SegQuantError: an engine or its record is missing or damaged, cannot be loaded by a server,
            or differs from the first in more than its GPU.
    """
    infos = [_checked(path, plugins, trust) for path in engines]
    first = infos[0]
    for path, info in zip(engines[1:], infos[1:], strict=True):
        _check_alike(engines[0], first, path, info)
    if len(first.outputs) != 1:
        raise SegQuantError(
            f"{engines[0]} has {len(first.outputs)} outputs; a denoiser has one",
            hint="build the engine from the graph that 'segquant-trt rewrite' wrote",
        )
    inputs = tuple(_spec(tensor, first) for tensor in first.inputs)
    return EnginePackage(
        name=name or name_of(engines[0].stem),
        source=engines[0].stem,
        inputs=inputs,
        output=_output_spec(first.outputs[0], inputs),
        timestep=next((spec.name for spec in inputs if "timestep" in spec.name), None),
        profiles=_profiles(first),
        engines=_files(engines, infos),
        tensorrt_version=first.tensorrt,
        plugin_libraries=tuple(plugins),
        version_compatible=first.version_compatible,
        cuda_graphs=cuda_graphs,
    )


def _checked(path: Path, plugins: Sequence[Path], trust: bool) -> EngineInfo:
    info = read_info(path)
    if info is None:
        raise SegQuantError(
            f"{path} has no record beside it, so that its GPU and profiles are not known",
            hint="build the engine with segquant-trt, or copy its record with it",
        )
    check_file(path, info, digest=False)  # the package's own check reads every byte
    if info.version_compatible and not trust:
        raise SegQuantError(
            f"{path} is version-compatible: it carries code that the server executes",
            hint="add --trust if you know where the file is from",
        )
    try:
        check_plugins(path, info, plugins)
    except SegQuantError as error:
        hint = "give the libraries that it was built with, each with --dynamicPlugins"
        raise SegQuantError(error.what, hint=hint) from error
    if info.weights_stripped:
        raise SegQuantError(
            f"{path} is without weights, and a server refits none",
            hint="build the engine with its weights",
        )
    return info


def _check_alike(path: Path, first: EngineInfo, other: Path, info: EngineInfo) -> None:
    for what, one, two in (
        ("tensors", first.tensors, info.tensors),
        ("profiles", first.profiles, info.profiles),
        ("plugins", first.plugins, info.plugins),
        ("TensorRT", first.tensorrt, info.tensorrt),
        ("version compatibility", first.version_compatible, info.version_compatible),
    ):
        if one != two:
            raise SegQuantError(
                f"{path} and {other} differ in their {what}; a server takes engines of one model "
                "that differ in their GPU alone",
                hint="build them from graphs of one plan with the same options, or package each "
                "on its own",
            )


def _files(engines: Sequence[Path], infos: Sequence[EngineInfo]) -> tuple[EngineFile, ...]:
    """An engine of a GPU's own goes before one for all from Ampere on."""
    own = {info.compute_capability for info in infos if not _is_broad(info)}
    found = []
    for path, info in zip(engines, infos, strict=True):
        broad = tuple(capability for capability in _AMPERE_PLUS if capability not in own)
        found.append(
            EngineFile(
                path=path,
                sha256=info.engine_sha256,
                compute_capabilities=broad if _is_broad(info) else (info.compute_capability,),
                gpu=info.gpu if info.hardware_compatibility == "none" else None,
            )
        )
    return tuple(found)


def _is_broad(info: EngineInfo) -> bool:
    return info.hardware_compatibility == "ampere_plus"


def _profiles(info: EngineInfo) -> tuple[EngineProfile, ...]:
    fixed = {tensor.name: tensor.shape for tensor in info.inputs if min((1, *tensor.shape)) >= 0}
    if not info.profiles:
        return (EngineProfile(minimum=fixed, optimum=fixed, maximum=fixed),)
    return tuple(
        EngineProfile(
            minimum={**fixed, **{each.name: each.minimum for each in profile.inputs}},
            optimum={**fixed, **{each.name: each.optimum for each in profile.inputs}},
            maximum={**fixed, **{each.name: each.maximum for each in profile.inputs}},
        )
        for profile in info.profiles
    )


def _spec(tensor: EngineTensor, info: EngineInfo) -> TensorSpec:
    """Engines know no names of axes: the first one is that of samples where its lengths are."""
    shape: list[int | str] = [_ANY if length < 0 else length for length in tensor.shape]
    if shape[:1] == [_ANY] and _lengths(tensor, info) == _lengths(_of_samples(info), info):
        shape[0] = SAMPLES
    return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=tuple(shape))


def _output_spec(tensor: EngineTensor, inputs: Sequence[TensorSpec]) -> TensorSpec:
    shape: list[int | str] = [_ANY if length < 0 else length for length in tensor.shape]
    if shape[:1] == [_ANY] and any(spec.shape[:1] == (SAMPLES,) for spec in inputs):
        shape[0] = SAMPLES
    return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=tuple(shape))


def _of_samples(info: EngineInfo) -> EngineTensor:
    """An input whose first axis is that of samples: the timestep, else the first one."""
    vectors = [tensor for tensor in info.inputs if len(tensor.shape) == 1]
    return (vectors or list(info.inputs))[0]


def _lengths(tensor: EngineTensor, info: EngineInfo) -> list[tuple[int, int, int] | None]:
    """Lengths of the first axis in every profile."""
    ranges = [profile.of(tensor.name) for profile in info.profiles]
    return [
        None if each is None else (each.minimum[0], each.optimum[0], each.maximum[0])
        for each in ranges
    ]
