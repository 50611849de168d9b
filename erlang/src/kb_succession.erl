%% Who goes on with the entities of a session that ends: servers that have them streamed in, asked through the members
%% that they are connected to. Only a hint: the transaction that ends the session checks what it is given.
-module(kb_succession).

-export([find/4, chosen/2]).

-export_type([held/0, answer/0, successors/0]).

-define(PATIENCE_MS, 300).
-define(MAX_NAMES, 1000).
-define(MAX_CANDIDATES, 3).
-define(READ_TIMEOUT_MS, 1000).

%% An entity and the sessions whose releases of it are due.
-type held() :: {binary(), [binary()]}.
-type answer() :: {Session :: binary(), Load :: non_neg_integer(), Entities :: [binary()]}.
-type successors() :: #{binary() => [binary(), ...]}.

%% In a process of its own, which gets the answers to `Ref' that the lessor hears.
-spec find(atom(), binary(), reference(), [{binary(), kb_lease:route(), non_neg_integer()}]) -> successors().
find(_, _, _, []) -> #{};
find(Store, Session, Ref, Routes) ->
    Held = held(Store, Session),
    Questions = [{Member, Pid, {streaming, Ref, Id, Names}}
                 || Names <- parts([Entity || {Entity, _} <- Held]), {Id, {Member, Pid}, _} <- Routes],
    _ = [erlang:send({kb_lessor, Member}, {relay, [{Pid, Question}]}, [nosuspend, noconnect])
         || {Member, Pid, Question} <- Questions],
    chosen(Held, answers(Ref, length(Questions), erlang:monotonic_time(millisecond) + ?PATIENCE_MS)).

held(Store, Session) ->
    Options = #{favor => low_latency, timeout => ?READ_TIMEOUT_MS},
    case khepri:get_many(Store, [bridge, held, Session, {if_name_matches, any, undefined}], Options) of
        {ok, Nodes} ->
            [{Entity, kb_authority_index:sessions(Record) -- [Session]}
             || Entity <- kb_authority_index:named(maps:values(Nodes)),
                {ok, #{session := Holder} = Record} <- [khepri:get(Store, [bridge, entities, Entity], Options)],
                Holder =:= Session];
        _ -> []
    end.

parts([]) -> [];
parts(Names) when length(Names) =< ?MAX_NAMES -> [Names];
parts(Names) ->
    {Part, Rest} = lists:split(?MAX_NAMES, Names),
    [Part | parts(Rest)].

answers(_, 0, _) -> [];
answers(Ref, Left, Deadline) ->
    receive
        {streams, Ref, Session, Load, Entities} -> [{Session, Load, Entities} | answers(Ref, Left - 1, Deadline)]
    after max(0, Deadline - erlang:monotonic_time(millisecond)) -> []
    end.

%% For each entity the servers that simulate least, with what they are given here counted. Whose own release is due
%% would not be taken.
-spec chosen([held()], [answer()]) -> successors().
chosen(Held, Answers) ->
    Streams = lists:foldl(fun({Session, _, Entities}, Acc) ->
                                  lists:foldl(fun(Entity, Of) -> Of#{Entity => [Session | maps:get(Entity, Of, [])]} end,
                                              Acc, Entities)
                          end, #{}, Answers),
    Loads = maps:from_list([{Session, Load} || {Session, Load, _} <- Answers]),
    {Successors, _} = lists:foldl(fun(Entity, Acc) -> choose(Entity, Streams, Acc) end, {#{}, Loads}, Held),
    Successors.

choose({Entity, Due}, Streams, {Successors, Loads}) ->
    Able = lists:usort(maps:get(Entity, Streams, [])) -- Due,
    case [Session || {_, Session} <- lists:sort([{map_get(Session, Loads), Session} || Session <- Able])] of
        [] -> {Successors, Loads};
        [First | _] = Candidates ->
            #{First := Load} = Loads,
            {Successors#{Entity => lists:sublist(Candidates, ?MAX_CANDIDATES)}, Loads#{First := Load + 1}}
    end.
