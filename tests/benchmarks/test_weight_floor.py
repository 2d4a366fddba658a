"""The floor rounds the weights of the body to INT8, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.ablation.subject import Subject
from benchmarks.ablation.weight_floor import rounded_weights, weight_floor
from segquant_trt.backends.denoise import float_denoise
from segquant_trt.graph.bigfile import Weights, load_graph


def test_weights_of_the_body_are_within_half_a_step_and_others_untouched(
    compiled_flux: Path,
) -> None:
    subject = Subject.of(compiled_flux)
    exact = Weights(load_graph(compiled_flux / "model.onnx"), subject.weights)
    rounded = Weights(rounded_weights(subject), subject.weights)
    body = {site.weight: site for site in subject.facts.sites if site.name not in subject.kept}
    assert body
    assert subject.kept
    for name in exact:
        before = exact.read_float32(name)
        difference = np.abs(rounded.read_float32(name) - before)
        if name not in body:
            assert not difference.any()
            continue
        layout = body[name].weight_layout
        axes = 0 if layout == "KN" else tuple(range(1, before.ndim))
        step = np.abs(before).max(axis=axes, keepdims=True) / 127
        assert np.all(difference <= 0.5001 * step)
        assert difference.any()


def test_its_answers_are_near_the_float_models(compiled_flux: Path) -> None:
    subject = Subject.of(compiled_flux)
    inputs = subject.guidance_call()
    exact = float_denoise(compiled_flux / "model.onnx", subject.weights)(inputs)
    floor = weight_floor(subject)(inputs)
    assert 0.0 < np.square(floor - exact).sum() < 1e-2 * np.square(exact).sum()
