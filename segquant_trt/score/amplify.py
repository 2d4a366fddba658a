"""How strongly noise at a site's output reaches the denoiser's output.

With J the Jacobian from a site's output y to the denoiser's output O, white noise of power e in
channel n of y appears in O with power `e sum_positions |J column|^2`. One backward pass with a
random cotangent v gives `g = J^T v`, whose square has that sum as its expectation (Hutchinson).
Curvature is neglected: the noise of 8-bit codes is small.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.models.family import Family
from segquant_trt.records import LinearSite

Gains = dict[str, npt.NDArray[np.float64]]
Inputs = Mapping[str, npt.NDArray[np.generic]]

_COTANGENTS = 4


def backward_gains(
    module: Any,
    family: Family,
    sites: Sequence[LinearSite],
    batches: Iterable[Inputs],
    *,
    edges: Sequence[float],
    on_batch: Callable[[], None] | None = None,
) -> Gains:
    """Noise gain of every site that is a torch module: float64[B, N] over bins and channels.

    `gain[b, n]` times the noise power of one element of channel n is the noise-to-signal power at
    the denoiser's output, averaged over the samples of timestep bin b. Bins without a sample take
    the nearest one's. Sites that are not found in the module are left out.

    Args:
        module: the float denoiser.
        family: how its inputs nest.
        sites: in graph order.
        batches: flat named inputs.
        edges: lower edges of the timestep bins.
        on_batch: called after each batch.
    """
    import torch

    bins = max(len(edges), 1)
    sums: dict[str, dict[int, Any]] = defaultdict(dict)
    counts = np.zeros(bins, dtype=np.int64)
    watch = _Watch(module, sites)
    generator = torch.Generator().manual_seed(0)
    with watch:
        for inputs in batches:
            index = _bin(inputs, family.timestep, edges)
            for _ in range(_COTANGENTS):
                samples = watch.backward(family, inputs, generator)
                for name, energy in watch.energies().items():
                    previous = sums[name].get(index)
                    sums[name][index] = energy if previous is None else previous + energy
                counts[index] += samples
            if on_batch is not None:
                on_batch()
    return {
        name: _filled([by_bin.get(i) for i in range(bins)], counts) for name, by_bin in sums.items()
    }


class _Watch:
    """Hooks on the sites' modules that keep the energy of every output's gradient."""

    def __init__(self, module: Any, sites: Sequence[LinearSite]) -> None:
        self._module = module
        self._calls: dict[str, list[LinearSite]] = defaultdict(list)
        for site in sites:
            if site.module is not None:
                self._calls[site.module].append(site)
        self._seen: dict[str, int] = {}
        self._found: dict[str, Any] = {}
        self._weights: Any = None
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, part in self._module.named_modules():
            if name in self._calls and getattr(part, "weight", None) is not None:
                self._handles.append(part.register_forward_hook(self._hook(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[Any, Any, Any], Any]:
        def note(_module: Any, _inputs: Any, output: Any) -> Any:
            call = self._seen.get(name, 0)
            self._seen[name] = call + 1
            if call >= len(self._calls[name]):
                return output
            site = self._calls[name][call]
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            output.register_hook(lambda gradient: self._keep(site, gradient))
            return output

        return note

    def _keep(self, site: LinearSite, gradient: Any) -> None:
        axis = 1 if site.op == "Conv" else -1
        moved = gradient.detach().double().movedim(axis, -1)
        per_sample = moved.square().reshape(len(moved), -1, moved.shape[-1]).sum(dim=1)
        if len(per_sample) == len(self._weights):
            self._found[site.name] = (per_sample * self._weights[:, None]).sum(dim=0).numpy()

    def energies(self) -> dict[str, Any]:
        """Per site float64[N]: sum over samples of squared gradients over the output's energy."""
        found, self._found = self._found, {}
        return found

    def backward(self, family: Family, inputs: Inputs, generator: Any) -> int:
        """One forward and one backward pass; the number of samples."""
        import torch

        self._seen = {}
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        with torch.enable_grad():
            output = self._module(**family.nest(tensors), return_dict=False)[0]
            energy = output.detach().double().square().reshape(len(output), -1).sum(dim=1)
            self._weights = 1.0 / energy.clamp_min(1e-30)
            cotangent = torch.randn(output.shape, generator=generator)
            (output * cotangent).sum().backward()
        return len(output)


def _bin(inputs: Inputs, timestep: str, edges: Sequence[float]) -> int:
    if not edges or timestep not in inputs:
        return 0
    return max(bisect_right(edges, float(np.ravel(inputs[timestep])[0])) - 1, 0)


def _filled(
    by_bin: Sequence[npt.NDArray[np.float64] | None], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sums over samples as means; an empty bin takes its nearest neighbour's."""
    known = [index for index, value in enumerate(by_bin) if value is not None]
    rows = []
    for index in range(len(by_bin)):
        nearest = min(known, key=lambda other: (abs(other - index), other))
        value = by_bin[nearest]
        assert value is not None
        rows.append(value / counts[nearest])
    return np.stack(rows)
