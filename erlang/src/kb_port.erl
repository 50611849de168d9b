%% A client on an Erlang port instead of a hidden node (docs/protocol.md §9), either way round: this virtual machine
%% starts the program and supervises it, or the program started this machine and holds the other ends of the
%% descriptors 3 (we read) and 4 (we write). Terms in packets of four bytes' length; no name, no cookie, no socket.
-module(kb_port).
-behaviour(gen_server).

-export([child_spec/1, start_link/1, attach/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0]).

-define(VERSION, 1).
-define(MODULES, [kb_api, kb_khepri, kb_procedures, kb_export]).
-define(MAX_CALLS, 100000).
-define(MAX_INBOXES, 10000).
-define(MAX_PACKET, 134217728).

-type options() :: #{command := file:filename_all(), args => [string() | binary()], cd => file:filename_all(),
                     env => [{string(), string() | false}], modules => [module()]}.

-record(state, {port :: port(), writer :: pid(), modules :: [module()], child :: boolean(),
                calls = #{} :: #{non_neg_integer() => {pid(), reference()}},
                workers = #{} :: #{reference() => non_neg_integer() | cast},
                inboxes = #{} :: #{pid() => pid()}}).

%% For a supervisor: `{kb_port, #{command => "/usr/bin/python3", args => ["world.py"]}}' in Elixir, this function's
%% value in Erlang. The program finds us by bridge.port.connect_port(). When it ends, the supervisor starts it again.
-spec child_spec(options()) -> supervisor:child_spec().
child_spec(#{command := Command} = Options) ->
    #{id => {?MODULE, Command, maps:get(args, Options, [])}, start => {?MODULE, start_link, [Options]},
      shutdown => 5000}.

-spec start_link(options() | attached) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    case gen_server:start_link(?MODULE, Options, []) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, _} = Error -> Error
    end.

%% For `-s kb_port attach': serve the program that started this virtual machine, and end with it.
-spec attach() -> ok.
attach() ->
    {ok, _} = supervisor:start_child(kb_sup, #{id => ?MODULE, start => {?MODULE, start_link, [attached]},
                                               restart => temporary}),
    ok.

-spec init(options() | attached) -> {ok, #state{}} | {stop, term()}.
init(attached) ->
    %% A program that ended before this machine was up leaves pipes that end by an exit signal, not by eof.
    _ = process_flag(trap_exit, true),
    serve(erlang:open_port({fd, 3, 4}, [{packet, 4}, binary, eof]), false, ?MODULES);
init(#{command := Command} = Options) ->
    case os:find_executable(unicode:characters_to_list(Command)) of
        false -> {stop, {no_such_program, Command}};
        Program ->
            _ = process_flag(trap_exit, true),
            Settings = [{packet, 4}, binary, eof, exit_status, nouse_stdio, {args, maps:get(args, Options, [])}
                        | maps:to_list(maps:with([cd, env], Options))],
            serve(erlang:open_port({spawn_executable, Program}, Settings), true,
                  maps:get(modules, Options, ?MODULES))
    end.

serve(Port, Child, Modules) ->
    Store = case kb_store:identity() of
                #{store := Name} -> Name;
                undefined -> undefined
            end,
    Writer = spawn_link(fun() -> write_all(Port) end),
    ok = write(Writer, {hello, #{version => ?VERSION, node => node(), store => Store,
                                 otp => list_to_binary(erlang:system_info(otp_release))}}),
    {ok, #state{port = Port, writer = Writer, modules = Modules, child = Child}}.

handle_call(_, _From, State) ->
    {reply, {error, unknown_call}, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info({Port, {data, Packet}}, #state{port = Port} = State) ->
    %% The other side is trusted with these modules and no further; what it sends may still be damaged.
    try binary_to_term(Packet) of
        Message -> take(Message, State)
    catch
        error:_ -> {stop, {not_a_term, byte_size(Packet)}, State}
    end;
handle_info({'DOWN', Monitor, process, _, _}, #state{workers = Workers, calls = Calls} = State) ->
    case maps:take(Monitor, Workers) of
        {Id, Rest} -> {noreply, State#state{workers = Rest, calls = maps:remove(Id, Calls)}};
        error -> {noreply, State}
    end;
handle_info({Port, eof}, #state{port = Port, child = false} = State) ->
    {stop, normal, State};
handle_info({Port, eof}, #state{port = Port} = State) ->
    %% Its end of the pipes is closed; the exit status follows, unless it only closed them.
    {noreply, State};
handle_info({Port, {exit_status, 0}}, #state{port = Port} = State) ->
    {stop, {shutdown, program_ended}, State};
handle_info({Port, {exit_status, Status}}, #state{port = Port} = State) ->
    {stop, {program_failed, Status}, State};
handle_info({'EXIT', Port, Reason}, #state{port = Port} = State) ->
    {stop, {port_closed, Reason}, State};
handle_info(_, State) ->
    {noreply, State}.

terminate(_Reason, #state{writer = Writer, inboxes = Inboxes, calls = Calls, child = Child}) ->
    _ = exit(Writer, kill),
    _ = [exit(Relay, kill) || Relay <- maps:values(Inboxes)],
    _ = [exit(Worker, kill) || {Worker, _} <- maps:values(Calls)],
    %% Whatever ends the port of a program that started this machine ends the machine: nobody else can reach it.
    _ = Child orelse init:stop(),
    ok.

take({call, Id, Module, Function, Args}, #state{calls = Calls, workers = Workers} = State)
  when is_integer(Id), Id >= 0, is_atom(Module), is_atom(Function), is_list(Args), not is_map_key(Id, Calls) ->
    case refusal(Module, State) of
        none ->
            Writer = State#state.writer,
            Own = own_pids(Args, State),
            {Worker, Monitor} = spawn_monitor(fun() -> answer(Writer, Id, Module, Function, Own) end),
            {noreply, State#state{calls = Calls#{Id => {Worker, Monitor}}, workers = Workers#{Monitor => Id}}};
        Reason ->
            ok = write(State#state.writer, {reply, Id, {error, Reason, []}}),
            {noreply, State}
    end;
take({cast, Module, Function, Args}, #state{workers = Workers} = State)
  when is_atom(Module), is_atom(Function), is_list(Args) ->
    case refusal(Module, State) of
        none ->
            {_, Monitor} = spawn_monitor(Module, Function, own_pids(Args, State)),
            {noreply, State#state{workers = Workers#{Monitor => cast}}};
        _ -> {noreply, State}
    end;
take({cancel, Id}, #state{calls = Calls} = State) ->
    _ = case Calls of
            #{Id := {Worker, _}} -> exit(Worker, kill);
            _ -> false
        end,
    {noreply, State};
take({open, Pid}, #state{writer = Writer, inboxes = Inboxes} = State)
  when is_pid(Pid), not is_map_key(Pid, Inboxes), map_size(Inboxes) < ?MAX_INBOXES ->
    Relay = spawn_link(fun() -> relay(Writer, Pid) end),
    {noreply, State#state{inboxes = Inboxes#{Pid => Relay}}};
take({close, Pid}, #state{inboxes = Inboxes} = State) ->
    case maps:take(Pid, Inboxes) of
        {Relay, Rest} ->
            true = unlink(Relay),
            true = exit(Relay, kill),
            {noreply, State#state{inboxes = Rest}};
        error -> {noreply, State}
    end;
take(Other, State) ->
    {stop, {not_a_message, Other}, State}.

refusal(Module, #state{modules = Modules, workers = Workers}) ->
    case lists:member(Module, Modules) of
        false -> {not_allowed, Module};
        true when map_size(Workers) >= ?MAX_CALLS -> system_limit;
        true -> none
    end.

%% The other side has no pids: those it names stand for the relays of its inboxes. They occur as arguments and as
%% members of a request.
own_pids(Args, #state{inboxes = Inboxes}) when map_size(Inboxes) =:= 0 ->
    Args;
own_pids(Args, #state{inboxes = Inboxes}) ->
    [case Arg of
         #{pid := Pid} -> Arg#{pid := maps:get(Pid, Inboxes, Pid)};
         Pid when is_pid(Pid) -> maps:get(Pid, Inboxes, Pid);
         _ -> Arg
     end || Arg <- Args].

answer(Writer, Id, Module, Function, Args) ->
    Outcome = try
                  {ok, apply(Module, Function, Args)}
              catch
                  Class:Reason:Stack -> {Class, Reason, Stack}
              end,
    write(Writer, {reply, Id, Outcome}).

relay(Writer, Pid) ->
    receive
        Message ->
            ok = write(Writer, {message, Pid, Message}),
            relay(Writer, Pid)
    end.

%% Encoded by whoever has something to say; what is passed on is a reference to the bytes.
write(Writer, {reply, Id, _} = Reply) ->
    case term_to_binary(Reply) of
        Packet when byte_size(Packet) =< ?MAX_PACKET -> pass(Writer, Packet);
        %% It would end the port, and with it everything that others wait for.
        Packet -> write(Writer, {reply, Id, {error, {packet_too_large, byte_size(Packet)}, []}})
    end;
write(Writer, Term) ->
    pass(Writer, term_to_binary(Term)).

pass(Writer, Packet) ->
    Writer ! Packet,
    ok.

%% One process alone writes: of thousands that wait for a pipe with room, OTP 25 leaves some waiting for ever, with
%% the pipe empty, until something else is written.
write_all(Port) ->
    receive
        Packet ->
            %% A closed port is noticed by its owner.
            _ = try erlang:port_command(Port, Packet)
                catch error:badarg -> true
                end,
            write_all(Port)
    end.
