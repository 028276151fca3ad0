"""Hears what comes in at an interface until its standard input ends.

Takes the interface's name as its argument. Says `hears` when it does. At the end it prints, as JSON, what was `heard`: the MAC of
whoever sent it, the ethertype, and how many such frames; and how many the kernel had no room for (`missed`).
"""

import collections
import json
import select
import struct
import sys

import frames

wire = frames.wire(sys.argv[1])
wire.setblocking(False)
print("hears", flush=True)
heard, over = collections.Counter(), False
while not over:
    ready, _, _ = select.select([wire, sys.stdin], [], [])
    # What came in before the end counts as well.
    over = sys.stdin in ready
    while True:
        try:
            frame = wire.recv(64)
        except BlockingIOError:
            break
        heard[frame[6:12].hex(":"), f"{struct.unpack('!H', frame[12:14])[0]:#06x}"] += 1
found = [[mac, kind, count] for (mac, kind), count in sorted(heard.items())]
json.dump({"heard": found, "missed": frames.missed(wire)}, sys.stdout)
