"""Gains: against whole Jacobians, against noise that is injected, and where data are missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import helper

from segquant_trt.graph.wiring import Wiring
from segquant_trt.score.amplify import backward_gains, bins_of, mean_per_bin, unreached
from tests.score.denoisers import (
    CALLS,
    FAMILY,
    SIDE,
    SITES,
    Changed,
    Denoiser,
    inputs_of,
    run,
    site,
)

EDGES = (0.0, 400.0, 700.0)
STEPS = [10.0, 390.0, 400.0, 950.0]
BINS = [0, 0, 1, 2]
REPEATED = 60
INTERNAL = [name for name in CALLS if name != "idle"]


def exact_gains(module: Denoiser, inputs: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Sum over positions of squared Jacobian columns over the output's energy: [S, N]."""
    part, index = CALLS[name]
    rows = []
    for sample in range(len(inputs["timestep"])):
        one = {key: value[sample : sample + 1] for key, value in inputs.items()}

        def output_of(shift: torch.Tensor, one=one) -> torch.Tensor:
            with Changed(module, part, index, lambda y: y + shift):
                return run(module, one)

        shape = (1, 7, SIDE, SIDE) if name == "conv" else (1, 3, SIDE, SIDE)
        shape = {"embed": (1, 6), "mod": (1, 7), "fc": (1, SIDE, SIDE, 7)}.get(part, shape)
        energy = run(module, one).double().square().sum()
        jacobian = torch.autograd.functional.jacobian(output_of, torch.zeros(shape))
        squares = jacobian.double().square().flatten(0, -len(shape) - 1).sum(dim=0)
        channels = squares.movedim(1 if name in ("conv", "out") else -1, -1)
        rows.append(channels.reshape(-1, channels.shape[-1]).sum(dim=0) / energy)
    return torch.stack(rows).numpy()


@pytest.fixture(scope="module")
def found() -> dict[str, np.ndarray]:
    batches = [inputs_of(1, STEPS)] * REPEATED
    return backward_gains(Denoiser(), FAMILY, SITES, batches, edges=EDGES)


@pytest.mark.parametrize("name", INTERNAL)
def test_gains_are_the_energies_of_jacobian_columns(name: str, found) -> None:
    exact = exact_gains(Denoiser(), inputs_of(1, STEPS), name)
    wanted = np.stack([exact[np.array(BINS) == b].mean(axis=0) for b in range(3)])
    assert found[name].shape == wanted.shape
    # A chi-squared variable of one degree per cotangent at worst: six standard deviations.
    np.testing.assert_allclose(found[name], wanted, rtol=6 * np.sqrt(2 / (8 * REPEATED)))
    np.testing.assert_allclose(found[name].sum(), wanted.sum(), rtol=0.1)


@pytest.mark.parametrize("name", ["mod", "conv", "fc 0"])
def test_injected_noise_arrives_as_foretold(name: str, found) -> None:
    module, inputs = Denoiser(), inputs_of(1, STEPS)
    part, index = CALLS[name]
    power = np.linspace(1, 9, 7) * 1e-8
    axis = 1 if name == "conv" else -1
    generator = torch.Generator().manual_seed(3)

    def noisy(y: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(y.shape, generator=generator).movedim(axis, -1)
        return y + (noise * torch.from_numpy(power).float().sqrt()).movedim(-1, axis)

    clean = run(module, inputs).double()
    seen = np.zeros(len(STEPS))
    for _ in range(300):
        with Changed(module, part, index, noisy):
            error = run(module, inputs).double() - clean
        ratio = error.square().flatten(1).sum(dim=1) / clean.square().flatten(1).sum(dim=1)
        seen += ratio.numpy() / 300
    measured = [seen[np.array(BINS) == b].mean() for b in range(3)]
    np.testing.assert_allclose(found[name] @ power, measured, rtol=0.2)


def test_what_does_not_reach_the_output_or_is_no_module_has_no_gain(found) -> None:
    assert set(found) == set(INTERNAL)


def test_branches_that_see_no_input_have_gains(found) -> None:
    """Embedders of the timestep depend on nothing that wants a gradient."""
    assert (found["embed"].sum(axis=1) > 0.0).all()


def test_equal_inputs_give_equal_bytes_and_the_module_is_left_as_it_was() -> None:
    module, batches = Denoiser(), [inputs_of(1, STEPS), inputs_of(2, STEPS)]
    before = run(module, batches[0])
    calls: list[None] = []
    first = backward_gains(
        module, FAMILY, SITES, batches, edges=EDGES, on_batch=lambda: calls.append(None)
    )
    again = backward_gains(module, FAMILY, SITES, batches, edges=EDGES)
    assert {name: gain.tobytes() for name, gain in first.items()} == {
        name: gain.tobytes() for name, gain in again.items()
    }
    assert len(calls) == 2
    assert torch.equal(run(module, batches[0]), before)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_bins_without_samples_take_the_nearest_ones() -> None:
    batches = [inputs_of(1, [10.0, 950.0])]
    edges = (0.0, 200.0, 400.0, 600.0, 800.0)
    gain = backward_gains(Denoiser(), FAMILY, SITES, batches, edges=edges)["conv"]
    np.testing.assert_array_equal(gain[1], gain[0])
    np.testing.assert_array_equal(gain[3], gain[4])
    assert not np.array_equal(gain[0], gain[4])


def test_without_a_timestep_there_is_one_bin() -> None:
    gain = backward_gains(Denoiser(), FAMILY, SITES, [inputs_of(1, STEPS)], edges=())
    assert gain["conv"].shape == (1, 7)


def test_more_calls_than_sites_are_left_alone() -> None:
    """A graph may have merged two calls of one module."""
    some = (site("fc only", "fc"),)
    batches = [inputs_of(1, STEPS)]
    both = backward_gains(Denoiser(), FAMILY, SITES, batches, edges=EDGES)
    one = backward_gains(Denoiser(), FAMILY, some, batches, edges=EDGES)
    np.testing.assert_allclose(one["fc only"], both["fc 0"], rtol=1e-6)


@pytest.mark.parametrize(
    ("timestep", "bins"),
    [
        ([0.0, 399.0, 400.0, 699.9, 700.0, 5000.0], [0, 0, 1, 1, 2, 2]),
        ([-3.0] * 6, [0] * 6),
        ([500.0], [1] * 6),
    ],
)
def test_samples_fall_into_the_bin_that_begins_below(timestep, bins) -> None:
    inputs = {"timestep": np.array(timestep, dtype=np.float32)}
    assert bins_of(inputs, "timestep", EDGES, 6).tolist() == bins


def test_means_per_bin_copy_the_nearest_known_bin() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    means = mean_per_bin(values, np.array([1, 1, 4]), 6)
    assert means.tolist() == [[2, 3]] * 3 + [[10, 20]] * 3


def test_sites_whose_output_leads_nowhere_are_found_in_the_graph() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="used"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="beside"),
        helper.make_node("Shape", ["b"], ["s"]),
        helper.make_node("MatMul", ["x", "w"], ["c"], name="idle"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Reshape", ["a", "s"], ["y"]),
    ]
    result = helper.make_tensor_value_info("y", 1, None)
    wiring = Wiring(helper.make_graph(nodes, "g", [], [result]))
    outputs = {"used": "a", "beside": "b", "idle": "c"}
    found = [replace(site(name), output=output) for name, output in outputs.items()]
    assert unreached(wiring, found) == {"idle"}
