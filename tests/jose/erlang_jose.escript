%%! -noshell
%% Asks real erlang-jose. Reads one JSON list of requests from the file named by the first argument and
%% writes a JSON list of answers, in order, to the one named by the second. Binaries cross as base64url.
-mode(compile).

main([Requests, Answers]) ->
    {ok, _} = application:ensure_all_started(jose),
    ok = jose:json_module(jose_json_jiffy),
    {ok, Raw} = file:read_file(Requests),
    Done = [answer(R) || R <- jiffy:decode(Raw, [return_maps])],
    ok = file:write_file(Answers, jiffy:encode(Done)).

answer(#{<<"op">> := Op} = Request) ->
    try do(Op, Request)
    catch Class:Reason ->
        #{error => iolist_to_binary(io_lib:format("~p:~0p", [Class, Reason]))}
    end.

do(<<"box_encrypt">>, #{<<"recipient">> := Recipient, <<"plaintext">> := Text} = Request) ->
    Public = jose_jwk:from_map(Recipient),
    {_, Box} = case Request of
        #{<<"sender">> := Sender} -> jose_jwk:box_encrypt(decode(Text), Public, jose_jwk:from_map(Sender));
        #{} -> {Sealed, _Ephemeral} = jose_jwk:box_encrypt(decode(Text), Public), Sealed
    end,
    #{box => Box, compact => element(2, jose_jwe:compact(Box))};
do(<<"box_decrypt">>, #{<<"recipient">> := Recipient, <<"box">> := Box}) ->
    {Plain, _} = jose_jwk:box_decrypt(Box, jose_jwk:from_map(Recipient)),
    #{plaintext => encode(Plain)};
do(<<"sign">>, #{<<"key">> := Key, <<"payload">> := Payload}) ->
    {_, Token} = jose_jws:compact(jose_jwk:sign(decode(Payload), jose_jwk:from_map(Key))),
    #{token => Token};
do(<<"verify">>, #{<<"key">> := Key, <<"token">> := Token}) ->
    {Holds, Payload, _} = jose_jwk:verify(Token, jose_jwk:from_map(Key)),
    #{holds => Holds, payload => encode(Payload)};
do(<<"thumbprint">>, #{<<"key">> := Key}) ->
    #{thumbprint => jose_jwk:thumbprint(jose_jwk:from_map(Key))}.

encode(Raw) -> jose_jwa_base64url:encode(Raw).
decode(Text) -> jose_jwa_base64url:decode(Text).
