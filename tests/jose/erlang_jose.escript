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

%% In a process of its own: there are questions that jose never stops thinking about.
answer(#{<<"op">> := Op} = Request) ->
    Self = self(),
    {Asked, Monitor} = spawn_monitor(fun() -> Self ! {self(), try_to(Op, Request)} end),
    receive
        {Asked, Answer} -> demonitor(Monitor, [flush]), Answer
    after 2000 ->
        exit(Asked, kill),
        #{error => <<"timeout">>}
    end.

try_to(Op, Request) ->
    try do(Op, Request)
    catch Class:Reason ->
        #{error => iolist_to_binary(io_lib:format("~w:~w", [Class, Reason]))}
    end.

do(<<"version">>, _) ->
    {ok, Version} = application:get_key(jose, vsn),
    #{version => list_to_binary(Version)};
do(<<"generate">>, #{<<"curve">> := Curve}) ->
    Key = jose_jwk:generate_key(parameters(Curve)),
    #{key => map(Key), public => map(jose_jwk:to_public(Key)), thumbprint => jose_jwk:thumbprint(Key),
      pem => pem(Key), public_pem => pem(jose_jwk:to_public(Key))};
do(<<"from_pem">>, #{<<"pem">> := Pem}) ->
    #{key => map(jose_jwk:from_pem(Pem))};
do(<<"thumbprint">>, #{<<"key">> := Key}) ->
    #{thumbprint => jose_jwk:thumbprint(jose_jwk:from_map(Key))};
do(<<"box_encrypt">>, #{<<"recipient">> := Recipient, <<"plaintext">> := Text} = Request) ->
    Public = jose_jwk:from_map(Recipient),
    {_, Box} = case Request of
        #{<<"enc">> := Enc, <<"sender">> := Sender} ->
            Header = #{<<"alg">> => <<"ECDH-ES">>, <<"enc">> => Enc},
            jose_jwk:box_encrypt(decode(Text), Header, Public, jose_jwk:from_map(Sender));
        #{<<"sender">> := Sender} -> jose_jwk:box_encrypt(decode(Text), Public, jose_jwk:from_map(Sender));
        #{} -> {Sealed, _Ephemeral} = jose_jwk:box_encrypt(decode(Text), Public), Sealed
    end,
    forms(Box);
do(<<"box_encrypt_ecdh_1pu">>, #{<<"recipient">> := Recipient, <<"sender">> := Sender, <<"plaintext">> := Text}) ->
    Public = jose_jwk:from_map(Recipient),
    {{_, Box}, _} = jose_jwk:box_encrypt_ecdh_1pu(decode(Text), Public, jose_jwk:from_map(Sender)),
    forms(Box);
do(<<"box_encrypt_ecdh_ss">>, #{<<"recipient">> := Recipient, <<"sender">> := Sender, <<"plaintext">> := Text}) ->
    Public = jose_jwk:from_map(Recipient),
    {_, Box} = jose_jwk:box_encrypt_ecdh_ss(decode(Text), Public, jose_jwk:from_map(Sender)),
    forms(Box);
do(<<"box_decrypt">>, #{<<"recipient">> := Recipient, <<"box">> := Box}) ->
    {Plain, _} = jose_jwk:box_decrypt(Box, jose_jwk:from_map(Recipient)),
    #{plaintext => encode(Plain)};
do(<<"sign">>, #{<<"key">> := Key, <<"payload">> := Payload}) ->
    {_, Flattened} = jose_jwk:sign(decode(Payload), jose_jwk:from_map(Key)),
    #{flattened => Flattened, compact => element(2, jose_jws:compact(Flattened))};
do(<<"verify">>, #{<<"key">> := Key, <<"token">> := Token}) ->
    {Holds, Payload, _} = jose_jwk:verify(Token, jose_jwk:from_map(Key)),
    #{holds => Holds, payload => encode(Payload)};
do(<<"sign_headed">>, #{<<"key">> := Key, <<"payload">> := Payload, <<"header">> := Header}) ->
    Signed = jose_jws:sign(jose_jwk:from_map(Key), decode(Payload), Header),
    #{compact => element(2, jose_jws:compact(Signed))};
%% docs/protocol.md section 4, by what jose has: `members` are those of the signed header that do not follow from keys.
do(<<"seal_signed_box">>, #{<<"recipient">> := Recipient, <<"sender">> := Sender, <<"plaintext">> := Text,
                            <<"members">> := Members}) ->
    {To, From} = {jose_jwk:from_map(Recipient), jose_jwk:from_map(Sender)},
    Fresh = jose_jwk:generate_key({ec, <<"P-256">>}),
    {Rcp, Snd} = {jose_jwk:thumbprint(To), jose_jwk:thumbprint(From)},
    Inside = <<(decode(Snd))/binary, (decode(Rcp))/binary, (decode(Text))/binary>>,
    Header = #{<<"alg">> => <<"ECDH-ES">>, <<"enc">> => <<"A128GCM">>, <<"apu">> => Snd, <<"apv">> => Rcp},
    {_, Box} = jose_jwk:box_encrypt(Inside, Header, To, Fresh),
    {_, Compact} = jose_jwe:compact(Box),
    {_, #{<<"protected">> := Protected, <<"signature">> := Signature}} =
        jose_jws:sign(From, Compact, Members#{
            <<"alg">> => <<"ES256">>, <<"b64">> => false, <<"crit">> => [<<"b64">>], <<"v">> => 1,
            <<"snd">> => Snd, <<"rcp">> => Rcp, <<"epk">> => jose_jwk:thumbprint(Fresh)
        }),
    #{token => <<Protected/binary, $., Compact/binary, $., Signature/binary>>}.

forms(Box) -> #{box => Box, compact => element(2, jose_jwe:compact(Box))}.

parameters(<<"P-", _/binary>> = Curve) -> {ec, Curve};
parameters(Curve) -> {okp, binary_to_atom(Curve)}.

map(Key) -> element(2, jose_jwk:to_map(Key)).
pem(Key) -> element(2, jose_jwk:to_pem(Key)).

encode(Raw) -> jose_jwa_base64url:encode(Raw).
decode(Text) -> jose_jwa_base64url:decode(Text).
