"""Loads a policy inside a node."""

from __future__ import annotations

import os

from dit_policy_ros.types import Policy


def load_policy_in_process(path: str, threads: int, device: str) -> Policy:
    """Loads a policy and keeps its numerics to a number of threads, so that two policy processes share the cores.

    Args:
        path: policy directory, or the name of one in ``models/``.
        threads: of one operation.
        device: where its networks run: 'cpu', 'cuda' or 'cuda:1'.

    Raises:
        CheckpointError: there is no such policy, or it is damaged.
        ConfigError: there is no such device.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Imported here: torch reads these variables when it is loaded.
    from dit_policy_ros.policy.checkpoint import load_policy
    from dit_policy_ros.policy.threads import limit_threads

    limit_threads(threads)
    return load_policy(path, device=device)


def joined(policy: Policy, continuity: str) -> Policy:
    """Returns the policy with its chunks joined by a method; '' returns it as it is.

    Raises:
        PolicyError: the method is unknown, or not for this policy.
    """
    if not continuity:
        return policy
    from dit_policy_ros.policy.continuity.methods import bare, continued

    return continued(bare(policy), continuity)
