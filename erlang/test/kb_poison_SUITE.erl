%% What would kill a store of Khepri for good, as callers could send it: every row is refused, or harmless.
%%
%% Khepri evaluates conditions inside Ra's apply with nothing around a put or delete. What raises there is in the
%% log, and raises again after every restart: so each row is followed by a write, and all of them by a restart.
-module(kb_poison_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([conditions_of_the_table_are_refused/1, its_neighbours_are_refused/1, data_of_every_kind_is_kept_or_refused/1,
         slow_expressions_end/1, what_is_let_through_can_be_evaluated/1, keep_while_that_is_let_through_is_harmless/1,
         patterns_that_are_let_through_are_harmless/1, nothing_raises/1, the_store_starts_again/1]).

%% Debian's package of PropEr has no header, and fails on an exception where Erlang is newer than itself.
-define(FORALL(Bound, Type, Property), proper:forall(Type, fun(Bound) -> holds(fun() -> Property end) end)).
-define(SIZED(Size, Type), proper_types:sized(fun(Size) -> Type end)).
-define(LAZY(Type), proper_types:lazy(fun() -> Type end)).
-import(proper_types, [any/0, atom/0, binary/0, boolean/0, elements/1, frequency/1, integer/0, list/1, non_empty/1,
                       non_neg_integer/0, oneof/1, pos_integer/0, resize/2, vector/2]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 5000}).
-define(DATA, {if_data_matches, '_', [], undefined}).

suite() -> [{timetrap, {seconds, 240}}].

all() ->
    [conditions_of_the_table_are_refused, its_neighbours_are_refused, data_of_every_kind_is_kept_or_refused,
     slow_expressions_end, what_is_let_through_can_be_evaluated, keep_while_that_is_let_through_is_harmless,
     patterns_that_are_let_through_are_harmless, nothing_raises, the_store_starts_again].

init_per_suite(Config) ->
    true = os:putenv("KB_DATA_DIR", filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING)),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    {ok, [ok]} = run([{put, <<"/:s/a">>, 1}]),
    Config.

end_per_suite(_) ->
    [ok = application:stop(Application) || Application <- [khepri_bridge, khepri, ra]].

conditions_of_the_table_are_refused(_) ->
    BadGuard = {if_data_matches, '_', [{no_such_guard, 1}], undefined},
    refused([fun() -> keep_while(Condition) end
             || Condition <- [?DATA, {if_not, ?DATA}, {if_any, [{if_node_exists, true}, ?DATA]}, {if_all, not_a_list}]]
            ++ [fun() -> run([{Operation, [s, Condition]}]) end
                || Operation <- [get, get_many, delete, delete_many, clear_payload, clear_many_payloads, exists, count],
                   Condition <- [BadGuard, {if_data_matches, '_', [], compiled}, {if_data_matches, '_', [], [x]}]]
            ++ [fun() -> run([{Operation, [s, {if_all, [<<"a">>, BadGuard]}], 2}]) end
                || Operation <- [put, put_many, create, update]]
            ++ [fun() -> kb_khepri:put(?STORE, [s, BadGuard], 1, ?WAIT) end,
                fun() -> kb_khepri:put(?STORE, [s, ?DATA], 1, ?WAIT) end,
                fun() -> kb_khepri:delete(?STORE, [s, BadGuard], ?WAIT) end,
                fun() -> kb_khepri:delete(?STORE, <<"/:s/*">>, ?WAIT) end,
                fun() -> kb_khepri:pipeline(?STORE, [{1, {delete, [s, BadGuard]}}], ?WAIT) end,
                fun() -> kb_khepri:get_many(?STORE, [s, BadGuard], #{}) end]).

its_neighbours_are_refused(_) ->
    Deep = lists:foldl(fun(_, Inner) -> {if_not, Inner} end, {if_node_exists, true}, lists:seq(1, 10000)),
    Wide = {if_all, lists:duplicate(100000, {if_node_exists, true})},
    Everywhere = [Deep, Wide, {if_all, [{if_node_exists, true} | improper]}, {if_any, #{}}, {if_node_exists, 1}, {if_has_data},
                  {if_has_payload, undefined}, {if_payload_version, 1.0}, {if_payload_version, {gt, -1}},
                  {if_child_list_length, {gt, {gt, 1}}}, {if_child_list_length, {between, 1}}, {if_child_list_version, -1},
                  {if_name_matches, <<"(">>, undefined}, {if_name_matches, <<"a">>, {ok, compiled}},
                  {if_name_matches, binary:copy(<<"a|">>, 10000), undefined}, {if_path_matches, <<"(*UTF8)a">>, undefined},
                  {if_name_matches, [1000], undefined}, {if_name_matches, nil, undefined}, {if_all, [47]}, {if_all, [94]},
                  {if_any, [<<>>]}, {if_any, ['\x{65e5}']}, {if_any, [<<"a">>, {if_not, ?DATA, 1}]}, {if_not, 1.0},
                  {if_data_matches, '_', []}, {if_data_matches, '_', [], undefined, undefined},
                  {if_data_matches, '_', [{'>', {'*', '$_', '$_'}, 1}], undefined},
                  {if_data_matches, '_', [{'=:=', {self}, 1}], undefined},
                  {if_data_matches, '_', [{'>', {'bsl', 1, {'bsl', 1, 60}}, 0}], undefined},
                  {if_data_matches, fun() -> ok end, [], undefined},
                  {if_data_matches, lists:seq(1, 100000), [], undefined}, {}, {if_nothing, true}, 1, [], #{}, <<>>, ''],
    refused([fun() -> keep_while(Condition) end || Condition <- Everywhere]
            ++ [fun() -> run([{delete_many, [s, Condition]}]) end || Condition <- Everywhere]
            ++ [fun() -> run([{adv, {put_many, [s, Condition, x], 1}}]) end || Condition <- Everywhere]
            ++ [fun() -> kb_khepri:get_many(?STORE, [s, Condition], #{}) end || Condition <- Everywhere]
            ++ [fun() -> run([{put, <<"/:s/a">>, 1, #{keep_while => Watched}}]) end
                || Watched <- [maps:from_list([{[s, integer_to_binary(N)], {if_node_exists, true}} || N <- lists:seq(1, 100000)]),
                               #{[s, ?DATA] => {if_node_exists, true}}, #{[s | x] => {if_node_exists, true}},
                               #{<<255>> => {if_node_exists, true}},
                               #{['\x{65e5}'] => {if_node_exists, true}}, [{[s], {if_node_exists, true}}], x]]
            ++ [fun() -> run([Operation]) end
                || Operation <- [{put, ['\x{65e5}'], 1}, {put, [s | a], 1}, {put, lists:duplicate(65, a), 1},
                                 {put, <<"/:s/a">>, 1, #{async => true}}, {put, <<"/:s/a">>, 1, #{expect_specific_node => x}},
                                 {put, [bridge, clients], 1}, {delete_many, <<"/**">>}, {put, [], 1}, {delete, <<"/">>},
                                 {delete_many, <<"/:s/**/**/**">>}, {count, <<"/**/x/**/**/y">>},
                                 {transaction, fun() -> ok end}, {put}, put, {}, {adv, {}}]]
            ++ [fun() -> run(lists:duplicate(1001, {get, <<"/:s/a">>})) end,
                fun() -> kb_khepri:pipeline(?STORE, lists:duplicate(10001, {1, {delete, <<"/:s/b">>}}), ?WAIT) end]),
    %% Conditions that hold of what is not there: Khepri itself raises on it.
    unharmed([fun() -> run([{put_many, [none, {if_not, {if_any, []}}], 1, #{keep_while => #{<<".">> => {if_any, []}}}}]) end,
              fun() -> run([{put, [s, {if_any, [x, {if_node_exists, false}]}], 1}]) end,
              fun() -> run([{put, [s, {if_not, x}], 1}]) end,
              fun() -> run([{update, [s, {if_all, [x, y, z]}], 1}]) end,
              fun() -> run([{put, <<"/:s/a">>, 1, #{keep_while => #{<<"/">> => {if_child_list_length, {gt, 100}}}}}]) end,
              fun() -> run([{put, <<"/:s/a">>, 1, #{keep_while => #{<<"../../../..">> => {if_name_matches, <<"x">>, undefined}}}}]) end,
              fun() -> run([{put, <<"/:s/a">>, 1, #{keep_while => #{<<".">> => {if_node_exists, false}}}}]) end,
              fun() -> run([{put, <<"/:loop/a">>, 1, #{keep_while => #{<<"../b">> => {if_not, {if_name_matches, any, undefined}}}}}]) end]).

data_of_every_kind_is_kept_or_refused(_) ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    Nested = lists:foldl(fun(_, Inner) -> [Inner] end, [], lists:seq(1, 100000)),
    [begin
         ?assertEqual({ok, #{}}, kb_khepri:put(?STORE, <<"/:s/data">>, Data, ?WAIT)),
         ?assertEqual({ok, #{data => Data}}, kb_khepri:get(?STORE, <<"/:s/data">>, #{favor => consistency})),
         ?assertEqual({ok, [#{data => Data}]}, run([{get, <<"/:s/data">>}]))
     end || Data <- [Pid, make_ref(), hd(erlang:ports()), <<5:3>>, #{#{a => 1} => #{}}, -0.0, 1 bsl 1000000, -(1 bsl 64),
                     [a | b], '\x{65e5}', '', {}, <<>>, "", Nested, undefined, '_', '$1', {p_data, 1}, {p_sproc, x, y},
                     '$__NO_PAYLOAD__', {khepri, node_not_found, #{}}, {error, timeout}, ?DATA, binary:copy(<<0>>, 1048000)]],
    refused([fun() -> kb_khepri:put(?STORE, <<"/:s/data">>, Data, ?WAIT) end
             || Data <- [fun() -> ok end, fun erlang:halt/0, [1, 2 | fun erlang:halt/0], #{fun erlang:halt/0 => 1},
                         #{1 => {2, [fun() -> Pid end]}}, binary:copy(<<0>>, 1048577), lists:duplicate(1048577, 0)]]
            ++ [fun() -> run([{compare_and_swap, <<"/:s/data">>, fun() -> ok end, 1}]) end,
                fun() -> run([{abort, fun() -> ok end}]) end]).

%% Each took seconds for one name of a kilobyte, while the store waited.
slow_expressions_end(_) ->
    Name = binary:copy(<<"a">>, 1000),
    {ok, [ok]} = run([{put, [slow, <<Name/binary, "!">>], 1}]),
    Slow = [<<"^(a+)+$">>, <<"(a|aa)+$">>, <<"^a*a*a*a*$">>, <<"^(?=(a+)+$)a">>, <<"(a*)*(a*)*b">>, <<"((a{1,30}){1,30}){1,9}$">>],
    unharmed([fun() -> run([{delete_many, [slow, {if_name_matches, Expression, undefined}]}]) end || Expression <- Slow]
             ++ [fun() -> run([{put, <<"/:s/a">>, 1, #{keep_while => #{[slow, {if_path_matches, Expression, undefined}] =>
                                                                           {if_node_exists, true}}}}]) end || Expression <- Slow]
             ++ [fun() -> run([{put, <<"/:s/b">>, 1, #{keep_while => #{[slow, <<Name/binary, "!">>] =>
                                                                           {if_not, {if_name_matches, Expression, undefined}}}}}]) end
                 || Expression <- Slow]),
    {Spent, {ok, 0}} =
        timer:tc(fun() -> kb_khepri:count(?STORE, [slow, {if_name_matches, <<"^a*a*a*a*$">>, undefined}], #{}) end),
    ?assert(Spent < 1000000).

what_is_let_through_can_be_evaluated(_) ->
    true = proper:quickcheck(
             ?FORALL({Condition, Use, Name, Node}, {condition(), elements([pattern, keep_while]), name(), tree_node()},
                     case kb_condition:is_name(Name) andalso kb_condition:checked(Condition, Use) of
                         %% Such a node cannot be put.
                         false -> true;
                         {ok, Checked} ->
                             true = khepri_condition:is_valid(Checked),
                             Ready = case Use of
                                         pattern -> khepri_condition:compile(Checked);
                                         keep_while -> Checked
                                     end,
                             _ = khepri_condition:applies_to_grandchildren(Ready),
                             _ = khepri_path:component_targets_specific_node(Ready),
                             case khepri_condition:is_met(Ready, Name, Node) of
                                 true -> true;
                                 {false, _} -> true
                             end;
                         {poison, Message} -> is_binary(Message)
                     end), [{numtests, 5000}, {to_file, user}, quiet]).

keep_while_that_is_let_through_is_harmless(_) ->
    true = proper:quickcheck(
             ?FORALL({Condition, Watched}, {condition(), watched()},
                     begin
                         answered(run([{put, <<"/:kw/x">>, 1, #{keep_while => #{Watched => Condition}}}])),
                         %% Plain writes on what is watched, with nothing around them.
                         {ok, #{}} = kb_khepri:put(?STORE, <<"/:kw/y">>, 1, ?WAIT),
                         {ok, #{}} = kb_khepri:put(?STORE, <<"/:kw/x">>, 2, ?WAIT),
                         {ok, #{}} = kb_khepri:put(?STORE, <<"/:kw/x/z">>, 2, ?WAIT),
                         {ok, #{}} = kb_khepri:delete(?STORE, <<"/:kw/y">>, ?WAIT),
                         {ok, #{}} = kb_khepri:delete(?STORE, <<"/:kw/x/z">>, ?WAIT),
                         true
                     end), [{numtests, 150}, {to_file, user}, quiet]).

patterns_that_are_let_through_are_harmless(_) ->
    Restore = [{put, [pt, Name], 1} || Name <- [<<"a">>, b, <<255>>]],
    true = proper:quickcheck(
             ?FORALL({Conditions, Operation}, {resize(3, non_empty(list(condition()))), elements([put, put_many, create, delete,
                                                                            delete_many, clear_many_payloads, get, get_many, count])},
                     begin
                         Path = [pt | Conditions],
                         answered(run(Restore ++ case lists:member(Operation, [put, put_many, create]) of
                                                     true -> [{Operation, Path, 2}];
                                                     false -> [{Operation, Path}]
                                                 end)),
                         answered(kb_khepri:get_many(?STORE, Path, #{})),
                         {ok, #{}} = kb_khepri:put(?STORE, [pt, b], 3, ?WAIT),
                         true
                     end), [{numtests, 150}, {to_file, user}, quiet]).

nothing_raises(_) ->
    Functions = [{Module, Name, Arity} || Module <- [kb_khepri, kb_api], {Name, Arity} <- Module:module_info(exports),
                                          Name =/= module_info],
    true = proper:quickcheck(
             ?FORALL({{Module, Function, Arity}, Arguments}, {elements(Functions), vector(4, argument())},
                     begin
                         answered(apply(Module, Function, lists:sublist([?STORE | Arguments], Arity))),
                         shaped(apply(Module, Function, lists:sublist(Arguments, Arity))),
                         {ok, #{}} = kb_khepri:put(?STORE, <<"/:alive">>, 1, ?WAIT),
                         true
                     end), [{numtests, 400}, {to_file, user}, quiet]),
    ?assertMatch({ok, #{data := #{format := 1}}}, kb_khepri:get(?STORE, <<"/:bridge/:identity">>, #{})).

%% What had reached the log in spite of all this would now be applied again.
the_store_starts_again(_) ->
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:s/last">>, 1, ?WAIT),
    ok = application:stop(khepri_bridge),
    [?assertMatch({error, {store_not_running, _}}, Answer)
     || Answer <- [kb_khepri:get(?STORE, <<"/:s">>, #{}), run([{get, <<"/:s">>}]), kb_khepri:cluster(?STORE, ?WAIT),
                   kb_khepri:pipeline(?STORE, [{1, {delete, <<"/:s">>}}], ?WAIT)]],
    ?assertEqual({ok, []}, kb_khepri:stores()),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    ?assertEqual({ok, #{data => 1}}, kb_khepri:get(?STORE, <<"/:s/last">>, #{favor => consistency})),
    {ok, #{}} = kb_khepri:put(?STORE, <<"/:s/last">>, 2, ?WAIT),
    ?assertEqual({ok, [ok]}, run([{compare_and_swap, <<"/:s/last">>, 2, 3}])).

holds(Property) ->
    try Property()
    catch
        Class:Reason:Stack ->
            ct:pal("~0p~n~0p", [{Class, Reason}, Stack]),
            false
    end.

refused(Calls) ->
    Answers = unharmed(Calls),
    ?assertEqual([], [Row || {Row, Answer} <- lists:enumerate(Answers), element(1, Answer) =/= error]).

unharmed(Calls) ->
    [begin
         Answer = Call(),
         answered(Answer),
         ?assertEqual({ok, #{}}, kb_khepri:put(?STORE, <<"/:alive">>, Number, ?WAIT)),
         Answer
     end || {Number, Call} <- lists:enumerate(Calls)].

answered(Answer) ->
    shaped(Answer),
    [?assertNot(lists:member(Reason, [timeout, no_leader, store_not_running])) || {error, {Reason, _}} <- [Answer]].

shaped({ok, _}) -> ok;
shaped({error, {Reason, #{message := Message}}}) when is_atom(Reason), is_binary(Message) -> ok;
shaped(Other) -> error({no_answer, Other}).

keep_while(Condition) -> run([{put, <<"/:s/a">>, 1, #{keep_while => #{<<"/:s">> => Condition}}}]).

run(Operations) ->
    kb_khepri:transaction(?STORE, Operations, {<<"poison">>, 1, erlang:unique_integer([positive, monotonic]), 0}, ?WAIT).

%% Conditions, most of them nearly right.
condition() -> ?SIZED(Size, condition(min(Size, 12))).

condition(Size) ->
    frequency(
      [{3, {elements([if_has_payload, if_has_data, if_has_sproc, if_node_exists]), frequency([{5, boolean()}, {1, any()}])}},
       {3, {elements([if_payload_version, if_child_list_version, if_child_list_length]), bound()}},
       {3, {elements([if_name_matches, if_path_matches]), expression(), frequency([{9, undefined}, {1, any()}])}},
       {3, {if_data_matches, match(), frequency([{5, list(guard())}, {1, any()}]), frequency([{9, undefined}, {1, any()}])}},
       {2, name()},
       {1, any()}]
      ++ [{6, ?LAZY(oneof([{if_not, condition(Size div 2)},
                           {elements([if_all, if_any]), resize(4, list(condition(Size div 2)))}]))} || Size > 0]).

bound() -> frequency([{4, non_neg_integer()}, {4, {elements([eq, ne, lt, le, gt, ge]), integer()}}, {1, any()}]).

expression() ->
    oneof([any, <<"a">>, <<"^.*$">>, "b+", <<"(a+)+$">>, <<"(?R)?">>, <<"[[:alpha:]]">>, <<"\\p{L}">>, <<"(?C1)a">>, <<"\\C">>,
           <<"(?i)A(*COMMIT)b|c">>, <<"^(?:(?=a)b|\\1)*">>, binary(), list(elements("ab()[]*+?{},.\\^$|1:=!<>R")), any()]).

match() -> oneof(['_', '$1', {'$1', '$2'}, #{a => '$1'}, ['$1' | '$2'], '$_', any()]).

guard() ->
    ?SIZED(Size, guard(min(Size, 6))).

guard(0) -> oneof(['$1', '$2', '$_', '$$', 1, {const, any()}, true, a]);
guard(Size) ->
    Smaller = guard(Size div 2),
    oneof([{elements([is_atom, is_list, 'not', hd, length, abs, round, size, map_size, self, node, tl, 'bnot', float]), Smaller},
           {elements(['>', '=:=', 'and', 'orelse', '+', '*', 'div', 'rem', 'bsl', element, map_get, is_record, 'band']),
            Smaller, Smaller},
           {{Smaller, Smaller}}, [Smaller], map_of(a, Smaller), any()]).

%% PropEr takes a map for a value: a type inside it would be data, megabytes of it.
map_of(Key, Type) -> proper_types:bind(Type, fun(Value) -> #{Key => Value} end, false).

name() -> oneof([<<"a">>, <<"b">>, a, b, <<255, 254>>, 'x.y', 'é', binary(), any()]).

watched() ->
    oneof([<<".">>, <<"..">>, <<"../y">>, <<"/:kw/y">>, <<"/:kw/*">>, <<"/:kw">>, <<"/">>, [kw, condition()], [94, condition()],
           [46, <<"z">>], <<"../*/z">>, <<"**">>, any()]).

%% As it is inside the tree, and as keep_while sees it.
tree_node() ->
    oneof([{node, #{payload_version => 1, child_list_version => 1}, payload(), #{}},
           #{data => any(), payload_version => 1, child_list_version => 1, child_list_length => 0}, #{sproc => x}, #{}]).

payload() -> oneof(['$__NO_PAYLOAD__', {p_data, any()}, {p_sproc, x, false}]).

argument() ->
    oneof([any(), atom(), binary(), <<"/:q/a">>, <<"/:q/*">>, [q, condition()], ?STORE, #{timeout => 1000}, #{},
           #{favor => consistency}, map_of(props_to_return, list(elements([payload, child_names, x]))),
           {binary(), pos_integer(), pos_integer(), 0}, {<<"any">>, 1, pos_integer(), 0},
           list({list(oneof([{put, <<"/:q/a">>, any()}, {get, [q, condition()]}, {abort, any()}])),
                 oneof([{<<"any">>, 1, pos_integer(), 0}, any()])}),
           list(oneof([{put, <<"/:q/a">>, any()}, {adv, {get, <<"/:q/a">>}}, {count, <<"/**">>}, {1, {put, <<"/:q/b">>, any()}},
                       {any(), {delete, <<"/:q/b">>}}, {put_many, [q, condition()], any()}, {abort, any()}, any()]))]).
