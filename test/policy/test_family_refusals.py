"""What does not fit a checkpoint is refused, with the reason, before anything is activated."""

import json

import pytest
import torch
from tiny_families import WORDS, statistics
from tiny_models import save_siglip

from dit_policy_ros.errors import CheckpointError, DitPolicyError, PolicyError, RobotError
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.encoders.language import LanguageFile

pytest.importorskip("transformers")
pytest.importorskip("diffusers")

REFUSED = [
    ("rdt_aloha", {"family": "h_rdt"}, CheckpointError, "of the family 'rdt', but 'h_rdt'"),
    ("rdt_aloha", {"family": "wind"}, CheckpointError, "Family 'wind' does not exist"),
    ("rdt_aloha", {"family": "pad"}, CheckpointError, "of the family 'rdt', but 'pad'"),
    ("rdt_aloha", {"cameras": ["top"]}, CheckpointError, "8 image tokens; this checkpoint takes 24"),
    ("rdt_aloha", {"cameras": ["behind"]}, RobotError, "'behind' does not exist"),
    ("rdt_aloha", {"frames": 0}, CheckpointError, "frames is '0'"),
    ("rdt_aloha", {"control_hz": -1}, CheckpointError, "above zero"),
    ("rdt_aloha", {"encoders__language": {"t5": "nowhere"}}, CheckpointError, "not a model directory"),
    ("rdt_aloha", {"encoders__vision": {"clip": "x", "siglip": "y"}}, CheckpointError, "siglip, dinov2 and siglip"),
    ("rdt_aloha", {"encoders": {}}, CheckpointError, "needs a language encoder"),
    ("rdt_aloha", {"actions__space": "thought"}, CheckpointError, "Space 'thought'"),
    ("rdt_aloha", {"actions__divisors": {"tail": 1.0}}, CheckpointError, "unknown tail"),
    ("rdt_aloha", {"states": None}, CheckpointError, "one mask"),
    ("rdt_aloha", {"robot": "openarm", "cameras": ["top", "left_wrist", "right_wrist"]}, CheckpointError, "divisors"),
    ("h_rdt_aloha", {"robot": "openarm"}, CheckpointError, "state vector is 16 wide, but this checkpoint takes 14"),
    ("cogact_dual_franka", {"statistics": None}, CheckpointError, "needs the file of 'statistics'"),
    ("cogact_dual_franka", {"actions__rotation": "euler"}, CheckpointError, "Rotation 'euler'"),
    ("cogact_dual_franka", {"actions__reference": "past"}, PolicyError, "Reference of end-effector actions 'past'"),
    ("cogact_dual_franka", {"states": {"space": "joints"}}, CheckpointError, "no proprioception"),
    ("cogact_dual_franka", {"steps": 30}, PolicyError, "30"),
    ("gr00t_n16_openarm", {"embodiment": 12}, CheckpointError, "Embodiment 12"),
    ("rdt2_fm_dual_franka", {"encoders": {}}, CheckpointError, "needs a vision_language encoder"),
    (
        "mode_dual_franka",
        {"cameras": ["top"]},
        CheckpointError,
        "image encoders static_resnet, gripper_resnet; cameras",
    ),
    ("mode_dual_franka", {"encoders__pixels__colours": "grey"}, CheckpointError, "Colours 'grey' does not exist"),
    ("mode_dual_franka", {"encoders__pixels__size": [0, 4]}, CheckpointError, r"size is '\[0, 4\]'"),
    ("mdt_dual_franka", {"states": {"space": "joints"}}, CheckpointError, "'mdt' sees no proprioception"),
    ("mdtv_dual_franka", {"encoders__vision": {"clip": "encoders/nowhere"}}, CheckpointError, "not a model directory"),
    ("uwm_openarm", {"cameras": ["top", "left_wrist"]}, CheckpointError, "condition of images, states and text is 58"),
    ("uwm_openarm", {"frames": 3}, CheckpointError, "sees 2 frames; 'frames' is 3"),
    ("pad_dual_franka", {"cameras": ["top", "left_wrist"]}, CheckpointError, "PAD sees one camera"),
    ("pad_dual_franka", {"encoders__latents__size": [64, 64]}, CheckpointError, "row of image tokens is 16 wide"),
    ("pad_dual_franka", {"encoders__latents__size": [30, 32]}, CheckpointError, "latents of 8 pixels"),
    ("pad_dual_franka", {"states": None}, CheckpointError, "pose is 0 wide, but this checkpoint takes 14"),
    ("diffusion_policy_aloha", {"frames": 1}, CheckpointError, "sees 2 observation steps; 'frames' is 1"),
    ("diffusion_policy_aloha", {"cameras": ["top"]}, CheckpointError, "sees no images"),
    ("rdt_aloha", {"actions__normalisation": "checkpoint"}, CheckpointError, "holds no normaliser of 'action'"),
    ("rdt_aloha", {"cameras": []}, CheckpointError, "cameras must list"),
    ("gr00t_n16_openarm", {"robot": "dual_franka"}, DitPolicyError, "another robot"),
    ("gr00t_n16_openarm", {"actions__always_absolute": ["tail"]}, PolicyError, "Channel 'tail'"),
    ("gr00t_n16_openarm", {"encoders__vision_language__layer": 9}, CheckpointError, "0 to 3; 9"),
    ("rdt_aloha", {"prefix": "glued"}, PolicyError, "Prefix 'glued'"),
    ("rdt_aloha", {"prefix": "real_time"}, PolicyError, "for flow matching"),
    ("lerobot_dual_franka", {"frames": 1}, CheckpointError, "takes 140"),
]


@pytest.mark.parametrize(("name", "changes", "error", "text"), REFUSED)
def test_what_does_not_fit_is_refused_as_it_loads(edited, name, changes, error, text):
    with pytest.raises(error, match=text):
        load_policy(edited(name, **changes))


def test_statistics_of_another_robot_are_refused(edited):
    directory = edited("gr00t_n16_openarm", statistics="other.json")
    other = statistics([f"panda_joint{i}" for i in range(16)])
    (directory / "other.json").write_text(json.dumps({"state": other, "action": other}))
    with pytest.raises(CheckpointError, match="of another robot, with panda_joint0"):
        load_policy(directory)


def test_an_embedding_of_another_width_and_another_tower_are_refused(edited, tmp_path):
    directory = edited("rdt_aloha", encoders__language={"file": "wide.safetensors"})
    LanguageFile({WORDS: torch.zeros(3, 6)}).save(directory / "wide.safetensors")
    with pytest.raises(CheckpointError, match="language embedding is 6 wide, but this checkpoint takes 5"):
        load_policy(directory)


@pytest.mark.parametrize("name", ["rdt_aloha", "h_rdt_aloha"])
def test_an_embedding_with_more_tokens_than_positions_is_refused(edited, name):
    directory = edited(name, encoders__language={"file": "long.safetensors"})
    LanguageFile({WORDS: torch.zeros(3, 5), "a longer sentence": torch.zeros(7, 5)}).save(
        directory / "long.safetensors"
    )
    with pytest.raises(CheckpointError, match="has 7 tokens, but this checkpoint takes at most 6; shorten"):
        load_policy(directory)


def test_an_embedding_that_is_not_finite_is_refused(edited):
    directory = edited("rdt_aloha", encoders__language={"file": "broken.safetensors"})
    LanguageFile({WORDS: torch.full((3, 5), torch.nan)}).save(directory / "broken.safetensors")
    with pytest.raises(CheckpointError, match=f"embedding of '{WORDS}' is not finite; embed"):
        load_policy(directory)


def test_one_tower_instead_of_two_is_refused(edited):
    directory = edited("h_rdt_aloha", encoders__vision={"siglip": "one"})
    (directory / "one").mkdir()
    save_siglip(directory / "one")
    with pytest.raises(CheckpointError, match="image feature is 16 wide, but this checkpoint takes 28"):
        load_policy(directory)


def test_a_truncated_checkpoint_is_refused(edited):
    directory = edited("h_rdt_aloha")
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(directory)
