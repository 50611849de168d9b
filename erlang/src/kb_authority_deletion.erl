%% An entity that is to be no more (docs/protocol.md §7). Whoever may act for it, now or when what it waits for has come,
%% is recalled for nobody. Until each of them has said that it does not, or its session has ended, a record with
%% `deleted' stands for the entity: nobody may make another one of this name, beside which an old holder could act.
-module(kb_authority_deletion).

-export([delete/3, confirm/2, settled/1]).

-import(kb_authority_tree, [entity_path/1, inbox_path/2, bump/1, next_epoch/1, step_or_none/1, refuse/2, refuse/3]).

%% At another instance its home would believe in it for ever, so only its home deletes it.
-spec delete(map(), map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
delete(#{by := By} = Request, #{home := Home} = Record, Read) ->
    #{instance := Here} = Read([bridge, identity]),
    case kb_authority_roles:check(delete_entity, By, Record) of
        ok when Home =:= Here -> deleted(Request, Record, Read);
        ok -> refuse(not_home, #{instance => Home}, <<"an entity is deleted at its home: pass it back to that instance first">>);
        Refusal -> Refusal
    end.

%% At an epoch of its own, above which the next one of this name begins: state of older grants is late from here on.
deleted(Request, #{entity := Entity} = Record, Read) ->
    {Next, Granted} = next_epoch(Read),
    Due = kb_authority_waiting:behind(<<>>, Record),
    Deleted = bump(Record#{session => undefined, server => undefined, epoch => Next, awaiting => Due, deleted => true}),
    Recalls = [kb_authority_waiting:recall(Session, Entity, Epoch, Deleted, step_or_none(Request), Read)
               || {Session, Epoch} <- links(Due)],
    {ok, Deleted, [Granted, {put, entity_path(Entity), Deleted} | Recalls] ++ kb_authority_ask:deleted(Record, Read)}.

%% A release of what was deleted: this session acts for it no more, and never will.
-spec confirm(map(), map()) -> kb_authority_tree:decision().
confirm(#{session := Session, epoch := Epoch}, #{entity := Entity, awaiting := Due} = Record) ->
    case lists:member({Session, Epoch}, links(Due)) of
        true ->
            Left = bump(Record#{awaiting => kb_authority_waiting:without(Session, Due)}),
            {ok, Left, [{put, entity_path(Entity), Left}, {delete, inbox_path(Session, Entity)}]};
        false ->
            refuse(no_entity, <<"no entity of this name">>)
    end.

links(undefined) -> [];
links(#{session := Session, epoch := Epoch} = Due) -> [{Session, Epoch} | links(maps:get(awaiting, Due, undefined))].

%% Changes as they are to be made: a record goes once nobody may act for its entity any more.
-spec settled([kb_authority_tree:change()]) -> [kb_authority_tree:change()].
settled(Changes) -> [settle(Change) || Change <- Changes].

settle({put, [bridge, entities, _] = Path, #{deleted := true, awaiting := undefined}}) -> {delete, Path};
settle(Change) -> Change.
