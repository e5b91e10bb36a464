# SPDX-License-Identifier: Apache-2.0
"""Which fields the usual messages have, and their numbers in protobuf.

Of the messages that kubectl makes by itself, and of what they consist of. What is not here is not
known: any field may stand in it, and protobuf of it is skipped.
"""

from typing import Dict, List, NamedTuple

# Message: name=number:type. Types: none for a string, i integer, o boolean, b bytes, {X} a map
# from strings, []X a list, ~ unknown, else a message. A star marks what is sent only if it is
# set, so that 0, false and "" count. "+" is a message whose fields stand among those around it.
TABLE = """
Namespace: metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:~
NamespaceSpec: finalizers=1:[]
ConfigMap: metadata=1:ObjectMeta immutable=4:o* data=2:{} binaryData=3:{b}
Secret: metadata=1:ObjectMeta immutable=5:o* data=2:{b} stringData=4:{} type=3
Service: metadata=1:ObjectMeta spec=2:ServiceSpec status=3:~
ServiceSpec: ports=1:[]ServicePort selector=2:{} clusterIP=3 clusterIPs=18:[] type=4
    externalIPs=5:[] sessionAffinity=7 loadBalancerIP=8 loadBalancerSourceRanges=9:[]
    externalName=10 externalTrafficPolicy=11 healthCheckNodePort=12:i
    publishNotReadyAddresses=13:o sessionAffinityConfig=14:~ ipFamilies=19:[]
    ipFamilyPolicy=17:s* allocateLoadBalancerNodePorts=20:o* loadBalancerClass=21:s*
    internalTrafficPolicy=22:s* trafficDistribution=23:s*
ServicePort: name=1 protocol=2 appProtocol=6:s* port=3:i targetPort=4:IntOrString nodePort=5:i
ServiceAccount: metadata=1:ObjectMeta secrets=2:[]ObjectReference
    imagePullSecrets=3:[]LocalObjectReference automountServiceAccountToken=4:o*
ObjectReference: kind=1 namespace=2 name=3 uid=4 apiVersion=5 resourceVersion=6 fieldPath=7
LocalObjectReference: name=1
Pod: metadata=1:ObjectMeta spec=2:PodSpec status=3:~
PodSpec: volumes=1:[]Volume initContainers=20:[]Container containers=2:[]Container
    ephemeralContainers=34:[]~ restartPolicy=3 terminationGracePeriodSeconds=4:i*
    activeDeadlineSeconds=5:i* dnsPolicy=6 nodeSelector=7:{} serviceAccountName=8
    serviceAccount=9 automountServiceAccountToken=21:o* nodeName=10 hostNetwork=11:o
    hostPID=12:o hostIPC=13:o shareProcessNamespace=27:o* securityContext=14:~
    imagePullSecrets=15:[]LocalObjectReference hostname=16 subdomain=17 affinity=18:~
    schedulerName=19 tolerations=22:[]~ hostAliases=23:[]~ priorityClassName=24 priority=25:i*
    dnsConfig=26:~ readinessGates=28:[]~ runtimeClassName=29:s* enableServiceLinks=30:o*
    preemptionPolicy=31:s* overhead=32:{Quantity} topologySpreadConstraints=33:[]~
    setHostnameAsFQDN=35:o* os=36:~ hostUsers=37:o* schedulingGates=38:[]~ resourceClaims=39:[]~
    resources=40:ResourceRequirements hostnameOverride=41:s* schedulingGroup=43:~
    evictionResponders=44:[]~
Container: name=1 image=2 command=3:[] args=4:[] workingDir=5 ports=6:[]ContainerPort
    envFrom=19:[]~ env=7:[]EnvVar resources=8:ResourceRequirements resizePolicy=23:[]~
    restartPolicy=24:s* restartPolicyRules=25:[]~ volumeMounts=9:[]VolumeMount
    volumeDevices=21:[]~ livenessProbe=10:~ readinessProbe=11:~ startupProbe=22:~ lifecycle=12:~
    terminationMessagePath=13 terminationMessagePolicy=20 imagePullPolicy=14
    securityContext=15:~ stdin=16:o stdinOnce=17:o tty=18:o
ContainerPort: name=1 hostPort=2:i containerPort=3:i protocol=4 hostIP=5
EnvVar: name=1 value=2 valueFrom=3:~
Volume: name=1 +=2:~
VolumeMount: name=1 readOnly=2:o recursiveReadOnly=7:s* mountPath=3 subPath=4
    mountPropagation=5:s* subPathExpr=6 bindMountOptions=8:[]
ResourceRequirements: limits=1:{Quantity} requests=2:{Quantity} claims=3:[]~
PodTemplateSpec: metadata=1:ObjectMeta spec=2:PodSpec
ResourceQuota: metadata=1:ObjectMeta spec=2:ResourceQuotaSpec status=3:~
ResourceQuotaSpec: hard=1:{Quantity} scopes=2:[] scopeSelector=3:~
PersistentVolumeClaim: metadata=1:ObjectMeta spec=2:~ status=3:~
Deployment: metadata=1:ObjectMeta spec=2:DeploymentSpec status=3:~
DeploymentSpec: replicas=1:i* selector=2:LabelSelector template=3:PodTemplateSpec strategy=4:~
    minReadySeconds=5:i revisionHistoryLimit=6:i* paused=7:o progressDeadlineSeconds=9:i*
StatefulSet: metadata=1:ObjectMeta spec=2:StatefulSetSpec status=3:~
StatefulSetSpec: replicas=1:i* selector=2:LabelSelector template=3:PodTemplateSpec
    volumeClaimTemplates=4:[]PersistentVolumeClaim serviceName=5 podManagementPolicy=6
    updateStrategy=7:~ revisionHistoryLimit=8:i* minReadySeconds=9:i
    persistentVolumeClaimRetentionPolicy=10:~ ordinals=11:~
DaemonSet: metadata=1:ObjectMeta spec=2:DaemonSetSpec status=3:~
DaemonSetSpec: selector=1:LabelSelector template=2:PodTemplateSpec updateStrategy=3:~
    minReadySeconds=4:i revisionHistoryLimit=6:i*
ReplicaSet: metadata=1:ObjectMeta spec=2:ReplicaSetSpec status=3:~
ReplicaSetSpec: replicas=1:i* minReadySeconds=4:i selector=2:LabelSelector
    template=3:PodTemplateSpec
Job: metadata=1:ObjectMeta spec=2:JobSpec status=3:~
JobSpec: parallelism=1:i* completions=2:i* activeDeadlineSeconds=3:i* podFailurePolicy=11:~
    successPolicy=16:~ backoffLimit=7:i* backoffLimitPerIndex=12:i* maxFailedIndexes=13:i*
    selector=4:LabelSelector manualSelector=5:o* template=6:PodTemplateSpec
    ttlSecondsAfterFinished=8:i* completionMode=9:s* suspend=10:o* podReplacementPolicy=14:s*
    managedBy=15:s* scheduling=17:~
CronJob: metadata=1:ObjectMeta spec=2:CronJobSpec status=3:~
CronJobSpec: schedule=1 timeZone=8:s* startingDeadlineSeconds=2:i* concurrencyPolicy=3
    suspend=4:o* jobTemplate=5:JobTemplateSpec successfulJobsHistoryLimit=6:i*
    failedJobsHistoryLimit=7:i*
JobTemplateSpec: metadata=1:ObjectMeta spec=2:JobSpec
Ingress: metadata=1:ObjectMeta spec=2:IngressSpec status=3:~
IngressSpec: ingressClassName=4:s* defaultBackend=1:IngressBackend tls=2:[]IngressTLS
    rules=3:[]IngressRule
IngressTLS: hosts=1:[] secretName=2
IngressRule: host=1 +=2:IngressRuleValue
IngressRuleValue: http=1:HTTPIngressRuleValue
HTTPIngressRuleValue: paths=1:[]HTTPIngressPath
HTTPIngressPath: path=1 pathType=3:s* backend=2:IngressBackend
IngressBackend: service=4:IngressServiceBackend resource=3:~
IngressServiceBackend: name=1 port=2:ServiceBackendPort
ServiceBackendPort: name=1 number=2:i
PodDisruptionBudget: metadata=1:ObjectMeta spec=2:PodDisruptionBudgetSpec status=3:~
PodDisruptionBudgetSpec: minAvailable=1:IntOrString selector=2:LabelSelector
    maxUnavailable=3:IntOrString unhealthyPodEvictionPolicy=4:s*
Eviction: metadata=1:ObjectMeta deleteOptions=2:DeleteOptions
Role: metadata=1:ObjectMeta rules=2:[]PolicyRule
ClusterRole: metadata=1:ObjectMeta rules=2:[]PolicyRule aggregationRule=3:~
PolicyRule: verbs=1:[] apiGroups=2:[] resources=3:[] resourceNames=4:[] nonResourceURLs=5:[]
RoleBinding: metadata=1:ObjectMeta subjects=2:[]Subject roleRef=3:RoleRef
ClusterRoleBinding: metadata=1:ObjectMeta subjects=2:[]Subject roleRef=3:RoleRef
Subject: kind=1 apiGroup=2 name=3 namespace=4
RoleRef: apiGroup=1 kind=2 name=3
PriorityClass: metadata=1:ObjectMeta value=2:i globalDefault=3:o description=4
    preemptionPolicy=5:s*
TokenRequest: metadata=1:ObjectMeta spec=2:TokenRequestSpec status=3:~
TokenRequestSpec: audiences=1:[] expirationSeconds=4:i* boundObjectRef=3:~ attestations=5:~
SelfSubjectReview: metadata=1:ObjectMeta status=2:~
SelfSubjectAccessReview: metadata=1:ObjectMeta spec=2:SelfSubjectAccessReviewSpec status=3:~
SelfSubjectAccessReviewSpec: resourceAttributes=1:ResourceAttributes
    nonResourceAttributes=2:NonResourceAttributes
ResourceAttributes: namespace=1 verb=2 group=3 version=4 resource=5 subresource=6 name=7
    fieldSelector=8:~ labelSelector=9:~
NonResourceAttributes: path=1 verb=2
SelfSubjectRulesReview: metadata=1:ObjectMeta spec=2:SelfSubjectRulesReviewSpec status=3:~
SelfSubjectRulesReviewSpec: namespace=1
Scale: metadata=1:ObjectMeta spec=2:ScaleSpec status=3:~
ScaleSpec: replicas=1:i
HorizontalPodAutoscaler: metadata=1:ObjectMeta spec=2:HorizontalPodAutoscalerSpec status=3:~
HorizontalPodAutoscalerSpec: scaleTargetRef=1:CrossVersionObjectReference minReplicas=2:i*
    maxReplicas=3:i metrics=4:[]MetricSpec behavior=5:~
CrossVersionObjectReference: kind=1 name=2 apiVersion=3
MetricSpec: type=1 object=2:~ pods=3:~ resource=4:ResourceMetricSource containerResource=7:~
    external=5:~
ResourceMetricSource: name=1 target=2:MetricTarget
MetricTarget: type=1 value=2:Quantity averageValue=3:Quantity averageUtilization=4:i*
ObjectMeta: name=1 generateName=2 namespace=3 selfLink=4 uid=5 resourceVersion=6 generation=7:i
    creationTimestamp=8:~ deletionTimestamp=9:~ deletionGracePeriodSeconds=10:i* labels=11:{}
    annotations=12:{} ownerReferences=13:[]OwnerReference finalizers=14:[] managedFields=17:[]~
OwnerReference: apiVersion=5 kind=1 name=3 uid=4 controller=6:o* blockOwnerDeletion=7:o*
LabelSelector: matchLabels=1:{} matchExpressions=2:[]LabelSelectorRequirement
LabelSelectorRequirement: key=1 operator=2 values=3:[]
DeleteOptions: gracePeriodSeconds=1:i* preconditions=2:Preconditions orphanDependents=3:o*
    propagationPolicy=4:s* dryRun=5:[] ignoreStoreReadErrorWithClusterBreakingPotential=6:o*
Preconditions: uid=1:s* resourceVersion=2:s*
"""


class Field(NamedTuple):
    """One field of a message."""

    name: str  # "" if its own fields stand among those around it
    number: int
    type: str
    repeated: bool
    optional: bool  # counts although it is zero


def _field(word: str) -> Field:
    name, _, rest = word.partition("=")
    number, _, kind = rest.partition(":")
    repeated, optional = kind.startswith("[]"), kind.endswith("*")
    kind = kind.replace("[]", "").rstrip("*") or "s"
    return Field(name.strip("+"), int(number), kind, repeated, optional)


def _messages() -> Dict[str, List[Field]]:
    messages: Dict[str, List[Field]] = {}
    name = ""
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            name, _, line = line.partition(":")
        messages.setdefault(name, []).extend(map(_field, line.split()))
    return messages


MESSAGES = _messages()
