"""Which smoothing divisors cost nothing: a matter of the graph and the target alone."""

from __future__ import annotations

from dataclasses import dataclass

from segquant_trt.records.treatment import Static, Treatment


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeDivisors:
    """Activations by what takes their divisors.

    `producers`: what computes the tensor does. `codes`: its codes do, with a scale per channel;
    a row factor stands between a divisor and the codes, so under one the divisor has its price.
    """

    producers: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()

    def under(self, treatment: Treatment, activation: str) -> bool:
        """Whether a divisor of `activation` costs nothing, treated like this."""
        static = all(isinstance(part.factor, Static) for part in treatment.segments)
        return activation in self.producers or (static and activation in self.codes)
