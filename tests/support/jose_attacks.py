"""Boxes and tokens that lax readers take, made for real: under the right keys, so that one rule refuses each.

Where another implementation is known to take one, ``taken_by_erlang_jose`` says so, and
``tests/jose/test_erlang_jose.py`` asks it: an attack that nobody falls for would prove nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bridge.jose import Jwk, box_compact, sign
from bridge.jose.agreement import concat_kdf, shared_secret
from bridge.jose.curves import EC_CURVES
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from bridge.jose.signature import sign_raw
from tests.support.jose_keys import CURVES, KEYS, Header, genuine_token

PLAINTEXT: Final = b"let me through"


def _odd(curve: str) -> Jwk:
    """A key whose private number is odd: half of all keys, and the half that a point of order 2 hits."""
    while base64url_decode_untrusted((key := Jwk.generate(curve)).to_dict()["d"])[-1] % 2 == 0:
        pass
    return key


BOB: Final = _odd("P-256")
ALICE, MALLORY = Jwk.generate(), Jwk.generate()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxAttack:
    """A box, and the private key whose holder it is meant to fool."""

    name: str
    box: dict[str, Any] | str
    recipient: Jwk = BOB
    taken_by_erlang_jose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAttack:
    """A token, and the public key under which it is presented."""

    name: str
    token: dict[str, Any] | str
    key: Jwk = ALICE
    taken_by_erlang_jose: bool = False


def sealed(
    recipient: Jwk = BOB,
    change: Callable[[Header], object] = lambda header: None,
    *,
    raw_header: Callable[[bytes], bytes] = lambda raw: raw,
    secret: bytes | None = None,
    plaintext: bytes = PLAINTEXT,
    iv: bytes = bytes(12),
    tag_bytes: int = 16,
) -> dict[str, str]:
    """Seal as a careless or hostile sender can: any header, secret, initialisation vector, length of tag."""
    sender = Jwk.generate(recipient.curve or "")
    header: Header = {"alg": "ECDH-ES", "enc": "A128GCM", "epk": sender.public().to_dict()}
    change(header)
    agreed = shared_secret(sender, recipient) if secret is None else secret
    key = concat_kdf(agreed, algorithm="A128GCM", apu=b"", apv=b"", size=16)
    protected = base64url_encode(raw_header(json_encode(header)))
    encryptor = Cipher(algorithms.AES(key), modes.GCM(iv)).encryptor()
    encryptor.authenticate_additional_data(protected.encode())
    ciphertext = encryptor.update(plaintext) + encryptor.finalize()
    return {
        "ciphertext": base64url_encode(ciphertext),
        "encrypted_key": "",
        "iv": base64url_encode(iv),
        "protected": protected,
        "tag": base64url_encode(encryptor.tag[:tag_bytes]),
    }


def _epk(curve: str, **coordinates: bytes) -> Callable[[Header], object]:
    members = {name: base64url_encode(raw) for name, raw in coordinates.items()}
    kty = "EC" if curve in EC_CURVES else "OKP"
    return lambda header: header.update(epk={"kty": kty, "crv": curve, **members})


def box_attacks() -> Iterator[BoxAttack]:
    """Every way known to get a box past a lax reader."""
    for size in range(16):
        name = f"a tag of {size} bytes"
        yield BoxAttack(name=name, box=sealed(tag_bytes=size), taken_by_erlang_jose=size > 0)
    for size in (8, 11, 13, 16, 128):
        name = f"an initialisation vector of {size} bytes"
        yield BoxAttack(name=name, box=sealed(iv=bytes(size)), taken_by_erlang_jose=True)
    yield from _header_attacks()
    yield from _encoding_attacks()
    yield from _key_attacks()
    huge = base64url_encode(bytes(900_000))
    yield BoxAttack(name="a ciphertext over the limit", box={**sealed(), "ciphertext": huge})
    yield BoxAttack(name="a megabyte of dots", box="." * 1_048_576)
    yield BoxAttack(name="a megabyte of brackets", box="{" + "[" * 1_048_575)
    yield BoxAttack(name="a megabyte of quotation marks", box="{" + '"' * 1_048_575)
    yield BoxAttack(name="a megabyte of members", box="{" + ",".join(f'"{n}":1' for n in range(90_000)) + "}")
    yield BoxAttack(name="a header that nests for ever", box=sealed(raw_header=lambda _: b'{"a":' * 600))


def _header_attacks() -> Iterator[BoxAttack]:
    def header(name: str, change: Callable[[Header], object], *, taken: bool = False) -> BoxAttack:
        return BoxAttack(name=name, box=sealed(BOB, change), taken_by_erlang_jose=taken)

    bomb = zlib.compressobj(wbits=-15)
    packed = bomb.compress(bytes(8 * 1_048_576)) + bomb.flush()
    yield BoxAttack(
        name="8 MiB in 8 KiB, by zip", box=sealed(BOB, lambda h: h.update(zip="DEF"), plaintext=packed)
    )
    yield header("an unknown critical extension", lambda h: h.update(crit=["exp"], exp=1), taken=True)
    yield header("a critical extension that is missing", lambda h: h.update(crit=["exp"]), taken=True)
    yield header("an empty list of critical extensions", lambda h: h.update(crit=[]), taken=True)
    yield header(
        "key wrapping by password, a milliard rounds",
        lambda h: h.update(alg="PBES2-HS256+A128KW", p2c=10**9, p2s="AAAAAAAAAAA"),
    )
    for algorithm in ("dir", "none", "RSA1_5", "RSA-OAEP", "A128KW", "ECDH-ES+A128KW", "ECDH-1PU+A256KW"):
        yield header(f"algorithm {algorithm}", lambda h, a=algorithm: h.update(alg=a))  # type: ignore[misc]
    yield header(
        "a private number in the sender's key",
        lambda h: h["epk"].update(d=base64url_encode(bytes(31) + b"\1")),
        taken=True,
    )
    yield header(
        "an address to fetch a key from", lambda h: h.update(jku="https://example.org/keys"), taken=True
    )
    yield header("an attacker's key", lambda h: h.update(jwk=MALLORY.public().to_dict()), taken=True)


def _encoding_attacks() -> Iterator[BoxAttack]:
    box = sealed()
    for part in ("iv", "ciphertext", "tag"):
        padded = box[part] + "=" * (-len(box[part]) % 4 or 4)
        taken = part != "iv"
        yield BoxAttack(name=f"a padded {part}", box={**box, part: padded}, taken_by_erlang_jose=taken)
        yield BoxAttack(
            name=f"white space in the {part}", box={**box, part: box[part][:4] + "\n" + box[part][4:]}
        )
    loose = box["tag"][:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[box["tag"][-1]]
    yield BoxAttack(name="a tag with loose bits", box={**box, "tag": loose}, taken_by_erlang_jose=True)
    yield BoxAttack(
        name="a member twice in the header",
        box=sealed(raw_header=lambda raw: raw.replace(b'"kty":', b'"kty":"OKP","kty":')),
        taken_by_erlang_jose=True,
    )
    yield BoxAttack(
        name="a member twice by an escape",
        box=sealed(raw_header=lambda raw: raw.replace(b'"kty":', b'"\\u006bty":"OKP","kty":')),
        taken_by_erlang_jose=True,
    )
    yield BoxAttack(name="text after the header", box=sealed(raw_header=lambda raw: raw + b"{}"))
    text = json_encode(box).decode()
    yield BoxAttack(name="a part twice", box=f'{text[:-1]},"tag":"{box["tag"]}"}}')
    for extra in ("unprotected", "header", "aad", "recipients"):
        yield BoxAttack(name=f"a member {extra}", box={**box, extra: {}}, taken_by_erlang_jose=extra != "aad")
    yield BoxAttack(name="an encrypted key that is not used", box={**box, "encrypted_key": "AAAA"})
    yield BoxAttack(name="a sixth segment", box=box_compact(box) + ".AAAA")


def _key_attacks() -> Iterator[BoxAttack]:
    for curve in CURVES:
        if curve != "P-256":
            # erlang-jose takes X25519 here for a question that it never stops thinking about.
            change = _replace_epk(KEYS[curve])
            yield BoxAttack(name=f"a sender's key on {curve} to one on P-256", box=sealed(BOB, change))
    yield BoxAttack(
        name="a P-256 key to one on X25519",
        box=sealed(KEYS["X25519"], _replace_epk(ALICE)),
        recipient=KEYS["X25519"],
    )
    for curve, size in (("P-256", 32), ("P-384", 48), ("P-521", 66)):
        recipient = BOB if curve == "P-256" else _odd(curve)
        # y = 0: twice the point is nothing, so an odd number of times it is itself, whoever's number it is.
        x = (5).to_bytes(size)
        yield BoxAttack(
            name=f"a point of order 2 beside {curve}",
            box=sealed(recipient, _epk(curve, x=x, y=bytes(size)), secret=x),
            recipient=recipient,
        )
        for name, one, other in (
            ("the point at infinity", bytes(size), bytes(size)),
            ("coordinates over the prime", b"\xff" * size, b"\xff" * size),
            ("short coordinates", bytes(size - 1), bytes(size - 1)),
        ):
            box = sealed(recipient, _epk(curve, x=one, y=other), secret=bytes(size))
            yield BoxAttack(name=f"{name} for {curve}", box=box, recipient=recipient)
    primes = {"X25519": 2**255 - 19, "X448": 2**448 - 2**224 - 1}
    order_8 = (
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
    for curve, prime in primes.items():
        size = len(base64url_decode_untrusted(KEYS[curve].to_dict()["x"]))
        weak = {0, 1, prime - 1, prime, prime + 1}
        if curve == "X25519":
            weak |= {*order_8, 2**255, 2**255 + 1, *(2**255 + number for number in order_8)}
        for number in sorted(weak):
            # Every exchange with such a key gives zero: anybody can seal, and read what is sealed to it.
            change = _epk(curve, x=number.to_bytes(size, "little"))
            yield BoxAttack(
                name=f"a {curve} key of small order, {number:x}",
                box=sealed(KEYS[curve], change, secret=bytes(size)),
                recipient=KEYS[curve],
            )


def _replace_epk(key: Jwk) -> Callable[[Header], object]:
    return lambda header: header.update(epk=key.public().to_dict())


def token_attacks() -> Iterator[TokenAttack]:
    """Every way known to get a token past a lax reader, under a key that is a key."""

    def header(name: str, members: Header, *, taken: bool = False) -> TokenAttack:
        token = genuine_token(ALICE, "ES256", json_encode({"alg": "ES256", **members}))
        return TokenAttack(name=name, token=token, taken_by_erlang_jose=taken)

    yield header("an unknown critical extension", {"crit": ["exp"], "exp": 1}, taken=True)
    yield header("an empty list of critical extensions", {"crit": []}, taken=True)
    yield header("a payload that is not encoded", {"crit": ["b64"], "b64": False})
    yield header("a packed payload", {"zip": "DEF"}, taken=True)
    for algorithm in ("none", "None", "HS256", "ES384", "EdDSA"):
        covered = f"{base64url_encode(json_encode({'alg': algorithm}))}.{base64url_encode(PLAINTEXT)}"
        yield TokenAttack(name=f"{algorithm}, and no signature", token=f"{covered}.")
    secret = Jwk.from_dict({"kty": "oct", "k": base64url_encode(ALICE.public().to_pem())})
    confused = genuine_token(secret, "HS256", json_encode({"alg": "HS256"}))
    yield TokenAttack(name="the public key as a shared secret", token=confused)
    carried = json_encode({"alg": "ES256", "jwk": MALLORY.public().to_dict()})
    yield TokenAttack(name="a key that the token carries", token=genuine_token(MALLORY, "ES256", carried))
    twice = b'{"alg":"none","alg":"ES256"}'
    yield TokenAttack(
        name="a member twice", token=genuine_token(ALICE, "ES256", twice), taken_by_erlang_jose=True
    )
    yield from _bent_signatures()
    token = sign(PLAINTEXT, ALICE)
    protected, payload, signature = token.split(".")
    flattened = {"protected": protected, "payload": payload, "signature": signature}
    yield TokenAttack(name="a padded signature", token=token + "==", taken_by_erlang_jose=True)
    yield TokenAttack(name="white space after the signature", token=token + "\n")
    yield TokenAttack(
        name="an unprotected header",
        token={**flattened, "header": {"alg": "none"}},
        taken_by_erlang_jose=True,
    )
    yield TokenAttack(name="several signatures", token={"payload": payload, "signatures": [flattened]})
    text = json_encode(flattened).decode()
    yield TokenAttack(name="a part twice", token=f'{text[:-1]},"payload":"{payload}"}}')
    yield TokenAttack(name="a megabyte of dots", token="." * 1_048_576)
    yield TokenAttack(name="a megabyte of brackets", token="{" + "[" * 1_048_575)


def _bent_signatures() -> Iterator[TokenAttack]:
    """Other numbers that stand for the same signature."""
    head, _, signature = sign(PLAINTEXT, ALICE).rpartition(".")
    raw, order = base64url_decode_untrusted(signature), EC_CURVES["P-256"].order
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    for name, bent in (
        ("r and the order", (r + order).to_bytes(33) + s.to_bytes(32)),
        ("s and the order", r.to_bytes(32) + (s + order).to_bytes(33)),
        ("DER", encode_dss_signature(r, s)),
        ("a zero before each number", b"\0" + raw[:32] + b"\0" + raw[32:]),
        ("zeros", bytes(64)),
        ("the order itself", order.to_bytes(32) * 2),
    ):
        yield TokenAttack(
            name=f"signed by {name}",
            token=f"{head}.{base64url_encode(bent)}",
            taken_by_erlang_jose=name.startswith("a zero"),
        )
    edwards = KEYS["Ed25519"]
    covered = f"{base64url_encode(json_encode({'alg': 'EdDSA'}))}.{base64url_encode(PLAINTEXT)}"
    raw = sign_raw(covered.encode(), edwards, "EdDSA")
    group = 2**252 + 27742317777372353535851937790883648493
    high = (int.from_bytes(raw[32:], "little") + group).to_bytes(32, "little")
    token = f"{covered}.{base64url_encode(raw[:32] + high)}"
    yield TokenAttack(name="signed by s and the order, Ed25519", token=token, key=edwards)


def small_order_keys() -> Iterator[tuple[str, Header, str]]:
    """Edwards keys under which one signature, made by nobody, holds for message after message.

    Yields:
        name, members of the key, a token. R is the neutral point and s is zero, so what is checked comes down
        to h·A = 0: true for every message where A is neutral, for some where its order is 2, 4 or 8.
    """
    primes = {"Ed25519": 2**255 - 19, "Ed448": 2**448 - 2**224 - 1}
    order_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    covered = f"{base64url_encode(json_encode({'alg': 'EdDSA'}))}.{base64url_encode(PLAINTEXT)}"
    for curve, prime in primes.items():
        size = len(base64url_decode_untrusted(KEYS[curve].to_dict()["x"]))
        signature = base64url_encode((1).to_bytes(size, "little") + bytes(size))
        weak = [1, 0, prime - 1, prime, prime + 1]
        if curve == "Ed25519":
            weak += [order_8, prime - order_8]
        for y in weak:
            for sign_bit in (0, 2 ** (8 * size - 1)):
                x = base64url_encode((y + sign_bit).to_bytes(size, "little"))
                name = f"{curve} y = {y:x}, {'negative' if sign_bit else 'positive'}"
                yield name, {"kty": "OKP", "crv": curve, "x": x}, f"{covered}.{signature}"
