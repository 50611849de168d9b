from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BoxError
from bridge.jose import Jwk, box_compact, box_decrypt, box_encrypt
from bridge.jose import box as plain_box
from bridge.jose.box import MAX_BOX_BYTES, MAX_HEADER_BYTES, MAX_PARTY_BYTES, parse_box_untrusted
from bridge.jose.content import CONTENT_ENCRYPTIONS
from bridge.jose.curves import AGREEMENT_CURVES
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from tests.support.jose_keys import KEYS, Header, flip_bit, genuine_box

ALICE, BOB = Jwk.generate(), Jwk.generate()


def _header(box: dict[str, str]) -> dict[str, Any]:
    return json_object_untrusted(base64url_decode_untrusted(box["protected"]))


@given(st.sampled_from(sorted(AGREEMENT_CURVES)), st.binary(max_size=300), st.booleans())
def test_what_was_sealed_opens_in_every_form(curve: str, plaintext: bytes, static: bool) -> None:
    """R0-23."""
    recipient, sender = KEYS[curve], Jwk.generate(curve) if static else None
    box = box_encrypt(plaintext, recipient.public(), sender)
    assert box_decrypt(box, recipient) == plaintext
    assert box_decrypt(box_compact(box), recipient) == plaintext
    assert box_decrypt(json_encode(box).decode(), recipient) == plaintext
    if sender is not None:
        assert parse_box_untrusted(box).sender == sender.public()


def test_the_header_is_that_of_erlang_jose() -> None:
    """R0-23: the sender's public key in the header, thumbprints as apu and apv."""
    epk = ALICE.public().to_dict()
    expected = {"alg": "ECDH-ES", "apu": ALICE.thumbprint(), "apv": BOB.thumbprint(), "enc": "A128GCM"}
    assert _header(box_encrypt(b"", BOB.public(), ALICE)) == {**expected, "epk": epk}


def test_a_key_with_a_name_goes_by_it_where_it_is_base64url() -> None:
    for kid, apu in (("c2ltLTE", "c2ltLTE"), ("sim 1", ALICE.thumbprint()), ("A" * 400, ALICE.thumbprint())):
        sender = Jwk.from_dict({**ALICE.to_dict(), "kid": kid})
        box = box_encrypt(b"x", BOB, sender)
        assert _header(box)["apu"] == apu
        assert _header(box)["epk"]["kid"] == kid
        assert box_decrypt(box, BOB) == b"x"


def test_a_name_too_long_for_a_header_seals_nothing_rather_than_what_nobody_opens() -> None:
    unnamed = len(base64url_decode_untrusted(box_encrypt(b"", BOB, ALICE)["protected"]))
    room = MAX_HEADER_BYTES - unnamed - len(',"kid":""')
    for kid in (" " * room, '"' * (room // 2)):
        sender = Jwk.from_dict({**ALICE.to_dict(), "kid": kid})
        assert box_decrypt(box_encrypt(b"x", BOB, sender), BOB) == b"x"
        with pytest.raises(BoxError, match="'kid' is too long"):
            box_encrypt(b"x", BOB, Jwk.from_dict({**ALICE.to_dict(), "kid": kid + "  "}))


def test_a_box_without_a_sender_has_a_fresh_key_each_time() -> None:
    boxes = [box_encrypt(b"same", BOB) for _ in range(3)]
    assert len({_header(box)["epk"]["x"] for box in boxes}) == 3
    assert len({box["iv"] for box in boxes}) == 3


@pytest.mark.parametrize("part", ["protected", "iv", "ciphertext", "tag"])
def test_every_flipped_bit_is_refused(part: str) -> None:
    """R0-15..22: every flipped bit refused."""
    box = box_encrypt(b"state", BOB.public())
    for bit in range(len(base64url_decode_untrusted(box[part])) * 8):
        with pytest.raises(BoxError):
            box_decrypt({**box, part: flip_bit(box[part], bit)}, BOB)


def test_a_box_that_cannot_open_costs_no_key_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = box_encrypt(b"state", BOB.public())

    def reached(*_: object) -> bytes:
        raise AssertionError("agreed")

    monkeypatch.setattr(plain_box, "shared_secret", reached)
    for changed in ({"tag": base64url_encode(bytes(15))}, {"iv": honest["iv"] + "AAAA"}, {"tag": ""}):
        with pytest.raises(BoxError, match="needs 12 bytes of iv, 16 of tag"):
            box_decrypt({**honest, **changed}, BOB)
    with pytest.raises(AssertionError, match="agreed"):
        box_decrypt(honest, BOB)


@pytest.mark.parametrize("enc", sorted(CONTENT_ENCRYPTIONS))
def test_the_six_content_encryptions_of_the_standard_open(enc: str) -> None:
    assert box_decrypt(genuine_box(BOB, enc=enc), BOB) == b"genuine"


@pytest.mark.parametrize("curve", sorted(AGREEMENT_CURVES))
def test_a_box_that_binds_its_sender_needs_that_senders_key(curve: str) -> None:
    recipient, sender = KEYS[curve], Jwk.generate(curve)

    def change(header: Header) -> None:
        header.update(alg="ECDH-1PU", skid=sender.thumbprint())

    box = genuine_box(recipient, change, static=sender)
    assert box_decrypt(box, recipient, sender.public()) == b"genuine"
    assert box_decrypt(box_compact(box), recipient, sender) == b"genuine"
    with pytest.raises(BoxError, match="give the sender's public key"):
        box_decrypt(box, recipient)
    for wrong in (Jwk.generate(curve), recipient.public(), KEYS["Ed25519"]):
        with pytest.raises(BoxError):
            box_decrypt(box, recipient, wrong)


def test_a_box_that_proves_no_sender_does_not_open_where_one_is_asked_for() -> None:
    with pytest.raises(BoxError, match="proves no sender"):
        box_decrypt(box_encrypt(b"x", BOB, ALICE), BOB, ALICE.public())


@pytest.mark.parametrize("algorithm", ["ECDH-1PU+A128KW", "ECDH-ES+A256KW", "RSA-OAEP", "PBES2-HS256+A128KW"])
def test_a_key_agreement_that_is_refused_is_named(algorithm: str) -> None:
    with pytest.raises(BoxError, match=re.escape(algorithm)):
        box_decrypt(genuine_box(BOB, lambda header: header.update(alg=algorithm)), BOB)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(skid="k"),
        lambda h: h.update(alg="ECDH-1PU", skid=5),
        lambda h: h.update(zip="DEF"),
        lambda h: h.update(crit=["exp"], exp=1),
        lambda h: h.update(crit=[]),
        lambda h: h.update(b64=True),
        lambda h: h.update(x=1),
        lambda h: h.update(jku="…"),
        lambda h: h.update(jwk=KEYS["P-256"].public().to_dict()),
        lambda h: h.update(spk=h["epk"]),
        lambda h: h.update(alg="ECDH-SS"),
        lambda h: h.update(alg="ECDH-ES+A128KW"),
        lambda h: h.update(alg="dir"),
        lambda h: h.update(alg="RSA-OAEP"),
        lambda h: h.update(alg="none"),
        lambda h: h.update(alg=None),
        lambda h: h.update(alg=["ECDH-ES"]),
        lambda h: h.update(enc="A128CBC"),
        lambda h: h.update(enc="none"),
        lambda h: h.update(enc=None),
        lambda h: h.update(enc={}),
        lambda h: h.update(kid=1),
        lambda h: h.update(apu=1),
        lambda h: h.update(apu="AA=="),
        lambda h: h.update(apv=None),
        lambda h: h.update(apv=base64url_encode(bytes(MAX_PARTY_BYTES + 1))),
        lambda h: h.pop("epk"),
        lambda h: h.pop("alg"),
        lambda h: h.pop("enc"),
        lambda h: h.update(epk="key"),
        lambda h: h.update(epk=[h["epk"]]),
        lambda h: h["epk"].update(d=KEYS["P-256"].to_dict()["d"]),
        lambda h: h["epk"].update(d=""),
        lambda h: h["epk"].update(use="enc"),
        lambda h: h["epk"].update(kid=5),
        lambda h: h["epk"].update(kty="RSA"),
        lambda h: h["epk"].update(kty=[]),
        lambda h: h["epk"].update(x=h["epk"]["x"] + "="),
        lambda h: h["epk"].update(x="AQID"),
        lambda h: h["epk"].pop("y"),
        lambda h: h.update(cty="x" * MAX_HEADER_BYTES),
    ],
)
def test_headers_that_are_not_exactly_allowed_are_refused_though_the_tag_holds(change: Any) -> None:
    with pytest.raises(BoxError):
        box_decrypt(genuine_box(BOB, change), BOB)


@pytest.mark.parametrize(
    "raw_header",
    [
        lambda raw: raw[:-1] + b',"enc":"A128GCM"}',
        lambda raw: raw.replace(b'"kty":"EC"', b'"kty":"EC","kty":"EC"'),
        lambda raw: raw + b"{}",
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: b"[" + raw + b"]",
        lambda raw: raw + b" " * MAX_HEADER_BYTES,
        lambda raw: b'{"a":' * 2000,
    ],
)
def test_header_texts_with_two_readings_are_refused_though_the_tag_holds(raw_header: Any) -> None:
    with pytest.raises(BoxError):
        box_decrypt(genuine_box(BOB, raw_header=raw_header), BOB)


def test_a_header_with_white_space_or_registered_texts_opens() -> None:
    def change(header: Header) -> None:
        header.update(kid="k", typ="JWE", cty="json")

    assert box_decrypt(genuine_box(BOB, change), BOB) == b"genuine"
    assert box_decrypt(genuine_box(BOB, raw_header=lambda raw: b" " + raw + b"\n"), BOB) == b"genuine"


@pytest.mark.parametrize("curve", ["P-384", "P-521", "X25519", "X448", "Ed25519", "Ed448"])
def test_a_sender_key_of_another_curve_is_refused_before_key_agreement(curve: str) -> None:
    box = genuine_box(BOB, lambda header: header.update(epk=KEYS[curve].public().to_dict()))
    with pytest.raises(BoxError, match="no key agreement"):
        box_decrypt(box, BOB)


@pytest.mark.parametrize("u", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_a_sender_key_of_small_order_is_refused(u: int) -> None:
    epk = {"kty": "OKP", "crv": "X25519", "x": base64url_encode(u.to_bytes(32, "little"))}
    with pytest.raises(BoxError, match="small order"):
        box_decrypt(genuine_box(KEYS["X25519"], lambda header: header.update(epk=epk)), KEYS["X25519"])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tag", ""),
        ("tag", base64url_encode(bytes(1))),
        ("tag", base64url_encode(bytes(15))),
        ("tag", base64url_encode(bytes(17))),
        ("iv", ""),
        ("iv", base64url_encode(bytes(8))),
        ("iv", base64url_encode(bytes(16))),
        ("encrypted_key", "AA"),
        ("ciphertext", "A"),
        ("ciphertext", "AA=="),
        ("protected", ""),
        ("protected", None),
        ("tag", 5),
        ("tag", b"AA"),
        ("iv", "é" * 16),
    ],
)
def test_parts_of_the_wrong_shape_are_refused(part: str, value: Any) -> None:
    with pytest.raises(BoxError):
        box_decrypt({**genuine_box(BOB), part: value}, BOB)


@pytest.mark.parametrize("extra", ["unprotected", "header", "recipients", "aad", "x"])
def test_members_beside_the_five_are_refused(extra: str) -> None:
    with pytest.raises(BoxError, match="exactly the members"):
        box_decrypt({**genuine_box(BOB), extra: ""}, BOB)


def test_a_flattened_box_may_leave_the_empty_key_out_and_nothing_else() -> None:
    box = genuine_box(BOB)
    del box["encrypted_key"]
    assert box_decrypt(box, BOB) == b"genuine"
    for name in box:
        with pytest.raises(BoxError, match="exactly the members"):
            box_decrypt({member: value for member, value in box.items() if member != name}, BOB)


def test_compact_text_has_five_segments() -> None:
    text = box_compact(genuine_box(BOB))
    bent = (text + ".", text + ".AA", text[1:], "." + text, text.replace("..", "."), text + "\n")
    for wrong in ("", ".", "....", *bent, None, 5, [text], text.encode()):
        with pytest.raises(BoxError):
            box_decrypt(wrong, BOB)  # type: ignore[arg-type]


def test_a_flattened_text_with_duplicate_members_is_refused() -> None:
    box = genuine_box(BOB)
    text = json_encode(box).decode()
    with pytest.raises(BoxError, match="duplicate"):
        box_decrypt(text[:-1] + f',"tag":"{box["tag"]}"}}', BOB)


def test_the_size_is_bounded_before_anything_is_parsed() -> None:
    for box in (
        "a" * (MAX_BOX_BYTES + 1),
        "." * (MAX_BOX_BYTES + 1),
        "{" * (MAX_BOX_BYTES + 1),
        {**genuine_box(BOB), "ciphertext": "A" * MAX_BOX_BYTES},
    ):
        with pytest.raises(BoxError, match="longer than"):
            box_decrypt(box, BOB)


def test_the_longest_plaintext_that_seals_opens() -> None:
    longest = (MAX_BOX_BYTES - 2 * MAX_HEADER_BYTES) * 3 // 4
    assert len(box_decrypt(box_compact(box_encrypt(bytes(longest), BOB)), BOB)) == longest
    with pytest.raises(BoxError, match="too long"):
        box_encrypt(bytes(longest + 2), BOB)


def test_boxes_are_opened_with_the_right_private_key_only() -> None:
    box = box_encrypt(b"x", BOB.public())
    for key in (ALICE, BOB.public(), KEYS["X25519"], KEYS["Ed25519"]):
        with pytest.raises(BoxError):
            box_decrypt(box, key)


def test_keys_that_do_not_fit_seal_nothing() -> None:
    secret = Jwk.from_dict({"kty": "oct", "k": base64url_encode(bytes(32))})
    for recipient, sender in (
        (KEYS["Ed25519"], None),
        (secret, None),
        (BOB, KEYS["P-384"]),
        (BOB, KEYS["X25519"]),
        (BOB, secret),
        (BOB, ALICE.public()),
    ):
        with pytest.raises(BoxError):
            box_encrypt(b"x", recipient, sender)


_TEXT = box_compact(box_encrypt(b"state", BOB.public(), ALICE))


@given(st.integers(0, len(_TEXT)), st.integers(0, 8), st.text(max_size=8))
def test_any_other_text_is_a_box_error(at: int, cut: int, patch: str) -> None:
    text = _TEXT[:at] + patch + _TEXT[at + cut :]
    with contextlib.suppress(BoxError):
        assert box_decrypt(text, BOB) == b"state"
        assert text == _TEXT
