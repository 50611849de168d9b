%% The operations of a transaction (docs/protocol.md §1) as the instructions of kb_tx: checked, their paths
%% native, and all that can be worked out before the log worked out, since inside it everybody waits.
-module(kb_operations).

-export([checked/2]).

-define(MAX_OPERATIONS, 1000).
-define(MAX_WATCHED, 32).
-define(ONE, #{expect_specific_node => true, props_to_return => []}).
-define(MANY, #{props_to_return => []}).
-define(NO_PAYLOAD, '$__NO_PAYLOAD__').

-type refusal() :: {error, {atom(), map()}}.

%% `AllProps' gives the properties that an `adv' operation tells.
-spec checked(term(), fun(() -> [atom()])) -> {ok, [kb_tx:instruction()]} | refusal().
checked(Operations, AllProps) ->
    case proper_length(Operations, 0) of
        Length when is_integer(Length), Length >= 1 ->
            case kb_validate:size(Operations) of
                ok ->
                    try {ok, instructions(Operations, AllProps, 0)}
                    catch throw:{refused, Reason, Props} -> {error, {Reason, Props}}
                    end;
                Refusal -> Refusal
            end;
        _ ->
            {error, {invalid_operation, #{message => <<"a transaction has a list of 1 to 1000 operations">>}}}
    end.

proper_length([], Length) -> Length;
proper_length([_ | Rest], Length) when Length < ?MAX_OPERATIONS -> proper_length(Rest, Length + 1);
proper_length(_, _) -> improper.

instructions([], _, _) -> [];
instructions([Operation | Rest], AllProps, Index) ->
    Instruction = try instruction(Operation, AllProps)
                  catch throw:{refused, Reason, Props} -> throw({refused, Reason, Props#{index => Index}})
                  end,
    [Instruction | instructions(Rest, AllProps, Index + 1)].

instruction({adv, Operation}, AllProps) when element(1, Operation) =/= adv -> adv(instruction(Operation, AllProps), AllProps());
instruction({put, Path, Data}, _) -> put_one(Path, payload(Data), #{}, [], ok);
instruction({put, Path, Data, Options}, _) -> put_one(Path, payload(Data), Options, [], ok);
instruction({create, Path, Data}, _) -> put_one(Path, payload(Data), #{}, [{if_node_exists, false}], ok);
instruction({create, Path, Data, Options}, _) ->
    put_one(Path, payload(Data), Options, [{if_node_exists, false}], ok);
instruction({update, Path, Data}, _) -> put_one(Path, payload(Data), #{}, [{if_node_exists, true}], ok);
instruction({update, Path, Data, Options}, _) ->
    put_one(Path, payload(Data), Options, [{if_node_exists, true}], ok);
instruction({put_many, Path, Data}, _) -> put_many(native(kb_path:written(Path)), payload(Data));
instruction({put_many, Path, Data, Options}, AllProps) ->
    Native = native(kb_path:written(Path)),
    case keep_while(Options) of
        None when None =:= #{} -> put_many(Native, payload(Data));
        KeepWhile ->
            case khepri_path:targets_specific_node(Native) of
                {true, _} -> instruction({put, Path, Data, Options}, AllProps);
                false -> {put_each, Native, payload(Data), maps:merge(?ONE, KeepWhile), ok}
            end
    end;
instruction({compare_and_swap, Path, Expected, Data}, AllProps) ->
    instruction({compare_and_swap, Path, Expected, Data, #{}}, AllProps);
instruction({compare_and_swap, Path, Expected, Data, Options}, _) ->
    {p_data, _} = payload(Expected),
    {swap, native(kb_path:written_one(Path)), Expected, payload(Data), maps:merge(?ONE, keep_while(Options)), ok};
instruction({delete, Path}, _) -> {delete, native(kb_path:written_one(Path)), ?ONE, ok};
instruction({delete_many, Path}, _) -> {delete, native(kb_path:written(Path)), ?MANY, ok};
instruction({clear_payload, Path}, _) -> put_one(Path, ?NO_PAYLOAD, #{}, [{if_node_exists, true}], cleared);
instruction({clear_many_payloads, Path}, _) ->
    Native = native(kb_path:written(Path)),
    %% Where the last component is a name, a node would be made. Others make none, and on a condition more Khepri fails
    %% where their parent is missing.
    case Native =/= [] andalso khepri_path:component_targets_specific_node(lists:last(Native)) of
        {true, _} -> put_many(khepri_path:combine_with_conditions(Native, [{if_node_exists, true}]), ?NO_PAYLOAD);
        false -> put_many(Native, ?NO_PAYLOAD)
    end;
instruction({get, Path}, _) -> {get, native(kb_path:one(Path)), maps:put(props_to_return, [payload], ?ONE), one};
instruction({get_many, Path}, _) -> {get, native(kb_path:pattern(Path)), #{props_to_return => [payload]}, many};
instruction({Question, Path}, _) when Question =:= exists; Question =:= has_data; Question =:= is_sproc ->
    {Question, native(kb_path:one(Path))};
instruction({count, Path}, _) -> {count, native(kb_path:pattern(Path))};
instruction({is_empty}, _) -> is_empty;
instruction({abort, Reason}, _) ->
    {p_data, _} = payload(Reason),
    {abort, Reason};
instruction(_, _) ->
    refused({error, {invalid_operation, #{message => <<"not an operation of docs/protocol.md section 1">>}}}).

put_one(Path, Payload, Options, Conditions, Answer) ->
    Native = khepri_path:combine_with_conditions(native(kb_path:written_one(Path)), Conditions),
    {put, Native, Payload, maps:merge(?ONE, keep_while(Options)), Answer}.

%% With conditions on one node, it is put as one: below a parent that is not there, Khepri 0.16 makes the parent, then
%% finds the condition unmet, and leaves a tree on which everything fails that walks over it.
put_many(Native, Payload) ->
    case khepri_path:targets_specific_node(Native) of
        {true, Native} -> {put, Native, Payload, ?MANY, ok};
        {true, _} -> {put, Native, Payload, ?ONE, matched};
        false -> {put, Native, Payload, ?MANY, ok}
    end.

%% Told by the functions for many nodes: those for one have another shape before Khepri 0.17.
adv({Instruction, Path, Payload, Options, Answer}, AllProps) ->
    {Instruction, Path, Payload, Options#{props_to_return := AllProps}, adv(Answer)};
adv({swap, Path, Expected, Payload, Options, Answer}, AllProps) ->
    {swap, Path, Expected, Payload, Options#{props_to_return := AllProps}, adv(Answer)};
adv({Instruction, Path, Options, Answer}, AllProps) ->
    {Instruction, Path, Options#{props_to_return := AllProps}, adv(Answer)};
adv(_, _) ->
    refused({error, {invalid_operation, #{message => <<"this operation has no adv form">>}}}).

adv(cleared) -> props_cleared;
adv(matched) -> props_matched;
adv(one) -> props_one;
adv(_) -> props.

payload(Data) ->
    case kb_validate:storable(Data) of
        ok -> {p_data, Data};
        Refusal -> refused(Refusal)
    end.

keep_while(Options) when is_map(Options), map_size(Options) =:= 0 -> #{};
keep_while(#{keep_while := Conditions} = Options)
  when is_map(Conditions), map_size(Options) =:= 1, map_size(Conditions) =< ?MAX_WATCHED ->
    #{keep_while => maps:from_list([{native(kb_path:watched(Watched)), condition(Condition)}
                                    || {Watched, Condition} <- maps:to_list(Conditions)])};
keep_while(_) ->
    refused({error, {invalid_options, #{message => <<"the option is #{keep_while => #{Path => Condition}}, with up to "
                                                     "32 paths">>}}}).

condition(Condition) ->
    case kb_condition:checked(Condition, keep_while) of
        {ok, Checked} -> Checked;
        {poison, Message} -> refused({error, {poison, #{message => Message}}})
    end.

native({ok, Native}) -> Native;
native(Refusal) -> refused(Refusal).

-spec refused(refusal()) -> no_return().
refused({error, {Reason, Props}}) -> throw({refused, Reason, Props}).
