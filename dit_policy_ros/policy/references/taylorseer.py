"""Operations of the ``taylorseer`` reference directory."""

from __future__ import annotations

import torch

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.caching.taylorseer import TaylorCache, full_steps
from dit_policy_ros.policy.references.case import Case, Outputs

VARIANTS = ("diffusers", "dit", "flux")


def sequence(case: Case) -> Outputs:
    """A scripted feature, computed or forecast."""
    p = case.parameters
    if p["variant"] not in VARIANTS:
        raise PolicyError(one_of("Variant", p["variant"], VARIANTS))
    theirs = p["variant"] != "diffusers"
    rule = "restart" if theirs else "fixed"
    full = full_steps(p["num_steps"], p["interval"], p["warmup"], rule, p.get("cooldown_from"))
    cache = TaylorCache(full, p["max_order"], p["warmup"] - 1 if theirs else 0)
    features, rows = case.inputs["features"], []
    for step, feature in enumerate(features):
        used = cache(step, lambda feature=feature: feature)
        held = torch.zeros(p["max_order"] + 1, features.shape[1])
        held[: len(cache.factors)] = torch.stack(cache.factors)
        if p["variant"] == "dit":  # its step index counts down, which turns the odd differences around
            held[1::2] *= -1
        rows.append((used, held, torch.tensor(len(cache.factors))))
    names = ("used", "factors", "n_factors")
    outputs = {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return outputs | {"is_full": torch.tensor(full)}


OPERATIONS = {"taylorseer_sequence": sequence}
