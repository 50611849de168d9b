%% What is refused before the log: anything that Khepri would accept there and then fail on in Ra's apply,
%% and anything without a bound. Returns requests in the native form that kb_tx takes.
-module(kb_validate).

-export([data/1, storable/1, size/1, timeout/1, write/1, read/1, operation_id/1, request/2, name/1]).

-compile({no_auto_import, [size/1]}).

-define(MAX_DATA_BYTES, 1048576).
-define(MAX_BOX_BYTES, 16384).
-define(MAX_KEY_BYTES, 2048).
-define(MAX_URLS, 8).
-define(MAX_KEYS, 8).
-define(MAX_SERVERS, 1000).
-define(MAX_PLAYER_DATA_BYTES, 8192).
-define(MAX_TTL_MS, 3600000).
-define(U64, 16#FFFFFFFFFFFFFFFF).
-define(PROPS, [payload, payload_version, child_list_version, child_list_length, child_names, has_payload]).

-spec data(term()) -> ok | kb_call:refusal().
data(Data) ->
    case size(Data) of
        ok -> storable(Data);
        Refusal -> Refusal
    end.

-spec size(term()) -> ok | kb_call:refusal().
size(Data) ->
    case erlang:external_size(Data) of
        Size when Size > ?MAX_DATA_BYTES ->
            {error, {too_large, #{size => Size, maximum => ?MAX_DATA_BYTES,
                                  message => <<"data is beyond 1 MiB: keep large things elsewhere">>}}};
        _ -> ok
    end.

%% A function would become a stored procedure, or stay as code of one node inside everybody's data.
-spec storable(term()) -> ok | kb_call:refusal().
storable(Data) ->
    case has_fun(Data) of
        true -> kb_call:refuse(invalid_data, <<"a function cannot be stored">>);
        false -> ok
    end.

has_fun([Head | Tail]) when is_integer(Head); is_binary(Head); is_atom(Head) -> has_fun(Tail);
has_fun([Head | Tail]) -> has_fun(Head) orelse has_fun(Tail);
has_fun(Tuple) when is_tuple(Tuple) -> tuple_has_fun(Tuple, tuple_size(Tuple));
has_fun(Map) when is_map(Map) -> pairs_have_fun(maps:next(maps:iterator(Map)));
has_fun(Term) -> is_function(Term).

tuple_has_fun(_, 0) -> false;
tuple_has_fun(Tuple, Position) -> has_fun(element(Position, Tuple)) orelse tuple_has_fun(Tuple, Position - 1).

pairs_have_fun({Key, Value, Rest}) ->
    has_fun(Key) orelse has_fun(Value) orelse pairs_have_fun(maps:next(Rest));
pairs_have_fun(none) -> false.

-spec timeout(term()) -> {ok, 1..60000} | {error, {invalid_options, map()}}.
timeout(Options) when is_map(Options) ->
    case maps:get(timeout, Options, 5000) of
        Timeout when is_integer(Timeout), Timeout >= 1, Timeout =< 60000 -> {ok, Timeout};
        _ -> kb_call:refuse(invalid_options, <<"timeout is 1 to 60000 milliseconds">>)
    end;
timeout(_) ->
    kb_call:refuse(invalid_options, <<"options are a map such as #{timeout => 5000}">>).

%% Options of a write.
-spec write(term()) -> {ok, 1..60000} | {error, {invalid_options, map()}}.
write(Options) when is_map(Options) ->
    case maps:size(maps:remove(timeout, Options)) of
        0 -> timeout(Options);
        _ -> kb_call:refuse(invalid_options, <<"the only option is timeout">>)
    end;
write(_) ->
    kb_call:refuse(invalid_options, <<"options are a map such as #{timeout => 5000}">>).

%% Options of a read, as Khepri takes them.
-spec read(term()) -> {ok, map()} | {error, {invalid_options, map()}}.
read(Options) when is_map(Options) ->
    case timeout(Options) of
        {ok, Timeout} ->
            Defaults = #{favor => low_latency, timeout => Timeout, props_to_return => [payload]},
            case lists:all(fun read_option/1, maps:to_list(Options)) of
                true -> {ok, maps:merge(Defaults, Options)};
                false ->
                    kb_call:refuse(invalid_options, <<"options are favor (low_latency, consistency), timeout, props_to_return "
                                              "(a list of properties), expect_specific_node and include_root_props">>)
            end;
        Refusal -> Refusal
    end;
read(_) ->
    kb_call:refuse(invalid_options, <<"options are a map such as #{favor => low_latency}">>).

read_option({timeout, _}) -> true;
read_option({favor, Favor}) -> Favor =:= low_latency orelse Favor =:= consistency;
read_option({expect_specific_node, Flag}) -> is_boolean(Flag);
read_option({include_root_props, Flag}) -> is_boolean(Flag);
read_option({props_to_return, Props}) -> are_props(Props, 16);
read_option(_) -> false.

are_props([], _) -> true;
are_props([delete_reason | Rest], Left) when Left > 0 ->
    khepri_machine:version() >= 2 andalso are_props(Rest, Left - 1);
are_props([Prop | Rest], Left) when Left > 0 -> lists:member(Prop, ?PROPS) andalso are_props(Rest, Left - 1);
are_props(_, _) -> false.

-spec operation_id(term()) -> {ok, kb_tx:op()} | kb_call:refusal().
operation_id({Client, Incarnation, Sequence, LowWater} = Op)
  when is_binary(Client), byte_size(Client) >= 1, byte_size(Client) =< 255,
       is_integer(Incarnation), Incarnation >= 1, Incarnation =< ?U64,
       is_integer(Sequence), Sequence >= 1, Sequence =< ?U64,
       is_integer(LowWater), LowWater >= 0, LowWater < Sequence ->
    {ok, Op};
operation_id({Client, Incarnation, Sequence, LowWater, Purpose} = Op)
  when is_binary(Purpose), byte_size(Purpose) >= 1, byte_size(Purpose) =< 255 ->
    case operation_id({Client, Incarnation, Sequence, LowWater}) of
        {ok, _} -> {ok, Op};
        Refusal -> Refusal
    end;
operation_id(_) ->
    kb_call:refuse(invalid_options, <<"an operation id is {Client, Incarnation, Sequence, LowWater}, or these and a Purpose">>).

%% Requests of docs/protocol.md §7: exactly the members the decision reads, each of its type and size.
-spec request(atom(), term()) -> {ok, map()} | kb_call:refusal().
request(Function, Request) when is_map(Request) ->
    Wanted = members(Function) ++ [Optional || {Member, _} = Optional <- optional(Function), is_map_key(Member, Request)],
    case [Member || {Member, Kind} <- Wanted, not has(Member, Kind, Request)] of
        [] ->
            Kept = maps:with([Member || {Member, _} <- Wanted], Request),
            case Request of
                #{box := Box} when byte_size(Box) > ?MAX_BOX_BYTES ->
                    {error, {too_large, #{maximum => ?MAX_BOX_BYTES, message => <<"a release has up to 16 KiB">>}}};
                #{trace := Trace, hop := Hop}
                  when is_binary(Trace), byte_size(Trace) =:= 16, is_integer(Hop), Hop >= 0, Hop < 64 ->
                    {ok, Kept#{trace => Trace, hop => Hop}};
                #{trace := _} -> kb_call:refuse(invalid_request, <<"trace has 16 bytes, hop is 0 to 63">>);
                #{hop := _} -> kb_call:refuse(invalid_request, <<"hop without trace">>);
                _ -> {ok, Kept}
            end;
        [Member | _] ->
            {error, {invalid_request, #{member => Member,
                                        message => <<"this member is missing or not what it has to be; a name has 1 to 255 bytes of "
                                                     "UTF-8 without / and control characters, and is not . or ..">>}}}
    end;
request(_, _) ->
    kb_call:refuse(invalid_request, <<"a request is a map">>).

members(open_session) ->
    [{server, name}, {session, id}, {key, key}, {thumbprint, thumbprint}, {address, address}];
members(close_session) -> [{session, id}];
members(end_session) -> [{session, id}, {reason, ending}];
members(raise_epochs) -> [{above, epoch}];
members(create_entity) ->
    [{entity, name}, {owner, name}, {master, name}, {rule, rule}, {session, id}];
members(delete_entity) -> [{entity, name}, {by, party}];
members(give) -> [{entity, name}, {session, id}, {epoch, epoch}, {owner, name}];
members(push) -> [{to, name}, {box, box} | members(give)];
members(pull) -> members(give);
members(claim) -> [{entity, name}, {session, id}, {owner, name}, {box, box}];
members(release) -> [{entity, name}, {session, id}, {epoch, epoch}];
members(enter) -> [{player, name}, {session, id}];
members(leave) -> [{player, name}, {session, id}, {bucket, bucket}];
members(request) ->
    [{entity, name}, {player, name}, {session, id}, {owner, name}, {epoch, epoch}, {authority, boolean}, {ttl, ttl}];
members(answer) -> [{entity, name}, {player, name}, {by, party}, {grant, boolean}];
members(withdraw) -> [{entity, name}, {player, name}];
members(set_rule) -> [{entity, name}, {by, party}, {rule, rule}];
members(set_master) -> [{entity, name}, {by, party}, {master, name}];
members(set_default_owner) -> [{entity, name}, {by, party}, {default_owner, name_or_none}];
members(transfer) -> [{entity, name}, {by, party}, {to, name}];
members(revoke) -> [{entity, name}, {by, party}];
members(claim_key) -> [{digest, thumbprint}];
members(enrol) ->
    [{subject, local_name}, {role, role}, {key, key}, {thumbprint, thumbprint}, {certificate, credential}, {expires, seconds},
     {previous, credential_or_none}, {operator, boolean}];
members(authenticate) ->
    [{subject, name}, {role, role}, {thumbprint, thumbprint}, {certificate, credential}, {proof, credential},
     {issued, seconds}, {peer, name_or_none}];
members(attest) ->
    [{session, id}, {server, name}, {thumbprint, thumbprint}, {entity, name_or_none}];
members(revoke_credential) -> [{id, credential}, {reason, text}];
members(publish_key) -> [{kid, thumbprint}, {key, key}, {state, key_state}];
members(set_player_data) -> [{player, name}, {data, player_data}, {by, party}];
members(pin_peer) -> [{instance, instance}, {urls, urls}, {keys, keys}, {ca, text_or_none}, {since, epoch}];
members(unpin_peer) -> [{instance, instance}, {anyway, boolean}];
members(note_servers) -> [{instance, instance}, {servers, servers}];
members(push_abroad) -> [{instance, instance} | members(push)];
members(cancel_escrow) -> [{transfer, transfer}];
members(close_escrow) ->
    [{transfer, transfer}, {instance, instance}, {verdict, verdict}, {epoch, epoch}, {reason, name}];
members(resolve_escrow) ->
    [{transfer, transfer}, {choice, choice}, {where, instance}, {epoch, epoch}, {reason, name}, {said, said}];
members(escrow_noted) -> [{transfer, transfer}];
members(escrow_settled) -> [{instance, instance}, {low, epoch}];
members(accept_escrow) ->
    [{entity, name}, {owner, name}, {master, name}, {default_owner, name_or_none}, {rule, rule}, {home, instance},
     {to, name}, {box, box}, {giver, giver} | members(refuse_escrow)];
members(refuse_escrow) -> [{instance, instance}, {transfer, transfer}, {low, epoch}];
members(settle_escrow) -> [{instance, instance}, {low, epoch}];
members(entity_moved) -> [{instance, instance}, {entity, name}, {at, instance}, {epoch, epoch}].

optional(Function) when Function =:= create_entity; Function =:= pull; Function =:= claim -> [{present, players}];
optional(_) -> [].

has(Member, Kind, Request) ->
    case Request of
        #{Member := Value} -> is(Kind, Value);
        _ -> false
    end.

is(name, Value) -> name(Value);
is(text, Value) -> is_binary(Value) andalso byte_size(Value) >= 1 andalso byte_size(Value) =< 255;
is(id, Value) -> is_binary(Value) andalso byte_size(Value) =:= 16;
is(thumbprint, Value) -> is_binary(Value) andalso byte_size(Value) =:= 43;
is(key, Value) -> is_binary(Value) andalso byte_size(Value) =< ?MAX_KEY_BYTES;
is(box, Value) -> is_binary(Value);
is(players, Value) -> all(fun name/1, Value, 2);
is(epoch, Value) -> is_integer(Value) andalso Value >= 0 andalso Value =< ?U64;
%% `player@instance' is another instance's player, also where that one is pinned only later.
is(local_name, Value) -> is(instance, Value);
is(role, Value) -> lists:member(Value, [player, server, operator]);
is(key_state, Value) -> Value =:= current orelse Value =:= next;
%% A thumbprint, or an id of 16 bytes, in base64url.
is(credential, Value) -> is_binary(Value) andalso (byte_size(Value) =:= 43 orelse byte_size(Value) =:= 22);
is(credential_or_none, Value) -> Value =:= undefined orelse is(credential, Value);
is(seconds, Value) -> is_integer(Value) andalso Value >= 0 andalso Value < 1 bsl 53;
is(player_data, Value) -> is_binary(Value) andalso byte_size(Value) =< ?MAX_PLAYER_DATA_BYTES;
is(ending, Value) -> Value =:= dead orelse Value =:= drained;
is(rule, Value) -> lists:member(Value, [allow, deny, ask]);
is(boolean, Value) -> is_boolean(Value);
is(party, Value) -> Value =:= operator orelse name(Value);
is(name_or_none, Value) -> Value =:= undefined orelse name(Value);
is(ttl, Value) -> is_integer(Value) andalso Value >= 1 andalso Value =< ?MAX_TTL_MS;
is(bucket, Value) -> is_integer(Value) andalso Value >= 0 andalso Value < kb_authority_tree:buckets();
is(instance, Value) -> name(Value) andalso binary:match(Value, <<"@">>) =:= nomatch;
is(transfer, Value) -> is(epoch, Value) andalso Value >= 1;
is(verdict, Value) -> Value =:= accepted orelse Value =:= refused;
is(choice, Value) -> lists:member(Value, [back, gone, forget]);
is(said, Value) -> is_binary(Value) andalso byte_size(Value) =< ?MAX_BOX_BYTES;
is(text_or_none, Value) -> Value =:= undefined orelse is_binary(Value) andalso byte_size(Value) =< ?MAX_BOX_BYTES;
is(urls, Value) -> all(fun(Url) -> is(text, Url) end, Value, ?MAX_URLS);
is(keys, Value) -> all(fun(Key) -> is(key, Key) end, Value, ?MAX_KEYS);
is(servers, Value) ->
    is_map(Value) andalso map_size(Value) =< ?MAX_SERVERS
        andalso lists:all(fun({Name, Server}) -> name(Name) andalso is_server(Server) end, maps:to_list(Value));
is(giver, #{epoch := Epoch} = Value) -> is(epoch, Epoch) andalso is_server(maps:remove(epoch, Value));
is(giver, _) -> false;
is(address, {Host, Port}) -> is(text, Host) andalso is_integer(Port) andalso Port > 0 andalso Port < 65536;
is(address, _) -> false.

is_server(#{server := Server, session := Session, key := Key, thumbprint := Thumbprint, address := Address} = Value) ->
    map_size(Value) =:= 5 andalso name(Server) andalso is(id, Session) andalso is(key, Key)
        andalso is(thumbprint, Thumbprint) andalso is(address, Address);
is_server(_) -> false.

%% Of a proper list with one element at least.
all(Is, [Value], Left) -> Left > 0 andalso Is(Value);
all(Is, [Value | Rest], Left) -> Left > 0 andalso Is(Value) andalso all(Is, Rest, Left - 1);
all(_, _, _) -> false.

%% Of a server, an entity, a player, an instance: a component of a path, here as in a URL, that people get to see. The
%% same as bridge/jose/credentials/names.py.
-spec name(term()) -> boolean().
name(Value) when Value =:= <<".">>; Value =:= <<"..">> -> false;
name(Value) -> is(text, Value) andalso is_plain(Value).

is_plain(<<Char/utf8, Rest/binary>>) when Char >= $\s, Char =/= $/, Char < 16#7F; Char > 16#9F -> is_plain(Rest);
is_plain(Rest) -> Rest =:= <<>>.
