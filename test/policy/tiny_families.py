"""Policy directories made of the shipped descriptions in config/families, with tiny random checkpoints and encoders."""

import json
import shutil

import torch
from safetensors.torch import save_file
from tiny_models import save_clip, save_dino, save_llava, save_siglip

from dit_policy_ros.actions.end_effector import POSE
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.policy.families import FAMILIES, cogact, gr00t_n16, h_rdt, lerobot_multi_task_dit, rdt
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot

WORDS = "pick the red cup"

RDT = rdt.RdtConfig(
    hidden=16,
    depth=2,
    heads=2,
    ffn_hidden=16,
    horizon=8,
    action_dim=128,
    lang_widths=(5, 16),
    img_widths=(16, 16),
    state_widths=(256, 16),
    max_lang_tokens=6,
    img_tokens=2 * 3 * 4,
)
H_RDT = h_rdt.HRdtConfig(
    hidden=16,
    depth=2,
    heads=2,
    kv_heads=1,
    head_dim=8,
    ffn_hidden=16,
    decoder_hidden=16,
    horizon=8,
    action_dim=14,
    state_widths=(14, 16),
    action_widths=(14, 16),
    img_widths=(28, 16),
    lang_widths=(5, 16),
    max_img_tokens=12,
    max_lang_tokens=6,
)
COGACT = cogact.CogActConfig(
    hidden=24,
    depth=2,
    heads=3,
    mlp_hidden=24,
    horizon=8,
    action_dim=14,
    history_dim=14,
    token_width=16,
    null_width=16,
)
GR00T = gr00t_n16.Gr00tN16Config(
    width=16,
    depth=4,
    heads=2,
    ff_hidden=16,
    time_width=8,
    hidden=16,
    out_width=16,
    backbone_width=16,
    state_dim=20,
    action_dim=18,
    embodiments=12,
    max_actions=16,
    vl_norm=True,
    horizon=8,
    alternate=True,
    text_every=2,
    mask_token=None,
)
LEROBOT = lerobot_multi_task_dit.MultiTaskDitConfig(
    hidden=16,
    depth=2,
    heads=2,
    mlp_hidden=16,
    time_width=8,
    condition_width=2 * (16 + 3 * 16 + 6),
    action_dim=16,
    horizon=9,
    text_widths=(16, 6),
    rotary_base=10_000.0,
    absolute_positions=False,
    sampler="ddim",
    steps=5,
)
"""The state has 16 joints, a camera 16 features, the text 6; two steps."""

SETTINGS = {
    "cogact": {"num_heads": 3},
    "gr00t_n16": {
        "diffusion_model_cfg": {"num_attention_heads": 2, "interleave_self_attention": True},
        "action_horizon": 8,
    },
    "lerobot_multi_task_dit": {"num_heads": 2, "horizon": 9, "noise_scheduler_type": "DDIM", "num_inference_steps": 5},
}
SHIPPED = {
    "rdt_aloha": ("rdt", RDT),
    "h_rdt_aloha": ("h_rdt", H_RDT),
    "cogact_dual_franka": ("cogact", COGACT),
    "gr00t_n16_openarm": ("gr00t_n16", GR00T),
    "lerobot_dual_franka": ("lerobot_multi_task_dit", LEROBOT),
}
ENCODERS = {
    "rdt_aloha": {"siglip-so400m-patch14-384": save_siglip},
    "h_rdt_aloha": {"dinov2": save_dino, "siglip": save_siglip},
    "cogact_dual_franka": {"vlm": save_llava},
    "gr00t_n16_openarm": {"vlm": save_llava},
    "lerobot_dual_franka": {"clip": save_clip},
}
ROBOTS = {"gr00t_n16_openarm": "openarm", "lerobot_dual_franka": "dual_franka"}


def random_weights(family, config, directory, seed=0):
    """Writes a checkpoint as a release has it."""
    torch.manual_seed(seed)
    network = FAMILIES[family].build(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0.0, 0.2)
    directory.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, directory / "model.safetensors")
    if family in SETTINGS:
        (directory / "config.json").write_text(json.dumps(SETTINGS[family]))


def statistics(names, mask=None):
    """Joints between -2 and 2 [rad]."""
    ends = {
        "min": [-2.0] * len(names),
        "max": [2.0] * len(names),
        "q01": [-1.0] * len(names),
        "q99": [1.0] * len(names),
    }
    return {**ends, "names": list(names), **({} if mask is None else {"mask": mask})}


def make_family_directory(shipped, directory, config=None):
    """Makes a policy directory and returns it."""
    family, sizes = SHIPPED[shipped]
    random_weights(family, config or sizes, directory)
    shutil.copyfile(share_directory() / "config" / "families" / f"{shipped}.yaml", directory / "policy.yaml")
    for name, save in ENCODERS[shipped].items():
        path = directory / "encoders" / name
        path.mkdir(parents=True)
        save(path)
    if "rdt" in family:
        LanguageFile({WORDS: torch.randn(3, 5, generator=torch.Generator().manual_seed(1))}).save(
            directory / "language.safetensors"
        )
    if shipped in ROBOTS:
        names = load_robot(ROBOTS[shipped]).names
        text = json.dumps({"state": statistics(names), "action": statistics(names)})
        (directory / "statistics.json").write_text(text)
    if family == "cogact":
        each = ("position_x", "position_y", "position_z", "rotation_0", "rotation_1", "rotation_2", "gripper")
        names = [f"{side}_{name}" for side in ("left", "right") for name in each]
        moves = ["gripper" not in name for name in names]
        (directory / "statistics.json").write_text(json.dumps({"action": statistics(names, moves)}))
    if family == "gr00t_n16":  # the tiny language model has three layers
        path = directory / "policy.yaml"
        path.write_text(path.read_text().replace("layer: 16", "layer: -1"))
    return directory


def still(names):
    """A posture: joints at 0.1, hands not turned."""
    return {name: float(name.endswith(UPRIGHT)) if "eef_angle" in name else 0.1 for name in names}


UPRIGHT = ("eef_angle_0", "eef_angle_4")
POSES = tuple(f"{side}_{name}" for side in ("left", "right") for name in (*POSE, "gripper"))
