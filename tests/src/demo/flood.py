"""Floods a network from one machine on it, with everything that could be in the way of the others there. Ends by itself.

Reads from standard input, as JSON: `interface`, `source` (the machine's address) and `mac`; `netboot` (the boot services) and
`targets` and `nodes` of the network, and what is `elsewhere`, each as pairs of an address and the MAC to which its frames go;
`seconds` that it takes, and how many frames at the `most`.

Frames in its own name and in that of MACs that nobody has; with the MACs of others as their source; ARP that claims others' addresses;
DHCP for itself, for nobody and for others; spanning tree; SYNs and datagrams to every target and to the boot services, and to what
is elsewhere. They are made beforehand and sent again and again, so a switch learns no more MACs than there are `ROUNDS`, and a
server hears of no more clients.

Says `floods` when it begins. Prints JSON at the end: how many frames were `sent`.
"""

import errno
import json
import random
import socket
import sys
import time

import frames
from frames import DHCP_CLIENT, DHCP_SERVER, EVERYBODY, PXE, TCP, UDP, arp, datagram, dhcp, packet, syn

WORLD = json.load(sys.stdin)
# Rounds of frames, with another port, and a MAC that nobody has, in each.
ROUNDS = 512
# Frames between two looks at the clock.
TURN = 256
# A payload that fills a frame of Ethernet.
FULL = bytes(1400)
# IEEE 802.1D: a bridge that says it is the root and that the topology has changed; its length, LLC, and the rest.
SPANNING_TREE = bytes.fromhex("0180c2000000"), bytes.fromhex("0026424203" "0000000081" + "00" * 30)

OWN = (frames.mac(WORLD["mac"]), socket.inet_aton(WORLD["source"]))
NOBODY = bytes(4)
ALL = b"\xff" * 4


def pairs(listed):
    return [(frames.mac(mac), socket.inet_aton(address)) for address, mac in listed]


NETBOOT, TARGETS, NODES, ELSEWHERE = (pairs(WORLD[name]) for name in ("netboot", "targets", "nodes", "elsewhere"))
OTHERS = NETBOOT + TARGETS + NODES


def discover(sender, nic):
    """Somebody without an address asks everybody."""
    return packet(EVERYBODY, sender, UDP, NOBODY, ALL, datagram(DHCP_CLIENT, DHCP_SERVER, dhcp(nic, 1, PXE)))


def one_round(number):
    # Locally administered, and not of a group.
    nobody = bytes((2, *random.randbytes(5)))
    own_mac, own = OWN
    yield packet(EVERYBODY, nobody, UDP, own, ALL, datagram(9, 9, FULL))
    yield discover(own_mac, own_mac)
    yield discover(nobody, nobody)
    yield SPANNING_TREE[0] + nobody + SPANNING_TREE[1]
    for mac, address in OTHERS:
        yield packet(mac, own_mac, UDP, own, address, datagram(9, 1024 + number, FULL))
        yield packet(EVERYBODY, mac, UDP, address, ALL, datagram(9, 9, FULL))
        yield arp(EVERYBODY, own_mac, 1, OWN, (bytes(6), address))
        # That the address is here, to everybody and to each of the others; in the own name and in theirs.
        claim = (own_mac, address)
        yield arp(EVERYBODY, own_mac, 2, claim, (EVERYBODY, address))
        yield arp(EVERYBODY, mac, 2, (mac, own), (EVERYBODY, own))
        for other, theirs in OTHERS:
            yield arp(other, own_mac, 2, claim, (other, theirs))
    for mac, _ in NODES:
        yield discover(own_mac, mac)
        yield discover(mac, mac)
        yield SPANNING_TREE[0] + mac + SPANNING_TREE[1]
    for (mac, address), port in [(it, 3260) for it in TARGETS + ELSEWHERE] + [(it, 80) for it in NETBOOT]:
        yield packet(mac, own_mac, TCP, own, address, syn(own, address, 1024 + number, port))
    for mac, address in ELSEWHERE:
        yield packet(mac, own_mac, UDP, own, address, datagram(9, 1024 + number, FULL))
    for mac, address in NETBOOT:
        renewal = dhcp(own_mac, 3, PXE, own)
        yield packet(mac, own_mac, UDP, own, address, datagram(DHCP_CLIENT, DHCP_SERVER, renewal))
        yield packet(mac, own_mac, UDP, own, address, datagram(1024 + number, 69, b"\0\1undionly.kpxe\0octet\0"))


wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((WORLD["interface"], frames.ETHERTYPE_ALL))
made = [frame for number in range(ROUNDS) for frame in one_round(number)]
print("floods", flush=True)
sent, turns, over = 0, 0, time.monotonic() + WORLD["seconds"]
while time.monotonic() < over and sent < WORLD["most"]:
    for at in range(turns * TURN, (turns + 1) * TURN):
        try:
            wire.send(made[at % len(made)])
            sent += 1
        except OSError as error:
            # The other end has no room for more just now.
            if error.errno != errno.ENOBUFS:
                raise
    turns += 1
json.dump({"sent": sent}, sys.stdout)
