# SPDX-License-Identifier: Apache-2.0
"""Mutants: does anything notice when the module is broken?

    python .ci/mutants.py [NAME...] [--jobs J] [--full]

Each mutant is the module with one text replaced by another, in a copy of the repository. What is named beside it has to
fail then: the simulation ("sim"), directed tests (for `pytest -k`), or both. The first row is the module as it is, which
has to pass. The simulation stops at the first seed that fails; with --full it goes on and the row says how many do. Exit status 1 when a mutant survives, 2 when one does not apply any more: its text has to be there once.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEEDS = 100
SIM = [".ci/simulate.py", str(SEEDS), "--jobs", "2", "--patience", "2", "--stop"]
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", "-k"]

# name: (what it is, text, its replacement, what has to notice). Those with a number are from the list of 14 that a watch has to be
# proof against. Its "no rewind probe" has no counterpart, since there is no probe: the relist now and then does its work.
MUTANTS = {
    # watching
    "resume-from-list": ("1: watch again from the version of the list", "if not is_older(version, self._version):", "if self._version is None:", "sim"),
    "swallow-error": ("2: ERROR events are passed over", '''if action == "ERROR":''', '''if action == "ERROR":
            return
        if False:''', "sim"),
    "wait-after-error": ("3: after a 410 event wait for the server to close", '''if code == 410 or reason in ("Expired", "Gone"):
                raise _Gone()''', '''if code == 410 or reason in ("Expired", "Gone"):
                self._version = None
                return''', "sim"),
    "ghosts": ("4: a relist merges", "fresh = {object_key(item): item for item in items}", '''fresh = {object_key(item): item for item in self._items}
        fresh.update({object_key(item): item for item in items})''', "sim"),
    "list-from-cache": ("5: lists with resourceVersion=0", "params = dict(self._list_params)", '''params = dict(self._list_params, resourceVersion="0")''', "sim"),
    "no-deadline": ("6: a watch may outlive its timeout", "end = min(opened + seconds + settings.watch_grace, self._resync_at)", "end = self._resync_at", "sim"),
    "no-backoff": ("7: try again at once", "return min(self._cap, self._base *", "return 0 * min(self._cap, self._base *", "sim"),
    "reset-on-101": ("8: a 101 resets the waits", '''heard = False
''', '''heard = False
        self._backoff.reset()
''', "sim"),
    "skip-corrupt": ("9: messages that can't be read are passed over", "for event in parse_events(socket.recv(end - time.monotonic())):", '''
                message = socket.recv(end - time.monotonic())
                try:
                    events = parse_events(message)
                except (ValueError, KeyError, TypeError):
                    events = []
                for event in events:''', "sim"),
    "trust-short": ("10: a watch that ended at once is resumed", "early = not heard and lasted < settings.short_watch", "early = False", "sim"),
    "reject-lower": ("11: a list of a lower version is refused", "items, version = self._fetch_all()", '''items, version = self._fetch_all()
        if self._version is not None and is_older(version, self._version):
            raise ApiError(200, "lower")''', "sim"),
    "no-resync": ("12: no relist now and then", "self._resync_at = time.monotonic() + self._settings.resync", "self._resync_at = 1e9 + self._settings.resync", "sim"),
    "ignore-http-410": ("13: a 410 to the handshake is a refusal as any other", '''if error.status == 410:
                raise _Gone() from error
            self._failed()''', "self._failed()", "sim"),
    "ignore-deleted": ("14: DELETED is passed over", '''if action == "DELETED":''', '''if action == "DELETED":
            return False
        if False:''', "sim"),
    "ignore-bookmarks": ("a BOOKMARK's version is not taken", "if not is_older(version, self._version):",
                         '''if action != "BOOKMARK" and not is_older(version, self._version):''', "dead_peer_is_found"),
    "no-guard": ("older events are applied", "if is_older(version, last or self._listed):", "if False:", ("sim", "collection_only_moves_forward")),
    "no-tombstones": ("deletions are forgotten at once", "self._deleted[key] = version", "pass", "sim"),
    "merge-event": ("an event changes the object that was shown", "self._items[index] = item  #", "self._items[index].update(item)  #", "sim"),
    "show-always": ("a relist is shown though nothing changed", '''if changed:
            self._show()''', "self._show()", "sim"),
    "limit-any": ("limit takes any objects", "return newest_first(item), old[1]", 'return "", old[1]', "sim"),
    "never-relist": ("three failures at one version change nothing", "if self._failures >= 3:", "if False:", "third_error_at_one_version"),
    "retry-after": ("Retry-After is passed over", "asked = min(error.retry_after or 0.0, self._settings.max_retry_after)", "asked = 0.0", "sim"),
    "no-rate": ("no limit of requests", "self._cancel.wait(self._rate.take())", "pass", "sim"),
    "loud-routine": ("a close without a code is an error", "(NORMAL, GOING_AWAY, NO_CODE, ABNORMAL, RESTART)", "(NORMAL, GOING_AWAY, ABNORMAL, RESTART)", "sim"),
    "silent-reset": ("a reset connection is a routine end", "closed.code not in ROUTINE or closed.__cause__", "closed.code not in ROUTINE", "sim"),
    "page-token": ("a token that goes round is followed", "if str(token) in tokens:", "if False:", "partial_list"),
    "inconsistent": ("a 410 between pages is an error", "if error.status == 410 and params.get(", "if error.status == 999 and params.get(", "sim"),
    "open-after-watch": ("the connection of a watch that ended stays open", '''            socket.abort()
            self._cancel.hold(None)
            lasted''', '''            self.__dict__.setdefault("kept", []).append(socket)
            self._cancel.hold(None)
            lasted''', "sim"),
    # cancelling
    "cancel-leaves-open": ("cancel closes nothing", '''super().set()
            if self._held is not None:''', '''super().set()
            if False:''', ("sim", "cancel_ends_every_stage")),
    "cancel-too-early": ("what is made after cancel is not closed", "if late and held is not None:", "if False:", "cancelled_before"),
    "cancel-no-shutdown": ("a socket is closed, but nobody woken", "sock.shutdown(how)", "pass", "sim"),
    "call-after-cancel": ("callbacks run after cancel", '''with self._gate:
            if not self._cancel.is_set():''', '''with self._gate:
            if True:''', "cancel_inside_a_callback"),
    "cancel-does-not-wait": ("cancel waits for nobody", "self.join(time.monotonic() + 0.9)", "pass", ("sim", "cancel_waits_for_a_running_callback")),
    "cancel-in-callback": ("cancel inside a callback waits for itself", '''if threading.current_thread() is self._thread:
            return''', "", "cancel_inside_a_callback"),
    "cancel-only-closes": ("cancel ends the connection, not the stream", '''super().set()
            if''', "if", "sim"),
    "exit-ends": ("a callback that raises SystemExit ends the stream", "except BaseException:  # SystemExit", "except Exception:  # SystemExit", "sim"),
    # WebSocket
    "no-mask": ("frames leave unmasked", "return apply_mask(payload, key, head + key)", "return head + key + bytes(payload)", ("sim", "big_message")),
    "any-accept": ("any Sec-WebSocket-Accept will do", '''== [accept]),''', '''!= []),''', "handshake_is_accepted"),
    "any-close-code": ("any close code is legal", "return 1000 <= code <= 1003 or", "return True or", "close_payload"),
    "no-pong": ("pings are not answered", "self._control_frame(PONG, payload)", "pass", "sim"),
    "no-silence-limit": ("a silent peer is never given up", "if now >= limit and self._pinged:", "if False:", "sim"),
    "life-ignored": ("octets that are no message are no sign of life", "self._silence, self._pinged = 0.0, False", "pass", "any_octet_is_a_sign_of_life"),
    "no-close-echo": ("a close frame is not answered", '''if not self._close_sent:
                        self._close_sent''', '''if False:
                        self._close_sent''', "close_beside_a_reader"),
    "any-size": ("no limit of a message", "if self._size + size > self._max_size:", "if False:", "illegal_frame"),
    "old-fragments": ("a fragmented message begins with the one before", "text, self._text = self._text.getvalue(), io.StringIO()", "text = self._text.getvalue()", "messages_are_the_same"),
    "bad-utf8": ("text need not be UTF-8", '''str(buffer[body:self._start], "utf-8")''', '''str(buffer[body:self._start], "utf-8", "replace")''', "illegal_frame"),
    "half-character": ("text may end within a character", '''"strict", done and self._fin)''', '''"strict", False)''', "illegal_frame"),
    "control-fragments": ("control frames may be fragmented", "0x88: CLOSE,", "0x88: CLOSE, 0x08: CLOSE, 0x09: PING,", "illegal_frame"),
    "interleaved": ("a message may begin inside another", "if bool(opcode) == bool(self._opcode):", "if not opcode and not self._opcode:", "illegal_frame"),
    "reserved-bits": ("reserved bits are passed over", "_FIRST_OCTETS.get(first)", "_FIRST_OCTETS.get(first & 0x8F)", "sim"),
}


def copy_of(folder, name):
    """A copy of the repository with one mutant in it; False when its text is not there once."""
    for part in ("test_apiproxy.py", "setup.cfg", "README.md", "examples", ".ci"):
        path = os.path.join(TOP, part)
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(folder, part))
        elif os.path.exists(path):
            shutil.copy(path, folder)
    with open(os.path.join(TOP, "apiproxy.py"), encoding="utf-8") as file:
        text = file.read()
    if name:
        _, old, new, _ = MUTANTS[name]
        if text.count(old) != 1:
            return False
        text = text.replace(old, new)
    with open(os.path.join(folder, "apiproxy.py"), "w", encoding="utf-8") as file:
        file.write(text)
    return True


def notices(folder, how, full):
    """What fails, in a word, or None."""
    command = [sys.executable] + (SIM[:-1] if how == "sim" and full else SIM if how == "sim" else PYTEST + [how])
    try:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600 if full else 120, env=dict(
            os.environ, PYTHONDONTWRITEBYTECODE="1"))
    except subprocess.TimeoutExpired:
        return "it hangs"
    text = done.stdout.decode("utf-8", "replace")
    if not done.returncode:
        return None
    found = re.search(r"^seed (\d+) FAILED: ([^\n;]*)", text, re.M) if how == "sim" else re.search(r"^FAILED \S+?::(\S+)", text, re.M)
    if not found:
        return "it ends with: " + text.strip()[-300:]
    if how != "sim":
        return found.group(1)
    count = "%d of %d seeds, " % (len(re.findall(r"^seed \d+ FAILED", text, re.M)), SEEDS) if full else ""
    return "%sseed %s: %s" % ((count,) + found.groups())


def trial(name, full):
    """(name, what noticed it, "" where nothing had to or did, seconds, whether all is well)."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if not copy_of(folder, name):
            return name, "DOES NOT APPLY", 0.0, None
        wanted = MUTANTS[name][3] if name else "sim"
        found = [notices(folder, how, full) for how in ([wanted] if isinstance(wanted, str) else wanted)]
    text = "; ".join("SURVIVES" if one is None else " ".join(one.split())[:90] for one in found)
    return name, text, time.monotonic() - begin, all(found) if name else not any(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants, all if none is named: " + " ".join(MUTANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="count the seeds that notice")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in MUTANTS]
    if unknown:
        parser.error("no such mutant: " + " ".join(unknown))
    begin, results = time.monotonic(), []
    names = [""] + (args.names or list(MUTANTS))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, text, seconds, well in pool.map(trial, names, [args.full] * len(names)):
            results.append((name, well))
            print("%-20s %-55s %5.1f s  %s" % (name or "(as it is)", MUTANTS[name][0] if name else "", seconds, text if name or not well else "passes"),
                  flush=True)
    lost = [name or "the module as it is fails" for name, well in results if well is False]
    stale = [name for name, well in results if well is None]
    print("%d mutants, %d killed, %.0f s%s%s" % (
        len(names) - 1, sum(well is True for name, well in results if name), time.monotonic() - begin,
        ", surviving: " + " ".join(lost) if lost else "", ", not applying: " + " ".join(stale) if stale else ""))
    return 2 if stale else 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
