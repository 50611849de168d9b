%% Sessions with leases on three virtual machines: renewals through any member, a leader killed, a lessor deposed, a
%% lessor that is stopped, expiry and succession. The servers are processes of a hidden node, as simulation servers are.
-module(kb_lease_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([sessions_live_as_long_as_they_are_renewed_through_any_member/1, a_session_that_is_renewed_no_more_expires/1,
         a_killed_leader_costs_no_session/1, a_deposed_lessor_acknowledges_nothing/1, a_lessor_that_was_stopped_ends_nobody/1,
         entities_of_a_dead_server_go_to_one_that_has_them_streamed_in/1,
         what_a_large_session_held_is_passed_on_by_whoever_is_the_lessor/1,
         who_gave_an_entity_away_has_it_again_once_it_has_released_it/1,
         a_name_is_free_again_when_its_session_was_ended_or_expired/1, a_simulation_that_stands_still_loses_its_session/1,
         a_recall_that_is_not_obeyed_ends_the_session/1, what_is_no_message_of_a_server_harms_nobody/1,
         epochs_can_be_raised_above_all_that_anybody_remembers/1, a_session_whose_key_was_revoked_ends_with_its_lease/1]).
%% Run on the hidden node.
-export([server/2, change/2]).
%% On a member.
-export([made/2]).

-define(STORE, homeserver).
-define(LEASE, 1000).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [sessions_live_as_long_as_they_are_renewed_through_any_member, a_session_that_is_renewed_no_more_expires,
     entities_of_a_dead_server_go_to_one_that_has_them_streamed_in,
     what_a_large_session_held_is_passed_on_by_whoever_is_the_lessor,
     who_gave_an_entity_away_has_it_again_once_it_has_released_it,
     a_name_is_free_again_when_its_session_was_ended_or_expired, a_simulation_that_stands_still_loses_its_session,
     a_recall_that_is_not_obeyed_ends_the_session, what_is_no_message_of_a_server_harms_nobody,
     epochs_can_be_raised_above_all_that_anybody_remembers, a_session_whose_key_was_revoked_ends_with_its_lease,
     a_deposed_lessor_acknowledges_nothing, a_lessor_that_was_stopped_ends_nobody,
     a_killed_leader_costs_no_session].

init_per_suite(Config) ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Number} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port = integer_to_list(Number),
    Mapper = open_port({spawn_executable, os:find_executable("epmd")},
                       [{args, ["-port", Port, "-address", "127.0.0.1"]}, exit_status]),
    Keeper = spawn(fun() -> receive stop -> ok end end),
    true = erlang:port_connect(Mapper, Keeper),
    unlink(Mapper),
    {os_pid, Pid} = erlang:port_info(Mapper, os_pid),
    Suite = [{epmd_port, Port}, {epmd_pid, Pid} | Config],
    Members = [start(Name, "ls1@127.0.0.1", Suite) || Name <- ["ls1", "ls2", "ls3"]],
    ok = until(fun() -> {ok, #{members := Known}} = call(hd(Members), health, [?STORE]), length(Known) =:= 3 end),
    %% The servers' node: in the cluster's namespace, and hidden.
    {ok, Servers, _} = peer:start((options("servers", Suite))#{args => ["-hidden", "-start_epmd", "false", "-pa" | code:get_path()]}),
    true = unlink(Servers),
    [true = peer:call(Servers, net_kernel, connect_node, [node_of(Member)]) || Member <- Members],
    [{members, Members}, {servers, Servers}, {key, key()} | Suite].

end_per_suite(Config) ->
    [catch peer:stop(Peer) || Peer <- [proplists:get_value(servers, Config) | proplists:get_value(members, Config)]],
    [] = os:cmd("kill " ++ integer_to_list(proplists:get_value(epmd_pid, Config))),
    ok.

init_per_testcase(_, Config) ->
    ok = until(fun() -> lessor(Config) =/= none end),
    Config.

end_per_testcase(_, Config) ->
    [catch stop(Server) || Server <- erase_servers()],
    ok = until(fun() -> maps:get(sessions, leases(Config)) =:= 0 end).

%% Cases.

sessions_live_as_long_as_they_are_renewed_through_any_member(Config) ->
    Servers = [serve(Name, Member, Config) || {Name, Member} <- lists:zip([<<"a">>, <<"b">>, <<"c">>], members(Config))],
    timer:sleep(3 * ?LEASE),
    [?assertEqual([], lost(Server)) || Server <- Servers],
    [?assert(newest(Server) > 2) || Server <- Servers],
    #{sessions := 3, silent := 0, beats := Beats, renewals := Renewals} = leases(Config),
    ?assert(Beats > 10 andalso Renewals > 30),
    Generations = lists:usort([Generation || Server <- Servers, Generation <- generations(Server)]),
    ?assertEqual([maps:get(generation, leases(Config))], Generations),
    {ok, #{data := #{generation := Generation, lease_ms := ?LEASE}}} =
        peer:call(hd(members(Config)), kb_khepri, get, [?STORE, <<"/:bridge/:lessor">>, #{favor => consistency}]),
    ?assertEqual([Generation], Generations).

a_session_that_is_renewed_no_more_expires(Config) ->
    #{session := Session} = Server = serve(<<"a">>, hd(members(Config)), Config),
    {ok, _} = create(<<"alone">>, Server),
    Last = pause(Server),
    ok = until(fun() -> lost(Server) =:= [Session] end),
    %% Not before all of its lease was over, by the server's own clock.
    [Lost] = [At || {At, {lost, _}} <- heard(Server)],
    ?assert(Lost - Last >= ?LEASE),
    ?assertMatch({ok, #{session := undefined, server := undefined}}, entity(<<"alone">>, Config)),
    ?assertMatch(#{expired := 1, sessions := 0}, leases(Config)).

entities_of_a_dead_server_go_to_one_that_has_them_streamed_in(Config) ->
    [One, Two, Three] = members(Config),
    Names = [<<"f", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 20)],
    A = serve(<<"a">>, One, Config),
    B = serve(<<"b">>, Two, Config),
    C = serve(<<"c">>, Three, Config),
    [{ok, _} = create(Name, A) || Name <- Names],
    {Seen, [Unseen | _]} = lists:split(16, Names),
    %% B is busy already, C streams half of it, and nobody the rest.
    streams(B, 100, Seen),
    streams(C, 0, lists:sublist(Seen, 8)),
    pause(A),
    {ok, #{passed := Passed, released := Released}} =
        api(Two, end_session, #{session => maps:get(session, A), reason => dead}),
    ?assertEqual(lists:sort([{Name, <<"c">>} || Name <- lists:sublist(Seen, 8)] ++ [{Name, <<"b">>} || Name <- lists:nthtail(8, Seen)]),
                 lists:sort(Passed)),
    ?assertEqual(lists:nthtail(16, lists:sort(fun before/2, Names)), lists:sort(fun before/2, Released)),
    ?assertMatch({ok, #{session := undefined}}, entity(Unseen, Config)),
    #{session := SessionC} = C,
    {ok, #{session := SessionC, epoch := Epoch}} = entity(<<"f1">>, Config),
    ?assertMatch({ok, #{data := #{type := failover, epoch := Epoch, from := <<"a">>, awaiting := undefined}}},
                 peer:call(Three, kb_khepri, get, [?STORE, [bridge, inbox, SessionC, <<"f1">>], #{favor => consistency}])),
    %% By itself, when its lease is over.
    pause(C),
    ok = until(fun() -> {ok, #{server := Server}} = entity(<<"f1">>, Config), Server =:= <<"b">> end).

%% More than one transaction is to pass on: the session is ended by a member that finds no lessor, and the lessor moves.
what_a_large_session_held_is_passed_on_by_whoever_is_the_lessor(Config) ->
    [One, Two, Three] = members(Config),
    Names = [<<"large", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 600)],
    #{session := Session} = A = serve(<<"a">>, One, Config),
    #{session := Heir} = B = serve(<<"b">>, Two, Config),
    ok = peer:call(Three, ?MODULE, made, [Names, Session], 30000),
    streams(B, 0, Names),
    pause(A),
    Ending = {authority, end_session, kb_ending:bounded(#{session => Session, reason => dead})},
    {ok, #{left := 600}} = peer:call(Three, kb_commit, commit, [?STORE, {<<"ending">>, 1, 1, 0}, Ending, 2000]),
    transfer_leadership(Config),
    ok = until(fun() -> is_gone([bridge, ending, Session], Config) end),
    [?assert(is_gone([bridge, Kind, Session], Config)) || Kind <- [sessions, inbox, held]],
    Holders = [Holder || Name <- Names, {ok, #{session := Holder}} <- [entity(Name, Config)]],
    ?assertEqual([Heir], lists:usort(Holders)),
    ?assertEqual([], lost(B)),
    #{request := Request} = A,
    {ok, #{held := []}} = api(Three, open_session, Request#{session := Again = crypto:strong_rand_bytes(16)}),
    {ok, _} = api(Three, close_session, #{session => Again}),
    %% As a large session too, by itself when its lease is over.
    Last = pause(B),
    ok = until(fun() -> lost(B) =:= [Heir] end),
    ?assert(erlang:monotonic_time(millisecond) - Last >= ?LEASE),
    ok = until(fun() -> is_gone([bridge, ending, Heir], Config) end),
    ?assertMatch([{ok, #{session := undefined}}], lists:usort([{ok, maps:with([session], Record)}
                                                               || Name <- Names, {ok, Record} <- [entity(Name, Config)]])).

made(Names, Session) ->
    lists:foreach(fun(Name) ->
                          {ok, _} = kb_commit:own(?STORE, create_entity, #{entity => Name, owner => <<"p">>, master => <<"p">>,
                                                                           rule => allow, session => Session}, 2000)
                  end, Names).

%% A consistent query that reaches a leader which steps down may be answered by nobody.
is_gone(Path, Config) ->
    peer:call(hd(members(Config)), khepri, exists, [?STORE, Path, #{favor => consistency, timeout => 2000}]) =:= false.

who_gave_an_entity_away_has_it_again_once_it_has_released_it(Config) ->
    [One, Two, Three] = members(Config),
    #{session := Giver} = A = serve(<<"a">>, One, Config),
    #{session := Taker} = B = serve(<<"b">>, Two, Config),
    Given = [{Name, Epoch} || Name <- [<<"g1">>, <<"g2">>], {ok, #{epoch := Epoch}} <- [create(Name, A)]],
    [{ok, #{awaiting := #{session := Giver, epoch := Epoch}}} =
         api(Two, pull, #{entity => Name, epoch => Epoch, owner => <<"p">>, session => Taker}) || {Name, Epoch} <- Given],
    [{_, First} = Released, {Other, _}] = Given,
    %% The other one is A's to release still: what it says is older.
    changed(A, #{released => [Released, {Other, First}]}),
    streams(A, 0, [<<"g1">>, Other]),
    pause(B),
    {ok, #{passed := [{<<"g1">>, <<"a">>}], released := [Other]}} =
        api(Three, end_session, #{session => Taker, reason => dead}),
    ?assertMatch({ok, #{session := Giver, awaiting := undefined}}, entity(<<"g1">>, Config)),
    ?assertMatch({ok, #{session := undefined, awaiting := #{session := Giver}}}, entity(Other, Config)).

before(<<"f", A/binary>>, <<"f", B/binary>>) -> binary_to_integer(A) =< binary_to_integer(B).

a_name_is_free_again_when_its_session_was_ended_or_expired(Config) ->
    [One, Two | _] = members(Config),
    #{session := First, request := Request} = A = serve(<<"a">>, One, Config),
    Second = Request#{session := crypto:strong_rand_bytes(16)},
    {error, {name_in_use, #{session := First}}} = api(Two, open_session, Second),
    pause(A),
    {ok, #{released := [], passed := []}} = api(Two, end_session, #{session => First, reason => drained}),
    {ok, #{held := [], lease_ms := ?LEASE, generation := Generation}} = api(Two, open_session, Second),
    ?assertEqual(Generation, maps:get(generation, leases(Config))),
    %% Its server never renews.
    Third = Request#{session := crypto:strong_rand_bytes(16)},
    {error, {name_in_use, _}} = api(One, open_session, Third),
    ok = until(fun() -> element(1, api(One, open_session, Third)) =:= ok end),
    {ok, _} = api(One, close_session, #{session => maps:get(session, Third)}).

a_simulation_that_stands_still_loses_its_session(Config) ->
    #{session := Session} = A = serve(<<"a">>, hd(members(Config)), Config),
    B = serve(<<"b">>, hd(members(Config)), Config),
    hang(A),
    ok = until(fun() -> lost(A) =:= [Session] end),
    ?assertEqual([], lost(B)).

a_recall_that_is_not_obeyed_ends_the_session(Config) ->
    [One, Two | _] = members(Config),
    #{session := Session} = A = serve(<<"a">>, One, Config),
    #{session := Taker} = serve(<<"b">>, Two, Config),
    {ok, #{epoch := Epoch}} = create(<<"r1">>, A),
    {ok, #{epoch := Other}} = create(<<"r2">>, A),
    Pull = #{owner => <<"p">>, session => Taker},
    {ok, #{epoch := _}} = api(Two, pull, Pull#{entity => <<"r1">>, epoch => Epoch}),
    ok = until(fun() -> named(A) =:= [{<<"r1">>, Epoch}] end),
    obey(A, [{<<"r1">>, Epoch}]),
    ok = until(fun() -> named(A) =:= [] end),
    {ok, #{awaiting := #{session := Session}}} = api(Two, pull, Pull#{entity => <<"r2">>, epoch => Other}),
    ok = until(fun() -> lost(A) =:= [Session] end),
    %% Whoever waited for it waits no more.
    {ok, #{session := Taker, awaiting := undefined}} = entity(<<"r2">>, Config).

what_is_no_message_of_a_server_harms_nobody(Config) ->
    A = serve(<<"a">>, hd(members(Config)), Config),
    #{generation := Generation} = leases(Config),
    Bad = [{renew, self(), <<0:128>>, 0, 0, 0, []}, {renew, self(), <<0:128>>, 1 bsl 64, 0, 0, []}, {renew, x, <<>>, 1, 0, 0, []},
           {renew, self(), <<0:128>>, 1, 0, 0, [a | b]}, {renew, self(), <<0:128>>, 1, 0, 0, [{1, 2}]},
           {renew, self(), <<0:128>>, 1, 0, 0, lists:duplicate(2000, {<<"e">>, 1})}, {streams, make_ref(), <<1>>, 0, [x]},
           {streams, x, y, z, []}, {streams, make_ref(), <<1>>, -1, []}, {streams, make_ref(), <<1>>, 0, [<<"e">> | <<"e">>]},
           {streams, make_ref(), <<1>>, 0, [], [{<<"e">>, -1}]}, {streams, make_ref(), <<1>>, 0, [], [{<<"e">>, 1 bsl 64}]},
           {streams, make_ref(), <<1>>, 0, [], [{e, 1}]}, {streams, make_ref(), <<1>>, 0, [], x}, nonsense],
    [peer:call(proplists:get_value(servers, Config), erlang, send, [{kb_lessor, node_of(Member)}, Message])
     || Member <- members(Config), Message <- Bad],
    timer:sleep(2 * ?LEASE),
    ?assertEqual([], lost(A)),
    ?assertMatch(#{generation := Generation, sessions := 1}, leases(Config)).

epochs_can_be_raised_above_all_that_anybody_remembers(Config) ->
    [One | _] = members(Config),
    A = serve(<<"a">>, One, Config),
    {ok, #{epoch := Before}} = create(<<"i1">>, A),
    {ok, #{incarnation := Next}} = api(One, raise_epochs, #{above => Before}),
    ?assertEqual((Before bsr 48) + 1, Next),
    {ok, #{epoch := Epoch}} = create(<<"i2">>, A),
    ?assertEqual(Next, Epoch bsr 48),
    {ok, #{incarnation := 78}} = api(One, raise_epochs, #{above => 77 bsl 48}).

a_session_whose_key_was_revoked_ends_with_its_lease(Config) ->
    [One, Two | _] = members(Config),
    {_, Thumbprint} = Key = key(),
    #{session := Session} = A = serve(<<"revoked">>, One, [{key, Key} | Config]),
    B = serve(<<"b">>, Two, Config),
    {ok, _} = api(Two, revoke_credential, #{id => Thumbprint, reason => <<"stolen">>}),
    ok = until(fun() -> lost(A) =:= [Session] end),
    ?assertEqual([], lost(B)).

%% The leader moves, and the process that was the lessor does not know for as long as it is not told: its beats abort.
a_deposed_lessor_acknowledges_nothing(Config) ->
    Servers = [serve(Name, Member, Config) || {Name, Member} <- lists:zip([<<"a">>, <<"b">>, <<"c">>], members(Config))],
    Before = lessor(Config),
    #{generation := Generation} = leases(Config),
    %% Another member takes its place in the tree while it goes on.
    {ok, #{generation := Taken}} = peer:call(hd(members(Config)), kb_commit, own,
                                             [?STORE, take, #{node => <<"another">>, lease_ms => ?LEASE}, 2000]),
    ?assertEqual(Generation + 1, Taken),
    ok = until(fun() -> maps:get(generation, leases(Config)) > Taken end),
    ?assertEqual(Before, lessor(Config)),
    transfer_leadership(Config),
    ok = until(fun() -> not lists:member(lessor(Config), [none, Before]) end),
    timer:sleep(2 * ?LEASE),
    [?assertEqual([], lost(Server)) || Server <- Servers],
    %% In the order in which they came, generations only rise, and none is of the one that never was a lessor.
    [begin
         Told = generations(Server),
         ?assertEqual(lists:sort(Told), Told),
         ?assertNot(lists:member(Taken, Told)),
         ?assert(lists:last(Told) > Taken)
     end || Server <- Servers].

%% SIGSTOP of the lessor's whole virtual machine for longer than a lease. Renewals go through the others.
a_lessor_that_was_stopped_ends_nobody(Config) ->
    Stopped = lessor(Config),
    Servers = [serve(Name, Member, Config) || {Name, Member} <- lists:zip([<<"a">>, <<"b">>], members(Config) -- [Stopped])],
    Pid = peer:call(Stopped, os, getpid, []),
    [] = os:cmd("kill -STOP " ++ Pid),
    timer:sleep(3 * ?LEASE),
    [] = os:cmd("kill -CONT " ++ Pid),
    ok = until(fun() -> lessor(Config) =/= none end),
    timer:sleep(2 * ?LEASE),
    [?assertEqual([], lost(Server)) || Server <- Servers],
    #{sessions := 2} = leases(Config).

a_killed_leader_costs_no_session(Config) ->
    Killed = lessor(Config),
    Servers = [serve(Name, Member, Config) || {Name, Member} <- lists:zip([<<"a">>, <<"b">>], members(Config) -- [Killed])],
    #{generation := Before} = leases(Config),
    Monitor = erlang:monitor(process, Killed),
    [] = os:cmd("kill -9 " ++ peer:call(Killed, os, getpid, [])),
    receive {'DOWN', Monitor, process, Killed, _} -> ok after 5000 -> error(lives) end,
    ok = until(fun() -> lessor(Config) =/= none end),
    timer:sleep(3 * ?LEASE),
    [?assertEqual([], lost(Server)) || Server <- Servers],
    ?assertMatch(#{generation := After, sessions := 2} when After > Before, leases(Config)).

%% Servers: processes on the hidden node that renew their sessions as simulation servers do.

serve(Name, Member, Config) ->
    Session = crypto:strong_rand_bytes(16),
    {Key, Thumbprint} = proplists:get_value(key, Config),
    Request = #{server => Name, session => Session, key => Key, thumbprint => Thumbprint, address => {<<"127.0.0.1">>, 4000}},
    {ok, #{lease_ms := ?LEASE}} = api(Member, open_session, Request),
    Node = proplists:get_value(servers, Config),
    Pid = peer:call(Node, erlang, spawn, [?MODULE, server, [Session, node_of(Member)]]),
    Server = #{session => Session, member => Member, node => Node, pid => Pid, request => Request},
    persistent_term:put({?MODULE, servers}, [Server | persistent_term:get({?MODULE, servers}, [])]),
    Server.

erase_servers() ->
    Servers = persistent_term:get({?MODULE, servers}, []),
    persistent_term:put({?MODULE, servers}, []),
    Servers.

key() ->
    {<<4, X:32/binary, Y:32/binary>>, _} = crypto:generate_key(ecdh, secp256r1),
    Key = iolist_to_binary(["{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"", url(X), "\",\"y\":\"", url(Y), "\"}"]),
    {Key, url(crypto:hash(sha256, Key))}.

url(Bytes) ->
    lists:foldl(fun({From, To}, Acc) -> binary:replace(Acc, From, To, [global]) end, base64:encode(Bytes),
                [{<<"+">>, <<"-">>}, {<<"/">>, <<"_">>}, {<<"=">>, <<>>}]).


server(Session, Member) ->
    self() ! renew,
    server(#{session => Session, member => Member, number => 0, step => 0, runs => true, renews => true, obeyed => [], load => 0,
             streams => [], released => [], heard => [], sent => 0}).

server(#{session := Session, member := Member, number := Number, step := Step, heard := Heard} = State) ->
    receive
        renew ->
            erlang:send_after(?LEASE div 6, self(), renew),
            case State of
                #{renews := true, runs := Runs, obeyed := Obeyed, load := Load} ->
                    Next = case Runs of true -> Step + 1; false -> Step end,
                    Now = erlang:monotonic_time(millisecond),
                    {kb_lessor, Member} ! {renew, self(), Session, Number + 1, Next, Load, Obeyed},
                    server(State#{number := Number + 1, step := Next, obeyed := [], sent := Now});
                _ -> server(State)
            end;
        {change, From, Changes} ->
            From ! {changed, State},
            server(maps:merge(State, Changes));
        {streaming, Ref, Session, Entities} ->
            #{streams := Streams, load := Load, released := Released} = State,
            {kb_lessor, Member} ! {streams, Ref, Session, Load, [Entity || Entity <- Entities, lists:member(Entity, Streams)],
                                   [Known || {Entity, _} = Known <- Released, lists:member(Entity, Entities)]},
            server(State);
        stop -> ok;
        Message -> server(State#{heard := [{erlang:monotonic_time(millisecond), Message} | Heard]})
    end.

changed(#{node := Node, pid := Pid}, Changes) -> peer:call(Node, ?MODULE, change, [Pid, Changes]).


change(Pid, Changes) ->
    Pid ! {change, self(), Changes},
    receive {changed, State} -> State after 5000 -> error(no_server) end.

heard(Server) -> lists:reverse(maps:get(heard, changed(Server, #{}))).

lost(Server) -> [Session || {_, {lost, Session}} <- heard(Server)].

generations(Server) -> [Generation || {_, {renewed, _, _, Generation, _}} <- heard(Server)].

newest(Server) -> lists:max([0 | [Number || {_, {renewed, _, Number, _, _}} <- heard(Server)]]).

named(Server) ->
    case [Recalls || {_, {renewed, _, _, _, Recalls}} <- heard(Server)] of
        [] -> none;
        All -> lists:last(All)
    end.

%% When it sent the last one, by its own clock.
pause(Server) -> maps:get(sent, changed(Server, #{renews => false})).

hang(Server) -> changed(Server, #{runs => false}).

obey(Server, Recalls) -> changed(Server, #{obeyed => Recalls}).

streams(Server, Load, Entities) ->
    changed(Server, #{streams => Entities, load => Load}),
    %% Until a renewal has told of the load.
    Number = newest(Server),
    ok = until(fun() -> newest(Server) > Number + 1 end).

stop(#{session := Session, member := Member, pid := Pid, node := Node}) ->
    peer:call(Node, erlang, send, [Pid, stop]),
    api(Member, close_session, #{session => Session}).

%% Members.

members(Config) -> [Member || Member <- proplists:get_value(members, Config), is_process_alive(Member)].

node_of(Member) -> peer:call(Member, erlang, node, []).

call(Member, Function, Arguments) -> peer:call(Member, kb_api, Function, Arguments, 10000).

api(Member, Function, Request) ->
    call(Member, Function, [?STORE, Request, {<<"suite">>, 1, erlang:unique_integer([positive, monotonic]), 0}]).

create(Entity, #{session := Session, member := Member}) ->
    api(Member, create_entity, #{entity => Entity, owner => <<"p">>, master => <<"p">>, rule => allow, session => Session}).

entity(Entity, Config) ->
    case peer:call(hd(members(Config)), kb_khepri, get, [?STORE, [bridge, entities, Entity], #{favor => consistency}]) of
        {ok, #{data := Record}} -> {ok, Record};
        Error -> Error
    end.

lessor(Config) ->
    case [Member || Member <- members(Config), {ok, #{role := leads}} <- [catch call(Member, leases, [?STORE])]] of
        [Member] -> Member;
        _ -> none
    end.

leases(Config) ->
    case lessor(Config) of
        none ->
            timer:sleep(20),
            leases(Config);
        Lessor ->
            {ok, Statistics} = call(Lessor, leases, [?STORE]),
            Statistics
    end.

transfer_leadership(Config) ->
    Leader = lessor(Config),
    [Next | _] = members(Config) -- [Leader],
    peer:call(Leader, ra, transfer_leadership, [{?STORE, node_of(Leader)}, {?STORE, node_of(Next)}]).

start(Name, Seed, Config) ->
    {ok, Peer, _} = peer:start((options(Name, Config))#{env => environment(Name, Config) ++ [{"KB_SEED", Seed}, {"KB_LEASE_MS", integer_to_list(?LEASE)}]}),
    true = unlink(Peer),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [khepri_bridge], 60000),
    Peer.

options(Name, Config) ->
    Home = filename:join(proplists:get_value(priv_dir, Config), Name),
    ok = filelib:ensure_dir(filename:join(Home, "x")),
    Cookie = filename:join(Home, ".erlang.cookie"),
    _ = file:write_file(Cookie, "suite"),
    ok = file:change_mode(Cookie, 8#600),
    #{name => list_to_atom(Name), host => "127.0.0.1", longnames => true, connection => standard_io,
      args => ["-start_epmd", "false", "-kernel", "prevent_overlapping_partitions", "false",
               "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "logger_level", "error", "-pa" | code:get_path()],
      env => environment(Name, Config)}.

environment(Name, Config) ->
    Home = filename:join(proplists:get_value(priv_dir, Config), Name),
    [{"HOME", Home}, {"KB_DATA_DIR", Home}, {"ERL_EPMD_PORT", proplists:get_value(epmd_port, Config)},
     {"ERL_EPMD_ADDRESS", "127.0.0.1"}].

until(Condition) -> until(Condition, 400).

until(_, 0) -> error(timeout);
until(Condition, Left) ->
    case Condition() of
        true -> ok;
        false ->
            timer:sleep(50),
            until(Condition, Left - 1)
    end.
