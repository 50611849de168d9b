%% What the operator allows runs in the store, and whatever it does the store lives after it.
-module(kb_procedures_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([only_what_is_on_the_list_runs/1, a_list_that_is_wrong_ends_the_start/1, a_transaction_returns_aborts_or_raises/1,
         a_failed_call_is_not_taken_for_a_result/1, what_differs_between_members_is_refused/1,
         a_procedure_is_stored_run_and_used_as_a_transaction/1, procedures_of_the_homeserver_are_out_of_reach/1,
         nodes_are_folded_mapped_and_filtered/1, a_trigger_runs_its_procedure/1, triggers_take_exact_paths_only/1,
         a_projection_copies_or_computes/1, every_option_of_a_table_is_safe_or_refused/1,
         a_pattern_that_would_stop_the_store_is_refused/1, a_name_that_would_kill_the_store_is_refused/1,
         a_projection_that_raises_leaves_the_store_alive/1, projections_are_taken_away_but_never_ours/1,
         anything_is_answered/1]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 5000}).
-define(DEMO, kb_demo_functions).
-define(HOSTILE, kb_hostile_functions).

all() ->
    [only_what_is_on_the_list_runs, a_list_that_is_wrong_ends_the_start, a_transaction_returns_aborts_or_raises,
     a_failed_call_is_not_taken_for_a_result, what_differs_between_members_is_refused,
     a_procedure_is_stored_run_and_used_as_a_transaction, procedures_of_the_homeserver_are_out_of_reach,
     nodes_are_folded_mapped_and_filtered, a_trigger_runs_its_procedure, triggers_take_exact_paths_only,
     a_projection_copies_or_computes, every_option_of_a_table_is_safe_or_refused,
     a_pattern_that_would_stop_the_store_is_refused, a_name_that_would_kill_the_store_is_refused,
     a_projection_that_raises_leaves_the_store_alive, projections_are_taken_away_but_never_ours,
     anything_is_answered].

init_per_suite(Config) ->
    true = os:putenv("KB_DATA_DIR", filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING)),
    Allowed = [io_lib:format("~s:~s/~b", [Module, Function, Arity])
               || Module <- [?DEMO, ?HOSTILE], {Function, Arity} <- Module:module_info(exports),
                  Function =/= module_info, {Module, Function} =/= {?HOSTILE, sends}],
    true = os:putenv("KB_FUNCTIONS", lists:flatten(lists:join(", ", Allowed))),
    %% What a function raises in a projection is logged with its data.
    ok = logger:set_primary_config(level, none),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    Config.

end_per_suite(_) ->
    true = os:unsetenv("KB_FUNCTIONS"),
    ok = logger:set_primary_config(level, notice),
    [ok = application:stop(Application) || Application <- [khepri_bridge, khepri, ra]].

%% Whatever was done to it: it takes a write, also after what is in its log was applied again.
end_per_testcase(_, _) ->
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:alive">>, 1, ?WAIT),
    ok = application:stop(khepri_bridge),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:alive">>, 2, ?WAIT),
    {ok, _} = kb_procedures:unregister_projections(?STORE, all, ?WAIT),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:stock">>, ?WAIT).

only_what_is_on_the_list_runs(_) ->
    {ok, Functions} = kb_procedures:functions(),
    ?assert(lists:member({?DEMO, add, 2}, Functions)),
    ?assertNot(lists:member({?HOSTILE, sends, 1}, Functions)),
    Refused = [fun() -> kb_procedures:transaction(?STORE, {?HOSTILE, sends}, [self()], Access, ?WAIT) end
               || Access <- [ro, rw, auto]]
        ++ [fun() -> kb_procedures:transaction(?STORE, {erlang, halt}, [], ro, ?WAIT) end,
            fun() -> kb_procedures:put_sproc(?STORE, <<"/:p">>, {?HOSTILE, sends, 1}, ?WAIT) end,
            fun() -> kb_procedures:fold(?STORE, <<"/:stock/*">>, {?DEMO, index, 3}, 0, #{}) end,
            fun() -> kb_procedures:map(?STORE, <<"/:stock/*">>, {erlang, put, 2}, #{}) end,
            fun() -> kb_procedures:register_projection(?STORE, <<"p">>, <<"/:stock/*">>, {erlang, put, 2}, #{}) end],
    [?assertMatch({error, {not_allowed, #{message := _}}}, Call()) || Call <- Refused],
    {error, {not_allowed, #{message := Message}}} = (hd(Refused))(),
    ?assertMatch({_, _}, binary:match(Message, <<"KB_FUNCTIONS">>)),
    receive from_inside -> error(it_ran) after 0 -> ok end.

a_list_that_is_wrong_ends_the_start(_) ->
    Before = os:getenv("KB_FUNCTIONS"),
    try
        [begin
             true = os:putenv("KB_FUNCTIONS", Text),
             {error, Message} = kb_config:read(),
             ?assertMatch({match, _}, re:run(Message, Expected), {Text, Message})
         end || {Text, Expected} <- [{"halt", "module:function/arity"}, {"erlang:halt", "module:function/arity"},
                                     {"a:b/1;c:d/2", "module:function/arity"}, {"no_such_module:f/1", "KB_CODE_PATH"},
                                     {"kb_demo_functions:add/3", "does not export: kb_demo_functions:add/3"}]],
        true = os:putenv("KB_FUNCTIONS", "kb_demo_functions:add/2"),
        true = os:putenv("KB_CODE_PATH", "no/such/directory"),
        ?assertEqual({error, "KB_CODE_PATH names a directory that is not there: no/such/directory"}, kb_config:read())
    after
        true = os:unsetenv("KB_CODE_PATH"),
        true = os:putenv("KB_FUNCTIONS", Before)
    end.

a_transaction_returns_aborts_or_raises(_) ->
    Add = fun(Amount, Access) ->
                  kb_procedures:transaction(?STORE, {?DEMO, add}, [[stock, <<"n">>], Amount], Access, ?WAIT)
          end,
    ?assertEqual({ok, #{value => {counter, 0}}}, Add(5, rw)),
    ?assertEqual({ok, #{value => {counter, 5}}}, Add(1, auto)),
    ?assertMatch({error, {aborted, #{reason := {below_zero, -4}}}}, Add(-10, rw)),
    ?assertMatch({error, {invalid_operation, _}}, Add(1, ro)),
    ?assertEqual({ok, #{value => {found, 6}}},
                 kb_procedures:transaction(?STORE, {?DEMO, read}, [[stock, <<"n">>]], ro, ?WAIT)),
    ?assertEqual({ok, #{data => 6}}, kb_khepri:get(?STORE, <<"/:stock/n">>, #{})),
    [?assertMatch({error, {raised, #{class := error}}},
                  kb_procedures:transaction(?STORE, {?DEMO, add}, [Path, 1], rw, ?WAIT))
     || Path <- [[bridge, grants], [{if_all, [bridge, {if_node_exists, true}]}, grants], <<"/:bridge/:grants">>, []]],
    [?assertMatch({error, {raised, #{class := error, reason := boom}}},
                  kb_procedures:transaction(?STORE, {?HOSTILE, raise}, [], Access, ?WAIT)) || Access <- [ro, rw, auto]],
    ?assertMatch({error, {aborted, #{reason := #{why := <<"because">>}}}},
                 kb_procedures:transaction(?STORE, {?HOSTILE, atoms}, [x], auto, ?WAIT)).

a_failed_call_is_not_taken_for_a_result(_) ->
    [?assertMatch({error, {timeout, #{message := _}}},
                  kb_procedures:transaction(?STORE, {?HOSTILE, timeout_like}, [], Access, ?WAIT)) || Access <- [ro, rw]],
    ?assertEqual({ok, #{value => {error, none}}},
                 kb_procedures:transaction(?STORE, {?HOSTILE, answers}, [{error, none}], rw, ?WAIT)),
    Began = erlang:monotonic_time(millisecond),
    ?assertMatch({error, {timeout, _}},
                 kb_procedures:transaction(?STORE, {?HOSTILE, slow}, [700], ro, #{timeout => 100})),
    ?assert(erlang:monotonic_time(millisecond) - Began < 650),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:stock/after">>, 1, ?WAIT).

what_differs_between_members_is_refused(_) ->
    {error, {not_allowed, #{denied := Denied}}} =
        kb_procedures:transaction(?STORE, {?HOSTILE, names_the_node}, [], rw, ?WAIT),
    ?assertMatch({_, _}, binary:match(Denied, <<"node">>)),
    %% Not replicated, so it may.
    ?assertEqual({ok, #{value => node()}},
                 kb_procedures:transaction(?STORE, {?HOSTILE, names_the_node}, [], ro, ?WAIT)).

a_procedure_is_stored_run_and_used_as_a_transaction(_) ->
    Put = fun(Path, Function) -> kb_procedures:put_sproc(?STORE, Path, Function, ?WAIT) end,
    {ok, #{}} = Put(<<"/:stock/change">>, {?DEMO, change, 2}),
    {ok, #{}} = Put(<<"/:stock/add">>, {?DEMO, add, 2}),
    {ok, #{}} = Put(<<"/:stock/read">>, {?DEMO, read, 1}),
    ?assertEqual({ok, #{value => 6}}, kb_procedures:run_sproc(?STORE, <<"/:stock/change">>, [1, [2, 3]], #{})),
    Transaction = fun(Path, Args, Access) ->
                          kb_procedures:transaction(?STORE, {sproc, Path}, Args, Access, ?WAIT)
                  end,
    ?assertEqual({ok, #{value => {counter, 0}}}, Transaction(<<"/:stock/add">>, [[stock, <<"m">>], 2], rw)),
    ?assertEqual({ok, #{value => {found, 2}}}, Transaction([stock, <<"read">>], [[stock, <<"m">>]], ro)),
    ?assertMatch({error, {aborted, _}}, Transaction(<<"/:stock/add">>, [[stock, <<"m">>], -3], auto)),
    ?assertMatch({error, {not_allowed, _}}, Transaction(<<"/:stock/add">>, [[stock, <<"m">>], 2], ro)),
    ?assertMatch({error, {invalid_request, #{message := <<"the procedure takes 2 arguments">>}}},
                 Transaction(<<"/:stock/add">>, [1], rw)),
    ?assertMatch({error, {invalid_request, _}}, kb_procedures:run_sproc(?STORE, <<"/:stock/change">>, [], #{})),
    ?assertMatch({error, {invalid_operation, _}},
                 kb_procedures:run_sproc(?STORE, <<"/:stock/read">>, [[stock, <<"m">>]], #{})),
    [?assertMatch({error, {no_sproc, _}}, Call(Path))
     || Path <- [<<"/:stock/none">>, <<"/:stock/m">>],
        Call <- [fun(P) -> Transaction(P, [], rw) end, fun(P) -> Transaction(P, [], ro) end,
                 fun(P) -> kb_procedures:run_sproc(?STORE, P, [], #{}) end]],
    %% It ends with its caller's time, and holds nobody else up.
    {ok, #{}} = Put(<<"/:stock/slow">>, {?HOSTILE, slow, 1}),
    ?assertMatch({error, {timeout, _}}, kb_procedures:run_sproc(?STORE, <<"/:stock/slow">>, [5000], #{timeout => 50})).

procedures_of_the_homeserver_are_out_of_reach(_) ->
    Interpreter = kb_store:procedure(),
    Args = [{<<"x">>, 1, 1, 0}, {record, {ok, mine}}],
    [?assertMatch({error, {reserved_path, _}}, Answer)
     || Answer <- [kb_procedures:transaction(?STORE, {sproc, Interpreter}, Args, rw, ?WAIT),
                   kb_procedures:run_sproc(?STORE, Interpreter, Args, #{}),
                   kb_procedures:put_sproc(?STORE, Interpreter, {?DEMO, add, 2}, ?WAIT),
                   kb_procedures:put_sproc(?STORE, <<"/:a/../:bridge/x">>, {?DEMO, add, 2}, ?WAIT),
                   kb_procedures:register_trigger(?STORE, <<"t">>, #{path => <<"/:stock">>}, Interpreter, ?WAIT)]],
    ?assertMatch({error, {invalid_path, _}},
                 kb_procedures:transaction(?STORE, {sproc, <<"/*/:procedures/*">>}, Args, rw, ?WAIT)).

nodes_are_folded_mapped_and_filtered(_) ->
    [{ok, _} = kb_khepri:put(?STORE, [stock, integer_to_binary(N)], N, ?WAIT) || N <- lists:seq(1, 4)],
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/p">>, {?DEMO, change, 2}, ?WAIT),
    All = <<"/:stock/*">>,
    ?assertEqual({ok, #{value => 110}}, kb_procedures:fold(?STORE, All, {?DEMO, sum, 3}, 100, #{})),
    ?assertEqual({ok, #{[stock, <<"1">>] => 2, [stock, <<"2">>] => 4, [stock, <<"3">>] => 6, [stock, <<"4">>] => 8,
                        [stock, <<"p">>] => undefined}},
                 kb_procedures:map(?STORE, All, {?DEMO, double, 2}, #{favor => consistency})),
    ?assertEqual({ok, #{[stock, <<"2">>] => 2, [stock, <<"4">>] => 4}},
                 kb_procedures:filter(?STORE, All, {?DEMO, is_even, 2}, #{})),
    ?assertEqual({ok, #{}}, kb_procedures:foreach(?STORE, All, {?DEMO, double, 2}, #{})),
    [?assertMatch({error, {raised, #{reason := boom}}}, Answer)
     || Answer <- [kb_procedures:fold(?STORE, All, {?HOSTILE, raise, 3}, 0, #{}),
                   kb_procedures:map(?STORE, All, {?HOSTILE, raise, 2}, #{}),
                   kb_procedures:filter(?STORE, All, {?HOSTILE, exits, 2}, #{}),
                   kb_procedures:foreach(?STORE, All, {?HOSTILE, throws, 2}, #{})]],
    ?assertMatch({error, {raised, #{reason := {case_clause, _}}}},
                 kb_procedures:filter(?STORE, All, {?DEMO, index, 2}, #{props_to_return => [payload]})),
    ?assertMatch({error, {timeout, _}}, kb_procedures:foreach(?STORE, <<"/:stock/1">>, {?HOSTILE, slow, 2},
                                                              #{timeout => 50})).

a_trigger_runs_its_procedure(_) ->
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/seen">>, {?HOSTILE, trigger, 1}, ?WAIT),
    Register = fun(Path) ->
                       kb_procedures:register_trigger(?STORE, <<"seen">>, #{path => Path, on_actions => [create, delete],
                                                                            priority => -3}, <<"/:stock/seen">>, ?WAIT)
               end,
    ?assertEqual({ok, #{}}, Register(<<"/:stock/one">>)),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/one">>, 1, ?WAIT),
    ?assertMatch(#{on_action := create}, seen(<<"one">>)),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/one">>, 2, ?WAIT),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:stock/one">>, ?WAIT),
    ?assertMatch(#{on_action := delete}, seen(<<"one">>)),
    %% The same name again: it moves.
    ?assertEqual({ok, #{}}, Register(<<"/:stock/two">>)),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/one">>, 1, ?WAIT),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/two">>, 1, ?WAIT),
    ?assertMatch(#{on_action := create}, seen(<<"two">>)),
    ?assertEqual(undefined, persistent_term:get({?HOSTILE, [<<"one">>]}, undefined)),
    %% One that raises: the others go on.
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/bad">>, {?HOSTILE, raise, 1}, ?WAIT),
    {ok, _} = kb_procedures:register_trigger(?STORE, <<"bad">>, #{path => <<"/:stock/two">>, priority => 9},
                                             <<"/:stock/bad">>, ?WAIT),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:stock/two">>, ?WAIT),
    ?assertMatch(#{on_action := delete}, seen(<<"two">>)).

seen(Name) -> seen(Name, 100).

seen(Name, Left) when Left > 0 ->
    case persistent_term:get({?HOSTILE, [Name]}, undefined) of
        undefined ->
            timer:sleep(20),
            seen(Name, Left - 1);
        Props ->
            true = persistent_term:erase({?HOSTILE, [Name]}),
            Props
    end.

triggers_take_exact_paths_only(_) ->
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/one">>, {?HOSTILE, raise, 1}, ?WAIT),
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/two">>, {?DEMO, change, 2}, ?WAIT),
    Register = fun(Id, Filter, Sproc) -> kb_procedures:register_trigger(?STORE, Id, Filter, Sproc, ?WAIT) end,
    [?assertMatch({error, {invalid_path, _}}, Register(<<"t">>, #{path => Path}, <<"/:stock/one">>))
     || Path <- [<<"/:stock/*">>, <<"/:stock/**">>, <<"/:stock/a*">>, [stock, {if_has_payload, true}], [], 1]],
    [?assertMatch({error, {invalid_options, _}}, Register(<<"t">>, Filter#{path => <<"/:stock">>}, <<"/:stock/one">>))
     || Filter <- [#{on_actions => []}, #{on_actions => [remove]}, #{on_actions => create}, #{on_actions => [create | delete]},
                   #{priority => 1.0}, #{priority => 1 bsl 80}, #{priority => high}, #{other => 1}]],
    ?assertMatch({error, {invalid_options, _}}, Register(<<"t">>, <<"/:stock">>, <<"/:stock/one">>)),
    ?assertMatch({error, {no_sproc, _}}, Register(<<"t">>, #{path => <<"/:stock">>}, <<"/:stock/none">>)),
    ?assertMatch({error, {invalid_operation, _}}, Register(<<"t">>, #{path => <<"/:stock">>}, <<"/:stock/two">>)),
    ok = touch().

%% Creates, changes and deletes what the patterns of these tests match, with data of every kind.
touch() ->
    Paths = [[stock], [stock, <<"a">>], [stock, a, <<"b">>], [stock, 'é']],
    [{ok, _} = kb_khepri:put(?STORE, Path, Data, ?WAIT)
     || Data <- [1, {k, 1}, {}, [{k, 2}, {z, 3}], <<"two words">>, #{}, {k, 1}], Path <- Paths],
    [{ok, _} = kb_khepri:delete(?STORE, Path, ?WAIT) || Path <- lists:reverse(Paths)],
    ok.

a_projection_copies_or_computes(_) ->
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/a">>, {apple, 3}, ?WAIT),
    Register = fun(Name, Function, Options) ->
                       kb_procedures:register_projection(?STORE, Name, <<"/:stock/*">>, Function, Options)
               end,
    ?assertEqual({ok, #{}}, Register(<<"fruits">>, copy, #{type => ordered_set, read_concurrency => true})),
    ?assertMatch({error, {projection_exists, _}}, Register(<<"fruits">>, copy, #{})),
    ?assertEqual({ok, #{}}, Register(<<"index">>, {?DEMO, index, 2}, #{keypos => 1, compressed => true})),
    ?assertEqual({ok, #{}}, Register(<<"words">>, {?DEMO, words, 4}, #{type => bag, write_concurrency => auto})),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/b">>, <<"red or green">>, ?WAIT),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/b">>, <<"green">>, ?WAIT),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/c">>, {cherry, 100}, ?WAIT),
    Lookup = fun(Name, Key) -> kb_procedures:projection_lookup(Name, Key, ?STORE) end,
    ?assertEqual({ok, [{apple, 3}]}, Lookup(<<"fruits">>, apple)),
    ?assertEqual({ok, []}, Lookup(<<"fruits">>, banana)),
    ?assertEqual({ok, [{<<"c">>, {cherry, 100}}]}, Lookup(<<"index">>, <<"c">>)),
    ?assertEqual({ok, [{<<"green">>, [stock, <<"b">>]}]}, Lookup(<<"words">>, <<"green">>)),
    ?assertEqual({ok, []}, Lookup(<<"words">>, <<"red">>)),
    Objects = fun(Name, Limit) -> kb_procedures:projection_objects(Name, Limit, ?STORE) end,
    ?assertEqual({ok, [{apple, 3}, {cherry, 100}]}, Objects(<<"fruits">>, 10)),
    ?assertEqual({ok, [{apple, 3}]}, Objects(<<"fruits">>, 1)),
    [?assertMatch({error, {no_projection, _}}, Lookup(Name, 1))
     || Name <- [<<"none_of_this_name">>, <<"kb_feed_subscribers">>, <<"ac_tab">>, <<"code">>]],
    [?assertMatch({error, {invalid_options, _}}, Objects(<<"fruits">>, Limit)) || Limit <- [0, 10001, x]],
    ?assertEqual({ok, true}, kb_procedures:has_projection(?STORE, <<"fruits">>, #{})),
    ?assertEqual({ok, false}, kb_procedures:has_projection(?STORE, <<"no_atom_of_this_name">>, #{})),
    %% They are made again at the start.
    ok = application:stop(khepri_bridge),
    ?assertMatch({error, {store_not_running, _}}, Lookup(<<"fruits">>, apple)),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    ?assertEqual({ok, #{}}, kb_procedures:foreach(?STORE, <<"/:stock/*">>, {?DEMO, double, 2}, #{favor => consistency})),
    ?assertEqual({ok, [{apple, 3}]}, Lookup(<<"fruits">>, apple)).

every_option_of_a_table_is_safe_or_refused(_) ->
    Register = fun(Number, Function, Options) ->
                       Name = iolist_to_binary(["option", integer_to_binary(Number)]),
                       kb_procedures:register_projection(?STORE, Name, <<"/:stock/**">>, Function, Options)
               end,
    Refused = [#{type => heap}, #{keypos => 0}, #{keypos => 256}, #{keypos => 1 bsl 70}, #{keypos => a},
               #{read_concurrency => yes}, #{write_concurrency => 1}, #{compressed => auto}, #{named_table => true},
               #{protection => public}, #{standalone_fun_options => #{}}, #{tables => #{}}, #{timeout => 0}, x],
    [?assertMatch({error, {invalid_options, _}}, Register(0, copy, Options)) || Options <- Refused],
    [?assertMatch({error, {invalid_options, _}}, Register(0, {?DEMO, index, 2}, #{type => Type}))
     || Type <- [bag, duplicate_bag]],
    Taken = [#{type => Type, keypos => Position, read_concurrency => Flag, write_concurrency => Write, compressed => Flag}
             || Type <- [set, ordered_set, bag, duplicate_bag], Position <- [1, 2, 255], Flag <- [true, false],
                Write <- [true, false, auto]],
    [?assertEqual({ok, #{}}, Register(Number, copy, Options)) || {Number, Options} <- lists:enumerate(Taken)],
    ok = touch().

a_pattern_that_would_stop_the_store_is_refused(_) ->
    Register = fun(Name, Pattern) ->
                       kb_procedures:register_projection(?STORE, Name, Pattern, copy, #{})
               end,
    Recursive = {if_path_matches, any, undefined},
    [?assertMatch({error, {poison, _}}, Answer)
     || Pattern <- [<<"/:stock/a*">>, [stock, {if_name_matches, <<"^a">>, undefined}],
                    [stock, {if_not, {if_all, [{if_path_matches, <<"^a">>, undefined}]}}],
                    <<"/**/:a/**/:b/**">>, lists:duplicate(9, {if_any, [Recursive]})],
        Answer <- [Register(<<"pattern">>, Pattern)]],
    [?assertMatch({error, {poison, _}}, Answer)
     || Pattern <- [<<"/**/**/**">>, lists:duplicate(9, Recursive)],
        Answer <- [kb_procedures:fold(?STORE, Pattern, {?DEMO, sum, 3}, 0, #{}),
                   kb_procedures:map(?STORE, Pattern, {?DEMO, double, 2}, #{}),
                   kb_khepri:get_many(?STORE, Pattern, #{}),
                   kb_khepri:transaction(?STORE, [{count, Pattern}], {<<"stars">>, 1, 1, 0}, ?WAIT)]],
    Bad = {if_data_matches, '_', [{no_such_guard, 1}], undefined},
    ?assertMatch({error, _}, Register(<<"pattern">>, [stock, Bad])),
    Good = [<<"/">>, <<"/:stock">>, <<"/:stock/*">>, <<"/**">>, <<"/:stock/**/**">>,
            [stock, {if_all, [{if_path_matches, any, undefined}, {if_has_data, true}]}],
            [stock, {if_not, {if_child_list_length, {gt, 0}}}], [stock, {if_any, [a, <<"a">>]}]],
    [?assertEqual({ok, #{}}, Register(iolist_to_binary(["good", integer_to_binary(Number)]), Pattern))
     || {Number, Pattern} <- lists:enumerate(Good)],
    ok = touch(),
    {ok, _} = kb_khepri:put(?STORE, <<"/:stock/a">>, {a, 1}, ?WAIT),
    ?assertEqual({ok, [{a, 1}]}, kb_procedures:projection_lookup(<<"good3">>, a, ?STORE)).

%% Khepri formats the name of a projection that failed with `~s', inside Ra.
a_name_that_would_kill_the_store_is_refused(_) ->
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:stock/one">>, {?HOSTILE, raise, 1}, ?WAIT),
    Named = fun(Name) ->
                    [kb_procedures:register_projection(?STORE, Name, <<"/:stock/*">>, {?HOSTILE, raise, 4}, #{}),
                     kb_procedures:register_trigger(?STORE, Name, #{path => <<"/:stock/a">>}, <<"/:stock/one">>, ?WAIT)]
            end,
    [?assertMatch({error, {invalid_request, _}}, Answer)
     || Name <- [<<"ł"/utf8>>, <<"é"/utf8>>, <<>>, <<"a b">>, <<"a\n">>, binary:copy(<<"a">>, 256), name, "name"],
        Answer <- Named(Name)],
    [?assertMatch({error, {not_allowed, _}}, Answer)
     || Name <- [<<"kb_feed_v1">>, <<"kb_feed_top_v1">>, <<"kb_x">>], Answer <- Named(Name)],
    hostile_table = ets:new(hostile_table, [named_table, public]),
    ?assertMatch({error, {not_allowed, _}},
                 kb_procedures:register_projection(?STORE, <<"hostile_table">>, <<"/:stock/*">>, copy, #{})),
    [?assertEqual({ok, #{}}, Answer) || Answer <- Named(<<"~s~p.:/@#">>)],
    ok = touch().

a_projection_that_raises_leaves_the_store_alive(_) ->
    Functions = [{?HOSTILE, Function, 2} || Function <- [raise, exits, throws, not_a_tuple, bad_error_info, bag]]
        ++ [{?HOSTILE, raise, 4}, {?HOSTILE, deletes_table, 4}, copy],
    [?assertEqual({ok, #{}}, kb_procedures:register_projection(?STORE, iolist_to_binary(["raise", integer_to_binary(N)]),
                                                               <<"/:stock/**">>, Function, #{}))
     || {N, Function} <- lists:enumerate(Functions)],
    ok = touch(),
    {error, {not_allowed, #{denied := _}}} =
        kb_procedures:register_projection(?STORE, <<"differs">>, <<"/:stock/**">>, {?HOSTILE, names_the_node, 2}, #{}).

projections_are_taken_away_but_never_ours(_) ->
    [{ok, _} = kb_procedures:register_projection(?STORE, Name, <<"/:stock/*">>, copy, #{}) || Name <- [<<"one">>, <<"two">>]],
    Unregister = fun(Names) -> kb_procedures:unregister_projections(?STORE, Names, ?WAIT) end,
    ?assertEqual({ok, #{names => [<<"one">>]}}, Unregister([<<"one">>, <<"no_atom_is_named_so">>, <<"lists">>])),
    ?assertMatch({error, {no_projection, _}}, kb_procedures:projection_lookup(<<"one">>, 1, ?STORE)),
    ?assertMatch({error, {not_allowed, _}}, Unregister([<<"two">>, <<"kb_feed_v1">>])),
    ?assertEqual({ok, #{names => [<<"two">>]}}, Unregister(all)),
    ?assertEqual({ok, #{names => []}}, Unregister(all)),
    [?assertEqual({ok, true}, kb_procedures:has_projection(?STORE, Name, #{favor => consistency}))
     || Name <- [<<"kb_feed_v1">>, <<"kb_feed_top_v1">>]],
    ?assertEqual({ok, #{}}, kb_procedures:register_projection(?STORE, <<"one">>, <<"/:stock/*">>, copy, #{})).

%% Any terms whatever, often near what is right.
anything_is_answered(_) ->
    Calls = [{Function, Arity} || {Function, Arity} <- [{transaction, 5}, {put_sproc, 4}, {run_sproc, 4}, {fold, 5},
                                                        {foreach, 4}, {map, 4}, {filter, 4}, {register_trigger, 5},
                                                        {register_projection, 5}, {unregister_projections, 3},
                                                        {has_projection, 3}, {projection_lookup, 3},
                                                        {projection_objects, 3}]],
    _ = rand:seed(exsss, {1, 2, 3}),
    [begin
         {Function, Arity} = kb_random_terms:one_of(Calls),
         Args = [argument() || _ <- lists:seq(1, Arity)],
         case apply(kb_procedures, Function, Args) of
             {ok, _} -> ok;
             {error, {Reason, #{message := Message}}} when is_atom(Reason), is_binary(Message) -> ok;
             Other -> error({Function, Args, Other})
         end
     end || _ <- lists:seq(1, 4000)].

argument() ->
    Any = kb_random_terms:any(),
    kb_random_terms:one_of(
      [?STORE, ?STORE, ?STORE, ?STORE, ?STORE, Any, Any, <<"/:stock/a">>, <<"/:stock/**">>, [stock, Any],
       {?HOSTILE, kb_random_terms:one_of([raise, answers, throws]), rand:uniform(4)},
       {?DEMO, kb_random_terms:one_of([index, words, sum]), rand:uniform(4)}, {sproc, Any}, {sproc, <<"/:stock/a">>},
       {?HOSTILE, raise}, {?HOSTILE, Any}, copy, ro, rw, auto, #{timeout => 200}, #{timeout => Any}, #{path => Any},
       #{path => <<"/:stock/a">>, priority => Any}, #{favor => Any}, #{type => Any}, #{}, #{}, [], [Any], [Any, Any],
       <<"name">>, all]).
