from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, SignatureError
from bridge.homeserver.signer.policy import KINDS, SignerLimits, SigningPolicy
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Certificate, Role, keyring, read_certificate_untrusted
from bridge.jose.credentials.reading import Credential
from tests.support.credentials import (
    INSTANCE,
    ISSUER,
    KEYS,
    NOW,
    access_token,
    certificate,
    grant,
    peer_token,
    session_ticket,
    ticket,
)

ALICE = Jwk.generate()
SAMPLES: list[Credential] = [
    make(ALICE) for make in (certificate, access_token, peer_token, ticket, grant, session_ticket)
]


def policy(limits: SignerLimits | None = None) -> SigningPolicy:
    return SigningPolicy(instance=INSTANCE, current=ISSUER, limits=limits)


def signed(by: SigningPolicy, credential: Credential, *, now: float = NOW, **claims: Any) -> str:
    return by.sign(credential.TYP, {**credential.claims(), **claims}, now=now, monotonic=0.0)


@pytest.mark.parametrize("made", SAMPLES, ids=lambda made: made.TYP)
def test_every_kind_is_signed_as_its_readers_take_it(made: Credential) -> None:
    by = policy()
    signed(by, made)
    assert by.signed[made.TYP] == 1


def test_a_certificate_that_it_signed_is_one() -> None:
    made = certificate(ALICE)
    assert read_certificate_untrusted(signed(policy(), made), keys=KEYS, instance=INSTANCE, now=NOW) == made


def test_unknown_types_are_refused_and_counted() -> None:
    by = policy()
    for typ in ("", "JWT", "kb-proof+jwt", "kb-enrolment+jwt", "kb-access+JWT", "x" * 10_000):
        with pytest.raises(SignatureError, match="no type"):
            by.sign(typ, access_token(ALICE).claims(), now=NOW, monotonic=0.0)
    assert by.refused == 6


@pytest.mark.parametrize("made", SAMPLES, ids=lambda made: made.TYP)
def test_overlong_lifetimes_other_instances_and_other_members_are_refused(made: Credential) -> None:
    changes: list[dict[str, Any]] = [{"iss": "ruby"}, {"root": True}]
    if "exp" in made.claims():
        longest = type(made).MAX_LIFETIME_S  # type: ignore[attr-defined]
        changes += [{"exp": NOW + longest + 1}, {"exp": NOW}, {"exp": None}]
    for change in changes:
        with pytest.raises(SignatureError):
            signed(policy(), made, **change)


@pytest.mark.parametrize("late", [-11, 11, 3600])
def test_nothing_is_signed_for_another_time_than_now(late: int) -> None:
    signed(policy(), access_token(ALICE), now=NOW + 10)
    signed(policy(), grant(ALICE), now=NOW + late)
    with pytest.raises(SignatureError, match="clocks"):
        signed(policy(), access_token(ALICE), now=NOW + late)


def test_an_operators_certificate_never_comes_from_the_socket() -> None:
    with pytest.raises(SignatureError, match="operators"):
        signed(policy(), certificate(ALICE, role=Role.OPERATOR))


def test_only_so_many_are_signed_a_second_and_fewer_certificates() -> None:
    by = policy(SignerLimits(rate=1.0, burst=3, certificate_rate=1.0, certificate_burst=1))
    signed(by, certificate(ALICE))
    with pytest.raises(SignatureError, match="too many"):
        signed(by, certificate(ALICE))
    signed(by, access_token(ALICE))
    with pytest.raises(SignatureError, match="too many"):
        signed(by, access_token(ALICE))
    by.sign(AccessToken.TYP, access_token(ALICE).claims(), now=NOW, monotonic=1.0)
    assert by.refused == 2


def test_its_keys_are_told_without_their_private_halves() -> None:
    following = Jwk.generate()
    by = SigningPolicy(instance=INSTANCE, current=ISSUER, following=[following])
    assert by.public_keys() == [ISSUER.public(), following.public()]
    assert not any(key.is_private for key in by.public_keys())
    read_certificate_untrusted(
        signed(by, certificate(ALICE)), keys=keyring(by.public_keys()[:1]), instance=INSTANCE, now=NOW
    )


def test_a_signer_that_cannot_work_is_refused_at_once() -> None:
    for arguments in (
        {"instance": "", "current": ISSUER},
        {"instance": INSTANCE, "current": ISSUER.public()},
        {"instance": INSTANCE, "current": Jwk.generate("Ed25519")},
        {"instance": INSTANCE, "current": ISSUER, "following": [Jwk.generate("P-384")]},
    ):
        with pytest.raises(ConfigurationError):
            SigningPolicy(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        SignerLimits(rate=0)


def test_every_kind_of_credential_is_in_the_table_once() -> None:
    assert {made.TYP for made in SAMPLES} <= set(KINDS)
    assert KINDS[Certificate.TYP] is Certificate
