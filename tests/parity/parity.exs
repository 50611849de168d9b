# Runs cases of parity on a hidden node of the homeserver's cluster, as an Elixir program would.
#
#     elixir --hidden --name parity@127.0.0.1 parity.exs
#
# Each line of input is a request, a term by `term_to_binary` and Base64: see `run/1`. So is each line of
# output: `{:ok, answer}`, or `{:failed, text}`.

for name <- ~w(conditions remote verbs paths rows), do: Code.require_file("#{name}.exs", __DIR__)
[{Parity.Member, beam}] = Code.require_file("member.exs", __DIR__)
{:ok, {_, [debug_info: {_, backend, data}]}} = :beam_lib.chunks(beam, [:debug_info])
{:ok, forms} = backend.debug_info(:erlang_v1, Parity.Member, data, [])
:persistent_term.put(Parity.Member, forms)

defmodule Parity do
  alias Parity.{Member, Remote, Rows, Verbs}

  @calls %{
    "khepri" => &Remote.khepri/2,
    "khepri_adv" => &Remote.khepri_adv/2,
    "khepri_tx" => &Remote.khepri_tx/2,
    "khepri_tx_adv" => &Remote.khepri_tx_adv/2
  }

  def serve do
    Process.register(self(), :parity_events)
    # Whatever prints does so elsewhere: the standard output is for answers.
    output = Process.group_leader()
    {:ok, printed} = StringIO.open("")
    Process.group_leader(self(), printed)
    Enum.each(IO.stream(output, :line), &IO.puts(output, answer(&1)))
  end

  defp answer(line) do
    result =
      try do
        {:ok, line |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term() |> run()}
      catch
        kind, reason -> {:failed, Exception.format(kind, reason, __STACKTRACE__)}
      end

    result |> :erlang.term_to_binary() |> Base.encode64()
  end

  # The members, of which the first is called, and a directory that they can read.
  defp run({:connect, members, store, directory}) do
    Remote.connect(hd(members), store)

    # Compiled there: Horus takes what that member's own OTP has made. That of 25 cannot rebuild functions
    # with types.
    options = [:no_type_opt, :return_errors]
    {:ok, Member, beam} = Remote.call(:compile, :forms, [:persistent_term.get(Member), options])
    File.write!(Path.join(directory, "#{Member}.beam"), beam)

    # Khepri takes functions from files on the code path, and the bridge those of its operator's list.
    for member <- members do
      true = :erpc.call(member, :code, :add_patha, [String.to_charlist(directory)])
      {:module, Member} = :erpc.call(member, :code, :load_file, [Member])
      {:ok, allowed} = :erpc.call(member, :kb_procedures, :functions, [])
      :persistent_term.put({__MODULE__, member}, allowed)
      ours = [{Member, :told, 1}, {Member, :told_as_well, 1}]
      :ok = :erpc.call(member, :kb_procedures, :allow, [allowed ++ ours])
    end

    node()
  end

  # Leave the members as they were.
  defp run({:disconnect, members, directory}) do
    for member <- members do
      allowed = :persistent_term.get({__MODULE__, member})
      :ok = :erpc.call(member, :kb_procedures, :allow, [allowed])
      true = :erpc.call(member, :code, :del_path, [String.to_charlist(directory)])
    end

    :ok
  end

  # The steps of a verb, called as `khepri:put`, `khepri:put!`, `khepri_adv:put` and so on.
  defp run({:verb, name, root}) do
    [module, function] = String.split(name, ":")
    bang = if String.ends_with?(function, "!"), do: "!", else: ""
    verb = function |> String.trim_trailing("!") |> String.to_atom()
    call = Map.fetch!(@calls, module)
    text = Remote.call(:khepri_path, :to_binary, [root])
    Verbs.seed(root)

    for {label, {step, args}} <- Verbs.steps(verb, root, text) do
      {label, call.(:"#{step}#{bang}", args)}
    end
  end

  # Calls of functions of a module, one after the other.
  defp run({:calls, module, calls}) do
    for {function, args} <- calls, do: @calls[module].(function, args)
  end

  # Any other case.
  defp run({:row, name, root, argument}) do
    for {label, result} <- Rows.run(name, root, argument), do: {to_string(label), result}
  end

  # What so many triggers below a root told.
  defp run({:events, root, count}), do: Rows.events(root, count)
end

Parity.serve()
