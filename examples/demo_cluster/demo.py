# SPDX-License-Identifier: Apache-2.0
"""The server and its clusters, put together: DemoCluster."""

import collections
from typing import Any, Deque, Dict, Iterable, Optional, Union

from .connections import Answer, Connection, Record
from .headlamp import Headlamp
from .life import Life
from .servers import Server
from .settings import Settings
from .store import Store


class DemoCluster(Settings):
    """A Headlamp server with clusters of its own; `with DemoCluster() as demo:` runs it.

    clusters           their names
    host, port         where to listen; port 0 is any that is free
    seed               begin with nodes, deployments and pods, not with bare namespaces
    controllers        make pods for deployments, run pods, empty namespaces (controllers.py)
    tokens             {cluster: token or set of tokens}: who may ask; a cluster not in it is open
    backend_token      what X-HEADLAMP_BACKEND-TOKEN has to be; "" refuses everybody
    dynamic_clusters   serve /cluster, /parseKubeConfig and stateless clusters
    ssl_context        serve https
    bookmark_interval  between the bookmarks of a watch
    log_tick           between the lines of a log that is followed
    drain_time         how long a drain takes
    live               change something every second or two

    Attributes that tests may set: min_token_seconds (600), stateless_ttl and stateless_again
    (300 and 20: how long a kubeconfig is remembered at first, and after each further use).
    """

    def __init__(
        self,
        clusters: Iterable[str] = ("demo",),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        seed: bool = True,
        controllers: bool = True,
        tokens: Optional[Dict[str, Union[str, Iterable[str]]]] = None,
        backend_token: str = "",
        dynamic_clusters: bool = True,
        ssl_context: Any = None,
        bookmark_interval: float = 60.0,
        log_tick: float = 0.5,
        drain_time: float = 0.3,
        live: bool = False,
    ) -> None:
        super().__init__()
        self.host, self.port = host, port
        self.seed, self.controllers = seed, controllers
        self.tokens = dict(tokens or {})
        self.backend_token = backend_token
        self.dynamic_clusters = dynamic_clusters
        self.ssl_context = ssl_context
        self.bookmark_interval = bookmark_interval
        self.log_tick = log_tick
        self.drain_time = drain_time
        self.live = live

        self.requests: Deque[Record] = collections.deque(maxlen=10000)
        self._server = Server()
        self._headlamp = Headlamp(self, self._server)
        for name in clusters:
            self._headlamp.add(name)

    # For tests

    def store(self, cluster: str = "demo") -> Store:
        return self._headlamp.clusters[cluster]

    def compact(self, cluster: str = "demo") -> None:
        """From now on, older resourceVersions and continue tokens of that cluster are expired."""
        self.store(cluster).compact()

    def drop_connections(self) -> None:
        """End every open watch without a word, as a server that dies does."""
        self._server.drop(lambda connection: connection.watching)

    # Running

    @property
    def url(self) -> str:
        scheme = "https" if self.ssl_context else "http"
        return "%s://%s:%d" % (scheme, self.host, self.port)

    def start(self) -> "DemoCluster":
        listener = self._server.listen(self.host, self.port, self._serve, self.ssl_context)
        self.port = listener.getsockname()[1]
        if self.live:
            life = Life(self._headlamp.clusters)
            self._server.spawn(lambda: life.run(self._server.stopping))
        return self

    def stop(self) -> None:
        """End everything; takes at most 2 s."""
        self._server.stop()

    def __enter__(self) -> "DemoCluster":
        return self.start()

    def __exit__(self, *unused: Any) -> None:
        self.stop()

    def _serve(self, connection: Connection) -> None:
        """One client, on a thread of its own."""
        while True:
            request = connection.read_request()
            cluster, handled = self._headlamp.handle(request)
            self.requests.append(Record(request.method, request.target, request.headers, cluster))
            connection.extra_headers = self._headlamp.take_reload() if cluster else ()

            if isinstance(handled, Answer):
                connection.send_answer(handled, request)
            else:
                handled(connection)
                if request.upgrades:
                    return
            if request.headers.get("connection", "").lower() == "close":
                return
