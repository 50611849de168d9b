%% What owner, master and operator do with an entity without anybody's answer (R0-7, R0-8). The authority stays
%% where it is: who simulates an entity and who owns it are two things (R0-9).
-module(kb_authority_owner).

-export([on_entity/4, set_master/4, heir/1, heir/2]).

-import(kb_authority_tree, [entity_path/1, bump/1]).

-spec on_entity(atom(), map(), map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
on_entity(Function, #{by := By} = Request, Record, Read) ->
    case kb_authority_roles:check(Function, By, Record) of
        ok -> change(Function, Request, Record, Read);
        Refusal -> Refusal
    end.

%% A master who has as many entities as one may is given no more, but by the operator.
-spec set_master(map(), map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
set_master(#{by := By, master := Master} = Request, #{master := Old} = Record, Read, List) ->
    Room = case By =:= operator orelse Master =:= Old of
               true -> {ok, []};
               false -> kb_authority_quota:room(passed, Master, Request, {Read, List})
           end,
    case {kb_authority_roles:check(set_master, By, Record), Room} of
        {ok, {ok, Made}} -> changed(Record#{master => Master}, Record, kb_authority_ask:moved(Record, Master, Read) ++ Made);
        {ok, Full} -> Full;
        {Refusal, _} -> Refusal
    end.

change(set_rule, #{rule := deny}, Record, Read) ->
    changed(Record#{rule => deny}, Record, kb_authority_ask:denied(Record, Read));
change(set_rule, #{rule := Rule}, Record, _Read) ->
    changed(Record#{rule => Rule}, Record, []);
change(set_default_owner, #{default_owner := Player}, Record, _Read) ->
    changed(Record#{default_owner => Player}, Record, []);
change(transfer, #{to := Player}, Record, _Read) ->
    changed(Record#{owner => Player}, Record, []);
change(revoke, _Request, Record, _Read) ->
    changed(Record#{owner => heir(Record)}, Record, []).

changed(Record, Record, _Changes) -> {ok, Record, []};
changed(#{entity := Entity} = Record, _Before, Changes) ->
    Changed = bump(Record),
    {ok, Changed, [{put, entity_path(Entity), Changed} | Changes]}.

%% To whom ownership falls: the default owner, which is the master unless the master has named another.
-spec heir(map()) -> binary().
heir(#{master := Master} = Record) ->
    case maps:get(default_owner, Record, undefined) of
        undefined -> Master;
        Player -> Player
    end.

%% The same when a player leaves: never that player, unless there is nobody else.
-spec heir(binary(), map()) -> binary().
heir(Leaver, #{master := Master} = Record) ->
    case heir(Record) of
        Leaver -> Master;
        Player -> Player
    end.
