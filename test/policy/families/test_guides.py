"""Guidance wraps the denoiser of every official family, and the sampler does not notice."""

import pytest
import torch
from family_checks import assert_close, inputs, network

from dit_policy_ros.policy.guide import guided_actions
from dit_policy_ros.policy.references.networks import RUNNERS


def sampled(family, guide):
    """What the family samples from the inputs of a reference case."""
    case = {"cogact": "ddim10", "gr00t_n15": "euler4", "gr00t_n16": "euler4"}.get(family, "sample")
    given, net = inputs(family, case), network(family)
    noise = given["noise"] if "noise" in given else given["initial_noise"]
    if family == "rdt":
        cache = net.encode(given["lang_tokens"], given["img_tokens"], given["lang_attn_mask"])
        fast = (given["state_tokens"], given["action_mask"], given["ctrl_freqs"])
    elif family == "cogact":
        cache, fast = net.encode(given["cognition_token"]), ()
    elif family in ("h_rdt", "rdt2_fm"):
        cache = RUNNERS[family]._encode(net, given)
        fast = (given["state_tokens"],)
    else:
        cache = RUNNERS[family]._encode(net, given)
        fast = (given["state"], given["embodiment_id"])
    return net.sample(cache, noise, *fast, guide=guide)


@pytest.mark.parametrize("family", ["rdt", "h_rdt", "rdt2_fm", "cogact", "gr00t_n16", "gr00t_n15"])
def test_a_guide_sees_every_call(family):
    calls = []

    def watch(net):
        def watched(x, time):
            calls.append(time)
            return net(x, time)

        return watched

    plain = sampled(family, None)
    assert_close(sampled(family, watch), plain)
    assert len(calls) in (4, 5, 10)
    assert (sampled(family, lambda net: lambda x, time: torch.zeros_like(x)) - plain).abs().max() > 1e-3


def test_the_rest_of_a_prediction_comes_from_the_guided_call_or_from_one_of_its_own():
    calls = []

    def network(x, time):
        calls.append(x)
        return 2 * x, x + time

    x = torch.ones(1, 2, 3)
    asking = guided_actions(network, lambda inner: lambda x, time: inner(x + 1, time) - 1)
    prediction, rest = asking(x, 5)
    assert (prediction == 3).all()
    assert (rest == 7).all()
    knowing = guided_actions(network, lambda inner: lambda x, time: 0 * x)
    prediction, rest = knowing(x, 5)
    assert (prediction == 0).all()
    assert (rest == 6).all()
    assert len(calls) == 2
