"""Reads server-sent events from an httpx answer."""

import json


def events(answer):
    """Yields (id or None, event, data) as they come; data is decoded JSON."""
    fields = {}
    for line in answer.iter_lines():
        line = line.rstrip("\n")
        if line and not line.startswith(":"):
            name, value = line.split(": ", 1)
            fields[name] = value
        elif not line and "event" in fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}
