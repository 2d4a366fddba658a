"""Corrected gains foretell exactly what one site in plain INT8 does, measured by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segquant_trt.records import LinearSite, Symmetric, WeightPlan
from segquant_trt.schemes import quantize_weight, symmetric
from segquant_trt.score.amplify import backward_gains
from segquant_trt.score.coherence import Switch, corrected_gains
from tests.score.denoisers import (
    CALLS,
    FAMILY,
    SITES,
    Changed,
    Denoiser,
    inputs_of,
    run,
    site,
)

EDGES = (0.0, 400.0, 700.0)
BATCHES = [inputs_of(1, [10.0, 390.0, 400.0]), inputs_of(2, [950.0, 399.0])]
BINS = np.array([0, 0, 1, 2, 0])
ONCE = [s for s in SITES if s.name in ("embed", "mod", "conv", "out")]
SCALES = {"embed": 0.02, "mod": 0.011, "conv": 0.03, "out": 0.025}


def rows_of(module: Denoiser, wanted: LinearSite) -> np.ndarray:
    weight = module.get_submodule(wanted.module).weight.numpy()
    return weight.reshape(len(weight), -1)


def switch(module: Denoiser, wanted: LinearSite, scale: float) -> Switch:
    decoded = quantize_weight(rows_of(module, wanted), WeightPlan()).dequantize()
    return Switch(site=wanted, codes=symmetric.encoding(Symmetric(scale=scale)), weight=decoded)


def coded(module: Denoiser, wanted: LinearSite, scale: float):
    """The site's output by ONNX's formulas: int8 codes of input and weight, float64 products."""
    inputs: list[np.ndarray] = []
    handle = module.get_submodule(wanted.module).register_forward_pre_hook(
        lambda _, given: inputs.append(given[0].numpy())
    )
    part = module.get_submodule(wanted.module)

    def change(_: torch.Tensor) -> torch.Tensor:
        x = inputs[-1]
        levels = np.clip(np.rint(x / np.float32(scale)), -128, 127) * np.float64(scale)
        step = np.abs(rows_of(module, wanted)).max(axis=1) / np.float32(127)
        weight = np.rint(rows_of(module, wanted) / step[:, None]) * step[:, None]
        own = torch.from_numpy(weight).double().reshape(part.weight.shape)
        bias = part.bias.double()
        x64 = torch.from_numpy(levels)
        if wanted.op == "Conv":
            padding = wanted.kernel[0] // 2
            return torch.nn.functional.conv2d(x64, own, bias, padding=padding).float()
        return torch.nn.functional.linear(x64, own, bias).float()

    return handle, change


@pytest.mark.parametrize("wanted", ONCE, ids=lambda s: s.name)
def test_corrected_gains_foretell_what_was_measured(wanted: LinearSite) -> None:
    module = Denoiser()
    gains = backward_gains(module, FAMILY, SITES, BATCHES, edges=EDGES)
    switches = [switch(module, wanted, SCALES[wanted.name])]
    found = corrected_gains(module, FAMILY, switches, BATCHES, gains, edges=EDGES)
    axis = 1 if wanted.op == "Conv" else -1
    measured: list[float] = []
    handle, change = coded(module, wanted, SCALES[wanted.name])
    errors: list[np.ndarray] = []

    def noted(exact: torch.Tensor) -> torch.Tensor:
        output = change(exact)
        error = (output - exact).double().movedim(axis, -1)
        errors.append(error.reshape(len(error), -1, error.shape[-1]).square().mean(dim=1).numpy())
        return output

    for inputs in BATCHES:
        clean = run(module, inputs).double().flatten(1)
        with Changed(module, wanted.module, 0, noted):
            error = run(module, inputs).double().flatten(1) - clean
        measured += (error.square().sum(dim=1) / clean.square().sum(dim=1)).tolist()
    handle.remove()
    gain = found[wanted.name]
    foretold = [
        float(power @ gain[b]) for power, b in zip(np.concatenate(errors), BINS, strict=True)
    ]
    for b in range(3):
        mine = np.equal(BINS, b)
        assert np.mean(np.array(foretold)[mine]) == pytest.approx(
            np.mean(np.array(measured)[mine]), rel=2e-3
        )
    white = np.concatenate(errors) @ gains[wanted.name].T
    assert not np.allclose(white[np.arange(5), BINS], measured, rtol=0.02), "nothing to correct"


def test_only_the_size_of_a_gain_changes_not_its_shape_over_channels() -> None:
    module = Denoiser()
    gains = backward_gains(module, FAMILY, SITES, BATCHES, edges=EDGES)
    found = corrected_gains(
        module, FAMILY, [switch(module, ONCE[2], 0.03)], BATCHES, gains, edges=EDGES
    )
    ratio = found["conv"] / gains["conv"]
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(7))
    unswitched = [name for name in gains if name != "conv"]
    assert all(found[name] is gains[name] for name in unswitched)


def test_sites_that_run_twice_or_have_no_gain_keep_what_they_have() -> None:
    module = Denoiser()
    gains = backward_gains(module, FAMILY, SITES, BATCHES, edges=EDGES)
    twice = [s for s in SITES if s.module == "fc"]
    lonely = [site("other", "idle", outputs=2), site("gone", "no.such.module"), site("nameless")]
    switches = [
        *(switch(module, s, 0.02) for s in twice),
        *(replace(switch(module, twice[0], 0.02), site=s) for s in lonely),
    ]
    told: list[None] = []
    found = corrected_gains(
        module, FAMILY, switches, BATCHES, gains, edges=EDGES, on_site=lambda: told.append(None)
    )
    assert set(found) == set(gains)
    assert all(found[name] is gains[name] for name in gains)
    assert len(told) == len(switches), "progress ends at the number of sites"


def test_a_correction_is_at_most_a_hundredfold() -> None:
    module = Denoiser()
    gains = {"conv": np.full((3, 7), 1e-9), "mod": np.full((3, 7), 1e9)}
    switches = [switch(module, s, 0.03) for s in ONCE if s.name in gains]
    found = corrected_gains(module, FAMILY, switches, BATCHES, gains, edges=EDGES)
    np.testing.assert_allclose(found["conv"], 1e-7)
    np.testing.assert_allclose(found["mod"], 1e7)


def test_the_module_is_left_as_it_was() -> None:
    module = Denoiser()
    before = run(module, BATCHES[0])
    gains = {name: np.ones((3, 7)) for name in CALLS}
    corrected_gains(module, FAMILY, [switch(module, ONCE[2], 0.03)], BATCHES, gains, edges=EDGES)
    assert torch.equal(run(module, BATCHES[0]), before)
    assert not module.conv._forward_hooks
