"""Fits users on a log of ratings: implicit-feedback factors (Hu, Koren and Volinsky 2008) and a click model."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.fitted_users import FittedUsers
from actors.envs.log_users.logistic import fit_logistic, sigmoid
from actors.envs.log_users.quality import calibration_error, log_loss, recall, reliability
from actors.envs.log_users.rating_log import RatingLog
from actors.envs.log_users.settings import FitSettings
from actors.envs.log_users.split import SplitLog, split_log
from replay_server.errors import ConfigError

_PRIOR_RATINGS = 5.0  # a share of likes starts as if so many ratings had been average


def fit_users(log: RatingLog, settings: FitSettings, *, progress: bool = False) -> FittedUsers:
    """Fit everything; needs the extra `logs`.

    Item factors come from the earlier likes of users that are not held out, every user's factors from his own
    earlier likes and these. The click model is fitted on what users who are not held out rated later, and judged on
    what held-out users rated later, of which nothing was fitted.

    Args:
        log: the ratings.
        settings: see FitSettings.
        progress: show a bar on standard error.

    Raises:
        ConfigError: the log is too small or one-sided, or `implicit` is not installed.
    """
    split = split_log(log, settings)
    began = time.process_time()
    user_factors, item_factors = _factorise(split, settings, progress)
    seconds = time.process_time() - began
    generosity, quality = _like_rates(split)
    cases = split.later
    user, item = split.log.user[cases], split.log.item[cases]
    features = np.column_stack(
        [(user_factors[user] * item_factors[item]).sum(axis=1), generosity[user], quality[item]]
    ).astype(np.float64)
    used = features if settings.item_quality else features[:, :2]
    fitted_on, liked = ~split.held_out[user], split.liked[cases]
    click = np.zeros(4)
    click[: used.shape[1] + 1] = fit_logistic(used[fitted_on], liked[fitted_on])
    said = sigmoid(click[0] + features @ click[1:])[~fitted_on]
    report = {
        "seconds_of_factorisation": seconds,
        "split": _counts(split),
        "click_model": _judged(said, liked[~fitted_on]),
        "recall_at_20": _recalls(split, user_factors, item_factors),
    }
    earlier = ~split.later & ~split.held_out[split.log.user]
    return FittedUsers(
        user_factors=user_factors,
        item_factors=item_factors,
        generosity=generosity,
        quality=quality,
        ratings=np.bincount(split.log.item[earlier], minlength=len(item_factors)),
        held_out=split.held_out,
        user_names=split.log.user_names,
        item_names=split.log.item_names,
        click=click,
        source={"settings": asdict(settings)},
        report=report,
    )


def _factorise(
    split: SplitLog, settings: FitSettings, progress: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """User factors float32[U, d] of root mean square 1 and item factors float32[N, d]."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"fitting users needs {error.name}, which is not installed; run pip install 'headrace[logs]'"
        ) from error
    users, items = len(split.log.user_names), len(split.log.item_names)
    earlier = split.liked & ~split.later
    pairs = split.log.user[earlier], split.log.item[earlier]
    likes = csr_matrix((np.ones(int(earlier.sum()), dtype=np.float32), pairs), shape=(users, items))
    with threadpool_limits(1, "blas"):  # implicit has threads of its own
        model = AlternatingLeastSquares(
            factors=settings.factors,
            regularization=settings.regularization,
            alpha=settings.confidence,
            iterations=settings.iterations,
            random_state=settings.seed,
        )
        model.fit(likes[~split.held_out], show_progress=progress)
        everyone = model.recalculate_user(np.arange(users), likes)
    scale = max(float(np.sqrt(np.mean(np.square(everyone)))), 1e-12)
    return (everyone / scale).astype(np.float32), (model.item_factors * scale).astype(np.float32)


def _like_rates(split: SplitLog) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log odds of a like for each user and each item, from earlier ratings, items' from users not held out."""
    earlier = ~split.later
    fitted = earlier & ~split.held_out[split.log.user]
    average = float(split.liked[fitted].mean())

    def log_odds(place: NDArray[np.int64], rows: NDArray[np.bool_], count: int) -> NDArray[np.float32]:
        rated = np.bincount(place[rows], minlength=count)
        liked = np.bincount(place[rows], weights=split.liked[rows], minlength=count)
        share = (liked + _PRIOR_RATINGS * average) / (rated + _PRIOR_RATINGS)
        return np.log(share / (1.0 - share)).astype(np.float32)

    users, items = len(split.log.user_names), len(split.log.item_names)
    return log_odds(split.log.user, earlier, users), log_odds(split.log.item, fitted, items)


def _counts(split: SplitLog) -> dict[str, int]:
    of_held_out = split.held_out[split.log.user]
    return {
        "users": len(split.log.user_names),
        "held_out_users": int(split.held_out.sum()),
        "items": len(split.log.item_names),
        "earlier_ratings": int((~split.later).sum()),
        "ratings_calibrated_on": int((split.later & ~of_held_out).sum()),
        "ratings_judged_on": int((split.later & of_held_out).sum()),
    }


def _judged(said: NDArray[np.float64], liked: NDArray[np.bool_]) -> dict[str, Any]:
    if not len(said):
        return {}
    curve = reliability(said, liked)
    average = np.full(len(said), liked.mean())
    return {
        "expected_calibration_error": calibration_error(curve),
        "log_loss": log_loss(said, liked),
        "log_loss_of_their_average": log_loss(average, liked) if 0 < liked.sum() < len(liked) else 0.0,
        "reliability": curve,
    }


def _recalls(split: SplitLog, user_factors: NDArray[np.float32], item_factors: NDArray[np.float32]) -> dict[str, float]:
    """Of what users liked later, by factors and by the number of earlier likes."""
    user, item = split.log.user, split.log.item
    seen = user[~split.later], item[~split.later]
    liked_later = split.later & split.liked
    wanted = user[liked_later], item[liked_later]
    likes = np.bincount(item[split.liked & ~split.later], minlength=len(item_factors)).astype(np.float32)
    popularity = np.ones((len(user_factors), 1), dtype=np.float32), likes[:, None]
    return {
        "factors": recall((user_factors, item_factors), seen, wanted),
        "popularity": recall(popularity, seen, wanted),
    }
