%% The change feed (docs/protocol.md §3). A projection of the store calls this module on every member for
%% every applied change, inside Ra and in apply order; the process numbers the changes, keeps the last ones
%% and sends them to subscribers, each within its window.
%%
%% Who subscribed stands in a table of the supervisor too: a feed that starts again has lost its history, and
%% tells them so.
-module(kb_feed).
-behaviour(gen_server).

-export([new_table/0, start_link/0, subscribe/2, acknowledge/3, unsubscribe/2, projection/1, project/4, changed/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, kb_feed_subscribers).
-define(BATCH, 100).
-define(RETRY_MS, 50).
-define(MAX_SUBSCRIBERS, 1000).

-record(subscriber, {pid :: pid(), monitor :: reference(), watches :: [kb_watch:watch()],
                     next :: pos_integer(), window :: pos_integer(),
                     outstanding = queue:new() :: queue:queue(pos_integer()),
                     %% How many those are: a queue would count them each time.
                     awaited = 0 :: non_neg_integer(),
                     active = false :: boolean()}).
-record(state, {run :: binary(), ring :: ets:tid(), size :: pos_integer(), last = 0 :: non_neg_integer(),
                subscribers = #{} :: #{reference() => #subscriber{}},
                %% When subscribers whose link was full are tried again.
                retry :: reference() | undefined}).

%% Called by the supervisor, which outlives a feed.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public]),
    ok.

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% The snapshot is read inside the Ra process, which sends the subscription to the feed from there: so it
%% lies between the changes exactly where the snapshot was taken.
-spec subscribe(atom(), map()) -> {ok, map()} | {error, term()}.
subscribe(Store, #{pid := Pid, watches := Watches, since := Since, window := Window}) ->
    Ref = make_ref(),
    Spec = {Pid, Watches, Window},
    case ask({resume, Ref, Spec, Since}) of
        {ok, Cursor} ->
            {ok, #{subscription => Ref, cursor => Cursor, mode => resumed, nodes => []}};
        full ->
            {error, full};
        restarted ->
            {error, shutdown};
        {snapshot, Feed} ->
            Read = fun() ->
                           Feed ! {subscribe, Ref, Spec},
                           {nodes, lists:append([found(Watch) || Watch <- Watches])}
                   end,
            case khepri:transaction(Store, Read, [], ro, #{}) of
                {ok, {nodes, Nodes}} ->
                    case ask({activate, Ref}) of
                        {ok, Cursor} ->
                            Sorted = lists:usort(Nodes),
                            {ok, #{subscription => Ref, cursor => Cursor, mode => snapshot, nodes => Sorted}};
                        restarted ->
                            {error, shutdown}
                    end;
                {ok, {error, Reason}} ->
                    {error, Reason};
                {error, Reason} ->
                    {error, Reason}
            end
    end.

%% A feed that restarts meanwhile is a passing failure, like a leader that does.
ask(Request) ->
    try gen_server:call(?MODULE, Request)
    catch exit:_ -> restarted
    end.

found(Watch) ->
    [{Path, maps:get(data, Props, undefined)}
     || Pattern <- kb_watch:queries(Watch),
        {ok, Nodes} <- [khepri_tx_adv:get_many(Pattern)],
        {Path, Props} <- maps:to_list(Nodes),
        not lists:any(fun(Private) -> lists:prefix([bridge, Private], Path) end, [clients, held, owned, counts])].

-spec acknowledge(reference(), pos_integer(), pid()) -> ok.
acknowledge(Ref, Sequence, Pid) ->
    gen_server:cast(?MODULE, {acknowledge, Ref, Sequence, Pid}).

-spec unsubscribe(reference(), pid()) -> ok.
unsubscribe(Ref, Pid) ->
    gen_server:cast(?MODULE, {unsubscribe, Ref, Pid}).

%% `changed/3' stays a call into this module, whatever its version on the member; the rest is stored.
-spec projection(atom()) -> khepri_projection:projection().
projection(Name) ->
    Process = fun(?MODULE, changed, 3, _) -> false;
                 (Module, Function, Arity, From) ->
                      khepri_tx_adv:should_process_function(Module, Function, Arity, From)
              end,
    khepri_projection:new(Name, fun ?MODULE:project/4,
                          #{standalone_fun_options => #{should_process_function => Process}}).

-spec project(ets:tid(), khepri_path:native_path(), map(), map()) -> ok.
project(_Table, Path, Old, New) ->
    ?MODULE:changed(Path, Old, New).

-spec changed(khepri_path:native_path(), map(), map()) -> ok.
changed([bridge, Private | _], _, _) when Private =:= clients; Private =:= client_counts; Private =:= held;
                                       Private =:= owned; Private =:= counts ->
    %% Of interest to nobody, and a client's record changes with every transaction and has up to 256 results.
    ok;
changed(_Path, #{payload_version := Version} = Old, #{payload_version := Version} = New)
  when map_get(data, Old) =:= map_get(data, New);
       not is_map_key(data, Old), not is_map_key(data, New) ->
    %% Only its list of children changed. The version alone would not tell: a node deleted and created again
    %% in one transaction has that of a new one.
    ok;
changed(Path, _Old, New) ->
    Change = case New of
                 #{data := Data} -> {created_or_updated, Path, Data};
                 _ when map_size(New) =:= 0 -> {deleted, Path};
                 _ -> {created_or_updated, Path, undefined}
             end,
    %% Inside Ra: a feed that is down must not fail the store, it starts again with a new run.
    try ?MODULE ! {changed, Change} of
        _ -> ok
    catch
        error:badarg -> ok
    end.

-spec init([]) -> {ok, #state{}}.
init([]) ->
    %% Restored tables, a store's start and a lost history all look like changes: a burst must not be
    %% collected on the heap of a slow process.
    _ = process_flag(message_queue_data, off_heap),
    Forgotten = ets:tab2list(?TABLE),
    true = ets:delete_all_objects(?TABLE),
    _ = [erlang:send(Pid, {kb_feed_gap, Ref}, [nosuspend, noconnect]) || {Ref, Pid} <- Forgotten],
    {ok, Size} = application:get_env(khepri_bridge, feed_ring),
    {ok, #state{run = crypto:strong_rand_bytes(8), ring = ets:new(?MODULE, [set, private]), size = Size}}.

%% However many servers there are, this member's own lessor hears of them.
handle_call({resume, _, {Pid, _, _}, _}, _From, #state{subscribers = Subscribers} = State)
  when map_size(Subscribers) >= ?MAX_SUBSCRIBERS, node(Pid) =/= node() ->
    {reply, full, State};
handle_call({resume, Ref, Spec, {Run, Sequence}}, _From, #state{run = Run, last = Last, size = Size} = State)
  when is_integer(Sequence), Sequence =< Last, Sequence >= Last - Size, Sequence >= 0 ->
    State1 = add(Ref, Spec, Sequence + 1, true, State),
    {reply, {ok, {Run, Sequence}}, State1, 0};
handle_call({resume, _, _, _}, _From, State) ->
    {reply, {snapshot, self()}, State, 0};
handle_call({activate, Ref}, _From, #state{run = Run, subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Ref := #subscriber{next = Next} = Subscriber} ->
            State1 = State#state{subscribers = Subscribers#{Ref := Subscriber#subscriber{active = true}}},
            {reply, {ok, {Run, Next - 1}}, State1, 0};
        _ ->
            {reply, restarted, State, 0}
    end;
handle_call(_, _From, State) ->
    {reply, {error, unknown_call}, State, 0}.

handle_cast({acknowledge, Ref, Sequence, Pid}, #state{subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Ref := #subscriber{pid = Pid, outstanding = Outstanding, awaited = Awaited} = Subscriber} ->
            {Left, Count} = drop_until(Sequence, Outstanding, Awaited),
            Acknowledged = Subscriber#subscriber{outstanding = Left, awaited = Count},
            {noreply, State#state{subscribers = Subscribers#{Ref := Acknowledged}}, 0};
        _ ->
            {noreply, State, 0}
    end;
handle_cast({unsubscribe, Ref, Pid}, #state{subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Ref := #subscriber{pid = Pid}} -> {noreply, remove(Ref, State), 0};
        _ -> {noreply, State, 0}
    end;
handle_cast(_, State) ->
    {noreply, State, 0}.

handle_info({changed, Change}, #state{ring = Ring, last = Last, size = Size} = State) ->
    Sequence = Last + 1,
    true = ets:insert(Ring, {Sequence, Change}),
    true = ets:delete(Ring, Sequence - Size),
    State1 = State#state{last = Sequence},
    %% Changes are sent when the mailbox is empty, so a burst goes out in batches.
    case Sequence rem ?BATCH of
        0 -> {noreply, deliver(State1), 0};
        _ -> {noreply, State1, 0}
    end;
handle_info({subscribe, Ref, Spec}, #state{last = Last} = State) ->
    {noreply, add(Ref, Spec, Last + 1, false, State), 0};
handle_info({'DOWN', Monitor, process, _, _}, #state{subscribers = Subscribers} = State) ->
    Gone = [Ref || {Ref, #subscriber{monitor = Found}} <- maps:to_list(Subscribers), Found =:= Monitor],
    {noreply, lists:foldl(fun remove/2, State, Gone), 0};
handle_info(timeout, State) ->
    {noreply, deliver(State)};
handle_info({timeout, Timer, retry}, #state{retry = Timer} = State) ->
    {noreply, deliver(State#state{retry = undefined})};
handle_info(_, State) ->
    {noreply, State, 0}.

add(Ref, {Pid, Watches, Window}, Next, Active, #state{subscribers = Subscribers} = State) ->
    Subscriber = #subscriber{pid = Pid, monitor = erlang:monitor(process, Pid), watches = Watches,
                             next = Next, window = Window, active = Active},
    true = ets:insert(?TABLE, {Ref, Pid}),
    State#state{subscribers = Subscribers#{Ref => Subscriber}}.

remove(Ref, #state{subscribers = Subscribers} = State) ->
    #{Ref := #subscriber{monitor = Monitor}} = Subscribers,
    true = erlang:demonitor(Monitor, [flush]),
    true = ets:delete(?TABLE, Ref),
    State#state{subscribers = maps:remove(Ref, Subscribers)}.

deliver(#state{subscribers = Subscribers} = State) ->
    maps:fold(fun deliver/3, State, Subscribers).

deliver(_Ref, #subscriber{active = false}, State) ->
    State;
deliver(Ref, #subscriber{pid = Pid, next = Next} = Subscriber, #state{last = Last, size = Size} = State) ->
    case Next =< Last - Size of
        true ->
            _ = erlang:send(Pid, {kb_feed_gap, Ref}, [nosuspend, noconnect]),
            remove(Ref, State);
        false ->
            deliver_batches(Ref, Subscriber, State)
    end.

deliver_batches(Ref, #subscriber{pid = Pid} = Subscriber, #state{subscribers = Subscribers} = State) ->
    case batch(Subscriber, State, [], ?BATCH) of
        {[], Subscriber1} ->
            State#state{subscribers = Subscribers#{Ref := Subscriber1}};
        {Changes, Subscriber1} ->
            case erlang:send(Pid, {kb_feed, Ref, Changes}, [nosuspend, noconnect]) of
                ok -> deliver_batches(Ref, Subscriber1, State);
                %% The link is full: what was not sent stays in the ring, and batches before this one are not sent again.
                nosuspend -> retry_later(State#state{subscribers = Subscribers#{Ref := Subscriber}});
                noconnect -> remove(Ref, State)
            end
    end.

%% One timer for all of them: every change that comes meanwhile tries too.
retry_later(#state{retry = undefined} = State) ->
    State#state{retry = erlang:start_timer(?RETRY_MS, self(), retry)};
retry_later(State) ->
    State.

batch(Subscriber, _State, Changes, 0) ->
    {lists:reverse(Changes), Subscriber};
batch(#subscriber{next = Next} = Subscriber, #state{last = Last}, Changes, _) when Next > Last ->
    {lists:reverse(Changes), Subscriber};
batch(#subscriber{next = Next, window = Window, outstanding = Outstanding, awaited = Awaited, watches = Watches} = Subscriber,
      #state{ring = Ring} = State, Changes, Left) ->
    [{_, Change}] = ets:lookup(Ring, Next),
    case {kb_watch:wants(Watches, element(2, Change)), Awaited < Window} of
        {false, _} ->
            batch(Subscriber#subscriber{next = Next + 1}, State, Changes, Left);
        {true, false} ->
            {lists:reverse(Changes), Subscriber};
        {true, true} ->
            Numbered = erlang:insert_element(1, Change, Next),
            batch(Subscriber#subscriber{next = Next + 1, outstanding = queue:in(Next, Outstanding), awaited = Awaited + 1},
                  State, [Numbered | Changes], Left - 1)
    end.

drop_until(Sequence, Queue, Count) ->
    case queue:peek(Queue) of
        {value, Oldest} when Oldest =< Sequence -> drop_until(Sequence, queue:drop(Queue), Count - 1);
        _ -> {Queue, Count}
    end.
