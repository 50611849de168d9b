"""Content encryption of boxes: AES-GCM, and AES-CBC with HMAC for boxes that Erlang programs send.

Source: RFC 7518 sections 5.2 and 5.3.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from bridge.errors import BoxError


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentEncryption:
    """Sizes in bytes of one ``enc``; ``digest`` names the hash of a CBC one and is empty for GCM."""

    name: str
    key_size: int
    iv_size: int
    tag_size: int
    digest: str = ""

    def seal(self, key: bytes, iv: bytes, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """Return ciphertext and tag."""
        if not self.digest:
            sealed = AESGCM(key).encrypt(iv, plaintext, aad)
            return sealed[: -self.tag_size], sealed[-self.tag_size :]
        padder = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(key[self.key_size // 2 :]), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
        return ciphertext, self._cbc_tag(key, iv, ciphertext, aad)

    def open(self, key: bytes, iv: bytes, ciphertext: bytes, tag: bytes, aad: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            BoxError: the tag does not hold, or tag or initialisation vector is not of the one allowed length
                (a shorter tag can be guessed: erlang-jose takes one byte).
        """
        if len(iv) != self.iv_size or len(tag) != self.tag_size:
            raise BoxError(f"{self.name} needs {self.iv_size} bytes of iv and {self.tag_size} of tag")
        if not self.digest:
            try:
                return AESGCM(key).decrypt(iv, ciphertext + tag, aad)
            except InvalidTag as error:
                raise BoxError("the box was altered or is for another key") from error
        if not hmac.compare_digest(self._cbc_tag(key, iv, ciphertext, aad), tag):
            raise BoxError("the box was altered or is for another key")
        decryptor = Cipher(algorithms.AES(key[self.key_size // 2 :]), modes.CBC(iv)).decryptor()
        unpadder = PKCS7(128).unpadder()
        try:
            padded = decryptor.update(ciphertext) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            # Reached only by a holder of the key: the tag was checked first, so this is no padding oracle.
            raise BoxError("the box holds no whole blocks") from error

    def _cbc_tag(self, key: bytes, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        covered = aad + iv + ciphertext + (len(aad) * 8).to_bytes(8)
        return hmac.digest(key[: self.key_size // 2], covered, self.digest)[: self.tag_size]


CONTENT_ENCRYPTIONS = {
    enc.name: enc
    for enc in (
        ContentEncryption(name="A128GCM", key_size=16, iv_size=12, tag_size=16),
        ContentEncryption(name="A192GCM", key_size=24, iv_size=12, tag_size=16),
        ContentEncryption(name="A256GCM", key_size=32, iv_size=12, tag_size=16),
        ContentEncryption(name="A128CBC-HS256", key_size=32, iv_size=16, tag_size=16, digest="sha256"),
        ContentEncryption(name="A192CBC-HS384", key_size=48, iv_size=16, tag_size=24, digest="sha384"),
        ContentEncryption(name="A256CBC-HS512", key_size=64, iv_size=16, tag_size=32, digest="sha512"),
    )
}
