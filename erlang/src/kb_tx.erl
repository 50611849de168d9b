%% The transaction interpreter. It is stored in the tree once, as a stored procedure at a path that names its
%% version, and runs inside Ra on every member: it must be deterministic, so time, random bytes and
%% signatures are dealt with before the log.
%%
%% Every command carries an operation id, and its outcome is stored in the same transaction. A list of
%% operations that fails must undo what it did, and Khepri's abort undoes the stored outcome too; the caller
%% then commits `{record, Outcome}' under the same id, so that no late duplicate of the first attempt can
%% succeed after its failure was told.
%%
%% Clients are bounded too. Neither a clock nor a write for every use is to be had here, so time is counted in
%% clients: a record says how many there had ever been when it was last written.
-module(kb_tx).

-export([run/2]).

-export_type([op/0, command/0, outcome/0]).

-define(KEPT_RESULTS, 256).
-define(MAX_CLIENTS, 4096).
-define(EVICTED_AT_ONCE, 512).
-define(MAX_RESULT_BYTES, 1048576).

-type op() :: {Client :: binary(), Incarnation :: pos_integer(), Sequence :: pos_integer(),
               LowWater :: non_neg_integer()}.
-type outcome() :: {ok, term()} | {error, {atom(), map()}}.
-type command() :: {operations, [tuple()]}
                 | {authority, atom(), map()}
                 | {record, outcome()}.

-spec run(op(), command()) -> {kb_tx, outcome()}.
run({Client, Incarnation, Sequence, LowWater}, Command) ->
    Path = [bridge, clients, Client],
    Found = read(Path),
    Record = fresh_enough(Found, Incarnation),
    case Record of
        older ->
            {kb_tx, unknown(<<"a newer incarnation of this client has written since">>)};
        #{results := #{Sequence := Outcome}} ->
            {kb_tx, Outcome};
        #{low_water := Mark} when Sequence =< Mark ->
            {kb_tx, unknown(<<"the result of this operation id was forgotten">>)};
        #{low_water := Mark, results := Results} ->
            Outcome = execute(Command),
            Mark1 = erlang:max(Mark, LowWater),
            {Mark2, Results1} = trim(Mark1, Results#{Sequence => Outcome}, Sequence),
            write(Path, Record#{low_water => Mark2, results => Results1, used => clients(Found)}),
            {kb_tx, Outcome}
    end.

fresh_enough(#{incarnation := Known}, Incarnation) when Incarnation < Known ->
    older;
fresh_enough(#{incarnation := Known} = Record, Incarnation) when Incarnation =:= Known ->
    Record;
fresh_enough(_, Incarnation) ->
    #{incarnation => Incarnation, low_water => 0, results => #{}}.

%% How many clients there have ever been, this one among them.
clients(undefined) ->
    Counts = [bridge, client_counts],
    #{created := Before, kept := Kept} = known_clients(read(Counts)),
    Evicted = case Kept >= ?MAX_CLIENTS of
                  true -> evict([bridge, clients]);
                  false -> 0
              end,
    write(Counts, #{created => Before + 1, kept => Kept + 1 - Evicted}),
    Before + 1;
clients(_Known) ->
    #{created := Created} = known_clients(read([bridge, client_counts])),
    Created.

known_clients(undefined) -> #{created => 0, kept => 0};
known_clients(Counts) -> Counts.

%% Those unused for longest, several at once: finding them means looking at all.
evict(Path) ->
    {ok, Nodes} = khepri_tx:get_many(Path ++ [{if_name_matches, any, undefined}]),
    Oldest = lists:sublist(lists:sort([{Used, Found} || {Found, #{used := Used}} <- maps:to_list(Nodes)]),
                           ?EVICTED_AT_ONCE),
    lists:foreach(fun({_, Found}) -> delete(Found) end, Oldest),
    length(Oldest).

unknown(Message) ->
    {error, {outcome_unknown, #{message => Message}}}.

%% What falls out raises the low-water mark: it must never look as if it had not been executed.
trim(Mark, Results, Newest) ->
    Kept = maps:filter(fun(Sequence, _) -> Sequence > Mark orelse Sequence =:= Newest end, Results),
    case maps:size(Kept) > ?KEPT_RESULTS of
        false ->
            {Mark, Kept};
        true ->
            Oldest = lists:min(maps:keys(Kept)),
            {erlang:max(Mark, Oldest), maps:remove(Oldest, Kept)}
    end.

execute({record, Outcome}) ->
    Outcome;
execute({authority, Function, Request}) ->
    case kb_authority:decide(Function, Request, fun read/1, fun list/1) of
        {ok, Value, Changes} ->
            lists:foreach(fun change/1, Changes),
            {ok, Value};
        {error, _} = Refusal ->
            Refusal
    end;
execute({operations, Operations}) ->
    {Results, _} = lists:mapfoldl(fun(Operation, Index) -> {operate(Operation, Index), Index + 1} end,
                                  0, Operations),
    %% The result is stored with the client, so what it may hold is bounded.
    case erlang:external_size(Results) > ?MAX_RESULT_BYTES of
        true -> fail(too_large, #{message => <<"the results are beyond 1 MiB: read fewer nodes">>}, 0);
        false -> {ok, Results}
    end.

change({put, Path, Data}) -> write(Path, Data);
change({delete, Path}) -> delete(Path).

operate({put, Path, Data}, Index) ->
    answer(khepri_tx:put(Path, khepri_payload:data(Data)), Path, Index);
operate({put, Path, Data, #{keep_while := Conditions}}, Index) ->
    answer(khepri_tx:put(Path, khepri_payload:data(Data), #{keep_while => Conditions}), Path, Index);
operate({create, Path, Data}, Index) ->
    answer(khepri_tx:create(Path, khepri_payload:data(Data)), Path, Index);
operate({update, Path, Data}, Index) ->
    answer(khepri_tx:update(Path, khepri_payload:data(Data)), Path, Index);
operate({compare_and_swap, Path, Expected, Data}, Index) ->
    %% Not khepri_tx:compare_and_swap: it takes the expected data as a match pattern, where '_' is anything.
    case khepri_tx:get(Path) of
        {ok, Found} when Found =:= Expected ->
            answer(khepri_tx:put(Path, khepri_payload:data(Data)), Path, Index);
        {ok, _} ->
            fail(mismatching_node, #{path => Path, message => <<"the node holds other data">>}, Index);
        {error, Reason} ->
            refuse(Reason, Path, Index)
    end;
operate({delete, Path}, Index) ->
    answer(khepri_tx:delete(Path), Path, Index);
operate({get, Path}, Index) ->
    case khepri_tx_adv:get(Path) of
        {ok, Found} -> maps:with([data], kb_compat:single(Found));
        {error, Reason} -> refuse(Reason, Path, Index)
    end;
operate({exists, Path}, _Index) ->
    khepri_tx:exists(Path);
operate({abort, Reason}, Index) ->
    fail(aborted, #{reason => Reason, message => <<"the transaction aborted itself">>}, Index).

answer(ok, _Path, _Index) ->
    ok;
answer({error, Reason}, Path, Index) ->
    refuse(Reason, Path, Index).

-spec refuse(term(), khepri_path:native_path(), non_neg_integer()) -> no_return().
refuse({khepri, Reason, _}, Path, Index) ->
    fail(Reason, #{path => Path, message => message(Reason)}, Index);
refuse(Reason, Path, Index) ->
    fail(invalid_operation, #{path => Path, reason => Reason,
                              message => <<"the store refused the operation">>}, Index).

message(node_not_found) -> <<"no node at this path: create it first">>;
message(mismatching_node) -> <<"the node exists already, or is not as demanded">>;
message(keep_while_conditions_not_met) -> <<"a keep_while condition does not hold now">>;
message(_) -> <<"the store refused the operation">>.

-spec fail(atom(), map(), non_neg_integer()) -> no_return().
fail(Reason, Props, Index) ->
    khepri_tx:abort({kb_tx, {error, {Reason, Props#{index => Index}}}}).

read(Path) ->
    case khepri_tx:get(Path) of
        {ok, Data} -> Data;
        _ -> undefined
    end.

%% The data of the children of a node.
list(Path) ->
    case khepri_tx:get_many(Path ++ [{if_name_matches, any, undefined}]) of
        {ok, Nodes} -> lists:sort(maps:values(Nodes));
        _ -> []
    end.

write(Path, Data) ->
    ok = khepri_tx:put(Path, khepri_payload:data(Data)).

delete(Path) ->
    ok = khepri_tx:delete(Path).
