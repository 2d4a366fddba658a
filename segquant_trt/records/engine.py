"""What a TensorRT engine is built with, and what is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from segquant_trt.errors import SegQuantError

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]
Refit = Literal["none", "identical", "any"]
MemoryPool = Literal["workspace", "tactic_shared_memory"]
TensorMode = Literal["input", "output"]

HARDWARE_COMPATIBILITIES: tuple[HardwareCompatibility, ...] = get_args(HardwareCompatibility)
REFITS: tuple[Refit, ...] = get_args(Refit)
MEMORY_POOLS: tuple[MemoryPool, ...] = get_args(MemoryPool)

_LIMITS: dict[str, tuple[int, int]] = {
    "optimization_level": (0, 5),
    "tiling_level": (0, 3),
    "max_tactics": (1, 2**31 - 1),
    "timing_iterations": (1, 1000),
    "max_aux_streams": (0, 64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """The least, the usual and the largest shape of one input.

    Raises:
        SegQuantError: they differ in rank, or are not in order on some axis.
    """

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        shapes = (self.minimum, self.optimum, self.maximum)
        if len({len(shape) for shape in shapes}) != 1:
            raise SegQuantError(
                f"the shapes of input '{self.name}' have {_ranks(shapes)} axes: "
                "minimum, optimum and maximum need as many",
                hint="give --minShapes, --optShapes and --maxShapes the same number of lengths",
            )
        for axis, (low, usual, high) in enumerate(zip(*shapes, strict=True)):
            if not 0 <= low <= usual <= high:
                raise SegQuantError(
                    f"axis {axis} of input '{self.name}' goes from {low} over {usual} to {high}; "
                    "needed: 0 <= minimum <= optimum <= maximum",
                    hint="put --minShapes, --optShapes and --maxShapes in this order",
                )

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` is inside."""
        return len(shape) == len(self.minimum) and all(
            low <= length <= high
            for low, length, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {shape_text(self.minimum)} to {shape_text(self.maximum)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfile:
    """An optimisation profile: the shapes that one set of kernels is chosen for.

    Raises:
        SegQuantError: an input is named twice.
    """

    inputs: tuple[ShapeRange, ...]

    def __post_init__(self) -> None:
        names = [each.name for each in self.inputs]
        for name in names:
            if names.count(name) > 1:
                raise SegQuantError(
                    f"input '{name}' is named twice in one profile",
                    hint="name every input once; --profile=N starts another profile",
                )

    def of(self, name: str) -> ShapeRange | None:
        """The range of the input `name`; None where the profile does not speak of it."""
        return next((each for each in self.inputs if each.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimit:
    """The most memory that the builder may use of one pool."""

    pool: MemoryPool
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Everything that building an engine can be told; None leaves TensorRT's own default.

    Types are the graph's: networks are always strongly typed. `refit` "identical" lets an engine
    take weights again that are the same as those that it was built with; `strip_weights` leaves
    them out of the file. `version_compatible` engines carry a runtime, which is code.

    Raises:
        SegQuantError: a value is outside what its option allows, or two contradict each other.
    """

    profiles: tuple[ShapeProfile, ...] = ()
    optimization_level: int | None = None
    tiling_level: int | None = None
    max_tactics: int | None = None
    timing_iterations: int | None = None
    max_aux_streams: int | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    refit: Refit = "none"
    strip_weights: bool = False
    weight_streaming: bool = False
    pools: tuple[PoolLimit, ...] = ()
    plugins: tuple[Path, ...] = ()
    serialize_plugins: bool = False
    timing_cache: Path | None = None
    use_timing_cache: bool = True
    verbose_log: Path | None = None
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            _check_whole(name, getattr(self, name), low, high)
        _check_choice("hardware_compatibility", self.hardware_compatibility)
        _check_choice("refit", self.refit)
        self._check_pools()
        self._check_pairs()

    def _check_pools(self) -> None:
        for limit in self.pools:
            if limit.pool not in MEMORY_POOLS or limit.size_bytes < 0:
                raise SegQuantError(
                    f"memory pool {limit.pool!r} of {limit.size_bytes} bytes is not allowed; "
                    f"pools: {', '.join(MEMORY_POOLS)}, sizes from 0",
                    hint="pass for example --memPoolSize=workspace:4G",
                )

    def _check_pairs(self) -> None:
        if self.strip_weights and self.refit == "none":
            raise SegQuantError(
                "an engine without weights that cannot be refitted would be of no use",
                hint="strip weights together with refit 'identical', or 'any'",
            )
        if self.exclude_lean_runtime and not self.version_compatible:
            raise SegQuantError(
                "only version-compatible engines hold a lean runtime that could be left out",
                hint="add --versionCompatible, or leave --excludeLeanRuntime out",
            )
        if self.serialize_plugins and not self.plugins:
            raise SegQuantError(
                "plugins are to be put into the engine, but none is named",
                hint="name the plugin library, or leave --setPluginsToSerialize out",
            )
        if self.serialize_plugins and not self.version_compatible:
            raise SegQuantError(
                "only version-compatible engines can carry plugin libraries",
                hint="add --versionCompatible, or leave --setPluginsToSerialize out",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine. A length of -1 is dynamic; `dtype` as in `TensorSpec`."""

    name: str
    mode: TensorMode
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginLibrary:
    """A library that an engine needs, by file name and content."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Beside every engine: where it runs, and what it was made from.

    `compute_capability` is that of the GPU, as "9.0". `weights_sha256` is known of engines that
    may be refitted with identical weights only. `driver` is empty where it could not be
    asked. `device_memory_bytes` is what one execution context takes for activations, as the
    engine says; None where the builder's machine could not load it.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    cuda: str
    engine_sha256: str
    engine_bytes: int
    onnx_sha256: str
    weights_sha256: str | None
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    weights_stripped: bool
    weight_streaming: bool
    refit: Refit
    profiles: tuple[ShapeProfile, ...]
    tensors: tuple[EngineTensor, ...]
    plugins: tuple[PluginLibrary, ...]
    device_memory_bytes: int | None
    command: str

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Tensors that the caller gives."""
        return tuple(each for each in self.tensors if each.mode == "input")

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Tensors that the engine answers with."""
        return tuple(each for each in self.tensors if each.mode == "output")


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as trtexec writes it; "scalar" for none of its own."""
    return "x".join(str(length) for length in shape) or "scalar"


def _ranks(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(str(len(shape)) for shape in shapes)


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and low <= value <= high):  # type: ignore[operator]
        raise SegQuantError(
            f"{name} is {value!r}; allowed: a whole number from {low} to {high}",
            hint="leave it out for TensorRT's own default",
        )


def _check_choice(name: str, value: str) -> None:
    allowed: tuple[str, ...] = {"refit": REFITS}.get(name, HARDWARE_COMPATIBILITIES)
    if value not in allowed:
        raise SegQuantError(
            f"{name} is {value!r}; allowed: {', '.join(allowed)}", hint="choose one of these"
        )
