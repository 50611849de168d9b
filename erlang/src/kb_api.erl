%% The only module that simulation servers call (docs/protocol.md §1, §3, §7). Every function answers
%% `{ok, Value}' or `{error, {Reason, Props}}' within its time, whatever it is given.
-module(kb_api).

-export([version/0, supports/1, health/1]).
-compile({no_auto_import, [get/1, put/2]}).
-export([get/3, get_many/3, put/4, delete/3, transaction/4]).
-export([subscribe/2, acknowledge/3, unsubscribe/2]).
-export([open_session/3, close_session/3, create_entity/3, give/3, push/3, pull/3, claim/3, release/3]).
-export([entity/2, server/2, servers/1]).

-export_type([answer/0]).

-define(FEATURES, [feed, transactions, operation_ids, keep_while, authority, inbox]).
-define(FIRST_ATTEMPT_MS, 300).
-define(AUTHORITY_TIMEOUT_MS, 5000).
-define(READ_TIMEOUT_MS, 5000).
-define(MAX_PREFIXES, 64).

-type answer() :: {ok, term()} | {error, {atom(), map()}}.

-spec version() -> {ok, 1}.
version() -> {ok, 1}.

-spec supports(term()) -> {ok, boolean()}.
supports(Feature) -> {ok, lists:member(Feature, ?FEATURES)}.

-spec health(term()) -> answer().
health(Store) when is_atom(Store) ->
    within(2000, fun() -> {ok, kb_cluster:health(Store)} end);
health(_) ->
    no_store().

-spec get(term(), term(), term()) -> answer().
get(Store, Path, Options) ->
    case {kb_path:exact(Path), read_options(Options)} of
        {{ok, Native}, {ok, Query, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                case khepri_adv:get(Store, Native, Query) of
                    {ok, Found} -> {ok, maps:with([data], kb_compat:single(Found))};
                    Error -> failure(Error, Store)
                end
            end);
        Refused -> first_refusal(Refused)
    end.

-spec get_many(term(), term(), term()) -> answer().
get_many(Store, Pattern, Options) ->
    case {kb_path:pattern(Pattern), read_options(Options)} of
        {{ok, Native}, {ok, Query, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                case khepri_adv:get_many(Store, Native, Query) of
                    {ok, Nodes} -> {ok, maps:map(fun(_, Props) -> maps:with([data], Props) end, Nodes)};
                    Error -> failure(Error, Store)
                end
            end);
        Refused -> first_refusal(Refused)
    end.

-spec put(term(), term(), term(), term()) -> answer().
put(Store, Path, Data, Options) ->
    case {kb_path:writable(Path), kb_validate:data(Data), write_options(Options)} of
        {{ok, Native}, ok, {ok, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                done(khepri:put(Store, Native, {p_data, Data}, #{timeout => Timeout}), Store)
            end);
        Refused -> first_refusal(Refused)
    end.

-spec delete(term(), term(), term()) -> answer().
delete(Store, Path, Options) ->
    case {kb_path:writable(Path), write_options(Options)} of
        {{ok, Native}, {ok, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                done(khepri:delete(Store, Native, #{timeout => Timeout}), Store)
            end);
        Refused -> first_refusal(Refused)
    end.

-spec transaction(term(), term(), term(), term()) -> answer().
transaction(Store, Operations, Op, Options) ->
    case {kb_validate:operations(Operations), kb_validate:operation_id(Op), write_options(Options)} of
        {{ok, Native}, {ok, Id}, {ok, Timeout}} -> commit(Store, Id, {operations, Native}, Timeout);
        Refused -> first_refusal(Refused)
    end.

-spec subscribe(term(), term()) -> answer().
subscribe(Store, #{pid := Pid, prefixes := Prefixes, window := Window} = Request)
  when is_pid(Pid), is_list(Prefixes), is_integer(Window), Window >= 1, Window =< 10000 ->
    case prefixes(Prefixes, []) of
        {ok, Native} ->
            Spec = #{pid => Pid, prefixes => Native, window => Window,
                     since => maps:get(since, Request, undefined)},
            on_store(Store, 30000, fun() ->
                %% Without its projections a feed is silent, which no subscriber could tell from quiet.
                case kb_store:register_feed(Store) =:= ok andalso kb_feed:subscribe(Store, Spec) of
                    {ok, Value} -> {ok, Value};
                    false -> no_leader();
                    {error, full} -> refuse(too_large, <<"this member has as many subscribers as it takes">>);
                    Error -> failure(Error, Store)
                end
            end);
        Refused -> Refused
    end;
subscribe(_, _) ->
    refuse(invalid_options, <<"a subscription is #{pid, prefixes, since, window}, with window 1 to 10000">>).

-spec acknowledge(term(), term(), term()) -> {ok, #{}} | {error, {invalid_options, map()}}.
acknowledge(Ref, Sequence, Pid) when is_reference(Ref), is_integer(Sequence), is_pid(Pid) ->
    ok = kb_feed:acknowledge(Ref, Sequence, Pid),
    {ok, #{}};
acknowledge(_, _, _) ->
    refuse(invalid_options, <<"acknowledge takes a subscription, a sequence and a pid">>).

-spec unsubscribe(term(), term()) -> {ok, #{}} | {error, {invalid_options, map()}}.
unsubscribe(Ref, Pid) when is_reference(Ref), is_pid(Pid) ->
    ok = kb_feed:unsubscribe(Ref, Pid),
    {ok, #{}};
unsubscribe(_, _) ->
    refuse(invalid_options, <<"unsubscribe takes a subscription and a pid">>).

-spec open_session(term(), term(), term()) -> answer().
open_session(Store, Request, Op) ->
    case kb_validate:request(open_session, Request) of
        {ok, #{key := Key, thumbprint := Thumbprint} = Valid} ->
            case kb_box:key(Key, Thumbprint) of
                {ok, _} -> decide(Store, open_session, {ok, Valid}, Op);
                error -> refuse(invalid_key, <<"the key is no public P-256 JWK with this thumbprint">>)
            end;
        Refused -> Refused
    end.

-spec close_session(term(), term(), term()) -> answer().
close_session(Store, Request, Op) -> ask(Store, close_session, Request, Op).

-spec create_entity(term(), term(), term()) -> answer().
create_entity(Store, Request, Op) -> ask(Store, create_entity, Request, Op).

-spec give(term(), term(), term()) -> answer().
give(Store, Request, Op) -> ask(Store, give, Request, Op).

-spec push(term(), term(), term()) -> answer().
push(Store, Request, Op) -> ask(Store, push, Request, Op).

-spec pull(term(), term(), term()) -> answer().
pull(Store, Request, Op) -> ask(Store, pull, Request, Op).

-spec release(term(), term(), term()) -> answer().
release(Store, Request, Op) -> ask(Store, release, Request, Op).

%% The signature is checked here, since a transaction may not call crypto; that the signer is still the
%% holder is checked in the transaction.
-spec claim(term(), term(), term()) -> answer().
claim(Store, Request, Op) ->
    case kb_validate:request(claim, Request) of
        {ok, #{box := Box, entity := Entity} = Valid} ->
            case verified(Store, Box, Entity) of
                {ok, Release} ->
                    decide(Store, claim, {ok, (maps:remove(box, Valid))#{release => Release}}, Op);
                bad_release ->
                    refuse(bad_release, <<"no release of this entity whose signature holds under a session's key">>);
                Refused -> Refused
            end;
        Refused -> Refused
    end.

-spec entity(term(), term()) -> answer().
entity(Store, Name) -> record(Store, entities, Name, no_entity).

-spec server(term(), term()) -> answer().
server(Store, Name) -> record(Store, servers, Name, no_server).

-spec servers(term()) -> answer().
servers(Store) ->
    on_store(Store, ?READ_TIMEOUT_MS, fun() ->
        case khepri:get_many(Store, [bridge, servers, {if_name_matches, any, undefined}], #{}) of
            {ok, Nodes} -> {ok, lists:sort(maps:values(Nodes))};
            Error -> failure(Error, Store)
        end
    end).

record(Store, Kind, Name, Missing) ->
    case kb_validate:name(Name) of
        true ->
            on_store(Store, ?READ_TIMEOUT_MS, fun() ->
                case look_up(Store, [bridge, Kind, Name], low_latency) of
                    {ok, Record} -> {ok, Record};
                    {error, {khepri, node_not_found, _}} -> refuse(Missing, <<"none of this name">>);
                    Error -> failure(Error, Store)
                end
            end);
        false -> refuse(invalid_request, <<"a name is a binary of 1 to 255 bytes">>)
    end.

look_up(Store, Path, Favor) ->
    khepri:get(Store, Path, #{favor => Favor, timeout => ?READ_TIMEOUT_MS}).

verified(Store, Box, Entity) ->
    case kb_box:sender(Box) of
        error -> bad_release;
        {ok, #{sid := Session}} ->
            on_store(Store, ?READ_TIMEOUT_MS, fun() ->
                case session_key(Store, Session, low_latency) of
                    {ok, Key} ->
                        case kb_box:release(Box, {Entity, Key}) of
                            {ok, Claims} -> {ok, Claims};
                            error -> bad_release
                        end;
                    {error, {khepri, node_not_found, _}} -> bad_release;
                    Error -> failure(Error, Store)
                end
            end)
    end.

%% A session opened through another member a moment ago may not be here yet.
session_key(Store, Session, Favor) ->
    case look_up(Store, [bridge, sessions, Session], Favor) of
        {ok, #{server := Server}} ->
            case look_up(Store, [bridge, servers, Server], Favor) of
                {ok, #{key := Key}} -> {ok, Key};
                Error -> Error
            end;
        {error, {khepri, node_not_found, _}} when Favor =:= low_latency ->
            session_key(Store, Session, consistency);
        Error -> Error
    end.

ask(Store, Function, Request, Op) ->
    decide(Store, Function, kb_validate:request(Function, Request), Op).

decide(Store, Function, Request, Op) ->
    case {Request, kb_validate:operation_id(Op)} of
        {{ok, Valid}, {ok, Id}} -> commit(Store, Id, {authority, Function, Valid}, ?AUTHORITY_TIMEOUT_MS);
        Refused -> first_refusal(Refused)
    end.

commit(Store, Id, Command, Timeout) ->
    on_store(Store, Timeout, fun() ->
        attempt(Store, Id, Command, now_ms() + Timeout, ?FIRST_ATTEMPT_MS)
    end).

%% Short attempts under one operation id: a call in flight to a leader that was cut off waits out all of its
%% time, and a repeat is harmless.
attempt(Store, Id, Command, Deadline, Patience) ->
    Left = Deadline - now_ms(),
    case Left > 0 andalso
         khepri:transaction(Store, kb_store:procedure(), [Id, Command], rw,
                            kb_compat:transaction_options(min(Left, Patience))) of
        {ok, {kb_tx, Outcome}} -> Outcome;
        {error, {kb_tx, Failure}} ->
            attempt(Store, Id, {record, Failure}, Deadline, Patience);
        false -> timed_out(Store);
        {ok, {error, _}} -> again(Store, Id, Command, Deadline, Patience);
        %% This node has just started, before it could say that it is ready: the interpreter is not there yet.
        {error, {khepri, Missing, _}} when Missing =:= no_sproc_at_given_path; Missing =:= node_not_found ->
            _ = kb_store:register(Store),
            again(Store, Id, Command, Deadline, Patience);
        {error, Reason} when Reason =:= timeout; Reason =:= noproc; Reason =:= nodedown; Reason =:= shutdown ->
            again(Store, Id, Command, Deadline, Patience);
        Other -> failure(Other, Store)
    end.

again(Store, Id, Command, Deadline, Patience) ->
    case is_pid(whereis(Store)) of
        true ->
            timer:sleep(min(20, max(0, Deadline - now_ms()))),
            attempt(Store, Id, Command, Deadline, min(2 * Patience, 2000));
        false -> not_running()
    end.

read_options(Options) when is_map(Options) ->
    Favor = maps:get(favor, Options, low_latency),
    case {maps:without([favor, timeout], Options), kb_validate:timeout(Options)} of
        {Rest, {ok, Timeout}} when map_size(Rest) =:= 0, (Favor =:= low_latency orelse Favor =:= consistency) ->
            {ok, #{favor => Favor, timeout => Timeout, props_to_return => [payload]}, Timeout};
        {_, {error, _} = Refusal} -> Refusal;
        _ -> refuse(invalid_options, <<"options are favor (low_latency, consistency) and timeout">>)
    end;
read_options(_) ->
    refuse(invalid_options, <<"options are a map">>).

write_options(Options) when is_map(Options) ->
    case maps:without([timeout], Options) of
        Rest when map_size(Rest) =:= 0 -> kb_validate:timeout(Options);
        _ -> refuse(invalid_options, <<"the only option is timeout">>)
    end;
write_options(_) ->
    refuse(invalid_options, <<"options are a map">>).

prefixes([], Native) -> {ok, lists:reverse(Native)};
prefixes([Path | Rest], Native) when length(Native) < ?MAX_PREFIXES ->
    case kb_path:pattern(Path) of
        {ok, []} -> prefixes(Rest, [[] | Native]);
        {ok, _} ->
            case kb_path:exact(Path) of
                {ok, Prefix} -> prefixes(Rest, [Prefix | Native]);
                Refused -> Refused
            end;
        Refused -> Refused
    end;
prefixes(_, _) ->
    refuse(invalid_options, <<"prefixes are a list of up to 64 paths">>).

first_refusal(Checks) ->
    hd([Check || {error, _} = Check <- tuple_to_list(Checks)]).

on_store(Store, Timeout, Fun) when is_atom(Store) ->
    case is_pid(whereis(Store)) andalso kb_store:identity(Store) =/= undefined of
        true -> within(Timeout, Fun);
        false -> not_running()
    end;
on_store(_, _, _) ->
    no_store().

%% In a process of its own, since a call of the store may exceed its time (a consistent read without a
%% leader took 11 s of 2) or exit.
within(Timeout, Fun) ->
    Caller = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> Caller ! {Tag, Fun()} end),
    receive
        {Tag, Answer} ->
            true = erlang:demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, Pid, {{khepri_ex, Reason, _}, _}} ->
            {error, {invalid_operation, #{reason => Reason, message => <<"the store does not take this">>}}};
        {'DOWN', Monitor, process, Pid, Reason} ->
            Shown = iolist_to_binary(io_lib:format("~0P", [Reason, 20])),
            {error, {invalid_operation, #{reason => Shown, message => <<"the store failed on this request">>}}}
    after Timeout + 100 ->
        true = erlang:demonitor(Monitor, [flush]),
        true = exit(Pid, kill),
        receive {Tag, _} -> ok after 0 -> ok end,
        timed_out(undefined)
    end.

done(ok, _) -> {ok, #{}};
done(Error, Store) -> failure(Error, Store).

failure({error, {khepri, Reason, Props}}, _) when Reason =:= node_not_found; Reason =:= mismatching_node ->
    Path = maps:get(node_path, Props, []),
    {error, {Reason, #{path => Path, message => <<"no such node, or it is not as demanded">>}}};
failure({error, noproc}, Store) ->
    case is_pid(whereis(Store)) of
        true -> no_leader();
        false -> not_running()
    end;
failure({error, Reason}, _) when Reason =:= nodedown; Reason =:= shutdown -> no_leader();
failure({error, timeout}, Store) -> timed_out(Store);
failure({error, {timeout, _}}, Store) -> timed_out(Store);
failure({error, Reason}, _) ->
    Shown = iolist_to_binary(io_lib:format("~0P", [Reason, 20])),
    {error, {invalid_operation, #{reason => Shown, message => <<"the store refused">>}}}.

timed_out(_) ->
    refuse(timeout, <<"no answer in time; the outcome of a write is unknown: repeat it with the same operation id">>).

no_leader() -> refuse(no_leader, <<"the cluster has no leader now: try again">>).

not_running() -> refuse(store_not_running, <<"the store does not run on this member: ask another one">>).

no_store() -> refuse(invalid_options, <<"a store is an atom such as homeserver">>).

refuse(Reason, Message) -> {error, {Reason, #{message => Message}}}.

now_ms() -> erlang:monotonic_time(millisecond).
