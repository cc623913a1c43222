#!/usr/bin/env python3
"""Makes and checks ESP packets with the Linux kernel's XFRM, for linux-xfrm.json.

    unshare --net python3 linux-xfrm.py < linux-xfrm.json > new.json

Root, in a network namespace of its own. The kernel is 10.9.0.1 and has an SA pair with 10.9.0.2, which is this script, at the other end
of a veth. For each transform, the kernel is made to send datagrams ("sent": our vectors to open), and is given the packets under
"sealed" in the input, which our own code made; "accepted" in the output tells how many of their datagrams came out at its UDP socket.
"""
import json
import socket
import struct
import subprocess
import sys

OURS, THEIRS = "10.9.0.2", "10.9.0.1"
SPI_SENT, SPI_SEALED = 0xC0FFEE01, 0xC0FFEE02
ENCRYPTION = {"aes128": ("cbc(aes)", 16), "aes192": ("cbc(aes)", 24), "aes256": ("cbc(aes)", 32), "3des": ("cbc(des3_ede)", 24),
              "null": ("ecb(cipher_null)", 0)}
INTEGRITY = {"md5": ("hmac(md5)", 16, 96), "sha1": ("hmac(sha1)", 20, 96), "sha256": ("hmac(sha256)", 32, 128),
             "sha256_96": ("hmac(sha256)", 32, 96), "sha384": ("hmac(sha384)", 48, 192), "sha512": ("hmac(sha512)", 64, 256)}
TRANSFORMS = ([f"{e}-{i}" for e in ("aes128", "aes192", "aes256", "3des", "null") for i in INTEGRITY]
              + [f"aes{k}gcm{t}" for k in (128, 192, 256) for t in (8, 12, 16)])
SIZES = (1, 40, 200)


def run(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)


def octets(first, n):
    return bytes((first + 7 * i) % 256 for i in range(n))


def algorithms(name, first):
    """The kernel's words for a transform, the encryption key with its salt, and the integrity key."""
    if "gcm" in name:
        bits, icv = name.removeprefix("aes").split("gcm")
        key = octets(first, int(bits) // 8 + 4)
        return ["aead", "rfc4106(gcm(aes))", "0x" + key.hex(), str(int(icv) * 8)], key, b""
    e, i = name.split("-")
    (cipher, size), (mac, mac_size, bits) = ENCRYPTION[e], INTEGRITY[i]
    key, auth = octets(first, size), octets(first + 100, mac_size)
    words = ["auth-trunc", mac, "0x" + auth.hex(), str(bits), "enc", cipher, "0x" + key.hex() if key else ""]
    return words, key, auth


def association(name, spi, source, destination, first):
    words, key, auth = algorithms(name, first)
    run("ip", "xfrm", "state", "add", "src", source, "dst", destination, "proto", "esp", "spi", hex(spi), "mode", "transport",
        "replay-window", "32", "encap", "espinudp", "4500", "4500", "0.0.0.0", *words)
    return key, auth


def policy(direction, source, destination):
    run("ip", "xfrm", "policy", "add", "src", source + "/32", "dst", destination + "/32", "proto", "udp", "sport", "1701", "dport", "1701",
        "dir", direction, "tmpl", "src", source, "dst", destination, "proto", "esp", "mode", "transport")


def checksum(b):
    total = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def wrap(esp):
    """An Ethernet frame with an ESP packet in UDP."""
    udp = struct.pack("!4H", 4500, 4500, 8 + len(esp), 0) + esp
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(OURS), socket.inet_aton(THEIRS))
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return MACS["v0"] + MACS["v1"] + b"\x08\x00" + ip + udp


MACS = {"v0": bytes.fromhex("020000000001"), "v1": bytes.fromhex("020000000002")}


def main():
    given = {v["transform"]: v for v in json.load(sys.stdin)}
    run("ip", "link", "add", "v0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "v1", "address", "02:00:00:00:00:02")
    run("ip", "address", "add", THEIRS + "/24", "dev", "v0")
    run("ip", "link", "set", "v0", "up")
    run("ip", "link", "set", "v1", "up")
    run("ip", "neighbour", "add", OURS, "lladdr", "02:00:00:00:00:02", "dev", "v0", "nud", "permanent")
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    wire.bind(("v1", 0x0800))
    wire.settimeout(2)
    l2tp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    l2tp.bind((THEIRS, 1701))
    l2tp.settimeout(0.5)
    encap = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    encap.bind((THEIRS, 4500))
    encap.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP, UDP_ENCAP_ESPINUDP
    policy("out", THEIRS, OURS)
    policy("in", OURS, THEIRS)
    vectors = []
    for name in TRANSFORMS:
        run("ip", "xfrm", "state", "flush")
        try:
            key, auth = association(name, SPI_SENT, THEIRS, OURS, 1)
            key2, auth2 = association(name, SPI_SEALED, OURS, THEIRS, 2)
        except subprocess.CalledProcessError:
            print("this kernel lacks", name, file=sys.stderr)
            continue
        vector = {"transform": name, "spi_in": SPI_SENT, "key_in": key.hex(), "auth_in": auth.hex(),
                  "spi_out": SPI_SEALED, "key_out": key2.hex(), "auth_out": auth2.hex(), "sent": [], "sealed": []}
        for size in SIZES:
            l2tp.sendto(octets(size, size), (OURS, 1701))
            while True:
                frame = wire.recv(65536)
                if frame[6:12] == MACS["v0"] and frame[14] == 0x45 and frame[23] == 17:
                    break
            assert frame[34:38] == struct.pack("!HH", 4500, 4500), frame.hex()
            vector["sent"].append(frame[42:34 + struct.unpack("!H", frame[38:40])[0]].hex())
        sealed = given.get(name, {}).get("sealed", [])
        accepted = 0
        for size, esp in zip(SIZES, sealed):
            wire.send(wrap(bytes.fromhex(esp)))
            try:
                accepted += l2tp.recvfrom(65536) == (octets(size, size), (OURS, 1701))
            except TimeoutError:
                print(name, size, "not accepted", file=sys.stderr)
        vector["sealed"], vector["accepted"] = sealed, accepted
        vectors.append(vector)
    json.dump(vectors, sys.stdout, indent=1)
    print()


main()
