%% Terms of every type, small, from the seeded generator of the calling process.
-module(kb_random_terms).

-export([any/0, one_of/1]).

-spec any() -> term().
any() -> any(3).

any(0) -> leaf();
any(Depth) ->
    case rand:uniform(8) of
        1 -> [any(Depth - 1) || _ <- few()];
        2 -> list_to_tuple([any(Depth - 1) || _ <- few()]);
        3 -> maps:from_list([{any(Depth - 1), any(Depth - 1)} || _ <- few()]);
        4 -> [any(Depth - 1) | any(Depth - 1)];
        _ -> leaf()
    end.

leaf() ->
    one_of([0, -1, 47, 1 bsl 80, 1.5, '', a, stock, bridge, if_name_matches, if_data_matches, undefined, true, '\x{142}', <<>>,
            <<"/:bridge">>, <<"/*">>, <<255>>, <<1:3>>, [], "text", self(), make_ref(), fun erlang:halt/0, fun() -> ok end,
            rand:bytes(rand:uniform(20))]).

few() -> lists:seq(1, rand:uniform(4) - 1).

-spec one_of([Term, ...]) -> Term.
one_of(Terms) -> lists:nth(rand:uniform(length(Terms)), Terms).
