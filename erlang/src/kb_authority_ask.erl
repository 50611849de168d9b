%% The rule `ask': a player's request waits for its master's answer (R0-8). What a master has been asked is one
%% record with a bound, `/:bridge/:asks/<Master>', so that neither the tree nor an answer's work can be made to grow.
%%
%% An ask expires by the time that requests carry, put there before the log; within a record it never goes back. It
%% is looked at when the record is touched, so an ask may be listed after its time, but is never granted then.
-module(kb_authority_ask).

-export([on_entity/4, denied/2, deleted/2, moved/3, told_anew/3, master_away/2]).

-import(kb_authority_tree, [entity_path/1, session_path/1, asks_path/1, ask_inbox_path/3, bump/1, step_or_none/1,
                            refuse/2, refuse/3, conflict/2]).

-define(MAX_ASKS, 64).
-define(MAX_ASKS_OF_ONE, 8).

-type read() :: kb_authority_tree:read().
-type change() :: kb_authority_tree:change().

-spec on_entity(request | answer | withdraw, map(), map(), read()) -> kb_authority_tree:decision().
on_entity(request, #{player := Player, session := Session} = Request, Record, Read) ->
    #{owner := Known, epoch := KnownEpoch, authority := Authority} = Request,
    #{owner := Owner, epoch := Epoch, session := Holder} = Record,
    case kb_authority_player:session(Player, Read) of
        Session when Owner =:= Player, not Authority; Owner =:= Player, Holder =:= Session ->
            refuse(already_owner, <<"this player has what is requested">>);
        Session when Owner =/= Known; Authority, Epoch =/= KnownEpoch ->
            conflict(Owner, Record);
        Session ->
            permitted(kb_authority_transfer:permission(Player, Record), Request, Record, Read);
        _ ->
            refuse(no_player, <<"the player is not at this session: enter first">>)
    end;
on_entity(answer, #{by := By} = Request, Record, Read) ->
    case kb_authority_roles:check(answer, By, Record) of
        ok -> answered(Request, Record, Read);
        Refusal -> Refusal
    end;
on_entity(withdraw, #{player := Player}, #{entity := Entity, master := Master} = Record, Read) ->
    #{pending := Pending} = Asks = asks(Master, Read),
    case lists:partition(fun(Ask) -> is_of(Entity, Player, Ask) end, Pending) of
        {[], _} -> no_ask();
        {[Ask], Rest} -> {ok, Record, [struck(Ask) | stored(Asks#{pending => Rest}, Read)]}
    end.

permitted(deny, _Request, #{rule := Rule}, _Read) ->
    refuse(denied, #{rule => Rule}, <<"the rule of the entity does not allow it">>);
permitted(allow, Request, #{master := Master} = Record, Read) ->
    #{pending := Pending} = Asks = asks(Master, Read),
    Ask = maps:with([player, session, authority], Request),
    {Granted, Changes} = granted(Ask, Record, step_or_none(Request), Read),
    {Ended, Left} = outrun(Request, Granted, Pending, Read),
    {ok, Granted#{outcome => granted}, Changes ++ Ended ++ left(Left, Asks, Read)};
permitted(ask, #{at := At, ttl := Ttl} = Request, #{entity := Entity, master := Master} = Record, Read) ->
    #{player := Player, session := Session, authority := Authority} = Request,
    {#{pending := Pending, now := Now} = Asks, Expired} = current(Master, At, Read),
    {Mine, Others} = lists:partition(fun(Ask) -> is_of(Entity, Player, Ask) end, Pending),
    case {kb_authority_player:session(Master, Read), Mine} of
        {undefined, _} ->
            refuse(master_away, #{master => Master}, <<"the master is not here to be asked">>);
        {_, [#{session := Session, expires := Expires}]} ->
            refuse(pending, #{master => Master, expires => Expires},
                   <<"this was asked already: wait for the answer, or withdraw it">>);
        {MasterSession, _} ->
            OfPlayer = [Ask || #{player := Asker} = Ask <- Others, Asker =:= Player],
            case length(Others) >= ?MAX_ASKS orelse length(OfPlayer) >= ?MAX_ASKS_OF_ONE of
                true -> refuse(too_many_asks, <<"the master has too many questions open: try again later">>);
                false ->
                    #{server := Server} = Read(session_path(Session)),
                    Ask = maps:merge(#{entity => Entity, player => Player, session => Session, server => Server,
                                       authority => Authority, expires => Now + Ttl, told => MasterSession},
                                     step_or_none(Request)),
                    {ok, Record#{outcome => pending, expires => Now + Ttl},
                     Expired ++ [struck(Earlier) || Earlier <- Mine] ++ [told(Ask, Record)]
                     ++ stored(Asks#{pending => Others ++ [Ask]}, Read)}
            end
    end.

answered(#{player := Player, grant := Grant, at := At} = Request, Record, Read) ->
    #{entity := Entity, master := Master} = Record,
    {#{pending := Pending} = Asks, Expired} = current(Master, At, Read),
    case lists:partition(fun(Ask) -> is_of(Entity, Player, Ask) end, Pending) of
        {[], _} ->
            no_ask();
        {[#{session := Session} = Ask], Rest} ->
            Step = step_or_none(Request),
            case {Grant, kb_authority_player:session(Player, Read)} of
                {false, _} ->
                    {ok, Record#{outcome => refused},
                     Expired ++ outcome(Ask, refused, Record, Step, Read) ++ stored(Asks#{pending => Rest}, Read)};
                {true, Session} ->
                    {Granted, Changes} = granted(Ask, Record, Step, Read),
                    {Ended, Left} = outrun(Request, Granted, Rest, Read),
                    {ok, Granted#{outcome => granted},
                     Expired ++ Changes ++ outcome(Ask, granted, Granted, Step, Read) ++ Ended
                     ++ stored(Asks#{pending => Left}, Read)};
                {true, _} ->
                    %% Who asked is at another server by now, or has left, and would not know what to do with it.
                    {ok, Record#{outcome => gone}, Expired ++ [struck(Ask) | stored(Asks#{pending => Rest}, Read)]}
            end
    end.

granted(#{player := Player, session := Session, authority := true}, #{session := Holder} = Record, Step, Read)
  when Holder =/= Session ->
    #{server := Server} = Read(session_path(Session)),
    kb_authority_transfer:take(Player, {Session, Server}, Record, Step, Read);
granted(#{player := Player}, #{entity := Entity} = Record, _Step, _Read) ->
    Given = bump(Record#{owner => Player}),
    {Given, [{put, entity_path(Entity), Given}]}.

%% One wins: whoever else asked for the entity hears who (R0-8, the double grab).
outrun(#{player := Winner}, #{entity := Entity} = Granted, Pending, Read) ->
    {Same, Left} = lists:partition(fun(#{entity := Of}) -> Of =:= Entity end, Pending),
    {lists:append([case Ask of
                       #{player := Winner} -> [struck(Ask)];
                       _ -> ended(Ask, conflict, Granted, Read)
                   end || Ask <- Same]), Left}.

%% All asks for the entity end: its master wants none.
-spec denied(map(), read()) -> [change()].
denied(Record, Read) -> over(denied, Record, Read).

%% Or there is nothing left to ask for.
-spec deleted(map(), read()) -> [change()].
deleted(Record, Read) -> over(deleted, Record, Read).

over(Outcome, #{entity := Entity, master := Master} = Record, Read) ->
    #{pending := Pending} = Asks = asks(Master, Read),
    {Same, Left} = lists:partition(fun(#{entity := Of}) -> Of =:= Entity end, Pending),
    lists:append([ended(Ask, Outcome, Record, Read) || Ask <- Same]) ++ left(Left, Asks, Read).

%% The asks for an entity go to its new master, as far as there is a place for them.
-spec moved(map(), binary(), read()) -> [change()].
moved(#{master := Master}, Master, _Read) -> [];
moved(#{entity := Entity, master := Old} = Record, New, Read) ->
    #{pending := Pending} = Asks = asks(Old, Read),
    case lists:partition(fun(#{entity := Of}) -> Of =:= Entity end, Pending) of
        {[], _} -> [];
        {Same, Left} ->
            #{pending := Theirs, now := Now} = TheirAsks = asks(New, Read),
            Session = kb_authority_player:session(New, Read),
            Room = case Session of
                       undefined -> 0;
                       _ -> ?MAX_ASKS - length(Theirs)
                   end,
            {Moving, Ending} = lists:split(min(max(Room, 0), length(Same)), Same),
            Moved = [Ask#{told => Session} || Ask <- Moving],
            [struck(Ask) || Ask <- Moving] ++ [told(Ask, Record#{master => New}) || Ask <- Moved]
                ++ lists:append([ended(Ask, master_away, Record, Read) || Ask <- Ending])
                ++ left(Left, Asks, Read)
                ++ stored(TheirAsks#{pending => Theirs ++ Moved, now => max(Now, maps:get(now, Asks))}, Read)
    end.

%% A master who enters is told of what waits, wherever it was told before.
-spec told_anew(binary(), binary(), read()) -> [change()].
told_anew(Master, Session, Read) ->
    case asks(Master, Read) of
        #{pending := []} -> [];
        #{pending := Pending} = Asks ->
            Told = [Ask#{told => Session} || Ask <- Pending],
            [struck(Ask) || #{told := Before} = Ask <- Pending, Before =/= Session]
                ++ [told(Ask, Read(entity_path(Entity))) || #{entity := Entity} = Ask <- Told]
                ++ stored(Asks#{pending => Told}, Read)
    end.

-spec master_away(binary(), read()) -> [change()].
master_away(Master, Read) ->
    #{pending := Pending} = Asks = asks(Master, Read),
    lists:append([ended(Ask, master_away, Read(entity_path(Entity)), Read) || #{entity := Entity} = Ask <- Pending])
        ++ left([], Asks, Read).

is_of(Entity, Player, #{entity := Of, player := Asker}) -> Of =:= Entity andalso Asker =:= Player.

asks(Master, Read) ->
    case Read(asks_path(Master)) of
        undefined -> #{master => Master, now => 0, pending => []};
        Asks -> Asks
    end.

%% What is still open at a time, and the ends of what is not.
current(Master, At, Read) ->
    #{pending := Pending, now := Before} = Asks = asks(Master, Read),
    Now = max(At, Before),
    {Open, Over} = lists:partition(fun(#{expires := Expires}) -> Expires > Now end, Pending),
    {Asks#{pending => Open, now => Now},
     lists:append([ended(Ask, expired, Read(entity_path(Entity)), Read) || #{entity := Entity} = Ask <- Over])}.

stored(#{master := Master, pending := []}, Read) ->
    [{delete, asks_path(Master)} || Read(asks_path(Master)) =/= undefined];
stored(#{master := Master} = Asks, _Read) ->
    [{put, asks_path(Master), Asks}].

%% Only where it is another list than it was.
left(Pending, #{pending := Pending}, _Read) -> [];
left(Left, Asks, Read) -> stored(Asks#{pending => Left}, Read).

told(#{entity := Entity, player := Player, told := Session} = Ask, #{owner := Owner, master := Master}) ->
    {put, ask_inbox_path(Session, Entity, Player),
     (maps:with([entity, player, server, authority, expires, trace, hop], Ask))
     #{type => ask, owner => Owner, master => Master}}.

%% No longer a question to the master.
struck(#{entity := Entity, player := Player, told := Session}) ->
    {delete, ask_inbox_path(Session, Entity, Player)}.

%% An end that no answer brought: for whoever asked it is the step after the question.
ended(#{trace := Trace, hop := Hop} = Ask, Outcome, Record, Read) ->
    outcome(Ask, Outcome, Record, #{trace => Trace, hop => Hop + 1}, Read).

outcome(#{entity := Entity, player := Player, session := Session, trace := Asked} = Ask, Outcome, Record, Step, Read) ->
    Told = [{put, ask_inbox_path(Session, Entity, Player),
             maps:merge(#{type => outcome, entity => Entity, player => Player, outcome => Outcome, asked => Asked,
                          record => Record}, Step)}
            || Read(session_path(Session)) =/= undefined],
    [struck(Ask) | Told].

no_ask() -> refuse(no_ask, <<"nothing is asked by this player for this entity, or no longer">>).
