"""MoviePick: a simulated user is shown one of a few films at a time and grows tired of repetition."""

from actors.envs.movie_pick.environment import MoviePickEnv, MoviePickVectorEnv
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.simulation import MoviePick

__all__ = ["MoviePick", "MoviePickEnv", "MoviePickModel", "MoviePickVectorEnv"]
