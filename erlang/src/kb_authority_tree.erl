%% What the decisions on authority share: where records lie (docs/protocol.md §2), epochs, steps and refusals.
-module(kb_authority_tree).

-export([entity_path/1, server_path/1, session_path/1, ending_path/1, player_path/1, held_path/2, owned_path/2, bucket/1,
         inbox_path/2, ask_inbox_path/3, asks_path/1, buckets/0]).
-export([peer_path/1, abroad_path/1, escrow_path/1, outgoing_path/1, incoming_path/1, incoming_path/2]).
-export([bump/1, next_epoch/1, epoch_above/2, raise_epochs/2, step/1, step_or_none/1]).
-export([refuse/2, refuse/3, not_holder/1, no_session/0, conflict/2]).

-export_type([path/0, change/0, decision/0, refusal/0, read/0, lister/0]).

-define(MAX_INCARNATION, 16#FFFF).
-define(MAX_COUNTER, 16#FFFFFFFFFFFF).
-define(BUCKETS, 64).

-type path() :: [atom() | binary()].
-type change() :: {put, path(), map()} | {delete, path()}.
-type decision() :: {ok, map(), [change()]} | {error, {atom(), map()}}.
-type refusal() :: {error, {atom(), #{message := _, _ => _}}}.
-type read() :: fun((path()) -> map() | undefined).
-type lister() :: fun((path()) -> [map()]).

-spec entity_path(binary()) -> path().
entity_path(Entity) -> [bridge, entities, Entity].

-spec server_path(binary()) -> path().
server_path(Server) -> [bridge, servers, Server].

-spec session_path(binary()) -> path().
session_path(Session) -> [bridge, sessions, Session].

%% One that has ended, and named more than one transaction is to pass on.
-spec ending_path(binary()) -> path().
ending_path(Session) -> [bridge, ending, Session].

-spec player_path(binary()) -> path().
player_path(Player) -> [bridge, players, Player].

%% What a session holds, or has to release, and what a player owns lies in buckets: a few records, of which a
%% transaction that begins at one of them never has to look at all.
-spec held_path(binary(), non_neg_integer()) -> path().
held_path(Session, Bucket) -> [bridge, held, Session, integer_to_binary(Bucket)].

-spec owned_path(binary(), non_neg_integer()) -> path().
owned_path(Player, Bucket) -> [bridge, owned, Player, integer_to_binary(Bucket)].

-spec bucket(binary()) -> non_neg_integer().
bucket(Entity) -> erlang:phash2(Entity, ?BUCKETS).

-spec buckets() -> ?BUCKETS.
buckets() -> ?BUCKETS.

-spec inbox_path(binary(), binary()) -> path().
inbox_path(Session, Entity) -> [bridge, inbox, Session, Entity].

%% Beside the grants and recalls, whose place in the inbox is emptied when the entity is released.
-spec ask_inbox_path(binary(), binary(), binary()) -> path().
ask_inbox_path(Session, Entity, Asker) -> [bridge, inbox, Session, asks, Entity, Asker].

-spec asks_path(binary()) -> path().
asks_path(Master) -> [bridge, asks, Master].

-spec peer_path(binary()) -> path().
peer_path(Instance) -> [bridge, peers, Instance].

%% The servers of another instance.
-spec abroad_path(binary()) -> path().
abroad_path(Instance) -> [bridge, abroad, Instance].

-spec escrow_path(pos_integer()) -> path().
escrow_path(Transfer) -> [bridge, escrow, integer_to_binary(Transfer)].

-spec outgoing_path(binary()) -> path().
outgoing_path(Instance) -> [bridge, outgoing, Instance].

-spec incoming_path(binary()) -> path().
incoming_path(Instance) -> [bridge, incoming, Instance].

-spec incoming_path(binary(), pos_integer()) -> path().
incoming_path(Instance, Transfer) -> [bridge, incoming, Instance, integer_to_binary(Transfer)].

-spec bump(#{version := number(), _ => _}) -> #{version := number(), _ => _}.
bump(#{version := Version} = Record) -> Record#{version => Version + 1}.

-spec next_epoch(read()) -> {pos_integer(), change()}.
next_epoch(Read) ->
    #{incarnation := Incarnation, counter := Counter} = Grants = Read([bridge, grants]),
    Next = case Counter of
               ?MAX_COUNTER -> Grants#{incarnation => Incarnation + 1, counter => 0};
               _ -> Grants#{counter => Counter + 1}
           end,
    #{incarnation := High, counter := Low} = Next,
    {(High bsl 48) bor Low, {put, [bridge, grants], Next}}.

%% Above an epoch that another instance gave.
-spec epoch_above(pos_integer(), read()) -> {pos_integer(), change()}.
epoch_above(Received, Read) ->
    #{incarnation := Incarnation, counter := Counter} = Grants = Read([bridge, grants]),
    case (Incarnation bsl 48) bor Counter of
        Last when Last >= Received -> next_epoch(Read);
        _ ->
            Raised = Grants#{incarnation => Received bsr 48, counter => Received band ?MAX_COUNTER},
            next_epoch(fun([bridge, grants]) -> Raised end)
    end.

%% After a restore: all epochs from now on are above any that was given here, or `above' in the life that the backup is
%% of, so that nobody who remembers those refuses what is granted next.
-spec raise_epochs(#{above := non_neg_integer(), _ => _}, read()) -> decision().
raise_epochs(#{above := Above}, Read) ->
    #{incarnation := Present} = Grants = Read([bridge, grants]),
    case erlang:max(Present, Above bsr 48) + 1 of
        Next when Next =< ?MAX_INCARNATION ->
            {ok, #{incarnation => Next}, [{put, [bridge, grants], Grants#{incarnation => Next, counter => 0}}]};
        _ ->
            refuse(invalid_request, <<"there is no higher incarnation of epochs than 65535">>)
    end.

%% Of what a request causes; nothing where the request has none.
-spec step(map()) -> map().
step(#{trace := Trace, hop := Hop}) -> #{trace => Trace, hop => Hop + 1};
step(_) -> #{}.

%% Of a message, which always has one.
-spec step_or_none(map()) -> #{trace := _, hop := number()}.
step_or_none(Request) -> maps:merge(#{trace => <<0:128>>, hop => 0}, step(Request)).

-spec refuse(atom(), binary()) -> refusal().
refuse(Reason, Message) -> refuse(Reason, #{}, Message).

%% With what the caller may want to know.
-spec refuse(atom(), map(), binary()) -> refusal().
refuse(Reason, Props, Message) -> {error, {Reason, Props#{message => Message}}}.

-spec no_session() -> refusal().
no_session() -> refuse(no_session, <<"this session is not open: open one first">>).

-spec not_holder(#{epoch := _, _ => _}) -> refusal().
not_holder(#{epoch := Epoch}) -> refuse(not_holder, #{epoch => Epoch}, <<"this session does not hold the entity at that epoch">>).

-spec conflict(binary() | undefined, map()) -> refusal().
conflict(undefined, Record) -> conflict(<<>>, Record);
conflict(Winner, #{epoch := Epoch, owner := Owner}) ->
    refuse(conflict, #{winner => Winner, owner => Owner, epoch => Epoch}, <<"another one took the entity first">>).
