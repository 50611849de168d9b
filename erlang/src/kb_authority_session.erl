%% Sessions of servers: opened under a server's name and key, ended with all that hangs on them.
-module(kb_authority_session).

-export([open/3, close/3]).

-import(kb_authority_tree, [server_path/1, session_path/1, entity_path/1, bump/1, refuse/2]).

-spec open(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
open(Request, Read, List) ->
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
            {_, Ended} = ended(Earlier, Read, List),
            {ok, #{session => Session, held => []}, Ended ++ Opened};
        _ ->
            {ok, #{session => Session, held => []}, Opened}
    end.

-spec close(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
close(#{session := Session}, Read, List) ->
    case Read(session_path(Session)) of
        undefined ->
            {ok, #{released => []}, []};
        #{server := Server} ->
            {Released, Ended} = ended(Session, Read, List),
            Away = case Read(server_path(Server)) of
                       #{session := Session} = Record ->
                           [{put, server_path(Server), Record#{session => undefined}}];
                       _ ->
                           []
                   end,
            {ok, #{released => Released}, Ended ++ Away}
    end.

ended(Session, Read, List) ->
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
    Due = kb_authority_waiting:without(Session, maps:get(awaiting, Record)),
    {bump(Record#{session => undefined, server => undefined, awaiting => Due}), []};
without(Session, #{awaiting := Due} = Record, Read) ->
    Changed = bump(Record#{awaiting => kb_authority_waiting:without(Session, Due)}),
    More = case {Due, Record} of
               {#{session := Session}, #{session := Holder}} when Holder =/= undefined ->
                   kb_authority_waiting:recalls(Changed, #{trace => <<0:128>>, hop => 0}, Read);
               _ -> []
           end,
    {Changed, More}.

named(Session, Read, List) ->
    [Read(entity_path(Entity)) || #{entity := Entity} <- List([bridge, held, Session])].

held(Session, Read, List) ->
    [Record || #{session := Holder} = Record <- named(Session, Read, List), Holder =:= Session].
