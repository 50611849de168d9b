%% Every function of kb_khepri on a store, by what its callers get.
-module(kb_khepri_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([reads_tell_what_is_asked_for/1, every_operation_has_its_result/1, adv_operations_have_one_shape/1,
         a_failed_operation_undoes_all_and_says_where/1, keep_while_follows_relative_paths/1,
         put_many_gives_every_node_its_conditions/1, a_pipeline_answers_every_write/1, the_cluster_and_the_store_are_told/1,
         patterns_match_data/1, wildcards_keep_off_the_reserved_path/1, transactions_in_one_command_are_as_if_alone/1,
         writes_in_one_command_are_as_if_alone/1, reads_in_one_message_are_as_if_alone/1]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 5000}).
-define(ANY, {if_name_matches, any, undefined}).

all() ->
    [reads_tell_what_is_asked_for, every_operation_has_its_result, adv_operations_have_one_shape,
     a_failed_operation_undoes_all_and_says_where, keep_while_follows_relative_paths,
     put_many_gives_every_node_its_conditions, a_pipeline_answers_every_write, the_cluster_and_the_store_are_told,
     patterns_match_data, wildcards_keep_off_the_reserved_path, transactions_in_one_command_are_as_if_alone,
     writes_in_one_command_are_as_if_alone, reads_in_one_message_are_as_if_alone].

init_per_suite(Config) ->
    true = os:putenv("KB_DATA_DIR", filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING)),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    Config.

end_per_suite(_) ->
    %% Ra goes too: the next suite has its data elsewhere.
    [ok = application:stop(Application) || Application <- [khepri_bridge, khepri, ra]].

reads_tell_what_is_asked_for(_) ->
    %% The first transaction is there once the interpreter is.
    {ok, [ok]} = run([{put, <<"/:r/a">>, 1}]),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:r/b/c">>, 2, ?WAIT),
    [?assertEqual(Expected, kb_khepri:get(?STORE, Path, Options))
     || {Path, Options, Expected} <-
            [{<<"/:r/a">>, #{}, {ok, #{data => 1}}},
             {[r, {if_all, [<<"a">>, {if_payload_version, 1}]}], #{favor => consistency}, {ok, #{data => 1}}},
             {<<"/:r/b">>, #{}, {ok, #{}}},
             {<<"/:r">>, #{props_to_return => [child_names, child_list_length, has_payload]},
              {ok, #{child_names => [<<"a">>, <<"b">>], child_list_length => 2}}},
             {<<"/:r/a">>, #{props_to_return => []}, {ok, #{}}},
             {<<"/:r/a">>, #{props_to_return => [has_payload, payload_version]},
              {ok, #{has_data => true, payload_version => 1}}}]],
    {error, {node_not_found, #{path := [r, <<"x">>]}}} = kb_khepri:get(?STORE, <<"/:r/x/y">>, #{}),
    {error, {mismatching_node, _}} = kb_khepri:get(?STORE, [r, {if_all, [<<"a">>, {if_payload_version, 9}]}], #{}),
    {error, {invalid_path, _}} = kb_khepri:get(?STORE, <<"/:r/*">>, #{}),
    {ok, #{child_list_version := _}} = kb_khepri:get(?STORE, <<"/">>, #{props_to_return => [child_list_version]}),
    {ok, Both} = kb_khepri:get_many(?STORE, <<"/:r/**">>, #{}),
    ?assertEqual(#{[r, <<"a">>] => #{data => 1}, [r, <<"b">>] => #{}, [r, <<"b">>, <<"c">>] => #{data => 2}}, Both),
    ?assertEqual({ok, 3}, kb_khepri:count(?STORE, <<"/:r/**">>, #{})),
    {ok, Rooted} = kb_khepri:get_many(?STORE, <<"/*">>, #{include_root_props => true, favor => consistency}),
    ?assert(is_map_key([], Rooted)),
    {error, {invalid_path, _}} = kb_khepri:get_many(?STORE, <<"/:r/*">>, #{expect_specific_node => true}),
    {error, {node_not_found, _}} = kb_khepri:get_many(?STORE, <<"/:r/x">>, #{expect_specific_node => true}),
    ?assertEqual({ok, #{}}, kb_khepri:get_many(?STORE, <<"/:r/x">>, #{})),
    [?assertEqual({ok, Expected}, kb_khepri:Question(?STORE, Path, #{}))
     || {Question, Path, Expected} <- [{exists, <<"/:r/b">>, true}, {exists, <<"/:r/x">>, false},
                                       {has_data, <<"/:r/b">>, false}, {has_data, <<"/:r/a">>, true},
                                       {has_data, [r, {if_all, [<<"a">>, {if_payload_version, 9}]}], false},
                                       {is_sproc, <<"/:r/a">>, false}, {is_sproc, kb_store:procedure(), true}]],
    {ok, Interpreter} = kb_khepri:get(?STORE, kb_store:procedure(), #{props_to_return => [payload, has_payload]}),
    ?assertEqual(#{sproc => 2, is_sproc => true}, Interpreter),
    ?assertEqual({ok, false}, kb_khepri:is_empty(?STORE, #{})),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:r">>, ?WAIT),
    ?assertEqual({ok, true}, kb_khepri:is_empty(?STORE, #{favor => consistency})),
    ?assertEqual({ok, [true]}, run([{is_empty}])),
    [?assertMatch({error, {invalid_options, _}}, kb_khepri:get(?STORE, <<"/:r/a">>, Options))
     || Options <- [#{favour => low_latency}, #{favor => fast}, #{timeout => 0}, #{props_to_return => [raw_payload]},
                    #{props_to_return => [payload | x]}, #{props_to_return => payload}, #{expect_specific_node => 1}, x]].

every_operation_has_its_result(_) ->
    ?assertEqual({ok, [ok, ok, ok, ok, ok, ok]},
                 run([{put, <<"/:o/a">>, 1}, {create, <<"/:o/b">>, 2}, {update, <<"/:o/a">>, 3},
                      {compare_and_swap, <<"/:o/a">>, 3, '_'}, {put_many, <<"/:o/*">>, 4}, {put, <<"/:o/c/d">>, 5, #{}}])),
    ?assertEqual({ok, [#{data => 4}, #{}, #{[o, <<"a">>] => #{data => 4}, [o, <<"b">>] => #{data => 4}, [o, <<"c">>] => #{}},
                       true, false, false, 3]},
                 run([{get, <<"/:o/a">>}, {get, <<"/:o/c">>}, {get_many, <<"/:o/*">>}, {exists, <<"/:o/a">>},
                      {has_data, <<"/:o/c">>}, {is_sproc, <<"/:o/a">>}, {count, <<"/:o/*">>}])),
    ?assertEqual({ok, [ok, ok, ok, ok, ok, #{[o, <<"b">>] => #{}}, ok, 0]},
                 run([{clear_payload, <<"/:o/b">>}, {clear_payload, <<"/:o/none">>}, {clear_many_payloads, <<"/:o/*">>},
                      {delete, <<"/:o/a">>}, {delete_many, [o, {if_all, [?ANY, {if_child_list_length, {gt, 0}}]}]},
                      {get_many, <<"/:o/**">>}, {delete, <<"/:o">>}, {count, <<"/:o/**">>}])).

adv_operations_have_one_shape(_) ->
    {ok, [Created, Put, Swapped, Read, Many, Cleared, Gone, Nothing]} =
        run([{adv, {create, <<"/:v/a">>, 1}}, {adv, {put, <<"/:v/a">>, 2}}, {adv, {compare_and_swap, <<"/:v/a">>, 2, 3}},
             {adv, {get, <<"/:v/a">>}}, {adv, {get_many, <<"/:v/*">>}}, {adv, {clear_payload, <<"/:v/a">>}},
             {adv, {delete, <<"/:v/a">>}}, {adv, {delete, <<"/:v/none">>}}]),
    A = [v, <<"a">>],
    ?assertMatch(#{A := #{payload_version := 1}}, Created),
    ?assertNot(maps:is_key(data, maps:get(A, Created))),
    ?assertMatch(#{A := #{data := 1, payload_version := 2}}, Put),
    ?assertMatch(#{A := #{data := 2, payload_version := 3}}, Swapped),
    ?assertMatch(#{A := #{data := 3, payload_version := 3, child_list_version := 1, child_list_length := 0,
                          child_names := [], has_data := true}}, Read),
    ?assertEqual(Read, Many),
    ?assertMatch(#{A := #{data := 3, payload_version := 4}}, Cleared),
    ?assertMatch(#{A := #{payload_version := 4}}, Gone),
    ?assertEqual(#{}, Nothing),
    {ok, [#{}, Procedure]} = run([{adv, {clear_payload, <<"/:v/none">>}}, {adv, {get, kb_store:procedure()}}]),
    ?assertMatch([#{sproc := 2, is_sproc := true}], maps:values(Procedure)),
    {error, {mismatching_node, _}} = run([{adv, {get, [bridge, {if_all, [identity, {if_child_list_length, 7}]}]}}]),
    [?assertMatch({error, {invalid_operation, #{index := 0}}}, run([{adv, Operation}]))
     || Operation <- [{exists, <<"/:v">>}, {count, <<"/:v">>}, {is_empty}, {abort, 1}, x, {adv, {adv, {get, <<"/:v">>}}}]].

a_failed_operation_undoes_all_and_says_where(_) ->
    Version = {if_all, [<<"a">>, {if_payload_version, 7}]},
    {ok, [ok]} = run([{put, <<"/:f/a">>, 1}]),
    [?assertMatch({error, {Reason, #{index := 1, message := _}}}, run([{put, <<"/:f/new">>, 1}, Operation]))
     || {Reason, Operation} <- [{node_not_found, {update, <<"/:f/none">>, 1}}, {node_not_found, {get, <<"/:f/none">>}},
                                {mismatching_node, {create, <<"/:f/a">>, 1}}, {mismatching_node, {put, [f, Version], 1}},
                                {mismatching_node, {compare_and_swap, <<"/:f/a">>, 2, 3}},
                                {node_not_found, {compare_and_swap, <<"/:f/none">>, undefined, 3}},
                                {mismatching_node, {compare_and_swap, <<"/:f">>, undefined, 3}},
                                {aborted, {abort, no}}, {invalid_path, {get, <<"/:f/*">>}},
                                {invalid_path, {put, <<"/:f/*">>, 1}}, {invalid_path, {delete, <<"/:f/**">>}},
                                {keep_while_conditions_not_met,
                                 {put, <<"/:f/b">>, 1, #{keep_while => #{<<"/:f/none">> => {if_node_exists, true}}}}},
                                {invalid_options, {put, <<"/:f/b">>, 1, #{async => true}}},
                                {invalid_data, {put, <<"/:f/b">>, fun() -> ok end}}]],
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:f/new">>, #{})),
    {error, {mismatching_node, #{condition := Shown, path := [f, <<"a">>]}}} = run([{put, [f, Version], 1}]),
    ?assertEqual({if_payload_version, 7}, Shown),
    {error, {mismatching_node, #{condition := Matched}}} =
        run([{put, [f, {if_all, [<<"a">>, {if_data_matches, 9, [], undefined}]}], 1}]),
    ?assertEqual({if_data_matches, 9, [], undefined}, Matched),
    ?assertMatch({error, {too_large, _}},
                 run([{put, <<"/:f/big">>, binary:copy(<<0>>, 600000)}, {get, <<"/:f/big">>}, {get, <<"/:f/big">>}])).

keep_while_follows_relative_paths(_) ->
    {ok, [ok, ok, ok]} =
        run([{put, <<"/:k/anchor">>, 1},
             {put, <<"/:k/kept">>, 1, #{keep_while => #{<<"../anchor">> => {if_node_exists, true}}}},
             {create, <<"/:k/own">>, 1, #{keep_while => #{<<".">> => {if_has_data, true}}}}]),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:k/anchor">>, ?WAIT),
    ?assertEqual({ok, [false, true]}, run([{exists, <<"/:k/kept">>}, {exists, <<"/:k/own">>}])),
    {ok, [ok, false]} = run([{clear_payload, <<"/:k/own">>}, {exists, <<"/:k/own">>}]).

put_many_gives_every_node_its_conditions(_) ->
    {ok, _} = run([{put, <<"/:m/1">>, 0}, {put, <<"/:m/2">>, 0}, {put, <<"/:m/3">>, 0}, {put, <<"/:gate">>, 1},
                   {put_many, <<"/:m/*">>, 1, #{keep_while => #{<<"/:gate">> => {if_node_exists, true}}}}]),
    ?assertEqual({ok, 3}, kb_khepri:count(?STORE, <<"/:m/*">>, #{})),
    {ok, #{keep_while := Conditions}} = kb_khepri:info(?STORE, ?WAIT),
    ?assertEqual([[m, <<"1">>], [m, <<"2">>], [m, <<"3">>]],
                 [Watcher || [m | _] = Watcher <- lists:sort(maps:keys(Conditions))]),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:gate">>, ?WAIT),
    ?assertEqual({ok, 0}, kb_khepri:count(?STORE, <<"/:m/*">>, #{})),
    %% Of none, and of one that is not there yet.
    {ok, [ok, #{}, ok, true]} =
        run([{put_many, <<"/:none/*">>, 1, #{keep_while => #{<<"/:bridge">> => {if_node_exists, true}}}},
             {adv, {put_many, <<"/:none/*">>, 1, #{keep_while => #{<<"/:bridge">> => {if_node_exists, true}}}}},
             {put_many, <<"/:none/x">>, 1, #{keep_while => #{<<"/:bridge">> => {if_node_exists, true}}}},
             {exists, <<"/:none/x">>}]).

a_pipeline_answers_every_write(_) ->
    Writes = [{{put, N}, {put, [p, integer_to_binary(N)], N}} || N <- lists:seq(1, 1000)],
    {ok, Answers} = kb_khepri:pipeline(?STORE, Writes, ?WAIT),
    ?assertEqual([{{put, N}, {ok, #{}}} || N <- lists:seq(1, 1000)], Answers),
    {ok, #{}} = kb_khepri:fence(?STORE, ?WAIT),
    ?assertEqual({ok, 1000}, kb_khepri:count(?STORE, <<"/:p/*">>, #{})),
    {ok, [{x, {ok, #{}}}, {x, {ok, #{}}}]} =
        kb_khepri:pipeline(?STORE, [{x, {put, <<"/:p/last">>, 1}}, {x, {delete, <<"/:p">>}}], ?WAIT),
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:p">>, #{favor => consistency})),
    [?assertMatch({error, {Reason, _}}, kb_khepri:pipeline(?STORE, Refused, ?WAIT))
     || {Reason, Refused} <- [{invalid_operation, []}, {invalid_operation, [x]}, {invalid_operation, [{1, {get, <<"/:p">>}}]},
                              {invalid_operation, [{1, {put, <<"/:p">>, 1}} | x]},
                              {reserved_path, [{1, {put, <<"/:q">>, 1}}, {2, {delete, <<"/:bridge">>}}]},
                              {invalid_data, [{1, {put, <<"/:q">>, 1}}, {2, {put, <<"/:q">>, fun() -> ok end}}]}]],
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:q">>, #{favor => consistency})).

the_cluster_and_the_store_are_told(_) ->
    Node = node(),
    {ok, #{members := [Node], leader := Node, running := true, machine_version := Version,
           effective_machine_version := Version, khepri := <<_, _/binary>>, otp := <<_, _/binary>>}} =
        kb_khepri:cluster(?STORE, ?WAIT),
    ?assertEqual({ok, #{leader => Node}}, kb_khepri:wait_for_leader(?STORE, ?WAIT)),
    ?assertEqual({ok, [?STORE]}, kb_khepri:stores()),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:told/deep/er">>, 1, ?WAIT),
    {ok, #{nodes := Count, members := [Node], projections := Projections}} = kb_khepri:info(?STORE, ?WAIT),
    ?assert(Count >= 3),
    ?assertEqual([kb_feed_top_v1, kb_feed_v1], [Name || #{name := Name} <- Projections]).

patterns_match_data(_) ->
    {ok, _} = run([{put, [d, integer_to_binary(N)], #{n => N}} || N <- lists:seq(1, 5)]),
    Large = {if_data_matches, #{n => '$1'}, [{'>', '$1', 3}], undefined},
    ?assertEqual({ok, 2}, kb_khepri:count(?STORE, [d, Large], #{})),
    {ok, [ok, 3]} = run([{delete_many, [d, Large]}, {count, <<"/:d/*">>}]),
    ?assertEqual({ok, 3}, kb_khepri:count(?STORE, [d, {if_name_matches, <<"^[0-9]$">>, undefined}], #{})),
    ?assertEqual({ok, 1}, kb_khepri:count(?STORE, <<"/:d/1*">>, #{})).

wildcards_keep_off_the_reserved_path(_) ->
    [?assertMatch({error, {reserved_path, _}}, run([Operation]))
     || Operation <- [{delete_many, <<"/*">>}, {delete_many, <<"/**">>}, {put_many, <<"/**">>, 1},
                      {clear_many_payloads, <<"/*/*">>}, {delete, <<"/:bridge">>}, {put, <<"/:bridge/x">>, 1},
                      {adv, {delete, [{if_all, [bridge, {if_node_exists, true}]}]}}, {delete_many, [{if_not, stock}]}]],
    {ok, [#{}]} = run([{get, <<"/:bridge">>}]).

transactions_in_one_command_are_as_if_alone(_) ->
    Op = fun(Sequence) -> {<<"group">>, 2, Sequence, 0} end,
    Group = fun(Requests) -> kb_khepri:transactions(?STORE, Requests, ?WAIT) end,
    First = [{[{put, <<"/:g/a">>, 1}], Op(1)}, {[{get, <<"/:g/a">>}, {put, <<"/:g/a">>, 2}], Op(2)}],
    Told = {ok, [{ok, [ok]}, {ok, [#{data => 1}, ok]}]},
    [?assertEqual(Told, Group(First)) || _ <- [1, 2]],
    %% One id twice, and what came alone before its group did.
    ?assertEqual({ok, [{ok, [ok]}, {ok, [ok]}]}, Group([{[{create, <<"/:g/once">>, 1}], Op(3)} || _ <- [1, 2]])),
    Failing = [{[{put, <<"/:g/beside">>, 1}], Op(4)}, {[{put, <<"/:g/undone">>, 1}, {abort, late}], Op(5)}],
    ?assertMatch({error, {ungrouped, _}}, Group(Failing)),
    ?assertEqual({ok, 0}, kb_khepri:count(?STORE, [g, {if_any, [<<"beside">>, <<"undone">>]}], #{favor => consistency})),
    [{_, _}, {Aborting, Fifth}] = Failing,
    {error, {aborted, #{reason := late, index := 1}}} = kb_khepri:transaction(?STORE, Aborting, Fifth, ?WAIT),
    ?assertMatch({ok, [{ok, [ok]}, {error, {aborted, #{reason := late}}}]}, Group(Failing)),
    ?assertEqual({ok, #{data => 2, payload_version => 2}},
                 kb_khepri:get(?STORE, <<"/:g/a">>, #{props_to_return => [payload, payload_version]})),
    %% What is not to be committed together is sent alone.
    Put = fun(Name, Id) -> {[{put, [g, Name], 1}], Id} end,
    Refused = [[Put(<<"r">>, Op(10)), Put(<<"r">>, {<<"other">>, 2, 1, 0})], [Put(<<"r">>, Op(10)), Put(<<"r">>, {<<"group">>, 3, 1, 0})],
               [Put(<<"r">>, Op(10)), {[{put, <<"/:g/*">>, 1}], Op(11)}], [Put(<<"r">>, Op(10)), x], [Put(<<"r">>, Op(10)), {[], Op(11)}],
               [Put(<<"r">>, Op(10)), Put(<<"r">>, {<<"group">>, 2, 0, 0})],
               [{lists:duplicate(501, {get, <<"/:g">>}), Op(Sequence)} || Sequence <- [10, 11]],
               [{[{put, <<"/:g/r">>, binary:copy(<<0>>, 600000)}], Op(Sequence)} || Sequence <- [10, 11]]],
    [?assertMatch({Row, {error, {ungrouped, _}}}, {Row, Group(Requests)}) || {Row, Requests} <- lists:enumerate(Refused)],
    [?assertMatch({Row, {error, {invalid_options, _}}}, {Row, Group(Requests)})
     || {Row, Requests} <- lists:enumerate([[], x, #{}, [Put(<<"r">>, Op(10)) | x],
                                            [Put(<<"r">>, Op(Sequence)) || Sequence <- lists:seq(10, 74)]])],
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:g/r">>, #{favor => consistency})),
    %% The low-water mark of each counts, as does an older incarnation.
    Low = fun(Name, Sequence, LowWater) -> Put(Name, {<<"low">>, 1, Sequence, LowWater}) end,
    {ok, [{ok, [ok]}, {ok, [ok]}]} = Group([Low(<<"a">>, 1, 0), Low(<<"a">>, 5, 4)]),
    ?assertMatch({ok, [{error, {outcome_unknown, _}}, {ok, [ok]}, {error, {outcome_unknown, _}}]},
                 Group([Low(<<"low">>, 3, 0), Low(<<"b">>, 9, 8), Low(<<"low">>, 8, 0)])),
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:g/low">>, #{favor => consistency})),
    {ok, [{ok, [ok]}]} = Group([Put(<<"a">>, {<<"low">>, 2, 1, 0})]),
    ?assertMatch({ok, [{error, {outcome_unknown, _}}]}, Group([Low(<<"low">>, 10, 0)])).

writes_in_one_command_are_as_if_alone(_) ->
    Write = fun(Writes) -> kb_khepri:writes(?STORE, Writes, ?WAIT) end,
    {ok, [ok, ok]} = run([{put, <<"/:w/host">>, 1}, {put, <<"/:w/guest">>, 1, #{keep_while => #{<<"/:w/host">> => {if_node_exists, true}}}}]),
    ?assertEqual({ok, #{}}, Write([{put, <<"/:w/a">>, 1}, {put, <<"/:w/a">>, 1}, {put, <<"/:w/a">>, 2}, {delete, <<"/:w/none">>},
                                   {put, [w, <<"b">>, c], 3}, {delete, <<"/:w/host">>}])),
    {ok, Found} = kb_khepri:get_many(?STORE, <<"/:w/**">>, #{favor => consistency, props_to_return => [payload, payload_version]}),
    %% Equal data is no new version, and what a node was kept by goes with it.
    ?assertEqual(#{[w, <<"a">>] => #{data => 2, payload_version => 2}, [w, <<"b">>] => #{payload_version => 1},
                   [w, <<"b">>, c] => #{data => 3, payload_version => 1}}, Found),
    {ok, #{}} = Write([{delete, [w, <<"b">>, c]}]),
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:w/b">>, #{favor => consistency})),
    [?assertMatch({Row, {error, {ungrouped, _}}}, {Row, Write([{put, <<"/:w/r">>, 1} | Others])})
     || {Row, Others} <- lists:enumerate([[x], [{put, <<"/:w/*">>, 1}], [{delete, <<"/:bridge/x">>}], [{put, <<"/:w">>, fun() -> ok end}],
                                          [{put, <<"/:w/r">>, binary:copy(<<0>>, 1048576)}], [{get, <<"/:w">>}]])],
    [?assertMatch({error, {invalid_options, _}}, Write(Writes))
     || Writes <- [[], x, [{delete, <<"/:w">>} | x], lists:duplicate(65, {delete, <<"/:w">>})]],
    ?assertEqual({ok, false}, kb_khepri:exists(?STORE, <<"/:w/r">>, #{favor => consistency})).

reads_in_one_message_are_as_if_alone(_) ->
    {ok, [ok, ok]} = run([{put, <<"/:e/a">>, 1}, {put, <<"/:e/large">>, binary:copy(<<0>>, 70000)}]),
    Large = kb_khepri:get(?STORE, <<"/:e/large">>, #{}),
    Read = fun(Paths) -> kb_khepri:get_each(?STORE, Paths, #{}) end,
    ?assertMatch({ok, [{ok, #{data := 1}}, {error, {node_not_found, _}}, {error, {invalid_path, _}}, {error, {invalid_path, _}}]},
                 Read([<<"/:e/a">>, <<"/:e/b">>, <<"/:e/*">>, x])),
    ?assertMatch({ok, [{ok, _}, Large, {error, {ungrouped, _}}, {error, {ungrouped, _}}]},
                 Read([<<"/:e/a">>, <<"/:e/large">>, <<"/:e/a">>, <<"/:e/none">>])),
    ?assertEqual({ok, []}, Read([])),
    [?assertMatch({error, {invalid_options, _}}, Read(Paths)) || Paths <- [x, [<<"/:e">> | x], lists:duplicate(65, <<"/:e">>)]].

run(Operations) ->
    kb_khepri:transaction(?STORE, Operations, {<<"suite">>, 1, erlang:unique_integer([positive, monotonic]), 0}, ?WAIT).
