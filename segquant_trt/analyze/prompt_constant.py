"""Sites that depend on prompt inputs alone, or on these and the timestep: what can be hoisted."""

from __future__ import annotations

from segquant_trt.analyze.subject import Findings, Subject


def find(subject: Subject) -> Findings:
    """Sites of both kinds; timestep-only sites are of neither."""
    prompts = frozenset(subject.prompt_inputs)
    timestep = frozenset((subject.timestep,)) if subject.timestep else frozenset()
    constant: list[str] = []
    joint: list[str] = []
    for site in subject.sites:
        dependence = subject.view.dependence[site.activation]
        if not dependence & prompts or not dependence <= prompts | timestep:
            continue
        (joint if dependence & timestep else constant).append(site.name)
    return Findings(prompt_constant=tuple(constant), prompt_and_timestep=tuple(joint))
