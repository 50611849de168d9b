%% Enrolments, proofs, revocations and keys: random requests against the decisions alone, and a plain model beside them.
-module(kb_authority_credentials_tests).
-include_lib("eunit/include/eunit.hrl").

-define(START_MS, 1800000000000).

a_name_is_its_first_keys_until_that_key_or_an_operator_says_otherwise_test() ->
    T0 = tree(),
    {_, T1} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), T0),
    {_, T1} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), T1),
    ?assertEqual(name_taken, refused(enrol, enrolment(<<"alice">>, <<"k2">>), T1)),
    ?assertEqual(name_taken, refused(enrol, (enrolment(<<"alice">>, <<"k2">>))#{previous => <<"k3">>}, T1)),
    ?assertEqual(key_taken, refused(enrol, enrolment(<<"bob">>, <<"k1">>), T1)),
    ?assertEqual(key_taken, refused(enrol, (enrolment(<<"alice">>, <<"k1">>))#{role => server}, T1)),
    {_, T2} = ok(enrol, (enrolment(<<"alice">>, <<"k2">>))#{previous => <<"k1">>}, T1),
    ?assertEqual(not_enrolled, refused(authenticate, proof(<<"alice">>, <<"k1">>, <<"p">>, 0), T2)),
    {_, T3} = ok(enrol, (enrolment(<<"alice">>, <<"k3">>))#{operator => true}, T2),
    {#{subject := <<"alice">>, role := player, peer := undefined}, _} =
        ok(authenticate, proof(<<"alice">>, <<"k3">>, <<"p">>, 0), T3).

a_servers_name_is_one_whether_it_joins_by_distribution_or_is_enrolled_test() ->
    {_, Joined} = ok(open_session, opening(<<"b">>, <<"k1">>), tree()),
    AsServer = fun(Key) -> (enrolment(<<"b">>, Key))#{role => server} end,
    ?assertEqual(name_taken, refused(enrol, AsServer(<<"k2">>), Joined)),
    {_, _} = ok(enrol, AsServer(<<"k1">>), Joined),
    {_, Enrolled} = ok(enrol, AsServer(<<"k1">>), tree()),
    ?assertEqual(server_key_mismatch, refused(open_session, opening(<<"b">>, <<"k2">>), Enrolled)),
    {_, _} = ok(open_session, opening(<<"b">>, <<"k1">>), Enrolled).

a_peer_is_told_only_while_it_is_there_test() ->
    {_, T1} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), tree()),
    Asked = fun(Proof) -> (proof(<<"alice">>, <<"k1">>, Proof, 0))#{peer => <<"b">>} end,
    ?assertEqual(no_server, refused(authenticate, Asked(<<"p1">>), T1)),
    {_, T2} = ok(open_session, opening(<<"b">>, <<"k9">>), T1),
    {#{peer := #{server := <<"b">>, thumbprint := <<"k9">>}}, T3} = ok(authenticate, Asked(<<"p1">>), T2),
    ?assertEqual(replayed, refused(authenticate, Asked(<<"p1">>), T3)),
    {_, T4} = ok(revoke_credential, #{id => <<"k9">>, reason => <<"stolen">>, at => ?START_MS}, T3),
    ?assertEqual(no_server, refused(authenticate, Asked(<<"p2">>), T4)).

a_revoked_key_gets_nothing_more_and_its_name_is_free_for_another_test() ->
    {_, T1} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), tree()),
    {#{at := At}, T2} = ok(revoke_credential, #{id => <<"k1">>, reason => <<"lost">>, at => ?START_MS}, T1),
    {#{at := At}, T2} = ok(revoke_credential, #{id => <<"k1">>, reason => <<"again">>, at => ?START_MS + 5}, T2),
    ?assertEqual(revoked, refused(authenticate, proof(<<"alice">>, <<"k1">>, <<"p">>, 0), T2)),
    ?assertEqual(revoked, refused(enrol, enrolment(<<"alice">>, <<"k1">>), T2)),
    ?assertEqual(revoked, refused(enrol, (enrolment(<<"alice">>, <<"k2">>))#{previous => <<"k1">>}, T2)),
    ?assertEqual(name_taken, refused(enrol, enrolment(<<"alice">>, <<"k2">>), T2)),
    {_, _} = ok(enrol, (enrolment(<<"alice">>, <<"k2">>))#{operator => true}, T2).

a_single_certificate_can_be_revoked_test() ->
    {_, T1} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), tree()),
    {_, T2} = ok(revoke_credential, #{id => <<"c">>, reason => <<"lost">>, at => ?START_MS}, T1),
    ?assertEqual(revoked, refused(authenticate, proof(<<"alice">>, <<"k1">>, <<"p">>, 0), T2)),
    {_, _} = ok(authenticate, (proof(<<"alice">>, <<"k1">>, <<"p">>, 0))#{certificate => <<"d">>}, T2).

a_server_whose_key_was_revoked_opens_no_session_until_it_has_another_key_test() ->
    #{session := Session} = Opening = opening(<<"b">>, <<"k1">>),
    {_, T1} = ok(open_session, Opening, tree()),
    {_, T2} = ok(revoke_credential, #{id => <<"k1">>, reason => <<"stolen">>, at => ?START_MS}, T1),
    ?assertMatch(#{revoked := true, session := Session}, maps:get([bridge, servers, <<"b">>], T2)),
    ?assertMatch(#{revoked := true}, maps:get([bridge, sessions, Session], T2)),
    ?assertEqual(revoked, refused(open_session, Opening, T2)),
    %% It may act until its lease is over: nobody takes its name before.
    ?assertEqual(server_key_mismatch, refused(open_session, opening(<<"b">>, <<"k2">>), T2)),
    {_, T3} = ok(close_session, #{session => Session}, T2),
    {_, T4} = ok(open_session, opening(<<"b">>, <<"k2">>), T3),
    ?assertNot(maps:is_key(revoked, maps:get([bridge, servers, <<"b">>], T4))).

what_a_session_holds_is_attested_to_its_own_key_only_test() ->
    #{session := Session} = Opening = opening(<<"b">>, <<"k1">>),
    {_, T1} = ok(open_session, Opening, tree()),
    {#{epoch := Epoch}, T2} = ok(create_entity, #{entity => <<"gun">>, owner => <<"p">>, master => <<"p">>, rule => allow,
                                                  session => Session}, T1),
    Asked = #{session => Session, server => <<"b">>, thumbprint => <<"k1">>, entity => undefined},
    {#{epoch := 0}, T2} = ok(attest, Asked, T2),
    {#{epoch := Epoch}, T2} = ok(attest, Asked#{entity => <<"gun">>}, T2),
    ?assertEqual(no_entity, refused(attest, Asked#{entity => <<"hat">>}, T2)),
    ?assertEqual(no_session, refused(attest, Asked#{thumbprint => <<"k2">>}, T2)),
    ?assertEqual(no_session, refused(attest, Asked#{server => <<"c">>}, T2)),
    {_, T3} = ok(release, #{entity => <<"gun">>, session => Session, epoch => Epoch}, T2),
    ?assertEqual(not_holder, refused(attest, Asked#{entity => <<"gun">>}, T3)),
    {_, T4} = ok(revoke_credential, #{id => <<"k1">>, reason => <<"stolen">>, at => ?START_MS}, T3),
    ?assertEqual(revoked, refused(attest, Asked, T4)).

keys_of_the_instance_go_forward_only_test() ->
    Publish = fun(Kid, State, At, Tree) ->
                  ok(publish_key, #{kid => Kid, key => <<"jwk">>, state => State, at => ?START_MS + At}, Tree)
              end,
    {#{state := current, until := undefined}, T1} = Publish(<<"one">>, current, 0, tree()),
    {#{state := next}, T2} = Publish(<<"two">>, next, 1000, T1),
    {#{state := current}, T3} = Publish(<<"two">>, current, 2000, T2),
    Until = ?START_MS div 1000 + 2 + 90 * 86400,
    ?assertMatch(#{state := retired, until := Until}, maps:get([bridge, keys, <<"one">>], T3)),
    %% A member whose signer is the old one still.
    {#{state := retired}, T3} = Publish(<<"one">>, current, 3000, T3),
    {#{state := current}, T3} = Publish(<<"two">>, next, 3000, T3),
    {_, T4} = ok(revoke_credential, #{id => <<"one">>, reason => <<"stolen">>, at => ?START_MS + 4000}, T3),
    Now = ?START_MS div 1000 + 4,
    ?assertMatch(#{state := revoked, until := Now}, maps:get([bridge, keys, <<"one">>], T4)),
    {#{state := revoked}, T4} = Publish(<<"one">>, current, 5000, T4).

a_players_data_is_written_by_the_operator_or_where_the_player_is_test() ->
    #{session := Session} = Opening = opening(<<"b">>, <<"k1">>),
    {_, T1} = ok(open_session, Opening, tree()),
    Write = fun(By) -> #{player => <<"alice">>, data => <<"{}">>, by => By} end,
    {#{version := 1}, T2} = ok(set_player_data, Write(operator), T1),
    ?assertEqual(not_here, refused(set_player_data, Write(<<"b">>), T2)),
    {_, T3} = ok(enter, #{player => <<"alice">>, session => Session}, T2),
    {#{version := 2}, _} = ok(set_player_data, Write(<<"b">>), T3),
    ?assertEqual(not_here, refused(set_player_data, Write(<<"c">>), T3)),
    %% Nobody is at a server whose session has ended, also once it is back.
    {_, T4} = ok(close_session, #{session => Session}, T3),
    ?assertEqual(not_here, refused(set_player_data, Write(<<"b">>), T4)),
    {_, T5} = ok(open_session, Opening#{session => <<"another session ">>}, T4),
    ?assertEqual(not_here, refused(set_player_data, Write(<<"b">>), T5)).

%% Members whose clocks are minutes apart ask with proofs of any time: none is used twice, and what is kept is bounded.
no_proof_is_used_twice_whatever_the_clocks_say_test_() ->
    {timeout, 60, fun() -> [shown(Seed) || Seed <- lists:seq(1, 30)] end}.

shown(Seed) ->
    _ = rand:seed(exsss, {Seed, 7, 7}),
    {_, Tree} = ok(enrol, enrolment(<<"alice">>, <<"k1">>), tree()),
    lists:foldl(
      fun(Step, {T, Used}) ->
              Late = (rand:uniform(21) - 11) * 60000,
              Issued = Step * 5000 + (rand:uniform(3) - 2) * 45000,
              Proof = <<(rand:uniform(60)):32>>,
              Request = (proof(<<"alice">>, <<"k1">>, Proof, Step * 5000 + Late))#{issued => (?START_MS + Issued) div 1000},
              Identity = {Proof, maps:get(issued, Request) div 60},
              case decide(authenticate, Request, T) of
                  {ok, _, Changes} ->
                      ?assertNot(lists:member(Identity, Used)),
                      After = lists:foldl(fun change/2, T, Changes),
                      #{minutes := Minutes} = maps:get([bridge, proofs], After),
                      ?assertEqual(Minutes, lists:usort([binary_to_integer(M) || [bridge, proofs, M, _] <- maps:keys(After)])),
                      ?assert(length(Minutes) =< 30),
                      {After, [Identity | Used]};
                  {error, {replayed, _}} -> {T, Used}
              end
      end, {Tree, []}, lists:seq(1, 300)).

tree() ->
    #{[bridge, grants] => #{incarnation => 1, counter => 0}, [bridge, identity] => #{instance => <<"local">>}}.

enrolment(Subject, Key) ->
    #{subject => Subject, role => player, key => <<"jwk">>, thumbprint => Key, certificate => <<"c">>, expires => 9,
      previous => undefined, operator => false, at => ?START_MS}.

proof(Subject, Key, Proof, At) ->
    #{subject => Subject, role => player, thumbprint => Key, certificate => <<"c">>, proof => Proof,
      issued => (?START_MS + At) div 1000, peer => undefined, at => ?START_MS + At}.

opening(Server, Key) ->
    #{server => Server, session => <<Key/binary, "session">>, key => <<"jwk">>, thumbprint => Key,
      address => {<<"h">>, 1}, lease_ms => 3000}.

ok(Function, Request, Tree) ->
    {ok, Value, Changes} = decide(Function, Request, Tree),
    {Value, lists:foldl(fun change/2, Tree, Changes)}.

refused(Function, Request, Tree) ->
    {error, {Reason, #{message := _}}} = decide(Function, Request, Tree),
    Reason.

decide(Function, Request, Tree) ->
    kb_authority:decide(Function, Request, fun(Path) -> maps:get(Path, Tree, undefined) end,
                        fun(Path) -> [Data || {Found, Data} <- lists:sort(maps:to_list(Tree)),
                                              length(Found) =:= length(Path) + 1, lists:prefix(Path, Found)]
                        end).

change({put, Path, Data}, Tree) -> Tree#{Path => Data};
change({delete, Path}, Tree) -> maps:filter(fun(Found, _) -> not lists:prefix(Path, Found) end, Tree).
