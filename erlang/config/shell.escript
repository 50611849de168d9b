%% Before `rebar3 shell' starts the applications: a node name that others can dial, on loopback only, if a port
%% mapper runs already. None is started, and without one the homeserver works for this shell alone.
main(_) ->
    ok = application:set_env(kernel, inet_dist_use_interface, {127, 0, 0, 1}),
    ok = application:set_env(kernel, prevent_overlapping_partitions, false),
    Name = list_to_atom(case os:getenv("KB_NODE", "") of "" -> "hs_shell@127.0.0.1"; Wanted -> Wanted end),
    Started = case erl_epmd:names({127, 0, 0, 1}) of
                  {ok, _} -> net_kernel:start([Name, longnames]);
                  {error, _} -> no_port_mapper
              end,
    case Started of
        {ok, _} -> ok;
        no_port_mapper ->
            io:format("khepri_bridge: no port mapper, so no other node can join this shell "
                      "(epmd -daemon -address 127.0.0.1)~n");
        {error, _} ->
            io:format("khepri_bridge: ~ts did not start, perhaps it runs already, so no other node can join "
                      "this shell (set KB_NODE)~n", [Name])
    end.
