%% Other instances that the operator trusts: their keys, where they answer, and which servers they have.
-module(kb_authority_peer).

-export([pin/2, unpin/3, note_servers/2]).

-import(kb_authority_tree, [peer_path/1, abroad_path/1, outgoing_path/1, incoming_path/1, refuse/2]).

%% Again: what was pinned before is replaced, but for the time since when.
-spec pin(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
pin(#{instance := Instance} = Request, Read) ->
    case Read([bridge, identity]) of
        #{instance := Instance} -> refuse(invalid_request, <<"this is the instance itself">>);
        _ ->
            Pinned = Read(peer_path(Instance)),
            Since = case Pinned of
                        #{since := Known} -> Known;
                        undefined -> maps:get(since, Request)
                    end,
            Record = (maps:with([instance, urls, keys, ca], Request))#{since => Since},
            {ok, Record, [{put, peer_path(Instance), Record} || Pinned =/= Record]}
    end.

%% Not while something is in escrow for it: nobody else could say what became of that. The marks of what is over go
%% too, or an instance that was founded anew under its old name would count from below them; what it sealed
%% before it is pinned again is refused by `since'. So not while it may still ask about something that was accepted
%% either: pinned again, it would be refused, and take back what is here. Only the operator knows that it never will.
-spec unpin(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
unpin(#{instance := Instance, anyway := Anyway}, Read, List) ->
    Accepted = [Transfer || #{verdict := accepted, transfer := Transfer} <- List(incoming_path(Instance))],
    case Read(outgoing_path(Instance)) of
        #{open := Open} when map_size(Open) > 0 ->
            refuse(escrow_open, <<"entities are in escrow for this instance: wait, or cancel and wait">>);
        _ when Accepted =/= [], not Anyway ->
            refuse(escrow_open, <<"this instance may not have heard yet that entities of its escrow came here: wait until it "
                                  "has, or, if it is never to be pinned again, unpin it anyway">>);
        _ ->
            {ok, #{instance => Instance},
             [{delete, Path} || Path <- [peer_path(Instance), abroad_path(Instance), outgoing_path(Instance),
                                         incoming_path(Instance)], Read(Path) =/= undefined]}
    end.

-spec note_servers(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
note_servers(#{instance := Instance, servers := Servers}, Read) ->
    Record = #{instance => Instance, servers => Servers},
    case Read(peer_path(Instance)) of
        undefined -> refuse(no_peer, <<"no such instance is pinned here: add it as a peer first">>);
        _ -> {ok, #{instance => Instance}, [{put, abroad_path(Instance), Record} || Read(abroad_path(Instance)) =/= Record]}
    end.
