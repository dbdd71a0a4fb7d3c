"""MoviePick: a simulated user is shown one of a few films at a time and grows tired of repetition."""

from actors.envs.movie_pick.core import MoviePickCore
from actors.envs.movie_pick.environment import MoviePickEnv
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.vector_environment import MoviePickVectorEnv

__all__ = ["MoviePickCore", "MoviePickEnv", "MoviePickModel", "MoviePickVectorEnv"]
