from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Enrolment, read_enrolment_untrusted
from bridge.jose.credentials.token import encode_token
from tests.support.credentials import INSTANCE, NOW, enrolment

ALICE, MALLORY = Jwk.generate(), Jwk.generate()


def request(**changes: Any) -> Enrolment:
    return enrolment(ALICE, **changes)


def read(token: str, *, now: float = NOW) -> Enrolment:
    return read_enrolment_untrusted(token, instance=INSTANCE, now=now)


def test_a_request_by_its_own_key_holds() -> None:
    assert read(request().signed(ALICE)) == request()


def test_nobody_enrols_a_key_that_somebody_else_has() -> None:
    with pytest.raises(SignatureError):
        read(request().signed(MALLORY))


def test_a_request_to_another_instance_is_refused() -> None:
    with pytest.raises(SignatureError, match="another instance"):
        read(request(instance="ruby").signed(ALICE))


def test_a_request_ages_fast() -> None:
    token = request().signed(ALICE)
    for now in (NOW - 30.001, NOW + 60):
        with pytest.raises(SignatureError):
            read(token, now=now)


@pytest.mark.parametrize(
    "change", [{"sub": ""}, {"role": "root"}, {"jwk": ALICE.to_dict()}, {"jwk": {}}, {"x": 1}]
)
def test_claims_beyond_the_one_form_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        read(encode_token(Enrolment.TYP, {**request().claims(), **change}, ALICE))
