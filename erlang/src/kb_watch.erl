%% What a subscriber of the feed wants to hear of. A path by names alone is a node and everything below it; a pattern
%% with wildcards or conditions on names is the nodes that it matches. Conditions on what a node holds are refused: a
%% deleted node has none, and a change that ends the match could not be told.
-module(kb_watch).

-export([compile/1, wants/2, queries/1]).

-export_type([watch/0]).

-define(MAX_PATTERNS, 64).

-type component() :: atom() | binary() | any | rest | {name, tuple()}
                   | {'not', component()} | {all | some, [component()]}.
-type watch() :: {below, khepri_path:native_path()}
               | {matching, khepri_path:native_pattern(), [component()]}.

-spec compile(term()) -> {ok, [watch()]} | {error, {atom(), map()}}.
compile(Patterns) -> compile(Patterns, [], ?MAX_PATTERNS).

compile([], Watches, _) -> {ok, lists:reverse(Watches)};
compile([Pattern | Rest], Watches, Left) when Left > 0 ->
    case kb_path:pattern(Pattern) of
        {ok, Native} ->
            case lists:any(fun is_tuple/1, Native) of
                false -> compile(Rest, [{below, Native} | Watches], Left - 1);
                true ->
                    try [component(Component) || Component <- Native] of
                        Components -> compile(Rest, [{matching, Native, Components} | Watches], Left - 1)
                    catch
                        throw:refused ->
                            kb_call:refuse(invalid_path, <<"a watch takes names, wildcards, and conditions on names">>)
                    end
            end;
        Refused -> Refused
    end;
compile(_, _, _) ->
    kb_call:refuse(invalid_options, <<"patterns are a list of up to 64 paths or patterns">>).

component(Name) when is_atom(Name); is_binary(Name) -> Name;
component({if_name_matches, any, undefined}) -> any;
component({if_path_matches, any, undefined}) -> rest;
component({if_name_matches, Regex, undefined}) ->
    {ok, Compiled} = re:compile(Regex),
    {name, Compiled};
component({if_not, Condition}) -> {'not', on_name(Condition)};
component({if_all, Conditions}) -> {all, [on_name(Condition) || Condition <- Conditions]};
component({if_any, Conditions}) -> {some, [on_name(Condition) || Condition <- Conditions]};
component(_) -> throw(refused).

%% `**' inside another condition would match at any depth there too.
on_name({if_path_matches, _, _}) -> throw(refused);
on_name(Condition) -> component(Condition).

%% What Khepri is asked for a snapshot of it.
-spec queries(watch()) -> [khepri_path:native_pattern()].
queries({below, []}) -> [[{if_path_matches, any, undefined}]];
queries({below, Path}) -> [Path, Path ++ [{if_path_matches, any, undefined}]];
queries({matching, Pattern, _}) -> [Pattern].

-spec wants([watch()], khepri_path:native_path()) -> boolean().
wants(Watches, Path) ->
    lists:any(fun({below, Prefix}) -> lists:prefix(Prefix, Path);
                 ({matching, _, Components}) -> matches(Components, Path)
              end, Watches).

matches([], []) -> true;
matches([rest | Components], [_ | Names]) ->
    matches(Components, Names) orelse matches([rest | Components], Names);
matches([Component | Components], [Name | Names]) ->
    is_met(Component, Name) andalso matches(Components, Names);
matches(_, _) -> false.

is_met(any, _) -> true;
is_met({name, Regex}, Name) ->
    try re:run(text(Name), Regex, [{capture, none}]) =:= match
    catch error:badarg -> false
    end;
is_met({'not', Component}, Name) -> not is_met(Component, Name);
is_met({all, Components}, Name) -> lists:all(fun(Component) -> is_met(Component, Name) end, Components);
is_met({some, Components}, Name) -> lists:any(fun(Component) -> is_met(Component, Name) end, Components);
is_met(Same, Name) -> Same =:= Name.

%% A name that only others than our clients can write, an atom beyond Latin-1, must not end the feed: no expression
%% matches it, where Khepri raises.
text(Name) when is_atom(Name) -> atom_to_binary(Name, latin1);
text(Name) -> Name.
