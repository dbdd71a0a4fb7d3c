"""Features of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learners.networks.initialise import convolution
from learners.networks.mlp import ACTIVATIONS
from replay_server.errors import ConfigError

SMALLEST = 36  # pixels a side: what three convolutions without padding leave one pixel of
_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride


class NatureCNN(nn.Module):
    """The convolutions of Mnih et al. (2015): 32 of 8 x 8 by 4, 64 of 4 x 4 by 2, 64 of 3 x 3.

    Args:
        shape: of an image: [H, W], [C, H, W] or [H, W, C]; or of stacked ones, [k, H, W] or [k, ...image]. The axis of
            the channels is the shorter one of first and last, the last where they are equal.
        activation: `relu` or `tanh`.
        generator: initialises the weights.

    Attributes:
        size: features.

    Raises:
        ConfigError: the image is smaller than 36 x 36, or the shape is no image's.
    """

    def __init__(self, shape: tuple[int, ...], activation: str, generator: torch.Generator) -> None:
        super().__init__()
        if not 2 <= len(shape) <= 4:
            raise ConfigError(
                f"algorithm.torso: nature_cnn takes images, the environment's observations have shape {list(shape)}; "
                "take auto, or mlp for the flat numbers"
            )
        self._shape = shape
        self._channels_last = len(shape) > 2 and shape[-1] <= shape[-3]
        height, width = shape[-3:-1] if self._channels_last else shape[-2:]
        if min(height, width) < SMALLEST:
            raise ConfigError(
                f"environment.id: its observations have shape {list(shape)}, nature_cnn takes images of {SMALLEST} x "
                f"{SMALLEST} and more; enlarge them with a wrapper around gymnasium.wrappers.ResizeObservation in "
                "environment.wrappers, or set algorithm.torso: mlp"
            )
        channels = math.prod(shape) // (height * width)
        layers: list[nn.Module] = []
        for outputs, kernel, stride in _LAYERS:
            layers += [convolution(channels, outputs, kernel, stride, generator), ACTIVATIONS[activation]()]
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            channels = outputs
        self.layers = nn.Sequential(*layers)
        self.size = channels * height * width

    def forward(self, flat: Tensor) -> Tensor:
        """float32[B, numbers of one observation] -> float32[B, size]."""
        images = flat.reshape(-1, *self._shape)
        if self._channels_last:
            images = images.movedim(-1, -3)
        features: Tensor = self.layers(images.reshape(len(flat), -1, *images.shape[-2:]))
        return features.flatten(1)
