%% Three virtual machines, with a port mapper of their own.
-module(kb_cluster_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([nodes_form_one_cluster_refuse_strangers_and_keep_their_data/1]).

-define(STORE, homeserver).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [nodes_form_one_cluster_refuse_strangers_and_keep_their_data].

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

start(Name, Seed, Environment, Config) ->
    Home = filename:join(proplists:get_value(priv_dir, Config), Name),
    ok = filelib:ensure_dir(filename:join(Home, "x")),
    Cookie = filename:join(Home, ".erlang.cookie"),
    _ = file:write_file(Cookie, "suite"),
    ok = file:change_mode(Cookie, 8#600),
    {ok, Peer, _} = peer:start(
        #{name => list_to_atom(Name), host => "127.0.0.1", longnames => true, connection => standard_io,
          args => ["-start_epmd", "false", "-kernel", "prevent_overlapping_partitions", "false",
                   "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "logger_level", "error",
                   "-pa" | code:get_path()],
          env => Environment ++ [{"HOME", Home}, {"KB_DATA_DIR", Home}, {"KB_SEED", Seed},
                  {"ERL_EPMD_PORT", proplists:get_value(epmd_port, Config)},
                  {"ERL_EPMD_ADDRESS", "127.0.0.1"}]}),
    true = unlink(Peer),
    try peer:call(Peer, application, ensure_all_started, [khepri_bridge], 60000) of
        {ok, _} -> Peer;
        Other -> throw({failed, Other})
    catch
        exit:Reason -> throw({failed, Reason});
        error:Reason -> throw({failed, Reason})
    end.

call(Peer, Function, Arguments) -> peer:call(Peer, kb_api, Function, Arguments, 15000).

until(Fun) -> until(Fun, 200).

until(Fun, 0) -> error({never, Fun});
until(Fun, Left) ->
    case catch Fun() of
        true -> ok;
        _ ->
            receive after 100 -> until(Fun, Left - 1) end
    end.
