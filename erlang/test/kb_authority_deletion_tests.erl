%% Entities that are to be no more, and how many there may be: decisions on a tree that is a map.
-module(kb_authority_deletion_tests).
-include_lib("eunit/include/eunit.hrl").

its_holder_is_recalled_for_nobody_and_frees_the_name_test() ->
    Tree = created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>])),
    #{epoch := Held} = entity(<<"gun">>, Tree),
    {{ok, #{epoch := Epoch, deleted := true}}, Deleted} = run(delete_entity, (step())#{entity => <<"gun">>, by => <<"ann">>}, Tree),
    ?assert(Epoch > Held),
    ?assertEqual(#{type => recall, entity => <<"gun">>, epoch => Held, granted => Epoch, to => undefined, session => undefined,
                   owner => <<"ann">>, unread => undefined, trace => <<7:128>>, hop => 1},
                 maps:get([bridge, inbox, <<"a">>, <<"gun">>], Deleted)),
    {{error, {being_deleted, _}}, Deleted} = create(<<"gun">>, <<"b">>, Deleted),
    %% Whoever does not act for it says nothing that counts, nor the holder of another epoch.
    [?assertMatch({{error, {no_entity, _}}, Deleted},
                  run(release, #{entity => <<"gun">>, session => Session, epoch => Said}, Deleted))
     || {Session, Said} <- [{<<"b">>, Held}, {<<"a">>, Epoch}]],
    {{ok, #{awaiting := undefined}}, Gone} = run(release, #{entity => <<"gun">>, session => <<"a">>, epoch => Held}, Deleted),
    ?assertEqual([], [Path || [bridge, Kind | _] = Path <- maps:keys(Gone), Kind =:= entities orelse Kind =:= inbox]),
    {{ok, #{epoch := Next, version := 1}}, _} = create(<<"gun">>, <<"b">>, Gone),
    ?assert(Next > Epoch).

nobody_may_do_anything_with_it_meanwhile_test() ->
    Tree = deleted(<<"gun">>, created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>]))),
    #{epoch := Epoch} = entity(<<"gun">>, Tree),
    Request = #{entity => <<"gun">>, session => <<"b">>, epoch => Epoch, owner => <<"ann">>, by => operator, rule => deny,
                master => <<"bob">>, default_owner => undefined, to => <<"bob">>, player => <<"bob">>, authority => true,
                grant => true, at => 0, ttl => 1, box => <<>>},
    [?assertMatch({{error, {no_entity, _}}, Tree}, run(Function, Request, Tree))
     || Function <- [pull, push, give, request, answer, withdraw, set_rule, set_master, set_default_owner, transfer, revoke,
                     delete_entity, push_abroad]].

everybody_in_the_chain_of_waits_has_to_say_so_test() ->
    Tree = deleted(<<"gun">>, pulled(<<"b">>, created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>])))),
    [{<<"a">>, Old}, {<<"b">>, New}] =
        lists:sort([{Session, Epoch} || {[bridge, inbox, Session, <<"gun">>], #{type := recall, epoch := Epoch, to := undefined}}
                                            <- maps:to_list(Tree)]),
    {{ok, _}, Said} = run(release, #{entity => <<"gun">>, session => <<"b">>, epoch => New}, Tree),
    ?assertMatch(#{deleted := true}, entity(<<"gun">>, Said)),
    {{ok, _}, Gone} = run(release, #{entity => <<"gun">>, session => <<"a">>, epoch => Old}, Said),
    ?assertNot(is_map_key([bridge, entities, <<"gun">>], Gone)).

the_end_of_a_session_says_so_too_test() ->
    Tree = deleted(<<"gun">>, pulled(<<"b">>, created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>])))),
    Successors = #{<<"gun">> => [<<"b">>]},
    {{ok, #{released := [], passed := []}}, One} = run(end_session, #{session => <<"a">>, reason => dead, successors => Successors}, Tree),
    ?assertMatch(#{deleted := true, session := undefined}, entity(<<"gun">>, One)),
    {{ok, _}, Gone} = run(close_session, #{session => <<"b">>}, One),
    ?assertNot(is_map_key([bridge, entities, <<"gun">>], Gone)).

a_dormant_one_is_gone_at_once_test() ->
    Tree = created(<<"gun">>, <<"a">>, opened([<<"a">>])),
    #{epoch := Epoch} = entity(<<"gun">>, Tree),
    {{ok, _}, Dormant} = run(release, #{entity => <<"gun">>, session => <<"a">>, epoch => Epoch}, Tree),
    ?assertNot(is_map_key([bridge, entities, <<"gun">>], deleted(<<"gun">>, Dormant))).

only_its_home_deletes_an_entity_test() ->
    Tree = created(<<"gun">>, <<"a">>, opened([<<"a">>])),
    Path = [bridge, entities, <<"gun">>],
    #{Path := Record} = Tree,
    Abroad = Tree#{Path := Record#{home := <<"ruby">>}},
    {{error, {not_home, #{instance := <<"ruby">>}}}, Abroad} = run(delete_entity, #{entity => <<"gun">>, by => operator}, Abroad),
    Away = Tree#{Path := Record#{away => #{instance => <<"ruby">>, transfer => 1, state => escrow}}},
    ?assertMatch({{error, {away, _}}, Away}, run(delete_entity, #{entity => <<"gun">>, by => operator}, Away)).

asks_for_it_end_test() ->
    Tree0 = created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>])),
    Tree = lists:foldl(fun({Function, Request}, Acc) -> {{ok, _}, Next} = run(Function, Request, Acc), Next end, Tree0,
                       [{enter, #{player => <<"ann">>, session => <<"a">>}}, {enter, #{player => <<"bob">>, session => <<"b">>}},
                        {set_rule, #{entity => <<"gun">>, by => <<"ann">>, rule => ask}},
                        {request, (step())#{entity => <<"gun">>, player => <<"bob">>, session => <<"b">>, owner => <<"ann">>,
                                            epoch => 0, authority => false, ttl => 10, at => 0}}]),
    Deleted = deleted(<<"gun">>, Tree),
    ?assertMatch(#{outcome := deleted}, maps:get([bridge, inbox, <<"b">>, asks, <<"gun">>, <<"bob">>], Deleted)),
    ?assertNot(is_map_key([bridge, asks, <<"ann">>], Deleted)).

a_revoked_server_is_granted_nothing_more_test() ->
    Tree0 = created(<<"gun">>, <<"a">>, opened([<<"a">>, <<"b">>])),
    {{ok, _}, Tree} = run(revoke_credential, #{id => <<"server-b">>, reason => <<"lost">>, at => 0}, Tree0),
    #{epoch := Epoch} = entity(<<"gun">>, Tree),
    Request = (step())#{entity => <<"gun">>, session => <<"b">>, epoch => Epoch, owner => <<"ann">>,
                        release => #{snd => <<"server-a">>, rcp => <<"server-b">>, sid => <<"a">>, epoch => Epoch}},
    [?assertMatch({{error, {revoked, _}}, Tree}, run(Function, Request, Tree)) || Function <- [pull, claim]],
    ?assertMatch({{error, {revoked, _}}, Tree}, create(<<"hat">>, <<"b">>, Tree)),
    ?assertMatch({{error, {no_server, _}}, Tree},
                 run(push, Request#{session := <<"a">>, to => <<"server-b">>, box => <<>>}, Tree)).

%% Room.

an_instance_has_room_for_so_many_test() ->
    Tree = created(<<"hat">>, <<"a">>, <<"bob">>, created(<<"gun">>, <<"a">>, opened([<<"a">>]))),
    Limits = #{instance => 2, master => 9},
    {{error, {quota, #{limit := instance, maximum := 2}}}, Tree} = create(<<"cup">>, <<"a">>, <<"cid">>, Limits, Tree),
    {{ok, _}, Again} = create(<<"cup">>, <<"a">>, <<"cid">>, Limits, stopped(<<"hat">>, <<"a">>, Tree)),
    ?assertEqual(#{entities => 2, masters => #{<<"ann">> => 1, <<"cid">> => 1}}, maps:get([bridge, counts], Again)).

a_master_has_room_for_so_many_test() ->
    Tree = created(<<"hat">>, <<"a">>, <<"bob">>, created(<<"gun">>, <<"a">>, opened([<<"a">>]))),
    Limits = #{instance => 9, master => 1},
    {{error, {quota, #{limit := master, master := <<"ann">>, maximum := 1}}}, Tree} = create(<<"cup">>, <<"a">>, <<"ann">>, Limits, Tree),
    Named = #{entity => <<"gun">>, by => <<"ann">>, master => <<"bob">>, limits => Limits},
    {{error, {quota, #{limit := master}}}, Tree} = run(set_master, Named, Tree),
    %% Whoever may not do it at all hears that first, and the operator may.
    {{error, {not_master, _}}, Tree} = run(set_master, Named#{by := <<"cid">>}, Tree),
    {{ok, _}, Passed} = run(set_master, Named#{by := operator}, Tree),
    ?assertEqual(#{entities => 2, masters => #{<<"bob">> => 2}}, maps:get([bridge, counts], Passed)),
    ?assertMatch({{ok, _}, _}, run(set_master, Named#{master := <<"cid">>}, Tree)),
    ?assertMatch({{ok, _}, Tree}, run(set_master, Named#{master := <<"ann">>}, Tree)).

what_is_not_counted_yet_is_counted_when_it_is_asked_for_test() ->
    Tree = maps:remove([bridge, counts], created(<<"hat">>, <<"a">>, <<"bob">>, created(<<"gun">>, <<"a">>, opened([<<"a">>])))),
    Limits = #{instance => 3, master => 9},
    {{ok, _}, Counted} = create(<<"cup">>, <<"a">>, <<"ann">>, Limits, Tree),
    ?assertEqual(#{entities => 3, masters => #{<<"ann">> => 2, <<"bob">> => 1}}, maps:get([bridge, counts], Counted)),
    ?assertMatch({{error, {quota, _}}, Counted}, create(<<"car">>, <<"a">>, <<"ann">>, Limits, Counted)).

%% What the tests say in short.

run(Function, Request, Tree) ->
    case kb_authority_tests:decide(Function, Request, Tree) of
        {ok, Value, Changes} -> {{ok, Value}, lists:foldl(fun kb_authority_tests:change/2, Tree, Changes)};
        Refusal -> {Refusal, Tree}
    end.

opened(Sessions) ->
    Founded = #{[bridge, grants] => #{incarnation => 1, counter => 0}, [bridge, identity] => #{instance => <<"local">>}},
    lists:foldl(fun(Session, Acc) ->
                        Server = <<"server-", Session/binary>>,
                        {{ok, _}, Opened} = run(open_session, #{server => Server, session => Session, key => <<>>, thumbprint => Server,
                                                                address => {<<"h">>, 1}, lease_ms => 3000}, Acc),
                        Opened
                end, Founded, Sessions).

create(Entity, Session, Tree) -> create(Entity, Session, <<"ann">>, #{instance => 9, master => 9}, Tree).

create(Entity, Session, Master, Limits, Tree) ->
    run(create_entity, #{entity => Entity, owner => Master, master => Master, rule => allow, session => Session, limits => Limits}, Tree).

created(Entity, Session, Tree) -> created(Entity, Session, <<"ann">>, Tree).

created(Entity, Session, Master, Tree) ->
    {{ok, _}, Created} = create(Entity, Session, Master, #{instance => 9, master => 9}, Tree),
    Created.

pulled(Session, Tree) ->
    #{epoch := Epoch} = entity(<<"gun">>, Tree),
    {{ok, _}, Pulled} = run(pull, (step())#{entity => <<"gun">>, session => Session, epoch => Epoch, owner => <<"ann">>}, Tree),
    Pulled.

deleted(Entity, Tree) ->
    {{ok, _}, Deleted} = run(delete_entity, (step())#{entity => Entity, by => operator}, Tree),
    Deleted.

stopped(Entity, Session, Tree) ->
    #{epoch := Epoch} = entity(Entity, Tree),
    {{ok, _}, Gone} = run(release, #{entity => Entity, session => Session, epoch => Epoch}, deleted(Entity, Tree)),
    Gone.

entity(Name, Tree) -> maps:get([bridge, entities, Name], Tree).

step() -> #{trace => <<7:128>>, hop => 0}.
