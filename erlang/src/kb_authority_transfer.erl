%% Authority that changes hands: what sessions ask for. By push, give, release and claim the caller states that no
%% release is due to it any more, so they clear `awaiting'.
-module(kb_authority_transfer).

-export([create/3, on_entity/4, take/5, permission/2]).

-import(kb_authority_tree, [entity_path/1, server_path/1, session_path/1, ending_path/1, inbox_path/2, bump/1, next_epoch/1, step/1,
                            refuse/2, refuse/3, no_session/0, not_holder/1, conflict/2]).

%% The spawner is usually owner and master (R0-8); without a default owner of its own the master is it.
-spec create(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
create(#{entity := Entity, master := Master, session := Session} = Request, Read, List) ->
    case {Read(session_path(Session)), Read(entity_path(Entity))} of
        {undefined, _} ->
            no_session();
        {#{revoked := true}, _} ->
            revoked();
        {_, #{deleted := true}} ->
            refuse(being_deleted, <<"a holder of the deleted entity of this name has yet to say that it has stopped: try again">>);
        {_, Existing} when Existing =/= undefined ->
            refuse(entity_exists, <<"an entity of this name exists already">>);
        {#{server := Server}, undefined} ->
            case kb_authority_quota:room(new, Master, Request, {Read, List}) of
                {ok, Made} -> created(Request, Server, Made, Read);
                Full -> Full
            end
    end.

created(#{entity := Entity, owner := Owner, master := Master, rule := Rule, session := Session}, Server, Made, Read) ->
    #{instance := Home} = Read([bridge, identity]),
    {Epoch, Granted} = next_epoch(Read),
    Record = #{entity => Entity, owner => Owner, master => Master, default_owner => undefined, rule => Rule,
               session => Session, server => Server, epoch => Epoch, awaiting => undefined,
               home => Home, version => 1},
    {ok, Record, [Granted, {put, entity_path(Entity), Record} | Made]}.

-spec on_entity(atom(), map(), map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
on_entity(pull, Request, Record, Read) ->
    #{session := Session, epoch := Known, owner := Asker} = Request,
    #{epoch := Epoch, rule := Rule, session := Holder, server := HolderServer} = Record,
    case Read(session_path(Session)) of
        undefined ->
            no_session();
        #{revoked := true} ->
            revoked();
        _ when Holder =:= Session ->
            refuse(already_held, <<"this session holds the entity">>);
        _ when Known =/= Epoch ->
            conflict(HolderServer, Record);
        #{server := Server} ->
            case permission(Asker, Record) of
                allow ->
                    {Pulled, Changes} = take(Asker, {Session, Server}, Record, step(Request), Read),
                    {ok, Pulled, Changes};
                deny ->
                    refuse(denied, #{rule => Rule}, <<"the rule of the entity does not allow it">>);
                ask ->
                    refuse(denied, #{rule => Rule}, <<"the master has to be asked: request it">>)
            end
    end;
on_entity(claim, Request, Record, Read) ->
    #{session := Session, owner := Owner, release := Release} = Request,
    #{snd := Sender, rcp := Recipient, sid := From, epoch := Released} = Release,
    #{entity := Entity, session := Holder, server := HolderServer, epoch := Epoch} = Record,
    case Read(session_path(Session)) of
        undefined ->
            no_session();
        #{revoked := true} ->
            revoked();
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
    case Read(session_path(Session)) of
        undefined -> no_session();
        _ -> by_holder(Function, Request, Record, Read)
    end;
on_entity(_Function, _Request, Record, _Read) ->
    not_holder(Record).

by_holder(push_abroad, Request, Record, Read) ->
    kb_authority_escrow:push(Request, Record, Read);
by_holder(give, #{owner := Owner}, #{entity := Entity} = Record, _Read) ->
    Given = bump(Record#{owner => Owner, awaiting => undefined}),
    {ok, Given, [{put, entity_path(Entity), Given}]};
by_holder(release, #{session := Session}, #{entity := Entity} = Record, _Read) ->
    Dormant = bump(Record#{session => undefined, server => undefined, awaiting => undefined}),
    {ok, Dormant, [{put, entity_path(Entity), Dormant}, {delete, inbox_path(Session, Entity)}]};
by_holder(push, #{to := To} = Request, #{session := Session} = Record, Read) ->
    case Read(server_path(To)) of
        #{session := Session} ->
            refuse(already_held, <<"this server holds the entity">>);
        #{revoked := true} ->
            refuse(no_server, <<"the key of this server was revoked">>);
        #{session := Target} when Target =/= undefined ->
            pushed(Request, Target, Record, Read);
        _ ->
            no_server()
    end.

%% To a session that a server's record names, which may have ended.
pushed(#{to := To, owner := Owner, box := Box} = Request, Target, Record, Read) ->
    #{entity := Entity, server := From, epoch := Epoch} = Record,
    case Read(session_path(Target)) of
        undefined ->
            no_server();
        _ ->
            {Next, Granted} = next_epoch(Read),
            Pushed = bump(Record#{owner => Owner, session => Target, server => To, epoch => Next,
                                  awaiting => undefined}),
            Grant = maps:merge(#{type => grant, entity => Entity, epoch => Next, previous => Epoch,
                                 from => From, owner => Owner, box => Box}, step(Request)),
            {ok, Pushed, [Granted, {put, entity_path(Entity), Pushed}, {put, inbox_path(Target, Entity), Grant}]}
    end.

no_server() -> refuse(no_server, <<"no server of this name has a session">>).

%% Its lease runs out, and until then it is given nothing more.
revoked() -> refuse(revoked, <<"the key of this server was revoked">>).

%% What the rule says to a player who wants the entity (R0-8); owner and master have it anyway.
-spec permission(binary(), map()) -> allow | deny | ask.
permission(Asker, #{owner := Asker}) -> allow;
permission(Asker, #{master := Asker}) -> allow;
permission(_Asker, #{rule := Rule}) -> Rule.

%% Owner and authority go to a session that does not hold the entity; whoever does is recalled.
-spec take(binary(), {binary(), binary()}, map(), map(), kb_authority_tree:read()) ->
          {map(), [kb_authority_tree:change()]}.
take(Owner, {Session, Server}, #{entity := Entity, epoch := Epoch} = Found, Step, Read) ->
    {Next, Granted} = next_epoch(Read),
    #{session := Holder} = Record = as_passed_on(Found, Read),
    Taken = bump(Record#{owner => Owner, session => Session, server => Server, epoch => Next,
                         awaiting => kb_authority_waiting:behind(Session, Record)}),
    Recall = case Holder of
                 undefined -> kb_authority_waiting:recalls(Taken, Step, Read);
                 _ -> [kb_authority_waiting:recall(Holder, Entity, Epoch, Taken, Step, Read)]
             end,
    {Taken, [Granted, {put, entity_path(Entity), Taken} | Recall]}.

%% Of a session that has ended, and is passed on in slices: whoever asks for an entity need not wait for its slice. Nothing
%% acts for the session, so this does for the one entity what its slice would.
as_passed_on(#{session := undefined} = Record, _Read) -> Record;
as_passed_on(#{session := Holder, awaiting := Due} = Record, Read) ->
    case Read(ending_path(Holder)) of
        undefined -> Record;
        _ -> Record#{session => undefined, server => undefined, awaiting => kb_authority_waiting:without(Holder, Due)}
    end.
