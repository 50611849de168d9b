%% Whether all that is to run inside the store can be made to: Khepri takes functions out of their object files, with all
%% that they call. Horus refuses what it does not know, and Erlang may not load what Horus made: both are else only seen
%% in a running store. What is extracted is found in the object files, so that nothing is forgotten.
-module(kb_extraction_tests).
-include_lib("eunit/include/eunit.hrl").
-include_lib("horus/include/horus.hrl").

%% Of calls that take a function to be extracted: which argument it is.
-define(EXTRACTING, #{{khepri, transaction} => 2, {khepri_payload, sproc} => 1, {khepri_projection, new} => 2,
                      {khepri, create} => 3, {khepri, put} => 3, {khepri, update} => 3, {khepri, put_many} => 3,
                      {khepri_adv, create} => 3, {khepri_adv, put} => 3, {khepri_adv, update} => 3,
                      {khepri_adv, put_many} => 3}).

every_function_of_the_application_in_the_store_is_extracted_and_loads_test_() ->
    {setup, fun as_khepri_starts/0, [{name(Function), fun() -> ok = loads(extracted(Call, Function)) end}
                                     || {Call, Function} <- entry_points()]}.

they_are_all_found_test() ->
    ?assertEqual([{create, {kb_tx, run, 2}}, {new, {kb_feed, project, 4}}, {transaction, {kb_export, restore, 1}}],
                 entry_points()).

%% A function that comes from elsewhere: of KB_FUNCTIONS, and of two transactions that only read, here.
none_is_hidden_in_a_variable_test() ->
    ?assertEqual([{kb_feed, transaction}, {kb_procedures, new}, {kb_procedures, sproc}, {kb_procedures, transaction},
                  {kb_succession, transaction}],
                 lists:usort([{Module, Call} || {Module, Call, {var, _, _}} <- given(), Call =:= transaction
                                                    orelse Call =:= sproc orelse Call =:= new])).

every_example_for_operators_is_extracted_and_loads_test_() ->
    {setup, fun as_khepri_starts/0, [{atom_to_list(Name), fun() -> ok = loads(extracted(place(Name), {kb_demo_functions, Name, Arity})) end}
                                     || {Name, Arity} <- kb_demo_functions:module_info(exports), Name =/= module_info]}.

place(Projection) when Projection =:= words; Projection =:= index -> new;
place(_) -> transaction.

%% The procedure's path names by these modules what it does: with one left out, members of two builds would share a path.
the_procedure_is_named_by_all_modules_that_it_is_made_of_test() ->
    ok = as_khepri_starts(),
    Self = self(),
    Taken = fun(Module, Function, Arity, From) ->
                    IsTaken = khepri_tx_adv:should_process_function(Module, Function, Arity, From),
                    _ = IsTaken andalso (Self ! {taken, Module}),
                    IsTaken
            end,
    _ = horus:to_standalone_fun(fun kb_tx:run/2, #{should_process_function => Taken}),
    Ours = [Module || Module <- lists:usort(taken()), lists:prefix("kb_", atom_to_list(Module))],
    ?assertEqual(lists:sort([kb_tx | kb_authority:modules()]), Ours).

taken() ->
    receive {taken, Module} -> [Module | taken()]
    after 0 -> []
    end.

%% That the tests above can fail.
what_may_not_run_in_the_store_is_refused_test() ->
    ok = as_khepri_starts(),
    ?assertError({khepri_ex, failed_to_prepare_tx_fun, _}, extracted(transaction, {kb_hostile_functions, names_the_node, 0})).

as_khepri_starts() ->
    _ = application:load(khepri),
    ok = khepri_utils:init_list_of_modules_to_skip().

extracted(new, {kb_feed, project, 4}) -> kb_feed:projection(kb_extraction_tests);
extracted(new, Function) -> khepri_projection:new(kb_extraction_tests, external(Function));
%% Not by khepri_payload:prepare/1, which takes what may not run in a transaction for a plain procedure.
extracted(_, Function) -> {khepri_tx_adv:to_standalone_fun(external(Function), rw)}.

external({Module, Name, Arity}) -> fun Module:Name/Arity.

loads(Extracted) ->
    Funs = [horus:to_fun(Fun) || Fun <- tuple_to_list(Extracted), ?IS_HORUS_STANDALONE_FUN(Fun)],
    ?assertMatch([Fun] when is_function(Fun), Funs),
    ok.

name({Module, Name, Arity}) -> lists:flatten(io_lib:format("~s:~s/~b", [Module, Name, Arity])).

entry_points() ->
    lists:usort([{Call, function(Module, Fun)} || {Module, Call, Fun} <- given(), element(1, Fun) =:= 'fun']).

function(_, {'fun', _, {function, {atom, _, Module}, {atom, _, Name}, {integer, _, Arity}}}) -> {Module, Name, Arity};
%% A closure or a local function has no name to try it by here: export it.
function(Module, Fun) -> {closure, Module, Fun}.

%% What the modules of the application give to Khepri where it takes a function.
given() ->
    ok = case application:load(khepri_bridge) of
             {error, {already_loaded, _}} -> ok;
             Loaded -> Loaded
         end,
    {ok, Modules} = application:get_key(khepri_bridge, modules),
    lists:append([given(Module, forms(Module)) || Module <- Modules, lists:prefix("kb_", atom_to_list(Module)),
                                                  not lists:suffix("_tests", atom_to_list(Module))]).

forms(Module) ->
    {ok, {_, [{abstract_code, {raw_abstract_v1, Forms}}]}} = beam_lib:chunks(code:which(Module), [abstract_code]),
    Forms.

given(Module, {call, _, {remote, _, {atom, _, Of}, {atom, _, Call}}, Args} = Expression)
  when map_get({Of, Call}, ?EXTRACTING) =< length(Args) ->
    [{Module, Call, lists:nth(map_get({Of, Call}, ?EXTRACTING), Args)} | given(Module, tuple_to_list(Expression))];
given(Module, Expression) when is_tuple(Expression) -> given(Module, tuple_to_list(Expression));
given(Module, [Expression | Rest]) -> given(Module, Expression) ++ given(Module, Rest);
given(_, _) -> [].
