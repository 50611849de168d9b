%% Starts the store: with the node's own data, by joining a cluster, or by founding one. Whose data lies in
%% the directory is written beside it, so that a node of another instance is refused before Khepri starts.
-module(kb_store).

-export([start/1, stop/1, register/1, register_feed/1, procedure/0, identity/0, identity/1, identity_text/1]).

-define(FORMAT, 1).
-define(RETRY_MS, 500).

%% What another node sees of this one before it joins.
-spec identity() -> #{store := atom(), _ => _} | undefined.
identity() ->
    case persistent_term:get({?MODULE, identity}, undefined) of
        undefined -> undefined;
        Identity -> Identity
    end.

-spec identity(atom()) -> map() | undefined.
identity(Store) ->
    case identity() of
        #{store := Store} = Identity -> Identity;
        _ -> undefined
    end.

-spec start(kb_config:config()) -> ok | {error, iodata()}.
start(#{data_dir := Directory, min_free_mb := MinFree, functions := Functions} = Config) ->
    ok = kb_procedures:allow(Functions),
    ok = kb_limits:set(Config),
    try
        ok = check_directory(Directory, MinFree),
        start(Config, read_identity(Directory))
    catch
        throw:{refused, Text} -> {error, Text}
    end.

start(#{reset := true, seeds := [_ | _], data_dir := Directory} = Config, Own) when Own =/= undefined ->
    Remote = probe(Config, Own),
    case maps:get(cluster_id, Remote) =:= maps:get(cluster_id, Own) of
        true -> start_own(Config, Own);
        false ->
            erase_data(Directory),
            join(Config, Remote)
    end;
start(#{seeds := Seeds, data_dir := Directory} = Config, undefined) ->
    case Seeds of
        [] -> found(Config);
        _ ->
            Remote = probe(Config, undefined),
            %% What an interrupted join left; no identity was written, so nothing was ever acknowledged here.
            erase_data(Directory),
            join(Config, Remote)
    end;
start(Config, Own) ->
    check_own(Config, Own),
    start_own(Config, Own).

check_own(Config, Own) ->
    lists:foreach(
      fun(Key) ->
              case {maps:get(Key, Config), maps:get(Key, Own)} of
                  {Same, Same} -> ok;
                  {Wanted, Found} ->
                      refuse("~ts holds data of ~ts ~ts, not ~ts: set another KB_DATA_DIR",
                             [maps:get(data_dir, Config), Key, text(Found), text(Wanted)])
              end
      end, [type, instance, store]).

%% With own data the seed is only compared, and need not answer: a whole cluster starts again from its disks.
start_own(#{seeds := Seeds, store := Store} = Config, #{cluster_id := Id} = Own) ->
    lists:foreach(
      fun(Seed) ->
              case ask(Seed) of
                  {ok, #{cluster_id := Other} = Remote} when Other =/= Id ->
                      guard(Seed, Remote, Config),
                      refuse("this node has data of another cluster than ~ts: KB_RESET=1 erases it and joins",
                             [Seed]);
                  _ -> ok
              end
      end, Seeds),
    ok = run_system(Config),
    _ = ra_directory:uid_of(system(), Store) =/= undefined orelse
        refuse("~ts has lost names.dets, without which the store would start empty: restore it, or set another "
               "KB_DATA_DIR", [maps:get(data_dir, Config)]),
    ok = run_khepri(Config),
    remember(Own#{store => Store}).

found(#{data_dir := Directory, store := Store, type := Type, instance := Instance} = Config) ->
    ok = run_system(Config),
    ok = run_khepri(Config),
    Path = [bridge, identity],
    Fresh = #{type => Type, instance => Instance, cluster_id => crypto:strong_rand_bytes(16), format => ?FORMAT},
    %% A founder that died between this write and the file finds its own identity here.
    Identity = case khepri:create(Store, Path, {p_data, Fresh}, #{timeout => 20000}) of
                   ok -> Fresh;
                   {error, {khepri, mismatching_node, _}} ->
                       {ok, Found} = khepri:get(Store, Path, #{timeout => 5000}),
                       Found;
                   {error, Reason} -> refuse("the new store did not answer: ~0p", [Reason])
               end,
    case khepri:create(Store, [bridge, grants], {p_data, #{incarnation => 1, counter => 0}}, #{timeout => 20000}) of
        ok -> ok;
        {error, {khepri, mismatching_node, _}} -> ok;
        {error, Other} -> refuse("the new store did not answer: ~0p", [Other])
    end,
    write_identity(Directory, Identity#{store => Store}),
    remember(Identity#{store => Store}).

join(#{data_dir := Directory, store := Store, join_timeout := Timeout} = Config, #{node := Seed} = Remote) ->
    %% The probe was hidden; khepri_cluster:join takes a global lock, which needs a visible connection. One that is
    %% visible already is left alone: two brokers have much else to say to each other.
    _ = lists:member(Seed, nodes()) orelse erlang:disconnect_node(Seed),
    _ = net_kernel:connect_node(Seed),
    withdraw(Store, Seed),
    ok = run_system(Config),
    ok = run_khepri(Config),
    join_until(Store, Seed, erlang:monotonic_time(millisecond) + Timeout),
    Identity = maps:with([type, instance, cluster_id, format, store], Remote),
    write_identity(Directory, Identity),
    remember(Identity).

%% A node that lost its disk is a member still. It comes back empty, so its old membership ends first: an empty
%% member under an old name would answer for entries that it no longer has.
withdraw(Store, Seed) ->
    Own = {Store, node()},
    try erpc:call(Seed, ra, members, [{Store, Seed}, 5000], 6000) of
        {ok, Members, Leader} ->
            case lists:member(Own, Members) of
                true ->
                    _ = erpc:call(Seed, ra, remove_member, [Leader, Own, 10000], 11000),
                    ok;
                false -> ok
            end;
        _ -> ok
    catch
        %% The join that follows says what is wrong.
        error:{erpc, _} -> ok
    end.

%% Two nodes that join at once disturb each other: Raft changes its members one by one.
join_until(Store, Seed, Deadline) ->
    Result = try khepri_cluster:join({Store, Seed}, 10000)
             catch _:Reason -> {error, Reason}
             end,
    case Result of
        ok -> ok;
        {error, Why} ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    timer:sleep(?RETRY_MS),
                    join_until(Store, Seed, Deadline);
                false -> refuse("joining through ~ts failed: ~0P", [Seed, Why, 12])
            end
    end.

%% The first seed that answers, of the right type and instance. Seeds may still be starting.
probe(#{seeds := Seeds, join_timeout := Timeout} = Config, Own) ->
    probe(Seeds, Config, Own, erlang:monotonic_time(millisecond) + Timeout).

probe(Seeds, Config, Own, Deadline) ->
    Answers = [{Seed, Identity} || Seed <- Seeds, {ok, Identity} <- [ask(Seed)]],
    case Answers of
        [{Seed, Identity} | _] ->
            guard(Seed, Identity, Config),
            Identity#{node => Seed};
        [] ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    timer:sleep(?RETRY_MS),
                    probe(Seeds, Config, Own, Deadline);
                false ->
                    Names = lists:join(", ", [atom_to_list(Seed) || Seed <- Seeds]),
                    refuse("no seed answers (~ts): start one, and check KB_SEED, the cookie and the port mapper",
                           [Names])
            end
    end.

guard(Seed, Identity, Config) ->
    lists:foreach(
      fun(Key) ->
              case {maps:get(Key, Config), maps:get(Key, Identity, undefined)} of
                  {Same, Same} -> ok;
                  {Own, Theirs} ->
                      refuse("~ts is of ~ts ~ts and this node of ~ts: they cannot be one cluster",
                             [Seed, Key, text(Theirs), text(Own)])
              end
      end, [type, instance, store]).

%% Asked over a hidden connection: a node that is refused must not have joined the mesh.
ask(Seed) ->
    Known = lists:member(Seed, nodes(connected)),
    Connected = Known orelse net_kernel:hidden_connect_node(Seed) =:= true,
    Answer = case Connected of
                 true ->
                     try erpc:call(Seed, ?MODULE, identity, [], 3000) of
                         #{cluster_id := _} = Identity -> {ok, Identity};
                         _ -> starting
                     catch
                         _:_ -> unreachable
                     end;
                 false -> unreachable
             end,
    _ = Known orelse erlang:disconnect_node(Seed),
    Answer.

%% The Ra system that khepri:start/3 would make of a directory, so that its register of names can be read before.
run_system(#{data_dir := Directory}) ->
    Data = filename:join(Directory, "khepri"),
    Default = ra_system:default_config(),
    case ra_system:start(Default#{name => system(), data_dir => Data, wal_data_dir => Data,
                                  names => ra_system:derive_names(system())}) of
        {ok, _} -> ok;
        {error, {already_started, _}} -> ok;
        {error, Reason} -> does_not_start(Directory, Reason)
    end.

%% In a broker another one than Khepri's default, which anything else in that virtual machine may use.
system() ->
    application:get_env(khepri_bridge, ra_system, khepri).

run_khepri(#{data_dir := Directory, store := Store}) ->
    case khepri:start(system(), Store, 20000) of
        {ok, Store} -> ok;
        {error, Reason} -> does_not_start(Directory, Reason)
    end.

-spec does_not_start(string(), term()) -> no_return().
does_not_start(Directory, Reason) ->
    refuse("the store in ~ts does not start: ~0P", [Directory, Reason, 12]).

-spec stop(atom()) -> ok.
stop(Store) ->
    _ = khepri:stop(Store),
    ok.

remember(Identity) ->
    persistent_term:put({?MODULE, identity}, Identity).

%% The interpreter's path names what it does: two builds of it can serve one cluster side by side.
-spec procedure() -> [atom() | binary()].
procedure() ->
    case persistent_term:get({?MODULE, procedure}, undefined) of
        undefined ->
            Digest = crypto:hash(sha256, [Module:module_info(md5) || Module <- [kb_tx | kb_authority:modules()]]),
            <<Number:64, _/binary>> = Digest,
            Name = iolist_to_binary(io_lib:format("1-~16.16.0b", [Number])),
            Path = [bridge, procedures, Name],
            persistent_term:put({?MODULE, procedure}, Path),
            Path;
        Path -> Path
    end.

%% Needs a leader; harmless to repeat.
-spec register(atom()) -> ok | {error, term()}.
register(Store) ->
    Options = #{timeout => 5000},
    case khepri:create(Store, procedure(), fun kb_tx:run/2, Options) of
        ok -> register_feed(Store);
        {error, {khepri, mismatching_node, _}} -> register_feed(Store);
        {error, _} = Error -> Error
    end.

%% Only nodes with data: for a node that matches, Khepri lists all of its children twice whenever one of them
%% changes (0.7 ms at 10,000). Two patterns, since `**' followed by a condition begins at the second level.
-spec register_feed(atom()) -> ok | {error, term()}.
register_feed(Store) ->
    Options = #{timeout => 5000},
    Data = {if_has_data, true},
    case register_projection(Store, kb_feed_top_v1, [Data], Options) of
        ok -> register_projection(Store, kb_feed_v1, [{if_path_matches, any, undefined}, Data], Options);
        {error, _} = Error -> Error
    end.

register_projection(Store, Name, Pattern, Options) ->
    case khepri:has_projection(Store, Name, #{timeout => 5000}) of
        true -> ok;
        false ->
            case khepri:register_projection(Store, Pattern, kb_feed:projection(Name), Options) of
                ok -> ok;
                {error, {khepri, projection_already_exists, _}} -> ok;
                {error, _} = Error -> Error
            end;
        {error, _} = Error -> Error
    end.

%% Khepri answers a directory it cannot write to with a crash dump.
check_directory(Directory, MinFree) ->
    Probe = filename:join(Directory, ".probe"),
    Result = maybe_all([fun() -> filelib:ensure_dir(Probe) end,
                        fun() -> check_room(Directory, MinFree) end,
                        fun() -> file:write_file(Probe, binary:copy(<<0>>, 65536), [sync]) end,
                        fun() -> file:delete(Probe) end]),
    case Result of
        ok -> ok;
        {error, Reason} ->
            _ = file:delete(Probe),
            refuse("the data directory ~ts cannot be written: ~ts", [Directory, file:format_error(Reason)])
    end.

%% Ra's log ends for good on a full disk: better not to start than to stop in the middle of a match.
check_room(Directory, MinFree) ->
    case free_mb(Directory) of
        Free when is_integer(Free), Free < MinFree ->
            refuse("the disk of ~ts has ~b MiB free and a start needs ~b: make room, or set KB_MIN_FREE_MB",
                   [Directory, Free, MinFree]);
        _ -> ok
    end.

%% By POSIX `df`, since Erlang does not tell; without it nothing is known. Not by a shell, which would read the name.
free_mb(Directory) ->
    case os:find_executable("df") of
        false -> unknown;
        Df ->
            Options = [{args, ["-P", "-k", "--", Directory]}, exit_status, stderr_to_stdout],
            Port = erlang:open_port({spawn_executable, Df}, Options),
            Columns = "\\s\\d+\\s+\\d+\\s+(\\d+)\\s+\\d+%\\s",
            case re:run(output(Port, []), Columns, [{capture, all_but_first, list}]) of
                {match, [Available]} -> list_to_integer(Available) div 1024;
                nomatch -> unknown
            end
    end.

output(Port, Read) ->
    receive
        {Port, {data, Data}} -> output(Port, [Read, Data]);
        {Port, {exit_status, _}} -> Read
    end.

maybe_all([]) -> ok;
maybe_all([Step | Rest]) ->
    case Step() of
        ok -> maybe_all(Rest);
        Error -> Error
    end.

identity_file(Directory) -> filename:join(Directory, "identity").

read_identity(Directory) ->
    File = identity_file(Directory),
    case file:consult(File) of
        {ok, [#{type := _, instance := _, cluster_id := _, store := _, format := ?FORMAT} = Identity]} -> Identity;
        {error, enoent} -> undefined;
        _ -> refuse("~ts is damaged, or of a newer version: restore it, or set another KB_DATA_DIR", [File])
    end.

%% Ra writes its register of names half a second late; a node killed before that would start empty. So the
%% register first, then the file that says there is data.
write_identity(Directory, Identity) ->
    #{directory_rev := Register} = ra_system:derive_names(system()),
    ok = dets:sync(Register),
    File = identity_file(Directory),
    Fresh = File ++ ".new",
    case maybe_all([fun() -> file:write_file(Fresh, identity_text(Identity), [sync]) end,
                    fun() -> file:rename(Fresh, File) end]) of
        ok -> ok;
        {error, Reason} -> refuse("~ts cannot be written: ~ts", [File, file:format_error(Reason)])
    end.

%% Bytes as numbers: printed as text, sixteen random ones that happen to be Latin-1 letters make a file that
%% cannot be read back.
-spec identity_text(map()) -> io_lib:chars().
identity_text(Identity) -> io_lib:format("~w.~n", [Identity]).

erase_data(Directory) ->
    _ = file:delete(identity_file(Directory)),
    _ = file:del_dir_r(filename:join(Directory, "khepri")),
    ok.

text(Value) when is_atom(Value) -> atom_to_list(Value);
text(Value) -> Value.

-spec refuse(string(), [term()]) -> no_return().
refuse(Format, Values) ->
    throw({refused, io_lib:format(Format, Values)}).
