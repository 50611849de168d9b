-module(kb_log_tests).
-include_lib("eunit/include/eunit.hrl").

line(Message, Meta) ->
    Event = #{level => warning, msg => Message, meta => Meta#{time => 1795269600000000}},
    unicode:characters_to_binary(kb_log_json:format(Event, #{})).

a_record_is_one_object_on_one_line_test() ->
    ?assertEqual(<<"{\"at\":\"2026-11-21T14:00:00.000000Z\",\"level\":\"warning\",\"node\":\"nonode@nohost\",",
                   "\"message\":\"session of blue expired\",\"trace\":\"000102030405060708090a0b0c0d0e0f\",",
                   "\"entity\":\"ball\",\"generation\":\"7\"}\n">>,
                 line({"session of ~ts expired", [<<"blue">>]},
                      #{trace => list_to_binary(lists:seq(0, 15)), entity => <<"ball">>, generation => 7, pid => self()})).

what_would_end_a_text_or_a_line_is_escaped_test() ->
    Line = line({string, "a\"b\\c\n" ++ [1, 16#1F600]}, #{entity => <<"x\"\n">>, server => <<255>>}),
    [Object, <<>>] = binary:split(Line, <<"\n">>, [global]),
    ?assertMatch({_, _}, binary:match(Object, <<"a\\\"b\\\\c">>)),
    ?assertMatch({_, _}, binary:match(Object, <<"\"entity\":\"x\\\"\\u000a\"">>)),
    ?assertMatch({_, _}, binary:match(Object, unicode:characters_to_binary([16#1F600]))).

a_format_or_level_that_there_is_not_is_refused_test() ->
    #{level := Before} = logger:get_primary_config(),
    ?assertMatch({error, "KB_LOG_FORMAT must be text or json" ++ _}, kb_log:configure("xml", "notice")),
    ?assertMatch({error, "KB_LOG_LEVEL must be debug, info" ++ _}, kb_log:configure("text", "loud")),
    ?assertEqual(ok, kb_log:configure("text", atom_to_list(Before))),
    ?assertMatch(#{level := Before}, logger:get_primary_config()).
