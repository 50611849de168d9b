"""Signed boxes (R0-15..22): every flipped bit refused, nothing decrypted before the signature held."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BoxError, SignatureError
from bridge.jose import (
    MAX_SIGNED_BOX_BYTES,
    Jwk,
    OpenedBox,
    box,
    box_decrypt,
    open_signed_box,
    peek_claims_untrusted,
    seal_signed_box,
    shared_secret,
    signed_box,
)
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.signature import sign_raw
from bridge.jose.signed_box import MAX_SIGNED_HEADER_BYTES
from tests.support.jose_keys import KEYS, flip_bit

ALICE, BOB, MALLORY = Jwk.generate(), Jwk.generate(), Jwk.generate()
NOW_MS = 1_700_000_000_000
SESSION = bytes(range(16))


def _seal(payload: bytes = b"state", **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "sender": ALICE,
        "recipient": BOB.public(),
        "session": SESSION,
        "sequence": 7,
        "issued_at_ms": NOW_MS,
        "lifetime_ms": 5000,
        "purpose": "release",
        "direction": "n",
        "context": "281474976710657:gun",
    }
    return seal_signed_box(payload, **{**arguments, **changes})


def _open(token: str, **changes: Any) -> OpenedBox:
    arguments: dict[str, Any] = {
        "recipient": BOB,
        "sender": ALICE.public(),
        "purpose": "release",
        "direction": "n",
        "now_ms": NOW_MS,
    }
    return open_signed_box(token, **{**arguments, **changes})


def _resigned(token: str, change: Callable[[dict[str, Any]], object], key: Jwk = ALICE) -> str:
    """Change the signed header and sign again, as a dishonest sender can."""
    segments = token.split(".")
    header = json_object_untrusted(base64url_decode_untrusted(segments[0]))
    change(header)
    covered = ".".join([base64url_encode(json_encode(header)), *segments[1:6]])
    return f"{covered}.{base64url_encode(sign_raw(covered.encode(), key, 'ES256'))}"


@given(
    payload=st.binary(max_size=200),
    session=st.binary(min_size=16, max_size=16),
    sequence=st.integers(0, 2**64 - 1),
    purpose=st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    direction=st.sampled_from(["i", "r", "n"]),
    context=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
)
def test_what_was_sealed_opens(
    payload: bytes, session: bytes, sequence: int, purpose: str, direction: str, context: str
) -> None:
    token = _seal(
        payload, session=session, sequence=sequence, purpose=purpose, direction=direction, context=context
    )
    opened = _open(token, purpose=purpose, direction=direction, session=session, context=context)
    assert opened.payload == payload
    assert opened.claims == peek_claims_untrusted(token)
    assert (opened.claims.sender, opened.claims.recipient) == (ALICE.thumbprint(), BOB.thumbprint())
    assert (opened.claims.session, opened.claims.sequence) == (session, sequence)
    assert opened.claims.context == context


def test_the_middle_segments_are_a_plain_box_and_the_outer_ones_a_detached_signature() -> None:
    segments = _seal().split(".")
    assert len(segments) == 7
    inside = box_decrypt(".".join(segments[1:6]), BOB)
    assert inside == ALICE.thumbprint_bytes() + BOB.thumbprint_bytes() + b"state"


def test_a_handshake_sized_box_fits_a_datagram() -> None:
    token = _seal(
        bytes(32), sequence=2**64 - 1, lifetime_ms=60_000, purpose="init", direction="i", context=""
    )
    assert len(token) < 1150


def test_a_given_ephemeral_key_serves_for_a_further_agreement() -> None:
    ephemeral = Jwk.generate()
    opened = _open(_seal(ephemeral=ephemeral))
    assert opened.ephemeral == ephemeral.public()
    other = Jwk.generate()
    assert shared_secret(ephemeral, other.public()) == shared_secret(other, opened.ephemeral)


def test_the_ephemeral_key_is_fresh_each_time() -> None:
    assert _open(_seal()).ephemeral != _open(_seal()).ephemeral


@pytest.mark.parametrize("segment", [0, 1, 3, 4, 5, 6])
def test_every_flipped_bit_is_refused(segment: int) -> None:
    """R0-15..22."""
    segments = _seal().split(".")
    for bit in range(len(base64url_decode_untrusted(segments[segment])) * 8):
        altered = [*segments[:segment], flip_bit(segments[segment], bit), *segments[segment + 1 :]]
        with pytest.raises((BoxError, SignatureError)):
            _open(".".join(altered))


def test_nothing_is_decrypted_where_the_signature_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """R0-15..22: decrypt never called after a bad signature."""
    opened = []
    monkeypatch.setattr(signed_box, "open_parts", lambda *_: opened.append(1))
    token = _resigned(_seal(), lambda header: None, MALLORY)
    with pytest.raises(SignatureError, match="does not hold"):
        _open(token)
    head, _, signature = _seal().rpartition(".")
    with pytest.raises(SignatureError):
        _open(f"{head}.{flip_bit(signature, 300)}")
    assert opened == []


def test_a_box_signed_over_by_somebody_else_is_refused() -> None:
    """Mallory takes Alice's ciphertext and signs it as her own: the inside still names Alice."""
    token = _resigned(_seal(), lambda header: header.update(snd=MALLORY.thumbprint()), MALLORY)
    with pytest.raises(BoxError, match="between other keys"):
        _open(token, sender=MALLORY.public())


def test_the_identities_inside_must_be_those_of_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = box.seal
    forged = MALLORY.thumbprint_bytes() + BOB.thumbprint_bytes() + b"x"
    monkeypatch.setattr(signed_box, "seal", lambda _, *keys, **names: honest(forged, *keys, **names))
    token = _seal()
    monkeypatch.undo()
    with pytest.raises(BoxError, match="sealed by or for somebody else"):
        _open(token)


def test_a_box_of_another_sender_or_for_another_recipient_is_refused() -> None:
    with pytest.raises(BoxError, match="another sender"):
        _open(_seal(), sender=MALLORY.public())
    with pytest.raises(BoxError, match="another sender"):
        _open(_seal(), sender=KEYS["P-384"].public())
    with pytest.raises(BoxError, match="another recipient"):
        _open(_seal(), recipient=MALLORY)
    with pytest.raises(BoxError, match="not for this key"):
        _open(_seal(), recipient=BOB.public())


@pytest.mark.parametrize(
    "expected",
    [
        {"purpose": "entity"},
        {"direction": "i"},
        {"session": bytes(16)},
        {"context": ""},
        {"now_ms": NOW_MS + 5000 + 30_001},
        {"now_ms": NOW_MS - 30_001},
        {"now_ms": 0},
    ],
)
def test_a_box_for_another_use_or_time_is_refused(expected: dict[str, Any]) -> None:
    with pytest.raises(BoxError):
        _open(_seal(), **expected)


def test_the_edges_of_the_lifetime_are_inside() -> None:
    _open(_seal(), now_ms=NOW_MS + 5000 + 30_000)
    _open(_seal(), now_ms=NOW_MS - 30_000)
    _open(_seal(lifetime_ms=0), now_ms=NOW_MS + 10**12)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(v=2),
        lambda h: h.update(v="1"),
        lambda h: h.update(v=True),
        lambda h: h.update(alg="none"),
        lambda h: h.update(alg="HS256"),
        lambda h: h.update(b64=True),
        lambda h: h.update(b64=0),
        lambda h: h.update(crit=[]),
        lambda h: h.update(crit=["b64", "exp"]),
        lambda h: h.update(jwk=MALLORY.public().to_dict()),
        lambda h: h.pop("ctx"),
        lambda h: h.update(epk=MALLORY.thumbprint()),
        lambda h: h.update(epk=5),
        lambda h: h.update(snd=""),
        lambda h: h.update(snd=None),
        lambda h: h.update(rcp=MALLORY.thumbprint()),
        lambda h: h.update(sid="AA"),
        lambda h: h.update(sid=5),
        lambda h: h.update(seq=-1),
        lambda h: h.update(seq=2**64),
        lambda h: h.update(seq=7.0),
        lambda h: h.update(seq=True),
        lambda h: h.update(seq="7"),
        lambda h: h.update(iat=-1),
        lambda h: h.update(iat=2**64),
        lambda h: h.update(ttl=60_001),
        lambda h: h.update(ttl=None),
        lambda h: h.update(pur="Release"),
        lambda h: h.update(pur="release\n"),
        lambda h: h.update(pur=""),
        lambda h: h.update(pur="x" * 33),
        lambda h: h.update(pur=["release"]),
        lambda h: h.update(dir="x"),
        lambda h: h.update(dir=["n"]),
        lambda h: h.update(ctx=5),
        lambda h: h.update(ctx="é" * 101),
        lambda h: h.update(ctx="x" * 3000),
    ],
)
def test_a_signed_header_not_exactly_as_allowed_is_refused_though_the_signature_holds(
    change: Any,
) -> None:
    with pytest.raises(BoxError):
        _open(_resigned(_seal(), change))


def test_a_signature_moved_to_another_ephemeral_key_is_refused() -> None:
    """The signed thumbprint of the ephemeral key is what a session's transcript rests on."""
    first, second = _seal().split("."), _seal().split(".")
    mixed = ".".join([first[0], *second[1:6]])
    token = f"{mixed}.{base64url_encode(sign_raw(mixed.encode(), ALICE, 'ES256'))}"
    with pytest.raises(BoxError, match="another ephemeral key"):
        _open(token)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(enc="A256GCM"),
        lambda h: h.update(alg="ECDH-SS", spk=h.pop("epk")),
        lambda h: h.update(kid="k"),
        lambda h: h.pop("apu"),
        lambda h: h.update(apu=h["apv"]),
        lambda h: h["epk"].update(kid="k"),
        lambda h: h.update(epk=KEYS["X25519"].public().to_dict()),
    ],
)
def test_the_box_inside_has_one_form_whatever_plain_boxes_may_have(change: Any) -> None:
    segments = _seal().split(".")
    header = json_object_untrusted(base64url_decode_untrusted(segments[1]))
    change(header)
    covered = ".".join([segments[0], base64url_encode(json_encode(header)), *segments[2:6]])
    with pytest.raises(BoxError, match=r"sealed with|bare one|between other keys"):
        _open(f"{covered}.{base64url_encode(sign_raw(covered.encode(), ALICE, 'ES256'))}")


@pytest.mark.parametrize(
    "arguments",
    [
        {"sender": ALICE.public()},
        {"sender": KEYS["P-384"]},
        {"recipient": KEYS["X25519"]},
        {"ephemeral": KEYS["X25519"]},
        {"ephemeral": ALICE},
        {"ephemeral": BOB},
        {"ephemeral": Jwk.generate().public()},
        {"session": bytes(15)},
        {"session": "0" * 16},
        {"sequence": 2**64},
        {"sequence": -1},
        {"issued_at_ms": -1},
        {"lifetime_ms": 60_001},
        {"purpose": "Release"},
        {"direction": "both"},
        {"context": "é" * 101},
        {"context": "\ud800"},
    ],
)
def test_arguments_out_of_range_seal_nothing(arguments: dict[str, Any]) -> None:
    with pytest.raises(BoxError):
        _seal(**arguments)


def test_the_size_is_bounded_both_ways() -> None:
    with pytest.raises(BoxError, match="too long"):
        _seal(bytes(MAX_SIGNED_BOX_BYTES * 3 // 4))
    assert len(_open(_seal(bytes(48_000))).payload) == 48_000
    for wrong in (
        "A" * (MAX_SIGNED_BOX_BYTES + 1),
        "",
        "......",
        _seal() + ".AA",
        _seal() + "=",
        _seal()[:-1],
    ):
        with pytest.raises(BoxError):
            peek_claims_untrusted(wrong)
    with pytest.raises(BoxError):
        peek_claims_untrusted(_seal().encode())  # type: ignore[arg-type]


def test_a_character_over_the_limit_is_refused_though_all_else_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    largest, larger = 48_000, 49_152
    while larger - largest > 1:
        middle = (largest + larger) // 2
        try:
            _seal(bytes(middle))
            largest = middle
        except BoxError:
            larger = middle
    assert len(_open(_seal(bytes(largest))).payload) == largest
    monkeypatch.setattr(signed_box, "MAX_SIGNED_BOX_BYTES", 2 * MAX_SIGNED_BOX_BYTES)
    token = _seal(bytes(larger))
    assert len(_open(token).payload) == larger
    assert MAX_SIGNED_BOX_BYTES < len(token) <= MAX_SIGNED_BOX_BYTES + 4
    monkeypatch.undo()
    for read in (_open, peek_claims_untrusted):
        with pytest.raises(BoxError, match="at most"):
            read(token)


@pytest.mark.parametrize("size", [MAX_SIGNED_HEADER_BYTES, MAX_SIGNED_HEADER_BYTES + 1])
def test_a_header_over_its_limit_is_refused_though_all_else_holds(size: int) -> None:
    header, *box, _ = _seal().split(".")
    padded = base64url_decode_untrusted(header).ljust(size)
    covered = ".".join([base64url_encode(padded), *box])
    token = f"{covered}.{base64url_encode(sign_raw(covered.encode(), ALICE, 'ES256'))}"
    if size == MAX_SIGNED_HEADER_BYTES:
        assert _open(token).payload == b"state"
    else:
        with pytest.raises(BoxError, match="header longer"):
            _open(token)


_TOKEN = _seal()


@given(st.integers(0, len(_TOKEN)), st.integers(0, 8), st.text(max_size=8))
def test_any_other_text_is_one_of_the_promised_errors(at: int, cut: int, patch: str) -> None:
    text = _TOKEN[:at] + patch + _TOKEN[at + cut :]
    with contextlib.suppress(BoxError, SignatureError):
        assert _open(text).payload == b"state"
        assert text == _TOKEN
