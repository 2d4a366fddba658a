"""A small denoiser with cross-attention and modulation by timestep and pooled text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.small_graphs import full_range_weight, linear_nodes, save_graph

STEPS = (1.0, 7.5, 120.25, 121.0, 501.0, 981.0)
WIDTH, TEXT = 24, 40
PROMPTS = ("text", "pooled")


def denoiser(folder: Path, *extra: onnx.NodeProto, output: str = "y") -> Path:
    """`y = (x' + softmax(x' K^T) V) * (1 + scale) + shift` with x' = fc(x).

    K and V are linears of `text`; scale and shift are one of `silu(embed(when) + project(pooled))`.
    Waves are whole vectors of 16: ONNX Runtime's sine rounds the last few elements differently.
    """
    nodes = [
        helper.make_node("Unsqueeze", ["when", "one"], ["column"], name="column"),
        helper.make_node("Mul", ["column", "frequencies"], ["angles"], name="angles"),
        helper.make_node("Sin", ["angles"], ["sine"], name="sine"),
        helper.make_node("Cos", ["angles"], ["cosine"], name="cosine"),
        helper.make_node("Concat", ["sine", "cosine"], ["waves"], name="waves", axis=-1),
        *linear_nodes("embed", "waves", "e", bias=True, stored=True, gemm=True),
        *linear_nodes("project", "pooled", "p", bias=True, stored=True, gemm=True),
        helper.make_node("Add", ["e", "p"], ["emb"], name="emb"),
        helper.make_node("Sigmoid", ["emb"], ["gate"], name="gate"),
        helper.make_node("Mul", ["emb", "gate"], ["silu"], name="silu"),
        *linear_nodes("modulate", "silu", "m", bias=True, stored=True),
        helper.make_node("Split", ["m"], ["shift", "scale"], name="halves", axis=-1, num_outputs=2),
        helper.make_node("Unsqueeze", ["shift", "one"], ["shift1"], name="shift1"),
        helper.make_node("Unsqueeze", ["scale", "one"], ["scale1"], name="scale1"),
        *linear_nodes("fc", "x", "h", bias=True, stored=True),
        *linear_nodes("to_k", "text", "k", bias=False, stored=True),
        *linear_nodes("to_v", "text", "v", bias=True, stored=True),
        helper.make_node("Transpose", ["k"], ["kt"], name="kt", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "kt"], ["logits"], name="logits"),
        helper.make_node("Softmax", ["logits"], ["weights"], name="weights", axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["read"], name="read"),
        helper.make_node("Add", ["h", "read"], ["h2"], name="h2"),
        helper.make_node("Add", ["scale1", "unit"], ["factor"], name="factor"),
        helper.make_node("Mul", ["h2", "factor"], ["scaled"], name="scaled"),
        helper.make_node("Add", ["scaled", "shift1"], ["y"], name="shifted"),
        *extra,
    ]
    random = np.random.default_rng(3)
    shapes = {
        "embed": (16, 32), "project": (16, TEXT), "modulate": (2 * WIDTH, 16), "fc": (WIDTH, WIDTH),
        "to_k": (WIDTH, TEXT), "to_v": (WIDTH, TEXT),
    }  # fmt: skip
    weights = {f"{n}.weight": full_range_weight(s, 1).astype("f2") for n, s in shapes.items()}
    weights |= {
        f"{n}.bias": random.standard_normal(s[0]).astype("f2")
        for n, s in shapes.items()
        if n != "to_k"
    }
    weights["frequencies"] = random.standard_normal((1, 16)).astype(np.float32)
    weights["one"] = np.array([1], dtype=np.int64)
    weights["unit"] = np.array(1, dtype=np.float32)
    inputs = {
        "x": ["batch", "tokens", WIDTH], "when": ["batch"], "text": ["batch", "words", TEXT],
        "pooled": ["batch", TEXT],
    }  # fmt: skip
    return save_graph(folder / "model.onnx", nodes, inputs, [output], weights, external=False)


def feeds_at(
    steps: np.ndarray | list[float], *, seed: int = 0, prompt: int = 0, words: int = 7
) -> dict[str, np.ndarray]:
    """One sample per step; its latent is of `seed`, its text of `prompt`."""
    random, texts = np.random.default_rng(seed), np.random.default_rng(1000 + prompt)
    given = {
        "x": random.standard_normal((len(steps), 5, WIDTH)),
        "when": np.asarray(steps),
        "text": texts.standard_normal((len(steps), words, TEXT)),
        "pooled": texts.standard_normal((len(steps), TEXT)),
    }
    return {name: array.astype(np.float32) for name, array in given.items()}
