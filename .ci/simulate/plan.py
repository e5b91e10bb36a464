# SPDX-License-Identifier: Apache-2.0
"""What will happen in one play: all of it from the seed."""

import random

# The faults and their classes: S, err_cb stays silent; E, err_cb is called once; e, it is called
# once over TLS, or where the watch before ended without an event, too; ?, it depends on the moment.
LIST = {
    "pages": "S", "null": "S", "chunked": "S", "closed after": "S", "page gone": "S",
    "page again": "E", "500": "E", "503": "E", "429": "E", "403": "E", "404": "E", "Status": "E",
    "rows": "E", "not JSON": "E", "odd version": "E", "short": "E", "cut chunk": "E",
    "reset": "E", "eof": "E", "hang": "?",
}
WATCH = {
    "replay": "S", "410": "S", "bookmark": "S", "dribbled": "S", "glued": "S", "zombie": "S",
    "200": "E", "302": "E", "400": "E", "401": "E", "403": "E", "404": "E", "405": "E", "429": "E",
    "500": "E", "503": "E", "accept": "E", "extension": "E", "protocol": "E",
    "closed at once": "e", "ended at once": "e", "reset": "E", "eof": "E", "mute": "?", "dead": "?",
}
EVENT = {
    "twice": "S", "older": "S", "bookmark": "S", "pretty": "S", "joined": "S", "fragments": "S",
    "bytes": "S", "ping": "S", "close 1000": "S", "close 1001": "S", "close 1012": "S",
    "close": "S", "eof": "e", "half": "e", "410": "S", "410 open": "S", "410 reason": "S",
    "compact": "S", "drop": "S", "zombie": "S", "500": "E", "429": "E", "504": "E", "no code": "E",
    "not JSON": "E", "half JSON": "E", "binary": "E", "not UTF-8": "E", "null": "E",
    "no object": "E", "no metadata": "E", "type": "E", "masked": "E", "rsv": "E", "opcode": "E",
    "long ping": "E", "continuation": "E", "length": "E", "close 1011": "E", "close 1013": "E",
    "close 1 byte": "E", "close reason": "E", "reset": "E", "dead": "?",
}
NETWORK = (
    "reset", "end", "refuse", "drop up", "drop down", "drop both", "stall up", "stall down",
    "stall both", "throttle", "cut", "cut rst", "rewind",
)
OUTAGES = ("503", "error", "closed", "flap")

# What needs the right moment to do harm is drawn four times as often.
RARE = ("older", "drop", "replay", "dead")

FOREVER = 1e6  # seconds: what does not happen in a play


class Plan:
    """One play: what is watched and how, and which request, event or moment meets which fault.

    family      whose faults: "silent" (the server's, of which err_cb hears nothing), "server", or
                "network"
    kind        what is watched: "list", "selector", "limit", or "item"
    settings    of the Client, times a hundredth or so of the real ones
    faults      {"list" | "watch" | "event": the fault of the first, the second, ... of them, or ""}
    actions     [(seconds, name, how)]: what happens by itself
    last        an action after all the others, or None
    cancel      when: "end", "early", or "inside" a callback; cancel_at is the time, or the view
    moods       what callbacks do, in turn: "" or "raise", "exit", "slow"
    """

    def __init__(self, seed, without=()):
        chance = random.Random(seed)
        self._without = without
        self.family = chance.choice(("silent", "server", "network"))
        self.kind = chance.choice(("list", "list", "selector", "limit", "item"))
        self.tls, self.chatty = chance.random() < 0.2, chance.random() < 0.5
        self.limit = chance.choice((1, 2, 3))

        self._draw_nets(chance)
        self._draw_settings(chance)
        self._draw_faults(chance)
        self._draw_actions(chance)
        self._draw_cancel(chance)
        self.moods = [self._mood(chance) for _ in range(200)]
        self.chance = random.Random(chance.random())  # for the order of little things

    def _draw_nets(self, chance):
        """Which of the module's safety nets are there: they hide each other's holes."""
        is_silent, is_server, is_network = self._families()
        self.rewind = is_network and chance.random() < 0.5
        self.drops = is_silent and chance.random() < 0.4 and self.kind != "limit"
        self.resync = self.rewind or self.drops or not is_server and chance.random() < 0.1

        lives_long = is_server or chance.random() < 0.4
        self.lifetime = 1000 if lives_long else chance.choice((0.15, 0.25))
        if is_server and chance.random() < 0.7:
            self.short_watch = 5.0
        elif self.rewind or chance.random() < 0.3:
            self.short_watch = 0.0
        else:
            self.short_watch = 0.1

        self.bucket = (8, 20.0) if chance.random() < 0.5 else (1000, 1000.0)
        can_close = not is_silent and self.short_watch > 0
        styles = ["error", "open", "http"] + ["closed"] * can_close
        self.style = chance.choice(styles)  # how the server says that a version is gone
        self.first_bookmark = is_silent or chance.random() < 0.3

    def _families(self):
        return [self.family == name for name in ("silent", "server", "network")]

    def _draw_settings(self, chance):
        burst, rate = self.bucket
        self.settings = dict(
            retry_base=0.008, retry_cap=0.1, retry_reset=0.3, short_watch=self.short_watch,
            burst=burst, rate=rate, watch_grace=0.1, resync=0.2 if self.resync else FOREVER,
            close_timeout=0.05, max_retry_after=0.06, max_message=65536, connect_timeout=10.0,
            request_timeout=20.0, list_idle=10.0, ping_interval=chance.choice((0.02, 10.0)),
            ping_timeout=10.0, metrics_period=0.1)  # what answers 405 is polled
        if self.family == "network":
            self.settings.update(
                connect_timeout=0.25, request_timeout=0.5, list_idle=0.2, ping_interval=0.05,
                ping_timeout=0.1)

    def _draw_faults(self, chance):
        busy = chance.choice((0.15, 0.3, 0.6))
        self.faults = {
            "list": self._draw(chance, LIST, 12, busy),
            "watch": self._draw(chance, WATCH, 20, busy),
            "event": self._draw(chance, EVENT, 100, busy),
        }

    def _draw(self, chance, faults, count, share):
        names = [name for name, kind in faults.items() if self._fits(name, kind)]
        names += [name for name in names if name in RARE] * 3
        return [chance.choice(names) if chance.random() < share else "" for _ in range(count)]

    def _fits(self, name, kind):
        is_silent, is_server, is_network = self._families()
        if name in self._without:
            return False
        if name == "zombie" and self.lifetime > 1 or name == "drop" and not self.drops:
            return False
        if name in ("replay", "older") and self.rewind or name == "null" and self.kind == "item":
            return False
        if kind == "S" or kind == "e" and is_silent and not self.tls:
            return True
        return is_network or is_server and kind != "?"

    def _draw_actions(self, chance):
        self.length = chance.uniform(0.2, 0.5)
        at = lambda: chance.uniform(0, self.length)  # noqa: E731
        changes = chance.choice((15, 40, 100))
        self.actions = [(at(), "change", chance.random()) for _ in range(changes)]

        self.last = None  # what only the relist now and then can heal
        if self.drops:
            self.last = ("drop", chance.random())
        elif self.rewind and chance.random() < 0.7:
            self.last = ("rewind", chance.randrange(1, 8))

        self.actions += [(at(), "compact", 0) for _ in range(chance.choice((0, 1, 3)))]
        if self.family == "network":
            self._draw_network(chance)
        if chance.random() < 0.4:
            self._draw_outage(chance)
        self.actions.sort(key=lambda action: action[0])

    def _draw_network(self, chance):
        names = [name for name in NETWORK[:-1] if name not in self._without] or ["end"]
        for _ in range(chance.choice((1, 2, 4))):
            name, at = chance.choice(names), chance.uniform(0, self.length)
            self.actions.append((at, name, (chance.randrange(600), chance.uniform(0.02, 0.3))))
        if self.rewind and not self.last:
            at = chance.uniform(0.05, self.length)
            self.actions.append((at, "rewind", chance.randrange(1, 8)))

    def _draw_outage(self, chance):
        kinds = OUTAGES if self.short_watch else OUTAGES[:2] + OUTAGES[3:]
        if self.family == "silent":
            kinds = ("flap",)
        kinds = [name for name in kinds if name not in self._without]
        if kinds:
            at = chance.uniform(0, 0.1)
            how = chance.choice(kinds), chance.uniform(0.1, 0.25)
            self.actions.append((at, "outage", how))
        else:
            self.actions.append((0, "compact", 0))

    def _draw_cancel(self, chance):
        self.cancel = chance.choice(("end",) * 6 + ("early", "inside"))
        is_early = self.cancel == "early"
        self.cancel_at = chance.uniform(0, self.length) if is_early else chance.randrange(1, 8)

    @staticmethod
    def _mood(chance):
        return chance.choice(("raise", "exit", "slow")) if chance.random() < 0.1 else ""

    def __str__(self):
        names = ("family", "kind", "tls", "lifetime", "short_watch", "resync", "bucket", "style")
        words = ["%s=%s" % (name, getattr(self, name)) for name in names]
        return " ".join(words + ["cancel=" + self.cancel])
