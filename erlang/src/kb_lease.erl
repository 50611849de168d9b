%% Whose lease runs on, who is acknowledged, who falls silent and who expires (docs/leases.md): what the lessor of one
%% generation knows, without process, store or clock. `Now' is milliseconds of its monotonic clock.
%%
%% A countdown is a session's lease and what two clocks may drift apart in it. It starts when the session is first
%% seen, and again whenever a beat is submitted that a renewal of the session came before. Who is silent is never
%% acknowledged again, so the countdown runs out; who expires has had all of it.
-module(kb_lease).

-export([new/1, tick/2, renew/3, beat/2, committed/3, uncommitted/1]).
-export([open/4, ended/2, restated/3, recall/5, recall_gone/3, silence/3, unexpired/2]).
-export([routes/2, route/2, countdown/1, statistics/1]).

-export_type([state/0, session/0, renewal/0, route/0, acknowledgement/0]).

-define(TICK_MS, 50).
-define(LATE_MS, 250).
-define(BEAT_MS, 50).
-define(DRIFT_DIVISOR, 50).
-define(STANDS_STILL_MS, 1000).
%% A server that was itself stopped sends one renewal before it simulates again: only a third shows that it hangs.
-define(STANDS_STILL_RENEWALS, 3).
-define(MAX_NAMED, 100).
-define(MAX_STRANGERS, 1000).
-define(MAX_EXPIRING, 16).
-define(MAX_ASKED, 64).

-type session() :: binary().
-type entity() :: binary().
-type epoch() :: non_neg_integer().
-type now_ms() :: integer().
%% The member that a server is connected to, and its process there.
-type route() :: {node(), pid()}.
-type renewal() :: #{session := session(), number := pos_integer(), tick := non_neg_integer(),
                     load := non_neg_integer(), obeyed := [{entity(), epoch()}], route := route()}.
-type acknowledgement() :: {route(), session(), pos_integer(), [{entity(), epoch()}]}.

-record(session, {lease :: pos_integer(), deadline :: now_ms(),
                  number = 0 :: non_neg_integer(), route :: route() | undefined, load = 0 :: non_neg_integer(),
                  %% The newest step of its simulation: since when, and in how many renewals.
                  step :: non_neg_integer() | undefined, step_since :: now_ms(), step_renewals = 0 :: non_neg_integer(),
                  recalls = #{} :: #{entity() => epoch()},
                  %% Whose grant each of them is for; nobody's where the entity was deleted.
                  takers = #{} :: #{entity() => session() | undefined},
                  %% Recalls that an acknowledgement named, and since when they count.
                  named = #{} :: #{entity() => now_ms()},
                  silent = no :: no | hung | unwilling | closing | revoked | expired,
                  expiring = false :: boolean()}).
-type sessions() :: #{session() => #session{}}.
-type strangers() :: #{session() => {pos_integer(), route()}}.
-record(state, {sessions = #{} :: sessions(),
                collected = #{} :: #{session() => pos_integer()},
                %% A renewal may overtake the news that its session was opened: the next beat asks the tree.
                strangers = #{} :: strangers(),
                batch = none :: none | {#{session() => pos_integer()}, strangers()},
                %% Open recalls of an entity: who waits for the release of an older epoch cannot obey yet.
                recalled = #{} :: #{entity() => #{epoch() => session()}},
                expiring = 0 :: non_neg_integer(),
                ticked :: now_ms(), beaten :: now_ms() | undefined,
                beats = 0 :: non_neg_integer(), renewals = 0 :: non_neg_integer(), restarts = 0 :: non_neg_integer()}).

-opaque state() :: #state{}.

%% Of a lessor that has just taken its generation, and has seen no session.
-spec new(now_ms()) -> state().
new(Now) -> #state{ticked = Now}.

%% How long after a beat's submission nothing can be left of a lease that it renewed.
-spec countdown(pos_integer()) -> pos_integer().
countdown(Lease) -> Lease + (Lease + ?DRIFT_DIVISOR - 1) div ?DRIFT_DIVISOR.

%% Due every 50 ms; gives the sessions whose expiry is to be sent. After a tick that comes late nothing is known of
%% what the lessor missed, so everybody gets all of the time again.
-spec tick(now_ms(), state()) -> {[session()], state()}.
tick(Now, State0) ->
    State = woken(Now, State0),
    {Expired, Sessions, Expiring} = maps:fold(fun(Id, Session, Acc) -> looked_at(Id, Session, Now, State, Acc) end,
                                              {[], State#state.sessions, State#state.expiring}, State#state.sessions),
    {lists:sort(Expired), State#state{sessions = Sessions, expiring = Expiring, ticked = Now}}.

looked_at(_, #session{expiring = true}, _, _, Acc) -> Acc;
looked_at(Id, #session{deadline = Deadline} = Session, Now, _, {Expired, Sessions, Expiring})
  when Deadline =< Now, Expiring < ?MAX_EXPIRING ->
    Ending = Session#session{expiring = true, silent = silenced(expired, Session)},
    {[Id | Expired], Sessions#{Id := Ending}, Expiring + 1};
looked_at(Id, #session{silent = no, named = Named, lease = Lease} = Session, Now, State,
          {Expired, Sessions, Expiring}) when map_size(Named) > 0 ->
    Overdue = fun(Entity) ->
                      map_get(Entity, Named) + Lease =< Now andalso counts(Entity, Session, State)
              end,
    case lists:any(Overdue, maps:keys(Named)) of
        true -> {Expired, Sessions#{Id := Session#session{silent = unwilling}}, Expiring};
        false -> {Expired, Sessions, Expiring}
    end;
looked_at(_, _, _, _, Acc) -> Acc.

silenced(Why, #session{silent = no}) -> Why;
silenced(_, #session{silent = Silent}) -> Silent.

%% Who was stopped takes what came in meanwhile for new: before anything is judged, all countdowns start again.
woken(Now, #state{ticked = Ticked} = State) when Now - Ticked =< ?TICK_MS + ?LATE_MS -> State;
woken(Now, #state{sessions = Sessions, restarts = Restarts} = State) ->
    Again = fun(_, #session{lease = Lease, named = Named} = Session) ->
                    Session#session{deadline = Now + countdown(Lease), step_since = Now, step_renewals = 0,
                                    named = maps:map(fun(_, _) -> Now end, Named)}
            end,
    State#state{sessions = maps:map(Again, Sessions), ticked = Now, restarts = Restarts + 1}.

%% Each number counts once, and only if it is higher than those before.
-spec renew(renewal(), now_ms(), state()) -> state().
renew(#{session := Id} = Renewal, Now, State0) ->
    State = woken(Now, State0),
    case State#state.sessions of
        #{Id := Session} -> renewed(Renewal, Now, Session, State);
        _ -> strange(Renewal, State)
    end.

renewed(#{number := Number}, _, #session{number = Known}, State) when Number =< Known ->
    State;
renewed(#{session := Id, number := Number, tick := Step, load := Load, obeyed := Obeyed, route := Route}, Now, Session,
        #state{collected = Collected, renewals = Renewals} = State) ->
    Heard = stepped(Step, Now, Session#session{number = Number, load = Load, route = Route}),
    Told = lists:foldl(fun(Recall, Acc) -> obeyed(Id, Recall, Acc) end, with(Id, Heard, State), Obeyed),
    case Heard of
        #session{silent = no} -> Told#state{collected = Collected#{Id => Number}, renewals = Renewals + 1};
        _ -> Told
    end.

stepped(Step, Now, #session{step = Step, step_since = Since, step_renewals = Count} = Session)
  when Now - Since >= ?STANDS_STILL_MS, Count + 1 >= ?STANDS_STILL_RENEWALS ->
    Session#session{step_renewals = Count + 1, silent = silenced(hung, Session)};
stepped(Step, _, #session{step = Step, step_renewals = Count} = Session) ->
    Session#session{step_renewals = Count + 1};
stepped(Step, Now, Session) ->
    Session#session{step = Step, step_since = Now, step_renewals = 1}.

strange(#{session := Id, number := Number, route := Route}, #state{strangers = Strangers} = State) ->
    case Strangers of
        #{Id := {Known, _}} when Number =< Known -> State;
        #{Id := _} -> State#state{strangers = Strangers#{Id => {Number, Route}}};
        _ when map_size(Strangers) < ?MAX_STRANGERS -> State#state{strangers = Strangers#{Id => {Number, Route}}};
        _ -> State
    end.

%% What was collected goes into a beat, unless one is under way: it is to be submitted now, with the sessions that the
%% tree has to be asked about.
-spec beat(now_ms(), state()) -> {submit, [session()], state()} | {wait, state()}.
beat(_, #state{batch = Batch} = State) when Batch =/= none -> {wait, State};
beat(_, #state{collected = Collected, strangers = Strangers} = State)
  when map_size(Collected) =:= 0, map_size(Strangers) =:= 0 ->
    {wait, State};
beat(Now, #state{beaten = Beaten} = State) when is_integer(Beaten), Now - Beaten < ?BEAT_MS -> {wait, State};
beat(Now, #state{collected = Collected, strangers = Strangers, sessions = Sessions, beats = Beats} = State) ->
    Restarted = maps:fold(fun(Id, _, Acc) -> restarted(Id, Now, Acc) end, Sessions, Collected),
    {submit, lists:sort(maps:keys(Strangers)),
     State#state{sessions = Restarted, collected = #{}, strangers = #{}, batch = {Collected, Strangers},
                 beaten = Now, beats = Beats + 1}}.

restarted(Id, Now, Sessions) ->
    case Sessions of
        #{Id := #session{silent = no, lease = Lease} = Session} ->
            Sessions#{Id := Session#session{deadline = Now + countdown(Lease)}};
        _ -> Sessions
    end.

%% The beat has committed under this generation, and of those it asked about the tree has these, with their leases.
%% Gives whom to acknowledge, and whom to tell that their session is lost.
-spec committed([{session(), pos_integer()}], now_ms(), state()) ->
          {[acknowledgement()], [{route(), session()}], state()}.
committed(There, Now, #state{batch = {Collected, Strangers}} = State0) ->
    Known = maps:with([Id || {Id, _} <- There], Strangers),
    Lost = [{Route, Id} || {Id, {_, Route}} <- lists:sort(maps:to_list(maps:without(maps:keys(Known), Strangers))),
                           not is_map_key(Id, State0#state.sessions)],
    Opened = lists:foldl(fun({Id, Lease}, Acc) -> met(Id, map_get(Id, Known), open(Id, Lease, Now, Acc)) end,
                         State0#state{batch = none}, [Pair || {Id, _} = Pair <- There, is_map_key(Id, Known)]),
    Numbers = maps:merge(Collected, maps:map(fun(_, {Number, _}) -> Number end, Known)),
    {Acknowledged, State} = maps:fold(fun(Id, Number, Acc) -> acknowledged(Id, Number, Now, Acc) end,
                                      {[], Opened}, Numbers),
    {Acknowledged, Lost, State}.

met(Id, {Number, Route}, #state{sessions = Sessions} = State) ->
    #{Id := #session{number = Known} = Session} = Sessions,
    case Number > Known of
        true -> with(Id, Session#session{number = Number, route = Route}, State);
        false -> State
    end.

acknowledged(Id, Number, Now, {Acks, #state{sessions = Sessions} = State}) ->
    case Sessions of
        #{Id := #session{silent = no, route = Route} = Session} ->
            {Recalls, Named} = named(Session, Now, State),
            {[{Route, Id, Number, Recalls} | Acks], with(Id, Named, State)};
        _ -> {Acks, State}
    end.

%% Those named before are named again until they are obeyed.
named(#session{recalls = Recalls} = Session, _, _) when map_size(Recalls) =:= 0 -> {[], Session};
named(#session{recalls = Recalls, named = Named} = Session, Now, State) ->
    More = taken(maps:next(maps:iterator(maps:without(maps:keys(Named), Recalls))), ?MAX_NAMED - map_size(Named)),
    Counts = maps:from_list([{Entity, since(Entity, Now, Session, State)} || Entity <- maps:keys(Named) ++ More]),
    {lists:sort([{Entity, map_get(Entity, Recalls)} || Entity <- maps:keys(Counts)]), Session#session{named = Counts}}.

since(Entity, Now, #session{named = Named} = Session, State) ->
    case counts(Entity, Session, State) of
        true -> maps:get(Entity, Named, Now);
        false -> Now
    end.

%% A recall counts against a holder while none of an older epoch is open, and while somebody is there to take the
%% entity: for a key that was revoked nothing can be sealed, and whoever lost its session waits for nothing.
counts(Entity, #session{recalls = Recalls, takers = Takers}, State) ->
    is_oldest(Entity, map_get(Entity, Recalls), State) andalso may_take(map_get(Entity, Takers), State).

may_take(undefined, _) -> true;
may_take(Taker, #state{sessions = Sessions}) ->
    case Sessions of
        #{Taker := #session{silent = no}} -> true;
        _ -> false
    end.

taken({Key, _, Iterator}, Left) when Left > 0 -> [Key | taken(maps:next(Iterator), Left - 1)];
taken(_, _) -> [].

is_oldest(Entity, Epoch, #state{recalled = Recalled}) ->
    lists:all(fun(Other) -> Other >= Epoch end, maps:keys(maps:get(Entity, Recalled, #{}))).

%% Nobody knows whether the beat committed: nothing is acknowledged by it, and what it carried waits for the next one.
-spec uncommitted(state()) -> state().
uncommitted(#state{batch = {Batch, Strange}, collected = Collected, strangers = Strangers} = State) ->
    State#state{batch = none, collected = maps:merge(Batch, Collected), strangers = maps:merge(Strange, Strangers)}.

%% A session that is in the tree; its countdown starts when it is seen first.
-spec open(session(), pos_integer(), now_ms(), state()) -> state().
open(Id, _, _, #state{sessions = Sessions} = State) when is_map_key(Id, Sessions) -> State;
open(Id, Lease, Now, State) ->
    with(Id, #session{lease = Lease, deadline = Now + countdown(Lease), step_since = Now}, State).

%% It is in the tree no more.
-spec ended(session(), state()) -> state().
ended(Id, #state{sessions = Sessions, collected = Collected, expiring = Expiring} = State) ->
    case Sessions of
        #{Id := #session{recalls = Recalls, expiring = WasExpiring}} ->
            Left = maps:fold(fun(Entity, Epoch, Acc) -> not_recalled(Entity, Epoch, Id, Acc) end,
                             State#state.recalled, Recalls),
            State#state{sessions = maps:remove(Id, Sessions), collected = maps:remove(Id, Collected), recalled = Left,
                        expiring = case WasExpiring of true -> Expiring - 1; false -> Expiring end};
        _ -> State
    end.

%% All that the tree has: sessions with their leases, and the recalls in their inboxes with those who take.
-spec restated(#{session() => {pos_integer(), #{entity() => {epoch(), session() | undefined}}}}, now_ms(), state()) ->
          state().
restated(Tree, Now, State0) ->
    Gone = maps:keys(State0#state.sessions) -- maps:keys(Tree),
    State1 = lists:foldl(fun ended/2, State0, Gone),
    maps:fold(fun(Id, {Lease, Recalls}, Acc) -> with_recalls(Id, Recalls, open(Id, Lease, Now, Acc)) end, State1, Tree).

with_recalls(Id, Recalls, #state{sessions = Sessions} = State) ->
    #{Id := #session{recalls = Known}} = Sessions,
    Fewer = lists:foldl(fun(Entity, Acc) -> recall_gone(Id, Entity, Acc) end, State,
                        maps:keys(maps:without(maps:keys(Recalls), Known))),
    maps:fold(fun(Entity, {Epoch, Taker}, Acc) -> recall(Id, Entity, Epoch, Taker, Acc) end, Fewer, Recalls).

%% A recall in a session's inbox, where there is one place for an entity. One that was obeyed may come again.
-spec recall(session(), entity(), epoch(), session() | undefined, state()) -> state().
recall(Id, Entity, Epoch, Taker, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{recalls = #{Entity := Epoch}, takers = Takers} = Session} ->
            with(Id, Session#session{takers = Takers#{Entity := Taker}}, State);
        #{Id := _} ->
            #state{recalled = Recalled, sessions = #{Id := Session}} = Without = recall_gone(Id, Entity, State),
            #session{recalls = Recalls, takers = Takers} = Session,
            OfEntity = maps:get(Entity, Recalled, #{}),
            with(Id, Session#session{recalls = Recalls#{Entity => Epoch}, takers = Takers#{Entity => Taker}},
                 Without#state{recalled = Recalled#{Entity => OfEntity#{Epoch => Id}}});
        _ -> State
    end.

-spec recall_gone(session(), entity(), state()) -> state().
recall_gone(Id, Entity, #state{sessions = Sessions, recalled = Recalled} = State) ->
    case Sessions of
        #{Id := #session{recalls = #{Entity := Epoch} = Recalls, takers = Takers, named = Named} = Session} ->
            with(Id, Session#session{recalls = maps:remove(Entity, Recalls), takers = maps:remove(Entity, Takers),
                                     named = maps:remove(Entity, Named)},
                 State#state{recalled = not_recalled(Entity, Epoch, Id, Recalled)});
        _ -> State
    end.

obeyed(Id, {Entity, Epoch}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{recalls = #{Entity := Epoch}}} -> recall_gone(Id, Entity, State);
        _ -> State
    end.

not_recalled(Entity, Epoch, Id, Recalled) ->
    case Recalled of
        #{Entity := #{Epoch := Id} = OfEntity} when map_size(OfEntity) =:= 1 -> maps:remove(Entity, Recalled);
        #{Entity := #{Epoch := Id} = OfEntity} -> Recalled#{Entity := maps:remove(Epoch, OfEntity)};
        _ -> Recalled
    end.

%% Somebody who knows that nothing acts for the session any more has asked to end it, or its server's key was revoked.
-spec silence(session(), closing | revoked, state()) -> state().
silence(Id, Why, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := Session} -> with(Id, Session#session{silent = silenced(Why, Session)}, State);
        _ -> State
    end.

%% Its expiry may not have reached the tree: it is sent again, and the session stays unacknowledged.
-spec unexpired(session(), state()) -> state().
unexpired(Id, #state{sessions = Sessions, expiring = Expiring} = State) ->
    case Sessions of
        #{Id := #session{expiring = true} = Session} ->
            with(Id, Session#session{expiring = false}, State#state{expiring = Expiring - 1});
        _ -> State
    end.

%% Whom to ask for successors of a session: the servers that simulate least.
-spec routes(session(), state()) -> [{session(), route(), Load :: non_neg_integer()}].
routes(Without, #state{sessions = Sessions}) ->
    Able = [{Load, Id, Route} || {Id, #session{silent = no, route = {_, _} = Route, load = Load}} <- maps:to_list(Sessions),
                                 Id =/= Without],
    [{Id, Route, Load} || {Load, Id, Route} <- lists:sublist(lists:sort(Able), ?MAX_ASKED)].

-spec route(session(), state()) -> route() | undefined.
route(Id, #state{sessions = Sessions}) ->
    case Sessions of
        #{Id := #session{route = Route}} -> Route;
        _ -> undefined
    end.

-spec statistics(state()) -> #{sessions | silent | expiring | beats | renewals | restarts => non_neg_integer()}.
statistics(#state{sessions = Sessions, expiring = Expiring, beats = Beats, renewals = Renewals, restarts = Restarts}) ->
    #{sessions => map_size(Sessions), silent => length([silent || #session{silent = Why} <- maps:values(Sessions), Why =/= no]),
      expiring => Expiring, beats => Beats, renewals => Renewals, restarts => Restarts}.

with(Id, Session, #state{sessions = Sessions} = State) -> State#state{sessions = Sessions#{Id => Session}}.
