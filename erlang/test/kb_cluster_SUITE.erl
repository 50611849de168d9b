%% Three virtual machines, with a port mapper of their own.
-module(kb_cluster_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([what_was_answered_survives_a_kill_from_the_first_moment_on/1, nodes_form_one_cluster_refuse_strangers_and_keep_their_data/1,
         a_node_with_data_joins_only_when_told_and_only_its_own_kind/1, a_node_that_left_can_join_again/1,
         two_nodes_that_start_at_once_are_one_cluster/1, a_seed_that_lost_its_disk_founds_nothing/1,
         a_pipeline_goes_on_with_the_next_leader/1, a_subscriber_that_stands_still_is_tried_at_one_pace/1,
         a_node_whose_store_has_stopped_ends/1, a_full_disk_is_one_line/1]).
%% Run on a member.
-export([write_on/2, taken_by_the_feed/1, numbers_told/1]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 5000}).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [what_was_answered_survives_a_kill_from_the_first_moment_on, nodes_form_one_cluster_refuse_strangers_and_keep_their_data,
     a_node_with_data_joins_only_when_told_and_only_its_own_kind, a_node_that_left_can_join_again,
     two_nodes_that_start_at_once_are_one_cluster, a_seed_that_lost_its_disk_founds_nothing,
     a_pipeline_goes_on_with_the_next_leader, a_subscriber_that_stands_still_is_tried_at_one_pace,
     a_node_whose_store_has_stopped_ends, a_full_disk_is_one_line].

init_per_suite(Config) ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Number} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port = integer_to_list(Number),
    Mapper = open_port({spawn_executable, os:find_executable("epmd")},
                       [{args, ["-port", Port, "-address", "127.0.0.1"]}, exit_status]),
    true = unlink_port(Mapper),
    {os_pid, Pid} = erlang:port_info(Mapper, os_pid),
    [{epmd_port, Port}, {epmd_pid, Pid} | Config].

%% The port must outlive the process that ran init_per_suite.
unlink_port(Port) ->
    Keeper = spawn(fun() -> receive stop -> ok end end),
    true = erlang:port_connect(Port, Keeper),
    unlink(Port).

end_per_suite(Config) ->
    [] = os:cmd("kill " ++ integer_to_list(proplists:get_value(epmd_pid, Config))),
    ok.

%% R0-3. Ra writes to which directory a store belongs half a second after it starts.
what_was_answered_survives_a_kill_from_the_first_moment_on(Config) ->
    Young = start("kk1", "", [], Config),
    {ok, #{}} = call(Young, put, [?STORE, <<"/:mine">>, 1, ?WAIT]),
    kill(Young),
    Old = start("kk1", "", [], Config),
    until(fun() -> call(Old, get, [?STORE, <<"/:mine">>, #{}]) =:= {ok, #{data => 1}} end),
    kill(Old),
    %% Without its names the store would start empty, under the identity of the old one.
    ok = file:delete(filename:join([home("kk1", Config), "khepri", "names.dets"])),
    ?assertMatch({failed, _}, catch start("kk1", "", [], Config)).

kill(Peer) ->
    Monitor = erlang:monitor(process, Peer),
    [] = os:cmd("kill -9 " ++ peer:call(Peer, os, getpid, [])),
    receive {'DOWN', Monitor, process, Peer, _} -> ok after 5000 -> error(lives) end.

nodes_form_one_cluster_refuse_strangers_and_keep_their_data(Config) ->
    [One, Two, Three] = [start(Name, "kb1@127.0.0.1", [], Config) || Name <- ["kb1", "kb2", "kb3"]],
    {ok, #{cluster_id := Id}} = call(One, health, [?STORE]),
    [until(fun() -> {ok, #{members := Members}} = call(Peer, health, [?STORE]), length(Members) =:= 3 end)
     || Peer <- [One, Two, Three]],
    {ok, #{cluster_id := Id}} = call(Three, health, [?STORE]),
    {ok, #{}} = call(Two, put, [?STORE, <<"/:kept">>, 1, #{timeout => 5000}]),
    until(fun() -> call(Three, get, [?STORE, <<"/:kept">>, #{}]) =:= {ok, #{data => 1}} end),
    ?assertMatch({failed, _}, catch start("kb4", "kb1@127.0.0.1", [{"KB_TYPE", "simulation"}], Config)),
    ?assertMatch({failed, _}, catch start("kb4", "kb1@127.0.0.1", [{"KB_INSTANCE", "other"}], Config)),
    ?assertMatch({failed, _}, catch start("kb4", "nobody@127.0.0.1", [{"KB_JOIN_SECONDS", "1"}], Config)),
    {ok, #{members := [_, _, _]}} = call(One, health, [?STORE]),
    ok = peer:stop(One),
    Op = {<<"suite">>, 1, 1, 0},
    until(fun() -> call(Two, transaction, [?STORE, [{put, <<"/:later">>, 2}], Op, #{timeout => 5000}])
                       =:= {ok, [ok]} end),
    Again = start("kb1", "kb1@127.0.0.1", [], Config),
    until(fun() -> call(Again, get, [?STORE, <<"/:later">>, #{}]) =:= {ok, #{data => 2}} end),
    {ok, #{cluster_id := Id}} = call(Again, health, [?STORE]),
    [peer:stop(Peer) || Peer <- [Again, Two, Three]],
    %% A whole cluster comes back from its disks; data of another instance is not touched.
    ?assertMatch({failed, _}, catch start("kb2", "kb1@127.0.0.1", [{"KB_INSTANCE", "other"}], Config)),
    Back = [start(Name, "kb1@127.0.0.1", [], Config) || Name <- ["kb3", "kb2"]],
    until(fun() -> call(hd(Back), get, [?STORE, <<"/:later">>, #{favor => consistency, timeout => 5000}])
                       =:= {ok, #{data => 2}} end),
    [peer:stop(Peer) || Peer <- Back].

%% R0-10, R0-11: wrong type or instance is refused, and the joiner's data is left whole, KB_RESET or not.
%% R0-12: an election in one instance leaves the term of another unchanged.
a_node_with_data_joins_only_when_told_and_only_its_own_kind(Config) ->
    [One, Two] = [start(Name, "ka1@127.0.0.1", [], Config) || Name <- ["ka1", "ka2"]],
    {ok, #{}} = call(Two, put, [?STORE, <<"/:theirs">>, 1, ?WAIT]),
    Strangers = [{"kx1", []}, {"kx2", [{"KB_TYPE", "simulation"}]}, {"kx3", [{"KB_INSTANCE", "other"}]}],
    [begin
         Alone = start(Name, "", Environment, Config),
         until(fun() -> call(Alone, put, [?STORE, <<"/:mine">>, 2, ?WAIT]) =:= {ok, #{}} end),
         peer:stop(Alone)
     end || {Name, Environment} <- Strangers],
    [?assertMatch({failed, _}, catch start(Name, "ka1@127.0.0.1", Environment, Config))
     || {Name, Environment} <- Strangers ++ [{Name, [{"KB_RESET", "1"} | Environment]}
                                             || {Name, [_ | _] = Environment} <- Strangers]],
    [Whole, Apart, Last] = [start(Name, "", Environment, Config) || {Name, Environment} <- Strangers],
    [until(fun() -> call(Peer, get, [?STORE, <<"/:mine">>, #{}]) =:= {ok, #{data => 2}} end)
     || Peer <- [Whole, Apart, Last]],
    Terms = [term(One), term(Apart)],
    _ = election([One, Two]),
    until(fun() -> term(One) > hd(Terms) end),
    ?assertEqual(tl(Terms), [term(Apart)]),
    peer:stop(Whole),
    Joined = start("kx1", "ka1@127.0.0.1", [{"KB_RESET", "1"}], Config),
    until(fun() -> call(Joined, get, [?STORE, <<"/:theirs">>, #{}]) =:= {ok, #{data => 1}} end),
    ?assertMatch({error, {node_not_found, _}}, call(Joined, get, [?STORE, <<"/:mine">>, #{}])),
    [peer:stop(Peer) || Peer <- [Joined, Apart, Last, Two, One]].

%% R3-3: joining and leaving reach the others, in the tree too; of failures tests/integration/test_homeservers.py.
a_node_that_left_can_join_again(Config) ->
    [One, Two] = [start(Name, "kl1@127.0.0.1", [], Config) || Name <- ["kl1", "kl2"]],
    {ok, #{}} = call(Two, put, [?STORE, <<"/:kept">>, 1, ?WAIT]),
    until(fun() -> noted(Two) =:= [<<"kl1@127.0.0.1">>, <<"kl2@127.0.0.1">>] end),
    ok = peer:call(Two, kb_cluster, leave, [], 40000),
    ?assertMatch({error, {store_not_running, _}}, call(Two, put, [?STORE, <<"/:kept">>, 2, ?WAIT])),
    ?assertMatch({ok, #{running := false, members := []}}, call(Two, health, [?STORE])),
    until(fun() -> {ok, #{members := Members}} = call(One, health, [?STORE]), length(Members) =:= 1 end),
    until(fun() -> noted(One) =:= [<<"kl1@127.0.0.1">>] end),
    {ok, #{}} = call(One, put, [?STORE, <<"/:kept">>, 3, ?WAIT]),
    peer:stop(Two),
    Again = start("kl2", "kl1@127.0.0.1", [], Config),
    until(fun() -> call(Again, get, [?STORE, <<"/:kept">>, #{}]) =:= {ok, #{data => 3}} end),
    until(fun() -> noted(Again) =:= [<<"kl1@127.0.0.1">>, <<"kl2@127.0.0.1">>] end),
    [peer:stop(Peer) || Peer <- [Again, One]].

%% All who belong to the cluster, if none of them is missing.
noted(Peer) ->
    {ok, #{data := #{members := Members, absent := []}}} = call(Peer, get, [?STORE, <<"/:bridge/:members">>, #{}]),
    Members.

two_nodes_that_start_at_once_are_one_cluster(Config) ->
    Parent = self(),
    _ = [spawn_link(fun() -> Parent ! {Name, start(Name, "kt1@127.0.0.1", [], Config)} end)
         || Name <- ["kt3", "kt2", "kt1"]],
    Peers = [receive {Name, Peer} -> Peer end || Name <- ["kt1", "kt2", "kt3"]],
    [until(fun() -> {ok, #{members := Members}} = call(Peer, health, [?STORE]), length(Members) =:= 3 end)
     || Peer <- Peers],
    Ids = [Id || Peer <- Peers, {ok, #{cluster_id := Id}} <- [call(Peer, health, [?STORE])]],
    ?assertMatch([_], lists:usort(Ids)),
    [peer:stop(Peer) || Peer <- Peers].

%% Told of another member, it comes back as a member in its old place, with what the others have.
a_seed_that_lost_its_disk_founds_nothing(Config) ->
    [One, Two, Three] = [start(Name, "kd1@127.0.0.1", [], Config) || Name <- ["kd1", "kd2", "kd3"]],
    {ok, #{cluster_id := Id}} = call(One, health, [?STORE]),
    {ok, #{}} = call(Two, put, [?STORE, <<"/:kept">>, 1, ?WAIT]),
    ok = peer:stop(One),
    ok = file:del_dir_r(home("kd1", Config)),
    Back = start("kd1", "kd1@127.0.0.1,kd2@127.0.0.1,kd3@127.0.0.1", [], Config),
    until(fun() -> call(Back, get, [?STORE, <<"/:kept">>, #{}]) =:= {ok, #{data => 1}} end),
    {ok, #{cluster_id := Id, members := [_, _, _]}} = call(Back, health, [?STORE]),
    %% Its vote counts again.
    ok = peer:stop(Three),
    until(fun() -> call(Back, put, [?STORE, <<"/:kept">>, 2, ?WAIT]) =:= {ok, #{}} end),
    until(fun() -> call(Two, get, [?STORE, <<"/:kept">>, #{}]) =:= {ok, #{data => 2}} end),
    [peer:stop(Peer) || Peer <- [Back, Two]].

%% A member that is no leader any more refuses what it is sent, and that goes to the next one.
a_pipeline_goes_on_with_the_next_leader(Config) ->
    [One, Two, _] = Peers = [start(Name, "kp1@127.0.0.1", [], Config) || Name <- ["kp1", "kp2", "kp3"]],
    [until(fun() -> {ok, #{members := Members}} = call(Peer, health, [?STORE]), length(Members) =:= 3 end)
     || Peer <- Peers],
    Writes = [{N, {put, [p, integer_to_binary(N)], N}} || N <- lists:seq(1, 5000)],
    Parent = self(),
    _ = spawn_link(fun() -> [begin _ = (catch election(lists:sublist(Peers, 2))), receive after 300 -> ok end end
                             || _ <- lists:seq(1, 3)],
                            Parent ! done end),
    {ok, Answers} = call(One, pipeline, [?STORE, Writes, #{timeout => 15000}]),
    receive done -> ok end,
    Done = [integer_to_binary(N) || {N, {ok, #{}}} <- Answers],
    %% What was refused or lost before a later one was taken is not sent again.
    ?assertEqual(lists:seq(1, 5000), [N || {N, Answer} <- Answers,
                                           element(1, Answer) =:= ok orelse
                                               lists:member(element(1, element(2, Answer)), [timeout, no_leader])]),
    ?assertNotEqual([], Done),
    {ok, #{}} = call(Two, fence, [?STORE, ?WAIT]),
    {ok, Nodes} = call(Two, get_many, [?STORE, <<"/:p/*">>, #{timeout => 10000}]),
    ?assertEqual([], [Name || Name <- Done, not is_map_key([p, Name], Nodes)]),
    [peer:stop(Peer) || Peer <- Peers].

%% Its connection is full: however many changes come meanwhile, the feed tries again every 50 ms, not for each of them.
%% What then goes out in several batches goes out once, though the connection is full again after the first.
a_subscriber_that_stands_still_is_tried_at_one_pace(Config) ->
    Member = start("kn1", "", [], Config),
    until(fun() -> call(Member, put, [?STORE, <<"/:big">>, 0, ?WAIT]) =:= {ok, #{}} end),
    {ok, Still, _} = peer:start(options("still", [], Config)),
    true = unlink(Still),
    true = peer:call(Still, net_kernel, connect_node, [peer:call(Member, erlang, node, [])]),
    Pid = peer:call(Still, erlang, spawn, [timer, sleep, [infinity]]),
    {ok, _} = peer:call(Member, kb_api, subscribe, [?STORE, #{pid => Pid, patterns => [<<"/:big">>], window => 1000}]),
    Process = peer:call(Still, os, getpid, []),
    [] = os:cmd("kill -STOP " ++ Process),
    ok = peer:call(Member, ?MODULE, write_on, [30, 1000000], 30000),
    Taken = peer:call(Member, ?MODULE, taken_by_the_feed, [500]),
    ok = peer:call(Member, ?MODULE, write_on, [200, 20000], 30000),
    [] = os:cmd("kill -CONT " ++ Process),
    until(fun() -> length(lists:usort(peer:call(Still, ?MODULE, numbers_told, [Pid], 20000))) =:= 230 end),
    Told = peer:call(Still, ?MODULE, numbers_told, [Pid], 20000),
    [peer:stop(Peer) || Peer <- [Still, Member]],
    ?assert(Taken >= 2, Taken),
    ?assert(Taken =< 20, Taken),
    ?assertEqual(lists:usort(Told), Told).

write_on(Count, Bytes) ->
    lists:foreach(fun(N) -> {ok, #{}} = kb_khepri:put(?STORE, <<"/:big">>, <<N:(8 * Bytes)>>, ?WAIT) end,
                  lists:seq(1, Count)).

%% How many messages it gets in a time in which nothing is written.
taken_by_the_feed(Milliseconds) ->
    Feed = whereis(kb_feed),
    1 = erlang:trace(Feed, true, ['receive']),
    timer:sleep(Milliseconds),
    Delivered = erlang:trace_delivered(Feed),
    receive {trace_delivered, Feed, Delivered} -> ok end,
    1 = erlang:trace(Feed, false, ['receive']),
    length(element(2, process_info(self(), messages))).

%% Of changes, in the order in which they arrived at a process that takes none.
numbers_told(Pid) ->
    {messages, Messages} = process_info(Pid, messages),
    [element(1, Change) || {kb_feed, _, Changes} <- Messages, Change <- Changes].

a_node_whose_store_has_stopped_ends(Config) ->
    Peer = start("ks1", "", [], Config),
    Monitor = erlang:monitor(process, Peer),
    ok = peer:call(Peer, ra, stop_server, [khepri, {?STORE, peer:call(Peer, erlang, node, [])}]),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end.

%% Needs to be root for the tiny file system.
a_full_disk_is_one_line(Config) ->
    Home = home("kf1", Config),
    ok = filelib:ensure_dir(filename:join(Home, "x")),
    case os:cmd("mount -t tmpfs -o size=512k tmpfs '" ++ Home ++ "'") of
        [] ->
            try
                ?assertMatch({failed, _}, catch start("kf1", "", [], Config)),
                ?assertEqual({ok, [".erlang.cookie"]}, file:list_dir(Home))
            after
                [] = os:cmd("umount '" ++ Home ++ "'")
            end;
        Refused -> {skip, Refused}
    end.

term(Peer) ->
    Node = peer:call(Peer, erlang, node, []),
    #{term := Term} = peer:call(Peer, ra, key_metrics, [{?STORE, Node}]),
    Term.

election([Peer | _] = Peers) ->
    {ok, #{leader := Leader}} = call(Peer, health, [?STORE]),
    [Next | _] = [Node || Other <- Peers, Node <- [peer:call(Other, erlang, node, [])], Node =/= Leader],
    peer:call(Peer, ra, transfer_leadership, [{?STORE, Leader}, {?STORE, Next}]).

home(Name, Config) -> filename:join(proplists:get_value(priv_dir, Config), Name).

start(Name, Seed, Environment, Config) ->
    Data = [{"KB_DATA_DIR", home(Name, Config)}, {"KB_SEED", Seed}],
    {ok, Peer, _} = peer:start(options(Name, Environment ++ Data, Config)),
    true = unlink(Peer),
    try peer:call(Peer, application, ensure_all_started, [khepri_bridge], 60000) of
        {ok, _} -> Peer;
        Other -> throw({failed, Other})
    catch
        exit:Reason -> throw({failed, Reason});
        error:Reason -> throw({failed, Reason})
    end.

options(Name, Environment, Config) ->
    Home = home(Name, Config),
    ok = filelib:ensure_dir(filename:join(Home, "x")),
    Cookie = filename:join(Home, ".erlang.cookie"),
    _ = file:write_file(Cookie, "suite"),
    ok = file:change_mode(Cookie, 8#600),
    #{name => list_to_atom(Name), host => "127.0.0.1", longnames => true, connection => standard_io,
      args => ["-start_epmd", "false", "-kernel", "prevent_overlapping_partitions", "false",
               "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "logger_level", "error",
               "-pa" | code:get_path()],
      env => Environment ++ [{"HOME", Home}, {"ERL_EPMD_PORT", proplists:get_value(epmd_port, Config)},
                             {"ERL_EPMD_ADDRESS", "127.0.0.1"}]}.

call(Peer, Function, Arguments) ->
    Module = case Function of
                 health -> kb_api;
                 _ -> kb_khepri
             end,
    peer:call(Peer, Module, Function, Arguments, 20000).

until(Fun) -> until(Fun, 200).

until(Fun, 0) -> error({never, Fun});
until(Fun, Left) ->
    case catch Fun() of
        true -> ok;
        _ ->
            receive after 100 -> until(Fun, Left - 1) end
    end.
