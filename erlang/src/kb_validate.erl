%% What is refused before the log: anything that Khepri would accept there and then fail on in Ra's apply,
%% and anything without a bound. Returns requests in the native form that kb_tx takes.
-module(kb_validate).

-export([data/1, timeout/1, operation_id/1, operations/1, request/2, name/1]).

-include_lib("khepri/include/khepri.hrl").

-define(MAX_DATA_BYTES, 1048576).
-define(MAX_OPERATIONS, 1000).
-define(MAX_BOX_BYTES, 16384).
-define(MAX_KEY_BYTES, 2048).
-define(U64, 16#FFFFFFFFFFFFFFFF).

-type refusal() :: {error, {atom(), map()}}.

-spec data(term()) -> ok | {error, {too_large | invalid_data, map()}}.
data(Data) ->
    try erlang:external_size(Data) of
        Size when Size > ?MAX_DATA_BYTES ->
            {error, {too_large, #{size => Size, maximum => ?MAX_DATA_BYTES,
                                  message => <<"data is beyond 1 MiB: keep large things elsewhere">>}}};
        _ ->
            case has_fun(Data) of
                true -> refuse(invalid_data, <<"a function cannot be stored">>);
                false -> ok
            end
    catch
        _:_ -> refuse(invalid_data, <<"data that cannot be encoded">>)
    end.

%% A function would become a stored procedure, or stay as code of one node inside everybody's data.
has_fun(Term) when is_function(Term) -> true;
has_fun([Head | Tail]) -> has_fun(Head) orelse has_fun(Tail);
has_fun(Term) when is_tuple(Term) -> has_fun(tuple_to_list(Term));
has_fun(Term) when is_map(Term) -> has_fun(maps:to_list(Term));
has_fun(_) -> false.

-spec timeout(term()) -> {ok, 1..60000} | {error, {invalid_options, map()}}.
timeout(Options) when is_map(Options) ->
    case maps:get(timeout, Options, 5000) of
        Timeout when is_integer(Timeout), Timeout >= 1, Timeout =< 60000 -> {ok, Timeout};
        _ -> refuse(invalid_options, <<"timeout is 1 to 60000 milliseconds">>)
    end;
timeout(_) ->
    refuse(invalid_options, <<"options are a map such as #{timeout => 5000}">>).

-spec operation_id(term()) -> {ok, kb_tx:op()} | refusal().
operation_id({Client, Incarnation, Sequence, LowWater} = Op)
  when is_binary(Client), byte_size(Client) >= 1, byte_size(Client) =< 255,
       is_integer(Incarnation), Incarnation >= 1, Incarnation =< ?U64,
       is_integer(Sequence), Sequence >= 1, Sequence =< ?U64,
       is_integer(LowWater), LowWater >= 0, LowWater < Sequence ->
    {ok, Op};
operation_id(_) ->
    refuse(invalid_options, <<"an operation id is {Client, Incarnation, Sequence, LowWater}">>).

-spec operations(term()) -> {ok, [tuple()]} | refusal().
operations(Operations) ->
    case proper_length(Operations, 0) of
        Length when is_integer(Length), Length >= 1 ->
            try
                Native = operations(Operations, 0),
                ok = ok_or_throw(data(Native), 0),
                {ok, Native}
            catch
                throw:{refused, Reason, Props} -> {error, {Reason, Props}}
            end;
        _ ->
            refuse(invalid_operation, <<"a transaction has a list of 1 to 1000 operations">>)
    end.

proper_length([], Length) -> Length;
proper_length([_ | Rest], Length) when Length < ?MAX_OPERATIONS -> proper_length(Rest, Length + 1);
proper_length(_, _) -> improper.

operations([], _) -> [];
operations([Operation | Rest], Index) -> [operation(Operation, Index) | operations(Rest, Index + 1)].

operation({put, Path, Data}, Index) -> {put, writable(Path, Index), checked(Data, Index)};
operation({put, Path, Data, Options}, Index) ->
    case Options of
        #{keep_while := Conditions} when is_map(Conditions), map_size(Options) =:= 1,
                                         map_size(Conditions) =< 32 ->
            Native = maps:from_list([keep_while(Watched, Condition, Index)
                                     || {Watched, Condition} <- maps:to_list(Conditions)]),
            {put, writable(Path, Index), checked(Data, Index), #{keep_while => Native}};
        _ when is_map(Options), map_size(Options) =:= 0 ->
            operation({put, Path, Data}, Index);
        _ ->
            refused({error, {invalid_options, #{message => <<"put takes #{keep_while => #{Path => Condition}}">>}}},
                    Index)
    end;
operation({create, Path, Data}, Index) -> {create, writable(Path, Index), checked(Data, Index)};
operation({update, Path, Data}, Index) -> {update, writable(Path, Index), checked(Data, Index)};
operation({compare_and_swap, Path, Expected, Data}, Index) ->
    {compare_and_swap, writable(Path, Index), checked(Expected, Index), checked(Data, Index)};
operation({delete, Path}, Index) -> {delete, writable(Path, Index)};
operation({get, Path}, Index) -> {get, exact(Path, Index)};
operation({exists, Path}, Index) -> {exists, exact(Path, Index)};
operation({abort, Reason}, Index) -> {abort, checked(Reason, Index)};
operation(_, Index) ->
    refused({error, {invalid_operation, #{message => <<"not an operation of docs/protocol.md section 1">>}}}, Index).

keep_while(Watched, Condition, Index) ->
    case kb_condition:is_keep_while(Condition) of
        true -> {watched(Watched, Index), Condition};
        false ->
            case kb_condition:mentions_data(Condition) of
                true ->
                    refused({error, {poison, #{message => <<"if_data_matches in keep_while kills the store at a "
                                                            "later write: watch existence or versions instead">>}}},
                            Index);
                false ->
                    refused({error, {poison, #{message => <<"a keep_while condition that the store could not "
                                                            "evaluate">>}}}, Index)
            end
    end.

watched(<<".">>, _) -> [?THIS_KHEPRI_NODE];
watched([?THIS_KHEPRI_NODE], _) -> [?THIS_KHEPRI_NODE];
watched(Path, Index) -> exact(Path, Index).

writable(Path, Index) -> ok_or_throw(kb_path:writable(Path), Index).
exact(Path, Index) -> ok_or_throw(kb_path:exact(Path), Index).

checked(Data, Index) ->
    ok = ok_or_throw(data(Data), Index),
    Data.

ok_or_throw(ok, _) -> ok;
ok_or_throw({ok, Value}, _) -> Value;
ok_or_throw(Refusal, Index) -> refused(Refusal, Index).

-spec refused(refusal(), non_neg_integer()) -> no_return().
refused({error, {Reason, Props}}, Index) ->
    throw({refused, Reason, Props#{index => Index}}).

%% Requests of docs/protocol.md §7: exactly the members the decision reads, each of its type and size.
-spec request(atom(), term()) -> {ok, map()} | refusal().
request(Function, Request) when is_map(Request) ->
    Wanted = members(Function),
    case [Member || {Member, Kind} <- Wanted, not has(Member, Kind, Request)] of
        [] ->
            Kept = maps:with([Member || {Member, _} <- Wanted], Request),
            case Request of
                #{box := Box} when byte_size(Box) > ?MAX_BOX_BYTES ->
                    {error, {too_large, #{maximum => ?MAX_BOX_BYTES, message => <<"a release has up to 16 KiB">>}}};
                #{trace := Trace, hop := Hop}
                  when is_binary(Trace), byte_size(Trace) =:= 16, is_integer(Hop), Hop >= 0, Hop < 64 ->
                    {ok, Kept#{trace => Trace, hop => Hop}};
                #{trace := _} -> refuse(invalid_request, <<"trace has 16 bytes, hop is 0 to 63">>);
                #{hop := _} -> refuse(invalid_request, <<"hop without trace">>);
                _ -> {ok, Kept}
            end;
        [Member | _] ->
            {error, {invalid_request, #{member => Member,
                                        message => <<"this member is missing or of another type">>}}}
    end;
request(_, _) ->
    refuse(invalid_request, <<"a request is a map">>).

members(open_session) ->
    [{server, name}, {session, id}, {key, key}, {thumbprint, thumbprint}, {address, address}];
members(close_session) -> [{session, id}];
members(create_entity) ->
    [{entity, name}, {owner, name}, {master, name}, {rule, rule}, {session, id}];
members(give) -> [{entity, name}, {session, id}, {epoch, epoch}, {owner, name}];
members(push) -> [{to, name}, {box, box} | members(give)];
members(pull) -> members(give);
members(claim) -> [{entity, name}, {session, id}, {owner, name}, {box, box}];
members(release) -> [{entity, name}, {session, id}, {epoch, epoch}].

has(Member, Kind, Request) ->
    case Request of
        #{Member := Value} -> is(Kind, Value);
        _ -> false
    end.

is(name, Value) -> name(Value);
is(id, Value) -> is_binary(Value) andalso byte_size(Value) =:= 16;
is(thumbprint, Value) -> is_binary(Value) andalso byte_size(Value) =:= 43;
is(key, Value) -> is_binary(Value) andalso byte_size(Value) =< ?MAX_KEY_BYTES;
is(box, Value) -> is_binary(Value);
is(epoch, Value) -> is_integer(Value) andalso Value >= 0 andalso Value =< ?U64;
is(rule, Value) -> lists:member(Value, [allow, deny, ask]);
is(address, {Host, Port}) -> name(Host) andalso is_integer(Port) andalso Port > 0 andalso Port < 65536;
is(address, _) -> false.

-spec name(term()) -> boolean().
name(Value) -> is_binary(Value) andalso byte_size(Value) >= 1 andalso byte_size(Value) =< 255.

refuse(Reason, Message) -> {error, {Reason, #{message => Message}}}.
