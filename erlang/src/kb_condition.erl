%% Conditions that may reach the store. Khepri evaluates those of a write inside Ra's apply with nothing around
%% them: one it cannot evaluate kills the store on every member, for good. So this is a list of what is known to
%% be safe, of bounded size and bounded time, and what is not in it is refused.
%%
%% Beyond their shape:
%% - Guards of a match specification that tell members apart (`node', `self') or make numbers of any size from
%%   small ones (`bsl') are refused, and what only newer versions of OTP know.
%% - A regular expression gets a limit of steps per name, without which one name holds a member up for seconds,
%%   and may not begin with an option of its own: with `(*UTF8)', names that are not UTF-8 raise.
%% - Names are Latin-1 atoms and binaries: matching another atom against an expression raises.
-module(kb_condition).

-export([checked/2, is_name/1, shown/1]).

-export_type([use/0]).

-define(MAX_BYTES, 16384).
-define(MAX_DEPTH, 8).
-define(MAX_BRANCHES, 32).
-define(MAX_REGEX_BYTES, 256).
-define(MAX_NAME_BYTES, 1024).
%% At most 4 ms for a name of 1024 bytes; an ordinary expression takes some hundred steps.
-define(STEPS, "(*LIMIT_MATCH=10000)").
-define(SMALL, 16#FFFFFFFFFFFFFFFF).

%% `pattern': a component of a path. `keep_while': where `if_data_matches' is evaluated without being compiled,
%% at a later write, with nothing around it.
-type use() :: pattern | keep_while.

%% The condition as it may go to the store, or why it may not.
-spec checked(term(), use()) -> {ok, khepri_path:pattern_component()} | {poison, binary()}.
checked(Name, _) when is_atom(Name); is_binary(Name) ->
    case is_name(Name) of
        true -> {ok, Name};
        false -> {poison, <<"a name is a Latin-1 atom, or a binary, of 1 to 1024 bytes">>}
    end;
checked({_, any, undefined} = Wildcard, _) when element(1, Wildcard) =:= if_name_matches;
                                                element(1, Wildcard) =:= if_path_matches ->
    {ok, Wildcard};
checked(Condition, Use) when is_tuple(Condition) ->
    try
        erlang:external_size(Condition) =< ?MAX_BYTES orelse poison(<<"a condition has up to 16 KiB">>),
        {ok, condition(Condition, Use, ?MAX_DEPTH)}
    catch
        throw:{poison, Message} -> {poison, Message}
    end;
checked(_, _) ->
    {poison, <<"not a condition of docs/protocol.md section 1">>}.

-spec is_name(term()) -> boolean().
is_name('') -> false;
is_name(Name) when is_atom(Name) ->
    try is_binary(atom_to_binary(Name, latin1)) catch error:badarg -> false end;
is_name(Name) when is_binary(Name) -> byte_size(Name) >= 1 andalso byte_size(Name) =< ?MAX_NAME_BYTES;
is_name(_) -> false.

%% A condition of an error, as its client wrote it: without what compiling put into it.
-spec shown(term()) -> term().
shown({if_data_matches, Pattern, Guards, _}) -> {if_data_matches, Pattern, Guards, undefined};
shown({Tag, <<?STEPS, Regex/binary>>, _}) -> {Tag, Regex, undefined};
shown({if_not, Condition}) -> {if_not, shown(Condition)};
shown({Tag, Conditions}) when (Tag =:= if_all orelse Tag =:= if_any), is_list(Conditions) ->
    {Tag, [shown(Condition) || Condition <- Conditions]};
shown(Other) -> Other.

condition(_, _, 0) -> poison(<<"conditions are nested up to 8 deep">>);
condition(Name, _, _) when is_atom(Name); is_binary(Name) ->
    is_name(Name) orelse poison(<<"a name is a Latin-1 atom, or a binary, of 1 to 1024 bytes">>),
    Name;
condition({Tag, Regex, undefined}, _, _) when Tag =:= if_name_matches; Tag =:= if_path_matches ->
    {Tag, regex(Regex), undefined};
condition({Tag, Flag} = Condition, _, _)
  when (Tag =:= if_has_payload orelse Tag =:= if_has_data orelse Tag =:= if_has_sproc orelse
        Tag =:= if_node_exists), is_boolean(Flag) ->
    Condition;
condition({Tag, Number} = Condition, _, _)
  when Tag =:= if_payload_version; Tag =:= if_child_list_version; Tag =:= if_child_list_length ->
    is_bound(Number) orelse poison(<<"a version or length is N or {eq | ne | lt | le | gt | ge, N}, N >= 0">>),
    Condition;
condition({if_data_matches, _, _, _}, keep_while, _) ->
    poison(<<"if_data_matches in keep_while kills the store at a later write: watch existence or versions instead">>);
condition({if_data_matches, Pattern, Guards, undefined} = Condition, pattern, _) ->
    guards(Guards, ?MAX_BRANCHES),
    kb_validate:storable({Pattern, Guards}) =:= ok orelse poison(<<"a function cannot be matched with">>),
    _ = try ets:match_spec_compile([{Pattern, Guards, [match]}])
        catch error:_ -> poison(<<"the pattern or the guards of if_data_matches do not compile">>)
        end,
    Condition;
condition({if_not, Condition}, Use, Depth) ->
    {if_not, condition(Condition, Use, Depth - 1)};
condition({Tag, Conditions}, Use, Depth) when Tag =:= if_all; Tag =:= if_any ->
    {Tag, each(Conditions, Use, Depth - 1, ?MAX_BRANCHES)};
condition(_, _, _) ->
    poison(<<"a condition that the store could not evaluate">>).

each([], _, _, _) -> [];
each([Condition | Rest], Use, Depth, Left) when Left > 0 ->
    [condition(Condition, Use, Depth) | each(Rest, Use, Depth, Left - 1)];
each(_, _, _, _) -> poison(<<"if_all and if_any take a list of up to 32 conditions">>).

is_bound({Comparison, Number}) when is_integer(Number) ->
    lists:member(Comparison, [eq, ne, lt, le, gt, ge]) andalso Number >= 0;
is_bound(Number) -> is_integer(Number) andalso Number >= 0.

regex(any) -> any;
regex(Given) ->
    Regex = try iolist_to_binary(Given) catch error:_ -> poison(<<"a regular expression is a binary">>) end,
    case Regex of
        <<"(*", _/binary>> -> poison(<<"a regular expression may not begin with (*">>);
        _ when byte_size(Regex) > ?MAX_REGEX_BYTES -> poison(<<"a regular expression has up to 256 bytes">>);
        _ ->
            Limited = <<?STEPS, Regex/binary>>,
            case re:compile(Limited) of
                {ok, _} -> Limited;
                {error, _} -> poison(<<"the regular expression does not compile">>)
            end
    end.

guards([], _) -> ok;
guards([Guard | Rest], Left) when Left > 0 ->
    guard(Guard),
    guards(Rest, Left - 1);
guards(_, _) -> poison(<<"guards are a list of up to 32">>).

%% What stands for itself is left to the compiler.
guard({const, _}) -> ok;
guard({Tuple}) when is_tuple(Tuple) -> lists:foreach(fun guard/1, tuple_to_list(Tuple));
guard({Operator, Left, Right}) when Operator =:= '*'; Operator =:= 'div'; Operator =:= 'rem' ->
    %% Of two stored numbers of a million digits the product would take a minute.
    (is_small(Right) orelse (Operator =:= '*' andalso is_small(Left)))
        orelse poison(<<"a guard multiplies and divides by a number of its own">>),
    guard(Left),
    guard(Right);
guard(Call) when is_tuple(Call), tuple_size(Call) > 0 ->
    [Function | Arguments] = tuple_to_list(Call),
    lists:member(Function, guard_functions()) orelse poison(<<"a guard function that is not offered">>),
    lists:foreach(fun guard/1, Arguments);
guard([Head | Tail]) ->
    guard(Head),
    guard(Tail);
guard(Map) when is_map(Map) -> lists:foreach(fun guard/1, maps:values(Map));
guard(_) -> ok.

is_small(Number) -> is_integer(Number) andalso abs(Number) =< ?SMALL.

%% Known to OTP 25 and later.
guard_functions() ->
    [is_atom, is_float, is_integer, is_list, is_number, is_pid, is_port, is_reference, is_tuple, is_map, is_map_key,
     is_binary, is_function, is_record, 'and', 'or', 'not', 'xor', 'andalso', 'orelse', abs, element, hd, tl, length,
     map_get, map_size, round, trunc, size, '+', '-', 'band', 'bor', 'bxor', 'bnot',
     '>', '>=', '<', '=<', '=:=', '==', '=/=', '/='].

-spec poison(binary()) -> no_return().
poison(Message) -> throw({poison, Message}).
