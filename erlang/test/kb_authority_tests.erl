%% Random requests against the decisions alone: the tree is a map.
-module(kb_authority_tests).
-include_lib("eunit/include/eunit.hrl").

-export([decide/3, change/2]).

a_session_asks_in_the_names_of_those_alone_who_are_there_test() ->
    Here = <<1:128>>,
    There = <<2:128>>,
    Gun = #{entity => <<"gun">>, owner => <<"ann">>, master => <<"ann">>, rule => deny, session => Here, server => <<"a">>,
            epoch => 5, awaiting => undefined, home => <<"local">>, default_owner => undefined, version => 1},
    Tree = #{[bridge, grants] => #{incarnation => 1, counter => 0}, [bridge, identity] => #{instance => <<"local">>},
             [bridge, sessions, Here] => #{server => <<"a">>, thumbprint => <<"a">>},
             [bridge, sessions, There] => #{server => <<"b">>, thumbprint => <<"b">>},
             [bridge, servers, <<"a">>] => #{thumbprint => <<"a">>},
             [bridge, players, <<"ann">>] => #{session => Here},
             %% Of a session that has ended.
             [bridge, players, <<"eve">>] => #{session => <<3:128>>},
             [bridge, entities, <<"gun">>] => Gun},
    Pull = #{entity => <<"gun">>, session => There, epoch => 5, owner => <<"ann">>, present => [<<"ann">>]},
    ?assertMatch({error, {no_player, #{player := <<"ann">>}}}, decide(pull, Pull, Tree)),
    ?assertMatch({ok, _, _}, decide(pull, Pull, Tree#{[bridge, players, <<"ann">>] => #{session => There}})),
    ?assertMatch({ok, _, _}, decide(pull, maps:remove(present, Pull), Tree)),
    Made = #{entity => <<"hat">>, session => Here, owner => <<"ann">>, master => <<"eve">>, rule => deny,
             present => [<<"ann">>, <<"eve">>]},
    ?assertMatch({error, {no_player, #{player := <<"eve">>}}}, decide(create_entity, Made, Tree)),
    ?assertMatch({ok, _, _}, decide(create_entity, Made#{present := [<<"ann">>]}, Tree)),
    %% Its owner may be anywhere: the holder itself handed it over.
    Claim = #{entity => <<"gun">>, session => There, owner => <<"ann">>, present => [<<"ann">>],
              release => #{snd => <<"a">>, rcp => <<"b">>, sid => Here, epoch => 5}},
    ?assertMatch({ok, #{session := There}, _}, decide(claim, Claim, Tree)),
    ?assertMatch({error, {no_player, _}}, decide(claim, Claim#{owner := <<"eve">>, present := [<<"eve">>]}, Tree)).

what_a_key_is_for_changes_nothing_test() ->
    ?assertEqual({ok, #{digest => <<"d">>}, []}, decide(claim_key, #{digest => <<"d">>}, #{})).

epochs_rise_and_grants_follow_the_requests_test_() ->
    {timeout, 60, fun() ->
                             _ = [put(Counted, 0) || Counted <- [claims, passed, due, slices]],
                             [walk(Seed) || Seed <- lists:seq(1, 200)],
                             ?assert(get(claims) > 50),
                             ?assert(get(passed) > 200),
                             ?assert(get(due) > 5),
                             ?assert(get(slices) > 50)
                     end}.

walk(Seed) ->
    _ = rand:seed(exsss, {Seed, 5, 6}),
    Tree = #{[bridge, grants] => #{incarnation => 1, counter => 0},
             [bridge, identity] => #{instance => <<"local">>}},
    lists:foldl(fun(_, Now) -> step(Now) end, Tree, lists:seq(1, 200)).

step(Tree) ->
    {Function, Blind} = request(),
    Request = informed(Function, Blind, Tree),
    Answer = decide(Function, Request, Tree),
    After = case Answer of
                {ok, _, Changes} -> lists:foldl(fun change/2, Tree, Changes);
                {error, {_, #{message := _}}} -> Tree
            end,
    [ended(Session, Tree, After) || {Ending, {ok, Value, [_ | _]}} <- [{Function, Answer}],
                                    Ending =:= close_session orelse Ending =:= pass_on, maps:get(left, Value, 0) =:= 0,
                                    Ending =:= close_session orelse maps:get(entities, Request) =:= all,
                                    #{session := Session} <- [Request]],
    [passed(Request, Entity, Tree, After) || {Ending, {ok, #{passed := Passed}, _}} <- [{Function, Answer}],
                                             Ending =:= close_session orelse Ending =:= pass_on, {Entity, _} <- Passed],
    [put(slices, get(slices) + 1) || {pass_on, {ok, _, [_ | _]}} <- [{Function, Answer}]],
    case {Function, Answer} of
        {claim, {ok, #{entity := Entity, session := New, epoch := Epoch}, _}} ->
            #{release := #{sid := From, epoch := Released}} = Request,
            %% Only the holder's own release at its own epoch takes the entity from it.
            ?assertMatch(#{session := From, epoch := Released}, maps:get([bridge, entities, Entity], Tree)),
            ?assert(New =/= undefined andalso Epoch > Released),
            put(claims, get(claims) + 1);
        _ -> ok
    end,
    ?assertEqual(lists:sort([{Named, Entity} || {[bridge, entities, Entity], Record} <- maps:to_list(After),
                                                Named <- named(Record)]),
                 lists:sort([{Named, Entity} || {[bridge, held, Named, _], #{entities := Held}} <- maps:to_list(After),
                                                Entity <- maps:keys(Held)])),
    [consistent(Path, Record, Tree, After) || {[bridge, entities, _] = Path, Record} <- maps:to_list(After)],
    After.

consistent(Path, #{epoch := Epoch, version := Version, session := Session} = Record, Before, After) ->
    #{incarnation := High, counter := Low} = maps:get([bridge, grants], After),
    ?assert(Epoch =< (High bsl 48) bor Low),
    ?assert(Session =:= undefined orelse is_there(Session, After)),
    Due = chain(maps:get(awaiting, Record)),
    %% What is due is due from open sessions, at epochs that were theirs: each older than the one before it.
    [?assert(is_there(Waiting, After)) || {Waiting, _} <- Due],
    ?assertEqual(lists:reverse(lists:usort([Epoch | [Older || {_, Older} <- Due]])),
                 [Epoch | [Older || {_, Older} <- Due]]),
    %% No session stands twice, so no chain is longer than there are sessions.
    Named = [Waiting || {Waiting, _} <- Due] ++ [Session || Session =/= undefined],
    ?assertEqual(lists:usort(Named), lists:sort(Named)),
    case Before of
        #{Path := Record} -> ok;
        #{Path := #{epoch := Earlier, version := Older, session := Holder}} ->
            ?assertEqual(Older + 1, Version),
            ?assert(Epoch >= Earlier),
            %% A new holder always has a new epoch.
            ?assert(Session =:= Holder orelse Session =:= undefined orelse Epoch > Earlier),
            %% What is granted is granted to an open session.
            ?assert(Epoch =:= Earlier orelse is_map_key([bridge, sessions, Session], After));
        _ -> ?assertEqual(1, Version)
    end.

%% Open, or ended and not passed on yet; never both.
is_there(Session, Tree) ->
    is_map_key([bridge, sessions, Session], Tree) xor is_map_key([bridge, ending, Session], Tree).

chain(undefined) -> [];
chain(#{session := Session, epoch := Epoch} = Due) -> [{Session, Epoch} | chain(maps:get(awaiting, Due, undefined))].

%% What a session's end must leave behind: nothing of the session, nor anything else changed.
ended(Session, Before, After) ->
    ?assertEqual([], [Path || [bridge, Kind, Of | _] = Path <- maps:keys(After), Of =:= Session,
                              Kind =/= servers, Kind =/= entities]),
    [?assertEqual(maps:get([bridge, entities, Entity], Before), Record)
     || {[bridge, entities, Entity], #{session := Holder} = Record} <- maps:to_list(After),
        not mentions(Session, maps:get([bridge, entities, Entity], Before)), Holder =/= Session].

%% A failover tells its successor what is due, and whoever it is due from is recalled for it.
passed(#{session := Ended, successors := Successors, released := Released}, Entity, Before, After) ->
    #{session := Ended, awaiting := DueBefore, epoch := Previous} = maps:get([bridge, entities, Entity], Before),
    #{session := To, epoch := Epoch, awaiting := Due} = maps:get([bridge, entities, Entity], After),
    ?assert(lists:member(To, maps:get(Entity, Successors))),
    Said = maps:get(Entity, Released),
    IsDue = fun({Session, Given}) -> not lists:any(fun({Who, UpTo}) -> Who =:= Session andalso Given =< UpTo end, Said) end,
    ?assertEqual(lists:takewhile(IsDue, [Link || {Session, _} = Link <- chain(DueBefore), Session =/= Ended]), chain(Due)),
    ?assertMatch(#{type := failover, epoch := Epoch, previous := Previous, awaiting := Due},
                 maps:get([bridge, inbox, To, Entity], After)),
    _ = [?assertMatch(#{type := recall, epoch := Older, granted := Epoch, session := To},
                      maps:get([bridge, inbox, First, Entity], After)) || [{First, Older} | _] <- [chain(Due)]],
    put(passed, get(passed) + 1),
    put(due, get(due) + length([due || Due =/= undefined])).

mentions(Session, Record) -> lists:member(Session, named(Record)).

named(#{session := Holder, awaiting := Due}) ->
    lists:usort([Session || {Session, _} <- [{Holder, 0} | chain(Due)], Session =/= undefined]).

request() ->
    Name = pick([<<"a">>, <<"b">>, <<"c">>]),
    Base = #{entity => pick([<<"gun">>, <<"hat">>]), session => session(Name, rand:uniform(2)), owner => Name,
             master => Name, rule => pick([allow, deny, ask]), to => pick([<<"a">>, <<"b">>, <<"c">>]),
             box => <<"box">>, epoch => (1 bsl 48) bor rand:uniform(40),
             server => Name, key => <<>>, thumbprint => Name, address => {<<"h">>, 1}, lease_ms => 3000,
             successors => maps:from_list([{Entity, shuffled([session(Of, Number) || Of <- [<<"a">>, <<"b">>, <<"c">>],
                                                                                     Number <- [1, 2]])}
                                           || Entity <- [<<"gun">>, <<"hat">>], rand:uniform(3) > 1]),
             released => maps:from_list([{Entity, [{session(Of, Number), (1 bsl 48) bor rand:uniform(200)}
                                                   || Of <- [<<"a">>, <<"b">>, <<"c">>], Number <- [1, 2], rand:uniform(3) =:= 1]}
                                         || Entity <- [<<"gun">>, <<"hat">>]])},
    {pick([open_session, open_session, close_session, pass_on, pass_on, create_entity, give, push, push, pull, pull, pull, release,
           claim, claim]),
     Base#{generation => 0, at_most => rand:uniform(3) - 1, entities => pick([[<<"gun">>], [<<"hat">>, <<"gun">>], all]), release => #{snd => pick([<<"a">>, <<"b">>, <<"c">>]), rcp => Name, epoch => (1 bsl 48) bor rand:uniform(40),
                        sid => session(pick([<<"a">>, <<"b">>, <<"c">>]), rand:uniform(2))}}}.

session(Name, Number) -> <<Name/binary, Number>>.

shuffled(List) -> [Element || {_, Element} <- lists:sort([{rand:uniform(), Element} || Element <- List])].

pick(List) -> lists:nth(rand:uniform(length(List)), List).

%% Half of the requests know the true epoch and holder, or few would be granted.
informed(Function, Request0, Tree) ->
    case {rand:uniform(2), Tree} of
        {1, _} -> Request0;
        _ ->
            case maps:get([bridge, entities, maps:get(entity, Request0)], Tree, undefined) of
                #{epoch := Epoch, session := Holder, server := Server}
                  when Function =:= claim, Holder =/= undefined ->
                    #{session := Session, release := Release} = Request0,
                    <<Name:1/binary, _/binary>> = Session,
                    Request0#{release => Release#{sid => Holder, epoch => Epoch, snd => Server,
                                                  rcp => Name}};
                #{epoch := Epoch, session := Holder} when Function =/= pull, Holder =/= undefined,
                                                          Function =/= open_session ->
                    Request0#{epoch => Epoch, session => Holder};
                #{epoch := Epoch} -> Request0#{epoch => Epoch};
                undefined -> Request0
            end
    end.

decide(Function, Request, Tree) ->
    kb_authority:decide(Function, Request, fun(Path) -> maps:get(Path, Tree, undefined) end,
                        fun(Path) -> [Data || {Found, Data} <- maps:to_list(Tree), length(Found) =:= length(Path) + 1,
                                              lists:prefix(Path, Found)]
                        end).

change({put, Path, Data}, Tree) -> Tree#{Path => Data};
change({delete, Path}, Tree) -> maps:filter(fun(Found, _) -> not lists:prefix(Path, Found) end, Tree).
