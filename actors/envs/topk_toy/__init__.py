"""TopKToy: ten items of fixed worth, where the best independent draws of a slate are known in closed form."""

from actors.envs.topk_toy.environment import TopKToyEnv, TopKToyVectorEnv
from actors.envs.topk_toy.model import TopKToyModel
from actors.envs.topk_toy.simulation import TopKToy

__all__ = ["TopKToy", "TopKToyEnv", "TopKToyModel", "TopKToyVectorEnv"]
