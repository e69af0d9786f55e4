"""Operations of the ``bac`` reference directory."""

from __future__ import annotations

import numpy as np
import torch

from dit_policy_ros.policy.caching.block import BlockCache
from dit_policy_ros.policy.caching.block_schedule import (
    bubbled,
    bubbled_paper,
    caching_error,
    cosine_similarity,
    segments_worth,
    update_steps,
    update_steps_paper,
)
from dit_policy_ros.policy.references.case import Case, Outputs

# The published code compares with a misspelt 'l2', so that it maximises that distance.
DISTANCES = ("mse", "l1", "wasserstein")


def similarity(case: Case) -> Outputs:
    """Similarities and errors of one sub-block."""
    features = case.inputs["features"].numpy()
    cosine = cosine_similarity(features)
    return {
        "cosine": torch.from_numpy(cosine),
        "adjacent": torch.from_numpy(np.diagonal(cosine, -1).copy()),
        "error_paper": torch.tensor([caching_error(features)]),
        "error_code": torch.tensor([caching_error(features, paper=False)]),
    }


def schedule_code(case: Case) -> Outputs:
    """The published scheduler."""
    values = case.inputs["similarity"].numpy()
    steps = update_steps(values, case.parameters["num_caches"], case.parameters["metric"] not in DISTANCES)
    return {"steps": torch.tensor(steps), "total": torch.tensor([segments_worth(values, steps)])}


def schedule_paper(case: Case) -> Outputs:
    """The scheduler of the paper."""
    adjacent = case.inputs["adjacent"].numpy()
    steps = update_steps_paper(adjacent, case.parameters["num_caches"])
    skipped = adjacent.sum(dtype=np.float64) - sum(adjacent[step - 1] for step in steps[1:])
    return {"steps": torch.tensor(steps), "total": torch.tensor([skipped])}


def union_code(case: Case) -> Outputs:
    """The published union."""
    selected = [tuple(pair) for pair in case.inputs["selected"].tolist()]
    return {"update_after": torch.from_numpy(bubbled(case.inputs["update"].numpy(), selected))}


def _union_paper(case: Case, all_downstream: bool) -> Outputs:
    update, error = case.inputs["update"].numpy(), case.inputs["error"].numpy()
    selected, after = bubbled_paper(update, error, case.parameters["num_selected"], all_downstream)
    return {"selected": torch.tensor(selected), "update_after": torch.from_numpy(after)}


def reuse(case: Case) -> Outputs:
    """Scripted sub-block outputs, computed or stored."""
    features, update = case.inputs["features"], case.inputs["update"].clone()
    if case.parameters.get("forced_99"):
        update[..., 99:101] = True
    used, computed = torch.zeros_like(features), torch.zeros(features.shape[:3], dtype=torch.bool)
    for layer in range(features.shape[1]):
        for block in range(features.shape[2]):
            cache = BlockCache(update[layer, block].tolist())
            for step in range(len(features)):

                def compute(place: tuple[int, int, int] = (step, layer, block)) -> torch.Tensor:
                    computed[place] = True
                    return features[place]

                used[step, layer, block] = cache(step, compute)
    return {
        "used": used,
        "computed": computed,
        "residual_stream_end": case.inputs["x0"] + used.sum((1, 2)),
        "cost_fraction": computed.float().mean()[None],
    }


OPERATIONS = {
    "bac_similarity": similarity,
    "bac_schedule_code": schedule_code,
    "bac_schedule_paper": schedule_paper,
    "bac_union_code": union_code,
    "bac_union_paper": lambda case: _union_paper(case, all_downstream=False),
    "bac_union_paper_all_downstream": lambda case: _union_paper(case, all_downstream=True),
    "bac_reuse": reuse,
}
