"""What a rule is: a named check, the targets and GPUs that it holds for, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from segquant_trt.backends.tensorrt.lint.finding import TARGETS, Severity, Target
from segquant_trt.backends.tensorrt.lint.subject import Subject


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that a rule does not hold for; `reason` is a sentence about it."""

    node: str
    reason: str
    tensors: tuple[str, ...] = ()


Check = Callable[[Subject], Iterable[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the rule book.

    Args:
        name: of the rule; the same for entries that differ in target and severity alone.
        fix: what to do about any finding of it.
        targets: editions of TensorRT that it holds for.
        gpus: whether it holds for a compute capability, as 89.
        since: first major version of data-centre TensorRT that it holds for.
    """

    name: str
    severity: Severity
    check: Check
    fix: str
    targets: tuple[Target, ...] = TARGETS
    gpus: Callable[[int], bool] = lambda capability: True
    since: int = 0

    def applies(self, subject: Subject) -> bool:
        """Whether the rule holds for the target, version and GPU at hand."""
        right = subject.target in self.targets and self.gpus(subject.capability)
        return right and (subject.major is None or subject.major >= self.since)
