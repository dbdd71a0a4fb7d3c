"""The shipped manifests fit KubeRay's schema, and every mistake seeded into one is found and named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed.cluster.manifests import check_manifests
from replay_server.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = ["deploy/kuberay/raycluster.yaml", "deploy/kuberay/rayjob.yaml"]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((ROOT / name).read_text().replace("CHANGE-ME", "example.org/me"), yaml.CSafeLoader))


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return documents(SHIPPED[0])[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_manifests_are_right_once_they_are_filled_in(name: str) -> None:
    problems, offers = check_manifests(documents(name))
    assert problems == []
    assert [offer.nodes for offer in offers] == [1, 4, 12]


def test_learner_and_shards_share_the_directory_of_runs() -> None:
    claim, job = documents(SHIPPED[1])
    spec = job["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], spec["workerGroupSpecs"][0]):
        pod = group["template"]["spec"]
        volumes = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
        mounted = [m["name"] for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/runs"]
        assert [volumes[name] for name in mounted] == [claim["metadata"]["name"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "--run-dir /runs/" in job["spec"]["entrypoint"]


HEAD, REPLAY, ACTORS = "spec.headGroupSpec", "spec.workerGroupSpecs.0", "spec.workerGroupSpecs.1"
MISTAKES: dict[str, tuple[str, Any, str, str]] = {
    "typo": ("spec.rayVersions", "2.60.0", "spec.rayVersions", "did you mean rayVersion?"),
    "typo deep down": (
        f"{HEAD}.template.spec.containers.0.imagePullPolice", "Always",
        f"{HEAD}.template.spec.containers.0.imagePullPolice", "did you mean imagePullPolicy?",
    ),
    "number as a word": (f"{REPLAY}.maxReplicas", "four", f"{REPLAY}.maxReplicas", "an integer"),
    "group without a name": (f"{REPLAY}.groupName", None, f"{REPLAY}.groupName", "missing"),
    "old version": ("apiVersion", "ray.io/v1alpha1", "apiVersion", "make it ray.io/v1"),
    "token off": ("spec.authOptions.mode", "disabled", "spec.authOptions.mode", "must be token"),
    "no token": ("spec.authOptions", None, "spec.authOptions.mode", "must be token"),
    "another Ray": ("spec.rayVersion", "2.59.0", "spec.rayVersion", "ray==2.60.0"),
    "image called latest": (
        f"{ACTORS}.template.spec.containers.0.image", "me/headrace:latest",
        f"{ACTORS}.template.spec.containers.0.image", "tomorrow",
    ),
    "to be filled in": (
        f"{ACTORS}.template.spec.containers.0.image", "CHANGE-ME/headrace:1",
        f"{ACTORS}.template.spec.containers.0.image", "still to be filled in",
    ),
    "no limits": (
        f"{ACTORS}.template.spec.containers.0.resources", None,
        f"{ACTORS}.template.spec.containers.0.resources.limits.memory", "give memory in limits",
    ),
    "more processors than there are": (f"{ACTORS}.resources.CPU", "9", f"{ACTORS}.resources.CPU", "offers 9"),
    "GPU that nobody gives": (f"{ACTORS}.resources.GPU", "1", f"{ACTORS}.resources.GPU", "offers 1"),
    "processors left to Ray": (f"{ACTORS}.resources.CPU", None, f"{ACTORS}.resources.CPU", "missing"),
    "no group for shards": (f"{REPLAY}.resources.replay", None, "spec.workerGroupSpecs", "room for replay shards"),
    "shards nowhere": (f"{REPLAY}.maxReplicas", 0, "spec.workerGroupSpecs", "room for replay shards"),
    "learner nowhere": (f"{HEAD}.resources.learner", "0", "spec.workerGroupSpecs", "room for the learner"),
    "least above most": (f"{REPLAY}.minReplicas", 5, f"{REPLAY}.maxReplicas", "grow in this order"),
    "root": (
        f"{HEAD}.template.spec.securityContext", None, f"{HEAD}.template.spec.securityContext.runAsNonRoot", "be true"
    ),
    "shm too small": (
        f"{HEAD}.template.spec.volumes.0.emptyDir.sizeLimit", "1Gi",
        f"{HEAD}.template.spec.volumes.emptyDir.sizeLimit", "less than object-store-memory",
    ),
    "no shm": (f"{HEAD}.template.spec.containers.0.volumeMounts", [], f"{HEAD}.template.spec.volumes", "/dev/shm"),
    "store left to Ray": (
        f"{HEAD}.rayStartParams.object-store-memory", None, f"{HEAD}.rayStartParams.object-store-memory", "missing"
    ),
}  # fmt: skip


def put(document: Any, path: str, value: Any) -> None:
    """Sets what a dotted path leads to, or removes it for None."""
    *way, last = path.split(".")
    for key in way:
        document = document[int(key) if key.isdigit() else key]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_seeded_mistake_is_named(mistake: str, cluster: dict[str, Any]) -> None:
    path, value, field, words = MISTAKES[mistake]
    document = copy.deepcopy(cluster)
    put(document, path, value)
    problems, _ = check_manifests([document])
    assert any(problem.field == field and words in problem.text for problem in problems), problems


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.update(kind="RayServices"), "no RayCluster or RayJob among kinds RayServices"),
        (lambda document: document.update(kind="Pod"), "among kinds Pod"),
    ],
)
def test_files_of_something_else_are_refused(
    change: Callable[[dict[str, Any]], None], words: str, cluster: dict[str, Any]
) -> None:
    document = copy.deepcopy(cluster)
    change(document)
    with pytest.raises(ConfigError, match=words):
        check_manifests([document])
    problems, _ = check_manifests([document, cluster])
    assert [problem.field for problem in problems] == ["kind"]


def test_a_job_without_a_cluster_is_named() -> None:
    job = documents(SHIPPED[1])[1]
    del job["spec"]["rayClusterSpec"]
    problems, _ = check_manifests([job])
    assert [problem.field for problem in problems] == ["spec.rayClusterSpec"]
