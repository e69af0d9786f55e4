"""The one recipe: draw a batch, take a step, average the weights, save now and then.

A second thread draws the next lessons while a step runs; nothing else is shared between the two.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dit_policy_ros.policy.dual_system import DualSystem
from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.curriculum import Curriculum, Lesson
from dit_policy_ros.train.objective import Objective
from dit_policy_ros.train.run_state import RunState

SAVE_EVERY_STEPS = 250
_PREFETCH = 4


@dataclass(frozen=True)
class Progress:
    """Where a run stands; losses are means over the last 50 steps."""

    step: int
    flow: float
    grasp: float
    phrase: float
    place: float


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak at the last step; the same again for either part of a run."""
    if step < config.locate_steps:
        steps = config.locate_steps
    else:
        step, steps = step - config.locate_steps, steps - config.locate_steps
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


def start_run(config: TrainConfig, seed: int) -> RunState:
    """Returns the state of a run that has not begun."""
    torch.manual_seed(seed)
    objective = Objective(DualSystem(config.network), config)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    average = {name: value.detach().clone() for name, value in objective.network.state_dict().items()}
    return RunState(objective, average, optimizer)


def train(
    state: RunState,
    config: TrainConfig,
    make_curriculum: Callable[[int, int], Curriculum],
    steps: int,
    seed: int,
    directory: Path,
    report: Callable[[Progress], None],
    device: str = "cpu",
) -> None:
    """Trains until ``steps``, from wherever ``state`` stands, and saves the state.

    Args:
        make_curriculum: seed and first step to the lessons; called once, with a seed that differs after a resumption.
        report: told after every step.
        device: where to compute, 'cpu' or 'cuda'.
    """
    state.objective.to(device).train()
    for moments in state.optimizer.state.values():
        moments.update({key: value.to(device) for key, value in moments.items() if key != "step"})
    generator = torch.Generator().manual_seed(seed + state.step)
    smooth: list[tuple[float, ...]] = []
    for lesson in _prefetched(make_curriculum(seed + state.step, state.step), steps - state.step):
        begin = time.monotonic()
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, steps, config)
        # For a few dozen tokens on a CPU, the plain form is a third faster than the fused one's backward pass.
        with torch.autocast(device, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            losses = state.objective(_to(lesson, device), generator)
            loss = losses.flow + config.grasp_loss * losses.grasp
            loss = loss + config.phrase_loss * losses.phrase + config.place_loss * losses.place
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.objective.parameters(), 1.0)
        state.optimizer.step()
        _move_average(state, config.average_decay)
        state.step += 1
        state.seconds += time.monotonic() - begin
        smooth = [*smooth[-49:], tuple(value.item() for value in vars(losses).values())]
        report(Progress(state.step, *(sum(column) / len(smooth) for column in zip(*smooth, strict=True))))
        if state.step % SAVE_EVERY_STEPS == 0 or state.step == steps:
            state.save(directory)


def averaged_network(state: RunState) -> DualSystem:
    """Returns the network with its averaged weights, on the CPU."""
    network = DualSystem(state.objective.network.config)
    network.load_state_dict({name: value.cpu() for name, value in state.average.items()})
    return network


@torch.no_grad()
def _move_average(state: RunState, decay: float) -> None:
    """The decay grows with the steps, so that the first weights are soon forgotten."""
    decay = min(decay, (1.0 + state.step) / (10.0 + state.step))
    for name, value in state.objective.network.state_dict().items():
        state.average[name] = state.average[name].to(value.device).lerp_(value, 1.0 - decay)


def _prefetched(source: Curriculum, count: int) -> Iterator[Lesson]:
    """Yields lessons drawn by another thread; an error there is raised here."""
    ready: queue.Queue = queue.Queue(_PREFETCH)
    stop = threading.Event()

    def draw() -> None:
        for _ in range(count):
            try:
                item = source.draw()
            except Exception as problem:
                item = problem
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stop.is_set() or isinstance(item, Exception):
                return

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        for _ in range(count):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _to(lesson: Lesson, device: str) -> Lesson:
    if device == "cpu":
        return lesson
    scenes, batch = (
        None if part is None else type(part)(**{name: value.to(device) for name, value in vars(part).items()})
        for part in (lesson.scenes, lesson.batch)
    )
    return Lesson(scenes, batch, lesson.finds)
