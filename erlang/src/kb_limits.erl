%% How many entities the operator lets there be (`KB_MAX_ENTITIES', `KB_MAX_ENTITIES_PER_MASTER'), as this member was
%% told. Requests carry it into the log, so all members decide alike.
-module(kb_limits).

-export([set/1, entities/0]).

-export_type([limits/0]).

-type limits() :: #{instance := pos_integer(), master := pos_integer()}.

-spec set(#{max_entities := pos_integer(), max_entities_per_master := pos_integer(), _ => _}) -> ok.
set(#{max_entities := OfInstance, max_entities_per_master := OfMaster}) ->
    persistent_term:put(?MODULE, #{instance => OfInstance, master => OfMaster}).

%% Undefined before a store was started here, where no request gets as far as the log.
-spec entities() -> limits() | undefined.
entities() -> persistent_term:get(?MODULE, undefined).
