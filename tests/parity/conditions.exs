defmodule Parity.Conditions do
  @moduledoc "Khepri's conditions (`include/khepri.hrl`) as an Elixir program has them."

  def if_name_matches(regex \\ :any), do: {:if_name_matches, regex, :undefined}
  def if_path_matches(regex \\ :any), do: {:if_path_matches, regex, :undefined}
  def if_has_payload(expected), do: {:if_has_payload, expected}
  def if_has_data(expected), do: {:if_has_data, expected}
  def if_has_sproc(expected), do: {:if_has_sproc, expected}
  def if_node_exists(expected), do: {:if_node_exists, expected}
  def if_payload_version(version), do: {:if_payload_version, version}
  def if_child_list_version(version), do: {:if_child_list_version, version}
  def if_child_list_length(count), do: {:if_child_list_length, count}
  def if_data_matches(pattern, guards \\ []), do: {:if_data_matches, pattern, guards, :undefined}
  def if_not(condition), do: {:if_not, condition}
  def if_all(conditions), do: {:if_all, conditions}
  def if_any(conditions), do: {:if_any, conditions}
end
