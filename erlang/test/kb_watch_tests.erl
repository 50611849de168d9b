-module(kb_watch_tests).

-include_lib("eunit/include/eunit.hrl").

compiled(Patterns) ->
    {ok, Watches} = kb_watch:compile(Patterns),
    Watches.

names_alone_are_a_node_and_all_below_it_test() ->
    Watches = compiled([<<"/:a/b">>]),
    ?assert(kb_watch:wants(Watches, [a, <<"b">>])),
    ?assert(kb_watch:wants(Watches, [a, <<"b">>, c, d])),
    ?assertNot(kb_watch:wants(Watches, [a])),
    ?assertNot(kb_watch:wants(Watches, [a, <<"bb">>])).

the_root_is_everything_test() ->
    ?assert(kb_watch:wants(compiled([<<"/">>]), [any, node])).

a_pattern_is_the_nodes_that_it_matches_test() ->
    [?assertEqual(Expected, kb_watch:wants(compiled([Pattern]), Path), {Pattern, Path})
     || {Pattern, Path, Expected} <-
            [{<<"/:a/*">>, [a, <<"x">>], true}, {<<"/:a/*">>, [a], false}, {<<"/:a/*">>, [a, b, c], false},
             {<<"/:a/**">>, [a, b, c], true}, {<<"/:a/**">>, [a], false}, {<<"/**/x">>, [a, b, <<"x">>], true},
             {<<"/**/x">>, [<<"x">>], false}, {<<"/:a/*/c">>, [a, b, <<"c">>], true},
             {<<"/:a/w*d">>, [a, <<"wood">>], true}, {<<"/:a/w*d">>, [a, wild], true}, {<<"/:a/w*d">>, [a, wine], false},
             {[a, {if_not, <<"x">>}], [a, <<"x">>], false}, {[a, {if_not, <<"x">>}], [a, x], true},
             {[a, {if_any, [x, {if_name_matches, <<"^y">>, undefined}]}], [a, yes], true},
             {[a, {if_all, [{if_name_matches, any, undefined}, {if_not, b}]}], [a, b], false}]].

one_of_several_is_enough_test() ->
    Watches = compiled([<<"/:a/*">>, <<"/:b">>]),
    ?assert(kb_watch:wants(Watches, [b, c, d])),
    ?assertNot(kb_watch:wants(Watches, [c])).

what_is_no_condition_on_names_is_refused_test() ->
    [?assertMatch({error, {invalid_path, _}}, kb_watch:compile([[a, Condition]]), Condition)
     || Condition <- [{if_payload_version, 1}, {if_has_data, true}, {if_data_matches, '_', [], undefined},
                      {if_not, {if_has_data, true}}, {if_all, [{if_path_matches, any, undefined}]},
                      {if_path_matches, <<"x">>, undefined}]],
    ?assertMatch({error, {poison, _}}, kb_watch:compile([[a, {if_name_matches, <<"(">>, undefined}]])),
    ?assertMatch({error, {invalid_path, _}}, kb_watch:compile([7])),
    [?assertMatch({error, {invalid_options, _}}, kb_watch:compile(Patterns))
     || Patterns <- [none, [<<"/:a">> | <<"/:b">>], lists:duplicate(65, <<"/:a">>)]].

no_expression_matches_a_name_beyond_latin_1_and_none_ends_the_feed_test() ->
    Watches = compiled([[a, {if_name_matches, <<"x">>, undefined}], [a, {if_not, {if_name_matches, <<"x">>, undefined}}]]),
    ?assert(kb_watch:wants(Watches, [a, 'x\x{20ac}'])),
    ?assertNot(kb_watch:wants(tl(lists:reverse(Watches)), [a, 'x\x{20ac}'])),
    ?assert(kb_watch:wants(Watches, [a, '\x{e9}x'])).

an_expression_that_would_never_end_gives_up_test() ->
    Watches = compiled([[{if_name_matches, <<"^(a+)+$">>, undefined}]]),
    ?assertNot(kb_watch:wants(Watches, [<<(binary:copy(<<"a">>, 500))/binary, "b">>])).
