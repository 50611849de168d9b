from __future__ import annotations

from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Signer, keyring, read_certificate_untrusted
from tests.support.credentials import INSTANCE, NOW, KeySigner, certificate


async def test_a_signers_first_key_signs_and_all_its_public_keys_can_be_told() -> None:
    current, following = Jwk.generate(), Jwk.generate()
    signer: Signer = KeySigner(current, following)
    made = certificate(Jwk.generate())
    token = await signer.sign(Certificate.TYP, made.claims())
    told = await signer.keys()
    assert told == [current.public(), following.public()]
    assert read_certificate_untrusted(token, keys=keyring(told[:1]), instance=INSTANCE, now=NOW) == made
