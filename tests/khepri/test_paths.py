import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.etf import Atom, ExportFun
from bridge.homeserver.local import LocalCluster
from bridge.khepri import native_path, path_text, wire_path
from bridge.khepri.paths import MAX_PATH_BYTES
from bridge.node import HiddenNode

atoms = st.text(st.characters(max_codepoint=255), min_size=1, max_size=12).map(Atom)
binaries = st.binary(min_size=1, max_size=12).filter(lambda name: b"*" not in name)
paths = st.lists(st.one_of(atoms, binaries), min_size=1, max_size=4)


def test_text_goes_to_the_homeserver_as_it_is() -> None:
    assert wire_path("/:stock/wöod") == "/:stock/wöod".encode()
    assert wire_path(b"/:stock") == b"/:stock"


@pytest.mark.parametrize("path", ["stock", "", ":stock/wood", b"stock"])
def test_text_without_a_leading_slash_is_no_absolute_path(path: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="no absolute path"):
        wire_path(path)


def test_a_path_has_a_longest_length() -> None:
    assert len(wire_path("/" + "x" * (MAX_PATH_BYTES - 1))) == MAX_PATH_BYTES
    with pytest.raises(ConfigurationError, match="longer than"):
        wire_path("/" + "x" * MAX_PATH_BYTES)


def test_components_become_atoms_and_binaries() -> None:
    assert wire_path([Atom("stock"), "wood", b"oak"]) == [Atom("stock"), b"wood", b"oak"]


def test_an_atom_alone_is_no_path() -> None:
    with pytest.raises(ConfigurationError, match="put it in a list"):
        wire_path(Atom("stock"))  # type: ignore[arg-type]  # an easy slip, since an Atom prints like a str


def test_a_number_is_no_component() -> None:
    with pytest.raises(ConfigurationError, match="no path component"):
        wire_path([Atom("stock"), 7])  # type: ignore[list-item]  # what a caller without types may do


def test_a_native_path_can_be_a_key() -> None:
    assert {native_path([Atom("stock"), b"wood"]): 1}[Atom("stock"), b"wood"] == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([Atom("stock"), b"wood"], "/:stock/wood"),
        ([b":wood"], "/%3Awood"),
        ([b"a/b"], "/a%2Fb"),
        ([b".."], "/%2E."),
        ([b"."], "/%2E"),
        ([Atom(".")], "/:%2E"),
        ([b"*"], "/%2A"),
        ([b"100%"], "/100%25"),
        (["ö".encode()], "/%C3%B6"),
        ([Atom("ö")], "/:%F6"),
        ([Atom("木")], "/:%E6%9C%A8"),
    ],
)
def test_text_escapes_what_would_mean_something_else(path: list[Atom | bytes], text: str) -> None:
    assert path_text(path) == text


@given(paths)
def test_text_of_a_path_is_an_absolute_path(path: list[Atom | bytes]) -> None:
    text = path_text(path)
    assert wire_path(text) == text.encode()
    assert text.count("/") == len(path)
    assert text.isascii()


@pytest.mark.erlang
async def test_khepris_own_parser_reads_the_text_back(node: HiddenNode, cluster: LocalCluster) -> None:
    seen: list[list[Atom | bytes]] = []

    @given(paths)
    def collect(path: list[Atom | bytes]) -> None:
        seen.append(path)

    collect()
    # One call for all: hypothesis makes the cases, the other implementation judges them.
    parsed = await node.call(
        cluster.members[0],
        "lists",
        "map",
        [ExportFun(Atom("khepri_path"), Atom("from_binary"), 1), [path_text(path).encode() for path in seen]],
    )
    assert parsed == seen
