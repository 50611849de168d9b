%% Two indexes that follow every change of an entity's record: `/:bridge/:held/<Session>' names the entities whose
%% records name the session, so that a session's end need not look at all of them (inside Ra, 10,000 took 18 ms);
%% `/:bridge/:owned/<Player>' those that a player owns, for the player who leaves.
-module(kb_authority_index).

-export([changes/2, sessions/1]).

-spec changes([kb_authority_tree:change()], kb_authority_tree:read()) -> [kb_authority_tree:change()].
changes(Changes, Read) ->
    Ended = [Session || {delete, [bridge, held, Session]} <- Changes],
    lists:append([held(Entity, sessions(Before), sessions(Record), Ended) ++ owned(Entity, Before, Record)
                  || {put, [bridge, entities, Entity] = Path, Record} <- Changes, Before <- [Read(Path)]]).

held(Entity, Before, Named, Ended) ->
    [{put, kb_authority_tree:held_path(Session, Entity), #{entity => Entity}} || Session <- Named -- Before]
        ++ [{delete, kb_authority_tree:held_path(Session, Entity)} || Session <- (Before -- Named) -- Ended].

owned(_Entity, #{owner := Owner}, #{owner := Owner}) -> [];
owned(Entity, #{owner := Before}, Record) ->
    [{delete, kb_authority_tree:owned_path(Before, Entity)} | owned(Entity, undefined, Record)];
owned(Entity, undefined, #{owner := Owner}) ->
    [{put, kb_authority_tree:owned_path(Owner, Entity), #{entity => Entity}}].

%% All that a record names: the holder, and those whose releases are due.
-spec sessions(map() | undefined) -> [binary()].
sessions(undefined) -> [];
sessions(#{session := Holder, awaiting := Due}) ->
    lists:usort([Session || Session <- [Holder | due(Due)], Session =/= undefined]).

due(undefined) -> [];
due(#{session := Session} = Due) -> [Session | due(maps:get(awaiting, Due, undefined))].
