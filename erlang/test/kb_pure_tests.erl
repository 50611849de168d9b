-module(kb_pure_tests).
-include_lib("eunit/include/eunit.hrl").

json_takes_flat_objects_only_test_() ->
    [?_assertEqual({ok, #{<<"a">> => <<"x">>, <<"b">> => 12, <<"c">> => [<<"d">>], <<"e">> => false}},
                   kb_json:object(<<"{\"a\":\"x\",\"b\":12,\"c\":[\"d\"],\"e\":false}">>)),
     ?_assertEqual({ok, #{<<"a">> => <<"ü😀"/utf8>>}}, kb_json:object(<<"{\"a\":\"\\u00fc\\ud83d\\ude00\"}">>)),
     ?_assertEqual({ok, #{}}, kb_json:object(<<" { } ">>))
     | [?_assertEqual(error, kb_json:object(Text))
        || Text <- [<<>>, <<"{">>, <<"[]">>, <<"{\"a\":1,\"a\":2}">>, <<"{\"a\":01}">>, <<"{\"a\":-1}">>,
                    <<"{\"a\":1}x">>, <<"{\"a\":{}}">>, <<"{\"a\":[1]}">>, <<"{\"a\":[\"x\",]}">>,
                    <<"{\"a\":\"\\ud800\"}">>, <<"{\"a\":\"\n\"}">>, <<"{\"a\":1.5}">>, <<"{\"a\":\"", 255, "\"}">>]]].

any_bytes_are_an_object_or_an_error_test() ->
    _ = rand:seed(exsss, {1, 2, 3}),
    Base = <<"{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"v\":1,\"b64\":false}">>,
    [begin
         At = rand:uniform(byte_size(Base)) - 1,
         <<Head:At/binary, _, Tail/binary>> = Base,
         case kb_json:object(<<Head/binary, (rand:uniform(256) - 1), Tail/binary>>) of
             error -> ok;
             {ok, Object} -> ?assert(is_map(Object))
         end
     end || _ <- lists:seq(1, 2000)].

paths_test_() ->
    [?_assertEqual({ok, [stock, <<"wood">>]}, kb_path:exact(<<"/:stock/wood">>)),
     ?_assertEqual({ok, [stock]}, kb_path:exact([stock])),
     ?_assertMatch({ok, [stock, {if_name_matches, any, undefined}]}, kb_path:pattern(<<"/:stock/*">>)),
     ?_assertMatch({error, {reserved_path, _}}, kb_path:writable(<<"/:bridge/:grants">>))
     | [?_assertMatch({error, {invalid_path, _}}, kb_path:writable(Path))
        || Path <- [<<>>, <<"/">>, [], 1, [stock | wood], [1], [<<>>], ['' ], <<"/a/*">>, <<255>>, [47],
                    [{if_data_matches, '_', [], undefined}], lists:duplicate(65, a), binary:copy(<<"a">>, 5000)]]].

text_is_read_as_khepri_reads_it_test_() ->
    [?_assertEqual(khepri_path:realpath(khepri_path:from_binary(Path)), element(2, kb_path:pattern(Path)))
     || Path <- [<<"/:stock/wood">>, <<"stock/wood/">>, <<"/stock/:wood/">>, <<"/a/./b/../c">>, <<"/">>, <<"/%41/:%42">>,
                 <<"/:é/ü"/utf8>>, <<"/**/*">>, <<"..">>, <<"^">>, <<"/x/^y">>, <<"/.hidden">>, <<"/a:b">>, <<".">>]]
    ++ [?_assertMatch({error, {invalid_path, _}}, kb_path:pattern(Path))
        || Path <- [<<"/:">>, <<"/a//b">>, <<"/", (binary:copy(<<":x">>, 256))/binary>>, <<"/a/^/b">>, <<"/", 255>>]].

a_path_makes_no_atom_beyond_half_of_the_table_test_() ->
    {timeout, 60, fun() ->
        {ok, Peer, _} = peer:start(#{connection => standard_io, args => ["+t", "30000", "-pa" | code:get_path()]}),
        Read = fun(Path) -> peer:call(Peer, kb_path, pattern, [Path]) end,
        {ok, [known, 'an atom']} = Read(<<"/:known/:an%20atom">>),
        Fill = fun Fill(N) ->
                       case peer:call(Peer, erlang, system_info, [atom_count]) > 15000 of
                           true -> ok;
                           false ->
                               _ = [peer:call(Peer, erlang, list_to_atom, ["filler" ++ integer_to_list(N + More)])
                                    || More <- lists:seq(1, 200)],
                               Fill(N + 200)
                       end
               end,
        Fill(0),
        [?assertMatch({error, {atom_budget, _}}, Read(Path)) || Path <- [<<"/:never_seen">>, <<"/a/:ne%77/*">>, <<"/:an%20atom">>]],
        ?assertEqual({ok, [known, <<"new">>]}, Read(<<"/:known/new">>)),
        ok = peer:stop(Peer)
    end}.

dots_lead_to_the_reserved_path_too_test() ->
    ?assertMatch({error, {reserved_path, _}}, kb_path:writable(<<"/:stock/../:bridge/:grants">>)).

keep_while_takes_only_what_the_store_survives_test_() ->
    [?_assertEqual({ok, Condition}, kb_condition:checked(Condition, keep_while))
     || Condition <- [{if_node_exists, true}, {if_child_list_length, {gt, 0}}, {if_not, {if_has_data, true}}, <<"name">>,
                      {if_all, [{if_payload_version, 3}, {if_any, []}]}, {if_name_matches, any, undefined}]]
    ++ [?_assertMatch({poison, _}, kb_condition:checked(Condition, keep_while))
        || Condition <- [{if_data_matches, '_', [], undefined}, {if_not, {if_data_matches, '_', [], undefined}},
                         {if_any, [{if_node_exists, true}, {if_data_matches, '_', [], undefined}]}
                        | malformed_conditions()]].

patterns_take_data_that_can_be_matched_test_() ->
    [?_assertEqual({ok, Condition}, kb_condition:checked(Condition, pattern))
     || Condition <- [{if_data_matches, '_', [], undefined}, {if_data_matches, #{a => '$1'}, [{'>', '$1', 3}], undefined},
                      {if_data_matches, {'$1', '$2'}, [{'andalso', {is_integer, '$1'}, {'=:=', {'rem', '$1', 2}, 0}}],
                       undefined}]]
    ++ [?_assertMatch({poison, _}, kb_condition:checked(Condition, pattern))
        || Condition <- [{if_data_matches, '_', [{no_such_guard, 1}], undefined}, {if_data_matches, '_', [], compiled},
                         {if_data_matches, '_', [{'=:=', {node}, {const, node()}}], undefined},
                         {if_data_matches, '$1', [{'>', {'*', '$1', '$1'}, 0}], undefined},
                         {if_data_matches, '_', [{'>', {'bsl', 1, 1000000}, 0}], undefined},
                         {if_data_matches, '_', x, undefined}, {if_data_matches, '_', [true | x], undefined},
                         {if_data_matches, '_', []} | malformed_conditions()]].

malformed_conditions() ->
    [{if_all, not_a_list}, {if_all, [{if_node_exists, true} | x]}, {if_node_exists, maybe_not}, 1, [a], '',
     {if_child_list_length, {gt, {gt, 1}}}, {if_payload_version, -1}, {if_payload_version, 1.0},
     {if_name_matches, <<"(">>, undefined}, {if_name_matches, <<"(*UTF8)a">>, undefined},
     {if_name_matches, binary:copy(<<"a">>, 257), undefined}, {if_name_matches, [1000], undefined},
     {if_name_matches, <<"a">>, re:compile("a")}, {if_all, lists:duplicate(33, a)}, {if_all, ['\x{65e5}']},
     {if_any, [46]}, {}, {if_not}, lists:foldl(fun(_, Inner) -> {if_not, Inner} end, a, lists:seq(1, 10000))].

a_regular_expression_is_limited_and_shown_as_it_was_test() ->
    Given = {if_all, [{if_name_matches, <<"^(a+)+$">>, undefined}, {if_not, <<"b">>}]},
    {ok, Limited} = kb_condition:checked(Given, pattern),
    ?assertNotEqual(Given, Limited),
    ?assertEqual(Given, kb_condition:shown(khepri_condition:compile(Limited))),
    {false, _} = khepri_condition:is_met(Limited, <<(binary:copy(<<"a">>, 1000))/binary, "b">>, #{}).

what_writes_keeps_off_the_reserved_path_test_() ->
    Wildcard = {if_name_matches, any, undefined},
    [?_assertMatch({error, {reserved_path, _}}, kb_path:written(Path))
     || Path <- [<<"/*">>, <<"/**">>, [Wildcard, a], [bridge], [{if_not, a}], [{if_any, [a, bridge]}],
                 [{if_all, [{if_not, a}, Wildcard]}], [{if_any, []}], <<"/:stock/../:bridge/*">>]]
    ++ [?_assertMatch({ok, _}, kb_path:written(Path))
        || Path <- [<<"/:stock/*">>, [{if_all, [a, Wildcard]}, Wildcard], [{if_any, [a, b]}]]]
    ++ [?_assertMatch({error, {reserved_path, _}}, kb_path:written_one([{if_all, [bridge, {if_node_exists, true}]}, a])),
        ?_assertMatch({error, {invalid_path, _}}, kb_path:written_one(<<"/:stock/*">>)),
        ?_assertMatch({ok, _}, kb_path:written_one([stock, {if_all, [<<"a">>, {if_payload_version, 1}]}]))].

watched_paths_may_be_relative_test_() ->
    [?_assertEqual({ok, Native}, kb_path:watched(Path))
     || {Path, Native} <- [{<<".">>, [46]}, {<<"../x">>, [94, <<"x">>]}, {<<"/:a/../:b">>, [b]}, {<<"x">>, [46, <<"x">>]},
                           {[94, 94, a], [94, <<"-">>, 94, 94, a]}, {<<"./.././..">>, [94, <<"-">>, 94, 94]}, {<<"./.">>, [46]}, {<<"/">>, []}]]
    ++ [?_assertMatch({error, {_, _}}, kb_path:watched(Path))
        || Path <- [[46, a, 94], [a, {if_data_matches, '_', [], undefined}], [46 | x], 1]].

data_is_bounded_and_holds_no_code_test() ->
    ?assertEqual(ok, kb_validate:data(#{a => [1, {2}]})),
    ?assertMatch({error, {too_large, _}}, kb_validate:data(binary:copy(<<0>>, 1048577))),
    ?assertMatch({error, {invalid_data, _}}, kb_validate:data(#{a => [{x, fun erlang:halt/0}]})).

a_release_is_the_holders_or_nothing_test() ->
    {Public, Private} = crypto:generate_key(ecdh, secp256r1),
    <<4, X:32/binary, Y:32/binary>> = Public,
    Key = iolist_to_binary(["{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"", url(X), "\",\"y\":\"", url(Y), "\"}"]),
    Thumbprint = url(crypto:hash(sha256, ["{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"", url(X),
                                          "\",\"y\":\"", url(Y), "\"}"])),
    Header = iolist_to_binary(
               ["{\"alg\":\"ES256\",\"b64\":false,\"crit\":[\"b64\"],\"ctx\":\"7:gun\",\"dir\":\"n\",\"epk\":\"",
                Thumbprint, "\",\"iat\":1,\"pur\":\"release\",\"rcp\":\"", Thumbprint, "\",\"seq\":7,\"sid\":\"",
                url(<<1:128>>), "\",\"snd\":\"", Thumbprint, "\",\"ttl\":0,\"v\":1}"]),
    Covered = iolist_to_binary([url(Header), ".", url(<<"{}">>), "..", url(<<0:96>>), ".", url(<<1>>), ".",
                                url(<<0:128>>)]),
    Der = crypto:sign(ecdsa, sha256, Covered, [Private, secp256r1]),
    {'ECDSA-Sig-Value', R, S} = public_key:der_decode('ECDSA-Sig-Value', Der),
    Box = <<Covered/binary, ".", (url(<<R:256, S:256>>))/binary>>,
    ?assertMatch({ok, #{epoch := 7, sid := <<1:128>>, snd := Thumbprint}}, kb_box:release(Box, {<<"gun">>, Key})),
    ?assertEqual(error, kb_box:release(Box, {<<"hat">>, Key})),
    ?assertEqual(error, kb_box:key(Key, url(<<0:256>>))),
    [?assertEqual(error, kb_box:release(damage(Box, At), {<<"gun">>, Key}))
     || At <- lists:seq(0, byte_size(Box) - 1, 3)].

damage(Box, At) ->
    <<Head:At/binary, Byte, Tail/binary>> = Box,
    <<Head/binary, (Byte bxor 1), Tail/binary>>.

url(Bytes) ->
    Text = base64:encode(iolist_to_binary(Bytes)),
    lists:foldl(fun({From, To}, Acc) -> binary:replace(Acc, From, To, [global]) end, Text,
                [{<<"+">>, <<"-">>}, {<<"/">>, <<"_">>}, {<<"=">>, <<>>}]).

%% As bridge/jose/credentials/names.py has it.
a_name_is_a_component_of_a_path_test() ->
    [?assert(kb_validate:name(Name))
     || Name <- [<<"ball">>, <<"Grün"/utf8>>, <<"a b">>, <<".gitignore">>, <<"Ann@ruby">>, <<"%2F">>, binary:copy(<<"x">>, 255)]],
    [?assertNot(kb_validate:name(Name))
     || Name <- [<<>>, <<".">>, <<"..">>, <<"a/b">>, <<"a\n">>, <<0>>, <<16#7F>>, <<16#85/utf8>>, <<16#85>>, <<"a", 16#FF>>, <<16#ED, 16#A0, 16#80>>,
                 binary:copy(<<"x">>, 256), ball, "ball"]].

a_name_is_asked_for_wherever_there_is_one_test() ->
    Base = #{entity => <<"ball">>, owner => <<"Ann">>, master => <<"Ann">>, rule => allow, session => <<0:128>>},
    {ok, Base} = kb_validate:request(create_entity, Base),
    [?assertMatch({error, {invalid_request, #{member := Member}}}, kb_validate:request(create_entity, Base#{Member := <<"a/b">>}))
     || Member <- [entity, owner, master]],
    %% An address of a server and a reason are texts.
    Id = binary:copy(<<"i">>, 22),
    ?assertMatch({ok, _}, kb_validate:request(revoke_credential, #{id => Id, reason => <<"lost / stolen">>})).

a_setting_that_is_no_number_is_named_test() ->
    ?assertMatch({ok, #{min_free_mb := 64, join_timeout := 30000}}, kb_config:read()),
    true = os:putenv("KB_MIN_FREE_MB", "64M"),
    try
        ?assertEqual({error, "KB_MIN_FREE_MB must be 0 to 1048576, not 64M"}, kb_config:read())
    after
        os:unsetenv("KB_MIN_FREE_MB")
    end.

an_identity_of_printable_bytes_is_read_back_test() ->
    Identity = #{cluster_id => <<"sixteen letters", 16#e9>>, instance => <<"Zürich"/utf8>>, type => homeserver},
    File = filename:join(filename:basedir(user_cache, "khepri_bridge_tests"), "identity"),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, kb_store:identity_text(Identity)),
    ?assertEqual({ok, [Identity]}, file:consult(File)),
    ok = file:delete(File).
