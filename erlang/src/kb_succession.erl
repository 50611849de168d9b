%% Who goes on with the entities of a session that ends: servers that have them streamed in, asked through the members
%% that they are connected to. Who that is is only a hint: the transaction that ends the session checks it. What they say
%% that they have released it takes for true; said once, it stays so, whatever they are granted later.
-module(kb_succession).

-export([names/2, find/5, answers/3, chosen/2]).

-export_type([held/0, answer/0, found/0]).

-define(PATIENCE_MS, 300).
-define(MAX_NAMES, 1000).
-define(MAX_CANDIDATES, 3).
-define(READ_TIMEOUT_MS, 1000).
-define(READ_AT_ONCE, 256).

-type entity() :: binary().
-type session() :: binary().
-type held() :: {entity(), kb_authority_waiting:due()}.
%% Of the entities in question those that are streamed in, and those that the session has released: none of its grants of
%% one is acted on, or ever will be, up to that epoch.
-type answer() :: {session(), Load :: non_neg_integer(), [entity()], [{entity(), Epoch :: pos_integer()}]}.
%% What the transaction is to know that ends the session.
-type found() :: #{successors := #{entity() => [session(), ...]}, released := #{entity() => [{session(), pos_integer()}, ...]}}.

%% All whose records name the session, in the order of their buckets: those that lie together are passed on together.
-spec names(atom(), session()) -> [entity()].
names(Store, Session) ->
    Options = #{favor => low_latency, timeout => ?READ_TIMEOUT_MS},
    case khepri:get_many(Store, [bridge, held, Session, {if_name_matches, any, undefined}], Options) of
        {ok, Nodes} ->
            [Entity || {_, Entity} <- lists:sort([{kb_authority_tree:bucket(Entity), Entity}
                                                  || Entity <- kb_authority_index:named(maps:values(Nodes))])];
        _ -> []
    end.

%% In a process of its own, which gets the answers to `Ref' that the lessor hears.
-spec find(atom(), session(), [entity()], reference(), [{session(), kb_lease:route(), non_neg_integer()}]) -> found().
find(_, _, _, _, []) -> chosen([], []);
find(Store, Session, Names, Ref, Routes) ->
    Held = held(Store, Session, Names),
    Parts = parts(?MAX_NAMES, [Entity || {Entity, _} <- Held]),
    Questions = [{Member, Pid, {streaming, Ref, Id, Part}} || Part <- Parts, {Id, {Member, Pid}, _} <- Routes],
    _ = [erlang:send({kb_lessor, Member}, {relay, [{Pid, Question}]}, [nosuspend, noconnect])
         || {Member, Pid, Question} <- Questions],
    chosen(Held, answers(Ref, length(Questions), length(Parts))).

held(Store, Session, Names) ->
    [{Entity, kb_authority_waiting:without(Session, Due)}
     || Part <- parts(?READ_AT_ONCE, Names),
        {Entity, #{session := Holder, awaiting := Due}} <- records(Store, Part),
        Holder =:= Session].

%% One query of the store for some hundred took a quarter of the time of one for each, and holds it up for a millisecond or two.
records(Store, Names) ->
    Read = fun() -> [{Entity, khepri_tx:get([bridge, entities, Entity])} || Entity <- Names] end,
    case khepri:transaction(Store, Read, [], ro, #{favor => low_latency, timeout => ?READ_TIMEOUT_MS}) of
        {ok, Found} when is_list(Found) -> [{Entity, Record} || {Entity, {ok, Record}} <- Found];
        _ -> []
    end.

parts(_, []) -> [];
parts(Most, Names) when length(Names) =< Most -> [Names];
parts(Most, Names) ->
    {Part, Rest} = lists:split(Most, Names),
    [Part | parts(Most, Rest)].

%% To so many questions, of so many parts. Whoever has a part answered has the next one before it: so long as answers come,
%% there is patience, as much as if each part had been asked alone.
-spec answers(reference(), non_neg_integer(), non_neg_integer()) -> [answer()].
answers(Ref, Questions, Parts) ->
    heard(Ref, Questions, erlang:monotonic_time(millisecond) + Parts * ?PATIENCE_MS).

heard(_, 0, _) -> [];
heard(Ref, Left, End) ->
    receive
        {streams, Ref, Session, Load, Entities, Released} ->
            [{Session, Load, Entities, Released} | heard(Ref, Left - 1, End)]
    after max(0, min(?PATIENCE_MS, End - erlang:monotonic_time(millisecond))) -> []
    end.

%% For each entity the servers that simulate least, with what they are given here counted. Whose own release is due
%% still would not be taken.
-spec chosen([held()], [answer()]) -> found().
chosen(Held, Answers) ->
    Streams = by_entity([{Entity, Session} || {Session, _, Entities, _} <- Answers, Entity <- Entities]),
    Said = by_entity([{Entity, {Session, Epoch}} || {Session, _, _, Released} <- Answers, {Entity, Epoch} <- Released]),
    Settling = maps:from_list([{Entity, Settles} || {Entity, Due} <- Held, Due =/= undefined,
                                                    Settles <- [settling(Due, maps:get(Entity, Said, []))], Settles =/= []]),
    Left = [{Entity, kb_authority_waiting:settled(maps:get(Entity, Settling, []), Due)} || {Entity, Due} <- Held],
    Loads = maps:from_list([{Session, Load} || {Session, Load, _, _} <- Answers]),
    {Successors, _} = lists:foldl(fun(Entity, Acc) -> choose(Entity, Streams, Acc) end, {#{}, Loads}, Left),
    #{successors => Successors, released => Settling}.

by_entity(Pairs) ->
    lists:foldl(fun({Entity, Value}, Acc) -> Acc#{Entity => [Value | maps:get(Entity, Acc, [])]} end, #{}, Pairs).

settling(Due, Said) ->
    [{Session, Epoch} || {Session, Epoch} <- lists:usort(Said), kb_authority_waiting:is_due(Session, Due)].

choose({Entity, Due}, Streams, {Successors, Loads}) ->
    Able = [Session || Session <- lists:usort(maps:get(Entity, Streams, [])), not kb_authority_waiting:is_due(Session, Due)],
    case [Session || {_, Session} <- lists:sort([{map_get(Session, Loads), Session} || Session <- Able])] of
        [] -> {Successors, Loads};
        [First | _] = Candidates ->
            #{First := Load} = Loads,
            {Successors#{Entity => lists:sublist(Candidates, ?MAX_CANDIDATES)}, Loads#{First := Load + 1}}
    end.
