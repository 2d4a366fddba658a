"""What is done to a site, in words that a table can hold, and what each of these words means."""

from __future__ import annotations

from segquant_trt.records import Treatment
from segquant_trt.records.treatment import KeepFloat

MEANINGS = {
    "float": "left as it is: float weights, float activations",
    "symmetric": "the input is rounded to 8-bit codes, one scale, zero in the middle",
    "shifted": "as symmetric, but the codes' range is moved to where the values are",
    "dual_scale": "negative and positive values of the input have a scale of their own each",
    "dual_full": "as dual_scale, with all 8 bits for each polarity: two products",
    "sign_magnitude": "two polarities in one code: a sign and seven bits",
    "sparse_dual": "two polarities whose codes use the GPU's 2:4 sparsity",
    "fp8": "the input is rounded to 8-bit floats (E4M3)",
    "float input": "the input stays in float; only the weights are coded",
    "per_token": "each row (token) of the input is scaled by its own largest value, at run time",
    "per_step": "the input's range follows the timestep, by a table",
    "split": "parts of the input that the graph joins have codes of their own each",
    "rescaled": "parts of the input that the graph joins are brought to similar ranges first",
    "smoothed": "channels are divided by a factor that the weights take over, so that outliers "
    "cost less (SmoothQuant)",
    "int8": "weights in 8 bits, one scale per output channel",
    "int4": "weights in 4 bits",
    "gptq": "weights are rounded so that their errors cancel on calibration data (GPTQ)",
}

ROLES = {
    "embedder": "the first site that the latent or the text passes",
    "modulation": "reads the timestep, pooled text or other vectors, never tokens",
    "body": "the network itself",
    "final": "the last projection before the output",
}


def words_of(treatment: Treatment) -> tuple[str, ...]:
    """The keys of `MEANINGS` that describe `treatment`, what is done to the input first."""
    weight = treatment.weight
    if weight is None:
        return ("float",)
    words = ["split"] if len(treatment.segments) > 1 else []
    for part in treatment.segments:
        coded = not isinstance(part.activation, KeepFloat)
        words.append(part.activation.kind if coded else "float input")
        if part.factor.kind != "static":
            words.append(part.factor.kind)
    smoothing = treatment.smoothing
    if smoothing is not None:
        words += ["rescaled"] if smoothing.segment_exponent is not None else []
        words += ["smoothed"] if smoothing.alpha is not None else []
    words.append(f"int{weight.bits}")
    words += ["gptq"] if weight.rounding == "gptq" else []
    return tuple(dict.fromkeys(words))
