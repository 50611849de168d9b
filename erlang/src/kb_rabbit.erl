%% The store inside a RabbitMQ broker's virtual machine, beside the broker's own: it starts after the broker and
%% fails alone. What would end a node of ours is a line in the broker's log here, and a new attempt later.
-module(kb_rabbit).
-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-define(RETRY_MS, 30000).

-record(state, {cluster :: pid() | undefined}).

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% The broker's start waits for that of its plugins, and a cluster's other members may be down: so not here.
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    self() ! start,
    {ok, #state{}}.

handle_call(_, _From, State) ->
    {reply, {error, unknown_call}, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info(start, State) ->
    case start() of
        {ok, Cluster} -> {noreply, State#state{cluster = Cluster}};
        {error, Text} -> {noreply, later(Text, State)}
    end;
handle_info({'EXIT', Cluster, Reason}, #state{cluster = Cluster} = State) ->
    Text = case Reason of
               {shutdown, {khepri_bridge, Said}} -> Said;
               _ -> io_lib:format("~0P", [Reason, 12])
           end,
    {noreply, later(Text, State#state{cluster = undefined})};
handle_info(_, State) ->
    {noreply, State}.

later(Text, State) ->
    ?LOG_ERROR("khepri_bridge: ~ts; the broker is not affected, and the next attempt is in ~b s",
               [Text, ?RETRY_MS div 1000]),
    _ = erlang:send_after(?RETRY_MS, self(), start),
    State.

start() ->
    try
        {ok, #{store := Store, lease_ms := LeaseMs} = Config} = config(),
        ok = kb_store:start(Config),
        ok = kb_sup:start_lessor(Store, LeaseMs),
        {ok, _} = kb_cluster:start_link(Store)
    catch
        error:{badmatch, {error, Text}} when is_list(Text); is_binary(Text) -> {error, Text};
        _:Reason -> {error, io_lib:format("~0P", [Reason, 12])}
    end.

config() ->
    case kb_config:read() of
        %% The store's name is also that of its process.
        {ok, #{store := Store} = Config} ->
            case whereis(Store) =:= undefined orelse kb_store:identity(Store) =/= undefined of
                true -> {ok, Config};
                false -> {error, io_lib:format("the name ~ts is taken in this node: set another KB_STORE", [Store])}
            end;
        Error -> Error
    end.
