%% How a node's log is written. Ra's and Khepri's chatter at info and below is dropped; the rest is the logger's.
-module(kb_log).

-export([configure/2, log/4]).

-define(LEVELS, ["debug", "info", "notice", "warning", "error"]).

%% Lines for people, as the release's sys.config has them, or one JSON object a line; from a level on.
-spec configure(string(), string()) -> ok | {error, string()}.
configure(Format, Level) ->
    case {Format, lists:member(Level, ?LEVELS)} of
        {_, false} -> {error, "KB_LOG_LEVEL must be debug, info, notice, warning or error, not " ++ Level};
        {"text", true} -> from(list_to_existing_atom(Level), #{});
        {"json", true} -> from(list_to_existing_atom(Level), #{formatter => {kb_log_json, #{}}});
        {Other, true} -> {error, "KB_LOG_FORMAT must be text or json, not " ++ Other}
    end.

from(Level, Changes) ->
    ok = logger:set_primary_config(level, Level),
    case logger:update_handler_config(default, Changes#{level => Level}) of
        ok -> ok;
        {error, _} when Changes =:= #{} -> ok;
        {error, _} -> {error, "KB_LOG_FORMAT=json needs the logger's default handler"}
    end.

-spec log(logger:level(), io:format(), [term()], logger:metadata()) -> ok.
log(Level, Format, Args, Metadata) ->
    case logger:compare_levels(Level, warning) of
        lt -> ok;
        _ -> logger:log(Level, Format, Args, Metadata)
    end.
