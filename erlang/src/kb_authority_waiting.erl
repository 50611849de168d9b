%% Whose release is due before a new holder may act. A pull from a holder that itself still waits keeps that wait
%% inside the new one: should the middle session end, the older holder's release is due to the newest.
-module(kb_authority_waiting).

-export([behind/2, without/2, settled/2, is_due/2, recalls/3, recall/6]).

-export_type([due/0]).

-type due() :: map() | undefined.

%% What is due to a session that takes the entity from its holder. Who pulls has passed on what it had, and so had
%% received what was due to it: the chain ends there. Without this it would grow with every pull of an entity that
%% moves by pulls alone.
-spec behind(binary(), map()) -> due().
behind(Session, Record) -> until(fun(#{session := Due}) -> Due =:= Session end, awaiting(Record)).

awaiting(#{session := undefined, awaiting := Due}) -> Due;
awaiting(#{session := Session, server := Server, epoch := Epoch, awaiting := undefined}) ->
    #{session => Session, server => Server, epoch => Epoch};
awaiting(#{session := Session, server := Server, epoch := Epoch, awaiting := Due}) ->
    #{session => Session, server => Server, epoch => Epoch, awaiting => Due}.

%% The chain of releases due, as far as sessions have not said that they released: those who name an epoch neither act,
%% nor ever will, under any of theirs up to it. Nobody releases before it has received what was due to it, so behind such
%% a link nothing is due either.
-spec settled([{binary(), non_neg_integer()}], due()) -> due().
settled(Released, Due) ->
    until(fun(#{session := Session, epoch := Epoch}) ->
                  lists:any(fun({Who, UpTo}) -> Who =:= Session andalso Epoch =< UpTo end, Released)
          end, Due).

until(_IsEnd, undefined) -> undefined;
until(IsEnd, Due) ->
    case {IsEnd(Due), Due} of
        {true, _} -> undefined;
        {false, #{awaiting := Older}} -> with_older(until(IsEnd, Older), Due);
        {false, _} -> Due
    end.

with_older(undefined, Due) -> maps:remove(awaiting, Due);
with_older(Older, Due) -> Due#{awaiting => Older}.

%% The chain of releases due, without those of an ended session.
-spec without(binary(), due()) -> due().
without(_Session, undefined) -> undefined;
without(Session, #{session := Session} = Due) -> without(Session, maps:get(awaiting, Due, undefined));
without(Session, #{awaiting := Older} = Due) -> with_older(without(Session, Older), Due);
without(_Session, Due) -> Due.

%% Whether a session's release stands in the chain.
-spec is_due(binary(), due()) -> boolean().
is_due(_Session, undefined) -> false;
is_due(Session, #{session := Session}) -> true;
is_due(Session, Due) -> is_due(Session, maps:get(awaiting, Due, undefined)).

-spec recalls(map(), map(), kb_authority_tree:read()) -> [kb_authority_tree:change()].
recalls(#{awaiting := #{session := Due, epoch := Epoch}, entity := Entity} = Record, Step, Read) ->
    [recall(Due, Entity, Epoch, Record, Step, Read)];
recalls(_Record, _Step, _Read) ->
    [].

%% A recall takes the place of a grant in the inbox; one that the holder may not have read goes along.
-spec recall(binary(), binary(), non_neg_integer(), map(), map(), kb_authority_tree:read()) ->
          kb_authority_tree:change().
recall(Holder, Entity, Epoch, #{epoch := Granted, server := To, session := Session, owner := Owner}, Step, Read) ->
    Path = kb_authority_tree:inbox_path(Holder, Entity),
    Recall = maps:merge(#{type => recall, entity => Entity, epoch => Epoch, granted => Granted, to => To,
                          session => Session, owner => Owner}, Step),
    case Read(Path) of
        #{type := Type, epoch := Epoch} = Grant when Type =:= grant; Type =:= failover ->
            {put, Path, Recall#{unread => Grant}};
        #{type := recall, epoch := Epoch, unread := Grant} -> {put, Path, Recall#{unread => Grant}};
        _ -> {put, Path, Recall#{unread => undefined}}
    end.
