"""Options of a build as TensorRT's own configuration: profiles, flags, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_never

from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import (
    BuildOptions,
    HardwareCompatibility,
    MemoryPool,
    ShapeProfile,
    shape_text,
)

if TYPE_CHECKING:
    import tensorrt as trt

Shapes = Mapping[str, tuple[int, ...]]


def make_config(
    module: Any, builder: trt.Builder, options: BuildOptions, inputs: Shapes
) -> trt.IBuilderConfig:
    """A configuration for a strongly typed network with these inputs.

    Layers are described in detail: without that nothing could be proved of the engine.

    Raises:
        SegQuantError: the profiles do not fit the network's inputs.
    """
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    for flag in _flags(module, options):
        config.set_flag(flag)
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = _hardware(module, options.hardware_compatibility)
    for limit in options.pools:
        config.set_memory_pool_limit(_pool(module, limit.pool), limit.size_bytes)
    _set_numbers(module, config, options)
    for profile in complete_profiles(options.profiles, inputs):
        _add_profile(builder, config, profile)
    return config


def complete_profiles(profiles: tuple[ShapeProfile, ...], inputs: Shapes) -> list[ShapeProfile]:
    """The profiles, checked against the network's inputs (-1: dynamic); none for a static network.

    Raises:
        SegQuantError: a dynamic input has no shapes, an input is unknown, or a length is fixed.
    """
    dynamic = [name for name, shape in inputs.items() if -1 in shape]
    if dynamic and not profiles:
        raise SegQuantError(
            f"input '{dynamic[0]}' has dynamic lengths {_dynamic(inputs[dynamic[0]])}, and no "
            "profile says which are to be served",
            hint="pass --minShapes, --optShapes and --maxShapes for "
            + ", ".join(f"{name}:{_dynamic(inputs[name])}" for name in dynamic),
        )
    for index, profile in enumerate(profiles):
        for name in dynamic:
            if profile.of(name) is None:
                raise SegQuantError(
                    f"profile {index} has no shapes for the dynamic input '{name}' "
                    f"{_dynamic(inputs[name])}",
                    hint=f"add {name}:... to each of the profile's flags",
                )
        _check_profile(index, profile, inputs)
    return list(profiles)


def _check_profile(index: int, profile: ShapeProfile, inputs: Shapes) -> None:
    for bounds in profile.inputs:
        shape = inputs.get(bounds.name)
        if shape is None:
            raise SegQuantError(
                f"profile {index} has shapes for '{bounds.name}', which the graph has no input of",
                hint=f"its inputs are {', '.join(inputs)}",
            )
        fits = len(shape) == len(bounds.minimum) and all(
            length == -1 or low == high == length
            for length, low, high in zip(shape, bounds.minimum, bounds.maximum, strict=True)
        )
        if not fits:
            raise SegQuantError(
                f"profile {index} gives {bounds}, but the graph's input is {_dynamic(shape)}",
                hint="give lengths for ? only, and repeat the others as they are",
            )


def _dynamic(shape: tuple[int, ...]) -> str:
    return shape_text(shape).replace("-1", "?")


def _flags(module: Any, options: BuildOptions) -> list[trt.BuilderFlag]:
    flag = module.BuilderFlag
    wanted = [
        (options.version_compatible, flag.VERSION_COMPATIBLE),
        (options.exclude_lean_runtime, flag.EXCLUDE_LEAN_RUNTIME),
        (options.refit == "identical", flag.REFIT_IDENTICAL),
        (options.refit == "any", flag.REFIT),
        (options.strip_weights, flag.STRIP_PLAN),
        (options.weight_streaming, flag.WEIGHT_STREAMING),
        (not options.use_timing_cache, flag.DISABLE_TIMING_CACHE),
    ]
    return [each for condition, each in wanted if condition]


def _hardware(module: Any, level: HardwareCompatibility) -> trt.HardwareCompatibilityLevel:
    levels = module.HardwareCompatibilityLevel
    match level:
        case "none":
            return levels.NONE
        case "ampere_plus":
            return levels.AMPERE_PLUS
        case "same_compute_capability":
            return levels.SAME_COMPUTE_CAPABILITY
        case _:
            assert_never(level)


def _pool(module: Any, pool: MemoryPool) -> trt.MemoryPoolType:
    match pool:
        case "workspace":
            return module.MemoryPoolType.WORKSPACE
        case "tactic_shared_memory":
            return module.MemoryPoolType.TACTIC_SHARED_MEMORY
        case _:
            assert_never(pool)


def _set_numbers(module: Any, config: trt.IBuilderConfig, options: BuildOptions) -> None:
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tiling_level is not None:
        levels = module.TilingOptimizationLevel
        order = (levels.NONE, levels.FAST, levels.MODERATE, levels.FULL)
        config.tiling_optimization_level = order[options.tiling_level]
    if options.max_tactics is not None:
        config.max_num_tactics = options.max_tactics
    if options.timing_iterations is not None:
        config.avg_timing_iterations = options.timing_iterations
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams


def _add_profile(builder: trt.Builder, config: trt.IBuilderConfig, profile: ShapeProfile) -> None:
    made: trt.IOptimizationProfile = builder.create_optimization_profile()
    for bounds in profile.inputs:
        made.set_shape(bounds.name, bounds.minimum, bounds.optimum, bounds.maximum)
    if config.add_optimization_profile(made) < 0:
        raise SegQuantError(
            f"TensorRT refuses the profile {'; '.join(map(str, profile.inputs))}",
            hint="lengths that a Reshape joins must agree over all inputs",
        )
