"""Reads `bunkerctl --json image watch` and prints how long each worker spent in each stage.

The first rows of a watch are what was so already: their stages count from the first look.
"""

import json
import sys
import time


def main():
    started = time.monotonic()
    current, spent, names = {}, {}, {}
    for line in sys.stdin:
        row = json.loads(line)
        now = time.monotonic() - started
        worker = row["worker_id"]
        names[worker] = row.get("worker_name") or worker
        stage = row.get("stage") if row.get("status") == "building" else row.get("status")
        before = current.get(worker)
        if before and before[0] == stage:
            continue
        if before:
            spent.setdefault(worker, []).append((before[0], now - before[1]))
        current[worker] = (stage, now)
    for worker, stages in spent.items():
        for stage, seconds in stages:
            print(f"  {names[worker] + ': ' + str(stage):<44} {seconds:10.3f} s")


main()
