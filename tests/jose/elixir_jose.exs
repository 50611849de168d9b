# Asks real Elixir: the same requests and answers as erlang_jose.escript, through the modules JOSE.JWK, JOSE.JWE and
# JOSE.JWS, as a program in Elixir calls them.

defmodule Answers do
  # In a process of its own: there are questions that jose never stops thinking about.
  def answer(request) do
    task = Task.async(fn -> try_to(request) end)

    case Task.yield(task, 2000) || Task.shutdown(task, :brutal_kill) do
      {:ok, answer} -> answer
      nil -> %{error: "timeout"}
    end
  end

  defp try_to(request) do
    ask(request["op"], request)
  catch
    kind, reason -> %{error: inspect({kind, reason}, binaries: :as_binaries)}
  end

  defp ask("version", _), do: %{version: to_string(Application.spec(:jose, :vsn))}

  defp ask("generate", %{"curve" => curve}) do
    key = JOSE.JWK.generate_key(parameters(curve))
    public = JOSE.JWK.to_public(key)

    %{
      key: map(key),
      public: map(public),
      thumbprint: JOSE.JWK.thumbprint(key),
      pem: pem(key),
      public_pem: pem(public)
    }
  end

  defp ask("from_pem", %{"pem" => pem}), do: %{key: map(JOSE.JWK.from_pem(pem))}
  defp ask("thumbprint", %{"key" => key}), do: %{thumbprint: JOSE.JWK.thumbprint(JOSE.JWK.from_map(key))}

  defp ask("box_encrypt", %{"enc" => enc, "recipient" => recipient, "sender" => sender, "plaintext" => text}) do
    header = %{"alg" => "ECDH-ES", "enc" => enc}
    recipient = JOSE.JWK.from_map(recipient)
    {_, box} = JOSE.JWK.box_encrypt(decode(text), header, recipient, JOSE.JWK.from_map(sender))
    forms(box)
  end

  defp ask("box_encrypt", %{"recipient" => recipient, "sender" => sender, "plaintext" => text}) do
    {_, box} = JOSE.JWK.box_encrypt(decode(text), JOSE.JWK.from_map(recipient), JOSE.JWK.from_map(sender))
    forms(box)
  end

  defp ask("box_encrypt", %{"recipient" => recipient, "plaintext" => text}) do
    {{_, box}, %JOSE.JWK{}} = JOSE.JWK.box_encrypt(decode(text), JOSE.JWK.from_map(recipient))
    forms(box)
  end

  defp ask("box_encrypt_ecdh_1pu", %{"recipient" => recipient, "sender" => sender, "plaintext" => text}) do
    recipient = JOSE.JWK.from_map(recipient)
    {{_, box}, _} = JOSE.JWK.box_encrypt_ecdh_1pu(decode(text), recipient, JOSE.JWK.from_map(sender))
    forms(box)
  end

  defp ask("box_encrypt_ecdh_ss", %{"recipient" => recipient, "sender" => sender, "plaintext" => text}) do
    recipient = JOSE.JWK.from_map(recipient)
    {_, box} = JOSE.JWK.box_encrypt_ecdh_ss(decode(text), recipient, JOSE.JWK.from_map(sender))
    forms(box)
  end

  defp ask("box_decrypt", %{"recipient" => recipient, "box" => box}) do
    {plain, %JOSE.JWE{}} = JOSE.JWK.box_decrypt(box, JOSE.JWK.from_map(recipient))
    %{plaintext: encode(plain)}
  end

  defp ask("sign", %{"key" => key, "payload" => payload}) do
    {_, flattened} = JOSE.JWK.sign(decode(payload), JOSE.JWK.from_map(key))
    {_, compact} = JOSE.JWS.compact(flattened)
    %{flattened: flattened, compact: compact}
  end

  defp ask("sign_headed", %{"key" => key, "payload" => payload, "header" => header}) do
    signed = JOSE.JWS.sign(JOSE.JWK.from_map(key), decode(payload), header)
    %{compact: elem(JOSE.JWS.compact(signed), 1)}
  end

  defp ask("verify", %{"key" => key, "token" => token}) do
    {holds, payload, _} = JOSE.JWK.verify(token, JOSE.JWK.from_map(key))
    %{holds: holds, payload: encode(payload)}
  end

  defp ask("seal_signed_box", %{"members" => members} = request) do
    to = JOSE.JWK.from_map(request["recipient"])
    from = JOSE.JWK.from_map(request["sender"])
    fresh = JOSE.JWK.generate_key({:ec, "P-256"})
    [rcp, snd, epk] = Enum.map([to, from, fresh], &JOSE.JWK.thumbprint/1)
    inside = decode(snd) <> decode(rcp) <> decode(request["plaintext"])
    header = %{"alg" => "ECDH-ES", "enc" => "A128GCM", "apu" => snd, "apv" => rcp}
    {_, box} = JOSE.JWK.box_encrypt(inside, header, to, fresh)
    {_, compact} = JOSE.JWE.compact(box)
    own = %{"alg" => "ES256", "b64" => false, "crit" => ["b64"], "v" => 1, "snd" => snd, "rcp" => rcp, "epk" => epk}
    {_, signed} = JOSE.JWS.sign(from, compact, Map.merge(members, own))
    %{token: signed["protected"] <> "." <> compact <> "." <> signed["signature"]}
  end

  defp forms(box), do: %{box: box, compact: elem(JOSE.JWE.compact(box), 1)}
  defp parameters("P-" <> _ = curve), do: {:ec, curve}
  defp parameters(curve), do: {:okp, String.to_atom(curve)}
  defp map(key), do: elem(JOSE.JWK.to_map(key), 1)
  defp pem(key), do: elem(JOSE.JWK.to_pem(key), 1)
  defp encode(raw), do: Base.url_encode64(raw, padding: false)
  defp decode(text), do: Base.url_decode64!(text, padding: false)
end

[requests, answers] = System.argv()
{:ok, _} = Application.ensure_all_started(:jose)
:ok = JOSE.json_module(:jose_json_jiffy)
asked = :jiffy.decode(File.read!(requests), [:return_maps])
File.write!(answers, :jiffy.encode(Enum.map(asked, &Answers.answer/1)))
