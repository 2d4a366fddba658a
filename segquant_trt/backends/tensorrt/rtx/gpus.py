"""Published peak figures of some GPUs; nothing here was measured by this project.

Dense rates, FP16 and FP8 with FP32 accumulation, boost clock, from the tables in the appendices of
NVIDIA's architecture papers: GA102 (RTX 3090), Ada (RTX 4090), RTX Blackwell (RTX 5080, RTX 5090),
and from the data sheets of the A100 (SXM, 80 GB) and the L40S. Consumer GPUs run FP16 and FP8
twice as fast with FP16 accumulation, which builders do not choose by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from segquant_trt.errors import SegQuantError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`tera_ops`: 10^12 operations per second by operand type, two per multiply-accumulate."""

    name: str
    capability: str
    gigabytes_per_second: float
    tera_ops: dict[str, float]
    source: str


def _gpu(
    name: str, capability: str, bandwidth: float, rates: tuple[float | None, ...], source: str
) -> Gpu:
    types = ("float32", "float16", "float8_e4m3fn", "int8")
    known = {dtype: rate for dtype, rate in zip(types, rates, strict=True) if rate is not None}
    return Gpu(
        name=name,
        capability=capability,
        gigabytes_per_second=bandwidth,
        tera_ops={**known, "bfloat16": known["float16"]},
        source=source,
    )


_ADA = "NVIDIA Ada GPU Architecture, appendix A"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture, appendix"
GPUS = (
    _gpu("A100", "sm_80", 2039.0, (19.5, 312.0, None, 624.0), "NVIDIA A100 data sheet"),
    _gpu("RTX 3090", "sm_86", 936.0, (35.6, 71.0, None, 284.0), "NVIDIA Ampere GA102, appendix A"),
    _gpu("RTX 4090", "sm_89", 1008.0, (82.6, 165.2, 330.3, 660.6), _ADA),
    _gpu("L40S", "sm_89", 864.0, (91.6, 362.0, 733.0, 733.0), "NVIDIA L40S data sheet"),
    _gpu("RTX 5080", "sm_120", 960.0, (56.3, 112.6, 225.1, 450.2), _BLACKWELL),
    _gpu("RTX 5090", "sm_120", 1792.0, (104.8, 209.5, 419.0, 838.0), _BLACKWELL),
)


def gpu(name: str) -> Gpu:
    """The figures of a GPU.

    Raises:
        SegQuantError: it is not in the table.
    """
    for each in GPUS:
        if each.name.casefold() == name.casefold():
            return each
    raise SegQuantError(
        f"there are no published figures of '{name}' here",
        hint=f"choose from {', '.join(each.name for each in GPUS)}",
    )
