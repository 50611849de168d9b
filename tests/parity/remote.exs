defmodule Parity.Remote do
  @moduledoc """
  Khepri as a program on another node calls it: at a member of the cluster, by `:erpc`.

  What a call raises is a term like what it gives, `{:raised, class, reason}`, and procedures show as
  `{:procedure, arity}` instead of their code.
  """

  # `khepri:info/1` prints every node of the tree by a message of its own.
  @timeout 60_000

  @doc "The member that is called, and its store."
  def connect(member, store) do
    :persistent_term.put(__MODULE__, {member, store})
    version = call(:khepri_machine, :version, [])
    :persistent_term.put({__MODULE__, :version}, version)
  end

  def member, do: elem(:persistent_term.get(__MODULE__), 0)
  def store, do: elem(:persistent_term.get(__MODULE__), 1)

  @doc "All properties that a node has on this version of Khepri."
  def all_props do
    props = [
      :payload,
      :payload_version,
      :child_list_version,
      :child_list_length,
      :child_names,
      :has_payload
    ]

    if :persistent_term.get({__MODULE__, :version}) >= 2,
      do: [:delete_reason | props],
      else: props
  end

  def call(module, function, args) do
    shown(:erpc.call(member(), module, function, args, @timeout))
  catch
    :error, {:exception, reason, _stack} -> {:raised, :error, shown(reason)}
    :exit, {:exception, reason} -> {:raised, :exit, shown(reason)}
    :throw, reason -> {:raised, :throw, shown(reason)}
  end

  @doc "A function of `khepri`, which takes the store first."
  def khepri(function, args), do: call(:khepri, function, [store() | args])

  @doc """
  A function of `khepri_adv`, with all properties for whatever writes.

  Until 0.16 those for one node give its properties alone; here they come by path on every version. And a
  node that is not as demanded, on which 0.16 fails, is an empty answer from 0.17 on: here it is an error.
  """
  def khepri_adv(function, args) do
    options = if function in [:get, :get_many], do: args, else: with_props(function, args)
    by_path(function, hd(args), call(:khepri_adv, function, [store() | options]))
  end

  @doc "A function of `khepri_tx` in a transaction of its own."
  def khepri_tx(function, args), do: transaction(:khepri_tx, function, args)

  @doc "A function of `khepri_tx_adv` in a transaction of its own, in the shape of `khepri_adv/2`."
  def khepri_tx_adv(function, args) do
    result = transaction(:khepri_tx_adv, function, with_props(function, args))
    by_path(function, hd(args), result)
  end

  defp transaction(module, function, args) do
    run = &Parity.Member.run/3

    case khepri(:transaction, [run, [module, function, args], :rw, %{timeout: 5_000}]) do
      {:ok, result} -> result
      other -> other
    end
  end

  @values %{put: 2, put_many: 2, create: 2, update: 2, compare_and_swap: 3}

  defp with_props(function, args) do
    {given, options} = Enum.split(args, Map.get(@values, function, 1))
    given ++ [Map.merge(%{props_to_return: all_props()}, List.first(options, %{}))]
  end

  defp by_path(:get, _path, {:ok, props}) when props == %{} do
    {:error, {:khepri, :mismatching_node, %{}}}
  end

  defp by_path(function, path, {:ok, %{} = props} = result) do
    many = function in [:get_many, :put_many, :delete_many, :clear_many_payloads]

    if many or props == %{} or Enum.all?(Map.keys(props), &is_list/1) do
      result
    else
      {true, target} = call(:khepri_path, :targets_specific_node, [native(path)])
      {:ok, %{target => props}}
    end
  end

  defp by_path(_function, _path, other), do: other

  defp native(path) when is_binary(path), do: call(:khepri_path, :from_string, [path])
  defp native(path), do: path

  defp shown({:horus_fun, _, _, arity, _, _, _, _}), do: {:procedure, arity}
  defp shown(term) when is_tuple(term), do: List.to_tuple(shown(Tuple.to_list(term)))
  defp shown([first | rest]), do: [shown(first) | shown(rest)]
  defp shown(%{} = term), do: Map.new(term, fn {key, value} -> {key, shown(value)} end)
  defp shown(fun) when is_function(fun), do: :a_function
  defp shown(term), do: term
end
