"""Policy directories made of the shipped descriptions in config/families, with tiny random checkpoints and encoders."""

import json
import shutil
from dataclasses import replace

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from tiny_models import save_clip, save_dino, save_llava, save_siglip, save_vae

from dit_policy_ros.actions.end_effector import POSE
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.policy.encoders.world_frames import RESNET, FramesConfig
from dit_policy_ros.policy.families import (
    FAMILIES,
    cogact,
    diffusion_policy_transformer,
    gr00t_n16,
    h_rdt,
    lerobot_multi_task_dit,
    mode,
    pad,
    rdt,
    rdt2_fm,
    uwm,
)
from dit_policy_ros.policy.mdt_config import NET, MdtConfig
from dit_policy_ros.policy.modalities import ACTION, IMAGE, Part
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Observation

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

RDT2 = rdt2_fm.Rdt2FmConfig(
    hidden=16,
    depth=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    ffn_hidden=16,
    final_hidden=16,
    horizon=8,
    registers=2,
    action_dim=20,
    action_widths=(20, 16),
    state_widths=(20, 16),
    lang_widths=None,
)
DIFFUSION_POLICY = diffusion_policy_transformer.DiffusionTransformerConfig(
    width=16,
    layers=2,
    condition_layers=0,
    heads=2,
    feed_forward=16,
    positions=9,
    condition_tokens=3,
    input_dim=14,
    condition_dim=14,
    causal=False,
    normalized=(("action", 14), ("obs", 14)),
    action_dim=14,
    observation_steps=2,
    action_steps=8,
)


def residual_shapes(first, stages, width):
    """Parameters of a residual network with one basic block of 16 channels a stage."""
    shapes = {f"{first}.weight": (16, 3, 7, 7)}
    for stage in stages:
        for conv in (1, 2):
            shapes[f"{stage}.0.conv{conv}.weight"] = (16, 16, 3, 3)
        shapes[f"{stage}.0.downsample.0.weight"] = (16, 16, 1, 1)
    return shapes if width is None else {**shapes, width[0]: width[1]}


def film_shapes(name):
    return residual_shapes(f"{name}.resnet.conv1", [f"{name}.resnet.layer{i}" for i in range(1, 5)], None)


MODE = mode.MoDeConfig(
    width=16,
    depth=2,
    head_width=8,
    experts=3,
    expert_hidden=8,
    router_hidden=8,
    goal_width=16,
    goal_tokens=1,
    observation_width=16,
    action_dim=14,
    horizon=8,
    out_widths=(16, 14),
    image_shapes={**film_shapes("static_resnet"), **film_shapes("gripper_resnet")},
    steps=3,
)
MDT_SHAPES = {f"{NET}incam_embed.weight": (16, 16)}
for camera in ("static_resnet", "gripper_resnet"):
    MDT_SHAPES |= residual_shapes(f"{camera}.backbone.0", [f"{camera}.backbone.{i}" for i in range(4, 8)], None)
MDT = MdtConfig(
    width=16,
    encoder_depth=1,
    decoder_depth=2,
    mlp_hidden=16,
    bias=True,
    goal_widths=(16, 16),
    out_widths=(16, 14),
    proprio_widths=None,
    observation_width=16,
    action_dim=14,
    positions=9,
    shapes=MDT_SHAPES,
    heads=2,
    noise="adaptive",
    rotary=False,
    goal_tokens=1,
    steps=3,
    horizon=8,
)
MDTV = replace(
    MDT,
    positions=None,
    perceiver_heads=2,
    shapes={
        "perceiver.latents": (3, 16),
        "perceiver.time_pos_emb": (1, 1, 16),
        "perceiver.layers.0.0.to_q.weight": (8, 16),
        "perceiver.layers.0.1.1.weight": (32, 16),
    },
)
UWM = uwm.UwmConfig(
    hidden=16,
    depth=2,
    heads=2,
    mlp_hidden=16,
    time_width=8,
    condition_width=2 * 3 * 5 + 2 * 16 + 6,
    action_dim=16,
    action_hidden=16,
    horizon=8,
    channels=4,
    patch=(2, 2, 2),
    registers=2,
    tokens=8 + 3 * 4 + 2,
    qkv_bias=True,
    frames=FramesConfig(
        residual_shapes(f"{RESNET}conv1", [f"{RESNET}layer{i}" for i in range(1, 5)], (f"{RESNET}fc.weight", (5, 16))),
        (16, 6),
        None,
        (32, 32),
        None,
    ),
    steps=3,
)
"""The present: three cameras of 5 features and the joints, twice each, and 6 of the text."""
PAD = pad.PadConfig(
    hidden=16,
    depth=2,
    heads=2,
    mlp_hidden=16,
    time_width=8,
    text_width=16,
    parts=(Part(IMAGE, 16, 12, 2, 4), Part(ACTION, 8 * 14 + 14, 8 * 14, 1, 1)),
    steps=3,
)

SETTINGS = {
    "diffusion_policy_transformer": {"n_head": 2, "n_action_steps": 8},
    "mode": {"num_sampling_steps": 3},
    "mdt": {"n_heads": 2, "num_sampling_steps": 3},
    "mdtv": {"n_heads": 2, "num_sampling_steps": 3, "action_seq_len": 8, "perceiver": {"heads": 2}},
    "uwm": {
        "model": {"num_heads": 2, "action_len": 8, "num_inference_steps": 3},
        "obs_encoder": {"resize_shape": [32, 32]},
    },
    "pad": {"num_heads": 2, "inference_steps": 3},
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
    "rdt2_fm_dual_franka": ("rdt2_fm", RDT2),
    "diffusion_policy_aloha": ("diffusion_policy_transformer", DIFFUSION_POLICY),
    "mode_dual_franka": ("mode", MODE),
    "mdt_dual_franka": ("mdt", MDT),
    "mdtv_dual_franka": ("mdtv", MDTV),
    "uwm_openarm": ("uwm", UWM),
    "pad_dual_franka": ("pad", PAD),
}
ENCODERS = {
    "rdt_aloha": {"siglip-so400m-patch14-384": save_siglip},
    "h_rdt_aloha": {"dinov2": save_dino, "siglip": save_siglip},
    "cogact_dual_franka": {"vlm": save_llava},
    "gr00t_n16_openarm": {"vlm": save_llava},
    "lerobot_dual_franka": {"clip": save_clip},
    "rdt2_fm_dual_franka": {"qwen": save_llava},
    "diffusion_policy_aloha": {},
    "mode_dual_franka": {"clip": save_clip},
    "mdt_dual_franka": {"clip": save_clip},
    "mdtv_dual_franka": {"clip": save_clip, "siglip": save_siglip},
    "uwm_openarm": {"clip": save_clip},
    "pad_dual_franka": {"clip": save_clip, "vae": save_vae},
}
ROBOTS = {"gr00t_n16_openarm": "openarm", "lerobot_dual_franka": "dual_franka", "uwm_openarm": "openarm"}
HANDS = ("cogact", "mode", "mdt", "mdtv", "pad")
"""Families whose shipped description moves two hands by roll, pitch and yaw."""
SMALLER = {
    "size: [224, 224]": "size: [32, 32]",
    "size: [112, 112]": "size: [32, 32]",
    "size: [256, 256]": "size: [32, 32]",
}
"""Entries for the tiny models; the tiny language model has three layers."""


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
    if family in ("rdt", "h_rdt"):
        LanguageFile({WORDS: torch.randn(3, 5, generator=torch.Generator().manual_seed(1))}).save(
            directory / "language.safetensors"
        )
    if shipped in ROBOTS:
        names = load_robot(ROBOTS[shipped]).names
        text = json.dumps({"state": statistics(names), "action": statistics(names)})
        (directory / "statistics.json").write_text(text)
    if family in HANDS or family == "rdt2_fm":
        turns = 6 if family == "rdt2_fm" else 3
        each = ("position_x", "position_y", "position_z", *(f"rotation_{i}" for i in range(turns)), "gripper")
        names = [f"{side}_{name}" for side in ("left", "right") for name in each]
        entry = statistics(names, ["gripper" not in name for name in names])
        (directory / "statistics.json").write_text(json.dumps({"state": entry, "action": entry}))
    path = directory / "policy.yaml"
    if family == "pad":  # an unclipped chain of random weights leaves every bound
        path.write_text(path.read_text().replace("  bound: 1.0\n", ""))
    for released, tiny in {**SMALLER, "layer: 16": "layer: -1"}.items():
        path.write_text(path.read_text().replace(released, tiny))
    return directory


def still(names):
    """A posture: joints at 0.1, hands not turned."""
    return {name: float(name.endswith(UPRIGHT)) if "eef_angle" in name else 0.1 for name in names}


UPRIGHT = ("eef_angle_0", "eef_angle_4")
POSES = tuple(f"{side}_{name}" for side in ("left", "right") for name in (*POSE, "gripper"))


def observe(policy, stamp_ns=1_000_000_000, seed=0):
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for camera in policy.slow_cameras}
    names = {*policy.config.actions.names, *(policy.config.states.names if policy.config.states else ())}
    return Observation(stamp_ns, still(names), images=images)


def settle(source, target, **changes):
    """Makes a policy directory like another one, with other entries in its policy.yaml; models are linked."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).symlink_to(file)
    data = yaml.safe_load((source / "policy.yaml").read_text())
    for key, value in changes.items():
        place = data
        *path, last = key.split("__")
        for step in path:
            place = place[step]
        place[last] = value
    (target / "policy.yaml").unlink()
    (target / "policy.yaml").write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
    return target
