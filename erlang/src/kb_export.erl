%% Export and import in the format of `khepri_export_erlang': a record `{put, Path, Payload, Options}' for each node that
%% has a payload or conditions (docs/protocol.md §1).
%%
%% Khepri's own export prints inside the process of the store. Here only references to the nodes are gathered there, by this
%% module as the callback of `khepri:export/4', and printed in the process of the call.
%%
%% Khepri writes Latin-1 and reads UTF-8, so texts beyond ASCII change on their way through its own export and import. Our
%% files begin with a comment that names the encoding, which Khepri heeds; a file without one is read as what wrote it.
-module(kb_export).

-export([export/3, import/3, backup/2, restore/3]).
%% Of kb_backup.
-export([gathered/4, read/2, write_all/3]).
%% Called by Khepri, inside the store's process.
-export([open_write/1, write/2, commit_write/1, abort_write/1]).
%% Run inside Ra.
-export([restore/1]).

-include_lib("khepri/include/khepri.hrl").

-define(MAX_BYTES, 67108864).
%% Printing and reading a number is quadratic in its digits, and cannot be interrupted.
-define(MAX_NUMBER_BYTES, 8192).
-define(MAX_DIGITS, 20000).
-define(MAX_WORD_BYTES, 1020).
-define(MAX_SEGMENT_BITS, 64).
-define(ENCODING, <<"%% coding: latin-1\n">>).
-define(MAX_WATCHED, 32).
-define(CHUNK_NODES, 500).
-define(CHUNK_BYTES, 262144).
%% What Khepri gives to a parent that it made on the way to a node; it does so again at the import.
-define(IMPLICIT(Path), #{Path := {if_any, [{if_child_list_length, {gt, 0}}, {if_has_payload, true}]}}).

-record(gathered, {scope :: scope(), records = [] :: [tuple()], bytes = 0 :: non_neg_integer()}).

-export_type([scope/0, entry/0]).

%% `data': nothing below `/:bridge', where identity, sessions, grants and clients of this cluster lie, which no other one
%% may take over. `instance': a backup, see kb_backup.
-type scope() :: data | instance.
-type entry() :: {khepri_path:native_path(), khepri_payload:payload(), khepri:put_options()}.

-spec export(term(), term(), term()) -> kb_call:answer().
export(Store, Pattern, Options) ->
    case {kb_path:pattern(Pattern), kb_validate:write(Options)} of
        {{ok, Native}, {ok, Timeout}} ->
            gathered(Store, Native, data, Timeout);
        Refused -> kb_call:first_refusal(Refused)
    end.

%% One state of the store, whatever is written meanwhile.
-spec gathered(term(), khepri_path:native_pattern(), scope(), pos_integer()) -> kb_call:answer().
gathered(Store, Native, Scope, Timeout) ->
    kb_call:on_store(Store, Timeout, fun() ->
        case khepri:export(Store, Native, ?MODULE, #gathered{scope = Scope}) of
            {ok, #gathered{records = Records}} -> text(lists:reverse(Records), [], 0, 0);
            {error, too_large} -> too_large();
            Error -> kb_call:failure(Error, Store)
        end
    end).

-spec backup(term(), term()) -> kb_call:answer().
backup(Store, Options) -> kb_backup:backup(Store, Options).

-spec restore(term(), term(), term()) -> kb_call:answer().
restore(Store, Bytes, Options) -> kb_backup:restore(Store, Bytes, Options).

-spec open_write(#gathered{}) -> {ok, #gathered{}}.
open_write(Gathered) -> {ok, Gathered}.

-spec write(#gathered{}, [tuple()]) -> {ok, #gathered{}} | {error, too_large}.
write(Gathered, []) -> {ok, Gathered};
write(#gathered{scope = Scope, records = Records, bytes = Bytes} = Gathered, [Record | Rest]) ->
    case is_wanted(Scope, element(2, Record)) of
        false -> write(Gathered, Rest);
        true ->
            case Bytes + erlang:external_size(Record) of
                Total when Total > ?MAX_BYTES -> {error, too_large};
                Total -> write(Gathered#gathered{records = [Record | Records], bytes = Total}, Rest)
            end
    end.

is_wanted(data, [bridge | _]) -> false;
is_wanted(data, _) -> true;
is_wanted(instance, Path) -> kb_backup:is_kept(Path).

-spec commit_write(#gathered{}) -> {ok, #gathered{}}.
commit_write(Gathered) -> {ok, Gathered}.

-spec abort_write(#gathered{}) -> ok.
abort_write(_) -> ok.

text([], Lines, Nodes, _) ->
    {ok, #{bytes => iolist_to_binary([?ENCODING | lists:reverse(Lines)]), nodes => Nodes}};
text([Record | Records], Lines, Nodes, Bytes) ->
    case is_printable(Record) of
        true ->
            Line = iolist_to_binary(io_lib:format("~0p.~n", [Record])),
            case Bytes + byte_size(Line) of
                Total when Total > ?MAX_BYTES -> too_large();
                Total -> text(Records, [Line | Lines], Nodes + 1, Total)
            end;
        false ->
            {error, {invalid_data, #{path => element(2, Record),
                                     message => <<"this node holds a pid, a port, a reference or a number of more than 8 KiB, "
                                                  "which the format cannot carry: export a pattern without it">>}}}
    end.

is_printable([Head | Tail]) -> is_printable(Head) andalso is_printable(Tail);
is_printable(Term) when is_tuple(Term) -> is_printable(tuple_to_list(Term));
is_printable(Term) when is_map(Term) -> is_printable(maps:to_list(Term));
is_printable(Term) when is_integer(Term) -> erlang:external_size(Term) =< ?MAX_NUMBER_BYTES;
is_printable(Term) -> is_atom(Term) orelse is_bitstring(Term) orelse is_float(Term) orelse Term =:= [].

too_large() ->
    {error, {too_large, #{maximum => ?MAX_BYTES,
                          message => <<"more than 64 MiB: export or import parts of the tree, one after the other">>}}}.

%% All of it is read and checked before anything is written. Then it is written in transactions of up to 500 nodes: an
%% import that fails in between leaves those before it written, and may be repeated.
-spec import(term(), term(), term()) -> kb_call:answer().
import(Store, Bytes, Options) when is_binary(Bytes), byte_size(Bytes) =< ?MAX_BYTES ->
    case kb_validate:write(Options) of
        {ok, Timeout} ->
            Deadline = erlang:monotonic_time(millisecond) + Timeout,
            kb_call:on_store(Store, Timeout, fun() ->
                case read(Bytes, data) of
                    {ok, Records} -> write_all(Store, Records, Deadline);
                    Refused -> Refused
                end
            end);
        Refused -> Refused
    end;
import(_, Bytes, _) when is_binary(Bytes) -> too_large();
import(_, _, _) -> kb_call:refuse(invalid_request, <<"an import takes the bytes of a file">>).

%% All that a file says, checked.
-spec read(binary(), scope()) -> {ok, [entry()]} | kb_call:refusal().
read(Bytes, Scope) when byte_size(Bytes) =< ?MAX_BYTES ->
    try {ok, records(binary:split(Bytes, <<"\n">>, [global]), {encoding(Bytes), Scope})}
    catch
        throw:{refused, Reason, Props} -> {error, {Reason, Props}}
    end;
read(_, _) -> too_large().

%% Nodes first, conditions after: they may be about nodes that come later. `Deadline' in milliseconds of the monotonic clock.
-spec write_all(atom(), [entry()], integer()) -> kb_call:answer().
write_all(Store, Records, Deadline) ->
    Bare = [{Path, Payload} || {Path, Payload, _} <- Records],
    Conditional = [{Path, Payload, Options} || {Path, Payload, Options} <- Records, map_size(Options) > 0],
    case in_chunks(Store, Bare, Deadline) of
        ok ->
            case in_chunks(Store, Conditional, Deadline) of
                ok -> {ok, #{nodes => length(Records)}};
                Error -> Error
            end;
        Error -> Error
    end.

in_chunks(_, [], _) -> ok;
in_chunks(Store, Records, Deadline) ->
    {Chunk, Rest} = chunk(Records, [], 0, 0),
    Left = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case khepri:transaction(Store, fun ?MODULE:restore/1, [Chunk], rw, kb_compat:transaction_options(Left)) of
        {ok, restored} -> in_chunks(Store, Rest, Deadline);
        {ok, Error} -> kb_call:failure(Error, Store);
        {error, {kb_export, Path, {khepri, keep_while_conditions_not_met, _}}} ->
            {error, {keep_while_conditions_not_met,
                     #{path => Path, message => <<"the keep_while condition of this node does not hold here; the others were "
                                                  "written">>}}};
        {error, {kb_export, Path, Reason}} ->
            Shown = unicode:characters_to_binary(io_lib:format("~0tP", [Reason, 20])),
            {error, {invalid_operation, #{path => Path, reason => Shown,
                                          message => <<"the store refused this node; those before it were written">>}}};
        Error -> kb_call:failure(Error, Store)
    end.

chunk([Record | Rest], Chunk, Nodes, Bytes) when Nodes < ?CHUNK_NODES, Bytes < ?CHUNK_BYTES ->
    chunk(Rest, [Record | Chunk], Nodes + 1, Bytes + erlang:external_size(Record));
chunk(Rest, Chunk, _, _) -> {lists:reverse(Chunk), Rest}.

%% The transaction: everything is absolute, so that a repeat does no harm.
-spec restore([Node]) -> restored when
      Node :: {khepri_path:native_path(), khepri_payload:payload()}
            | {khepri_path:native_path(), khepri_payload:payload(), khepri:put_options()}.
restore([]) -> restored;
restore([Record | Rest]) ->
    {Path, Answer} = case Record of
                         {Native, Payload} -> {Native, khepri_tx:put(Native, Payload)};
                         {Native, Payload, Options} -> {Native, khepri_tx:put(Native, Payload, Options)}
                     end,
    case Answer of
        ok -> restore(Rest);
        {error, Reason} -> khepri_tx:abort({kb_export, Path, Reason})
    end.

encoding(Bytes) ->
    case epp:read_encoding_from_binary(binary:part(Bytes, 0, min(byte_size(Bytes), 1024))) of
        utf8 -> utf8;
        _ -> latin1
    end.

records(Lines, Reading) -> records(Lines, 1, {[], outside}, Reading, []).

%% A term may go over several lines; most have one each. `Place': whether a line begins within a text.
records([], Number, {Scan, _}, _, Records) ->
    case erl_scan:tokens(Scan, eof, Number) of
        {done, {eof, _}, _} -> lists:reverse(Records);
        _ -> refused(Number - 1, <<"the file ends within a record">>)
    end;
records([Line | Lines], Number, {Scan, Place}, {Encoding, Scope} = Reading, Records) ->
    After = may_be_scanned(Line, Place, Encoding, Number),
    case erl_scan:tokens(Scan, characters(Line, Encoding, Number), Number) of
        {more, More} ->
            records(Lines, Number + 1, {More, After}, Reading, Records);
        {done, {ok, Tokens, _}, []} when After =:= outside ->
            case record(Tokens, {Number, Scope}) of
                implicit -> records(Lines, Number + 1, {[], After}, Reading, Records);
                Record -> records(Lines, Number + 1, {[], After}, Reading, [Record | Records])
            end;
        {done, {ok, _, _}, _} -> refused(Number, <<"one record on a line">>);
        {done, _, _} -> refused(Number, <<"not a file of khepri_export_erlang">>)
    end.

characters(Line, latin1, _) -> binary_to_list(Line) ++ "\n";
characters(Line, utf8, Number) ->
    case unicode:characters_to_list(Line) of
        Text when is_list(Text) -> Text ++ "\n";
        _ -> refused(Number, <<"this line is not in UTF-8, as the file says it is">>)
    end.

record(Tokens, {Number, _} = Place) ->
    ok = segments_are_short(Tokens, Number),
    try erl_parse:parse_term(Tokens) of
        {ok, Term} -> checked(Term, Place);
        {error, _} -> refused(Number, <<"not an Erlang term">>)
    catch
        error:_ -> refused(Number, <<"not an Erlang term">>)
    end.

%% `<<0:99999999999>>' would be made as it is read.
segments_are_short([{':', _}, {integer, _, Bits} | Tokens], Number) when Bits =< ?MAX_SEGMENT_BITS ->
    segments_are_short(Tokens, Number);
segments_are_short([{':', _} | _], Number) ->
    refused(Number, <<"a colon stands only before up to 64 bits of a bit string">>);
segments_are_short([_ | Tokens], Number) -> segments_are_short(Tokens, Number);
segments_are_short([], _) -> ok.

checked({put, Path, '$__NO_PAYLOAD__', #{keep_while := KeepWhile} = Options}, {Number, _} = Place)
  when map_size(Options) =:= 1, map_size(KeepWhile) =:= 1 ->
    case KeepWhile of
        ?IMPLICIT(Path) -> implicit;
        _ -> {writable(Path, Place), khepri_payload:none(), conditions(KeepWhile, Number)}
    end;
checked({put, Path, '$__NO_PAYLOAD__', Options}, {Number, _} = Place) when is_map(Options) ->
    {writable(Path, Place), khepri_payload:none(), put_options(Options, Number)};
checked({put, Path, {p_data, Data}, Options}, {Number, _} = Place) when is_map(Options) ->
    ok = valid(kb_validate:data(Data), Number),
    {writable(Path, Place), khepri_payload:data(Data), put_options(Options, Number)};
checked({put, _, Sproc, _}, {Number, _}) when element(1, Sproc) =:= p_sproc ->
    refused(not_allowed, Number, <<"a stored procedure is not imported: export with the condition {if_has_data, true}, and put "
                                   "procedures by put_sproc">>);
checked(_, {Number, _}) ->
    refused(Number, <<"not a record {put, Path, Payload, Options} of khepri_export_erlang">>).

put_options(Options, _) when map_size(Options) =:= 0 -> #{};
put_options(#{keep_while := KeepWhile} = Options, Number) when map_size(Options) =:= 1 -> conditions(KeepWhile, Number);
put_options(_, Number) -> refused(invalid_options, Number, <<"a node has no options but keep_while">>).

conditions(KeepWhile, _) when KeepWhile =:= #{} -> #{};
conditions(KeepWhile, Number) when is_map(KeepWhile), map_size(KeepWhile) =< ?MAX_WATCHED ->
    #{keep_while => maps:from_list([{watched(Path, Number), condition(Condition, Number)}
                                    || {Path, Condition} <- maps:to_list(KeepWhile)])};
conditions(_, Number) -> refused(invalid_options, Number, <<"keep_while is a map of up to 32 conditions">>).

condition(Condition, Number) ->
    case kb_condition:checked(kb_condition:shown(Condition), keep_while) of
        {ok, Checked} -> Checked;
        {poison, Message} -> refused(poison, Number, Message)
    end.

%% What `kb_condition' adds to an expression was stored with it.
watched(Path, Number) ->
    native(fun(Native) -> kb_path:watched([kb_condition:shown(Component) || Component <- Native]) end, Path, Number).

writable([bridge | _] = Path, {_, instance}) -> Path;
writable(Path, {Number, _}) -> native(fun kb_path:writable/1, Path, Number).

native(Check, Path, Number) ->
    try length(Path) of
        _ -> valid(Check(Path), Number)
    catch
        error:badarg -> not_native(Number)
    end.

-spec not_native(pos_integer()) -> no_return().
not_native(Number) -> refused(invalid_path, Number, <<"a path is a list of atoms and binaries">>).

valid(ok, _) -> ok;
valid({ok, Value}, _) -> Value;
valid({error, {Reason, Props}}, Number) -> throw({refused, Reason, Props#{line => Number}}).

%% Where the line ends, if the scanner may have it: it makes an atom of every word that is one or a variable, and a
%% number of every run of digits. What is a text to the scanner must be one here, or words hide behind a quote.
may_be_scanned(Line, Place, Encoding, Number) ->
    Room = erlang:system_info(atom_limit) div 2 - erlang:system_info(atom_count),
    Gather = case byte_size(Line) div 2 >= Room of
                 true -> Encoding;
                 false -> false
             end,
    Seen = case Place of
               outside -> outside(Line, [], Gather);
               within -> after_text(Line, [], Gather)
           end,
    case Seen of
        {After, Unknown} ->
            case length(lists:usort(Unknown)) of
                0 -> After;
                New when New < Room -> After;
                _ -> refused(atom_budget, Number, <<"the file would make new atoms, and half of the atom table is used">>)
            end;
        number -> refused(Number, <<"a number of more than 20000 digits">>);
        word -> refused(Number, <<"a word that is too long for an atom">>);
        quoted -> refused(Number, <<"a quoted atom goes over no line">>);
        quotes -> refused(Number, <<"sigils and texts in three quotes are not taken">>)
    end.

%% Words outside of texts that are no atoms yet, only gathered when they could be too many.
outside(<<>>, Unknown, _) -> {outside, Unknown};
outside(<<$", $", $", _/binary>>, _, _) -> quotes;
outside(<<$~, _/binary>>, _, _) -> quotes;
outside(<<$", Rest/binary>>, Unknown, Gather) -> after_text(Rest, Unknown, Gather);
outside(<<$', Rest/binary>>, Unknown, Gather) ->
    case past($', Rest) of
        open -> quoted;
        After ->
            Quoted = binary:part(Rest, 0, byte_size(Rest) - byte_size(After) - 1),
            outside(After, unknown(Quoted, Unknown, Gather), Gather)
    end;
outside(<<$$, $\\, $^, _, Rest/binary>>, Unknown, Gather) -> outside(Rest, Unknown, Gather);
outside(<<$$, $\\, _, Rest/binary>>, Unknown, Gather) -> outside(Rest, Unknown, Gather);
outside(<<$$, _, Rest/binary>>, Unknown, Gather) -> outside(Rest, Unknown, Gather);
outside(<<$%, _/binary>>, Unknown, _) -> {outside, Unknown};
outside(<<Byte, _/binary>> = Line, Unknown, Gather)
  when Byte >= $0, Byte =< $9; Byte >= $a, Byte =< $z; Byte >= $A, Byte =< $Z; Byte =:= $_; Byte >= 128 ->
    Length = word(Line, 0),
    <<Word:Length/binary, Rest/binary>> = Line,
    if
        Byte =< $9, Length > ?MAX_DIGITS -> number;
        Byte > $9, Length > ?MAX_WORD_BYTES -> word;
        Byte =< $9 -> outside(Rest, Unknown, Gather);
        true -> outside(Rest, unknown(Word, Unknown, Gather), Gather)
    end;
outside(<<_, Rest/binary>>, Unknown, Gather) -> outside(Rest, Unknown, Gather).

after_text(Line, Unknown, Gather) ->
    case past($", Line) of
        open -> {within, Unknown};
        After -> outside(After, Unknown, Gather)
    end.

word(Line, Length) ->
    case Line of
        <<_:Length/binary, Byte, _/binary>>
          when Byte >= $0, Byte =< $9; Byte >= $a, Byte =< $z; Byte >= $A, Byte =< $Z; Byte =:= $_; Byte =:= $@;
               Byte >= 128 -> word(Line, Length + 1);
        _ -> Length
    end.

%% `\^"' is one character.
past(_, <<>>) -> open;
past(Quote, <<$\\, $^, _, Rest/binary>>) -> past(Quote, Rest);
past(Quote, <<$\\, _, Rest/binary>>) -> past(Quote, Rest);
past(Quote, <<Quote, Rest/binary>>) -> Rest;
past(Quote, <<_, Rest/binary>>) -> past(Quote, Rest).

unknown(_, Unknown, false) -> Unknown;
unknown(Word, Unknown, Encoding) ->
    try
        _ = binary_to_existing_atom(Word, Encoding),
        Unknown
    catch
        error:_ -> [Word | Unknown]
    end.

-spec refused(pos_integer(), binary()) -> no_return().
refused(Number, Message) -> refused(invalid_data, Number, Message).

-spec refused(atom(), pos_integer(), binary()) -> no_return().
refused(Reason, Number, Message) -> throw({refused, Reason, #{line => Number, message => Message}}).
