# SPDX-License-Identifier: Apache-2.0
"""Which kinds there are, and what a kind needs.

A Resource is one served (group, version, plural). Versions of one resource share their
objects, as in a real cluster.
"""

from typing import Iterator, List, NamedTuple, Tuple


class Resource(NamedTuple):
    """One kind of object at one version, as discovery describes it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short_names: Tuple[str, ...] = ()
    subresources: Tuple[str, ...] = ()
    custom: bool = False  # comes from a CustomResourceDefinition
    list_kind: str = ""

    @property
    def api_version(self) -> str:
        return self.group + "/" + self.version if self.group else self.version

    @property
    def storage(self) -> Tuple[str, str]:
        return self.group, self.plural

    @property
    def qualified(self) -> str:  # as messages have it: "deployments.apps"
        return self.plural + "." + self.group if self.group else self.plural

    @property
    def verbs(self) -> List[str]:
        if self.group == "metrics.k8s.io":
            return ["get", "list"]
        if self.plural.endswith("reviews"):
            return ["create"]
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        if self.storage in (("", "namespaces"), ("", "services")):
            verbs.remove("deletecollection")
        return verbs

    @property
    def counts_generations(self) -> bool:
        return self.custom or self.group in (
            "apps",
            "policy",
            "networking.k8s.io",
            "apiextensions.k8s.io",
        )


# What is served, by group and version: plural, kind, namespaced, short name, subresources.
TABLE = """
v1
    pods                       Pod                       yes  po      status,log,exec,eviction
    nodes                      Node                      no   no      status
    namespaces                 Namespace                 no   ns      status
    configmaps                 ConfigMap                 yes  cm      -
    secrets                    Secret                    yes  -       -
    services                   Service                   yes  svc     status
    endpoints                  Endpoints                 yes  ep      -
    serviceaccounts            ServiceAccount            yes  sa      token
    events                     Event                     yes  ev      -
    persistentvolumes          PersistentVolume          no   pv      status
    persistentvolumeclaims     PersistentVolumeClaim     yes  pvc     status
apps/v1
    deployments                Deployment                yes  deploy  status,scale
    replicasets                ReplicaSet                yes  rs      status,scale
    statefulsets               StatefulSet               yes  sts     status,scale
    daemonsets                 DaemonSet                 yes  ds      status
batch/v1
    jobs                       Job                       yes  -       status
networking.k8s.io/v1
    ingresses                  Ingress                   yes  ing     status
policy/v1beta1
    poddisruptionbudgets       PodDisruptionBudget       yes  pdb     status
apiextensions.k8s.io/v1
    customresourcedefinitions  CustomResourceDefinition  no   crd     status
authorization.k8s.io/v1
    selfsubjectrulesreviews    SelfSubjectRulesReview    no   -       -
    selfsubjectaccessreviews   SelfSubjectAccessReview   no   -       -
metrics.k8s.io/v1beta1
    nodes                      NodeMetrics               no   -       -
    pods                       PodMetrics                yes  -       -
"""


def _built_in() -> Iterator[Resource]:
    group = version = ""
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            group, _, version = line.rpartition("/")
            continue
        plural, kind, namespaced, short, subresources = (
            "" if word == "-" else word for word in line.split()
        )
        yield Resource(
            group,
            version,
            plural,
            kind,
            namespaced == "yes",
            tuple(filter(None, [short])),
            tuple(filter(None, subresources.split(","))),
        )


BUILT_IN = {(r.group, r.version, r.plural): r for r in _built_in()}


def core(plural: str) -> Resource:
    return BUILT_IN["", "v1", plural]


PODS, NODES, NAMESPACES, EVENTS = core("pods"), core("nodes"), core("namespaces"), core("events")
DEPLOYMENTS, DAEMONSETS = (
    BUILT_IN["apps", "v1", "deployments"],
    BUILT_IN["apps", "v1", "daemonsets"],
)
CRDS = BUILT_IN["apiextensions.k8s.io", "v1", "customresourcedefinitions"]
BUDGETS = BUILT_IN["policy", "v1beta1", "poddisruptionbudgets"]

# Which kind and version a subresource speaks, where that is not its parent's.
SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1beta1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "", "PodExecOptions"),
}
SUBRESOURCE_VERBS = {
    "log": ["get"],
    "exec": ["create", "get"],
    "eviction": ["create"],
    "token": ["create"],
}
