"""Both ways with real erlang-jose, of two versions and from two languages (R0-23)."""

from __future__ import annotations

import pytest

from bridge.errors import BoxError
from bridge.jose import (
    Jwk,
    box_compact,
    box_decrypt,
    box_encrypt,
    open_signed_box,
    peek_claims_untrusted,
    seal_signed_box,
    sign,
    token_flattened,
    verify,
)
from bridge.jose.box import parse_box_untrusted
from bridge.jose.content import CONTENT_ENCRYPTIONS
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from tests.support.erlang_jose import OTHER_JOSES, OtherJose, Request, other_jose
from tests.support.jose_attacks import box_attacks, token_attacks
from tests.support.jose_keys import CURVES

BOX_CURVES = ("P-256", "P-384", "P-521", "X25519", "X448")
SIGNING_CURVES = ("P-256", "P-384", "P-521", "Ed25519", "Ed448")
NOW_MS = 1_700_000_000_000
PLAINTEXTS = (b"", b"x", bytes(range(256)) * 5)

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture(scope="module", params=list(OTHER_JOSES))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OtherJose:
    return other_jose(request.param, tmp_path_factory.mktemp("jose"))


def _box_request(operation: str, plaintext: bytes, recipient: Jwk, sender: Jwk | None = None) -> Request:
    request = {
        "op": operation,
        "plaintext": base64url_encode(plaintext),
        "recipient": recipient.public().to_dict(),
    }
    return request if sender is None else {**request, "sender": sender.to_dict()}


def _box_forms(reply: Request) -> tuple[dict[str, str] | str, ...]:
    return reply["box"], reply["compact"], json_encode(reply["box"]).decode()


def test_it_is_the_version_that_it_is_called_by(peer: OtherJose) -> None:
    version = peer.ask([{"op": "version"}])[0]["version"]
    assert version in (("1.11.5", "1.11.10") if "machine" in peer.name else ("1.11.10",))


def test_boxes_of_real_erlang_jose_open(peer: OtherJose) -> None:
    """R0-23."""
    cases = []
    for curve in BOX_CURVES:
        for plaintext in PLAINTEXTS:
            recipient, sender = Jwk.generate(curve), Jwk.generate(curve)
            cases += [
                (recipient, plaintext, _box_request("box_encrypt", plaintext, recipient)),
                (recipient, plaintext, _box_request("box_encrypt", plaintext, recipient, sender)),
                (recipient, plaintext, _box_request("box_encrypt_ecdh_ss", plaintext, recipient, sender)),
            ]
    replies = peer.ask([request for *_, request in cases])
    for (recipient, plaintext, _), reply in zip(cases, replies, strict=True):
        for form in _box_forms(reply):
            assert box_decrypt(form, recipient) == plaintext


def test_boxes_of_every_content_encryption_open(peer: OtherJose) -> None:
    recipient, sender = Jwk.generate(), Jwk.generate()
    cases = [(enc, plaintext) for enc in CONTENT_ENCRYPTIONS for plaintext in PLAINTEXTS]
    replies = peer.ask(
        [
            {**_box_request("box_encrypt", plaintext, recipient, sender), "enc": enc}
            for enc, plaintext in cases
        ]
    )
    for (enc, plaintext), reply in zip(cases, replies, strict=True):
        assert parse_box_untrusted(reply["box"]).encryption == enc
        for form in _box_forms(reply):
            assert box_decrypt(form, recipient) == plaintext


def test_boxes_that_bind_their_sender_open_under_that_senders_key_only(peer: OtherJose) -> None:
    cases = []
    for curve in BOX_CURVES:
        for plaintext in PLAINTEXTS:
            recipient, sender = Jwk.generate(curve), Jwk.generate(curve)
            if plaintext:
                sender = Jwk.from_dict({**sender.to_dict(), "kid": "sender"})
            request = _box_request("box_encrypt_ecdh_1pu", plaintext, recipient, sender)
            cases.append((recipient, sender, plaintext, request))
    replies = peer.ask([request for *_, request in cases])
    for (recipient, sender, plaintext, _), reply in zip(cases, replies, strict=True):
        for form in _box_forms(reply):
            assert box_decrypt(form, recipient, sender.public()) == plaintext
            for wrong in (None, recipient.public(), Jwk.generate(sender.curve or "")):
                with pytest.raises(BoxError):
                    box_decrypt(form, recipient, wrong)


def test_real_erlang_jose_opens_our_boxes(peer: OtherJose) -> None:
    """R0-23."""
    cases = []
    for curve in BOX_CURVES:
        for plaintext in PLAINTEXTS:
            for sender in (None, Jwk.generate(curve)):
                recipient = Jwk.generate(curve)
                box = box_encrypt(plaintext, recipient.public(), sender)
                for form in (box, box_compact(box)):
                    request = {"op": "box_decrypt", "recipient": recipient.to_dict(), "box": form}
                    cases.append((plaintext, request))
    for (plaintext, _), reply in zip(cases, peer.ask([request for _, request in cases]), strict=True):
        assert base64url_decode_untrusted(reply["plaintext"]) == plaintext


def test_signatures_hold_both_ways(peer: OtherJose) -> None:
    pairs = [(Jwk.generate(curve), payload) for curve in SIGNING_CURVES for payload in PLAINTEXTS]
    replies = peer.ask(
        [{"op": "sign", "key": key.to_dict(), "payload": base64url_encode(payload)} for key, payload in pairs]
    )
    for (key, payload), reply in zip(pairs, replies, strict=True):
        for form in (reply["compact"], reply["flattened"], json_encode(reply["flattened"]).decode()):
            assert verify(form, key.public()) == payload
    ours = [
        (key, payload, form)
        for key, payload in pairs
        for token in [sign(payload, key)]
        for form in (token, token_flattened(token))
    ]
    replies = peer.ask(
        [{"op": "verify", "key": key.public().to_dict(), "token": form} for key, _, form in ours]
    )
    for (_, payload, _), reply in zip(ours, replies, strict=True):
        assert reply["holds"]
        assert base64url_decode_untrusted(reply["payload"]) == payload


def test_a_signed_box_is_a_signature_over_a_box_to_it_too(peer: OtherJose) -> None:
    """Both ways: it checks and opens ours in parts, and seals by ``docs/protocol.md`` what opens here."""
    sender, recipient = Jwk.generate(), Jwk.generate()
    token = seal_signed_box(
        b"state",
        sender=sender,
        recipient=recipient.public(),
        session=bytes(range(16)),
        sequence=2**64 - 1,
        issued_at_ms=NOW_MS,
        lifetime_ms=5000,
        purpose="entity",
        direction="n",
        context="gun \u00e9",
    )
    protected, box, signature = token.split(".")[0], ".".join(token.split(".")[1:6]), token.split(".")[6]
    members = {"seq": 2**64 - 1, "iat": NOW_MS, "ttl": 5000, "pur": "entity", "dir": "n", "ctx": "gun \u00e9"}
    members["sid"] = base64url_encode(bytes(range(16)))
    verifying = {"op": "verify", "key": sender.public().to_dict()}
    detached = {"protected": protected, "signature": signature}
    held, altered, opened, made = peer.ask(
        [
            # It wants the payload encoded in any case, and signs it as "b64" says.
            {**verifying, "token": {**detached, "payload": base64url_encode(box.encode())}},
            {**verifying, "token": {**detached, "payload": base64url_encode(box.encode() + b"A")}},
            {"op": "box_decrypt", "recipient": recipient.to_dict(), "box": box},
            {**_box_request("seal_signed_box", b"state", recipient, sender), "members": members},
        ]
    )
    assert held["holds"] is True
    assert altered["holds"] is False
    identities = sender.thumbprint_bytes() + recipient.thumbprint_bytes()
    assert base64url_decode_untrusted(opened["plaintext"]) == identities + b"state"
    for one in (token, made["token"]):
        opened_here = open_signed_box(
            one,
            recipient=recipient,
            sender=sender.public(),
            purpose="entity",
            direction="n",
            session=bytes(range(16)),
            context="gun \u00e9",
            now_ms=NOW_MS,
        )
        assert opened_here.payload == b"state"
        assert opened_here.claims == peek_claims_untrusted(token)


def test_keys_made_by_it_are_read_in_every_form(peer: OtherJose) -> None:
    """R0-23: keys from PEM."""
    replies = peer.ask([{"op": "generate", "curve": curve} for curve in CURVES])
    for curve, reply in zip(CURVES, replies, strict=True):
        key = Jwk.from_dict(reply["key"])
        assert key.curve == curve
        assert key.thumbprint() == reply["thumbprint"]
        assert key.public().to_dict() == reply["public"]
        assert Jwk.from_pem(reply["pem"]) == key
        assert Jwk.from_pem(reply["public_pem"]) == key.public()


def test_keys_made_here_are_read_by_it_in_every_form(peer: OtherJose) -> None:
    keys = [key for curve in CURVES for made in [Jwk.generate(curve)] for key in (made, made.public())]
    replies = peer.ask([{"op": "thumbprint", "key": key.to_dict()} for key in keys])
    assert [reply["thumbprint"] for reply in replies] == [key.thumbprint() for key in keys]
    replies = peer.ask([{"op": "from_pem", "pem": key.to_pem().decode()} for key in keys])
    assert [reply["key"] for reply in replies] == [key.to_dict() for key in keys]


def test_it_takes_what_is_refused_here(peer: OtherJose) -> None:
    """So the attacks of ``test_refusals`` are none of our own invention."""
    boxes = [attack for attack in box_attacks() if attack.taken_by_erlang_jose]
    tokens = [attack for attack in token_attacks() if attack.taken_by_erlang_jose]
    replies = peer.ask(
        [{"op": "box_decrypt", "recipient": a.recipient.to_dict(), "box": a.box} for a in boxes]
        + [{"op": "verify", "key": a.key.public().to_dict(), "token": a.token} for a in tokens],
        may_fail=True,
    )
    names = [attack.name for attack in boxes] + [attack.name for attack in tokens]
    taken = [
        name
        for name, reply in zip(names, replies, strict=True)
        if "plaintext" in reply or reply.get("holds") is True
    ]
    assert taken == names


def test_a_key_of_another_curve_keeps_it_thinking_for_ever(peer: OtherJose) -> None:
    attack = next(a for a in box_attacks() if a.name == "a sender's key on X25519 to one on P-256")
    request = {"op": "box_decrypt", "recipient": attack.recipient.to_dict(), "box": attack.box}
    assert peer.ask([request], may_fail=True) == [{"error": "timeout"}]
