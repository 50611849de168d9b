%% The environment of a node, read once (erlang/config/README.md lists it).
-module(kb_config).

-export([read/0]).

-export_type([config/0]).

-type config() :: #{data_dir := string(), seeds := [node()], founder := boolean(),
                    type := homeserver | simulation, instance := binary(), store := atom(),
                    reset := boolean(), join_timeout := pos_integer()}.

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
               join_timeout => 1000 * number(variable("KB_JOIN_SECONDS", "30"))}}
    catch
        throw:Reason -> {error, Reason}
    end.

variable(Name, Default) ->
    case os:getenv(Name) of
        false -> Default;
        "" -> Default;
        Value -> Value
    end.

default_data_dir() -> filename:join("data", atom_to_list(node())).

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

number(Text) ->
    case string:to_integer(Text) of
        {Number, ""} when is_integer(Number), Number >= 1, Number =< 3600 -> Number;
        _ -> throw("KB_JOIN_SECONDS must be 1 to 3600, not " ++ Text)
    end.

check_node(Name) ->
    case string:split(atom_to_list(Name), "@", all) of
        [[_ | _], [_ | _]] -> ok;
        _ -> throw("KB_SEED must be a node name such as hs1@127.0.0.1, not " ++ atom_to_list(Name))
    end.
