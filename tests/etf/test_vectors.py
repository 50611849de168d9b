"""The bytes that real OTPs 25, 27 and 29 wrote (``scripts/make_vectors.escript``)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import DecodeError
from bridge.etf import Closure, Pid, Port, Reference, decode_term, encode_term, term_identity
from tests.support.vectors import OTP_VECTORS, otp_vectors

_REFUSED = {"local": "only by the node that wrote it"}


VECTORS = otp_vectors()
_CASES = [
    pytest.param(encoded, id=f"otp{release}-{name}")
    for release, vectors in VECTORS.items()
    for name, encoded in vectors.items()
    if name not in _REFUSED
]


@pytest.mark.parametrize("encoded", _CASES)
def test_what_otp_wrote_decodes_and_encodes_to_an_equal_term(encoded: bytes) -> None:
    term = decode_term(encoded)
    again = decode_term(encode_term(term))
    assert again == term
    assert type(again) is type(term)
    # Python's == takes 1, 1.0 and True for one another; this does not.
    assert term_identity(again) == term_identity(term)


@pytest.mark.parametrize("release", [25, 27, 29])
def test_each_file_says_which_otp_wrote_it_and_none_lacks_what_another_has(release: int) -> None:
    header = (OTP_VECTORS / f"otp{release}.tsv").read_text().partition("\n")[0]
    assert re.fullmatch(rf"# OTP {release}, version {release}\.\S+, ERTS \S+", header)
    # The option local came with OTP 26.
    assert VECTORS[release].keys() | {"local"} == VECTORS[29].keys()


@pytest.mark.parametrize("release", [27, 29])
def test_what_is_for_the_writing_node_alone_is_refused_and_says_so(release: int) -> None:
    for name, why in _REFUSED.items():
        with pytest.raises(DecodeError, match=why):
            decode_term(VECTORS[release][name])


def test_the_forms_that_differ_between_otps_are_among_the_vectors() -> None:
    for release, vectors in VECTORS.items():
        old = release == 25
        assert vectors["atom"][1] == (100 if old else 119)  # ATOM_EXT, SMALL_ATOM_UTF8_EXT
        assert vectors["port"][1] == (89 if old else 120)  # NEW_PORT_EXT, V4_PORT_EXT
        assert vectors["v4_port_rewritten"][1] == 120
        assert vectors["float_text"][1] == 99  # FLOAT_EXT
        assert vectors["compressed"][1] == 80
        assert vectors["string_65535"][1] == 80
        assert vectors["fun"][1] == 112
        words = [len(decode_term(vectors[f"reference_{name}"]).ids) for name in ("3_words", "alias")]
        assert words == ([3, 3] if old else [3, 5])
        kinds = {type(decode_term(vectors[name])) for name in ("fun", "pid", "port", "reference_alias")}
        assert kinds == {Closure, Pid, Port, Reference}


def test_terms_of_one_value_are_one_term_whichever_otp_wrote_them() -> None:
    own = ("pid", "port", "reference", "fun", "map_other_keys", "local")
    for name, encoded in VECTORS[25].items():
        if name.startswith(own):
            continue
        for release in (27, 29):
            other = decode_term(VECTORS[release][name])
            assert term_identity(other) == term_identity(decode_term(encoded)), name


_COMPARE = """
    {ok, Text} = file:read_file(File),
    Compare = fun(Golden, Ours) ->
        try binary_to_term(binary:decode_hex(Golden)) of
            Theirs ->
                Read = binary_to_term(binary:decode_hex(Ours)),
                case Theirs =:= Read andalso term_to_binary(Theirs) =:= term_to_binary(Read) of
                    true -> same;
                    false -> other
                end
        catch error:badarg -> unread
        end
    end,
    Lines = [binary:split(Line, <<" ">>, [global]) || Line <- binary:split(Text, <<"\\n">>, [global, trim])],
    Results = [{Compare(Golden, Ours), Name} || [Name, Golden, Ours] <- Lines],
    [io:format("~s ~s~n", [Result, Name]) || {Result, Name} <- Results, Result =/= same],
    Deep = lists:foldl(fun(_, Inner) -> #{[{Inner}] => 1} end, [], lists:seq(1, 33333)),
    {ok, Nested} = file:read_file(File ++ ".deep"),
    Release = erlang:system_info(otp_release),
    io:format("~s ~b ~s", [Release, length(Results), binary_to_term(Nested) =:= Deep]),
    halt()
"""


@pytest.mark.erlang
def test_a_live_otp_reads_what_is_encoded_as_the_very_term_it_wrote(tmp_path: Path) -> None:
    file = tmp_path / "pairs"
    with file.open("w") as out:
        for release, vectors in VECTORS.items():
            for name, encoded in vectors.items():
                if name not in _REFUSED:
                    ours = encode_term(decode_term(encoded))
                    out.write(f"{release}-{name} {encoded.hex()} {ours.hex()}\n")
    (tmp_path / "pairs.deep").write_bytes(encode_term(_nested(33_333)))
    said = subprocess.run(
        ["erl", "-noshell", "-eval", f'File = "{file}", {_COMPARE}.'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    *odd, last = said.stdout.splitlines() or [""]
    host, count, deep = last.split() if last else ("", "0", said.stderr)
    assert (int(count), deep) == (len(_CASES), "true")
    # OTP 25 takes five words in a reference of another nameless node for a malformed one of its own.
    findings = [line for line in odd if not line.startswith("unread ") or line.startswith(f"unread {host}-")]
    assert findings == []
    assert len(odd) < 10


def _nested(levels: int) -> Any:
    """Maps with a list with a tuple with such a map as their only key, decoded from bytes."""
    opening = b"t\0\0\0\x01" + b"l\0\0\0\x01" + b"h\x01"
    return decode_term(b"\x83" + opening * levels + b"j" + b"ja\x01" * levels)
