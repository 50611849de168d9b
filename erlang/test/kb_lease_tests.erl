%% Each sentence of docs/leases.md about the lessor, with literal times; then random runs of servers, lessors and messages
%% against the one thing that counts: who expires has no lease left.
-module(kb_lease_tests).
-include_lib("eunit/include/eunit.hrl").

-define(L, 3000).
-define(COUNTDOWN, 3060).
-define(A, <<"a">>).
-define(B, <<"b">>).
-define(C, <<"c">>).
%% Of a session that nobody has to renew here.
-define(LONG, 3600000).

a_countdown_is_the_lease_and_two_percent_test() ->
    ?assertEqual([510, 3060, 3672000], [kb_lease:countdown(Lease) || Lease <- [500, 3000, 3600000]]),
    ?assertEqual(512, kb_lease:countdown(501)).

a_session_that_never_renews_expires_when_its_countdown_is_over_test() ->
    Lease = kb_lease:open(?A, ?L, 0, kb_lease:new(0)),
    {[], Before} = ticks(0, ?COUNTDOWN - 1, Lease),
    ?assertMatch({[?A], _}, kb_lease:tick(?COUNTDOWN, Before)).

a_countdown_starts_when_the_lessor_first_sees_the_session_test() ->
    {[], Later} = ticks(0, 5000, kb_lease:new(0)),
    Seen = kb_lease:open(?A, ?L, 5000, Later),
    %% Told of again, it is the same session.
    {[], Again} = ticks(5000, 7000, Seen),
    {[], Before} = ticks(7000, 5000 + ?COUNTDOWN - 1, kb_lease:open(?A, ?L, 7000, Again)),
    ?assertMatch({[?A], _}, kb_lease:tick(5000 + ?COUNTDOWN, Before)).

a_session_keeps_the_lease_that_it_was_opened_with_test() ->
    Lease = kb_lease:open(?B, 500, 0, kb_lease:open(?A, ?L, 0, kb_lease:new(0))),
    ?assertMatch({[?B], _}, ticks(0, 510, Lease)).

a_beat_acknowledges_what_was_collected_before_it_was_submitted_test() ->
    Renewed = renew(?A, 1, 10, opened()),
    {submit, [], Submitted} = kb_lease:beat(50, Renewed),
    Later = renew(?A, 2, 55, Submitted),
    {[{_, ?A, 1, []}], [], Committed} = kb_lease:committed([], 60, Later),
    %% The one that came in meanwhile is the next one's, and that one waits for its time.
    {wait, Waiting} = kb_lease:beat(99, Committed),
    {submit, [], Second} = kb_lease:beat(100, Waiting),
    ?assertMatch({[{_, ?A, 2, []}], [], _}, kb_lease:committed([], 110, Second)).

one_beat_is_under_way_at_a_time_and_none_when_nobody_renews_test() ->
    {wait, Idle} = kb_lease:beat(50, opened()),
    {submit, [], Submitted} = kb_lease:beat(60, renew(?A, 1, 55, Idle)),
    ?assertMatch({wait, _}, kb_lease:beat(500, renew(?A, 2, 100, Submitted))).

countdowns_start_again_from_the_submission_of_the_beat_test() ->
    {[], At1000} = ticks(0, 1000, opened()),
    {submit, [], Submitted} = kb_lease:beat(1000, renew(?A, 1, 900, At1000)),
    {[], At2000} = ticks(1000, 2000, Submitted),
    {[_], [], Committed} = kb_lease:committed([], 2000, At2000),
    {[?B], AfterB} = ticks(2000, ?COUNTDOWN, Committed),
    {[], Before} = ticks(?COUNTDOWN, 1000 + ?COUNTDOWN - 1, AfterB),
    ?assertMatch({[?A], _}, kb_lease:tick(1000 + ?COUNTDOWN, Before)).

a_number_counts_once_and_only_if_it_is_higher_test() ->
    Renewed = acknowledged(?A, 5, 100, opened()),
    ?assertMatch({wait, _}, kb_lease:beat(200, renew(?A, 5, 150, Renewed))),
    ?assertMatch({wait, _}, kb_lease:beat(200, renew(?A, 4, 150, Renewed))),
    {submit, [], Submitted} = kb_lease:beat(200, renew(?A, 7, 160, renew(?A, 9, 150, Renewed))),
    ?assertMatch({[{_, ?A, 9, []}], [], _}, kb_lease:committed([], 210, Submitted)).

a_renewal_that_comes_late_is_acknowledged_as_the_old_one_that_it_is_test() ->
    %% The server counts from when it sent this number: nothing here makes it newer.
    {[], At2500} = ticks(0, 2500, opened()),
    {submit, [], Submitted} = kb_lease:beat(2500, renew(?A, 1, 2490, At2500)),
    ?assertMatch({[{_, ?A, 1, []}], [], _}, kb_lease:committed([], 2510, Submitted)).

a_beat_of_unknown_outcome_acknowledges_nothing_and_is_made_again_test() ->
    {submit, [], Submitted} = kb_lease:beat(50, renew(?B, 3, 20, renew(?A, 1, 10, opened()))),
    Unknown = kb_lease:uncommitted(renew(?A, 2, 60, Submitted)),
    {submit, [], Again} = kb_lease:beat(100, Unknown),
    {Acknowledged, [], _} = kb_lease:committed([], 110, Again),
    ?assertEqual([{?A, 2}, {?B, 3}], lists:sort([{Id, Number} || {_, Id, Number, _} <- Acknowledged])).

an_expiry_once_sent_is_never_acknowledged_again_test() ->
    {submit, [], Submitted} = kb_lease:beat(50, renew(?A, 1, 10, opened())),
    {[?A], Expiring} = ticks(50, 50 + ?COUNTDOWN, kb_lease:ended(?B, Submitted)),
    %% Its beat commits at last, another renewal comes, and nobody knows what became of the expiry.
    {[], [], Committed} = kb_lease:committed([], 3200, renew(?A, 2, 3150, Expiring)),
    ?assertMatch({wait, _}, kb_lease:beat(3250, Committed)),
    Unknown = kb_lease:unexpired(?A, renew(?A, 3, 3260, Committed)),
    ?assertMatch({wait, _}, kb_lease:beat(3300, Unknown)),
    ?assertMatch({[?A], _}, kb_lease:tick(3300, Unknown)).

a_session_that_somebody_ends_is_not_acknowledged_any_more_test() ->
    Closing = kb_lease:silence(?A, closing, renew(?A, 1, 10, opened())),
    {submit, [], Submitted} = kb_lease:beat(50, Closing),
    {[], [], Committed} = kb_lease:committed([], 60, renew(?A, 2, 55, Submitted)),
    ?assertMatch({wait, _}, kb_lease:beat(150, Committed)),
    %% Should its end not reach the tree, the countdown does.
    ?assertMatch({[?A, ?B], _}, ticks(60, ?COUNTDOWN, Committed)).

a_tick_that_comes_late_starts_all_countdowns_again_test() ->
    {[], Asleep} = ticks(0, 2000, opened()),
    {[], Awake} = kb_lease:tick(2000 + 301, Asleep),
    {[], Before} = ticks(2301, 2301 + ?COUNTDOWN - 1, Awake),
    ?assertMatch({[?A, ?B], _}, kb_lease:tick(2301 + ?COUNTDOWN, Before)),
    ?assertMatch(#{restarts := 1}, kb_lease:statistics(Before)).

a_tick_just_in_time_starts_nothing_again_test() ->
    {[], At2800} = ticks(0, 2800, opened()),
    ?assertMatch({[?A, ?B], _}, kb_lease:tick(3060, element(2, kb_lease:tick(3000, At2800)))).

a_renewal_that_is_read_before_a_late_tick_is_late_as_well_test() ->
    %% Of one step for more than a second: but it was the lessor that stood still.
    {[], At600} = ticks(0, 600, renew(?A, 1, 100, 7, opened())),
    Third = renew(?A, 3, 5000, 7, renew(?A, 2, 600, 7, At600)),
    ?assertMatch(#{silent := 0, restarts := 1}, kb_lease:statistics(Third)),
    ?assertMatch({[], _}, kb_lease:tick(5010, Third)).

a_simulation_that_stands_still_for_a_second_is_not_acknowledged_any_more_and_expires_later_test() ->
    Still = lists:foldl(fun(Number, Lease) -> acknowledged(?A, Number, 7, Number * 250, Lease) end, opened(), lists:seq(1, 4)),
    %% At 250 for the first time; the fourth at 1000.
    Hung = renew(?A, 5, 1250, 7, Still),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(Hung)),
    ?assertMatch({wait, _}, kb_lease:beat(1300, renew(?A, 6, 1290, 8, Hung))),
    {[?B], AfterB} = ticks(1000, ?COUNTDOWN, Hung),
    {[], Before} = ticks(?COUNTDOWN, 1000 + ?COUNTDOWN - 1, AfterB),
    ?assertMatch({[?A], _}, kb_lease:tick(1000 + ?COUNTDOWN, Before)).

a_server_that_was_itself_stopped_is_not_taken_for_hung_test() ->
    %% The renewal that was due goes out before the simulation's next step.
    {[], At2100} = ticks(0, 2100, renew(?A, 1, 10, 7, opened())),
    Twice = renew(?A, 2, 2100, 7, At2100),
    ?assertMatch(#{silent := 0}, kb_lease:statistics(renew(?A, 3, 2200, 8, Twice))),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(renew(?A, 3, 2200, 7, Twice))).

open_recalls_are_named_until_they_are_obeyed_test() ->
    Recalled = kb_lease:recall(?A, <<"gun">>, 7, ?B, opened()),
    {[{_, ?A, 1, [{<<"gun">>, 7}]}], Named} = acknowledgements(?A, 1, 100, [], Recalled),
    {[{_, ?A, 2, [{<<"gun">>, 7}]}], Other} = acknowledgements(?A, 2, 200, [{<<"gun">>, 6}, {<<"hat">>, 7}], Named),
    {[{_, ?A, 3, []}], Obeyed} = acknowledgements(?A, 3, 300, [{<<"gun">>, 7}], Other),
    %% The same one again, for another taker.
    {[{_, ?A, 4, [{<<"gun">>, 7}]}], _} = acknowledgements(?A, 4, 400, [], kb_lease:recall(?A, <<"gun">>, 7, ?B, Obeyed)).

a_recall_not_obeyed_for_a_lease_silences_the_lessor_and_ends_the_session_later_test() ->
    Recalled = kb_lease:recall(?A, <<"gun">>, 7, ?C, kb_lease:open(?C, ?LONG, 0, kb_lease:ended(?B, opened()))),
    Renewed = steadily([?A], 500, 3500, Recalled),
    %% Named at 510 for the first time.
    ?assertMatch(#{silent := 0}, kb_lease:statistics(Renewed)),
    {[], Unwilling} = kb_lease:tick(3511, Renewed),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(Unwilling)),
    {[], Before} = ticks(3511, 3500 + ?COUNTDOWN - 1, Unwilling),
    ?assertMatch({[?A], _}, kb_lease:tick(3500 + ?COUNTDOWN, Before)).

who_waits_for_an_older_release_is_not_blamed_test() ->
    %% B has to wait for A, whose recall was first.
    Both = kb_lease:recall(?B, <<"gun">>, 8, ?C, kb_lease:recall(?A, <<"gun">>, 7, ?B, kb_lease:open(?C, ?LONG, 0, opened()))),
    Renewed = steadily([?A, ?B], 500, 3500, Both),
    {[], Blamed} = kb_lease:tick(3520, Renewed),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(Blamed)),
    ?assertMatch({[{_, ?B, 3600, [{<<"gun">>, 8}]}], _}, acknowledgements(?B, 3600, 3600, [], Blamed)),
    %% A's end opens the way: from its last acknowledgement before that, at 3510, B's recall counts.
    {[], At3600} = ticks(3520, 3600, kb_lease:ended(?A, Blamed)),
    Free = steadily([?B], 3600, 6500, At3600),
    ?assertMatch(#{silent := 0}, kb_lease:statistics(Free)),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(element(2, ticks(6500, 6511, Free)))).

nobody_is_blamed_for_a_recall_whose_taker_cannot_take_test_() ->
    Recalled = kb_lease:recall(?A, <<"gun">>, 7, ?C, kb_lease:open(?C, ?LONG, 0, kb_lease:ended(?B, opened()))),
    [{What, fun() ->
                    {[], Later} = ticks(6500, 7000, steadily([?A], 500, 6500, Gone)),
                    ?assertMatch(#{silent := Silent}, kb_lease:statistics(Later)),
                    %% Named still, and obeyed as any other.
                    {[{_, ?A, 7000, Named}], _} = acknowledgements(?A, 7000, 7000, [], Later),
                    ?assertEqual([{<<"gun">>, 7}], Named)
            end}
     || {What, Silent, Gone} <- [{"its session ended", 0, kb_lease:ended(?C, Recalled)},
                                 {"its key was revoked", 1, kb_lease:silence(?C, revoked, Recalled)}]].

a_recall_counts_again_once_another_one_takes_test() ->
    Ended = kb_lease:ended(?C, kb_lease:recall(?A, <<"gun">>, 7, ?C, kb_lease:open(?C, ?LONG, 0, kb_lease:ended(?B, opened())))),
    Next = kb_lease:recall(?A, <<"gun">>, 7, <<"d">>, kb_lease:open(<<"d">>, ?LONG, 3500, steadily([?A], 500, 3500, Ended))),
    %% From the last acknowledgement before that, at 3510.
    {[], At3600} = ticks(3500, 3600, Next),
    Renewed = steadily([?A], 3600, 6500, At3600),
    ?assertMatch(#{silent := 0}, kb_lease:statistics(Renewed)),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(element(2, ticks(6500, 6511, Renewed)))).

a_recall_for_nobody_has_to_be_obeyed_like_any_other_test() ->
    Renewed = steadily([?A], 500, 3500, kb_lease:recall(?A, <<"gun">>, 7, undefined, kb_lease:ended(?B, opened()))),
    ?assertMatch(#{silent := 1}, kb_lease:statistics(element(2, kb_lease:tick(3511, Renewed)))).

a_recall_that_lies_in_the_inbox_no_more_is_forgotten_test() ->
    Recalled = kb_lease:recall(?A, <<"gun">>, 7, ?B, opened()),
    ?assertMatch({[{_, ?A, 1, []}], _}, acknowledgements(?A, 1, 100, [], kb_lease:recall_gone(?A, <<"gun">>, Recalled))),
    ?assertMatch({[{_, ?A, 1, [{<<"gun">>, 9}]}], _},
                 acknowledgements(?A, 1, 100, [], kb_lease:recall(?A, <<"gun">>, 9, ?B, Recalled))).

a_hundred_recalls_are_named_at_once_and_the_same_ones_until_they_are_obeyed_test() ->
    Many = lists:foldl(fun(Number, Lease) -> kb_lease:recall(?A, <<Number:32>>, Number, ?B, Lease) end, opened(), lists:seq(1, 250)),
    {[{_, ?A, 1, First}], Named} = acknowledgements(?A, 1, 100, [], Many),
    ?assertEqual(100, length(First)),
    More = lists:foldl(fun(Number, Lease) -> kb_lease:recall(?A, <<Number:32>>, Number, ?B, Lease) end, Named, lists:seq(251, 300)),
    {[{_, ?A, 2, First}], Again} = acknowledgements(?A, 2, 200, [], More),
    {[{_, ?A, 3, Second}], _} = acknowledgements(?A, 3, 300, First, Again),
    ?assertEqual({100, First}, {length(Second), First -- Second}).

a_stranger_is_looked_for_in_the_tree_test() ->
    %% Its renewal overtook the news of its opening; another one's session has ended.
    {submit, [<<"gone">>, <<"new">>], Submitted} = kb_lease:beat(50, renew(<<"gone">>, 1, 20, renew(<<"new">>, 1, 10, opened()))),
    {[{_, <<"new">>, 1, []}], [{_, <<"gone">>}], Committed} = kb_lease:committed([{<<"new">>, ?L}], 60, Submitted),
    ?assertMatch({[{_, <<"new">>, 2, []}], _}, acknowledgements(<<"new">>, 2, 200, [], Committed)).

strangers_are_bounded_test() ->
    Many = lists:foldl(fun(Number, Lease) -> renew(<<Number:128>>, 1, 10, Lease) end, kb_lease:new(0), lists:seq(1, 2000)),
    {submit, Unknown, _} = kb_lease:beat(50, Many),
    ?assertEqual(1000, length(Unknown)).

a_new_lessor_knows_nothing_and_waits_test() ->
    Tree = #{?A => {?L, #{<<"gun">> => {7, ?B}}}, ?B => {500, #{}}},
    Taken = kb_lease:restated(Tree, 10000, kb_lease:new(10000)),
    {[], Before} = ticks(10000, 10509, Taken),
    ?assertMatch({[?B], _}, kb_lease:tick(10510, Before)),
    ?assertMatch({[{_, ?A, 41, [{<<"gun">>, 7}]}], _}, acknowledgements(?A, 41, 10100, [], Taken)).

what_the_tree_says_anew_keeps_the_countdowns_of_those_that_are_there_still_test() ->
    {[], At2000} = ticks(0, 2000, kb_lease:recall(?A, <<"gun">>, 7, ?B, opened())),
    Restated = kb_lease:restated(#{?A => {?L, #{<<"hat">> => {8, ?C}}}, ?C => {?L, #{}}}, 2000, At2000),
    ?assertMatch(#{sessions := 2}, kb_lease:statistics(Restated)),
    {[?A], _} = ticks(2000, ?COUNTDOWN, Restated),
    ?assertMatch({[{_, ?A, 1, [{<<"hat">>, 8}]}], _}, acknowledgements(?A, 1, 2100, [], Restated)).

not_everybody_expires_at_once_test() ->
    Many = lists:foldl(fun(Number, Lease) -> kb_lease:open(<<Number:128>>, ?L, 0, Lease) end, kb_lease:new(0), lists:seq(1, 40)),
    {First, Expiring} = ticks(0, ?COUNTDOWN, Many),
    ?assertEqual(16, length(First)),
    {[], Full} = kb_lease:tick(?COUNTDOWN + 50, Expiring),
    {[_], _} = kb_lease:tick(?COUNTDOWN + 100, kb_lease:ended(hd(First), Full)).

those_with_the_least_to_do_are_asked_for_successors_test() ->
    Lease = lists:foldl(fun({Id, Load}, Acc) -> kb_lease:renew((renewal(Id, 1, 1, []))#{load := Load}, 10, kb_lease:open(Id, ?L, 0, Acc)) end,
                        kb_lease:new(0), [{<<Load:128>>, Load} || Load <- lists:seq(100, 1, -1)]),
    Routes = kb_lease:routes(<<1:128>>, kb_lease:silence(<<2:128>>, revoked, Lease)),
    ?assertEqual(lists:seq(3, 66), [Load || {_, _, Load} <- Routes]).

%% Random runs. Servers and their clocks, lessors that are deposed and do not know it, messages and transactions that take
%% any time: when an expiry commits, nothing is left of the lease that it ends.

no_lease_is_left_when_an_expiry_commits_test_() ->
    {timeout, 120, fun() ->
                           Expired = lists:sum([run(Seed) || Seed <- lists:seq(1, 400)]),
                           ?assert(Expired > 300)
                   end}.

-record(world, {silence = 0, now = 0, lessors = [], generation = 1, servers, open, mail = [], transactions = [], expired = 0}).
%% `sent' by number; all by the server's own clock, which is slow or not.
-record(server, {number = 0, sent = #{}, until, slow, step = 0}).

run(Seed) ->
    _ = rand:seed(exsss, {Seed, 7, 1}),
    Ids = [?A, ?B],
    Lessor = kb_lease:restated(maps:from_list([{Id, {500, #{}}} || Id <- Ids]), 0, kb_lease:new(0)),
    World = #world{lessors = [{1, Lessor}], open = Ids,
                   servers = maps:from_list([{Id, #server{until = 500, slow = rand:uniform(2) =:= 1}} || Id <- Ids])},
    #world{expired = Expired} = lists:foldl(fun(_, Acc) -> happen(rand:uniform(100), Acc) end, World, lists:seq(1, 400)),
    Expired.

%% What drifts by 2 percent in a lease.
clock(Now, #server{slow = true}) -> Now * 50 div 51;
clock(Now, #server{slow = false}) -> Now.

happen(N, #world{now = Now} = World) when N =< 10 ->
    %% Mail is lost in heaps, or servers would always be heard in time.
    World#world{now = Now + rand:uniform(40), mail = case N of 1 -> []; _ -> World#world.mail end};
happen(N, #world{now = Now} = World) when N =< 30 -> World#world{now = Now + rand:uniform(40)};
happen(31, #world{now = Now} = World) -> World#world{now = Now + 400};
happen(N, #world{now = Now, silence = Until} = World) when N =< 50, Now < Until -> World;
happen(32, #world{now = Now} = World) -> World#world{silence = Now + rand:uniform(1500)};
happen(N, #world{servers = Servers, mail = Mail, now = Now} = World) when N =< 50 ->
    Id = pick(maps:keys(Servers)),
    #{Id := #server{number = Number, sent = Sent, step = Step} = Server} = Servers,
    Next = Server#server{number = Number + 1, sent = Sent#{Number + 1 => clock(Now, Server)}, step = Step + rand:uniform(3) - 1},
    World#world{servers = Servers#{Id := Next}, mail = [{Id, Number + 1, Next#server.step} | Mail]};
happen(N, #world{mail = [_ | _] = Mail, lessors = Lessors, now = Now} = World) when N =< 65 ->
    %% To any lessor, in any order, more than once.
    {Id, Number, Step} = pick(Mail),
    {Generation, Lease} = pick(Lessors),
    World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, renew(Id, Number, Now, Step, Lease)}),
                mail = case rand:uniform(4) of 1 -> Mail; _ -> lists:delete({Id, Number, Step}, Mail) end};
happen(N, #world{lessors = Lessors, now = Now, transactions = Transactions} = World) when N =< 80 ->
    {Generation, Lease} = pick(Lessors),
    {Expired, Ticked} = kb_lease:tick(Now, Lease),
    {Beat, Beaten} = case kb_lease:beat(Now, Ticked) of
                         {submit, Unknown, Submitted} -> {[{beat, Generation, Unknown}], Submitted};
                         {wait, Waiting} -> {[], Waiting}
                     end,
    World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, Beaten}),
                transactions = Beat ++ [{expire, Generation, Id} || Id <- Expired] ++ Transactions};
happen(N, #world{transactions = [_ | _] = Transactions} = World) when N =< 97 ->
    Transaction = pick(Transactions),
    decided(Transaction, World#world{transactions = lists:delete(Transaction, Transactions)});
happen(98, #world{lessors = Lessors, generation = Generation, open = Open, now = Now} = World) when length(Lessors) < 3 ->
    Lessor = kb_lease:restated(maps:from_list([{Id, {500, #{}}} || Id <- Open]), Now, kb_lease:new(Now)),
    World#world{generation = Generation + 1, lessors = [{Generation + 1, Lessor} | Lessors]};
%% The news of an opening, late or never: then a renewal tells of it.
happen(_, #world{lessors = Lessors, open = Open, transactions = Transactions} = World) ->
    World#world{transactions = [{open, element(1, pick(Lessors)), pick(Open)} | Transactions]}.

%% Every transaction of another generation aborts, and its lessor ends.
decided({_, Generation, _}, #world{generation = Current, lessors = Lessors, transactions = Transactions} = World)
  when Generation =/= Current ->
    World#world{lessors = lists:keydelete(Generation, 1, Lessors),
                transactions = [Other || Other <- Transactions, element(2, Other) =/= Generation]};
%% One that ended meanwhile: it has no lease that this could end again.
decided({expire, Generation, Id}, #world{open = Open, lessors = Lessors} = World) when not is_map_key(Id, World#world.servers) ->
    false = lists:member(Id, Open),
    {Generation, Lease} = lists:keyfind(Generation, 1, Lessors),
    World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, kb_lease:ended(Id, Lease)})};
decided({beat, Generation, Unknown}, #world{lessors = Lessors, open = Open, now = Now, servers = Servers} = World) ->
    {Generation, Lease} = lists:keyfind(Generation, 1, Lessors),
    case rand:uniform(4) of
        1 -> World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, kb_lease:uncommitted(Lease)})};
        _ ->
            {Acknowledged, _, Committed} = kb_lease:committed([{Id, 500} || Id <- Unknown, lists:member(Id, Open)], Now, Lease),
            Renewed = lists:foldl(fun({_, Id, Number, _}, Acc) when is_map_key(Id, Acc) ->
                                          #{Id := #server{sent = #{Number := Sent}, until = Until} = Server} = Acc,
                                          Acc#{Id := Server#server{until = max(Until, Sent + 500)}};
                                     (_, Acc) -> Acc
                                  end, Servers, Acknowledged),
            World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, Committed}), servers = Renewed}
    end;
decided({expire, Generation, Id}, #world{lessors = Lessors, open = Open, now = Now, servers = Servers, expired = Expired} = World) ->
    #{Id := #server{until = Until} = Server} = Servers,
    ?assert(clock(Now, Server) >= Until),
    {Generation, Lease} = lists:keyfind(Generation, 1, Lessors),
    %% Another session begins, whose lease counts from before it was asked for.
    Next = integer_to_binary(Expired),
    World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, kb_lease:ended(Id, Lease)}),
                open = [Next | lists:delete(Id, Open)], expired = Expired + 1,
                servers = (maps:remove(Id, Servers))#{Next => #server{until = clock(Now, Server) + 500, slow = Server#server.slow}}};
decided({open, Generation, Id}, #world{lessors = Lessors, now = Now} = World) ->
    {Generation, Lease} = lists:keyfind(Generation, 1, Lessors),
    World#world{lessors = lists:keyreplace(Generation, 1, Lessors, {Generation, kb_lease:open(Id, 500, Now, Lease)})}.

pick(List) -> lists:nth(rand:uniform(length(List)), List).

%% What the tests say in short.

opened() -> kb_lease:open(?B, ?L, 0, kb_lease:open(?A, ?L, 0, kb_lease:new(0))).

renewal(Id, Number, Step, Obeyed) ->
    #{session => Id, number => Number, tick => Step, load => 0, obeyed => Obeyed, route => {node(), self()}}.

renew(Id, Number, Now, Lease) -> renew(Id, Number, Now, Number, Lease).

renew(Id, Number, Now, Step, Lease) -> kb_lease:renew(renewal(Id, Number, Step, []), Now, Lease).

acknowledged(Id, Number, Now, Lease) -> acknowledged(Id, Number, Number, Now, Lease).

acknowledged(Id, Number, Step, Now, Lease) ->
    {submit, [], Submitted} = kb_lease:beat(Now, renew(Id, Number, Now, Step, Lease)),
    {[{_, Id, Number, _}], [], Committed} = kb_lease:committed([], Now, Submitted),
    {[], Ticked} = kb_lease:tick(Now, Committed),
    Ticked.

acknowledgements(Id, Number, Now, Obeyed, Lease) ->
    {submit, [], Submitted} = kb_lease:beat(Now, kb_lease:renew(renewal(Id, Number, Number, Obeyed), Now, Lease)),
    {Acknowledged, [], Committed} = kb_lease:committed([], Now + 10, Submitted),
    {Acknowledged, Committed}.

%% Renewed and acknowledged twice a second.
steadily(Ids, From, To, Lease) when From =< To ->
    {[], At} = kb_lease:tick(From, Lease),
    Renewed = lists:foldl(fun(Id, Acc) -> renew(Id, From, From, Acc) end, At, Ids),
    {submit, [], Submitted} = kb_lease:beat(From, Renewed),
    {Acknowledged, [], Committed} = kb_lease:committed([], From + 10, Submitted),
    ?assertEqual(Ids, lists:sort([Id || {_, Id, _, _} <- Acknowledged])),
    {[], Ticked} = ticks(From, min(From + 500, To), Committed),
    steadily(Ids, From + 500, To, Ticked);
steadily(_, _, _, Lease) -> Lease.

%% A tick every 50 ms, and one at the end.
ticks(From, To, Lease) when From < To ->
    case kb_lease:tick(min(From + 50, To), Lease) of
        {[], Ticked} -> ticks(min(From + 50, To), To, Ticked);
        Expired -> Expired
    end;
ticks(_, _, Lease) -> {[], Lease}.
