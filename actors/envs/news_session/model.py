"""Every constant of the NewsSession task."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds

WINDOWS_HOURS = (1.0, 6.0, 24.0, 168.0, 8760.0)
"""Hour, six hours, day, week and year, in which DRN counts clicks (Zheng et al. 2018, section 4.2)."""

LEAST_CONTEXT = 8


@dataclass(frozen=True, kw_only=True)
class NewsSessionModel:
    """Constants of articles, users, clicks, satisfaction, returns and rewards; times in hours unless named otherwise.

    Attributes:
        catalogue_seed: draws the articles; the same for every actor, seed and evaluation of an experiment.
        articles: number of articles in the library.
        genres: number of genre prototypes on the unit sphere.
        taste_dim: length of an article's vector and of a user's taste.
        taste_noise: length (root mean square) of the noise added to a genre or a mix of two before normalising.
        pool: articles on offer at a request, drawn from the library at every tick.
        slots: articles shown.
        mean_age: mean of the exponential age of an article on offer.
        click_bias, click_affinity, click_clickbait, click_age: of the click logit.
        satisfaction_start, satisfaction_memory: first value, and share of the old value that stays at a request.
        satisfaction_click, satisfaction_none: a clicked article of quality q and clickbait c counts
            `satisfaction_click` x q (1 - c); a request without a click counts `satisfaction_none`.
        continue_click, continue_none: probability that the session goes on after a request with, without a click.
        session_step: time between two requests of a session.
        gap, gap_satisfaction: a gap between sessions is exponential of rate
            exp(`gap_satisfaction` (satisfaction - 0.5)) / `gap`.
        days: length of an episode in days.
        churn: a user who stays away longer than `churn_days` never comes back: the episode terminates.
        churn_days: see `churn`.
        activeness_start, activeness_decay, activeness_return: activeness S falls by exp(-decay x seconds) and rises by
            `activeness_return` at every request, up to 1.
        beta: reward = clicks + beta x activeness at the next request.
        obs_mode: "features" (blocks of numbers as in DRN) or "ids" (int32 user id, clicked ids, ids on offer).
        article_size: numbers of an article: properties, and click counts of five windows.
        user_size: numbers of a user's clicks, a fifth in each window.
        user_news_size: numbers that compare an article with a user's clicks.
        context_size: numbers of time and session; those beyond 8 are one-hot parts of the day.
        feature_noise: standard deviation of the noise on an article's properties.
        show_user: "features" has a part `user`, the taste blurred, and says of each article how well it fits that;
            without it users are known by their clicks alone.
        user_dim, embedding_noise: length of that part, and the standard deviation of its blur.
        history_length: clicked articles in the observation of "ids".
        population: number of users, drawn once from `catalogue_seed`; None draws a new user at every reset.
            The mode "ids" needs a population and takes 10000 where none is given.
    """

    catalogue_seed: int = 0
    articles: int = 10_000
    genres: int = 8
    taste_dim: int = 16
    taste_noise: float = 0.5
    pool: int = 40
    slots: int = 5
    mean_age: float = 6.0
    click_bias: float = -2.2
    click_affinity: float = 2.5
    click_clickbait: float = 1.8
    click_age: float = 0.05
    satisfaction_start: float = 0.5
    satisfaction_memory: float = 0.9
    satisfaction_click: float = 2.0
    satisfaction_none: float = 0.25
    continue_click: float = 0.75
    continue_none: float = 0.5
    session_step: float = 1.0 / 60.0
    gap: float = 24.0
    gap_satisfaction: float = 3.0
    days: float = 30.0
    churn: bool = False
    churn_days: float = 14.0
    activeness_start: float = 0.5
    activeness_decay: float = 1.2e-5
    activeness_return: float = 0.32
    beta: float = 0.05
    obs_mode: str = "features"
    article_size: int = 40
    user_size: int = 100
    user_news_size: int = 8
    context_size: int = LEAST_CONTEXT
    feature_noise: float = 0.05
    show_user: bool = True
    user_dim: int = 20
    embedding_noise: float = 0.05
    history_length: int = 5
    population: int | None = None

    @property
    def article_properties(self) -> int:
        """Properties of an article, the same as long as it lives."""
        return self.article_size - len(WINDOWS_HOURS)

    @property
    def user_properties(self) -> int:
        """Properties that a user's clicks are summed up by, in each window."""
        return self.user_size // len(WINDOWS_HOURS) - 1

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.obs_mode not in ("features", "ids"):
            raise ValueError(f'obs_mode is {self.obs_mode!r}, must be "features" or "ids"')
        for name in ("articles", "taste_dim", "pool", "slots", "user_dim", "history_length"):
            _at_least(name, getattr(self, name), 1)
        if self.genres < 2:
            raise ValueError(f"genres is {self.genres}, must be at least 2: a user's taste mixes two")
        if not self.slots <= self.pool <= self.articles:
            raise ValueError(
                f"slots {self.slots}, pool {self.pool} and articles {self.articles} must rise: a list shows some of "
                "the pool, the pool holds some of the library"
            )
        for name in ("days", "churn_days", "session_step", "gap"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")
        for name in ("mean_age", "activeness_decay", "taste_noise", "feature_noise", "embedding_noise"):
            _at_least(name, getattr(self, name), 0)
        for name in ("satisfaction_memory", "continue_click", "continue_none", "activeness_start"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be between 0 and 1")
        self._check_sizes()
        if self.obs_mode == "ids" and self.population is None:
            object.__setattr__(self, "population", 10_000)
        if self.population is not None:
            _at_least("population", self.population, 1)

    def _check_sizes(self) -> None:
        windows = len(WINDOWS_HOURS)
        _at_least("article_size", self.article_size, windows + 1)
        _at_least("context_size", self.context_size, LEAST_CONTEXT)
        if self.user_size % windows or not 1 <= self.user_properties <= self.article_properties:
            raise ValueError(
                f"user_size is {self.user_size}, must be {windows} x (1 + some of the {self.article_properties} "
                "properties of an article)"
            )
        if not 0 <= self.user_news_size <= windows * self.user_properties:
            raise ValueError(
                f"user_news_size is {self.user_news_size}, must be from 0 to {windows * self.user_properties}"
            )


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}, must be at least {least}")
