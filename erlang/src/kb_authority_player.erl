%% Players: at which server's session each one is, and what becomes of theirs when they leave (R0-8).
-module(kb_authority_player).

-export([enter/2, leave/2, session/2, absent/3]).

-import(kb_authority_tree, [entity_path/1, session_path/1, player_path/1, bump/1, refuse/3]).

-define(MAX_PASSED, 256).

%% A player is at one session at a time, the last one entered. Who may grant what others asked for hears of it there.
-spec enter(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
enter(#{player := Player, session := Session}, Read) ->
    case {Read(session_path(Session)), kb_authority_escrow:is_abroad(Player, Read)} of
        {undefined, _} -> kb_authority_tree:no_session();
        {_, true} ->
            refuse(reserved_name, #{}, <<"a name that ends in another instance's is that instance's player's">>);
        {#{server := Server}, false} ->
            Record = #{player => Player, session => Session, server => Server},
            {ok, Record, [{put, player_path(Player), Record} | kb_authority_ask:told_anew(Player, Session, Read)]}
    end.

%% All that the player owned when they left, in as many transactions as it takes: one looks at a few buckets, and
%% changes a bounded number of entities. `next' is where to go on, which anybody may, from any of them again.
-spec leave(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
leave(#{player := Player, session := Session, bucket := Bucket}, Read) ->
    case session(Player, Read) of
        Other when Other =/= undefined, Other =/= Session ->
            #{server := Server} = Read(session_path(Other)),
            refuse(not_here, #{server => Server}, <<"the player is at another server">>);
        _ ->
            {Passed, Next} = passed(Player, Bucket, ?MAX_PASSED, Read),
            Gone = [{delete, player_path(Player)} || Read(player_path(Player)) =/= undefined]
                ++ kb_authority_ask:master_away(Player, Read),
            {ok, #{player => Player, passed => [Entity || {put, _, #{entity := Entity}} <- Passed], next => Next},
             Gone ++ Passed}
    end.

passed(Player, Bucket, Left, Read) ->
    case {Bucket < kb_authority_tree:buckets(), Left > 0} of
        {false, _} -> {[], undefined};
        {true, false} -> {[], Bucket};
        {true, true} ->
            Passing = [{put, entity_path(Entity), bump(Record#{owner => Heir})}
                       || Entity <- kb_authority_index:owned(Player, Bucket, Read),
                          Record <- [Read(entity_path(Entity))],
                          Heir <- [kb_authority_owner:heir(Player, Record)],
                          Heir =/= Player],
            case length(Passing) of
                Count when Count > Left -> {lists:sublist(Passing, Left), Bucket};
                Count ->
                    {More, Next} = passed(Player, Bucket + 1, Left - Count, Read),
                    {Passing ++ More, Next}
            end
    end.

%% Who of those, in whose names a session asks, has not entered there. A session may leave an entity to its owner,
%% wherever that one is.
-spec absent([binary()], map(), kb_authority_tree:read()) -> [binary()].
absent(Players, #{session := Session, entity := Entity} = Request, Read) ->
    Owner = case {Request, Read(entity_path(Entity))} of
                {#{release := _}, #{owner := Present}} -> Present;
                _ -> undefined
            end,
    [Player || Player <- Players, Player =/= Owner, session(Player, Read) =/= Session].

%% Where a player is, if that session is still open.
-spec session(binary(), kb_authority_tree:read()) -> binary() | undefined.
session(Player, Read) ->
    case Read(player_path(Player)) of
        undefined -> undefined;
        #{session := Session} ->
            case Read(session_path(Session)) of
                undefined -> undefined;
                _ -> Session
            end
    end.
