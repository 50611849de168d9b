%% One homeserver inside the test node: what reaches the store, and that the store lives after it.
-module(kb_node_SUITE).
-include_lib("stdlib/include/assert.hrl").
-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([poison_is_refused_and_the_store_lives_and_starts_again/1, an_operation_id_is_applied_once/1,
         the_feed_takes_up_where_it_stopped/1, authority_moves_by_push_and_pull/1,
         a_claim_needs_the_holders_release_and_takes_it_once/1, a_master_is_asked_and_answers_once/1,
         requests_of_players_are_checked_before_the_log/1,
         a_subscriber_is_told_of_history_that_is_gone/1, clients_are_bounded/1]).

-define(STORE, homeserver).
-define(WAIT, #{timeout => 5000}).

all() ->
    [poison_is_refused_and_the_store_lives_and_starts_again, an_operation_id_is_applied_once,
     the_feed_takes_up_where_it_stopped, authority_moves_by_push_and_pull,
     a_claim_needs_the_holders_release_and_takes_it_once, a_master_is_asked_and_answers_once,
     requests_of_players_are_checked_before_the_log,
     a_subscriber_is_told_of_history_that_is_gone, clients_are_bounded].

init_per_suite(Config) ->
    true = os:putenv("KB_DATA_DIR", filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING)),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    Config.

end_per_suite(_) ->
    %% Ra goes too: the next suite has its data elsewhere.
    [ok = application:stop(Application) || Application <- [khepri_bridge, khepri, ra]].

poison_is_refused_and_the_store_lives_and_starts_again(_) ->
    Data = {if_data_matches, '_', [], undefined},
    Put = fun(Condition) -> [{put, <<"/:s/a">>, 1, #{keep_while => #{<<"/:s">> => Condition}}}] end,
    [?assertMatch({error, {poison, _}}, kb_khepri:transaction(?STORE, Put(Condition), op(Number), ?WAIT))
     || {Number, Condition} <- lists:enumerate([Data, {if_not, Data}, {if_any, [{if_node_exists, true}, Data]},
                                                {if_all, x}])],
    Bad = {if_data_matches, '_', [{no_such_guard, 1}], undefined},
    [?assertMatch({error, {poison, _}}, Call())
     || Call <- [fun() -> kb_khepri:put(?STORE, [s, Bad], 1, ?WAIT) end,
                 fun() -> kb_khepri:delete(?STORE, [s, Bad], ?WAIT) end,
                 fun() -> kb_khepri:get(?STORE, [s, Bad], #{}) end,
                 fun() -> kb_khepri:get_many(?STORE, [s, Bad], #{}) end]],
    ?assertMatch({error, {invalid_data, _}}, kb_khepri:put(?STORE, <<"/:s/f">>, fun() -> ok end, ?WAIT)),
    [?assertMatch({error, {_, #{message := _}}}, apply(kb_api, Function, Arguments))
     || {Function, Arguments} <- [{subscribe, [?STORE, x]}, {pull, [?STORE, #{}, op(99)]}, {health, [1]},
                                  {acknowledge, [1, 2, 3]}, {servers, [no_such_store]}, {entity, [?STORE, 1]}]],
    ?assertEqual({ok, #{}}, kb_khepri:put(?STORE, <<"/:s/a">>, 2, ?WAIT)),
    ?assertEqual({ok, #{data => 2}}, kb_khepri:get(?STORE, <<"/:s/a">>, #{favor => consistency})),
    %% What had reached the log in spite of all this would now be applied again.
    ok = application:stop(khepri_bridge),
    ?assertMatch({error, {store_not_running, _}}, kb_khepri:put(?STORE, <<"/:s/a">>, 3, ?WAIT)),
    {ok, _} = application:ensure_all_started(khepri_bridge),
    ?assertEqual({ok, #{data => 2}}, kb_khepri:get(?STORE, <<"/:s/a">>, #{favor => consistency})),
    ?assertEqual({ok, #{}}, kb_khepri:put(?STORE, <<"/:s/a">>, 3, ?WAIT)),
    ?assertEqual({ok, #{data => 3}}, kb_khepri:get(?STORE, <<"/:s/a">>, #{favor => consistency})).

an_operation_id_is_applied_once(_) ->
    Id = {<<"once">>, 1, 1, 0},
    Failing = {<<"once">>, 1, 2, 0},
    Create = [{create, <<"/:once">>, 1}],
    ?assertEqual({ok, [ok]}, kb_khepri:transaction(?STORE, Create, Id, ?WAIT)),
    ?assertEqual({ok, [ok]}, kb_khepri:transaction(?STORE, Create, Id, ?WAIT)),
    {error, {mismatching_node, #{index := 0}}} = Refused = kb_khepri:transaction(?STORE, Create, Failing, ?WAIT),
    {ok, #{}} = kb_khepri:delete(?STORE, <<"/:once">>, ?WAIT),
    ?assertEqual(Refused, kb_khepri:transaction(?STORE, Create, Failing, ?WAIT)),
    [{ok, [ok]} = kb_khepri:transaction(?STORE, [{put, <<"/:n">>, N}], {<<"once">>, 1, N, 0}, ?WAIT)
     || N <- lists:seq(3, 300)],
    ?assertMatch({error, {outcome_unknown, _}}, kb_khepri:transaction(?STORE, Create, Id, ?WAIT)),
    {ok, [ok]} = kb_khepri:transaction(?STORE, [{put, <<"/:n">>, 0}], {<<"once">>, 2, 1, 0}, ?WAIT),
    ?assertMatch({error, {outcome_unknown, _}},
                 kb_khepri:transaction(?STORE, Create, {<<"once">>, 1, 400, 0}, ?WAIT)),
    %% What was answered is forgotten, whether the mark rises by one or by many.
    Low = fun(Sequence, LowWater) ->
                  {ok, [ok]} = kb_khepri:transaction(?STORE, [{put, <<"/:n">>, Sequence}], {<<"low">>, 1, Sequence, LowWater},
                                                     ?WAIT),
                  {ok, #{data := #{low_water := Mark, results := Results}}} =
                      kb_khepri:get(?STORE, <<"/:bridge/:clients/low">>, #{}),
                  {Mark, lists:sort(maps:keys(Results))}
          end,
    ?assertEqual([{0, [1]}, {0, [1, 2]}, {1, [2, 3]}, {1, [2, 3, 7]}, {6, [7, 8]}, {6, [7, 8, 9]}, {999, [1000]}],
                 [Low(Sequence, LowWater) || {Sequence, LowWater} <- [{1, 0}, {2, 0}, {3, 1}, {7, 0}, {8, 6}, {9, 5}, {1000, 999}]]),
    ?assertMatch({error, {outcome_unknown, _}},
                 kb_khepri:transaction(?STORE, Create, {<<"low">>, 1, 999, 0}, ?WAIT)).

the_feed_takes_up_where_it_stopped(_) ->
    {ok, _} = kb_khepri:put(?STORE, <<"/:feed/a">>, 1, ?WAIT),
    Request = #{pid => self(), patterns => [<<"/:feed">>], window => 2},
    {ok, #{subscription := Ref, cursor := {Run, _} = Cursor, mode := snapshot, nodes := Nodes}} =
        kb_api:subscribe(?STORE, Request),
    ?assertEqual([{[feed], undefined}, {[feed, <<"a">>], 1}], Nodes),
    [{ok, _} = kb_khepri:put(?STORE, <<"/:feed/a">>, N, ?WAIT) || N <- [2, 3, 4]],
    [{_, _, _, 2}, {Second, _, _, 3}] = changes(Ref, 2),
    ?assertEqual(none, receive {kb_feed, Ref, _} = Early -> Early after 0 -> none end),
    {ok, _} = kb_api:acknowledge(Ref, Second, self()),
    [{_, created_or_updated, [feed, <<"a">>], 4}] = changes(Ref, 1),
    {ok, #{subscription := Again, mode := resumed}} =
        kb_api:subscribe(?STORE, Request#{since => {Run, Second}}),
    [{_, _, _, 4}] = changes(Again, 1),
    {ok, #{mode := snapshot}} = kb_api:subscribe(?STORE, Request#{since => {<<0:64>>, element(2, Cursor)}}),
    %% Every level once, and deep nodes that go with the one above them.
    {ok, #{subscription := All}} = kb_api:subscribe(?STORE, Request#{patterns => [<<"/:top">>], window => 9}),
    [{ok, _} = kb_khepri:put(?STORE, Path, 1, ?WAIT) || Path <- [<<"/:top">>, <<"/:top/a/b/c">>]],
    {ok, _} = kb_khepri:delete(?STORE, <<"/:top">>, ?WAIT),
    [{_, created_or_updated, [top], 1}, {_, created_or_updated, [top, <<"a">>, <<"b">>, <<"c">>], 1} | Gone] =
        changes(All, 4),
    ?assertEqual([[top], [top, <<"a">>, <<"b">>, <<"c">>]], lists:sort([Path || {_, deleted, Path} <- Gone])).

changes(_, 0) -> [];
changes(Ref, Count) ->
    receive {kb_feed, Ref, Batch} -> Batch ++ changes(Ref, Count - length(Batch)) after 5000 -> error(no_change) end.

a_master_is_asked_and_answers_once(_) ->
    #{session := Session} = Server = server(<<"R">>),
    {ok, _} = kb_api:open_session(?STORE, Server, op(300)),
    {ok, #{epoch := Epoch}} = kb_api:create_entity(?STORE, #{entity => <<"r">>, owner => <<"ann">>, master => <<"ann">>,
                                                             rule => ask, session => Session}, op(301)),
    {ok, _} = kb_api:enter(?STORE, #{player => <<"bob">>, session => Session}, op(302)),
    Request = #{entity => <<"r">>, player => <<"bob">>, session => Session, owner => <<"ann">>, epoch => Epoch,
                authority => false, ttl => 60000},
    {error, {master_away, _}} = kb_api:request(?STORE, Request, op(303)),
    {ok, _} = kb_api:enter(?STORE, #{player => <<"ann">>, session => Session}, op(304)),
    {ok, #{outcome := pending}} = kb_api:request(?STORE, Request, op(305)),
    {ok, #{data := #{type := ask}}} = kb_khepri:get(?STORE, [bridge, inbox, Session, asks, <<"r">>, <<"bob">>], #{}),
    Answer = #{entity => <<"r">>, player => <<"bob">>, grant => true},
    {error, {not_master, #{master := <<"ann">>}}} = kb_api:answer(?STORE, Answer#{by => <<"bob">>}, op(306)),
    {ok, #{outcome := granted, owner := <<"bob">>, session := Session, epoch := Epoch}} = Granted =
        kb_api:answer(?STORE, Answer#{by => <<"ann">>}, op(307)),
    %% Repeated because its answer was lost, it is the same answer; sent anew, there is nothing to answer.
    ?assertEqual(Granted, kb_api:answer(?STORE, Answer#{by => <<"ann">>}, op(307))),
    {error, {no_ask, _}} = kb_api:answer(?STORE, Answer#{by => <<"ann">>}, op(308)),
    {ok, #{passed := [<<"r">>], next := undefined}} =
        kb_api:leave(?STORE, #{player => <<"bob">>, session => Session, bucket => 0}, op(309)),
    {ok, #{owner := <<"ann">>}} = kb_api:entity(?STORE, <<"r">>),
    {error, {node_not_found, _}} = kb_khepri:get(?STORE, [bridge, asks, <<"ann">>], #{}),
    {ok, #{data := #{answer := #{not_master := 1}}}} = kb_khepri:get(?STORE, [bridge, refusals], #{}),
    {ok, _} = kb_api:close_session(?STORE, #{session => Session}, op(310)).

requests_of_players_are_checked_before_the_log(_) ->
    _ = rand:seed(exsss, {3, 1, 4}),
    Members = #{entity => <<"e">>, player => <<"p">>, session => <<0:128>>, owner => <<"o">>, epoch => 1,
                authority => true, ttl => 1000, by => operator, grant => true, rule => ask, master => <<"m">>,
                default_owner => undefined, to => <<"q">>, bucket => 0},
    Functions = [{enter, [player, session]}, {leave, [player, session, bucket]},
                 {request, [entity, player, session, owner, epoch, authority, ttl]}, {answer, [entity, player, by, grant]},
                 {withdraw, [entity, player]}, {set_rule, [entity, by, rule]}, {set_master, [entity, by, master]},
                 {set_default_owner, [entity, by, default_owner]}, {transfer, [entity, by, to]}, {revoke, [entity, by]}],
    [begin
         ?assertMatch({error, {invalid_request, #{member := Member}}},
                      kb_api:Function(?STORE, maps:remove(Member, Members), op(400))),
         [?assertMatch({error, {invalid_request, #{member := Member}}},
                       kb_api:Function(?STORE, Members#{Member => Bad}, op(400)))
          || Bad <- [[], {a}, -1, 1 bsl 64, <<>>, <<0:2048>>, 1.5, perhaps]],
         _ = kb_api:Function(?STORE, kb_random_terms:any(), kb_random_terms:any())
     end || {Function, Wanted} <- Functions, Member <- Wanted],
    {ok, true} = kb_api:supports(rules),
    ?assertMatch({ok, _}, kb_khepri:fence(?STORE, ?WAIT)).

a_subscriber_is_told_of_history_that_is_gone(_) ->
    {ok, _} = kb_khepri:put(?STORE, <<"/:gap/a">>, 0, ?WAIT),
    Request = #{pid => self(), patterns => [<<"/:gap">>], window => 1},
    {ok, #{subscription := First, cursor := {Run, _} = Cursor}} = kb_api:subscribe(?STORE, Request),
    ok = application:set_env(khepri_bridge, feed_ring, 10),
    %% The feed dies: its subscribers hear of it, and their cursors are of no use to the next one.
    exit(whereis(kb_feed), kill),
    receive {kb_feed_gap, First} -> ok after 5000 -> error(not_told) end,
    {ok, #{subscription := Second, cursor := {Other, Sequence}, mode := snapshot}} =
        kb_api:subscribe(?STORE, Request#{since => Cursor}),
    ?assertNotEqual(Run, Other),
    %% The first change fills the window; the ring passes over the others.
    [{ok, _} = kb_khepri:put(?STORE, <<"/:gap/a">>, N, ?WAIT) || N <- lists:seq(1, 20)],
    [{_, _, _, 1}] = changes(Second, 1),
    receive {kb_feed_gap, Second} -> ok after 5000 -> error(not_told) end,
    {ok, #{mode := snapshot, nodes := Nodes}} =
        kb_api:subscribe(?STORE, Request#{since => {Other, Sequence + 1}}),
    ?assertEqual([{[gap], undefined}, {[gap, <<"a">>], 20}], Nodes),
    ok = application:set_env(khepri_bridge, feed_ring, 20000),
    exit(whereis(kb_feed), kill).

clients_are_bounded(_) ->
    Touch = fun(Name, Sequence) ->
                    {ok, [ok]} = kb_khepri:transaction(?STORE, [{put, <<"/:t">>, 1}], {Name, 1, Sequence, 0},
                                                    #{timeout => 20000})
            end,
    Touch(<<"idle">>, 1),
    Touch(<<"busy">>, 1),
    Names = [integer_to_binary(N) || N <- lists:seq(1, 4100)],
    {Before, After} = lists:split(2000, Names),
    in_parallel(fun(Name) -> Touch(Name, 1) end, Before),
    Touch(<<"busy">>, 2),
    in_parallel(fun(Name) -> Touch(Name, 1) end, After),
    {ok, Clients} = kb_khepri:get_many(?STORE, <<"/:bridge/:clients/*">>, #{timeout => 20000}),
    ?assert(map_size(Clients) =< 4096),
    ?assertNot(is_map_key([bridge, clients, <<"idle">>], Clients)),
    ?assert(is_map_key([bridge, clients, <<"busy">>], Clients)),
    {ok, #{data := #{kept := Kept}}} = kb_khepri:get(?STORE, <<"/:bridge/:client_counts">>, #{}),
    ?assertEqual(map_size(Clients), Kept).

in_parallel(Fun, List) ->
    Workers = [spawn_monitor(fun() -> lists:foreach(Fun, Part) end) || Part <- parts(List)],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end
     || {Pid, Monitor} <- Workers].

parts([]) -> [];
parts(List) ->
    {Part, Rest} = lists:split(min(100, length(List)), List),
    [Part | parts(Rest)].

authority_moves_by_push_and_pull(_) ->
    #{session := A} = RequestA = server(<<"A">>),
    #{session := B} = RequestB = server(<<"B">>),
    {ok, #{held := []}} = kb_api:open_session(?STORE, RequestA, op(200)),
    {ok, #{held := []}} = kb_api:open_session(?STORE, RequestB, op(201)),
    {error, {server_key_mismatch, _}} = kb_api:open_session(?STORE, server(<<"A">>), op(202)),
    {ok, #{epoch := E1}} = kb_api:create_entity(?STORE, #{entity => <<"e">>, owner => <<"p">>, master => <<"p">>,
                                                          rule => allow, session => A}, op(203)),
    Step = #{trace => <<7:128>>, hop => 0},
    {ok, #{epoch := E2, session := B, hop := 1}} =
        kb_api:push(?STORE, Step#{entity => <<"e">>, owner => <<"q">>, to => <<"B">>, box => <<"x">>,
                                  session => A, epoch => E1}, op(204)),
    Pull = Step#{entity => <<"e">>, owner => <<"p">>, session => A},
    {error, {conflict, #{winner := <<"B">>}}} = kb_api:pull(?STORE, Pull#{epoch => E1}, op(205)),
    {ok, #{epoch := E3, awaiting := #{session := B, epoch := E2}}} =
        kb_api:pull(?STORE, Pull#{epoch => E2}, op(206)),
    ?assert(E1 < E2 andalso E2 < E3),
    {error, {not_holder, _}} = kb_api:release(?STORE, #{entity => <<"e">>, session => B, epoch => E2}, op(207)),
    {ok, #{data := #{type := recall, epoch := E2, granted := E3, unread := #{type := grant}}}} =
        kb_khepri:get(?STORE, [bridge, inbox, B, <<"e">>], #{}),
    {ok, #{released := [<<"e">>]}} = kb_api:close_session(?STORE, #{session => A}, op(208)),
    {ok, #{session := undefined}} = kb_api:entity(?STORE, <<"e">>).

a_claim_needs_the_holders_release_and_takes_it_once(_) ->
    {#{session := C, thumbprint := SenderPrint} = RequestC, Private} = server_and_key(<<"C">>),
    #{session := D, thumbprint := RecipientPrint} = RequestD = server(<<"D">>),
    {ok, _} = kb_api:open_session(?STORE, RequestC, op(250)),
    {ok, _} = kb_api:open_session(?STORE, RequestD, op(251)),
    {ok, #{epoch := Epoch}} = kb_api:create_entity(?STORE, #{entity => <<"f">>, owner => <<"p">>, master => <<"p">>,
                                                             rule => deny, session => C}, op(252)),
    Sign = fun(Session, Number, Recipient) ->
                   box([{ctx, [integer_to_binary(Number), ":f"]}, {sid, url(Session)}, {snd, SenderPrint},
                        {rcp, Recipient}, {epk, SenderPrint}], Number, Private)
           end,
    Claim = fun(Box) -> #{entity => <<"f">>, session => D, owner => <<"q">>, box => Box} end,
    [?assertMatch({error, {Reason, _}}, kb_api:claim(?STORE, Claim(Box), op(Number)))
     || {Number, Reason, Box} <- [{253, bad_release, <<"x">>}, {254, bad_release, Sign(D, Epoch, RecipientPrint)},
                                  {255, not_holder, Sign(C, Epoch - 1, RecipientPrint)},
                                  {256, bad_release, Sign(C, Epoch, SenderPrint)}]],
    Box = Sign(C, Epoch, RecipientPrint),
    {ok, #{session := D, owner := <<"q">>, awaiting := undefined, epoch := Next}} =
        kb_api:claim(?STORE, Claim(Box), op(257)),
    ?assert(Next > Epoch),
    {error, {not_holder, _}} = kb_api:claim(?STORE, Claim(Box), op(258)).

box(Texts, Epoch, Private) ->
    Header = ["{\"alg\":\"ES256\",\"b64\":false,\"crit\":[\"b64\"],\"v\":1,\"iat\":1,\"ttl\":0,\"dir\":\"n\",",
              [["\"", atom_to_list(Name), "\":\"", Text, "\","] || {Name, Text} <- Texts],
              "\"pur\":\"release\",\"seq\":", integer_to_binary(Epoch), "}"],
    Covered = iolist_to_binary([url(iolist_to_binary(Header)), ".", url(<<"{}">>), "..", url(<<0:96>>), ".",
                                url(<<1>>), ".", url(<<0:128>>)]),
    Der = crypto:sign(ecdsa, sha256, Covered, [Private, secp256r1]),
    {'ECDSA-Sig-Value', R, S} = public_key:der_decode('ECDSA-Sig-Value', Der),
    <<Covered/binary, ".", (url(<<R:256, S:256>>))/binary>>.

server(Name) ->
    {Request, _} = server_and_key(Name),
    Request.

server_and_key(Name) ->
    {<<4, X:32/binary, Y:32/binary>>, Private} = crypto:generate_key(ecdh, secp256r1),
    Key = iolist_to_binary(["{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"", url(X), "\",\"y\":\"", url(Y), "\"}"]),
    {#{server => Name, session => crypto:strong_rand_bytes(16), key => Key,
       thumbprint => url(crypto:hash(sha256, Key)), address => {<<"127.0.0.1">>, 4000}}, Private}.

url(Bytes) ->
    lists:foldl(fun({From, To}, Acc) -> binary:replace(Acc, From, To, [global]) end, base64:encode(Bytes),
                [{<<"+">>, <<"-">>}, {<<"/">>, <<"_">>}, {<<"=">>, <<>>}]).

op(Sequence) -> {<<"suite">>, 1, Sequence, 0}.
