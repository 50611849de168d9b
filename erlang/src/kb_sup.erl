-module(kb_sup).
-behaviour(supervisor).

-export([start_link/1, start_cluster/2, start_lessor/2, init/1]).

%% With children of its own after the feed.
-spec start_link([supervisor:child_spec()]) -> {ok, pid()} | {error, term()}.
start_link(Children) ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, Children) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, _} = Error -> Error
    end.

-spec start_cluster(atom(), pos_integer()) -> ok.
start_cluster(Store, LeaseMs) ->
    {ok, _} = supervisor:start_child(?MODULE, #{id => kb_cluster, start => {kb_cluster, start_link, [Store]}}),
    start_lessor(Store, LeaseMs).

%% Harmless to repeat.
-spec start_lessor(atom(), pos_integer()) -> ok.
start_lessor(Store, LeaseMs) ->
    case supervisor:start_child(?MODULE, #{id => kb_lessor, start => {kb_lessor, start_link, [Store, LeaseMs]}}) of
        {ok, _} -> ok;
        {error, {already_started, _}} -> ok
    end.

-spec init([supervisor:child_spec()]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Children) ->
    ok = kb_feed:new_table(),
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60},
          [#{id => kb_feed, start => {kb_feed, start_link, []}} | Children]}}.
