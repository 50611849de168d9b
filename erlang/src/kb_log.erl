%% How a node's log is written. Ra's and Khepri's chatter at info and below is dropped; the rest is the logger's.
-module(kb_log).

-export([configure/1, log/4]).

%% Lines for people, as the release's sys.config has them, or one JSON object a line.
-spec configure(string()) -> ok | {error, string()}.
configure("text") -> ok;
configure("json") ->
    case logger:set_handler_config(default, formatter, {kb_log_json, #{}}) of
        ok -> ok;
        {error, _} -> {error, "KB_LOG_FORMAT=json needs the logger's default handler"}
    end;
configure(Other) -> {error, "KB_LOG_FORMAT must be text or json, not " ++ Other}.

-spec log(logger:level(), io:format(), [term()], logger:metadata()) -> ok.
log(Level, Format, Args, Metadata) ->
    case logger:compare_levels(Level, warning) of
        lt -> ok;
        _ -> logger:log(Level, Format, Args, Metadata)
    end.
