%% Many plain writes at once: all are sent before the first answer is awaited. Each is a command of its own, so
%% they are not atomic, and one without an answer has an unknown outcome.
%%
%% They are applied in their order. While the leader changes, Ra refuses what it is sent (`rejected'), or drops it
%% without a word. Either is sent again, but only what comes after everything that has its answer: an earlier write
%% that came again would undo a later one of the same node.
-module(kb_pipeline).

-export([checked/1, run/3]).

-define(MAX_WRITES, 10000).
-define(MAX_BYTES, 67108864).
%% Until a member that refused knows the next leader, or soon.
-define(RETRY_MS, 20).
-define(SILENCE_MS, 1000).

-record(run, {store :: atom(), pending :: #{pos_integer() => write()}, deadline :: integer(),
              answers = #{} :: #{pos_integer() => kb_call:answer()}, rejected = [] :: [pos_integer()],
              answered = 0 :: non_neg_integer(), silence = ?SILENCE_MS :: pos_integer()}).

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
    Numbers = lists:seq(1, length(Checked)),
    Pending = maps:from_list(lists:zip(Numbers, [Write || {_, Write} <- Checked])),
    #run{answers = Answers} = send(Numbers, #run{store = Store, pending = Pending, deadline = now_ms() + Timeout}),
    [{Correlation, maps:get(Number, Answers, kb_call:timed_out())}
     || {Number, {Correlation, _}} <- lists:zip(Numbers, Checked)].

send(Numbers, #run{store = Store, pending = Pending} = Run) ->
    lists:foreach(fun(Number) -> send(Store, Number, maps:get(Number, Pending)) end, Numbers),
    collect(Run#run{rejected = []}).

send(Store, Number, {put, Path, Payload}) -> ok = khepri:put(Store, Path, Payload, #{async => Number});
send(Store, Number, {delete, Path}) -> ok = khepri:delete(Store, Path, #{async => Number}).

collect(#run{pending = Pending} = Run) when map_size(Pending) =:= 0 -> Run;
collect(#run{store = Store, deadline = Deadline, rejected = Rejected, silence = Silence} = Run) ->
    Left = max(0, Deadline - now_ms()),
    Wait = case Rejected of
               [] -> Silence;
               _ -> ?RETRY_MS
           end,
    receive
        {ra_event, _, _} = Event ->
            Replied = lists:foldl(fun replied/2, Run, khepri:handle_async_ret(Store, Event)),
            collect(Replied#run{silence = ?SILENCE_MS})
    after min(Left, Wait) ->
        if
            Left =< Wait -> Run;
            Rejected =:= [] -> again(Run#run{silence = 2 * Silence});
            true -> again_rejected(Run)
        end
    end.

again(#run{pending = Pending, answered = Answered} = Run) ->
    case lists:sort([Number || Number <- maps:keys(Pending), Number > Answered]) of
        [] -> Run;
        Numbers -> send(Numbers, Run)
    end.

again_rejected(#run{rejected = Rejected, answered = Answered} = Run) ->
    {Passed, Later} = lists:partition(fun(Number) -> Number < Answered end, lists:usort(Rejected)),
    send(Later, lists:foldl(fun(Number, Acc) -> answer(Number, kb_call:no_leader(), Acc) end, Run, Passed)).

replied({Number, Reply}, #run{store = Store, pending = Pending, rejected = Rejected, answered = Answered} = Run)
  when is_map_key(Number, Pending) ->
    case Reply of
        {error, {not_leader, _}} -> Run#run{rejected = [Number | Rejected]};
        {error, _} -> answer(Number, kb_call:failure(Reply, Store), Run#run{answered = max(Number, Answered)});
        _ -> answer(Number, {ok, #{}}, Run#run{answered = max(Number, Answered)})
    end;
replied(_, Run) -> Run.

answer(Number, Answer, #run{pending = Pending, answers = Answers} = Run) ->
    Run#run{pending = maps:remove(Number, Pending), answers = Answers#{Number => Answer}}.

now_ms() -> erlang:monotonic_time(millisecond).
