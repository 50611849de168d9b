%% Files of Khepri's own export, both ways, and files of anybody else.
-module(kb_export_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([what_is_exported_comes_back_by_khepri_and_by_us/1, a_file_of_khepri_is_imported/1, conditions_come_back/1,
         the_homeservers_own_nodes_never_leave/1, what_the_format_cannot_carry_is_refused/1,
         a_file_is_checked_before_anything_is_written/1, atoms_of_a_file_are_bounded/1, many_nodes_are_fast/1,
         any_bytes_are_answered/1]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 30000}).

all() ->
    [what_is_exported_comes_back_by_khepri_and_by_us, a_file_of_khepri_is_imported, conditions_come_back,
     the_homeservers_own_nodes_never_leave, what_the_format_cannot_carry_is_refused,
     a_file_is_checked_before_anything_is_written, atoms_of_a_file_are_bounded, many_nodes_are_fast,
     any_bytes_are_answered].

init_per_suite(Config) ->
    true = os:putenv("KB_DATA_DIR", filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING)),
    true = os:putenv("KB_FUNCTIONS", "kb_demo_functions:add/2"),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    Config.

end_per_suite(_) ->
    true = os:unsetenv("KB_FUNCTIONS"),
    [ok = application:stop(Application) || Application <- [khepri_bridge, khepri, ra]].

end_per_testcase(_, _) ->
    [{ok, #{}} = kb_khepri:delete(?STORE, Path, ?WAIT) || Path <- [<<"/:t">>, <<"/:watched">>, <<"/:implicit">>, <<"/x">>]],
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:alive">>, 1, ?WAIT),
    ok = application:stop(khepri_bridge),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:alive">>, 2, ?WAIT).

%% What Erlang writes in a way of its own.
samples() ->
    [1, -5, 1.0e300, -0.0, 1 bsl 200, a, 'A b', '\x{e9}', 'with \'quotes\' \\', "text", "\x{e9}\n\"", [322, 8364], <<"bytes">>,
     <<"f\x{fc}r"/utf8>>, <<255, 0>>, <<5:3>>, {}, {a, [b | c]}, #{1 => a, 1.0 => b, [k] => #{}}, [], [[], [[]]], ". ", ".\n",
     <<".\n">>, $$, "$'", 'fun', 'case', '', true, "%", '%', <<"a%b'c\"d">>, lists:seq(1, 200), "16#ff"].

tree() -> maps:from_list([{[t, <<(integer_to_binary(N))/binary, "/é%"/utf8>>, sub], Data} || {N, Data} <- lists:enumerate(samples())]).

write() -> [{ok, #{}} = kb_khepri:put(?STORE, Path, Data, ?WAIT) || {Path, Data} <- maps:to_list(tree())].

read() ->
    {ok, Found} = khepri:get_many(?STORE, [t, {if_path_matches, any, undefined}], #{}),
    maps:filter(fun(_, Data) -> Data =/= undefined end, Found).

what_is_exported_comes_back_by_khepri_and_by_us(Config) ->
    _ = write(),
    {ok, #{bytes := Bytes, nodes := Count}} = kb_export:export(?STORE, <<"/:t/**">>, ?WAIT),
    %% Each has a parent that Khepri made, with a condition.
    ?assertEqual(2 * map_size(tree()), Count),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:t">>, ?WAIT),
    File = filename:join(proplists:get_value(priv_dir, Config), "ours"),
    ok = file:write_file(File, Bytes),
    ok = khepri:import(?STORE, khepri_export_erlang, File),
    ?assertEqual(tree(), read()),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:t">>, ?WAIT),
    ?assertEqual({ok, #{nodes => map_size(tree())}}, kb_export:import(?STORE, Bytes, ?WAIT)),
    ?assertEqual(tree(), read()),
    %% Again: nothing is different, and others stay.
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:t/other">>, 1, ?WAIT),
    {ok, #{}} = kb_khepri:put(?STORE, [t, <<"1/é%"/utf8>>, sub], changed, ?WAIT),
    {ok, _} = kb_export:import(?STORE, Bytes, ?WAIT),
    ?assertEqual((tree())#{[t, <<"other">>] => 1}, read()).

a_file_of_khepri_is_imported(Config) ->
    _ = write(),
    File = filename:join(proplists:get_value(priv_dir, Config), "theirs"),
    ok = khepri:export(?STORE, [t, {if_path_matches, any, undefined}], khepri_export_erlang, File),
    {ok, Bytes} = file:read_file(File),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:t">>, ?WAIT),
    ?assertEqual({ok, #{nodes => map_size(tree())}}, kb_export:import(?STORE, Bytes, ?WAIT)),
    ?assertEqual(tree(), read()).

%% Also about nodes that come later in the file, and round about.
conditions_come_back(_) ->
    Exists = {if_node_exists, true},
    Put = fun(Path, Number, KeepWhile) ->
                  {ok, [ok]} = kb_khepri:transaction(?STORE, [{put, Path, Number, #{keep_while => KeepWhile}}],
                                                  {<<"conditions">>, 1, Number, 0}, ?WAIT)
          end,
    [{ok, _} = kb_khepri:put(?STORE, Path, 0, ?WAIT) || Path <- [<<"/:t/z">>, <<"/:watched">>, <<"/:implicit/a/b">>, <<"/:implicit">>]],
    Put(<<"/:t/a">>, 1, #{<<"/:t/z">> => Exists}),
    Put(<<"/:t/z">>, 2, #{<<"/:t/a">> => Exists, <<"/:watched">> => {if_has_data, true}}),
    Put(<<"/:t/own">>, 3, #{<<".">> => {if_child_list_length, 0}}),
    {ok, #{bytes := Bytes}} = kb_export:export(?STORE, <<"/**">>, ?WAIT),
    {ok, Before} = khepri_machine:get_keep_while_conds_state(?STORE, #{}),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:implicit">>, ?WAIT),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:watched">>, ?WAIT),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:t">>, ?WAIT),
    {ok, _} = kb_export:import(?STORE, Bytes, ?WAIT),
    {ok, After} = khepri_machine:get_keep_while_conds_state(?STORE, #{}),
    ?assertEqual(Before, After),
    {ok, _} = kb_khepri:delete(?STORE, <<"/:watched">>, ?WAIT),
    ?assertEqual({ok, [t, <<"own">>]}, case maps:keys(read()) of [Only] -> {ok, Only}; Keys -> Keys end),
    %% One whose condition does not hold here.
    ?assertMatch({error, {keep_while_conditions_not_met, #{path := [t, a]}}},
                 kb_export:import(?STORE, <<"{put,[t,a],{p_data,1},#{keep_while => #{[nobody] => {if_node_exists,true}}}}.">>,
                                  ?WAIT)).

the_homeservers_own_nodes_never_leave(_) ->
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:t">>, 1, ?WAIT),
    [begin
         {ok, #{bytes := Bytes}} = kb_export:export(?STORE, Pattern, ?WAIT),
         ?assertEqual(nomatch, binary:match(Bytes, <<"bridge">>), Pattern)
     end || Pattern <- [<<"/**">>, <<"/*">>, <<"/:bridge/**">>, <<"/:bridge/:identity">>, <<"/*/:identity">>]],
    [?assertMatch({error, {reserved_path, #{line := 1}}},
                  kb_export:import(?STORE, iolist_to_binary(io_lib:format("~p.~n", [{put, Path, {p_data, 1}, #{}}])), ?WAIT))
     || Path <- [[bridge], [bridge, identity], [bridge, clients, <<"x">>]]].

what_the_format_cannot_carry_is_refused(_) ->
    [begin
         {ok, #{}} = kb_khepri:put(?STORE, <<"/:t/a">>, Data, ?WAIT),
         ?assertMatch({error, {invalid_data, #{path := [t, <<"a">>]}}}, kb_export:export(?STORE, <<"/:t/**">>, ?WAIT))
     end || Data <- [self(), [make_ref()], #{a => {1 bsl 100000}}, [a | self()]]],
    {ok, _} = kb_procedures:put_sproc(?STORE, <<"/:t/a">>, {kb_demo_functions, add, 2}, ?WAIT),
    {ok, #{bytes := Bytes}} = kb_export:export(?STORE, <<"/:t/**">>, ?WAIT),
    ?assertMatch({error, {not_allowed, #{line := 2, message := _}}}, kb_export:import(?STORE, Bytes, ?WAIT)).

a_file_is_checked_before_anything_is_written(_) ->
    Good = <<"{put,[t,<<\"good\">>],{p_data,1},#{}}.\n">>,
    Bad = [{invalid_data, "{put,[t],{p_data,1}}."}, {invalid_data, "{delete,[t],#{}}."}, {invalid_data, "{put,[t],{p_data,1},#{}}"},
           {invalid_data, "hello"}, {invalid_data, "}."}, {invalid_data, "{put,[t],{p_data,self()},#{}}."},
           {invalid_data, "{put,[t],{p_data,fun erlang:halt/0},#{}}."}, {invalid_data, "{put,[t],{p_data,X},#{}}."},
           {invalid_data, "{put,[t],{p_data,<<1:99999999999>>},#{}}."}, {invalid_data, "{put,[t],{p_data,<<1:(9999*9999)>>},#{}}."},
           {invalid_data, "{put,[t],{p_data," ++ lists:duplicate(20001, $7) ++ "},#{}}."},
           {invalid_data, "{put,[t],{p_data," ++ lists:duplicate(1021, $a) ++ "},#{}}."},
           {invalid_data, "{put,[t],{p_data,1},#{}}. {put,[t],{p_data,1},#{}}."}, {invalid_data, "{put,[t],x,#{}}."},
           {invalid_path, "{put,\"/t\",{p_data,1},#{}}."}, {invalid_path, "{put,<<\"/t\">>,{p_data,1},#{}}."},
           {invalid_path, "{put,[],{p_data,1},#{}}."}, {invalid_path, "{put,[t,{if_name_matches,any,undefined}],{p_data,1},#{}}."},
           {invalid_path, "{put,[t|u],{p_data,1},#{}}."}, {invalid_options, "{put,[t],{p_data,1},#{async => true}}."},
           {invalid_options, "{put,[t],{p_data,1},#{keep_while => []}}."},
           {poison, "{put,[t],{p_data,1},#{keep_while => #{[u] => {if_data_matches,'_',[],undefined}}}}."},
           {poison, "{put,[t],{p_data,1},#{keep_while => #{[u] => {if_all,x}}}}."},
           {poison, "{put,[t],'$__NO_PAYLOAD__',#{keep_while => #{[u] => {if_not,{if_data_matches,'_',[],undefined}}}}}."}],
    [?assertMatch({Text, {error, {Reason, #{line := 2, message := _}}}},
                  {Text, kb_export:import(?STORE, <<Good/binary, (list_to_binary(Text))/binary>>, ?WAIT)})
     || {Reason, Text} <- Bad],
    ?assertMatch({error, {too_large, _}},
                 kb_export:import(?STORE, <<"{put,[t],{p_data,\"", (binary:copy(<<"€"/utf8>>, 1000000))/binary, "\"},#{}}.\n">>, ?WAIT)),
    ?assertEqual(#{}, read()),
    ?assertEqual({ok, #{nodes => 2}},
                 kb_export:import(?STORE, <<"%% coding: utf-8\n\n", Good/binary,
                                            "{put,\n [t,<<\"\\x{e9}\"/utf8>>],\n{p_data,\"", 16#c3, 16#a9, "\n\"},#{}}.">>, ?WAIT)),
    ?assertEqual(#{[t, <<"good">>] => 1, [t, <<195, 169>>] => [233, $\n]}, read()),
    ?assertMatch({error, {invalid_data, #{line := 2}}},
                 kb_export:import(?STORE, <<"%% coding: utf-8\n{put,[t],{p_data,\"", 16#e9, "\"},#{}}.">>, ?WAIT)),
    ?assertEqual({ok, #{nodes => 0}}, kb_export:import(?STORE, <<>>, ?WAIT)).

%% More words than there is room for are counted before they become atoms.
atoms_of_a_file_are_bounded(_) ->
    Room = erlang:system_info(atom_limit) div 2,
    Words = [[",kb_word_", integer_to_binary(N)] || N <- lists:seq(1, Room)],
    Line = iolist_to_binary(["{put,[t],{p_data,[a", Words, "]},#{}}.\n"]),
    Before = erlang:system_info(atom_count),
    ?assertMatch({error, {atom_budget, #{line := 1}}}, kb_export:import(?STORE, Line, ?WAIT)),
    Quoted = iolist_to_binary(["{put,[t],{p_data,[a", [[",'Kb ", integer_to_binary(N), $'] || N <- lists:seq(1, Room)], "]},#{}}.\n"]),
    ?assertMatch({error, {atom_budget, #{line := 1}}}, kb_export:import(?STORE, Quoted, ?WAIT)),
    %% Nor does what looks like a text here and is none to the scanner.
    Many = iolist_to_binary([Words, "]},#{}}.\n"]),
    [?assertMatch({Head, {error, {Reason, #{line := _}}}} when Reason =:= atom_budget; Reason =:= invalid_data,
                  {Head, kb_export:import(?STORE, <<"{put,[t],{p_data,[", Head/binary, Many/binary>>, ?WAIT)})
     || Head <- [<<"\"\n\"">>, <<"$\\^\"">>, <<"\"\\^\"\"">>, <<"\"\\\n\"">>, <<"\"\"\"\n\"\n\"\"\"">>, <<"~S\"\\\"">>, <<"~s'\"'">>,
                 <<"'\n'">>, <<"'\n\"'">>, <<"$\"">>, <<"$">>, <<"$\\\"">>, <<"\"\\x{22}\"">>, <<"%\"\n">>]],
    %% One at a time, when there is no room: a name over two lines is another than its second half.
    ?assertMatch({error, {invalid_data, #{line := 1}}}, kb_export:import(?STORE, <<"{put,[t],{p_data,'a\nok'},#{}}.">>, ?WAIT)),
    ?assert(erlang:system_info(atom_count) - Before < 1000).

many_nodes_are_fast(_) ->
    Count = 18000,
    Record = fun(N) -> io_lib:format("{put,[t,<<\"~b\">>,<<\"~b\">>],{p_data,#{number => ~b,text => <<\"some text\">>}},#{}}.~n", [N rem 100, N, N]) end,
    Bytes = iolist_to_binary([Record(N) || N <- lists:seq(1, Count)]),
    {Imported, {ok, #{nodes := Count}}} = timer:tc(fun() -> kb_export:import(?STORE, Bytes, ?WAIT) end),
    {Exported, {ok, #{nodes := Nodes, bytes := Again}}} = timer:tc(fun() -> kb_export:export(?STORE, <<"/:t/**">>, ?WAIT) end),
    ?assertEqual(Count + 100, Nodes),
    {Repeated, {ok, #{nodes := Count}}} = timer:tc(fun() -> kb_export:import(?STORE, Again, ?WAIT) end),
    ?assertEqual(Count, map_size(read())),
    ct:log("~b nodes: import ~b ms, export ~b ms, import of that ~b ms", [Count, Imported div 1000, Exported div 1000, Repeated div 1000]).

any_bytes_are_answered(_) ->
    _ = rand:seed(exsss, {1, 2, 3}),
    _ = write(),
    {ok, #{bytes := Bytes}} = kb_export:export(?STORE, <<"/:t/**">>, ?WAIT),
    Lines = binary:split(Bytes, <<"\n">>, [global, trim]),
    [begin
         Line = kb_random_terms:one_of(Lines),
         At = rand:uniform(byte_size(Line)) - 1,
         <<Head:At/binary, _, Tail/binary>> = Line,
         Input = kb_random_terms:one_of([<<Head/binary, (rand:uniform(256) - 1), Tail/binary>>, Head, rand:bytes(20),
                                         kb_random_terms:any()]),
         Calls = [fun() -> kb_export:import(?STORE, Input, ?WAIT) end,
                  fun() -> kb_export:export(?STORE, Input, ?WAIT) end,
                  fun() -> kb_export:export(kb_random_terms:any(), <<"/:t">>, Input) end,
                  fun() -> kb_export:import(?STORE, Bytes, Input) end],
         case (kb_random_terms:one_of(Calls))() of
             {ok, _} -> ok;
             {error, {Reason, #{message := Message}}} when is_atom(Reason), is_binary(Message) -> ok;
             Other -> error({Input, Other})
         end
     end || _ <- lists:seq(1, 1500)].
