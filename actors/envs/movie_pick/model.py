"""Every constant of the MoviePick user model."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class MoviePickModel:
    """Constants of films, users, responses and rewards.

    Given `rec`, how often film a is among the user's last `history_length` watched films,
    P(click) = sigmoid(click_bias + click_affinity u.v_a + popularity_a - click_satiation rec) and
    P(watched to the end | click) = sigmoid(complete_bias + complete_affinity u.v_a + quality_a
    - complete_satiation rec).

    Attributes:
        catalogue_seed: draws the films; the same for every actor, seed and evaluation of an experiment.
        films: number of films, and of actions.
        genres: number of genre prototypes on the unit sphere.
        film_dim: length of a film's vector and of a user's latent taste.
        user_dim: length of the user embedding the agent sees.
        history_length: how many watched films a user remembers.
        taste_noise: length (root mean square) of the noise added to a genre or a mix of two before normalising.
        embedding_noise: standard deviation of the noise on each number of the user embedding.
        popularity_scale, quality_scale: standard deviations of the films' popularity and quality.
        complete_reward, click_reward, ignore_reward: reward of a film watched to the end, only clicked, ignored.
        obs_mode: "embeddings" (float32 vector) or "ids" (int32 user id and film ids, `films` where none yet).
        population: number of users, drawn once from `catalogue_seed`; None draws a new user at every reset.
            The mode "ids" needs a population and takes 10000 where none is given.
    """

    catalogue_seed: int = 505
    films: int = 10
    genres: int = 8
    film_dim: int = 16
    user_dim: int = 20
    history_length: int = 5
    taste_noise: float = 0.5
    embedding_noise: float = 0.05
    popularity_scale: float = 0.5
    quality_scale: float = 0.5
    click_bias: float = -0.6
    click_affinity: float = 2.2
    click_satiation: float = 0.25
    complete_bias: float = -0.6
    complete_affinity: float = 2.0
    complete_satiation: float = 0.1
    complete_reward: float = 10.0
    click_reward: float = 1.0
    ignore_reward: float = -0.1
    obs_mode: str = "embeddings"
    population: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.obs_mode not in ("embeddings", "ids"):
            raise ValueError(f'obs_mode is {self.obs_mode!r}, must be "embeddings" or "ids"')
        for name in ("films", "film_dim", "user_dim", "history_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.films >= 2**15:
            raise ValueError(f"films is {self.films}, must be below {2**15}: every user has a number for each")
        if self.genres < 2:
            raise ValueError(f"genres is {self.genres}, must be at least 2: a user's taste mixes two")
        if self.obs_mode == "ids" and self.population is None:
            object.__setattr__(self, "population", 10_000)
        if self.population is not None and self.population < 1:
            raise ValueError(f"population is {self.population}, must be at least 1")
