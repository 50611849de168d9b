%% A log record as one JSON object on one line. What the code that logs adds to its metadata under these names goes along:
%% `trace' ties a record to a transfer, in every process that took part. (OTP has a JSON module only from 27 on.)
-module(kb_log_json).

-export([format/2, check_config/1]).

-define(FIELDS, [trace, entity, server, session, generation, transfer]).
-define(MAX_CHARS, 4096).

-spec check_config(logger:formatter_config()) -> ok.
check_config(_) -> ok.

-spec format(logger:log_event(), logger:formatter_config()) -> unicode:chardata().
format(#{level := Level, meta := #{time := Time} = Meta} = Event, _Config) ->
    At = calendar:system_time_to_rfc3339(Time, [{unit, microsecond}, {offset, "Z"}]),
    Message = logger_formatter:format(Event, #{template => [msg], single_line => true, max_size => ?MAX_CHARS}),
    Members = [{at, At}, {level, atom_to_list(Level)}, {node, atom_to_list(node())}, {message, Message}]
        ++ [{Field, text(maps:get(Field, Meta))} || Field <- ?FIELDS, is_map_key(Field, Meta)],
    ["{", lists:join(",", [[$", atom_to_list(Name), "\":\"", escaped(Text), $"] || {Name, Text} <- Members]), "}\n"].

%% Ids are bytes, names are text.
text(Id) when is_binary(Id), byte_size(Id) =:= 16 -> [io_lib:format("~2.16.0b", [Byte]) || <<Byte>> <= Id];
text(Name) when is_binary(Name) -> Name;
text(Number) when is_integer(Number) -> integer_to_list(Number);
text(Term) -> io_lib:format("~0tP", [Term, 20]).

escaped(Text) ->
    case unicode:characters_to_list(Text) of
        Characters when is_list(Characters) -> [escape(Character) || Character <- Characters];
        _ -> escaped(io_lib:format("~0p", [Text]))
    end.

escape($") -> "\\\"";
escape($\\) -> "\\\\";
escape(Character) when Character < 32; Character =:= 127; Character >= 16#D800, Character =< 16#DFFF ->
    io_lib:format("\\u~4.16.0b", [Character]);
escape(Character) -> Character.
