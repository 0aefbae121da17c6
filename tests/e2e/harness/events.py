"""Reads streams of server-sent events: an image's cache view, bunkers."""

import threading

import httpx

from . import sse


class EventStream:
    """with EventStream(cluster, path) as s: s.wait(...)  Reads in a thread of its own."""

    def __init__(self, cluster, path, last_event_id=None):
        self.url = f"{cluster.controller.host}/v1/modules/scaibunker{path}"
        self.headers = {"Authorization": f"Bearer {cluster.controller.key}", "Accept": "text/event-stream"}
        if last_event_id is not None:
            self.headers["Last-Event-ID"] = last_event_id
        self.events = []  # (id or None, event, data)
        self.changed = threading.Condition()
        self.client = httpx.Client(timeout=httpx.Timeout(10, read=60))
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.client.close()

    def _read(self):
        try:
            with self.client.stream("GET", self.url, headers=self.headers) as answer:
                for event in sse.events(answer):
                    self._add(event)
        except (httpx.HTTPError, OSError):
            pass  # the end of it

    def _add(self, event):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait(self, condition, what, seconds=60):
        """Until condition(events) is true; returns its value."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self.events), seconds):
                raise AssertionError(f"not within {seconds} s: {what}: {self.events}")
            return condition(self.events)

    def last_id(self):
        with self.changed:
            return [x[0] for x in self.events if x[0]][-1]

    def ended(self, seconds=20):
        """Whether the server has ended it by then."""
        self.thread.join(seconds)
        return not self.thread.is_alive()


class CacheStream(EventStream):
    def __init__(self, cluster, image, last_event_id=None):
        super().__init__(cluster, f"/images/{image}/cache", last_event_id)
