%% What every call from outside has in common: a store that runs here, an answer within its time, and failures of
%% Khepri and Ra as reasons of docs/protocol.md §1.
-module(kb_call).

-export([on_store/2, on_store/3, within/3, refuse/2, first_refusal/1, failure/2, lost/2, timed_out/0, no_leader/0, not_running/0]).

-export_type([answer/0, refusal/0]).

%% How long after its time a call of its own process is given up.
-define(GRACE_MS, 100).

-type answer() :: {ok, term()} | refusal().
-type refusal() :: {error, {atom(), map()}}.

%% In the calling process: for what is bounded by Khepri's own timeout.
-spec on_store(term(), fun(() -> answer())) -> answer().
on_store(Store, Fun) when is_atom(Store) ->
    case is_pid(whereis(Store)) andalso kb_store:identity(Store) =/= undefined of
        true ->
            try Fun()
            catch _:Reason -> failure({error, Reason}, Store)
            end;
        false -> not_begun()
    end;
on_store(_, _) ->
    refuse(invalid_options, <<"a store is an atom such as homeserver">>).

%% In a process of its own, for what may exceed its time (a consistent read without a leader took 11 s of 2) or
%% leaves messages behind. Takes `Timeout' milliseconds, and a tenth of a second to say so.
-spec on_store(term(), pos_integer(), fun(() -> answer())) -> answer().
on_store(Store, Timeout, Fun) ->
    on_store(Store, fun() -> within(Store, Timeout, Fun) end).

%% The same without asking for a store that runs.
-spec within(atom(), pos_integer(), fun(() -> answer())) -> answer().
within(Store, Timeout, Fun) ->
    Caller = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> Caller ! {Tag, Fun()} end),
    receive
        {Tag, Answer} ->
            true = erlang:demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, Pid, {Reason, Stack}} when is_list(Stack) ->
            failure({error, Reason}, Store);
        {'DOWN', Monitor, process, Pid, Reason} ->
            failure({error, Reason}, Store)
    after Timeout + ?GRACE_MS ->
        true = erlang:demonitor(Monitor, [flush]),
        true = exit(Pid, kill),
        receive {Tag, _} -> ok after 0 -> ok end,
        timed_out()
    end.

-spec refuse(atom(), binary()) -> refusal().
refuse(Reason, Message) -> {error, {Reason, #{message => Message}}}.

%% Of several checks, of which one at least refused.
-spec first_refusal(tuple()) -> refusal().
first_refusal(Checks) ->
    hd([Check || {error, _} = Check <- tuple_to_list(Checks)]).

-spec failure(term(), atom()) -> refusal().
failure({error, {Kind, Reason, Props}}, _) when (Kind =:= khepri orelse Kind =:= khepri_ex), is_atom(Reason) ->
    told(Reason, Props);
failure({error, noproc}, Store) ->
    case is_pid(whereis(Store)) of
        true -> no_leader();
        false -> not_running()
    end;
failure({error, Reason}, _) when Reason =:= nodedown; Reason =:= shutdown -> no_leader();
failure({error, Reason}, _) when Reason =:= timeout; element(1, Reason) =:= timeout -> timed_out();
failure({error, {noproc, _}}, Store) -> failure({error, noproc}, Store);
failure({error, Reason}, _) -> unknown(Reason);
failure(Reason, _) -> unknown(Reason).

%% Of a write that was sent. Khepri says so when it has tried in vain until its time was over, and a try before may
%% have been applied.
-spec lost(term(), atom()) -> refusal().
lost({error, Reason}, _) when Reason =:= noproc; Reason =:= nodedown; Reason =:= shutdown -> timed_out();
lost(Error, Store) -> failure(Error, Store).

told(node_not_found, Props) ->
    about(node_not_found, Props, <<"no node at this path: create it first">>);
told(mismatching_node, Props) ->
    about(mismatching_node, Props, <<"the node is there and is not as demanded">>);
told(keep_while_conditions_not_met, Props) ->
    about(keep_while_conditions_not_met, Props, <<"a keep_while condition does not hold now">>);
told(Reason, Props) when Reason =:= possibly_matching_many_nodes_denied; Reason =:= condition_targets_parent_node;
                         Reason =:= invalid_path ->
    about(invalid_path, Props, <<"the store does not take this path here">>);
told(Reason, Props) when Reason =:= no_sproc_at_given_path; Reason =:= denied_execution_of_non_sproc_node;
                         Reason =:= failed_to_get_sproc ->
    about(no_sproc, Props, <<"no stored procedure at this path">>);
told(projection_already_exists, Props) ->
    about(projection_exists, Props, <<"another projection has this name">>);
told(Reason, Props) ->
    unknown({khepri, Reason, Props}).

about(Reason, Props, Message) when is_map(Props) ->
    Kept = [{path, Path} || Path <- [path(Props)], Path =/= undefined]
        ++ [{condition, kb_condition:shown(Condition)} || #{condition := Condition} <- [Props]]
        ++ [{because, shown(Because)} || #{keep_while_reason := Because} <- [Props]],
    {error, {Reason, (maps:from_list(Kept))#{message => Message}}};
about(Reason, _, Message) ->
    refuse(Reason, Message).

path(#{node_path := Path}) -> Path;
path(#{path := Path}) when is_list(Path) -> [kb_condition:shown(Component) || Component <- Path];
path(_) -> undefined.

shown({pattern_matches_no_nodes, Pattern}) when is_list(Pattern) ->
    {pattern_matches_no_nodes, [kb_condition:shown(Component) || Component <- Pattern]};
shown({Condition, {error, _}}) -> kb_condition:shown(Condition);
shown(Condition) -> kb_condition:shown(Condition).

unknown(Term) ->
    Shown = iolist_to_binary(io_lib:format("~0P", [Term, 20])),
    {error, {unknown, #{reason => Shown, message => <<"the store failed on this request">>}}}.

-spec timed_out() -> {error, {timeout, map()}}.
timed_out() ->
    refuse(timeout, <<"no answer in time; the outcome of a write is unknown: repeat it with the same operation id">>).

-spec no_leader() -> {error, {no_leader, map()}}.
no_leader() -> refuse(no_leader, <<"the cluster has no leader now: try again">>).

%% Nothing was sent to the store yet, so a write may be made elsewhere.
not_begun() ->
    {error, {Reason, Props}} = not_running(),
    {error, {Reason, Props#{applied => false}}}.

-spec not_running() -> {error, {store_not_running, map()}}.
not_running() -> refuse(store_not_running, <<"the store does not run on this member: ask another one">>).
