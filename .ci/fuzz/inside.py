# SPDX-License-Identifier: Apache-2.0
"""All that fuzzing knows of the module's inside, in one place.

Beside its public names it uses MessageReader and parse_close (part 4, in frames.py), and here:

    Wire         read, write, wait, end_writing and close, which Line has instead; Wire.open
    Watch        and ItemWatch: made with what stands in for a Transport, and run in this thread
    Transport    settings, tasks, send and connect, which are what a watch uses of it
"""

import collections

import apiproxy

MAX_HEAD = apiproxy.MAX_HEAD
NOTHING = "nothing comes"  # what our time-outs say
ENDS, STAYS, RESETS = range(3)  # what a connection does when nothing more is to come
MAX_BODY = 200000  # the client's limit, in bytes

# -- connections


class Line(apiproxy.Wire):
    """A connection without a socket.

    answer  answer(request) gives the pieces of bytes that answer it, delivered in order
    end     what comes when nothing more is to come: ENDS, STAYS or RESETS
    gone    whether the module has closed it
    """

    def __init__(self, answer, end=ENDS):
        self._answer, self.end, self.gone = answer, end, False
        self._pieces, self._at = collections.deque(), 0
        self._sent = b""
        self.taken = 0.0  # see Wire

    def read(self, space):
        """See Wire.read."""
        if self.gone:
            raise ConnectionAbortedError("closed here")
        if self._sent:
            sent, self._sent = self._sent, b""
            self._pieces.extend(self._answer(sent))
        return self._deliver(space) if self._pieces else self._nothing_more()

    def _deliver(self, space):
        piece = self._pieces[0]
        count = min(len(space), len(piece) - self._at)
        space[:count] = piece[self._at:self._at + count]
        self._at += count
        if self._at == len(piece):
            self._pieces.popleft()
            self._at = 0
        return count

    def _nothing_more(self):
        if self.end == RESETS:
            raise ConnectionResetError("reset")
        return None if self.end == STAYS else 0

    def write(self, data):
        """See Wire.write."""
        if self.gone:
            raise ConnectionAbortedError("closed here")
        self._sent += data
        return True

    def wait(self, seconds, write=False):
        """Nothing more will come: the time is over at once."""
        raise TimeoutError(NOTHING)

    def end_writing(self):
        """Then the peer ends it too."""
        self.end = ENDS

    def close(self):
        """See Wire.close."""
        self.gone = True


class Lines:
    """In the place of Wire.open: the connections that a case wants, in order."""

    def __init__(self):
        self.make, self.opened = None, []

    def open(self, *_args, **_kwargs):
        """A new Line."""
        self.opened.append(self.make(len(self.opened)))
        return self.opened[-1]

    def reset(self, make):
        """For a new case: make(index) gives its lines."""
        self.make, self.opened = make, []


LINES = Lines()


class Patched:
    """While a case runs, connections are Lines and nothing is logged."""

    def __enter__(self):
        self._open, self._disabled = apiproxy.Wire.__dict__["open"], apiproxy.log.disabled
        apiproxy.Wire.open = LINES.open
        apiproxy.log.disabled = True

    def __exit__(self, *_):
        apiproxy.Wire.open = self._open
        apiproxy.log.disabled = self._disabled


# -- clients

# No waits, and no limit of requests: a watch of a case is cancelled after a few of them.
QUICK = dict(
    retry_base=0.0, retry_cap=0.0, burst=1000000, rate=1e9, max_retry_after=0.0, short_watch=0.0,
    close_timeout=0.0, connect_timeout=None)


def new_client(**settings):
    """A Client of a cluster "c" that is reached without proxies."""
    client = apiproxy.Client("", cluster="c", max_body=MAX_BODY, list_idle=1.0, **settings)
    client.add_endpoint("c", apiproxy.Endpoint("http://fuzz.invalid", proxy=""))
    return client


# What a Watch reads of its settings; the second distrusts watches that were short.
SETTINGS = (
    apiproxy.Client("", **QUICK),
    apiproxy.Client("", **dict(QUICK, short_watch=5.0, retry_reset=0.0)),
)


# -- watches


class Scripted:
    """What a watch is handed in place of a Transport: each list and each watch is the script's.

    Of the script it uses listed() and watched(version), called before either, page(path, goes_on)
    and open(), which give them, and `settings`.
    """

    def __init__(self, script):
        self._script, self.settings, self.tasks = script, script.settings, {}

    def send(self, method, path, cluster="", *, params=None, **_):
        """See Transport.send: the answer to a list."""
        self._script.listed()
        _check_query(path, params)
        status, body = self._script.page(path, "continue" in params)
        answer = apiproxy.Response(status, "Reason", {}, body)
        if not answer.ok:
            raise answer.error()
        return answer

    def connect(self, cluster, path, params, scope, protocols=()):
        """See Transport.connect: what of a WebSocket a watch uses."""
        self._script.watched(params["resourceVersion"])
        _check_query(path, params)
        return self._script.open()


def _check_query(path, params):
    """As a real client does before it sends: what can't be sent is an ApiError."""
    try:
        apiproxy.with_query(path, params)
    except ValueError as error:
        raise apiproxy.ApiError(0, str(error)) from error


class Counted:
    """A real client's Transport, whose connections are Lines; the script hears what is asked."""

    def __init__(self, script, client):
        self._script, self._transport = script, transport_of(client)
        self.settings, self.tasks = client, {}

    def send(self, *args, **kwargs):
        """See Transport.send."""
        self._script.listed()
        return self._transport.send(*args, **kwargs)

    def connect(self, cluster, path, params, scope, protocols=()):
        """See Transport.connect."""
        self._script.watched(params["resourceVersion"])
        return self._transport.connect(cluster, path, params, scope, protocols)


def transport_of(client):
    """The Transport of a Client."""
    return client._transport


def new_watch(transport, paths, name, cb, err_cb, params, on_path):
    """A Watch of a collection, or of one object where there is a name; not started."""
    if name is None:
        return apiproxy.Watch(transport, "c", paths, cb, err_cb, params, on_path)
    params = dict(params, limit=None)
    return apiproxy.ItemWatch(transport, "c", paths, name, cb, err_cb, params, on_path)


def run_watch(watch):
    """Do here what its thread does, to its end."""
    watch._run()


def is_cancelled(watch):
    """Whether it was cancelled, and did not end by itself."""
    return watch.scope.cancelled


def object_key(item):
    """What tells an object from others in a view."""
    return apiproxy.object_key(item)
