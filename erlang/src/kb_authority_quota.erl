%% How many entities there may be, in the instance and under one master. What is counted lies in one record,
%% `/:bridge/:counts': it is made of all entities when somebody first asks for room, and follows every change from there
%% on. The limits come with the request, put there before the log: members may be configured differently for a while.
-module(kb_authority_quota).

-export([room/4, has_room/3, moved/3]).

-import(kb_authority_tree, [refuse/3]).

-define(COUNTS, [bridge, counts]).

-type counts() :: #{entities := non_neg_integer(), masters := #{binary() => pos_integer()}}.
%% An entity, and its record before and after a decision.
-type changed() :: {binary(), map() | undefined, map() | undefined}.

%% Whether a master may have one more; with it the counts, where they were only made now. An entity that a master passes to
%% another one is none more for the instance.
-spec room(new | passed, binary(), map(), {kb_authority_tree:read(), kb_authority_tree:lister()}) ->
          {ok, [kb_authority_tree:change()]} | kb_authority_tree:refusal().
room(What, Master, #{limits := #{instance := OfInstance, master := OfMaster} = Limits}, {Read, List}) ->
    {Counts, Made} = counts(Read, List),
    case met(What, Master, Limits, Counts) of
        none -> {ok, Made};
        instance ->
            refuse(quota, #{limit => instance, maximum => OfInstance},
                   <<"the instance has as many entities as it may: delete some, or raise KB_MAX_ENTITIES">>);
        master ->
            refuse(quota, #{limit => master, master => Master, maximum => OfMaster},
                   <<"this master has as many entities as one may: delete some, or raise KB_MAX_ENTITIES_PER_MASTER">>)
    end;
room(_, _, _, _) ->
    {ok, []}.

%% The same of one that comes from another instance, where there are counts: nothing is made for a stranger.
-spec has_room(binary(), map(), kb_authority_tree:read()) -> boolean().
has_room(Master, #{limits := #{} = Limits}, Read) ->
    case Read(?COUNTS) of
        undefined -> true;
        Counts -> met(new, Master, Limits, Counts) =:= none
    end;
has_room(_, _, _) -> true.

-spec met(new | passed, binary(), kb_limits:limits(), counts()) -> none | instance | master.
met(new, _, #{instance := OfInstance}, #{entities := Entities}) when Entities >= OfInstance -> instance;
met(_, Master, #{master := OfMaster}, #{masters := Masters}) ->
    case maps:get(Master, Masters, 0) >= OfMaster of
        true -> master;
        false -> none
    end.

counts(Read, List) ->
    case Read(?COUNTS) of
        undefined ->
            Counts = lists:foldl(fun(Record, Acc) -> count(undefined, Record, Acc) end, #{entities => 0, masters => #{}},
                                 List([bridge, entities])),
            {Counts, [{put, ?COUNTS, Counts}]};
        Counts -> {Counts, []}
    end.

%% What a decision makes of the counts, where there are any.
-spec moved([changed()], [kb_authority_tree:change()], kb_authority_tree:read()) -> [kb_authority_tree:change()].
moved(Changed, Changes, Read) ->
    case [{Before, After} || {_, Before, After} <- Changed, master(Before) =/= master(After)] of
        [] -> [];
        Moves ->
            Known = case lists:keyfind(?COUNTS, 2, Changes) of
                        {put, _, Made} -> Made;
                        false -> Read(?COUNTS)
                    end,
            case Known of
                undefined -> [];
                _ -> [{put, ?COUNTS, lists:foldl(fun({Before, After}, Acc) -> count(Before, After, Acc) end, Known, Moves)}]
            end
    end.

-spec count(map() | undefined, map() | undefined, counts()) -> counts().
count(Before, After, Counts) -> added(master(After), 1, added(master(Before), -1, Counts)).

added(undefined, _, Counts) -> Counts;
added(Master, Change, #{entities := Entities, masters := Masters}) ->
    Left = case maps:get(Master, Masters, 0) + Change of
               Has when Has > 0 -> Masters#{Master => Has};
               _ -> maps:remove(Master, Masters)
           end,
    #{entities => Entities + Change, masters => Left}.

%% What was deleted or is at another instance is nobody's here.
master(undefined) -> undefined;
master(#{deleted := true}) -> undefined;
master(#{away := #{state := gone}}) -> undefined;
master(#{master := Master}) -> Master.
