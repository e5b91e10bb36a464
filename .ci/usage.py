# SPDX-License-Identifier: Apache-2.0
# pyright: strict
"""Every public name of the module, used as a user's program would: for type checkers.

mypy --strict and pyright find nothing here, without a comment that silences them; check_types.py
looks whether a name is missing. Nothing runs when it is imported.
"""

import logging
import ssl
from typing import Any, Callable, Dict, List, Optional, Union

import apiproxy
from apiproxy import (
    ApiClient, ApiError, ApiInfo, Client, ClusterRequest, ClusterRequestParams, ConnectionClosed,
    Endpoint, HandshakeError, NamespacedApiClient, ProtocolError, QueryParameters, RequestParams,
    Response, ScaleApi, Settings, Stream, StreamArgs, StreamErrCb, StreamResultsCb,
    StreamResultsParams, WebSocket, WebSocketError,
)

PODS = "/api/v1/namespaces/default/pods"
VERSION: str = apiproxy.__version__
Json = Dict[str, Any]


# -- callbacks, as users write them


def on_items(items: List[Any]) -> None:
    """A view of a list."""
    print([item["metadata"]["name"] for item in items])


def on_item(item: Any) -> None:
    """A state of an object."""
    print(item["metadata"]["resourceVersion"])


def on_message(message: Union[str, bytes]) -> None:
    """A message of a stream."""
    print(len(message))


def on_error(error: ApiError, cancel: Callable[[], None]) -> None:
    """The other callback of a watch."""
    if error.status == 403:
        cancel()


def on_metrics(items: Any) -> None:
    """What a poll gave."""
    print(len(items))


def on_metrics_error(error: ApiError) -> None:
    """What a poll that failed gave."""
    print(error.status, error.retry_after)


def on_end() -> None:
    """The end of a stream."""


def on_failure(error: ApiError) -> None:
    """The end of a stream, and why."""
    print(error)


def on_logout(cluster: str) -> None:
    """A token was refused."""
    logging.warning("the token of %s was refused", cluster)


STREAM_CB: StreamResultsCb = on_message
ERR_CB: StreamErrCb = on_error


# -- settings and clients


def make_clients(context: ssl.SSLContext) -> List[Client]:
    """The ways to make one."""
    return [
        Client(),
        Client("https://headlamp.example", cluster="dev", backend_token="x", ssl_context=context),
        Client(
            "", default_namespaces={"dev": "team"}, on_logout=on_logout, on_reload=on_end,
            request_timeout=None, watch_timeout=(60.0, 120.0), gather=0.5, gzip=False),
        Client.from_kubeconfig(),
        Client.from_kubeconfig("/tmp/kubeconfig", "prod", request_timeout=5.0),
        Client.in_cluster(),
        Client.in_cluster("/tmp/serviceaccount", rate=1.0),
    ]


def use_client(client: Client) -> None:
    """What a client is beside its calls."""
    settings: Settings = client
    settings.request_timeout = 30.0
    client.cluster = "dev"
    client.add_endpoint("prod", Endpoint("https://10.0.0.1:6443", token="x", namespace="team"))
    client.set_token("dev", "x")
    client.set_token("prod", read_token)
    client.set_token("prod", None)
    token: Optional[str] = client.get_token("dev")
    print(token, client.base_url, list(client.endpoints))
    with client:
        client.request("/version")
    client.close()


def read_token() -> Optional[str]:
    """A function that gives a token is asked for each request."""
    return "x"


def make_endpoint() -> Endpoint:
    """A cluster without Headlamp."""
    context = apiproxy.tls_context("/tmp/ca.crt", server_name="kubernetes")
    unchecked: ssl.SSLContext = apiproxy.tls_context(insecure=True)
    print(unchecked, apiproxy.tls_context(ca_data=b"-----BEGIN"))
    return Endpoint(
        "https://10.0.0.1:6443", ssl_context=context, basic="user:password",
        proxy="http://proxy:3128")


def use_module() -> None:
    """The default client."""
    apiproxy.configure("http://localhost:4466", cluster="dev", burst=20)
    apiproxy.configure(Client(""))
    client: Client = apiproxy.default_client()
    apiproxy.set_token("dev", "x")
    token: Optional[str] = apiproxy.get_token("dev")
    print(client, token, apiproxy.read_yaml("a: 1\n")[0])
    apiproxy.close()


# -- requests


def use_requests() -> None:
    """Each call that gives data."""
    query: QueryParameters = {"labelSelector": "app=web", "limit": 5, "continue": "token"}
    params: RequestParams = {"timeout": 5000, "isJSON": False, "headers": {"Accept": "text/plain"}}
    options: ClusterRequestParams = {"cluster": "dev", "method": "POST", "body": b"{}"}

    pods: Any = apiproxy.request(PODS)
    answer: Any = apiproxy.request(PODS, params, True, False, query)
    pods = apiproxy.cluster_request(PODS, options, {"pretty": True})
    created: Json = apiproxy.post(PODS, {"metadata": {}}, False, {"timeout": 1000})
    changed: Json = apiproxy.put(PODS + "/a", created, True, options)
    changed = apiproxy.patch(PODS + "/a", [{"op": "remove", "path": "/spec"}], True, options)
    removed: Any = apiproxy.remove(PODS + "/a", {"cluster": "dev"})
    print(pods, answer, changed, removed)

    review: Json = apiproxy.test_auth("dev")
    use_response(apiproxy.test_cluster_health("dev"))
    print(review["status"], apiproxy.test_auth("dev", namespace="team"))


def use_response(response: Response) -> None:
    """What an answer is."""
    status: int = response.status
    text: str = response.text()
    body: bytes = response.body
    well: bool = response.ok
    print(status, response.reason, response.headers.get("Content-Type"), text, body, well)
    print(response.json()["items"], response.object()["kind"], response.items())


def use_apply(manifest: Json) -> None:
    """Apply, in its two forms."""
    applied: Json = apiproxy.apply(manifest)
    applied = apiproxy.apply(manifest, "prod")
    applied = apiproxy.apply(manifest, field_manager="me", force=True, dry_run=True)
    print(applied["metadata"]["name"])


def use_errors() -> None:
    """Every kind of error, from the special to the general."""
    try:
        apiproxy.request(PODS)
    except ConnectionClosed as error:
        print(error.code, error.reason)
    except ProtocolError as error:
        print(error.code)
    except HandshakeError as error:
        print(error.status, error.body)
    except WebSocketError as error:
        print(error)
    except ApiError as error:
        after: Optional[float] = error.retry_after
        words: List[str] = [error.message, error.phrase, error.reason, error.method, error.url]
        details: Dict[str, Any] = error.details
        print(after, words, details, error.body, error.status)
    raise ApiError(404, "none", phrase="Not Found", url=PODS)


# -- watches and streams


def use_watches() -> None:
    """Everything that gives a function that cancels."""
    params: StreamResultsParams = {"cb": on_items, "errCb": on_error, "cluster": "dev"}
    cancels: List[Callable[[], None]] = [
        apiproxy.stream_results(PODS, on_items, on_error),
        apiproxy.stream_results(PODS, on_items, on_error, {"labelSelector": {"app": "web"}}),
        apiproxy.stream_result(PODS, "a", on_item, on_error, {"pretty": "true"}, "dev"),
        apiproxy.stream_results_for_cluster(PODS, params, {"limit": "5"}),
        apiproxy.stream_results(PODS, lambda items: print(len(items)), lambda error, cancel: None),
        apiproxy.metrics("/apis/metrics.k8s.io/v1beta1/nodes", on_metrics),
        apiproxy.metrics(PODS, on_metrics, on_metrics_error, "dev"),
    ]
    for cancel in cancels:
        cancel()


def use_wait() -> None:
    """Wait until an object is as it should be."""
    pod = apiproxy.wait_for(PODS, "a", lambda item: item["status"]["phase"] == "Running")
    print(pod["metadata"]["name"])


def use_streams() -> None:
    """Logs, commands, and what else is a WebSocket."""
    arguments: StreamArgs = {
        "isJson": False, "connectCb": on_end, "failCb": on_failure, "reconnectOnFailure": True,
        "additionalProtocols": ["v4.channel.k8s.io"], "cluster": "dev"}
    stream: Stream = apiproxy.stream(PODS + "/a/log?follow=true", on_message, arguments)
    apiproxy.stream(PODS + "/a/log?follow=true", on_message, {"failCb": on_end})
    socket: Optional[WebSocket] = stream.get_socket()
    if socket is not None:
        socket.send(b"\0ls\n")
    failure: Optional[ApiError] = stream.error
    print(failure)
    stream.cancel()


def use_socket() -> None:
    """The WebSocket client by itself."""
    socket = WebSocket.connect(
        "wss://example/ws", protocols=["chat"], headers={"Authorization": "Bearer x"}, timeout=5.0)
    socket.send("text")
    socket.send(bytearray(b"binary"))
    socket.ping(b"payload")
    message: Union[str, bytes] = socket.recv(timeout=1.0)
    print(message, socket.protocol, socket.closed)
    for message in socket:
        print(message)
    socket.close(1000, "done")
    socket.abort()


# -- API clients


def use_api_client() -> None:
    """A resource of the cluster."""
    nodes: ApiClient = apiproxy.api_factory("", "v1", "nodes")
    nodes = apiproxy.api_factory(("apps", "v2", "things"), ("apps", "v1", "things"))
    infos: List[ApiInfo] = nodes.api_info
    print([(info["group"], info["version"], info["resource"]) for info in infos])

    nodes.list(on_items, on_error, {"limit": 5}, "dev")()
    nodes.get("a", on_item, on_error)()
    node: Json = nodes.post({"metadata": {"name": "a"}}, {"dryRun": "All"})
    node = nodes.put(node, cluster="dev")
    node = nodes.patch({"spec": {"unschedulable": True}}, "a")
    print(node, nodes.delete("a", {"pretty": True}, "dev"))


def use_namespaced_client() -> None:
    """A resource of a namespace, and its scale."""
    pods: NamespacedApiClient = apiproxy.api_factory_with_namespace("", "v1", "pods")
    pods.list("default", on_items, on_error)()
    pods.get("default", "a", on_item, on_error, None, "dev")()
    pod: Json = pods.post({"metadata": {"name": "a", "namespace": "default"}})
    pod = pods.put(pod)
    pod = pods.patch([{"op": "remove", "path": "/spec"}], "default", "a")
    print(pod, pods.delete("default", "a"))

    deployments = apiproxy.api_factory_with_namespace("apps", "v1", "deployments", True)
    current: Json = deployments.scale.get("default", "web")
    scale: ScaleApi = deployments.scale
    print(current, scale.put({"metadata": {"name": "web"}, "spec": {"replicas": 2}}))
    several = apiproxy.api_factory_with_namespace(
        ("apps", "v1", "deployments", True), ("apps", "v1beta1", "deployments", True))
    print(several.api_info)


# -- port forwards, drains, clusters, plugins


def use_servers() -> None:
    """What a Headlamp server does, or this program."""
    forward: Json = apiproxy.start_port_forward("dev", "default", "a", 80, "", "")
    forward = apiproxy.start_port_forward(
        "dev", "default", "", "http", "web", "default", "8080", "127.0.0.1", "my-id")
    forwards: List[Json] = apiproxy.list_port_forward("dev")
    said: str = apiproxy.stop_or_delete_port_forward("dev", forward["id"], False)
    begun: Json = apiproxy.drain_node("dev", "a")
    status: Json = apiproxy.drain_node_status("dev", "a")
    print(forwards, said, begun, status["id"])

    request: ClusterRequest = {
        "name": "new", "server": "https://10.0.0.2", "insecureTLSVerify": True}
    added: Any = apiproxy.set_cluster(request)
    gone: Any = apiproxy.delete_cluster("new", remove_kubeconfig=True)
    plugin: Any = apiproxy.delete_plugin("mine", type="user")
    print(added, gone, plugin)
