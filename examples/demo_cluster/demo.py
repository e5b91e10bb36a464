# SPDX-License-Identifier: Apache-2.0
"""The server and its clusters, put together: DemoCluster."""

import collections
from typing import Any, Deque, Dict, Iterable, Optional, Union

from .connections import Answer, Connection, Record
from .headlamp import Headlamp
from .life import Life
from .resources import NEWEST, OLDEST
from .servers import Server
from .settings import Settings
from .store import Store


class DemoCluster(Settings):
    """A Headlamp server with clusters of its own; `with DemoCluster() as demo:` runs it.

    clusters           their names
    host, port         where to listen; port 0 is any that is free
    headlamp           which age of Headlamp: "2024" (May 2024) or "2026" (0.45)
    version            which Kubernetes, "1.20" to "1.37"
    seed               begin with nodes, deployments and pods, not with bare namespaces
    controllers        make pods for deployments, run pods, empty namespaces (controllers.py)
    tokens             {cluster: token or set of tokens}: who may ask; a cluster not in it is open
    rights             {token: verbs}: what a token may do that may not do everything; a verb is
                       "get", or "create pods/exec" for one resource
    backend_token      what X-HEADLAMP_BACKEND-TOKEN has to be. "": 2024 refuses everybody where it
                       wants one, 2026 wants none
    dynamic_clusters   serve /cluster, /parseKubeConfig and stateless clusters
    cache              2026: answer from a cache, faults included (response_cache.py)
    check_host         2026: refuse requests for another Host than this one
    base_url           2026 and 2024: a path such as "/headlamp" that all others are below
    ssl_context        serve https
    bookmark_interval  between the bookmarks of a watch
    log_tick           between the lines of a log that is followed
    drain_time         how long a drain takes
    live               change something every second or two

    Attributes that tests may set while it runs:

    refreshed          {token: next}: the token that the answer to a request with `token` brings
    down               names of clusters whose API server is out of reach
    plugins            {name: "user", "development" or "shipped"}
    drain_kept         how long the result of a drain is kept (20 s in 2026, 20 min in 2024)
    min_token_seconds  the shortest life of a service account's token (600)
    stateless_ttl, stateless_again
                       how long a kubeconfig that came with a request is remembered, at first (300)
                       and after each further use (20)
    """

    def __init__(
        self,
        clusters: Iterable[str] = ("demo",),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        headlamp: str = "2026",
        version: str = "1.37",
        seed: bool = True,
        controllers: bool = True,
        tokens: Optional[Dict[str, Union[str, Iterable[str]]]] = None,
        rights: Optional[Dict[str, Iterable[str]]] = None,
        backend_token: str = "",
        dynamic_clusters: bool = True,
        cache: bool = False,
        check_host: bool = False,
        base_url: str = "",
        ssl_context: Any = None,
        bookmark_interval: float = 60.0,
        log_tick: float = 0.5,
        drain_time: float = 0.3,
        live: bool = False,
    ) -> None:
        super().__init__()
        if headlamp not in ("2024", "2026"):
            raise ValueError("headlamp is 2024 or 2026, not %s" % headlamp)
        if version not in ["1.%d" % minor for minor in range(OLDEST, NEWEST + 1)]:
            raise ValueError("version is 1.%d to 1.%d, not %s" % (OLDEST, NEWEST, version))
        self.host, self.port = host, port
        self.headlamp, self.version = headlamp, version
        self.seed, self.controllers = seed, controllers
        self.tokens, self.rights = dict(tokens or {}), dict(rights or {})
        self.backend_token = backend_token
        self.dynamic_clusters = dynamic_clusters
        self.cache, self.check_host = cache, check_host
        self.base_url = base_url.rstrip("/")
        self.ssl_context = ssl_context
        self.bookmark_interval = bookmark_interval
        self.log_tick = log_tick
        self.drain_time = drain_time
        self.live = live

        self.requests: Deque[Record] = collections.deque(maxlen=10000)
        self._server = Server()
        self._headlamp = Headlamp(self, self._server)
        for name in clusters:
            self._headlamp.contexts.own(name)

    # For tests

    def store(self, cluster: str = "demo") -> Store:
        return self._headlamp.contexts.clusters[cluster]

    def compact(self, cluster: str = "demo") -> None:
        """From now on, older resourceVersions and continue tokens of that cluster are expired."""
        self.store(cluster).compact()

    def drop_connections(self) -> None:
        """End every open watch silently, as a server that dies does."""
        self._server.drop(lambda connection: connection.watching)

    def restart_headlamp(self) -> None:
        """What Headlamp knows is as after a restart: what its files have, and nothing else."""
        self._headlamp.contexts.restart()

    # Running

    @property
    def url(self) -> str:
        scheme = "https" if self.ssl_context else "http"
        return "%s://%s:%d%s" % (scheme, self.host, self.port, self.base_url)

    def start(self) -> "DemoCluster":
        listener = self._server.listen(self.host, self.port, self._serve, self.ssl_context)
        self.port = listener.getsockname()[1]
        if self.live:
            life = Life(self._headlamp.contexts.clusters)
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
            outcome = self._headlamp.handle(request, self.port)
            self.requests.append(
                Record(request.method, request.target, request.headers, outcome.cluster)
            )

            connection.extra_headers = outcome.headers
            if isinstance(outcome.handled, Answer):
                connection.send_answer(outcome.handled, request)
            else:
                outcome.handled(connection)
                if request.upgrades:
                    return
            if request.headers.get("connection", "").lower() == "close":
                return
