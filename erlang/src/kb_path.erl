%% Paths and patterns from outside, as native ones. Every `:name' of a path is an atom, and atoms are never
%% collected, so new ones are made only while the virtual machine has used less than half of its table.
-module(kb_path).

-export([exact/1, writable/1, pattern/1, one/1, written/1, written_one/1, watched/1]).

-include_lib("khepri/include/khepri.hrl").

-define(MAX_PATH_BYTES, 4096).
-define(MAX_COMPONENTS, 64).
%% Components that match grandchildren too. Khepri tries every way to lay them over a path: five over 60 names took
%% 15 s, and in a transaction more of them are a command that no member ever ends.
-define(MAX_RECURSIVE, 2).

-type refusal() :: {error, {invalid_path | reserved_path | poison | atom_budget, map()}}.

%% One node, by names alone, which need not exist.
-spec exact(term()) -> {ok, khepri_path:native_path()} | refusal().
exact(Path) ->
    case pattern(Path) of
        {ok, []} -> invalid(Path, <<"the root is no node that holds data">>);
        {ok, Native} ->
            case lists:all(fun(Name) -> not is_tuple(Name) end, Native) of
                true -> {ok, Native};
                false -> invalid(Path, <<"a path of one node is needed, not a pattern">>)
            end;
        Refusal -> Refusal
    end.

%% The same, where callers may write.
-spec writable(term()) -> {ok, khepri_path:native_path()} | refusal().
writable(Path) ->
    case exact(Path) of
        {ok, [bridge | _]} -> reserved();
        Answer -> Answer
    end.

%% Any number of nodes, to be read.
-spec pattern(term()) -> {ok, khepri_path:native_pattern()} | refusal().
pattern(Path) ->
    case native(Path) of
        {ok, Native} -> real(Native, Path, pattern);
        Refusal -> Refusal
    end.

%% A pattern that cannot match two nodes; the root too.
-spec one(term()) -> {ok, khepri_path:native_pattern()} | refusal().
one(Path) ->
    case pattern(Path) of
        {ok, Native} ->
            case khepri_path:targets_specific_node(Native) of
                {true, _} -> {ok, Native};
                false -> invalid(Path, <<"this pattern may match many nodes, and one is asked for">>)
            end;
        Refusal -> Refusal
    end.

%% A pattern of nodes that callers may write. The store cannot leave `/:bridge' out of a pattern, so one that
%% begins with a wildcard is refused.
-spec written(term()) -> {ok, khepri_path:native_pattern()} | refusal().
written(Path) ->
    case pattern(Path) of
        {ok, []} -> invalid(Path, <<"the root is no node that holds data">>);
        {ok, [First | _] = Native} ->
            case avoids_bridge(First) of
                true -> {ok, Native};
                false -> reserved()
            end;
        Refusal -> Refusal
    end.

-spec written_one(term()) -> {ok, khepri_path:native_pattern()} | refusal().
written_one(Path) ->
    case one(Path) of
        {ok, []} -> invalid(Path, <<"the root is no node that holds data">>);
        {ok, [First | _] = Native} ->
            case khepri_path:component_targets_specific_node(First) of
                {true, bridge} -> reserved();
                {true, _} -> {ok, Native}
            end;
        Refusal -> Refusal
    end.

%% A path that a `keep_while' condition looks at: absolute, or relative to the node that it is put on (`.', `..').
-spec watched(term()) -> {ok, khepri_path:native_pattern()} | refusal().
watched(Path) ->
    case native(Path) of
        {ok, [First | _] = Native} when First =:= ?THIS_KHEPRI_NODE; First =:= ?PARENT_KHEPRI_NODE ->
            {Up, Down} = lists:splitwith(fun(Step) -> Step =:= ?THIS_KHEPRI_NODE orelse
                                                      Step =:= ?PARENT_KHEPRI_NODE end, Native),
            case checked(Down, Path, keep_while) of
                {ok, Checked} -> {ok, steps(length([Step || Step <- Up, Step =:= ?PARENT_KHEPRI_NODE])) ++ Checked};
                Refusal -> Refusal
            end;
        {ok, Native} -> real(Native, Path, keep_while);
        Refusal -> Refusal
    end.

%% So many levels up. Khepri takes a list that begins with two of its characters for text, so that `../..' would be the
%% name `^^': a step down stands between them, and is taken back.
steps(0) -> [?THIS_KHEPRI_NODE];
steps(1) -> [?PARENT_KHEPRI_NODE];
steps(Up) -> [?PARENT_KHEPRI_NODE, <<"-">> | lists:duplicate(Up, ?PARENT_KHEPRI_NODE)].

avoids_bridge(bridge) -> false;
avoids_bridge(Name) when is_atom(Name); is_binary(Name) -> true;
avoids_bridge({if_all, Conditions}) -> lists:any(fun avoids_bridge/1, Conditions);
avoids_bridge({if_any, Conditions}) -> Conditions =/= [] andalso lists:all(fun avoids_bridge/1, Conditions);
avoids_bridge(_) -> false.

%% A proper list of bounded length, its components still as they came.
native(Path) when is_binary(Path), byte_size(Path) =< ?MAX_PATH_BYTES ->
    case unicode:characters_to_binary(Path) of
        Path ->
            Parts = parts(Path),
            case atoms_allowed(Parts) of
                true ->
                    try {ok, parsed(Path, Parts)}
                    catch
                        _:_ -> invalid(Path, <<"not a path such as /:stock/wood">>)
                    end;
                false ->
                    {error, {atom_budget, #{message => <<"the path would make a new atom, and half of the atom table "
                                                         "is used: write the name without a colon">>}}}
            end;
        _ -> invalid(Path, <<"a path is UTF-8 such as /:stock/wood">>)
    end;
native(Path) when is_list(Path) ->
    case proper(Path, 0) of
        true -> {ok, Path};
        false -> invalid(Path, <<"a path is a list of up to 64 atoms, binaries and conditions">>)
    end;
native(Path) ->
    invalid(Path, <<"a path is a binary such as /:stock/wood, or a list of atoms and binaries">>).

proper([], _) -> true;
proper([_ | Rest], Length) when Length < ?MAX_COMPONENTS -> proper(Rest, Length + 1);
proper(_, _) -> false.

%% Khepri 0.18 raises on what is no component.
real(Native, Path, Use) ->
    try khepri_path:realpath(Native) of
        Real -> checked(Real, Path, Use)
    catch
        error:_ -> invalid(Path, <<"a path has up to 64 names of 1 to 1024 bytes (atoms in Latin-1), or conditions">>)
    end.

checked(Native, Path, Use) ->
    try
        length(Native) =< ?MAX_COMPONENTS orelse throw(shape),
        Checked = [component(Component, Use) || Component <- Native],
        length(lists:filter(fun is_recursive/1, Checked)) =< ?MAX_RECURSIVE orelse
            throw({poison, <<"more than two ** in a pattern: the store would try every way to match it">>}),
        {ok, Checked}
    catch
        throw:shape -> invalid(Path, <<"a path has up to 64 names of 1 to 1024 bytes (atoms in Latin-1), or conditions">>);
        throw:{poison, Message} -> {error, {poison, #{path => printed(Path), message => Message}}}
    end.

component(Condition, Use) when is_tuple(Condition) ->
    case kb_condition:checked(Condition, Use) of
        {ok, Checked} -> Checked;
        Poison -> throw(Poison)
    end;
component(Name, _) ->
    kb_condition:is_name(Name) orelse throw(shape),
    Name.

is_recursive({if_path_matches, _, _}) -> true;
is_recursive({if_not, Condition}) -> is_recursive(Condition);
is_recursive({Tag, Conditions}) when Tag =:= if_all; Tag =:= if_any -> lists:any(fun is_recursive/1, Conditions);
is_recursive(_) -> false.

parts(<<"/", Path/binary>>) -> {absolute, binary:split(Path, <<"/">>, [global])};
parts(Path) -> {relative, binary:split(Path, <<"/">>, [global])}.

%% Khepri's parser goes through lists and takes three times as long as all the rest of a read: what has nothing
%% but names is parsed here. A name is copied, or it would keep the whole path in memory.
parsed(Path, {absolute, [First | _] = Parts}) when First =/= <<>> ->
    case lists:all(fun is_plain/1, Parts) of
        true -> [name(Part) || Part <- Parts];
        false -> khepri_path:from_binary(Path)
    end;
parsed(Path, _) -> khepri_path:from_binary(Path).

is_plain(<<>>) -> false;
is_plain(<<".", _/binary>>) -> false;
is_plain(Part) -> has_no_escape(Part).

has_no_escape(<<Byte, Rest/binary>>) when Byte =/= $%, Byte =/= $*, Byte =/= $^ -> has_no_escape(Rest);
has_no_escape(Rest) -> Rest =:= <<>>.

name(<<":", Name/binary>>) -> binary_to_atom(Name, latin1);
name(Name) -> binary:copy(Name).

%% A name with an escape stands for another atom than the one it spells.
atoms_allowed({_, Parts}) ->
    lists:all(fun(<<":", Name/binary>>) -> is_known(Name);
                 (_) -> true end, Parts) orelse
        erlang:system_info(atom_count) < erlang:system_info(atom_limit) div 2.

is_known(Name) ->
    binary:match(Name, <<"%">>) =:= nomatch andalso
        try is_atom(binary_to_existing_atom(Name, latin1))
        catch error:_ -> false
        end.

reserved() ->
    {error, {reserved_path, #{message => <<"below /:bridge only the homeserver itself writes; a pattern that writes "
                                           "begins with a name">>}}}.

invalid(Path, Message) ->
    {error, {invalid_path, #{path => printed(Path), message => Message}}}.

printed(Path) -> iolist_to_binary(io_lib:format("~0P", [Path, 20])).
