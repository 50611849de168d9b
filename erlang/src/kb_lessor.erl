%% Keeps sessions alive and ends those that are not (docs/leases.md): a process on every homeserver, of which the one
%% beside the store's leader is the lessor. The others pass on what servers send to them, or drop it. What it decides
%% stands in kb_lease; here are its clock, its transactions and its messages.
%%
%% Each transaction runs in a process of its own: one that hangs must not keep this one from its tick.
-module(kb_lessor).
-behaviour(gen_server).

-export([start_link/2, end_session/5, lease_ms/0, statistics/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-define(TICK_MS, 50).
-define(TRANSACTION_MS, 2000).
%% What hangs with a leader that is gone is made again: the lease of those who wait for it goes on running.
-define(BEAT_TIMEOUT_MS, 1000).
-define(FEED_WINDOW, 10000).
-define(LESSOR_CALL_MS, 1500).
-define(LESSOR_PATIENCE_MS, 1500).
-define(AGAIN_MS, 50).
-define(U64, 16#FFFFFFFFFFFFFFFF).
-define(MAX_LIST, 1000).

-type work() :: take | beat | {{expire | pass_on, kb_lease:session()} | {close, gen_server:from()}, reference()}.
-record(state, {store :: atom(), lease_ms :: pos_integer(),
                role = follows :: follows | taking | leads,
                generation = 0 :: non_neg_integer(),
                lease :: kb_lease:state() | undefined,
                led_since = 0 :: integer(),
                feed :: reference() | undefined,
                works = #{} :: #{reference() => work()},
                %% Sessions that have ended, and named more than one transaction is to pass on.
                left = [] :: [kb_lease:session()],
                %% Which process waits for what servers answer about entities that they have streamed in.
                asking = #{} :: #{reference() => pid()},
                counts = #{taken => 0, expired => 0, closed => 0} :: #{taken | expired | closed => non_neg_integer()}}).

-spec start_link(atom(), pos_integer()) -> {ok, pid()} | ignore | {error, term()}.
start_link(Store, LeaseMs) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, {Store, LeaseMs}, []).

%% What a session gets that is opened before any member was the lessor.
-spec lease_ms() -> pos_integer().
lease_ms() -> persistent_term:get({?MODULE, lease_ms}, 3000).

%% Of this member: leases while it is the lessor, and what it did since it started.
-spec statistics() -> #{role := follows | taking | leads, generation := non_neg_integer(), _ => _}.
statistics() -> gen_server:call(?MODULE, statistics).

%% Ends a session for which nothing acts any more. By the lessor, which finds successors; where there is none to be
%% found in time, without them: the operation id makes one of both.
-spec end_session(atom(), close_session | end_session, map(), kb_tx:op(), pos_integer()) -> kb_call:answer().
end_session(Store, Function, Request, Id, Timeout) ->
    Began = now_ms(),
    case ask_lessor(Store, {end_session, Function, Request, Id}, Began + ?LESSOR_PATIENCE_MS) of
        {answer, Answer} -> Answer;
        none ->
            Ending = {authority, Function, kb_ending:bounded(Request)},
            kb_commit:commit(Store, Id, Ending, max(1, Began + Timeout - now_ms()))
    end.

ask_lessor(Store, Question, Deadline) ->
    Answer = case leader(Store) of
                 undefined -> none;
                 Node ->
                     %% Not over a connection that would have to be made: a host that is gone takes seconds to say so.
                     try lists:member(Node, [node() | nodes()]) andalso
                             gen_server:call({?MODULE, Node}, Question, ?LESSOR_CALL_MS) of
                         {answer, _} = Told -> Told;
                         _ -> none
                     catch exit:_ -> none
                     end
             end,
    case Answer =:= none andalso now_ms() + ?AGAIN_MS < Deadline of
        true ->
            timer:sleep(?AGAIN_MS),
            ask_lessor(Store, Question, Deadline);
        false -> Answer
    end.

-spec init({atom(), pos_integer()}) -> {ok, #state{}}.
init({Store, LeaseMs}) ->
    persistent_term:put({?MODULE, lease_ms}, LeaseMs),
    self() ! tick,
    {ok, #state{store = Store, lease_ms = LeaseMs}}.

handle_call({end_session, Function, #{session := Session} = Request, Id}, From,
            #state{role = leads, store = Store, lease = Lease} = State) ->
    Routes = kb_lease:routes(Session, Lease),
    Commit = fun(Found) ->
                     kb_commit:commit(Store, Id, {authority, Function, maps:merge(Found, Request)}, ?TRANSACTION_MS)
             end,
    {noreply, closing({close, From}, Session, Routes, Commit, State#state{lease = kb_lease:silence(Session, closing, Lease)})};
handle_call({end_session, _, _, _}, _From, State) ->
    {reply, not_lessor, State};
handle_call(statistics, _From, #state{role = Role, generation = Generation, lease = Lease, counts = Counts} = State) ->
    Leases = case Lease of
                 undefined -> #{};
                 _ -> kb_lease:statistics(Lease)
             end,
    {reply, maps:merge(Leases, Counts#{role => Role, generation => Generation}), State};
handle_call(_, _From, State) ->
    {reply, {error, unknown_call}, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info({renew, Pid, Session, Number, Tick, Load, Obeyed}, State) ->
    case renewal(Pid, Session, Number, Tick, Load, Obeyed) of
        {ok, Renewal} -> {noreply, to_lessor({renewed, Renewal}, State)};
        error -> {noreply, State}
    end;
handle_info({streams, Ref, Session, Load, Entities}, State) ->
    handle_info({streams, Ref, Session, Load, Entities, []}, State);
handle_info({streams, Ref, Session, Load, Entities, Released}, State)
  when is_reference(Ref), is_binary(Session), is_integer(Load), Load >= 0 ->
    case is_list_up_to(Entities, ?MAX_LIST) andalso lists:all(fun is_binary/1, Entities) andalso are_epochs(Released) of
        true -> {noreply, to_lessor({streams, Ref, Session, Load, Entities, Released}, State)};
        false -> {noreply, State}
    end;
handle_info({forwarded, Message}, #state{role = leads} = State) ->
    {noreply, heard(Message, State)};
handle_info({relay, Messages}, State) ->
    _ = [tell(Pid, Message) || {Pid, Message} <- Messages],
    {noreply, State};
handle_info(tick, State) ->
    _ = erlang:send_after(?TICK_MS, self(), tick),
    {noreply, ticked(State)};
handle_info({kb_feed, Feed, Changes}, #state{feed = Feed} = State) ->
    ok = kb_feed:acknowledge(Feed, element(1, lists:last(Changes)), self()),
    {noreply, lists:foldl(fun changed/2, State, Changes)};
handle_info({kb_feed_gap, Feed}, #state{feed = Feed} = State) ->
    {noreply, subscribed(State#state{feed = undefined})};
handle_info({'DOWN', Monitor, process, _, Reason}, #state{works = Works} = State) ->
    case maps:take(Monitor, Works) of
        {Work, Left} ->
            Answer = case Reason of
                         {done, Value} -> Value;
                         _ -> kb_call:failure({error, Reason}, State#state.store)
                     end,
            {noreply, done(Work, Answer, State#state{works = Left})};
        error -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%% What comes from servers is told to the lessor, wherever it is, or to nobody.
to_lessor(Message, #state{role = leads} = State) -> heard(Message, State);
to_lessor(Message, #state{store = Store} = State) ->
    case leader(Store) of
        Node when Node =:= undefined; Node =:= node() -> ok;
        Node -> tell({?MODULE, Node}, {forwarded, Message})
    end,
    State.

heard({renewed, Renewal}, #state{lease = Lease} = State) ->
    State#state{lease = kb_lease:renew(Renewal, now_ms(), Lease)};
heard({streams, Ref, _, _, _, _} = Answer, #state{asking = Asking} = State) ->
    _ = [Pid ! Answer || #{Ref := Pid} <- [Asking]],
    State.

renewal(Pid, Session, Number, Tick, Load, Obeyed)
  when is_pid(Pid), is_binary(Session), byte_size(Session) =:= 16, is_integer(Number), Number >= 1, Number =< ?U64,
       is_integer(Tick), Tick >= 0, Tick =< ?U64, is_integer(Load), Load >= 0 ->
    case are_epochs(Obeyed) of
        true -> {ok, #{session => Session, number => Number, tick => Tick, load => Load, obeyed => Obeyed,
                       route => {node(), Pid}}};
        false -> error
    end;
renewal(_, _, _, _, _, _) -> error.

are_epochs(List) ->
    IsEpoch = fun({Entity, Epoch}) -> is_binary(Entity) andalso is_integer(Epoch) andalso Epoch >= 0 andalso Epoch =< ?U64;
                 (_) -> false
              end,
    is_list_up_to(List, ?MAX_LIST) andalso lists:all(IsEpoch, List).

is_list_up_to([], _) -> true;
is_list_up_to([_ | Rest], Left) when Left > 0 -> is_list_up_to(Rest, Left - 1);
is_list_up_to(_, _) -> false.

ticked(#state{store = Store, role = Role} = State) ->
    case {leader(Store) =:= node(), Role} of
        {true, follows} -> take(State);
        {true, taking} -> State;
        {true, leads} -> beat(pass_on(expire(subscribed(State))));
        {false, follows} -> State;
        {false, _} -> forgotten(State)
    end.

%% Deposed, or the leader is elsewhere: nothing of what is under way counts any more.
forgotten(#state{works = Works, feed = Feed} = State) ->
    _ = Feed =:= undefined orelse kb_feed:unsubscribe(Feed, self()),
    _ = [gen_server:reply(From, not_lessor) || {{close, From}, _} <- maps:values(Works)],
    State#state{role = follows, lease = undefined, feed = undefined, works = #{}, asking = #{}, left = []}.

take(#state{store = Store, lease_ms = LeaseMs} = State) ->
    Request = #{node => atom_to_binary(node()), lease_ms => LeaseMs},
    {_, Begun} = work(take, fun() -> kb_commit:own(Store, take, Request, ?TRANSACTION_MS) end, State#state{role = taking}),
    Begun.

expire(#state{lease = Lease} = State) ->
    {Expired, Ticked} = kb_lease:tick(now_ms(), Lease),
    lists:foldl(fun expire/2, State#state{lease = Ticked}, Expired).

expire(Session, #state{store = Store, generation = Generation, lease = Lease} = State) ->
    Commit = fun(Found) ->
                     kb_commit:own(Store, expire, Found#{generation => Generation, session => Session}, ?TRANSACTION_MS)
             end,
    closing({expire, Session}, Session, kb_lease:routes(Session, Lease), Commit, State).

closing(Kind, Session, Routes, Commit, #state{store = Store} = State) ->
    ending(Kind, fun(Ref) -> kb_ending:close(Store, Session, Ref, Routes, Commit) end, State).

%% One after the other: others are to write in between. A new lessor first hears renewals of all, or would know nobody
%% to ask.
pass_on(#state{left = []} = State) -> State;
pass_on(#state{left = [Session | _], works = Works, store = Store, generation = Generation, lease = Lease} = State) ->
    #state{led_since = Since, lease_ms = LeaseMs} = State,
    IsIdle = [passing_on || {{pass_on, _}, _} <- maps:values(Works)] =:= [],
    case IsIdle andalso now_ms() - Since >= LeaseMs div 2 of
        true ->
            Routes = kb_lease:routes(Session, Lease),
            ending({pass_on, Session}, fun(Ref) -> kb_ending:pass_on(Store, Session, Generation, Ref, Routes) end, State);
        false -> State
    end.

ending(Kind, End, #state{asking = Asking} = State) ->
    Ref = make_ref(),
    {Pid, Begun} = work({Kind, Ref}, fun() -> End(Ref) end, State),
    Begun#state{asking = Asking#{Ref => Pid}}.

beat(#state{lease = Lease, store = Store, generation = Generation} = State) ->
    case kb_lease:beat(now_ms(), Lease) of
        {submit, Unknown, Submitted} ->
            Request = #{generation => Generation, sessions => Unknown},
            {_, Begun} = work(beat, fun() -> kb_commit:own(Store, beat, Request, ?BEAT_TIMEOUT_MS) end,
                              State#state{lease = Submitted}),
            Begun;
        {wait, Waiting} -> State#state{lease = Waiting}
    end.

work(Work, Fun, #state{works = Works} = State) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({done, Fun()}) end),
    {Pid, State#state{works = Works#{Monitor => Work}}}.

done(take, {ok, #{generation := Generation}}, #state{counts = #{taken := Taken} = Counts} = State) ->
    ?LOG_NOTICE("khepri_bridge: the lessor is here, generation ~b", [Generation]),
    subscribed(State#state{role = leads, generation = Generation, lease = kb_lease:new(now_ms()), led_since = now_ms(),
                           counts = Counts#{taken := Taken + 1}});
done(take, _, State) ->
    State#state{role = follows};
done(beat, {ok, #{there := There}}, #state{lease = Lease} = State) ->
    {Acknowledged, Lost, Committed} = kb_lease:committed(There, now_ms(), Lease),
    relay([{Route, {renewed, Session, Number, State#state.generation, Recalls}}
           || {Route, Session, Number, Recalls} <- Acknowledged]
          ++ [{Route, {lost, Session}} || {Route, Session} <- Lost]),
    State#state{lease = Committed};
done(beat, {error, {deposed, _}}, State) ->
    forgotten(State);
done(beat, _, #state{lease = Lease} = State) ->
    State#state{lease = kb_lease:uncommitted(Lease)};
done({Kind, Ref}, Answer, #state{asking = Asking} = State) ->
    ended(Kind, Answer, State#state{asking = maps:remove(Ref, Asking)}).

ended({close, From}, Answer, #state{counts = #{closed := Closed} = Counts} = State) ->
    ok = gen_server:reply(From, {answer, Answer}),
    State#state{counts = Counts#{closed := Closed + 1}};
ended({expire, Session}, {ok, #{left := Left}}, State) ->
    ?LOG_NOTICE("khepri_bridge: session ~ts expired: ~b entities are to be passed on", [binary:encode_hex(Session), Left]),
    expired(Session, State);
ended({expire, Session}, {ok, Ended}, State) ->
    ?LOG_NOTICE("khepri_bridge: session ~ts expired: ~ts", [binary:encode_hex(Session), counted(Ended)]),
    expired(Session, State);
ended({pass_on, Session}, {ok, #{left := 0} = Ended}, #state{left = Left} = State) ->
    ?LOG_NOTICE("khepri_bridge: all of the ended session ~ts: ~ts", [binary:encode_hex(Session), counted(Ended)]),
    State#state{left = lists:delete(Session, Left)};
ended({Kind, _}, {error, {deposed, _}}, State) when Kind =:= expire; Kind =:= pass_on ->
    forgotten(State);
ended({pass_on, _}, _, State) ->
    %% Again with the next tick, from what the tree has by then.
    State;
ended({expire, Session}, _, #state{lease = Lease} = State) ->
    State#state{lease = kb_lease:unexpired(Session, Lease)}.

counted(#{released := Released, passed := Passed}) ->
    io_lib:format("~b entities passed on, ~b dormant", [length(Passed), length(Released)]).

expired(Session, #state{counts = #{expired := Expired} = Counts} = State) ->
    gone(Session, State#state{counts = Counts#{expired := Expired + 1}}).

%% The server hears of it, should it live after all; whether the tree or the expiry's answer tells of it first.
gone(Session, #state{lease = Lease} = State) ->
    relay([{Route, {lost, Session}} || Route <- [kb_lease:route(Session, Lease)], Route =/= undefined]),
    State#state{lease = kb_lease:ended(Session, Lease)}.

%% One message for each member, however many servers are connected to it.
relay(Messages) ->
    Members = lists:foldl(fun({{Member, Pid}, Message}, Acc) ->
                                  Acc#{Member => [{Pid, Message} | maps:get(Member, Acc, [])]}
                          end, #{}, Messages),
    _ = maps:map(fun(Member, OfMember) -> tell({?MODULE, Member}, {relay, OfMember}) end, Members),
    ok.

%% Without waiting for a connection, or for room in one.
tell(To, Message) ->
    erlang:send(To, Message, [nosuspend, noconnect]).

%% Sessions and recalls as this member's own store has them, and every change from there on.
subscribed(#state{feed = Feed} = State) when Feed =/= undefined -> State;
subscribed(#state{store = Store, lease = Lease} = State) ->
    {ok, Watches} = kb_watch:compile([[bridge, sessions], [bridge, ending], [bridge, inbox]]),
    case kb_feed:subscribe(Store, #{pid => self(), watches => Watches, since => undefined, window => ?FEED_WINDOW}) of
        {ok, #{subscription := Subscribed, nodes := Nodes}} ->
            Restated = kb_lease:restated(tree(Nodes), now_ms(), Lease),
            Revoked = [Session || {[bridge, sessions, Session], #{revoked := true}} <- Nodes],
            State#state{feed = Subscribed, left = [Session || {[bridge, ending, Session], #{}} <- Nodes],
                        lease = lists:foldl(fun(Session, Acc) -> kb_lease:silence(Session, revoked, Acc) end, Restated, Revoked)};
        {error, _} -> State
    end.

tree(Nodes) ->
    Sessions = maps:from_list([{Session, {lease(Record), #{}}} || {[bridge, sessions, Session], #{} = Record} <- Nodes]),
    lists:foldl(fun({[bridge, inbox, Session, Entity], #{type := recall, epoch := Epoch, session := Taker}}, Acc)
                      when is_map_key(Session, Acc) ->
                        {Lease, Recalls} = map_get(Session, Acc),
                        Acc#{Session := {Lease, Recalls#{Entity => {Epoch, Taker}}}};
                   (_, Acc) -> Acc
                end, Sessions, Nodes).

changed({_, created_or_updated, [bridge, sessions, Session], #{} = Record}, #state{lease = Lease} = State) ->
    Open = kb_lease:open(Session, lease(Record), now_ms(), Lease),
    State#state{lease = case Record of
                            #{revoked := true} -> kb_lease:silence(Session, revoked, Open);
                            _ -> Open
                        end};
changed({_, deleted, [bridge, sessions, Session]}, State) ->
    gone(Session, State);
changed({_, created_or_updated, [bridge, ending, Session], #{}}, #state{left = Left} = State) ->
    State#state{left = lists:delete(Session, Left) ++ [Session]};
changed({_, deleted, [bridge, ending, Session]}, #state{left = Left} = State) ->
    State#state{left = lists:delete(Session, Left)};
changed({_, created_or_updated, [bridge, inbox, Session, Entity], #{type := recall, epoch := Epoch, session := Taker}},
        #state{lease = Lease} = State) ->
    State#state{lease = kb_lease:recall(Session, Entity, Epoch, Taker, Lease)};
changed(Change, #state{lease = Lease} = State) ->
    case element(3, Change) of
        [bridge, inbox, Session, Entity] -> State#state{lease = kb_lease:recall_gone(Session, Entity, Lease)};
        _ -> State
    end.

lease(#{lease_ms := LeaseMs}) -> LeaseMs;
lease(_) -> lease_ms().

leader(Store) ->
    case ra_leaderboard:lookup_leader(Store) of
        {Store, Node} -> Node;
        _ -> undefined
    end.

now_ms() -> erlang:monotonic_time(millisecond).
