"""Where networks run. No GPU is needed: ``pretend_gpu`` refuses what a real one would."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_gpu import GPU, pretended_gpu
from test_dual_system import make_policy, observe, prefix

from dit_policy_ros.errors import CheckpointError, ConfigError
from dit_policy_ros.policy import checkpoint
from dit_policy_ros.policy.checkpoint import POLICY_FILE, load_policy, save_dual_policy
from dit_policy_ros.policy.continuity.methods import bare, continued
from dit_policy_ros.policy.device import HOST, find_device
from dit_policy_ros.policy.two_streams import FAST_PRIORITY, SLOW_PRIORITY, TwoStreams
from dit_policy_ros.strict_yaml import load_yaml_mapping
from dit_policy_ros.types import ActionChunk, Context

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    policy = make_policy()
    folder = tmp_path_factory.mktemp("policies") / "dual"
    save_dual_policy(folder, policy.config, policy.network, {})
    return folder


def loaded(directory, device):
    """What ``load_policy`` loads, without looking whether there is such a device."""
    data = load_yaml_mapping(directory / POLICY_FILE, CheckpointError)
    kind, _ = data.pop("kind"), data.pop("continuity", "")
    return checkpoint.KINDS[kind](directory, data, device)


def received(context):
    """The context as another process gets it."""
    return replace(context, tensors={name: np.copy(array) for name, array in context.tensors.items()})


def test_the_pretended_gpu_refuses_what_a_real_one_does():
    with pretended_gpu():
        there = torch.ones(2, 3).to(GPU)
        assert there.device == GPU
        assert torch.zeros(2, device=there.device).device == GPU
        with pytest.raises(RuntimeError, match="one device"):
            there + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="one device"):
            torch.nn.functional.linear(there, torch.ones(4, 3))
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        np.testing.assert_array_equal((there * torch.tensor(2.0)).cpu().numpy(), np.full((2, 3), 2.0))
        there[:, 0] = torch.zeros(2)
        assert there.cpu().sum() == 4.0


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:99", "mps", "meta", "cpu:0"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(directory, name):
    with pytest.raises(ConfigError, match="This machine has: cpu") as raised:
        load_policy(directory, device=name)
    assert f"'{name}'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_gpus_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"model {number}")
    assert find_device("cuda") == torch.device("cuda:0")
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert find_device("cpu") == HOST
    with pytest.raises(ConfigError, match=r"cpu, cuda:0 \(model 0\), cuda:1 \(model 1\)"):
        find_device("cuda:2")


def test_a_policy_is_loaded_where_it_was_asked_to_run(directory, monkeypatch):
    asked = []
    monkeypatch.setattr(checkpoint, "find_device", lambda name: torch.device(name, 1))
    monkeypatch.setattr(checkpoint, "TwoStreams", lambda policy, device: (policy, device))
    monkeypatch.setitem(
        checkpoint.KINDS, "dual_system", lambda directory, data, device: asked.append(device) or make_policy()
    )
    policy, device = load_policy(directory, device="cuda")
    assert asked == [device] == [torch.device("cuda:1")]
    assert type(policy).__name__ == "DualPolicy"


def test_all_of_the_dual_policy_runs_on_the_device(directory):
    host, observation = loaded(directory, HOST), observe()
    later = replace(observation, stamp_ns=observation.stamp_ns + 40_000_000)
    committed = prefix(observation, 4)
    context = host.encode(observation, "hand it over", 1)
    bound = host.act(observation, context, committed).actions
    with pretended_gpu():
        there = loaded(directory, GPU)
        assert there.device == GPU
        made = there.encode(observation, "hand it over", 1)
        for name, array in context.tensors.items():
            np.testing.assert_allclose(made.tensors[name], array, atol=1e-5)
        np.testing.assert_allclose(there.act(observation, received(made), committed).actions, bound, atol=1e-4)
    for method in ("real_time", "real_time_identity", "warm_start", "best_of"):
        here = continued(host, method)
        chunks = [here.act(seen, context).actions for seen in (observation, later)]
        with pretended_gpu():
            on_gpu = continued(there, method)
            for seen, expected in zip((observation, later), chunks, strict=True):
                np.testing.assert_allclose(on_gpu.act(seen, made).actions, expected, atol=1e-3)


class Recorder:
    """Stands for ``torch.cuda``; keeps what happened in order."""

    def __init__(self):
        self.happened = []
        self.inside = None

    def Stream(self, device, priority):  # noqa: N802
        return Stream(self, device, priority)

    def Event(self):  # noqa: N802
        return Event(self)

    def synchronize(self, device):
        self.happened.append(("synchronized", device))

    @contextmanager
    def stream(self, stream):
        before, self.inside = self.inside, stream.priority
        yield
        self.inside = before


class Stream:
    def __init__(self, cuda, device, priority):
        self.cuda, self.device, self.priority = cuda, device, priority

    def wait_event(self, event):
        self.cuda.happened.append(("waited", self.priority, event.number))


class Event:
    number = 0

    def __init__(self, cuda):
        self.cuda = cuda
        Event.number += 1
        self.number = Event.number

    def record(self, stream):
        self.cuda.happened.append(("recorded", stream.priority, self.number))


class Watched:
    horizon = 8

    def __init__(self, cuda):
        self.cuda = cuda

    def encode(self, observation, instruction, epoch=0):
        self.cuda.happened.append(("encode", self.cuda.inside))
        return Context(0, instruction, epoch, {})

    def act(self, observation, context, committed=None):
        self.cuda.happened.append(("act", self.cuda.inside))
        return ActionChunk((), 0, 1, np.zeros((1, 0)))


def test_each_system_has_its_stream_and_a_chunk_waits_for_its_context():
    cuda = Recorder()
    policy = TwoStreams(Watched(cuda), GPU, cuda)
    assert FAST_PRIORITY < SLOW_PRIORITY  # lower goes first
    assert policy.horizon == 8
    assert not hasattr(policy, "is_news")
    context = policy.encode(observe(), "hand it over", 1)
    policy.act(observe(), context)
    policy.encode(observe(), "hand it over", 1)
    policy.act(observe(), context)
    first = cuda.happened[2][2]
    assert cuda.happened == [
        ("synchronized", GPU),
        ("encode", SLOW_PRIORITY),
        ("recorded", SLOW_PRIORITY, first),
        ("waited", FAST_PRIORITY, first),
        ("act", FAST_PRIORITY),
        ("encode", SLOW_PRIORITY),
        ("recorded", SLOW_PRIORITY, first + 1),
        ("waited", FAST_PRIORITY, first + 1),
        ("act", FAST_PRIORITY),
    ]


def test_a_chunk_with_a_context_of_another_process_waits_for_nothing():
    cuda = Recorder()
    TwoStreams(Watched(cuda), GPU, cuda).act(observe(), Context(0, "", 1, {}))
    assert cuda.happened == [("synchronized", GPU), ("act", FAST_PRIORITY)]


def test_a_method_can_be_changed_without_losing_the_streams():
    placed = TwoStreams(make_policy(), GPU, Recorder())
    assert bare(continued(placed, "splice")) is placed
    assert bare(placed) is placed
    policy = continued(bare(continued(placed, "splice")), "real_time")
    observation = observe()
    assert np.isfinite(policy.act(observation, policy.encode(observation, "hand it over")).actions).all()
