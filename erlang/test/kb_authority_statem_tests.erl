%% The rules of docs/protocol.md §7 as a state machine: random requests against the decisions and against a plain
%% model, which knows nothing of records, epochs or indexes. A failure is shrunk to the shortest run that shows it.
-module(kb_authority_statem_tests).
-behaviour(proper_statem).
-include_lib("eunit/include/eunit.hrl").

%% rebar3 shows its own dependencies to the preprocessor, and PropEr comes from Debian.
-import(proper_types, [oneof/1, frequency/1, boolean/0, range/2]).

-export([initial_state/0, command/1, precondition/2, next_state/3, postcondition/3]).
-export([run/2]).

%% Those of one letter are of one server, one after the other.
-define(SESSIONS, [<<"sa">>, <<"sb">>, <<"sc">>, <<"sd">>, <<"ta">>, <<"tb">>, <<"tc">>, <<"td">>]).
-define(PLAYERS, [<<"ann">>, <<"bob">>, <<"cid">>, <<"dan">>]).
-define(ENTITIES, [<<"gun">>, <<"hat">>]).

%% `dues': whose releases are due, the next one first.
-record(entity, {owner, master, heir = undefined, rule, holder, dues = []}).
-record(ask, {master, entity, player, session, authority, expires}).
%% `gone': sessions that have yet to say that they do not act for a deleted entity.
-record(model, {gone = #{}, open = [], closed = [], players = #{}, entities = #{}, asks = [], times = #{}, generation = 0}).

the_decisions_are_those_of_the_model_test_() ->
    {timeout, 300, fun() -> ?assert(proper:quickcheck(prop(), [{numtests, 500}, {max_size, 60}, {to_file, user}])) end}.

prop() ->
    proper:forall(proper_statem:more_commands(3, proper_statem:commands(?MODULE)), fun holds/1).

holds(Commands) ->
    Founded = #{[bridge, grants] => #{incarnation => 1, counter => 0},
                [bridge, identity] => #{instance => <<"local">>}},
    _ = put(tree, Founded),
    lists:foreach(fun({Function, Request}) -> {{ok, _, _}, _} = run(Function, maps:to_list(Request)) end, begun()),
    {History, _, Result} = proper_statem:run_commands(?MODULE, Commands),
    Outcomes = [outcome(Answer) || {_, {Answer, _}} <- History],
    proper:whenfail(fun() -> io:format(user, "~p~n~p~n", [Commands, Result]) end,
                    fun() -> proper:aggregate(Outcomes, Result =:= ok) end).

outcome({ok, #{outcome := Outcome}, _}) -> Outcome;
outcome({ok, _, _}) -> ok;
outcome({error, {Reason, _}}) -> Reason.

%% Commands. What an asker knows is the truth or not: the names and epochs themselves are the tree's.

initial_state() ->
    lists:foldl(fun({Function, Request}, Model) -> {ok, Next} = step(Function, Request, Model), Next end, #model{}, begun()).

%% Every run begins with something to contend for.
begun() ->
    [{open_session, #{session => <<"sa">>}},
     {open_session, #{session => <<"sb">>}},
     {enter, #{player => <<"ann">>, session => <<"sa">>}},
     {enter, #{player => <<"bob">>, session => <<"sb">>}},
     {enter, #{player => <<"cid">>, session => <<"sa">>}},
     {create_entity, #{entity => <<"gun">>, owner => <<"ann">>, master => <<"ann">>, rule => ask, session => <<"sa">>}},
     {create_entity, #{entity => <<"hat">>, owner => <<"bob">>, master => <<"cid">>, rule => allow, session => <<"sb">>}}].

command(#model{players = Players, asks = Asks, gone = Gone}) ->
    %% Most requests are of somebody who is there, and most answers of somebody who was asked.
    Here = maps:to_list(Players),
    Base = #{session => oneof(?SESSIONS), player => oneof(?PLAYERS), entity => oneof(?ENTITIES)},
    By = frequency([{2, operator}, {3, oneof(?PLAYERS)}]),
    frequency([{40, oneof([request(Player, Session) || {Player, Session} <- Here])} || Here =/= []] ++
              [{25, oneof([answer(Ask) || Ask <- Asks])} || Asks =/= []] ++
              [{10, oneof([call(release, #{entity => Name, session => Session})
                           || {Name, Due} <- maps:to_list(Gone), Session <- Due])} || Gone =/= #{}] ++
              [{8, call(open_session, #{session => oneof(?SESSIONS)})},
               {1, call(close_session, #{session => oneof(?SESSIONS), successors => sessions(), released => sessions()})},
               {2, call(end_session, #{session => oneof(?SESSIONS), successors => sessions(), released => sessions()})},
               {2, call(expire, #{session => oneof(?SESSIONS), successors => sessions(), released => sessions(),
                                  knows => frequency([{3, true}, {1, false}])})},
               {1, call(take, #{lease_ms => range(500, 3000)})},
               {1, call(beat, #{sessions => proper_types:list(oneof(?SESSIONS)), knows => boolean()})},
               {1, call(delete_entity, #{entity => oneof(?ENTITIES), by => By})},
               {4, call(create_entity, (maps:with([entity, session], Base))
                        #{owner => oneof(?PLAYERS), master => oneof(?PLAYERS), rule => rule()})},
               {8, call(enter, maps:with([player, session], Base))},
               {3, oneof([call(leave, #{player => Player, session => Session, bucket => 0})
                          || {Player, Session} <- [{<<"dan">>, <<"sd">>} | Here]])},
               {10, call(answer, (maps:with([player, entity], Base))
                         #{by => By, grant => frequency([{3, true}, {1, false}]), at => range(0, 40)})},
               {3, call(withdraw, maps:with([player, entity], Base))},
               {4, call(set_rule, #{entity => oneof(?ENTITIES), by => By, rule => rule()})},
               {5, call(set_master, #{entity => oneof(?ENTITIES), by => By, master => oneof(?PLAYERS)})},
               {5, call(set_default_owner, #{entity => oneof(?ENTITIES), by => By,
                                             default_owner => oneof([undefined | ?PLAYERS])})},
               {4, call(transfer, #{entity => oneof(?ENTITIES), by => By, to => oneof(?PLAYERS)})},
               {3, call(revoke, #{entity => oneof(?ENTITIES), by => By})},
               {12, call(pull, (maps:with([entity, session], Base))
                        #{owner => oneof(?PLAYERS), knows => frequency([{5, true}, {1, false}])})},
               {3, call(push, (maps:with([entity, session], Base))#{owner => oneof(?PLAYERS), to => oneof(?SESSIONS)})},
               {2, call(give, (maps:with([entity, session], Base))#{owner => oneof(?PLAYERS)})},
               {2, call(release, maps:with([entity, session], Base))}]).

request(Player, Session) ->
    call(request, #{player => Player, entity => oneof(?ENTITIES), session => frequency([{8, Session}, {1, oneof(?SESSIONS)}]),
                    knows => frequency([{8, true}, {1, false}]), authority => boolean(), ttl => range(1, 12),
                    at => range(0, 40)}).

answer(#ask{master = Master, entity = Entity, player = Player}) ->
    call(answer, #{player => Player, entity => Entity, by => frequency([{3, Master}, {1, oneof([operator | ?PLAYERS])}]),
                   grant => frequency([{3, true}, {1, false}]), at => range(0, 40)}).

%% As a list: this PropEr generates nothing inside maps.
call(Function, Request) -> {call, ?MODULE, run, [Function, maps:to_list(Request)]}.

sessions() -> proper_types:list(oneof(?SESSIONS)).

rule() -> frequency([{1, allow}, {1, deny}, {3, ask}]).

%% A session's id is drawn at random, so none is ever opened again.
precondition(#model{closed = Closed}, {call, _, run, [open_session, [{session, Session}]]}) ->
    not lists:member(Session, Closed);
precondition(_, _) -> true.

run(Function, Members) ->
    Tree = get(tree),
    Answer = decide(Function, informed(Function, maps:from_list(Members), Tree), Tree),
    After = case Answer of
                {ok, _, Changes} -> lists:foldl(fun change/2, Tree, Changes);
                {error, {_, #{message := Message}}} when is_binary(Message) -> Tree
            end,
    _ = put(tree, After),
    {Answer, After}.

informed(open_session, #{session := Session}, _) ->
    #{server => server(Session), session => Session, key => <<>>, thumbprint => server(Session), address => {<<"h">>, 1},
      lease_ms => 3000};
informed(Function, Request, Tree) when Function =:= expire; Function =:= beat ->
    Generation = case Tree of
                     #{[bridge, lessor] := #{generation := Current}} -> Current;
                     _ -> 0
                 end,
    named(Request#{generation => case Request of #{knows := true} -> Generation; _ -> Generation - 1 end}, Tree);
informed(Function, Request, Tree) when Function =:= close_session; Function =:= end_session -> named(Request, Tree);
informed(take, Request, _) -> Request#{node => <<"hs1">>};
informed(create_entity, Request, _) -> Request#{limits => #{instance => 1000, master => 1000}};
informed(release, #{entity := Entity, session := Session} = Request, Tree) ->
    case maps:get([bridge, entities, Entity], Tree, undefined) of
        #{deleted := true, awaiting := Due} -> Request#{epoch => proplists:get_value(Session, links(Due), 0)};
        #{epoch := Epoch} -> Request#{epoch => Epoch};
        undefined -> Request#{epoch => 0}
    end;
informed(Function, #{entity := Entity} = Request, Tree) ->
    Traced = Request#{trace => <<7:128>>, hop => 0},
    case maps:get([bridge, entities, Entity], Tree, undefined) of
        #{owner := Owner, epoch := Epoch} when Function =:= request ->
            case Request of
                #{knows := true} -> Traced#{owner => Owner, epoch => Epoch};
                #{knows := false} -> Traced#{owner => <<"nobody">>, epoch => Epoch - 1}
            end;
        #{epoch := Epoch} when Function =:= pull ->
            Traced#{epoch => case Request of #{knows := true} -> Epoch; _ -> Epoch - 1 end};
        #{epoch := Epoch} when Function =:= push -> Traced#{epoch => Epoch, box => <<>>, to => server(maps:get(to, Request))};
        #{epoch := Epoch} when Function =:= give -> Traced#{epoch => Epoch};
        undefined when Function =:= request -> Traced#{owner => <<"nobody">>, epoch => 0};
        _ -> Traced
    end;
informed(_, Request, _) -> Request.

%% Who has `released' says so of what is due from it; the others say it of the epoch below.
named(#{successors := Successors, released := Released} = Request, Tree) ->
    Said = fun(Entity) ->
                   Record = maps:get([bridge, entities, Entity], Tree, #{awaiting => undefined}),
                   [{Session, case lists:member(Session, Released) of true -> Due; false -> Due - 1 end}
                    || {Session, Due} <- links(maps:get(awaiting, Record))]
           end,
    Request#{successors => maps:from_list([{Entity, Successors} || Entity <- ?ENTITIES]),
             released => maps:from_list([{Entity, Said(Entity)} || Entity <- ?ENTITIES])};
named(Request, _) -> Request.

server(<<_, Letter>>) -> <<"server-", Letter>>.

decide(Function, Request, Tree) ->
    kb_authority:decide(Function, Request, fun(Path) -> maps:get(Path, Tree, undefined) end,
                        fun(Path) -> [Data || {Found, Data} <- maps:to_list(Tree), length(Found) =:= length(Path) + 1,
                                              lists:prefix(Path, Found)]
                        end).

change({put, Path, Data}, Tree) -> Tree#{Path => Data};
change({delete, Path}, Tree) -> maps:filter(fun(Found, _) -> not lists:prefix(Path, Found) end, Tree).

%% The model.

next_state(Model, _Result, {call, _, run, [Function, Members]}) ->
    {_, Next} = step(Function, maps:from_list(Members), Model),
    Next.

%% Debian's PropEr asks for an exception's stack in a way that OTP no longer has, so nothing is raised here.
postcondition(Model, {call, _, run, [Function, Members]}, {Answer, Tree}) ->
    {Expected, Next} = step(Function, maps:from_list(Members), Model),
    lists:all(fun({_, Same, Same}) -> true;
                 (Other) -> io:format(user, "~p~n", [Other]), false
              end,
              [{Function, Expected, outcome(Answer)}, {records, seen(Next), seen_in(Tree)} | indexed(Tree) ++ told(Next, Tree)]).

step(open_session, #{session := Session}, #model{open = Open} = Model) ->
    case of_server(Session, Open) of
        [Other] when Other =/= Session -> {name_in_use, Model};
        _ -> {ok, Model#model{open = lists:usort([Session | Open])}}
    end;
step(take, _, #model{generation = Generation} = Model) -> {ok, Model#model{generation = Generation + 1}};
step(beat, #{knows := Knows}, Model) -> {case Knows of true -> ok; false -> deposed end, Model};
step(expire, #{knows := false}, Model) -> {deposed, Model};
step(Function, #{session := Session, successors := Successors, released := Released},
     #model{open = Open, closed = Closed, entities = Entities} = Model)
  when Function =:= close_session; Function =:= end_session; Function =:= expire ->
    Left = maps:map(fun(_, #entity{holder = Holder, dues = Dues} = E) ->
                            Settled = [S || Holder =:= Session, S <- Released],
                            Due = lists:takewhile(fun(S) -> not lists:member(S, Settled) end, Dues -- [Session]),
                            case [S || S <- Successors, S =/= Session, lists:member(S, Open), not lists:member(S, Due)] of
                                _ when Holder =/= Session -> E#entity{dues = Due};
                                [Next | _] -> E#entity{holder = Next, dues = Due};
                                [] -> E#entity{holder = undefined, dues = Due}
                            end
                    end, Entities),
    Ended = [Session || lists:member(Session, Open)],
    Gone = maps:map(fun(_, Due) -> Due -- [Session] end, Model#model.gone),
    {ok, Model#model{gone = maps:filter(fun(_, Due) -> Due =/= [] end, Gone), open = Open -- Ended, closed = Ended ++ Closed, entities = Left,
                     players = maps:filter(fun(_, At) -> At =/= Session end, Model#model.players)}};
step(create_entity, #{entity := Name, session := Session} = Request, #model{open = Open, entities = Entities} = Model) ->
    #{owner := Owner, master := Master, rule := Rule} = Request,
    case {lists:member(Session, Open), is_map_key(Name, Entities)} of
        {false, _} -> {no_session, Model};
        _ when is_map_key(Name, Model#model.gone) -> {being_deleted, Model};
        {_, true} -> {entity_exists, Model};
        _ -> {ok, with(Name, #entity{owner = Owner, master = Master, rule = Rule, holder = Session}, Model)}
    end;
step(enter, #{player := Player, session := Session}, #model{open = Open, players = Players} = Model) ->
    case lists:member(Session, Open) of
        true -> {ok, Model#model{players = Players#{Player => Session}}};
        false -> {no_session, Model}
    end;
step(leave, #{player := Player, session := Session}, #model{players = Players} = Model) ->
    case Players of
        #{Player := Other} when Other =/= Session -> {not_here, Model};
        _ ->
            Left = maps:map(fun(_, #entity{owner = Owner} = E) when Owner =:= Player -> E#entity{owner = heir(Player, E)};
                               (_, E) -> E
                            end, Model#model.entities),
            {ok, cleared(Player, Model#model{players = maps:remove(Player, Players), entities = Left,
                                             asks = [A || #ask{master = M} = A <- Model#model.asks, M =/= Player]})}
    end;
step(release, #{entity := Name, session := Session}, #model{gone = Gone} = Model) when is_map_key(Name, Gone) ->
    #{Name := Due} = Gone,
    case {lists:member(Session, Due), Due -- [Session]} of
        {false, _} -> {no_entity, Model};
        {true, []} -> {ok, Model#model{gone = maps:remove(Name, Gone)}};
        {true, Left} -> {ok, Model#model{gone = Gone#{Name := Left}}}
    end;
step(Function, #{entity := Name} = Request, #model{entities = Entities} = Model) ->
    case Entities of
        #{Name := Entity} -> on(Function, Request, Name, Entity, Model);
        _ -> {no_entity, Model}
    end.

on(request, #{player := Player, session := Session} = Request, Name, Entity, Model) ->
    #{knows := Knows, authority := Authority, ttl := Ttl, at := At} = Request,
    #entity{owner = Owner, master = Master, rule = Rule, holder = Holder} = Entity,
    Here = maps:get(Player, Model#model.players, none) =:= Session,
    Has = Owner =:= Player andalso (not Authority orelse Holder =:= Session),
    Free = Rule =:= allow orelse Player =:= Owner orelse Player =:= Master,
    Open = at(Master, At, Model),
    Now = maps:get(Master, Open#model.times, At),
    Mine = [A || #ask{entity = E, player = P} = A <- Open#model.asks, E =:= Name, P =:= Player],
    case [S || #ask{session = S} <- Mine] of
        _ when not Here -> {no_player, Model};
        _ when Has -> {already_owner, Model};
        _ when not Knows -> {conflict, Model};
        _ when Free -> {granted, won(Player, Session, Authority, Name, Entity, Model)};
        _ when Rule =:= deny -> {denied, Model};
        _ when not is_map_key(Master, Model#model.players) -> {master_away, Model};
        [Session] -> {pending, Model};
        _ ->
            Ask = #ask{master = Master, entity = Name, player = Player, session = Session, authority = Authority,
                       expires = Now + Ttl},
            {pending, Open#model{asks = (Open#model.asks -- Mine) ++ [Ask]}}
    end;
on(answer, #{by := By, player := Player, grant := Grant, at := At}, Name, #entity{master = Master} = Entity, Model) ->
    Open = at(Master, At, Model),
    Mine = [A || #ask{entity = E, player = P} = A <- Open#model.asks, E =:= Name, P =:= Player],
    case Mine of
        _ when By =/= operator, By =/= Master -> {not_master, Model};
        [] -> {no_ask, Model};
        [#ask{session = Session, authority = Authority} = Ask] ->
            Without = settled(Open#model{asks = Open#model.asks -- [Ask]}),
            case maps:get(Player, Model#model.players, none) of
                _ when not Grant -> {refused, Without};
                Session -> {granted, won(Player, Session, Authority, Name, Entity, Without)};
                _ -> {gone, Without}
            end
    end;
on(withdraw, #{player := Player}, Name, _, Model) ->
    case [A || #ask{entity = E, player = P} = A <- Model#model.asks, E =:= Name, P =:= Player] of
        [] -> {no_ask, Model};
        Mine -> {ok, settled(Model#model{asks = Model#model.asks -- Mine})}
    end;
on(set_rule, #{rule := Rule} = Request, Name, Entity, Model) ->
    by([master], Request, Entity, Model,
       fun() ->
               Asks = [A || #ask{entity = E} = A <- Model#model.asks, not (E =:= Name andalso Rule =:= deny
                                                                          andalso Entity#entity.rule =/= deny)],
               settled(with(Name, Entity#entity{rule = Rule}, Model#model{asks = Asks}))
       end);
on(set_master, #{master := Master} = Request, Name, Entity, #model{asks = Asks} = Model) ->
    by([master], Request, Entity, Model,
       fun() when Master =:= Entity#entity.master -> Model;
          () ->
               {Moving, Left} = lists:partition(fun(#ask{entity = E}) -> E =:= Name end, Asks),
               Kept = [A#ask{master = Master} || is_map_key(Master, Model#model.players), A <- Moving],
               Times = Model#model.times,
               Now = max(maps:get(Entity#entity.master, Times, 0), maps:get(Master, Times, 0)),
               Moved = case Kept of
                           [] -> Model#model{asks = Left};
                           _ -> Model#model{asks = Left ++ Kept, times = Times#{Master => Now}}
                       end,
               settled(with(Name, Entity#entity{master = Master}, Moved))
       end);
on(set_default_owner, #{default_owner := Heir} = Request, Name, Entity, Model) ->
    by([master], Request, Entity, Model, fun() -> with(Name, Entity#entity{heir = Heir}, Model) end);
on(delete_entity, Request, Name, #entity{holder = Holder, dues = Dues} = Entity, #model{gone = Gone} = Model) ->
    by([master], Request, Entity, Model,
       fun() ->
               Left = [A || #ask{entity = E} = A <- Model#model.asks, E =/= Name],
               Acting = [Holder || Holder =/= undefined] ++ Dues,
               settled(Model#model{asks = Left, entities = maps:remove(Name, Model#model.entities),
                                   gone = maps:merge(Gone, maps:from_list([{Name, Acting} || Acting =/= []]))})
       end);
on(transfer, #{to := To} = Request, Name, Entity, Model) ->
    by([owner, master], Request, Entity, Model, fun() -> with(Name, Entity#entity{owner = To}, Model) end);
on(revoke, Request, Name, Entity, Model) ->
    by([owner, master], Request, Entity, Model, fun() -> with(Name, Entity#entity{owner = heir(none, Entity)}, Model) end);
on(pull, #{session := Session, owner := Owner, knows := Knows}, Name, Entity, #model{open = Open} = Model) ->
    Free = Entity#entity.rule =:= allow orelse Owner =:= Entity#entity.owner orelse Owner =:= Entity#entity.master,
    case lists:member(Session, Open) of
        false -> {no_session, Model};
        _ when Entity#entity.holder =:= Session -> {already_held, Model};
        _ when not Knows -> {conflict, Model};
        _ when not Free -> {denied, Model};
        _ -> {ok, with(Name, (pulled(Session, Entity))#entity{owner = Owner}, Model)}
    end;
on(_, #{session := Session}, _, #entity{holder = Holder}, Model) when Holder =/= Session -> {not_holder, Model};
on(push, #{to := To, owner := Owner}, Name, #entity{holder = Holder} = Entity, #model{open = Open} = Model) ->
    case of_server(To, Open) of
        [Holder] -> {already_held, Model};
        [Session] -> {ok, with(Name, Entity#entity{owner = Owner, holder = Session, dues = []}, Model)};
        [] -> {no_server, Model}
    end;
on(give, #{owner := Owner}, Name, Entity, Model) -> {ok, with(Name, Entity#entity{owner = Owner, dues = []}, Model)};
on(release, _, Name, Entity, Model) -> {ok, with(Name, Entity#entity{holder = undefined, dues = []}, Model)}.

of_server(Session, Open) -> [Other || Other <- Open, server(Other) =:= server(Session)].

%% Whoever pulls waits for the holder and those that it waits for, up to where it gave the entity away itself.
pulled(Session, #entity{holder = Session} = Entity) -> Entity;
pulled(Session, #entity{holder = Holder, dues = Dues} = Entity) ->
    Due = lists:takewhile(fun(Other) -> Other =/= Session end, [Holder || Holder =/= undefined] ++ Dues),
    Entity#entity{holder = Session, dues = Due}.

by(Roles, #{by := By}, #entity{owner = Owner, master = Master}, Model, Fun) ->
    case By =:= operator orelse By =:= Master orelse (lists:member(owner, Roles) andalso By =:= Owner) of
        true -> {ok, Fun()};
        false -> {case Roles of [master] -> not_master; _ -> not_owner end, Model}
    end.

won(Player, Session, Authority, Name, Entity, Model) ->
    Left = [A || #ask{entity = E} = A <- Model#model.asks, E =/= Name],
    Won = case Authority of
              true -> pulled(Session, Entity);
              false -> Entity
          end,
    settled(with(Name, Won#entity{owner = Player}, Model#model{asks = Left})).

%% The time of a master's asks is kept as long as there are any.
at(Master, At, #model{times = Times, asks = Asks} = Model) ->
    Now = max(At, maps:get(Master, Times, 0)),
    Model#model{times = Times#{Master => Now},
                asks = [A || #ask{master = M, expires = Expires} = A <- Asks, not (M =:= Master andalso Expires =< Now)]}.

settled(#model{asks = Asks, times = Times} = Model) ->
    Model#model{times = maps:with([M || #ask{master = M} <- Asks], Times)}.

cleared(Player, Model) -> Model#model{times = maps:remove(Player, Model#model.times)}.

heir(Leaver, #entity{heir = Heir, master = Master}) when Heir =:= undefined; Heir =:= Leaver -> Master;
heir(_, #entity{heir = Heir}) -> Heir.

with(Name, Entity, #model{entities = Entities} = Model) -> Model#model{entities = Entities#{Name => Entity}}.

%% What the model and the tree must agree about.

seen(#model{gone = Gone, open = Open, players = Players, entities = Entities, asks = Asks, generation = Generation}) ->
    {Gone, Generation, Open, Players, Entities,
     lists:sort([{M, E, P, S, A, X} || #ask{master = M, entity = E, player = P, session = S, authority = A, expires = X}
                                           <- Asks])}.

seen_in(Tree) ->
    Open = lists:sort([Session || [bridge, sessions, Session] <- maps:keys(Tree)]),
    {maps:from_list([{Name, dues(Due)} || {[bridge, entities, Name], #{deleted := true, awaiting := Due}} <- maps:to_list(Tree)]),
     maps:get(generation, maps:get([bridge, lessor], Tree, #{}), 0), Open,
     maps:from_list([{Player, Session} || {[bridge, players, Player], #{session := Session}} <- maps:to_list(Tree),
                                          lists:member(Session, Open)]),
     maps:from_list([{Name, #entity{owner = Owner, master = Master, heir = Heir, rule = Rule, holder = Holder,
                                    dues = dues(Due)}}
                     || {[bridge, entities, Name], #{owner := Owner, master := Master, default_owner := Heir, rule := Rule,
                                                     session := Holder, awaiting := Due} = Record} <- maps:to_list(Tree),
                        not is_map_key(deleted, Record)]),
     lists:sort([{Master, E, P, S, A, X}
                 || {[bridge, asks, Master], #{pending := Pending}} <- maps:to_list(Tree),
                    #{entity := E, player := P, session := S, authority := A, expires := X} <- Pending])}.

dues(Due) -> [Session || {Session, _} <- links(Due)].

links(undefined) -> [];
links(#{session := Session, epoch := Epoch} = Due) -> [{Session, Epoch} | links(maps:get(awaiting, Due, undefined))].

indexed(Tree) ->
    Entities = [{Name, Record} || {[bridge, entities, Name], Record} <- maps:to_list(Tree)],
    Living = [{Name, Record} || {Name, Record} <- Entities, not is_map_key(deleted, Record)],
    #{entities := Count, masters := Masters} = maps:get([bridge, counts], Tree),
    [{counted, {length(Living), lists:sort([Master || {_, #{master := Master}} <- Living])},
      {Count, lists:sort(lists:append([lists:duplicate(Has, Master) || {Master, Has} <- maps:to_list(Masters)]))}},
     {owned, lists:sort([{Owner, Name} || {Name, #{owner := Owner}} <- Living]),
                 lists:sort([{Owner, Name} || {[bridge, owned, Owner, _], #{entities := Owned}} <- maps:to_list(Tree),
                                 Name <- maps:keys(Owned)])},
     {held, lists:sort([{Session, Name} || {Name, Record} <- Entities,
                                                Session <- kb_authority_index:sessions(Record)]),
                 lists:sort([{Session, Name} || {[bridge, held, Session, _], #{entities := Held}} <- maps:to_list(Tree),
                                 Name <- maps:keys(Held)])}].

%% A master who is here has every open question in the inbox and no other one, and nothing is told to ended sessions.
told(#model{asks = Asks, players = Players, open = Open}, Tree) ->
    [{asked, lists:sort([{maps:get(Master, Players), Name, Player}
                             || #ask{master = Master, entity = Name, player = Player} <- Asks,
                                is_map_key(Master, Players)]),
                 lists:sort([{Session, Name, Player}
                             || {[bridge, inbox, Session, asks, Name, Player], #{type := ask}} <- maps:to_list(Tree)])},
     {inboxes, [], [Session || [bridge, inbox, Session | _] <- maps:keys(Tree), not lists:member(Session, Open)]}].
