%% Sessions of servers: opened under a server's name and key, ended with all that hangs on them.
-module(kb_authority_session).

-export([open/3, close/3, pass_on/3]).

-import(kb_authority_tree, [server_path/1, session_path/1, ending_path/1, entity_path/1, inbox_path/2, bump/1, next_epoch/1,
                            step_or_none/1, refuse/2, refuse/3]).

%% Nobody's session ends because another one is opened: a second process of that name, or the one that seals for a
%% dead server, may act for it still.
-spec open(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
open(Request, Read, List) ->
    #{server := Server, session := Session, key := Key, thumbprint := Thumbprint, address := Address,
      lease_ms := Configured} = Request,
    #{lease_ms := Offered, generation := Generation} = lessor(Read, Configured),
    Used = Read(session_path(Session)),
    Restoring = Read([bridge, restoring]),
    Lease = case Used of
                #{lease_ms := Kept} -> Kept;
                _ -> Offered
            end,
    Opened = [{put, server_path(Server), #{server => Server, session => Session, key => Key, thumbprint => Thumbprint,
                                           address => Address}},
              {put, session_path(Session), #{session => Session, server => Server, thumbprint => Thumbprint,
                                             lease_ms => Lease}}],
    Value = #{session => Session, held => [], lease_ms => Lease, generation => Generation},
    case Read(server_path(Server)) of
        _ when Restoring =/= undefined ->
            refuse(restoring, <<"a backup is being restored here: try again when that has ended, or repeat it">>);
        #{thumbprint := Other} when Other =/= Thumbprint ->
            refuse(server_key_mismatch, <<"another key holds this name: give its key file, or take another name">>);
        #{session := Session} when Used =/= undefined ->
            {ok, Value#{held => held(Session, Read, List)}, Opened};
        _ when Used =/= undefined ->
            refuse(invalid_request, <<"this session id belongs to another server: draw a new one">>);
        #{session := Earlier} when Earlier =/= undefined ->
            refuse(name_in_use, #{session => Earlier},
                   <<"an earlier session of this name is open: close it, or try again when its lease is over">>);
        _ ->
            {ok, Value, Opened}
    end.

%% Before any member was the lessor there is nobody who could expire anything.
lessor(Read, Configured) ->
    case Read([bridge, lessor]) of
        undefined -> #{lease_ms => Configured, generation => 0};
        Lessor -> Lessor
    end.

%% Of a session for which nothing acts any more: each entity passes to the first of its `successors' that may have it,
%% or is dormant. `released' is what others have said: which of their releases are due no more.
%%
%% Nobody else writes while one transaction is made. So a session that is named by more than `at_most' records ends by this
%% one, as far as anybody can ask or be told anything in its name, and what names it is passed on by others.
-spec close(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
close(#{session := Session} = Request, Read, List) ->
    case Read(session_path(Session)) of
        undefined ->
            {ok, #{released => [], passed => []}, []};
        #{server := Server} ->
            Names = names(Session, List),
            case Request of
                #{at_most := Most} when length(Names) > Most -> begun(Session, Server, length(Names));
                _ ->
                    {Value, Passed} = passed_on(naming(Session, Names, Read), Request, Read),
                    {ok, Value, Passed ++ [{delete, session_path(Session)} | gone(Session, Server, Read)]}
            end
    end.

%% Its server keeps the name until all is passed on, so that no other session of it is about entities of this one.
begun(Session, Server, Left) ->
    {ok, #{released => [], passed => [], left => Left},
     [{put, ending_path(Session), #{session => Session, server => Server}}, {delete, [bridge, inbox, Session]},
      {delete, session_path(Session)}]}.

%% Some of what a session named that has ended; or all that is left, so that nothing of the session is.
-spec pass_on(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
pass_on(#{session := Session, entities := Wanted} = Request, Read, List) ->
    case {Read(ending_path(Session)), Wanted} of
        {undefined, _} ->
            {ok, #{released => [], passed => [], left => 0}, []};
        {#{server := Server}, all} ->
            #{at_most := Most} = Request,
            %% The index of an older version may name what names the session no more.
            case naming(Session, names(Session, List), Read) of
                Records when length(Records) > Most -> {ok, #{released => [], passed => [], left => length(Records)}, []};
                Records ->
                    {Value, Passed} = passed_on(Records, Request, Read),
                    {ok, Value#{left => 0}, Passed ++ [{delete, ending_path(Session)} | gone(Session, Server, Read)]}
            end;
        {_, Names} ->
            {Value, Passed} = passed_on(naming(Session, Names, Read), Request, Read),
            {ok, Value, Passed}
    end.

%% With the inbox, where a recall may have come since.
gone(Session, Server, Read) ->
    [{delete, [bridge, held, Session]}, {delete, [bridge, inbox, Session]}
     | [{put, server_path(Server), Record#{session => undefined}}
        || #{session := Known} = Record <- [Read(server_path(Server))], Known =:= Session]].

naming(Session, Names, Read) ->
    [Record || Entity <- Names, Record <- [Read(entity_path(Entity))],
               lists:member(Session, kb_authority_index:sessions(Record))].

passed_on(Records, Request, Read) ->
    Begun = #{released => [], passed => [], grants => Read([bridge, grants]), changes => []},
    #{released := Released, passed := Passed, grants := Grants, changes := Changes} =
        lists:foldl(fun(Record, Acc) -> without(Record, Request, Read, Acc) end, Begun, Records),
    {#{released => lists:reverse(Released), passed => lists:reverse(Passed)},
     [{put, [bridge, grants], Grants} || Passed =/= []] ++ Changes}.

without(#{session := Session, entity := Entity} = Record, #{session := Session} = Request, Read, Acc) ->
    %% What was due to the ended session stays due: its former holder may act until it releases.
    Said = maps:get(Entity, maps:get(released, Request, #{}), []),
    Due = kb_authority_waiting:settled(Said, kb_authority_waiting:without(Session, maps:get(awaiting, Record))),
    case successor(Request, Record, Due, Read) of
        none ->
            #{released := Released, changes := Changes} = Acc,
            Dormant = bump(Record#{session => undefined, server => undefined, awaiting => Due}),
            Acc#{released => [Entity | Released], changes => [{put, entity_path(Entity), Dormant} | Changes]};
        Successor ->
            passed(Successor, Record#{awaiting => Due}, Request, Read, Acc)
    end;
without(#{awaiting := Due, entity := Entity} = Record, #{session := Session} = Request, Read, #{changes := Changes} = Acc) ->
    Changed = bump(Record#{awaiting => kb_authority_waiting:without(Session, Due)}),
    More = case {Due, Record} of
               {#{session := Session}, #{session := Holder}} when Holder =/= undefined ->
                   kb_authority_waiting:recalls(Changed, step_or_none(Request), Read);
               _ -> []
           end,
    Acc#{changes => [{put, entity_path(Entity), Changed} | More] ++ Changes}.

%% Whose own release is due would wait for itself, or act beside who waits for it: it is none.
successor(#{session := Ended} = Request, #{entity := Entity}, Due, Read) ->
    Candidates = maps:get(Entity, maps:get(successors, Request, #{}), []),
    Able = [{Session, Server} || Session <- Candidates, Session =/= Ended, not kb_authority_waiting:is_due(Session, Due),
                                 #{server := Server} = Open <- [Read(session_path(Session))], not is_map_key(revoked, Open)],
    case Able of
        [] -> none;
        [First | _] -> First
    end.

%% As a push does, but without a release: what was due to the ended session is due to the successor.
passed({Session, Server}, #{entity := Entity, server := From, epoch := Epoch, owner := Owner, awaiting := Due} = Record,
       Request, Read, #{passed := Passed, grants := Grants, changes := Changes} = Acc) ->
    {Next, {put, _, Granted}} = next_epoch(fun([bridge, grants]) -> Grants end),
    Taken = bump(Record#{session => Session, server => Server, epoch => Next}),
    Step = step_or_none(Request),
    Told = Step#{type => failover, entity => Entity, epoch => Next, previous => Epoch, from => From, owner => Owner,
                 awaiting => Due},
    Acc#{passed => [{Entity, Server} | Passed], grants => Granted,
         changes => [{put, entity_path(Entity), Taken}, {put, inbox_path(Session, Entity), Told}
                     | kb_authority_waiting:recalls(Taken, Step, Read)] ++ Changes}.

names(Session, List) -> kb_authority_index:named(List([bridge, held, Session])).

held(Session, Read, List) ->
    [Record || Entity <- names(Session, List), #{session := Holder} = Record <- [Read(entity_path(Entity))], Holder =:= Session].
