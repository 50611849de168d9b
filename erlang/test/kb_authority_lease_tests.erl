%% What a lessor may have done to the tree, and what becomes of the entities of a session that ends.
-module(kb_authority_lease_tests).
-include_lib("eunit/include/eunit.hrl").

founded() ->
    #{[bridge, grants] => #{incarnation => 1, counter => 0}, [bridge, identity] => #{instance => <<"local">>}}.

each_lessor_has_a_generation_of_its_own_test() ->
    {{ok, #{generation := 1}}, Tree} = run(take, #{node => <<"hs1">>, lease_ms => 3000}, founded()),
    {{ok, #{generation := 2}}, After} = run(take, #{node => <<"hs2">>, lease_ms => 500}, Tree),
    ?assertEqual(#{generation => 2, node => <<"hs2">>, lease_ms => 500}, maps:get([bridge, lessor], After)).

a_beat_changes_nothing_and_only_the_current_lessor_has_one_test() ->
    Tree = led(opened([<<"a">>])),
    {{ok, #{there := [{<<"a">>, 3000}]}}, Tree} = run(beat, #{generation => 1, sessions => [<<"a">>, <<"x">>]}, Tree),
    {{error, {deposed, #{generation := 1}}}, Tree} = run(beat, #{generation => 0, sessions => []}, Tree),
    ?assertMatch({{error, {deposed, _}}, Tree}, run(beat, #{generation => 2, sessions => []}, Tree)).

only_the_current_lessor_ends_sessions_test() ->
    Tree = led(opened([<<"a">>])),
    {{error, {deposed, _}}, Tree} = run(expire, #{generation => 0, session => <<"a">>}, Tree),
    {{ok, #{released := [], passed := []}}, After} = run(expire, #{generation => 1, session => <<"a">>}, Tree),
    ?assertNot(is_map_key([bridge, sessions, <<"a">>], After)),
    ?assertMatch(#{session := undefined}, maps:get([bridge, servers, <<"server-a">>], After)),
    %% Sent twice, it does no harm.
    ?assertMatch({{ok, #{released := []}}, After}, run(expire, #{generation => 1, session => <<"a">>}, After)).

a_session_has_the_lessors_lease_and_keeps_it_test() ->
    {{ok, #{lease_ms := 3000, generation := 0}}, Tree} = open(<<"a">>, <<"one">>, founded()),
    {{ok, _}, Led} = run(take, #{node => <<"hs1">>, lease_ms => 700}, Tree),
    {{ok, #{lease_ms := 700, generation := 1}}, Two} = open(<<"b">>, <<"two">>, Led),
    {{ok, #{lease_ms := 3000, generation := 1, held := []}}, _} = open(<<"a">>, <<"one">>, Two),
    ?assertMatch({{ok, #{there := [{<<"a">>, 3000}, {<<"b">>, 700}]}}, _},
                 run(beat, #{generation => 1, sessions => [<<"a">>, <<"b">>]}, Two)).

a_name_whose_session_is_open_gets_no_other_one_test() ->
    {{ok, _}, Tree} = open(<<"a">>, <<"one">>, founded()),
    {{error, {name_in_use, #{session := <<"a">>, message := _}}}, Tree} = open(<<"b">>, <<"one">>, Tree),
    {{ok, _}, Closed} = run(close_session, #{session => <<"a">>}, Tree),
    ?assertMatch({{ok, #{held := []}}, _}, open(<<"b">>, <<"one">>, Closed)).

an_entity_passes_to_the_first_successor_that_may_have_it_test() ->
    Tree = led(held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>]))),
    #{epoch := Before} = entity(Tree),
    Successors = #{<<"gun">> => [<<"gone">>, <<"a">>, <<"c">>, <<"b">>]},
    {{ok, #{released := [], passed := [{<<"gun">>, <<"server-c">>}]}}, After} =
        run(expire, (step())#{generation => 1, session => <<"a">>, successors => Successors}, Tree),
    #{epoch := Epoch, session := <<"c">>, server := <<"server-c">>, awaiting := undefined, owner := <<"ann">>} = entity(After),
    ?assert(Epoch > Before),
    ?assertEqual(#{type => failover, entity => <<"gun">>, epoch => Epoch, previous => Before, from => <<"server-a">>,
                   owner => <<"ann">>, awaiting => undefined, trace => <<7:128>>, hop => 1},
                 maps:get([bridge, inbox, <<"c">>, <<"gun">>], After)),
    Bucket = kb_authority_tree:held_path(<<"c">>, kb_authority_tree:bucket(<<"gun">>)),
    ?assertEqual(#{entities => #{<<"gun">> => held}}, maps:get(Bucket, After)).

what_a_session_held_before_there_were_buckets_is_found_test() ->
    Tree = held(<<"hat">>, <<"a">>, held(<<"a">>, opened([<<"a">>]))),
    Old = fun(Name, Acc) -> Acc#{[bridge, held, <<"a">>, Name] => #{entity => Name}} end,
    Bare = maps:filter(fun([bridge, held | _], _) -> false; (_, _) -> true end, Tree),
    %% One of them was deleted since, which took no such node with it.
    Before = lists:foldl(Old, Bare, [<<"gun">>, <<"hat">>, <<"gone">>]),
    {{ok, #{released := Released}}, After} = run(end_session, #{session => <<"a">>, reason => dead}, Before),
    ?assertEqual([<<"gun">>, <<"hat">>], lists:sort(Released)),
    ?assertEqual([], [Path || [bridge, held | _] = Path <- maps:keys(After)]).

without_a_successor_an_entity_is_dormant_test() ->
    Tree = held(<<"a">>, opened([<<"a">>, <<"b">>])),
    {{ok, #{released := [<<"gun">>], passed := []}}, After} =
        run(end_session, #{session => <<"a">>, reason => dead, successors => #{<<"hat">> => [<<"b">>]}}, Tree),
    ?assertMatch(#{session := undefined, server := undefined}, entity(After)).

each_entity_gets_an_epoch_of_its_own_test() ->
    Names = [<<"gun">>, <<"hat">>, <<"cup">>],
    Tree = lists:foldl(fun(Name, Acc) -> held(Name, <<"a">>, Acc) end, opened([<<"a">>, <<"b">>]), Names),
    {{ok, #{passed := Passed}}, After} =
        run(close_session, (step())#{session => <<"a">>, successors => maps:from_list([{Name, [<<"b">>]} || Name <- Names])}, Tree),
    ?assertEqual(lists:sort(Names), lists:sort([Name || {Name, _} <- Passed])),
    Epochs = [maps:get(epoch, maps:get([bridge, entities, Name], After)) || Name <- Names],
    ?assertEqual(3, length(lists:usort(Epochs))),
    #{incarnation := High, counter := Low} = maps:get([bridge, grants], After),
    ?assertEqual(lists:max(Epochs), (High bsl 48) bor Low).

%% FAILOVER_FORGETS_DUES: a acts, b waits for its release, b ends: c has to wait for a as well.
a_successor_waits_for_what_was_due_to_the_ended_session_test() ->
    Tree = pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>]))),
    #{awaiting := #{session := <<"a">>, epoch := Older} = Due} = entity(Tree),
    {{ok, #{passed := [_]}}, After} =
        run(end_session, (step())#{session => <<"b">>, reason => dead, successors => #{<<"gun">> => [<<"c">>]}}, Tree),
    #{epoch := Epoch, session := <<"c">>, awaiting := Due} = entity(After),
    ?assertMatch(#{type := failover, awaiting := Due}, maps:get([bridge, inbox, <<"c">>, <<"gun">>], After)),
    %% And a signs its release for c.
    ?assertMatch(#{type := recall, epoch := Older, granted := Epoch, to := <<"server-c">>, session := <<"c">>},
                 maps:get([bridge, inbox, <<"a">>, <<"gun">>], After)).

%% FAILOVER_TO_DUE: a acts, b waits for it, c waits for b, c ends: neither a nor b can be its successor.
whose_own_release_is_due_is_no_successor_test() ->
    Tree = pulled(<<"c">>, pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>, <<"d">>])))),
    End = fun(Successors) ->
                  run(end_session, (step())#{session => <<"c">>, reason => dead, successors => #{<<"gun">> => Successors}}, Tree)
          end,
    {{ok, #{released := [<<"gun">>], passed := []}}, Dormant} = End([<<"a">>, <<"b">>]),
    ?assertMatch(#{session := undefined, awaiting := #{session := <<"b">>, awaiting := #{session := <<"a">>}}}, entity(Dormant)),
    {{ok, #{passed := [{<<"gun">>, <<"server-d">>}]}}, Passed} = End([<<"a">>, <<"d">>]),
    ?assertMatch(#{session := <<"d">>, awaiting := #{session := <<"b">>, awaiting := #{session := <<"a">>}}}, entity(Passed)).

%% Of two servers, the one that gave the entity to the other has it again.
who_said_that_it_released_what_was_due_goes_on_test() ->
    Tree = pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>]))),
    #{epoch := Before, awaiting := #{session := <<"a">>, epoch := Given}} = entity(Tree),
    {{ok, #{released := [], passed := [{<<"gun">>, <<"server-a">>}]}}, After} = ended(<<"b">>, [<<"a">>], [{<<"a">>, Given}], Tree),
    #{epoch := Epoch, session := <<"a">>, awaiting := undefined} = entity(After),
    ?assert(Epoch > Before),
    ?assertMatch(#{type := failover, epoch := Epoch, awaiting := undefined}, maps:get([bridge, inbox, <<"a">>, <<"gun">>], After)).

%% FOLLOWS_NOW: what a server said before it was granted the entity again says nothing about that grant.
what_was_released_earlier_settles_no_newer_grant_test() ->
    Given = pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>]))),
    #{awaiting := #{session := <<"a">>, epoch := Older}} = entity(Given),
    Tree = pulled(<<"c">>, pulled(<<"a">>, Given)),
    #{awaiting := #{session := <<"a">>, epoch := Newer} = Due} = entity(Tree),
    ?assert(Newer > Older),
    {{ok, #{released := [<<"gun">>], passed := []}}, After} = ended(<<"c">>, [<<"a">>], [{<<"a">>, Older}], Tree),
    ?assertMatch(#{session := undefined, awaiting := Due}, entity(After)).

%% a gave to b, which gave to c, which ends: b's release is due to a still, as b does not say that it has released.
what_stands_in_front_of_a_release_stays_due_test() ->
    Tree = pulled(<<"c">>, pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>])))),
    #{awaiting := #{session := <<"b">>, epoch := Later, awaiting := #{session := <<"a">>, epoch := Older}}} = entity(Tree),
    {{ok, #{passed := [_]}}, After} = ended(<<"c">>, [<<"b">>, <<"a">>], [{<<"a">>, Older}], Tree),
    #{session := <<"a">>, epoch := Epoch, awaiting := #{session := <<"b">>, epoch := Later} = Due} = entity(After),
    ?assertNot(is_map_key(awaiting, Due)),
    ?assertMatch(#{type := failover, awaiting := Due}, maps:get([bridge, inbox, <<"a">>, <<"gun">>], After)),
    ?assertMatch(#{type := recall, epoch := Later, granted := Epoch, to := <<"server-a">>},
                 maps:get([bridge, inbox, <<"b">>, <<"gun">>], After)).

%% Who released had received what was due to it, so nothing behind it is due, whoever goes on.
what_stands_behind_a_release_is_settled_with_it_test() ->
    Tree = pulled(<<"c">>, pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>])))),
    #{awaiting := #{session := <<"b">>, epoch := Later}} = entity(Tree),
    {{ok, #{passed := [{_, <<"server-a">>}]}}, After} = ended(<<"c">>, [<<"a">>], [{<<"b">>, Later}], Tree),
    ?assertMatch(#{session := <<"a">>, awaiting := undefined}, entity(After)),
    {{ok, #{passed := []}}, Dormant} = ended(<<"c">>, [], [{<<"b">>, Later}], Tree),
    ?assertMatch(#{session := undefined, awaiting := undefined}, entity(Dormant)).

%% MIDDLE_WAITS: a acts, b waits for it, c waits for b, a ends: the record says that nothing is due to b any more.
what_is_due_to_a_middle_session_is_read_from_the_chain_test() ->
    Tree = pulled(<<"c">>, pulled(<<"b">>, held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>])))),
    ?assertMatch(#{awaiting := #{session := <<"b">>, awaiting := #{session := <<"a">>}}}, entity(Tree)),
    {{ok, _}, After} = run(end_session, (step())#{session => <<"a">>, reason => dead}, Tree),
    #{awaiting := #{session := <<"b">>} = Due} = entity(After),
    ?assertNot(is_map_key(awaiting, Due)).

a_recall_that_overtakes_a_failover_keeps_it_test() ->
    Tree = held(<<"a">>, opened([<<"a">>, <<"b">>, <<"c">>])),
    {{ok, _}, Passed} = run(end_session, (step())#{session => <<"a">>, reason => dead, successors => #{<<"gun">> => [<<"b">>]}}, Tree),
    Unread = maps:get([bridge, inbox, <<"b">>, <<"gun">>], Passed),
    ?assertMatch(#{type := recall, unread := Unread}, maps:get([bridge, inbox, <<"b">>, <<"gun">>], pulled(<<"c">>, Passed))).

%% More than one transaction may change: the session ends by the first, and others pass on what it named.
a_large_session_ends_at_once_and_is_passed_on_slice_by_slice_test() ->
    Names = [<<"gun">>, <<"hat">>, <<"cup">>],
    Before = lists:foldl(fun(Name, Acc) -> held(Name, <<"a">>, Acc) end, led(opened([<<"a">>, <<"b">>, <<"c">>])), Names),
    {{ok, #{released := [], passed := [], left := 3}}, Tree} = large(expire, #{generation => 1}, Before),
    ?assertNot(is_map_key([bridge, sessions, <<"a">>], Tree)),
    [?assertMatch(#{session := <<"a">>}, entity(Name, Tree)) || Name <- Names],
    %% Asked again, it does no harm.
    {{ok, #{released := [], passed := []}}, Tree} = large(close_session, #{}, Tree),
    %% Some, of which one is nobody's by now.
    {{ok, #{released := [<<"hat">>], passed := [{<<"cup">>, <<"server-b">>}]}}, Some} =
        pass_on([<<"cup">>, <<"hat">>, <<"gone">>], #{<<"cup">> => [<<"a">>, <<"b">>]}, Tree),
    ?assertMatch(#{session := <<"a">>}, entity(<<"gun">>, Some)),
    ?assertMatch(#{type := failover, from := <<"server-a">>}, maps:get([bridge, inbox, <<"b">>, <<"cup">>], Some)),
    {{ok, #{released := [], passed := []}}, Some} = pass_on([<<"cup">>, <<"hat">>], #{}, Some),
    {{ok, #{released := [<<"gun">>], left := 0}}, After} = pass_on(all, #{}, Some),
    ?assertEqual([], [Path || [bridge, Kind, <<"a">> | _] = Path <- maps:keys(After), Kind =/= servers]),
    ?assertMatch({{ok, #{left := 0}}, After}, pass_on(all, #{}, After)),
    %% Not all at once where that is more than one may change, nor by a lessor that was deposed.
    ?assertMatch({{ok, #{left := 3}}, Tree}, pass_on(all, #{}, Tree)),
    ?assertMatch({{error, {deposed, _}}, Tree}, run(pass_on, #{generation => 0, session => <<"a">>, entities => Names}, Tree)).

nothing_is_asked_or_granted_in_the_name_of_a_session_that_is_passed_on_test() ->
    Before = held(<<"mug">>, <<"b">>, held(<<"hat">>, <<"a">>, held(<<"a">>, led(opened([<<"a">>, <<"b">>, <<"c">>]))))),
    {{ok, _}, Tree} = large(close_session, #{}, Before),
    #{epoch := Epoch} = entity(Tree),
    #{epoch := OfMug} = entity(<<"mug">>, Tree),
    Mine = (step())#{entity => <<"gun">>, session => <<"a">>, epoch => Epoch, owner => <<"ann">>},
    [?assertMatch({{error, {no_session, _}}, Tree}, run(Function, Request, Tree))
     || {Function, Request} <- [{release, Mine}, {give, Mine}, {push, Mine#{to => <<"server-b">>, box => <<"box">>}},
                                {pull, Mine#{entity := <<"mug">>, epoch := OfMug}},
                                {create_entity, Mine#{entity := <<"new">>, master => <<"ann">>, rule => deny}}]],
    Push = (step())#{entity => <<"mug">>, session => <<"b">>, epoch => OfMug, owner => <<"ann">>, to => <<"server-a">>, box => <<"box">>},
    ?assertMatch({{error, {no_server, _}}, Tree}, run(push, Push, Tree)),
    ?assertMatch({{ok, #{there := []}}, Tree}, run(beat, #{generation => 1, sessions => [<<"a">>]}, Tree)),
    %% Its server has no other session until all is passed on, this one neither.
    [?assertMatch({{error, {name_in_use, _}}, Tree}, open(Session, <<"server-a">>, Tree)) || Session <- [<<"a">>, <<"d">>]],
    {{ok, #{passed := []}}, Passed} = pass_on(all, #{<<"gun">> => [<<"a">>]}, 2, Tree),
    ?assertMatch(#{session := undefined}, entity(Passed)),
    ?assertMatch({{ok, _}, _}, open(<<"d">>, <<"server-a">>, Passed)).

%% It waits for what was due to the ended session, and not for that one, whose slice has nothing to do with it any more.
an_entity_that_is_asked_for_goes_before_its_slice_test() ->
    Older = pulled(<<"a">>, held(<<"hat">>, <<"a">>, held(<<"c">>, led(opened([<<"a">>, <<"b">>, <<"c">>]))))),
    #{epoch := OfA, awaiting := #{session := <<"c">>} = Due} = entity(Older),
    {{ok, _}, Tree} = large(close_session, #{}, Older),
    Pulled = pulled(<<"b">>, Tree),
    #{epoch := Epoch} = entity(Pulled),
    ?assert(Epoch > OfA),
    ?assertMatch(#{session := <<"b">>, server := <<"server-b">>, awaiting := Due}, entity(Pulled)),
    ?assertMatch(#{type := recall, granted := Epoch, session := <<"b">>}, maps:get([bridge, inbox, <<"c">>, <<"gun">>], Pulled)),
    ?assertNot(is_map_key([bridge, inbox, <<"a">>, <<"gun">>], Pulled)),
    {{ok, #{released := [], passed := []}}, Pulled} = pass_on([<<"gun">>], #{<<"gun">> => [<<"c">>]}, Pulled),
    {{ok, #{left := 0}}, After} = pass_on(all, #{}, Pulled),
    ?assertMatch(#{session := <<"b">>, epoch := Epoch, awaiting := Due}, entity(After)),
    ?assertEqual([], [Path || [bridge, Kind, <<"a">> | _] = Path <- maps:keys(After), Kind =/= servers]).

%% Who asked before the end waits until the slice has come, and then for nobody.
an_entity_that_was_asked_for_before_the_end_waits_for_its_slice_test() ->
    Older = pulled(<<"a">>, held(<<"hat">>, <<"a">>, held(<<"c">>, led(opened([<<"a">>, <<"b">>, <<"c">>]))))),
    Pulled = pulled(<<"b">>, Older),
    {{ok, _}, Tree} = large(close_session, #{}, Pulled),
    #{epoch := Epoch, awaiting := #{session := <<"a">>, awaiting := #{session := <<"c">>} = Due}} = entity(Tree),
    {{ok, #{released := [], passed := []}}, Sliced} = pass_on([<<"gun">>], #{<<"gun">> => [<<"c">>]}, Tree),
    ?assertMatch(#{session := <<"b">>, epoch := Epoch, awaiting := Due}, entity(Sliced)),
    ?assertMatch(#{type := recall, granted := Epoch, session := <<"b">>}, maps:get([bridge, inbox, <<"c">>, <<"gun">>], Sliced)),
    {{ok, #{left := 0}}, After} = pass_on(all, #{}, Sliced),
    ?assertEqual([], [Path || [bridge, Kind, <<"a">> | _] = Path <- maps:keys(After), Kind =/= servers]).

epochs_never_go_back_after_a_restore_test() ->
    Tree = held(<<"a">>, opened([<<"a">>])),
    {{ok, #{incarnation := 2}}, Own} = run(raise_epochs, #{above => 0}, Tree),
    {{ok, #{incarnation := 8}}, Other} = run(raise_epochs, #{above => (7 bsl 48) bor 12345}, Tree),
    ?assertEqual([(2 bsl 48) bor 1, (8 bsl 48) bor 1],
                 [maps:get(epoch, entity(<<"hat">>, held(<<"hat">>, <<"a">>, Raised))) || Raised <- [Own, Other]]),
    ?assertMatch({{error, {invalid_request, _}}, Tree}, run(raise_epochs, #{above => 16#FFFF bsl 48}, Tree)).

the_servers_with_the_least_to_do_go_on_test() ->
    Held = [{<<"gun">>, undefined}, {<<"hat">>, due(<<"b">>, 7)}, {<<"cup">>, undefined}, {<<"car">>, undefined}],
    Answers = [{<<"b">>, 5, [<<"gun">>, <<"hat">>], [{<<"gun">>, 9}]}, {<<"c">>, 4, [<<"gun">>, <<"hat">>, <<"car">>], []},
               {<<"c">>, 4, [], []}],
    ?assertEqual(#{successors => #{<<"gun">> => [<<"c">>, <<"b">>], <<"hat">> => [<<"c">>], <<"car">> => [<<"c">>]},
                   released => #{}},
                 kb_succession:chosen(Held, Answers)),
    %% What is given here counts: neither gets all.
    Many = [{integer_to_binary(N), undefined} || N <- lists:seq(1, 10)],
    Names = [Name || {Name, _} <- Many],
    #{successors := Shared} = kb_succession:chosen(Many, [{<<"b">>, 0, Names, []}, {<<"c">>, 4, Names, []}]),
    First = [First || [First | _] <- maps:values(Shared)],
    ?assertEqual({7, 3}, {length([b || <<"b">> <- First]), length([c || <<"c">> <- First])}).

who_has_released_is_among_those_that_go_on_test() ->
    Held = [{<<"gun">>, due(<<"b">>, 7)}, {<<"hat">>, due(<<"b">>, 7)}, {<<"cup">>, (due(<<"c">>, 8))#{awaiting => due(<<"b">>, 7)}}],
    Answers = [{<<"b">>, 0, [<<"gun">>, <<"hat">>, <<"cup">>], [{<<"gun">>, 7}, {<<"hat">>, 6}]},
               {<<"c">>, 4, [], [{<<"gun">>, 3}, {<<"cup">>, 8}]}],
    %% Of the cup, what c says settles what is due from b.
    ?assertEqual(#{successors => #{<<"gun">> => [<<"b">>], <<"cup">> => [<<"b">>]},
                   released => #{<<"gun">> => [{<<"b">>, 7}], <<"hat">> => [{<<"b">>, 6}], <<"cup">> => [{<<"c">>, 8}]}},
                 kb_succession:chosen(Held, Answers)).

those_who_answer_part_by_part_are_heard_out_test() ->
    Ref = make_ref(),
    Self = self(),
    Answers = [{<<"b">>, N, [integer_to_binary(N)], []} || N <- lists:seq(1, 3)],
    spawn_link(fun() -> [begin timer:sleep(150), Self ! {streams, Ref, S, N, Names, R} end || {S, N, Names, R} <- Answers] end),
    ?assertEqual(Answers, kb_succession:answers(Ref, 6, 3)),
    %% Of one part nobody is waited for longer, whoever else has answered.
    spawn_link(fun() -> [begin timer:sleep(200), Self ! {streams, Ref, S, N, Names, R} end || {S, N, Names, R} <- Answers] end),
    ?assertEqual([hd(Answers)], kb_succession:answers(Ref, 3, 1)).

%% What the tests say in short.

due(Session, Epoch) -> #{session => Session, server => <<"server-", Session/binary>>, epoch => Epoch}.

ended(Session, Successors, Released, Tree) ->
    run(end_session, (step())#{session => Session, reason => dead, successors => #{<<"gun">> => Successors},
                               released => #{<<"gun">> => Released}}, Tree).

large(Function, Members, Tree) -> run(Function, maps:merge(step(), Members#{session => <<"a">>, at_most => 1}), Tree).

pass_on(Entities, Successors, Tree) -> pass_on(Entities, Successors, 1, Tree).

pass_on(Entities, Successors, Most, Tree) ->
    run(pass_on, (step())#{generation => 1, session => <<"a">>, entities => Entities, successors => Successors, released => #{},
                           at_most => Most}, Tree).

run(Function, Request, Tree) ->
    case kb_authority_tests:decide(Function, Request, Tree) of
        {ok, Value, Changes} -> {{ok, Value}, lists:foldl(fun kb_authority_tests:change/2, Tree, Changes)};
        Refusal -> {Refusal, Tree}
    end.

open(Session, Server, Tree) ->
    run(open_session, #{server => Server, session => Session, key => <<>>, thumbprint => Server, address => {<<"h">>, 1},
                        lease_ms => 3000}, Tree).

opened(Sessions) ->
    lists:foldl(fun(Session, Acc) ->
                        {{ok, _}, Opened} = open(Session, <<"server-", Session/binary>>, Acc),
                        Opened
                end, founded(), Sessions).

led(Tree) ->
    {{ok, _}, Led} = run(take, #{node => <<"hs1">>, lease_ms => 3000}, Tree),
    Led.

held(Session, Tree) -> held(<<"gun">>, Session, Tree).

held(Entity, Session, Tree) ->
    {{ok, _}, Held} = run(create_entity, #{entity => Entity, owner => <<"ann">>, master => <<"ann">>, rule => allow,
                                           session => Session}, Tree),
    Held.

pulled(Session, Tree) ->
    #{epoch := Epoch} = entity(Tree),
    {{ok, _}, Pulled} = run(pull, (step())#{entity => <<"gun">>, session => Session, epoch => Epoch, owner => <<"ann">>}, Tree),
    Pulled.

entity(Tree) -> entity(<<"gun">>, Tree).

entity(Name, Tree) -> maps:get([bridge, entities, Name], Tree).

step() -> #{trace => <<7:128>>, hop => 0}.
