%%! -noshell
%% The other side of benchmarks/boxes.py. Reads lines `OPERATION CALLS`, answers each with the microseconds that a
%% call took; says first what it is.
-mode(compile).

main(_) ->
    {ok, _} = application:ensure_all_started(jose),
    ok = jose:json_module(jose_json_jiffy),
    {ok, Version} = application:get_key(jose, vsn),
    io:format("~s ~s~n", [Version, erlang:system_info(otp_release)]),
    Key = jose_jwk:generate_key({ec, <<"P-256">>}),
    Public = jose_jwk:to_public(Key),
    Payload = binary:copy(<<0>>, 1200),
    {Box, _} = jose_jwk:box_encrypt(Payload, Public),
    Token = jose_jwk:sign(Payload, Key),
    serve(#{
        "seal" => fun() -> {_, _} = jose_jwk:box_encrypt(Payload, Public) end,
        "open" => fun() -> {Payload, _} = jose_jwk:box_decrypt(Box, Key) end,
        "sign" => fun() -> {_, _} = jose_jwk:sign(Payload, Key) end,
        "verify" => fun() -> {true, Payload, _} = jose_jwk:verify(Token, Public) end
    }).

serve(Operations) ->
    case io:get_line("") of
        eof ->
            ok;
        Line ->
            [Name, Calls] = string:lexemes(Line, " \n"),
            #{Name := Operation} = Operations,
            Count = list_to_integer(Calls),
            {Microseconds, ok} = timer:tc(fun() -> repeat(Operation, Count) end),
            io:format("~.3f~n", [Microseconds / Count]),
            serve(Operations)
    end.

repeat(_, 0) -> ok;
repeat(Operation, Count) -> Operation(), repeat(Operation, Count - 1).
