"""Sends a TCP SYN and a UDP datagram to every port of addresses, and a ping to each, and says what came back.

Reads from standard input, as JSON: `interface`, `source` (the address that it sends from), `mac` (of that interface), and
`goals`: pairs of an address and the MAC to which its frames go, whatever routes and neighbours say. So a frame is on the wire for
each port also where no route leads, as somebody would send it who has the machine.

Prints JSON: how many frames were `sent`, how many answers the kernel had no room for (`missed`), and `answers`, each once: what
answered, its address, the port that was asked, and what it said. Whatever comes in counts, from whomever; ARP apart. What comes in and
is for another MAC is `overheard`, by where it comes from. `heard` has the MAC of whoever sent anything, ARP as well.

A frame's source port is the port that it asks, so that an answer says what it answers. Where a service speaks only when it is
asked properly, it is.

Deliberately absent: IPv6, fragments, a second attempt.
"""

import json
import socket
import struct
import sys
import time

import frames
from frames import DHCP_CLIENT, DHCP_SERVER, EVERYBODY, ICMP, PXE, TCP, UDP, datagram, dhcp, folded, option, packet, total

WORLD = json.load(sys.stdin)
# How long nothing may come before the scan is over: services and the kernel answer at once, TFTP once more after a second.
QUIET = 1.5
# Frames between two looks at what came in, of which the kernel keeps far more.
TURN = 2048

OWN_MAC = frames.mac(WORLD["mac"])
SOURCE = socket.inet_aton(WORLD["source"])

# Of these, the answer to DHCP goes to another port than the server's.
PROPER = [
    (DHCP_CLIENT, DHCP_SERVER, dhcp(OWN_MAC, 1, PXE)),
    # INFORM: who has an address
    (DHCP_CLIENT, DHCP_SERVER, dhcp(OWN_MAC, 8, PXE, SOURCE)),
    (4011, 4011, dhcp(OWN_MAC, 3, PXE + option(97, bytes(17)))),
    (69, 69, b"\0\1undionly.kpxe\0octet\0"),
    (53, 53, struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\3bmi\0\0\1\0\1"),
    (123, 123, b"\x1b" + bytes(47)),
    (161, 161, bytes.fromhex("302602010104067075626c6963a01902045ca9000002010002010030" "0b300906052b060102010500")),
]


class Scan:
    def __init__(self):
        self.wire, self.sent = frames.wire(WORLD["interface"]), 0
        self.answers, self.overheard, self.heard = set(), set(), set()

    def send(self, frame):
        self.wire.send(frame)
        self.sent += 1
        if self.sent % TURN == 0:
            self.hear(0)

    def hear(self, seconds):
        """Takes what came in; gives whether that was anything."""
        self.wire.settimeout(seconds)
        heard = False
        while True:
            try:
                frame = self.wire.recv(2048)
            except (BlockingIOError, TimeoutError):
                self.wire.settimeout(None)
                return heard
            self.heard.add(frame[6:12])
            if struct.unpack("!H", frame[12:14])[0] != frames.ETHERTYPE_ARP:
                heard = True
                answer, ours = read(frame), frame[:6] == OWN_MAC or frame[0] & 1
                if ours:
                    self.answers.add(answer)
                else:
                    self.overheard.add(answer[1])
            self.wire.settimeout(0)

    def ping(self, mac, goal):
        self.send(packet(mac, OWN_MAC, ICMP, SOURCE, goal, frames.ping()))

    def tcp(self, mac, goal):
        segment = struct.pack("!HHIIBBHHH", 0, 0, 0x5CA9, 0, 5 << 4, 2, 1024, 0, 0)
        base = total(SOURCE + goal + struct.pack("!HH", TCP, len(segment)) + segment)
        frame = packet(mac, OWN_MAC, TCP, SOURCE, goal, segment)
        # `frames.syn` for each port, with less work.
        for port in range(1, 65536):
            struct.pack_into("!HH", frame, 34, port, port)
            struct.pack_into("!H", frame, 50, folded(base + 2 * port))
            self.send(frame)

    def udp(self, mac, goal):
        frame = packet(mac, OWN_MAC, UDP, SOURCE, goal, datagram(0, 0, b"bmi\n"))
        for port in range(1, 65536):
            struct.pack_into("!HH", frame, 34, port, port)
            self.send(frame)
        for source, port, payload in PROPER:
            self.send(packet(mac, OWN_MAC, UDP, SOURCE, goal, datagram(source, port, payload)))


def read(frame):
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind != frames.ETHERTYPE_IP:
        return ("frame", frame[6:12].hex(":"), 0, f"ethertype {kind:#06x}")
    # A tag or options are nobody's here; what is odd is reported as what it seems to be.
    address, protocol, rest = socket.inet_ntoa(frame[26:30]), frame[23], frame[14 + 4 * (frame[14] & 15):]
    if protocol == TCP:
        flags = rest[13]
        said = "open" if flags & 18 == 18 else "closed" if flags & 4 else f"flags {flags:#x}"
        return ("tcp", address, struct.unpack("!H", rest[2:4])[0], said)
    if protocol == UDP:
        port = struct.unpack("!H", rest[2:4])[0]
        return ("udp", address, DHCP_SERVER if port == DHCP_CLIENT else port, "open")
    if protocol == ICMP:
        inner = rest[8 + 4 * (rest[8] & 15):] if rest[0] and len(rest) >= 36 else bytes(4)
        return ("icmp", address, struct.unpack("!H", inner[2:4])[0], f"type {rest[0]} code {rest[1]}")
    return ("ip", address, 0, f"protocol {protocol}")


scan = Scan()
for text, via in WORLD["goals"]:
    where, to = socket.inet_aton(text), frames.mac(via)
    scan.ping(to, where)
    scan.tcp(to, where)
    scan.udp(to, where)
# Who has no address asks everybody.
everybody = datagram(DHCP_CLIENT, DHCP_SERVER, dhcp(OWN_MAC, 1, PXE))
scan.send(packet(EVERYBODY, OWN_MAC, UDP, bytes(4), b"\xff" * 4, everybody))
over = time.monotonic() + QUIET
while time.monotonic() < over:
    if scan.hear(0.1):
        over = time.monotonic() + QUIET
found = {"answers": sorted(scan.answers), "overheard": sorted(scan.overheard)}
found["heard"] = sorted(mac.hex(":") for mac in scan.heard)
json.dump({"sent": scan.sent, "missed": frames.missed(scan.wire), **found}, sys.stdout)
