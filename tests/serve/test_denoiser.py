"""Calling a loaded bundle: what it checks, what it answers, from how many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import CPU_TARGETS, Target
from segquant_trt.serve import CompiledDenoiser, load
from tests.bundles import WIDTH, make_bundle
from tests.shared import once, run_folder


@pytest.fixture(scope="module", params=CPU_TARGETS)
def denoiser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> CompiledDenoiser:
    """A loaded bundle of either target."""
    target: Target = request.param
    folder = run_folder(tmp_path_factory) / f"denoiser-{target}"
    return load(once(folder, lambda path: make_bundle(path, target)) / "bundle", threads=1)


def inputs(batch: int = 2, tokens: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "x": random.standard_normal((batch, tokens, WIDTH)).astype(np.float32),
        "e": random.standard_normal((batch, WIDTH)).astype(np.float32),
    }


def test_answers_float32_at_every_allowed_size(denoiser: CompiledDenoiser) -> None:
    for batch, tokens in ((1, 4), (4, 16), (3, 6)):
        found = denoiser.run(inputs(batch, tokens))
        assert found.shape == (batch, tokens, WIDTH)
        assert found.dtype == np.float32


def test_samples_of_a_batch_do_not_mix(denoiser: CompiledDenoiser) -> None:
    both = inputs(2)
    alone = [{name: array[i : i + 1] for name, array in both.items()} for i in range(2)]
    together = denoiser.run(both)
    apart = np.concatenate([denoiser.run(one) for one in alone])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


def changed(name: str, value: object) -> dict[str, object]:
    return {**inputs(), name: value}


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in inputs().items() if key != name}


BAD = {
    "missing": (without("e"), "input 'e' is missing; given: x"),
    "nothing": ({}, "input 'x' is missing; given: none"),
    "unknown": (changed("z", np.zeros(1)), "unknown input 'z'; allowed: x, e"),
    "not an array": (changed("e", [[0.0] * WIDTH] * 2), "'e' is a list; a NumPy array"),
    "dtype": (
        changed("e", np.zeros((2, WIDTH), np.int64)),
        "'e' has dtype int64; allowed: float32",
    ),
    "wide dtype": (
        changed("x", np.zeros((2, 4, WIDTH))),
        "'x' has dtype float64; allowed: float32",
    ),
    "rank": (
        changed("e", np.zeros((2, 1, WIDTH), np.float32)),
        rf"'e' has shape \(2, 1, {WIDTH}\); allowed: \(batch, {WIDTH}\)",
    ),
    "fixed axis": (
        changed("e", np.zeros((2, 3), np.float32)),
        rf"'e' has shape \(2, 3\); allowed: \(batch, {WIDTH}\)",
    ),
    "too many": (inputs(5), "'x' has batch 5; allowed: 1 to 4"),
    "too few": (inputs(0), "'x' has batch 0; allowed: 1 to 4"),
    "too long": (inputs(1, 18), "'x' has tokens 18; allowed: 3 to 16 in multiples of 2"),
    "no multiple": (inputs(1, 5), "'x' has tokens 5; allowed: 3 to 16 in multiples of 2"),
    "disagreement": (
        changed("e", np.zeros((3, WIDTH), np.float32)),
        "'e' has batch 3, but 'x' has batch 2; they must agree",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_inputs_are_named(denoiser: CompiledDenoiser, case: str) -> None:
    given, pattern = BAD[case]
    with pytest.raises(SegQuantError, match=pattern):
        denoiser.run(given)


def test_many_threads_get_their_own_answers(denoiser: CompiledDenoiser) -> None:
    given = [inputs(1 + i % 4, 4 + 2 * (i % 3), seed=i) for i in range(12)]
    alone = [denoiser.run(one) for one in given]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(denoiser.run, given * 3))
    for index, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[index % 12])


def test_answers_do_not_share_memory(denoiser: CompiledDenoiser) -> None:
    first = denoiser.run(inputs(seed=1))
    kept = first.copy()
    denoiser.run(inputs(seed=2))
    np.testing.assert_array_equal(first, kept)


def test_strided_inputs_are_taken(denoiser: CompiledDenoiser) -> None:
    given = inputs()
    flipped = {name: np.asfortranarray(array) for name, array in given.items()}
    np.testing.assert_array_equal(denoiser.run(flipped), denoiser.run(given))


def test_unknown_private_attributes_do_not_recurse(tmp_path: Path, denoiser) -> None:
    with pytest.raises(AttributeError):
        _ = denoiser._nothing
