"""The schedules that a compilation is asked to freeze: SCHEDULER:STEPS[:HxW], comma separated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segquant_trt.errors import SegQuantError

_ENTRY = re.compile(r"([A-Za-z]\w*):([1-9]\d{0,4})(?::([1-9]\d{0,4})x([1-9]\d{0,4}))?")
_MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A scheduler class of diffusers (None: the run's own), its number of steps, and an image size.

    The size, height and width in pixels, matters to schedulers that shift their timesteps by it;
    None is the run's own.
    """

    scheduler: str | None
    steps: int
    size: tuple[int, int] | None = None


def parse_schedules(text: str) -> tuple[Schedule, ...]:
    """Read `--freeze-schedule`.

    Raises:
        SegQuantError: an entry is of another form, or asks for too many steps.
    """
    return tuple(_entry(part.strip()) for part in text.split(","))


def _entry(part: str) -> Schedule:
    found = _ENTRY.fullmatch(part)
    if found is None or int(found[2]) > _MOST_STEPS:
        raise SegQuantError(
            f"freeze_schedule has {part!r}; allowed: SCHEDULER:STEPS or SCHEDULER:STEPS:HxW, with "
            f"1 to {_MOST_STEPS} steps, several separated by commas",
            hint="--freeze-schedule default:20 freezes 20 steps of the run's own scheduler",
        )
    size = None if found[3] is None else (int(found[3]), int(found[4]))
    scheduler = None if found[1] == "default" else found[1]
    return Schedule(scheduler=scheduler, steps=int(found[2]), size=size)
