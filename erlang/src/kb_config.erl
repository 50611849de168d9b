%% The environment of a node, read once (erlang/config/README.md lists it).
-module(kb_config).

-export([read/0]).

-export_type([config/0]).

-define(MOST_ENTITIES, 1000000000).

-type config() :: #{data_dir := string(), seeds := [node()], founder := boolean(),
                    type := homeserver | simulation, instance := binary(), store := atom(),
                    reset := boolean(), join_timeout := pos_integer(), min_free_mb := non_neg_integer(),
                    functions := [mfa()], lease_ms := pos_integer(), max_entities := pos_integer(),
                    max_entities_per_master := pos_integer()}.

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
               min_free_mb => number("KB_MIN_FREE_MB", "64", 0, 1048576),
               lease_ms => number("KB_LEASE_MS", "3000", 500, 3600000),
               max_entities => number("KB_MAX_ENTITIES", "1000000", 1, ?MOST_ENTITIES),
               max_entities_per_master => number("KB_MAX_ENTITIES_PER_MASTER", "100000", 1, ?MOST_ENTITIES),
               functions => functions(variable("KB_FUNCTIONS", ""), variable("KB_CODE_PATH", ""))}}
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
    Binary = unicode:characters_to_binary(Name),
    kb_validate:name(Binary) andalso binary:match(Binary, <<"@">>) =:= nomatch orelse
        throw("KB_INSTANCE must be a name of at most 255 bytes without /, @ and control characters"),
    Binary.

store(Name) ->
    case re:run(Name, "^[a-z][a-z0-9_]{0,63}$", [{capture, none}]) of
        match -> list_to_atom(Name);
        nomatch -> throw("KB_STORE must be lower-case letters, digits and _, not " ++ Name)
    end.

%% Looked up now: a name that is wrong is noticed at the start, not by the first client that needs it.
functions(Text, CodePath) ->
    lists:foreach(fun add_path/1, items(CodePath)),
    [function(Item) || Item <- items(Text)].

items(Text) -> [Item || Part <- string:split(Text, ",", all), Item <- [string:trim(Part)], Item =/= ""].

add_path(Directory) ->
    case code:add_pathz(Directory) of
        true -> ok;
        {error, _} -> throw("KB_CODE_PATH names a directory that is not there: " ++ Directory)
    end.

function(Item) ->
    case re:run(Item, "^([A-Za-z][A-Za-z0-9_@.]*):([a-z_][A-Za-z0-9_@]*[?!]?)/([0-9]{1,3})$",
                [{capture, all_but_first, list}]) of
        {match, [ModuleText, FunctionText, ArityText]} ->
            Module = list_to_atom(ModuleText),
            Function = {Module, list_to_atom(FunctionText), list_to_integer(ArityText)},
            is_loaded(Module) orelse
                throw("KB_FUNCTIONS names a module that cannot be loaded (put its directory into KB_CODE_PATH): "
                      ++ ModuleText),
            is_exported(Function) orelse throw("KB_FUNCTIONS names a function that its module does not export: " ++ Item),
            Function;
        nomatch ->
            throw("KB_FUNCTIONS must be module:function/arity, several with commas between, not " ++ Item)
    end.

%% A release runs in embedded mode, in which only what it names itself is loaded unasked.
is_loaded(Module) ->
    code:is_loaded(Module) =/= false orelse code:load_file(Module) =:= {module, Module}.

is_exported({Module, Function, Arity}) -> erlang:function_exported(Module, Function, Arity).

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
