%% The transaction interpreter. It is stored in the tree once, as a stored procedure at a path that names its
%% version, and runs inside Ra on every member: it must be deterministic, so time, random bytes and
%% signatures are dealt with before the log, and nothing may depend on the order of a map.
%%
%% Every command carries an operation id, and its outcome is stored in the same transaction. A list of
%% operations that fails must undo what it did, and Khepri's abort undoes the stored outcome too; the caller
%% then commits `{record, Outcome}' under the same id, so that no late duplicate of the first attempt can
%% succeed after its failure was told.
%%
%% An id may say what its client's writes are for: with another purpose than the first one nothing is executed.
%%
%% Clients are bounded too. Neither a clock nor a write for every use is to be had here, so time is counted in
%% clients: a record says how many there had ever been when it was last written.
-module(kb_tx).

-export([run/2]).

-export_type([op/0, plain/0, command/0, instruction/0, outcome/0]).

-define(KEPT_RESULTS, 256).
-define(MAX_CLIENTS, 4096).
-define(EVICTED_AT_ONCE, 512).
-define(MAX_RESULT_BYTES, 1048576).

-type op() :: {Client :: binary(), Incarnation :: pos_integer(), Sequence :: pos_integer(),
               LowWater :: non_neg_integer()}
            | {Client :: binary(), Incarnation :: pos_integer(), Sequence :: pos_integer(),
               LowWater :: non_neg_integer(), Purpose :: binary()}.
-type outcome() :: {ok, term()} | {error, {atom(), map()}}.
-type pattern() :: khepri_path:native_pattern().
%% What kb_operations makes of an operation. Options are those of khepri_tx_adv.
-type instruction() :: {put | put_each, pattern(), khepri_payload:payload(), Options :: map(), answer()}
                     | {swap, pattern(), Expected :: term(), khepri_payload:payload(), Options :: map(), answer()}
                     | {delete, pattern(), Options :: map(), answer()}
                     | {get, pattern(), Options :: map(), one | many | props | props_one}
                     | {exists | has_data | is_sproc | count, pattern()}
                     | is_empty
                     | {abort, term()}.
-type answer() :: ok | cleared | matched | props | props_cleared | props_matched.
-type plain() :: {put, khepri_path:native_path(), khepri_payload:payload()} | {delete, khepri_path:native_path()}.
-type command() :: {operations, [instruction()]}
                 | {authority, atom(), map()}
                 | {record, outcome()}.

%% A group is several commands of one client, each under an operation id of its own: one log entry, and one write of
%% the client's record. One that fails undoes all of them, and the caller commits each by itself. Plain writes have no
%% operation ids, and only one entry in common. What the homeservers decide of their own accord has none either: a repeat of
%% it does no harm.
-spec run(op(), command()) -> {kb_tx, outcome()};
         (group, [{op(), command()}]) -> {kb_tx, [outcome()]};
         (writes, [plain()]) -> {kb_tx, ok};
         (own, {atom(), map()}) -> {kb_tx, outcome()}.
run(own, {Function, Request}) ->
    {kb_tx, execute({authority, Function, Request})};
run(writes, Writes) ->
    lists:foreach(fun plain/1, Writes),
    {kb_tx, ok};
run(group, [{Id, _} | _] = Requests) ->
    Path = [bridge, clients, element(1, Id)],
    Incarnation = element(2, Id),
    Found = read(Path),
    case fresh_enough(Found, Incarnation) of
        older ->
            {kb_tx, [unknown(<<"a newer incarnation of this client has written since">>) || _ <- Requests]};
        Record ->
            {Outcomes, Record1} = each(Requests, Record),
            _ = Record1 =:= Record orelse write(Path, Record1#{used => clients(Found)}),
            {kb_tx, Outcomes}
    end;
run(Id, Command) ->
    {kb_tx, [Outcome]} = run(group, [{Id, Command}]),
    {kb_tx, Outcome}.

each([], Record) ->
    {[], Record};
each([{Id, Command} | Rest], Record) ->
    {Outcome, Record1} = once(Id, Command, Record),
    {Outcomes, Last} = each(Rest, Record1),
    {[Outcome | Outcomes], Last}.

once({_, _, _, _, Purpose}, _, #{purpose := Known} = Record) when Known =/= Purpose ->
    {{error, {other_purpose, #{message => <<"operation ids of this client and incarnation are of something else">>}}}, Record};
once({Client, Incarnation, Sequence, LowWater, Purpose}, Command, Record) ->
    once({Client, Incarnation, Sequence, LowWater}, Command, Record#{purpose => Purpose});
once({_, _, Sequence, LowWater}, Command, #{low_water := Mark, results := Results} = Record) ->
    case Results of
        #{Sequence := Outcome} -> {Outcome, Record};
        _ when Sequence =< Mark -> {unknown(<<"the result of this operation id was forgotten">>), Record};
        _ ->
            Outcome = execute(Command),
            {Mark1, Results1} = trim(erlang:max(Mark, LowWater), forget(Mark, LowWater, Results#{Sequence => Outcome})),
            {Outcome, Record#{low_water => Mark1, results => Results1}}
    end.

plain({put, Path, Payload}) -> ok = khepri_tx:put(Path, Payload);
plain({delete, Path}) -> ok = khepri_tx:delete(Path).

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

%% Without the results up to the new mark; there are none up to the old one. Usually it rose by little, and to look
%% at all of them took as long as the rest of the transaction.
forget(Mark, LowWater, Results) when LowWater - Mark > map_size(Results) ->
    maps:filter(fun(Sequence, _) -> Sequence > LowWater end, Results);
forget(Mark, LowWater, Results) when LowWater > Mark ->
    forget(Mark + 1, LowWater, maps:remove(Mark + 1, Results));
forget(_Mark, _LowWater, Results) ->
    Results.

%% What falls out raises the low-water mark: it must never look as if it had not been executed.
trim(Mark, Results) when map_size(Results) =< ?KEPT_RESULTS ->
    {Mark, Results};
trim(Mark, Results) ->
    Oldest = case maps:is_key(Mark + 1, Results) of
                 true -> Mark + 1;
                 false -> lists:min(maps:keys(Results))
             end,
    {Oldest, maps:remove(Oldest, Results)}.

execute({record, Outcome}) ->
    Outcome;
execute({authority, Function, Request}) ->
    case kb_authority:decide(Function, Request, fun read/1, fun list/1) of
        {ok, Value, Changes} ->
            lists:foreach(fun change/1, Changes),
            {ok, Value};
        {error, {Reason, _}} = Refusal ->
            lists:foreach(fun change/1, kb_authority:refused(Function, Reason, fun read/1)),
            Refusal
    end;
execute({operations, Instructions}) ->
    Results = operate_all(Instructions, 0),
    %% The result is stored with the client, so what it may hold is bounded. In the form of before OTP 26: by default
    %% members of different versions would count atoms differently, and one would undo what another does.
    case erlang:external_size(Results, [{minor_version, 1}]) > ?MAX_RESULT_BYTES of
        true -> fail(results_too_large, [], 0);
        false -> {ok, Results}
    end.

change({put, Path, Data}) -> write(Path, Data);
change({delete, Path}) -> delete(Path).

operate_all([], _Index) -> [];
operate_all([Instruction | Rest], Index) ->
    Result = operate(Instruction, Index),
    [Result | operate_all(Rest, Index + 1)].

operate({put, Path, Payload, Options, Answer}, Index) ->
    answer(Answer, khepri_tx_adv:put_many(Path, Payload, Options), Path, Index);
operate({put_each, Pattern, Payload, Options, Answer}, Index) ->
    %% Khepri would set the conditions on one of the nodes, and which one could differ among members.
    case khepri_tx_adv:get_many(Pattern, #{props_to_return => []}) of
        {ok, Nodes} ->
            Put = fun(Path, Told) ->
                          case khepri_tx_adv:put_many(Path, Payload, Options) of
                              {ok, Props} -> maps:merge(Told, Props);
                              {error, Reason} -> fail(Reason, Path, Index)
                          end
                  end,
            answer(Answer, {ok, lists:foldl(Put, #{}, lists:sort(maps:keys(Nodes)))}, Pattern, Index);
        {error, Reason} ->
            fail(Reason, Pattern, Index)
    end;
operate({swap, Path, Expected, Payload, Options, Answer}, Index) ->
    %% Not khepri_tx:compare_and_swap: it takes the expected data as a match pattern, where '_' is anything.
    case one(Path, [payload], Index) of
        #{data := Found} when Found =:= Expected ->
            answer(Answer, khepri_tx_adv:put_many(Path, Payload, Options), Path, Index);
        _ ->
            fail(other_data, Path, Index)
    end;
operate({delete, Path, Options, Answer}, Index) ->
    answer(Answer, khepri_tx_adv:delete_many(Path, Options), Path, Index);
operate({get, Path, #{props_to_return := Props}, one}, Index) ->
    data(one(Path, Props, Index));
operate({get, Path, #{props_to_return := Props}, props_one}, Index) ->
    case khepri_tx_adv:get_many(Path, #{expect_specific_node => true, props_to_return => Props}) of
        {ok, Nodes} when Nodes =:= #{} -> fail(not_as_demanded, Path, Index);
        Found -> answer(props, Found, Path, Index)
    end;
operate({get, Pattern, Options, many}, Index) ->
    case khepri_tx_adv:get_many(Pattern, Options) of
        {ok, Nodes} -> maps:map(fun(_, Props) -> data(Props) end, Nodes);
        {error, Reason} -> fail(Reason, Pattern, Index)
    end;
operate({get, Pattern, Options, Answer}, Index) ->
    answer(Answer, khepri_tx_adv:get_many(Pattern, Options), Pattern, Index);
operate({exists, Path}, _Index) -> khepri_tx:exists(Path);
operate({Prop, Path}, Index) when Prop =:= has_data; Prop =:= is_sproc ->
    %% Not khepri_tx:has_data/1 and is_sproc/1: they fail where the node is there and is not as the path demands.
    case khepri_tx_adv:get_many(Path, #{expect_specific_node => true, props_to_return => [has_payload]}) of
        {ok, Nodes} -> lists:any(fun(Props) -> maps:get(Prop, Props, false) end, maps:values(Nodes));
        {error, {khepri, node_not_found, _}} -> false;
        {error, Reason} -> fail(Reason, Path, Index)
    end;
operate({count, Pattern}, Index) ->
    case khepri_tx:count(Pattern) of
        {ok, Count} -> Count;
        {error, Reason} -> fail(Reason, Pattern, Index)
    end;
operate(is_empty, Index) ->
    #{child_names := Names} = one([], [child_names], Index),
    Names =:= [bridge] orelse Names =:= [];
operate({abort, Reason}, Index) ->
    fail({aborted, Reason}, [], Index).

one(Path, Props, Index) ->
    case khepri_tx_adv:get_many(Path, #{expect_specific_node => true, props_to_return => Props}) of
        {ok, Nodes} ->
            case maps:values(Nodes) of
                [Found] -> Found;
                [] -> fail(not_as_demanded, Path, Index)
            end;
        {error, Reason} ->
            fail(Reason, Path, Index)
    end.

answer(ok, {ok, _}, _Path, _Index) -> ok;
answer(cleared, {ok, _}, _Path, _Index) -> ok;
answer(cleared, {error, {khepri, node_not_found, _}}, _Path, _Index) -> ok;
answer(props_cleared, {error, {khepri, node_not_found, _}}, _Path, _Index) -> #{};
answer(matched, {ok, _}, _Path, _Index) -> ok;
answer(matched, {error, {khepri, Reason, _}}, _Path, _Index) when Reason =:= node_not_found; Reason =:= mismatching_node ->
    ok;
answer(props_matched, {error, {khepri, Reason, _}}, _Path, _Index)
  when Reason =:= node_not_found; Reason =:= mismatching_node ->
    #{};
answer(_, {ok, Nodes}, _Path, _Index) -> maps:map(fun(_, Props) -> told(Props) end, Nodes);
answer(_, {error, Reason}, Path, Index) -> fail(Reason, Path, Index).

data(#{data := Data}) -> #{data => Data};
data(_) -> #{}.

%% A procedure's code stays here, and names get an order that is the same on every member. A procedure of which
%% Khepri kept a function and no code does not tell its arity.
told(Props) ->
    Named = case Props of
                #{child_names := Names} -> Props#{child_names => lists:sort(Names)};
                _ -> Props
            end,
    case Named of
        #{sproc := Procedure} when is_tuple(Procedure) -> Named#{sproc => element(4, Procedure)};
        #{sproc := _} -> Named#{sproc => undefined};
        _ -> Named
    end.

%% What it means to the client is worked out outside the log (kb_commit).
-spec fail(term(), pattern(), non_neg_integer()) -> no_return().
fail(Reason, Path, Index) ->
    khepri_tx:abort({kb_tx, Index, Path, Reason}).

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
