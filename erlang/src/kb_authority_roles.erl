%% Who may do what with an entity: the table of docs/protocol.md §7 as data, and the check of a request against it.
%% `by' is the player in whose name a request comes, or `operator'.
-module(kb_authority_roles).

-export([table/0, check/3]).

-export_type([role/0]).

-type role() :: owner | master | operator.

%% What is asked for in a player's name. Requests of a session are checked against the holder instead.
-spec table() -> [{set_rule | set_master | set_default_owner | answer | transfer | revoke | delete_entity, [role(), ...]}, ...].
table() ->
    [{set_rule, [master, operator]},
     {set_master, [master, operator]},
     {set_default_owner, [master, operator]},
     {answer, [master, operator]},
     {transfer, [owner, master, operator]},
     {revoke, [owner, master, operator]},
     {delete_entity, [master, operator]}].

%% The refusal says which role is missing, and who has it.
-spec check(atom(), binary() | operator, map()) -> ok | {error, {not_master | not_owner, map()}}.
check(Operation, By, Record) ->
    {_, Roles} = lists:keyfind(Operation, 1, table()),
    case lists:any(fun(Role) -> has(Role, By, Record) end, Roles) of
        true -> ok;
        false -> missing(lists:member(owner, Roles), Record)
    end.

has(operator, By, _) -> By =:= operator;
has(owner, By, #{owner := Owner}) -> By =:= Owner;
has(master, By, #{master := Master}) -> By =:= Master.

missing(false, #{master := Master}) ->
    {error, {not_master, #{master => Master, message => <<"only the master of the entity may do this">>}}};
missing(true, #{owner := Owner, master := Master}) ->
    {error, {not_owner, #{owner => Owner, master => Master,
                          message => <<"only the owner or the master of the entity may do this">>}}}.
