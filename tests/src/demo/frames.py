"""Frames of one's own making and the wire that they go to: what `scan.py`, `flood.py` and `ears.py` have in common.

Deliberately absent: IPv6, fragments, options of IPv4 and TCP.
"""

import socket
import struct

# linux/if_packet.h
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE = 33
ETHERTYPE_IP, ETHERTYPE_ARP, ETHERTYPE_ALL = 0x0800, 0x0806, 0x0003
ICMP, TCP, UDP = 1, 6, 17
EVERYBODY = b"\xff" * 6
DHCP_CLIENT, DHCP_SERVER = 68, 67
# What the kernel keeps of what comes in, in bytes.
BUFFER = 128 << 20


def wire(interface):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ALL))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.bind((interface, ETHERTYPE_ALL))
    return opened


def missed(opened):
    """How many frames the kernel had no room for."""
    return struct.unpack("II", opened.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def total(data):
    data += b"\0" * (len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def folded(number):
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number ^ 0xFFFF


def packet(to, sender, protocol, source, goal, segment):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0, source, goal)
    head = head[:10] + struct.pack("!H", folded(total(head))) + head[12:]
    return bytearray(to + sender + struct.pack("!H", ETHERTYPE_IP) + head + segment)


def datagram(source, goal, payload):
    # No checksum (RFC 768).
    return struct.pack("!HHHH", source, goal, 8 + len(payload), 0) + payload


def syn(source, goal, sender, port):
    """A SYN from the port `sender`; its checksum is over the pseudo header too (RFC 9293 section 3.1)."""
    segment = struct.pack("!HHIIBBHHH", sender, port, 0x5CA9, 0, 5 << 4, 2, 1024, 0, 0)
    check = folded(total(source + goal + struct.pack("!HH", TCP, len(segment)) + segment))
    return segment[:16] + struct.pack("!H", check) + segment[18:]


def ping():
    """An echo request (RFC 792)."""
    echo = struct.pack("!BBHHH", 8, 0, 0, 0x5CA9, 1)
    return echo[:2] + struct.pack("!H", folded(total(echo))) + echo[4:]


def arp(to, sender, kind, claims, goal):
    """RFC 826: `claims` and `goal` are pairs of a MAC and an address; `kind` is 1 for a request, 2 for a reply."""
    head = to + sender + struct.pack("!HHHBBH", ETHERTYPE_ARP, 1, ETHERTYPE_IP, 6, 4, kind)
    return bytearray(head + claims[0] + claims[1] + goal[0] + goal[1])


def dhcp(nic, kind, options, address=None):
    """RFC 2131 section 2, from a NIC; with an address, from one that has it."""
    fixed = struct.pack("!BBBBIHH4s12x", 1, 1, 6, 0, 0x5CA9, 0, 0x8000, address or bytes(4))
    fixed += nic + bytes(10) + bytes(192) + bytes((99, 130, 83, 99))
    return fixed + bytes((53, 1, kind)) + options + b"\xff"


def option(code, value):
    return bytes((code, len(value))) + value


PXE = option(60, b"PXEClient:Arch:00000:UNDI:002001") + option(93, b"\0\0") + option(77, b"iPXE") + option(55, b"\x43\x42\x01")
