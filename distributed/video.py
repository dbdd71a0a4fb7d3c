"""One episode as an animated picture."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from actors.environments import EnvironmentConfig, make_vector_env
from actors.seeds import generator
from actors.vector_steps import VectorSteps
from learners.policies import Policy
from replay_server.errors import ConfigError

_FRAME_MILLISECONDS = 33


def record_episode(policy: Policy, environment: EnvironmentConfig, seed: int, path: Path) -> None:
    """Write one greedy episode as a GIF.

    Raises:
        ConfigError: the environment cannot draw itself, or the file cannot be written.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # draw into memory, whether or not there is a screen
    drawn = msgspec.structs.replace(environment, kwargs={**environment.kwargs, "render_mode": "rgb_array"})
    try:
        steps = VectorSteps(make_vector_env(drawn, 1))
    except ConfigError as error:
        raise ConfigError(f"--video: {environment.id} cannot draw itself ({error})") from error
    frames = _frames(policy, steps, seed, environment.id)
    steps.close()
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--video: cannot write {path} ({error}); name a file that ends in .gif") from error


def _frames(policy: Policy, steps: VectorSteps, seed: int, name: str) -> list[Image.Image]:
    observation, rng, frames = steps.reset(seed), generator(seed, "video"), []
    while True:
        frames.append(_picture(steps, name))
        timestep = steps.step(policy.act(observation, rng, explore=False, env_steps=0).action)
        observation = timestep.observation
        if timestep.terminated[0] or timestep.truncated[0]:
            return frames


def _picture(steps: VectorSteps, name: str) -> Image.Image:
    try:
        picture = steps.env.render()
    except NotImplementedError:
        picture = None
    if picture is None or picture[0] is None:
        raise ConfigError(f"--video: {name} cannot draw itself (no picture in render mode rgb_array)")
    return Image.fromarray(np.asarray(picture[0]))
