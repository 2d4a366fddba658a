"""How a model is to be served, as far as the user chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segquant_trt.errors import SegQuantError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_NAME = 128
_MAX_DELAY_US = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """None: chosen from the bundle.

    `max_batch_size` counts samples: guidance sends two per image. `queue_delay_us` is how long a
    request may wait for others to join it in one batch. `threads` are those of the runtime in each
    of the `instances`; 0: all cores. `kept_prompts`: for how many prompts each instance remembers
    what they alone decide, in a bundle where that is a graph of its own; 0: nothing is kept
    between requests.
    """

    name: str | None = None
    max_batch_size: int | None = None
    dynamic_batching: bool = True
    queue_delay_us: int = 0
    instances: int = 1
    threads: int = 0
    kept_prompts: int = 0
    warm_up: bool = True

    def __post_init__(self) -> None:
        """Refuse what no server takes.

        Raises:
            SegQuantError: naming the option and what is allowed.
        """
        if self.name is not None:
            check_name(self.name)
        if self.max_batch_size is not None:
            _check("max_batch_size", self.max_batch_size, 1, 1 << 16)
        _check("queue_delay_us", self.queue_delay_us, 0, _MAX_DELAY_US)
        _check("instances", self.instances, 1, 256)
        _check("threads", self.threads, 0, 4096)
        _check("kept_prompts", self.kept_prompts, 0, 1 << 20)


def check_name(name: str) -> str:
    """`name` if a server can call a model so.

    Raises:
        SegQuantError: it cannot.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise SegQuantError(
            f"a model cannot be named {name!r}; allowed: letters, digits, '_', '.' and '-', the "
            f"first a letter or digit, {_MAX_NAME} at most",
            hint="choose another with --name",
        )
    return name


def name_of(source: str) -> str:
    """A model's name from what its bundle was made of: `zoo:digits-unet` gives `digits-unet`."""
    last = re.split(r"[/:\\]", source.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", last).lstrip("._-")[:_MAX_NAME] or "denoiser"


def _check(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SegQuantError(
            f"{name} is {value!r}; allowed: whole numbers from {low} to {high}",
            hint=f"give another --{name.replace('_', '-')}, or leave it out",
        )


def merges(options: ServingOptions, *, hoisted: bool, max_batch_size: int) -> bool:
    """Whether requests of several clients are computed in one batch.

    What is kept per prompt belongs to whole requests.
    """
    keeps = hoisted and options.kept_prompts > 0
    return options.dynamic_batching and max_batch_size > 1 and not keeps
