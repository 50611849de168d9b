%% Conditions that may reach the store. Khepri evaluates them inside Ra's apply with nothing around: one it
%% cannot evaluate kills the store on every member, for good. So this is a list of what is known to be safe.
-module(kb_condition).

-export([is_pattern/1, is_keep_while/1, mentions_data/1]).

-define(MAX_REGEX_BYTES, 256).
-define(MAX_DEPTH, 8).

%% In a path that is only read.
-spec is_pattern(term()) -> boolean().
is_pattern(Condition) -> allowed(Condition, pattern, ?MAX_DEPTH).

-spec is_keep_while(term()) -> boolean().
is_keep_while(Condition) -> allowed(Condition, keep_while, ?MAX_DEPTH).

%% Whether `if_data_matches' stands anywhere inside: the well-formed condition that kills the store.
-spec mentions_data(term()) -> boolean().
mentions_data(Term) when is_tuple(Term), tuple_size(Term) > 0 ->
    element(1, Term) =:= if_data_matches orelse lists:any(fun mentions_data/1, tuple_to_list(Term));
mentions_data([Head | Tail]) -> mentions_data(Head) orelse mentions_data(Tail);
mentions_data(_) -> false.

allowed(_, _, 0) -> false;
allowed({if_name_matches, Regex, undefined}, pattern, _) -> is_regex(Regex);
allowed({if_path_matches, Regex, undefined}, pattern, _) -> is_regex(Regex);
allowed({Tag, Flag}, _, _)
  when Tag =:= if_has_payload; Tag =:= if_has_data; Tag =:= if_has_sproc; Tag =:= if_node_exists ->
    is_boolean(Flag);
allowed({Tag, Number}, _, _)
  when Tag =:= if_payload_version; Tag =:= if_child_list_version; Tag =:= if_child_list_length ->
    is_bound(Number);
allowed({if_not, Condition}, Use, Depth) -> allowed(Condition, Use, Depth - 1);
allowed({Tag, Conditions}, Use, Depth) when Tag =:= if_all; Tag =:= if_any -> each(Conditions, Use, Depth - 1, 32);
allowed(_, _, _) -> false.

each([], _, _, _) -> true;
each([Condition | Rest], Use, Depth, Left) when Left > 0 ->
    allowed(Condition, Use, Depth) andalso each(Rest, Use, Depth, Left - 1);
each(_, _, _, _) -> false.

is_bound({Comparison, Number}) when is_integer(Number) ->
    lists:member(Comparison, [eq, ne, lt, le, gt, ge]) andalso is_bound(Number);
is_bound(Number) -> is_integer(Number) andalso Number >= 0.

is_regex(any) -> true;
is_regex(Regex) when is_binary(Regex), byte_size(Regex) =< ?MAX_REGEX_BYTES ->
    case re:compile(Regex, [unicode]) of
        {ok, _} -> true;
        _ -> false
    end;
is_regex(Regex) when is_list(Regex) ->
    try is_regex(unicode:characters_to_binary(Regex)) catch _:_ -> false end;
is_regex(_) -> false.
