from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import read_grant_untrusted
from tests.support.credentials import INSTANCE, KEYS, grant, issued

HOLDER = Jwk.generate()


@given(st.integers(1, 2**64 - 1))
def test_epochs_of_64_bits_arrive_whole(epoch: int) -> None:
    made = grant(HOLDER, epoch=epoch)
    assert read_grant_untrusted(issued(made), keys=KEYS, instance=INSTANCE) == made


@pytest.mark.parametrize(
    "epoch", [5, "0", "05", "+5", "5.0", "-5", "", "٥", "5 ", str(2**64), "9" * 21, None]
)
def test_an_epoch_has_one_spelling(epoch: object) -> None:
    with pytest.raises(SignatureError, match="epoch"):
        read_grant_untrusted(issued(grant(HOLDER), epoch=epoch), keys=KEYS, instance=INSTANCE)


@pytest.mark.parametrize("epoch", [0, -1, 2**64, True, 1.0])
def test_no_grant_is_made_of_another_epoch(epoch: object) -> None:
    with pytest.raises(SignatureError, match="epoch"):
        grant(HOLDER, epoch=epoch)
