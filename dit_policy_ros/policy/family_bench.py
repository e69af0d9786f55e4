"""Times RDT with random weights: what the split at the slow and fast border saves, and what it needs in memory.

The unsplit computation projects every condition token again in each denoising step, as the official code does.
"""

from __future__ import annotations

import json
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.families.rdt import Rdt, RdtConfig, build
from dit_policy_ros.policy.samplers import dpm_solver
from dit_policy_ros.policy.schedules import linspace_open
from dit_policy_ros.policy.weights import INDEX

RDT_1B = RdtConfig(
    hidden=2048,
    depth=28,
    heads=32,
    ffn_hidden=2048,
    horizon=64,
    action_dim=128,
    lang_widths=(4096, 2048, 2048),
    img_widths=(1152, 2048, 2048),
    state_widths=(256, 2048, 2048, 2048),
    max_lang_tokens=1024,
    img_tokens=4374,
)
"""The released checkpoint: 1.23 billion parameters, two frames of three cameras of 729 patches."""
RDT_TINY = RdtConfig(
    hidden=32,
    depth=4,
    heads=2,
    ffn_hidden=32,
    horizon=8,
    action_dim=128,
    lang_widths=(24, 32, 32),
    img_widths=(20, 32, 32),
    state_widths=(256, 32, 32, 32),
    max_lang_tokens=32,
    img_tokens=60,
)
CONFIGS = {"rdt_1b": RDT_1B, "rdt_tiny": RDT_TINY}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LANGUAGE_TOKENS = 20
SHARD = 1 << 28
"""Most numbers in a shard of the random checkpoint, so that it is never whole in memory twice."""


@dataclass(frozen=True)
class FamilyTimes:
    """What was measured."""

    parameters: int
    load_s: float
    encode_s: float
    act_s: float
    unsplit_s: float
    difference: float
    """Largest between the chunks of both computations."""
    loaded_gib: float
    """Peak resident memory when the checkpoint was loaded."""
    acted_gib: float
    """Peak resident memory after ``encode`` and ``act``."""
    peak_gib: float
    """Peak resident memory at the end, the unsplit computation included."""


def random_checkpoint(config: RdtConfig, directory: Path, dtype: torch.dtype) -> None:
    """Writes a sharded checkpoint of small random weights."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in build(config).state_dict().items()}
    generator, weight_map = torch.Generator().manual_seed(0), {}
    for number, names in enumerate(_shards(shapes)):
        file = f"model-{number:05d}.safetensors"
        tensors = {name: _random(shapes[name], generator).to(dtype) for name in names}
        save_file(tensors, directory / file)
        weight_map |= dict.fromkeys(names, file)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names, size = [], 0
    for name, shape in shapes.items():
        if names and size + math.prod(shape) > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += math.prod(shape)
    yield names


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Matrices keep the size of what they are given; vectors are biases and gains."""
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])


def measure(
    name: str, dtype: str, directory: Path, steps: int = 5, runs: int = 3, tell: Callable[[str], None] = lambda _: None
) -> FamilyTimes:
    """Writes, loads and times a network.

    Args:
        directory: empty; the checkpoint is left there.
        tell: called with a line of progress.

    Raises:
        CheckpointError: unknown configuration or type.
    """
    if name not in CONFIGS:
        raise CheckpointError(one_of("Configuration", name, CONFIGS))
    if dtype not in DTYPES:
        raise CheckpointError(one_of("Type", dtype, DTYPES))
    config = CONFIGS[name]
    tell(f"writing random weights to {directory}")
    random_checkpoint(config, directory, DTYPES[dtype])
    tell("loading")
    begin_s = time.perf_counter()
    network = load_network(directory, "rdt")
    load_s, loaded_gib = time.perf_counter() - begin_s, _peak_gib()
    generator = torch.Generator().manual_seed(1)
    like = network.model.x_pos_embed

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(like)

    slow = normal(1, LANGUAGE_TOKENS, config.lang_widths[0]), normal(1, config.img_tokens, config.img_widths[0])
    mask, state = torch.ones(1, 1, config.action_dim).to(like), normal(1, 1, config.action_dim)
    noise, fast = normal(1, config.horizon, config.action_dim), (state, mask, torch.tensor([25]))
    with torch.inference_mode():
        tell("encode")
        encode_s, cache = _timed(lambda: network.encode(*slow), runs)
        tell("act")
        act_s, chunk = _timed(lambda: network.sample(cache, noise, *fast, steps=steps), runs)
        acted_gib = _peak_gib()
        tell("the unsplit computation")
        conditions = network.conditions(*slow)
        unsplit_s, other = _timed(lambda: _unsplit(network, conditions, noise, fast, steps), runs)
    return FamilyTimes(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        load_s=load_s,
        encode_s=encode_s,
        act_s=act_s,
        unsplit_s=unsplit_s,
        difference=float((chunk.float() - other.float()).abs().max()),
        loaded_gib=loaded_gib,
        acted_gib=acted_gib,
        peak_gib=_peak_gib(),
    )


def _unsplit(
    network: Rdt, conditions: tuple[Tensor, Tensor], noise: Tensor, fast: tuple[Tensor, ...], steps: int
) -> Tensor:
    """Samples as ``Rdt.sample``, with the keys and values of every block projected in each step."""
    config = network.config

    def denoiser(x: Tensor, step: int) -> Tensor:
        return network(network.project(conditions), x, torch.tensor([step]), *fast)

    grid = linspace_open(config.train_steps, steps)
    return dpm_solver(denoiser, noise, grid, network.schedule, config.prediction) * fast[1]


def _timed(call: Callable[[], object], runs: int) -> tuple[float, object]:
    """Returns the median duration after one call to warm up, [s], and the result."""
    result, durations_s = call(), []
    for _ in range(runs):
        begin_s = time.perf_counter()
        result = call()
        durations_s.append(time.perf_counter() - begin_s)
    return statistics.median(durations_s), result


def _peak_gib() -> float:
    """Peak resident memory of this process; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
