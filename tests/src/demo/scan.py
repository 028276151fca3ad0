"""Sends a TCP SYN and a UDP datagram to every port of addresses, and says what came back.

Reads from standard input, as JSON: `interface`, `source` (the address that it sends from), `mac` (of that interface), and
`goals`: pairs of an address and the MAC to which its frames go, whatever routes and neighbours say. So a frame is on the wire for
each port also where no route leads, as somebody would send it who has the machine.

Prints JSON: how many frames were `sent`, how many answers the kernel had no room for (`missed`), and `answers`, each once: what
answered, its address, the port that was asked, and what it said. Whatever comes in counts, from whomever; ARP apart. What comes in and
is for another MAC is `overheard`, by where it comes from.

A frame's source port is the port that it asks, so that an answer says what it answers. Where a service speaks only when it is
asked properly, it is.

Deliberately absent: IPv6, fragments, a second attempt.
"""

import json
import socket
import struct
import sys
import time

WORLD = json.load(sys.stdin)
# linux/if_packet.h
PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 6, 23
ETHERTYPE_IP, ETHERTYPE_ARP, ETHERTYPE_ALL = 0x0800, 0x0806, 0x0003
# How long nothing may come before the scan is over: services and the kernel answer at once, TFTP once more after a second.
QUIET = 1.5
# Frames between two looks at what came in, of which the kernel keeps far more.
TURN = 2048
BUFFER = 128 << 20
# Of the ports that are asked properly, those whose answer goes to another port than 67.
DHCP_CLIENT = 68

OWN_MAC = bytes.fromhex(WORLD["mac"].replace(":", ""))
SOURCE = socket.inet_aton(WORLD["source"])


def wire():
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ALL))
    opened.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    opened.setsockopt(263, PACKET_IGNORE_OUTGOING, 1)
    opened.bind((WORLD["interface"], ETHERTYPE_ALL))
    return opened


def total(data):
    data += b"\0" * (len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def folded(number):
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number ^ 0xFFFF


def packet(mac, protocol, source, goal, segment):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0, source, goal)
    head = head[:10] + struct.pack("!H", folded(total(head))) + head[12:]
    return bytearray(mac + OWN_MAC + struct.pack("!H", ETHERTYPE_IP) + head + segment)


def datagram(source, goal, payload):
    # No checksum (RFC 768).
    return struct.pack("!HHHH", source, goal, 8 + len(payload), 0) + payload


def dhcp(kind, options):
    """RFC 2131 section 2, from this machine's NIC."""
    known = kind == 8  # INFORM: who has an address
    fixed = struct.pack("!BBBBIHH4s12x", 1, 1, 6, 0, 0x5CA9, 0, 0x8000, SOURCE if known else bytes(4))
    fixed += OWN_MAC + bytes(10) + bytes(192) + bytes((99, 130, 83, 99))
    return fixed + bytes((53, 1, kind)) + options + b"\xff"


def option(code, value):
    return bytes((code, len(value))) + value


PXE = option(60, b"PXEClient:Arch:00000:UNDI:002001") + option(93, b"\0\0") + option(77, b"iPXE") + option(55, b"\x43\x42\x01")
PROPER = [
    (DHCP_CLIENT, 67, dhcp(1, PXE)),
    (DHCP_CLIENT, 67, dhcp(8, PXE)),
    (4011, 4011, dhcp(3, PXE + option(97, bytes(17)))),
    (69, 69, b"\0\1undionly.kpxe\0octet\0"),
    (53, 53, struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\3bmi\0\0\1\0\1"),
    (123, 123, b"\x1b" + bytes(47)),
    (161, 161, bytes.fromhex("302602010104067075626c6963a01902045ca9000002010002010030" "0b300906052b060102010500")),
]


class Scan:
    def __init__(self):
        self.wire, self.sent, self.answers, self.overheard = wire(), 0, set(), set()

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
            if struct.unpack("!H", frame[12:14])[0] != ETHERTYPE_ARP:
                heard = True
                answer, ours = read(frame), frame[:6] == OWN_MAC or frame[0] & 1
                if ours:
                    self.answers.add(answer)
                else:
                    self.overheard.add(answer[1])
            self.wire.settimeout(0)

    def tcp(self, mac, goal):
        # A SYN; its checksum is over the pseudo header too (RFC 9293 section 3.1).
        segment = struct.pack("!HHIIBBHHH", 0, 0, 0x5CA9, 0, 5 << 4, 2, 1024, 0, 0)
        base = total(SOURCE + goal + struct.pack("!HH", 6, len(segment)) + segment)
        frame = packet(mac, 6, SOURCE, goal, segment)
        for port in range(1, 65536):
            struct.pack_into("!HH", frame, 34, port, port)
            struct.pack_into("!H", frame, 50, folded(base + 2 * port))
            self.send(frame)

    def udp(self, mac, goal):
        frame = packet(mac, 17, SOURCE, goal, datagram(0, 0, b"bmi\n"))
        for port in range(1, 65536):
            struct.pack_into("!HH", frame, 34, port, port)
            self.send(frame)
        for source, port, payload in PROPER:
            self.send(packet(mac, 17, SOURCE, goal, datagram(source, port, payload)))


def read(frame):
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind != ETHERTYPE_IP:
        return ("frame", frame[6:12].hex(":"), 0, f"ethertype {kind:#06x}")
    # A tag or options are nobody's here; what is odd is reported as what it seems to be.
    address, protocol, rest = socket.inet_ntoa(frame[26:30]), frame[23], frame[14 + 4 * (frame[14] & 15):]
    if protocol == 6:
        flags = rest[13]
        said = "open" if flags & 18 == 18 else "closed" if flags & 4 else f"flags {flags:#x}"
        return ("tcp", address, struct.unpack("!H", rest[2:4])[0], said)
    if protocol == 17:
        port = struct.unpack("!H", rest[2:4])[0]
        return ("udp", address, 67 if port == DHCP_CLIENT else port, "open")
    if protocol == 1:
        inner = rest[8 + 4 * (rest[8] & 15):] if len(rest) >= 36 else bytes(4)
        return ("icmp", address, struct.unpack("!H", inner[2:4])[0], f"type {rest[0]} code {rest[1]}")
    return ("ip", address, 0, f"protocol {protocol}")


scan = Scan()
for text, via in WORLD["goals"]:
    where, to = socket.inet_aton(text), bytes.fromhex(via.replace(":", ""))
    scan.tcp(to, where)
    scan.udp(to, where)
# Who has no address asks everybody.
everybody = datagram(DHCP_CLIENT, 67, dhcp(1, PXE))
scan.send(packet(b"\xff" * 6, 17, bytes(4), b"\xff" * 4, everybody))
over = time.monotonic() + QUIET
while time.monotonic() < over:
    if scan.hear(0.1):
        over = time.monotonic() + QUIET
_, missed = struct.unpack("II", scan.wire.getsockopt(263, PACKET_STATISTICS, 8))
found = {"answers": sorted(scan.answers), "overheard": sorted(scan.overheard)}
json.dump({"sent": scan.sent, "missed": missed, **found}, sys.stdout)
