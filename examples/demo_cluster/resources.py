# SPDX-License-Identifier: Apache-2.0
"""Which kinds there are, and what a kind needs.

A Resource is one served (group, version, plural). Versions of one resource share their
objects, as in a real cluster.
"""

from typing import Dict, Iterator, List, NamedTuple, Tuple


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
        if self.storage == ("", "namespaces"):
            verbs.remove("deletecollection")
        return verbs

    @property
    def counts_generations(self) -> bool:
        return self.custom or self.group in (
            "apps",
            "batch",
            "policy",
            "networking.k8s.io",
            "apiextensions.k8s.io",
        )


# What is served: a line for each group and version, with the minor versions of Kubernetes that
# have it ("1.21-" from there on, "-1.24" up to there), then a line for each resource: plural,
# kind, namespaced, short name, subresources.
TABLE = """
v1
    pods                    Pod                   yes po status,log,exec,attach,portforward,eviction
    nodes                   Node                   no  no     status
    namespaces              Namespace              no  ns     status,finalize
    configmaps              ConfigMap              yes cm     -
    secrets                 Secret                 yes -      -
    services                Service                yes svc    status
    endpoints               Endpoints              yes ep     -
    serviceaccounts         ServiceAccount         yes sa     token
    events                  Event                  yes ev     -
    limitranges             LimitRange             yes limits -
    persistentvolumes       PersistentVolume       no  pv     status
    persistentvolumeclaims  PersistentVolumeClaim  yes pvc    status
    replicationcontrollers  ReplicationController  yes rc     status,scale
    resourcequotas          ResourceQuota          yes quota  status
apps/v1
    deployments             Deployment             yes deploy status,scale
    replicasets             ReplicaSet             yes rs     status,scale
    statefulsets            StatefulSet            yes sts    status,scale
    daemonsets              DaemonSet              yes ds     status
autoscaling/v2 1.23-
    horizontalpodautoscalers HorizontalPodAutoscaler yes hpa  status
autoscaling/v1
    horizontalpodautoscalers HorizontalPodAutoscaler yes hpa  status
batch/v1
    jobs                    Job                    yes -      status
batch/v1 1.21-
    cronjobs                CronJob                yes cj     status
batch/v1beta1 -1.24
    cronjobs                CronJob                yes cj     status
coordination.k8s.io/v1
    leases                  Lease                  yes -      -
discovery.k8s.io/v1 1.21-
    endpointslices          EndpointSlice          yes -      -
discovery.k8s.io/v1beta1 -1.24
    endpointslices          EndpointSlice          yes -      -
networking.k8s.io/v1
    ingresses               Ingress                yes ing    status
    ingressclasses          IngressClass           no  -      -
    networkpolicies         NetworkPolicy          yes netpol -
policy/v1 1.21-
    poddisruptionbudgets    PodDisruptionBudget    yes pdb    status
policy/v1beta1 -1.24
    poddisruptionbudgets    PodDisruptionBudget    yes pdb    status
rbac.authorization.k8s.io/v1
    clusterroles            ClusterRole            no  -      -
    clusterrolebindings     ClusterRoleBinding     no  -      -
    roles                   Role                   yes -      -
    rolebindings            RoleBinding            yes -      -
scheduling.k8s.io/v1
    priorityclasses         PriorityClass          no  pc     -
storage.k8s.io/v1
    storageclasses          StorageClass           no  sc     -
apiextensions.k8s.io/v1
    customresourcedefinitions CustomResourceDefinition no crd status
authentication.k8s.io/v1 1.28-
    selfsubjectreviews       SelfSubjectReview       no -     -
authorization.k8s.io/v1
    selfsubjectrulesreviews  SelfSubjectRulesReview  no -     -
    selfsubjectaccessreviews SelfSubjectAccessReview no -     -
metrics.k8s.io/v1beta1
    nodes                   NodeMetrics            no  -      -
    pods                    PodMetrics             yes -      -
"""

OLDEST, NEWEST = 20, 37  # minor versions that a cluster can have


def _table() -> Iterator[Tuple[Resource, int, int]]:
    """Each resource, with the first and the last minor version that serves it."""
    group = version = ""
    first, last = OLDEST, NEWEST
    for line in TABLE.strip().splitlines():
        words = ["" if word == "-" else word for word in line.split()]
        if not line.startswith(" "):
            group, _, version = words[0].rpartition("/")
            since, _, until = (words[1:] or ["-"])[0].partition("-")
            first = int(since[2:] or OLDEST)
            last = int(until[2:] or NEWEST)
            continue

        plural, kind, namespaced, short, subresources = words
        resource = Resource(
            group,
            version,
            plural,
            kind,
            namespaced == "yes",
            tuple(filter(None, [short])),
            tuple(filter(None, subresources.split(","))),
        )
        yield resource, first, last


ResourceKey = Tuple[str, str, str]  # group, version, plural


def built_in(minor: int) -> Dict[ResourceKey, Resource]:
    """What Kubernetes 1.<minor> serves without any CustomResourceDefinition."""
    return {
        (resource.group, resource.version, resource.plural): resource
        for resource, first, last in _table()
        if first <= minor <= last
    }


BUILT_IN = {**built_in(OLDEST), **built_in(NEWEST)}  # of any age


def core(plural: str) -> Resource:
    return BUILT_IN["", "v1", plural]


PODS, NODES, NAMESPACES, EVENTS = core("pods"), core("nodes"), core("namespaces"), core("events")
SERVICES, ENDPOINTS, ACCOUNTS = core("services"), core("endpoints"), core("serviceaccounts")
SLICES = BUILT_IN["discovery.k8s.io", "v1", "endpointslices"]
DEPLOYMENTS = BUILT_IN["apps", "v1", "deployments"]
REPLICASETS = BUILT_IN["apps", "v1", "replicasets"]
STATEFULSETS = BUILT_IN["apps", "v1", "statefulsets"]
DAEMONSETS = BUILT_IN["apps", "v1", "daemonsets"]
JOBS = BUILT_IN["batch", "v1", "jobs"]
CRDS = BUILT_IN["apiextensions.k8s.io", "v1", "customresourcedefinitions"]
BUDGETS = BUILT_IN["policy", "v1", "poddisruptionbudgets"]

# Which kind and version a subresource speaks, where that is not its parent's.
SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "", "PodExecOptions"),
    "attach": ("", "", "PodAttachOptions"),
    "portforward": ("", "", "PodPortForwardOptions"),
}
SUBRESOURCE_VERBS = {
    "log": ["get"],
    "exec": ["create", "get"],
    "attach": ["create", "get"],
    "portforward": ["create", "get"],
    "eviction": ["create"],
    "token": ["create"],
    "finalize": ["update"],
}

# Versions of which every use is answered with a Warning header: (first minor that warns, text).
DEPRECATED = {
    ("", "v1", "endpoints"): (
        33,
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    ("batch", "v1beta1", "cronjobs"): (
        21,
        "batch/v1beta1 CronJob is deprecated in v1.21+, unavailable in v1.25+; "
        "use batch/v1 CronJob",
    ),
    ("policy", "v1beta1", "poddisruptionbudgets"): (
        21,
        "policy/v1beta1 PodDisruptionBudget is deprecated in v1.21+, unavailable in v1.25+; "
        "use policy/v1 PodDisruptionBudget",
    ),
}
