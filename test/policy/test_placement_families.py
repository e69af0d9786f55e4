"""Every family on a pretended GPU: nothing on the way to an action stays behind on the host."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
from pretend_gpu import GPU, pretended_gpu
from test_placement import loaded, received
from tiny_families import SHIPPED, WORDS, observe

from dit_policy_ros.policy.continuity.methods import admitted, continued
from dit_policy_ros.types import ActionChunk


@pytest.mark.parametrize("name", SHIPPED)
def test_a_family_runs_on_the_device_and_gives_the_same(policies, directories, name):
    host = policies[name]
    observation = observe(host)
    host._states = (-1, ())
    context = host.encode(observation, WORDS, epoch=31)
    free = host.act(observation, context)
    committed = ActionChunk(free.names, observation.stamp_ns, host.step_ns, free.actions[:2], committed=2)
    bound = host.act(observation, context, committed)
    with pretended_gpu():
        there = loaded(directories[name], GPU)
        assert there.binding.like.device == GPU
        made = there.encode(observation, WORDS, epoch=31)
        for key, array in context.tensors.items():
            # Another kernel attends there, and some encoders compute in bfloat16.
            np.testing.assert_allclose(made.tensors[key], array, atol=0.05)
        carried, at_once = (there.act(observation, known).actions for known in (received(made), made))
        np.testing.assert_allclose(carried, at_once, atol=1e-4)
        np.testing.assert_allclose(there.act(observation, received(context)).actions, free.actions, atol=1e-3)
        prefixed = there.act(observation, received(context), committed)
        np.testing.assert_allclose(prefixed.actions, bound.actions, atol=1e-3)


STEERING = ("real_time", "real_time_identity", "warm_start")


@pytest.mark.parametrize("name", ["rdt_aloha", "h_rdt_aloha"])
def test_methods_that_steer_run_on_the_device(policies, directories, name):
    observation = observe(policies[name])
    with pretended_gpu():
        there = loaded(directories[name], GPU)
        for method in admitted(policies[name]):
            if method not in STEERING:
                continue
            policy = continued(there, method)
            made = policy.encode(observation, WORDS, epoch=32)
            policy.act(observation, made)
            later = replace(observation, stamp_ns=observation.stamp_ns + 2 * there.step_ns)
            assert np.isfinite(policy.act(later, made).actions).all(), method
