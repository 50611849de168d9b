"""What every kind of credential refuses, whatever else it checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import (
    AccessToken,
    Certificate,
    GrantToken,
    PeerToken,
    SessionTicket,
    Ticket,
    keyring,
    read_access_untrusted,
    read_certificate_untrusted,
    read_grant_untrusted,
    read_peer_untrusted,
    read_session_ticket_untrusted,
    read_untrusted,
)
from bridge.jose.credentials.reading import Credential
from bridge.jose.credentials.token import encode_token
from bridge.jose.encoding import base64url_encode
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

ALICE = Jwk.generate()


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind is made and read."""

    made: Credential
    read: Callable[..., object]


def _read_ticket(token: str, **arguments: Any) -> Ticket:
    return read_untrusted(Ticket, token, **arguments)


def _read_peer(token: str, **arguments: Any) -> PeerToken:
    return read_peer_untrusted(token, peer="B", thumbprint=ALICE.thumbprint(), **arguments)


def _read_grant(token: str, *, now: float, **arguments: Any) -> GrantToken:
    return read_grant_untrusted(token, **arguments)


KINDS = {
    kind.made.TYP: kind
    for kind in (
        Kind(certificate(ALICE), read_certificate_untrusted),
        Kind(access_token(ALICE), read_access_untrusted),
        Kind(peer_token(ALICE), _read_peer),
        Kind(ticket(ALICE), _read_ticket),
        Kind(session_ticket(ALICE), read_session_ticket_untrusted),
        Kind(grant(ALICE), _read_grant),
    )
}
EXPIRING = [kind for kind in KINDS.values() if not isinstance(kind.made, GrantToken)]
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def read(kind: Kind, token: str, **changes: Any) -> object:
    return kind.read(token, **{"keys": KEYS, "instance": INSTANCE, "now": NOW, **changes})


@every_kind
def test_what_was_issued_reads_back(kind: Kind) -> None:
    assert read(kind, issued(kind.made)) == kind.made


@every_kind
def test_every_other_kind_is_refused_as_this_one(kind: Kind) -> None:
    """Also where the claims of the other are those of this one, but for the type in the header."""
    for other in KINDS.values():
        if other is not kind:
            with pytest.raises(SignatureError, match="this is no"):
                read(kind, issued(other.made))
            with pytest.raises(SignatureError, match="this is no"):
                read(kind, encode_token(other.made.TYP, kind.made.claims(), ISSUER, max_bytes=16_384))


@every_kind
def test_another_instance_is_refused_though_its_key_were_in_the_ring(kind: Kind) -> None:
    with pytest.raises(SignatureError, match="instance"):
        read(kind, issued(kind.made), instance="ruby")


@every_kind
def test_another_issuer_is_refused(kind: Kind) -> None:
    with pytest.raises(SignatureError, match="issuers"):
        read(kind, issued(kind.made, Jwk.generate()))


@every_kind
def test_nothing_verifies_under_an_empty_ring(kind: Kind) -> None:
    with pytest.raises(SignatureError, match="issuers"):
        read(kind, issued(kind.made), keys=keyring([]))


@every_kind
def test_every_claim_is_needed_and_no_other_is_taken(kind: Kind) -> None:
    claims = kind.made.claims()
    for name in claims:
        rest = {other: value for other, value in claims.items() if other != name}
        with pytest.raises(SignatureError, match="exactly"):
            read(kind, encode_token(kind.made.TYP, rest, ISSUER, max_bytes=16_384))
    with pytest.raises(SignatureError, match="exactly"):
        read(kind, issued(kind.made, nbf=0))


@every_kind
@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 0.5, "", "\0", "\n", [], {}, [[]], "x" * 300, "none", 2**70]
)
def test_a_claim_of_another_type_or_beyond_its_range_is_refused(kind: Kind, value: object) -> None:
    for name, genuine in kind.made.claims().items():
        if name == "data" and value == {}:
            continue
        assert value != genuine
        if value == "none" and name in ("aud", "room", "entity", "sub"):
            # A name may be any text.
            continue
        with pytest.raises(SignatureError):
            read(kind, issued(kind.made, **{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", EXPIRING, ids=lambda kind: kind.made.TYP)
def test_the_limits_of_time_are_exact(kind: Kind) -> None:
    token, end = issued(kind.made), kind.made.expires_at  # type: ignore[attr-defined]
    for now in (NOW - 30, end - 0.001):
        read(kind, token, now=now)
    for now in (NOW - 30.001, end, end + 1e9):
        with pytest.raises(SignatureError):
            read(kind, token, now=now)


@pytest.mark.parametrize("kind", EXPIRING, ids=lambda kind: kind.made.TYP)
def test_a_lifetime_beyond_the_longest_is_refused_though_signed(kind: Kind) -> None:
    longest = type(kind.made).MAX_LIFETIME_S  # type: ignore[attr-defined]
    read(kind, issued(kind.made, exp=NOW + longest))
    with pytest.raises(SignatureError, match="lifetime"):
        read(kind, issued(kind.made, exp=NOW + longest + 1))


@every_kind
def test_text_beyond_its_bound_is_refused_unread(kind: Kind) -> None:
    with pytest.raises(SignatureError, match="at most"):
        read(kind, "." * (kind.made.MAX_BYTES + 1))


@every_kind
def test_a_key_that_is_swapped_in_the_claims_breaks_the_signature(kind: Kind) -> None:
    mallory = Jwk.generate()
    header, _, signature = issued(kind.made).split(".")
    for claims in (certificate(mallory), access_token(mallory), ticket(mallory), grant(mallory)):
        body = encode_token("x", claims.claims(), ISSUER, max_bytes=16_384).split(".")[1]
        with pytest.raises(SignatureError, match="does not hold"):
            read(kind, f"{header}.{body}.{signature}")
    with pytest.raises(SignatureError, match="does not hold"):
        read(kind, f"{header}.{base64url_encode(b'{}')}.{signature}")


def test_the_longest_lifetimes_are_those_that_the_documents_state() -> None:
    assert AccessToken.MAX_LIFETIME_S == PeerToken.MAX_LIFETIME_S == 300
    assert Ticket.MAX_LIFETIME_S == 120
    assert SessionTicket.MAX_LIFETIME_S == 5
    assert Certificate.MAX_LIFETIME_S == 90 * 86_400
