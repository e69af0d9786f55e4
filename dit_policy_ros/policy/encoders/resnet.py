"""Residual networks as they come inside policy checkpoints: sizes, block kind and norm are read from the parameters."""

from __future__ import annotations

from torch import Tensor, nn

from dit_policy_ros.policy.shaped import axes, count
from dit_policy_ros.policy.weights import Shapes

GROUP_CHANNELS = 16
"""Channels of a group where batch norm was replaced by group norm."""

STAGES = ("layer1", "layer2", "layer3", "layer4")


def _norm(shapes: Shapes, name: str, channels: int) -> nn.Module:
    if f"{name}.running_mean" in shapes:
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(channels // GROUP_CHANNELS, 1), channels)


def _conv(shapes: Shapes, name: str, inputs: int, stride: int = 1) -> nn.Conv2d:
    outputs, _, kernel, _ = axes(shapes, f"{name}.weight", 4)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Residual(nn.Module):
    """Basic block (two convolutions) or bottleneck (three); the stride sits on the first 3x3 convolution."""

    def __init__(self, shapes: Shapes, prefix: str, inputs: int, stride: int) -> None:
        super().__init__()
        self.convolutions = 3 if f"{prefix}conv3.weight" in shapes else 2
        channels = inputs
        for i in range(1, self.convolutions + 1):
            conv = _conv(shapes, f"{prefix}conv{i}", channels, stride if i == self.convolutions - 1 else 1)
            channels = conv.out_channels
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", _norm(shapes, f"{prefix}bn{i}", channels))
        self.channels = channels
        self.downsample = None
        if any(name.startswith(f"{prefix}downsample.") for name in shapes):
            shortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(shapes, f"{prefix}downsample.1", channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        out = x
        for i in range(1, self.convolutions + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = out.relu() if i < self.convolutions else out
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


def _stem(shapes: Shapes, conv: str, norm: str) -> list[nn.Module]:
    """Returns convolution of stride 2, norm, ReLU and 3x3 maximum of stride 2."""
    first = _conv(shapes, conv, 3, 2)
    return [first, _norm(shapes, norm, first.out_channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def _stages(shapes: Shapes, prefixes: list[str], inputs: int) -> list[nn.Sequential]:
    """Returns the residual blocks below each prefix; every stage but the first halves the image."""
    stages = []
    for place, prefix in enumerate(prefixes):
        blocks = []
        for i in range(count(shapes, prefix)):
            blocks.append(Residual(shapes, f"{prefix}{i}.", inputs, 2 if place and not i else 1))
            inputs = blocks[-1].channels
        stages.append(nn.Sequential(*blocks))
    return stages


class ResNet(nn.Module):
    """Residual network with the parameter names of torchvision and timm, up to the mean over the image."""

    def __init__(self, shapes: Shapes, prefix: str) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = _stem(shapes, f"{prefix}conv1", f"{prefix}bn1")
        stages = _stages(shapes, [f"{prefix}{name}." for name in STAGES], self.conv1.out_channels)
        for name, stage in zip(STAGES, stages, strict=True):
            self.add_module(name, stage)
        self.fc = None
        if f"{prefix}fc.weight" in shapes:
            self.fc = nn.Linear(stages[-1][-1].channels, axes(shapes, f"{prefix}fc.weight", 2)[0])

    def stages(self) -> list[nn.Sequential]:
        """Returns the four stages; a caller that changes the features in between runs them itself."""
        return [getattr(self, name) for name in STAGES]

    def features(self, images: Tensor) -> Tensor:
        """Returns what the first stage is given, from normalised images (B, 3, H, W)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        x = self.features(images)
        for stage in self.stages():
            x = stage(x)
        x = x.mean((2, 3))
        return x if self.fc is None else self.fc(x)


class SequentialResNet(nn.Module):
    """Residual network stored as the sequence of its children (``backbone.0`` ...), with ``fc_layers.0`` on top."""

    def __init__(self, shapes: Shapes, prefix: str, width: int) -> None:
        super().__init__()
        stem = _stem(shapes, f"{prefix}backbone.0", f"{prefix}backbone.1")
        stages = _stages(shapes, [f"{prefix}backbone.{4 + i}." for i in range(4)], stem[0].out_channels)
        self.backbone = nn.Sequential(*stem, *stages)
        self.fc_layers = nn.Sequential(nn.Linear(stages[-1][-1].channels, width))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.fc_layers(self.backbone(images).mean((2, 3)))


class FilmResNet(nn.Module):
    """Residual network whose stages are scaled and shifted by a goal vector."""

    def __init__(self, shapes: Shapes, prefix: str, goal: int) -> None:
        super().__init__()
        self.resnet = ResNet(shapes, f"{prefix}resnet.")
        for i, stage in enumerate(self.resnet.stages(), 1):
            layers = {name: nn.Linear(goal, stage[-1].channels) for name in ("gamma", "beta")}
            self.add_module(f"film{i}", nn.ModuleDict(layers))

    def forward(self, images: Tensor, goal: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) and goal (B, goal width) to (B, features)."""
        x = self.resnet.features(images)
        for i, stage in enumerate(self.resnet.stages(), 1):
            film = getattr(self, f"film{i}")
            gamma, beta = film["gamma"](goal)[..., None, None], film["beta"](goal)[..., None, None]
            x = (1 + gamma) * stage(x) + beta
        return x.mean((2, 3))
