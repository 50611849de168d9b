-module(kb_sup).
-behaviour(supervisor).

-export([start_link/1, start_cluster/1, init/1]).

-spec start_link(atom()) -> {ok, pid()} | {error, term()}.
start_link(Store) ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, Store) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, _} = Error -> Error
    end.

-spec start_cluster(atom()) -> ok.
start_cluster(Store) ->
    {ok, _} = supervisor:start_child(?MODULE, #{id => kb_cluster, start => {kb_cluster, start_link, [Store]}}),
    ok.

-spec init(atom()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(_Store) ->
    ok = kb_feed:new_table(),
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60},
          [#{id => kb_feed, start => {kb_feed, start_link, []}}]}}.
