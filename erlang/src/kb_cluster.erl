%% Keeps the members connected, registers what the store must hold once there is a leader, and tells how the
%% cluster is: who asks a member gets what that one knows (health/1), and what the leader's member knows of who is
%% there and who is missing stands in the tree, so that whoever follows the feed anywhere hears of it.
-module(kb_cluster).
-behaviour(gen_server).

-export([start_link/1, health/1, leave/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TICK_MS, 1000).
%% Longer than Ra takes to start a server again that failed once.
-define(MISSED_TICKS, 3).

%% A member that was silent for so long was cut off or stood still; shorter silences are what load looks like.
-define(SILENT_MS, 1000).
-define(MEMBERS, [bridge, members]).
-define(NOTE_MS, 2000).

-record(state, {store :: atom(), announced = false :: boolean(), waited = 0 :: non_neg_integer(),
                missed = 0 :: non_neg_integer(), silent = #{} :: #{node() => reference()},
                %% Whether a member is heard now, of those that were heard once.
                heard = #{} :: #{node() => boolean()},
                %% The process that writes to the tree.
                noting :: reference() | undefined}).

-spec start_link(atom()) -> {ok, pid()} | ignore | {error, term()}.
start_link(Store) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Store, []).

%% Local knowledge only, so it answers without a majority too.
-spec health(atom()) -> #{node := node(), store := atom(), running := boolean(), leader := atom(),
                          members := [node()], absent := [node()], khepri := binary(), otp := binary(),
                          role := atom(), _ => _}.
health(Store) ->
    Members = members(Store),
    Identity = case kb_store:identity(Store) of
                   undefined -> #{type => undefined, instance => undefined, cluster_id => undefined};
                   Known -> maps:with([type, instance, cluster_id], Known)
               end,
    maps:merge(raft(Store),
               Identity#{node => node(), store => Store, running => is_pid(whereis(Store)), leader => leader(Store),
                         members => Members, absent => absent(Members), khepri => version(khepri),
                         otp => list_to_binary(erlang:system_info(otp_release))}).

%% This member's place in Raft; asks no process, so a busy one does not keep it waiting.
raft(Store) ->
    Metrics = try ra:key_metrics({Store, node()}) catch _:_ -> #{} end,
    Known = maps:with([term, commit_index, last_applied, snapshot_index], Metrics),
    Known#{role => maps:get(state, Metrics, unknown)}.

%% Takes this node out of its cluster and erases its data; the others must have a majority.
-spec leave() -> ok | {error, term()}.
leave() ->
    #{store := Store} = kb_store:identity(),
    {ok, #{data_dir := Directory}} = kb_config:read(),
    case khepri_cluster:reset(Store, 30000) of
        ok ->
            _ = file:delete(filename:join(Directory, "identity")),
            _ = persistent_term:erase({kb_store, identity}),
            ok;
        {error, _} = Error -> Error
    end.

-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    ?MODULE = ets:new(?MODULE, [named_table, protected]),
    ok = net_kernel:monitor_nodes(true),
    self() ! tick,
    {ok, #state{store = Store}}.

handle_call(_, _From, State) ->
    {reply, {error, unknown_call}, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info(tick, #state{store = Store} = State) ->
    Others = members(Store) -- [node()],
    %% Nothing else connects again after a cut. In a process of its own: a connection may take seconds.
    _ = [spawn(fun() -> net_kernel:connect_node(Node) end) || Node <- Others -- nodes()],
    _ = [aten:register(Node) || Node <- Others],
    State1 = announce(watch(State)),
    _ = erlang:send_after(tick_after(State1), self(), tick),
    {noreply, note(State1)};
handle_info({Change, _Node}, State) when Change =:= nodedown; Change =:= nodeup; Change =:= joined ->
    {noreply, note(State)};
handle_info({'DOWN', Monitor, process, _, _}, #state{noting = Monitor} = State) ->
    {noreply, State#state{noting = undefined}};
handle_info({node_event, Node, down}, #state{silent = Silent} = State) when not is_map_key(Node, Silent) ->
    {noreply, State#state{silent = Silent#{Node => erlang:send_after(?SILENT_MS, self(), {silent, Node})}}};
handle_info({node_event, Node, up}, #state{silent = Silent} = State) ->
    _ = [erlang:cancel_timer(Timer) || Timer <- [maps:get(Node, Silent, undefined)], is_reference(Timer)],
    {noreply, hear(Node, true, State#state{silent = maps:remove(Node, Silent)})};
handle_info({silent, Node}, #state{silent = Silent, heard = Heard} = State) when is_map_key(Node, Silent) ->
    _ = forget(Node),
    Forgot = State#state{silent = maps:remove(Node, Silent)},
    %% One that was never heard yet is only new.
    case is_map_key(Node, Heard) of
        true -> {noreply, hear(Node, false, Forgot)};
        false -> {noreply, Forgot}
    end;
handle_info(_, State) ->
    {noreply, State}.

hear(Node, Is, #state{heard = Heard} = State) ->
    true = case Is of
               true -> ets:delete(?MODULE, Node);
               false -> ets:insert(?MODULE, {Node, unheard})
           end,
    note(State#state{heard = Heard#{Node => Is}}).

%% Members that this one has no connection to, or does not hear over it.
absent(Members) ->
    Connected = [node() | nodes()],
    [Member || Member <- Members, not lists:member(Member, Connected) orelse is_unheard(Member)].

is_unheard(Node) ->
    try ets:member(?MODULE, Node)
    catch error:badarg -> false
    end.

%% What the leader's member knows, in the tree; whoever led before may have left something else there. In a process of
%% its own, which without a majority hangs until its time is over.
note(#state{store = Store, announced = true, noting = undefined} = State) ->
    case leader(Store) =:= node() of
        true ->
            Members = members(Store),
            Record = #{members => names(Members), absent => names(absent(Members))},
            {_, Monitor} = spawn_monitor(fun() -> write(Store, Record) end),
            State#state{noting = Monitor};
        false -> State
    end;
note(State) ->
    State.

write(Store, Record) ->
    case khepri:get(Store, ?MEMBERS, #{favor => low_latency, timeout => ?NOTE_MS}) of
        {ok, Record} -> ok;
        _ -> khepri:put(Store, ?MEMBERS, khepri_payload:data(Record), #{timeout => ?NOTE_MS})
    end.

names(Nodes) -> [atom_to_binary(Node) || Node <- Nodes].

%% Ra's failure detector judges a silence by those it has seen: with a cut among the last hundred heartbeats the
%% next one was noticed only after half as long again, up to 5 s in which nobody led (measured). So a member
%% that is silent now begins anew, as the detector itself has it begin when its connection ends.
forget(Node) -> aten_sink ! {nodedown, Node}.

tick_after(#state{announced = true}) -> ?TICK_MS;
tick_after(_) -> ?TICK_MS div 5.

%% A full disk ends Ra's log for good, and the store with it, but not the node. Ending the node lets whoever
%% started it try again; the start then says what is missing. Nothing that was answered is lost.
watch(#state{store = Store, missed = Missed} = State) ->
    case is_pid(whereis(Store)) orelse kb_store:identity(Store) =:= undefined of
        true -> State#state{missed = 0};
        false when Missed < ?MISSED_TICKS -> State#state{missed = Missed + 1};
        false -> kb_app:fail("the store has stopped, perhaps for want of disk space")
    end.

announce(#state{announced = true} = State) ->
    State;
announce(#state{store = Store, waited = Waited} = State) ->
    case leader(Store) =/= undefined andalso kb_store:register(Store) of
        ok ->
            Members = members(Store),
            io:format("khepri_bridge: ready node=~ts store=~ts members=~b leader=~ts~n",
                      [node(), Store, length(Members), leader(Store)]),
            _ = erlang:send({?MODULE, leader(Store)}, {joined, node()}, [noconnect]),
            State#state{announced = true};
        _ ->
            _ = Waited =:= 25 andalso
                io:format("khepri_bridge: waiting for a majority of ~b members~n", [length(members(Store))]),
            State#state{waited = Waited + 1}
    end.

leader(Store) ->
    case ra_leaderboard:lookup_leader(Store) of
        {Store, Node} -> Node;
        _ -> undefined
    end.

members(Store) ->
    case ra_leaderboard:lookup_members(Store) of
        Members when is_list(Members) -> lists:sort([Node || {_, Node} <- Members]);
        _ ->
            case is_pid(whereis(Store)) andalso ra:members({local, {Store, node()}}, 1000) of
                {ok, Members, _} -> lists:sort([Node || {_, Node} <- Members]);
                _ -> []
            end
    end.

version(Application) ->
    case application:get_key(Application, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> <<>>
    end.
