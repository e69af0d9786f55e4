"""Operations of the ``act_temporal_ensemble`` reference directory."""

from __future__ import annotations

import numpy as np
import torch

from dit_policy_ros.actions.ensemble import predictions_at, temporal_weights, without_zeros
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.types import ActionChunk

STEP_NS = 20_000_000


def temporal_aggregation(case: Case) -> Outputs:
    """The ensemble at every control step, the oldest prediction first."""
    stacked = case.inputs["chunks"].double().numpy()
    length, width = stacked.shape[1:]
    names = tuple(f"channel_{i}" for i in range(width))
    starts = case.inputs["query_steps"].tolist()
    order = sorted(range(len(starts)), key=lambda number: starts[number])
    stacked, starts = stacked[order], [starts[number] for number in order]
    chunks = [
        ActionChunk(names, start * STEP_NS, STEP_NS, actions) for start, actions in zip(starts, stacked, strict=True)
    ]
    steps = case.parameters["max_timesteps"]
    raw, weights, count = np.zeros((steps, width)), np.zeros((steps, length)), np.zeros(steps, dtype=np.int64)
    for t in range(steps):
        known = [chunk for chunk, start in zip(chunks, starts, strict=True) if start <= t]
        predictions = without_zeros(predictions_at(known, t * STEP_NS))
        count[t] = len(predictions)
        if count[t]:
            weights[t, : count[t]] = temporal_weights(predictions, case.parameters["k"])
            raw[t] = weights[t, : count[t]] @ predictions
    mean, std = case.inputs["action_mean"].double().numpy(), case.inputs["action_std"].double().numpy()
    outputs = {"raw_action": raw, "action": raw * std + mean, "count": count, "weights": weights}
    return {name: torch.from_numpy(array) for name, array in outputs.items()}


OPERATIONS = {"act_temporal_aggregation": temporal_aggregation}
