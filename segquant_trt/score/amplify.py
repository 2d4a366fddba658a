"""How strongly noise at a site's output reaches the denoiser's output.

With J the Jacobian from a site's output y to the denoiser's output O, white noise of power e in
channel n of y appears in O with power `e sum_positions |J column|^2`. One backward pass with a
random cotangent v gives `g = J^T v`, whose square has that sum as its expectation (Hutchinson).
Curvature is neglected: the noise of 8-bit codes is small. That errors are not white is what
`coherence` makes up for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.graph.wiring import Wiring, read_tensors
from segquant_trt.models.family import Family
from segquant_trt.records import LinearSite

Gains = dict[str, npt.NDArray[np.float64]]
Inputs = Mapping[str, npt.NDArray[np.generic]]

_COTANGENTS = 8


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

    energies: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    bins: list[npt.NDArray[np.intp]] = []
    watch = _Watch(module, sites)
    generator = torch.Generator().manual_seed(0)
    with watch:
        for inputs in batches:
            for _ in range(_COTANGENTS):
                found = watch.backward(family, inputs, generator)
                for name, energy in found.items():
                    energies[name].append(energy)
                samples = len(next(iter(found.values()), ()))
                bins.append(bins_of(inputs, family.timestep, edges, samples))
            if on_batch is not None:
                on_batch()
    where = np.concatenate(bins)
    return {
        name: mean_per_bin(np.concatenate(parts), where, max(len(edges), 1))
        for name, parts in energies.items()
        if sum(map(len, parts)) == len(where)
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
        self._found: dict[str, npt.NDArray[np.float64]] = {}
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
                # Not the leaf itself: what follows may change it in place.
                output = output.detach().requires_grad_().clone()
            output.register_hook(lambda gradient: self._keep(site, gradient))
            return output

        return note

    def _keep(self, site: LinearSite, gradient: Any) -> None:
        axis = 1 if site.op == "Conv" else -1
        moved = gradient.detach().double().movedim(axis, -1)
        per_sample = moved.square().reshape(len(moved), -1, moved.shape[-1]).sum(dim=1)
        if len(per_sample) == len(self._weights):
            self._found[site.name] = (per_sample * self._weights[:, None]).numpy()

    def backward(
        self, family: Family, inputs: Inputs, generator: Any
    ) -> dict[str, npt.NDArray[np.float64]]:
        """One forward and one backward pass.

        Returns:
            Per site float64[S, N]: squared gradients over the energy of the sample's output.
        """
        import torch

        self._seen, self._found = {}, {}
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        with torch.enable_grad():
            output = self._module(**family.nest(tensors), return_dict=False)[0]
            energy = output.detach().double().square().reshape(len(output), -1).sum(dim=1)
            self._weights = 1.0 / energy.clamp_min(1e-30)
            cotangent = torch.randn(output.shape, generator=generator)
            (output * cotangent).sum().backward()
        return self._found


def unreached(wiring: Wiring, sites: Sequence[LinearSite]) -> frozenset[str]:
    """Sites from whose output no path leads to an output of the graph."""
    useful = set(wiring.graph_outputs)
    for node in reversed(wiring.nodes):
        if not useful.isdisjoint(node.output):
            useful.update(read_tensors(node))
    return frozenset(site.name for site in sites if site.output not in useful)


def bins_of(
    inputs: Inputs, timestep: str, edges: Sequence[float], samples: int
) -> npt.NDArray[np.intp]:
    """The timestep bin of every sample of a call, [S]."""
    if not edges or timestep not in inputs:
        return np.zeros(samples, dtype=np.intp)
    steps = np.broadcast_to(np.ravel(inputs[timestep]).astype(np.float64), (samples,))
    return np.maximum(np.searchsorted(np.asarray(edges), steps, side="right") - 1, 0)


def mean_per_bin(
    values: npt.NDArray[np.float64], where: npt.NDArray[np.intp], bins: int
) -> npt.NDArray[np.float64]:
    """Means float64[bins, N] of values [S, N]; an empty bin takes its nearest neighbour's."""
    known = np.unique(where)
    rows = []
    for index in range(bins):
        nearest = known[int(np.argmin(np.abs(known - index)))]
        rows.append(values[where == nearest].mean(axis=0))
    return np.stack(rows)
