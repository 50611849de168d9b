%% The end of a session, as the lessor commits it (docs/leases.md). All in one transaction, unless more records name the
%% session than one is to change, in which nobody else writes: then one that ends the session, and as many as it takes to
%% pass on what it named. Each may be repeated, by another lessor too, which finds in the tree what is left.
-module(kb_ending).

-export([bounded/1, close/5, pass_on/5]).

-define(AT_MOST, 256).
-define(TRANSACTION_MS, 2000).

%% Of a request that ends a session.
-spec bounded(map()) -> #{at_most := ?AT_MOST, _ => _}.
bounded(Request) -> Request#{at_most => ?AT_MOST}.

%% By a transaction that `Commit' makes of what is found. Successors are not looked for where it cannot use them.
-spec close(atom(), kb_lease:session(), reference(), [{kb_lease:session(), kb_lease:route(), non_neg_integer()}],
            fun((map()) -> kb_call:answer())) -> kb_call:answer().
close(Store, Session, Ref, Routes, Commit) ->
    Commit(case kb_succession:names(Store, Session) of
               Names when length(Names) > ?AT_MOST -> bounded(step());
               Names -> bounded(maps:merge(step(), kb_succession:find(Store, Session, Names, Ref, Routes)))
           end).

%% What is left of a session that has ended, by the lessor of a generation; `left' is 0 if that was all.
-spec pass_on(atom(), kb_lease:session(), non_neg_integer(), reference(),
              [{kb_lease:session(), kb_lease:route(), non_neg_integer()}]) -> kb_call:answer().
pass_on(Store, Session, Generation, Ref, Routes) ->
    Names = kb_succession:names(Store, Session),
    #{successors := Successors, released := Released} = kb_succession:find(Store, Session, Names, Ref, Routes),
    Slice = fun(Entities, Some) ->
                    Request = maps:merge(step(), #{generation => Generation, session => Session, entities => Entities,
                                                   successors => maps:with(Some, Successors),
                                                   released => maps:with(Some, Released)}),
                    kb_commit:own(Store, pass_on, bounded(Request), ?TRANSACTION_MS)
            end,
    slices(Names, Slice, #{released => [], passed => []}).

slices([], Slice, Done) -> added(Slice(all, []), Done);
slices(Names, Slice, Done) ->
    {Some, Others} = lists:split(min(?AT_MOST, length(Names)), Names),
    case added(Slice(Some, Some), Done) of
        {ok, More} -> slices(Others, Slice, More);
        Error -> Error
    end.

added({ok, #{released := Released, passed := Passed} = Answer}, #{released := Before, passed := Earlier}) ->
    {ok, Answer#{released => Before ++ Released, passed => Earlier ++ Passed}};
added(Error, _) -> Error.

step() -> #{trace => crypto:strong_rand_bytes(16), hop => 0}.
