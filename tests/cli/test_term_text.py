from bridge.cli.term_text import term_text
from bridge.etf import Atom


def test_a_term_is_one_line_of_json_or_of_erlang() -> None:
    term = {b"state": (Atom("ready"), "größe\n".encode())}
    assert term_text(term, erlang=False) == '{"state": {"$tuple": [{"$atom": "ready"}, "größe\\n"]}}'
    assert term_text(term, erlang=True) == '#{<<"state">> => {ready, <<"größe\\n"/utf8>>}}'


def test_no_data_is_null_or_undefined() -> None:
    assert term_text(None, erlang=False) == "null"
    assert term_text(None, erlang=True) == "undefined"
