from pathlib import Path

import pytest

from bridge.cli.key_file import read_key
from bridge.errors import KeyFormatError
from bridge.jose import Jwk


def test_a_key_is_read_from_json_or_pem(tmp_path: Path) -> None:
    key = Jwk.generate("P-256")
    (tmp_path / "key.jwk").write_text(key.to_json())
    (tmp_path / "key.pem").write_bytes(key.to_pem())
    assert read_key(tmp_path / "key.jwk") == read_key(tmp_path / "key.pem") == key


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b"-----BEGIN PUBLIC KEY-----", pytest.param(b"{" * 100_000, id="long")]
)
def test_what_is_no_key_is_refused_with_the_name_of_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "letter.txt").write_bytes(content)
    with pytest.raises(KeyFormatError, match=r"letter\.txt: "):
        read_key(tmp_path / "letter.txt")
