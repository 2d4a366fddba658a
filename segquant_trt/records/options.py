"""What a compilation is asked to do: one value that the command line and the API both fill."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from segquant_trt.errors import SegQuantError
from segquant_trt.records.plan import TARGETS, Target
from segquant_trt.records.schedule import Schedule, parse_schedules

Dtype = Literal["float32", "float16", "bfloat16"]
RangeMethod = Literal["amax", "percentile", "mse"]
WeightScaleMethod = Literal["absmax", "mse"]
PresetName = Literal["plain", "seglinear", "segquant", "q-diffusion", "tfmq", "auto"]
Objective = Literal["speed", "balanced", "quality"]
Limit: TypeAlias = tuple[float, float]

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
PRESETS: tuple[PresetName, ...] = get_args(PresetName)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
WEIGHT_SCALE_METHODS: tuple[WeightScaleMethod, ...] = get_args(WeightScaleMethod)
WEIGHT_BLOCKS = (16, 32, 64, 128, 256)

_DEFAULT_BLOCK = 32
_CHOICES: dict[str, tuple[str, ...]] = {
    "target": TARGETS,
    "dtype": DTYPES,
    "range_method": RANGE_METHODS,
    "weight_scales": WEIGHT_SCALE_METHODS,
    "preset": PRESETS,
    "objective": OBJECTIVES,
}
_WHOLE: dict[str, Limit] = {
    "num_samples": (1, 1_000_000),
    "steps": (1, 10_000),
    "height": (1, 65_536),
    "width": (1, 65_536),
    "seed": (0, 2**63 - 1),
    "threads": (1, 4096),
}


_NAMED_FILES = ("inputs", "verify_inputs", "prompts", "rules", "costs")
_KINDS: dict[str, tuple[type, str]] = {
    "Path": (Path, "a path"),
    "str": (str, "text"),
    "bool": (bool, "True or False"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Everything that `compile` and the single stages can be told.

    None means: the model's own default (its scheduler, its typical size), or, for `model`, the
    one that the run folder already holds. `height` and `width` are pixels, as in diffusers.
    `trials`: whether plans are run before one is chosen; None: where the model is not too large.

    Raises:
        SegQuantError: a value is outside what its option allows.
    """

    out: Path
    model: str | None = None
    subfolder: str | None = None
    revision: str | None = None
    target: Target = "onnxruntime"
    inputs: Path | None = None
    verify_inputs: Path | None = None
    prompts: Path | None = None
    num_samples: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    scheduler: str | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: Dtype = "float32"
    threads: int | None = None
    range_method: RangeMethod = "mse"
    weight_scales: WeightScaleMethod = "absmax"
    quantize_all: bool = False
    keep_float: tuple[str, ...] = ()
    timestep: str | None = None
    prompt_inputs: tuple[str, ...] | None = None
    preset: PresetName = "auto"
    objective: Objective = "balanced"
    max_latency: str | None = None
    target_sqnr: float | None = None
    weight_bits: int = 8
    weight_only: bool = False
    weight_block: str | None = None
    rules: Path | None = None
    costs: Path | None = None
    cost_scale: str | None = None
    trials: bool | None = None
    freeze_schedule: str | None = None
    fallback: bool = True
    hoist_prompt: bool = False
    full: bool = False
    verify_digests: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        _check_model(self.model)
        _check_kinds(self)
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, limit in _WHOLE.items():
            _check_whole(name, getattr(self, name), limit)
        _check_guidance(self.guidance_scale)
        _check_sqnr(self.target_sqnr)
        _check_bits(self.weight_bits)
        self.block()
        self.latency_limit()
        self.cost_factors()
        self.schedules()
        _check_patterns(self.keep_float)

    def check_files(self) -> None:
        """Check that what the options name is there, before hours of work are put into the rest.

        Raises:
            SegQuantError: naming the first option whose file or folder does not exist.
        """
        for name in _NAMED_FILES:
            path = getattr(self, name)
            if path is not None and not path.exists():
                raise SegQuantError(
                    f"{name} is {str(path)!r}, which does not exist",
                    hint=f"pass {_flag(name)} with a file that is there",
                )

    def block(self) -> int | None:
        """Input channels that share a weight scale; None: all of an output channel.

        Four-bit weights under float activations come in blocks of 32 unless it is said otherwise:
        that is the form that runtimes have kernels for.

        Raises:
            SegQuantError: `weight_block` is neither `channel` nor one of `WEIGHT_BLOCKS`, or
                activations are coded too.
        """
        if self.weight_block is None:
            return _DEFAULT_BLOCK if self.weight_only and self.weight_bits == 4 else None
        if self.weight_block == "channel":
            return None
        if self.weight_block not in [str(size) for size in WEIGHT_BLOCKS]:
            sizes = ", ".join(str(size) for size in WEIGHT_BLOCKS)
            raise SegQuantError(
                f"weight_block is {self.weight_block!r}; allowed: channel, {sizes}",
                hint="pass --weight-block with one of these",
            )
        if not self.weight_only:
            raise SegQuantError(
                f"weight_block is {self.weight_block}, but integer products have one weight scale "
                "per output channel",
                hint="leave --weight-block out, or keep activations in float with --weight-only",
            )
        return int(self.weight_block)

    def latency_limit(self) -> tuple[float, bool] | None:
        """`max_latency` as a number, and whether it counts in plain static INT8's time.

        Raises:
            SegQuantError: it is neither `1.05x` nor milliseconds.
        """
        if self.max_latency is None:
            return None
        relative = self.max_latency.endswith("x")
        number = _positive(self.max_latency.removesuffix("x").removesuffix("ms"))
        if number is None:
            raise SegQuantError(
                f"max_latency is {self.max_latency!r}; allowed: milliseconds such as 12.5, or "
                "times the latency of plain INT8 such as 1.05x",
                hint="pass --max-latency with one of these forms",
            )
        return number, relative

    def cost_factors(self) -> tuple[float, float]:
        """`cost_scale` as factors of rows and of widths; ones without it.

        Raises:
            SegQuantError: it is not two positive numbers.
        """
        if self.cost_scale is None:
            return 1.0, 1.0
        numbers = [_positive(part) for part in self.cost_scale.split(",")]
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            raise SegQuantError(
                f"cost_scale is {self.cost_scale!r}; allowed: ROWS,WIDTH, two positive numbers",
                hint="--cost-scale 16,12 prices sites of 16 times the rows and 12 times the width",
            )
        return numbers[0], numbers[1]

    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules of `freeze_schedule`; none without it.

        Raises:
            SegQuantError: it has another form than SCHEDULER:STEPS[:HxW],...
        """
        return () if self.freeze_schedule is None else parse_schedules(self.freeze_schedule)

    @classmethod
    def from_keywords(cls, model: str | None, out: str | Path, **keywords: Any) -> CompileOptions:
        """Build the options from loose keywords, paths given as text included.

        Raises:
            SegQuantError: an unknown keyword, or a value outside what its option allows.
        """
        known = cls.__dataclass_fields__
        for name in keywords:
            if name not in known:
                raise SegQuantError(
                    f"compile() has no option {name!r}; it has {', '.join(known)}",
                    hint="`segquant-trt compile --help` says what each option does",
                )
        for name in _NAMED_FILES:
            if isinstance(keywords.get(name), str):
                keywords[name] = Path(keywords[name])
        for name in ("keep_float", "prompt_inputs"):
            if isinstance(keywords.get(name), list):
                keywords[name] = tuple(keywords[name])
        return cls(model=model, out=Path(out) if isinstance(out, str) else out, **keywords)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_kinds(options: CompileOptions) -> None:
    for field in fields(options):
        kind, _, absent = str(field.type).partition(" | ")
        value = getattr(options, field.name)
        if kind not in _KINDS or (absent and value is None):
            continue
        expected, noun = _KINDS[kind]
        if not isinstance(value, expected):
            raise SegQuantError(
                f"{field.name} is {value!r}; allowed: {noun}{' or None' if absent else ''}",
                hint="`segquant-trt compile --help` says what each option takes",
            )


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SegQuantError(
            f"{name} is {value!r}; allowed: {', '.join(choices)}",
            hint=f"pass {_flag(name)} with one of these",
        )


def _check_whole(name: str, value: Any, limit: Limit) -> None:
    if value is None and name != "seed":
        return
    low, high = limit
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SegQuantError(
            f"{name} is {value!r}; allowed: a whole number from {low} to {high}",
            hint=f"pass {_flag(name)} with a number in this range",
        )


def _check_guidance(value: Any) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise SegQuantError(
            f"guidance_scale is {value!r}; allowed: a finite number that is not negative",
            hint="0 or 1 switches guidance off; 3.5 to 7.5 are usual values",
        )


def _check_sqnr(value: Any) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise SegQuantError(
            f"target_sqnr is {value!r}; allowed: a finite number of decibels",
            hint="30 to 45 are usual values; --max-latency asks for speed instead",
        )


def _check_bits(value: Any) -> None:
    if value not in (4, 8):
        raise SegQuantError(
            f"weight_bits is {value!r}; allowed: 4, 8", hint="pass --weight-bits 4 or 8"
        )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0.0 else None


def _check_model(value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise SegQuantError(
            f"the model is {value!r}; allowed: a zoo name, a folder or a hub id",
            hint="try zoo:digits-unet",
        )


def _check_patterns(value: Any) -> None:
    texts = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
    if not texts:
        raise SegQuantError(
            f"keep_float is {value!r}; allowed: a tuple of patterns such as 'time_embed*'",
            hint="pass --keep-float PATTERN once per pattern",
        )
