#!/usr/bin/env escript
%% Golden vectors of the External Term Format: what this OTP writes, as lines of "name<TAB>hex<TAB>printed term".
%% Usage: escript scripts/make_vectors.escript > tests/vectors/etf/otp25.tsv
-mode(compile).

main([]) ->
    ok = io:setopts([{encoding, unicode}]),
    io:format("# OTP ~s, ERTS ~s~n", [erlang:system_info(otp_release), erlang:system_info(version)]),
    io:format("# escript scripts/make_vectors.escript > tests/vectors/etf/otp~s.tsv~n",
              [erlang:system_info(otp_release)]),
    [line(Name, term_to_binary(Term, Options), Term) || {Name, Term, Options} <- terms()],
    [line(Name, Bytes, binary_to_term(Bytes)) || {Name, Bytes} <- raw()],
    ok.

line(Name, Bytes, Term) ->
    io:format("~s\t~s\t~0tp~n", [Name, string:lowercase(binary:encode_hex(Bytes)), Term]).

terms() ->
    X = 7,
    Nested = lists:foldl(fun(_, Acc) -> [Acc] end, [], lists:seq(1, 200)),
    [{"atom", ok, []}, {"atom_empty", '', []}, {"atom_true", true, []}, {"atom_false", false, []},
     {"atom_undefined", undefined, []}, {"atom_utf8", binary_to_atom(<<"naïve_日本"/utf8>>), []},
     {"atom_minor1", binary_to_atom(<<"naïve"/utf8>>), [{minor_version, 1}]},
     {"atom_minor2", binary_to_atom(<<"naïve"/utf8>>), [{minor_version, 2}]},
     {"atom_255_wide", binary_to_atom(unicode:characters_to_binary(lists:duplicate(255, 16#65E5))), []},
     {"int_0", 0, []}, {"int_255", 255, []}, {"int_256", 256, []}, {"int_minus_1", -1, []},
     {"int_max", 2147483647, []}, {"int_min", -2147483648, []}, {"big_31", 2147483648, []},
     {"big_minus_31", -2147483649, []}, {"big_64", 1 bsl 64, []}, {"big_255_bytes", (1 bsl 2040) - 1, []},
     {"big_256_bytes", 1 bsl 2040, []}, {"big_minus_300_bytes", -(1 bsl 2400), []},
     {"float", 1.5, []}, {"float_minus_zero", -0.0, []}, {"float_tiny", 5.0e-324, []},
     {"float_text", 3.25, [{minor_version, 0}]},
     {"binary", <<"wood">>, []}, {"binary_empty", <<>>, []}, {"bits_1", <<1:1>>, []},
     {"bits_11", <<16#ABC:12/big, 1:7>>, []}, {"nil", [], []}, {"string", "abc", []},
     {"list_wide", [1, 256], []}, {"list_300", lists:duplicate(300, ok), []}, {"improper", [1, 2 | three], []},
     {"improper_binary", [a | <<"b">>], []}, {"tuple_0", {}, []}, {"tuple_3", {ok, 1, <<"a">>}, []},
     {"tuple_300", list_to_tuple(lists:seq(1, 300)), []}, {"map_0", #{}, []},
     {"map", #{a => 1, <<"b">> => [2], 3 => #{}}, []}, {"map_numbers", #{1 => int, 1.0 => float, true => bool}, []},
     {"map_list_key", #{[1] => list, #{a => 1} => map, {[]} => tuple}, []},
     {"map_tuple_numbers", #{{1} => int, {1.0} => float}, []},
     {"map_100", maps:from_list([{N, integer_to_binary(N)} || N <- lists:seq(1, 100)]), []},
     {"nested_200", Nested, []}, {"pid", self(), []}, {"reference", make_ref(), []},
     {"alias", erlang:alias(), []}, {"port", hd(erlang:ports()), []}, {"export", fun lists:map/2, []},
     {"fun", fun(Y) -> X + Y end, []}, {"compressed", lists:duplicate(500, <<"stone">>), [compressed]},
     {"compressed_9", binary:copy(<<"stone">>, 500), [{compressed, 9}]}].

%% Forms that this OTP no longer writes but still reads; the bytes come from the specification.
raw() ->
    Node = <<100, 0, 3, "a@b">>,
    [{"old_pid", <<131, 103, Node/binary, 1:32, 2:32, 3>>},
     {"old_port", <<131, 102, Node/binary, 1:32, 3>>},
     {"new_port", <<131, 89, Node/binary, 1:32, 3:32>>},
     {"v4_port", <<131, 120, Node/binary, (1 bsl 40):64, 3:32>>},
     {"old_reference", <<131, 101, Node/binary, 9:32, 3>>},
     {"new_reference", <<131, 114, 2:16, Node/binary, 3, 8:32, 9:32>>},
     {"newer_reference", <<131, 90, 5:16, Node/binary, 3:32, 5:32, 6:32, 7:32, 8:32, 9:32>>},
     {"atom_latin1", <<131, 100, 2:16, 16#E9, $a>>}, {"atom_latin1_small", <<131, 115, 2, 16#E9, $a>>},
     {"atom_utf8_long_form", <<131, 118, 2:16, "ok">>},
     {"list_tail_list", <<131, 108, 1:32, 97, 1, 108, 1:32, 97, 2, 106>>},
     {"list_tail_string", <<131, 108, 1:32, 97, 1, 107, 2:16, 2, 3>>},
     {"big_small_value", <<131, 110, 2, 0, 5, 0>>}].
