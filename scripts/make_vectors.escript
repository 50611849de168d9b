#!/usr/bin/env escript
%% Golden vectors of the External Term Format: what this OTP writes, as lines of "name<TAB>hex<TAB>printed term".
%% Usage: escript scripts/make_vectors.escript > tests/vectors/etf/otp25.tsv
%% The first line of what it writes says which OTP that was. Each supported one has its own file, made by running
%% this under that one's escript: Debian's package erlang-base is OTP 25 in bookworm, 27 in trixie, 29 after it.
-mode(compile).

main([]) ->
    ok = io:setopts([{encoding, unicode}]),
    Release = erlang:system_info(otp_release),
    io:format("# OTP ~s, version ~s, ERTS ~s~n", [Release, version(Release), erlang:system_info(version)]),
    io:format("# escript scripts/make_vectors.escript > tests/vectors/etf/otp~s.tsv~n", [Release]),
    [written(Name, Term, Options) || {Name, Term, Options} <- terms()],
    [read(Name, Bytes) || {Name, Bytes} <- raw()],
    ok.

version(Release) ->
    case file:read_file(filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"])) of
        {ok, Version} -> string:trim(Version);
        {error, _} -> "unknown"
    end.

written(Name, Term, Options) ->
    try
        line(Name, term_to_binary(Term, Options), Term)
    catch
        error:badarg -> io:format("# ~s: this OTP does not know the option~n", [Name])
    end.

%% A form of which the bytes come from the specification, and what this OTP makes of it.
read(Name, Bytes) ->
    try
        Term = binary_to_term(Bytes),
        line(Name, Bytes, Term),
        line(Name ++ "_rewritten", term_to_binary(Term), Term)
    catch
        error:badarg -> io:format("# ~s: this OTP does not read it~n", [Name])
    end.

line(Name, Bytes, Term) ->
    Printed = string:slice(io_lib:format("~0tP", [Term, 20]), 0, 100),
    io:format("~s\t~s\t~ts~n", [Name, string:lowercase(binary:encode_hex(Bytes)), Printed]).

terms() ->
    atoms() ++ numbers() ++ binaries() ++ lists() ++ tuples() ++ maps() ++ identifiers() ++ funs() ++ options().

atoms() ->
    Wide = fun(Character) -> binary_to_atom(unicode:characters_to_binary(lists:duplicate(255, Character))) end,
    Text = binary_to_atom(<<"naïve"/utf8>>),
    [{"atom", ok, []}, {"atom_empty", '', []}, {"atom_true", true, []}, {"atom_false", false, []},
     {"atom_undefined", undefined, []}, {"atom_utf8", binary_to_atom(<<"naïve_日本"/utf8>>), []},
     {"atom_latin1", Text, []}, {"atom_minor1", Text, [{minor_version, 1}]}, {"atom_minor2", Text, [{minor_version, 2}]},
     {"atom_255", Wide($x), []}, {"atom_255_latin1", Wide(16#E9), []}, {"atom_255_latin1_minor2", Wide(16#E9), [{minor_version, 2}]},
     {"atom_255_three_bytes", Wide(16#65E5), []}, {"atom_255_four_bytes", Wide(16#1F701), []},
     {"atoms_of_each_latin1_character", [binary_to_atom(<<C/utf8>>) || C <- lists:seq(0, 255)], []}].

numbers() ->
    Edges = [{"255", 255}, {"256", 256}, {"max", 1 bsl 31 - 1}, {"31_bits", 1 bsl 31}, {"60_bits", 1 bsl 59 - 1},
             {"61_bits", 1 bsl 60}, {"64_bits", 1 bsl 64 - 1}, {"65_bits", 1 bsl 64}, {"255_bytes", 1 bsl 2040 - 1},
             {"256_bytes", 1 bsl 2040}, {"2000_bytes", 1 bsl 15999 + 12345}],
    [{"int_0", 0, []}, {"int_minus_1", -1, []}, {"int_min", -(1 bsl 31), []}, {"int_below_min", -(1 bsl 31) - 1, []}]
        ++ [{"int_" ++ Name, Number, []} || {Name, Number} <- Edges]
        ++ [{"int_minus_" ++ Name, -Number, []} || {Name, Number} <- Edges]
        ++ [{"float", 1.5, []}, {"float_0", 0.0, []}, {"float_minus_0", -0.0, []}, {"float_tiny", 5.0e-324, []},
            {"float_huge", 1.7976931348623157e308, []}, {"float_third", 1 / 3, []}, {"float_text", 3.25, [{minor_version, 0}]},
            {"float_text_tiny", -1.0e-300, [{minor_version, 0}]}].

binaries() ->
    <<_:3, Part:13/bits, _/bits>> = <<16#ABCDEF:24>>,
    [{"binary", <<"wood">>, []}, {"binary_empty", <<>>, []}, {"binary_utf8", <<"naïve 日本"/utf8>>, []},
     {"binary_300", binary:copy(<<"x">>, 300), []}, {"binary_of_each_byte", list_to_binary(lists:seq(0, 255)), []},
     {"bits_part_of_another", Part, []}, {"bits_300", <<(binary:copy(<<255>>, 300))/binary, 1:1>>, []}]
        ++ [{"bits_" ++ integer_to_list(N), <<16#A5, 16#FF:N>>, []} || N <- lists:seq(1, 7)].

lists() ->
    [{"nil", [], []}, {"string", "abc", []}, {"string_with_0_and_255", [0, 255], []}, {"string_wide", [1, 256], []},
     {"string_65535", lists:duplicate(65535, $a), [compressed]}, {"string_65536", lists:duplicate(65536, $a), [compressed]},
     {"list", [1, 2.0, <<"3">>, four, [5], {6}, #{7 => 8}], []}, {"list_300", lists:duplicate(300, ok), []},
     {"list_of_nil", [[]], []}, {"list_string_inside", ["ab", "c", []], []},
     {"improper", [1, 2 | three], []}, {"improper_binary", [a | <<"b">>], []}, {"improper_map", [a | #{}], []},
     {"improper_in_improper", [[a | b], [c | d] | [e | f]], []}, {"improper_0", [[] | 0], []},
     {"nested_200", lists:foldl(fun(_, Acc) -> [Acc] end, [], lists:seq(1, 200)), []}].

tuples() ->
    [{"tuple_0", {}, []}, {"tuple_3", {ok, 1, <<"a">>}, []}, {"tuple_255", erlang:make_tuple(255, a), []},
     {"tuple_256", list_to_tuple(lists:seq(1, 256)), []}, {"tuple_nested", {{{{}, 1}, 2}, 3}, []}].

maps() ->
    Pairs = fun(Count) -> [{N, integer_to_binary(N)} || N <- lists:seq(1, Count)] end,
    Sides = #{1 => int, 1.0 => float, true => bool},
    [{"map_0", #{}, []}, {"map", #{a => 1, <<"b">> => [2], 3 => #{}}, []}, {"map_numbers_side_by_side", Sides, []},
     {"map_numbers_in_tuples", #{{1} => int, {1.0} => float, {true} => bool}, []},
     {"map_numbers_in_lists", #{[1] => int, [1.0] => float, [true] => bool, {1} => tuple}, []},
     {"map_zeros", #{0 => int, 0.0 => float, false => bool, [] => nil, {} => tuple, <<>> => binary, #{} => map}, []},
     {"map_path_keys", #{[kb, <<"stone">>] => 1, [kb, <<"wood">>] => 2, [] => 3}, []},
     {"map_map_keys", #{#{a => 1} => 1, #{a => 1.0} => 2, #{b => 1} => 3, Sides => 4}, []},
     {"map_map_keys_of_map_keys", #{#{#{#{} => 1} => 2} => 3, #{#{#{} => 2} => 2} => 3}, []},
     {"map_other_keys", #{[a | b] => 1, <<1:3>> => 2, fun lists:map/2 => 3, self() => 4, make_ref() => 5, "x" => 6}, []},
     {"map_32", maps:from_list(Pairs(32)), []}, {"map_33", maps:from_list(Pairs(33)), []},
     {"map_300", maps:from_list(Pairs(300)), []},
     {"map_300_deterministic", maps:from_list(Pairs(300)), [deterministic]},
     {"map_numbers_deterministic", Sides, [deterministic]}].

identifiers() ->
    {Process, Monitor} = spawn_monitor(fun() -> ok end),
    [{"pid", self(), []}, {"pid_other", Process, []}, {"port", hd(erlang:ports()), []}, {"reference_3_words", make_ref(), []},
     {"reference_monitor", Monitor, []},
     %% Of five words as of OTP 26.
     {"reference_alias", erlang:alias(), []}, {"reference_alias_monitor", monitor(process, Process, [{alias, demonitor}]), []}].

funs() ->
    X = 7,
    Inner = fun(Z) -> {Z, X} end,
    Around = {<<"text">>, #{[key] => 1.5}, self(), make_ref(), <<1:3>>, 1 bsl 100, [a | b], "abc", fun lists:map/2},
    [{"export", fun lists:map/2, []}, {"export_unknown", fun nobody:wrote_this/255, []}, {"fun_0", fun() -> ok end, []},
     {"fun", fun(Y) -> X + Y end, []}, {"fun_in_fun", fun(Y) -> Inner(Y) end, []},
     {"fun_around_each_kind", fun() -> Around end, []}].

options() ->
    Words = lists:duplicate(500, <<"stone">>),
    [{"compressed", Words, [compressed]}, {"compressed_0", Words, [{compressed, 0}]}, {"compressed_9", Words, [{compressed, 9}]},
     {"compressed_binary", binary:copy(<<"stone">>, 500), [compressed]}, {"compressed_small", {a}, [compressed]},
     {"compressed_deterministic", Words, [compressed, deterministic]},
     {"local", {self(), make_ref(), here}, [local]}].

%% Forms that OTP no longer writes, or writes for other nodes alone, but reads; the bytes come from the specification.
raw() ->
    Node = <<100, 0, 3, "a@b">>,
    Utf8 = <<119, 3, "a@b">>,
    [{"old_pid", <<131, 103, Node/binary, 1:32, 2:32, 3>>},
     {"new_pid", <<131, 88, Utf8/binary, 1:32, 2:32, 16#FFFFFFFE:32>>},
     {"new_pid_wide", <<131, 88, Utf8/binary, 16#FFFFFFFF:32, 16#FFFFFFFF:32, 5:32>>},
     {"old_port", <<131, 102, Node/binary, 1:32, 3>>},
     {"new_port", <<131, 89, Node/binary, 1:32, 3:32>>},
     {"v4_port", <<131, 120, Node/binary, (1 bsl 40):64, 3:32>>},
     {"v4_port_small", <<131, 120, Utf8/binary, 17:64, 3:32>>},
     {"v4_port_wide", <<131, 120, Utf8/binary, 16#FFFFFFFFFFFFFFFF:64, 3:32>>},
     {"old_reference", <<131, 101, Node/binary, 9:32, 3>>},
     {"new_reference", <<131, 114, 2:16, Node/binary, 3, 8:32, 9:32>>},
     {"newer_reference_1", <<131, 90, 1:16, Utf8/binary, 3:32, 5:32>>},
     {"newer_reference_3", <<131, 90, 3:16, Utf8/binary, 3:32, 5:32, 6:32, 7:32>>},
     {"newer_reference_5", <<131, 90, 5:16, Node/binary, 3:32, 5:32, 6:32, 7:32, 8:32, 9:32>>},
     {"atom_ext", <<131, 100, 2:16, 16#E9, $a>>}, {"small_atom_ext", <<131, 115, 2, 16#E9, $a>>},
     {"atom_utf8_ext", <<131, 118, 2:16, "ok">>},
     {"list_tail_list", <<131, 108, 1:32, 97, 1, 108, 1:32, 97, 2, 106>>},
     {"list_tail_string", <<131, 108, 1:32, 97, 1, 107, 2:16, 2, 3>>},
     {"list_0_elements", <<131, 108, 0:32, 97, 7>>},
     {"big_small_value", <<131, 110, 2, 0, 5, 0>>}, {"large_big_small_value", <<131, 111, 1:32, 1, 5>>},
     {"large_tuple_small", <<131, 105, 1:32, 97, 1>>}, {"integer_small_value", <<131, 98, 5:32>>},
     {"bit_binary_full", <<131, 77, 1:32, 8, $a>>}].
