"""What can be tried against a signed box, tried (R0-15..22).

Alice seals for Bob. Mallory is anybody: she holds a long-lived key of her own that everybody looks up, sees
every box and sends what she likes. Some attacks are a recipient's or a sender's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from bridge.errors import BoxError, SignatureError
from bridge.jose import Jwk, OpenedBox, box, content, open_signed_box, seal_signed_box, signed_box
from bridge.jose.curves import EC_CURVES
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.signature import sign_raw, verify_raw
from tests.support.jose_keys import flip_bit

ALICE, BOB, CHARLIE, MALLORY = (Jwk.generate() for _ in range(4))
NOW_MS = 1_700_000_000_000
LIFETIME_MS, SKEW_MS = 5000, 30_000
SESSION = bytes(range(16))
_READING = ContextVar("reading", default=False)


def _seal(payload: bytes = b"state", **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "sender": ALICE,
        "recipient": BOB.public(),
        "session": SESSION,
        "sequence": 7,
        "issued_at_ms": NOW_MS,
        "lifetime_ms": LIFETIME_MS,
        "purpose": "release",
        "direction": "n",
        "context": "gun",
    }
    return seal_signed_box(payload, **{**arguments, **changes})


def _open(token: str, **changes: Any) -> OpenedBox:
    arguments: dict[str, Any] = {
        "recipient": BOB,
        "sender": ALICE.public(),
        "purpose": "release",
        "direction": "n",
        "session": SESSION,
        "context": "gun",
        "now_ms": NOW_MS,
    }
    before = _READING.set(True)
    try:
        return open_signed_box(token, **{**arguments, **changes})
    finally:
        _READING.reset(before)


def _members(segment: str) -> dict[str, Any]:
    return json_object_untrusted(base64url_decode_untrusted(segment))


def _encoded(members: dict[str, Any]) -> str:
    return base64url_encode(json_encode(members))


def _signed(segments: list[str], key: Jwk) -> str:
    """Sign the first six segments."""
    covered = ".".join(segments[:6])
    return f"{covered}.{base64url_encode(sign_raw(covered.encode(), key, 'ES256'))}"


def _changed(token: str, **changes: Any) -> list[str]:
    """The segments with members of the signed header changed."""
    segments = token.split(".")
    return [_encoded({**_members(segments[0]), **changes}), *segments[1:]]


@pytest.fixture
def decrypted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What readers did with a secret from here on: agreeing on a key, deriving one, opening under one."""
    done: list[str] = []

    def watch(module: Any, name: str) -> None:
        honest = getattr(module, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            if _READING.get():
                done.append(name)
            return honest(*arguments, **named)

        monkeypatch.setattr(module, name, watched)

    for name in ("shared_secret", "concat_kdf"):
        watch(box, name)
    watch(signed_box, "open_parts")
    watch(content.ContentEncryption, "open")
    watch(content, "AESGCM")
    return done


VALID_OTHERS: dict[str, Any] = {
    "v": 2,
    "snd": MALLORY.thumbprint(),
    "rcp": CHARLIE.thumbprint(),
    "epk": MALLORY.thumbprint(),
    "sid": base64url_encode(bytes(16)),
    "seq": 8,
    "iat": NOW_MS + 1,
    "ttl": 0,
    "pur": "entity",
    "dir": "i",
    "ctx": "bow",
}


def test_every_member_that_can_have_another_value_is_tried() -> None:
    assert VALID_OTHERS.keys() | {"alg", "b64", "crit"} == _members(_seal().split(".")[0]).keys()


@pytest.mark.parametrize("name", VALID_OTHERS)
def test_a_bound_field_that_was_changed_breaks_the_signature(name: str, decrypted: list[str]) -> None:
    """The reader expects the changed value, so that nothing but the signature can refuse it."""
    token = ".".join(_changed(_seal(), **{name: VALID_OTHERS[name]}))
    changed: dict[str, dict[str, Any]] = {
        "snd": {"sender": MALLORY.public()},
        "rcp": {"recipient": CHARLIE},
        "sid": {"session": bytes(16)},
        "pur": {"purpose": "entity"},
        "dir": {"direction": "i"},
        "ctx": {"context": "bow"},
    }
    # Sender and recipient stand in the box's own header as well, which is compared before.
    promised = BoxError if name in ("snd", "rcp") else SignatureError
    with pytest.raises(promised):
        _open(token, **changed.get(name, {}))
    assert decrypted == []


@pytest.mark.parametrize("name", ["v", "snd", "rcp", "epk", "sid", "iat", "pur", "dir", "ctx"])
def test_a_bound_field_that_the_sender_signed_otherwise_is_not_what_the_reader_asked_for(
    name: str, decrypted: list[str]
) -> None:
    """The signature holds here: the check of the field itself refuses."""
    value = NOW_MS + SKEW_MS + 1 if name == "iat" else VALID_OTHERS[name]
    with pytest.raises(BoxError):
        _open(_signed(_changed(_seal(), **{name: value}), ALICE))
    assert decrypted == []


@pytest.mark.parametrize("part", [1, 3, 4, 5])
def test_the_signature_covers_each_part_of_the_box(part: int, decrypted: list[str]) -> None:
    segments = _seal().split(".")
    for bit in (0, 40, 90):
        altered = [*segments[:part], flip_bit(segments[part], bit), *segments[part + 1 :]]
        with pytest.raises((BoxError, SignatureError)):
            _open(".".join(altered))
    assert decrypted == []


# Stripping and signing again.


def _apu_of_mallory(segments: list[str]) -> list[str]:
    return [segments[0], _encoded({**_members(segments[1]), "apu": MALLORY.thumbprint()}), *segments[2:]]


@pytest.mark.parametrize(
    ("strip", "reason"),
    [
        (lambda segments: segments, "between other keys"),
        # With the header of the box in her name its key is another one, and its tag covers the header.
        (_apu_of_mallory, "altered or is for another key"),
    ],
)
def test_a_box_that_was_stripped_and_signed_again_is_not_the_strippers(
    strip: Callable[[list[str]], list[str]], reason: str
) -> None:
    """Mallory takes Alice's box, whose content she cannot read, and sends it as her own."""
    token = _signed(strip(_changed(_seal(), snd=MALLORY.thumbprint())), MALLORY)
    with pytest.raises(BoxError, match=reason):
        _open(token, sender=MALLORY.public())


def test_a_box_without_its_signature_is_no_signed_box(decrypted: list[str]) -> None:
    segments = _seal().split(".")
    bare = ".".join(segments[1:6])
    for token in (bare, f"{bare}.", f"..{bare}", ".".join([*segments[:6], ""]), ".".join(segments[:6])):
        with pytest.raises((BoxError, SignatureError)):
            _open(token)
    assert decrypted == []


def test_a_signature_does_not_fit_another_box_of_the_same_sender(decrypted: list[str]) -> None:
    one, other = _seal().split("."), _seal(sequence=8).split(".")
    for token in ([*one[:6], other[6]], [one[0], *other[1:]], [*other[:1], *one[1:]]):
        with pytest.raises(SignatureError):
            _open(".".join(token))
    assert decrypted == []


# Surreptitious forwarding: Bob, who opened it, passes it on as if Alice had sent it to Charlie.


def test_a_box_passed_on_as_it_is_is_for_another(decrypted: list[str]) -> None:
    with pytest.raises(BoxError, match="another recipient"):
        _open(_seal(), recipient=CHARLIE)
    assert decrypted == []


def test_alices_signature_does_not_hold_over_bobs_box_for_charlie(decrypted: list[str]) -> None:
    theirs = _seal().split(".")
    inside = ALICE.thumbprint_bytes() + CHARLIE.thumbprint_bytes() + b"state"
    resealed = box.seal(inside, CHARLIE, Jwk.generate(), apu=ALICE.thumbprint(), apv=CHARLIE.thumbprint())
    mixed = ".".join([theirs[0], box.box_compact(resealed), theirs[6]])
    with pytest.raises(BoxError):
        _open(mixed, recipient=CHARLIE)
    header = _members(theirs[0]) | {"rcp": CHARLIE.thumbprint(), "epk": _ephemeral(resealed)}
    token = ".".join([_encoded(header), box.box_compact(resealed), theirs[6]])
    with pytest.raises(SignatureError):
        _open(token, recipient=CHARLIE)
    assert decrypted == []


def _ephemeral(sealed: dict[str, str]) -> str:
    return Jwk.from_dict(_members(sealed["protected"])["epk"]).thumbprint()


@pytest.mark.parametrize("named", [(ALICE, BOB), (ALICE, CHARLIE), (BOB, BOB)])
def test_what_is_inside_names_who_sealed_it_and_for_whom(named: tuple[Jwk, Jwk]) -> None:
    """Bob signs, honestly, a box whose inside says that it is somebody else's."""
    inside = named[0].thumbprint_bytes() + named[1].thumbprint_bytes() + b"state"
    resealed = box.seal(inside, CHARLIE, Jwk.generate(), apu=BOB.thumbprint(), apv=CHARLIE.thumbprint())
    header = _members(_seal().split(".")[0]) | {
        "snd": BOB.thumbprint(),
        "rcp": CHARLIE.thumbprint(),
        "epk": _ephemeral(resealed),
    }
    token = _signed([_encoded(header), *box.box_compact(resealed).split(".")], BOB)
    with pytest.raises(BoxError, match="sealed by or for somebody else"):
        _open(token, sender=BOB.public(), recipient=CHARLIE)


# Replay, and other spellings of one signature.


def _malleated(token: str) -> str:
    """The same signature with the other s: it holds, and no key was needed to make it."""
    head, _, signature = token.rpartition(".")
    raw = base64url_decode_untrusted(signature)
    other = EC_CURVES["P-256"].order - int.from_bytes(raw[32:])
    return f"{head}.{base64url_encode(raw[:32] + other.to_bytes(32))}"


def test_a_replay_has_the_replay_key_of_the_first_whatever_its_bytes() -> None:
    """Claims, not bytes, tell a box that was seen."""
    first = _seal()
    seen: set[tuple[str, bytes, int]] = set()
    taken = []
    for token in (first, first, _malleated(first), _malleated(_malleated(first))):
        claims = _open(token).claims
        key = (claims.sender, claims.session, claims.sequence)
        if key not in seen:
            seen.add(key)
            taken.append(token)
    assert _malleated(first) != first
    assert taken == [first]


def test_a_replay_into_another_session_or_after_its_time_is_refused(decrypted: list[str]) -> None:
    with pytest.raises(BoxError, match="another session"):
        _open(_seal(), session=bytes(16))
    with pytest.raises(BoxError, match="expired"):
        _open(_seal(), now_ms=NOW_MS + LIFETIME_MS + SKEW_MS + 1)
    assert decrypted == []


def test_spellings_of_a_signature_that_no_signer_makes_are_refused(decrypted: list[str]) -> None:
    token = _seal()
    head, _, signature = token.rpartition(".")
    raw, order = base64url_decode_untrusted(signature), EC_CURVES["P-256"].order
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    bent = (
        (r + order).to_bytes(33) + s.to_bytes(32),
        r.to_bytes(32) + (s + order).to_bytes(33),
        b"\0" + raw[:32] + b"\0" + raw[32:],
        raw + b"\0",
        bytes(64),
        (order - r).to_bytes(32) + s.to_bytes(32),
        order.to_bytes(32) + order.to_bytes(32),
    )
    for spelling in bent:
        with pytest.raises(SignatureError):
            _open(f"{head}.{base64url_encode(spelling)}")
    for text in (token + "=", token + "\n", token + " ", token.replace("-", "+").replace("_", "/") + "="):
        with pytest.raises(BoxError):
            _open(text)
    assert decrypted == []


# Key substitution.

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_B = (_G[1] ** 2 - _G[0] ** 3 + 3 * _G[0]) % _P
_Point = tuple[int, int] | None


def _add(one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = (3 * one[0] ** 2 - 3) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope**2 - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _times(number: int, point: _Point) -> _Point:
    result: _Point = None
    while number:
        if number & 1:
            result = _add(result, point)
        point, number = _add(point, point), number >> 1
    return result


def _keys_under_which_it_holds(signature: bytes, covered: bytes) -> list[Jwk]:
    """Every P-256 key whose signature over these bytes this is: Alice's, and one that nobody chose."""
    order = EC_CURVES["P-256"].order
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    digest = int.from_bytes(hashlib.sha256(covered).digest())
    y = pow(r**3 - 3 * r + _B, (_P + 1) // 4, _P)
    found = []
    for point in ((r, y), (r, _P - y)):
        key = _add(
            _times(s * pow(r, -1, order) % order, point), _times(-digest * pow(r, -1, order) % order, _G)
        )
        assert key is not None
        x, y_of_key = (base64url_encode(number.to_bytes(32)) for number in key)
        found.append(Jwk.from_dict({"kty": "EC", "crv": "P-256", "x": x, "y": y_of_key}))
    return found


def test_a_key_made_to_fit_a_signature_is_not_the_one_that_the_box_names(decrypted: list[str]) -> None:
    """Mallory registers a key that Alice's signature fits, and claims Alice's box."""
    token = _seal()
    covered, _, signature = token.rpartition(".")
    raw = base64url_decode_untrusted(signature)
    keys = _keys_under_which_it_holds(raw, covered.encode())
    assert ALICE.public() in keys
    (mallorys,) = (key for key in keys if key != ALICE.public())
    verify_raw(raw, covered.encode(), mallorys, "ES256")
    with pytest.raises(BoxError, match="another sender"):
        _open(token, sender=mallorys)
    assert decrypted == []


def test_a_box_whose_ephemeral_key_was_exchanged_is_refused(decrypted: list[str]) -> None:
    """For the reader's own keys as for a key that Mallory holds; even where the sender signs it."""
    for key in (MALLORY, ALICE, BOB, Jwk.generate()):
        segments = _seal().split(".")
        header = _encoded({**_members(segments[1]), "epk": key.public().to_dict()})
        with pytest.raises(SignatureError):
            _open(".".join([segments[0], header, *segments[2:]]))
        with pytest.raises(BoxError, match="another ephemeral key"):
            _open(_signed([segments[0], header, *segments[2:]], ALICE))
    assert decrypted == []


@pytest.mark.parametrize("long_lived", [ALICE, BOB])
def test_a_box_under_a_long_lived_key_is_refused_though_its_sender_signed_it(
    long_lived: Jwk, decrypted: list[str]
) -> None:
    inside = ALICE.thumbprint_bytes() + BOB.thumbprint_bytes() + b"state"
    sealed = box.seal(inside, BOB, long_lived, apu=ALICE.thumbprint(), apv=BOB.thumbprint())
    header = _members(_seal().split(".")[0]) | {"epk": long_lived.thumbprint()}
    with pytest.raises(BoxError, match="long-lived"):
        _open(_signed([_encoded(header), *box.box_compact(sealed).split(".")], ALICE))
    assert decrypted == []


def test_no_key_that_a_box_carries_ever_checks_its_signature(
    monkeypatch: pytest.MonkeyPatch, decrypted: list[str]
) -> None:
    checked: list[Jwk] = []

    def watch(signature: bytes, covered: bytes, key: Jwk, algorithm: str) -> None:
        checked.append(key)
        verify_raw(signature, covered, key, algorithm)

    monkeypatch.setattr(signed_box, "verify_raw", watch)
    carried = {"jwk": MALLORY.public().to_dict(), "x5c": ["AAAA"], "jku": "https://example.org", "kid": "k"}
    for name, value in carried.items():
        segments = _seal().split(".")
        outer = [_encoded({**_members(segments[0]), name: value}), *segments[1:]]
        inner = [segments[0], _encoded({**_members(segments[1]), name: value}), *segments[2:]]
        for attempt in (outer, inner):
            with pytest.raises(BoxError):
                _open(_signed(attempt, MALLORY))
    with pytest.raises(SignatureError):
        _open(_signed(_seal().split("."), MALLORY))
    assert decrypted == []
    alice = ALICE.public()
    _open(_seal(), sender=alice)
    assert all(key.thumbprint() == alice.thumbprint() for key in checked)
    assert checked[-1] is alice


# Use and time.


@pytest.mark.parametrize(
    ("sealed", "asked"),
    [
        ({"purpose": "init"}, {"purpose": "reply"}),
        ({"purpose": "release"}, {"purpose": "releas"}),
        ({"direction": "i"}, {"direction": "r"}),
        ({"direction": "r"}, {"direction": "i"}),
        ({"session": bytes(16)}, {"session": bytes(15) + b"\1"}),
        ({"context": "a"}, {"context": "A"}),
        ({"context": ""}, {"context": "a"}),
        ({"context": "\u00e9"}, {"context": "e\u0301"}),
    ],
)
def test_a_box_for_one_use_serves_no_other(
    sealed: dict[str, Any], asked: dict[str, Any], decrypted: list[str]
) -> None:
    token = _seal(**sealed)
    with pytest.raises(BoxError):
        _open(token, **{**sealed, **asked})
    assert decrypted == []
    _open(token, **sealed)
    assert "AESGCM" in decrypted


@pytest.mark.parametrize(
    ("lifetime_ms", "age_ms", "opens"),
    [
        (LIFETIME_MS, LIFETIME_MS + SKEW_MS - 1, True),
        (LIFETIME_MS, LIFETIME_MS + SKEW_MS, True),
        (LIFETIME_MS, LIFETIME_MS + SKEW_MS + 1, False),
        (LIFETIME_MS, -SKEW_MS + 1, True),
        (LIFETIME_MS, -SKEW_MS, True),
        (LIFETIME_MS, -SKEW_MS - 1, False),
        (60_000, 60_000 + SKEW_MS, True),
        (60_000, 60_000 + SKEW_MS + 1, False),
        (1, SKEW_MS + 2, False),
        (0, 10**12, True),
        (0, -SKEW_MS - 1, False),
    ],
)
def test_the_limits_of_the_clock(lifetime_ms: int, age_ms: int, opens: bool, decrypted: list[str]) -> None:
    token = _seal(lifetime_ms=lifetime_ms)
    if opens:
        assert _open(token, now_ms=NOW_MS + age_ms).payload == b"state"
    else:
        with pytest.raises(BoxError, match=r"expired|ahead"):
            _open(token, now_ms=NOW_MS + age_ms)
        assert decrypted == []


@pytest.mark.parametrize("issued_at_ms", [2**64 - 1, 2**63, 0])
def test_no_issue_time_wraps_the_clock(issued_at_ms: int, decrypted: list[str]) -> None:
    token = _seal(issued_at_ms=issued_at_ms)
    with pytest.raises(BoxError, match=r"expired|ahead"):
        _open(token)
    assert decrypted == []


def test_nothing_is_decrypted_before_the_signature_and_everything_after_it_held(decrypted: list[str]) -> None:
    token = _seal()
    for bit in range(0, 512, 7):
        head, _, signature = token.rpartition(".")
        with pytest.raises(SignatureError):
            _open(f"{head}.{flip_bit(signature, bit)}")
    with pytest.raises(SignatureError):
        _open(_signed(token.split("."), MALLORY))
    assert decrypted == []
    _open(token)
    assert decrypted == ["open_parts", "shared_secret", "concat_kdf", "open", "AESGCM"]
