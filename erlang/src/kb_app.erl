%% A start that fails says why in one line and ends the node; inside a broker it ends nothing but itself.
-module(kb_app).
-behaviour(application).

-export([start/2, stop/1, fail/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Arguments) ->
    case in_broker() of
        true -> kb_sup:start_link([#{id => kb_rabbit, start => {kb_rabbit, start_link, []}}]);
        false ->
            case kb_log:configure(os:getenv("KB_LOG_FORMAT", "text"), os:getenv("KB_LOG_LEVEL", "notice")) of
                ok -> start_node();
                {error, Text} -> fail(Text)
            end
    end.

start_node() ->
    case kb_config:read() of
        {ok, #{store := Store, lease_ms := LeaseMs} = Config} ->
            %% The feed first: the store's projection sends it every change from the first moment on.
            case kb_sup:start_link([]) of
                {ok, Supervisor} ->
                    case kb_store:start(Config) of
                        ok ->
                            ok = kb_sup:start_cluster(Store, LeaseMs),
                            {ok, Supervisor};
                        {error, Text} -> fail(Text)
                    end;
                Error -> Error
            end;
        {error, Text} ->
            fail(Text)
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    case kb_store:identity() of
        #{store := Store} -> kb_store:stop(Store);
        undefined -> ok
    end.

-spec fail(iodata()) -> no_return().
fail(Text) ->
    case in_broker() of
        true -> exit({shutdown, {khepri_bridge, iolist_to_binary(Text)}});
        false ->
            io:format(standard_error, "khepri_bridge: ~ts~n", [Text]),
            erlang:halt(1, [{flush, true}])
    end.

%% As scripts/rabbitmq-plugin writes it into the plugin's application file.
in_broker() -> application:get_env(khepri_bridge, host) =:= {ok, rabbitmq}.
