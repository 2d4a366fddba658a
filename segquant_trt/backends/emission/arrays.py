"""Arrays that a plan names by content key: divisors, optimised weights, output ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import LinearSite, QuantPlan, SitePlan
from segquant_trt.records.scores import read_arrays, treatment_keys

Arrays = Mapping[str, npt.NDArray[np.generic]]
Float = npt.NDArray[np.float32]

# A channel that hardly varies needs no finer steps than this share of the widest channel's.
_FINEST_STEP = 2.0**-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelSteps:
    """Codes of requantised outputs, channel by channel: `y ~ step (code - zero_point)`.

    `step`: float32[N]; `zero_point`: uint8[N]; every range includes zero.
    """

    step: Float
    zero_point: npt.NDArray[np.uint8]


class StoredArrays(Mapping[str, npt.NDArray[np.generic]]):
    """The arrays of `scores.safetensors` that a plan names, each read when it is asked for.

    Args:
        path: the file; it need not exist where the plan names no array.
        plan: whose arrays are wanted.

    Asking for an array raises SegQuantError when the file cannot be read or lacks it.
    """

    def __init__(self, path: Path, plan: QuantPlan) -> None:
        self._path = path
        self._keys = dict.fromkeys(key for site in plan.sites for key in array_keys(site))

    def __getitem__(self, key: str) -> npt.NDArray[np.generic]:
        if key not in self._keys:
            raise KeyError(key)
        found: npt.NDArray[np.generic] = read_arrays(self._path, [key])[key]
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def array_keys(plan: SitePlan) -> tuple[str, ...]:
    """The arrays that a site's plan names."""
    ranges = () if plan.output_channels is None else (plan.output_channels,)
    return (*treatment_keys(plan.treatment), *ranges)


def divisor_of(site: LinearSite, plan: SitePlan, arrays: Arrays) -> Float | None:
    """The smoothing divisor per input channel, float32[C]; None where it is all ones.

    Raises:
        SegQuantError: another length, or not positive and finite.
    """
    if plan.treatment.smoothing is None:
        return None
    key = plan.treatment.smoothing.divisor
    divisor = np.asarray(arrays[key], dtype=np.float32)
    if divisor.shape != (site.in_features,):
        raise _misfit(site, key, divisor.shape, (site.in_features,))
    if not (np.isfinite(divisor).all() and (divisor > 0.0).all()):
        raise SegQuantError(
            f"site '{site.name}': divisor '{key}' has values that are not positive and finite",
            hint="run 'segquant-trt score' and 'segquant-trt plan' again",
        )
    return None if (divisor == 1.0).all() else divisor


def channel_steps(site: LinearSite, key: str, arrays: Arrays) -> ChannelSteps:
    """Steps of the output ranges float32[2, N] called `key`.

    Raises:
        SegQuantError: another shape, or not finite.
    """
    ranges = np.asarray(arrays[key], dtype=np.float64)
    if ranges.shape != (2, site.out_features):
        raise _misfit(site, key, ranges.shape, (2, site.out_features))
    if not np.isfinite(ranges).all():
        raise SegQuantError(
            f"site '{site.name}': output ranges '{key}' hold NaN or infinity",
            hint="calibrate, score and plan again; the float model produced NaN or infinity",
        )
    low, high = np.minimum(ranges[0], 0.0), np.maximum(ranges[1], 0.0)
    step = (high - low) / 255.0
    least = max(float(step.max(initial=0.0)) * _FINEST_STEP, float(np.finfo(np.float32).tiny))
    exact = np.maximum(step, least).astype(np.float32)
    zero = np.clip(np.rint(-low / exact), 0, 255).astype(np.uint8)
    return ChannelSteps(step=exact, zero_point=zero)


def _misfit(
    site: LinearSite, key: str, found: tuple[int, ...], wanted: tuple[int, ...]
) -> SegQuantError:
    return SegQuantError(
        f"site '{site.name}': array '{key}' has shape {list(found)}, {list(wanted)} is needed",
        hint="undo the edit of the plan, or run 'segquant-trt score' and 'plan' again",
    )
