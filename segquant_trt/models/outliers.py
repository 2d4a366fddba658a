"""Outlier twins: the same function with the activation outliers of large denoisers.

Channels of every activation that admits it are multiplied by powers of two in the producer and
divided by them in the consumer's input columns, which is exact in binary floating point. Hidden
units that training left disconnected are used in pairs: one strong input direction, opposite
outgoing weights, so that massive activations appear at a few tokens and cancel in the sum.

What is imitated: few channels, the same for every token, far above the rest of their site in DiTs
and UNets (SVDQuant, 2411.05007; ViDiT-Q, 2406.02540), and massive activations of single tokens in
SD3 and FLUX (2510.11538). Maxima of 10 to 60 times a site's RMS are aimed at.

| activation | scaled in | divided in |
|-|-|-|
| adaLN output `n * (1 + scale) + shift` | modulation: shift and scale rows | Q, K, V, MLP |
| LayerNorm or GroupNorm gain and bias (UNet) | the norm | Q, K, V, MLP, `proj_in` |
| attention output | V rows, of both streams where they attend jointly | output projection |
| GEGLU's hidden half (UNet) | the projection's first half | second MLP linear |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

GENERATOR_VERSION = 2

CHANNEL_FACTORS = (32.0, 16.0, 8.0)
"""Powers of two for the chosen channels of a rescaled activation."""

GATED_FACTORS = (4.0, 2.0, 2.0)
"""The same after GEGLU, where a product of two activations has heavy tails already."""

PAIR_GAIN = 2.0
"""Power of two by which a pair of hidden units exceeds the strongest other unit."""

Weights: TypeAlias = dict[str, npt.NDArray[np.float64]]
Names: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaling:
    """One activation of `width` channels: who produces it, who consumes it.

    Attributes:
        rows: producer tensors and the row at which the activation's channels start.
        scale_bias: the adaLN bias holding `scale`, where the activation is `n * (1 + scale) + ..`.
        columns: consumers' weights, [N, width, ...].
    """

    site: str
    width: int
    rows: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    scale_bias: tuple[str, int] | None = None
    factors: tuple[float, ...] = CHANNEL_FACTORS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two disconnected hidden units, last of those that `project` makes and `consume` reads."""

    site: str
    project: str
    consume: str
    gated: bool = False


def write_twin(source: Path, target: Path) -> None:
    """Write the twin of the safetensors file `source` to `target`, byte-reproducibly.

    Tensors stay float16 where that is exact and become float32 elsewhere.
    """
    from safetensors.numpy import load_file, save_file

    stored = load_file(source)
    weights = {name: value.astype(np.float64) for name, value in stored.items()}
    for pair in pairs(stored):
        _drive_pair(weights, pair)
    for change in rescalings(stored):
        _rescale(weights, change)
    narrowed = {name: _narrow(value) for name, value in weights.items()}
    save_file(narrowed, target, metadata={"format": "pt"})


def rescalings(names: Names) -> tuple[Rescaling, ...]:
    """Every activation of the checkpoint that can be rescaled, in a fixed order."""
    return tuple(
        change
        for rule in _RULES
        for prefix in _blocks(names, rule[0])
        for change in rule[1](names, prefix)
    )


def pairs(names: Names) -> tuple[Pair, ...]:
    """The disconnected pairs of the checkpoint: outgoing columns that are exactly zero."""
    candidates = [
        Pair(
            site=prefix + "net.2",
            project=prefix + "net.0.proj",
            consume=prefix + "net.2",
            gated=len(names[prefix + "net.0.proj.bias"])
            == 2 * names[prefix + "net.2.weight"].shape[1],
        )
        for prefix in _blocks(names, r"(.*\.ff(?:_context)?\.)net\.2\.weight")
    ]
    candidates += [
        Pair(site=prefix + "proj_out", project=prefix + "proj_mlp", consume=prefix + "proj_out")
        for prefix in _blocks(names, r"(.*\.)proj_mlp\.weight")
    ]
    return tuple(p for p in candidates if not names[p.consume + ".weight"][:, -2:].any())


def _blocks(names: Names, pattern: str) -> list[str]:
    matches = (re.fullmatch(pattern, name) for name in sorted(names))
    return [match.group(1) for match in matches if match]


def _linear(prefix: str, first_row: int = 0) -> tuple[tuple[str, int], ...]:
    return (prefix + ".weight", first_row), (prefix + ".bias", first_row)


def _modulated(
    names: Names, site: str, linear: str, chunks: tuple[int, int], consumers: tuple[str, ...]
) -> Rescaling:
    """An adaLN output; `chunks` are the positions of shift and scale among the modulation's."""
    columns = tuple(name + ".weight" for name in consumers)
    width = names[columns[0]].shape[1]
    shift, scale = (width * chunk for chunk in chunks)
    return Rescaling(
        site=site,
        width=width,
        rows=_linear(linear, shift) + _linear(linear, scale),
        columns=columns,
        scale_bias=(linear + ".bias", scale),
    )


def _joint_block(names: Names, prefix: str) -> Iterator[Rescaling]:
    """SD3's and FLUX's double blocks (`norm1`, `norm1_context`, joint attention)."""
    image = tuple(f"{prefix}attn.to_{x}" for x in "qkv")
    text = tuple(f"{prefix}attn.add_{x}_proj" for x in "qkv")
    last = f"{prefix}attn.to_add_out.weight" not in names
    yield _modulated(names, image[0], prefix + "norm1.linear", (0, 1), image)
    yield _modulated(
        names, prefix + "ff", prefix + "norm1.linear", (3, 4), (prefix + "ff.net.0.proj",)
    )
    context = prefix + "norm1_context.linear"
    # The last SD3 block's context norm is an AdaLayerNormContinuous: scale first, then shift.
    yield _modulated(names, text[0], context, (1, 0) if last else (0, 1), text)
    outputs: tuple[str, ...] = (f"{prefix}attn.to_out.0.weight",)
    if not last:
        yield _modulated(
            names, prefix + "ff_context", context, (3, 4), (prefix + "ff_context.net.0.proj",)
        )
        outputs += (f"{prefix}attn.to_add_out.weight",)
    yield Rescaling(
        site=prefix + "attn.to_out.0",
        width=names[outputs[0]].shape[1],
        rows=_linear(image[2]) + _linear(text[2]),
        columns=outputs,
    )


def _single_block(names: Names, prefix: str) -> Iterator[Rescaling]:
    """FLUX's single blocks; `proj_out` reads `cat(attention, gelu(mlp))`."""
    consumers = (*(f"{prefix}attn.to_{x}" for x in "qkv"), prefix + "proj_mlp")
    yield _modulated(names, prefix + "proj_mlp", prefix + "norm.linear", (0, 1), consumers)
    value = prefix + "attn.to_v"
    yield Rescaling(
        site=prefix + "proj_out",
        width=names[value + ".weight"].shape[0],
        rows=_linear(value),
        columns=(prefix + "proj_out.weight",),
    )


def _basic_block(names: Names, prefix: str) -> Iterator[Rescaling]:
    """A UNet's transformer block: three affine norms, two attentions, GEGLU."""
    hidden = names[prefix + "ff.net.2.weight"].shape[1]
    width = len(names[prefix + "norm1.weight"])
    normed = {
        "norm1": tuple(f"{prefix}attn1.to_{x}.weight" for x in "qkv"),
        "norm2": (prefix + "attn2.to_q.weight",),
        "norm3": (prefix + "ff.net.0.proj.weight",),
    }
    for norm, columns in normed.items():
        yield Rescaling(
            site=prefix + norm, width=width, rows=_linear(prefix + norm), columns=columns
        )
    for attention in ("attn1", "attn2"):
        out = f"{prefix}{attention}.to_out.0"
        value = f"{prefix}{attention}.to_v.weight"
        yield Rescaling(site=out, width=width, rows=((value, 0),), columns=(out + ".weight",))
    yield Rescaling(
        site=prefix + "ff.net.2",
        width=hidden,
        rows=_linear(prefix + "ff.net.0.proj"),
        columns=(prefix + "ff.net.2.weight",),
        factors=GATED_FACTORS,
    )


def _spatial_transformer(names: Names, prefix: str) -> Iterator[Rescaling]:
    """A UNet's GroupNorm before `proj_in`: no activation function in between."""
    norm = prefix + "norm"
    yield Rescaling(
        site=prefix + "proj_in",
        width=len(names[norm + ".weight"]),
        rows=_linear(norm),
        columns=(prefix + "proj_in.weight",),
    )


_RULES: tuple[tuple[str, Callable[[Names, str], Iterator[Rescaling]]], ...] = (
    (r"(transformer_blocks\.\d+\.)attn\.add_v_proj\.weight", _joint_block),
    (r"(single_transformer_blocks\.\d+\.)proj_mlp\.weight", _single_block),
    (r"(.*\.transformer_blocks\.\d+\.)attn2\.to_q\.weight", _basic_block),
    (r"(.*\.)proj_in\.weight", _spatial_transformer),
)


def chosen_channels(site: str, width: int, count: int) -> list[int]:
    """Which channels of a site stand out: seeded by its name, so the same everywhere."""
    rng = np.random.default_rng(list(site.encode()))
    return [int(c) for c in rng.choice(width, size=count, replace=False)]


def _rescale(weights: Weights, change: Rescaling) -> None:
    channels = chosen_channels(change.site, change.width, len(change.factors))
    for channel, factor in zip(channels, change.factors, strict=True):
        for name, start in change.rows:
            if name in weights:
                weights[name][start + channel] *= factor
        if change.scale_bias is not None:
            name, start = change.scale_bias
            weights[name][start + channel] += factor - 1.0
        for name in change.columns:
            weights[name][:, channel] /= factor


def _drive_pair(weights: Weights, pair: Pair) -> None:
    """Both units follow the strongest other unit, amplified; their outgoing weights cancel.

    Of a gated unit only the hidden half is amplified: the gate would square the gain.
    """
    weight, bias = weights[pair.project + ".weight"], weights[pair.project + ".bias"]
    outgoing = weights[pair.consume + ".weight"]
    units = len(bias) // 2 if pair.gated else len(bias)
    first_column = outgoing.shape[1] - units
    donor = int(np.argmax(np.square(weight[: units - 2]).sum(axis=1)))
    starts = (0, units) if pair.gated else (0,)
    for unit in (units - 2, units - 1):
        for start in starts:
            gain = PAIR_GAIN if start == 0 else 1.0
            weight[start + unit] = gain * weight[start + donor]
            bias[start + unit] = gain * bias[start + donor]
    outgoing[:, -2] = outgoing[:, first_column + donor]
    outgoing[:, -1] = -outgoing[:, -2]


def _narrow(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float16] | npt.NDArray[np.float32]:
    half = value.astype(np.float16)
    exact = np.array_equal(half.astype(np.float64), value)
    return half if exact else value.astype(np.float32)
