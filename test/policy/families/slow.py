"""The layers of the official notes once more: plain numpy, float64, one head after the other, nothing cached."""

import math

import numpy as np


def as_numpy(tensor):
    return None if tensor is None else tensor.double().numpy()


class Weights:
    """Parameters by the names of the checkpoint."""

    def __init__(self, network):
        self.arrays = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def __getitem__(self, name):
        return self.arrays[name]

    def __contains__(self, name):
        return name in self.arrays

    def linear(self, name, x):
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def stack(self, name, x, activation):
        """A linear, or the linears .0, .2, ... with an activation between."""
        if f"{name}.weight" in self:
            return self.linear(name, x)
        number = 0
        while f"{name}.{number}.weight" in self:
            x = self.linear(f"{name}.{number}", activation(x) if number else x)
            number += 2
        return x

    def layer_norm(self, name, x, eps=1e-5):
        y = plain_norm(x, eps) * self[f"{name}.weight"]
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y


def plain_norm(x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)


def gain_norm(x, gain, eps):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True) / math.sqrt(x.shape[-1]), eps) * gain


def rms_norm(x, gain, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def sincos(t, width, divisor, sines_first):
    half = width // 2
    angles = np.asarray(t, dtype=float)[:, None] * np.exp(-math.log(10_000) * np.arange(half) / divisor)
    halves = (np.sin(angles), np.cos(angles)) if sines_first else (np.cos(angles), np.sin(angles))
    return np.concatenate(halves, axis=-1)


def attention(q, k, v, heads, sees=None, kv_heads=None):
    """q (B, N, D), k and v (B, L, Dk); ``sees(sample, query, key)`` says who may look where."""
    width = q.shape[-1] // heads
    group = heads // (kv_heads or heads)
    out = np.zeros_like(q)
    for b in range(len(q)):
        for h in range(heads):
            mine, theirs = slice(h * width, (h + 1) * width), slice(h // group * width, (h // group + 1) * width)
            scores = q[b, :, mine] @ k[b, :, theirs].T / math.sqrt(width)
            if sees is not None:
                hidden = [[not sees(b, i, j) for j in range(k.shape[1])] for i in range(q.shape[1])]
                scores = np.where(hidden, -np.inf, scores)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, mine] = shares / shares.sum(-1, keepdims=True) @ v[b, :, theirs]
    return out


def edm(network, x, sigma, sigma_data=0.5):
    """``network(scaled x)`` preconditioned at levels (B,)."""
    s = sigma.reshape(-1, 1, 1)
    total = s**2 + sigma_data**2
    return sigma_data**2 / total * x + s * sigma_data / np.sqrt(total) * network(x / np.sqrt(total))
