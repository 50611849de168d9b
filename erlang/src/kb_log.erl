%% Ra's and Khepri's chatter at info and below is dropped; the rest is the logger's.
-module(kb_log).

-export([log/4]).

-spec log(logger:level(), io:format(), [term()], logger:metadata()) -> ok.
log(Level, Format, Args, Metadata) ->
    case logger:compare_levels(Level, warning) of
        lt -> ok;
        _ -> logger:log(Level, Format, Args, Metadata)
    end.
