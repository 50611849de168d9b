%% Entities that pass between instances (docs/federation.md): the giver's puts one into escrow, the receiver's decides,
%% the giver's obeys. A transfer is named by the epoch that its escrow took, so numbers rise within an instance, also
%% after a restore. All that is asked may be lost, repeated or late: each step is told by its number, and done once.
%%
%% A record with `away' is not this instance's to change. `escrow': only the receiver knows whether it still is the
%% giver's; `gone': another instance has it, as far as was told.
-module(kb_authority_escrow).

-export([push/3, cancel/2, close/2, noted/2, settled/2, resolve/2]).
-export([accept/3, refuse/3, settle/3, moved/2]).
-export([is_abroad/2]).

-import(kb_authority_tree, [entity_path/1, server_path/1, session_path/1, inbox_path/2, bump/1, next_epoch/1,
                            epoch_above/2, step/1, step_or_none/1, escrow_path/1, outgoing_path/1, incoming_path/1,
                            incoming_path/2, peer_path/1, refuse/2]).

-define(MAX_OPEN, 256).
-define(MAX_NAME, 255).
%% What one peer can have this instance keep. Its answers are kept until it has closed their transfers, of which it has
%% up to 256 open: these it can always give up, so that it closes, also where it may offer no more.
-define(MAX_ANSWERS, 4096).
-define(MAX_ANSWERS_TO_CANCELS, (?MAX_ANSWERS + ?MAX_OPEN)).
-define(MAX_ENTITIES, 10000).
%% Of what operators have decided, for them to read alone, up to 17 KiB each: the newest are kept.
-define(MAX_RESOLVED, 256).
%% A peer's epochs may be this many incarnations ahead, and lie in the lower half of all: ours go on above them, and no
%% number of offers may use them up.
-define(MAX_AHEAD, (256 bsl 48)).
-define(MAX_RECEIVED, (1 bsl 63)).

-type read() :: kb_authority_tree:read().
-type lister() :: kb_authority_tree:lister().
-type decision() :: kb_authority_tree:decision().

%% The giver's instance.

%% By the holder, which has stopped: the release in the box is sealed for a server of the other instance.
-spec push(map(), map(), read()) -> decision().
push(#{instance := Instance, to := To, owner := Owner, box := Box} = Request, Record, Read) ->
    #{entity := Entity, session := Session, server := Server, epoch := Released} = Record,
    #{instance := Here} = Read([bridge, identity]),
    Open = open(Instance, Read),
    case Read(peer_path(Instance)) of
        undefined -> refuse(no_peer, <<"no such instance is pinned here: add it as a peer first">>);
        _ when map_size(Open) >= ?MAX_OPEN ->
            refuse(too_many_open, <<"as many entities as may be are in escrow for that instance">>);
        _ ->
            case names(Record, Here, Read) of
                too_long -> refuse(invalid_request, <<"a name is too long to be told with its instance">>);
                Names ->
                    {Transfer, Granted} = next_epoch(Read),
                    Escrowed = bump(Record#{session => undefined, server => undefined, epoch => Transfer,
                                            awaiting => undefined,
                                            away => #{instance => Instance, transfer => Transfer, state => escrow}}),
                    #{key := Key, thumbprint := Thumbprint, address := Address} = Read(server_path(Server)),
                    #{rule := Rule, home := Home} = Record,
                    Numbers = maps:keys(Open),
                    Escrow = maps:merge(
                               maps:merge(#{transfer => Transfer, instance => Instance, state => open,
                                            low => lists:min([Transfer | Numbers]) - 1, entity => Entity, owner => Owner,
                                            to => To, rule => Rule, home => Home, box => Box,
                                            giver => #{server => Server, session => Session, epoch => Released,
                                                       key => Key, thumbprint => Thumbprint, address => Address}},
                                          Names), step_or_none(Request)),
                    {ok, Escrowed,
                     [Granted, {put, entity_path(Entity), Escrowed}, {put, escrow_path(Transfer), Escrow},
                      opened(Transfer, Entity, Instance, Read)]}
            end
    end.

%% The giver wants it back: from here on the receiver is asked to refuse. It may have accepted before.
-spec cancel(map(), read()) -> decision().
cancel(#{transfer := Transfer}, Read) ->
    case Read(escrow_path(Transfer)) of
        #{state := open} = Escrow ->
            {ok, #{transfer => Transfer, state => cancelling},
             [{put, escrow_path(Transfer), Escrow#{state => cancelling}}]};
        #{state := State} -> {ok, #{transfer => Transfer, state => State}, []};
        undefined -> {ok, #{transfer => Transfer, state => closed}, []}
    end.

%% What the receiver decided, once its signature was checked.
-spec close(map(), read()) -> decision().
close(#{transfer := Transfer, instance := Instance} = Request, Read) ->
    case Read(escrow_path(Transfer)) of
        #{instance := Instance, state := State} = Escrow when State =:= open; State =:= cancelling ->
            closed(Request, Escrow, Read);
        #{instance := Instance} -> {ok, #{transfer => Transfer, state => closed}, []};
        undefined -> {ok, #{transfer => Transfer, state => closed}, []};
        _ -> refuse(no_escrow, <<"this transfer is to another instance">>)
    end.

closed(#{verdict := accepted, epoch := Epoch} = Request, Escrow, Read) ->
    #{transfer := Transfer, entity := Entity, instance := Instance, home := Home, to := To} = Escrow,
    #{instance := Here} = Read([bridge, identity]),
    Record = Read(entity_path(Entity)),
    Gone = maps:remove(away, bump(Record#{epoch => Epoch})),
    %% Where the operator says so, the receiver has passed it on.
    At = maps:get(where, Request, Instance),
    Passed = #{instance => At, transfer => Transfer, state => gone, epoch => Epoch},
    Away = case At of
               Instance -> Passed#{server => To};
               _ -> Passed
           end,
    Kept = case Home of
               Here -> [{put, entity_path(Entity), Gone#{away => Away}}, {delete, escrow_path(Transfer)}];
               At -> [{delete, entity_path(Entity)}, {delete, escrow_path(Transfer)} | gone(Record, Read)];
               %% Until its home was told.
               _ ->
                   Notice = maps:with([transfer, entity, home, trace, hop], Escrow),
                   [{put, entity_path(Entity), Gone#{away => Away}},
                    {put, escrow_path(Transfer), Notice#{instance => At, state => notice, epoch => Epoch}}]
           end,
    {ok, #{transfer => Transfer, state => closed, verdict => accepted},
     Kept ++ [ended(Transfer, Instance, Read) | told(closed, #{instance => At, to => To, epoch => Epoch},
                                                     Request, Escrow, Read)]};
closed(#{verdict := refused, reason := Reason} = Request, Escrow, Read) ->
    #{transfer := Transfer, entity := Entity, instance := Instance, giver := Giver, to := To} = Escrow,
    #{session := Session, server := Server} = Giver,
    Back = maps:remove(away, bump(Read(entity_path(Entity)))),
    {Record, Granted} =
        case Read(session_path(Session)) of
            undefined -> {Back, []};
            _ ->
                {Next, Grants} = next_epoch(Read),
                {Back#{session => Session, server => Server, epoch => Next}, [Grants]}
        end,
    #{epoch := Epoch} = Record,
    {ok, #{transfer => Transfer, state => closed, verdict => refused},
     Granted ++ [{put, entity_path(Entity), Record}, {delete, escrow_path(Transfer)}, ended(Transfer, Instance, Read)
                 | told(returned, #{instance => Instance, to => To, epoch => Epoch, reason => Reason}, Request, Escrow,
                        Read)]}.

%% To whoever gave it, if still there.
told(Type, Members, Request, #{transfer := Transfer, entity := Entity, giver := #{session := Session}}, Read) ->
    [{put, inbox_path(Session, Entity),
      maps:merge(Members#{type => Type, entity => Entity, transfer => Transfer}, step_or_none(Request))}
     || Read(session_path(Session)) =/= undefined].

%% Its home knows where an entity went that was only passing.
-spec noted(map(), read()) -> decision().
noted(#{transfer := Transfer}, Read) ->
    case Read(escrow_path(Transfer)) of
        #{state := notice, entity := Entity} ->
            Passed = case Read(entity_path(Entity)) of
                         #{away := #{transfer := Transfer}} = Record -> [{delete, entity_path(Entity)} | gone(Record, Read)];
                         _ -> []
                     end,
            {ok, #{transfer => Transfer}, [{delete, escrow_path(Transfer)} | Passed]};
        _ -> {ok, #{transfer => Transfer}, []}
    end.

%% By the operator, where the two trees agree on nothing any more, as after the restore of one: who asks has heard what
%% the other instances say. What was decided last, and why, is kept.
-spec resolve(map(), read()) -> decision().
resolve(#{transfer := Transfer, choice := Choice, where := Where, epoch := Epoch, at := At} = Request, Read) ->
    case {Choice, Read(escrow_path(Transfer))} of
        {_, undefined} -> refuse(no_escrow, <<"nothing is in escrow under this number (any more)">>);
        {back, #{state := cancelling} = Escrow} ->
            resolved(closed(#{verdict => refused, reason => <<"resolved">>}, Escrow, Read), Request, Escrow, At, Read);
        {back, #{state := open}} ->
            refuse(wrong_state, <<"its receiver is still asked to take it: cancel it first">>);
        {gone, #{state := State} = Escrow} when State =/= notice ->
            case Read(peer_path(Where)) of
                undefined -> refuse(no_peer, <<"no such instance is pinned here">>);
                _ ->
                    %% Never below the number of the transfer: what was offered before it must not count again.
                    Above = erlang:max(Epoch, Transfer),
                    resolved(closed(#{verdict => accepted, epoch => Above, where => Where}, Escrow, Read), Request, Escrow, At, Read)
            end;
        {forget, #{state := notice} = Escrow} -> resolved(noted(Request, Read), Request, Escrow, At, Read);
        {forget, _} -> refuse(wrong_state, <<"only a notice can be forgotten: say where the entity is">>);
        _ -> refuse(wrong_state, <<"its receiver has the entity: only the notice to its home can be forgotten">>)
    end.

resolved({ok, _, Changes}, #{transfer := Transfer, choice := Choice} = Request, #{entity := Entity, instance := Instance}, At, Read) ->
    Resolution = (maps:with([transfer, choice, where, epoch, reason, said], Request))#{entity => Entity, instance => Instance, at => At},
    {ok, Resolution, [{put, resolved_path({Transfer, Choice}), Resolution} | remembered({Transfer, Choice}, Read)] ++ Changes}.

%% One that comes again, as after another restore, takes the place of the first.
remembered(Newest, Read) ->
    Known = case Read([bridge, resolved]) of
                undefined -> [];
                #{newest := Listed} -> lists:delete(Newest, Listed)
            end,
    {Kept, Over} = lists:split(min(length(Known), ?MAX_RESOLVED - 1), Known),
    [{put, [bridge, resolved], #{newest => [Newest | Kept]}} | [{delete, resolved_path(Oldest)} || Oldest <- Over]].

%% One that was resolved as gone may leave a notice, which is resolved by itself.
resolved_path({Transfer, Choice}) -> [bridge, resolved, integer_to_binary(Transfer), Choice].

%% The receiver has forgotten all transfers up to a number.
-spec settled(map(), read()) -> decision().
settled(#{instance := Instance, low := Low}, Read) ->
    case Read(outgoing_path(Instance)) of
        #{settled := Known} = Outgoing when Known < Low ->
            {ok, #{instance => Instance, low => Low}, [{put, outgoing_path(Instance), Outgoing#{settled => Low}}]};
        _ -> {ok, #{instance => Instance, low => Low}, []}
    end.

%% `low' of `outgoing' is what the receiver may forget: all up to it is closed here.
opened(Transfer, Entity, Instance, Read) ->
    Outgoing = outgoing(Instance, Read),
    outgoing(Instance, Outgoing#{last => Transfer}, (maps:get(open, Outgoing))#{Transfer => Entity}).

ended(Transfer, Instance, Read) ->
    #{open := Open} = Outgoing = outgoing(Instance, Read),
    outgoing(Instance, Outgoing, maps:remove(Transfer, Open)).

outgoing(Instance, #{last := Last} = Outgoing, Open) ->
    Low = case maps:keys(Open) of
              [] -> Last;
              Numbers -> lists:min(Numbers) - 1
          end,
    {put, outgoing_path(Instance), Outgoing#{open => Open, low => Low}}.

outgoing(Instance, Read) ->
    case Read(outgoing_path(Instance)) of
        undefined -> #{instance => Instance, open => #{}, last => 0, low => 0, settled => 0};
        Outgoing -> Outgoing
    end.

open(Instance, Read) ->
    #{open := Open} = outgoing(Instance, Read),
    Open.

%% Players of two instances may have one name: abroad, a player is told with the instance.
names(#{master := Master} = Record, Here, Read) ->
    Names = #{master => abroad(Master, Here, Read),
              default_owner => abroad(maps:get(default_owner, Record, undefined), Here, Read)},
    case [Name || {_, Name} <- maps:to_list(Names), is_binary(Name), byte_size(Name) > ?MAX_NAME] of
        [] -> Names;
        _ -> too_long
    end.

abroad(undefined, _Here, _Read) -> undefined;
abroad(Name, Here, Read) ->
    case is_abroad(Name, Read) of
        true -> Name;
        false -> <<Name/binary, $@, Here/binary>>
    end.

%% Whether a name is of a player of another instance: it ends in that instance's.
-spec is_abroad(binary(), read()) -> boolean().
is_abroad(Name, Read) ->
    case split(Name) of
        {_, Instance} -> Read(peer_path(Instance)) =/= undefined;
        none -> false
    end.

here(undefined, _) -> undefined;
here(Name, Here) ->
    case split(Name) of
        {Player, Here} -> Player;
        _ -> Name
    end.

%% At the last `@': names of instances have none.
split(Name) -> split(Name, byte_size(Name) - 2).

split(_, Position) when Position < 1 -> none;
split(Name, Position) ->
    case Name of
        <<Player:Position/binary, $@, Instance/binary>> -> {Player, Instance};
        _ -> split(Name, Position - 1)
    end.

%% The receiver's instance.

%% The decision. What was decided stays until the giver's instance has closed, so asking again changes nothing.
-spec accept(map(), read(), lister()) -> decision().
accept(Request, Read, List) ->
    answered(Request, ?MAX_ANSWERS, Read, List, fun(Incoming) ->
        case acceptable(Request, Incoming, Read) of
            {refuse, Reason} -> {refused(Reason, Request), [], Incoming};
            {ok, Session} -> accepted(Request, Session, Incoming, Read);
            later ->
                refuse(elsewhere, <<"this instance has not heard yet that the entity is with the giver: ask again">>)
        end
    end).

%% The giver's instance gives up: unless it was accepted before, it never will be.
-spec refuse(map(), read(), lister()) -> decision().
refuse(Request, Read, List) ->
    answered(Request, ?MAX_ANSWERS_TO_CANCELS, Read, List, fun(Incoming) -> {refused(cancelled, Request), [], Incoming} end).

answered(#{instance := From, transfer := Transfer, low := Low}, Maximum, Read, List, Decide) ->
    #{low := Known} = Before = incoming(From, Read),
    case {Read(peer_path(From)), Read(incoming_path(From, Transfer))} of
        {undefined, _} -> refuse(no_peer, <<"this instance is not pinned here">>);
        _ when Low >= Transfer -> refuse(invalid_request, <<"what is asked about is not closed: low is below transfer">>);
        _ when Transfer =< Known -> refuse(settled, <<"this transfer is settled">>);
        {_, #{} = Answer} ->
            {Incoming, Forgotten} = forgotten(Low, Before, List),
            {ok, Answer, kept(Before, Incoming) ++ Forgotten};
        _ ->
            case forgotten(Low, Before, List) of
                {#{answers := Answers}, _} when Answers >= Maximum ->
                    refuse(too_many_answers, <<"as many answers as may be are kept for this instance: settle what is closed">>);
                {Swept, Forgotten} ->
                    case Decide(Swept) of
                        {error, _} = Refusal -> Refusal;
                        {Answer, Changes, #{answers := Answers} = Incoming} ->
                            {ok, Answer, Changes ++ kept(Before, Incoming#{answers => Answers + 1}) ++ Forgotten
                             ++ [{put, incoming_path(From, Transfer), Answer}]}
                    end
            end
    end.

acceptable(#{instance := From, transfer := Transfer, entity := Entity, home := Home, to := To} = Request,
           #{entities := Brought}, Read) ->
    #{instance := Here} = Read([bridge, identity]),
    #{incarnation := High, counter := Count} = Read([bridge, grants]),
    Existing = Read(entity_path(Entity)),
    case Existing of
        _ when Transfer >= ?MAX_RECEIVED; Transfer > ((High bsl 48) bor Count) + ?MAX_AHEAD -> {refuse, epoch_too_high};
        undefined when Home =:= Here -> {refuse, no_entity};
        undefined when Brought >= ?MAX_ENTITIES -> {refuse, too_many_entities};
        undefined when Home =:= From -> received_anew(To, Request, Read);
        undefined ->
            case Read(peer_path(Home)) of
                undefined -> {refuse, unknown_home};
                _ -> received_anew(To, Request, Read)
            end;
        #{home := Other} when Other =/= Home -> {refuse, entity_exists};
        #{away := #{state := escrow}} -> later;
        #{away := #{epoch := Epoch}} when Transfer =< Epoch -> {refuse, stale};
        #{away := #{instance := Instance}} when Home =:= Here, Instance =/= From -> later;
        #{away := _} -> received(To, Request, Read);
        _ -> {refuse, entity_exists}
    end.

%% Other instances' entities count for their masters, as these are named here.
received_anew(To, #{master := Master} = Request, Read) ->
    #{instance := Here} = Read([bridge, identity]),
    case kb_authority_quota:has_room(here(Master, Here), Request, Read) of
        true -> received(To, Request, Read);
        false -> {refuse, quota}
    end.

received(_To, #{release := undefined}, _Read) -> {refuse, bad_release};
received(To, #{release := #{rcp := Recipient}}, Read) ->
    case Read(server_path(To)) of
        #{revoked := true} -> {refuse, no_server};
        #{session := Session, thumbprint := Recipient} when Session =/= undefined ->
            %% It may have ended, and its server have the name still.
            case Read(session_path(Session)) of
                undefined -> {refuse, no_server};
                _ -> {ok, Session}
            end;
        #{session := Session} when Session =/= undefined -> {refuse, wrong_key};
        _ -> {refuse, no_server}
    end.

accepted(Request, Session, Incoming, Read) ->
    #{instance := From, transfer := Transfer, entity := Entity, owner := Owner, master := Master, rule := Rule,
      default_owner := Default, home := Home, to := To, box := Box, giver := Giver} = Request,
    #{instance := Here} = Read([bridge, identity]),
    {Epoch, Granted} = epoch_above(Transfer, Read),
    Existing = Read(entity_path(Entity)),
    Version = case Existing of
                  #{version := Known} -> Known + 1;
                  undefined -> 1
              end,
    Made = #{entity => Entity, owner => here(Owner, Here), master => here(Master, Here),
             default_owner => here(Default, Here), rule => Rule, session => Session, server => To, epoch => Epoch,
             awaiting => undefined, home => Home, version => Version},
    {Record, Counted} = brought(From, Made, Here, Incoming, Existing),
    #{server := Server, epoch := Released} = Giver,
    Grant = maps:merge(#{type => grant, entity => Entity, epoch => Epoch, previous => Released, from => Server,
                         owner => here(Owner, Here), box => Box,
                         abroad => (maps:with([server, session, key, thumbprint, address], Giver))#{instance => From}},
                       step_or_none(Request)),
    {maps:merge(#{transfer => Transfer, verdict => accepted, entity => Entity, epoch => Epoch}, step(Request)),
     [Granted, {put, entity_path(Entity), Record}, {put, inbox_path(Session, Entity), Grant}], Counted}.

%% Of those whose home is elsewhere it is counted who brought them: they are kept until they go again. One that is known
%% here already, and was passed on a moment ago, stays counted where it was.
brought(_From, #{home := Here} = Record, Here, Incoming, _Existing) -> {Record, Incoming};
brought(_From, Record, _Here, Incoming, #{through := Through}) -> {Record#{through => Through}, Incoming};
brought(From, Record, _Here, #{entities := Count} = Incoming, _Existing) ->
    {Record#{through => From}, Incoming#{entities => Count + 1}}.

gone(#{through := Through}, Read) ->
    case Read(incoming_path(Through)) of
        #{entities := Count} = Incoming when Count > 0 -> [{put, incoming_path(Through), Incoming#{entities => Count - 1}}];
        _ -> []
    end;
gone(_, _) -> [].

refused(Reason, #{transfer := Transfer} = Request) ->
    maps:merge(#{transfer => Transfer, verdict => refused, reason => Reason}, step(Request)).

%% The giver's instance has closed all transfers up to a number: their answers are asked for no more, and are refused
%% from here on.
-spec settle(map(), read(), lister()) -> decision().
settle(#{instance := From, low := Low}, Read, List) ->
    case Read(peer_path(From)) of
        undefined -> refuse(no_peer, <<"this instance is not pinned here">>);
        _ ->
            Before = incoming(From, Read),
            {Incoming, Forgotten} = forgotten(Low, Before, List),
            {ok, #{instance => From, low => Low}, kept(Before, Incoming) ++ Forgotten}
    end.

forgotten(Low, #{low := Known} = Incoming, _List) when Low =< Known -> {Incoming, []};
forgotten(Low, #{instance := From, answers := Answers} = Incoming, List) ->
    Over = [{delete, incoming_path(From, Number)} || #{transfer := Number} <- List(incoming_path(From)), Number =< Low],
    {Incoming#{low => Low, answers => Answers - length(Over)}, Over}.

kept(Same, Same) -> [];
kept(_, #{instance := From} = Incoming) -> [{put, incoming_path(From), Incoming}].

incoming(From, Read) ->
    Nothing = #{instance => From, low => 0, answers => 0, entities => 0},
    case Read(incoming_path(From)) of
        undefined -> Nothing;
        Incoming -> maps:merge(Nothing, Incoming)
    end.

%% Told by the instance where an entity of ours was: it has passed it on.
-spec moved(map(), read()) -> decision().
moved(#{instance := From, entity := Entity, at := At, epoch := Epoch}, Read) ->
    #{instance := Here} = Read([bridge, identity]),
    case Read(entity_path(Entity)) of
        _ when At =:= Here -> {ok, #{entity => Entity}, []};
        #{home := Here, epoch := Known} when Epoch =< Known -> {ok, #{entity => Entity}, []};
        #{home := Here, away := #{state := gone, instance := From}} = Record ->
            Away = #{instance => At, state => gone, epoch => Epoch},
            {ok, #{entity => Entity}, [{put, entity_path(Entity), bump(Record#{epoch => Epoch, away => Away})}]};
        #{home := Here} -> refuse(elsewhere, <<"this instance has not heard yet that the entity came to you">>);
        _ -> refuse(no_entity, <<"no entity of this name has its home here">>)
    end.
