%% Who owns, masters and simulates what: pure decisions on the records of docs/protocol.md §2, asked for by the
%% requests of §7. `Read' and `List' give records by path; a decision is a value and the changes that make it so,
%% or a refusal and no change.
-module(kb_authority).

-export([decide/4, refused/3, modules/0]).

-export_type([decision/0, path/0]).

-type path() :: kb_authority_tree:path().
-type decision() :: kb_authority_tree:decision().

%% All that runs inside the store with this module: what they are together names the stored procedure.
modules() ->
    [kb_authority, kb_authority_ask, kb_authority_credentials, kb_authority_deletion, kb_authority_escrow, kb_authority_index,
     kb_authority_lease, kb_authority_owner, kb_authority_peer, kb_authority_player, kb_authority_quota, kb_authority_roles,
     kb_authority_session, kb_authority_transfer, kb_authority_tree, kb_authority_waiting].

-spec decide(atom(), map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> decision().
decide(Function, Request, Read, List) ->
    case do(Function, Request, Read, List) of
        {ok, Value, Decided} ->
            Changes = kb_authority_deletion:settled(Decided),
            {ok, maps:merge(Value, kb_authority_tree:step(Request)),
             Changes ++ kb_authority_index:changes(Function, Changes, Read)};
        Refusal -> Refusal
    end.

do(Function, #{present := Players} = Request, Read, List) ->
    case kb_authority_player:absent(Players, Request, Read) of
        [] -> do(Function, maps:remove(present, Request), Read, List);
        [Player | _] -> kb_authority_tree:refuse(no_player, #{player => Player}, <<"this player has not entered at the session">>)
    end;
do(open_session, #{server := Server} = Request, Read, List) ->
    case kb_authority_credentials:refused(Request, Read) of
        none -> kb_authority_session:open(Request, kb_authority_credentials:unrevoked(Server, Read), List);
        Refusal -> Refusal
    end;
%% Nothing is changed: what counts is that the outcome is kept under the operation id.
do(claim_key, #{digest := Digest}, _Read, _List) -> {ok, #{digest => Digest}, []};
do(enrol, Request, Read, _List) -> kb_authority_credentials:enrol(Request, Read);
do(authenticate, Request, Read, _List) -> kb_authority_credentials:authenticate(Request, Read);
do(attest, Request, Read, _List) -> kb_authority_credentials:attest(Request, Read);
do(revoke_credential, Request, Read, List) -> kb_authority_credentials:revoke(Request, Read, List);
do(publish_key, Request, Read, List) -> kb_authority_credentials:publish_key(Request, Read, List);
do(set_player_data, Request, Read, _List) -> kb_authority_credentials:set_player_data(Request, Read);
do(Function, Request, Read, List) when Function =:= close_session; Function =:= end_session ->
    kb_authority_session:close(Request, Read, List);
do(take, Request, Read, _List) -> kb_authority_lease:take(Request, Read);
do(beat, Request, Read, _List) -> kb_authority_lease:beat(Request, Read);
do(expire, Request, Read, List) -> kb_authority_lease:expire(Request, Read, List);
do(pass_on, Request, Read, List) -> kb_authority_lease:pass_on(Request, Read, List);
do(raise_epochs, Request, Read, _List) -> kb_authority_tree:raise_epochs(Request, Read);
do(enter, Request, Read, _List) -> kb_authority_player:enter(Request, Read);
do(leave, Request, Read, _List) -> kb_authority_player:leave(Request, Read);
do(create_entity, Request, Read, List) -> kb_authority_transfer:create(Request, Read, List);
do(pin_peer, Request, Read, _List) -> kb_authority_peer:pin(Request, Read);
do(unpin_peer, Request, Read, List) -> kb_authority_peer:unpin(Request, Read, List);
do(note_servers, Request, Read, _List) -> kb_authority_peer:note_servers(Request, Read);
do(cancel_escrow, Request, Read, _List) -> kb_authority_escrow:cancel(Request, Read);
do(close_escrow, Request, Read, _List) -> kb_authority_escrow:close(Request, Read);
do(resolve_escrow, Request, Read, _List) -> kb_authority_escrow:resolve(Request, Read);
do(escrow_noted, Request, Read, _List) -> kb_authority_escrow:noted(Request, Read);
do(escrow_settled, Request, Read, _List) -> kb_authority_escrow:settled(Request, Read);
do(accept_escrow, Request, Read, List) -> kb_authority_escrow:accept(Request, Read, List);
do(refuse_escrow, Request, Read, List) -> kb_authority_escrow:refuse(Request, Read, List);
do(settle_escrow, Request, Read, List) -> kb_authority_escrow:settle(Request, Read, List);
do(entity_moved, Request, Read, _List) -> kb_authority_escrow:moved(Request, Read);
do(Function, #{entity := Entity} = Request, Read, List) ->
    case Read(kb_authority_tree:entity_path(Entity)) of
        #{deleted := true} = Record when Function =:= release -> kb_authority_deletion:confirm(Request, Record);
        Missing when Missing =:= undefined; is_map_key(deleted, Missing) ->
            kb_authority_tree:refuse(no_entity, <<"no entity of this name">>);
        #{away := #{instance := Instance}} ->
            kb_authority_tree:refuse(away, #{instance => Instance}, <<"the entity is at another instance, or on its way there">>);
        Record when Function =:= set_master -> kb_authority_owner:set_master(Request, Record, Read, List);
        Record -> on_entity(Function, Request, Record, Read)
    end.

on_entity(Function, Request, Record, Read) when Function =:= request; Function =:= answer; Function =:= withdraw ->
    kb_authority_ask:on_entity(Function, Request, Record, Read);
on_entity(Function, Request, Record, Read)
  when Function =:= set_rule; Function =:= set_default_owner; Function =:= transfer; Function =:= revoke ->
    kb_authority_owner:on_entity(Function, Request, Record, Read);
on_entity(delete_entity, Request, Record, Read) ->
    kb_authority_deletion:delete(Request, Record, Read);
on_entity(Function, Request, Record, Read) ->
    kb_authority_transfer:on_entity(Function, Request, Record, Read).

%% What a refusal changes: one that was for want of a right is counted (R0-6), once however often it is repeated.
-spec refused(atom(), atom(), kb_authority_tree:read()) -> [kb_authority_tree:change()].
refused(Function, Reason, Read)
  when Reason =:= not_owner; Reason =:= not_master; Reason =:= not_holder; Reason =:= denied ->
    Path = [bridge, refusals],
    Counts = case Read(Path) of
                 undefined -> #{};
                 Known -> Known
             end,
    OfFunction = maps:get(Function, Counts, #{}),
    Count = maps:get(Reason, OfFunction, 0),
    [{put, Path, Counts#{Function => OfFunction#{Reason => Count + 1}}}];
refused(_Function, _Reason, _Read) ->
    [].
