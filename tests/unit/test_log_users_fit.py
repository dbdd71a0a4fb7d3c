"""Users fitted on a log: what is held out, calibration, recall, and the file they are kept in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kit.log_users import random_users, write_log

from actors.envs.log_users import FitSettings, FittedUsers, RatingLog, fit_users, open_users, read_log
from actors.envs.log_users.clicks import CalibratedClicks
from actors.envs.log_users.logistic import fit_logistic, sigmoid
from actors.envs.log_users.quality import calibration_error, log_loss, recall, reliability
from actors.envs.log_users.split import held_out_users, later_ratings, split_log
from replay_server.errors import ConfigError

SETTINGS = FitSettings(factors=4, iterations=5, confidence=10.0)
DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RatingLog:
    return read_log(write_log(tmp_path_factory.mktemp("log") / "ratings.csv"))


@pytest.fixture(scope="module")
def fitted(log: RatingLog) -> FittedUsers:
    pytest.importorskip("implicit")
    return fit_users(log, SETTINGS)


def test_the_latest_ratings_of_each_user_are_held_out() -> None:
    user = np.array([0] * 10 + [1] * 4 + [2] * 1)
    later = later_ratings(user, 0.2)
    assert [list(np.flatnonzero(later[user == u])) for u in range(3)] == [[8, 9], [3], [0]]


def test_a_share_of_the_users_is_held_out() -> None:
    held = [held_out_users(50, 0.2, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert held[0].sum() == 10
    np.testing.assert_array_equal(held[0], held[1])
    assert (held[0] != held[2]).any()
    assert held_out_users(2, 0.9, np.random.default_rng(0)).sum() == 1


def test_rare_users_and_items_are_left_out(log: RatingLog) -> None:
    rare = RatingLog(
        user=np.append(log.user, [80, 80]),
        item=np.append(log.item, [0, 80]),
        rating=np.append(log.rating, [5, 5]).astype(np.float32),
        user_names=np.append(log.user_names, "rare"),
        item_names=np.append(log.item_names, "rare"),
    )
    split, plain = split_log(rare, SETTINGS), split_log(log, SETTINGS)
    np.testing.assert_array_equal(split.log.user_names, plain.log.user_names)
    np.testing.assert_array_equal(split.log.item_names, plain.log.item_names)
    np.testing.assert_array_equal(split.log.item, plain.log.item)


def changed(log: RatingLog, rows: np.ndarray) -> RatingLog:
    """The same log with likes and dislikes exchanged at some rows."""
    return replace(log, rating=np.where(rows, 6.0 - log.rating, log.rating).astype(np.float32))


def test_later_ratings_move_no_factors(log: RatingLog, fitted: FittedUsers) -> None:
    later = later_ratings(log.user, SETTINGS.held_out_ratings)
    other = fit_users(changed(log, later), SETTINGS)
    for name in ("user_factors", "item_factors", "generosity", "quality", "ratings"):
        np.testing.assert_array_equal(getattr(fitted, name), getattr(other, name))
    assert (fitted.click != other.click).any()
    seen = fit_users(changed(log, ~later), SETTINGS)
    assert (fitted.user_factors != seen.user_factors).any()


def test_held_out_users_move_neither_items_nor_the_click_model(log: RatingLog, fitted: FittedUsers) -> None:
    other = fit_users(changed(log, fitted.held_out[log.user]), SETTINGS)
    scale = fitted.item_factors / other.item_factors  # of everybody's factors the root mean square is 1
    np.testing.assert_allclose(scale, scale[0, 0], rtol=1e-4)
    np.testing.assert_array_equal(fitted.quality, other.quality)
    known = ~fitted.held_out
    np.testing.assert_allclose(fitted.user_factors[known] * scale[0, 0], other.user_factors[known], rtol=1e-4)
    np.testing.assert_allclose(fitted.click[[0, 2]], other.click[[0, 2]], rtol=0.02)
    assert not np.allclose(fitted.user_factors[fitted.held_out] * scale[0, 0], other.user_factors[~known], rtol=0.1)


def test_the_fit_finds_the_two_tastes(fitted: FittedUsers) -> None:
    users = np.array([int(name[1:]) for name in fitted.user_names])
    items = np.array([int(name[1:]) for name in fitted.item_names])
    same = (users[:, None] + items) % 2 == 0
    likely = CalibratedClicks(fitted).of_all(np.arange(len(users)))
    assert likely[same].mean() > 0.7 and likely[~same].mean() < 0.3
    report = fitted.report
    assert report["recall_at_20"]["factors"] > 1.3 * report["recall_at_20"]["popularity"]
    assert report["click_model"]["expected_calibration_error"] < 0.2  # of 128 cases
    assert report["click_model"]["log_loss"] < 0.8 * report["click_model"]["log_loss_of_their_average"]
    np.testing.assert_allclose(np.sqrt(np.mean(fitted.user_factors**2)), 1.0, rtol=1e-5)


def test_item_quality_is_part_of_the_click_model_only_when_asked_for(log: RatingLog, fitted: FittedUsers) -> None:
    assert fitted.click[3] == 0.0
    assert fit_users(log, replace(SETTINGS, item_quality=True)).click[3] != 0.0


def test_the_same_seed_fits_the_same(log: RatingLog, fitted: FittedUsers) -> None:
    again = fit_users(log, SETTINGS)
    np.testing.assert_array_equal(fitted.user_factors, again.user_factors)
    np.testing.assert_array_equal(fitted.click, again.click)
    assert (fit_users(log, replace(SETTINGS, seed=1)).held_out != fitted.held_out).any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(SETTINGS, liked_from=6.0), "liked_from is 6, ratings go from 1 to 5"),
        (replace(SETTINGS, liked_from=0.0), "set liked_from between them"),
        (replace(SETTINGS, least_ratings=41), "0 user.s. with 41 ratings or more"),
        (replace(SETTINGS, least_ratings=40, held_out_users=0.9), "0 item.s. with 40 ratings or more"),
    ],
)
def test_logs_that_say_too_little_are_refused(log: RatingLog, settings: FitSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_log(log, settings)


@pytest.mark.parametrize(
    "setting", [{"factors": 0}, {"held_out_users": 1.0}, {"held_out_ratings": 0.0}, {"confidence": 0.0}]
)
def test_bad_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        FitSettings(**setting)  # type: ignore[arg-type]


def test_logistic_regression_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(60_000, 2)), np.array([-0.4, 1.5, -0.7])
    label = rng.random(60_000) < sigmoid(weights[0] + x @ weights[1:])
    np.testing.assert_allclose(fit_logistic(x, label), weights, atol=0.05)
    assert np.isfinite(fit_logistic(x[:20], x[:20, 0] > 0)).all()  # separable


def test_reliability_of_known_cases() -> None:
    said = np.array([0.1, 0.9, 0.2, 0.8])
    happened = np.array([False, True, True, True])
    curve = reliability(said, happened, bins=2)
    np.testing.assert_allclose(curve, [(0.15, 0.5, 2), (0.85, 1.0, 2)])
    assert calibration_error(curve) == pytest.approx((0.35 + 0.15) / 2)
    assert log_loss(said, happened) == pytest.approx(-np.log([0.9, 0.9, 0.2, 0.8]).mean())


def test_recall_equals_a_loop_over_users() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(30, 3)).astype(np.float32), rng.normal(size=(50, 3)).astype(np.float32)
    seen, wanted = (
        (rng.integers(25, size=900), rng.integers(0, 25, size=900)),
        (rng.integers(25, size=60), rng.integers(25, 50, size=60)),
    )
    pairs = np.unique(np.stack(wanted), axis=1)
    expected = []
    for user in range(25):
        wants = set(pairs[1][pairs[0] == user])
        known = set(seen[1][seen[0] == user])
        ranked = [item for item in np.argsort(-(items @ users[user])) if item not in known][:5]
        if wants:
            expected.append(len(wants & set(ranked)) / len(wants))
    assert recall((users, items), seen, (pairs[0], pairs[1]), k=5) == pytest.approx(np.mean(expected))


class TestFile:
    def test_what_is_saved_is_loaded(self, tmp_path: Path) -> None:
        users = replace(random_users(), source={"sha256": "1"}, report={"x": 0.5})
        users.save(tmp_path / "users.npz")
        loaded = FittedUsers.load(tmp_path / "users.npz")
        for name in ("user_factors", "item_factors", "held_out", "item_names", "click"):
            np.testing.assert_array_equal(getattr(users, name), getattr(loaded, name))
            assert getattr(users, name).dtype == getattr(loaded, name).dtype
        assert loaded.source == users.source and loaded.report == users.report
        assert [path.name for path in tmp_path.iterdir()] == ["users.npz"]

    def test_bad_files_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "users.npz"
        with pytest.raises(ConfigError, match="cannot be read .No such file"):
            FittedUsers.load(path)
        path.write_text("user,item,rating,time\n")
        with pytest.raises(ConfigError, match="holds no fitted users"):
            FittedUsers.load(path)
        random_users().save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ConfigError, match="holds no fitted users"):
            FittedUsers.load(path)
        replace(random_users(), quality=np.zeros(3, dtype=np.float32)).save(path)
        with pytest.raises(ConfigError, match="ratings has shape .50., which does not fit|quality has shape"):
            FittedUsers.load(path)
        replace(random_users(), click=np.full(4, np.nan)).save(path)
        with pytest.raises(ConfigError, match="click is not finite"):
            FittedUsers.load(path)
        np.savez(path, names=np.array([None], dtype=object))
        with pytest.raises(ConfigError, match="holds no fitted users"):
            FittedUsers.load(path)

    def test_a_write_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "users.npz"
        path.write_text("before")

        def full(file: object, **arrays: object) -> None:
            file.write(b"half")  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(ConfigError, match="cannot be written .No space left"):
            random_users().save(path)
        assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


class TestOpening:
    def test_a_log_is_fitted_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("implicit")
        log = str(write_log(tmp_path / "ratings.csv"))
        first = open_users(log, None, SETTINGS, progress=False)
        monkeypatch.setattr("actors.envs.log_users.opening.fit_users", None)  # fitting again would fail
        again = open_users(log, None, SETTINGS, progress=False)
        np.testing.assert_array_equal(first.user_factors, again.user_factors)
        np.testing.assert_array_equal(
            first.user_factors, open_users(None, str(tmp_path / "ratings.csv.users.npz")).user_factors
        )

    def test_a_model_of_something_else_is_never_overwritten(self, tmp_path: Path) -> None:
        pytest.importorskip("implicit")
        log, model = write_log(tmp_path / "ratings.csv"), tmp_path / "users.npz"
        open_users(str(log), str(model), SETTINGS, progress=False)
        before = model.read_bytes()
        with pytest.raises(ConfigError, match="was fitted with factors 4; delete it"):
            open_users(str(log), str(model), replace(SETTINGS, factors=5), progress=False)
        write_log(log, seed=1)
        with pytest.raises(ConfigError, match="was fitted on another log; delete it"):
            open_users(str(log), str(model), SETTINGS, progress=False)
        assert model.read_bytes() == before

    def test_a_bad_log_leaves_no_model(self, tmp_path: Path) -> None:
        log = tmp_path / "ratings.csv"
        log.write_text("user,item,rating,time\na,b,c,d\n")
        with pytest.raises(ConfigError, match="line 2"):
            open_users(str(log), None, SETTINGS, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["ratings.csv"]

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="needs a log of ratings, as in --environment.kwargs.log ratings.csv"):
            open_users(None, None)
        with pytest.raises(ConfigError, match="name it as log, or leave fit out"):
            open_users(None, "users.npz", SETTINGS)
        with pytest.raises(ConfigError, match="no.csv: cannot be read"):
            open_users(str(tmp_path / "no.csv"), None)
        log = write_log(tmp_path / "ratings.csv")
        with pytest.raises(ConfigError, match="missing or read-only.; name another place for the model"):
            open_users(str(log), str(tmp_path / "nowhere" / "users.npz"))


@pytest.mark.skipif(
    not (DATA / "ml-100k").is_dir(), reason=f"no MovieLens 100K in {DATA}; HEADRACE_DATA names the place"
)
def test_movielens_users_are_calibrated_and_beat_popularity() -> None:
    pytest.importorskip("implicit")
    fitted = fit_users(read_log(DATA / "ml-100k" / "u.data.gz"), FitSettings())
    assert len(fitted.user_names) == 943
    judged, found = fitted.report["click_model"], fitted.report["recall_at_20"]
    assert judged["expected_calibration_error"] < 0.04
    assert judged["log_loss"] < 0.9 * judged["log_loss_of_their_average"]
    assert found["factors"] > 1.5 * found["popularity"]
