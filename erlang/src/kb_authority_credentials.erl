%% Whose keys count: who was enrolled under which key, which proofs were shown, what was revoked, and the keys that the
%% instance itself signs with. Signatures were checked by whoever asks; here is decided what only the tree can know.
-module(kb_authority_credentials).

-export([enrol/2, authenticate/2, attest/2, revoke/3, publish_key/3, set_player_data/2, refused/2, unrevoked/2]).

-import(kb_authority_tree, [server_path/1, session_path/1, refuse/2]).

-define(PROOF_MINUTES, 5).
%% The longest that anything is good for which an instance signs: a certificate (bridge/jose/credentials).
-define(OVERLAP_S, 90 * 86400).

subject_path(Role, Subject) -> [bridge, subjects, Role, Subject].
certified_path(Thumbprint) -> [bridge, certified, Thumbprint].
revoked_path(Id) -> [bridge, revoked, Id].
key_path(Kid) -> [bridge, keys, Kid].

%% A name belongs to the key that had it first, until an operator or that key itself names another one.
-spec enrol(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
enrol(#{subject := Subject, role := Role, thumbprint := Thumbprint, previous := Previous, operator := ByOperator} = Request,
      Read) ->
    Holders = [Holder || #{thumbprint := Holder} <- [Read(subject_path(Role, Subject)) | server(Role, Subject, Read)]],
    Mine = fun(Holder) -> ByOperator orelse Holder =:= Thumbprint orelse Holder =:= Previous end,
    %% A key that was revoked names no other one: its holder's word may be on its way still when that is decided.
    IsRevoked = is_revoked(Thumbprint, Read) orelse Previous =/= undefined andalso is_revoked(Previous, Read),
    case {IsRevoked, Read(certified_path(Thumbprint)), lists:all(Mine, Holders)} of
        {true, _, _} -> revoked();
        {_, #{subject := Other, role := As}, _} when Other =/= Subject; As =/= Role ->
            refuse(key_taken, <<"this key is another name's: make a new one">>);
        {_, _, false} -> refuse(name_taken, <<"another key holds this name">>);
        {_, _, true} ->
            Record = maps:with([subject, role, key, thumbprint, certificate, expires], Request),
            {ok, Record, [{put, subject_path(Role, Subject), Record},
                          {put, certified_path(Thumbprint), #{subject => Subject, role => Role}}]}
    end.

server(server, Name, Read) -> [Read(server_path(Name))];
server(_, _, _) -> [].

%% A proof of possession is used up, once among all members, and the key counts at that moment. `peer' is the server
%% that the subject wants to speak to.
-spec authenticate(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
authenticate(#{subject := Subject, role := Role, thumbprint := Thumbprint, certificate := Certificate, peer := Peer} = Request,
             Read) ->
    case {is_revoked(Thumbprint, Read) orelse is_revoked(Certificate, Read), Read(subject_path(Role, Subject)), peer(Peer, Read)} of
        {true, _, _} -> revoked();
        {_, #{thumbprint := Thumbprint}, {ok, Told}} -> once(Request, Told, Read);
        {_, #{thumbprint := Thumbprint}, Refusal} -> Refusal;
        _ -> refuse(not_enrolled, <<"this key does not speak for this name (any more)">>)
    end.

peer(undefined, _) -> {ok, undefined};
peer(Peer, Read) ->
    case Read(server_path(Peer)) of
        #{session := Session, thumbprint := Thumbprint} = Record when Session =/= undefined ->
            case is_revoked(Thumbprint, Read) of
                true -> no_peer();
                false -> {ok, maps:with([server, session, key, thumbprint, address], Record)}
            end;
        _ -> no_peer()
    end.

no_peer() -> refuse(no_server, <<"none of this name, or it is away">>).

%% Proofs lie by the minute that is written in them, so the same one always lies in the same place. Old minutes are
%% forgotten all at once, and what is as old as that counts as shown: so no clock of a member lets one in twice.
once(#{subject := Subject, role := Role, proof := Proof, issued := Issued, at := At}, Peer, Read) ->
    Minute = Issued div 60,
    Path = [bridge, proofs, integer_to_binary(Minute), Proof],
    #{forgotten := Forgotten, minutes := Minutes} = Known = case Read([bridge, proofs]) of
                                                                undefined -> #{forgotten => 0, minutes => []};
                                                                Found -> Found
                                                            end,
    case Minute =< Forgotten orelse Read(Path) =/= undefined of
        true -> refuse(replayed, <<"this proof was shown before: sign a new one">>);
        false ->
            Old = [M || M <- Minutes, M < At div 60000 - ?PROOF_MINUTES, M =/= Minute],
            Kept = #{forgotten => lists:max([Forgotten | Old]), minutes => lists:usort([Minute | Minutes]) -- Old},
            {ok, #{subject => Subject, role => Role, peer => Peer},
             [{delete, [bridge, proofs, integer_to_binary(M)]} || M <- Old]
             ++ [{put, [bridge, proofs], Kept} || Kept =/= Known]
             ++ [{put, Path, #{at => At}}]}
    end.

%% That a session is open under a server's name and key, and that it holds an entity where one is named. Nothing is
%% changed: it is a transaction because what is signed next says so, and a read may be of a leader that was deposed.
-spec attest(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
attest(#{session := Session, server := Server, thumbprint := Thumbprint, entity := Entity}, Read) ->
    case {is_revoked(Thumbprint, Read), Read(session_path(Session))} of
        {true, _} -> revoked();
        {_, #{server := Server, thumbprint := Thumbprint}} -> held(Entity, Session, Read);
        _ -> kb_authority_tree:no_session()
    end.

held(undefined, Session, _) -> {ok, #{session => Session, epoch => 0}, []};
held(Entity, Session, Read) ->
    case Read(kb_authority_tree:entity_path(Entity)) of
        #{session := Session, epoch := Epoch} -> {ok, #{session => Session, epoch => Epoch}, []};
        undefined -> refuse(no_entity, <<"no entity of this name">>);
        Record -> kb_authority_tree:not_holder(Record)
    end.

%% A key of a subject, a server or the instance, or a single certificate, counts no more. What a server with that key
%% has open ends with its lease, not at once: it may act that long.
-spec revoke(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
revoke(#{id := Id, reason := Reason, at := At}, Read, List) ->
    case Read(revoked_path(Id)) of
        undefined ->
            Record = #{id => Id, reason => Reason, at => At},
            {ok, Record, [{put, revoked_path(Id), Record}]
                ++ [{put, key_path(Id), Key#{state => revoked, until => At div 1000}} || #{} = Key <- [Read(key_path(Id))]]
                ++ lists:append([revoked_server(Server, Read) || #{thumbprint := Thumbprint} = Server <- List([bridge, servers]),
                                                                 Thumbprint =:= Id])};
        Record -> {ok, Record, []}
    end.

revoked_server(#{server := Server, session := Session} = Record, Read) ->
    [{put, server_path(Server), Record#{revoked => true}}
     | [{put, session_path(Session), Open#{revoked => true}}
        || Session =/= undefined, #{} = Open <- [Read(session_path(Session))]]].

%% The instance's keys only go forward: next, current, retired; revoked from anywhere. A retired one verifies for as
%% long as anything can be good that it signed. A member that still has an old signer changes nothing.
-spec publish_key(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
publish_key(#{kid := Kid, key := Key, state := State, at := At}, Read, List) ->
    Record = #{kid => Kid, key => Key, state => State, since => At div 1000, until => undefined},
    case Read(key_path(Kid)) of
        #{state := Known} = Same when Known =:= State; Known =/= next -> {ok, Same, []};
        _ when State =:= current ->
            Until = At div 1000 + ?OVERLAP_S,
            {ok, Record, [{put, key_path(Old), Former#{state => retired, until => Until}}
                          || #{state := current, kid := Old} = Former <- List([bridge, keys])]
             ++ [{put, key_path(Kid), Record}]};
        _ -> {ok, Record, [{put, key_path(Kid), Record}]}
    end.

%% By the operator, or by the server that the player is at: in the session where the player entered, not a later one.
-spec set_player_data(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
set_player_data(#{player := Player, data := Data, by := By}, Read) ->
    Here = case kb_authority_player:session(Player, Read) of
               undefined -> none;
               Session -> maps:get(server, Read(session_path(Session)))
           end,
    case By =:= operator orelse By =:= Here of
        true ->
            Path = [bridge, player_data, Player],
            Version = case Read(Path) of
                          #{version := Before} -> Before + 1;
                          undefined -> 1
                      end,
            Record = #{player => Player, data => Data, version => Version},
            {ok, #{player => Player, version => Version}, [{put, Path, Record}]};
        false -> refuse(not_here, <<"the player is not at this server">>)
    end.

%% Why a server may not open a session under its name and key, if so.
-spec refused(map(), kb_authority_tree:read()) -> kb_authority_tree:refusal() | none.
refused(#{server := Server, thumbprint := Thumbprint}, Read) ->
    case {is_revoked(Thumbprint, Read), Read(subject_path(server, Server))} of
        {true, _} -> revoked();
        {_, #{thumbprint := Other}} when Other =/= Thumbprint ->
            refuse(server_key_mismatch, <<"this name was enrolled with another key: give its key file, or take another name">>);
        _ -> none
    end.

%% Without the records of servers that are away and whose keys were revoked: their names are free for other keys.
-spec unrevoked(binary(), kb_authority_tree:read()) -> kb_authority_tree:read().
unrevoked(Server, Read) ->
    Path = server_path(Server),
    case Read(Path) of
        #{session := undefined, revoked := true} ->
            fun(Asked) when Asked =:= Path -> undefined;
               (Asked) -> Read(Asked)
            end;
        _ -> Read
    end.

is_revoked(Id, Read) -> Read(revoked_path(Id)) =/= undefined.

revoked() -> refuse(revoked, <<"this key or certificate was revoked">>).
