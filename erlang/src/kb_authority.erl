%% Who may simulate what: pure decisions on the records of docs/protocol.md §2, asked for by the requests of
%% §7. `Read' and `List' give records by path; a decision is a value and the changes that make it so, or a
%% refusal and no change.
%%
%% By push, give, release and claim the caller states that no release is due to it any more, so they clear
%% `awaiting'. A pull from a holder that itself still waits keeps that wait inside the new one: should the
%% middle session end, the older holder's release is due to the newest.
-module(kb_authority).

-export([decide/4]).

-export_type([decision/0, path/0]).

-define(MAX_COUNTER, 16#FFFFFFFFFFFF).

-type path() :: [atom() | binary()].
-type change() :: {put, path(), map()} | {delete, path()}.
-type decision() :: {ok, map(), [change()]} | {error, {atom(), map()}}.
-type read() :: fun((path()) -> map() | undefined).
-type lister() :: fun((path()) -> [map()]).

-spec decide(atom(), map(), read(), lister()) -> decision().
decide(Function, Request, Read, List) ->
    case do(Function, Request, Read, List) of
        {ok, Value, Changes} -> {ok, maps:merge(Value, step(Request)), Changes ++ index(Changes, Read)};
        Refusal -> Refusal
    end.

do(open_session, Request, Read, List) ->
    #{server := Server, session := Session, key := Key, thumbprint := Thumbprint, address := Address} = Request,
    Record = #{server => Server, session => Session, key => Key, thumbprint => Thumbprint,
               address => Address},
    Opened = [{put, server_path(Server), Record},
              {put, session_path(Session), #{session => Session, server => Server, thumbprint => Thumbprint}}],
    Used = Read(session_path(Session)),
    case Read(server_path(Server)) of
        #{thumbprint := Other} when Other =/= Thumbprint ->
            refuse(server_key_mismatch, <<"another key holds this name">>);
        #{session := Session} ->
            {ok, #{session => Session, held => held(Session, Read, List)}, Opened};
        _ when Used =/= undefined ->
            refuse(invalid_request, <<"this session id belongs to another server: draw a new one">>);
        #{session := Earlier} when Earlier =/= undefined ->
            {_, Ended} = end_session(Earlier, Read, List),
            {ok, #{session => Session, held => []}, Ended ++ Opened};
        _ ->
            {ok, #{session => Session, held => []}, Opened}
    end;
do(close_session, #{session := Session}, Read, List) ->
    case Read(session_path(Session)) of
        undefined ->
            {ok, #{released => []}, []};
        #{server := Server} ->
            {Released, Ended} = end_session(Session, Read, List),
            Away = case Read(server_path(Server)) of
                       #{session := Session} = Record ->
                           [{put, server_path(Server), Record#{session => undefined}}];
                       _ ->
                           []
                   end,
            {ok, #{released => Released}, Ended ++ Away}
    end;
do(create_entity, Request, Read, _List) ->
    #{entity := Entity, owner := Owner, master := Master, rule := Rule, session := Session} = Request,
    case {Read(session_path(Session)), Read(entity_path(Entity))} of
        {undefined, _} ->
            no_session();
        {_, Existing} when Existing =/= undefined ->
            refuse(entity_exists, <<"an entity of this name exists already">>);
        {#{server := Server}, undefined} ->
            #{instance := Home} = Read([bridge, identity]),
            {Epoch, Granted} = next_epoch(Read),
            Record = #{entity => Entity, owner => Owner, master => Master, rule => Rule,
                       session => Session, server => Server, epoch => Epoch, awaiting => undefined,
                       home => Home, version => 1},
            {ok, Record, [Granted, {put, entity_path(Entity), Record}]}
    end;
do(Function, #{entity := Entity} = Request, Read, _List) ->
    case Read(entity_path(Entity)) of
        undefined -> refuse(no_entity, <<"no entity of this name">>);
        Record -> on_entity(Function, Request, Record, Read)
    end.

on_entity(pull, Request, Record, Read) ->
    #{session := Session, epoch := Known, owner := Asker} = Request,
    #{entity := Entity, epoch := Epoch, rule := Rule, session := Holder, server := HolderServer} = Record,
    case Read(session_path(Session)) of
        undefined ->
            no_session();
        _ when Holder =:= Session ->
            refuse(already_held, <<"this session holds the entity">>);
        _ when Known =/= Epoch ->
            {error, {conflict, #{winner => winner(HolderServer), epoch => Epoch,
                                 message => <<"another server took the entity first">>}}};
        #{server := Server} ->
            case allows(Rule, Asker, Record) of
                false ->
                    {error, {denied, #{rule => Rule, message => <<"the rule of the entity does not allow it">>}}};
                true ->
                    {Next, Granted} = next_epoch(Read),
                    Pulled = bump(Record#{owner => Asker, session => Session, server => Server,
                                          epoch => Next, awaiting => cut(Session, awaiting(Record))}),
                    Recall = case Holder of
                                 undefined -> recalls(Pulled, step(Request), Read);
                                 _ -> [recall(Holder, Entity, Epoch, Pulled, step(Request), Read)]
                             end,
                    {ok, Pulled, [Granted, {put, entity_path(Entity), Pulled} | Recall]}
            end
    end;
on_entity(claim, Request, Record, Read) ->
    #{session := Session, owner := Owner, release := Release} = Request,
    #{snd := Sender, rcp := Recipient, sid := From, epoch := Released} = Release,
    #{entity := Entity, session := Holder, server := HolderServer, epoch := Epoch} = Record,
    case Read(session_path(Session)) of
        undefined ->
            no_session();
        _ when Holder =:= undefined orelse From =/= Holder orelse Released =/= Epoch ->
            not_holder(Record);
        #{thumbprint := Own} when Own =/= Recipient ->
            refuse(bad_release, <<"the release is for another server">>);
        #{server := Server} ->
            case Read(server_path(HolderServer)) of
                #{thumbprint := Sender} ->
                    {Next, Granted} = next_epoch(Read),
                    Claimed = bump(Record#{owner => Owner, session => Session, server => Server,
                                           epoch => Next, awaiting => undefined}),
                    {ok, Claimed, [Granted, {put, entity_path(Entity), Claimed}]};
                _ ->
                    refuse(bad_release, <<"the release is not signed by the holder">>)
            end
    end;
on_entity(Function, #{session := Session, epoch := Epoch} = Request,
          #{session := Session, epoch := Epoch} = Record, Read) ->
    by_holder(Function, Request, Record, Read);
on_entity(_Function, _Request, Record, _Read) ->
    not_holder(Record).

by_holder(give, #{owner := Owner}, #{entity := Entity} = Record, _Read) ->
    Given = bump(Record#{owner => Owner, awaiting => undefined}),
    {ok, Given, [{put, entity_path(Entity), Given}]};
by_holder(release, #{session := Session}, #{entity := Entity} = Record, _Read) ->
    Dormant = bump(Record#{session => undefined, server => undefined, awaiting => undefined}),
    {ok, Dormant, [{put, entity_path(Entity), Dormant}, {delete, inbox_path(Session, Entity)}]};
by_holder(push, #{to := To, owner := Owner, box := Box} = Request, Record, Read) ->
    #{entity := Entity, session := Session, server := From, epoch := Epoch} = Record,
    case Read(server_path(To)) of
        #{session := Session} ->
            refuse(already_held, <<"this server holds the entity">>);
        #{session := Target} when Target =/= undefined ->
            {Next, Granted} = next_epoch(Read),
            Pushed = bump(Record#{owner => Owner, session => Target, server => To, epoch => Next,
                                  awaiting => undefined}),
            Grant = maps:merge(#{type => grant, entity => Entity, epoch => Next, previous => Epoch,
                                 from => From, owner => Owner, box => Box}, step(Request)),
            {ok, Pushed, [Granted, {put, entity_path(Entity), Pushed}, {put, inbox_path(Target, Entity), Grant}]};
        _ ->
            refuse(no_server, <<"no server of this name has a session">>)
    end.

%% `ask' needs the master's answer, which no request brings yet: until then only owner and master may.
allows(allow, _Asker, _Record) -> true;
allows(_Rule, Asker, #{owner := Asker}) -> true;
allows(_Rule, Asker, #{master := Asker}) -> true;
allows(_Rule, _Asker, _Record) -> false.

awaiting(#{session := undefined, awaiting := Due}) -> Due;
awaiting(#{session := Session, server := Server, epoch := Epoch, awaiting := undefined}) ->
    #{session => Session, server => Server, epoch => Epoch};
awaiting(#{session := Session, server := Server, epoch := Epoch, awaiting := Due}) ->
    #{session => Session, server => Server, epoch => Epoch, awaiting => Due}.

recalls(#{awaiting := #{session := Due, epoch := Epoch}, entity := Entity} = Record, Step, Read) ->
    [recall(Due, Entity, Epoch, Record, Step, Read)];
recalls(_Record, _Step, _Read) ->
    [].

%% A recall takes the place of a grant in the inbox; one that the holder may not have read goes along.
recall(Holder, Entity, Epoch, #{epoch := Granted, server := To, session := Session, owner := Owner}, Step, Read) ->
    Path = inbox_path(Holder, Entity),
    Recall = maps:merge(#{type => recall, entity => Entity, epoch => Epoch, granted => Granted, to => To,
                          session => Session, owner => Owner}, Step),
    case Read(Path) of
        #{type := grant, epoch := Epoch} = Grant -> {put, Path, Recall#{unread => Grant}};
        #{type := recall, epoch := Epoch, unread := Grant} -> {put, Path, Recall#{unread => Grant}};
        _ -> {put, Path, Recall#{unread => undefined}}
    end.

%% `/:bridge/:held/<Session>' names the entities whose records name the session, so that its end need not look
%% at all of them: inside Ra, 10,000 took 18 ms.
index(Changes, Read) ->
    Ended = [Session || {delete, [bridge, held, Session]} <- Changes],
    lists:append([[{put, held_path(Session, Entity), #{entity => Entity}} || Session <- Named -- Before]
                  ++ [{delete, held_path(Session, Entity)} || Session <- (Before -- Named) -- Ended]
                  || {put, [bridge, entities, Entity] = Path, Record} <- Changes,
                     Before <- [sessions(Read(Path))],
                     Named <- [sessions(Record)]]).

sessions(undefined) -> [];
sessions(#{session := Holder, awaiting := Due}) ->
    lists:usort([Session || Session <- [Holder | due(Due)], Session =/= undefined]).

due(undefined) -> [];
due(#{session := Session} = Due) -> [Session | due(maps:get(awaiting, Due, undefined))].

named(Session, Read, List) ->
    [Read(entity_path(Entity)) || #{entity := Entity} <- List([bridge, held, Session])].

end_session(Session, Read, List) ->
    {Released, Changes} =
        lists:foldl(
          fun(#{entity := Entity, session := Holder} = Record, {Names, Acc}) ->
                  {Changed, More} = without(Session, Record, Read),
                  Put = {put, entity_path(Entity), Changed},
                  case Holder of
                      Session -> {[Entity | Names], [Put | More ++ Acc]};
                      _ -> {Names, [Put | More ++ Acc]}
                  end
          end, {[], []}, named(Session, Read, List)),
    {lists:reverse(Released),
     Changes ++ [{delete, [bridge, held, Session]}, {delete, [bridge, inbox, Session]},
                 {delete, session_path(Session)}]}.

without(Session, #{session := Session} = Record, _Read) ->
    %% What was due to the ended session stays due: its former holder may act until it releases.
    Due = strike(Session, maps:get(awaiting, Record)),
    {bump(Record#{session => undefined, server => undefined, awaiting => Due}), []};
without(Session, #{awaiting := Due} = Record, Read) ->
    Changed = bump(Record#{awaiting => strike(Session, Due)}),
    More = case {Due, Record} of
               {#{session := Session}, #{session := Holder}} when Holder =/= undefined ->
                   recalls(Changed, #{trace => <<0:128>>, hop => 0}, Read);
               _ -> []
           end,
    {Changed, More}.

%% Who pulls has passed on what it had, and so had received what was due to it: the chain ends there. Without
%% this it would grow with every pull of an entity that moves by pulls alone.
cut(_Session, undefined) -> undefined;
cut(Session, #{session := Session}) -> undefined;
cut(Session, #{awaiting := Older} = Due) ->
    case cut(Session, Older) of
        undefined -> maps:remove(awaiting, Due);
        Left -> Due#{awaiting => Left}
    end;
cut(_Session, Due) -> Due.

%% The chain of releases due, without those of an ended session.
strike(_Session, undefined) -> undefined;
strike(Session, #{session := Session} = Due) -> strike(Session, maps:get(awaiting, Due, undefined));
strike(Session, #{awaiting := Older} = Due) ->
    case strike(Session, Older) of
        undefined -> maps:remove(awaiting, Due);
        Left -> Due#{awaiting => Left}
    end;
strike(_Session, Due) -> Due.

held(Session, Read, List) ->
    [Record || #{session := Holder} = Record <- named(Session, Read, List), Holder =:= Session].

next_epoch(Read) ->
    #{incarnation := Incarnation, counter := Counter} = Grants = Read([bridge, grants]),
    Next = case Counter of
               ?MAX_COUNTER -> Grants#{incarnation => Incarnation + 1, counter => 0};
               _ -> Grants#{counter => Counter + 1}
           end,
    #{incarnation := High, counter := Low} = Next,
    {(High bsl 48) bor Low, {put, [bridge, grants], Next}}.

step(#{trace := Trace, hop := Hop}) -> #{trace => Trace, hop => Hop + 1};
step(_) -> #{}.

winner(undefined) -> <<>>;
winner(Server) -> Server.

bump(#{version := Version} = Record) -> Record#{version => Version + 1}.

refuse(Reason, Message) -> {error, {Reason, #{message => Message}}}.

no_session() -> refuse(no_session, <<"this session is not open: open one first">>).

not_holder(#{epoch := Epoch}) ->
    {error, {not_holder, #{epoch => Epoch, message => <<"this session does not hold the entity at that epoch">>}}}.

entity_path(Entity) -> [bridge, entities, Entity].
server_path(Server) -> [bridge, servers, Server].
session_path(Session) -> [bridge, sessions, Session].
held_path(Session, Entity) -> [bridge, held, Session, Entity].
inbox_path(Session, Entity) -> [bridge, inbox, Session, Entity].
