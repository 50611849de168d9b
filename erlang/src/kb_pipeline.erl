%% Many plain writes at once: all are sent before the first answer is awaited. Each is a command of its own, so
%% they are not atomic, and one without an answer has an unknown outcome.
-module(kb_pipeline).

-export([checked/1, run/3]).

-define(MAX_WRITES, 10000).
-define(MAX_BYTES, 67108864).
%% A member that is no leader says so and did nothing; by then the leader is known again, or soon will be.
-define(RETRY_MS, 20).

-type write() :: {put, khepri_path:native_path(), khepri_payload:payload()} | {delete, khepri_path:native_path()}.
-type checked() :: [{Correlation :: term(), write()}, ...].

-spec checked(term()) -> {ok, checked()} | kb_call:refusal().
checked(Writes) when is_list(Writes), Writes =/= [] ->
    case erlang:external_size(Writes) of
        Size when Size > ?MAX_BYTES ->
            {error, {too_large, #{size => Size, maximum => ?MAX_BYTES,
                                  message => <<"a pipeline has up to 64 MiB: send it in parts">>}}};
        _ -> checked(Writes, [], 0)
    end;
checked(_) -> malformed().

checked([], Checked, _) -> {ok, lists:reverse(Checked)};
checked([{Correlation, Write} | Rest], Checked, Index) when Index < ?MAX_WRITES ->
    case write(Write) of
        {ok, Native} -> checked(Rest, [{Correlation, Native} | Checked], Index + 1);
        {error, {Reason, Props}} -> {error, {Reason, Props#{index => Index}}};
        malformed -> malformed()
    end;
checked(_, _, _) -> malformed().

write({put, Path, Data}) ->
    case {kb_path:writable(Path), kb_validate:data(Data)} of
        {{ok, Native}, ok} -> {ok, {put, Native, {p_data, Data}}};
        Refused -> kb_call:first_refusal(Refused)
    end;
write({delete, Path}) ->
    case kb_path:writable(Path) of
        {ok, Native} -> {ok, {delete, Native}};
        Refusal -> Refusal
    end;
write(_) -> malformed.

malformed() ->
    kb_call:refuse(invalid_operation, <<"a pipeline is a list of 1 to 10000 {Correlation, {put, Path, Data} | "
                                        "{delete, Path}}">>).

%% Takes the calling process's messages of Ra, so it wants a process of its own.
-spec run(atom(), checked(), pos_integer()) -> [{term(), kb_call:answer()}].
run(Store, Checked, Timeout) ->
    Deadline = now_ms() + Timeout,
    Pending = maps:from_list(lists:zip(lists:seq(1, length(Checked)), [Write || {_, Write} <- Checked])),
    Answers = resend(Store, lists:sort(maps:keys(Pending)), Pending, #{}, Deadline),
    [{Correlation, maps:get(Number, Answers, kb_call:timed_out())}
     || {Number, {Correlation, _}} <- lists:zip(lists:seq(1, length(Checked)), Checked)].

resend(Store, Numbers, Pending, Answers, Deadline) ->
    lists:foreach(fun(Number) -> send(Store, Number, maps:get(Number, Pending)) end, Numbers),
    collect(Store, [], Pending, Answers, Deadline).

send(Store, Number, {put, Path, Payload}) -> ok = khepri:put(Store, Path, Payload, #{async => Number});
send(Store, Number, {delete, Path}) -> ok = khepri:delete(Store, Path, #{async => Number}).

collect(_, _, Pending, Answers, _) when map_size(Pending) =:= 0 -> Answers;
collect(Store, Rejected, Pending, Answers, Deadline) ->
    Left = max(0, Deadline - now_ms()),
    Wait = case Rejected of
               [] -> Left;
               _ -> min(Left, ?RETRY_MS)
           end,
    receive
        {ra_event, _, _} = Event ->
            {Rejected1, Pending1, Answers1} =
                lists:foldl(fun(Reply, State) -> replied(Store, Reply, State) end, {Rejected, Pending, Answers},
                            khepri:handle_async_ret(Store, Event)),
            collect(Store, Rejected1, Pending1, Answers1, Deadline)
    after Wait ->
        case Rejected of
            [_ | _] when Left > Wait -> resend(Store, lists:usort(Rejected), Pending, Answers, Deadline);
            _ -> Answers
        end
    end.

replied(_, {Number, {error, {not_leader, _}}}, {Rejected, Pending, Answers}) when is_map_key(Number, Pending) ->
    {[Number | Rejected], Pending, Answers};
replied(Store, {Number, Reply}, {Rejected, Pending, Answers}) when is_map_key(Number, Pending) ->
    Answer = case Reply of
                 ok -> {ok, #{}};
                 {ok, _} -> {ok, #{}};
                 Error -> kb_call:failure(Error, Store)
             end,
    {Rejected, maps:remove(Number, Pending), Answers#{Number => Answer}};
replied(_, _, State) -> State.

now_ms() -> erlang:monotonic_time(millisecond).
