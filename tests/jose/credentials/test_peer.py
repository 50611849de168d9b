from __future__ import annotations

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import PeerToken, read_peer_untrusted
from tests.support.credentials import INSTANCE, KEYS, NOW, issued, peer_token

ALICE = Jwk.generate()


def read(token: str, *, peer: str = "B", key: Jwk = ALICE) -> PeerToken:
    return read_peer_untrusted(
        token, keys=KEYS, instance=INSTANCE, peer=peer, thumbprint=key.thumbprint(), now=NOW
    )


def test_a_peer_believes_the_token_that_is_for_it_and_its_bearer() -> None:
    """R0-32."""
    made = peer_token(ALICE)
    assert read(issued(made)) == made


def test_it_is_worth_nothing_at_another_server() -> None:
    with pytest.raises(SignatureError, match="another server"):
        read(issued(peer_token(ALICE)), peer="C")


def test_it_is_worth_nothing_in_other_hands() -> None:
    with pytest.raises(SignatureError, match="bearer"):
        read(issued(peer_token(ALICE)), key=Jwk.generate())
