%% The signed header of a box, as far as a homeserver reads one: it checks a release (docs/protocol.md §4, §7)
%% but cannot open it. ES256 only, with the key that the store holds for the sender.
-module(kb_box).

-export([release/2, sender/1, key/2]).

-define(MEMBERS, [<<"alg">>, <<"b64">>, <<"crit">>, <<"ctx">>, <<"dir">>, <<"epk">>, <<"iat">>, <<"pur">>,
                  <<"rcp">>, <<"seq">>, <<"sid">>, <<"snd">>, <<"ttl">>, <<"v">>]).
-define(U64, 16#FFFFFFFFFFFFFFFF).

-type claims() :: #{snd := binary(), rcp := binary(), sid := binary(), epoch := non_neg_integer(),
                    ctx := binary()}.

%% What an unproven release says of itself: enough to find the key.
-spec sender(binary()) -> {ok, claims()} | error.
sender(Box) ->
    try
        {Claims, _, _} = parse(Box),
        {ok, Claims}
    catch
        _:_ -> error
    end.

%% The claims of a release of `Entity', once its signature holds under the JWK.
-spec release(binary(), {binary(), binary()}) -> {ok, claims()} | error.
release(Box, {Entity, Key}) ->
    try
        {#{snd := Sender, epoch := Epoch, ctx := Context} = Claims, Covered, Signature} = parse(Box),
        Context = <<(integer_to_binary(Epoch))/binary, ":", Entity/binary>>,
        {ok, Point} = key(Key, Sender),
        <<R:256, S:256>> = Signature,
        Der = public_key:der_encode('ECDSA-Sig-Value', {'ECDSA-Sig-Value', R, S}),
        true = crypto:verify(ecdsa, sha256, Covered, Der, [Point, secp256r1]),
        {ok, Claims}
    catch
        _:_ -> error
    end.

%% The point of a public P-256 key whose RFC 7638 thumbprint is the given one.
-spec key(binary(), binary()) -> {ok, binary()} | error.
key(Jwk, Thumbprint) ->
    try
        {ok, #{<<"kty">> := <<"EC">>, <<"crv">> := <<"P-256">>, <<"x">> := X, <<"y">> := Y} = Members} =
            kb_json:object(Jwk),
        false = is_map_key(<<"d">>, Members),
        <<_:32/binary>> = XBytes = decode(X),
        <<_:32/binary>> = YBytes = decode(Y),
        Canonical = [<<"{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"">>, X, <<"\",\"y\":\"">>, Y, <<"\"}">>],
        Thumbprint = encode(crypto:hash(sha256, Canonical)),
        Point = <<4, XBytes/binary, YBytes/binary>>,
        true = on_curve(XBytes, YBytes),
        {ok, Point}
    catch
        _:_ -> error
    end.

parse(Box) when byte_size(Box) =< 65536 ->
    [Header, JweHeader, <<>>, Iv, Ciphertext, Tag, Signature] = binary:split(Box, <<".">>, [global]),
    lists:foreach(fun decode/1, [JweHeader, Ciphertext]),
    12 = byte_size(decode(Iv)),
    16 = byte_size(decode(Tag)),
    <<_:64/binary>> = Raw = decode(Signature),
    {ok, Members} = kb_json:object(decode(Header)),
    ?MEMBERS = lists:sort(maps:keys(Members)),
    #{<<"alg">> := <<"ES256">>, <<"b64">> := false, <<"crit">> := [<<"b64">>], <<"v">> := 1,
      <<"pur">> := <<"release">>, <<"dir">> := <<"n">>, <<"ttl">> := 0, <<"iat">> := Issued,
      <<"snd">> := Sender, <<"rcp">> := Recipient, <<"epk">> := Ephemeral, <<"sid">> := Session,
      <<"seq">> := Epoch, <<"ctx">> := Context} = Members,
    32 = byte_size(decode(Sender)),
    32 = byte_size(decode(Recipient)),
    32 = byte_size(decode(Ephemeral)),
    <<_:16/binary>> = SessionId = decode(Session),
    true = is_integer(Issued) andalso Issued =< ?U64,
    true = is_integer(Epoch) andalso Epoch =< ?U64,
    true = is_binary(Context),
    Covered = binary:part(Box, 0, byte_size(Box) - byte_size(Signature) - 1),
    {#{snd => Sender, rcp => Recipient, sid => SessionId, epoch => Epoch, ctx => Context}, Covered, Raw}.

on_curve(<<X:256>>, <<Y:256>>) ->
    P = 16#FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    B = 16#5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    X < P andalso Y < P andalso (Y * Y - (X * X * X - 3 * X + B)) rem P =:= 0.

%% Canonical base64url: what encodes back to the same text.
decode(Text) ->
    Bytes = base64:decode(pad(<<<<(standard(Byte))>> || <<Byte>> <= Text>>)),
    Text = encode(Bytes),
    Bytes.

standard($-) -> $+;
standard($_) -> $/;
standard(Byte) when Byte =/= $+, Byte =/= $/ -> Byte.

pad(Text) ->
    case byte_size(Text) rem 4 of
        0 -> Text;
        2 -> <<Text/binary, "==">>;
        3 -> <<Text/binary, "=">>
    end.

encode(Bytes) ->
    Text = base64:encode(Bytes),
    Bare = binary:part(Text, 0, byte_size(Text) - padding(Text)),
    <<<<(urlsafe(Byte))>> || <<Byte>> <= Bare>>.

padding(Text) -> length(binary:matches(Text, <<"=">>)).

urlsafe($+) -> $-;
urlsafe($/) -> $_;
urlsafe(Byte) -> Byte.
