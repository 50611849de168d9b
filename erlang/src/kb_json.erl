%% Flat JSON objects from strangers, strictly: string members, non-negative integers, booleans and arrays of
%% strings; no duplicates, no trailing bytes. OTP has a JSON module only from 27 on, and a full parser would
%% accept more than a signed header or a key may hold.
-module(kb_json).

-export([object/1]).

-define(MAX_BYTES, 4096).
-define(MAX_MEMBERS, 32).

-type value() :: binary() | non_neg_integer() | boolean() | [binary()].

-spec object(binary()) -> {ok, #{binary() => value()}} | error.
object(Text) when byte_size(Text) =< ?MAX_BYTES ->
    try
        <<"{", Rest/binary>> = space(Text),
        {Members, Left} = case space(Rest) of
                              <<"}", End/binary>> -> {#{}, End};
                              More -> members(More, #{})
                          end,
        <<>> = space(Left),
        {ok, Members}
    catch
        _:_ -> error
    end;
object(_) ->
    error.

members(Text, Members) when map_size(Members) < ?MAX_MEMBERS ->
    {Name, Rest} = string(Text),
    false = is_map_key(Name, Members),
    <<":", Rest1/binary>> = space(Rest),
    {Value, Rest2} = value(space(Rest1)),
    Members1 = Members#{Name => Value},
    case space(Rest2) of
        <<",", Rest3/binary>> -> members(space(Rest3), Members1);
        <<"}", Rest3/binary>> -> {Members1, Rest3}
    end.

value(<<"\"", _/binary>> = Text) -> string(Text);
value(<<"true", Rest/binary>>) -> {true, Rest};
value(<<"false", Rest/binary>>) -> {false, Rest};
value(<<"[", Rest/binary>>) -> strings(space(Rest), []);
value(<<"0", Rest/binary>>) -> {0, no_digit(Rest)};
value(<<Digit, _/binary>> = Text) when Digit >= $1, Digit =< $9 -> integer(Text, 0, 0).

integer(<<Digit, Rest/binary>>, Number, Count) when Digit >= $0, Digit =< $9, Count < 20 ->
    integer(Rest, Number * 10 + Digit - $0, Count + 1);
integer(Rest, Number, _) -> {Number, no_digit(Rest)}.

no_digit(<<Byte, _/binary>> = Rest) when Byte < $0; Byte > $9 -> Rest.

strings(<<"]", Rest/binary>>, []) -> {[], Rest};
strings(Text, Acc) when length(Acc) < ?MAX_MEMBERS ->
    {String, Rest} = string(Text),
    case space(Rest) of
        <<",", Rest1/binary>> ->
            strings(not_end(space(Rest1)), [String | Acc]);
        <<"]", Rest1/binary>> ->
            {lists:reverse(Acc, [String]), Rest1}
    end.

not_end(<<"\"", _/binary>> = Text) -> Text.

string(<<"\"", Rest/binary>>) -> string(Rest, []).

string(<<"\"", Rest/binary>>, Acc) ->
    Text = unicode:characters_to_binary(lists:reverse(Acc)),
    true = is_binary(Text),
    {Text, Rest};
string(<<"\\u", Hex:4/binary, Rest/binary>>, Acc) ->
    escaped(code(Hex), Rest, Acc);
string(<<"\\", Escape, Rest/binary>>, Acc) ->
    {_, Character} = lists:keyfind(Escape, 1, [{$", $"}, {$\\, $\\}, {$/, $/}, {$b, 8}, {$f, 12},
                                               {$n, 10}, {$r, 13}, {$t, 9}]),
    string(Rest, [Character | Acc]);
string(<<Character/utf8, Rest/binary>>, Acc) when Character >= 32 ->
    string(Rest, [Character | Acc]).

escaped(High, <<"\\u", Hex:4/binary, Rest/binary>>, Acc) when High >= 16#D800, High =< 16#DBFF ->
    Low = code(Hex),
    true = Low >= 16#DC00 andalso Low =< 16#DFFF,
    string(Rest, [16#10000 + ((High - 16#D800) bsl 10) + Low - 16#DC00 | Acc]);
escaped(Code, Rest, Acc) when Code < 16#D800; Code > 16#DFFF ->
    string(Rest, [Code | Acc]).

code(Hex) ->
    true = lists:all(fun(Byte) -> lists:member(Byte, "0123456789abcdefABCDEF") end, binary_to_list(Hex)),
    binary_to_integer(Hex, 16).

space(<<Byte, Rest/binary>>) when Byte =:= 32; Byte =:= 9; Byte =:= 10; Byte =:= 13 -> space(Rest);
space(Text) -> Text.
