"""trtexec's own notation: its flags for shapes and pools, and the command that equals a build."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import (
    BuildOptions,
    HardwareCompatibility,
    MemoryPool,
    PoolLimit,
    ShapeProfile,
    ShapeRange,
    shape_text,
)

Shapes = Mapping[str, tuple[int, ...]]

_POOLS: dict[str, MemoryPool] = {
    "workspace": "workspace",
    "tacticSharedMem": "tactic_shared_memory",
}
_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_MIB = 2**20
_HARDWARE: dict[HardwareCompatibility, str] = {
    "ampere_plus": "ampere+",
    "same_compute_capability": "sameComputeCapability",
}
# A name ends at the last colon; in single quotes it may hold commas too.
_SHAPE = re.compile(r"\s*(?:'(?P<quoted>[^']*)'|(?P<name>[^',][^,]*)):(?P<shape>[^,:]*)\s*")


def parse_shapes(text: str, *, flag: str = "--shapes") -> dict[str, tuple[int, ...]]:
    """`a:1x2,'b,c':3,d:scalar` as shapes by input, in order.

    Raises:
        SegQuantError: naming `flag` and the part that has another form.
    """
    found: dict[str, tuple[int, ...]] = {}
    position = 0
    while position <= len(text):
        match = _SHAPE.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise _not_shapes(flag, text[position:] or text)
        name = match["quoted"] if match["quoted"] is not None else match["name"].strip()
        if name in found:
            raise SegQuantError(
                f"{flag} names input '{name}' twice", hint="name every input once per profile"
            )
        found[name] = _shape(flag, name, match["shape"].strip())
        position = match.end() + 1
    return found


def _shape(flag: str, name: str, text: str) -> tuple[int, ...]:
    if text in ("scalar", ""):
        return ()
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise _not_shapes(flag, f"{name}:{text}")
    return tuple(int(part) for part in parts)


def _not_shapes(flag: str, text: str) -> SegQuantError:
    return SegQuantError(
        f"{flag} has {text!r}; needed: NAME:LENGTHxLENGTH..., several joined by commas",
        hint=f"for example {flag}=sample:2x4x64x64,timestep:1",
    )


def make_profile(
    *, minimum: str | None = None, optimum: str | None = None, maximum: str | None = None
) -> ShapeProfile:
    """A profile from the values of --minShapes, --optShapes and --maxShapes.

    As in trtexec one that is missing takes its shapes from the next larger, else the next
    smaller one; an input has to be in all that are given.

    Raises:
        SegQuantError: none is given, one has another form, or they name different inputs.
    """
    given = {
        flag: parse_shapes(text, flag=flag)
        for flag, text in (
            ("--minShapes", minimum),
            ("--optShapes", optimum),
            ("--maxShapes", maximum),
        )
        if text is not None
    }
    if not given:
        raise SegQuantError(
            "a profile has no shapes", hint="pass --minShapes, --optShapes and --maxShapes"
        )
    _check_same_inputs(given)
    least = given.get("--minShapes") or given.get("--optShapes") or given["--maxShapes"]
    most = given.get("--maxShapes") or given.get("--optShapes") or given["--minShapes"]
    usual = given.get("--optShapes") or most
    return ShapeProfile(
        inputs=tuple(
            ShapeRange(name=name, minimum=least[name], optimum=usual[name], maximum=most[name])
            for name in least
        )
    )


def make_profiles(
    minimum: Sequence[str] = (), optimum: Sequence[str] = (), maximum: Sequence[str] = ()
) -> tuple[ShapeProfile, ...]:
    """Profiles from flags that are given once per profile, in the profiles' order.

    Raises:
        SegQuantError: one flag is given more often than another, or as `make_profile`.
    """
    given = {"--minShapes": minimum, "--optShapes": optimum, "--maxShapes": maximum}
    counts = {flag: len(texts) for flag, texts in given.items() if texts}
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{flag} {count} time(s)" for flag, count in counts.items())
        raise SegQuantError(
            f"{told}: each has to be given once per profile",
            hint="repeat all of a profile's flags, as --minShapes=... --maxShapes=... for each",
        )
    count = max(counts.values(), default=0)
    return tuple(
        make_profile(
            minimum=minimum[index] if minimum else None,
            optimum=optimum[index] if optimum else None,
            maximum=maximum[index] if maximum else None,
        )
        for index in range(count)
    )


def _check_same_inputs(given: Mapping[str, Shapes]) -> None:
    (first, wanted), *others = given.items()
    for flag, shapes in others:
        odd = sorted(wanted.keys() ^ shapes.keys())
        if odd:
            with_it, without = (first, flag) if odd[0] in wanted else (flag, first)
            raise SegQuantError(
                f"input '{odd[0]}' is in {with_it} and not in {without}",
                hint="name the same inputs in all of a profile's flags",
            )


def parse_pools(text: str) -> tuple[PoolLimit, ...]:
    """`workspace:4G,tacticSharedMem:64K` as limits; a plain number counts MiB.

    Raises:
        SegQuantError: an unknown pool, or a size of another form.
    """
    limits: dict[MemoryPool, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([BKMG]?)", size.strip())
        if name not in _POOLS or match is None:
            raise SegQuantError(
                f"--memPoolSize has {part.strip()!r}; needed: POOL:SIZE with POOL one of "
                f"{', '.join(_POOLS)} and SIZE in MiB or with B, K, M or G behind it",
                hint="for example --memPoolSize=workspace:4G",
            )
        limits[_POOLS[name]] = int(float(match[1]) * _UNITS.get(match[2], _MIB))
    return tuple(PoolLimit(pool=pool, size_bytes=size) for pool, size in limits.items())


def trtexec_command(
    options: BuildOptions, onnx: Path, engine: Path, *, layers: Path | None = None
) -> str:
    """The shell command that has NVIDIA's tool build the same engine.

    trtexec has no flag for REFIT_IDENTICAL alone: with --stripWeights it is what it does.
    """
    parts = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}", "--stronglyTyped"]
    parts += _profile_flags(options.profiles)
    parts += _number_flags(options)
    parts += _kind_flags(options)
    if options.pools:
        names = {pool: name for name, pool in _POOLS.items()}
        sizes = ",".join(f"{names[each.pool]}:{_size(each.size_bytes)}" for each in options.pools)
        parts.append(f"--memPoolSize={sizes}")
    if options.timing_cache is not None and options.use_timing_cache:
        parts.append(f"--timingCacheFile={options.timing_cache}")
    parts.append("--profilingVerbosity=detailed")
    if layers is not None:
        parts.append(f"--exportLayerInfo={layers}")
    parts += [f"--dynamicPlugins={library}" for library in options.plugins]
    if options.serialize_plugins:
        parts += [f"--setPluginsToSerialize={library}" for library in options.plugins]
    parts.append("--skipInference")
    return " ".join(shlex.quote(part) for part in parts)


def _profile_flags(profiles: Sequence[ShapeProfile]) -> list[str]:
    flags: list[str] = []
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            flags.append(f"--profile={index}")
        for flag in ("min", "opt", "max"):
            shapes = ",".join(
                f"{_name(each.name)}:{shape_text(_bound(each, flag))}" for each in profile.inputs
            )
            if shapes:
                flags.append(f"--{flag}Shapes={shapes}")
    return flags


def _name(name: str) -> str:
    return f"'{name}'" if re.search(r"[,:\s]", name) else name


def _bound(bounds: ShapeRange, flag: str) -> tuple[int, ...]:
    return {"min": bounds.minimum, "opt": bounds.optimum, "max": bounds.maximum}[flag]


def _number_flags(options: BuildOptions) -> list[str]:
    numbers = {
        "builderOptimizationLevel": options.optimization_level,
        "tilingOptimizationLevel": options.tiling_level,
        "maxTactics": options.max_tactics,
        "avgTiming": options.timing_iterations,
        "maxAuxStreams": options.max_aux_streams,
    }
    return [f"--{flag}={value}" for flag, value in numbers.items() if value is not None]


def _kind_flags(options: BuildOptions) -> list[str]:
    level = _HARDWARE.get(options.hardware_compatibility)
    chosen = {
        "--versionCompatible": options.version_compatible,
        "--excludeLeanRuntime": options.exclude_lean_runtime,
        f"--hardwareCompatibilityLevel={level}": level is not None,
        "--refit": options.refit == "any",
        "--stripWeights": options.strip_weights,
        "--allowWeightStreaming": options.weight_streaming,
    }
    return [flag for flag, wanted in chosen.items() if wanted]


def _size(size_bytes: int) -> str:
    for unit in ("G", "M", "K"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return f"{size_bytes}B"
