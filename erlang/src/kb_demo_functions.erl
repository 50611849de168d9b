%% Small functions to allow by KB_FUNCTIONS: examples of what may run inside the store, and what the tests of clients
%% use. Nothing here runs unless the operator lists it.
-module(kb_demo_functions).

-export([add/2, read/1, change/2, is_even/2, double/2, sum/3, index/2, words/4]).

%% Transaction: adds to a counter and returns what it was. A counter that would go below zero aborts. The path comes from
%% a client, so it is looked at: names only, and none of the homeserver's own.
-spec add(khepri_path:native_path(), integer()) -> {counter, integer()}.
add([First | _] = Path, Amount) when First =/= bridge, is_integer(Amount) ->
    true = lists:all(fun(Name) -> is_atom(Name) orelse is_binary(Name) end, Path),
    Before = case khepri_tx:get(Path) of
                 {ok, Number} when is_integer(Number) -> Number;
                 _ -> 0
             end,
    case Before + Amount of
        After when After < 0 -> khepri_tx:abort({below_zero, After});
        After ->
            ok = khepri_tx:put(Path, khepri_payload:data(After)),
            {counter, Before}
    end.

%% Read-only transaction.
-spec read(khepri_path:native_path()) -> {found, term()} | missing.
read(Path) ->
    case khepri_tx:get(Path) of
        {ok, Data} -> {found, Data};
        _ -> missing
    end.

%% Stored procedure without the store: what a list of changes makes of a number.
-spec change(number(), [number()]) -> number().
change(Number, Changes) -> lists:foldl(fun(Change, Sum) -> Change + Sum end, Number, Changes).

%% Predicate of a filter.
-spec is_even(khepri_path:native_path(), map()) -> boolean().
is_even(_Path, #{data := Number}) when is_integer(Number) -> Number rem 2 =:= 0;
is_even(_Path, _Props) -> false.

%% For map.
-spec double(khepri_path:native_path(), map()) -> term().
double(_Path, #{data := Number}) when is_number(Number) -> 2 * Number;
double(_Path, _Props) -> undefined.

%% For fold.
-spec sum(khepri_path:native_path(), map(), number()) -> number().
sum(_Path, #{data := Number}, Sum) when is_number(Number) -> Sum + Number;
sum(_Path, _Props, Sum) -> Sum.

%% Projection of one object for a node: its name and its data.
-spec index(khepri_path:native_path(), term()) -> {atom() | binary(), term()}.
index(Path, Data) -> {lists:last(Path), Data}.

%% Extended projection: an object for each word of a text, and none for one that is gone.
-spec words(ets:table(), khepri_path:native_path(), map(), map()) -> ok.
words(Table, Path, Old, New) ->
    lists:foreach(fun(Word) -> ets:delete_object(Table, {Word, Path}) end, split(Old)),
    lists:foreach(fun(Word) -> ets:insert(Table, {Word, Path}) end, split(New)).

split(#{data := Text}) when is_binary(Text) -> string:lexemes(Text, " ");
split(_) -> [].
