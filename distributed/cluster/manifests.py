"""Kubernetes manifests of a Ray cluster: KubeRay's own schema, then what a schema cannot know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from distributed.cluster import pins, roles
from distributed.cluster.problem import Problem, from_schema, placeholders
from distributed.cluster.sizes import kubernetes_bytes
from replay_server.errors import ConfigError

_SCHEMA = Path(__file__).parent / "kuberay" / "schema.json"
_BESIDE = ("NetworkPolicy", "PersistentVolumeClaim")  # kinds of Kubernetes itself, which its own tools check
_GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Group:
    """Pods of one kind: the head, or the workers of a group.

    Args:
        field: where it stands in the file.
        spec: what stands there.
        most: how many there may be.
    """

    field: str
    spec: Mapping[str, Any]
    most: int

    @property
    def container(self) -> Mapping[str, Any]:
        """The container that runs Ray: KubeRay takes the first."""
        first: Mapping[str, Any] = self.spec["template"]["spec"]["containers"][0]
        return first

    def offer(self) -> roles.Offer:
        """What one of these pods has for Ray."""
        given: Mapping[str, str] = self.spec.get("resources", {})
        whole = {name: float(amount) for name, amount in given.items() if amount.isdigit()}  # memory is written as 20Gi
        return roles.Offer(f"{self.field}.resources", whole, self.most)


def check_manifests(documents: Sequence[Mapping[str, Any]]) -> tuple[list[Problem], list[roles.Offer]]:
    """Everything that is wrong with the documents of one file, and what their pods offer to a run.

    Raises:
        ConfigError: none of them is a RayCluster or a RayJob.
    """
    known = json.loads(_SCHEMA.read_text())
    problems: list[Problem] = []
    offers: list[roles.Offer] = []
    clusters = 0
    for document in documents:
        kind = str(document.get("kind"))
        if kind in known["kinds"]:
            wrong = list(_against_schema(kind, document, known))
            if not wrong:
                found = groups(kind, document)
                offers += [group.offer() for group in found]
                wrong = list(_rules(kind, document, found))
            problems += wrong
            clusters += 1
        elif kind not in _BESIDE:
            problems.append(
                Problem("kind", f"{kind!r} is not expected here; RayCluster, RayJob, {', '.join(_BESIDE)} are")
            )
    if not clusters:
        raise ConfigError(f"no RayCluster or RayJob among kinds {', '.join(str(d.get('kind')) for d in documents)}")
    return problems, offers


def groups(kind: str, document: Mapping[str, Any]) -> list[Group]:
    """The head and the groups of workers of a document that fits the schema."""
    at, spec = _cluster_of(kind, document)
    workers = enumerate(spec.get("workerGroupSpecs", []))
    return [
        Group(f"{at}.headGroupSpec", spec["headGroupSpec"], 1),
        *(Group(f"{at}.workerGroupSpecs.{index}", group, group["maxReplicas"]) for index, group in workers),
    ]


def _cluster_of(kind: str, document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if kind == "RayCluster":
        return "spec", document["spec"]
    return "spec.rayClusterSpec", document["spec"]["rayClusterSpec"]


def _against_schema(kind: str, document: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Problem]:
    if document.get("apiVersion") != "ray.io/v1":
        yield Problem("apiVersion", f"is {document.get('apiVersion')!r}; make it ray.io/v1")
    schema = _strict({**known["kinds"][kind], "$defs": known["$defs"]})
    for error in Draft202012Validator(schema).iter_errors(document):
        yield from_schema(error)
    part = {"RayCluster": document, "RayJob": document.get("spec", {})}[kind]
    if not isinstance(part, Mapping) or ("spec" if kind == "RayCluster" else "rayClusterSpec") not in part:
        yield Problem("spec" if kind == "RayCluster" else "spec.rayClusterSpec", "missing; it must be given")


def _strict(schema: Any) -> Any:
    """The schema with unknown fields refused: Kubernetes itself would drop them without a word."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), Mapping) and schema.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    return strict


def _rules(kind: str, document: Mapping[str, Any], found: Sequence[Group]) -> Iterator[Problem]:
    at, spec = _cluster_of(kind, document)
    pinned = pins.constraints()
    yield from placeholders(document)
    if spec.get("authOptions", {}).get("mode") != "token":
        text = "must be token: without it whoever reaches a port of a pod runs code in all of them"
        yield Problem(f"{at}.authOptions.mode", text)
    if spec.get("rayVersion") != pinned["ray"]:
        yield Problem(f"{at}.rayVersion", f"is {spec.get('rayVersion')!r}; constraints.txt has ray=={pinned['ray']}")
    for group in found:
        yield from _counts(group)
        yield from _pod(group, pinned)
        yield from _shared_memory(group)
    yield from roles.unmet([group.offer() for group in found], f"{at}.workerGroupSpecs")


def _counts(group: Group) -> Iterator[Problem]:
    least, now, most = (group.spec.get(key) for key in ("minReplicas", "replicas", "maxReplicas"))
    if least is not None and most is not None and not least <= (least if now is None else now) <= most:
        text = f"is {most} with minReplicas {least} and replicas {now}; make them grow in this order"
        yield Problem(f"{group.field}.maxReplicas", text)


def _pod(group: Group, pinned: Mapping[str, str]) -> Iterator[Problem]:
    at, container = f"{group.field}.template.spec", group.container
    yield from pins.image(f"{at}.containers.0.image", container.get("image", ""), pinned)
    limits, requests = (container.get("resources", {}).get(key, {}) for key in ("limits", "requests"))
    for key in ("cpu", "memory"):
        if key not in limits or requests.get(key) != limits[key]:
            text = f"give {key} in limits and the same in requests: pods that get less than they count on are killed"
            yield Problem(f"{at}.containers.0.resources.limits.{key}", text)
    for name, key in (("CPU", "cpu"), ("GPU", _GPU)):
        if (offered := group.offer().resources.get(name, 0)) > _cores(limits.get(key, 0)):
            text = f"offers {offered:g}, the container has {limits.get(key, 0)} {key}; lower it"
            yield Problem(f"{group.field}.resources.{name}", text)
    if "CPU" not in group.offer().resources:
        yield Problem(f"{group.field}.resources.CPU", "missing; say how many processors Ray may give to actors")
    security = {**group.spec["template"]["spec"].get("securityContext", {}), **container.get("securityContext", {})}
    if security.get("runAsNonRoot") is not True:
        yield Problem(f"{at}.securityContext.runAsNonRoot", "must be true: nothing here needs to be root")


def _cores(text: Any) -> float:
    return float(text[:-1]) / 1000 if str(text).endswith("m") else float(text)


def _shared_memory(group: Group) -> Iterator[Problem]:
    at = f"{group.field}.template.spec.volumes"
    store = group.spec.get("rayStartParams", {}).get("object-store-memory", "")
    if not store.isdigit():
        text = "missing; Ray would take 30 % of a pod's memory that shards count on"
        yield Problem(f"{group.field}.rayStartParams.object-store-memory", text)
        return
    mounts = [m["name"] for m in group.container.get("volumeMounts", []) if m["mountPath"] == "/dev/shm"]
    volumes = {
        volume["name"]: volume.get("emptyDir", {}) for volume in group.spec["template"]["spec"].get("volumes", [])
    }
    volume = volumes.get(mounts[0], {}) if mounts else {}
    if volume.get("medium") != "Memory" or "sizeLimit" not in volume:
        yield Problem(
            at, "nothing in memory is mounted at /dev/shm; add an emptyDir with medium Memory and a sizeLimit"
        )
    elif kubernetes_bytes(volume["sizeLimit"]) < int(store):
        text = f"{volume['sizeLimit']} at /dev/shm is less than object-store-memory of {store}; raise it"
        yield Problem(f"{at}.emptyDir.sizeLimit", text)
