"""What a training run depends on. YAML files with these entries lie in ``config/policies``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.policy.cameras import CameraView, parse_view
from dit_policy_ros.policy.dual_system import DualSystemConfig
from dit_policy_ros.resources import find_config
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping


@dataclass(frozen=True)
class TrainConfig:
    """One recipe."""

    slow_camera: CameraView
    fast_cameras: tuple[CameraView, ...]
    network: DualSystemConfig = field(default_factory=DualSystemConfig)
    batch: int = 32
    """Observations in a step."""
    flow_samples: int = 2
    """Noises and flow times drawn for each observation."""
    learning_rate: float = 8e-4
    """Peak; rises linearly over the warm-up, then falls as a cosine to 1 % of it."""
    warmup_steps: int = 150
    weight_decay: float = 1e-4
    average_decay: float = 0.998
    """Of the moving average of the weights, which is what the policy runs on."""
    largest_context_age_s: float = 1.0
    """The slow camera's image is up to this much older than the fast ones."""
    largest_commitment: int = 4
    """Most committed tokens."""
    blind_share: float = 0.0
    """Share of the samples whose fast cameras are hidden."""
    place_noise: float = 0.01
    """Spread of the noise on what System 2 tells System 1; its own error on scenes it never saw is about this."""
    state_noise: float = 0.03
    """Spread of the noise on normalised proprioception."""
    displacement: float = 0.15
    """Largest spread by which arms on their way to a grasp are put beside the demonstrated path, normalised; the
    actions lead back."""
    displacement_holding: float = 0.04
    """The same in the rest of an episode, where less goes wrong and more depends on it."""
    return_steps: int = 20
    """Actions until they are back."""
    brightness: float = 0.15
    """Largest relative change of brightness and contrast of an image."""
    approach_share: float = 0.5
    """Share of the samples that are drawn from before an episode's first grasp, or from between its last surprise and
    the grasp after it; the others from all of it."""
    phrases: int = 48
    """Further instructions in a step, without images."""
    phrase_groups: int = 8
    """Largest number of different things that are asked for."""
    phrase_loss: float = 0.1
    """Weight of the loss of reading: how far a sentence is from what all that ask for the same are to be read as."""
    meaning_noise: float = 0.13
    """Largest spread of the noise on what System 2's eye is told to look for while it learns to see."""
    grasp_loss: float = 1.0
    """Weight of the auxiliary loss: from the slow features alone, the joints at the coming grasp."""
    locate_steps: int = 3000
    """The first steps teach System 2 alone, on scenes with known places; none where there are no such scenes."""
    locate_batch: int = 64
    """Scenes in such a step."""
    find_while_acting: bool = False
    """Whether System 2 goes on learning in the later steps; it does anyway where it could not learn before."""
    scenes: int = 16
    """Scenes in every later step in which it does."""
    place_loss: float = 1.0
    """Weight of the loss: from the slow features alone, where what is asked for lies."""
    unknown_words: float = 0.3
    """Largest share of a sentence's words that are replaced by ones that mean nothing."""
    left_out_words: float = 0.2
    """Largest share of a sentence's words that are left out."""


def load_train_config(path: str | Path) -> TrainConfig:
    """Loads a recipe, given as a path or as the name of a shipped one.

    Raises:
        ConfigError: no such file, or an entry is missing, unknown or malformed.
    """
    found = find_config("policies", path)
    names = [entry.name for entry in fields(TrainConfig)]
    required = ("slow_camera", "fast_cameras")
    data = dict(fields_of(load_yaml_mapping(found, ConfigError), str(found), ConfigError, required, names))
    try:
        data["slow_camera"] = parse_view(data["slow_camera"], f"{found}: slow_camera", ConfigError)
        fast = [parse_view(entry, f"{found}: fast_cameras", ConfigError) for entry in data["fast_cameras"]]
        data["fast_cameras"] = tuple(fast)
        sizes = [entry.name for entry in fields(DualSystemConfig) if entry.name != "frame_width"]
        network = fields_of(data.get("network", {}), f"{found}: network", ConfigError, (), sizes)
        data["network"] = DualSystemConfig(**network, frame_width=data["slow_camera"].frame_width)
        return TrainConfig(**data)
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"{found} is malformed: {problem}.") from problem
