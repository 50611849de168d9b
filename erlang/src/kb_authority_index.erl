%% Two indexes that follow every change of an entity's record: `/:bridge/:held/<Session>/<Bucket>' names the entities whose
%% records name the session, so that a session's end need not look at all of them (inside Ra, 10,000 took 18 ms);
%% `/:bridge/:owned/<Player>/<Bucket>' those that a player owns, for the player who leaves.
%%
%% A bucket is one record, and stays when it is empty until its session ends or its player leaves: with a node for each
%% entity, made and pruned with its parents, a change of owner took 1.7 times as long as one without, and the end of a
%% session took half of its time for nothing but to forget such nodes.
-module(kb_authority_index).

-export([changes/3, sessions/1, owned/3, named/1]).

-spec changes(atom(), [kb_authority_tree:change()], kb_authority_tree:read()) -> [kb_authority_tree:change()].
changes(Function, Changes, Read) ->
    Ended = [Session || {delete, [bridge, held, Session]} <- Changes],
    Changed = [{Entity, Read(Path), Record} || {put, [bridge, entities, Entity] = Path, Record} <- Changes]
        ++ [{Entity, Read(Path), undefined} || {delete, [bridge, entities, Entity] = Path} <- Changes],
    Held = lists:append([held(Entity, sessions(Before), sessions(Record), Ended) || {Entity, Before, Record} <- Changed]),
    Owned = lists:append([moves(Entity, Before, Record) || {Entity, Before, Record} <- Changed]),
    buckets(held, false, Held, Read) ++ kb_authority_quota:moved(Changed, Changes, Read)
        ++ buckets(owned, Function =:= leave, Owned, Read).

held(Entity, Before, Named, Ended) ->
    [{Session, Entity, in} || Session <- Named -- Before]
        ++ [{Session, Entity, out} || Session <- (Before -- Named) -- Ended].

moves(Entity, Before, Record) ->
    case {owner(Before), owner(Record)} of
        {Same, Same} -> [];
        {Left, Owner} ->
            [{Left, Entity, out} || Left =/= undefined] ++ [{Owner, Entity, in} || Owner =/= undefined]
    end.

%% What was deleted or is at another instance is nobody's here.
owner(undefined) -> undefined;
owner(#{deleted := true}) -> undefined;
owner(#{away := #{state := gone}}) -> undefined;
owner(#{owner := Owner}) -> Owner.

%% A player who leaves, or a session that ends, may change much of one bucket at once.
buckets(Index, IsPruned, Moves, Read) ->
    Buckets = lists:foldl(
                fun({Of, Entity, Move}, Acc) ->
                        Path = bucket_path(Index, Of, kb_authority_tree:bucket(Entity)),
                        Entities = case Acc of
                                       #{Path := Known} -> Known;
                                       _ -> entities(Read(Path))
                                   end,
                        Acc#{Path => moved(Move, Entity, Index, Entities)}
                end, #{}, Moves),
    [case IsPruned andalso map_size(Entities) =:= 0 of
         true -> {delete, Path};
         false -> {put, Path, #{entities => Entities}}
     end || {Path, Entities} <- lists:sort(maps:to_list(Buckets))].

bucket_path(held, Session, Bucket) -> kb_authority_tree:held_path(Session, Bucket);
bucket_path(owned, Player, Bucket) -> kb_authority_tree:owned_path(Player, Bucket).

moved(in, Entity, Index, Entities) -> Entities#{Entity => Index};
moved(out, Entity, _Index, Entities) -> maps:remove(Entity, Entities).

entities(undefined) -> #{};
entities(#{entities := Entities}) -> Entities.

%% What the buckets of a session name, in an order that is the same on every member. Up to 0.3 there was a node for each
%% entity.
-spec named([#{entities => #{binary() => held}, entity => binary()}]) -> [binary()].
named(Nodes) ->
    lists:usort(lists:append([case Node of
                                  #{entities := Entities} -> maps:keys(Entities);
                                  #{entity := Entity} -> [Entity]
                              end || Node <- Nodes])).

-spec owned(binary(), non_neg_integer(), kb_authority_tree:read()) -> [binary()].
owned(Player, Bucket, Read) ->
    lists:sort(maps:keys(entities(Read(kb_authority_tree:owned_path(Player, Bucket))))).

%% All that a record names: the holder, and those whose releases are due.
-spec sessions(map() | undefined) -> [binary()].
sessions(undefined) -> [];
sessions(#{session := Holder, awaiting := Due}) ->
    lists:usort([Session || Session <- [Holder | due(Due)], Session =/= undefined]).

due(undefined) -> [];
due(#{session := Session} = Due) -> [Session | due(maps:get(awaiting, Due, undefined))].
