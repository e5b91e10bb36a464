# SPDX-License-Identifier: Apache-2.0
"""Lists, whole or in pages, and how they go wrong."""

import json

from .plan import LIST

PATH = "/api/v1/things"
JSON_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n")
NOT_FOUND = {
    "kind": "Status", "code": 404, "reason": "NotFound", "message": "gone",
    "details": {"name": "a"},
}


class Lists:
    """The answers to lists; `_pages` has the rest of those that were begun: {token: Rest}."""

    def __init__(self, server):
        self._server, self._pages = server, {}

    def answer(self, link, query, path):
        """One list, or one object."""
        server = self._server
        if server.now_out() == "503":
            server.refuse(link, "list", 503)
            return

        fault = server.fault("list")
        with server.stage.lock:
            if query.get("resourceVersion"):
                server.stage.problem("O6: a list with a resourceVersion")
            if path == PATH:
                status, page, fault = self._page(query, fault)
            else:
                status, page = self._item(path[len(PATH) + 1:])
        if status != 200:
            link.reply(status, page)
        else:
            self._send(link, page, self._at_this_moment(link, fault))

    def _item(self, name):
        item = self._server.store.state.get(name)
        return (200, dict(item)) if item else (404, NOT_FOUND)

    def _page(self, query, fault):
        """(status, page, the fault that is left to do)."""
        server, token = self._server, query.get("continue", "")
        items, version, harm = server.store.wanted(), str(server.store.version), ""
        if token.startswith("inconsistent"):
            items = items[1:]
        elif token:
            version, items, harm = self._pages[token]
            if harm == "page gone" or int(version) < server.store.window:
                return self._gone(token)

        metadata = {"resourceVersion": version}
        is_paged = fault.startswith("page") and not token
        size = int(query.get("limit", 0)) or (1 if is_paged else 0)
        if harm == "page again":
            server.stage.hit("list", harm, True)
            fault = ""
            metadata["continue"] = token
            self._pages[token] = (version, items, "")
        elif size and len(items) > size:
            metadata["continue"] = "t%d" % len(server.times)
            self._pages[metadata["continue"]] = (version, items[size:], fault)
            items = items[:size]
            if server.is_faulty:
                self._change_twice()

        if "continue" not in metadata:
            server.oracle.lost = False
        if token and fault == "odd version":
            fault = ""  # that of the first page counts
        bare = [{key: item[key] for key in item if key not in ("kind", "apiVersion")}
                for item in items]
        page = {"kind": "ThingList", "apiVersion": "v1", "metadata": metadata}
        page["items"] = None if fault == "null" and not bare else bare
        return 200, page, fault

    def _gone(self, token):
        self._server.stage.hit("list", "page gone", False)
        metadata = {"continue": "inconsistent-" + token}
        status = {"kind": "Status", "code": 410, "reason": "Expired", "metadata": metadata}
        return 410, status, ""

    def _change_twice(self):
        """Between the pages."""
        for _ in range(2):
            self._server.store.change(self._server.plan.chance.random())

    def _at_this_moment(self, link, fault):
        """The fault that is done, counted if it has not been."""
        server = self._server
        if LIST.get(fault, "S") == "S" or fault == "page again":
            return fault
        if fault in ("403", "404") and not server.oracle.views:
            fault = "500"  # they would be the end of it
        if not fault.isdigit():
            # A kept connection that ends before the answer may have ended before the question: it
            # is asked again, silently.
            server.stage.hit("list", fault, fault not in ("reset", "eof") or not link.served)
        return fault

    def _send(self, link, page, fault):
        data = json.dumps(page).encode()
        chunk = b"%x\r\n%s\r\n" % (len(data), data)
        if fault.isdigit():
            self._server.refuse(link, "list", int(fault), wait=True)
        elif fault == "Status":
            link.reply(200, {"kind": "Status", "metadata": {}, "status": "Success"})
        elif fault == "rows":
            link.reply(200, {"kind": "ThingList", "metadata": {}, "items": [["a", "b"]]})
        elif fault == "not JSON":
            link.reply(200, data[:-1])
        elif fault == "odd version":
            link.reply(200, dict(page, metadata={"resourceVersion": 7}))
        elif fault == "short":
            link.reply(200, data[:-5], length=len(data))
            link.end()
        elif fault == "cut chunk":
            link.send(JSON_HEAD + chunk[:-9])
            link.end()
        elif fault == "reset":
            link.reset()
        elif fault == "eof":
            link.send(b"HTTP/1.1 200 OK\r\nContent-")
            link.end()
        elif fault == "hang":
            link.linger()
        elif fault == "chunked":
            link.send(JSON_HEAD + chunk + b"0\r\n\r\n")
        else:
            link.reply(200, page)
            if fault == "closed after":
                link.end()
