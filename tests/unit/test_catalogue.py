"""Distances against scipy, exact search against sorting, approximate search by recall, and new editions."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from learners.catalogue import distances as distances_module
from learners.catalogue import neighbours as neighbours_module
from learners.catalogue.catalogue import Catalogue
from learners.catalogue.distances import METRICS, MINKOWSKI_P, distances
from learners.catalogue.neighbours import ExactNeighbours, make_neighbours
from replay_server.errors import ConfigError


def vectors(seed: int, count: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def by_scipy(metric: str, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    return cdist(
        queries.astype(float), items.astype(float), metric, **({"p": MINKOWSKI_P} if metric == "minkowski" else {})
    )


def test_there_are_eight_metrics() -> None:
    assert len(METRICS) == len(set(METRICS)) == 8


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_scipys(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances_module, "_BLOCK", 1_000)  # several blocks, the last one smaller
    queries, items = vectors(0, 7), vectors(1, 101)
    ours = distances(metric, torch.from_numpy(queries), torch.from_numpy(items)).numpy()
    assert np.allclose(ours, by_scipy(metric, queries, items), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_and_zeros_have_finite_distances(metric: Any) -> None:
    items = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, -1.0]])
    found = distances(metric, items, items)
    assert torch.isfinite(found).all() and abs(float(found[1, 1])) < 1e-6


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 13, 101])
def test_exact_search_sorts_by_distance(metric: Any, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_module, "_BLOCK", 7 * 30)
    queries, items = vectors(2, 7), vectors(3, 101)
    ids = ExactNeighbours(torch.from_numpy(items), metric).search(torch.from_numpy(queries), k).numpy()
    expected = np.sort(by_scipy(metric, queries, items), axis=1)[:, :k]
    found = np.take_along_axis(by_scipy(metric, queries, items), ids, axis=1)
    assert ids.shape == (7, k) and ids.dtype == np.int64
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == k for row in ids.tolist())


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
@pytest.mark.parametrize("search", ["faiss", "usearch"])
def test_approximate_search_finds_19_of_20(search: Any, metric: Any) -> None:
    if importlib.util.find_spec(search) is None:
        pytest.skip(f"{search} is not installed: pip install 'headrace[ann]'")
    queries, items = torch.from_numpy(vectors(4, 50, 32)), torch.from_numpy(vectors(5, 3_000, 32))
    exact = make_neighbours("exact", items, metric).search(queries, 20)
    found = make_neighbours(search, items, metric).search(queries, 20)
    assert found.shape == exact.shape and found.dtype == torch.int64
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall >= 0.95
    all_of_few = make_neighbours(search, items[:25], metric).search(queries, 25)
    assert all(set(row) == set(range(25)) for row in all_of_few.tolist())


@pytest.mark.parametrize("search", ["faiss", "usearch"])
def test_what_an_approximate_index_can_not_do_is_refused(search: Any) -> None:
    with pytest.raises(ConfigError, match=f"{search} ranks by .*canberra: use search exact"):
        make_neighbours(search, torch.zeros(3, 2), "canberra")
    if importlib.util.find_spec(search) is None:
        with pytest.raises(ConfigError, match=f"pip install {search}"):
            make_neighbours(search, torch.zeros(3, 2), "euclidean")


def test_a_new_edition_is_built_beside_the_old_one_and_then_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(np.eye(3), distance="euclidean", search="exact")
    old, query = catalogue.edition, torch.tensor([[0.9, 0.1, 0.0]])
    seen = []
    build = neighbours_module.ExactNeighbours.__init__

    def watched(self: Any, *args: Any) -> None:
        seen.append(catalogue.edition is old)
        build(self, *args)

    monkeypatch.setattr(neighbours_module.ExactNeighbours, "__init__", watched)
    catalogue.reindex(np.eye(3)[::-1], version=4)
    assert seen == [True] and catalogue.version == 4
    assert catalogue.edition.neighbours.search(query, 1).item() == 2
    assert old.neighbours.search(query, 1).item() == 0 and old.version == 0  # whoever holds it can finish


def test_editions_that_do_not_fit_change_nothing() -> None:
    catalogue = Catalogue(np.eye(3), distance="euclidean", search="exact")
    catalogue.reindex(np.eye(3), version=2)
    before = catalogue.edition
    for items, version, match in (
        (np.eye(3), 2, "not newer"),
        (np.eye(4), 3, r"shape \[4, 4\]"),
        (np.full((3, 3), np.nan), 3, "finite"),
    ):
        with pytest.raises(ConfigError, match=match):
            catalogue.reindex(items, version=version)
    assert catalogue.edition is before


def test_bounds_hold_every_item_and_leave_room_where_all_agree() -> None:
    items = np.array([[1.0, -2.0], [1.0, 5.0]])
    catalogue = Catalogue(items, distance="euclidean", search="exact")
    bounds = catalogue.bounds()
    assert bounds.low == (0.0, -2.0) and bounds.high == (2.0, 5.0)
    catalogue.reindex(items * 10.0, version=1)
    assert catalogue.bounds() is bounds  # what networks were made for
