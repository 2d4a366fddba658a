"""How much faster a model can get at most: Amdahl's law over its multiply-accumulates.

With the share c of the work in 8-bit products that are `ratio` times as fast as 16-bit ones, and
attention's share a,

    at most  1 / (1 - c + (c + r) / ratio)              with attention in 16 bits,
    at most  1 / (1 - c - a + (c + r + a) / ratio)      with attention in 8 bits,

where r is what sites with a product per polarity do on top, relative to the model's whole work.

Normalisation, activations and memory traffic are granted for free, so both are upper bounds over
16-bit arithmetic on the same device. (Amdahl, "Validity of the single processor approach to
achieving large scale computing capabilities", 1967.)
"""

from __future__ import annotations

from segquant_trt.bench.work import Work
from segquant_trt.errors import SegQuantError
from segquant_trt.records.comparison import Ceiling

EIGHT_TO_SIXTEEN_BITS = 2.0
"""Peak rate of dense 8-bit over 16-bit tensor-core products on NVIDIA's GPUs since Ampere."""


def ceiling_of(work: Work, of: str, *, ratio: float = EIGHT_TO_SIXTEEN_BITS) -> Ceiling:
    """The ceilings of a model whose work is known.

    Args:
        of: the model and its size, in words.
        ratio: how many times as fast 8-bit products are.

    Raises:
        SegQuantError: there are no products at all.
    """
    if work.total == 0:
        raise SegQuantError(
            f"{of} has no matrix products, so nothing in it gets faster by quantisation",
            hint="give the denoiser's graph",
        )
    coded, attention = work.coded / work.total, work.attention / work.total
    repeated = work.repeated / work.total
    return Ceiling(
        of=of,
        macs=work.total,
        coded_share=coded,
        attention_share=attention,
        other_share=work.other / work.total,
        repeated_share=repeated,
        ratio=ratio,
        speedup_attention_16bit=_at_most(coded, repeated, ratio),
        speedup_attention_8bit=_at_most(coded + attention, repeated, ratio),
    )


def _at_most(share: float, repeated: float, ratio: float) -> float:
    return 1.0 / (1.0 - share + (share + repeated) / ratio)
