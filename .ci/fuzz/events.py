# SPDX-License-Identifier: Apache-2.0
"""Events: a watch tells ApiErrors, never ends by itself, and shows what it was legally told."""

import json

import apiproxy
from wire import accept_key, frame

from . import inside
from .answers import EVIL_ANSWERS, STATUS, chunked
from .chance import mutate, pick, pieces
from .frames import CODES, EVIL_FRAMES
from .inside import LINES, Line
from .outcome import Wrong

EVIL_JSON = [
    b"null", b"true", b"[]", b"{}", b'""', b"0", b"-1", b"1e999", b"NaN", b'"\\ud800"', b'"9"',
    b'"' + b"9" * 4400 + b'"', b"9" * 4400, b"[" * 50000, b'{"a":' * 400, b'"metadata"',
    b'"resourceVersion"', b'"uid"', b'"object"', b'"items"', b'"continue"', b'"kind"', b",", b":",
    b"}", b"]", b'"', b"\\", b"\0", b"\xff", b"\r\n", b'"ERROR"', b'"BOOKMARK"', b'"DELETED"',
    b'"Status"', b'"Table"', b"410", b'"Expired"', '"٣"'.encode(), b'"code"',
    b'"details":{"retryAfterSeconds":"x"}', b"\xef\xbb\xbf",
]
ODD = [
    None, True, 0, -1, 1.5, "", "x", "7", "9" * 4400, "\ud800", "a b", "a&b=c#", "\0", "٣",
    [], [1], {}, {"a": 1}, float("nan"), [[]],
]
CLOSES = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000]
REFUSALS = (410, 429, 500, 504, 403, 404, 301)
FINAL = (400, 401, 403, 404, 405, 406, 422)  # of the first list: they end a watch
CHANGES = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
NAME = "n1"  # of the object that is watched alone


def odd(chance, value):
    """`value` with one thing in it, at any depth, replaced, taken out or added."""
    value = json.loads(json.dumps(value))
    at = value
    for _ in range(6):
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = pick(chance, keys)
        goes_on = isinstance(at[key], (dict, list)) and at[key] and chance.random() < 0.8
        if goes_on:
            at = at[key]
            continue

        if chance.random() < 0.25 and isinstance(at, dict):
            del at[key]
        else:
            at[key] = pick(chance, ODD)
        break
    return value


def is_readable(text):
    """Whether a watch may go on after a message: False only when it surely may not."""
    if isinstance(text, bytes):
        return False
    try:
        return _is_event(json.loads(text))
    except RecursionError:
        return False
    except ValueError:
        return True  # perhaps several


def _is_event(event):
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        return False
    if event.get("type") == "ERROR":
        return True

    metadata = event["object"].get("metadata")
    if event.get("type") not in CHANGES or not isinstance(metadata, dict):
        return False
    version = metadata.get("resourceVersion")  # aggregated APIs leave it out
    return version is None or isinstance(version, str) and version != ""


# -- the other side


class Truth:
    """The objects that there are, and how they change."""

    def __init__(self, chance):
        self._chance = chance
        self.version, self._serial = 100, 0
        self.objects = {}  # by name

    def change(self):
        """One object is made, changed or deleted: the event."""
        self.version += 1
        name = "n%d" % int(self._chance.random() * 4)
        known, kind = self.objects.get(name), self._chance.random()
        if known and kind < 0.4:
            del self.objects[name]
            metadata = dict(known["metadata"], resourceVersion=str(self.version))
            return {"type": "DELETED", "object": dict(known, metadata=metadata)}

        self._serial += not known
        uid = known["metadata"]["uid"] if known else "u%d" % self._serial
        self.objects[name] = {"kind": "Pod", "apiVersion": "v1", "metadata": {
            "name": name, "uid": uid, "resourceVersion": str(self.version),
            "creationTimestamp": "2020-01-01T00:00:%02dZ" % (self.version % 60)}}
        return {"type": "MODIFIED" if known else "ADDED", "object": self.objects[name]}

    def bookmark(self):
        """An event that says how far the watch is."""
        metadata = {"resourceVersion": str(self.version)}
        return {"type": "BOOKMARK", "object": {"metadata": metadata}}

    def page(self):
        """A whole list; its items are bare, as the API server lists them."""
        items = [
            {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}
            for item in self.objects.values()]
        metadata = {"resourceVersion": str(self.version)}
        return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}


class Script:
    """What a watch meets: bodies of lists, and messages of watches."""

    def __init__(self, chance):
        self.chance, self.watch = chance, None
        self.settings = self.some_settings()
        self.truth = Truth(chance)
        self.rest = None  # the second page of a list
        self.sent = []  # legal events so far
        self.resume = 0  # while it is clean: the version to go on from
        self.left = 2 + int(chance.random() * 5)  # requests until it is cancelled
        self.must_list = False  # what came last can't be read
        self.clean = True  # nothing was spoilt since the last list
        self.listed_well = True  # that list was not spoilt: it has no object twice

    def some_settings(self):
        """What the watch reads of its settings."""
        return pick(self.chance, inside.SETTINGS)

    def transport(self):
        """What the watch is handed."""
        return inside.Scripted(self)

    # -- what it counts

    def listed(self):
        """A list begins; the last request ends the watch."""
        self._count()
        self.must_list = False

    def watched(self, version):
        """A watch begins."""
        self._count()
        if self.must_list:
            raise Wrong("went on after what can't be read")
        if self.clean and version != str(self.resume):
            raise Wrong("went on from %s, not %d" % (version, self.resume))

    def _count(self):
        self.left -= 1
        if self.left < 0:
            self.watch.cancel()
            raise apiproxy.ApiError(502, "cancelled")

    # -- what it answers

    def open(self):
        """What of a WebSocket a watch uses."""
        if self.chance.random() < 0.1:
            self.clean = False
            status = pick(self.chance, (0, 403, 410, 429, 500))
            raise apiproxy.HandshakeError(status, "no")
        return Messages(self)

    def page(self, path, goes_on):
        """(status, body) of a list or of the rest of one, or of the object NAME."""
        single = path.endswith("/" + NAME)
        rand = self.chance.random
        if goes_on and self.rest:
            page, self.rest, self.clean = self.rest, None, True
            return 200, page

        for _ in range(int(rand() * 3)):
            self.truth.change()
        while single and NAME not in self.truth.objects:
            self.truth.change()
        page = self.truth.page()
        self.resume = self.truth.version
        if single:
            page = json.loads(json.dumps(self.truth.objects[NAME]))
            self.resume = int(page["metadata"]["resourceVersion"])
        return self._spoil_page(page, single, goes_on)

    def _spoil_page(self, page, single, goes_on):
        rand = self.chance.random
        kind, status = rand(), 200
        self.clean = self.listed_well = kind < 0.5 and not goes_on
        if kind < 0.1 and len(self.truth.objects) > 1 and not single and not goes_on:
            self._split_page(page)
        elif kind < 0.5:
            if not page.get("items", 1) and rand() < 0.5:
                page["items"] = None
        elif kind < 0.55:
            token = "same" if goes_on else pick(self.chance, ODD + ["same"] * 10)
            page["metadata"]["continue"] = token
        elif kind < 0.8:
            page = odd(self.chance, page)
        elif kind < 0.9:
            status = pick(self.chance, REFUSALS)
            page = pick(self.chance, (STATUS, {}, [], odd(self.chance, STATUS)))

        body = json.dumps(page).encode()
        if kind >= 0.9:
            body = mutate(self.chance, body, EVIL_JSON, b'{"kind":"Status"}')
        return status, body

    def _split_page(self, page):
        """All but the first item come later, as of a later version."""
        metadata = {"resourceVersion": str(self.truth.version + 7)}
        self.rest = json.dumps({**page, "metadata": metadata, "items": page["items"][1:]}).encode()
        page["metadata"]["continue"] = "more"
        page["items"] = page["items"][:1]
        self.clean = False

    def messages(self):
        """What a watch sends before it ends: (message, whether it can't be read)."""
        rand = self.chance.random
        for _ in range(int(rand() * 5)):
            event, kind = self.truth.change(), rand()
            if kind < 0.7:
                self.sent.append(json.dumps(event) + "\n")
                self.resume = self.truth.version
                yield self.sent[-1], False
                if kind < 0.1:  # replays change nothing
                    yield pick(self.chance, self.sent), False
            elif kind < 0.75:
                between = pick(self.chance, ("", " \r\n", "\n"))
                text = json.dumps(event) + between + json.dumps(self.truth.change(), indent=1)
                self.resume = self.truth.version
                yield text, False
            elif kind < 0.8:
                yield json.dumps(self.truth.bookmark()), False
                self.clean = False  # it skipped a change
            elif kind < 0.81:
                self.clean = False
                yield json.dumps({"type": "ERROR", "object": STATUS}), True  # a 410
                return
            else:
                self.clean = False
                text = self._spoil_event(event, kind)
                yield text, not is_readable(text)

    def _spoil_event(self, event, kind):
        if kind < 0.83:
            status = pick(self.chance, (STATUS, {}, odd(self.chance, STATUS)))
            return json.dumps({"type": "ERROR", "object": status})
        if kind < 0.92:
            return json.dumps(odd(self.chance, event))

        data = mutate(self.chance, json.dumps(event).encode(), EVIL_JSON, b'{"type":"ADDED"}')
        text = data.decode("utf-8", "surrogateescape")
        is_text = self.chance.random() < 0.95
        return text if is_text else text.encode("utf-8", "surrogateescape")


class Messages:
    """What a script's `open` gives: what of a WebSocket a watch uses."""

    def __init__(self, script):
        self._script, self._messages = script, script.messages()

    def recv(self, timeout=None):
        """See WebSocket.recv."""
        script = self._script
        if script.must_list:
            raise Wrong("read on after what can't be read")
        for message, script.must_list in self._messages:
            return message

        kind = script.chance.random()
        if kind < 0.2:
            raise TimeoutError("no message in time")
        if kind < 0.3:
            script.must_list = True
            raise apiproxy.ProtocolError(1007, "text is not UTF-8")
        raise apiproxy.ConnectionClosed(pick(script.chance, CLOSES))

    def abort(self):
        """See WebSocket.abort."""


class WireScript(Script):
    """The same through a real Client, as bytes on Lines."""

    def some_settings(self):
        """Those of the client."""
        pick(self.chance, inside.SETTINGS)
        self._client = inside.new_client(**inside.QUICK)
        LINES.reset(lambda index: Line(self.answer))
        return self._client

    def transport(self):
        """The client's, with what goes through it counted."""
        return inside.Counted(self, self._client)

    def answer(self, request):
        """The pieces that answer a request; the connection ends after them."""
        if b"HTTP/1.1" not in request:
            return []
        is_watch = b"Sec-WebSocket-Key" in request
        data = self._watch_bytes(request) if is_watch else self._list_bytes(request)
        if self.chance.random() < 0.15:
            self.clean, self.listed_well, self.rest = False, False, None
            data = mutate(self.chance, data, EVIL_JSON + EVIL_FRAMES + EVIL_ANSWERS)
        return pieces(self.chance, data)

    def _list_bytes(self, request):
        line = request.split(b"\r", 1)[0]  # GET /path?query HTTP/1.1
        path = line.split(b" ")[1].split(b"?")[0].decode("latin-1")
        status, body = self.page(path, b"continue=" in line)
        framing = b"Content-Length: %d" % len(body)
        if self.chance.random() < 0.5:
            framing, body = b"Transfer-Encoding: chunked", chunked(self.chance, body)
        return b"HTTP/1.1 %d Reason\r\n%s\r\n\r\n%s" % (status, framing, body)

    def _watch_bytes(self, request):
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r")[0]
        data = (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: base64.binary.k8s.io\r\n\r\n"
            % accept_key(key.decode()).encode())
        for message, _ in self.messages():
            is_text = isinstance(message, str)
            payload = message.encode("utf-8", "surrogatepass") if is_text else message
            data += frame(1 if is_text else 2, payload)
        code = frame(8, pick(self.chance, CODES).to_bytes(2, "big"))
        return data + pick(self.chance, (b"", frame(8, b""), code))


# -- a case


class Views:
    """The callbacks of a watch, and what was wrong with what they got."""

    def __init__(self, script, single, limit):
        self._script, self._single, self._limit = script, single, limit
        self.wrong, self.errors, self.shown = [], [], None

    def cb(self, items):
        """A view, or an object."""
        items = [items] if self._single else items
        if not isinstance(items, list) or self._limit and len(items) > self._limit:
            self.wrong.append("a view of %r" % (items,))
        try:
            keys = [inside.object_key(item) for item in items]
            keys = [key for key in keys if key == key]  # but for NaN
            is_twice = len({repr(key) for key in keys}) != len(keys)
            if is_twice and self._script.listed_well:
                self.wrong.append("an object twice: %r" % keys)
        except Exception as error:
            self.wrong.append("a view of %r: %r" % (items, error))
        self.shown = items

    def err_cb(self, error, cancel):
        """An error, once for each failed attempt."""
        if not isinstance(error, apiproxy.ApiError):
            self.wrong.append("err_cb(%r)" % error)
        str(error)
        self.errors.append(error.status)


def case(chance):
    """One case of a Watch, from the first list until it is cancelled."""
    script = (WireScript if chance.random() < 0.1 else Script)(chance)
    single = chance.random() < 0.15
    limit = pick(chance, (None, None, None, 2))
    params = {"limit": limit, "timeoutSeconds": pick(chance, (None, None, "5"))}
    paths = ["/apis/a/v1/pods", "/apis/a/v1beta1/pods"][:pick(chance, (1, 2))]

    views, worked = Views(script, single, limit), []
    script.watch = inside.new_watch(
        script.transport(), paths, NAME if single else None, views.cb, views.err_cb, params,
        worked.append)
    requests = script.left
    inside.run_watch(script.watch)

    if views.wrong:
        raise Wrong("; ".join(views.wrong))
    if worked[1:]:
        raise Wrong("found twice: %r" % worked)
    is_refused = views.errors and views.errors[-1] in FINAL
    if not inside.is_cancelled(script.watch) and not is_refused:
        raise Wrong("it ended by itself, errors %r" % views.errors)

    is_clean = script.clean and script.left < 0 and requests > 2
    if is_clean and not single and not limit and views.shown is not None:
        _check_view(views.shown, script.truth.objects.values())
        return "right"
    return "errors" if views.errors else "no errors"


def _check_view(shown, objects):
    view, truth = (
        {item["metadata"].get("uid"): item["metadata"].get("resourceVersion") for item in items}
        for items in (shown, objects))
    if view != truth:
        raise Wrong("the view is %r, not %r" % (view, truth))
