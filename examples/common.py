# SPDX-License-Identifier: Apache-2.0
"""What the examples share: which cluster they are for, how they print, and how they end.

    --kubeconfig FILE   the current context of a kubeconfig, or the one that --context names
    --context NAME      a context of your kubeconfig; beside --url a cluster of that server
    --url ADDRESS       a Headlamp server or `kubectl proxy`; APIPROXY_TOKEN may have a token for it
    --demo              a demo cluster in this process, which is what they take when told nothing

Exit status: 0 done, 1 refused or failed, 2 called wrongly, 130 Ctrl-C before it was done, 141 when
nobody reads the output any more.
"""

import argparse
import calendar
import contextlib
import os
import shutil
import sys
import threading
import time
from typing import (
    Any, Callable, Dict, Generator, Iterator, List, NoReturn, Optional, Sequence, Tuple, Union,
    cast,
)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import apiproxy  # noqa: E402  (the copy beside this folder)

Args = argparse.Namespace
Cell = Union[str, int, Tuple[str, str]]  # text, or (text, colour)
BROKEN_PIPE = 141  # as a shell tells it of a program that SIGPIPE ended

# -- the command line


def options(*names: str, **defaults: Any) -> Args:
    """Positional `names`, all of which may be left out, and --options with their defaults."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        needed = None if name == "folder" else "only the demo cluster has one by default"
        parser.add_argument(name, nargs="?", help=needed)
    for name, default in defaults.items():
        flags = ["--" + name.replace("_", "-")] + ["-n"] * (name == "namespace")
        if default is False:
            parser.add_argument(*flags, action="store_true")
        else:
            shown = "default: %(default)s" if default else None
            kind = cast(Any, type(default))
            parser.add_argument(*flags, default=default, type=kind, help=shown)

    where = parser.add_argument_group("which cluster")
    where.add_argument("--kubeconfig", metavar="FILE", help="its current context, or --context")
    where.add_argument("--context", metavar="NAME", help="of a kubeconfig, or a cluster at --url")
    where.add_argument("--url", metavar="ADDRESS", help="of a Headlamp server, or `kubectl proxy`")
    where.add_argument("--demo", action="store_true", help="a demo cluster: the default")
    parser.add_argument("--seconds", type=float, help="end after so many")
    args = parser.parse_args()
    if args.demo and (args.kubeconfig or args.context or args.url):
        parser.error("--demo is not for use with another cluster")
    args.demo = not (args.kubeconfig or args.context or args.url)
    return args


@contextlib.contextmanager
def connect(
    args: Args, *clusters: str, **demo_settings: Any
) -> Generator[apiproxy.Client, None, None]:
    """The Client that the command line asks for, closed afterwards.

    clusters, demo_settings   for the demo cluster; the first of its clusters is the current one
    """
    with contextlib.ExitStack() as stack:
        if args.demo:
            from demo_cluster import DemoCluster

            asked = getattr(args, "clusters", "")
            names = asked.split(",") if asked else clusters or ("demo",)
            demo = stack.enter_context(DemoCluster(names, **demo_settings))
            client = apiproxy.Client(demo.url, cluster=names[0])
            if sys.stderr.isatty():
                warn(colour("dim", "a demo cluster in this process; --context NAME is for yours"))
        elif args.url:
            client = apiproxy.Client(args.url, cluster=args.context or "")
            if client.cluster:
                client.set_token(client.cluster, os.environ.get("APIPROXY_TOKEN"))
        else:
            client = apiproxy.Client.from_kubeconfig(args.kubeconfig, args.context)
        yield stack.enter_context(client)


def chosen_clusters(args: Args, client: apiproxy.Client, *demo: str) -> List[str]:
    """--clusters, else every context of the kubeconfig, else those of the demo."""
    names: List[str] = args.clusters.split(",") if args.clusters else list(client.endpoints)
    return names or list(demo if args.demo else [client.cluster])


def namespace_of(args: Args, client: apiproxy.Client) -> str:
    """--namespace, else the context's own, else "default"; in the demo that of its shop."""
    endpoint = client.endpoints.get(client.cluster)
    own = endpoint.namespace if endpoint else ""
    return args.namespace or own or ("demo-shop" if args.demo else "default")


def named(args: Args, key: str, client: apiproxy.Client, path: str) -> str:
    """The object that the command line names. Only in the demo there is one without a name."""
    name: Optional[str] = getattr(args, key)
    if name:
        return name
    names = [str(item["metadata"]["name"]) for item in listed(client, path)]
    if args.demo and names:
        return names[-1]
    fail("which %s? There are: %s" % (key, ", ".join(names[:20]) or "none"), 2)


# -- what is printed

COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34",
           "magenta": "35", "cyan": "36"}
IS_TERMINAL = sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
PLAIN = not IS_TERMINAL or "NO_COLOR" in os.environ
printing = threading.Lock()  # callbacks print on their streams' threads


def colour(name: str, text: Any) -> str:
    """`text` in a colour, where the terminal has any."""
    return str(text) if PLAIN else "\033[%sm%s\033[0m" % (COLOURS[name], text)


def say(text: Any, end: str = "\n") -> None:
    """Print, from any thread; when nobody reads it any more, the program ends."""
    try:
        with printing:
            print(printable(str(text)), end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it ends
        finish(BROKEN_PIPE)


def printable(text: str) -> str:
    """`text` as the terminal can show it."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)


def warn(text: Any) -> None:
    """One line on stderr."""
    with printing, contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def draw(lines: Sequence[str]) -> None:
    """Show `lines` in place of those before, cut to the window; without a terminal, below them."""
    if not IS_TERMINAL:
        return say("\n".join(lines))
    room = shutil.get_terminal_size().lines - 1
    more = [colour("dim", "and %d more" % (len(lines) - room + 1))] if len(lines) > room else []
    say("\033[H\033[J" + "\n".join(list(lines[:room - len(more)]) + more))


def glyphs(fancy: str, plain: str) -> str:
    """`fancy` where the terminal can show it, else `plain`."""
    return fancy if printable(fancy) == fancy else plain


def bar(part: float, whole: float, width: int = 20) -> str:
    """How much of `whole` is there, as a bar."""
    full, empty = glyphs("█", "#"), glyphs("░", ".")
    filled = round(width * min(1.0, part / whole)) if whole else 0
    shade = "green" if part >= whole else "yellow"
    return colour(shade, full * filled) + colour("dim", empty * (width - filled))


def table(rows: Sequence[Sequence[Cell]], heads: Sequence[str]) -> List[str]:
    """`rows` in columns under `heads`."""
    everything: List[Sequence[Cell]] = [[(head, "dim") for head in heads]]
    cells = [[cell if isinstance(cell, tuple) else (str(cell), "") for cell in row]
             for row in everything + list(rows)]
    widths = [max(len(row[column][0]) for row in cells) for column in range(len(heads))]
    lines: List[str] = []
    for row in cells:
        padded = [(text.ljust(width), shade) for (text, shade), width in zip(row, widths)]
        lines.append("  ".join(colour(shade, text) if shade else text for text, shade in padded))
    return [line.rstrip() for line in lines]


def age(item: Any) -> str:
    """How old an object is, as kubectl says it."""
    made = item["metadata"].get("creationTimestamp")
    if not made:
        return "?"
    born = calendar.timegm(time.strptime(made[:19], "%Y-%m-%dT%H:%M:%S"))
    seconds = max(0, int(time.time() - born))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return "%d%s" % (seconds // size, unit)
    return "%ds" % seconds


# -- how a program ends

over = threading.Event()  # a callback, or `say`, wants the program to end
_status: List[int] = []  # with this exit status: the first that was asked for


def finish(status: int = 0) -> None:
    """End the program: at once from its main thread, else where that waits (see `wait`)."""
    _status.append(status)
    over.set()
    if threading.current_thread() is threading.main_thread():
        raise SystemExit(_status[0])


def fail(text: str, status: int = 1) -> NoReturn:
    """End with one line that says why."""
    warn("%s: %s" % (os.path.basename(sys.argv[0]), text))
    sys.exit(status)


def trouble(error: apiproxy.ApiError, cancel: Callable[[], None]) -> None:
    """The error callback of all examples: one line; what asking again can't mend ends it."""
    warn("%s: %s" % (os.path.basename(sys.argv[0]), error))
    if error.status in (400, 401, 403, 404, 405, 406, 422):
        finish(1)


def wait(seconds: Optional[float] = None, event: Optional[threading.Event] = None) -> bool:
    """Until `event` is set, or for `seconds`, else for ever; whether it is set.

    Callbacks run meanwhile. In slices: on some systems Ctrl-C does not end a long wait.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while not (event and event.is_set()) and (end is None or time.monotonic() < end):
        if over.wait(0.05 if event else 0.2):
            raise SystemExit(_status[0])
    return bool(event and event.is_set())


def until_ctrl_c(seconds: Optional[float] = None) -> None:
    """As `wait`, for what goes on until it is told to end: Ctrl-C is no failure then."""
    with contextlib.suppress(KeyboardInterrupt):
        wait(seconds)


def cli(main: Callable[[], Any]) -> None:
    """Run an example; what goes wrong is one line, not a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except (apiproxy.ApiError, ValueError, OSError, OverflowError) as error:
        fail(str(error))


# -- what kinds of objects there are


def root(api_version: str) -> str:
    """Where an API begins: "v1" is at /api/v1, "apps/v1" at /apis/apps/v1."""
    return ("/apis/" if "/" in api_version else "/api/") + api_version


def resources(client: apiproxy.Client, api_version: str) -> List[Dict[str, Any]]:
    """What discovery says of the kinds in one API, subresources left out."""
    found = client.request(root(api_version))["resources"]
    return [resource for resource in found if "/" not in resource["name"]]


def resource_of(client: apiproxy.Client, body: Any) -> Dict[str, Any]:
    """What discovery says of the kind of an object; ValueError when the server has no such.

    It is asked twice: what a definition of a moment ago brings is not there yet.
    """
    for wait in (0.5, 0.0):
        try:
            found = resources(client, body["apiVersion"])
        except apiproxy.ApiError as error:
            if error.status != 404:
                raise
            found = []
        for resource in found:
            if resource["kind"] == body["kind"]:
                return resource
        over.wait(wait)
    raise ValueError("the server has no %(kind)s in %(apiVersion)s" % body)


def get(client: apiproxy.Client, path: str) -> Dict[str, Any]:
    """An object; {} without one."""
    try:
        found: Dict[str, Any] = client.request(path)
        return found
    except apiproxy.ApiError as error:
        if error.status == 404:
            return {}
        raise


def without(mapping: Dict[str, Any], *keys: str) -> Dict[str, Any]:
    """A copy of `mapping` that lacks these keys."""
    return {key: value for key, value in mapping.items() if key not in keys}


def owners_part(item: Dict[str, Any]) -> Dict[str, Any]:
    """An object without what the server writes into it."""
    metadata = without(item["metadata"], "managedFields", "resourceVersion", "generation", "uid",
                       "creationTimestamp", "selfLink")
    return {**without(item, "status"), "metadata": metadata}


def manifests(args: Args) -> List[Any]:
    """The objects in the file or folder that is named, those in Lists one by one; namespaces first.

    In the demo the folder beside this file has some.
    """
    path: str = args.path or args.demo and os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "manifests") or fail("which path?", 2)
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
             if name.endswith((".yaml", ".yml", ".json"))]
    objects: List[Any] = []
    for name in sorted(files) if os.path.isdir(path) else [path]:
        with open(name, "rb") as file:
            text = file.read()
        try:
            for body in filter(None, apiproxy.read_yaml(text)):
                for item in body["items"] if body["kind"] == "List" else [body]:
                    if not {"apiVersion", "kind", "metadata"} <= set(item):
                        raise KeyError
                    objects.append(item)
        except (KeyError, TypeError):
            raise ValueError(name + ": apiVersion, kind or metadata is missing") from None
        except ValueError as error:
            raise ValueError("%s: %s" % (name, error)) from None
    return sorted(objects, key=lambda body: bool(body["kind"] != "Namespace"))


def all_resources(client: apiproxy.Client) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """(apiVersion, what discovery says) of each kind that the server has."""
    groups = client.request("/apis")["groups"]
    for version in ["v1"] + [group["preferredVersion"]["groupVersion"] for group in groups]:
        for resource in resources(client, version):
            # out of use, so that servers warn; what they show is elsewhere too
            if resource["name"] != "endpoints" and version != "extensions/v1beta1":
                yield version, resource


def listed(client: apiproxy.Client, path: str, query: Any = None) -> List[Any]:
    """The objects of a collection, as they are now."""
    items: List[Any] = client.request(path, query_params=query)["items"] or []
    return items


def collection(api_version: str, resource: Dict[str, Any], namespace: str = "") -> str:
    """The path of a collection; of one namespace where the resource has them."""
    space = "/namespaces/" + namespace if resource["namespaced"] and namespace else ""
    return "%s%s/%s" % (root(api_version), space, resource["name"])
