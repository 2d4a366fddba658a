"""Real quantisation errors are not white: measure what one site alone does, and correct its gain.

Neighbouring tokens see nearly the same error, which attention does not average away; errors may
also lie where the network is insensitive. Each site is switched to plain INT8 in the float module,
one at a time, and the noise that reaches the output is compared with what its gain foretells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.models.family import Family
from segquant_trt.records import LinearSite
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.score.amplify import Gains, Inputs, bins_of, mean_per_bin

_LARGEST_FACTOR = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One site in plain INT8: its input's codes, and its weight float32[N, K] decoded."""

    site: LinearSite
    codes: Encoding
    weight: npt.NDArray[np.float32]


def corrected_gains(
    module: Any,
    family: Family,
    switches: Iterable[Switch],
    batches: Sequence[Inputs],
    gains: Gains,
    *,
    edges: Sequence[float],
    on_site: Callable[[], None] | None = None,
) -> Gains:
    """Gains that foretell, for plain INT8 at one site, the noise that was measured.

    Sites whose module runs more than once keep theirs.

    Args:
        module: the float denoiser.
        family: how its inputs nest.
        switches: the sites, in any order.
        batches: flat named inputs.
        gains: of white noise, see `amplify`.
        edges: lower edges of the timestep bins.
        on_site: called after each site.
    """
    import torch

    parts = dict(module.named_modules())
    found = dict(gains)
    with torch.inference_mode():
        nested = [_nested(family, inputs) for inputs in batches]
        calls = _calls(module, nested[0])
        exact = [module(**inputs, return_dict=False)[0] for inputs in nested]
        bins = [
            bins_of(inputs, family.timestep, edges, len(output))
            for inputs, output in zip(batches, exact, strict=True)
        ]
        for switch in switches:
            name, gain = switch.site.module, gains.get(switch.site.name)
            if name is not None and calls[name] == 1 and gain is not None:
                with _Switched(parts[name], switch) as switched:
                    pairs = [
                        _noise(module, inputs, reference, switched, gain[where])
                        for inputs, reference, where in zip(nested, exact, bins, strict=True)
                    ]
                found[switch.site.name] = _corrected(gain, np.concatenate(bins), np.vstack(pairs))
            if on_site is not None:
                on_site()
    return found


class _Switched:
    """A module whose output is that of coded inputs and weights.

    `power`: float64[S, N], the mean squared error of each sample's last output.
    """

    def __init__(self, part: Any, switch: Switch) -> None:
        import torch

        self.power: npt.NDArray[np.float64] | None = None
        self._part = part
        self._switch = switch
        self._axis = 1 if switch.site.op == "Conv" else -1
        self._weight = torch.from_numpy(switch.weight).reshape(part.weight.shape)
        self._busy = False

    def __enter__(self) -> _Switched:
        self._handle = self._part.register_forward_hook(self._hook)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _hook(self, part: Any, inputs: Any, output: Any) -> Any:
        from torch.func import functional_call

        if self._busy:
            return output
        self._busy = True
        try:
            coded = functional_call(part, {"weight": self._weight}, (self._coded(inputs[0]),))
        finally:
            self._busy = False
        error = (coded - output).double().movedim(self._axis, -1)
        rows = error.reshape(len(error), -1, error.shape[-1])
        self.power = rows.square().mean(dim=1).numpy()
        return coded

    def _coded(self, x: Any) -> Any:
        codes = self._switch.codes
        levels = (x / codes.scale).round() + codes.zero_point
        return (levels.clamp(0, 255) - codes.zero_point) * codes.scale


def _nested(family: Family, inputs: Inputs) -> dict[str, Any]:
    import torch

    return family.nest({name: torch.from_numpy(np.array(x)) for name, x in inputs.items()})


def _calls(module: Any, inputs: Mapping[str, Any]) -> Counter[str]:
    """How often each module runs in one call of the denoiser."""
    counts: Counter[str] = Counter()

    def count(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, _output: counts.update((name,))

    handles = [part.register_forward_hook(count(n)) for n, part in module.named_modules() if n]
    module(**inputs, return_dict=False)
    for handle in handles:
        handle.remove()
    return counts


def _noise(
    module: Any,
    inputs: Mapping[str, Any],
    reference: Any,
    switched: _Switched,
    gain: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Noise-to-signal power at the output, measured and foretold for white noise: float64[S, 2].

    `gain`: float64[S, N], that of each sample's bin.
    """
    output = module(**inputs, return_dict=False)[0]
    error = (output - reference).double().reshape(len(output), -1).square().sum(dim=1)
    signal = reference.double().reshape(len(output), -1).square().sum(dim=1)
    power = switched.power
    assert power is not None
    foretold = (np.broadcast_to(power, gain.shape) * gain).sum(axis=1)
    return np.stack([(error / signal.clamp_min(1e-30)).numpy(), foretold], axis=1)


def _corrected(
    gain: npt.NDArray[np.float64],
    where: npt.NDArray[np.intp],
    pairs: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The gain times measured over foretold noise, bin by bin."""
    noise = mean_per_bin(pairs, where, len(gain))
    factor = noise[:, 0] / np.maximum(noise[:, 1], 1e-30)
    result: npt.NDArray[np.float64] = (
        gain * np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)[:, None]
    )
    return result
