%% Three instances, each a tree and the decisions on it, and a network that loses, doubles, delays and reorders what they
%% send each other. What is not in a tree is lost with every crash: so a courier that died at whatever step is one
%% whose message never came, and one that came back sends what its tree says, again. In every state an entity is
%% exactly one of: an instance's, in an instance's escrow.
-module(kb_authority_escrow_tests).
-include_lib("eunit/include/eunit.hrl").

-import(proper_types, [list/1, frequency/1, oneof/1, range/2]).

-define(INSTANCES, [<<"x">>, <<"y">>, <<"z">>]).
-define(ENTITIES, [<<"gun">>, <<"hat">>]).

-record(world, {trees = #{}, net = [], epochs = #{}, seen = #{}}).

an_entity_is_always_in_one_place_test_() ->
    {timeout, 300, fun() ->
        ?assert(proper:quickcheck(prop(), [{numtests, 1500}, {to_file, user}]))
    end}.

prop() ->
    proper:forall(proper_types:resize(400, list(action())), fun(Actions) ->
        %% Debian's PropEr asks for an exception's stack in a way that OTP no longer has.
        try lists:foldl(fun(Action, World) -> whole(Action, act(Action, World)) end, founded(), Actions) of
            World ->
                Quiet = quiet(World, 200),
                settled(Quiet),
                Done = [Key || {Key, Count} <- maps:to_list(Quiet#world.seen), _ <- lists:seq(1, Count)],
                proper:aggregate(Done, true)
        catch
            error:Reason -> proper:whenfail(fun() -> io:format(user, "~p~n", [Reason]) end, false)
        end
    end).

%% Actions are numbers where they choose among what there is, so that every run can be shortened.
action() ->
    frequency([{6, {push, oneof(?ENTITIES), oneof(?INSTANCES), oneof(?INSTANCES), oneof([there, there, there, nowhere])}},
               {12, {send, oneof(?INSTANCES), range(0, 3)}},
               {24, {deliver, range(0, 60)}},
               {2, {cancel, oneof(?INSTANCES), range(0, 3)}},
               {2, {pull, oneof(?ENTITIES), oneof(?INSTANCES), oneof([1, 2])}},
               {1, {restart, oneof(?INSTANCES), oneof([1, 2])}},
               {1, {leave, oneof(?INSTANCES)}},
               {1, {forget, range(0, 60)}}]).

founded() ->
    World = #world{trees = maps:from_list([{Instance, tree(Instance)} || Instance <- ?INSTANCES])},
    lists:foldl(fun(Act, Acc) -> {{ok, _}, Next} = Act(Acc), Next end, World,
                [fun(W) -> decide(I, pin_peer, #{instance => P, urls => [], keys => [], ca => undefined, since => 0}, W) end
                 || I <- ?INSTANCES, P <- ?INSTANCES, I =/= P] ++
                [fun(W) -> open(I, Number, W) end || I <- ?INSTANCES, Number <- [1, 2]] ++
                [fun(W) -> decide(<<"x">>, create_entity, #{entity => E, owner => <<"ann">>, master => <<"ann">>, rule => allow,
                                                            session => session(<<"x">>, 1, W)}, W) end || E <- ?ENTITIES]).

tree(Instance) ->
    #{[bridge, identity] => #{instance => Instance},
      [bridge, grants] => #{incarnation => 1, counter => erlang:phash2(Instance, 50)}}.

act({push, Entity, From, To, Where}, World) ->
    case read(From, [bridge, entities, Entity], World) of
        #{session := Session, epoch := Epoch} when Session =/= undefined, From =/= To ->
            Server = case Where of there -> server(To, 1); nowhere -> <<"nobody">> end,
            {_, Next} = decide(From, push_abroad, #{entity => Entity, session => Session, epoch => Epoch, owner => <<"bob">>,
                                                    instance => To, to => Server, box => Server, trace => <<5:128>>, hop => 0},
                               World),
            Next;
        _ -> World
    end;
act({send, From, Number}, World) ->
    case chosen(Number, escrows(From, World)) of
        none -> settle(From, World);
        #{state := notice} = Escrow ->
            #{home := Home, entity := Entity, instance := At, epoch := Epoch, transfer := Transfer} = Escrow,
            sent(Home, {entity_moved, #{instance => From, entity => Entity, at => At, epoch => Epoch}, Transfer}, World);
        #{state := cancelling, instance := To} = Escrow ->
            sent(To, {refuse_escrow, (maps:with([transfer, low, trace, hop], Escrow))#{instance => From}}, World);
        #{instance := To, box := Box} = Escrow ->
            Release = #{rcp => thumbprint(Box)},
            sent(To, {accept_escrow, (maps:without([state], Escrow))#{instance => From, release => Release}}, World)
    end;
act({deliver, Number}, #world{net = Net} = World) ->
    %% It stays, and so may come again, however late.
    case chosen(Number, Net) of
        none -> World;
        {To, Message} -> received(To, Message, World)
    end;
act({cancel, From, Number}, World) ->
    case chosen(Number, escrows(From, World)) of
        none -> World;
        #{transfer := Transfer} ->
            {{ok, _}, Next} = decide(From, cancel_escrow, #{transfer => Transfer}, World),
            Next
    end;
act({pull, Entity, Instance, Number}, World) ->
    case read(Instance, [bridge, entities, Entity], World) of
        #{epoch := Epoch} ->
            {_, Next} = decide(Instance, pull, #{entity => Entity, session => session(Instance, Number, World), epoch => Epoch,
                                                 owner => <<"cid">>}, World),
            Next;
        undefined -> World
    end;
act({restart, Instance, Number}, World) ->
    {{ok, _}, Closed} = decide(Instance, close_session, #{session => session(Instance, Number, World)}, World),
    {{ok, _}, Opened} = open(Instance, Number, Closed),
    Opened;
act({leave, Instance}, World) ->
    {_, Next} = decide(Instance, leave, #{player => <<"bob">>, session => <<"none">>, bucket => 0}, World),
    Next;
act({forget, Number}, #world{net = Net} = World) ->
    case chosen(Number, Net) of
        none -> World;
        Message -> World#world{net = lists:delete(Message, Net)}
    end.

settle(From, World) ->
    lists:foldl(fun(To, Acc) ->
                    case read(From, [bridge, outgoing, To], Acc) of
                        #{low := Low, settled := Settled} when Low > Settled ->
                            sent(To, {settle_escrow, #{instance => From, low => Low}}, Acc);
                        _ -> Acc
                    end
                end, World, ?INSTANCES).

received(To, {accept_escrow, #{instance := From} = Request}, World) -> answered(To, From, accept_escrow, Request, World);
received(To, {refuse_escrow, #{instance := From} = Request}, World) -> answered(To, From, refuse_escrow, Request, World);
received(To, {settle_escrow, #{instance := From, low := Low} = Request}, World) ->
    {{ok, _}, Next} = decide(To, settle_escrow, Request, World),
    sent(From, {settled, #{instance => To, low => Low}}, Next);
received(To, {settled, Request}, World) -> obeyed(To, escrow_settled, Request, World);
received(To, {entity_moved, #{instance := From} = Request, Transfer}, World) ->
    case decide(To, entity_moved, Request, World) of
        {{ok, _}, Next} -> sent(From, {noted, #{transfer => Transfer}}, Next);
        {{error, {elsewhere, _}}, Next} -> Next
    end;
received(To, {noted, Request}, World) -> obeyed(To, escrow_noted, Request, World);
received(To, {verdict, Request}, World) -> obeyed(To, close_escrow, Request, World).

answered(To, From, Function, #{transfer := Transfer} = Request, World) ->
    case decide(To, Function, Request, World) of
        {{ok, #{verdict := Verdict} = Answer}, Next} ->
            sent(From, {verdict, #{instance => To, transfer => Transfer, verdict => Verdict, epoch => maps:get(epoch, Answer, 0),
                                   reason => maps:get(reason, Answer, none)}}, Next);
        {{error, {Reason, _}}, Next} when Reason =:= elsewhere; Reason =:= settled -> Next
    end.

obeyed(To, Function, Request, World) ->
    {{ok, _}, Next} = decide(To, Function, Request, World),
    Next.

%% Everything is sent and comes, in order, until nothing is left to do.
quiet(World, 0) -> error({never_quiet, [{I, escrows(I, World)} || I <- ?INSTANCES]});
quiet(World, Left) ->
    Sent = lists:foldl(fun({Instance, Number}, Acc) -> act({send, Instance, Number}, Acc) end, World#world{net = []},
                       [{I, Number} || I <- ?INSTANCES, Number <- lists:seq(0, length(escrows(I, World)))]),
    case delivered(settle(<<"z">>, settle(<<"y">>, settle(<<"x">>, Sent)))) of
        #world{trees = Trees, net = []} = Same when Trees =:= World#world.trees -> Same;
        Next -> quiet(Next, Left - 1)
    end.

delivered(#world{net = []} = World) -> World;
delivered(#world{net = [{To, Message} | Rest]} = World) ->
    delivered(whole({deliver, Message}, received(To, Message, World#world{net = Rest}))).

settled(World) ->
    [begin
         ?assertEqual([], escrows(I, World)),
         ?assertEqual([], [Path || [bridge, incoming, _, _] = Path <- maps:keys(maps:get(I, World#world.trees))]),
         %% What is counted is what there is.
         ?assertEqual([], [Of || Of <- ?INSTANCES, #{answers := Count} <- [read(I, [bridge, incoming, Of], World)], Count =/= 0]),
         ?assertEqual(length([E || E <- ?ENTITIES, #{home := Home} <- [read(I, [bridge, entities, E], World)], Home =/= I]),
                      lists:sum([Count || Of <- ?INSTANCES, #{entities := Count} <- [read(I, [bridge, incoming, Of], World)]]))
     end || I <- ?INSTANCES],
    [begin
         [At] = places(Entity, World),
         Home = read(<<"x">>, [bridge, entities, Entity], World),
         %% The notary knows, and nobody else who does not have it keeps a record.
         ?assertEqual(At, {record, case Home of #{away := #{instance := Away}} -> Away; _ -> <<"x">> end}),
         ?assertEqual([], [I || I <- [<<"y">>, <<"z">>], {record, I} =/= At,
                                read(I, [bridge, entities, Entity], World) =/= undefined])
     end || Entity <- ?ENTITIES].

whole(Action, World) ->
    lists:foldl(fun(Entity, Acc) ->
                    ?assertMatch({_, [_]}, {Action, places(Entity, Acc)}),
                    rises(Entity, Acc)
                end, World, ?ENTITIES).

%% An escrow whose receiver has accepted is the receiver's, though the giver has not heard.
places(Entity, World) ->
    [{record, I} || I <- ?INSTANCES, #{} = Record <- [read(I, [bridge, entities, Entity], World)], not is_map_key(away, Record)]
        ++ [{escrow, I} || I <- ?INSTANCES, #{entity := Of, state := State} = Escrow <- escrows(I, World), Of =:= Entity,
                           State =/= notice, not accepted(I, Escrow, World)].

accepted(From, #{instance := To, transfer := Transfer}, World) ->
    case read(To, [bridge, incoming, From, integer_to_binary(Transfer)], World) of
        #{verdict := accepted} -> true;
        _ -> false
    end.

%% Whoever begins to hold does so at an epoch above all that ever were, at whatever instance.
rises(Entity, #world{epochs = Epochs} = World) ->
    {Holder, Highest} = maps:get(Entity, Epochs, {none, 0}),
    case [{Session, Epoch} || I <- ?INSTANCES, #{session := Session, epoch := Epoch} <- [read(I, [bridge, entities, Entity], World)],
                              Session =/= undefined] of
        [{Holder, Highest}] -> World;
        [{Session, Epoch}] ->
            ?assert(Epoch > Highest),
            World#world{epochs = Epochs#{Entity => {Session, Epoch}}};
        [] -> World
    end.

decide(Instance, Function, Request, #world{trees = Trees, seen = Seen} = World) ->
    #{Instance := Tree} = Trees,
    Read = fun(Path) -> maps:get(Path, Tree, undefined) end,
    List = fun(Path) -> [Data || {Found, Data} <- maps:to_list(Tree), length(Found) =:= length(Path) + 1,
                                 lists:prefix(Path, Found)] end,
    {Answer, Next, Key} =
        case kb_authority:decide(Function, Request, Read, List) of
            {ok, Value, Changes} ->
                {{ok, Value}, lists:foldl(fun change/2, Tree, Changes), maps:get(reason, Value, ok)};
            {error, {Reason, #{message := _}}} = Refusal -> {Refusal, Tree, Reason}
        end,
    owned(Next),
    #{[bridge, grants] := #{incarnation := High, counter := Low}} = Next,
    #{[bridge, grants] := #{incarnation := HighBefore, counter := LowBefore}} = Tree,
    ?assert({High, Low} >= {HighBefore, LowBefore}),
    {Answer, World#world{trees = Trees#{Instance => Next}, seen = maps:update_with({Function, Key}, fun(N) -> N + 1 end, 1, Seen)}}.

%% The indexes name what is here, and in escrow for those who may get it back.
owned(Tree) ->
    ?assertEqual(lists:sort([{Owner, Name} || {[bridge, entities, Name], #{owner := Owner} = Record} <- maps:to_list(Tree),
                                              not is_gone(Record)]),
                 lists:sort([{Owner, Name} || {[bridge, owned, Owner, _], #{entities := Owned}} <- maps:to_list(Tree),
                                              Name <- maps:keys(Owned)])),
    ?assertEqual(lists:sort([{Session, Name} || {[bridge, entities, Name], Record} <- maps:to_list(Tree),
                                                Session <- kb_authority_index:sessions(Record)]),
                 lists:sort([{Session, Name} || {[bridge, held, Session, _], #{entities := Held}} <- maps:to_list(Tree),
                                                Name <- maps:keys(Held)])).

is_gone(#{away := #{state := gone}}) -> true;
is_gone(_) -> false.

change({put, Path, Data}, Tree) -> Tree#{Path => Data};
change({delete, Path}, Tree) -> maps:filter(fun(Found, _) -> not lists:prefix(Path, Found) end, Tree).

open(Instance, Number, World) ->
    Server = server(Instance, Number),
    Session = <<Server/binary, (integer_to_binary(erlang:unique_integer([positive])))/binary>>,
    decide(Instance, open_session, #{server => Server, session => Session, key => <<"key">>, thumbprint => thumbprint(Server),
                                     address => {<<"h">>, 1}, lease_ms => 3000}, World).

session(Instance, Number, World) ->
    #{session := Session} = read(Instance, [bridge, servers, server(Instance, Number)], World),
    Session.

server(Instance, Number) -> <<"server-", Instance/binary, (integer_to_binary(Number))/binary>>.

thumbprint(Server) -> <<"key of ", Server/binary>>.

escrows(Instance, #world{trees = Trees}) ->
    [Escrow || {[bridge, escrow, _], Escrow} <- lists:sort(maps:to_list(maps:get(Instance, Trees)))].

read(Instance, Path, #world{trees = Trees}) -> maps:get(Path, maps:get(Instance, Trees), undefined).

sent(To, Message, #world{net = Net} = World) -> World#world{net = [{To, Message} | Net]}.

chosen(_, []) -> none;
chosen(Number, List) -> lists:nth(Number rem length(List) + 1, List).

players_of_two_instances_are_told_apart_test() ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [Escrow] = escrows(<<"x">>, Pushed),
    ?assertMatch(#{master := <<"ann@x">>, owner := <<"bob">>}, Escrow),
    There = received(<<"y">>, {accept_escrow, Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}}}, Pushed),
    ?assertMatch(#{master := <<"ann@x">>, owner := <<"bob">>}, read(<<"y">>, [bridge, entities, <<"gun">>], There)),
    %% Nobody can enter as one of another instance.
    ?assertMatch({{error, {reserved_name, _}}, _},
                 decide(<<"y">>, enter, #{player => <<"ann@x">>, session => session(<<"y">>, 1, There)}, There)),
    %% What is abroad can only be looked at.
    ?assertMatch({{error, {away, #{instance := <<"y">>}}}, _},
                 decide(<<"x">>, set_rule, #{entity => <<"gun">>, by => operator, rule => deny}, There)).

an_entity_comes_home_from_where_it_is_known_to_be_test() ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [#{transfer := Transfer} = Escrow] = escrows(<<"x">>, Pushed),
    Closed = obeyed(<<"x">>, close_escrow, #{instance => <<"y">>, transfer => Transfer, verdict => accepted,
                                             epoch => Transfer + 5, reason => <<"none">>}, Pushed),
    Offer = Escrow#{release => #{rcp => thumbprint(server(<<"x">>, 1))}, to => server(<<"x">>, 1)},
    %% From another peer, which may have it by now, only once its home has heard that.
    ?assertMatch({{error, {elsewhere, _}}, _},
                 decide(<<"x">>, accept_escrow, Offer#{instance => <<"z">>, transfer => Transfer + 9}, Closed)),
    ?assertMatch({{error, {elsewhere, _}}, _},
                 decide(<<"x">>, entity_moved, #{instance => <<"z">>, entity => <<"gun">>, at => <<"z">>, epoch => Transfer + 9},
                        Closed)),
    %% Not from before it went.
    ?assertMatch({{ok, #{verdict := refused, reason := stale}}, _},
                 decide(<<"x">>, accept_escrow, Offer#{instance => <<"y">>, transfer => Transfer + 5}, Closed)),
    {{ok, #{verdict := accepted, epoch := Epoch}}, Home} =
        decide(<<"x">>, accept_escrow, Offer#{instance => <<"y">>, transfer => Transfer + 9}, Closed),
    ?assert(Epoch > Transfer + 9),
    ?assertMatch(#{epoch := Epoch, master := <<"ann">>, server := <<"server-x1">>}, read(<<"x">>, [bridge, entities, <<"gun">>], Home)).

what_no_peer_may_say_is_refused_for_good_test() ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [Escrow] = escrows(<<"x">>, Pushed),
    Offer = Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}},
    [?assertMatch({{ok, #{verdict := refused, reason := Reason}}, _},
                  decide(<<"y">>, accept_escrow, maps:merge(Offer, Altered), Pushed))
     || {Reason, Altered} <- [{bad_release, #{release => undefined}},
                              {wrong_key, #{release => #{rcp => <<"another">>}}},
                              {no_server, #{to => <<"nobody">>}},
                              {no_entity, #{home => <<"y">>}},
                              {unknown_home, #{home => <<"w">>}},
                              {epoch_too_high, #{transfer => 1 bsl 63}}]],
    ?assertMatch({{error, {no_peer, _}}, _}, decide(<<"y">>, accept_escrow, Offer#{instance => <<"w">>}, Pushed)),
    ?assertMatch({{error, {no_peer, _}}, _},
                 decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"w">>}, World)),
    %% After the end of a transfer its number is used up.
    #{transfer := Transfer} = Offer,
    {{ok, _}, Settled} = decide(<<"y">>, settle_escrow, #{instance => <<"x">>, low => Transfer}, Pushed),
    ?assertMatch({{error, {settled, _}}, _}, decide(<<"y">>, accept_escrow, Offer, Settled)).

what_an_instance_has_no_room_for_is_refused_for_good_test() ->
    World = founded(),
    {{ok, _}, #world{trees = #{<<"y">> := Tree} = Trees} = Pushed} =
        decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [#{master := Master} = Escrow] = escrows(<<"x">>, Pushed),
    Offer = Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}},
    Counts = #{entities => 3, masters => #{Master => 2}},
    Counted = Pushed#world{trees = Trees#{<<"y">> := Tree#{[bridge, counts] => Counts}}},
    [?assertMatch({{ok, #{verdict := refused, reason := quota}}, _}, decide(<<"y">>, accept_escrow, Offer#{limits => Limits}, Counted))
     || Limits <- [#{instance => 3, master => 9}, #{instance => 9, master => 2}]],
    {{ok, #{verdict := accepted}}, #world{trees = #{<<"y">> := After}}} =
        decide(<<"y">>, accept_escrow, Offer#{limits => #{instance => 4, master => 3}}, Counted),
    ?assertEqual(#{entities => 4, masters => #{Master => 3}}, maps:get([bridge, counts], After)).

who_is_trusted_no_more_begins_anew_test() ->
    World = founded(),
    Peer = #{instance => <<"y">>, urls => [], keys => [<<"other">>], ca => undefined, since => 9},
    {{ok, #{since := 0, keys := [<<"other">>]}}, Again} = decide(<<"x">>, pin_peer, Peer, World),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(Again))#{instance => <<"y">>}, Again),
    ?assertMatch({{error, {escrow_open, _}}, _}, decide(<<"x">>, unpin_peer, #{instance => <<"y">>, anyway => true}, Pushed)),
    {{ok, _}, Settled} = decide(<<"y">>, settle_escrow, #{instance => <<"x">>, low => 7}, Again),
    {{ok, _}, Gone} = decide(<<"y">>, unpin_peer, #{instance => <<"x">>, anyway => false}, Settled),
    ?assertEqual(undefined, read(<<"y">>, [bridge, incoming, <<"x">>], Gone)),
    ?assertMatch({{ok, #{since := 9}}, _}, decide(<<"y">>, pin_peer, Peer#{instance => <<"x">>}, Gone)).

%% It would ask again once it is pinned again, be refused, and take back what is here.
who_has_not_heard_of_what_came_is_not_forgotten_test() ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [Escrow] = escrows(<<"x">>, Pushed),
    Offer = Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}},
    {{ok, #{verdict := accepted, transfer := Transfer}}, Accepted} = decide(<<"y">>, accept_escrow, Offer, Pushed),
    Unpin = #{instance => <<"x">>, anyway => false},
    ?assertMatch({{error, {escrow_open, _}}, _}, decide(<<"y">>, unpin_peer, Unpin, Accepted)),
    ?assertMatch({{ok, _}, _}, decide(<<"y">>, unpin_peer, Unpin#{anyway => true}, Accepted)),
    {{ok, _}, Settled} = decide(<<"y">>, settle_escrow, #{instance => <<"x">>, low => Transfer}, Accepted),
    ?assertMatch({{ok, _}, _}, decide(<<"y">>, unpin_peer, Unpin, Settled)).

%% Each offer may lift ours by 256 incarnations, and there are 65,536.
offers_do_not_use_up_the_epochs_test() ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [Escrow] = escrows(<<"x">>, Pushed),
    Offer = Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}},
    High = fun(Incarnation) ->
        #world{trees = #{<<"y">> := Tree} = Trees} = Pushed,
        Pushed#world{trees = Trees#{<<"y">> => Tree#{[bridge, grants] => #{incarnation => Incarnation, counter => 0}}}}
    end,
    ?assertMatch({{ok, #{verdict := accepted}}, _},
                 decide(<<"y">>, accept_escrow, Offer#{transfer => (32767 bsl 48) + 5}, High(32700))),
    ?assertMatch({{ok, #{verdict := refused, reason := epoch_too_high}}, _},
                 decide(<<"y">>, accept_escrow, Offer#{transfer => 32768 bsl 48}, High(32767))),
    ?assertMatch({{ok, #{verdict := refused, reason := epoch_too_high}}, _},
                 decide(<<"y">>, accept_escrow, Offer#{transfer => (1 bsl 64) - 1}, High(65535))).

pushed(World) ->
    #{session := Session, epoch := Epoch} = read(<<"x">>, [bridge, entities, <<"gun">>], World),
    #{entity => <<"gun">>, session => Session, epoch => Epoch, owner => <<"bob">>, to => server(<<"y">>, 1),
      box => server(<<"y">>, 1)}.

%% A peer that only ever cancels, or offers what is refused, and settles nothing.
a_peer_that_settles_nothing_is_heard_no_more_and_others_are_test_() ->
    {timeout, 60, fun() ->
        World = founded(),
        Cancel = fun(Transfer, Low, W) ->
                     decide(<<"y">>, refuse_escrow, #{instance => <<"x">>, transfer => Transfer, low => Low}, W)
                 end,
        Full = flooded(fun(Transfer, W) -> Cancel(Transfer, 0, W) end, 1, 4352, World),
        ?assertMatch({{error, {too_many_answers, _}}, _}, Cancel(5000, 0, Full)),
        ?assertEqual(4352, kept(<<"y">>, <<"x">>, Full)),
        %% What was answered is answered again; what is of others is decided.
        ?assertMatch({{ok, #{verdict := refused}}, _}, Cancel(4352, 0, Full)),
        ?assertMatch({{ok, #{verdict := refused}}, _},
                     decide(<<"y">>, refuse_escrow, #{instance => <<"z">>, transfer => 5000, low => 0}, Full)),
        %% Whatever number it says that it closed: what is asked about is not.
        ?assertMatch({{error, {invalid_request, _}}, _}, Cancel(5000, 5000, Full)),
        %% As soon as it says what it has closed it goes on, and nothing of that is kept.
        {{ok, _}, Swept} = Cancel(5000, 100, Full),
        ?assertEqual(4253, kept(<<"y">>, <<"x">>, Swept)),
        {{ok, _}, Settled} = decide(<<"y">>, settle_escrow, #{instance => <<"x">>, low => 300}, Swept),
        ?assertEqual(4053, kept(<<"y">>, <<"x">>, Settled))
    end}.

%% So a transfer that keeps its peer from closing can always be given up.
where_no_more_is_offered_what_is_open_can_still_be_cancelled_test_() ->
    {timeout, 60, fun() ->
        World = founded(),
        {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>, to => <<"nobody">>}, World),
        [Escrow] = escrows(<<"x">>, Pushed),
        Offer = Escrow#{instance => <<"x">>, release => #{rcp => <<"nobody">>}, low => 0},
        Offered = fun(Transfer, W) -> decide(<<"y">>, accept_escrow, Offer#{transfer => Transfer}, W) end,
        Full = flooded(Offered, 1, 4096, Pushed),
        ?assertMatch({{error, {too_many_answers, _}}, _}, Offered(9000, Full)),
        Cancelled = flooded(fun(Transfer, W) ->
                                decide(<<"y">>, refuse_escrow, #{instance => <<"x">>, transfer => Transfer, low => 0}, W)
                            end, 9000, 9255, Full),
        ?assertEqual(4352, kept(<<"y">>, <<"x">>, Cancelled))
    end}.

a_peer_brings_so_many_entities_and_no_more_until_some_have_gone_test() ->
    #world{trees = Trees} = World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>}, World),
    [#{transfer := Transfer} = Escrow] = escrows(<<"x">>, Pushed),
    Offer = Escrow#{instance => <<"x">>, release => #{rcp => thumbprint(server(<<"y">>, 1))}},
    Brought = fun(Count) ->
                  #{<<"y">> := Tree} = Trees,
                  Known = #{instance => <<"x">>, low => 0, answers => 0, entities => Count},
                  Pushed#world{trees = (Pushed#world.trees)#{<<"y">> := Tree#{[bridge, incoming, <<"x">>] => Known}}}
              end,
    ?assertMatch({{ok, #{verdict := refused, reason := too_many_entities}}, _},
                 decide(<<"y">>, accept_escrow, Offer, Brought(10000))),
    {{ok, #{verdict := accepted, epoch := Epoch}}, There} = decide(<<"y">>, accept_escrow, Offer, Brought(9999)),
    ?assertMatch(#{entities := 10000}, read(<<"y">>, [bridge, incoming, <<"x">>], There)),
    %% And when it goes home there is room again.
    #{session := Session} = read(<<"y">>, [bridge, entities, <<"gun">>], There),
    {{ok, _}, Back} = decide(<<"y">>, push_abroad, #{entity => <<"gun">>, session => Session, epoch => Epoch, owner => <<"bob">>,
                                                     instance => <<"x">>, to => server(<<"x">>, 1), box => <<>>}, There),
    [#{transfer := Return}] = escrows(<<"y">>, Back),
    ?assert(Return > Transfer),
    Gone = obeyed(<<"y">>, close_escrow, #{instance => <<"x">>, transfer => Return, verdict => accepted, epoch => Return + 1,
                                           reason => <<"none">>}, Back),
    ?assertMatch(#{entities := 9999}, read(<<"y">>, [bridge, incoming, <<"x">>], Gone)).

flooded(Ask, First, Last, World) ->
    lists:foldl(fun(Transfer, Acc) -> {{ok, _}, Next} = Ask(Transfer, Acc), Next end, World, lists:seq(First, Last)).

kept(Instance, From, #world{trees = Trees} = World) ->
    Kept = length([Path || [bridge, incoming, Of, _] = Path <- maps:keys(maps:get(Instance, Trees)), Of =:= From]),
    #{answers := Kept} = read(Instance, [bridge, incoming, From], World),
    Kept.

%% X is restored from a backup of when the entity was in its escrow; Y has accepted it, and X's word that this was
%% heard, since.
restored(Home) ->
    World = founded(),
    {{ok, _}, Pushed} = decide(<<"x">>, push_abroad, (pushed(World))#{instance => <<"y">>, trace => <<5:128>>, hop => 0}, World),
    [#{transfer := Transfer} = Escrow0] = escrows(<<"x">>, Pushed),
    %% As of an entity of another home.
    Escrow = Escrow0#{home => Home},
    #{<<"x">> := Tree} = Pushed#world.trees,
    Held = maps:get([bridge, entities, <<"gun">>], Tree),
    Backup = Tree#{[bridge, escrow, integer_to_binary(Transfer)] => Escrow,
                   [bridge, entities, <<"gun">>] => Held#{home => Home}},
    {{ok, _}, Settled} = decide(<<"y">>, settle_escrow, #{instance => <<"x">>, low => Transfer}, Pushed),
    {Transfer, Settled#world{trees = (Settled#world.trees)#{<<"x">> => Backup}}}.

resolve(Transfer, Choice, World) -> resolve(Transfer, Choice, <<"y">>, 0, World).

resolve(Transfer, Choice, Where, Epoch, World) ->
    decide(<<"x">>, resolve_escrow, #{transfer => Transfer, choice => Choice, where => Where, epoch => Epoch,
                                      reason => <<"restored">>, said => <<"{}">>, at => 7}, World).

what_no_tree_knows_the_operator_decides_and_it_is_kept_test() ->
    {Transfer, World} = restored(<<"x">>),
    ?assertMatch({{error, {settled, _}}, _},
                 decide(<<"y">>, refuse_escrow, #{instance => <<"x">>, transfer => Transfer, low => 0}, World)),
    %% While it is offered somebody may take it.
    ?assertMatch({{error, {wrong_state, _}}, _}, resolve(Transfer, back, World)),
    ?assertMatch({{error, {wrong_state, _}}, _}, resolve(Transfer, forget, World)),
    ?assertMatch({{error, {no_escrow, _}}, _}, resolve(Transfer + 1, back, World)),
    {{ok, _}, Cancelling} = decide(<<"x">>, cancel_escrow, #{transfer => Transfer}, World),
    {{ok, #{choice := back}}, Back} = resolve(Transfer, back, Cancelling),
    #{epoch := Epoch} = Record = read(<<"x">>, [bridge, entities, <<"gun">>], Back),
    ?assert(Epoch > Transfer),
    ?assertNot(is_map_key(away, Record)),
    ?assertEqual([], escrows(<<"x">>, Back)),
    ?assertMatch(#{open := Open, low := Transfer} when Open =:= #{}, read(<<"x">>, [bridge, outgoing, <<"y">>], Back)),
    ?assertMatch(#{reason := <<"restored">>, entity := <<"gun">>, instance := <<"y">>, said := <<"{}">>, at := 7},
                 read(<<"x">>, [bridge, resolved, integer_to_binary(Transfer), back], Back)),
    %% Done, it is not done again; and what its receiver may answer yet changes nothing.
    ?assertMatch({{error, {no_escrow, _}}, _}, resolve(Transfer, gone, Back)),
    ?assertMatch({{ok, _}, Back2} when Back2#world.trees =:= Back#world.trees,
                 decide(<<"x">>, close_escrow, #{transfer => Transfer, instance => <<"y">>, verdict => accepted, epoch => Epoch,
                                                 reason => <<"none">>}, Back)).

what_is_said_to_be_gone_is_where_it_is_said_to_be_test() ->
    {Transfer, World} = restored(<<"x">>),
    {{ok, _}, Gone} = resolve(Transfer, gone, <<"y">>, Transfer + 3, World),
    ?assertMatch(#{session := undefined, epoch := Epoch, away := #{instance := <<"y">>, state := gone, server := <<"server-y1">>}}
                   when Epoch =:= Transfer + 3, read(<<"x">>, [bridge, entities, <<"gun">>], Gone)),
    %% Below the transfer nothing counts again; and with its receiver it need not be any more.
    {{ok, _}, Passed} = resolve(Transfer, gone, <<"z">>, 0, World),
    #{away := Away, epoch := Transfer} = read(<<"x">>, [bridge, entities, <<"gun">>], Passed),
    ?assertMatch(#{instance := <<"z">>}, Away),
    ?assertNot(is_map_key(server, Away)),
    ?assertMatch({{error, {no_peer, _}}, _}, resolve(Transfer, gone, <<"nobody">>, 0, World)).

a_notice_that_its_home_does_not_take_is_forgotten_test() ->
    {Transfer, World} = restored(<<"z">>),
    {{ok, _}, Gone} = resolve(Transfer, gone, World),
    ?assertMatch([#{state := notice, instance := <<"y">>, home := <<"z">>}], escrows(<<"x">>, Gone)),
    ?assertMatch({{error, {wrong_state, _}}, _}, resolve(Transfer, back, Gone)),
    ?assertMatch({{error, {wrong_state, _}}, _}, resolve(Transfer, gone, Gone)),
    {{ok, _}, Forgotten} = resolve(Transfer, forget, Gone),
    ?assertEqual([], escrows(<<"x">>, Forgotten)),
    ?assertEqual(undefined, read(<<"x">>, [bridge, entities, <<"gun">>], Forgotten)),
    [?assertMatch(#{choice := Choice}, read(<<"x">>, [bridge, resolved, integer_to_binary(Transfer), Choice], Forgotten))
     || Choice <- [gone, forget]],
    %% At home it is where it goes: nothing is kept.
    {Again, Home} = restored(<<"z">>),
    {{ok, _}, There} = resolve(Again, gone, <<"z">>, 0, Home),
    ?assertEqual({[], undefined}, {escrows(<<"x">>, There), read(<<"x">>, [bridge, entities, <<"gun">>], There)}).

the_newest_resolutions_are_kept_test() ->
    {Transfer, World} = restored(<<"x">>),
    {{ok, _}, Cancelling} = decide(<<"x">>, cancel_escrow, #{transfer => Transfer}, World),
    Resolutions = fun(#world{trees = #{<<"x">> := Tree}}) ->
                          lists:sort([Number || [bridge, resolved, Number, _] <- maps:keys(Tree)])
                  end,
    %% As many as may be, one of which is of this transfer: before the instance was restored again.
    Earlier = [{Transfer, back} | [{Number, gone} || Number <- lists:seq(1, 255)]],
    #{<<"x">> := Tree} = Cancelling#world.trees,
    Full = maps:merge(Tree#{[bridge, resolved] => #{newest => Earlier}},
                      maps:from_list([{[bridge, resolved, integer_to_binary(Number), Choice], #{}} || {Number, Choice} <- Earlier])),
    {{ok, _}, Again} = resolve(Transfer, back, Cancelling#world{trees = #{<<"x">> => Full}}),
    ?assertEqual(256, length(Resolutions(Again))),
    Others = [{256, gone} | tl(Earlier)],
    Fuller = (maps:remove([bridge, resolved, integer_to_binary(Transfer), back], Full))#{
               [bridge, resolved] := #{newest => Others}, [bridge, resolved, <<"256">>, gone] => #{}},
    {{ok, _}, One} = resolve(Transfer, back, Cancelling#world{trees = #{<<"x">> => Fuller}}),
    ?assertEqual(256, length(Resolutions(One))),
    ?assertEqual(undefined, read(<<"x">>, [bridge, resolved, <<"255">>, gone], One)),
    ?assertMatch(#{newest := [{Transfer, back}, {256, gone} | _]}, read(<<"x">>, [bridge, resolved], One)).
