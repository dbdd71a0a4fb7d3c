"""Search for the nearest items: exact in torch, or approximate with faiss or usearch where one is installed."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from learners.catalogue.distances import Metric, distances, on_sphere
from replay_server.errors import ConfigError

Search = Literal["exact", "faiss", "usearch"]
_BLOCK = 1 << 24  # numbers in one [B, block] array of scores: 64 MiB
_LINKS, _BREADTH = 32, 128  # of a small-world graph: links of an item, candidates kept while searching


class Neighbours(Protocol):
    """Finds the nearest of N items."""

    def search(self, queries: Tensor, k: int) -> Tensor:
        """The `k` <= N items nearest to each query, nearest first: float32[B, d] -> int64[B, k]."""


class ExactNeighbours:
    """Looks at every item, in blocks; works on any device.

    Args:
        items: float32[N, d].
        metric: what near means. Euclidean order comes from inner products, exact to float32's rounding.
    """

    def __init__(self, items: Tensor, metric: Metric) -> None:
        self._metric = metric
        self._items = on_sphere(metric, items) if metric in ("cosine", "correlation") else items
        self._half_squares = 0.5 * self._items.square().sum(dim=1)

    def search(self, queries: Tensor, k: int) -> Tensor:
        """See Neighbours.search."""
        best: Tensor | None = None
        ids: Tensor | None = None
        rows = max(_BLOCK // max(len(queries), 1), k)
        for start in range(0, len(self._items), rows):
            nearness = self._nearness(queries, start, start + rows)
            found, places = nearness.topk(min(k, nearness.shape[1]), dim=1)
            places = places + start
            if best is not None and ids is not None:
                found, chosen = torch.cat((best, found), dim=1).topk(k, dim=1)
                places = torch.cat((ids, places), dim=1).gather(1, chosen)
            best, ids = found, places
        assert ids is not None
        return ids

    def _nearness(self, queries: Tensor, start: int, stop: int) -> Tensor:
        items = self._items[start:stop]
        match self._metric:
            case "euclidean":
                return torch.addmm(self._half_squares[start:stop].neg(), queries, items.T)
            case "cosine":
                return queries @ items.T  # a query's length does not change its order
            case "correlation":
                return (queries - queries.mean(dim=1, keepdim=True)) @ items.T
            case _:
                return distances(self._metric, queries, items).neg()


class FaissNeighbours:
    """A small-world graph of faiss (Malkov and Yashunin 2018), on the CPU; see ExactNeighbours."""

    def __init__(self, items: Tensor, metric: Metric) -> None:
        self._metric = _for_graphs(metric, "faiss")
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(_not_installed("faiss", "faiss-cpu")) from error
        self._index: Any = faiss.IndexHNSWFlat(items.shape[1], _LINKS)
        self._index.hnsw.efConstruction = self._index.hnsw.efSearch = _BREADTH
        self._index.add(_prepared(self._metric, items).numpy())

    def search(self, queries: Tensor, k: int) -> Tensor:
        """See Neighbours.search."""
        self._index.hnsw.efSearch = max(_BREADTH, 2 * k)
        _, ids = self._index.search(_prepared(self._metric, queries).numpy(), k)
        found = torch.from_numpy(ids)
        return torch.where(found < 0, found[:, :1], found)  # a graph may find fewer: the nearest again


class UsearchNeighbours:
    """A small-world graph of usearch (Malkov and Yashunin 2018), on the CPU; see ExactNeighbours."""

    def __init__(self, items: Tensor, metric: Metric) -> None:
        self._metric = _for_graphs(metric, "usearch")
        try:
            from usearch.index import Index
        except ImportError as error:
            raise ConfigError(_not_installed("usearch", "usearch")) from error
        self._index: Any = Index(
            ndim=items.shape[1], metric="l2sq", dtype="f32",
            connectivity=_LINKS, expansion_add=_BREADTH, expansion_search=_BREADTH,
        )  # fmt: skip
        self._index.add(torch.arange(len(items)).numpy(), _prepared(self._metric, items).numpy(), threads=1)

    def search(self, queries: Tensor, k: int) -> Tensor:
        """See Neighbours.search."""
        self._index.expansion_search = max(_BREADTH, 2 * k)
        matches = self._index.search(_prepared(self._metric, queries).numpy(), k, threads=1)
        keys = torch.from_numpy(matches.keys.astype("int64").reshape(len(queries), -1))
        counts = torch.from_numpy(matches.counts.astype("int64").reshape(-1))
        return torch.where(torch.arange(k) < counts[:, None], keys, keys[:, :1])


def make_neighbours(search: Search, items: Tensor, metric: Metric) -> Neighbours:
    """An index of items float32[N, d].

    Raises:
        ConfigError: the library is not installed, or it can't rank by this metric.
    """
    match search:
        case "exact":
            return ExactNeighbours(items, metric)
        case "faiss":
            return FaissNeighbours(items, metric)
        case "usearch":
            return UsearchNeighbours(items, metric)


def _prepared(metric: Metric, vectors: Tensor) -> Tensor:
    vectors = vectors.detach().float().contiguous()
    return vectors if metric == "euclidean" else on_sphere(metric, vectors)


def _for_graphs(metric: Metric, search: str) -> Metric:
    if metric not in ("euclidean", "cosine", "correlation"):
        raise ConfigError(
            f"algorithm.search {search} ranks by euclidean, cosine and correlation; "
            f"algorithm.distance is {metric}: use search exact"
        )
    return metric


def _not_installed(search: str, package: str) -> str:
    return f"algorithm.search {search} needs a package that is not installed: run pip install {package}, or use exact"
