"""Every continuity method on every family that admits it, with tiny random checkpoints."""

from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.actions.timing import timing_of
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.continuity.methods import METHODS, admitted, continued
from dit_policy_ros.types import ActionChunk

pytest.importorskip("transformers")
from tiny_families import SHIPPED, WORDS, make_family_directory, observe


@pytest.mark.parametrize("name", SHIPPED)
def test_a_family_admits_what_its_network_allows(name, tmp_path):
    policy = load_policy(make_family_directory(name, tmp_path / name))
    refused = {"streaming"} if policy.predicts == "velocity" else {"streaming", "real_time", "real_time_identity"}
    assert set(admitted(policy)) == METHODS.keys() - refused
    for method in refused:
        with pytest.raises(PolicyError, match=r"velocity|noise level per action"):
            continued(policy, method)
    for method in admitted(policy):
        wrapped = continued(policy, method)
        first = observe(policy)
        context = wrapped.encode(first, WORDS, epoch=3)
        chunk = wrapped.act(first, context)
        later = replace(first, stamp_ns=first.stamp_ns + 2 * policy.step_ns)
        prefix = None
        if timing_of(wrapped).commits:
            prefix = ActionChunk(chunk.names, later.stamp_ns, policy.step_ns, chunk.actions[2:4], committed=2)
        after = wrapped.act(later, context, prefix)
        assert np.isfinite(after.actions).all(), method
        assert after.observation_ns == later.stamp_ns, method
