"""A peer of docs/protocol.md, sections 4 and 5, that shares no code with the one it talks to.

It imports the standard library and ``cryptography`` only, and was written from the document. It begins a
session as the initiator, through a RETRY, reads states and messages of all kinds, acknowledges them, follows
changes of keys and makes some, and writes what it saw as one line of JSON.

Input, JSON on standard input: ``port`` of the server on 127.0.0.1, ``key`` (private JWK, P-256), ``server``
(public JWK), ``want``: how many states, ordered and unordered messages to read, and key phases to go through.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import struct
import sys
import time
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LABEL = b"khepri-bridge udp v2 "
DEADLINE = 20.0
WINDOW = 1 << 18
DATAGRAMS_OF_A_PHASE = 6
ELICITING = {0x03, 0x04, 0x05, 0x07, 0x09}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value: Any) -> str:
    return b64(json.dumps(value, separators=(",", ":")).encode())


def jwk_of(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def key_of(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(unb64(jwk[name]), "big") for name in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def private_key_of(jwk: dict[str, str]) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(unb64(jwk["d"]), "big"), ec.SECP256R1())


def thumbprint(jwk: dict[str, str]) -> bytes:
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()


def content_key(secret: bytes, apu: bytes, apv: bytes) -> bytes:
    """Concat KDF of RFC 7518, section 4.6.2, for A128GCM: one round."""
    info = b"".join(struct.pack(">I", len(part)) + part for part in (b"A128GCM", apu, apv))
    return hashlib.sha256(struct.pack(">I", 1) + secret + info + struct.pack(">I", 128)).digest()[:16]


def seal_box(
    payload: bytes,
    *,
    key: ec.EllipticCurvePrivateKey,
    ephemeral: ec.EllipticCurvePrivateKey,
    server: dict[str, str],
    session: bytes,
) -> bytes:
    """The box of an INIT (section 4)."""
    sender, recipient = thumbprint(jwk_of(key.public_key())), thumbprint(server)
    epk = jwk_of(ephemeral.public_key())
    jws_header = {
        "alg": "ES256",
        "b64": False,
        "crit": ["b64"],
        "v": 1,
        "snd": b64(sender),
        "rcp": b64(recipient),
        "epk": b64(thumbprint(epk)),
        "sid": b64(session),
        "seq": 0,
        "iat": int(time.time() * 1000),
        "ttl": 10_000,
        "pur": "init",
        "dir": "i",
        "ctx": "",
    }
    jwe_header = {
        "alg": "ECDH-ES",
        "enc": "A128GCM",
        "epk": epk,
        "apu": b64(sender),
        "apv": b64(recipient),
    }
    protected = compact(jwe_header)
    secret = ephemeral.exchange(ec.ECDH(), key_of(server))
    iv = os.urandom(12)
    sealed = AESGCM(content_key(secret, sender, recipient)).encrypt(
        iv, sender + recipient + payload, protected.encode()
    )
    parts = (compact(jws_header), protected, "", b64(iv), b64(sealed[:-16]), b64(sealed[-16:]))
    signed = ".".join(parts).encode()
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return signed + b"." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big")).encode()


def open_box(
    box: bytes, *, key: ec.EllipticCurvePrivateKey, server: dict[str, str], session: bytes
) -> tuple[bytes, ec.EllipticCurvePublicKey]:
    """Payload and ephemeral key of a REPLY's box, all that it binds being checked."""
    signed, _, signature = box.rpartition(b".")
    r_s = unb64(signature.decode())
    der = encode_dss_signature(int.from_bytes(r_s[:32], "big"), int.from_bytes(r_s[32:], "big"))
    key_of(server).verify(der, signed, ec.ECDSA(hashes.SHA256()))
    jws, protected, empty, iv, ciphertext, tag = signed.decode().split(".")
    header, inner = json.loads(unb64(jws)), json.loads(unb64(protected))
    sender, recipient = thumbprint(server), thumbprint(jwk_of(key.public_key()))
    expected = {
        "alg": "ES256",
        "b64": False,
        "crit": ["b64"],
        "v": 1,
        "snd": b64(sender),
        "rcp": b64(recipient),
        "epk": b64(thumbprint(inner["epk"])),
        "sid": b64(session),
        "seq": 0,
        "iat": header["iat"],
        "ttl": 10_000,
        "pur": "reply",
        "dir": "r",
        "ctx": "",
    }
    assert header == expected, header
    assert abs(header["iat"] - time.time() * 1000) < 30_000
    assert (empty, inner["apu"], inner["apv"]) == ("", b64(sender), b64(recipient))
    assert (inner["alg"], inner["enc"]) == ("ECDH-ES", "A128GCM")
    ephemeral = key_of(inner["epk"])
    cipher = AESGCM(content_key(key.exchange(ec.ECDH(), ephemeral), sender, recipient))
    plaintext = cipher.decrypt(unb64(iv), unb64(ciphertext) + unb64(tag), protected.encode())
    assert plaintext[:64] == sender + recipient
    return plaintext[64:], ephemeral


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    return hmac.digest(secret, LABEL + label + b"\x01", "sha256")[:length]


class Phase:
    """Keys of one direction in one phase."""

    def __init__(self, number: int, secret: bytes) -> None:
        self.number = number
        self.secret = secret
        self.cipher = AESGCM(expand(secret, b"key", 16))
        self.iv = int.from_bytes(expand(secret, b"iv", 12), "big")

    def nonce(self, sequence: int) -> bytes:
        return (self.iv ^ sequence).to_bytes(12, "big")

    def next(self) -> Phase:
        return Phase(self.number + 1, expand(self.secret, b"next secret", 32))


class Reader:
    """The initiator of one session."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.want: dict[str, int] = request["want"]
        self.server: dict[str, str] = request["server"]
        self.key = private_key_of(request["key"])
        self.address = ("127.0.0.1", request["port"])
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.deadline = time.monotonic() + DEADLINE
        self.connection_id = int.from_bytes(os.urandom(4), "big")
        self.retries = self.unanswered = 0

        self.sequence = 0
        self.phase_began = 0
        self.phase_proven = False
        self.seen: set[int] = set()
        self.found_phase_at = 0
        self.previous: Phase | None = None
        self.stamp, self.stamp_at, self.echoes = 0, 0.0, 0
        self.eliciting = False

        self.states: dict[int, int] = {}
        self.stream, self.received = bytearray(), {}  # type: tuple[bytearray, dict[int, bytes]]
        self.ordered: list[str] = []
        self.parts: dict[int, dict[int, bytes]] = {}
        self.totals: dict[int, int] = {}
        self.unordered: dict[int, str] = {}
        self.credit = self.message_low_water = 0
        self.closed = -1

    def handshake(self) -> None:
        session, ephemeral = os.urandom(16), ec.generate_private_key(ec.SECP256R1())
        payload = struct.pack(">BBII", 2, 0, self.connection_id, WINDOW)
        box = seal_box(payload, key=self.key, ephemeral=ephemeral, server=self.server, session=session)
        # One INIT that does not hold: it is not answered, and uses up what the server checks unasked.
        self.send_init(box[:-2] + (b"AA" if box[-2:] != b"AA" else b"BA"), b"")
        self.unanswered = int(self.receive() is None)
        cookie, reply = b"", None
        while reply is None:
            assert time.monotonic() < self.deadline, "no REPLY"
            self.send_init(box, cookie)
            answer = self.receive()
            if answer is not None and answer[:2] == b"\x30\x02":
                assert len(answer) == 38
                assert answer[2:18] == hashlib.sha256(box).digest()[:16]
                cookie = answer[18:]
                self.retries += 1
            elif answer is not None and answer[:2] == b"\x20\x02":
                connection_id, length = struct.unpack_from(">IH", answer, 2)
                assert (connection_id, length) == (self.connection_id, len(answer) - 8)
                reply = answer[8:]
        payload, theirs = open_box(reply, key=self.key, server=self.server, session=session)
        version, flags, self.remote_id, _ = struct.unpack(">BBII", payload)
        assert (version, flags) == (2, 0)
        digest = hashlib.sha256(LABEL + b"transcript")
        for part in (box, reply):
            digest.update(struct.pack(">H", len(part)) + part)
        root = hmac.digest(digest.digest(), ephemeral.exchange(ec.ECDH(), theirs), "sha256")
        self.sealing = Phase(0, expand(root, b"initiator secret 0", 32))
        self.opening = Phase(0, expand(root, b"responder secret 0", 32))

    def send_init(self, box: bytes, cookie: bytes) -> None:
        head = bytes((0x10, 2, len(cookie))) + cookie + struct.pack(">H", len(box))
        self.socket.sendto((head + box).ljust(1200, b"\0"), self.address)

    def receive(self) -> bytes | None:
        try:
            return self.socket.recv(2048)
        except TimeoutError:
            return None

    def send(self, frames: bytes) -> None:
        is_due = self.sequence - self.phase_began >= DATAGRAMS_OF_A_PHASE and self.phase_proven
        if self.opening.number > self.sealing.number or (
            is_due and self.sealing.number < self.want["phases"]
        ):
            self.sealing = self.sealing.next()
            self.phase_began, self.phase_proven = self.sequence, False
        header = struct.pack(">BIQ", 0x40 | self.sealing.number & 1, self.remote_id, self.sequence)
        now = time.monotonic()
        held = min(int((now - self.stamp_at) * 1e6) // 64, 0xFFFF) if self.stamp else 0xFFFF
        prologue = struct.pack(">IIH", int(now * 1e6) & 0xFFFFFFFF or 1, self.stamp, held)
        sealed = self.sealing.cipher.encrypt(self.sealing.nonce(self.sequence), prologue + frames, header)
        self.sequence += 1
        self.socket.sendto(header + sealed, self.address)

    def open(self, datagram: bytes) -> bytes | None:
        """The plaintext of a datagram, or nothing where it is dropped."""
        if len(datagram) < 39 or datagram[0] & 0xFE != 0x40:
            return None
        header, sealed = datagram[:13], datagram[13:]
        first, connection_id, sequence = struct.unpack(">BIQ", header)
        if connection_id != self.connection_id or sequence in self.seen:
            return None
        phase: Phase | None = self.opening
        if first & 1 != self.opening.number & 1:
            phase = self.previous if sequence < self.found_phase_at else self.opening.next()
        if phase is None:
            return None
        try:
            plaintext = phase.cipher.decrypt(phase.nonce(sequence), sealed, header)
        except InvalidTag:
            return None
        if phase.number > self.opening.number:
            assert self.opening.number <= self.sealing.number, "two phases ahead"
            self.previous, self.opening, self.found_phase_at = self.opening, phase, sequence
        stamp, echo, _ = struct.unpack_from(">IIH", plaintext)
        assert stamp != 0
        self.echoes += echo != 0
        if sequence > max(self.seen, default=-1):
            self.stamp, self.stamp_at = stamp, time.monotonic()
        self.seen.add(sequence)
        return plaintext

    def read(self, plaintext: bytes) -> None:
        at = 10
        while at < len(plaintext):
            kind = plaintext[at]
            self.eliciting = self.eliciting or kind in ELICITING
            match kind:
                case 0x01:
                    largest, size = struct.unpack_from(">QB", plaintext, at + 1)
                    assert largest < self.sequence
                    bits = int.from_bytes(plaintext[at + 10 : at + 10 + size], "big")
                    assert size == (bits.bit_length() + 7) // 8 <= 128
                    self.phase_proven = self.phase_proven or largest >= self.phase_began
                    at += 10 + size
                case 0x02:
                    self.credit, limit = struct.unpack_from(">QQ", plaintext, at + 1)
                    assert self.credit <= limit
                    at += 17
                case 0x03:
                    stream, number, size = struct.unpack_from(">HIH", plaintext, at + 1)
                    at += 9 + size
                    assert stream == 3
                    self.states[number] = int.from_bytes(plaintext[at - size : at], "big")
                case 0x04:
                    offset, size = struct.unpack_from(">QH", plaintext, at + 1)
                    at += 11 + size
                    self.received[offset] = plaintext[at - size : at]
                case 0x05:
                    at += 1
                case 0x06:
                    self.closed = plaintext[at + 1]
                    at += 3 + plaintext[at + 2]
                case 0x09:
                    number, total, offset, size = struct.unpack_from(">QIIH", plaintext, at + 1)
                    at += 19 + size
                    assert self.totals.setdefault(number, total) == total
                    self.parts.setdefault(number, {})[offset] = plaintext[at - size : at]
                case 0x0A:
                    self.message_low_water, _ = struct.unpack_from(">QQ", plaintext, at + 1)
                    at += 17
                case _:
                    raise AssertionError(f"frame {kind}")
        assert at == len(plaintext)
        self.assemble()

    def assemble(self) -> None:
        for offset in sorted(self.received):
            end = len(self.stream)
            if offset <= end < offset + len(self.received[offset]):
                self.stream += self.received[offset][end - offset :]
        position, self.ordered = 0, []
        while position + 4 <= len(self.stream):
            (size,) = struct.unpack_from(">I", self.stream, position)
            if position + 4 + size > len(self.stream):
                break
            self.ordered.append(hashlib.sha256(self.stream[position + 4 : position + 4 + size]).hexdigest())
            position += 4 + size
        for number, parts in self.parts.items():
            message = bytearray(self.totals[number])
            missing = set(range(self.totals[number]))
            for offset, part in parts.items():
                message[offset : offset + len(part)] = part
                missing.difference_update(range(offset, offset + len(part)))
            if number not in self.unordered and not missing:
                self.unordered[number] = hashlib.sha256(message).hexdigest()

    def acknowledgement(self) -> bytes:
        largest = max(self.seen)
        bits = sum(1 << (largest - 1 - n) for n in self.seen if largest - 1024 <= n < largest)
        field = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
        low_water = 0
        while low_water in self.unordered:
            low_water += 1
        taken = sum(self.totals[number] for number in self.unordered)
        return (
            struct.pack(">BQB", 0x01, largest, len(field))
            + field
            + struct.pack(">BQQ", 0x02, len(self.stream), len(self.stream) + WINDOW)
            + struct.pack(">BQQ", 0x0A, low_water, taken + WINDOW)
        )

    def converse(self) -> None:
        hello, there = b"hello, in order", b"hello, out of order"
        stream = struct.pack(">I", len(hello)) + hello
        number = 0
        while not self.is_done(len(stream)):
            assert time.monotonic() < self.deadline, vars(self)
            frames = self.acknowledgement() if self.seen else b""
            if self.credit < len(stream):
                frames += struct.pack(">BQH", 0x04, 0, len(stream)) + stream
            if self.message_low_water < 1:
                middle = len(there) // 2
                for start, end in ((middle, len(there)), (0, middle)):
                    frames += struct.pack(">BQIIH", 0x09, 0, len(there), start, end - start)
                    frames += there[start:end]
            frames += struct.pack(">BHIH", 0x03, 9, number, 4) + struct.pack(">I", number)
            number += 1
            self.send(frames)
            self.eliciting = False
            while (datagram := self.receive()) is not None:
                plaintext = self.open(datagram)
                if plaintext is not None:
                    self.read(plaintext)
                if self.eliciting:
                    break
        for _ in range(3):
            self.send(struct.pack(">BBB", 0x06, 0, 4) + b"done")

    def is_done(self, sent: int) -> bool:
        return (
            len(self.states) >= self.want["states"]
            and len(self.ordered) >= self.want["ordered"]
            and len(self.unordered) >= self.want["unordered"]
            and min(self.opening.number, self.sealing.number) >= self.want["phases"]
            and self.credit >= sent
            and self.message_low_water >= 1
        )


def main() -> None:
    """Talk to the server that standard input names."""
    reader = Reader(json.load(sys.stdin))
    reader.handshake()
    reader.converse()
    report = {
        "unanswered": reader.unanswered,
        "retries": reader.retries,
        "states": sorted(reader.states.items()),
        "ordered": reader.ordered,
        "unordered": sorted(reader.unordered.items()),
        "phases": [reader.sealing.number, reader.opening.number],
        "echoes": reader.echoes,
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
