defmodule Parity.Paths do
  @moduledoc "`khepri_path`, on whatever paths a case gives."

  alias Parity.Remote

  def run("sigil_p", texts), do: each(texts, &path(:sigil_p, [&1, []]))
  def run("sigil_P", texts), do: each(texts, &path(:sigil_P, [&1, []]))
  def run("from_string", texts), do: each(texts, &path(:from_string, [:binary.bin_to_list(&1)]))

  def run(function, paths) when function in ["abspath", "combine_with_conditions"] do
    each(paths, fn {one, other} -> path(String.to_atom(function), [one, other]) end)
  end

  def run(function, paths), do: each(paths, &path(String.to_atom(function), [&1]))

  defp each(arguments, function) do
    for {argument, index} <- Enum.with_index(arguments), do: {index, function.(argument)}
  end

  defp path(function, args), do: Remote.call(:khepri_path, function, args)
end
