%% What the operator lets run inside the store (docs/protocol.md §1): functions of KB_FUNCTIONS as transactions,
%% stored procedures, folds and projections, and triggers of such procedures.
%%
%% Khepri guards transactions, folds and projections against a function that raises. It does not guard against one
%% that never ends, nor against what is refused here: see docs/threat-model.md, "Functions in the store".
-module(kb_procedures).

-export([allow/1, functions/0]).
-export([transaction/5, put_sproc/4, run_sproc/4]).
-export([fold/5, foreach/4, map/4, filter/4]).
-export([register_trigger/5, register_projection/5, unregister_projections/3, has_projection/3]).
-export([projection_lookup/3, projection_objects/3]).

-include_lib("horus/include/horus.hrl").

-define(MAX_ARGUMENTS, 255).
-define(MAX_NAME_BYTES, 255).
-define(MAX_PRIORITY, 1000000000).
-define(MAX_KEYPOS, 255).
-define(MAX_OBJECTS, 10000).
-define(CONNECTION_FAILURES, [timeout, noproc, nodedown, shutdown, system_not_started]).

%% The operator's list, once, at the start.
-spec allow([mfa()]) -> ok.
allow(Functions) ->
    persistent_term:put(?MODULE, maps:from_keys(Functions, [])).

-spec functions() -> {ok, [mfa()]}.
functions() -> {ok, lists:sort(maps:keys(persistent_term:get(?MODULE, #{})))}.

%% A read-write function is not protected by an operation id: when the answer is lost, the outcome is unknown.
-spec transaction(term(), term(), term(), term(), term()) -> kb_call:answer().
transaction(Store, Function, Args, Access, Options) ->
    case {arguments(Args), access(Access), kb_validate:write(Options)} of
        {{ok, Arity}, ok, {ok, Timeout}} ->
            case callable(Function, Arity) of
                {ok, Callable} ->
                    on_store(Store, Timeout, fun() ->
                        Ret = khepri:transaction(Store, Callable, Args, Access, #{timeout => Timeout}),
                        outcome(Ret, Callable, Store)
                    end);
                Refused -> Refused
            end;
        Refused -> kb_call:first_refusal(Refused)
    end.

%% Khepri wraps failures of the call itself in `ok', as if the function had returned them.
outcome({ok, {error, Reason}}, _, Store) ->
    case lists:member(Reason, ?CONNECTION_FAILURES) of
        true ->
            {error, {Kind, Props}} = kb_call:failure({error, Reason}, Store),
            Message = <<(maps:get(message, Props))/binary, " (an allowed function must not itself return {error, R} with "
                        "R of timeout, noproc, nodedown, shutdown)">>,
            {error, {Kind, Props#{message => Message}}};
        false -> value({error, Reason})
    end;
outcome({ok, Value}, _, _) -> value(Value);
outcome({error, {khepri, Reason, #{}}}, [_ | _] = Path, _)
  when Reason =:= no_sproc_at_given_path; Reason =:= node_not_found; Reason =:= mismatching_node ->
    no_sproc(Path);
outcome({error, {khepri, sproc_invalid_as_tx_fun, #{}}}, [_ | _], _) ->
    kb_call:refuse(not_allowed, <<"this procedure does what a transaction may not, or changes the store in a read-only one: use "
                          "run_sproc, or access rw">>);
outcome({error, Reason}, _, _) ->
    {error, {aborted, #{reason => Reason, message => <<"the function aborted the transaction; nothing was changed">>}}}.

%% Extracted here, so that what cannot run is refused now and not at its first use.
-spec put_sproc(term(), term(), term(), term()) -> kb_call:answer().
put_sproc(Store, Path, Function, Options) ->
    case {kb_path:writable(Path), allowed(Function), kb_validate:write(Options)} of
        {{ok, Native}, {ok, Fun}, {ok, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                Payload = khepri_payload:sproc(Fun),
                ok = loads(khepri_payload:prepare(Payload)),
                done(khepri:put(Store, Native, Payload, #{timeout => Timeout}), Store)
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

%% In a process of this call, not in the store's.
-spec run_sproc(term(), term(), term(), term()) -> kb_call:answer().
run_sproc(Store, Path, Args, Options) ->
    case {sproc_path(Path), arguments(Args), query_options(Options)} of
        {{ok, Native}, {ok, _}, {ok, Query, Timeout}} ->
            on_store(Store, Timeout, fun() -> value(khepri:run_sproc(Store, Native, Args, Query)) end);
        Refused -> kb_call:first_refusal(Refused)
    end.

-spec fold(term(), term(), term(), term(), term()) -> kb_call:answer().
fold(Store, Pattern, Function, Acc, Options) ->
    case kb_validate:data(Acc) of
        ok ->
            over(Store, Pattern, Function, 3, Options, fun(Native, Fun, Query) ->
                case khepri:fold(Store, Native, Fun, Acc, Query) of
                    {ok, Value} -> value(Value);
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refused -> Refused
    end.

-spec foreach(term(), term(), term(), term()) -> kb_call:answer().
foreach(Store, Pattern, Function, Options) ->
    over(Store, Pattern, Function, 2, Options, fun(Native, Fun, Query) ->
        done(khepri:foreach(Store, Native, Fun, Query), Store)
    end).

-spec map(term(), term(), term(), term()) -> kb_call:answer().
map(Store, Pattern, Function, Options) ->
    over(Store, Pattern, Function, 2, Options, fun(Native, Fun, Query) ->
        found(khepri:map(Store, Native, Fun, Query), Store)
    end).

%% A stored procedure that is kept counts as a node without data: its code stays here.
-spec filter(term(), term(), term(), term()) -> kb_call:answer().
filter(Store, Pattern, Function, Options) ->
    over(Store, Pattern, Function, 2, Options, fun(Native, Fun, Query) ->
        case khepri:filter(Store, Native, Fun, Query) of
            {ok, Nodes} -> {ok, maps:map(fun(_, Data) -> without_code(Data) end, Nodes)};
            Error -> kb_call:failure(Error, Store)
        end
    end).

without_code(Data) when ?IS_HORUS_STANDALONE_FUN(Data) -> undefined;
without_code(Data) -> Data.

over(Store, Pattern, Function, Arity, Options, Run) ->
    case {kb_path:pattern(Pattern), allowed(Function, Arity), tree_options(Options)} of
        {{ok, Native}, {ok, Fun}, {ok, Query, Timeout}} ->
            on_store(Store, Timeout, fun() -> Run(Native, Fun, Query) end);
        Refused -> kb_call:first_refusal(Refused)
    end.

found({ok, Nodes}, _) -> {ok, Nodes};
found(Error, Store) -> kb_call:failure(Error, Store).

%% Khepri has no way to take a trigger back: registering its name again replaces it, and without its procedure it does
%% nothing.
-spec register_trigger(term(), term(), term(), term(), term()) -> kb_call:answer().
register_trigger(Store, Id, Filter, SprocPath, Options) ->
    case {event_filter(Filter), sproc_path(SprocPath), kb_validate:write(Options)} of
        {{ok, EventFilter}, {ok, Sproc}, {ok, Timeout}} ->
            case name(Id) of
                {ok, Name} ->
                    on_store(Store, Timeout, fun() ->
                        case sproc_arity(Store, Sproc, [low_latency, consistency], Timeout) of
                            {ok, 1} ->
                                done(khepri:register_trigger(Store, Name, EventFilter, Sproc,
                                                             #{timeout => Timeout}), Store);
                            {ok, _} ->
                                kb_call:refuse(invalid_operation, <<"a trigger's procedure takes one argument, a map with "
                                                            "path and on_action">>);
                            Refused -> Refused
                        end
                    end);
                Refused -> Refused
            end;
        Refused -> kb_call:first_refusal(Refused)
    end.

%% A procedure put through another member a moment ago may not be here yet.
sproc_arity(Store, Path, [Favor | Others], Timeout) ->
    %% khepri_adv:get/3 has another shape before Khepri 0.17.
    case khepri_adv:get_many(Store, Path, #{favor => Favor, timeout => Timeout, expect_specific_node => true}) of
        {ok, #{Path := #{sproc := Sproc}}} when ?IS_HORUS_STANDALONE_FUN(Sproc) ->
            {ok, ?HORUS_STANDALONE_FUN_ARITY(Sproc)};
        {error, {khepri, Reason, _}} = Error when Reason =/= node_not_found -> kb_call:failure(Error, Store);
        {error, Reason} when not is_tuple(Reason) -> kb_call:failure({error, Reason}, Store);
        _ when Others =/= [] -> sproc_arity(Store, Path, Others, Timeout);
        _ -> no_sproc(Path)
    end.

event_filter(#{path := Path} = Filter) ->
    Actions = maps:get(on_actions, Filter, [create, update, delete]),
    Priority = maps:get(priority, Filter, 0),
    Valid = maps:size(maps:without([path, on_actions, priority], Filter)) =:= 0 andalso is_actions(Actions, 3)
        andalso is_integer(Priority) andalso abs(Priority) =< ?MAX_PRIORITY,
    case {Valid, kb_path:exact(Path)} of
        {true, {ok, Native}} -> {ok, khepri_evf:tree(Native, #{on_actions => Actions, priority => Priority})};
        {true, Refused} -> Refused;
        {false, _} -> invalid_filter()
    end;
event_filter(_) -> invalid_filter().

invalid_filter() ->
    kb_call:refuse(invalid_options, <<"a trigger has #{path => Path}, on_actions of create, update and delete, and a priority up "
                              "to 1000000000">>).

is_actions([Action | Rest], Left) when Left > 0 ->
    lists:member(Action, [create, update, delete]) andalso (Rest =:= [] orelse is_actions(Rest, Left - 1));
is_actions(_, _) -> false.

-spec register_projection(term(), term(), term(), term(), term()) -> kb_call:answer().
register_projection(Store, Name, Pattern, Function, Options) ->
    case {projection_pattern(Pattern), projection_function(Function), projection_options(Function, Options)} of
        {{ok, Native}, {ok, Fun}, {ok, Table, Timeout}} ->
            case name(Name) of
                {ok, Atom} ->
                    on_store(Store, Timeout, fun() -> register_projection(Store, Atom, Native, Fun, Table, Timeout) end);
                Refused -> Refused
            end;
        Refused -> kb_call:first_refusal(Refused)
    end.

register_projection(Store, Name, Pattern, Fun, Table, Timeout) ->
    case {khepri:has_projection(Store, Name, #{timeout => Timeout}), ets:whereis(Name)} of
        {true, _} -> projection_exists();
        {false, undefined} ->
            Projection = khepri_projection:new(Name, Fun, Table),
            ok = loads(Projection),
            case khepri:register_projection(Store, Pattern, Projection, #{timeout => Timeout}) of
                {error, {khepri, projection_already_exists, _}} -> projection_exists();
                Answer -> done(Answer, Store)
            end;
        {false, _} ->
            %% Khepri would write into that table, and delete it with the projection.
            kb_call:refuse(not_allowed, <<"this node has a table of that name already: choose another name">>);
        {Error, _} -> kb_call:failure(Error, Store)
    end.

projection_function(copy) -> {ok, copy};
projection_function({_, _, Arity} = Function) when Arity =:= 2; Arity =:= 4 -> allowed(Function);
projection_function(_) -> kb_call:refuse(invalid_operation, <<"a projection is copy, or {Module, Function, 2 or 4}">>).

%% An option that ETS does not take kills the store, so these are all.
projection_options(Function, Options) when is_map(Options) ->
    Table = maps:without([timeout], Options),
    case lists:all(fun({Key, Value}) -> is_table_option(Key, Value, Function) end, maps:to_list(Table)) of
        true ->
            case kb_validate:timeout(Options) of
                {ok, Timeout} -> {ok, Table, Timeout};
                Refused -> Refused
            end;
        false ->
            kb_call:refuse(invalid_options, <<"options are type (set, ordered_set; bag, duplicate_bag unless the function takes two "
                                      "arguments), keypos (1 to 255), read_concurrency, write_concurrency (also auto), "
                                      "compressed and timeout">>)
    end;
projection_options(_, _) -> kb_call:refuse(invalid_options, <<"options are a map">>).

is_table_option(type, Type, _) when Type =:= set; Type =:= ordered_set -> true;
is_table_option(type, Type, {_, _, 2}) when Type =:= bag; Type =:= duplicate_bag -> false;
is_table_option(type, Type, _) -> Type =:= bag orelse Type =:= duplicate_bag;
is_table_option(keypos, Position, _) -> is_integer(Position) andalso Position >= 1 andalso Position =< ?MAX_KEYPOS;
is_table_option(write_concurrency, auto, _) -> true;
is_table_option(Key, Flag, _) when Key =:= read_concurrency; Key =:= write_concurrency; Key =:= compressed ->
    is_boolean(Flag);
is_table_option(_, _, _) -> false.

-spec unregister_projections(term(), term(), term()) -> kb_call:answer().
unregister_projections(Store, Names, Options) ->
    case {projection_names(Names), kb_validate:write(Options)} of
        {{ok, Wanted}, {ok, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                case known_projections(Store, Wanted, Timeout) of
                    {ok, []} -> {ok, #{names => []}};
                    {ok, Known} ->
                        case khepri_adv:unregister_projections(Store, Known, #{timeout => Timeout}) of
                            {ok, Gone} ->
                                {ok, #{names => lists:sort([atom_to_binary(Name) || Name <- maps:keys(Gone)])}};
                            Error -> kb_call:failure(Error, Store)
                        end;
                    Error -> kb_call:failure(Error, Store)
                end
            end);
        Refused -> kb_call:first_refusal(Refused)
    end.

projection_names(all) -> {ok, all};
projection_names(Names) when is_list(Names) ->
    try length(Names) =< ?MAX_OBJECTS andalso lists:all(fun is_name/1, Names) of
        true ->
            case lists:any(fun is_reserved/1, Names) of
                true -> reserved();
                false -> {ok, Names}
            end;
        false -> invalid_name()
    catch
        error:badarg -> invalid_name()
    end;
projection_names(_) -> kb_call:refuse(invalid_request, <<"names are all, or a list of projection names">>).

%% Names of which no atom exists are nobody's.
known_projections(Store, all, Timeout) ->
    case khepri_machine:get_projections_state(Store, #{timeout => Timeout}) of
        {ok, Tree} ->
            {ok, khepri_pattern_tree:fold(
                   Tree,
                   fun(_, Projections, Names) ->
                       [Name || Projection <- Projections, Name <- [khepri_projection:name(Projection)],
                                not is_reserved(atom_to_binary(Name))] ++ Names
                   end, [])};
        Error -> Error
    end;
known_projections(_, Names, _) ->
    {ok, [Atom || Name <- Names, {ok, Atom} <- [existing(Name)]]}.

-spec has_projection(term(), term(), term()) -> kb_call:answer().
has_projection(Store, Name, Options) ->
    case {is_name(Name), query_options(Options)} of
        {true, {ok, Query, Timeout}} ->
            on_store(Store, Timeout, fun() ->
                case existing(Name) of
                    {ok, Atom} ->
                        case khepri:has_projection(Store, Atom, Query) of
                            Answer when is_boolean(Answer) -> {ok, Answer};
                            Error -> kb_call:failure(Error, Store)
                        end;
                    error -> {ok, false}
                end
            end);
        {false, _} -> invalid_name();
        {true, Refused} -> Refused
    end.

%% Read past the store, from this member's table.
-spec projection_lookup(term(), term(), term()) -> kb_call:answer().
projection_lookup(Name, Key, Store) ->
    on_table(Name, Store, fun(Table) -> ets:lookup(Table, Key) end).

-spec projection_objects(term(), term(), term()) -> kb_call:answer().
projection_objects(Name, Limit, Store) when is_integer(Limit), Limit >= 1, Limit =< ?MAX_OBJECTS ->
    on_table(Name, Store, fun(Table) -> objects(ets:select(Table, [{'_', [], ['$_']}], Limit), Limit, []) end);
projection_objects(_, _, _) ->
    kb_call:refuse(invalid_options, <<"a limit is 1 to 10000">>).

%% A table that is written meanwhile may answer with fewer than asked for at a time.
objects('$end_of_table', _, Found) -> Found;
objects({More, _}, Left, Found) when length(More) >= Left -> Found ++ lists:sublist(More, Left);
objects({More, Continuation}, Left, Found) ->
    objects(ets:select(Continuation), Left - length(More), Found ++ More).

%% Only the store's own process owns projections: no other table of this node is shown.
on_table(Name, Store, Read) when is_atom(Store) ->
    Running = kb_store:identity(Store) =/= undefined andalso whereis(Store),
    case is_name(Name) andalso existing(Name) of
        _ when not is_pid(Running) -> kb_call:not_running();
        {ok, Table} ->
            try ets:info(Table, owner) =:= Running andalso {ok, Read(Table)} of
                {ok, _} = Answer -> Answer;
                false -> no_projection()
            catch
                error:badarg -> no_projection()
            end;
        error -> no_projection();
        false -> invalid_name()
    end;
on_table(_, _, _) -> kb_call:refuse(invalid_options, <<"a store is an atom such as homeserver">>).

%% Names become atoms. Beyond ASCII they would be poison: Khepri formats the name of what failed with `~s', and that
%% exception is inside Ra (projections) or ends the supervisor of stores (triggers).
name(Name) ->
    case {is_name(Name), is_name(Name) andalso is_reserved(Name)} of
        {true, false} ->
            case existing(Name) of
                {ok, Atom} -> {ok, Atom};
                error ->
                    case erlang:system_info(atom_count) < erlang:system_info(atom_limit) div 2 of
                        true -> {ok, binary_to_atom(Name)};
                        false ->
                            kb_call:refuse(atom_budget, <<"half of the atom table is used: no new names of triggers and "
                                                  "projections">>)
                    end
            end;
        {true, true} -> reserved();
        {false, _} -> invalid_name()
    end.

is_name(Name) when is_binary(Name), byte_size(Name) >= 1, byte_size(Name) =< ?MAX_NAME_BYTES ->
    lists:all(fun(Byte) -> Byte > $\s andalso Byte < 127 end, binary_to_list(Name));
is_name(_) -> false.

is_reserved(<<"kb_", _/binary>>) -> true;
is_reserved(_) -> false.

existing(Name) ->
    try {ok, binary_to_existing_atom(Name)}
    catch error:_ -> error
    end.

%% A regular expression is evaluated inside Ra, on whatever names there are: one with a character beyond Latin-1 in an
%% atom raises there.
projection_pattern(Pattern) ->
    case kb_path:pattern(Pattern) of
        {ok, Native} ->
            case lists:any(fun mentions_regex/1, Native) of
                true ->
                    kb_call:refuse(poison, <<"a regular expression in a projection's pattern kills the store when an atom beyond "
                                     "Latin-1 becomes a name: use * or **, and let a function choose">>);
                false -> {ok, Native}
            end;
        Refused -> Refused
    end.

mentions_regex({Tag, Regex, undefined}) when Tag =:= if_name_matches; Tag =:= if_path_matches -> Regex =/= any;
mentions_regex({if_not, Condition}) -> mentions_regex(Condition);
mentions_regex({Tag, Conditions}) when Tag =:= if_all; Tag =:= if_any -> lists:any(fun mentions_regex/1, Conditions);
mentions_regex(_) -> false.

%% What has a procedure in it of the homeserver's own would go around its checks.
sproc_path(Path) -> kb_path:writable(Path).

callable({sproc, Path}, _) -> sproc_path(Path);
callable({Module, Function}, Arity) -> allowed({Module, Function, Arity});
callable(_, _) -> kb_call:refuse(invalid_operation, <<"a transaction is {Module, Function} or {sproc, Path}">>).

allowed({_, _, Arity} = Function, Arity) -> allowed(Function);
allowed(_, Arity) ->
    Message = io_lib:format("a function is {Module, Function, ~b} here", [Arity]),
    kb_call:refuse(invalid_operation, iolist_to_binary(Message)).

allowed({Module, Function, Arity} = Wanted) when is_atom(Module), is_atom(Function), is_integer(Arity) ->
    case is_map_key(Wanted, persistent_term:get(?MODULE, #{})) of
        true -> {ok, fun Module:Function/Arity};
        false ->
            Message = io_lib:format("~ts:~ts/~b is not on this node's list: the operator allows it by KB_FUNCTIONS at the "
                                    "start of every member", [Module, Function, Arity]),
            kb_call:refuse(not_allowed, unicode:characters_to_binary(Message))
    end;
allowed(_) -> kb_call:refuse(invalid_operation, <<"a function is {Module, Function, Arity}">>).

arguments(Args) when is_list(Args) ->
    try length(Args) of
        Arity when Arity =< ?MAX_ARGUMENTS ->
            case kb_validate:data(Args) of
                ok -> {ok, Arity};
                Refused -> Refused
            end;
        _ -> kb_call:refuse(invalid_request, <<"a function has up to 255 arguments">>)
    catch
        error:badarg -> kb_call:refuse(invalid_request, <<"arguments are a list">>)
    end;
arguments(_) -> kb_call:refuse(invalid_request, <<"arguments are a list">>).

access(Access) when Access =:= ro; Access =:= rw; Access =:= auto -> ok;
access(_) -> kb_call:refuse(invalid_options, <<"access is ro, rw or auto">>).

%% Of a pattern that is folded over, which may match any number of nodes.
tree_options(Options) ->
    case kb_validate:read(Options) of
        {ok, Query} -> {ok, maps:remove(expect_specific_node, Query), maps:get(timeout, Query)};
        Refused -> Refused
    end.

query_options(Options) ->
    case kb_validate:read(Options) of
        {ok, Query} -> {ok, maps:with([favor, timeout], Query), maps:get(timeout, Query)};
        Refused -> Refused
    end.

%% Code that was extracted is loaded once here: on OTP 25 some cannot be, which is otherwise only seen at its first use.
loads(Term) ->
    _ = [horus:to_fun(Fun) || Fun <- tuple_to_list(Term), ?IS_HORUS_STANDALONE_FUN(Fun)],
    ok.

%% In a process of its own, in which what an allowed function raises becomes an answer.
on_store(Store, Timeout, Fun) ->
    kb_call:on_store(Store, Timeout, fun() ->
        try Fun()
        catch
            throw:{khepri, failed_to_get_sproc, #{path := Path, error := {khepri, node_not_found, _}}} -> no_sproc(Path);
            throw:{khepri, failed_to_get_sproc, #{error := Error}} -> kb_call:failure({error, Error}, Store);
            exit:{Reason, {gen_statem, call, _}} -> kb_call:failure({error, Reason}, Store);
            Class:Reason -> raised(Class, Reason)
        end
    end).

done(ok, _) -> {ok, #{}};
done(Error, Store) -> kb_call:failure(Error, Store).

value(Value) -> {ok, #{value => Value}}.

no_sproc(Path) ->
    {error, {no_sproc, #{path => Path, message => <<"no stored procedure here: put one by put_sproc">>}}}.

no_projection() -> kb_call:refuse(no_projection, <<"this member has no such projection">>).

projection_exists() -> kb_call:refuse(projection_exists, <<"a projection of this name exists: unregister it first">>).

invalid_name() -> kb_call:refuse(invalid_request, <<"a name is a binary of 1 to 255 printable ASCII characters, none a space">>).

reserved() -> kb_call:refuse(not_allowed, <<"names that begin with kb_ are the homeserver's own">>).

%% Whatever an allowed function, or Khepri about it, raises.
raised(error, {khepri_ex, Reason, #{error := Error}})
  when Reason =:= failed_to_prepare_tx_fun; Reason =:= failed_to_prepare_sproc_fun ->
    denied(Error);
raised(throw, {horus, _, #{}} = Error) -> denied(Error);
raised(error, {horus_ex, invalid_generated_module, _}) ->
    kb_call:refuse(invalid_operation, <<"OTP cannot load this function's extracted code: compile its module with the option "
                                "no_type_opt (OTP 25 needs it)">>);
raised(error, {horus_ex, module_not_found, #{module := Module}}) ->
    Message = io_lib:format("the file of ~ts is not in the code path of this node: put its directory into KB_CODE_PATH",
                            [Module]),
    kb_call:refuse(not_allowed, unicode:characters_to_binary(Message));
raised(error, {khepri_ex, denied_update_in_readonly_tx, _}) ->
    kb_call:refuse(invalid_operation, <<"the function changes the store: call it with access rw">>);
raised(error, {khepri_ex, invalid_use_of_khepri_tx_outside_transaction, _}) ->
    kb_call:refuse(invalid_operation, <<"the procedure uses khepri_tx: run it by transaction, as {sproc, Path}">>);
raised(error, {badarity, {Fun, _}}) when ?IS_HORUS_STANDALONE_FUN(Fun) ->
    Message = io_lib:format("the procedure takes ~b arguments", [?HORUS_STANDALONE_FUN_ARITY(Fun)]),
    kb_call:refuse(invalid_request, iolist_to_binary(Message));
raised(throw, {khepri_ex, denied_execution_of_non_sproc_node, #{path := Path}}) -> no_sproc(Path);
raised(Class, Reason) ->
    Shown = case kb_validate:data(Reason) of
                ok -> Reason;
                _ -> shown(Reason)
            end,
    {error, {raised, #{class => Class, reason => Shown, message => <<"the function raised; what it changed in a transaction is undone">>}}}.

denied(Error) ->
    Message = <<"the function does what is not allowed inside the store, where it runs on every member and again after a "
                "restart, each time with the same effect">>,
    {error, {not_allowed, #{denied => shown(cause(Error)), message => Message}}}.

cause({horus, _, #{error := Error}}) -> cause(Error);
cause(Error) -> Error.

shown(Term) -> unicode:characters_to_binary(io_lib:format("~0tP", [Term, 20])).
