%% What a lessor asks of the tree (docs/leases.md). Its generation is the whole of its right: with another one it is
%% deposed, and nothing it asks for happens. None of these needs an operation id: a repeat does no harm.
-module(kb_authority_lease).

-export([take/2, beat/2, expire/3, pass_on/3, lease_ms/2]).

-import(kb_authority_tree, [session_path/1, refuse/3]).

-define(LESSOR, [bridge, lessor]).

%% From this commit on there is a lessor that knows nothing yet, and whoever was it is deposed.
-spec take(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
take(#{node := Node, lease_ms := Lease}, Read) ->
    Taken = #{generation => generation(Read(?LESSOR)) + 1, node => Node, lease_ms => Lease},
    {ok, Taken, [{put, ?LESSOR, Taken}]}.

%% That this reaches the log under the generation is all there is to it: nothing changes. Of the sessions that the
%% lessor has not heard of, it hears which there are.
-spec beat(map(), kb_authority_tree:read()) -> kb_authority_tree:decision().
beat(#{sessions := Unknown} = Request, Read) ->
    current(Request, Read,
            fun() ->
                    {ok, #{there => [{Session, lease_ms(Record, Read(?LESSOR))}
                                     || Session <- Unknown, Record <- [Read(session_path(Session))], Record =/= undefined]},
                     []}
            end).

-spec expire(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
expire(Request, Read, List) ->
    current(Request, Read, fun() -> kb_authority_session:close(Request, Read, List) end).

-spec pass_on(map(), kb_authority_tree:read(), kb_authority_tree:lister()) -> kb_authority_tree:decision().
pass_on(Request, Read, List) ->
    current(Request, Read, fun() -> kb_authority_session:pass_on(Request, Read, List) end).

current(#{generation := Generation}, Read, Decide) ->
    case generation(Read(?LESSOR)) of
        Generation -> Decide();
        Newer -> refuse(deposed, #{generation => Newer}, <<"another lessor has taken over">>)
    end.

generation(undefined) -> 0;
generation(#{generation := Generation}) -> Generation.

%% Of a session, which keeps the lease that it was opened with; those from before there were leases have the lessor's.
-spec lease_ms(map(), map()) -> pos_integer().
lease_ms(#{lease_ms := Lease}, _) -> Lease;
lease_ms(_, #{lease_ms := Lease}) -> Lease.
