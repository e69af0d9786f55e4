"""Continuity methods on a policy that knows two ways, on ours, and on every family."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from test_dual_system import make_policy
from test_dual_system import observe as observe_dual

from dit_policy_ros.actions.timing import Timing, placed, timing_of
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.checkpoint import load_policy, save_dual_policy
from dit_policy_ros.policy.continuity.best_of import incoherence
from dit_policy_ros.policy.continuity.methods import DEFAULT, METHODS, continued
from dit_policy_ros.policy.continuity.streaming import Stream
from dit_policy_ros.policy.continuity.warm_start import prediction_of, warm_guide
from dit_policy_ros.policy.guidance.prefix import flow_corruption, inpainted
from dit_policy_ros.policy.guide import guided
from dit_policy_ros.policy.samplers.flow import euler
from dit_policy_ros.policy.samplers.streaming import Layout, ddim_tokens
from dit_policy_ros.policy.schedules import squared_cosine
from dit_policy_ros.policy.steering import Drawing, Steering
from dit_policy_ros.types import ActionChunk, Context, Observation

MS = 1_000_000
STEP = 20 * MS
NAMES = ("a", "b")
H = 16
OURS = [name for name in METHODS if name != "streaming"]


class TwoWays:
    """Both joints at +1 or both at -1, for the whole chunk; the noise decides. Velocities are exact."""

    predicts, horizon, step_ns, commit_multiple = "velocity", H, STEP, 1
    slow_cameras = fast_cameras = ()

    def __init__(self):
        self.seen: list[Observation] = []
        self.evaluations = 0

    def encode(self, observation, instruction, epoch=0):
        return Context(observation.stamp_ns, instruction, epoch, {})

    def velocity(self, x, t):
        """Of a flow to +1 or -1 with a spread of 0.05, one decision a chunk."""
        self.evaluations += 1
        variance = (0.05 * t) ** 2 + (1 - t) ** 2
        way = torch.tanh((x * t / variance).mean((1, 2), keepdim=True) * 4)
        clean = way + 0.0025 * t / variance * (x - t * way)
        return (clean - x) / (1 - t) if t < 1 else x * 0

    def act(self, observation, context, committed=None, steering=None):
        self.seen.append(observation)
        steering = steering or Steering()
        generator = torch.Generator().manual_seed(steering.seed(observation.stamp_ns))
        noise = torch.randn((1, H, 2), generator=generator, dtype=torch.float64)

        def to_network(chunk):
            return torch.from_numpy(chunk.actions)

        drawing = Drawing(
            noise, flow_corruption, "velocity", observation.stamp_ns, STEP, 0, torch.ones(2) > 0, 1.2, to_network
        )
        guide = steering.guided(drawing)
        network = guided(self.velocity, guide)
        count = 0 if committed is None else len(committed.actions)
        if count:
            mask = torch.arange(H)[:, None] < count
            network = inpainted(network, drawing.of(committed)[0], mask, noise, flow_corruption)
        actions = euler(network, noise, [i / 5 for i in range(6)])[0].numpy()
        if count:
            actions[:count] = committed.actions
        stamp_ns = observation.stamp_ns
        return ActionChunk(NAMES, stamp_ns, STEP, actions, stamp_ns, context.stamp_ns, context.epoch, count)


def run(method, chunks=24, every=4, committed=2, epoch=1, policy=None):
    """Plans every few steps, as a loop does; returns the chunks."""
    inner = policy or TwoWays()
    wrapped, plan, made = continued(inner, method), None, []
    for k in range(chunks):
        now_ns = 1000 * MS + k * every * STEP
        observation = Observation(now_ns, {"a": 0.0, "b": 0.0})
        prefix = None
        if plan is not None and timing_of(wrapped).commits:
            rows = plan.actions[every : every + committed]
            prefix = ActionChunk(NAMES, now_ns, STEP, rows, epoch=epoch, committed=committed)
        plan = wrapped.act(observation, Context(now_ns, "", epoch, {}), prefix)
        assert plan.start_ns >= now_ns
        made.append(plan)
        if plan.start_ns > now_ns:  # rolled forward: what comes before it is what was committed
            lead = (plan.start_ns - now_ns) // STEP
            rows = np.concatenate((prefix.actions[:lead], plan.actions))[: len(plan.actions)]
            plan = replace(plan, start_ns=now_ns, actions=rows)
    return made


def ways(chunks):
    return [np.sign(chunk.actions[4:8].mean()) for chunk in chunks]


def changes(chunks):
    found = ways(chunks)
    return sum(a != b for a, b in pairwise(found))


def test_a_policy_of_two_ways_changes_its_mind_without_a_method():
    assert 6 <= changes(run("splice")) <= 18
    assert all(np.abs(chunk.actions).max() < 1.3 for chunk in run("splice"))


@pytest.mark.parametrize(
    ("method", "most"), [("real_time", 4), ("real_time_identity", 0), ("prefix", 4), ("warm_start", 0), ("best_of", 3)]
)
def test_methods_that_look_back_stay_with_their_way(method, most):
    assert changes(run(method, committed=8 if method == "prefix" else 2)) <= most


@pytest.mark.parametrize("method", ["real_time", "real_time_identity", "warm_start", "best_of"])
def test_a_new_epoch_and_a_clock_that_jumped_back_are_free_again(method):
    policy = TwoWays()
    wrapped, free = continued(policy, method), TwoWays()
    for epoch, now_ns in ((1, 1000 * MS), (2, 1080 * MS), (2, 500 * MS), (2, 9000 * MS)):
        observation, context = Observation(now_ns, {"a": 0.0, "b": 0.0}), Context(now_ns, "", epoch, {})
        chunk = wrapped.act(observation, context)
        np.testing.assert_array_equal(chunk.actions, free.act(observation, context).actions)


def test_the_prefix_comes_back_exactly_in_real_time_chunking():
    for chunk, before in zip((made := run("real_time"))[1:], made, strict=False):
        np.testing.assert_array_equal(chunk.actions[:2], before.actions[4:6])
        assert chunk.committed == 2


@pytest.mark.parametrize("method", ["temporal_ensemble", "adaptive_ensemble"])
def test_ensembles_average_the_raw_chunks_of_an_epoch(method):
    raw, mean = run("splice"), run(method)
    np.testing.assert_array_equal(raw[0].actions, mean[0].actions)
    # Four chunks cover the first instant of a later one; ACT weighs the oldest most.
    k = 10
    rows = np.array([raw[k - 3].actions[12], raw[k - 2].actions[8], raw[k - 1].actions[4], raw[k].actions[0]])
    if method == "temporal_ensemble":
        weights = np.exp(-0.01 * np.arange(4))
        np.testing.assert_allclose(mean[k].actions[0], weights @ rows / weights.sum(), atol=1e-9)
    assert rows.min() - 1e-9 <= mean[k].actions[0].min() <= mean[k].actions[0].max() <= rows.max() + 1e-9


def test_an_option_of_an_ensemble_is_used():
    plain = run({"method": "temporal_ensemble", "decay": 0.0})[10].actions
    assert np.abs(plain - run("temporal_ensemble")[10].actions).max() > 0


def test_a_warm_start_calls_the_network_less_and_repeats_at_no_noise():
    policy = TwoWays()
    run({"method": "warm_start", "noise": 0.5}, chunks=1, policy=policy)
    cold = policy.evaluations
    run({"method": "warm_start", "noise": 0.5}, chunks=2, policy=(warm := TwoWays()))
    # Of the flow times 0, 0.2, ... 0.8 the share of noise at 0.6 and 0.8 is below a half.
    assert warm.evaluations - cold == 2


@pytest.mark.parametrize("predicts", ["velocity", "epsilon", "sample", "v"])
def test_a_skipped_prediction_points_at_the_last_chunk(predicts):
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 2, dtype=torch.float64)
    alpha, sigma = (0.3, 0.7) if predicts == "velocity" else (0.6, 0.8)
    x = alpha * clean + sigma * noise
    out = prediction_of(clean, x, alpha, sigma, predicts)
    expected = {"velocity": clean - noise, "epsilon": noise, "sample": clean, "v": alpha * noise - sigma * clean}
    torch.testing.assert_close(out, expected[predicts])


def test_a_warm_start_puts_the_sampler_where_it_would_have_begun():
    torch.manual_seed(1)
    clean, noise = torch.randn(2, 1, 4, 2, dtype=torch.float64)
    called: list[tuple[float, torch.Tensor]] = []

    def network(x, t):
        called.append((t, x))
        return torch.zeros_like(x)

    drawing = Drawing(noise, flow_corruption, "velocity", 0, STEP, 0, torch.ones(2) > 0, None, None)
    euler(warm_guide(drawing, clean, 0.6)(network), noise, [i / 5 for i in range(6)])
    assert called[0][0] == pytest.approx(0.4)
    torch.testing.assert_close(called[0][1], 0.4 * clean + 0.6 * noise)


def test_the_best_of_several_is_the_nearest_to_what_was_left():
    times = np.zeros((4, 1))
    before = ActionChunk(("x",), 0, STEP, times)
    near, far = (ActionChunk(("x",), STEP, STEP, times + offset) for offset in (0.1, 0.4))
    assert incoherence(before, near, 0.9) == pytest.approx(0.1)
    assert incoherence(before, far, 0.9) == pytest.approx(0.4)
    assert incoherence(before, replace(far, start_ns=100 * STEP), 0.9) == 0.0
    late = ActionChunk(("x",), STEP, STEP, np.array([[0.0], [0.0], [1.0], [9.0]]))
    assert incoherence(before, late, 0.1) < incoherence(before, late, 1.0)
    policy = TwoWays()
    run({"method": "best_of", "draws": 3}, chunks=2, policy=policy)
    assert len(policy.seen) == 1 + 3


def test_rolled_forward_the_policy_sees_where_the_robot_will_be():
    policy = TwoWays()
    made = run("roll_forward", policy=policy)
    for before, observation, chunk in zip(made, policy.seen[1:], made[1:], strict=False):
        lead = (before.start_ns - before.observation_ns) // STEP
        last = before.actions[5 - lead]
        np.testing.assert_allclose(list(observation.positions.values()), last)
        assert chunk.start_ns == observation.stamp_ns + STEP
        assert chunk.observation_ns == observation.stamp_ns


class Streamed(TwoWays):
    """One possible action, in units of the network; any noise level per token."""

    schedule = squared_cosine(12)
    stream = Stream(Layout(horizon=12, observations=2, actions=4, steps=12), schedule, ddim_tokens(schedule, 12), 2)

    def denoiser(self, observation, context):
        def denoise(x, levels):
            self.evaluations += 1
            table = torch.tensor(self.schedule.alphas_cumprod, dtype=x.dtype)[levels.clamp(min=0)][..., None]
            return (x - table.sqrt() * 0.25) / (1 - table).sqrt()

        return denoise

    def restored(self, rows, observation, context):
        stamp_ns = observation.stamp_ns
        return ActionChunk(NAMES, stamp_ns, STEP, rows.double().numpy(), stamp_ns, context.stamp_ns, context.epoch)


def test_streaming_hands_out_the_clean_head_and_costs_less_than_a_whole_chunk():
    policy = Streamed()
    first = run("streaming", chunks=1, policy=policy)[0]
    np.testing.assert_allclose(first.actions, 0.25, atol=1e-4)
    assert first.actions.shape == (4, 2)
    filled = policy.evaluations
    policy.evaluations = 0
    made = run("streaming", chunks=3, policy=policy)
    assert policy.evaluations - filled == 2 * (12 // 2)
    np.testing.assert_allclose(made[-1].actions, 0.25, atol=1e-4)


def test_a_stream_that_missed_its_instant_begins_anew():
    policy = Streamed()
    run("streaming", chunks=1, policy=policy)
    filled, policy.evaluations = policy.evaluations, 0
    run("streaming", chunks=2, every=5, policy=policy)
    assert policy.evaluations == 2 * filled


def test_streaming_says_what_it_needs():
    with pytest.raises(PolicyError, match="noise level per action"):
        continued(TwoWays(), "streaming")


@pytest.mark.parametrize("method", OURS)
def test_our_policy_admits_every_other_method(method):
    policy = continued(make_policy(), method)
    first = observe_dual()
    context = policy.encode(first, "hand the red cube over", epoch=2)
    assert policy.slow_cameras == ("top",)
    assert policy.fast_cameras == ("left", "right")
    chunk = policy.act(first, context)
    second = observe_dual(seed=1, stamp_ns=first.stamp_ns + 4 * STEP)
    prefix = None
    if timing_of(policy).commits:
        prefix = ActionChunk(chunk.names, second.stamp_ns, STEP, chunk.actions[4:8], epoch=2, committed=4)
    after = policy.act(second, context, prefix)
    assert after.actions.shape == (16, 4)
    assert np.isfinite(after.actions).all()
    assert (after.observation_ns, after.epoch) == (second.stamp_ns, 2)
    if prefix is not None and method != "roll_forward":
        np.testing.assert_array_equal(after.actions[:4], prefix.actions)
    free = make_policy().act(second, context)
    same = np.array_equal(after.actions, free.actions)
    assert same == (method in ("synchronous", "naive", "splice")), "a method changes the second chunk"


def test_both_jacobians_and_the_bound_reach_our_network():
    def second(**options):
        policy = continued(make_policy(), {"method": "real_time", **options})
        first = observe_dual()
        context = policy.encode(first, "hand the red cube over")
        policy.act(first, context)
        return policy.act(observe_dual(seed=1, stamp_ns=first.stamp_ns + 4 * STEP), context).actions

    exact, identity = second(), second(jacobian="identity")
    assert np.abs(exact - identity).max() > 1e-6
    assert np.abs(second(beta=1.0) - exact).max() > 1e-6
    span = make_policy().config.actions
    assert np.abs(span.normalise(second(beta=1e6))).max() <= 1.1 + 1e-6


def test_unknown_methods_and_options_are_named():
    with pytest.raises(PolicyError, match="temporal_ensemble"):
        continued(TwoWays(), "smooth")
    with pytest.raises(PolicyError, match="sharpness"):
        continued(TwoWays(), {"method": "best_of", "sharpness": 3})
    for bad in (
        {"method": "warm_start", "noise": 0.0},
        {"method": "best_of", "draws": 1},
        {"method": "real_time", "jacobian": "none"},
        {"method": "real_time", "mask": "steep"},
        {"method": "synchronous", "executes": 0.0},
    ):
        with pytest.raises(PolicyError, match=r"llowed|must|none|steep"):
            continued(TwoWays(), bad)
    with pytest.raises(PolicyError, match="takes part in sampling"):
        continued(object(), "warm_start")
    diffusion = TwoWays()
    diffusion.predicts = "epsilon"
    with pytest.raises(PolicyError, match="epsilon"):
        continued(diffusion, "real_time")


def test_one_line_of_the_policy_s_file_chooses(tmp_path):
    save_dual_policy(tmp_path, make_policy().config, make_policy().network, {})
    assert type(load_policy(tmp_path)).__name__ == "DualPolicy"
    file = tmp_path / "policy.yaml"
    data = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**data, "continuity": {"method": "best_of", "draws": 2}}))
    assert type(load_policy(tmp_path)).__name__ == "BestOfPolicy"
    assert timing_of(load_policy(tmp_path, "naive")).starts_at_arrival
    assert type(load_policy(tmp_path, DEFAULT)).__name__ == "DualPolicy"
    file.write_text(yaml.safe_dump({**data, "continuity": "smooth"}))
    with pytest.raises(PolicyError, match="Continuity method"):
        load_policy(tmp_path)


def test_chunks_are_placed_as_their_method_says():
    chunk = ActionChunk(("x",), 100 * MS, STEP, np.arange(10.0)[:, None])
    assert placed(chunk, Timing(), 150 * MS) is chunk
    assert placed(chunk, Timing(starts_at_arrival=True), 150 * MS).start_ns == 150 * MS
    assert len(placed(chunk, Timing(executes=0.5), 150 * MS).actions) == 5
    assert timing_of(object()) == Timing()
