%% All that an instance knows, as one file of kb_export's format, and its way back into a cluster that knows nothing yet.
%%
%% What was going on when the backup was taken is over: sessions, inboxes and questions are not in it, and every entity comes
%% back dormant. Epochs go on above all that the backup knows of, so that no record of its time counts afterwards.
-module(kb_backup).

-export([backup/2, restore/3, is_kept/1]).

%% Of this cluster or of a moment; everything else below `/:bridge' is kept, also what later versions put there.
-define(MOMENTARY, [procedures, clients, client_counts, lessor, members, sessions, ending, held, inbox, asks, counts, restoring]).
-define(MARK, [bridge, restoring]).
%% What a cluster without servers and players may know.
-define(BORN_WITH, [identity, grants, procedures, clients, client_counts, lessor, members, refusals]).
-define(CONSISTENT, #{favor => consistency, timeout => 10000}).

-spec backup(term(), term()) -> kb_call:answer().
backup(Store, Options) ->
    case kb_validate:write(Options) of
        {ok, Timeout} -> kb_export:gathered(Store, [{if_path_matches, any, undefined}], instance, Timeout);
        Refusal -> Refusal
    end.

-spec is_kept(khepri_path:native_path()) -> boolean().
is_kept([bridge, Kind | _]) -> not lists:member(Kind, ?MOMENTARY);
is_kept(_) -> true.

%% Everything is checked before anything is written. A restore that was interrupted is repeated with the same file;
%% until it has ended nobody opens a session.
-spec restore(term(), term(), term()) -> kb_call:answer().
restore(Store, Bytes, Options) when is_binary(Bytes) ->
    case kb_validate:write(Options) of
        {ok, Timeout} ->
            Deadline = erlang:monotonic_time(millisecond) + Timeout,
            kb_call:on_store(Store, Timeout, fun() ->
                Mark = #{digest => crypto:hash(sha256, Bytes)},
                case begun(Store, kb_export:read(Bytes, instance), Mark) of
                    {ok, Records} -> put_back(Store, Records, Mark, Deadline);
                    Refusal -> Refusal
                end
            end);
        Refusal -> Refusal
    end;
restore(_, _, _) ->
    kb_call:refuse(invalid_request, <<"a restore takes the bytes of a file">>).

%% May this file be restored here?
begun(Store, {ok, Records}, Mark) ->
    #{type := Type, instance := Instance} = kb_store:identity(Store),
    case lists:keyfind([bridge, identity], 1, Records) of
        {_, {p_data, #{type := Type, instance := Instance}}, _} ->
            fresh(Store, Records, Mark);
        {_, {p_data, #{type := OtherType, instance := Other}}, _} ->
            {error, {invalid_request, #{type => OtherType, instance => Other,
                                        message => <<"this is the backup of another instance">>}}};
        _ ->
            kb_call:refuse(invalid_request, <<"this is no backup: import takes what export writes">>)
    end;
begun(_, Refusal, _) -> Refusal.

fresh(Store, Records, Mark) ->
    case khepri:get(Store, ?MARK, ?CONSISTENT) of
        {ok, Mark} -> {ok, Records};
        {ok, _} -> kb_call:refuse(not_empty, <<"the restore of another backup was begun here: erase this cluster first">>);
        {error, {khepri, node_not_found, _}} ->
            case {names(Store, []), names(Store, [bridge])} of
                {{ok, [bridge]}, {ok, Names}} ->
                    case Names -- ?BORN_WITH of
                        [] -> {ok, Records};
                        _ -> not_empty()
                    end;
                {{ok, _}, {ok, _}} -> not_empty();
                {{ok, _}, Error} -> kb_call:failure(Error, Store);
                {Error, _} -> kb_call:failure(Error, Store)
            end;
        Error -> kb_call:failure(Error, Store)
    end.

names(Store, Path) ->
    case khepri_adv:get_many(Store, Path, maps:put(props_to_return, [child_names], ?CONSISTENT)) of
        {ok, #{Path := #{child_names := Names}}} -> {ok, Names};
        Error -> Error
    end.

not_empty() ->
    kb_call:refuse(not_empty, <<"this cluster knows something already: restore into one that was just started">>).

put_back(Store, Records, Mark, Deadline) ->
    Steps = [fun() -> kb_export:write_all(Store, [{?MARK, khepri_payload:data(Mark), #{}}], Deadline) end,
             fun() -> kb_export:write_all(Store, lists:filtermap(fun restored/1, Records), Deadline) end,
             fun() -> kb_commit:own(Store, raise_epochs, #{above => above(Records)}, left(Deadline)) end,
             fun() -> khepri:delete(Store, ?MARK, #{timeout => left(Deadline)}) end],
    case in_order(Steps) of
        done -> {ok, #{nodes => length(Records)}};
        Refusal -> Refusal
    end.

in_order([]) -> done;
in_order([Step | Steps]) ->
    case Step() of
        ok -> in_order(Steps);
        {ok, _} -> in_order(Steps);
        {error, {Reason, Props}} = Refusal when is_atom(Reason), is_map(Props) -> Refusal;
        _ -> kb_call:timed_out()
    end.

left(Deadline) -> max(1, Deadline - erlang:monotonic_time(millisecond)).

above(Records) ->
    case lists:keyfind([bridge, grants], 1, Records) of
        {_, {p_data, #{incarnation := Incarnation, counter := Counter}}, _} -> (Incarnation bsl 48) bor Counter;
        false -> 0
    end.

%% This cluster has an identity and grants of its own.
restored({[bridge, Own], _, _}) when Own =:= identity; Own =:= grants -> false;
restored({[bridge, entities, _], {p_data, #{deleted := true}}, _}) -> false;
restored({[bridge, entities, _] = Path, {p_data, #{version := Version} = Record}, Options}) ->
    Dormant = Record#{session => undefined, server => undefined, awaiting => undefined, version => Version + 1},
    {true, {Path, khepri_payload:data(Dormant), Options}};
restored({[bridge, servers, _] = Path, {p_data, Record}, Options}) ->
    {true, {Path, khepri_payload:data(Record#{session => undefined}), Options}};
restored(_) -> true.
