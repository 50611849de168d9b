defmodule Parity.Member do
  @moduledoc """
  What runs on a member of the cluster: functions that a program has inside the store, and those that need a process there.

  A member has no Elixir, so nothing of Elixir's own library is called.
  """

  @compile {:no_warn_undefined, [:khepri, :khepri_tx, :khepri_tx_adv]}

  single = [
    get: 1,
    put: 2,
    put: 3,
    put_many: 2,
    put_many: 3,
    create: 2,
    create: 3,
    update: 2,
    update: 3,
    compare_and_swap: 3,
    compare_and_swap: 4,
    delete: 1,
    delete: 2,
    delete_many: 1,
    delete_many: 2,
    clear_payload: 1,
    clear_payload: 2,
    clear_many_payloads: 1,
    clear_many_payloads: 2,
    get: 2,
    get_many: 1,
    get_many: 2
  ]

  questions = [
    is_empty: 0,
    get_or: 2,
    get_many_or: 2,
    exists: 1,
    has_data: 1,
    is_sproc: 1,
    count: 1
  ]

  @doc "The call of a function of `khepri_tx` or `khepri_tx_adv`, inside a transaction."
  for {module, functions} <- [khepri_tx: single ++ questions, khepri_tx_adv: single],
      {function, arity} <- functions do
    args = Macro.generate_arguments(arity, __MODULE__)

    def run(unquote(module), unquote(function), unquote(args)) do
      unquote(module).unquote(function)(unquote_splicing(args))
    end
  end

  @doc "Puts, and takes it back."
  def put_and_abort(path, data, reason) do
    :ok = :khepri_tx.put(path, data)
    :khepri_tx.abort(reason)
  end

  @doc "The procedure of a trigger: tells the Elixir node what happened."
  def told(%{path: path, on_action: action}) do
    :erlang.send({:parity_events, :"parity@127.0.0.1"}, {:told, path, action})
    :ok
  end

  @doc "Another one."
  def told_as_well(%{path: path, on_action: action}) do
    :erlang.send({:parity_events, :"parity@127.0.0.1"}, {:told_as_well, path, action})
    :ok
  end

  @doc "Asynchronous writes, and what `khepri:handle_async_ret/2` makes of what comes back."
  def async(store, writes) do
    :lists.foreach(
      fn
        {correlation, {:put, path, data}} ->
          :ok = :khepri.put(store, path, data, %{async: correlation})

        {correlation, {:delete, path}} ->
          :ok = :khepri.delete(store, path, %{async: correlation})
      end,
      writes
    )

    collect(store, :erlang.length(writes), [])
  end

  defp collect(_store, 0, found), do: found

  defp collect(store, left, found) do
    receive do
      {:ra_event, _, _} = event ->
        more = :khepri.handle_async_ret(store, event)
        collect(store, left - :erlang.length(more), more ++ found)
    after
      5_000 -> {:missing, left, found}
    end
  end
end
