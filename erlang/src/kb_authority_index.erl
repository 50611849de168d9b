%% Two indexes that follow every change of an entity's record: `/:bridge/:held/<Session>' names the entities whose
%% records name the session, so that a session's end need not look at all of them (inside Ra, 10,000 took 18 ms);
%% `/:bridge/:owned/<Player>/<Bucket>' those that a player owns, for the player who leaves.
%%
%% A bucket is one record, and stays when it is empty until its player leaves: with a node for each entity, made and
%% pruned with its parents, a change of owner took 1.7 times as long as one without.
-module(kb_authority_index).

-export([changes/3, sessions/1, owned/3]).

-spec changes(atom(), [kb_authority_tree:change()], kb_authority_tree:read()) -> [kb_authority_tree:change()].
changes(Function, Changes, Read) ->
    Ended = [Session || {delete, [bridge, held, Session]} <- Changes],
    Changed = [{Entity, Read(Path), Record} || {put, [bridge, entities, Entity] = Path, Record} <- Changes]
        ++ [{Entity, Read(Path), undefined} || {delete, [bridge, entities, Entity] = Path} <- Changes],
    lists:append([held(Entity, sessions(Before), sessions(Record), Ended) || {Entity, Before, Record} <- Changed])
        ++ buckets(Function, lists:append([moves(Entity, Before, Record) || {Entity, Before, Record} <- Changed]), Read).

held(Entity, Before, Named, Ended) ->
    [{put, kb_authority_tree:held_path(Session, Entity), #{entity => Entity}} || Session <- Named -- Before]
        ++ [{delete, kb_authority_tree:held_path(Session, Entity)} || Session <- (Before -- Named) -- Ended].

moves(Entity, Before, Record) ->
    case {owner(Before), owner(Record)} of
        {Same, Same} -> [];
        {Left, Owner} ->
            [{Left, Entity, out} || Left =/= undefined] ++ [{Owner, Entity, in} || Owner =/= undefined]
    end.

%% What is at another instance is nobody's here.
owner(undefined) -> undefined;
owner(#{away := #{state := gone}}) -> undefined;
owner(#{owner := Owner}) -> Owner.

%% A player who leaves may change much of one bucket at once.
buckets(Function, Moves, Read) ->
    Buckets = lists:foldl(
                fun({Player, Entity, Move}, Acc) ->
                        Bucket = kb_authority_tree:bucket(Entity),
                        Path = kb_authority_tree:owned_path(Player, Bucket),
                        Entities = case Acc of
                                       #{Path := Known} -> Known;
                                       _ -> entities(Read(Path))
                                   end,
                        Acc#{Path => moved(Move, Entity, Entities)}
                end, #{}, Moves),
    [case Function =:= leave andalso map_size(Entities) =:= 0 of
         true -> {delete, Path};
         false -> {put, Path, #{entities => Entities}}
     end || {Path, Entities} <- lists:sort(maps:to_list(Buckets))].

moved(in, Entity, Entities) -> Entities#{Entity => owned};
moved(out, Entity, Entities) -> maps:remove(Entity, Entities).

entities(undefined) -> #{};
entities(#{entities := Entities}) -> Entities.

%% In an order that is the same on every member.
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
