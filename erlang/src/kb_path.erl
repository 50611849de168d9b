%% Paths and patterns from outside, as native ones. Every `:name' of a path is an atom, and atoms are never
%% collected, so new ones are made only while the virtual machine has used less than half of its table.
-module(kb_path).

-export([exact/1, pattern/1, writable/1]).

-include_lib("khepri/include/khepri.hrl").

-define(MAX_PATH_BYTES, 4096).
-define(MAX_COMPONENTS, 64).
-define(MAX_COMPONENT_BYTES, 1024).

-type refusal() :: {error, {atom(), map()}}.

%% One node, which need not exist.
-spec exact(term()) -> {ok, khepri_path:native_path()} | refusal().
exact(Path) ->
    case pattern(Path) of
        {ok, []} -> invalid(Path, <<"the root is no node that holds data">>);
        {ok, Native} ->
            case lists:all(fun(Name) -> is_atom(Name) orelse is_binary(Name) end, Native) of
                true -> {ok, Native};
                false -> invalid(Path, <<"a path of one node is needed, not a pattern">>)
            end;
        Refusal -> Refusal
    end.

%% One node that callers may write.
-spec writable(term()) -> {ok, khepri_path:native_path()} | refusal().
writable(Path) ->
    case exact(Path) of
        {ok, [bridge | _]} ->
            {error, {reserved_path, #{message => <<"below /:bridge only the homeserver itself writes">>}}};
        Answer -> Answer
    end.

-spec pattern(term()) -> {ok, khepri_path:native_pattern()} | refusal().
pattern(Path) when is_binary(Path), byte_size(Path) =< ?MAX_PATH_BYTES ->
    case atoms_allowed(Path) of
        true ->
            try khepri_path:realpath(khepri_path:from_binary(Path)) of
                Native -> native(Native, Path)
            catch
                _:_ -> invalid(Path, <<"not a path such as /:stock/wood">>)
            end;
        false ->
            {error, {atom_budget, #{message => <<"the path would make a new atom, and half of the atom table is "
                                                 "used: write the name without a colon">>}}};
        malformed ->
            invalid(Path, <<"a path is UTF-8 such as /:stock/wood">>)
    end;
pattern(Path) when is_list(Path) ->
    native(Path, Path);
pattern(Path) ->
    invalid(Path, <<"a path is a binary such as /:stock/wood, or a list of atoms and binaries">>).

native(Native, Path) ->
    case proper(Native, 0) andalso lists:all(fun component/1, Native) of
        true -> {ok, Native};
        false -> invalid(Path, <<"a path has up to 64 atoms, binaries of 1 to 1024 bytes, or allowed conditions">>)
    end.

proper([], _) -> true;
proper([_ | Rest], Length) when Length < ?MAX_COMPONENTS -> proper(Rest, Length + 1);
proper(_, _) -> false.

component('') -> false;
component(Name) when is_atom(Name) -> true;
component(Name) when is_binary(Name) -> byte_size(Name) >= 1 andalso byte_size(Name) =< ?MAX_COMPONENT_BYTES;
component(Condition) when is_tuple(Condition) -> kb_condition:is_pattern(Condition);
component(_) -> false.

atoms_allowed(Path) ->
    case unicode:characters_to_list(Path) of
        Text when is_list(Text) ->
            Names = [Name || <<":", Name/binary>> <- binary:split(Path, <<"/">>, [global])],
            lists:all(fun is_known/1, Names) orelse
                erlang:system_info(atom_count) < erlang:system_info(atom_limit) div 2;
        _ ->
            malformed
    end.

is_known(Name) ->
    try
        _ = binary_to_existing_atom(Name, utf8),
        true
    catch
        error:_ -> false
    end.

invalid(Path, Message) ->
    Shown = iolist_to_binary(io_lib:format("~0P", [Path, 20])),
    {error, {invalid_path, #{path => Shown, message => Message}}}.
