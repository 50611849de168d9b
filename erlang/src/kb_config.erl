%% The environment of a node, read once (erlang/config/README.md lists it).
-module(kb_config).

-export([read/0]).

-export_type([config/0]).

-type config() :: #{data_dir := string(), seeds := [node()], founder := boolean(),
                    type := homeserver | simulation, instance := binary(), store := atom(),
                    reset := boolean(), join_timeout := pos_integer(), min_free_mb := non_neg_integer()}.

-spec read() -> {ok, config()} | {error, string()}.
read() ->
    try
        Seeds = [list_to_atom(string:trim(Name)) || Name <- string:split(variable("KB_SEED", ""), ",", all),
                                                    string:trim(Name) =/= ""],
        lists:foreach(fun check_node/1, Seeds),
        {ok, #{data_dir => filename:absname(variable("KB_DATA_DIR", default_data_dir())),
               seeds => lists:delete(node(), Seeds),
               founder => Seeds =:= [] orelse Seeds =:= [node()],
               type => type(variable("KB_TYPE", "homeserver")),
               instance => instance(variable("KB_INSTANCE", "local")),
               store => store(variable("KB_STORE", "homeserver")),
               reset => lists:member(variable("KB_RESET", ""), ["1", "true", "yes"]),
               join_timeout => 1000 * number("KB_JOIN_SECONDS", "30", 1, 3600),
               min_free_mb => number("KB_MIN_FREE_MB", "64", 0, 1048576)}}
    catch
        throw:Reason -> {error, Reason}
    end.

variable(Name, Default) ->
    case os:getenv(Name) of
        false -> Default;
        "" -> Default;
        Value -> Value
    end.

default_data_dir() ->
    case application:get_env(rabbit, data_dir) of
        %% Beside the broker's own directory, which `rabbitmqctl reset' empties.
        {ok, Broker} -> Broker ++ "-khepri_bridge";
        undefined -> filename:join("data", atom_to_list(node()))
    end.

type("homeserver") -> homeserver;
type("simulation") -> simulation;
type(Other) -> throw("KB_TYPE must be homeserver or simulation, not " ++ Other).

instance(Name) ->
    case unicode:characters_to_binary(Name) of
        Binary when is_binary(Binary), byte_size(Binary) =< 255 -> Binary;
        _ -> throw("KB_INSTANCE must be a name of at most 255 bytes")
    end.

store(Name) ->
    case re:run(Name, "^[a-z][a-z0-9_]{0,63}$", [{capture, none}]) of
        match -> list_to_atom(Name);
        nomatch -> throw("KB_STORE must be lower-case letters, digits and _, not " ++ Name)
    end.

number(Name, Default, Least, Most) ->
    Text = variable(Name, Default),
    case string:to_integer(Text) of
        {Number, ""} when is_integer(Number), Number >= Least, Number =< Most -> Number;
        _ -> throw(lists:flatten(io_lib:format("~s must be ~b to ~b, not ~ts", [Name, Least, Most, Text])))
    end.

check_node(Name) ->
    case string:split(atom_to_list(Name), "@", all) of
        [[_ | _], [_ | _]] -> ok;
        _ -> throw("KB_SEED must be a node name such as hs1@127.0.0.1, not " ++ atom_to_list(Name))
    end.
