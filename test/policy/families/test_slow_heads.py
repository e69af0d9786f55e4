"""Options of GR00T, RDT2-FM and H-RDT that no reference case has, against the formulas of their notes in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_checks import random_network
from slow import Weights, as_numpy, attention, gelu_tanh, plain_norm, rms_norm, silu, sincos
from test_gr00t import N15, N16, changed
from test_gr00t import example as gr00t_example
from test_h_rdt import SMALL as H_RDT
from test_h_rdt import example as h_rdt_example
from test_lerobot_multi_task_dit import SMALL as LEROBOT
from test_rdt2_fm import SMALL as RDT2
from test_rdt2_fm import example as rdt2_example

from dit_policy_ros.policy.corruption import diffused, diffusion_target
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, prediction_named, signal_and_noise
from dit_policy_ros.policy.schedules import squared_cosine


def diffusers_attention(w, name, x, context, heads, sees=None):
    q, k, v = (w.linear(f"{name}.to_{part}", each) for part, each in zip("qkv", (x, context, context), strict=True))
    return w.linear(f"{name}.to_out.0", attention(q, k, v, heads, sees))


def feed_forward(w, name, x):
    return w.linear(f"{name}.net.2", gelu_tanh(w.linear(f"{name}.net.0.proj", x)))


def per_embodiment(w, name, x, ids):
    return np.stack([row @ w[f"{name}.W"][i] + w[f"{name}.b"][i] for row, i in zip(x, ids, strict=True)])


def gr00t_network(w, c, features, sees_of, state, ids, x, t):
    if "vlln.weight" in w:
        features = w.layer_norm("vlln", features)
    for i in range(getattr(c, "vl_depth", 0)):
        name = f"vl_self_attention.transformer_blocks.{i}"
        normed = w.layer_norm(f"{name}.norm1", features)
        features = features + diffusers_attention(w, f"{name}.attn1", normed, normed, c.vl_heads)
        features = features + feed_forward(w, f"{name}.ff", w.layer_norm(f"{name}.norm3", features))
    hidden = np.maximum(per_embodiment(w, "state_encoder.layer1", state, ids), 0)
    states = per_embodiment(w, "state_encoder.layer2", hidden, ids)
    first = per_embodiment(w, "action_encoder.W1", x, ids)
    code = np.repeat(sincos(t, c.width, c.width // 2, True)[:, None], x.shape[1], axis=1)
    actions = per_embodiment(w, "action_encoder.W2", np.concatenate([first, code], -1), ids)
    actions = per_embodiment(w, "action_encoder.W3", silu(actions), ids)
    if "position_embedding.weight" in w:
        actions = actions + w["position_embedding.weight"][: x.shape[1]]
    parts = [states, actions]
    if "future_tokens.weight" in w:
        parts.insert(1, np.repeat(w["future_tokens.weight"][None], len(x), axis=0))
    y = np.concatenate(parts, axis=1)
    embedder = "model.timestep_encoder.timestep_embedder"
    time = w.linear(f"{embedder}.linear_1", sincos(t, c.time_width, c.time_width // 2 - 1, False))
    time = w.linear(f"{embedder}.linear_2", silu(time))
    for i in range(c.depth):
        name = f"model.transformer_blocks.{i}"
        scale, shift = np.split(w.linear(f"{name}.norm1.linear", silu(time))[:, None], 2, axis=-1)
        inner = plain_norm(y, 1e-5) * (1 + scale) + shift
        cross = i % 2 == 0 or not c.interleave
        context, sees = (features, sees_of(i)) if cross else (inner, None)
        y = y + diffusers_attention(w, f"{name}.attn1", inner, context, c.heads, sees)
        y = y + feed_forward(w, f"{name}.ff", plain_norm(y, 1e-5))
    shift, scale = np.split(w.linear("model.proj_out_1", silu(time))[:, None], 2, axis=-1)
    y = w.linear("model.proj_out_2", plain_norm(y, 1e-6) * (1 + scale) + shift)
    hidden = np.maximum(per_embodiment(w, "action_decoder.layer1", y, ids), 0)
    return per_embodiment(w, "action_decoder.layer2", hidden, ids)[:, -x.shape[1] :]


GR00T = {
    "n15": N15,
    "n15 without norm": changed(N15, vl_norm=False, vl_depth=0, max_actions=None),
    "n15 cross-attention only": changed(N15, interleave=False),
    "n16": N16,
    "n16 text in every cross block": changed(N16, text_every=1, depth=6),
    "n16 text in every third": changed(N16, text_every=3, depth=8),
    "n16 plain": changed(N16, alternate=False, vl_norm=False),
}


@pytest.mark.parametrize("config", GR00T.values(), ids=GR00T)
@pytest.mark.parametrize("states", [1, 2])
def test_gr00t(config, states):
    family = "gr00t_n15" if config in (GR00T["n15"], *list(GR00T.values())[1:3]) else "gr00t_n16"
    net = random_network(family, config)
    features, image, (state, ids), x = gr00t_example(config, batch=3)
    state = torch.cat([state, 1 - state], dim=1)[:, :states]
    mask = torch.ones_like(image)
    mask[1, :2] = False
    t = torch.tensor([-1, 250, 999])

    def sees_of(block):
        if not getattr(config, "alternate", False):
            return None
        text = block % (2 * config.text_every) == 0
        return lambda b, i, j: bool(mask[b, j]) and bool(image[b, j]) != text

    arrays = (as_numpy(features), sees_of, as_numpy(state), ids.tolist(), as_numpy(x), as_numpy(t))
    expected = gr00t_network(Weights(net), config, *arrays)
    cache = net.encode(features) if family == "gr00t_n15" else net.encode(features, mask, image)
    np.testing.assert_allclose(net(cache, x, t, state, ids), expected, atol=2e-4, rtol=2e-4)


def grouped(w, name, c, x, context=None, sees=None, keys_values=None):
    """Grouped-query attention whose keys and values lie next to each other in one projection."""
    q = w.linear(f"{name}.wq", x)
    q = rms_norm(q.reshape(*q.shape[:2], c.heads, -1), w[f"{name}.norm_q.weight"], c.eps).reshape(q.shape)
    if keys_values is None:
        pairs = w.linear(f"{name}.wkv", x if context is None else context)
        k, v = pairs[..., 0::2], pairs[..., 1::2]
        k = rms_norm(k.reshape(*k.shape[:2], c.kv_heads, -1), w[f"{name}.norm_k.weight"], c.eps).reshape(k.shape)
    else:  # (B, heads, L, D) -> (B, L, heads * D)
        k, v = (each.transpose(0, 2, 1, 3).reshape(len(each), each.shape[2], -1) for each in keys_values)
    return w.linear(f"{name}.wo", attention(q, k, v, c.heads, sees, c.kv_heads))


def swiglu(w, name, x):
    return w.linear(f"{name}.w2", silu(w.linear(f"{name}.w1", x)) * w.linear(f"{name}.w3", x))


def shifted(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


def rdt2_network(w, c, condition_of, sees, state, x, t):
    time = w.linear("model.t_embedder.mlp.2", silu(w.linear("model.t_embedder.mlp.0", sincos(t, 256, 128, False))))
    state = w.stack("state_adaptor", state, silu) + w["model.state_pos_emb"]
    vector = silu(np.concatenate([time, state[:, 0]], axis=-1))
    registers = np.repeat(w["model.register_tokens"], len(x), axis=0)
    y = np.concatenate([w.stack("act_adaptor", x, silu), registers], axis=1) + w["model.x_pos_emb"]

    def norm(name, z):
        return rms_norm(z, w[f"{name}.weight"], c.eps)

    for i in range(c.depth):
        name = f"model.blocks.{i}"
        v = np.split(w.linear(f"{name}.adaLN_modulation.1", vector), 9, axis=-1)
        y = y + v[2][:, None] * grouped(w, f"{name}.attn", c, shifted(norm(f"{name}.attn_norm", y), v[0], v[1]))
        query = shifted(norm(f"{name}.cross_norm", y), v[3], v[4])
        y = y + v[5][:, None] * grouped(w, f"{name}.cross_attn", c, query, sees=sees, **condition_of(i, norm))
        y = y + v[8][:, None] * swiglu(w, f"{name}.ffn", shifted(norm(f"{name}.ffn_norm", y), v[6], v[7]))
    shift, scale = np.split(w.linear("model.final_layer.adaLN_modulation.1", vector), 2, axis=-1)
    y = shifted(norm("model.final_layer.ffn_norm", y), shift, scale)
    y = w.linear("model.final_layer.ffn.fc2", silu(w.linear("model.final_layer.ffn.fc1", y)))
    return y[:, : x.shape[1]]


@pytest.mark.parametrize("kind", ["cache", "tokens", "tokens of every block", "tokens without adapter"])
@pytest.mark.parametrize("masked", [True, False])
def test_rdt2_fm(kind, masked):
    config = changed(RDT2, lang_widths=None if "without" in kind else RDT2.lang_widths)
    net = random_network("rdt2_fm", config)
    w = Weights(net)
    (keys, values), state, x = rdt2_example(config, layers=2)
    t, mask = torch.tensor([0.0, 0.93]), torch.ones(2, 6, dtype=torch.bool)
    mask[1, :3] = False
    sees = (lambda b, i, j: bool(mask[b, j])) if masked else None
    given = mask if masked else None
    if kind == "cache":
        cache = net.encode(keys, values, given)

        def condition_of(i, norm):
            return {"keys_values": (as_numpy(keys[i % 2]), as_numpy(values[i % 2]))}
    else:
        width = 24 if "without" in kind else 11
        tokens = torch.randn(
            2, *((3,) if "every" in kind else ()), 6, width, generator=torch.Generator().manual_seed(3)
        )
        cache = net.encode_tokens(tokens, given)
        adapted = as_numpy(tokens) if "without" in kind else w.stack("lang_adaptor", as_numpy(tokens), silu)

        def condition_of(i, norm):
            return {"context": norm(f"model.blocks.{i}.cond_norm", adapted[:, i] if "every" in kind else adapted)}

    expected = rdt2_network(w, config, condition_of, sees, as_numpy(state), as_numpy(x), as_numpy(t))
    np.testing.assert_allclose(net(cache, x, t, state), expected, atol=2e-4, rtol=2e-4)


def h_rdt_network(w, c, img, lang, sees, state, x, t):
    time = w.linear("model.t_embedder.mlp.2", silu(w.linear("model.t_embedder.mlp.0", sincos(t, 256, 128, False))))
    img = w.stack("img_adapter", img, silu) + w["model.img_pos_emb"][:, : img.shape[1]]
    if lang is not None:
        lang = w.stack("lang_adapter", lang, silu) + w["model.lang_pos_emb"][:, : lang.shape[1]]
    rows = [w.stack("action_encoder.state_adaptor", state, silu), w.stack("action_encoder.action_adaptor", x, silu)]
    y = np.concatenate(rows, axis=1) + w["model.x_pos_emb"]
    for i in range(c.depth):
        name = f"model.blocks.{i}"

        def norm(part, z, name=name):
            return w.layer_norm(f"{name}.{part}", z, c.eps)

        v = np.split(w.linear(f"{name}.adaLN_modulation.1", silu(time)), 9, axis=-1)
        y = y + v[2][:, None] * grouped(w, f"{name}.attn", c, shifted(norm("attn_norm", y), v[0], v[1]))
        query = shifted(norm("img_cross_norm", y), v[3], v[4])
        y = y + v[5][:, None] * grouped(w, f"{name}.img_cross_attn", c, query, norm("img_cond_norm", img))
        if lang is not None:
            query = norm("lang_cross_norm", y)
            y = y + grouped(w, f"{name}.lang_cross_attn", c, query, norm("lang_cond_norm", lang), sees)
        y = y + v[8][:, None] * swiglu(w, f"{name}.ffn", shifted(norm("ffn_norm", y), v[6], v[7]))
    name = "model.action_decoder"
    shift, scale = np.split(w.linear(f"{name}.adaLN_modulation.1", silu(time)), 2, axis=-1)
    y = shifted(w.layer_norm(f"{name}.ffn_norm", y, c.eps), shift, scale)
    return w.linear(f"{name}.ffn.fc2", silu(w.linear(f"{name}.ffn.fc1", y)))[:, 1:]


@pytest.mark.parametrize("language", ["masked", "plain", "none"])
@pytest.mark.parametrize("kv_heads", [1, 3, 6])
def test_h_rdt(language, kv_heads):
    config = changed(H_RDT, kv_heads=kv_heads, eps=1e-3)
    net = random_network("h_rdt", config)
    (img, lang), state, x = h_rdt_example(config)
    t, mask = torch.tensor([0.0, 0.93]), torch.ones(lang.shape[:2], dtype=torch.bool)
    mask[0, 2:] = False
    sees = (lambda b, i, j: bool(mask[b, j])) if language == "masked" else None
    arrays = (
        as_numpy(img),
        None if language == "none" else as_numpy(lang),
        sees,
        as_numpy(state),
        as_numpy(x),
        as_numpy(t),
    )
    cache = net.encode(img, None if language == "none" else lang, mask if language == "masked" else None)
    np.testing.assert_allclose(
        net(cache, x, t, state), h_rdt_network(Weights(net), config, *arrays), atol=2e-4, rtol=2e-4
    )


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_the_smallest_noise_of_flow_matching(sigma_min):
    net = random_network("lerobot_multi_task_dit", changed(LEROBOT, objective="flow_matching", sigma_min=sigma_min))
    generator = torch.Generator().manual_seed(4)
    condition, actions, noise = (torch.randn(3, *s, generator=generator) for s in ((14,), (7, 5), (7, 5)))
    cache, t = net.encode(condition), torch.tensor([0.1, 0.5, 0.9])
    noisy = t[:, None, None] * actions + (1 - (1 - sigma_min) * t[:, None, None]) * noise
    expected = F.mse_loss(net(cache, noisy, t), actions - (1 - sigma_min) * noise)
    torch.testing.assert_close(net.loss(cache, actions, noise, t), expected)


@pytest.mark.parametrize("name", ["epsilon", "sample", "v_prediction"])
def test_what_is_learnt_is_what_is_read_back(name):
    schedule, prediction = squared_cosine(50), prediction_named(name)
    actions, noise, t = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.tensor([1, 20, 45])
    target = diffusion_target(actions, noise, t, schedule, prediction)
    noisy = diffused(actions, noise, t, schedule)
    for i, step in enumerate(t.tolist()):
        levels = signal_and_noise(schedule.alpha_bar(step))
        clean, back = clean_and_noise(target[i], noisy[i], *levels, prediction)
        torch.testing.assert_close(clean, actions[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(back, noise[i], atol=1e-4, rtol=1e-4)
