"""Credentials and real erlang-jose, both ways: any reader of JOSE can check what an instance signed."""

from __future__ import annotations

import json

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Ticket, read_certificate_untrusted, read_untrusted
from bridge.jose.credentials.reading import Credential
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from tests.support.credentials import (
    INSTANCE,
    ISSUER,
    KEYS,
    NOW,
    access_token,
    certificate,
    grant,
    issued,
    peer_token,
    session_ticket,
    ticket,
)
from tests.support.erlang_jose import OTHER_JOSES, OtherJose, other_jose

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ALICE = Jwk.generate()
MADE: list[Credential] = [
    make(ALICE) for make in (certificate, access_token, peer_token, ticket, grant, session_ticket)
]


@pytest.fixture(scope="module", params=list(OTHER_JOSES))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OtherJose:
    return other_jose(request.param, tmp_path_factory.mktemp("jose"))


def test_it_verifies_every_kind_and_reads_its_claims(peer: OtherJose) -> None:
    """R4-3: a ticket is readable by whoever has it."""
    key = ISSUER.public().to_dict()
    replies = peer.ask([{"op": "verify", "key": key, "token": issued(made)} for made in MADE])
    for made, reply in zip(MADE, replies, strict=True):
        assert reply["holds"] is True
        assert json.loads(base64url_decode_untrusted(reply["payload"])) == made.claims()


def test_it_refuses_what_was_altered_or_is_by_another_key(peer: OtherJose) -> None:
    token = issued(MADE[0])
    header, _, signature = token.split(".")
    altered = (
        f"{header}.{base64url_encode(json_encode(certificate(ALICE, subject='bob').claims()))}.{signature}"
    )
    replies = peer.ask(
        [
            {"op": "verify", "key": ISSUER.public().to_dict(), "token": altered},
            {"op": "verify", "key": Jwk.generate().public().to_dict(), "token": token},
        ]
    )
    assert [reply["holds"] for reply in replies] == [False, False]


def test_what_it_signs_in_the_same_form_is_taken_and_in_no_other(peer: OtherJose) -> None:
    header = {"alg": "ES256", "kid": ISSUER.thumbprint(), "typ": Certificate.TYP}
    claims = certificate(ALICE).claims()

    def request(head: dict[str, object], body: dict[str, object]) -> dict[str, object]:
        payload = base64url_encode(json_encode(body))
        return {"op": "sign_headed", "key": ISSUER.to_dict(), "payload": payload, "header": head}

    good, ticketed, *bad = (
        reply["compact"]
        for reply in peer.ask(
            [
                request(dict(header), claims),
                request({**header, "typ": Ticket.TYP}, ticket(ALICE).claims()),
                request({**header, "typ": "JWT"}, claims),
                request({"alg": "ES256", "kid": ISSUER.thumbprint()}, claims),
                request({**header, "crit": ["exp"]}, claims),
                request(dict(header), {**claims, "admin": True}),
            ]
        )
    )
    made = read_certificate_untrusted(good, keys=KEYS, instance=INSTANCE, now=NOW)
    assert made == certificate(ALICE)
    assert read_untrusted(Ticket, ticketed, keys=KEYS, instance=INSTANCE, now=NOW) == ticket(ALICE)
    for token in bad:
        with pytest.raises(SignatureError):
            read_certificate_untrusted(token, keys=KEYS, instance=INSTANCE, now=NOW)
