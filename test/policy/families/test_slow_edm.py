"""MDT, MDT-V and MoDE with every option of their notes, against the formulas written out in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_checks import random_network
from slow import Weights, as_numpy, attention, edm, gain_norm, gelu, mish, silu, sincos
from test_mdt import OPTIONS as MDT_OPTIONS
from test_mdt import SMALL as MDT
from test_mdt import example as mdt_example
from test_mode import OPTIONS as MODE_OPTIONS
from test_mode import example as mode_example

NET = "model.inner_model."
SIGMA = torch.tensor([0.02, 0.7, 30.0])


def rotated(x, heads, frequencies):
    """Interleaved pairs of the first features of each head turn by position times frequency."""
    out, width = x.copy(), x.shape[-1] // heads
    for h in range(heads):
        for i, frequency in enumerate(frequencies):
            a, b = h * width + 2 * i, h * width + 2 * i + 1
            for p in range(x.shape[1]):
                c, s = np.cos(p * frequency), np.sin(p * frequency)
                out[:, p, a] = x[:, p, a] * c - x[:, p, b] * s
                out[:, p, b] = x[:, p, b] * c + x[:, p, a] * s
    return out


def mdt_attention(w, name, c, x, context, causal):
    q, k, v = (
        w.linear(f"{name}.{part}", source) for part, source in (("query", x), ("key", context), ("value", context))
    )
    if c.rotary:
        stored = f"{name}.rotary_pos_emb.freqs"
        frequencies = w[stored] if stored in w else 10_000.0 ** (-np.arange(0, 32, 2) / 32)
        q, k = rotated(q, c.heads, frequencies), rotated(k, c.heads, frequencies)
    return w.linear(f"{name}.c_proj", attention(q, k, v, c.heads, (lambda _, i, j: j <= i) if causal else None))


def mdt_network(w, c, tokens, x, sigma):
    """Raw output from the embedded tokens of goal and observations."""
    features = sincos(np.log(sigma) / 4, c.width, c.width // 2 - 1, True)
    noise = w.linear(f"{NET}sigma_emb.3", mish(w.linear(f"{NET}sigma_emb.1", features)))[:, None]
    if c.noise == "context":
        tokens = np.concatenate([noise, tokens], axis=1)

    def mlp(name, y):
        return w.linear(f"{name}.mlp.c_proj", gelu(w.linear(f"{name}.mlp.c_fc", y)))

    for i in range(c.encoder_depth):
        name = f"{NET}encoder.blocks.{i}"
        normed = w.layer_norm(f"{name}.ln_1", tokens)
        tokens = tokens + mdt_attention(w, f"{name}.attn", c, normed, normed, causal=False)
        tokens = tokens + mlp(name, w.layer_norm(f"{name}.ln_2", tokens))
    context = w.layer_norm(f"{NET}encoder.ln", tokens)
    y = w.linear(f"{NET}action_emb", x)
    for i in range(c.decoder_depth):
        name = f"{NET}decoder.blocks.{i}"
        if c.noise == "adaptive":
            vectors = w.linear(f"{name}.adaLN_zero.modulation.1", silu(noise))
            shift1, scale1, gate1, shift2, scale2, gate2 = np.split(vectors, 6, axis=-1)
            inner = shift1 + scale1 * w.layer_norm(f"{name}.ln_1", y)
            y = y + gate1 * mdt_attention(w, f"{name}.attn", c, inner, inner, causal=True)
            y = y + mdt_attention(w, f"{name}.cross_att", c, w.layer_norm(f"{name}.ln3", y), context, causal=True)
            y = y + gate2 * mlp(name, shift2 + scale2 * w.layer_norm(f"{name}.ln_2", y))
            continue
        e = noise if c.noise == "added" else 0.0
        inner = w.layer_norm(f"{name}.ln_1", y) + e
        y = y + mdt_attention(w, f"{name}.attn", c, inner, inner, causal=True)
        y = y + mdt_attention(w, f"{name}.cross_att", c, w.layer_norm(f"{name}.ln3", y) + e, context, causal=True)
        y = y + mlp(name, w.layer_norm(f"{name}.ln_2", y))
    return w.stack(f"{NET}action_pred", w.layer_norm(f"{NET}decoder.ln", y), gelu)


@pytest.mark.parametrize("config", MDT_OPTIONS.values(), ids=MDT_OPTIONS)
def test_mdt(config):
    net = random_network("mdt", config)
    *observed, x = mdt_example()
    w, (static, gripper, goal) = Weights(net), map(as_numpy, observed)
    goal = w.stack(f"{NET}goal_emb", goal, gelu)
    cameras = np.concatenate([w.linear(f"{NET}tok_emb", static), w.linear(f"{NET}incam_embed", gripper)], axis=1)
    if config.positions:
        rows = w[f"{NET}pos_emb"]
        goal, cameras = goal + rows[:, :1], cameras + rows[:, 1:2]
    tokens = np.concatenate([goal, cameras], axis=1)
    expected = edm(lambda z: mdt_network(w, config, tokens, z, as_numpy(SIGMA)), as_numpy(x), as_numpy(SIGMA))
    np.testing.assert_allclose(net(net.encode(*observed), x, SIGMA), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("language", [True, False])
@pytest.mark.parametrize("proprio", [True, False])
@pytest.mark.parametrize("noise", ["adaptive", "added", "context"])
def test_mdtv(language, proprio, noise):
    shapes = {f"{NET}lang_emb.0.weight": (48, 6)}
    config = replace(
        MDT,
        noise=noise,
        proprio_widths=(4, 48, 24) if proprio else None,
        positions=None,
        shapes=shapes,
        out_widths=(24, 100, 5),
    )
    net = random_network("mdtv", config)
    w, generator = Weights(net), torch.Generator().manual_seed(2)
    state, goal, own, x = (torch.randn(3, *shape, generator=generator) for shape in ((4, 7), (1, 6), (1, 4), (8, 5)))
    parts = [
        w.stack(NET + ("lang_emb" if language else "goal_emb"), as_numpy(goal), gelu),
        w.linear(f"{NET}tok_emb", as_numpy(state)),
    ]
    if proprio:
        parts.append(w.stack(f"{NET}proprio_emb", as_numpy(own), mish))
    tokens = np.concatenate(parts, axis=1)
    expected = edm(lambda z: mdt_network(w, config, tokens, z, as_numpy(SIGMA)), as_numpy(x), as_numpy(SIGMA))
    cache = net.encode(state, goal, language, own if proprio else None)
    np.testing.assert_allclose(net(cache, x, SIGMA), expected, atol=2e-4, rtol=2e-4)


def mode_network(w, c, observations, goal, x, sigma):
    heads, scale = c.width // c.head_width, 1e-6
    noise = w.linear(f"{NET}sigma_linear", w.linear(f"{NET}sigma_emb", np.log(sigma)[:, None] / 4))[:, None]
    rows, embedded = w[f"{NET}pos_emb"], w.linear(f"{NET}goal_emb", goal)
    parts = [noise] if c.noise_token else []
    parts += [embedded + rows[:, :1], w.linear(f"{NET}tok_emb", observations) + rows[:, 1:2]]
    parts.append(w.linear(f"{NET}action_emb", x) + rows[:, 1 : 1 + x.shape[1]])
    y = np.concatenate(parts, axis=1)
    condition = noise + embedded if c.goal_in_routing else noise
    for i in range(c.depth):
        name = f"{NET}blocks.{i}"
        inner = gain_norm(y, w[f"{name}.ln_1.g"], scale) + condition
        q, k, v = (w.linear(f"{name}.attn.{part}", inner) for part in ("query", "key", "value"))
        q, k = (
            gain_norm(z.reshape(*z.shape[:2], heads, -1), w[f"{name}.attn.{gain}.g"], scale).reshape(z.shape)
            for z, gain in ((q, "q_norm"), (k, "k_norm"))
        )
        y = y + w.linear(f"{name}.attn.c_proj", attention(q, k, v, heads, lambda _, i, j: j <= i))
        y = gain_norm(y, w[f"{name}.ln_2.g"], scale)
        hidden = gelu(w.linear(f"{name}.router.router.mlp.0", condition[:, 0]))
        logits = w.linear(f"{name}.router.router.mlp.3", hidden)
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        shares = np.clip(shares / shares.sum(-1, keepdims=True), 1e-9, 1 - 1e-9)
        out = y.copy()
        for b in range(len(y)):
            best = np.argsort(-shares[b])[: c.top_k]
            total = shares[b, best].sum() if c.normalize_routing else 1.0
            for expert in best:
                place = f"{name}.experts.expert_{expert}.mlp"
                value, gate = np.split(w.linear(f"{place}.0.project", y[b]), 2, axis=-1)
                out[b] += shares[b, expert] / total * w.linear(f"{place}.2", value * silu(gate))
        y = out
    return w.stack(f"{NET}out", gain_norm(y, w[f"{NET}ln.g"], scale)[:, -x.shape[1] :], gelu)


@pytest.mark.parametrize("config", MODE_OPTIONS.values(), ids=MODE_OPTIONS)
@pytest.mark.parametrize("observations", [1, 3])
def test_mode(config, observations):
    net = random_network("mode", config)
    state, goal, x = mode_example(observations=observations)
    w, sigma = Weights(net), as_numpy(SIGMA)
    expected = edm(lambda z: mode_network(w, config, as_numpy(state), as_numpy(goal), z, sigma), as_numpy(x), sigma)
    np.testing.assert_allclose(net(net.encode(state, goal), x, SIGMA), expected, atol=2e-4, rtol=2e-4)
