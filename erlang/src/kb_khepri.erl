%% The store, for callers that are not Erlang (docs/protocol.md §1). Every function answers `{ok, Value}' or
%% `{error, {Reason, Props}}', within its time and whatever it is given.
%%
%% Only put and delete of an exact path reach Ra as plain commands; all that has conditions goes through the
%% interpreter kb_tx, in which an exception is an answer and not the end of the store.
-module(kb_khepri).

-compile({no_auto_import, [get/1, put/2]}).
-export([get/3, get_each/3, get_many/3, exists/3, has_data/3, is_sproc/3, count/3, is_empty/2]).
-export([put/4, delete/3, transaction/4, transactions/3, writes/3, pipeline/3, fence/2]).
-export([cluster/2, wait_for_leader/2, stores/0, info/2]).

-define(ALL_PROPS, [payload, payload_version, child_list_version, child_list_length, child_names, has_payload]).
-define(MAX_WATCHERS, 10000).
-define(MAX_GROUP, 64).
%% As many as in one transaction: while they run, everybody waits.
-define(MAX_GROUPED, 1000).
-define(MAX_BEFORE, 65536).

-spec get(term(), term(), term()) -> kb_call:answer().
get(Store, Path, Options) ->
    case {kb_path:one(Path), kb_validate:read(Options)} of
        {{ok, Native}, {ok, Query}} ->
            read(Store, Query, fun() ->
                %% khepri_adv:get/3 has another shape before Khepri 0.17.
                case khepri_adv:get_many(Store, Native, Query#{expect_specific_node => true}) of
                    {ok, Nodes} when map_size(Nodes) =:= 1 ->
                        [Props] = maps:values(Nodes),
                        {ok, props(Props)};
                    {ok, _} ->
                        {error, {mismatching_node, #{path => shown(Native),
                                                     message => <<"the node is there and is not as demanded">>}}};
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

%% Reads that somebody makes at once, in one message.
-spec get_each(term(), term(), term()) -> kb_call:answer().
get_each(Store, Paths, Options) ->
    case is_list(Paths) andalso length_up_to(Paths, ?MAX_GROUP) of
        Length when is_integer(Length) -> {ok, each_small([get(Store, Path, Options) || Path <- Paths])};
        _ -> kb_call:refuse(invalid_options, <<"up to 64 paths are read at once">>)
    end.

-spec get_many(term(), term(), term()) -> kb_call:answer().
get_many(Store, Pattern, Options) ->
    case {kb_validate:read(Options), Options} of
        {{ok, Query}, _} ->
            case pattern(Pattern, Query) of
                {ok, Native} ->
                    read(Store, Query, fun() ->
                        case khepri_adv:get_many(Store, Native, Query) of
                            {ok, Nodes} -> {ok, maps:map(fun(_, Props) -> props(Props) end, Nodes)};
                            Error -> kb_call:failure(Error, Store)
                        end
                    end);
                Refusal -> Refusal
            end;
        {Refusal, _} -> Refusal
    end.

-spec exists(term(), term(), term()) -> kb_call:answer().
exists(Store, Path, Options) -> ask(Store, Path, Options, fun khepri:exists/3).

-spec has_data(term(), term(), term()) -> kb_call:answer().
has_data(Store, Path, Options) -> ask(Store, Path, Options, holding(has_data)).

-spec is_sproc(term(), term(), term()) -> kb_call:answer().
is_sproc(Store, Path, Options) -> ask(Store, Path, Options, holding(is_sproc)).

%% Not khepri:has_data/3 and khepri:is_sproc/3: they fail where the node is there and is not as the path demands.
holding(Prop) ->
    fun(Store, Path, Query) ->
        case khepri_adv:get_many(Store, Path, Query#{expect_specific_node => true, props_to_return => [has_payload]}) of
            {ok, Nodes} -> [true || #{Prop := true} <- maps:values(Nodes)] =/= [];
            {error, {khepri, node_not_found, _}} -> false;
            Error -> Error
        end
    end.

-spec count(term(), term(), term()) -> kb_call:answer().
count(Store, Pattern, Options) ->
    case kb_validate:read(Options) of
        {ok, Query} ->
            case pattern(Pattern, Query) of
                {ok, Native} ->
                    read(Store, Query, fun() ->
                        answer(khepri:count(Store, Native, maps:remove(props_to_return, Query)), Store)
                    end);
                Refusal -> Refusal
            end;
        Refusal -> Refusal
    end.

%% Whether there is nothing beside `/:bridge', which is always there.
-spec is_empty(term(), term()) -> kb_call:answer().
is_empty(Store, Options) ->
    case kb_validate:read(Options) of
        {ok, Query} ->
            read(Store, Query, fun() ->
                case khepri_adv:get_many(Store, [], Query#{props_to_return => [child_names]}) of
                    {ok, #{[] := #{child_names := Names}}} -> {ok, Names -- [bridge] =:= []};
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refusal -> Refusal
    end.

-spec put(term(), term(), term(), term()) -> kb_call:answer().
put(Store, Path, Data, Options) ->
    case {kb_path:writable(Path), kb_validate:data(Data), kb_validate:write(Options)} of
        {{ok, Native}, ok, {ok, Timeout}} ->
            kb_call:on_store(Store, fun() ->
                written(khepri:put(Store, Native, {p_data, Data}, #{timeout => Timeout}), Store)
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

-spec delete(term(), term(), term()) -> kb_call:answer().
delete(Store, Path, Options) ->
    case {kb_path:writable(Path), kb_validate:write(Options)} of
        {{ok, Native}, {ok, Timeout}} ->
            kb_call:on_store(Store, fun() ->
                written(khepri:delete(Store, Native, #{timeout => Timeout}), Store)
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

-spec transaction(term(), term(), term(), term()) -> kb_call:answer().
transaction(Store, Operations, Op, Options) ->
    AllProps = fun() -> all_props(Store) end,
    case {kb_operations:checked(Operations, AllProps), kb_validate:operation_id(Op), kb_validate:write(Options)} of
        {{ok, Instructions}, {ok, Id}, {ok, Timeout}} ->
            kb_commit:commit(Store, Id, {operations, Instructions}, Timeout);
        Refused -> kb_call:first_refusal(Refused)
    end.

%% Transactions that one client makes at once, in one command.
-spec transactions(term(), term(), term()) -> kb_call:answer().
transactions(Store, Requests, Options) ->
    case {is_list(Requests) andalso length_up_to(Requests, ?MAX_GROUP), kb_validate:write(Options)} of
        {Length, {ok, Timeout}} when is_integer(Length), Length >= 1 ->
            Checked = [checked(Store, Request) || Request <- Requests],
            Clients = lists:usort([{Client, Incarnation} || {{Client, Incarnation, _, _}, _, _} <- Checked]),
            Operations = lists:sum([Count || {_, _, Count} <- Checked]),
            case length(Clients) =:= 1 andalso not lists:member(refused, Checked) andalso Operations =< ?MAX_GROUPED
                 andalso is_small(Requests) of
                true ->
                    case kb_commit:group(Store, [{Id, {operations, Instructions}} || {Id, Instructions, _} <- Checked], Timeout) of
                        {ok, Outcomes} -> {ok, each_small(Outcomes)};
                        Refusal -> Refusal
                    end;
                false ->
                    kb_commit:ungrouped()
            end;
        {_, {error, _} = Refusal} -> Refusal;
        _ -> kb_call:refuse(invalid_options, <<"1 to 64 transactions, each {Operations, Op}, are committed at once">>)
    end.

%% Plain writes that somebody makes at once, in one command.
-spec writes(term(), term(), term()) -> kb_call:answer().
writes(Store, Writes, Options) ->
    case {is_list(Writes) andalso length_up_to(Writes, ?MAX_GROUP), kb_validate:write(Options)} of
        {Length, {ok, Timeout}} when is_integer(Length), Length >= 1 ->
            case is_small(Writes) andalso kb_pipeline:checked([{none, Write} || Write <- Writes]) of
                {ok, Checked} -> kb_commit:writes(Store, [Write || {none, Write} <- Checked], Timeout);
                _ -> kb_commit:ungrouped()
            end;
        {_, {error, _} = Refusal} -> Refusal;
        _ -> kb_call:refuse(invalid_options, <<"1 to 64 writes are made at once">>)
    end.

%% Answers as they are while all before them are small, so that what each of them may be is no less for being in a
%% group: it has a limit at the other end, beyond which a connection ends.
each_small(Answers) -> each_small(Answers, 0).

each_small([], _) -> [];
each_small([_ | Answers], Bytes) when Bytes > ?MAX_BEFORE -> [kb_commit:ungrouped() | each_small(Answers, Bytes)];
each_small([Answer | Answers], Bytes) -> [Answer | each_small(Answers, Bytes + erlang:external_size(Answer))].

%% One entry of the log is no larger for being a group.
is_small(Term) -> kb_validate:size(Term) =:= ok.

checked(Store, {Operations, Op}) ->
    case {kb_operations:checked(Operations, fun() -> all_props(Store) end), kb_validate:operation_id(Op)} of
        {{ok, Instructions}, {ok, Id}} -> {Id, Instructions, length(Instructions)};
        _ -> refused
    end;
checked(_, _) ->
    refused.

length_up_to([], _) -> 0;
length_up_to([_ | Rest], Left) when Left > 0 ->
    case length_up_to(Rest, Left - 1) of
        Length when is_integer(Length) -> Length + 1;
        false -> false
    end;
length_up_to(_, _) -> false.

-spec pipeline(term(), term(), term()) -> kb_call:answer().
pipeline(Store, Writes, Options) ->
    case {kb_pipeline:checked(Writes), kb_validate:write(Options)} of
        {{ok, Checked}, {ok, Timeout}} ->
            kb_call:on_store(Store, Timeout, fun() -> {ok, kb_pipeline:run(Store, Checked, Timeout)} end);
        Refused -> kb_call:first_refusal(Refused)
    end.

-spec fence(term(), term()) -> kb_call:answer().
fence(Store, Options) ->
    bounded(Store, Options, fun(Timeout) -> done(khepri:fence(Store, Timeout), Store) end).

-spec cluster(term(), term()) -> kb_call:answer().
cluster(Store, Options) ->
    bounded(Store, Options, fun(_) ->
        Known = maps:with([members, leader, running, khepri, otp], kb_cluster:health(Store)),
        {ok, Known#{machine_version => khepri_machine:version(), effective_machine_version => effective(Store)}}
    end).

-spec wait_for_leader(term(), term()) -> kb_call:answer().
wait_for_leader(Store, Options) ->
    bounded(Store, Options, fun(Timeout) ->
        case khepri_cluster:wait_for_leader(Store, Timeout) of
            ok ->
                case kb_cluster:health(Store) of
                    #{leader := Leader} when Leader =/= undefined -> {ok, #{leader => Leader}};
                    _ -> kb_call:no_leader()
                end;
            Error -> kb_call:failure(Error, Store)
        end
    end).

-spec stores() -> {ok, [atom()]}.
stores() -> {ok, lists:sort(khepri:get_store_ids())}.

%% `keep_while' leaves out what Khepri itself puts on the parents that it makes.
-spec info(term(), term()) -> kb_call:answer().
info(Store, Options) ->
    bounded(Store, Options, fun(Timeout) ->
        Query = #{timeout => Timeout},
        case khepri:count(Store, [{if_path_matches, any, undefined}], Query) of
            {ok, Count} ->
                Conditions = [Pair || {Watcher, Watched} = Pair <- keep_while(Store, Query),
                                      not is_implicit(Watcher, Watched)],
                {ok, #{nodes => Count, members => maps:get(members, kb_cluster:health(Store)),
                       keep_while => maps:from_list([{Watcher, conditions(Watched)}
                                                     || {Watcher, Watched} <- lists:sublist(Conditions, ?MAX_WATCHERS)]),
                       keep_while_count => length(Conditions), projections => projections(Store, Query)}};
            Error -> kb_call:failure(Error, Store)
        end
    end).

%% The state is read as khepri:info/2 reads it, which prints it.
keep_while(Store, Query) ->
    case khepri_machine:get_keep_while_conds_state(Store, Query) of
        {ok, Conditions} -> lists:sort(maps:to_list(Conditions));
        {error, _} -> []
    end.

is_implicit(Watcher, Watched) ->
    Watched =:= #{Watcher => {if_any, [{if_child_list_length, {gt, 0}}, {if_has_payload, true}]}}.

conditions(Watched) ->
    maps:from_list([{shown(Path), kb_condition:shown(Condition)}
                    || {Path, Condition} <- maps:to_list(Watched)]).

projections(Store, Query) ->
    case khepri_machine:get_projections_state(Store, Query) of
        {ok, Tree} ->
            Collect = fun(Pattern, Here, Found) -> [{khepri_projection:name(Projection), Pattern} || Projection <- Here]
                                                   ++ Found end,
            [#{name => Name, pattern => shown(Pattern)}
             || {Name, Pattern} <- lists:sort(khepri_pattern_tree:fold(Tree, Collect, []))];
        {error, _} -> []
    end.

shown(Pattern) -> [kb_condition:shown(Component) || Component <- Pattern].

ask(Store, Path, Options, Question) ->
    case {kb_path:one(Path), kb_validate:read(Options)} of
        {{ok, Native}, {ok, Query}} ->
            read(Store, Query, fun() ->
                case Question(Store, Native, maps:with([favor, timeout], Query)) of
                    Answer when is_boolean(Answer) -> {ok, Answer};
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

pattern(Pattern, #{expect_specific_node := true}) -> kb_path:one(Pattern);
pattern(Pattern, _) -> kb_path:pattern(Pattern).

read(Store, #{favor := low_latency}, Fun) -> kb_call:on_store(Store, Fun);
read(Store, #{timeout := Timeout}, Fun) -> kb_call:on_store(Store, Timeout, Fun).

bounded(Store, Options, Fun) ->
    case kb_validate:write(Options) of
        {ok, Timeout} -> kb_call:on_store(Store, Timeout, fun() -> Fun(Timeout) end);
        Refusal -> Refusal
    end.

answer({ok, Value}, _) -> {ok, Value};
answer(Error, Store) -> kb_call:failure(Error, Store).

written(ok, _) -> {ok, #{}};
written(Error, Store) -> kb_call:lost(Error, Store).

done(ok, _) -> {ok, #{}};
done(Error, Store) -> kb_call:failure(Error, Store).

%% A procedure is told by its arity: its code is nobody's business.
props(#{sproc := Procedure} = Props) -> Props#{sproc := arity(Procedure)};
props(Props) -> Props.

arity(Function) when is_function(Function) ->
    {arity, Arity} = erlang:fun_info(Function, arity),
    Arity;
arity(Procedure) -> element(4, Procedure).

%% The members tell why a node was deleted only once all of them know how.
all_props(Store) when is_atom(Store) ->
    case effective(Store) of
        Version when Version >= 2 -> [delete_reason | ?ALL_PROPS];
        _ -> ?ALL_PROPS
    end;
all_props(_) -> ?ALL_PROPS.

%% The machine version that all members understand.
effective(Store) ->
    try ra_counters:counters({Store, node()}, [effective_machine_version]) of
        #{effective_machine_version := Version} -> Version;
        _ -> khepri_machine:version()
    catch
        _:_ -> khepri_machine:version()
    end.
