-module(kb_cluster_tests).

-include_lib("eunit/include/eunit.hrl").

-define(OTHER, 'hs2@127.0.0.1').

silence_test_() ->
    {setup, fun() -> register(aten_sink, self()) end, fun(_) -> unregister(aten_sink) end,
     fun(_) ->
             {ok, Begun} = kb_cluster:init(no_store),
             {noreply, Down} = kb_cluster:handle_info({node_event, ?OTHER, down}, Begun),
             {noreply, Again} = kb_cluster:handle_info({node_event, ?OTHER, down}, Down),
             {noreply, Up} = kb_cluster:handle_info({node_event, ?OTHER, up}, Again),
             {noreply, _} = kb_cluster:handle_info({silent, ?OTHER}, Up),
             Short = forgotten(),
             {noreply, Forgot} = kb_cluster:handle_info({silent, ?OTHER}, Down),
             Long = forgotten(),
             [{"a member that was heard again in time is not begun anew", ?_assertNot(Short)},
              {"one that was silent for long is", ?_assert(Long)},
              {"and that once", ?_assertEqual({noreply, Forgot}, kb_cluster:handle_info({silent, ?OTHER}, Forgot))}]
     end}.

forgotten() ->
    receive {nodedown, ?OTHER} -> true after 0 -> false end.
