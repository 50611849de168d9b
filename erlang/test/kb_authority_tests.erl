%% Random requests against the decisions alone: the tree is a map.
-module(kb_authority_tests).
-include_lib("eunit/include/eunit.hrl").

epochs_rise_and_grants_follow_the_requests_test_() ->
    {timeout, 60, fun() -> [walk(Seed) || Seed <- lists:seq(1, 100)] end}.

walk(Seed) ->
    _ = rand:seed(exsss, {Seed, 5, 6}),
    Tree = #{[bridge, grants] => #{incarnation => 1, counter => 0},
             [bridge, identity] => #{instance => <<"local">>}},
    lists:foldl(fun(_, Now) -> step(Now) end, Tree, lists:seq(1, 200)).

step(Tree) ->
    {Function, Request} = request(),
    Answer = decide(Function, Request, Tree),
    After = case Answer of
                {ok, _, Changes} -> lists:foldl(fun change/2, Tree, Changes);
                {error, {_, #{message := _}}} -> Tree
            end,
    [consistent(Path, Record, Tree, After) || {[bridge, entities, _] = Path, Record} <- maps:to_list(After)],
    After.

consistent(Path, #{epoch := Epoch, version := Version, session := Session} = Record, Before, After) ->
    #{incarnation := High, counter := Low} = maps:get([bridge, grants], After),
    ?assert(Epoch =< (High bsl 48) bor Low),
    ?assert(Session =:= undefined orelse is_map_key([bridge, sessions, Session], After)),
    case Before of
        #{Path := Record} -> ok;
        #{Path := #{epoch := Earlier, version := Older, session := Holder}} ->
            ?assertEqual(Older + 1, Version),
            ?assert(Epoch >= Earlier),
            %% A new holder always has a new epoch.
            ?assert(Session =:= Holder orelse Session =:= undefined orelse Epoch > Earlier);
        _ -> ?assertEqual(1, Version)
    end.

request() ->
    Name = pick([<<"a">>, <<"b">>, <<"c">>]),
    Base = #{entity => pick([<<"gun">>, <<"hat">>]), session => session(Name, rand:uniform(2)), owner => Name,
             master => Name, rule => pick([allow, deny, ask]), to => pick([<<"a">>, <<"b">>, <<"c">>]),
             box => <<"box">>, epoch => (1 bsl 48) bor rand:uniform(40),
             server => Name, key => <<>>, thumbprint => Name, address => {<<"h">>, 1}},
    {pick([open_session, open_session, close_session, create_entity, give, push, push, pull, pull, release]), Base}.

session(Name, Number) -> <<Name/binary, Number>>.

pick(List) -> lists:nth(rand:uniform(length(List)), List).

decide(Function, Request0, Tree) ->
    %% Half of the requests know the true epoch and holder, or few would be granted.
    Request = case {rand:uniform(2), Tree} of
                  {1, _} -> Request0;
                  _ ->
                      case maps:get([bridge, entities, maps:get(entity, Request0)], Tree, undefined) of
                          #{epoch := Epoch, session := Holder} when Function =/= pull, Holder =/= undefined,
                                                                    Function =/= open_session ->
                              Request0#{epoch => Epoch, session => Holder};
                          #{epoch := Epoch} -> Request0#{epoch => Epoch};
                          undefined -> Request0
                      end
              end,
    kb_authority:decide(Function, Request, fun(Path) -> maps:get(Path, Tree, undefined) end,
                        fun(Path) -> [Data || {Found, Data} <- maps:to_list(Tree), length(Found) =:= length(Path) + 1,
                                              lists:prefix(Path, Found)]
                        end).

change({put, Path, Data}, Tree) -> Tree#{Path => Data};
change({delete, Path}, Tree) -> maps:filter(fun(Found, _) -> not lists:prefix(Path, Found) end, Tree).
