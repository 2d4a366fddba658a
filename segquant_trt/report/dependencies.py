"""Which Python packages are there, in which version, and how to get those that are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from segquant_trt.errors import MissingDependencyError

DISTRIBUTION = "segquant-trt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A package; `extra` is None for those that every installation has.

    `installed` is its version or None; `fits` whether that is one of the `wanted` versions;
    `command` what to run when it does not.
    """

    name: str
    extra: str | None
    wanted: str
    installed: str | None
    fits: bool
    command: str | None


def dependencies() -> tuple[Dependency, ...]:
    """Every dependency of the installed package, its own first, then by extra.

    Empty when the package runs from a source tree that was never installed.

    Raises:
        MissingDependencyError: `packaging` is not installed.
    """
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ()
    return parse_requirements(requirements)


def parse_requirements(requirements: Iterable[str]) -> tuple[Dependency, ...]:
    """Look up each PEP 508 requirement in this environment.

    Raises:
        MissingDependencyError: `packaging` is not installed.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        raise MissingDependencyError("packaging", extra=None, why="doctor") from error

    found = []
    for text in requirements:
        requirement = Requirement(text)
        extra = _extra(str(requirement.marker or ""))
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""})
        if requirement.name == DISTRIBUTION or not applies:
            continue
        installed = installed_version(requirement.name)
        fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        found.append(
            Dependency(
                name=requirement.name,
                extra=extra,
                wanted=str(requirement.specifier),
                installed=installed,
                fits=fits,
                command=None if fits else _command(requirement.name, requirement.specifier, extra),
            )
        )
    return tuple(sorted(found, key=lambda item: (item.extra or "", item.name.lower())))


def _command(name: str, specifier: object, extra: str | None) -> str:
    wanted = f"{DISTRIBUTION}[{extra}]" if extra else f"{name}{specifier}"
    return f"pip install '{wanted}'"


def _extra(marker: str) -> str | None:
    _, found, rest = marker.partition('extra == "')
    return rest.split('"', 1)[0] if found else None


def installed_version(name: str) -> str | None:
    """The version of a distribution in this environment, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
