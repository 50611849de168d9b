%% Commits a command of kb_tx under its operation id, by as many short attempts as its time allows: a call in
%% flight to a leader that was cut off waits out all of its time, and a repeat is harmless.
-module(kb_commit).

-export([commit/4, own/4, group/3, writes/3, ungrouped/0]).

-define(FIRST_ATTEMPT_MS, 300).
-define(LAST_ATTEMPT_MS, 2000).

-spec commit(term(), kb_tx:op(), kb_tx:command(), pos_integer()) -> kb_call:answer().
commit(Store, Id, Command, Timeout) ->
    kb_call:on_store(Store, fun() -> attempt(Store, Id, Command, now_ms() + Timeout, ?FIRST_ATTEMPT_MS) end).

%% A decision of the homeservers themselves, by one attempt. After `timeout' or `no_leader' it may still come to pass.
-spec own(atom(), atom(), map(), pos_integer()) -> kb_call:answer().
own(Store, Function, Request, Timeout) ->
    kb_call:on_store(Store, fun() ->
        case khepri:transaction(Store, kb_store:procedure(), [own, {Function, Request}], rw,
                                kb_compat:transaction_options(Timeout)) of
            {ok, {kb_tx, Outcome}} -> Outcome;
            {ok, Error} -> kb_call:failure(Error, Store);
            {error, {khepri, Missing, _}} when Missing =:= no_sproc_at_given_path; Missing =:= node_not_found ->
                _ = kb_store:register(Store),
                kb_call:no_leader();
            Error -> kb_call:failure(Error, Store)
        end
    end).

%% Several transactions of one client as one command. Where that fails, nothing of it may be said to have failed: each
%% is to be committed by itself, under the same operation id.
-spec group(term(), [{kb_tx:op(), kb_tx:command()}], pos_integer()) -> kb_call:answer().
group(Store, Requests, Timeout) ->
    kb_call:on_store(Store, fun() ->
        Options = kb_compat:transaction_options(min(Timeout, ?LAST_ATTEMPT_MS)),
        try khepri:transaction(Store, kb_store:procedure(), [group, Requests], rw, Options) of
            {ok, {kb_tx, Outcomes}} -> {ok, Outcomes};
            _ -> ungrouped()
        catch
            _:_ -> ungrouped()
        end
    end).

%% Plain writes as one command. Each is to be made by itself where nothing of it can have been applied.
-spec writes(term(), [kb_tx:plain()], pos_integer()) -> kb_call:answer().
writes(Store, Writes, Timeout) ->
    kb_call:on_store(Store, fun() ->
        try khepri:transaction(Store, kb_store:procedure(), [writes, Writes], rw, kb_compat:transaction_options(Timeout)) of
            {ok, {kb_tx, ok}} -> {ok, #{}};
            {ok, {error, Reason}} -> kb_call:lost({error, Reason}, Store);
            {error, {khepri, _, _}} -> ungrouped();
            Error -> kb_call:lost(Error, Store)
        catch
            %% Raised by the transaction, or before it was sent; an exit is that of a call.
            error:_ -> ungrouped();
            _:_ -> kb_call:timed_out()
        end
    end).

-spec ungrouped() -> {error, {ungrouped, map()}}.
ungrouped() -> kb_call:refuse(ungrouped, <<"send each of these requests by itself, a transaction with the same operation id">>).

attempt(Store, Id, Command, Deadline, Patience) ->
    case Deadline - now_ms() of
        Left when Left > 0 ->
            Options = kb_compat:transaction_options(min(Left, Patience)),
            case try khepri:transaction(Store, kb_store:procedure(), [Id, Command], rw, Options)
                 catch _:Raised -> {raised, Raised}
                 end of
                {ok, {kb_tx, Outcome}} -> Outcome;
                {error, {kb_tx, Index, Path, Reason}} ->
                    attempt(Store, Id, {record, failed(Reason, Path, Index, Store)}, Deadline, Patience);
                {ok, {error, _}} -> again(Store, Id, Command, Deadline, Patience);
                %% This node has just started, before it could say that it is ready: the interpreter is not there yet.
                {error, {khepri, Missing, _}} when Missing =:= no_sproc_at_given_path; Missing =:= node_not_found ->
                    _ = kb_store:register(Store),
                    again(Store, Id, Command, Deadline, Patience);
                {error, Reason} when Reason =:= timeout; Reason =:= noproc; Reason =:= nodedown; Reason =:= shutdown ->
                    again(Store, Id, Command, Deadline, Patience);
                %% Raised inside the transaction, which is undone: an outcome like any other.
                {raised, Reason} when element(1, Command) =/= record ->
                    attempt(Store, Id, {record, kb_call:failure({error, Reason}, Store)}, Deadline, Patience);
                {raised, Reason} -> kb_call:failure({error, Reason}, Store);
                Other -> kb_call:failure(Other, Store)
            end;
        _ -> kb_call:timed_out()
    end.

again(Store, Id, Command, Deadline, Patience) ->
    case is_pid(whereis(Store)) of
        true ->
            timer:sleep(min(20, max(0, Deadline - now_ms()))),
            attempt(Store, Id, Command, Deadline, min(2 * Patience, ?LAST_ATTEMPT_MS));
        false -> kb_call:not_running()
    end.

failed({aborted, Reason}, _, Index, _) ->
    {error, {aborted, #{reason => Reason, index => Index, message => <<"the transaction aborted itself">>}}};
failed(results_too_large, _, _, _) ->
    kb_call:refuse(too_large, <<"the results are beyond 1 MiB: read fewer nodes">>);
failed(other_data, Path, Index, _) -> mismatch(Path, Index, <<"the node holds other data">>);
failed(not_as_demanded, Path, Index, _) -> mismatch(Path, Index, <<"the node is there and is not as demanded">>);
failed(Reason, Path, Index, Store) ->
    {error, {Name, Props}} = kb_call:failure({error, Reason}, Store),
    {error, {Name, maps:merge(#{path => shown(Path)}, Props#{index => Index})}}.

mismatch(Path, Index, Message) ->
    {error, {mismatching_node, #{path => shown(Path), index => Index, message => Message}}}.

shown(Path) -> [kb_condition:shown(Component) || Component <- Path].

now_ms() -> erlang:monotonic_time(millisecond).
