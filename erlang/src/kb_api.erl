%% Feed and authority, for simulation servers (docs/protocol.md §1, §3, §7). Every function answers
%% `{ok, Value}' or `{error, {Reason, Props}}' within its time, whatever it is given.
-module(kb_api).

-include_lib("kernel/include/logger.hrl").

-export([version/0, supports/1, health/1]).
-export([subscribe/2, acknowledge/3, unsubscribe/2]).
-export([open_session/3, close_session/3, end_session/3, raise_epochs/3, leases/1]).
-export([create_entity/3, delete_entity/3, give/3, push/3, pull/3, claim/3, release/3]).
-export([enter/3, leave/3, request/3, answer/3, withdraw/3]).
-export([set_rule/3, set_master/3, set_default_owner/3, transfer/3, revoke/3]).
-export([pin_peer/3, unpin_peer/3, note_servers/3, push_abroad/3, cancel_escrow/3, close_escrow/3, escrow_noted/3]).
-export([escrow_settled/3, accept_escrow/3, refuse_escrow/3, settle_escrow/3, entity_moved/3]).
-export([claim_key/3, resolve_escrow/3]).
-export([enrol/3, authenticate/3, attest/3, revoke_credential/3, publish_key/3, set_player_data/3]).
-export([requests/2]).
-export([entity/2, server/2, servers/1]).

-define(FEATURES, [feed, transactions, operation_ids, purposes, keep_while, authority, inbox, rules, federation, credentials, leases]).
-define(AUTHORITY_TIMEOUT_MS, 5000).
-define(READ_TIMEOUT_MS, 5000).
-define(MAX_GROUP, 64).
%% Requests that need nothing but to be valid and, some, to know when they came.
-define(TIMELESS, [create_entity, delete_entity, give, push, pull, release, enter, leave, withdraw, set_rule, set_master,
                   set_default_owner, transfer, revoke]).
-define(TIMED, [request, answer]).
%% Those that may be refused for want of room.
-define(LIMITED, [create_entity, set_master, accept_escrow]).

-spec version() -> {ok, 1}.
version() -> {ok, 1}.

-spec supports(term()) -> {ok, boolean()}.
supports(Feature) -> {ok, lists:member(Feature, ?FEATURES)}.

-spec health(term()) -> kb_call:answer().
health(Store) when is_atom(Store) ->
    kb_call:within(Store, 2000, fun() -> {ok, kb_cluster:health(Store)} end);
health(_) ->
    kb_call:refuse(invalid_options, <<"a store is an atom such as homeserver">>).

-spec subscribe(term(), term()) -> kb_call:answer().
subscribe(Store, #{pid := Pid, patterns := Patterns, window := Window} = Request)
  when is_pid(Pid), is_list(Patterns), is_integer(Window), Window >= 1, Window =< 10000 ->
    case kb_watch:compile(Patterns) of
        {ok, Watches} ->
            Spec = #{pid => Pid, watches => Watches, window => Window,
                     since => maps:get(since, Request, undefined)},
            kb_call:on_store(Store, 30000, fun() ->
                %% Without its projections a feed is silent, which no subscriber could tell from quiet.
                case kb_store:register_feed(Store) =:= ok andalso kb_feed:subscribe(Store, Spec) of
                    {ok, Value} -> {ok, Value};
                    false -> kb_call:no_leader();
                    {error, full} -> kb_call:refuse(too_large, <<"this member has as many subscribers as it takes">>);
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refused -> Refused
    end;
subscribe(_, _) ->
    kb_call:refuse(invalid_options, <<"a subscription is #{pid, patterns, since, window}, with window 1 to 10000">>).

-spec acknowledge(term(), term(), term()) -> {ok, #{}} | {error, {invalid_options, map()}}.
acknowledge(Ref, Sequence, Pid) when is_reference(Ref), is_integer(Sequence), is_pid(Pid) ->
    ok = kb_feed:acknowledge(Ref, Sequence, Pid),
    {ok, #{}};
acknowledge(_, _, _) ->
    kb_call:refuse(invalid_options, <<"acknowledge takes a subscription, a sequence and a pid">>).

-spec unsubscribe(term(), term()) -> {ok, #{}} | {error, {invalid_options, map()}}.
unsubscribe(Ref, Pid) when is_reference(Ref), is_pid(Pid) ->
    ok = kb_feed:unsubscribe(Ref, Pid),
    {ok, #{}};
unsubscribe(_, _) ->
    kb_call:refuse(invalid_options, <<"unsubscribe takes a subscription and a pid">>).

-spec open_session(term(), term(), term()) -> kb_call:answer().
open_session(Store, Request, Op) ->
    case kb_validate:request(open_session, Request) of
        {ok, #{key := Key, thumbprint := Thumbprint} = Valid} ->
            case kb_box:key(Key, Thumbprint) of
                {ok, _} -> decide(Store, open_session, {ok, Valid#{lease_ms => kb_lessor:lease_ms()}}, Op);
                error -> kb_call:refuse(invalid_key, <<"the key is no public P-256 JWK with this thumbprint">>)
            end;
        Refused -> Refused
    end.

-spec close_session(term(), term(), term()) -> kb_call:answer().
close_session(Store, Request, Op) -> ending(Store, close_session, Request, Op).

%% By whoever knows that nothing acts for the session any more.
-spec end_session(term(), term(), term()) -> kb_call:answer().
end_session(Store, Request, Op) -> ending(Store, end_session, Request, Op).

-spec raise_epochs(term(), term(), term()) -> kb_call:answer().
raise_epochs(Store, Request, Op) -> ask(Store, raise_epochs, Request, Op).

%% What this member does as the lessor, or that it is not.
-spec leases(term()) -> kb_call:answer().
leases(Store) -> kb_call:on_store(Store, ?READ_TIMEOUT_MS, fun() -> {ok, kb_lessor:statistics()} end).

-spec create_entity(term(), term(), term()) -> kb_call:answer().
create_entity(Store, Request, Op) -> ask(Store, create_entity, Request, Op).

-spec delete_entity(term(), term(), term()) -> kb_call:answer().
delete_entity(Store, Request, Op) -> ask(Store, delete_entity, Request, Op).

-spec give(term(), term(), term()) -> kb_call:answer().
give(Store, Request, Op) -> ask(Store, give, Request, Op).

-spec push(term(), term(), term()) -> kb_call:answer().
push(Store, Request, Op) -> ask(Store, push, Request, Op).

-spec pull(term(), term(), term()) -> kb_call:answer().
pull(Store, Request, Op) -> ask(Store, pull, Request, Op).

-spec release(term(), term(), term()) -> kb_call:answer().
release(Store, Request, Op) -> ask(Store, release, Request, Op).

-spec enter(term(), term(), term()) -> kb_call:answer().
enter(Store, Request, Op) -> ask(Store, enter, Request, Op).

-spec leave(term(), term(), term()) -> kb_call:answer().
leave(Store, Request, Op) -> ask(Store, leave, Request, Op).

-spec request(term(), term(), term()) -> kb_call:answer().
request(Store, Request, Op) -> ask_now(Store, request, Request, Op).

-spec answer(term(), term(), term()) -> kb_call:answer().
answer(Store, Request, Op) -> ask_now(Store, answer, Request, Op).

-spec withdraw(term(), term(), term()) -> kb_call:answer().
withdraw(Store, Request, Op) -> ask(Store, withdraw, Request, Op).

-spec set_rule(term(), term(), term()) -> kb_call:answer().
set_rule(Store, Request, Op) -> ask(Store, set_rule, Request, Op).

-spec set_master(term(), term(), term()) -> kb_call:answer().
set_master(Store, Request, Op) -> ask(Store, set_master, Request, Op).

-spec set_default_owner(term(), term(), term()) -> kb_call:answer().
set_default_owner(Store, Request, Op) -> ask(Store, set_default_owner, Request, Op).

-spec transfer(term(), term(), term()) -> kb_call:answer().
transfer(Store, Request, Op) -> ask(Store, transfer, Request, Op).

-spec revoke(term(), term(), term()) -> kb_call:answer().
revoke(Store, Request, Op) -> ask(Store, revoke, Request, Op).

-spec pin_peer(term(), term(), term()) -> kb_call:answer().
pin_peer(Store, Request, Op) -> ask(Store, pin_peer, Request, Op).

-spec unpin_peer(term(), term(), term()) -> kb_call:answer().
unpin_peer(Store, Request, Op) -> ask(Store, unpin_peer, Request, Op).

-spec note_servers(term(), term(), term()) -> kb_call:answer().
note_servers(Store, Request, Op) -> ask(Store, note_servers, Request, Op).

-spec push_abroad(term(), term(), term()) -> kb_call:answer().
push_abroad(Store, Request, Op) -> ask(Store, push_abroad, Request, Op).

-spec cancel_escrow(term(), term(), term()) -> kb_call:answer().
cancel_escrow(Store, Request, Op) -> ask(Store, cancel_escrow, Request, Op).

-spec close_escrow(term(), term(), term()) -> kb_call:answer().
close_escrow(Store, Request, Op) -> ask(Store, close_escrow, Request, Op).

-spec resolve_escrow(term(), term(), term()) -> kb_call:answer().
resolve_escrow(Store, Request, Op) -> ask_now(Store, resolve_escrow, Request, Op).

-spec escrow_noted(term(), term(), term()) -> kb_call:answer().
escrow_noted(Store, Request, Op) -> ask(Store, escrow_noted, Request, Op).

-spec escrow_settled(term(), term(), term()) -> kb_call:answer().
escrow_settled(Store, Request, Op) -> ask(Store, escrow_settled, Request, Op).

%% Who asks has checked the other instance's signature; that of the giver is checked here, as of a claim. A box that
%% is no release of this entity is a reason to refuse, which has to be remembered like any other.
-spec accept_escrow(term(), term(), term()) -> kb_call:answer().
accept_escrow(Store, Request, Op) ->
    case kb_validate:request(accept_escrow, Request) of
        {ok, #{box := Box, entity := Entity, giver := #{key := Key, session := Session, epoch := Epoch}} = Valid} ->
            Release = case kb_box:release(Box, {Entity, Key}) of
                          {ok, #{sid := Session, epoch := Epoch} = Claims} -> Claims;
                          _ -> undefined
                      end,
            decide(Store, accept_escrow, {ok, Valid#{release => Release}}, Op);
        Refused -> Refused
    end.

-spec refuse_escrow(term(), term(), term()) -> kb_call:answer().
refuse_escrow(Store, Request, Op) -> ask(Store, refuse_escrow, Request, Op).

-spec settle_escrow(term(), term(), term()) -> kb_call:answer().
settle_escrow(Store, Request, Op) -> ask(Store, settle_escrow, Request, Op).

-spec entity_moved(term(), term(), term()) -> kb_call:answer().
entity_moved(Store, Request, Op) -> ask(Store, entity_moved, Request, Op).

%% What was said first under an operation id: a repeat is answered with that, whatever it says itself. REST services
%% of 0.4 ask; later ones give their operation ids a purpose.
-spec claim_key(term(), term(), term()) -> kb_call:answer().
claim_key(Store, Request, Op) -> ask(Store, claim_key, Request, Op).

-spec enrol(term(), term(), term()) -> kb_call:answer().
enrol(Store, Request, Op) -> with_key(Store, enrol, thumbprint, Request, Op).

-spec authenticate(term(), term(), term()) -> kb_call:answer().
authenticate(Store, Request, Op) -> ask_now(Store, authenticate, Request, Op).

-spec attest(term(), term(), term()) -> kb_call:answer().
attest(Store, Request, Op) -> ask(Store, attest, Request, Op).

-spec revoke_credential(term(), term(), term()) -> kb_call:answer().
revoke_credential(Store, Request, Op) -> ask_now(Store, revoke_credential, Request, Op).

-spec publish_key(term(), term(), term()) -> kb_call:answer().
publish_key(Store, Request, Op) -> with_key(Store, publish_key, kid, Request, Op).

-spec set_player_data(term(), term(), term()) -> kb_call:answer().
set_player_data(Store, Request, Op) -> ask(Store, set_player_data, Request, Op).

%% The signature is checked here, since a transaction may not call crypto; that the signer is still the
%% holder is checked in the transaction.
-spec claim(term(), term(), term()) -> kb_call:answer().
claim(Store, Request, Op) ->
    case kb_validate:request(claim, Request) of
        {ok, #{box := Box, entity := Entity} = Valid} ->
            case verified(Store, Box, Entity) of
                {ok, Release} ->
                    decide(Store, claim, {ok, (maps:remove(box, Valid))#{release => Release}}, Op);
                bad_release ->
                    kb_call:refuse(bad_release, <<"no release of this entity whose signature holds under a session's key">>);
                Refused -> Refused
            end;
        Refused -> Refused
    end.

%% Requests that one client makes at once, as one command of the log: each under its own operation id, with its own
%% outcome. `ungrouped' where one of them is not to be had this way: each is to be made by itself then.
-spec requests(term(), term()) -> kb_call:answer().
requests(Store, Requests) when is_list(Requests), length(Requests) >= 1, length(Requests) =< ?MAX_GROUP ->
    At = erlang:system_time(millisecond),
    Checked = [grouped(Request, At) || Request <- Requests],
    Clients = lists:usort([{element(1, Id), element(2, Id)} || {Id, _} <- Checked]),
    case length(Clients) =:= 1 andalso not lists:member(refused, Checked) andalso kb_validate:size(Requests) =:= ok of
        true -> told_each(Checked, kb_commit:group(Store, Checked, ?AUTHORITY_TIMEOUT_MS));
        false -> kb_commit:ungrouped()
    end;
requests(_, _) ->
    kb_call:refuse(invalid_options, <<"1 to 64 requests, each {Function, Request, Op}, are made at once">>).

grouped({Function, Request, Op}, At) when is_atom(Function) ->
    IsTimed = lists:member(Function, ?TIMED),
    case (IsTimed orelse lists:member(Function, ?TIMELESS)) andalso
         {kb_validate:request(Function, Request), kb_validate:operation_id(Op)} of
        {{ok, Valid}, {ok, Id}} when IsTimed -> {Id, {authority, Function, Valid#{at => At}}};
        {{ok, Valid}, {ok, Id}} -> {Id, {authority, Function, limited(Function, Valid)}};
        _ -> refused
    end;
grouped(_, _) -> refused.

-spec entity(term(), term()) -> kb_call:answer().
entity(Store, Name) -> record(Store, entities, Name, no_entity).

-spec server(term(), term()) -> kb_call:answer().
server(Store, Name) -> record(Store, servers, Name, no_server).

-spec servers(term()) -> kb_call:answer().
servers(Store) ->
    kb_call:on_store(Store, fun() ->
        case khepri:get_many(Store, [bridge, servers, {if_name_matches, any, undefined}], #{timeout => ?READ_TIMEOUT_MS}) of
            {ok, Nodes} -> {ok, lists:sort(maps:values(Nodes))};
            Error -> kb_call:failure(Error, Store)
        end
    end).

record(Store, Kind, Name, Missing) ->
    case kb_validate:name(Name) of
        true ->
            kb_call:on_store(Store, fun() ->
                case look_up(Store, [bridge, Kind, Name], low_latency) of
                    {ok, Record} -> {ok, Record};
                    {error, {khepri, node_not_found, _}} -> kb_call:refuse(Missing, <<"none of this name">>);
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        false -> kb_call:refuse(invalid_request, <<"a name is a binary of 1 to 255 bytes of UTF-8, without / and control characters">>)
    end.

look_up(Store, Path, Favor) ->
    khepri:get(Store, Path, #{favor => Favor, timeout => ?READ_TIMEOUT_MS}).

verified(Store, Box, Entity) ->
    case kb_box:sender(Box) of
        error -> bad_release;
        {ok, #{sid := Session}} ->
            kb_call:on_store(Store, ?READ_TIMEOUT_MS, fun() ->
                case session_key(Store, Session, low_latency) of
                    {ok, Key} ->
                        case kb_box:release(Box, {Entity, Key}) of
                            {ok, Claims} -> {ok, Claims};
                            error -> bad_release
                        end;
                    {error, {khepri, node_not_found, _}} -> bad_release;
                    Error -> kb_call:failure(Error, Store)
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

%% A key that is no key would be everybody's trouble later.
with_key(Store, Function, Named, Request, Op) ->
    case kb_validate:request(Function, Request) of
        {ok, #{key := Key, Named := Thumbprint} = Valid} ->
            case kb_box:key(Key, Thumbprint) of
                {ok, _} -> decide(Store, Function, {ok, Valid#{at => erlang:system_time(millisecond)}}, Op);
                error -> kb_call:refuse(invalid_key, <<"the key is no public P-256 JWK with this thumbprint">>)
            end;
        Refused -> kb_call:first_refusal({Refused})
    end.

ending(Store, Function, Request, Op) ->
    case {kb_validate:request(Function, Request), kb_validate:operation_id(Op)} of
        {{ok, Valid}, {ok, Id}} ->
            kb_call:on_store(Store, fun() ->
                kb_lessor:end_session(Store, Function, Valid, Id, ?AUTHORITY_TIMEOUT_MS)
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

%% What expires does so by the time at which requests arrive: a transaction has none.
ask_now(Store, Function, Request, Op) ->
    case kb_validate:request(Function, Request) of
        {ok, Valid} -> decide(Store, Function, {ok, Valid#{at => erlang:system_time(millisecond)}}, Op);
        Refused -> kb_call:first_refusal({Refused})
    end.

decide(Store, Function, Request, Op) ->
    case {Request, kb_validate:operation_id(Op)} of
        {{ok, Valid}, {ok, Id}} ->
            told({authority, Function, Valid},
                 kb_commit:commit(Store, Id, {authority, Function, limited(Function, Valid)}, ?AUTHORITY_TIMEOUT_MS));
        Refused -> kb_call:first_refusal(Refused)
    end.

%% A request that belongs to a transfer is a line of the log, under the trace that all who take part in it write.
told({authority, Function, #{trace := Trace} = Request}, Answer) ->
    About = (maps:with([entity, session], Request))#{trace => Trace},
    Outcome = case Answer of
                  {error, {Reason, _}} -> Reason;
                  _ -> decided
              end,
    ?LOG_INFO("~ts: ~0tp", [Function, Outcome], About),
    Answer;
told(_, Answer) -> Answer.

told_each(Checked, {ok, Answers} = Group) when length(Checked) =:= length(Answers) ->
    lists:foreach(fun({{_, Request}, Answer}) -> told(Request, Answer) end, lists:zip(Checked, Answers)),
    Group;
told_each(_, Group) -> Group.

%% What the operator lets there be is for the member that is asked to know, before the log.
limited(Function, Request) ->
    case lists:member(Function, ?LIMITED) of
        true -> Request#{limits => kb_limits:entities()};
        false -> Request
    end.
