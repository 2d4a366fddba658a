"""`doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt import __version__
from segquant_trt.records import DISTRIBUTIONS, TARGETS, Target
from segquant_trt.records.costs import table_advice
from segquant_trt.report.dependencies import (
    DISTRIBUTION,
    Dependency,
    dependencies,
    installed_version,
)
from segquant_trt.report.description import Column, Description, Property, Table
from segquant_trt.report.machine import (
    Gpu,
    Processor,
    cuda_compiler,
    disk_free_bytes,
    gpus,
    memory_bytes,
    processor,
)

_TOOLS = frozenset(("test", "dev"))
_INSTRUCTIONS: tuple[tuple[str, str], ...] = (
    ("amx_int8", "INT8 tiles: large matrices run several times faster than float"),
    ("avx512_vnni", "INT8 dot products in one instruction: INT8 is faster than float"),
    ("avx_vnni", "INT8 dot products in one instruction: INT8 is faster than float"),
    ("i8mm", "INT8 matrix products: INT8 is faster than float"),
    ("asimddp", "INT8 dot products: INT8 is faster than float"),
    ("avx512f", "wide vectors; without VNNI, INT8 products are added in 16 bits and can saturate"),
    ("avx2", "without dot products, INT8 products are added in 16 bits and can saturate"),
)
_DOT_PRODUCTS = frozenset(("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usability:
    """Whether plans for `target` can be built and run here, and why not."""

    target: Target
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that `doctor` found."""

    python: str
    system: str
    processor: Processor
    memory_bytes: int | None
    memory_available_bytes: int | None
    disk_free_bytes: int | None
    gpus: tuple[Gpu, ...]
    cuda_compiler: str | None
    dependencies: tuple[Dependency, ...]
    targets: tuple[Usability, ...]
    prices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return self.description().as_dict()

    def text(self) -> str:
        """For a terminal."""
        return self.description().text(rows=None)

    def description(self) -> Description:
        """The findings as properties, tables and advice."""
        return Description(
            kind=f"segquant-trt {__version__}",
            properties=(
                Property(name="python", value=self.python),
                Property(name="system", value=self.system),
                Property(name="processor", value=self.processor.name),
                Property(name="cores", value=self.processor.cores),
                Property(name="memory", value=self.memory_bytes, unit="bytes"),
                Property(name="memory available", value=self.memory_available_bytes, unit="bytes"),
                Property(name="disk free here", value=self.disk_free_bytes, unit="bytes"),
                Property(name="nvcc", value=self.cuda_compiler),
            ),
            tables=(
                _targets_table(self.targets),
                _instructions_table(self.processor),
                *(() if not self.gpus else (_gpus_table(self.gpus),)),
                _dependencies_table(self.dependencies),
            ),
            notes=tuple(_advice(self)),
        )


def examine() -> Diagnosis:
    """Look at this machine and this Python environment. Changes nothing, imports no backend.

    Raises:
        MissingDependencyError: `packaging` is not installed.
    """
    total, available = memory_bytes()
    found = dependencies()
    targets = usable_targets(found)
    complete = all(item.fits for item in found if item.extra is None)
    usable = [item.target for item in targets if item.usable and complete]
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        processor=processor(),
        memory_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=disk_free_bytes(Path.cwd()),
        gpus=gpus(),
        cuda_compiler=cuda_compiler(),
        dependencies=found,
        targets=targets,
        prices=tuple(filter(None, map(table_advice, usable))),
    )


def usable_targets(found: Iterable[Dependency]) -> tuple[Usability, ...]:
    """A target is usable when its package is there in a fitting version."""
    by_name = {item.name: item for item in found if item.extra not in _TOOLS}
    results = []
    for target in TARGETS:
        item = by_name.get(DISTRIBUTIONS[target])
        usable = item is not None and item.fits
        if item is None:
            version = installed_version(DISTRIBUTIONS[target])
            usable = version is not None
            reason = f"{target} {version or 'is not installed'}"
        elif item.fits:
            reason = f"{target} {item.installed}"
        elif item.installed:
            reason = f"{target} {item.installed} does not fit {item.wanted}"
        else:
            reason = f"not installed: {item.command}"
        results.append(Usability(target=target, usable=usable, reason=reason))
    return tuple(results)


def _advice(diagnosis: Diagnosis) -> Iterable[str]:
    flags = diagnosis.processor.flags
    if flags and not flags & _DOT_PRODUCTS:
        yield (
            "this processor has no INT8 dot products: quantised models are smaller, and faster "
            "only where large matrices dominate; judge speed with 'segquant-trt bench'"
        )
    if not diagnosis.dependencies:
        yield f"{DISTRIBUTION} is not installed as a package: pip install -e ."
    for item in diagnosis.dependencies:
        if not item.fits and item.extra is None:
            yield f"{item.name} {item.wanted} is needed by every command: {item.command}"
    yield from diagnosis.prices


def _targets_table(targets: Iterable[Usability]) -> Table:
    return Table(
        title="targets",
        columns=(Column(name="target"), Column(name="usable"), Column(name="why")),
        rows=tuple((item.target, item.usable, item.reason) for item in targets),
    )


def _instructions_table(cpu: Processor) -> Table:
    return Table(
        title="instruction sets",
        columns=(Column(name="name"), Column(name="meaning")),
        rows=tuple((name, meaning) for name, meaning in _INSTRUCTIONS if name in cpu.flags),
    )


def _gpus_table(found: Iterable[Gpu]) -> Table:
    return Table(
        title="GPUs",
        columns=(
            Column(name="name"),
            Column(name="memory", unit="bytes"),
            Column(name="driver"),
            Column(name="compute capability"),
        ),
        rows=tuple(
            (gpu.name, gpu.memory_bytes, gpu.driver, gpu.compute_capability) for gpu in found
        ),
    )


def _dependencies_table(found: Iterable[Dependency]) -> Table:
    return Table(
        title="packages",
        columns=tuple(
            Column(name=name) for name in ("package", "extra", "installed", "wanted", "to install")
        ),
        # What only this project's own tests need is nobody else's gap.
        rows=tuple(
            (item.name, item.extra, item.installed, item.wanted or "any", item.command)
            for item in found
            if item.extra not in _TOOLS
        ),
    )
