%% Functions that an operator should not have allowed, and some that cannot be run in a store at all.
-module(kb_hostile_functions).

-export([raise/0, raise/1, raise/2, raise/3, raise/4, exits/2, throws/2, not_a_tuple/2, bad_error_info/2, deletes_table/4,
         names_the_node/0, names_the_node/2, sends/1, timeout_like/0, slow/2, slow/1, answers/1, atoms/1, trigger/1, bag/2]).

-spec raise() -> no_return().
raise() -> error(boom).
-spec raise(term()) -> no_return().
raise(_) -> error(boom).
-spec raise(term(), term()) -> no_return().
raise(_, _) -> error(boom).
-spec raise(term(), term(), term()) -> no_return().
raise(_, _, _) -> error(boom).
-spec raise(term(), term(), term(), term()) -> no_return().
raise(_, _, _, _) -> error(boom).

-spec exits(term(), term()) -> no_return().
exits(_, _) -> exit(boom).
-spec throws(term(), term()) -> no_return().
throws(_, _) -> throw(boom).

-spec not_a_tuple(term(), term()) -> term().
not_a_tuple(Path, _) -> Path.
-spec bag(term(), term()) -> [{term(), term()}].
bag(Path, Data) -> [{Path, Data}, {Data, Path}].
-spec bad_error_info(term(), term()) -> no_return().
bad_error_info(_, _) -> erlang:error(badarg, [1, 2], [{error_info, #{module => 7, cause => x}}]).
-spec deletes_table(term(), term(), term(), term()) -> true.
deletes_table(Table, _, _, _) -> ets:delete(Table).

-spec names_the_node() -> node().
names_the_node() -> node().
-spec names_the_node(term(), term()) -> {node(), term()}.
names_the_node(_, Data) -> {node(), Data}.
-spec sends(pid()) -> ok.
sends(Pid) ->
    Pid ! from_inside,
    ok.

-spec timeout_like() -> {error, timeout}.
timeout_like() -> {error, timeout}.
-spec slow(term(), term()) -> ok.
slow(_, _) -> slow(2000).
-spec slow(pos_integer()) -> ok.
slow(Milliseconds) -> timer:sleep(Milliseconds).
-spec answers(Term) -> Term.
answers(Term) -> Term.
-spec atoms(term()) -> term().
atoms(_) -> khepri_tx:abort(#{why => <<"because">>}).
-spec trigger(map()) -> ok.
trigger(#{path := [_ | Rest]} = Props) ->
    persistent_term:put({?MODULE, Rest}, Props),
    ok.
