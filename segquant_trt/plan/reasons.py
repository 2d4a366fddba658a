"""Why a site is treated as it is, in words that carry the figures."""

from __future__ import annotations

from dataclasses import dataclass

from segquant_trt.plan.problem import FLOAT, Choice, Option
from segquant_trt.records import Considered
from segquant_trt.records.scores import OptionScore, SiteScore

_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was chosen for a site's group, what plain codes would be, and the plan's whole noise."""

    choice: Choice
    plain: Option
    chosen: Option
    noise: float


def reason(score: SiteScore, told: Told) -> str:
    """One sentence: the choice, its share of the error and its price against plain codes."""
    chosen = score.options[told.chosen.index]
    share = float(told.chosen.noise.mean()) / told.noise if told.noise else 0.0
    text = f"{chosen.label}: {_decibels(chosen)}"
    if told.chosen.index != told.plain.index:
        plain = score.options[told.plain.index]
        extra = told.chosen.cost_ms - told.plain.cost_ms
        text += f" against {_decibels(plain)} of {plain.label}, for {extra:+.3g} ms"
    sites = f" with {len(told.choice.sites) - 1} others" if len(told.choice.sites) > 1 else ""
    if score.amplification == "unreached":
        return f"{text}; it reaches no output, so any codes will do{sites}"
    return f"{text}; {share:.1%} of the plan's expected error{sites}"


def left_reason(score: SiteScore, told: Told) -> str:
    """Why the planner left a site in float of its own accord."""
    plain = score.options[told.plain.index]
    share = float(told.plain.noise.mean()) / told.noise if told.noise else 0.0
    return (
        f"little work and much noise: {plain.label} reaches {_decibels(plain)} and would add "
        f"{share:.1%} of the plan's expected error"
    )


def considered(score: SiteScore, told: Told) -> tuple[Considered, ...]:
    """The options that no other beats in both noise and cost, the chosen and the plain one."""
    front = pareto(tuple(o for o in told.choice.options if o.index != FLOAT))
    shown = {option.index: option for option in (told.plain, *front[:_SHOWN], told.chosen)}
    rows = []
    for option in sorted(shown.values(), key=lambda o: (o.cost_ms, o.index)):
        scored = score.options[option.index]
        rows.append(
            Considered(
                option=scored.label,
                sqnr_db=scored.sqnr_db,
                cost_ms=float(f"{option.cost_ms:.4g}"),
                reason=_verdict(option, told),
            )
        )
    return tuple(rows)


def pareto(options: tuple[Option, ...]) -> list[Option]:
    """By rising cost, those with less noise than all cheaper ones."""
    front: list[Option] = []
    for option in sorted(options, key=lambda o: (o.cost_ms, float(o.noise.mean()), o.index)):
        if not front or option.noise.mean() < front[-1].noise.mean():
            front.append(option)
    return front


def _verdict(option: Option, told: Told) -> str:
    if option.index == told.chosen.index:
        return "chosen"
    ratio = float(option.noise.mean()) / max(float(told.chosen.noise.mean()), 1e-30)
    cost = option.cost_ms - told.chosen.cost_ms
    words = f"{ratio:.2g} times the chosen one's noise at {cost:+.3g} ms"
    return f"plain; {words}" if option.index == told.plain.index else words


def _decibels(scored: OptionScore) -> str:
    return "no signal" if scored.sqnr_db is None else f"{scored.sqnr_db:.1f} dB at the site"
