# SPDX-License-Identifier: Apache-2.0
"""What can be set about a demo cluster."""

from typing import Any, Dict, Iterable, Optional, Set, Union


class Settings:
    """Read by every part at the time of use, so that a test may change one while it runs."""

    def __init__(self) -> None:
        self.headlamp = "2026"
        self.version = "1.37"
        self.seed = True
        self.controllers = True
        self.tokens: Dict[str, Union[str, Iterable[str]]] = {}
        self.rights: Dict[str, Iterable[str]] = {}
        self.backend_token = ""
        self.dynamic_clusters = True
        self.cache = False
        self.check_host = False
        self.base_url = ""
        self.ssl_context: Any = None

        self.bookmark_interval = 60.0
        self.log_tick = 0.5
        self.drain_time = 0.3
        self.drain_kept = 0.0  # 0: as long as that age of Headlamp keeps a result
        self.min_token_seconds = 600

        self.stateless_ttl = 300.0  # of a kubeconfig that came with a request, at first
        self.stateless_again = 20.0  # and after each further use
        self.refreshed: Dict[str, str] = {}  # the token that an answer brings instead of another
        self.down: Set[str] = set()  # clusters whose API server does not answer
        self.plugins: Dict[str, str] = {"some plugin": "user"}  # and where each is

    @property
    def minor(self) -> int:
        """20 for Kubernetes 1.20."""
        return int(self.version.split(".")[1])

    @property
    def today(self) -> bool:
        """Whether Headlamp is today's, and not that of May 2024."""
        return self.headlamp == "2026"

    def accepted(self, cluster: str) -> Optional[Set[str]]:
        """The tokens that a cluster takes; None if it takes everybody."""
        tokens = self.tokens.get(cluster)
        if tokens is None:
            return None
        return {tokens} if isinstance(tokens, str) else set(tokens)
